-- A user blocks another. blocks: who blocked whom. conversations.blocked: of a direct conversation, one of the two has blocked the
-- other; so nothing is looked up where a message is sent. Only adds: replicas of the version before carry out what is refused
-- here, so blocks hold once all are new.
SET LOCAL lock_timeout = '5s';
CREATE TABLE blocks (
    user_id text NOT NULL,
    blocked_id text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, blocked_id),
    CHECK (user_id <> blocked_id)
);
CREATE INDEX blocks_by_blocked ON blocks (blocked_id, user_id);
ALTER TABLE conversations ADD COLUMN blocked boolean NOT NULL DEFAULT false;
