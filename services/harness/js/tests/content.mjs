// Every odd content is stored as it is or refused with a code; nobody else ever notices.
import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { closeAll, connect, direct, eventually, person, rest, token } from '../client.mjs';

let conversation, alice, bob, neighbour;
const users = { alice: person('alice'), bob: person('bob') };

before(async () => {
  conversation = await direct(users.alice, users.bob);
  [alice, bob, neighbour] = await Promise.all([connect(users.alice, 0), connect(users.bob, 1), connect(person('neighbour'), 0)]);
  await Promise.all([alice.joins(conversation), bob.joins(conversation)]);
});
// A connection that one test lost must not fail the next.
beforeEach(async () => {
  if (alice.disconnects.length > 0) alice = await connect(users.alice, 0);
});
after(closeAll);

const deep = (depth, inner = '') => '['.repeat(depth) + inner + ']'.repeat(depth);
const path = () => `/conversations/${conversation.id}/messages`;
const raw = (fields) => `{"conversation_id":"${conversation.id}"${fields && ','}${fields}}`;
const text = (value) => `"content":${JSON.stringify(value)}`;

/** The connection is as good as new: a message passes within a second, and nobody was disconnected. */
async function assertHealthy() {
  const start = Date.now();
  const message = await alice.sends(conversation, 'and on we go');
  const seen = await bob.sees('message:new', (one) => one.id === message.id);
  assert.ok(Date.now() - start < 1000, `a message took ${Date.now() - start} ms`);
  assert.deepEqual(seen, message);
  for (const client of [alice, bob, neighbour]) assert.deepEqual(client.disconnects, []);
}

const sorted = (value) =>
  value && typeof value === 'object' && !Array.isArray(value)
    ? `{${Object.keys(value)
        .sort()
        .map((key) => `${JSON.stringify(key)}:${sorted(value[key])}`)}}`
    : Array.isArray(value)
      ? `[${value.map(sorted)}]`
      : JSON.stringify(value);

const STORED_CONTENT = {
  emoji: '👩‍👩‍👧‍👦🏳️‍🌈🫠 \u{1F1E9}\u{1F1EA}',
  'bidirectional text and its controls': 'abc \u202Eevil\u202C שלום \u2067مرحبا\u2069 \u200F',
  'ten thousand combining marks': `Z${'\u0301'.repeat(10_000)}`,
  'composed and decomposed letters': 'é e\u0301 \uFB01 \u212B',
  'control characters but NUL': '\u0001\u0007\b\t\n\r\u001b[31m\u007f\u0085\u2028\u2029',
  'noncharacters and the replacement character': '\uFFFE\uFFFF\uFFFD\u{10FFFF}',
  'white space alone': ' \n\t\u00a0',
  'what looks like code': "'; DROP TABLE messages; -- <script>alert(1)</script> ${1+1} %s %n {{7*7}} \\u0000 \\x00",
  'what looks like a packet': '42["message:send",{}]\u001e3probe',
  'a byte order mark': '\uFEFFtext\uFEFF',
  'exactly 64 KiB': 'x'.repeat(65_536),
  'exactly 64 KiB of three-byte characters and one': `${'€'.repeat(21_845)}x`,
};

for (const [name, content] of Object.entries(STORED_CONTENT)) {
  test(`content with ${name} is stored byte for byte`, async () => {
    const sent = await alice.sends(conversation, content);
    const posted = await alice.rest('POST', path(), { content });
    assert.equal(posted.status, 201, posted.text);
    for (const message of [sent, posted.body]) {
      assert.equal(message.content, content);
      const seen = await bob.sees('message:new', (one) => one.id === message.id);
      assert.equal(seen.content, content);
      const { body } = await bob.rest('GET', `${path()}?before=${message.seq + 1}&limit=1`);
      assert.deepEqual(body.messages[0], message);
    }
    await assertHealthy();
  });
}

const STORED_METADATA = {
  'prototype names as keys': '{"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":1}},"toString":null}',
  'nesting a hundred deep': `{"a":${deep(100)}}`,
  'every kind of value': '{"s":"x","n":-1.5e-7,"t":true,"f":false,"z":null,"a":[],"o":{},"":"empty key"}',
  'large but exact numbers': '{"max":9007199254740991,"min":-9007199254740991,"small":5e-324}',
  'any script': '{"ключ":"значение","🔑":"🚪","rtl":"\u202eשלום"}',
};

for (const [name, metadata] of Object.entries(STORED_METADATA)) {
  test(`metadata with ${name} is stored`, async () => {
    const ack = await alice.askRaw('message:send', raw(`"content":"with metadata","metadata":${metadata}`));
    assert.equal(ack.ok, true, JSON.stringify(ack));
    const posted = await alice.rest('POST', path(), `{"content":"with metadata","metadata":${metadata}}`);
    assert.equal(posted.status, 201, posted.text);
    for (const message of [ack.message, posted.body]) {
      const seen = await bob.sees('message:new', (one) => one.id === message.id);
      const { body } = await bob.rest('GET', `${path()}?before=${message.seq + 1}&limit=1`);
      for (const one of [message, seen, body.messages[0]]) assert.equal(sorted(one.metadata), sorted(JSON.parse(metadata)));
    }
    assert.equal({}.polluted, undefined);
    await assertHealthy();
  });
}

test('metadata numbers beyond a double are stored exactly or refused', async () => {
  const says = (number) => alice.askRaw('message:send', raw(`"content":"number","metadata":{"n":${number}}`));
  for (const [number, stored] of [
    ['18446744073709551616', '18446744073709551616'],
    ['0.1000000000000000000000000000001', '0.1000000000000000000000000000001'],
    ['1E-400', `0.${'0'.repeat(399)}1`],
  ]) {
    const { ok, message } = await says(number);
    assert.equal(ok, true);
    const { text } = await bob.rest('GET', `${path()}?before=${message.seq + 1}&limit=1`);
    assert.equal(/"n": ?([^,}]*)/.exec(text)[1], stored);
  }
  for (const number of ['1e400', '-1e400', '1e1000000']) {
    const { ok, error } = await says(number);
    assert.deepEqual([ok, error?.code], [false, 'invalid'], number);
  }
  await assertHealthy();
});

test('absent and null metadata are an empty object', async () => {
  assert.deepEqual((await alice.sends(conversation, 'x')).metadata, {});
  assert.deepEqual((await alice.sends(conversation, 'x', { metadata: null })).metadata, {});
});

/** name → [event, JSON text of the arguments, code] */
const REFUSED = {
  'NUL in the content': ['message:send', () => [raw(text('a\u0000b'))], 'invalid'],
  'a lone leading surrogate': ['message:send', () => [raw('"content":"\\ud800"')], 'invalid'],
  'a lone trailing surrogate': ['message:send', () => [raw('"content":"x\\udc00x"')], 'invalid'],
  'swapped surrogates': ['message:send', () => [raw('"content":"\\ude00\\ud83d"')], 'invalid'],
  'a lone surrogate in an edit': [
    'message:edit',
    () => [raw(`"message_id":"${conversation.id}","content":"\\ud800"`)],
    'invalid',
  ],
  'a lone surrogate as metadata key': ['message:send', () => [raw('"content":"x","metadata":{"\\ud800":1}')], 'invalid'],
  'NUL in metadata': ['message:send', () => [raw('"content":"x","metadata":{"a":["\\u0000"]}')], 'invalid'],
  'NUL in a metadata key': ['message:send', () => [raw('"content":"x","metadata":{"\\u0000":1}')], 'invalid'],
  'NUL in the client id': ['message:send', () => [raw('"content":"x","client_msg_id":"\\u0000"')], 'invalid'],
  'NUL in the conversation id': ['message:send', () => ['{"conversation_id":"\\u0000","content":"x"}'], 'invalid'],
  'metadata 10,000 deep': ['message:send', () => [raw(`"content":"x","metadata":{"a":${deep(10_000)}}`)], 'too_large'],
  'metadata 2,000 deep': ['message:send', () => [raw(`"content":"x","metadata":{"a":${deep(2_000)}}`)], 'invalid'],
  'a payload 10,000 deep': ['message:send', () => [deep(10_000)], 'invalid'],
  'objects 10,000 deep': ['message:send', () => [`${'{"a":'.repeat(10_000)}1${'}'.repeat(10_000)}`], 'invalid'],
  'an ignored field 10,000 deep': ['typing', () => [raw(`"x":${deep(10_000)}`)], 'invalid'],
  'an unknown event with a payload 10,000 deep': ['no:such', () => [deep(10_000)], 'unknown_event'],
  'content of 64 KiB and a byte': ['message:send', () => [raw(text('x'.repeat(65_537)))], 'too_large'],
  'content of 8 MB': ['message:send', () => [raw(text('x'.repeat(8_000_000)))], 'too_large'],
  'an edit of 8 MB': [
    'message:edit',
    () => [raw(`"message_id":"${conversation.id}",${text('x'.repeat(8_000_000))}`)],
    'too_large',
  ],
  'metadata of 1 MB': [
    'message:send',
    () => [raw(`"content":"x","metadata":{"a":${JSON.stringify('x'.repeat(1_000_000))}}`)],
    'too_large',
  ],
  'empty content': ['message:send', () => [raw('"content":""')], 'invalid'],
  'content that is a number': ['message:send', () => [raw('"content":5')], 'invalid'],
  'content that is null': ['message:send', () => [raw('"content":null')], 'invalid'],
  'content that is an object': ['message:send', () => [raw('"content":{"text":"x"}')], 'invalid'],
  'content that is missing': ['message:send', () => [raw('')], 'invalid'],
  'metadata that is a list': ['message:send', () => [raw('"content":"x","metadata":[1]')], 'invalid'],
  'metadata that is text': ['message:send', () => [raw('"content":"x","metadata":"{}"')], 'invalid'],
  'metadata that is a number': ['message:send', () => [raw('"content":"x","metadata":1e400')], 'invalid'],
  'a client id of 65 characters': ['message:send', () => [raw(`"content":"x","client_msg_id":"${'a'.repeat(65)}"`)], 'invalid'],
  'an empty client id': ['message:send', () => [raw('"content":"x","client_msg_id":""')], 'invalid'],
  'a client id that is a number': ['message:send', () => [raw('"content":"x","client_msg_id":7')], 'invalid'],
  'the type system': ['message:send', () => [raw('"content":"x","type":"system"')], 'invalid'],
  'an unknown type': ['message:send', () => [raw('"content":"x","type":"hologram"')], 'invalid'],
  'a reply to nonsense': ['message:send', () => [raw('"content":"x","reply_to":"nonsense"')], 'invalid'],
  'a conversation id that is a list': ['message:send', () => ['{"conversation_id":["x"],"content":"x"}'], 'invalid'],
  'a conversation id with wildcards': ['conversation:join', () => ['{"conversation_id":"*.>"}'], 'invalid'],
  'no conversation id': ['conversation:join', () => ['{}'], 'invalid'],
  'a seq of 2^64': ['receipt:read', () => [raw('"up_to_seq":18446744073709551616')], 'invalid'],
  'a seq of 1e400': ['receipt:read', () => [raw('"up_to_seq":1e400')], 'invalid'],
  'a negative seq': ['receipt:read', () => [raw('"up_to_seq":-1')], 'invalid'],
  'a broken seq': ['receipt:read', () => [raw('"up_to_seq":1.5')], 'invalid'],
  'a receipt for nothing': ['receipt:read', () => [raw('"message_ids":[]')], 'invalid'],
  'a receipt for 1,001 messages': [
    'receipt:read',
    () => [raw(`"message_ids":[${Array(1001).fill(`"${conversation.id}"`)}]`)],
    'too_large',
  ],
  'typing of the wrong type': ['typing', () => [raw('"is_typing":"yes"')], 'invalid'],
  'a sync of a list': ['sync', () => ['{"conversations":[1]}'], 'invalid'],
  'a sync of nonsense': ['sync', () => ['{"conversations":{"x":{"seq":0}}}'], 'invalid'],
  'a sync with a negative seq': ['sync', () => [`{"conversations":{"${conversation.id}":{"seq":-1}}}`], 'invalid'],
  'no payload': ['message:send', () => [], 'invalid'],
  'a payload that is null': ['message:send', () => ['null'], 'invalid'],
  'a payload that is text': ['message:send', () => ['"hello"'], 'invalid'],
  'a payload that is a number': ['message:send', () => ['1e400'], 'invalid'],
  'a payload that is an empty list': ['message:send', () => ['[]'], 'invalid'],
  'a payload that is a list of the fields': [
    'message:send',
    () => [`["${conversation.id}",null,null,"as a list",null,null]`],
    'invalid',
  ],
  'an unknown event': ['no:such', () => ['{}'], 'unknown_event'],
  'an unknown event without payload': ['__proto__', () => [], 'unknown_event'],
  'an event name of 100,000 characters': ['n'.repeat(100_000), () => ['{}'], 'unknown_event'],
  'an event name with braces and equals signs': ['a{b=c} 1', () => ['{}'], 'unknown_event'],
  'a server event from a client': ['message:new', () => ['{}'], 'unknown_event'],
};

for (const [name, [event, args, code]] of /** @type {[string, [string, () => string[], string]][]} */ (Object.entries(REFUSED))) {
  test(`S3.b7 S3.x3: ${name}: refused with a code, with ack and without`, async () => {
    const json = args();
    const ack = await alice.askRaw(event, ...json);
    assert.equal(ack.ok, false, JSON.stringify(ack).slice(0, 300));
    assert.equal(ack.error.code, code);
    assert.ok(ack.error.message.length > 0 && ack.error.message.length < 300);
    alice.forget();
    alice.frame(`2[${[JSON.stringify(event), ...json].join(',')}]`);
    const told = await alice.sees('error');
    assert.equal(told.code, ack.error.code);
    assert.equal(told.message, ack.error.message);
    assert.equal(told.retry, ack.error.retry);
    assert.ok(event.startsWith(told.event.slice(0, 64)) || told.event === event, told.event.slice(0, 100));
    await assertHealthy();
  });
}

test('thirty arguments are as good as one', async () => {
  const ack = await alice.ask('message:send', { conversation_id: conversation.id, content: 'many' }, ...Array(29).fill('x'));
  assert.equal(ack.ok, true, JSON.stringify(ack));
});

test('binary attachments are refused with a code', async () => {
  for (const content of [Buffer.from('bytes'), [new Uint8Array(100_000)]]) {
    await alice.fails('invalid', 'message:send', { conversation_id: conversation.id, content });
  }
  alice.forget();
  alice.socket.emit('message:send', { conversation_id: conversation.id, content: Buffer.from('bytes') });
  assert.equal((await alice.sees('error')).code, 'invalid');
  await assertHealthy();
});

const ODD_PACKETS = {
  'a number as event name': '2[1,{}]',
  'an event name with a quote and a line break': '2["a\\"\\nb",{}]',
  'null as event name': '2[null,{}]',
  'no event name': '2[]',
  'an object instead of a list': '2{"a":1}',
  'a name the protocol reserves': '2["disconnect"]',
  'broken JSON': '2["message:send",{',
  'no JSON': '2',
  'an unknown packet type': '9',
  'an ack nobody asked for': '3999[1]',
  'an ack id beyond all bounds': '299999999999999999999999["typing",{}]',
  'a placeholder without attachment': '51-["typing",{"_placeholder":true,"num":0}]',
  'a second connect': '0{"token":"x"}',
  'another namespace': '2/admin,["typing",{}]',
};

for (const [name, packet] of Object.entries(ODD_PACKETS)) {
  test(`${name} is answered, ignored or ends that one connection`, async () => {
    const odd = await connect(users.alice, 0);
    odd.frame(packet);
    const ack = await odd.ask('conversation:join', { conversation_id: conversation.id }).catch(() => undefined);
    assert.ok(ack?.ok || odd.disconnects.length > 0, `neither usable nor closed: ${JSON.stringify(ack)}`);
    odd.close();
    await assertHealthy();
  });
}

test('an event of more than 10 MiB ends its own connection and no other', async () => {
  const big = await connect(users.alice, 0);
  big.frame(`2["message:send",${raw(text('x'.repeat(11_000_000)))}]`);
  await eventually('closed', () => big.disconnects.length > 0);
  await assertHealthy();
});

test('REST refuses the same with problem+json', async () => {
  /** @type {[string, number][]} */
  const bodies = [
    [text('a\u0000b'), 400],
    ['"content":"\\ud800"', 400],
    ['"content":""', 400],
    [text('x'.repeat(65_537)), 413],
    [`"content":"x","metadata":${deep(5_000)}`, 400],
    [`"content":"x","metadata":{"a":${deep(10_000)}}`, 413],
    ['"content":5', 400],
    ['"content":"x","metadata":[]', 400],
    ['"content":"x","type":"system"', 400],
    [text('x'.repeat(8_000_000)), 413],
  ];
  for (const [fields, status] of bodies) {
    const answer = await rest(token(users.alice), 'POST', path(), `{${fields}}`);
    assert.match(answer.type, /^application\/problem\+json/, `${answer.status} ${answer.type} ${fields.slice(0, 60)}`);
    assert.equal(answer.status, status, `${answer.text} ${fields.slice(0, 60)}`);
  }
  await assertHealthy();
});
