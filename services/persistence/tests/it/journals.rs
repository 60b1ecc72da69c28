//! Journals: who may change the text, and that nobody's words are lost.

use parlance_persistence::ingest::answer::Answer;
use parlance_proto::v1::{
    self, ConversationKind, ErrorCode, MessageType, Role, command, confirmation, edit_journal, query,
};
use parlance_proto::{ConversationId, MessageId};

use crate::database::{TestDatabase, with_database};
use crate::queries::{answered, ask, events, queries};
use crate::works::{code, command, conversation, creation, sending, user, view, work};

pub(crate) fn journal(who: &str, id: ConversationId, content: &str) -> v1::Command {
    let create = v1::CreateConversation {
        kind: ConversationKind::Journal.into(),
        title: "Diary".into(),
        content: content.into(),
        provision_users: true,
        ..Default::default()
    };
    command(who, id, command::Body::CreateConversation(create))
}

fn share(who: &str, id: ConversationId, with: &str, role: Role) -> v1::Command {
    let add = v1::AddMembers {
        user_ids: vec![with.into()],
        role: role.into(),
        provision_users: true,
        change_present: false,
    };
    command(who, id, command::Body::AddMembers(add))
}

pub(crate) fn rewrite(who: &str, id: ConversationId, base_version: u64, content: &str) -> v1::Command {
    let edit = v1::EditJournal {
        base_version,
        change: Some(edit_journal::Change::Content(content.into())),
    };
    command(who, id, command::Body::EditJournal(edit))
}

fn edited(answer: &Answer) -> v1::JournalEdited {
    match &answer.result {
        confirmation::Result::Journal(edited) => edited.clone(),
        other => panic!("no journal: {other:?}"),
    }
}

async fn one(db: &mut TestDatabase, command: &v1::Command) -> Answer {
    db.commit(&[work(command)]).await.remove(0)
}

#[tokio::test]
async fn edits_of_an_older_version_merge_and_repeats_change_nothing() {
    with_database(async |mut db| {
        let id = conversation();
        let created = db
            .commit(&[
                work(&journal("alice", id, "one\ntwo\n")),
                work(&share("alice", id, "bob", Role::Editor)),
            ])
            .await;
        let seen = view(&created[0]);
        assert_eq!(
            (seen.content.as_deref(), seen.kind()),
            (Some("one\ntwo\n"), ConversationKind::Journal)
        );
        assert!(created.iter().all(|answer| answer.notices.is_empty()));
        let left = rewrite("alice", id, 1, "one\nleft\ntwo\n");
        let right = rewrite("bob", id, 2, "one\ntwo\nright\n");
        let answers = db.commit(&[work(&left), work(&right)]).await;
        assert_eq!((edited(&answers[0]).version, edited(&answers[1]).version), (3, 4));
        assert_eq!(edited(&answers[1]).content, "one\nleft\ntwo\nright\n");
        // From a version that only the stored checkpoint and updates know.
        let late = one(&mut db, &rewrite("bob", id, 3, "zero\none\nleft\ntwo\n")).await;
        assert_eq!(edited(&late).content, "zero\none\nleft\ntwo\nright\n");
        let again = db
            .commit(&[
                work(&left),
                work(&right),
                work(&rewrite("alice", id, 5, &edited(&late).content)),
            ])
            .await;
        assert!(again.iter().all(|answer| answer.repeated));
        assert_eq!(
            (&again[0].events, &again[1].events),
            (&answers[0].events, &answers[1].events)
        );
        assert_eq!((edited(&again[2]).version, again[2].events.len()), (5, 0));
        let queries = queries(&db).await;
        let log = answered!(ask(&queries, "bob", events(&id.to_string(), 2, 0)).await, Events);
        let told: Vec<_> = answers
            .iter()
            .chain([&late])
            .flat_map(|answer| answer.events.clone())
            .collect();
        assert_eq!(log.events, told);
        let versions = |before, limit| {
            query::Body::ListJournalVersions(v1::ListJournalVersions {
                journal_id: id.to_string(),
                before,
                limit,
            })
        };
        let page = answered!(ask(&queries, "bob", versions(0, 2)).await, JournalVersions);
        assert_eq!(
            page.versions.iter().map(|v| v.version).collect::<Vec<_>>(),
            [5, 4]
        );
        let rest = answered!(
            ask(&queries, "bob", versions(page.next, 9)).await,
            JournalVersions
        );
        assert_eq!(
            rest.versions.iter().map(|v| v.version).collect::<Vec<_>>(),
            [3, 1]
        );
        assert_eq!(
            (
                rest.next,
                rest.versions[1].content.as_str(),
                rest.versions[1].actor_id.as_str()
            ),
            (0, "one\ntwo\n", "alice")
        );
        assert_eq!(
            ask(&queries, "eve", versions(0, 0)).await,
            Err(ErrorCode::NotFound)
        );
    })
    .await;
}

#[tokio::test]
async fn a_follower_of_updates_has_the_same_text_after_many_versions() {
    with_database(async |mut db| {
        let id = conversation();
        one(&mut db, &journal("alice", id, "start\n")).await;
        let mut bases = vec![(1, "start\n".to_owned())];
        for n in 0..70 {
            // Sometimes the present version, sometimes one far behind, across checkpoints.
            let (base, text) = bases[bases.len() - 1 - (n * 7) % bases.len().min(40)].clone();
            let answer = one(&mut db, &rewrite("alice", id, base, &format!("{text}line {n}\n"))).await;
            let now = edited(&answer);
            bases.push((now.version, now.content));
        }
        let text = &bases.last().unwrap().1;
        assert!((0..70).all(|n| text.contains(&format!("line {n}\n"))), "{text}");
        assert!(
            db.number("SELECT count(*) FROM journal_versions WHERE checkpoint IS NOT NULL")
                .await
                >= 3
        );
        let queries = queries(&db).await;
        let room = query::Body::GetRoom(v1::GetRoom {
            conversation_id: id.to_string(),
        });
        let room = answered!(ask(&queries, "", room).await, Room);
        let content = parlance_persistence::journal::content_of(&room.journal_state.unwrap()).unwrap();
        assert_eq!((room.kind, &content), (ConversationKind::Journal.into(), text));
        let (mut after, mut last) = (0, None);
        loop {
            let page = answered!(
                ask(&queries, "alice", events(&id.to_string(), after, 0)).await,
                Events
            );
            after = page.events.last().map_or(after, |event| event.seq);
            last = page.events.last().cloned().or(last);
            if page.complete {
                break;
            }
        }
        let Some(v1::event::Body::JournalEdited(last)) = last.unwrap().body else {
            panic!("a text")
        };
        assert_eq!((last.version, &last.content), (71, text));
    })
    .await;
}

#[tokio::test]
async fn only_owner_and_editors_write_and_only_the_owner_decides_who_they_are() {
    with_database(async |mut db| {
        let id = conversation();
        let setup = [
            work(&journal("alice", id, "text")),
            work(&share("alice", id, "vera", Role::Viewer)),
            work(&share("alice", id, "edda", Role::Editor)),
        ];
        db.commit(&setup).await;
        let leave = |who: &str| {
            command(
                who,
                id,
                command::Body::RemoveMember(v1::RemoveMember { user_id: who.into() }),
            )
        };
        let role = |who: &str, of: &str, role: Role| {
            command(
                who,
                id,
                command::Body::ChangeRole(v1::ChangeRole {
                    user_id: of.into(),
                    role: role.into(),
                }),
            )
        };
        let garbage = v1::EditJournal {
            base_version: 0,
            change: Some(edit_journal::Change::Update(b"junk".to_vec())),
        };
        let huge = "x".repeat(parlance_persistence::journal::MAX_TEXT_BYTES + 1);
        for (command, expected) in [
            (rewrite("vera", id, 0, "mine"), Some(ErrorCode::Forbidden)),
            (rewrite("mallory", id, 0, "mine"), Some(ErrorCode::NotFound)),
            (rewrite("edda", id, 0, "edited"), None),
            (rewrite("edda", id, 99, "future"), Some(ErrorCode::Invalid)),
            (rewrite("edda", id, 0, &huge), Some(ErrorCode::TooLarge)),
            (
                command("edda", id, command::Body::EditJournal(garbage)),
                Some(ErrorCode::Invalid),
            ),
            (
                share("edda", id, "ewan", Role::Editor),
                Some(ErrorCode::Forbidden),
            ),
            (share("edda", id, "vic", Role::Viewer), None),
            (share("alice", id, "olga", Role::Owner), Some(ErrorCode::Invalid)),
            (share("alice", id, "mona", Role::Member), Some(ErrorCode::Invalid)),
            (role("edda", "vera", Role::Editor), Some(ErrorCode::Forbidden)),
            (role("alice", "vera", Role::Editor), None),
            (role("alice", "alice", Role::Viewer), Some(ErrorCode::Invalid)),
            (rewrite("vera", id, 0, "now mine"), None),
            (
                sending("alice", id, "m1", "a journal has no messages"),
                Some(ErrorCode::Invalid),
            ),
            (leave("alice"), Some(ErrorCode::Invalid)),
            (leave("vera"), None),
            (rewrite("vera", id, 0, "late"), Some(ErrorCode::NotFound)),
        ] {
            let answer = one(&mut db, &command).await;
            assert_eq!(code(&answer), expected, "{command:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn journals_are_listed_for_their_people_and_apart_from_conversations() {
    with_database(async |mut db| {
        let id = conversation();
        let setup = [
            work(&journal("alice", id, "text")),
            work(&share("alice", id, "edda", Role::Editor)),
        ];
        db.commit(&setup).await;
        let queries = queries(&db).await;
        let journals = |who| {
            ask(
                &queries,
                who,
                query::Body::ListJournals(v1::ListJournals::default()),
            )
        };
        let listed = answered!(journals("edda").await, Conversations).conversations;
        assert_eq!(
            (
                listed.len(),
                listed[0].content.as_ref(),
                listed[0].participants.len()
            ),
            (1, None, 2)
        );
        assert!(
            answered!(journals("vera").await, Conversations)
                .conversations
                .is_empty()
        );
        let list = query::Body::ListConversations(v1::ListConversations::default());
        assert!(
            answered!(ask(&queries, "edda", list).await, Conversations)
                .conversations
                .is_empty()
        );
        let memberships = query::Body::ListMemberships(v1::ListMemberships {
            user_ids: vec!["edda".into()],
        });
        let memberships = answered!(ask(&queries, "", memberships).await, Memberships).memberships;
        assert!(memberships[0].conversation_ids.is_empty() && memberships[0].version == 0);
    })
    .await;
}

#[tokio::test]
async fn a_shared_journal_is_opened_for_those_it_was_shared_with() {
    with_database(async |mut db| {
        let (chat, diary) = (conversation(), conversation());
        let created = db
            .commit(&[
                work(&creation("alice", chat, &["bob", "carol"])),
                work(&journal("alice", diary, "dear")),
            ])
            .await;
        let sharing = |who: &str, metadata: String| {
            let send = v1::SendMessage {
                message_id: MessageId::derive(chat, &user(who), &metadata).to_string(),
                r#type: MessageType::JournalShare.into(),
                metadata_json: metadata,
                ..Default::default()
            };
            command(who, chat, command::Body::SendMessage(send))
        };
        let by_number = sharing(
            "alice",
            format!(r#"{{"journalId": {}}}"#, view(&created[1]).number),
        );
        let answers = db
            .commit(&[
                work(&by_number),
                work(&sharing("bob", format!(r#"{{"journal_id": "{diary}"}}"#))),
                work(&sharing("bob", r#"{"journalId": 4711}"#.into())),
            ])
            .await;
        let [open] = answers[0].then.as_slice() else {
            panic!("{answers:?}")
        };
        assert_eq!((answers[1].then.len(), answers[2].then.len()), (1, 0));
        // Bob is no collaborator: his sharing opens nothing.
        assert_eq!(
            code(&one(&mut db, &answers[1].then[0]).await),
            Some(ErrorCode::NotFound)
        );
        let opened = one(&mut db, open).await;
        let roles: Vec<_> = view(&opened)
            .participants
            .iter()
            .map(|p| (p.user_id.clone(), p.role()))
            .collect();
        assert_eq!(
            roles,
            [
                ("alice".to_owned(), Role::Owner),
                ("bob".to_owned(), Role::Viewer),
                ("carol".to_owned(), Role::Viewer)
            ]
        );
        // Redelivered, the message leads to the same command, and that is a repeat.
        let again = one(&mut db, &by_number).await;
        assert_eq!(again.then[0].id, open.id);
        assert!(one(&mut db, &again.then[0]).await.repeated);
    })
    .await;
}
