//! What the statements read on a large database: a stated number of buffers and rows at most, no large table whole, and by
//! no more than one process. By plans made of empty tables, known to be empty or not, without fresh statistics, and with them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parlance_persistence::store::arrivals::{self, Arriving};
use parlance_persistence::store::conversations::{self, Filter};
use parlance_persistence::store::hidden::{self, Shown};
use parlance_persistence::store::missed::{self, Missing};
use parlance_persistence::store::pushes::{self, After, Sent};
use parlance_persistence::store::served::{self, Joining};
use parlance_persistence::store::{mutes, participants, presence, receipts, users};
use parlance_proto::ConversationId;
use sqlx::postgres::{PgConnection, Postgres};
use sqlx::{Connection as _, Transaction};
use uuid::Uuid;

use crate::database::{TestDatabase, with_database};

/// 2,500 users in 20 conversations of two each, four of 500 members and two of 2,000; a million seqs.
const SEED: &[&str] = &[
    "INSERT INTO users (user_id, username, token_name) SELECT 'u' || n, 'u' || n, 'u' || n FROM generate_series(0, 2499) AS n",
    "CREATE TEMPORARY TABLE seed AS
     SELECT md5(u || '-' || k)::uuid AS id, u AS first, ARRAY['u' || u, 'u' || (u + k) % 2500] AS members, 10 AS messages
     FROM generate_series(0, 2499) AS u, generate_series(1, 10) AS k
     UNION ALL
     SELECT md5('group-' || g)::uuid, g, (SELECT array_agg('u' || n) FROM generate_series(0, 499) AS n), 20000
     FROM generate_series(1, 4) AS g
     UNION ALL
     SELECT md5('large-' || g)::uuid, g, (SELECT array_agg('u' || n) FROM generate_series(0, 1999) AS n), 60000
     FROM generate_series(1, 2) AS g",
    "INSERT INTO conversations (conversation_id, number, kind, created_by, created_by_command, head_seq, last_message_seq,
                                member_count, members_at, created_at, updated_at)
     SELECT id, row_number() OVER (), 2, 'u' || first, gen_random_uuid(), messages, messages, cardinality(members), messages,
            now(), now() FROM seed",
    // In one of 16 conversations everybody has got everything just now.
    "INSERT INTO participants (conversation_id, user_id, role, delivered_seq, receipts_at)
     SELECT id, unnest(members), 1, CASE WHEN id::text < '1' THEN messages ELSE 0 END,
            CASE WHEN id::text < '1' THEN now() END FROM seed",
    "INSERT INTO messages (conversation_id, seq, message_id, sender_id, sender_kind, type, content, created_at)
     SELECT id, n, gen_random_uuid(), members[1 + n % 2], 1, 1, 'x', now() FROM seed, generate_series(1, messages) AS n",
    "INSERT INTO served (conversation_id, user_id, seq, pages)
     SELECT id, unnest(members), 5, '{\"page\": [5, 1]}' FROM seed",
    "INSERT INTO presence (user_id, status, version, changed_at) SELECT user_id, 1, 1, now() FROM users",
    "INSERT INTO gateways (instance, number) VALUES ('00000000-0000-0000-0000-000000000001', 1)",
    "INSERT INTO sessions (gateway, session, user_id, status)
     SELECT '00000000-0000-0000-0000-000000000001', number, user_id, 1 FROM users",
];
/// Entries of an index that cost what a buffer costs.
const ENTRIES: i64 = 2;
/// Tables that are read whole without harm: of one row, or of one for each replica.
const SMALL: &[&str] = &["epoch", "gateways", "replicas", "partition_leases"];

/// What was read of a table or an index.
#[derive(Clone, Copy, Default, sqlx::FromRow)]
struct Counters {
    buffers: i64,
    /// How often the table was read whole.
    scans: i64,
    /// Of the index: a whole index of few buffers can be read for each row of another table.
    entries: i64,
}

/// Measures what statements on its connection read.
pub(crate) struct Meter {
    transaction: Transaction<'static, Postgres>,
    /// What was counted before: counters of a connection are handed in now and then only.
    before: HashMap<String, Counters>,
}

impl Meter {
    /// On a connection as queries use it.
    pub(crate) async fn start(db: &TestDatabase) -> Self {
        let mut transaction = db.database.reads.begin().await.unwrap();
        let before = counters(&mut transaction).await;
        Self { transaction, before }
    }

    /// What was read so far does not count.
    pub(crate) async fn restart(&mut self) {
        self.before = counters(&mut self.transaction).await;
    }

    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }

    /// The buffers that were read since the start, or a half of the entries of indexes if that is more. No large table was read whole,
    /// and nothing by more than one process.
    pub(crate) async fn stop(mut self, name: &str) -> u64 {
        let workers: String = sqlx::query_scalar("SELECT current_setting('max_parallel_workers_per_gather')")
            .fetch_one(&mut *self.transaction)
            .await
            .unwrap();
        assert_eq!(workers, "0");
        let (mut buffers, mut entries) = (0, 0);
        for (relation, read) in counters(&mut self.transaction).await {
            let before = self.before.get(&relation).copied().unwrap_or_default();
            assert!(
                read.scans == before.scans || SMALL.contains(&relation.as_str()),
                "{name} reads {relation} whole"
            );
            buffers += read.buffers - before.buffers;
            entries += read.entries - before.entries;
        }
        self.transaction.rollback().await.unwrap();
        u64::try_from(buffers.max(entries / ENTRIES)).unwrap()
    }
}

/// What was read of each table and index.
async fn counters(connection: &mut PgConnection) -> HashMap<String, Counters> {
    #[derive(sqlx::FromRow)]
    struct Row {
        relation: String,
        #[sqlx(flatten)]
        counters: Counters,
    }
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT c.relname::text AS relation, pg_stat_get_xact_blocks_fetched(c.oid) AS buffers,
                CASE WHEN c.relkind = 'r' THEN pg_stat_get_xact_numscans(c.oid) ELSE 0 END AS scans,
                CASE WHEN c.relkind = 'i' THEN pg_stat_get_xact_tuples_returned(c.oid) ELSE 0 END AS entries
         FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'i')",
    )
    .fetch_all(connection)
    .await
    .unwrap();
    let counter = |Row { relation, counters }| (relation, counters);
    rows.into_iter().map(counter).collect()
}

fn user(number: u32) -> String {
    format!("u{number}")
}

/// The conversations of two that the seed made of the users from this one on.
async fn pairs(connection: &mut PgConnection, first: i32, users: i32) -> Vec<Uuid> {
    sqlx::query_scalar(
        "SELECT md5(u || '-' || k)::uuid FROM generate_series($1, $2) AS u, generate_series(1, 10) AS k",
    )
    .bind(first)
    .bind(first + users - 1)
    .fetch_all(connection)
    .await
    .unwrap()
}

async fn named(connection: &mut PgConnection, name: &str) -> Uuid {
    sqlx::query_scalar("SELECT md5($1)::uuid")
        .bind(name)
        .fetch_one(connection)
        .await
        .unwrap()
}

/// Runs the statement and notes where it reads more than its bound.
macro_rules! reads_at_most {
    ($excesses:ident, $db:expr, $bound:expr, $name:expr, |$connection:ident| $statement:expr) => {{
        let mut meter = Meter::start($db).await;
        let $connection = meter.connection();
        // Planned once for each connection, which reads too.
        let _ = $statement.await.unwrap();
        meter.restart().await;
        let $connection = meter.connection();
        let found = $statement.await.unwrap();
        let buffers = meter.stop($name).await;
        if buffers > $bound {
            $excesses.push(format!("{}: {buffers} instead of {}", $name, $bound));
        }
        found
    }};
}

/// What reads more than its bound. Before the seed nothing is found.
async fn check(db: &TestDatabase, is_seeded: bool) -> Vec<String> {
    let mut excesses = check_connects(db, is_seeded).await;
    excesses.extend(check_returns(db).await);
    excesses.extend(check_others(db, is_seeded).await);
    excesses
}

/// What users ask who connect and open conversations.
async fn check_connects(db: &TestDatabase, is_seeded: bool) -> Vec<String> {
    let mut excesses = Vec::new();
    let mut c = db.database.writes.acquire().await.unwrap();
    let hundred = pairs(&mut c, 2_100, 10).await;
    let hundred_ids: Vec<ConversationId> = hundred.iter().copied().map(ConversationId::from_uuid).collect();
    let group = named(&mut c, "group-1").await;
    let large_ids = [named(&mut c, "large-1").await];
    drop(c);

    // Users from 2,000 on are in 20 conversations each, those before also in the groups.
    let arriving = |first: u32| -> Vec<Arriving> {
        let each = first..first + 100;
        each.map(|number| Arriving {
            user_id: user(number),
            page: "page".into(),
            memberships: true,
            after: Uuid::nil(),
        })
        .collect()
    };
    let arrived = reads_at_most!(
        excesses,
        db,
        45_000,
        "100 users with 20 conversations arrive",
        |c| arrivals::arrive(c, &arriving(2_200), 2_000)
    );
    if is_seeded {
        assert_eq!(arrived.len(), 100);
        assert_eq!(arrived[0].membership.as_ref().unwrap().conversation_ids.len(), 20);
    }
    let page = reads_at_most!(excesses, db, 500, "a page of memberships", |c| arrivals::arrive(
        c,
        &arriving(2_200)[..1],
        10
    ));
    if is_seeded {
        assert_eq!(page[0].membership.as_ref().unwrap().conversation_ids.len(), 10);
    }

    let members = reads_at_most!(excesses, db, 1_500, "the members of 100 conversations", |c| {
        participants::of(c, &hundred, 100)
    });
    assert_eq!(members.len(), if is_seeded { 100 } else { 0 });
    reads_at_most!(excesses, db, 600, "the first members of a large group", |c| {
        participants::of(c, &large_ids, 100)
    });
    reads_at_most!(excesses, db, 1_000, "100 heads", |c| conversations::heads(
        c,
        &hundred_ids,
        None
    ));
    let views: Vec<(ConversationId, String)> = (0..100)
        .map(|n| (ConversationId::from_uuid(group), user(n)))
        .collect();
    let seen = reads_at_most!(excesses, db, 12_000, "100 views of one group", |c| {
        conversations::shared_views(c, &views, 100)
    });
    let expected = if is_seeded { (1, 100) } else { (0, 0) };
    assert_eq!((seen.conversations.len(), seen.viewers.len()), expected);
    let joining: Vec<Joining> = (0..100)
        .map(|n| Joining {
            place: n as usize,
            conversation: ConversationId::from_uuid(group),
            user: user(n),
            page: "page".into(),
            connected_at_ms: 0,
        })
        .collect();
    reads_at_most!(excesses, db, 800, "the positions of 100 clients that join", |c| {
        served::of_clients(c, &joining)
    });
    reads_at_most!(excesses, db, 2_000, "the positions of a page", |c| {
        served::of_page(c, "u2200", "page", Uuid::nil(), 10_000)
    });
    excesses
}

/// What is asked for users who come back together.
async fn check_returns(db: &TestDatabase) -> Vec<String> {
    let mut excesses = Vec::new();
    let names: Vec<String> = (0..500).map(user).collect();
    let seen: Vec<(&str, i64)> = names.iter().map(|name| (name.as_str(), 0)).collect();
    let removals = reads_at_most!(
        excesses,
        db,
        30_000,
        "what 500 users belong to no more, who are in 20 to 26 conversations each",
        |c| users::removals_since(c, &seen, 100)
    );
    assert!(removals.iter().all(Vec::is_empty));
    let missing: Vec<Missing> = names
        .iter()
        .map(|name| Missing {
            user: name.clone(),
            since_ms: 0,
            only: None,
        })
        .collect();
    let missed = reads_at_most!(
        excesses,
        db,
        120_000,
        "what became of the messages of 500 users, who are in 20 to 26 conversations each",
        |c| missed::receipts(c, &missing)
    );
    assert_eq!(missed.len(), 500);
    excesses
}

/// What is asked for lists, presence and pushes.
async fn check_others(db: &TestDatabase, is_seeded: bool) -> Vec<String> {
    let mut excesses = Vec::new();
    let mut c = db.database.writes.acquire().await.unwrap();
    let group = named(&mut c, "group-1").await;
    drop(c);
    let hundred_users: Vec<String> = (0..100).map(user).collect();
    reads_at_most!(excesses, db, 1_000, "how 100 users are seen", |c| presence::of(
        c,
        &hundred_users,
        None
    ));
    let shown: Vec<Shown<'_>> = hundred_users
        .iter()
        .map(|user| Shown {
            conversation: group,
            viewer: user,
            between: (1, 20_000),
        })
        .collect();
    reads_at_most!(excesses, db, 600, "what 100 users hid of 20,000 messages", |c| {
        hidden::of_each(c, &shown)
    });
    reads_at_most!(excesses, db, 600, "the versions of 100 users", |c| {
        users::versions(c, &hundred_users)
    });
    reads_at_most!(excesses, db, 400, "a page of a list", |c| conversations::page(
        c,
        "u2200",
        Filter::default(),
        None,
        50
    ));
    reads_at_most!(
        excesses,
        db,
        12_000,
        "100 unread counts over 20,000 messages",
        |c| receipts::unread(c, ConversationId::from_uuid(group), 20_000, &hundred_users)
    );
    let total = reads_at_most!(
        excesses,
        db,
        4_000,
        "the total of what is unread of a user in 26 conversations",
        |c| mutes::unread_total(c, "u3")
    );
    assert_eq!(total.conversations, if is_seeded { 26 } else { 0 });
    let first = After::default();
    let sent: Vec<Sent> = (19_901..=20_000)
        .map(|seq| Sent {
            conversation: group,
            seq,
            sender: "u1".into(),
            sent_at: chrono::DateTime::UNIX_EPOCH,
        })
        .collect();
    let recipients = reads_at_most!(
        excesses,
        db,
        8_000,
        "the recipients of 100 messages in a group of 500",
        |c| { pushes::recipients(c, &sent, &first, 10_000) }
    );
    assert!(recipients.recipients.is_empty());
    excesses
}

async fn seed(db: &TestDatabase) {
    let mut c = db.database.writes.acquire().await.unwrap();
    for seed in SEED {
        sqlx::query(*seed).execute(&mut *c).await.unwrap();
    }
    sqlx::query("DROP TABLE seed").execute(&mut *c).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_statement_reads_more_for_a_plan_made_of_tables_that_were_known_to_be_empty() {
    with_database(async |db| {
        // What it does of itself in a night in which nobody is connected.
        sqlx::query("VACUUM ANALYZE")
            .execute(&db.database.writes)
            .await
            .unwrap();
        check(&db, false).await;
        seed(&db).await;
        let excesses = check(&db, true).await;
        assert!(excesses.is_empty(), "{excesses:#?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_statement_reads_more_than_it_is_asked_for() {
    with_database(async |db| {
        // Plans are kept for the life of a connection, also those made of empty tables.
        check(&db, false).await;
        seed(&db).await;
        let of_empty_tables = check(&db, true).await;
        renew(&db).await;
        let without_statistics = check(&db, true).await;
        sqlx::query("VACUUM ANALYZE")
            .execute(&db.database.writes)
            .await
            .unwrap();
        renew(&db).await;
        let with_statistics = check(&db, true).await;
        let excesses = [of_empty_tables, without_statistics, with_statistics];
        assert!(excesses.iter().all(Vec::is_empty), "{excesses:#?}");
    })
    .await;
}

/// Has plans made anew.
async fn renew(db: &TestDatabase) {
    while let Some(connection) = db.database.reads.try_acquire() {
        connection.detach().close().await.unwrap();
        if db.database.reads.num_idle() == 0 {
            break;
        }
    }
}

/// The least time of a few in which a user's first 2,000 conversations are found.
async fn arrives_in(c: &mut PgConnection, user: &str) -> Duration {
    let arriving = [Arriving {
        user_id: user.to_owned(),
        page: "page".into(),
        memberships: true,
        after: Uuid::nil(),
    }];
    let mut least = Duration::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        let arrived = arrivals::arrive(&mut *c, &arriving, 2_000).await.unwrap();
        least = least.min(begun.elapsed());
        let membership = arrived[0].membership.as_ref().unwrap();
        assert_eq!(membership.conversation_ids.len(), 2_000);
    }
    least
}

/// Two users in the same 2,000 conversations, and a thousand others in five each, as the planner is to know them.
const CROWD: &[&str] = &[
    "INSERT INTO users (user_id, username, token_name) SELECT 'u' || n, 'u', 'u' FROM generate_series(0, 999) AS n",
    "INSERT INTO users (user_id, username, token_name) VALUES ('served', 's', 's'), ('fresh', 'f', 'f')",
    "INSERT INTO conversations (conversation_id, number, kind, created_by, created_by_command, created_at, updated_at)
     SELECT md5(n::text)::uuid, n, 2, 'served', gen_random_uuid(), now(), now() FROM generate_series(1, 4000) AS n",
    "INSERT INTO participants (conversation_id, user_id, role)
     SELECT md5(n::text)::uuid, unnest(ARRAY['served', 'fresh']), 1 FROM generate_series(1, 2000) AS n",
    "INSERT INTO participants (conversation_id, user_id, role)
     SELECT md5(n::text)::uuid, 'u' || (n * k) % 1000, 1
     FROM generate_series(2001, 4000) AS n, generate_series(1, 9, 2) AS k ON CONFLICT DO NOTHING",
    "ANALYZE users, conversations, participants",
];

/// Buffers do not show it: what a plan keeps in memory, it can compare again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_was_served_many_conversations_arrives_as_fast_as_one_who_was_not() {
    with_database(async |db| {
        for seed in CROWD {
            sqlx::query(*seed).execute(&db.database.writes).await.unwrap();
        }
        let mut c = db.database.reads.acquire().await.unwrap();
        let nobody = Arriving {
            user_id: "nobody".into(),
            page: String::new(),
            memberships: true,
            after: Uuid::nil(),
        };
        // Planned for the life of the connection, while nobody was served anything.
        assert!(
            arrivals::arrive(&mut c, &[nobody], 2_000)
                .await
                .unwrap()
                .is_empty()
        );
        sqlx::query(
            "INSERT INTO served (conversation_id, user_id, seq)
             SELECT md5(n::text)::uuid, 'served', 0 FROM generate_series(1, 2000) AS n",
        )
        .execute(&db.database.writes)
        .await
        .unwrap();
        let fresh = arrives_in(&mut c, "fresh").await;
        let served = arrives_in(&mut c, "served").await;
        assert!(served < fresh * 8, "{served:?} instead of {fresh:?}");
    })
    .await;
}
