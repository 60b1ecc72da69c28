// A gateway that leaves while it holds a poll of another's session.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually, person } from '../client.mjs';
import { Polling } from '../engine.mjs';

const owner = process.env.PARLANCE_OWNER;
const other = process.env.PARLANCE_OTHER;
const leaving = Number(process.env.PARLANCE_LEAVING);

test('the poll is answered with nothing, and the session goes on at the next gateway', async () => {
  const session = await Polling.connect(owner, person('alice'));
  const held = session.poll({ base: other });
  process.kill(leaving, 'SIGTERM');
  assert.deepEqual(await held, { status: 200, text: '6' });
  await session.post('421["no such event",{}]');
  await session.until((packet) => packet.startsWith('431['));
  await eventually('it is gone', async () => {
    const outcome = await session.poll({ base: other }).catch((error) => error);
    return outcome instanceof Error;
  });
});
