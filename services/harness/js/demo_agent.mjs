// An agent at work: ann, whose front end speaks `threads`, opens a conversation and asks; ben, whose front end speaks
// `journal`, gets the answer whole; cyd, a native client, sees it grow. The arguments are the agent's command line.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { Screen } from './agent.mjs';
import { closeAll, connect, eventually, person, rest, token } from './client.mjs';
import { agreed, numbered, speak } from './vocabulary.mjs';

const [command, ...rest_of_line] = process.argv.slice(2);
const say = (who, text) => console.log(`${who.padEnd(14)} ${text}`);
let agent;
let starts = 0;
/** What it follows may not be there yet: it begins again, as any service does. */
function begin() {
  agent = spawn(command, rest_of_line, { stdio: ['ignore', 'inherit', starts > 10 ? 'inherit' : 'ignore'] });
  agent.once('exit', () => {
    starts += 1;
    if (starts < 20) setTimeout(begin, 500);
  });
}
begin();

try {
  const [ann, ben] = [numbered(), numbered()];
  const opened = await rest(
    token(ann),
    'POST',
    '/conversations/direct',
    { user_id: ben },
    { headers: { 'x-parlance-dialect': 'threads' } },
  );
  const { id } = opened.body.conversation ?? opened.body;
  const native = (await rest(token(ann), 'GET', `/conversations/${id}`)).body;
  say('ann (threads)', `opens conversation ${id}`);
  const asking = await speak('threads', ann, 0);
  await agreed(asking, 'conversation:join', { conversationId: id });
  const seeing = await speak('journal', ben, 1);
  await agreed(seeing, 'joinRoom', native.number);
  const watching = await connect(ann, 1, { events: 'all' });
  const screen = new Screen(watching);
  await watching.joins({ id });
  watching.socket.on('message:chunk', ({ offset, text }) => say('ann (native)', `byte ${offset}: ${JSON.stringify(text)}`));
  const question = `Who is there? ${person('q')}`;
  await agreed(asking, 'message:send', { conversationId: id, content: question });
  say('ann (threads)', `asks: ${question}`);
  const answer = `You said: ${question}`;
  const shown = (client, word) =>
    client.seen.filter((seen) => seen.event === word && JSON.stringify(seen.payload).includes(answer)).length;
  await eventually('ben sees the answer', () => shown(seeing, 'receiveMessage') === 1, 60_000);
  say('ben (journal)', `sees: ${answer}`);
  await eventually('ann sees the answer', () => shown(asking, 'message:new') === 1);
  say('ann (threads)', `sees: ${answer}`);
  const finished = await watching.sees('message:finished');
  assert.deepEqual([finished.content, finished.stream], [answer, 'finished']);
  assert.ok(screen.chunks > 1, 'it grew');
  assert.equal(shown(seeing, 'receiveMessage'), 1);
} finally {
  closeAll();
  starts = 20;
  agent.kill();
}
process.exit(0);
