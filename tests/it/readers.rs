//! Readers in their thousands of a token that rotates: however many they are, on however many processes, whatever the
//! provider's delay and whoever is stopped in the middle, the provider is asked once per token (RL-01, RL-02).
//!
//! `scripts/evidence readers` runs the long version and prints what it has counted.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use valetkey::caller::Caller;
use valetkey::clock::{Stopwatch, pause};
use valetkey::credentials::{ReadWish, Token};

use crate::harness::{Account, Database, Life, TestApp, http_client};
use crate::town::{Town, until};

/// Whether the long version is wanted.
fn long() -> bool {
    #[expect(clippy::disallowed_methods, reason = "scripts/evidence asks for the long version")]
    std::env::var("VK_EVIDENCE").is_ok_and(|proof| proof == "readers")
}

#[tokio::test(flavor = "current_thread")]
async fn a_thousand_readers_of_an_expired_token_share_one_refresh_round_after_round() {
    // RL-01
    let (rounds, readers) = if long() { (100, 1000) } else { (5, 1000) };
    let app = TestApp::start_quietly().await;
    let platform = app.platform().await;
    app.street.tell("/rotation", json!({"reuse": "family"})).await;
    let id = app.slack(&platform, "u-1", Account::ADA, Life::Expired).await;
    let caller = Caller::system("readers", app.tenant.id.clone());
    let (mut generation, watch) = (1, Stopwatch::start());
    for round in 1..=rounds {
        app.street.fault("slack", "refresh", "delay_ms:200", 1).await;
        let wish = || ReadWish::token(&id, Duration::from_secs(60));
        let reading = join_all((0..readers).map(|_| app.rooms().credentials.read(&caller, wish())));
        let read: Vec<Token> = reading.await.into_iter().map(|token| token.expect("a token")).collect();
        generation += 1;
        assert!(read.iter().all(|token| token.generation == generation), "round {round}: all got the new one");
        let asked = app.street.counter("slack/token_requests/refresh_token").await;
        assert_eq!(asked, round, "round {round}: one call");
        app.street.clear_faults().await;
        app.database.execute("UPDATE credentials SET expires_at = obtained_at - 1").await;
    }
    assert_eq!(app.street.counter("slack/reuses").await, 0);
    assert_eq!(
        app.entries("token.read").await.len(),
        usize::try_from(rounds).expect("few") * readers,
        "all in the book"
    );
    println!(
        "| one process | {rounds} rounds of {readers} readers | 200 ms | {rounds} calls | 0 reuses | {:.1?} |",
        watch.elapsed()
    );
    app.finish().await;
}

/// What is done to the process that refreshes.
#[derive(Clone, Copy)]
struct Trial {
    /// The provider's.
    latency: Duration,
    /// How long the holder is stopped, if it is.
    stopped: Option<Duration>,
    rounds: u64,
    processes: usize,
    /// Per connection and round.
    readers: usize,
}

/// What came of a round.
#[derive(Default)]
struct Tally {
    calls: u64,
    reuses: u64,
    lent: usize,
    asked_to_wait: usize,
    /// With status and code.
    failed_with_life: Vec<String>,
    needs_reauth: usize,
    /// From the first question to the stored answer.
    slowest: Duration,
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_on_one_postgres_database_ask_the_provider_once_however_slow_it_is() {
    // RL-02
    let short = [Trial { latency: Duration::from_millis(200), stopped: None, rounds: 2, processes: 2, readers: 60 }];
    let s = Duration::from_secs;
    let trial = |latency, stopped| Trial { latency, stopped, rounds: 5, processes: 4, readers: 200 };
    let all = [
        trial(Duration::from_millis(200), None),
        trial(s(13), None),
        trial(s(40), None),
        trial(s(2), Some(s(60))),
        // Beyond the 120 s for which the head of an answer is awaited.
        Trial { rounds: 1, ..trial(s(2), Some(s(140))) },
    ];
    for trial in if long() { &all[..] } else { &short[..] } {
        let Some(database) = Database::postgres().await else { return };
        let tally = run(database, *trial).await;
        let stopped = trial.stopped.map_or_else(String::new, |span| format!(", holder stopped {span:?}"));
        println!(
            "| {} processes | {} rounds of 2 × {} readers | {:?}{stopped} | {} calls for {} tokens | {} reuses | {} lent, {} asked to wait, \
             {:?} failed with life, {} false needs_reauth | slowest store {:.1?} |",
            trial.processes,
            trial.rounds,
            trial.readers,
            trial.latency,
            tally.calls,
            2 * trial.rounds,
            tally.reuses,
            tally.lent,
            tally.asked_to_wait,
            tally.failed_with_life,
            tally.needs_reauth,
            tally.slowest
        );
        assert_eq!((tally.calls, tally.reuses), (2 * trial.rounds, 0), "one call for each token");
        assert_eq!((tally.failed_with_life.len(), tally.needs_reauth), (0, 0));
    }
}

/// Two connections: the token of one has ended, that of the other has some life left, and not enough.
async fn run(database: Database, trial: Trial) -> Tally {
    let mut town = Town::open(database, &[]).await;
    for _ in 0..trial.processes {
        town.start_node();
    }
    town.street.integrate(&town.platform(0)).await;
    let ended = town.slack("u-1", Account::ADA, 36_000).await;
    let living = town.slack("u-2", Account::GRACE, 36_000).await;
    let mut tally = Tally::default();
    for round in 1..=trial.rounds {
        let delay = format!("delay_ms:{}", trial.latency.as_millis());
        town.street.fault("slack", "refresh", &delay, 2).await;
        town.age(&[&ended], -60).await;
        town.age(&[&living], 600).await;
        let watch = Stopwatch::start();
        let sent = async || town.street.counter("slack/token_requests/refresh_token").await == 2 * round;
        if let Some(span) = trial.stopped {
            // The first process claims both, and sleeps when the provider answers. Who asked it has gone by then.
            let first = tokio::spawn(join_all(ask(&town, 0..1, [&ended, &living], 1)));
            until("both are under way", Duration::from_secs(20), sent).await;
            town.nodes[0].signal("STOP");
            first.abort();
            // All the while: as long as the sleeper's lease lives, and when others have taken it over.
            let (asleep, mut readers) = (Stopwatch::start(), trial.readers);
            while asleep.elapsed() < span {
                let reading = count(join_all(ask(&town, 1..trial.processes, [&ended, &living], readers)), &mut tally);
                futures_util::join!(reading, pause(Duration::from_secs(1)));
                readers = trial.readers / 10;
            }
            town.nodes[0].signal("CONT");
        } else {
            count(join_all(ask(&town, 0..trial.processes, [&ended, &living], trial.readers)), &mut tally).await;
        }
        let new = [(round + 1).to_string(), "active".to_owned(), "idle".to_owned()];
        for id in [&ended, &living] {
            let stored = async || town.row(id, "generation, status, phase").await == new;
            until("the answer is stored", Duration::from_secs(90), stored).await;
        }
        tally.slowest = tally.slowest.max(watch.elapsed());
        // A round without faults: everybody has the new token now, from every process.
        let again = join_all(ask(&town, 0..trial.processes, [&ended, &living], trial.processes)).await;
        let got: BTreeSet<String> = again.iter().map(|answer| answer.1["access_token"].to_string()).collect();
        assert_eq!((again.iter().filter(|answer| answer.0 == 200).count(), got.len()), (2 * trial.processes, 2));
        town.street.clear_faults().await;
    }
    tally.calls = town.street.counter("slack/token_requests/refresh_token").await;
    tally.reuses = town.street.counter("slack/reuses").await;
    let marked = "SELECT id FROM audit_entries WHERE action = 'connection.needs_reauth'";
    tally.needs_reauth += town.database.rows(marked).await.len();
    town.close().await;
    tally
}

type Heard = (u16, Value, bool);

/// So many questions for each of the two connections, spread over the processes; each remembers whether its token has life.
fn ask(
    town: &Town,
    nodes: std::ops::Range<usize>,
    [ended, living]: [&String; 2],
    readers: usize,
) -> Vec<impl Future<Output = Heard> + Send + 'static> {
    let http = http_client();
    let mut questions = Vec::new();
    for number in 0..readers {
        for (id, has_life) in [(ended, false), (living, true)] {
            let node = nodes.start + number % nodes.len();
            let (url, key) = town.door(node, id);
            let request = http.post(url).header("authorization", key).json(&json!({"min_ttl": 1800}));
            questions.push(async move {
                let answer = request.send().await.expect("the house answers");
                (answer.status().as_u16(), answer.json().await.expect("JSON"), has_life)
            });
        }
    }
    questions
}

async fn count(asked: impl Future<Output = Vec<Heard>>, tally: &mut Tally) {
    for (status, body, has_life) in asked.await {
        match status {
            200 => tally.lent += 1,
            503 if !has_life => tally.asked_to_wait += 1,
            409 => tally.needs_reauth += 1,
            _ if has_life => tally.failed_with_life.push(format!("{status} {}", body["code"])),
            _ => panic!("{status} {body}"),
        }
    }
}
