// `socket.id` is public: front ends send it to each other. It must open nothing.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { closeAll, connect, direct, gateways, person, rest, token } from '../client.mjs';
import { Polling } from '../engine.mjs';
import { UPGRADE, request } from '../raw.mjs';

after(closeAll);

const [here, there] = gateways;
const [alice, bob] = [person('alice'), person('bob')];

/** Session ids that a client which knows a `socket.id`, and has a session of its own at the same gateway, can make up. */
function guesses(socketId, own) {
  const [session, owner] = own.split('.');
  const proof = session.slice(socketId.length);
  assert.equal(proof.length, 22);
  return [
    socketId,
    `${socketId}.${owner}`,
    `${socketId}${proof}.${owner}`,
    `${socketId}${'A'.repeat(proof.length)}.${owner}`,
    `${socketId}${proof}`,
  ];
}

test('who knows a socket.id cannot poll, post or upgrade as that client, at any gateway', async () => {
  const conversation = await direct(alice, bob);
  const victim = await connect(alice, 0, { transports: ['polling'] });
  assert.ok(!victim.socket.io.engine.id.includes(`${victim.socket.id}.`), 'the session id is socket.id');
  const attacker = await Polling.connect(here, bob);
  const message = JSON.stringify(['message:send', { conversation_id: conversation.id, content: 'not from alice' }]);
  for (const sid of guesses(victim.socket.id, attacker.sid)) {
    for (const base of [here, there]) {
      const polling = `${base}/socket.io/?EIO=4&transport=polling&sid=${sid}`;
      const websocket = polling.replace('polling', 'websocket');
      for (const [what, answer] of [
        ['poll', await request(polling)],
        ['post', await request(polling, { method: 'POST', body: `42${message}` })],
        ['close', await request(polling, { method: 'POST', body: '1' })],
        ['upgrade', await request(websocket, { headers: UPGRADE })],
      ]) {
        assert.equal(answer.status, 400, `${what} with ${sid}: ${answer.text}`);
        if (what !== 'upgrade' || base === here) {
          assert.deepEqual(JSON.parse(answer.text), { code: 1, message: 'Session ID unknown' }, what);
        }
      }
    }
  }
  // The session is as it was, and nothing was said in its name.
  await victim.does('conversation:join', { conversation_id: conversation.id });
  const { body } = await rest(token(alice), 'GET', `/conversations/${conversation.id}/messages`);
  assert.deepEqual(body.messages, []);
  assert.deepEqual(victim.disconnects, []);
});

test('the socket.id of a WebSocket opens nothing either', async () => {
  const victim = await connect(alice, 0, { transports: ['websocket'] });
  const attacker = await Polling.connect(here, bob);
  for (const sid of guesses(victim.socket.id, attacker.sid)) {
    for (const base of [here, there]) {
      const polling = `${base}/socket.io/?EIO=4&transport=polling&sid=${sid}`;
      assert.equal((await request(polling, { method: 'POST', body: '1' })).status, 400);
      assert.equal((await request(polling.replace('polling', 'websocket'), { headers: UPGRADE })).status, 400);
    }
  }
  await victim.ask('no such event', {});
  assert.deepEqual(victim.disconnects, []);
});

test('the session id works at every gateway', async () => {
  const session = await Polling.connect(here, alice);
  for (const base of [there, here]) {
    await session.post('421["no such event",{}]', base);
    await session.until((packet) => packet.startsWith('431['), base);
  }
});
