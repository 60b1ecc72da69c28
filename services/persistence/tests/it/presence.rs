//! Who is here, on a real Postgres: reports, repeats, graces, gateways that fall silent, a lost database.

use std::time::Duration;

use parlance_persistence::identity;
use parlance_persistence::presence::{Limits, sweep, take_in};
use parlance_proto::v1::{self, Lease, PresenceStatus, SessionReport, query};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::database::with_database;
use crate::queries::{answered, ask, queries};
use crate::works::{conversation, creation, work};

const LIMITS: Limits = Limits {
    lease: Duration::from_secs(10),
    grace: Duration::from_secs(5),
};

/// A gateway that numbers its reports.
struct Gateway {
    id: Uuid,
    number: u64,
}

fn open(session: u64, user: &str, status: PresenceStatus) -> SessionReport {
    SessionReport {
        session,
        user_id: user.into(),
        status: status.into(),
        ..Default::default()
    }
}

fn online(session: u64, user: &str) -> SessionReport {
    open(session, user, PresenceStatus::Online)
}

fn closed(session: u64, user: &str, seconds_ago: u32) -> SessionReport {
    SessionReport {
        session,
        user_id: user.into(),
        closed: true,
        closed_ms_ago: seconds_ago * 1000,
        ..Default::default()
    }
}

/// `user status` of each change, in order of users.
fn told(changes: &[v1::Presence]) -> Vec<String> {
    let mut told: Vec<String> = changes
        .iter()
        .map(|change| {
            let status = change
                .status()
                .as_str_name()
                .trim_start_matches("PRESENCE_STATUS_");
            format!("{} {}", change.user_id, status.to_lowercase())
        })
        .collect();
    told.sort();
    told
}

impl Gateway {
    fn new() -> Self {
        Self {
            id: identity::random(),
            number: 0,
        }
    }

    fn report(&mut self, sessions: Vec<SessionReport>) -> v1::ReportPresence {
        self.number += 1;
        v1::ReportPresence {
            gateway: self.id.to_string(),
            number: self.number,
            sessions,
            leaving: false,
        }
    }

    /// Reports and returns what is told by it.
    async fn says(&mut self, c: &mut PgConnection, sessions: Vec<SessionReport>) -> Vec<String> {
        let report = self.report(sessions);
        let (lease, changes) = take_in(c, &report, LIMITS).await.unwrap();
        assert_eq!(lease, Lease::Held);
        told(&changes)
    }

    /// Was last heard of that long ago.
    async fn silent_for(&self, c: &mut PgConnection, seconds: i32) {
        sqlx::query("UPDATE gateways SET renewed_at = now() - make_interval(secs => $2) WHERE instance = $1")
            .bind(self.id)
            .bind(f64::from(seconds))
            .execute(c)
            .await
            .unwrap();
    }
}

/// Lets a while pass for everyone who waits.
async fn pass(c: &mut PgConnection, seconds: i32) {
    sqlx::query(
        "UPDATE presence SET due_at = due_at - make_interval(secs => $1),
                closed_at = closed_at - make_interval(secs => $1),
                changed_at = changed_at - make_interval(secs => $1)",
    )
    .bind(f64::from(seconds))
    .execute(c)
    .await
    .unwrap();
}

async fn swept(c: &mut PgConnection) -> Vec<String> {
    told(&sweep(c, LIMITS, true).await.unwrap())
}

const NOTHING: [&str; 0] = [];

#[tokio::test]
async fn a_user_is_online_with_the_first_session_and_offline_a_grace_after_the_last() {
    with_database(async |db| {
        let mut c = db.database.writes.acquire().await.unwrap();
        swept(&mut c).await;
        let (mut one, mut two) = (Gateway::new(), Gateway::new());
        assert_eq!(
            one.says(&mut c, vec![online(1, "alice"), online(2, "bob")]).await,
            ["alice online", "bob online"]
        );
        assert_eq!(two.says(&mut c, vec![online(1, "alice")]).await, NOTHING);
        assert_eq!(one.says(&mut c, vec![closed(1, "alice", 0)]).await, NOTHING);
        assert_eq!(two.says(&mut c, vec![closed(1, "alice", 1)]).await, NOTHING);
        assert_eq!(swept(&mut c).await, NOTHING);
        pass(&mut c, 3).await;
        assert_eq!(swept(&mut c).await, NOTHING);
        pass(&mut c, 3).await;
        assert_eq!(swept(&mut c).await, ["alice offline"]);
        assert_eq!(swept(&mut c).await, NOTHING);
    })
    .await;
}

#[tokio::test]
async fn a_quick_reconnect_anywhere_is_not_told() {
    with_database(async |db| {
        let mut c = db.database.writes.acquire().await.unwrap();
        swept(&mut c).await;
        let (mut one, mut two) = (Gateway::new(), Gateway::new());
        one.says(&mut c, vec![online(1, "alice")]).await;
        one.says(&mut c, vec![closed(1, "alice", 0)]).await;
        pass(&mut c, 4).await;
        assert_eq!(two.says(&mut c, vec![online(7, "alice")]).await, NOTHING);
        pass(&mut c, 60).await;
        assert_eq!(swept(&mut c).await, NOTHING);
        assert_eq!(
            db.number("SELECT count(*) FROM presence WHERE due_at IS NOT NULL")
                .await,
            0
        );
    })
    .await;
}

#[tokio::test]
async fn a_device_that_hides_does_not_hide_another_and_the_last_one_does_at_once() {
    with_database(async |db| {
        let mut c = db.database.writes.acquire().await.unwrap();
        let mut one = Gateway::new();
        one.says(&mut c, vec![online(1, "alice"), online(2, "alice")])
            .await;
        let hidden = |session| open(session, "alice", PresenceStatus::Offline);
        assert_eq!(one.says(&mut c, vec![hidden(1)]).await, NOTHING);
        assert_eq!(one.says(&mut c, vec![hidden(2)]).await, ["alice offline"]);
        let away = open(1, "alice", PresenceStatus::Away);
        assert_eq!(one.says(&mut c, vec![away]).await, ["alice away"]);
        assert_eq!(one.says(&mut c, vec![online(2, "alice")]).await, ["alice online"]);
        // Closing a hidden session is nobody's business, not even in the time of the latest sight.
        one.says(&mut c, vec![hidden(1), hidden(2)]).await;
        let seen: i64 = db
            .number("SELECT (extract(epoch FROM last_seen_at) * 1000)::int8 FROM presence")
            .await;
        one.says(&mut c, vec![closed(1, "alice", 0), closed(2, "alice", 0)])
            .await;
        pass(&mut c, 60).await;
        assert_eq!(swept(&mut c).await, NOTHING);
        let after: i64 = db
            .number("SELECT (extract(epoch FROM last_seen_at) * 1000)::int8 FROM presence")
            .await;
        assert_eq!(seen, after);
    })
    .await;
}

#[tokio::test]
async fn repeats_and_late_copies_change_nothing() {
    with_database(async |db| {
        let mut c = db.database.writes.acquire().await.unwrap();
        let mut one = Gateway::new();
        let first = one.report(vec![online(1, "alice")]);
        let second = one.report(vec![closed(1, "alice", 0), online(2, "bob")]);
        for (report, expected) in [
            (&first, vec!["alice online"]),
            (&first, vec![]),
            (&second, vec!["bob online"]),
            (&first, vec![]),
            (&second, vec![]),
        ] {
            let (lease, changes) = take_in(&mut c, report, LIMITS).await.unwrap();
            assert_eq!(
                (lease, told(&changes)),
                (Lease::Held, expected.into_iter().map(String::from).collect())
            );
        }
        assert_eq!(db.number("SELECT count(*) FROM sessions").await, 1);
        // Several connections in the middle of the same report.
        let third = one.report(vec![online(3, "carol")]);
        let repeated = (0..8).map(|_| {
            let (database, report) = (db.database.clone(), third.clone());
            tokio::spawn(async move {
                let mut c = database.reads.acquire().await.unwrap();
                take_in(&mut c, &report, LIMITS).await.unwrap().1.len()
            })
        });
        let mut changes = 0;
        for one in repeated.collect::<Vec<_>>() {
            changes += one.await.unwrap();
        }
        assert_eq!(changes, 1);
    })
    .await;
}

#[tokio::test]
async fn a_silent_gateway_is_given_up_by_one_replica_and_learns_of_it() {
    with_database(async |db| {
        let mut c = db.database.writes.acquire().await.unwrap();
        let (mut silent, mut other) = (Gateway::new(), Gateway::new());
        silent
            .says(
                &mut c,
                vec![online(1, "alice"), online(2, "bob"), online(3, "carol")],
            )
            .await;
        other.says(&mut c, vec![online(1, "bob")]).await;
        silent.silent_for(&mut c, 9).await;
        assert_eq!(swept(&mut c).await, NOTHING);
        silent.silent_for(&mut c, 11).await;
        assert_eq!(told(&sweep(&mut c, LIMITS, false).await.unwrap()), NOTHING);
        let sweeps = (0..4).map(|_| {
            let database = db.database.clone();
            tokio::spawn(async move {
                let mut c = database.reads.acquire().await.unwrap();
                told(&sweep(&mut c, LIMITS, true).await.unwrap())
            })
        });
        let mut all = Vec::new();
        for one in sweeps.collect::<Vec<_>>() {
            all.extend(one.await.unwrap());
        }
        all.sort();
        assert_eq!(all, ["alice offline", "carol offline"]);
        let late = silent.report(vec![online(9, "alice")]);
        assert_eq!(
            take_in(&mut c, &late, LIMITS).await.unwrap(),
            (Lease::Lost, vec![])
        );
        // Last seen is when the gateway was last heard of, which is not now.
        let ago = db
            .number(
                "SELECT extract(epoch FROM now() - last_seen_at)::int8 FROM presence WHERE user_id = 'alice'",
            )
            .await;
        assert!((0..=12).contains(&ago), "{ago}");
        assert_eq!(db.number("SELECT count(*) FROM sessions").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_gateway_that_says_good_bye_leaves_a_grace_and_needs_no_lease() {
    with_database(async |db| {
        let mut c = db.database.writes.acquire().await.unwrap();
        swept(&mut c).await;
        let (mut old, mut new) = (Gateway::new(), Gateway::new());
        old.says(&mut c, vec![online(1, "alice"), online(2, "bob")]).await;
        let bye = v1::ReportPresence {
            leaving: true,
            ..old.report(vec![])
        };
        assert_eq!(
            take_in(&mut c, &bye, LIMITS).await.unwrap(),
            (Lease::Held, vec![])
        );
        assert_eq!(new.says(&mut c, vec![online(1, "alice")]).await, NOTHING);
        pass(&mut c, 6).await;
        assert_eq!(swept(&mut c).await, ["bob offline"]);
    })
    .await;
}

#[tokio::test]
async fn a_database_that_forgot_who_is_connected_asks_and_then_believes() {
    with_database(async |db| {
        let mut c = db.database.writes.acquire().await.unwrap();
        let mut one = Gateway::new();
        swept(&mut c).await;
        one.says(&mut c, vec![online(1, "alice"), online(2, "bob")]).await;
        // What a crash leaves of unlogged tables.
        sqlx::query("TRUNCATE gateways, sessions")
            .execute(&mut *c)
            .await
            .unwrap();
        let next = one.report(vec![]);
        assert_eq!(
            take_in(&mut c, &next, LIMITS).await.unwrap(),
            (Lease::Unknown, vec![])
        );
        assert_eq!(swept(&mut c).await, NOTHING);
        assert_eq!(Gateway::new().says(&mut c, vec![online(2, "bob")]).await, NOTHING);
        pass(&mut c, 20).await;
        assert_eq!(swept(&mut c).await, ["alice offline"]);
    })
    .await;
}

#[tokio::test]
async fn an_earlier_session_was_told_what_came_until_a_minute_before_its_last_sign_of_life() {
    with_database(async |db| {
        let queries = queries(&db).await;
        let mut c = db.database.writes.acquire().await.unwrap();
        let mut one = Gateway::new();
        let provision = || query::Body::ProvisionUser(v1::ProvisionUser { create: true });
        let seen = async || answered!(ask(&queries, "alice", provision()).await, User).seen_at_ms;
        let now = || async {
            db.number("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::int8")
                .await
        };
        assert_eq!(seen().await, 0);
        let began = now().await;
        one.says(&mut c, vec![online(1, "alice")]).await;
        // Both are rounded to milliseconds.
        assert!(seen().await >= began - 60_001);
        one.silent_for(&mut c, 8).await;
        let behind = now().await - seen().await;
        assert!((68_000..69_000).contains(&behind), "{behind}");
        one.silent_for(&mut c, 20).await;
        swept(&mut c).await;
        let behind = now().await - seen().await;
        assert!((80_000..81_000).contains(&behind), "{behind}");
        let mut two = Gateway::new();
        two.says(&mut c, vec![online(1, "alice")]).await;
        two.says(&mut c, vec![closed(1, "alice", 2)]).await;
        let behind = now().await - seen().await;
        assert!((62_000..63_000).contains(&behind), "{behind}");
        let shown_at_ms = now().await - 500;
        two.says(&mut c, vec![online(2, "alice")]).await;
        let closing = SessionReport {
            shown_at_ms,
            ..closed(2, "alice", 0)
        };
        two.says(&mut c, vec![closing]).await;
        assert_eq!(seen().await, shown_at_ms);
    })
    .await;
}

#[tokio::test]
async fn only_those_who_share_a_conversation_are_shown_and_changes_can_be_read_again() {
    with_database(async |mut db| {
        db.commit(&[work(&creation("alice", conversation(), &["bob"]))])
            .await;
        let queries = queries(&db).await;
        let mut c = db.database.writes.acquire().await.unwrap();
        let changes = |since_us| query::Body::ListPresenceChanges(v1::ListPresenceChanges { since_us });
        let start = answered!(ask(&queries, "", changes(0)).await, Presences);
        assert!(start.presences.is_empty() && start.complete);
        let mut one = Gateway::new();
        one.says(&mut c, vec![online(1, "alice"), online(2, "mallory")])
            .await;
        let asked = || {
            query::Body::GetPresence(v1::GetPresence {
                user_ids: ["alice", "bob", "mallory", "nobody"].map(String::from).to_vec(),
            })
        };
        for (viewer, expected) in [
            ("bob", vec!["alice online", "bob offline"]),
            ("mallory", vec!["mallory online"]),
        ] {
            ask(
                &queries,
                viewer,
                query::Body::ProvisionUser(v1::ProvisionUser { create: true }),
            )
            .await
            .unwrap();
            let seen = answered!(ask(&queries, viewer, asked()).await, Presences);
            assert_eq!(told(&seen.presences), expected, "{viewer}");
        }
        let page = answered!(ask(&queries, "", changes(start.next_us)).await, Presences);
        assert_eq!(told(&page.presences), ["alice online", "mallory online"]);
        let first = page.presences[0].version;
        one.says(&mut c, vec![open(1, "alice", PresenceStatus::Away)])
            .await;
        let page = answered!(ask(&queries, "", changes(page.next_us)).await, Presences);
        assert!(
            page.presences
                .iter()
                .any(|one| one.version > first && told(std::slice::from_ref(one)) == ["alice away"])
        );
    })
    .await;
}

#[tokio::test]
async fn what_is_no_report_is_refused() {
    with_database(async |db| {
        let queries = queries(&db).await;
        for (gateway, number) in [
            ("x", 1),
            (&Uuid::nil().to_string(), 1),
            (&identity::random().to_string(), 0),
        ] {
            let report = query::Body::ReportPresence(v1::ReportPresence {
                gateway: gateway.into(),
                number,
                ..Default::default()
            });
            assert_eq!(
                ask(&queries, "", report).await.unwrap_err(),
                v1::ErrorCode::Invalid
            );
        }
    })
    .await;
}
