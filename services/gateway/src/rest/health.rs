//! `/health`: whether a client can use the service, down to the database.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use parlance_runtime::health::Health;
use serde_json::json;

use crate::app::Shared;

pub(super) fn routes(shared: Shared, health: Health) -> Router {
    Router::new()
        .route("/health", get(report))
        .with_state((shared, health))
}

async fn report(State((shared, health)): State<(Shared, Health)>) -> Response {
    let nats = shared.bus.link().borrow().connected;
    let database = nats && shared.backend.ping().await.is_ok();
    let ready = health.is_ready() && database;
    let state = |up: bool| if up { "up" } else { "down" };
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({
        "status": if ready { "ok" } else { "unavailable" },
        "nats": state(nats),
        "database": state(database),
    });
    (status, Json(body)).into_response()
}
