// The client's own message id makes a repeat harmless, whichever way it comes.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import { closeAll, connect, direct, gateways, person, rest, token } from '../client.mjs';

after(closeAll);

async function scene() {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await direct(alice, bob);
  const reader = await connect(bob, 1);
  await reader.joins(conversation);
  return { alice, bob, conversation, reader };
}

/** Five ways of saying the same: two sockets of two gateways, one of them twice, and REST on both. */
function fiveWays([one, two], conversation, body) {
  const bySocket = async (client) => (await client.does('message:send', { conversation_id: conversation.id, ...body })).message;
  const byRest = async (base) => {
    const answer = await rest(token(one.user), 'POST', `/conversations/${conversation.id}/messages`, body, { base });
    assert.ok(answer.status === 201 || answer.status === 200, answer.text);
    return answer.body;
  };
  return [() => bySocket(one), () => bySocket(two), () => byRest(gateways[0]), () => byRest(gateways[1]), () => bySocket(one)];
}

async function onlyOnce(reader, messages, sender, conversation) {
  const fence = await sender.sends(conversation, 'fence');
  await reader.sees('message:new', (message) => message.id === fence.id);
  const copies = reader.all('message:new', (message) => message.id === messages[0].id);
  assert.deepEqual(copies, [messages[0]]);
}

test('the same client id sent five times at once over both gateways and REST is one message', async () => {
  const { alice, conversation, reader } = await scene();
  const sockets = await Promise.all([connect(alice, 0), connect(alice, 1)]);
  const body = { client_msg_id: randomUUID(), content: 'only once', metadata: { a: [1, { b: null }] } };
  const answers = await Promise.all(fiveWays(sockets, conversation, body).map((way) => way()));
  for (const answer of answers) assert.deepEqual(answer, answers[0]);
  assert.equal(answers[0].client_msg_id, body.client_msg_id);
  await onlyOnce(reader, answers, sockets[0], conversation);
});

test('the same client id sent five times one after the other is one message, whatever its content then', async () => {
  const { alice, conversation, reader } = await scene();
  const sockets = await Promise.all([connect(alice, 0), connect(alice, 1)]);
  const id = randomUUID();
  const answers = [];
  for (let round = 0; round < 5; round++) {
    const ways = fiveWays(sockets, conversation, { client_msg_id: id, content: `version ${round}` });
    answers.push(await ways[round]());
  }
  for (const answer of answers) assert.deepEqual(answer, answers[0]);
  assert.equal(answers[0].content, 'version 0');
  await onlyOnce(reader, answers, sockets[0], conversation);
});

test('REST answers a first send with 201 and a repeat with 200 and the same body', async () => {
  const { alice, conversation } = await scene();
  const body = { client_msg_id: 'rest-1', content: 'hello' };
  const send = (base) => rest(token(alice), 'POST', `/conversations/${conversation.id}/messages`, body, { base });
  const [first, second] = [await send(gateways[0]), await send(gateways[1])];
  assert.deepEqual([first.status, second.status], [201, 200]);
  assert.deepEqual(second.body, first.body);
});

test('the same client id of another sender or in another conversation is another message', async () => {
  const { alice, bob, conversation } = await scene();
  const other = await direct(alice, person('carol'));
  const [mine, theirs] = await Promise.all([connect(alice, 0), connect(bob, 1)]);
  const own = { client_msg_id: 'shared-id' };
  const messages = [
    await mine.sends(conversation, 'a', own),
    await theirs.sends(conversation, 'b', own),
    await mine.sends(other, 'c', own),
  ];
  assert.equal(new Set(messages.map((message) => message.id)).size, 3);
  assert.deepEqual(
    messages.map((message) => message.content),
    ['a', 'b', 'c'],
  );
});
