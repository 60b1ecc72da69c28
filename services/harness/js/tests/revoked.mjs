// What was revoked before this began is refused by every gateway of the stack, and nothing else is.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Client, assertProblem, closeAll, connect, gateways, person, rest } from '../client.mjs';

after(closeAll);

const user = process.env.PARLANCE_REVOKED_USER;
const revoked = process.env.PARLANCE_REVOKED_TOKENS.split(',');

for (const [index, base] of gateways.entries()) {
  test(`gateway ${index + 1} knows what was revoked`, async () => {
    for (const jwt of revoked) {
      assert.equal(await new Client(user, index, { jwt }).refused(), 'unauthenticated: the token has been revoked');
      assertProblem(await rest(jwt, 'GET', '/conversations', undefined, { base }), 401, 'unauthenticated');
    }
    await connect(user, index);
    await connect(person('other'), index);
  });
}
