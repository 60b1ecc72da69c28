//! Reading the log of a conversation: messages and changes, merged by seq.

use std::collections::HashMap;

use parlance_proto::ConversationId;
use parlance_proto::v1::{self, event};
use sqlx::PgConnection;
use uuid::Uuid;

use super::messages::{MessageRow, message_columns};
use super::{changes, conversations, corrupt, hidden, journals, messages, seq_to, threads, users};
use crate::ingest::state::{Change, ChangeKind};
use crate::ingest::tell::{self, Parts};

/// What the events of a stretch are joined from.
struct Joined {
    messages: HashMap<u64, v1::Message>,
    threads: HashMap<Uuid, v1::Thread>,
    conversation: Option<v1::Conversation>,
    journal: HashMap<u64, v1::JournalEdited>,
}

/// The events with `after` < seq <= `through`, ascending. A message, a thread and the conversation show their
/// present state. What the viewer hid keeps its place, but not its content.
///
/// # Errors
/// Of the database.
pub async fn between(
    connection: &mut PgConnection,
    conversation: ConversationId,
    viewer: Option<&str>,
    epoch: &str,
    after: u64,
    through: u64,
) -> Result<Vec<v1::Event>, sqlx::Error> {
    let created: Vec<MessageRow> = sqlx::query_as(concat!(
        "SELECT ",
        message_columns!(),
        " FROM messages m JOIN conversations c USING (conversation_id)
          LEFT JOIN users u ON u.user_id = m.sender_id
          WHERE m.conversation_id = $1 AND m.seq > $2 AND m.seq <= $3"
    ))
    .bind(conversation.uuid())
    .bind(seq_to(after))
    .bind(seq_to(through))
    .fetch_all(&mut *connection)
    .await?;
    let created = messages::whole(connection, created).await?;
    let changed = changes::between(connection, conversation, after, through).await?;
    let joined = Joined::read(connection, conversation, epoch, &changed, after, through).await?;
    let mut events: Vec<v1::Event> = created
        .into_iter()
        .map(|message| tell::created(message, epoch))
        .collect();
    for change in &changed {
        let event = tell::changed(conversation, epoch, change, joined.parts(change));
        events.push(event.ok_or_else(|| corrupt("a change without what it changed"))?);
    }
    events.sort_unstable_by_key(|event| event.seq);
    users::name(connection, events.iter_mut().flat_map(tell::people).collect()).await?;
    if let Some(viewer) = viewer {
        hide(connection, conversation, viewer, &mut events).await?;
    }
    Ok(events)
}

impl Joined {
    async fn read(
        connection: &mut PgConnection,
        id: ConversationId,
        epoch: &str,
        changed: &[Change],
        after: u64,
        through: u64,
    ) -> Result<Self, sqlx::Error> {
        let of_kind =
            |kinds: &'static [ChangeKind]| changed.iter().filter(|change| kinds.contains(&change.kind));
        let mut joined = Self {
            messages: HashMap::new(),
            threads: HashMap::new(),
            conversation: None,
            journal: HashMap::new(),
        };
        let mut places: Vec<(Uuid, i64)> =
            of_kind(&[ChangeKind::Edited, ChangeKind::Deleted, ChangeKind::Reaction])
                .map(|change| (id.uuid(), seq_to(change.target_seq)))
                .collect();
        places.sort_unstable();
        places.dedup();
        if !places.is_empty() {
            let messages = messages::by_seq(connection, &places).await?;
            joined.messages = messages
                .into_iter()
                .map(|message| (message.seq, message))
                .collect();
        }
        let names: Vec<(Uuid, Uuid)> = of_kind(&[ChangeKind::ThreadCreated])
            .filter_map(|change| Some((id.uuid(), Uuid::from_slice(&change.payload).ok()?)))
            .collect();
        if !names.is_empty() {
            for (_, thread) in threads::by_id(connection, &names).await? {
                joined
                    .threads
                    .insert(Uuid::try_parse(&thread.id).unwrap_or_default(), thread);
            }
        }
        if of_kind(&[ChangeKind::Updated]).next().is_some() {
            joined.conversation = conversations::bare(connection, id, epoch).await?;
        }
        if of_kind(&[ChangeKind::JournalEdited]).next().is_some() {
            joined.journal = journals::between(connection, id, after, through).await?;
        }
        Ok(joined)
    }

    fn parts(&self, change: &Change) -> Parts {
        let thread = Uuid::from_slice(&change.payload)
            .ok()
            .and_then(|id| self.threads.get(&id));
        Parts {
            message: self.messages.get(&change.target_seq).cloned(),
            thread: thread.cloned(),
            conversation: self.conversation.clone(),
            journal: self.journal.get(&change.seq).cloned(),
        }
    }
}

/// Empties what the viewer hid.
async fn hide(
    connection: &mut PgConnection,
    conversation: ConversationId,
    viewer: &str,
    events: &mut [v1::Event],
) -> Result<(), sqlx::Error> {
    let mut shown: Vec<&mut v1::Message> = events.iter_mut().filter_map(message_of).collect();
    let mut seqs: Vec<u64> = shown.iter().map(|message| message.seq).collect();
    seqs.sort_unstable();
    seqs.dedup();
    if seqs.is_empty() {
        return Ok(());
    }
    let hidden = hidden::among(connection, conversation, viewer, &seqs).await?;
    for message in shown.iter_mut().filter(|message| hidden.contains(&message.seq)) {
        message.content.clear();
        message.reactions.clear();
        message.metadata_json = r#"{"hidden":true}"#.to_owned();
    }
    Ok(())
}

fn message_of(event: &mut v1::Event) -> Option<&mut v1::Message> {
    match &mut event.body {
        Some(event::Body::MessageCreated(body)) => body.message.as_mut(),
        Some(event::Body::MessageEdited(body)) => body.message.as_mut(),
        Some(event::Body::MessageDeleted(body)) => body.message.as_mut(),
        Some(event::Body::ReactionChanged(body)) => body.message.as_mut(),
        _ => None,
    }
}
