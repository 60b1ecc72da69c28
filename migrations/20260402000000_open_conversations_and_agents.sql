-- open: a group without roles, as front ends make them that know none: every participant may change title,
-- status, channel and metadata, and add and remove members. Only adds; replicas of the version before go on
-- beside it and hold such a group for one with roles.
ALTER TABLE conversations ADD COLUMN open boolean NOT NULL DEFAULT false;

-- agent: a program that answers people, whatever its token says.
ALTER TABLE users ADD COLUMN agent boolean NOT NULL DEFAULT false;
