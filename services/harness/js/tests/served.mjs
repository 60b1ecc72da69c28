// Front ends that only append what they are emitted: what a session of the user got, or a page of history showed,
// never comes again, and what neither did comes once and in order.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { closeAll, connect, direct, eventually, group, person, rest, token, transport } from '../client.mjs';
import { agreed, follows, says, speak } from '../vocabulary.mjs';

after(closeAll);

const range = (count) => Array.from({ length: count }, (_, index) => index);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Messages sent over REST, one after the other. */
async function posts(user, conversation, ...contents) {
  const sent = [];
  for (const content of contents) {
    const { status, body } = await rest(token(user), 'POST', `/conversations/${conversation.id}/messages`, { content });
    assert.equal(status, 201, JSON.stringify(body));
    sent.push(body);
  }
  return sent;
}

/** A page of history as a front end reads it. */
async function history(user, conversation, query = '') {
  const { status, body } = await rest(token(user), 'GET', `/conversations/${conversation.id}/messages${query}`);
  assert.equal(status, 200, JSON.stringify(body));
  return body.messages.map(({ content }) => content);
}

const SHOWN = {
  journal: 'receiveMessage',
  encrypted: 'chat:message_received',
  chats: 'message:new',
  threads: 'message:new',
  inbox: 'new_message',
};
const JOINS = { journal: 'joinRoom', threads: 'conversation:join', inbox: 'join_conversation' };
const FOLLOWERS = ['encrypted', 'chats'];

/** What a page shows of what it was emitted. */
const bubbles = (dialect, client) => client.all(SHOWN[dialect]).map((message) => message.content || message.content_encrypted);

/** Resolves once everything before a further message has come; without that message. */
async function shown(dialect, client, sender, conversation) {
  const marker = `marker ${Math.random()}`;
  await posts(sender, conversation, marker);
  await eventually('the marker', () => bubbles(dialect, client).includes(marker));
  return bubbles(dialect, client).filter((content) => !content.startsWith('marker'));
}

for (const [dialect, join] of Object.entries(JOINS)) {
  const opens = (client, conversation) => agreed(client, join, conversation.id);

  test(`${dialect}: what a page of history showed does not come again with the join`, async () => {
    const [alice, bob] = [person('alice'), person('bob')];
    const conversation = await direct(alice, bob);
    await posts(alice, conversation, 'old');
    const first = await speak(dialect, bob, 0);
    await opens(first, conversation);
    await posts(alice, conversation, 'live');
    assert.deepEqual(await shown(dialect, first, alice, conversation), ['live']);
    first.close();
    await posts(alice, conversation, 'one', 'two', 'three');
    const second = await speak(dialect, bob, 1);
    const page = await history(bob, conversation);
    assert.deepEqual(page.slice(-3), ['one', 'two', 'three']);
    await opens(second, conversation);
    assert.deepEqual(await shown(dialect, second, alice, conversation), []);
  });

  test(`${dialect}: a message between the page and the join is emitted, whichever pages were here before`, async () => {
    const [alice, bob] = [person('alice'), person('bob')];
    const conversation = await direct(alice, bob);
    await posts(alice, conversation, 'one', 'two');
    const client = await speak(dialect, bob, 0);
    await history(bob, conversation);
    await posts(alice, conversation, 'between');
    await opens(client, conversation);
    assert.deepEqual(await shown(dialect, client, alice, conversation), ['between']);
  });

  test(`${dialect}: an earlier page of history, or a later one with a gap before it, covers nothing`, async () => {
    const [alice, bob] = [person('alice'), person('bob')];
    const conversation = await direct(alice, bob);
    await posts(alice, conversation, 'one');
    await history(bob, conversation);
    await posts(alice, conversation, 'two', 'three');
    assert.deepEqual(await history(bob, conversation, '?before=3'), ['one', 'two']);
    assert.deepEqual(await history(bob, conversation, '?after=2'), ['three']);
    const client = await speak(dialect, bob, 0);
    await opens(client, conversation);
    assert.deepEqual(await shown(dialect, client, alice, conversation), ['two', 'three']);
  });

  test(`${dialect}: what was sent while another conversation was open comes when this one is opened again`, async () => {
    const [alice, bob] = [person('alice'), person('bob')];
    const conversation = await direct(alice, bob);
    const client = await speak(dialect, bob, 0);
    await opens(client, conversation);
    await agreed(
      client,
      { journal: 'leaveRoom', threads: 'conversation:leave', inbox: 'leave_conversation' }[dialect],
      conversation.id,
    );
    await posts(alice, conversation, 'unheard');
    await opens(client, conversation);
    assert.deepEqual(await shown(dialect, client, alice, conversation), ['unheard']);
  });

  test(`${dialect}: a flow of messages is shown once through reloads and torn connections`, async () => {
    const [alice, bob] = [person('alice'), person('bob')];
    const conversation = await direct(alice, bob);
    await posts(alice, conversation, 'first');
    const page = await history(bob, conversation);
    let [flowing, held] = [true, false];
    /** @type {Promise<unknown> | undefined} */
    let posting;
    const sent = [];
    const post = async () => sent.push((await posts(alice, conversation, `flow ${sent.length}`))[0].content);
    const sending = (async () => {
      while (flowing) {
        if (!held) await (posting = post());
        await pause(20);
      }
    })();
    const seen = [];
    for (const round of range(4)) {
      const client = await speak(dialect, bob, round);
      await opens(client, conversation);
      await pause(300);
      // What is on its way while a client closes is neither surely lost nor surely shown.
      held = true;
      await posting;
      await eventually('all that was sent', () => bubbles(dialect, client).at(-1) === sent.at(-1));
      if (round % 2 && transport === 'websocket') /** @type {any} */ (client.socket.io.engine.transport).ws.terminate();
      else client.close();
      held = false;
      seen.push(...bubbles(dialect, client));
      await pause(400);
    }
    flowing = false;
    await sending;
    const last = await speak(dialect, bob, 0);
    await opens(last, conversation);
    seen.push(...(await shown(dialect, last, alice, conversation)));
    assert.deepEqual(page.concat(seen), ['first', ...sent]);
  });
}

for (const dialect of FOLLOWERS) {
  test(`${dialect}: what came while away comes once, also where it is neither marked nor read`, async () => {
    const [alice, bob] = [person('alice'), person('bob')];
    const conversation = await direct(alice, bob);
    await posts(alice, conversation, 'one', 'two', 'three');
    const first = await speak(dialect, bob, 0);
    assert.deepEqual(await shown(dialect, first, alice, conversation), ['one', 'two', 'three']);
    await first.leaves();
    await posts(alice, conversation, 'four');
    const second = await speak(dialect, bob, 1);
    assert.deepEqual(await shown(dialect, second, alice, conversation), ['four']);
    second.close();
    const third = await speak(dialect, bob, 0);
    assert.deepEqual(await shown(dialect, third, alice, conversation), []);
  });

  test(`${dialect}: a second tab, and a reload, show by history what the first tab got, and once`, async () => {
    const [alice, bob] = [person('alice'), person('bob')];
    const conversation = await direct(alice, bob);
    const first = await speak(dialect, bob, 0);
    await posts(alice, conversation, 'live');
    assert.deepEqual(await shown(dialect, first, alice, conversation), ['live']);
    await history(bob, conversation);
    const tab = await speak(dialect, bob, 1);
    assert.deepEqual(await shown(dialect, tab, alice, conversation), []);
    first.close();
    await tab.leaves();
    await posts(alice, conversation, 'away');
    const page = await history(bob, conversation);
    assert.equal(page.at(-1), 'away');
    const reloaded = await speak(dialect, bob, 1);
    assert.deepEqual(await shown(dialect, reloaded, alice, conversation), []);
  });
}

test('chats: what a list has counted as unread is not counted again by pushes', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await direct(alice, bob);
  await posts(alice, conversation, 'one', 'two', 'three');
  const { body } = await rest(token(bob), 'GET', '/conversations');
  assert.equal(body.conversations[0].unread, 3);
  const page = await speak('chats', bob, 0);
  assert.deepEqual(await shown('chats', page, alice, conversation), []);
  await page.leaves();
  await posts(alice, conversation, 'four');
  const back = await speak('chats', bob, 1);
  assert.deepEqual(await shown('chats', back, alice, conversation), ['four']);
});

if (transport === 'polling') {
  test('a polling client that vanishes did not get what it never fetched', async () => {
    const [alice, bob] = [person('alice'), person('bob')];
    const conversation = await direct(alice, bob);
    const client = await speak('chats', bob, 0);
    await posts(alice, conversation, 'seen');
    assert.deepEqual(await shown('chats', client, alice, conversation), ['seen']);
    // The page is gone without a word: nobody polls any more.
    const polling = /** @type {any} */ (client.socket.io.engine.transport);
    polling.doPoll = () => {};
    polling.poll = () => {};
    await posts(alice, conversation, 'the answer to the last poll', 'unseen');
    const back = await speak('chats', bob, 1);
    const seen = await shown('chats', back, alice, conversation);
    assert.equal(seen.at(-1), 'unseen', JSON.stringify(seen));
    assert.ok(!seen.includes('seen'), JSON.stringify(seen));
  });
}

const TYPES = {
  journal: undefined,
  native: ['typing', (id, is) => ({ conversation_id: id, is_typing: is }), 'typing', (one) => one.is_typing],
  encrypted: ['chat:typing', (id, is) => ({ conversationId: id, isTyping: is }), 'chat:user_typing', (one) => one.isTyping],
  threads: ['typing', (id, is) => ({ conversationId: id, isTyping: is }), 'user:typing', (one) => one.isTyping],
};

/** Typing may be dropped, as long as the gateways have not received who just joined: the typing user goes on. */
async function typed(reader, event, matches, types) {
  await eventually('typing is shown', async () => {
    types();
    await pause(50);
    return reader.all(event, matches).length > 0;
  });
}

for (const [dialect, [event, payload, sees, isTyping]] of Object.entries(TYPES).filter(([, one]) => one)) {
  for (const torn of [false, true]) {
    test(`${dialect}: typing ends for the others when the connection ends${torn ? ', torn' : ''}`, async () => {
      const [alice, bob] = [person('alice'), person('bob')];
      const conversation = await direct(alice, bob);
      const typist = await speak(dialect, alice, 0);
      const reader = await speak(dialect, bob, 1);
      if (['native', 'threads'].includes(dialect)) {
        for (const client of [typist, reader])
          await agreed(client, 'conversation:join', {
            [dialect === 'native' ? 'conversation_id' : 'conversationId']: conversation.id,
          });
      }
      await follows(reader, event, payload(conversation.id, false));
      await follows(typist, event, payload(conversation.id, true));
      await typed(reader, sees, isTyping, () => says(typist, event, payload(conversation.id, true)));
      reader.forget();
      if (torn && transport === 'websocket') /** @type {any} */ (typist.socket.io.engine.transport).ws.terminate();
      else typist.close();
      await reader.sees(sees, (one) => !isTyping(one), 3_000);
    });
  }
}

for (const [dialect, begins, ends, enter] of [
  ['chats', 'typing:start', 'typing:stop'],
  ['inbox', 'typing_start', 'typing_stop', 'join_conversation'],
]) {
  test(`${dialect}: typing ends for the others when the connection ends`, async () => {
    const [alice, bob] = [person('alice'), person('bob')];
    const conversation = await direct(alice, bob);
    const chat = { chatId: conversation.id, conversationId: conversation.id };
    const [typist, reader] = [await speak(dialect, alice, 0), await speak(dialect, bob, 1)];
    for (const client of [typist, reader]) {
      if (enter) await agreed(client, enter, conversation.id);
      await follows(client, ends, chat);
    }
    reader.forget();
    await typed(
      reader,
      begins,
      () => true,
      () => says(typist, begins, chat),
    );
    typist.close();
    await reader.sees(ends, () => true, 3_000);
  });
}

for (const [dialect, removed, named] of /** @type {[string, string, (one: any) => string][]} */ ([
  ['native', 'conversation:removed', (one) => one.conversation_id],
  ['encrypted', 'chat:conversation_removed', (one) => one.conversation_id ?? one.conversationId],
  ['chats', 'chat:removed', (one) => one.chatId],
  ['threads', 'conversation:removed', (one) => one.conversationId],
  ['inbox', 'conversation_removed', (one) => one.conversationId],
])) {
  test(`${dialect}: a user removed, or whose group was deleted, while away is notified on return`, async () => {
    const [alice, bob] = [person('alice'), person('bob')];
    const [left, deleted, kept] = await Promise.all(range(3).map(() => group(alice, [bob])));
    const first = await speak(dialect, bob, 0);
    await eventually('bob is online', async () => {
      const { body } = await rest(token(alice), 'GET', `/users/${bob}/presence`);
      return body.online;
    });
    first.close();
    const jwt = token(alice);
    const gone = await rest(jwt, 'DELETE', `/conversations/${left.id}/participants/${bob}`);
    assert.ok(gone.status < 300, gone.text);
    const away = await rest(jwt, 'DELETE', `/conversations/${deleted.id}`);
    assert.ok(away.status < 300, away.text);
    const back = await eventually('bob comes back after his absence is known', async () => {
      const client = await speak(dialect, bob, 1);
      const told = () => client.all(removed).map(named).sort();
      await pause(200);
      return told().length > 0 ? client : client.close();
    });
    await eventually('both', () => back.all(removed).length >= 2);
    assert.deepEqual([...new Set(back.all(removed).map(named))].sort(), [left.id, deleted.id].sort());
    assert.ok(!JSON.stringify(back.all(removed)).includes(kept.id));
  });
}

test('a position in a conversation one was removed from is answered with its removal, by connect and by sync', async () => {
  const [alice, bob, mallory] = ['alice', 'bob', 'mallory'].map(person);
  const conversation = await group(alice, [bob]);
  const gone = await rest(token(alice), 'DELETE', `/conversations/${conversation.id}/participants/${bob}`);
  assert.ok(gone.status < 300, gone.text);
  const since = { [conversation.id]: { seq: 0 } };
  const auth = (user) => ({ auth: { token: token(user), dialect: 'native', since }, events: /** @type {'all'} */ ('all') });
  const back = await connect(bob, 0, auth(bob));
  await back.sees('conversation:removed', (one) => one.conversation_id === conversation.id);
  const { conversations } = await back.does('sync', { conversations: since });
  assert.equal(conversations[conversation.id].removed, true);
  const { body } = await back.rest('POST', '/sync', { conversations: since });
  assert.equal(body.conversations[conversation.id].removed, true);
  const stranger = await connect(mallory, 1, auth(mallory));
  assert.deepEqual((await stranger.does('sync', { conversations: since })).conversations, {});
  assert.deepEqual(stranger.all('conversation:removed'), []);
});

test('encrypted: the socket that sent is answered with the message, and only the other devices are emitted it', async () => {
  const [alice, bob] = [person('alice'), person('bob')];
  const conversation = await direct(alice, bob);
  const [phone, laptop] = [await speak('encrypted', alice, 0), await speak('encrypted', alice, 1)];
  for (const client of [phone, laptop])
    await follows(client, 'chat:typing', { conversationId: conversation.id, isTyping: false });
  const sends = { conversationId: conversation.id, contentEncrypted: 'by socket' };
  const { message } = await agreed(phone, 'chat:message_send', sends);
  await laptop.sees('chat:message_received', ({ id }) => id === message.id);
  // Without an ack it has no other way to know, as after a request over REST.
  says(phone, 'chat:message_send', { ...sends, contentEncrypted: 'without an ack' });
  await phone.sees('chat:message_received', (one) => one.content_encrypted === 'without an ack');
  const [posted] = await posts(alice, conversation, 'over REST');
  for (const client of [phone, laptop]) await client.sees('chat:message_received', ({ id }) => id === posted.id);
  assert.deepEqual(
    phone.all('chat:message_received', ({ id }) => id === message.id),
    [],
  );
});

/** @type {Record<string, [string, (one: any) => any]>} */
const LISTS = {
  native: ['conversation:updated', (one) => ({ text: one.last_message?.content, unread: one.unread, title: one.title })],
  inbox: [
    'conversation_updated',
    (one) => ({ text: one.message?.content ?? one.lastMessage?.content ?? one.lastMessage, unread: one.unread }),
  ],
  threads: [
    'conversation:updated',
    ({ conversation: one }) => ({ text: one.lastMessage?.content, unread: one.unread, title: one.title }),
  ],
};

for (const [dialect, [updated, row]] of Object.entries(LISTS)) {
  test(`${dialect}: a list that joined nothing follows edits, deletions, reads on another device and titles`, async () => {
    const [alice, bob] = [person('alice'), person('bob')];
    const conversation = await group(alice, [bob]);
    const list = await speak(dialect, bob, 0);
    const shows = (text, unread) =>
      eventually(`the list shows ${text} and ${unread}`, () => {
        const last = list
          .all(updated)
          .map(row)
          .filter((one) => one.text !== undefined)
          .at(-1);
        assert.deepEqual([last?.text, last?.unread], [text, unread]);
        return true;
      });
    await eventually('the list lives', async () => {
      await posts(alice, conversation, 'zero');
      return list.all(updated).length > 0;
    });
    const phone = await connect(bob, 1);
    const reads = async () => {
      const { head_seq: head } = await phone.joins(conversation);
      await phone.does('receipt:read', { conversation_id: conversation.id, up_to_seq: head });
    };
    await reads();
    await shows('zero', 0);
    const [one, two] = await posts(alice, conversation, 'one', 'two');
    await shows('two', 2);
    const path = ({ id }) => `/conversations/${conversation.id}/messages/${id}`;
    await rest(token(alice), 'PATCH', path(two), { content: 'two, edited' });
    await shows('two, edited', 2);
    await rest(token(alice), 'DELETE', path(two));
    await shows('one', 1);
    await rest(token(alice), 'DELETE', path(one));
    await shows('zero', 0);
    await posts(alice, conversation, 'three');
    await shows('three', 1);
    await reads();
    await shows('three', 0);
    await rest(token(alice), 'PATCH', `/conversations/${conversation.id}`, { title: 'Another title' });
    const renamed = dialect === 'inbox' ? 'conversation_changed' : updated;
    await list.sees(renamed, (event) => JSON.stringify(event).includes('Another title'));
    const { body } = await rest(token(bob), 'GET', '/conversations');
    assert.equal(body.conversations[0].last_message.content, 'three');
  });
}
