// Changes whose gateway dies between their claim and their answer: repeated by their key through another one they have
// one effect, whatever was stored by then.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import { closeAll, connect, eventually, gateways, person, rest, token } from '../../client.mjs';
import { count, direct } from '../../director.mjs';

after(closeAll);

// An attempt whose gateway died is waited for 20 seconds: twice as long as one command may take.
const RESUMED_MS = 60_000;

const call = (user, gateway, method, path, body, key) =>
  rest(token(user), method, path, body, {
    base: gateways[gateway],
    headers: key ? { 'idempotency-key': key } : {},
  });

async function does(user, method, path, body) {
  const answer = await call(user, 1, method, path, body);
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`);
  return answer.body;
}

async function scene() {
  const [alice, bob, carol] = [person('alice'), person('bob'), person('carol')];
  const { id } = await does(alice, 'POST', '/conversations/group', { title: 'A group', participant_ids: [bob] });
  const journal = await does(alice, 'POST', '/journals', { title: 'A journal', content: 'first\n' });
  return { alice, bob, carol, id, journal: journal.id, word: randomUUID() };
}

/** A whole text of alice, which bob changes before she repeats it. */
const WHOLE_TEXT = {
  before: (at) => does(at.alice, 'POST', `/journals/${at.journal}/collaborators`, { user_id: at.bob, permission: 'editor' }),
  meanwhile: async (at) => {
    const read = async () => (await does(at.bob, 'GET', `/journals/${at.journal}`)).content;
    await eventually('the text of alice is stored', async () => (await read()) === text(at));
    await does(at.bob, 'PATCH', `/journals/${at.journal}`, { content: `${text(at)}of bob\n` });
  },
  opens: (at) => ['journal:join', { journal_id: at.journal }],
  once: (at) => [`SELECT count(*) FROM journal_versions WHERE conversation_id = '${at.journal}'`, 3],
  afterwards: async (at) => {
    // What alice's session holds and is not stored would come with her next change.
    const content = `${text(at)}of bob\nmore\n`;
    const client = at.clients?.[1];
    if (client) await client.does('journal:edit', { journal_id: at.journal, content });
    const blame = await does(at.bob, 'GET', `/journals/${at.journal}/blame`);
    assert.equal(blame.content, client ? content : `${text(at)}of bob\n`);
    let from = 0;
    const of = { [at.alice]: '', [at.bob]: '' };
    for (const { length, author } of blame.spans) {
      of[blame.authors[author]] += blame.content.slice(from, from + length);
      from += length;
    }
    assert.equal(of[at.bob], 'of bob\n');
  },
};
const text = (at) => `first\n${at.word}\n`;

/** What one `/api/v1` request, or one event, changes; and the number that shows that it did so once. */
const CHANGES = {
  group: {
    request: (at) => ['POST', '/conversations/group', { title: at.word, participant_ids: [at.bob] }],
    once: (at) => [`SELECT count(*) FROM conversations WHERE title = '${at.word}'`, 1],
  },
  message: {
    request: (at) => ['POST', `/conversations/${at.id}/messages`, { content: at.word }],
    once: (at) => [`SELECT count(*) FROM messages WHERE content = '${at.word}'`, 1],
  },
  'leaving a group': {
    request: (at) => ['DELETE', `/conversations/${at.id}/participants/${at.alice}`],
    // Another user becomes admin.
    once: (at) => [`SELECT count(*) FROM changes WHERE conversation_id = '${at.id}'`, 2],
  },
  'a deleted journal': {
    request: (at) => ['DELETE', `/journals/${at.journal}`],
    once: (at) => [`SELECT count(*) FROM conversations WHERE conversation_id = '${at.journal}' AND deleted_at IS NOT NULL`, 1],
  },
  'a restored journal': {
    request: (at) => ['POST', `/journals/${at.journal}/restore/1`],
    before: (at) => does(at.alice, 'PATCH', `/journals/${at.journal}`, { content: 'second' }),
    once: (at) => [`SELECT count(*) FROM journal_versions WHERE conversation_id = '${at.journal}'`, 3],
  },
  'a whole text': {
    ...WHOLE_TEXT,
    request: (at) => ['PATCH', `/journals/${at.journal}`, { content: text(at) }],
  },
  'a whole text by event': {
    ...WHOLE_TEXT,
    event: (at) => ['journal:edit', { journal_id: at.journal, content: text(at) }],
  },
  'thread by event': {
    event: (at) => ['thread:create', { conversation_id: at.id, title: at.word }],
    once: (at) => [`SELECT count(*) FROM threads WHERE title = '${at.word}'`, 1],
  },
  'message by event': {
    event: (at) => ['message:send', { conversation_id: at.id, content: at.word }],
    once: (at) => [`SELECT count(*) FROM messages WHERE content = '${at.word}'`, 1],
  },
};

/** The first gateway, which dies at this point. */
async function dyingAt(point) {
  await direct('kill gateway-1');
  await direct(`start gateway-1 ${point}=return`);
  await eventually('the first gateway serves', async () => {
    const answer = await fetch(`${gateways[0]}/health`);
    return answer.status === 200 && (await rest(token(person('nobody')), 'GET', '/conversations')).status === 200;
  });
}

async function dies({ request, event }, at, key) {
  if (request) {
    await assert.rejects(call(at.alice, 0, ...request(at), ...(request(at).length < 3 ? [undefined] : []), key));
    return;
  }
  const client = await connect(at.alice, 0);
  const [name, payload] = event(at);
  client.socket.emit(name, { ...payload, idempotency_key: key });
  await eventually('the gateway is gone', () => client.disconnects.length > 0);
}

/** Repeats it through the other gateways, at once and again, until it is answered. */
async function repeated({ request, event, opens }, at, key) {
  const ask = async (gateway) => {
    if (request) {
      const [method, path, body] = request(at);
      const { status, text } = await call(at.alice, gateway, method, path, body, key);
      const problem = status >= 400 ? JSON.parse(text) : {};
      assert.ok(status < 300 || problem.retry, text);
      return status < 300 && `${status} ${text}`;
    }
    const [name, payload] = event(at);
    at.clients ??= {};
    if (!at.clients[gateway]) {
      at.clients[gateway] = await connect(at.alice, gateway);
      if (opens) await at.clients[gateway].does(...opens(at));
    }
    const ack = await at.clients[gateway].ask(name, { ...payload, idempotency_key: key });
    assert.ok(ack.ok || ack.error.retry, JSON.stringify(ack));
    return ack.ok && JSON.stringify(ack);
  };
  const until = (gateway) => eventually('it is resumed', () => ask(gateway), RESUMED_MS);
  const [one, other] = await Promise.all([until(1), until(2)]);
  assert.equal(one, other);
  assert.equal(await ask(1), one);
}

for (const point of ['after_publish', 'before_settle']) {
  test(`a change whose gateway dies at ${point} is resumed by its key`, async () => {
    const open = [];
    for (const [name, change] of /** @type {[string, any][]} */ (Object.entries(CHANGES))) {
      const at = await scene();
      await change.before?.(at);
      await dyingAt(point);
      const key = randomUUID();
      await dies(change, at, key);
      open.push({ name, change, at, key });
    }
    await Promise.all(
      open.map(async ({ name, change, at, key }) => {
        await change.meanwhile?.(at);
        await repeated(change, at, key);
        const [query, expected] = change.once(at);
        assert.equal(await count(query), expected, name);
        await change.afterwards?.(at);
      }),
    );
  });
}
