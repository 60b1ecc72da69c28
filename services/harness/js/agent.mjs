// A service whose answers stream, with nats.js and nothing of ours: repeats each step until it is answered, and goes on from
// where the reply says. NATS_URL, NATS_USER and NATS_PASSWORD come from the environment.
import { jetstream } from '@nats-io/jetstream';
import { connect, createInbox, headers } from '@nats-io/transport-node';

const servers = process.env.NATS_URL;
const user = process.env.NATS_USER || undefined;
const pass = process.env.NATS_PASSWORD || undefined;
const INBOX = '_INBOX.emitter.shop';
const ANSWERED_MS = 3_000;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** The service `shop`. */
export class Agent {
  /** @type {import('@nats-io/transport-node').NatsConnection} */
  nc;
  /** @type {import('@nats-io/jetstream').JetStreamClient} */
  js;
  /** What readers asked to stop, and when. */
  stops = [];
  /** @type {Promise<void>} */
  listening;

  static async connect() {
    const agent = new Agent();
    const more = { maxReconnectAttempts: -1, reconnectTimeWait: 200, waitOnFirstConnect: true };
    agent.nc = await connect({ servers, user, pass, inboxPrefix: INBOX, ...more });
    agent.js = jetstream(agent.nc, { timeout: 2_000 });
    agent.listening = agent.#listen();
    await agent.nc.flush();
    return agent;
  }

  async #listen() {
    for await (const message of this.nc.subscribe('chat.stop.shop')) {
      this.stops.push({ at: Date.now(), ...message.json() });
    }
  }

  /** Publishes a step until it is answered. */
  async step(conversation, id, stream, body = {}, sender = 'shop') {
    const payload = JSON.stringify({ sender_id: sender, sender_name: 'Shop', sender_kind: 'AGENT', stream, ...body });
    for (;;) {
      const outcome = this.nc.subscribe(createInbox(INBOX), { max: 1 });
      const late = setTimeout(() => outcome.unsubscribe(), ANSWERED_MS);
      try {
        const head = headers();
        head.set('Parlance-Message-Id', id);
        head.set('Parlance-Reply-To', outcome.getSubject());
        head.set('Content-Type', 'application/json');
        await this.js.publish(`chat.system.${conversation}`, payload, { headers: head });
        for await (const reply of outcome) return reply.json();
      } catch {
        await sleep(200);
      } finally {
        clearTimeout(late);
        outcome.unsubscribe();
      }
    }
  }

  /** Begins a message; resolves with what writes it. */
  async begins(conversation, id, content = '') {
    const { accepted, expected_offset, refused } = await this.step(conversation, id, 'START', { content });
    if (!accepted) throw new Error(`not begun: ${JSON.stringify(refused)}`);
    const answer = { id: accepted.message_id, seq: accepted.seq, text: Buffer.from(content), at: expected_offset };
    const step = (stream, body) => this.step(conversation, id, stream, body);
    answer.appends = async (text) => {
      answer.text = Buffer.concat([answer.text, Buffer.from(text)]);
      while (answer.at < answer.text.length) {
        const content = answer.text.subarray(answer.at).toString();
        const reply = await step('APPEND', { offset: answer.at, content });
        if (reply.expected_offset === undefined) throw new Error(JSON.stringify(reply));
        if (reply.refused && !['conflict', 'rate_limited'].includes(reply.refused.code)) throw new Error(JSON.stringify(reply));
        if (reply.refused) await sleep(100);
        answer.at = reply.expected_offset;
      }
    };
    answer.finishes = async () => {
      const reply = await step('FINISH', { offset: answer.text.length });
      if (!reply.accepted) throw new Error(JSON.stringify(reply));
      return reply;
    };
    answer.cancels = () => step('CANCEL');
    return answer;
  }

  async close() {
    await this.nc.close();
  }
}

/** What a native client makes of a conversation's messages: the text of each, byte for byte. */
export class Screen {
  texts = new Map();
  ends = new Map();
  gaps = 0;
  chunks = 0;

  constructor(client) {
    client.socket.on('message:new', (message) => this.shows(message));
    client.socket.on('message:finished', (message) => {
      this.shows(message);
      this.ends.set(message.id, [...(this.ends.get(message.id) ?? []), message]);
    });
    client.socket.on('message:chunk', (chunk) => this.takes(chunk));
  }

  /** A message as it was read. */
  shows({ id, content }) {
    const text = Buffer.from(content);
    const known = this.texts.get(id);
    const length = Math.min(text.length, known?.length ?? 0);
    if (known && !text.subarray(0, length).equals(known.subarray(0, length))) throw new Error(`other text in ${id}`);
    if (!known || text.length > known.length) this.texts.set(id, text);
  }

  takes({ message_id: id, offset, text }) {
    this.chunks += 1;
    const known = this.texts.get(id);
    const bytes = Buffer.from(text);
    if (!known || offset > known.length) {
      this.gaps += 1;
      return;
    }
    const both = Math.min(known.length - offset, bytes.length);
    if (!known.subarray(offset, offset + both).equals(bytes.subarray(0, both))) throw new Error(`other text in a chunk of ${id}`);
    if (offset + bytes.length > known.length) this.texts.set(id, Buffer.concat([known.subarray(0, offset), bytes]));
  }

  text(id) {
    return this.texts.get(id)?.toString();
  }
}
