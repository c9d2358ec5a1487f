//! The admin listener: alive, ready, and in numbers. For operators and their machines only.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use super::{AsItIs, House};

#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    obstacles: BTreeMap<&'static str, String>,
}

pub(super) fn router() -> Router<House> {
    Router::new().route("/healthz", get(alive)).route("/readyz", get(ready)).route("/metrics", get(metrics))
}

/// The process runs; it says nothing about what it can do.
async fn alive() -> Json<serde_json::Value> {
    Json(serde_json::json!({ "status": "alive" }))
}

/// 200 when requests make sense here, 503 with the obstacles otherwise.
async fn ready(State(house): State<House>) -> impl IntoResponse {
    let obstacles = house.health.obstacles();
    let status = if obstacles.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut answer = (status, Json(Readiness { ready: obstacles.is_empty(), obstacles })).into_response();
    answer.extensions_mut().insert(AsItIs);
    answer
}

async fn metrics(State(house): State<House>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], house.metrics.render())
}
