// Which tokens open a socket and a route.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Client, assertProblem, closeAll, connect, direct, eventually, listening, now, person, rest, token } from '../client.mjs';

after(closeAll);

const user = person('tess');
const none = { header: { alg: 'none', typ: 'JWT' } };
const [head, body, signature] = token(user).split('.');
/** @type {Record<string, [string, RegExp]>} */
const REFUSED = {
  'of algorithm none': [token(user, {}, none), /algorithm/],
  'of algorithm none with a signature': [`${token(user, {}, none)}${signature}`, /algorithm/],
  'of algorithm NONE': [token(user, {}, { header: { alg: 'NONE' } }), /algorithm|malformed/],
  'that claims RS256 but is signed with the secret': [token(user, {}, { header: { alg: 'RS256' } }), /algorithm/],
  'signed with another key': [token(user, {}, { key: 'another key of sufficient length' }), /signature/],
  'with changed claims': [`${head}.${token('admin').split('.')[1]}.${signature}`, /signature/],
  'without its signature': [`${head}.${body}.`, /signature|malformed/],
  'that has expired': [token(user, { exp: now() - 60 }), /expired/],
  'that is not valid yet': [token(user, { nbf: now() + 3600 }), /not valid yet/],
  'without sub': [token(undefined), /sub/],
  'with an empty sub': [token(''), /sub/],
  'whose sub is a broken number': [token(user, { sub: 7.5 }), /sub/],
  'whose sub is an object': [token(user, { sub: { id: user } }), /sub/],
  'whose sub holds a line break': [token('a\nb'), /sub/],
  'whose sub is longer than 128 characters': [token('x'.repeat(129)), /sub/],
  'without exp': [token(user, { exp: undefined }), /exp/],
  'whose exp is text': [token(user, { exp: 'tomorrow' }), /exp|malformed/],
  'that is no token': ['garbage', /malformed/],
  'that is empty': ['', /malformed|no token/],
  'that is longer than allowed': [token(user, { pad: 'x'.repeat(20_000) }), /malformed/],
};

for (const [name, [jwt, message]] of Object.entries(REFUSED)) {
  test(`S0.x1 S2.x1 S4.x1: a token ${name} is refused on the socket and by REST`, async () => {
    const client = new Client(user, 0, { auth: { token: jwt } });
    const refusal = await client.refused();
    assert.match(refusal, /^unauthenticated: /);
    assert.match(refusal, message);
    assert.ok(refusal.length < 200 && (jwt.length < 10 || !refusal.includes(jwt)));
    if (jwt.length > 16_000) return;
    const answer = await rest(undefined, 'GET', '/conversations', undefined, {
      headers: { authorization: `Bearer ${jwt}` },
    });
    assertProblem(answer, 401, 'unauthenticated');
    assert.ok(answer.headers.get('www-authenticate'));
  });
}

test('S3.x1: without a token, or with one anywhere else, nobody comes in', async () => {
  const jwt = token(user);
  for (const options of [
    { auth: {} },
    { auth: { dialect: 'native' } },
    { auth: {}, query: { token: jwt } },
    { auth: {}, query: { access_token: jwt, auth: JSON.stringify({ token: jwt }) } },
    { auth: {}, extraHeaders: { cookie: `token=${jwt}` } },
  ]) {
    assert.match(await new Client(user, 0, options).refused(), /^unauthenticated: .*no token/);
  }
  for (const auth of [{ token: 42 }, { token: { a: 1 } }, { token: [jwt] }]) {
    assert.match(await new Client(user, 0, { auth }).refused(), /^(unauthenticated|invalid): /);
  }
  for (const path of [`/conversations?token=${jwt}`, `/conversations?access_token=${jwt}`]) {
    assertProblem(await rest(undefined, 'GET', path), 401, 'unauthenticated');
  }
  for (const authorization of [jwt, `bearer`, `Basic ${jwt}`, 'Bearer ', `Bearer  ${jwt} x`]) {
    const answer = await rest(undefined, 'GET', '/conversations', undefined, { headers: { authorization } });
    assertProblem(answer, 401, 'unauthenticated');
  }
});

test('S1.r13: REST refuses every route without a token, also before reading a body', async () => {
  const id = '0190a6e0-0000-7000-8000-000000000001';
  for (const [method, path] of [
    ['GET', '/conversations'],
    ['POST', '/conversations/direct'],
    ['POST', '/conversations/group'],
    ['GET', `/conversations/${id}`],
    ['GET', `/conversations/${id}/messages`],
    ['POST', `/conversations/${id}/messages`],
    ['GET', `/conversations/${id}/events`],
  ]) {
    assertProblem(await rest(undefined, method, path, method === 'POST' ? '{broken' : undefined), 401, 'unauthenticated');
  }
});

test('a token in the Authorization header of the handshake is accepted', async () => {
  await connect(user, 0, { auth: {}, extraHeaders: { authorization: `Bearer ${token(user)}` } });
});

test('a token is accepted with its scheme in front, in any case and spacing', async () => {
  const jwt = token(user);
  for (const before of ['Bearer ', 'bearer ', '  BEARER   ']) {
    await connect(user, 0, { auth: { token: before + jwt } });
    await connect(user, 0, { auth: {}, extraHeaders: { authorization: before + jwt } });
    const headers = { authorization: before + jwt };
    assert.equal((await rest(undefined, 'GET', '/conversations', undefined, { headers })).status, 200, before);
  }
});

test('the user id is in whichever claim the application uses, as text or number', async () => {
  const number = Math.floor(Math.random() * 2 ** 50);
  const text = person('claimed');
  for (const [claims, id] of /** @type {[object, string][]} */ ([
    [{ userId: text }, text],
    [{ user_id: number }, String(number)],
    [{ id: number + 1 }, String(number + 1)],
    [{ uid: `${text}-uid` }, `${text}-uid`],
    [{ _id: '65f0c0ffee65f0c0ffee65f0' }, '65f0c0ffee65f0c0ffee65f0'],
  ])) {
    const jwt = token(undefined, { name: 'Ada', ...claims });
    const client = await connect(id, 0, { jwt });
    const other = person('peer');
    const conversation = await client.rest('POST', '/conversations/direct', { user_id: other });
    assert.equal(conversation.status, 201, conversation.text);
    assert.equal((await client.sends(conversation.body, 'hi')).sender.id, id);
  }
});

test('a token that is valid in a moment is waited for, and the client never hears of a refusal', async () => {
  const early = token(user, { nbf: now() + 5 });
  const answer = await rest(early, 'GET', '/conversations');
  assertProblem(answer, 503, 'unavailable');
  assert.equal(answer.body.retry, true);
  assert.ok(answer.headers.get('retry-after'));
  await connect(user, 0, { jwt: early });
  assert.equal((await rest(early, 'GET', '/conversations')).status, 200);
});

test('a token that is valid only later lets the stock client come again until it is', async () => {
  const client = new Client(user, 0, { jwt: token(user, { nbf: now() + 10 }), reconnection: true });
  const refusals = [];
  client.socket.on('connect_error', (error) => refusals.push(error));
  await eventually('connected', () => client.socket.connected, 25_000);
  // What the server says in `connect_error` is not temporary: stock clients give up then.
  assert.deepEqual(
    refusals.filter((error) => error.type !== 'TransportError').map((error) => error.message),
    [],
  );
});

test('the leeway covers a clock that differs by a second', async () => {
  await connect(user, 0, { jwt: token(user, { nbf: now() + 1 }) });
});

test('an unknown dialect is refused with a clear message', async () => {
  const refusal = await new Client(user, 0, { auth: { token: token(user), dialect: 'klingon' } }).refused();
  assert.match(refusal, /dialect/);
});

test('when its token expires a socket is closed within seconds and REST answers 401', async () => {
  const exp = now() + 3;
  const client = await connect(user, 0, { jwt: token(user, { exp }) });
  const stays = await connect(user, 0);
  const other = person('ulf');
  const conversation = await direct(user, other);
  await client.joins(conversation);
  await eventually('closed', () => client.disconnects.length > 0, 12_000);
  const late = Date.now() / 1000 - exp;
  assert.ok(late > -1 && late < 5, `closed ${late} s after the end of the token`);
  assert.deepEqual(client.disconnects, ['io server disconnect']);
  await eventually('REST refuses', async () => (await client.rest('GET', '/conversations')).status === 401, 6_000);
  await stays.joins(conversation);
  assert.deepEqual(stays.disconnects, []);
});

test('the display name comes from the token and may hold any script', async () => {
  const [zoe, name] = [person('zoe'), 'Zoë 💬 محمد'];
  const client = await connect(zoe, 0, { jwt: token(zoe, { name }) });
  const conversation = await direct(person('vera'), zoe);
  const message = await client.sends(conversation, 'hi');
  assert.deepEqual(message.sender, { id: zoe, username: name });
  const renamed = await connect(zoe, 1, { jwt: token(zoe, { name: 'Zoe' }) });
  assert.equal((await renamed.sends(conversation, 'hi again')).sender.username, 'Zoe');
});

test('user ids may be anything visible, subject wildcards included', async () => {
  const suffix = person('x');
  for (const id of [
    `a.b.*.>.${suffix}`,
    `auth0|${suffix}`,
    `${suffix}@example.org`,
    `日本/${suffix}`,
    `%2e${suffix}'";--`,
    `$JS.API.${suffix}`,
  ]) {
    const other = person('wim');
    const [client, peer] = await Promise.all([connect(id, 0), connect(other, 1)]);
    await listening(client);
    const conversation = await direct(other, id, 1);
    await client.sees('conversation:new', (seen) => seen.id === conversation.id);
    await peer.joins(conversation);
    const message = await client.sends(conversation, 'hello');
    assert.equal(message.sender.id, id);
    assert.deepEqual(await peer.sees('message:new'), message);
  }
});
