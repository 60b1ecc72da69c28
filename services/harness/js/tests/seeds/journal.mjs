// The front end with rooms, numeric ids and read marks.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Client, closeAll, direct } from '../../client.mjs';
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

test('S0.c1 S0.c2 S0.s1 S0.t2: a message reaches everyone in the room, with all columns and ids as numbers, once it is stored', async () => {
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

test('S0.m1: a user who has not joined the room receives nothing of it, and may still send', async () => {
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

test('S0.c3 S0.s2: exactly the named messages become read', async () => {
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

test('S0.s4 S0.x2: a failure is emitted to its origin alone, and nothing is stored', async () => {
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

test('S0.b2 S0.t1: two users have one conversation, whichever begins it', async () => {
  const people = [numbered(), numbered()];
  const made = await direct(...people);
  assert.equal(made.number, (await direct(...people.toReversed(), 1)).number);
  const alice = await speak('journal', people[0]);
  const joined = async () => (await agreed(alice, 'joinRoom', made.number)).conversation;
  const [user1_id, user2_id] = people.map(Number).toSorted((one, other) => one - other);
  holds(await joined(), { conversation_id: made.number, user1_id, user2_id, last_message_id: null });
  sends(made, alice, 'first');
  const { message_id } = await shows(alice, 'first');
  holds(await joined(), { last_message_id: message_id });
});

test('S0.b1: a disconnected user receives nothing more, and receives again after joining again', async () => {
  const [conversation, alice, bob] = await scene();
  bob.close();
  sends(conversation, alice, 'away');
  await shows(alice, 'away');
  const back = await speak('journal', bob.user, 0);
  const { conversation: joined } = await agreed(back, 'joinRoom', conversation.number);
  assert.equal(joined.unread, 1);
  sends(conversation, alice, 'back');
  await shows(back, 'back');
  assert.deepEqual(bob.all('receiveMessage'), []);
  // The backfill comes too if it was noticed at all that the user had been here.
  const heard = back.all('receiveMessage').map(({ content }) => content);
  assert.deepEqual(
    heard.filter((content) => content !== 'away'),
    ['back'],
  );
});

test('S0.s3: a refused handshake is a connect_error', async () => {
  const nobody = new Client('nobody', 1, { auth: { token: 'no token', dialect: 'journal' } });
  assert.match(await nobody.refused(), /unauthenticated/);
});
