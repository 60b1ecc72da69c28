-- Conversations of which the feed EVENTS may lack the latest events: rows exist while it cannot store, and until it has
-- caught up. after_seq, after_receipts: up to here the feed has everything, by seq and by receipts_version; the largest
-- bigint where nothing of that kind is missing. Only adds; a replica of the version before knows no backlog and publishes
-- what follows at once, so that during the rollout the feed may get the missing events after later ones.
CREATE TABLE feed_backlog (
    conversation_id uuid PRIMARY KEY,
    partition integer NOT NULL,
    after_seq bigint NOT NULL,
    after_receipts bigint NOT NULL,
    since timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX feed_backlog_by_partition ON feed_backlog (partition, since);
