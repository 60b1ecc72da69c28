// What users and conversations are called: where names come from, which of them counts, and what they may hold.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { assertProblem, closeAll, connect, direct, gateways, person, rest, token } from '../client.mjs';

after(closeAll);

/** A token that says this name; `undefined` for none. */
const says = (user, name) => token(user, { name });
const call = async (jwt, method, path, body, gateway = 0) => {
  const answer = await rest(jwt, method, `/api/v1${path}`, body, { base: gateways[gateway % gateways.length] });
  assert.ok(answer.status < 300, `${method} ${path} ${answer.status}: ${answer.text.slice(0, 300)}`);
  return answer.body;
};
/** What another participant reads the user is called, through the other gateway. */
async function seen(user, other, { id }) {
  const { participants } = await call(token(other), 'GET', `/conversations/${id}`, undefined, 1);
  return participants.find((one) => one.user_id === user).username;
}
const rename = (jwt, name) => call(jwt, 'PATCH', '/users/me', { name });

test('a token without a name, or whose name cannot be seen, never replaces a known one', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await direct(bob, alice);
  const connects = (name) => connect(alice, 0, { jwt: says(alice, name), auth: { token: says(alice, name) } });
  await connects(undefined);
  assert.equal(await seen(alice, bob, conversation), alice);
  await connects('Alice Liddell');
  assert.equal(await seen(alice, bob, conversation), 'Alice Liddell');
  for (const name of [undefined, null, '', ' \u200b', '\u202e']) {
    const client = await connects(name);
    await client.joins(conversation);
    const { message } = await client.does('message:send', { conversation_id: conversation.id, content: 'hi' });
    assert.equal(message.sender.username, 'Alice Liddell', JSON.stringify(name));
    await call(says(alice, name), 'GET', '/conversations');
    assert.equal(await seen(alice, bob, conversation), 'Alice Liddell', JSON.stringify(name));
  }
});

test('a user gives themselves a name, which stays until a token says another than before', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await direct(bob, alice);
  const old = says(alice, 'Alice');
  await call(old, 'GET', '/conversations');
  const named = await rename(old, '  Al\u202eice \n');
  assert.deepEqual([named.user_id, named.username, typeof named.number], [alice, 'Alice', 'number']);
  assert.equal((await rename(old, 'Ally')).username, 'Ally');
  for (const jwt of [old, says(alice, 'Alice'), says(alice, undefined)]) {
    await call(jwt, 'GET', '/conversations', undefined, 1);
    await connect(alice, 1, { jwt, auth: { token: jwt } });
    assert.equal(await seen(alice, bob, conversation), 'Ally');
  }
  await call(says(alice, 'Alice Smith'), 'GET', '/conversations');
  assert.equal(await seen(alice, bob, conversation), 'Alice Smith');
});

test('a name that is taken back, or cannot be seen, gives way to what the tokens say, else to the id', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await direct(bob, alice);
  const nameless = says(alice, undefined);
  await rename(nameless, 'Ally');
  assert.equal((await rename(nameless, '\u200d')).username, alice);
  const jwt = says(alice, 'Alice');
  assert.equal((await rename(jwt, 'Ally')).username, 'Ally');
  assert.equal((await rename(jwt, '')).username, 'Alice');
  assert.equal(await seen(alice, bob, conversation), 'Alice');
  for (const body of [{}, { name: null }, { name: 7 }, { name: 'x'.repeat(129) }]) {
    assertProblem(await rest(jwt, 'PATCH', '/api/v1/users/me', body), 400, 'invalid');
  }
});

test('titles hold no control characters and nothing that turns the direction of writing', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const jwt = token(alice);
  const turned = 'Plan \u202efdp.exe\u202c\u0007\n';
  const group = await call(jwt, 'POST', '/conversations/group', { title: turned, participant_ids: [bob] });
  assert.equal(group.title, 'Plan fdp.exe');
  const path = `/conversations/${group.id}`;
  assert.equal((await call(jwt, 'PATCH', path, { title: '\u2067B\u2069' })).title, 'B');
  assert.equal((await call(jwt, 'POST', `${path}/threads`, { title: turned })).title, 'Plan fdp.exe');
  assert.equal((await call(jwt, 'POST', '/journals', { title: turned })).title, 'Plan fdp.exe');
  for (const title of ['\u202e', ' \u200b\n']) {
    assertProblem(await rest(jwt, 'PATCH', `/api/v1${path}`, { title }), 400, 'invalid');
  }
});
