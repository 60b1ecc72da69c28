-- Attempts at commands that are carried out apart, because they are costly or were in hand when a replica died: written
-- before each attempt and deleted by the transaction that carries the command out, so that the next owner of the
-- partition knows how often it failed. What is left over is forgotten after an hour. Only adds.
CREATE TABLE command_attempts (
    command_id uuid PRIMARY KEY,
    attempts smallint NOT NULL,
    tried_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX command_attempts_by_time ON command_attempts (tried_at);
