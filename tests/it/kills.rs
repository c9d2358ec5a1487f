//! Real processes are killed at every crash point, and at random moments, and must come back to an honest state (RL-03):
//! the connection works on, or says that its user must connect again. It is never wedged, never silently stale, and no
//! token is given up or shown twice where the provider's manner allows better (RL-06).
//!
//! The quick run plays every scene once for every kind of provider. `scripts/evidence kill` sets `VK_KILL_EACH` and
//! `VK_KILL_RANDOM` and plays the whole table on both databases.

mod play;
mod random;
mod scene;
mod table;
mod vault;

use std::io::Write;

use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::Semaphore;
use valetkey::clock::Stopwatch;

use play::{Case, Gates, Outcome, play};
use scene::{Kind, Life, Scene};
use vault::Template;

/// So many scenes are on at once, on PostgreSQL only so many of them: a server has 200 connections for all the tests, and
/// the one of the evidence script has 600.
const ON_STAGE: usize = 100;
const ON_STAGE_POSTGRES: (usize, usize) = (12, 60);

/// A number from the evidence script; none in ordinary runs.
fn wished(name: &str) -> Option<usize> {
    #[expect(clippy::disallowed_methods, reason = "scripts/evidence tells the tests how many kills are wanted")]
    let value = std::env::var(name).ok()?;
    Some(value.parse().expect("a number"))
}

fn on_stage_postgres() -> Semaphore {
    let (quick, whole) = ON_STAGE_POSTGRES;
    Semaphore::new(if wished("VK_KILL_EACH").is_some() { whole } else { quick })
}

fn cases(each: Option<usize>) -> Vec<Case> {
    let mut cases = Vec::new();
    for number in 0..each.unwrap_or(1) {
        for (place, scene) in Scene::all().into_iter().enumerate() {
            for kind in Kind::ALL.into_iter().filter(|kind| scene.is_played_for(*kind)) {
                for postgres in [false, true] {
                    let life = [Life::Waning, Life::Ample, Life::Over][(number + each.map_or(0, |_| place)) % 3];
                    // In the quick run each scene is on one of the databases, and no doubt is waited for.
                    let quick = each.is_none();
                    if quick && (postgres != ((place + kind as usize) % 6 == 5) || scene.takes_long()) {
                        continue;
                    }
                    cases.push(Case { scene, kind, postgres, life, briefly: quick });
                }
            }
        }
    }
    cases
}

/// Plays cases side by side; those on PostgreSQL only where there is a server.
async fn play_all(cases: Vec<Case>) -> Vec<(String, Outcome)> {
    let sqlite = Template::new(false).await.expect("SQLite is always there");
    let postgres = if cases.iter().any(|case| case.postgres) { Template::new(true).await } else { None };
    assert!(postgres.is_some() || wished("VK_KILL_EACH").is_none(), "the whole table is for both databases");
    let (gates, server) = (Gates::new(), on_stage_postgres());
    let cases: Vec<Case> = cases.into_iter().filter(|case| !case.postgres || postgres.is_some()).collect();
    let (count, watch) = (cases.len(), Stopwatch::start());
    let mut playing = stream::iter(cases)
        .map(|case| {
            let (gates, server, sqlite, postgres) = (&gates, &server, &sqlite, &postgres);
            async move {
                match postgres {
                    Some(template) if case.postgres => {
                        let _place = server.acquire().await.expect("open");
                        play(case, template, gates).await
                    }
                    _ => play(case, sqlite, gates).await,
                }
            }
        })
        .buffer_unordered(ON_STAGE);
    let mut outcomes = Vec::with_capacity(count);
    while let Some(outcome) = playing.next().await {
        outcomes.push((outcome.case.scene.name(), outcome));
        progress(outcomes.len(), count, &watch);
    }
    drop(playing);
    if let Some(template) = postgres {
        template.drop_database().await;
    }
    let order = Scene::all();
    outcomes.sort_by_key(|(_, outcome)| order.iter().position(|scene| *scene == outcome.case.scene));
    outcomes
}

/// Says how far it is, past the test runner, which would keep it to itself for an hour.
fn progress(done: usize, count: usize, watch: &Stopwatch) {
    if done.is_multiple_of(20) && wished("VK_KILL_EACH").is_some() {
        let _ = writeln!(std::io::stdout(), "[{} s] {done} of {count} kills", watch.elapsed().as_secs());
    }
}

fn conclude(title: &str, outcomes: &[(String, Outcome)]) {
    let (table, complaints) = table::judge(outcomes);
    if wished("VK_KILL_EACH").is_some() {
        let _ = writeln!(std::io::stdout(), "\n{title}\n{table}");
    }
    assert!(!outcomes.is_empty(), "{title}: nobody was killed, so nothing was shown");
    assert!(complaints.is_empty(), "{title}\n{table}\n{}", complaints.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_death_at_any_point_leaves_a_connection_that_works_or_says_why_not() {
    // RL-03, RL-04, RL-06
    conclude("killed at every crash point", &play_all(cases(wished("VK_KILL_EACH"))).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_death_at_a_random_moment_under_load_leaves_connections_that_work_or_say_why_not() {
    // RL-03, RL-06
    conclude("killed at random moments under load", &random::play_all(wished("VK_KILL_RANDOM")).await);
}
