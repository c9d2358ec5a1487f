//! The doors: routes, who may call, error shapes and paging.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};

use super::world::Shared;
use super::{calls, control, shelves, socket};
use crate::shutdown::Shutdown;

/// What every handler is given.
pub(super) type Doors = State<Arc<Shared>>;
/// A query string in order, because filters may repeat.
pub(super) type Pairs = axum::extract::Query<Vec<(String, String)>>;

/// A plan's cap as the `maximum-concurrent-requests` header states it.
const MAXIMUM_CONCURRENT: u32 = 30;
/// Default and largest page (section 6.1).
const PAGE: (usize, usize) = (30, 100);

/// All routes of the platform and of the control panel.
pub(super) fn router(shared: Arc<Shared>, running: Shutdown) -> Router {
    let with_key = Router::new()
        .route("/v1/user", get(user))
        .merge(shelves::routes())
        .merge(calls::routes())
        .route_layer(from_fn_with_state(shared.clone(), require_key));
    // These two decide for themselves: a public agent needs no key.
    let open = Router::new()
        .route("/v1/convai/conversation/token", get(calls::token))
        .route("/v1/convai/conversation", get(socket::open).with_state((shared.clone(), running)));
    Router::new()
        .merge(with_key)
        .merge(open)
        .layer(from_fn_with_state(shared.clone(), count))
        .merge(control::routes())
        .fallback(async || Refusal::plain(StatusCode::NOT_FOUND, "Not Found"))
        .with_state(shared)
}

/// An answer that says no, in one of the platform's shapes (section 1.4).
#[derive(Debug)]
pub(super) struct Refusal(StatusCode, Value);

impl Refusal {
    /// The 2026 object shape; `status` repeats the code as older endpoints do.
    pub fn new(http: StatusCode, kind: &str, code: &str, message: &str) -> Self {
        Self(http, json!({"detail": {"type": kind, "code": code, "status": code, "message": message}}))
    }

    /// The oldest shape: `detail` is a text.
    pub fn plain(http: StatusCode, message: &str) -> Self {
        Self(http, json!({ "detail": message }))
    }

    /// FastAPI's 422: which field is wrong.
    pub fn field(place: &[&str], message: &str, kind: &str) -> Self {
        let detail = json!([{"loc": place, "msg": message, "type": kind}]);
        Self(StatusCode::UNPROCESSABLE_ENTITY, json!({ "detail": detail }))
    }

    /// A required field is not there.
    pub fn missing(place: &[&str]) -> Self {
        Self::field(place, "Field required", "missing")
    }

    /// The id names nothing in this workspace.
    pub fn unknown(kind: &str, id: &str) -> Self {
        let message = format!("Document with id {id} not found ({kind})");
        Self::new(StatusCode::NOT_FOUND, "not_found", "document_not_found", &message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

/// What handlers answer.
pub(super) type Answer<T = Json<Value>> = Result<T, Refusal>;

/// A JSON object as request body; anything else is FastAPI's 422.
pub(super) struct Object(pub Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for Object {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let invalid = || Refusal::field(&["body"], "JSON decode error", "json_invalid");
        let bytes = Bytes::from_request(request, state).await.map_err(|_| invalid())?;
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(object)) => Ok(Self(object)),
            Ok(_) => {
                Err(Refusal::field(&["body"], "Input should be a valid dictionary or object", "model_attributes_type"))
            }
            Err(_) if bytes.is_empty() => Err(Refusal::missing(&["body"])),
            Err(_) => Err(invalid()),
        }
    }
}

impl Object {
    /// A required text field.
    pub fn text(&self, name: &str) -> Answer<&str> {
        match self.0.get(name) {
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(Refusal::field(&["body", name], "Input should be a valid string", "string_type")),
            None => Err(Refusal::missing(&["body", name])),
        }
    }

    /// A required object field.
    pub fn object(&self, name: &str) -> Answer<&Value> {
        match self.0.get(name) {
            Some(value) if value.is_object() => Ok(value),
            Some(_) => Err(Refusal::field(&["body", name], "Input should be a valid dictionary", "dict_type")),
            None => Err(Refusal::missing(&["body", name])),
        }
    }
}

/// The first value of a query parameter.
pub(super) fn query<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// True for the spellings of a boolean that FastAPI reads as true.
pub(super) fn is_set(pairs: &[(String, String)], name: &str) -> bool {
    query(pairs, name).is_some_and(|text| matches!(text, "true" | "True" | "1" | "yes" | "on"))
}

/// One page of `items` under `field`, with `next_cursor` and `has_more`.
pub(super) fn page(field: &str, items: Vec<Value>, pairs: &[(String, String)]) -> Answer {
    let size = match query(pairs, "page_size").map(str::parse::<usize>) {
        None => PAGE.0,
        Some(Ok(size)) if (1..=PAGE.1).contains(&size) => size,
        Some(_) => return Err(Refusal::field(&["query", "page_size"], "Input should be 1 to 100", "value_error")),
    };
    let start = query(pairs, "cursor").and_then(|cursor| cursor.parse::<usize>().ok()).unwrap_or(0);
    let end = start.saturating_add(size);
    let has_more = end < items.len();
    let next = has_more.then(|| end.to_string());
    let shown: Vec<Value> = items.into_iter().skip(start).take(size).collect();
    Ok(Json(json!({field: shown, "next_cursor": next, "has_more": has_more})))
}

/// Whether the request carries a valid key.
pub(super) fn check_key(shared: &Shared, headers: &HeaderMap) -> Answer<()> {
    let no = |code, message| Err(Refusal::new(StatusCode::UNAUTHORIZED, "authentication_error", code, message));
    let Some(key) = headers.get("xi-api-key") else {
        return no("missing_api_key", "Missing xi-api-key header");
    };
    let known = shared.look(|world| world.keys.iter().any(|known| known.as_bytes() == key.as_bytes()));
    if known { Ok(()) } else { no("invalid_api_key", "Invalid API key") }
}

async fn require_key(State(shared): Doors, request: Request, next: Next) -> Response {
    match check_key(&shared, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

async fn count(State(shared): Doors, request: Request, next: Next) -> Response {
    let current = shared.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
    let mut response = next.run(request).await;
    shared.in_flight.fetch_sub(1, Ordering::Relaxed);
    let headers = response.headers_mut();
    headers.insert("current-concurrent-requests", HeaderValue::from(current));
    headers.insert("maximum-concurrent-requests", HeaderValue::from(MAXIMUM_CONCURRENT));
    if let Ok(id) = HeaderValue::from_str(&shared.name("req")) {
        headers.insert("request-id", id);
    }
    response
}

async fn user() -> Json<Value> {
    Json(json!({
        "user_id": "user_sandbox",
        "workspace_id": "workspace_sandbox",
        "seat_type": "workspace_admin",
        "is_new_user": false,
        "can_use_delayed_payment_methods": false,
        "subscription": {
            "tier": "pro", "status": "active", "character_count": 1200, "character_limit": 500_000,
            "next_character_count_reset_unix": 1_800_000_000, "currency": "usd",
        },
    }))
}
