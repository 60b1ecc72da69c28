// What a non-member learns, what a member may not do, and that a payload cannot name its sender.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { closeAll, connect, direct, eventually, listening, person, rest, token } from '../client.mjs';

const users = { alice: person('alice'), bob: person('bob'), mallory: person('mallory') };
let conversation, message, alice, bob, mallory;

before(async () => {
  conversation = await direct(users.alice, users.bob);
  [alice, bob, mallory] = await Promise.all([connect(users.alice, 0), connect(users.bob, 1), connect(users.mallory, 0)]);
  await Promise.all([alice, mallory].map(listening));
  await Promise.all([alice.joins(conversation), bob.joins(conversation)]);
  message = await alice.sends(conversation, 'for members only');
});
after(closeAll);

/** The answer about the existing conversation with its ids replaced by those of the request about nothing. */
const masked = (answer, real, nothing) => {
  let text = JSON.stringify(answer);
  real.forEach((id, index) => (text = text.replaceAll(id, nothing[index])));
  return JSON.parse(text);
};

const EVENTS = {
  'conversation:join': () => ({}),
  'conversation:leave': () => ({}),
  'message:send': () => ({ content: 'let me in' }),
  'message:edit': (id) => ({ message_id: id, content: 'changed' }),
  'message:delete': (id) => ({ message_id: id }),
  'receipt:read': () => ({ up_to_seq: 1 }),
  typing: () => ({ is_typing: true }),
};

for (const [event, payload] of Object.entries(EVENTS)) {
  test(`a non-member's ${event} is answered as for a conversation that does not exist`, async () => {
    const nothing = [randomUUID(), randomUUID()];
    const real = [conversation.id, message.id];
    const ask = (/** @type {any[]} */ [where, what]) => mallory.ask(event, { conversation_id: where, ...payload(what) });
    const [about, aboutNothing] = [await ask(real), await ask(nothing)];
    assert.deepEqual(masked(about, real, nothing), aboutNothing);
    if (event !== 'conversation:leave') assert.equal(about.error?.code, 'not_found', JSON.stringify(about));
  });
}

test("a non-member's receipt by message id is answered as for a conversation that does not exist", async () => {
  const ask = (where, what) => mallory.ask('receipt:read', { conversation_id: where, message_ids: [what] });
  const [about, aboutNothing] = [await ask(conversation.id, message.id), await ask(randomUUID(), randomUUID())];
  assert.deepEqual(about, aboutNothing);
  assert.equal(about.ok, false);
});

test("a non-member's sync returns nothing, as for a conversation that does not exist", async () => {
  for (const position of [{ epoch: conversation.epoch, seq: 0 }, { seq: 0 }, { epoch: conversation.epoch, seq: 99 }]) {
    const nothing = randomUUID();
    const ask = (id) => mallory.ask('sync', { conversations: { [id]: position } });
    const [about, aboutNothing] = [await ask(conversation.id), await ask(nothing)];
    assert.deepEqual(masked(about, [conversation.id], [nothing]), aboutNothing);
    assert.ok(!JSON.stringify(about).includes('for members only'));
    // Together with a conversation of one's own it must make no difference either.
    const own = await direct(users.mallory, users.alice);
    const both = await mallory.ask('sync', { conversations: { [own.id]: { seq: 0 }, [conversation.id]: position } });
    assert.ok(!JSON.stringify(both).includes('for members only'));
  }
});

const ROUTES = [
  ['GET', (id) => `/conversations/${id}`],
  ['GET', (id) => `/conversations/${id}/messages`],
  ['GET', (id) => `/conversations/${id}/messages?limit=1&before=2`],
  ['GET', (id) => `/conversations/${id}/events?after=0`],
  ['POST', (id) => `/conversations/${id}/messages`, { content: 'let me in' }],
];

for (const [method, path, body] of /** @type {[string, (id: string) => string, any][]} */ (ROUTES)) {
  test(`a non-member's ${method} ${path('{id}')} is answered as for a conversation that does not exist`, async () => {
    for (const prefix of ['/api/v1', '/api']) {
      const [about, aboutNothing] = [
        await rest(mallory.jwt, method, prefix + path(conversation.id), body),
        await rest(mallory.jwt, method, prefix + path(randomUUID()), body),
      ];
      // The front end under `/api` knows both as forbidden.
      assert.equal(about.status, prefix === '/api' ? 403 : 404, about.text);
      assert.equal(about.text, aboutNothing.text);
      assert.equal(about.type, aboutNothing.type);
    }
  });
}

test('a non-member receives nothing and members receive nothing of the non-member', async () => {
  await mallory.ask('conversation:join', { conversation_id: conversation.id });
  await mallory.ask('typing', { conversation_id: conversation.id, is_typing: true });
  alice.forget();
  bob.forget();
  const next = await bob.sends(conversation, 'still among us');
  await alice.sees('message:new', (seen) => seen.id === next.id);
  // A reply to the non-member after that: what was meant for her would have come before.
  await mallory.fails('not_found', 'conversation:join', { conversation_id: conversation.id });
  const heard = mallory.seen.filter(({ payload }) => JSON.stringify(payload).includes(conversation.id));
  assert.deepEqual(heard, []);
  assert.deepEqual(
    bob.seen.filter(({ payload }) => JSON.stringify(payload).includes(users.mallory)),
    [],
  );
  const { body } = await alice.rest('GET', `/conversations/${conversation.id}`);
  assert.deepEqual(body.participants.map((one) => one.user_id).sort(), [users.alice, users.bob].sort());
});

test('a member may not edit or delete what another wrote, and cannot touch what is not there', async () => {
  const target = { conversation_id: conversation.id, message_id: message.id };
  await bob.fails('forbidden', 'message:edit', { ...target, content: 'words in a mouth' });
  await bob.fails('forbidden', 'message:delete', target);
  await alice.fails('not_found', 'message:edit', { ...target, message_id: randomUUID(), content: 'x' });
  await alice.fails('not_found', 'message:delete', { ...target, message_id: randomUUID() });
  const { body } = await bob.rest('GET', `/conversations/${conversation.id}/messages`);
  assert.deepEqual(
    body.messages.find((one) => one.id === message.id),
    message,
  );
});

test('a message id of another conversation opens nothing', async () => {
  const own = await direct(users.mallory, person('accomplice'));
  await mallory.fails('not_found', 'message:edit', { conversation_id: own.id, message_id: message.id, content: 'x' });
  await mallory.fails('not_found', 'message:delete', { conversation_id: own.id, message_id: message.id });
  const reply = await mallory.ask('message:send', { conversation_id: own.id, content: 'x', reply_to: message.id });
  assert.ok(!JSON.stringify(reply).includes('for members only'));
});

test('sender fields in a payload change nothing', async () => {
  const lies = {
    sender: { id: users.bob, username: 'Bob' },
    sender_id: users.bob,
    user_id: users.bob,
    username: 'Bob',
    id: randomUUID(),
    seq: 1,
    number: 1,
    created_at: '1999-01-01T00:00:00Z',
    edited_at: '1999-01-01T00:00:00Z',
    sender_kind: 'system',
  };
  const sent = await alice.sends(conversation, 'truly alice', lies);
  const posted = await alice.rest('POST', `/conversations/${conversation.id}/messages`, {
    content: 'alice too',
    ...lies,
  });
  for (const one of [sent, posted.body]) {
    assert.deepEqual(one.sender, { id: users.alice, username: users.alice });
    assert.notEqual(one.id, lies.id);
    assert.ok(one.seq > message.seq && one.edited_at === null);
    assert.ok(Math.abs(Date.now() - Date.parse(one.created_at)) < 60_000, one.created_at);
    assert.deepEqual(await bob.sees('message:new', (seen) => seen.id === one.id), one);
  }
  await alice.does('typing', {
    conversation_id: conversation.id,
    is_typing: true,
    user_id: users.bob,
    username: 'Bob',
  });
  const typing = await bob.sees('typing');
  assert.equal(typing.user_id, users.alice);
  const { receipt } = await alice.does('receipt:read', {
    conversation_id: conversation.id,
    up_to_seq: 1,
    user_id: users.bob,
  });
  assert.equal(receipt.user_id, users.alice);
});

test('auth fields beside the token change nothing', async () => {
  const client = await connect(users.mallory, 0, {
    auth: { token: token(users.mallory), user_id: users.alice, sub: users.alice, dialect: 'native' },
  });
  await client.fails('not_found', 'conversation:join', { conversation_id: conversation.id });
});

test('members are notified of a conversation that names them, non-members are not', async () => {
  const created = await direct(users.alice, person('dora'));
  await alice.sees('conversation:new', (seen) => seen.id === created.id);
  const marker = await direct(users.mallory, person('marker'));
  await mallory.sees('conversation:new', (seen) => seen.id === marker.id);
  assert.equal(mallory.all('conversation:new', (seen) => seen.id === created.id).length, 0);
  await eventually('no non-member in the list', async () => {
    const { body } = await mallory.rest('GET', '/conversations?limit=100');
    return body.conversations.every((one) => one.participants.some(({ user_id }) => user_id === users.mallory));
  });
});
