//! What one committed event means for the room and for those who follow it.

use std::time::{Duration, Instant};

use parlance_bus::trace;
use parlance_proto::v1::{self, Event, Message, Participant, ReceiptUpdated, event};
use tracing::Span;

use super::Room;
use crate::clock::now;
use crate::dialect::{Outbound, Place};
use crate::session::following::Unread;

/// What those who follow are told of an event, now or later.
pub(super) fn told<'a>(place: &'a Place, event: &'a Event) -> Option<Outbound<'a>> {
    Some(match event.body.as_ref()? {
        event::Body::MessageCreated(body) => Outbound::MessageCreated(place, body.message.as_ref()?),
        event::Body::MessageFinished(body) => Outbound::MessageFinished(place, body.message.as_ref()?),
        event::Body::MessageEdited(body) => Outbound::MessageEdited(place, body.message.as_ref()?),
        event::Body::MessageDeleted(body) => Outbound::MessageDeleted(place, body.message.as_ref()?),
        event::Body::ReactionChanged(reaction) => Outbound::Reaction(place, reaction),
        event::Body::ThreadCreated(body) => Outbound::ThreadCreated(place, body.thread.as_ref()?),
        event::Body::ConversationUpdated(body) => {
            Outbound::ConversationChanged(place, body.conversation.as_ref()?)
        }
        event::Body::MembersAdded(added) => Outbound::MembersAdded(place, added),
        event::Body::MemberRemoved(body) => Outbound::MemberRemoved(place, body.member.as_ref()?),
        event::Body::RoleChanged(body) => Outbound::RoleChanged(place, body.member.as_ref()?),
        event::Body::ConversationDeleted(_) => Outbound::ConversationRemoved(place),
        event::Body::JournalEdited(edited) => Outbound::JournalEdited(edited, None),
        event::Body::ReceiptUpdated(receipt) => Outbound::Receipt(place, receipt),
    })
}

/// The span of bringing an event to the sessions of this replica; none where its trace is not recorded.
pub(super) fn deliver_span(event: &Event) -> Span {
    if event.traceparent.is_empty() {
        return Span::none();
    }
    let span = tracing::info_span!(
        parent: None,
        "deliver chat.evt",
        otel.kind = "consumer",
        messaging.system = "nats",
        messaging.operation.name = "deliver",
        messaging.operation.type = "process",
        messaging.destination.template = "chat.evt.{conversation}",
    );
    trace::follow(&span, &event.traceparent);
    span
}

impl Room {
    /// Takes the next event of the sequence; any other is known already.
    pub(super) async fn take(&mut self, event: &Event) {
        if event.seq != self.head_seq + 1 {
            return;
        }
        // A poll may be answered with it before all are served.
        let begun_at = Instant::now();
        self.move_to(event.seq, self.receipts_version);
        match &event.body {
            Some(event::Body::MessageCreated(v1::MessageCreated {
                message: Some(message),
            })) => {
                self.created(message);
            }
            Some(event::Body::MessageFinished(v1::MessageFinished {
                message: Some(message),
            })) => {
                self.streamed.ended(message.seq);
                self.audience
                    .tell_joined(Outbound::MessageFinished(&self.place, message));
                self.edited(message);
            }
            Some(event::Body::MessageDeleted(v1::MessageDeleted {
                message: Some(message),
            })) => {
                self.streamed.ended(message.seq);
                self.audience
                    .tell_joined(Outbound::MessageDeleted(&self.place, message));
                self.lists.deleted(message);
                self.look_up_lists();
            }
            Some(event::Body::MessageEdited(v1::MessageEdited {
                message: Some(message),
            })) => {
                self.audience
                    .tell_joined(Outbound::MessageEdited(&self.place, message));
                self.edited(message);
            }
            Some(event::Body::ConversationUpdated(v1::ConversationUpdated {
                conversation: Some(conversation),
                ..
            })) => {
                self.place.title.clone_from(&conversation.title);
                self.publish_place();
                self.audience
                    .tell_all(Outbound::ConversationChanged(&self.place, conversation));
            }
            Some(event::Body::MembersAdded(added)) => self.added(event.seq, added),
            Some(event::Body::MemberRemoved(v1::MemberRemoved {
                member: Some(member), ..
            })) => {
                self.removed(event.seq, member).await;
            }
            Some(event::Body::RoleChanged(v1::RoleChanged {
                member: Some(member), ..
            })) => {
                self.put(member.clone());
                self.publish_place();
                self.audience
                    .tell_joined(Outbound::RoleChanged(&self.place, member));
            }
            Some(event::Body::ConversationDeleted(_)) => {
                self.audience.tell_all(Outbound::ConversationRemoved(&self.place));
                self.end_memberships();
                self.audience.detach_all(self.conversation);
                self.end_awareness();
            }
            Some(event::Body::JournalEdited(edited)) => {
                self.journal_edited(edited).await;
            }
            // A kind this version does not know, or without what it is about, keeps its place.
            Some(_) | None => {
                if let Some(outbound) = told(&self.place, event) {
                    self.audience.tell_joined(outbound);
                }
            }
        }
        self.audience.emitted(event.seq, event.at_ms, begun_at);
        self.report_soon(Duration::ZERO);
    }

    fn created(&mut self, message: &Message) {
        let sender = message.sender.as_ref().map_or("", |sender| sender.id.as_str());
        self.audience.count_unread(sender, message.seq);
        self.audience.emit_created(&self.place, message);
        self.audience.update_lists(&self.place, message, |_| true);
        self.lists.created(message);
        self.stream_begins(message);
        let age = now().timestamp_millis() - message.created_at_ms;
        let age = Duration::from_millis(u64::try_from(age).unwrap_or_default());
        metrics::histogram!("chat_message_delivery_seconds").record(age);
    }

    fn added(&mut self, seq: u64, added: &v1::MembersAdded) {
        if self.place.is_whole() {
            for member in &added.members {
                self.put(member.clone());
            }
        } else if seq > self.counted_at {
            self.place.participant_count += added.members.len() as u64;
        }
        if self.place.participants.len() > self.most_held() {
            // It is a large group from now on.
            self.place.participants.clear();
        }
        self.publish_place();
        self.audience
            .tell_joined(Outbound::MembersAdded(&self.place, added));
    }

    async fn removed(&mut self, seq: u64, member: &Participant) {
        self.audience
            .tell_joined(Outbound::MemberRemoved(&self.place, member));
        self.audience.remove_user(&self.place, &member.user_id);
        self.end_awareness();
        if self.place.is_whole() {
            self.place
                .participants
                .retain(|other| other.user_id != member.user_id);
            self.place.participant_count = self.place.participants.len() as u64;
        } else if seq > self.counted_at {
            self.place.participant_count = self.place.participant_count.saturating_sub(1);
        }
        self.left(member.user_id.clone());
        // A large group that has become a small one; without an answer it counts as large for now.
        if self.place.is_whole()
            || self.place.participant_count > self.most_held() as u64
            || self.load().await.is_err()
        {
            self.publish_place();
        }
    }

    /// Participants up to which they are all held here.
    fn most_held(&self) -> usize {
        usize::try_from(self.rooms.backend.small_group()).unwrap_or(usize::MAX)
    }

    /// Takes over how a participant is now, of a small group.
    fn put(&mut self, member: Participant) {
        if !self.place.is_whole() {
            return;
        }
        match self
            .place
            .participants
            .iter_mut()
            .find(|other| other.user_id == member.user_id)
        {
            Some(known) => *known = member,
            None => self.place.participants.push(member),
        }
        self.place.participant_count = self.place.participants.len() as u64;
    }

    pub(super) fn emit_receipt(&mut self, receipt: &ReceiptUpdated) {
        if receipt.version <= self.receipts_version {
            return;
        }
        self.move_to(self.head_seq, receipt.version);
        let unread = Unread {
            count: receipt.unread,
            head_seq: receipt.head_seq,
        };
        let counts = self.audience.set_unread(&receipt.user_id, unread);
        self.audience.tell_joined(Outbound::Receipt(&self.place, receipt));
        if counts {
            self.counted(&receipt.user_id);
        }
    }

    /// A receipt whose state was told already when it was read back: who is told of messages instead of states
    /// had nothing to hear then.
    pub(super) fn complete_receipt(&mut self, receipt: &ReceiptUpdated) {
        self.read_back.start = receipt.version + 1;
        let state = ReceiptUpdated {
            read_now: Vec::new(),
            delivered_now: Vec::new(),
            ..receipt.clone()
        };
        self.audience.tell_the_untold(
            Outbound::Receipt(&self.place, &state),
            Outbound::Receipt(&self.place, receipt),
        );
    }
}
