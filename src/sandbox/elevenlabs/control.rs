//! The control panel under `/sandbox/…`: no key, for tests and the demo only.
//!
//! | call | answer |
//! | --- | --- |
//! | `GET /sandbox/sinks` | `{model_view[], transcript[], post_call[], client_events[], received[]}` |
//! | `GET /sandbox/tool-calls` | one entry per call, values as fingerprints |
//! | `GET /sandbox/counters` | how often what happened |
//! | `POST /sandbox/reset` `{keep_workspace?}` | forgets all but API keys |
//! | `POST /sandbox/faults` `{name}` · `DELETE` | a fault stays until `DELETE` or a reset |
//! | `POST /sandbox/scripts` `{agent_id, script[]}` | replaces the agent's script from here |
//! | `POST /sandbox/api-keys` | `{api_key}`, one more that is valid |
//!
//! Faults: `signed_url_500` · `signed_url_slow_ms:<n>` (real milliseconds) · `refresh_tool`
//! (assignments are not carried out) · `refuse_start` (a start ends with 1011).

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::rest::{Answer, Doors, Object, Refusal};
use super::world::Shared;

/// All control routes.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/sandbox/sinks", get(sinks))
        .route("/sandbox/tool-calls", get(tool_calls))
        .route("/sandbox/counters", get(counters))
        .route("/sandbox/reset", post(reset))
        .route("/sandbox/faults", post(add_fault).delete(clear_faults))
        .route("/sandbox/scripts", post(set_script))
        .route("/sandbox/api-keys", post(issue_key))
}

async fn sinks(State(shared): Doors) -> Json<Value> {
    let now = shared.around.now();
    Json(shared.look(|world| world.sinks.public(now)))
}

async fn tool_calls(State(shared): Doors) -> Json<Value> {
    Json(shared.look(|world| Value::Array(world.sinks.tool_calls.clone())))
}

async fn counters(State(shared): Doors) -> Json<Value> {
    Json(shared.look(|world| world.counters.public()))
}

async fn reset(State(shared): Doors, body: Option<Json<Value>>) -> StatusCode {
    let keep = body.is_some_and(|Json(body)| body["keep_workspace"].as_bool().unwrap_or(false));
    shared.change(|world| world.reset(!keep));
    StatusCode::NO_CONTENT
}

async fn add_fault(State(shared): Doors, body: Object) -> Answer<StatusCode> {
    let name = body.text("name")?;
    if shared.change(|world| world.add_fault(name)) {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Refusal::field(&["body", "name"], "No such fault", "value_error"))
}

async fn clear_faults(State(shared): Doors) -> StatusCode {
    shared.change(|world| world.faults.clear());
    StatusCode::NO_CONTENT
}

async fn set_script(State(shared): Doors, body: Object) -> Answer<StatusCode> {
    let agent_id = body.text("agent_id")?.to_owned();
    let Some(Value::Array(script)) = body.0.get("script") else {
        return Err(Refusal::missing(&["body", "script"]));
    };
    let script = script.clone();
    shared.change(|world| world.scripts.insert(agent_id, script));
    Ok(StatusCode::NO_CONTENT)
}

async fn issue_key(State(shared): Doors) -> Json<Value> {
    Json(json!({"api_key": shared.issue_key()}))
}
