// Engine.IO by hand, one HTTP request at a time, for tests that choose which gateway gets which.
import assert from 'node:assert/strict';
import { PATIENCE_MS, token } from './client.mjs';

const SEPARATOR = '\x1e';
let mark = 0;

/** What the engine says; the text of the answer whatever its status. */
async function request(url, method, body, signal = AbortSignal.timeout(PATIENCE_MS)) {
  const response = await fetch(url, { method, body, signal });
  return { status: response.status, text: await response.text() };
}

/** A session over HTTP long polling, as the stock client has it. */
export class Polling {
  constructor(base, { sid }) {
    this.base = base;
    this.sid = sid;
  }

  /** A session at this gateway, without anyone in it. */
  static async open(base) {
    const { status, text } = await request(`${base}/socket.io/?EIO=4&transport=polling`, 'GET');
    assert.equal(status, 200, text);
    return new Polling(base, JSON.parse(text.slice(1)));
  }

  /** A session of this user. */
  static async connect(base, user) {
    const session = await Polling.open(base);
    await session.post(`40${JSON.stringify({ token: token(user), dialect: 'native', since: {} })}`);
    await session.until((packet) => packet.startsWith('40'));
    return session;
  }

  /** As it is asked for at any gateway. */
  url(base = this.base, t = `t${(mark += 1)}`) {
    return `${base}/socket.io/?EIO=4&transport=polling&t=${t}&sid=${this.sid}`;
  }

  poll(/** @type {{ base?: string, t?: string, signal?: AbortSignal }} */ { base, t, signal } = {}) {
    return request(this.url(base, t), 'GET', undefined, signal);
  }

  async post(packets, base) {
    return request(this.url(base), 'POST', packets);
  }

  /** Polls until a packet matches, and answers heartbeats; resolves with all packets so far. */
  async until(matches, base, t) {
    const packets = [];
    while (!packets.some(matches)) {
      const { status, text } = await this.poll({ base, t });
      assert.equal(status, 200, text);
      const news = text.split(SEPARATOR);
      if (news.includes('2')) await this.post('3');
      packets.push(...news);
    }
    return packets;
  }
}
