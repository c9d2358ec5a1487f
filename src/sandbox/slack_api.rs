//! A little of Slack's Web API (providers.md B.5, B.6): who am I, revoke, uninstall, post, list channels.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::routing::{MethodRouter, get};
use http::HeaderMap;
use serde_json::{Value, json};

use super::faults::{Bend, Place, answered};
use super::oauth::{Params, bearer};
use super::slack::{APP_ID, BOT_USER_ID, known_client, refused, team_name};
use super::slack_tokens::{Family, FamilyKey, Holder};
use super::state::{Provider, Shared, World, json};

/// The channels of every workspace: id and name.
const CHANNELS: [(&str, &str); 2] = [("C0GENERAL", "general"), ("C0RANDOM", "random")];

/// One request: its parameters and its token.
struct Call {
    headers: HeaderMap,
    params: Params,
}

impl Call {
    fn token(&self) -> Option<&str> {
        bearer(&self.headers).or_else(|| self.params.get("token"))
    }
}

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/api/auth.test", method(Place::Api, auth_test))
        .route("/api/auth.revoke", method(Place::Revoke, auth_revoke))
        .route("/api/apps.uninstall", method(Place::Revoke, uninstall))
        .route("/api/chat.postMessage", method(Place::Api, post_message))
        .route("/api/conversations.list", method(Place::Api, list_channels))
        .fallback(|| async { refused("unknown_method") })
}

/// Every method takes GET and POST, a query, a form or JSON.
fn method(place: Place, work: fn(&mut World, &Call, Bend) -> Result<Value, Value>) -> MethodRouter<Shared> {
    let handler = move |State(shared): State<Shared>, RawQuery(query): RawQuery, headers: HeaderMap, body: Bytes| async move {
        let params = Params::lenient(query.as_deref(), &headers, &body);
        let call = Call { headers, params };
        let done = |world: &mut World, bend: Bend| {
            let mut answer = work(world, &call, bend).unwrap_or_else(|error| error);
            if answer.get("ok").is_none() {
                answer["ok"] = json!(true);
            }
            json(200, &answer)
        };
        answered(&shared, Provider::Slack, place, done).await
    };
    get(handler).post(handler)
}

fn error(name: &str) -> Value {
    json!({"ok": false, "error": name})
}

/// The family of a live token that has `scope` (none wanted: empty text).
fn admitted<'w>(
    world: &'w World,
    call: &Call,
    scope: &str,
) -> Result<(&'w FamilyKey, &'w Family, Option<crate::clock::Millis>), Value> {
    let token = call.token().ok_or_else(|| error("not_authed"))?;
    let found = world.slack.of_access(token, world.now()).map_err(error)?;
    if scope.is_empty() || found.1.scopes.contains(scope) {
        return Ok(found);
    }
    let provided = found.1.scopes.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    Err(json!({"ok": false, "error": "missing_scope", "needed": scope, "provided": provided}))
}

fn auth_test(world: &mut World, call: &Call, bend: Bend) -> Result<Value, Value> {
    let now = world.now();
    let (key, family, until) = admitted(world, call, "")?;
    let account = if bend.swap_subject { family.account.other() } else { family.account };
    let team = account.slack_team;
    let mut answer = json!({
        "url": format!("https://{}.slack.example/", team_name(team).to_lowercase()),
        "team": team_name(team),
        "team_id": team,
        "app_id": APP_ID,
        "is_enterprise_install": false,
    });
    if key.holder == Holder::Bot {
        answer["user"] = json!("sandbox");
        answer["user_id"] = json!(BOT_USER_ID);
        answer["bot_id"] = json!("B0BOT");
    } else {
        answer["user"] = json!(account.name.to_lowercase());
        answer["user_id"] = json!(account.slack_user);
    }
    if let Some(until) = until {
        answer["expires_in"] = json!(until.left(now).as_secs());
    }
    Ok(answer)
}

fn auth_revoke(world: &mut World, call: &Call, _: Bend) -> Result<Value, Value> {
    let token = call.token().ok_or_else(|| error("not_authed"))?.to_owned();
    let dry_run = call.params.get("test").is_some_and(|value| value == "1" || value == "true");
    let revoked = world.slack.revoke(&token, dry_run).map_err(error)?;
    world.count(Provider::Slack).revocations += u64::from(revoked);
    Ok(json!({"revoked": revoked}))
}

fn uninstall(world: &mut World, call: &Call, _: Bend) -> Result<Value, Value> {
    let token = call.token().ok_or_else(|| error("not_authed"))?;
    // The token takes the `Authorization` header, so the client introduces itself in the parameters.
    let client_id = known_client(world, &HeaderMap::new(), &call.params).map_err(error)?;
    let (key, ..) = world.slack.of_access(token, world.now()).map_err(error)?;
    if key.client_id != client_id {
        return Err(error("client_id_token_mismatch"));
    }
    let team = key.team;
    world.slack.end_families(|key, _| key.client_id == client_id && key.team == team);
    world.count(Provider::Slack).revocations += 1;
    Ok(json!({}))
}

fn post_message(world: &mut World, call: &Call, _: Bend) -> Result<Value, Value> {
    let (key, family, _) = admitted(world, call, "chat:write")?;
    let sender = if key.holder == Holder::Bot { "sandbox" } else { family.account.email };
    let wanted = call.params.get("channel").unwrap_or("").trim_start_matches('#');
    let Some((channel, _)) = CHANNELS.iter().find(|(id, name)| *id == wanted || *name == wanted) else {
        return Err(error("channel_not_found"));
    };
    let text = call.params.get("text").ok_or_else(|| error("no_text"))?;
    let user = if key.holder == Holder::Bot { BOT_USER_ID } else { family.account.slack_user };
    world.record(Provider::Slack, sender, channel, text);
    let ts = format!("{}.{:06}", world.now().unix_seconds(), world.messages.len());
    let message = json!({"type": "message", "user": user, "text": text, "ts": ts, "app_id": APP_ID});
    Ok(json!({"channel": channel, "ts": ts, "message": message}))
}

fn list_channels(world: &mut World, call: &Call, _: Bend) -> Result<Value, Value> {
    admitted(world, call, "channels:read")?;
    let channels: Vec<Value> = CHANNELS
        .iter()
        .map(|(id, name)| json!({"id": id, "name": name, "is_channel": true, "is_private": false, "is_member": true}))
        .collect();
    Ok(json!({"channels": channels, "response_metadata": {"next_cursor": ""}}))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{CLIENT, CLIENT_SECRET, Street, text};

    async fn call(street: &Street, method: &str, token: &str, body: Value) -> Value {
        let request = street.http.post(street.at_slack(&format!("api/{method}"))).bearer_auth(token).json(&body);
        street.send(request).await.expect("an answer").json
    }

    #[tokio::test]
    async fn a_message_arrives_and_a_missing_scope_is_named() {
        let street = Street::start().await;
        let answer = street.slack_connected("", "chat:write").await;
        let token = text(&answer["authed_user"], "access_token");
        let sent = call(&street, "chat.postMessage", token, json!({"channel": "#general", "text": "hello"})).await;
        assert_eq!((sent["ok"].as_bool(), text(&sent, "channel")), (Some(true), "C0GENERAL"));
        let messages = street.sandbox.ask("/messages").await.expect("messages");
        assert_eq!(messages["messages"][0]["sender"], "ada@example.com");
        let refused = call(&street, "conversations.list", token, json!({})).await;
        assert_eq!(
            refused,
            json!({"ok": false, "error": "missing_scope", "needed": "channels:read", "provided": "chat:write"})
        );
        assert_eq!(
            text(&call(&street, "chat.postMessage", token, json!({"channel": "x", "text": "y"})).await, "error"),
            "channel_not_found"
        );
        assert_eq!(text(&call(&street, "chat.postMessage", "", json!({})).await, "error"), "not_authed");
        assert_eq!(text(&call(&street, "chat.postMessage", "xoxp-x", json!({})).await, "error"), "invalid_auth");
        assert_eq!(text(&call(&street, "chat.scream", token, json!({})).await, "error"), "unknown_method");
    }

    #[tokio::test]
    async fn auth_test_says_who_and_how_long() {
        let street = Street::start().await;
        let answer = street.slack_connected("chat:write", "chat:write").await;
        street.pass(200);
        let user = call(&street, "auth.test", text(&answer["authed_user"], "access_token"), json!({})).await;
        assert_eq!((text(&user, "user_id"), text(&user, "team_id")), ("U0ADA", "T0SANDBOX"));
        assert_eq!(user["expires_in"], 43_000);
        assert!(user.get("bot_id").is_none());
        let bot = call(&street, "auth.test", text(&answer, "access_token"), json!({})).await;
        assert_eq!((text(&bot, "user_id"), text(&bot, "bot_id")), ("U0BOT", "B0BOT"));
    }

    #[tokio::test]
    async fn uninstalling_ends_everything_of_the_workspace() {
        let street = Street::start().await;
        let answer = street.slack_connected("chat:write", "chat:write").await;
        let (bot, user) = (text(&answer, "access_token"), text(&answer["authed_user"], "access_token"));
        let wrong = json!({"client_id": CLIENT, "client_secret": "guess"});
        assert_eq!(text(&call(&street, "apps.uninstall", bot, wrong).await, "error"), "bad_client_secret");
        let right = json!({"client_id": CLIENT, "client_secret": CLIENT_SECRET});
        assert_eq!(call(&street, "apps.uninstall", bot, right).await, json!({"ok": true}));
        assert_eq!(text(&call(&street, "auth.test", user, json!({})).await, "error"), "token_revoked");
    }
}
