//! Reports to orchestrators and operators whether this process is live and ready, and serves its metrics.
//!
//! Owns the named readiness conditions and the internal HTTP routes. It must not decide what
//! follows from being unready, and reasons must not hold secrets: they are public on this port.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::telemetry::MetricsHandle;

/// How long a request that is under way may take once the server shall stop.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// The readiness of this process: ready when every condition is. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// Reason why each condition is not met; `None` when it is.
    conditions: Arc<RwLock<BTreeMap<String, Option<String>>>>,
}

/// One named condition of a [`Health`]. Clones are the same condition.
#[derive(Debug, Clone)]
pub struct Condition {
    name: String,
    health: Health,
}

impl Health {
    /// A health without conditions, which is ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the condition `name`, not met until it is said to be; an existing one is kept as it is.
    #[must_use]
    pub fn condition(&self, name: &str) -> Condition {
        let mut conditions = self.conditions.write().unwrap_or_else(PoisonError::into_inner);
        let reason = conditions
            .entry(name.to_owned())
            .or_insert_with(|| Some("starting".to_owned()));
        show(name, reason.is_none());
        Condition {
            name: name.to_owned(),
            health: self.clone(),
        }
    }

    /// Whether every condition is met.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let conditions = self.conditions.read().unwrap_or_else(PoisonError::into_inner);
        conditions.values().all(Option::is_none)
    }

    /// `{"status":"ready"|"unready","conditions":{name:{"ready":bool,"reason"?:text}}}`.
    #[must_use]
    pub fn report(&self) -> Value {
        let conditions = self.conditions.read().unwrap_or_else(PoisonError::into_inner);
        let ready = conditions.values().all(Option::is_none);
        let each: Map<String, Value> = conditions
            .iter()
            .map(|(name, reason)| {
                let state = match reason {
                    None => json!({ "ready": true }),
                    Some(reason) => json!({ "ready": false, "reason": reason }),
                };
                (name.clone(), state)
            })
            .collect();
        json!({ "status": if ready { "ready" } else { "unready" }, "conditions": each })
    }

    /// Sets the condition and logs it if that is news.
    fn set(&self, name: &str, reason: Option<String>) {
        let mut conditions = self.conditions.write().unwrap_or_else(PoisonError::into_inner);
        let before = conditions.insert(name.to_owned(), reason.clone());
        drop(conditions);
        show(name, reason.is_none());
        if before.as_ref() == Some(&reason) {
            return;
        }
        match reason {
            None => tracing::info!(condition = name, "ready"),
            Some(reason) => tracing::warn!(condition = name, reason, "not ready"),
        }
    }
}

impl Condition {
    /// The condition is met.
    pub fn set_ready(&self) {
        self.health.set(&self.name, None);
    }

    /// The condition is not met; `reason` is shown in the reply, e.g. "connecting to bus:4222".
    pub fn set_unready(&self, reason: impl Into<String>) {
        self.health.set(&self.name, Some(reason.into()));
    }
}

/// The condition as a metric, so that alerts can name the dependency that is away.
fn show(name: &str, met: bool) {
    metrics::gauge!("chat_ready", "condition" => name.to_owned()).set(if met { 1.0 } else { 0.0 });
}

/// The internal routes: the [`probes`] and `/health`, an alias of `/readyz`.
pub fn router(health: Health, metrics: MetricsHandle) -> Router {
    let alias = Router::new().route("/health", get(readiness));
    probes(health.clone(), metrics).merge(alias.with_state(health))
}

/// `/livez` (200 while the process can answer at all), `/readyz` (200 or 503 with
/// [`Health::report`]), `/metrics` (Prometheus text).
pub fn probes(health: Health, metrics: MetricsHandle) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readiness))
        .with_state(health)
        .route("/metrics", get(render_metrics).with_state(metrics))
}

/// Serves `router` on the internal port until `stop` is cancelled. Probes and scrapes are of use
/// while a process drains, so `stop` should come after the drain.
///
/// # Errors
/// When the listener breaks.
pub async fn serve_internal(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let stopped = stop.clone().cancelled_owned();
    let server = axum::serve(listener, router)
        .with_graceful_shutdown(stopped)
        .into_future();
    let too_late = async {
        stop.cancelled().await;
        tokio::time::sleep(STOP_GRACE).await;
    };
    tokio::select! {
        result = server => Ok(result?),
        () = too_late => Ok(()),
    }
}

async fn readiness(State(health): State<Health>) -> Response {
    let status = if health.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        [(header::CACHE_CONTROL, "no-store")],
        Json(health.report()),
    )
        .into_response()
}

async fn render_metrics(State(metrics): State<MetricsHandle>) -> Response {
    const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, TEXT)], metrics.render()).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    async fn ask(health: &Health, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let app = router(health.clone(), MetricsHandle::detached());
        let response = app.oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 64 * 1024).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn alive_even_when_not_ready() {
        let health = Health::new();
        let _nats = health.condition("nats");
        assert_eq!(ask(&health, "/livez").await, (StatusCode::OK, "ok\n".to_owned()));
    }

    #[tokio::test]
    async fn ready_only_when_every_condition_is() {
        let health = Health::new();
        let nats = health.condition("nats");
        let database = health.condition("database");
        nats.set_ready();
        for path in ["/readyz", "/health"] {
            let (status, body) = ask(&health, path).await;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
            let expected = json!({ "status": "unready", "conditions": {
                "nats": { "ready": true },
                "database": { "ready": false, "reason": "starting" },
            }});
            assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
        }
        database.set_ready();
        assert!(health.is_ready());
        assert_eq!(ask(&health, "/readyz").await.0, StatusCode::OK);
        nats.set_unready("connecting to bus:4222");
        let (status, body) = ask(&health, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("connecting to bus:4222"), "{body}");
    }

    #[test]
    fn asking_for_a_condition_again_keeps_its_state() {
        let health = Health::new();
        health.condition("nats").set_ready();
        let _again = health.condition("nats");
        assert!(health.is_ready());
    }

    #[tokio::test]
    async fn metrics_are_text() {
        let (status, _) = ask(&Health::new(), "/metrics").await;
        assert_eq!(status, StatusCode::OK);
    }

    #[tokio::test]
    async fn the_internal_server_stops_with_a_client_that_says_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let app = router(Health::new(), MetricsHandle::detached());
        let server = tokio::spawn(serve_internal(listener, app, stop.clone()));
        let silent = tokio::net::TcpStream::connect(address).await.unwrap();
        stop.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(10), server).await;
        ended.unwrap().unwrap().unwrap();
        drop(silent);
    }
}
