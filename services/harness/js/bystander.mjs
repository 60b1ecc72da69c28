// Two users in one direct conversation, each at another gateway. One writes all the time; each message is one JSON line:
// {at, acked, heard} with the milliseconds until the answer and until the other had it, or {at, error}. Ends with its
// standard input.
import { io } from 'socket.io-client';
import { token } from './client.mjs';

const [conversation, writer, reader] = process.argv.slice(2);
const urls = process.env.PARLANCE_GATEWAYS.split(',');
const PAUSE_MS = 40;
const PATIENCE_MS = 20_000;
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

/** A client that has joined; it is whole again after whatever happens to its connection. */
function join(user, url) {
  const socket = io(url, {
    auth: { token: token(user), dialect: 'native', since: {} },
    transports: ['websocket'],
    forceNew: true,
  });
  socket.on('disconnect', (reason) => say({ at: Date.now(), error: `${user} lost the connection: ${reason}` }));
  return new Promise((resolve) => {
    socket.on('connect', () =>
      socket.emit('conversation:join', { conversation_id: conversation }, (answer) => {
        if (!answer.ok) say({ at: Date.now(), error: `${user} did not join: ${JSON.stringify(answer)}` });
        resolve(socket);
      }),
    );
  });
}

const [from, to] = await Promise.all([join(writer, urls[0]), join(reader, urls[urls.length - 1])]);
const heard = new Map();
to.on('message:new', (message) => heard.get(message.content)?.());
process.stdin.on('end', () => process.exit(0)).resume();

for (let number = 0; ; number++) {
  const at = Date.now();
  const began = performance.now();
  const since = () => performance.now() - began;
  const content = `message-${number}`;
  const arrives = new Promise((resolve) => heard.set(content, () => resolve(since())));
  const late = new Promise((_, reject) => setTimeout(reject, PATIENCE_MS, new Error('nothing was heard')).unref());
  try {
    const payload = { conversation_id: conversation, content, client_msg_id: content };
    const answer = await from.timeout(PATIENCE_MS).emitWithAck('message:send', payload);
    if (!answer.ok) throw new Error(JSON.stringify(answer));
    const acked = since();
    say({ at, acked, heard: await Promise.race([arrives, late]) });
  } catch (error) {
    say({ at, error: error.message });
  }
  heard.delete(content);
  await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
}
