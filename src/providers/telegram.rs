//! Telegram (provider fact sheet C): bots, and who somebody is. There is no OAuth that acts: signing in (C.1) says who it is and lets
//! a bot write. The secret is the bot's token, which never expires, travels in the URL's path and therefore never leaves the vault.
//! Every address of the Bot API built here is a secret.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::Url;

use super::address::Variables;
use super::api_call::{ApiCall, AttachError, below};
use super::described::{Described, identity_missing};
use super::descriptor::Descriptor;
use super::errors::{Code, Failure};
use super::id_token::displayable;
use super::notices::Disbelief;
use super::oauth2::{Answer, Street};
use super::{Account, AuthorizeRequest, Client, CodeGrant, CredentialKind, Exchange, Provider, RevokeTokens, TokenSet};
use crate::clock::Surroundings;
use crate::crypto::signature::same;
use crate::outbound::{Knock, Limits, Outbound, Request};
use crate::secret::Secret;

/// Its id in the catalogue.
pub const ID: &str = "telegram";

/// How many updates are asked for at once. With the longest texts they fit the answer's limit many times over.
const UPDATES_AT_ONCE: u8 = 50;
/// Pressed Starts, and people who block a bot or take it back.
const WANTED_UPDATES: [&str; 2] = ["message", "my_chat_member"];

/// Signing in, and the Bot API for tokens that users or tenants brought.
pub struct Telegram {
    described: Described,
    street: Street,
}

/// Who a bot token belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bot {
    /// The bot's numeric id, also the first part of its token.
    pub id: i64,
    /// Without `@`. Every bot has one.
    pub username: String,
    /// For display.
    pub name: Option<String>,
}

/// An update of a bot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Rises by one or more; ask next from `id + 1`. Deliveries repeat, so drop what was seen (fact sheet C.6).
    pub id: i64,
    /// A person pressed Start on a link of ours, in a private chat with the bot. `None` for anything else, including
    /// Start in groups and by others.
    pub start: Option<Start>,
    /// A person has let the bot write in their private chat, or has blocked it.
    pub access: Option<WriteAccess>,
}

/// Whether a bot may write to a person, as Telegram tells when it changes (`my_chat_member`, fact sheet C.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteAccess {
    /// The private chat, which is also the person's id.
    pub chat_id: i64,
    /// False once the bot is blocked.
    pub may_write: bool,
    /// Seconds since 1970, by Telegram's clock.
    pub at: i64,
}

/// A pressed Start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// What the link carried: 1 to 64 characters of `[A-Za-z0-9_-]`. Whoever sent it may be anybody.
    pub payload: String,
    /// The private chat, which is also the person's id.
    pub chat_id: i64,
    /// For display, without `@`.
    pub username: Option<String>,
    /// For display.
    pub name: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Envelope {
    ok: Value,
    result: Value,
    error_code: Value,
    parameters: Value,
}

impl Telegram {
    pub(super) fn new(descriptor: Descriptor, outbound: Outbound, around: Surroundings) -> Self {
        let street = Street::new(outbound.clone(), around.clone());
        Self { described: Described::new(descriptor, outbound, around), street }
    }

    /// Checks a token and says whose it is.
    ///
    /// # Errors
    /// [`Failure::Reauth`] when the token is dead, malformed or belongs to another bot than its first part says.
    pub async fn get_me(&self, token: &Secret) -> Result<Bot, Failure> {
        let me = self.call(token, "getMe", &json!({})).await?;
        let bot = read_bot(&me).ok_or_else(unreadable)?;
        if bot_id(token).and_then(|id| id.parse::<i64>().ok()) != Some(bot.id) {
            return Err(Failure::Reauth { code: Code::own("token_of_another_bot") });
        }
        Ok(bot)
    }

    /// What happened since, oldest first; returns at once. `offset` is the last seen id plus 1, or 0. Fails with
    /// [`Failure::Configuration`] and code `conflict` while a webhook is set.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn get_updates(&self, token: &Secret, offset: i64) -> Result<Vec<Update>, Failure> {
        let wanted = json!({
            "offset": offset, "limit": UPDATES_AT_ONCE, "timeout": 0, "allowed_updates": WANTED_UPDATES
        });
        let updates = self.call(token, "getUpdates", &wanted).await?;
        let updates = updates.as_array().ok_or_else(unreadable)?;
        Ok(updates.iter().filter_map(update).collect())
    }

    /// Where this bot's updates are sent; empty when they can be asked for.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn webhook(&self, token: &Secret) -> Result<String, Failure> {
        let info = self.call(token, "getWebhookInfo", &json!({})).await?;
        let info = info.as_object().ok_or_else(unreadable)?;
        Ok(info.get("url").and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    /// Has this bot's updates sent to `url`, each with `secret` in its header.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn set_webhook(&self, token: &Secret, url: &str, secret: &Secret) -> Result<(), Failure> {
        let wanted = json!({"url": url, "secret_token": secret.expose(), "allowed_updates": WANTED_UPDATES});
        self.call(token, "setWebhook", &wanted).await.map(|_| ())
    }

    /// Has the bot's updates wait to be asked for again.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn delete_webhook(&self, token: &Secret) -> Result<(), Failure> {
        self.call(token, "deleteWebhook", &json!({})).await.map(|_| ())
    }

    /// Whether the bot may write in a private chat: it lets "typing" be shown there, for which nothing else is a proof (C.1).
    ///
    /// # Errors
    /// [`Failure`] when that cannot be found out.
    pub async fn may_write(&self, token: &Secret, chat: i64) -> Result<bool, Failure> {
        match self.call(token, "sendChatAction", &json!({"chat_id": chat, "action": "typing"})).await {
            Ok(_) => Ok(true),
            Err(Failure::Admin { .. }) => Ok(false),
            // `chat not found`: the person has never met this bot.
            Err(Failure::Unrecognised { code }) if code == Code::http(400) => Ok(false),
            Err(other) => Err(other),
        }
    }

    async fn call(&self, token: &Secret, method: &str, parameters: &Value) -> Result<Value, Failure> {
        let refused = |_| Failure::Reauth { code: Code::own("token_malformed") };
        let url = self.url(token, method).map_err(refused)?;
        let request = json_request(url, Bytes::from(parameters.to_string()));
        // Nothing here is spent by being asked twice, so a lost answer is a passing problem.
        match self.street.send_with(request, Limits::api()).await {
            Err(Failure::Ambiguous { code } | Failure::ServerError { code }) => Err(Failure::Transient { code }),
            Err(other) => Err(other),
            Ok(answer) => read(&answer),
        }
    }

    /// `{base}/bot<token>/{method}`. The token is checked first, so that it cannot bend the path.
    fn url(&self, token: &Secret, method: &str) -> Result<Url, AttachError> {
        if !token_is_plausible(token) {
            return Err(AttachError::Token);
        }
        let base = self.descriptor().endpoints.api_base("", Variables::NONE).ok_or(AttachError::UnknownApi)?;
        below(&base, &format!("bot{}/{method}", token.expose()))
    }
}

#[async_trait]
impl Provider for Telegram {
    fn descriptor(&self) -> &Descriptor {
        self.described.descriptor()
    }

    fn authorize_url(&self, request: &AuthorizeRequest<'_>) -> Option<Url> {
        self.described.authorize_url(request)
    }

    /// No API takes the access token that comes with the id_token, so it is dropped (C.1).
    async fn exchange(&self, client: Client<'_>, grant: CodeGrant<'_>) -> Result<Exchange, Failure> {
        let account = self.described.sign_in(client, grant).await?;
        let chat = account.id.parse().ok().filter(|chat| *chat > 0).ok_or_else(identity_missing)?;
        Ok(Exchange { account, tokens: Vec::new(), variables: BTreeMap::new(), chat: Some(chat) })
    }

    async fn refresh(
        &self,
        _client: Client<'_>,
        _kind: CredentialKind,
        _token: &Secret,
        _door: Option<Knock>,
    ) -> Result<TokenSet, Failure> {
        Err(Failure::Unrecognised { code: Code::own("not_refreshable") })
    }

    async fn mint(&self, _kind: CredentialKind, _grant: &Secret) -> Result<TokenSet, Failure> {
        Err(Failure::Unrecognised { code: Code::own("not_refreshable") })
    }

    async fn whose(
        &self,
        _kind: CredentialKind,
        secret: &Secret,
        _variables: &Variables,
    ) -> Result<Option<Account>, Failure> {
        let bot = self.get_me(secret).await?;
        Ok(Some(Account { id: bot.id.to_string(), email: None, name: Some(format!("@{}", bot.username)) }))
    }

    async fn revoke(&self, _client: Client<'_>, _tokens: &RevokeTokens<'_>) -> Result<(), Failure> {
        Err(Failure::Admin { code: Code::own("not_revocable") })
    }

    /// Always a `POST` with a JSON object; a query is dropped, since Telegram reads parameters from it too. For a
    /// method that carries a chat, `chat` replaces every address in the body.
    fn attach(&self, call: ApiCall<'_>, _kind: CredentialKind, token: &Secret) -> Result<Request, AttachError> {
        let name = call.method_name(self.descriptor())?;
        let carries_chat = self.descriptor().carries_chat(name).ok_or(AttachError::MethodNotAllowed)?;
        let chat = match (carries_chat, call.chat) {
            (true, None) => return Err(AttachError::NoChat),
            (true, chat) => chat,
            (false, _) => None,
        };
        let body = body_for_chat(&call.body, chat)?;
        Ok(json_request(self.url(token, name)?, body))
    }
}

fn json_request(url: Url, body: Bytes) -> Request {
    Request::post(url).raw("application/json", body)
}

/// Checks the shape of a token before it is sent anywhere (fact sheet C.4): 5 to 20 digits, a colon, 30 to 80
/// characters of `[A-Za-z0-9_-]`.
#[must_use]
pub fn token_is_plausible(token: &Secret) -> bool {
    let Some((id, secret)) = token.expose().split_once(':') else { return false };
    (5..=20).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_digit())
        && (30..=80).contains(&secret.len())
        && secret.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// The id of the bot that a token is for: its first part.
#[must_use]
pub fn bot_id(token: &Secret) -> Option<&str> {
    token.expose().split_once(':').map(|(id, _)| id)
}

/// The link that opens a chat with the bot and, when Start is pressed, sends it `payload` (fact sheet C.6). `None`
/// when the payload is not 1 to 64 characters of `[A-Za-z0-9_-]` or the user name is none.
#[must_use]
pub fn start_link(username: &str, payload: &str) -> Option<Url> {
    let word = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !payload_fits(payload) || !(1..=32).contains(&username.len()) || !word(username) {
        return None;
    }
    Url::parse(&format!("https://t.me/{username}?start={payload}")).ok()
}

fn payload_fits(payload: &str) -> bool {
    (1..=64).contains(&payload.len()) && payload.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn unreadable() -> Failure {
    Failure::Transient { code: Code::own("answer_unreadable") }
}

fn read(answer: &Answer) -> Result<Value, Failure> {
    let envelope: Option<Envelope> =
        Some(&answer.body).filter(|body| body.starts_with(b"{")).and_then(|body| serde_json::from_slice(body).ok());
    match envelope {
        Some(envelope) if answer.status == 200 && envelope.ok == Value::Bool(true) => Ok(envelope.result),
        Some(envelope) => Err(refusal(answer, &envelope)),
        None if answer.status == 200 => Err(unreadable()),
        None => Err(refusal(answer, &Envelope::default())),
    }
}

/// The table of fact sheet C.4 for calls about the bot itself.
fn refusal(answer: &Answer, envelope: &Envelope) -> Failure {
    let status = envelope.error_code.as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(answer.status);
    let asked = envelope.parameters.get("retry_after").and_then(Value::as_u64).map(Duration::from_secs);
    match status {
        401 => Failure::Reauth { code: Code::own("token_revoked") },
        // The method exists, so it is the token that Telegram cannot read.
        404 => Failure::Reauth { code: Code::own("token_malformed") },
        403 => Failure::Admin { code: Code::own("chat_forbidden") },
        409 => Failure::Configuration { code: Code::own("conflict") },
        429 => Failure::RateLimited { after: asked.or(answer.after) },
        500..=599 | 408 => Failure::Transient { code: Code::http(status) },
        _ => Failure::Unrecognised { code: Code::http(status) },
    }
}

fn read_bot(me: &Value) -> Option<Bot> {
    let username = me.get("username")?.as_str().and_then(displayable)?;
    let is_bot = me.get("is_bot").and_then(Value::as_bool).unwrap_or(true);
    let name = me.get("first_name").and_then(Value::as_str).and_then(displayable);
    is_bot.then_some(Bot { id: me.get("id")?.as_i64()?, username, name })
}

/// Reads an update that a webhook brought, once `shown` with it is found to be the secret that was given with
/// [`set_webhook`](Telegram::set_webhook); there is no signature (fact sheet C.6).
///
/// # Errors
/// [`Disbelief::Signature`], [`Disbelief::Malformed`].
pub fn update_told(secret: &Secret, shown: &Secret, body: &[u8]) -> Result<Update, Disbelief> {
    if !same(shown.expose().as_bytes(), secret.expose().as_bytes()) {
        return Err(Disbelief::Signature);
    }
    read_update(body).ok_or(Disbelief::Malformed)
}

fn read_update(body: &[u8]) -> Option<Update> {
    update(&serde_json::from_slice(body).ok()?)
}

fn update(value: &Value) -> Option<Update> {
    let start = value.get("message").and_then(start);
    let access = value.get("my_chat_member").and_then(write_access);
    Some(Update { id: value.get("update_id")?.as_i64()?, start, access })
}

fn write_access(change: &Value) -> Option<WriteAccess> {
    let (chat_id, _) = private_chat(change)?;
    let may_write = match change.pointer("/new_chat_member/status")?.as_str()? {
        "member" => true,
        "kicked" => false,
        _ => return None,
    };
    Some(WriteAccess { chat_id, may_write, at: change.get("date")?.as_i64()? })
}

/// The private chat of exactly the person who acted: `chat.type` is `private` and `chat.id` equals `from.id`.
fn private_chat(message: &Value) -> Option<(i64, &Value)> {
    let (chat, from) = (message.get("chat")?, message.get("from")?);
    let chat_id = chat.get("id")?.as_i64()?;
    let private = chat.get("type")?.as_str()? == "private" && from.get("id")?.as_i64()? == chat_id;
    let human = from.get("is_bot").and_then(Value::as_bool) != Some(true);
    (private && human).then_some((chat_id, from))
}

fn start(message: &Value) -> Option<Start> {
    let (chat_id, from) = private_chat(message)?;
    let (command, payload) = message.get("text")?.as_str()?.split_once(' ')?;
    let ours = command == "/start" || command.starts_with("/start@");
    if !ours || !payload_fits(payload) || message.get("forward_origin").is_some() {
        return None;
    }
    let text = |name: &str| from.get(name).and_then(Value::as_str).and_then(displayable);
    Some(Start { payload: payload.to_owned(), chat_id, username: text("username"), name: text("first_name") })
}

/// The body with every address in it replaced by `chat` (fact sheet G.26).
fn body_for_chat(body: &[u8], chat: Option<i64>) -> Result<Bytes, AttachError> {
    let mut fields: Map<String, Value> = match body.trim_ascii() {
        [] => Map::new(),
        text => serde_json::from_slice(text).map_err(|_| AttachError::Body)?,
    };
    // Each of these leads a message elsewhere, or lets the bot speak as somebody else.
    for name in ["chat_id", "from_chat_id", "inline_message_id", "business_connection_id", "direct_messages_topic_id"] {
        fields.remove(name);
    }
    if let Some(reply) = fields.get_mut("reply_parameters").and_then(Value::as_object_mut) {
        reply.remove("chat_id");
    }
    if let Some(chat) = chat {
        fields.insert("chat_id".to_owned(), Value::from(chat));
    }
    serde_json::to_vec(&fields).map(Bytes::from).map_err(|_| AttachError::Body)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "123456789:AAvault-test-token-not-a-real-secret00";

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, body: body.as_bytes().to_vec().into(), after: None, max_age: None }
    }

    #[test]
    fn tokens_that_could_bend_a_path_are_not_plausible() {
        assert!(token_is_plausible(&Secret::new(TOKEN)));
        let long = format!("123456789:{}", "a".repeat(81));
        for token in [
            "",
            ":",
            "123456789",
            "123456789:short",
            "1234:AAvault-test-token-not-a-real-secret00",
            "12345678x:AAvault-test-token-not-a-real-secret00",
            "123456789:AAvault-test-token-not-a-real/../secret",
            "123456789:AAvault-test-token-not-a-real-secret00?x=1",
            "123456789:AAvault-test-token-not-a-real-secret00\n",
            "123456789:AAvault-test-token:not-a-real-secret00",
            long.as_str(),
        ] {
            assert!(!token_is_plausible(&Secret::new(token)), "{token:?}");
        }
    }

    #[test]
    fn the_bot_apis_answers_are_classified() {
        // fact sheet C.4
        let code = Code::own;
        let rows = [
            (
                401,
                r#"{"ok":false,"error_code":401,"description":"Unauthorized"}"#,
                Failure::Reauth { code: code("token_revoked") },
            ),
            (
                404,
                r#"{"ok":false,"error_code":404,"description":"Not Found"}"#,
                Failure::Reauth { code: code("token_malformed") },
            ),
            (
                403,
                r#"{"ok":false,"error_code":403,"description":"Forbidden: bot was blocked by the user"}"#,
                Failure::Admin { code: code("chat_forbidden") },
            ),
            (
                409,
                r#"{"ok":false,"error_code":409,"description":"Conflict"}"#,
                Failure::Configuration { code: code("conflict") },
            ),
            (
                429,
                r#"{"ok":false,"error_code":429,"parameters":{"retry_after":7}}"#,
                Failure::RateLimited { after: Some(Duration::from_secs(7)) },
            ),
            (429, "<html>", Failure::RateLimited { after: None }),
            (502, "<html>", Failure::Transient { code: Code::http(502) }),
            (500, r#"{"ok":false,"error_code":500}"#, Failure::Transient { code: Code::http(500) }),
            (
                400,
                r#"{"ok":false,"error_code":400,"description":"Bad Request"}"#,
                Failure::Unrecognised { code: Code::http(400) },
            ),
            (200, r#"{"ok":false,"error_code":401}"#, Failure::Reauth { code: code("token_revoked") }),
            (200, "<html>", unreadable()),
            (200, "", unreadable()),
            (200, "[1]", unreadable()),
            (302, "", Failure::Unrecognised { code: Code::http(302) }),
        ];
        for (status, body, wanted) in rows {
            assert_eq!(read(&answer(status, body)).expect_err(body), wanted, "{status} {body}");
        }
        assert_eq!(read(&answer(200, r#"{"ok":true,"result":[]}"#)), Ok(json!([])));
    }

    fn message(chat: &str, from: i64, text: &str) -> Vec<u8> {
        let from = format!(r#"{{"id":{from},"is_bot":false,"first_name":"Ada","username":"ada_test"}}"#);
        format!(r#"{{"update_id":5,"message":{{"message_id":1,"chat":{chat},"from":{from},"text":"{text}"}}}}"#).into()
    }

    #[test]
    fn start_counts_only_in_the_private_chat_of_whoever_pressed_it() {
        // fact sheet C.6
        let private = r#"{"id":77,"type":"private"}"#;
        let update = read_update(&message(private, 77, "/start n0nce_-A")).expect("an update");
        let start = Start {
            payload: "n0nce_-A".into(),
            chat_id: 77,
            username: Some("ada_test".into()),
            name: Some("Ada".into()),
        };
        assert_eq!(update, Update { id: 5, start: Some(start), access: None });

        let long = format!("/start {}", "a".repeat(65));
        let others = [
            message(private, 78, "/start n0nce"),
            message(r#"{"id":77,"type":"group"}"#, 77, "/start n0nce"),
            message(r#"{"id":"77","type":"private"}"#, 77, "/start n0nce"),
            message(private, 77, "/start"),
            message(private, 77, "/start "),
            message(private, 77, "/start a b"),
            message(private, 77, "/start a/b"),
            message(private, 77, "/starter n0nce"),
            message(private, 77, "say /start n0nce"),
            message(private, 77, &long),
            br#"{"update_id":5,"message":{"chat":{"id":77,"type":"private"},"text":"/start n0nce"}}"#.to_vec(),
            br#"{"update_id":5,"edited_message":{"chat":{"id":77,"type":"private"},"from":{"id":77},"text":"/start n"}}"#.to_vec(),
        ];
        for other in others {
            let update = read_update(&other).expect("an update");
            assert_eq!(update.start, None, "{}", String::from_utf8_lossy(&other));
        }
        assert_eq!(read_update(b"{\"update_id\":\"5\"}"), None);
    }

    #[test]
    fn only_a_person_in_their_private_chat_changes_whether_the_bot_may_write() {
        // fact sheet C.6
        let change = |chat: Value, from: i64, status: &str| {
            let change = json!({"chat": chat, "from": {"id": from}, "date": 9, "new_chat_member": {"status": status}});
            read_update(json!({"update_id": 5, "my_chat_member": change}).to_string().as_bytes())
                .expect("an update")
                .access
        };
        let private = json!({"id": 77, "type": "private"});
        let access = |may_write| Some(WriteAccess { chat_id: 77, may_write, at: 9 });
        assert_eq!(change(private.clone(), 77, "kicked"), access(false));
        assert_eq!(change(private.clone(), 77, "member"), access(true));
        assert_eq!(change(private.clone(), 77, "restricted"), None);
        assert_eq!(change(private, 78, "kicked"), None);
        assert_eq!(change(json!({"id": -5, "type": "group"}), -5, "kicked"), None);
    }

    #[test]
    fn the_vault_alone_addresses_a_message() {
        let body = br#"{"chat_id":666,"text":"hi","inline_message_id":"x","business_connection_id":"b",
            "reply_parameters":{"message_id":1,"chat_id":666}}"#;
        let seen: Value = serde_json::from_slice(&body_for_chat(body, Some(77)).expect("a body")).expect("json");
        assert_eq!(seen, json!({"chat_id": 77, "text": "hi", "reply_parameters": {"message_id": 1}}));
        assert_eq!(body_for_chat(b"  ", None).expect("a body"), "{}");
        for body in [&b"chat_id=666&text=hi"[..], b"[]", b"null", b"\"x\"", b"{\"chat_id\":666"] {
            assert_eq!(body_for_chat(body, Some(77)), Err(AttachError::Body));
        }
    }

    #[test]
    fn start_links_carry_a_payload_that_telegram_accepts() {
        let link = start_link("valet_bot", "abc-DEF_1").map(String::from);
        assert_eq!(link.as_deref(), Some("https://t.me/valet_bot?start=abc-DEF_1"));
        assert_eq!(start_link("valet_bot", ""), None);
        assert_eq!(start_link("valet_bot", "a b"), None);
        assert_eq!(start_link("valet/bot", "a"), None);
    }

    #[test]
    fn a_bot_is_known_by_its_number() {
        let me = json!({"id": 123_456_789, "is_bot": true, "first_name": "Valet", "username": "valet_bot"});
        let bot = Bot { id: 123_456_789, username: "valet_bot".into(), name: Some("Valet".into()) };
        assert_eq!(read_bot(&me), Some(bot));
        assert_eq!(read_bot(&json!({"id": 1, "is_bot": false, "username": "ada"})), None);
        assert_eq!(read_bot(&json!({"id": "1", "username": "x"})), None);
    }
}
