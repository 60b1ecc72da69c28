//! Blocked users on a real Postgres: what is refused inside the transaction, to whom, and what stays possible.

use std::time::Duration;

use parlance_harness::eventually::eventually;
use parlance_persistence::ingest::answer::Answer;
use parlance_persistence::queries::Queries;
use parlance_proto::v1::{self, Command, ConversationKind, ErrorCode, command, query, reply};
use parlance_proto::{ConversationId, MessageId};

use crate::database::{TestDatabase, with_database};
use crate::queries::{ask, queries};
use crate::works::{
    add, code, command, conversation, creation, delete, direct, edit, message, read, sending, user, view,
    work,
};

async fn block(queries: &Queries, who: &str, whom: &str, blocked: bool) -> Result<(), ErrorCode> {
    let set = v1::SetBlock {
        user_id: whom.into(),
        blocked,
    };
    ask(queries, who, query::Body::SetBlock(set)).await.map(drop)
}

async fn blocks(queries: &Queries, who: &str, both_ways: bool) -> Vec<String> {
    let list = v1::ListBlocks {
        after: String::new(),
        limit: 10,
        both_ways,
    };
    match ask(queries, who, query::Body::ListBlocks(list)).await {
        Ok(reply::Body::Blocks(page)) => page.user_ids,
        other => panic!("no blocks: {other:?}"),
    }
}

/// Alice, bob and carol, and the direct conversation of alice and bob with a message of each.
async fn pair(db: &mut TestDatabase) -> (ConversationId, Vec<Answer>) {
    let id = ConversationId::direct(&user("alice"), &user("bob"));
    let answers = db
        .commit(&[
            work(&direct("alice", "bob")),
            work(&sending("alice", id, "a1", "hers")),
            work(&sending("bob", id, "b1", "his")),
            work(&direct("alice", "carol")),
        ])
        .await;
    (id, answers)
}

/// Everything in a direct conversation that would reach the other.
fn reaching(who: &str, id: ConversationId, own: &str, round: usize) -> Vec<Command> {
    let title = v1::UpdateConversation {
        title: Some(format!("title {round}")),
        ..Default::default()
    };
    let react = v1::React {
        message_id: own.into(),
        emoji: "👍".into(),
        remove: false,
    };
    let thread = v1::CreateThread {
        thread_id: crate::works::fresh(),
        ..Default::default()
    };
    vec![
        sending(who, id, &format!("again-{round}"), "more"),
        edit(who, id, own, "other words"),
        command(who, id, command::Body::React(react)),
        command(who, id, command::Body::CreateThread(thread)),
        command(who, id, command::Body::UpdateConversation(title)),
    ]
}

/// All that commands of conversations may change.
async fn contents(db: &TestDatabase) -> Vec<String> {
    let mut contents = Vec::new();
    for table in [
        "SELECT coalesce(string_agg(t::text, chr(10) ORDER BY t::text), '') FROM conversations t",
        "SELECT coalesce(string_agg(t::text, chr(10) ORDER BY t::text), '') FROM participants t",
        "SELECT coalesce(string_agg(t::text, chr(10) ORDER BY t::text), '') FROM messages t",
        "SELECT coalesce(string_agg(t::text, chr(10) ORDER BY t::text), '') FROM changes t",
        "SELECT coalesce(string_agg(t::text, chr(10) ORDER BY t::text), '') FROM reactions t",
        "SELECT coalesce(string_agg(t::text, chr(10) ORDER BY t::text), '') FROM threads t",
        "SELECT coalesce(string_agg(t::text, chr(10) ORDER BY t::text), '') FROM users t",
    ] {
        contents.push(db.text(table).await);
    }
    contents
}

#[tokio::test]
async fn fifty_attempts_of_every_kind_between_blocked_users_change_nothing() {
    with_database(async |mut db| {
        let (id, answers) = pair(&mut db).await;
        let (hers, his) = (message(&answers[1]).id, message(&answers[2]).id);
        let queries = queries(&db).await;
        assert_eq!(block(&queries, "alice", "bob", true).await, Ok(()));
        let before = contents(&db).await;
        for round in 0..50 {
            let mut attempts = reaching("bob", id, &his, round);
            attempts.extend(reaching("alice", id, &hers, round));
            attempts.push(creation("bob", conversation(), &["alice"]));
            attempts.push(creation("bob", conversation(), &["carol", "alice"]));
            for answer in db.commit(&attempts.iter().map(work).collect::<Vec<_>>()).await {
                assert_eq!(code(&answer), Some(ErrorCode::Forbidden), "{answer:?}");
                assert!(answer.events.is_empty() && answer.notices.is_empty());
            }
        }
        assert_eq!(contents(&db).await, before);
    })
    .await;
}

#[tokio::test]
async fn between_blocked_users_no_direct_conversation_begins_until_the_block_ends() {
    with_database(async |mut db| {
        pair(&mut db).await;
        let queries = queries(&db).await;
        // In the conversation that is there, and after it was deleted.
        let id = ConversationId::direct(&user("alice"), &user("bob"));
        let deletion = command(
            "bob",
            id,
            command::Body::DeleteConversation(v1::DeleteConversation {}),
        );
        db.commit(&[work(&deletion)]).await;
        assert_eq!(block(&queries, "alice", "bob", true).await, Ok(()));
        assert_eq!(block(&queries, "bob", "carol", true).await, Ok(()));
        let works = [
            work(&direct("alice", "bob")),
            work(&direct("bob", "alice")),
            work(&direct("bob", "carol")),
            work(&direct("carol", "bob")),
        ];
        for answer in db.commit(&works).await {
            assert_eq!(code(&answer), Some(ErrorCode::Forbidden));
        }
        assert_eq!(
            db.number("SELECT count(*) FROM conversations WHERE deleted_at IS NULL")
                .await,
            1
        );
        assert_eq!(block(&queries, "alice", "bob", false).await, Ok(()));
        assert_eq!(block(&queries, "bob", "carol", false).await, Ok(()));
        let works = [
            work(&direct("bob", "alice")),
            work(&sending("bob", id, "b2", "again")),
            work(&direct("carol", "bob")),
        ];
        for answer in db.commit(&works).await {
            assert_eq!(code(&answer), None);
        }
    })
    .await;
}

#[tokio::test]
async fn a_direct_conversation_that_is_created_while_one_blocks_the_other_is_blocked() {
    with_database(async |mut db| {
        db.commit(&[work(&direct("alice", "carol")), work(&direct("bob", "carol"))])
            .await;
        let pool = db.database.writes.clone();
        let mut blocking = pool.begin().await.unwrap();
        sqlx::query("SELECT FROM users WHERE user_id IN ('alice', 'bob') ORDER BY user_id FOR NO KEY UPDATE")
            .execute(&mut *blocking)
            .await
            .unwrap();
        let works = [work(&direct("bob", "alice"))];
        let blocks = async {
            let waits = || async {
                let query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                             AND wait_event_type = 'Lock'";
                let waiting: i64 = sqlx::query_scalar(query).fetch_one(&pool).await?;
                anyhow::ensure!(waiting > 0, "nobody waits");
                Ok(())
            };
            // It has looked for blocks by then, and found none.
            eventually(Duration::from_secs(10), "the creation waits for the users", waits)
                .await
                .unwrap();
            sqlx::query("INSERT INTO blocks (user_id, blocked_id) VALUES ('alice', 'bob')")
                .execute(&mut *blocking)
                .await
                .unwrap();
            blocking.commit().await.unwrap();
        };
        let (created, ()) = tokio::join!(db.commit(&works), blocks);
        assert_eq!(code(&created[0]), None);
        let id = ConversationId::direct(&user("alice"), &user("bob"));
        let sent = db.commit(&[work(&sending("bob", id, "b1", "hello"))]).await;
        assert_eq!(code(&sent[0]), Some(ErrorCode::Forbidden));
    })
    .await;
}

#[tokio::test]
async fn what_reaches_nobody_stays_possible_and_services_write_to_both() {
    with_database(async |mut db| {
        let (id, answers) = pair(&mut db).await;
        let his = message(&answers[2]).id;
        let queries = queries(&db).await;
        assert_eq!(block(&queries, "alice", "bob", true).await, Ok(()));
        let hide = v1::HideMessage {
            message_id: his.clone(),
        };
        let mute = v1::MuteConversation {
            mute: Some(v1::Mute { until_ms: None }),
        };
        let mut service = sending("service:shop", id, "s1", "your order");
        if let Some(actor) = &mut service.actor {
            actor.kind = v1::SenderKind::System.into();
        }
        let works = [
            work(&read("bob", id, 1, &[])),
            work(&command("alice", id, command::Body::HideMessage(hide))),
            work(&command("bob", id, command::Body::MuteConversation(mute))),
            work(&delete("bob", id, &his)),
            work(&service),
        ];
        for answer in db.commit(&works).await {
            assert_eq!(code(&answer), None, "{answer:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_blocked_one_adds_nobody_who_has_blocked_them_and_a_share_leaves_these_out() {
    with_database(async |mut db| {
        let group = conversation();
        db.commit(&[
            work(&creation("bob", group, &["carol"])),
            work(&direct("alice", "carol")),
        ])
        .await;
        let queries = queries(&db).await;
        assert_eq!(block(&queries, "alice", "bob", true).await, Ok(()));
        let answers = db.commit(&[work(&add("bob", group, &["dave", "alice"]))]).await;
        assert_eq!(code(&answers[0]), Some(ErrorCode::Forbidden));
        let answers = db.commit(&[work(&add("bob", group, &["dave"]))]).await;
        assert_eq!(view(&answers[0]).participant_count, 3);

        // Others add her, and she adds him.
        let (hers, its) = (conversation(), conversation());
        let answers = db
            .commit(&[
                work(&creation("alice", hers, &["bob"])),
                work(&creation("carol", its, &["alice", "bob"])),
            ])
            .await;
        assert!(answers.iter().all(|answer| code(answer).is_none()));

        let journal = conversation();
        let create = v1::CreateConversation {
            kind: ConversationKind::Journal.into(),
            title: "Diary".into(),
            ..Default::default()
        };
        let share = v1::SendMessage {
            message_id: MessageId::derive(its, &user("bob"), "share").to_string(),
            r#type: v1::MessageType::JournalShare.into(),
            content: "read this".into(),
            metadata_json: format!(r#"{{"journalId":"{journal}"}}"#),
            ..Default::default()
        };
        let answers = db
            .commit(&[
                work(&command(
                    "bob",
                    journal,
                    command::Body::CreateConversation(create),
                )),
                work(&command("bob", its, command::Body::SendMessage(share))),
            ])
            .await;
        let shares: Vec<_> = answers[1].then.iter().map(work).collect();
        assert_eq!(shares.len(), 1);
        let answers = db.commit(&shares).await;
        let readers: Vec<String> = view(&answers[0])
            .participants
            .into_iter()
            .map(|one| one.user_id)
            .collect();
        assert_eq!(readers, ["bob", "carol"]);
    })
    .await;
}

#[tokio::test]
async fn blocks_are_listed_limited_and_set_by_oneself_alone() {
    with_database(async |mut db| {
        let others = ["bob", "carol", "dave", "eve"];
        db.commit(&[work(&creation("alice", conversation(), &others))])
            .await;
        let queries = queries(&db).await;
        for whom in ["dave", "bob", "carol", "bob"] {
            assert_eq!(block(&queries, "alice", whom, true).await, Ok(()));
        }
        // limits.user_blocks
        assert_eq!(
            block(&queries, "alice", "eve", true).await,
            Err(ErrorCode::TooLarge)
        );
        assert_eq!(
            block(&queries, "alice", "alice", true).await,
            Err(ErrorCode::Invalid)
        );
        assert_eq!(
            block(&queries, "bob", "nobody", true).await,
            Err(ErrorCode::NotFound)
        );
        assert_eq!(block(&queries, "bob", "eve", true).await, Ok(()));
        assert_eq!(blocks(&queries, "alice", false).await, ["bob", "carol", "dave"]);
        assert_eq!(blocks(&queries, "bob", false).await, ["eve"]);
        assert_eq!(blocks(&queries, "bob", true).await, ["alice", "eve"]);
        let page = v1::ListBlocks {
            after: "bob".into(),
            limit: 1,
            both_ways: false,
        };
        let page = ask(&queries, "alice", query::Body::ListBlocks(page)).await;
        let Ok(reply::Body::Blocks(page)) = page else {
            panic!("{page:?}");
        };
        assert_eq!(
            (page.user_ids, page.next),
            (vec!["carol".to_owned()], "carol".to_owned())
        );
        assert_eq!(block(&queries, "alice", "bob", false).await, Ok(()));
        assert_eq!(block(&queries, "alice", "eve", true).await, Ok(()));
    })
    .await;
}

#[tokio::test]
async fn neither_of_two_is_shown_the_presence_of_the_other() {
    with_database(async |mut db| {
        let group = conversation();
        db.commit(&[work(&creation("alice", group, &["bob", "carol"]))])
            .await;
        let queries = queries(&db).await;
        assert_eq!(block(&queries, "alice", "bob", true).await, Ok(()));
        let seen = async |who: &str| {
            let get = v1::GetPresence {
                user_ids: ["alice", "bob", "carol"].map(str::to_owned).to_vec(),
            };
            let Ok(reply::Body::Presences(seen)) = ask(&queries, who, query::Body::GetPresence(get)).await
            else {
                panic!("no presence");
            };
            let mut seen: Vec<String> = seen.presences.into_iter().map(|one| one.user_id).collect();
            seen.sort();
            let get = v1::GetConversation {
                conversation_id: group.to_string(),
                client: None,
            };
            let body = query::Body::GetConversation(get);
            let Ok(reply::Body::Conversation(one)) = ask(&queries, who, body).await else {
                panic!("no conversation");
            };
            let list = v1::ListParticipants {
                conversation_id: group.to_string(),
                ..Default::default()
            };
            let body = query::Body::ListParticipants(list);
            let Ok(reply::Body::Participants(page)) = ask(&queries, who, body).await else {
                panic!("no participants");
            };
            for participants in [one.participants, page.participants] {
                let shown = participants.into_iter().filter(|one| one.presence.is_some());
                assert_eq!(shown.map(|one| one.user_id).collect::<Vec<_>>(), seen, "{who}");
            }
            seen
        };
        assert_eq!(seen("alice").await, ["alice", "carol"]);
        assert_eq!(seen("bob").await, ["bob", "carol"]);
        assert_eq!(seen("carol").await, ["alice", "bob", "carol"]);
    })
    .await;
}
