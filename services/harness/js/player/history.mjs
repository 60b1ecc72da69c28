// What happened, as JSON lines: one object per event with monotonic and wall time. Knows no meaning.
import { createWriteStream } from 'node:fs';

export class History {
  #stream;

  constructor(path) {
    this.#stream = createWriteStream(path);
  }

  /** Milliseconds since the player started; never goes back. */
  now() {
    return Math.round(performance.now() * 1000) / 1000;
  }

  write(kind, fields) {
    this.#stream.write(`${JSON.stringify({ kind, at: this.now(), wall: Date.now(), ...fields })}\n`);
  }

  close() {
    return new Promise((resolve) => this.#stream.end(resolve));
  }
}
