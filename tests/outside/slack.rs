//! A hosted link, a confirmation, and rotating tokens at a certified authorization server in Slack's manner. It is
//! stricter than Slack: a spent refresh token has no grace and ends its grant, so every second use shows.

use serde_json::{Value, json};

use crate::node::{Manner, Node};
use crate::site::{Program, RETURN_URL, Site, Tenant, follow_to_platform, integration, tenant, until};
use crate::vendors::run;

const SECRET: &str = "a-client-secret-of-the-test";
const BOT: [&str; 2] = ["chat:write", "channels:read"];
const USER: [&str; 1] = ["search:read"];

async fn street(node: &Node, access_token_seconds: &str) -> (Site, Tenant, Manner) {
    let mut site = Site::new();
    let (tenant, redirect_uri) = site
        .prepare(async |rooms| {
            let tenant = tenant(rooms).await;
            let redirect_uri = integration(rooms, &tenant, "slack", SECRET, &BOT, &USER).await;
            (tenant, redirect_uri)
        })
        .await;
    let arguments =
        ["--redirect-uri", &redirect_uri, "--client-secret", SECRET, "--access-token-seconds", access_token_seconds];
    let manner = node.manner("slack-manner.mjs", &arguments);
    site.meets("slack", &manner, Some("unsafe"));
    (site, tenant, manner)
}

/// Goes through a one-time link, lets the platform confirm, and answers the connection.
async fn connect(site: &Site, platform: &Program) -> Value {
    let wish = json!({"user": "u-7", "providers": ["slack"], "return_url": RETURN_URL});
    let link = platform.ok("POST", "/v1/connect-sessions", Some(wish)).await;
    let mut person = site.person();
    person.visit(link["url"].as_str().expect("a link")).await.expect("a page");
    person.submit("continue", &[]).await.expect("submitted");
    let back = follow_to_platform(&mut person).await;
    let session = link["id"].as_str().expect("an id");
    assert_eq!(back.query("connect_session").as_deref(), Some(session));
    let code = back.query("completion_code").unwrap_or_else(|| panic!("no code in {:?}", back.location()));
    let stand = platform.ok("GET", &format!("/v1/connect-sessions/{session}"), None).await;
    assert_eq!(stand["state"], "awaiting_confirmation");

    let confirm = format!("/v1/connect-sessions/{session}/confirm");
    let wrong = json!({"user": "u-8", "completion_code": code});
    assert!(platform.call("POST", &confirm, Some(wrong)).await.0 >= 400, "another user is refused");
    let right = json!({"user": "u-7", "completion_code": code});
    let connection = platform.ok("POST", &confirm, Some(right)).await;
    assert_eq!((&connection["status"], &connection["user"]), (&json!("active"), &json!("u-7")));
    assert_eq!(connection["account"]["id"], "T0TEST/U0PERSON");
    let mut kinds: Vec<_> = connection["credentials"].as_array().expect("two").iter().map(|one| &one["kind"]).collect();
    kinds.sort_by_key(|kind| kind.to_string());
    assert_eq!(kinds, ["bot", "user"]);
    connection
}

/// What the stranger says about a token: nothing when it is refused, else whose it is.
async fn auth_test(manner: &Manner, token: &str) -> Option<String> {
    let answer = Program::new(manner.told("api_base_url")).with_key(token).ok("POST", "auth.test", None).await;
    answer["ok"].as_bool()?.then(|| answer["user_id"].as_str().expect("a user").to_owned())
}

fn text(answer: &Value) -> String {
    answer["access_token"].as_str().expect("a token").to_owned()
}

// OA-02, OA-17, RL-04
#[tokio::test]
async fn a_slack_account_is_linked_confirmed_rotated_and_disconnected_at_a_strict_stranger() {
    let Some(node) = Node::with_counterparts() else { return };
    let (site, tenant, manner) = street(&node, "3600").await;
    let house = site.open().await;
    let platform = site.platform(&tenant);
    let connection = connect(&site, &platform).await;
    let id = connection["id"].as_str().expect("an id");

    let (user, bot) = (platform.token(id, "user", 60).await, platform.token(id, "bot", 60).await);
    assert_eq!(auth_test(&manner, &text(&user)).await.as_deref(), Some("U0PERSON"));
    assert_eq!(auth_test(&manner, &text(&bot)).await.as_deref(), Some("U0BOT"));
    assert_eq!((&user["scopes"], &bot["scopes"]), (&json!(USER), &json!(BOT)));
    let api = manner.told("api_base_url");
    let by_slack = json!({"client": "slack", "api": api, "token": text(&user)});
    assert_eq!(run(&node, by_slack).await, json!({"user": "U0PERSON"}), "by Slack's own client");

    // Each rotation spends the refresh token before it, also across a restart.
    platform.ok("POST", &format!("/v1/connections/{id}/refresh"), None).await;
    assert!(house.stop().await, "in good order");
    let house = site.open().await;
    platform.ok("POST", &format!("/v1/connections/{id}/refresh"), None).await;
    let (user_now, bot_now) = (platform.token(id, "user", 60).await, platform.token(id, "bot", 60).await);
    assert_ne!(text(&user_now), text(&user));
    assert_ne!(text(&bot_now), text(&bot));
    assert_eq!(auth_test(&manner, &text(&user_now)).await.as_deref(), Some("U0PERSON"));
    assert_eq!(auth_test(&manner, &text(&bot_now)).await.as_deref(), Some("U0BOT"));

    let outcome = platform.ok("DELETE", &format!("/v1/connections/{id}"), None).await;
    assert_eq!(outcome, json!({"deleted": true, "revoked": true}));
    assert_eq!(auth_test(&manner, &text(&user_now)).await, None);
    assert_eq!(auth_test(&manner, &text(&bot_now)).await, None);
    site.finish_with_manner(house, &manner).await;
}

// RL-01: a second use of one refresh token would end the grant, and all that follows with it.
#[tokio::test]
async fn many_askers_at_once_never_spend_a_slack_refresh_token_twice() {
    let Some(node) = Node::with_counterparts() else { return };
    let (site, tenant, manner) = street(&node, "4").await;
    let house = site.open().await;
    let platform = site.platform(&tenant);
    let connection = connect(&site, &platform).await;
    let id = connection["id"].as_str().expect("an id");

    let first = platform.token(id, "user", 60).await["generation"].as_i64().expect("a number");
    until("five rotations", async || {
        let asked = (0..8).map(|turn| platform.token(id, if turn % 2 == 0 { "user" } else { "bot" }, 3600));
        let answers = futures_util::future::join_all(asked).await;
        for answer in &answers {
            assert!(auth_test(&manner, &text(answer)).await.is_some(), "{answer}");
        }
        (answers[0]["generation"].as_i64()? >= first + 5).then_some(())
    })
    .await;
    let refresh = format!("/v1/connections/{id}/refresh");
    let forced = (0..4).map(|_| platform.ok("POST", &refresh, None));
    let refreshed = futures_util::future::join_all(forced).await;
    assert!(refreshed.iter().all(|connection| connection["status"] == "active"), "{refreshed:?}");
    let last = platform.token(id, "user", 60).await;
    assert_eq!(auth_test(&manner, &text(&last)).await.as_deref(), Some("U0PERSON"));
    site.finish_with_manner(house, &manner).await;
}
