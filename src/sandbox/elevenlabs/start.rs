//! What has to hold before a conversation begins: the signature, the overrides, the variables.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::calls::needs_auth;
use super::rest::{check_key, query};
use super::shelves::{merge, text};
use super::sinks::{Ending, Start};
use super::variables::{Variables, is_system, missing, placeholders};
use super::world::Shared;
use crate::clock::Millis;

/// The longest conversation when the agent says nothing else (section 2.6).
const DEFAULT_DURATION: u64 = 600;

/// Who opened the socket, and for which conversation.
pub(super) struct Admission {
    pub agent_id: String,
    pub conversation_id: String,
    method: &'static str,
}

/// Checks the signature of a start and uses it up when it is for one conversation only.
///
/// # Errors
/// What the close frame says: an unknown agent, or a signature that is wrong, used or expired.
pub(super) fn admit(shared: &Shared, pairs: &[(String, String)], headers: &HeaderMap) -> Result<Admission, String> {
    let agent_id = query(pairs, "agent_id").ok_or("agent_id is required")?.to_owned();
    let locked = shared.look(|world| world.agent(&agent_id).map(|agent| needs_auth(&agent.body)));
    let locked = locked.ok_or("The AI agent you are trying to reach does not exist.")?;
    let fresh = shared.name("conv");
    let Some(signature) = query(pairs, "conversation_signature") else {
        let keyed = check_key(shared, headers).is_ok();
        let method = if keyed { "authorization_header" } else { "public" };
        if locked && !keyed {
            return Err("The agent requires authorization.".to_owned());
        }
        return Ok(Admission { agent_id, conversation_id: fresh, method });
    };
    let now = shared.around.now();
    shared.change(|world| {
        let signed = world.signatures.get_mut(signature).filter(|signed| signed.agent_id == agent_id);
        let signed = signed.ok_or("Invalid conversation signature.")?;
        if now >= signed.expires {
            return Err("The conversation signature has expired.".to_owned());
        }
        let Some(named) = signed.conversation_id.clone() else {
            return Ok(Admission { agent_id, conversation_id: fresh, method: "signed_url" });
        };
        if std::mem::replace(&mut signed.used, true) {
            return Err("The conversation signature was already used.".to_owned());
        }
        if query(pairs, "conversation_id").is_some_and(|given| given != named) {
            return Err("The conversation signature is for another conversation.".to_owned());
        }
        Ok(Admission { agent_id, conversation_id: named, method: "signed_url" })
    })
}

/// A start that was refused: what the `error` frame and the close frame say.
pub(super) struct Refused {
    pub code: u16,
    pub error_type: &'static str,
    pub message: String,
}

impl Refused {
    /// 1008: the client broke the contract.
    pub fn contract(error_type: &'static str, message: String) -> Self {
        Self { code: 1008, error_type, message }
    }
}

/// A tool of the conversation; inline tools have no id.
pub(super) struct CallTool {
    pub id: Option<String>,
    pub config: Value,
}

/// A running conversation.
pub(super) struct Call {
    pub shared: Arc<Shared>,
    pub id: String,
    pub agent_id: String,
    /// `conversation_config` after overrides.
    pub config: Value,
    pub tools: Vec<CallTool>,
    /// Without system variables; [`Call::all_variables`] has them.
    pub variables: Variables,
    pub agent_turns: u32,
    started: Millis,
}

impl Call {
    /// Checks the initiation frame and opens the record.
    pub fn begin(shared: Arc<Shared>, admission: Admission, frame: Value) -> Result<Self, Refused> {
        let now = shared.around.now();
        let (body, refuse) = shared.look(|world| {
            let body = world.agent(&admission.agent_id).map(|agent| agent.body.clone());
            (body.unwrap_or_default(), world.has_fault("refuse_start"))
        });
        let mut config = body["conversation_config"].clone();
        let overrides = overridden(&body, &frame, &mut config);
        let tools = tools_of(&shared, &config);
        let configs: Vec<Value> = tools.iter().map(|tool| tool.config.clone()).collect();

        let mut variables = placeholders(&config, &configs);
        let given = frame["dynamic_variables"].as_object().into_iter().flatten();
        variables.extend(given.filter(|(name, _)| !is_system(name)).map(|(name, value)| (name.clone(), value.clone())));
        let start = Start {
            id: admission.conversation_id.clone(),
            agent_id: admission.agent_id.clone(),
            authorization_method: admission.method,
            frame,
            variables: variables.clone(),
        };
        shared.change(|world| world.sinks.records.push(super::sinks::Record::new(start, now)));

        let complaint = missing(&config, &configs, &variables);
        let refused = match (refuse, overrides, complaint) {
            (true, ..) => {
                Some(Refused { code: 1011, error_type: "unknown", message: "An internal error occurred.".to_owned() })
            }
            (_, Err(refused), _) => Some(refused),
            (.., Some(message)) => Some(Refused::contract("missing_dynamic_variable", message)),
            _ => None,
        };
        if let Some(refused) = refused {
            let error = Some((refused.code, refused.message.clone()));
            let ending = Ending { reason: refused.error_type.to_owned(), error };
            shared.change(|world| world.sinks.finish(&admission.conversation_id, ending, now));
            return Err(refused);
        }
        shared.change(|world| world.counters.conversations_started += 1);
        let Admission { agent_id, conversation_id: id, .. } = admission;
        Ok(Self { shared, id, agent_id, config, tools, variables, agent_turns: 0, started: now })
    }

    /// How long this conversation may last.
    pub fn limit(&self) -> Duration {
        let seconds = self.config["conversation"]["max_duration_seconds"].as_u64();
        Duration::from_secs(seconds.unwrap_or(DEFAULT_DURATION))
    }

    /// The variables as a tool call or a template sees them now.
    pub fn all_variables(&self) -> Variables {
        let now = self.shared.around.now();
        let system = [
            ("system__agent_id", json!(self.agent_id)),
            ("system__current_agent_id", json!(self.agent_id)),
            ("system__conversation_id", json!(self.id)),
            ("system__call_duration_secs", json!(now.left(self.started).as_secs())),
            ("system__time_utc", json!(now.rfc3339())),
            ("system__time", json!(now.rfc3339())),
            ("system__timezone", json!("UTC")),
            ("system__agent_turns", json!(self.agent_turns)),
            ("system__current_agent_turns", json!(self.agent_turns)),
            ("system__is_text_only", json!(true)),
        ];
        let mut all = self.variables.clone();
        all.extend(system.into_iter().map(|(name, value)| (name.to_owned(), value)));
        all
    }
}

fn tools_of(shared: &Shared, config: &Value) -> Vec<CallTool> {
    let prompt = &config["agent"]["prompt"];
    let ids = prompt["tool_ids"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let stored = shared.look(|world| {
        let found = ids.filter_map(|id| world.tool(id));
        found.map(|tool| CallTool { id: Some(tool.id.clone()), config: tool.config.clone() }).collect::<Vec<_>>()
    });
    // Deprecated, still accepted: tools written into the agent.
    let inline = prompt["tools"].as_array().into_iter().flatten();
    let inline = inline.map(|config| CallTool { id: None, config: config.clone() });
    stored.into_iter().chain(inline).filter(|tool| !text(&tool.config, "name").is_empty()).collect()
}

/// Applies the frame's overrides; each field must be switched on in the agent (section 2.5).
fn overridden(body: &Value, frame: &Value, config: &mut Value) -> Result<(), Refused> {
    let allowed = &body["platform_settings"]["overrides"];
    let parts = ["conversation_config_override", "custom_llm_extra_body"];
    let forbidden = parts.into_iter().find_map(|part| first_forbidden(&allowed[part], &frame[part], part));
    if let Some(path) = forbidden {
        let message = format!("Override for field '{path}' is not allowed by config.");
        return Err(Refused::contract("override_error", message));
    }
    if frame["conversation_config_override"].is_object() {
        merge(config, &frame["conversation_config_override"]);
    }
    Ok(())
}

fn first_forbidden(allowed: &Value, given: &Value, path: &str) -> Option<String> {
    match (allowed, given) {
        (Value::Bool(true), _) | (_, Value::Null) => None,
        (_, Value::Object(fields)) => {
            fields.iter().find_map(|(name, inner)| first_forbidden(&allowed[name], inner, &format!("{path}.{name}")))
        }
        _ => Some(path.to_owned()),
    }
}
