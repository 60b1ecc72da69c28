-- Journals as updates: the document of a version is a checkpoint and the updates since, and its text is made of them when
-- it is asked for. What stands in these columns is kept; they are dropped in a later release.
--
-- Replicas of the version before cannot edit a journal that one of this version wrote, and their gateways show no changes
-- of it: stop them before replicas of this version start.
--
-- state: NULL once a replica of this version has written the journal.
ALTER TABLE journals ALTER COLUMN state DROP NOT NULL;
-- content: the whole text of each version up to this migration; empty after it.
ALTER TABLE journal_versions ALTER COLUMN content SET DEFAULT '';
