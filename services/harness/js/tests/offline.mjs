// What was sent while a client was away: it comes unasked, in order, and once for what no session of its user got;
// to native clients until it is marked as delivered; and a client that sends its position goes on from exactly there, on any replica.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import {
  Client,
  assertGapless,
  closeAll,
  connect,
  direct,
  eventually,
  group,
  person,
  rest,
  token,
  transport,
} from '../client.mjs';
import { agreed, speak } from '../vocabulary.mjs';

after(closeAll);

const range = (count, from = 1) => Array.from({ length: count }, (_, index) => index + from);

/** Messages sent over REST, one after the other. */
async function posts(user, conversation, contents) {
  const sent = [];
  for (const content of contents) {
    const { status, body } = await rest(token(user), 'POST', `/conversations/${conversation.id}/messages`, { content });
    assert.equal(status, 201, JSON.stringify(body));
    sent.push(body);
  }
  return sent;
}

/** Resolves once everything before a further message of this conversation has come; returns that message's id. */
async function settled(client, sender, conversation, event = 'message:new') {
  const [marker] = await posts(sender, conversation, ['marker']);
  await client.sees(event, ({ id }) => id === marker.id);
  return marker.id;
}

/** How the dialects that join by themselves name a message, and say that it came or was read. */
const FOLLOWERS = {
  encrypted: {
    shown: 'chat:message_received',
    marks: (client, { id }) => agreed(client, 'chat:message_delivered', { messageId: id }),
  },
  chats: {
    shown: 'message:new',
    marks: (client, { id }, chatId) => agreed(client, 'message:read', { messageId: id, chatId }),
  },
};

for (const [dialect, { shown, marks }] of Object.entries(FOLLOWERS)) {
  const ids = (client, without = []) =>
    client
      .all(shown)
      .map(({ id }) => id)
      .filter((one) => !without.includes(one));

  test(`${dialect}: what came while away is shown at the next connect, in order and once, marked or not`, async () => {
    const [alice, bob] = [person('alice'), person('bob')];
    const conversation = await direct(alice, bob);
    const sent = await posts(alice, conversation, ['one', 'two', 'three', 'four']);
    const first = await speak(dialect, bob, 0);
    const marker = await settled(first, alice, conversation, shown);
    assert.deepEqual(
      ids(first, [marker]),
      sent.map(({ id }) => id),
    );
    await marks(first, sent[1], conversation.id);
    await first.leaves();
    const later = await posts(alice, conversation, ['five']);
    const second = await speak(dialect, bob, 1);
    const other = await settled(second, alice, conversation, shown);
    assert.deepEqual(
      ids(second, [other]),
      later.map(({ id }) => id),
    );
    await marks(second, { id: other }, conversation.id);
    second.close();
    const third = await speak(dialect, bob, 0);
    const last = await settled(third, alice, conversation, shown);
    assert.deepEqual(ids(third, [last]), []);
  });

  test(`${dialect}: nothing is missed or repeated where the past meets the present`, async () => {
    const [alice, bob] = [person('alice'), person('bob')];
    const conversation = await direct(alice, bob);
    const sender = await connect(alice, 0);
    const readers = [];
    const sending = (async () => {
      const sent = [];
      const send = async () => sent.push((await sender.sends(conversation, String(sent.length))).id);
      // Who comes when all is sent gets nothing: another session of the user got it.
      while (sent.length < 150 || readers.length < 8) await send();
      for (let more = 0; more < 20; more += 1) await send();
      return sent;
    })();
    for (const gateway of range(8, 0)) readers.push(await speak(dialect, bob, gateway));
    const sent = await sending;
    for (const reader of readers) {
      await reader.sees(shown, ({ id }) => id === sent.at(-1));
      // Later ones get what no session got before them, and then all the rest.
      const seen = ids(reader);
      assert.deepEqual(seen, sent.slice(sent.length - seen.length));
    }
    assert.equal(ids(readers[0]).length, sent.length);
  });
}

/** Resolves once it is known that the user of this client was here. */
const noticed = (client, other) =>
  eventually(`${client.user} is here`, async () => {
    const { body } = await rest(token(other), 'GET', `/users/${client.user}/presence`);
    return body.online;
  });

/** How the dialects that join by hand open a conversation and show a message. */
const JOINERS = {
  threads: { join: 'conversation:join', shown: 'message:new', id: ({ id }) => id },
  inbox: { join: 'join_conversation', shown: 'new_message', id: ({ id }) => id },
  journal: { join: 'joinRoom', shown: 'receiveMessage', id: (message) => message.content },
};

for (const [dialect, { join, shown, id }] of Object.entries(JOINERS)) {
  test(`${dialect}: what came while away is shown when the conversation is opened again`, async () => {
    const [alice, bob, carol] = [person('alice'), person('bob'), person('carol')];
    const conversation = await group(alice, [bob, carol]);
    const name = (message) => (dialect === 'journal' ? message.content : message.id);
    const first = await speak(dialect, bob, 0);
    await agreed(first, join, conversation.id);
    const [live] = (await posts(alice, conversation, ['live'])).map(name);
    await first.sees(shown, (message) => id(message) === live);
    await noticed(first, alice);
    await first.leaves();
    const missed = (await posts(alice, conversation, ['one', 'two', 'three'])).map(name);
    const second = await speak(dialect, bob, 1);
    await agreed(second, join, conversation.id);
    const [after] = (await posts(alice, conversation, ['after'])).map(name);
    await second.sees(shown, (message) => id(message) === after);
    const seen = second.all(shown).map(id);
    // What was shown just before the connection went may come again, with the id it had.
    assert.deepEqual(
      seen.filter((one) => one !== live),
      [...missed, after],
    );
    assert.ok(seen.indexOf(live) <= 0, JSON.stringify(seen));
    // Who opens a conversation for the first time reads its history.
    const newcomer = await speak(dialect, carol, 1);
    await agreed(newcomer, join, conversation.id);
    const [now] = (await posts(alice, conversation, ['now'])).map(name);
    await newcomer.sees(shown, (message) => id(message) === now);
    assert.deepEqual(newcomer.all(shown).map(id), [now]);
  });
}

test('the outcome of own messages while away is emitted to those that are emitted messages', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await direct(alice, bob);
  const writers = { encrypted: await speak('encrypted', alice, 0), chats: await speak('chats', alice, 0) };
  const [one, two] = await posts(alice, conversation, ['one', 'two']);
  await writers.chats.sees('message:new', ({ id }) => id === two.id);
  await noticed(writers.chats, bob);
  for (const writer of Object.values(writers)) writer.close();
  const reader = await connect(bob, 1);
  await reader.does('receipt:read', { conversation_id: conversation.id, up_to_seq: one.seq });
  await reader.does('receipt:delivered', { conversation_id: conversation.id, up_to_seq: two.seq });
  const status =
    (message, what) =>
    ({ messageId, status }) =>
      messageId === message.id && status === what;
  const encrypted = await speak('encrypted', alice, 1);
  await encrypted.sees('chat:message_status_updated', status(one, 'read'));
  await encrypted.sees('chat:message_status_updated', status(two, 'delivered'));
  const chats = await speak('chats', alice, 0);
  await chats.sees('message:read', ({ messageId, userId }) => messageId === one.id && userId === bob);
  assert.deepEqual(
    chats.all('message:read', ({ messageId }) => messageId === two.id),
    [],
  );
});

test('a long absence is shown in paces, the latest thousand of each conversation', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await direct(alice, bob);
  const sender = await connect(alice, 0);
  const sent = await Promise.all(range(1_200).map((n) => sender.sends(conversation, String(n))));
  const reader = await speak('chats', bob, 1);
  const last = sent.find(({ seq }) => seq === 1_200);
  await reader.sees('message:new', ({ id }) => id === last.id, 60_000);
  const shown = reader.all('message:new').map(({ id }) => id);
  const expected = sent.sort((one, other) => one.seq - other.seq).slice(200);
  assert.deepEqual(
    shown,
    expected.map(({ id }) => id),
  );
});

test('edits and deletions of the time away are shown too, and what was deleted does not appear', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await direct(alice, bob);
  const seen = await speak('chats', bob, 0);
  const [old] = await posts(alice, conversation, ['old']);
  await seen.sees('message:new', ({ id }) => id === old.id);
  await agreed(seen, 'message:read', { messageId: old.id, chatId: conversation.id });
  await seen.leaves();
  const [kept, gone] = await posts(alice, conversation, ['kept', 'gone']);
  const jwt = token(alice);
  await rest(jwt, 'PATCH', `/conversations/${conversation.id}/messages/${old.id}`, { content: 'older' });
  await rest(jwt, 'DELETE', `/conversations/${conversation.id}/messages/${gone.id}`);
  const back = await speak('chats', bob, 1);
  await back.sees('message:edited', ({ id, content }) => id === old.id && content === 'older');
  const marker = await settled(back, alice, conversation);
  assert.deepEqual(
    back.all('message:new').map(({ id }) => id),
    [kept.id, marker],
  );
});

test('a user added to a group with a past is emitted only what follows', async () => {
  const [alice, bob, carol] = ['alice', 'bob', 'carol'].map(person);
  const conversation = await group(alice, [bob]);
  await posts(alice, conversation, ['before']);
  const here = await speak('chats', carol, 1);
  const added = await rest(token(alice), 'POST', `/conversations/${conversation.id}/participants`, { user_id: carol });
  assert.ok(added.status < 300, added.text);
  const [now] = await posts(alice, conversation, ['now']);
  await here.sees('message:new', ({ id }) => id === now.id);
  assert.equal(here.all('message:new').length, 1);
  here.close();
  const again = await speak('chats', carol, 0);
  const marker = await settled(again, alice, conversation);
  assert.deepEqual(
    again.all('message:new').map(({ id }) => id),
    [marker],
  );
});

const since = (user, gateway, positions, options) =>
  connect(user, gateway, { auth: { token: token(user), dialect: 'native', since: positions }, events: 'all', ...options });

test('a client that sends its position goes on from there: own messages, edits, receipts, then live', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await direct(alice, bob);
  const before = await connect(bob, 0);
  const { epoch } = await before.joins(conversation);
  const [one, two] = await posts(alice, conversation, ['one', 'two']);
  await before.sees('message:new', ({ id }) => id === two.id);
  await before.leaves();
  await posts(bob, conversation, ['from elsewhere']);
  await rest(token(alice), 'PATCH', `/conversations/${conversation.id}/messages/${one.id}`, { content: 'uno' });
  const reader = await connect(alice, 1);
  await reader.does('receipt:read', { conversation_id: conversation.id, up_to_seq: 3 });
  const back = await since(bob, 1, { [conversation.id]: { epoch, seq: two.seq, receipts_version: 0 } });
  const receipt = await back.sees('receipt:updated', ({ user_id: user }) => user === alice);
  assert.ok(receipt.up_to_seq >= 3, JSON.stringify(receipt));
  await reader.sends(conversation, 'live');
  await back.sees('message:new', ({ content }) => content === 'live');
  const told = back.seen
    .filter(({ event }) => event.startsWith('message:'))
    .map(({ event, payload }) => [event, payload.content]);
  assert.deepEqual(told, [
    ['message:new', 'from elsewhere'],
    ['message:edited', 'uno'],
    ['message:new', 'live'],
  ]);
});

for (const [what, position] of [
  ['of another life of the database', { epoch: randomUUID(), seq: 1 }],
  ['ahead of the database', { seq: 99 }],
]) {
  test(`a position ${what} is answered with resync, and what follows is emitted`, async () => {
    const [alice, bob] = [person('alice'), person('bob')];
    const conversation = await direct(alice, bob);
    await posts(alice, conversation, ['one']);
    const client = await since(bob, 0, { [conversation.id]: position });
    const told = await client.sees('resync', ({ conversation_id: id }) => id === conversation.id);
    assert.equal(told.head_seq, 1);
    const [next] = await posts(alice, conversation, ['next']);
    await client.sees('message:new', ({ id }) => id === next.id);
    assert.equal(client.all('message:new').length, 1);
  });
}

test('a void position shows the latest where the dialect has no event for it', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await direct(alice, bob);
  const [one] = await posts(alice, conversation, ['one']);
  const auth = { token: token(bob), dialect: 'chats', since: { [conversation.id]: { epoch: randomUUID(), seq: 1 } } };
  const client = await connect(bob, 1, { auth, events: 'all' });
  const marker = await settled(client, alice, conversation);
  assert.deepEqual(
    client.all('message:new').map(({ id }) => id),
    [one.id, marker],
  );
});

test('positions of conversations one is not in show nothing, and a malformed list is refused', async () => {
  const [alice, bob, mallory] = ['alice', 'bob', 'mallory'].map(person);
  const conversation = await direct(alice, bob);
  await posts(alice, conversation, ['secret']);
  const stranger = await since(mallory, 0, { [conversation.id]: { seq: 0 }, [randomUUID()]: { seq: 0 } });
  await posts(alice, conversation, ['more']);
  const own = await direct(mallory, alice);
  await stranger.joins(own);
  await posts(alice, own, ['for you']);
  await stranger.sees('message:new', ({ content }) => content === 'for you');
  assert.ok(!JSON.stringify(stranger.seen).includes(conversation.id), JSON.stringify(stranger.seen));
  const refused = new Client(mallory, 0, { auth: { token: token(mallory), dialect: 'native', since: { nonsense: 1 } } });
  assert.match(await refused.refused(), /./);
});

test('a native client that says nothing is shown what was never marked as delivered, and no more', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await direct(alice, bob);
  const sent = await posts(alice, conversation, ['one', 'two']);
  const silent = { auth: { token: token(bob), dialect: 'native' } };
  const first = await connect(bob, 0, silent);
  await first.sees('message:new', ({ id }) => id === sent[1].id);
  await first.does('receipt:delivered', { conversation_id: conversation.id, up_to_seq: 1 });
  first.close();
  const second = await connect(bob, 1, silent);
  await second.sees('message:new', ({ id }) => id === sent[1].id);
  await second.joins(conversation);
  await settled(second, alice, conversation);
  assert.deepEqual(
    second.all('message:new').map(({ seq }) => seq),
    [2, 3],
  );
});

test('sync brings changes and receipts after a position, over socket and REST alike', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await direct(alice, bob);
  const client = await connect(bob, 0);
  const { epoch } = await client.joins(conversation);
  const sent = await posts(alice, conversation, ['one', 'two', 'three']);
  await client.does('receipt:read', { conversation_id: conversation.id, up_to_seq: 2 });
  const conversations = { [conversation.id]: { epoch, seq: 1, receipts_version: 0 }, [randomUUID()]: { seq: 0 } };
  const { ok, ...answer } = await client.does('sync', { conversations });
  assert.equal(ok, true);
  const page = answer.conversations[conversation.id];
  assert.deepEqual(
    page.events.map(({ seq }) => seq),
    [2, 3],
  );
  assert.deepEqual([page.complete, page.resync, page.head_seq], [true, false, 3]);
  assert.deepEqual(
    page.receipts.map(({ user_id: user, up_to_seq: to }) => [user, to]),
    [[bob, 2]],
  );
  assert.equal(Object.keys(answer.conversations).length, 1);
  const { status, body } = await client.rest('POST', '/sync', { conversations });
  assert.equal(status, 200);
  assert.deepEqual(body, answer);
  const known = { [conversation.id]: { epoch, seq: 3, receipts_version: page.receipts_version } };
  const { conversations: nothing } = await client.does('sync', { conversations: known });
  assert.deepEqual([nothing[conversation.id].events, nothing[conversation.id].receipts], [[], []]);
  const other = await client.does('sync', { conversations: { [conversation.id]: { epoch: randomUUID(), seq: 3 } } });
  assert.equal(other.conversations[conversation.id].resync, true);
  assertGapless(
    sent.map(({ seq }) => seq),
    1,
  );
});

if (transport === 'websocket') {
  test('a thousand conversations are caught up in one round trip', { timeout: 120_000 }, async () => {
    const alice = person('alice');
    const conversations = [];
    for (let done = 0; done < 1_000; done += 8) {
      const made = await Promise.all(range(8).map(() => direct(alice, person('other'))));
      conversations.push(...made);
    }
    const busy = conversations.filter((_, index) => index % 5 === 0);
    // More of one user's requests at once wait for each other, and not for ever.
    for (let done = 0; done < busy.length; done += 8) {
      await Promise.all(busy.slice(done, done + 8).map((conversation) => posts(alice, conversation, ['hello'])));
    }
    const client = await connect(alice, 0);
    const positions = Object.fromEntries(conversations.map(({ id, epoch }) => [id, { epoch, seq: 0 }]));
    const begun = performance.now();
    const answer = await client.does('sync', { conversations: positions });
    console.log(`1,000 conversations with 200 changes in ${Math.round(performance.now() - begun)} ms`);
    const pages = Object.values(answer.conversations);
    assert.equal(pages.length, 1_000);
    assert.ok(pages.every(({ complete }) => complete));
    assert.equal(pages.filter(({ events }) => events.length === 1).length, busy.length);
  });
}
