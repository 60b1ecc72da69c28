-- Messages whose text streams in. stream: 1 open, 2 finished, 3 cancelled, 4 interrupted; null for messages sent whole.
-- open_streams names those that are open, so that they are found without a look at the messages. Only adds. Replicas of the
-- version before do not know the change that ends a stream, and refuse to read the stretch of a conversation that holds one:
-- services begin to stream only once all replicas are new, and no replica goes back after that.
SET LOCAL lock_timeout = '5s';
ALTER TABLE messages ADD COLUMN stream smallint;
CREATE TABLE open_streams (
    conversation_id uuid NOT NULL,
    message_id uuid NOT NULL,
    PRIMARY KEY (conversation_id, message_id)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200);
