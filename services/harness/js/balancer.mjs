// A load balancer as simple as they come: every new connection goes to the preferred gateway if that takes it,
// else to the next one. It knows nothing of HTTP and nothing of sessions.
import net from 'node:net';

/** Resolves with `{ url, prefer(index), close() }`. */
export function balancer(urls) {
  const targets = urls.map((url) => new URL(url));
  const open = new Set();
  let preferred = 0;

  const forward = (client, attempt = 0) => {
    if (attempt === targets.length) return client.destroy();
    const { hostname, port } = targets[(preferred + attempt) % targets.length];
    let connected = false;
    const server = net.connect({ host: hostname, port }, () => {
      connected = true;
      server.setNoDelay();
      client.pipe(server).pipe(client);
    });
    server.on('error', () => (connected ? client.destroy() : forward(client, attempt + 1)));
    server.on('close', () => connected && client.destroy());
    client.on('close', () => server.destroy());
    return undefined;
  };
  const listener = net.createServer((client) => {
    open.add(client);
    client.setNoDelay();
    client.on('error', () => client.destroy()).on('close', () => open.delete(client));
    forward(client);
  });
  return new Promise((resolve) => {
    listener.listen(0, '127.0.0.1', () =>
      resolve({
        url: `http://127.0.0.1:${/** @type {import('node:net').AddressInfo} */ (listener.address()).port}`,
        prefer: (index) => (preferred = index),
        close: () => {
          listener.close();
          open.forEach((client) => client.destroy());
        },
      }),
    );
  });
}
