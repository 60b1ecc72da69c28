// Messages that stream, at front ends of dialects without an event for their chunks, where the settings show them by edits.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { Agent } from '../agent.mjs';
import { closeAll, connect, direct, eventually, person, rest, token } from '../client.mjs';
import { agreed, numbered, speak } from '../vocabulary.mjs';

let agent;

before(async () => {
  agent = await Agent.connect();
});
after(async () => {
  closeAll();
  await agent.close();
});

/** What each front end hears of a new message and of an edited one, and how it comes to follow a conversation. */
const FRONT_ENDS = {
  journal: ['receiveMessage', 'messageEdited', 'joinRoom'],
  encrypted: ['chat:message_received', 'chat:message_edited'],
  chats: ['message:new', 'message:edited'],
  threads: ['message:new', 'message:edited', 'conversation:join'],
  inbox: ['new_message', 'message_edited', 'join_conversation'],
};

for (const [dialect, [created, edited, join]] of Object.entries(FRONT_ENDS)) {
  test(`${dialect} sees the message from its start, and edits with the text so far`, async () => {
    const [owner, user] = [person('owner'), numbered()];
    const conversation = await direct(owner, user);
    const own = await connect(owner, 0);
    await own.joins(conversation);
    const named = dialect === 'journal' ? conversation.number : { conversationId: conversation.id };
    const follows = async (gateway) => {
      const client = await speak(dialect, user, gateway);
      if (join) await agreed(client, join, named);
      return client;
    };
    const of = (client, event, text) =>
      client.seen.filter((seen) => seen.event === event && JSON.stringify(seen.payload).includes(text));
    const history = async () => {
      const headers = { 'x-parlance-dialect': dialect };
      return (await rest(token(user), 'GET', `/conversations/${conversation.id}/messages`, undefined, { headers })).text;
    };
    const client = await follows(1);
    await own.sends(conversation, 'before it');
    await eventually('it follows', () => of(client, created, 'before it').length === 1);

    const began = Date.now();
    const answer = await agent.begins(conversation.id, randomUUID(), 'It begins');
    await eventually('its start', () => of(client, created, 'It begins').length === 1);
    await answer.appends(', goes on');
    await eventually('its text so far', () => of(client, edited, 'It begins, goes on').length > 0);
    await eventually('the history has it', async () => (await history()).includes('It begins, goes on'));

    const late = await follows(0);
    for (let part = 0; part < 40; part++) await answer.appends('.');
    const dots = `It begins, goes on${'.'.repeat(40)}`;
    for (const reader of [client, late]) {
      await eventually('what came later', () => of(reader, edited, dots).length > 0);
    }
    // Not an edit for every part.
    const [edits, seconds] = [of(client, edited, 'It begins').length, (Date.now() - began) / 1_000];
    assert.ok(edits <= seconds + 2, `${edits} edits in ${seconds} s`);

    await answer.appends(' And it ends.');
    await answer.finishes();
    for (const reader of [client, late]) {
      await eventually('its end', () => of(reader, edited, 'And it ends.').length > 0);
    }
    await own.sends(conversation, 'after it');
    await eventually('what comes after it', () => of(client, created, 'after it').length === 1);
    assert.equal(client.seen.filter((seen) => seen.event === created).length, 3, 'a message that streams is new once');
    assert.ok((await history()).includes('And it ends.'));
  });

  test(`${dialect} sees what is left of a message that is cancelled`, async () => {
    const [owner, user] = [person('owner'), numbered()];
    const conversation = await direct(owner, user);
    const client = await speak(dialect, user, 1);
    const named = dialect === 'journal' ? conversation.number : { conversationId: conversation.id };
    if (join) await agreed(client, join, named);
    const of = (event, text) => client.seen.filter((seen) => seen.event === event && JSON.stringify(seen.payload).includes(text));
    const answer = await agent.begins(conversation.id, randomUUID(), 'I was about');
    await eventually('its start', () => of(created, 'I was about').length === 1);
    await answer.appends(' to say');
    await answer.cancels();
    await eventually('what is left of it', () => of(edited, 'I was about to say').length > 0);
  });
}
