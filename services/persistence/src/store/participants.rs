//! Who belongs to conversations.

use std::collections::HashMap;

use parlance_proto::v1::{self, Role};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{corrupt, seq_from, seq_to, small};
use crate::model::read_set::ReadSet;
use crate::model::state::Effects;

#[derive(sqlx::FromRow)]
struct ParticipantRow {
    conversation_id: Uuid,
    user_id: String,
    username: String,
    number: i64,
    role: i16,
    delivered_seq: i64,
    read_seqs: String,
}

impl TryFrom<ParticipantRow> for v1::Participant {
    type Error = sqlx::Error;

    fn try_from(row: ParticipantRow) -> Result<Self, sqlx::Error> {
        let ParticipantRow {
            conversation_id: _,
            user_id,
            username,
            number,
            role,
            delivered_seq,
            read_seqs,
        } = row;
        let read: ReadSet = read_seqs.parse().map_err(|_| corrupt("read_seqs"))?;
        Ok(Self {
            user_id,
            username,
            role: role.into(),
            number,
            delivered_seq: seq_from(delivered_seq)?,
            read: read.to_wire(),
            presence: None,
        })
    }
}

/// The number of participants of the conversation `c` as of its head: kept where it was counted as of that head, else
/// counted. A direct conversation that begins again has its participants back without a change.
macro_rules! member_count {
    () => {
        "CASE WHEN c.kind <> 1 AND c.members_at = c.head_seq THEN c.member_count
              ELSE (SELECT count(*) FROM participants x
                    WHERE x.conversation_id = c.conversation_id AND x.left_seq IS NULL)
         END"
    };
}
pub(super) use member_count;

/// The same where it is known without counting, else NULL.
macro_rules! known_member_count {
    () => {
        "CASE WHEN c.kind <> 1 AND c.members_at = c.head_seq THEN c.member_count END"
    };
}
pub(super) use known_member_count;

/// Characters that what the participants of a conversation have read may take where they are listed together, about as many
/// as bytes in an answer. Healthy readers need twenty each.
const MOST_READ: i64 = 100_000;

/// The first current participants of conversations, each conversation named once: by user id, at most `limit` of each,
/// with what they got and, as far as `MOST_READ` goes in their order, read.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn of(
    connection: &mut PgConnection,
    conversations: &[Uuid],
    limit: i64,
) -> Result<HashMap<Uuid, Vec<v1::Participant>>, sqlx::Error> {
    let rows: Vec<ParticipantRow> = sqlx::query_as(
        "SELECT p.conversation_id, p.user_id, u.username, u.number, p.role, p.delivered_seq,
                CASE WHEN sum(length(p.read_seqs::text)) OVER (PARTITION BY p.conversation_id ORDER BY p.user_id) <= $3
                     THEN p.read_seqs::text ELSE '{}' END AS read_seqs
         FROM unnest($1::uuid[]) AS asked (conversation_id)
         CROSS JOIN LATERAL (SELECT * FROM participants x
                             WHERE x.conversation_id = asked.conversation_id AND x.left_seq IS NULL
                             ORDER BY x.user_id LIMIT $2) AS p
         JOIN users u ON u.user_id = p.user_id
         ORDER BY p.conversation_id, p.user_id",
    )
    .bind(conversations)
    .bind(limit)
    .bind(MOST_READ)
    .fetch_all(connection)
    .await?;
    let mut all: HashMap<Uuid, Vec<v1::Participant>> = HashMap::new();
    for row in rows {
        all.entry(row.conversation_id).or_default().push(row.try_into()?);
    }
    Ok(all)
}

/// How many current participants these conversations have.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn count(
    connection: &mut PgConnection,
    conversations: &[Uuid],
) -> Result<HashMap<Uuid, u64>, sqlx::Error> {
    if conversations.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<(Uuid, i64)> = sqlx::query_as(
        "SELECT asked.id, (SELECT count(*) FROM participants x
                           WHERE x.conversation_id = asked.id AND x.left_seq IS NULL)
         FROM unnest($1::uuid[]) AS asked (id)",
    )
    .bind(conversations)
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(id, count)| Ok((id, seq_from(count)?)))
        .collect()
}

/// At most `limit` current participants of a conversation with greater ids than `after`, by ascending id.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn page(
    connection: &mut PgConnection,
    conversation: Uuid,
    after: &str,
    limit: i64,
) -> Result<Vec<v1::Participant>, sqlx::Error> {
    let rows: Vec<ParticipantRow> = sqlx::query_as(
        "SELECT p.conversation_id, p.user_id, u.username, u.number, p.role, p.delivered_seq,
                p.read_seqs::text AS read_seqs
         FROM (SELECT * FROM participants x
               WHERE x.conversation_id = $1 AND x.left_seq IS NULL AND x.user_id > $2
               ORDER BY x.user_id LIMIT $3) AS p
         JOIN users u ON u.user_id = p.user_id
         ORDER BY p.user_id",
    )
    .bind(conversation)
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Those of these users who are current participants of the conversations named beside them.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn among(
    connection: &mut PgConnection,
    names: &[(Uuid, &str)],
) -> Result<HashMap<(Uuid, String), v1::Participant>, sqlx::Error> {
    let (conversations, users): (Vec<Uuid>, Vec<&str>) = names.iter().copied().unzip();
    let rows: Vec<ParticipantRow> = sqlx::query_as(
        "SELECT p.conversation_id, p.user_id, u.username, u.number, p.role, p.delivered_seq,
                p.read_seqs::text AS read_seqs
         FROM unnest($1::uuid[], $2::text[]) AS asked (conversation_id, user_id)
         CROSS JOIN LATERAL (SELECT * FROM participants x WHERE x.conversation_id = asked.conversation_id
                             AND x.user_id = asked.user_id LIMIT 1) AS p
         JOIN users u ON u.user_id = asked.user_id
         WHERE p.left_seq IS NULL",
    )
    .bind(conversations)
    .bind(users)
    .fetch_all(connection)
    .await?;
    let found = |row: ParticipantRow| {
        let key = (row.conversation_id, row.user_id.clone());
        Ok((key, row.try_into()?))
    };
    rows.into_iter().map(found).collect()
}

/// Writes who came, who is something else now, and who is gone, in this order.
///
/// # Errors
/// Of the database.
pub(super) async fn write(connection: &mut PgConnection, effects: &Effects) -> Result<(), sqlx::Error> {
    if !effects.joined.is_empty() {
        join(connection, effects).await?;
    }
    if !effects.roles.is_empty() {
        let roles = &effects.roles;
        sqlx::query(
            "UPDATE participants p SET role = new.role
             FROM unnest($1::uuid[], $2::text[], $3::int2[]) AS new (conversation_id, user_id, role)
             WHERE p.conversation_id = new.conversation_id AND p.user_id = new.user_id",
        )
        .bind(roles.keys().map(|(id, _)| id.uuid()).collect::<Vec<_>>())
        .bind(roles.keys().map(|(_, user)| user.as_str()).collect::<Vec<_>>())
        .bind(roles.values().map(|&role| small(role)).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    }
    if !effects.left.is_empty() {
        let left = &effects.left;
        sqlx::query(
            "UPDATE participants p SET left_seq = new.left_seq, left_at = now()
             FROM unnest($1::uuid[], $2::text[], $3::int8[]) AS new (conversation_id, user_id, left_seq)
             WHERE p.conversation_id = new.conversation_id AND p.user_id = new.user_id",
        )
        .bind(left.keys().map(|(id, _)| id.uuid()).collect::<Vec<_>>())
        .bind(left.keys().map(|(_, user)| user.as_str()).collect::<Vec<_>>())
        .bind(left.values().map(|&seq| seq_to(seq)).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// Inserts newcomers and brings back those who were there before. Nothing from before is unread to them.
async fn join(connection: &mut PgConnection, effects: &Effects) -> Result<(), sqlx::Error> {
    let joined = &effects.joined;
    sqlx::query(
        "INSERT INTO participants AS p (conversation_id, user_id, role, joined_seq, read_seqs, delivered_seq)
         SELECT conversation_id, user_id, role, joined_seq,
                CASE WHEN joined_seq > 0 THEN int8multirange(int8range(1, joined_seq, '[]')) ELSE '{}' END, joined_seq
         FROM unnest($1::uuid[], $2::text[], $3::int2[], $4::int8[])
              AS new (conversation_id, user_id, role, joined_seq)
         ON CONFLICT (conversation_id, user_id) DO UPDATE
         SET role = excluded.role, joined_seq = excluded.joined_seq, left_seq = NULL,
             read_seqs = p.read_seqs + excluded.read_seqs,
             delivered_seq = greatest(p.delivered_seq, excluded.delivered_seq)",
    )
    .bind(joined.keys().map(|(id, _)| id.uuid()).collect::<Vec<_>>())
    .bind(joined.keys().map(|(_, user)| user.as_str()).collect::<Vec<_>>())
    .bind(joined.values().map(|&(role, _)| small(role)).collect::<Vec<_>>())
    .bind(joined.values().map(|&(_, seq)| seq_to(seq)).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// The role of a stored number.
///
/// # Errors
/// There is none.
pub(super) fn role_from(stored: i16) -> Result<Role, sqlx::Error> {
    Role::try_from(i32::from(stored)).map_err(|_| corrupt("a participant's role"))
}
