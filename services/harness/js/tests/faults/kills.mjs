// The gateway that stock clients are on is killed in the middle of a conversation, again and again: one client of
// each dialect, connected through a load balancer, comes back by itself on the other replica and misses nothing.
// How often: PARLANCE_KILLS. With PARLANCE_PUSHED=1 missed messages must come without being asked for.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { balancer } from '../../balancer.mjs';
import { Client, closeAll, eventually, gateways, group, person, rest, token } from '../../client.mjs';
import { direct } from '../../director.mjs';
import { agreed, follows, numbered, says } from '../../vocabulary.mjs';

const KILLS = Number(process.env.PARLANCE_KILLS ?? 3);
const PUSHED = process.env.PARLANCE_PUSHED === '1';
const SETTLED_MS = 15_000;

const camel = ({ id }) => ({ conversationId: id });
const join = (event, form) => (client, at) => agreed(client, event, form(at));

/** How a front end enters a conversation and says something; and what it hears, as `id` and what else counts. */
const DIALECTS = {
  native: {
    enter: join('conversation:join', ({ id }) => ({ conversation_id: id })),
    send: ({ id }, content) => ['message:send', { conversation_id: id, content }],
    new: ['message:new', ({ id, content }) => ({ id, content })],
    edited: ['message:edited', ({ id, content }) => ({ id, content })],
    deleted: ['message:deleted', ({ id }) => ({ id })],
    marked: ['message:reaction', ({ message_id: id, user_id: who }) => ({ id, who })],
    read: ['receipt:updated', ({ user_id: who }) => ({ who })],
  },
  journal: {
    enter: join('joinRoom', ({ number }) => number),
    send: ({ number }, content, user) => ['sendMessage', { conversationId: number, senderId: Number(user), content }],
    new: ['receiveMessage', ({ message_id: id, content }) => ({ id, content })],
    edited: ['messageEdited', ({ message_id: id, content }) => ({ id, content })],
    deleted: ['messageDeleted', ({ messageIds }) => ({ id: messageIds[0] })],
    read: ['messageUpdated', ({ userId: who }) => ({ who })],
  },
  encrypted: {
    enter: (client, at) => follows(client, 'chat:typing', { ...camel(at), isTyping: false }),
    send: (at, contentEncrypted) => ['chat:message_send', { ...camel(at), contentEncrypted }],
    new: ['chat:message_received', ({ id, content_encrypted: content }) => ({ id, content })],
    edited: ['chat:message_edited', ({ id, content_encrypted: content }) => ({ id, content })],
    deleted: ['chat:message_deleted', ({ messageId: id }) => ({ id })],
    marked: ['chat:reaction_updated', ({ messageId: id, userId: who }) => ({ id, who })],
    read: ['chat:message_status_updated', ({ userId: who, status }) => status === 'read' && { who }],
  },
  chats: {
    enter: (client, { id }) => follows(client, 'typing:stop', { chatId: id }),
    send: ({ id }, content) => ['message:send', { chatId: id, content, messageType: 'text' }],
    new: ['message:new', ({ id, content }) => ({ id, content })],
    edited: ['message:edited', ({ id, content }) => ({ id, content })],
    deleted: ['message:deleted', ({ messageId: id }) => ({ id })],
    marked: ['message:reaction', ({ messageId: id, userId: who }) => ({ id, who })],
    read: ['message:read', ({ userId: who }) => ({ who })],
  },
  threads: {
    enter: join('conversation:join', ({ id }) => id),
    send: (at, content) => ['message:send', { ...camel(at), content, tempId: content }],
    new: ['message:new', ({ id, content }) => ({ id, content })],
    edited: ['message:edited', ({ id, content }) => ({ id, content })],
    deleted: ['message:deleted', ({ messageId: id }) => ({ id })],
    marked: ['message:reaction', ({ messageId: id, userId: who }) => ({ id, who })],
    read: ['message:read', ({ userId: who }) => ({ who })],
  },
  inbox: {
    enter: join('join_conversation', ({ id }) => id),
    send: (at, content) => ['send_message', { ...camel(at), content }],
    new: ['new_message', ({ id, content }) => ({ id, content })],
    edited: ['message_edited', ({ id, content }) => ({ id, content })],
    deleted: ['message_deleted', ({ messageId: id }) => ({ id })],
    marked: ['message_reaction', ({ messageId: id, userId: who }) => ({ id, who })],
    read: ['messages_read', ({ userId: who }) => ({ who })],
  },
};

/** A front end: keeps its messages by id, as all of them do. */
class FrontEnd {
  messages = new Map();
  reads = 0;
  doubled = 0;
  #shown = new Set();
  #heard = [];
  entered = false;

  constructor(name, user, url) {
    this.name = name;
    this.words = DIALECTS[name];
    this.user = user;
    this.client = new Client(user, 0, {
      auth: { token: token(user), dialect: name },
      events: 'all',
      url,
      reconnection: true,
      reconnectionDelay: 200,
      reconnectionDelayMax: 1_000,
    });
    const { socket } = this.client;
    socket.onAny((event, payload) => this.#hears(event, payload));
    socket.on('connect', () => this.#connected().catch(() => undefined));
    socket.on('disconnect', (reason) => {
      this.entered = false;
      assert.notEqual(reason, 'io server disconnect', `${name} was disconnected for good`);
    });
  }

  /** Joins again and reads what was sent meanwhile; live events come in between. */
  async #connected() {
    this.#shown.clear();
    this.#heard = [];
    const { id } = this.client.socket;
    for (;;) {
      try {
        await this.words.enter(this.client, at);
        // A client of the native dialect says where it is; that is tried elsewhere.
        if (!PUSHED || this.name === 'native') await this.#rereads();
        this.entered = this.client.socket.id === id;
        return;
      } catch (error) {
        if (this.client.socket.id !== id) throw error;
      }
    }
  }

  async #rereads() {
    const stored = await history(this.client.jwt, this.client.url);
    for (const message of stored) Object.assign(this.#of(this.#idOf(message)), state(message));
    // What came meanwhile may be newer than what was read.
    for (const [event, payload] of this.#heard) this.#takes(event, payload);
  }

  #idOf = ({ id, number }) => (this.name === 'journal' ? number : id);

  #of(id) {
    if (!this.messages.has(id)) this.messages.set(id, { content: undefined, deleted: false, marks: new Set() });
    return this.messages.get(id);
  }

  #hears(event, payload) {
    this.#heard.push([event, payload]);
    const told = this.#is('new', event, payload);
    // Twice on one connection would be shown twice by any front end that only appends.
    if (told && this.#shown.has(told.id)) this.doubled += 1;
    if (told) this.#shown.add(told.id);
    if (this.#is('read', event, payload)) this.reads += 1;
    this.#takes(event, payload);
  }

  #is(kind, event, payload) {
    return this.words[kind]?.[0] === event && this.words[kind][1](payload);
  }

  #takes(event, payload) {
    const is = (kind) => this.#is(kind, event, payload);
    const told = is('new');
    if (told && this.#of(told.id).content === undefined) this.#of(told.id).content = told.content;
    const edited = is('edited');
    if (edited) this.#of(edited.id).content = edited.content;
    const deleted = is('deleted');
    if (deleted) Object.assign(this.#of(deleted.id), { deleted: true, content: '' });
    const marked = is('marked');
    if (marked) this.#of(marked.id).marks.add('somebody');
  }

  /** What differs from the truth; nothing once all is well. */
  differs(truth) {
    for (const message of truth) {
      const known = this.messages.get(this.#idOf(message));
      const { content, deleted, marks } = state(message);
      // What was deleted meanwhile is not pushed any more.
      if (!known && PUSHED && deleted) continue;
      if (!known) return `${this.name} misses ${message.seq}: ${content}`;
      if (PUSHED) continue;
      if (known.deleted !== deleted) return `${this.name} has ${message.seq} deleted: ${known.deleted}`;
      // Dialects without an event for ciphertext are emitted none.
      if (message.encrypted && known.content === '') continue;
      if (known.content !== content) return `${this.name} has ${message.seq} as ${known.content}, not ${content}`;
      if (this.words.marked && !deleted && known.marks.size !== marks.size) return `${this.name}: marks of ${message.seq}`;
    }
    if (!PUSHED && this.messages.size !== truth.length) return `${this.name} has ${this.messages.size} of ${truth.length}`;
    return undefined;
  }
}

const state = (message) => ({
  content: message.content,
  deleted: message.deleted_at !== null,
  marks: new Set(message.reactions.length > 0 ? ['somebody'] : []),
});

/** All messages by REST, the oldest first. */
async function history(jwt, base) {
  const all = [];
  for (let after = 0; ; ) {
    const { status, body } = await rest(jwt, 'GET', `/conversations/${at.id}/messages?after=${after}&limit=100`, undefined, {
      base,
    });
    assert.equal(status, 200, JSON.stringify(body));
    const page = body.messages.toSorted((one, other) => one.seq - other.seq);
    all.push(...page);
    if (page.length < 100) return all;
    after = page.at(-1).seq;
  }
}

let at, writer, balanced;
const ends = [];

/** Says it by REST on the gateway that lives, again with the same id until it is answered. */
async function writes(living, method, path, body) {
  return eventually(`${method} ${path}`, async () => {
    const answer = await rest(token(writer), method, `/conversations/${at.id}${path}`, body, { base: gateways[living] });
    assert.ok(answer.status < 300, answer.text);
    return answer.body ?? true;
  });
}

let serial = 0;
const sends = (living) => {
  serial += 1;
  return writes(living, 'POST', '/messages', { client_msg_id: `w-${serial}`, content: `text ${serial}` });
};

/** Everything that can happen to messages, to one each. */
async function changes(living, messages) {
  await writes(living, 'PATCH', `/messages/${messages[0].id}`, { content: `${messages[0].content}, edited` });
  await writes(living, 'DELETE', `/messages/${messages[1].id}`);
  await writes(living, 'POST', `/messages/${messages[2].id}/reactions`, { emoji: '👍' });
}

before(async () => {
  writer = person('writer');
  const users = Object.keys(DIALECTS).map((name) => (name === 'journal' ? numbered() : person(name)));
  at = await group(writer, users);
  balanced = await balancer(gateways);
  Object.keys(DIALECTS).forEach((name, index) => ends.push(new FrontEnd(name, users[index], balanced.url)));
});
after(() => {
  closeAll();
  balanced.close();
});

test('whichever replica is killed in the middle of a conversation, every front end ends with all of it', async () => {
  for (let round = 0; round < KILLS; round++) {
    await eventually('all are in', () => ends.every((end) => end.entered));
    const [victim, living] = [round % 2, (round + 1) % 2];
    const before = [await sends(living), await sends(living), await sends(living)];
    await changes(living, before);
    const meanwhile = [await sends(living), await sends(living), await sends(living)];
    balanced.prefer(living);
    const killed = direct(`kill gateway-${victim + 1}`);
    const later = [await sends(living), await sends(living), await sends(living)];
    await killed;
    await changes(living, meanwhile);
    await eventually('all come back by themselves', () => ends.every((end) => end.entered), 30_000);
    await changes(living, later);

    // Served as before: heard by the others, and hears what is read.
    const reads = ends.map((end) => end.reads);
    for (const end of ends) says(end.client, ...end.words.send(at, `${end.name} ${round}`, end.user));
    const last = await eventually('all have spoken', async () => {
      const all = await history(token(writer), gateways[living]);
      const spoken = ends.every((end) => all.some(({ content }) => content === `${end.name} ${round}`));
      return spoken && all.at(-1);
    });
    await writes(living, 'POST', '/read', { up_to_seq: last.seq });
    const heard = () => ends.every((end, index) => end.reads > reads[index]);
    await eventually('all hear that it was read', heard);

    const truth = await history(token(writer), gateways[living]);
    await eventually(
      `kill ${round + 1}: all have all`,
      () => {
        const differences = ends.map((end) => end.differs(truth)).filter(Boolean);
        assert.deepEqual(differences, []);
        return true;
      },
      SETTLED_MS,
    );
    for (const end of ends) assert.equal(end.doubled, 0, `${end.name} was shown a message twice on one connection`);
    await direct(`start gateway-${victim + 1}`);
    balanced.prefer(living);
  }
  console.log(`${KILLS} kills, ${serial} messages of the writer, ${ends.length} front ends`);
});
