// The stock Socket.IO client and REST in the hands of a test. Remembers every event, so that a test can ask
// for what came before it looked. Reads the stack's addresses from the environment.
import assert from 'node:assert/strict';
import { createHmac, randomUUID } from 'node:crypto';
import { io } from 'socket.io-client';

/** How long anything may take before a test gives up on it, on a machine that is busy with much else. */
export const PATIENCE_MS = Number(process.env.PARLANCE_PATIENCE_MS ?? 60_000);
export const gateways = setting('PARLANCE_GATEWAYS').split(',');
/** Their internal ports, where operators look. */
export const internals = (process.env.PARLANCE_INTERNALS ?? '').split(',');
/** `websocket`, `polling`, or `default`: polling that upgrades. */
export const transport = process.env.PARLANCE_TRANSPORT ?? 'websocket';
const secret = setting('PARLANCE_JWT_SECRET');
const EVENTS = [
  'message:new',
  'message:edited',
  'message:deleted',
  'receipt:updated',
  'typing',
  'conversation:new',
  'conversation:updated',
  'resync',
  'error',
];
const TRANSPORTS = { websocket: ['websocket'], polling: ['polling'], default: ['polling', 'websocket'] };
const open = new Set();

// The process that runs this spec holds the other end; without it nobody waits for the result.
process.stdin.on('end', () => process.exit(1)).resume();
process.stdin.unref?.();

function setting(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: the system tests of parlance-harness run this file`);
  return value;
}

/** A user id of this run only, so that specs and transports share a stack without meeting. */
export const person = (name) => `${name}-${transport}-${randomUUID().slice(0, 8)}`;

const base64 = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
export const now = () => Math.floor(Date.now() / 1000);

/**
 * A signed token; `undefined` claims are left out.
 * @param {unknown} sub
 * @param {Record<string, unknown>} [claims]
 * @param {{ key?: import('node:crypto').BinaryLike | import('node:crypto').KeyObject, header?: Record<string, unknown> }} [how]
 */
export function token(sub, claims = {}, { key = secret, header = { alg: 'HS256', typ: 'JWT' } } = {}) {
  const all = { sub, name: sub, iat: now(), exp: now() + 3600, ...claims };
  const body = `${base64(header)}.${base64(all)}`;
  const signature = header.alg === 'none' ? '' : createHmac('sha256', key).update(body).digest('base64url');
  return `${body}.${signature}`;
}

/** Polls `look` until it returns something true; a thrown error counts as not yet and is shown at the end. */
export async function eventually(what, look, within = PATIENCE_MS) {
  const deadline = Date.now() + within;
  /** @type {any} */
  let last;
  for (;;) {
    try {
      const value = await look();
      if (value) return value;
      last = value;
    } catch (error) {
      last = error;
    }
    if (Date.now() > deadline) throw new Error(`${what}: not within ${within} ms; last seen: ${last?.message ?? last}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** The outcome of `promise`, or a failure that says what was waited for. */
export function within(promise, what, ms = PATIENCE_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${ms} ms: ${what}`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/**
 * @typedef {Partial<import('socket.io-client').ManagerOptions & import('socket.io-client').SocketOptions> & {
 *   jwt?: string, events?: string[] | 'all', url?: string }} Options
 * @typedef {(payload: any) => unknown} Matches
 */

/** One connection of a user. */
export class Client {
  /**
   * In the order of arrival.
   * @type {{ event: string, payload: any }[]}
   */
  seen = [];
  /** @type {string[]} */
  disconnects = [];
  #waiting = new Set();

  /**
   * @param {string} user
   * @param {number} [gateway]
   * @param {Options} [options]
   */
  constructor(user, gateway = 0, { auth, jwt = token(user), events = EVENTS, url, ...options } = {}) {
    this.user = user;
    this.url = url ?? gateways[gateway % gateways.length];
    this.jwt = jwt;
    this.socket = io(this.url, {
      auth: auth ?? { token: jwt, dialect: 'native', since: {} },
      transports: TRANSPORTS[transport],
      reconnection: false,
      forceNew: true,
      ...options,
    });
    open.add(this);
    if (events === 'all') this.socket.onAny((event, payload) => this.#arrived(event, payload));
    else for (const event of events) this.socket.on(event, (payload) => this.#arrived(event, payload));
    this.socket.on('disconnect', (reason) => this.disconnects.push(reason));
  }

  /** Resolves once connected, and with the default transports once upgraded. */
  async connected() {
    const connection = new Promise((resolve, reject) => {
      if (this.socket.connected) resolve(undefined);
      this.socket.once('connect', () => resolve(undefined));
      // Refused for a moment, at HTTP level: what the stock client does by itself unless configured otherwise.
      this.socket.on('connect_error', (error) => {
        if (/** @type {any} */ (error).type === 'TransportError') setTimeout(() => this.socket.connect(), 100);
        else reject(error);
      });
    });
    await within(connection, `${this.user} connects to ${this.url}`);
    if (transport === 'default') {
      await eventually('upgraded to websocket', () => this.socket.io.engine.transport.name === 'websocket');
    }
    return this;
  }

  /** The message of the refusal. */
  refused() {
    const refusal = new Promise((resolve, reject) => {
      this.socket.once('connect_error', (error) => resolve(error.message));
      this.socket.once('connect', () => reject(new Error(`${this.user} was let in`)));
    });
    return within(refusal, `${this.user} is refused`);
  }

  /** Emits with an ack; whatever it says. */
  ask(event, ...args) {
    return within(this.socket.emitWithAck(event, ...args), `an answer to ${event}`);
  }

  /** Emits and returns the acknowledgement, which must be positive. */
  async does(event, payload) {
    const ack = await this.ask(event, payload);
    assert.equal(ack?.ok, true, `${this.user}: ${event} was refused: ${JSON.stringify(ack)}`);
    return ack;
  }

  /** Emits and returns the error of the acknowledgement, which must have this code. */
  async fails(code, event, ...args) {
    const ack = await this.ask(event, ...args);
    assert.equal(ack?.ok, false, `${event} was accepted: ${JSON.stringify(ack)?.slice(0, 300)}`);
    assert.equal(ack.error.code, code, JSON.stringify(ack.error));
    assert.equal(typeof ack.error.message, 'string');
    assert.equal(typeof ack.error.retry, 'boolean');
    return ack.error;
  }

  /** Emits JSON text that the client library would not write by itself; resolves with the ack. */
  askRaw(name, ...json) {
    const socket = /** @type {any} */ (this.socket);
    const id = socket.ids++;
    const answer = new Promise((resolve) => (socket.acks[id] = resolve));
    this.frame(`2${id}[${[JSON.stringify(name), ...json].join(',')}]`);
    return within(answer, `an answer to ${name}`);
  }

  /** Sends one Socket.IO packet as it stands. */
  frame(text) {
    this.socket.io.engine.write(text);
  }

  async sends(conversation, content, more = {}) {
    const ack = await this.does('message:send', { conversation_id: conversation.id, content, ...more });
    return ack.message;
  }

  async joins(conversation) {
    return (await this.does('conversation:join', { conversation_id: conversation.id })).conversation;
  }

  /**
   * Payloads of this event so far.
   * @param {string} event
   * @param {Matches} [matches]
   * @returns {any[]}
   */
  all(event, matches = () => true) {
    return this.seen.filter((seen) => seen.event === event && matches(seen.payload)).map((seen) => seen.payload);
  }

  /**
   * The first payload of this event that matches, come or to come.
   * @param {string} event
   * @param {Matches} [matches]
   * @param {number} [ms]
   * @returns {Promise<any>}
   */
  sees(event, matches = () => true, ms = PATIENCE_MS) {
    const known = this.seen.find((seen) => seen.event === event && matches(seen.payload));
    if (known) return Promise.resolve(known.payload);
    const arrival = new Promise((resolve) => this.#waiting.add({ event, matches, resolve }));
    return within(arrival, `${this.user} sees ${event}`, ms);
  }

  /** Forgets what came so far. */
  forget() {
    this.seen.length = 0;
  }

  rest(method, path, body, options) {
    return rest(this.jwt, method, path, body, { base: this.url, ...options });
  }

  close() {
    this.socket.disconnect();
    open.delete(this);
  }

  /** Closes, and resolves once its gateway knows: what is emitted before that is on its way to a client that is gone. */
  async leaves() {
    const base = internals[gateways.indexOf(this.url)];
    const disconnects = async () => {
      const text = await (await fetch(`${base}/metrics`)).text();
      const lines = text.split('\n').filter((line) => line.startsWith('chat_gateway_disconnects_total'));
      return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
    };
    const before = await disconnects();
    this.close();
    await eventually('its gateway knows that it left', async () => (await disconnects()) > before);
  }

  #arrived(event, payload) {
    this.seen.push({ event, payload });
    for (const waiting of this.#waiting) {
      if (waiting.event !== event || !waiting.matches(payload)) continue;
      this.#waiting.delete(waiting);
      waiting.resolve(payload);
    }
  }
}

/**
 * A connected client.
 * @param {string} user
 * @param {number} [gateway]
 * @param {Options} [options]
 */
export const connect = (user, gateway, options) => new Client(user, gateway, options).connected();

/** Ends every connection of the spec; without it the process would not end. */
export function closeAll() {
  for (const client of open) client.close();
}

/**
 * A request under `/api/v1`, answered in the native dialect, unless the path begins with `/api` or `//`; the body is text
 * or anything else for JSON.
 * @param {string | null | undefined} jwt
 * @param {string} method
 * @param {string} path
 * @param {unknown} [body]
 * @param {{ base?: string, headers?: Record<string, string> }} [options]
 * @returns {Promise<{ status: number, type: string, text: string, body: any, headers: Headers }>}
 */
export async function rest(jwt, method, path, body, { base = gateways[0], headers = {} } = {}) {
  const url = path.startsWith('/api') ? base + path : path.startsWith('//') ? base + path.slice(1) : `${base}/api/v1${path}`;
  const native = path.startsWith('/api') || path.startsWith('//') ? {} : { 'x-parlance-dialect': 'native' };
  const response = await fetch(url, {
    method,
    headers: { ...(jwt && { authorization: `Bearer ${jwt}` }), 'content-type': 'application/json', ...native, ...headers },
    body: typeof body === 'string' || body === undefined ? /** @type {string} */ (body) : JSON.stringify(body),
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
  const text = await response.text();
  const type = response.headers.get('content-type') ?? '';
  const isJson = type.includes('json');
  return {
    status: response.status,
    type,
    text,
    body: isJson ? JSON.parse(text) : undefined,
    headers: response.headers,
  };
}

/** The direct conversation of two users. */
export async function direct(one, other, gateway = 0) {
  const base = gateways[gateway % gateways.length];
  const { status, body } = await rest(token(one), 'POST', '/conversations/direct', { user_id: other }, { base });
  assert.ok(status === 201 || status === 200, JSON.stringify(body));
  return body;
}

/** A group of `owner` and others. */
export async function group(owner, others, title = 'A group') {
  const { status, body } = await rest(token(owner), 'POST', '/conversations/group', { title, participant_ids: others });
  assert.equal(status, 201, JSON.stringify(body));
  return body;
}

/** Resolves once the gateway follows the client's user: from then on no new conversation escapes it. */
export async function listening(client) {
  await eventually(`${client.user} is notified of new conversations`, async () => {
    const marker = await direct(client.user, person('marker'));
    return client.sees('conversation:new', (one) => one.id === marker.id, 1_000);
  });
  return client;
}

/** Asserts an `application/problem+json` answer. */
export function assertProblem(answer, status, code) {
  assert.equal(answer.status, status, answer.text.slice(0, 300));
  assert.match(answer.type, /^application\/problem\+json/);
  assert.equal(answer.body.code, code, answer.text);
  assert.deepEqual(
    Object.keys(answer.body)
      .sort()
      .filter((key) => !['conversation'].includes(key)),
    ['code', 'detail', 'error', 'message', 'name', 'retry', 'status', 'title', 'type'],
  );
  assert.equal(answer.body.message, answer.body.detail);
  assert.equal(answer.body.status, status);
}

/** Asserts that seqs are first, first + 1, … */
export function assertGapless(seqs, first = seqs[0]) {
  seqs.forEach((seq, index) =>
    assert.equal(seq, first + index, `gap or duplicate at index ${index}: ${seqs.slice(Math.max(0, index - 3), index + 3)}`),
  );
}
