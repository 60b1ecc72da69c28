//! Marks on messages.

use std::collections::{HashMap, HashSet};

use parlance_proto::v1;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{corrupt, from_millis, seq_from, seq_to};
use crate::model::emoji::bare;
use crate::model::state::Effects;

/// Fills in the marks of messages, oldest first, each emoji in the form that came first.
///
/// # Errors
/// Of the database.
pub(super) async fn attach(
    connection: &mut PgConnection,
    messages: &mut [v1::Message],
) -> Result<(), sqlx::Error> {
    let mut places: HashMap<(Uuid, u64), usize> = HashMap::new();
    for (index, message) in messages
        .iter()
        .enumerate()
        .filter(|(_, message)| message.deleted_at_ms.is_none())
    {
        let conversation =
            Uuid::try_parse(&message.conversation_id).map_err(|_| corrupt("a conversation id"))?;
        places.insert((conversation, message.seq), index);
    }
    if places.is_empty() {
        return Ok(());
    }
    let (conversations, seqs): (Vec<Uuid>, Vec<i64>) =
        places.keys().map(|&(id, seq)| (id, seq_to(seq))).unzip();
    let rows: Vec<(Uuid, i64, String, String)> = sqlx::query_as(
        "SELECT r.conversation_id, r.message_seq, r.user_id, r.emoji
         FROM unnest($1::uuid[], $2::int8[]) AS asked (conversation_id, message_seq)
         CROSS JOIN LATERAL (SELECT * FROM reactions x WHERE x.conversation_id = asked.conversation_id
                             AND x.message_seq = asked.message_seq ORDER BY x.seq LIMIT 1000) AS r
         ORDER BY r.seq",
    )
    .bind(conversations)
    .bind(seqs)
    .fetch_all(connection)
    .await?;
    let mut forms: HashMap<(usize, String), String> = HashMap::new();
    let mut seen: HashSet<(usize, String, String)> = HashSet::new();
    for (conversation, seq, user_id, emoji) in rows {
        let Some(&index) = places.get(&(conversation, seq_from(seq)?)) else {
            continue;
        };
        // Before forms were told apart by their first one, a user could have set several.
        let bare = bare(&emoji);
        if seen.insert((index, user_id.clone(), bare.clone()))
            && let Some(message) = messages.get_mut(index)
        {
            let emoji = forms.entry((index, bare)).or_insert(emoji).clone();
            message.reactions.push(v1::Reaction { user_id, emoji });
        }
    }
    Ok(())
}

/// Sets and takes away marks; an emoji goes in all of its forms.
///
/// # Errors
/// Of the database.
pub(super) async fn write(connection: &mut PgConnection, effects: &Effects) -> Result<(), sqlx::Error> {
    let gone: Vec<_> = effects
        .reactions
        .iter()
        .filter(|(_, mark)| mark.is_none())
        .map(|(key, _)| key)
        .collect();
    if !gone.is_empty() {
        sqlx::query(
            "DELETE FROM reactions r
             USING unnest($1::uuid[], $2::int8[], $3::text[], $4::text[])
                   AS gone (conversation_id, message_seq, user_id, emoji)
             WHERE r.conversation_id = gone.conversation_id AND r.message_seq = gone.message_seq
               AND r.user_id = gone.user_id AND replace(r.emoji, chr(65039), '') = replace(gone.emoji, chr(65039), '')",
        )
        .bind(gone.iter().map(|key| key.0.uuid()).collect::<Vec<_>>())
        .bind(gone.iter().map(|key| seq_to(key.1)).collect::<Vec<_>>())
        .bind(gone.iter().map(|key| key.2.as_str()).collect::<Vec<_>>())
        .bind(gone.iter().map(|key| key.3.as_str()).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    }
    let set: Vec<_> = effects
        .reactions
        .iter()
        .filter_map(|(key, mark)| Some((key, (*mark)?)))
        .collect();
    if !set.is_empty() {
        // Taken away and set again within the batch, the mark may still be there.
        sqlx::query(
            "INSERT INTO reactions (conversation_id, message_seq, user_id, emoji, seq, at)
             SELECT conversation_id, message_seq, user_id, emoji, seq, at
             FROM unnest($1::uuid[], $2::int8[], $3::text[], $4::text[], $5::int8[], $6::timestamptz[])
                  AS new (conversation_id, message_seq, user_id, emoji, seq, at)
             ON CONFLICT (conversation_id, message_seq, user_id, emoji)
             DO UPDATE SET seq = excluded.seq, at = excluded.at",
        )
        .bind(set.iter().map(|(key, _)| key.0.uuid()).collect::<Vec<_>>())
        .bind(set.iter().map(|(key, _)| seq_to(key.1)).collect::<Vec<_>>())
        .bind(set.iter().map(|(key, _)| key.2.as_str()).collect::<Vec<_>>())
        .bind(set.iter().map(|(key, _)| key.3.as_str()).collect::<Vec<_>>())
        .bind(set.iter().map(|(_, mark)| seq_to(mark.0)).collect::<Vec<_>>())
        .bind(
            set.iter()
                .map(|(_, mark)| from_millis(mark.1))
                .collect::<Vec<_>>(),
        )
        .execute(connection)
        .await?;
    }
    Ok(())
}
