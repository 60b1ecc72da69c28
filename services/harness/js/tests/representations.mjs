// REST in the dialect of its caller: which fields each front end reads, full pages without empty rows, failures.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import { closeAll, eventually, gateways, group, person, rest, token } from '../client.mjs';
import { agreed, has, holds, says, speak } from '../vocabulary.mjs';

after(closeAll);

const CIPHERTEXT = 'U2FsdGVkX1+/AAEC==';

/** Requests of one user under a prefix; each must be answered with the status that is expected. */
function caller(
  user,
  prefix = '/api',
  /** @type {{ dialect?: string, claims?: any, headers?: any, gateway?: number }} */ {
    dialect,
    claims,
    headers,
    gateway = 0,
  } = {},
) {
  const jwt = token(user, claims);
  return async (expected, method, path, body) => {
    const named = dialect ? `${path.includes('?') ? '&' : '?'}dialect=${dialect}` : '';
    const options = { base: gateways[gateway % gateways.length], headers };
    const answer = await rest(jwt, method, `${prefix}${path}${named}`, body, options);
    assert.equal(answer.status, expected, `${method} ${path}: ${answer.text.slice(0, 400)}`);
    return answer.body;
  };
}

/** A group of alice, bob and carol with one message of alice in it. */
async function scene(content = 'hello', more = {}) {
  const [alice, bob, carol] = ['alice', 'bob', 'carol'].map(person);
  const conversation = await group(alice, [bob, carol], 'Case 7');
  const path = `/conversations/${conversation.id}`;
  const sent = await caller(alice, '/api/v1')(201, 'POST', `${path}/messages`, { content, ...more });
  return { alice, bob, carol, conversation, path, sent };
}

/** How each front end recognises its own shape of a message. */
const OWN = {
  native: (message) => message.type === 'text' && message.senderId === undefined,
  journal: (message) => Number.isSafeInteger(message.message_id) && message.id === undefined,
  encrypted: (message) => message.content_encrypted === 'hello' && message.senderId === undefined,
  chats: (message) => message.chat_id === message.chatId && message.type === undefined,
  threads: (message) => message._id === message.id && message.type === undefined,
  inbox: (message) => message.senderId === message.sender.id && message.type === undefined,
};

for (const [dialect, isOwn] of Object.entries(OWN)) {
  test(`messages are ${dialect} by query, by header and by the token's claim`, async () => {
    const { bob, path } = await scene();
    for (const prefix of ['/api', '/api/v1']) {
      for (const as of [
        caller(bob, prefix, { dialect }),
        caller(bob, prefix, { headers: { 'x-parlance-dialect': dialect } }),
        caller(bob, prefix, { claims: { dialect } }),
      ]) {
        const { messages } = await as(200, 'GET', `${path}/messages`);
        assert.ok(isOwn(messages[0]), JSON.stringify(messages[0]));
      }
    }
  });
}

test('the query goes before the header, the header before the claim', async () => {
  const { bob, path } = await scene();
  const headers = { 'x-parlance-dialect': 'journal' };
  const claims = { dialect: 'encrypted' };
  const first = async (options) => (await caller(bob, '/api', options)(200, 'GET', `${path}/messages`)).messages[0];
  assert.ok(OWN.native(await first({ dialect: 'native', headers, claims })));
  assert.ok(OWN.journal(await first({ headers, claims })));
  assert.ok(OWN.encrypted(await first({ claims })));
  const refused = await rest(token(bob), 'GET', `/api${path}?dialect=klingon`);
  assert.equal(refused.status, 400);
  assert.equal(refused.body.message, 'dialect is none of native, journal, encrypted, chats, threads, inbox');
});

test('S1.r3 S1.r7 S3.r1 S3.r3 S3.r6: without a dialect, /api serves the front ends of ciphertext and of threads', async () => {
  const { alice, bob, carol, conversation, path } = await scene(CIPHERTEXT, { encrypted: true });
  const as = caller(bob);
  const [row] = (await as(200, 'GET', '/conversations')).conversations;
  holds(row, { _id: conversation.id, id: conversation.id, type: 'group', kind: 'group', unread: 1 });
  assert.deepEqual(row.participants.toSorted(), [alice, bob, carol].toSorted());
  assert.deepEqual(row.members.map((one) => one.user_id).toSorted(), [alice, bob, carol].toSorted());
  for (const last of [row.last_message, row.lastMessage]) {
    holds(last, { content_encrypted: CIPHERTEXT, content: CIPHERTEXT, sender_id: alice, senderId: alice });
  }
  assert.deepEqual(await as(200, 'GET', path), row);
  const [message] = (await as(200, 'GET', `${path}/messages`)).messages;
  holds(message, { conversationId: conversation.id, conversation_id: conversation.id, senderType: 'user' });
  has(message, '_id', 'id', 'messageType', 'message_type', 'createdAt', 'created_at', 'threadId', 'thread_id');
  const [own] = (await as(200, 'GET', `/messages/${conversation.id}`)).messages;
  assert.deepEqual(own.statuses.map((one) => one.user_id).toSorted(), [bob, carol].toSorted());
});

test('S4.b1 S4.r1: without a dialect, rows under /api/v1 have preview and timestamp, and messages what new_message has', async () => {
  const { alice, bob, conversation, path, sent } = await scene();
  const [row] = (await caller(bob, '/api/v1')(200, 'GET', '/conversations')).conversations;
  holds(row, { id: conversation.id, lastMessage: 'hello', timestamp: sent.created_at, unread: 1 });
  assert.equal(row.last_message.id, sent.id);
  const as = caller(bob, '/api/v1', { dialect: 'inbox' });
  const [own] = (await as(200, 'GET', '/conversations')).conversations;
  holds(own, { lastMessage: 'hello', timestamp: sent.created_at });
  assert.equal(own.message.id, sent.id);
  const client = await speak('inbox', bob, 1);
  await agreed(client, 'join_conversation', conversation.id);
  const posted = await caller(alice, '/api/v1')(201, 'POST', `${path}/messages`, { content: 'new' });
  const shown = await client.sees('new_message', (one) => one.id === posted.id);
  for (const key of ['id', 'conversationId', 'senderId', 'sender', 'senderType', 'content', 'messageType', 'createdAt'])
    assert.deepEqual(posted[key], shown[key], key);
});

test('S3.s1: history has the very messages that were shown live', async () => {
  const { alice, bob, conversation, path } = await scene();
  const client = await speak('threads', bob, 1);
  await agreed(client, 'conversation:join', conversation.id);
  const metadata = { zeta: 1, a: { long: [1.5, -0.25, 1e3], b: 'ü' }, beta: null };
  await caller(alice)(201, 'POST', `${path}/messages`, { content: 'live', metadata });
  const live = await client.sees('message:new', (one) => one.content === 'live');
  const { messages } = await caller(bob, '/api', { dialect: 'threads' })(200, 'GET', `${path}/messages`);
  assert.deepEqual(messages.at(-1), live);
  assert.equal(JSON.stringify(messages.at(-1)), JSON.stringify(live), 'also in the order of fields');
});

for (const options of [{ dialect: 'encrypted' }, { dialect: 'threads' }, {}]) {
  test(`deleted messages leave no row and pages stay full under /api as ${options.dialect ?? 'nothing'}`, async () => {
    const { alice, bob, conversation, path } = await scene('0');
    const asAlice = caller(alice, '/api/v1');
    const sent = [];
    for (let i = 1; i < 9; i++) sent.push(await asAlice(201, 'POST', `${path}/messages`, { content: `${i}` }));
    for (const one of [sent[1], sent[4], sent[6]]) await asAlice(200, 'DELETE', `${path}/messages/${one.id}`);
    const route = options.dialect === 'threads' ? `${path}/messages` : `/messages/${conversation.id}`;
    const text = (message) => message.content ?? message.content_encrypted;
    const as = caller(bob, '/api', options);
    const pages = [];
    for (let offset = 0; offset < 8; offset += 2) {
      const { messages } = await as(200, 'GET', `${route}?limit=2&offset=${offset}`);
      pages.push(messages.map(text));
    }
    assert.deepEqual(pages, [['6', '8'], ['3', '4'], ['0', '1'], []]);
    const walked = [];
    for (let before = ''; before !== undefined; ) {
      const { messages, next } = await as(200, 'GET', `${route}?limit=4${before}`);
      walked.unshift(...messages.map(text));
      before = next === null ? undefined : `&before=${next}`;
    }
    assert.deepEqual(walked, ['0', '1', '3', '4', '6', '8']);
    const native = await caller(bob, '/api/v1')(200, 'GET', `${path}/messages`);
    assert.equal(native.messages.filter((one) => one.deleted_at).length, 3);
  });
}

test('S1.p1 S1.r7: pages by offset are full whatever their messages weigh', async () => {
  const { alice, bob, conversation } = await scene();
  const content_encrypted = 'x'.repeat(64 * 1024);
  const body = { conversation_id: conversation.id, content_encrypted };
  for (let i = 0; i < 120; i += 8) {
    await Promise.all(
      Array.from({ length: 8 }, () =>
        eventually('sent', async () => (await rest(token(alice), 'POST', '/api/messages', body)).status === 201),
      ),
    );
  }
  const seen = new Set();
  for (const [offset, count] of [
    [0, 50],
    [50, 50],
    [100, 21],
  ]) {
    const { messages, next } = await caller(bob)(200, 'GET', `/messages/${conversation.id}?limit=50&offset=${offset}`);
    assert.equal(messages.length, count, `at ${offset}`);
    assert.equal(next === null, offset === 100);
    for (const { id } of messages) seen.add(id);
  }
  assert.equal(seen.size, 121);
});

test('S1.e3: who left, and who never was in a conversation, is forbidden alike', async () => {
  const { alice, bob, conversation, path } = await scene();
  const stranger = person('stranger');
  await caller(bob, '/api/v1')(204, 'DELETE', `${path}/participants/${bob}`);
  const answers = [];
  for (const [user, id] of [
    [bob, conversation.id],
    [stranger, conversation.id],
    [stranger, randomUUID()],
  ]) {
    for (const options of [{}, { dialect: 'encrypted' }]) {
      const as = caller(user, '/api', options);
      for (const [method, where, body] of [
        ['GET', `/conversations/${id}`],
        ['GET', `/messages/${id}`],
        ['POST', '/messages', { conversation_id: id, content_encrypted: 'x' }],
        ['POST', `/conversations/${id}/participants`, { user_id: alice }],
      ]) {
        const { name, error, message, code } = await as(403, method, where, body);
        answers.push(JSON.stringify([name, error, message, code]));
      }
    }
  }
  assert.deepEqual(
    [...new Set(answers)],
    [
      JSON.stringify([
        'ForbiddenError',
        'ForbiddenError',
        'there is no such conversation, or you are not a participant of it',
        'forbidden',
      ]),
    ],
  );
  await caller(bob, '/api/v1')(404, 'GET', path);
});

test('failures carry their text and class under both prefixes', async () => {
  const { alice, path } = await scene();
  for (const prefix of ['/api', '/api/v1']) {
    const problem = await caller(alice, prefix)(400, 'POST', `${path}/messages`, { content: '' });
    holds(problem, { message: 'content is empty', detail: 'content is empty', error: 'ValidationError' });
    holds(await caller(alice, prefix)(404, 'GET', '/nowhere'), { error: 'NotFoundError', name: 'NotFoundError' });
  }
});

test('S2.c4 S2.t5: reading a message reads the chat up to it, and the list counts the rest', async () => {
  const { alice, bob, carol, conversation, path } = await scene('1');
  const asAlice = caller(alice, '/api/v1');
  const sent = [];
  for (const content of ['2', '3', '4']) sent.push(await asAlice(201, 'POST', `${path}/messages`, { content }));
  const client = await speak('chats', bob, 1);
  await eventually('the chat is followed', async () => (await client.ask('typing:stop', { chatId: conversation.id })).success);
  const unread = async (user, options) =>
    (await caller(user, '/api', options)(200, 'GET', '/conversations')).conversations[0].unread;
  assert.equal(await unread(bob, { dialect: 'chats' }), 4);
  says(client, 'message:read', { messageId: sent[1].id, chatId: conversation.id });
  await eventually('the badge follows', async () => (await unread(bob, { dialect: 'chats' })) === 1);
  // Elsewhere a message that is read is that message.
  const other = await speak('threads', carol, 0);
  await agreed(other, 'message:read', { messageId: sent[1].id, conversationId: conversation.id });
  assert.equal(await unread(carol, { dialect: 'threads' }), 3);
});

test('errors name the field as sent, what was there and what is allowed', async () => {
  const { alice, path, sent } = await scene();
  const message = async (method, where, body) => {
    const answer = await rest(token(alice), method, `/api/v1${where}`, body);
    assert.equal(answer.status, 400, answer.text);
    assert.ok(!answer.text.includes('s3cret'), answer.text);
    return answer.body.message;
  };
  const id = 'a UUID, or a number from 1 to 9007199254740991';
  for (const [method, where, body, expected] of [
    ['GET', `${path}/messages?limit=s3cret`, undefined, 'limit in the query string must be a whole number, 0 or more'],
    ['GET', `${path}/messages?threadId=s3cret`, undefined, 'threadId in the query string must be a UUID'],
    ['GET', `${path}/messages?offset=100001`, undefined, 'offset is above 100000: page with before'],
    ['POST', `${path}/messages`, ['s3cret'], 'the body is a list; it must be an object'],
    ['POST', `${path}/messages`, { content: 5 }, 'content is a number; it must be text'],
    ['POST', `${path}/messages`, { content: 'x', replyTo: 's3cret' }, `replyTo is text; it must be ${id}`],
    [
      'POST',
      `${path}/messages`,
      { content: 'x', type: 'text', messageType: 'image' },
      'type and messageType differ: they name one field',
    ],
    ['POST', `${path}/read`, { messageIds: 's3cret' }, 'messageIds is text; it must be a list'],
    ['POST', `${path}/read`, { messageIds: [sent.id, true] }, `something in messageIds is true or false; it must be ${id}`],
    [
      'POST',
      '/messages',
      { conversation_id: sent.conversation_id, content: 's3cret', content_encrypted: 's3cret' },
      'content and content_encrypted are both given; give one of them',
    ],
    ['GET', '/conversations/-1', undefined, 'conversation id is neither a UUID nor a number from 1 to 9007199254740991'],
  ]) {
    assert.equal(await message(method, where, body), expected, `${method} ${where}`);
  }
  const both = { content: 'x', type: 'image', messageType: 'image', clientMsgId: 'one', client_msg_id: 'one', reply_to: null };
  holds(await caller(alice, '/api/v1')(201, 'POST', `${path}/messages`, both), { type: 'image', client_msg_id: 'one' });
});

test('S3.c6: a thread that there is not cannot be looked at', async () => {
  const { bob, conversation } = await scene();
  const client = await speak('threads', bob, 1);
  const ack = await client.ask('thread:switch', { conversationId: conversation.id, threadId: randomUUID() });
  assert.deepEqual([ack.ok, ack.error.code, ack.error.message], [false, 'not_found', 'no such thread']);
});

test('S3.r8: threads and earlier contents come in pages, and all of them without being asked for more', async () => {
  const { alice, bob, path, sent } = await scene();
  const asAlice = caller(alice, '/api/v1');
  const contents = ['hello'];
  for (let i = 0; i < 14; i++) {
    const content = `${i}`.padEnd(64 * 1024, 'x');
    await asAlice(200, 'PATCH', `${path}/messages/${sent.id}`, { content });
    contents.push(content);
  }
  contents.pop();
  const edits = (query) => caller(bob, '/api/v1')(200, 'GET', `${path}/messages/${sent.id}/edits${query}`);
  const all = await edits('');
  assert.deepEqual([all.edits.map((one) => one.content), all.next], [contents, null]);
  const first = await edits('?limit=9');
  assert.equal(first.edits.length, 9);
  const second = await edits(`?limit=9&after=${first.next}`);
  assert.deepEqual(
    [...first.edits, ...second.edits].map((one) => one.content),
    contents,
  );
  assert.equal(second.next, null);
  const ids = [];
  for (let i = 0; i < 5; i++) ids.push((await asAlice(201, 'POST', `${path}/threads`, { title: `${i}` })).id);
  const threads = (query) => caller(bob, '/api/v1')(200, 'GET', `${path}/threads${query}`);
  const page = await threads('?limit=3');
  assert.deepEqual(
    page.threads.map((one) => one.id),
    ids.slice(0, 3),
  );
  assert.deepEqual(
    (await threads(`?limit=3&after=${page.next}`)).threads.map((one) => one.id),
    ids.slice(3),
  );
  assert.deepEqual([(await threads('')).threads.length, (await threads('')).next], [5, null]);
});
