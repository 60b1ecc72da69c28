// Routes of the internal port, as another backend service uses them. The stack takes tokens whose `scope` holds
// `parlance:internal` for a service's.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import { assertProblem, closeAll, connect, direct, eventually, now, person, rest, token } from '../client.mjs';
import { speak } from '../vocabulary.mjs';

after(closeAll);

const base = process.env.PARLANCE_INTERNAL;
const scope = 'chat parlance:internal';
const shop = person('shop');
const service = token(shop, { name: 'Shop', scope });
const post = (jwt, path, body, at = base, method = 'POST') => rest(jwt, method, `//internal${path}`, body, { base: at });

test('only a service with a valid token is admitted, and only on the internal port', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const { id } = await direct(alice, bob);
  const client = await connect(alice, 0);
  /** @type {[string, any, string?][]} */
  const everything = [
    [`/conversations/${id}/messages`, { id: 'x', content: 'x' }],
    [`/users/${alice}/messages`, { id: 'x', content: 'x' }],
    [`/users/${alice}/disconnect`, { for_good: true }],
    [`/users/${alice}/name`, { name: 'Mallory' }, 'PUT'],
    [`/users/${alice}/agent`, { agent: true }, 'PUT'],
    ['/tokens/revoke', { user_id: alice, issued_before: now() + 10 }],
    ['/reports', undefined, 'GET'],
    [`/reports/${randomUUID()}/resolve`, { resolution: 'none' }],
    ['/no-such-route', {}],
  ];
  for (const [path, body, method] of everything) {
    const known = path !== '/no-such-route';
    for (const [jwt, status, code] of [
      [undefined, 401, 'unauthenticated'],
      [token(alice), 403, 'forbidden'],
      [token(shop, { scope: 'parlance:internals' }), 403, 'forbidden'],
      [token(shop, { scope: true }), 403, 'forbidden'],
      [token(shop, { service: true }), 403, 'forbidden'],
      [token(shop, { scope, exp: now() - 60 }), 401, 'unauthenticated'],
      [token(shop, { scope }, { key: 'another key of sufficient length' }), 401, 'unauthenticated'],
    ]) {
      if (known) assertProblem(await post(jwt, path, body, base, method), status, code);
    }
    assertProblem(await post(service, path, body, client.url, method), 404, 'not_found');
  }
  assertProblem(await post(service, '/no-such-route', {}), 404, 'not_found');
  assert.deepEqual(client.disconnects, []);
  const { body } = await client.rest('GET', `/conversations/${id}/messages`);
  assert.deepEqual(body.messages, []);
});

test('a service names users, also before they first connect', async () => {
  const [alice, bob, carol] = ['alice', 'bob', 'carol'].map(person);
  const put = (user, body) => post(service, `/users/${user}/name`, body, base, 'PUT');
  const named = await put(carol, { name: 'Carol\u202e C.' });
  assert.deepEqual([named.status, named.body.user_id, named.body.username], [200, carol, 'Carol C.']);
  const mine = (user) => token(user, { name: undefined });
  const client = await connect(alice, 0, { jwt: mine(alice), auth: { token: mine(alice) } });
  await put(alice, { name: 'Alice A.' });
  const { body: group } = await rest(mine(bob), 'POST', '/api/v1/conversations/group', {
    title: 'Named',
    participant_ids: [alice, carol],
  });
  const names = Object.fromEntries(group.participants.map((one) => [one.user_id, one.username]));
  assert.deepEqual(names, { [alice]: 'Alice A.', [bob]: bob, [carol]: 'Carol C.' });
  client.close();
  assertProblem(await put(alice, {}), 400, 'invalid');
  assertProblem(await put('a b', { name: 'x' }), 400, 'invalid');
});

test('a service marks agents, whatever their tokens say', async () => {
  const [alice, robot] = ['alice', 'robot'].map(person);
  const conversation = await direct(alice, robot);
  const senderType = async () => {
    const path = `/api/conversations/${conversation.id}/messages?dialect=threads`;
    return (await rest(token(robot), 'POST', path, { content: 'hello' })).body.senderType;
  };
  assert.equal(await senderType(), 'user');
  for (const agent of [true, false]) {
    const { status } = await post(service, `/users/${robot}/agent`, { agent }, base, 'PUT');
    assert.equal(status, 200);
    assert.equal(await senderType(), agent ? 'agent' : 'user');
  }
  assertProblem(await post(service, `/users/${robot}/agent`, { agent: 'yes' }, base, 'PUT'), 400, 'invalid');
});

test('a message of a service is delivered like any other, once however often it is sent', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await direct(alice, bob);
  const [one, two] = await Promise.all([connect(alice, 0), speak('chats', bob, 1)]);
  await one.joins(conversation);
  const path = `/conversations/${conversation.id}/messages`;
  const order = { id: 'order-4711', content: 'Your order was sent', metadata: { order: 4711 } };
  const sent = await post(service, path, order);
  assert.equal(sent.status, 202, sent.text);
  const message = await one.sees('message:new', (seen) => seen.content === order.content);
  assert.equal(message.id, sent.body.message_id);
  assert.deepEqual(message.sender, { id: `service:${shop}`, username: 'Shop' });
  assert.equal(message.type, 'system');
  assert.deepEqual(message.metadata, order.metadata);
  await two.sees('message:new', (seen) => seen.content === order.content);
  assert.deepEqual((await post(service, path, { ...order, content: 'changed' })).body, sent.body);
  // Another service's message of the same id is another one.
  const helper = token(person('helper'), { scope: [scope, 'parlance:internal'] });
  const answer = { id: order.id, content: 'May I help?', type: 'text', agent: true, reply_to: message.id };
  assert.equal((await post(helper, path, answer)).status, 202);
  await one.sees('message:new', (seen) => seen.content === answer.content && seen.reply_to === message.id);
  assert.equal(
    (await post(service, `/conversations/${conversation.number}/messages`, { id: 'n', content: 'by number' })).status,
    202,
  );
  await one.sees('message:new', (seen) => seen.content === 'by number');
  assert.equal(one.all('message:new').length, 3);
});

test('a message of a service that cannot be stored is refused at once', async () => {
  const conversation = await direct(person('alice'), person('bob'));
  const path = `/conversations/${conversation.id}/messages`;
  assertProblem(await post(service, `/conversations/${randomUUID()}/messages`, { id: 'x', content: 'x' }), 404, 'not_found');
  for (const [body, status, code] of [
    [{ content: 'no id' }, 400, 'invalid'],
    [{ id: '', content: 'x' }, 400, 'invalid'],
    [{ id: 'x'.repeat(201), content: 'x' }, 400, 'invalid'],
    [{ id: 'x', content: 'x', sender_id: 'alice' }, 400, 'invalid'],
    [{ id: 'x', content: 'x', type: 'nonsense' }, 400, 'invalid'],
    [{ id: 'x', content: 'a\u0000b' }, 400, 'invalid'],
    [{ id: 'x', content: 'x', metadata: [1] }, 400, 'invalid'],
    [{ id: 'x', content: 'x'.repeat(65_537) }, 413, 'too_large'],
    ['{', 400, 'invalid'],
  ]) {
    assertProblem(await post(service, path, body), status, code);
  }
});

test('a service reaches a user in a conversation of their own', async () => {
  const carol = person('carol');
  const sent = await post(service, `/users/${carol}/messages`, { id: 'hello', content: 'Welcome' });
  assert.equal(sent.status, 202, sent.text);
  await eventually('the message is there', async () => {
    const { status, body } = await rest(token(carol), 'GET', `/conversations/${sent.body.conversation_id}/messages`);
    return status === 200 && body.messages.some(({ id, content }) => id === sent.body.message_id && content === 'Welcome');
  });
});

test('a service disconnects users and revokes tokens on every replica', async () => {
  const dave = person('dave');
  const everywhere = (jwt) => Promise.all([0, 1].map((gateway) => connect(dave, gateway, { jwt })));
  const ended = (clients) =>
    eventually('all are closed', () => clients.every(({ disconnects }) => disconnects.length > 0), 1_000);
  const done = async (path, body) => assert.deepEqual((await post(service, path, body)).body, { ok: true });
  let clients = await everywhere(token(dave));
  await done(`/users/${dave}/disconnect`);
  await ended(clients);
  assert.ok(clients.every(({ disconnects }) => disconnects[0] !== 'io server disconnect'));
  clients = await everywhere(token(dave));
  await done(`/users/${dave}/disconnect`, { for_good: true });
  await ended(clients);
  const jti = randomUUID();
  const revoked = token(dave, { jti });
  clients = await everywhere(revoked);
  await done('/tokens/revoke', { jti, expires_at: now() + 3600 });
  await ended(clients);
  clients = await everywhere(token(dave, { iat: now() - 100 }));
  await done('/tokens/revoke', { user_id: dave, issued_before: now() - 50 });
  await ended(clients);
  for (const client of clients) assert.deepEqual(client.disconnects, ['io server disconnect']);
  for (const jwt of [revoked, token(dave, { iat: now() - 100 })]) {
    assertProblem(await rest(jwt, 'GET', '/conversations'), 401, 'unauthenticated');
  }
  await everywhere(token(dave));
  for (const body of [{}, { jti: '' }, { jti, user_id: dave }, { user_id: dave }, { user_id: 'a b', issued_before: 1 }]) {
    assertProblem(await post(service, '/tokens/revoke', body), 400, 'invalid');
  }
});

test('a reported message is in the queue of services until one settles it', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const { id } = await direct(alice, bob);
  const sends = (content) => rest(token(alice), 'POST', `/api/v1/conversations/${id}/messages`, { content });
  const messages = [(await sends('buy this')).body, (await sends('buy that')).body];
  const reports = (message, body) => rest(token(bob), 'POST', `/api/v1/conversations/${id}/messages/${message.id}/report`, body);
  for (const message of [...messages, messages[0]]) {
    assert.equal((await reports(message, { reason: 'spam', comment: 'unasked' })).status, 204);
  }
  assertProblem(await reports(messages[0], { reason: 'boredom' }), 400, 'invalid');
  assertProblem(await reports(messages[0], { reason: 'spam', comment: 'x'.repeat(1_001) }), 413, 'too_large');
  // Its sender takes it back, which the queue does not.
  await rest(token(alice), 'DELETE', `/api/v1/conversations/${id}/messages/${messages[0].id}`);
  const page = async (query) => (await rest(service, 'GET', `//internal/reports?${query}`, undefined, { base })).body;
  const mine = async () => {
    const found = [];
    for (let cursor = ''; ; ) {
      const { reports: some, next } = await page(`limit=1&cursor=${cursor}`);
      found.push(...some.filter((one) => one.conversation_id === id));
      if (!next) return found;
      cursor = next;
    }
  };
  const queue = await mine();
  assert.deepEqual(
    queue.map((one) => [one.message_id, one.content, one.sender_id, one.reporter_id, one.reason, one.comment]),
    messages.map((one, index) => [one.id, ['buy this', 'buy that'][index], alice, bob, 'spam', 'unasked']),
  );
  const resolve = (report, body) => post(service, `/reports/${report}/resolve`, body);
  assert.equal((await resolve(queue[0].id, { resolution: 'warned' })).status, 204);
  assert.equal((await resolve(queue[0].id, { resolution: 'again' })).status, 204);
  assert.deepEqual(
    (await mine()).map((one) => one.id),
    [queue[1].id],
  );
  assert.equal((await resolve(queue[1].id)).status, 204);
  assert.deepEqual(await mine(), []);
  assertProblem(await resolve(randomUUID(), {}), 404, 'not_found');
  assertProblem(await rest(service, 'GET', '//internal/reports?cursor=x', undefined, { base }), 400, 'invalid');
});
