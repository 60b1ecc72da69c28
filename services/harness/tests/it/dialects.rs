//! Every front end's own dialect over sockets, alone and all of them in one conversation.

use parlance_harness::Stack;

use crate::spec::{Transport, run};

/// The upgrade is the same for all dialects; other specifications try it.
const TRANSPORTS: [Transport; 2] = [Transport::Websocket, Transport::Polling];

async fn spoken(specifications: &[&str]) {
    let stack = Stack::builder().gateways(2).persistence(2);
    spoken_on(&stack.start().await.unwrap(), specifications).await;
}

async fn spoken_on(stack: &Stack, specifications: &[&str]) {
    for name in specifications {
        for transport in TRANSPORTS {
            run(stack, name, transport).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_front_end_is_served_in_its_own_words() {
    spoken(&[
        "seeds/journal",
        "seeds/sharing",
        "seeds/encrypted",
        "seeds/chats",
        "seeds/threads",
        "seeds/inbox",
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_front_ends_share_one_conversation() {
    spoken(&["seeds/matrix"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_gets_the_dialect_it_asks_for() {
    spoken(&["seeds/selection", "seeds/learned"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_is_told_while_replicas_look_up_what_they_missed() {
    let stack = Stack::builder()
        .gateways(2)
        .gateway_env("PARLANCE_ROOMS_CHECK_INTERVAL_MS", 100)
        .start()
        .await
        .unwrap();
    spoken_on(&stack, &["seeds/reading"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_origin_of_a_page_decides_its_dialect_and_whether_it_may_connect() {
    let stack = Stack::builder()
        .gateway_env("PARLANCE_DIALECT_DEFAULT", "threads")
        .gateway_env("PARLANCE_DIALECT_LEARN", "false")
        .gateway_env(
            "PARLANCE_DIALECT_ORIGINS",
            "https://chats.example=chats,https://inbox.example:8443=inbox",
        )
        .gateway_env(
            "PARLANCE_CORS_ORIGINS",
            "https://chats.example,https://inbox.example:8443,https://plain.example",
        )
        .start()
        .await
        .unwrap();
    spoken_on(&stack, &["seeds/origins"]).await;
}
