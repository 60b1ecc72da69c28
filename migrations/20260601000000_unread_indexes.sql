-- What is unread is counted without a look at each message. Only adds; replicas of the version before go on beside it.
--
-- Each statement stops writes of messages while it builds: some seconds for ten million. A larger installation builds
-- the indexes of the partitions beforehand: each statement CREATE INDEX below that names messages_0 to messages_7, with
-- CONCURRENTLY after INDEX. They are then found here. One whose building was interrupted is INVALID: drop it and
-- build it again before.

-- The messages of one sender.
CREATE INDEX IF NOT EXISTS messages_0_by_sender ON messages_0 (conversation_id, sender_id, seq);
CREATE INDEX IF NOT EXISTS messages_1_by_sender ON messages_1 (conversation_id, sender_id, seq);
CREATE INDEX IF NOT EXISTS messages_2_by_sender ON messages_2 (conversation_id, sender_id, seq);
CREATE INDEX IF NOT EXISTS messages_3_by_sender ON messages_3 (conversation_id, sender_id, seq);
CREATE INDEX IF NOT EXISTS messages_4_by_sender ON messages_4 (conversation_id, sender_id, seq);
CREATE INDEX IF NOT EXISTS messages_5_by_sender ON messages_5 (conversation_id, sender_id, seq);
CREATE INDEX IF NOT EXISTS messages_6_by_sender ON messages_6 (conversation_id, sender_id, seq);
CREATE INDEX IF NOT EXISTS messages_7_by_sender ON messages_7 (conversation_id, sender_id, seq);
CREATE INDEX messages_by_sender ON messages (conversation_id, sender_id, seq);

-- The deleted messages.
CREATE INDEX IF NOT EXISTS messages_0_deleted ON messages_0 (conversation_id, seq, sender_id) WHERE deleted_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS messages_1_deleted ON messages_1 (conversation_id, seq, sender_id) WHERE deleted_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS messages_2_deleted ON messages_2 (conversation_id, seq, sender_id) WHERE deleted_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS messages_3_deleted ON messages_3 (conversation_id, seq, sender_id) WHERE deleted_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS messages_4_deleted ON messages_4 (conversation_id, seq, sender_id) WHERE deleted_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS messages_5_deleted ON messages_5 (conversation_id, seq, sender_id) WHERE deleted_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS messages_6_deleted ON messages_6 (conversation_id, seq, sender_id) WHERE deleted_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS messages_7_deleted ON messages_7 (conversation_id, seq, sender_id) WHERE deleted_at IS NOT NULL;
CREATE INDEX messages_deleted ON messages (conversation_id, seq, sender_id) WHERE deleted_at IS NOT NULL;
