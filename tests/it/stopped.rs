//! A process that is stopped while the provider answers: nothing inside the HTTP client takes an answer that is already
//! there for one that came too late (RL-02; DESIGN section 7, point 4).

use std::time::Duration;

use serde_json::json;
use valetkey::clock::{Clock, Millis, SystemClock, pause};

use crate::harness::{Account, Database, Kind};
use crate::post::{Part, Post};
use crate::town::Town;

/// Longer than anything waits for a provider that does not rotate: 10 s for the head, 6 s more for connecting.
const STOPPED: Duration = Duration::from_secs(17);
/// Several, since what goes wrong here goes wrong by a race.
const FLIGHTS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_arrived_while_the_process_was_stopped_is_stored() {
    let mut town = Town::open(Database::sqlite(), &[]).await;
    town.start_node();
    town.street.integrate(&town.platform(0)).await;
    let mut connections = Vec::new();
    for number in 0..FLIGHTS {
        connections.push(town.google(&format!("u-{number}"), Account::ADA, -60).await);
    }
    town.street.fault("google", "refresh", "delay_ms:2000", 1000).await;
    let platform = town.platform(0);
    let asked = futures_util::future::join_all(connections.iter().map(|id| {
        let (platform, path) = (platform.clone(), format!("/v1/connections/{id}/token"));
        async move { platform.post(&path, &json!({})).await.status }
    }));
    let stopped = async {
        let sent = "google/token_requests/refresh_token";
        town.until("every refresh is under way", async || town.street.counter(sent).await == FLIGHTS as u64).await;
        town.nodes[0].signal("STOP");
        town.until("it is answered", async || town.street.counter("google/refreshes").await == FLIGHTS as u64).await;
        town.street.clear_faults().await;
        let answered_at = SystemClock.now();
        pause(STOPPED).await;
        town.nodes[0].signal("CONT");
        answered_at
    };
    let (statuses, answered_at) = futures_util::join!(asked, stopped);
    for id in &connections {
        town.until("the answer is stored", async || town.row(id, "generation").await == ["2"]).await;
        // RL-11: the token's hour began when it was given, not when the process woke up.
        let end: i64 = town.row(id, "CAST(expires_at AS TEXT)").await[0].parse().expect("a time");
        let life = Millis(end).left(answered_at);
        assert!(life < Duration::from_secs(3603), "{life:?}");
    }
    assert_eq!(town.street.counter("google/refreshes").await, FLIGHTS as u64, "nothing was asked for twice");
    // Their own ten seconds were over, unless the answer was there first.
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    town.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_arrived_while_the_process_was_stopped_is_stored() {
    let body = json!({"access_token": "ya29.vkcanary-in-two-parts", "expires_in": 3600}).to_string();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    let post = Post::open(move |_| {
        let head = head.clone().into_bytes();
        vec![Part::Bytes(head), Part::Pause(Duration::from_secs(2)), Part::Bytes(body.clone().into_bytes())]
    })
    .await;
    let settings = [
        ("VALETKEY_PROVIDERS__GOOGLE__TOKEN_URL", format!("http://{}/token", post.authority)),
        ("VALETKEY_OUTBOUND_ALLOW", post.authority.clone()),
    ];
    let mut town = Town::open(Database::sqlite(), &settings).await;
    town.learn(Kind::AccessToken, "ya29.vkcanary-in-two-parts");
    town.start_node();
    town.street.integrate(&town.platform(0)).await;
    let mut connections = Vec::new();
    for number in 0..FLIGHTS {
        connections.push(town.google(&format!("u-{number}"), Account::ADA, -60).await);
    }
    let platform = town.platform(0);
    let asked = futures_util::future::join_all(connections.iter().map(|id| {
        let (platform, path) = (platform.clone(), format!("/v1/connections/{id}/token"));
        async move { platform.post(&path, &json!({})).await.status }
    }));
    let requests = || post.traffic.tokens.lock().expect("a lock").len();
    let stopped = async {
        town.until("every refresh is under way", async || requests() == FLIGHTS).await;
        // The heads are read, and the bodies are awaited.
        pause(Duration::from_millis(500)).await;
        town.nodes[0].signal("STOP");
        pause(STOPPED).await;
        town.nodes[0].signal("CONT");
    };
    futures_util::join!(asked, stopped);
    for id in &connections {
        town.until("the answer is stored", async || town.row(id, "generation").await == ["2"]).await;
    }
    assert_eq!(requests(), FLIGHTS, "nothing was asked for twice");
    town.close().await;
}
