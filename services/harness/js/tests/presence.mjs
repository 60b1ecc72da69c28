// Presence, as every front end with an event for it receives it. The gateways take groups of more than four for large.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { assertProblem, closeAll, direct, eventually, group, person, rest, token } from '../client.mjs';
import { agreed, holds, says, speak } from '../vocabulary.mjs';

after(closeAll);

const OFFLINE_MS = 20_000;
const WORDS = {
  native: { event: 'presence:changed', of: (payload) => payload.user_id },
  encrypted: { event: 'user:status_changed', of: (payload) => payload.userId },
  chats: { event: 'user:status', of: (payload) => payload.userId },
};

/** What a client received of a user, in order. */
const heard = (client, user) => {
  const words = Object.values(WORDS);
  const about = client.seen.filter(({ event, payload }) =>
    words.some((word) => word.event === event && word.of(payload) === user),
  );
  return about.map(({ payload }) => payload.status);
};
const hears = (client, user, status, ms) =>
  eventually(`${client.user} hears that ${user} is ${status}`, () => heard(client, user).at(-1) === status, ms);
/** How `viewer` sees a user over REST; waits until it is so. */
const seen = async (viewer, user, status) => {
  const { body } = await eventually(
    `${user} is ${status} for ${viewer}`,
    async () => {
      const answer = await rest(token(viewer), 'GET', `/users/${encodeURIComponent(user)}/presence`);
      return answer.body?.status === status && answer;
    },
    OFFLINE_MS,
  );
  return body;
};
/** Connected, and known to be. */
async function comes(dialect, user, viewer, gateway) {
  const client = await speak(dialect, user, gateway);
  await seen(viewer, user, 'online');
  return client;
}

test('S1.s1 S2.s2 S1.b6 S2.b2: each front end receives presence in its own dialect, and others receive nothing', async () => {
  const [alice, stranger] = [person('alice'), person('stranger')];
  const viewers = {};
  for (const [number, dialect] of ['native', 'encrypted', 'chats', 'threads', 'inbox', 'journal'].entries()) {
    const user = person(dialect);
    const { id } = await direct(alice, user);
    viewers[dialect] = await speak(dialect, user, number);
    if (dialect === 'native') await viewers.native.joins({ id });
  }
  const outsider = await speak('chats', stranger, 1);
  const client = await speak('native', alice, 0);
  for (const dialect of Object.keys(WORDS)) await hears(viewers[dialect], alice, 'online');
  client.close();
  for (const dialect of Object.keys(WORDS)) await hears(viewers[dialect], alice, 'offline', OFFLINE_MS);
  const last = (dialect) => viewers[dialect].all(WORDS[dialect].event, (one) => WORDS[dialect].of(one) === alice).at(-1);
  assert.deepEqual(last('chats'), { userId: alice, status: 'offline' });
  const { timestamp, ...changed } = last('encrypted');
  assert.deepEqual(changed, { userId: alice, status: 'offline' });
  assert.ok(Math.abs(Date.parse(timestamp) - Date.now()) < OFFLINE_MS);
  holds(last('native'), { user_id: alice, status: 'offline', online: false });
  assert.ok(Math.abs(Date.parse(last('native').last_seen_at) - Date.now()) < OFFLINE_MS);
  for (const dialect of ['threads', 'inbox', 'journal']) assert.deepEqual(heard(viewers[dialect], alice), [], dialect);
  assert.deepEqual(heard(outsider, alice), []);
  assert.deepEqual(heard(viewers.chats, viewers.native.user), [], 'who shares nothing but a friend');
});

test('S2.b1: a client that connects receives the presence of the others, and they receive its own', async () => {
  const [alice, bob, carol] = ['alice', 'bob', 'carol'].map(person);
  await direct(alice, bob);
  const conversation = await group(alice, [bob, carol]);
  const first = await comes('chats', alice, bob);
  for (const dialect of ['chats', 'encrypted']) {
    const client = await speak(dialect, bob, 1);
    await hears(client, alice, 'online');
    await hears(client, carol, 'offline');
    assert.deepEqual(heard(client, bob), [], 'no user is notified of themselves');
  }
  await hears(first, bob, 'online');
  const again = await speak('chats', bob, 0);
  await hears(again, alice, 'online');
  again.forget();
  await agreed(again, 'chat:join', { chatId: conversation.id });
  await hears(again, alice, 'online');
  await hears(again, carol, 'offline');
  const native = await speak('native', carol, 1);
  const { presence, conversation: joined } = await native.does('conversation:join', { conversation_id: conversation.id });
  const statuses = Object.fromEntries(presence.map((one) => [one.user_id, one.status]));
  assert.deepEqual(statuses[alice], 'online');
  assert.equal(joined.participants.find((one) => one.user_id === alice).online, true);
});

test('newcomers of a conversation and those in it see each other', async () => {
  const [alice, bob, carol] = ['alice', 'bob', 'carol'].map(person);
  const conversation = await group(alice, [bob]);
  const clients = await Promise.all([alice, carol].map((user, gateway) => speak('chats', user, gateway)));
  await hears(clients[0], bob, 'offline');
  const added = await rest(token(alice), 'POST', `/conversations/${conversation.id}/participants`, { user_id: carol });
  assert.equal(added.status, 201);
  await hears(clients[1], alice, 'online');
  await hears(clients[0], carol, 'online');
});

test('several devices are one user', async () => {
  const [alice, bob] = ['alice', 'bob'].map(person);
  await direct(alice, bob);
  const viewer = await speak('chats', bob, 0);
  const devices = [await speak('native', alice, 0), await speak('native', alice, 1)];
  await hears(viewer, alice, 'online');
  devices[0].close();
  await devices[1].does('presence:set', { status: 'offline' });
  // The grace of the closed one is over when this is emitted.
  await hears(viewer, alice, 'offline', OFFLINE_MS);
  await devices[1].does('presence:set', { status: 'online' });
  await hears(viewer, alice, 'online');
  assert.deepEqual(heard(viewer, alice).slice(-3), ['online', 'offline', 'online']);
});

test('S1.c1 S1.c2: an explicit offline is emitted at once, only where no other device is online', async () => {
  const [alice, bob] = ['alice', 'bob'].map(person);
  const conversation = await direct(alice, bob);
  const viewers = [await speak('chats', bob, 0), await speak('native', bob, 1)];
  await viewers[1].joins(conversation);
  const desk = await speak('encrypted', alice, 1);
  for (const viewer of viewers) await hears(viewer, alice, 'online');
  // Only now it is sure that this device is known when the other one hides.
  const phone = await speak('encrypted', alice, 0);
  for (const viewer of viewers) viewer.forget();
  await agreed(phone, 'presence:offline');
  await agreed(desk, 'presence:offline');
  for (const viewer of viewers) await hears(viewer, alice, 'offline', 10_000);
  const { last_seen_at } = await seen(bob, alice, 'offline');
  assert.ok(Date.parse(last_seen_at) <= Date.now() + 5_000);
  await agreed(phone, 'presence:online');
  for (const viewer of viewers) await hears(viewer, alice, 'online');
  await agreed(phone, 'presence:offline');
  for (const viewer of viewers) await hears(viewer, alice, 'offline', 10_000);
  for (const viewer of viewers) assert.deepEqual(heard(viewer, alice), ['offline', 'online', 'offline']);
});

test('away is a status of its own where there is a word for it, else online', async () => {
  const [alice, bob] = ['alice', 'bob'].map(person);
  const conversation = await direct(alice, bob);
  const [native, chats] = [await speak('native', bob, 0), await speak('chats', bob, 1)];
  await native.joins(conversation);
  const client = await speak('native', alice, 0);
  await hears(native, alice, 'online');
  await client.does('presence:set', { status: 'away' });
  await hears(native, alice, 'away');
  holds(native.all('presence:changed').at(-1), { status: 'away', online: true });
  await client.does('presence:set', { status: 'offline' });
  await hears(chats, alice, 'offline');
  assert.deepEqual(heard(chats, alice).slice(-2), ['online', 'offline']);
  await client.fails('invalid', 'presence:set', { status: 'asleep' });
});

test('a quick reconnect is not seen', async () => {
  const [alice, bob, carol] = ['alice', 'bob', 'carol'].map(person);
  await direct(alice, bob);
  await direct(carol, bob);
  const viewer = await speak('chats', bob, 0);
  const client = await speak('native', alice, 0);
  const other = await speak('native', carol, 0);
  await hears(viewer, alice, 'online');
  await hears(viewer, carol, 'online');
  viewer.forget();
  client.close();
  await speak('native', alice, 1);
  other.close();
  // The absence of a user who left after that is emitted: the time in which the other would have been is over.
  await hears(viewer, carol, 'offline', OFFLINE_MS);
  await seen(bob, alice, 'online');
  assert.deepEqual(heard(viewer, alice), []);
});

test('S2.t1 S4.t1 S4.t2: REST shows those one shares a conversation with', async () => {
  const [alice, bob, mallory] = ['alice', 'bob', 'mallory'].map(person);
  const conversation = await direct(alice, bob);
  const client = await comes('inbox', alice, bob);
  const { body } = await rest(token(bob), 'GET', `/presence?user_ids=${[alice, mallory, bob].join(',')}`);
  assert.deepEqual(
    new Set(body.presence.map((one) => `${one.user_id} ${one.online}`)),
    new Set([`${alice} true`, `${bob} false`]),
  );
  assertProblem(await rest(token(mallory), 'GET', `/users/${alice}/presence`), 404, 'not_found');
  assertProblem(await rest(token(bob), 'GET', `/users/${person('nobody')}/presence`), 404, 'not_found');
  assertProblem(await rest(token(bob), 'GET', '/presence'), 400, 'invalid');
  const shown = async () => {
    const page = await rest(token(bob), 'GET', '/conversations');
    const listed = page.body.conversations.find((one) => one.id === conversation.id);
    return listed.participants.find((one) => one.user_id === alice);
  };
  assert.equal((await shown()).online, true);
  client.close();
  const { last_seen_at } = await seen(bob, alice, 'offline');
  assert.ok(Math.abs(Date.parse(last_seen_at) - Date.now()) < OFFLINE_MS);
  holds(await shown(), { online: false, last_seen_at });
});

test('a large group reports the users that are subscribed to, as long as they share it', async () => {
  const [alice, bob, ...more] = ['alice', 'bob', 'carol', 'dora', 'eve'].map(person);
  const conversation = await group(alice, [bob, ...more]);
  const chats = await speak('chats', more[0], 0);
  const viewer = await speak('native', bob, 1);
  assert.equal((await viewer.does('conversation:join', { conversation_id: conversation.id })).presence, undefined);
  const asked = await viewer.does('presence:subscribe', { user_ids: [alice, person('stranger')] });
  assert.deepEqual(
    asked.presence.map((one) => `${one.user_id} ${one.status}`),
    [`${alice} offline`],
  );
  const client = await speak('native', alice, 0);
  await hears(viewer, alice, 'online');
  await viewer.does('presence:unsubscribe', { user_ids: [alice] });
  await client.does('presence:set', { status: 'away' });
  await seen(bob, alice, 'away');
  await viewer.does('presence:subscribe', { user_ids: [alice] });
  await client.does('presence:set', { status: 'online' });
  await eventually('the change after subscribing again', () => heard(viewer, alice).length >= 2);
  assert.deepEqual(heard(viewer, alice), ['online', 'online'], 'away came while not subscribed');
  await client.rest('DELETE', `/conversations/${conversation.id}/participants/${bob}`);
  await viewer.sees('conversation:removed');
  await client.does('presence:set', { status: 'away' });
  await seen(more[0], alice, 'away');
  await viewer.does('presence:set', { status: 'online' });
  assert.equal(heard(viewer, alice).length, 2, 'who was removed hears nothing more');
  assert.deepEqual(heard(chats, alice), []);
});

test('what a client says of its presence is answered', async () => {
  const client = await speak('native', person('alice'), 0);
  await client.fails('invalid', 'presence:subscribe', { user_ids: 'all' });
  await client.fails('too_large', 'presence:subscribe', { user_ids: Array.from({ length: 501 }, (_, n) => `u${n}`) });
  await client.does('presence', { online: false });
  says(client, 'presence:set', { status: 1 });
  await client.sees('error', (error) => error.event === 'presence:set');
});
