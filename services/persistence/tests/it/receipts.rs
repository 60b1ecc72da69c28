//! Reading, and what is left unread.

use std::collections::BTreeSet;

use parlance_persistence::model::work::Work;
use parlance_persistence::store::missed::{self, Missing};
use parlance_proto::{ConversationId, v1};

use crate::database::{TestDatabase, with_database};
use crate::works::{
    add, conversation, creation, delete, delivered, edit, message, read, receipt, sending, work,
};

fn ranges(receipt: &v1::ReceiptUpdated) -> Vec<(u64, u64)> {
    receipt
        .read
        .iter()
        .map(|range| (range.first, range.last))
        .collect()
}

#[tokio::test]
async fn reading_message_by_message_leaves_one_range_although_own_messages_and_changes_lie_between() {
    with_database(async |mut db| {
        let id = conversation();
        let mut batch = vec![work(&creation("alice", id, &["bob"]))];
        // 1 alice, 2 bob, 3 alice, 4 alice; 5 is an edit.
        for (who, name) in [("alice", "a1"), ("bob", "b2"), ("alice", "a3"), ("alice", "a4")] {
            batch.push(work(&sending(who, id, name, "x")));
        }
        let answers = db.commit(&batch).await;
        let sent: Vec<String> = answers[1..].iter().map(|answer| message(answer).id).collect();
        db.commit(&[work(&edit("alice", id, &sent[0], "y"))]).await;
        let third = receipt(&db.commit(&[work(&read("bob", id, 0, &[&sent[2]]))]).await[0]);
        assert_eq!(
            (ranges(&third), third.unread, third.version, third.head_seq),
            (vec![(3, 3)], 2, 1, 5)
        );
        let first = receipt(&db.commit(&[work(&read("bob", id, 0, &[&sent[0]]))]).await[0]);
        assert_eq!(
            (ranges(&first), first.unread, first.version),
            (vec![(1, 3)], 1, 2)
        );
        let last = receipt(&db.commit(&[work(&read("bob", id, 0, &[&sent[3]]))]).await[0]);
        assert_eq!((ranges(&last), last.unread, last.version), (vec![(1, 5)], 0, 3));
        assert_eq!(
            db.number("SELECT count(*) FROM participants WHERE read_seqs = '{[1,6)}'")
                .await,
            1
        );
    })
    .await;
}

#[tokio::test]
async fn reading_never_goes_backwards_and_only_news_make_a_version() {
    with_database(async |mut db| {
        let id = conversation();
        let mut batch = vec![work(&creation("alice", id, &["bob"]))];
        batch.extend((1..=6).map(|n| work(&sending("alice", id, &format!("m{n}"), "x"))));
        db.commit(&batch).await;
        let far = receipt(&db.commit(&[work(&read("bob", id, 4, &[]))]).await[0]);
        assert_eq!((ranges(&far), far.unread, far.version), (vec![(1, 4)], 2, 1));
        let answers = db
            .commit(&[work(&read("bob", id, 2, &[])), work(&read("bob", id, 4, &[]))])
            .await;
        for answer in &answers {
            let back = receipt(answer);
            assert_eq!((ranges(&back), back.unread, back.version), (vec![(1, 4)], 2, 1));
            assert!(!answer.events.is_empty());
        }
        let beyond = receipt(&db.commit(&[work(&read("bob", id, u64::MAX, &[]))]).await[0]);
        assert_eq!(
            (ranges(&beyond), beyond.unread, beyond.version),
            (vec![(1, 6)], 0, 2)
        );
    })
    .await;
}

#[tokio::test]
async fn deleted_and_own_messages_are_never_unread_and_marks_in_the_batch_of_the_messages_count() {
    with_database(async |mut db| {
        let id = conversation();
        let works = [
            work(&creation("alice", id, &["bob"])),
            work(&sending("alice", id, "m1", "x")),
            work(&sending("alice", id, "m2", "x")),
            work(&sending("alice", id, "m3", "x")),
            work(&sending("bob", id, "m4", "x")),
            work(&read("bob", id, 1, &[])),
        ];
        let answers = db.commit(&works).await;
        assert_eq!(receipt(&answers[5]).unread, 2);
        let m2 = message(&answers[2]).id;
        db.commit(&[work(&delete("alice", id, &m2))]).await;
        let after = receipt(&db.commit(&[work(&read("bob", id, 1, &[]))]).await[0]);
        assert_eq!((after.unread, after.version), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn who_come_back_together_learn_what_became_of_their_messages() {
    with_database(async |mut db| {
        let (first, second) = (conversation(), conversation());
        let works = [
            work(&creation("alice", first, &["bob", "carol"])),
            work(&creation("alice", second, &["bob"])),
            work(&sending("alice", first, "a1", "x")),
            work(&sending("bob", first, "b2", "x")),
            work(&sending("alice", first, "a3", "x")),
            work(&sending("alice", second, "a1", "x")),
            work(&read("bob", first, 2, &[])),
            work(&delivered("carol", first, 3)),
            work(&read("bob", second, 1, &[])),
        ];
        db.commit(&works).await;
        let missing = |user: &str, since_ms, only| Missing {
            user: user.into(),
            since_ms,
            only,
        };
        let asked = [
            missing("alice", 1, None),
            missing("alice", 1, Some(second)),
            missing("bob", 1, None),
            missing("alice", 8_000_000_000_000, None),
            missing("nobody", 1, None),
        ];
        let mut c = db.database.reads.acquire().await.unwrap();
        let missed = missed::receipts(&mut c, &asked).await.unwrap();
        let seqs = |messages: &[v1::MessageRef]| messages.iter().map(|one| one.seq).collect::<Vec<_>>();
        let covered: Vec<BTreeSet<_>> = missed
            .iter()
            .map(|of_one| {
                let each = of_one.iter().flat_map(|conversation| {
                    let id: ConversationId = conversation.conversation_id.parse().unwrap();
                    let of_reader = |receipt: &v1::ReceiptUpdated| {
                        let (read, delivered) = (seqs(&receipt.read_now), seqs(&receipt.delivered_now));
                        (id, receipt.user_id.clone(), read, delivered)
                    };
                    conversation.receipts.iter().map(of_reader).collect::<Vec<_>>()
                });
                each.collect()
            })
            .collect();
        let covered_by = |id, user: &str, read: &[u64], delivered: &[u64]| {
            (id, user.to_owned(), read.to_vec(), delivered.to_vec())
        };
        let in_second = covered_by(second, "bob", &[1], &[]);
        let all = [
            covered_by(first, "bob", &[1], &[]),
            covered_by(first, "carol", &[], &[1, 3]),
            in_second.clone(),
        ];
        let of_bob = [covered_by(first, "carol", &[], &[2])];
        assert_eq!(
            covered,
            [
                all.into(),
                [in_second].into(),
                of_bob.into(),
                [].into(),
                [].into()
            ]
        );
    })
    .await;
}

/// Bytes of the largest and of all rows of readers.
async fn rows(db: &TestDatabase) -> (i64, i64) {
    let mut connection = db.database.reads.acquire().await.unwrap();
    sqlx::query_as(
        "SELECT max(pg_column_size(p.*))::int8, sum(pg_column_size(p.*))::int8 FROM participants p",
    )
    .fetch_one(&mut *connection)
    .await
    .unwrap()
}

#[tokio::test]
#[ignore = "takes minutes: ten thousand readers and a million reads"]
async fn a_million_reads_cost_ten_thousand_readers_little() {
    const READERS: usize = 10_000;
    const MESSAGES: usize = 100;
    const AT_ONCE: usize = 10;
    with_database(async |mut db| {
        let id = conversation();
        let readers: Vec<String> = (0..READERS).map(|number| format!("reader-{number}")).collect();
        let names: Vec<&str> = readers.iter().map(String::as_str).collect();
        db.commit(&[work(&creation("alice", id, &["bob"]))]).await;
        for some in names.chunks(500) {
            db.commit(&[work(&add("alice", id, some))]).await;
        }
        let sent: Vec<Work> = (0..MESSAGES)
            .map(|number| work(&sending("alice", id, &format!("m{number}"), "x")))
            .collect();
        let ids: Vec<String> = db
            .commit(&sent)
            .await
            .iter()
            .map(|answer| message(answer).id)
            .collect();
        let mut reads = 0;
        for round in 0..MESSAGES / AT_ONCE {
            for some in (0..READERS).collect::<Vec<_>>().chunks(500) {
                let marks: Vec<Work> = some
                    .iter()
                    .map(|reader| {
                        // Scattered, in another order for each: 37 and 100 have no common factor.
                        let which = |place: usize| ids[((place + reader) * 37) % MESSAGES].as_str();
                        let places = round * AT_ONCE..(round + 1) * AT_ONCE;
                        let marked: Vec<&str> = places.map(which).collect();
                        work(&read(&readers[*reader], id, 0, &marked))
                    })
                    .collect();
                reads += marks.len() * AT_ONCE;
                db.commit(&marks).await;
            }
            let (largest, all) = rows(&db).await;
            println!(
                "{reads} reads: {} bytes a participant, {largest} at most",
                all / READERS as i64
            );
            assert!(largest < 2_000);
        }
        assert_eq!(reads, 1_000_000);
        assert_eq!(
            db.number(
                "SELECT count(*) FROM participants p JOIN conversations c USING (conversation_id)
                 WHERE read_seqs = int8multirange(int8range(1, c.head_seq, '[]'))"
            )
            .await,
            READERS as i64
        );
    })
    .await;
}
