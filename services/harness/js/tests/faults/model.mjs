// Random users do random things while a client is online and offline at random: in the end it has what the server
// has. Each case is a conversation of its own. PARLANCE_CASES of them; PARLANCE_SEED repeats a run.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Client, eventually, gateways, group, person, rest, token } from '../../client.mjs';

const CASES = Number(process.env.PARLANCE_CASES ?? 100);
const SEED = Number(process.env.PARLANCE_SEED ?? Math.floor(Math.random() * 2 ** 31));
const AT_ONCE = 12;
const OPERATIONS = 16;
const EMOJI = ['👍', '😂', '🎉'];

/** Random numbers below a bound that a seed repeats (mulberry32). */
function dice(seed) {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

/** What a client has of one conversation: pure, fed by live events and by syncs. */
class Model {
  messages = new Map();
  members = new Set();
  title = '';
  /** Everything up to here is known. */
  position = 0;
  epoch = '';
  /** Live events that came while a sync was under way: what it carries is mostly older. */
  #held = [];
  #syncing = true;

  /** Live events come in order and without a gap from the join on. */
  live(kind, payload) {
    if (this.#syncing) return void this.#held.push([kind, payload]);
    if (kind === 'message:new') this.position = Math.max(this.position, payload.seq);
    return this.#apply(kind, payload);
  }

  synced({ seq, type, ...event }) {
    this.position = Math.max(this.position, seq);
    this.#apply(type, event.message ?? event.conversation ?? event);
  }

  beginSync() {
    this.#syncing = true;
    this.#held = [];
  }

  endSync() {
    this.#syncing = false;
    for (const [kind, payload] of this.#held) this.live(kind, payload);
  }

  #apply(kind, payload) {
    if (kind === 'message:new' || kind === 'message:edited' || kind === 'message:deleted') this.#message(payload);
    if (kind === 'message:reaction') this.#of(payload.message_id).reactions = payload.reactions;
    if (kind === 'conversation:updated' && 'title' in payload) this.title = payload.title;
    if (kind === 'member:added') payload.members.forEach(({ user_id: user }) => this.members.add(user));
    if (kind === 'member:removed') {
      for (const { user_id: user } of payload.members ?? [payload]) this.members.delete(user);
    }
  }

  #of(id) {
    if (!this.messages.has(id)) this.messages.set(id, { id, reactions: [] });
    return this.messages.get(id);
  }

  #message({ id, seq, content, edited_at, deleted_at, reactions }) {
    const known = this.#of(id);
    // A sync shows the present, an event the past it reports.
    if (known.deleted_at || (known.edited_at && !deleted_at && (edited_at ?? '') < known.edited_at)) return;
    Object.assign(known, { seq, content, edited_at, deleted_at, reactions });
  }

  state() {
    return { title: this.title, members: [...this.members].sort(), messages: normal([...this.messages.values()]) };
  }
}

const normal = (messages) =>
  messages
    .map(({ id, seq, content, edited_at, deleted_at, reactions }) => ({
      id,
      seq,
      content,
      edited: Boolean(edited_at),
      deleted: Boolean(deleted_at),
      reactions: reactions.map(({ user_id: user, emoji }) => `${user} ${emoji}`).sort(),
    }))
    .sort((one, other) => one.seq - other.seq);

/** A client that comes and goes; the model outlives its connections. */
class Reader {
  model = new Model();
  #client;

  constructor(user, room) {
    this.user = user;
    this.room = room;
    this.model.title = room.title;
    room.participants.forEach(({ user_id: member }) => this.model.members.add(member));
  }

  get online() {
    return this.#client !== undefined;
  }

  async comes(gateway) {
    const client = new Client(this.user, gateway, { events: 'all' });
    client.socket.onAny((event, payload) => {
      if ((payload?.conversation_id ?? payload?.conversation?.id) === this.room.id) this.model.live(event, payload);
    });
    this.#client = await client.connected();
    this.model.beginSync();
    const joined = await client.joins(this.room);
    this.model.epoch ||= joined.epoch;
    for (let complete = false; !complete; ) {
      const { epoch, position: seq } = this.model;
      const answer = await client.does('sync', { conversations: { [this.room.id]: { epoch, seq } } });
      const page = answer.conversations[this.room.id];
      assert.ok(!page.resync, 'the database has not changed');
      for (const event of page.events) this.model.synced(event);
      complete = page.complete;
    }
    this.model.endSync();
  }

  goes() {
    this.#client.close();
    this.#client = undefined;
  }
}

/** One thing that a user does, by REST on some gateway; resolves when it is answered. */
function something(roll, { room, owner, guests, messages }) {
  const base = gateways[roll(gateways.length)];
  const by = (who, method, path, body) => rest(token(who), method, `/conversations/${room.id}${path}`, body, { base });
  const author = roll(2) === 0 ? owner : guests[0];
  const target = messages.length > 0 ? messages[roll(messages.length)] : undefined;
  const choice = target ? roll(12) : 0;
  if (choice < 4) {
    return by(author, 'POST', '/messages', { content: `text ${roll(1_000_000)}` }).then(({ status, body }) => {
      assert.equal(status, 201, JSON.stringify(body));
      messages.push({ id: body.id, author });
    });
  }
  const path = `/messages/${target.id}`;
  if (choice < 6) return by(target.author, 'PATCH', path, { content: `edited ${roll(1_000_000)}` });
  if (choice < 7) return by(target.author, 'DELETE', path);
  if (choice < 9) return by(author, 'POST', `${path}/reactions`, { emoji: EMOJI[roll(EMOJI.length)] });
  if (choice < 10) return by(author, 'DELETE', `${path}/reactions?emoji=${encodeURIComponent(EMOJI[roll(EMOJI.length)])}`);
  if (choice < 11) return by(owner, 'PATCH', '', { title: `title ${roll(1_000)}` });
  const guest = guests[1];
  return roll(2) === 0
    ? by(owner, 'POST', '/participants', { user_ids: [guest] })
    : by(owner, 'DELETE', `/participants/${guest}`);
}

async function truth(jwt, room) {
  const conversation = (await rest(jwt, 'GET', `/conversations/${room.id}`)).body;
  const { messages } = (await rest(jwt, 'GET', `/conversations/${room.id}/messages?limit=100`)).body;
  return {
    title: conversation.title,
    members: conversation.participants.map(({ user_id: user }) => user).sort(),
    messages: normal(messages),
  };
}

async function runCase(number) {
  const roll = dice(SEED + number);
  const [owner, user, ...guests] = ['owner', 'reader', 'guest', 'visitor'].map(person);
  const room = await group(owner, [user, guests[0]], `case ${number}`);
  const reader = new Reader(user, room);
  const scene = { room, owner, guests, messages: [] };
  const pending = [];
  for (let step = 0; step < OPERATIONS; step++) {
    if (roll(5) === 0) {
      if (reader.online) reader.goes();
      else await reader.comes(roll(gateways.length));
    }
    const done = something(roll, scene);
    // Some things happen at once.
    if (roll(3) === 0) pending.push(done);
    else await done;
    if (pending.length > 3) await Promise.all(pending.splice(0));
  }
  await Promise.all(pending);
  if (!reader.online) await reader.comes(roll(gateways.length));
  const server = await truth(token(user), room);
  try {
    await eventually(
      'the client has what the server has',
      () => {
        assert.deepEqual(reader.model.state(), server);
        return true;
      },
      5_000,
    );
  } catch (error) {
    const states = JSON.stringify({ client: reader.model.state(), server }, null, 1);
    throw new Error(`case ${number} of PARLANCE_SEED=${SEED}: ${error.message}\n${states}`);
  } finally {
    reader.goes();
  }
}

test(`${CASES} conversations end alike on both sides`, async () => {
  console.log(`PARLANCE_SEED=${SEED}`);
  let next = 0;
  const worker = async () => {
    while (next < CASES) await runCase(next++);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
});
