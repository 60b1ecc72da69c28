// Three replicas of the usual chat server, `socket.io` for Node.js, with just enough behaviour for the players of
// a load: to show what a balancer without stickiness does to it. Prints the ports as JSON; ends with its input.
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { Server } from 'socket.io';

const REPLICAS = 3;
const seqs = new Map();

function routes(request, response) {
  const json = (status, body) => response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  if (['/readyz', '/health'].includes(request.url)) return json(200, {});
  request.resume();
  if (request.url.endsWith('/conversations/group')) return json(201, { id: randomUUID() });
  return json(404, { code: 'not_found', retry: false });
}

function serve(io) {
  io.on('connection', (socket) => {
    const epoch = 'stock';
    socket.on('conversation:join', ({ conversation_id: id }, ack) => {
      socket.join(id);
      ack({ ok: true, conversation: { id, head_seq: seqs.get(id) ?? 0, epoch } });
    });
    socket.on('sync', ({ conversations }, ack) => {
      const page = (id) => [id, { events: [], head_seq: seqs.get(id) ?? 0, complete: true, epoch }];
      ack({ ok: true, conversations: Object.fromEntries(Object.keys(conversations).map(page)) });
    });
    socket.on('message:send', ({ conversation_id: id, content }, ack) => {
      const seq = (seqs.get(id) ?? 0) + 1;
      seqs.set(id, seq);
      const message = { id: randomUUID(), conversation_id: id, seq, content };
      io.to(id).emit('message:new', message);
      ack({ ok: true, message });
    });
  });
}

const replicas = await Promise.all(
  Array.from({ length: REPLICAS }, () => {
    const server = createServer(routes);
    serve(new Server(server));
    return new Promise((resolve) =>
      server.listen(0, '127.0.0.1', () => resolve(/** @type {import('node:net').AddressInfo} */ (server.address()).port)),
    );
  }),
);
process.stdout.write(`${JSON.stringify(replicas)}\n`);
process.stdin.on('end', () => process.exit(0)).resume();
