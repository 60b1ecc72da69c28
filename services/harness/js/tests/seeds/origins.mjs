// What the origin of a web page decides: the dialect of a connection that names none, and whether it may
// connect at all. The stack is configured as the first lines say.
import assert from 'node:assert/strict';
import { request } from 'node:http';
import { after, test } from 'node:test';
import { Client, closeAll, gateways, person, rest, token } from '../../client.mjs';
import { speaks } from '../../vocabulary.mjs';

after(closeAll);

/** `dialect.origins` and `dialect.default` of the stack. */
const PAGES = { 'https://chats.example': 'chats', 'https://inbox.example:8443': 'inbox' };
const DEFAULT = 'threads';
/** Listed in `cors.origins`, but with no dialect of its own. */
const PLAIN = 'https://plain.example';
const FOREIGN = 'https://evil.example';

const from = (origin, claims, more = {}) => ({
  auth: { token: token(person('any'), claims), ...more.auth },
  extraHeaders: { origin },
  ...(more.query && { query: more.query }),
});

test('a page gets the dialect of its origin, any other the default', async () => {
  for (const [origin, dialect] of Object.entries(PAGES)) await speaks(dialect, from(origin));
  await speaks(DEFAULT, from(PLAIN));
  await speaks(DEFAULT, from(gateways[0]));
  await speaks(DEFAULT, { auth: { token: token(person('any')) } });
});

test('auth goes before the query, the query before the token, the token before the origin', async () => {
  const [origin] = Object.keys(PAGES);
  const dialect = 'journal';
  await speaks('journal', from(origin, { dialect }));
  await speaks('encrypted', from(origin, { dialect }, { query: { dialect: 'encrypted' } }));
  await speaks('native', from(origin, { dialect }, { auth: { dialect: 'native' }, query: { dialect: 'encrypted' } }));
  await speaks('chats', from(origin, { dialect: 'klingon' }));
});

test('REST answers in the dialect of the page, any other in the default', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const made = await rest(token(alice), 'POST', '/conversations/direct', { user_id: bob });
  assert.equal(made.status, 201, made.text);
  const list = async (headers) => (await rest(token(alice), 'GET', '/api/conversations', undefined, { headers })).body;
  const named = (dialect) => list({ 'x-parlance-dialect': dialect });
  for (const [origin, dialect] of Object.entries(PAGES)) assert.deepEqual(await list({ origin }), await named(dialect));
  for (const headers of [{}, { origin: PLAIN }]) assert.deepEqual(await list(headers), await named(DEFAULT));
  assert.notDeepEqual(await named(DEFAULT), await named('chats'));
});

test('the refusal of a page is in the words of its origin', async () => {
  const refusal = (origin) => new Client('any', 0, { auth: { token: 'none' }, extraHeaders: { origin } }).refused();
  assert.equal(await refusal(PLAIN), 'Authentication failed');
  assert.match(await refusal('https://chats.example'), /^unauthenticated: /);
});

test('a foreign page is refused on polling, on a new websocket and on an upgrade', async () => {
  const client = new Client('any', 0, from(FOREIGN));
  assert.match(await client.refused(), /error/);
  client.close();
  const get = (path, origin, headers = {}) =>
    rest(undefined, 'GET', `//socket.io/?EIO=4&${path}`, undefined, { headers: { origin, ...headers } });
  for (const origin of [FOREIGN, 'null', 'https://chats.example.evil.example', 'http://chats.example']) {
    assert.equal((await get('transport=polling', origin)).status, 403, origin);
    assert.equal((await get('transport=polling', origin)).headers.get('access-control-allow-origin'), null);
  }
  const opened = await get('transport=polling', PLAIN);
  assert.equal(opened.status, 200);
  assert.equal(opened.headers.get('access-control-allow-origin'), PLAIN);
  const { sid } = JSON.parse(opened.text.slice(1));
  assert.equal((await get(`transport=polling&sid=${sid}`, FOREIGN)).status, 403);
  assert.equal(await upgrade(sid, FOREIGN), 403);
  assert.equal(await upgrade(undefined, FOREIGN), 403);
  assert.equal(await upgrade(undefined, PLAIN), 101);
  assert.equal(await upgrade(sid, PLAIN), 101);
});

/** The status of a websocket handshake, as any browser would send it. */
function upgrade(sid, origin) {
  const path = `/socket.io/?EIO=4&transport=websocket${sid ? `&sid=${sid}` : ''}`;
  const headers = {
    connection: 'Upgrade',
    upgrade: 'websocket',
    'sec-websocket-version': '13',
    'sec-websocket-key': Buffer.from('sixteen bytes ok').toString('base64'),
    origin,
  };
  return new Promise((resolve, reject) => {
    const sent = request(gateways[0] + path, { headers });
    sent.on('upgrade', (response, socket) => {
      socket.destroy();
      resolve(response.statusCode);
    });
    sent.on('response', (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    sent.on('error', reject);
    sent.end();
  });
}
