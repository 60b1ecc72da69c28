//! What happens to messages beside sending them: marks, threads, earlier contents, hiding, receipts.

use parlance_persistence::ingest::answer::Answer;
use parlance_proto::ConversationId;
use parlance_proto::v1::{self, ErrorCode, command, confirmation, event, query, user_notice};

use crate::database::with_database;
use crate::queries::{answered, ask, events, queries};
use crate::works::{
    code, command, conversation, creation, delete, edit, fresh, message, read, receipt, sending, work,
};

fn react(who: &str, id: ConversationId, message: &str, emoji: &str, remove: bool) -> v1::Command {
    let react = v1::React {
        message_id: message.into(),
        emoji: emoji.into(),
        remove,
    };
    command(who, id, command::Body::React(react))
}

fn marks(message: &v1::Message) -> Vec<(&str, &str)> {
    message
        .reactions
        .iter()
        .map(|r| (r.user_id.as_str(), r.emoji.as_str()))
        .collect()
}

fn list(id: ConversationId) -> v1::ListMessages {
    v1::ListMessages {
        conversation_id: id.to_string(),
        ..Default::default()
    }
}

#[tokio::test]
async fn marks_stored_in_both_forms_of_an_emoji_are_one_and_go_together() {
    with_database(async |mut db| {
        let id = conversation();
        let (plain, coloured) = ("\u{2764}", "\u{2764}\u{FE0F}");
        db.commit(&[
            work(&creation("alice", id, &["bob"])),
            work(&sending("alice", id, "m1", "hi")),
            work(&react("bob", id, "#1", coloured, false)),
            work(&react("alice", id, "#1", "👍", false)),
        ])
        .await;
        // As it was stored when the two forms were two reactions.
        sqlx::query(
            "INSERT INTO reactions (conversation_id, message_seq, user_id, emoji, seq, at)
             VALUES ($1, 1, 'bob', $2, 9, now()), ($1, 1, 'alice', $2, 9, now())",
        )
        .bind(id.uuid())
        .bind(plain)
        .execute(&db.database.writes)
        .await
        .unwrap();
        let queries = queries(&db).await;
        let shown = async || {
            answered!(
                ask(&queries, "bob", query::Body::ListMessages(list(id))).await,
                Messages
            )
        };
        let three = [("bob", coloured), ("alice", "👍"), ("alice", coloured)];
        assert_eq!(marks(&shown().await.messages[0]), three);
        let again = db.commit(&[work(&react("bob", id, "#1", plain, false))]).await;
        assert!(again[0].repeated && again[0].events.is_empty());
        db.commit(&[work(&react("bob", id, "#1", plain, true))]).await;
        assert_eq!(
            marks(&shown().await.messages[0]),
            [("alice", "👍"), ("alice", plain)]
        );
        assert_eq!(
            db.number("SELECT count(*) FROM reactions WHERE user_id = 'bob'")
                .await,
            0
        );
    })
    .await;
}

#[tokio::test]
async fn marks_are_seen_wherever_the_message_is_and_go_with_it() {
    with_database(async |mut db| {
        let id = conversation();
        db.commit(&[
            work(&creation("alice", id, &["bob"])),
            work(&sending("alice", id, "m1", "hi")),
        ])
        .await;
        let first = react("bob", id, "#1", "😂", false);
        let answers = db
            .commit(&[
                work(&first),
                work(&react("alice", id, "#1", "👍", false)),
                work(&react("bob", id, "#1", "😂", false)),
            ])
            .await;
        assert_eq!(marks(&message(&answers[1])), [("bob", "😂"), ("alice", "👍")]);
        assert!(answers[2].repeated && answers[2].events.is_empty());
        // Redelivered, it is told again, with what the message is now.
        let again = db.commit(&[work(&first)]).await;
        assert!(again[0].repeated);
        let Some(event::Body::ReactionChanged(changed)) = &again[0].events[0].body else {
            panic!("{again:?}")
        };
        assert_eq!(
            (again[0].events[0].seq, changed.user_id.as_str(), changed.removed),
            (2, "bob", false)
        );
        assert_eq!(marks(changed.message.as_ref().unwrap()).len(), 2);
        let queries = queries(&db).await;
        let page = answered!(
            ask(&queries, "bob", query::Body::ListMessages(list(id))).await,
            Messages
        );
        assert_eq!(marks(&page.messages[0]), [("bob", "😂"), ("alice", "👍")]);
        let log = answered!(ask(&queries, "bob", events(&id.to_string(), 0, 0)).await, Events);
        assert_eq!(log.events[1], again[0].events[0]);
        let answers = db
            .commit(&[
                work(&react("bob", id, "#1", "😂", true)),
                work(&react("bob", id, "#1", "😂", true)),
                work(&react("mallory", id, "#1", "😂", false)),
                work(&react("bob", id, "#9", "😂", false)),
                work(&delete("alice", id, "#1")),
                work(&react("bob", id, "#1", "❤️", false)),
            ])
            .await;
        assert_eq!(marks(&message(&answers[0])), [("alice", "👍")]);
        assert!(answers[1].repeated);
        let codes: Vec<_> = [2, 3, 5].map(|n| code(&answers[n])).to_vec();
        assert_eq!(codes, [Some(ErrorCode::NotFound); 3]);
        assert_eq!(db.number("SELECT count(*) FROM reactions").await, 0);
        assert_eq!(db.number("SELECT head_seq FROM conversations").await, 5);
    })
    .await;
}

fn begin_thread(id: ConversationId, thread: &str, root: Option<&str>, parent: Option<&str>) -> v1::Command {
    let create = v1::CreateThread {
        thread_id: thread.into(),
        title: "Side".into(),
        root_message_id: root.map(Into::into),
        parent_thread_id: parent.map(Into::into),
    };
    command("bob", id, command::Body::CreateThread(create))
}

fn within(id: ConversationId, thread: &str, name: &str) -> v1::Command {
    let mut command = sending("alice", id, name, name);
    if let Some(command::Body::SendMessage(send)) = &mut command.body {
        send.thread_id = Some(thread.into());
    }
    command
}

#[tokio::test]
async fn threads_grow_from_what_exists_and_repeat_their_own_event() {
    with_database(async |mut db| {
        let id = conversation();
        let thread = fresh();
        let beginning = begin_thread(id, &thread, Some("#1"), None);
        let works = [
            work(&creation("alice", id, &["bob"])),
            work(&sending("alice", id, "m1", "root")),
            work(&beginning),
            work(&within(id, &fresh(), "lost")),
            work(&begin_thread(id, &fresh(), Some("#77"), None)),
            work(&begin_thread(id, &fresh(), None, Some(&fresh()))),
        ];
        let answers = db.commit(&works).await;
        let codes: Vec<_> = answers[3..].iter().map(code).collect();
        let missing = Some(ErrorCode::NotFound);
        assert_eq!(codes, [Some(ErrorCode::Invalid), missing, missing]);
        let confirmation::Result::Thread(begun) = &answers[2].result else {
            panic!("{answers:?}")
        };
        assert_eq!(begun.root_message_id, Some(message(&answers[1]).id));
        let again = db
            .commit(&[work(&beginning), work(&begin_thread(id, &thread, None, None))])
            .await;
        assert_eq!(again[0].events, answers[2].events);
        assert!(again[0].repeated && again[1].repeated && again[1].events.is_empty());
    })
    .await;
}

#[tokio::test]
async fn threads_count_what_is_said_in_them_and_keep_it_apart() {
    with_database(async |mut db| {
        let id = conversation();
        let (thread, inner) = (fresh(), fresh());
        let works = [
            work(&creation("alice", id, &["bob"])),
            work(&sending("alice", id, "m1", "root")),
            work(&begin_thread(id, &thread, Some("#1"), None)),
            work(&within(id, &thread, "t1")),
            work(&begin_thread(id, &inner, None, Some(&thread))),
        ];
        db.commit(&works).await;
        let last = within(id, &thread, "t2");
        let last = message(&db.commit(&[work(&last), work(&last)]).await[1]);
        let queries = queries(&db).await;
        let threads = async |who: &str, thread: &str| {
            let list = v1::ListThreads {
                conversation_id: id.to_string(),
                thread_id: thread.into(),
                ..Default::default()
            };
            ask(&queries, who, query::Body::ListThreads(list)).await
        };
        let all = answered!(threads("bob", "").await, Threads).threads;
        let counts: Vec<_> = all.iter().map(|t| (t.id.as_str(), t.reply_count)).collect();
        assert_eq!(counts, [(thread.as_str(), 2), (inner.as_str(), 0)]);
        assert_eq!(all[0].last_reply_at_ms, Some(last.created_at_ms));
        assert_eq!(all[1].parent_thread_id, last.thread_id);
        assert_eq!(answered!(threads("bob", &inner).await, Threads).threads, all[1..]);
        assert_eq!(threads("eve", &inner).await, Err(ErrorCode::NotFound));
        let whole = list(id);
        let in_thread = v1::ListMessages {
            thread_id: thread.clone(),
            ..list(id)
        };
        let later = v1::ListMessages {
            after: Some(3),
            ..in_thread.clone()
        };
        let from_the_start = v1::ListMessages {
            after: Some(0),
            limit: 2,
            ..list(id)
        };
        let skipping = v1::ListMessages {
            limit: 1,
            offset: 1,
            ..list(id)
        };
        for (query, seqs) in [
            (whole, vec![1, 3, 5]),
            (in_thread, vec![3, 5]),
            (later, vec![5]),
            (skipping, vec![3]),
            (from_the_start, vec![1, 3]),
        ] {
            let page = answered!(
                ask(&queries, "bob", query::Body::ListMessages(query)).await,
                Messages
            );
            assert_eq!(page.messages.iter().map(|m| m.seq).collect::<Vec<_>>(), seqs);
        }
    })
    .await;
}

#[tokio::test]
async fn earlier_contents_are_kept_until_the_message_is_deleted() {
    with_database(async |mut db| {
        let id = conversation();
        let setup = [
            work(&creation("alice", id, &["bob"])),
            work(&sending("alice", id, "m1", "one")),
            work(&edit("alice", id, "#1", "two")),
            work(&edit("alice", id, "#1", "three")),
        ];
        let sent = db.commit(&setup).await;
        let queries = queries(&db).await;
        let ask_edits = |who: &'static str| {
            let edits = v1::ListEdits {
                conversation_id: id.to_string(),
                message_id: message(&sent[1]).id,
                ..Default::default()
            };
            ask(&queries, who, query::Body::ListEdits(edits))
        };
        let edits = answered!(ask_edits("bob").await, Edits).edits;
        assert_eq!(
            edits.iter().map(|e| e.content.as_str()).collect::<Vec<_>>(),
            ["one", "two"]
        );
        assert_eq!(edits[0].at_ms, message(&sent[1]).created_at_ms);
        assert_eq!(ask_edits("eve").await, Err(ErrorCode::NotFound));
        db.commit(&[work(&delete("alice", id, "#1"))]).await;
        let edits = answered!(ask_edits("bob").await, Edits).edits;
        assert!(edits.len() == 2 && edits.iter().all(|edit| edit.content.is_empty()));
    })
    .await;
}

#[tokio::test]
async fn a_hidden_message_is_gone_for_one_and_there_for_all_others() {
    with_database(async |mut db| {
        let id = conversation();
        let hide = command(
            "bob",
            id,
            command::Body::HideMessage(v1::HideMessage {
                message_id: "#2".into(),
            }),
        );
        let works = [
            work(&creation("alice", id, &["bob"])),
            work(&sending("alice", id, "m1", "one")),
            work(&sending("alice", id, "m2", "two")),
            work(&hide),
        ];
        let answers = db.commit(&works).await;
        assert_eq!(
            (message(&answers[3]).content.as_str(), answers[3].events.len()),
            ("two", 0)
        );
        assert!(
            matches!(&answers[3].notices[0].body, Some(user_notice::Body::MessageHidden(h))
            if h.message.as_ref().is_some_and(|m| m.seq == 2 && m.sender_id == "alice"))
        );
        assert_eq!(
            (
                answers[3].notices[0].user_id.as_str(),
                answers[3].notices[0].memberships_version
            ),
            ("bob", 1)
        );
        let queries = queries(&db).await;
        for (who, seqs, unread, content) in [("bob", vec![1], 1, ""), ("alice", vec![1, 2], 0, "two")] {
            let page = answered!(
                ask(&queries, who, query::Body::ListMessages(list(id))).await,
                Messages
            );
            assert_eq!(page.messages.iter().map(|m| m.seq).collect::<Vec<_>>(), seqs);
            let get = query::Body::GetConversation(v1::GetConversation {
                conversation_id: id.to_string(),
                client: None,
            });
            let seen = answered!(ask(&queries, who, get).await, Conversation);
            assert_eq!(
                (seen.unread, seen.last_message.map(|m| m.seq)),
                (unread, seqs.last().copied())
            );
            let log = answered!(ask(&queries, who, events(&id.to_string(), 1, 0)).await, Events);
            let Some(event::Body::MessageCreated(created)) = &log.events[0].body else {
                panic!("{log:?}")
            };
            let hidden = created.message.as_ref().unwrap();
            assert_eq!(
                (hidden.content.as_str(), hidden.metadata_json.is_empty()),
                (content, content == "two")
            );
        }
    })
    .await;
}

fn covered(refs: &[v1::MessageRef]) -> Vec<u64> {
    refs.iter().map(|message| message.seq).collect()
}

fn mark(id: ConversationId, up_to_seq: u64, message_ids: &[&str], delivered_only: bool) -> v1::Command {
    let mark = v1::MarkRead {
        up_to_seq,
        message_ids: message_ids.iter().map(|&id| id.to_owned()).collect(),
        delivered_only,
        through: false,
    };
    command("bob", id, command::Body::MarkRead(mark))
}

#[tokio::test]
async fn receipts_name_what_they_newly_cover_and_reading_implies_delivery() {
    with_database(async |mut db| {
        let id = conversation();
        let mut works = vec![work(&creation("alice", id, &["bob"]))];
        for (who, name) in [
            ("alice", "a1"),
            ("bob", "b2"),
            ("alice", "a3"),
            ("alice", "a4"),
            ("alice", "a5"),
        ] {
            works.push(work(&sending(who, id, name, "x")));
        }
        db.commit(&works).await;
        let answers: Vec<Answer> = db.commit(&[work(&mark(id, 0, &["#3"], true))]).await;
        let got = receipt(&answers[0]);
        assert_eq!(
            (covered(&got.delivered_now), covered(&got.read_now)),
            (vec![1, 3], vec![])
        );
        assert_eq!(
            (
                got.delivered_seq,
                got.unread,
                got.version,
                got.read.len(),
                got.user_number
            ),
            (3, 4, 1, 0, 2)
        );
        let got = receipt(
            &db.commit(&[work(&mark(id, 0, &["#4"], false)), work(&mark(id, 1, &[], false))])
                .await[1],
        );
        assert_eq!(
            (covered(&got.delivered_now), covered(&got.read_now)),
            (vec![4], vec![1, 4])
        );
        assert_eq!((got.delivered_seq, got.unread, got.version), (4, 2, 2));
        let got = receipt(&db.commit(&[work(&mark(id, 2, &[], true))]).await[0]);
        assert_eq!(
            (got.delivered_seq, got.version, got.delivered_now.len()),
            (4, 2, 0)
        );
        let queries = queries(&db).await;
        let receipts = query::Body::ListReceipts(v1::ListReceipts {
            conversation_id: id.to_string(),
            after_version: 0,
        });
        let all = answered!(ask(&queries, "alice", receipts).await, Receipts);
        assert_eq!((all.receipts.len(), all.receipts_version), (1, 2));
        let bob = &all.receipts[0];
        assert_eq!(
            (bob.delivered_seq, bob.user_number, &bob.read, bob.at_ms > 0),
            (4, 2, &got.read, true)
        );
        let get = query::Body::GetConversation(v1::GetConversation {
            conversation_id: id.to_string(),
            client: None,
        });
        let seen = answered!(ask(&queries, "alice", get).await, Conversation);
        assert_eq!(
            (seen.participants[1].delivered_seq, &seen.participants[1].read),
            (4, &got.read)
        );
        assert_eq!(
            receipt(&db.commit(&[work(&read("bob", id, 9, &[]))]).await[0]).unread,
            0
        );
    })
    .await;
}
