// The way between a browser and the gateways: a load balancer without stickiness, and a cable that can be pulled.
import net from 'node:net';

export class Network {
  #open = new Set();
  #turn = 0;
  #listener;
  #port = 0;
  #passedAt = 0;
  /** Open connections by the port they go to. */
  #through = new Map();

  /** Each new connection goes to the next of these addresses that takes it. */
  constructor(urls, first = 0) {
    this.targets = urls.map((url) => new URL(url));
    this.#turn = first;
  }

  get url() {
    return `http://127.0.0.1:${this.#port}`;
  }

  get listening() {
    return this.#listener?.listening ?? false;
  }

  /**
   * Resolves once nothing has passed for a while: nothing is in flight, and polling clients wait for a reply. A gateway on a busy
   * machine needs a moment to read the request by which a client says that it has the reply before, and a reset would undo that.
   */
  async quiet(ms = 300) {
    while (Date.now() - this.#passedAt < ms) {
      await new Promise((resolve) => setTimeout(resolve, ms - (Date.now() - this.#passedAt)));
    }
  }

  /** Whether a connection goes to this address. */
  reaches(url) {
    return (this.#through.get(new URL(url).port) ?? 0) > 0;
  }

  /** Listens, at the same port as before. */
  up() {
    this.#listener = net.createServer((client) => {
      this.#track(client);
      this.#forward(client, this.#turn++);
    });
    return new Promise((resolve) =>
      this.#listener.listen(this.#port, '127.0.0.1', () => {
        this.#port = this.#listener.address().port;
        resolve(this);
      }),
    );
  }

  /** Cuts every connection without a word and takes none. */
  down() {
    this.#listener?.close();
    for (const socket of this.#open) socket.resetAndDestroy();
  }

  #track(socket) {
    this.#open.add(socket);
    socket.setNoDelay();
    socket.on('error', () => socket.destroy()).on('close', () => this.#open.delete(socket));
  }

  #forward(client, turn, attempt = 0) {
    if (attempt === this.targets.length) return client.destroy();
    const { hostname, port } = this.targets[(turn + attempt) % this.targets.length];
    let connected = false;
    const server = net.connect({ host: hostname, port }, () => {
      connected = true;
      this.#through.set(port, (this.#through.get(port) ?? 0) + 1);
      client.pipe(server).pipe(client);
      for (const end of [client, server]) end.on('data', () => (this.#passedAt = Date.now()));
    });
    this.#track(server);
    server.on('error', () => connected || this.#forward(client, turn, attempt + 1));
    server.on('close', () => {
      if (!connected) return;
      this.#through.set(port, this.#through.get(port) - 1);
      client.destroy();
    });
    client.on('close', () => server.destroy());
    return undefined;
  }
}
