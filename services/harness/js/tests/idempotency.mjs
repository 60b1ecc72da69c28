// Every change a client can make, by route and by native event, repeated with its idempotency key: one effect, one
// answer, through any gateway. With PARLANCE_PREFIX the routes under it, else all others.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, describe, test } from 'node:test';
import { assertProblem, closeAll, connect, eventually, gateways, person, rest, token } from '../client.mjs';
import { assertComplete, contract } from './matrix/judge.mjs';

after(closeAll);

/** Native events that change nothing that is stored. */
const READING = [
  'auth:refresh',
  'conversation:join',
  'conversation:leave',
  'conversation:participants',
  'journal:awareness',
  'journal:join',
  'journal:leave',
  'message:stop',
  'presence',
  'presence:set',
  'presence:subscribe',
  'presence:unsubscribe',
  'sync',
  'thread:switch',
  'typing',
  'user:blocks',
];
/** Native events that are as good as once when they are carried out twice. */
const WITHOUT_KEY = ['user:block', 'user:unblock'];

/** Without an answer in a dialect's own form, so that `/api/v1` and `/api` show what they are. */
async function call(user, method, path, body = undefined, /** @type {{ key?: string, gateway?: number, headers?: any }} */ { key, gateway = 0, headers = {} } = {}) {
  const base = gateways[gateway % gateways.length];
  const keyed = key === undefined ? headers : { ...headers, 'idempotency-key': key };
  const full = path.startsWith('/api') ? path : `/api/v1${path}`;
  return rest(token(user), method, full, body, { base, headers: keyed });
}

/** The answer, once another attempt that is under way has ended. */
const answered = (send) =>
  eventually('it is answered', async () => {
    const answer = await send();
    return !(answer.status === 409 && answer.body.retry) && answer;
  });

async function does(user, method, path, body, more) {
  const answer = await call(user, method, path, body, more);
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`);
  return answer.body;
}

/** A request on the way to a scene, repeated by its key until its outcome is known. */
async function makes(user, method, path, body) {
  const key = randomUUID();
  const answer = await eventually(`${method} ${path}`, async () => {
    const answer = await call(user, method, path, body, { key });
    return !answer.body?.retry && answer;
  });
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`);
  return answer.body;
}

/** A group and a journal of alice, with bob in both, and a message of each of them. */
async function scene() {
  const [alice, bob, carol] = [person('alice'), person('bob'), person('carol')];
  const [{ id }, journal] = await Promise.all([
    makes(alice, 'POST', '/conversations/group', { title: 'A group', participant_ids: [bob] }),
    makes(alice, 'POST', '/journals', { title: 'A journal', content: 'first' }),
  ]);
  const [own, foreign, thread] = await Promise.all([
    makes(alice, 'POST', `/conversations/${id}/messages`, { content: 'of one’s own' }),
    makes(bob, 'POST', `/conversations/${id}/messages`, { content: 'of another' }),
    makes(alice, 'POST', `/conversations/${id}/threads`, { title: 'A thread' }),
    makes(alice, 'POST', `/journals/${journal.id}/collaborators`, { user_id: bob, permission: 'viewer' }),
  ]);
  return { alice, bob, carol, id, own: own.id, foreign: foreign.id, thread: thread.id, journal: journal.id };
}

/** How many events group and journal have, and how many of each alice has. */
async function effects({ alice, id, journal }) {
  const events = async (conversation) => {
    const { body } = await call(alice, 'GET', `/conversations/${conversation}/events?after=0&limit=100`);
    return body?.events?.length ?? 'gone';
  };
  const listed = async (what) => (await does(alice, 'GET', `/${what}?limit=100`))[what].length;
  const counts = [events(id), events(journal), listed('conversations'), listed('journals')];
  const [ofGroup, ofJournal, conversations, journals] = await Promise.all(counts);
  return { group: ofGroup, journal: ofJournal, conversations, journals };
}

const rows = [];
/** `added` is what one effect adds to what `effects` counts. */
const row = (route, request, added = {}) => rows.push({ route, request, added });
const one = { group: 1 };
const inGroup = (rest) => (at) => `/conversations/${at.id}${rest}`;
const about = (which, rest = '') => (at) => `/conversations/${at.id}/messages/${at[which]}${rest}`;
const alone = (which, rest = '') => (at) => `/messages/${at[which]}${rest}`;
const inJournal = (rest) => (at) => `/journals/${at.journal}${rest}`;
const over = (path, body) => (at) => [path(at), typeof body === 'function' ? body(at) : body];

const C = '/conversations/{id}';
const M = `${C}/messages/{mid}`;
const J = '/journals/{id}';
const words = { content: 'said once' };
const emoji = { emoji: '👍' };
const more = (at) => ({ title: 'Another', participant_ids: [at.bob] });
row('POST /conversations', over(() => '/conversations', more), { conversations: 1 });
row('POST /conversations/group', over(() => '/conversations/group', more), { conversations: 1 });
row('POST /conversations/direct', over(() => '/conversations/direct', (at) => ({ user_id: at.bob })), {
  conversations: 1,
});
row(`PUT ${C}`, over(inGroup(''), { title: 'Other' }), one);
row(`PATCH ${C}`, over(inGroup(''), { title: 'Other' }), one);
row(`DELETE ${C}`, over(inGroup('')), { group: 'gone', conversations: -1 });
row(`POST ${C}/messages`, over(inGroup('/messages'), words), one);
row(`PATCH ${M}`, over(about('own'), { content: 'changed' }), one);
row(`DELETE ${M}`, over(about('own')), one);
row(`DELETE ${M}`, over(about('foreign', '?scope=me')));
row(`POST ${M}/reactions`, over(about('foreign', '/reactions'), emoji), one);
row(`DELETE ${M}/reactions`, over(about('foreign', '/reactions'), emoji));
row(`POST ${M}/report`, over(about('foreign', '/report'), { reason: 'spam' }));
row(`POST ${M}/status`, over(about('foreign', '/status'), { status: 'read' }));
row(`POST ${C}/read`, over(inGroup('/read'), (at) => ({ message_ids: [at.foreign] })));
row(`PUT ${C}/mute`, over(inGroup('/mute'), {}));
row(`DELETE ${C}/mute`, over(inGroup('/mute')));
row(`POST ${C}/participants`, over(inGroup('/participants'), (at) => ({ user_id: at.carol })), one);
row(
  `PATCH ${C}/participants/{user_id}`,
  (at) => [`/conversations/${at.id}/participants/${at.bob}`, { role: 'moderator' }],
  one,
);
row(`DELETE ${C}/participants/{user_id}`, (at) => [`/conversations/${at.id}/participants/${at.bob}`], one);
const bans = (at) => [`/conversations/${at.id}/bans/${at.bob}`];
row(`PUT ${C}/bans/{user_id}`, bans, one);
row(`DELETE ${C}/bans/{user_id}`, bans);
row(`POST ${C}/threads`, over(inGroup('/threads'), { title: 'Another' }), one);
row(`POST ${C}/threads/{tid}`, (at) => [`/conversations/${at.id}/threads/${at.thread}`, words], one);
row('POST /journals', () => ['/journals', { title: 'Another', content: 'text' }], { journals: 1 });
row(`PATCH ${J}`, over(inJournal(''), { title: 'Other', content: 'second' }), { journal: 2 });
row(`DELETE ${J}`, over(inJournal('')), { journal: 'gone', journals: -1 });
row(`POST ${J}/restore/{version}`, over(inJournal('/restore/1')), { journal: 1 });
row(
  `POST ${J}/collaborators`,
  over(inJournal('/collaborators'), (at) => ({ user_id: at.carol, permission: 'viewer' })),
  { journal: 1 },
);
row(
  `PATCH ${J}/collaborators/{user_id}`,
  (at) => [`/journals/${at.journal}/collaborators/${at.bob}`, { permission: 'editor' }],
  { journal: 1 },
);
row(`DELETE ${J}/collaborators/{user_id}`, (at) => [`/journals/${at.journal}/collaborators/${at.bob}`], { journal: 1 });
row('POST /messages', over(() => '/messages', (at) => ({ conversation_id: at.id, content_encrypted: 'x' })), one);
row('PATCH /messages/{id}', over(alone('own'), { content_encrypted: 'y' }), one);
row('DELETE /messages/{id}', over(alone('own')), one);
row('POST /messages/{id}/status', over(alone('foreign', '/status'), { status: 'delivered' }));
row('POST /messages/{id}/reactions', over(alone('foreign', '/reactions'), emoji), one);
row('DELETE /messages/{id}/reactions', over(alone('foreign', '/reactions'), emoji));

/** What counts `added` more than before. */
const with_ = (before, added) =>
  Object.fromEntries(
    Object.entries(before).map(([name, count]) => [name, added[name] === 'gone' ? 'gone' : count + (added[name] ?? 0)]),
  );

const shown = ({ status, text, type }) => ({ status, text, type });

const prefix = process.env.PARLANCE_PREFIX;
/** Of the part that is not about routes. */
const other = { skip: prefix !== undefined };

if (prefix) {
  describe(`routes under ${prefix}`, { concurrency: 4 }, () => {
    for (const { route, request, added } of rows) {
      const method = route.split(' ')[0];
      test(`${route} by key has one effect and one answer`, async () => {
        const at = await scene();
        const [path, body] = request(at);
        if (route.includes('restore')) await does(at.alice, 'PATCH', `/journals/${at.journal}`, { content: 'second' });
        const before = await effects(at);
        const key = randomUUID();
        const sends = (gateway, to = prefix + path, of = body) =>
          answered(() => call(at.alice, method, to, of, { key, gateway }));
        // All at once through all gateways, and one after the other.
        const answers = await Promise.all([sends(0), sends(1), sends(2)]);
        for (const gateway of [0, 1, 2]) answers.push(await sends(gateway));
        assert.ok(answers[0].status < 300, answers[0].text);
        for (const answer of answers) assert.deepEqual(shown(answer), shown(answers[0]));
        const replayed = answers.map((answer) => answer.headers.get('idempotency-replayed'));
        assert.equal(replayed.filter((value) => value === null).length, 1, `${replayed}`);
        assert.deepEqual(replayed.slice(3), ['true', 'true', 'true']);
        assert.deepEqual(await effects(at), with_(before, added));
        // The same key for anything else.
        const [to, of] = body ? [path, { ...body, other: 1 }] : [`${path}${path.includes('?') ? '&' : '?'}other=1`];
        assertProblem(await sends(1, prefix + to, of), 400, 'invalid');
        assert.deepEqual(await effects(at), with_(before, added));
      });
    }
  });
}

const events = [];
const on = (event, payload, added = {}, changed = {}) => events.push({ event, payload, added, changed });
const group = (more) => (at) => ({ conversation_id: at.id, ...(typeof more === 'function' ? more(at) : more) });
on('message:send', group(words), one, { content: 'other' });
on('message:edit', group((at) => ({ message_id: at.own, content: 'changed' })), one, { content: 'other' });
on('message:delete', group((at) => ({ message_id: at.own })), one, { scope: 'me' });
on('message:react', group((at) => ({ message_id: at.foreign, ...emoji })), one, { emoji: '👎' });
on('message:unreact', group((at) => ({ message_id: at.foreign, ...emoji })), {}, { emoji: '👎' });
on('message:report', group((at) => ({ message_id: at.foreign, reason: 'spam' })), {}, { reason: 'other' });
on('receipt:read', group((at) => ({ message_ids: [at.foreign] })), {}, { up_to_seq: 1 });
on('receipt:delivered', group((at) => ({ message_ids: [at.foreign] })), {}, { up_to_seq: 1 });
on('conversation:mute', group({}), {}, { until: '2999-01-01T00:00:00Z' });
on('conversation:unmute', group({}), {}, { conversation_id: randomUUID() });
on('member:ban', group((at) => ({ user_id: at.bob })), one, { user_id: 'another' });
on('member:unban', group((at) => ({ user_id: at.bob })), {}, { user_id: 'another' });
on('thread:create', group({ title: 'Another' }), one, { title: 'A third' });
on('journal:edit', (at) => ({ journal_id: at.journal, content: 'second' }), { journal: 1 }, { content: 'third' });

describe('native events', { concurrency: 4, ...other }, () => {
  for (const { event, payload, added, changed } of events) {
    test(`${event} by key has one effect and one answer`, async () => {
      const at = await scene();
      const clients = await Promise.all([0, 1, 2].map((gateway) => connect(at.alice, gateway)));
      const before = await effects(at);
      const keyed = { ...payload(at), idempotency_key: randomUUID() };
      const acks = await Promise.all(clients.map((client) => client.does(event, keyed)));
      for (const client of clients) acks.push(await client.does(event, keyed));
      for (const ack of acks) assert.deepEqual(ack, acks[0]);
      assert.deepEqual(await effects(at), with_(before, added));
      const error = await clients[1].fails('invalid', event, { ...keyed, ...changed });
      assert.match(error.message, /idempotency key belongs to another request/);
      assert.deepEqual(await effects(at), with_(before, added));
      clients.forEach((client) => client.close());
    });
  }
});

test('three equal groups by key are one, those without a key and those of others are not', other, async () => {
  const [alice, bob, carol] = [person('alice'), person('bob'), person('carol')];
  const key = randomUUID();
  const create = async (user, gateway, /** @type {{ key?: string }} */ more = { key }) => {
    const body = { title: 'Tea', participant_ids: [carol] };
    return (await does(user, 'POST', '/conversations/group', body, { gateway, ...more })).id;
  };
  const made = new Set();
  for (const user of [alice, bob]) {
    const ids = await Promise.all([0, 1, 2].map((gateway) => create(user, gateway)));
    assert.equal(new Set(ids).size, 1);
    made.add(ids[0]);
  }
  for (const gateway of [0, 1]) made.add(await create(alice, gateway, {}));
  assert.equal(made.size, 4);
});

test('a refusal is answered again, also where the same request would succeed now', other, async () => {
  const at = await scene();
  const key = randomUUID();
  const path = `/conversations/${at.id}`;
  const rename = (key) => call(at.bob, 'PATCH', path, { title: 'of bob' }, { key, gateway: 1 });
  const refused = await rename(key);
  assertProblem(refused, 403, 'forbidden');
  const client = await connect(at.bob, 2);
  const removal = { conversation_id: at.id, message_id: at.own, idempotency_key: randomUUID() };
  const failed = await client.fails('forbidden', 'message:delete', removal);
  await does(at.alice, 'PATCH', `${path}/participants/${at.bob}`, { role: 'admin' });
  const again = await rename(key);
  assert.deepEqual(shown(again), shown(refused));
  assert.equal(again.headers.get('idempotency-replayed'), 'true');
  assert.deepEqual(await client.fails('forbidden', 'message:delete', removal), failed);
  assert.equal((await rename(randomUUID())).status, 200);
  await client.does('message:delete', { ...removal, idempotency_key: randomUUID() });
});

test('what is malformed is refused, and before the token is verified nothing is', other, async () => {
  const at = await scene();
  const path = `/conversations/${at.id}/messages`;
  const client = await connect(at.alice, 0);
  for (const bad of ['x'.repeat(129), 'a b']) {
    const answer = await call(at.alice, 'POST', path, words, { key: bad });
    assertProblem(answer, 400, 'invalid');
    assert.match(answer.body.message, /^Idempotency-Key is not 1 to 128 visible ASCII characters/);
    const payload = { conversation_id: at.id, ...words, idempotency_key: bad };
    const error = await client.fails('invalid', 'message:send', payload);
    assert.match(error.message, /^idempotency_key is not 1 to 128 visible ASCII characters/);
  }
  const key = randomUUID();
  const headers = { 'idempotency-key': key };
  assertProblem(await rest(undefined, 'POST', `/api/v1${path}`, words, { headers }), 401, 'unauthenticated');
  // A page that asks for it may send it.
  assert.equal((await call(at.alice, 'POST', path, words, { key })).status, 201);
  // A key on what reads is not looked at.
  for (const _ of [1, 2]) {
    const read = await call(at.alice, 'GET', path, undefined, { key: 'a b' });
    assert.deepEqual([read.status, read.headers.get('idempotency-replayed')], [200, null]);
  }
});

test('events with keys that come at once wait for each other instead of being refused', other, async () => {
  const at = await scene();
  const client = await connect(at.alice, 0);
  const sends = Array.from({ length: 24 }, (_, n) =>
    client.ask('message:send', { conversation_id: at.id, content: `${n}`, idempotency_key: randomUUID() }),
  );
  const acks = await Promise.all(sends);
  for (const ack of acks) assert.ok(ack.ok, JSON.stringify(ack));
  const { messages } = await does(at.alice, 'GET', `/conversations/${at.id}/messages?limit=24`);
  const contents = messages.toSorted((one, next) => one.seq - next.seq).map(({ content }) => content);
  assert.deepEqual(
    contents,
    acks.map((_, n) => `${n}`),
  );
});

test('of a large answer its ids and numbers are given again, and nothing is carried out', other, async () => {
  const at = await scene();
  const content = 'x'.repeat(100_000);
  const key = randomUUID();
  const before = await effects(at);
  const edit = (gateway) => call(at.alice, 'PATCH', `/journals/${at.journal}`, { content }, { key, gateway });
  const first = await edit(0);
  assert.deepEqual([first.status, first.body.content], [200, content]);
  // Others changed it since.
  await does(at.alice, 'PATCH', `/journals/${at.journal}`, { content: 'third' });
  const { content: _, collaborators, ...kept } = first.body;
  for (const gateway of [1, 2]) {
    const again = await edit(gateway);
    assert.deepEqual([again.status, again.body], [200, { ...kept, repeated: true }]);
  }
  assert.deepEqual(await effects(at), with_(before, { journal: 2 }));
});

test('a change that cannot be carried out once refuses a key, and one that is malformed in part changes nothing', other, async () => {
  const at = await scene();
  const before = await effects(at);
  const participants = [at.carol];
  for (const [method, path, body, message] of [
    ['PUT', `/conversations/${at.id}`, { participants }, /participants takes no Idempotency-Key/],
    ['PATCH', '/users/me', { name: 'Other' }, /takes no Idempotency-Key/],
  ]) {
    const answer = await call(at.alice, method, path, body, { key: randomUUID() });
    assertProblem(answer, 400, 'invalid');
    assert.match(answer.body.message, /** @type {RegExp} */ (message));
  }
  const half = await call(at.alice, 'PUT', `/conversations/${at.id}`, { participants, status: 'none' });
  assertProblem(half, 400, 'invalid');
  assert.deepEqual(await effects(at), before);
  await does(at.alice, 'PUT', `/conversations/${at.id}`, { participants });
});

test('every changing route and event of the contract has its row', other, () => {
  const { paths } = contract('openapi.json');
  const keyed = [];
  for (const [path, verbs] of Object.entries(paths)) {
    for (const [verb, { parameters = [] }] of Object.entries(verbs)) {
      const takesKey = parameters.some((one) => one.$ref === '#/components/parameters/idempotency_key');
      // A new name or a block has no id by which a second one would be found; a stop stores nothing.
      const unkeyed = ['/api/v1/sync', '/api/v1/users/me', '/api/v1/blocks/{user_id}'];
      const without = unkeyed.includes(path) || path.endsWith('/stop');
      const changes = verb !== 'get' && !without;
      assert.equal(takesKey, changes, `${verb} ${path}`);
      if (changes) keyed.push(`${verb.toUpperCase()} ${path.replace('/api/v1', '')}`);
    }
  }
  assertComplete(
    rows.map(({ route }) => route),
    keyed,
  );
  const { messages } = contract('asyncapi/native.json').channels.socket;
  const emitted = Object.keys(messages).filter((key) => key.startsWith('client.'));
  const takesKey = (key) => JSON.stringify(messages[key].payload).includes('/KeyedPayload"');
  assertComplete(
    events.map(({ event }) => event),
    emitted.filter(takesKey).map((key) => messages[key].name),
  );
  assertComplete(
    [...READING, ...WITHOUT_KEY],
    emitted.filter((key) => !takesKey(key)).map((key) => messages[key].name),
  );
});
