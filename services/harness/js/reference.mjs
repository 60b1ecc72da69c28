// The reference server, `socket.io` for Node.js, to compare with.
import { createServer } from 'node:http';
import { Server } from 'socket.io';

/** Resolves with `{ url, close() }`; every event that asks for an acknowledgement gets one. */
export function reference(options = {}) {
  const http = createServer((_, response) => response.writeHead(404).end());
  const io = new Server(http, options);
  io.on('connection', (socket) => socket.onAny((_, ...args) => args.at(-1)?.call?.(undefined, { ok: true })));
  return new Promise((resolve) => {
    http.listen(0, '127.0.0.1', () =>
      resolve({
        url: `http://127.0.0.1:${/** @type {import('node:net').AddressInfo} */ (http.address()).port}`,
        close: () => io.close(),
      }),
    );
  });
}
