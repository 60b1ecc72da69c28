-- Groups in which only admins write. Only adds: replicas of the version before let everybody write, so it holds once all are new.
SET LOCAL lock_timeout = '5s';
ALTER TABLE conversations ADD COLUMN read_only boolean NOT NULL DEFAULT false;
