// One sender's messages to one conversation, in order. What got no answer is sent again with the same id;
// while anything is unanswered nothing new goes out, because a later message must not overtake it.
import { digestOf } from './replica.mjs';

const RETRY_MS = 250;
const MOST_DUE = 25;

export class Queue {
  #serial = 0;
  #due = 0;
  #inFlight = new Set();
  #unanswered = [];
  #recovering = false;
  #pausedUntil = 0;
  sends = 0;
  acked = 0;

  /**
   * deliver(message) sends once and resolves to {outcome: 'ok'|'rejected'|'unknown', …}; ready() says whether
   * it can be tried; stored(message, serial) hears of every stored one.
   */
  constructor({ name, user, conversation, window, padding, history, deliver, ready, stored }) {
    this.name = name;
    this.user = user;
    this.conversation = conversation;
    this.window = window;
    this.padding = padding;
    this.history = history;
    this.deliver = deliver;
    this.ready = ready;
    this.stored = stored;
  }

  get settled() {
    return this.#inFlight.size === 0 && this.#unanswered.length === 0;
  }

  /** One more message shall be sent. A stall is not made up for by a flood. */
  tick() {
    this.#due = Math.min(this.#due + 1, MOST_DUE);
  }

  stop() {
    this.#due = 0;
  }

  pump() {
    if (!this.ready() || performance.now() < this.#pausedUntil) return;
    if (this.#recovering) {
      if (this.#inFlight.size > 0) return;
      if (this.#unanswered.length > 0) {
        this.#attempt(this.#unanswered[0]);
        return;
      }
      this.#recovering = false;
    }
    while (this.#due > 0 && this.#inFlight.size < this.window) {
      this.#due -= 1;
      this.#serial += 1;
      const id = `${this.name}-${this.#serial}`;
      this.#attempt({ id, serial: this.#serial, content: `text ${id} ${this.padding}`, attempts: 0 });
    }
  }

  async #attempt(message) {
    message.attempts += 1;
    this.#inFlight.add(message);
    this.sends += 1;
    const about = { user: this.user, conversation: this.conversation, client_msg_id: message.id };
    const { attempts: attempt, serial } = message;
    this.history.write('send', { ...about, queue: this.name, serial, attempt, digest: digestOf(message.content) });
    const answer = await this.deliver(message);
    this.history.write('ack', { ...about, attempt, ...answer });
    this.#inFlight.delete(message);
    if (answer.outcome === 'unknown') {
      this.#recovering = true;
      this.#pausedUntil = performance.now() + RETRY_MS;
      if (!this.#unanswered.includes(message)) this.#unanswered.push(message);
      this.#unanswered.sort((one, other) => one.serial - other.serial);
      return;
    }
    this.#unanswered = this.#unanswered.filter((other) => other !== message);
    if (answer.outcome === 'ok') {
      this.acked += 1;
      this.stored(answer, message.serial);
    }
    this.pump();
  }
}
