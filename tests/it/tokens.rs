//! Tokens: moved in, handed out, refreshed once.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::json;
use valetkey::clock::Millis;

use crate::harness::{Account, Client, Life, START, TestApp, Wishes};

#[tokio::test]
async fn a_platform_sets_up_moves_an_account_in_and_gets_a_fresh_token() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let google = app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let slack = app.slack(&platform, "u-1", Account::ADA, Life::Fresh).await;

    let token = platform.post(&format!("/v1/connections/{google}/token"), &json!({})).await.ok();
    assert_eq!((&token["token_type"], &token["generation"]), (&json!("Bearer"), &json!(1)));
    assert_eq!((&token["expires_in"], &token["degraded"]), (&json!(3600), &json!(false)));
    assert!(token["expires_at"].is_string() && token["scopes"].as_array().is_some_and(|list| !list.is_empty()));
    let url = app.street.sandbox.google.join("gmail/v1/users/me/messages").expect("a path");
    let works = app.street.http_get(url, &token["access_token"]).await;
    assert_eq!(works, 200, "the provider takes it");

    // The body may be absent, for Slack as well.
    let empty = platform.request(reqwest::Method::POST, &format!("/v1/connections/{slack}/token"), None).await;
    assert_eq!(empty.ok()["expires_in"], 43_200);
    assert_eq!(app.street.counter("google/refreshes").await + app.street.counter("slack/refreshes").await, 0);

    let connection = platform.read(&format!("/v1/connections/{google}")).await.ok();
    assert_eq!((&connection["user"], &connection["status"]), (&json!("u-1"), &json!("active")));
    assert_eq!(connection["account"]["email"], "ada@example.com");
    assert_eq!(connection["credentials"][0]["refreshable"], true);
    app.finish().await;
}

#[tokio::test]
async fn a_token_with_too_little_life_is_refreshed_once_and_then_read_as_it_is() {
    // RL-01, RL-20
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let id = app.google(&platform, "u-1", Account::ADA, Life::Expired).await;
    let path = format!("/v1/connections/{id}/token");
    let first = platform.post(&path, &json!({"min_ttl": 600})).await.ok();
    assert_eq!((&first["generation"], &first["expires_in"]), (&json!(2), &json!(3600)));
    let second = platform.post(&path, &json!({"min_ttl": 600})).await.ok();
    assert_eq!(first["access_token"], second["access_token"]);
    assert_eq!(app.street.counter("google/refreshes").await, 1);

    let forced = platform.request(reqwest::Method::POST, &format!("/v1/connections/{id}/refresh"), None).await.ok();
    assert!(forced.get("access_token").is_none(), "a forced refresh shows no token");
    let third = platform.post(&path, &json!({})).await.ok();
    assert_eq!(third["generation"], 3);
    assert_ne!(first["access_token"], third["access_token"]);
    app.finish().await;
}

#[tokio::test]
async fn an_expired_token_without_a_refresh_token_does_not_move_in_nor_do_its_neighbours() {
    // API.md section 6, point 1
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let (past, later) = (Millis(START - 1).rfc3339(), Millis(START + 3_600_000).rfc3339());
    let row = |user: &str, end: &str, refresh: Option<&str>| {
        let mut credential = json!({"kind": "user", "access_token": "ya29.vkcanary-moves-in", "expires_at": end});
        if let Some(refresh) = refresh {
            credential["refresh_token"] = refresh.into();
        }
        json!({"user": user, "provider": "google", "account": {"id": format!("acc-{user}")}, "credentials": [credential]})
    };
    let good = [row("u-1", &later, None), row("u-2", &past, Some("1//vkcanary-moves-in"))];
    let rows = json!({"connections": [good[0], good[1], row("u-3", &past, None)]});
    let refused = platform.post("/v1/connections/import", &rows).await;
    assert_eq!(refused.problem(), (422, "invalid".to_owned()));
    let errors = refused.json()["errors"].clone();
    assert_eq!(errors.as_array().map(Vec::len), Some(1), "{errors}");
    assert!(errors[0].to_string().contains("connections[2].credentials[0].expires_at"), "{errors}");
    assert_eq!(platform.read("/v1/connections").await.ok()["data"], json!([]), "all or none");
    let moved = platform.post("/v1/connections/import", &json!({ "connections": good })).await;
    assert_eq!((moved.status, moved.json()["data"].as_array().map(Vec::len)), (201, Some(2)), "{}", moved.text);
    app.finish().await;
}

#[tokio::test]
async fn the_sweep_keeps_tokens_fresh_without_anybody_asking() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let id = app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    app.advance(59);
    app.until("the sweep has refreshed", async || app.street.counter("google/refreshes").await == 1).await;
    let path = format!("/v1/connections/{id}/token");
    app.until("the new token is stored", async || platform.post(&path, &json!({})).await.ok()["generation"] == 2).await;
    assert_eq!(app.street.counter("google/refreshes").await, 1, "the reader needed no refresh of its own");
    app.finish().await;
}

/// Fifty callers at once, spread over the nodes; gives the distinct tokens they got.
async fn fifty(callers: &[Client], id: &str) -> BTreeSet<String> {
    let path = format!("/v1/connections/{id}/token");
    let calls = (0..50).map(|number| {
        let (client, path) = (&callers[number % callers.len()], &path);
        async move { client.post(path, &json!({})).await.ok()["access_token"].as_str().expect("a token").to_owned() }
    });
    join_all(calls).await.into_iter().collect()
}

#[tokio::test]
async fn fifty_callers_of_an_expired_rotating_token_share_one_refresh() {
    // RL-01
    for wishes in Wishes::both() {
        let Some(app) = TestApp::start_with(wishes).await else { continue };
        let platform = app.platform().await;
        app.street.tell("/rotation", json!({"reuse": "family"})).await;
        app.street.fault("slack", "refresh", "delay_ms:200", 1).await;
        let id = app.slack(&platform, "u-1", Account::ADA, Life::Expired).await;
        let tokens = fifty(&[platform], &id).await;
        assert_eq!(tokens.len(), 1, "all got the same token");
        assert_eq!(app.street.counter("slack/token_requests/refresh_token").await, 1);
        assert_eq!(app.entries("token.read").await, vec!["allowed"; 50], "each hand-out is in the book");
        app.finish().await;
    }
}

#[tokio::test]
async fn two_nodes_on_one_postgres_database_share_one_refresh() {
    // RL-02
    let Some(mut app) = TestApp::start_with(Wishes { postgres: true, ..Wishes::default() }).await else { return };
    app.add_node().await;
    app.let_time_run();
    let platform = app.platform().await;
    app.street.tell("/rotation", json!({"reuse": "family"})).await;
    app.street.fault("slack", "refresh", "delay_ms:200", 1).await;
    let id = app.slack(&platform, "u-1", Account::ADA, Life::Expired).await;
    let nodes = [app.at_node(&platform, 0), app.at_node(&platform, 1)];
    let tokens = fifty(&nodes, &id).await;
    assert_eq!(tokens.len(), 1, "all got the same token, whichever node they asked");
    assert_eq!(app.street.counter("slack/token_requests/refresh_token").await, 1);
    assert_eq!(app.street.counter("slack/reuses").await, 0);
    app.finish().await;
}

#[tokio::test]
async fn rl_06_whom_another_node_gives_up_in_that_very_moment_the_late_answer_heals() {
    let Some(app) = TestApp::start_with(Wishes { postgres: true, ..Wishes::default() }).await else { return };
    let platform = app.platform().await;
    app.street.fault("slack", "refresh", "delay_ms:1000", 1).await;
    let id = app.slack(&platform, "u-1", Account::ADA, Life::Expired).await;
    let path = format!("/v1/connections/{id}/token");
    let body = json!({});
    let other_node = async {
        app.until("the refresh is in the air", async || {
            app.street.counter("slack/token_requests/refresh_token").await == 1
        })
        .await;
        let mut node = app.database.begin().await;
        let lost = "SET status = 'needs_reauth', reason = 'rotation_response_lost'";
        node.execute(&format!("UPDATE credentials {lost}")).await;
        let waiting =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        app.until("the answer waits for the row", async || app.rows(waiting).await == [["1"]]).await;
        node.execute(&format!("UPDATE connections {lost}")).await;
        node.commit().await;
    };
    let (token, ()) = tokio::join!(platform.post(&path, &body), other_node);
    token.ok();
    assert_eq!(app.rows("SELECT status, reason FROM credentials").await, [["active", ""]]);
    assert_eq!(app.rows("SELECT status, reason FROM connections").await, [["active", ""]]);
    app.finish().await;
}

#[tokio::test]
async fn a_slack_token_that_never_expires_is_not_handed_out() {
    // AG-01
    let app = TestApp::start_with(Wishes { slack_without_rotation: true, ..Wishes::default() }).await.expect("SQLite");
    let platform = app.platform().await;
    let id = app.slack(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let refused = platform.post(&format!("/v1/connections/{id}/token"), &json!({})).await;
    assert_eq!(refused.problem(), (422, "not_injectable".to_owned()));
    app.finish().await;
}

#[tokio::test]
async fn a_slack_token_that_never_expires_is_exchanged_once_its_app_rotates() {
    // fact sheet B.4: once; the old token lives until the new ones are first refreshed
    for wishes in Wishes::both() {
        let wishes = Wishes { slack_without_rotation: true, ..wishes };
        let Some(app) = TestApp::start_with(wishes).await else { continue };
        let platform = app.platform().await;
        let ada = app.slack(&platform, "u-1", Account::ADA, Life::Fresh).await;
        let also_ada = app.slack(&platform, "u-2", Account::ADA, Life::Fresh).await;
        let refresh = async |id: &str| platform.post(&format!("/v1/connections/{id}/refresh"), &json!({})).await;
        assert_eq!(refresh(&ada).await.problem(), (409, "conflict".to_owned()), "its app does not rotate");

        app.street.tell("/rotation", json!({"slack": "on"})).await;
        app.street.fault("slack", "token", "drop_before", 1).await;
        assert!([502, 503, 409].contains(&refresh(&ada).await.status), "nothing was exchanged");
        let exchanged = refresh(&ada).await.ok();
        assert!(exchanged["credentials"][0]["expires_at"].is_string(), "{exchanged}");
        assert_eq!(refresh(&also_ada).await.problem(), (409, "conflict".to_owned()), "it was exchanged already");
        let status = platform.read(&format!("/v1/connections/{also_ada}")).await.ok()["status"].clone();
        assert_eq!(status, "active", "and is as good as it was");
        refresh(&ada).await.ok();
        let token = platform.post(&format!("/v1/connections/{ada}/token"), &json!({})).await.ok();
        assert!(token["expires_in"].as_i64().is_some_and(|life| life > 40_000), "{token}");
        app.finish().await;
    }
}

#[tokio::test]
async fn what_an_exchange_has_brought_is_stored_or_ended_whoever_hangs_up_rl_05() {
    for disconnects in [false, true] {
        for wishes in Wishes::both() {
            let wishes = Wishes { slack_without_rotation: true, ..wishes };
            let Some(app) = TestApp::start_with(wishes).await else { continue };
            let platform = app.platform().await;
            let id = app.slack(&platform, "u-1", Account::ADA, Life::Fresh).await;
            app.street.tell("/rotation", json!({"slack": "on"})).await;
            app.database.refuse_tokens().await;
            let (path, nothing) = (format!("/v1/connections/{id}/refresh"), json!({}));
            tokio::select! {
                got = platform.post(&path, &nothing) => panic!("{}", got.text),
                () = app.until("it is held", async || app.ready().await.1.contains("held_tokens")) => {}
            }
            if disconnects {
                platform.delete(&format!("/v1/connections/{id}")).await.ok();
            }
            app.database.take_tokens().await;
            app.until("nothing is held", async || {
                app.clock.advance(std::time::Duration::from_secs(1));
                app.ready().await.0 == 200
            })
            .await;
            if disconnects {
                let ended = app.entries("credential.revoke").await;
                assert_eq!(ended, ["allowed", "allowed"], "what was stored, and what came too late");
            } else {
                platform.post(&path, &json!({})).await.ok();
                let token = platform.post(&format!("/v1/connections/{id}/token"), &json!({})).await.ok();
                assert_eq!(token["generation"], 3, "exchanged, and refreshed");
            }
            app.finish().await;
        }
    }
}

#[tokio::test]
async fn an_import_is_all_or_nothing_and_names_the_row() {
    let app = TestApp::start().await;
    let platform = app.platform_key(&["all"]).await;
    let row = |provider: &str, user: &str| {
        json!({"user": user, "provider": provider, "account": {"id": "a-1"},
            "credentials": [{"kind": "user", "access_token": "ya29.vkcanary-never-stored", "scopes": []}]})
    };
    let refused = platform.post("/v1/connections/import", &json!({"connections": [row("google", "u-1")]})).await;
    assert_eq!(refused.problem(), (422, "invalid".to_owned()), "a provider without an integration");
    assert_eq!(refused.json()["errors"][0]["field"], "connections[0].provider");
    app.street.integrate(&platform).await;
    let rows = [row("google", "u-1"), row("google", "u-1"), row("nowhere", "")];
    let refused = platform.post("/v1/connections/import", &json!({"connections": rows})).await;
    assert_eq!(refused.status, 422);
    assert!(refused.text.contains("connections[2].provider"), "{}", refused.text);
    assert!(platform.read("/v1/connections").await.ok()["data"].as_array().is_some_and(Vec::is_empty));
    let twice = json!({"connections": [row("google", "u-1"), row("google", "u-2"), row("google", "u-1")]});
    let refused = platform.post("/v1/connections/import", &twice).await;
    assert_eq!(refused.problem(), (422, "invalid".to_owned()), "a row twice in one import");
    assert_eq!(refused.json()["errors"][0]["field"], "connections[2].account.id");

    // What is there already is a conflict, and every such row is named.
    let first = json!({"connections": [row("google", "u-1"), row("google", "u-2")]});
    assert_eq!(platform.post("/v1/connections/import", &first).await.status, 201);
    let rows = json!({"connections": [row("google", "u-1"), row("google", "u-3"), row("google", "u-2")]});
    let refused = platform.post("/v1/connections/import", &rows).await;
    assert_eq!(refused.problem(), (409, "conflict".to_owned()));
    let errors = refused.json()["errors"].as_array().expect("errors").clone();
    let fields: Vec<_> = errors.iter().map(|one| one["field"].as_str().expect("a field")).collect();
    assert_eq!(fields, ["connections[0].account.id", "connections[2].account.id"]);
    assert!(platform.read("/v1/connections?user=u-3").await.ok()["data"].as_array().is_some_and(Vec::is_empty));
    app.finish().await;
}
