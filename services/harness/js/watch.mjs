// Users who stay connected and write down what they hear of presence: one JSON line for each event. The first
// argument is a list of {user, dialect, gateways, returns, deaf}: `gateways` are tried in turn, `returns` is whether
// to come again, `deaf` keeps the client from noticing that the server is silent. Ends with its standard input.
import { io } from 'socket.io-client';
import { token } from './client.mjs';

const urls = process.env.PARLANCE_GATEWAYS.split(',');
const WORDS = ['presence:changed', 'user:status_changed', 'user:status'];
const say = (line) => process.stdout.write(`${JSON.stringify({ at: Date.now(), ...line })}\n`);

function stay({ user, dialect, gateways, returns = true, deaf = false }, attempt = 0) {
  const socket = io(urls[gateways[attempt % gateways.length]], {
    auth: { token: token(user), dialect },
    transports: ['websocket'],
    reconnection: false,
    forceNew: true,
  });
  const again = () => returns && setTimeout(() => stay({ user, dialect, gateways, returns }, attempt + 1), 300);
  socket.on('connect', () => {
    const engine = /** @type {any} */ (socket.io.engine);
    if (deaf) {
      engine._pingInterval = 1e9;
      engine._resetPingTimeout();
    }
    say({ user, event: 'connected', gateway: gateways[attempt % gateways.length] });
  });
  socket.on('connect_error', again);
  socket.on('disconnect', (reason) => {
    say({ user, event: 'disconnected', reason });
    again();
  });
  for (const event of WORDS) {
    socket.on(event, (payload) =>
      say({ user, event, of: payload.userId ?? payload.user_id, status: payload.status, last_seen_at: payload.last_seen_at }),
    );
  }
}

for (const one of JSON.parse(process.argv[2])) stay(one);
