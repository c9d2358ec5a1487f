//! Several connections that live on one consent: whoever leaves takes nothing from the others, and the last one ends it.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use valetkey::clock::{Millis, TestClock};

use crate::harness::{Account, Answer, Client, Life, START, TestApp, TokenEndpoint, Wishes};

/// Whether the provider still renews what a connection has.
async fn lives(platform: &Client, connection: &str) -> bool {
    platform.post(&format!("/v1/connections/{connection}/refresh"), &json!({})).await.status == 200
}

async fn leave(platform: &Client, connection: &str) -> bool {
    let left = platform.delete(&format!("/v1/connections/{connection}")).await.ok();
    assert_eq!(left["deleted"], true);
    left["revoked"] == true
}

#[tokio::test]
async fn of_three_connections_of_one_google_account_the_last_one_revokes() {
    // fact sheet A.6: revoking any token of an account ends all that it has granted to the client
    for wishes in Wishes::both() {
        let Some(app) = TestApp::start_with(wishes).await else { continue };
        let platform = app.platform().await;
        let mut connections = Vec::new();
        for user in ["u-1", "u-2", "u-3"] {
            connections.push(app.google(&platform, user, Account::ADA, Life::Fresh).await);
        }
        let grace = app.google(&platform, "u-4", Account::GRACE, Life::Fresh).await;

        assert!(!leave(&platform, &connections[0]).await, "others live on the consent");
        assert!(lives(&platform, &connections[1]).await && lives(&platform, &connections[2]).await);
        let receipt = platform.delete("/v1/users/u-2").await.ok();
        assert_eq!(receipt["receipt"]["connections"][0]["revoked"], false, "{receipt}");
        assert!(lives(&platform, &connections[2]).await);
        assert_eq!(app.street.counter("google/revocations").await, 0);

        assert!(leave(&platform, &connections[2]).await, "the last one");
        assert_eq!(app.street.counter("google/revocations").await, 1);
        assert!(lives(&platform, &grace).await, "another account's");
        app.finish().await;
    }
}

#[tokio::test]
async fn two_people_of_one_slack_team_end_their_own_tokens_only() {
    // fact sheet B.4: where tokens rotate, each is revoked by itself
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let ada = app.slack(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let also_ada = app.slack(&platform, "u-2", Account::ADA, Life::Fresh).await;
    let grace = app.slack(&platform, "u-3", Account::GRACE, Life::Fresh).await;
    assert!(leave(&platform, &ada).await);
    assert_eq!(app.street.counter("slack/revocations").await, 2, "refresh token and access token");
    assert!(lives(&platform, &also_ada).await && lives(&platform, &grace).await);
    app.finish().await;
}

/// A token of a connection's bot, as it is lent.
async fn bot_token(platform: &Client, connection: &str) -> Value {
    let wish = json!({"credential": "bot", "min_ttl": 0});
    platform.post(&format!("/v1/connections/{connection}/token"), &wish).await.ok()["access_token"].clone()
}

#[tokio::test]
async fn a_slack_teams_bot_is_kept_once_for_everybody_who_connects_there() {
    // fact sheet B.4, the sharing hazard: of one bot two access tokens live at most
    for wishes in Wishes::both() {
        let Some(app) = TestApp::start_with(wishes).await else { continue };
        let platform = app.platform().await;
        let bots = "SELECT owner_kind, shared_as, CAST(consents AS TEXT) FROM credentials WHERE kind = 'bot' AND deleted_at IS NULL";
        let check = app.street.sandbox.slack.join("api/auth.test").expect("a path");
        let mut connections = Vec::new();
        for (user, account) in [("u-1", Account::ADA), ("u-2", Account::GRACE), ("u-3", Account::ADA)] {
            connections.push(app.slack_with_bot(&platform, user, account).await);
        }
        assert_eq!(app.rows(bots).await, [["tenant", Account::ADA.slack.split('/').next().expect("a team"), "3"]]);
        for connection in &connections {
            assert!(lives(&platform, connection).await, "each refresh is everybody's");
        }
        let token = bot_token(&platform, &connections[0]).await;
        for connection in &connections {
            assert_eq!(bot_token(&platform, connection).await, token);
        }
        assert_eq!(app.street.http_get(check.clone(), &token).await, 200);

        assert!(leave(&platform, &connections[1]).await, "her own tokens");
        platform.delete("/v1/users/u-3").await.ok();
        assert!(lives(&platform, &connections[0]).await, "with the bot");
        let before = app.street.counter("slack/revocations").await;
        assert!(leave(&platform, &connections[0]).await);
        assert_eq!(app.street.counter("slack/revocations").await - before, 4, "the last one ends the bot's, too");
        assert!(app.rows(bots).await.is_empty());
        app.finish().await;
    }
}

const TEAM: &str = "T0ACME";
const BOTS_REFRESH_TOKEN: &str = "xoxe-1-vkcrowd-the-bots";

/// A user of the team moves in with the bot's token set, which has ended already; the connection.
async fn brings_the_bot(platform: &Client, user: &str, ends: Option<&str>) -> String {
    let set = json!({"kind": "bot", "access_token": "ya29.vkcrowd-the-bots", "refresh_token": BOTS_REFRESH_TOKEN,
        "expires_at": ends, "scopes": ["chat:write"]});
    let row = json!({"user": user, "provider": "slack", "account": {"id": format!("{TEAM}/{}", user.to_uppercase())}, "credentials": [set]});
    let answer = platform.post("/v1/connections/import", &json!({"connections": [row]})).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()["data"][0]["id"].as_str().expect("an id").to_owned()
}

/// A house beside a Slack that takes every refresh token once and forgives nothing.
pub async fn strict_slack(wishes: Wishes) -> Option<(TestApp, TokenEndpoint)> {
    let clock = TestClock::at(Millis(START));
    let endpoint = TokenEndpoint::start(&clock, "one", true).await;
    let token_endpoint = Some(("slack", endpoint.url.clone()));
    let wishes = Wishes { providers: vec![("slack", "replay", "unsafe")], token_endpoint, ..wishes };
    Some((TestApp::start_at(clock, wishes).await?, endpoint))
}

/// That no refresh token has left twice.
fn assert_each_once(endpoint: &TokenEndpoint) {
    let sent: Vec<String> = endpoint.calls().into_iter().map(|call| call.refresh_token).collect();
    let different: std::collections::BTreeSet<&String> = sent.iter().collect();
    assert_eq!(different.len(), sent.len(), "{sent:?}");
}

#[tokio::test]
async fn a_bot_that_is_brought_again_while_it_is_being_refreshed_is_sent_once_rl_01() {
    // A platform moves in by pages, and each page has the same bot: with the same end, with a later one, and with none.
    let again = [Some(START - 60_000), Some(START - 30_000), None].map(|end| end.map(|end| Millis(end).rfc3339()));
    for (wishes, ends) in Wishes::both().into_iter().zip([again.clone(), again]) {
        let Some((app, endpoint)) = strict_slack(wishes).await else { continue };
        let platform = app.platform().await;
        let gate = Arc::new(Semaphore::new(0));
        let held = gate.clone();
        endpoint.answer(move |number, _| match number {
            0 => Answer::WhenTold(held.clone(), Box::new(Answer::Fresh)),
            _ => Answer::Fresh,
        });
        let first = brings_the_bot(&platform, "u1", ends[0].as_deref()).await;
        app.advance(1);
        app.until("the bot's token has left", async || endpoint.count() == 1).await;
        let mut connections = vec![first];
        for (number, end) in ends.iter().enumerate() {
            connections.push(brings_the_bot(&platform, &format!("u2{number}"), end.as_deref()).await);
        }
        gate.close();
        let kept = "SELECT CAST(count(*) AS TEXT), CAST(max(generation) AS TEXT), max(phase) FROM credentials WHERE deleted_at IS NULL";
        app.until("the answer is kept", async || app.rows(kept).await == [["1", "2", "idle"]]).await;
        for connection in &connections {
            assert!(lives(&platform, connection).await, "with what the answer has brought");
        }
        assert_each_once(&endpoint);
        assert_eq!(app.street.counter("slack/revocations").await, 0, "nobody has ended it");
        app.finish().await;
    }
}

#[tokio::test]
async fn a_bot_that_is_brought_again_while_nobody_knows_its_fate_is_not_sent_again_rl_06() {
    let (app, endpoint) = strict_slack(Wishes::default()).await.expect("SQLite");
    let platform = app.platform().await;
    endpoint.answer(|number, _| if number == 0 { Answer::Cut } else { Answer::Fresh });
    let ended = Millis(START - 60_000).rfc3339();
    let connection = brings_the_bot(&platform, "u1", Some(&ended)).await;
    let doubted = "SELECT CAST(count(*) AS TEXT) FROM credentials WHERE doubt_since IS NOT NULL";
    app.advance(1);
    app.until("the doubt is known", async || app.rows(doubted).await == [["1"]]).await;
    let later = Millis(START - 30_000).rfc3339();
    brings_the_bot(&platform, "u2", Some(&later)).await;
    let path = format!("/v1/connections/{connection}");
    app.until("the doubt has an end", async || {
        app.clock.advance(std::time::Duration::from_secs(10));
        platform.read(&path).await.ok()["status"] == "needs_reauth"
    })
    .await;
    assert_eq!(platform.read(&path).await.ok()["reason"], "rotation_response_lost");
    let last = brings_the_bot(&platform, "u3", Some(&Millis(START - 10_000).rfc3339())).await;
    let shown = platform.read(&format!("/v1/connections/{last}")).await.ok();
    assert_eq!(
        (&shown["status"], &shown["reason"]),
        (&json!("needs_reauth"), &json!("rotation_response_lost")),
        "{shown}"
    );
    app.advance(10);
    assert!(!lives(&platform, &last).await, "only a new consent helps");
    assert_each_once(&endpoint);
    app.finish().await;
}

#[tokio::test]
async fn a_bot_that_was_lost_comes_back_for_everybody_with_the_next_consent() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let ada = app.slack_with_bot(&platform, "u-1", Account::ADA).await;
    let grace = app.slack_with_bot(&platform, "u-2", Account::GRACE).await;
    let lost = "SET status = 'needs_reauth', reason = 'invalid_refresh_token'";
    app.rows(&format!("UPDATE credentials {lost} WHERE kind = 'bot'")).await;
    app.rows(&format!("UPDATE connections {lost}")).await;
    let status = async |id: &str| platform.read(&format!("/v1/connections/{id}")).await.ok()["status"].clone();
    assert_eq!((status(&ada).await, status(&grace).await), (json!("needs_reauth"), json!("needs_reauth")));
    // A third one installs the app again.
    app.slack_with_bot(&platform, "u-3", Account::ADA).await;
    assert_eq!((status(&ada).await, status(&grace).await), (json!("active"), json!("active")));
    assert_eq!(bot_token(&platform, &ada).await, bot_token(&platform, &grace).await);
    app.finish().await;
}

#[tokio::test]
async fn a_platforms_bot_with_a_new_token_goes_on_in_every_chat() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let bots = app.street.sandbox.ask("/telegram/bots").await.expect("bots");
    let bot = &bots["bots"][0];
    platform.put("/v1/integrations/telegram", &json!({"bot_token": bot["token"]})).await.ok();
    let mut chats = Vec::new();
    for (user, person) in [("u-1", "ada@example.com"), ("u-2", "grace@example.com")] {
        let begun = platform.post("/v1/connections", &json!({"user": user, "provider": "telegram"})).await.ok();
        let payload = begun["start_link"].as_str().and_then(|link| link.split("start=").nth(1)).expect("a link");
        app.street.tell("/telegram/start", json!({"bot": bot["username"], "user": person, "payload": payload})).await;
        chats.push(format!("/v1/connections/{}", begun["id"].as_str().expect("an id")));
    }
    for chat in &chats {
        app.until("Start was seen", async || {
            app.clock.advance(std::time::Duration::from_secs(2));
            platform.read(chat).await.ok()["status"] == "active"
        })
        .await;
    }
    let kept = "SELECT owner_kind, shared_as, CAST(generation AS TEXT) FROM credentials WHERE kind = 'bot' AND deleted_at IS NULL";
    assert_eq!(app.rows(kept).await, [["tenant", "123456", "1"]], "one for both");
    let renewed = app.street.tell("/telegram/token", json!({"bot": bot["username"]})).await;
    platform.put("/v1/integrations/telegram", &json!({"bot_token": renewed["token"]})).await.ok();
    assert_eq!(app.rows(kept).await, [["tenant", "123456", "2"]]);

    let needs = json!([{"provider": "telegram", "credential": "bot", "hand_over": "broker"}]);
    let desk = app.desk(&platform, json!({"needs": needs, "broker": {"telegram": {"paths": ["*"]}}})).await;
    let started = app.start_websocket(&platform, &desk, "u-1").await;
    let sent = app.tool_of(&started, &desk).post("/v1/broker/telegram/sendMessage", &json!({"text": "hello"})).await;
    assert_eq!(sent.ok()["ok"], true, "with the new token");
    app.finish().await;
}

#[tokio::test]
async fn a_consent_that_two_tenants_share_is_ended_by_the_last_of_them() {
    // fact sheet A.6: in every tenant that has the client
    for wishes in Wishes::both() {
        let Some(app) = TestApp::start_with(wishes).await else { continue };
        let platform = app.platform().await;
        let neighbour = app.key_of(&app.other_tenant("neighbour").await, &["all"]).await;
        app.street.integrate(&neighbour).await;
        let here = app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
        let there = app.google(&neighbour, "u-1", Account::ADA, Life::Fresh).await;
        assert!(!leave(&platform, &here).await, "the neighbour lives on it");
        assert!(lives(&neighbour, &there).await);
        assert_eq!(app.street.counter("google/revocations").await, 0);
        assert!(leave(&neighbour, &there).await);
        assert_eq!(app.street.counter("google/revocations").await, 1);
        app.finish().await;
    }
}
