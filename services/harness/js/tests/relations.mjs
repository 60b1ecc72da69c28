// What users decide about each other and about the conversations they are in: muted conversations.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { assertProblem, closeAll, connect, direct, eventually, person, rest, token } from '../client.mjs';

after(closeAll);

/** A request that must be answered so; its body. */
async function answered(status, user, method, path, body) {
  const answer = await rest(token(user), method, path, body);
  assert.equal(answer.status, status, `${user}: ${method} ${path}: ${answer.text.slice(0, 300)}`);
  return answer.body;
}

const LATER = '2100-01-01T00:00:00.000Z';

test('a mute shows in every session of the user, in the list and in the total, and to nobody else', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await direct(alice, bob);
  const path = `/conversations/${conversation.id}`;
  const other = await answered(201, alice, 'POST', '/conversations/group', { title: 'Other', participant_ids: [bob] });
  const events = ['conversation:muted'];
  const [here, there, hers] = [
    await connect(bob, 0, { events }),
    await connect(bob, 1, { events }),
    await connect(alice, 1, { events }),
  ];
  await answered(201, alice, 'POST', `${path}/messages`, { content: 'one' });
  await answered(201, alice, 'POST', `/conversations/${other.id}/messages`, { content: 'two' });
  assert.deepEqual(await answered(200, bob, 'GET', '/unread'), { unread: 2, conversations: 2 });

  const ack = await here.does('conversation:mute', { conversation_id: conversation.number, until: LATER });
  assert.deepEqual([ack.conversation.muted, ack.conversation.muted_until], [true, LATER]);
  const muted = { conversation_id: conversation.id, muted: true, muted_until: LATER };
  for (const session of [here, there]) assert.deepEqual(await session.sees('conversation:muted'), muted);
  assert.deepEqual(await answered(200, bob, 'GET', '/unread'), { unread: 1, conversations: 1 });
  const row = async (user) =>
    (await answered(200, user, 'GET', '/conversations')).conversations.find((one) => one.id === conversation.id);
  assert.deepEqual([(await row(bob)).muted, (await row(bob)).muted_until, (await row(bob)).unread], [true, LATER, 1]);
  assert.equal((await row(alice)).muted, false);
  const joined = await there.joins(conversation);
  assert.deepEqual([joined.muted, joined.muted_until], [true, LATER]);

  await answered(200, bob, 'PUT', `${path}/mute`, {});
  await there.sees('conversation:muted', (one) => one.muted && one.muted_until === null);
  const ended = await answered(200, bob, 'DELETE', `${path}/mute`);
  assert.deepEqual([ended.muted, ended.muted_until], [false, null]);
  await here.sees('conversation:muted', (one) => !one.muted);
  assert.deepEqual(await answered(200, bob, 'GET', '/unread'), { unread: 2, conversations: 2 });
  assert.deepEqual(hers.all('conversation:muted'), []);

  for (const until of ['2020-01-01T00:00:00Z', 'tomorrow', 7]) {
    assertProblem(await rest(token(bob), 'PUT', `${path}/mute`, { until }), 400, 'invalid');
    await here.fails('invalid', 'conversation:mute', { conversation_id: conversation.id, until });
  }
});

test('a mute ends by itself', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const { id } = await direct(alice, bob);
  const until = new Date(Date.now() + 1_500).toISOString();
  await answered(200, bob, 'PUT', `/conversations/${id}/mute`, { until });
  await eventually('it is not muted', async () => !(await answered(200, bob, 'GET', `/conversations/${id}`)).muted);
  assert.ok(Date.now() >= Date.parse(until));
});
