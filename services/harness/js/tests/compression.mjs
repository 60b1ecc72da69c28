// Answers of REST and of long-polling in the encoding that a client accepts: the same bytes, fewer of them.
import assert from 'node:assert/strict';
import http from 'node:http';
import { after, test } from 'node:test';
import { brotliDecompressSync, gunzipSync } from 'node:zlib';
import { closeAll, connect, direct, gateways, group, person, token } from '../client.mjs';
import { Polling } from '../engine.mjs';

after(closeAll);

const TEXT = 'the same words again and again, ';
/** Node 20 cannot read the third: its frames begin like this. */
const ZSTD = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);

/** One request whose answer is not decoded. */
function ask(url, encoding, headers = {}) {
  return new Promise((resolve, reject) => {
    const asked = http.get(url, { headers: { 'accept-encoding': encoding, ...headers }, agent: false }, (answer) => {
      const parts = [];
      answer.on('data', (part) => parts.push(part));
      answer.on('end', () => resolve({ status: answer.statusCode, headers: answer.headers, body: Buffer.concat(parts) }));
    });
    asked.on('error', reject);
  });
}

function assertEncoded({ status, headers, body }, encoding) {
  assert.equal(status, 200);
  assert.equal(headers['content-encoding'], encoding);
  assert.equal(Number(headers['content-length']), body.length);
  assert.match(headers.vary, /accept-encoding/);
  assert.match(headers.vary, /origin/);
}

test('a page of history is the same text in every encoding', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await group(alice, [bob]);
  const sender = await connect(alice);
  for (let n = 0; n < 40; n += 1) await sender.sends(conversation, `${n}: ${TEXT}`);
  const url = `${gateways[1]}/api/v1/conversations/${conversation.id}/messages`;
  const asked = (encoding) => ask(url, encoding, { authorization: `Bearer ${token(bob)}`, 'x-parlance-dialect': 'native' });
  const plain = await asked('identity');
  assert.equal(plain.headers['content-encoding'], undefined);
  const whole = JSON.parse(plain.body.toString());
  for (const [encoding, decode] of /** @type {const} */ ([
    ['gzip', gunzipSync],
    ['br', brotliDecompressSync],
  ])) {
    const answer = await asked(encoding);
    assertEncoded(answer, encoding);
    assert.deepEqual(JSON.parse(decode(answer.body).toString()), whole);
    assert.ok(answer.body.length < plain.body.length / 3, `${encoding}: ${answer.body.length} of ${plain.body.length}`);
  }
  const zstd = await asked('zstd');
  assertEncoded(zstd, 'zstd');
  assert.deepEqual(zstd.body.subarray(0, 4), ZSTD);
  const small = await ask(`${gateways[0]}/api/v1/users/me`, 'gzip', { authorization: `Bearer ${token(bob)}` });
  assert.equal(small.headers['content-encoding'], undefined);
});

test('what a poll is answered is compressed where it is large, at every gateway', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await direct(alice, bob);
  const sender = await connect(alice);
  const reader = await Polling.connect(gateways[0], bob);
  await reader.post(`420${JSON.stringify(['conversation:join', { conversation_id: conversation.id }])}`);
  await reader.until((packet) => packet.startsWith('430'));
  const content = TEXT.repeat(200);
  // The second poll reaches a gateway that has to pass it on.
  for (const base of gateways) {
    const polls = async () => {
      for (;;) {
        const answer = await ask(reader.url(base), 'gzip');
        assert.equal(answer.status, 200);
        if (answer.headers['content-encoding'] !== 'gzip') {
          assert.ok(answer.body.length < 1_024, `${answer.body.length} bytes were not compressed`);
          if (answer.body.toString() === '2') await reader.post('3');
          continue;
        }
        return answer;
      }
    };
    const [answer] = await Promise.all([polls(), sender.sends(conversation, content)]);
    assertEncoded(answer, 'gzip');
    const text = gunzipSync(answer.body).toString();
    assert.ok(text.includes(content), text.slice(0, 200));
    assert.ok(answer.body.length < content.length / 10);
  }
});
