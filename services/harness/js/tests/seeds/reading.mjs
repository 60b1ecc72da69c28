// Reads are emitted message by message, however often the replicas look up what they may have missed meanwhile.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { closeAll, group, person } from '../../client.mjs';
import { agreed, follows, speak } from '../../vocabulary.mjs';

after(closeAll);

const MESSAGES = 150;

test('each message is emitted once as read', async () => {
  const people = ['author', 'reader', 'room', 'chats', 'inbox'].map(person);
  const conversation = await group(people[0], people.slice(1));
  const { id, number } = conversation;
  const dialects = ['native', 'native', 'journal', 'chats', 'inbox'];
  const [author, reader, room, chats, inbox] = await Promise.all(
    dialects.map((dialect, index) => speak(dialect, people[index], index)),
  );
  await Promise.all([
    reader.joins(conversation),
    agreed(room, 'joinRoom', number),
    follows(chats, 'typing:stop', { chatId: id }),
    agreed(inbox, 'join_conversation', id),
  ]);
  const texts = Array.from({ length: MESSAGES }, (_, index) => `${index}`);
  const sent = await Promise.all(texts.map((text) => author.sends(conversation, text)));
  for (const message of sent) {
    await reader.does('receipt:read', { conversation_id: id, message_ids: [message.id] });
  }
  const wanted = sent.map((message) => message.id).toSorted();
  const told = {
    room: () => room.all('messageUpdated').flatMap(({ messageIds }) => messageIds),
    chats: () => chats.all('message:read').map(({ messageId }) => messageId),
    inbox: () => inbox.all('messages_read').flatMap(({ messageIds }) => messageIds),
  };
  await room.sees('messageUpdated', () => told.room().length >= MESSAGES);
  await chats.sees('message:read', () => told.chats().length >= MESSAGES);
  await inbox.sees('messages_read', () => told.inbox().length >= MESSAGES);
  assert.deepEqual(told.room().toSorted(), sent.map((message) => message.number).toSorted());
  assert.deepEqual(told.chats().toSorted(), wanted);
  assert.deepEqual(told.inbox().toSorted(), wanted);
});
