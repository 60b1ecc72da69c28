//! What participants have read, and how much they have not.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use parlance_proto::v1;
use parlance_proto::{ConversationId, UserId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{corrupt, from_millis, millis, seq_from, seq_to};
use crate::model::read_set::ReadSet;
use crate::model::state::{Effects, Loaded, Reader};

/// Counts, as `n.unread`, what `p` has not read up to the seq `$head`: messages of others, not deleted, not in the read
/// set, not hidden. Counting starts above the first range of the set, so it is short for everyone who reads; where it
/// would not be, the count is [`LONG`] and [`count_long`] makes it. With the seq of the latest message, `$last`, that is
/// compared first: most conversations hold none, or are read to the end, and cost no look at messages then.
macro_rules! unread_messages {
    ($head:literal) => {
        unread_messages!(case "", $head)
    };
    ($head:literal, $last:literal) => {
        unread_messages!(
            case "WHEN " $last " = 0 THEN 0 WHEN p.read_seqs @> int8range(1, " $last ", '[]') THEN 0 ",
            $head
        )
    };
    (case $($read:literal)*, $head:literal) => {
        concat!(
            "LATERAL (SELECT CASE ",
            $($read,)*
            "WHEN ",
            $head,
            " - w.mark > 256 THEN -1
                             ELSE (SELECT count(*) FROM messages m
                                   WHERE m.conversation_id = p.conversation_id AND m.seq > w.mark AND m.seq <= ",
            $head,
            "
                                     AND m.sender_id <> p.user_id AND m.deleted_at IS NULL AND NOT p.read_seqs @> m.seq
                                     AND NOT EXISTS (SELECT FROM hidden_messages h
                                                     WHERE h.conversation_id = p.conversation_id
                                                       AND h.user_id = p.user_id AND h.message_seq = m.seq)) END AS unread
                      FROM (SELECT coalesce((SELECT upper(r) - 1 FROM unnest(p.read_seqs) AS r
                                             WHERE lower(r) <= 1 LIMIT 1), 0) AS mark) AS w) AS n"
        )
    };
}
pub(super) use unread_messages;

/// How many changes of a conversation `a` have a lower seq than `$seq`. Each knows how many there are up to it; one that
/// was written by a version that did not count has the others counted.
macro_rules! changes_before {
    ($seq:literal) => {
        concat!(
            "coalesce((SELECT coalesce(x.nth, (SELECT count(*) FROM changes y
                                               WHERE y.conversation_id = x.conversation_id AND y.seq <= x.seq))
                       FROM changes x WHERE x.conversation_id = a.conversation_id AND x.seq < ",
            $seq,
            " ORDER BY x.seq DESC LIMIT 1), 0)"
        )
    };
}

/// Instead of a count that takes [`count_long`].
pub(super) const LONG: i64 = -1;

/// A count of what is unread that spans many seqs.
#[derive(Debug, Clone)]
pub(super) struct LongCount<'a> {
    pub conversation: Uuid,
    pub user: &'a str,
    /// Counted up to here.
    pub head_seq: i64,
    /// What the user has read, where it is not what is stored.
    pub read: Option<Cow<'a, str>>,
}

/// Makes the counts that span many seqs: each with what is counted.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub(super) async fn fill_long<'a>(
    connection: &mut PgConnection,
    counts: impl Iterator<Item = (LongCount<'a>, &'a mut i64)>,
) -> Result<(), sqlx::Error> {
    let long = counts.filter(|(_, unread)| **unread == LONG);
    let (asked, unread): (Vec<_>, Vec<_>) = long.unzip();
    for (unread, count) in unread.into_iter().zip(count_long(connection, &asked).await?) {
        *unread = count;
    }
    Ok(())
}

/// Counts what is unread without a look at each message: the seqs that are not in the read set, without those of
/// changes, of own messages, of deleted and of hidden ones. The orders name the indexes that serve: a plan made while a
/// table was empty was seen to read all messages of the conversation.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
async fn count_long(connection: &mut PgConnection, asked: &[LongCount<'_>]) -> Result<Vec<i64>, sqlx::Error> {
    let mut counts = vec![0; asked.len()];
    if asked.is_empty() {
        return Ok(counts);
    }
    let rows: Vec<(i64, i64)> = sqlx::query_as(concat!(
        "SELECT a.place, sum(n.unread)::int8
         FROM unnest($1::uuid[], $2::text[], $3::int8[], $4::text[]) WITH ORDINALITY
              AS a (conversation_id, user_id, head_seq, read_seqs, place)
         CROSS JOIN LATERAL (SELECT coalesce(a.read_seqs::int8multirange,
                                             (SELECT x.read_seqs FROM participants x
                                              WHERE x.conversation_id = a.conversation_id AND x.user_id = a.user_id),
                                             '{}') AS read_seqs) AS p
         CROSS JOIN LATERAL unnest(int8multirange(int8range(1, a.head_seq + 1)) - p.read_seqs) AS gap
         CROSS JOIN LATERAL
              (SELECT upper(gap) - lower(gap) - (",
        changes_before!("upper(gap)"),
        " - ",
        changes_before!("lower(gap)"),
        ")
                      - (SELECT count(*) FROM
                         (SELECT FROM messages o
                          WHERE o.conversation_id = a.conversation_id
                            AND (o.sender_id, o.seq) >= (a.user_id, lower(gap))
                            AND (o.sender_id, o.seq) < (a.user_id, upper(gap))
                          ORDER BY o.sender_id, o.seq OFFSET 0) AS own)
                      - (SELECT count(*) FROM
                         (SELECT FROM messages d
                          WHERE d.conversation_id = a.conversation_id AND d.deleted_at IS NOT NULL
                            AND d.sender_id <> a.user_id AND d.seq >= lower(gap) AND d.seq < upper(gap)
                          ORDER BY d.seq, d.sender_id OFFSET 0) AS deleted)
                      - (SELECT count(*) FROM hidden_messages h
                         CROSS JOIN LATERAL (SELECT FROM messages x
                                             WHERE x.conversation_id = h.conversation_id AND x.seq = h.message_seq
                                               AND x.sender_id <> a.user_id AND x.deleted_at IS NULL LIMIT 1) AS m
                         WHERE h.conversation_id = a.conversation_id AND h.user_id = a.user_id
                           AND h.message_seq >= lower(gap) AND h.message_seq < upper(gap)) AS unread) AS n
         GROUP BY a.place"
    ))
    .bind(asked.iter().map(|one| one.conversation).collect::<Vec<_>>())
    .bind(asked.iter().map(|one| one.user).collect::<Vec<_>>())
    .bind(asked.iter().map(|one| one.head_seq).collect::<Vec<_>>())
    .bind(asked.iter().map(|one| one.read.as_deref()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    for (place, unread) in rows {
        // Counted from 1.
        let count = usize::try_from(place - 1)
            .ok()
            .and_then(|place| counts.get_mut(place));
        if let Some(count) = count {
            *count = unread;
        }
    }
    Ok(counts)
}

#[derive(sqlx::FromRow)]
struct SettledRow {
    unread: i64,
    first_unread: Option<i64>,
}

#[derive(sqlx::FromRow)]
struct CoveredRow {
    conversation_id: Uuid,
    user_id: String,
    reading: bool,
    message_id: Uuid,
    seq: i64,
    sender_id: String,
}

#[derive(sqlx::FromRow)]
struct ReceiptRow {
    conversation_id: Uuid,
    user_id: String,
    number: i64,
    read_seqs: String,
    delivered_seq: i64,
    receipts_version: i64,
    receipts_at: Option<DateTime<Utc>>,
    unread: i64,
    head_seq: i64,
}

type Key = (ConversationId, UserId);

/// A participant of the batch who told something.
struct Settling<'a> {
    read: ReadSet,
    before: &'a Reader,
    receipt: v1::ReceiptUpdated,
}

/// Receipts of one conversation read at once.
pub const MAX_AFTER: usize = 1_000;
/// Messages that one receipt names as covered just now.
const MAX_COVERED: i64 = 1_000;

/// Stores what a batch's readers got and read, closing gaps in which nothing is unread, and tells everyone's
/// present receipts. Comes after the batch's messages are written.
///
/// # Errors
/// Of the database.
pub async fn settle(
    connection: &mut PgConnection,
    loaded: &Loaded,
    effects: &Effects,
) -> Result<BTreeMap<Key, v1::ReceiptUpdated>, sqlx::Error> {
    if effects.readers.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut readers: BTreeMap<Key, Settling<'_>> = BTreeMap::new();
    for (key @ (id, user), before) in &effects.readers {
        let state = loaded
            .conversations
            .get(id)
            .ok_or_else(|| corrupt("a reader's conversation"))?;
        // Removed later in the batch: there is nothing left to tell them.
        let Some(member) = state.members.get(user) else {
            continue;
        };
        let receipt = v1::ReceiptUpdated {
            user_id: user.to_string(),
            version: member.receipts_version,
            head_seq: state.head_seq,
            user_number: member.person.number,
            delivered_seq: member.delivered_seq,
            at_ms: loaded.now_ms,
            ..Default::default()
        };
        readers.insert(
            key.clone(),
            Settling {
                read: member.read.clone(),
                before,
                receipt,
            },
        );
    }
    count_unread(connection, &mut readers).await?;
    name_covered(connection, &mut readers).await?;
    store(connection, &readers, from_millis(loaded.now_ms)).await?;
    Ok(readers
        .into_iter()
        .map(|(key, settling)| (key, settling.receipt))
        .collect())
}

async fn count_unread(
    connection: &mut PgConnection,
    readers: &mut BTreeMap<Key, Settling<'_>>,
) -> Result<(), sqlx::Error> {
    let rows: Vec<SettledRow> = sqlx::query_as(concat!(
        "SELECT n.unread,
                (SELECT min(f.seq) FROM unnest(int8multirange(int8range(1, p.head_seq + 1)) - p.read_seqs) AS gap
                 CROSS JOIN LATERAL (SELECT m.seq FROM messages m
                                     WHERE m.conversation_id = p.conversation_id AND m.seq >= lower(gap)
                                       AND m.seq < upper(gap) AND m.sender_id <> p.user_id AND m.deleted_at IS NULL
                                     ORDER BY m.seq LIMIT 1) AS f) AS first_unread
         FROM (SELECT conversation_id, user_id, read_seqs::int8multirange AS read_seqs, head_seq, place
               FROM unnest($1::uuid[], $2::text[], $3::text[], $4::int8[]) WITH ORDINALITY
                    AS asked (conversation_id, user_id, read_seqs, head_seq, place)) AS p
         CROSS JOIN ",
        unread_messages!("p.head_seq"),
        " ORDER BY p.place"
    ))
    .bind(readers.keys().map(|(id, _)| id.uuid()).collect::<Vec<_>>())
    .bind(readers.keys().map(|(_, user)| user.as_str()).collect::<Vec<_>>())
    .bind(readers.values().map(|settling| settling.read.to_sql()).collect::<Vec<_>>())
    .bind(readers.values().map(|settling| seq_to(settling.receipt.head_seq)).collect::<Vec<_>>())
    .fetch_all(&mut *connection)
    .await?;
    if rows.len() != readers.len() {
        return Err(corrupt("the count of a reader"));
    }
    let counted = readers.iter().zip(&rows).filter(|(_, row)| row.unread == LONG);
    let asked: Vec<LongCount<'_>> = counted
        .map(|(((id, user), settling), _)| LongCount {
            conversation: id.uuid(),
            user: user.as_str(),
            head_seq: seq_to(settling.receipt.head_seq),
            read: Some(settling.read.to_sql().into()),
        })
        .collect();
    let mut counts = count_long(connection, &asked).await?.into_iter();
    for (settling, row) in readers.values_mut().zip(rows) {
        let unread = match row.unread {
            LONG => counts.next().unwrap_or_default(),
            unread => unread,
        };
        let Settling {
            read,
            before,
            receipt,
        } = settling;
        // Who only got something has not thereby read what needs no reading.
        if before.has_read {
            let all_read_to = match row.first_unread {
                Some(seq) => seq_from(seq)?.saturating_sub(1),
                None => receipt.head_seq,
            };
            read.insert(1, all_read_to);
        }
        receipt.read = read.to_wire();
        receipt.unread = seq_from(unread)?;
    }
    Ok(())
}

/// Names the messages of others that were not covered before the batch and are now.
async fn name_covered(
    connection: &mut PgConnection,
    readers: &mut BTreeMap<Key, Settling<'_>>,
) -> Result<(), sqlx::Error> {
    let mut asked: Vec<(Uuid, String, bool, ReadSet)> = Vec::new();
    for (
        (id, user),
        Settling {
            read,
            before,
            receipt,
        },
    ) in readers.iter().filter(|(_, r)| r.before.news)
    {
        let mut delivered = ReadSet::default();
        delivered.insert(before.delivered_seq + 1, receipt.delivered_seq);
        for (reading, covered) in [(true, read.without(&before.read)), (false, delivered)] {
            if covered.bounds().is_some() {
                asked.push((id.uuid(), user.to_string(), reading, covered));
            }
        }
    }
    if asked.is_empty() {
        return Ok(());
    }
    let bounds = |covered: &ReadSet| covered.bounds().unwrap_or_default();
    let rows: Vec<CoveredRow> = sqlx::query_as(
        "SELECT a.conversation_id, a.user_id, a.reading, m.message_id, m.seq, m.sender_id
         FROM unnest($1::uuid[], $2::text[], $3::bool[], $4::text[], $5::int8[], $6::int8[])
              AS a (conversation_id, user_id, reading, covered, low, high)
         CROSS JOIN LATERAL
              (SELECT x.message_id, x.seq, x.sender_id FROM messages x
               WHERE x.conversation_id = a.conversation_id AND x.seq BETWEEN a.low AND a.high
                 AND a.covered::int8multirange @> x.seq AND x.sender_id <> a.user_id AND x.deleted_at IS NULL
               ORDER BY x.seq DESC LIMIT $7) AS m
         ORDER BY m.seq",
    )
    .bind(asked.iter().map(|row| row.0).collect::<Vec<_>>())
    .bind(asked.iter().map(|row| row.1.as_str()).collect::<Vec<_>>())
    .bind(asked.iter().map(|row| row.2).collect::<Vec<_>>())
    .bind(asked.iter().map(|row| row.3.to_sql()).collect::<Vec<_>>())
    .bind(
        asked
            .iter()
            .map(|row| seq_to(bounds(&row.3).0))
            .collect::<Vec<_>>(),
    )
    .bind(
        asked
            .iter()
            .map(|row| seq_to(bounds(&row.3).1))
            .collect::<Vec<_>>(),
    )
    .bind(MAX_COVERED)
    .fetch_all(connection)
    .await?;
    for CoveredRow {
        conversation_id,
        user_id,
        reading,
        message_id,
        seq,
        sender_id,
    } in rows
    {
        let user = UserId::parse(user_id).map_err(|_| corrupt("a user id"))?;
        let Some(settling) = readers.get_mut(&(ConversationId::from_uuid(conversation_id), user)) else {
            continue;
        };
        let message = v1::MessageRef {
            id: message_id.to_string(),
            seq: seq_from(seq)?,
            sender_id,
        };
        let receipt = &mut settling.receipt;
        if reading {
            receipt.read_now.push(message)
        } else {
            receipt.delivered_now.push(message)
        }
    }
    Ok(())
}

async fn store(
    connection: &mut PgConnection,
    readers: &BTreeMap<Key, Settling<'_>>,
    at: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let news: Vec<_> = readers
        .iter()
        .filter(|(_, settling)| settling.before.news)
        .collect();
    if news.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE participants p
         SET read_seqs = p.read_seqs + new.read_seqs::int8multirange,
             delivered_seq = greatest(p.delivered_seq, new.delivered_seq), receipts_version = new.receipts_version,
             receipts_at = $7, last_read_at = CASE WHEN new.has_read THEN $7 ELSE p.last_read_at END
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::int8[], $5::int8[], $6::bool[])
              AS new (conversation_id, user_id, read_seqs, delivered_seq, receipts_version, has_read)
         WHERE p.conversation_id = new.conversation_id AND p.user_id = new.user_id",
    )
    .bind(news.iter().map(|((id, _), _)| id.uuid()).collect::<Vec<_>>())
    .bind(news.iter().map(|((_, user), _)| user.as_str()).collect::<Vec<_>>())
    .bind(news.iter().map(|(_, settling)| settling.read.to_sql()).collect::<Vec<_>>())
    .bind(news.iter().map(|(_, settling)| seq_to(settling.receipt.delivered_seq)).collect::<Vec<_>>())
    .bind(news.iter().map(|(_, settling)| seq_to(settling.receipt.version)).collect::<Vec<_>>())
    .bind(news.iter().map(|(_, settling)| settling.before.has_read).collect::<Vec<_>>())
    .bind(at)
    .execute(connection)
    .await?;
    Ok(())
}

/// What of a conversation these of its participants have not read up to a seq.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn unread(
    connection: &mut PgConnection,
    conversation: ConversationId,
    head_seq: u64,
    users: &[String],
) -> Result<Vec<v1::UnreadCount>, sqlx::Error> {
    let mut rows: Vec<(String, i64)> = sqlx::query_as(concat!(
        "SELECT p.user_id, n.unread FROM unnest($2::text[]) AS asked (user_id)
         CROSS JOIN LATERAL (SELECT * FROM participants x WHERE x.conversation_id = $1
                             AND x.user_id = asked.user_id LIMIT 1) AS p
         CROSS JOIN ",
        unread_messages!("$3::int8"),
        " WHERE p.left_seq IS NULL"
    ))
    .bind(conversation.uuid())
    .bind(users)
    .bind(seq_to(head_seq))
    .fetch_all(&mut *connection)
    .await?;
    let counts = rows.iter_mut().map(|(user, unread)| {
        let count = LongCount {
            conversation: conversation.uuid(),
            user,
            head_seq: seq_to(head_seq),
            read: None,
        };
        (count, unread)
    });
    fill_long(connection, counts).await?;
    let count = |(user_id, unread)| {
        Ok(v1::UnreadCount {
            user_id,
            unread: seq_from(unread)?,
        })
    };
    rows.into_iter().map(count).collect()
}

/// Receipts of current participants that changed after a version of their conversation, oldest change first,
/// at most [`MAX_AFTER`] of each.
///
/// # Errors
/// Of the database.
pub async fn after(
    connection: &mut PgConnection,
    versions: &[(ConversationId, u64)],
) -> Result<HashMap<ConversationId, Vec<v1::ReceiptUpdated>>, sqlx::Error> {
    if versions.is_empty() {
        return Ok(HashMap::new());
    }
    let mut rows: Vec<ReceiptRow> = sqlx::query_as(concat!(
        "SELECT p.conversation_id, p.user_id, u.number, p.read_seqs::text AS read_seqs, p.delivered_seq,
                p.receipts_version, p.receipts_at, n.unread, c.head_seq
         FROM unnest($1::uuid[], $2::int8[]) AS asked (conversation_id, version)
         CROSS JOIN LATERAL
              (SELECT * FROM participants x
               WHERE x.conversation_id = asked.conversation_id AND x.receipts_version > asked.version
                 AND x.left_seq IS NULL
               ORDER BY x.receipts_version LIMIT $3) AS p
         JOIN conversations c ON c.conversation_id = asked.conversation_id
         JOIN users u ON u.user_id = p.user_id
         CROSS JOIN ",
        unread_messages!("c.head_seq", "c.last_message_seq"),
        " ORDER BY p.receipts_version, p.user_id"
    ))
    .bind(versions.iter().map(|(id, _)| id.uuid()).collect::<Vec<_>>())
    .bind(
        versions
            .iter()
            .map(|(_, version)| seq_to(*version))
            .collect::<Vec<_>>(),
    )
    .bind(MAX_AFTER as i64)
    .fetch_all(&mut *connection)
    .await?;
    let counts = rows.iter_mut().map(|row| {
        let count = LongCount {
            conversation: row.conversation_id,
            user: &row.user_id,
            head_seq: row.head_seq,
            read: Some(row.read_seqs.as_str().into()),
        };
        (count, &mut row.unread)
    });
    fill_long(connection, counts).await?;
    let mut receipts: HashMap<ConversationId, Vec<v1::ReceiptUpdated>> = HashMap::new();
    for row in rows {
        let ReceiptRow {
            conversation_id,
            user_id,
            number,
            read_seqs,
            delivered_seq,
            receipts_version,
            receipts_at,
            unread,
            head_seq,
        } = row;
        let read: ReadSet = read_seqs.parse().map_err(|_| corrupt("read_seqs"))?;
        let receipt = v1::ReceiptUpdated {
            user_id,
            read: read.to_wire(),
            version: seq_from(receipts_version)?,
            unread: seq_from(unread)?,
            head_seq: seq_from(head_seq)?,
            user_number: number,
            delivered_seq: seq_from(delivered_seq)?,
            at_ms: receipts_at.map(millis).unwrap_or_default(),
            read_now: Vec::new(),
            delivered_now: Vec::new(),
        };
        let id = ConversationId::from_uuid(conversation_id);
        receipts.entry(id).or_default().push(receipt);
    }
    Ok(receipts)
}
