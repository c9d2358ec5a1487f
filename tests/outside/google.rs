//! Connect, refresh and disconnect at a certified authorization server in Google's manner: PKCE is checked, codes work
//! once, nothing is forgiven after its expiry, a refresh token does not rotate, and revocation ends the whole grant.

use valetkey::sandbox::person::Person;

use crate::node::{Manner, Node};
use crate::site::{Program, Site, Tenant, integration, login, sign_in, tenant, until};

const SECRET: &str = "a-client-secret-of-the-test";
const SCOPES: [&str; 2] =
    ["https://www.googleapis.com/auth/gmail.readonly", "https://www.googleapis.com/auth/calendar.events"];
const EMAIL: &str = "ada@acme.example";

/// A house whose Google is the stranger, with one user who can sign in.
async fn street(node: &Node, access_token_seconds: &str) -> (Site, Tenant, Manner) {
    let mut site = Site::new();
    let (tenant, redirect_uri) = site
        .prepare(async |rooms| {
            let tenant = tenant(rooms).await;
            login(rooms, &tenant, EMAIL, "u-1").await;
            let redirect_uri = integration(rooms, &tenant, "google", SECRET, &SCOPES, &[]).await;
            (tenant, redirect_uri)
        })
        .await;
    let arguments =
        ["--redirect-uri", &redirect_uri, "--client-secret", SECRET, "--access-token-seconds", access_token_seconds];
    let manner = node.manner("google-manner.mjs", &arguments);
    site.meets("google", &manner, None);
    (site, tenant, manner)
}

/// Signs in and connects Google; answers the person, and the connection's id.
async fn connect(site: &Site, platform: &Program) -> (Person, String) {
    let mut person = site.person();
    sign_in(&mut person, &site.base(), EMAIL).await;
    person.visit(&format!("{}/connections/connect/google", site.base())).await.expect("a page");
    person.submit("continue", &[]).await.expect("submitted");
    let result = person.follow().await.expect("a page");
    assert_eq!(result.status, 200, "{}", result.body);
    assert!(result.url.path().starts_with("/connections/result/"), "a clean address: {}", result.url);
    assert!(result.body.contains("google-person@example.com"), "{}", result.body);

    let list = platform.ok("GET", "/v1/connections?user=u-1", None).await;
    let connection = &list["data"][0];
    assert_eq!(
        (&connection["status"], &connection["account"]["email"]),
        (&"active".into(), &"google-person@example.com".into())
    );
    assert_eq!(connection["missing_scopes"], serde_json::json!([]));
    let id = connection["id"].as_str().expect("an id").to_owned();
    (person, id)
}

/// What the stranger says about a token.
async fn userinfo(manner: &Manner, token: &str) -> u16 {
    Program::new(manner.told("userinfo_url")).with_key(token).call("GET", "", None).await.0
}

async fn disconnect(person: &mut Person, site: &Site, id: &str) {
    person.visit(&format!("{}/connections/{id}", site.base())).await.expect("a page");
    person.submit("disconnect", &[]).await.expect("asked");
    person.submit("confirm", &[]).await.expect("confirmed");
    let list = person.follow().await.expect("a page");
    assert_eq!(list.query("done").as_deref(), Some("disconnected"), "{}", list.body);
}

// OA-06, OA-08, OA-17, RL-04
#[tokio::test]
async fn a_google_account_is_connected_refreshed_and_disconnected_at_a_strict_stranger() {
    let Some(node) = Node::with_counterparts() else { return };
    let (site, tenant, manner) = street(&node, "3600").await;
    let house = site.open().await;
    let platform = site.platform(&tenant);
    let (mut person, id) = connect(&site, &platform).await;

    let first = platform.token(&id, "user", 60).await;
    let token = |answer: &serde_json::Value| answer["access_token"].as_str().expect("a token").to_owned();
    assert_eq!(userinfo(&manner, &token(&first)).await, 200);
    let granted = first["scopes"].as_array().expect("scopes");
    assert!(SCOPES.iter().all(|scope| granted.iter().any(|one| one == scope)), "{granted:?}");

    // The refresh token stays the same here, so it has to survive its use, and a restart.
    platform.ok("POST", &format!("/v1/connections/{id}/refresh"), None).await;
    let second = platform.token(&id, "user", 60).await;
    assert_ne!(token(&second), token(&first));
    assert!(second["generation"].as_i64() > first["generation"].as_i64());
    assert!(house.stop().await, "in good order");
    let house = site.open().await;
    platform.ok("POST", &format!("/v1/connections/{id}/refresh"), None).await;
    let third = platform.token(&id, "user", 60).await;
    assert_ne!(token(&third), token(&second));
    assert_eq!(userinfo(&manner, &token(&third)).await, 200);

    disconnect(&mut person, &site, &id).await;
    for ended in [&first, &second, &third] {
        assert_eq!(userinfo(&manner, &token(ended)).await, 401, "revocation ends the whole grant");
    }
    let (status, _) = platform.call("POST", &format!("/v1/connections/{id}/token"), None).await;
    assert_eq!(status, 404);
    site.finish_with_manner(house, &manner).await;
}

// RL-11, AG-01
#[tokio::test]
async fn nobody_gets_a_google_token_that_the_stranger_calls_expired() {
    let Some(node) = Node::with_counterparts() else { return };
    let (site, tenant, manner) = street(&node, "4").await;
    let house = site.open().await;
    let platform = site.platform(&tenant);
    let (mut person, id) = connect(&site, &platform).await;

    let mut seen = std::collections::BTreeSet::new();
    let mut first = None;
    // Three lives of a token, at every moment of them.
    until("three lives", async || {
        let answer = platform.token(&id, "user", 60).await;
        let token = answer["access_token"].as_str().expect("a token").to_owned();
        assert_eq!(userinfo(&manner, &token).await, 200, "{answer}");
        assert!(answer["expires_in"].as_u64().expect("seconds") <= 4);
        assert_eq!(answer["degraded"], false);
        first.get_or_insert_with(|| token.clone());
        seen.insert(token);
        (seen.len() > 3).then_some(())
    })
    .await;
    let first = first.expect("one");
    until("the first token's end", async || (userinfo(&manner, &first).await == 401).then_some(())).await;
    disconnect(&mut person, &site, &id).await;
    site.finish_with_manner(house, &manner).await;
}
