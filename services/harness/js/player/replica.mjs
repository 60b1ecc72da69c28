// One client's copy of one conversation, merged by seq from live events and from syncs. No network.
import { createHash } from 'node:crypto';

/** The start of a content's SHA-256: enough to distinguish contents. */
export const digestOf = (content) => createHash('sha256').update(content).digest('hex').slice(0, 16);

export class Replica {
  #messages = new Map();
  /** Everything up to here is known; where the next sync starts. */
  position = 0;
  epoch = '';
  edited = 0;
  deleted = 0;
  #live = 0;
  #syncing = false;

  get size() {
    return this.#messages.size;
  }

  /** Live events do not move the position until the gap before them is closed. */
  beginSync() {
    this.#syncing = true;
  }

  endSync() {
    this.#syncing = false;
    this.position = Math.max(this.position, this.#live);
  }

  /** Forgets everything: the server's data have another life now. */
  reset(epoch) {
    Object.assign(this, { position: 0, epoch, edited: 0, deleted: 0 });
    this.#messages.clear();
    this.#live = 0;
  }

  live(event, message) {
    if (event === 'message:new') {
      this.#live = Math.max(this.#live, message.seq);
      if (!this.#syncing) this.position = Math.max(this.position, message.seq);
    }
    this.#merge(message);
  }

  synced({ seq, message }) {
    this.position = Math.max(this.position, seq);
    this.#merge(message);
  }

  /** A few numbers that are equal exactly when, for all practical purposes, two replicas are. */
  digest() {
    const newest = Math.max(this.position, this.#live);
    return `${this.size} ${newest} ${this.edited} ${this.deleted}`;
  }

  /** In seq order: [id, seq, start of the content's SHA-256, edited, deleted]. */
  final() {
    const messages = [...this.#messages].sort(([, one], [, other]) => one.seq - other.seq);
    return messages.map(([id, { seq, content, edited, deleted }]) => [
      id,
      seq,
      digestOf(content),
      edited !== null,
      deleted !== null,
    ]);
  }

  /** A sync shows the present, a live event the past it reports: the later state wins. */
  #merge({ id, seq, content, edited_at: edited, deleted_at: deleted }) {
    const known = this.#messages.get(id);
    if (known && (known.deleted !== null || (deleted === null && (edited ?? '') <= (known.edited ?? '')))) return;
    if (edited !== null && (known?.edited ?? null) === null) this.edited += 1;
    if (deleted !== null) this.deleted += 1;
    this.#messages.set(id, { seq, content, edited, deleted });
  }
}
