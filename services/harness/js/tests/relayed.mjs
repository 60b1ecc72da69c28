// Polling requests that reach another gateway than the one that owns their session.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { direct, eventually, gateways, person, rest, token } from '../client.mjs';
import { Polling } from '../engine.mjs';

const [here, there] = gateways;
const isAck = (id) => (packet) => packet.startsWith(`43${id}[`);

/** Asserts that the session is said to be unknown, promptly. */
async function assertUnknown(answer) {
  const { status, text } = await answer;
  assert.equal(status, 400);
  assert.equal(JSON.parse(text).message, 'Session ID unknown');
}

test('events go out and answers come back through any gateway', async () => {
  const session = await Polling.connect(here, person('alice'));
  for (const [id, base] of [there, gateways[2], here, there].entries()) {
    assert.deepEqual(await session.post(`42${id}["no such event",{}]`, base), { status: 200, text: 'ok' });
    await session.until(isAck(id), base === there ? gateways[2] : there);
  }
});

test('requests and answers larger than a bus message pass', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await direct(alice, bob);
  const session = await Polling.connect(here, alice);
  await session.post(`421["conversation:join",{"conversation_id":"${conversation.id}"}]`, there);
  await session.until(isAck(1), there);

  const content = 'x'.repeat(2_500_000);
  const large = JSON.stringify(['message:send', { conversation_id: conversation.id, content }]);
  assert.equal((await session.post(`422${large}`, there)).status, 200);
  const [refusal] = (await session.until(isAck(2), there)).filter(isAck(2));
  assert.match(refusal, /too_large/);

  // Nobody polls meanwhile, so all of it comes in one answer.
  const count = 40;
  const part = 'y'.repeat(60_000);
  for (let i = 0; i < count; i++) {
    const answer = await rest(token(bob), 'POST', `/conversations/${conversation.id}/messages`, { content: `${i} ${part}` });
    assert.equal(answer.status, 201, answer.text.slice(0, 200));
  }
  const contents = [];
  let largest = 0;
  while (contents.length < count) {
    const { status, text } = await session.poll({ base: there });
    assert.equal(status, 200, text.slice(0, 200));
    largest = Math.max(largest, text.length);
    for (const packet of text.split('\x1e').filter((packet) => packet.startsWith('42["message:new"'))) {
      contents.push(JSON.parse(packet.slice(2))[1].content);
    }
  }
  assert.deepEqual(
    contents,
    Array.from({ length: count }, (_, i) => `${i} ${part}`),
  );
  assert.ok(largest > 1_500_000, `the largest answer had ${largest} bytes`);
});

test('a session that is nobody’s is unknown at once', async () => {
  const session = await Polling.open(here);
  const [engine, owner] = session.sid.split('.');
  const made = (sid) => new Polling(here, { sid });
  const nobody = `${engine}.${owner.replace(/./g, '0')}`;
  for (const sid of [nobody, engine, `${engine}.`, `${engine}.*`, `${engine}.>`, `${engine}.${owner}.x`, '*', '', '.']) {
    const since = performance.now();
    await assertUnknown(made(sid).poll());
    await assertUnknown(made(sid).post('3'));
    assert.ok(performance.now() - since < 2_000, `${sid} took long`);
  }
  // Known to nobody, but of a gateway that lives.
  const stranger = made(`${'A'.repeat(16)}.${owner}`);
  await assertUnknown(stranger.poll({ base: there }));
  await assertUnknown(stranger.post('3', there));
  assert.equal((await session.post('3', there)).status, 200);
});

test('a poll that a proxy tries again ends the session, for its answer may be lost', async () => {
  for (const [first, second] of [
    [there, gateways[2]],
    [there, here],
    [here, there],
    [here, here],
  ]) {
    const session = await Polling.connect(here, person('alice'));
    await session.post('421["no such event",{}]');
    assert.equal((await session.poll({ base: first, t: 'twice' })).status, 200);
    await assertUnknown(session.poll({ base: second, t: 'twice' }));
    await eventually('the session is gone', async () => (await session.poll({ base: second })).status === 400);
  }
});

test('a poll whose client goes away is given up, and loses nothing', async () => {
  const session = await Polling.connect(here, person('alice'));
  const gone = new AbortController();
  const poll = session.poll({ base: there, signal: gone.signal });
  // It is held: there is nothing to say.
  await assert.rejects(Promise.race([poll, new Promise((_, late) => setTimeout(late, 200))]), () => true);
  gone.abort();
  await poll.catch(() => {});
  // The one before must be given up by now, else the engine takes this for two at once.
  await new Promise((resolve) => setTimeout(resolve, 300));
  const next = session.until(isAck(1), gateways[2]);
  await session.post('421["no such event",{}]', gateways[2]);
  await next;
});

test('what a request more costs', async () => {
  const session = await Polling.connect(here, person('alice'));
  const took = { poll: { own: [], relayed: [] }, post: { own: [], relayed: [] } };
  const timed = async (list, action) => {
    const since = performance.now();
    await action();
    list.push(performance.now() - since);
  };
  for (let i = 0; i < 400; i++) {
    const [kind, base] = i % 2 ? ['relayed', there] : ['own', here];
    await timed(took.post[kind], () => session.post(`42${i}["no such event",{}]`, base));
    await timed(took.poll[kind], () => session.until(isAck(i), base));
  }
  const median = (list) => list.sort((a, b) => a - b)[list.length >> 1].toFixed(2);
  for (const [what, { own, relayed }] of Object.entries(took)) {
    console.log(`# ${what}: p50 ${median(own)} ms at its owner, ${median(relayed)} ms through another gateway`);
  }
});
