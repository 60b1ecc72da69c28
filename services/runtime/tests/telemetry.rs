//! Telemetry as a whole process has it: installed once, traces delivered by the time it ends.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Duration;

use parlance_runtime::telemetry::{self, TelemetrySettings};

/// Answers one HTTP request with 200 and returns it.
fn one_request(listener: &TcpListener) -> std::io::Result<Vec<u8>> {
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    while !is_whole(&request) {
        let count = stream.read(&mut chunk)?;
        request.extend_from_slice(&chunk[..count]);
        if count == 0 {
            break;
        }
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
    Ok(request)
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, _)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    let body_start = request
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap_or(0)
        + 4;
    request.len() >= body_start + length
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_spans_and_the_metrics_are_delivered() {
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", collector.local_addr().unwrap());
    let (sender, received) = mpsc::channel();
    std::thread::spawn(move || sender.send(one_request(&collector)));

    let settings = TelemetrySettings {
        log: "off".to_owned(),
        log_format: "json".to_owned(),
        otlp_endpoint: endpoint,
        sample_ratio: 1.0,
    };
    let running = telemetry::init(&settings, "parlance-test", "replica-1").unwrap();
    assert!(telemetry::init(&settings, "parlance-test", "replica-2").is_err());

    metrics::counter!("chat_test_total").increment(3);
    assert!(running.metrics().render().contains("chat_test_total 3"));

    tracing::info_span!(target: "parlance_test", "persist").in_scope(|| {});
    tracing::info_span!(target: "hyper", "foreign").in_scope(|| {});
    running.shutdown();

    let request = received.recv_timeout(Duration::from_secs(10)).unwrap().unwrap();
    let text = String::from_utf8_lossy(&request);
    assert!(text.starts_with("POST /v1/traces "), "{text}");
    assert!(
        text.contains("parlance-test") && text.contains("replica-1"),
        "{text}"
    );
    assert!(text.contains("persist") && !text.contains("foreign"), "{text}");
}
