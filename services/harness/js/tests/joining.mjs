// Between connect and join: from the end of the backlog on a client is emitted every event exactly once and in order,
// however long it takes to join.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { assertGapless, closeAll, connect, direct, person, token } from '../client.mjs';

after(closeAll);

/** Milliseconds between connect and join. */
const PACES = [0, 100, 500, 2_000];
/** Milliseconds between two messages. */
const BEAT = 25;
/** Messages that a reader must be emitted live after its join. */
const LIVE = 10;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Sends a message each beat until stopped; resolves with the last. */
function flow(client, conversation) {
  let flowing = true;
  const done = (async () => {
    for (let i = 0; flowing; i++) {
      const [sent] = await Promise.all([client.sends(conversation, `flow ${i}`), pause(BEAT)]);
      if (!flowing) return sent;
    }
  })();
  return () => {
    flowing = false;
    return done;
  };
}

async function scene() {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await direct(alice, bob);
  const sender = await connect(alice, 0);
  await sender.joins(conversation);
  const sent = (count) => sender.sees('message:new', ({ seq }) => seq >= count);
  return { bob, conversation, sender, sent };
}

const seqs = (client) => client.all('message:new').map(({ seq }) => seq);

for (const pace of PACES) {
  test(`a native client that joins ${pace} ms after its backlog began misses nothing and gets nothing twice`, async () => {
    const { bob, conversation, sender, sent } = await scene();
    const stop = flow(sender, conversation);
    await sent(5);
    for (const gateway of [1, 0]) {
      const reader = await connect(bob, gateway, { auth: { token: token(bob), dialect: 'native' } });
      await pause(pace);
      const { head_seq: head } = await reader.joins(conversation);
      await reader.sees('message:new', ({ seq }) => seq >= head + LIVE);
      assertGapless(seqs(reader), 1);
      reader.close();
    }
    await stop();
  });

  test(`a native client that names its position and joins ${pace} ms later goes on from there`, async () => {
    const { bob, conversation, sender, sent } = await scene();
    const stop = flow(sender, conversation);
    await sent(5);
    const since = { [conversation.id]: { epoch: conversation.epoch, seq: 3 } };
    for (const gateway of [1, 0]) {
      const reader = await connect(bob, gateway, { auth: { token: token(bob), dialect: 'native', since } });
      await pause(pace);
      await reader.joins(conversation);
      const { seq } = await sender.sends(conversation, 'marker');
      await reader.sees('message:new', (message) => message.seq >= seq + LIVE);
      assertGapless(seqs(reader), 4);
      reader.close();
    }
    await stop();
  });
}

test('the acknowledgement of a join says after which event everything follows', async () => {
  const { bob, conversation, sender } = await scene();
  await sender.sends(conversation, 'one');
  const reader = await connect(bob, 1, { auth: { token: token(bob), dialect: 'native' } });
  await reader.sees('message:new', ({ seq }) => seq === 1);
  await sender.sends(conversation, 'two');
  await reader.sees('conversation:updated', ({ head_seq: head }) => head === 2);
  const { head_seq: head } = await reader.joins(conversation);
  await sender.sends(conversation, 'three');
  await reader.sees('message:new', ({ seq }) => seq === 3);
  assert.equal(head, 1);
  assert.deepEqual(seqs(reader), [1, 2, 3]);
});
