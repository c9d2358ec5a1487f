//! Many credentials at once: what the sweep sends, when, and what it makes of a provider that is down, busy, wrong or
//! slow. Time is the story's own unless it says otherwise.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use valetkey::clock::{Clock, Millis, SeededEntropy, Stopwatch, TestClock};
use valetkey::config::RefreshSettings;

use crate::harness::{Answer, Client, TestApp, TokenEndpoint, Wishes};

pub const HOUR: u64 = 3600;

/// So many in every run, so many when `VK_SCALE=full` asks for the evidence.
pub fn size(usual: usize, full: usize) -> usize {
    if full_scale() { full } else { usual }
}

#[expect(clippy::disallowed_methods, reason = "how much evidence is wanted is said from outside")]
fn full_scale() -> bool {
    std::env::var("VK_SCALE").is_ok_and(|scale| scale == "full")
}

/// Figures for the evidence; the harness shows them with `--nocapture`.
#[expect(clippy::print_stdout, reason = "figures are for whoever runs the evidence")]
pub fn figure(what: &str, value: impl std::fmt::Display) {
    println!("figure: {what}: {value}");
}

/// A platform with many users, whose accounts the story's own endpoint refreshes.
pub struct Crowd {
    pub app: TestApp,
    pub platform: Client,
    pub endpoint: TokenEndpoint,
    pub ids: Vec<String>,
    /// `google`, whose refresh tokens stay; or `slack`, whose are good once.
    provider: &'static str,
}

impl Crowd {
    /// `count` connections whose tokens end `life` seconds from now. None without the database that was wished for.
    pub async fn gather(count: usize, life: u64, wishes: Wishes) -> Option<Self> {
        Self::gather_at("google", count, life, wishes).await
    }

    /// The same at a provider that takes every refresh token once; `replay` says whether it forgives a second time.
    pub async fn gather_rotating(replay: &'static str, count: usize, life: u64) -> Self {
        Self::gather_rotating_with(replay, count, life, Wishes::default()).await
    }

    pub async fn gather_rotating_with(replay: &'static str, count: usize, life: u64, wishes: Wishes) -> Self {
        let wishes = Wishes { providers: vec![("slack", "replay", replay)], ..wishes };
        Self::gather_at("slack", count, life, wishes).await.expect("SQLite")
    }

    async fn gather_at(provider: &'static str, count: usize, life: u64, wishes: Wishes) -> Option<Self> {
        // The endpoint has to be there before the app; its clock is set by the app's.
        let clock = TestClock::at(Millis(crate::harness::START));
        let endpoint = TokenEndpoint::start(&clock, "one", provider == "slack").await;
        let token_endpoint = Some((provider, endpoint.url.clone()));
        let app = TestApp::start_at(clock, Wishes { token_endpoint, ..wishes }).await?;
        let platform = app.platform().await;
        let mut crowd = Self { app, platform, endpoint, ids: Vec::new(), provider };
        crowd.join(count, life).await;
        Some(crowd)
    }

    pub async fn join(&mut self, count: usize, life: u64) {
        self.join_by(&self.platform.clone(), count, life).await;
    }

    /// The same by another platform, in its tenant.
    pub async fn join_by(&mut self, platform: &Client, count: usize, life: u64) {
        let end = Millis(self.app.clock.now().0).after(Duration::from_secs(life)).rfc3339();
        let first = self.ids.len();
        for chunk in (first..first + count).collect::<Vec<_>>().chunks(250) {
            let rows: Vec<Value> = chunk.iter().map(|n| row(self.provider, *n, &end)).collect();
            let answer = platform.post("/v1/connections/import", &json!({ "connections": rows })).await;
            assert_eq!(answer.status, 201, "{}", answer.text);
            let answer = answer.json();
            let made = answer["data"].as_array().expect("a list").iter();
            self.ids.extend(made.map(|one| one["id"].as_str().expect("an id").to_owned()));
        }
    }

    /// Moves the clock in steps, and at each lets everything land that has left.
    pub async fn pass(&self, span: Duration, step: Duration) {
        let end = self.app.clock.now().after(span);
        while self.app.clock.now() < end {
            self.app.clock.advance(step);
            self.settle().await;
        }
    }

    /// How long it takes from now until no access token is over; less than `bound`.
    pub async fn until_fresh(&self, bound: Duration) -> Duration {
        let begin = self.app.clock.now();
        loop {
            let waited = self.app.clock.now().left(begin);
            let dead = self.dead().await;
            assert!(waited < bound, "{dead} are not fresh after {waited:?}");
            if dead == 0 {
                return waited;
            }
            self.pass(Duration::from_secs(2), Duration::from_secs(1)).await;
        }
    }

    /// Calls since the breaker has opened; it has to be open.
    pub async fn probes(&self) -> usize {
        let opened = self.number("SELECT CAST(max(unreachable_since) AS TEXT) FROM integrations").await;
        self.endpoint.calls().iter().filter(|call| call.at.0 > opened.cast_signed()).count()
    }

    async fn settle(&self) {
        self.app.rooms().credentials.sweep().await.expect("sweeps");
        self.app.until("nothing is in the air", async || self.in_air().await == 0).await;
    }

    pub async fn in_air(&self) -> u64 {
        let soon = self.app.clock.now().0 + 1250;
        let sql = format!(
            "SELECT CAST(count(*) AS TEXT) FROM credentials WHERE phase = 'sent' OR (slot_at <= {soon} AND due_at > slot_at)"
        );
        self.number(&sql).await
    }

    async fn number(&self, sql: &str) -> u64 {
        self.app.rows(sql).await[0][0].parse().expect("a number")
    }

    pub async fn statuses(&self) -> BTreeMap<String, u64> {
        let sql = "SELECT status, CAST(count(*) AS TEXT) FROM credentials GROUP BY status";
        self.app.rows(sql).await.into_iter().map(|row| (row[0].clone(), row[1].parse().expect("a number"))).collect()
    }

    pub fn all_active(&self) -> BTreeMap<String, u64> {
        BTreeMap::from([("active".to_owned(), self.ids.len() as u64)])
    }

    /// Credentials whose access token has ended.
    pub async fn dead(&self) -> u64 {
        let now = self.app.clock.now().0;
        self.number(&format!("SELECT CAST(count(*) AS TEXT) FROM credentials WHERE expires_at <= {now}")).await
    }
}

fn row(provider: &str, n: usize, end: &str) -> Value {
    let (account, scope) = match provider {
        "slack" => (format!("T0CROWD/U{n}"), "chat:write"),
        _ => (format!("1{n:020}"), "openid"),
    };
    json!({"user": format!("u-{n}"), "provider": provider, "account": {"id": account},
        "credentials": [{"kind": "user", "access_token": format!("ya29.vkcrowd-first-{n}"), "refresh_token": format!("1//vkcrowd-{n}"),
            "expires_at": end, "scopes": [scope]}]})
}

/// One in half a minute, for an hour.
pub const MOST_PROBES: usize = 121;

/// The most calls in any second, by the wall.
pub fn busiest_second(calls: &[Duration]) -> usize {
    let mut sorted = calls.to_vec();
    sorted.sort_unstable();
    let within =
        |from: usize| sorted[from..].iter().take_while(|at| **at - sorted[from] < Duration::from_secs(1)).count();
    (0..sorted.len()).map(within).max().unwrap_or_default()
}

#[tokio::test]
async fn rl_08_a_retry_leaves_in_its_time_and_costs_its_share_of_the_budget_once() {
    let crowd = Crowd::gather(1, HOUR, Wishes::default()).await.expect("SQLite");
    crowd.endpoint.answer(|_, _| Answer::Error(500, "server_error"));
    let budget = async || {
        let columns = "CAST(retry_credit AS TEXT), CAST(coalesce(retried_at, 0) AS TEXT)";
        crowd.app.rows(&format!("SELECT {columns} FROM integrations")).await
    };
    let now = crowd.app.clock.now();
    let (began, ends) = (now.before(Duration::from_secs(HOUR)).0, now.after(Duration::from_secs(60)).0);
    let aged = format!("due_at = 1, obtained_at = {began}, last_used_at = {began}, expires_at = {ends}");
    crowd.app.rows(&format!("UPDATE credentials SET {aged}")).await;
    crowd.settle().await;
    assert_eq!(crowd.endpoint.count(), 1, "it fails");
    let before = budget().await;
    let retry_at = now.after(Duration::from_secs(30));
    let wait = format!("UPDATE credentials SET due_at = {0}, next_attempt_at = {0}", retry_at.0);
    crowd.app.rows(&wait).await;
    // The sweep looks a little ahead, for what has a place.
    let soon = retry_at.before(Duration::from_millis(200)).left(now);
    crowd.pass(soon, soon).await;
    assert_eq!((crowd.endpoint.count(), budget().await), (1, before.clone()), "nothing was sent or spent");
    crowd.pass(Duration::from_millis(200), Duration::from_millis(200)).await;
    assert_eq!(crowd.endpoint.count(), 2);
    assert_ne!(budget().await, before);
    crowd.app.finish().await;
}

#[tokio::test]
async fn rl_08_rl_14_an_hour_without_the_provider_costs_a_few_probes_and_no_connection() {
    let crowd = Crowd::gather(size(300, 2000), HOUR, Wishes::default()).await.expect("SQLite");
    let count = crowd.ids.len();
    crowd.pass(Duration::from_secs(45 * 60), Duration::from_secs(60)).await;
    let healthy = crowd.endpoint.count();
    crowd.endpoint.answer(|_, _| Answer::Error(503, "temporarily_unavailable"));
    crowd.pass(Duration::from_secs(HOUR), Duration::from_secs(10)).await;
    let down = crowd.endpoint.count() - healthy;
    let shown = crowd.platform.read("/v1/integrations/google").await.ok();
    assert!(shown["unreachable_since"].is_string(), "{shown}");
    assert_eq!(shown["status"], "active", "nobody has to mend anything");
    assert_eq!(crowd.statuses().await, crowd.all_active());
    let probes = crowd.probes().await;
    assert!(probes <= MOST_PROBES, "{probes} calls since the breaker has opened");
    crowd.endpoint.answer(|_, _| Answer::Fresh);
    let until_fresh = crowd.until_fresh(Duration::from_secs(35 + count as u64 / 40)).await;
    let total = crowd.endpoint.count() - healthy;
    figure(
        "an hour down: calls while down, of these probes, all calls until fresh, credentials (bar 1.1 a credential, beside the probes at the end)",
        format!("{down}, {probes}, {total}, {count}"),
    );
    figure("an hour down: seconds from recovery until all are fresh", until_fresh.as_secs());
    // A healthy provider would have met every credential at least once in that hour.
    assert!(down as f64 <= 1.1 * count as f64, "{down} of {count}");
    // And each is renewed once after it.
    assert!(total as f64 <= 1.1 * count as f64 + MOST_PROBES as f64, "{total} of {count}");
    assert_eq!(crowd.statuses().await, crowd.all_active());
    assert!(crowd.platform.read("/v1/integrations/google").await.ok()["unreachable_since"].is_null());
    crowd.app.finish().await;
}

#[tokio::test]
async fn rl_08_thirty_percent_of_errors_cost_the_provider_a_tenth_more_at_most() {
    let mut totals = Vec::new();
    for bad in [false, true] {
        let crowd = Crowd::gather(size(250, 2000), HOUR, Wishes::default()).await.expect("SQLite");
        let dice = SeededEntropy::new(30);
        crowd.endpoint.answer(move |_, _| {
            let mut roll = [0u8; 1];
            valetkey::clock::Entropy::fill(&dice, &mut roll);
            if bad && roll[0] < 77 { Answer::Error(500, "internal_failure") } else { Answer::Fresh }
        });
        crowd.pass(Duration::from_secs(2 * HOUR), Duration::from_secs(30)).await;
        totals.push(crowd.endpoint.count());
        assert_eq!(crowd.statuses().await, crowd.all_active());
        crowd.endpoint.answer(|_, _| Answer::Fresh);
        crowd.pass(Duration::from_secs(25 * 60), Duration::from_secs(15)).await;
        assert_eq!(crowd.dead().await, 0, "fresh within 25 minutes of the last error, without anybody asking");
        crowd.app.finish().await;
    }
    let ratio = totals[1] as f64 / totals[0] as f64;
    figure("30 % errors for two hours: calls without and with, ratio (bar 1.1)", format!("{totals:?}, {ratio:.3}"));
    assert!(ratio <= 1.1, "{totals:?}");
}

#[tokio::test]
async fn rl_09_a_pause_in_seconds_or_as_a_date_is_kept_by_every_node() {
    for as_date in [false, true] {
        let wishes = Wishes { postgres: true, ..Wishes::default() };
        let count = size(200, 1000);
        let Some(mut crowd) = Crowd::gather(count, HOUR, wishes).await else { continue };
        crowd.app.add_node().await;
        let until = crowd.app.clock.now().after(Duration::from_secs(58 * 60));
        let say = move |now: Millis| if as_date { http_date(until) } else { until.left(now).as_secs().to_string() };
        crowd
            .endpoint
            .answer(move |_, call| if call.at < until { Answer::TooMany(say(call.at)) } else { Answer::Fresh });
        crowd.pass(Duration::from_secs(57 * 60), Duration::from_secs(60)).await;
        let asked = crowd.endpoint.calls();
        assert!(!asked.is_empty(), "something was due");
        let first = asked[0].at;
        assert!(asked.iter().all(|call| call.at == first), "no call inside the pause");
        assert!(asked.len() <= 64, "only what was in the air: {}", asked.len());
        crowd.pass(Duration::from_secs(3 * 60), Duration::from_secs(1)).await;
        assert_eq!((crowd.dead().await, crowd.statuses().await), (0, crowd.all_active()));
        let total = crowd.endpoint.count();
        figure(
            "429 for a while: calls before the pause, all calls, credentials",
            format!("{}, {total}, {count}", asked.len()),
        );
        // What was in the air when the first 429 came is asked for once more; of a crowd that is less than a tenth.
        let in_air = if full_scale() { 0 } else { 64 };
        assert!(total as f64 <= 1.1 * count as f64 + f64::from(in_air), "{total} of {count}");
        crowd.app.finish().await;
    }
}

fn http_date(at: Millis) -> String {
    let seconds = jiff::Timestamp::from_millisecond(at.0).expect("a time");
    seconds.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

#[tokio::test]
async fn rl_17_readers_at_a_provider_that_hangs_take_only_so_much_of_a_node() {
    let refresh = RefreshSettings { workers: 16, ..RefreshSettings::default() };
    let crowd = Crowd::gather(12, 1, Wishes { refresh: Some(refresh), ..Wishes::default() }).await.expect("SQLite");
    crowd.platform.put("/v1/integrations/google", &json!({"refresh_policy": "on_demand"})).await.ok();
    let account = crate::harness::Account::ADA;
    let slack = crowd.app.slack(&crowd.platform, "u-slack", account, crate::harness::Life::Expired).await;
    crowd.app.advance(1);
    let gate = Arc::new(Semaphore::new(0));
    let hangs = Arc::clone(&gate);
    crowd.endpoint.answer(move |_, _| Answer::WhenTold(Arc::clone(&hangs), Box::new(Answer::Fresh)));
    let read = async |id: &String| crowd.platform.post(&format!("/v1/connections/{id}/token"), &json!({})).await.status;
    let story = async {
        crowd.app.until("as many hang as may", async || crowd.endpoint.count() >= 8).await;
        assert_eq!(read(&slack).await, 200, "nobody else waits");
        assert_eq!(crowd.endpoint.count(), 8, "half of the workers");
        gate.close();
    };
    let (answers, ()) = tokio::join!(join_all(crowd.ids.iter().map(read)), story);
    assert_eq!(answers, [200; 12], "the others came when there was room");
    crowd.app.finish().await;
}

#[tokio::test]
async fn rl_17_a_provider_that_hangs_takes_a_quarter_of_the_berths_and_no_other_provider_waits() {
    let refresh = RefreshSettings { workers: 16, ..RefreshSettings::default() };
    let wishes = Wishes { refresh: Some(refresh), ..Wishes::default() };
    let crowd = Crowd::gather(40, HOUR, wishes).await.expect("SQLite");
    let account = crate::harness::Account::ADA;
    let slack = crowd.app.slack(&crowd.platform, "u-slack", account, crate::harness::Life::Expired).await;
    crowd.endpoint.answer(|_, _| Answer::Late(Duration::from_secs(600)));
    crowd.app.advance(57);
    crowd.app.until("a quarter hangs", async || crowd.endpoint.count() == 4).await;
    let generation = async || {
        let path = format!("/v1/connections/{slack}");
        crowd.platform.read(&path).await.ok()["credentials"][0]["last_refreshed_at"].is_string()
    };
    crowd.app.until("the other provider's is refreshed", generation).await;
    assert_eq!(crowd.endpoint.count(), 4);
    crowd.app.finish().await;
}

#[tokio::test]
async fn rl_16_damaged_rows_are_tried_once_and_hold_up_nobody() {
    let crowd = Crowd::gather(100, HOUR, Wishes::default()).await.expect("SQLite");
    crowd
        .app
        .database
        .execute(
            "UPDATE credentials SET refresh_token = x'00' WHERE id IN (SELECT id FROM credentials ORDER BY id LIMIT 3)",
        )
        .await;
    crowd
        .app
        .database
        .execute(
            "UPDATE credentials SET kind = 'odd' WHERE id IN (SELECT id FROM credentials ORDER BY id DESC LIMIT 2)",
        )
        .await;
    crowd.pass(Duration::from_secs(59 * 60), Duration::from_secs(30)).await;
    let mut errors = BTreeMap::new();
    for row in crowd.app.rows("SELECT COALESCE(last_error, 'none'), CAST(attempts AS TEXT) FROM credentials").await {
        *errors.entry((row[0].clone(), row[1].clone())).or_insert(0) += 1;
    }
    let wanted = [(("none", "0"), 95), (("provider_unknown", "1"), 2), (("stored_token_unreadable", "1"), 3)];
    let wanted: BTreeMap<_, _> =
        wanted.into_iter().map(|((error, tries), count)| ((error.to_owned(), tries.to_owned()), count)).collect();
    assert_eq!(errors, wanted);
    assert_eq!(crowd.platform.read("/v1/integrations/google").await.ok()["status"], "active");
    crowd.app.finish().await;
}

#[tokio::test]
async fn an_integration_chooses_what_is_refreshed_ahead_of_its_readers() {
    let crowd = Crowd::gather(6, HOUR, Wishes::default()).await.expect("SQLite");
    let put = async |body: Value| crowd.platform.put("/v1/integrations/google", &body).await;
    let wrong = put(json!({"refresh_policy": "sometimes", "refresh_active_days": 0})).await;
    assert_eq!(wrong.status, 422);
    assert!(wrong.text.contains("refresh_policy") && wrong.text.contains("refresh_active_days"), "{}", wrong.text);
    let shown = put(json!({"refresh_policy": "on_demand"})).await.ok();
    assert_eq!((&shown["refresh_policy"], &shown["refresh_active_days"]), (&json!("on_demand"), &json!(30)));
    crowd.pass(Duration::from_secs(2 * HOUR), Duration::from_secs(60)).await;
    let on_demand = crowd.endpoint.count();
    assert!(on_demand <= 6, "what was planned before is done, and nothing after it: {on_demand}");
    crowd.pass(Duration::from_secs(30 * HOUR), Duration::from_secs(600)).await;
    assert_eq!(crowd.endpoint.count(), on_demand);
    let path = format!("/v1/connections/{}/token", crowd.ids[0]);
    crowd.platform.post(&path, &json!({})).await.ok();
    assert_eq!(crowd.endpoint.count(), on_demand + 1, "somebody asked");

    put(json!({"refresh_policy": "active", "refresh_active_days": 1})).await.ok();
    crowd.pass(Duration::from_secs(60), Duration::from_secs(10)).await;
    let looked = crowd.endpoint.count();
    assert!(looked <= on_demand + 6, "each is looked at once");
    crowd.platform.post(&path, &json!({})).await.ok();
    crowd.pass(Duration::from_secs(6 * HOUR), Duration::from_secs(120)).await;
    let later = crowd.endpoint.calls().split_off(looked);
    assert!(later.len() > 5, "the one in use is kept fresh");
    assert!(later.iter().all(|call| call.refresh_token == "1//vkcrowd-0"), "and only that one");
    crowd.app.finish().await;
}

#[tokio::test]
async fn the_end_of_a_refresh_token_is_told_once_some_days_ahead() {
    let crowd = Crowd::gather(2, HOUR, Wishes::default()).await.expect("SQLite");
    let end = crowd.app.clock.now().after(Duration::from_secs(7 * 24 * HOUR)).0;
    crowd.app.database.execute(&format!("UPDATE credentials SET refresh_expires_at = {end}")).await;
    crowd.pass(Duration::from_secs(3 * 24 * HOUR), Duration::from_secs(1800)).await;
    let told =
        async || crowd.number("SELECT CAST(count(*) AS TEXT) FROM outbox WHERE kind = 'connection.expiring'").await;
    assert_eq!(told().await, 0);
    crowd.app.database.execute(&format!("UPDATE credentials SET refresh_expires_at = {end}")).await;
    crowd.pass(Duration::from_secs(2 * 24 * HOUR), Duration::from_secs(1800)).await;
    assert_eq!(told().await, 2);
    // A provider that tells with every refresh how long is left moves the same end by a little.
    crowd.app.database.execute("UPDATE credentials SET refresh_expires_at = refresh_expires_at + 1000").await;
    crowd.pass(Duration::from_secs(12 * HOUR), Duration::from_secs(1800)).await;
    assert_eq!(told().await, 2);
    crowd.app.finish().await;
}

#[tokio::test]
async fn rl_13_a_crowd_that_is_due_at_once_leaves_at_the_allowed_rate_from_two_nodes_together() {
    let rate = 100;
    let refresh = RefreshSettings { rate_per_client: rate, in_air_per_client: 200, workers: 400 };
    let wishes = Wishes { postgres: true, refresh: Some(refresh), ..Wishes::default() };
    let Some(mut crowd) = Crowd::gather(400, HOUR, wishes).await else { return };
    crowd.app.add_node().await;
    crowd.app.clock.advance(Duration::from_secs(59 * 60));
    crowd.app.let_time_run();
    let watch = Stopwatch::start();
    crowd.app.until("all are fresh", async || crowd.endpoint.count() >= 400 && crowd.in_air().await == 0).await;
    let took = watch.elapsed();
    let calls: Vec<Duration> = crowd.endpoint.calls().iter().map(|call| call.wall).collect();
    let busiest = busiest_second(&calls);
    figure(
        "400 due at once, 100 a second, two nodes: busiest second, seconds",
        format!("{busiest}, {:.2}", took.as_secs_f64()),
    );
    assert_eq!(calls.len(), 400, "each once");
    assert!(busiest <= 110, "{busiest}");
    crowd.app.finish().await;
}

#[tokio::test]
async fn rl_13_a_sweep_that_stood_still_does_not_make_up_for_it_all_at_once() {
    let refresh = RefreshSettings { rate_per_client: 100, in_air_per_client: 400, workers: 1600 };
    let wishes = Wishes { refresh: Some(refresh), ..Wishes::default() };
    let mut crowd = Crowd::gather(400, HOUR, wishes).await.expect("SQLite");
    crowd.app.clock.advance(Duration::from_secs(58 * 60));
    crowd.settle().await;
    let before = crowd.endpoint.count();
    assert!((100..=125).contains(&before), "the others have their places: {before}");
    crowd.app.clock.advance(Duration::from_secs(60));
    crowd.app.let_time_run();
    crowd.app.until("all are fresh", async || crowd.endpoint.count() >= 400 && crowd.in_air().await == 0).await;
    let calls: Vec<Duration> = crowd.endpoint.calls()[before..].iter().map(|call| call.wall).collect();
    let busiest = busiest_second(&calls);
    figure("400 due, 100 a second, the sweep away for a minute: busiest second", busiest);
    assert!(busiest <= 110, "{busiest}");
    crowd.app.finish().await;
}

#[tokio::test]
async fn rl_13_whose_token_a_conversation_uses_changes_places_with_somebody_nearer() {
    let refresh = RefreshSettings { rate_per_client: 20, in_air_per_client: 400, workers: 1600 };
    let wishes = Wishes { refresh: Some(refresh), ..Wishes::default() };
    let crowd = Crowd::gather(400, HOUR, wishes).await.expect("SQLite");
    crowd.pass(Duration::from_secs(57 * 60), Duration::from_secs(57 * 60)).await;
    crowd.pass(Duration::from_secs(2), Duration::from_secs(1)).await;
    let last = "SELECT u.connection_id, u.credential_id FROM connection_credentials u JOIN credentials k ON k.id = u.credential_id
         WHERE k.slot_at IS NOT NULL ORDER BY k.slot_at DESC LIMIT 1";
    let [connection, credential] = &crowd.app.rows(last).await[0][..] else { panic!("two columns") };
    let asked = crowd.platform.post(&format!("/v1/connections/{connection}/token"), &json!({"min_ttl": 30})).await.ok();
    assert_eq!(asked["generation"], 1, "it lives, and nobody waits for a refresh");
    crowd.pass(Duration::from_secs(3), Duration::from_secs(1)).await;
    let generation = format!("SELECT CAST(generation AS TEXT) FROM credentials WHERE id = '{credential}'");
    assert_eq!(crowd.app.rows(&generation).await, [["2"]], "a quarter of a minute before its place");
    assert!(crowd.endpoint.count() < 150, "{}", crowd.endpoint.count());
    crowd.pass(Duration::from_secs(20), Duration::from_secs(1)).await;
    assert_eq!(crowd.endpoint.count(), 400, "and whoever made room was not forgotten");
    crowd.app.finish().await;
}

#[tokio::test]
async fn what_a_stopping_node_had_taken_is_taken_again_soon() {
    let refresh = RefreshSettings { rate_per_client: 10, in_air_per_client: 400, workers: 1600 };
    let wishes = Wishes { refresh: Some(refresh), ..Wishes::default() };
    let mut crowd = Crowd::gather(30, HOUR, wishes).await.expect("SQLite");
    crowd.app.clock.advance(Duration::from_secs(58 * 60));
    crowd.app.rooms().credentials.sweep().await.expect("sweeps");
    crowd.app.restart().await;
    assert!(crowd.endpoint.count() < 30, "it had no time for all of them");
    crowd.pass(Duration::from_secs(10), Duration::from_secs(1)).await;
    assert_eq!(crowd.endpoint.count(), 30, "long before their tokens end");
    crowd.app.finish().await;
}
