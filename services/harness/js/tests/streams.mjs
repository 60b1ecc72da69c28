// Messages that stream, as readers see them: native clients of two gateways, the front ends of the other dialects.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { Agent, Screen } from '../agent.mjs';
import { assertProblem, closeAll, connect, direct, eventually, person, rest, token } from '../client.mjs';
import { count } from '../director.mjs';
import { agreed, numbered, speak } from '../vocabulary.mjs';

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
let agent;

before(async () => {
  agent = await Agent.connect();
});
after(async () => {
  closeAll();
  await agent.close();
});

const shows = async (user, conversation, gateway = 0) => {
  const client = await connect(user, gateway, { events: 'all' });
  await client.joins(conversation);
  return Object.assign(client, { screen: new Screen(client) });
};
const history = async (user, id, base) =>
  (await rest(token(user), 'GET', `/conversations/${id}/messages`, undefined, { base })).body.messages;

test('members on two gateways see one message grow, and its end once', async () => {
  const users = [person('ann'), person('ben')];
  const conversation = await direct(...users);
  const readers = await Promise.all(users.map((user, gateway) => shows(user, conversation, gateway)));
  const answer = await agent.begins(conversation.id, randomUUID(), 'Häh');
  for (const reader of readers) {
    const created = await reader.sees('message:new', (message) => message.id === answer.id);
    assert.deepEqual([created.stream, created.seq, created.sender.id], ['open', answer.seq, 'service:shop']);
  }
  for (const part of ['? ', 'Ü', 'ber', ' 😀', ' that.']) {
    await answer.appends(part);
    for (const reader of readers) {
      await eventually('the text so far', () => reader.screen.text(answer.id) === answer.text.toString(), 2_000);
    }
  }
  await answer.finishes();
  for (const reader of readers) {
    const finished = await reader.sees('message:finished', (message) => message.id === answer.id);
    assert.deepEqual(
      [finished.content, finished.stream, finished.seq, finished.event_seq],
      [answer.text.toString(), 'finished', answer.seq, answer.seq + 1],
    );
    assert.equal(reader.all('message:new').length, 1);
    // Under load one may be late; none is lost here.
    assert.equal(reader.screen.gaps, 0);
    const [message] = await history(reader.user, conversation.id, reader.url);
    assert.deepEqual([message.content, message.stream], [answer.text.toString(), 'finished']);
  }
  // Whoever was away reads the same from the log.
  const { conversations } = await readers[0].does('sync', {
    conversations: { [conversation.id]: { seq: 0, epoch: conversation.epoch } },
  });
  const types = conversations[conversation.id].events.map((event) => event.type);
  assert.deepEqual(types, ['message:new', 'message:finished']);
});

test('who joins late has the text so far within a second, and a write a second is all that the database sees', async () => {
  const users = [person('ann'), person('ben')];
  const conversation = await direct(...users);
  const answer = await agent.begins(conversation.id, randomUUID());
  let writing = true;
  const began = Date.now();
  const writes = (async () => {
    for (let part = 0; writing; part++) {
      await answer.appends(`${part} `);
      await sleep(20);
    }
  })();
  await sleep(2_500);
  const delays = [];
  for (let round = 0; round < 5; round++) {
    const joining = await connect(users[round % 2], round, { events: 'all' });
    const late = Object.assign(joining, { screen: new Screen(joining) });
    await late.joins(conversation);
    const had = answer.text.length;
    const joined = Date.now();
    for (const message of await history(late.user, conversation.id, late.url)) late.screen.shows(message);
    await eventually('the text so far', () => (late.screen.texts.get(answer.id)?.length ?? 0) >= had, 3_000);
    delays.push(Date.now() - joined);
    await sleep(300);
    late.close();
  }
  writing = false;
  await writes;
  const seconds = (Date.now() - began) / 1_000;
  await answer.finishes();
  console.log(`the text so far after ${delays.join(', ')} ms`);
  assert.ok(delays.toSorted((a, b) => a - b)[2] <= 1_000, `${delays}`);
  // Every new version of a row is an update: of the text, and one at the end.
  const updates = await count(
    `SELECT coalesce(sum(n_tup_upd), 0)::int8 FROM pg_stat_user_tables WHERE relname LIKE 'messages_%'`,
  );
  console.log(`${updates} updates of messages in ${seconds.toFixed(1)} s`);
  assert.ok(updates <= seconds + 12, `${updates} updates`);
});

test('a reader stops a message by event and by REST, and a stranger does not', async () => {
  const users = [person('ann'), person('ben')];
  const conversation = await direct(...users);
  const reader = await shows(users[0], conversation, 1);
  const stranger = await connect(person('eve'), 0, { events: 'all' });
  const delays = [];
  for (const by of ['event', 'rest', 'event', 'rest', 'event']) {
    const answer = await agent.begins(conversation.id, randomUUID(), 'On and');
    const where = { conversation_id: conversation.id, message_id: answer.id };
    await stranger.fails('not_found', 'message:stop', where);
    const asked = Date.now();
    if (by === 'event') await reader.does('message:stop', where);
    else {
      const { status } = await rest(token(users[1]), 'POST', `/conversations/${conversation.id}/messages/${answer.id}/stop`);
      assert.equal(status, 202);
    }
    const heard = () => agent.stops.find((stop) => stop.message_id === answer.id);
    const stop = await eventually('the service hears of it', heard);
    delays.push(stop.at - asked);
    assert.deepEqual([stop.conversation_id, stop.user_id], [conversation.id, users[by === 'event' ? 0 : 1]]);
    await answer.cancels();
    const ended = await reader.sees('message:finished', (message) => message.id === answer.id);
    assert.deepEqual([ended.stream, ended.content], ['cancelled', 'On and']);
    await reader.fails('conflict', 'message:stop', where);
    assertProblem(
      await rest(token(users[1]), 'POST', `/conversations/${conversation.id}/messages/${answer.id}/stop`),
      409,
      'conflict',
    );
  }
  console.log(`stops came after ${delays.join(', ')} ms`);
  assert.ok(delays.toSorted((a, b) => a - b)[2] <= 200, `${delays}`);
});

/** What each front end shows of a new message, and how it comes to follow a conversation. */
const FRONT_ENDS = {
  journal: ['receiveMessage', 'joinRoom'],
  encrypted: ['chat:message_received'],
  chats: ['message:new'],
  threads: ['message:new', 'conversation:join'],
  inbox: ['new_message', 'join_conversation'],
};

for (const [dialect, [word, join]] of Object.entries(FRONT_ENDS)) {
  test(`${dialect} gets the finished message once, in its place, and nothing before`, async () => {
    const [owner, user] = [person('owner'), numbered()];
    const conversation = await direct(owner, user);
    const own = await connect(owner, 0);
    await own.joins(conversation);
    const client = await speak(dialect, user, 1);
    const named = dialect === 'journal' ? conversation.number : { conversationId: conversation.id };
    if (join) await agreed(client, join, named);
    const written = () => client.seen.filter((seen) => seen.event === word).map((seen) => JSON.stringify(seen.payload));
    const history = async () => {
      const headers = { 'x-parlance-dialect': dialect };
      return (await rest(token(user), 'GET', `/conversations/${conversation.id}/messages`, undefined, { headers })).text;
    };
    await own.sends(conversation, 'before it');
    await eventually('it follows', () => written().length === 1);
    const answer = await agent.begins(conversation.id, randomUUID(), 'Not yet');
    await answer.appends(' all of it');
    await own.sends(conversation, 'meanwhile');
    await eventually('what is sent meanwhile', () => written().length === 2);
    assert.ok(!JSON.stringify(client.seen).includes('Not yet'), JSON.stringify(client.seen));
    const before = await history();
    assert.ok(before.includes('meanwhile') && !before.includes('Not yet'), before);
    await answer.finishes();
    await own.sends(conversation, 'after it');
    await eventually('all of it', () => written().length >= 4);
    const contents = ['before it', 'meanwhile', 'Not yet all of it', 'after it'];
    assert.deepEqual(
      written().map((text) => contents.find((one) => text.includes(one))),
      contents,
    );
    assert.ok((await history()).includes('Not yet all of it'));
  });
}
