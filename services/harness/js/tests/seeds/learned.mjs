// A connection that nothing says the dialect of, as a mobile app makes it: no `dialect`, no claim, no Origin.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { closeAll, connect, direct, eventually, person, rest, token } from '../../client.mjs';
import { agreed, speak, speaks } from '../../vocabulary.mjs';

after(closeAll);

const plain = (user, gateway = 0, auth = {}) => connect(user, gateway, { auth: { token: token(user), ...auth }, events: 'all' });
/** Sends over REST, which needs no connection. */
const posts = async (user, { id }, content) => {
  const { status, body } = await rest(token(user), 'POST', `/api/v1/conversations/${id}/messages`, { content });
  assert.equal(status, 201);
  return body;
};

/** Of each dialect an event that no other understands, and the event that delivers a message afterwards. */
/** @type {Record<string, [string, (conversation: any) => any, string]>} */
const TELLING = {
  journal: ['joinRoom', ({ number }) => number, 'receiveMessage'],
  encrypted: ['chat:typing', ({ id }) => ({ conversationId: id, isTyping: false }), 'chat:message_received'],
  chats: ['chat:join', ({ id }) => id, 'message:new'],
  threads: ['conversation:join', ({ id }) => ({ conversationId: id }), 'message:new'],
  inbox: ['join_conversation', ({ id }) => id, 'new_message'],
};

for (const [dialect, [event, payload, told]] of Object.entries(TELLING)) {
  test(`a client without a dialect is understood as ${dialect} by its first ${event}`, async () => {
    const [alice, bob] = [person('alice'), person('bob')];
    const conversation = await direct(alice, bob);
    const clients = [await plain(alice), await speak(dialect, alice, 1)];
    for (const client of clients) client.socket.emit(event, payload(conversation));
    const shows = (client, content) =>
      client.seen.find((one) => one.event === told && JSON.stringify(one.payload).includes(content))?.payload;
    await eventually('both follow the conversation', async () => {
      await posts(bob, conversation, 'first');
      return clients.every((client) => shows(client, 'first'));
    });
    await posts(bob, conversation, 'second');
    const [learned, named] = await eventually('both show it', () => {
      const both = clients.map((client) => shows(client, 'second'));
      return both.every(Boolean) && both;
    });
    assert.deepEqual(learned, named);
    // Fixed for good: the event of another dialect is unknown now.
    const [client] = clients;
    const ack = await client.ask(dialect === 'inbox' ? 'joinRoom' : 'join_conversation', conversation.id);
    assert.match(JSON.stringify(ack), /unknown event/);
  });
}

/** @type {Record<string, [string, (id: string) => any, string]>} */
const BY_ITSELF = {
  encrypted: ['chat:typing', (id) => ({ conversationId: id, isTyping: true }), 'chat:message_received'],
  chats: ['chat:join', (id) => ({ chatId: id }), 'message:new'],
};

for (const [dialect, [event, payload, told]] of Object.entries(BY_ITSELF)) {
  test(`what ${dialect} sends by itself at connect is sent once it is learned, once`, async () => {
    const [alice, bob] = [person('alice'), person('bob')];
    const conversation = await direct(alice, bob);
    const sent = [];
    for (let n = 0; n < 3; n += 1) sent.push(await posts(bob, conversation, `while away ${n}`));
    const client = await plain(alice);
    // The default's form of a message is recognised by its keys.
    const isOwn = (message) => dialect !== 'chats' || 'chatId' in message;
    const received = () => client.seen.filter((one) => one.event === told && isOwn(one.payload)).map((one) => one.payload.id);
    assert.deepEqual(received(), []);
    client.socket.emit(event, payload(conversation.id));
    const ids = sent.map(({ id }) => id);
    await eventually('the backlog', () => received().length >= 3);
    const live = await posts(bob, conversation, 'live, without a join');
    await eventually('what follows', () => received().includes(live.id));
    assert.deepEqual(received(), [...ids, live.id]);
  });
}

test('what several dialects take decides nothing, and a dialect that was named is not learned over', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await direct(alice, bob);
  const client = await plain(alice);
  await client.does('conversation:join', { conversation_id: conversation.id });
  const { message } = await client.does('message:send', { conversation_id: conversation.id, content: 'native' });
  assert.equal(message.content, 'native');
  await agreed(client, 'join_conversation', conversation.id);
  await speaks('native', { auth: { token: token(alice) } });
  for (const auth of [{ dialect: 'chats' }, { token: token(alice, { dialect: 'chats' }) }]) {
    const named = await plain(alice, 1, auth);
    const { code, error } = await named.ask('join_conversation', conversation.id);
    assert.equal(code ?? error.code, 'unknown_event');
  }
});
