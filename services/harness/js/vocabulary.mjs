// How the front end of each dialect says things, for tests that bring several of them together.
import assert from 'node:assert/strict';
import { connect, direct, eventually, person, token } from './client.mjs';

/** A connected client of a dialect that remembers every event, whatever its name. */
export const speak = (dialect, user, gateway = 0, options = {}) =>
  connect(user, gateway, { auth: { token: token(user), dialect }, events: 'all', ...options });

/** A user whose id is a number, as some front ends have it. */
export const numbered = () => String(Math.floor(Math.random() * 2 ** 46) + 1_000_000);

/** Emits as a front end that asks for no ack. */
export const says = (client, event, ...args) => client.socket.emit(event, ...args);

/** Emits with an ack, which must be positive in either of the two usual ways. */
export async function agreed(client, event, ...args) {
  const ack = await client.ask(event, ...args);
  assert.ok(ack?.ok || ack?.success, `${client.user}: ${event} was refused: ${JSON.stringify(ack)}`);
  return ack;
}

/** Waits until a client that joins nothing by hand is notified of the conversation. */
export async function follows(client, event, payload) {
  await eventually(`${client.user} follows the conversation`, async () => {
    const ack = await client.ask(event, payload);
    return ack?.ok || ack?.success;
  });
  return client;
}

/** Two users of a dialect on two gateways with a direct conversation; `enter` makes a client follow it. */
export async function pair(dialect, people, enter) {
  const conversation = await direct(...people);
  const clients = await Promise.all(people.map((user, gateway) => speak(dialect, user, gateway)));
  await Promise.all(clients.map((client) => enter(client, conversation)));
  for (const client of clients) client.forget();
  return [conversation, ...clients];
}

/** Every key is there; more may be. */
export function has(payload, ...keys) {
  for (const key of keys) assert.ok(key in payload, `${key} is missing in ${JSON.stringify(payload)}`);
}

/** Asserts that these fields have these values; others may be there. */
export function holds(payload, fields) {
  const found = Object.fromEntries(Object.keys(fields).map((key) => [key, payload[key]]));
  assert.deepEqual(found, fields, JSON.stringify(payload));
}

/** Events, and which dialects know them; any other answers `unknown_event`. */
const KNOWN = {
  'receipt:read': ['native'],
  markAsRead: ['journal'],
  'chat:typing': ['encrypted'],
  'chat:join': ['chats'],
  'message:read': ['chats', 'threads'],
  'conversation:join': ['native', 'threads'],
  mark_as_read: ['inbox'],
};

/** Asserts that a connection made like this speaks this dialect and no other. */
export async function speaks(dialect, options) {
  const client = await connect(person('any'), 0, options);
  const failure = async (event) => {
    const { code, error } = await client.ask(event, {});
    return code ?? error.code;
  };
  for (const [event, dialects] of Object.entries(KNOWN)) {
    assert.equal((await failure(event)) !== 'unknown_event', dialects.includes(dialect), `${event} in ${dialect}`);
  }
  client.close();
}
