// A gateway is killed while people of every front end write to each other: they see nothing missing, nothing twice.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { eventually } from '../../client.mjs';
import { direct } from '../../director.mjs';
import { closeAll, FRONT_ENDS, pair, quiet, says, shows, texts } from './world.mjs';

after(closeAll);

const ROUNDS = Number(process.env.PARLANCE_KILLS ?? 2);

/** Presses send again until the message is drawn as sent: what a person does whose message failed or stayed gray. */
async function insists(page, text) {
  await eventually(`"${text}" is sent`, () => page.socket.connected, 30_000);
  await says(page, text);
}

test('a killed gateway costs no front end a bubble, and doubles none', async () => {
  const names = Object.keys(FRONT_ENDS);
  const scenes = await Promise.all(names.map((name) => pair(name)));
  for (let round = 1; round <= ROUNDS; round++) {
    const gateway = `gateway-${1 + (round % 2)}`;
    // Bob listens; half of the pages are on the gateway that is killed, and find the other by themselves.
    await Promise.all(scenes.map(({ a, b }) => says(a, `before ${round}`, b)));
    await direct(`kill ${gateway}`);
    await Promise.all(scenes.map(({ a }) => insists(a, `meanwhile ${round}`)));
    await direct(`start ${gateway}`);
    for (const [index, { a, b }] of scenes.entries()) {
      await eventually(`${names[index]}: back`, () => a.socket.connected && b.socket.connected, 30_000);
      await shows(b, texts(a), `${names[index]} after the kill of ${gateway}`);
      await quiet(a, b, texts(b));
    }
  }
  for (const [index, { bob, conversation, a }] of scenes.entries()) {
    const drawn = texts(a);
    assert.equal(new Set(drawn).size, drawn.length, `${names[index]}: ${drawn}`);
    await shows(await bob.reloads(conversation), drawn, `${names[index]} after a reload`);
  }
});
