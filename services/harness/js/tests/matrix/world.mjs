// The users of the authorisation matrix, the places they meet in, and what of a place is looked at before and
// after a user tried something.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { gateways, person, rest, token } from '../../client.mjs';

/** The columns of a row's cells, in order: who asks, and in what kind of place. */
export const INSIDERS = [
  ['member', 'group'],
  ['moderator', 'group'],
  ['admin', 'group'],
  ['peer', 'direct'],
  ['viewer', 'journal'],
  ['editor', 'journal'],
  ['owner', 'journal'],
];
/** To whom a place must look like none. Nobody ceases to be in a direct conversation. */
export const OUTSIDERS = [
  ['stranger', 'group'],
  ['stranger', 'direct'],
  ['stranger', 'journal'],
  ['former', 'group'],
  ['former', 'journal'],
];
/** One user for each role, the same in all places. */
export const people = Object.fromEntries(
  ['member', 'moderator', 'admin', 'peer', 'viewer', 'editor', 'owner', 'stranger', 'former'].map((role) => [
    role,
    person(role),
  ]),
);

/** A request that must succeed, on the way to a place. */
async function does(user, method, path, body) {
  const base = gateways[Math.floor(Math.random() * gateways.length)];
  const answer = await rest(token(user), method, path, body, { base });
  assert.ok(answer.status < 300, `${user}: ${method} ${path}: ${answer.text}`);
  return answer.body;
}

/** A message's number holds its conversation's in the upper bits. */
const numberOf = (conversation, seq) => conversation * 2 ** 25 + seq;

/** Names of nothing, in the form of those of a place. */
export function nowhere() {
  const number = 2 ** 27 + Math.floor(Math.random() * 1e6);
  const [id, own, foreign, thread] = Array.from({ length: 4 }, () => randomUUID());
  const message = numberOf(number, 1);
  return { id, number, own, foreign, thread, ownNumber: message, foreignNumber: message, target: person('nobody') };
}

/** Words that stand nowhere else. */
export const words = () => `words ${randomUUID()}`;

async function group(role, user, targetRole) {
  const [host, target] = [person('host'), person('target')];
  const { id, number } = await does(host, 'POST', '/conversations/group', {
    title: 'A group',
    participant_ids: role === 'stranger' ? [target] : [user, target],
  });
  const path = `/conversations/${id}`;
  const raise = (whom, to) => does(host, 'PATCH', `${path}/participants/${whom}`, { role: to });
  if (role === 'moderator' || role === 'admin') await raise(user, role);
  if (targetRole) await raise(target, targetRole);
  const author = role === 'stranger' ? target : user;
  const own = await does(author, 'POST', `${path}/messages`, { content: 'of one’s own' });
  if (role === 'former') await does(host, 'DELETE', `${path}/participants/${user}`);
  return { host, target, id, number, own };
}

async function direct(role, user) {
  const host = person('host');
  const other = role === 'stranger' ? person('target') : user;
  const { id, number } = await does(host, 'POST', '/conversations/direct', { user_id: other });
  const own = await does(other, 'POST', `/conversations/${id}/messages`, { content: 'of one’s own' });
  return { host, target: host, id, number, own };
}

async function journal(role, user, targetRole) {
  const [host, target, content] = [person('host'), person('target'), words()];
  const owner = role === 'owner' ? user : host;
  const { id, number } = await does(owner, 'POST', '/journals', { title: 'A journal', content });
  const shares = (user_id, permission) =>
    does(owner, 'POST', `/journals/${id}/collaborators`, { user_id, permission });
  await shares(target, targetRole ?? 'viewer');
  if (role === 'owner') await shares(host, 'editor');
  else if (role === 'former') await shares(user, 'editor');
  else if (role !== 'stranger') await shares(user, role);
  if (role === 'former') await does(host, 'DELETE', `/journals/${id}/collaborators/${user}`);
  // It has no messages: any name is one of none.
  return { host, target, id, number, content, own: { id: randomUUID() }, foreign: { id: randomUUID() } };
}

/**
 * A fresh place with one user in it as `role` (or is not), its host who sees all, and a target for what is done
 * to people. `own` is a message of that one, `foreign` one of the host, with words nobody else may read. A row
 * about threads finds one.
 */
export async function place([role, kind], /** @type {{ target?: any, name?: string }} */ { target, name } = {}) {
  const user = people[role];
  const made = await { group, direct, journal }[kind](role, user, target?.[kind]);
  const path = `/conversations/${made.id}`;
  const at = { ...made, role, kind, user, inside: role !== 'stranger' && role !== 'former', thread: randomUUID() };
  at.secret = made.content ?? words();
  if (kind !== 'journal') {
    at.foreign = await does(at.host, 'POST', `${path}/messages`, { content: at.secret });
    const threads = /\/threads|thread:|thread$/.test(name);
    if (threads) at.thread = (await does(at.host, 'POST', `${path}/threads`, { title: 'A thread' })).id;
  }
  return {
    ...at,
    own: at.own.id,
    foreign: at.foreign.id,
    ownNumber: at.own.number ?? numberOf(made.number, 1),
    foreignNumber: at.foreign.number ?? numberOf(made.number, 2),
    foreignSeq: at.foreign.seq ?? 1,
  };
}

/** Presence changes by itself. */
const withoutPresence = (body) =>
  JSON.parse(JSON.stringify(body, (key, value) => (['online', 'last_seen_at'].includes(key) ? undefined : value)));

/** Everything that could have been changed, as the host sees it, and what the one who asks sees of it. */
export async function look(at) {
  const see = async (user, path, headers) => {
    const { status, body } = await rest(token(user), 'GET', path, undefined, { base: gateways[0], headers });
    return status === 200 ? withoutPresence(body) : { status };
  };
  const path = `/conversations/${at.id}`;
  const [conversation, events, own] = await Promise.all([
    see(at.host, path),
    see(at.host, `${path}/events?limit=100`),
    at.inside ? see(at.user, `${path}/messages`) : { messages: [] },
  ]);
  const history = at.kind === 'journal' ? {} : await see(at.host, `${path}/messages`);
  // The form that carries the status of each message for every member.
  const encrypted = { 'x-parlance-dialect': 'encrypted' };
  const states = at.kind === 'journal' ? {} : await see(at.host, `/messages/${at.id}`, encrypted);
  const statuses = new Map((states.messages ?? []).map((one) => [one.id, one.statuses]));
  const written = at.kind === 'journal' ? await see(at.host, `/journals/${at.id}`) : {};
  return {
    conversation,
    events: events.events ?? [],
    messages: (history.messages ?? [])
      .toSorted((one, other) => one.seq - other.seq)
      .map((one) => ({ ...one, sender_id: one.sender?.id, statuses: statuses.get(one.id) })),
    written,
    shown: (own.messages ?? []).map(({ id }) => id),
  };
}

/** Who else could have done it, if a payload were believed. */
export const lies = (at) => ({
  sender_id: at.host,
  senderId: at.host,
  user_id: at.host,
  userId: at.host,
  actor: at.host,
  username: 'Host',
  sender: { id: at.host, username: 'Host' },
  created_by: at.host,
  role: 'admin',
});
