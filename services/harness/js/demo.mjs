// A conversation between two users on two gateways, shown as it happens. Exits 0 only if each side
// saw everything the other did. Reads the addresses and tokens from the environment.
import { randomUUID } from 'node:crypto';
import { io } from 'socket.io-client';

/** How often a client says that its user still types. */
const TYPING_MS = 500;
const PATIENCE_MS = 10_000;
const EVENTS = ['message:new', 'message:edited', 'message:deleted', 'receipt:updated', 'typing', 'conversation:new', 'error'];
const COLOURS = { alice: '\u001b[36m', bob: '\u001b[33m' };
const plain = process.env.NO_COLOR || !process.stdout.isTTY;
const paint = (code, text) => (plain ? text : `${code}${text}\u001b[0m`);
const say = (who, url, text) => console.log(`${paint(COLOURS[who], who.padEnd(6))} ${paint('\u001b[2m', url)}  ${text}`);

/** A user with one socket; remembers every event until it is asked for. */
class Person {
  #seen = [];
  #waiting = [];

  constructor(name, url, token) {
    this.name = name;
    this.url = url;
    this.token = token;
    this.socket = io(url, { auth: { token, dialect: 'native' }, transports: ['websocket'], reconnection: false });
    for (const event of EVENTS) this.socket.on(event, (payload) => this.#arrived(event, payload));
  }

  async connected() {
    await within(
      new Promise((resolve, reject) => {
        this.socket.once('connect', () => resolve(undefined));
        this.socket.once('connect_error', ({ message }) =>
          reject(new Error(`${this.name} cannot connect to ${this.url}: ${message}; \`make status\` shows what runs`)),
        );
      }),
      `${this.name} connects to ${this.url}`,
    );
    say(this.name, this.url, 'connected');
  }

  /** Emits and returns the positive acknowledgement. */
  async does(event, payload) {
    const ack = await within(this.socket.emitWithAck(event, payload), `${this.name} gets an answer to ${event}`);
    if (ack?.ok !== true) throw new Error(`${this.name}: ${event} was refused: ${JSON.stringify(ack)}`);
    return ack;
  }

  async sends(conversation, content) {
    const message = { conversation_id: conversation.id, client_msg_id: randomUUID(), content };
    const ack = await this.does('message:send', message);
    say(this.name, this.url, `says   “${content}”  (stored as number ${ack.message.seq})`);
    return ack.message;
  }

  /** Waits for an event that `matches`; `tell` renders what this person then sees. */
  async sees(event, matches, tell) {
    const known = this.#seen.findIndex((seen) => seen.event === event && matches(seen.payload));
    const payload =
      known >= 0
        ? this.#seen.splice(known, 1)[0].payload
        : await within(new Promise((resolve) => this.#waiting.push({ event, matches, resolve })), `${this.name} sees ${event}`);
    say(this.name, this.url, tell(payload));
    return payload;
  }

  async post(path, body) {
    const headers = { authorization: `Bearer ${this.token}`, 'content-type': 'application/json' };
    const signal = AbortSignal.timeout(PATIENCE_MS);
    const request = { method: 'POST', headers, body: JSON.stringify(body), signal };
    const response = await fetch(`${this.url}/api/v1${path}`, request);
    if (!response.ok) throw new Error(`${this.name}: POST ${path}: ${response.status} ${await response.text()}`);
    return response.json();
  }

  #arrived(event, payload) {
    const asker = this.#waiting.findIndex((waiting) => waiting.event === event && waiting.matches(payload));
    if (asker >= 0) this.#waiting.splice(asker, 1)[0].resolve(payload);
    else this.#seen.push({ event, payload });
  }
}

function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${PATIENCE_MS / 1000} s: ${what}`)), PATIENCE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

function setting(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: run this by \`make demo\``);
  return value;
}

async function exchange(from, to, conversation, content) {
  const about = (payload) => payload.conversation_id === conversation.id;
  // Delivered to those connected at this moment, so it is emitted again for as long as the user types.
  const typing = () => from.does('typing', { conversation_id: conversation.id, is_typing: true });
  await typing();
  const types = setInterval(() => typing().catch(() => {}), TYPING_MS);
  await to
    .sees(
      'typing',
      (payload) => about(payload) && payload.is_typing,
      () => `sees   ${from.name} typing …`,
    )
    .finally(() => clearInterval(types));
  const sent = await from.sends(conversation, content);
  await to.sees(
    'message:new',
    (message) => message.id === sent.id,
    (message) => {
      if (message.content !== content) throw new Error(`${to.name} got other text: ${message.content}`);
      return `reads  “${message.content}”  (from ${message.sender.username})`;
    },
  );
  return sent;
}

async function converse(alice, bob) {
  await Promise.all([alice.connected(), bob.connected()]);
  const conversation = await alice.post('/conversations/direct', { user_id: 'bob' });
  say('alice', alice.url, `opens  conversation ${conversation.id}`);
  await Promise.all([alice, bob].map((person) => person.does('conversation:join', { conversation_id: conversation.id })));

  await exchange(alice, bob, conversation, 'Hi Bob! I am on the first gateway.');
  await exchange(bob, alice, conversation, 'Hi Alice, and I am on the second one 👋');
  const slip = await exchange(alice, bob, conversation, 'So everything between us cros the bus.');

  const corrected = 'So everything between us crosses the bus.';
  await alice.does('message:edit', { conversation_id: conversation.id, message_id: slip.id, content: corrected });
  say('alice', alice.url, 'edits  the last message');
  const isCorrected = (message) => message.id === slip.id && message.content === corrected;
  await bob.sees('message:edited', isCorrected, (message) => `reads  “${message.content}”  (edited)`);

  const last = await exchange(bob, alice, conversation, 'And is in Postgres before you saw it.');
  await alice.does('receipt:read', { conversation_id: conversation.id, up_to_seq: last.seq });
  say('alice', alice.url, 'marks  everything as read');
  const fromAlice = (receipt) => receipt.conversation_id === conversation.id && receipt.user_id === 'alice';
  await bob.sees('receipt:updated', fromAlice, () => 'sees   that alice has read it ✓✓');
}

let people = [];
try {
  const urls = setting('PARLANCE_GATEWAYS').split(',');
  people = [new Person('alice', urls[0], setting('ALICE_TOKEN')), new Person('bob', urls[1] ?? urls[0], setting('BOB_TOKEN'))];
  await converse(...people);
  const way = new Set(urls.slice(0, 2)).size > 1 ? 'two gateways' : 'one address';
  console.log(`\nEverything was seen on both sides, through ${way}.`);
} catch (error) {
  console.error(`\ndemo: ${error.message}`);
  process.exitCode = 1;
} finally {
  for (const person of people) person.socket.disconnect();
}
