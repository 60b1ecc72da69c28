//! Reading conversations as their participants see them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use chrono::{DateTime, Utc};
use parlance_proto::ConversationId;
use parlance_proto::v1;
use sqlx::PgConnection;
use uuid::Uuid;

use super::participants::{known_member_count, member_count};
use super::receipts::{LongCount, fill_long, unread_messages};
use super::{corrupt, messages, metadata_from, millis, participants, seq_from};
use crate::model::read_set::ReadSet;

/// The counters of the conversations $1; with the viewer $2, of those they belong to.
macro_rules! head_query {
    ($member_count:expr) => {
        concat!(
            "SELECT c.conversation_id, c.number, c.kind, c.title, c.head_seq, c.receipts_version, c.history_from,
                    c.deleted_at IS NOT NULL AS deleted, e.id AS epoch, ",
            $member_count,
            " AS member_count
             FROM conversations c CROSS JOIN epoch e
             WHERE c.conversation_id = ANY($1)
               AND ($2::text IS NULL OR EXISTS
                    (SELECT 1 FROM participants p
                     WHERE p.conversation_id = c.conversation_id AND p.user_id = $2 AND p.left_seq IS NULL))"
        )
    };
}

#[derive(sqlx::FromRow)]
struct ViewRow {
    viewer: String,
    conversation_id: Uuid,
    number: i64,
    kind: i16,
    title: String,
    created_by: String,
    head_seq: i64,
    last_message_seq: i64,
    /// Whether the viewer hid that message.
    last_hidden: bool,
    receipts_version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    unread: i64,
    epoch: Uuid,
    channel: i16,
    status: i16,
    metadata: String,
    delivered_seq: i64,
    open: bool,
    read_only: bool,
    /// `None` where they are to be counted.
    member_count: Option<i64>,
    username: String,
    user_number: i64,
    role: i16,
    read_seqs: String,
    muted: bool,
    /// `None` where only the viewer ends it.
    muted_until: Option<DateTime<Utc>>,
}

#[derive(sqlx::FromRow)]
struct BareRow {
    conversation_id: Uuid,
    number: i64,
    kind: i16,
    title: String,
    head_seq: i64,
    receipts_version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    created_by: String,
    channel: i16,
    status: i16,
    metadata: String,
    open: bool,
    read_only: bool,
}

#[derive(sqlx::FromRow)]
struct HeadRow {
    conversation_id: Uuid,
    number: i64,
    kind: i16,
    title: String,
    head_seq: i64,
    receipts_version: i64,
    history_from: i64,
    deleted: bool,
    epoch: Uuid,
    member_count: Option<i64>,
}

/// The counters of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Which.
    pub id: ConversationId,
    /// Its number.
    pub number: i64,
    /// Direct, group or journal.
    pub kind: i32,
    /// May be empty for direct.
    pub title: String,
    /// Seq of the latest change.
    pub seq: u64,
    /// What has a seq up to this belongs to an earlier life and is hidden.
    pub history_from: u64,
    /// Gone for all.
    pub deleted: bool,
    /// Version of the latest receipt.
    pub receipts_version: u64,
    /// See `Conversation.epoch`.
    pub epoch: String,
    /// Participants, where they were asked for.
    pub member_count: u64,
}

/// Where a page of a list begins: below this place in (updated_at, id).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Unix milliseconds.
    pub updated_at_ms: i64,
    /// Among equals.
    pub id: Uuid,
}

/// Conversations as several viewers see them.
#[derive(Debug, Default)]
pub struct Views {
    /// Each without what differs from viewer to viewer.
    pub conversations: HashMap<ConversationId, v1::Conversation>,
    /// What does, by (conversation, viewer); nothing where the viewer does not belong to the conversation.
    pub viewers: HashMap<(ConversationId, String), Viewed>,
}

/// What of a conversation is its viewer's own.
#[derive(Debug, Clone, PartialEq)]
pub struct Viewed {
    /// Messages of others the viewer has not read.
    pub unread: u64,
    /// Latest seq delivered to the viewer.
    pub delivered_seq: u64,
    /// The latest message that the viewer is shown.
    pub last_message: Option<v1::Message>,
    /// The viewer as participant.
    pub participant: v1::Participant,
    /// How the viewer muted it, if they did.
    pub mute: Option<v1::Mute>,
}

impl Views {
    /// A conversation as one of the viewers sees it, all of it.
    pub fn whole(&self, id: ConversationId, viewer: &str) -> Option<v1::Conversation> {
        let Viewed {
            unread,
            delivered_seq,
            last_message,
            participant,
            mute,
        } = self.viewers.get(&(id, viewer.to_owned()))?.clone();
        let mut whole = v1::Conversation {
            unread,
            delivered_seq,
            last_message,
            mute,
            ..self.conversations.get(&id)?.clone()
        };
        whole.list_viewer(participant);
        Some(whole)
    }
}

/// Conversations as their viewers see them, by (conversation, viewer); where the viewer does not belong to
/// the conversation, nothing.
///
/// # Errors
/// [`sqlx::Error`] if a query fails.
pub async fn views(
    connection: &mut PgConnection,
    asked: &[(ConversationId, String)],
    inline: usize,
) -> Result<HashMap<(ConversationId, String), v1::Conversation>, sqlx::Error> {
    let views = shared_views(connection, asked, inline).await?;
    let whole = |key: &(ConversationId, String)| Some((key.clone(), views.whole(key.0, &key.1)?));
    Ok(views.viewers.keys().filter_map(whole).collect())
}

/// The same, what many viewers see of one conversation only once, with `inline` participants at most: where these are not
/// all, a viewer may be none of them.
///
/// # Errors
/// [`sqlx::Error`] if a query fails.
pub async fn shared_views(
    connection: &mut PgConnection,
    asked: &[(ConversationId, String)],
    inline: usize,
) -> Result<Views, sqlx::Error> {
    if asked.is_empty() {
        return Ok(Views::default());
    }
    let mut rows = view_rows(connection, asked).await?;
    let counts = rows.iter_mut().map(|row| {
        let count = LongCount {
            conversation: row.conversation_id,
            user: &row.viewer,
            head_seq: row.head_seq,
            read: None,
        };
        (count, &mut row.unread)
    });
    fill_long(connection, counts).await?;
    let mut ids: Vec<Uuid> = rows.iter().map(|row| row.conversation_id).collect();
    ids.sort_unstable();
    ids.dedup();
    let limit = i64::try_from(inline).unwrap_or(i64::MAX);
    let mut participants = participants::of(connection, &ids, limit).await?;
    // The participants are of a later statement, which may find another one more or less.
    let mut counts: HashMap<Uuid, u64> = HashMap::with_capacity(ids.len());
    for row in &rows {
        let listed = participants.get(&row.conversation_id).map_or(0, Vec::len);
        let known = row.member_count.map(seq_from).transpose()?;
        if let Some(count) = known.or((listed < inline).then_some(listed as u64)) {
            counts.insert(row.conversation_id, count);
        }
    }
    ids.retain(|id| !counts.contains_key(id));
    counts.extend(participants::count(connection, &ids).await?);
    let last = last_messages(connection, &mut rows).await?;
    let mut views = Views::default();
    for mut row in rows {
        let id = ConversationId::from_uuid(row.conversation_id);
        let place = (row.conversation_id.to_string(), seq_from(row.last_message_seq)?);
        let viewed = Viewed {
            unread: seq_from(row.unread)?,
            delivered_seq: seq_from(row.delivered_seq)?,
            last_message: last.get(&place).cloned(),
            participant: row.participant()?,
            mute: row.mute(),
        };
        let viewer = std::mem::take(&mut row.viewer);
        views.viewers.insert((id, viewer), viewed);
        // Rows of one statement: what they say of the conversation is the same.
        if let Entry::Vacant(vacant) = views.conversations.entry(id) {
            let members = participants.remove(&row.conversation_id).unwrap_or_default();
            let count = counts.get(&row.conversation_id).copied().unwrap_or_default();
            vacant.insert(shared(row, members, count)?);
        }
    }
    Ok(views)
}

/// One row for each viewer that belongs to the conversation; unread counts over long stretches are left to be filled in.
async fn view_rows(
    connection: &mut PgConnection,
    asked: &[(ConversationId, String)],
) -> Result<Vec<ViewRow>, sqlx::Error> {
    // Each partitioned table that is named costs its partitions to be opened, however few rows are read: what is needed
    // for few is asked for those.
    sqlx::query_as(concat!(
        "SELECT p.user_id AS viewer, c.conversation_id, c.number, c.kind, c.title, c.created_by, c.head_seq,
                c.last_message_seq, c.receipts_version, c.created_at, c.updated_at, n.unread, e.id AS epoch,
                EXISTS (SELECT FROM hidden_messages h
                        WHERE h.conversation_id = c.conversation_id AND h.user_id = p.user_id
                          AND h.message_seq = c.last_message_seq) AS last_hidden,
                c.channel, c.status, c.metadata::text AS metadata, p.delivered_seq, c.open, c.read_only, p.role,
                p.read_seqs::text AS read_seqs, u.username, u.number AS user_number,
                coalesce(p.muted_until > now(), false) AS muted,
                CASE WHEN isfinite(p.muted_until) THEN p.muted_until END AS muted_until, ",
        known_member_count!(),
        " AS member_count
         FROM unnest($1::uuid[], $2::text[]) AS asked (conversation_id, user_id)
         CROSS JOIN LATERAL (SELECT * FROM participants x WHERE x.conversation_id = asked.conversation_id
                             AND x.user_id = asked.user_id LIMIT 1) AS p
         JOIN conversations c ON c.conversation_id = asked.conversation_id
         JOIN users u ON u.user_id = asked.user_id
         CROSS JOIN epoch e
         CROSS JOIN ",
        unread_messages!("c.head_seq", "c.last_message_seq"),
        " WHERE p.left_seq IS NULL"
    ))
    .bind(asked.iter().map(|(id, _)| id.uuid()).collect::<Vec<_>>())
    .bind(
        asked
            .iter()
            .map(|(_, viewer)| viewer.as_str())
            .collect::<Vec<_>>(),
    )
    .fetch_all(connection)
    .await
}

/// The latest messages that the viewers are shown, by conversation and seq. Where a viewer hid the latest one, or it is
/// deleted, the row names the one that is shown instead.
async fn last_messages(
    connection: &mut PgConnection,
    rows: &mut [ViewRow],
) -> Result<HashMap<(String, u64), v1::Message>, sqlx::Error> {
    let place = |row: &ViewRow| (row.conversation_id, row.last_message_seq);
    let mut last = messages_at(connection, rows.iter().map(place)).await?;
    let mut replaced: Vec<&mut ViewRow> = Vec::new();
    for row in rows.iter_mut().filter(|row| row.last_message_seq > 0) {
        let place = (row.conversation_id.to_string(), seq_from(row.last_message_seq)?);
        if row.last_hidden
            || last
                .get(&place)
                .is_some_and(|message| message.deleted_at_ms.is_some())
        {
            replaced.push(row);
        }
    }
    if replaced.is_empty() {
        return Ok(last);
    }
    let shown: Vec<i64> = sqlx::query_scalar(
        "SELECT coalesce((SELECT m.seq FROM messages m
                          WHERE m.conversation_id = c.conversation_id AND m.seq > c.history_from
                            AND m.deleted_at IS NULL
                            AND NOT EXISTS (SELECT FROM hidden_messages h
                                            WHERE h.conversation_id = c.conversation_id
                                              AND h.user_id = asked.user_id AND h.message_seq = m.seq)
                          ORDER BY m.seq DESC LIMIT 1), 0)
         FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS asked (conversation_id, user_id, place)
         LEFT JOIN conversations c ON c.conversation_id = asked.conversation_id
         ORDER BY asked.place",
    )
    .bind(replaced.iter().map(|row| row.conversation_id).collect::<Vec<_>>())
    .bind(replaced.iter().map(|row| row.viewer.as_str()).collect::<Vec<_>>())
    .fetch_all(&mut *connection)
    .await?;
    for (row, seq) in replaced.iter_mut().zip(shown) {
        row.last_message_seq = seq;
    }
    last.extend(messages_at(connection, replaced.iter().map(|row| place(row))).await?);
    Ok(last)
}

async fn messages_at(
    connection: &mut PgConnection,
    places: impl Iterator<Item = (Uuid, i64)>,
) -> Result<HashMap<(String, u64), v1::Message>, sqlx::Error> {
    let mut places: Vec<(Uuid, i64)> = places.filter(|&(_, seq)| seq > 0).collect();
    places.sort_unstable();
    places.dedup();
    if places.is_empty() {
        return Ok(HashMap::new());
    }
    let messages = messages::by_seq(connection, &places).await?;
    let place = |message: v1::Message| ((message.conversation_id.clone(), message.seq), message);
    Ok(messages.into_iter().map(place).collect())
}

impl ViewRow {
    fn mute(&self) -> Option<v1::Mute> {
        let mute = || v1::Mute {
            until_ms: self.muted_until.map(millis),
        };
        self.muted.then(mute)
    }

    /// The viewer.
    fn participant(&self) -> Result<v1::Participant, sqlx::Error> {
        let read: ReadSet = self.read_seqs.parse().map_err(|_| corrupt("read_seqs"))?;
        Ok(v1::Participant {
            user_id: self.viewer.clone(),
            username: self.username.clone(),
            role: self.role.into(),
            number: self.user_number,
            delivered_seq: seq_from(self.delivered_seq)?,
            read: read.to_wire(),
            presence: None,
        })
    }
}

/// What of a row does not depend on its viewer.
fn shared(
    row: ViewRow,
    participants: Vec<v1::Participant>,
    counted: u64,
) -> Result<v1::Conversation, sqlx::Error> {
    let ViewRow {
        viewer: _,
        conversation_id,
        number,
        kind,
        title,
        created_by,
        head_seq,
        last_message_seq: _,
        last_hidden: _,
        receipts_version,
        created_at,
        updated_at,
        unread: _,
        epoch,
        channel,
        status,
        metadata,
        delivered_seq: _,
        open,
        read_only,
        member_count: _,
        username: _,
        user_number: _,
        role: _,
        read_seqs: _,
        muted: _,
        muted_until: _,
    } = row;
    let participants_complete = participants.len() as u64 >= counted;
    let participant_count = counted.max(participants.len() as u64);
    Ok(v1::Conversation {
        id: conversation_id.to_string(),
        number,
        kind: kind.into(),
        title,
        participants,
        head_seq: seq_from(head_seq)?,
        epoch: epoch.to_string(),
        receipts_version: seq_from(receipts_version)?,
        created_at_ms: millis(created_at),
        updated_at_ms: millis(updated_at),
        created_by,
        channel: channel.into(),
        status: status.into(),
        metadata_json: metadata_from(metadata),
        open,
        read_only,
        participant_count,
        participants_complete,
        ..v1::Conversation::default()
    })
}

/// The latest message of a conversation that is not deleted.
///
/// # Errors
/// [`sqlx::Error`] if a query fails.
pub async fn last_message(
    connection: &mut PgConnection,
    id: ConversationId,
) -> Result<Option<v1::Message>, sqlx::Error> {
    let seq: Option<i64> = sqlx::query_scalar(
        "SELECT m.seq FROM messages m JOIN conversations c USING (conversation_id)
         WHERE m.conversation_id = $1 AND m.seq > c.history_from AND m.deleted_at IS NULL
         ORDER BY m.seq DESC LIMIT 1",
    )
    .bind(id.uuid())
    .fetch_optional(&mut *connection)
    .await?;
    let Some(seq) = seq else {
        return Ok(None);
    };
    Ok(messages::by_seq(connection, &[(id.uuid(), seq)]).await?.pop())
}

/// Conversations without participants, unread and last message.
///
/// # Errors
/// Of the database.
pub async fn bare(
    connection: &mut PgConnection,
    ids: impl Iterator<Item = ConversationId>,
    epoch: &str,
) -> Result<HashMap<ConversationId, v1::Conversation>, sqlx::Error> {
    let rows: Vec<BareRow> = sqlx::query_as(
        "SELECT conversation_id, number, kind, title, head_seq, receipts_version, created_at, updated_at, created_by,
                channel, status, metadata::text AS metadata, open, read_only
         FROM conversations WHERE conversation_id = ANY($1)",
    )
    .bind(ids.map(|id| id.uuid()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let conversation = v1::Conversation {
                id: row.conversation_id.to_string(),
                number: row.number,
                kind: row.kind.into(),
                title: row.title,
                head_seq: seq_from(row.head_seq)?,
                epoch: epoch.to_owned(),
                receipts_version: seq_from(row.receipts_version)?,
                created_at_ms: millis(row.created_at),
                updated_at_ms: millis(row.updated_at),
                created_by: row.created_by,
                channel: row.channel.into(),
                status: row.status.into(),
                metadata_json: metadata_from(row.metadata),
                open: row.open,
                read_only: row.read_only,
                ..Default::default()
            };
            Ok((ConversationId::from_uuid(row.conversation_id), conversation))
        })
        .collect()
}

/// Which of a user's conversations a list shows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter {
    /// Their journals, or everything else.
    pub journals: bool,
    /// Only those with this status, as stored.
    pub status: Option<i16>,
    /// Only those of this channel, as stored.
    pub channel: Option<i16>,
}

/// A page of a user's conversations, latest first.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn page(
    connection: &mut PgConnection,
    user: &str,
    filter: Filter,
    below: Option<Place>,
    limit: i64,
) -> Result<Vec<ConversationId>, sqlx::Error> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "SELECT c.conversation_id
         FROM participants p JOIN conversations c USING (conversation_id)
         WHERE p.user_id = $1 AND p.left_seq IS NULL AND (c.kind = 3) = $5
           AND ($6::int2 IS NULL OR c.status = $6) AND ($7::int2 IS NULL OR c.channel = $7)
           AND ($2::timestamptz IS NULL OR (c.updated_at, c.conversation_id) < ($2, $3))
         ORDER BY c.updated_at DESC, c.conversation_id DESC LIMIT $4",
    )
    .bind(user)
    .bind(below.map(|place| super::from_millis(place.updated_at_ms)))
    .bind(below.map(|place| place.id))
    .bind(limit)
    .bind(filter.journals)
    .bind(filter.status)
    .bind(filter.channel)
    .fetch_all(connection)
    .await?;
    Ok(ids.into_iter().map(ConversationId::from_uuid).collect())
}

/// The counters of those conversations that exist or were deleted; with a viewer, of those they belong to.
///
/// # Errors
/// Of the database.
pub async fn heads(
    connection: &mut PgConnection,
    conversations: &[ConversationId],
    viewer: Option<&str>,
) -> Result<Vec<Head>, sqlx::Error> {
    read_heads(connection, conversations, viewer, head_query!("NULL::int8")).await
}

/// The same with the number of participants as of the head.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn counted_heads(
    connection: &mut PgConnection,
    conversations: &[ConversationId],
    viewer: Option<&str>,
) -> Result<Vec<Head>, sqlx::Error> {
    read_heads(connection, conversations, viewer, head_query!(member_count!())).await
}

async fn read_heads(
    connection: &mut PgConnection,
    conversations: &[ConversationId],
    viewer: Option<&str>,
    query: &'static str,
) -> Result<Vec<Head>, sqlx::Error> {
    let rows: Vec<HeadRow> = sqlx::query_as(query)
        .bind(conversations.iter().map(|id| id.uuid()).collect::<Vec<_>>())
        .bind(viewer)
        .fetch_all(connection)
        .await?;
    rows.into_iter()
        .map(|row| {
            let HeadRow {
                conversation_id,
                number,
                kind,
                title,
                head_seq,
                receipts_version,
                history_from,
                deleted,
                epoch,
                member_count,
            } = row;
            Ok(Head {
                member_count: seq_from(member_count.unwrap_or_default())?,
                id: ConversationId::from_uuid(conversation_id),
                number,
                kind: kind.into(),
                title,
                history_from: seq_from(history_from)?,
                deleted,
                seq: seq_from(head_seq)?,
                receipts_version: seq_from(receipts_version)?,
                epoch: epoch.to_string(),
            })
        })
        .collect()
}

/// The conversation with this number.
///
/// # Errors
/// Of the database.
pub async fn by_number(
    connection: &mut PgConnection,
    number: i64,
) -> Result<Option<ConversationId>, sqlx::Error> {
    let id: Option<Uuid> =
        sqlx::query_scalar("SELECT conversation_id FROM conversation_numbers WHERE number = $1")
            .bind(number)
            .fetch_optional(connection)
            .await?;
    Ok(id.map(ConversationId::from_uuid))
}
