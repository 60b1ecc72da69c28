// A service with nats.js and the generated types: sends a message as protobuf, reads its outcome, and finds it in the feed.
// The folder of the types, the account of the feed and the conversation are the arguments.
import { join } from 'node:path';
import { jetstream, jetstreamManager } from '@nats-io/jetstream';
import { connect, createInbox, headers } from '@nats-io/transport-node';

const [folder, feedPassword, conversation] = process.argv.slice(2);
const types = join(folder, 'node');
const { create, fromBinary, toBinary } = await import(join(types, 'node_modules/@bufbuild/protobuf/dist/esm/index.js'));
const { SystemMessageSchema, SystemReplySchema } = await import(join(types, 'chat/v1/system_pb.js'));
const { EventBatchSchema } = await import(join(types, 'chat/v1/event_pb.js'));

const { NATS_URL: servers, NATS_USER: user, NATS_PASSWORD: pass } = process.env;
const nc = await connect({ servers, user, pass, inboxPrefix: '_INBOX.emitter.shop' });
const outcome = nc.subscribe(createInbox('_INBOX.emitter.shop'), { max: 1, timeout: 15_000 });
const head = headers();
head.set('Parlance-Message-Id', 'types-node');
head.set('Parlance-Reply-To', outcome.getSubject());
const message = create(SystemMessageSchema, { senderId: 'shop', content: 'as protobuf from node' });
const bytes = toBinary(SystemMessageSchema, message);
await jetstream(nc).publish(`chat.system.${conversation}`, bytes, { headers: head });
let reply;
for await (const one of outcome) reply = fromBinary(SystemReplySchema, one.data);
await nc.close();

const feed = await connect({ servers, user: 'feed', pass: feedPassword, inboxPrefix: '_INBOX.feed' });
const jsm = await jetstreamManager(feed);
const stored = await jsm.streams.getMessage('EVENTS', { last_by_subj: `chat.evt.${conversation}` });
const { events } = fromBinary(EventBatchSchema, stored.data);
await feed.close();
const { case: body, value } = events.at(-1).body;
console.log(
  JSON.stringify({
    outcome: reply.outcome.case,
    seq: Number(reply.outcome.value.seq),
    event: body,
    content: value.message.content,
  }),
);
