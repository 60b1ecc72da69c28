// What changes after a message was sent: edits, deletions, receipts, replies.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import { closeAll, connect, direct, group, person } from '../client.mjs';

after(closeAll);

async function scene() {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await direct(alice, bob);
  const clients = await Promise.all([connect(alice, 0), connect(bob, 1)]);
  await Promise.all(clients.map((client) => client.joins(conversation)));
  const about = (message) => ({ conversation_id: conversation.id, message_id: message.id });
  return { conversation, alice: clients[0], bob: clients[1], about };
}

const history = async (client, conversation) =>
  (await client.rest('GET', `/conversations/${conversation.id}/messages`)).body.messages.toSorted((a, b) => a.seq - b.seq);

test('an edit reaches everyone, keeps the place of the message and marks it', async () => {
  const { conversation, alice, bob, about } = await scene();
  const original = await alice.sends(conversation, 'helo', { metadata: { kept: true }, client_msg_id: 'e-1' });
  const { message } = await alice.does('message:edit', { ...about(original), content: 'hello' });
  assert.deepEqual({ ...message, edited_at: null, content: 'helo' }, original);
  assert.equal(message.content, 'hello');
  assert.ok(Date.parse(message.edited_at) >= Date.parse(original.created_at));
  for (const client of [alice, bob]) assert.deepEqual(await client.sees('message:edited'), { ...message, event_seq: 2 });
  assert.deepEqual(await history(bob, conversation), [message]);
  const { body } = await bob.rest('GET', `/conversations/${conversation.id}/events?after=0`);
  assert.deepEqual(
    body.events.map(({ seq, type }) => [seq, type]),
    [
      [1, 'message:new'],
      [2, 'message:edited'],
    ],
  );
  assert.equal(body.head_seq, 2);
});

test('a deletion leaves an empty place for everyone and cannot be undone', async () => {
  const { conversation, alice, bob, about } = await scene();
  const original = await alice.sends(conversation, 'regretted', { metadata: { secret: 1 } });
  const { message } = await alice.does('message:delete', about(original));
  assert.deepEqual([message.id, message.seq, message.content], [original.id, original.seq, '']);
  assert.deepEqual(message.metadata, {});
  assert.ok(message.deleted_at);
  for (const client of [alice, bob]) assert.deepEqual(await client.sees('message:deleted'), { ...message, event_seq: 2 });
  assert.deepEqual(await history(bob, conversation), [message]);
  const { text } = await bob.rest('GET', `/conversations/${conversation.id}/events?after=0`);
  assert.ok(!text.includes('regretted'), 'what was deleted is in no event either');
  const again = await alice.ask('message:delete', about(original));
  assert.deepEqual(again, { ok: true, message }, 'a repeat');
  await alice.fails('not_found', 'message:edit', { ...about(original), content: 'back' });
  assert.deepEqual(await history(bob, conversation), [message]);
});

test('a repeated send of a deleted message does not bring it back', async () => {
  const { conversation, alice, bob, about } = await scene();
  const original = await alice.sends(conversation, 'gone', { client_msg_id: 'again' });
  await alice.does('message:delete', about(original));
  const repeat = await alice.sends(conversation, 'gone', { client_msg_id: 'again' });
  assert.deepEqual([repeat.id, repeat.seq], [original.id, original.seq]);
  assert.deepEqual(
    (await history(bob, conversation)).map((one) => one.content),
    [''],
  );
});

test('many edits of one message arrive in their order and the last one stays', async () => {
  const { conversation, alice, bob, about } = await scene();
  const original = await alice.sends(conversation, '0');
  const edits = await Promise.all(
    Array.from({ length: 20 }, (_, i) => alice.does('message:edit', { ...about(original), content: `${i + 1}` })),
  );
  await bob.sees('message:edited', (message) => message.content === '20');
  assert.deepEqual(
    bob.all('message:edited').map((message) => message.content),
    edits.map((_, i) => `${i + 1}`),
  );
  assert.equal((await history(bob, conversation))[0].content, '20');
});

test('a reply names what it answers, and only something of the same conversation', async () => {
  const { conversation, alice, bob } = await scene();
  const question = await alice.sends(conversation, 'when?');
  const answer = await bob.sends(conversation, 'now', { reply_to: question.id });
  assert.equal(answer.reply_to, question.id);
  assert.equal((await alice.sees('message:new', (one) => one.id === answer.id)).reply_to, question.id);
  const about = { conversation_id: conversation.id, content: 'what?' };
  await bob.fails('invalid', 'message:send', { ...about, reply_to: randomUUID() });
});

test('every type a client may send comes back as it was', async () => {
  const { conversation, alice } = await scene();
  for (const type of ['text', 'image', 'file', 'voice', 'journal_share']) {
    const metadata = type === 'journal_share' ? { journalId: '0190a6e0-0000-7000-8000-000000000001' } : {};
    const sent = await alice.sends(conversation, 'x', { type, metadata });
    assert.deepEqual([sent.type, sent.metadata], [type, metadata]);
  }
  assert.equal((await alice.sends(conversation, 'x')).type, 'text');
});

test('receipts grow by seq, never go back, and repeating one changes nothing', async () => {
  const { conversation, alice, bob } = await scene();
  for (let i = 0; i < 6; i++) await alice.sends(conversation, `${i}`);
  const read = async (up_to_seq) => (await bob.does('receipt:read', { conversation_id: conversation.id, up_to_seq })).receipt;
  const unread = async () => (await bob.rest('GET', `/conversations/${conversation.id}`)).body.unread;
  assert.equal(await unread(), 6);
  const first = await read(4);
  assert.deepEqual(Object.keys(first).sort(), ['delivered_seq', 'read', 'up_to_seq', 'user_id', 'version']);
  assert.deepEqual([first.user_id, first.up_to_seq, first.read], [bob.user, 4, [[1, 4]]]);
  assert.equal(await unread(), 2);
  const shown = await alice.sees('receipt:updated', (one) => one.version === first.version);
  assert.deepEqual(shown, { conversation_id: conversation.id, ...first });
  assert.deepEqual(await read(4), first, 'a repeat');
  assert.deepEqual(await read(2), first, 'a step back');
  const last = await read(6);
  assert.equal(last.up_to_seq, 6);
  assert.ok(last.version > first.version);
  assert.equal(await unread(), 0);
  await alice.sees('receipt:updated', (one) => one.version === last.version);
  const versions = alice.all('receipt:updated').map((one) => one.version);
  assert.deepEqual(
    versions,
    [...new Set(versions)].sort((a, b) => a - b),
    'each version once, ascending',
  );
});

test('a receipt beyond the head counts only what exists', async () => {
  const { conversation, alice, bob } = await scene();
  await alice.sends(conversation, '1');
  const { receipt } = await bob.does('receipt:read', {
    conversation_id: conversation.id,
    up_to_seq: Number.MAX_SAFE_INTEGER,
  });
  assert.equal(receipt.up_to_seq, 1);
  for (const seq of ['9223372036854775807', '9223372036854775808', '18446744073709551615']) {
    const ack = await bob.askRaw('receipt:read', `{"conversation_id":"${conversation.id}","up_to_seq":${seq}}`);
    assert.deepEqual([ack.ok, ack.receipt?.up_to_seq], [true, 1], seq);
  }
  await alice.sends(conversation, '2');
  assert.equal((await bob.rest('GET', `/conversations/${conversation.id}`)).body.unread, 1);
});

test('receipts by message id are exact: what lies between stays unread', async () => {
  const { conversation, alice, bob } = await scene();
  const sent = [];
  for (let i = 0; i < 7; i++) sent.push(await alice.sends(conversation, `${i}`));
  const read = async (...places) => {
    const message_ids = places.map((place) => sent[place - 1].id);
    return (await bob.does('receipt:read', { conversation_id: conversation.id, message_ids })).receipt;
  };
  const unread = async () => (await bob.rest('GET', `/conversations/${conversation.id}`)).body.unread;
  assert.deepEqual((await read(3, 5)).read, [
    [3, 3],
    [5, 5],
  ]);
  assert.equal(await unread(), 5);
  assert.deepEqual((await read(5, 3, 3)).read, [
    [3, 3],
    [5, 5],
  ]);
  const more = await read(1, 2);
  assert.deepEqual(
    [more.read, more.up_to_seq],
    [
      [
        [1, 3],
        [5, 5],
      ],
      3,
    ],
  );
  assert.equal(await unread(), 3);
  const { receipt } = await bob.does('receipt:read', {
    conversation_id: conversation.id,
    up_to_seq: 4,
    message_ids: [sent[6].id],
  });
  assert.deepEqual(
    [receipt.read, receipt.up_to_seq],
    [
      [
        [1, 5],
        [7, 7],
      ],
      5,
    ],
    'both kinds at once are united',
  );
  assert.equal(await unread(), 1);
  const shown = await alice.sees('receipt:updated', (one) => one.version === receipt.version);
  assert.deepEqual(shown.read, receipt.read);
});

test('a receipt counts the messages that are there, and is refused where none is', async () => {
  const { conversation, alice, bob } = await scene();
  const message = await alice.sends(conversation, '1');
  const about = { conversation_id: conversation.id };
  await bob.fails('invalid', 'receipt:read', { ...about, message_ids: [randomUUID()] });
  const { receipt } = await bob.does('receipt:read', { ...about, message_ids: [randomUUID(), message.id] });
  assert.deepEqual(receipt.read, [[1, 1]]);
});

test('everyone of a group has receipts of their own', async () => {
  const users = ['alice', 'bob', 'carol'].map(person);
  const conversation = await group(users[0], users.slice(1));
  const [alice, bob, carol] = await Promise.all(users.map((user, i) => connect(user, i)));
  await Promise.all([alice, bob, carol].map((client) => client.joins(conversation)));
  for (let i = 0; i < 4; i++) await alice.sends(conversation, `${i}`);
  const read = (client, up_to_seq) => client.does('receipt:read', { conversation_id: conversation.id, up_to_seq });
  await Promise.all([read(bob, 2), read(carol, 4)]);
  for (const [user, up_to_seq] of [
    [users[1], 2],
    [users[2], 4],
  ]) {
    await alice.sees('receipt:updated', (one) => one.user_id === user && one.up_to_seq === up_to_seq);
  }
  const unread = (client) => client.rest('GET', `/conversations/${conversation.id}`).then(({ body }) => body.unread);
  assert.deepEqual(await Promise.all([alice, bob, carol].map(unread)), [0, 2, 0]);
});
