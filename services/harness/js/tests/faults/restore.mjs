// A database that was put back from a backup: clients resync, and users who are not members in it receive nothing more.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { closeAll, connect, group, person } from '../../client.mjs';
import { count } from '../../director.mjs';

after(closeAll);

test('after a restore every client resyncs, and former members receive nothing more', async () => {
  const [alice, bob, mallory] = ['alice', 'bob', 'mallory'].map(person);
  const conversation = await group(alice, [bob, mallory]);
  const open = async (user, gateway) => {
    const client = await connect(user, gateway, { events: 'all' });
    const { epoch } = await client.joins(conversation);
    return [client, epoch];
  };
  const [[one, epoch], [two], [gone]] = await Promise.all([open(alice, 0), open(bob, 1), open(mallory, 1)]);
  await one.sends(conversation, 'before');
  await Promise.all([two, gone].map((client) => client.sees('message:new', ({ content }) => content === 'before')));
  const restored = await count(
    `WITH put_back AS (UPDATE epoch SET id = gen_random_uuid() RETURNING 1),
          lost AS (DELETE FROM participants
                   WHERE conversation_id = '${conversation.id}' AND user_id = '${mallory}' RETURNING 1)
     SELECT count(*) FROM put_back, lost`.replaceAll('\n', ' '),
  );
  assert.equal(restored, 1);
  await one.sends(conversation, 'after');
  const told = await two.sees('resync', ({ conversation_id: id }) => id === conversation.id);
  assert.notEqual(told.epoch, epoch);
  await gone.sees('conversation:removed', ({ conversation_id: id }) => id === conversation.id);
  await one.sends(conversation, 'later');
  await two.sees('message:new', ({ content }) => content === 'later');
  await gone.fails('not_found', 'typing', { conversation_id: conversation.id, is_typing: true });
  assert.deepEqual(
    gone.all('message:new').map(({ content }) => content),
    ['before'],
  );
});
