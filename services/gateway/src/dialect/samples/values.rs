//! The values the samples are made of. Alice and Bob, whose id is a number, talk; Carol is in the group.

use parlance_proto::v1::{
    BlockChanged, Conversation, ConversationKind, ConversationStatus, ErrorCode, JournalEdited, MembersAdded,
    Message, MessageChunk, MessageRef, MessageType, Mute, MuteChanged, Participant, Presence, PresenceStatus,
    Reaction, ReactionChanged, ReceiptUpdated, Role, RoomPresence, Sender, SenderKind, SeqRange, StreamState,
    Thread, Typing,
};

use super::{DIRECT, EPOCH, GROUP, JOURNAL, NOW, THREAD};
use crate::dialect::Place;
use crate::error::ClientError;

/// See the module.
pub(super) struct Samples {
    pub(super) direct: Place,
    pub(super) group: Place,
    pub(super) text: Message,
    pub(super) image: Message,
    pub(super) ciphertext: Message,
    pub(super) journal_share: Message,
    pub(super) agent: Message,
    pub(super) streaming: Message,
    pub(super) streamed: Message,
    pub(super) chunk: MessageChunk,
    pub(super) edited: Message,
    pub(super) deleted: Message,
    pub(super) muted: MuteChanged,
    pub(super) muted_until: MuteChanged,
    pub(super) unmuted: MuteChanged,
    pub(super) blocked: BlockChanged,
    pub(super) marked: ReactionChanged,
    pub(super) unmarked: ReactionChanged,
    pub(super) read: ReceiptUpdated,
    pub(super) delivered: ReceiptUpdated,
    pub(super) state: ReceiptUpdated,
    pub(super) typing: Typing,
    pub(super) typed: Typing,
    pub(super) entered: RoomPresence,
    pub(super) left: RoomPresence,
    pub(super) thread: Thread,
    pub(super) added: MembersAdded,
    pub(super) direct_conversation: Conversation,
    pub(super) group_conversation: Conversation,
    pub(super) journal: JournalEdited,
    pub(super) online: Presence,
    pub(super) away: Presence,
    pub(super) offline: Presence,
    pub(super) refused: ClientError,
    pub(super) missing: ClientError,
    pub(super) unknown: ClientError,
}

impl Samples {
    pub(super) fn new() -> Self {
        let (alice, bob, carol) = (
            person("alice", "Alice", 11, Role::Admin),
            person("42", "Bob", 12, Role::Member),
            person("carol", "Carol", 13, Role::Moderator),
        );
        let text = message(3, "Hello!");
        let image = image();
        Self {
            direct: place(DIRECT, 7, ConversationKind::Direct, "", [&alice, &bob]),
            group: place(GROUP, 8, ConversationKind::Group, "Team", [&alice, &bob, &carol]),
            ciphertext: ciphertext(),
            journal_share: journal_share(),
            agent: agent(),
            streaming: streaming("", StreamState::Open),
            streamed: streaming("Of course.", StreamState::Finished),
            chunk: MessageChunk {
                message_id: streaming("", StreamState::Open).id,
                seq: 8,
                offset: 3,
                text: "course.".to_owned(),
            },
            edited: edited(),
            deleted: deleted(),
            muted: mute(DIRECT, Some(Mute { until_ms: None })),
            muted_until: mute(GROUP, until()),
            unmuted: mute(DIRECT, None),
            blocked: BlockChanged {
                user_id: "alice".to_owned(),
                blocked_id: "42".to_owned(),
                blocked: true,
            },
            marked: reaction(&image, false),
            unmarked: reaction(&image, true),
            read: receipt(&[3, 5], &[]),
            delivered: receipt(&[], &[5]),
            state: receipt(&[], &[]),
            typing: typing(true),
            typed: typing(false),
            entered: presence(true),
            left: presence(false),
            thread: thread(),
            added: MembersAdded {
                members: vec![carol.clone()],
                actor_id: "alice".to_owned(),
            },
            direct_conversation: Conversation {
                participants: vec![alice.clone(), bob.clone()],
                participant_count: 2,
                participants_complete: true,
                last_message: Some(text.clone()),
                unread: 1,
                ..conversation(DIRECT, 7, ConversationKind::Direct, "")
            },
            group_conversation: Conversation {
                participants: vec![alice, bob, carol],
                participant_count: 3,
                participants_complete: true,
                metadata_json: r#"{"topic":"cats"}"#.to_owned(),
                status: ConversationStatus::Archived.into(),
                mute: until(),
                ..conversation(GROUP, 8, ConversationKind::Group, "Team")
            },
            journal: journal(),
            online: seen(PresenceStatus::Online, 5),
            away: seen(PresenceStatus::Away, 6),
            offline: seen(PresenceStatus::Offline, 7),
            refused: ClientError::new(ErrorCode::Forbidden, "only editors may do this"),
            missing: ClientError::no_conversation(),
            unknown: ClientError::unknown(),
            text,
            image,
        }
    }
}

fn person(id: &str, name: &str, number: i64, role: Role) -> Participant {
    Participant {
        user_id: id.to_owned(),
        username: name.to_owned(),
        role: role.into(),
        number,
        ..Participant::default()
    }
}

fn seen(status: PresenceStatus, version: u64) -> Presence {
    Presence {
        user_id: "alice".to_owned(),
        status: status.into(),
        version,
        last_seen_ms: NOW,
        since_ms: NOW + 5_000,
    }
}

fn sender(id: &str, name: &str, number: i64, kind: SenderKind) -> Sender {
    Sender {
        id: id.to_owned(),
        username: name.to_owned(),
        kind: kind.into(),
        number,
    }
}

fn place<const N: usize>(
    id: &str,
    number: i64,
    kind: ConversationKind,
    title: &str,
    who: [&Participant; N],
) -> Place {
    Place {
        id: id.parse().unwrap(),
        number,
        kind,
        title: title.to_owned(),
        participants: who.map(Participant::clone).to_vec(),
        participant_count: N as u64,
        head_seq: 9,
    }
}

fn conversation(id: &str, number: i64, kind: ConversationKind, title: &str) -> Conversation {
    Conversation {
        id: id.to_owned(),
        number,
        kind: kind.into(),
        title: title.to_owned(),
        head_seq: 3,
        epoch: EPOCH.to_owned(),
        created_by: "alice".to_owned(),
        created_at_ms: NOW - 60_000,
        updated_at_ms: NOW,
        ..Conversation::default()
    }
}

/// For an hour.
fn until() -> Option<Mute> {
    Some(Mute {
        until_ms: Some(NOW + 3_600_000),
    })
}

fn mute(conversation: &str, mute: Option<Mute>) -> MuteChanged {
    MuteChanged {
        conversation_id: conversation.to_owned(),
        mute,
    }
}

fn message_id(seq: u64) -> String {
    format!("0190a6e0-0000-7000-8000-00000000010{seq}")
}

/// From Alice in the direct conversation.
fn message(seq: u64, content: &str) -> Message {
    Message {
        id: message_id(seq),
        conversation_id: DIRECT.to_owned(),
        conversation_number: 7,
        seq,
        sender: Some(sender("alice", "Alice", 11, SenderKind::User)),
        r#type: MessageType::Text.into(),
        content: content.to_owned(),
        client_msg_id: Some(format!("m-{seq}")),
        created_at_ms: NOW,
        ..Message::default()
    }
}

fn image() -> Message {
    Message {
        conversation_id: GROUP.to_owned(),
        conversation_number: 8,
        sender: Some(sender("42", "Bob", 12, SenderKind::User)),
        r#type: MessageType::Image.into(),
        metadata_json: r#"{"width":1.50}"#.to_owned(),
        client_msg_id: None,
        reply_to: Some(message_id(2)),
        thread_id: Some(THREAD.to_owned()),
        reactions: vec![mark("alice"), mark("carol")],
        ..message(4, "cat.png")
    }
}

fn ciphertext() -> Message {
    Message {
        encrypted: true,
        metadata_json: r#"{"algorithm":"x25519"}"#.to_owned(),
        ..message(5, "Y2lwaGVy")
    }
}

fn journal_share() -> Message {
    Message {
        r#type: MessageType::JournalShare.into(),
        metadata_json: r#"{"journalId":9}"#.to_owned(),
        ..message(6, "Read this")
    }
}

fn agent() -> Message {
    Message {
        sender: Some(sender("helper", "Helper", 0, SenderKind::Agent)),
        client_msg_id: None,
        ..message(7, "May I help?")
    }
}

fn streaming(content: &str, state: StreamState) -> Message {
    Message {
        sender: Some(sender("service:helper", "Helper", 0, SenderKind::Agent)),
        client_msg_id: None,
        stream: state.into(),
        ..message(8, content)
    }
}

fn edited() -> Message {
    Message {
        edited_at_ms: Some(NOW + 1_000),
        ..message(3, "Hello there!")
    }
}

fn deleted() -> Message {
    Message {
        deleted_at_ms: Some(NOW + 2_000),
        ..message(3, "")
    }
}

fn thread() -> Thread {
    Thread {
        id: THREAD.to_owned(),
        conversation_id: GROUP.to_owned(),
        title: "Details".to_owned(),
        root_message_id: Some(message_id(2)),
        created_by: "alice".to_owned(),
        created_at_ms: NOW,
        ..Thread::default()
    }
}

fn journal() -> JournalEdited {
    JournalEdited {
        journal_id: JOURNAL.to_owned(),
        journal_number: 9,
        version: 4,
        update: vec![1, 2, 3],
        actor_id: "42".to_owned(),
        at_ms: NOW,
    }
}

fn mark(user: &str) -> Reaction {
    Reaction {
        user_id: user.to_owned(),
        emoji: "😂".to_owned(),
    }
}

/// Carol's mark on a message.
fn reaction(on: &Message, removed: bool) -> ReactionChanged {
    let mut message = on.clone();
    message
        .reactions
        .retain(|reaction| !removed || reaction.user_id != "carol");
    ReactionChanged {
        message: Some(message),
        user_id: "carol".to_owned(),
        emoji: "😂".to_owned(),
        removed,
    }
}

/// Bob's receipts for messages of Alice.
fn receipt(read_now: &[u64], delivered_now: &[u64]) -> ReceiptUpdated {
    let refs = |seqs: &[u64]| {
        let named = seqs.iter().map(|seq| MessageRef {
            id: message_id(*seq),
            seq: *seq,
            sender_id: "alice".to_owned(),
        });
        named.collect()
    };
    let range = |first, last| SeqRange { first, last };
    ReceiptUpdated {
        user_id: "42".to_owned(),
        read: vec![range(1, 3), range(5, 5)],
        version: 2,
        unread: 1,
        head_seq: 6,
        user_number: 12,
        delivered_seq: 5,
        at_ms: NOW + 3_000,
        read_now: refs(read_now),
        delivered_now: refs(delivered_now),
    }
}

fn typing(is_typing: bool) -> Typing {
    Typing {
        user_id: "42".to_owned(),
        username: "Bob".to_owned(),
        is_typing,
        user_number: 12,
        at_ms: NOW,
    }
}

fn presence(joined: bool) -> RoomPresence {
    RoomPresence {
        user_id: "42".to_owned(),
        username: "Bob".to_owned(),
        joined,
        user_number: 12,
    }
}
