// A group with one member of each dialect, on two gateways in turn: whatever one does in its own dialect, each
// other hears once, in the same order, in its own dialect and with its own form of ids.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { closeAll, group, person } from '../../client.mjs';
import { agreed, follows, holds, numbered, says, speak } from '../../vocabulary.mjs';

after(closeAll);

const camel = ({ id }) => ({ conversationId: id });
const union = (message) => ({ id: message.id, who: message.senderId, content: message.content });
const marked = ({ messageId, userId }) => ({ id: messageId, who: userId });
const typist = ({ userId, isTyping = true }) => isTyping && { who: userId };
const edited = ({ id, content }) => ({ id, content });

/**
 * `says`: what a member emits; `hears`: by what event it learns of it, and what of that is compared. A message
 * is given as `{ id, number }`. What is missing, the dialect has no event for.
 */
const DIALECTS = {
  native: {
    enter: (client, { id }) => agreed(client, 'conversation:join', { conversation_id: id }),
    says: {
      send: ({ id }, content) => ['message:send', { conversation_id: id, content }],
      edit: ({ id }, message, content) => ['message:edit', { conversation_id: id, message_id: message.id, content }],
      delete: ({ id }, message) => ['message:delete', { conversation_id: id, message_id: message.id }],
      react: ({ id }, message) => ['message:react', { conversation_id: id, message_id: message.id, emoji: '😂' }],
      read: ({ id }, message) => ['receipt:read', { conversation_id: id, message_ids: [message.id] }],
      typing: ({ id }) => ['typing', { conversation_id: id, is_typing: true }],
    },
    hears: {
      send: ['message:new', ({ id, sender, content }) => ({ id, who: sender.id, content })],
      edit: ['message:edited', edited],
      delete: ['message:deleted', ({ id }) => ({ id })],
      react: ['message:reaction', ({ message_id, user_id }) => ({ id: message_id, who: user_id })],
      // Carries ranges of seqs, no message ids.
      read: ['receipt:updated', ({ user_id }) => ({ who: user_id })],
      typing: ['typing', ({ user_id }) => ({ who: user_id })],
    },
  },
  journal: {
    enter: (client, { number }) => agreed(client, 'joinRoom', number),
    says: {
      send: ({ number }, content, user) => ['sendMessage', { conversationId: number, senderId: Number(user), content }],
      read: ({ number }, message) => ['markAsRead', { conversationId: number, messageIds: [message.number] }],
    },
    hears: {
      send: ['receiveMessage', ({ message_id, sender_id, content }) => ({ id: message_id, who: sender_id, content })],
      edit: ['messageEdited', ({ message_id, content }) => ({ id: message_id, content })],
      delete: ['messageDeleted', ({ messageIds }) => ({ id: messageIds[0] })],
      read: ['messageUpdated', ({ messageIds, userId }) => ({ id: messageIds.at(-1), who: userId })],
    },
  },
  encrypted: {
    enter: (client, at) => follows(client, 'chat:typing', { ...camel(at), isTyping: false }),
    says: {
      send: (at, contentEncrypted) => ['chat:message_send', { ...camel(at), contentEncrypted }],
      read: (_, message) => ['chat:message_read', { messageId: message.id }],
      typing: (at) => ['chat:typing', { ...camel(at), isTyping: true }],
    },
    hears: {
      send: [
        'chat:message_received',
        ({ id, sender_id, content_encrypted }) => ({ id, who: sender_id, content: content_encrypted }),
      ],
      edit: ['chat:message_edited', ({ id, content_encrypted }) => ({ id, content: content_encrypted })],
      delete: ['chat:message_deleted', ({ messageId }) => ({ id: messageId })],
      react: ['chat:reaction_updated', marked],
      read: ['chat:message_status_updated', (payload) => payload.status === 'read' && marked(payload)],
      typing: ['chat:user_typing', typist],
    },
  },
  chats: {
    enter: (client, { id }) => follows(client, 'typing:stop', { chatId: id }),
    says: {
      send: ({ id }, content) => ['message:send', { chatId: id, content, messageType: 'text' }],
      read: ({ id }, message) => ['message:read', { chatId: id, messageId: message.id }],
      typing: ({ id }) => ['typing:start', { chatId: id }],
    },
    hears: {
      send: ['message:new', ({ id, sender, content }) => ({ id, who: sender.id, content })],
      edit: ['message:edited', edited],
      delete: ['message:deleted', ({ messageId }) => ({ id: messageId })],
      react: ['message:reaction', marked],
      read: ['message:read', marked],
      typing: ['typing:start', typist],
    },
  },
  threads: {
    enter: (client, { id }) => agreed(client, 'conversation:join', id),
    says: {
      send: (at, content) => ['message:send', { ...camel(at), content, tempId: content }],
      edit: (at, message, content) => ['message:edit', { ...camel(at), messageId: message.id, content }],
      delete: (at, message) => ['message:delete', { ...camel(at), messageId: message.id }],
      react: (at, message) => ['message:react', { ...camel(at), messageId: message.id, emoji: '😂' }],
      read: (at, message) => ['message:read', { ...camel(at), messageId: message.id }],
      typing: (at) => ['typing', { ...camel(at), isTyping: true }],
    },
    hears: {
      send: ['message:new', union],
      edit: ['message:edited', edited],
      delete: ['message:deleted', ({ messageId }) => ({ id: messageId })],
      react: ['message:reaction', marked],
      read: ['message:read', marked],
      typing: ['user:typing', typist],
    },
  },
  inbox: {
    enter: (client, { id }) => agreed(client, 'join_conversation', id),
    says: {
      send: (at, content) => ['send_message', { ...camel(at), content }],
      read: (at, message) => ['mark_as_read', { ...camel(at), messageIds: [message.id] }],
      typing: ({ id }) => ['typing_start', id],
    },
    hears: {
      send: ['new_message', union],
      edit: ['message_edited', edited],
      delete: ['message_deleted', ({ messageId }) => ({ id: messageId })],
      react: ['message_reaction', marked],
      read: ['messages_read', ({ messageIds, userId }) => ({ id: messageIds.at(-1), who: userId })],
      typing: ['typing_start', typist],
    },
  },
};
const NAMES = Object.keys(DIALECTS);
const ROUNDS = 3;

let at;
const members = {};

/** The users as the `journal` dialect numbers them, learnt from the messages. */
const numbers = {};

/** What `name` should make of something `who` did to a message: ids in its own form. */
function expected(name, kind, who, message, content) {
  const numeric = name === 'journal';
  const id = numeric ? message?.number : message?.id;
  const all = { id, who: numeric ? numbers[who] : who, content };
  const [event, read] = DIALECTS[name].hears[kind];
  return [event, read, all];
}

/** Waits until each of `names` heard it, and asserts that nobody did twice. */
async function heard(names, kind, who, message, content) {
  for (const name of names.filter((one) => DIALECTS[one].hears[kind])) {
    const [event, read, all] = expected(name, kind, who, message, content);
    const fits = (payload) => {
      const found = read(payload);
      return found && Object.keys(found).every((key) => found[key] === all[key]);
    };
    await members[name].sees(event, fits);
    assert.equal(members[name].all(event, fits).length, 1, `${name} heard ${kind} of ${who} more than once`);
  }
}

const others = (name) => NAMES.filter((other) => other !== name);
const speakersOf = (kind) => NAMES.filter((name) => DIALECTS[name].says[kind]);
const acts = (name, kind, ...more) => says(members[name], ...DIALECTS[name].says[kind](at, ...more));

/** A message of this member, as all know it. */
async function message(name, content) {
  acts(name, 'send', content, members[name].user);
  const { id, number } = await members.native.sees('message:new', (one) => one.content === content);
  return { id, number };
}

before(async () => {
  const users = NAMES.map((name) => (name === 'journal' ? numbered() : person(name)));
  at = await group(users[0], users.slice(1));
  for (const [index, name] of NAMES.entries()) {
    members[name] = await speak(name, users[index], index);
    await DIALECTS[name].enter(members[name], at);
  }
  for (const client of Object.values(members)) client.forget();
});

test('each hears all messages once, in one order, in its own shape', async () => {
  for (let round = 0; round < ROUNDS; round++) {
    for (const name of NAMES) acts(name, 'send', `${name} ${round}`, members[name].user);
  }
  const count = ROUNDS * NAMES.length;
  const lists = {};
  const all = (name) => members[name].all(DIALECTS[name].hears.send[0]);
  for (const name of NAMES) {
    const [event] = DIALECTS[name].hears.send;
    await members[name].sees(event, () => all(name).length >= count);
  }
  // Whatever came twice came before this.
  acts('native', 'send', 'and that is all');
  for (const name of NAMES) {
    await members[name].sees(DIALECTS[name].hears.send[0], (one) => Object.values(one).includes('and that is all'));
  }
  for (const name of NAMES) lists[name] = all(name).map(DIALECTS[name].hears.send[1]);

  const sent = members.native.all('message:new');
  assert.equal(sent.length, count + 1);
  assert.deepEqual(
    sent.map(({ seq }) => seq),
    sent.map((_, index) => sent[0].seq + index),
  );
  const readable = ({ encrypted, content }) => (encrypted ? '' : content);
  for (const name of others('journal').filter((one) => one !== 'encrypted' && one !== 'native')) {
    const own = sent.map((one) => ({ id: one.id, who: one.sender.id, content: readable(one) }));
    assert.deepEqual(lists[name], own, name);
  }
  assert.deepEqual(
    lists.encrypted,
    sent.map(({ id, sender, content }) => ({ id, who: sender.id, content })),
  );
  assert.deepEqual(
    lists.journal.map(({ id, content }) => ({ id, content })),
    sent.map((one) => ({ id: one.number, content: readable(one) })),
  );
  lists.journal.forEach(({ who }, index) => {
    const user = sent[index].sender.id;
    numbers[user] ??= who;
    assert.equal(who, numbers[user]);
    assert.ok(user === members.journal.user ? who === Number(user) : Number.isSafeInteger(who) && who < 0);
  });
  assert.equal(new Set(Object.values(numbers)).size, NAMES.length);
});

test('ciphertext shows as such where there is no word for it', async () => {
  const secret = await message('encrypted', 'c2VjcmV0');
  for (const name of ['journal', 'chats', 'threads', 'inbox']) {
    const id = name === 'journal' ? secret.number : secret.id;
    const found = await members[name].sees(DIALECTS[name].hears.send[0], (one) => (one.message_id ?? one.id) === id);
    holds(found, { content: '', metadata: { encrypted: true } });
  }
});

test('S2.f4: an edit is emitted to all, whichever dialect can make it', async () => {
  for (const name of speakersOf('edit')) {
    const one = await message(name, `${name} will edit`);
    acts(name, 'edit', one, `${name} has edited`);
    await heard(NAMES, 'edit', members[name].user, one, `${name} has edited`);
  }
});

test('S2.f3: a mark is emitted to all that have an event for it', async () => {
  for (const name of speakersOf('react')) {
    const one = await message('journal', `for ${name} to like`);
    acts(name, 'react', one);
    await heard(NAMES, 'react', members[name].user, one);
  }
});

test('a deletion is heard by all', async () => {
  for (const name of speakersOf('delete')) {
    const one = await message(name, `${name} will delete`);
    acts(name, 'delete', one);
    await heard(NAMES, 'delete', members[name].user, one);
  }
});

test('reading is heard by all others', async () => {
  assert.deepEqual(speakersOf('read'), NAMES);
  for (const name of NAMES) {
    const author = name === 'native' ? 'inbox' : 'native';
    const one = await message(author, `for ${name} to read`);
    await heard([name], 'send', members[author].user, one, `for ${name} to read`);
    for (const client of Object.values(members)) client.forget();
    acts(name, 'read', one);
    await heard(others(name), 'read', members[name].user, one);
  }
});

test('typing is heard by the others, not by who types', async () => {
  for (const name of speakersOf('typing')) {
    for (const client of Object.values(members)) client.forget();
    acts(name, 'typing');
    await heard(others(name), 'typing', members[name].user);
    assert.deepEqual(members[name].all(DIALECTS[name].hears.typing[0]), []);
  }
});
