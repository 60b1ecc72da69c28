//! Events: how a committed change is told, live or when it is read back. Pure.

use parlance_proto::ConversationId;
use parlance_proto::v1::{self, event};
use prost::Message as _;

use super::state::{Change, ChangeKind, ConversationState};

/// What a change's event is joined from; only what its kind needs.
#[derive(Debug, Default)]
pub struct EventParts {
    /// The changed message as it is now.
    pub message: Option<v1::Message>,
    /// The thread as it is now.
    pub thread: Option<v1::Thread>,
    /// The conversation as it is now, without participants.
    pub conversation: Option<v1::Conversation>,
    /// The version of the journal.
    pub journal: Option<v1::JournalEdited>,
}

/// The event of a new message.
pub fn created(message: v1::Message, epoch: &str) -> v1::Event {
    v1::Event {
        conversation_id: message.conversation_id.clone(),
        epoch: epoch.to_owned(),
        seq: message.seq,
        at_ms: message.created_at_ms,
        traceparent: String::new(),
        body: Some(event::Body::MessageCreated(v1::MessageCreated {
            message: Some(message),
        })),
    }
}

/// The event of any other change. `None` where something it needs is missing. Names of participants are
/// not filled in.
pub fn changed(id: ConversationId, epoch: &str, change: &Change, parts: EventParts) -> Option<v1::Event> {
    let EventParts {
        message,
        thread,
        conversation,
        journal,
    } = parts;
    let actor_id = change.actor.clone();
    let payload = change.payload.as_slice();
    let body = match change.kind {
        ChangeKind::Edited => event::Body::MessageEdited(v1::MessageEdited {
            message: Some(message?),
        }),
        ChangeKind::Finished => event::Body::MessageFinished(v1::MessageFinished {
            message: Some(message?),
        }),
        ChangeKind::Deleted => event::Body::MessageDeleted(v1::MessageDeleted {
            message: Some(message?),
        }),
        ChangeKind::Reaction => {
            let reaction = v1::ReactionChanged::decode(payload).ok()?;
            event::Body::ReactionChanged(v1::ReactionChanged {
                message: Some(message?),
                ..reaction
            })
        }
        ChangeKind::ThreadCreated => event::Body::ThreadCreated(v1::ThreadCreated {
            thread: Some(thread?),
        }),
        ChangeKind::Updated => event::Body::ConversationUpdated(v1::ConversationUpdated {
            conversation: Some(conversation?),
            actor_id,
        }),
        ChangeKind::MembersAdded => event::Body::MembersAdded(v1::MembersAdded::decode(payload).ok()?),
        ChangeKind::MemberRemoved => event::Body::MemberRemoved(v1::MemberRemoved::decode(payload).ok()?),
        ChangeKind::RoleChanged => event::Body::RoleChanged(v1::RoleChanged::decode(payload).ok()?),
        ChangeKind::ConversationDeleted => {
            event::Body::ConversationDeleted(v1::ConversationDeleted { actor_id })
        }
        ChangeKind::JournalEdited => event::Body::JournalEdited(journal?),
    };
    Some(v1::Event {
        conversation_id: id.to_string(),
        epoch: epoch.to_owned(),
        seq: change.seq,
        at_ms: change.at_ms,
        traceparent: String::new(),
        body: Some(body),
    })
}

/// Somebody whose name and number are to be filled in.
#[derive(Debug)]
pub struct Unnamed<'a> {
    /// Who.
    pub id: &'a str,
    /// Their name.
    pub username: &'a mut String,
    /// Their number.
    pub number: &'a mut i64,
}

/// Those an event names without their names: participants, and senders this very batch made known.
pub fn unnamed(event: &mut v1::Event) -> Vec<Unnamed<'_>> {
    let participants: Vec<&mut v1::Participant> = match &mut event.body {
        Some(event::Body::MembersAdded(v1::MembersAdded { members, .. })) => members.iter_mut().collect(),
        Some(event::Body::MemberRemoved(v1::MemberRemoved { member, .. })) => member.iter_mut().collect(),
        Some(event::Body::RoleChanged(v1::RoleChanged { member, .. })) => member.iter_mut().collect(),
        Some(event::Body::MessageCreated(v1::MessageCreated {
            message: Some(message),
        })) => {
            return sender(message).into_iter().collect();
        }
        _ => Vec::new(),
    };
    participants
        .into_iter()
        .map(
            |v1::Participant {
                 user_id,
                 username,
                 number,
                 ..
             }| Unnamed {
                id: user_id,
                username,
                number,
            },
        )
        .collect()
}

/// The sender of a message, if this very batch made them known.
pub fn sender(message: &mut v1::Message) -> Option<Unnamed<'_>> {
    let sender = message.sender.as_mut().filter(|sender| sender.number == 0);
    let v1::Sender {
        id,
        username,
        number,
        kind,
    } = sender?;
    (*kind == i32::from(v1::SenderKind::User)).then_some(Unnamed { id, username, number })
}

/// A conversation without participants, unread and last message.
pub fn bare(id: ConversationId, state: &ConversationState, epoch: &str) -> v1::Conversation {
    v1::Conversation {
        id: id.to_string(),
        number: state.number,
        kind: state.kind.into(),
        open: state.open,
        read_only: state.read_only,
        title: state.title.clone(),
        head_seq: state.head_seq,
        epoch: epoch.to_owned(),
        receipts_version: state.receipts_version,
        created_at_ms: state.created_at_ms,
        updated_at_ms: state.updated_at_ms,
        created_by: state.created_by.clone(),
        channel: state.channel.into(),
        status: state.status.into(),
        metadata_json: state.metadata_json.clone(),
        ..Default::default()
    }
}
