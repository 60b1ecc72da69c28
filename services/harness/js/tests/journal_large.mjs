// Ten editors of a journal of 100 KiB, half of them by whole texts; with PARLANCE_EDITORS=0 two users who chat, in a
// process of their own, to be run beside the others. Prints one line of JSON.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { after, test } from 'node:test';
import * as Y from 'yjs';
import { closeAll, eventually, rest, token } from '../client.mjs';
import { agreed, numbered, speak } from '../vocabulary.mjs';

after(closeAll);

const SECONDS = Number(process.env.PARLANCE_JOURNAL_SECONDS ?? 60);
const EDITORS = Number(process.env.PARLANCE_EDITORS ?? 10);
const EDIT_MS = Number(process.env.PARLANCE_EDIT_MS ?? 200);
const CHAT_MS = 25;
const LINE = `${'lorem ipsum dolor sit amet '.repeat(3)}\n`;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Does something at a fixed rate, however long the last time took; resolves with the answers. */
async function steadily(every, act) {
  const answers = [];
  const begun = Date.now();
  for (let n = 0; n * every < SECONDS * 1_000; n += 1) {
    await pause(begun + n * every - Date.now());
    answers.push(act(n));
  }
  return Promise.all(answers);
}

async function editor(id, owner, index) {
  const user = numbered();
  const shared = await rest(token(owner), 'POST', `/journals/${id}/collaborators`, { user_id: user, permission: 'editor' });
  assert.ok(shared.status < 300, shared.text);
  const client = await speak('native', user, index % 2);
  const { journal } = await agreed(client, 'journal:join', { journal_id: id });
  const words = [];
  const send = async (change, word) => {
    words.push(word);
    const ack = await client.socket.timeout(30_000).emitWithAck('journal:edit', { journal_id: id, ...change });
    assert.ok(ack.ok, JSON.stringify(ack));
  };
  if (index % 2 === 0) {
    let screen = journal.content;
    client.socket.on('journal:updated', ({ content }) => (screen = content));
    return {
      words,
      edit: (n) => {
        const word = `<w${index}.${n}>\n`;
        const line = screen.indexOf('\n', Math.floor(Math.random() * screen.length)) + 1;
        screen = screen.slice(0, line) + word + screen.slice(line);
        return send({ content: screen }, word);
      },
    };
  }
  const document = new Y.Doc();
  const apply = (update) => Y.applyUpdate(document, Buffer.from(update, 'base64'), 'server');
  apply(journal.update);
  client.socket.on('journal:updated', ({ update }) => apply(update));
  return {
    words,
    edit: (n) => {
      const word = `<c${index}.${n}>\n`;
      const text = document.getText('content');
      const before = Y.encodeStateVector(document);
      text.insert(text.toString().indexOf('\n', Math.floor(Math.random() * text.length)) + 1, word);
      const update = Buffer.from(Y.encodeStateAsUpdate(document, before)).toString('base64');
      return send({ update }, word);
    },
  };
}

/** Milliseconds from sending to receiving on the other gateway. */
async function chat() {
  const [alice, bob] = [numbered(), numbered()];
  const made = await rest(token(alice), 'POST', '/conversations/group', { title: 'Beside', participant_ids: [bob] });
  assert.ok(made.status < 300, made.text);
  const conversation_id = made.body.conversation?.id ?? made.body.id;
  const [from, to] = [await speak('native', alice, 0), await speak('native', bob, 1)];
  for (const client of [from, to]) await agreed(client, 'conversation:join', { conversation_id });
  const took = [];
  to.socket.on('message:new', ({ content }) => took.push(performance.now() - Number(content)));
  await steadily(CHAT_MS, () =>
    from.socket.timeout(30_000).emitWithAck('message:send', { conversation_id, content: String(performance.now()) }),
  );
  await eventually('every message', () => took.length >= Math.floor((SECONDS * 1_000) / CHAT_MS), 30_000);
  took.sort((a, b) => a - b);
  return took;
}

test('ten editors of a large journal', async () => {
  // Editors have machines of their own: what these compute must not be taken from the servers, nor from those who chat. So
  // they run when nobody else does.
  if (EDITORS > 0) execFileSync('chrt', ['--all-tasks', '--idle', '--pid', '0', String(process.pid)]);
  const owner = numbered();
  const content = LINE.repeat(Math.ceil((100 * 1_024) / LINE.length));
  const created = await rest(token(owner), 'POST', '/journals', { title: 'Large', content });
  assert.equal(created.status, 201, created.text);
  const { id } = created.body;
  const editors = [];
  for (let index = 0; index < EDITORS; index += 1) editors.push(await editor(id, owner, index));
  console.log('BEGUN');
  const edited = Promise.all(editors.map((one) => steadily(EDIT_MS, one.edit)));
  const [took, edits] = await Promise.all([EDITORS ? [0] : chat(), edited]);
  const said = (await rest(token(owner), 'GET', `/journals/${id}`)).body.content;
  const words = editors.flatMap((one) => one.words);
  const lost = words.filter((word) => !said.includes(word)).length;
  const doubled = words.filter((word) => said.split(word).length > 2).length;
  assert.deepEqual([lost, doubled], [0, 0]);
  const at = (share) => Number(took[Math.floor(took.length * share)].toFixed(1));
  console.log(`FIGURES ${JSON.stringify({ edits: edits.flat().length, p50: at(0.5), p99: at(0.99), max: at(0.9999) })}`);
});
