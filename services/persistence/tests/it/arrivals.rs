//! Users who connect together, and what they open: one answer for many is what each would be answered alone.

use parlance_persistence::queries::Queries;
use parlance_proto::v1::{self, ErrorCode, query};

use crate::database::with_database;
use crate::queries::{answered, ask, queries};
use crate::works::{conversation, creation, fresh, read, sending, work};

fn arrival(user_id: &str, username: &str) -> v1::Arrival {
    v1::Arrival {
        user_id: user_id.into(),
        username: username.into(),
        memberships: true,
        page: String::new(),
        after: String::new(),
    }
}

async fn arrive(queries: &Queries, arrivals: Vec<v1::Arrival>, create: bool) -> Vec<v1::ArrivedUser> {
    let arrive = v1::Arrive {
        arrivals,
        create,
        limit: 100,
    };
    answered!(ask(queries, "", query::Body::Arrive(arrive)).await, Arrived).users
}

#[tokio::test]
async fn users_who_arrive_together_are_created_named_or_refused_each_for_themselves() {
    with_database(async |db| {
        let queries = queries(&db).await;
        let strangers = vec![
            arrival("alice", "Alice"),
            arrival("bob", ""),
            arrival("a b\n", "x"),
        ];
        let refused = arrive(&queries, strangers.clone(), false).await;
        let codes = refused.iter().map(|one| one.error.as_ref().map(v1::Error::code));
        let (unknown, invalid) = (Some(ErrorCode::NotFound), Some(ErrorCode::Invalid));
        assert_eq!(codes.collect::<Vec<_>>(), [unknown, unknown, invalid]);
        let created = arrive(&queries, strangers, true).await;
        let names = |arrived: &[v1::ArrivedUser]| -> Vec<Option<String>> {
            let name = |one: &v1::ArrivedUser| one.user.as_ref().map(|user| user.username.clone());
            arrived.iter().map(name).collect()
        };
        let named = |names: [&str; 2]| names.map(|name| Some(name.to_owned()));
        assert_eq!(names(&created[..2]), named(["Alice", "bob"]));
        assert_eq!(created[2].error.as_ref().map(v1::Error::code), invalid);
        assert_eq!(created[0].membership.as_ref().unwrap().version, 0);
        // A token that says another name gives it, also twice at once; one that says none changes nothing.
        let renamed = vec![
            arrival("alice", ""),
            arrival("bob", "Robert"),
            arrival("bob", "Robert"),
        ];
        let renamed = arrive(&queries, renamed, false).await;
        assert_eq!(names(&renamed[..2]), named(["Alice", "Robert"]));
        sqlx::query("UPDATE users SET deleted_at = now() WHERE user_id = 'bob'")
            .execute(&db.database.writes)
            .await
            .unwrap();
        for create in [true, false] {
            let deleted = arrive(
                &queries,
                vec![arrival("bob", "Bob"), arrival("alice", "")],
                create,
            )
            .await;
            assert_eq!(deleted[0].error.as_ref().map(v1::Error::code), unknown);
            assert!(deleted[1].error.is_none());
        }
    })
    .await;
}

#[tokio::test]
async fn as_many_of_the_first_are_answered_as_fit_and_no_more_is_read() {
    with_database(async |mut db| {
        let ids: Vec<_> = (0..20).map(|_| conversation()).collect();
        let works: Vec<_> = ids
            .iter()
            .map(|id| work(&creation("alice", *id, &["bob"])))
            .collect();
        db.commit(&works).await;
        let queries = queries(&db).await;
        let many: Vec<_> = (0..500)
            .map(|place| arrival(["alice", "bob"][place % 2], ""))
            .collect();
        let arrived = arrive(&queries, many, false).await;
        let whole = |one: &v1::ArrivedUser| one.membership.as_ref().unwrap().conversation_ids.len();
        let ids = arrived
            .iter()
            .map(|one| one.user.as_ref().unwrap().user_id.as_str());
        assert!(
            ids.enumerate()
                .all(|(place, id)| id == ["alice", "bob"][place % 2])
        );
        assert!(arrived.iter().all(|one| whole(one) == 20));
        let bytes: usize = arrived.iter().map(prost::Message::encoded_len).sum();
        assert!(
            (600_000..=700 * 1024).contains(&bytes) || arrived.len() == 500,
            "{bytes}"
        );
    })
    .await;
}

#[tokio::test]
async fn memberships_travel_in_pages_of_one_version() {
    with_database(async |mut db| {
        let mut ids: Vec<_> = (0..5).map(|_| conversation()).collect();
        let created: Vec<_> = ids
            .iter()
            .map(|id| work(&creation("alice", *id, &["bob"])))
            .collect();
        db.commit(&created).await;
        db.commit(&[work(&sending("bob", ids[3], "m1", "x"))]).await;
        let queries = queries(&db).await;
        let whole = arrive(&queries, vec![arrival("alice", "")], false).await;
        let whole = whole[0].membership.clone().unwrap();
        ids.sort();
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        assert_eq!((&whole.conversation_ids, whole.next.as_str()), (&ids, ""));
        assert_eq!(whole.unread.iter().sum::<u64>(), 1);
        let (mut after, mut paged, mut pages) = (String::new(), v1::Membership::default(), 0);
        loop {
            let part = v1::Arrive {
                arrivals: vec![v1::Arrival {
                    after,
                    ..arrival("alice", "")
                }],
                create: false,
                limit: 2,
            };
            let part = answered!(ask(&queries, "", query::Body::Arrive(part)).await, Arrived);
            let part = part.users[0].membership.clone().unwrap();
            assert_eq!(part.version, whole.version);
            paged.conversation_ids.extend(part.conversation_ids);
            paged.unread.extend(part.unread);
            paged.head_seqs.extend(part.head_seqs);
            pages += 1;
            after = part.next;
            if after.is_empty() {
                break;
            }
        }
        assert_eq!(pages, 3);
        assert_eq!(
            (paged.conversation_ids, paged.unread, paged.head_seqs),
            (whole.conversation_ids, whole.unread, whole.head_seqs)
        );
    })
    .await;
}

#[tokio::test]
async fn conversations_opened_together_look_as_each_opened_alone() {
    with_database(async |mut db| {
        let (id, other) = (conversation(), conversation());
        db.commit(&[
            work(&creation("alice", id, &["bob"])),
            work(&creation("alice", other, &["carol"])),
            work(&sending("bob", id, "m1", "x")),
            work(&sending("alice", id, "m2", "y")),
        ])
        .await;
        db.commit(&[work(&read("alice", id, 2, &[]))]).await;
        let queries = queries(&db).await;
        let viewing = |user: &str, id: &str| v1::Viewing {
            user_id: user.into(),
            conversation_id: id.into(),
            client: None,
            presence: true,
        };
        let (id, other) = (id.to_string(), other.to_string());
        let asked = [
            ("alice", &id),
            ("bob", &id),
            ("bob", &other),
            ("carol", &other),
            ("alice", &fresh()),
        ]
        .map(|(user, id)| viewing(user, id));
        let together = v1::ViewConversations {
            viewings: asked.to_vec(),
        };
        let together = ask(&queries, "", query::Body::ViewConversations(together)).await;
        let together = answered!(together, ConversationViews);
        assert_eq!(
            (together.conversations.len(), together.views.len()),
            (2, asked.len())
        );
        for (viewing, view) in asked.iter().zip(together.views) {
            let alone = v1::GetConversation {
                conversation_id: viewing.conversation_id.clone(),
                client: None,
            };
            match ask(&queries, &viewing.user_id, query::Body::GetConversation(alone)).await {
                Ok(v1::reply::Body::Conversation(alone)) => {
                    let shared = together.conversations[view.conversation as usize].clone();
                    let seen = v1::Conversation {
                        unread: view.unread,
                        delivered_seq: view.delivered_seq,
                        last_message: view.last_message,
                        ..shared
                    };
                    assert_eq!(seen, alone);
                }
                Err(code) => assert_eq!(view.error.map(|error| error.code()), Some(code)),
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn rooms_asked_for_together_are_those_asked_for_alone_and_the_others_are_missing() {
    with_database(async |mut db| {
        let ids = [conversation(), conversation()];
        db.commit(&[
            work(&creation("alice", ids[0], &["bob"])),
            work(&creation("alice", ids[1], &["carol", "dora"])),
        ])
        .await;
        let queries = queries(&db).await;
        let missing = fresh();
        let mut asked: Vec<String> = ids.iter().map(ToString::to_string).collect();
        asked.push(missing.clone());
        let together = v1::GetRooms {
            conversation_ids: asked,
            small: 0,
        };
        let together = ask(&queries, "", query::Body::GetRooms(together)).await;
        let together = answered!(together, Rooms);
        assert_eq!((together.rooms.len(), together.missing), (2, vec![missing]));
        for room in together.rooms {
            let alone = query::Body::GetRoom(v1::GetRoom {
                conversation_id: room.conversation_id.clone(),
                small: 0,
            });
            assert_eq!(answered!(ask(&queries, "", alone).await, Room), room);
        }
    })
    .await;
}
