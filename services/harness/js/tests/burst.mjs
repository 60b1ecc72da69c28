// A burst to a client that reads, and a flood to one that does not.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import { after, test } from 'node:test';
import {
  PATIENCE_MS,
  assertGapless,
  closeAll,
  connect,
  direct,
  eventually,
  gateways,
  group,
  internals,
  person,
  token,
  transport,
} from '../client.mjs';

const CLOSED_WITHIN_MS = 10_000;
// Beyond what the kernel and the gateway may buffer for one client: the client must be closed on the way.
const FLOOD_MESSAGES = 700;
const LARGE = 'x'.repeat(60_000);
const RSS_LIMIT_KB = 150 * 1024;

after(closeAll);

test('a burst of 1,000 events reaches a healthy client whole', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await direct(alice, bob);
  const [sender, reader] = await Promise.all([connect(alice, 0), connect(bob, 0)]);
  await reader.joins(conversation);
  for (let i = 1; i <= 1000; i++) sender.socket.emit('message:send', { conversation_id: conversation.id, content: `${i}` });
  await eventually('1,000 arrived', () => reader.all('message:new').length >= 1000, 60_000);
  const contents = reader.all('message:new').map((message) => Number(message.content));
  assert.equal(contents.length, 1000);
  assertGapless(contents, 1);
  assert.deepEqual([...sender.disconnects, ...reader.disconnects], []);
});

/** A WebSocket client that joins a conversation and then never reads again. */
async function deafClient(user, conversation) {
  const { hostname, port } = new URL(gateways[0]);
  const socket = net.connect({ host: hostname, port: Number(port) });
  let received = '';
  socket.on('data', (chunk) => (received += chunk.toString('latin1')));
  socket.on('error', () => {});
  const says = (part) => eventually(`the server says ${part}`, () => received.includes(part));
  socket.write(
    `GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: ${hostname}:${port}\r\nUpgrade: websocket\r\n` +
      `Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${randomBytes(16).toString('base64')}\r\n\r\n`,
  );
  await says('0{');
  socket.write(maskedFrame(`40${JSON.stringify({ token: token(user), dialect: 'native' })}`));
  await says('40{');
  socket.write(maskedFrame(`420${JSON.stringify(['conversation:join', { conversation_id: conversation.id }])}`));
  await says('430[');
  socket.pause();
  return socket;
}

function maskedFrame(text) {
  const payload = Buffer.from(text);
  assert.ok(payload.length < 65_536);
  const head = payload.length < 126 ? [0x81, 0x80 | payload.length] : [0x81, 0xfe, payload.length >> 8, payload.length & 255];
  // A mask of zeros leaves the payload as it is.
  return Buffer.concat([Buffer.from([...head, 0, 0, 0, 0]), payload]);
}

async function metric(pattern) {
  const text = await (await fetch(`${internals[0]}/metrics`)).text();
  const values = text
    .split('\n')
    .filter((line) => pattern.test(line))
    .map((line) => Number(line.split(' ').at(-1)));
  return values.reduce((sum, value) => sum + value, 0);
}

const SLOW = /^chat_gateway_slow_consumers_total/;
const rss = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${process.env.PARLANCE_GATEWAY_PID}/status`, 'utf8'))[1]);

const needsWebsocket = transport === 'websocket' ? false : 'the client is a WebSocket client of its own';

test('a client that never reads is closed within 10 s; nobody else notices and memory stays bounded', {
  skip: needsWebsocket,
}, async () => {
  const [alice, bob, deaf] = [person('alice'), person('bob'), person('deaf')];
  const conversation = await group(alice, [bob, deaf]);
  const [sender, reader] = await Promise.all([connect(alice, 0), connect(bob, 0)]);
  await reader.joins(conversation);
  const socket = await deafClient(deaf, conversation);
  const slowBefore = await metric(SLOW);

  let largest = 0;
  let closedAfter;
  const start = Date.now();
  const watch = (async () => {
    await eventually(
      'the deaf client is closed',
      async () => {
        largest = Math.max(largest, rss());
        return (await metric(SLOW)) > slowBefore;
      },
      // A flood takes long where cores are short; what counts is how soon after it.
      2 * PATIENCE_MS,
    );
    closedAfter = Date.now() - start;
  })();
  for (let i = 0; i < FLOOD_MESSAGES; i += 50) {
    await Promise.all(Array.from({ length: 50 }, () => sender.sends(conversation, LARGE)));
    largest = Math.max(largest, rss());
  }
  // The buffers were full at the latest when the gateway had emitted the whole flood.
  await eventually('the reader has all', () => reader.all('message:new').length >= FLOOD_MESSAGES);
  const flooded = Date.now() - start;
  await watch;
  assert.ok(closedAfter - flooded < CLOSED_WITHIN_MS, `closed ${closedAfter - flooded} ms after the flood of ${flooded} ms`);

  const ended = new Promise((resolve) => socket.once('close', resolve));
  socket.resume();
  await ended;
  assertGapless(
    reader.all('message:new').map((message) => message.seq),
    1,
  );
  assert.deepEqual([...sender.disconnects, ...reader.disconnects], []);
  await sender.sends(conversation, 'and on');
  await reader.sees('message:new', (message) => message.content === 'and on');
  largest = Math.max(largest, rss());
  assert.ok(largest < RSS_LIMIT_KB, `the gateway took ${largest} KB`);
  console.log(`flood ${flooded} ms, closed after ${closedAfter} ms, at most ${Math.round(largest / 1024)} MB`);
});
