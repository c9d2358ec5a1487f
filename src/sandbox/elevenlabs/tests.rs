//! The stand-in from outside: REST with a key, a WebSocket client, a tool endpoint on loopback.

#![expect(clippy::disallowed_methods, reason = "the tests play platform and browser, not the house")]

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::ElevenLabs;
use crate::clock::{Millis, SeededEntropy, Surroundings, TestClock, deadline};

const OLD: &str = "Bearer ya29.vkcanary-old";
const NEW: &str = "Bearer ya29.vkcanary-new";

struct Stage {
    eleven: ElevenLabs,
    clock: TestClock,
    rest: reqwest::Client,
    /// Base of the tool endpoint, and the `authorization` values it has seen.
    tools: String,
    seen: Arc<Mutex<Vec<(String, HeaderMap, String)>>>,
}

/// `/calendar` wants the new token; `/refresh` gives it; `/echo` answers what it was sent.
async fn tool_endpoint() -> (String, Arc<Mutex<Vec<(String, HeaderMap, String)>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    let answer = async move |uri: Uri, headers: HeaderMap, body: String| -> Response {
        kept.lock().expect("lock").push((uri.to_string(), headers.clone(), body.clone()));
        match uri.path() {
            "/calendar" if headers.get("authorization").is_some_and(|value| value == NEW) => {
                Json(json!({"items": [{"summary": "Dentist"}]})).into_response()
            }
            "/calendar" => (StatusCode::UNAUTHORIZED, "token expired").into_response(),
            "/refresh" => Json(json!({"status": "ok", "authorization": NEW, "expires_in": 3599})).into_response(),
            "/reauth" => Json(json!({"status": "reauth_required", "message": "Please connect again."})).into_response(),
            "/moved" => (StatusCode::FOUND, [("location", "/echo")]).into_response(),
            _ => Json(json!({"uri": uri.to_string(), "body": body})).into_response(),
        }
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
    (base, seen)
}

impl Stage {
    async fn set() -> Self {
        let clock = TestClock::at(Millis(1_790_000_000_000));
        let entropy = Arc::new(SeededEntropy::new(11));
        let around = Surroundings { clock: Arc::new(clock.clone()), entropy };
        let eleven = ElevenLabs::start(around).await.expect("starts");
        let (tools, seen) = tool_endpoint().await;
        Self { eleven, clock, rest: super::tools::client().expect("a client"), tools, seen }
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let method = method.parse::<reqwest::Method>().expect("a method");
        let url = self.eleven.base.join(path).expect("a path");
        let mut request = self.rest.request(method, url).header("xi-api-key", self.eleven.api_key());
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.expect("answers");
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or_default())
    }

    async fn ok(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.call(method, path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    async fn tool(&self, config: Value) -> String {
        let answer = self.ok("POST", "v1/convai/tools", Some(json!({"tool_config": config}))).await;
        answer["id"].as_str().expect("an id").to_owned()
    }

    async fn agent(&self, config: Value) -> String {
        let body = json!({"name": "Helper", "conversation_config": config});
        let answer = self.ok("POST", "v1/convai/agents/create", Some(body)).await;
        answer["agent_id"].as_str().expect("an id").to_owned()
    }

    /// The consumer tool: a whole `Authorization` header from a secret variable.
    async fn calendar(&self, more: Value) -> String {
        let mut config = json!({
            "type": "webhook", "name": "calendar_list", "description": "Lists events",
            "tool_error_handling_mode": "summarized",
            "api_schema": {
                "url": format!("{}/calendar", self.tools), "method": "GET",
                "request_headers": {"Authorization": {"variable_name": "secret__user_google_authorization"}},
            },
        });
        super::shelves::merge(&mut config, &more);
        self.tool(config).await
    }

    /// The refresh tool, sanitized or not, into `target`.
    async fn refresh(&self, target: &str, sanitize: bool) -> String {
        self.tool(json!({
            "type": "webhook", "name": "refresh_google", "description": "Gets a fresh token",
            "tool_error_handling_mode": "summarized",
            "assignments": [{
                "source": "response", "dynamic_variable": target, "value_path": "authorization", "sanitize": sanitize,
            }],
            "dynamic_variables": {"dynamic_variable_placeholders": {target: "none"}},
            "api_schema": {
                "url": format!("{}/refresh", self.tools), "method": "POST",
                "request_body_schema": {
                    "type": "object", "properties": {"provider": {"type": "string", "constant_value": "google"}},
                },
            },
        }))
        .await
    }

    async fn signed_url(&self, agent: &str, extra: &str) -> String {
        let path = format!("v1/convai/conversation/get-signed-url?agent_id={agent}{extra}");
        self.ok("GET", &path, None).await["signed_url"].as_str().expect("a URL").to_owned()
    }

    /// Opens a socket and sends the initiation frame with these variables.
    async fn start(&self, agent: &str, variables: Value) -> Client {
        let url = self.signed_url(agent, "&include_conversation_id=true").await;
        let mut client = Client::dial(&url).await;
        client.begin(variables).await;
        client
    }

    fn leaks(&self, canary: &str) -> Vec<&'static str> {
        let sinks = self.eleven.sinks();
        let places = ["model_view", "transcript", "post_call", "client_events"];
        places.into_iter().filter(|place| sinks[place].to_string().contains(canary)).collect()
    }
}

struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    async fn dial(url: &str) -> Self {
        Self(connect_async(url).await.expect("upgrades").0)
    }

    async fn send(&mut self, frame: Value) {
        self.0.send(Message::Text(frame.to_string().into())).await.expect("sent");
    }

    async fn begin(&mut self, variables: Value) {
        self.send(json!({"type": "conversation_initiation_client_data", "dynamic_variables": variables})).await;
    }

    async fn next(&mut self) -> Message {
        let next = deadline(Duration::from_secs(10), self.0.next()).await.expect("in time");
        next.expect("still open").expect("a frame")
    }

    async fn event(&mut self) -> Value {
        match self.next().await {
            Message::Text(text) => serde_json::from_str(&text).expect("JSON"),
            other => panic!("not an event: {other:?}"),
        }
    }

    /// Waits for an event of this type.
    async fn event_of(&mut self, kind: &str) -> Value {
        loop {
            let event = self.event().await;
            if event["type"] == kind {
                return event;
            }
        }
    }

    async fn closed_with(&mut self) -> u16 {
        loop {
            if let Message::Close(frame) = self.next().await {
                return frame.expect("a reason").code.into();
            }
        }
    }

    /// Says something and hears the answer.
    async fn ask(&mut self, text: &str) -> String {
        self.send(json!({"type": "user_message", "text": text})).await;
        let event = self.event_of("agent_response").await;
        event["agent_response_event"]["agent_response"].as_str().expect("a text").to_owned()
    }

    async fn hang_up(mut self) {
        self.0.close(None).await.expect("closes");
        while let Some(Ok(_)) = self.0.next().await {}
    }
}

fn with_tools(tools: &[&str]) -> Value {
    json!({"agent": {"prompt": {"prompt": "You help {{ user_name }}.", "tool_ids": tools},
        "dynamic_variables": {"dynamic_variable_placeholders": {"user_name": "someone"}}}})
}

#[tokio::test]
async fn a_missing_variable_ends_the_start_with_1008() {
    let stage = Stage::set().await;
    let tool = stage.calendar(json!({})).await;
    let agent = stage.agent(with_tools(&[&tool])).await;

    let mut client = stage.start(&agent, json!({"unrelated": 1})).await;
    let error = client.event().await;
    assert_eq!(error["type"], "error", "no metadata before a refused start");
    assert_eq!(error["error_event"]["error_type"], "missing_dynamic_variable");
    let message = error["error_event"]["message"].as_str().expect("a text");
    assert!(message.contains("in tools: {'secret__user_google_authorization'}"), "{message}");
    assert_eq!(client.closed_with().await, 1008);
    assert_eq!(stage.eleven.counters()["conversations_refused"], 1);
    assert_eq!(stage.eleven.sinks()["transcript"][0]["status"], "failed");
}

#[tokio::test]
async fn placeholders_suffice_and_an_assignments_target_needs_one() {
    let stage = Stage::set().await;
    let placeholder = json!({"dynamic_variables": {"dynamic_variable_placeholders":
        {"secret__user_google_authorization": "none"}}});
    let tool = stage.calendar(placeholder).await;
    let agent = stage.agent(with_tools(&[&tool])).await;
    let mut client = stage.start(&agent, json!({})).await;
    assert_eq!(client.event().await["type"], "conversation_initiation_metadata");

    let assigning = json!({"assignments": [{"source": "response", "dynamic_variable": "later", "value_path": "x"}],
        "dynamic_variables": {"dynamic_variable_placeholders": {"secret__user_google_authorization": "none"}}});
    let tool = stage.calendar(assigning).await;
    let agent = stage.agent(with_tools(&[&tool])).await;
    assert_eq!(stage.start(&agent, json!({})).await.closed_with().await, 1008);
}

#[tokio::test]
async fn the_metadata_comes_first_then_the_greeting_and_a_ping() {
    let stage = Stage::set().await;
    let config = json!({"agent": {"first_message": "Hello {{ user_name }}.", "prompt": {"prompt": "Be kind."}}});
    let agent = stage.agent(config).await;
    let url = stage.signed_url(&agent, "&include_conversation_id=true").await;

    let mut request = url.as_str().into_client_request().expect("a request");
    request.headers_mut().insert("sec-websocket-protocol", "convai".parse().expect("a header"));
    let (socket, response) = connect_async(request).await.expect("upgrades");
    assert_eq!(response.headers()["sec-websocket-protocol"], "convai", "echoed when offered");
    let mut client = Client(socket);
    client.begin(json!({"user_name": "Ada"})).await;

    let metadata = client.event().await["conversation_initiation_metadata_event"].clone();
    assert_eq!(metadata["agent_output_audio_format"], "pcm_16000");
    assert!(url.contains(metadata["conversation_id"].as_str().expect("an id")), "the id was in the URL's query");
    let greeting = client.event().await;
    assert_eq!(greeting["agent_response_event"]["agent_response"], "Hello Ada.");
    assert_eq!(client.event().await["type"], "ping");
    assert_eq!(client.ask("good morning").await, "You said: good morning");

    stage.clock.advance(Duration::from_secs(11));
    assert_eq!(client.event().await["type"], "ping");
    stage.clock.advance(Duration::from_secs(600));
    assert_eq!(client.closed_with().await, 1000, "the duration has a limit");
}

#[tokio::test]
async fn a_signed_url_with_a_conversation_works_once_and_for_15_minutes() {
    let stage = Stage::set().await;
    let agent = stage.agent(json!({"agent": {"prompt": {"prompt": ""}}})).await;
    let once = stage.signed_url(&agent, "&include_conversation_id=true").await;
    let mut first = Client::dial(&once).await;
    first.begin(json!({})).await;
    first.event_of("conversation_initiation_metadata").await;
    assert_eq!(Client::dial(&once).await.closed_with().await, 1008, "the second use");

    let open = stage.signed_url(&agent, "").await;
    for _ in 0..2 {
        let mut client = Client::dial(&open).await;
        client.begin(json!({})).await;
        client.event_of("conversation_initiation_metadata").await;
    }
    stage.clock.advance(Duration::from_secs(15 * 60));
    assert_eq!(Client::dial(&open).await.closed_with().await, 1008, "expired");
    assert_eq!(stage.eleven.counters()["signed_urls"], 2);
}

#[tokio::test]
async fn headers_bodies_and_paths_are_filled_and_redirects_are_not_followed() {
    let stage = Stage::set().await;
    let secret = json!({"type": "new", "name": "valetkey", "value": "vkw_canary"});
    let secret = stage.ok("POST", "v1/convai/secrets", Some(secret)).await["secret_id"].clone();
    let tool = stage
        .tool(json!({
            "type": "webhook", "name": "send", "description": "Sends",
            "api_schema": {
                "url": format!("{}/echo/{{room}}", stage.tools), "method": "POST",
                "path_params_schema": {"room": {"type": "string", "description": "Room"}},
                "query_params_schema": {"properties": {"user": {"type": "string", "dynamic_variable": "user"}}},
                "request_headers": {"X-Plain": "plain", "X-Valetkey-Workspace": {"secret_id": secret},
                    "Authorization": {"variable_name": "secret__valetkey_authorization"},
                    "X-Conversation": {"variable_name": "system__conversation_id"}},
                "request_body_schema": {"type": "object", "required": ["text"], "properties": {
                    "text": {"type": "string", "description": "What to say"},
                    "skip": {"type": "string", "is_omitted": true},
                    "options": {"type": "object", "properties": {"silent": {"type": "boolean", "constant_value": true}}}}},
            },
        }))
        .await;
    let moved = json!({"name": "moved", "api_schema": {"url": format!("{}/moved", stage.tools)}});
    let moved = stage.calendar(moved).await;
    let agent = stage.agent(with_tools(&[&tool, &moved])).await;
    let variables = json!({"user": "u 42", "secret__valetkey_authorization": "Bearer vkt_canary",
        "secret__user_google_authorization": OLD});
    let mut client = stage.start(&agent, variables).await;

    let said = client.ask(r#"use tool send {"room":"a/b","text":"hi"}"#).await;
    assert!(said.starts_with("send: ok."), "{said}");
    let (uri, headers, body) = stage.seen.lock().expect("lock").remove(0);
    assert_eq!(uri, "/echo/a%2Fb?user=u+42");
    assert_eq!(serde_json::from_str::<Value>(&body).expect("JSON"), json!({"text": "hi", "options": {"silent": true}}));
    assert_eq!(headers["x-valetkey-workspace"], "vkw_canary");
    assert_eq!(headers["authorization"], "Bearer vkt_canary", "the variable is the whole header");

    assert!(client.ask("use tool send {}").await.starts_with("send: ok."), "errors are hidden by default");
    assert!(client.ask("use tool moved").await.contains("HTTP status 302"), "no redirect is followed");
    assert_eq!(stage.seen.lock().expect("lock").len(), 1, "the call without a room was not sent");

    let transcript = stage.eleven.sinks()["transcript"][0]["transcript"].clone();
    let details = &transcript[1]["tool_calls"][0]["tool_details"];
    assert_eq!(details["headers"]["X-Plain"], "plain");
    assert_eq!(details["headers"]["X-Valetkey-Workspace"], "<REDACTED>");
    assert_eq!(details["headers"]["Authorization"], "<REDACTED>");
    assert_eq!(headers["x-conversation"], details["headers"]["X-Conversation"].as_str().expect("in clear"));
    assert!(stage.leaks("canary").is_empty(), "secret-sourced values are in no sink");
    let known = stage.eleven.sinks()["model_view"][0]["tools"][0].clone();
    let names: Vec<&String> = known["parameters"].as_object().expect("an object").keys().collect();
    assert_eq!(names, ["room", "text"], "the model knows what it fills in, no URL and no header");
    let prints = stage.eleven.tool_calls()[0]["headers"]["Authorization"].clone();
    assert!(prints.as_str().is_some_and(|print| print.starts_with("sha256:")));
}

#[tokio::test]
async fn a_sanitized_assignment_reaches_the_next_call_and_no_sink() {
    let stage = Stage::set().await;
    let tools = [stage.calendar(json!({})).await, stage.refresh("secret__user_google_authorization", true).await];
    let agent = stage.agent(with_tools(&[&tools[0], &tools[1]])).await;
    let mut client = stage.start(&agent, json!({"secret__user_google_authorization": OLD})).await;

    assert!(client.ask("use tool calendar_list").await.contains("HTTP status 401"));
    client.ask("use tool refresh_google").await;
    assert!(client.ask("use tool calendar_list").await.contains("Dentist"));
    client.hang_up().await;

    assert!(stage.leaks("vkcanary").is_empty(), "{:?}", stage.leaks("vkcanary"));
    let sinks = stage.eleven.sinks();
    assert!(sinks["received"].to_string().contains(OLD), "what was handed over is kept apart");
    let data = &sinks["post_call"][0]["data"];
    assert_eq!(data["status"], "done");
    let start = &data["conversation_initiation_client_data"]["dynamic_variables"];
    assert_eq!(start["secret__user_google_authorization"], "<REDACTED>");
    let update = &data["transcript"][6]["tool_results"][0]["dynamic_variable_updates"][0];
    assert_eq!((&update["old_value"], &update["new_value"]), (&json!("<REDACTED>"), &json!("<REDACTED>")));
}

#[tokio::test]
async fn an_unsanitized_assignment_and_a_plain_name_leak() {
    let stage = Stage::set().await;
    let tool = stage.refresh("secret__user_google_authorization", false).await;
    let agent = stage.agent(with_tools(&[&tool])).await;
    let mut client = stage.start(&agent, json!({})).await;
    client.ask("use tool refresh_google").await;
    client.hang_up().await;
    assert_eq!(stage.leaks("vkcanary"), ["model_view", "transcript", "post_call", "client_events"]);

    stage.eleven.reset(false);
    let tool = stage.refresh("user_google_authorization", true).await;
    let agent = stage.agent(with_tools(&[&tool])).await;
    let mut client = stage.start(&agent, json!({})).await;
    client.ask("use tool refresh_google").await;
    client.hang_up().await;
    assert_eq!(stage.leaks("vkcanary"), ["transcript", "post_call"], "by dynamic_variable_updates");
}

fn script(refresh: &str) -> Value {
    json!([{"when": "calendar", "tool": "calendar_list", "on_auth_error": refresh,
        "say": "Next is {items.0.summary}.", "say_error": "I could not read it: {error}"}])
}

#[tokio::test]
async fn a_script_refreshes_on_401_and_repeats_once() {
    let stage = Stage::set().await;
    let reauth = json!({"name": "reauth", "api_schema": {"url": format!("{}/reauth", stage.tools)}});
    let ids = [
        stage.calendar(json!({})).await,
        stage.refresh("secret__user_google_authorization", true).await,
        stage.calendar(reauth).await,
    ];
    let mut config = with_tools(&[&ids[0], &ids[1], &ids[2]]);
    config["agent"]["prompt"]["x_sandbox_script"] = script("refresh_google");
    let agent = stage.agent(config).await;
    let variables = json!({"secret__user_google_authorization": OLD});

    let mut client = stage.start(&agent, variables.clone()).await;
    assert_eq!(client.ask("What is on my Calendar today?").await, "Next is Dentist.");
    assert_eq!(stage.eleven.counters()["tool_calls"], 3, "refused, refreshed, repeated");

    assert!(stage.eleven.fault("refresh_tool"));
    let mut client = stage.start(&agent, variables.clone()).await;
    assert!(client.ask("my calendar").await.starts_with("I could not read it: Tool failed: HTTP status 401"));
    stage.eleven.reset(false);

    let body = json!({"agent_id": agent, "script": script("reauth")});
    stage.ok("POST", "sandbox/scripts", Some(body)).await;
    let mut client = stage.start(&agent, variables.clone()).await;
    assert_eq!(client.ask("calendar").await, "Please connect again.");
}

#[tokio::test]
async fn a_hidden_error_keeps_the_model_from_refreshing() {
    let stage = Stage::set().await;
    let ids = [
        stage.calendar(json!({"tool_error_handling_mode": "auto"})).await,
        stage.refresh("secret__user_google_authorization", true).await,
    ];
    let mut config = with_tools(&[&ids[0], &ids[1]]);
    config["agent"]["prompt"]["x_sandbox_script"] = script("refresh_google");
    let agent = stage.agent(config).await;
    let mut client = stage.start(&agent, json!({"secret__user_google_authorization": OLD})).await;
    assert_eq!(client.ask("calendar").await, "Next is unknown.");
    assert_eq!(stage.eleven.counters()["tool_calls"], 1);
}

#[tokio::test]
async fn rest_wants_a_key_and_answers_in_the_platforms_shapes() {
    let stage = Stage::set().await;
    assert!(stage.eleven.api_key().starts_with("sk_") && stage.eleven.api_key().contains("vkcanary"));
    let url = stage.eleven.base.join("v1/user").expect("a path");
    for (key, code) in [(None, "missing_api_key"), (Some("sk_wrong"), "invalid_api_key")] {
        let mut request = stage.rest.get(url.clone());
        if let Some(key) = key {
            request = request.header("xi-api-key", key);
        }
        let response = request.send().await.expect("answers");
        assert_eq!(response.status(), 401);
        assert!(response.headers().contains_key("maximum-concurrent-requests"));
        assert_eq!(response.json::<Value>().await.expect("JSON")["detail"]["status"], code);
    }
    let (status, answer) = stage.call("POST", "v1/convai/secrets", Some(json!({"type": "new", "name": "x"}))).await;
    assert_eq!((status, &answer["detail"][0]["loc"]), (422, &json!(["body", "value"])));
    let plain = json!({"tool_config": {"type": "webhook", "name": "x", "description": "x",
        "api_schema": {"url": "http://example.com/"}}});
    assert_eq!(stage.call("POST", "v1/convai/tools", Some(plain)).await.0, 422, "plain http only on loopback");
    assert_eq!(stage.call("GET", "v1/convai/agents/agent_gone", None).await.1["detail"]["code"], "document_not_found");

    let second = stage.eleven.issue_api_key();
    stage.eleven.revoke_api_key(&stage.eleven.api_key());
    assert_eq!(stage.eleven.api_key(), second);
    assert_eq!(stage.call("GET", "v1/user", None).await.0, 200);
}

#[tokio::test]
async fn objects_are_stored_patched_listed_and_a_secret_in_use_stays() {
    let stage = Stage::set().await;
    let body = json!({"type": "new", "name": "valetkey", "value": "v1"});
    let secret = stage.ok("POST", "v1/convai/secrets", Some(body)).await["secret_id"].clone();
    let path = format!("v1/convai/secrets/{}", secret.as_str().expect("an id"));
    let tool = stage.calendar(json!({"api_schema": {"request_headers": {"X-Key": {"secret_id": secret}}}})).await;
    let agent = stage.agent(with_tools(&[&tool])).await;

    let body = json!({"type": "update", "name": "renamed", "value": "v2"});
    assert_eq!(stage.ok("PATCH", &path, Some(body)).await["secret_id"], secret);
    let list = stage.ok("GET", "v1/convai/secrets?search=ren", None).await;
    assert_eq!(list["secrets"][0]["used_by"]["tools"][0]["id"], tool);
    assert!(!list.to_string().contains("v2"), "values are write-only");
    assert_eq!(stage.call("DELETE", &path, None).await.0, 409);

    let patch = json!({"name": "Second", "conversation_config": {"agent": {"prompt": {"tool_ids": []}}}});
    let patched = stage.ok("PATCH", &format!("v1/convai/agents/{agent}"), Some(patch)).await;
    assert_eq!(patched["conversation_config"]["agent"]["prompt"]["tool_ids"], json!([]));
    assert_eq!(patched["conversation_config"]["agent"]["prompt"]["prompt"], "You help {{ user_name }}.");
    stage.ok("DELETE", &format!("v1/convai/tools/{tool}"), None).await;
    assert_eq!(stage.call("DELETE", &path, None).await.0, 204);
    for _ in 0..2 {
        stage.calendar(json!({})).await;
    }
    let first = stage.ok("GET", "v1/convai/tools?page_size=1", None).await;
    assert_eq!((&first["has_more"], &first["next_cursor"]), (&json!(true), &json!("1")));
    assert_eq!(stage.ok("GET", "v1/convai/agents", None).await["agents"][0]["name"], "Second");
}

#[tokio::test]
async fn conversations_are_found_by_a_plain_variable_but_not_by_a_secret() {
    let stage = Stage::set().await;
    let agent = stage.agent(json!({"agent": {"prompt": {"prompt": ""}}})).await;
    let variables = json!({"valetkey_conversation": "cnv_1", "secret__x": "guess"});
    let mut client = stage.start(&agent, variables).await;
    let metadata = client.event().await["conversation_initiation_metadata_event"].clone();

    let path = "v1/convai/conversations?dynamic_variable_params=";
    let found = stage.ok("GET", &format!("{path}valetkey_conversation:eq:cnv_1&agent_id={agent}"), None).await;
    assert_eq!(found["conversations"][0]["conversation_id"], metadata["conversation_id"]);
    for filter in ["valetkey_conversation:eq:cnv_2", "secret__x:eq:guess"] {
        let found = stage.ok("GET", &format!("{path}{filter}"), None).await;
        assert_eq!(found["conversations"], json!([]), "{filter}");
    }
    let id = metadata["conversation_id"].as_str().expect("an id");
    let read = stage.ok("GET", &format!("v1/convai/conversations/{id}"), None).await;
    assert_eq!(read["status"], "in-progress");
    assert_eq!(read["conversation_initiation_client_data"]["dynamic_variables"]["secret__x"], "<REDACTED>");
}

#[tokio::test]
async fn faults_break_starts_until_a_reset() {
    let stage = Stage::set().await;
    let agent = stage.agent(json!({"agent": {"prompt": {"prompt": ""}}})).await;
    let path = format!("v1/convai/conversation/get-signed-url?agent_id={agent}");
    for name in ["signed_url_500", "signed_url_slow_ms:1"] {
        stage.ok("POST", "sandbox/faults", Some(json!({"name": name}))).await;
    }
    assert_eq!(stage.call("GET", &path, None).await.0, 500);
    assert_eq!(stage.call("POST", "sandbox/faults", Some(json!({"name": "other"}))).await.0, 422);
    stage.ok("DELETE", "sandbox/faults", None).await;

    assert!(stage.eleven.fault("refuse_start"));
    assert_eq!(stage.start(&agent, json!({})).await.closed_with().await, 1011);
    stage.ok("POST", "sandbox/reset", Some(json!({"keep_workspace": true}))).await;
    let mut client = stage.start(&agent, json!({})).await;
    client.event_of("ping").await;
    assert_eq!(client.ask("hang up").await, "Goodbye.");
    assert_eq!(client.closed_with().await, 1000);
    stage.ok("POST", "sandbox/reset", None).await;
    assert_eq!(stage.call("GET", &path, None).await.0, 404, "the agent is gone too");
}

#[tokio::test]
async fn overrides_must_be_switched_on_and_a_locked_agent_wants_a_signature() {
    let stage = Stage::set().await;
    let agent = stage.agent(json!({"agent": {"prompt": {"prompt": ""}}})).await;
    let frame = json!({"type": "conversation_initiation_client_data",
        "conversation_config_override": {"agent": {"first_message": "Hi"}}});
    let public = format!("{}?agent_id={agent}", stage.signed_url(&agent, "").await.split('?').next().expect("a path"));

    let mut client = Client::dial(&public).await;
    client.send(frame.clone()).await;
    assert_eq!(client.event().await["error_event"]["error_type"], "override_error");
    let patch = json!({"platform_settings": {"auth": {"enable_auth": true},
        "overrides": {"conversation_config_override": {"agent": {"first_message": true}}}}});
    stage.ok("PATCH", &format!("v1/convai/agents/{agent}"), Some(patch)).await;
    assert_eq!(Client::dial(&public).await.closed_with().await, 1008);
    let mut client = Client::dial(&stage.signed_url(&agent, "").await).await;
    client.send(frame).await;
    assert_eq!(client.event_of("agent_response").await["agent_response_event"]["agent_response"], "Hi");
}

#[tokio::test]
async fn dropping_the_stand_in_ends_its_conversations() {
    let stage = Stage::set().await;
    let agent = stage.agent(json!({"agent": {"prompt": {"prompt": ""}}})).await;
    let mut client = stage.start(&agent, json!({})).await;
    client.event_of("ping").await;
    drop(stage);
    assert_eq!(client.closed_with().await, 1011);
}
