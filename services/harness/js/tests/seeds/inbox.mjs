// The front end with a live list of conversations, which sends over REST.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { closeAll, eventually, person, within } from '../../client.mjs';
import { agreed, holds, pair, says, speak } from '../../vocabulary.mjs';

after(closeAll);

const enter = (client, { id }) => agreed(client, 'join_conversation', id);
const scene = () => pair('inbox', [person('alice'), person('bob')], enter);
async function posts({ id }, client, content) {
  const { status, body } = await client.rest('POST', `/conversations/${id}/messages`, { content });
  assert.equal(status, 201, JSON.stringify(body));
  return body;
}
const shows = (client, { id }) => client.sees('new_message', (message) => message.id === id);
const lists = (client, { id }, ms) => client.sees('conversation_updated', (update) => update.message.id === id, ms);

test('S4.b2 S4.c1 S4.r1 S4.s1: what is posted reaches who has joined, the sender by the same id', async () => {
  const [conversation, alice, bob] = await scene();
  const posted = await posts(conversation, alice, 'hello');
  for (const client of [alice, bob]) {
    holds(await shows(client, posted), {
      content: 'hello',
      conversationId: conversation.id,
      senderId: alice.user,
      sender: { id: alice.user, username: alice.user },
      createdAt: posted.created_at,
    });
    assert.equal(client.all('new_message').length, 1);
  }
});

test('S2.f6 S4.b1 S4.m1 S4.s2: a list counts each unread message of others once, without joining', async () => {
  const people = [person('alice'), person('bob')];
  const [conversation, alice, bob] = await pair('inbox', people, async () => {});
  // Nothing marks a list as complete; from its first update on it misses none.
  await eventually('both lists live', async () => {
    const first = await posts(conversation, alice, 'first');
    return Promise.all([alice, bob].map((client) => lists(client, first, 500)));
  });
  const before = bob.all('conversation_updated').at(-1).unread;
  for (let more = 1; more <= 3; more++) {
    const posted = await posts(conversation, alice, `${more}`);
    const update = await lists(bob, posted);
    holds(update, { conversationId: conversation.id, timestamp: posted.created_at, unread: before + more });
    assert.equal(update.lastMessage, `${more}`);
    holds(await lists(alice, posted), { unread: 0 });
  }
  assert.deepEqual(bob.all('new_message'), []);
  await enter(bob, conversation);
  says(bob, 'mark_as_read', { conversationId: conversation.id });
  await bob.sees('messages_read');
  holds(await lists(bob, await posts(conversation, alice, 'afresh')), { unread: 1 });
});

test('S4.c2 S4.f1 S4.f2 S4.m2: who leaves hears of the list only; who types and reads is shown', async () => {
  const [conversation, alice, bob] = await scene();
  const posted = await posts(conversation, alice, 'heard');
  await shows(bob, posted);
  for (const event of ['typing_start', 'typing_stop']) {
    says(bob, event, conversation.id);
    holds(await alice.sees(event), { conversationId: conversation.id, userId: bob.user });
  }
  says(bob, 'mark_as_read', { conversationId: conversation.id, messageIds: [posted.id] });
  holds(await alice.sees('messages_read'), { userId: bob.user, messageIds: [posted.id] });
  await agreed(bob, 'leave_conversation', conversation.id);
  await lists(bob, await posts(conversation, alice, 'unheard'));
  assert.equal(bob.all('new_message').length, 1);
});

test('S2.p2 S4.b3: a lost connection comes back by itself as one, and hears again once it has joined', async () => {
  const [conversation, alice, bob] = await scene();
  const again = new Promise((resolve) => bob.socket.once('connect', resolve));
  bob.socket.io.reconnection(true);
  bob.socket.io.engine.close();
  await within(again, 'the stock client connects again');
  await enter(bob, conversation);
  await shows(bob, await posts(conversation, alice, 'back'));
  assert.equal(bob.all('new_message').length, 1);
  assert.equal(bob.disconnects.length, 1);
});

test('a non-member receives nothing', async () => {
  const [conversation, alice, bob] = await scene();
  const carol = await speak('inbox', person('carol'), 1);
  says(carol, 'join_conversation', conversation.id);
  holds(await carol.sees('error'), { event: 'join_conversation' });
  const refused = await carol.rest('POST', `/conversations/${conversation.id}/messages`, { content: 'x' });
  assert.equal(refused.status, 404, refused.text);
  await shows(bob, await posts(conversation, alice, 'private'));
  assert.deepEqual(
    carol.seen.map(({ event }) => event),
    ['error'],
  );
});
