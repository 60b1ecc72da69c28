// Another backend service on the bus: speaks the NATS protocol by itself and knows nothing of ours. A user in
// PARLANCE_NATS_URL is its role.
import { connect } from 'node:net';
import { within } from './client.mjs';

const url = new URL(process.env.PARLANCE_NATS_URL ?? 'nats://127.0.0.1:4222');
const role = { user: url.username || undefined, pass: url.password || undefined };
const inbox = url.username ? `_INBOX.${url.username}.js` : 'inbox';
const hello = JSON.stringify({ verbose: false, headers: true, no_responders: true, ...role });

/** Publishes, an object as JSON, and resolves with the answer of the stream that takes it. */
export function publish(subject, payload, headers = {}) {
  const isJson = typeof payload === 'object' && !Buffer.isBuffer(payload);
  const body = Buffer.isBuffer(payload) ? payload : Buffer.from(isJson ? JSON.stringify(payload) : payload);
  const all = { ...(isJson && { 'Content-Type': 'application/json' }), ...headers };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  const head = Buffer.from(`NATS/1.0\r\n${lines.join('')}\r\n`);
  const socket = connect(Number(url.port), url.hostname);
  const answer = new Promise((resolve, reject) => {
    let seen = '';
    socket.on('error', reject);
    socket.on('data', (data) => {
      seen += data;
      if (seen.includes('-ERR')) reject(new Error(seen));
      const found = seen.match(/MSG \S+ 1 (\d+)\r\n(.*)\r\n/);
      if (found) resolve(JSON.parse(found[2]));
    });
  });
  socket.write(`CONNECT ${hello}\r\nSUB ${inbox} 1\r\n`);
  socket.write(`HPUB ${subject} ${inbox} ${head.length} ${head.length + body.length}\r\n`);
  socket.write(Buffer.concat([head, body, Buffer.from('\r\n')]));
  return within(answer, `the stream of ${subject} answers`).finally(() => socket.destroy());
}

/** An id as one token of a subject. */
export const subjectToken = (id) =>
  [...Buffer.from(id)]
    .map((byte) => {
      const char = String.fromCharCode(byte);
      return /[A-Za-z0-9-]/.test(char) ? char : `_${byte.toString(16).toUpperCase().padStart(2, '0')}`;
    })
    .join('');
