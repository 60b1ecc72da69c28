//! One of everything the server tells and answers, and the check that a dialect reads its fixtures and writes
//! these samples as recorded in `snapshots/`. A dialect's own test is one call of [`check`].

mod values;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::LazyLock;

use parlance_proto::UserId;
use parlance_proto::v1::{
    BlockPage, Conversation, Event, EventPage, Message, MessageCreated, ParticipantPage, Presence,
    PresenceStatus, event,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use values::Samples;

use super::{Answer, DIALECTS, Dialect, Outbound, Place, Speaker};
use crate::error::ClientError;
use crate::limits::tests::small;

/// A direct conversation, number 7.
pub const DIRECT: &str = "0190a6e0-0000-7000-8000-000000000007";
/// A group, number 8.
pub const GROUP: &str = "0190a6e0-0000-7000-8000-000000000008";
/// A journal, number 9.
pub const JOURNAL: &str = "0190a6e0-0000-7000-8000-000000000009";
/// The thread of the group.
pub const THREAD: &str = "0190a6e0-0000-7000-8000-0000000000aa";
const EPOCH: &str = "0190a6e0-0000-7000-8000-0000000000ee";
/// 2024-01-01T12:00:00Z.
const NOW: i64 = 1_704_110_400_000;

static SAMPLES: LazyLock<Samples> = LazyLock::new(Samples::new);

/// An event as a client emits it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fixture {
    /// Its name.
    pub event: String,
    payload: Option<Box<RawValue>>,
}

/// The direct conversation.
pub fn direct() -> &'static Place {
    &SAMPLES.direct
}

/// A message in the direct conversation.
pub fn text() -> &'static Message {
    &SAMPLES.text
}

/// Ciphertext in the direct conversation.
pub fn ciphertext() -> &'static Message {
    &SAMPLES.ciphertext
}

/// The direct conversation as one of its participants sees it.
pub fn conversation() -> &'static Conversation {
    &SAMPLES.direct_conversation
}

/// A message that streams, in its conversation, and the same when it has ended.
pub fn streams() -> (&'static Place, &'static Message, &'static Message) {
    (&SAMPLES.group, &SAMPLES.streaming, &SAMPLES.streamed)
}

/// Everything the server may tell, by name.
pub fn outbound() -> Vec<(&'static str, Outbound<'static>)> {
    let s = &*SAMPLES;
    let (direct, group) = (&s.direct, &s.group);
    let listed = |joined| Outbound::ListUpdated {
        place: group,
        last: &s.image,
        unread: 2,
        joined,
    };
    let mut all = vec![
        ("message_direct", Outbound::MessageCreated(direct, &s.text)),
        ("message_group", Outbound::MessageCreated(group, &s.image)),
        (
            "message_encrypted",
            Outbound::MessageCreated(direct, &s.ciphertext),
        ),
        (
            "message_journal_share",
            Outbound::MessageCreated(direct, &s.journal_share),
        ),
        ("message_agent", Outbound::MessageCreated(direct, &s.agent)),
        ("message_streams", Outbound::MessageCreated(group, &s.streaming)),
        ("message_chunk", Outbound::MessageChunk(group, &s.chunk)),
        ("message_finished", Outbound::MessageFinished(group, &s.streamed)),
        ("message_edited", Outbound::MessageEdited(direct, &s.edited)),
        ("message_deleted", Outbound::MessageDeleted(direct, &s.deleted)),
        ("message_hidden", Outbound::MessageHidden(direct, &s.text)),
        ("muted", Outbound::MuteChanged(direct, &s.muted)),
        ("muted_until", Outbound::MuteChanged(group, &s.muted_until)),
        ("unmuted", Outbound::MuteChanged(direct, &s.unmuted)),
        ("blocked", Outbound::BlockChanged(&s.blocked)),
        ("reaction_added", Outbound::Reaction(group, &s.marked)),
        ("reaction_removed", Outbound::Reaction(group, &s.unmarked)),
        ("receipt_read", Outbound::Receipt(direct, &s.read)),
        ("receipt_delivered", Outbound::Receipt(direct, &s.delivered)),
        ("receipt_state", Outbound::Receipt(direct, &s.state)),
        ("typing_begins", Outbound::Typing(direct, &s.typing)),
        ("typing_ends", Outbound::Typing(direct, &s.typed)),
        ("room_entered", Outbound::RoomPresence(group, &s.entered)),
        ("room_left", Outbound::RoomPresence(group, &s.left)),
        ("thread_created", Outbound::ThreadCreated(group, &s.thread)),
        ("members_added", Outbound::MembersAdded(group, &s.added)),
        (
            "member_removed",
            Outbound::MemberRemoved(group, &s.added.members[0]),
        ),
        (
            "role_changed",
            Outbound::RoleChanged(group, &group.participants[1]),
        ),
        (
            "conversation_changed",
            Outbound::ConversationChanged(group, &s.group_conversation),
        ),
        (
            "conversation_added_direct",
            Outbound::ConversationAdded(&s.direct_conversation),
        ),
        (
            "conversation_added_group",
            Outbound::ConversationAdded(&s.group_conversation),
        ),
        ("conversation_removed", Outbound::ConversationRemoved(group)),
        ("list_updated", listed(false)),
        ("list_updated_joined", listed(true)),
    ];
    all.extend(journals_and_presence());
    all
}

/// The rest of them.
fn journals_and_presence() -> Vec<(&'static str, Outbound<'static>)> {
    let s = &*SAMPLES;
    let group = &s.group;
    let failed = |tag, error, acked| Outbound::Failed {
        event: "message:send",
        tag,
        error,
        acked,
    };
    vec![
        (
            "journal_edited",
            Outbound::JournalEdited(&s.journal, Some("Dear diary")),
        ),
        ("journal_updated", Outbound::JournalEdited(&s.journal, None)),
        (
            "awareness",
            Outbound::Awareness {
                place: group,
                update: &[1, 7, 1, 4, b'n', b'u', b'l', b'l'],
            },
        ),
        ("came", presence(&s.online, PresenceStatus::Offline)),
        ("greeted", presence(&s.online, PresenceStatus::Unspecified)),
        ("away", presence(&s.away, PresenceStatus::Online)),
        ("went", presence(&s.offline, PresenceStatus::Away)),
        (
            "resync",
            Outbound::Resync {
                place: group,
                epoch: EPOCH,
                head_seq: 9,
            },
        ),
        ("failed", failed(None, &s.refused, false)),
        ("failed_tagged", failed(Some("\"temp-1\""), &s.refused, false)),
        ("failed_acked", failed(Some("\"temp-1\""), &s.unknown, true)),
    ]
}

fn presence(seen: &Presence, before: PresenceStatus) -> Outbound<'_> {
    Outbound::Presence { seen, before }
}

/// Everything that may be answered, by name, with the conversation where it is known.
pub fn answers() -> Vec<(
    &'static str,
    Result<Answer, &'static ClientError>,
    Option<&'static Place>,
)> {
    let s = &*SAMPLES;
    let page = EventPage {
        conversation_id: DIRECT.to_owned(),
        epoch: EPOCH.to_owned(),
        head_seq: 3,
        events: vec![Event {
            conversation_id: DIRECT.to_owned(),
            epoch: EPOCH.to_owned(),
            seq: 3,
            at_ms: NOW,
            traceparent: String::new(),
            body: Some(event::Body::MessageCreated(MessageCreated {
                message: Some(s.text.clone()),
            })),
        }],
        complete: true,
        resync: false,
        ..EventPage::default()
    };
    let (direct, group) = (Some(&s.direct), Some(&s.group));
    vec![
        ("done", Ok(Answer::Done), None),
        ("message", Ok(Answer::Message(s.text.clone())), direct),
        ("message_elsewhere", Ok(Answer::Message(s.text.clone())), None),
        (
            "message_encrypted",
            Ok(Answer::Message(s.ciphertext.clone())),
            direct,
        ),
        (
            "conversation_direct",
            Ok(Answer::Conversation(s.direct_conversation.clone())),
            direct,
        ),
        (
            "conversation_group",
            Ok(Answer::Conversation(s.group_conversation.clone())),
            group,
        ),
        ("receipt", Ok(Answer::Receipt(s.read.clone())), direct),
        ("receipt_elsewhere", Ok(Answer::Receipt(s.read.clone())), None),
        ("thread", Ok(Answer::Thread(s.thread.clone())), group),
        (
            "journal",
            Ok(Answer::Journal(s.journal.clone(), Some("Dear diary".into()))),
            None,
        ),
        (
            "journal_sync",
            Ok(Answer::JournalSync {
                journal: s.journal.clone(),
                state_vector: vec![1, 7, 3],
            }),
            None,
        ),
        ("pages", Ok(Answer::Pages(vec![page])), None),
        (
            "presence",
            Ok(Answer::Presence(vec![s.away.clone(), s.offline.clone()])),
            None,
        ),
        (
            "participants",
            Ok(Answer::Participants(ParticipantPage {
                participants: s.added.members.clone(),
                next: "carol".to_owned(),
            })),
            None,
        ),
        ("blocks", Ok(blocks()), None),
        ("refused", Err(&s.refused), None),
        ("missing", Err(&s.missing), None),
        ("unknown", Err(&s.unknown), None),
    ]
}

fn blocks() -> Answer {
    Answer::Blocks(BlockPage {
        user_ids: vec!["42".to_owned(), "carol".to_owned()],
        next: String::new(),
    })
}

/// Reads all fixtures of a dialect and writes all samples in it, and compares with what is recorded.
pub fn check(dialect: &dyn Dialect) {
    let name = dialect.name();
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        insta::assert_snapshot!(format!("{name}.decode"), decoded(dialect));
        insta::assert_snapshot!(format!("{name}.encode"), encoded(dialect));
        insta::assert_snapshot!(format!("{name}.answer"), answered(dialect));
    });
}

impl Fixture {
    /// The first argument, `null` where there is none.
    pub fn payload(&self) -> &RawValue {
        self.payload.as_deref().unwrap_or(RawValue::NULL)
    }
}

/// All fixtures of a dialect by name, in order of file names.
pub fn fixtures(dialect: &dyn Dialect) -> Vec<(String, Fixture)> {
    let folder = folder().join("fixtures").join(dialect.name());
    let read = |case: String| {
        let file = std::fs::read_to_string(folder.join(format!("{case}.json"))).unwrap();
        let fixture = serde_json::from_str(&file).unwrap_or_else(|error| panic!("fixture {case}: {error}"));
        (case, fixture)
    };
    names(&folder, ".json").into_iter().map(read).collect()
}

/// One line for each fixture, in order of file names.
fn decoded(dialect: &dyn Dialect) -> String {
    let user = UserId::parse("alice").unwrap();
    let speaker = Speaker {
        user: &user,
        number: 11,
    };
    let (mut text, mut understood) = (String::new(), BTreeSet::new());
    for (case, fixture) in fixtures(dialect) {
        let payload = fixture.payload();
        let line = match dialect.decode(speaker, &fixture.event, payload, &small()) {
            Ok(decoded) => {
                understood.insert(fixture.event.clone());
                format!("{decoded:?}")
            }
            Err(error) => {
                assert!(!error.message.contains("secret"), "{case}: {}", error.message);
                let tag = dialect.tag(&fixture.event, payload);
                format!(
                    "{}: {}{}",
                    error.code,
                    error.message,
                    tag.map_or(String::new(), |tag| format!(" [{tag}]"))
                )
            }
        };
        writeln!(text, "{case}: {line}").unwrap();
    }
    for event in dialect.inbound_events() {
        assert!(understood.contains(*event), "no fixture has a good {event}");
    }
    text
}

/// One line for each frame.
fn encoded(dialect: &dyn Dialect) -> String {
    let mut text = String::new();
    for (name, outbound) in outbound() {
        let frames = dialect.frames(outbound);
        if frames.is_empty() {
            writeln!(text, "{name}: -").unwrap();
        }
        for frame in frames {
            writeln!(text, "{name}: {} {}", frame.event, frame.payload).unwrap();
        }
    }
    text
}

/// One line for each answer.
fn answered(dialect: &dyn Dialect) -> String {
    let mut text = String::new();
    for (name, outcome, place) in answers() {
        let answer = dialect.answer(outcome.as_ref().map_err(|error| *error), place);
        writeln!(text, "{name}: {answer}").unwrap();
    }
    text
}

#[test]
fn nothing_is_recorded_for_nobody() {
    let known = |name: &str| DIALECTS.iter().any(|dialect| dialect.name() == name);
    for snapshot in names(&folder().join("snapshots"), ".snap") {
        let (dialect, kind) = snapshot.split_once('.').unwrap();
        assert!(known(dialect), "snapshots/{snapshot}.snap belongs to no dialect");
        assert!(
            ["decode", "encode", "answer"].contains(&kind),
            "snapshots/{snapshot}.snap is of no kind"
        );
    }
    for fixtures in names(&folder().join("fixtures"), "") {
        assert!(known(&fixtures), "fixtures/{fixtures} belongs to no dialect");
    }
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/dialect"))
}

/// The names in a folder that end so, without that end, in order.
fn names(folder: &Path, end: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(end).map(str::to_owned))
        .collect()
}
