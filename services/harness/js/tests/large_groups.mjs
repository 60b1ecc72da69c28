// A group of more than a thousand: made, listed, joined, grown and left; every online member receives it, and nothing that
// anybody is sent or answered carries more than a hundred of its participants.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { closeAll, connect, eventually, gateways, listening, person, rest, token } from '../client.mjs';

after(closeAll);

const MOST = 100;
const names = (word, count) => Array.from({ length: count }, (_, i) => person(`${word}-${String(i).padStart(4, '0')}`));

/** Every list in a value, with its path. */
function* lists(value, path = '') {
  if (Array.isArray(value)) yield [path, value];
  if (value && typeof value === 'object') for (const [key, one] of Object.entries(value)) yield* lists(one, `${path}.${key}`);
}

function assertBounded(what, value) {
  for (const [path, list] of lists(value)) assert.ok(list.length <= MOST, `${what} carries ${list.length} at ${path}`);
}

/** A request that must succeed, with a bounded answer. */
async function answered(user, method, path, body, base = gateways[0]) {
  const answer = await rest(token(user), method, path, body, { base });
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text.slice(0, 300)}`);
  assertBounded(`${method} ${path}`, answer.body);
  return answer;
}

/** All participants, over REST and over the socket. */
async function everybody(client, conversation) {
  const all = [];
  let after;
  do {
    const path = `/conversations/${conversation.id}/participants?limit=${MOST}`;
    const { body } = await answered(client.user, 'GET', after ? `${path}&after=${after}` : path);
    const ask = { conversation_id: conversation.id, limit: MOST, ...(after && { after }) };
    const page = await client.does('conversation:participants', ask);
    const ids = body.participants.map((one) => one.user_id);
    assert.deepEqual(
      page.participants.map((one) => one.user_id),
      ids,
    );
    assert.equal(page.next, body.next);
    all.push(...ids);
    after = body.next;
  } while (after);
  return all;
}

const DIALECTS = {
  chats: ['chat:new', (payload) => payload.chatId],
  encrypted: ['chat:conversation_created', (payload) => payload.conversationId],
  threads: ['conversation:created', (payload) => payload.id ?? payload.conversationId],
  inbox: ['conversation_created', (payload) => payload.id ?? payload.conversationId],
};

test('a group of a thousand is made, grows, and is nowhere carried whole', async () => {
  const silent = names('silent', 970);
  const alice = await connect(person('alice'), 0, { events: 'all' });
  // Their ids are behind a hundred others.
  const online = await Promise.all(names('zoe', 20).map((user, i) => connect(user, i, { events: 'all' })));
  const others = await Promise.all(
    Object.keys(DIALECTS).map((dialect, i) => {
      const user = person(`zz-${dialect}`);
      return connect(user, i, { events: 'all', auth: { token: token(user), dialect } });
    }),
  );
  await Promise.all(online.map(listening));
  const members = [...silent, ...online.map((one) => one.user), ...others.map((one) => one.user)];
  const made = await answered(alice.user, 'POST', '/conversations/group', { title: 'All', participant_ids: members });
  const group = made.body;
  const shape = ({ participants, participant_count: count, participants_complete: whole }) => [participants.length, count, whole];
  assert.deepEqual(shape(group), [MOST, members.length + 1, false]);

  // Online members receive it, and find themselves in it.
  for (const one of online) {
    const seen = await one.sees('conversation:new', (payload) => payload.id === group.id);
    assert.deepEqual(shape(seen), [MOST, members.length + 1, false]);
    assert.ok(seen.participants.some((participant) => participant.user_id === one.user));
    assert.deepEqual([seen.unread, seen.head_seq], [0, 0]);
  }
  const events = /** @type {[string, (payload: any) => string][]} */ (Object.values(DIALECTS));
  for (const [i, [event, id]] of events.entries()) {
    await others[i].sees(event, (payload) => id(payload) === group.id);
  }
  const joined = await Promise.all([alice, ...online].map((one) => one.joins(group)));
  for (const [i, one] of joined.entries()) {
    assert.deepEqual(shape(one), [MOST, members.length + 1, false]);
    assert.ok(one.participants.some((participant) => participant.user_id === [alice, ...online][i].user));
  }
  const { body: list } = await answered(online[0].user, 'GET', '/conversations');
  assert.ok(list.conversations.some((one) => one.id === group.id && !one.participants_complete));
  assert.deepEqual(await everybody(online[3], group), [alice.user, ...members].sort());

  const message = await alice.sends(group, 'hello all');
  for (const one of online) assert.equal((await one.sees('message:new')).id, message.id);
  await others[0].sees('message:new', (payload) => payload.id === message.id);
  await others[1].sees('chat:message_received', (payload) => JSON.stringify(payload).includes(message.id));

  // It grows: in the room by changes of a hundred, for those who come by one notice.
  const late = await listening(await connect(person('zz-late'), 1, { events: 'all' }));
  const more = [...names('more', 399), late.user];
  const grown = await answered(alice.user, 'POST', `/conversations/${group.id}/participants`, { user_ids: more });
  assert.deepEqual(shape(grown.body), [MOST, members.length + more.length + 1, false]);
  const added = () => online[1].all('member:added').flatMap((payload) => payload.members.map((one) => one.user_id));
  await eventually('all additions arrive', () => added().length >= more.length);
  assert.deepEqual(added().sort(), [...more].sort());
  assert.equal((await late.sees('conversation:new', (payload) => payload.id === group.id)).unread, 0);
  await late.joins(group);
  const welcome = await alice.sends(group, 'welcome');
  assert.equal((await late.sees('message:new')).id, welcome.id);
  await others[0].sees('chat:updated', (payload) => payload.participant_count === members.length + more.length + 1);

  // Who was removed hears no more, and cannot come back.
  const gone = online[2];
  const path = `/conversations/${group.id}/participants/${gone.user}`;
  assert.equal((await rest(token(alice.user), 'DELETE', path)).status, 204);
  await gone.sees('conversation:removed', (payload) => payload.conversation_id === group.id);
  await gone.fails('not_found', 'conversation:join', { conversation_id: group.id });
  await gone.fails('not_found', 'conversation:participants', { conversation_id: group.id });
  const last = await alice.sends(group, 'without you');
  await online[4].sees('message:new', (payload) => payload.id === last.id);
  assert.ok(!gone.all('message:new').some((payload) => payload.id === last.id));

  for (const client of [alice, ...online, ...others, late]) {
    for (const { event, payload } of client.seen) assertBounded(`${event} to ${client.user}`, payload);
  }
});

test('in a large group presence is watched, and no more than that after one has left it', async () => {
  const alice = await connect(person('alice'), 0, { events: ['presence:changed'] });
  const bob = await connect(person('bob'), 1, { events: ['presence:changed'] });
  const body = { title: 'Large', participant_ids: [bob.user, ...names('silent', 300)] };
  const group = (await answered(alice.user, 'POST', '/conversations/group', body)).body;
  await Promise.all([alice, bob].map((one) => one.joins(group)));
  const watched = await alice.does('presence:subscribe', { user_ids: [bob.user] });
  assert.deepEqual(
    watched.presence.map((one) => one.user_id),
    [bob.user],
  );
  const sees = (status) => alice.sees('presence:changed', (seen) => seen.user_id === bob.user && seen.status === status);
  await bob.does('presence:set', { status: 'away' });
  await sees('away');
  // Another user goes: what is watched is watched on.
  const silent = body.participant_ids[5];
  await rest(token(alice.user), 'DELETE', `/conversations/${group.id}/participants/${silent}`);
  await bob.does('presence:set', { status: 'online' });
  await sees('online');
  alice.forget();
  await rest(token(alice.user), 'DELETE', `/conversations/${group.id}/participants/${bob.user}`);
  const again = await alice.does('presence:subscribe', { user_ids: [bob.user] });
  assert.deepEqual(again.presence, []);
  await bob.does('presence:set', { status: 'away' });
  // A change of a present user comes after it.
  const other = await connect(body.participant_ids[10], 1);
  await alice.does('presence:subscribe', { user_ids: [other.user] });
  await other.does('presence:set', { status: 'away' });
  await alice.sees('presence:changed', (seen) => seen.user_id === other.user && seen.status === 'away');
  assert.deepEqual(
    alice.all('presence:changed', (seen) => seen.user_id === bob.user),
    [],
  );
});

test('a list is as long as it was asked for, however much its participants take', async () => {
  const alice = person('alice');
  const long = names('long', 99).map((name) => name.padEnd(128, 'x'));
  for (let i = 0; i < 30; i++) {
    await answered(alice, 'POST', '/conversations/group', { title: `Group ${i}`, participant_ids: long });
  }
  const { body, text } = await answered(alice, 'GET', '/conversations?limit=30');
  assert.equal(body.conversations.length, 30);
  assert.ok(text.length > 900_000, `${text.length}`);
  assert.equal(body.next, null);
  const first = await answered(alice, 'GET', '/conversations?limit=25');
  assert.equal(first.body.conversations.length, 25);
  const rest = await answered(alice, 'GET', `/conversations?limit=25&cursor=${first.body.next}`);
  const ids = [...first.body.conversations, ...rest.body.conversations].map((one) => one.id);
  assert.deepEqual(
    ids,
    body.conversations.map((one) => one.id),
  );
});

test('a user removed from a large group while they open it receives nothing more of it', async () => {
  const alice = await connect(person('alice'), 0);
  const online = await Promise.all(names('zoe', 20).map((user, i) => connect(user, i)));
  const body = { title: 'Large', participant_ids: [...names('silent', 230), ...online.map((one) => one.user)] };
  const group = (await answered(alice.user, 'POST', '/conversations/group', body)).body;
  await alice.joins(group);
  const path = `/conversations/${group.id}/participants`;
  await Promise.all(
    online.map(async (one) => {
      const [, removed] = await Promise.all([
        one.ask('conversation:join', { conversation_id: group.id }),
        rest(token(alice.user), 'DELETE', `${path}/${one.user}`),
      ]);
      assert.equal(removed.status, 204);
    }),
  );
  const message = await alice.sends(group, 'without you');
  await alice.sees('message:new', (payload) => payload.id === message.id);
  for (const one of online) {
    await one.fails('not_found', 'conversation:join', { conversation_id: group.id });
    assert.deepEqual(one.all('message:new'), []);
  }
});
