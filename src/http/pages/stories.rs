//! Connecting and disconnecting as people do it, from the sign-in page to the provider and back, on a real database
//! and against the pretend providers.
#![cfg(feature = "sandbox")]

mod asking;
mod attacks;
mod own_page;
mod telegram;

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::accounts::{NewTenant, Tenant};
use crate::caller::{Caller, Role};
use crate::connections::{Confirmation, IntegrationDraft, NewConnectSession};
use crate::http::testing::{Client, Got, PUBLIC, TestHouse};
use crate::ids::ConnectSessionId;
use crate::sandbox::Sandbox;
use crate::sandbox::person::Person;
use crate::secret::Secret;

const ADA: &str = "ada@example.com";
const SCOPES: [&str; 2] =
    ["https://www.googleapis.com/auth/calendar.events", "https://www.googleapis.com/auth/gmail.readonly"];

/// A tenant with Google, next to the sandbox.
struct Street {
    house: TestHouse,
    sandbox: Sandbox,
    tenant: Tenant,
}

impl Street {
    async fn open() -> Self {
        let (house, sandbox) = TestHouse::beside_the_sandbox().await;
        let new = NewTenant {
            name: "Acme Voice".to_owned(),
            return_urls: vec!["https://app.example/back".to_owned()],
            origins: vec!["https://app.example".to_owned()],
            ..NewTenant::default()
        };
        let tenant = house.house.accounts.tenant_create(new).await.expect("tenant");
        let street = Self { house, sandbox, tenant };
        street.integrate("google", &SCOPES, &[]).await;
        street
    }

    async fn integrate(&self, provider: &str, scopes: &[&str], user_scopes: &[&str]) {
        let texts = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect();
        let draft = IntegrationDraft {
            client_id: Some("client-1".to_owned()),
            client_secret: Some(Secret::new("vkcanary-client-secret")),
            scopes: Some(texts(scopes)),
            user_scopes: Some(texts(user_scopes)),
            ..IntegrationDraft::default()
        };
        let made = self.house.house.connections.integration_put(&self.operator(), provider, draft).await;
        let redirect = made.expect("an integration").redirect_uri;
        let client = json!({"provider": provider, "client_id": "client-1", "client_secret": "vkcanary-client-secret",
            "redirect_uris": [redirect]});
        self.sandbox.tell("/clients", &client).await.expect("registered");
    }

    fn operator(&self) -> Caller {
        Caller::operator(self.tenant.id.clone())
    }

    /// Somebody with connections of their own, signed in.
    async fn user(&self, email: &str, external_id: &str) -> Client {
        self.house.member(&self.tenant, email, None, Some(external_id)).await;
        let mut browser = self.house.client();
        assert_eq!(browser.sign_in(email).await.header("location"), "/");
        assert_eq!(browser.get("/").await.header("location"), "/connections");
        browser
    }

    /// Presses Continue on the preview; where the browser is sent.
    async fn begin(&self, browser: &mut Client, provider: &str) -> String {
        let path = format!("/connections/connect/{provider}");
        let csrf = browser.get(&path).await.csrf();
        let sent = browser.post_form(&path, &[("csrf", &csrf), ("provider", provider), ("way", "consent")]).await;
        assert_eq!(sent.status, StatusCode::SEE_OTHER, "{}", sent.text);
        sent.header("location").to_owned()
    }

    /// A whole connection to Ada's Google account; the page of its end.
    async fn connect(&self, browser: &mut Client) -> Got {
        let url = self.begin(browser, "google").await;
        let arrived = browser.get(&self.consent(&url, true, None).await).await;
        assert_eq!(arrived.status, StatusCode::SEE_OTHER, "{}", arrived.text);
        browser.get(arrived.header("location")).await
    }

    /// Answers the provider's consent page; the path and query of our callback.
    async fn consent(&self, authorize_url: &str, allow: bool, scopes: Option<&[&str]>) -> String {
        let mut person = Person::new().expect("a person");
        let page = person.get(authorize_url).await.expect("a page");
        assert_eq!(page.status, StatusCode::OK, "{}", page.body);
        let back = person.consent(allow, ADA, scopes).await.expect("answered").location().expect("a redirect");
        let back = back.to_string();
        back.strip_prefix(PUBLIC).expect("our own callback").to_owned()
    }

    async fn link(&self, mode: &str, providers: &[&str]) -> (ConnectSessionId, String) {
        let return_url = if mode == "popup" { "https://app.example" } else { "https://app.example/back" };
        let new = NewConnectSession {
            user: "u-42".to_owned(),
            providers: providers.iter().map(|one| (*one).to_owned()).collect(),
            return_url: Some(return_url.to_owned()),
            mode: Some(mode.to_owned()),
            ..NewConnectSession::default()
        };
        let link = self.house.house.connections.connect_session_create(&self.operator(), new).await.expect("a link");
        let path = link.url.expose().strip_prefix(PUBLIC).expect("our own link").to_owned();
        (link.id, path)
    }

    async fn counter(&self, pointer: &str) -> u64 {
        let counters = self.sandbox.ask("/counters").await.expect("counters");
        counters.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
    }

    async fn exchanges(&self) -> u64 {
        self.counter("/google/token_requests/authorization_code").await
    }

    async fn connections(&self) -> i64 {
        self.house.count("SELECT count(*) FROM connections WHERE deleted_at IS NULL").await
    }
}

/// The id in the first link to a connection's page.
fn connection_id(page: &Got) -> String {
    let (_, rest) = page.text.split_once("/connections/con_").expect("a connection");
    format!("con_{}", rest.split(['"', '/']).next().unwrap_or_default())
}

fn policy(page: &Got) -> &str {
    page.header("content-security-policy")
}

#[tokio::test]
async fn an_account_is_connected_looked_at_and_disconnected_at_its_provider_too() {
    let street = Street::open().await;
    let mut browser = street.user("ada@acme.example", "u-42").await;
    let empty = browser.get("/connections").await;
    assert!(empty.text.contains("No keys on the board yet") && empty.text.contains("/connections/connect/google"));
    assert!(!empty.text.contains("/connections/connect/slack"), "no integration, no tile");

    let preview = browser.get("/connections/connect/google").await;
    for text in ["Read all mail", "Know which account this is", "data-vk=\"continue\""] {
        assert!(preview.text.contains(text), "{text}: {}", preview.text);
    }
    let google = street.sandbox.google.origin().ascii_serialization();
    assert!(policy(&preview).contains(&format!("form-action 'self' {google};")), "{}", policy(&preview));
    assert!(policy(&browser.get("/connections").await).contains("form-action 'self';"));

    let ended = street.connect(&mut browser).await;
    assert_eq!(ended.status, StatusCode::OK);
    for text in ["Google is connected", ADA, "You allowed"] {
        assert!(ended.text.contains(text), "{text}: {}", ended.text);
    }
    let page = browser.get("/connections").await;
    for text in [ADA, "Working.", "Access is renewed automatically.", "4 permissions given", "not yet"] {
        assert!(page.text.contains(text), "{text}: {}", page.text);
    }
    let id = connection_id(&page);
    let detail = browser.get(&format!("/connections/{id}")).await;
    for text in ["Acting as you", "Connected by you", SCOPES[0]] {
        assert!(detail.text.contains(text), "{text}: {}", detail.text);
    }

    let path = format!("/connections/{id}/disconnect");
    let asked = browser.post_form(&path, &[("csrf", &detail.csrf())]).await;
    assert!(asked.status == StatusCode::OK && asked.text.contains("data-vk=\"confirm\""), "{}", asked.text);
    assert!(asked.text.contains("that the access is over"));
    assert_eq!((street.connections().await, street.counter("/google/revocations").await), (1, 0), "only asked so far");
    let gone = browser.post_form(&path, &[("csrf", &asked.csrf()), ("confirmed", "yes")]).await;
    assert_eq!(gone.header("location"), "/connections?done=disconnected");
    assert!(browser.get("/connections?done=disconnected").await.text.contains("The access was revoked"));
    assert_eq!((street.connections().await, street.counter("/google/revocations").await), (0, 1));
    assert_eq!(browser.get(&format!("/connections/{id}")).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_callback_leads_to_a_clean_page_and_works_once_wb_05_oa_01() {
    let street = Street::open().await;
    let mut browser = street.user("ada@acme.example", "u-42").await;
    let url = street.begin(&mut browser, "google").await;
    let back = street.consent(&url, true, None).await;

    // OA-15: asking for the headers alone uses nothing up.
    let head = browser.send(Request::builder().method(Method::HEAD).uri(&back), Body::empty()).await;
    assert_eq!(head.status, StatusCode::METHOD_NOT_ALLOWED);
    let arrived = browser.get(&back).await;
    let clean = arrived.header("location").to_owned();
    assert!(arrived.status == StatusCode::SEE_OTHER && clean.starts_with("/connections/result/"), "{clean}");
    assert!(!clean.contains("code") && !clean.contains("state") && !clean.contains('?'));
    for _ in 0..2 {
        assert!(browser.get(&clean).await.text.contains("Google is connected"), "reloading works");
    }
    assert_eq!(street.house.client().get(&clean).await.status, StatusCode::NOT_FOUND, "it is this browser's");

    for _ in 0..2 {
        let again = browser.get(&back).await;
        assert_eq!(again.status, StatusCode::BAD_REQUEST);
        assert!(again.text.contains("each one works only once"), "{}", again.text);
    }
    assert_eq!((street.exchanges().await, street.connections().await), (1, 1));
}

#[tokio::test]
async fn what_comes_back_to_another_browser_or_person_connects_nothing_oa_02() {
    let street = Street::open().await;
    let mut ada = street.user("ada@acme.example", "u-42").await;
    let mut eve = street.user("eve@acme.example", "u-66").await;
    // Eve's own handshake gives her browser a secret, but not Ada's.
    street.begin(&mut eve, "google").await;
    let url = street.begin(&mut ada, "google").await;
    let back = street.consent(&url, true, None).await;
    assert_eq!(eve.get(&back).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(ada.get(&back).await.status, StatusCode::BAD_REQUEST, "the state is used up");

    // The same browser, but Ada has left it and Eve has signed in.
    let back = street.consent(&street.begin(&mut ada, "google").await, true, None).await;
    let csrf = ada.get("/settings").await.csrf();
    ada.post_form("/sign-out", &[("csrf", &csrf)]).await;
    ada.sign_in("eve@acme.example").await;
    assert_eq!(ada.get(&back).await.status, StatusCode::BAD_REQUEST);
    assert_eq!((street.exchanges().await, street.connections().await), (0, 0));
    let noted = "SELECT count(*) FROM audit_entries WHERE action = 'handshake.user_mismatch' AND result = 'denied'";
    assert_eq!(street.house.count(noted).await, 2);
}

#[tokio::test]
async fn an_answer_in_another_form_is_refused_and_uses_the_state_up_oa_14() {
    let street = Street::open().await;
    let mut browser = street.user("ada@acme.example", "u-42").await;
    for more in ["&state=x", "&code=x", "&access_token=x", "&error=access_denied", "&response_mode=fragment"] {
        let back = street.consent(&street.begin(&mut browser, "google").await, true, None).await;
        let bad = browser.get(&format!("{back}{more}")).await;
        assert_eq!(bad.status, StatusCode::BAD_REQUEST, "{more}");
        assert_eq!(browser.get(&back).await.status, StatusCode::BAD_REQUEST, "{more}: the state is used up");
    }
    for query in ["", "?code=c", "?state=unknown&code=c", "?error=access_denied"] {
        let path = format!("/oauth/google/callback/int_x{query}");
        assert_eq!(browser.get(&path).await.status, StatusCode::BAD_REQUEST, "{query}");
    }
    assert_eq!((street.exchanges().await, street.connections().await), (0, 0));
}

#[tokio::test]
async fn no_is_an_answer_and_a_part_is_shown_as_such_oa_11_oa_16() {
    let street = Street::open().await;
    let mut browser = street.user("ada@acme.example", "u-42").await;
    let back = street.consent(&street.begin(&mut browser, "google").await, false, None).await;
    let evil = format!("{back}&error_description=%3Cscript%3Ealert(1)%3C/script%3E");
    let arrived = browser.get(&evil).await;
    let page = browser.get(arrived.header("location")).await;
    assert!(page.text.contains("Nothing was connected") && !page.text.contains("alert(1)"), "{}", page.text);
    assert_eq!((street.exchanges().await, street.connections().await), (0, 0));

    let some = Some(&[SCOPES[0]][..]);
    let back = street.consent(&street.begin(&mut browser, "google").await, true, some).await;
    let arrived = browser.get(&back).await;
    let page = browser.get(arrived.header("location")).await;
    assert!(page.text.contains("Not allowed."), "{}", page.text);
    let card = browser.get("/connections").await.text;
    assert!(
        card.contains("Agents also need what was not granted") && card.contains("Allow it at <bdi>Google</bdi>"),
        "{card}"
    );
}

#[tokio::test]
async fn a_hosted_link_is_used_by_its_button_once_and_the_platform_confirms_wb_12_oa_02() {
    let street = Street::open().await;
    let (id, path) = street.link("redirect", &[]).await;
    let mut browser = street.house.client();
    let page = browser.get(&path).await;
    for text in ["Acme Voice", "u-42", "app.example", "data-vk=\"continue\""] {
        assert!(page.text.contains(text), "{text}: {}", page.text);
    }
    let google = street.sandbox.google.origin().ascii_serialization();
    assert!(policy(&page).contains(&format!("form-action 'self' {google};")), "{}", policy(&page));
    let csrf = browser.get(&path).await.csrf();
    let fields = [("csrf", csrf.as_str()), ("provider", "google"), ("way", "consent")];
    assert_eq!(street.house.client().post_form(&path, &fields).await.status, StatusCode::BAD_REQUEST, "OA-15");
    let sent = browser.post_form(&path, &fields).await;
    assert_eq!(sent.status, StatusCode::SEE_OTHER, "{}", sent.text);
    let second = browser.post_form(&path, &fields).await;
    assert_eq!(second.status, StatusCode::GONE);
    assert!(second.text.contains("somebody has continued with this one"));
    assert_eq!(browser.get(&path).await.status, StatusCode::GONE);
    assert_eq!(browser.get("/connect/vkc_unknown").await.status, StatusCode::GONE);

    let arrived = browser.get(&street.consent(sent.header("location"), true, None).await).await;
    let back: url::Url = arrived.header("location").parse().expect("the return URL");
    assert!(back.as_str().starts_with("https://app.example/back?connect_session=cns_"), "{back}");
    let code = back.query_pairs().find(|(name, _)| name == "completion_code").expect("a code").1.into_owned();
    assert_eq!((street.exchanges().await, street.connections().await), (0, 0), "the code is parked");
    let confirmation = Confirmation { user: "u-42".to_owned(), completion_code: Secret::new(code) };
    let made = street.house.house.connections.connect_confirm(&street.operator(), &id, confirmation).await;
    assert_eq!(made.expect("a connection").account.email.as_deref(), Some(ADA));
    assert_eq!((street.exchanges().await, street.connections().await), (1, 1));
}

#[tokio::test]
async fn a_hosted_links_answer_in_a_foreign_browser_connects_nothing_oa_02() {
    let street = Street::open().await;
    let (id, path) = street.link("redirect", &["google"]).await;
    let mut attacker = street.house.client();
    let csrf = attacker.get(&path).await.csrf();
    let fields = [("csrf", csrf.as_str()), ("provider", "google"), ("way", "consent")];
    let sent = attacker.post_form(&path, &fields).await;
    let back = street.consent(sent.header("location"), true, None).await;
    let mut victim = street.house.client();
    assert_eq!(victim.get(&back).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(attacker.get(&back).await.status, StatusCode::BAD_REQUEST);
    let session = street.house.house.connections.connect_session(&street.operator(), &id).await.expect("a session");
    assert_eq!(session.state, "started");
    assert_eq!((street.exchanges().await, street.connections().await), (0, 0));
}

#[tokio::test]
async fn a_popup_tells_its_opener_and_keeps_it_all_the_way_wb_12() {
    let street = Street::open().await;
    let (_, path) = street.link("popup", &["google"]).await;
    let mut browser = street.house.client();
    let page = browser.get(&path).await;
    let fields = [("csrf", page.csrf()), ("provider", "google".to_owned()), ("way", "consent".to_owned())];
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let sent = browser.post_form(&path, &fields).await;
    let arrived = browser.get(&street.consent(sent.header("location"), true, None).await).await;
    let end = browser.get(arrived.header("location")).await;
    for answer in [&page, &sent, &arrived, &end] {
        assert_eq!(answer.header("cross-origin-opener-policy"), "unsafe-none");
    }
    assert!(policy(&end).contains("script-src 'self'"));
    for text in ["data-target-origin=\"https://app.example\"", "data-completion-code=\"vkp_", "/static/valetkey.js"] {
        assert!(end.text.contains(text), "{text}: {}", end.text);
    }
}

#[tokio::test]
async fn reconnecting_keeps_the_connection_and_refuses_another_account_oa_10() {
    let street = Street::open().await;
    let mut browser = street.user("ada@acme.example", "u-42").await;
    street.connect(&mut browser).await;
    let id = connection_id(&browser.get("/connections").await);
    let csrf = browser.get(&format!("/connections/{id}")).await.csrf();
    let to = browser.post_form(&format!("/connections/{id}/reconnect"), &[("csrf", &csrf)]).await;
    let preview = format!("/connections/connect/google?connection={id}");
    assert_eq!(to.header("location"), preview);
    let page = browser.get(&preview).await;
    assert!(page.text.contains("Reconnect <bdi>ada@example.com</bdi>"), "{}", page.text);

    for (account, words) in [(ADA, "Google is connected"), ("grace@example.com", "a different Google account")] {
        let csrf = page.csrf();
        let fields = [("csrf", csrf.as_str()), ("provider", "google"), ("way", "consent"), ("connection", id.as_str())];
        let sent = browser.post_form("/connections/connect/google", &fields).await;
        let mut person = Person::new().expect("a person");
        person.get(sent.header("location")).await.expect("a page");
        let back = person.consent(true, account, None).await.expect("answered").location().expect("a redirect");
        let arrived = browser.get(back.as_str().strip_prefix(PUBLIC).expect("ours")).await;
        assert!(browser.get(arrived.header("location")).await.text.contains(words), "{words}");
    }
    let detail = browser.get(&format!("/connections/{id}")).await.text;
    assert!(detail.contains("Reconnected by you") && detail.contains("Another account was chosen"), "{detail}");
    assert_eq!(street.connections().await, 1);
}

#[tokio::test]
async fn slack_is_asked_for_the_scopes_of_app_and_person_apart() {
    let street = Street::open().await;
    street.integrate("slack", &["chat:write"], &["search:read"]).await;
    let (_, path) = street.link("redirect", &["google", "slack"]).await;
    let mut browser = street.house.client();
    let page = browser.get(&path).await;
    let origins = [&street.sandbox.google, &street.sandbox.slack].map(|url| url.origin().ascii_serialization());
    assert!(policy(&page).contains(&format!("form-action 'self' {} {};", origins[0], origins[1])), "{}", policy(&page));
    let csrf = page.csrf();
    let sent = browser.post_form(&path, &[("csrf", &csrf), ("provider", "slack"), ("way", "consent")]).await;
    let url: url::Url = sent.header("location").parse().expect("a URL");
    let asked = |wanted: &str| url.query_pairs().find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned());
    assert_eq!(asked("scope").as_deref(), Some("chat:write"));
    assert_eq!(asked("user_scope").as_deref(), Some("search:read"));
}

#[tokio::test]
async fn anothers_connections_are_not_there_and_nobody_gets_in_without_signing_in_ap_01() {
    let street = Street::open().await;
    let mut ada = street.user("ada@acme.example", "u-42").await;
    let mut eve = street.user("eve@acme.example", "u-66").await;
    street.connect(&mut ada).await;
    let id = connection_id(&ada.get("/connections").await);
    assert!(!eve.get("/connections").await.text.contains(&id));
    let csrf = eve.get("/settings").await.csrf();
    for path in [
        format!("/connections/{id}"),
        format!("/activity?connection={id}"),
        format!("/connections/connect/google?connection={id}"),
    ] {
        assert_eq!(eve.get(&path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    for path in ["reconnect", "disconnect"] {
        let got = eve.post_form(&format!("/connections/{id}/{path}"), &[("csrf", &csrf), ("confirmed", "yes")]).await;
        assert_ne!(got.status, StatusCode::SEE_OTHER, "{path}");
    }
    assert_eq!(street.connections().await, 1);
    for path in ["/connections", "/activity", "/admin"] {
        let led = street.house.client().get(path).await;
        assert_eq!(led.header("location"), format!("/sign-in?next=%2F{}", &path[1..]));
    }
    assert_eq!(eve.get("/admin").await.status, StatusCode::FORBIDDEN);
    assert_eq!(eve.get("/connections/connect/nowhere").await.status, StatusCode::NOT_FOUND);
    assert_eq!(eve.get("/connections/connect/slack").await.status, StatusCode::NOT_FOUND, "no integration");
}

#[tokio::test]
async fn names_that_others_chose_are_text_on_every_page_wb_07() {
    const EVIL: &str = "<img src=x onerror=alert(1)>\"'";
    let street = Street::open().await;
    let mut browser = street.user("ada@acme.example", "u-42").await;
    let mut platform = street.house.platform(&street.tenant, &["connections:write", "connections:read"]).await;
    let row = json!({"user": "u-42", "provider": "google", "account": {"id": EVIL, "name": EVIL, "email": EVIL},
        "credentials": [{"kind": "user", "access_token": "ya29.vkcanary", "refresh_token": "1//vkcanary", "scopes": [EVIL]}]});
    let made = platform.json("POST", "/v1/connections/import", &json!({"connections": [row]})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let list = browser.get("/connections").await;
    let id = connection_id(&list);
    let detail = browser.get(&format!("/connections/{id}")).await;
    let asked = browser.post_form(&format!("/connections/{id}/disconnect"), &[("csrf", &detail.csrf())]).await;
    let preview = browser.get(&format!("/connections/connect/google?connection={id}")).await;
    let activity = browser.get(&format!("/activity?connection={id}")).await;
    for page in [&list, &detail, &asked, &preview, &activity] {
        assert_eq!(page.status, StatusCode::OK);
        assert!(page.text.contains("alert(1)") && !page.text.contains("<img"), "{}", page.text);
    }
    assert!(detail.text.contains("Brought along by Acme Voice"));
}

#[tokio::test]
async fn activity_says_what_used_an_account_and_the_overview_counts() {
    let street = Street::open().await;
    let mut browser = street.user("ada@acme.example", "u-42").await;
    street.connect(&mut browser).await;
    let id = connection_id(&browser.get("/connections").await);
    assert!(browser.get("/activity").await.text.contains("All quiet"));
    let mut platform = street.house.platform(&street.tenant, &["tokens:read"]).await;
    let path = format!("/v1/connections/{id}/token");
    for _ in 0..51 {
        assert_eq!(platform.json("POST", &path, &json!({})).await.status, StatusCode::OK);
    }
    street.house.clock.advance(Duration::from_secs(3590));
    assert_eq!(platform.json("POST", &path, &json!({})).await.status, StatusCode::OK, "refreshed");

    let page = browser.get(&format!("/activity?connection={id}")).await;
    for text in ["Today", "Lent to the platform", "Renewed", "Acme Voice", ADA, "Show all accounts"] {
        assert!(page.text.contains(text), "{text}: {}", page.text);
    }
    assert_eq!(page.text.matches("class=\"cell-time\"").count(), 50);
    let (_, rest) = page.text.split_once("href=\"/activity?cursor=").expect("older entries");
    let older = rest.split('"').next().expect("a link").replace("&amp;", "&");
    assert!(older.ends_with(&format!("&connection={id}")));
    let older = browser.get(&format!("/activity?cursor={older}")).await;
    assert_eq!(older.text.matches("class=\"cell-time\"").count(), 3);
    assert!(!older.text.contains("Older"));
    assert_eq!(browser.get("/activity?cursor=AAAA").await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let card = browser.get("/connections").await.text;
    assert!(card.contains("by <bdi>the platform</bdi>") && card.contains("just now"), "{card}");

    street.house.member(&street.tenant, "owner@acme.example", Some(Role::Viewer), None).await;
    let mut member = street.house.client();
    member.sign_in("owner@acme.example").await;
    let admin = member.get("/admin").await;
    for text in ["Acme Voice", "Google", "Working", "/oauth/google/callback/int_"] {
        assert!(admin.text.contains(text), "{text}: {}", admin.text);
    }
    assert_eq!(member.get("/connections").await.status, StatusCode::FORBIDDEN, "no connections of their own");
}
