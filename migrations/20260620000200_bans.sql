-- Users who are banned from a group: they are no members, and cannot be added before the ban ends. Only adds: replicas of the
-- version before refuse the commands and let banned users be added, so bans hold once all are new.
SET LOCAL lock_timeout = '5s';
CREATE TABLE bans (
    conversation_id uuid NOT NULL,
    user_id text NOT NULL,
    banned_by text NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (conversation_id, user_id)
);
