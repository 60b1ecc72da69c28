// One user with one stock socket: stays connected to whichever gateway lives, joins its conversations, and
// after every connect syncs from where it was.
import { io } from 'socket.io-client';
import { Replica } from './replica.mjs';

const JOIN_TIMEOUT_MS = 5_000;
const RETRY_MS = 300;
const CONNECT_TIMEOUT_MS = 4_000;
const SHOWN = ['message:new', 'message:edited', 'message:deleted'];

/** What a polling request was answered when it failed. */
const said = (failure) => failure?.context?.responseText ?? '';
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Client {
  #gateways;
  #gateway;
  #socket;
  #connection = 0;
  #closed = false;
  #changing = 0;
  joined = false;
  lastEventAt = 0;

  constructor({ user, token, transports, gateways, first, conversations, history, ackTimeout }) {
    this.user = user;
    this.token = token;
    this.transports = transports;
    this.history = history;
    this.ackTimeout = ackTimeout;
    this.replicas = new Map(conversations.map((id) => [id, new Replica()]));
    this.#gateways = gateways;
    this.#gateway = first % gateways.length;
    this.#open();
  }

  /** The TCP connection of a WebSocket. */
  get pipe() {
    return this.#socket.io.engine?.transport?.ws?._socket;
  }

  /** Whether its last connection has come to its end. */
  get gone() {
    return (this.#socket.io.engine?.readyState ?? 'closed') === 'closed';
  }

  get settled() {
    return this.#changing === 0;
  }

  get url() {
    return this.#gateways[this.#gateway];
  }

  /** Sends once: {outcome, id?, seq?, code?}. */
  send(conversation, { id, content }) {
    return this.#command('message:send', { conversation_id: conversation, client_msg_id: id, content });
  }

  /** Edits or deletes an own message, again and again until there is an answer. */
  async change(event, conversation, message, content) {
    this.#changing += 1;
    const payload = { conversation_id: conversation, message_id: message, ...(content && { content }) };
    let answer = { outcome: 'unknown' };
    while (answer.outcome === 'unknown' && !this.#closed) {
      if (this.joined) answer = await this.#command(event, payload);
      if (answer.outcome === 'unknown') await pause(RETRY_MS);
    }
    this.#changing -= 1;
    this.history.write('change', { user: this.user, conversation, id: message, event, outcome: answer.outcome });
  }

  close() {
    this.#closed = true;
    this.#connection += 1;
    this.#socket.disconnect();
  }

  #open() {
    const connection = ++this.#connection;
    const live = () => connection === this.#connection;
    const socket = io(this.url, {
      auth: { token: this.token, dialect: 'native', since: {} },
      transports: this.transports,
      forceNew: true,
      timeout: CONNECT_TIMEOUT_MS,
      reconnectionDelay: 200,
      reconnectionDelayMax: 1_000,
    });
    this.#socket = socket;
    socket.on('connect', () => live() && this.#connected());
    socket.on('connect_error', (error) => {
      if (!live()) return;
      this.history.write('refused', { user: this.user, reason: error.message, detail: said(error) });
      this.#move();
    });
    socket.on('disconnect', (reason, details) => live() && this.#disconnected(reason, said(details)));
    socket.on('resync', ({ conversation_id: id }) => {
      this.history.write('resync', { user: this.user, conversation: id });
      this.#catchUp([id]);
    });
    for (const event of SHOWN) socket.on(event, (message) => this.#shown(event, message));
  }

  /** As a load balancer would: the next attempt goes to another gateway. */
  #move() {
    this.#socket.disconnect();
    this.#gateway = (this.#gateway + 1) % this.#gateways.length;
    const connection = ++this.#connection;
    setTimeout(() => connection === this.#connection && !this.#closed && this.#open(), RETRY_MS);
  }

  async #connected() {
    this.history.write('connect', { user: this.user, gateway: this.#gateway });
    const socket = this.#socket;
    const id = socket.id;
    const same = () => socket === this.#socket && socket.connected && socket.id === id;
    for (const replica of this.replicas.values()) replica.beginSync();
    await Promise.all([...this.replicas.keys()].map((conversation) => this.#join(conversation, same)));
    if (!same()) return;
    this.joined = true;
    await this.#catchUp([...this.replicas.keys()]);
  }

  #disconnected(reason, detail) {
    this.joined = false;
    this.history.write('disconnect', { user: this.user, reason, detail });
    // The server ended it for good: stock clients do not come back by themselves then.
    if (reason === 'io server disconnect') this.#move();
  }

  async #join(conversation, same) {
    while (same()) {
      const answer = await this.#ask('conversation:join', { conversation_id: conversation }, JOIN_TIMEOUT_MS);
      if (answer?.ok) {
        const { head_seq: head, epoch } = answer.conversation;
        const replica = this.replicas.get(conversation);
        replica.epoch ||= epoch;
        this.history.write('join', { user: this.user, conversation, head });
        return;
      }
      await pause(RETRY_MS);
    }
  }

  async #catchUp(conversations) {
    const socket = this.#socket;
    const id = socket.id;
    let left = conversations;
    for (const conversation of left) this.replicas.get(conversation).beginSync();
    while (left.length > 0 && socket.connected && socket.id === id) {
      const positions = left.map((conversation) => {
        const { epoch, position: seq } = this.replicas.get(conversation);
        return [conversation, { epoch, seq }];
      });
      const answer = await this.#ask('sync', { conversations: Object.fromEntries(positions) }, this.ackTimeout);
      const pages = answer?.ok ? answer.conversations : {};
      left = left.filter((conversation) => !this.#page(conversation, pages[conversation]));
      if (!answer?.ok) await pause(RETRY_MS);
    }
  }

  /** Takes a page in; true when it was the last. */
  #page(conversation, page) {
    const replica = this.replicas.get(conversation);
    if (!page) return false;
    this.history.write('sync', {
      user: this.user,
      conversation,
      after: replica.position,
      head: page.head_seq,
      complete: page.complete,
      resync: page.resync,
    });
    if (page.resync) {
      replica.reset(page.epoch);
      return false;
    }
    for (const event of page.events) {
      const { seq, type, message } = event;
      this.#note(conversation, { event: type, id: message.id, seq, source: 'sync' });
      replica.synced(event);
    }
    if (page.complete) replica.endSync();
    return page.complete;
  }

  #shown(event, message) {
    const conversation = message.conversation_id;
    this.#note(conversation, { event, id: message.id, seq: message.seq, source: 'live' });
    this.replicas.get(conversation)?.live(event, message);
  }

  #note(conversation, fields) {
    this.lastEventAt = performance.now();
    this.history.write('recv', { user: this.user, conversation, ...fields });
  }

  async #command(event, payload) {
    const answer = await this.#ask(event, payload, this.ackTimeout);
    if (answer?.ok) return { outcome: 'ok', id: answer.message.id, seq: answer.message.seq };
    const refused = answer?.error && !answer.error.retry;
    return { outcome: refused ? 'rejected' : 'unknown', code: answer?.error?.code ?? 'no answer' };
  }

  /** The answer to an event; nothing when none came or the connection went. */
  #ask(event, payload, timeout) {
    const socket = this.#socket;
    // The stock client would keep it until it is connected again; when to repeat is decided here.
    if (!socket.connected) return Promise.resolve();
    return new Promise((resolve) => {
      socket.timeout(timeout).emit(event, payload, (error, answer) => resolve(error ? undefined : answer));
    });
  }
}
