// Tokens of the stock stack: HS256, the subject is the user.
import jwt from 'jsonwebtoken';

/** The user of a valid token. Throws for any other. */
export function authenticate(token, secret) {
  const { sub, name } = jwt.verify(token, secret, { algorithms: ['HS256'] });
  return { id: sub, username: name ?? sub };
}
