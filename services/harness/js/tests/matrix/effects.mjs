// What must have come of something that was allowed, and nothing else: `(before, after, at, answer)`.
import assert from 'node:assert/strict';
import { rest, token } from '../../client.mjs';

/** All but these parts stayed as they were. */
function only(before, after, ...parts) {
  for (const part of Object.keys(before).filter((one) => !parts.includes(one))) {
    assert.deepEqual(after[part], before[part], `${part} changed as well`);
  }
}

const MOVED = ['conversation', 'events', 'messages', 'shown'];
const find = (state, id) => state.messages.find((one) => one.id === id);
const newest = (before, after) => after.events.slice(before.events.length);

/** One event more, of this type. */
function oneMore(before, after, type) {
  const more = newest(before, after);
  assert.deepEqual(
    more.map((event) => event.type),
    [type],
  );
  assert.equal(after.conversation.head_seq, before.conversation.head_seq + 1);
  return more[0];
}

/** Every message but this one stayed as it was. */
function othersKept(before, after, id) {
  const others = (state) => state.messages.filter((one) => one.id !== id);
  assert.deepEqual(others(after), others(before));
}

export const nothing = (before, after) => assert.deepEqual(after, before);

export function sent(before, after, at) {
  only(before, after, ...MOVED);
  oneMore(before, after, 'message:new');
  assert.deepEqual(after.messages.slice(0, -1), before.messages);
  const { sender_id, content_encrypted, content } = after.messages.at(-1);
  assert.equal(sender_id, at.user, 'the token says who speaks');
  assert.equal(content ?? content_encrypted, 'said in a cell');
}

export const edited = (name) => (before, after, at) => {
  only(before, after, ...MOVED);
  oneMore(before, after, 'message:edited');
  othersKept(before, after, at[name]);
  const [was, is] = [find(before, at[name]), find(after, at[name])];
  assert.equal(is.sender_id, was.sender_id);
  assert.equal(is.content ?? is.content_encrypted, 'changed in a cell');
};

export const deleted = (name) => (before, after, at) => {
  only(before, after, ...MOVED);
  oneMore(before, after, 'message:deleted');
  othersKept(before, after, at[name]);
  assert.ok(find(after, at[name]).deleted_at);
};

export function hidden(before, after, at) {
  only(before, after, 'shown');
  assert.deepEqual(
    after.shown,
    before.shown.filter((id) => id !== at.foreign),
  );
  assert.equal(after.shown.length, before.shown.length - 1);
}

/** Only the one who asked sees it. */
export const muted = (is) => async (before, after, at) => {
  nothing(before, after);
  const { body } = await rest(token(at.user), 'GET', `/conversations/${at.id}`);
  assert.equal(body.muted, is);
};

export function marked(before, after, at) {
  only(before, after, ...MOVED);
  oneMore(before, after, 'message:reaction');
  othersKept(before, after, at.foreign);
  assert.deepEqual(find(after, at.foreign).reactions, [{ user_id: at.user, emoji: '👍' }]);
}

/** This far has the host's message come to the one who asked, and to nobody else. */
export const received = (status) => (before, after, at) => {
  only(before, after, 'messages', 'conversation');
  const statuses = (state) => Object.fromEntries(find(state, at.foreign).statuses.map((s) => [s.user_id, s.status]));
  assert.deepEqual(statuses(after), { ...statuses(before), [at.user]: status });
};

export function threadBegun(before, after, at) {
  only(before, after, 'events', 'conversation');
  assert.equal(oneMore(before, after, 'thread:created').thread.created_by, at.user);
}

export const changed = (fields) => (before, after) => {
  only(before, after, 'conversation', 'events', 'written');
  oneMore(before, after, 'conversation:updated');
  for (const [name, value] of Object.entries(fields)) assert.deepEqual(after.conversation[name], value);
};

export function gone(_before, after) {
  assert.deepEqual(after.conversation, { status: 404 });
}

const roles = (state) => Object.fromEntries(state.conversation.participants.map((one) => [one.user_id, one.role]));

export const joined = (newcomer, role) => (before, after, at) => {
  only(before, after, 'conversation', 'events', 'messages', 'written');
  oneMore(before, after, 'member:added');
  assert.deepEqual(roles(after), { ...roles(before), [newcomer(at)]: role });
};

export const raised = (role) => (before, after, at) => {
  only(before, after, 'conversation', 'events', 'written');
  oneMore(before, after, 'member:role');
  assert.deepEqual(roles(after), { ...roles(before), [at.target]: role });
};

export const left = (whom) => (before, after, at) => {
  only(before, after, 'conversation', 'events', 'messages', 'written', 'shown');
  const { [whom(at)]: role, ...others } = roles(before);
  assert.ok(role);
  assert.deepEqual(Object.keys(roles(after)).sort(), Object.keys(others).sort());
};

export function written(before, after) {
  only(before, after, 'conversation', 'events', 'written');
  oneMore(before, after, 'journal:updated');
  assert.match(after.written.content, /written in a cell/);
}

/** The first text is there again. */
export function restored(before, after, at) {
  only(before, after, 'conversation', 'events', 'written');
  oneMore(before, after, 'journal:updated');
  assert.equal(after.written.content, at.secret);
}

/** Nothing changed, and the answer says who wrote the journal. */
export function versions(before, after, _at, answer) {
  nothing(before, after);
  assert.ok(answer.versions.length > 0 && answer.versions.every((one) => one.user_id), JSON.stringify(answer));
}

/** Nothing changed, and the answer shows what is for insiders only. */
export function shown(before, after, at, answer) {
  nothing(before, after);
  const about = JSON.stringify(answer);
  assert.ok(about.includes(at.id) || about.includes(at.secret), `nothing of the place: ${about.slice(0, 300)}`);
}

/** Who shares a conversation with the host sees the host; to others, and in a journal, the host is nobody. */
export function seen(was, is, at, answer) {
  nothing(was, is);
  assert.deepEqual(
    answer.presence.map((one) => one.user_id),
    at.inside && at.kind !== 'journal' ? [at.host] : [],
  );
}
