//! What a tool's answer becomes: assignments, the model's view, the transcript's view
//! (sections 6.3 and 6.4).

use serde_json::{Value, json};

use super::tools::{Reply, Unsent};
use super::variables::{Variables, at_path, keep_paths, redacted, remove_path, shown};
use crate::clock::Millis;

/// What the model is told when the answer is hidden, or when an error is.
const HIDDEN: &str = "Tool called.";
/// Words with which providers say "this token is no good" inside a 200.
const AUTH_WORDS: [&str; 5] = ["invalid_auth", "not_authed", "token_expired", "token_revoked", "UNAUTHENTICATED"];

/// A tool call and what came of it, by reader.
#[derive(Debug)]
pub(super) struct Outcome {
    pub status: Option<u16>,
    pub is_error: bool,
    pub is_blocked: bool,
    pub error_type: Option<&'static str>,
    /// What the model reads.
    pub for_model: String,
    /// `result_value` of the transcript: sanitized, but not filtered (`response_filter` promises
    /// something about the model only).
    pub for_transcript: String,
    /// `raw_error_message` of the transcript.
    pub raw_error: Option<String>,
    /// The answer as it came, for `agent_tool_response_full_payload`.
    pub verbatim: String,
    pub updates: Vec<Update>,
    pub latency_secs: f64,
}

/// A variable that a tool's answer changed.
#[derive(Debug)]
pub(super) struct Update {
    pub variable: String,
    pub old: Value,
    pub new: Value,
}

impl Update {
    /// An entry of `dynamic_variable_updates`.
    pub fn public(&self, tool_name: &str, request_id: &str, at: Millis) -> Value {
        json!({
            "variable_name": self.variable,
            "old_value": redacted(&self.variable, &self.old),
            "new_value": redacted(&self.variable, &self.new),
            "updated_at": at.unix_seconds(), "tool_name": tool_name, "tool_request_id": request_id,
        })
    }
}

impl Outcome {
    /// A call that did not go out.
    pub fn unsent(tool: &Value, unsent: &Unsent) -> Self {
        let mut outcome = Self::failed(tool, None, unsent.error_type, &unsent.message, "");
        outcome.is_blocked = unsent.blocked;
        if unsent.blocked {
            outcome.for_model.clone_from(&unsent.message);
        }
        outcome
    }

    /// Judges an answer. `variables` are changed by assignments unless `frozen`.
    pub fn of(tool: &Value, reply: Reply, variables: &mut Variables, frozen: bool) -> Self {
        let mut outcome = match (reply.status, reply.failure) {
            (Some(status), _) if (200..300).contains(&status) => {
                Self::succeeded(tool, status, &reply.body, variables, frozen)
            }
            (Some(status), _) => {
                Self::failed(tool, Some(status), error_type(status), &format!("HTTP status {status}"), &reply.body)
            }
            (None, failure) => {
                let (kind, message) = failure.unwrap_or(("unknown", "the call failed"));
                Self::failed(tool, None, kind, message, "")
            }
        };
        outcome.latency_secs = reply.latency.as_secs_f64();
        outcome
    }

    fn succeeded(tool: &Value, status: u16, body: &str, variables: &mut Variables, frozen: bool) -> Self {
        let parsed: Option<Value> = serde_json::from_str(body).ok().filter(Value::is_object);
        let mut kept = parsed.clone();
        let mut updates = Vec::new();
        if let (Some(answer), Some(kept)) = (&parsed, &mut kept) {
            for assignment in tool["assignments"].as_array().into_iter().flatten() {
                updates.extend(assign(assignment, answer, kept, variables, frozen));
            }
        }
        let for_transcript = kept.as_ref().map_or_else(|| body.to_owned(), Value::to_string);
        Self {
            status: Some(status),
            is_error: false,
            is_blocked: false,
            error_type: None,
            for_model: filtered(&tool["api_schema"]["response_filter"], kept.as_ref(), &for_transcript),
            for_transcript,
            raw_error: None,
            verbatim: body.to_owned(),
            updates,
            latency_secs: 0.0,
        }
    }

    fn failed(tool: &Value, status: Option<u16>, kind: &'static str, summary: &str, body: &str) -> Self {
        let raw = if body.is_empty() { summary.to_owned() } else { format!("{summary}: {body}") };
        let for_model = match tool["tool_error_handling_mode"].as_str() {
            Some("summarized") => format!("Tool failed: {summary} ({kind})"),
            Some("passthrough") => format!("Tool failed: {raw}"),
            // `auto` means `hide` for webhook tools: the model believes that all went well.
            _ => HIDDEN.to_owned(),
        };
        Self {
            status,
            is_error: true,
            is_blocked: false,
            error_type: Some(kind),
            for_transcript: for_model.clone(),
            for_model,
            raw_error: Some(raw),
            verbatim: body.to_owned(),
            updates: Vec::new(),
            latency_secs: 0.0,
        }
    }

    /// Whether the model, reading what it was given, would think of a refused token.
    pub fn looks_unauthorized(&self) -> bool {
        self.for_model.contains("HTTP status 401") || AUTH_WORDS.iter().any(|word| self.for_model.contains(word))
    }

    /// Whether the model knows that the call failed.
    pub fn is_visible_error(&self) -> bool {
        self.is_error && self.for_model != HIDDEN
    }

    /// The model's reading as JSON, when it is JSON.
    pub fn model_json(&self) -> Option<Value> {
        serde_json::from_str(&self.for_model).ok()
    }
}

fn assign(
    assignment: &Value,
    answer: &Value,
    kept: &mut Value,
    variables: &mut Variables,
    frozen: bool,
) -> Option<Update> {
    let (path, variable) = (assignment["value_path"].as_str()?, assignment["dynamic_variable"].as_str()?);
    let found = at_path(answer, path)?;
    if assignment["sanitize"].as_bool().unwrap_or(false) {
        remove_path(kept, path);
    }
    let native = assignment["preserve_native_type"].as_bool().unwrap_or(false);
    let new = if native { found.clone() } else { Value::from(shown(found)) };
    if frozen {
        return None;
    }
    let old = variables.insert(variable.to_owned(), new.clone()).unwrap_or(Value::Null);
    Some(Update { variable: variable.to_owned(), old, new })
}

fn filtered(filter: &Value, answer: Option<&Value>, otherwise: &str) -> String {
    match (filter["mode"].as_str(), answer) {
        (Some("hide_all"), _) | (Some("allow"), None) => HIDDEN.to_owned(),
        (Some("allow"), Some(answer)) => {
            let paths: Vec<&str> =
                filter["filters"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            keep_paths(answer, &paths).to_string()
        }
        _ => otherwise.to_owned(),
    }
}

/// The recorded `error_type` of a status. The vendor's exact map is unpublished.
fn error_type(status: u16) -> &'static str {
    match status {
        401 | 403 => "customer_auth",
        500.. => "external_server",
        _ => "external_client",
    }
}
