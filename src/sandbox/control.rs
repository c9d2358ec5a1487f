//! The control: how the demo and the tests play fate with the pretend providers.
//!
//! All bodies and answers are JSON. `provider` is `google`, `slack` or `telegram`; `account` and `user`
//! are an e-mail address of [`super::ACCOUNTS`] (`user` may also be a Telegram user id). A call that is not
//! understood answers 4xx and says why.
//!
//! | call | body | effect, answer |
//! |---|---|---|
//! | `POST /clients` | `{provider, client_id, client_secret?, redirect_uris[]}` | registers or replaces an OAuth client, in Telegram a bot by its id; without a secret one is made. Answers the registration |
//! | `POST /faults` | `{provider, name, times?, on?}` | plants a fault for the next `times` (1) requests `on` `token` (default for Google and Slack), `code`, `refresh`, `revoke`, `api` (default for Telegram) or `any` |
//! | `DELETE /faults` | – | forgets every planted fault |
//! | `POST /expire` | `{provider}` | all access tokens issued so far count as expired |
//! | `POST /revoke` | `{provider, account?}` | ends all grants, or those of one account; for Telegram `account` is a bot's username. Answers `{revoked: n}` |
//! | `POST /rotation` | `{slack?: "on"\|"off", reuse?: "family"\|"grace:SECONDS"\|"none"}` | Slack's manner with refresh tokens; at the start `grace:60` |
//! | `POST /testing` | `{google: "on"\|"off"}` | whether Google takes its apps for ones that are only tried out: their grants end after seven days |
//! | `GET /counters` | – | per provider `{token_requests: {grant_type: n}, refreshes, reuses, replays_in_grace, revocations, api_calls}` |
//! | `GET /issued` | – | `{issued: [{provider, kind, value}]}`: every secret so far |
//! | `GET /messages` | – | `{messages: [{provider, sender, to, text, at}]}`: what was sent through Gmail, Slack and Telegram |
//! | `GET /accounts` | – | `{accounts: [{email, name, google_sub, slack_user, slack_team, telegram_user}]}` |
//! | `GET /telegram/bots` | – | `{bots: [{id, username, token}]}` |
//! | `POST /telegram/bots` | `{username, first_name?, token?}` | registers a bot. Answers `{id, username, token}` |
//! | `POST /telegram/token` | `{bot}` | the bot's owner takes its token back in BotFather. Answers `{token}`, the new one |
//! | `POST /telegram/start` | `{bot, user, payload?}` | the person presses Start |
//! | `POST /telegram/say` | `{bot, user, text}` | the person writes to the bot |
//! | `POST /telegram/block` | `{bot, user}` | the person blocks the bot |
//! | `POST /telegram/deliver` | `{bot}` | `{url, secret_token, updates}`: what is to be posted to the bot's webhook, which counts as done |
//!
//! Faults: `delay_ms:N` (adds to whichever comes after it), `drop_before` and `drop_after_commit` (hang up
//! without an answer), `late_ms:N` (the work is done, the answer comes later), `http_500_after_commit`,
//! `garbage` (the work is done, the body unreadable), `http_429:SECONDS`, `http_502_html`, `invalid_grant`,
//! `invalid_client`, `ok_false:ERROR` (nothing is done; each in the provider's own shape), `expires_in_string`,
//! `no_refresh_token`, `swap_subject` (another account than was chosen), `fewer_scopes`, `stray_headers` (a cookie and
//! other headers that are no part of the answer), `large:KIB` (a body of that size in place of the answer's), `cut_short`
//! (the work is done, the body breaks off).
//! "Commit" means that the provider has carried the request out.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ClientRegistration;
use super::faults::{Fault, On, Planted};
use super::slack_tokens::Reuse;
use super::state::{ACCOUNTS, Provider, Shared, World};
use super::telegram;
use crate::secret::Secret;

/// What was wrong with a call.
struct Wrong(String);

impl IntoResponse for Wrong {
    fn into_response(self) -> Response {
        (StatusCode::BAD_REQUEST, Json(json!({"error": self.0}))).into_response()
    }
}

type Answer = Result<Json<Value>, Wrong>;

fn wrong(text: &str) -> Wrong {
    Wrong(text.to_owned())
}

fn done() -> Answer {
    Ok(Json(json!({"ok": true})))
}

pub(super) fn router(shared: Shared) -> Router {
    Router::new()
        .route("/clients", post(clients))
        .route("/faults", post(plant).delete(clear))
        .route("/expire", post(expire))
        .route("/revoke", post(revoke))
        .route("/rotation", post(rotation))
        .route("/testing", post(testing))
        .route("/counters", get(counters))
        .route("/issued", get(issued))
        .route("/messages", get(messages))
        .route("/accounts", get(accounts))
        .route("/telegram/bots", get(bots).post(add_bot))
        .route("/telegram/token", post(renew_token))
        .route("/telegram/start", post(start))
        .route("/telegram/say", post(say))
        .route("/telegram/block", post(block))
        .route("/telegram/deliver", post(deliver))
        .with_state(shared)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewClient {
    provider: Provider,
    client_id: String,
    client_secret: Option<String>,
    redirect_uris: Vec<String>,
}

async fn clients(State(shared): State<Shared>, Json(new): Json<NewClient>) -> Answer {
    let mut world = shared.world();
    if new.provider == Provider::Telegram && telegram::bot_named(&mut world, &new.client_id).is_none() {
        return Err(wrong("in Telegram the client is a bot, and this is no bot's id"));
    }
    let made = format!("GOCSPX-{}{}", super::CANARY, world.random_text());
    let secret = new.client_secret.unwrap_or(made);
    let answer = json!({
        "provider": new.provider, "client_id": new.client_id,
        "client_secret": secret, "redirect_uris": new.redirect_uris,
    });
    let registration = ClientRegistration {
        client_id: new.client_id,
        client_secret: Secret::new(secret),
        redirect_uris: new.redirect_uris,
    };
    world.register(new.provider, registration);
    Ok(Json(answer))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewFault {
    provider: Provider,
    name: String,
    times: Option<u32>,
    on: Option<On>,
}

async fn plant(State(shared): State<Shared>, Json(new): Json<NewFault>) -> Answer {
    let fault = Fault::parse(&new.name).ok_or_else(|| wrong("there is no fault of this name"))?;
    if new.times == Some(0) {
        return Err(wrong("times is at least 1"));
    }
    let usual = if new.provider == Provider::Telegram { On::Api } else { On::Token };
    let planted = Planted { provider: new.provider, on: new.on.unwrap_or(usual), fault, times: new.times.unwrap_or(1) };
    shared.world().planted.push(planted);
    done()
}

async fn clear(State(shared): State<Shared>) -> Answer {
    shared.world().planted.clear();
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whose {
    provider: Provider,
    account: Option<String>,
}

async fn expire(State(shared): State<Shared>, Json(whose): Json<Whose>) -> Answer {
    let mut world = shared.world();
    let now = world.now();
    match whose.provider {
        Provider::Google => world.google.expire_all(now),
        Provider::Slack => world.slack.expire_all(now),
        Provider::Telegram => return Err(wrong("bot tokens do not expire")),
    }
    done()
}

async fn revoke(State(shared): State<Shared>, Json(whose): Json<Whose>) -> Answer {
    let mut world = shared.world();
    let is_meant = |name: &str| whose.account.as_deref().is_none_or(|account| account == name);
    let revoked = match whose.provider {
        Provider::Google => world.google.end_grants(|_, account| is_meant(account.email)),
        Provider::Slack => world.slack.end_families(|_, family| is_meant(family.account.email)),
        Provider::Telegram => {
            let bots = world.telegram.bots.values_mut().filter(|bot| !bot.revoked && is_meant(&bot.username));
            bots.map(|bot| bot.revoked = true).count()
        }
    };
    drop(world);
    shared.telegram_bell.notify_waiters();
    Ok(Json(json!({"revoked": revoked})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {
    slack: Option<String>,
    reuse: Option<String>,
}

async fn rotation(State(shared): State<Shared>, Json(wanted): Json<Rotation>) -> Answer {
    let rotates = match wanted.slack.as_deref() {
        None => None,
        Some("on") => Some(true),
        Some("off") => Some(false),
        Some(_) => return Err(wrong("slack is on or off")),
    };
    let reuse = match wanted.reuse.as_deref() {
        None => None,
        Some("family") => Some(Reuse::Family),
        Some("none") => Some(Reuse::Refuse),
        Some(text) => {
            let seconds = text.strip_prefix("grace:").and_then(|seconds| seconds.parse().ok());
            let seconds = seconds.ok_or_else(|| wrong("reuse is family, grace:SECONDS or none"))?;
            Some(Reuse::Grace(std::time::Duration::from_secs(seconds)))
        }
    };
    let mut world = shared.world();
    world.slack.rotation = rotates.unwrap_or(world.slack.rotation);
    world.slack.reuse = reuse.unwrap_or(world.slack.reuse);
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Testing {
    google: String,
}

async fn testing(State(shared): State<Shared>, Json(wanted): Json<Testing>) -> Answer {
    shared.world().google.testing = match wanted.google.as_str() {
        "on" => true,
        "off" => false,
        _ => return Err(wrong("google is on or off")),
    };
    done()
}

async fn counters(State(shared): State<Shared>) -> Json<Value> {
    Json(json!(shared.world().counters))
}

async fn issued(State(shared): State<Shared>) -> Json<Value> {
    Json(json!({"issued": shared.world().issued}))
}

async fn messages(State(shared): State<Shared>) -> Json<Value> {
    Json(json!({"messages": shared.world().messages}))
}

async fn accounts() -> Json<Value> {
    let accounts: Vec<Value> = ACCOUNTS
        .iter()
        .map(|account| {
            json!({
                "email": account.email, "name": account.name, "google_sub": account.google_sub,
                "slack_user": account.slack_user, "slack_team": account.slack_team,
                "telegram_user": account.telegram_user,
            })
        })
        .collect();
    Json(json!({"accounts": accounts}))
}

async fn bots(State(shared): State<Shared>) -> Json<Value> {
    let world = shared.world();
    let live = world.telegram.bots.iter().filter(|(_, bot)| !bot.revoked);
    let bots: Vec<Value> =
        live.map(|(token, bot)| json!({"id": bot.id, "username": bot.username, "token": token})).collect();
    Json(json!({"bots": bots}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewBot {
    username: String,
    first_name: Option<String>,
    token: Option<String>,
}

async fn add_bot(State(shared): State<Shared>, Json(new): Json<NewBot>) -> Answer {
    let mut world = shared.world();
    if telegram::bot_named(&mut world, &new.username).is_some() {
        return Err(wrong("there is a bot of this name"));
    }
    let next = world.telegram.bots.values().map(|bot| bot.id).max().unwrap_or(123_455) + 1;
    let token = new.token.unwrap_or_else(|| telegram::new_token(&world, next));
    let first_name = new.first_name.unwrap_or_else(|| new.username.clone());
    if world.telegram.bots.contains_key(&token)
        || !telegram::register(&mut world, token.clone(), &new.username, &first_name)
    {
        return Err(wrong("this is not a new bot token"));
    }
    let id = world.telegram.bots.get(&token).map(|bot| bot.id);
    Ok(Json(json!({"id": id, "username": new.username, "token": token})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Deed {
    bot: String,
    user: Value,
    payload: Option<String>,
    text: Option<String>,
}

/// Lets a person act towards a bot, then wakes whoever polls.
fn act(shared: &Shared, deed: &Deed, act: impl FnOnce(&mut World, i64) -> bool) -> Answer {
    let user = telegram::user_id(&deed.user).ok_or_else(|| wrong("user is an account's e-mail address or an id"))?;
    if !act(&mut shared.world(), user) {
        return Err(wrong("there is no such bot, or no chat with it yet"));
    }
    shared.telegram_bell.notify_waiters();
    done()
}

async fn start(State(shared): State<Shared>, Json(deed): Json<Deed>) -> Answer {
    let payload = deed.payload.clone().unwrap_or_default();
    let allowed = payload.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if payload.len() > 64 || !allowed {
        return Err(wrong("a payload is at most 64 characters of A-Z, a-z, 0-9, _ and -"));
    }
    act(&shared, &deed, |world, user| telegram::press_start(world, &deed.bot, user, &payload))
}

async fn say(State(shared): State<Shared>, Json(deed): Json<Deed>) -> Answer {
    let text = deed.text.clone().unwrap_or_default();
    act(&shared, &deed, |world, user| telegram::say(world, &deed.bot, user, &text))
}

async fn block(State(shared): State<Shared>, Json(deed): Json<Deed>) -> Answer {
    act(&shared, &deed, |world, user| telegram::block(world, &deed.bot, user))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedBot {
    bot: String,
}

async fn renew_token(State(shared): State<Shared>, Json(named): Json<NamedBot>) -> Answer {
    let token = telegram::renew_token(&mut shared.world(), &named.bot);
    token.map(|token| Json(json!({"token": token}))).ok_or_else(|| wrong("there is no such bot"))
}

async fn deliver(State(shared): State<Shared>, Json(named): Json<NamedBot>) -> Answer {
    let told = telegram::undelivered(&mut shared.world(), &named.bot);
    told.map(Json).ok_or_else(|| wrong("there is no such bot"))
}
