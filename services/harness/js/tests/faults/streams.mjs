// A message that streams while every part of the stack is killed.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { Agent, Screen } from '../../agent.mjs';
import { closeAll, connect, direct, eventually, person, rest, token } from '../../client.mjs';
import { direct as order } from '../../director.mjs';

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
let agent;
let isOver = false;

before(async () => {
  agent = await Agent.connect();
});
after(async () => {
  isOver = true;
  closeAll();
  await agent.close();
});

const history = async (user, id, base) =>
  (await rest(token(user), 'GET', `/conversations/${id}/messages`, undefined, { base })).body.messages;

test('a message streams through kills of every part without a character lost, doubled or out of order', async () => {
  const users = [person('ann'), person('ben')];
  const conversation = await direct(...users);
  const screens = new Map();
  const stay = (user, gateway) => {
    const back = async () => {
      if (isOver) return;
      try {
        const client = await connect(user, gateway, { events: 'all' });
        const screen = screens.get(user) ?? new Screen({ socket: { on() {} } });
        screens.set(user, screen);
        client.socket.on('message:new', (message) => screen.shows(message));
        client.socket.on('message:finished', (message) => screen.shows(message));
        client.socket.on('message:chunk', (chunk) => screen.takes(chunk));
        client.socket.on('disconnect', () => setTimeout(back, 200));
        await client.joins(conversation);
        for (const message of await history(user, conversation.id, client.url)) screen.shows(message);
      } catch {
        setTimeout(back, 200);
      }
    };
    return back();
  };
  await Promise.all(users.map(stay));
  const answer = await agent.begins(conversation.id, randomUUID());
  let writing = true;
  let parts = 0;
  const writes = (async () => {
    for (; writing; parts++) {
      await answer.appends(`${parts}-é `);
      await sleep(10);
    }
  })();
  const kills = (process.env.PARLANCE_KILLS ?? 'persistence-1,gateway-1,nats,persistence-2,gateway-2,postgres').split(',');
  for (const process of kills) {
    await sleep(1_500);
    await order(`kill ${process}`);
    await sleep(1_500);
    await order(`start ${process}`);
    const had = answer.text.length;
    await eventually(`it goes on after ${process} was killed`, () => answer.at > had, 30_000);
    console.log(`${process} killed and back: ${answer.at} bytes`);
  }
  writing = false;
  await writes;
  await answer.finishes();
  const expected = Array.from({ length: parts }, (_, part) => `${part}-é `).join('');
  assert.equal(answer.text.toString(), expected);
  await eventually(
    'every reader has all of it',
    () => users.every((user) => screens.get(user)?.text(answer.id) === expected),
    30_000,
  );
  const messages = await eventually('history', () => history(users[0], conversation.id));
  assert.deepEqual(
    messages.map((message) => [message.content, message.stream]),
    [[expected, 'finished']],
  );
  console.log(`${parts} parts, ${answer.text.length} bytes: none lost, doubled or out of order`);
});
