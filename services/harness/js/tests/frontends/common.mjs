// What a person sees, whatever front end is drawn: bubbles once and in order, through reloads, blips and second tabs.
// Which front ends: PARLANCE_FRONTENDS, all of them by default.
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { eventually } from '../../client.mjs';
import { closeAll, FRONT_ENDS, pair, quiet, row, says, shows, texts } from './world.mjs';

after(closeAll);

const chosen = process.env.PARLANCE_FRONTENDS?.split(',') ?? Object.keys(FRONT_ENDS);

for (const name of chosen) {
  const typing = 'typing' in FRONT_ENDS[name].Page.prototype;
  // Without a badge on its list, or without a read event in its document.
  const badge = ['journal', 'chats', 'inbox'].includes(name);

  // Each check has users of its own, who mostly wait for their networks.
  describe(name, { concurrency: 4 }, () => {
    test('what is written is drawn once, in order, for both, and the same after a reload', async () => {
      const { alice, bob, conversation, a, b } = await pair(name);
      const before = texts(a);
      await says(a, 'one', b);
      await says(b, 'two', a);
      await says(a, 'three', b);
      const expected = [...before, 'one', 'two', 'three'];
      await shows(a, expected);
      await shows(b, expected);
      assert.deepEqual(
        a.state.bubbles.map(({ mine }) => mine),
        [true, false, true, false, true],
      );
      const reloaded = [await alice.reloads(conversation), await bob.reloads(conversation)];
      for (const page of reloaded) await shows(page, expected, 'the same after a reload');
      const more = await quiet(...reloaded, expected);
      await shows(reloaded[0], more);
    });

    test('sent in one go, drawn in that order', async () => {
      const { a, b, bob, conversation } = await pair(name);
      const before = texts(b);
      const sent = Array.from({ length: 20 }, (_, i) => `burst ${i}`);
      const done = sent.map((text) => a.send(text));
      await Promise.all(done);
      // Over REST a page that sends at once leaves the order to chance.
      if (name === 'inbox') {
        await eventually('all are drawn', () => texts(b).length === before.length + sent.length);
        assert.deepEqual(texts(b).toSorted(), [...before, ...sent].toSorted());
        await eventually('nothing is pending', () => a.state.bubbles.every(({ pending }) => !pending));
        assert.deepEqual(texts(a).toSorted(), [...before, ...sent].toSorted());
      } else {
        for (const page of [a, b]) await shows(page, [...before, ...sent]);
      }
      const drawn = texts(b);
      await shows(await bob.reloads(conversation), drawn, 'the same order after a reload');
    });

    test('what came while the tab was closed is drawn once after coming back, however often', async () => {
      const { bob, conversation, a, b } = await pair(name);
      let expected = texts(b);
      bob.leaves();
      for (const text of ['while away 1', 'while away 2', 'while away 3']) await says(a, text);
      expected = [...expected, 'while away 1', 'while away 2', 'while away 3'];
      for (let visit = 1; visit <= 3; visit++) {
        const page = await bob.reloads(conversation);
        await shows(page, expected, `visit ${visit}`);
        expected = await quiet(a, page, expected);
      }
    });

    test('a message between the page of history and the join is drawn once', async () => {
      const { bob, conversation, a } = await pair(name);
      for (let round = 0; round < 5; round++) {
        bob.leaves();
        await says(a, `before ${round}`);
        const expected = [...texts(a), `between ${round}`];
        const page = await bob.opens();
        // The page has its history, and what it emits is on its way: a slow network.
        const emitted = [];
        page.emit = (...args) => emitted.push(args);
        await page.open(conversation);
        await says(a, `between ${round}`);
        delete page.emit;
        for (const args of emitted) page.emit(...args);
        await shows(page, expected, `round ${round}`);
        await quiet(a, page, expected);
      }
    });

    test('a page that joins and asks for history at once draws each message once', async () => {
      const { bob, conversation, a } = await pair(name);
      for (let round = 0; round < 5; round++) {
        bob.leaves();
        for (const text of [`away ${round} a`, `away ${round} b`]) await says(a, text);
        const expected = texts(a);
        const page = await bob.opens();
        // As two effects of one page: it is in the room before it has the history that it then draws.
        page.set({ open: conversation, thread: null });
        page.rejoin?.();
        await page.open(conversation);
        await shows(page, expected, `round ${round}`);
        await quiet(a, page, expected);
      }
    });

    test('through a blip nothing is missing and nothing comes twice', async () => {
      const { bob, a, b } = await pair(name);
      let expected = texts(b);
      for (let blip = 1; blip <= 3; blip++) {
        const missed = [`blip ${blip} a`, `blip ${blip} b`];
        await bob.blips(b, async () => {
          for (const text of missed) await says(a, text);
        });
        expected = [...expected, ...missed];
        await shows(b, expected, `after blip ${blip}`);
        expected = await quiet(a, b, expected);
        await says(b, `answer ${blip}`, a);
        expected.push(`answer ${blip}`);
        await shows(a, expected);
        await shows(b, expected);
      }
    });

    test('a blip with nothing missed changes nothing', async () => {
      const { alice, bob, a, b } = await pair(name);
      await says(a, 'before');
      await shows(b, texts(a));
      const expected = texts(a);
      await alice.blips(a);
      await bob.blips(b);
      await says(a, 'after');
      for (const page of [a, b]) await shows(page, [...expected, 'after']);
    });

    test('of two devices, the one that blips draws what the other one did meanwhile, once', async () => {
      const { bob, conversation, a, b } = await pair(name);
      const phone = bob.device();
      const p = await phone.opens(conversation);
      await shows(p, texts(b));
      await says(a, 'to both', b, p);
      let expected = texts(b);
      for (let blip = 1; blip <= 3; blip++) {
        const missed = [`missed ${blip}`, `from the other ${blip}`];
        await phone.blips(p, async () => {
          await says(a, missed[0], b);
          await says(b, missed[1], a);
        });
        expected = [...expected, ...missed];
        for (const page of [b, p]) await shows(page, expected, `after blip ${blip}`);
        expected = await quiet(a, p, expected);
        await shows(b, expected);
      }
    });

    test('a second tab misses nothing between its page of history and its join', async () => {
      const { bob, conversation, a, b } = await pair(name);
      for (let round = 0; round < 3; round++) {
        await says(a, `before ${round}`, b);
        const page = await bob.opens();
        const emitted = [];
        page.emit = (...args) => emitted.push(args);
        await page.open(conversation);
        await says(a, `between ${round}`, b);
        delete page.emit;
        for (const args of emitted) page.emit(...args);
        const expected = texts(b);
        await shows(page, expected, `round ${round}`);
        const more = await quiet(a, page, expected);
        await shows(b, more);
        page.close();
      }
    });

    test('two tabs of one person draw the same', async () => {
      const { alice, conversation, a, b } = await pair(name);
      const second = await alice.opens(conversation);
      await shows(second, texts(a), 'the second tab opens on the same');
      await says(b, 'to both', a, second);
      await says(a, 'from the first', second, b);
      await says(second, 'from the second', a, b);
      await says(b, 'at last', a, second);
      const expected = texts(b);
      for (const page of [a, second]) await shows(page, expected);
      assert.equal(new Set(expected).size, expected.length);
    });

    test('the list shows the other by name, and the latest message', async () => {
      const { bob, conversation, a } = await pair(name);
      await says(a, 'the latest');
      const page = await bob.reloads();
      const { title, preview } = row(page, conversation);
      if (name === 'threads') assert.equal(title, 'Support');
      else if (name !== 'journal') assert.equal(title, 'Alice');
      if (name !== 'journal') assert.equal(preview, 'the latest');
    });

    if (badge) {
      test('three unread are three, after any number of reloads and blips, and none once opened', async () => {
        const { bob, conversation, a } = await pair(name);
        bob.leaves();
        for (const text of ['1', '2', '3']) await says(a, text);
        let page;
        for (let visit = 1; visit <= 3; visit++) {
          page = await bob.reloads();
          assert.equal(row(page, conversation).unread, 3, `visit ${visit}`);
        }
        for (let blip = 1; blip <= 2; blip++) {
          await bob.blips(page);
          // A list that lives hears of the next message; what was pushed before it has arrived by then.
          await says(a, `more ${blip}`);
          if (name === 'journal') await page.list();
          await eventually(`the badge after blip ${blip}`, () => row(page, conversation).unread >= 3 + blip);
          assert.equal(row(page, conversation).unread, 3 + blip, `blip ${blip}`);
        }
        await page.open(conversation);
        await shows(page, texts(a));
        await eventually('the list of a new tab has no badge', async () => {
          const next = await bob.opens();
          return row(next, conversation).unread === 0;
        });
        await page.back();
        assert.equal(row(page, conversation).unread, 0);
      });
    }

    if (typing) {
      test('typing is shown, ends when the typist stops, and when its tab is closed or torn', async () => {
        const { bob, conversation, a, b } = await pair(name);
        const typed = (count) => eventually(`${count} type`, () => a.state.typing.length === count, 20_000);
        b.typing(true);
        await typed(1);
        if (name === 'encrypted' || name === 'chats') assert.equal(a.state.typing[0].name, 'Bob');
        b.typing(false);
        await typed(0);
        b.typing(true);
        await typed(1);
        bob.leaves();
        await typed(0);
        const again = await bob.opens(conversation);
        again.typing(true);
        await typed(1);
        bob.network.down();
        await typed(0);
      });
    }
  });
}
