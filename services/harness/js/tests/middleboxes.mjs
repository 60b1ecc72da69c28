// Stock clients with default transports behind middleboxes that pass the 101 of a WebSocket and then fail it.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { io } from 'socket.io-client';
import { closeAll, eventually, gateways, person, token, within } from '../client.mjs';
import { middlebox } from '../middlebox.mjs';
import { reference } from '../reference.mjs';

const EVENTS = 23;
/** The server gives an upgrade up after 10 s; the client must not notice that either. */
const GIVEN_UP_MS = 11_000;
/** Requests of one client that has nothing to say, while its upgrade hangs: a few polls that end early. */
const MOST_REQUESTS = 25;
const closing = [];
after(() => {
  for (const one of closing) one.close();
  closeAll();
});

/** What a stock client makes of a server behind a middlebox. */
async function through(servers, kind) {
  const box = await middlebox(servers, kind);
  closing.push(box);
  let connects = 0;
  const troubles = [];
  const socket = io(box.url, {
    auth: { token: token(person(kind)), dialect: 'native', since: {} },
    forceNew: true,
    reconnectionDelay: 100,
  });
  closing.push(socket);
  socket.on('connect', () => (connects += 1));
  socket.on('disconnect', (reason) => troubles.push(reason));
  socket.on('connect_error', (error) => troubles.push(error.message));
  await eventually(`${kind}: connected`, () => socket.connected);
  let acked = 0;
  for (let i = 0; i < EVENTS; i++) {
    await within(socket.emitWithAck('no such event', {}), `${kind}: an answer to event ${i}`);
    acked += 1;
  }
  const before = box.requests();
  const since = performance.now();
  await eventually(`${kind}: time goes by`, () => performance.now() - since > GIVEN_UP_MS || troubles.length > 0);
  await within(socket.emitWithAck('no such event', {}), `${kind}: an answer after the upgrade was given up`);
  return { connects, troubles, acked, transport: socket.io.engine.transport.name, requests: box.requests() - before };
}

/** All failing kinds at once, because each takes its time. */
async function assertUnharmed(t, servers, most) {
  const kinds = ['swallows', 'cuts', 'mutes', 'strips'].map((kind) =>
    t.test(`a client goes on polling where a middlebox ${kind} WebSockets`, async () => {
      const { requests, ...outcome } = await through(servers, kind);
      console.log(`# ${kind}: ${requests} requests in ${GIVEN_UP_MS} ms`);
      assert.deepEqual(outcome, { connects: 1, troubles: [], acked: EVENTS, transport: 'polling' });
      assert.ok(requests <= most, `${requests} requests`);
    }),
  );
  kinds.push(
    t.test('a client upgrades where it passes them', async () => {
      const { requests, ...outcome } = await through(servers, 'none');
      assert.deepEqual(outcome, { connects: 1, troubles: [], acked: EVENTS, transport: 'websocket' });
      assert.equal(requests, 0);
    }),
  );
  await Promise.all(kinds);
}

test('at one gateway', { concurrency: true }, (t) => assertUnharmed(t, gateways.slice(0, 1), MOST_REQUESTS));

test('at two gateways in turn', { concurrency: true }, (t) => assertUnharmed(t, gateways.slice(0, 2), MOST_REQUESTS));

test('at the reference server, so that these middleboxes are what they say', { concurrency: true }, async (t) => {
  const server = await reference();
  closing.push(server);
  // It ends polls ten times a second while an upgrade hangs.
  await assertUnharmed(t, [server.url], 250);
});
