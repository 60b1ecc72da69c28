// The CodeMirror example: two pages, each in a document of its own, type into one journal.
import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { after, test } from 'node:test';
import { eventually, gateways, person, rest, token } from '../client.mjs';
import { direct } from '../director.mjs';
import { page } from '../page.mjs';

/** Others show nothing of a page that vanished, after this. */
const GONE_MS = 15_000;
const opened = [];
const children = [];

after(() => {
  for (const one of opened) one.close();
  for (const child of children) child.kill('SIGKILL');
});

/** A journal of some editors. */
async function journal(...people) {
  const [owner, ...editors] = people;
  const created = await rest(token(owner), 'POST', '/journals', { title: 'A journal', content: 'Begun.\n' });
  assert.equal(created.status, 201, created.text);
  for (const user_id of editors) {
    const path = `/journals/${created.body.id}/collaborators`;
    const shared = await rest(token(owner), 'POST', path, { user_id, permission: 'editor' });
    assert.ok(shared.status < 300, shared.text);
  }
  return created.body.id;
}

async function opens(user, id, gateway) {
  const one = await page(gateways[gateway], token(user), id);
  opened.push(one);
  await eventually(`${user} is shown the text`, () => one.shown().startsWith('Begun.'));
  return one;
}

/** A page in a process of its own, which can be killed. */
function child(user, id, gateway) {
  const started = fork(new URL('../page.mjs', import.meta.url), [gateways[gateway], token(user), id]);
  children.push(started);
  return started;
}

test("two editors show one text after they typed at once, and each other's cursors with names", async () => {
  const [alice, bob] = ['alice', 'bob'].map(person);
  const id = await journal(alice, bob);
  const pages = [await opens(alice, id, 0), await opens(bob, id, 1)];
  await Promise.all(
    pages.map(async (one, index) => {
      for (let word = 0; word < 40; word += 1) {
        one.types(`${'ab'[index]}${word} `, index === 0 ? 0 : one.shown().length);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }),
  );
  await eventually('both show one text with every word', () => {
    const [one, other] = pages.map((each) => each.shown());
    const words = ['a', 'b'].flatMap((who) => Array.from({ length: 40 }, (_, word) => `${who}${word} `));
    return one === other && words.every((word) => one.split(word).length === 2);
  });
  const stored = () => rest(token(alice), 'GET', `/journals/${id}`);
  await eventually('and the server has it', async () => (await stored()).body.content === pages[0].shown());
  pages[0].selects(2);
  await eventually('bob sees where alice is', () => pages[1].names().includes(alice));
  pages[1].selects(3);
  await eventually('alice sees where bob is', () => pages[0].names().includes(bob));
});

test('what is typed while the connection is away is stored when it is back', async () => {
  const [alice, bob] = ['alice', 'bob'].map(person);
  const id = await journal(alice, bob);
  const pages = [await opens(alice, id, 0), await opens(bob, id, 1)];
  pages[1].cut();
  pages[0].types('meanwhile ', 0);
  pages[1].types('offline ', pages[1].shown().length);
  await eventually(
    'both show both',
    () => {
      const [one, other] = pages.map((each) => each.shown());
      return one === other && one.includes('meanwhile ') && one.includes('offline ');
    },
    30_000,
  );
});

for (const [what, vanishes] of [
  ['is killed', (one) => one.kill('SIGKILL')],
  ['is frozen', (one) => one.kill('SIGSTOP')],
  ['loses its gateway', () => direct('kill gateway-2')],
]) {
  test(`the cursor of a page that ${what} is gone within 15 s`, async () => {
    const [alice, bob] = ['alice', 'bob'].map(person);
    const id = await journal(alice, bob);
    const watcher = await opens(alice, id, 0);
    const vanishing = child(bob, id, 1);
    await eventually('alice sees bob', () => watcher.names().includes(bob), 30_000);
    const begun = Date.now();
    await /** @type {(page: any) => unknown} */ (vanishes)(vanishing);
    await eventually('alice sees bob no more', () => !watcher.names().includes(bob), GONE_MS);
    console.log(`a page that ${what}: gone after ${Date.now() - begun} ms`);
  });
}
