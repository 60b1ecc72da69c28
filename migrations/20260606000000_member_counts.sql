-- Participants of a conversation, and conversations of a user, are counted as they change. Only adds; a moment of an exclusive
-- lock. Each number says as of when it was counted: what a replica of the version before changes beside it makes it void,
-- and it is counted anew.

-- How many participants the conversation had when its head was members_at; nothing where they were not counted yet.
ALTER TABLE conversations ADD COLUMN member_count bigint, ADD COLUMN members_at bigint;
-- How many conversations the user had, journals left out, when memberships_version was conversations_at.
ALTER TABLE users ADD COLUMN conversation_count bigint, ADD COLUMN conversations_at bigint;
