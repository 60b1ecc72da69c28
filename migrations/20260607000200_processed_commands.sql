-- Commands that leave no other trace of their own: refused ones, those that changed nothing, receipts, creations. As long
-- as one can be redelivered it changes nothing and is answered as before. code, message: what it was refused with; null
-- where it was not. seq: of the message it was answered with. Forgotten when no command as old waits in the stream any more. Only adds; replicas of the version before
-- neither write nor read them.
CREATE TABLE processed_commands (
    conversation_id uuid NOT NULL,
    command_id uuid NOT NULL,
    code smallint,
    message text,
    seq bigint,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (conversation_id, command_id)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.1);
CREATE INDEX processed_commands_by_time ON processed_commands (at);

-- Which command sent the message: the same message id may be sent again in a later life of a conversation. A moment of
-- an exclusive lock; null in what was sent before.
ALTER TABLE messages ADD COLUMN command_id uuid;
