-- Messages whose text streams in. stream: 1 open, 2 finished, 3 cancelled, 4 interrupted; null for messages sent whole.
-- open_streams names those that are open, so that they are found without a look at the messages. Only adds; replicas of the
-- version before neither begin nor end streams, and show one as a message with the text so far.
SET LOCAL lock_timeout = '5s';
ALTER TABLE messages ADD COLUMN stream smallint;
CREATE TABLE open_streams (
    conversation_id uuid NOT NULL,
    message_id uuid NOT NULL,
    PRIMARY KEY (conversation_id, message_id)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200);
