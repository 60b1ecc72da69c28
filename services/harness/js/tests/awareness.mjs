// Names and cursors in a journal: y-protocols awareness between native clients of two gateways.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Awareness, applyAwarenessUpdate, encodeAwarenessUpdate } from 'y-protocols/awareness';
import * as Y from 'yjs';
import { closeAll, eventually, group, person, rest, token } from '../client.mjs';
import { says, speak } from '../vocabulary.mjs';

after(() => {
  closeAll();
  for (const page of pages) page.awareness.destroy();
});

/** Others show nothing of a page that vanished, after this. */
const GONE_MS = 15_000;
/** "At once", on a machine that is busy. */
const AT_ONCE_MS = 2_000;
const pages = [];
const encode = (update) => Buffer.from(update).toString('base64');

/** A page of a user that has the journal open, with the awareness of y-protocols. */
class Page {
  awareness = new Awareness(new Y.Doc());
  /** When each event came. */
  events = [];
  /** @type {string} */
  id;
  /** @type {string} */
  user;
  /** @type {import('../client.mjs').Client} */
  client;

  static async open(user, id, gateway = 0) {
    const page = new Page();
    pages.push(page);
    page.id = id;
    page.user = user;
    page.client = await speak('native', user, gateway);
    page.client.socket.on('journal:awareness', ({ journal_id, update }) => {
      assert.equal(journal_id, id);
      page.events.push(Date.now());
      applyAwarenessUpdate(page.awareness, Buffer.from(update, 'base64'), 'server');
    });
    return page;
  }

  static async join(...args) {
    const page = await Page.open(...args);
    await page.client.does('journal:join', { journal_id: page.id });
    return page;
  }

  get clientId() {
    return this.awareness.clientID;
  }

  /** What is sent of these client ids; of this page's own by default. */
  payload(clients = [this.clientId]) {
    return { journal_id: this.id, update: encode(encodeAwarenessUpdate(this.awareness, clients)) };
  }

  /** Shows the others a state. */
  shows(state) {
    this.awareness.setLocalState(state);
    return this.client.does('journal:awareness', this.payload());
  }

  /** The state of another page, as this one knows it. */
  of(other) {
    return this.awareness.getStates().get(other.clientId);
  }

  sees(other, what, matches, within) {
    return eventually(`${this.user} sees ${what} of ${other.user}`, () => matches(this.of(other)), within);
  }

  seesGone(other, within) {
    return this.sees(other, 'nothing more', (state) => state === undefined, within);
  }
}

/** A journal of alice with bob as an editor and carol as a viewer. */
async function scene() {
  const [alice, bob, carol] = ['alice', 'bob', 'carol'].map(person);
  const created = await rest(token(alice), 'POST', '/journals', { title: 'A journal', content: 'Begun.' });
  assert.equal(created.status, 201, created.text);
  const { id } = created.body;
  for (const [user_id, permission] of [
    [bob, 'editor'],
    [carol, 'viewer'],
  ]) {
    const shared = await rest(token(alice), 'POST', `/journals/${id}/collaborators`, { user_id, permission });
    assert.ok(shared.status < 300, shared.text);
  }
  return { id, alice, bob, carol };
}

const cursor = (at) => ({ cursor: { anchor: at, head: at }, user: { color: '#30bced' } });

test('a cursor appears on another gateway under the name of its session', async () => {
  const { id, alice, bob } = await scene();
  const [one, other] = [await Page.join(alice, id, 0), await Page.join(bob, id, 1)];
  await one.shows({ ...cursor(3), user: { id: bob, name: 'Bob', color: '#fff' } });
  const seen = await other.sees(one, 'the cursor', (state) => state?.cursor?.anchor === 3 && state);
  assert.deepEqual(seen, { ...cursor(3), user: { id: alice, name: alice, color: '#fff' } });
  // Without an ack, and without saying who one is.
  one.awareness.setLocalState({ note: 'ü😄' });
  says(one.client, 'journal:awareness', one.payload());
  const next = await other.sees(one, 'the note', (state) => state?.note && state);
  assert.deepEqual(next, { note: 'ü😄', user: { id: alice, name: alice } });
});

test('a hundred moves in a second are eleven events at most, and the last one arrives', async () => {
  const { id, alice, bob, carol } = await scene();
  const mover = await Page.join(alice, id, 0);
  const others = [await Page.join(bob, id, 1), await Page.join(carol, id, 0)];
  await mover.shows(cursor(-1));
  for (const other of others) await other.sees(mover, 'the cursor', (state) => state?.cursor);
  await new Promise((resolve) => setTimeout(resolve, 200));
  for (const page of [mover, ...others]) page.events.length = 0;
  const begun = Date.now();
  for (let move = 0; move < 100; move += 1) {
    const wait = begun + move * 10 - Date.now();
    if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
    mover.awareness.setLocalState(cursor(move));
    says(mover.client, 'journal:awareness', mover.payload());
  }
  for (const other of others) await other.sees(mover, 'the last move', (state) => state?.cursor.anchor === 99);
  const seconds = Math.max(1, (Date.now() - begun) / 1000);
  for (const other of others) {
    console.log(`${other.events.length} events in ${seconds} s`);
    assert.ok(other.events.length <= Math.ceil(10 * seconds) + 1, `${other.events.length} events in ${seconds} s`);
    assert.ok(other.events.length >= 5, `${other.events.length} events: moves arrive while they happen`);
  }
  assert.deepEqual(mover.events, [], 'nobody is sent their own');
});

test('who joins is sent at once what is shown, also on a gateway that did not follow the journal', async () => {
  const { id, alice, bob, carol } = await scene();
  const one = await Page.join(alice, id, 0);
  await one.shows(cursor(3));
  const sameGateway = await Page.join(bob, id, 0);
  assert.equal(sameGateway.of(one)?.cursor.anchor, 3, 'it comes before the answer');
  const otherGateway = await Page.join(carol, id, 1);
  await otherGateway.sees(one, 'the cursor', (state) => state?.cursor.anchor === 3, AT_ONCE_MS);
});

test('who may only read shows a cursor too; who has not joined, or is no member, does not', async () => {
  const { id, alice, bob, carol } = await scene();
  const [one, viewer] = [await Page.join(alice, id, 0), await Page.join(carol, id, 1)];
  await viewer.shows(cursor(7));
  await one.sees(viewer, 'the cursor', (state) => state?.cursor.anchor === 7);
  const member = await Page.open(bob, id, 1);
  await eventually('it is known that he is a member', async () => {
    const { error } = await member.client.ask('journal:awareness', member.payload());
    return error.code === 'forbidden';
  });
  const stranger = await Page.open(person('mallory'), id, 0);
  await stranger.client.fails('not_found', 'journal:awareness', stranger.payload());
  const team = await group(alice, [bob]);
  await member.client.does('conversation:join', { conversation_id: team.id });
  await member.client.fails('not_found', 'journal:awareness', { ...member.payload(), journal_id: team.id });
  // What is shown after all that has come to those who joined, and to nobody else.
  await one.shows(cursor(8));
  await viewer.sees(one, 'the later cursor', (state) => state?.cursor?.anchor === 8);
  assert.deepEqual([member.events, stranger.events], [[], []]);
  assert.equal(one.awareness.getStates().size, 2);
});

test('what is no awareness update, or too much of it, is refused', async () => {
  const { id, alice } = await scene();
  const page = await Page.join(alice, id);
  const update = (bytes) => ({ journal_id: id, update: encode(Uint8Array.from(bytes)) });
  const states = (count, state) => {
    const all = Array.from({ length: count }, (_, index) => index + 1);
    /** @type {any} */
    const awareness = { states: new Map(all.map((one) => [one, state])), meta: new Map(all.map((one) => [one, { clock: 1 }])) };
    return { journal_id: id, update: encode(encodeAwarenessUpdate(awareness, all)) };
  };
  const fails = (code, payload) => page.client.fails(code, 'journal:awareness', payload);
  await fails('invalid', { journal_id: id });
  await fails('invalid', { journal_id: id, update: '!' });
  await fails('invalid', update([]));
  await fails('invalid', update([1, 1, 1, 9, 123]));
  await fails('too_large', update([255, 255, 255, 255, 15]));
  await fails('invalid', states(1, [1]));
  await fails('invalid', states(1, 'text'));
  await fails('too_large', states(1, { text: 'x'.repeat(2048) }));
  await fails('too_large', states(6, {}));
  await page.client.does('journal:awareness', states(5, { text: 'x'.repeat(2000) }));
  await page.client.does('journal:awareness', update([0]));
});

test('a client id belongs to one user while it shows something', async () => {
  const { id, alice, bob } = await scene();
  const [one, other] = [await Page.join(alice, id, 0), await Page.join(bob, id, 1)];
  await one.shows(cursor(1));
  await other.sees(one, 'the cursor', (state) => state?.cursor.anchor === 1);
  await other.shows(cursor(2));
  // A provider that sends on all it knows is not refused, and changes nothing.
  await other.client.does('journal:awareness', other.payload([one.clientId, other.clientId]));
  await other.client.does('journal:awareness', other.payload([one.clientId]));
  /** @type {any} */
  const posing = { states: new Map(), meta: new Map([[one.clientId, { clock: 50 }]]) };
  for (const state of [null, { user: { id: alice, name: alice } }]) {
    posing.states.set(one.clientId, state);
    const update = encode(encodeAwarenessUpdate(posing, [one.clientId], posing.states));
    await other.client.fails('conflict', 'journal:awareness', { journal_id: id, update });
  }
  await one.shows(cursor(4));
  const seen = await other.sees(one, 'the cursor', (state) => state?.cursor.anchor === 4 && state);
  assert.equal(seen.user.name, alice);
});

test('who leaves, disconnects or is removed is gone at once', async () => {
  const { id, alice, bob, carol } = await scene();
  const one = await Page.join(alice, id, 0);
  const shown = async (user, gateway) => {
    const page = await Page.join(user, id, gateway);
    await page.shows(cursor(5));
    await one.sees(page, 'the cursor', (state) => state?.cursor);
    return page;
  };
  const leaving = await shown(bob, 1);
  await leaving.client.does('journal:leave', { journal_id: id });
  await one.seesGone(leaving, AT_ONCE_MS);
  await leaving.client.fails('forbidden', 'journal:awareness', leaving.payload());
  const disconnecting = await shown(bob, 1);
  disconnecting.client.close();
  await one.seesGone(disconnecting, AT_ONCE_MS);
  const clearing = await shown(bob, 0);
  await clearing.shows(null);
  await one.seesGone(clearing, AT_ONCE_MS);
  const removed = await shown(carol, 1);
  const { status } = await rest(token(alice), 'DELETE', `/journals/${id}/collaborators/${carol}`);
  assert.ok(status < 300);
  await one.seesGone(removed, AT_ONCE_MS);
  await eventually('she is refused', async () => {
    const { error } = await removed.client.ask('journal:awareness', removed.payload());
    return error?.code === 'not_found';
  });
  removed.events.length = 0;
  await one.shows(cursor(6));
  await clearing.sees(one, 'the cursor', (state) => state?.cursor.anchor === 6);
  assert.deepEqual(removed.events, []);
});

test('a page that is still connected and renews nothing is gone in time, and comes back', async () => {
  const { id, alice, bob } = await scene();
  const [one, frozen] = [await Page.join(alice, id, 0), await Page.join(bob, id, 1)];
  await frozen.shows(cursor(1));
  await one.sees(frozen, 'the cursor', (state) => state?.cursor);
  const begun = Date.now();
  const renewed = setInterval(() => one.shows(cursor(2)), 5_000);
  await one.seesGone(frozen, GONE_MS);
  clearInterval(renewed);
  console.log(`gone after ${Date.now() - begun} ms`);
  assert.ok(Date.now() - begun > 10_000, 'two renewals may be lost');
  await frozen.sees(one, 'the cursor', (state) => state?.cursor.anchor === 2);
  // It received the error, and with y-protocols goes on from there.
  await frozen.shows(cursor(3));
  await one.sees(frozen, 'the cursor', (state) => state?.cursor.anchor === 3);
});
