// Where front ends connect, and from which pages. The stack is configured as tests/it/edge.rs says.
import assert from 'node:assert/strict';
import { request } from 'node:http';
import { after, test } from 'node:test';
import { Manager } from 'socket.io-client';
import {
  Client,
  assertProblem,
  closeAll,
  connect,
  direct,
  eventually,
  gateways,
  now,
  person,
  rest,
  token,
  transport,
  within,
} from '../client.mjs';
import { speaks } from '../vocabulary.mjs';

const managers = [];
after(() => {
  for (const manager of managers) manager._close();
  closeAll();
});

const LISTED = 'https://listed.example';
const WILD = 'https://shop.wild.example';
const LOCAL = 'http://localhost:5173';
const REFUSED = [
  'https://evil.example',
  'https://wild.example',
  'https://evil-wild.example',
  'https://listed.example.evil.example',
  'https://localhost:5173',
  'null',
];
const [base] = gateways;
const TRANSPORTS = { websocket: ['websocket'], polling: ['polling'], default: ['polling', 'websocket'] };

/** One connection whose namespaces a test opens by itself. */
function manager(gateway = 0, options = {}) {
  const own = { transports: TRANSPORTS[transport], reconnection: false, autoConnect: false };
  const one = new Manager(gateways[gateway], { ...own, ...options });
  managers.push(one);
  return one;
}

/** A connected socket of a namespace. */
async function enter(one, namespace, auth) {
  const socket = one.socket(namespace);
  // The socket of a namespace that was left is the same one.
  socket.auth = auth;
  socket.seen = [];
  socket.onAny((event, payload) => socket.seen.push({ event, payload }));
  await within(
    new Promise((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('connect_error', reject);
      socket.connect();
    }),
    `connected to ${namespace}`,
  );
  return socket;
}

/** A request as it is on the wire: headers that come twice are there twice. */
function raw(method, path, headers = {}) {
  return new Promise((resolve, reject) => {
    const sent = request(base + path, { method, headers }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (part) => (text += part));
      response.on('end', () => {
        const pairs = [];
        for (let i = 0; i < response.rawHeaders.length; i += 2) {
          pairs.push([response.rawHeaders[i].toLowerCase(), response.rawHeaders[i + 1]]);
        }
        const all = (name) => pairs.filter(([key]) => key === name).map(([, value]) => value);
        resolve({ status: response.statusCode, text, all });
      });
    });
    sent.on('error', reject);
    sent.end();
  });
}

const polling = '/socket.io/?EIO=4&transport=polling';
const preflight = (path, origin, asked = 'authorization,x-request-id') =>
  raw('OPTIONS', path, {
    origin,
    'access-control-request-method': 'POST',
    'access-control-request-headers': asked,
  });

test('every path leads to the same conversations, through any gateway', async () => {
  const [ada, bea] = [person('ada'), person('bea')];
  const conversation = await direct(ada, bea);
  const one = await connect(ada, 0, { path: '/ws' });
  const other = await connect(bea, 1, { path: '/socket.io' });
  await one.joins(conversation);
  await other.joins(conversation);
  const message = await one.sends(conversation, 'hello');
  assert.deepEqual(await other.sees('message:new'), message);
  const third = await connect(ada, 0, { path: '/ws/', addTrailingSlash: false });
  await third.joins(conversation);
  // A session begun at one gateway goes on at another, whichever path leads there.
  const query = 'EIO=4&transport=polling';
  const opened = await rest(undefined, 'GET', `//ws/?${query}`, undefined, { base: gateways[0] });
  const { sid } = JSON.parse(opened.text.slice(1));
  const packet = `40${JSON.stringify({ token: token(ada) })}`;
  for (const path of ['ws', 'socket.io']) {
    const url = `//${path}/?${query}&sid=${sid}`;
    const options = { base: gateways[1], headers: { 'content-type': 'text/plain;charset=UTF-8' } };
    assert.equal((await rest(undefined, 'POST', url, path === 'ws' ? packet : '3', options)).status, 200);
  }
});

test('a client at a wrong path reads which are right', async () => {
  for (const path of ['/chatt/?EIO=4&transport=polling', '/?EIO=4&transport=polling', '/socket.io/x?EIO=4']) {
    const answer = await rest(undefined, 'GET', `/${path}`);
    assertProblem(answer, 404, 'not_found');
    assert.match(answer.body.detail, /`path` to \/socket\.io or \/ws .*socket\.path/);
  }
  // What is no Socket.IO request is no route, as ever.
  assert.match((await rest(undefined, 'GET', '//chatt')).body.detail, /no such route/);
});

test('namespaces are aliases of one another, each a session of its own on one connection', async () => {
  const [ada, bea] = [person('ada'), person('bea')];
  const conversation = await direct(ada, bea);
  const one = manager();
  const main = await enter(one, '/', { token: token(ada), dialect: 'native', since: {} });
  const ws = await enter(one, '/ws', { token: token(ada), dialect: 'chats' });
  const chat = await enter(one, '/chat', { token: token(bea), dialect: 'native', since: {} });
  await main.emitWithAck('conversation:join', { conversation_id: conversation.id });
  await chat.emitWithAck('conversation:join', { conversation_id: conversation.id });
  const sent = await chat.emitWithAck('message:send', { conversation_id: conversation.id, content: 'hi' });
  assert.equal(sent.ok, true, JSON.stringify(sent));
  const { message } = sent;
  const arrived = (socket) => socket.seen.find(({ event }) => event === 'message:new')?.payload;
  await eventually('each hears of it', () => arrived(main) && arrived(ws));
  assert.deepEqual(arrived(main), message);
  // In the shape of its own dialect.
  assert.equal(arrived(ws).id, message.id);
  assert.notDeepEqual(Object.keys(arrived(ws)).sort(), Object.keys(message).sort());
  // One that leaves does not take the others along, and may come again.
  ws.disconnect();
  assert.ok((await main.emitWithAck('conversation:join', { conversation_id: conversation.id })).ok);
  const again = await enter(one, '/ws', { token: token(ada), dialect: 'native', since: {} });
  const joined = await again.emitWithAck('conversation:join', { conversation_id: conversation.id });
  assert.equal(joined.ok, true, JSON.stringify(joined));
});

test('a session whose token ends leaves the other namespaces of its connection alone', async () => {
  const [ada, bea] = [person('ada'), person('bea')];
  const conversation = await direct(ada, bea);
  const one = manager();
  const stays = await enter(one, '/', { token: token(ada), dialect: 'native', since: {} });
  const ends = await enter(one, '/chat', { token: token(bea, { exp: now() + 2 }), dialect: 'native', since: {} });
  const gone = new Promise((resolve) => ends.once('disconnect', resolve));
  const torn = [];
  stays.on('disconnect', (reason) => torn.push(reason));
  assert.equal(await within(gone, 'the end of the token'), 'io server disconnect');
  const begun = Date.now();
  // Longer than a session that is dismissed may keep a connection of its own.
  await eventually('three seconds later', async () => {
    assert.ok((await stays.emitWithAck('conversation:join', { conversation_id: conversation.id })).ok);
    return Date.now() - begun > 3_000;
  });
  assert.deepEqual(torn, []);
});

test('one namespace that is flooded does not silence another', async () => {
  const [ada, bea] = [person('ada'), person('bea')];
  const conversation = await direct(ada, bea);
  const one = manager();
  const floods = await enter(one, '/', { token: token(ada), dialect: 'native', since: {} });
  const other = await enter(one, '/chat', { token: token(bea), dialect: 'native', since: {} });
  const acks = [];
  // Many times socket.max_waiting_events.
  for (let i = 0; i < 500; i++) {
    acks.push(floods.emitWithAck('conversation:join', { conversation_id: conversation.id }));
  }
  const joined = other.emitWithAck('conversation:join', { conversation_id: conversation.id });
  assert.ok((await within(joined, 'the other namespace is served', 60_000)).ok);
  await within(Promise.all(acks), 'every answer', 60_000);
});

test('a client in a wrong namespace reads which are right, and may try again', async () => {
  const one = manager();
  for (const namespace of ['/admin', '/ws/', '/a/b', '/admin', '/%2e', '/ü']) {
    const error = await within(
      new Promise((resolve, reject) => {
        const socket = one.socket(namespace, { auth: { token: token(person('eve')) } });
        socket.once('connect_error', resolve);
        socket.once('connect', () => reject(new Error(`${namespace} was entered`)));
        socket.connect();
      }),
      `refused in ${namespace}`,
    );
    assert.match(error.message, /^Invalid namespace: .* \/, \/ws or \/chat .*socket\.namespaces/, namespace);
  }
  await enter(one, '/chat', { token: token(person('eve')) });
});

test('the first page says what this is and where the contract is', async () => {
  const { status, body } = await rest(undefined, 'GET', '//');
  assert.equal(status, 200);
  assert.match(body.about, /chat/);
  assert.equal(body.docs, '/docs');
  assert.deepEqual(body.socket.path.sort(), ['/socket.io', '/ws']);
  assert.deepEqual(body.socket.namespaces, ['/', '/ws', '/chat']);
});

test('the client library is served below each path, as a script that caches can check', async () => {
  for (const path of ['/socket.io', '/ws']) {
    for (const file of ['socket.io.js', 'socket.io.min.js', 'socket.io.esm.min.js', 'socket.io.min.js.map']) {
      const answer = await raw('GET', `${path}/${file}`, { origin: LISTED });
      assert.equal(answer.status, 200, file);
      assert.match(answer.all('content-type')[0], file.endsWith('.map') ? /json/ : /javascript/);
      const [etag] = answer.all('etag');
      assert.equal((await raw('GET', `${path}/${file}`, { 'if-none-match': etag })).status, 304);
    }
  }
  assert.match((await raw('GET', '/socket.io/socket.io.js')).text, /Socket\.IO v4/);
  assertProblem(await rest(undefined, 'GET', '//socket.io/package.json'), 404, 'not_found');
});

test('pages of listed origins may send credentials and the headers of the setting, to sockets and REST', async () => {
  for (const origin of [LISTED, WILD, LOCAL, 'http://localhost']) {
    for (const path of [polling, '/api/v1/conversations', '/api/conversations/direct']) {
      const answer = await preflight(path, origin);
      assert.equal(answer.status, 204, `${origin} ${path}`);
      assert.deepEqual(answer.all('access-control-allow-origin'), [origin]);
      assert.deepEqual(answer.all('access-control-allow-credentials'), ['true']);
      const headers = answer.all('access-control-allow-headers')[0].split(', ');
      for (const name of ['authorization', 'content-type', 'x-parlance-dialect', 'x-request-id']) {
        assert.ok(headers.includes(name), `${name} in ${headers}`);
      }
      for (const method of ['POST', 'PUT', 'PATCH', 'DELETE']) {
        assert.ok(answer.all('access-control-allow-methods')[0].includes(method));
      }
    }
    const opened = await raw('GET', polling, { origin });
    const listed = await raw('GET', '/api/v1/conversations', { origin, authorization: `Bearer ${token(person('a'))}` });
    const refused = await raw('GET', '/api/v1/conversations', { origin });
    assert.deepEqual([opened.status, listed.status, refused.status], [200, 200, 401]);
    for (const answer of [opened, listed, refused]) {
      assert.deepEqual(answer.all('access-control-allow-origin'), [origin]);
      assert.deepEqual(answer.all('access-control-allow-credentials'), ['true']);
      assert.deepEqual(answer.all('vary'), ['origin']);
    }
  }
});

test('a page of another origin reads which setting must list it, wherever it asks', async () => {
  for (const origin of REFUSED) {
    for (const answer of [
      await raw('GET', polling, { origin }),
      await raw('GET', '/ws/?EIO=4&transport=polling', { origin }),
      await raw('GET', '/api/conversations', { origin, authorization: `Bearer ${token(person('a'))}` }),
      await preflight('/api/conversations/direct', origin),
      await preflight(polling, origin),
    ]) {
      assert.equal(answer.status, 403, origin);
      const body = JSON.parse(answer.text);
      assert.equal(body.code, 'forbidden');
      assert.match(body.detail, /cors\.origins \(PARLANCE_CORS_ORIGINS\)/);
      assert.deepEqual(answer.all('access-control-allow-origin'), []);
      assert.deepEqual(answer.all('vary'), ['origin']);
    }
    const client = new Client(person('eve'), 0, { extraHeaders: { origin } });
    assert.match(await client.refused(), /error/);
  }
});

test('the dialect of an origin does not depend on how the setting spells it', async () => {
  const from = (origin) => ({ auth: { token: token(person('any')) }, extraHeaders: { origin } });
  await speaks('chats', from(LISTED));
  await speaks('inbox', from(WILD));
  await speaks('native', from(LOCAL));
});

test('a token in the query opens a session where the setting allows it', async () => {
  const user = person('quinn');
  for (const value of [token(user), `Bearer ${token(user)}`]) {
    const client = await connect(user, 0, { auth: {}, query: { token: value } });
    const conversation = await direct(user, person('rob'));
    await client.joins(conversation);
  }
  const forged = new Client(user, 0, { auth: {}, query: { token: 'forged' } });
  assert.match(await forged.refused(), /^unauthenticated: .*malformed/);
  // Routes take tokens from the header alone.
  const answer = await rest(undefined, 'GET', `/conversations?token=${token(user)}`);
  assertProblem(answer, 401, 'unauthenticated');
});
