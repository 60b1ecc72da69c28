// Orders of other services over the bus: disconnected users, returning users, and users who do not notice.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import { Client, assertProblem, closeAll, connect, direct, eventually, gateways, now, person, rest, token } from '../client.mjs';
import { publish, subjectToken } from '../nats.mjs';

after(closeAll);

const PROMPT_MS = 1_000;
const EVERYWHERE = gateways.map((_, index) => index);

/** A connection of this token on every gateway. */
const everywhere = (user, jwt, options = {}) => Promise.all(EVERYWHERE.map((index) => connect(user, index, { jwt, ...options })));

/** Publishes an order; resolves with how long it took to end all these, in milliseconds. */
async function ends(clients, reason, subject, payload) {
  const begun = performance.now();
  const stored = await publish(subject, payload);
  assert.equal(stored.stream, 'CONTROL', JSON.stringify(stored));
  await eventually('all are closed', () => clients.every((client) => client.disconnects.length > 0));
  const took = performance.now() - begun;
  for (const client of clients) assert.match(client.disconnects[0], reason);
  assert.ok(took <= PROMPT_MS, `closed after ${took} ms`);
  console.log(`${subject.split('.').slice(0, 3).join('.')}: ${clients.length} connections closed in ${took.toFixed(0)} ms`);
}

async function refusedEverywhere(user, jwt) {
  for (const index of EVERYWHERE) {
    const asks = () => rest(jwt, 'GET', '/conversations', undefined, { base: gateways[index] });
    await eventually('REST refuses', async () => (await asks()).status === 401, PROMPT_MS);
    assertProblem(await asks(), 401, 'unauthenticated');
    const refusal = await new Client(user, index, { jwt }).refused();
    assert.equal(refusal, 'unauthenticated: the token has been revoked');
  }
}

async function acceptedEverywhere(user, jwt) {
  for (const index of EVERYWHERE) {
    assert.equal((await rest(jwt, 'GET', '/conversations', undefined, { base: gateways[index] })).status, 200);
  }
  for (const client of await everywhere(user, jwt)) client.close();
}

test('a revoked token ends its connections on every replica and opens none', async () => {
  const [user, jti] = [person('rev'), `t.*>-${randomUUID()}`];
  const exp = now() + 3600;
  const [revoked, other] = [token(user, { jti, exp }), token(user, { jti: `${jti}x`, exp })];
  const clients = await everywhere(user, revoked);
  const stays = await everywhere(user, other);
  const order = { revoke_token: { jti, expires_at: exp } };
  await ends(clients, /^io server disconnect$/, `chat.control.token.${subjectToken(jti)}`, order);
  await refusedEverywhere(user, revoked);
  await acceptedEverywhere(user, other);
  for (const client of stays) assert.deepEqual(client.disconnects, []);
});

test('a connection stands on its latest token', async () => {
  const [user, exp] = [person('rev'), now() + 3600];
  const [first, second] = [randomUUID(), randomUUID()];
  const clients = await everywhere(user, token(user, { jti: first, exp }));
  for (const client of clients) await client.does('auth:refresh', { token: token(user, { jti: second, exp }) });
  await publish(`chat.control.token.${first}`, { revoke_token: { jti: first } });
  await refusedEverywhere(user, token(user, { jti: first, exp }));
  for (const client of clients) {
    const error = await client.fails('unauthenticated', 'auth:refresh', { token: token(user, { jti: first, exp }) });
    assert.equal(error.retry, false);
    assert.deepEqual(client.disconnects, []);
  }
  await ends(clients, /^io server disconnect$/, `chat.control.token.${second}`, { revoke_token: { jti: second } });
});

test('all tokens of a user issued before are void, later ones and other users are not', async () => {
  const [user, other] = [person('rev@x'), person('other')];
  const issued_before = now() - 10;
  const old = token(user, { iat: issued_before - 1 });
  const undated = token(user, { iat: undefined });
  const fresh = token(user, { iat: issued_before });
  const clients = [...(await everywhere(user, old)), ...(await everywhere(user, undated))];
  const stays = [...(await everywhere(user, fresh)), ...(await everywhere(other, token(other, { iat: 1 })))];
  const subject = `chat.control.user.${subjectToken(user)}`;
  // As protobuf: field 3 holds text 1 and number 2.
  const varint = (value) => (value < 128 ? [value] : [(value % 128) + 128, ...varint(Math.floor(value / 128))]);
  const inner = [0x0a, user.length, ...Buffer.from(user), 0x10, ...varint(issued_before)];
  await ends(clients, /^io server disconnect$/, subject, Buffer.from([0x1a, inner.length, ...inner]));
  await refusedEverywhere(user, old);
  await refusedEverywhere(user, undated);
  await acceptedEverywhere(user, fresh);
  const conversation = await direct(user, other);
  const [sender, , receiver] = stays;
  await Promise.all([sender, receiver].map((client) => client.joins(conversation)));
  await sender.sends(conversation, 'still here');
  await receiver.sees('message:new', (message) => message.content === 'still here');
  for (const client of stays) assert.deepEqual(client.disconnects, []);
});

test('a disconnected user comes back unless it is for good', async () => {
  const user = person('out');
  const subject = `chat.control.disconnect.${user}`;
  const clients = await everywhere(user, token(user), { reconnection: true });
  await ends(clients, /^(transport close|transport error|ping timeout)$/, subject, { disconnect_user: { user_id: user } });
  await eventually('all are back', () => clients.every((client) => client.socket.connected));
  for (const client of clients) client.disconnects.length = 0;
  const order = { disconnect_user: { user_id: user, for_good: true } };
  await ends(clients, /^io server disconnect$/, subject, order);
  await acceptedEverywhere(user, token(user));
  assert.ok(
    clients.every((client) => !client.socket.active),
    'nobody came back by itself',
  );
});

test('garbage changes nothing', async () => {
  const user = person('safe');
  const clients = await everywhere(user, token(user, { jti: user }));
  const subject = `chat.control.token.${user}`;
  for (const [where, payload] of [
    [subject, 'garbage'],
    [subject, Buffer.from([0xff, 0xff])],
    [subject, Buffer.alloc(0)],
    [subject, { revoke_token: { jti: user, more: 1 } }],
    [subject, { revoke_token: { jti: 7 } }],
    ['chat.control.token.another', { revoke_token: { jti: user } }],
    ['chat.control.anything', { disconnect_user: { user_id: user } }],
    [`chat.control.user.${user}`, { revoke_user_tokens: { user_id: user, issued_before: 'now' } }],
    [`chat.control.disconnect.${user}`, JSON.stringify({ disconnect_user: { user_id: user } })],
  ]) {
    await publish(where, payload);
  }
  // What follows shows that everything before has been looked at.
  const fence = person('fence');
  await ends(await everywhere(fence, token(fence)), /./, `chat.control.disconnect.${fence}`, {
    disconnect_user: { user_id: fence, for_good: true },
  });
  for (const client of clients) assert.deepEqual(client.disconnects, []);
  await acceptedEverywhere(user, token(user, { jti: user }));
});
