// What users decide about each other and about the conversations they are in: muted conversations, blocked and banned users,
// read-only groups.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { assertProblem, closeAll, connect, direct, eventually, group, person, rest, token } from '../client.mjs';

after(closeAll);

/** A request that must be answered so; its body. */
async function answered(status, user, method, path, body) {
  const answer = await rest(token(user), method, path, body);
  assert.equal(answer.status, status, `${user}: ${method} ${path}: ${answer.text.slice(0, 300)}`);
  return answer.body;
}

const LATER = '2100-01-01T00:00:00.000Z';

test('a mute shows in every session of the user, in the list and in the total, and to nobody else', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await direct(alice, bob);
  const path = `/conversations/${conversation.id}`;
  const other = await answered(201, alice, 'POST', '/conversations/group', { title: 'Other', participant_ids: [bob] });
  const events = ['conversation:muted'];
  const [here, there, hers] = [
    await connect(bob, 0, { events }),
    await connect(bob, 1, { events }),
    await connect(alice, 1, { events }),
  ];
  await answered(201, alice, 'POST', `${path}/messages`, { content: 'one' });
  await answered(201, alice, 'POST', `/conversations/${other.id}/messages`, { content: 'two' });
  assert.deepEqual(await answered(200, bob, 'GET', '/unread'), { unread: 2, conversations: 2 });

  const ack = await here.does('conversation:mute', { conversation_id: conversation.number, until: LATER });
  assert.deepEqual([ack.conversation.muted, ack.conversation.muted_until], [true, LATER]);
  const muted = { conversation_id: conversation.id, muted: true, muted_until: LATER };
  for (const session of [here, there]) assert.deepEqual(await session.sees('conversation:muted'), muted);
  assert.deepEqual(await answered(200, bob, 'GET', '/unread'), { unread: 1, conversations: 1 });
  const row = async (user) =>
    (await answered(200, user, 'GET', '/conversations')).conversations.find((one) => one.id === conversation.id);
  assert.deepEqual([(await row(bob)).muted, (await row(bob)).muted_until, (await row(bob)).unread], [true, LATER, 1]);
  assert.equal((await row(alice)).muted, false);
  const joined = await there.joins(conversation);
  assert.deepEqual([joined.muted, joined.muted_until], [true, LATER]);

  await answered(200, bob, 'PUT', `${path}/mute`, {});
  await there.sees('conversation:muted', (one) => one.muted && one.muted_until === null);
  const ended = await answered(200, bob, 'DELETE', `${path}/mute`);
  assert.deepEqual([ended.muted, ended.muted_until], [false, null]);
  await here.sees('conversation:muted', (one) => !one.muted);
  assert.deepEqual(await answered(200, bob, 'GET', '/unread'), { unread: 2, conversations: 2 });
  assert.deepEqual(hers.all('conversation:muted'), []);

  for (const until of ['2020-01-01T00:00:00Z', 'tomorrow', 7]) {
    assertProblem(await rest(token(bob), 'PUT', `${path}/mute`, { until }), 400, 'invalid');
    await here.fails('invalid', 'conversation:mute', { conversation_id: conversation.id, until });
  }
});

test('a mute ends by itself', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const { id } = await direct(alice, bob);
  const until = new Date(Date.now() + 1_500).toISOString();
  await answered(200, bob, 'PUT', `/conversations/${id}/mute`, { until });
  await eventually('it is not muted', async () => !(await answered(200, bob, 'GET', `/conversations/${id}`)).muted);
  assert.ok(Date.now() >= Date.parse(until));
});

/** A connected client of a dialect that remembers every event. */
const speak = (dialect, user, gateway) => connect(user, gateway, { auth: { token: token(user), dialect }, events: 'all' });
/** What a client received about a user by events of this kind, whatever its dialect calls them. */
const about = (client, kind, user) =>
  client.seen.filter(
    ({ event, payload }) => event.includes(kind) && JSON.stringify(payload ?? null).includes(JSON.stringify(user)),
  );
const ENTRIES = {
  native: ['conversation:join', (id) => ({ conversation_id: id })],
  threads: ['conversation:join', (id) => id],
  inbox: ['join_conversation', (id) => id],
};
/** A connected client of a dialect that follows the conversation. */
async function enters(dialect, user, gateway, { id }) {
  const client = await speak(dialect, user, gateway);
  const [event, payload] = ENTRIES[dialect] ?? [dialect === 'chats' ? 'chat:join' : 'chat:typing', undefined];
  const entry = { chats: { chatId: id }, encrypted: { conversationId: id, isTyping: false } }[dialect] ?? payload(id);
  await eventually(`${user} follows the conversation`, async () => {
    const ack = await client.ask(event, entry);
    return ack?.ok || ack?.success;
  });
  return client;
}

test('neither of two users is shown the other typing once one has blocked the other, in any dialect', async () => {
  const [alice, carol] = [person('alice'), person('carol')];
  const dialects = ['native', 'encrypted', 'chats', 'threads', 'inbox'];
  const blocked = dialects.map((dialect) => person(dialect));
  const conversation = await group(alice, [carol, ...blocked]);
  const [types, control] = [await enters('native', alice, 0, conversation), await enters('native', carol, 1, conversation)];
  const clients = [];
  for (const [number, dialect] of dialects.entries()) {
    clients.push(await enters(dialect, blocked[number], number, conversation));
  }
  const typing = (is_typing) => ({ conversation_id: conversation.id, is_typing });
  await types.does('typing', typing(true));
  for (const client of clients) {
    await eventually(`${client.user} sees her type`, () => about(client, 'typing', alice).length > 0);
  }
  await types.does('typing', typing(false));
  for (const client of clients) await eventually('she ends', () => about(client, 'typing', alice).length > 1);

  // Half of them block her, she blocks the others.
  for (const [number, user] of blocked.entries()) {
    await answered(204, ...(number % 2 ? [user, 'PUT', `/blocks/${alice}`] : [alice, 'PUT', `/blocks/${user}`]));
  }
  await eventually('nobody is shown the other any more', async () => {
    for (const client of [...clients, control, types]) client.forget();
    await types.does('typing', typing(true));
    await control.sees('typing', (one) => one.user_id === alice);
    await control.does('typing', typing(true));
    for (const client of clients) await eventually('carol types', () => about(client, 'typing', carol).length > 0);
    await types.does('typing', typing(false));
    await control.does('typing', typing(false));
    return clients.every((client) => about(client, 'typing', alice).length === 0);
  });
  // Nor she them.
  types.forget();
  const [first] = clients;
  await first.does('typing', typing(true));
  await control.sees('typing', (one) => one.user_id === first.user);
  await control.does('typing', typing(true));
  await types.sees('typing', (one) => one.user_id === carol);
  assert.deepEqual(about(types, 'typing', first.user), []);
});

test('neither of two users is shown the presence of the other while one has blocked the other', async () => {
  const [alice, carol] = [person('alice'), person('carol')];
  const dialects = ['native', 'encrypted', 'chats'];
  const blocked = dialects.map((dialect) => person(dialect));
  for (const user of [carol, ...blocked]) await direct(alice, user);
  const statuses = (client) =>
    client.seen
      .filter(({ event, payload }) => /presence|status/.test(event) && [payload.user_id, payload.userId].includes(alice))
      .map(({ payload }) => payload.status);
  const clients = [];
  for (const [number, user] of [carol, ...blocked].entries()) {
    const dialect = ['chats', ...dialects][number];
    const conversation = await direct(alice, user);
    clients.push(dialect === 'native' ? await enters(dialect, user, number, conversation) : await speak(dialect, user, number));
  }
  const [control, ...others] = clients;
  const shows = (status, whom, what) =>
    Promise.all(whom.map((client) => eventually(`${client.user}: ${what}`, () => statuses(client).at(-1) === status)));
  let hers = await speak('native', alice, 1);
  await shows('online', clients, 'she comes');
  for (const [number, user] of blocked.entries()) {
    await answered(204, ...(number % 2 ? [user, 'PUT', `/blocks/${alice}`] : [alice, 'PUT', `/blocks/${user}`]));
  }
  await shows('offline', others, 'she is hidden');
  assert.equal(statuses(control).at(-1), 'online');
  for (const user of blocked) {
    assert.equal((await rest(token(user), 'GET', `/users/${alice}/presence`)).status, 404);
    const { id } = await direct(alice, carol);
    const { participants } = await answered(200, carol, 'GET', `/conversations/${id}`);
    assert.equal(participants.find((one) => one.user_id === alice).online, true);
  }
  hers.close();
  await shows('offline', [control], 'she goes');
  for (const client of clients) client.forget();
  hers = await speak('native', alice, 0);
  await shows('online', [control], 'she comes again');
  // A page that is opened later is shown nothing either.
  const later = await speak('chats', blocked[2], 0);
  for (const client of [...others, later])
    assert.deepEqual(
      statuses(client).filter((one) => one !== 'offline'),
      [],
      client.user,
    );
  for (const [number, user] of blocked.entries()) {
    await answered(204, ...(number % 2 ? [user, 'DELETE', `/blocks/${alice}`] : [alice, 'DELETE', `/blocks/${user}`]));
  }
  await shows('online', others, 'she is shown again');
});

test('blocked users write to each other by no route or event, and the one who blocks learns of it everywhere', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await direct(alice, bob);
  const path = `/conversations/${conversation.id}`;
  const [hers, other, his] = [
    await connect(alice, 0, { events: 'all' }),
    await connect(alice, 1, { events: 'all' }),
    await connect(bob, 1, { events: 'all' }),
  ];
  await his.joins(conversation);
  await hers.does('user:block', { user_id: bob });
  for (const client of [hers, other]) assert.deepEqual(await client.sees('user:blocked'), { user_id: bob, blocked: true });
  assert.deepEqual((await hers.does('user:blocks', {})).user_ids, [bob]);
  assert.deepEqual(await answered(200, alice, 'GET', '/blocks?limit=10'), { user_ids: [bob], next: null });
  for (const client of [his, hers]) {
    assertProblem(await rest(token(client.user), 'POST', `${path}/messages`, { content: 'hello?' }), 403, 'forbidden');
    await client.fails('forbidden', 'message:send', { conversation_id: conversation.id, content: 'hello?' });
  }
  const named = { title: 'Tea', participant_ids: [alice] };
  assertProblem(await rest(token(bob), 'POST', '/conversations/group', named), 403, 'forbidden');
  assert.deepEqual((await answered(200, alice, 'GET', `${path}/messages`)).messages, []);
  await hers.does('user:unblock', { user_id: bob });
  await other.sees('user:blocked', (one) => !one.blocked);
  await his.sends(conversation, 'hello again');
  assert.deepEqual(his.all('user:blocked'), []);
  await hers.fails('invalid', 'user:block', { user_id: alice });
  await hers.fails('not_found', 'user:block', { user_id: person('nobody') });
});

test('a banned user is removed in every session, and comes back by nobody before the ban ends', async () => {
  const [alice, bob, carol] = ['alice', 'bob', 'carol'].map(person);
  const conversation = await group(alice, [bob, carol]);
  const path = `/conversations/${conversation.id}`;
  const [hers, his, other] = [
    await enters('native', alice, 0, conversation),
    await connect(bob, 1, { events: 'all' }),
    await speak('chats', bob, 0),
  ];
  await his.joins(conversation);
  await his.fails('forbidden', 'member:ban', { conversation_id: conversation.id, user_id: carol });
  const { conversation: left } = await hers.does('member:ban', { conversation_id: conversation.id, user_id: bob });
  assert.deepEqual(left.participants.map((one) => one.user_id).sort(), [alice, carol].sort());
  await his.sees('conversation:removed', (one) => one.conversation_id === conversation.id);
  await other.sees('chat:removed', (one) => JSON.stringify(one).includes(conversation.id));
  await hers.sees('member:removed', (one) => one.user_id === bob);
  const { bans, next } = await answered(200, alice, 'GET', `${path}/bans`);
  assert.deepEqual([bans.length, bans[0].user_id, bans[0].banned_by, next], [1, bob, alice, null]);
  assertProblem(await rest(token(carol), 'GET', `${path}/bans`), 403, 'forbidden');
  for (const body of [{ user_id: bob }, { user_ids: [person('dave'), bob] }]) {
    const refused = await rest(token(alice), 'POST', `${path}/participants`, body);
    assertProblem(refused, 403, 'forbidden');
    assert.ok(refused.text.includes(bob), refused.text);
  }
  await his.fails('not_found', 'conversation:join', { conversation_id: conversation.id });
  await answered(200, alice, 'DELETE', `${path}/bans/${bob}`);
  await answered(201, alice, 'POST', `${path}/participants`, { user_id: bob });
  await his.sees('conversation:new', (one) => one.id === conversation.id);
  await answered(200, alice, 'PUT', `${path}/bans/${bob}`);
  assertProblem(await rest(token(bob), 'POST', `${path}/messages`, { content: 'again' }), 404, 'not_found');
});

/** How each dialect sends a text. */
const SENDS = {
  native: ['message:send', (id) => ({ conversation_id: id, content: 'hello' })],
  encrypted: ['chat:message_send', (id) => ({ conversationId: id, contentEncrypted: 'hello' })],
  chats: ['message:send', (id) => ({ chatId: id, content: 'hello', messageType: 'text' })],
  threads: ['message:send', (id) => ({ conversationId: id, content: 'hello', tempId: 't' })],
  inbox: ['send_message', (id) => ({ conversationId: id, content: 'hello' })],
};

test('in a read-only group only admins write, whatever the dialect', async () => {
  const alice = person('alice');
  const dialects = Object.keys(SENDS);
  const members = dialects.map((dialect) => person(dialect));
  const conversation = await group(alice, members);
  const path = `/conversations/${conversation.id}`;
  const hers = await enters('native', alice, 0, conversation);
  const clients = [];
  for (const [number, dialect] of dialects.entries()) {
    clients.push(await enters(dialect, members[number], number, conversation));
  }
  const changed = await answered(200, alice, 'PATCH', path, { read_only: true });
  assert.equal(changed.read_only, true);
  await hers.sees('conversation:updated', (one) => one.read_only === true);
  for (const [number, dialect] of dialects.entries()) {
    const [event, payload] = SENDS[dialect];
    const ack = await clients[number].ask(event, payload(conversation.id));
    assert.equal(ack.ok ?? ack.success, false, `${dialect}: ${JSON.stringify(ack)}`);
    assert.equal(ack.code ?? ack.error.code, 'forbidden', `${dialect}: ${JSON.stringify(ack)}`);
    assertProblem(await rest(token(members[number]), 'POST', `${path}/messages`, { content: 'hello' }), 403, 'forbidden');
    assertProblem(await rest(token(members[number]), 'PATCH', path, { read_only: false }), 403, 'forbidden');
  }
  assert.deepEqual((await answered(200, alice, 'GET', `${path}/messages`)).messages, []);
  await hers.sends(conversation, 'news');
  await answered(200, alice, 'PATCH', path, { readOnly: false });
  for (const [number, dialect] of dialects.entries()) {
    const [event, payload] = SENDS[dialect];
    const ack = await clients[number].ask(event, payload(conversation.id));
    assert.equal(ack.ok ?? ack.success, true, `${dialect}: ${JSON.stringify(ack)}`);
  }
});
