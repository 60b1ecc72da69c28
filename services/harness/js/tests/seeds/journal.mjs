// The front end with rooms, numeric ids and read marks.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Client, closeAll, direct, rest, token } from '../../client.mjs';
import { agreed, has, holds, numbered, pair, says, speak } from '../../vocabulary.mjs';

after(closeAll);

const COLUMNS = [
  'message_id',
  'conversation_id',
  'sender_id',
  'receiver_id',
  'content',
  'timestamp',
  'read_status',
  'message_type',
  'metadata',
];
const enter = (client, { number }) => agreed(client, 'joinRoom', number);
const scene = () => pair('journal', [numbered(), numbered()], enter);
const sends = ({ number }, client, content) =>
  says(client, 'sendMessage', { conversationId: number, senderId: Number(client.user), content });
const shows = (client, content) => client.sees('receiveMessage', (message) => message.content === content);

test('a message reaches everyone in the room, with all columns and ids as numbers, once it is stored', async () => {
  const [conversation, alice, bob] = await scene();
  sends(conversation, alice, 'hello 😂');
  const message = await shows(bob, 'hello 😂');
  const { body } = await bob.rest('GET', `/conversations/${conversation.id}/messages`);
  assert.equal(body.messages[0]?.number, message.message_id);
  has(message, ...COLUMNS);
  assert.ok(Number.isSafeInteger(message.message_id));
  holds(message, {
    conversation_id: conversation.number,
    sender_id: Number(alice.user),
    receiver_id: Number(bob.user),
    read_status: false,
    message_type: 'text',
  });
  assert.ok(Date.parse(message.timestamp) > 0);
  assert.deepEqual(await shows(alice, 'hello 😂'), message);
});

test('who has not joined the room is told nothing of it, and may still send', async () => {
  const [conversation, alice, bob] = await scene();
  const aside = await speak('journal', bob.user, 0);
  sends(conversation, alice, 'first');
  await shows(bob, 'first');
  sends(conversation, aside, 'from aside');
  await shows(alice, 'from aside');
  await enter(aside, conversation);
  sends(conversation, alice, 'second');
  await shows(aside, 'second');
  assert.deepEqual(
    aside.all('receiveMessage').map((one) => one.content),
    ['second'],
  );
});

test('exactly the named messages become read', async () => {
  const [conversation, alice, bob] = await scene();
  for (const content of ['1', '2', '3']) sends(conversation, alice, content);
  const ids = await Promise.all(['1', '2', '3'].map(async (content) => (await shows(bob, content)).message_id));
  const marks = async (...messageIds) => {
    says(bob, 'markAsRead', { conversationId: conversation.number, messageIds });
    for (const client of [alice, bob]) {
      const update = await client.sees('messageUpdated', (one) => one.messageIds.includes(messageIds[0]));
      assert.deepEqual(update.messageIds.toSorted(), messageIds);
      assert.equal(update.read_status, true);
    }
  };
  await marks(ids[0], ids[2]);
  await marks(ids[1]);
  assert.equal(alice.all('messageUpdated').length, 2);
});

test('a failure is told to its origin alone, and nothing is stored', async () => {
  const [conversation, alice, bob] = await scene();
  const carol = await speak('journal', numbered(), 1);
  const { number } = conversation;
  const own = (client) => ({ conversationId: number, senderId: Number(client.user), content: 'x' });
  const attempts = [
    [alice, 'sendMessage', { ...own(alice), senderId: Number(bob.user) }],
    [alice, 'sendMessage', { ...own(alice), content: undefined }],
    [alice, 'sendMessage', { ...own(alice), content: '' }],
    [alice, 'markAsRead', { conversationId: number, messageIds: ['x'] }],
    [carol, 'joinRoom', number],
    [carol, 'sendMessage', own(carol)],
    [carol, 'markAsRead', { conversationId: number, messageIds: [1] }],
  ];
  for (const [client, event, payload] of attempts) {
    client.forget();
    says(client, event, payload);
    const { error, details } = await client.sees('messageError', (one) => one.event === event);
    assert.equal(typeof error, 'string');
    assert.equal(typeof details, 'string');
  }
  sends(conversation, alice, 'last');
  await shows(bob, 'last');
  assert.deepEqual(
    bob.seen.map(({ event }) => event),
    ['receiveMessage'],
  );
  assert.deepEqual(carol.all('receiveMessage'), []);
  const { body } = await bob.rest('GET', `/conversations/${conversation.id}/messages`);
  assert.equal(body.messages.length, 1);
});

test('two users have one conversation, whoever begins it', async () => {
  const people = [numbered(), numbered()];
  assert.equal((await direct(...people)).number, (await direct(...people.toReversed(), 1)).number);
});

test('a shared journal keeps its id, and a refused handshake is a connect_error', async () => {
  const [conversation, alice, bob] = await scene();
  const share = { content: 'see', type: 'journal_share', metadata: { journalId: 42 } };
  const { status } = await rest(token(alice.user), 'POST', `/conversations/${conversation.id}/messages`, share);
  assert.equal(status, 201);
  holds(await shows(bob, 'see'), { message_type: 'journal_share', metadata: { journalId: 42 } });
  const nobody = new Client('nobody', 1, { auth: { token: 'no token', dialect: 'journal' } });
  assert.match(await nobody.refused(), /unauthenticated/);
});
