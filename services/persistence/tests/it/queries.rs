//! What questions are answered, and to whom.

use std::collections::BTreeSet;
use std::time::Duration;

use parlance_bus::{Bus, ConnectSettings, Tls};
use parlance_persistence::database::Database;
use parlance_persistence::error::QueryError;
use parlance_persistence::liveness::Liveness;
use parlance_persistence::presence::{Limits, Presence};
use parlance_persistence::queries::Queries;
use parlance_proto::ConversationId;
use parlance_proto::v1::{self, ErrorCode, command, query, reply};

use crate::database::{TestDatabase, with_database};
use crate::works::{
    command, conversation, creation, delete, edit, fresh, message, read, sending, told, view, work,
};

/// Answers without a bus: it never connects.
pub(crate) async fn queries(db: &TestDatabase) -> Queries {
    let settings = ConnectSettings {
        url: "nats://127.0.0.1:1".into(),
        name: "tester".into(),
        inbox_prefix: "_INBOX".into(),
        user: String::new(),
        password: String::new(),
        credentials_file: String::new(),
        tls: Tls::default(),
    };
    let bus = Bus::connect(&settings).await.unwrap();
    Queries {
        partitions: 16,
        replica: "one".into(),
        bus: bus.clone(),
        database: db.database.clone(),
        concurrency: 1,
        waiting: 100,
        inline_participants: 100,
        user_blocks: 3,
        presence: Presence {
            bus: bus.clone(),
            database: db.database.clone(),
            limits: Limits {
                lease: Duration::from_secs(10),
                grace: Duration::from_secs(5),
            },
        },
        liveness: Liveness::default(),
    }
}

pub(crate) async fn ask(queries: &Queries, who: &str, body: query::Body) -> Result<reply::Body, ErrorCode> {
    let actor = v1::Actor {
        user_id: who.into(),
        username: who.to_uppercase(),
        ..Default::default()
    };
    let actor = (!who.is_empty()).then_some(actor);
    match queries.answer(actor.as_ref(), &body).await {
        Ok(body) => Ok(body),
        Err(QueryError::Refused(error)) => Err(error.code()),
        Err(QueryError::Database(error)) => panic!("{error}"),
        Err(QueryError::Expired) => panic!("took longer than reads may"),
    }
}

macro_rules! answered {
    ($answer:expr, $variant:ident) => {
        match $answer {
            Ok(parlance_proto::v1::reply::Body::$variant(body)) => body,
            other => panic!("{other:?}"),
        }
    };
}
pub(crate) use answered;

pub(crate) fn events(conversation_id: &str, after: u64, limit: u32) -> query::Body {
    query::Body::ListEvents(v1::ListEvents {
        conversation_id: conversation_id.into(),
        after,
        limit,
    })
}

#[tokio::test]
async fn the_log_merges_messages_and_changes_without_holes_in_pages() {
    with_database(async |mut db| {
        let id = conversation();
        let first = [
            work(&creation("alice", id, &["bob"])),
            work(&sending("alice", id, "m1", "one")),
        ];
        let m1 = message(&db.commit(&first).await[1]).id;
        let second = work(&sending("bob", id, "m2", "two"));
        let m2 = message(&db.commit(&[work(&edit("alice", id, &m1, "uno")), second]).await[1]).id;
        db.commit(&[
            work(&delete("bob", id, &m2)),
            work(&sending("alice", id, "m3", "three")),
        ])
        .await;
        let queries = queries(&db).await;
        let id = id.to_string();
        let page = answered!(ask(&queries, "bob", events(&id, 0, 0)).await, Events);
        let log: Vec<_> = page.events.iter().map(told).collect();
        let text = |t: &str| t.to_owned();
        let expected = [
            (1, "created", text("uno")),
            (2, "edited", text("uno")),
            (3, "created", text("")),
            (4, "deleted", text("")),
            (5, "created", text("three")),
        ];
        assert_eq!(log, expected);
        assert_eq!((page.head_seq, page.complete, page.resync), (5, true, false));
        let part = answered!(ask(&queries, "bob", events(&id, 1, 2)).await, Events);
        assert_eq!(
            (part.events.len(), part.events[0].seq, part.complete),
            (2, 2, false)
        );
        let ahead = answered!(ask(&queries, "bob", events(&id, 6, 2)).await, Events);
        assert!(ahead.resync && ahead.events.is_empty());
        assert_eq!(
            ask(&queries, "mallory", events(&id, 0, 0)).await.unwrap_err(),
            ErrorCode::NotFound
        );
        assert!(ask(&queries, "", events(&id, 0, 0)).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn pages_of_large_messages_fit_the_bus_and_lose_nothing() {
    with_database(async |mut db| {
        let id = conversation();
        let large = "x".repeat(200 * 1024);
        let mut batch = vec![work(&creation("alice", id, &["bob"]))];
        batch.extend((1..=9).map(|n| work(&sending("alice", id, &format!("m{n}"), &large))));
        db.commit(&batch).await;
        let queries = queries(&db).await;
        let id = id.to_string();
        let (mut after, mut seen) = (0, Vec::new());
        loop {
            let page = answered!(ask(&queries, "bob", events(&id, after, 100)).await, Events);
            assert!(prost::Message::encoded_len(&page) < 900 * 1024);
            seen.extend(page.events.iter().map(|event| event.seq));
            after = *seen.last().unwrap();
            if page.complete {
                break;
            }
        }
        assert_eq!(seen, (1..=9).collect::<Vec<_>>());
        let (mut before, mut seen) = (None, Vec::new());
        loop {
            let list = v1::ListMessages {
                conversation_id: id.clone(),
                limit: 100,
                before,
                ..Default::default()
            };
            let page = answered!(
                ask(&queries, "bob", query::Body::ListMessages(list)).await,
                Messages
            );
            assert!(prost::Message::encoded_len(&page) < 900 * 1024);
            seen.splice(0..0, page.messages.iter().map(|message| message.seq));
            before = Some(page.next);
            if page.next == 0 {
                break;
            }
        }
        assert_eq!(seen, (1..=9).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn conversations_are_listed_latest_first_with_what_each_viewer_sees() {
    with_database(async |mut db| {
        let ids: Vec<_> = (0..5).map(|_| conversation()).collect();
        for &id in &ids {
            db.commit(&[work(&creation("alice", id, &["bob"]))]).await;
        }
        db.commit(&[work(&creation("carol", conversation(), &["dave"]))])
            .await;
        db.commit(&[
            work(&sending("alice", ids[2], "m1", "hello")),
            work(&sending("alice", ids[2], "m2", "bye")),
        ])
        .await;
        db.commit(&[work(&read("bob", ids[2], 1, &[]))]).await;
        let queries = queries(&db).await;
        let (mut cursor, mut listed) = (String::new(), Vec::new());
        loop {
            let list = v1::ListConversations {
                limit: 2,
                cursor,
                ..Default::default()
            };
            let page = answered!(
                ask(&queries, "bob", query::Body::ListConversations(list)).await,
                Conversations
            );
            listed.extend(page.conversations);
            cursor = page.next;
            if cursor.is_empty() {
                break;
            }
        }
        assert_eq!(listed.len(), 5);
        assert!(
            listed
                .windows(2)
                .all(|w| w[0].updated_at_ms >= w[1].updated_at_ms)
        );
        let top = &listed[0];
        assert_eq!(
            (top.id.clone(), top.unread, top.head_seq),
            (ids[2].to_string(), 1, 2)
        );
        assert_eq!(top.last_message.as_ref().unwrap().content, "bye");
        assert_eq!(top.participants.len(), 2);
        // By number, and as another sees it.
        let get = |id: String| {
            query::Body::GetConversation(v1::GetConversation {
                conversation_id: id,
                client: None,
            })
        };
        let seen = answered!(
            ask(&queries, "alice", get(top.number.to_string())).await,
            Conversation
        );
        assert_eq!((&seen.id, seen.unread), (&top.id, 0));
    })
    .await;
}

/// The session of a user who saw a conversation up to a position.
fn catching_up(user: &str, conversation: ConversationId, after: u64) -> v1::CatchingUp {
    v1::CatchingUp {
        user_id: user.into(),
        conversation_id: conversation.to_string(),
        after,
    }
}

#[tokio::test]
async fn sessions_that_come_back_together_share_what_they_missed() {
    with_database(async |mut db| {
        let (id, other) = (conversation(), conversation());
        let hide = command(
            "bob",
            id,
            command::Body::HideMessage(v1::HideMessage {
                message_id: "#2".into(),
            }),
        );
        db.commit(&[
            work(&creation("alice", id, &["bob"])),
            work(&creation("carol", other, &["dora"])),
            work(&sending("alice", id, "m1", "one")),
            work(&sending("alice", id, "m2", "two")),
            work(&sending("alice", id, "m3", "three")),
            work(&sending("carol", other, "m1", "elsewhere")),
            work(&hide),
        ])
        .await;
        let queries = queries(&db).await;
        let sessions = vec![
            catching_up("alice", id, 2),
            catching_up("bob", id, 1),
            catching_up("mallory", id, 0),
            catching_up("carol", other, 0),
            catching_up("alice", id, 3),
            catching_up("bob", id, 99),
            catching_up("bob", conversation(), 0),
            v1::CatchingUp {
                conversation_id: "nonsense".into(),
                ..catching_up("bob", id, 0)
            },
            catching_up("", id, 0),
        ];
        let asked = query::Body::CatchUp(v1::CatchUp { sessions });
        let caught_up = answered!(ask(&queries, "", asked).await, CaughtUp);
        // From the first position of anyone on, and each once.
        let pages: Vec<(String, Vec<u64>, bool)> = caught_up
            .pages
            .iter()
            .map(|page| {
                let seqs = page.events.iter().map(|event| event.seq).collect();
                (page.conversation_id.clone(), seqs, page.complete)
            })
            .collect();
        assert_eq!(
            pages,
            [
                (id.to_string(), vec![2, 3], true),
                (other.to_string(), vec![1], true)
            ]
        );
        let first = caught_up.pages[0].events[0].message();
        assert_eq!(first.map(|message| message.content.as_str()), Some("two"));
        let of = |session: &v1::CaughtUpSession| {
            let void = session.void.as_ref().map(|page| (page.resync, page.head_seq));
            let error = session.error.as_ref().map(v1::Error::code);
            (session.page, session.hidden_seqs.clone(), void, error)
        };
        let nothing = (None, vec![], None, Some(ErrorCode::NotFound));
        assert_eq!(
            caught_up.sessions.iter().map(of).collect::<Vec<_>>(),
            [
                (Some(0), vec![], None, None),
                (Some(0), vec![2], None, None),
                nothing.clone(),
                (Some(1), vec![], None, None),
                (Some(0), vec![], None, None),
                (None, vec![], Some((true, 3)), None),
                nothing.clone(),
                nothing.clone(),
                nothing,
            ]
        );
        let sessions = vec![catching_up("bob", id, 0); 501];
        let too_many = query::Body::CatchUp(v1::CatchUp { sessions });
        assert_eq!(ask(&queries, "", too_many).await, Err(ErrorCode::Invalid));
    })
    .await;
}

#[tokio::test]
async fn what_was_hidden_counts_only_where_the_page_shows_it() {
    with_database(async |mut db| {
        let id = conversation();
        let hide = command(
            "bob",
            id,
            command::Body::HideMessage(v1::HideMessage {
                message_id: "#2".into(),
            }),
        );
        db.commit(&[
            work(&creation("alice", id, &["bob"])),
            work(&sending("alice", id, "m1", "one")),
            work(&sending("alice", id, "m2", "two")),
            work(&sending("alice", id, "m3", "three")),
            work(&hide),
            work(&edit("alice", id, "#1", "changed")),
            work(&sending("alice", id, "m4", "four")),
        ])
        .await;
        let queries = queries(&db).await;
        let sessions = vec![catching_up("bob", id, 3)];
        let asked = query::Body::CatchUp(v1::CatchUp { sessions });
        let caught_up = answered!(ask(&queries, "", asked).await, CaughtUp);
        // The hidden one lies between the edited and the new one, and is in neither.
        let shown = caught_up.pages[0].events.iter().filter_map(v1::Event::message);
        assert_eq!(shown.map(|message| message.seq).collect::<Vec<_>>(), [1, 5]);
        assert_eq!(
            (
                caught_up.sessions[0].page,
                caught_up.sessions[0].hidden_seqs.len()
            ),
            (Some(0), 0)
        );
    })
    .await;
}

#[tokio::test]
async fn users_who_come_back_together_learn_what_they_were_removed_from() {
    with_database(async |mut db| {
        let ids = [conversation(), conversation(), conversation()];
        let remove = |id, user: &str| {
            let user_id = user.into();
            let body = command::Body::RemoveMember(v1::RemoveMember { user_id });
            work(&command("alice", id, body))
        };
        let works: Vec<_> = ids
            .iter()
            .map(|id| work(&creation("alice", *id, &["bob", "carol"])))
            .chain([
                remove(ids[0], "bob"),
                remove(ids[1], "bob"),
                remove(ids[2], "carol"),
            ])
            .collect();
        db.commit(&works).await;
        let since = |user_id: &str, since_ms| v1::UserSince {
            user_id: user_id.into(),
            since_ms,
        };
        let future = 8_000_000_000_000;
        let queries = queries(&db).await;
        let users = vec![
            since("bob", 1),
            since("alice", 1),
            since("carol", 1),
            since("bob", future),
        ];
        let asked = query::Body::FindRemovals(v1::FindRemovals { users });
        let found = answered!(ask(&queries, "", asked).await, FoundRemovals).users;
        let found: Vec<BTreeSet<String>> = found
            .into_iter()
            .map(|user| user.removals.into_iter().map(|one| one.conversation_id).collect())
            .collect();
        let named = |ids: &[ConversationId]| ids.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [named(&ids[..2]), named(&[]), named(&ids[2..]), named(&[])]
        );
        let users = vec![since("bob", 1); 501];
        let too_many = query::Body::FindRemovals(v1::FindRemovals { users });
        assert_eq!(ask(&queries, "", too_many).await, Err(ErrorCode::Invalid));
    })
    .await;
}

#[tokio::test]
async fn what_does_not_fit_one_answer_is_asked_for_again() {
    with_database(async |mut db| {
        let (id, other) = (conversation(), conversation());
        db.commit(&[
            work(&creation("alice", id, &["bob"])),
            work(&creation("alice", other, &["bob"])),
        ])
        .await;
        let large = "x".repeat(30_000);
        for n in 0..60 {
            let (key, at) = (format!("m{n}"), if n % 2 == 0 { id } else { other });
            db.commit(&[work(&sending("alice", at, &key, &large))]).await;
        }
        let queries = queries(&db).await;
        let (mut of_one, mut of_other) = (0, 0);
        let mut answers = 0;
        while (of_one, of_other) != (30, 30) {
            let session = |conversation_id: String, after: u64| v1::CatchingUp {
                user_id: "alice".into(),
                conversation_id,
                after,
            };
            let sessions = vec![
                session(id.to_string(), of_one),
                session(other.to_string(), of_other),
            ];
            let asked = query::Body::CatchUp(v1::CatchUp { sessions });
            let caught_up = answered!(ask(&queries, "", asked).await, CaughtUp);
            let reached = |place: usize, after: u64| {
                let page = caught_up.sessions[place]
                    .page
                    .map(|page| &caught_up.pages[page as usize]);
                let events = page.map_or(&[][..], |page| &page.events);
                let new: Vec<u64> = events
                    .iter()
                    .map(|event| event.seq)
                    .filter(|seq| *seq > after)
                    .collect();
                assert!(
                    new.iter().copied().eq(after + 1..=after + new.len() as u64),
                    "{new:?} after {after}"
                );
                after + new.len() as u64
            };
            let next = (reached(0, of_one), reached(1, of_other));
            assert_ne!(next, (of_one, of_other), "an answer without anything new");
            (of_one, of_other) = next;
            answers += 1;
        }
        assert!(answers > 1);
    })
    .await;
}

#[tokio::test]
async fn a_stranger_and_a_missing_conversation_get_one_answer_to_every_question() {
    with_database(async |mut db| {
        let id = conversation();
        let answers = db
            .commit(&[
                work(&creation("alice", id, &["bob"])),
                work(&sending("bob", id, "m1", "x")),
            ])
            .await;
        let number = view(&answers[0]).number;
        let queries = queries(&db).await;
        let questions = |id: String| {
            let conversation_id = || id.clone();
            [
                query::Body::GetConversation(v1::GetConversation {
                    conversation_id: conversation_id(),
                    client: None,
                }),
                query::Body::ListMessages(v1::ListMessages {
                    conversation_id: conversation_id(),
                    ..Default::default()
                }),
                query::Body::ListEvents(v1::ListEvents {
                    conversation_id: conversation_id(),
                    ..Default::default()
                }),
                query::Body::GetRoom(v1::GetRoom {
                    conversation_id: conversation_id(),
                    small: 0,
                }),
                query::Body::ListReceipts(v1::ListReceipts {
                    conversation_id: conversation_id(),
                    after_version: 0,
                }),
            ]
        };
        for id in [id.to_string(), fresh(), number.to_string(), "999999".to_owned()] {
            for body in questions(id) {
                let name = format!("{body:?}");
                assert_eq!(
                    ask(&queries, "mallory", body).await.unwrap_err(),
                    ErrorCode::NotFound,
                    "{name}"
                );
            }
        }
        let positions = vec![v1::Position {
            conversation_id: id.to_string(),
            ..Default::default()
        }];
        let sync = query::Body::Sync(v1::Sync { positions, limit: 0 });
        assert!(
            answered!(ask(&queries, "mallory", sync).await, Sync)
                .pages
                .is_empty()
        );
        let heads = v1::GetHeads {
            conversation_ids: vec![id.to_string()],
            user_ids: vec!["alice".into()],
        };
        let heads = answered!(
            ask(&queries, "mallory", query::Body::GetHeads(heads)).await,
            Heads
        );
        assert!(heads.heads.is_empty() && heads.users.is_empty());
    })
    .await;
}

#[tokio::test]
async fn gateways_learn_rooms_heads_memberships_and_receipts() {
    with_database(async |mut db| {
        let id = conversation();
        db.commit(&[
            work(&creation("alice", id, &["bob"])),
            work(&sending("bob", id, "m1", "x")),
        ])
        .await;
        db.commit(&[work(&read("alice", id, 1, &[]))]).await;
        let queries = queries(&db).await;
        let id = id.to_string();
        let room = query::Body::GetRoom(v1::GetRoom {
            conversation_id: id.clone(),
            small: 0,
        });
        let room = answered!(ask(&queries, "", room).await, Room);
        assert_eq!(
            (room.head_seq, room.receipts_version, room.members.len()),
            (1, 1, 2)
        );
        let heads = v1::GetHeads {
            conversation_ids: vec![id.clone(), fresh()],
            user_ids: vec!["bob".into()],
        };
        let heads = answered!(ask(&queries, "", query::Body::GetHeads(heads)).await, Heads);
        assert_eq!((heads.heads.len(), heads.users[0].memberships_version), (1, 1));
        assert_eq!(heads.epoch, room.epoch);
        let memberships = v1::ListMemberships {
            user_ids: vec!["alice".into(), "nobody".into()],
        };
        let memberships = answered!(
            ask(&queries, "", query::Body::ListMemberships(memberships)).await,
            Memberships
        );
        assert_eq!(memberships.memberships.len(), 1);
        assert_eq!(memberships.memberships[0].conversation_ids.join(","), id);
        for (after_version, found) in [(0, 1), (1, 0)] {
            let receipts = v1::ListReceipts {
                conversation_id: id.clone(),
                after_version,
            };
            let receipts = answered!(
                ask(&queries, "", query::Body::ListReceipts(receipts)).await,
                Receipts
            );
            assert_eq!((receipts.receipts.len(), receipts.receipts_version), (found, 1));
        }
    })
    .await;
}

#[tokio::test]
async fn catching_up_notices_another_life_of_the_database_and_keeps_its_budget() {
    with_database(async |mut db| {
        let ids = [conversation(), conversation()];
        for id in ids {
            let mut batch = vec![work(&creation("alice", id, &["bob"]))];
            batch.extend((1..=5).map(|n| work(&sending("alice", id, &format!("m{n}"), "x"))));
            db.commit(&batch).await;
        }
        let queries = queries(&db).await;
        let sync = async |epoch: &str, seq: u64, limit: u32| {
            let position = |id: &parlance_proto::ConversationId| v1::Position {
                conversation_id: id.to_string(),
                epoch: epoch.into(),
                seq,
                receipts_version: None,
            };
            let sync = v1::Sync {
                positions: ids.iter().map(position).collect(),
                limit,
            };
            answered!(ask(&queries, "bob", query::Body::Sync(sync)).await, Sync).pages
        };
        let pages = sync("", 2, 4).await;
        let shape: Vec<_> = pages
            .iter()
            .map(|page| (page.events.len(), page.complete))
            .collect();
        assert_eq!(shape, [(3, true), (1, false)]);
        let epoch = pages[0].epoch.clone();
        assert!(
            sync(&epoch, 5, 0)
                .await
                .iter()
                .all(|page| page.complete && !page.resync)
        );
        let mut connection = db.database.writes.acquire().await.unwrap();
        let new = parlance_persistence::identity::random();
        parlance_persistence::store::epoch::replace(&mut connection, new)
            .await
            .unwrap();
        let pages = sync(&epoch, 2, 0).await;
        assert!(
            pages
                .iter()
                .all(|page| page.resync && page.events.is_empty() && page.epoch == new.to_string())
        );
    })
    .await;
}

#[tokio::test]
async fn users_are_created_renamed_and_never_revived() {
    with_database(async |db| {
        let queries = queries(&db).await;
        let provision = |create| query::Body::ProvisionUser(v1::ProvisionUser { create });
        assert_eq!(
            ask(&queries, "alice", provision(false)).await.unwrap_err(),
            ErrorCode::NotFound
        );
        let made = answered!(ask(&queries, "alice", provision(true)).await, User);
        assert_eq!((made.username.as_str(), made.memberships_version), ("ALICE", 0));
        let again = answered!(ask(&queries, "alice", provision(false)).await, User);
        assert_eq!(made, again);
        let rename = |name: &str| {
            query::Body::SetName(v1::SetName {
                user_id: "alice".into(),
                name: name.into(),
                create: false,
            })
        };
        assert_eq!(
            ask(&queries, "bob", rename("Mallory")).await.unwrap_err(),
            ErrorCode::NotFound
        );
        let renamed = answered!(ask(&queries, "alice", rename("Al\u{202E}ly")).await, User);
        assert_eq!((renamed.username.as_str(), renamed.number), ("Ally", made.number));
        // The token says what it said before.
        let again = answered!(ask(&queries, "alice", provision(true)).await, User);
        assert_eq!(again, renamed);
        let taken_back = answered!(ask(&queries, "", rename("\u{200B}")).await, User);
        assert_eq!(taken_back, made);
        sqlx::query("UPDATE users SET deleted_at = now()")
            .execute(&db.database.writes)
            .await
            .unwrap();
        assert_eq!(
            ask(&queries, "alice", provision(true)).await.unwrap_err(),
            ErrorCode::NotFound
        );
        assert_eq!(
            ask(&queries, "", rename("Ally")).await.unwrap_err(),
            ErrorCode::NotFound
        );
        assert_eq!(
            ask(&queries, "", provision(true)).await.unwrap_err(),
            ErrorCode::Invalid
        );
    })
    .await;
}

/// Connections of queries that the database works for.
async fn busy(db: &TestDatabase) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
               AND application_name = 'parlance-persistence' AND wait_event_type = 'Lock'";
    let count = sqlx::query_scalar(sql).fetch_one(&db.database.writes);
    count.await.unwrap()
}

#[tokio::test]
async fn a_read_ends_at_its_deadline_and_frees_its_connection_and_a_write_goes_on() {
    with_database(async |mut db| {
        let id = conversation();
        let created = [
            work(&creation("alice", id, &["bob"])),
            work(&sending("alice", id, "m1", "one")),
        ];
        db.commit(&created).await;
        let queries = queries(&db).await;
        let read = events(&id.to_string(), 0, 0);
        assert!(ask(&queries, "bob", read.clone()).await.is_ok());
        let mut lock = db.database.reports.begin().await.unwrap();
        let tables = "LOCK TABLE messages, users IN ACCESS EXCLUSIVE MODE";
        sqlx::query(tables).execute(&mut *lock).await.unwrap();

        let actor = v1::Actor {
            user_id: "bob".into(),
            ..Default::default()
        };
        let within = Duration::from_millis(300);
        let begun = tokio::time::Instant::now();
        let reads = (0..20).map(|_| queries.answer_by(begun + within, Some(&actor), &read));
        let ended = futures::future::join_all(reads).await;
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        for one in ended {
            assert!(
                matches!(&one, Err(QueryError::Expired | QueryError::Database(_))),
                "{one:?}"
            );
        }
        assert!(db.database.reads.size() <= db.settings.max_connections);
        let freed = || async { parlance_harness::eventually::equal(busy(&db).await, &0) };
        parlance_harness::eventually(Duration::from_secs(2), "no read waits in the database", freed)
            .await
            .unwrap();

        // Who makes users known reads first: that ends as well.
        let provision = query::Body::ProvisionUser(v1::ProvisionUser { create: true });
        let late = queries.answer_by(tokio::time::Instant::now() + within, Some(&actor), &provision);
        assert!(matches!(late.await, Err(QueryError::Expired)));

        let rename = rename("bob", "Bobby");
        let written = queries.answer_by(tokio::time::Instant::now() + within, Some(&actor), &rename);
        let unlocked = async {
            let is_write = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                            AND wait_event_type = 'Lock' AND query LIKE '%UPDATE%'";
            let waits = || async {
                let waiting: i64 = sqlx::query_scalar(is_write)
                    .fetch_one(&db.database.writes)
                    .await
                    .unwrap();
                parlance_harness::eventually::equal(waiting, &1)
            };
            let waiting = parlance_harness::eventually(Duration::from_secs(5), "the write waits", waits);
            waiting.await.unwrap();
            // Beyond its deadline.
            sqlx::query("SELECT pg_sleep(0.6)")
                .execute(&mut *lock)
                .await
                .unwrap();
            lock.rollback().await.unwrap();
        };
        let (written, ()) = tokio::join!(written, unlocked);
        assert!(written.is_ok(), "{written:?}");
        assert!(ask(&queries, "bob", read).await.is_ok());
    })
    .await;
}

fn rename(user: &str, name: &str) -> query::Body {
    query::Body::SetName(v1::SetName {
        user_id: user.into(),
        name: name.into(),
        create: true,
    })
}

#[tokio::test]
async fn a_read_that_is_cut_anywhere_leaves_a_connection_that_others_can_use() {
    with_database(async |mut db| {
        let id = conversation();
        db.commit(&[work(&creation("alice", id, &["bob"]))]).await;
        let mut settings = db.settings.clone();
        settings.max_connections = 1;
        let queries = Queries {
            database: Database::new(&settings).unwrap(),
            ..queries(&db).await
        };
        let actor = v1::Actor {
            user_id: "bob".into(),
            ..Default::default()
        };
        let read = events(&id.to_string(), 0, 0);
        // Polled once more in each round until it is done, so that every place where it waits is one where it is cut.
        // Where the machine is busy an answer may be there at once: then there are more rounds.
        let (mut polls, mut cuts) = (0, 0);
        while cuts < 3 || polls > 0 {
            let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
            let mut cut = Box::pin(queries.answer_by(deadline, Some(&actor), &read));
            let mut done = None;
            for _ in 0..=polls {
                done = futures::future::poll_immediate(&mut cut).await;
                if done.is_some() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            drop(cut);
            // The connection is cleaned before others ask in some rounds, and while they wait for it in others.
            if polls % 3 == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            for _ in 0..3 {
                let next = ask(&queries, "bob", read.clone()).await;
                assert!(next.is_ok(), "{next:?} after {polls} polls");
                let is_open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                               AND state LIKE 'idle in transaction%'";
                let open: i64 = sqlx::query_scalar(is_open)
                    .fetch_one(&db.database.writes)
                    .await
                    .unwrap();
                assert_eq!(open, 0, "after {polls} polls");
            }
            if let Some(done) = done {
                assert!(done.is_ok(), "{done:?} after {polls} polls");
                polls = 0;
            } else {
                polls += 1;
                cuts += 1;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_writes_waits_for_a_connection_until_its_deadline_and_then_writes_nothing() {
    with_database(async |db| {
        let queries = queries(&db).await;
        let actor = v1::Actor {
            user_id: "bob".into(),
            username: "Bob".into(),
            ..Default::default()
        };
        let mut held = Vec::new();
        for pool in [&db.database.writes, &db.database.reports] {
            for _ in 0..3 {
                held.push(pool.acquire().await.unwrap());
            }
        }
        let presence = query::Body::ReportPresence(v1::ReportPresence {
            gateway: fresh().to_string(),
            number: 1,
            ..v1::ReportPresence::default()
        });
        let served = query::Body::ReportServed(v1::ReportServed::default());
        let provision = query::Body::ProvisionUser(v1::ProvisionUser { create: true });
        let bodies = [presence, served, provision, rename("bob", "Bobby")];
        let begun = tokio::time::Instant::now();
        let deadline = begun + Duration::from_millis(200);
        let late = bodies
            .iter()
            .map(|body| queries.answer_by(deadline, Some(&actor), body));
        for (body, answer) in bodies.iter().zip(futures::future::join_all(late).await) {
            assert!(matches!(answer, Err(QueryError::Expired)), "{body:?}: {answer:?}");
        }
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        drop(held);
        for body in &bodies {
            let answer = queries.answer_by(deadline, Some(&actor), body).await;
            assert!(matches!(answer, Err(QueryError::Expired)), "{body:?}: {answer:?}");
        }
        let users: i64 = sqlx::query_scalar("SELECT count(*) FROM users")
            .fetch_one(&db.database.writes)
            .await
            .unwrap();
        assert_eq!(users, 0);
    })
    .await;
}
