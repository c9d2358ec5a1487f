//! The clockwork: what the house does by itself, as a table of (name, interval, limit, room function).
//!
//! Every task is level-triggered: each run looks at what is due now, so that a missed run, a crash or a lost bell costs
//! one interval and nothing else. Runs of one task never overlap. Intervals follow [`Clock::sleep`](crate::clock::Clock::sleep),
//! and the limit bounds one run in real time. What went wrong is logged when it begins and when it ends, not at every
//! run; the metrics count every run.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::task::JoinSet;

use crate::accounts::Accounts;
use crate::clock::{Elapsed, Surroundings, deadline};
use crate::connections::Connections;
use crate::conversations::Conversations;
use crate::credentials::{Credentials, DueBell};
use crate::health::Health;
use crate::shutdown::Shutdown;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// What the clockwork drives.
#[derive(Debug)]
pub struct Clockwork {
    /// Tenants, sessions, kept answers.
    pub accounts: Accounts,
    /// Connections being made.
    pub connections: Connections,
    /// Conversations that outlive their tickets.
    pub conversations: Conversations,
    /// Tokens to be kept fresh.
    pub credentials: Credentials,
    /// The metrics, whose histograms want tidying.
    pub metrics: PrometheusHandle,
    /// Clock and randomness.
    pub around: Surroundings,
    /// Where a task that the node cannot do without says that it fails.
    pub health: Health,
    /// Every task holds it until it has ended.
    pub shutdown: Shutdown,
}

/// The table. Intervals and limits are chosen so that a run that hangs is given up before anyone waits for it.
fn table(rooms: &Clockwork) -> Vec<Task> {
    vec![
        // Flights go on in tasks of their own when a sweep is given up; what was claimed comes again.
        task("sweep", SECOND, 30 * SECOND, &rooms.credentials, |room| async move { Ok(room.sweep().await? as u64) })
            .woken_by(rooms.credentials.due_bell())
            .needed(),
        task("refresh_numbers", 15 * SECOND, 10 * SECOND, &rooms.credentials, |room| async move {
            room.refresh_numbers().await?;
            Ok(0)
        }),
        // At once after a start, and then as often as the database might be back.
        task("spool_replay", 5 * SECOND, 30 * SECOND, &rooms.credentials, |room| async move {
            Ok(room.spool_replay().await?)
        }),
        task("connections_tell", SECOND, 30 * SECOND, &rooms.connections, |room| async move { Ok(room.tell().await?) }),
        task("revocations_retry", 15 * SECOND, 5 * MINUTE, &rooms.credentials, |room| async move {
            Ok(room.revocations_retry().await?)
        }),
        task("telegram_look", 2 * SECOND, 30 * SECOND, &rooms.connections, |room| async move {
            Ok(room.telegram_look().await? as u64)
        }),
        task("handshakes_expire", MINUTE, 30 * SECOND, &rooms.connections, |room| async move {
            Ok(room.handshakes_expire().await?)
        }),
        task("notices_expire", 60 * MINUTE, 30 * SECOND, &rooms.connections, |room| async move {
            Ok(room.notices_expire().await?)
        }),
        task("conversations_expire", MINUTE, 30 * SECOND, &rooms.conversations, |room| async move {
            Ok(room.end_expired().await?)
        }),
        task("sessions_expire", MINUTE, 30 * SECOND, &rooms.accounts, |room| async move {
            Ok(room.sessions_expire().await?)
        }),
        task(
            "answers_expire",
            MINUTE,
            30 * SECOND,
            &rooms.accounts,
            |room| async move { Ok(room.answers_expire().await?) },
        ),
        task("metrics_upkeep", 5 * SECOND, 5 * SECOND, &rooms.metrics, |metrics| async move {
            metrics.run_upkeep();
            Ok(0)
        }),
    ]
}

type Run = Pin<Box<dyn Future<Output = anyhow::Result<u64>> + Send>>;

/// One row: how many things a run did, or why it failed.
struct Task {
    name: &'static str,
    every: Duration,
    limit: Duration,
    run: Box<dyn Fn() -> Run + Send>,
    bell: Option<DueBell>,
    needed: bool,
}

fn task<R, F>(name: &'static str, every: Duration, limit: Duration, room: &R, run: fn(R) -> F) -> Task
where
    R: Clone + Send + 'static,
    F: Future<Output = anyhow::Result<u64>> + Send + 'static,
{
    let room = room.clone();
    let run: Box<dyn Fn() -> Run + Send> = Box::new(move || Box::pin(run(room.clone())));
    Task { name, every, limit, run, bell: None, needed: false }
}

impl Task {
    /// Also runs when the bell rings.
    fn woken_by(mut self, bell: DueBell) -> Self {
        self.bell = Some(bell);
        self
    }

    /// While it fails, the node is not ready.
    fn needed(mut self) -> Self {
        self.needed = true;
        self
    }
}

/// Starts every task. They end when the house begins to stop; the set is for whoever must know that they have.
#[must_use]
pub fn start(rooms: Clockwork) -> JoinSet<()> {
    let mut running = JoinSet::new();
    for task in table(&rooms) {
        running.spawn(keep_running(task, rooms.around.clone(), rooms.health.clone(), rooms.shutdown.clone()));
    }
    running
}

async fn keep_running(mut task: Task, around: Surroundings, health: Health, shutdown: Shutdown) {
    let mut record = Record { name: task.name, needed: task.needed, health, failing: false };
    while !shutdown.has_begun() {
        let outcome = deadline(task.limit, (task.run)()).await;
        match outcome {
            Ok(outcome) => record.note(outcome, &around),
            Err(Elapsed) => record.give_up(),
        }
        let rung = async {
            match &mut task.bell {
                Some(bell) => bell.rung().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.begun() => {}
            () = around.clock.sleep(a_little_less(task.every, &around)) => {}
            () = rung => {}
        }
    }
}

/// Up to a quarter less, so that nodes that have fallen into step do not stay in it and all work at the same moment.
fn a_little_less(every: Duration, around: &Surroundings) -> Duration {
    let [part] = around.random();
    every - every.mul_f64(f64::from(part) / 1024.0)
}

/// How a task has been doing.
struct Record {
    name: &'static str,
    needed: bool,
    health: Health,
    failing: bool,
}

impl Record {
    fn note(&mut self, outcome: anyhow::Result<u64>, around: &Surroundings) {
        self.count(if outcome.is_ok() { "done" } else { "failed" });
        match outcome {
            Ok(count) => {
                metrics::counter!("valetkey_job_items_total", "job" => self.name).increment(count);
                #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit into a double for ever")]
                let now = around.now().unix_seconds() as f64;
                metrics::gauge!("valetkey_job_last_success_timestamp_seconds", "job" => self.name).set(now);
                if std::mem::replace(&mut self.failing, false) {
                    tracing::info!(job = self.name, "a task works again");
                    self.health.clear(self.name);
                }
            }
            Err(error) => {
                self.complain(&Chain(&error));
                if self.needed {
                    self.health.obstruct(self.name, error.to_string());
                }
            }
        }
    }

    /// Slowness, such as a provider's, is no reason to send requests elsewhere: the node stays ready.
    fn give_up(&mut self) {
        self.count("given_up");
        self.complain(&Elapsed);
    }

    fn count(&self, outcome: &'static str) {
        metrics::counter!("valetkey_job_runs_total", "job" => self.name, "outcome" => outcome).increment(1);
    }

    /// Said when it begins, not at every run.
    fn complain(&mut self, error: &dyn fmt::Display) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(job = self.name, error = %error, "a task fails; it is tried again at every interval");
        }
    }
}

/// An error with its causes, for one line of the log.
struct Chain<'a>(&'a anyhow::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use tokio::sync::mpsc;

    use super::*;
    use crate::clock::{Millis, SeededEntropy, TestClock};
    use crate::shutdown;

    #[derive(Clone)]
    struct Bench {
        runs: mpsc::UnboundedSender<u64>,
        count: Arc<AtomicU64>,
        broken: Arc<AtomicBool>,
    }

    async fn work(bench: Bench) -> anyhow::Result<u64> {
        let run = bench.count.fetch_add(1, Ordering::SeqCst) + 1;
        let broken = bench.broken.load(Ordering::SeqCst);
        let _ = bench.runs.send(run);
        if broken { Err(anyhow::anyhow!("the bench is broken")) } else { Ok(1) }
    }

    fn surroundings() -> (TestClock, Surroundings) {
        let clock = TestClock::at(Millis(1_000));
        (clock.clone(), Surroundings { clock: Arc::new(clock), entropy: Arc::new(SeededEntropy::new(1)) })
    }

    #[tokio::test]
    async fn a_task_runs_at_once_then_at_every_interval_and_stops_with_the_house() {
        let (clock, around) = surroundings();
        let (runs, mut seen) = mpsc::unbounded_channel();
        let bench = Bench { runs, count: Arc::default(), broken: Arc::default() };
        let (controller, shutdown) = shutdown::channel();
        let running = tokio::spawn(keep_running(
            task("bench", MINUTE, SECOND, &bench, work),
            around,
            Health::default(),
            shutdown,
        ));
        assert_eq!(seen.recv().await, Some(1));
        // The task may not have gone to sleep yet, so the clock is moved until it has run again.
        while seen.is_empty() {
            clock.advance(MINUTE);
            tokio::task::yield_now().await;
        }
        assert_eq!(seen.recv().await, Some(2));
        controller.begin();
        running.await.expect("ends");
        controller.finished().await;
    }

    #[tokio::test]
    async fn a_needed_task_that_fails_makes_the_node_unready_until_it_works_again() {
        let (clock, around) = surroundings();
        let (runs, mut seen) = mpsc::unbounded_channel();
        let broken = Arc::new(AtomicBool::new(true));
        let bench = Bench { runs, count: Arc::default(), broken: broken.clone() };
        let (controller, shutdown) = shutdown::channel();
        let health = Health::default();
        let running = tokio::spawn(keep_running(
            task("bench", SECOND, SECOND, &bench, work).needed(),
            around,
            health.clone(),
            shutdown,
        ));
        seen.recv().await;
        while health.obstacles().is_empty() {
            tokio::task::yield_now().await;
        }
        broken.store(false, Ordering::SeqCst);
        while !health.obstacles().is_empty() {
            clock.advance(SECOND);
            tokio::task::yield_now().await;
        }
        controller.begin();
        running.await.expect("ends");
    }

    #[tokio::test]
    async fn a_run_that_hangs_is_given_up_at_its_limit_and_comes_again() {
        async fn hang(runs: mpsc::UnboundedSender<u64>) -> anyhow::Result<u64> {
            let _ = runs.send(0);
            std::future::pending().await
        }
        let (clock, around) = surroundings();
        let (controller, shutdown) = shutdown::channel();
        let (runs, mut seen) = mpsc::unbounded_channel();
        let health = Health::default();
        let hanging = task("hangs", MINUTE, Duration::from_millis(1), &runs, hang).needed();
        let running = tokio::spawn(keep_running(hanging, around, health.clone(), shutdown));
        for _ in 0..2 {
            while seen.try_recv().is_err() {
                clock.advance(MINUTE);
                tokio::task::yield_now().await;
            }
        }
        assert!(health.obstacles().is_empty(), "slow is not unready");
        controller.begin();
        running.await.expect("ends");
    }
}
