// Every route for everyone, under one of the two prefixes. Under the older one the same code answers insiders, so one of
// each kind of place is tried; the refusals of outsiders differ.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { gateways, person, rest, token } from '../../client.mjs';
import * as effects from './effects.mjs';
import { assertComplete, contract, counts, expired, judge, ofThisPart } from './judge.mjs';
import { INSIDERS, OUTSIDERS, lies, look, people, place } from './world.mjs';

const prefix = process.env.PARLANCE_PREFIX ?? '/api/v1';
const roles = prefix === '/api' ? ['member', 'peer', 'viewer'] : undefined;
/** For anybody, without a token. */
const OPEN = [
  'GET /health',
  'GET /docs',
  'GET /docs/openapi.json',
  'GET /docs/asyncapi/{dialect}.json',
];

const rows = [];
/** Under the older prefix outsiders of a conversation are forbidden, as in the encrypted front end's document. */
const strange = (route) => prefix === '/api' && route.includes('/conversations/{id}') ? 'forbidden' : 'not_found';
/** `call(at)` is the path and, for some, the body; the cells are in the order of INSIDERS. */
const row = (route, variant, cells, call, effect, more = {}) =>
  rows.push({ route, name: `${route} ${variant}`.trim(), cells, call, effect, outsiders: strange(route), ...more });

const words = { content: 'said in a cell' };
const changed = { content: 'changed in a cell' };
const at = (rest) => (where) => `/conversations/${where.id}${rest}`;
const about = (which, rest = '') => (where) => `/conversations/${where.id}/messages/${where[which]}${rest}`;
const over = (path, body) => (where) => [path(where), typeof body === 'function' ? body(where) : body];

const C = '/conversations/{id}';
row(`GET ${C}`, '', 'yyyyyyy', over(at('')), effects.shown);
row(`PUT ${C}`, 'title', 'nyyynyy', over(at(''), { title: 'Other' }), effects.changed({ title: 'Other' }));
row(`PATCH ${C}`, 'title', 'nyyynyy', over(at(''), { title: 'Other' }), effects.changed({ title: 'Other' }));
for (const [name, fields] of Object.entries({
  status: { status: 'archived' },
  channel: { channel: 'email' },
  metadata: { metadata: { a: 1 } },
  'title and status': { title: 'Other', status: 'completed' },
})) {
  row(`PATCH ${C}`, name, 'nnyynny', over(at(''), fields), effects.changed(fields));
}
row(`PATCH ${C}`, 'read-only', 'nny-nn-', over(at(''), { read_only: true }), effects.changed({ read_only: true }));
row(`DELETE ${C}`, '', 'nnyynny', over(at('')), effects.gone);
row(`GET ${C}/events`, '', 'yyyyyyy', over(at('/events?after=0')), (was, is, _where, answer) => {
  effects.nothing(was, is);
  assert.equal(answer.head_seq, was.conversation.head_seq);
  assert.deepEqual(answer.events, was.events);
});
row(
  'POST /sync',
  '',
  'yyyyyyy',
  (where) => ['/sync', { conversations: { [where.id]: { seq: 0 } } }],
  (was, is, where, answer) => {
    effects.nothing(was, is);
    assert.deepEqual(answer.conversations[where.id]?.events ?? [], where.inside ? was.events : []);
  },
  { outsiders: 'ok' },
);
row('GET /users/{user_id}/presence', '', 'yyyy...', (where) => [`/users/${where.host}/presence`], effects.nothing);
row('GET /presence', '', 'yyyyyyy', (where) => [`/presence?user_ids=${where.host}`], effects.seen, { outsiders: 'ok' });
row('PATCH /users/me', '', 'yyyyyyy', () => ['/users/me', { name: '' }], effects.nothing, { outsiders: 'ok' });
row(`GET ${C}/messages`, '', 'yyyyyyy', over(at('/messages')), (was, is, _where, answer) => {
  effects.nothing(was, is);
  assert.deepEqual(
    answer.messages.map((one) => one.id),
    was.messages.map((one) => one.id),
  );
});
row(`POST ${C}/messages`, '', 'yyyy---', over(at('/messages'), words), effects.sent);
row(`GET ${C}/messages/{mid}`, '', 'yyyy...', over(about('foreign')), effects.shown);
row(`GET ${C}/messages/{mid}/edits`, '', 'yyyy...', over(about('foreign', '/edits')), effects.nothing);
row(`PATCH ${C}/messages/{mid}`, 'own', 'yyyy...', over(about('own'), changed), effects.edited('own'));
row(`PATCH ${C}/messages/{mid}`, 'of another', 'nnnn...', over(about('foreign'), changed));
row(`DELETE ${C}/messages/{mid}`, 'own', 'yyyy...', over(about('own')), effects.deleted('own'));
row(`DELETE ${C}/messages/{mid}`, 'of another', 'nyyn...', over(about('foreign')), effects.deleted('foreign'));
row(`DELETE ${C}/messages/{mid}`, 'for oneself', 'yyyy---', over(about('foreign', '?scope=me')), effects.hidden);
const emoji = { emoji: '👍' };
const whole = { refusal: { n: 'conflict' } };
row(`POST ${C}/messages/{mid}/stop`, 'sent whole', 'nnnn...', (where) => [about('foreign', '/stop')(where)], undefined, whole);
row(`POST ${C}/messages/{mid}/reactions`, '', 'yyyy---', over(about('foreign', '/reactions'), emoji), effects.marked);
row(`DELETE ${C}/messages/{mid}/reactions`, 'none', 'yyyy---', over(about('foreign', '/reactions'), emoji));
row(`POST ${C}/messages/{mid}/report`, '', 'yyyy---', over(about('foreign', '/report'), { reason: 'spam' }), effects.nothing);
row(`POST ${C}/messages/{mid}/report`, 'own', '-------', over(about('own', '/report'), { reason: 'spam' }));
for (const status of ['delivered', 'read']) {
  const effect = effects.received(status);
  row(`POST ${C}/messages/{mid}/status`, status, 'yyyy---', over(about('foreign', '/status'), { status }), effect);
}
row(
  `POST ${C}/read`,
  'by id',
  'yyyy---',
  over(at('/read'), (where) => ({ message_ids: [where.foreign] })),
  effects.received('read'),
);
row(
  `POST ${C}/read`,
  'by seq',
  'yyyy---',
  over(at('/read'), (where) => ({ up_to_seq: where.foreignSeq })),
  effects.received('read'),
);
row(`GET ${C}/participants`, '', 'yyyyyyy', over(at('/participants')), (was, is, where, answer) => {
  effects.nothing(was, is);
  assert.ok(answer.participants.some((one) => one.user_id === where.user));
  assert.equal(answer.next, null);
});
row(`PUT ${C}/mute`, '', 'yyyy---', over(at('/mute'), {}), effects.muted(true));
row(`DELETE ${C}/mute`, '', 'yyyy---', over(at('/mute')), effects.muted(false));
const newcomer = (where) => (where.newcomer ??= person('newcomer'));
for (const [role, cells] of [
  ['member', 'nyy----'],
  ['moderator', 'nny----'],
  ['admin', 'nny----'],
]) {
  const body = (where) => ({ user_id: newcomer(where), role });
  row(`POST ${C}/participants`, role, cells, over(at('/participants'), body), effects.joined(newcomer, role));
  if (role === 'member') continue;
  row(
    `PATCH ${C}/participants/{user_id}`,
    `to ${role}`,
    'nny----',
    (where) => [`/conversations/${where.id}/participants/${where.target}`, { role }],
    effects.raised(role),
  );
}
row(
  `PATCH ${C}/participants/{user_id}`,
  'oneself to admin',
  // Making an admin an admin changes nothing.
  'nny----',
  (where) => [`/conversations/${where.id}/participants/${where.user}`, { role: 'admin' }],
);
for (const [target, cells] of [
  ['member', 'nyy-nny'],
  ['moderator', 'nny-nny'],
  ['admin', 'nny-nny'],
]) {
  row(
    `DELETE ${C}/participants/{user_id}`,
    target,
    cells,
    (where) => [`/conversations/${where.id}/participants/${where.target}`],
    effects.left((where) => where.target),
    { target: { group: target } },
  );
}
row(
  `DELETE ${C}/participants/{user_id}`,
  'oneself',
  'yyy-yy-',
  (where) => [`/conversations/${where.id}/participants/${where.user}`],
  effects.left((where) => where.user),
);
for (const [target, cells] of [
  ['member', 'nyy----'],
  ['moderator', 'nny----'],
  ['admin', 'nny----'],
]) {
  const path = (where) => [`/conversations/${where.id}/bans/${where.target}`];
  row(`PUT ${C}/bans/{user_id}`, target, cells, path, effects.left((where) => where.target), { target: { group: target } });
}
row(`DELETE ${C}/bans/{user_id}`, 'not banned', 'nyy----', (where) => [`/conversations/${where.id}/bans/${where.target}`]);
row(`GET ${C}/bans`, '', 'nyy----', over(at('/bans')), (was, is, _where, answer) => {
  effects.nothing(was, is);
  assert.deepEqual(answer, { bans: [], next: null });
});
row(`GET ${C}/threads`, '', 'yyyyyyy', over(at('/threads')), (was, is, where, answer) => {
  effects.nothing(was, is);
  assert.deepEqual(
    answer.threads.map((one) => one.id),
    where.kind === 'journal' ? [] : [where.thread],
  );
});
row(`POST ${C}/threads`, '', 'yyyy---', over(at('/threads'), { title: 'Another' }), effects.threadBegun);
const inThread = (where) => `/conversations/${where.id}/threads/${where.thread}`;
row(`GET ${C}/threads/{tid}`, '', 'yyyy...', over(inThread), effects.shown);
row(`POST ${C}/threads/{tid}`, '', 'yyyy---', over(inThread, words), effects.sent);

// A conversation of another kind is no journal.
const J = '/journals/{id}';
const journal = (rest) => (where) => `/journals/${where.id}${rest}`;
row(`GET ${J}`, '', '....yyy', over(journal('')), effects.shown);
row(`PATCH ${J}`, 'text', '....nyy', over(journal(''), { content: 'written in a cell' }), effects.written);
row(`PATCH ${J}`, 'title', '....nyy', over(journal(''), { title: 'Other' }), effects.changed({ title: 'Other' }));
row(`DELETE ${J}`, '', '....nny', over(journal('')), effects.gone);
row(`GET ${J}/versions`, '', '....yyy', over(journal('/versions')), effects.versions);
row(`GET ${J}/blame`, '', '....yyy', over(journal('/blame')), effects.shown);
row(`GET ${J}/versions/{version}`, '', '....yyy', over(journal('/versions/1')), effects.shown);
const rewritten = async (where) => {
  if (where.kind !== 'journal') return;
  const { status, text } = await rest(token(where.host), 'PATCH', `/journals/${where.id}`, { content: 'rewritten' });
  assert.equal(status, 200, text);
};
row(`POST ${J}/restore/{version}`, '', '....nyy', over(journal('/restore/1')), effects.restored, { before: rewritten });
for (const [permission, cells] of [
  ['viewer', '....nyy'],
  ['editor', '....nny'],
]) {
  const body = (where) => ({ user_id: newcomer(where), permission });
  row(`POST ${J}/collaborators`, permission, cells, over(journal('/collaborators'), body), (...seen) =>
    effects.joined(newcomer, permission)(...seen),
  );
}
const raise = (where) => ({ user_id: where.target, permission: 'editor' });
const raised = effects.raised('editor');
row(`POST ${J}/collaborators`, 'a viewer as editor', '....nny', over(journal('/collaborators'), raise), raised);
const collaborator = (which) => (where) => `/journals/${where.id}/collaborators/${where[which]}`;
row(
  `PATCH ${J}/collaborators/{user_id}`,
  '',
  '....nny',
  over(collaborator('target'), { permission: 'editor' }),
  effects.raised('editor'),
);
for (const target of ['viewer', 'editor']) {
  const gone = effects.left((where) => where.target);
  row(`DELETE ${J}/collaborators/{user_id}`, target, '....nny', over(collaborator('target')), gone, {
    target: { journal: target },
  });
}
row(
  `DELETE ${J}/collaborators/{user_id}`,
  'oneself',
  '....yy-',
  over(collaborator('user')),
  effects.left((where) => where.user),
);

// Those of the encrypted front end: a non-member of a conversation is forbidden to do anything in it. A
// message is named alone, and one of a foreign conversation is none.
const forbidden = { outsiders: 'forbidden' };
const cipher = (where) => ({ conversation_id: where.id, content_encrypted: 'said in a cell' });
const recoded = { content_encrypted: 'changed in a cell' };
const alone = (which, rest = '') => (where) => `/messages/${where[which]}${rest}`;
row('POST /messages', '', 'yyyy---', over(() => '/messages', cipher), effects.sent, forbidden);
row('GET /messages/{id}', '', 'yyyyyyy', over(alone('id')), (was, is) => effects.nothing(was, is), forbidden);
for (const [form, own, foreign] of [
  ['', 'own', 'foreign'],
  [' by number', 'ownNumber', 'foreignNumber'],
]) {
  row('PATCH /messages/{id}', `own${form}`, 'yyyy...', over(alone(own), recoded), effects.edited('own'));
  row('PATCH /messages/{id}', `of another${form}`, 'nnnn...', over(alone(foreign), recoded));
  row('DELETE /messages/{id}', `own${form}`, 'yyyy...', over(alone(own)), effects.deleted('own'));
  row('DELETE /messages/{id}', `of another${form}`, 'nyyn...', over(alone(foreign)), effects.deleted('foreign'));
}
row('DELETE /messages/{id}', 'for oneself', 'yyyy...', over(alone('foreign', '?scope=me')), effects.hidden);
row('POST /messages/{id}/reactions', '', 'yyyy...', over(alone('foreign', '/reactions'), emoji), effects.marked);
row('DELETE /messages/{id}/reactions', 'none', 'yyyy...', over(alone('foreign', '/reactions'), emoji));
for (const status of ['delivered', 'read']) {
  const effect = effects.received(status);
  row('POST /messages/{id}/status', status, 'yyyy...', over(alone('foreign', '/status'), { status }), effect);
}

// About no place: for everyone with a token.
const anybody = { outsiders: 'ok' };
const lists = (kinds, named) => (was, is, where, answer) => {
  effects.nothing(was, is);
  const found = answer[named].some((one) => one.id === where.id);
  assert.equal(found, where.inside && kinds.includes(where.kind));
};
const chats = lists(['group', 'direct'], 'conversations');
row('GET /conversations', '', 'yyyyyyy', () => ['/conversations?limit=100'], chats, anybody);
row('GET /unread', '', 'yyyyyyy', () => ['/unread'], effects.nothing, anybody);
row('GET /blocks', '', 'yyyyyyy', () => ['/blocks'], effects.nothing, anybody);
for (const verb of ['PUT', 'DELETE']) {
  row(`${verb} /blocks/{user_id}`, '', 'yyyyyyy', (where) => [`/blocks/${where.host}`], effects.nothing, anybody);
}
row('GET /journals', '', 'yyyyyyy', () => ['/journals?limit=100'], lists(['journal'], 'journals'), anybody);
const made = (was, is, where, answer) => {
  effects.nothing(was, is);
  assert.equal(answer.created_by ?? answer.owner, where.user, 'the token says whose it is');
};
const withNew = (where) => ({ title: 'New', participant_ids: [person('new')], created_by: where.host });
row('POST /conversations', '', 'yyyyyyy', over(() => '/conversations', withNew), made, anybody);
row('POST /conversations/group', '', 'yyyyyyy', over(() => '/conversations/group', withNew), made, anybody);
row(
  'POST /conversations/direct',
  '',
  'yyyyyyy',
  over(() => '/conversations/direct', (where) => ({ user_id: person('new'), created_by: where.host })),
  made,
  anybody,
);
row(
  'POST /journals',
  '',
  'yyyyyyy',
  over(() => '/journals', (where) => ({ title: 'New', content: 'x', owner: where.host, created_by: where.host })),
  made,
  anybody,
);

/** Bodies in which a user is named for good. */
const NAMES_USERS = /participants|collaborators|conversations$|direct$|group$|journals$/;

const method = ({ route }) => route.split(' ')[0];

/** The path and body of a row, the body full of lies about who sends it. */
function request(row, where) {
  const [path, body] = row.call(where);
  const lying = body && !NAMES_USERS.test(row.route) ? { ...lies(where), ...body } : body;
  return [path, lying];
}

const attempt = (row) => async (where) => {
  const [path, body] = request(row, where);
  const base = gateways[INSIDERS.concat(OUTSIDERS).findIndex(([role]) => role === where.role) % gateways.length];
  const answer = await rest(token(where.user), method(row), prefix + path, body, { base });
  const code = answer.status < 300 ? 'ok' : answer.body?.code;
  if (code === 'ok') return { code, answer: answer.body };
  // Code and status belong together.
  const status = { forbidden: 403, invalid: 400, not_found: 404, conflict: 409 }[code];
  assert.equal(answer.status, status, answer.text);
  return { code, answer: answer.body };
};

describe('routes', { concurrency: 6 }, () => {
  for (const row of ofThisPart(rows)) {
    test(`${row.name} under ${prefix}`, async () => {
      await judge({ ...row, roles, attempt: attempt(row) });
      // Without a token, or with one of yesterday or a forged one, an admin is nobody.
      const where = await place(['admin', 'group'], row);
      const was = await look(where);
      for (const jwt of [undefined, token(people.admin, expired), `${token(people.admin)}x`]) {
        const [path, body] = request(row, where);
        const answer = await rest(jwt, method(row), prefix + path, body);
        assert.deepEqual([answer.status, answer.body.code], [401, 'unauthenticated'], answer.text);
        counts('unauthenticated');
      }
      assert.deepEqual(await look(where), was);
    });
  }
});

test('what is open to all reveals nothing of any user', async () => {
  for (const route of OPEN) {
    const [verb, path] = route.split(' ');
    const answer = await rest(undefined, verb, `/${path.replace('{dialect}', 'native')}`);
    assert.equal(answer.status, 200, path);
    for (const user of Object.values(people)) assert.ok(!answer.text.includes(user), path);
    counts('ok');
  }
});

test('every route of the contract has its row', () => {
  const VERBS = ['get', 'put', 'post', 'patch', 'delete'];
  const { paths } = contract('openapi.json');
  const names = Object.entries(paths).flatMap(([path, verbs]) =>
    Object.keys(verbs)
      .filter((verb) => VERBS.includes(verb))
      .map((verb) => `${verb.toUpperCase()} ${path.replace(/^\/api(\/v1)?/, '')}`),
  );
  assertComplete([...rows.map((one) => one.route), ...OPEN], names);
});

