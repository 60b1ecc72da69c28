// A proxy between a client and a server that passes HTTP requests and does something to WebSockets.
import net from 'node:net';

const HEAD_END = '\r\n\r\n';
/** What happens once a WebSocket is open, by direction: `up` is from the client. */
const KINDS = {
  /** Passes everything. */
  none: () => ({ up: (data) => data, down: (data) => data }),
  /** Passes the 101 and no frame. */
  swallows: () => ({ up: () => undefined, down: () => undefined }),
  /** Ends the connection with the first frame. */
  cuts: (end) => ({ up: () => end(), down: () => end() }),
  /** Passes what the client sends and none of the answers. */
  mutes: () => ({ up: (data) => data, down: () => undefined }),
  /** Passes the probe and its answer, and then no more. */
  forgets: () => {
    let probed = false;
    return {
      up: (data) => (probed ? undefined : data),
      down: (data) => {
        probed = true;
        return data;
      },
    };
  },
};

/**
 * In front of servers that take connections in turn; resolves with `{ url, requests(), close() }`. `strips` removes
 * the upgrade headers, as nginx does by default.
 */
export function middlebox(targets, kind) {
  const servers = targets.map((target) => new URL(target));
  let next = 0;
  const open = new Set();
  let requests = 0;

  const serve = (client) => {
    const { hostname, port } = servers[next++ % servers.length];
    const server = net.connect({ host: hostname, port });
    const end = () => {
      client.destroy();
      server.destroy();
      return undefined;
    };
    for (const socket of [client, server]) {
      open.add(socket);
      socket.setNoDelay();
      socket.on('error', end).on('close', () => open.delete(socket) && end());
    }
    let frames;
    let answered = '';
    client.on('data', (data) => {
      if (frames) {
        const passed = frames.up(data);
        if (passed) server.write(passed);
        return;
      }
      const text = data.toString('latin1');
      requests += text.split(' HTTP/1.1\r\n').length - 1;
      if (/\r\nupgrade: websocket\r\n/i.test(text) && kind !== 'strips') frames = KINDS[kind](end);
      const stripped = text.replace(/\r\nupgrade: [^\r]*/i, '').replace(/\r\nconnection: [^\r]*/i, '\r\nConnection: close');
      server.write(kind === 'strips' ? Buffer.from(stripped, 'latin1') : data);
    });
    server.on('data', (data) => {
      if (!frames || answered === undefined) {
        const passed = frames ? frames.down(data) : data;
        if (passed) client.write(passed);
        return;
      }
      answered += data.toString('latin1');
      const head = answered.indexOf(HEAD_END) + HEAD_END.length;
      if (head < HEAD_END.length) return;
      client.write(Buffer.from(answered.slice(0, head), 'latin1'));
      const first = Buffer.from(answered.slice(head), 'latin1');
      answered = undefined;
      const passed = first.length > 0 && frames.down(first);
      if (passed) client.write(passed);
    });
  };
  const listener = net.createServer(serve);
  return new Promise((resolve) => {
    listener.listen(0, '127.0.0.1', () =>
      resolve({
        url: `http://127.0.0.1:${/** @type {import('node:net').AddressInfo} */ (listener.address()).port}`,
        requests: () => requests,
        close: () => {
          listener.close();
          for (const socket of open) socket.destroy();
        },
      }),
    );
  });
}
