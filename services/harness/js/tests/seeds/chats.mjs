// The front end with chats that are joined by themselves and events named alike in both directions.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { closeAll, direct, person } from '../../client.mjs';
import { agreed, follows, has, holds, pair, says, speak } from '../../vocabulary.mjs';

after(closeAll);

const enter = (client, { id }) => follows(client, 'typing:stop', { chatId: id });
const scene = () => pair('chats', [person('alice'), person('bob')], enter);
const sends = ({ id }, client, content) => says(client, 'message:send', { chatId: id, content, messageType: 'text' });
const shows = (client, content) => client.sees('message:new', (message) => message.content === content);

test('S2.c3 S2.s1 S2.t3: a message reaches all participants, its sender among them', async () => {
  const [conversation, alice, bob] = await scene();
  sends(conversation, alice, 'Hello!');
  const message = await shows(bob, 'Hello!');
  has(message, 'id', 'created_at');
  holds(message, { chat_id: conversation.id, sender: { id: alice.user, username: alice.user } });
  assert.deepEqual(await shows(alice, 'Hello!'), message);
});

test('S2.m1: a chat made while both are connected delivers at once', async () => {
  const people = [person('alice'), person('bob')];
  const [alice, bob] = await Promise.all(people.map((user, gateway) => speak('chats', user, gateway)));
  const conversation = await direct(...people);
  await Promise.all([alice, bob].map((client) => client.sees('chat:new', (one) => one.chatId === conversation.id)));
  sends(conversation, alice, 'new');
  await Promise.all([alice, bob].map((client) => shows(client, 'new')));
});

test('S2.b3 S2.c4 S2.c5 S2.c6 S2.s3 S2.s4 S2.s5: typing and reading are emitted to the others under the same names, without an echo', async () => {
  const [conversation, alice, bob] = await scene();
  const chat = { chatId: conversation.id };
  says(alice, 'typing:start', chat);
  assert.deepEqual(await bob.sees('typing:start'), { ...chat, userId: alice.user, username: alice.user });
  bob.forget();
  says(alice, 'typing:stop', chat);
  holds(await bob.sees('typing:stop', (one) => one.userId === alice.user), chat);
  sends(conversation, alice, 'read me');
  const { id } = await shows(bob, 'read me');
  says(bob, 'message:read', { messageId: id, ...chat });
  holds(await alice.sees('message:read'), { messageId: id, userId: bob.user, ...chat });
  says(bob, 'message:read', { messageId: id, ...chat });
  sends(conversation, bob, 'after');
  await shows(alice, 'after');
  assert.equal(alice.all('message:read').length, 1);
  assert.deepEqual(alice.all('typing:start'), []);
});

test('S2.c1 S2.c2 S2.m2: leaving a chat silences that socket only, until it joins again', async () => {
  const [conversation, alice, bob] = await scene();
  const second = await enter(await speak('chats', bob.user, 0), conversation);
  await agreed(second, 'chat:leave', { chatId: conversation.id });
  sends(conversation, alice, 'unheard');
  await shows(bob, 'unheard');
  await agreed(second, 'chat:join', { chatId: conversation.id });
  sends(conversation, alice, 'heard');
  await shows(second, 'heard');
  assert.equal(second.all('message:new').length, 1);
});

test('S2.t2: a message moves its chat to the front and dates it', async () => {
  const [conversation, alice, bob] = await scene();
  const newer = await direct(bob.user, person('carol'));
  const list = async () => (await bob.rest('GET', '/conversations')).body.conversations;
  assert.deepEqual(
    (await list()).map((one) => one.id),
    [newer.id, conversation.id],
  );
  sends(conversation, alice, 'newest');
  const { created_at } = await shows(bob, 'newest');
  const [first, second] = await list();
  assert.deepEqual([first.id, first.updated_at, second.id], [conversation.id, created_at, newer.id]);
});

test('S2.p1: a message is typically there within 100 ms', async () => {
  const [conversation, alice, bob] = await scene();
  const took = [];
  for (let i = 0; i < 31; i++) {
    const start = performance.now();
    sends(conversation, alice, `${i}`);
    await shows(bob, `${i}`);
    took.push(performance.now() - start);
  }
  const median = took.toSorted((one, other) => one - other)[15];
  assert.ok(median < 100, `half of them took more than ${Math.round(median)} ms`);
});

test('S2.s6 S2.x3 S2.x4: a non-member neither sends nor receives', async () => {
  const [conversation, alice, bob] = await scene();
  const carol = await speak('chats', person('carol'), 1);
  for (const event of ['chat:join', 'message:send', 'typing:start']) {
    carol.forget();
    says(carol, event, { chatId: conversation.id, content: 'x', messageType: 'text' });
    const error = await carol.sees('error');
    assert.equal(typeof error.message, 'string');
    assert.equal(error.event, event);
  }
  sends(conversation, alice, 'private');
  await shows(bob, 'private');
  assert.equal(bob.all('message:new').length, 1);
  assert.deepEqual(
    bob.all('typing:start', (one) => one.userId === carol.user),
    [],
  );
  assert.deepEqual(carol.all('message:new'), []);
});
