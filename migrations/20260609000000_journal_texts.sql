-- The text of a large journal is stored with its checkpoints only: until the next one it is made of the updates since.
--
-- content_version: the version whose text `content` is; NULL: the present one.
ALTER TABLE journals ADD COLUMN content_version bigint;
