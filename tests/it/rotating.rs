//! Trouble of a provider that takes every refresh token once: an outage or a bad day must not cost connections whose tokens
//! were never spent (RL-06, RL-08, RL-14; provider facts, D.4).

use std::collections::HashSet;
use std::time::Duration;

use valetkey::clock::{Clock, Entropy, Millis, SeededEntropy};
use valetkey::config::RefreshSettings;

use crate::crowds::{Crowd, MOST_PROBES, figure, size};
use crate::harness::{Answer, Wishes};

const HOUR: u64 = 3600;

/// How a provider that rotates may take a refresh token that comes again: Slack's short grace, and none.
const MANNERS: [&str; 2] = ["grace:60", "unsafe"];

/// 45 minutes of health, an hour of nothing but this answer, and health again.
async fn an_hour_of(answer: Answer, replay: &'static str, count: usize, patience: u64) {
    let what = format!("{answer:?}, {replay}, {count}");
    let crowd = Crowd::gather_rotating(replay, count, HOUR).await;
    crowd.pass(Duration::from_secs(45 * 60), Duration::from_secs(60)).await;
    let healthy = crowd.endpoint.count();
    crowd.endpoint.answer(move |_, _| answer.clone());
    crowd.pass(Duration::from_secs(HOUR), Duration::from_secs(10)).await;
    let down = crowd.endpoint.count() - healthy;
    assert_eq!(crowd.statuses().await, crowd.all_active(), "{what}");
    if count >= 100 {
        let probes = crowd.probes().await;
        // Inside a grace a lost answer is fetched again.
        assert!(probes <= 2 * MOST_PROBES, "{what}: {probes} calls since the breaker has opened");
    }
    crowd.endpoint.answer(|_, _| Answer::Fresh);
    let until_fresh = crowd.until_fresh(Duration::from_secs(35 + patience + count as u64 / 40)).await;
    let total = crowd.endpoint.count() - healthy;
    figure(
        "an hour of a rotating provider's trouble: answer, manner, credentials; calls while down, calls until fresh, seconds",
        format!("{what}; {down}, {total}, {}", until_fresh.as_secs()),
    );
    if count >= 100 {
        assert!(down as f64 <= 1.1 * count as f64, "{what}: {down}");
        // Each is renewed once, as it would have been without an outage; the rest are probes.
        assert!(total as f64 <= 1.1 * count as f64 + 2.0 * MOST_PROBES as f64, "{what}: {total}");
    }
    // What a step sends is what has its place in a second and a quarter: two thousand are due again within some minutes.
    crowd.pass(Duration::from_secs(HOUR), Duration::from_secs(10)).await;
    assert_eq!((crowd.dead().await, crowd.statuses().await), (0, crowd.all_active()), "{what}");
    crowd.app.finish().await;
}

#[tokio::test]
async fn rl_14_an_hour_without_a_rotating_provider_costs_no_connection() {
    for replay in MANNERS {
        // What was probed last is in doubt for two minutes.
        an_hour_of(Answer::BadGateway(502), replay, size(200, 2000), 120).await;
        an_hour_of(Answer::Cut, replay, size(200, 2000), 120).await;
    }
}

#[tokio::test]
async fn rl_14_nor_does_it_cost_a_lonely_connection_whose_providers_server_fails() {
    // Too few for a breaker. Where nobody answers at all, and hardly anybody is asked, a lost answer is one (decision 0013).
    // By the eighth failure its own back-off may have come to 256 s (RL-08); from then on the probes decide.
    an_hour_of(Answer::BadGateway(502), "unsafe", 1, 256).await;
}

#[tokio::test]
async fn rl_08_thirty_percent_of_a_rotating_providers_servers_fail_and_no_connection_is_lost() {
    let count = size(150, 2000);
    let mut calls = Vec::new();
    for (replay, bad) in [("unsafe", false), ("unsafe", true), ("grace:60", true)] {
        let crowd = Crowd::gather_rotating(replay, count, HOUR).await;
        let dice = SeededEntropy::new(30);
        crowd.endpoint.answer(move |_, _| {
            let mut roll = [0u8; 1];
            dice.fill(&mut roll);
            if bad && roll[0] < 77 { Answer::BadGateway(500) } else { Answer::Fresh }
        });
        crowd.pass(Duration::from_secs(2 * HOUR), Duration::from_secs(30)).await;
        calls.push(crowd.endpoint.count());
        assert_eq!(crowd.statuses().await, crowd.all_active());
        crowd.endpoint.answer(|_, _| Answer::Fresh);
        crowd.pass(Duration::from_secs(25 * 60), Duration::from_secs(15)).await;
        assert_eq!(crowd.dead().await, 0, "fresh within 25 minutes of the last error, without anybody asking");
        assert_eq!(crowd.statuses().await, crowd.all_active());
        crowd.app.finish().await;
    }
    let ratios = [calls[1] as f64 / calls[0] as f64, calls[2] as f64 / calls[0] as f64];
    figure(
        "30 % errors of a rotating provider for two hours: calls, ratios (bar 1.1)",
        format!("{calls:?}, {ratios:.3?}"),
    );
    assert!(ratios[0] <= 1.1 && ratios[1] <= 1.1, "{calls:?}");
}

#[tokio::test]
async fn rl_06_in_the_middle_of_a_crowd_what_a_dead_node_had_sent_is_sent_again_inside_the_grace() {
    let crowd = Crowd::gather_rotating("grace:60", 400, HOUR).await;
    crowd.pass(Duration::from_secs(60), Duration::from_secs(60)).await;
    // All are due, and one in fifty was sent by a node that has died since. Nobody knows their answers.
    let now = crowd.app.clock.now();
    let (sent, lease) = (now.before(Duration::from_secs(31)).0, now.before(Duration::from_secs(1)).0);
    let ended = now.after(Duration::from_secs(60)).0;
    crowd.app.rows(&format!("UPDATE credentials SET due_at = {lease}, slot_at = NULL, expires_at = {ended}")).await;
    let of_the_dead = "SELECT id FROM credentials ORDER BY id DESC LIMIT 8";
    crowd
        .app
        .rows(&format!(
            "UPDATE credentials SET phase = 'sent', sent_at = {sent}, lease_owner = 'gone', lease_until = {lease}, fence = fence + 1
             WHERE id IN ({of_the_dead})"
        ))
        .await;
    crowd.pass(Duration::from_secs(1), Duration::from_secs(1)).await;
    let fresh = format!("SELECT id FROM credentials WHERE expires_at > {ended} AND id IN ({of_the_dead})");
    assert_eq!(crowd.app.rows(&fresh).await.len(), 8, "fourteen seconds of their grace were left");
    assert!(crowd.endpoint.count() < 200, "and the others wait their turn: {}", crowd.endpoint.count());
    crowd.until_fresh(Duration::from_secs(30)).await;
    assert_eq!(crowd.statuses().await, crowd.all_active());
    crowd.app.finish().await;
}

#[tokio::test]
async fn rl_13_what_is_sent_twice_inside_a_grace_leaves_no_room_for_others() {
    let refresh = RefreshSettings { rate_per_client: 20, in_air_per_client: 200, workers: 400 };
    let wishes = Wishes { refresh: Some(refresh), ..Wishes::default() };
    let crowd = Crowd::gather_rotating_with("grace:60", 240, HOUR, wishes).await;
    let mut lost = HashSet::new();
    crowd.endpoint.answer(move |n, call| {
        // Never twice in a row: the token comes again at once.
        if n % 2 == 0 && lost.insert(call.refresh_token.clone()) { Answer::Cut } else { Answer::Fresh }
    });
    crowd.pass(Duration::from_secs(58 * 60), Duration::from_secs(58 * 60)).await;
    crowd.pass(Duration::from_secs(24), Duration::from_secs(1)).await;
    let calls: Vec<Millis> = crowd.endpoint.calls().iter().map(|call| call.at).collect();
    let within =
        |from: Millis| calls.iter().filter(|at| **at >= from && at.left(from) < Duration::from_secs(5)).count();
    let busiest = calls.iter().map(|from| within(*from)).max().unwrap_or_default();
    figure(
        "240 due, 20 a second, every other answer lost: calls, busiest 5 seconds",
        format!("{}, {busiest}", calls.len()),
    );
    assert!(calls.len() >= 300, "{}", calls.len());
    assert!(
        busiest <= 20 * 5 + 40,
        "{busiest}: what a round looks ahead, and the second sendings of the first, come on top"
    );
    assert_eq!(crowd.dead().await, 0);
    assert_eq!(crowd.statuses().await, crowd.all_active());
    crowd.app.finish().await;
}

#[tokio::test]
async fn rl_03_what_a_failing_server_had_spent_is_said_and_nothing_else_is_given_up() {
    let count = size(150, 1000);
    let crowd = Crowd::gather_rotating("unsafe", count, HOUR).await;
    // One in ten is spent before its server fails.
    crowd.endpoint.answer(|number, _| if number % 10 == 3 { Answer::SpentAndFailed(500) } else { Answer::Fresh });
    crowd.pass(Duration::from_secs(59 * 60), Duration::from_secs(30)).await;
    let spent = (0..crowd.endpoint.count()).filter(|number| number % 10 == 3).count() as u64;
    assert_eq!(crowd.statuses().await, crowd.all_active(), "their access tokens live");
    crowd.endpoint.answer(|_, _| Answer::Fresh);
    crowd.pass(Duration::from_secs(30 * 60), Duration::from_secs(10)).await;
    figure(
        "spent before the server failed: credentials, spent, calls",
        format!("{count}, {spent}, {}", crowd.endpoint.count()),
    );
    let statuses = crowd.statuses().await;
    assert_eq!((statuses.get("needs_reauth"), statuses.get("active")), (Some(&spent), Some(&(count as u64 - spent))));
    let reasons = crowd.app.rows("SELECT DISTINCT reason FROM credentials WHERE status = 'needs_reauth'").await;
    assert_eq!(reasons, [["rotation_response_lost"]]);
    assert!(crowd.endpoint.count() as f64 <= 1.1 * count as f64 + 1.0, "{}", crowd.endpoint.count());
    crowd.app.finish().await;
}

#[tokio::test]
async fn rl_06_no_word_of_a_failing_server_makes_a_spent_token_leave_again_while_it_could_do_harm() {
    let words = [(500, "server_error"), (502, "server_error"), (503, "temporarily_unavailable"), (200, "fatal_error")];
    for (status, word) in words {
        let mut crowd = Crowd::gather_rotating("unsafe", 1, HOUR).await;
        crowd.app.let_time_run();
        crowd.endpoint.answer(move |_, _| Answer::SpentAndSaid(status, word));
        let path = format!("/v1/connections/{}", crowd.ids[0]);
        for _ in 0..3 {
            crowd.platform.request(reqwest::Method::POST, &format!("{path}/refresh"), None).await;
            crowd.platform.post(&format!("{path}/token"), &serde_json::json!({"min_ttl": 1800})).await.ok();
        }
        assert_eq!(crowd.endpoint.count(), 1, "{status} {word}");
        crowd.app.finish().await;
    }
}

#[tokio::test]
async fn rl_08_readers_retries_are_a_tenth_of_their_calls() {
    let count = size(200, 1000);
    let mut crowd = Crowd::gather_rotating("grace:60", count, HOUR).await;
    let dice = SeededEntropy::new(31);
    crowd.endpoint.answer(move |_, _| {
        let mut roll = [0u8; 1];
        dice.fill(&mut roll);
        if roll[0] < 77 { Answer::BadGateway(500) } else { Answer::Fresh }
    });
    crowd.app.let_time_run();
    let ended = crowd.app.clock.now().0 - 1;
    let ask_nobody = "due_at = NULL, slot_at = NULL";
    crowd.app.rows(&format!("UPDATE credentials SET {ask_nobody}, expires_at = {ended}")).await;
    for id in &crowd.ids {
        let path = format!("/v1/connections/{id}/token");
        crowd.platform.post(&path, &serde_json::json!({})).await;
        // What has failed is the sweep's from here on.
        crowd.app.rows(&format!("UPDATE credentials SET {ask_nobody}")).await;
    }
    let calls = crowd.endpoint.count();
    figure("readers at 30 % of errors: readers, calls", format!("{count}, {calls}"));
    assert!(calls as f64 <= 1.1 * count as f64 + 3.0, "{calls}");
    assert!(calls > count, "some were tried again");
    crowd.app.finish().await;
}

#[tokio::test]
async fn rl_11_a_token_that_came_while_the_machine_slept_has_no_life_from_its_sleep() {
    let crowd = Crowd::gather_rotating("unsafe", 1, HOUR).await;
    crowd.endpoint.answer(|_, _| Answer::Late(Duration::from_secs(2)));
    let given_at = crowd.app.clock.now();
    let path = format!("/v1/connections/{}", crowd.ids[0]);
    let forced = format!("{path}/refresh");
    let asked = crowd.platform.request(reqwest::Method::POST, &forced, None);
    let sleep = async {
        crowd.app.until("it is under way", async || crowd.endpoint.count() == 1).await;
        crowd.app.clock.advance(Duration::from_secs(3 * HOUR));
    };
    futures_util::join!(asked, sleep);
    let row = crowd.app.rows("SELECT CAST(expires_at AS TEXT) FROM credentials WHERE generation = 2").await;
    let end = Millis(row[0][0].parse().expect("a time"));
    assert!(end.left(given_at) < Duration::from_secs(HOUR + 30), "{:?}", end.left(given_at));
    crowd.app.finish().await;
}
