//! What the front ends' documents expect of the data itself: tables, indexes, what a row holds afterwards.

use parlance_harness::Stack;
use serde_json::{Value, json};

/// Tables with columns that the documents name, as they are called here.
const COLUMNS: &[(&str, &[&str])] = &[
    ("users", &["user_id", "number", "username"]),
    (
        "conversations",
        &[
            "conversation_id",
            "number",
            "kind",
            "title",
            "created_by",
            "status",
            "channel",
            "updated_at",
        ],
    ),
    (
        "participants",
        &[
            "conversation_id",
            "user_id",
            "role",
            "read_seqs",
            "delivered_seq",
            "last_read_at",
        ],
    ),
    (
        "messages",
        &[
            "conversation_id",
            "message_id",
            "sender_id",
            "type",
            "content",
            "encrypted",
            "metadata",
            "created_at",
        ],
    ),
    (
        "reactions",
        &["conversation_id", "message_seq", "user_id", "emoji"],
    ),
    (
        "threads",
        &["conversation_id", "thread_id", "root_seq", "parent_thread_id"],
    ),
];

/// The queries the documents want an index for, each with what its plan must not do.
const QUESTIONS: &[(&str, &str)] = &[
    (
        "the latest messages of a conversation",
        "SELECT * FROM messages WHERE conversation_id = '0190a6e0-0000-7000-8000-000000000001'
         ORDER BY seq DESC LIMIT 50",
    ),
    (
        "the conversations of a user",
        "SELECT conversation_id FROM participants WHERE user_id = 'alice'",
    ),
    (
        "a message by its id",
        "SELECT * FROM messages WHERE message_id = '0190a6e0-0000-7000-8000-000000000001'",
    ),
];

/// A request of alice or bob that must be answered well.
async fn asks(stack: &Stack, user: &str, path: &str, body: Value) -> Value {
    let url = format!("{}/api/v1{path}", stack.gateway(0).base_url());
    let answer = reqwest::Client::new()
        .post(url)
        .bearer_auth(stack.token(user))
        .json(&body);
    let answer = answer.send().await.unwrap();
    assert!(answer.status().is_success(), "{path}: {}", answer.status());
    answer.json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_indexes_are_those_the_documents_name() {
    let stack = Stack::builder().start().await.unwrap();
    let database = stack.database().await.unwrap();
    for (table, columns) in COLUMNS {
        let found: Vec<String> = sqlx::query_scalar(
            "SELECT column_name::text FROM information_schema.columns WHERE table_name = $1",
        )
        .bind(table)
        .fetch_all(&database)
        .await
        .unwrap();
        for column in *columns {
            assert!(
                found.iter().any(|name| name == column),
                "{table} lacks {column}: {found:?}"
            );
        }
    }
    let mut connection = database.acquire().await.unwrap();
    // Tables of a test are too small for the planner to care.
    sqlx::query("SET enable_seqscan = off")
        .execute(&mut *connection)
        .await
        .unwrap();
    for (question, sql) in QUESTIONS {
        let plan: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("EXPLAIN {sql}")))
            .fetch_all(&mut *connection)
            .await
            .unwrap();
        let plan = plan.join("\n");
        assert!(plan.contains("Index"), "{question} without an index:\n{plan}");
        assert!(
            !plan.contains("Sort") && !plan.contains("Seq Scan"),
            "{question}:\n{plan}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_says_what_was_read_and_when() {
    let stack = Stack::builder().start().await.unwrap();
    let database = stack.database().await.unwrap();
    let made = asks(
        &stack,
        "alice",
        "/conversations/direct",
        json!({"user_id": "bob"}),
    )
    .await;
    let path = format!("/conversations/{}", made["id"].as_str().unwrap());
    let mut sent = Vec::new();
    for content in ["1", "2", "3"] {
        sent.push(
            asks(
                &stack,
                "alice",
                &format!("{path}/messages"),
                json!({"content": content}),
            )
            .await,
        );
    }
    let read = "SELECT read_seqs::text, last_read_at IS NOT NULL AND last_read_at <= now()
                FROM participants WHERE user_id = 'bob'";
    let row: (String, Option<bool>) = sqlx::query_as(read).fetch_one(&database).await.unwrap();
    assert_eq!(row, ("{}".to_owned(), Some(false)));
    asks(
        &stack,
        "bob",
        &format!("{path}/read"),
        json!({"message_ids": [sent[1]["id"]]}),
    )
    .await;
    let row: (String, Option<bool>) = sqlx::query_as(read).fetch_one(&database).await.unwrap();
    assert_eq!(row, ("{[2,3)}".to_owned(), Some(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_questions_share_few_connections() {
    let stack = Stack::builder()
        .persistence_env("PARLANCE_DATABASE_MAX_CONNECTIONS", 2)
        .start()
        .await
        .unwrap();
    let database = stack.database().await.unwrap();
    asks(
        &stack,
        "alice",
        "/conversations/direct",
        json!({"user_id": "bob"}),
    )
    .await;
    let url = format!("{}/api/v1/conversations", stack.gateway(0).base_url());
    let http = reqwest::Client::new();
    let token = stack.token("alice");
    let questions = (0..200).map(|_| http.get(&url).bearer_auth(&token).send());
    for answer in futures::future::join_all(questions).await {
        assert_eq!(answer.unwrap().status(), 200);
    }
    let used: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'parlance-persistence'",
    )
    .fetch_one(&database)
    .await
    .unwrap();
    // Those for queries and the few for writes, leases and idempotency keys.
    assert!((1..=2 + 6).contains(&used), "{used} connections");
}
