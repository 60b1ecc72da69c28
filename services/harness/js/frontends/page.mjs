// What every front end has, whatever it speaks: where the service is, a token, a fetch that throws, a socket, and a
// store from which the page is drawn. How to reach Parlance stands here; what to say to it stands in each front end.
import { io } from 'socket.io-client';

export class Page {
  /** What is drawn: conversations in order, bubbles of the open one, typing users, presence, an error. */
  state = { rows: [], open: null, bubbles: [], typing: [], online: {}, error: null };

  /** `config` is what is configured for such a page: `{ url, token, dialect, transports, restDialect }`. */
  constructor(me, config) {
    this.me = me;
    this.config = config;
  }

  /** Calls REST and returns the JSON; throws what the page shows otherwise. */
  async call(method, path, body) {
    const { url, token, dialect, restDialect } = this.config;
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
    if (restDialect) headers['x-parlance-dialect'] = dialect;
    const response = await fetch(url + path, { method, headers, body: body && JSON.stringify(body) });
    const answer = response.status === 204 ? undefined : await response.json();
    if (response.ok) return answer;
    throw Object.assign(new Error(answer.message), { status: response.status, name: answer.error });
  }

  /** Connects as the socket.io documentation says; the listeners are the front end's. */
  connect(listeners) {
    const { url, token, dialect, transports } = this.config;
    this.socket = io(url, { auth: { token, dialect }, transports, forceNew: true });
    this.socket.on('connect_error', (error) => this.set({ error: error.message }));
    for (const [event, listener] of Object.entries(listeners)) this.socket.on(event, listener);
  }

  /** As `setState` of a store: merges what is given, or what is made of the state before. */
  set(change) {
    Object.assign(this.state, typeof change === 'function' ? change(this.state) : change);
  }

  /** Closes the tab. */
  close() {
    this.socket?.disconnect();
  }

  /** Emits and lets nothing wait for it. */
  emit(event, ...args) {
    this.socket.emit(event, ...args);
  }
}

/** The list with one row changed. */
export const changed = (list, matches, change) =>
  list.map((one) => (matches(one) ? { ...one, ...(typeof change === 'function' ? change(one) : change) } : one));

/** The list with the matching row first. */
export const raised = (list, matches) => [...list.filter(matches), ...list.filter((one) => !matches(one))];
