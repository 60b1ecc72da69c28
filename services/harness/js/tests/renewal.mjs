// A connection outlives its token if it brings the next one in time. The stack gives notice three seconds
// before the end.
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { closeAll, connect, eventually, now, person, token } from '../client.mjs';

after(closeAll);

const DIALECTS = ['native', 'journal', 'encrypted', 'chats', 'threads', 'inbox'];
const LIFE = 4;

/** A connection whose token ends soon, and one of the same kind that does nothing about it: the clock. */
async function pair(dialect) {
  const user = person('rena');
  const exp = now() + LIFE;
  const open = () => connect(user, 0, { auth: { token: token(user, { exp }), dialect }, events: 'all' });
  const [client, clock] = await Promise.all([open(), open()]);
  return { user, exp, client, clock };
}

const ended = (client) => eventually('closed', () => client.disconnects.length > 0, (LIFE + 8) * 1000);

describe('in every dialect', { concurrency: true }, () => {
  for (const dialect of DIALECTS) {
    test(`a ${dialect} connection with a new token stays when the old one ends`, async () => {
      const { user, client, clock } = await pair(dialect);
      const exp = now() + 3600;
      const ack = await client.ask('auth:refresh', { token: token(user, { exp }) });
      assert.ok(ack.ok && ack.success, JSON.stringify(ack));
      assert.equal(Date.parse(ack.expires_at), exp * 1000);
      assert.equal(ack.expiresAt, ack.expires_at);
      await ended(clock);
      // Sent without an ack it is the same.
      client.socket.emit('auth:refresh', { token: token(user, { exp: exp + 1 }) });
      const later = await client.ask('auth:refresh', { token: token(user, { exp: exp - 1 }) });
      assert.equal(Date.parse(later.expires_at), (exp + 1) * 1000, 'an earlier end never takes the place of a later one');
      assert.deepEqual(client.disconnects, []);
      assert.deepEqual(clock.disconnects, ['io server disconnect']);
    });

    test(`a ${dialect} connection is not kept by what is no token of its user`, async () => {
      const { user, exp, client } = await pair(dialect);
      const refused = async (code, payload) => {
        const ack = await client.ask('auth:refresh', payload);
        assert.ok(!ack.ok && !ack.success, JSON.stringify(ack));
        assert.equal(ack.code ?? ack.error.code, code);
        assert.ok(!JSON.stringify(ack).includes('secret'), JSON.stringify(ack));
      };
      await refused('forbidden', { token: token(person('other')) });
      await refused('unauthenticated', { token: token(user, { exp: now() - 60 }) });
      await refused('unauthenticated', { token: token(user, {}, { key: 'another key of sufficient length' }) });
      await refused('unauthenticated', { token: 'secret' });
      await refused('invalid', { token: { secret: 1 } });
      await refused('invalid', 'secret');
      await refused('invalid', undefined);
      assert.deepEqual(client.disconnects, []);
      await ended(client);
      const late = Date.now() / 1000 - exp;
      assert.ok(late > -1 && late < 5, `closed ${late} s after the end of the token`);
    });
  }
});

test('the end comes with the last token, and only native is notified before', async () => {
  const user = person('rena');
  const until = (seconds) => ({ exp: now() + seconds });
  const first = token(user, until(5));
  const [native, other] = await Promise.all(
    ['native', 'chats'].map((dialect) => connect(user, 0, { auth: { token: first, dialect }, events: 'all' })),
  );
  const hint = await native.sees('auth:expiring');
  assert.ok(Math.abs(Date.parse(hint.expires_at) - (Date.now() + 3000)) < 2000, JSON.stringify(hint));
  native.forget();
  const claims = until(7);
  await native.does('auth:refresh', { token: token(user, claims) });
  await ended(other);
  assert.deepEqual(native.disconnects, []);
  const again = await native.sees('auth:expiring');
  assert.equal(Date.parse(again.expires_at), claims.exp * 1000);
  await ended(native);
  const late = Date.now() / 1000 - claims.exp;
  assert.ok(late > -1 && late < 5, `closed ${late} s after the end of the second token`);
  assert.deepEqual(other.all('auth:expiring'), []);
});
