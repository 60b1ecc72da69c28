// A gateway is killed while users of every front end write to each other: they see nothing missing, nothing twice.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { eventually, gateways } from '../../client.mjs';
import { direct } from '../../director.mjs';
import { closeAll, FRONT_ENDS, pair, quiet, says, shows, texts } from './world.mjs';

after(closeAll);

const ROUNDS = Number(process.env.PARLANCE_KILLS ?? 2);

/** How long a person looks whether a message that was cut off is there after all. */
const LOOKS_MS = 2_000;

/** Presses send again where the page was cut off before its message was drawn as sent: its gateway was dead. */
async function insists({ network }, page, text, dead) {
  await eventually('the broken line is noticed', () => !network.reaches(dead));
  for (let tries = 0; tries < 3; tries++) {
    await network.quiet();
    await eventually(`the page of "${text}" is connected`, () => page.socket.connected, 30_000);
    let isCut = false;
    page.socket.once('disconnect', () => (isCut = true));
    page.send(text);
    const isSent = () => page.state.bubbles.some((drawn) => drawn.text === text && !drawn.pending);
    await eventually(`"${text}" is drawn, or the page is cut off`, () => isSent() || isCut, 60_000);
    const isThere = eventually(`"${text}" is there after all`, () => page.socket.connected && isSent(), LOOKS_MS);
    const found = await isThere.catch(() => false);
    // The name that the page gave it went with the connection: what stays gray is dismissed.
    page.set(({ bubbles }) => ({ bubbles: bubbles.filter(({ pending }) => !pending) }));
    if (found) return;
  }
  throw new Error(`"${text}" was never sent`);
}

test('a killed gateway costs no front end a bubble, and doubles none', async () => {
  const names = Object.keys(FRONT_ENDS);
  const scenes = await Promise.all(names.map((name) => pair(name)));
  for (let round = 1; round <= ROUNDS; round++) {
    const gateway = `gateway-${1 + (round % 2)}`;
    const dead = gateways[round % 2];
    // Bob listens; half of the pages are on the gateway that is killed, and find the other by themselves.
    await Promise.all(scenes.map(({ a, b }) => says(a, `before ${round}`, b)));
    // For a moment only the gateway itself knows what was drawn.
    await Promise.all(scenes.flatMap(({ alice, bob }) => [alice, bob].map(({ network }) => network.quiet(500))));
    const typists = scenes.filter(({ a }) => 'typing' in a);
    for (const { a } of typists) a.typing(true);
    await eventually('all see it', () => typists.every(({ b }) => b.state.typing.length === 1));
    const isCut = new Set();
    for (const { b } of typists) b.socket.once('disconnect', () => isCut.add(b));
    await direct(`kill ${gateway}`);
    await Promise.all(scenes.map(({ alice, a }) => insists(alice, a, `meanwhile ${round}`, dead)));
    await direct(`start ${gateway}`);
    // Nobody is left to say that they stopped. Pages that were cut off themselves know that they know nothing.
    const isQuiet = ({ b }) => isCut.has(b) || b.state.typing.length === 0;
    await eventually('nobody types any more', () => typists.every(isQuiet), 20_000);
    for (const { b } of typists) b.set({ typing: [] });
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
