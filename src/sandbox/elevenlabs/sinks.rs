//! Every word, kept by who can read it.
//!
//! A leak scanner searches `model_view`, `transcript`, `post_call` and `client_events`. `received`
//! holds initiation frames as they came, secrets included: it proves what was handed over.

use serde_json::{Value, json};

use super::results::Outcome;
use super::tools::fingerprint;
use super::variables::{Variables, is_secret, redacted_all, shown};
use crate::clock::Millis;

/// All sinks of the workspace.
#[derive(Default)]
pub(super) struct Sinks {
    pub records: Vec<Record>,
    pub post_call: Vec<Value>,
    pub client_events: Vec<Value>,
    pub received: Vec<Value>,
    /// For the control panel; values are fingerprints.
    pub tool_calls: Vec<Value>,
}

impl Sinks {
    pub fn record(&self, id: &str) -> Option<&Record> {
        self.records.iter().find(|record| record.id == id)
    }

    /// Writes to a conversation; does nothing when a reset has forgotten it.
    pub fn write(&mut self, id: &str, change: impl FnOnce(&mut Record)) {
        if let Some(record) = self.records.iter_mut().find(|record| record.id == id) {
            change(record);
        }
    }

    /// Keeps an initiation frame with fingerprints of its secret variables.
    pub fn receive(&mut self, conversation_id: &str, frame: &Value) {
        let given = frame["dynamic_variables"].as_object().into_iter().flatten();
        let prints: Value = given
            .filter(|(name, _)| is_secret(name))
            .map(|(name, value)| (name.clone(), Value::from(fingerprint(&shown(value)))))
            .collect();
        self.received.push(json!({"conversation_id": conversation_id, "frame": frame, "fingerprints": prints}));
    }

    /// Ends a conversation and writes its post-call payload (section 11.2).
    pub fn finish(&mut self, id: &str, ending: Ending, now: Millis) {
        let Some(record) = self.records.iter_mut().find(|record| record.id == id) else { return };
        record.ended = Some(now);
        record.status = if ending.error.is_some() { "failed" } else { "done" };
        record.termination_reason = ending.reason;
        record.error = ending.error;
        let data = record.public(now);
        let event = json!({"type": "post_call_transcription", "event_timestamp": now.unix_seconds(), "data": data});
        self.post_call.push(event);
    }

    /// As `GET /sandbox/sinks` answers them.
    pub fn public(&self, now: Millis) -> Value {
        let transcript: Vec<Value> = self.records.iter().map(|record| record.public(now)).collect();
        let model_view: Vec<Value> = self.records.iter().map(Record::model_view).collect();
        json!({
            "model_view": model_view,
            "transcript": transcript,
            "post_call": self.post_call,
            "client_events": self.client_events,
            "received": self.received,
        })
    }
}

/// How a conversation ended.
pub(super) struct Ending {
    pub reason: String,
    /// Close code and reason, when it failed.
    pub error: Option<(u16, String)>,
}

/// One conversation as the platform keeps it.
pub(super) struct Record {
    pub id: String,
    pub agent_id: String,
    pub user_id: Option<String>,
    pub started: Millis,
    pub authorization_method: &'static str,
    /// Start values: supplied ones over placeholders.
    pub variables: Variables,
    /// The rest of the initiation frame.
    pub initiation: Value,
    status: &'static str,
    ended: Option<Millis>,
    termination_reason: String,
    error: Option<(u16, String)>,
    transcript: Vec<Value>,
    model: ModelView,
}

/// What the model was given to read.
#[derive(Default)]
struct ModelView {
    /// The system prompt, again whenever a variable changed it.
    system_prompts: Vec<String>,
    tools: Vec<Value>,
    messages: Vec<Value>,
}

/// What a new record is made of.
pub(super) struct Start {
    pub id: String,
    pub agent_id: String,
    pub authorization_method: &'static str,
    pub frame: Value,
    pub variables: Variables,
}

impl Record {
    pub fn new(start: Start, now: Millis) -> Self {
        let mut initiation = start.frame;
        if let Some(fields) = initiation.as_object_mut() {
            fields.remove("type");
            fields.remove("dynamic_variables");
        }
        Self {
            id: start.id,
            agent_id: start.agent_id,
            user_id: initiation["user_id"].as_str().map(str::to_owned),
            started: now,
            authorization_method: start.authorization_method,
            variables: start.variables,
            initiation,
            status: "in-progress",
            ended: None,
            termination_reason: String::new(),
            error: None,
            transcript: Vec::new(),
            model: ModelView::default(),
        }
    }

    /// The tools as the model knows them.
    pub fn set_tools(&mut self, tools: Vec<Value>) {
        self.model.tools = tools;
    }

    /// The prompt as it now reads.
    pub fn prompt(&mut self, prompt: String) {
        if self.model.system_prompts.last() != Some(&prompt) {
            self.model.system_prompts.push(prompt);
        }
    }

    /// Something the model reads and nobody else keeps.
    pub fn context(&mut self, text: &str) {
        self.model.messages.push(json!({"role": "system", "content": text}));
    }

    /// A spoken or typed turn of `user` or `agent`.
    pub fn say(&mut self, role: &str, text: &str, now: Millis) {
        let model_role = if role == "agent" { "assistant" } else { "user" };
        self.model.messages.push(json!({"role": model_role, "content": text}));
        self.turn(role, json!({"message": text}), now);
    }

    /// The model asks for a tool. `details` is null when the request could not be built.
    pub fn call(&mut self, request: &ToolRequest, called: bool, details: Value, now: Millis) {
        self.model.messages.push(json!({
            "role": "assistant", "tool_call": {"id": request.id, "name": request.tool, "arguments": request.params},
        }));
        let call = json!({
            "type": "webhook", "request_id": request.id, "tool_name": request.tool, "tool_id": request.tool_id,
            "params_as_json": request.params, "tool_has_been_called": called, "tool_details": details,
        });
        self.turn("agent", json!({"tool_calls": [call]}), now);
    }

    /// The tool has answered.
    pub fn result(&mut self, request: &ToolRequest, outcome: &Outcome, now: Millis) {
        self.model.messages.push(json!({
            "role": "tool", "tool_call_id": request.id, "name": request.tool, "content": outcome.for_model,
        }));
        let updates: Vec<Value> =
            outcome.updates.iter().map(|update| update.public(&request.tool, &request.id, now)).collect();
        let result = json!({
            "type": "webhook", "request_id": request.id, "tool_name": request.tool,
            "result_value": outcome.for_transcript, "is_error": outcome.is_error, "is_blocked": outcome.is_blocked,
            "tool_has_been_called": outcome.status.is_some(), "tool_latency_secs": outcome.latency_secs,
            "error_type": outcome.error_type, "raw_error_message": outcome.raw_error,
            "dynamic_variable_updates": updates,
        });
        self.turn("agent", json!({"tool_results": [result]}), now);
    }

    fn turn(&mut self, role: &str, parts: Value, now: Millis) {
        let mut turn = json!({
            "role": role, "message": null, "tool_calls": [], "tool_results": [], "interrupted": false,
            "time_in_call_secs": self.seconds_in(now),
        });
        if let (Some(turn), Value::Object(parts)) = (turn.as_object_mut(), parts) {
            turn.extend(parts);
        }
        self.transcript.push(turn);
    }

    fn seconds_in(&self, now: Millis) -> u64 {
        now.left(self.started).as_secs()
    }

    /// The conversation as `GET …/conversations/{id}` answers it (section 12.2).
    pub fn public(&self, now: Millis) -> Value {
        let mut initiation = self.initiation.clone();
        initiation["dynamic_variables"] = redacted_all(&self.variables);
        let error = self.error.as_ref().map(|(code, reason)| json!({"code": code, "reason": reason}));
        json!({
            "agent_id": self.agent_id, "conversation_id": self.id, "status": self.status, "user_id": self.user_id,
            "transcript": self.transcript,
            "metadata": {
                "start_time_unix_secs": self.started.unix_seconds(),
                "call_duration_secs": self.seconds_in(self.ended.unwrap_or(now)),
                "cost": 0, "authorization_method": self.authorization_method,
                "termination_reason": self.termination_reason, "error": error, "warnings": [],
            },
            "analysis": null,
            "conversation_initiation_client_data": initiation,
            "has_audio": false, "has_user_audio": false, "has_response_audio": false,
        })
    }

    /// A row of `GET …/conversations`.
    pub fn summary(&self, agent_name: Value, now: Millis) -> Value {
        json!({
            "agent_id": self.agent_id, "agent_name": agent_name, "conversation_id": self.id,
            "start_time_unix_secs": self.started.unix_seconds(),
            "call_duration_secs": self.seconds_in(self.ended.unwrap_or(now)),
            "message_count": self.transcript.len(), "status": self.status, "call_successful": "unknown",
            "user_id": self.user_id, "termination_reason": self.termination_reason,
        })
    }

    fn model_view(&self) -> Value {
        json!({
            "conversation_id": self.id, "system_prompts": self.model.system_prompts,
            "tools": self.model.tools, "messages": self.model.messages,
        })
    }
}

/// A tool call as the model asked for it.
pub(super) struct ToolRequest {
    pub id: String,
    pub tool: String,
    pub tool_id: Option<String>,
    /// The arguments the model filled in, as JSON text.
    pub params: String,
}
