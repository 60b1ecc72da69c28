// Editors of every kind write one journal at random: none loses what another wrote, and all come to one text.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import * as Y from 'yjs';
import { closeAll, eventually, gateways, rest, token } from '../client.mjs';
import { agreed, numbered, speak } from '../vocabulary.mjs';

after(closeAll);

const SECONDS = Number(process.env.PARLANCE_JOURNAL_SECONDS ?? 30);
/** Longest pause between two edits of one editor. */
const PAUSE_MS = Number(process.env.PARLANCE_JOURNAL_PAUSE_MS ?? 250);
const CONVERGENCE_MS = 60_000;
/** Whether connections break meanwhile: then an edit may go without an answer, and clients come back by themselves. */
const BREAKS = process.env.PARLANCE_JOURNAL_BREAKS === '1';
const STOCK = { reconnection: true };

/** A user who adds paragraphs; subclasses say what an edit looks like on the wire. */
class Editor {
  static #number = 0;
  added = [];
  edits = 0;
  refusals = [];

  constructor(client, journal) {
    this.client = client;
    this.journal = journal;
    this.name = `e${Editor.#number++}`;
  }

  /** A paragraph no one else writes, between two lines of `text`: where, and what. */
  paragraph(text) {
    const token = `<${this.name}.${this.added.length}>`;
    this.added.push(token);
    const breaks = [0, ...[...text.matchAll(/\n/g)].map((found) => found.index + 1)];
    const at = breaks[Math.floor(Math.random() * breaks.length)];
    return [at, `${token} ${'lorem ipsum '.repeat(1 + (this.added.length % 3))}\n`];
  }

  /** Asks for the ack without waiting for it: a writer does not stop typing. */
  emits(event, payload) {
    this.edits += 1;
    const acked = this.client.socket.timeout(60_000).emitWithAck(event, payload);
    return acked.then(
      (ack) => ack?.ok || (BREAKS && (ack?.retry ?? ack?.error?.retry)) || this.refusals.push(ack),
      (error) => BREAKS || this.refusals.push(error.message),
    );
  }

  /** What a front end does whenever it is connected again. */
  returns(join) {
    this.client.socket.on('connect', () => {
      this.client.socket.timeout(60_000).emit(...join, (error, ack) => {
        const held = ack?.journal ?? ack;
        if (!error && held) /** @type {any} */ (this).joined(held);
      });
    });
  }

  joined() {}
}

/** Sends whole texts; what it is sent replaces its screen. */
class Whole extends Editor {
  constructor(client, journal, words, screen) {
    super(client, journal);
    this.words = words;
    this.screen = screen;
    client.socket.on(words.shown, ({ content }) => (this.screen = content));
  }

  edit() {
    const [at, added] = this.paragraph(this.screen);
    this.screen = this.screen.slice(0, at) + added + this.screen.slice(at);
    return this.emits(this.words.edit, { [this.words.id]: this.journal, content: this.screen });
  }
}

/** Tries the same without the right to; the server's text stays on its screen. */
class Viewer extends Whole {
  edit() {
    const { screen } = this;
    const answered = super.edit();
    this.screen = screen;
    return answered;
  }
}

/** Keeps a document of its own and sends its changes. */
class Merging extends Editor {
  constructor(client, journal, state) {
    super(client, journal);
    this.document = new Y.Doc();
    const apply = (update) => Y.applyUpdate(this.document, Buffer.from(update, 'base64'), 'server');
    apply(state);
    client.socket.on('journal:updated', ({ update }) => apply(update));
    this.isJoined = true;
    client.socket.on('disconnect', () => (this.isJoined = false));
  }

  /** Sends what the server does not have, as Yjs clients do. */
  joined({ update }) {
    const theirs = new Y.Doc();
    const bytes = Buffer.from(update, 'base64');
    Y.applyUpdate(theirs, bytes);
    Y.applyUpdate(this.document, bytes, 'server');
    this.isJoined = true;
    this.sends(Y.encodeStateAsUpdate(this.document, Y.encodeStateVector(theirs)));
  }

  sends(update) {
    const encoded = Buffer.from(update).toString('base64');
    return this.emits('journal:edit', { journal_id: this.journal, update: encoded });
  }

  get screen() {
    return this.document.getText('content').toString();
  }

  edit() {
    const [at, added] = this.paragraph(this.screen);
    const before = Y.encodeStateVector(this.document);
    this.document.getText('content').insert(at, added);
    // What is written before the journal is joined again is sent then.
    return this.isJoined ? this.sends(Y.encodeStateAsUpdate(this.document, before)) : undefined;
  }
}

const JOURNAL = { edit: 'journalEdit', shown: 'journalUpdate', id: 'journalId' };
const NATIVE = { edit: 'journal:edit', shown: 'journal:updated', id: 'journal_id' };

/** A journal with four editors of three kinds on two gateways, and two viewers. */
async function scene() {
  const owner = numbered();
  const created = await rest(token(owner), 'POST', '/journals', { title: 'A journal', content: 'Begun.\n' });
  assert.equal(created.status, 201, created.text);
  const { id, number } = created.body;
  const person = async (permission) => {
    const user = numbered();
    const shared = await rest(token(owner), 'POST', `/journals/${id}/collaborators`, { user_id: user, permission });
    assert.ok(shared.status < 300, shared.text);
    return user;
  };
  const whole = async (dialect, words, permission, gateway) => {
    const user = permission ? await person(permission) : owner;
    const client = await speak(dialect, user, gateway, STOCK);
    const joined = await agreed(client, dialect === 'journal' ? 'joinJournal' : 'journal:join', {
      [words.id]: words === JOURNAL ? number : id,
    });
    const kind = permission === 'viewer' ? Viewer : Whole;
    return new kind(client, words === JOURNAL ? number : id, words, (joined.journal ?? joined).content);
  };
  const merging = await speak('native', await person('editor'), 1, STOCK);
  const { journal } = await agreed(merging, 'journal:join', { journal_id: id });
  const editors = [
    await whole('journal', JOURNAL, undefined, 0),
    await whole('journal', JOURNAL, 'editor', 1),
    await whole('native', NATIVE, 'editor', 0),
    new Merging(merging, id, journal.update),
  ];
  const viewers = [await whole('journal', JOURNAL, 'viewer', 1), await whole('native', NATIVE, 'viewer', 0)];
  for (const one of [...editors, ...viewers]) {
    const { words = NATIVE, journal } = /** @type {any} */ (one);
    one.returns([words === JOURNAL ? 'joinJournal' : 'journal:join', { [words.id]: journal }]);
  }
  return { id, owner, editors, viewers };
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Writes until the time is over; resolves when every edit is answered. */
async function writes(editor, until) {
  const answers = [];
  while (Date.now() < until) {
    answers.push(editor.edit());
    await pause(Math.random() * PAUSE_MS);
  }
  await Promise.all(answers);
}

test(`four editors write for ${SECONDS} s and nobody's words are lost`, async () => {
  const { id, owner, editors, viewers } = await scene();
  const until = Date.now() + SECONDS * 1000;
  await Promise.all([...editors, ...viewers].map((one) => writes(one, until)));
  const answered = Date.now();
  const tokens = editors.flatMap((editor) => editor.added);
  const spoilt = viewers.flatMap((viewer) => viewer.added);

  const stored = async (gateway) =>
    (await rest(token(owner), 'GET', `/journals/${id}`, undefined, { base: gateways[gateway] })).body.content;
  const followers = [...editors, ...viewers];
  const text = await eventually(
    'all show the stored text',
    async () => {
      const truth = await stored(0);
      const other = followers.find((one) => one.screen !== truth);
      if (other) throw new Error(`${other.name} shows ${other.screen.length} characters, stored are ${truth.length}`);
      return truth;
    },
    CONVERGENCE_MS,
  );
  const converged = Date.now() - answered;
  assert.equal(await stored(1), text);

  const missing = tokens.filter((one) => !text.includes(one));
  const doubled = tokens.filter((one) => text.split(one).length > 2);
  const bad = spoilt.filter((one) => text.includes(one));
  const edits = editors.map((editor) => `${editor.name} ${editor.edits}`).join(', ');
  console.log(
    `journal load: ${editors.reduce((sum, one) => sum + one.edits, 0)} edits (${edits}), ` +
      `${tokens.length} paragraphs, ${missing.length} missing, ${doubled.length} doubled, ` +
      `${editors.flatMap((one) => one.refusals).length} refused, ${spoilt.length} attempts of viewers, ` +
      `${text.length} characters, converged in ${converged} ms`,
  );
  assert.deepEqual([missing, doubled, bad], [[], [], []]);
  for (const editor of editors) assert.deepEqual(editor.refusals, [], editor.name);
  for (const viewer of viewers) {
    const told = viewer.refusals.length;
    assert.ok(BREAKS ? told > 0 : told === viewer.edits, 'a viewer received a refusal');
  }
  assert.equal(text.split('\n').length, tokens.length + 2);
  assert.ok(tokens.length > SECONDS * 4, `only ${tokens.length} paragraphs`);
});
