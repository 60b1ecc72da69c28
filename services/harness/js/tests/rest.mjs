// REST as documented: shapes, paging, creation, refusals.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import { assertGapless, assertProblem, closeAll, gateways, person, rest as request, token } from '../client.mjs';

after(closeAll);

/** A request that is answered in the native dialect. */
const rest = (
  jwt,
  method,
  path,
  body = undefined,
  /** @type {{ base?: string, headers?: any }} */ { headers, ...options } = {},
) => request(jwt, method, path, body, { headers: { 'x-parlance-dialect': 'native', ...headers }, ...options });

/** The direct conversation of two users. */
async function direct(one, other) {
  const { status, body } = await rest(token(one), 'POST', '/conversations/direct', { user_id: other });
  assert.ok(status === 201 || status === 200, JSON.stringify(body));
  return body;
}

/** A group of `owner` and others. */
async function group(owner, others, title) {
  const { status, body } = await rest(token(owner), 'POST', '/conversations/group', { title, participant_ids: others });
  assert.equal(status, 201, JSON.stringify(body));
  return body;
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
const CONVERSATION = [
  'channel',
  'created_at',
  'created_by',
  'epoch',
  'head_seq',
  'id',
  'kind',
  'last_message',
  'metadata',
  'muted',
  'muted_until',
  'number',
  'open',
  'participant_count',
  'participants',
  'participants_complete',
  'read_only',
  'status',
  'title',
  'unread',
  'updated_at',
];
const MESSAGE = [
  'client_msg_id',
  'content',
  'conversation_id',
  'created_at',
  'deleted_at',
  'edited_at',
  'encrypted',
  'id',
  'metadata',
  'number',
  'reactions',
  'reply_to',
  'sender',
  'sender_kind',
  'seq',
  'thread_id',
  'type',
];
const keys = (value) => Object.keys(value).sort();

function assertConversation(value) {
  assert.deepEqual(keys(value), CONVERSATION);
  assert.match(value.id, UUID);
  assert.match(value.epoch, UUID);
  assert.ok(Number.isSafeInteger(value.number) && value.number > 0);
  assert.match(value.created_at, TIME);
  assert.match(value.updated_at, TIME);
  for (const { online, last_seen_at, ...one } of value.participants) {
    assert.deepEqual(keys(one), ['role', 'user_id', 'username']);
    // Where their presence is known.
    assert.ok(online === undefined || typeof online === 'boolean');
    assert.ok(last_seen_at === undefined || Date.parse(last_seen_at) > 0);
  }
}

function assertMessage(value) {
  assert.deepEqual(keys(value), MESSAGE);
  assert.deepEqual(keys(value.sender), ['id', 'username']);
  assert.match(value.id, UUID);
  assert.match(value.created_at, TIME);
  assert.ok(Number.isSafeInteger(value.number) && value.number > 0);
}

async function scene(count = 0) {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await direct(alice, bob);
  const path = `/conversations/${conversation.id}`;
  const as =
    (user) =>
    (method, more = '', body) =>
      rest(token(user), method, path + more, body);
  for (let i = 1; i <= count; i++) {
    const { status, text } = await as(alice)('POST', '/messages', { content: `message ${i}` });
    assert.equal(status, 201, text);
  }
  return { alice, bob, conversation, asAlice: as(alice), asBob: as(bob) };
}

test('S1.r4: a new direct conversation is the object itself, with both as members', async () => {
  const { alice, bob, conversation, asBob } = await scene();
  assertConversation(conversation);
  assert.equal(conversation.kind, 'direct');
  assert.deepEqual(
    [conversation.title, conversation.head_seq, conversation.unread, conversation.last_message],
    [null, 0, 0, null],
  );
  assert.deepEqual(conversation.participants.map((one) => one.user_id).sort(), [alice, bob].sort());
  const read = await asBob('GET');
  assert.equal(read.status, 200);
  assert.match(read.type, /^application\/json/);
  assert.deepEqual(read.body.id, conversation.id);
  assertConversation(read.body);
});

test('the same direct conversation again: 200 under /api/v1, 409 with it in the body under /api', async () => {
  const { alice, bob, conversation } = await scene();
  for (const [user, other] of [
    [alice, bob],
    [bob, alice],
  ]) {
    const again = await rest(token(user), 'POST', '/api/v1/conversations/direct', { user_id: other });
    assert.equal(again.status, 200, again.text);
    assert.equal(again.body.id, conversation.id);
    const conflict = await rest(token(user), 'POST', '/api/conversations/direct', { user_id: other });
    assertProblem(conflict, 409, 'conflict');
    assertConversation(conflict.body.conversation);
    assert.equal(conflict.body.conversation.id, conversation.id);
  }
  const created = await rest(token(alice), 'POST', '/api/conversations/direct', { user_id: person('new') });
  assert.equal(created.status, 201);
  assertConversation(created.body);
});

test('A→B and B→A at the same moment on both gateways are one conversation', async () => {
  for (let round = 0; round < 10; round++) {
    const [alice, bob] = [person('alice'), person('bob')];
    const create = (user, other, gateway) =>
      rest(token(user), 'POST', '/conversations/direct', { user_id: other }, { base: gateways[gateway] });
    const answers = await Promise.all([
      create(alice, bob, 0),
      create(bob, alice, 1),
      create(alice, bob, 1),
      create(bob, alice, 0),
    ]);
    assert.deepEqual(
      answers.map((answer) => answer.status).sort(),
      [200, 200, 200, 201],
      answers.map((answer) => answer.text).join(),
    );
    assert.equal(new Set(answers.map((answer) => answer.body.id)).size, 1);
    assert.equal(new Set(answers.map((answer) => answer.body.number)).size, 1);
    for (const user of [alice, bob]) {
      const { body } = await rest(token(user), 'GET', '/conversations');
      assert.equal(body.conversations.length, 1);
    }
  }
});

test('a direct conversation needs one other valid user', async () => {
  const alice = person('alice');
  const refused = async (body) => assertProblem(await rest(token(alice), 'POST', '/conversations/direct', body), 400, 'invalid');
  for (const user_id of [alice, '', 'a b', 'x'.repeat(129), 'a\u0000', 'zero\u200bwidth', 7.5, null, ['bob']])
    await refused({ user_id });
  for (const body of ['{}', '[]', '{"user_id":', '', 'null', '"bob"', '\u0000']) await refused(body);
});

test('S1.r2 S1.t4: a group has its title, its creator as admin and everyone named once', async () => {
  const [alice, bob, carol] = ['alice', 'bob', 'carol'].map(person);
  const created = await group(alice, [bob, carol, bob, alice], 'Überraschung 🎉');
  assertConversation(created);
  assert.deepEqual([created.kind, created.title], ['group', 'Überraschung 🎉']);
  const roles = Object.fromEntries(created.participants.map((one) => [one.user_id, one.role]));
  assert.deepEqual(roles, { [alice]: 'admin', [bob]: 'member', [carol]: 'member' });
  const twin = await group(alice, [bob, carol], 'Überraschung 🎉');
  assert.notEqual(twin.id, created.id, 'two groups may have the same members');
  assert.notEqual(twin.number, created.number);
  const both = await rest(token(alice), 'POST', '/conversations/group', { title: 'camel', participantIds: [bob] });
  assert.equal(both.status, 201, both.text);
});

test('a group needs a title and other members', async () => {
  const alice = person('alice');
  const refused = async (status, code, body) =>
    assertProblem(await rest(token(alice), 'POST', '/conversations/group', body), status, code);
  const bob = person('bob');
  for (const title of ['', '   ', 'a\u0000b', 7, null]) await refused(400, 'invalid', { title, participant_ids: [bob] });
  await refused(413, 'too_large', { title: 'x'.repeat(201), participant_ids: [bob] });
  for (const participant_ids of [[], [alice], [bob, 'a b'], [bob, 7.5], bob, null])
    await refused(400, 'invalid', { title: 't', participant_ids });
  await refused(413, 'too_large', {
    title: 't',
    participant_ids: Array.from({ length: 1001 }, (_, i) => `${bob}-${i}`),
  });
  await refused(400, 'invalid', { participant_ids: [bob] });
  await refused(400, 'invalid', { title: 't' });
});

test('S3.r7: a sent message is the message itself, and read back the same', async () => {
  const { alice, asAlice, asBob, conversation } = await scene();
  const body = { client_msg_id: 'c-1', type: 'image', content: 'look', metadata: { w: 1 } };
  const sent = await asAlice('POST', '/messages', body);
  assert.equal(sent.status, 201);
  assertMessage(sent.body);
  const { id, number, created_at, ...rest } = sent.body;
  assert.deepEqual(rest, {
    ...body,
    conversation_id: conversation.id,
    seq: 1,
    sender: { id: alice, username: alice },
    sender_kind: 'user',
    reply_to: null,
    thread_id: null,
    encrypted: false,
    reactions: [],
    edited_at: null,
    deleted_at: null,
  });
  const reply = await asBob('POST', '/messages', {
    content: 'nice',
    replyTo: id,
    clientMsgId: 'c-2',
    messageType: 'text',
  });
  assert.deepEqual([reply.body.reply_to, reply.body.client_msg_id, reply.body.seq], [id, 'c-2', 2], reply.text);
  const read = await asBob('GET', '/messages');
  assert.deepEqual(keys(read.body), ['messages', 'next']);
  assert.deepEqual(
    read.body.messages.toSorted((a, b) => a.seq - b.seq),
    [sent.body, reply.body],
  );
  const { body: state } = await asBob('GET');
  assert.equal(state.head_seq, 2);
  assert.deepEqual(state.last_message, reply.body);
});

test('S3.p13 S3.r6: history is read in pages in both directions without gap or duplicate', async () => {
  const { asBob } = await scene(25);
  const walk = async (step, first = '') => {
    const seqs = [];
    for (let query = first; query !== undefined; ) {
      const { body, status, text } = await asBob('GET', `/messages?limit=10${query}`);
      assert.equal(status, 200, text);
      assert.ok(body.messages.length <= 10);
      seqs.push(...body.messages.map((message) => message.seq));
      query = body.next === null ? undefined : `&${step}=${body.next}`;
    }
    return seqs;
  };
  for (const [first, seqs] of /** @type {[number, number[]][]} */ ([
    [1, await walk('before')],
    [6, await walk('after', '&after=5')],
  ])) {
    assert.equal(seqs.length, 26 - first);
    assertGapless(
      seqs.toSorted((a, b) => a - b),
      first,
    );
  }
  const seqsOf = async (query) =>
    (await asBob('GET', `/messages?${query}`)).body.messages.map((message) => message.seq).sort((a, b) => a - b);
  assert.deepEqual(await seqsOf('limit=3'), [23, 24, 25]);
  assert.deepEqual(await seqsOf('limit=3&before=10'), [7, 8, 9]);
  assert.deepEqual(await seqsOf('limit=3&after=10'), [11, 12, 13]);
  assert.deepEqual(await seqsOf('after=25'), []);
  assert.deepEqual(await seqsOf('before=1'), []);
  assert.deepEqual(await seqsOf('after=999999'), []);
});

test('after=0 begins with the first message', async () => {
  const { asBob } = await scene(4);
  const { body } = await asBob('GET', '/messages?after=0&limit=3');
  assert.deepEqual(
    body.messages.map((message) => message.seq).sort((a, b) => a - b),
    [1, 2, 3],
  );
  assert.equal(body.next, 3);
});

test('events are read in pages, with epoch, head and completeness', async () => {
  const { asBob, conversation } = await scene(25);
  const seqs = [];
  for (let after = 0; after !== null; ) {
    const { body } = await asBob('GET', `/events?after=${after}&limit=10`);
    assert.deepEqual(keys(body), ['complete', 'epoch', 'events', 'head_seq', 'next', 'resync']);
    assert.deepEqual([body.epoch, body.head_seq, body.resync], [conversation.epoch, 25, false]);
    for (const event of body.events) {
      assert.deepEqual(keys(event), ['at', 'message', 'seq', 'type']);
      assert.equal(event.type, 'message:new');
      assertMessage(event.message);
    }
    seqs.push(...body.events.map((event) => event.seq));
    assert.equal(body.complete, seqs.length === 25);
    after = body.next;
  }
  assert.equal(seqs.length, 25);
  assertGapless(seqs, 1);
  const ahead = await asBob('GET', '/events?after=1000');
  assert.equal(ahead.status, 200, ahead.text);
  assert.deepEqual(ahead.body.events, []);
});

test('S1.r3 S3.b1: conversations are listed newest first, in pages, each with its unread count', async () => {
  const alice = person('alice');
  const made = [];
  for (let i = 0; i < 7; i++) made.push(await direct(alice, person(`peer${i}`)));
  const busy = made[2];
  const peer = busy.participants.map((one) => one.user_id).find((id) => id !== alice);
  await rest(token(peer), 'POST', `/conversations/${busy.id}/messages`, { content: 'hi' });
  const listed = [];
  for (let cursor = ''; cursor !== null; ) {
    const { body } = await rest(
      token(alice),
      'GET',
      `/conversations?limit=3${cursor && `&cursor=${encodeURIComponent(cursor)}`}`,
    );
    assert.deepEqual(keys(body), ['conversations', 'next']);
    assert.ok(body.conversations.length <= 3);
    body.conversations.forEach(assertConversation);
    listed.push(...body.conversations);
    cursor = body.next;
  }
  assert.deepEqual(listed.map((one) => one.id).sort(), made.map((one) => one.id).sort());
  assert.equal(listed[0].id, busy.id);
  assert.equal(listed[0].unread, 1);
  assert.equal(listed[0].last_message.content, 'hi');
  assertProblem(await rest(token(alice), 'GET', '/conversations?cursor=nonsense'), 400, 'invalid');
});

test('limits of pages are held: 0, negative and text are refused, large is cut', async () => {
  const { alice, asBob, conversation } = await scene(3);
  for (const route of ['/messages', '/events']) {
    for (const limit of ['0', '-1', 'abc', '1.5', '99999999999', '%00', '1e400']) {
      assertProblem(await asBob('GET', `${route}?limit=${limit}`), 400, 'invalid');
    }
    assert.equal((await asBob('GET', `${route}?limit=1000`)).status, 200);
  }
  for (const limit of ['0', '-1', 'abc'])
    assertProblem(await rest(token(alice), 'GET', `/conversations?limit=${limit}`), 400, 'invalid');
  for (const query of ['before=-1', 'before=abc', 'after=-1', 'after=abc', 'after=18446744073709551616']) {
    assertProblem(await asBob('GET', `/messages?${query}`), 400, 'invalid');
  }
  assertProblem(await asBob('GET', '/events?after=abc'), 400, 'invalid');
  const beyond = await asBob('GET', '/events?after=18446744073709551615');
  assert.deepEqual([beyond.status, beyond.body.events], [200, []], beyond.text);
  const far = await asBob('GET', '/messages?before=18446744073709551615');
  assert.deepEqual([far.status, far.body.messages.length], [200, 3], far.text);
  assert.equal((await rest(token(alice), 'GET', `/conversations/${conversation.id}`)).status, 200);
});

test('S1.p1: a page never holds more than 100', async () => {
  const { asBob, asAlice } = await scene();
  await Promise.all(Array.from({ length: 110 }, (_, i) => asAlice('POST', '/messages', { content: `${i}` })));
  assert.equal((await asBob('GET', '/messages?limit=1000')).body.messages.length, 100);
  assert.equal((await asBob('GET', '/messages')).body.messages.length, 50);
  assert.equal((await asBob('GET', '/events?limit=1000')).body.events.length, 100);
});

test('both prefixes answer alike', async () => {
  const { bob, conversation } = await scene(2);
  for (const path of ['/conversations', `/conversations/${conversation.id}`, `/conversations/${conversation.id}/messages`]) {
    const [one, two] = [await rest(token(bob), 'GET', `/api${path}`), await rest(token(bob), 'GET', `/api/v1${path}`)];
    assert.deepEqual([one.status, one.text], [two.status, two.text]);
  }
});

test('what does not exist is answered with problem+json', async () => {
  const user = token(person('alice'));
  for (const path of ['/nothing', '/conversations/x/y/z', '/']) {
    for (const prefix of ['/api/v1', '/api']) assertProblem(await rest(user, 'GET', prefix + path), 404, 'not_found');
  }
  const { status } = await rest(user, 'GET', '//nowhere');
  assert.equal(status, 404);
  assertProblem(await rest(user, 'GET', `/conversations/${randomUUID()}`), 404, 'not_found');
  for (const id of ['x', '%00', '%ff', '*', '0', '-1', '1.5', '999999999999999999999']) {
    assertProblem(await rest(user, 'GET', `/conversations/${id}/messages`), 400, 'invalid');
  }
});

test('a wrong method is refused with problem+json', async () => {
  const user = token(person('alice'));
  for (const [method, path, wanted] of [
    ['DELETE', '/conversations', 405],
    // Other methods take the last part for an id, and these are none.
    ['PUT', '/conversations/direct', 405],
    ['GET', '/conversations/group', 405],
    ['PATCH', `/conversations/${randomUUID()}/messages`, 405],
  ]) {
    const answer = await rest(user, method, path);
    assert.equal(answer.status, wanted, `${method} ${path}`);
    assert.match(answer.type, /^application\/problem\+json/);
  }
});

test('a malformed body is refused without repeating it', async () => {
  const { asAlice } = await scene();
  for (const body of [
    '{"content":"s3cret',
    '{"content":s3cret}',
    '["s3cret"]',
    '"s3cret"',
    '{"content":{"s3cret":1}}',
    '{"s3cret":1}',
    '',
  ]) {
    const answer = await asAlice('POST', '/messages', body);
    assertProblem(answer, 400, 'invalid');
    assert.ok(!answer.text.includes('s3cret'), answer.text);
  }
  assertProblem(await asAlice('POST', '/messages', `{"content":"${'x'.repeat(3_000_000)}"}`), 413, 'too_large');
});

test('unread counts what others wrote and one has not read', async () => {
  const { asAlice, asBob } = await scene(3);
  const unread = async (as) => (await as('GET')).body.unread;
  assert.deepEqual([await unread(asAlice), await unread(asBob)], [0, 3]);
  await asBob('POST', '/messages', { content: 'mine' });
  assert.deepEqual([await unread(asAlice), await unread(asBob)], [1, 3]);
});

test('conversations and messages are found by their number as well', async () => {
  const { asBob, bob, conversation } = await scene(1);
  const byNumber = await rest(token(bob), 'GET', `/conversations/${conversation.number}`);
  assert.deepEqual([byNumber.status, byNumber.body.id], [200, conversation.id], byNumber.text);
  const { body } = await asBob('GET', '/messages');
  const message = await rest(token(bob), 'GET', `/messages/${conversation.number}`);
  assert.deepEqual([message.status, message.body.messages[0].id], [200, body.messages[0].id], message.text);
});
