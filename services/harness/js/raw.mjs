// Single requests and WebSockets by hand, for tests that compare what servers do with what no client library sends.
import http from 'node:http';
import { WebSocket } from 'ws';
import { eventually } from './client.mjs';

/** The answer to one request: `{ status, headers, text }`; a WebSocket that is accepted is closed again. */
export function request(
  url,
  /** @type {{ method?: string, headers?: any, body?: any }} */ { method = 'GET', headers = {}, body } = {},
) {
  return new Promise((resolve, reject) => {
    const asked = http.request(url, { method, headers, agent: false }, (answer) => {
      let text = '';
      answer.setEncoding('utf8');
      answer.on('data', (part) => (text += part));
      answer.on('end', () => resolve({ status: answer.statusCode, headers: answer.rawHeaders, text }));
    });
    asked.on('upgrade', (answer, socket) => {
      socket.destroy();
      resolve({ status: answer.statusCode, headers: answer.rawHeaders, text: '' });
    });
    asked.on('error', reject);
    asked.end(body);
  });
}

/** The headers of a WebSocket handshake. */
export const UPGRADE = {
  connection: 'Upgrade',
  upgrade: 'websocket',
  'sec-websocket-version': '13',
  'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
};

/** A WebSocket that remembers what it got and how it ended. */
export class Raw {
  packets = [];
  /** @type {{ code?: number, reason?: string, status?: number, error?: string } | undefined} */
  end;

  constructor(base, query = '') {
    this.socket = new WebSocket(`${base.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket${query}`);
    this.socket.on('message', (data, isBinary) => this.packets.push(isBinary ? data : data.toString()));
    this.socket.on('close', (code, reason) => (this.end = { code, reason: reason.toString() }));
    this.socket.on('unexpected-response', (_, answer) => (this.end = { status: answer.statusCode }));
    this.socket.on('error', (error) => (this.end ??= { error: error.message }));
  }

  /** The first packet with this beginning, come or to come. */
  sees(beginning) {
    return eventually(`a packet ${beginning}…`, () => this.packets.find((packet) => packet.toString().startsWith(beginning)));
  }

  /** Connects to the main namespace. */
  async connects(auth = {}) {
    await this.sees('0');
    this.send(`40${JSON.stringify(auth)}`);
    await this.sees('40');
    return this;
  }

  send(packet) {
    this.socket.send(packet);
  }

  /** How it ended. */
  ended() {
    return eventually('the WebSocket is closed', () => this.end);
  }

  close() {
    this.socket.terminate();
  }
}
