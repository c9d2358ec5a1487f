//! One OAuth client in two tenants: to the provider it is one caller, with one cap, one pause and so many calls in the air (RL-09,
//! RL-13).

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::Semaphore;
use valetkey::clock::Clock;
use valetkey::config::RefreshSettings;

use crate::crowds::{Crowd, HOUR, busiest_second, figure};
use crate::harness::{Account, Answer, Client, Life, TestApp, Wishes};

/// A crowd of which the first half belongs to one tenant and the second to another, which has the same client; or only its id, with
/// a secret of its own. None without the database that was wished for.
async fn two_tenants(each: usize, secret: Option<&str>, wishes: Wishes) -> Option<(Crowd, Client)> {
    let mut crowd = Crowd::gather(each, HOUR, wishes).await?;
    let other = crowd.app.other_tenant("neighbour").await;
    let neighbour =
        crowd.app.key_of(&other, &["integrations:write", "connections:read", "connections:write", "tokens:read"]).await;
    let first = crowd.platform.read("/v1/integrations/google").await.ok();
    let client_secret = secret.unwrap_or(crowd.app.street.client_secret());
    let client = json!({"client_id": first["client_id"], "client_secret": client_secret, "scopes": ["openid"]});
    neighbour.put("/v1/integrations/google", &client).await.ok();
    crowd.join_by(&neighbour, each, HOUR).await;
    Some((crowd, neighbour))
}

fn limits(rate_per_client: u32, in_air_per_client: u32) -> RefreshSettings {
    RefreshSettings { rate_per_client, in_air_per_client, workers: 1600 }
}

#[tokio::test]
async fn rl_13_two_tenants_with_one_client_have_one_rate_from_two_nodes_together() {
    for wishes in Wishes::both() {
        let wishes = Wishes { refresh: Some(limits(100, 200)), ..wishes };
        let nodes = if wishes.postgres { 2 } else { 1 };
        let Some((mut crowd, _)) = two_tenants(200, None, wishes).await else { continue };
        if nodes == 2 {
            crowd.app.add_node().await;
        }
        crowd.app.clock.advance(Duration::from_secs(59 * 60));
        crowd.app.let_time_run();
        crowd.app.until("all are fresh", async || crowd.endpoint.count() >= 400 && crowd.in_air().await == 0).await;
        let calls: Vec<Duration> = crowd.endpoint.calls().iter().map(|call| call.wall).collect();
        let busiest = busiest_second(&calls);
        figure(
            "200 due in each of two tenants with one client, 100 a second: nodes, busiest second",
            format!("{nodes}, {busiest}"),
        );
        assert_eq!(calls.len(), 400, "each once");
        assert!(busiest <= 110, "{busiest}");
        crowd.app.finish().await;
    }
}

#[tokio::test]
async fn rl_09_what_one_tenant_is_told_holds_back_the_other_with_the_same_client() {
    for wishes in Wishes::both() {
        let Some((crowd, neighbour)) = two_tenants(1, None, wishes).await else { continue };
        crowd.endpoint.answer(|_, _| Answer::TooMany("600".to_owned()));
        crowd.platform.post(&format!("/v1/connections/{}/refresh", crowd.ids[0]), &json!({})).await;
        assert_eq!(crowd.endpoint.count(), 1);
        let health = neighbour.read("/v1/integrations/google").await.ok();
        assert!(health["rate_limited_until"].is_string(), "{health}");
        let got = neighbour.post(&format!("/v1/connections/{}/refresh", crowd.ids[1]), &json!({})).await;
        assert_eq!((got.status, crowd.endpoint.count()), (429, 1), "{}", got.text);
        crowd.endpoint.answer(|_, _| Answer::Fresh);
        crowd.pass(Duration::from_secs(601), Duration::from_secs(601)).await;
        neighbour.post(&format!("/v1/connections/{}/refresh", crowd.ids[1]), &json!({})).await.ok();
        crowd.app.finish().await;
    }
}

#[tokio::test]
async fn rl_13_calls_in_the_air_of_one_client_are_counted_over_its_tenants() {
    for wishes in Wishes::both() {
        let wishes = Wishes { refresh: Some(limits(1000, 30)), ..wishes };
        let Some((crowd, _)) = two_tenants(40, None, wishes).await else { continue };
        let gate = Arc::new(Semaphore::new(0));
        let closed = Arc::clone(&gate);
        crowd.endpoint.answer(move |_, _| Answer::WhenTold(Arc::clone(&closed), Box::new(Answer::Fresh)));
        crowd.app.clock.advance(Duration::from_secs(59 * 60));
        // A sweep takes rows ahead, which count as well, so that it comes near the cap in steps.
        for _ in 0..5 {
            crowd.app.rooms().credentials.sweep().await.expect("sweeps");
            crowd.app.until("what left has come", async || crowd.in_air().await == crowd.endpoint.count() as u64).await;
            crowd.app.clock.advance(Duration::from_secs(3));
        }
        assert_eq!(crowd.endpoint.count(), 30);
        gate.close();
        crowd.pass(Duration::from_secs(30), Duration::from_secs(1)).await;
        assert_eq!(crowd.endpoint.count(), 80, "each once");
        crowd.app.finish().await;
    }
}

#[tokio::test]
async fn rl_13_a_conversation_of_one_tenant_comes_before_the_crowd_of_the_other() {
    let wishes = Wishes { refresh: Some(limits(20, 400)), ..Wishes::default() };
    let (crowd, neighbour) = two_tenants(200, None, wishes).await.expect("SQLite");
    crowd.pass(Duration::from_secs(57 * 60), Duration::from_secs(57 * 60)).await;
    crowd.pass(Duration::from_secs(2), Duration::from_secs(1)).await;
    let last = crowd.ids.last().expect("somebody");
    neighbour.post(&format!("/v1/connections/{last}/token"), &json!({"min_ttl": 30})).await.ok();
    crowd.pass(Duration::from_secs(3), Duration::from_secs(1)).await;
    let generation = format!(
        "SELECT CAST(k.generation AS TEXT) FROM credentials k JOIN connection_credentials u ON u.credential_id = k.id WHERE u.connection_id = '{last}'"
    );
    assert_eq!(crowd.app.rows(&generation).await, [["2"]], "long before its place");
    assert!(crowd.endpoint.count() < 150, "{}", crowd.endpoint.count());
    crowd.app.finish().await;
}

#[tokio::test]
async fn a_client_id_without_its_secret_lets_nobody_hold_up_a_neighbour() {
    for wishes in Wishes::both() {
        let Some((crowd, neighbour)) = two_tenants(1, Some("GOCSPX-of-somebody-else"), wishes).await else { continue };
        crowd.endpoint.answer(|_, _| Answer::TooMany("600".to_owned()));
        neighbour.post(&format!("/v1/connections/{}/refresh", crowd.ids[1]), &json!({})).await;
        assert_eq!(crowd.endpoint.count(), 1);
        crowd.endpoint.answer(|_, _| Answer::Fresh);
        crowd.platform.post(&format!("/v1/connections/{}/refresh", crowd.ids[0]), &json!({})).await.ok();
        assert_eq!(crowd.endpoint.count(), 2);
        crowd.app.finish().await;
    }
}

/// The refresh tokens of calls that carried one of these connections' first tokens.
fn called(crowd: &Crowd, numbers: std::ops::Range<usize>) -> usize {
    let tokens: Vec<String> = numbers.map(|n| format!("1//vkcrowd-{n}")).collect();
    crowd.endpoint.calls().iter().filter(|call| tokens.contains(&call.refresh_token)).count()
}

#[tokio::test]
async fn a_tenant_whose_client_is_held_for_its_own_users_holds_up_nobody_else() {
    for wishes in Wishes::both() {
        let wishes = Wishes { refresh: Some(limits(2, 200)), ..wishes };
        let Some((crowd, neighbour)) = two_tenants(100, None, wishes).await else { continue };
        // Everybody in the first tenant has withdrawn.
        let held_until = crowd.app.clock.now().after(Duration::from_secs(2 * HOUR)).0;
        let wave = format!("status = 'misconfigured', reason = 'refused_wave', probe_at = {held_until}");
        let tenant = &crowd.app.tenant.id;
        crowd
            .app
            .rows(&format!("UPDATE integrations SET {wave} WHERE tenant_id = '{tenant}' AND provider = 'google'"))
            .await;
        let soon = crowd.app.clock.now().after(Duration::from_secs(60)).0;
        crowd.app.rows(&format!("UPDATE credentials SET due_at = {soon} WHERE tenant_id = '{tenant}'")).await;
        crowd.pass(Duration::from_secs(70), Duration::from_secs(1)).await;
        assert_eq!(crowd.endpoint.count(), 0, "they wait for the next probe");
        let last = crowd.ids.last().expect("somebody");
        let now = crowd.app.clock.now().0;
        let credential = format!("SELECT credential_id FROM connection_credentials WHERE connection_id = '{last}'");
        crowd
            .app
            .rows(&format!(
                "UPDATE credentials SET due_at = {now}, expires_at = {now} + 60000 WHERE id IN ({credential})"
            ))
            .await;
        crowd.pass(Duration::from_secs(4), Duration::from_secs(1)).await;
        assert_eq!((called(&crowd, 199..200), crowd.endpoint.count()), (1, 1), "at once, and not behind them");
        assert_eq!(neighbour.read("/v1/integrations/google").await.ok()["status"], "active");
        crowd.app.finish().await;
    }
}

#[tokio::test]
async fn where_calls_in_the_air_are_scarce_a_conversation_comes_first_whichever_tenants_it_is() {
    for active in [0, 39] {
        let wishes = Wishes { refresh: Some(limits(100, 5)), ..Wishes::default() };
        let (crowd, _) = two_tenants(20, None, wishes).await.expect("SQLite");
        let gate = Arc::new(Semaphore::new(0));
        let closed = Arc::clone(&gate);
        crowd.endpoint.answer(move |_, _| Answer::WhenTold(Arc::clone(&closed), Box::new(Answer::Fresh)));
        // Before their time comes, since the house sweeps by itself, too.
        let now = crowd.app.clock.now().after(Duration::from_secs(55 * 60)).0;
        crowd.app.rows(&format!("UPDATE credentials SET due_at = {now}, last_used_at = 1")).await;
        let of_it =
            format!("SELECT credential_id FROM connection_credentials WHERE connection_id = '{}'", crowd.ids[active]);
        crowd
            .app
            .rows(&format!("UPDATE credentials SET due_at = {now} - 20, last_used_at = {now} WHERE id IN ({of_it})"))
            .await;
        crowd.app.clock.advance(Duration::from_secs(55 * 60));
        crowd.app.rooms().credentials.sweep().await.expect("sweeps");
        crowd.app.until("as many as may are in the air", async || crowd.endpoint.count() >= 5).await;
        assert_eq!((called(&crowd, active..active + 1), crowd.endpoint.count()), (1, 5), "it is among them");
        gate.close();
        crowd.pass(Duration::from_secs(60), Duration::from_secs(1)).await;
        assert_eq!(crowd.endpoint.count(), 40, "each once");
        crowd.app.finish().await;
    }
}

#[tokio::test]
async fn users_of_two_tenants_are_erased_at_the_same_time() {
    let wishes = Wishes { postgres: true, quiet: true, ..Wishes::default() };
    let Some(app) = TestApp::start_with(wishes).await else { return };
    let platform = app.platform().await;
    let other = app.other_tenant("neighbour").await;
    let neighbour = app.key_of(&other, &["all"]).await;
    app.street.integrate(&neighbour).await;
    for round in 0..6 {
        let user = format!("u-{round}");
        app.google(&platform, &user, Account::ADA, Life::Fresh).await;
        app.slack(&platform, &user, Account::ADA, Life::Fresh).await;
        app.slack(&neighbour, &user, Account::GRACE, Life::Fresh).await;
        app.google(&neighbour, &user, Account::GRACE, Life::Fresh).await;
        let path = format!("/v1/users/{user}");
        let (one, two) = futures_util::join!(platform.delete(&path), neighbour.delete(&path));
        assert_eq!((one.status, two.status), (200, 200), "neither waits for the other: {} {}", one.text, two.text);
    }
    app.finish().await;
}
