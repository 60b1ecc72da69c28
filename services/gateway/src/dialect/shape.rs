//! What several dialects write alike: names of types and states, times, and of a message who sent it, its
//! readable part and how far it has come. Pure.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat};
use parlance_proto::v1::{
    Channel, ConversationKind, ConversationStatus, Message, MessageType, Participant, Presence,
    PresenceStatus, Role, SenderKind,
};
use serde_json::value::RawValue;

use super::{Place, encode};

/// Content and metadata for a vocabulary without a word for ciphertext: nothing to show, and why.
pub fn readable(message: &Message) -> (&str, Box<RawValue>) {
    if !message.encrypted {
        return (&message.content, metadata(&message.metadata_json));
    }
    let mut fields: BTreeMap<String, &RawValue> =
        serde_json::from_str(&message.metadata_json).unwrap_or_default();
    fields.insert("encrypted".to_owned(), RawValue::TRUE);
    ("", encode(&fields))
}

/// Writes a metadata text as the object it is.
pub fn metadata(text: &str) -> Box<RawValue> {
    if text.is_empty() {
        return encode(&serde_json::Map::new());
    }
    RawValue::from_string(text.to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// Writes a time: ISO 8601 in UTC with milliseconds.
pub fn time(ms: i64) -> String {
    DateTime::from_timestamp_millis(ms)
        .unwrap_or_default()
        .to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The name of a message type.
pub fn type_name(kind: MessageType) -> &'static str {
    match kind {
        MessageType::Text | MessageType::Unspecified => "text",
        MessageType::Image => "image",
        MessageType::File => "file",
        MessageType::Voice => "voice",
        MessageType::System => "system",
        MessageType::JournalShare => "journal_share",
    }
}

/// The name of a role.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Admin => "admin",
        Role::Moderator => "moderator",
        Role::Member | Role::Unspecified => "member",
        Role::Viewer => "viewer",
        Role::Editor => "editor",
        Role::Owner => "owner",
    }
}

/// The name of a channel.
pub fn channel_name(channel: Channel) -> &'static str {
    match channel {
        Channel::Chat | Channel::Unspecified => "chat",
        Channel::Voice => "voice",
        Channel::Email => "email",
    }
}

/// The name of a status.
pub fn status_name(status: ConversationStatus) -> &'static str {
    match status {
        ConversationStatus::Active | ConversationStatus::Unspecified => "active",
        ConversationStatus::Archived => "archived",
        ConversationStatus::Completed => "completed",
    }
}

/// The name of a status of presence.
pub fn presence_name(status: PresenceStatus) -> &'static str {
    match status {
        PresenceStatus::Online => "online",
        PresenceStatus::Away => "away",
        PresenceStatus::Offline | PresenceStatus::Unspecified => "offline",
    }
}

/// The name of a kind of sender.
pub fn sender_name(kind: SenderKind) -> &'static str {
    match kind {
        SenderKind::User | SenderKind::Unspecified => "user",
        SenderKind::Agent => "agent",
        SenderKind::System => "system",
    }
}

/// The name of a kind of conversation.
pub fn kind_name(kind: ConversationKind) -> &'static str {
    match kind {
        ConversationKind::Direct | ConversationKind::Unspecified => "direct",
        ConversationKind::Group => "group",
        ConversationKind::Journal => "journal",
    }
}

/// Id and name of who sent a message.
pub fn sender(message: &Message) -> (&str, &str) {
    message
        .sender
        .as_ref()
        .map_or(("", ""), |sender| (&*sender.id, &*sender.username))
}

/// How far a message of that seq has come on its way to a participant, as far as the participant's receipts
/// are at hand.
pub fn delivery(recipient: &Participant, seq: u64) -> &'static str {
    if recipient
        .read
        .iter()
        .any(|range| (range.first..=range.last).contains(&seq))
    {
        "read"
    } else if recipient.delivered_seq >= seq {
        "delivered"
    } else {
        "sent"
    }
}

/// The word for how a user is seen in vocabularies that know only `online` and `offline`; `None` where it is the
/// word that was said before.
pub fn came_or_went(seen: &Presence, before: PresenceStatus) -> Option<&'static str> {
    let word = |status| match status {
        PresenceStatus::Online | PresenceStatus::Away => "online",
        PresenceStatus::Offline | PresenceStatus::Unspecified => "offline",
    };
    let (now, said) = (word(seen.status()), word(before));
    (before == PresenceStatus::Unspecified || now != said).then_some(now)
}

/// Those a message is for, where all of them are held here; else nobody.
pub fn recipients<'a>(place: &'a Place, message: &Message) -> impl Iterator<Item = &'a Participant> {
    let sender = sender(message).0.to_owned();
    place
        .participants
        .iter()
        .filter(move |participant| participant.user_id != sender)
}

#[cfg(test)]
mod tests {
    use parlance_proto::v1::SeqRange;

    use super::*;

    #[test]
    fn a_status_is_the_furthest_that_is_known() {
        let bob = Participant {
            delivered_seq: 5,
            read: vec![SeqRange { first: 1, last: 2 }, SeqRange { first: 4, last: 4 }],
            ..Participant::default()
        };
        let statuses = [2, 3, 4, 5, 6].map(|seq| delivery(&bob, seq));
        assert_eq!(statuses, ["read", "delivered", "read", "delivered", "sent"]);
    }

    #[test]
    fn ciphertext_is_hidden_and_said_to_be_so() {
        let message = Message {
            content: "Y2lwaGVy".to_owned(),
            encrypted: true,
            metadata_json: r#"{"a\n":1.50,"encrypted":"no"}"#.to_owned(),
            ..Message::default()
        };
        let (content, metadata) = readable(&message);
        assert_eq!(
            (content, metadata.get()),
            ("", r#"{"a\n":1.50,"encrypted":true}"#)
        );
    }
}
