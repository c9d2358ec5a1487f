//! Secrets, tools and agents: the workspace's objects over REST (sections 6.1, 7, 8.1).

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Map, Value, json};
use url::Url;

use super::rest::{Answer, Doors, Object, Pairs, Refusal, is_set, page, query};
use super::tools::is_callable;
use super::world::{Agent, Shared, Tool, WorkspaceSecret, World};
use crate::secret::Secret;

/// Routes below `/v1/convai`.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/convai/secrets", get(list_secrets).post(create_secret))
        .route("/v1/convai/secrets/{id}", get(get_secret).patch(update_secret).delete(delete_secret))
        .route("/v1/convai/tools", get(list_tools).post(create_tool))
        .route("/v1/convai/tools/{id}", get(get_tool).patch(update_tool).delete(delete_tool))
        .route("/v1/convai/tools/{id}/dependent-agents", get(dependent_agents))
        .route("/v1/convai/agents", get(list_agents))
        .route("/v1/convai/agents/create", post(create_agent))
        .route("/v1/convai/agents/{id}", get(get_agent).patch(update_agent).delete(delete_agent))
}

// --- secrets ---

async fn create_secret(State(shared): Doors, body: Object) -> Answer {
    expect_type(&body, "new")?;
    let (name, value) = (body.text("name")?.to_owned(), Secret::new(body.text("value")?));
    let id = shared.name("sec");
    let answer = json!({"type": "stored", "secret_id": id, "name": name});
    shared.change(|world| world.secrets.push(WorkspaceSecret { id, name, value }));
    Ok(Json(answer))
}

async fn list_secrets(State(shared): Doors, Query(pairs): Pairs) -> Answer {
    let prefix = query(&pairs, "search").unwrap_or_default();
    let items: Vec<Value> = shared.look(|world| {
        let found = world.secrets.iter().filter(|secret| secret.name.starts_with(prefix));
        found.map(|secret| public_secret(world, secret)).collect()
    });
    // Unlike other lists, an omitted page size means all.
    if query(&pairs, "page_size").is_none() {
        return Ok(Json(json!({"secrets": items, "next_cursor": null, "has_more": false})));
    }
    page("secrets", items, &pairs)
}

async fn get_secret(State(shared): Doors, Path(id): Path<String>) -> Answer {
    let found = shared.look(|world| world.secret(&id).map(|secret| public_secret(world, secret)));
    found.map(Json).ok_or_else(|| Refusal::unknown("secret", &id))
}

async fn update_secret(State(shared): Doors, Path(id): Path<String>, body: Object) -> Answer {
    expect_type(&body, "update")?;
    let (name, value) = (body.text("name")?.to_owned(), Secret::new(body.text("value")?));
    shared.change(|world| {
        let secret = world.secrets.iter_mut().find(|secret| secret.id == id);
        let secret = secret.ok_or_else(|| Refusal::unknown("secret", &id))?;
        secret.name.clone_from(&name);
        secret.value = value;
        Ok(Json(json!({"type": "stored", "secret_id": id, "name": name})))
    })
}

async fn delete_secret(State(shared): Doors, Path(id): Path<String>) -> Answer<StatusCode> {
    shared.change(|world| {
        world.secret(&id).ok_or_else(|| Refusal::unknown("secret", &id))?;
        if uses_of_secret(world, &id).any() {
            // The vendor says that it fails, not with which status.
            return Err(conflict("secret_in_use", "The secret is still in use"));
        }
        world.secrets.retain(|secret| secret.id != id);
        Ok(StatusCode::NO_CONTENT)
    })
}

/// The `type` tag may be left out, but must not say something else.
fn expect_type(body: &Object, wanted: &str) -> Answer<()> {
    match body.0.get("type") {
        None => Ok(()),
        Some(Value::String(tag)) if tag == wanted => Ok(()),
        Some(_) => Err(Refusal::field(&["body", "type"], &format!("Input should be '{wanted}'"), "literal_error")),
    }
}

struct Uses<'a> {
    tools: Vec<&'a Tool>,
    agents: Vec<&'a Agent>,
}

impl Uses<'_> {
    fn any(&self) -> bool {
        !self.tools.is_empty() || !self.agents.is_empty()
    }
}

fn uses_of_secret<'a>(world: &'a World, id: &str) -> Uses<'a> {
    Uses {
        tools: world.tools.iter().filter(|tool| names_secret(&tool.config, id)).collect(),
        agents: world.agents.iter().filter(|agent| names_secret(&agent.body, id)).collect(),
    }
}

fn names_secret(value: &Value, id: &str) -> bool {
    match value {
        Value::Object(fields) => fields
            .iter()
            .any(|(name, inner)| (name == "secret_id" && inner.as_str() == Some(id)) || names_secret(inner, id)),
        Value::Array(items) => items.iter().any(|inner| names_secret(inner, id)),
        _ => false,
    }
}

fn public_secret(world: &World, secret: &WorkspaceSecret) -> Value {
    let uses = uses_of_secret(world, &secret.id);
    let tools: Vec<Value> = uses.tools.iter().map(|tool| used_by(&tool.id, &tool.config["name"])).collect();
    let agents: Vec<Value> = uses.agents.iter().map(|agent| used_by(&agent.id, &agent.body["name"])).collect();
    json!({
        "type": "stored",
        "secret_id": secret.id,
        "name": secret.name,
        "used_by": {"tools": tools, "agents": agents, "phone_numbers": [], "mcp_servers": [], "others": []},
    })
}

fn used_by(id: &str, name: &Value) -> Value {
    json!({"type": "available", "id": id, "name": name, "created_at_unix_secs": 0, "access_level": "admin"})
}

fn conflict(code: &str, message: &str) -> Refusal {
    Refusal::new(StatusCode::CONFLICT, "conflict", code, message)
}

// --- tools ---

async fn create_tool(State(shared): Doors, body: Object) -> Answer {
    let config = checked_tool(&body)?;
    let tool = Tool { id: shared.name("tool"), config };
    let answer = public_tool(&tool);
    shared.change(|world| world.tools.push(tool));
    Ok(Json(answer))
}

async fn list_tools(State(shared): Doors, Query(pairs): Pairs) -> Answer {
    let prefix = query(&pairs, "search").unwrap_or_default().to_lowercase();
    let kinds: Vec<&str> = pairs.iter().filter(|(name, _)| name == "types").map(|(_, kind)| kind.as_str()).collect();
    let items = shared.look(|world| {
        let named = |tool: &&Tool| text(&tool.config, "name").to_lowercase().starts_with(&prefix);
        let of_kind = |tool: &&Tool| kinds.is_empty() || kinds.contains(&text(&tool.config, "type"));
        world.tools.iter().filter(named).filter(of_kind).map(public_tool).collect()
    });
    page("tools", items, &pairs)
}

async fn get_tool(State(shared): Doors, Path(id): Path<String>) -> Answer {
    let found = shared.look(|world| world.tool(&id).map(public_tool));
    found.map(Json).ok_or_else(|| Refusal::unknown("tool", &id))
}

async fn update_tool(State(shared): Doors, Path(id): Path<String>, body: Object) -> Answer {
    // PATCH replaces the whole configuration.
    let config = checked_tool(&body)?;
    shared.change(|world| {
        let tool = world.tools.iter_mut().find(|tool| tool.id == id);
        let tool = tool.ok_or_else(|| Refusal::unknown("tool", &id))?;
        tool.config = config;
        Ok(Json(public_tool(tool)))
    })
}

async fn delete_tool(State(shared): Doors, Path(id): Path<String>, Query(pairs): Pairs) -> Answer {
    shared.change(|world| {
        world.tool(&id).ok_or_else(|| Refusal::unknown("tool", &id))?;
        if world.agents.iter().any(|agent| uses_tool(agent, &id)) && !is_set(&pairs, "force") {
            return Err(conflict("tool_in_use", "The tool is still used by an agent"));
        }
        world.tools.retain(|tool| tool.id != id);
        Ok(Json(json!({})))
    })
}

async fn dependent_agents(State(shared): Doors, Path(id): Path<String>, Query(pairs): Pairs) -> Answer {
    let items = shared.look(|world| {
        let users = world.agents.iter().filter(|agent| uses_tool(agent, &id));
        users.map(|agent| used_by(&agent.id, &agent.body["name"])).collect()
    });
    page("agents", items, &pairs)
}

fn uses_tool(agent: &Agent, id: &str) -> bool {
    let ids = &agent.body["conversation_config"]["agent"]["prompt"]["tool_ids"];
    ids.as_array().is_some_and(|ids| ids.iter().any(|known| known.as_str() == Some(id)))
}

/// The rules of section 6.2 that a wrong provisioning would break; all else is kept as it came.
fn checked_tool(body: &Object) -> Answer<Value> {
    let config = body.object("tool_config")?.clone();
    let place = |field| ["body", "tool_config", field];
    for field in ["type", "name", "description"] {
        if !config[field].is_string() {
            return Err(Refusal::missing(&place(field)));
        }
    }
    let name = text(&config, "name");
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
    if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
        let rule = "String should match pattern '^[a-zA-Z0-9_-]{1,64}$'";
        return Err(Refusal::field(&place("name"), rule, "string_pattern_mismatch"));
    }
    if text(&config, "type") == "webhook" {
        check_webhook(&config)?;
    }
    Ok(config)
}

fn check_webhook(config: &Value) -> Answer<()> {
    let Some(url) = config["api_schema"]["url"].as_str() else {
        return Err(Refusal::missing(&["body", "tool_config", "api_schema", "url"]));
    };
    if !Url::parse(url).is_ok_and(|url| is_callable(&url)) {
        let place = ["body", "tool_config", "api_schema", "url"];
        return Err(Refusal::field(&place, "URL should be https", "url_scheme"));
    }
    match config.get("response_timeout_secs") {
        None | Some(Value::Null) => Ok(()),
        Some(seconds) if seconds.as_u64().is_some_and(|seconds| (5..=300).contains(&seconds)) => Ok(()),
        Some(_) => {
            let place = ["body", "tool_config", "response_timeout_secs"];
            Err(Refusal::field(&place, "Input should be 5 to 300", "value_error"))
        }
    }
}

fn public_tool(tool: &Tool) -> Value {
    json!({
        "id": tool.id,
        "tool_config": tool.config,
        "access_info": access(),
        "usage_stats": {"total_calls": 0, "avg_latency_secs": 0.0},
    })
}

fn access() -> Value {
    json!({
        "is_creator": true, "creator_name": "Sandbox", "creator_email": "sandbox@example.com", "role": "admin",
    })
}

/// A text field, or nothing.
pub(super) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

// --- agents ---

/// The parts of an agent that can be written.
const AGENT_FIELDS: [&str; 5] = ["name", "conversation_config", "platform_settings", "workflow", "tags"];

async fn create_agent(State(shared): Doors, body: Object) -> Answer {
    body.object("conversation_config")?;
    let mut kept = json!({"name": "New agent", "platform_settings": {}, "workflow": null, "tags": []});
    merge(&mut kept, &Value::Object(writable(&body)));
    let agent = Agent { id: shared.name("agent"), created: shared.around.now(), body: kept };
    let answer = json!({"agent_id": agent.id});
    shared.change(|world| world.agents.push(agent));
    Ok(Json(answer))
}

async fn list_agents(State(shared): Doors, Query(pairs): Pairs) -> Answer {
    let search = query(&pairs, "search").unwrap_or_default().to_lowercase();
    let items = shared.look(|world| {
        let found = world.agents.iter().filter(|agent| text(&agent.body, "name").to_lowercase().contains(&search));
        let shown = found.map(|agent| {
            json!({
                "agent_id": agent.id, "name": agent.body["name"], "tags": agent.body["tags"],
                "created_at_unix_secs": agent.created.unix_seconds(), "access_info": access(),
                "last_call_time_unix_secs": null, "archived": false,
            })
        });
        shown.collect()
    });
    page("agents", items, &pairs)
}

async fn get_agent(State(shared): Doors, Path(id): Path<String>) -> Answer {
    let found = shared.look(|world| world.agent(&id).map(public_agent));
    found.map(Json).ok_or_else(|| Refusal::unknown("agent", &id))
}

async fn update_agent(State(shared): Doors, Path(id): Path<String>, body: Object) -> Answer {
    shared.change(|world| {
        let agent = world.agents.iter_mut().find(|agent| agent.id == id);
        let agent = agent.ok_or_else(|| Refusal::unknown("agent", &id))?;
        merge(&mut agent.body, &Value::Object(writable(&body)));
        Ok(Json(public_agent(agent)))
    })
}

async fn delete_agent(State(shared): Doors, Path(id): Path<String>) -> Answer {
    shared.change(|world| {
        world.agent(&id).ok_or_else(|| Refusal::unknown("agent", &id))?;
        world.agents.retain(|agent| agent.id != id);
        world.scripts.remove(&id);
        Ok(Json(json!({})))
    })
}

fn writable(body: &Object) -> Map<String, Value> {
    let given = body.0.iter().filter(|(name, _)| AGENT_FIELDS.contains(&name.as_str()));
    given.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn public_agent(agent: &Agent) -> Value {
    let mut shown = agent.body.clone();
    shown["agent_id"] = json!(agent.id);
    shown["metadata"] = json!({
        "created_at_unix_secs": agent.created.unix_seconds(), "updated_at_unix_secs": agent.created.unix_seconds(),
    });
    shown["phone_numbers"] = json!([]);
    shown["access_info"] = access();
    shown
}

/// Writes `change` over `target`: objects field by field, everything else (lists too) whole.
pub(super) fn merge(target: &mut Value, change: &Value) {
    match (target, change) {
        (Value::Object(target), Value::Object(change)) => {
            for (name, value) in change {
                merge(target.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (target, change) => *target = change.clone(),
    }
}
