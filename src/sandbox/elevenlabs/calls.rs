//! Starting conversations and reading them back over REST (sections 2.1, 2.2, 12.2).

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use super::rest::{Answer, Doors, Pairs, Refusal, check_key, is_set, page, query};
use super::sinks::Record;
use super::variables::{is_secret, shown};
use super::world::{Shared, SignedUrl, World};
use crate::clock;

/// A signed URL starts a conversation for this long; a started one outlives it.
const SIGNED_URL_LIFE: Duration = Duration::from_secs(15 * 60);

/// Routes below `/v1/convai`.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/convai/conversation/get-signed-url", get(signed_url))
        .route("/v1/convai/conversations", get(list))
        .route("/v1/convai/conversations/{id}", get(read))
}

async fn signed_url(State(shared): Doors, Query(pairs): Pairs) -> Answer {
    let (broken, delay) = shared.look(|world| (world.has_fault("signed_url_500"), world.signed_url_delay()));
    clock::pause(Duration::from_millis(delay)).await;
    if broken {
        let message = "Something went wrong on our side";
        return Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "internal_error", message));
    }
    let agent_id = known_agent(&shared, &pairs)?;
    let signature = shared.name("cvtkn");
    let conversation_id = is_set(&pairs, "include_conversation_id").then(|| shared.name("conv"));

    let mut url = shared.base.clone();
    // The base is http on this very port; both schemes are "special" and may be swapped.
    let _ = url.set_scheme("ws");
    url.set_path("/v1/convai/conversation");
    url.query_pairs_mut().append_pair("agent_id", &agent_id).append_pair("conversation_signature", &signature);
    if let Some(id) = &conversation_id {
        url.query_pairs_mut().append_pair("conversation_id", id);
    }
    let expires = shared.around.now().after(SIGNED_URL_LIFE);
    shared.change(|world| {
        world.counters.signed_urls += 1;
        world.signatures.insert(signature, SignedUrl { agent_id, conversation_id, expires, used: false });
    });
    Ok(Json(json!({"signed_url": url.as_str()})))
}

/// A `LiveKit`-shaped token. The stand-in plays no WebRTC; the token opens nothing here.
pub(super) async fn token(State(shared): Doors, headers: HeaderMap, Query(pairs): Pairs) -> Answer {
    let agent_id = query(&pairs, "agent_id").unwrap_or_default();
    let public = shared.look(|world| world.agent(agent_id).is_some_and(|agent| !needs_auth(&agent.body)));
    if !public {
        check_key(&shared, &headers)?;
    }
    known_agent(&shared, &pairs)?;
    let conversation_id = shared.name("conv");
    let expires = shared.around.now().after(SIGNED_URL_LIFE).unix_seconds();
    let part = |value: Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let token = format!(
        "{}.{}.{}",
        part(json!({"alg": "HS256", "typ": "JWT"})),
        part(json!({"exp": expires, "video": {"room": conversation_id, "roomJoin": true}})),
        BASE64URL_NOPAD.encode(&shared.around.random::<32>()),
    );
    shared.change(|world| world.counters.tokens += 1);
    Ok(Json(json!({"token": token, "conversation_id": conversation_id})))
}

/// Whether only signed or keyed starts are allowed.
pub(super) fn needs_auth(agent: &Value) -> bool {
    agent["platform_settings"]["auth"]["enable_auth"].as_bool().unwrap_or(false)
}

fn known_agent(shared: &Shared, pairs: &[(String, String)]) -> Answer<String> {
    let id = query(pairs, "agent_id").ok_or_else(|| Refusal::missing(&["query", "agent_id"]))?;
    if shared.look(|world| world.agent(id).is_some()) {
        return Ok(id.to_owned());
    }
    Err(Refusal::unknown("agent", id))
}

async fn read(State(shared): Doors, Path(id): Path<String>) -> Answer {
    let now = shared.around.now();
    let found = shared.look(|world| world.sinks.record(&id).map(|record| record.public(now)));
    found.map(Json).ok_or_else(|| Refusal::unknown("conversation", &id))
}

async fn list(State(shared): Doors, Query(pairs): Pairs) -> Answer {
    let filters = filters(&pairs)?;
    let now = shared.around.now();
    let items = shared.look(|world: &World| {
        // Newest first, as the platform lists them.
        let records = world.sinks.records.iter().rev();
        let found = records.filter(|record| filters.iter().all(|filter| filter.accepts(record)));
        found
            .map(|record| {
                let name = world.agent(&record.agent_id).map(|agent| agent.body["name"].clone());
                record.summary(name.unwrap_or_default(), now)
            })
            .collect()
    });
    page("conversations", items, &pairs)
}

/// One condition on the list of conversations.
enum Filter {
    Agent(String),
    User(String),
    StartedAfter(i64),
    StartedBefore(i64),
    Variable { name: String, op: Op, value: String },
}

enum Op {
    Eq,
    Neq,
    In,
    Compare(fn(f64, f64) -> bool),
}

fn filters(pairs: &[(String, String)]) -> Answer<Vec<Filter>> {
    let number = |name: &str, text: &str| {
        let wrong = || Refusal::field(&["query", name], "Input should be a valid integer", "int_parsing");
        text.parse::<i64>().map_err(|_| wrong())
    };
    let mut found = Vec::new();
    for (name, value) in pairs {
        found.push(match name.as_str() {
            "agent_id" => Filter::Agent(value.clone()),
            "user_id" => Filter::User(value.clone()),
            "call_start_after_unix" => Filter::StartedAfter(number(name, value)?),
            "call_start_before_unix" => Filter::StartedBefore(number(name, value)?),
            "dynamic_variable_params" => variable_filter(value)?,
            _ => continue,
        });
    }
    Ok(found)
}

/// `name:op:value`, where the value may contain colons.
fn variable_filter(text: &str) -> Answer<Filter> {
    let wrong = || Refusal::field(&["query", "dynamic_variable_params"], "Expected name:operator:value", "value_error");
    let mut parts = text.splitn(3, ':');
    let (Some(name), Some(op), Some(value)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(wrong());
    };
    let op = match op {
        "eq" => Op::Eq,
        "neq" => Op::Neq,
        "in" => Op::In,
        "gt" => Op::Compare(|a, b| a > b),
        "gte" => Op::Compare(|a, b| a >= b),
        "lt" => Op::Compare(|a, b| a < b),
        "lte" => Op::Compare(|a, b| a <= b),
        _ => return Err(wrong()),
    };
    Ok(Filter::Variable { name: name.to_owned(), op, value: value.to_owned() })
}

impl Filter {
    fn accepts(&self, record: &Record) -> bool {
        match self {
            Self::Agent(id) => record.agent_id == *id,
            Self::User(id) => record.user_id.as_deref() == Some(id),
            Self::StartedAfter(at) => record.started.unix_seconds() >= *at,
            Self::StartedBefore(at) => record.started.unix_seconds() <= *at,
            // Searching for a secret by its value would answer what redaction hides.
            Self::Variable { name, .. } if is_secret(name) => false,
            Self::Variable { name, op, value } => {
                let held = record.variables.get(name).map(shown);
                match op {
                    Op::Eq => held.as_ref() == Some(value),
                    Op::Neq => held.as_ref() != Some(value),
                    Op::In => held.is_some_and(|held| value.split(',').any(|one| one == held)),
                    Op::Compare(holds) => match (held.and_then(|held| held.parse().ok()), value.parse().ok()) {
                        (Some(a), Some(b)) => holds(a, b),
                        _ => false,
                    },
                }
            }
        }
    }
}
