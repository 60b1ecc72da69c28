-- Who is here. Only adds; replicas of the version before go on beside it.

-- One row per life of a gateway, which renews it while it lives. number: of its latest report. lost_at: when it
-- was given up, kept for a while so that it learns of it. Unlogged like the sessions: a crash of the database
-- empties both together, and every gateway then reports all of its sessions anew.
-- The row with the nil id marks that the rows are those of this life of the database.
CREATE UNLOGGED TABLE gateways (
    instance uuid PRIMARY KEY,
    number bigint NOT NULL,
    renewed_at timestamptz NOT NULL DEFAULT now(),
    lost_at timestamptz
);

-- The open connections. status: 1 online, 2 away, 3 offline although connected.
CREATE UNLOGGED TABLE sessions (
    gateway uuid NOT NULL,
    session bigint NOT NULL,
    user_id text NOT NULL,
    status smallint NOT NULL,
    PRIMARY KEY (gateway, session)
);
CREATE INDEX sessions_by_user ON sessions (user_id);

-- How each user was last told to be seen. status as above; version grows with every change, also over a restore
-- from a backup, and at most one message is published for each.
-- closed_at: when the latest session closed in which the user was to be seen; alive_at: what was
-- committed up to then was surely told to a session that is closed now. due_at: when to look again, as long as that is open.
CREATE TABLE presence (
    user_id text PRIMARY KEY,
    status smallint NOT NULL DEFAULT 3,
    version bigint NOT NULL DEFAULT 0,
    changed_at timestamptz,
    last_seen_at timestamptz,
    closed_at timestamptz,
    alive_at timestamptz,
    due_at timestamptz
) WITH (fillfactor = 70);
CREATE INDEX presence_due ON presence (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX presence_changed ON presence (changed_at, user_id);
