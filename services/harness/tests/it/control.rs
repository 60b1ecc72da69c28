//! The end of a token, before its time or put off, and orders of other services: on every gateway alike.

use std::time::Duration;

use parlance_harness::Stack;
use parlance_harness::devstack::process::Process;
use parlance_harness::eventually::{equal, eventually};
use parlance_harness::token::Token;
use serde_json::json;

use crate::spec::{Transport, run, run_with};
use crate::system_messages::Service;

const SOON: Duration = Duration::from_secs(15);
const TRANSPORTS: [Transport; 2] = [Transport::Websocket, Transport::Polling];
/// How a service's token is known where a test needs one.
const SERVICE: [(&str, &str); 2] = [
    ("PARLANCE_JWT_SERVICE_CLAIM", "scope"),
    ("PARLANCE_JWT_SERVICE_VALUE", "parlance:internal"),
];

/// The value of a counter, 0 where it was never counted.
async fn counted(gateway: &Process, counter: &str) -> u64 {
    let metrics = reqwest::get(format!("{}/metrics", gateway.internal_url()))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix(counter));
    line.map_or(0, |value| value.trim().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_with_a_new_token_outlives_the_old_one() {
    let stack = Stack::builder()
        .gateway_env("PARLANCE_AUTH_EXPIRY_NOTICE_SECONDS", 3)
        .start()
        .await
        .unwrap();
    for transport in TRANSPORTS {
        run(&stack, "renewal", transport).await;
    }
    let renewals = async |result| {
        let counter = format!("chat_gateway_token_renewals_total{{result=\"{result}\"}}");
        counted(stack.gateway(0), &counter).await
    };
    assert_eq!(renewals("ok").await, 2 * (6 * 3 + 1));
    assert_eq!(renewals("forbidden").await, 2 * 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_obeyed_by_every_gateway_at_once() {
    let stack = Stack::builder().gateways(2).start().await.unwrap();
    for transport in TRANSPORTS {
        run(&stack, "control", transport).await;
    }
    for gateway in stack.gateways() {
        let malformed = counted(gateway, "chat_gateway_control_total{kind=\"malformed\"}").await;
        assert_eq!(malformed, 2 * 9, "{}", gateway.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_revoked_stays_so_when_nats_and_gateways_begin_anew() {
    let stack = Stack::builder().gateways(3).start().await.unwrap();
    stack.gateway(2).kill();
    let mut service = Service::connect(&stack).await;
    let mut order = async |subject: &str, order: serde_json::Value| {
        let payload = order.to_string();
        let stored = service
            .publish(subject, None, Some("application/json"), payload.as_bytes())
            .await;
        assert_eq!(stored["stream"], "CONTROL", "{stored}");
    };
    order("chat.control.token.t-1", json!({"revoke_token": {"jti": "t-1"}})).await;
    let before = parlance_harness::environment::unix_seconds() - 10;
    let all_before = json!({"revoke_user_tokens": {"user_id": "rene", "issued_before": before}});
    order("chat.control.user.rene", all_before).await;
    // The latest of each subject is what counts.
    let user = json!({"disconnect_user": {"user_id": "rene"}});
    for _ in 0..3 {
        order("chat.control.disconnect.rene", user.clone()).await;
    }

    stack.nats().kill();
    stack.nats().start().await.unwrap();
    stack.gateway(0).kill();
    for gateway in [0, 2] {
        stack.gateway(gateway).start().await.unwrap();
    }
    stack.wait_ready().await.unwrap();
    let sign = |token: Token| token.sign(stack.jwt_secret()).unwrap();
    let by_id = sign(Token::new("rene").claim("jti", "t-1"));
    let by_time = sign(Token::new("rene").claim("iat", before - 1));
    // From the first moment on that a gateway answers at all.
    for gateway in stack.gateways() {
        let url = format!("{}/api/v1/conversations", gateway.base_url());
        let status = reqwest::Client::new()
            .get(url)
            .bearer_auth(&by_id)
            .send()
            .await
            .unwrap()
            .status();
        assert_eq!(status.as_u16(), 401, "{}", gateway.name());
    }
    let revoked = [
        ("PARLANCE_REVOKED_USER", "rene".to_owned()),
        ("PARLANCE_REVOKED_TOKENS", format!("{by_id},{by_time}")),
    ];
    run_with(&stack, "revoked", Transport::Websocket, &revoked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_services_have_routes_of_their_own() {
    let mut builder = Stack::builder().gateways(2);
    for (name, value) in SERVICE {
        builder = builder.gateway_env(name, value);
    }
    let stack = builder.start().await.unwrap();
    let internal = [("PARLANCE_INTERNAL", stack.gateway(0).internal_url().to_owned())];
    run_with(&stack, "internal", Transport::Websocket, &internal).await;
    let database = stack.database().await.unwrap();
    let none = || async {
        let parked: i64 = sqlx::query_scalar("SELECT count(*) FROM dead_letters")
            .fetch_one(&database)
            .await?;
        equal(parked, &0).map_err(anyhow::Error::msg)
    };
    eventually(SOON, "nothing is parked", none).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_service_claim_no_token_opens_the_internal_routes() {
    let stack = Stack::builder().start().await.unwrap();
    let token = Token::new("shop")
        .claim("scope", "parlance:internal")
        .claim("service", true);
    let token = token.sign(stack.jwt_secret()).unwrap();
    let gateway = stack.gateway(0);
    for url in [gateway.internal_url(), gateway.base_url()] {
        let status = reqwest::Client::new()
            .post(format!("{url}/internal/users/alice/disconnect"))
            .bearer_auth(&token)
            .send()
            .await
            .unwrap()
            .status();
        assert_eq!(status.as_u16(), 404, "{url}");
    }
}
