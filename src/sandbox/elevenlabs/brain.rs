//! The scripted model: it reads what a model would read, calls tools, and answers in a sentence.
//!
//! A user's text is understood in this order:
//! 1. `use tool <name> {json}` calls that tool with those arguments;
//! 2. `hang up` ends the conversation;
//! 3. the first script rule whose `when` occurs in the text (letter case aside). Rules come from
//!    `/sandbox/scripts`, then from `conversation_config.agent.prompt.x_sandbox_script`.
//!
//! A rule: `{"when", "tool", "args"?, "on_auth_error"?: name | {"tool", "args"?}, "say"?, "say_error"?}`
//! or, without a tool, `{"when", "say", "event"?, "payload"?}`: `event` is sent to the client first, if the agent lists
//! its type, with `payload` under its own name. In `say`, `{a.b.0.c}` is filled from the answer *as the
//! model was allowed to read it*; `{error}` in `say_error` is the error as it read it.

use serde_json::{Map, Value, json};

use super::results::Outcome;
use super::shelves::text as field;
use super::sinks::ToolRequest;
use super::socket::Line;
use super::start::Call;
use super::tools::{Inputs, Prepared, Unsent, send};
use super::variables::{at_path, render, shown};

/// Characters of a tool's answer that the default sentence repeats.
const QUOTED: usize = 300;

/// Whether the conversation goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Listen,
    HangUp,
}

/// Something to do with a tool, and what to say after it.
struct Step {
    tool: String,
    args: Map<String, Value>,
    on_auth_error: Option<(String, Map<String, Value>)>,
    say: Option<String>,
    say_error: Option<String>,
}

/// What the model decided.
enum Plan {
    Say(String),
    Send { event: String, payload: Value, say: String },
    HangUp,
    Use(Step),
}

/// Gives the model its tools and its prompt.
pub(super) fn greet(call: &mut Call) {
    let tools = call.tools.iter().map(|tool| as_model_knows(&tool.config)).collect();
    call.shared.change(|world| world.sinks.write(&call.id, |record| record.set_tools(tools)));
    read_prompt(call);
}

/// Says `text` to the user.
pub(super) async fn speak(call: &mut Call, line: &mut Line, text: &str) {
    let now = call.shared.around.now();
    call.agent_turns += 1;
    call.shared.change(|world| world.sinks.write(&call.id, |record| record.say("agent", text, now)));
    let event_id = line.event_id();
    let event = json!({"agent_response": text, "event_id": event_id});
    line.emit("agent_response", "agent_response_event", event).await;
}

/// Hears the user and answers.
pub(super) async fn hear(call: &mut Call, line: &mut Line, text: &str) -> Next {
    let now = call.shared.around.now();
    read_prompt(call);
    call.shared.change(|world| world.sinks.write(&call.id, |record| record.say("user", text, now)));
    match plan(call, text) {
        Plan::Say(answer) => speak(call, line, &answer).await,
        Plan::Send { event, payload, say } => {
            line.emit(&event, &event, payload).await;
            speak(call, line, &say).await;
        }
        Plan::Use(step) => {
            let answer = carry_out(call, line, &step).await;
            speak(call, line, &answer).await;
        }
        Plan::HangUp => {
            speak(call, line, "Goodbye.").await;
            return Next::HangUp;
        }
    }
    Next::Listen
}

fn read_prompt(call: &Call) {
    let prompt = field(&call.config["agent"]["prompt"], "prompt");
    let prompt = render(prompt, &call.all_variables());
    call.shared.change(|world| world.sinks.write(&call.id, |record| record.prompt(prompt)));
}

fn plan(call: &Call, text: &str) -> Plan {
    if let Some(rest) = text.trim().strip_prefix("use tool ") {
        let (tool, args) = rest.trim().split_once(char::is_whitespace).unwrap_or((rest.trim(), "{}"));
        return match serde_json::from_str(args) {
            Ok(Value::Object(args)) => {
                Plan::Use(Step { tool: tool.to_owned(), args, on_auth_error: None, say: None, say_error: None })
            }
            _ => Plan::Say("I could not read the arguments: they must be a JSON object.".to_owned()),
        };
    }
    let lower = text.to_lowercase();
    if lower.trim() == "hang up" {
        return Plan::HangUp;
    }
    let set = call.shared.look(|world| world.scripts.get(&call.agent_id).cloned()).unwrap_or_default();
    let own = call.config["agent"]["prompt"]["x_sandbox_script"].as_array();
    let mut rules = set.iter().chain(own.into_iter().flatten());
    let rule = rules.find(|rule| rule["when"].as_str().is_some_and(|when| lower.contains(&when.to_lowercase())));
    match rule {
        Some(rule) => from_rule(rule),
        None => Plan::Say(format!("You said: {text}")),
    }
}

fn from_rule(rule: &Value) -> Plan {
    let owned = |name: &str| rule[name].as_str().map(str::to_owned);
    let args = |holder: &Value| holder["args"].as_object().cloned().unwrap_or_default();
    let Some(tool) = owned("tool") else {
        let say = owned("say").unwrap_or_default();
        return match owned("event") {
            Some(event) => Plan::Send { event, payload: rule["payload"].clone(), say },
            None => Plan::Say(say),
        };
    };
    let on_auth_error = match &rule["on_auth_error"] {
        Value::String(name) => Some((name.clone(), Map::new())),
        refresh => refresh["tool"].as_str().map(|name| (name.to_owned(), args(refresh))),
    };
    Plan::Use(Step { tool, args: args(rule), on_auth_error, say: owned("say"), say_error: owned("say_error") })
}

/// Uses the tool, with one refresh and one repetition when the model reads "unauthorized".
async fn carry_out(call: &mut Call, line: &mut Line, step: &Step) -> String {
    let mut outcome = use_tool(call, line, &step.tool, &step.args).await;
    if let Some((refresh, args)) = step.on_auth_error.as_ref().filter(|_| outcome.looks_unauthorized()) {
        let refreshed = use_tool(call, line, refresh, args).await;
        let answer = refreshed.model_json().unwrap_or_default();
        // `reauth_required` and `retry` are there to be spoken of, not to be tried against.
        if answer["status"].as_str().is_some_and(|status| status != "ok") {
            let message = answer["message"].as_str().unwrap_or(field(&answer, "status"));
            return message.to_owned();
        }
        if refreshed.is_visible_error() {
            return sentence(refresh, None, step.say_error.as_deref(), &refreshed);
        }
        outcome = use_tool(call, line, &step.tool, &step.args).await;
    }
    sentence(&step.tool, step.say.as_deref(), step.say_error.as_deref(), &outcome)
}

/// What the agent says, from the model's reading alone.
fn sentence(tool: &str, say: Option<&str>, say_error: Option<&str>, outcome: &Outcome) -> String {
    let failed = outcome.is_visible_error() || outcome.looks_unauthorized();
    let quoted: String = outcome.for_model.chars().take(QUOTED).collect();
    match (failed, say, say_error) {
        (true, _, Some(template)) => template.replace("{error}", &quoted),
        (true, _, None) => format!("{tool}: error. {quoted}"),
        (false, Some(template), _) => fill(template, &outcome.model_json().unwrap_or_default()),
        (false, None, _) => format!("{tool}: ok. {quoted}"),
    }
}

/// Fills `{dot.path}` from `answer`; what is not there reads "unknown".
fn fill(template: &str, answer: &Value) -> String {
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((path, tail)) = after.split_once('}') else { break };
        filled.push_str(before);
        filled.push_str(&at_path(answer, path).map_or_else(|| "unknown".to_owned(), shown));
        rest = tail;
    }
    filled + rest
}

async fn use_tool(call: &mut Call, line: &mut Line, name: &str, args: &Map<String, Value>) -> Outcome {
    let known = call.tools.iter().find(|tool| tool.config["name"] == name);
    let tool = known.map(|tool| tool.config.clone()).unwrap_or_default();
    let request = ToolRequest {
        id: call.shared.name("toolcall"),
        tool: name.to_owned(),
        tool_id: known.and_then(|tool| tool.id.clone()),
        params: Value::Object(args.clone()).to_string(),
    };
    let event_id = line.event_id();
    let named = json!({
        "tool_name": name, "tool_call_id": request.id, "tool_type": "webhook", "event_id": event_id,
    });
    line.emit("agent_tool_request", "agent_tool_request", named.clone()).await;

    let prepared = prepare(call, &tool, args);
    note_call(call, &request, prepared.as_ref());
    let outcome = match prepared {
        Ok(prepared) => {
            let fingerprints = prepared.fingerprints.clone();
            let reply = send(&call.shared.client, prepared).await;
            let frozen = call.shared.look(|world| world.has_fault("refresh_tool"));
            let outcome = Outcome::of(&tool, reply, &mut call.variables, frozen);
            log_call(call, &request, &tool, &outcome, fingerprints);
            outcome
        }
        Err(unsent) => {
            let outcome = Outcome::unsent(&tool, &unsent);
            log_call(call, &request, &tool, &outcome, Value::Null);
            outcome
        }
    };
    let now = call.shared.around.now();
    call.shared.change(|world| world.sinks.write(&call.id, |record| record.result(&request, &outcome, now)));
    report(line, named, &outcome).await;
    outcome
}

fn prepare(call: &Call, tool: &Value, args: &Map<String, Value>) -> Result<Prepared, Unsent> {
    if tool.is_null() {
        return Err(Unsent::wrong("there is no such tool"));
    }
    if tool["type"] != "webhook" {
        return Err(Unsent::wrong("the stand-in calls webhook tools only"));
    }
    let secret = |id: &str| call.shared.look(|world| world.secret(id).map(|secret| secret.value.expose().to_owned()));
    Inputs { tool, args, variables: &call.all_variables(), secret: &secret }.prepare()
}

fn note_call(call: &Call, request: &ToolRequest, prepared: Result<&Prepared, &Unsent>) {
    let now = call.shared.around.now();
    let details = prepared.map_or(Value::Null, |prepared| prepared.details.clone());
    let called = prepared.is_ok();
    call.shared.change(|world| {
        world.counters.tool_calls += u64::from(called);
        world.sinks.write(&call.id, |record| record.call(request, called, details, now));
    });
}

fn log_call(call: &Call, request: &ToolRequest, tool: &Value, outcome: &Outcome, headers: Value) {
    let assigned: Vec<&str> = outcome.updates.iter().map(|update| update.variable.as_str()).collect();
    let entry = json!({
        "at": call.shared.around.now().rfc3339(), "conversation_id": call.id, "tool_call_id": request.id,
        "tool": request.tool, "url": tool["api_schema"]["url"], "status": outcome.status,
        "is_error": outcome.is_error, "is_blocked": outcome.is_blocked, "error_type": outcome.error_type,
        "headers": headers, "assigned": assigned,
    });
    call.shared.change(|world| world.sinks.tool_calls.push(entry));
}

async fn report(line: &mut Line, named: Value, outcome: &Outcome) {
    let status = match (outcome.is_blocked, outcome.is_error) {
        (true, _) => "blocked",
        (false, true) => "error",
        (false, false) => "success",
    };
    let mut event = named;
    event["is_error"] = json!(outcome.is_error);
    event["is_blocked"] = json!(outcome.is_blocked);
    event["is_called"] = json!(outcome.status.is_some());
    line.emit("agent_tool_response", "agent_tool_response", {
        let mut event = event.clone();
        event["status"] = json!(status);
        event
    })
    .await;
    // "Forwarded verbatim", says the schema; that `sanitize` applies is promised nowhere.
    event["full_tool_result"] = json!(outcome.verbatim);
    event["truncated"] = json!(false);
    line.emit("agent_tool_response_full_payload", "agent_tool_response_full_payload", event).await;
}

/// A tool as the model knows it: no URL, no headers, only what it may fill in.
fn as_model_knows(tool: &Value) -> Value {
    let schema = &tool["api_schema"];
    let mut parameters = filled_by_model(&json!({"properties": schema["path_params_schema"]}));
    parameters.extend(filled_by_model(&schema["query_params_schema"]));
    parameters.extend(filled_by_model(&schema["request_body_schema"]));
    json!({"name": tool["name"], "description": tool["description"], "parameters": parameters})
}

fn filled_by_model(schema: &Value) -> Map<String, Value> {
    let by_model = |literal: &Value| {
        let set = |name: &str| match &literal[name] {
            Value::Null | Value::Bool(false) => false,
            Value::String(text) => !text.is_empty(),
            _ => true,
        };
        !["dynamic_variable", "constant_value", "is_system_provided", "is_omitted"].into_iter().any(set)
    };
    let properties = schema["properties"].as_object().into_iter().flatten().filter(|(_, literal)| by_model(literal));
    properties
        .filter_map(|(name, literal)| {
            let mut known = json!({"type": literal["type"], "description": literal["description"]});
            if literal["type"] == "object" {
                let inner = filled_by_model(literal);
                // Only constants and variables inside: nothing for the model to do.
                if inner.is_empty() {
                    return None;
                }
                known["properties"] = Value::Object(inner);
            }
            if literal["enum"].is_array() {
                known["enum"] = literal["enum"].clone();
            }
            Some((name.clone(), known))
        })
        .collect()
}
