//! Banned users on a real Postgres: removed, and added by nobody before the ban ends.

use parlance_proto::ConversationId;
use parlance_proto::v1::{self, Command, ErrorCode, Role, command, query, reply, user_notice};

use crate::database::{TestDatabase, with_database};
use crate::queries::{ask, queries};
use crate::works::{add, code, command, conversation, creation, direct, sending, user, view, work};

fn ban(who: &str, id: ConversationId, whom: &str) -> Command {
    let ban = v1::BanMember { user_id: whom.into() };
    command(who, id, command::Body::BanMember(ban))
}

fn unban(who: &str, id: ConversationId, whom: &str) -> Command {
    let unban = v1::UnbanMember { user_id: whom.into() };
    command(who, id, command::Body::UnbanMember(unban))
}

fn role(who: &str, id: ConversationId, whom: &str, role: Role) -> Command {
    let change = v1::ChangeRole {
        user_id: whom.into(),
        role: role.into(),
    };
    command(who, id, command::Body::ChangeRole(change))
}

async fn members(db: &TestDatabase) -> String {
    let query = "SELECT coalesce(string_agg(user_id, ' ' ORDER BY user_id), '') FROM participants WHERE left_seq IS NULL";
    db.text(query).await
}

#[tokio::test]
async fn fifty_attempts_to_bring_a_banned_user_back_change_nothing() {
    with_database(async |mut db| {
        let id = conversation();
        let answers = db
            .commit(&[
                work(&creation("alice", id, &["bob", "carol"])),
                work(&role("alice", id, "carol", Role::Moderator)),
                work(&ban("alice", id, "bob")),
            ])
            .await;
        assert_eq!(answers[2].events.len(), 1);
        let noticed = &answers[2].notices[0];
        assert_eq!(noticed.user_id, "bob");
        assert!(matches!(
            noticed.body,
            Some(user_notice::Body::ConversationRemoved(_))
        ));
        assert_eq!(members(&db).await, "alice carol");
        let head = db.number("SELECT head_seq FROM conversations").await;
        for round in 0..50 {
            let attempts = [
                work(&add("alice", id, &["bob"])),
                work(&add("carol", id, &["dave", "bob"])),
                work(&sending("bob", id, &format!("m{round}"), "let me in")),
                work(&add("bob", id, &["bob"])),
                work(&unban("bob", id, "bob")),
            ];
            let codes: Vec<_> = db.commit(&attempts).await.iter().map(code).collect();
            let (forbidden, none) = (Some(ErrorCode::Forbidden), Some(ErrorCode::NotFound));
            assert_eq!(codes, [forbidden, forbidden, none, none, none]);
        }
        assert_eq!(members(&db).await, "alice carol");
        assert_eq!(db.number("SELECT head_seq FROM conversations").await, head);

        let works = [
            work(&ban("carol", id, "bob")),
            work(&unban("carol", id, "bob")),
            work(&unban("carol", id, "bob")),
            work(&add("carol", id, &["bob"])),
        ];
        let answers = db.commit(&works).await;
        assert_eq!(
            answers.iter().map(|one| one.repeated).collect::<Vec<_>>(),
            [true, false, true, false]
        );
        assert_eq!(members(&db).await, "alice bob carol");
        // Ended and begun in one batch, and redelivered by another replica.
        let again = db.commit_elsewhere(&works[..2]).await;
        assert!(again.iter().all(|one| one.repeated || code(one).is_none()));
        assert_eq!(members(&db).await, "alice bob carol");
        assert_eq!(db.number("SELECT count(*) FROM bans").await, 0);
    })
    .await;
}

#[tokio::test]
async fn staff_bans_users_below_it_and_others_nobody() {
    with_database(async |mut db| {
        let (id, other) = (conversation(), conversation());
        let pair = ConversationId::direct(&user("alice"), &user("bob"));
        let answers = db
            .commit(&[
                work(&creation("alice", id, &["bob", "carol", "dave"])),
                work(&role("alice", id, "carol", Role::Moderator)),
                work(&creation("eve", other, &["alice"])),
                work(&direct("alice", "bob")),
                work(&ban("bob", id, "dave")),
                work(&ban("carol", id, "alice")),
                work(&ban("mallory", id, "dave")),
                work(&ban("alice", id, "alice")),
                work(&ban("alice", id, "nobody")),
                work(&ban("alice", pair, "bob")),
                // Of a non-member.
                work(&ban("carol", id, "eve")),
                work(&add("alice", id, &["eve"])),
                work(&ban("carol", id, "dave")),
            ])
            .await;
        let codes: Vec<_> = answers.iter().skip(4).map(code).collect();
        assert_eq!(
            codes,
            [
                Some(ErrorCode::Forbidden),
                Some(ErrorCode::Forbidden),
                Some(ErrorCode::NotFound),
                Some(ErrorCode::Invalid),
                Some(ErrorCode::NotFound),
                Some(ErrorCode::Invalid),
                None,
                Some(ErrorCode::Forbidden),
                None,
            ]
        );
        assert!(answers[10].events.is_empty());
        assert_eq!(view(&answers[12]).participant_count, 3);
        let queries = queries(&db).await;
        let list = |after: &str, limit| {
            query::Body::ListBans(v1::ListBans {
                conversation_id: id.to_string(),
                after: after.into(),
                limit,
            })
        };
        let Ok(reply::Body::Bans(page)) = ask(&queries, "carol", list("", 1)).await else {
            panic!("no bans");
        };
        assert_eq!(
            (page.bans[0].user_id.as_str(), page.bans[0].banned_by.as_str()),
            ("dave", "carol")
        );
        assert_eq!(page.next, "dave");
        let Ok(reply::Body::Bans(page)) = ask(&queries, "alice", list("dave", 1)).await else {
            panic!("no bans");
        };
        assert_eq!((page.bans[0].user_id.as_str(), page.next.as_str()), ("eve", ""));
        assert!(page.bans[0].at_ms > 0);
        assert_eq!(
            ask(&queries, "bob", list("", 1)).await.err(),
            Some(ErrorCode::Forbidden)
        );
        assert_eq!(
            ask(&queries, "mallory", list("", 1)).await.err(),
            Some(ErrorCode::NotFound)
        );
    })
    .await;
}

#[tokio::test]
async fn a_group_bans_no_more_users_than_the_limit_and_has_an_admin_left() {
    with_database(async |mut db| {
        db.bounds.group_bans = 1;
        let id = conversation();
        let answers = db
            .commit(&[
                work(&creation("alice", id, &["bob", "carol", "dave"])),
                work(&role("alice", id, "bob", Role::Admin)),
                work(&ban("bob", id, "alice")),
                work(&ban("bob", id, "carol")),
                work(&unban("bob", id, "alice")),
                work(&ban("bob", id, "carol")),
            ])
            .await;
        let codes: Vec<_> = answers.iter().map(code).collect();
        assert_eq!(codes, [None, None, None, Some(ErrorCode::TooLarge), None, None]);
        let another = db.commit(&[work(&ban("bob", id, "dave"))]).await;
        assert_eq!(code(&another[0]), Some(ErrorCode::TooLarge));
        assert_eq!(members(&db).await, "bob dave");
    })
    .await;
}
