//! A little of Gmail and Calendar: enough to see whether a token works, has expired or lacks a scope.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use data_encoding::{BASE64URL, BASE64URL_NOPAD};
use http::{HeaderMap, header};
use serde_json::{Value, json};

use super::faults::{Bend, Place, answered};
use super::oauth::bearer;
use super::state::{Account, Provider, Shared, World, json};

const MAIL_READ: [&str; 3] = [
    "https://www.googleapis.com/auth/gmail.readonly",
    "https://www.googleapis.com/auth/gmail.modify",
    "https://mail.google.com/",
];
const MAIL_SEND: [&str; 4] = [
    "https://www.googleapis.com/auth/gmail.send",
    "https://www.googleapis.com/auth/gmail.compose",
    "https://www.googleapis.com/auth/gmail.modify",
    "https://mail.google.com/",
];
const CALENDAR_READ: [&str; 4] = [
    "https://www.googleapis.com/auth/calendar.readonly",
    "https://www.googleapis.com/auth/calendar.events.readonly",
    "https://www.googleapis.com/auth/calendar.events",
    "https://www.googleapis.com/auth/calendar",
];
const CALENDAR_WRITE: [&str; 2] =
    ["https://www.googleapis.com/auth/calendar.events", "https://www.googleapis.com/auth/calendar"];

/// What lies in every mailbox: id, subject, text.
const MAIL: [(&str, &str, &str); 2] = [
    ("m1", "Lunch on Thursday", "Shall we meet at noon?"),
    ("m2", "Your invoice", "The invoice for this month is attached."),
];

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/gmail/v1/users/{user}/messages", get(mail_list))
        .route("/gmail/v1/users/{user}/messages/{id}", get(mail_read))
        .route("/gmail/v1/users/{user}/messages/send", post(mail_send))
        .route("/calendar/v3/calendars/{calendar}/events", get(events_list).post(events_add))
}

/// Why a token does not open the API.
pub(super) enum Closed {
    /// Unknown, expired or revoked.
    Token,
    /// It lacks every scope that would do.
    Scopes,
}

impl Closed {
    pub(super) fn answer(&self) -> Response {
        match self {
            Self::Token => invalid_token(),
            Self::Scopes => too_few_scopes(),
        }
    }
}

/// The account behind a live token that has one of `scopes`, or the API's refusal (A.5).
pub(super) fn admitted(world: &World, headers: &HeaderMap, scopes: &[&str]) -> Result<&'static Account, Closed> {
    let now = world.now();
    let token = bearer(headers).and_then(|value| world.google.access.get(value)).filter(|token| token.is_live(now));
    let token = token.ok_or(Closed::Token)?;
    if scopes.iter().any(|scope| token.scopes.contains(*scope)) { Ok(token.account) } else { Err(Closed::Scopes) }
}

/// 401 for a token that is unknown, expired or revoked.
pub(super) fn invalid_token() -> Response {
    let message = "Request had invalid authentication credentials.";
    let errors = json!([{"message": "Invalid Credentials", "domain": "global", "reason": "authError"}]);
    let body = json!({"error": {"code": 401, "message": message, "status": "UNAUTHENTICATED", "errors": errors}});
    let mut answer = json(401, &body);
    let challenge = header::HeaderValue::from_static("Bearer realm=\"sandbox\", error=\"invalid_token\"");
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    answer
}

fn too_few_scopes() -> Response {
    let message = "Request had insufficient authentication scopes.";
    let errors = json!([{"message": message, "domain": "global", "reason": "insufficientPermissions"}]);
    let details = json!([{
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
        "domain": "googleapis.com",
    }]);
    let status = "PERMISSION_DENIED";
    let error = json!({"code": 403, "message": message, "status": status, "errors": errors, "details": details});
    let mut answer = json(403, &json!({"error": error}));
    let challenge = header::HeaderValue::from_static("Bearer realm=\"sandbox\", error=\"insufficient_scope\"");
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    answer
}

fn refused(code: u16, status: &str, message: &str) -> Response {
    json(code, &json!({"error": {"code": code, "message": message, "status": status}}))
}

/// One API request: admitted with one of `scopes`, then `work` for its account.
async fn api(
    shared: &Shared,
    headers: &HeaderMap,
    scopes: &[&str],
    whose: &str,
    own: &str,
    work: impl FnOnce(&mut World, &'static Account) -> Response + Send,
) -> Response {
    let guarded = |world: &mut World, _: Bend| match admitted(world, headers, scopes) {
        Err(closed) => closed.answer(),
        // Only one's own mailbox and calendar exist here.
        Ok(account) if whose == own || whose == account.email => work(world, account),
        Ok(_) => refused(404, "NOT_FOUND", "Not Found"),
    };
    answered(shared, Provider::Google, Place::Api, guarded).await
}

async fn mail_list(State(shared): State<Shared>, Path(user): Path<String>, headers: HeaderMap) -> Response {
    let work = |_: &mut World, _: &'static Account| {
        let messages: Vec<Value> = MAIL.iter().map(|(id, ..)| json!({"id": id, "threadId": id})).collect();
        json(200, &json!({"resultSizeEstimate": messages.len(), "messages": messages}))
    };
    api(&shared, &headers, &MAIL_READ, &user, "me", work).await
}

async fn mail_read(
    State(shared): State<Shared>,
    Path((user, wanted)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let work = |_: &mut World, account: &'static Account| {
        let Some((id, subject, text)) = MAIL.iter().find(|(id, ..)| *id == wanted) else {
            return refused(404, "NOT_FOUND", "Requested entity was not found.");
        };
        let headers = json!([{"name": "Subject", "value": subject}, {"name": "To", "value": account.email}, {"name": "From", "value": "friend@example.net"}]);
        let body = json!({"size": text.len(), "data": BASE64URL.encode(text.as_bytes())});
        let payload = json!({"mimeType": "text/plain", "headers": headers, "body": body});
        json(200, &json!({"id": id, "threadId": id, "labelIds": ["INBOX"], "snippet": text, "payload": payload}))
    };
    api(&shared, &headers, &MAIL_READ, &user, "me", work).await
}

async fn mail_send(
    State(shared): State<Shared>,
    Path(user): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let work = |world: &mut World, account: &'static Account| {
        let raw = serde_json::from_slice::<Value>(&body).ok().and_then(|mail| mail["raw"].as_str().map(str::to_owned));
        let text = raw
            .and_then(|raw| BASE64URL_NOPAD.decode(raw.trim_end_matches('=').as_bytes()).ok())
            .and_then(|bytes| String::from_utf8(bytes).ok());
        let Some(text) = text else {
            return refused(400, "INVALID_ARGUMENT", "'raw' RFC822 payload message string is required");
        };
        world.record(Provider::Google, account.email, "gmail", &text);
        let id = format!("s{}", world.messages.len());
        json(200, &json!({"id": id, "threadId": id, "labelIds": ["SENT"]}))
    };
    api(&shared, &headers, &MAIL_SEND, &user, "me", work).await
}

async fn events_list(State(shared): State<Shared>, Path(calendar): Path<String>, headers: HeaderMap) -> Response {
    let work = |world: &mut World, account: &'static Account| {
        let start = world.now().after(std::time::Duration::from_secs(86_400));
        let end = start.after(std::time::Duration::from_secs(1800));
        let mut items = vec![json!({
            "id": "e1", "status": "confirmed", "summary": "Team meeting",
            "start": {"dateTime": start.rfc3339()}, "end": {"dateTime": end.rfc3339()},
        })];
        items.extend(world.google.entries.get(account.google_sub).into_iter().flatten().cloned());
        json(200, &json!({"kind": "calendar#events", "summary": account.email, "items": items}))
    };
    api(&shared, &headers, &CALENDAR_READ, &calendar, "primary", work).await
}

async fn events_add(
    State(shared): State<Shared>,
    Path(calendar): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let work = |world: &mut World, account: &'static Account| {
        let Ok(mut entry @ Value::Object(_)) = serde_json::from_slice::<Value>(&body) else {
            return refused(400, "INVALID_ARGUMENT", "Parse Error");
        };
        if !entry["start"].is_object() || !entry["end"].is_object() {
            return refused(400, "INVALID_ARGUMENT", "Missing end time.");
        }
        let entries = world.google.entries.entry(account.google_sub).or_default();
        entry["id"] = json!(format!("e{}", entries.len() + 2));
        entry["status"] = json!("confirmed");
        entries.push(entry.clone());
        json(200, &entry)
    };
    api(&shared, &headers, &CALENDAR_WRITE, &calendar, "primary", work).await
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64URL;
    use serde_json::json;

    use super::super::testing::{Street, text};

    #[tokio::test]
    async fn a_missing_scope_is_403_with_googles_reason() {
        let street = Street::start().await;
        let answer = street.google_connected("https://www.googleapis.com/auth/gmail.readonly").await;
        let token = text(&answer, "access_token");
        let refused = street.get(street.at_google("calendar/v3/calendars/primary/events"), token).await;
        assert_eq!(refused.status, 403);
        assert_eq!(refused.json["error"]["details"][0]["reason"], "ACCESS_TOKEN_SCOPE_INSUFFICIENT");
        let request = street.http.post(street.at_google("gmail/v1/users/me/messages/send")).bearer_auth(token);
        assert_eq!(street.send(request.json(&json!({"raw": ""}))).await.expect("answer").status, 403);
        let read = street.get(street.at_google("gmail/v1/users/me/messages/m1"), token).await;
        assert_eq!(read.json["payload"]["headers"][0]["value"], "Lunch on Thursday");
        let in_query = street.at_google(&format!("gmail/v1/users/me/messages?access_token={token}"));
        assert_eq!(street.get(in_query, "").await.status, 401, "never from the query");
    }

    #[tokio::test]
    async fn sent_mail_and_new_calendar_entries_are_seen() {
        let street = Street::start().await;
        let scopes = "https://www.googleapis.com/auth/gmail.send https://www.googleapis.com/auth/calendar.events";
        let answer = street.google_connected(scopes).await;
        let token = text(&answer, "access_token");
        let post =
            |path: &str, body| street.send(street.http.post(street.at_google(path)).bearer_auth(token).json(&body));
        let mail = json!({"raw": BASE64URL.encode(b"Subject: hello\r\n\r\nthere")});
        assert_eq!(post("gmail/v1/users/me/messages/send", mail).await.expect("answer").status, 200);
        let messages = street.sandbox.ask("/messages").await.expect("messages");
        assert_eq!(messages["messages"][0]["text"], "Subject: hello\r\n\r\nthere");

        let path = "calendar/v3/calendars/primary/events";
        assert_eq!(post(path, json!({"summary": "no times"})).await.expect("answer").status, 400);
        let entry = json!({"summary": "Dentist", "start": {"date": "2026-12-01"}, "end": {"date": "2026-12-02"}});
        assert_eq!(post(path, entry).await.expect("answer").status, 200);
        let listed = street.get(street.at_google(path), token).await.json;
        assert_eq!(listed["items"][1]["summary"], "Dentist");
        assert_eq!(street.get(street.at_google("calendar/v3/calendars/other/events"), token).await.status, 404);
    }
}
