// Many users of the stock client with the stock settings, who do nothing but stay connected through a load balancer,
// and write down how that goes: one JSON line for each connection, its end, and each refusal. The argument is
// {url, users, watchers}: a watcher writes down what it hears of presence as well. Every fourth user begins with
// polling, which upgrades. Ends with its standard input.
import { io } from 'socket.io-client';
import { token } from './client.mjs';

const { url, users, watchers } = JSON.parse(process.argv[2]);
/** New ones a second and process: who opens them all at once tests something else. */
const PACE_MS = 20;
const say = (event, line) => process.stdout.write(`${JSON.stringify({ at: Date.now(), event, ...line })}\n`);

function stay(user, index) {
  const socket = io(url, {
    auth: { token: token(user), dialect: 'native' },
    transports: index % 4 === 3 ? ['polling', 'websocket'] : ['websocket'],
    forceNew: true,
  });
  socket.on('connect', () => say('connected', { user }));
  socket.on('disconnect', (reason) => say('disconnected', { user, reason }));
  socket.on('connect_error', (/** @type {any} */ error) => {
    say('refused', { user, reason: `${error.message} ${error.context?.status ?? error.description?.message ?? ''}`.trim() });
    // A refusal in the protocol itself: the stock client gives up, and so does this one.
    if (!socket.active) say('gave-up', { user });
  });
  if (!watchers.includes(user)) return;
  socket.on('presence:changed', ({ user_id: of, status }) => say('presence', { user, of, status }));
}

users.forEach((user, index) => setTimeout(() => stay(user, index), index * PACE_MS));
