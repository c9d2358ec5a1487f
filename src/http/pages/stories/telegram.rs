//! Telegram as people connect it: a bot of their own, the platform's bot by its link, and signing in with it.

use super::*;
use crate::connections::{Connection, ListFilter, Presser};

const GRACE: &str = "grace@example.com";
const BOT: &str = "sandbox_demo_bot";
const BOT_ID: &str = "123456";
const CLIENT_SECRET: &str = "vkcanary-web-login";
/// Ada's id, which is also her chat with every bot.
const ADA_ID: &str = "987654321";

impl Street {
    /// A tenant with the sandbox's bot; with a client people can sign in with it.
    async fn with_bot(client: bool) -> Self {
        let street = Self::open().await;
        let bots = street.sandbox.ask("/telegram/bots").await.expect("bots");
        let draft = IntegrationDraft {
            bot_token: bots["bots"][0]["token"].as_str().map(Secret::new),
            client_id: client.then(|| BOT_ID.to_owned()),
            client_secret: client.then(|| Secret::new(CLIENT_SECRET)),
            ..IntegrationDraft::default()
        };
        let made = street.house.house.connections.integration_put(&street.operator(), "telegram", draft).await;
        let redirect = made.expect("an integration").redirect_uri;
        if client {
            let known = json!({"provider": "telegram", "client_id": BOT_ID, "client_secret": CLIENT_SECRET,
                "redirect_uris": [redirect]});
            street.sandbox.tell("/clients", &known).await.expect("registered");
        }
        street
    }

    /// Somebody presses Start with this payload; whether it was of any effect.
    async fn press(&self, who: &str, payload: &str) -> bool {
        let before = self.seen().await;
        let pressed = json!({"bot": BOT, "user": who, "payload": payload});
        self.sandbox.tell("/telegram/start", &pressed).await.expect("pressed");
        self.deliver().await;
        before != self.seen().await
    }

    /// What is known of the connections, and of who has pressed Start.
    async fn seen(&self) -> Vec<(String, Option<Presser>)> {
        self.listed().await.into_iter().map(|one| (one.status, one.pressed_by)).collect()
    }

    /// Posts what the bot has for its webhook, each twice, as Telegram does when an answer was lost.
    async fn deliver(&self) {
        let told = self.sandbox.tell("/telegram/deliver", &json!({"bot": BOT})).await.expect("updates");
        let path = told["url"].as_str().and_then(|url| url.strip_prefix(PUBLIC)).expect("our own webhook").to_owned();
        let secret = told["secret_token"].as_str().expect("a secret");
        for update in told["updates"].as_array().expect("updates") {
            for _ in 0..2 {
                assert_eq!(self.post_update(&path, secret, &update.to_string()).await, StatusCode::OK);
            }
        }
    }

    async fn post_update(&self, path: &str, secret: &str, body: &str) -> StatusCode {
        let request = Request::post(path).header("x-telegram-bot-api-secret-token", secret);
        self.house.client().send(request.header("content-type", "application/json"), body.to_owned()).await.status
    }

    async fn listed(&self) -> Vec<Connection> {
        let filter = ListFilter { limit: 10, ..ListFilter::default() };
        self.house.house.connections.connection_list(&self.operator(), &filter).await.expect("a list")
    }

    async fn statuses(&self) -> Vec<(String, String)> {
        self.listed().await.into_iter().map(|one| (one.status, one.account.name.unwrap_or_default())).collect()
    }

    /// Whether the tenant may set this bot.
    async fn set(&self, client_id: Option<&str>, secret: bool, token: Option<&str>) -> bool {
        let draft = IntegrationDraft {
            client_id: client_id.map(str::to_owned),
            client_secret: secret.then(|| Secret::new(CLIENT_SECRET)),
            bot_token: token.map(Secret::new),
            ..IntegrationDraft::default()
        };
        self.house.house.connections.integration_put(&self.operator(), "telegram", draft).await.is_ok()
    }
}

/// What the link on a page carries.
fn payload(page: &Got) -> String {
    let (_, rest) = page.text.split_once(&format!("https://t.me/{BOT}?start=")).expect("a link to press Start behind");
    rest.split('"').next().expect("a payload").to_owned()
}

/// Which press a page asks about.
fn press(page: &Got) -> String {
    let hidden = page.text.split_once("name=\"press\" value=\"").map(|(_, rest)| rest.split('"').next());
    hidden.flatten().unwrap_or_default().to_owned()
}

/// Says whether it was oneself who pressed Start; the connection's page.
async fn answer(browser: &mut Client, connection: &str, was_me: bool) -> Got {
    let path = format!("/connections/{connection}");
    let page = browser.get(&path).await;
    let (csrf, press) = (page.csrf(), press(&page));
    let said = [("csrf", csrf.as_str()), ("was_me", if was_me { "yes" } else { "no" }), ("press", &press)];
    let sent = browser.post_form(&format!("{path}/start"), &said).await;
    assert_eq!(sent.status, StatusCode::SEE_OTHER, "{}", sent.text);
    browser.get(sent.header("location")).await
}

/// Goes to the platform's bot, without signing in; the page with the link.
async fn open_bot(browser: &mut Client) -> Got {
    let path = "/connections/connect/telegram";
    let csrf = browser.get(path).await.csrf();
    let sent = browser.post_form(path, &[("csrf", &csrf), ("provider", "telegram"), ("way", "platform_bot")]).await;
    assert_eq!(sent.status, StatusCode::SEE_OTHER, "{}", sent.text);
    browser.get(sent.header("location")).await
}

#[tokio::test]
async fn a_bot_of_ones_own_waits_for_start_and_then_works() {
    let street = Street::open().await;
    let bots = street.sandbox.ask("/telegram/bots").await.expect("bots");
    let (token, name) =
        (bots["bots"][0]["token"].as_str().expect("token"), bots["bots"][0]["username"].as_str().expect("name"));
    let mut browser = street.user("ada@acme.example", "u-42").await;
    let path = "/connections/connect/telegram";
    let page = browser.get(path).await;
    assert!(policy(&page).contains("form-action 'self';"), "{}", policy(&page));
    let csrf = page.csrf();
    let post = [("csrf", csrf.as_str()), ("provider", "telegram"), ("way", "own_bot")];
    for wrong in ["nonsense", "123456:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
        let got = browser.post_form(path, &[&post[..], &[("bot_token", wrong)]].concat()).await;
        assert_eq!(got.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(got.text.contains("role=\"alert\"") && !got.text.contains(wrong), "{}", got.text);
    }
    let sent = browser.post_form(path, &[&post[..], &[("bot_token", token)]].concat()).await;
    assert_eq!(sent.status, StatusCode::SEE_OTHER, "{}", sent.text);
    let end = sent.header("location").to_owned();
    let waiting = browser.get(&end).await;
    let start = format!("https://t.me/{name}?start=");
    let (_, rest) = waiting.text.split_once(&start).expect("a link to press Start behind");
    let payload = rest.split('"').next().expect("a payload").to_owned();
    let card = browser.get("/connections").await;
    assert!(card.text.contains("One step left") && card.text.contains(&start), "{}", card.text);

    let pressed = json!({"bot": name, "user": ADA, "payload": payload});
    street.sandbox.tell("/telegram/start", &pressed).await.expect("pressed");
    assert_eq!(street.house.house.connections.telegram_look().await.expect("looked"), 1);
    let asked = browser.get(&end).await;
    assert!(asked.text.contains("@ada_test") && asked.text.contains("data-vk=\"confirm\""), "{}", asked.text);
    answer(&mut browser, &connection_id(&card), true).await;
    let card = browser.get("/connections").await;
    assert!(card.text.contains("Working.") && card.text.contains("never leaves Valetkey"), "{}", card.text);
    let end = browser.get(&end).await;
    assert!(end.text.contains("Telegram is connected"), "{} {}", end.status, end.text);
    // Our keys are destroyed, but only BotFather can end a bot's token.
    let path = format!("/connections/{}/disconnect", connection_id(&card));
    let asked = browser.post_form(&path, &[("csrf", &csrf)]).await;
    assert!(asked.text.contains("/revoke"), "{}", asked.text);
    let gone = browser.post_form(&path, &[("csrf", &csrf), ("confirmed", "yes")]).await;
    assert_eq!(gone.header("location"), "/connections?done=disconnected-here");
}

#[tokio::test]
async fn a_start_pressed_by_a_stranger_twice_or_late_binds_nothing() {
    // Fact sheet C.6. Start in a group, by a bot or in a forwarded message is never read as one: see the provider's own tests.
    let street = Street::with_bot(false).await;
    let mut ada = street.user("ada@acme.example", "u-42").await;
    let waiting = open_bot(&mut ada).await;
    let forwarded = payload(&waiting);
    let card = ada.get("/connections").await;
    let connection = connection_id(&card);

    assert!(!street.press(GRACE, "not-a-payload-of-ours").await);
    assert!(street.press(GRACE, &forwarded).await, "somebody to whom the link was forwarded");
    assert_eq!(street.statuses().await, [("awaiting_start".to_owned(), format!("@{BOT}"))]);
    let asked = ada.get(&format!("/connections/{connection}")).await;
    assert!(asked.text.contains("@grace_test has pressed Start"), "{}", asked.text);
    let about_grace = press(&asked);
    assert!(street.press(ADA, &forwarded).await);
    let asked = ada.get(&format!("/connections/{connection}")).await;
    assert!(asked.text.contains("More than one person has pressed Start"), "{}", asked.text);
    assert!(!asked.text.contains("Yes, that was me") && !street.press(ADA, &forwarded).await);
    // A page that was left open does not confirm what it did not ask about.
    let path = format!("/connections/{connection}/start");
    let stale = [("csrf", asked.csrf()), ("was_me", "yes".to_owned()), ("press", about_grace)];
    let stale: Vec<(&str, &str)> = stale.iter().map(|(name, value)| (*name, value.as_str())).collect();
    ada.post_form(&path, &stale).await;
    assert_eq!(street.statuses().await, [("awaiting_start".to_owned(), format!("@{BOT}"))]);
    let mut eve = street.user("eve@acme.example", "u-66").await;
    let csrf = eve.get("/connections/connect/telegram").await.csrf();
    let foreign = eve.post_form(&path, &[("csrf", &csrf), ("was_me", "no")]).await;
    assert_eq!(foreign.status, StatusCode::NOT_FOUND, "another person does not answer for her");

    let again = answer(&mut ada, &connection, false).await;
    let fresh = payload(&again);
    assert_ne!(fresh, forwarded);
    assert!(!street.press(GRACE, &forwarded).await, "the forwarded link is worth nothing any more");
    street.house.clock.advance(crate::connections::START_LIFE);
    assert!(!street.press(ADA, &fresh).await, "too late");
    assert_eq!(street.statuses().await, [("awaiting_start".to_owned(), format!("@{BOT}"))]);

    let waiting = open_bot(&mut ada).await;
    let link = payload(&waiting);
    assert!(street.press(ADA, &link).await);
    assert!(answer(&mut ada, &connection, true).await.text.contains("Working."), "the same connection goes on");
    assert_eq!(street.statuses().await, [("active".to_owned(), "@ada_test".to_owned())]);
    assert!(!street.press(GRACE, &link).await, "used up");
    assert_eq!(street.statuses().await, [("active".to_owned(), "@ada_test".to_owned())]);

    // The same chat once more is the same connection.
    let link = payload(&open_bot(&mut ada).await);
    let begun = street.listed().await.into_iter().find(|one| one.status == "awaiting_start").expect("begun");
    assert!(street.press(ADA, &link).await);
    answer(&mut ada, begun.id.as_str(), true).await;
    assert_eq!(street.statuses().await, [("active".to_owned(), "@ada_test".to_owned())]);
    assert_eq!(street.connections().await, 1);
}

#[tokio::test]
async fn whoever_signs_in_with_the_bot_is_known_and_can_be_written_to() {
    // Fact sheet C.1
    let street = Street::with_bot(true).await;
    let mut ada = street.user("ada@acme.example", "u-42").await;
    let preview = ada.get("/connections/connect/telegram").await;
    for text in ["Know which account this is", "Let the bot write to you", "Read your chats."] {
        assert!(preview.text.contains(text), "{text}: {}", preview.text);
    }
    let url = street.begin(&mut ada, "telegram").await;
    assert!(url.contains("code_challenge_method=S256") && url.contains("nonce="), "{url}");
    let arrived = ada.get(&street.consent(&url, true, None).await).await;
    let end = ada.get(arrived.header("location")).await;
    assert!(end.text.contains("Telegram is connected"), "{}", end.text);
    assert_eq!(street.statuses().await, [("active".to_owned(), "Ada".to_owned())]);
    assert_eq!(street.listed().await[0].account.id, ADA_ID, "the numeric id, not the subject");
    assert_eq!(street.house.count("SELECT count(*) FROM credentials WHERE refresh_token IS NOT NULL").await, 0);
    // Once more is the same connection.
    let url = street.begin(&mut ada, "telegram").await;
    ada.get(&street.consent(&url, true, None).await).await;
    assert_eq!(street.connections().await, 1);
}

#[tokio::test]
async fn a_bot_that_may_not_write_waits_for_the_start_of_exactly_who_signed_in() {
    let street = Street::with_bot(true).await;
    let mut ada = street.user("ada@acme.example", "u-42").await;
    let url = street.begin(&mut ada, "telegram").await;
    let arrived = ada.get(&street.consent(&url, true, Some(&[])).await).await;
    let end = arrived.header("location").to_owned();
    let page = ada.get(&end).await;
    assert!(page.text.contains("One step left") && page.text.contains(&format!("@{BOT}")), "{}", page.text);
    let link = payload(&page);
    assert_eq!(street.statuses().await, [("awaiting_start".to_owned(), "Ada".to_owned())]);
    assert!(!street.press(GRACE, &link).await, "a stranger with the link");
    assert_eq!(street.statuses().await, [("awaiting_start".to_owned(), "Ada".to_owned())]);
    assert!(street.press(ADA, &link).await, "and it was not used up by that");
    assert_eq!(street.statuses().await, [("active".to_owned(), "Ada".to_owned())]);
    assert!(ada.get(&end).await.text.contains("Telegram is connected"));
}

#[tokio::test]
async fn a_hosted_link_offers_telegram_where_people_can_sign_in_oa_02() {
    let street = Street::with_bot(false).await;
    let wish = NewConnectSession {
        user: "u-42".to_owned(),
        providers: vec!["telegram".to_owned()],
        return_url: Some("https://app.example/back".to_owned()),
        ..NewConnectSession::default()
    };
    let refused = street.house.house.connections.connect_session_create(&street.operator(), wish).await;
    assert!(refused.is_err(), "a bot that nobody can sign in with");

    let street = Street::with_bot(true).await;
    let (id, path) = street.link("redirect", &["telegram"]).await;
    let mut browser = street.house.client();
    let csrf = browser.get(&path).await.csrf();
    let fields = [("csrf", csrf.as_str()), ("provider", "telegram"), ("way", "consent")];
    let sent = browser.post_form(&path, &fields).await;
    let arrived = browser.get(&street.consent(sent.header("location"), true, Some(&[])).await).await;
    let back: url::Url = arrived.header("location").parse().expect("the return URL");
    let code = back.query_pairs().find(|(name, _)| name == "completion_code").expect("a code").1.into_owned();
    let exchanged = "/telegram/token_requests/authorization_code";
    assert_eq!((street.counter(exchanged).await, street.connections().await), (0, 0), "the code is parked");
    let confirmation = Confirmation { user: "u-42".to_owned(), completion_code: Secret::new(code) };
    let made = street.house.house.connections.connect_confirm(&street.operator(), &id, confirmation).await;
    let made = made.expect("a connection");
    assert_eq!((street.counter(exchanged).await, made.status.as_str()), (1, "awaiting_start"));
    assert!(made.start_link.is_some_and(|link| link.starts_with("https://t.me/")), "the platform shows the last step");
}

#[tokio::test]
async fn a_blocked_bot_is_noticed_and_goes_on_when_it_is_unblocked() {
    // Fact sheet C.6
    let street = Street::with_bot(true).await;
    let mut ada = street.user("ada@acme.example", "u-42").await;
    let url = street.begin(&mut ada, "telegram").await;
    ada.get(&street.consent(&url, true, None).await).await;
    let block = json!({"bot": BOT, "user": ADA});
    street.sandbox.tell("/telegram/block", &block).await.expect("blocked");
    street.deliver().await;
    let blocked = street.listed().await.remove(0);
    assert_eq!((blocked.status.as_str(), blocked.reason.as_deref()), ("needs_reauth", Some("chat_blocked")));
    assert!(ada.get("/connections").await.text.contains("You have blocked the bot in Telegram"));
    let heard = "SELECT count(*) FROM audit_entries WHERE reason = 'chat_blocked'";
    assert_eq!(street.house.count(heard).await, 1, "told twice, it is one thing");

    street.press(ADA, "").await;
    assert_eq!(street.statuses().await, [("active".to_owned(), "Ada".to_owned())], "unblocked");

    // A tool that meets the block first.
    let connection = street.listed().await.remove(0);
    let caller = street.operator();
    street.house.house.connections.chat_refused(&caller, connection.id.as_str()).await.expect("told");
    assert_eq!(street.listed().await[0].reason.as_deref(), Some("chat_blocked"));
}

#[tokio::test]
async fn an_update_without_the_right_secret_is_not_heard() {
    // Fact sheet C.6
    let street = Street::with_bot(false).await;
    let mut ada = street.user("ada@acme.example", "u-42").await;
    let link = payload(&open_bot(&mut ada).await);
    let told = street.sandbox.tell("/telegram/deliver", &json!({"bot": BOT})).await.expect("updates");
    let path = told["url"].as_str().and_then(|url| url.strip_prefix(PUBLIC)).expect("our own webhook").to_owned();
    let secret = told["secret_token"].as_str().expect("a secret").to_owned();
    let person = json!({"id": 5, "is_bot": false, "first_name": "Ada"});
    let start = json!({"update_id": 1, "message": {"message_id": 1, "from": person,
        "chat": {"id": 5, "type": "private"}, "text": format!("/start {link}")}});
    let start = start.to_string();
    for wrong in ["", "x", &secret[1..], &format!("{secret}x")] {
        assert_eq!(street.post_update(&path, wrong, &start).await, StatusCode::UNAUTHORIZED, "{wrong}");
    }
    assert_eq!(street.post_update("/hooks/telegram/int_nowhere", &secret, &start).await, StatusCode::UNAUTHORIZED);
    assert_eq!(street.listed().await[0].pressed_by, None);
    assert_eq!(street.post_update(&path, &secret, "{").await, StatusCode::BAD_REQUEST);
    assert_eq!(street.post_update(&path, &secret, &start).await, StatusCode::OK);
    let Some(Presser::One { name, .. }) = street.listed().await[0].pressed_by.clone() else { panic!("nobody") };
    assert!(name.contains("without a user name") && name.contains("Ada") && name.contains("number is 5"), "{name}");
}

#[tokio::test]
async fn the_client_of_telegram_is_the_bot_itself() {
    let street = Street::with_bot(false).await;
    let other = "999999:AAvault-test-token-not-a-real-secret00";
    assert!(!street.set(Some("999999"), true, None).await, "another bot than the one whose token is there");
    assert!(!street.set(Some(BOT_ID), false, None).await, "without its secret");
    assert!(!street.set(None, true, None).await, "a secret of nobody");
    assert!(street.set(Some(BOT_ID), true, None).await);
    assert!(!street.set(None, false, Some(other)).await, "another bot's token beside the old client");
    assert!(street.set(Some("999999"), true, Some(other)).await, "both together");
}

#[tokio::test]
async fn a_bot_whose_integration_is_gone_is_free_again() {
    let street = Street::with_bot(false).await;
    let token = street.sandbox.ask("/telegram/bots").await.expect("bots")["bots"][0]["token"].clone();
    let token = token.as_str().expect("a token");
    let mut ada = street.user("ada@acme.example", "u-42").await;
    let told = async || {
        let told = street.sandbox.tell("/telegram/deliver", &json!({"bot": BOT})).await.expect("updates");
        told["url"].as_str().expect("a URL").to_owned()
    };
    let (operator, room) = (street.operator(), &street.house.house.connections);
    let clear = async || {
        for connection in street.listed().await {
            room.disconnect(&operator, &connection.id).await.expect("disconnects");
        }
        room.integration_delete(&operator, "telegram").await.expect("deletes");
    };
    open_bot(&mut ada).await;
    assert!(told().await.starts_with(PUBLIC));
    clear().await;
    assert_eq!(told().await, "", "nothing is sent here any more");

    assert!(street.set(None, false, Some(token)).await);
    open_bot(&mut ada).await;
    let first = told().await;
    street.sandbox.tell("/faults", &json!({"provider": "telegram", "name": "http_502_html"})).await.expect("planted");
    clear().await;
    assert_eq!(told().await, first, "Telegram has not heard of it");
    assert!(street.set(None, false, Some(token)).await);
    open_bot(&mut ada).await;
    let second = told().await;
    assert!(second.starts_with(PUBLIC) && second != first, "{second}");
    street.press(ADA, "").await;
}

#[tokio::test]
async fn what_is_told_late_of_a_block_changes_nothing() {
    // Fact sheet C.6: a repetition after minutes
    let street = Street::with_bot(true).await;
    let mut ada = street.user("ada@acme.example", "u-42").await;
    let url = street.begin(&mut ada, "telegram").await;
    ada.get(&street.consent(&url, true, None).await).await;
    street.sandbox.tell("/telegram/block", &json!({"bot": BOT, "user": ADA})).await.expect("blocked");
    let late = street.sandbox.tell("/telegram/deliver", &json!({"bot": BOT})).await.expect("updates");
    street.house.clock.advance(Duration::from_secs(60));
    street.press(ADA, "").await;
    street.house.clock.advance(Duration::from_secs(60));
    let path = late["url"].as_str().and_then(|url| url.strip_prefix(PUBLIC)).expect("our own webhook").to_owned();
    let secret = late["secret_token"].as_str().expect("a secret");
    for update in late["updates"].as_array().expect("updates") {
        assert_eq!(street.post_update(&path, secret, &update.to_string()).await, StatusCode::OK);
    }
    assert_eq!(street.statuses().await, [("active".to_owned(), "Ada".to_owned())], "it was unblocked since");
}
