// The stock chat server: Express, Socket.IO with the Redis adapter, pg. Speaks the `chats` dialect
// and keeps its promises: a message is stored in Postgres before it is broadcast, only participants send, read and
// receive. Presence is published when a client asks for it (`presence:online`), never by itself: the cheaper choice.
import { createServer } from 'node:http';
import { createAdapter } from '@socket.io/redis-adapter';
import express from 'express';
import pg from 'pg';
import { createClient } from 'redis';
import { Server } from 'socket.io';
import { authenticate } from './auth.mjs';
import { Store } from './store.mjs';

const { DATABASE_URL, REDIS_URL, JWT_SECRET, PORT } = process.env;
const store = new Store(
  new pg.Pool({ connectionString: DATABASE_URL, max: 20, min: 4 }),
  // A status may be lost in a crash, so its commit does not wait for the disk.
  new pg.Pool({ connectionString: DATABASE_URL, max: 10, options: '-c synchronous_commit=off' }),
);
const room = (chat) => `chat:${chat}`;

const app = express();
app.disable('x-powered-by');
app.disable('etag');
app.use('/api', (request, response, next) => {
  try {
    request.user = authenticate(request.headers.authorization?.replace(/^Bearer /, ''), JWT_SECRET);
    next();
  } catch {
    response.status(401).json({ error: 'Unauthorized' });
  }
});
app.get('/api/conversations', async ({ user, query }, response) => {
  response.json(await store.chats(user.id, page(query.limit), Number(query.offset ?? 0)));
});
app.get('/api/messages/:chat', async ({ user, params, query }, response) => {
  if (!(await store.isParticipant(params.chat, user.id))) return response.status(403).json({ error: 'ForbiddenError' });
  response.json(await store.messages(params.chat, page(query.limit), Number(query.offset ?? 0)));
});

function page(limit) {
  return Math.min(Number(limit ?? 50), 100);
}

const server = createServer(app);
const io = new Server(server, { serveClient: false, cors: { origin: '*' } });
const publisher = await createClient({ url: REDIS_URL }).connect();
const subscriber = await publisher.duplicate().connect();
io.adapter(createAdapter(publisher, subscriber));
// What the documentation advises: the first request of a connection is not kept in memory.
io.engine.on('connection', (socket) => (socket.request = null));

io.use((socket, next) => {
  try {
    socket.data.user = authenticate(socket.handshake.auth.token, JWT_SECRET);
  } catch {
    return next(new Error('Unauthorized'));
  }
  // Before the client hears that it is connected: none of its events can come too early.
  store.connected(socket.data.user).then(
    (chats) => {
      if (!chats) return next(new Error('User not found'));
      socket.data.chats = new Set(chats);
      socket.join([`user:${socket.data.user.id}`, ...chats.map(room)]);
      next();
    },
    () => next(new Error('Try again')),
  );
});

io.on('connection', (socket) => {
  const { user, chats } = socket.data;
  const on = (event, handler) =>
    socket.on(event, async (payload, ack) => {
      try {
        const result = await handler(payload ?? {});
        if (typeof ack === 'function') ack({ success: true, ...result });
      } catch (error) {
        socket.emit('error', { message: error.message });
        if (typeof ack === 'function') ack({ success: false, error: error.message });
      }
    });
  const member = async (chat) => {
    if (chats.has(chat)) return;
    if (!(await store.isParticipant(chat, user.id))) throw new Error('Not a participant');
    chats.add(chat);
    await socket.join(room(chat));
  };

  on('chat:join', async ({ chatId }) => {
    await member(chatId);
    return { chatId };
  });
  on('chat:leave', ({ chatId }) => socket.leave(room(chatId)));
  on('message:send', async ({ chatId, content, messageType = 'text' }) => {
    await member(chatId);
    if (typeof content !== 'string' || content.length === 0) throw new Error('Content is required');
    const message = await store.send(chatId, user, content, messageType);
    io.to(room(chatId)).emit('message:new', message);
    return { message };
  });
  // An agent's text while it is made: passed on part by part, and sent as a message when it is whole.
  on('message:append', async ({ chatId, offset, text }) => {
    await member(chatId);
    socket.to(room(chatId)).emit('message:chunk', { chatId, offset, text });
  });
  on('message:read', async ({ chatId, messageId }) => {
    await member(chatId);
    await store.read(chatId, messageId, user.id);
    socket.to(room(chatId)).emit('message:read', { messageId, userId: user.id, chatId });
  });
  for (const event of ['typing:start', 'typing:stop']) {
    on(event, async ({ chatId }) => {
      await member(chatId);
      socket.to(room(chatId)).volatile.emit(event, { chatId, userId: user.id, username: user.username });
    });
  }
  on('presence:online', () => {
    socket.to([...chats].map(room)).emit('user:status', { userId: user.id, status: 'online' });
  });
  socket.on('disconnect', () => store.disconnected(user.id).catch(() => {}));
});

server.listen({ port: Number(PORT), host: '127.0.0.1', backlog: 4096 });
