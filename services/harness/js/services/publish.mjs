// A service with nats.js and nothing of ours: publishes what standard input lists, all of it before it waits for any
// outcome, and prints what came of each.
import { text } from 'node:stream/consumers';
import { jetstream } from '@nats-io/jetstream';
import { connect, createInbox, headers } from '@nats-io/transport-node';

const PATIENCE_MS = 15_000;
const { NATS_URL: servers, NATS_USER: user, NATS_PASSWORD: pass } = process.env;

const nc = await connect({ servers, user, pass, inboxPrefix: '_INBOX.emitter.shop' });
const js = jetstream(nc);
const published = [];
for (const one of JSON.parse(await text(process.stdin))) {
  const outcome = nc.subscribe(createInbox('_INBOX.emitter.shop'), { max: 1, timeout: PATIENCE_MS });
  const head = headers();
  const all = { 'Parlance-Reply-To': outcome.getSubject(), ...one.headers };
  for (const [name, value] of Object.entries(all)) head.set(name, value);
  published.push([outcome, await js.publish(one.subject, one.body, { headers: head })]);
}

async function result([outcome, ack]) {
  let reply = null;
  try {
    for await (const message of outcome) reply = message.json();
  } catch {
    // No outcome in time.
  }
  return { stream: ack.stream, duplicate: ack.duplicate, reply };
}

console.log(JSON.stringify(await Promise.all(published.map(result))));
await nc.close();
