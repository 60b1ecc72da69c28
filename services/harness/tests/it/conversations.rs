//! What users do in conversations, over every transport, across two gateways and two persistence replicas.

use parlance_harness::Stack;

use crate::spec::{Transport, run};

/// Every way a stock client may connect.
const TRANSPORTS: [Transport; 3] = [Transport::Websocket, Transport::Polling, Transport::Default];
/// For what an upgrade in the middle has no part in.
const PLAIN: [Transport; 2] = [Transport::Websocket, Transport::Polling];

async fn replicas() -> Stack {
    let stack = Stack::builder().gateways(2).persistence(2);
    stack.patient().start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_cross_gateways_whole_and_in_order_and_repeats_are_one_message() {
    let stack = replicas().await;
    let database = stack.database().await.unwrap();
    for transport in TRANSPORTS {
        run(&stack, "crossing", transport).await;
        let people = [
            format!("crossing-alice-{}", transport.name()),
            format!("crossing-bob-{}", transport.name()),
        ];
        let rows: Vec<(i64, i64, i64, i64)> = sqlx::query_as(
            "SELECT count(*), min(seq), max(seq), count(DISTINCT (sender_id, client_msg_id)) FROM messages \
             WHERE conversation_id IN (SELECT conversation_id FROM participants WHERE user_id = ANY($1)) \
             GROUP BY conversation_id",
        )
        .bind(people)
        .fetch_all(&database)
        .await
        .unwrap();
        assert_eq!(rows, [(3000, 1, 3000, 3000)], "over {}", transport.name());
    }

    for transport in TRANSPORTS {
        run(&stack, "repeats", transport).await;
    }
    let doubled: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT FROM messages WHERE client_msg_id IS NOT NULL \
         GROUP BY conversation_id, sender_id, client_msg_id HAVING count(*) > 1) AS doubled",
    )
    .fetch_one(&database)
    .await
    .unwrap();
    assert_eq!(doubled, 0);
    let parked: i64 = sqlx::query_scalar("SELECT count(*) FROM dead_letters")
        .fetch_one(&database)
        .await
        .unwrap();
    assert_eq!(parked, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_bad_tokens_are_refused() {
    let stack = replicas().await;
    for transport in PLAIN {
        run(&stack, "authorisation", transport).await;
        run(&stack, "tokens", transport).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_content_is_stored_or_refused_and_disturbs_nobody() {
    // What is refused is of many megabytes, and counts.
    let stack = Stack::builder()
        .gateways(2)
        .persistence(1)
        .gateway_env("PARLANCE_LIMITS_BYTES_BURST", 256 << 20)
        .start()
        .await
        .unwrap();
    for transport in PLAIN {
        run(&stack, "content", transport).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_is_as_documented() {
    let stack = replicas().await;
    run(&stack, "rest", Transport::Websocket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_speaks_the_dialect_of_its_caller() {
    let stack = replicas().await;
    run(&stack, "representations", Transport::Websocket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_domain_is_served_over_rest() {
    let stack = replicas().await;
    run(&stack, "domain", Transport::Websocket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_come_from_tokens_and_from_users_and_titles_are_clean() {
    let stack = replicas().await;
    run(&stack, "names", Transport::Websocket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_receipts_and_news_reach_everyone_who_should_know() {
    let stack = replicas().await;
    for transport in PLAIN {
        run(&stack, "changes", transport).await;
        run(&stack, "following", transport).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_falls_between_the_backlog_and_the_join() {
    let stack = replicas().await;
    for transport in PLAIN {
        run(&stack, "joining", transport).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_carries_a_large_group_whole_and_all_who_are_online_learn_of_it() {
    let stack = replicas().await;
    run(&stack, "large_groups", Transport::Websocket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_only_append_see_nothing_twice_and_nothing_missing() {
    let stack = replicas().await;
    for transport in PLAIN {
        run(&stack, "served", transport).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_back_at_once_sees_nothing_twice_however_slowly_reports_are_stored() {
    let stack = replicas().await;
    let database = stack.database().await.unwrap();
    for statement in [
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN PERFORM pg_sleep(0.4); RETURN NULL; END $$",
        "CREATE TRIGGER slow BEFORE INSERT ON served FOR EACH STATEMENT EXECUTE FUNCTION slow()",
    ] {
        sqlx::query(statement).execute(&database).await.unwrap();
    }
    for transport in PLAIN {
        run(&stack, "returning", transport).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_gets_what_was_missed_once_and_in_order() {
    let stack = replicas().await;
    for transport in PLAIN {
        run(&stack, "offline", transport).await;
    }
}
