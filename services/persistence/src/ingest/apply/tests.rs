mod domain;
mod stream;

use std::collections::{BTreeMap, HashMap};

use parlance_proto::v1::{
    Channel, ConversationKind, ConversationStatus, MessageType, Role, SenderKind, event,
};
use parlance_proto::{CommandId, ConversationId, MessageId, UserId};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::model::read_set::ReadSet;
use crate::model::state::{ChangeKind, Member, Person};
use crate::model::work::{Actor, Create, MessageName, Receive, Send};

/// A group of alice (admin), bob and carol, and a stranger: mallory.
const MEMBERS: [&str; 3] = ["alice", "bob", "carol"];

fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

fn group() -> ConversationId {
    ConversationId::from_uuid(Uuid::from_u128(0xA))
}

fn message_id(id: u128) -> MessageId {
    MessageId::from_uuid(Uuid::from_u128(id))
}

fn name(id: u128) -> MessageName {
    MessageName::Id(message_id(id))
}

fn work(command: u128, who: &str, action: Action) -> Work {
    let actor = Actor {
        id: user(who),
        username: who.to_uppercase(),
        kind: SenderKind::User,
    };
    Work {
        id: CommandId::from_uuid(Uuid::from_u128(command)),
        actor,
        conversation: group(),
        action,
    }
}

fn send(command: u128, who: &str, message: u128) -> Work {
    let send = Send {
        message: message_id(message),
        kind: MessageType::Text,
        content: format!("message {message}"),
        metadata_json: "{\"k\":1}".into(),
        client_msg_id: None,
        reply_to: None,
        encrypted: false,
        thread: None,
        journal: None,
        streaming: false,
    };
    work(command, who, Action::Send(send))
}

fn edit(command: u128, who: &str, message: u128, content: &str) -> Work {
    work(
        command,
        who,
        Action::Edit {
            message: name(message),
            content: content.into(),
        },
    )
}

fn delete(command: u128, who: &str, message: u128) -> Work {
    work(command, who, Action::Delete(name(message)))
}

fn read(command: u128, who: &str, up_to: u64, messages: &[u128]) -> Work {
    let receive = Receive {
        up_to,
        messages: messages.iter().map(|&id| name(id)).collect(),
        delivered_only: false,
        through: false,
    };
    work(command, who, Action::Receive(receive))
}

fn create(command: u128, who: &str, others: &[&str], provision: bool) -> Work {
    let others = others.iter().map(|id| user(id)).collect();
    let create = Create {
        kind: ConversationKind::Group,
        open: false,
        title: "Tea".into(),
        others,
        provision,
        channel: Channel::Chat,
        metadata_json: String::new(),
        journal: Vec::new(),
    };
    work(command, who, Action::Create(create))
}

fn loaded() -> Loaded {
    let member = |id: &&str| {
        let role = if *id == "alice" { Role::Admin } else { Role::Member };
        (
            user(id),
            Member {
                role,
                person: Person {
                    username: id.to_uppercase(),
                    number: 3,
                },
                joined_seq: 0,
                read: ReadSet::default(),
                delivered_seq: 0,
                receipts_version: 0,
            },
        )
    };
    let conversation = ConversationState {
        number: 7,
        kind: ConversationKind::Group,
        open: false,
        read_only: false,
        title: "Tea".into(),
        channel: Channel::Chat,
        status: ConversationStatus::Active,
        metadata_json: String::new(),
        created_at_ms: 500,
        deleted: false,
        history_from: 0,
        created_by: "alice".into(),
        created_by_command: CommandId::from_uuid(Uuid::from_u128(1)),
        head_seq: 0,
        last_message_seq: 0,
        receipts_version: 0,
        updated_at_ms: 500,
        blocked: false,
        banned: HashSet::new(),
        ban_count: 0,
        member_count: MEMBERS.len() as u64,
        members: MEMBERS.iter().map(member).collect(),
        messages: HashMap::new(),
        places: HashMap::new(),
        threads: HashMap::new(),
        changes: HashMap::new(),
        journal: None,
    };
    Loaded {
        now_ms: 1_000,
        epoch: "e".into(),
        conversations: HashMap::from([(group(), conversation)]),
        ..Loaded::default()
    }
}

/// (seq of the message, seq of the event, repeated)
fn places(effects: &Effects) -> Vec<Option<(u64, Option<u64>, bool)>> {
    let place = |outcome: &Outcome| match outcome {
        Outcome::Message {
            message,
            repeated,
            event,
            ..
        } => Some((message.seq, event.as_ref().map(|e| e.seq), *repeated)),
        _ => None,
    };
    effects.outcomes.iter().map(place).collect()
}

fn kind_of(event: &v1::Event) -> &'static str {
    match &event.body {
        Some(event::Body::MessageCreated(_)) => "created",
        Some(event::Body::MessageEdited(_)) => "edited",
        Some(event::Body::MessageFinished(_)) => "finished",
        Some(event::Body::MessageDeleted(_)) => "deleted",
        Some(event::Body::ReactionChanged(_)) => "reaction",
        Some(event::Body::ThreadCreated(_)) => "thread",
        Some(event::Body::ConversationUpdated(_)) => "updated",
        Some(event::Body::MembersAdded(_)) => "added",
        Some(event::Body::MemberRemoved(_)) => "removed",
        Some(event::Body::RoleChanged(_)) => "role",
        Some(event::Body::ConversationDeleted(_)) => "gone",
        Some(event::Body::JournalEdited(_)) => "text",
        Some(event::Body::ReceiptUpdated(_)) | None => "receipt",
    }
}

fn codes(effects: &Effects) -> Vec<Option<ErrorCode>> {
    let code = |outcome: &Outcome| match outcome {
        Outcome::Rejected(error) => Some(error.code()),
        _ => None,
    };
    effects.outcomes.iter().map(code).collect()
}

#[test]
fn a_repeat_in_the_same_batch_and_in_a_later_one_gets_the_original_and_is_told_again() {
    let mut state = loaded();
    let first = apply(
        &mut state,
        &[send(10, "bob", 1), send(11, "bob", 1), send(12, "bob", 2)],
    );
    assert_eq!(
        places(&first),
        [
            Some((1, Some(1), false)),
            Some((1, Some(1), true)),
            Some((2, Some(2), false))
        ]
    );
    assert_eq!(first.new_messages.len(), 2);
    let later = apply(&mut state, &[send(13, "bob", 2)]);
    assert_eq!(places(&later), [Some((2, Some(2), true))]);
    assert!(later.new_messages.is_empty() && later.moved.is_empty());
}

#[test]
fn nobody_gets_at_another_s_message_by_its_id() {
    let mut state = loaded();
    let effects = apply(&mut state, &[send(10, "bob", 1), send(11, "carol", 1)]);
    assert_eq!(codes(&effects), [None, Some(ErrorCode::Conflict)]);
}

#[test]
fn a_stranger_learns_nothing_whatever_they_try() {
    let mut state = loaded();
    let mut tries = vec![
        send(20, "mallory", 9),
        send(21, "mallory", 1),
        edit(22, "mallory", 1, "x"),
        delete(23, "mallory", 1),
        read(24, "mallory", 1, &[]),
        create(25, "mallory", &["eve"], true),
    ];
    apply(&mut state, &[send(10, "bob", 1)]);
    let known = apply(&mut state, &tries);
    let answers =
        |effects: &Effects| -> Vec<String> { effects.outcomes.iter().map(|o| format!("{o:?}")).collect() };
    assert!(
        codes(&known)
            .iter()
            .all(|code| *code == Some(ErrorCode::NotFound)),
        "{:?}",
        answers(&known)
    );
    // The same tries on what does not exist: the same answers, except that one may create it.
    tries.pop();
    let mut nothing = Loaded {
        now_ms: 1_000,
        ..Loaded::default()
    };
    assert_eq!(
        answers(&apply(&mut nothing, &tries)),
        answers(&known)[..tries.len()]
    );
}

#[test]
fn edits_and_deletions_take_seqs_and_repeat_their_own_event() {
    let mut state = loaded();
    let effects = apply(
        &mut state,
        &[
            send(10, "bob", 1),
            edit(11, "bob", 1, "new"),
            edit(11, "bob", 1, "new"),
            delete(12, "bob", 1),
            delete(13, "bob", 1),
            edit(14, "bob", 1, "late"),
            edit(11, "bob", 1, "new"),
        ],
    );
    let expected = [
        Some((1, Some(1), false)),
        Some((1, Some(2), false)),
        Some((1, Some(2), true)),
        Some((1, Some(3), false)),
        Some((1, None, true)),
        None,
        Some((1, Some(2), true)),
    ];
    assert_eq!(places(&effects), expected);
    assert_eq!(codes(&effects)[5], Some(ErrorCode::NotFound));
    let kinds: Vec<ChangeKind> = effects
        .new_changes
        .iter()
        .map(|(_, _, change)| change.kind)
        .collect();
    assert_eq!(kinds, [ChangeKind::Edited, ChangeKind::Deleted]);
    let conversation = &state.conversations[&group()];
    let message = &conversation.messages[&message_id(1)];
    assert_eq!(
        (
            message.content.as_str(),
            message.metadata_json.as_str(),
            conversation.head_seq
        ),
        ("", "", 3)
    );
}

#[test]
fn only_the_sender_edits_and_only_sender_and_staff_delete() {
    let mut state = loaded();
    let effects = apply(
        &mut state,
        &[
            send(10, "bob", 1),
            edit(11, "carol", 1, "x"),
            edit(12, "alice", 1, "x"),
            delete(13, "carol", 1),
            delete(14, "carol", 99),
            delete(15, "alice", 1),
        ],
    );
    let forbidden = Some(ErrorCode::Forbidden);
    let expected = [
        None,
        forbidden,
        forbidden,
        forbidden,
        Some(ErrorCode::NotFound),
        None,
    ];
    assert_eq!(codes(&effects), expected);
}

#[test]
fn time_never_runs_backwards_within_a_conversation() {
    let mut state = loaded();
    state.now_ms = 100;
    let effects = apply(&mut state, &[send(10, "bob", 1)]);
    let Outcome::Message { message, event, .. } = &effects.outcomes[0] else {
        panic!("a message")
    };
    assert_eq!(message.created_at_ms, 500);
    let event = event.as_ref().unwrap();
    assert_eq!((event.seq, event.at_ms), (1, 500));
    assert!(matches!(event.body, Some(event::Body::MessageCreated(_))));
}

#[test]
fn an_answer_names_a_message_of_the_conversation_also_one_of_the_same_batch() {
    let mut state = loaded();
    let reply = |command, message, to| {
        let mut work = send(command, "bob", message);
        if let Action::Send(send) = &mut work.action {
            send.reply_to = Some(name(to));
        }
        work
    };
    let effects = apply(
        &mut state,
        &[reply(10, 1, 77), send(11, "carol", 2), reply(12, 3, 2)],
    );
    assert_eq!(codes(&effects), [Some(ErrorCode::Invalid), None, None]);
    assert_eq!(state.conversations[&group()].head_seq, 2);
}

#[test]
fn services_write_where_they_are_no_members_but_change_nothing_of_others() {
    let mut state = loaded();
    let service = |mut work: Work| {
        work.actor.kind = SenderKind::System;
        work
    };
    let effects = apply(
        &mut state,
        &[
            service(send(10, "weather", 1)),
            service(send(11, "bob", 2)),
            send(12, "bob", 2),
            delete(13, "weather", 1),
        ],
    );
    let not_a_member = Some(ErrorCode::NotFound);
    assert_eq!(
        codes(&effects),
        [None, None, Some(ErrorCode::Conflict), not_a_member]
    );
}

#[test]
fn an_agent_writes_only_where_it_is_a_member() {
    let mut state = loaded();
    let agent = |mut work: Work| {
        work.actor.kind = SenderKind::Agent;
        work
    };
    let effects = apply(
        &mut state,
        &[agent(send(10, "robot", 1)), agent(send(11, "bob", 2))],
    );
    assert_eq!(codes(&effects), [Some(ErrorCode::NotFound), None]);
}

#[test]
fn marks_of_one_reader_in_one_batch_are_one_version_and_marks_without_news_none() {
    let mut state = loaded();
    apply(
        &mut state,
        &[send(10, "bob", 1), send(11, "bob", 2), send(12, "bob", 3)],
    );
    let effects = apply(
        &mut state,
        &[
            read(20, "carol", 0, &[3]),
            read(21, "carol", 1, &[]),
            read(22, "alice", 99, &[]),
        ],
    );
    assert_eq!(
        effects
            .readers
            .values()
            .map(|reader| reader.news)
            .collect::<Vec<_>>(),
        [true, true]
    );
    let conversation = &state.conversations[&group()];
    let versions: BTreeMap<&str, (u64, String)> = conversation
        .members
        .iter()
        .map(|(id, member)| (id.as_str(), (member.receipts_version, member.read.to_sql())))
        .collect();
    assert_eq!(versions["carol"], (1, "{[1,1],[3,3]}".to_owned()));
    assert_eq!(versions["alice"], (2, "{[1,3]}".to_owned()));
    assert_eq!(conversation.receipts_version, 2);
    let again = apply(
        &mut state,
        &[read(23, "carol", 1, &[]), read(24, "carol", 0, &[3, 55])],
    );
    assert_eq!(
        again
            .readers
            .values()
            .map(|reader| reader.news)
            .collect::<Vec<_>>(),
        [false]
    );
    assert_eq!(state.conversations[&group()].receipts_version, 2);
    let unknown = apply(&mut state, &[read(25, "carol", 0, &[55])]);
    assert_eq!(codes(&unknown), [Some(ErrorCode::Invalid)]);
}

#[test]
fn a_created_conversation_is_there_for_the_rest_of_the_batch() {
    let mut state = Loaded {
        now_ms: 1_000,
        numbers: vec![42],
        ..Loaded::default()
    };
    let works = [
        create(10, "alice", &["bob"], true),
        create(10, "alice", &["bob"], true),
        create(11, "bob", &["alice"], true),
        send(12, "bob", 1),
        send(13, "mallory", 2),
    ];
    let effects = apply(&mut state, &works);
    let created: Vec<Option<(bool, bool)>> = effects
        .outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Conversation { repeated, added, .. } => Some((*repeated, added.len() == 2)),
            _ => None,
        })
        .collect();
    assert_eq!(
        created,
        [
            Some((false, true)),
            Some((false, true)),
            Some((true, false)),
            None,
            None
        ]
    );
    assert_eq!(
        codes(&effects),
        [None, None, None, None, Some(ErrorCode::NotFound)]
    );
    let roles: Vec<Role> = effects.joined.values().map(|(role, _)| *role).collect();
    assert_eq!(roles, [Role::Admin, Role::Member]);
    assert_eq!(
        effects.new_users.values().cloned().collect::<Vec<_>>(),
        ["ALICE", "bob"]
    );
    assert_eq!(state.conversations[&group()].number, 42);
}

#[test]
fn unknown_and_deleted_users_are_named_and_nothing_is_created() {
    let mut state = Loaded {
        numbers: vec![1, 2],
        ..Loaded::default()
    };
    let alice = Person {
        username: "Alice".into(),
        number: 1,
    };
    state.users.insert(user("alice"), alice);
    state.deleted_users.insert(user("ghost"));
    let effects = apply(
        &mut state,
        &[
            create(10, "alice", &["bob"], false),
            create(11, "alice", &["bob", "ghost"], true),
        ],
    );
    let messages: Vec<String> = effects
        .outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Rejected(error) => error.message.clone(),
            _ => String::new(),
        })
        .collect();
    assert_eq!(messages, ["unknown users: bob", "unknown users: ghost"]);
    assert!(state.conversations.is_empty() && effects.new_users.is_empty());
}

fn any_work() -> impl Strategy<Value = Work> {
    let who = prop::sample::select(vec!["alice", "bob", "carol", "mallory"]);
    (0u128..40, who, 1u128..12, 0u8..4, 0u64..20).prop_map(
        |(command, who, message, kind, up_to)| match kind {
            0 => send(100 + command, who, message),
            1 => edit(200 + command, who, message, "edited"),
            2 => delete(300 + command, who, message),
            _ => read(400 + command, who, up_to, &[message]),
        },
    )
}

proptest! {
    #[test]
    fn whatever_comes_seqs_have_no_hole_repeats_keep_theirs_and_read_sets_only_grow(
        works in prop::collection::vec(any_work(), 1..80),
        sizes in prop::collection::vec(1usize..9, 20),
    ) {
        let mut state = loaded();
        let mut told: BTreeMap<u64, String> = BTreeMap::new();
        let mut seq_of: HashMap<String, u64> = HashMap::new();
        let mut rest = works.as_slice();
        for size in sizes {
            let (batch, behind) = rest.split_at(size.min(rest.len()));
            rest = behind;
            let before = state.conversations[&group()].members.clone();
            let effects = apply(&mut state, batch);
            for outcome in &effects.outcomes {
                let Outcome::Message { message, repeated, event, .. } = outcome else { continue };
                prop_assert_eq!(*seq_of.entry(message.id.clone()).or_insert(message.seq), message.seq);
                let Some(event) = event else { continue };
                let what = format!("{} {}", message.id, kind_of(event));
                match told.get(&event.seq) {
                    Some(earlier) => prop_assert!(*repeated && *earlier == what),
                    None => { prop_assert!(!repeated); told.insert(event.seq, what); }
                }
            }
            let conversation = &state.conversations[&group()];
            let seqs: Vec<u64> = told.keys().copied().collect();
            prop_assert_eq!(seqs, (1..=conversation.head_seq).collect::<Vec<_>>());
            for (id, member) in &before {
                let now = &conversation.members[id];
                prop_assert!((1..40).all(|seq| !member.read.contains(seq) || now.read.contains(seq)));
                let grew = member.read != now.read;
                prop_assert_eq!(grew, now.receipts_version > member.receipts_version);
            }
        }
    }
}

#[test]
fn what_is_read_is_bounded_in_its_ranges_and_can_always_be_closed() {
    let mut state = loaded();
    let most = ReadSet::MOST_RANGES as u64;
    let conversation = state.conversations.get_mut(&group()).unwrap();
    conversation.head_seq = 4 * most;
    let message = v1::Message {
        seq: 3 * most,
        ..Default::default()
    };
    conversation.put_message(message_id(1), message);
    let bob = conversation.members.get_mut(&user("bob")).unwrap();
    for place in 1..=most {
        bob.read.insert(place * 2, place * 2);
    }
    let effects = apply(
        &mut state,
        &[
            read(20, "bob", 0, &[1]),
            read(21, "bob", 3, &[]),
            read(22, "bob", 0, &[1]),
        ],
    );
    assert_eq!(codes(&effects), [Some(ErrorCode::TooCostly), None, None]);
    let bob = &state.conversations[&group()].members[&user("bob")];
    assert_eq!(bob.read.ranges() as u64, most);
}
