// Traffic of every kind that carries a canary, for what the operator may see of it: nothing.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Client, closeAll, connect, direct, person, token } from '../client.mjs';

const canary = process.env.PARLANCE_CANARY;
after(closeAll);

test('content, metadata, titles, names, keys and tokens go through everything that could log them', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await direct(alice, bob);
  const [one, two] = await Promise.all([connect(alice, 0), connect(bob, 1)]);
  await Promise.all([one.joins(conversation), two.joins(conversation)]);
  const about = { conversation_id: conversation.id };
  const message = await one.sends(conversation, canary, { metadata: { [canary]: canary } });
  await two.sees('message:new');
  await one.does('message:edit', { ...about, message_id: message.id, content: `${canary} again` });
  await two.sees('message:edited');
  await two.does('receipt:read', { ...about, up_to_seq: 1 });
  await two.does('typing', { ...about, is_typing: true });
  await one.does('sync', { conversations: { [conversation.id]: { seq: 0 } } });
  const doomed = await one.sends(conversation, canary);
  await one.does('message:delete', { ...about, message_id: doomed.id });

  // Refused in every layer.
  await one.fails('invalid', 'message:send', { ...about, content: `${canary}\u0000` });
  await one.fails('invalid', 'message:send', { ...about, content: { canary } });
  await one.fails('invalid', 'message:send', { ...about, content: canary, metadata: [canary] });
  await one.fails('invalid', 'message:send', { ...about, content: canary, type: canary });
  await one.fails('invalid', 'message:send', { conversation_id: canary, content: canary });
  await one.fails('too_large', 'message:send', { ...about, content: canary.repeat(10_000) });
  await one.fails('forbidden', 'message:edit', {
    ...about,
    message_id: (await two.sends(conversation, canary)).id,
    content: canary,
  });
  for (const jwt of [`${one.jwt}x`, token(alice, { exp: 1, note: canary }), `${canary}.${canary}.${canary}`]) {
    await new Client(alice, 0, { auth: { token: jwt } }).refused();
    assert.equal(
      (await one.rest('GET', '/conversations', undefined, { headers: { authorization: `Bearer ${jwt}` } })).status,
      401,
    );
  }
  const posts = [
    [{ content: canary }, 201],
    [`{"content":"${canary}`, 400],
    [{ content: canary, metadata: canary }, 400],
  ];
  const path = `/conversations/${conversation.id}/messages`;
  for (const [body, status] of posts) {
    assert.equal((await one.rest('POST', path, body)).status, status);
  }
  // A key, kept, refused and malformed.
  for (const [key, content, status] of [
    [canary, 'keyed', 201],
    [canary, 'other', 400],
    [`${canary} malformed`, 'keyed', 400],
  ]) {
    const headers = { 'idempotency-key': key };
    assert.equal((await one.rest('POST', path, { content }, { headers })).status, status);
  }
  await one.fails('invalid', 'message:send', { ...about, content: 'keyed', idempotency_key: canary });
  // A name that is no part of the dialect must not become a label.
  for (let i = 0; i < 300; i++) one.socket.emit(`unknown:${i}`, {});
  const fence = await one.sends(conversation, 'fence');
  await two.sees('message:new', (seen) => seen.id === fence.id);
});
