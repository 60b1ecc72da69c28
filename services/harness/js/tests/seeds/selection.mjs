// How a connection comes by its dialect.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Client, closeAll, person, token } from '../../client.mjs';
import { speaks } from '../../vocabulary.mjs';

after(closeAll);

for (const dialect of ['native', 'journal', 'encrypted', 'chats', 'threads', 'inbox']) {
  test(`${dialect} is chosen in auth, in the query or by the token`, async () => {
    const jwt = token(person('any'));
    await speaks(dialect, { auth: { token: jwt, dialect } });
    await speaks(dialect, { auth: { token: jwt }, query: { dialect } });
    await speaks(dialect, { auth: { token: token(person('any'), { dialect }) } });
  });
}

test('auth goes before the query, the query before the token, and without any it is native', async () => {
  const claimed = token(person('any'), { dialect: 'journal' });
  await speaks('chats', { auth: { token: claimed, dialect: 'chats' }, query: { dialect: 'inbox' } });
  await speaks('inbox', { auth: { token: claimed }, query: { dialect: 'inbox' } });
  await speaks('native', { auth: { token: token(person('any')) } });
});

test('an unknown dialect is refused where the client names it', async () => {
  const jwt = token(person('any'));
  const dialect = 'klingon';
  for (const options of [{ auth: { token: jwt, dialect } }, { auth: { token: jwt }, query: { dialect } }]) {
    assert.equal(
      await new Client('any', 1, options).refused(),
      'invalid: dialect is none of native, journal, encrypted, chats, threads, inbox',
    );
  }
});

test('a bad token is refused in the words of the dialect', async () => {
  const refusal = (dialect) => new Client('any', 1, { auth: { token: 'no token', dialect } }).refused();
  assert.equal(await refusal('threads'), 'Authentication failed');
  for (const dialect of ['native', 'journal', 'encrypted', 'chats', 'inbox']) {
    assert.match(await refusal(dialect), /^unauthenticated: /);
  }
});
