//! Leases between replicas: taken once, renewed by the owner only, never while a batch holds them.

use std::time::Duration;

use parlance_persistence::store::{batch, leases};
use sqlx::Connection;

use crate::database::with_database;

const TTL: Duration = Duration::from_secs(60);
const OVER: Duration = Duration::ZERO;

#[tokio::test]
async fn a_lease_has_one_owner_and_a_takeover_raises_its_epoch() {
    with_database(async |db| {
        let mut c = db.database.writes.acquire().await.unwrap();
        sqlx::query("INSERT INTO partition_leases (partition) VALUES (1), (2), (3)")
            .execute(&mut *c)
            .await
            .unwrap();
        let mine = leases::take(&mut c, "one", &[1, 2, 3], 2, TTL)
            .await
            .unwrap()
            .leases;
        assert_eq!(mine, [(1, 1), (2, 1)]);
        assert_eq!(
            leases::take(&mut c, "two", &[1, 2, 3], 9, TTL)
                .await
                .unwrap()
                .leases,
            [(3, 1)]
        );
        assert_eq!(leases::renew(&mut c, "one", &mine, OVER).await.unwrap().len(), 2);
        assert!(leases::renew(&mut c, "two", &mine, TTL).await.unwrap().is_empty());
        // Expired but not taken: still the owner's to renew.
        assert_eq!(
            leases::renew(&mut c, "one", &[(1, 1)], TTL).await.unwrap(),
            [(1, 1)]
        );
        assert_eq!(
            leases::take(&mut c, "two", &[1, 2, 3], 9, TTL)
                .await
                .unwrap()
                .leases,
            [(2, 2)]
        );
        assert_eq!(leases::renew(&mut c, "one", &mine, TTL).await.unwrap(), [(1, 1)]);
        // A late owner cannot give back what is another's.
        leases::release(&mut c, "one", &mine).await.unwrap();
        assert_eq!(
            leases::take(&mut c, "three", &[1, 2, 3], 9, TTL)
                .await
                .unwrap()
                .leases,
            [(1, 2)]
        );
    })
    .await;
}

#[tokio::test]
async fn a_batch_in_progress_holds_off_a_takeover_but_no_renewal() {
    with_database(async |db| {
        let mut writer = sqlx::PgConnection::connect_with(&db.database.writes.connect_options())
            .await
            .unwrap();
        let mut other = db.database.writes.acquire().await.unwrap();
        sqlx::query("INSERT INTO partition_leases (partition) VALUES (1)")
            .execute(&mut *other)
            .await
            .unwrap();
        let mine = leases::take(&mut other, "one", &[1], 1, TTL)
            .await
            .unwrap()
            .leases;
        let mut tx = writer.begin().await.unwrap();
        let check = batch::check_leases(&mut tx, "one", &[(1, mine[0].1)])
            .await
            .unwrap();
        assert!(check.held.contains(&1));
        assert_eq!(leases::renew(&mut other, "one", &mine, OVER).await.unwrap(), mine);
        assert!(
            leases::take(&mut other, "two", &[1], 1, TTL)
                .await
                .unwrap()
                .leases
                .is_empty()
        );
        tx.commit().await.unwrap();
        assert_eq!(
            leases::take(&mut other, "two", &[1], 1, TTL)
                .await
                .unwrap()
                .leases,
            [(1, 2)]
        );
        let mut tx = writer.begin().await.unwrap();
        assert!(
            batch::check_leases(&mut tx, "one", &[(1, mine[0].1)])
                .await
                .unwrap()
                .held
                .is_empty()
        );
    })
    .await;
}

#[tokio::test]
async fn what_was_taken_under_an_earlier_lease_of_one_s_own_is_not_held_any_more() {
    with_database(async |db| {
        let mut c = db.database.writes.acquire().await.unwrap();
        sqlx::query("INSERT INTO partition_leases (partition) VALUES (1)")
            .execute(&mut *c)
            .await
            .unwrap();
        let first = leases::take(&mut c, "one", &[1], 1, OVER).await.unwrap().leases[0].1;
        let second = leases::take(&mut c, "one", &[1], 1, TTL).await.unwrap().leases[0].1;
        for (epoch, held) in [(first, false), (second, true)] {
            let check = batch::check_leases(&mut c, "one", &[(1, epoch)]).await.unwrap();
            assert_eq!(check.held.contains(&1), held);
        }
    })
    .await;
}

#[tokio::test]
async fn a_replica_stopped_inside_its_transaction_does_not_hold_a_partition_beyond_the_lease() {
    with_database(async |db| {
        let mut writer = sqlx::PgConnection::connect_with(&db.database.writes.connect_options())
            .await
            .unwrap();
        let mut other = db.database.writes.acquire().await.unwrap();
        sqlx::query("INSERT INTO partition_leases (partition) VALUES (1)")
            .execute(&mut *other)
            .await
            .unwrap();
        let mine = leases::take(&mut other, "one", &[1], 1, OVER)
            .await
            .unwrap()
            .leases;
        let mut tx = writer.begin().await.unwrap();
        batch::check_leases(&mut tx, "one", &[(1, mine[0].1)])
            .await
            .unwrap();
        // The stopped replica says nothing more; the server ends its transaction.
        let other = tokio::sync::Mutex::new(other);
        let taken = parlance_harness::eventually(Duration::from_secs(5), "takeover", || async {
            let mut other = other.lock().await;
            let taken = leases::take(&mut other, "two", &[1], 1, TTL)
                .await
                .unwrap()
                .leases;
            taken.first().copied()
        });
        assert_eq!(taken.await.unwrap(), (1, 2));
        assert!(tx.commit().await.is_err());
    })
    .await;
}

#[tokio::test]
async fn only_the_living_share() {
    with_database(async |db| {
        let mut c = db.database.writes.acquire().await.unwrap();
        assert_eq!(leases::heartbeat(&mut c, "one", TTL).await.unwrap(), 1);
        assert_eq!(leases::heartbeat(&mut c, "two", TTL).await.unwrap(), 2);
        assert_eq!(leases::heartbeat(&mut c, "one", OVER).await.unwrap(), 1);
        leases::leave(&mut c, "two").await.unwrap();
        assert_eq!(leases::heartbeat(&mut c, "three", TTL).await.unwrap(), 1);
    })
    .await;
}
