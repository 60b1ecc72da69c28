-- Messages that users report, for those who moderate: with the content as it was, because its sender may edit or delete it.
-- reason: 1 spam, 2 harassment, 3 violence, 4 illegal, 5 other. resolved_by, resolution: which service settled it, and how.
-- Settled ones are deleted after reports.keep_days. Only adds.
SET LOCAL lock_timeout = '5s';
CREATE TABLE message_reports (
    conversation_id uuid NOT NULL,
    message_seq bigint NOT NULL CHECK (message_seq > 0),
    user_id text NOT NULL,
    report_id uuid NOT NULL,
    message_id uuid NOT NULL,
    sender_id text NOT NULL,
    content text NOT NULL,
    reason smallint NOT NULL CHECK (reason BETWEEN 1 AND 5),
    comment text NOT NULL,
    at timestamptz NOT NULL,
    resolved_at timestamptz,
    resolved_by text,
    resolution text,
    PRIMARY KEY (conversation_id, message_seq, user_id)
);
CREATE INDEX message_reports_open ON message_reports (at, report_id) WHERE resolved_at IS NULL;
CREATE INDEX message_reports_open_of ON message_reports (user_id) WHERE resolved_at IS NULL;
CREATE INDEX message_reports_settled ON message_reports (resolved_at) WHERE resolved_at IS NOT NULL;
CREATE INDEX message_reports_by_id ON message_reports (report_id);
