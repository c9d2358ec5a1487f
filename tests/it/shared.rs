//! Several connections that live on one consent: whoever leaves takes nothing from the others, and the last one ends it.

use serde_json::json;

use crate::harness::{Account, Client, Life, TestApp, Wishes};

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
