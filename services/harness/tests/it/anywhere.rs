//! Clients behind a load balancer that knows nothing of sessions: each request may reach any gateway.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use parlance_harness::checker::{Database, check};
use parlance_harness::devstack::balancer::Target;
use parlance_harness::devstack::process::Process;
use parlance_harness::history::{History, What};
use parlance_harness::load::Load;
use parlance_harness::stack::StackBuilder;
use parlance_harness::{Stack, environment};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::faults::{REPAIRED, Scene, assert_converged};
use crate::metrics::sum;
use crate::spec::{Transport, run_with};

/// Traffic in a regular test run.
const SECONDS: u64 = 15;
/// Until all is delivered again, with the reconnect of a stock client.
const CONVERGED: Duration = Duration::from_secs(10);
const UNKNOWN: &str = "Session ID unknown";
/// Long enough for a client that can connect at all.
const PATIENCE: Duration = Duration::from_secs(10);

fn stack() -> StackBuilder {
    Stack::builder().gateways(3).persistence(2).balanced()
}

/// How often a connection ended or did not come about, by what was said.
fn troubles(history: &History) -> BTreeMap<String, usize> {
    let mut troubles = BTreeMap::new();
    for record in &history.records {
        if let What::Disconnect { reason, detail, .. } | What::Refused { reason, detail, .. } = &record.what {
            *troubles.entry(format!("{reason}: {detail}")).or_insert(0) += 1;
        }
    }
    troubles
}

/// `PARLANCE_ANYWHERE_SECONDS=600` for the long form.
#[tokio::test(flavor = "multi_thread")]
async fn stock_clients_of_every_transport_need_no_sticky_sessions() {
    let seconds =
        environment::variable("PARLANCE_ANYWHERE_SECONDS").map_or(SECONDS, |text| text.parse().unwrap());
    let stack = stack().start().await.unwrap();
    let mut player = Load::default().start(&stack).await.unwrap();
    player.goes_on_for(Duration::from_secs(seconds)).await.unwrap();
    let history = player.stop().await.unwrap();
    let rows = stack.database().await.unwrap();
    let report = check(&history, &Database::read(&rows).await.unwrap());
    let relayed = sum(stack.gateways(), "chat_gateway_relayed_total", "result=\"ok\"")
        .await
        .unwrap();
    println!("{report}\nrelayed {relayed}, troubles {:?}", troubles(&history));
    assert!(report.violations.is_empty(), "{report}");
    assert!(
        report.counts.acked > 500,
        "too little load to conclude anything: {report}"
    );
    assert!(
        relayed > 100.0,
        "{relayed} requests reached another gateway than their session's"
    );
    assert_eq!(troubles(&history), BTreeMap::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_balancer_breaks_the_stock_server() {
    let stack = Stack::builder().servers_only().start().await.unwrap();
    let mut server = Command::new(environment::program("node").unwrap())
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/js/stock.mjs"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let ports: Vec<u16> = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    let targets = ports.iter().map(|port| Target {
        port: *port,
        internal_port: *port,
    });
    let balancer = stack.balance(targets.collect()).await.unwrap();
    let entrance = || vec![balancer.base_url().to_owned()];

    // The players get on with it as long as no session needs two requests.
    let load = Load {
        transports: Some(&["websocket"]),
        ..Load::default()
    };
    let mut player = load.play(&stack, entrance()).unwrap();
    player.all_connected().await.unwrap();
    drop(player);

    let mut player = Load::default().play(&stack, entrance()).unwrap();
    let connected = tokio::time::timeout(PATIENCE, player.all_connected()).await;
    assert!(connected.is_err(), "polling clients got through");
    let history = player.stop().await.unwrap();
    let unknown: usize = troubles(&history)
        .iter()
        .filter(|(what, _)| what.contains(UNKNOWN))
        .map(|(_, count)| count)
        .sum();
    assert!(unknown > 10, "{:?}", troubles(&history));
}

/// Players that poll, most of whose requests reach another gateway than their session's.
async fn polling_scene() -> Scene {
    let load = Load {
        transports: Some(&["polling"]),
        ..Load::default()
    };
    let scene = Scene::of(stack(), load).await;
    let relayed = sum(
        scene.stack.gateways(),
        "chat_gateway_relayed_total",
        "result=\"ok\"",
    )
    .await
    .unwrap();
    assert!(relayed > 100.0, "only {relayed} requests were passed on");
    scene
}

/// Polls are held at the killed gateway both by owners and by gateways that only pass them on.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_costs_a_reconnect_and_no_message() {
    let mut scene = polling_scene().await;
    for index in 0..3 {
        scene.stack.gateway(index).kill();
        scene.goes_on_for(Duration::from_secs(3)).await;
        scene.stack.gateway(index).start().await.unwrap();
    }
    scene.heals().await;
    assert_converged(
        &scene.close("polling anywhere, gateways kill -9").await,
        CONVERGED,
    );
}

/// A paused gateway holds requests without an answer; others must not wait for it for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_gateway_costs_a_reconnect_and_no_message() {
    let mut scene = polling_scene().await;
    scene.stack.gateway(0).pause();
    scene.goes_on_for(Duration::from_secs(12)).await;
    scene.stack.gateway(0).resume();
    scene.heals().await;
    assert_converged(
        &scene.close("polling anywhere, gateway SIGSTOP 12 s").await,
        CONVERGED,
    );
}

/// Answers and requests are lost with it; whatever may have been in them is caught up.
#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_nats_costs_reconnects_and_no_message() {
    let mut scene = polling_scene().await;
    scene.stack.nats().kill();
    scene.goes_on_for(Duration::from_secs(2)).await;
    scene.stack.nats().start().await.unwrap();
    scene.heals().await;
    assert_converged(&scene.close("polling anywhere, NATS kill -9").await, REPAIRED);
}

/// Sessions of the others, whose polls it holds, do not notice that a gateway leaves.
#[tokio::test(flavor = "multi_thread")]
async fn a_leaving_gateway_hands_back_the_polls_of_others() {
    let stack = stack().start().await.unwrap();
    let owner = stack.gateway(0);
    let variables = [
        ("PARLANCE_OWNER", owner.base_url().to_owned()),
        ("PARLANCE_OTHER", stack.gateway(1).base_url().to_owned()),
        ("PARLANCE_LEAVING", stack.gateway(1).pid().unwrap().to_string()),
    ];
    run_with(&stack, "handed_back", Transport::Polling, &variables).await;
    let leaving: &Process = stack.gateway(1);
    assert!(
        leaving
            .wait_exit(Duration::from_secs(20))
            .await
            .unwrap()
            .success()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_polling_client_upgrades_wherever_its_websocket_arrives() {
    let stack = stack().start().await.unwrap();
    let variables = [
        ("PARLANCE_BALANCER", stack.balancer().base_url().to_owned()),
        ("PARLANCE_CARRIED", "yes".to_owned()),
        ("PARLANCE_LEAVING", stack.gateway(0).pid().unwrap().to_string()),
    ];
    // The spec ends the first gateway.
    run_with(&stack, "upgrades", Transport::Default, &variables).await;
    let carried = sum(
        &stack.gateways()[1..],
        "chat_gateway_relayed_total",
        "result=\"carried\"",
    )
    .await
    .unwrap();
    assert!(carried > 0.0);
    let leaving = stack.gateway(0).wait_exit(Duration::from_secs(20)).await.unwrap();
    assert!(leaving.success(), "{leaving}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_gateways_do_not_reach_each_other_clients_go_on_polling() {
    let stack = stack()
        .gateway_env("PARLANCE_RELAY_ADDRESS", "")
        .start()
        .await
        .unwrap();
    let variables = [("PARLANCE_BALANCER", stack.balancer().base_url().to_owned())];
    run_with(&stack, "upgrades", Transport::Default, &variables).await;
}

/// What a request costs that reached another gateway, and the refusals of what is no session.
#[tokio::test(flavor = "multi_thread")]
async fn a_relayed_request_is_answered_as_by_its_owner() {
    let stack = stack().start().await.unwrap();
    run_with(&stack, "relayed", Transport::Polling, &[]).await;
}

/// Front ends publish `socket.id`, and session ids are made of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_id_opens_no_session_at_any_gateway() {
    let stack = stack().start().await.unwrap();
    run_with(&stack, "session_ids", Transport::Polling, &[]).await;
}

/// Middleboxes that let a WebSocket open and then lose its frames.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_fails_costs_nothing() {
    let stack = stack().start().await.unwrap();
    run_with(&stack, "middleboxes", Transport::Default, &[]).await;
}

/// The same requests and packets are sent to both.
#[tokio::test(flavor = "multi_thread")]
async fn invalid_requests_and_packets_are_treated_as_by_the_reference_server() {
    const MAX_PAYLOAD: usize = 600_000;
    let stack = stack()
        .gateway_env("PARLANCE_SOCKET_MAX_MESSAGE_BYTES", MAX_PAYLOAD)
        .start()
        .await
        .unwrap();
    let variables = [("PARLANCE_MAX_PAYLOAD", MAX_PAYLOAD.to_string())];
    run_with(&stack, "reference", Transport::Default, &variables).await;
}
