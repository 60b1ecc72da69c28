//! The log of a conversation as JSON: its events, in pages. Must not decide anything.

use std::collections::BTreeMap;

use parlance_proto::v1::{Event, EventPage, Message, event};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    ConversationChangedJson, JournalJson, MessageJson, ParticipantJson, ReactionChangedJson, ReadStateJson,
    ThreadJson, conversation_changed_json, journal, participant, reaction_json, read_state, thread,
};
use crate::dialect::shape::time;

/// A durable change as clients see it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub struct EventJson<'a> {
    seq: u64,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    body: EventBodyJson<'a>,
    #[schema(format = DateTime)]
    at: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = EventBody)]
pub(super) enum EventBodyJson<'a> {
    Message {
        message: MessageJson<'a>,
    },
    Reaction(ReactionChangedJson<'a>),
    Thread {
        thread: ThreadJson<'a>,
    },
    Conversation {
        conversation: ConversationChangedJson<'a>,
    },
    Members {
        members: Vec<ParticipantJson<'a>>,
    },
    Journal {
        journal: JournalJson<'a>,
    },
    Nothing {},
}

/// What happened in a conversation since a position.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventPage)]
pub struct EventPageJson<'a> {
    epoch: &'a str,
    head_seq: u64,
    events: Vec<EventJson<'a>>,
    /// The seq to ask after next; null when complete.
    #[schema(required)]
    next: Option<u64>,
    complete: bool,
    resync: bool,
    /// The conversation was deleted, or one belongs to it no more; only then.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    removed: bool,
    /// Where receipts were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipts: Option<Vec<ReadStateJson<'a>>>,
    /// The version to ask after next.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipts_version: Option<u64>,
}

/// Pages of a sync, by conversation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Sync)]
pub struct SyncJson<'a> {
    conversations: BTreeMap<&'a str, EventPageJson<'a>>,
}

/// Writes a page of changes.
pub fn event_page(page: &EventPage) -> EventPageJson<'_> {
    let events: Vec<_> = page.events.iter().filter_map(event).collect();
    let next = page.events.last().map(|event| event.seq);
    EventPageJson {
        epoch: &page.epoch,
        head_seq: page.head_seq,
        events,
        next: next.filter(|_| !page.complete),
        complete: page.complete,
        resync: page.resync,
        removed: page.removed,
        receipts: None,
        receipts_version: None,
    }
}

/// Writes the pages of a sync under their conversations.
pub fn sync(pages: &[EventPage]) -> impl Serialize {
    SyncJson {
        conversations: pages
            .iter()
            .map(|page| {
                let page_json = EventPageJson {
                    receipts: page
                        .receipts_version
                        .map(|_| page.receipts.iter().map(read_state).collect()),
                    receipts_version: page.receipts_version,
                    ..event_page(page)
                };
                (page.conversation_id.as_str(), page_json)
            })
            .collect(),
    }
}

fn event(event: &Event) -> Option<EventJson<'_>> {
    let (kind, body) = match event.body.as_ref()? {
        event::Body::MessageCreated(body) => ("message:new", changed(body.message.as_ref()?)),
        event::Body::MessageEdited(body) => ("message:edited", changed(body.message.as_ref()?)),
        event::Body::MessageFinished(body) => ("message:finished", changed(body.message.as_ref()?)),
        event::Body::MessageDeleted(body) => ("message:deleted", changed(body.message.as_ref()?)),
        event::Body::ReactionChanged(body) => {
            ("message:reaction", EventBodyJson::Reaction(reaction_json(body)))
        }
        event::Body::ThreadCreated(body) => {
            let thread = thread(body.thread.as_ref()?);
            ("thread:created", EventBodyJson::Thread { thread })
        }
        event::Body::ConversationUpdated(body) => {
            let conversation = conversation_changed_json(body.conversation.as_ref()?);
            (
                "conversation:updated",
                EventBodyJson::Conversation { conversation },
            )
        }
        event::Body::MembersAdded(body) => {
            let members = body.members.iter().map(participant).collect();
            ("member:added", EventBodyJson::Members { members })
        }
        event::Body::MemberRemoved(body) => {
            let members = vec![participant(body.member.as_ref()?)];
            ("member:removed", EventBodyJson::Members { members })
        }
        event::Body::RoleChanged(body) => {
            let members = vec![participant(body.member.as_ref()?)];
            ("member:role", EventBodyJson::Members { members })
        }
        event::Body::ConversationDeleted(_) => ("conversation:removed", EventBodyJson::Nothing {}),
        event::Body::JournalEdited(body) => {
            let journal = journal(body, None);
            ("journal:updated", EventBodyJson::Journal { journal })
        }
        // Receipts have no place in the sequence.
        event::Body::ReceiptUpdated(_) => return None,
    };
    Some(EventJson {
        seq: event.seq,
        kind,
        body,
        at: time(event.at_ms),
    })
}

fn changed(message: &Message) -> EventBodyJson<'_> {
    EventBodyJson::Message {
        message: super::message(message),
    }
}
