-- Clients that reconnect go on from where they themselves were, not from where another device of their user is. Only
-- adds; replicas of the version before go on beside it.

-- pages: for the latest clients of the user, by the id that each keeps while its page is open, the latest change it was
-- emitted, and when that was reported, in seconds. history_seq, history_at: the latest change that a page of history showed, and when, until a client that had
-- not joined before joins: it goes on from there, whatever others were emitted meanwhile.
ALTER TABLE served ADD COLUMN pages jsonb NOT NULL DEFAULT '{}';
ALTER TABLE served ADD COLUMN history_seq bigint;
ALTER TABLE served ADD COLUMN history_at timestamptz;
