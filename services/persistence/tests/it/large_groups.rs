//! Groups of hundreds and thousands: nothing that is answered or published carries them whole, and they end at their limits.

use std::collections::BTreeSet;
use std::time::Instant;

use parlance_persistence::ingest::answer::Answer;
use parlance_proto::v1::{self, ErrorCode, Role, command, confirmation, event, query, user_notice};
use prost::Message as _;

use crate::database::{TestDatabase, with_database};
use crate::queries::{answered, ask, queries};
use crate::works::{add, code, command, conversation, creation, direct, sending, view, work};

fn names(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| format!("user-{number:05}")).collect()
}

fn borrowed(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

/// Bytes of everything that is published for a command, and in how many notices.
fn published(answer: &Answer) -> (usize, usize) {
    let confirmed = match &answer.result {
        confirmation::Result::Conversation(view) => view.encoded_len(),
        other => panic!("{other:?}"),
    };
    let events: usize = answer.events.iter().map(prost::Message::encoded_len).sum();
    let notices: usize = answer.notices.iter().map(prost::Message::encoded_len).sum();
    (confirmed + events + notices, answer.notices.len())
}

async fn measured(db: &mut TestDatabase, name: &str, one: v1::Command) -> Answer {
    let begun = Instant::now();
    let answer = match db.try_commit(&[work(&one)]).await {
        Ok(mut answers) => answers.remove(0),
        Err(error) => panic!("{name}: {error} after {:?}", begun.elapsed()),
    };
    let elapsed = begun.elapsed();
    let (bytes, notices) = published(&answer);
    eprintln!("{name}: {elapsed:?}, {bytes} bytes in {notices} notices, events and a confirmation");
    answer
}

fn ids(participants: &[v1::Participant]) -> Vec<&str> {
    participants.iter().map(|one| one.user_id.as_str()).collect()
}

fn error(answer: &Answer) -> &str {
    match &answer.result {
        confirmation::Result::Error(error) => &error.message,
        other => panic!("no error: {other:?}"),
    }
}

#[tokio::test]
async fn an_answer_lists_the_first_participants_and_the_viewer_and_counts_all() {
    with_database(async |mut db| {
        let (id, small) = (conversation(), conversation());
        let all = names(0..250);
        let made = db.commit(&[work(&creation("alice", id, &borrowed(&all)))]).await;
        db.commit(&[work(&creation("user-00249", small, &["user-00001"]))])
            .await;
        let of_alice = view(&made[0]);
        let shape = |view: &v1::Conversation| {
            (
                view.participants.len(),
                view.participant_count,
                view.participants_complete,
            )
        };
        assert_eq!(shape(&of_alice), (100, 251, false));
        assert_eq!(ids(&of_alice.participants)[..2], ["alice", "user-00000"]);
        let queries = queries(&db).await;
        let get = |id: parlance_proto::ConversationId| {
            query::Body::GetConversation(v1::GetConversation {
                conversation_id: id.to_string(),
                client: None,
            })
        };
        let last = answered!(ask(&queries, "user-00249", get(id)).await, Conversation);
        assert_eq!(shape(&last), (100, 251, false));
        let listed = ids(&last.participants);
        assert_eq!((listed[98], listed[99]), ("user-00097", "user-00249"));
        assert_eq!(last.participants[99].role(), Role::Member);
        let whole = answered!(ask(&queries, "user-00249", get(small)).await, Conversation);
        assert_eq!(shape(&whole), (2, 2, true));
        let list = query::Body::ListConversations(v1::ListConversations::default());
        let list = answered!(ask(&queries, "user-00249", list).await, Conversations).conversations;
        assert_eq!(
            list.iter().map(shape).collect::<Vec<_>>(),
            [(2, 2, true), (100, 251, false)]
        );
        // Those who open it together share what is listed, but for themselves.
        let viewing = |user: &str| v1::Viewing {
            user_id: user.into(),
            conversation_id: id.to_string(),
            client: None,
            presence: false,
        };
        let viewings = vec![viewing("user-00001"), viewing("user-00249")];
        let views = query::Body::ViewConversations(v1::ViewConversations { viewings });
        let views = answered!(ask(&queries, "", views).await, ConversationViews);
        let own = views
            .views
            .iter()
            .map(|view| view.participant.as_ref().map(|one| one.user_id.as_str()));
        assert_eq!(own.collect::<Vec<_>>(), [None, Some("user-00249")]);
        assert_eq!(shape(&views.conversations[0]), (100, 251, false));
    })
    .await;
}

#[tokio::test]
async fn what_participants_have_read_never_makes_a_list_too_large() {
    with_database(async |mut db| {
        let id = conversation();
        db.commit(&[work(&creation("alice", id, &borrowed(&names(0..99))))]).await;
        sqlx::query(
            "UPDATE participants SET read_seqs =
                 (SELECT range_agg(int8range(1000000 + 2 * n, 1000001 + 2 * n)) FROM generate_series(1, 2000) AS n)",
        )
        .execute(&db.database.writes)
        .await
        .unwrap();
        let queries = queries(&db).await;
        let own = |view: &v1::Conversation, user: &str| {
            assert!(view.encoded_len() < 300_000, "{}", view.encoded_len());
            let mut all = view.participants.iter();
            all.find(|one| one.user_id == user).unwrap().read.len()
        };
        for user in ["alice", "user-00098"] {
            let list = query::Body::ListConversations(v1::ListConversations::default());
            let list = answered!(ask(&queries, user, list).await, Conversations).conversations;
            assert_eq!(own(&list[0], user), 2_000, "{user}");
        }
        let viewing = |user: &str| v1::Viewing {
            user_id: user.into(),
            conversation_id: id.to_string(),
            client: None,
            presence: false,
        };
        let viewings = vec![viewing("alice"), viewing("user-00098")];
        let views = query::Body::ViewConversations(v1::ViewConversations { viewings });
        let views = answered!(ask(&queries, "", views).await, ConversationViews);
        let read = views
            .views
            .iter()
            .map(|view| view.participant.as_ref().map(|one| one.read.len()));
        assert_eq!(read.collect::<Vec<_>>(), [None, Some(2_000)]);
        let added = db.commit(&[work(&add("alice", id, &["zoe"]))]).await;
        assert_eq!(own(&view(&added[0]), "alice"), 2_000);
    })
    .await;
}

#[tokio::test]
async fn participants_are_listed_in_pages_to_each_other_and_found_one_by_one() {
    with_database(async |mut db| {
        let id = conversation();
        let all = names(0..250);
        db.commit(&[work(&creation("alice", id, &borrowed(&all)))]).await;
        let leave = command(
            "user-00100",
            id,
            command::Body::RemoveMember(v1::RemoveMember {
                user_id: "user-00100".into(),
            }),
        );
        db.commit(&[work(&leave)]).await;
        let queries = queries(&db).await;
        let page = |after: &str, limit: u32| {
            query::Body::ListParticipants(v1::ListParticipants {
                conversation_id: id.to_string(),
                after: after.into(),
                limit,
            })
        };
        let (mut seen, mut after, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = answered!(ask(&queries, "alice", page(&after, 100)).await, Participants);
            pages += 1;
            seen.extend(page.participants.into_iter().map(|one| one.user_id));
            if page.next.is_empty() {
                break;
            }
            after = page.next;
        }
        let mut expected: Vec<String> = std::iter::once("alice".to_owned()).chain(all).collect();
        expected.retain(|user| user != "user-00100");
        assert_eq!((pages, seen), (3, expected));
        assert_eq!(
            ask(&queries, "mallory", page("", 10)).await,
            Err(ErrorCode::NotFound)
        );
        assert_eq!(
            ask(&queries, "user-00100", page("", 10)).await,
            Err(ErrorCode::NotFound)
        );
        assert_eq!(
            ask(&queries, "alice", page("a\0b", 10)).await,
            Err(ErrorCode::Invalid)
        );
        let name = |user: &str| v1::MemberName {
            conversation_id: id.to_string(),
            user_id: user.into(),
        };
        let names = ["user-00249", "user-00100", "mallory", "alice", ""]
            .map(name)
            .to_vec();
        let found = query::Body::FindMembers(v1::FindMembers { names });
        let found = answered!(ask(&queries, "", found).await, FoundMembers).members;
        let roles: Vec<_> = found
            .iter()
            .map(|one| one.participant.as_ref().map(v1::Participant::role))
            .collect();
        assert_eq!(roles, [Some(Role::Member), None, None, Some(Role::Admin), None]);
        for (small, listed) in [(0, 250), (200, 0), (250, 250)] {
            let room = query::Body::GetRoom(v1::GetRoom {
                conversation_id: id.to_string(),
                small,
            });
            let room = answered!(ask(&queries, "", room).await, Room);
            assert_eq!((room.members.len(), room.member_count), (listed, 250), "{small}");
        }
    })
    .await;
}

#[tokio::test]
async fn who_is_added_stands_in_changes_of_a_hundred_and_one_notice_goes_to_all() {
    with_database(async |mut db| {
        let id = conversation();
        db.commit(&[work(&creation("alice", id, &["bob"]))]).await;
        let new = names(0..250);
        let adding = add("alice", id, &borrowed(&new));
        let added = db
            .commit(&[work(&adding), work(&sending("alice", id, "m1", "hello"))])
            .await;
        let told = |answer: &Answer| -> Vec<(u64, usize)> {
            let of = |event: &v1::Event| match &event.body {
                Some(event::Body::MembersAdded(added)) => (event.seq, added.members.len()),
                other => panic!("{other:?}"),
            };
            answer.events.iter().map(of).collect()
        };
        assert_eq!(told(&added[0]), [(1, 100), (2, 100), (3, 50)]);
        let [notice] = &added[0].notices[..] else {
            panic!("{:?}", added[0].notices)
        };
        let named: BTreeSet<_> = notice
            .users
            .iter()
            .map(|user| (user.user_id.clone(), user.memberships_version))
            .collect();
        assert_eq!(named, new.iter().map(|user| (user.clone(), 1)).collect());
        let Some(user_notice::Body::ConversationAdded(gained)) = &notice.body else {
            panic!("{notice:?}")
        };
        // Of what came after they joined, nothing is read.
        assert_eq!(
            (
                gained.head_seq,
                gained.participants.len(),
                gained.participant_count
            ),
            (3, 0, 252)
        );
        let again = db.commit(&[work(&adding)]).await;
        assert!(again[0].repeated && again[0].events == added[0].events);
        assert_eq!(again[0].notices[0].users, notice.users);
        let deletion = command(
            "alice",
            id,
            command::Body::DeleteConversation(v1::DeleteConversation {}),
        );
        let deleted = db.commit(&[work(&deletion)]).await;
        assert_eq!(
            (deleted[0].notices.len(), deleted[0].notices[0].users.len()),
            (1, 252)
        );
    })
    .await;
}

#[tokio::test]
async fn groups_and_the_conversations_of_a_user_end_at_their_limits() {
    with_database(async |mut db| {
        db.bounds.group_members = 4;
        db.bounds.user_conversations = 3;
        let id = conversation();
        let answers = db
            .commit(&[
                work(&creation(
                    "alice",
                    conversation(),
                    &["bob", "carol", "dave", "eve"],
                )),
                work(&creation("alice", id, &["bob", "carol"])),
                work(&add("alice", id, &["dave", "eve"])),
                work(&add("alice", id, &["dave"])),
                work(&add("alice", id, &["eve"])),
                // Who is there already does not count again.
                work(&add("alice", id, &["bob", "dave"])),
            ])
            .await;
        let codes: Vec<_> = answers.iter().map(code).collect();
        let large = Some(ErrorCode::TooLarge);
        assert_eq!(codes, [large, None, large, None, large, None]);
        assert_eq!(
            error(&answers[0]),
            "the conversation would have 5 participants; limits.group_members allows 4"
        );
        let leave = command(
            "alice",
            id,
            command::Body::RemoveMember(v1::RemoveMember {
                user_id: "dave".into(),
            }),
        );
        let answers = db
            .commit(&[work(&leave), work(&add("alice", id, &["eve"]))])
            .await;
        assert_eq!(answers.iter().map(code).collect::<Vec<_>>(), [None, None]);

        let answers = db
            .commit(&[
                work(&direct("alice", "bob")),
                work(&creation("bob", conversation(), &["carol"])),
                work(&creation("carol", conversation(), &["bob"])),
                work(&add("alice", id, &["alice"])),
            ])
            .await;
        assert_eq!(
            answers.iter().map(code).collect::<Vec<_>>(),
            [None, None, large, None]
        );
        assert_eq!(
            error(&answers[2]),
            "bob is in as many conversations as limits.user_conversations allows: 3"
        );
        let leave = command(
            "bob",
            id,
            command::Body::RemoveMember(v1::RemoveMember {
                user_id: "bob".into(),
            }),
        );
        let answers = db
            .commit(&[work(&leave), work(&creation("carol", conversation(), &["bob"]))])
            .await;
        assert_eq!(answers.iter().map(code).collect::<Vec<_>>(), [None, None]);
        assert_eq!(code(&db.commit(&[work(&direct("zoe", "bob"))]).await[0]), large);
    })
    .await;
}

#[tokio::test]
async fn a_group_beyond_its_limit_still_changes_but_for_newcomers() {
    with_database(async |mut db| {
        let id = conversation();
        db.commit(&[work(&creation("alice", id, &["bob", "carol"]))])
            .await;
        db.bounds.group_members = 2;
        let promote = v1::AddMembers {
            user_ids: vec!["bob".into()],
            role: Role::Moderator.into(),
            change_present: true,
            ..Default::default()
        };
        let answers = db
            .commit(&[
                work(&command("alice", id, command::Body::AddMembers(promote))),
                work(&add("alice", id, &["carol"])),
                work(&add("alice", id, &["dave"])),
            ])
            .await;
        assert_eq!(
            answers.iter().map(code).collect::<Vec<_>>(),
            [None, None, Some(ErrorCode::TooLarge)]
        );
    })
    .await;
}

#[tokio::test]
async fn the_lead_of_a_large_group_passes_on_through_several_who_leave_at_once() {
    with_database(async |mut db| {
        let id = conversation();
        let all = names(0..250);
        let promote = v1::ChangeRole {
            user_id: "user-00200".into(),
            role: Role::Moderator.into(),
        };
        let promote = command("alice", id, command::Body::ChangeRole(promote));
        db.commit(&[work(&creation("alice", id, &borrowed(&all))), work(&promote)])
            .await;
        let leave = |user: &str| {
            let user_id = user.to_owned();
            command(
                user,
                id,
                command::Body::RemoveMember(v1::RemoveMember { user_id }),
            )
        };
        let demote = v1::ChangeRole {
            user_id: "alice".into(),
            role: Role::Member.into(),
        };
        let demote = command("alice", id, command::Body::ChangeRole(demote));
        let answers = db
            .commit(&[
                work(&demote),
                work(&leave("alice")),
                work(&leave("user-00200")),
                work(&leave("user-00000")),
                work(&leave("user-00249")),
            ])
            .await;
        let codes: Vec<_> = answers.iter().map(code).collect();
        assert_eq!(codes, [Some(ErrorCode::Invalid), None, None, None, None]);
        let roles: i64 = db
            .number("SELECT count(*) FROM participants WHERE role = 3 AND left_seq IS NULL")
            .await;
        assert_eq!(roles, 1);
        let admin = db
            .text("SELECT user_id FROM participants WHERE role = 3 AND left_seq IS NULL")
            .await;
        assert_eq!(admin, "user-00001");
    })
    .await;
}

#[tokio::test]
async fn what_a_replica_of_the_version_before_changes_is_counted_anew() {
    with_database(async |mut db| {
        let id = conversation();
        db.commit(&[work(&creation("alice", id, &["bob"]))]).await;
        db.bounds.group_members = 4;
        // As a version that does not count adds somebody, and moves the head and the user's version by it.
        for statement in [
            "INSERT INTO users (user_id, username, memberships_version) VALUES ('carol', 'carol', 1)",
            "INSERT INTO participants (conversation_id, user_id, role, joined_seq)
             SELECT conversation_id, 'carol', 1, 1 FROM conversations",
            "INSERT INTO changes (conversation_id, seq, command_id, kind, actor, at)
             SELECT conversation_id, 1, gen_random_uuid(), 6, 'alice', now() FROM conversations",
            "UPDATE conversations SET head_seq = 1",
        ] {
            sqlx::query(statement).execute(&db.database.writes).await.unwrap();
        }
        let queries = queries(&db).await;
        let count = async || {
            let get = v1::GetConversation {
                conversation_id: id.to_string(),
                client: None,
            };
            let seen = answered!(
                ask(&queries, "carol", query::Body::GetConversation(get)).await,
                Conversation
            );
            seen.participant_count
        };
        assert_eq!(count().await, 3);
        let answers = db
            .commit(&[
                work(&add("alice", id, &["dave"])),
                work(&add("alice", id, &["eve"])),
            ])
            .await;
        assert_eq!(
            answers.iter().map(code).collect::<Vec<_>>(),
            [None, Some(ErrorCode::TooLarge)]
        );
        assert_eq!(count().await, 4);
        assert_eq!(db.number("SELECT member_count FROM conversations").await, 4);
        db.bounds.user_conversations = 1;
        assert_eq!(
            code(&db.commit(&[work(&direct("zoe", "carol"))]).await[0]),
            Some(ErrorCode::TooLarge)
        );
    })
    .await;
}

#[tokio::test]
async fn groups_from_before_counts_were_kept_are_counted_once() {
    with_database(async |mut db| {
        let (large, small) = (conversation(), conversation());
        let all = names(0..250);
        db.commit(&[work(&creation("alice", large, &borrowed(&all)))])
            .await;
        db.commit(&[work(&creation("alice", small, &["bob"]))]).await;
        let forget = "UPDATE conversations SET member_count = NULL, members_at = NULL";
        sqlx::query(forget).execute(&db.database.writes).await.unwrap();
        let backfill = include_str!("../../../../migrations/20260610000000_count_large_groups.sql");
        for _ in 0..2 {
            sqlx::raw_sql(backfill)
                .execute(&db.database.writes)
                .await
                .unwrap();
            let kept = "SELECT string_agg(member_count || ' at ' || members_at, ', ') FROM conversations";
            assert_eq!(db.text(kept).await, "251 at 0");
        }
        let queries = queries(&db).await;
        let list = query::Body::ListConversations(v1::ListConversations::default());
        let list = answered!(ask(&queries, "alice", list).await, Conversations).conversations;
        let counts: BTreeSet<u64> = list.iter().map(|view| view.participant_count).collect();
        assert_eq!(counts, BTreeSet::from([2, 251]));
    })
    .await;
}

#[tokio::test]
#[ignore = "measures"]
async fn what_commands_of_large_groups_cost() {
    with_database(async |mut db| {
        let id = conversation();
        let all = names(0..1_000);
        measured(&mut db, "creating a group of 1,000", creation("alice", id, &borrowed(&all[..999]))).await;
        let large = conversation();
        db.commit(&[work(&creation("alice", large, &borrowed(&all[..999])))]).await;
        for thousand in 1..9 {
            sqlx::query(
                "INSERT INTO users (user_id, username) SELECT u, u FROM unnest($1::text[]) AS u ON CONFLICT DO NOTHING",
            )
            .bind(names(thousand * 1_000..(thousand + 1) * 1_000))
            .execute(&db.database.writes)
            .await
            .unwrap();
            sqlx::query(
                "INSERT INTO participants (conversation_id, user_id, role) SELECT $1, u, 1 FROM unnest($2::text[]) AS u",
            )
            .bind(large.uuid())
            .bind(names(thousand * 1_000..(thousand + 1) * 1_000))
            .execute(&db.database.writes)
            .await
            .unwrap();
        }
        let remove = |user: &str| {
            let user_id = user.to_owned();
            command("alice", large, command::Body::RemoveMember(v1::RemoveMember { user_id }))
        };
        measured(&mut db, "removing one of 9,000", remove("user-00100")).await;
        let added = names(20_000..21_000);
        measured(&mut db, "adding 1,000 to 9,000", add("alice", large, &borrowed(&added))).await;
    })
    .await;
}
