// The front end that edits journals together by sending whole texts.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { closeAll, rest, token } from '../../client.mjs';
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
  const clients = await Promise.all(
    [owner, editor, viewer].map((user, gateway) => speak('journal', user, gateway)),
  );
  for (const client of clients) holds(await agreed(client, 'joinJournal', journal.number), { content });
  return [journal.number, ...clients];
}
const edits = (client, journalId, content) => says(client, 'journalEdit', { journalId, content });
const shows = (client, content) => client.sees('journalUpdate', (update) => update.content === content);

test('what an editor writes is shown to all who follow, the writer too', async () => {
  const [journal, owner, editor, viewer] = await scene('Dear diary');
  edits(editor, journal, 'Dear diary, 😂');
  for (const client of [owner, editor, viewer]) {
    holds(await shows(client, 'Dear diary, 😂'), { journalId: journal });
  }
  edits(owner, journal, 'My dear diary, 😂');
  for (const client of [owner, editor, viewer]) await shows(client, 'My dear diary, 😂');
});

test('a viewer and a stranger change nothing', async () => {
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
  edits(editor, journal, 'kept and continued');
  for (const client of [owner, editor, viewer]) {
    await shows(client, 'kept and continued');
    assert.equal(client.all('journalUpdate').length, 1);
  }
  assert.deepEqual(stranger.all('journalUpdate'), []);
});

test('two who write at once both keep their words', async () => {
  const [journal, owner, editor, viewer] = await scene('one two three');
  edits(owner, journal, 'ONE two three');
  edits(editor, journal, 'one two THREE');
  for (const client of [owner, editor, viewer]) await shows(client, 'ONE two THREE');
});
