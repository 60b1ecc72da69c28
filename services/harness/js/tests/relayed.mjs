// Polling requests that reach another gateway than the one that owns their session.
import assert from 'node:assert/strict';
import http from 'node:http';
import { test } from 'node:test';
import { direct, eventually, gateways, internals, person, rest, token } from '../client.mjs';
import { Polling } from '../engine.mjs';

const [here, there] = gateways;
const isAck = (id) => (packet) => packet.startsWith(`43${id}[`);

/** How many requests of other gateways' sessions had this result at the second gateway. */
async function relayed(result) {
  const text = await (await fetch(`${internals[1]}/metrics`)).text();
  const line = text.split('\n').find((line) => line.startsWith(`chat_gateway_relayed_total{result="${result}"}`));
  return Number(line?.split(' ').at(-1) ?? 0);
}

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

test('a session that is nobody’s is unknown, and soon', async () => {
  const session = await Polling.open(here);
  const [engine, owner] = session.sid.split('.');
  const made = (sid) => new Polling(here, { sid });
  const nobody = `${engine}.${owner.replace(/./g, '0')}`;
  for (const sid of [nobody, engine, `${engine}.`, `${engine}.*`, `${engine}.>`, `${engine}.${owner}.x`, '*', '', '.']) {
    const since = performance.now();
    await assertUnknown(made(sid).poll());
    await assertUnknown(made(sid).post('3'));
    assert.ok(performance.now() - since < 5_000, `${sid} took long`);
  }
  // Known to nobody, but of a gateway that lives.
  const stranger = made(`${'A'.repeat(engine.length)}.${owner}`);
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

test('a mark that is the time in seconds is none: some clients poll more often', async () => {
  const session = await Polling.connect(here, person('alice'));
  for (const [id, base] of [here, there, there, here].entries()) {
    await session.post(`42${id}["no such event",{}]`);
    await session.until(isAck(id), base, '1700000000');
  }
});

test('a poll whose client goes away is given up, and what comes then is for the next one', async () => {
  const session = await Polling.connect(here, person('alice'));
  const given = await relayed('abandoned');
  const gone = new AbortController();
  let held = true;
  const poll = session.poll({ base: there, signal: gone.signal }).finally(() => (held = false));
  await eventually('the owner holds it', async () => (await session.post('3')).status === 200);
  assert.ok(held, 'there was something to say');
  gone.abort();
  await assert.rejects(poll);
  await eventually('it is given up', async () => (await relayed('abandoned')) > given);
  await session.post('421["no such event",{}]', gateways[2]);
  await session.until(isAck(1), gateways[2]);
});

test('a large request whose client goes away in the middle leaves the session as it was', async () => {
  const session = await Polling.connect(here, person('alice'));
  const gone = new AbortController();
  const half = new ReadableStream({
    start: (controller) => controller.enqueue(new TextEncoder().encode(`421["no such event",{"x":"${'x'.repeat(4_000_000)}`)),
  });
  const post = fetch(
    session.url(there),
    /** @type {any} */ ({ method: 'POST', body: half, duplex: 'half', signal: gone.signal }),
  );
  await eventually('its first half is sent', async () => (await session.post('3', there)).status === 200);
  gone.abort();
  await assert.rejects(post);
  await session.post('422["no such event",{}]', there);
  await session.until(isAck(2), there);
});

test('nobody sends much to a session that is not theirs', async () => {
  const { sid } = await Polling.open(here);
  const [engine, owner] = sid.split('.');
  const stranger = new Polling(there, { sid: `${'A'.repeat(engine.length)}.${owner}` });
  await assertUnknown(stranger.post('x'.repeat(5_000_000)));
});

test('an upgrade that was carried already is carried no further', async () => {
  const session = await Polling.connect(here, person('alice'));
  const status = (headers) =>
    new Promise((resolve, reject) => {
      const asked = http.get(session.url(there).replace('transport=polling', 'transport=websocket'), {
        headers: {
          connection: 'upgrade',
          upgrade: 'websocket',
          'sec-websocket-version': 13,
          'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
          ...headers,
        },
      });
      asked.on('upgrade', (answer, socket) => socket.destroy() && resolve(answer.statusCode));
      asked.on('response', (answer) => answer.resume() && resolve(answer.statusCode));
      asked.on('error', reject);
    });
  assert.equal(await status({ 'parlance-carried': '1' }), 400);
  await session.post('421["no such event",{}]', there);
  await session.until(isAck(1), there);
  assert.equal(await status({}), 101);
});

/** A measurement: `PARLANCE_RELAYED_REQUESTS=800`. */
const requests = Number(process.env.PARLANCE_RELAYED_REQUESTS ?? 0);
test('what a request more costs', { skip: requests === 0 }, async () => {
  const session = await Polling.connect(here, person('alice'));
  const took = { poll: { own: [], relayed: [] }, post: { own: [], relayed: [] } };
  const timed = async (list, action) => {
    const since = performance.now();
    await action();
    list.push(performance.now() - since);
  };
  for (let i = 0; i < requests / 2; i++) {
    const [kind, base] = i % 2 ? ['relayed', there] : ['own', here];
    await timed(took.post[kind], () => session.post(`42${i}["no such event",{}]`, base));
    await timed(took.poll[kind], () => session.until(isAck(i), base));
  }
  const median = (list) => list.sort((a, b) => a - b)[list.length >> 1].toFixed(2);
  for (const [what, { own, relayed }] of Object.entries(took)) {
    console.log(`# ${what}: p50 ${median(own)} ms at its owner, ${median(relayed)} ms through another gateway`);
  }
});
