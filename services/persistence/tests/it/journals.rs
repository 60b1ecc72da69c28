//! Journals: who may change the text, and that nobody's words are lost.

use parlance_journal::{Budget, Document, EMPTY_UPDATE, Writer};
use parlance_persistence::ingest::answer::Answer;
use parlance_proto::v1::{
    self, ConversationKind, ErrorCode, MessageType, Role, command, confirmation, query,
};
use parlance_proto::{ConversationId, MessageId};

use prost::Message as _;

use crate::database::{LIMITS, TestDatabase, with_database};
use crate::queries::{answered, ask, events, queries};
use crate::works::{code, command, conversation, creation, sending, user, view, work};

pub(crate) fn journal(who: &str, id: ConversationId, content: &str) -> v1::Command {
    let create = v1::CreateConversation {
        kind: ConversationKind::Journal.into(),
        title: "Diary".into(),
        journal: change(&[], content),
        provision_users: true,
        ..Default::default()
    };
    command(who, id, command::Body::CreateConversation(create))
}

/// The update of an editor who makes the text of this document into that.
fn change(document: &[Vec<u8>], content: &str) -> Vec<u8> {
    let mut theirs = Document::load(document, any_writer()).unwrap();
    let edit = theirs.rewrite(content, &mut { Budget::EDIT }).unwrap();
    edit.map_or_else(|| EMPTY_UPDATE.to_vec(), |edit| edit.update)
}

fn any_writer() -> Writer {
    Writer::new(conversation().uuid().as_u64_pair().1)
}

pub(crate) fn edit(who: &str, id: ConversationId, update: Vec<u8>) -> v1::Command {
    command(who, id, command::Body::EditJournal(v1::EditJournal { update }))
}

/// The document as of a version, read in its parts; 0 for the present.
async fn document(
    db: &TestDatabase,
    who: &str,
    id: ConversationId,
    version: u64,
) -> (v1::JournalVersion, Vec<Vec<u8>>) {
    let queries = queries(db).await;
    let mut read = v1::ReadJournal {
        journal_id: id.to_string(),
        version,
        offset: 0,
    };
    let mut encoded = Vec::new();
    loop {
        let part = query::Body::ReadJournal(read.clone());
        let part = answered!(ask(&queries, who, part).await, JournalDocument);
        encoded.extend(part.part);
        let found = part.version.unwrap();
        if part.next == 0 {
            let updates = v1::JournalUpdates::decode(encoded.as_slice()).unwrap().updates;
            return (found, updates.into_iter().map(|update| update.update).collect());
        }
        (read.version, read.offset) = (found.version, part.next);
    }
}

async fn text(db: &TestDatabase, id: ConversationId, version: u64) -> String {
    let (_, document) = document(db, "", id, version).await;
    Document::load(document, Writer::NONE).unwrap().text()
}

/// A change of the text as of a version; 0 for the present.
async fn rewrite(
    db: &TestDatabase,
    who: &str,
    id: ConversationId,
    base_version: u64,
    content: &str,
) -> v1::Command {
    let (_, document) = document(db, "", id, base_version).await;
    edit(who, id, change(&document, content))
}

fn share(who: &str, id: ConversationId, with: &str, role: Role) -> v1::Command {
    let add = v1::AddMembers {
        user_ids: vec![with.into()],
        role: role.into(),
        provision_users: true,
        change_present: false,
        leave_out_blocking: false,
    };
    command(who, id, command::Body::AddMembers(add))
}

fn edited(answer: &Answer) -> v1::JournalEdited {
    match &answer.result {
        confirmation::Result::Journal(edited) => edited.clone(),
        other => panic!("no journal: {other:?}"),
    }
}

/// The journal as REST shows it.
async fn shown(db: &TestDatabase, id: ConversationId) -> v1::Conversation {
    let asked = v1::GetConversation {
        conversation_id: id.to_string(),
        client: None,
    };
    let queries = queries(db).await;
    answered!(
        ask(&queries, "alice", query::Body::GetConversation(asked)).await,
        Conversation
    )
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
        assert_eq!(view(&created[0]).kind(), ConversationKind::Journal);
        assert!(created.iter().all(|answer| answer.notices.is_empty()));
        let left = rewrite(&db, "alice", id, 1, "one\nleft\ntwo\n").await;
        let right = rewrite(&db, "bob", id, 2, "one\ntwo\nright\n").await;
        let answers = db.commit(&[work(&left), work(&right)]).await;
        assert_eq!((edited(&answers[0]).version, edited(&answers[1]).version), (3, 4));
        assert_eq!(text(&db, id, 0).await, "one\nleft\ntwo\nright\n");
        // From a version that only the stored checkpoint and updates know.
        let late = rewrite(&db, "bob", id, 3, "zero\none\nleft\ntwo\n").await;
        let late = one(&mut db, &late).await;
        assert_eq!(text(&db, id, 0).await, "zero\none\nleft\ntwo\nright\n");
        let nothing = edit("alice", id, EMPTY_UPDATE.to_vec());
        let again = db.commit(&[work(&left), work(&right), work(&nothing)]).await;
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
        assert_eq!((rest.next, rest.versions[1].actor_id.as_str()), (0, "alice"));
        let texts = [
            text(&db, id, 1).await,
            text(&db, id, 2).await,
            text(&db, id, 3).await,
        ];
        assert_eq!(texts, ["one\ntwo\n", "one\ntwo\n", "one\nleft\ntwo\n"]);
        assert_eq!(document(&db, "bob", id, 2).await.0.version, 1);
        assert_eq!(
            ask(&queries, "eve", versions(0, 0)).await,
            Err(ErrorCode::NotFound)
        );
    })
    .await;
}

#[tokio::test]
async fn whoever_asks_for_an_edit_by_its_id_changes_nothing_and_uses_no_id_up() {
    with_database(async |mut db| {
        let id = conversation();
        db.commit(&[work(&journal("alice", id, "one\n"))]).await;
        let change = rewrite(&db, "alice", id, 1, "one\ntwo\n").await;
        let asks = v1::Command {
            id: change.id.clone(),
            ..edit("alice", id, Vec::new())
        };
        let missing = one(&mut db, &asks).await;
        let confirmation::Result::Error(error) = &missing.result else {
            panic!("{missing:?}");
        };
        assert_eq!((error.code(), missing.events.len()), (ErrorCode::Conflict, 0));
        let made = one(&mut db, &change).await;
        let other = rewrite(&db, "alice", id, 2, "one\ntwo\nthree\n").await;
        let answers = db.commit(&[work(&other), work(&asks)]).await;
        assert_eq!(edited(&answers[1]), edited(&made));
        // One that changed nothing was processed too.
        let nothing = edit("alice", id, EMPTY_UPDATE.to_vec());
        let asks = v1::Command {
            id: nothing.id.clone(),
            ..edit("alice", id, Vec::new())
        };
        let answers = db.commit(&[work(&nothing), work(&asks)]).await;
        assert_eq!(edited(&answers[1]), edited(&answers[0]));
        assert_eq!(text(&db, id, 0).await, "one\ntwo\nthree\n");
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
            let (base, before) = bases[bases.len() - 1 - (n * 7) % bases.len().min(40)].clone();
            let change = rewrite(&db, "alice", id, base, &format!("{before}line {n}\n")).await;
            let version = edited(&one(&mut db, &change).await).version;
            bases.push((version, text(&db, id, version).await));
        }
        let text = &bases.last().unwrap().1;
        assert!((0..70).all(|n| text.contains(&format!("line {n}\n"))), "{text}");
        for (version, then) in bases.iter().step_by(9) {
            assert_eq!(&self::text(&db, id, *version).await, then, "version {version}");
        }
        let stored = "SELECT count(*) FROM journal_versions WHERE content <> '' OR checkpoint IS NOT NULL";
        assert_eq!(db.number(stored).await, 3);
        let present = "SELECT content FROM journals WHERE state IS NULL";
        assert_eq!(&db.text(present).await, text);
        let queries = queries(&db).await;
        let mut follower = Document::new(Writer::NONE);
        let (mut after, mut last) = (0, 0);
        loop {
            let page = answered!(
                ask(&queries, "alice", events(&id.to_string(), after, 0)).await,
                Events
            );
            after = page.events.last().map_or(after, |event| event.seq);
            for event in &page.events {
                let Some(v1::event::Body::JournalEdited(edited)) = &event.body else {
                    panic!("{event:?}")
                };
                follower.apply_stored(&edited.update).unwrap();
                last = edited.version;
            }
            if page.complete {
                break;
            }
        }
        assert_eq!((last, &follower.text()), (71, text));
    })
    .await;
}

/// The text of a large journal is stored with its checkpoints only.
#[tokio::test]
async fn a_large_text_is_what_its_updates_make_of_it_until_it_is_stored_again() {
    with_database(async |mut db| {
        let (large, small) = (conversation(), conversation());
        let mut expected = "a line that is not short\n".repeat(1_000);
        one(&mut db, &journal("alice", large, &expected)).await;
        one(&mut db, &journal("alice", small, "short\n")).await;
        let mut stored = expected.clone();
        for n in 1..=40 {
            expected = format!("{n}\n{expected}");
            let change = rewrite(&db, "alice", large, 0, &expected).await;
            let version = edited(&one(&mut db, &change).await).version;
            // The first version is 1, and had a checkpoint.
            if version == 33 {
                stored = expected.clone();
            }
            let shown = shown(&db, large).await;
            assert_eq!(
                (shown.journal_version, shown.content.as_ref()),
                (version, Some(&expected))
            );
            let is_stored = "SELECT content FROM journals ORDER BY octet_length(content) DESC LIMIT 1";
            assert!(db.text(is_stored).await == stored, "version {version}");
        }
        let change = rewrite(&db, "alice", small, 0, "shorter\n").await;
        one(&mut db, &change).await;
        let is_stored = "SELECT content FROM journals ORDER BY octet_length(content) LIMIT 1";
        assert_eq!(db.text(is_stored).await, "shorter\n");
    })
    .await;
}

/// A replica keeps what it has written, and others write as well.
#[tokio::test]
async fn what_another_replica_has_written_meanwhile_is_not_missed() {
    with_database(async |mut db| {
        let id = conversation();
        let mut expected = "begun\n".to_owned();
        one(&mut db, &journal("alice", id, &expected)).await;
        for n in 0..80 {
            expected = format!("{n}\n{expected}");
            let change = work(&rewrite(&db, "alice", id, 0, &expected).await);
            let answers = match n % 7 {
                2 | 3 => db.commit_elsewhere(&[change]).await,
                _ => db.commit(&[change]).await,
            };
            assert_eq!(edited(&answers[0]).version, n + 2);
            // A change that is too large leaves it as it was.
            if n % 10 == 0 {
                let large = rewrite(&db, "alice", id, 0, &"x".repeat(LIMITS.text_bytes + 1)).await;
                assert_eq!(code(&one(&mut db, &large).await), Some(ErrorCode::TooLarge));
            }
        }
        assert_eq!(text(&db, id, 0).await, expected);
        assert_eq!(shown(&db, id).await.content, Some(expected));
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
        let rewrite = |who: &str, content: &str| edit(who, id, change(&[], content));
        let huge = "x".repeat(LIMITS.text_bytes + 1);
        for (command, expected) in [
            (rewrite("vera", "mine"), Some(ErrorCode::Forbidden)),
            (rewrite("mallory", "mine"), Some(ErrorCode::NotFound)),
            (rewrite("edda", "edited"), None),
            (rewrite("edda", &huge), Some(ErrorCode::TooLarge)),
            (edit("edda", id, b"junk".to_vec()), Some(ErrorCode::Invalid)),
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
            (rewrite("vera", "now mine"), None),
            (
                sending("alice", id, "m1", "a journal has no messages"),
                Some(ErrorCode::Invalid),
            ),
            (leave("alice"), Some(ErrorCode::Invalid)),
            (leave("vera"), None),
            (rewrite("vera", "late"), Some(ErrorCode::NotFound)),
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
