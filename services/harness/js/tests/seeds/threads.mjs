// The front end with threads, temporary ids and rooms joined by hand.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Client, closeAll, connect, person, rest, token } from '../../client.mjs';
import { agreed, has, holds, pair, says, speak } from '../../vocabulary.mjs';

after(closeAll);

const enter = (client, { id }) => agreed(client, 'conversation:join', id);
const scene = () => pair('threads', [person('alice'), person('bob')], enter);
const sends = ({ id }, client, content, more = {}) =>
  says(client, 'message:send', { conversationId: id, content, tempId: `temp-${content}`, ...more });
const shows = (client, content) => client.sees('message:new', (message) => message.content === content);

test('S3.c3 S3.s1 S3.t1: a message reaches the room as it is stored', async () => {
  const [conversation, alice, bob] = await scene();
  sends(conversation, alice, 'hello', { messageType: 'file', metadata: { size: 3, nested: { a: [1.5] } } });
  const message = await shows(bob, 'hello');
  has(message, 'createdAt');
  holds(message, {
    _id: message.id,
    conversationId: conversation.id,
    senderId: alice.user,
    senderType: 'user',
    messageType: 'file',
    metadata: { size: 3, nested: { a: [1.5] } },
    threadId: null,
  });
  // Only the client that sent it knows it by that name.
  assert.equal(message.tempId, undefined);
  assert.deepEqual(await shows(alice, 'hello'), { ...message, tempId: 'temp-hello' });
  sends(conversation, alice, 'plain');
  holds(await shows(bob, 'plain'), { messageType: 'text', metadata: {} });
});

test('S3.t1: what an agent sends, by socket or REST, has the sender type agent', async () => {
  const [customer, agent] = [person('customer'), person('agent9')];
  const claims = { role: 'agent', name: 'Robo' };
  const conversation = (await rest(token(customer), 'POST', '/api/conversations', { participants: [agent] })).body;
  const alice = await speak('threads', customer, 0);
  await enter(alice, conversation);
  const robot = await connect(agent, 1, { auth: { token: token(agent, claims), dialect: 'threads' }, events: 'all' });
  await enter(robot, conversation);
  sends(conversation, robot, 'by socket');
  holds(await shows(alice, 'by socket'), { senderId: agent, senderType: 'agent', messageType: 'text' });
  const path = `/api/conversations/${conversation.id}/messages`;
  await rest(token(agent, claims), 'POST', path, { content: 'by REST' });
  const message = await shows(alice, 'by REST');
  holds(message, { senderType: 'agent' });
  assert.deepEqual(message.sender, { id: agent, username: 'Robo' });
  sends(conversation, alice, 'thanks');
  holds(await shows(robot, 'thanks'), { senderType: 'user' });
});

test('S3.c1 S3.c2 S3.m1 S3.p8 S3.p17 S3.s5 S3.s6: only who has joined hears, until it leaves, and the rest when it is back; the others see it come and go', async () => {
  const [conversation, alice, bob] = await scene();
  const second = await speak('threads', bob.user, 0);
  sends(conversation, alice, 'before');
  await shows(bob, 'before');
  // As this front end does: a page that has read its history is emitted what comes after it.
  const history = await rest(token(bob.user), 'GET', `/api/conversations/${conversation.id}/messages`);
  assert.equal(history.status, 200);
  assert.deepEqual(second.all('message:new'), []);
  await enter(second, conversation);
  holds(await alice.sees('user:joined'), { conversationId: conversation.id, userId: bob.user });
  sends(conversation, alice, 'during');
  await shows(second, 'during');
  await agreed(second, 'conversation:leave', conversation.id);
  holds(await alice.sees('user:left'), { conversationId: conversation.id, userId: bob.user });
  sends(conversation, alice, 'later');
  await shows(bob, 'later');
  await enter(second, conversation);
  sends(conversation, alice, 'again');
  await shows(second, 'again');
  assert.deepEqual(
    second.all('message:new').map((one) => one.content),
    ['during', 'later', 'again'],
  );
});

test('S3.s8 S3.s9: a failed send names the temporary id, for its sender alone', async () => {
  const [conversation, alice, bob] = await scene();
  const carol = await speak('threads', person('carol'), 1);
  for (const [client, content] of [
    [alice, ''],
    [carol, 'x'],
  ]) {
    sends(conversation, client, content);
    assert.equal((await client.sees('error')).message, 'Failed to send message');
    holds(await client.sees('message:error'), { messageId: `temp-${content}`, error: 'Message could not be sent' });
  }
  carol.forget();
  says(carol, 'conversation:join', conversation.id);
  assert.equal((await carol.sees('error')).event, 'conversation:join');
  sends(conversation, alice, 'last');
  await shows(bob, 'last');
  assert.equal(bob.all('message:new').length, 1);
  assert.deepEqual([...bob.all('error'), ...bob.all('message:error')], []);
  assert.deepEqual(carol.all('message:new'), []);
});

test('S3.c5 S3.c6 S3.s7: a thread grows from a message and holds its own', async () => {
  const [conversation, alice, bob] = await scene();
  sends(conversation, alice, 'root');
  const root = await shows(bob, 'root');
  says(bob, 'thread:create', { conversationId: conversation.id, title: 'Aside', rootMessageId: root.id });
  const created = await alice.sees('thread:created');
  holds(created, { conversationId: conversation.id, title: 'Aside', rootMessageId: root.id, createdBy: bob.user });
  assert.deepEqual(await bob.sees('thread:created'), created);
  sends(conversation, alice, 'inside', { threadId: created.id });
  holds(await shows(bob, 'inside'), { threadId: created.id });
  sends(conversation, alice, 'outside');
  holds(await shows(bob, 'outside'), { threadId: null });
  for (const threadId of [created.id, null]) {
    await agreed(bob, 'thread:switch', { conversationId: conversation.id, threadId });
  }
});

test('S3.c4 S3.s2 S3.s3 S3.s4: edits, deletions, marks and typing reach the room', async () => {
  const [conversation, alice, bob] = await scene();
  sends(conversation, alice, 'helo');
  const { id } = await shows(bob, 'helo');
  const about = { conversationId: conversation.id, messageId: id };
  says(alice, 'message:edit', { ...about, content: 'hello' });
  says(bob, 'message:react', { ...about, emoji: '😂' });
  says(bob, 'message:read', about);
  says(bob, 'typing', { conversationId: conversation.id, isTyping: true });
  for (const client of [alice, bob]) {
    const edited = await client.sees('message:edited');
    holds(edited, { id, content: 'hello' });
    assert.ok(edited.editedAt);
    holds(await client.sees('message:reaction'), { messageId: id, emoji: '😂', userId: bob.user, removed: false });
  }
  holds(await alice.sees('message:read'), { messageId: id, userId: bob.user });
  holds(await alice.sees('user:typing'), { conversationId: conversation.id, userId: bob.user, isTyping: true });
  says(alice, 'message:delete', about);
  for (const client of [alice, bob]) holds(await client.sees('message:deleted'), { id, messageId: id, scope: 'all' });
  assert.deepEqual(bob.all('user:typing'), []);
});

test('S3.s10: a refused handshake says what this front end compares with', async () => {
  for (const auth of [{ dialect: 'threads' }, { dialect: 'threads', token: 'no token' }]) {
    assert.equal(await new Client('nobody', 1, { auth }).refused(), 'Authentication failed');
  }
});
