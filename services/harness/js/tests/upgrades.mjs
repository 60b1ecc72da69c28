// The stock client's upgrade from polling to WebSocket, behind a balancer that takes it to any gateway.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Client, closeAll, direct, eventually, gateways, person } from '../client.mjs';

const url = process.env.PARLANCE_BALANCER;
/** Whether gateways carry upgrades to each other. */
const carried = process.env.PARLANCE_CARRIED === 'yes';
/** The process of the first gateway. */
const leaving = Number(process.env.PARLANCE_LEAVING);
const CLIENTS = 20;
const [alice, bob] = [person('alice'), person('bob')];
let clients;
let conversation;
after(closeAll);

const transportOf = (client) => client.socket.io.engine?.transport?.name;
const settled = (client) => !client.socket.io.engine.upgrading && client.socket.connected;

async function everyoneTalks() {
  const said = await Promise.all(clients.map((client) => client.sends(conversation, `from ${client.user}`)));
  for (const client of clients) {
    for (const { id } of said) await client.sees('message:new', (message) => message.id === id);
  }
}

test('everyone connects, and upgrades where that is possible', async () => {
  conversation = await direct(alice, bob);
  clients = Array.from(
    { length: CLIENTS },
    (_, i) =>
      new Client(i % 2 ? alice : bob, 0, {
        url,
        transports: ['polling', 'websocket'],
        reconnection: true,
        reconnectionDelay: 100,
        reconnectionDelayMax: 500,
      }),
  );
  for (const client of clients) await eventually('connected and upgraded, or not', () => settled(client));
  if (carried) await eventually('all upgraded', () => clients.every((client) => transportOf(client) === 'websocket'));
  else assert.ok(clients.filter((client) => transportOf(client) === 'polling').length > 0, 'all upgrades arrived at home');
  for (const client of clients) await client.joins(conversation);
  await everyoneTalks();
  assert.deepEqual(
    clients.flatMap((client) => client.disconnects),
    [],
  );
});

test('a gateway leaves, and clients connected through it reconnect', { skip: !carried }, async () => {
  process.kill(leaving, 'SIGTERM');
  await eventually('it is gone', () =>
    fetch(`${gateways[0]}/health`).then(
      () => false,
      () => true,
    ),
  );
  const gone = clients.filter((client) => client.disconnects.length > 0);
  assert.ok(gone.length > 0 && gone.length < CLIENTS, `${gone.length} were disconnected`);
  for (const client of clients) await eventually('connected again', () => settled(client));
  for (const client of gone) await client.joins(conversation);
  await everyoneTalks();
});
