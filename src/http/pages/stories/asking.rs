//! What a provider is asked for.

use super::*;
use crate::connections::{Import, ImportAccount, ImportCredential, ImportRow};

/// What stands in an authorize URL.
fn asked(url: &str, wanted: &str) -> Option<String> {
    let url: url::Url = url.parse().expect("a URL");
    url.query_pairs().find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
}

/// Presses Continue to make a connection again; where the browser is sent.
async fn reconnect(browser: &mut Client, id: &str) -> String {
    let csrf = browser.get(&format!("/connections/connect/google?connection={id}")).await.csrf();
    let fields = [("csrf", csrf.as_str()), ("provider", "google"), ("way", "consent"), ("connection", id)];
    browser.post_form("/connections/connect/google", &fields).await.header("location").to_owned()
}

#[tokio::test]
async fn consent_is_forced_unless_a_refresh_token_is_stored_that_can_go_on() {
    // Fact sheet G.28: each forced consent makes a refresh token, and the oldest of a hundred dies.
    let street = Street::open().await;
    let mut browser = street.user("ada@acme.example", "u-42").await;
    assert_eq!(asked(&street.begin(&mut browser, "google").await, "prompt").as_deref(), Some("consent"));
    street.connect(&mut browser).await;
    let id = connection_id(&browser.get("/connections").await);
    assert_eq!(asked(&reconnect(&mut browser, &id).await, "prompt"), None, "it has one");

    let bare = ImportRow {
        user: "u-42".to_owned(),
        provider: "google".to_owned(),
        account: ImportAccount { id: "100000000000000000009".to_owned(), email: None, name: None },
        credentials: vec![ImportCredential {
            kind: "user".to_owned(),
            access_token: Secret::new("ya29.vkcanary-without-refresh"),
            refresh_token: None,
            expires_at: None,
            scopes: Vec::new(),
        }],
        label: String::new(),
    };
    let import = Import { connections: vec![bare], check: false };
    let moved = street.house.house.connections.import(&street.operator(), import).await.expect("moved in");
    let url = reconnect(&mut browser, moved[0].id.as_str()).await;
    assert_eq!(asked(&url, "prompt").as_deref(), Some("consent"), "active, but with nothing to go on with");
}

#[tokio::test]
async fn what_a_link_asks_for_besides_is_asked_of_the_person_where_the_app_is_asked_apart() {
    let street = Street::open().await;
    street.integrate("slack", &["chat:write"], &["users:read"]).await;
    let more = ["search:read", "chat:write", "users:read"].map(str::to_owned);
    let new = NewConnectSession {
        user: "u-42".to_owned(),
        providers: vec!["slack".to_owned()],
        scopes: [("slack".to_owned(), more.to_vec())].into(),
        return_url: Some("https://app.example/back".to_owned()),
        ..NewConnectSession::default()
    };
    let link = street.house.house.connections.connect_session_create(&street.operator(), new).await.expect("a link");
    let path = link.url.expose().strip_prefix(PUBLIC).expect("our own link").to_owned();
    let mut browser = street.house.client();
    let csrf = browser.get(&path).await.csrf();
    let sent = browser.post_form(&path, &[("csrf", &csrf), ("provider", "slack"), ("way", "consent")]).await;
    let url = sent.header("location");
    assert_eq!(asked(url, "scope").as_deref(), Some("chat:write"), "Slack refuses some scopes for bots");
    assert_eq!(asked(url, "user_scope").as_deref(), Some("users:read,search:read"));
}
