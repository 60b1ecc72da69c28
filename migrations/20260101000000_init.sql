-- Core SQL only, Postgres 15 and later: no extension, nothing that a Postgres-compatible cluster lacks.
-- Every unique key of conversation data contains conversation_id, so that the data can be distributed by it.
-- There are no foreign keys between them: the one writer holds the conversation's row lock, and a check per
-- row would cost as much as the insert itself.

-- Which life of the data this is: replaced after a restore from a backup, so that every seq a client
-- remembers is known to be void. One row.
CREATE TABLE epoch (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    id uuid NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO epoch (id) VALUES (gen_random_uuid());

-- The people and services that were seen. user_id is the application's own id, taken from the token.
-- memberships_version grows with every change of the user's set of conversations.
CREATE TABLE users (
    user_id text PRIMARY KEY,
    number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    username text NOT NULL,
    memberships_version bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);

-- Conversation numbers, for clients that type ids as JSON numbers.
CREATE SEQUENCE conversation_number AS bigint;

-- One row per conversation: the lock that orders its changes and the counters given under that lock.
-- kind: 1 direct, 2 group. head_seq: seq of the latest durable change, 0 before the first.
-- created_by_command tells a redelivered creation from a second one. No index on what every batch
-- updates, and room in the page: the update of the head stays inside the page.
CREATE TABLE conversations (
    conversation_id uuid PRIMARY KEY,
    number bigint NOT NULL,
    kind smallint NOT NULL,
    title text NOT NULL DEFAULT '',
    created_by text NOT NULL,
    created_by_command uuid NOT NULL,
    head_seq bigint NOT NULL DEFAULT 0,
    last_message_seq bigint NOT NULL DEFAULT 0,
    receipts_version bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
) WITH (fillfactor = 60);

-- number -> conversation. A table of its own because a unique key on conversations(number) would not
-- contain conversation_id.
CREATE TABLE conversation_numbers (
    number bigint PRIMARY KEY,
    conversation_id uuid NOT NULL
);

-- Who belongs to a conversation, and what they have read.
-- role: 1 member, 2 moderator, 3 admin. left_seq: null while a member.
-- read_seqs: every seq read; gaps that hold nothing unread are closed, so a healthy reader has one range.
-- receipts_version: the conversation's receipts_version of the latest change of this row's receipts.
CREATE TABLE participants (
    conversation_id uuid NOT NULL,
    user_id text NOT NULL,
    role smallint NOT NULL,
    joined_seq bigint NOT NULL DEFAULT 0,
    left_seq bigint,
    read_seqs int8multirange NOT NULL DEFAULT '{}',
    delivered_seq bigint NOT NULL DEFAULT 0,
    receipts_version bigint NOT NULL DEFAULT 0,
    last_read_at timestamptz,
    PRIMARY KEY (conversation_id, user_id)
) PARTITION BY HASH (conversation_id);
CREATE INDEX participants_by_user ON participants (user_id, conversation_id);

-- Messages: the row is also the durable "message created" event with its seq.
-- message_id is the identity that makes a repeated send harmless.
-- type, sender_kind: the numbers of MessageType and SenderKind in proto/chat/v1/message.proto.
-- sender_name: what a service called itself; null for users, whose name stands in users.
-- A deleted message keeps its row with empty content and metadata.
CREATE TABLE messages (
    conversation_id uuid NOT NULL,
    seq bigint NOT NULL,
    message_id uuid NOT NULL,
    sender_id text NOT NULL,
    sender_kind smallint NOT NULL,
    sender_name text,
    type smallint NOT NULL,
    content text NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}',
    client_msg_id text,
    reply_to uuid,
    created_at timestamptz NOT NULL,
    edited_at timestamptz,
    deleted_at timestamptz,
    PRIMARY KEY (conversation_id, seq),
    UNIQUE (conversation_id, message_id)
) PARTITION BY HASH (conversation_id);

-- Every other durable change, in the same sequence. kind: 1 message edited, 2 message deleted.
-- No content: reading a change of a message joins the message's present state, so a deletion has
-- nothing to scrub here. command_id makes a redelivered change harmless.
-- target_seq: the seq of the changed message. payload: for kinds without a message.
CREATE TABLE changes (
    conversation_id uuid NOT NULL,
    seq bigint NOT NULL,
    command_id uuid NOT NULL,
    kind smallint NOT NULL,
    target_seq bigint,
    actor text NOT NULL,
    payload bytea,
    at timestamptz NOT NULL,
    PRIMARY KEY (conversation_id, seq),
    UNIQUE (conversation_id, command_id)
) PARTITION BY HASH (conversation_id);

CREATE TABLE participants_0 PARTITION OF participants FOR VALUES WITH (MODULUS 8, REMAINDER 0) WITH (fillfactor = 80);
CREATE TABLE participants_1 PARTITION OF participants FOR VALUES WITH (MODULUS 8, REMAINDER 1) WITH (fillfactor = 80);
CREATE TABLE participants_2 PARTITION OF participants FOR VALUES WITH (MODULUS 8, REMAINDER 2) WITH (fillfactor = 80);
CREATE TABLE participants_3 PARTITION OF participants FOR VALUES WITH (MODULUS 8, REMAINDER 3) WITH (fillfactor = 80);
CREATE TABLE participants_4 PARTITION OF participants FOR VALUES WITH (MODULUS 8, REMAINDER 4) WITH (fillfactor = 80);
CREATE TABLE participants_5 PARTITION OF participants FOR VALUES WITH (MODULUS 8, REMAINDER 5) WITH (fillfactor = 80);
CREATE TABLE participants_6 PARTITION OF participants FOR VALUES WITH (MODULUS 8, REMAINDER 6) WITH (fillfactor = 80);
CREATE TABLE participants_7 PARTITION OF participants FOR VALUES WITH (MODULUS 8, REMAINDER 7) WITH (fillfactor = 80);
CREATE TABLE messages_0 PARTITION OF messages FOR VALUES WITH (MODULUS 8, REMAINDER 0);
CREATE TABLE messages_1 PARTITION OF messages FOR VALUES WITH (MODULUS 8, REMAINDER 1);
CREATE TABLE messages_2 PARTITION OF messages FOR VALUES WITH (MODULUS 8, REMAINDER 2);
CREATE TABLE messages_3 PARTITION OF messages FOR VALUES WITH (MODULUS 8, REMAINDER 3);
CREATE TABLE messages_4 PARTITION OF messages FOR VALUES WITH (MODULUS 8, REMAINDER 4);
CREATE TABLE messages_5 PARTITION OF messages FOR VALUES WITH (MODULUS 8, REMAINDER 5);
CREATE TABLE messages_6 PARTITION OF messages FOR VALUES WITH (MODULUS 8, REMAINDER 6);
CREATE TABLE messages_7 PARTITION OF messages FOR VALUES WITH (MODULUS 8, REMAINDER 7);
CREATE TABLE changes_0 PARTITION OF changes FOR VALUES WITH (MODULUS 8, REMAINDER 0);
CREATE TABLE changes_1 PARTITION OF changes FOR VALUES WITH (MODULUS 8, REMAINDER 1);
CREATE TABLE changes_2 PARTITION OF changes FOR VALUES WITH (MODULUS 8, REMAINDER 2);
CREATE TABLE changes_3 PARTITION OF changes FOR VALUES WITH (MODULUS 8, REMAINDER 3);
CREATE TABLE changes_4 PARTITION OF changes FOR VALUES WITH (MODULUS 8, REMAINDER 4);
CREATE TABLE changes_5 PARTITION OF changes FOR VALUES WITH (MODULUS 8, REMAINDER 5);
CREATE TABLE changes_6 PARTITION OF changes FOR VALUES WITH (MODULUS 8, REMAINDER 6);
CREATE TABLE changes_7 PARTITION OF changes FOR VALUES WITH (MODULUS 8, REMAINDER 7);

-- Which replica works which partition of the command stream. A takeover raises epoch; epoch is part of a
-- unique key so that raising it waits for batches that hold the row FOR KEY SHARE, while a renewal of
-- expires_at does not.
CREATE TABLE partition_leases (
    partition integer PRIMARY KEY,
    owner text,
    epoch bigint NOT NULL DEFAULT 0,
    expires_at timestamptz NOT NULL DEFAULT '-infinity',
    UNIQUE (partition, epoch)
);

-- The live persistence replicas: what a fair share of the partitions is computed from.
CREATE TABLE replicas (
    replica text PRIMARY KEY,
    expires_at timestamptz NOT NULL
);

-- Commands that can never be carried out, for an operator to look at. error names the cause without
-- content; payload is the command as it came.
CREATE TABLE dead_letters (
    id uuid PRIMARY KEY,
    partition integer,
    subject text NOT NULL,
    command_id text,
    payload bytea NOT NULL,
    error_code text NOT NULL,
    error text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
