// What only one front end draws: read marks and journals, ticks and presence, cases and agents, the moving list.
// Which front ends: PARLANCE_FRONTENDS, all of them by default.
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { eventually } from '../../client.mjs';
import { closeAll, FRONT_ENDS, pair, Person, row, says, shows, texts } from './world.mjs';

after(closeAll);

const chosen = process.env.PARLANCE_FRONTENDS?.split(',') ?? Object.keys(FRONT_ENDS);
// Each check has users of its own, who mostly wait.
const of = (name, checks) => chosen.includes(name) && describe(name, { concurrency: 4 }, checks);
const find = (page, text) => page.state.bubbles.find((one) => one.text === text);
const isText = (text) => assert.ok(typeof text === 'string' && text.length > 0 && !text.includes('[object'), `${text}`);
const refusesEmpty = (name) =>
  test('an empty message says so in words, and leaves no bubble behind', async () => {
    const { a, b } = await pair(name);
    const before = texts(b);
    await a.send('');
    await eventually('an error is shown', () => a.state.error);
    isText(a.state.error);
    assert.deepEqual(
      a.state.bubbles.filter(({ text, failed }) => text === '' && !failed),
      [],
    );
    await says(a, 'works again', b);
    await shows(b, [...before, 'works again']);
  });

of('journal', () => {
  test('a message gets its double check mark when the other opens the chat, and keeps it', async () => {
    const { alice, bob, conversation, a } = await pair('journal');
    await bob.tabs[0].back();
    bob.leaves();
    await says(a, 'read me');
    assert.equal(find(a, 'read me').read, false);
    const b = await bob.reloads(conversation);
    await eventually('the mark', () => find(a, 'read me').read);
    assert.equal(find(b, 'read me').from, alice.id);
    const reloaded = await alice.reloads(conversation);
    await eventually('the mark after a reload', () => find(reloaded, 'read me').read);
  });

  test('ids are numbers everywhere, and the same chat comes back whichever user starts it', async () => {
    const { alice, bob, conversation, a, b } = await pair('journal');
    assert.equal(typeof conversation, 'number');
    assert.equal(await b.chatWith(alice.id), conversation);
    assert.equal(await a.chatWith(bob.id), conversation);
    assert.equal(row(await alice.reloads(), conversation).title, `user ${bob.id}`);
  });

  test('a shared journal follows its editors, and a viewer made an editor may write', async () => {
    const { bob, a, b } = await pair('journal');
    const { id } = await a.call('POST', '/api/journals', { title: 'Ours', content: 'Dear diary' });
    const share = (permission) => a.call('POST', `/api/journals/${id}/collaborators`, { user_id: bob.id, permission });
    await share('viewer');
    await a.openJournal(id);
    await b.openJournal(id);
    assert.equal(b.state.journal, 'Dear diary');
    b.writeJournal('Dear diary, I may not');
    await eventually('the viewer is refused', () => b.state.error);
    isText(b.state.error);
    await share('editor');
    await b.openJournal(id);
    b.writeJournal('Dear diary, now I may');
    await eventually('the other sees it', () => a.state.journal === 'Dear diary, now I may');
  });

  test('a page that was away for a moment draws what others wrote in its journal, and takes nothing of it back', async () => {
    const { bob, a, b } = await pair('journal');
    const { id } = await a.call('POST', '/api/journals', { title: 'Ours', content: 'one' });
    await a.call('POST', `/api/journals/${id}/collaborators`, { user_id: bob.id, permission: 'editor' });
    for (const page of [a, b]) await page.openJournal(id);
    a.writeJournal('one, two');
    await eventually('both draw it', () => b.state.journal === 'one, two');
    await bob.blips(b, async () => {
      a.writeJournal('one, two, three');
      await eventually('it is stored', async () => (await a.call('GET', `/api/journals/${id}`)).content === 'one, two, three');
    });
    await eventually('the backfill', () => b.state.journal === 'one, two, three');
    b.writeJournal(`${b.state.journal}, four`);
    await eventually('nothing is lost', () => a.state.journal === 'one, two, three, four');
  });

  test('what is written in a journal while the line is broken is kept beside what others write', async () => {
    const { bob, a, b } = await pair('journal');
    const { id } = await a.call('POST', '/api/journals', { title: 'Ours', content: 'one\n' });
    await a.call('POST', `/api/journals/${id}/collaborators`, { user_id: bob.id, permission: 'editor' });
    for (const page of [a, b]) await page.openJournal(id);
    a.writeJournal('one\ntwo\n');
    await eventually('both draw it', () => b.state.journal === 'one\ntwo\n');
    await bob.blips(b, async () => {
      a.writeJournal('one\ntwo\nfrom Alice\n');
      const stored = async () => (await a.call('GET', `/api/journals/${id}`)).content;
      await eventually('it is stored', async () => (await stored()).includes('from Alice'));
      for (const text of ['f', 'from', 'from Bob']) b.writeJournal(`${text}\none\ntwo\n`);
    });
    const both = 'from Bob\none\ntwo\nfrom Alice\n';
    for (const page of [a, b]) await eventually('both draw what both wrote', () => page.state.journal === both);
  });

  refusesEmpty('journal');
});

of('encrypted', () => {
  test('ticks go from sent over delivered to read, never back, also after a reload', async () => {
    const { alice, bob, conversation, a, b } = await pair('encrypted');
    await b.back();
    bob.leaves();
    await says(a, 'ticks');
    const ticks = (page = a) => find(page, 'ticks').ticks;
    assert.equal(ticks(), 'sent');
    const elsewhere = await bob.opens();
    await eventually('delivered', () => ticks() === 'delivered');
    await elsewhere.open(conversation);
    await eventually('read', () => ticks() === 'read');
    assert.equal(ticks(await alice.reloads(conversation)), 'read');
  });

  test('an online user has a green dot, until the tab is closed or the network torn', async () => {
    const { bob, a } = await pair('encrypted');
    const online = (expected) => eventually(`online: ${expected}`, () => a.state.online[bob.id] === expected, 25_000);
    await online(true);
    bob.leaves();
    await online(false);
    await bob.opens();
    await online(true);
  });

  test('the list distinguishes direct chats from groups, with titles and previews that decrypt', async () => {
    const { alice, bob, conversation, a } = await pair('encrypted');
    await says(a, 'a secret');
    const { id } = await a.call('POST', '/api/conversations/group', { title: 'Team', participant_ids: [bob.id] });
    const page = await bob.reloads();
    const { type, title, preview, previewMine } = row(page, conversation);
    assert.deepEqual([type, title, preview, previewMine], ['direct', 'Alice', 'a secret', false]);
    const group = row(page, id);
    assert.deepEqual({ type: group.type, title: group.title }, { type: 'group', title: 'Team' });
    await assert.rejects(alice.tabs[0].chatWith(bob.id), { status: 409, name: 'ConflictError' });
  });

  test('an edit is there after a reload, and what was deleted is gone, also from the preview', async () => {
    const { bob, conversation, a, b } = await pair('encrypted');
    const before = texts(b);
    for (const text of ['helo', 'never mind']) await says(a, text, b);
    await a.edit(find(a, 'helo').id, 'hello');
    await a.remove(find(a, 'never mind').id);
    const page = await bob.reloads();
    assert.equal(row(page, conversation).preview, 'hello');
    await page.open(conversation);
    await shows(page, [...before, 'hello']);
  });

  test('who was removed is refused in words, by socket and by REST', async () => {
    const { bob, a, b } = await pair('encrypted');
    const group = await a.call('POST', '/api/conversations/group', { title: 'Team', participant_ids: [bob.id] });
    await b.open(group.id);
    await says(b, 'still here');
    await a.call('DELETE', `/api/conversations/${group.id}/participants/${bob.id}`);
    await b.send('too late');
    isText(b.state.error);
    assert.equal(find(b, 'too late'), undefined);
    const body = { conversation_id: group.id, content_encrypted: 'eA==' };
    await assert.rejects(b.call('POST', '/api/messages', body), ({ status, name, message }) => {
      isText(message);
      assert.deepEqual({ status, name }, { status: 403, name: 'ForbiddenError' });
      return true;
    });
    await assert.rejects(b.open(group.id), { status: 403, name: 'ForbiddenError' });
  });

  test('a long history is paged by offset without a gap', async () => {
    const { conversation, a } = await pair('encrypted');
    const sent = Array.from({ length: 121 - texts(a).length }, (_, i) => `${i}`.padEnd(40_000, '.'));
    await Promise.all(sent.map((text) => a.send(text)));
    assert.equal(a.state.error, null);
    assert.equal(texts(a).length, 121);
    const pages = [];
    for (const offset of [0, 50, 100]) {
      const { messages } = await a.call('GET', `/api/messages/${conversation}?limit=50&offset=${offset}`);
      pages.push(messages);
    }
    assert.deepEqual(
      pages.map((page) => page.length),
      [50, 50, 21],
    );
    assert.equal(new Set(pages.flat().map(({ id }) => id)).size, 121);
  });

  refusesEmpty('encrypted');
});

of('chats', () => {
  test('a message carries the name of its sender, live and in history', async () => {
    const { bob, conversation, a, b } = await pair('chats');
    await says(a, 'who is it', b);
    assert.equal(find(b, 'who is it').from, 'Alice');
    assert.equal(find(await bob.reloads(conversation), 'who is it').from, 'Alice');
  });

  test('reading on one device clears the badge of the next page of another', async () => {
    const { bob, conversation, a, b } = await pair('chats');
    await b.back();
    await says(a, 'one');
    await eventually('the badge', () => row(b, conversation).unread === 1);
    await bob.opens(conversation);
    await eventually('read, whatever page asks', async () => {
      await b.list();
      return row(b, conversation).unread === 0;
    });
  });

  test('a new message moves its chat to the top with its text', async () => {
    const { bob, conversation, a } = await pair('chats');
    const carol = new Person('chats', 'Carol');
    const other = await (await carol.opens()).chatWith(bob.id);
    const page = await bob.reloads();
    assert.equal(page.state.rows[0].id, other);
    await says(a, 'up');
    await eventually('it is first', () => page.state.rows[0].id === conversation);
    assert.equal(page.state.rows[0].preview, 'up');
  });

  test('a green dot while the other is here', async () => {
    const { bob, a } = await pair('chats');
    const online = (expected) => eventually(`online: ${expected}`, () => a.state.online[bob.id] === expected, 25_000);
    bob.leaves();
    await online(false);
    await bob.opens();
    await online(true);
  });

  refusesEmpty('chats');
});

of('threads', () => {
  test('two cases of the same users stay two, whatever their status', async () => {
    const { alice, bob, conversation, a, b } = await pair('threads');
    await a.update({ status: 'completed' });
    const second = await a.chatWith(bob.id, 'Another');
    const third = await a.chatWith(bob.id, 'Another');
    assert.equal(new Set([conversation, second, third]).size, 3);
    await b.back();
    await b.open(second);
    await a.open(second);
    await says(a, 'of the second', b);
    const page = await alice.reloads();
    const drawn = [conversation, second, third].map((id) => {
      const { title, status, preview } = row(page, id);
      return [title, status, preview === 'of the second'];
    });
    assert.deepEqual(drawn, [
      ['Support', 'completed', false],
      ['Another', 'active', true],
      ['Another', 'active', false],
    ]);
    assert.equal(page.state.rows[0].id, second);
    await page.list('?status=completed');
    assert.deepEqual(
      page.state.rows.map(({ id }) => id),
      [conversation],
    );
  });

  test('title and channel are kept, nobody else need be there yet, and every participant may close the case', async () => {
    const { bob, a, b } = await pair('threads');
    for (const type of ['chat', 'voice', 'email']) {
      const { _id } = await a.call('POST', '/api/conversations', { title: `By ${type}`, type, participants: [] });
      await a.list();
      const { title, channel } = row(a, _id);
      assert.deepEqual({ title, channel }, { title: `By ${type}`, channel: type });
    }
    const id = await a.chatWith(bob.id, 'Help');
    await b.open(id);
    await b.update({ status: 'archived', title: 'Helped' });
    await a.list();
    assert.deepEqual([row(a, id).title, row(a, id).status], ['Helped', 'archived']);
  });

  test('the main line and a thread are drawn apart, live and after a reload', async () => {
    const { bob, conversation, a, b } = await pair('threads');
    const before = texts(b);
    a.createThread('Aside');
    await eventually('both see the thread', () => [a, b].every(({ state }) => state.threads?.length === 1));
    const [{ id }] = a.state.threads;
    await a.openThread(id);
    await says(a, 'inside');
    await says(b, 'outside');
    await shows(b, [...before, 'outside']);
    await shows(a, ['inside']);
    const page = await bob.reloads(conversation);
    await shows(page, [...before, 'outside'], 'the main line after a reload');
    await page.openThread(id);
    await shows(page, ['inside'], 'the thread after a reload');
  });

  test('edits and deletions change the bubbles of both, and what was deleted is gone after a reload', async () => {
    const { bob, conversation, a, b } = await pair('threads');
    const before = texts(b);
    for (const text of ['helo', 'never mind']) await says(a, text, b);
    await a.edit(find(a, 'helo').id, 'hello');
    await a.remove(find(a, 'never mind').id);
    for (const page of [a, b]) await shows(page, [...before, 'hello']);
    const page = await bob.reloads();
    assert.equal(row(page, conversation).preview, 'hello');
    await page.open(conversation);
    await shows(page, [...before, 'hello']);
  });

  test('an agent is drawn as one', async () => {
    const { bob, a, b } = await pair('threads');
    const agent = new Person('threads', 'Agent', { role: 'agent' });
    const desk = await agent.opens();
    const id = await a.call('POST', '/api/conversations', { title: 'Desk', participants: [bob.id, agent.id] });
    for (const page of [b, desk]) await page.open(id._id);
    await says(desk, 'How can I help?', b);
    assert.equal(find(b, 'How can I help?').agent, true);
    await says(b, 'Like this', desk);
    assert.equal(find(desk, 'Like this').agent, false);
    const page = await bob.reloads(id._id);
    assert.deepEqual(
      page.state.bubbles.map(({ agent: isAgent }) => isAgent),
      [true, false],
    );
  });

  test('a message that fails says so in words beside its bubble', async () => {
    const { a } = await pair('threads');
    a.send('');
    await eventually('the bubble is marked', () => a.state.bubbles.some(({ failed }) => failed));
    isText(a.state.error);
  });
});

of('inbox', () => {
  test('a new message moves its conversation to the top, with its text, time and badge', async () => {
    const { bob, conversation, a } = await pair('inbox');
    const carol = new Person('inbox', 'Carol');
    const other = await (await carol.opens()).chatWith(bob.id);
    const page = await bob.reloads();
    assert.equal(page.state.rows[0].id, other);
    await says(a, 'up');
    await eventually('it is first', () => page.state.rows[0].id === conversation);
    const { preview, unread, timestamp } = page.state.rows[0];
    assert.deepEqual({ preview, unread }, { preview: 'up', unread: 1 });
    assert.ok(Date.parse(timestamp) > 0, timestamp);
    const reloaded = row(await bob.reloads(), conversation);
    assert.deepEqual([reloaded.preview, reloaded.unread, reloaded.timestamp], ['up', 1, timestamp]);
  });

  test('the list follows what happens to messages, and reading on another device', async () => {
    const { bob, conversation, a, b } = await pair('inbox');
    await b.back();
    for (const text of ['helo', 'never mind']) await says(a, text);
    const drawn = (expected) =>
      eventually(`the row is ${JSON.stringify(expected)}`, () => {
        const { preview, unread } = row(b, conversation);
        assert.deepEqual({ preview, unread }, expected);
        return true;
      });
    await drawn({ preview: 'never mind', unread: 2 });
    await a.call('DELETE', `/api/v1/conversations/${conversation}/messages/${find(a, 'never mind').id}`);
    await drawn({ preview: 'helo', unread: 1 });
    await a.call('PATCH', `/api/v1/conversations/${conversation}/messages/${find(a, 'helo').id}`, { content: 'hello' });
    await drawn({ preview: 'hello', unread: 1 });
    await bob.opens(conversation);
    await drawn({ preview: 'hello', unread: 0 });
  });

  test('who was removed while away is refused in words when it writes', async () => {
    const { bob, a } = await pair('inbox');
    const { id } = await a.call('POST', '/api/v1/conversations/group', { title: 'Team', participant_ids: [bob.id] });
    const page = await bob.reloads(id);
    bob.network.down();
    await a.call('DELETE', `/api/v1/conversations/${id}/participants/${bob.id}`);
    await bob.network.up();
    await eventually('back', () => page.socket.connected, 30_000);
    await page.send('too late');
    isText(page.state.error);
    assert.equal(find(page, 'too late'), undefined);
  });

  refusesEmpty('inbox');
});
