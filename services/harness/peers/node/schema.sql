-- Tables of the stock stack: users, chats, their participants, messages and who read them.
CREATE TABLE users (
    id text PRIMARY KEY,
    username text NOT NULL,
    status text NOT NULL DEFAULT 'offline',
    last_seen timestamptz
) WITH (fillfactor = 80);

CREATE TABLE chats (
    id uuid PRIMARY KEY,
    title text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 80);

CREATE TABLE chat_participants (
    chat_id uuid NOT NULL REFERENCES chats,
    user_id text NOT NULL REFERENCES users,
    last_read_at timestamptz,
    PRIMARY KEY (chat_id, user_id)
);
CREATE INDEX chat_participants_by_user ON chat_participants (user_id, chat_id);

CREATE TABLE messages (
    id uuid PRIMARY KEY,
    chat_id uuid NOT NULL REFERENCES chats,
    sender_id text NOT NULL REFERENCES users,
    content text NOT NULL,
    message_type text NOT NULL DEFAULT 'text',
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX messages_by_chat ON messages (chat_id, created_at DESC);

CREATE TABLE message_reads (
    message_id uuid NOT NULL REFERENCES messages,
    user_id text NOT NULL,
    read_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (message_id, user_id)
);
