// Changes whose gateway dies between their claim and their answer: repeated by their key through another one they have
// one effect, whatever was stored by then.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import { closeAll, connect, eventually, gateways, person, rest, token } from '../../client.mjs';
import { count, direct } from '../../director.mjs';

after(closeAll);

// An attempt whose gateway died is waited for 15 seconds.
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
  const journal = await does(alice, 'POST', '/journals', { title: 'A journal', content: 'first' });
  return { alice, bob, carol, id, journal: journal.id, word: randomUUID() };
}

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
  members: {
    request: (at) => ['PUT', `/conversations/${at.id}`, { title: at.word, participants: [at.carol] }],
    once: (at) => [`SELECT count(*) FROM changes WHERE conversation_id = '${at.id}'`, 3],
  },
  'leaving a group': {
    request: (at) => ['DELETE', `/conversations/${at.id}/participants/${at.alice}`],
    // Somebody else becomes admin.
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
async function repeated({ request, event }, at, key) {
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
    at.clients[gateway] ??= await connect(at.alice, gateway);
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
    for (const [name, change] of Object.entries(CHANGES)) {
      const at = await scene();
      await change.before?.(at);
      await dyingAt(point);
      const key = randomUUID();
      await dies(change, at, key);
      open.push({ name, change, at, key });
    }
    await Promise.all(
      open.map(async ({ name, change, at, key }) => {
        await repeated(change, at, key);
        const [query, expected] = change.once(at);
        assert.equal(await count(query), expected, name);
      }),
    );
  });
}
