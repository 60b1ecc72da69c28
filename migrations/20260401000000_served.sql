-- What users were served, whatever they marked. Only adds; replicas of the version before go on beside it.

-- seq: the latest change that a session of the user was emitted or a page of history showed, as far as that is known;
-- null where neither ever was. listed_seq: the latest change up to which a list of conversations counted what is
-- unread. Not columns of participants: these rows change often, and must not meet the locks of receipts.
CREATE TABLE served (
    conversation_id uuid NOT NULL,
    user_id text NOT NULL,
    seq bigint,
    listed_seq bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (conversation_id, user_id)
) PARTITION BY HASH (conversation_id);
CREATE TABLE served_0 PARTITION OF served FOR VALUES WITH (MODULUS 8, REMAINDER 0) WITH (fillfactor = 70);
CREATE TABLE served_1 PARTITION OF served FOR VALUES WITH (MODULUS 8, REMAINDER 1) WITH (fillfactor = 70);
CREATE TABLE served_2 PARTITION OF served FOR VALUES WITH (MODULUS 8, REMAINDER 2) WITH (fillfactor = 70);
CREATE TABLE served_3 PARTITION OF served FOR VALUES WITH (MODULUS 8, REMAINDER 3) WITH (fillfactor = 70);
CREATE TABLE served_4 PARTITION OF served FOR VALUES WITH (MODULUS 8, REMAINDER 4) WITH (fillfactor = 70);
CREATE TABLE served_5 PARTITION OF served FOR VALUES WITH (MODULUS 8, REMAINDER 5) WITH (fillfactor = 70);
CREATE TABLE served_6 PARTITION OF served FOR VALUES WITH (MODULUS 8, REMAINDER 6) WITH (fillfactor = 70);
CREATE TABLE served_7 PARTITION OF served FOR VALUES WITH (MODULUS 8, REMAINDER 7) WITH (fillfactor = 70);

-- When the membership ended that left_seq ended.
ALTER TABLE participants ADD COLUMN left_at timestamptz;
