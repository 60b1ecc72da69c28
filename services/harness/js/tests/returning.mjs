// A page that is back at another gateway within a moment, while it takes long to store what pages got: nothing comes
// twice, and nothing is missing.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { closeAll, direct, eventually, gateways, person, rest, token } from '../client.mjs';
import { Network } from '../frontends/network.mjs';
import { agreed, speak } from '../vocabulary.mjs';

const networks = [];
after(() => {
  closeAll();
  for (const network of networks) network.down();
});

const SHOWN = { threads: 'message:new', inbox: 'new_message', encrypted: 'chat:message_received', chats: 'message:new' };
const JOINS = { threads: 'conversation:join', inbox: 'join_conversation' };

for (const [dialect, event] of Object.entries(SHOWN)) {
  test(`${dialect}: a page that is back at once is emitted each message once`, async () => {
    const [alice, bob] = [person('alice'), person('bob')];
    const conversation = await direct(alice, bob);
    const network = new Network(gateways);
    networks.push(network);
    await network.up();
    const reconnection = { reconnection: true, reconnectionDelay: 5, reconnectionDelayMax: 20, randomizationFactor: 0 };
    const page = await speak(dialect, bob, 0, { url: network.url, ...reconnection });
    const enters = () => JOINS[dialect] && agreed(page, JOINS[dialect], conversation.id);
    const bubbles = () => page.all(event).map((message) => message.content || message.content_encrypted);
    const expected = [];
    const says = async (content) => {
      const path = `/conversations/${conversation.id}/messages`;
      const { status, text } = await rest(token(alice), 'POST', path, { content });
      assert.equal(status, 201, text);
      expected.push(content);
    };
    await enters();
    await says('first');
    await eventually('the first is shown', () => bubbles().length === 1);
    for (let turn = 1; turn <= 3; turn++) {
      await says(`live ${turn}`);
      await eventually(`live ${turn} is shown`, () => bubbles().at(-1) === `live ${turn}`);
      // A client that polls has its answer, and asks again.
      await network.quiet(30);
      network.down();
      await eventually('it is noticed', () => !page.socket.connected);
      await says(`missed ${turn}`);
      await network.up();
      await eventually('it is back', () => page.socket.connected);
      await enters();
      await says(`last ${turn}`);
      await eventually(`last ${turn} is shown`, () => bubbles().includes(`last ${turn}`));
      assert.deepEqual(bubbles(), expected, `turn ${turn}`);
    }
  });
}
