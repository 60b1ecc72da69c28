//! `/health`: whether a client can use the service, down to the database.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use parlance_runtime::health::Health;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::actions::core::{Core, Reach};

#[derive(Serialize, ToSchema)]
#[schema(as = ServiceHealth)]
struct ReportJson {
    /// `ok` or `unavailable`.
    status: &'static str,
    /// `up` or `down`.
    nats: &'static str,
    /// `up` or `down`.
    database: &'static str,
}

pub(super) fn routes() -> OpenApiRouter<(Core, Health)> {
    OpenApiRouter::new().routes(routes!(report))
}

#[utoipa::path(
    get,
    path = "/health",
    operation_id = "health",
    tag = "probes",
    summary = "Whether a client can use the service, down to the database.",
    security(()),
    responses(
        (status = 200, description = "It can.", body = ReportJson),
        (status = 503, description = "It cannot at the moment.", body = ReportJson),
    ),
)]
async fn report(State((core, health)): State<(Core, Health)>) -> Response {
    let Reach { nats, database } = core.reach().await;
    let ready = health.is_ready() && database;
    let state = |up: bool| if up { "up" } else { "down" };
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = ReportJson {
        status: if ready { "ok" } else { "unavailable" },
        nats: state(nats),
        database: state(database),
    };
    (status, Json(body)).into_response()
}
