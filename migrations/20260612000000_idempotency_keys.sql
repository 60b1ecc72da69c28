-- Changes that clients name by an idempotency key: the same key is the same change of its user, whichever replica it
-- comes to. All ids of the change are derived from change_id, so that carrying it out once more is harmless. key_hash and
-- fingerprint are SHA-256 of the key and of the request. attempt: who carries it out now, since attempted_at; null for
-- nobody. status, answer: how it ended; null while that is not known.
-- Forgotten an hour after created_at. Only adds; replicas of the version before neither write nor read them.
CREATE TABLE idempotency_keys (
    user_id text NOT NULL,
    key_hash bytea NOT NULL,
    fingerprint bytea NOT NULL,
    change_id uuid NOT NULL,
    attempt uuid,
    attempts integer NOT NULL DEFAULT 1,
    attempted_at timestamptz NOT NULL DEFAULT now(),
    status smallint,
    answer bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, key_hash)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.1);
CREATE INDEX idempotency_keys_by_time ON idempotency_keys (created_at);
-- How many keys each user claimed in an hour of the clock: counted instead of being looked for at each claim.
CREATE TABLE idempotency_usage (
    user_id text NOT NULL,
    hour timestamptz NOT NULL,
    claims integer NOT NULL,
    PRIMARY KEY (user_id, hour)
) WITH (fillfactor = 50);
