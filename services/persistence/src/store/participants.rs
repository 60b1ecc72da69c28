//! Who belongs to conversations.

use std::collections::HashMap;

use parlance_proto::v1::{self, Role};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{corrupt, seq_from, seq_to, small};
use crate::ingest::state::Effects;
use crate::read_set::ReadSet;

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

/// The current participants of conversations with what they got and read, in the order of their ids.
///
/// # Errors
/// Of the database.
pub async fn of(
    connection: &mut PgConnection,
    conversations: &[Uuid],
) -> Result<HashMap<Uuid, Vec<v1::Participant>>, sqlx::Error> {
    let rows: Vec<ParticipantRow> = sqlx::query_as(
        "SELECT p.conversation_id, p.user_id, u.username, u.number, p.role, p.delivered_seq,
                p.read_seqs::text AS read_seqs
         FROM participants p JOIN users u USING (user_id)
         WHERE p.conversation_id = ANY($1) AND p.left_seq IS NULL
         ORDER BY p.conversation_id, p.user_id",
    )
    .bind(conversations)
    .fetch_all(connection)
    .await?;
    let mut all: HashMap<Uuid, Vec<v1::Participant>> = HashMap::new();
    for ParticipantRow {
        conversation_id,
        user_id,
        username,
        number,
        role,
        delivered_seq,
        read_seqs,
    } in rows
    {
        let read: ReadSet = read_seqs.parse().map_err(|_| corrupt("read_seqs"))?;
        let participant = v1::Participant {
            user_id,
            username,
            role: role.into(),
            number,
            delivered_seq: seq_from(delivered_seq)?,
            read: read.to_wire(),
            presence: None,
        };
        all.entry(conversation_id).or_default().push(participant);
    }
    Ok(all)
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
