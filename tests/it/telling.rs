//! What a platform will be told of its connections: every new state once, with the old one and the reason.

use serde_json::json;

use crate::harness::{Account, Life, TestApp, Wishes};

/// Kind, old and new state and reason of what has been put into the outbox since the last time: so many. The job does the same once a
/// second.
async fn told(app: &TestApp, count: usize) -> Vec<Vec<String>> {
    let sql = "SELECT kind, coalesce(old_state, ''), new_state, coalesce(reason, '') FROM outbox WHERE new_state IS NOT NULL ORDER BY id";
    app.until("it is told", async || {
        app.rooms().connections.tell().await.expect("tells");
        app.rows(sql).await.len() >= count
    })
    .await;
    let rows = app.rows(sql).await;
    app.rows("DELETE FROM outbox").await;
    rows
}

#[tokio::test]
async fn a_connections_life_is_told_in_events_from_beginning_to_end() {
    for wishes in Wishes::both() {
        let Some(app) = TestApp::start_with(wishes).await else { continue };
        let platform = app.platform().await;
        let id = app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
        assert_eq!(told(&app, 1).await, [["connection.created", "", "active", ""]]);
        let refresh = async || platform.post(&format!("/v1/connections/{id}/refresh"), &json!({})).await.status;

        app.street.fault("google", "refresh", "http_502_html", 9).await;
        assert_ne!(refresh().await, 200);
        assert_eq!(told(&app, 1).await, [["connection.degraded", "active", "degraded", ""]]);
        assert_ne!(refresh().await, 200);
        assert!(told(&app, 0).await.is_empty(), "it is still so");
        app.street.clear_faults().await;
        app.clock.advance(std::time::Duration::from_secs(600));
        assert_eq!(refresh().await, 200);
        assert_eq!(told(&app, 1).await, [["connection.recovered", "degraded", "active", ""]]);

        app.street.tell("/revoke", json!({"provider": "google"})).await;
        assert_eq!(refresh().await, 409);
        assert_eq!(told(&app, 1).await, [["connection.needs_reauth", "active", "needs_reauth", "invalid_grant"]]);
        platform.delete(&format!("/v1/connections/{id}")).await.ok();
        assert_eq!(told(&app, 1).await, [["connection.deleted", "needs_reauth", "deleted", "invalid_grant"]]);
        app.finish().await;
    }
}

#[tokio::test]
async fn a_changed_client_and_an_erased_user_are_told_for_each_of_their_connections() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    app.google(&platform, "u-2", Account::GRACE, Life::Fresh).await;
    assert_eq!(told(&app, 2).await.len(), 2);
    let other = json!({"client_id": "client-2", "client_secret": "GOCSPX-vkcanary-other", "scopes": ["openid"]});
    platform.put("/v1/integrations/google", &other).await.ok();
    assert_eq!(told(&app, 2).await, vec![["connection.degraded", "active", "misconfigured", "client_changed"]; 2]);
    platform.delete("/v1/users/u-1").await.ok();
    assert_eq!(told(&app, 1).await, [["connection.deleted", "misconfigured", "deleted", "client_changed"]]);
    app.finish().await;
}
