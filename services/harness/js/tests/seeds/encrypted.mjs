// The front end that sends ciphertext and follows all of its conversations without joining them.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { closeAll, direct, person } from '../../client.mjs';
import { agreed, follows, has, holds, pair, says, speak } from '../../vocabulary.mjs';

after(closeAll);

const CIPHERTEXT = 'U2FsdGVkX1+/AAEC==\r\n{"iv":"é","tag":"\\u0001\u{1F510}"}  <b>\u2028 ';
const enter = (client, { id }) => follows(client, 'chat:typing', { conversationId: id, isTyping: false });
const scene = () => pair('encrypted', [person('alice'), person('bob')], enter);
const sends = async ({ id }, client, contentEncrypted) =>
  (await agreed(client, 'chat:message_send', { conversationId: id, contentEncrypted })).message;
const shows = (client, { id }) => client.sees('chat:message_received', (message) => message.id === id);

test('S1.c3 S1.s2 S1.x1: ciphertext is relayed and stored byte for byte, and the sender learns its id', async () => {
  const [conversation, alice, bob] = await scene();
  const sent = await sends(conversation, alice, CIPHERTEXT);
  const message = await shows(bob, sent);
  has(message, 'message_type', 'created_at');
  holds(message, { conversation_id: conversation.id, sender_id: alice.user, content_encrypted: CIPHERTEXT });
  assert.equal(sent.content_encrypted, CIPHERTEXT);
  const { body } = await bob.rest('GET', `/conversations/${conversation.id}/messages`);
  assert.equal(body.messages[0].content, CIPHERTEXT);
  assert.equal(body.messages[0].encrypted, true);
});

test('a message with a plain text beside its ciphertext is refused, instead of losing one of them', async () => {
  const [{ id: conversationId }, alice] = await scene();
  const both = { conversationId, contentEncrypted: CIPHERTEXT, content: 'plain' };
  holds(await alice.ask('chat:message_send', both), { success: false, code: 'invalid' });
  const { body } = await alice.rest('GET', `/conversations/${conversationId}/messages`);
  assert.deepEqual(body.messages, []);
});

test('S1.m1: a conversation made while both are connected delivers at once', async () => {
  const people = [person('alice'), person('bob')];
  const [alice, bob] = await Promise.all(people.map((user, gateway) => speak('encrypted', user, gateway)));
  const conversation = await direct(...people);
  await Promise.all([alice, bob].map((client) => enter(client, conversation)));
  await shows(bob, await sends(conversation, alice, 'new'));
});

test('S1.b3 S1.e5 S1.x3: a failed send is answered, not stored', async () => {
  const [conversation, alice, bob] = await scene();
  const carol = await speak('encrypted', person('carol'), 1);
  const fails = async (client, contentEncrypted, name) => {
    const ack = await client.ask('chat:message_send', { conversationId: conversation.id, contentEncrypted });
    holds(ack, { success: false });
    assert.equal(typeof ack.error, 'string');
    assert.deepEqual([ack.details.name, ack.details.message, ack.details.code], [name, ack.error, ack.code]);
  };
  await fails(alice, '', 'ValidationError');
  await fails(carol, 'x', 'ForbiddenError');
  says(carol, 'chat:message_send', { conversationId: conversation.id, contentEncrypted: 'x', tempId: 7 });
  holds(await carol.sees('chat:error'), { name: 'ForbiddenError', tempId: 7 });
  await shows(bob, await sends(conversation, alice, 'last'));
  assert.equal(bob.all('chat:message_received').length, 1);
  assert.deepEqual(carol.all('chat:message_received'), []);
});

test('S1.b1 S1.c4 S1.c5 S1.s3: a status goes from delivered to read and never back', async () => {
  const [conversation, alice, bob] = await scene();
  const [first, second] = [await sends(conversation, alice, '1'), await sends(conversation, alice, '2')];
  const marks = (event, { id }) => says(bob, event, { messageId: id });
  const told = ({ id }, status) =>
    alice.sees('chat:message_status_updated', (one) => one.messageId === id && one.status === status);
  await shows(bob, first);
  marks('chat:message_delivered', first);
  await told(first, 'delivered');
  marks('chat:message_read', first);
  const read = await told(first, 'read');
  holds(read, { userId: bob.user, conversationId: conversation.id });
  assert.ok(Date.parse(read.timestamp) > 0);
  marks('chat:message_delivered', first);
  marks('chat:message_read', first);
  marks('chat:message_read', second);
  await told(second, 'read');
  const statuses = alice.all('chat:message_status_updated');
  assert.deepEqual(
    statuses.filter((one) => one.messageId === first.id).map((one) => one.status),
    ['delivered', 'read'],
  );
});

test('S1.b7: what is read as soon as it is received is read, once, and nothing stays unread', async () => {
  const [conversation, alice, bob] = await scene();
  bob.socket.on('chat:message_received', ({ id }) => says(bob, 'chat:message_read', { messageId: id }));
  const sent = [];
  for (const content of ['1', '2', '3']) sent.push(await sends(conversation, alice, content));
  for (const { id } of sent) {
    await alice.sees('chat:message_status_updated', (one) => one.messageId === id && one.status === 'read');
  }
  assert.equal(alice.all('chat:message_status_updated').length, 3);
  const { body } = await bob.rest('GET', `/conversations/${conversation.id}`);
  assert.equal(body.unread, 0);
});

test('S1.t1: text, images, files and voice are distinguished, and nothing else is taken', async () => {
  const [conversation, alice, bob] = await scene();
  const says = (message_type) =>
    alice.rest('POST', '/api/messages', { conversation_id: conversation.id, content_encrypted: 'x', message_type });
  for (const message_type of ['text', 'image', 'file', 'voice']) {
    const { status, body } = await says(message_type);
    assert.deepEqual([status, body.message_type], [201, message_type]);
    holds(await shows(bob, body), { message_type });
  }
  assert.equal((await says('hologram')).status, 400);
});

test('S1.c6 S1.s4: the others see who types', async () => {
  const [conversation, alice, bob] = await scene();
  for (const isTyping of [true, false]) {
    bob.forget();
    says(alice, 'chat:typing', { conversationId: conversation.id, isTyping });
    const typing = await bob.sees('chat:user_typing', (one) => one.userId === alice.user && one.isTyping === isTyping);
    holds(typing, { username: alice.user, conversationId: conversation.id });
    has(typing, 'timestamp');
  }
  await shows(alice, await sends(conversation, bob, 'after'));
  assert.deepEqual(
    alice.all('chat:user_typing', (one) => one.userId === alice.user),
    [],
  );
});

test('S1.b4 S1.b5: what came while away is pushed at the next connect, in order and once, marked or not', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await direct(alice, bob);
  const writer = await speak('encrypted', alice, 0);
  await enter(writer, conversation);
  const contents = async (client, last) => {
    await client.sees('chat:message_received', (message) => message.content_encrypted === last);
    return client.all('chat:message_received').map((message) => message.content_encrypted);
  };
  for (const text of ['one', 'two', 'three']) await sends(conversation, writer, text);
  const first = await speak('encrypted', bob, 1);
  assert.deepEqual(await contents(first, 'three'), ['one', 'two', 'three']);
  await writer.sees('user:status_changed', (one) => one.userId === bob && one.status === 'online');
  const two = first.all('chat:message_received').find((message) => message.content_encrypted === 'two');
  await agreed(first, 'chat:message_delivered', { messageId: two.id });
  await first.leaves();
  await sends(conversation, writer, 'four');
  const second = await speak('encrypted', bob, 0);
  assert.deepEqual(await contents(second, 'four'), ['four']);
  const four = second.all('chat:message_received').find((message) => message.content_encrypted === 'four');
  await agreed(second, 'chat:message_read', { messageId: four.id });
  second.close();
  const third = await speak('encrypted', bob, 1);
  await enter(third, conversation);
  await sends(conversation, writer, 'five');
  assert.deepEqual(await contents(third, 'five'), ['five']);
});
