//! Whatever members do to each other, the conversation stays whole.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::model::work::{AddMembers, Mute, React, Report, StartThread, Update};

fn events_of(outcome: &Outcome) -> (Vec<&v1::Event>, bool) {
    match outcome {
        Outcome::Rejected(_) | Outcome::Muted { .. } | Outcome::Receipt | Outcome::Bare(_) => {
            (Vec::new(), false)
        }
        Outcome::Message { event, repeated, .. }
        | Outcome::Thread { event, repeated, .. }
        | Outcome::Journal { event, repeated, .. } => (event.iter().collect(), *repeated),
        Outcome::Conversation { events, repeated, .. } => (events.iter().collect(), *repeated),
    }
}

fn thread_id(id: u128) -> Uuid {
    Uuid::from_u128(0x7000 + id)
}

fn any_action() -> impl Strategy<Value = Action> {
    let who = || prop::sample::select(vec!["alice", "bob", "carol", "dave", "mallory"]).prop_map(user);
    let role = || prop::sample::select(vec![Role::Member, Role::Moderator, Role::Admin, Role::Viewer]);
    prop_oneof![
        4 => (1u128..12, prop::option::of(0u128..4)).prop_map(|(id, thread)| Action::Send(Send {
            message: message_id(id),
            kind: MessageType::Text,
            content: format!("message {id}"),
            metadata_json: String::new(),
            client_msg_id: None,
            reply_to: None,
            encrypted: false,
            thread: thread.map(thread_id),
            journal: None,
            streaming: false,
        })),
        1 => (1u64..30).prop_map(|seq| Action::Edit { message: MessageName::Seq(seq), content: "edited".into() }),
        1 => (1u64..30).prop_map(|seq| Action::Delete(MessageName::Seq(seq))),
        1 => (1u64..30).prop_map(|seq| Action::Hide(MessageName::Seq(seq))),
        1 => prop::option::of(prop::option::of(1i64..1_000_000)).prop_map(|mute| {
            Action::Mute(mute.map(|until_ms| Mute { until_ms }))
        }),
        3 => (1u128..12, 0usize..3, any::<bool>()).prop_map(|(id, emoji, remove)| Action::React(React {
            message: name(id),
            emoji: ["👍", "😂", "❤️"][emoji].into(),
            remove,
        })),
        1 => (0u128..4, prop::option::of(0u128..4), prop::option::of(1u128..12)).prop_map(|(id, parent, root)| {
            Action::StartThread(StartThread {
                thread: thread_id(id),
                title: String::new(),
                root: root.map(name),
                parent: parent.map(thread_id),
            })
        }),
        1 => (0u32..3, prop::option::of(any::<bool>())).prop_map(|(n, read_only)| Action::Update(Update {
            title: Some(format!("title {n}")),
            status: None,
            channel: None,
            metadata_json: None,
            read_only,
        })),
        3 => (prop::collection::btree_set(who(), 1..4), role(), any::<bool>()).prop_map(|(users, role, change_present)| {
            Action::AddMembers(AddMembers { users, role, provision: true, change_present, leave_out_blocking: false })
        }),
        2 => who().prop_map(Action::RemoveMember),
        1 => (1u128..12).prop_map(|id| Action::Report(Report {
            message: name(id),
            reason: v1::ReportReason::Spam,
            comment: String::new(),
        })),
        1 => who().prop_map(Action::Ban),
        1 => who().prop_map(Action::Unban),
        2 => (who(), role()).prop_map(|(user, role)| Action::ChangeRole(user, role)),
        2 => (0u64..30, 1u64..30, any::<bool>()).prop_map(|(up_to, seq, delivered_only)| {
            Action::Receive(Receive { up_to, messages: vec![MessageName::Seq(seq)], delivered_only, through: false })
        }),
    ]
}

fn any_works() -> impl Strategy<Value = Vec<Work>> {
    let who = prop::sample::select(vec!["alice", "alice", "bob", "carol", "dave", "mallory"]);
    let once = prop::collection::vec((who, any_action()), 1..70).prop_map(|actions| {
        let work_of = |(n, (who, action)): (usize, (&str, Action))| work(1_000 + n as u128, who, action);
        actions.into_iter().enumerate().map(work_of).collect::<Vec<_>>()
    });
    // Some come again later, as they do when an acknowledgement is lost.
    (once, prop::collection::vec(any::<prop::sample::Index>(), 0..20)).prop_map(|(mut works, again)| {
        for index in again {
            let place = index.index(works.len());
            let repeat = works[place].clone();
            works.insert(place + (works.len() - place) / 2, repeat);
        }
        works
    })
}

/// What must hold whenever no command is being carried out.
fn check(state: &ConversationState) -> Result<(), TestCaseError> {
    let admins = state
        .members
        .values()
        .filter(|member| member.role == Role::Admin)
        .count();
    prop_assert!(state.members.is_empty() || admins > 0, "nobody leads");
    prop_assert!(
        !state.banned.iter().any(|user| state.members.contains_key(user)),
        "a banned user is a member"
    );
    let mut replies: BTreeMap<String, u64> = BTreeMap::new();
    for message in state.messages.values() {
        let marks: BTreeSet<_> = message
            .reactions
            .iter()
            .map(|mark| (&mark.user_id, &mark.emoji))
            .collect();
        prop_assert_eq!(marks.len(), message.reactions.len());
        prop_assert!(message.deleted_at_ms.is_none() || (marks.is_empty() && message.content.is_empty()));
        if let Some(thread) = &message.thread_id {
            *replies.entry(thread.clone()).or_default() += 1;
        }
    }
    for (_, thread) in state.threads.values() {
        prop_assert_eq!(
            thread.reply_count,
            replies.get(&thread.id).copied().unwrap_or_default()
        );
    }
    for member in state.members.values() {
        prop_assert!(member.delivered_seq <= state.head_seq && member.joined_seq <= state.head_seq);
        let read_to = member.read.bounds().map_or(0, |bounds| bounds.1);
        prop_assert!(read_to <= member.delivered_seq, "read means delivered");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_change_has_its_place_once_and_outsiders_have_none(works in any_works(), sizes in prop::collection::vec(1usize..9, 40)) {
        let mut state = loaded();
        let mut told: BTreeMap<u64, &'static str> = BTreeMap::new();
        let mut done: BTreeMap<u64, CommandId> = BTreeMap::new();
        let mut rest = works.as_slice();
        for size in sizes {
            let (batch, behind) = rest.split_at(size.min(rest.len()));
            rest = behind;
            let mut effects = Effects::default();
            for work in batch {
                let before = state.conversations[&group()].clone();
                let outcome = one(&mut state, &mut effects, work).unwrap_or_else(Outcome::Rejected);
                let now = &state.conversations[&group()];
                let (events, repeated) = events_of(&outcome);
                for event in &events {
                    let kind = kind_of(event);
                    match told.get(&event.seq) {
                        Some(earlier) => prop_assert!(repeated && *earlier == kind, "{} {} again", event.seq, kind),
                        None => {
                            prop_assert!(!repeated, "{kind} is new");
                            told.insert(event.seq, kind);
                            done.insert(event.seq, work.id);
                        }
                    }
                }
                if !before.members.contains_key(&work.actor.id) && !repeated {
                    prop_assert!(matches!(&outcome, Outcome::Rejected(e) if e.code() == ErrorCode::NotFound), "{outcome:?}");
                }
                if matches!(outcome, Outcome::Rejected(_)) || repeated {
                    prop_assert_eq!(before.head_seq, now.head_seq);
                }
                check(now)?;
            }
            let seqs: Vec<u64> = told.keys().copied().collect();
            prop_assert_eq!(seqs, (1..=state.conversations[&group()].head_seq).collect::<Vec<_>>());
            // What is written is exactly what was told.
            let written: BTreeSet<u64> = effects.new_changes.iter().map(|(_, _, change)| change.seq).collect();
            prop_assert!(written.iter().all(|seq| told.contains_key(seq)));
        }
    }
}

#[test]
fn the_last_admin_is_followed_by_a_moderator_or_else_by_whoever_is_there_longest() {
    let mut state = loaded();
    let leave = |command, who: &str| work(command, who, Action::RemoveMember(user(who)));
    let effects = apply(
        &mut state,
        &[
            work(10, "alice", Action::ChangeRole(user("carol"), Role::Moderator)),
            leave(11, "alice"),
            leave(12, "carol"),
            leave(13, "bob"),
        ],
    );
    let kinds: Vec<Vec<&str>> = effects
        .outcomes
        .iter()
        .map(|outcome| events_of(outcome).0.into_iter().map(kind_of).collect())
        .collect();
    assert_eq!(
        kinds,
        [
            vec!["role"],
            vec!["removed", "role"],
            vec!["removed", "role"],
            vec!["removed"]
        ]
    );
    let roles: Vec<(&str, Role)> = effects
        .roles
        .iter()
        .map(|((_, user), role)| (user.as_str(), *role))
        .collect();
    assert_eq!(roles, [("bob", Role::Admin), ("carol", Role::Admin)]);
}

fn add(command: u128, who: &str, users: &[&str], role: Role, change_present: bool) -> Work {
    let add = AddMembers {
        users: users.iter().map(|id| user(id)).collect(),
        role,
        provision: true,
        change_present,
        leave_out_blocking: false,
    };
    work(command, who, Action::AddMembers(add))
}

fn role_of(state: &Loaded, who: &str) -> Option<Role> {
    state.conversations[&group()]
        .members
        .get(&user(who))
        .map(|member| member.role)
}

#[test]
fn an_addition_with_a_role_gives_it_to_those_that_are_members_already() {
    let mut state = loaded();
    let works = [
        add(
            10,
            "alice",
            &["bob", "carol", "dave", "erin"],
            Role::Moderator,
            true,
        ),
        add(11, "alice", &["bob"], Role::Moderator, true),
        add(12, "alice", &["bob"], Role::Member, false),
    ];
    let effects = apply(&mut state, &works);
    let kinds = |outcome: &Outcome| {
        let (events, repeated) = events_of(outcome);
        let kinds: Vec<&str> = events.into_iter().map(kind_of).collect();
        (kinds, repeated)
    };
    assert_eq!(
        effects.outcomes.iter().map(kinds).collect::<Vec<_>>(),
        [
            (vec!["added", "role", "role"], false),
            (vec![], true),
            (vec![], true)
        ]
    );
    for who in ["bob", "carol", "dave", "erin"] {
        assert_eq!(role_of(&state, who), Some(Role::Moderator), "{who}");
    }
    let again = apply(&mut state, &works[..1]);
    assert_eq!(kinds(&again.outcomes[0]), (vec!["added", "role", "role"], true));
    assert!(again.new_changes.is_empty());
}

#[test]
fn an_addition_changes_no_role_that_a_role_change_may_not() {
    let mut state = loaded();
    let codes_of_all = codes(&apply(
        &mut state,
        &[
            work(10, "alice", Action::ChangeRole(user("bob"), Role::Moderator)),
            // A moderator may add members, but neither promotes nor demotes; then nobody is added either.
            add(11, "bob", &["carol", "dave"], Role::Moderator, true),
            add(12, "bob", &["alice", "dave"], Role::Member, true),
            add(13, "bob", &["carol", "dave"], Role::Member, true),
            // Nobody would lead.
            add(14, "alice", &["alice", "erin"], Role::Member, true),
            add(15, "mallory", &["carol"], Role::Admin, true),
        ],
    ));
    let forbidden = Some(ErrorCode::Forbidden);
    assert_eq!(
        codes_of_all,
        [
            None,
            forbidden,
            forbidden,
            None,
            Some(ErrorCode::Invalid),
            Some(ErrorCode::NotFound)
        ]
    );
    assert_eq!(role_of(&state, "alice"), Some(Role::Admin));
    assert_eq!(role_of(&state, "carol"), Some(Role::Member));
    assert_eq!(role_of(&state, "dave"), Some(Role::Member));
    assert_eq!(role_of(&state, "erin"), None);
}

#[test]
fn an_emoji_with_and_without_its_selector_is_one_reaction() {
    let mut state = loaded();
    let react = |command, who: &str, emoji: &str, remove| {
        let react = React {
            message: name(1),
            emoji: emoji.into(),
            remove,
        };
        work(command, who, Action::React(react))
    };
    let (plain, coloured) = ("\u{2764}", "\u{2764}\u{FE0F}");
    let works = [
        send(10, "bob", 1),
        react(11, "bob", coloured, false),
        react(12, "carol", plain, false),
        react(13, "bob", plain, false),
        react(14, "bob", plain, true),
        react(15, "alice", plain, false),
    ];
    let effects = apply(&mut state, &works);
    let repeated: Vec<bool> = effects
        .outcomes
        .iter()
        .map(|outcome| events_of(outcome).1)
        .collect();
    assert_eq!(repeated, [false, false, false, true, false, false]);
    let marks = &state.conversations[&group()].messages[&message_id(1)].reactions;
    let marks: Vec<(&str, &str)> = marks
        .iter()
        .map(|mark| (mark.user_id.as_str(), mark.emoji.as_str()))
        .collect();
    assert_eq!(marks, [("carol", coloured), ("alice", coloured)]);
}

#[test]
fn a_message_takes_fifty_different_emoji_and_no_more() {
    let mut state = loaded();
    apply(&mut state, &[send(10, "bob", 1)]);
    let react = |command: u128, who: &str, emoji: u32| {
        let emoji = char::from_u32(0x1F600 + emoji).unwrap().to_string();
        work(
            command,
            who,
            Action::React(React {
                message: name(1),
                emoji,
                remove: false,
            }),
        )
    };
    let works: Vec<Work> = (0..51).map(|n| react(100 + u128::from(n), "bob", n)).collect();
    let codes_of_all = codes(&apply(&mut state, &works));
    assert!(codes_of_all[..50].iter().all(Option::is_none));
    assert_eq!(codes_of_all[50], Some(ErrorCode::Invalid));
    // One that is there already is open to others.
    assert_eq!(codes(&apply(&mut state, &[react(300, "carol", 7)])), [None]);
}
