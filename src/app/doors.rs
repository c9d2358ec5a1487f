//! The doors of both listeners, hung into the house.

use axum::Json;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;

use super::Rooms;
use crate::config::Config;
use crate::health::Health;

/// What each listener serves.
pub(super) struct Doors {
    pub(super) public: Router,
    pub(super) admin: Router,
}

/// Hangs them.
pub(super) fn hang(_config: &Config, rooms: &Rooms, metrics: PrometheusHandle) -> Doors {
    let health = rooms.health.clone();
    let admin = Router::new()
        .route("/healthz", get(|| async { Json(json!({"status": "alive"})) }))
        .route("/readyz", get(move || ready(health.clone())))
        .route(
            "/metrics",
            get(move || async move { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.render()) }),
        );
    Doors { public: Router::new(), admin }
}

async fn ready(health: Health) -> impl IntoResponse {
    let obstacles = health.obstacles();
    let status = if obstacles.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"ready": obstacles.is_empty(), "obstacles": obstacles})))
}
