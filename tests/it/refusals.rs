//! Clients and crowds that are refused: what counts for the integration, and what for its users.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::crowds::{Crowd, HOUR, figure, size};
use crate::harness::{Answer, Wishes};

#[tokio::test]
async fn a_wrong_client_secret_changes_no_connection_and_costs_one_probe_a_minute() {
    let crowd = Crowd::gather(size(250, 1000), HOUR, Wishes::default()).await.expect("SQLite");
    crowd.endpoint.answer(|_, _| Answer::Error(401, "invalid_client"));
    crowd.pass(Duration::from_secs(55 * 60), Duration::from_secs(60)).await;
    let shown = crowd.platform.read("/v1/integrations/google").await.ok();
    assert_eq!((&shown["status"], &shown["reason"]), (&json!("misconfigured"), &json!("invalid_client")), "{shown}");
    assert_eq!(crowd.statuses().await, crowd.all_active());
    let before = crowd.endpoint.count();
    let first = crowd.endpoint.calls()[0].at;
    let same_minute = crowd.endpoint.calls().iter().filter(|call| call.at == first).count();
    assert!(same_minute <= 64, "only what was in the air when the first refusal came: {same_minute}");
    crowd.pass(Duration::from_secs(30 * 60), Duration::from_secs(20)).await;
    let probes = crowd.endpoint.count() - before;
    figure(
        "wrong client secret: connections, calls before the pause, probes in 30 minutes",
        format!("{}, {same_minute}, {probes}", crowd.ids.len()),
    );
    assert!((29..=31).contains(&probes), "one a minute: {probes}");
    assert_eq!(crowd.statuses().await, crowd.all_active());
    let degraded = crowd.platform.read(&format!("/v1/connections/{}", crowd.ids[7])).await.ok();
    assert_eq!((&degraded["status"], &degraded["degraded"]), (&json!("active"), &json!(true)), "{degraded}");

    crowd.endpoint.answer(|_, _| Answer::Fresh);
    crowd.pass(Duration::from_secs(120), Duration::from_secs(1)).await;
    assert_eq!(crowd.platform.read("/v1/integrations/google").await.ok()["status"], "active");
    assert_eq!(crowd.dead().await, 0, "and everything is fresh again");
    crowd.app.finish().await;
}

#[tokio::test]
async fn a_wave_of_refusals_is_the_clients_fault_until_the_tenant_says_otherwise() {
    for wishes in Wishes::both() {
        let Some(crowd) = Crowd::gather(40, HOUR, wishes).await else { continue };
        crowd.endpoint.answer(|_, _| Answer::Error(400, "invalid_grant"));
        crowd.pass(Duration::from_secs(58 * 60), Duration::from_secs(60)).await;
        let shown = crowd.platform.read("/v1/integrations/google").await.ok();
        assert_eq!((&shown["status"], &shown["reason"]), (&json!("misconfigured"), &json!("refused_wave")), "{shown}");
        assert_eq!(crowd.statuses().await, crowd.all_active(), "those that came first were taken back");
        let listed = crowd.platform.read("/v1/connections?status=needs_reauth").await.ok();
        assert_eq!(listed["data"], json!([]));

        // One success shows that it was the provider.
        crowd.endpoint.answer(|_, _| Answer::Fresh);
        crowd.pass(Duration::from_secs(2 * 60), Duration::from_secs(1)).await;
        assert_eq!(crowd.platform.read("/v1/integrations/google").await.ok()["status"], "active");
        assert_eq!(crowd.dead().await, 0);

        // The next time the tenant knows that its users have really left, and saves the integration again.
        crowd.endpoint.answer(|_, _| Answer::Error(400, "invalid_grant"));
        crowd.pass(Duration::from_secs(57 * 60), Duration::from_secs(60)).await;
        let secret = json!({"client_secret": crowd.app.street.client_secret()});
        crowd.platform.put("/v1/integrations/google", &secret).await.ok();
        crowd.pass(Duration::from_secs(3 * 60), Duration::from_secs(5)).await;
        let shown = crowd.platform.read("/v1/integrations/google").await.ok();
        assert_eq!(
            (&shown["reason"], crowd.statuses().await),
            (&json!("refused_wave"), crowd.all_active()),
            "a repair"
        );
        crowd.platform.put("/v1/integrations/google", &json!({"refresh_policy": "always"})).await.ok();
        crowd.pass(Duration::from_secs(3 * 60), Duration::from_secs(5)).await;
        let needing = BTreeMap::from([("needs_reauth".to_owned(), 40)]);
        assert_eq!(crowd.statuses().await, needing);
        crowd.app.finish().await;
    }
}

#[tokio::test]
async fn a_wave_is_seen_although_only_a_few_are_refused_in_ten_minutes() {
    // As it is in every vault that has run for a while: the tokens end one after the other.
    let mut crowd = Crowd::gather(4, HOUR, Wishes::default()).await.expect("SQLite");
    for group in 1..10 {
        crowd.join(4, HOUR + group * 360).await;
    }
    crowd.endpoint.answer(|_, _| Answer::Error(400, "invalid_grant"));
    crowd.pass(Duration::from_secs(2 * HOUR), Duration::from_secs(60)).await;
    let shown = crowd.platform.read("/v1/integrations/google").await.ok();
    assert_eq!((&shown["reason"], crowd.statuses().await), (&json!("refused_wave"), crowd.all_active()), "{shown}");

    crowd.platform.put("/v1/integrations/google", &json!({"refresh_policy": "always"})).await.ok();
    crowd.pass(Duration::from_secs(HOUR), Duration::from_secs(600)).await;
    // Saving it for another reason does not take that back.
    crowd.platform.put("/v1/integrations/google", &json!({"refresh_policy": "always"})).await.ok();
    crowd.pass(Duration::from_secs(19 * HOUR), Duration::from_secs(600)).await;
    let needing = BTreeMap::from([("needs_reauth".to_owned(), 40)]);
    assert_eq!(crowd.statuses().await, needing, "believed as slowly as they come");
    crowd.app.finish().await;
}

#[tokio::test]
async fn a_refusal_of_the_old_client_secret_says_nothing_about_the_new_one() {
    // API.md, section 6, point 3: the new one is used at once.
    let crowd = Crowd::gather(1, 1, Wishes::default()).await.expect("SQLite");
    let gate = Arc::new(Semaphore::new(0));
    let late = Arc::clone(&gate);
    crowd.endpoint.answer(move |number, _| match number {
        0 => Answer::WhenTold(Arc::clone(&late), Box::new(Answer::Error(401, "invalid_client"))),
        _ => Answer::Fresh,
    });
    crowd.app.advance(1);
    crowd.app.until("it is asked with the old secret", async || crowd.endpoint.count() == 1).await;
    let secret = json!({"client_secret": crowd.app.street.client_secret()});
    crowd.platform.put("/v1/integrations/google", &secret).await.ok();
    gate.close();
    crowd.pass(Duration::from_secs(5), Duration::from_secs(1)).await;
    assert_eq!((crowd.endpoint.count(), crowd.dead().await), (2, 0), "asked again at once, with the new one");
    let shown = crowd.platform.read("/v1/integrations/google").await.ok();
    assert_eq!((&shown["status"], &shown["reason"]), (&json!("active"), &Value::Null), "{shown}");
    assert!(crowd.app.entries("integration.pause").await.is_empty());
    crowd.app.finish().await;
}

#[tokio::test]
async fn a_wave_of_refusals_with_successes_between_is_a_wave_all_the_same() {
    // Provider facts, D.5: a share of refusals, not only a run of them.
    let crowd = Crowd::gather(250, HOUR, Wishes::default()).await.expect("SQLite");
    crowd
        .endpoint
        .answer(|number, _| if number % 5 == 4 { Answer::Fresh } else { Answer::Error(400, "invalid_grant") });
    crowd.pass(Duration::from_secs(50 * 60), Duration::from_secs(30)).await;
    // A probe that succeeds lets more refusals come, until they are a wave again.
    let is_held = async || crowd.platform.read("/v1/integrations/google").await.ok()["reason"] == "refused_wave";
    let mut steps = 0;
    while steps < 16 || (steps < 60 && !is_held().await) {
        crowd.pass(Duration::from_secs(30), Duration::from_secs(30)).await;
        steps += 1;
    }
    assert!(is_held().await, "so many refusals are the fault of no connection");
    let marked = crowd.statuses().await.get("needs_reauth").copied().unwrap_or_default();
    assert!(marked <= 5, "{marked} of 250 people would have been asked to connect again");
    crowd.app.finish().await;
}

#[tokio::test]
async fn a_client_secret_that_cannot_be_opened_is_the_fault_of_no_connection() {
    let crowd = Crowd::gather(20, HOUR, Wishes::default()).await.expect("SQLite");
    crowd.app.database.execute("UPDATE integrations SET client_secret = x'00'").await;
    crowd.pass(Duration::from_secs(56 * 60), Duration::from_secs(60)).await;
    let shown = crowd.platform.read("/v1/integrations/google").await.ok();
    assert_eq!(shown["reason"], "client_secret_unreadable", "{shown}");
    assert!(shown["explanation"].as_str().is_some_and(|words| words.contains("save the secret again")), "{shown}");
    assert_eq!((crowd.statuses().await, crowd.endpoint.count()), (crowd.all_active(), 0));
    let secret = json!({"client_secret": "another"});
    crowd.platform.put("/v1/integrations/google", &secret).await.ok();
    crowd.pass(Duration::from_secs(120), Duration::from_secs(1)).await;
    assert_eq!((crowd.endpoint.count(), crowd.dead().await), (20, 0), "they go on by themselves");
    crowd.app.finish().await;
}
