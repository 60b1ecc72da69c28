// What services usually call of nats.js, within one role: prints for each call `ok`, `refused` where the server refused
// permission, or what went wrong.
import { jetstream, jetstreamManager } from '@nats-io/jetstream';
import { connect, headers } from '@nats-io/transport-node';

const [role, conversation] = process.argv.slice(2);
const { NATS_URL: servers, NATS_USER: user, NATS_PASSWORD: pass } = process.env;
const nc = await connect({ servers, user, pass, inboxPrefix: role === 'emitter' ? '_INBOX.emitter.shop' : `_INBOX.${role}` });
const js = jetstream(nc, { timeout: 3000 });
const results = {};

async function attempt(name, call) {
  try {
    const result = await call();
    results[name] = result === null ? 'nothing' : 'ok';
  } catch (error) {
    results[name] = String(error).includes('Permissions Violation') ? 'refused' : String(error);
  }
}

async function taken(message) {
  const one = await message;
  return one && (await one.ackAck());
}

async function first(messages) {
  for await (const message of messages) return message.ackAck();
  return null;
}

const consumer = (stream, name) => js.consumers.get(stream, name);
const manager = () => jetstreamManager(nc, { timeout: 3000 });

const roles = {
  async feed() {
    await attempt('jetstreamManager', manager);
    const jsm = await jetstreamManager(nc, { checkAPI: false, timeout: 3000 });
    await attempt('streams.info', () => jsm.streams.info('EVENTS'));
    await attempt('streams.find', () => jsm.streams.find('chat.evt.>'));
    await attempt('streams.get', () => js.streams.get('EVENTS'));
    await attempt('consumers.info', () => jsm.consumers.info('EVENTS', 'feed'));
    await attempt('consumers.get, next', async () => taken((await consumer('EVENTS', 'feed')).next({ expires: 10_000 })));
    const fetch = { max_messages: 1, expires: 10_000 };
    await attempt('consumers.get, fetch', async () => first(await (await consumer('EVENTS', 'feed')).fetch(fetch)));
    await attempt('streams.getMessage', () => jsm.streams.getMessage('EVENTS', { seq: 1 }));
    const last = { last_by_subj: `chat.evt.${conversation}` };
    await attempt('streams.getMessage of a subject', () => jsm.streams.getMessage('EVENTS', last));
    await attempt('refused: direct.getMessage', () => jsm.direct.getMessage('EVENTS', { seq: 1 }));
    await attempt('consumer.delete', async () => (await consumer('EVENTS', 'feed')).delete());
    await attempt('refused: ordered consumer', async () => taken((await js.consumers.get('EVENTS')).next({ expires: 2000 })));
    await attempt('refused: consumers.add', () => jsm.consumers.add('EVENTS', { durable_name: 'mine', ack_policy: 'explicit' }));
  },
  async push() {
    await attempt('jetstreamManager', manager);
    await attempt('streams.get', () => js.streams.get('PUSH'));
    await attempt('consumers.get', () => consumer('PUSH', 'push'));
    await attempt('refused: consumer.delete', async () => (await consumer('PUSH', 'push')).delete());
  },
  async emitter() {
    const head = headers();
    head.set('Parlance-Message-Id', 'roles-js');
    head.set('Content-Type', 'application/json');
    const body = JSON.stringify({ sender_id: 'roles', content: 'hello' });
    await attempt('jetstreamManager', manager);
    await attempt('publish', () => js.publish(`chat.system.${conversation}`, body, { headers: head }));
    await attempt('refused: streams.get', () => js.streams.get('SYSTEM'));
  },
};

await roles[role]();
console.log(JSON.stringify(results));
await nc.close();
