-- The participants of groups that have many and were not counted since 20260606000000: every read of them counted anew until the
-- next change. Reads the participants once and locks the rows of these groups alone.

-- The head is that of the same snapshot as the count: where it has moved on meanwhile, the count is void, as any other.
UPDATE conversations c
SET member_count = counted.members, members_at = counted.head_seq
FROM (SELECT conversation_id, d.head_seq, p.members
      FROM (SELECT conversation_id, count(*) AS members FROM participants WHERE left_seq IS NULL
            GROUP BY conversation_id HAVING count(*) > 100) AS p
      JOIN conversations d USING (conversation_id)
      WHERE d.members_at IS NULL AND d.kind <> 1) AS counted
WHERE c.conversation_id = counted.conversation_id AND c.members_at IS NULL;
