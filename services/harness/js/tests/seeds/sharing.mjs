// The front end that edits journals together by sending whole texts.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { closeAll, direct, eventually, rest, token } from '../../client.mjs';
import { agreed, holds, numbered, says, speak } from '../../vocabulary.mjs';

after(closeAll);

/** The owner, an editor and a viewer in a journal that they follow. */
async function scene(content) {
  const [owner, editor, viewer] = [numbered(), numbered(), numbered()];
  const created = await rest(token(owner), 'POST', '/journals', { title: 'A journal', content });
  assert.equal(created.status, 201, created.text);
  const journal = created.body;
  for (const [user_id, permission] of [
    [editor, 'editor'],
    [viewer, 'viewer'],
  ]) {
    const shared = await rest(token(owner), 'POST', `/journals/${journal.id}/collaborators`, { user_id, permission });
    assert.ok(shared.status < 300, shared.text);
  }
  const clients = await Promise.all([owner, editor, viewer].map((user, gateway) => speak('journal', user, gateway)));
  for (const client of clients) {
    holds(await agreed(client, 'joinJournal', journal.number), { content });
    // A page that looks for the text in no answer draws it too.
    await shows(client, content);
    client.forget();
  }
  return [journal.number, ...clients];
}
const edits = (client, journalId, content) => says(client, 'journalEdit', { journalId, content });
const shows = (client, content) => client.sees('journalUpdate', (update) => update.content === content);

test('S0.c4 S0.c5 S0.s5: what an editor writes is shown to all who follow; its writer shows it already', async () => {
  const [journal, owner, editor, viewer] = await scene('Dear diary');
  edits(editor, journal, 'Dear diary, 😂');
  for (const client of [owner, viewer]) {
    holds(await shows(client, 'Dear diary, 😂'), { journalId: journal });
  }
  edits(owner, journal, 'My dear diary, 😂');
  for (const client of [editor, viewer]) await shows(client, 'My dear diary, 😂');
  // Sent back what it wrote, a page that has typed on meanwhile would lose that.
  assert.deepEqual(
    editor.all('journalUpdate').map(({ content }) => content),
    ['My dear diary, 😂'],
  );
});

test('S0.b4 S0.t3: a viewer and a non-member change nothing', async () => {
  const [journal, owner, editor, viewer] = await scene('kept');
  const stranger = await speak('journal', numbered(), 1);
  for (const [client, event, payload] of [
    [viewer, 'journalEdit', { journalId: journal, content: 'spoilt' }],
    [stranger, 'joinJournal', journal],
    [stranger, 'journalEdit', { journalId: journal, content: 'spoilt' }],
  ]) {
    says(client, event, payload);
    const { error } = await client.sees('messageError', (one) => one.event === event);
    assert.equal(typeof error, 'string');
  }
  // What was refused is taken off the page again.
  await shows(viewer, 'kept');
  viewer.forget();
  edits(editor, journal, 'kept and continued');
  for (const client of [owner, viewer]) {
    await shows(client, 'kept and continued');
    assert.equal(client.all('journalUpdate').length, 1);
  }
  assert.deepEqual(stranger.all('journalUpdate'), []);
});

test('S0.m2: only who follows a journal hears of it, and a room hears nothing of journals', async () => {
  const [journal, owner, editor, viewer] = await scene('one');
  const aside = await speak('journal', viewer.user, 0);
  const { number } = await direct(owner.user, viewer.user);
  await agreed(aside, 'joinRoom', number);
  await agreed(viewer, 'leaveJournal', journal);
  edits(editor, journal, 'one two');
  await shows(owner, 'one two');
  says(owner, 'sendMessage', { conversationId: number, senderId: Number(owner.user), content: 'hello' });
  await aside.sees('receiveMessage');
  assert.deepEqual([...viewer.all('journalUpdate'), ...aside.all('journalUpdate')], []);
});

test('S0.b3: a shared journal keeps its id and opens for its recipient if the sender may open it', async () => {
  const [journal, owner, editor] = await scene('shared');
  const reader = await speak('journal', numbered(), 1);
  const stranger = await speak('journal', numbered(), 0);
  const shares = async (client) => {
    const { id, number } = await direct(client.user, reader.user);
    await agreed(reader, 'joinRoom', number);
    const share = { content: `from ${client.user}`, type: 'journal_share', metadata: { journalId: journal } };
    const posted = await rest(token(client.user), 'POST', `/conversations/${id}/messages`, share);
    assert.equal(posted.status, 201, posted.text);
    const seen = await reader.sees('receiveMessage', (one) => one.content === share.content);
    holds(seen, { message_type: 'journal_share', metadata: { journalId: journal } });
  };
  await shares(stranger);
  assert.equal((await reader.ask('joinJournal', journal)).ok, false);
  await shares(editor);
  await eventually('the journal is open', async () => (await reader.ask('joinJournal', journal)).ok);
  edits(owner, journal, 'shared with all');
  await shows(reader, 'shared with all');
  assert.equal((await reader.ask('journalEdit', { journalId: journal, content: 'spoilt' })).ok, false);
});

test('two who write at once both keep their words', async () => {
  const [journal, owner, editor, viewer] = await scene('one two three');
  edits(owner, journal, 'ONE two three');
  edits(editor, journal, 'one two THREE');
  for (const client of [owner, editor, viewer]) await shows(client, 'ONE two THREE');
});
