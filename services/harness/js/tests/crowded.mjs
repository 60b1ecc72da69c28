// One user opens more connections than one may have; the stack allows 3. Stock clients: they reconnect if they may.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { closeAll, connect, direct, eventually, person, token } from '../client.mjs';

after(closeAll);

test('the oldest connection reads why it ends, stays away, and nobody else notices', async () => {
  const [alice, bob, carol] = [person('alice'), person('bob'), person('carol')];
  const conversation = await direct(alice, bob);
  const bystander = await connect(bob, 0, { reconnection: true });
  await bystander.does('conversation:join', { conversation_id: conversation.id });
  const own = [];
  for (let n = 0; n < 5; n += 1) {
    own.push(await connect(alice, 0, { events: ['error'], reconnection: true, reconnectionDelay: 50 }));
  }
  const [first, second, ...others] = own;
  for (const gone of [first, second]) {
    await eventually('the end', () => gone.disconnects.length > 0);
    assert.deepEqual(gone.disconnects, ['io server disconnect']);
    const [{ payload }] = gone.seen;
    assert.equal(payload.code, 'rate_limited');
    assert.match(payload.message, /more than 3 connections here; the oldest was ended/);
  }
  // Those that came later go on, also once the others would have come again.
  await others.at(-1).does('message:send', { conversation_id: conversation.id, content: 'still here' });
  await bystander.sees('message:new', (message) => message.content === 'still here');
  for (const one of [...others, bystander]) {
    assert.deepEqual(one.disconnects, []);
    assert.ok(one.socket.connected);
  }
  // Those that reconnect, as from another gateway at its end, push nobody out until they are twice as many.
  const page = (index) => ({ token: token(carol), dialect: 'native', since: {}, pid: `page-${index}`.padEnd(24, '-') });
  const returned = [];
  for (let n = 0; n < 7; n += 1) returned.push(await connect(carol, 0, { auth: page(n), events: ['error'] }));
  await eventually('the end', () => returned[0].disconnects.length > 0);
  for (const one of returned.slice(1)) {
    await one.does('conversation:join', { conversation_id: (await direct(carol, bob)).id });
    assert.deepEqual(one.disconnects, []);
  }
  // A connection that is closed leaves its place.
  others[0].socket.disconnect();
  await connect(alice, 0);
  await others[1].does('conversation:join', { conversation_id: conversation.id });
  assert.deepEqual(others[1].disconnects, []);
});
