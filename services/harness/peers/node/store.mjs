// Queries of the stock stack, all prepared once for each connection: one statement for each thing that happens.
import { randomUUID } from 'node:crypto';

export class Store {
  #pool;
  #statuses;

  constructor(pool, statuses) {
    this.#pool = pool;
    this.#statuses = statuses;
  }

  /** Marks a known user as online; its chats, or nothing if there is no such user. */
  async connected(user) {
    const { rows } = await this.#statuses.query({
      name: 'connected',
      text: `WITH online AS (UPDATE users SET status = 'online' WHERE id = $1 RETURNING id, username)
             SELECT username, ARRAY(SELECT chat_id::text FROM chat_participants WHERE user_id = $1) AS chats FROM online`,
      values: [user.id],
    });
    if (rows.length === 0) return undefined;
    user.username = rows[0].username;
    return rows[0].chats;
  }

  async disconnected(user) {
    await this.#statuses.query({
      name: 'disconnected',
      text: `UPDATE users SET status = 'offline', last_seen = now() WHERE id = $1`,
      values: [user],
    });
  }

  async isParticipant(chat, user) {
    const { rowCount } = await this.#pool.query({
      name: 'participant',
      text: 'SELECT 1 FROM chat_participants WHERE chat_id = $1 AND user_id = $2',
      values: [chat, user],
    });
    return rowCount > 0;
  }

  /** Stores a message; committed when this resolves. */
  async send(chat, user, content, type) {
    const id = randomUUID();
    const { rows } = await this.#pool.query({
      name: 'send',
      text: `WITH touched AS (UPDATE chats SET updated_at = now() WHERE id = $2)
             INSERT INTO messages (id, chat_id, sender_id, content, message_type) VALUES ($1, $2, $3, $4, $5)
             RETURNING created_at`,
      values: [id, chat, user.id, content, type],
    });
    return { id, chat_id: chat, content, message_type: type, sender: user, created_at: rows[0].created_at };
  }

  async read(chat, message, user) {
    await this.#pool.query({
      name: 'read',
      text: `WITH reads AS (INSERT INTO message_reads (message_id, user_id) VALUES ($2, $3) ON CONFLICT DO NOTHING)
             UPDATE chat_participants SET last_read_at = now() WHERE chat_id = $1 AND user_id = $3`,
      values: [chat, message, user],
    });
  }

  /** One page of a user's chats with their last messages, the latest first. */
  async chats(user, limit, offset) {
    const { rows } = await this.#pool.query({
      name: 'chats',
      text: `SELECT c.id, c.title, c.updated_at, p.last_read_at, m.content AS last_message, m.created_at AS last_message_at
             FROM chat_participants p JOIN chats c ON c.id = p.chat_id
             LEFT JOIN LATERAL (SELECT content, created_at FROM messages WHERE chat_id = c.id
                                ORDER BY created_at DESC LIMIT 1) m ON true
             WHERE p.user_id = $1 ORDER BY c.updated_at DESC LIMIT $2 OFFSET $3`,
      values: [user, limit, offset],
    });
    return rows;
  }

  /** One page of a chat's messages, the latest first. */
  async messages(chat, limit, offset) {
    const { rows } = await this.#pool.query({
      name: 'messages',
      text: `SELECT id, chat_id, sender_id, content, message_type, created_at FROM messages
             WHERE chat_id = $1 ORDER BY created_at DESC LIMIT $2 OFFSET $3`,
      values: [chat, limit, offset],
    });
    return rows;
  }
}
