//! The pretend Slack: authorization and `oauth.v2.access` (providers.md B.1 to B.5).
//!
//! Scopes are comma separated, errors are HTTP 200 with `ok: false`, PKCE is refused because the app has
//! not switched it on, and a user-only installation has no top-level token.

use std::collections::BTreeSet;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::HeaderMap;
use serde_json::{Map, Value, json};

use super::consent::{self, Pending};
use super::faults::{Bend, Place, answered};
use super::oauth::{self, CODE_LIFE, Params, Unknown};
use super::slack_tokens::{self, Code, FamilyKey, Holder, Pair};
use super::state::{ACCOUNTS, Provider, Shared, World, json};
use crate::clock::Millis;

/// The app behind every client of the pretend Slack.
pub(super) const APP_ID: &str = "A0SANDBOX";
/// Its bot.
pub(super) const BOT_USER_ID: &str = "U0BOT";

pub(super) fn router(shared: Shared) -> Router {
    Router::new()
        .route("/oauth/v2/authorize", get(authorize))
        .route("/consent", post(decide))
        .route("/api/oauth.v2.access", get(access).post(access))
        .route("/api/oauth.v2.exchange", post(exchange_lasting))
        .merge(super::slack_api::routes())
        .with_state(shared)
}

/// An application error: HTTP 200 with `ok: false` (B.5).
pub(super) fn refused(error: &str) -> Response {
    json(200, &json!({"ok": false, "error": error}))
}

/// The name of a workspace.
pub(super) fn team_name(team: &str) -> &'static str {
    if team == "T0SANDBOX" { "Sandbox" } else { "North" }
}

async fn authorize(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Response {
    let blocked = |code: &str, text: &str| consent::error_page(Provider::Slack, code, text);
    let Ok(params) = Params::parse(query.unwrap_or_default().as_bytes()) else {
        return blocked("invalid_arguments", "A parameter came more than once.");
    };
    let mut world = shared.world();
    let Some(client) = params.get("client_id").and_then(|id| world.client(Provider::Slack, id)) else {
        return blocked("invalid_client_id", "There is no such app.");
    };
    let target = match params.get("redirect_uri") {
        Some(uri) if client.redirect_uris.iter().any(|known| is_within(uri, known)) => uri.to_owned(),
        None if !client.redirect_uris.is_empty() => client.redirect_uris[0].clone(),
        _ => return blocked("bad_redirect_uri", "The redirect URI is not registered for this app."),
    };
    // Slack itself tolerates a request without state; the sandbox does not, because the house must not.
    let Some(state) = params.get("state") else {
        return blocked("invalid_arguments", "The sandbox wants a state parameter.");
    };
    let back = |error: &str| oauth::send_back(&target, &[("error", error), ("state", state)]);
    if params.get("code_challenge").is_some() || params.get("code_challenge_method").is_some() {
        return back("pkce_not_allowed");
    }
    let (Some(scopes), Some(user_scopes)) = (scope_list(params.get("scope")), scope_list(params.get("user_scope")))
    else {
        return back("invalid_scope");
    };
    if scopes.is_empty() && user_scopes.is_empty() {
        return back("no_scopes");
    }
    let hint = params.get("team").and_then(|team| ACCOUNTS.iter().find(|account| account.slack_team == team));
    let pending = Pending {
        provider: Provider::Slack,
        client_id: params.get("client_id").unwrap_or_default().to_owned(),
        redirect_uri: target.clone(),
        redirect_was_sent: params.get("redirect_uri").is_some(),
        state: state.to_owned(),
        scopes,
        user_scopes,
        challenge: None,
        nonce: None,
        offline: true,
        consent_forced: false,
        with_granted_scopes: true,
        hint,
        until: Millis::default(),
    };
    consent::ask(&mut world, pending, &[])
}

/// Equal to a registered URI, or below it (B.2).
fn is_within(uri: &str, known: &str) -> bool {
    uri.strip_prefix(known).is_some_and(|rest| {
        let below = known.ends_with('/') || rest.starts_with('/');
        rest.is_empty() || (below && !rest.contains("..") && !rest.contains('#'))
    })
}

/// A comma separated list; `None` when it holds anything that is no scope, or mixes in sign-in scopes (B.2).
fn scope_list(text: Option<&str>) -> Option<Vec<String>> {
    let scopes: Vec<String> = text.unwrap_or("").split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect();
    let plain = |scope: &String| scope.bytes().all(|byte| byte.is_ascii_lowercase() || b":._-".contains(&byte));
    let sign_in = scopes.iter().any(|scope| ["openid", "email", "profile"].contains(&scope.as_str()));
    (scopes.iter().all(plain) && !sign_in).then_some(scopes)
}

async fn decide(State(shared): State<Shared>, body: Bytes) -> Response {
    let mut world = shared.world();
    let (pending, decision) = match consent::decide(&mut world, Provider::Slack, &body) {
        Ok(decided) => decided,
        Err((code, text)) => return consent::error_page(Provider::Slack, code, text),
    };
    if !decision.allowed {
        return oauth::send_back(&pending.redirect_uri, &[("error", "access_denied"), ("state", &pending.state)]);
    }
    let value = world.mint(Provider::Slack, "code", "4917.0417.");
    let code = Code {
        client_id: pending.client_id,
        redirect_uri: pending.redirect_was_sent.then(|| pending.redirect_uri.clone()),
        account: decision.account,
        bot_scopes: pending.scopes.into_iter().collect(),
        user_scopes: pending.user_scopes.into_iter().collect(),
        until: world.now().after(CODE_LIFE),
        used: false,
    };
    world.slack.codes.insert(value.clone(), code);
    oauth::send_back(&pending.redirect_uri, &[("code", &value), ("state", &pending.state)])
}

async fn access(State(shared): State<Shared>, RawQuery(query): RawQuery, headers: HeaderMap, body: Bytes) -> Response {
    if query.is_some_and(|query| !query.is_empty()) {
        // Slack would take credentials from a query; the sandbox does not, because they end up in logs.
        return refused("invalid_arguments");
    }
    let params = Params::lenient(None, &headers, &body);
    let place = match params.get("grant_type") {
        None | Some("authorization_code") => Place::Code,
        Some("refresh_token") => Place::Refresh,
        _ => Place::OtherGrant,
    };
    let work = |world: &mut World, bend: Bend| {
        let id = match known_client(world, &headers, &params) {
            Ok(id) => id,
            Err(error) => return refused(error),
        };
        let done = match place {
            Place::Code => exchange(&shared, world, &id, &params, bend),
            Place::Refresh => refresh(&shared, world, &id, &params, bend),
            _ => Err("invalid_grant_type"),
        };
        done.map_or_else(refused, |answer| json(200, &answer))
    };
    answered(&shared, Provider::Slack, place, work).await
}

/// A token that never ends for a pair that rotates, once (B.4).
async fn exchange_lasting(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let params = Params::lenient(None, &headers, &body);
    let work = |world: &mut World, bend: Bend| {
        let done = known_client(world, &headers, &params).and_then(|id| {
            let token = params.get("token").ok_or("invalid_token")?;
            slack_tokens::exchange_lasting(world, &id, token, shared.lives.slack)
        });
        let (pair, key, scopes) = match done {
            Ok(done) => done,
            Err(error) => return refused(error),
        };
        let mut answer = envelope(key.team);
        let kind = if key.holder == Holder::Bot { "bot" } else { "user" };
        write_tokens(&mut answer, &pair, kind, &scopes, bend);
        json(200, &Value::Object(answer))
    };
    answered(&shared, Provider::Slack, Place::OtherGrant, work).await
}

/// The id of the client that introduced itself by Basic or in the form, or Slack's error.
pub(super) fn known_client(world: &World, headers: &HeaderMap, params: &Params) -> Result<String, &'static str> {
    let introduction = oauth::introduction(headers, params).map_err(|_| "invalid_client_id")?;
    match oauth::authenticate(world, Provider::Slack, &introduction) {
        Ok(_) => Ok(introduction.id),
        Err(Unknown::Secret) => Err("bad_client_secret"),
        Err(_) => Err("invalid_client_id"),
    }
}

fn exchange(shared: &Shared, world: &mut World, id: &str, params: &Params, bend: Bend) -> Result<Value, &'static str> {
    let now = world.now();
    let value = params.get("code").ok_or("invalid_code")?;
    let code = world.slack.codes.get_mut(value).filter(|code| code.client_id == id).ok_or("invalid_code")?;
    if code.used {
        world.count(Provider::Slack).reuses += 1;
        return Err("invalid_code");
    }
    code.used = true;
    if now >= code.until {
        return Err("invalid_code");
    }
    if params.get("redirect_uri") != code.redirect_uri.as_deref() {
        return Err("bad_redirect_uri");
    }
    if params.get("code_verifier").is_some() {
        return Err("pkce_not_allowed");
    }
    let account = if bend.swap_subject { code.account.other() } else { code.account };
    let (bot_scopes, user_scopes) = (bent(&code.bot_scopes, bend), bent(&code.user_scopes, bend));
    let mut answer = envelope(account.slack_team);
    let mut user = Map::from_iter([("id".to_owned(), json!(account.slack_user))]);
    let life = shared.lives.slack;
    let mut family = |holder, scopes: &BTreeSet<String>| {
        let key = FamilyKey { client_id: id.to_owned(), team: account.slack_team, holder };
        slack_tokens::install(world, &key, account, scopes, life)
    };
    if !bot_scopes.is_empty() {
        let (pair, scopes) = family(Holder::Bot, &bot_scopes);
        answer.insert("bot_user_id".to_owned(), json!(BOT_USER_ID));
        write_tokens(&mut answer, &pair, "bot", &scopes, bend);
    }
    if !user_scopes.is_empty() {
        let (pair, scopes) = family(Holder::User(account.slack_user), &user_scopes);
        write_tokens(&mut user, &pair, "user", &scopes, bend);
    }
    answer.insert("authed_user".to_owned(), Value::Object(user));
    Ok(Value::Object(answer))
}

fn refresh(shared: &Shared, world: &mut World, id: &str, params: &Params, bend: Bend) -> Result<Value, &'static str> {
    let value = params.get("refresh_token").ok_or("invalid_refresh_token")?;
    let (pair, key, scopes) = slack_tokens::refresh(world, id, value, shared.lives.slack)?;
    // One token per refresh, at the top level whatever its type (B.3).
    let mut answer = envelope(key.team);
    let kind = if key.holder == Holder::Bot { "bot" } else { "user" };
    if key.holder == Holder::Bot {
        answer.insert("bot_user_id".to_owned(), json!(BOT_USER_ID));
    }
    write_tokens(&mut answer, &pair, kind, &bent(&scopes, bend), bend);
    Ok(Value::Object(answer))
}

fn envelope(team: &str) -> Map<String, Value> {
    Map::from_iter([
        ("ok".to_owned(), json!(true)),
        ("app_id".to_owned(), json!(APP_ID)),
        ("team".to_owned(), json!({"id": team, "name": team_name(team)})),
        ("enterprise".to_owned(), Value::Null),
        ("is_enterprise_install".to_owned(), json!(false)),
    ])
}

fn write_tokens(into: &mut Map<String, Value>, pair: &Pair, kind: &str, scopes: &BTreeSet<String>, bend: Bend) {
    let scopes = scopes.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    into.insert("access_token".to_owned(), json!(pair.access));
    into.insert("token_type".to_owned(), json!(kind));
    into.insert("scope".to_owned(), json!(scopes));
    if let Some(life) = pair.life {
        into.insert("expires_in".to_owned(), bend.expires_in(life));
    }
    if let Some(refresh) = pair.refresh.as_ref().filter(|_| !bend.no_refresh_token) {
        into.insert("refresh_token".to_owned(), json!(refresh));
    }
}

fn bent(scopes: &BTreeSet<String>, bend: Bend) -> BTreeSet<String> {
    let lost = usize::from(bend.fewer_scopes && scopes.len() > 1);
    scopes.iter().skip(lost).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ADA, CLIENT, GRACE, REDIRECT, Street, text};
    use super::*;

    #[test]
    fn redirect_uris_may_be_below_the_registered_one() {
        let known = "https://vault.example/oauth";
        assert!(is_within(known, known) && is_within("https://vault.example/oauth/slack?x=1", known));
        for wrong in ["https://vault.example/oauthx", "https://vault.example/oauth/../x", "https://other.example/oauth"]
        {
            assert!(!is_within(wrong, known), "{wrong}");
        }
    }

    async fn refusal(street: &Street, pairs: &[(&str, &str)]) -> (Option<String>, String) {
        let (_, page) = street.authorize(street.at_slack("oauth/v2/authorize"), pairs).await;
        (page.location().and(page.query("error")), page.body)
    }

    #[tokio::test]
    async fn a_challenge_is_not_allowed_and_scopes_are_comma_separated() {
        let street = Street::start().await;
        let cases: [(&[(&str, &str)], &str); 5] = [
            (
                &[("user_scope", "chat:write"), ("code_challenge", "x"), ("code_challenge_method", "S256")],
                "pkce_not_allowed",
            ),
            (&[("user_scope", "chat:write channels:read")], "invalid_scope"),
            (&[("user_scope", "openid,chat:write")], "invalid_scope"),
            (&[], "no_scopes"),
            (&[("scope", ""), ("user_scope", "")], "no_scopes"),
        ];
        for (pairs, error) in cases {
            assert_eq!(refusal(&street, pairs).await.0.as_deref(), Some(error), "{pairs:?}");
        }
        for (wrong, error) in [
            (("client_id", "nobody"), "invalid_client_id"),
            (("redirect_uri", "http://x.example/"), "bad_redirect_uri"),
        ] {
            let (sent_back, body) = refusal(&street, &[wrong, ("user_scope", "chat:write")]).await;
            assert!(sent_back.is_none() && body.contains(error), "{error}");
        }
    }

    #[tokio::test]
    async fn a_user_only_installation_has_no_token_at_the_top() {
        let street = Street::start().await;
        let answer = street.slack_connected("", "chat:write,channels:read").await;
        assert_eq!(answer["ok"], true);
        assert!(answer.get("access_token").is_none() && answer.get("token_type").is_none());
        let user = &answer["authed_user"];
        assert!(text(user, "access_token").starts_with("xoxe.xoxp-1-vkcanary"));
        assert!(text(user, "refresh_token").starts_with("xoxe-1-vkcanary"));
        assert_eq!((text(user, "scope"), user["expires_in"].as_u64()), ("channels:read,chat:write", Some(43_200)));

        let both = street.slack_connected("chat:write", "search:read").await;
        assert!(text(&both, "access_token").starts_with("xoxe.xoxb-1-"));
        assert_eq!(text(&both["authed_user"], "scope"), "channels:read,chat:write,search:read", "scopes add up (B.3)");
        let bot = street.slack_connected("chat:write", "").await;
        assert_eq!(bot["authed_user"], json!({"id": "U0ADA"}));
    }

    #[tokio::test]
    async fn errors_of_the_exchange_are_slacks_own() {
        let street = Street::start().await;
        let code = || async {
            let pairs = [("user_scope", "chat:write")];
            let (mut person, page) = street.authorize(street.at_slack("oauth/v2/authorize"), &pairs).await;
            assert!(page.body.contains("Pretend Slack (sandbox)"));
            person.consent(true, GRACE, None).await.expect("consent").query("code").expect("a code")
        };
        let (one, two, three) = (code().await, code().await, code().await);
        let at = &street;
        let exchange = |pairs: Vec<(&'static str, String)>| async move {
            let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
            text(&at.slack_token(&pairs).await, "error").to_owned()
        };
        assert_eq!(exchange(vec![("code", one)]).await, "bad_redirect_uri");
        let redirect = || ("redirect_uri", REDIRECT.to_owned());
        assert_eq!(
            exchange(vec![("code", two), redirect(), ("code_verifier", "v".to_owned())]).await,
            "pkce_not_allowed"
        );
        assert_eq!(exchange(vec![("code", three.clone()), redirect()]).await, "");
        assert_eq!(exchange(vec![("code", three), redirect()]).await, "invalid_code");
        assert_eq!(exchange(vec![("grant_type", "password".to_owned())]).await, "invalid_grant_type");
        for (id, secret, error) in [(CLIENT, "guess", "bad_client_secret"), ("nobody", "x", "invalid_client_id")] {
            let form = [("client_id", id), ("client_secret", secret), ("code", "x")];
            assert_eq!(text(&street.post(street.at_slack("api/oauth.v2.access"), &form).await.json, "error"), error);
        }
    }

    #[tokio::test]
    async fn a_person_can_cancel() {
        let street = Street::start().await;
        let pairs = [("user_scope", "chat:write")];
        let (mut person, _) = street.authorize(street.at_slack("oauth/v2/authorize"), &pairs).await;
        let back = person.consent(false, ADA, None).await.expect("an answer");
        assert_eq!(
            (back.query("error").as_deref(), back.query("state").as_deref()),
            (Some("access_denied"), Some("s-1"))
        );
    }
}
