//! Reading the log of a conversation: messages and changes, merged by seq.

use std::collections::{BTreeSet, HashMap};

use parlance_proto::ConversationId;
use parlance_proto::v1;
use sqlx::PgConnection;
use uuid::Uuid;

use super::messages::{MessageRow, message_columns};
use super::stretch::{self, MOST, Stretch};
use super::{changes, conversations, corrupt, hidden, journals, messages, seq_to, threads, users};
use crate::model::events::{self, EventParts};
use crate::model::state::{Change, ChangeKind};

/// What the events of stretches are joined from; messages and versions by their conversation.
struct Joined {
    messages: HashMap<(ConversationId, u64), v1::Message>,
    threads: HashMap<Uuid, v1::Thread>,
    conversations: HashMap<ConversationId, v1::Conversation>,
    journal: HashMap<(ConversationId, u64), v1::JournalEdited>,
}

/// The events of these stretches, ascending by seq within each conversation. A message, a thread and the
/// conversation show their present state. What the viewer hid keeps its place, but not its content.
///
/// # Errors
/// Of the database.
pub async fn of(
    connection: &mut PgConnection,
    viewer: Option<&str>,
    epoch: &str,
    stretches: &[Stretch],
) -> Result<HashMap<ConversationId, Vec<v1::Event>>, sqlx::Error> {
    if stretches.is_empty() {
        return Ok(HashMap::new());
    }
    let (conversations, after, through) = stretch::columns(stretches);
    let created: Vec<MessageRow> = sqlx::query_as(concat!(
        "SELECT ",
        message_columns!(),
        " FROM unnest($1::uuid[], $2::int8[], $3::int8[]) AS s (conversation_id, after, through)
          CROSS JOIN LATERAL
               (SELECT * FROM messages x
                WHERE x.conversation_id = s.conversation_id AND x.seq > s.after AND x.seq <= s.through
                ORDER BY x.seq LIMIT $4) AS m
          JOIN conversations c ON c.conversation_id = m.conversation_id
          LEFT JOIN users u ON u.user_id = m.sender_id"
    ))
    .bind(conversations)
    .bind(after)
    .bind(through)
    .bind(MOST)
    .fetch_all(&mut *connection)
    .await?;
    let created = messages::whole(connection, created).await?;
    let changed = changes::of(connection, stretches).await?;
    let joined = Joined::read(connection, epoch, &changed, stretches).await?;
    let mut events: Vec<v1::Event> = created
        .into_iter()
        .map(|message| events::created(message, epoch))
        .collect();
    for (id, change) in &changed {
        let event = events::changed(*id, epoch, change, joined.parts(*id, change));
        events.push(event.ok_or_else(|| corrupt("a change without what it changed"))?);
    }
    events.sort_unstable_by_key(|event| event.seq);
    users::name(connection, events.iter_mut().flat_map(events::unnamed).collect()).await?;
    if let Some(viewer) = viewer {
        hide(connection, viewer, &mut events).await?;
    }
    let mut logs: HashMap<ConversationId, Vec<v1::Event>> = HashMap::new();
    for event in events {
        let id = event
            .conversation_id
            .parse()
            .map_err(|_| corrupt("a conversation id"))?;
        logs.entry(id).or_default().push(event);
    }
    Ok(logs)
}

impl Joined {
    async fn read(
        connection: &mut PgConnection,
        epoch: &str,
        changed: &[(ConversationId, Change)],
        stretches: &[Stretch],
    ) -> Result<Self, sqlx::Error> {
        let of_kind =
            |kinds: &'static [ChangeKind]| changed.iter().filter(|(_, change)| kinds.contains(&change.kind));
        let mut joined = Self {
            messages: HashMap::new(),
            threads: HashMap::new(),
            conversations: HashMap::new(),
            journal: HashMap::new(),
        };
        let mut places: Vec<(Uuid, i64)> = of_kind(&[
            ChangeKind::Edited,
            ChangeKind::Deleted,
            ChangeKind::Reaction,
            ChangeKind::Finished,
        ])
        .map(|(id, change)| (id.uuid(), seq_to(change.target_seq)))
        .collect();
        places.sort_unstable();
        places.dedup();
        if !places.is_empty() {
            for message in messages::by_seq(connection, &places).await? {
                let id = message
                    .conversation_id
                    .parse()
                    .map_err(|_| corrupt("a conversation id"))?;
                joined.messages.insert((id, message.seq), message);
            }
        }
        let names: Vec<(Uuid, Uuid)> = of_kind(&[ChangeKind::ThreadCreated])
            .filter_map(|(id, change)| Some((id.uuid(), Uuid::from_slice(&change.payload).ok()?)))
            .collect();
        if !names.is_empty() {
            for (_, thread) in threads::by_id(connection, &names).await? {
                joined
                    .threads
                    .insert(Uuid::try_parse(&thread.id).unwrap_or_default(), thread);
            }
        }
        let updated: BTreeSet<ConversationId> = of_kind(&[ChangeKind::Updated]).map(|(id, _)| *id).collect();
        if !updated.is_empty() {
            joined.conversations = conversations::bare(connection, updated.into_iter(), epoch).await?;
        }
        if of_kind(&[ChangeKind::JournalEdited]).next().is_some() {
            joined.journal = journals::of(connection, stretches).await?;
        }
        Ok(joined)
    }

    fn parts(&self, id: ConversationId, change: &Change) -> EventParts {
        let thread = Uuid::from_slice(&change.payload)
            .ok()
            .and_then(|id| self.threads.get(&id));
        EventParts {
            message: self.messages.get(&(id, change.target_seq)).cloned(),
            thread: thread.cloned(),
            conversation: self.conversations.get(&id).cloned(),
            journal: self.journal.get(&(id, change.seq)).cloned(),
        }
    }
}

/// Empties what the viewer hid.
async fn hide(
    connection: &mut PgConnection,
    viewer: &str,
    events: &mut [v1::Event],
) -> Result<(), sqlx::Error> {
    let mut shown: Vec<(Uuid, i64, &mut v1::Message)> = Vec::new();
    for message in events.iter_mut().filter_map(v1::Event::message_mut) {
        let id = Uuid::try_parse(&message.conversation_id).map_err(|_| corrupt("a conversation id"))?;
        shown.push((id, seq_to(message.seq), message));
    }
    let mut places: Vec<(Uuid, i64)> = shown.iter().map(|(id, seq, _)| (*id, *seq)).collect();
    places.sort_unstable();
    places.dedup();
    if places.is_empty() {
        return Ok(());
    }
    let hidden = hidden::among(connection, viewer, &places).await?;
    for (id, seq, message) in shown {
        if hidden.contains(&(id, seq)) {
            message.hide();
        }
    }
    Ok(())
}
