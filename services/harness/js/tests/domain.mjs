// The whole domain over REST: what is done to messages, conversations and their members, threads, journals, and
// the routes of the encrypted front end.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import { assertProblem, closeAll, connect, gateways, person, rest, token } from '../client.mjs';

after(closeAll);

const PREFIXES = ['/api/v1', '/api'];

/** Requests of one user under a prefix; each must be answered with the status that is expected. */
function caller(user, prefix = '/api/v1', gateway = 0) {
  const options = { base: gateways[gateway % gateways.length] };
  return async (expected, method, path, body) => {
    const answer = await rest(token(user), method, prefix + path, body, options);
    assert.ok([expected].flat().includes(answer.status), `${method} ${path} ${answer.status}: ${answer.text.slice(0, 400)}`);
    return answer.body;
  };
}

/** A group whose admin is alice, seen through both gateways. */
async function scene(prefix = '/api/v1') {
  const [alice, bob, carol] = ['alice', 'bob', 'carol'].map(person);
  const as = { alice: caller(alice, prefix, 0), bob: caller(bob, prefix, 1), carol: caller(carol, prefix, 0) };
  const conversation = await as.alice(201, 'POST', '/conversations/group', {
    title: 'Everything',
    participant_ids: [bob],
  });
  return { alice, bob, carol, as, conversation, path: `/conversations/${conversation.id}` };
}

/** Asserts how the older routes report a failure. */
async function assertNamed(user, name, status, method, path, body) {
  const answer = await rest(token(user), method, `/api${path}`, body);
  assert.deepEqual([answer.status, answer.body?.name, answer.body?.error], [status, name, name], answer.text);
}

/** Under `/api` the participants are ids, and stand beside them as objects. */
const people = (conversation) => conversation.members ?? conversation.participants;
const roles = (conversation) => Object.fromEntries(people(conversation).map((one) => [one.user_id, one.role]));

for (const prefix of PREFIXES) {
  test(`S3.r8 S3.r9: a message is changed, marked, read and deleted under ${prefix}`, async () => {
    const { alice, bob, as, conversation, path } = await scene(prefix);
    const sent = await as.alice(201, 'POST', `${path}/messages`, { content: 'helo' });
    const at = `${path}/messages/${sent.id}`;
    assert.deepEqual(await as.bob(200, 'GET', at), sent);

    const edited = await as.alice(200, 'PATCH', at, { content: 'hello' });
    assert.deepEqual([edited.id, edited.content, edited.seq], [sent.id, 'hello', sent.seq]);
    await as.bob(403, 'PATCH', at, { content: 'mine now' });
    const { edits } = await as.bob(200, 'GET', `${at}/edits`);
    assert.deepEqual(
      edits.map((edit) => edit.content),
      ['helo'],
    );

    const marked = await as.bob(200, 'POST', `${at}/reactions`, { emoji: '😂' });
    assert.deepEqual(marked.reactions, [{ user_id: bob, emoji: '😂' }]);
    assert.equal((await as.bob(200, 'POST', `${at}/reactions`, { emoji: '😂' })).reactions.length, 1);
    assert.equal((await as.alice(200, 'POST', `${at}/reactions`, { emoji: '👍🏽' })).reactions.length, 2);
    const without = await as.bob(200, 'DELETE', `${at}/reactions`, { emoji: '😂' });
    assert.deepEqual(without.reactions, [{ user_id: alice, emoji: '👍🏽' }]);
    const query = `?emoji=${encodeURIComponent('👍🏽')}`;
    assert.deepEqual((await as.alice(200, 'DELETE', `${at}/reactions${query}`)).reactions, []);
    await as.bob(400, 'POST', `${at}/reactions`, { emoji: '' });

    const delivered = await as.bob(200, 'POST', `${at}/status`, { status: 'delivered' });
    assert.deepEqual([delivered.conversation_id, delivered.user_id], [conversation.id, bob]);
    assert.ok(delivered.delivered_seq >= sent.seq);
    assert.deepEqual(delivered.read, []);
    const read = await as.bob(200, 'POST', `${at}/status`, { status: 'read' });
    assert.ok(read.up_to_seq >= sent.seq);
    await as.bob(400, 'POST', `${at}/status`, { status: 'seen' });

    await as.bob(204, 'DELETE', `${at}?scope=me`);
    assert.deepEqual((await as.bob(200, 'GET', `${path}/messages`)).messages, []);
    assert.equal((await as.alice(200, 'GET', `${path}/messages`)).messages.length, 1);
    await as.alice(400, 'DELETE', `${at}?scope=some`);
    const deleted = await as.alice(200, 'DELETE', at);
    assert.deepEqual([deleted.id, deleted.content], [sent.id, '']);
    assert.ok(deleted.deleted_at);
  });
}

test('ids of paths are UUIDs or numbers', async () => {
  const { as, conversation } = await scene();
  const path = `/conversations/${conversation.number}`;
  const sent = await as.alice(201, 'POST', `${path}/messages`, { content: 'one' });
  assert.equal(sent.conversation_id, conversation.id);
  const edited = await as.alice(200, 'PATCH', `${path}/messages/${sent.number}`, { content: 'two' });
  assert.deepEqual([edited.id, edited.content], [sent.id, 'two']);
  const lone = await as.bob(200, 'POST', `/messages/${sent.number}/reactions`, { emoji: '👀' });
  assert.equal(lone.id, sent.id);
  await as.alice(404, 'PATCH', `${path}/messages/${randomUUID()}`, { content: 'x' });
  await as.alice(400, 'PATCH', `${path}/messages/x`, { content: 'x' });
  await as.carol(404, 'GET', path);
  await as.carol(404, 'PATCH', `${path}/messages/${sent.id}`, { content: 'x' });
});

test('messages are read by seq or by name', async () => {
  const { as, path } = await scene();
  const sent = [];
  for (const content of ['1', '2', '3']) sent.push(await as.alice(201, 'POST', `${path}/messages`, { content }));
  const seqs = sent.map((one) => one.seq);
  const first = await as.bob(200, 'POST', `${path}/read`, { message_ids: [sent[2].id] });
  assert.deepEqual(first.read.at(-1), [seqs[2], seqs[2]]);
  assert.equal((await as.bob(200, 'GET', path)).unread, 2);
  const all = await as.bob(200, 'POST', `${path}/read`, { up_to_seq: seqs[2] });
  assert.equal(all.up_to_seq, seqs[2]);
  assert.equal((await as.bob(200, 'GET', path)).unread, 0);
  await as.bob(400, 'POST', `${path}/read`, {});
});

test('a message may be ciphertext, an answer and part of a thread; pages may be counted from the latest', async () => {
  const { as, path } = await scene();
  const root = await as.alice(201, 'POST', `${path}/messages`, { content: 'question' });
  const answer = await as.bob(201, 'POST', `${path}/messages`, {
    content: 'Y2lwaGVy',
    encrypted: true,
    reply_to: root.id,
  });
  assert.deepEqual([answer.encrypted, answer.reply_to, answer.thread_id], [true, root.id, null]);
  const contents = async (query) => (await as.alice(200, 'GET', `${path}/messages${query}`)).messages.map((one) => one.content);
  assert.deepEqual(await contents('?limit=1&offset=0'), ['Y2lwaGVy']);
  assert.deepEqual(await contents('?limit=1&offset=1'), ['question']);
  assert.deepEqual(await contents('?limit=1&offset=2'), []);
  await as.alice(400, 'GET', `${path}/messages?offset=-1`);
});

test('S3.r10 S3.r11 S3.r12 S3.t3: threads are begun, listed, written to and read', async () => {
  const { alice, as, conversation, path } = await scene();
  const root = await as.alice(201, 'POST', `${path}/messages`, { content: 'root' });
  const thread = await as.alice(201, 'POST', `${path}/threads`, { title: 'Aside', rootMessageId: root.id });
  assert.deepEqual(
    [thread.conversation_id, thread.title, thread.root_message_id, thread.created_by, thread.reply_count],
    [conversation.id, 'Aside', root.id, alice, 0],
  );
  const child = await as.bob(201, 'POST', `${path}/threads`, { parent_thread_id: thread.id });
  assert.equal(child.parent_thread_id, thread.id);
  const one = await as.bob(201, 'POST', `${path}/threads/${thread.id}`, { content: 'in it' });
  const two = await as.bob(201, 'POST', `${path}/messages`, { content: 'in it too', threadId: thread.id });
  assert.deepEqual([one.thread_id, two.thread_id], [thread.id, thread.id]);
  const read = await as.alice(200, 'GET', `${path}/threads/${thread.id}`);
  assert.deepEqual([read.id, read.reply_count], [thread.id, 2]);
  assert.deepEqual(read.messages, [one, two]);
  const { threads } = await as.alice(200, 'GET', `${path}/threads`);
  assert.deepEqual(
    threads.map((each) => each.id),
    [thread.id, child.id],
  );
  const filtered = await as.alice(200, 'GET', `${path}/messages?thread_id=${thread.id}`);
  assert.deepEqual(filtered.messages, [one, two]);
  await as.alice(404, 'GET', `${path}/threads/${randomUUID()}`);
  await as.alice(404, 'GET', `${path}/threads/x`);
  await as.carol(404, 'GET', `${path}/threads`);
});

test('S1.r5 S1.r6 S1.t3 S3.b4: members join, get roles and leave', async () => {
  const { alice, bob, carol, as, path } = await scene();
  const [dave, erin] = [person('dave'), person('erin')];
  await as.bob(403, 'POST', `${path}/participants`, { user_id: carol });
  const added = await as.alice(201, 'POST', `${path}/participants`, { user_id: carol });
  assert.deepEqual(roles(added), { [alice]: 'admin', [bob]: 'member', [carol]: 'member' });
  assert.equal((await as.alice(200, 'POST', `${path}/participants`, { user_id: carol })).participants.length, 3);
  const more = await as.alice(201, 'POST', `${path}/participants`, { user_ids: [dave, erin], role: 'moderator' });
  assert.deepEqual([roles(more)[dave], roles(more)[erin]], ['moderator', 'moderator']);
  await as.carol(200, 'GET', path);
  const raised = await as.alice(200, 'PATCH', `${path}/participants/${carol}`, { role: 'admin' });
  assert.equal(roles(raised)[carol], 'admin');
  await as.alice(400, 'PATCH', `${path}/participants/${carol}`, { role: 'king' });
  await as.alice(404, 'PATCH', `${path}/participants/${person('nobody')}`, { role: 'member' });
  await as.carol(204, 'DELETE', `${path}/participants/${bob}`);
  await as.bob(404, 'GET', path);
  await as.carol(204, 'DELETE', `${path}/participants/${carol}`);
  await as.carol(404, 'GET', path);
  await as.alice(400, 'POST', `${path}/participants`, {});
});

test('S3.b3 S3.r3 S3.r4 S3.r5 S3.t2: a conversation is changed and deleted', async () => {
  const { as, path } = await scene();
  await as.bob(201, 'POST', `${path}/messages`, { content: 'before the end' });
  const changed = await as.alice(200, 'PUT', path, { title: 'Other', status: 'archived', channel: 'email' });
  assert.deepEqual([changed.title, changed.status, changed.channel], ['Other', 'archived', 'email']);
  const more = await as.alice(200, 'PATCH', path, { metadata: { ticket: 7 } });
  assert.deepEqual([more.title, more.metadata], ['Other', { ticket: 7 }]);
  assert.equal((await as.bob(200, 'GET', path)).status, 'archived');
  await as.alice(201, 'POST', `${path}/messages`, { content: 'after the end' });
  assert.deepEqual(
    (await as.bob(200, 'GET', `${path}/messages`)).messages.map((one) => one.content),
    ['before the end', 'after the end'],
  );
  await as.alice(400, 'PATCH', path, { status: 'lost' });
  await as.alice(400, 'PATCH', path, { title: ' ' });
  await as.bob(403, 'PUT', path, { status: 'active' });
  await as.bob(403, 'DELETE', path);
  await as.alice(204, 'DELETE', path);
  for (const user of [as.alice, as.bob]) await user(404, 'GET', path);
});

for (const prefix of PREFIXES) {
  test(`S3.r1 S3.r2: a conversation is a group unless its type says direct, under ${prefix}`, async () => {
    const [alice, bob, carol] = ['alice', 'bob', 'carol'].map(person);
    const as = caller(alice, prefix);
    const direct = await as(201, 'POST', '/conversations', { participants: [alice, bob], type: 'direct', channel: 'voice' });
    assert.deepEqual([direct.kind, direct.channel, direct.participants.length], ['direct', 'voice', 2]);
    const again = await as(200, 'POST', '/conversations', { participant_ids: [bob], type: 'direct' });
    assert.equal(again.id, direct.id);
    const group = await as(201, 'POST', '/conversations', { participants: [bob, carol], metadata: { a: 1 } });
    assert.deepEqual([group.kind, group.title, group.metadata], ['group', `${bob}, ${carol}`, { a: 1 }]);
    const pair = await as(201, 'POST', '/conversations', { participants: [bob], title: 'Two' });
    assert.deepEqual([pair.kind, pair.title], ['group', 'Two']);
    await as(400, 'POST', '/conversations', { participants: [bob, carol], type: 'direct' });
    await as(400, 'POST', '/conversations', { participants: [alice], type: 'group' });
    await as(400, 'POST', '/conversations', { participants: [bob], type: 'crowd' });
    await as(400, 'POST', '/conversations', { participants: [bob], type: 'voice', channel: 'email' });
    await as(400, 'POST', '/conversations', { participants: [bob], type: 'direct', open: true });
    await as(201, 'POST', `/conversations/${group.id}/messages`, { content: 'latest' });
    const { conversations } = await as(200, 'GET', '/conversations');
    assert.equal(conversations.length, 3);
    const { last_message, lastMessage } = conversations[0];
    assert.deepEqual([conversations[0].id, last_message.content], [group.id, 'latest']);
    if (prefix === '/api') {
      assert.deepEqual([lastMessage.id, lastMessage.senderId], [last_message.id, alice]);
      assert.equal(lastMessage.createdAt, last_message.created_at);
    } else {
      assert.equal(lastMessage, 'latest');
      assert.equal(conversations[0].timestamp, last_message.created_at);
    }
    assert.equal(conversations.find((one) => one.id === pair.id).lastMessage, null);
  });
}

test('S3.r2: two cases of one pair are two conversations, whatever their channel and status', async () => {
  const [customer, agent] = [person('customer'), person('agent9')];
  const as = caller(customer, '/api');
  const open = (body) => as(201, 'POST', '/conversations', body);
  const first = await open({ title: 'Invoice', participants: [agent] });
  await as(200, 'PUT', `/conversations/${first.id}`, { status: 'completed' });
  const second = await open({ title: 'Delivery', participants: [agent], type: 'voice' });
  const third = await open({ title: 'Invoice', participants: [agent], channel: 'email' });
  assert.equal(new Set([first.id, second.id, third.id]).size, 3);
  assert.deepEqual([second.title, second.channel, third.channel], ['Delivery', 'voice', 'email']);
  const alone = await open({ title: 'Nobody yet' });
  assert.deepEqual([alone.title, alone.participants.length], ['Nobody yet', 1]);
  assert.equal((await open({ participants: [] })).participants.length, 1);
});

test('S3.r4: in a conversation made without roles every participant changes title, status and members', async () => {
  const [alice, bob, carol, dave] = ['alice', 'bob', 'carol', 'dave'].map(person);
  const as = Object.fromEntries([alice, bob, carol, dave].map((user, n) => [user, caller(user, '/api', n)]));
  const { id } = await as[alice](201, 'POST', '/conversations', { title: 'Case', participants: [bob, carol] });
  const path = `/conversations/${id}`;
  const changed = await as[bob](200, 'PUT', path, { title: 'Case 7', status: 'archived' });
  assert.deepEqual([changed.title, changed.status], ['Case 7', 'archived']);
  const people = async () => Object.keys(roles(await caller(bob)(200, 'GET', path))).sort();

  await as[bob](200, 'PUT', path, { participants: [alice, dave], status: 'active' });
  assert.deepEqual(await people(), [alice, bob, dave].sort());
  await as[carol](403, 'GET', path);
  await as[dave](200, 'PUT', path, { title: 'Mine too' });
  await as[bob](200, 'PUT', path, { participants: [alice, bob, dave] });
  assert.deepEqual(await people(), [alice, bob, dave].sort());

  await as[bob](403, 'DELETE', path);
  await caller(bob)(403, 'PATCH', `${path}/participants/${dave}`, { role: 'admin' });
});

test('S3.r4: participants of a conversation with roles are set by those who may, else refused', async () => {
  const { alice, bob, carol, as, path } = await scene();
  await as.bob(403, 'PUT', path, { participants: [alice, carol] });
  const set = await as.alice(200, 'PUT', path, { participants: [carol] });
  assert.deepEqual(Object.keys(roles(set)).sort(), [alice, carol].sort());
  await as.bob(404, 'GET', path);
  const direct = await as.alice(201, 'POST', '/conversations/direct', { user_id: bob });
  await as.alice(400, 'PUT', `/conversations/${direct.id}`, { participants: [bob, carol] });
  await as.alice(200, 'PUT', `/conversations/${direct.id}`, { participants: [bob], status: 'archived' });
});

test('S3.r1: a list is filtered by status and channel, page by page', async () => {
  const as = caller(person('alice'), '/api');
  const made = [];
  for (const [channel, status] of [
    ['chat', 'active'],
    ['voice', 'active'],
    ['voice', 'archived'],
    ['voice', 'archived'],
    ['email', 'completed'],
  ]) {
    const { id } = await as(201, 'POST', '/conversations', { title: `${channel} ${status}`, channel });
    await as(200, 'PUT', `/conversations/${id}`, { status });
    made.push(id);
  }
  const listed = async (query) => {
    const ids = [];
    for (let cursor = ''; cursor !== null; ) {
      const page = await as(200, 'GET', `/conversations?limit=1&${query}&cursor=${cursor}`);
      ids.unshift(...page.conversations.map((one) => one.id));
      cursor = page.next;
    }
    return ids.sort();
  };
  const these = (...places) => places.map((place) => made[place]).sort();
  assert.deepEqual(await listed('status=archived'), these(2, 3));
  assert.deepEqual(await listed('channel=voice'), these(1, 2, 3));
  assert.deepEqual(await listed('channel=voice&status=active'), these(1));
  assert.deepEqual(await listed('channel=email&status=active'), []);
  await as(400, 'GET', '/conversations?status=lost');
  await as(400, 'GET', '/conversations?channel=fax');
});

test('S3.t3: the main line of a history is without the messages of threads', async () => {
  const { alice, as, path } = await scene();
  const say = (content, thread) => as.alice(201, 'POST', thread ?? `${path}/messages`, { content });
  await say('before');
  const thread = await as.bob(201, 'POST', `${path}/threads`, { title: 'Aside' });
  await say('aside', `${path}/threads/${thread.id}`);
  await say('after');
  const contents = async (prefix, query = '') =>
    (await caller(alice, prefix)(200, 'GET', `${path}/messages${query}`)).messages.map((one) => one.content);
  assert.deepEqual(await contents('/api'), ['before', 'after']);
  assert.deepEqual(await contents('/api', `?thread_id=${thread.id}`), ['aside']);
  assert.deepEqual(await contents('/api', '?main_line=false'), ['before', 'aside', 'after']);
  assert.deepEqual(await contents('/api/v1'), ['before', 'aside', 'after']);
  assert.deepEqual(await contents('/api/v1', '?mainLine=true'), ['before', 'after']);
  assert.deepEqual(await contents('/api', '?limit=1'), ['after']);
});

test('S1.e4 S1.r1: a direct conversation that exists is a conflict on the older route, unless it is good enough', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const as = caller(alice, '/api');
  const made = await as(201, 'POST', '/conversations/direct', { user_id: bob, title: 'Us' });
  assert.equal(made.title, 'Us');
  const conflict = await as(409, 'POST', '/conversations/direct', { user_id: bob });
  assert.deepEqual([conflict.error, conflict.conversation.id], ['ConflictError', made.id]);
  assert.equal((await as(200, 'POST', '/conversations/direct?ensure=true', { user_id: bob })).id, made.id);
});

/** What each author wrote of a text, in its order. */
function parts({ content, authors, spans }) {
  let at = 0;
  return spans.map(({ length, author }) => [content.slice(at, (at += length)), authors[author] ?? null]);
}

for (const prefix of PREFIXES) {
  test(`a journal is written, shared and read back under ${prefix}`, async () => {
    const [alice, bob, carol] = ['alice', 'bob', 'carol'].map(person);
    const [asAlice, asBob, asCarol] = [alice, bob, carol].map((user, i) => caller(user, prefix, i));
    const made = await asAlice(201, 'POST', '/journals', { title: 'Trip', content: 'one two' });
    assert.deepEqual([made.owner, made.content, made.collaborators], [alice, 'one two', []]);
    assert.ok(Number.isSafeInteger(made.number) && made.number > 0);
    const path = `/journals/${made.id}`;
    assert.deepEqual(await asAlice(200, 'GET', `/journals/${made.number}`), made);
    await asBob(404, 'GET', path);

    const shared = await asAlice(201, 'POST', `${path}/collaborators`, { user_id: bob, permission: 'viewer' });
    assert.deepEqual(shared.collaborators, [{ user_id: bob, username: bob, permission: 'viewer' }]);
    await asBob(403, 'PATCH', path, { content: 'bob was here' });
    const raised = await asAlice(200, 'PATCH', `${path}/collaborators/${bob}`, { permission: 'editor' });
    assert.equal(raised.collaborators[0].permission, 'editor');
    const again = await asAlice(200, 'POST', `${path}/collaborators`, { user_id: bob, permission: 'editor' });
    assert.equal(again.collaborators.length, 1);
    await asAlice(400, 'POST', `${path}/collaborators`, { user_id: bob, permission: 'owner' });

    const base_version = (await asAlice(200, 'GET', path)).version;
    const early = await asAlice(200, 'PATCH', path, { content: 'zero one two', base_version });
    assert.ok(early.version > base_version);
    const merged = await asBob(200, 'PATCH', path, { content: 'one two three', title: 'Trips', base_version });
    assert.deepEqual([merged.content, merged.title], ['zero one two three', 'Trips']);
    await asAlice(400, 'PATCH', path, {});

    const { versions } = await asBob(200, 'GET', `${path}/versions`);
    assert.deepEqual(
      versions.map((one) => one.user_id),
      [bob, alice, alice],
    );
    assert.ok(versions.every((one) => !('content' in one)));
    const [latest, second, first] = versions;
    const then = ({ version }) => asBob(200, 'GET', `${path}/versions/${version}`);
    assert.deepEqual([(await then(latest)).content, (await then(second)).content], ['zero one two three', 'zero one two']);
    const blame = await asBob(200, 'GET', `${path}/blame`);
    assert.deepEqual([blame.content, blame.version], ['zero one two three', latest.version]);
    assert.deepEqual(parts(blame), [
      ['zero one two', alice],
      [' three', bob],
    ]);
    const { at, ...said } = await asBob(200, 'GET', `${path}/versions/${first.version}`);
    assert.deepEqual(said, { version: first.version, content: 'one two', user_id: alice });
    const restored = await asBob(200, 'POST', `${path}/restore/${first.version}`);
    assert.equal(restored.content, 'one two');
    assert.ok(restored.version > merged.version);
    // A change of the title is none of the text, and what is no number names nothing.
    await asBob(404, 'GET', `${path}/versions/${restored.version + 1}`);
    await asBob(404, 'POST', `${path}/restore/${restored.version + 1}`);
    for (const version of ['0', 'first']) await asBob(400, 'POST', `${path}/restore/${version}`);
    const { journals } = await asBob(200, 'GET', '/journals');
    assert.deepEqual(
      journals.map((one) => [one.id, one.title]),
      [[made.id, 'Trips']],
    );
    assert.deepEqual((await asBob(200, 'GET', '/conversations')).conversations, []);

    await asAlice(201, 'POST', `${path}/collaborators`, { user_id: carol, permission: 'viewer' });
    await asCarol(204, 'DELETE', `${path}/collaborators/${carol}`);
    await asCarol(404, 'GET', path);
    await asAlice(204, 'DELETE', `${path}/collaborators/${bob}`);
    await asBob(404, 'GET', path);
    await asAlice(204, 'DELETE', path);
    await asAlice(404, 'GET', path);
  });
}

test('S0.b3: a grant that follows a share at once makes an editor, and a share that follows a grant takes nothing away', async () => {
  const [alice, bob] = ['alice', 'bob'].map(person);
  const [asAlice, asBob] = [caller(alice, '/api/v1', 0), caller(bob, '/api/v1', 1)];
  const { id } = await asAlice(201, 'POST', '/conversations/direct', { user_id: bob });
  for (let round = 0; round < 15; round += 1) {
    const journal = await asAlice(201, 'POST', '/journals', { title: 'Trip', content: '' });
    const path = `/journals/${journal.id}`;
    const share = () =>
      asAlice(201, 'POST', `/conversations/${id}/messages`, {
        content: 'look',
        type: 'journal_share',
        metadata: { journalId: journal.id },
      });
    await share();
    const granted = await asAlice([200, 201], 'POST', `${path}/collaborators`, { user_id: bob, permission: 'editor' });
    assert.deepEqual(granted.collaborators, [{ user_id: bob, username: bob, permission: 'editor' }], `round ${round}`);
    await share();
    await asBob(200, 'PATCH', path, { content: `round ${round}` });
    const lowered = await asAlice(200, 'POST', `${path}/collaborators`, { user_id: bob, permission: 'viewer' });
    assert.equal(lowered.collaborators[0].permission, 'viewer');
    await asBob(403, 'POST', `${path}/collaborators`, { user_id: bob, permission: 'editor' });
  }
});

test('an addition with a role changes it, one without leaves it, and neither goes beyond a role change', async () => {
  const { alice, bob, carol, as, path } = await scene();
  const add = `${path}/participants`;
  assert.equal(roles(await as.alice(201, 'POST', add, { user_id: bob, role: 'moderator' }))[bob], 'moderator');
  assert.equal(roles(await as.alice(200, 'POST', add, { user_id: bob, role: 'moderator' }))[bob], 'moderator');
  assert.equal(roles(await as.alice(200, 'POST', add, { user_id: bob }))[bob], 'moderator');
  const both = await as.alice(201, 'POST', add, { user_ids: [bob, carol], role: 'member' });
  assert.deepEqual(roles(both), { [alice]: 'admin', [bob]: 'member', [carol]: 'member' });
  await as.alice(200, 'PATCH', `${add}/${bob}`, { role: 'moderator' });
  await as.bob(403, 'POST', add, { user_id: carol, role: 'moderator' });
  await as.bob(403, 'POST', add, { user_id: alice, role: 'member' });
  await as.alice(400, 'POST', add, { user_id: alice, role: 'member' });
  assert.deepEqual(roles(await as.carol(200, 'GET', path)), { [alice]: 'admin', [bob]: 'moderator', [carol]: 'member' });
});

test('S1.b2: an emoji with and without its variation selector is one reaction', async () => {
  const { bob, as, path } = await scene();
  const { id } = await as.alice(201, 'POST', `${path}/messages`, { content: 'hearts' });
  const at = `${path}/messages/${id}/reactions`;
  const [plain, coloured] = ['\u2764', '\u2764\ufe0f'];
  await as.bob(200, 'POST', at, { emoji: coloured });
  const again = await as.bob(200, 'POST', at, { emoji: plain });
  assert.deepEqual(again.reactions, [{ user_id: bob, emoji: coloured }]);
  const both = await as.alice(200, 'POST', at, { emoji: plain });
  assert.deepEqual(
    both.reactions.map((one) => one.emoji),
    [coloured, coloured],
  );
  const left = await as.bob(200, 'DELETE', at, { emoji: plain });
  assert.deepEqual(
    left.reactions.map((one) => one.user_id),
    both.reactions.map((one) => one.user_id).filter((user) => user !== bob),
  );
});

test('users whose ids are numbers are named by numbers wherever a user is named', async () => {
  const [ada, ben, cem, dot] = [0, 0, 0, 0].map(() => Math.floor(Math.random() * 2 ** 46) + 1_000_000);
  const [asAda, asBen] = [caller(ada), caller(String(ben))];
  const ids = (conversation) => conversation.participants.map((one) => one.user_id).sort();
  const sorted = (...users) => users.map(String).sort();
  const direct = await asAda(201, 'POST', '/conversations/direct', { userId: ben });
  assert.deepEqual(ids(direct), sorted(ada, ben));
  assert.equal((await asBen(200, 'POST', '/conversations', { participants: [ben, ada], type: 'direct' })).id, direct.id);
  const group = await asAda(201, 'POST', '/conversations/group', { title: 'Numbers', participant_ids: [ben, String(cem)] });
  assert.deepEqual(ids(group), sorted(ada, ben, cem));
  const more = await asAda(201, 'POST', `/conversations/${group.id}/participants`, { user_id: dot });
  assert.deepEqual(ids(more), sorted(ada, ben, cem, dot));
  const journal = await asAda(201, 'POST', '/journals', { title: 'Numbers' });
  const shared = await asAda(201, 'POST', `/journals/${journal.id}/collaborators`, { userId: ben, permission: 'editor' });
  assert.equal(shared.collaborators[0].user_id, String(ben));
  const client = await connect(String(ada));
  const { presence } = await client.does('presence:subscribe', { user_ids: [ben, String(cem)] });
  assert.deepEqual(presence.map((one) => one.user_id).sort(), sorted(ben, cem));
  for (const user_id of [1.5, -1, 2 ** 53, true, {}, '']) await asAda(400, 'POST', '/conversations/direct', { user_id });
});

test('a conversation that is no journal is none to the routes of journals', async () => {
  const { as, conversation } = await scene();
  const path = `/journals/${conversation.id}`;
  await as.alice(404, 'GET', path);
  await as.alice(404, 'PATCH', path, { title: 'x' });
  await as.alice(404, 'GET', `${path}/versions`);
  await as.alice(404, 'DELETE', path);
  await as.alice(200, 'GET', `/conversations/${conversation.id}`);
});

for (const prefix of PREFIXES) {
  test(`S1.b2 S1.r7 S1.r8 S1.r9 S1.r10 S1.r11 S1.r12 S1.t2: ciphertext goes and comes with its statuses under ${prefix}`, async () => {
    const { alice, bob, carol, as, conversation } = await scene(prefix);
    await as.alice(201, 'POST', `/conversations/${conversation.id}/participants`, { user_id: carol });
    const cipher = 'U2FsdGVkX1+/😂==';
    const sent = await as.alice(201, 'POST', '/messages', {
      conversation_id: conversation.id,
      content_encrypted: cipher,
      message_type: 'text',
    });
    assert.deepEqual([sent.content_encrypted, sent.encrypted, sent.sender_id], [cipher, true, alice]);
    const statuses = (message) => Object.fromEntries(message.statuses.map((one) => [one.user_id, one.status]));
    assert.deepEqual(statuses(sent), { [bob]: 'sent', [carol]: 'sent' });

    await as.bob(200, 'POST', `/messages/${sent.id}/status`, { status: 'delivered' });
    const read = await as.carol(200, 'POST', `/messages/${sent.id}/status`, { status: 'read' });
    assert.deepEqual(statuses(read), { [bob]: 'delivered', [carol]: 'read' });
    const back = await as.carol(200, 'POST', `/messages/${sent.id}/status`, { status: 'delivered' });
    assert.deepEqual(statuses(back), statuses(read));

    const edited = await as.alice(200, 'PATCH', `/messages/${sent.id}`, { content_encrypted: 'bmV3' });
    assert.equal(edited.content_encrypted, 'bmV3');
    const marked = await as.bob(200, 'POST', `/messages/${sent.id}/reactions`, { emoji: '😂' });
    assert.deepEqual(marked.reactions, [{ user_id: bob, emoji: '😂' }]);
    assert.deepEqual((await as.bob(200, 'DELETE', `/messages/${sent.id}/reactions`, { emoji: '😂' })).reactions, []);

    for (let i = 0; i < 3; i++) {
      await as.alice(201, 'POST', '/messages', { conversation_id: conversation.id, content_encrypted: `${i}` });
    }
    const page = async (query) =>
      (await as.bob(200, 'GET', `/messages/${conversation.id}${query}`)).messages.map((one) => one.content_encrypted);
    assert.deepEqual(await page('?limit=2&offset=0'), ['1', '2']);
    assert.deepEqual(await page('?limit=2&offset=2'), ['bmV3', '0']);
    assert.deepEqual(await page('?limit=50&offset=4'), []);
    const { messages } = await as.bob(200, 'GET', `/messages/${conversation.number}`);
    assert.deepEqual(statuses(messages[0]), statuses(read));

    const deleted = await as.alice(200, 'DELETE', `/messages/${sent.id}`);
    assert.equal(deleted.content_encrypted, '');
    assert.ok(deleted.deleted_at);
  });
}

test('S1.e1 S1.e2 S1.e3: failures have the names of the encrypted front end', async () => {
  const { alice, carol, as, conversation } = await scene('/api');
  const body = { conversation_id: conversation.id, content_encrypted: 'x' };
  const { id } = await as.alice(201, 'POST', '/messages', body);
  await assertNamed(carol, 'ForbiddenError', 403, 'POST', '/messages', body);
  const nowhere = { ...body, conversation_id: randomUUID() };
  await assertNamed(carol, 'ForbiddenError', 403, 'POST', '/messages', nowhere);
  await assertNamed(carol, 'ForbiddenError', 403, 'GET', `/messages/${conversation.id}`);
  await assertNamed(alice, 'NotFoundError', 404, 'PATCH', `/messages/${randomUUID()}`, { content_encrypted: 'x' });
  await assertNamed(alice, 'ValidationError', 400, 'POST', '/messages', { ...body, content_encrypted: '' });
  await assertNamed(alice, 'ValidationError', 400, 'POST', '/messages', { conversation_id: conversation.id });
  await assertNamed(alice, 'ValidationError', 400, 'POST', `/messages/${id}/status`, { status: 'lost' });
  await assertNamed(carol, 'ForbiddenError', 403, 'GET', `/conversations/${conversation.id}`);
  await assertNamed(carol, 'ForbiddenError', 403, 'GET', `/conversations/${randomUUID()}`);
  const direct = { user_id: person('bob') };
  await as.alice(201, 'POST', '/conversations/direct', direct);
  await assertNamed(alice, 'ConflictError', 409, 'POST', '/conversations/direct', direct);
  const stranger = await rest(token(carol), 'POST', '/api/v1/messages', body);
  assert.deepEqual([stranger.status, stranger.body.error], [403, 'ForbiddenError'], stranger.text);
  const unknown = await rest(token(alice), 'GET', `/api/v1/conversations/${randomUUID()}`);
  assertProblem(unknown, 404, 'not_found');
});
