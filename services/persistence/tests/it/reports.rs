//! Reported messages on a real Postgres: what may be reported, how often, and what the queue keeps.

use parlance_persistence::expiry::forget_reports;
use parlance_proto::ConversationId;
use parlance_proto::v1::{self, Command, ErrorCode, ReportReason, command, query, reply};

use crate::database::with_database;
use crate::queries::{ask, queries};
use crate::works::{code, command, conversation, creation, delete, edit, message, sending, work};

fn report(who: &str, id: ConversationId, message_id: &str) -> Command {
    let report = v1::ReportMessage {
        message_id: message_id.into(),
        reason: ReportReason::Harassment.into(),
        comment: "please look".into(),
    };
    command(who, id, command::Body::ReportMessage(report))
}

fn list(cursor: &str, limit: u32) -> query::Body {
    query::Body::ListReports(v1::ListReports {
        cursor: cursor.into(),
        limit,
    })
}

#[tokio::test]
async fn a_reported_message_is_queued_as_it_was_and_nobody_in_the_conversation_learns_of_it() {
    with_database(async |mut db| {
        let id = conversation();
        let works = [
            work(&creation("alice", id, &["bob", "carol"])),
            work(&sending("alice", id, "m1", "first words")),
            work(&sending("alice", id, "m2", "gone")),
            work(&report("bob", id, "#1")),
            work(&report("bob", id, "#1")),
            work(&edit("alice", id, "#1", "other words")),
            work(&report("carol", id, "#1")),
            work(&delete("alice", id, "#2")),
            work(&report("bob", id, "#2")),
            work(&report("alice", id, "#1")),
            work(&report("mallory", id, "#1")),
        ];
        let answers = db.commit(&works).await;
        for answer in &answers[3..] {
            assert!(answer.notices.is_empty());
        }
        for place in [3, 4, 6] {
            assert_eq!(message(&answers[place]).id, message(&answers[1]).id);
            assert!(answers[place].events.is_empty());
        }
        assert_eq!(code(&answers[8]), Some(ErrorCode::NotFound));
        assert_eq!(code(&answers[9]), Some(ErrorCode::Invalid));
        assert_eq!(code(&answers[10]), Some(ErrorCode::NotFound));
        let queries = queries(&db).await;
        let Ok(reply::Body::Reports(page)) = ask(&queries, "", list("", 1)).await else {
            panic!("no queue");
        };
        assert_eq!(page.reports.len(), 1);
        let Ok(reply::Body::Reports(rest)) = ask(&queries, "", list(&page.next, 10)).await else {
            panic!("no queue");
        };
        let mut queue = page.reports;
        queue.extend(rest.reports);
        queue.sort_by(|one, other| one.reporter_id.cmp(&other.reporter_id));
        let shown: Vec<_> = queue
            .iter()
            .map(|one| {
                (
                    one.reporter_id.as_str(),
                    one.content.as_str(),
                    one.sender_id.as_str(),
                    one.seq,
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("bob", "first words", "alice", 1),
                ("carol", "other words", "alice", 1)
            ]
        );
        assert_eq!(
            (queue[0].reason(), queue[0].comment.as_str()),
            (ReportReason::Harassment, "please look")
        );
        assert_eq!(rest.next, "");
    })
    .await;
}

#[tokio::test]
async fn only_services_read_and_settle_reports_and_settled_ones_are_deleted_in_time() {
    with_database(async |mut db| {
        let id = conversation();
        db.commit(&[
            work(&creation("alice", id, &["bob", "carol"])),
            work(&sending("alice", id, "m1", "words")),
            work(&report("bob", id, "#1")),
            work(&report("carol", id, "#1")),
        ])
        .await;
        let queries = queries(&db).await;
        assert_eq!(
            ask(&queries, "alice", list("", 10)).await.err(),
            Some(ErrorCode::NotFound)
        );
        let Ok(reply::Body::Reports(queue)) = ask(&queries, "", list("", 10)).await else {
            panic!("no queue");
        };
        assert_eq!(queue.reports.len(), 2);
        let resolve = v1::ResolveReport {
            id: queue.reports[0].id.clone(),
            resolved_by: "service".into(),
            resolution: "warned".into(),
        };
        for _ in 0..2 {
            let resolved = ask(&queries, "", query::Body::ResolveReport(resolve.clone())).await;
            assert!(matches!(resolved, Ok(reply::Body::ReportResolved(_))));
        }
        let of_user = ask(&queries, "bob", query::Body::ResolveReport(resolve.clone())).await;
        assert_eq!(of_user.err(), Some(ErrorCode::NotFound));
        let Ok(reply::Body::Reports(left)) = ask(&queries, "", list("", 10)).await else {
            panic!("no queue");
        };
        assert_eq!(left.reports.len(), 1);
        forget_reports(&db.database, 1).await.unwrap();
        assert_eq!(db.number("SELECT count(*) FROM message_reports").await, 2);
        sqlx::query("UPDATE message_reports SET resolved_at = resolved_at - interval '2 days'")
            .execute(&db.database.writes)
            .await
            .unwrap();
        forget_reports(&db.database, 1).await.unwrap();
        assert_eq!(db.number("SELECT count(*) FROM message_reports").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_user_has_no_more_unsettled_reports_than_the_limit() {
    with_database(async |mut db| {
        db.bounds.user_reports = 2;
        let id = conversation();
        let mut works = vec![work(&creation("alice", id, &["bob"]))];
        works.extend((1..5).map(|n| work(&sending("alice", id, &format!("m{n}"), "x"))));
        works.extend((1..4).map(|n| work(&report("bob", id, &format!("#{n}")))));
        let answers = db.commit(&works).await;
        let codes: Vec<_> = answers.iter().skip(5).map(code).collect();
        assert_eq!(codes, [None, None, Some(ErrorCode::TooLarge)]);
        let answers = db.commit(&[work(&report("bob", id, "#4"))]).await;
        assert_eq!(code(&answers[0]), Some(ErrorCode::TooLarge));
        sqlx::query("UPDATE message_reports SET resolved_at = now()")
            .execute(&db.database.writes)
            .await
            .unwrap();
        let answers = db.commit(&[work(&report("bob", id, "#4"))]).await;
        assert_eq!(code(&answers[0]), None);
    })
    .await;
}
