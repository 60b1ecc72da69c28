// One message by socket and one by REST, sent on the first gateway and seen on the last.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { closeAll, connect, direct, gateways, person } from '../client.mjs';

after(closeAll);

test('a message arrives on the other gateway, by whichever way it was sent', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await direct(alice, bob);
  const [sender, receiver] = [await connect(alice, 0), await connect(bob, gateways.length - 1)];
  await receiver.joins(conversation);
  await sender.sends(conversation, 'by socket');
  await receiver.sees('message:new', (message) => message.content === 'by socket');
  // A context of the client's own, which must not decide what is recorded.
  const headers = { traceparent: '00-0123456789abcdef0123456789abcdef-0123456789abcdef-01' };
  const sent = await sender.rest('POST', `/conversations/${conversation.id}/messages`, { content: 'by REST' }, { headers });
  assert.equal(sent.status, 201, sent.text);
  await receiver.sees('message:new', (message) => message.content === 'by REST');
});
