-- A user mutes a conversation. muted_until: when that ends by itself, 'infinity' where only the user ends it; null where it is
-- not muted. Only adds: replicas of the version before push as if nothing were muted, and refuse the command.
SET LOCAL lock_timeout = '5s';
ALTER TABLE participants ADD COLUMN muted_until timestamptz;
