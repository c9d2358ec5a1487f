//! The pretend Telegram Bot API (providers.md C.4, C.6): `/bot<token>/<method>`. Signing in is next door, in `telegram_login`.
//!
//! A bot token has no expiry, no scopes and no refresh. Long polls wait for real
//! time, because they bound work in progress; everything else follows the clock it was given.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::routing::get;
use http::HeaderMap;
use serde_json::{Value, json};

use super::faults::{Bend, Place, answered};
use super::oauth::Params;
use super::state::{ACCOUNTS, Account, CANARY, Issued, Provider, Shared, World, json};
use super::telegram_login::{self, Codes};
use crate::clock;

/// The longest a poll waits, in seconds; also Telegram's own limit.
const LONGEST_POLL: u64 = 50;

/// What the pretend Telegram remembers: bots by token.
#[derive(Default)]
pub(super) struct TelegramState {
    pub bots: BTreeMap<String, Bot>,
    pub codes: Codes,
}

/// A bot.
#[derive(Default)]
pub(super) struct Bot {
    pub id: i64,
    pub username: String,
    first_name: String,
    /// Whether its owner took the token back in BotFather.
    pub revoked: bool,
    updates: Vec<(i64, Value)>,
    last_update: i64,
    last_message: i64,
    /// Which poll is the newest; an older one that still waits is told to go.
    poll: u64,
    webhook: String,
    /// What the webhook's owner wants to be shown.
    webhook_secret: String,
    /// Private chats with people who pressed Start, by user id.
    chats: BTreeSet<i64>,
    /// People who blocked the bot.
    blocked: BTreeSet<i64>,
}

impl Bot {
    fn push(&mut self, kind: &str, content: Value) {
        self.last_update += 1;
        self.updates.push((self.last_update, json!({"update_id": self.last_update, kind: content})));
    }

    fn person_pushes(&mut self, now: clock::Millis, person: &Value, old: &str, new: &str) {
        let chat = private_chat(person);
        let member = |status: &str| json!({"user": {"id": self.id, "is_bot": true}, "status": status});
        let (old, new) = (member(old), member(new));
        let date = now.unix_seconds();
        let content =
            json!({"chat": chat, "from": person, "date": date, "old_chat_member": old, "new_chat_member": new});
        self.push("my_chat_member", content);
    }

    fn person_says(&mut self, now: clock::Millis, person: &Value, text: &str) {
        self.last_message += 1;
        let date = now.unix_seconds();
        let content = json!({"message_id": self.last_message, "from": person, "chat": private_chat(person), "date": date, "text": text});
        self.push("message", content);
    }
}

/// The bot that exists from the start: id 123456, `sandbox_demo_bot`.
pub(super) fn register_first_bot(world: &mut World) {
    let token = new_token(world, 123_456);
    register(world, token, "sandbox_demo_bot", "Sandbox demo");
}

/// A token for a bot id in the usual form (C.4): digits, colon, at least 35 characters.
pub(super) fn new_token(world: &World, id: i64) -> String {
    format!("{id}:{CANARY}{}", world.random_text())
}

/// Registers a bot; `false` when the token has no id in front.
pub(super) fn register(world: &mut World, token: String, username: &str, first_name: &str) -> bool {
    let Some(id) = well_formed(&token) else { return false };
    world.issued.push(Issued { provider: Provider::Telegram, kind: "bot_token", value: token.clone() });
    let bot = Bot { id, username: username.to_owned(), first_name: first_name.to_owned(), ..Bot::default() };
    world.telegram.bots.insert(token, bot);
    true
}

/// A new token for the same bot; the old one ends (C.4). `None` when there is no such bot.
pub(super) fn renew_token(world: &mut World, name: &str) -> Option<String> {
    let id = bot_named(world, name)?.id;
    let old = world.telegram.bots.iter().find(|(_, bot)| bot.id == id && !bot.revoked)?.0.clone();
    let token = new_token(world, id);
    world.issued.push(Issued { provider: Provider::Telegram, kind: "bot_token", value: token.clone() });
    let bot = world.telegram.bots.remove(&old)?;
    world.telegram.bots.insert(token.clone(), bot);
    Some(token)
}

fn well_formed(token: &str) -> Option<i64> {
    let (id, secret) = token.split_once(':')?;
    let good = (5..=20).contains(&id.len())
        && (30..=80).contains(&secret.len())
        && secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if good { id.parse().ok() } else { None }
}

/// A bot by username, with or without `@`, or by id.
pub(super) fn bot_named<'w>(world: &'w mut World, name: &str) -> Option<&'w mut Bot> {
    let name = name.trim_start_matches('@');
    let mut bots = world.telegram.bots.values_mut().filter(|bot| !bot.revoked);
    bots.find(|bot| bot.username == name || bot.id.to_string() == name)
}

fn person(user: i64) -> Value {
    let known = ACCOUNTS.iter().find(|account| account.telegram_user == user);
    let (first_name, username) = known.map_or(("Somebody", "somebody_test"), |a| (a.name, a.telegram_username));
    json!({"id": user, "is_bot": false, "first_name": first_name, "username": username, "language_code": "en"})
}

/// The Telegram user behind a control call's `user`: an id, or the e-mail address of an account.
pub(super) fn user_id(user: &Value) -> Option<i64> {
    user.as_i64().or_else(|| {
        let text = user.as_str()?;
        Account::by_email(text).map(|account| account.telegram_user).or_else(|| text.parse().ok())
    })
}

/// The private chat with a person has the person's id (C.6).
fn private_chat(person: &Value) -> Value {
    json!({"id": person["id"], "type": "private", "first_name": person["first_name"], "username": person["username"]})
}

/// A person opens `t.me/<bot>?start=<payload>` and presses Start.
pub(super) fn press_start(world: &mut World, bot: &str, user: i64, payload: &str) -> bool {
    let now = world.now();
    let Some(bot) = bot_named(world, bot) else { return false };
    let who = person(user);
    if bot.blocked.remove(&user) {
        bot.person_pushes(now, &who, "kicked", "member");
    }
    bot.chats.insert(user);
    bot.person_says(now, &who, format!("/start {payload}").trim_end());
    true
}

/// A person who signs in with a bot lets it write; `false` when there is no such bot.
pub(super) fn let_write(world: &mut World, bot: &str, user: i64) -> bool {
    let Some(bot) = bot_named(world, bot) else { return false };
    bot.blocked.remove(&user);
    bot.chats.insert(user);
    true
}

/// A person writes to the bot.
pub(super) fn say(world: &mut World, bot: &str, user: i64, text: &str) -> bool {
    let now = world.now();
    let Some(bot) = bot_named(world, bot).filter(|bot| bot.chats.contains(&user)) else { return false };
    bot.person_says(now, &person(user), text);
    true
}

/// What is to be posted to a bot's webhook, and with which secret: the sandbox has no network to post it on.
pub(super) fn undelivered(world: &mut World, bot: &str) -> Option<Value> {
    let bot = bot_named(world, bot)?;
    let updates: Vec<Value> = bot.updates.drain(..).map(|(_, update)| update).collect();
    Some(json!({"url": bot.webhook, "secret_token": bot.webhook_secret, "updates": updates}))
}

/// A person blocks the bot.
pub(super) fn block(world: &mut World, bot: &str, user: i64) -> bool {
    let now = world.now();
    let Some(bot) = bot_named(world, bot) else { return false };
    if bot.blocked.insert(user) {
        bot.person_pushes(now, &person(user), "member", "kicked");
    }
    true
}

pub(super) fn router(shared: Shared) -> Router {
    Router::new()
        .merge(telegram_login::routes())
        .route("/{bot}/{method}", get(call).post(call))
        .fallback(|| async { refusal(404, "Not Found").answer() })
        .with_state(shared)
}

/// An error of the Bot API; the HTTP status equals `error_code` (C.4).
struct Refusal(u16, String);

fn refusal(code: u16, description: &str) -> Refusal {
    Refusal(code, description.to_owned())
}

impl Refusal {
    fn answer(self) -> Response {
        json(self.0, &json!({"ok": false, "error_code": self.0, "description": self.1}))
    }
}

async fn call(
    State(shared): State<Shared>,
    Path((bot, method)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let token = bot.strip_prefix("bot").filter(|token| well_formed(token).is_some());
    let Some(token) = token.map(str::to_owned) else { return refusal(404, "Not Found").answer() };
    let params = Params::lenient(query.as_deref(), &headers, &body);
    // Method names are not case sensitive.
    let method = method.to_ascii_lowercase();
    if method == "getupdates" && wait_for_updates(&shared, &token, &params).await.is_none() {
        let text = "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running";
        return refusal(409, text).answer();
    }
    let work = |world: &mut World, _: Bend| {
        let now = world.now();
        let done = match world.telegram.bots.get_mut(&token).filter(|bot| !bot.revoked) {
            None => Err(refusal(401, "Unauthorized")),
            Some(bot) => answer(bot, &method, &params, now),
        };
        match done {
            Err(refusal) => refusal.answer(),
            Ok(result) => {
                if method == "sendmessage" {
                    let sender = result["from"]["username"].as_str().unwrap_or("").to_owned();
                    let text = result["text"].as_str().unwrap_or("").to_owned();
                    world.record(Provider::Telegram, &sender, &result["chat"]["id"].to_string(), &text);
                }
                json(200, &json!({"ok": true, "result": result}))
            }
        }
    };
    answered(&shared, Provider::Telegram, Place::Api, work).await
}

/// Waits until the bot has updates or its time is up. `None` when a newer poll took over.
async fn wait_for_updates(shared: &Shared, token: &str, params: &Params) -> Option<()> {
    let seconds = params.get("timeout").and_then(|text| text.parse().ok()).unwrap_or(0_u64).min(LONGEST_POLL);
    let offset = number(params, "offset").unwrap_or(0);
    let mine = {
        let mut world = shared.world();
        let Some(bot) = world.telegram.bots.get_mut(token) else { return Some(()) };
        bot.poll += 1;
        bot.poll
    };
    shared.telegram_bell.notify_waiters();
    let waiting = async {
        loop {
            let rung = shared.telegram_bell.notified();
            tokio::pin!(rung);
            // Listening begins before looking, so that nothing can happen in between.
            rung.as_mut().enable();
            let (newest, ready) = {
                let world = shared.world();
                let bot = world.telegram.bots.get(token);
                let ready = bot.is_none_or(|bot| {
                    bot.revoked || !bot.webhook.is_empty() || bot.updates.iter().any(|(id, _)| *id >= offset)
                });
                (bot.map(|bot| bot.poll), ready)
            };
            if newest.is_some_and(|newest| newest != mine) {
                return None;
            }
            if ready || seconds == 0 {
                return Some(());
            }
            rung.await;
        }
    };
    clock::deadline(Duration::from_secs(seconds.max(1)), waiting).await.unwrap_or(Some(()))
}

fn number(params: &Params, name: &str) -> Option<i64> {
    params.get(name).and_then(|text| text.parse().ok())
}

fn answer(bot: &mut Bot, method: &str, params: &Params, now: clock::Millis) -> Result<Value, Refusal> {
    match method {
        "getme" => Ok(json!({
            "id": bot.id, "is_bot": true, "first_name": bot.first_name, "username": bot.username,
            "can_join_groups": true, "can_read_all_group_messages": false, "supports_inline_queries": false,
        })),
        "getupdates" => get_updates(bot, params),
        "sendmessage" => send_message(bot, params, now),
        "getchat" => {
            let chat = known_chat(bot, params)?;
            Ok(private_chat(&person(chat)))
        }
        "sendchataction" => {
            let chat = known_chat(bot, params)?;
            match bot.blocked.contains(&chat) {
                true => Err(refusal(403, "Forbidden: bot was blocked by the user")),
                false => Ok(json!(true)),
            }
        }
        "getwebhookinfo" => Ok(json!({
            "url": bot.webhook, "has_custom_certificate": false, "pending_update_count": bot.updates.len(),
        })),
        "setwebhook" => {
            // It is remembered, so that polling conflicts with it; [`undelivered`] gives what it is to be told.
            params.get("url").unwrap_or("").clone_into(&mut bot.webhook);
            params.get("secret_token").unwrap_or("").clone_into(&mut bot.webhook_secret);
            Ok(json!(true))
        }
        "deletewebhook" => {
            bot.webhook.clear();
            if params.get("drop_pending_updates") == Some("true") {
                bot.updates.clear();
            }
            Ok(json!(true))
        }
        _ => Err(refusal(404, "Not Found: method not found")),
    }
}

fn get_updates(bot: &mut Bot, params: &Params) -> Result<Value, Refusal> {
    if !bot.webhook.is_empty() {
        let text = "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first";
        return Err(refusal(409, text));
    }
    let offset = number(params, "offset").unwrap_or(0);
    if offset < 0 {
        // A negative offset counts from the end and forgets what is before it.
        let keep = usize::try_from(offset.unsigned_abs()).unwrap_or(usize::MAX);
        let surplus = bot.updates.len().saturating_sub(keep);
        bot.updates.drain(..surplus);
    } else {
        // Asking from an offset confirms everything before it.
        bot.updates.retain(|(id, _)| *id >= offset);
    }
    let limit = usize::try_from(number(params, "limit").unwrap_or(100).clamp(1, 100)).unwrap_or(100);
    Ok(bot.updates.iter().take(limit).map(|(_, update)| update.clone()).collect())
}

/// The chat a call names: a private chat the bot may speak in (C.4).
fn known_chat(bot: &Bot, params: &Params) -> Result<i64, Refusal> {
    let chat = params.get("chat_id").ok_or_else(|| refusal(400, "Bad Request: chat_id is empty"))?;
    let chat: i64 = chat.parse().map_err(|_| refusal(400, "Bad Request: chat not found"))?;
    if bot.chats.contains(&chat) {
        return Ok(chat);
    }
    if ACCOUNTS.iter().any(|account| account.telegram_user == chat) {
        return Err(refusal(403, "Forbidden: bot can't initiate conversation with a user"));
    }
    Err(refusal(400, "Bad Request: chat not found"))
}

fn send_message(bot: &mut Bot, params: &Params, now: clock::Millis) -> Result<Value, Refusal> {
    let chat = known_chat(bot, params)?;
    if bot.blocked.contains(&chat) {
        return Err(refusal(403, "Forbidden: bot was blocked by the user"));
    }
    let text = params.get("text").ok_or_else(|| refusal(400, "Bad Request: message text is empty"))?;
    if text.chars().count() > 4096 {
        return Err(refusal(400, "Bad Request: message is too long"));
    }
    bot.last_message += 1;
    let from = json!({"id": bot.id, "is_bot": true, "first_name": bot.first_name, "username": bot.username});
    let chat = private_chat(&person(chat));
    Ok(json!({"message_id": bot.last_message, "from": from, "chat": chat, "date": now.unix_seconds(), "text": text}))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{Street, text};

    const BOT: &str = "sandbox_demo_bot";
    const ADA: i64 = 987_654_321;

    async fn token(street: &Street) -> String {
        text(&street.sandbox.ask("/telegram/bots").await.expect("bots")["bots"][0], "token").to_owned()
    }

    async fn start(street: &Street, payload: &str) {
        street.tell("/telegram/start", json!({"bot": BOT, "user": "ada@example.com", "payload": payload})).await;
    }

    #[tokio::test]
    async fn a_token_is_known_unknown_or_malformed() {
        let street = Street::start().await;
        let token = token(&street).await;
        let me = street.telegram(&token, "getMe", json!({})).await;
        assert_eq!(me.json["result"]["id"], 123_456);
        assert_eq!(me.json["result"]["username"], BOT);
        let unknown = street.telegram(&format!("999999:{}", "x".repeat(35)), "getMe", json!({})).await;
        assert_eq!(
            (unknown.status, &unknown.json["error_code"], text(&unknown.json, "description")),
            (401, &json!(401), "Unauthorized")
        );
        assert_eq!(street.telegram("nonsense", "getMe", json!({})).await.status, 404);
        assert_eq!(street.telegram(&token, "getRich", json!({})).await.status, 404);
        street.tell("/revoke", json!({"provider": "telegram", "account": BOT})).await;
        assert_eq!(street.telegram(&token, "getMe", json!({})).await.status, 401, "taken back in BotFather");
    }

    #[tokio::test]
    async fn pressing_start_brings_the_payload_from_a_private_chat() {
        let street = Street::start().await;
        let token = token(&street).await;
        start(&street, "abc-1").await;
        let updates = street.telegram(&token, "getUpdates", json!({"timeout": 0})).await.json;
        let message = &updates["result"][0]["message"];
        assert_eq!(message["text"], "/start abc-1");
        assert_eq!(
            (&message["chat"]["id"], &message["from"]["id"], &message["chat"]["type"]),
            (&json!(ADA), &json!(ADA), &json!("private"))
        );
        let again = street.telegram(&token, "getUpdates", json!({})).await.json;
        assert_eq!(again["result"].as_array().map(Vec::len), Some(1), "not yet confirmed");
        let next = updates["result"][0]["update_id"].as_i64().expect("an id") + 1;
        let none = street.telegram(&token, "getUpdates", json!({"offset": next})).await.json;
        assert_eq!(none["result"], json!([]));
        let too_long = json!({"bot": BOT, "user": ADA, "payload": "x".repeat(65)});
        assert!(street.sandbox.tell("/telegram/start", &too_long).await.is_err());
    }

    #[tokio::test]
    async fn a_bot_may_write_only_to_people_who_started_it_and_did_not_block_it() {
        let street = Street::start().await;
        let token = token(&street).await;
        let send = |chat: Value| street.telegram(&token, "sendMessage", json!({"chat_id": chat, "text": "hello"}));
        let early = send(json!(ADA)).await;
        assert_eq!(
            (early.status, text(&early.json, "description")),
            (403, "Forbidden: bot can't initiate conversation with a user")
        );
        assert_eq!(text(&send(json!(1)).await.json, "description"), "Bad Request: chat not found");
        start(&street, "").await;
        assert_eq!(send(json!(ADA.to_string())).await.json["result"]["text"], "hello");
        assert_eq!(street.telegram(&token, "getChat", json!({"chat_id": ADA})).await.json["result"]["type"], "private");
        assert_eq!(street.telegram(&token, "sendMessage", json!({"chat_id": ADA})).await.status, 400);
        street.tell("/telegram/block", json!({"bot": BOT, "user": ADA})).await;
        let blocked = send(json!(ADA)).await;
        assert_eq!(
            (blocked.status, text(&blocked.json, "description")),
            (403, "Forbidden: bot was blocked by the user")
        );
        let updates = street.telegram(&token, "getUpdates", json!({"offset": -1})).await.json;
        assert_eq!(updates["result"][0]["my_chat_member"]["new_chat_member"]["status"], "kicked");
        let messages = street.sandbox.ask("/messages").await.expect("messages");
        assert_eq!(messages["messages"].as_array().map(Vec::len), Some(1));
        assert_eq!(messages["messages"][0]["to"], ADA.to_string());
    }

    #[tokio::test]
    async fn polling_conflicts_with_a_webhook_and_with_a_newer_poll() {
        let street = Street::start().await;
        let token = token(&street).await;
        street.telegram(&token, "setWebhook", json!({"url": "https://vault.example/hook"})).await;
        assert_eq!(
            street.telegram(&token, "getWebhookInfo", json!({})).await.json["result"]["url"],
            "https://vault.example/hook"
        );
        assert_eq!(street.telegram(&token, "getUpdates", json!({})).await.status, 409);
        street.telegram(&token, "deleteWebhook", json!({})).await;
        let older = street.telegram(&token, "getUpdates", json!({"timeout": 50}));
        tokio::pin!(older);
        // Short polls come until the long one, which has nothing to wait for, is told to go.
        let older = loop {
            let newer = street.telegram(&token, "getUpdates", json!({"timeout": 0}));
            tokio::select! {
                done = &mut older => break done,
                newer = newer => assert_eq!(newer.status, 200),
            }
        };
        assert_eq!(older.status, 409);
    }

    #[tokio::test]
    async fn a_waiting_poll_wakes_when_somebody_presses_start() {
        let street = Street::start().await;
        let token = token(&street).await;
        let (updates, ()) =
            tokio::join!(street.telegram(&token, "getUpdates", json!({"timeout": 50})), start(&street, "now"),);
        assert_eq!(updates.json["result"][0]["message"]["text"], "/start now");
    }

    #[tokio::test]
    async fn planted_limits_come_in_telegrams_own_shape() {
        let street = Street::start().await;
        let token = token(&street).await;
        street.plant("telegram", "http_429:7").await;
        let refused = street.telegram(&token, "getMe", json!({})).await;
        assert_eq!((refused.status, &refused.json["parameters"]["retry_after"]), (429, &json!(7)));
        let bot = street.tell("/telegram/bots", json!({"username": "own_bot"})).await;
        assert!(text(&bot, "token").contains(":vkcanary") && text(&bot, "token").len() >= 42);
        assert_eq!(street.telegram(text(&bot, "token"), "getMe", json!({})).await.status, 200);
    }
}
