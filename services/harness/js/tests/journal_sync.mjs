// Clients that keep a journal's Yjs document themselves: state vectors and differences instead of texts.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import * as Y from 'yjs';
import { closeAll, eventually, person, rest, token } from '../client.mjs';
import { speak } from '../vocabulary.mjs';

after(closeAll);

const encode = (bytes) => Buffer.from(bytes).toString('base64');
const decode = (text) => Buffer.from(text, 'base64');
const LONG = 'lorem ipsum '.repeat(1_000);

/** A client with a document of its own. */
class Keeper {
  /** @type {string} */
  id;
  doc = new Y.Doc();
  text = this.doc.getText('content');
  updates = [];

  static async connect(user, id, gateway) {
    const keeper = new Keeper();
    keeper.id = id;
    await keeper.reconnect(user, gateway);
    return keeper;
  }

  async reconnect(user, gateway) {
    this.client?.close();
    this.client = await speak('native', user, gateway);
    this.client.socket.on('journal:updated', (journal) => {
      this.updates.push(journal);
      Y.applyUpdate(this.doc, decode(journal.update));
    });
  }

  async joins(/** @type {{ state_vector?: string }} */ more = { state_vector: encode(Y.encodeStateVector(this.doc)) }) {
    const { journal } = await this.client.does('journal:join', { journal_id: this.id, ...more });
    Y.applyUpdate(this.doc, decode(journal.update));
    return journal;
  }

  sends(update) {
    return this.client.does('journal:edit', { journal_id: this.id, update: encode(update) });
  }

  async writes(words, at = 0) {
    const before = Y.encodeStateVector(this.doc);
    this.text.insert(at, words);
    return this.sends(Y.encodeStateAsUpdate(this.doc, before));
  }
}

async function scene() {
  const [alice, bob] = ['alice', 'bob'].map(person);
  const created = await rest(token(alice), 'POST', '/journals', { title: 'A journal', content: LONG });
  assert.equal(created.status, 201, created.text);
  const { id } = created.body;
  const shared = await rest(token(alice), 'POST', `/journals/${id}/collaborators`, { user_id: bob, permission: 'editor' });
  assert.ok(shared.status < 300, shared.text);
  return { id, people: [alice, bob], keepers: [await Keeper.connect(alice, id, 0), await Keeper.connect(bob, id, 1)] };
}

test('a join with a state vector is answered with the difference, and changes are emitted without the text', async () => {
  const { people, keepers } = await scene();
  const [one, other] = keepers;
  const whole = await one.joins();
  assert.equal(one.text.toString(), LONG);
  assert.deepEqual([whole.content, typeof whole.state_vector], [undefined, 'string']);
  await other.joins({});
  await other.writes('Hello. ');
  await eventually('the change', () => one.text.toString() === `Hello. ${LONG}`);
  await one.writes('Dear Bob! ');
  await eventually('and the one of the other', () => other.text.toString() === `Dear Bob! Hello. ${LONG}`);
  for (const update of one.updates) {
    assert.equal(update.content, undefined);
    assert.ok(JSON.stringify(update).length < 1_000, 'it holds no text');
  }
  for (const update of other.updates) assert.ok(update.content.endsWith(LONG), 'who joined without is emitted texts');
  // Back on the other gateway, it receives its backfill and sends what was never stored.
  one.client.close();
  await other.writes('While away. ');
  one.text.insert(0, 'Offline. ');
  await one.reconnect(people[0], 1);
  const missed = await one.joins();
  assert.ok(missed.update.length < 1_000, `${missed.update.length} characters of a difference`);
  await one.sends(Y.encodeStateAsUpdate(one.doc, decode(missed.state_vector)));
  await eventually('one text', () => one.text.toString() === other.text.toString());
  for (const words of ['While away. ', 'Offline. ', 'Dear Bob! Hello. ']) {
    assert.equal(one.text.toString().split(words).length, 2, words);
  }
  const again = await one.joins();
  const known = [again.state_vector, encode(Y.encodeStateVector(one.doc))].map((text) => Y.decodeStateVector(decode(text)));
  assert.deepEqual(known[0], known[1]);
});

test('what is no state vector is refused, and a later join without one brings texts again', async () => {
  const { id, keepers } = await scene();
  const [one, other] = keepers;
  for (const state_vector of ['!', encode([255, 255, 255, 255, 15]), encode([1, 1])]) {
    await one.client.fails('invalid', 'journal:join', { journal_id: id, state_vector });
  }
  await one.joins();
  assert.equal((await one.joins({})).content, LONG);
  await other.joins();
  await other.writes('Hello. ');
  await eventually('the change', () => one.updates.some(({ content }) => content === `Hello. ${LONG}`));
});

test('a large text is not sent after every change, but its last one and all that changed are', async () => {
  const [alice, bob] = ['alice', 'bob'].map(person);
  const content = LONG.repeat(16);
  const created = await rest(token(alice), 'POST', '/journals', { title: 'A large journal', content });
  const { id } = created.body;
  await rest(token(alice), 'POST', `/journals/${id}/collaborators`, { user_id: bob, permission: 'editor' });
  const [writer, reader] = [await Keeper.connect(alice, id, 0), await Keeper.connect(bob, id, 1)];
  await writer.joins();
  // Without a state vector: it is sent texts, and may keep a document beside them.
  await reader.joins({});
  const begun = Date.now();
  for (let n = 0; n < 40; n += 1) await writer.writes(`<${n}>`);
  const took = Date.now() - begun;
  await eventually('the reader has every change', () => reader.text.toString() === writer.text.toString());
  assert.equal(reader.updates.at(-1).content, writer.text.toString());
  // 188 KiB, of which a second has room for five: as many as that, the first, and the last.
  const [sent, most] = [reader.updates.length, (took / 1_000) * 5.6 + 2];
  console.log(`${sent} texts in ${took} ms`);
  assert.ok(sent <= most, `${sent} texts in ${took} ms`);
  const versions = reader.updates.map((update) => update.version);
  assert.deepEqual(
    versions,
    [...new Set(versions)].sort((a, b) => a - b),
  );
});
