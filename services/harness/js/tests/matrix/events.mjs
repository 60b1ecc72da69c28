// Every event of every dialect for everyone.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, describe, test } from 'node:test';
import { closeAll, connect, eventually, rest, token } from '../../client.mjs';
import { speak } from '../../vocabulary.mjs';
import * as effects from './effects.mjs';
import { assertComplete, contract, counts, judge, ofThisPart } from './judge.mjs';
import { lies, people, place } from './world.mjs';

after(closeAll);

const rows = [];
/** `payload(at)` is what is emitted; the cells are in the order of INSIDERS. */
const row = (dialect, event, variant, cells, payload, effect, more = {}) =>
  rows.push({ dialect, event, name: `${dialect} ${event} ${variant}`.trim(), cells, payload, effect, ...more });

const said = 'said in a cell';
const anew = 'changed in a cell';
const emoji = '👍';
const { sent, edited, deleted, hidden, marked, received, threadBegun, written } = effects;
/** Answered alike to everyone, and about anything. */
const anybody = { outsiders: 'ok' };

/** What the host then says reaches who has joined, and nobody who was refused. */
const hears = {
  after: async (at, allowed) => {
    if (at.kind === 'journal') return;
    const content = `after ${randomUUID()}`;
    const path = `/conversations/${at.id}/messages`;
    const { status } = await rest(token(at.host), 'POST', path, { content });
    assert.equal(status, 201);
    at.unheard = content;
    if (allowed) await eventually(`${at.role} hears`, () => heard(at.client, content));
  },
};
const heard = (client, text) => client.seen.some(({ payload }) => JSON.stringify(payload)?.includes(text));

/** Who types is shown to the host, under no other name. */
const types = {
  before: async (at) => {
    at.observer = await connect(at.host, 1);
    await at.observer.does('conversation:join', { conversation_id: at.id });
  },
  after: async (at, allowed) => {
    if (allowed) assert.equal((await at.observer.sees('typing')).user_id, at.user);
    // What may be dropped is sent at once; the host's own word comes through the database.
    await at.observer.does('conversation:leave', { conversation_id: at.id });
    const typists = new Set(at.observer.all('typing').map((one) => one.user_id));
    assert.deepEqual([...typists], allowed ? [at.user] : []);
    at.observer.close();
  },
};

/** One state of a page, as y-protocols encodes it, full of lies. */
const awareness = (at) => {
  const state = JSON.stringify({ user: { id: at.host, name: 'Host' }, note: said });
  const update = Buffer.concat([Buffer.from([1, 1, 1]), Buffer.from([(state.length & 127) | 128, state.length >> 7]), Buffer.from(state)]);
  return { journal_id: at.id, update: update.toString('base64') };
};

/** What is shown in a journal reaches the host under the name of who shows it. */
const shows = {
  before: async (at) => {
    if (at.kind !== 'journal') return;
    at.observer = await connect(at.host, 1, { events: ['journal:awareness'] });
    await at.observer.does('journal:join', { journal_id: at.id });
  },
  after: async (at, allowed) => {
    if (!at.observer) return;
    if (allowed) {
      const { update } = await at.observer.sees('journal:awareness');
      const shown = Buffer.from(update, 'base64').toString();
      assert.ok(shown.includes(said) && shown.includes(JSON.stringify({ id: at.user, name: at.user })), shown);
    } else {
      // What is shown later would come after it.
      await at.observer.does('journal:awareness', awareness(at));
      await at.observer.does('journal:leave', { journal_id: at.id });
      assert.deepEqual(at.observer.all('journal:awareness'), []);
    }
    at.observer.close();
  },
};

// native
{
  const on = (...parts) => row('native', ...parts);
  const about = (more) => (at) => ({ conversation_id: at.id, ...more?.(at) });
  const message = (which, more) => about((at) => ({ message_id: at[which], ...more }));
  const alone = (which, more) => (at) => ({ message_id: at[which], ...more });
  on('conversation:join', '', 'yyyyyyy', about(), effects.shown, hears);
  on('conversation:leave', '', 'yyyyyyy', about(), undefined, anybody);
  const listed = (was, is, at, answer) => {
    effects.nothing(was, is);
    assert.ok(answer.participants.some((one) => one.user_id === at.user));
  };
  on('conversation:participants', '', 'yyyyyyy', about(), listed);
  const member = about((at) => ({ user_id: at.target }));
  on('member:ban', '', 'nyy----', member, effects.left((at) => at.target));
  on('member:unban', 'not banned', 'nyy----', member);
  on('conversation:mute', '', 'yyyy---', about(), effects.muted(true));
  on('conversation:unmute', '', 'yyyy---', about(), effects.muted(false));
  on('message:send', '', 'yyyy---', about(() => ({ content: said })), sent);
  on('message:edit', 'own', 'yyyy...', message('own', { content: anew }), edited('own'));
  on('message:edit', 'of another', 'nnnn...', message('foreign', { content: anew }));
  on('message:edit', 'own, named alone', 'yyyy...', alone('own', { content: anew }), edited('own'));
  on('message:edit', 'of another, named alone', 'nnnn...', alone('foreign', { content: anew }));
  on('message:delete', 'own', 'yyyy...', message('own'), deleted('own'));
  on('message:delete', 'of another', 'nyyn...', message('foreign'), deleted('foreign'));
  on('message:delete', 'of another by number', 'nyyn...', alone('foreignNumber'), deleted('foreign'));
  on('message:delete', 'for oneself', 'yyyy---', message('foreign', { scope: 'me' }), hidden);
  const whole = { refusal: { n: 'conflict' } };
  on('message:stop', 'sent whole', 'nnnn...', message('foreign'), undefined, whole);
  on('message:report', '', 'yyyy---', message('foreign', { reason: 'spam' }), effects.nothing);
  on('message:react', '', 'yyyy---', message('foreign', { emoji }), marked);
  on('message:react', 'named alone', 'yyyy...', alone('foreign', { emoji }), marked);
  on('message:unreact', 'none', 'yyyy---', message('foreign', { emoji }));
  on('receipt:read', 'by seq', 'yyyy---', about((at) => ({ up_to_seq: at.foreignSeq })), received('read'));
  on('receipt:read', 'by id', 'yyyy---', about((at) => ({ message_ids: [at.foreign] })), received('read'));
  on('receipt:read', 'named alone', 'yyyy...', (at) => ({ message_ids: [at.foreign] }), received('read'));
  on('receipt:delivered', '', 'yyyy---', about((at) => ({ message_ids: [at.foreign] })), received('delivered'));
  on('typing', '', 'yyyyyyy', about(() => ({ is_typing: true })), undefined, { ...types, enter: 'conversation:join' });
  on('thread:create', '', 'yyyy---', about(() => ({ title: 'Another' })), threadBegun);
  on('thread:switch', '', 'yyyy...', about((at) => ({ thread_id: at.thread })));
  on('journal:join', '', '....yyy', (at) => ({ journal_id: at.id }), effects.shown);
  on('journal:leave', '', 'yyyyyyy', (at) => ({ journal_id: at.id }), undefined, anybody);
  on('journal:edit', '', '....nyy', (at) => ({ journal_id: at.id, content: 'written in a cell' }), written);
  on('journal:awareness', '', '....yyy', awareness, undefined, { ...shows, enter: 'journal:join' });
  on('journal:awareness', 'without having joined', '....nnn', awareness, undefined, shows);
  on('presence', '', 'yyyyyyy', () => ({ online: true }), undefined, anybody);
  on('presence:set', '', 'yyyyyyy', () => ({ status: 'away' }), undefined, anybody);
  const host = (at) => ({ user_ids: [at.host] });
  on('presence:subscribe', '', 'yyyyyyy', host, effects.seen, anybody);
  on('presence:unsubscribe', '', 'yyyyyyy', host, undefined, anybody);
  on('user:block', '', 'yyyyyyy', (at) => ({ user_id: at.host }), effects.nothing, anybody);
  on('user:unblock', 'not blocked', 'yyyyyyy', (at) => ({ user_id: at.host }), effects.nothing, anybody);
  on('user:blocks', '', 'yyyyyyy', () => ({}), effects.nothing, anybody);
  const position = (at) => ({ conversations: { [at.id]: { seq: 0 } } });
  const page = (was, is, at, answer) => {
    effects.nothing(was, is);
    assert.deepEqual(answer.conversations?.[at.id]?.events ?? [], at.inside ? was.events : []);
  };
  on('sync', '', 'yyyyyyy', position, page, { ...anybody, same: true });
}

// journal: ids are numbers.
{
  const on = (...parts) => row('journal', ...parts);
  const bare = (at) => at.number;
  const about = (more) => (at) => ({ conversationId: at.number, ...more(at) });
  on('joinRoom', '', 'yyyyyyy', bare, (was, is) => effects.nothing(was, is), hears);
  on('leaveRoom', '', 'yyyyyyy', bare, undefined, anybody);
  on('sendMessage', '', 'yyyy---', about(() => ({ content: said })), sent);
  const posing = about((at) => ({ content: said, senderId: at.host }));
  on('sendMessage', 'in the name of another', 'nnnnnnn', posing, undefined, { outsiders: 'forbidden' });
  const marks = about((at) => ({ messageIds: [at.foreignNumber] }));
  on('markAsRead', '', 'yyyy---', marks, received('read'));
  on('joinJournal', '', '....yyy', bare, (was, is, at, answer) => {
    effects.nothing(was, is);
    assert.equal(answer.content, at.content);
  });
  on('leaveJournal', '', 'yyyyyyy', bare, undefined, anybody);
  const edit = (at) => ({ journalId: at.number, content: 'written in a cell' });
  on('journalEdit', '', '....nyy', edit, written);
}

// The others name things alike, where they have an event for them.
const named = {
  conversation: (key) => (more) => (at) => ({ [key]: at.id, ...more?.(at) }),
};

// encrypted
{
  const on = (...parts) => row('encrypted', ...parts);
  const about = named.conversation('conversationId');
  const alone = (at) => ({ messageId: at.foreign });
  for (const event of ['presence:online', 'presence:offline']) {
    on(event, '', 'yyyyyyy', () => undefined, undefined, anybody);
  }
  on('chat:message_send', '', 'yyyy---', about(() => ({ contentEncrypted: said })), sent);
  on('chat:message_delivered', '', 'yyyy...', alone, received('delivered'));
  on('chat:message_read', '', 'yyyy...', alone, received('read'));
  on('chat:message_read', 'with its conversation', 'yyyy---', about(alone), received('read'));
  on('chat:typing', '', 'yyyy...', about(() => ({ isTyping: true })), undefined, { ...types, enter: 'chat:typing' });
}

// chats
{
  const on = (...parts) => row('chats', ...parts);
  const about = named.conversation('chatId');
  on('chat:join', '', 'yyyyyyy', about(), (was, is) => effects.nothing(was, is), hears);
  on('chat:leave', '', 'yyyyyyy', about(), undefined, anybody);
  on('message:send', '', 'yyyy---', about(() => ({ content: said, messageType: 'text' })), sent);
  on('message:read', '', 'yyyy---', about((at) => ({ messageId: at.foreign })), received('read'));
  for (const event of ['typing:start', 'typing:stop']) {
    on(event, '', 'yyyyyyy', about(), undefined, { ...types, enter: 'chat:join' });
  }
}

// threads
{
  const on = (...parts) => row('threads', ...parts);
  const about = named.conversation('conversationId');
  const bare = (at) => at.id;
  const message = (which, more) => about((at) => ({ messageId: at[which], ...more }));
  on('conversation:join', '', 'yyyyyyy', bare, effects.shown, hears);
  on('conversation:leave', '', 'yyyyyyy', bare, undefined, anybody);
  on('message:send', '', 'yyyy---', about(() => ({ content: said, tempId: 't' })), sent);
  on('message:send', 'into a thread', 'yyyy---', about((at) => ({ content: said, threadId: at.thread })), sent);
  on('message:edit', 'own', 'yyyy...', message('own', { content: anew }), edited('own'));
  on('message:edit', 'of another', 'nnnn...', message('foreign', { content: anew }));
  on('message:delete', 'own', 'yyyy...', message('own'), deleted('own'));
  on('message:delete', 'of another', 'nyyn...', message('foreign'), deleted('foreign'));
  on('message:delete', 'for oneself', 'yyyy---', message('foreign', { scope: 'me' }), hidden);
  on('message:read', '', 'yyyy---', message('foreign'), received('read'));
  on('message:react', '', 'yyyy---', message('foreign', { emoji }), marked);
  on('message:react', 'taken back', 'yyyy---', message('foreign', { emoji, remove: true }));
  on('typing', '', 'yyyyyyy', about(() => ({ isTyping: true })), undefined, { ...types, enter: 'conversation:join' });
  on('thread:create', '', 'yyyy---', about(() => ({ title: 'Another' })), threadBegun);
  on('thread:create', 'from a message', 'yyyy---', about((at) => ({ rootMessageId: at.foreign })), threadBegun);
  on('thread:switch', '', 'yyyy...', about((at) => ({ threadId: at.thread })));
}

// inbox
{
  const on = (...parts) => row('inbox', ...parts);
  const about = named.conversation('conversationId');
  const bare = (at) => at.id;
  on('join_conversation', '', 'yyyyyyy', bare, effects.shown, hears);
  on('leave_conversation', '', 'yyyyyyy', bare, undefined, anybody);
  on('send_message', '', 'yyyy---', about(() => ({ content: said })), sent);
  on('mark_as_read', '', 'yyyy---', about(), received('read'));
  on('mark_as_read', 'by id', 'yyyy---', about((at) => ({ messageIds: [at.foreign] })), received('read'));
  for (const event of ['typing_start', 'typing_stop']) {
    on(event, '', 'yyyyyyy', bare, undefined, { ...types, enter: 'join_conversation' });
  }
}

/** One connection of each role in each dialect, made when first needed. */
const clients = new Map();
function client(dialect, role) {
  const key = `${dialect} ${role}`;
  if (!clients.has(key)) clients.set(key, speak(dialect, people[role], clients.size));
  return clients.get(key);
}

// About the connection, the same in every dialect.
for (const dialect of new Set(rows.map((one) => one.dialect))) {
  row(dialect, 'auth:refresh', '', 'yyyyyyy', (at) => ({ token: token(at.user) }), effects.nothing, anybody);
}


/** The payload of a row, full of lies about who sends it. */
function payload(row, at) {
  const own = row.payload(at);
  if (typeof own !== 'object' || own === null) return own;
  const { senderId, sender_id, ...others } = lies(at);
  // There a foreign sender is refused, which is a row of its own.
  return { ...others, ...(row.dialect !== 'journal' && { senderId, sender_id }), ...own };
}

const attempt = (row) => async (at) => {
  at.client = await client(row.dialect, at.role);
  if (row.enter && at.inside) await enters(row, at);
  const given = payload(row, at);
  const ack = await at.client.ask(row.event, ...(given === undefined ? [] : [given]));
  const ok = ack?.ok ?? ack?.success;
  assert.equal(typeof ok, 'boolean', JSON.stringify(ack));
  return { code: ok ? 'ok' : (ack.code ?? ack.error.code), answer: ack };
};

/** Follows the place by the event that does so; who follows by itself is waited for. */
async function enters(row, at) {
  if (row.enter === 'journal:join') {
    if (at.kind === 'journal') await at.client.does(row.enter, { journal_id: at.id });
    return;
  }
  const where = row.dialect === 'native' ? { conversation_id: at.id } : { conversationId: at.id, chatId: at.id };
  const follow = row.enter === row.event ? { ...where, isTyping: false } : where;
  if (row.enter === row.event && at.kind === 'journal') return;
  await eventually(`${at.role} follows`, async () => {
    const ack = await at.client.ask(row.enter, follow);
    return ack.ok ?? ack.success;
  });
}

describe('events', { concurrency: 6 }, () => {
  for (const row of ofThisPart(rows)) test(row.name, () => judge({ ...row, attempt: attempt(row) }));
});

test('a connection without a good token is none, whatever the dialect', async () => {
  for (const dialect of new Set(rows.map((one) => one.dialect))) {
    for (const jwt of [undefined, token(people.admin, { exp: 1 }), `${token(people.admin)}x`]) {
      await assert.rejects(connect(people.admin, 0, { auth: { token: jwt, dialect } }));
      counts('unauthenticated');
    }
  }
});

test('nothing of any place has reached a non-member, and nothing sent after they left the former', async () => {
  const at = await place(['stranger', 'group']);
  for (const [key, connection] of clients) {
    if (!/stranger|former/.test(key)) continue;
    const { seen } = await connection;
    const told = seen.map(({ payload: one }) => JSON.stringify(one) ?? '').filter((one) => /words |after /.test(one));
    assert.deepEqual(told, [], key);
    counts('nothing');
  }
  assert.ok(at.id);
});

test('every event of the contract has its row', () => {
  for (const dialect of new Set(rows.map((one) => one.dialect))) {
    const own = rows.filter((one) => one.dialect === dialect).map((one) => one.event);
    const { messages } = contract(`asyncapi/${dialect}.json`).channels.socket;
    const emitted = Object.keys(messages).filter((key) => key.startsWith('client.'));
    assertComplete(
      own,
      emitted.map((key) => messages[key].name),
    );
  }
});
