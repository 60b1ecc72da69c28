-- The rest of the domain: what a conversation is about, reactions, threads, hidden messages, earlier contents
-- of messages, and journals. Only adds; replicas of the version before go on beside it.

-- channel, status: the numbers of Channel and ConversationStatus in proto/chat/v1/conversation.proto.
-- kind: 3 is a journal. deleted_at: gone for all; only a direct conversation can be made again, and what has
-- a seq <= history_from is then hidden for good.
ALTER TABLE conversations
    ADD COLUMN channel smallint NOT NULL DEFAULT 1,
    ADD COLUMN status smallint NOT NULL DEFAULT 1,
    ADD COLUMN metadata jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN deleted_at timestamptz,
    ADD COLUMN history_from bigint NOT NULL DEFAULT 0;

-- receipts_at: when read_seqs or delivered_seq last grew. Roles of journals: 4 viewer, 5 editor, 6 owner.
ALTER TABLE participants ADD COLUMN receipts_at timestamptz;

-- encrypted: content is ciphertext. thread_id: null in the main line.
ALTER TABLE messages
    ADD COLUMN encrypted boolean NOT NULL DEFAULT false,
    ADD COLUMN thread_id uuid;
-- For clients that name a message without its conversation.
CREATE INDEX messages_by_id ON messages (message_id);
CREATE INDEX messages_by_thread ON messages (conversation_id, thread_id, seq) WHERE thread_id IS NOT NULL;

-- Further kinds of changes: 3 reaction, 4 thread created, 5 conversation updated, 6 members added, 7 member
-- removed, 8 role changed, 9 conversation deleted, 10 journal edited. payload: the event in protobuf, without
-- what is joined when it is read: messages, threads, texts, names.

-- Marks on messages. seq: of the change that made it, which is also their order.
CREATE TABLE reactions (
    conversation_id uuid NOT NULL,
    message_seq bigint NOT NULL,
    user_id text NOT NULL,
    emoji text NOT NULL,
    seq bigint NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (conversation_id, message_seq, user_id, emoji)
) PARTITION BY HASH (conversation_id);

-- Branches of a conversation. seq: of the change that made it. root_seq: the message it grew from.
-- reply_count counts deleted messages as well.
CREATE TABLE threads (
    conversation_id uuid NOT NULL,
    thread_id uuid NOT NULL,
    title text NOT NULL DEFAULT '',
    root_seq bigint,
    parent_thread_id uuid,
    seq bigint NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL,
    reply_count bigint NOT NULL DEFAULT 0,
    last_reply_at timestamptz,
    PRIMARY KEY (conversation_id, thread_id)
) PARTITION BY HASH (conversation_id);

-- Messages that one user does not want to see any more.
CREATE TABLE hidden_messages (
    conversation_id uuid NOT NULL,
    user_id text NOT NULL,
    message_seq bigint NOT NULL,
    PRIMARY KEY (conversation_id, user_id, message_seq)
) PARTITION BY HASH (conversation_id);

-- Earlier contents of edited messages. edit_seq: of the change that replaced it; at: when it was written.
-- Emptied when the message is deleted.
CREATE TABLE message_edits (
    conversation_id uuid NOT NULL,
    message_seq bigint NOT NULL,
    edit_seq bigint NOT NULL,
    content text NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (conversation_id, message_seq, edit_seq)
) PARTITION BY HASH (conversation_id);

-- The present document of a journal. state: a Yjs (v1) update of all of it; version: seq of its latest change;
-- checkpoint_version: the latest version whose row holds the whole document.
CREATE TABLE journals (
    conversation_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    state bytea NOT NULL,
    content text NOT NULL,
    checkpoint_version bigint NOT NULL
);

-- What each version changed and led to. update: Yjs (v1). checkpoint: on the first version and now and then,
-- the whole document, so that the document of any version is one checkpoint and a few updates.
CREATE TABLE journal_versions (
    conversation_id uuid NOT NULL,
    version bigint NOT NULL,
    update bytea NOT NULL,
    content text NOT NULL,
    checkpoint bytea,
    actor text NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (conversation_id, version)
) PARTITION BY HASH (conversation_id);

CREATE TABLE reactions_0 PARTITION OF reactions FOR VALUES WITH (MODULUS 8, REMAINDER 0);
CREATE TABLE reactions_1 PARTITION OF reactions FOR VALUES WITH (MODULUS 8, REMAINDER 1);
CREATE TABLE reactions_2 PARTITION OF reactions FOR VALUES WITH (MODULUS 8, REMAINDER 2);
CREATE TABLE reactions_3 PARTITION OF reactions FOR VALUES WITH (MODULUS 8, REMAINDER 3);
CREATE TABLE reactions_4 PARTITION OF reactions FOR VALUES WITH (MODULUS 8, REMAINDER 4);
CREATE TABLE reactions_5 PARTITION OF reactions FOR VALUES WITH (MODULUS 8, REMAINDER 5);
CREATE TABLE reactions_6 PARTITION OF reactions FOR VALUES WITH (MODULUS 8, REMAINDER 6);
CREATE TABLE reactions_7 PARTITION OF reactions FOR VALUES WITH (MODULUS 8, REMAINDER 7);
CREATE TABLE threads_0 PARTITION OF threads FOR VALUES WITH (MODULUS 8, REMAINDER 0);
CREATE TABLE threads_1 PARTITION OF threads FOR VALUES WITH (MODULUS 8, REMAINDER 1);
CREATE TABLE threads_2 PARTITION OF threads FOR VALUES WITH (MODULUS 8, REMAINDER 2);
CREATE TABLE threads_3 PARTITION OF threads FOR VALUES WITH (MODULUS 8, REMAINDER 3);
CREATE TABLE threads_4 PARTITION OF threads FOR VALUES WITH (MODULUS 8, REMAINDER 4);
CREATE TABLE threads_5 PARTITION OF threads FOR VALUES WITH (MODULUS 8, REMAINDER 5);
CREATE TABLE threads_6 PARTITION OF threads FOR VALUES WITH (MODULUS 8, REMAINDER 6);
CREATE TABLE threads_7 PARTITION OF threads FOR VALUES WITH (MODULUS 8, REMAINDER 7);
CREATE TABLE hidden_messages_0 PARTITION OF hidden_messages FOR VALUES WITH (MODULUS 8, REMAINDER 0);
CREATE TABLE hidden_messages_1 PARTITION OF hidden_messages FOR VALUES WITH (MODULUS 8, REMAINDER 1);
CREATE TABLE hidden_messages_2 PARTITION OF hidden_messages FOR VALUES WITH (MODULUS 8, REMAINDER 2);
CREATE TABLE hidden_messages_3 PARTITION OF hidden_messages FOR VALUES WITH (MODULUS 8, REMAINDER 3);
CREATE TABLE hidden_messages_4 PARTITION OF hidden_messages FOR VALUES WITH (MODULUS 8, REMAINDER 4);
CREATE TABLE hidden_messages_5 PARTITION OF hidden_messages FOR VALUES WITH (MODULUS 8, REMAINDER 5);
CREATE TABLE hidden_messages_6 PARTITION OF hidden_messages FOR VALUES WITH (MODULUS 8, REMAINDER 6);
CREATE TABLE hidden_messages_7 PARTITION OF hidden_messages FOR VALUES WITH (MODULUS 8, REMAINDER 7);
CREATE TABLE message_edits_0 PARTITION OF message_edits FOR VALUES WITH (MODULUS 8, REMAINDER 0);
CREATE TABLE message_edits_1 PARTITION OF message_edits FOR VALUES WITH (MODULUS 8, REMAINDER 1);
CREATE TABLE message_edits_2 PARTITION OF message_edits FOR VALUES WITH (MODULUS 8, REMAINDER 2);
CREATE TABLE message_edits_3 PARTITION OF message_edits FOR VALUES WITH (MODULUS 8, REMAINDER 3);
CREATE TABLE message_edits_4 PARTITION OF message_edits FOR VALUES WITH (MODULUS 8, REMAINDER 4);
CREATE TABLE message_edits_5 PARTITION OF message_edits FOR VALUES WITH (MODULUS 8, REMAINDER 5);
CREATE TABLE message_edits_6 PARTITION OF message_edits FOR VALUES WITH (MODULUS 8, REMAINDER 6);
CREATE TABLE message_edits_7 PARTITION OF message_edits FOR VALUES WITH (MODULUS 8, REMAINDER 7);
CREATE TABLE journal_versions_0 PARTITION OF journal_versions FOR VALUES WITH (MODULUS 8, REMAINDER 0);
CREATE TABLE journal_versions_1 PARTITION OF journal_versions FOR VALUES WITH (MODULUS 8, REMAINDER 1);
CREATE TABLE journal_versions_2 PARTITION OF journal_versions FOR VALUES WITH (MODULUS 8, REMAINDER 2);
CREATE TABLE journal_versions_3 PARTITION OF journal_versions FOR VALUES WITH (MODULUS 8, REMAINDER 3);
CREATE TABLE journal_versions_4 PARTITION OF journal_versions FOR VALUES WITH (MODULUS 8, REMAINDER 4);
CREATE TABLE journal_versions_5 PARTITION OF journal_versions FOR VALUES WITH (MODULUS 8, REMAINDER 5);
CREATE TABLE journal_versions_6 PARTITION OF journal_versions FOR VALUES WITH (MODULUS 8, REMAINDER 6);
CREATE TABLE journal_versions_7 PARTITION OF journal_versions FOR VALUES WITH (MODULUS 8, REMAINDER 7);
