// Many users at once, under load, for fault tests: `node player.mjs plan.json`. Everything they do and see
// goes into a history; their last state into a second file. Standard input: `mark <name>` notes a time in the
// history, `stop` ends the sending. Standard output: one JSON line of progress four times a second.
import { readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { Client } from './player/client.mjs';
import { History } from './player/history.mjs';
import { Queue } from './player/queue.mjs';

const TICK_MS = 20;
const PROGRESS_MS = 250;
const QUIET_MS = 1_000;
const LEAVE_MS = 5_000;

const plan = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const PADDING = 'x'.repeat(plan.padding);
const history = new History(plan.history);
let phase = 'starting';
let awake = false;

async function post(url, token, path, body) {
  const signal = AbortSignal.timeout(plan.ack_timeout_ms);
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
  const response = await fetch(`${url}/api/v1${path}`, { method: 'POST', headers, body: JSON.stringify(body), signal });
  return { status: response.status, body: await response.json() };
}

async function createConversations() {
  const created = plan.conversations.map(async ({ title, members }, index) => {
    const owner = plan.users.find(({ id }) => id === members[0]);
    const url = plan.gateways[index % plan.gateways.length];
    const answer = await post(url, owner.token, '/conversations/group', { title, participant_ids: members });
    if (answer.status >= 300) throw new Error(`${title}: ${answer.status} ${JSON.stringify(answer.body)}`);
    return { id: answer.body.id, members };
  });
  return Promise.all(created);
}

/** Sends once by REST; the next attempt after a failure goes to another gateway. */
function restSender(user, first) {
  let gateway = first;
  return async (conversation, { id, content }) => {
    const url = plan.gateways[gateway % plan.gateways.length];
    try {
      const path = `/conversations/${conversation}/messages`;
      const { status, body } = await post(url, user.token, path, { client_msg_id: id, content });
      if (status < 300) return { outcome: 'ok', id: body.id, seq: body.seq };
      if (body.retry) gateway += 1;
      return { outcome: body.retry ? 'unknown' : 'rejected', code: body.code };
    } catch (error) {
      gateway += 1;
      return { outcome: 'unknown', code: error.name };
    }
  };
}

/** Sends by all ways at once. Every answer goes into the history; the best one counts. */
function storm(first, others, about) {
  if (others.length === 0) return first;
  return async (message) => {
    const send = async (way) => {
      const answer = await way(about.conversation, message);
      history.write('ack', { ...about, client_msg_id: message.id, ...answer });
      return answer;
    };
    const answers = await Promise.all([first(message), ...others.map(send)]);
    const stored = answers.find(({ outcome }) => outcome === 'ok');
    return stored ?? answers.find(({ outcome }) => outcome === 'unknown') ?? answers[0];
  };
}

function openClients(conversations) {
  return plan.users.map(({ id, token, transports }, index) => {
    const own = conversations.filter(({ members }) => members.includes(id)).map(({ id }) => id);
    const { gateways, ack_timeout_ms: ackTimeout } = plan;
    return new Client({ user: id, token, transports, gateways, first: index, conversations: own, history, ackTimeout });
  });
}

/** Some messages are edited or deleted once they are stored. */
function changes(client, conversation) {
  return ({ id }, serial) => {
    if (serial % plan.edit_every === 0) client.change('message:edit', conversation, id, `edited ${id}`);
    else if (serial % plan.delete_every === 1) client.change('message:delete', conversation, id);
  };
}

function openQueues(conversations, clients) {
  const queues = [];
  clients.forEach((client, index) => {
    const user = plan.users[index];
    const targets = user.stranger ? conversations.slice(0, 1).map(({ id }) => id) : [...client.replicas.keys()];
    const viaRest = user.via === 'rest' && restSender(user, index);
    targets.forEach((conversation, number) => {
      queues.push(
        new Queue({
          name: `${user.id}-${number}`,
          user: user.id,
          conversation,
          window: user.window,
          padding: PADDING,
          history,
          deliver: storm(
            (message) => (viaRest ? viaRest(conversation, message) : client.send(conversation, message)),
            Array.from({ length: plan.copies - 1 }, (_, copy) => restSender(user, index + copy)),
            { user: user.id, conversation },
          ),
          ready: () => viaRest || client.joined,
          stored: changes(client, conversation),
        }),
      );
    });
  });
  return queues;
}

/** Hands out `rate` messages a second to the queues in turn. */
function drive(queues) {
  let turn = 0;
  let owed = 0;
  let before = performance.now();
  setInterval(() => {
    const now = performance.now();
    owed += phase === 'running' ? ((now - before) / 1_000) * plan.rate : 0;
    before = now;
    for (; owed >= 1; owed -= 1) queues[turn++ % queues.length].tick();
    for (const queue of queues) queue.pump();
  }, TICK_MS);
}

/** Some clients stop reading now and then, for longer than the gateway has patience, until all shall be well. */
function fallAsleep(clients) {
  clients
    .filter((_, index) => plan.users[index].sleeps)
    .forEach((client) => {
      setInterval(() => {
        if (awake) return;
        const pipe = client.pipe;
        pipe?.pause();
        setTimeout(() => pipe?.resume(), plan.sleep_ms);
      }, plan.sleep_ms * 2);
    });
}

function isQuiet(queues, clients) {
  const settled = queues.every((queue) => queue.settled) && clients.every((client) => client.settled);
  return settled && clients.every((client) => performance.now() - client.lastEventAt > QUIET_MS);
}

function isConverged(conversations, clients) {
  return conversations.every(({ id, members }) => {
    const copies = clients.filter(({ user }) => members.includes(user));
    return new Set(copies.map(({ replicas }) => replicas.get(id).digest())).size === 1;
  });
}

async function finish(conversations, queues, clients) {
  phase = 'draining';
  history.write('mark', { name: 'stopped' });
  for (const queue of queues) queue.stop();
  const deadline = performance.now() + plan.drain_ms;
  await new Promise((resolve) => {
    const timer = setInterval(() => {
      if (performance.now() < deadline && !(isQuiet(queues, clients) && isConverged(conversations, clients))) return;
      clearInterval(timer);
      resolve(undefined);
    }, 50);
  });
  const states = clients.map(({ user, replicas }) => ({
    user,
    conversations: Object.fromEntries([...replicas].map(([id, replica]) => [id, replica.final()])),
  }));
  writeFileSync(plan.final, JSON.stringify(states));
  await history.close();
  phase = 'done';
}

/** Says good-bye, so that gateways need not find out by themselves that nobody is there any more. */
async function leave(clients) {
  for (const client of clients) client.close();
  const deadline = performance.now() + LEAVE_MS;
  while (performance.now() < deadline && !clients.every(({ gone }) => gone)) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function report(queues, clients) {
  const sum = (list, name) => list.reduce((total, one) => total + one[name], 0);
  const connected = clients.filter(({ joined }) => joined).length;
  const line = { phase, at: history.now(), sends: sum(queues, 'sends'), acked: sum(queues, 'acked'), connected };
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

const conversations = await createConversations();
const clients = openClients(conversations);
const queues = openQueues(conversations, clients);
drive(queues);
fallAsleep(clients);
phase = 'running';
setInterval(() => report(queues, clients), PROGRESS_MS);
createInterface({ input: process.stdin })
  .on('line', async (line) => {
    if (line === 'mark healed') {
      awake = true;
      for (const client of clients) client.pipe?.resume();
    }
    if (line.startsWith('mark ')) history.write('mark', { name: line.slice(5) });
    if (line !== 'stop' || phase !== 'running') return;
    await finish(conversations, queues, clients);
    report(queues, clients);
    await leave(clients);
    process.exit(0);
  })
  // The process that asked for the load is gone.
  .on('close', () => phase !== 'done' && phase !== 'draining' && process.exit(1));
