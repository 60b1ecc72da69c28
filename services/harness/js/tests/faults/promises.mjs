// The promises one by one, each brought to where a known flaw would break it. A mutant of the services must make
// its test fail; see `tests/it/mutants.rs`.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import {
  assertGapless,
  closeAll,
  connect,
  direct as directConversation,
  eventually,
  gateways,
  group,
  person,
  rest,
  token,
  within,
} from '../../client.mjs';
import { count, direct, everyPersistence } from '../../director.mjs';
import { speak } from '../../vocabulary.mjs';

const YOUNG_MS = 1_500;
// What only a repair can bring comes within this time.
const REPAIRED_MS = 15_000;

after(closeAll);

/** Alice on the first gateway, bob following on the second. */
async function scene() {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await directConversation(alice, bob);
  const [one, two] = await Promise.all([connect(alice, 0), connect(bob, 1)]);
  await Promise.all([one.joins(conversation), two.joins(conversation)]);
  return { alice, bob, conversation, one, two };
}

const stored = (conversation, id) =>
  count(`SELECT count(*) FROM messages WHERE conversation_id = '${conversation.id}' AND client_msg_id = '${id}'`);

const seqs = (client, conversation) =>
  client.all('message:new', (message) => message.conversation_id === conversation.id).map(({ seq }) => seq);

/** What the sender is told while nobody can store anything. */
async function sendUnstored({ conversation, one }) {
  const id = randomUUID();
  await everyPersistence('pause');
  try {
    const payload = { conversation_id: conversation.id, client_msg_id: id, content: 'held up' };
    return { id, ack: await one.ask('message:send', payload) };
  } finally {
    await everyPersistence('resume');
  }
}

test('an ack is given for what is stored and for nothing else', async () => {
  const here = await scene();
  const { id, ack } = await sendUnstored(here);
  assert.ok(!ack.ok, `acked before it was stored: ${JSON.stringify(ack)}`);
  const again = await here.one.sends(here.conversation, 'held up', { client_msg_id: id });
  assert.equal(await stored(here.conversation, id), 1);
  assert.equal(again.seq, 1);
});

test('what may be stored is never called rejected', async () => {
  const here = await scene();
  const { id, ack } = await sendUnstored(here);
  await eventually('the accepted message is stored', async () => (await stored(here.conversation, id)) === 1);
  assert.equal(ack.error?.code, 'unknown', `called rejected and yet stored: ${JSON.stringify(ack)}`);
  assert.equal(ack.error.retry, true);
});

test('a repeat gets the first answer', async () => {
  const { alice, conversation, one } = await scene();
  const body = { client_msg_id: randomUUID(), content: 'once' };
  const first = await one.sends(conversation, body.content, body);
  const path = `/conversations/${conversation.id}/messages`;
  const again = await rest(token(alice), 'POST', path, body, { base: gateways[1] });
  assert.ok(again.status < 300, `the repeat was not answered: ${again.text}`);
  assert.deepEqual([again.body.id, again.body.seq], [first.id, first.seq]);
  assert.equal(await stored(conversation, body.client_msg_id), 1);
});

test('two people may use one client id', async () => {
  const { conversation, one, two } = await scene();
  const id = randomUUID();
  const mine = await one.sends(conversation, 'mine', { client_msg_id: id });
  const ack = await two.ask('message:send', { conversation_id: conversation.id, content: 'yours', client_msg_id: id });
  assert.ok(ack.ok, `the second was swallowed: ${JSON.stringify(ack)}`);
  assert.notEqual(ack.message.id, mine.id);
  assert.equal(await stored(conversation, id), 2);
});

test('seqs are given without a hole', async () => {
  const { conversation, one, two } = await scene();
  const given = [];
  for (let number = 1; number <= 20; number++) given.push((await one.sends(conversation, `${number}`)).seq);
  assert.deepEqual(
    given,
    Array.from({ length: 20 }, (_, index) => index + 1),
    'seqs have a hole',
  );
  await eventually('all arrived', () => seqs(two, conversation).length === 20);
});

test('what was stored by a replica that died is told by the next', async () => {
  const here = await scene();
  await here.one.sends(here.conversation, 'before');
  await direct('kill persistence-2');
  await direct('kill persistence-1');
  await direct('start persistence-1 after_commit=return');
  const id = randomUUID();
  const answer = here.one.ask('message:send', {
    conversation_id: here.conversation.id,
    client_msg_id: id,
    content: 'told late',
  });
  await direct('wait-exit persistence-1');
  assert.equal(await stored(here.conversation, id), 1, 'it died before the commit');
  await direct('start persistence-1');
  await direct('start persistence-2');
  await here.two.sees('message:new', (message) => message.client_msg_id === id, REPAIRED_MS);
  const ack = await answer;
  const outcome = ack.ok ? ack.message.seq : ack.error.code;
  assert.ok(outcome === 2 || outcome === 'unknown', JSON.stringify(ack));
});

test('an event lost on the bus is fetched when the next one comes', async () => {
  const { conversation, one, two } = await losing('2*off->1*return->off');
  for (let number = 1; number <= 5; number++) await one.sends(conversation, `${number}`);
  await two.sees('message:new', (message) => message.content === '5');
  assert.deepEqual(seqs(two, conversation), [1, 2, 3, 4, 5], 'a lost event left a hole');
});

test('the last event lost on the bus is found by comparison', async () => {
  const { conversation, one, two } = await losing('2*off->1*return->off');
  await grownUp();
  for (let number = 1; number <= 3; number++) await one.sends(conversation, `${number}`);
  await two.sees('message:new', (message) => message.content === '3', REPAIRED_MS);
  assert.deepEqual(seqs(two, conversation), [1, 2, 3]);
});

/** As `scene`, but bob's gateway loses live events as told. */
async function losing(actions) {
  await direct('kill gateway-2');
  await direct(`start gateway-2 lose_events=${actions}`);
  await within(admits(gateways[1]), 'the gateway takes handshakes again');
  return scene();
}

const admits = (url) => eventually('handshakes', async () => (await fetch(`${url}/socket.io/?EIO=4&transport=polling`)).ok);

/** A young room asks for the head once more by itself. */
async function grownUp() {
  const joined = performance.now();
  await eventually('the room is no longer young', () => performance.now() - joined > YOUNG_MS);
}

const LARGE = 'x'.repeat(60_000);
const FLOOD = 300;

test('a client that reads too slowly is closed, comes back by itself and misses nothing', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const room = await directConversation(alice, bob);
  const [sender, slow] = await Promise.all([connect(alice, 0), connect(bob, 0, { reconnection: true, reconnectionDelay: 200 })]);
  await slow.joins(room);
  const pipe = /** @type {any} */ (slow.socket.io.engine.transport).ws._socket;
  pipe.pause();
  // The answers repeat the content, and the sender must not be the slow one.
  for (let number = 0; number < FLOOD; number += 4) {
    await Promise.all(Array.from({ length: 4 }, () => sender.sends(room, LARGE)));
  }
  pipe.resume();
  const closed = () => slow.disconnects.length > 0;
  const goesOn = async () => {
    const { seq } = await sender.sends(room, 'and on');
    return eventually('told', () => closed() || seqs(slow, room).includes(seq), 500);
  };
  await eventually('it is closed, or told again', goesOn, 10_000);
  const shown = seqs(slow, room);
  assertGapless(shown, 1);
  assert.ok(!slow.disconnects.includes('io server disconnect'), 'told to go for ever: stock clients stay away then');
  assert.notDeepEqual(slow.disconnects, [], 'nothing was too slow: the flood is too small');
  await eventually('it comes back by itself', () => slow.socket.connected, 10_000);
  const joined = await slow.joins(room);
  const page = await slow.does('sync', {
    conversations: { [room.id]: { epoch: joined.epoch, seq: shown.at(-1) ?? 0 } },
  });
  assert.equal(page.conversations[room.id].events[0].seq, (shown.at(-1) ?? 0) + 1);
});

test('who is removed is told nothing more', async () => {
  const [alice, bob, carl] = ['alice', 'bob', 'carl'].map(person);
  const room = await group(alice, [bob, carl]);
  const [one, two, three] = await Promise.all([connect(alice, 0), connect(bob, 1), connect(carl, 1)]);
  await Promise.all([one, two, three].map((client) => client.joins(room)));
  const removed = await one.rest('DELETE', `/conversations/${room.id}/participants/${bob}`);
  assert.ok(removed.status < 300, removed.text);
  const after = await one.sends(room, 'behind his back');
  await three.sees('message:new', (message) => message.id === after.id);
  const fence = await directConversation(carl, bob);
  await two.joins(fence);
  await three.sends(fence, 'fence');
  await two.sees('message:new', (message) => message.content === 'fence');
  assert.deepEqual(seqs(two, room), [], 'shown what came after the removal');
});

test('a payload cannot name its sender', async () => {
  const { alice, bob, conversation, one } = await scene();
  const message = await one.sends(conversation, 'I am bob', { senderId: bob });
  assert.equal(message.sender.id, alice, 'believed who it said it was');
});

test('a message is unread once, however often it is sent', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await directConversation(alice, bob);
  const [one, list] = await Promise.all([connect(alice, 0), speak('inbox', bob, 1)]);
  const told = (message) => list.all('conversation_updated', (update) => update.message.id === message.id)[0];
  const first = await eventually('the list follows the conversation', async () => {
    const message = await one.sends(conversation, 'hello');
    return eventually('told', () => told(message), 500);
  });
  const id = randomUUID();
  for (let time = 0; time < 5; time++) await one.sends(conversation, 'again', { client_msg_id: id });
  const another = await one.sends(conversation, 'another');
  const last = await eventually('the list shows the last', () => told(another));
  assert.equal(last.unread, first.unread + 2, `repeats were counted: ${JSON.stringify(last)}`);
});

test('what was read stays read', async () => {
  const { conversation, one, two } = await scene();
  for (let number = 1; number <= 5; number++) await one.sends(conversation, `${number}`);
  const unread = async () => (await two.rest('GET', `/conversations/${conversation.id}`)).body.unread;
  await two.does('receipt:read', { conversation_id: conversation.id, up_to_seq: 5 });
  assert.equal(await unread(), 0);
  await two.does('receipt:read', { conversation_id: conversation.id, up_to_seq: 2 });
  assert.equal(await unread(), 0, 'reading was undone');
});
