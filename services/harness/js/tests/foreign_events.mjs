// Beside a publisher that sends every stored event into the rooms of all other conversations.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { closeAll, connect, eventually, group, person } from '../client.mjs';

after(closeAll);

test('each message is shown once, in its own conversation, and none is lost', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversations = await Promise.all([1, 2, 3].map(() => group(alice, [bob])));
  const [writer, reader] = [await connect(alice, 0), await connect(bob, 1)];
  for (const conversation of conversations) await reader.joins(conversation);
  const sent = conversations.map(() => []);
  for (let round = 0; round < 10; round++) {
    for (const [index, conversation] of conversations.entries()) {
      const { content } = await writer.sends(conversation, `${round} in ${index}`);
      sent[index].push(content);
    }
  }
  const shown = ({ id }) => reader.all('message:new', (one) => one.conversation_id === id).map((one) => one.content);
  await eventually('the last is shown', () => shown(conversations[2]).includes(sent[2].at(-1)));
  for (const [index, conversation] of conversations.entries()) {
    await eventually(`all of ${index} are shown`, () => shown(conversation).length >= sent[index].length);
    assert.deepEqual(shown(conversation), sent[index]);
  }
  assert.equal(reader.all('message:new').length, 30);
});
