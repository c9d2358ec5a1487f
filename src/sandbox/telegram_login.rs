//! The pretend "Log in with Telegram" (providers.md C.1): a bot is the client, the answer is an id_token and an access token that no
//! API takes, and one of the scopes lets the bot write.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::HeaderMap;
use serde_json::{Value, json};

use super::consent::{self, Pending};
use super::faults::{Bend, Place, answered};
use super::oauth::{self, CODE_LIFE, Params, Unknown};
use super::state::{Account, Provider, Shared, World, json};
use super::telegram;
use crate::clock::Millis;

/// Lets the bot write to whoever ticks it.
const WRITE: &str = "telegram:bot_access";
const SCOPES: [&str; 4] = ["openid", "profile", "phone", WRITE];
/// How long an id_token is valid, in seconds.
const ID_TOKEN_LIFE: i64 = 3600;

/// What waits to be exchanged, by code.
pub(super) type Codes = BTreeMap<String, Code>;

/// A code that waits to be exchanged, once.
pub(super) struct Code {
    request: Pending,
    account: &'static Account,
    until: Millis,
}

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/oauth/auth", get(authorize))
        .route("/consent", post(decide))
        .route("/oauth/token", post(token))
        .route("/oauth/.well-known/jwks.json", get(keys))
}

async fn authorize(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Response {
    let blocked = |code: &str, text: &str| consent::error_page(Provider::Telegram, code, text);
    let Ok(params) = Params::parse(query.unwrap_or_default().as_bytes()) else {
        return blocked("invalid_request", "A parameter came more than once.");
    };
    if params.get("origin").or(params.get("bot_id")).is_some() {
        return blocked("invalid_request", "With origin or bot_id this would be the old widget.");
    }
    let mut world = shared.world();
    let Some(client) = params.get("client_id").and_then(|id| world.client(Provider::Telegram, id)) else {
        return blocked("invalid_client", "The bot was not found, or has no web login.");
    };
    let Some(target) = params.get("redirect_uri").filter(|uri| client.redirect_uris.iter().any(|known| known == uri))
    else {
        return blocked("invalid_request", "The redirect URI is not among the bot's allowed URLs.");
    };
    // One integrator reports narrow limits on it.
    let fits =
        |state: &&str| state.len() <= 64 && state.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    let Some(state) = params.get("state").filter(fits) else {
        return blocked("invalid_request", "The sandbox wants a state of at most 64 letters, digits, _ and -.");
    };
    match read_request(&params, target, state) {
        Ok(pending) => consent::ask(&mut world, pending, &[WRITE.to_owned()]),
        Err((error, text)) => {
            oauth::send_back(target, &[("error", error), ("error_description", text), ("state", state)])
        }
    }
}

fn read_request(params: &Params, target: &str, state: &str) -> Result<Pending, (&'static str, &'static str)> {
    if params.get("response_type") != Some("code") {
        return Err(("unsupported_response_type", "Only the code response type is accepted."));
    }
    let scopes: Vec<String> = params.get("scope").unwrap_or_default().split(' ').map(str::to_owned).collect();
    if !scopes.iter().any(|scope| scope == "openid") || !scopes.iter().all(|scope| SCOPES.contains(&scope.as_str())) {
        return Err(("invalid_scope", "openid is wanted, and only scopes that there are."));
    }
    Ok(Pending {
        provider: Provider::Telegram,
        client_id: params.get("client_id").unwrap_or_default().to_owned(),
        redirect_uri: target.to_owned(),
        redirect_was_sent: true,
        state: state.to_owned(),
        scopes,
        user_scopes: Vec::new(),
        challenge: oauth::read_challenge(params).map_err(|text| ("invalid_request", text))?,
        nonce: params.get("nonce").map(str::to_owned),
        offline: false,
        consent_forced: false,
        with_granted_scopes: false,
        hint: None,
        until: Millis::default(),
    })
}

async fn decide(State(shared): State<Shared>, body: Bytes) -> Response {
    let mut world = shared.world();
    let (pending, decision) = match consent::decide(&mut world, Provider::Telegram, &body) {
        Ok(decided) => decided,
        Err((code, text)) => return consent::error_page(Provider::Telegram, code, text),
    };
    let (target, state) = (pending.redirect_uri.clone(), pending.state.clone());
    if !decision.allowed {
        return oauth::send_back(&target, &[("error", "access_denied"), ("state", &state)]);
    }
    let writes = decision.ticked.iter().any(|scope| scope == WRITE);
    if writes && !telegram::let_write(&mut world, &pending.client_id, decision.account.telegram_user) {
        return consent::error_page(Provider::Telegram, "invalid_client", "The bot is gone.");
    }
    let until = world.now().after(CODE_LIFE);
    let value = world.mint(Provider::Telegram, "code", "tg-");
    world.telegram.codes.insert(value.clone(), Code { request: pending, account: decision.account, until });
    oauth::send_back(&target, &[("code", &value), ("state", &state)])
}

async fn token(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let refused = |status, error: &str| json(status, &json!({"error": error}));
    let Ok(params) = Params::parse(&body) else { return refused(400, "invalid_request") };
    let place = match params.get("grant_type") {
        Some("authorization_code") => Place::Code,
        _ => Place::OtherGrant,
    };
    let work = |world: &mut World, bend: Bend| {
        if place != Place::Code {
            return refused(400, "unsupported_grant_type");
        }
        // The documents want HTTP Basic.
        let known = oauth::introduction(&headers, &params).and_then(|who| match who.basic {
            true => oauth::authenticate(world, Provider::Telegram, &who).map(|_| who.id.clone()),
            false => Err(Unknown::Malformed),
        });
        let Ok(client) = known else { return refused(401, "invalid_client") };
        match exchange(&shared, world, &client, &params, bend) {
            Some(answer) => json(200, &answer),
            None => refused(400, "invalid_grant"),
        }
    };
    answered(&shared, Provider::Telegram, place, work).await
}

fn exchange(shared: &Shared, world: &mut World, client: &str, params: &Params, bend: Bend) -> Option<Value> {
    let now = world.now();
    let Code { request, account, until } = world.telegram.codes.remove(params.get("code")?)?;
    let verified = match (&request.challenge, params.get("code_verifier")) {
        (None, None) => true,
        (Some(challenge), Some(verifier)) => {
            oauth::is_verifier(verifier) && oauth::challenge_of(verifier) == *challenge
        }
        _ => false,
    };
    let same = request.client_id == client && params.get("redirect_uri") == Some(request.redirect_uri.as_str());
    if !verified || !same || now >= until {
        return None;
    }
    let account = if bend.swap_subject { account.other() } else { account };
    // The nonce is not repeated, as one who measured it reports.
    let mut claims = json!({
        "iss": format!("{}oauth", shared.telegram_url),
        "aud": client,
        "sub": format!("7{:018}", account.telegram_user.wrapping_mul(31)),
        "iat": now.unix_seconds(),
        "exp": now.unix_seconds() + ID_TOKEN_LIFE,
    });
    if request.scopes.iter().any(|scope| scope == "profile") {
        claims["id"] = json!(account.telegram_user);
        claims["name"] = json!(account.name);
        claims["preferred_username"] = json!(account.telegram_username);
    }
    let id_token = shared.signing.sign(&claims)?;
    let access_token = world.mint(Provider::Telegram, "access_token", "");
    Some(json!({"access_token": access_token, "token_type": "Bearer", "expires_in": 3600, "id_token": id_token}))
}

async fn keys(State(shared): State<Shared>) -> Response {
    json(200, &shared.signing.key_set())
}
