// Following a conversation: join, leave, typing, news of conversations, and catching up.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import { assertGapless, closeAll, connect, direct, eventually, group, listening, person, rest, token } from '../client.mjs';

after(closeAll);

const about = (conversation) => (payload) => payload.conversation_id === conversation.id;
const seqs = (messages) => messages.map((message) => message.seq);

async function pair() {
  const users = [person('alice'), person('bob')];
  const conversation = await direct(...users);
  const clients = await Promise.all(users.map((user, i) => connect(user, i)));
  return { conversation, alice: clients[0], bob: clients[1] };
}

/** Sends until stopped; resolves with everything acknowledged. */
function flow(client, conversation, rest = 0) {
  let flowing = true;
  const all = (async () => {
    const sent = [];
    for (let i = 0; flowing; i++) {
      sent.push(await client.sends(conversation, `flow ${i}`));
      if (rest) await new Promise((resolve) => setImmediate(resolve));
    }
    return sent;
  })();
  const stop = () => {
    flowing = false;
    return all;
  };
  return { all, stop };
}

/** Without what changes by itself: the presence of participants, and the seq after which events follow. */
const unseen = ({ participants, head_seq: _, ...conversation }) => ({
  ...conversation,
  participants: participants.map(({ online, last_seen_at, ...one }) => one),
});

test('a join answers with the conversation as REST shows it', async () => {
  const { conversation, alice, bob } = await pair();
  await bob.sends(conversation, 'hello');
  const joined = await alice.joins(conversation);
  const { body } = await alice.rest('GET', `/conversations/${conversation.id}`);
  assert.deepEqual(unseen(joined), unseen(body));
  assert.deepEqual([joined.unread, joined.last_message.content], [1, 'hello']);
  // What the server took the client to have when it attached it; events after this seq follow.
  assert.ok(joined.head_seq <= body.head_seq, `${joined.head_seq}`);
  assert.deepEqual(unseen(await alice.joins(conversation)), unseen(joined), 'joining again changes nothing');
  const message = await bob.sends(conversation, 'once');
  const fence = await bob.sends(conversation, 'fence');
  await alice.sees('message:new', (one) => one.id === fence.id);
  const seqs = alice.all('message:new').map((one) => one.seq);
  const expected = [1, message.seq, fence.seq].filter((seq) => seq > joined.head_seq);
  assert.deepEqual(seqs, expected, 'joined twice, emitted once');
});

test('a client that joins while messages flow receives each of them once', async () => {
  const { conversation, alice } = await pair();
  await alice.joins(conversation);
  const stream = flow(alice, conversation);
  const bob = conversation.participants.map((one) => one.user_id).find((id) => id !== alice.user);
  const readers = [];
  for (let round = 0; round < 12; round++) {
    const reader = await connect(bob, round);
    const { head_seq } = await reader.joins(conversation);
    readers.push([reader, head_seq]);
    await reader.sees('message:new', (one) => one.seq >= head_seq + 10);
  }
  const last = (await stream.stop()).at(-1);
  for (const [reader, head_seq] of readers) {
    await reader.sees('message:new', (one) => one.seq === last.seq);
    assertGapless(seqs(reader.all('message:new')), head_seq + 1);
  }
});

test('leaving silences a conversation except for the news that it moved on', async () => {
  const { conversation, alice, bob } = await pair();
  await Promise.all([alice.joins(conversation), bob.joins(conversation)]);
  const heard = await alice.sends(conversation, 'heard');
  await bob.sees('message:new', (one) => one.id === heard.id);
  await bob.does('conversation:leave', { conversation_id: conversation.id });
  await bob.does('conversation:leave', { conversation_id: conversation.id });
  bob.forget();
  const unheard = await alice.sends(conversation, 'unheard');
  await alice.does('message:edit', { conversation_id: conversation.id, message_id: heard.id, content: 'changed' });
  await alice.does('typing', { conversation_id: conversation.id, is_typing: true });
  const fence = await alice.sends(conversation, 'fence');
  const news = await bob.sees('conversation:updated', (one) => one.head_seq === fence.seq);
  assert.deepEqual(Object.keys(news).sort(), ['conversation_id', 'head_seq', 'last_message', 'unread', 'updated_at']);
  assert.deepEqual(news.last_message, fence);
  assert.deepEqual(
    bob.seen.map(({ event }) => event).filter((event) => event !== 'conversation:updated'),
    [],
  );
  assert.deepEqual(
    bob.all('conversation:updated').map((one) => one.head_seq),
    [unheard.seq, fence.seq],
  );
  const joined = await bob.joins(conversation);
  const next = await alice.sends(conversation, 'heard again');
  assert.equal(joined.head_seq, next.seq - 1);
  await bob.sees('message:new', (one) => one.id === next.id);
});

test('a conversation that was never joined shows its news unasked on every device', async () => {
  const { conversation, alice, bob } = await pair();
  const phone = await connect(bob.user, 0);
  await alice.joins(conversation);
  await eventually('bob is notified', async () => {
    await alice.sends(conversation, 'psst');
    return (
      bob.all('conversation:updated', about(conversation)).length > 0 &&
      phone.all('conversation:updated', about(conversation)).length > 0
    );
  });
  assert.deepEqual(bob.all('message:new'), []);
  const message = await alice.sends(conversation, 'once more');
  const news = await bob.sees('conversation:updated', (one) => one.head_seq === message.seq);
  assert.deepEqual(news.last_message, message);
  for (const client of [bob, phone]) {
    await client.sees('conversation:updated', (one) => one.head_seq === message.seq);
    const heads = client.all('conversation:updated').map((one) => one.head_seq);
    assertGapless(heads);
  }
});

test('a new conversation is announced to every session of every participant', async () => {
  const users = ['alice', 'bob', 'carol'].map(person);
  const clients = await Promise.all([connect(users[0], 0), connect(users[1], 1), connect(users[1], 0), connect(users[2], 1)]);
  await Promise.all(clients.map(listening));
  const created = await group(users[0], [users[1], users[2]], 'Surprise');
  for (const client of clients) {
    const news = await client.sees('conversation:new', (one) => one.id === created.id);
    assert.deepEqual([news.title, news.kind, news.participants.length], ['Surprise', 'group', 3]);
    assert.deepEqual(Object.keys(news).sort(), Object.keys(created).sort());
  }
  const bob = clients[1];
  await bob.joins(created);
  const message = await clients[0].sends(created, 'hi all');
  await bob.sees('message:new', (one) => one.id === message.id);
  for (const client of clients) assert.equal(client.all('conversation:new', (one) => one.id === created.id).length, 1);
});

test('creating a direct conversation again announces nothing', async () => {
  const { conversation, alice, bob } = await pair();
  await listening(alice);
  await direct(alice.user, bob.user);
  const marker = await direct(alice.user, person('marker'));
  await alice.sees('conversation:new', (one) => one.id === marker.id);
  assert.deepEqual(
    alice.all('conversation:new', (one) => one.id === conversation.id),
    [],
  );
});

test('typing is emitted to the others who joined and never to oneself', async () => {
  const users = ['alice', 'bob', 'carol'].map(person);
  const conversation = await group(users[0], users.slice(1));
  const [alice, tablet, bob, carol] = await Promise.all([
    connect(users[0], 0),
    connect(users[0], 1),
    connect(users[1], 1),
    connect(users[2], 0),
  ]);
  await Promise.all([alice, tablet, bob].map((client) => client.joins(conversation)));
  for (const is_typing of [true, false]) {
    await alice.does('typing', { conversation_id: conversation.id, is_typing });
    const told = await bob.sees('typing', (one) => one.is_typing === is_typing);
    assert.deepEqual(told, { conversation_id: conversation.id, user_id: users[0], username: users[0], is_typing });
  }
  await bob.does('typing', { conversation_id: conversation.id, is_typing: true });
  for (const client of [alice, tablet]) await client.sees('typing', (one) => one.user_id === users[1]);
  for (const client of [alice, tablet])
    assert.deepEqual(
      client.all('typing', (one) => one.user_id === users[0]),
      [],
    );
  assert.deepEqual([...carol.all('typing'), ...bob.all('typing', (one) => one.user_id === users[1])], []);
});

test('after a disconnect a sync brings exactly the events of the gap, edits and deletions included', async () => {
  const { conversation, alice, bob } = await pair();
  await Promise.all([alice.joins(conversation), bob.joins(conversation)]);
  const kept = await alice.sends(conversation, 'kept');
  const doomed = await alice.sends(conversation, 'doomed');
  await bob.sees('message:new', (one) => one.id === doomed.id);
  bob.close();
  const missed = await alice.sends(conversation, 'missed');
  const about = (message) => ({ conversation_id: conversation.id, message_id: message.id });
  const { message: edited } = await alice.does('message:edit', { ...about(kept), content: 'changed' });
  const { message: deleted } = await alice.does('message:delete', about(doomed));
  const last = await alice.sends(conversation, 'last');

  const back = await connect(bob.user, 1);
  const answer = await back.does('sync', {
    conversations: { [conversation.id]: { epoch: conversation.epoch, seq: 2 } },
  });
  assert.deepEqual(Object.keys(answer).sort(), ['conversations', 'ok']);
  const page = answer.conversations[conversation.id];
  assert.deepEqual(Object.keys(page).sort(), ['complete', 'epoch', 'events', 'head_seq', 'next', 'resync']);
  assert.deepEqual(
    [page.complete, page.resync, page.next, page.head_seq, page.epoch],
    [true, false, null, 6, conversation.epoch],
  );
  assert.deepEqual(
    page.events.map(({ seq, type, message }) => [seq, type, message]),
    [
      [3, 'message:new', missed],
      [4, 'message:edited', edited],
      [5, 'message:deleted', deleted],
      [6, 'message:new', last],
    ],
  );
  const events = await back.rest('GET', `/conversations/${conversation.id}/events?after=2`);
  assert.deepEqual(events.body.events, page.events, 'REST shows the same');
  const nothing = await back.does('sync', {
    conversations: { [conversation.id]: { epoch: conversation.epoch, seq: 6 } },
  });
  assert.deepEqual([nothing.conversations[conversation.id].events, nothing.conversations[conversation.id].complete], [[], true]);
});

test('a sync is paged, and its pages meet without gap or duplicate', async () => {
  const { conversation, alice, bob } = await pair();
  const all = Array.from({ length: 2300 }, (_, i) => alice.sends(conversation, `${i}`));
  await Promise.all(all);
  const got = [];
  let pages = 0;
  for (let seq = 0; seq !== null; pages++) {
    const { conversations } = await bob.does('sync', {
      conversations: { [conversation.id]: { epoch: conversation.epoch, seq } },
    });
    const page = conversations[conversation.id];
    assert.ok(page.events.length > 0);
    got.push(...page.events.map((event) => event.seq));
    assert.equal(page.complete, page.next === null);
    seq = page.next;
  }
  assert.equal(got.length, 2300);
  assertGapless(got, 1);
  assert.ok(pages > 1, 'one answer would be too large');
});

test('a sync of many conversations answers each, whole or with where to go on', async () => {
  const alice = person('alice');
  const client = await connect(alice, 0);
  const made = [];
  for (let i = 0; i < 20; i++) {
    const conversation = await direct(alice, person(`p${i}`));
    await Promise.all(Array.from({ length: i }, () => client.sends(conversation, 'x')));
    made.push(conversation);
  }
  const positions = Object.fromEntries(made.map((one) => [one.id, { epoch: one.epoch, seq: 0 }]));
  const { conversations } = await client.does('sync', { conversations: positions });
  made.forEach((one, i) => assert.equal(conversations[one.id].events.length, i));
  const { conversations: none } = await client.does('sync', { conversations: {} });
  assert.deepEqual(none, {});
});

test('a sync with an epoch of another life of the database says so', async () => {
  const { conversation, alice } = await pair();
  await alice.sends(conversation, 'x');
  const position = { epoch: randomUUID(), seq: 50 };
  const { conversations } = await alice.does('sync', { conversations: { [conversation.id]: position } });
  const page = conversations[conversation.id];
  assert.deepEqual([page.resync, page.epoch, page.head_seq], [true, conversation.epoch, 1]);
});

test('a client that comes and goes while messages flow has them all in the end', async () => {
  const { conversation, alice, bob } = await pair();
  await alice.joins(conversation);
  bob.close();
  const stream = flow(alice, conversation);
  const known = new Map();
  let position = 0;
  for (let round = 0; round < 8; round++) {
    const visit = await connect(bob.user, round);
    const { head_seq, epoch } = await visit.joins(conversation);
    for (let next = position; next !== null; ) {
      const { conversations } = await visit.does('sync', {
        conversations: { [conversation.id]: { epoch, seq: next } },
      });
      const page = conversations[conversation.id];
      for (const event of page.events) known.set(event.seq, event.message);
      next = page.next;
    }
    await visit.sees('message:new', (one) => one.seq > head_seq + 5);
    for (const message of visit.all('message:new')) known.set(message.seq, message);
    visit.close();
    while (known.has(position + 1)) position += 1;
    assert.ok(position > head_seq, 'sync and live meet');
  }
  const sent = await stream.stop();
  assertGapless(
    [...known.keys()].sort((a, b) => a - b),
    1,
  );
  for (const message of sent) if (known.has(message.seq)) assert.deepEqual(known.get(message.seq), message);
});

test('one’s own other devices see what one sends', async () => {
  const { conversation, alice } = await pair();
  const tablet = await connect(alice.user, 1);
  await Promise.all([alice.joins(conversation), tablet.joins(conversation)]);
  const message = await alice.sends(conversation, 'from the phone');
  for (const client of [alice, tablet]) assert.deepEqual(await client.sees('message:new'), message);
  const posted = await rest(token(alice.user), 'POST', `/conversations/${conversation.id}/messages`, {
    content: 'by REST',
  });
  for (const client of [alice, tablet])
    assert.deepEqual(await client.sees('message:new', (one) => one.id === posted.body.id), posted.body);
});
