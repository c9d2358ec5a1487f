//! The page on which one clicks through the whole job, with plain words about what happens where. The page plays the
//! platform's own product; the vault's pages are the vault's.
//!
//! The conversation runs in the browser: a few lines of script open the vault's relay as the ElevenLabs SDK would. All
//! else is rendered here. Only this page's own forms are obeyed, whatever else runs in the same browser.

use std::sync::Arc;

use askama::Template;
use askama::filters::HtmlSafe;
use axum::extract::{Path, Query, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Inside, PlatformError, USER, text};

type Shared = State<Arc<Inside>>;

/// Turns of what the model reads that the page shows.
const TURNS: usize = 12;
/// Characters of one turn.
const LONGEST_TURN: usize = 400;

pub(super) fn router(inside: Arc<Inside>) -> Router {
    Router::new()
        .route("/", get(front))
        .route("/panels", get(panels))
        .route("/connected", get(connected))
        .route("/connect/{provider}", post(connect))
        .route("/popup/connect", post(popup_connect))
        .route("/popup/back", post(popup_back))
        .route("/telegram/start", post(press_start))
        .route("/portal", post(portal))
        .route("/expire", post(expire))
        .route("/disconnect/{id}", post(disconnect))
        .route("/conversation", post(start))
        .route("/conversation/end", post(end))
        .route("/platform.css", get(|| file("text/css; charset=utf-8", include_str!("platform.css"))))
        .route("/platform.js", get(|| file("text/javascript; charset=utf-8", include_str!("platform.js"))))
        .layer(from_fn_with_state(inside.clone(), door))
        .with_state(inside)
}

#[expect(clippy::unused_async, reason = "a handler is an async function")]
async fn file(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// Forms are taken from this page only; every answer says what a browser may do with it.
async fn door(State(inside): Shared, request: Request, next: Next) -> Response {
    let own = inside.base.origin().ascii_serialization();
    let headers = request.headers();
    let says = |name: header::HeaderName, value: &str| headers.get(name).is_some_and(|given| given == value);
    let is_here = says(header::HOST, inside.base.authority());
    if !is_here || (request.method() != Method::GET && !says(header::ORIGIN, &own)) {
        return (StatusCode::FORBIDDEN, "This page takes only its own forms.").into_response();
    }
    let vault = inside.vault.base();
    let policy = format!(
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self' ws://{authority}; \
         form-action 'self' {origin}; base-uri 'none'; frame-ancestors 'none'",
        authority = vault.authority(),
        origin = vault.origin().ascii_serialization(),
    );
    let mut answer = next.run(request).await;
    let headers = answer.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // `no-referrer` would make browsers send `Origin: null` with the forms.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

// --- what is shown ---

/// A provider's line.
struct Account {
    provider: &'static str,
    name: &'static str,
    /// None while nothing is connected.
    connection: Option<Value>,
}

impl Account {
    fn text(&self, pointer: &str) -> String {
        let value = self.connection.as_ref().and_then(|one| one.pointer(pointer));
        value.and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    fn id(&self) -> String {
        self.text("/id")
    }

    fn status(&self) -> String {
        self.text("/status")
    }

    fn who(&self) -> String {
        let known = ["/account/email", "/account/name", "/account/id"].into_iter().map(|place| self.text(place));
        known.into_iter().find(|name| !name.is_empty()).unwrap_or_default()
    }

    /// Whether there is a page of the provider's to agree on.
    fn by_consent(&self) -> bool {
        self.provider != "telegram"
    }

    fn is_active(&self) -> bool {
        self.status() == "active"
    }
}

/// A name with what stands behind it.
struct Pair {
    name: String,
    value: String,
    is_secret: bool,
}

/// A tool call as ElevenLabs carried it out.
struct ToolCall {
    tool: String,
    where_to: &'static str,
    outcome: String,
    is_good: bool,
    /// Fingerprint of the `Authorization` header that was sent.
    sent: String,
    assigned: String,
}

#[derive(Template)]
#[template(path = "sandbox/panels.html")]
struct Panels {
    notice: Option<String>,
    accounts: Vec<Account>,
    start_link: Option<String>,
    received: Vec<Pair>,
    calls: Vec<ToolCall>,
    turns: Vec<Pair>,
    messages: Vec<Pair>,
}

#[derive(Template)]
#[template(path = "sandbox/platform.html")]
struct Front {
    user: &'static str,
    vault: String,
    panels: Option<Panels>,
    trouble: String,
}

/// Its own template has escaped everything already.
impl HtmlSafe for Panels {}

impl Inside {
    async fn panels(&self) -> Result<Panels, PlatformError> {
        let connections = self.connections().await?;
        let sinks = self.elevenlabs.get("sandbox/sinks").await?;
        let calls = self.elevenlabs.get("sandbox/tool-calls").await?;
        let messages = self.control.get("messages").await?;
        let (notice, start_link) = {
            let memory = self.memory();
            (memory.notice.clone(), memory.start_link.clone())
        };
        let providers = [("google", "Google"), ("slack", "Slack"), ("telegram", "Telegram")];
        let accounts = providers.into_iter().map(|(provider, name)| Account {
            provider,
            name,
            connection: connections.iter().rfind(|one| one["provider"] == provider).cloned(),
        });
        Ok(Panels {
            notice,
            accounts: accounts.collect(),
            start_link,
            received: last(&sinks["received"]).map(received).unwrap_or_default(),
            calls: calls.as_array().into_iter().flatten().map(|call| self.tool_call(call)).collect(),
            turns: last(&sinks["model_view"]).map(turns).unwrap_or_default(),
            messages: messages["messages"].as_array().into_iter().flatten().map(message).collect(),
        })
    }

    fn tool_call(&self, call: &Value) -> ToolCall {
        let url = string(&call["url"]);
        let where_to = match url.strip_prefix(self.vault.base().as_str()) {
            Some("tokens/refresh") => "the vault's refresh tool",
            Some(_) => "the vault's broker",
            None => "Google, directly",
        };
        let assigned: Vec<&str> = call["assigned"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        ToolCall {
            tool: string(&call["tool"]),
            where_to,
            outcome: call["status"].as_u64().map_or_else(|| string(&call["error_type"]), |status| status.to_string()),
            is_good: call["is_error"] == false,
            sent: string(&call["headers"]["Authorization"]),
            assigned: assigned.join(", "),
        }
    }
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn last(list: &Value) -> Option<&Value> {
    list.as_array()?.last()
}

fn received(start: &Value) -> Vec<Pair> {
    let variables = start["frame"]["dynamic_variables"].as_object().into_iter().flatten();
    let shown = |(name, value): (&String, &Value)| {
        let print = start["fingerprints"][name].as_str();
        let value =
            print.map_or_else(|| value.as_str().map_or_else(|| value.to_string(), str::to_owned), str::to_owned);
        Pair { name: name.clone(), value, is_secret: print.is_some() }
    };
    variables.map(shown).collect()
}

fn turns(view: &Value) -> Vec<Pair> {
    let messages = view["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let recent = messages.get(messages.len().saturating_sub(TURNS)..).unwrap_or_default();
    let turn = |message: &Value| {
        let said = match message["content"].as_str() {
            Some(content) => content.to_owned(),
            None => {
                format!("uses {} {}", string(&message["tool_call"]["name"]), string(&message["tool_call"]["arguments"]))
            }
        };
        let value = said.chars().take(LONGEST_TURN).collect();
        Pair { name: string(&message["role"]), value, is_secret: false }
    };
    recent.iter().map(turn).collect()
}

fn message(sent: &Value) -> Pair {
    let name = format!("{} to {}", string(&sent["provider"]), string(&sent["to"]));
    Pair { name, value: string(&sent["text"]), is_secret: false }
}

async fn front(State(inside): Shared) -> Response {
    let (panels, trouble) = match inside.panels().await {
        Ok(panels) => (Some(panels), String::new()),
        Err(error) => (None, error.to_string()),
    };
    let vault = inside.vault.base().to_string();
    Html(Front { user: USER, vault, panels, trouble }.render().unwrap_or_default()).into_response()
}

async fn panels(State(inside): Shared) -> Response {
    match inside.panels().await {
        Ok(panels) => Html(panels.render().unwrap_or_default()).into_response(),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

// --- what is done ---

/// Goes back to the front, with a word about what happened.
fn back(inside: &Inside, outcome: Result<String, PlatformError>) -> Response {
    inside.memory().notice = Some(outcome.unwrap_or_else(|error| format!("It did not work: {error}.")));
    Redirect::to("/").into_response()
}

async fn connect(State(inside): Shared, Path(provider): Path<String>) -> Response {
    if provider == "telegram" {
        let made = inside.connect_telegram().await;
        return back(&inside, made.map(|_| "The vault waits for you to press Start in Telegram.".to_owned()));
    }
    match inside.connect(&provider, "redirect").await {
        Ok((_, url)) => Redirect::to(&url).into_response(),
        Err(error) => back(&inside, Err(error)),
    }
}

/// What the button asks for.
#[derive(Deserialize)]
struct InPopup {
    provider: String,
}

async fn popup_connect(State(inside): Shared, Json(wish): Json<InPopup>) -> Response {
    match inside.connect(&wish.provider, "popup").await {
        Ok((_, url)) => Json(json!({ "url": url })).into_response(),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

async fn popup_back(State(inside): Shared, Json(with): Json<Return>) -> Response {
    let (Some(session), Some(code)) = (with.connect_session, with.completion_code) else {
        return (StatusCode::BAD_REQUEST, "Nothing was connected.").into_response();
    };
    match inside.confirm(&session, &code).await {
        Ok(made) => Json(json!({"provider": made["provider"], "account": made["account"]})).into_response(),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

/// What the vault sends the browser back with.
#[derive(Deserialize)]
struct Return {
    connect_session: Option<String>,
    completion_code: Option<String>,
}

async fn connected(State(inside): Shared, Query(with): Query<Return>) -> Response {
    let Some(session) = with.connect_session else { return Redirect::to("/").into_response() };
    let Some(code) = with.completion_code else { return back(&inside, Ok("Nothing was connected.".to_owned())) };
    // Only this server knows who sits before the browser: the platform's own session would say so.
    let outcome = inside.confirm(&session, &code).await;
    let said = |made: Value| format!("Connected {}.", string(&made["provider"]));
    back(&inside, outcome.map(said))
}

async fn press_start(State(inside): Shared) -> Response {
    let link = inside.memory().start_link.clone();
    let outcome = match link {
        Some(link) => inside.press_start(&link).await.map(|()| "You pressed Start; the vault sees it within seconds."),
        None => Ok("Nobody waits for a Start."),
    };
    back(&inside, outcome.map(str::to_owned))
}

async fn portal(State(inside): Shared) -> Response {
    let wish = json!({"user": USER, "return_url": format!("{}connected", inside.base)});
    let made = inside.vault.post("v1/portal-sessions", wish).await.and_then(|made| text(&made, "url"));
    match made {
        Ok(url) => Redirect::to(&url).into_response(),
        Err(error) => back(&inside, Err(error)),
    }
}

async fn expire(State(inside): Shared) -> Response {
    let done = inside.control.post("expire", json!({"provider": "google"})).await;
    back(&inside, done.map(|_| "Google now refuses every access token it has issued so far.".to_owned()))
}

async fn disconnect(State(inside): Shared, Path(id): Path<String>) -> Response {
    let done = inside.vault.delete(&format!("v1/connections/{id}")).await;
    back(&inside, done.map(|_| "The vault revoked the access and forgot the connection.".to_owned()))
}

async fn start(State(inside): Shared) -> Response {
    match inside.start("relay").await {
        Ok(started) => {
            inside.memory().conversation = started["id"].as_str().map(str::to_owned);
            Json(json!({"id": started["id"], "signed_url": started["signed_url"]})).into_response()
        }
        Err(error) => (StatusCode::BAD_GATEWAY, Json(json!({"error": error.to_string()}))).into_response(),
    }
}

async fn end(State(inside): Shared) -> Response {
    let conversation = inside.memory().conversation.take();
    let outcome = match conversation {
        Some(id) => {
            inside.vault.call_end(&id).await.map(|_| "The conversation has ended; its ticket opens nothing now.")
        }
        None => Ok("There is no conversation."),
    };
    back(&inside, outcome.map(str::to_owned))
}
