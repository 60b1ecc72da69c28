//! One trace shows a message on its whole way; and what is not recorded leaves no trace anywhere.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use parlance_harness::Stack;
use parlance_harness::eventually::eventually;
use prost::Message as _;

use crate::spec::{Transport, run};

const SOON: Duration = Duration::from_secs(20);
/// What the client of the specification sends along.
const FOREIGN_TRACE: &str = "0123456789abcdef0123456789abcdef";

/// A collector of traces as OTLP over HTTP reaches it.
struct Collector {
    url: String,
    requests: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

/// A span and who made it.
#[derive(Clone, Debug)]
struct Seen {
    service: String,
    instance: String,
    span: Span,
}

impl Collector {
    async fn start() -> Self {
        let requests = Arc::<Mutex<Vec<_>>>::default();
        let sink = Arc::clone(&requests);
        let take = move |body: Bytes| {
            let read = ExportTraceServiceRequest::decode(body);
            let status = if read.is_ok() {
                StatusCode::OK
            } else {
                StatusCode::BAD_REQUEST
            };
            sink.lock().unwrap().extend(read);
            async move { status }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/v1/traces", post(take));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, requests }
    }

    fn spans(&self) -> Vec<Seen> {
        let requests = self.requests.lock().unwrap();
        let mut seen = Vec::new();
        for resource_spans in requests.iter().flat_map(|request| &request.resource_spans) {
            let attributes = &resource_spans.resource.as_ref().unwrap().attributes;
            let spans = resource_spans.scope_spans.iter().flat_map(|scope| &scope.spans);
            seen.extend(spans.map(|span| Seen {
                service: text(attributes, "service.name"),
                instance: text(attributes, "service.instance.id"),
                span: span.clone(),
            }));
        }
        seen
    }
}

/// The text of an attribute; empty where there is none.
fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    let value = found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref());
    match value {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        _ => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The way of a message: its spans in one trace, from the first to the last.
struct Way {
    root: Seen,
    send: Seen,
    process: Seen,
    commit: Option<Seen>,
    tell: Seen,
    deliveries: Vec<Seen>,
}

/// The ways of all messages that began in a span of this name and are complete.
fn ways(spans: &[Seen], root: &str) -> Vec<Way> {
    let roots = spans
        .iter()
        .filter(|seen| seen.span.name == root && seen.span.parent_span_id.is_empty());
    roots.filter_map(|root| way(spans, root)).collect()
}

fn way(spans: &[Seen], root: &Seen) -> Option<Way> {
    let children = |of: &Seen, name: &str| -> Vec<Seen> {
        let is_child = |seen: &&Seen| {
            seen.span.trace_id == of.span.trace_id
                && seen.span.parent_span_id == of.span.span_id
                && seen.span.name == name
        };
        spans.iter().filter(is_child).cloned().collect()
    };
    let send = children(root, "send chat.cmd").pop()?;
    let process = children(&send, "process chat.cmd").pop()?;
    let tell = children(&process, "send chat.evt").pop()?;
    let deliveries = children(&tell, "deliver chat.evt");
    let instances: BTreeSet<_> = deliveries.iter().map(|seen| &seen.instance).collect();
    (instances.len() == 2).then(|| Way {
        root: root.clone(),
        commit: children(&process, "commit").pop(),
        send,
        process,
        tell,
        deliveries,
    })
}

fn assert_way(spans: &[Seen], way: &Way) {
    let kinds = [
        (&way.root, SpanKind::Server),
        (&way.send, SpanKind::Producer),
        (&way.process, SpanKind::Consumer),
        (&way.tell, SpanKind::Producer),
        (&way.deliveries[0], SpanKind::Consumer),
        (&way.deliveries[1], SpanKind::Consumer),
    ];
    for (seen, kind) in kinds {
        assert_eq!(seen.span.kind(), kind, "{seen:?}");
    }
    assert_eq!(way.root.service, "parlance-gateway");
    assert_eq!(way.send.instance, way.root.instance);
    assert_eq!(way.process.service, "parlance-persistence");
    assert_eq!(way.tell.instance, way.process.instance);
    let gateways: BTreeSet<_> = way.deliveries.iter().map(|seen| &seen.instance).collect();
    assert!(gateways.contains(&way.root.instance), "{gateways:?}");
    assert!(
        way.deliveries
            .iter()
            .all(|seen| seen.service == "parlance-gateway")
    );
    for (seen, operation, template) in [
        (&way.send, "send", "chat.cmd.{partition}.{conversation}"),
        (&way.process, "process", "chat.cmd.{partition}.{conversation}"),
        (&way.tell, "send", "chat.evt.{conversation}"),
        (&way.deliveries[0], "deliver", "chat.evt.{conversation}"),
    ] {
        let attributes = &seen.span.attributes;
        assert_eq!(text(attributes, "messaging.system"), "nats");
        assert_eq!(text(attributes, "messaging.operation.name"), operation);
        assert_eq!(text(attributes, "messaging.destination.template"), template);
    }
    // The transaction is one of the command's own trace, or of another's in the same batch; linked both ways.
    let commit = way.commit.clone().unwrap_or_else(|| {
        let linked = |seen: &&Seen| {
            let links = &way.process.span.links;
            seen.span.name == "commit" && links.iter().any(|link| link.span_id == seen.span.span_id)
        };
        spans.iter().find(linked).cloned().unwrap()
    });
    let to_command = |link: &opentelemetry_proto::tonic::trace::v1::span::Link| {
        link.span_id == way.process.span.span_id && link.trace_id == way.process.span.trace_id
    };
    assert!(commit.span.links.iter().any(to_command), "{commit:?}");
}

/// Nothing of who wrote what to whom is in a trace.
fn assert_discreet(spans: &[Seen]) {
    for seen in spans {
        let shown = format!("{:?}", seen.span);
        for secret in ["by socket", "by REST", "alice", "bob"] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
        assert!(!seen.span.name.contains("0-"), "an id in {}", seen.span.name);
        assert_ne!(hex(&seen.span.trace_id), FOREIGN_TRACE);
    }
}

/// Lines of the log inside of what was recorded name the trace.
fn assert_logged(stack: &Stack, spans: &[Seen]) {
    let commits: BTreeSet<_> = spans
        .iter()
        .filter(|seen| seen.span.name == "commit")
        .map(|seen| (hex(&seen.span.trace_id), hex(&seen.span.span_id)))
        .collect();
    let log = std::fs::read_to_string(stack.folder().join("logs/persistence-1.log")).unwrap();
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let logged: BTreeSet<_> = lines
        .filter(|line| line["message"] == "committed")
        .map(|line| {
            let id = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            (id("trace_id"), id("span_id"))
        })
        .collect();
    assert!(
        logged.iter().any(|ids| commits.contains(ids)),
        "{logged:?} are none of {commits:?}"
    );
}

async fn stack(collector: &Collector, ratio: f64) -> Stack {
    Stack::builder()
        .gateways(2)
        .env("PARLANCE_TELEMETRY_OTLP_ENDPOINT", &collector.url)
        .env("PARLANCE_TELEMETRY_SAMPLE_RATIO", ratio)
        .env("PARLANCE_TELEMETRY_LOG_FORMAT", "json")
        .env("PARLANCE_TELEMETRY_LOG", "info,parlance_persistence=debug")
        .env("OTEL_BSP_SCHEDULE_DELAY", 100)
        .start()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_the_sender_through_the_database_to_every_gateway() {
    let collector = Collector::start().await;
    let stack = stack(&collector, 1.0).await;
    run(&stack, "traces", Transport::Websocket).await;
    for root in ["receive message:send", "POST /api/v1/conversations/{id}/messages"] {
        let arrived = || async { !ways(&collector.spans(), root).is_empty() };
        eventually(SOON, format_args!("a whole trace from {root}"), arrived)
            .await
            .unwrap();
    }
    let committed = || async { collector.spans().iter().any(|seen| seen.span.name == "commit") };
    eventually(SOON, "the transactions", committed).await.unwrap();
    let spans = collector.spans();
    for root in ["receive message:send", "POST /api/v1/conversations/{id}/messages"] {
        for way in ways(&spans, root) {
            assert_way(&spans, &way);
        }
    }
    assert_discreet(&spans);
    assert_logged(&stack, &spans);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_sampled_is_exported_by_nobody() {
    let collector = Collector::start().await;
    let stack = stack(&collector, 0.0).await;
    run(&stack, "traces", Transport::Websocket).await;
    // Each sends what it has left before it ends.
    for process in stack.gateways().iter().chain(stack.persistence_replicas()) {
        process.terminate();
    }
    for process in stack.gateways().iter().chain(stack.persistence_replicas()) {
        process.wait_exit(SOON).await.unwrap();
    }
    let spans = collector.spans();
    assert!(spans.is_empty(), "{spans:?}");
}
