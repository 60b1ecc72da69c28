// Where the reference server is strict, so is this one: the same is sent to both.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { io } from 'socket.io-client';
import { closeAll, connect, eventually, gateways, person, token, within } from '../client.mjs';
import { Polling } from '../engine.mjs';
import { Raw, UPGRADE, request } from '../raw.mjs';
import { reference } from '../reference.mjs';

/** As the stack is configured. */
const MAX_PAYLOAD = Number(process.env.PARLANCE_MAX_PAYLOAD);
const [here, there] = gateways;
const auth = (user = person('alice')) => ({ token: token(user), dialect: 'native', since: {} });
const raws = [];
let stock;
before(async () => {
  stock = await reference({ maxHttpBufferSize: MAX_PAYLOAD });
});
after(() => {
  for (const raw of raws) raw.close();
  stock.close();
  closeAll();
});

/** An open WebSocket, in the main namespace. */
async function websocket(base) {
  const raw = new Raw(base);
  raws.push(raw);
  return raw.connects(auth());
}

/** A polling session in the main namespace. */
async function polling(base) {
  const session = await Polling.open(base);
  await session.post(`40${JSON.stringify(auth())}`);
  await session.until((packet) => packet.startsWith('40'));
  return session;
}

/** An upgraded session, whose WebSocket is at another gateway. */
async function upgraded(base, other) {
  const session = await polling(base);
  const raw = new Raw(other, `&sid=${session.sid}`);
  raws.push(raw);
  await eventually('the WebSocket is open', () => raw.socket.readyState === 1);
  raw.send('2probe');
  await raw.sees('3probe');
  raw.send('5');
  raw.send('421["no such event",{}]');
  await raw.sees('431');
  return raw;
}

const queries = {
  'an unknown transport': { query: 'EIO=4&transport=pigeon' },
  'no transport': { query: 'EIO=4' },
  'a handshake by POST': { query: 'EIO=4&transport=polling', method: 'POST', body: '40' },
  'an unknown session': { query: 'EIO=4&transport=polling&sid=nosuchsession' },
  'an unknown session by POST': { query: 'EIO=4&transport=polling&sid=nosuchsession', method: 'POST', body: '40' },
  'an unknown session by WebSocket': { query: 'EIO=4&transport=websocket&sid=nosuchsession', headers: UPGRADE },
  'a WebSocket without upgrade': { query: 'EIO=4&transport=websocket' },
  'a WebSocket whose upgrade a proxy removed': {
    query: 'EIO=4&transport=websocket',
    headers: { 'sec-websocket-version': '13', 'sec-websocket-key': UPGRADE['sec-websocket-key'], connection: 'close' },
  },
  'an old client': { query: 'EIO=3&transport=polling' },
};

for (const [what, { query, ...options }] of Object.entries(queries)) {
  test(`${what} is refused with the same status and code`, async () => {
    const [ours, theirs] = await Promise.all([here, stock.url].map((base) => request(`${base}/socket.io/?${query}`, options)));
    assert.equal(ours.status, 400);
    assert.equal(theirs.status, 400);
    const own = JSON.parse(ours.text);
    // To a WebSocket the reference server says the message only.
    const wanted = theirs.text.startsWith('{') ? JSON.parse(theirs.text) : { code: own.code, message: theirs.text };
    assert.equal(own.code, wanted.code);
    assert.ok(own.message.startsWith(wanted.message), own.message);
  });
}

test('an old client reads what to upgrade', async () => {
  for (const transport of ['polling', 'websocket']) {
    const { status, text } = await request(`${here}/socket.io/?EIO=3&transport=${transport}`, { headers: UPGRADE });
    assert.equal(status, 400);
    assert.match(JSON.parse(text).message, /upgrade socket\.io-client to version 4/);
  }
});

test('a WebSocket for a session that has ended is refused, at any gateway', async () => {
  for (const base of [here, there]) {
    const session = await polling(here);
    await session.post('1');
    const { status } = await request(session.url(base).replace('polling', 'websocket'), { headers: UPGRADE });
    assert.equal(status, 400);
  }
});

test('a second WebSocket for one session is refused', async () => {
  const session = await polling(here);
  const first = new Raw(here, `&sid=${session.sid}`);
  raws.push(first);
  await eventually('the first is open', () => first.socket.readyState === 1);
  const url = session.url().replace('polling', 'websocket');
  assert.equal((await request(url, { headers: UPGRADE })).status, 400);
  first.send('2probe');
  await first.sees('3probe');
  first.send('5');
  await eventually('it is upgraded', async () => (await session.poll()).status === 400);
  assert.equal((await request(url, { headers: UPGRADE })).status, 400);
});

test('a WebSocket that ends before it confirms leaves the session polling', async () => {
  const session = await polling(here);
  for (const base of [here, there, here]) {
    // Refused until the end of the one before is noticed.
    const raw = await eventually('a WebSocket is open', async () => {
      const one = new Raw(base, `&sid=${session.sid}`);
      await eventually('open or refused', () => one.socket.readyState === 1 || one.end);
      return one.socket.readyState === 1 && one;
    });
    raw.send('2probe');
    await raw.sees('3probe');
    raw.close();
    await session.post('421["no such event",{}]', base);
    await session.until((packet) => packet.startsWith('431'), base);
  }
});

test('a message above maxPayload closes a WebSocket with 1009, here and through another gateway', async () => {
  const sockets = [await websocket(stock.url), await websocket(here), await upgraded(here, there)];
  for (const raw of sockets) {
    raw.send(`42["no such event","${'x'.repeat(MAX_PAYLOAD)}"]`);
    assert.equal((await raw.ended()).code, 1009);
  }
});

test('a message of maxPayload passes', async () => {
  const raw = await websocket(here);
  const [head, tail] = ['421["no such event","', '"]'];
  raw.send(head + 'x'.repeat(MAX_PAYLOAD - head.length - tail.length) + tail);
  await raw.sees('431');
});

test('a request above maxPayload ends the session, here and through another gateway', async () => {
  for (const base of [here, there]) {
    const session = await polling(here);
    const { status } = await session.post(`42["no such event","${'x'.repeat(MAX_PAYLOAD)}"]`, base);
    assert.equal(status, 413);
    await eventually('the session is gone', async () => (await session.post('3')).status === 400);
  }
});

const invalid = {
  'an event for a namespace that is not connected': '42/other,["event",{}]',
  'an acknowledgement for a namespace that is not connected': '43/other,1[]',
  'a second CONNECT': '40{}',
};

for (const [what, packet] of Object.entries(invalid)) {
  test(`${what} closes the connection`, async () => {
    for (const base of [stock.url, here]) {
      const raw = await websocket(base);
      raw.send(packet);
      await raw.ended();
      const session = await polling(base);
      await session.post(packet);
      // The reference server waits for a poll to say so.
      await session.poll();
      await eventually('the session is gone', async () => (await session.post('3')).status === 400);
    }
    const raw = await upgraded(here, there);
    raw.send(packet);
    assert.equal((await raw.ended()).code, 1008);
  });
}

test('an event before CONNECT closes the connection', async () => {
  for (const base of [stock.url, here]) {
    const raw = new Raw(base);
    raws.push(raw);
    await raw.sees('0');
    raw.send('42["event",{}]');
    await raw.ended();
  }
});

test('a client may leave a namespace and connect again', async () => {
  const raw = await websocket(here);
  raw.send('41');
  await eventually('connected again', async () => {
    raw.packets.length = 0;
    raw.send(`40${JSON.stringify(auth())}`);
    return within(raw.sees('40'), 'an answer', 500);
  });
  raw.send('421["no such event",{}]');
  await raw.sees('431');
});

test('events whose name is a number are answered', async () => {
  const raw = await websocket(here);
  const theirs = await websocket(stock.url);
  for (const [id, packet] of ['[5,"x"]', '[-1.5]', '[ 7 , {} ]'].entries()) {
    raw.send(`42${id}${packet}`);
    assert.match(await raw.sees(`43${id}`), /unknown_event/);
    theirs.send(`42${id}${packet}`);
    await theirs.sees(`43${id}`);
  }
  raw.send('42[5]');
  assert.match(await raw.sees('42["error"'), /unknown_event/);
  const session = await polling(there);
  await session.post('427[5,"x"]');
  await session.until((packet) => packet.startsWith('437'));
  const moved = await upgraded(here, there);
  moved.send('429[5,"x"]');
  await moved.sees('439');
});

test('answers have at most one Vary header', async () => {
  const handshake = `${here}/socket.io/?EIO=4&transport=polling`;
  for (const [url, options] of [
    [handshake, {}],
    [handshake, { headers: { origin: here } }],
    [handshake, { method: 'OPTIONS', headers: { origin: here, 'access-control-request-method': 'POST' } }],
    [`${here}/api/v1/conversations`, { headers: { origin: here, authorization: `Bearer ${token(person('alice'))}` } }],
    [`${here}/health`, {}],
  ]) {
    const { headers } = await request(/** @type {string} */ (url), /** @type {object} */ (options));
    const names = headers.filter((_, index) => index % 2 === 0).map((name) => name.toLowerCase());
    assert.ok(names.filter((name) => name === 'vary').length <= 1, `${url}: ${headers}`);
  }
});

/** The parser of `socket.io-msgpack-parser` as far as this needs it: every packet is binary, CONNECT_ERROR is read. */
class MessagePackDecoder {
  handlers = {};

  on(event, handler) {
    this.handlers[event] = handler;
  }

  off() {}
  destroy() {}

  add(packet) {
    const bytes = Buffer.from(packet);
    assert.equal(bytes.subarray(0, 13).toString('latin1'), '\x83\xa4type\x04\xa3nsp\xa1/');
    const message = bytes.subarray(bytes.indexOf('message') + 'message'.length + 2).toString();
    this.handlers.decoded({ type: 4, nsp: '/', data: { message } });
  }
}

class MessagePackEncoder {
  encode() {
    return [Buffer.from('\x83\xa4type\x00\xa4data\x80\xa3nsp\xa1/', 'latin1')];
  }
}

test('a client with the MessagePack parser reads that it must do without, and does not come again', async () => {
  for (const base of [here, there]) {
    for (const transports of [['websocket'], ['polling'], ['polling', 'websocket']]) {
      const socket = io(base, {
        parser: { Encoder: MessagePackEncoder, Decoder: MessagePackDecoder },
        auth: auth(),
        transports,
        forceNew: true,
      });
      const error = await within(new Promise((resolve) => socket.once('connect_error', resolve)), `${transports}: a refusal`);
      socket.close();
      assert.match(error.message, /default Socket\.IO parser/, String(transports));
    }
  }
});

test('a stock client is served after all that', async () => {
  const client = await connect(person('alice'));
  await client.ask('no such event', {});
});
