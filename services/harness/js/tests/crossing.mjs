// Many messages at once through two gateways, by two users who do not wait for acks.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { assertGapless, closeAll, connect, direct, eventually, transport } from '../client.mjs';

const EACH = 1500;

after(closeAll);

test('two users on two gateways exchange 3,000 messages without a gap, a duplicate or a reordering', async () => {
  const users = [`crossing-alice-${transport}`, `crossing-bob-${transport}`];
  const conversation = await direct(...users);
  const people = await Promise.all(users.map((user, index) => connect(user, index)));
  await Promise.all(people.map((client) => client.joins(conversation)));

  const send = (client) =>
    Array.from({ length: EACH }, (_, index) =>
      client.socket.timeout(60_000).emitWithAck('message:send', {
        conversation_id: conversation.id,
        client_msg_id: `m-${index}`,
        content: `${index}`,
      }),
    );
  const acks = (await Promise.all(people.flatMap(send))).map((ack) => {
    assert.equal(ack.ok, true, JSON.stringify(ack));
    return ack.message;
  });

  const bySeq = acks.toSorted((a, b) => a.seq - b.seq);
  for (const client of people) {
    await eventually('everything arrived', () => client.all('message:new').length >= 2 * EACH);
    const received = client.all('message:new');
    assert.equal(received.length, 2 * EACH);
    assertGapless(
      received.map((message) => message.seq),
      1,
    );
    assert.deepEqual(received, bySeq, 'what was acknowledged is what was received');
    for (const user of users) {
      const own = received.filter((message) => message.sender.id === user).map((message) => Number(message.content));
      assertGapless(own, 0);
    }
    assert.deepEqual(client.disconnects, []);
    assert.deepEqual(client.all('error'), []);
  }
});
