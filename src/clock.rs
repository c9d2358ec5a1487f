//! The one clock on the wall and the one source of randomness.
//!
//! Nothing else in the house asks the system for the time or for random bytes; `clippy.toml`
//! enforces it. Production uses [`SystemClock`] and [`SystemEntropy`]; tests hand in a
//! [`TestClock`], which moves only when told to, and a [`SeededEntropy`].
//!
//! Two kinds of waiting are kept apart. [`Clock::sleep`] waits for *wall* time (a sweep's interval,
//! a ticket's end) and follows a test clock. [`deadline`] bounds *work in progress* (a slow
//! provider) and always runs on real, monotonic time.

#![expect(clippy::disallowed_methods, reason = "clock is the one module that reads the system's clocks")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng, TryRng};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// A point in time: milliseconds since the Unix epoch, UTC. Stored as `BIGINT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Millis(pub i64);

impl Millis {
    /// This time plus `duration`, saturating at the far end of time.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// This time minus `duration`, saturating.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(millis))
    }

    /// How much time is left from `now` until this time; zero when it has passed.
    #[must_use]
    pub fn left(self, now: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(now.0)).unwrap_or(0))
    }

    /// Whole seconds since the Unix epoch, rounded down.
    #[must_use]
    pub fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The time as RFC 3339 in UTC with seconds, as API answers carry it: `2026-11-21T05:26:32Z`.
    #[must_use]
    pub fn rfc3339(self) -> String {
        Timestamp::from_second(self.unix_seconds())
            .map_or_else(|_| "9999-12-30T22:00:00Z".to_owned(), |at| at.to_string())
    }

    /// Parses RFC 3339 with any offset.
    ///
    /// # Errors
    /// When the text is not an RFC 3339 time.
    pub fn parse_rfc3339(text: &str) -> Result<Self, jiff::Error> {
        Ok(Self(text.parse::<Timestamp>()?.as_millisecond()))
    }
}

/// A future that resolves when some time has passed.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where the house reads the time.
pub trait Clock: Send + Sync + 'static {
    /// The wall time in UTC.
    fn now(&self) -> Millis;

    /// Resolves when this clock has advanced by `duration`.
    fn sleep(&self, duration: Duration) -> Sleep;
}

/// The system's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Millis {
        Millis(Timestamp::now().as_millisecond())
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// A clock that stands still until [`TestClock::advance`] moves it. Clones share the same hands.
#[derive(Clone, Debug)]
pub struct TestClock {
    hands: Arc<Mutex<Hands>>,
}

#[derive(Debug)]
struct Hands {
    now: Millis,
    sleepers: BinaryHeap<Reverse<Sleeper>>,
    next_id: u64,
}

#[derive(Debug)]
struct Sleeper {
    until: Millis,
    id: u64,
    wake: oneshot::Sender<()>,
}

impl PartialEq for Sleeper {
    fn eq(&self, other: &Self) -> bool {
        (self.until, self.id) == (other.until, other.id)
    }
}
impl Eq for Sleeper {}
impl PartialOrd for Sleeper {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Sleeper {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.until, self.id).cmp(&(other.until, other.id))
    }
}

impl TestClock {
    /// A clock that shows `start`.
    #[must_use]
    pub fn at(start: Millis) -> Self {
        let hands = Hands { now: start, sleepers: BinaryHeap::new(), next_id: 0 };
        Self { hands: Arc::new(Mutex::new(hands)) }
    }

    /// Moves the hands forward and wakes everyone whose time has come, in order.
    pub fn advance(&self, duration: Duration) {
        let mut hands = self.hands.lock().unwrap_or_else(PoisonError::into_inner);
        hands.now = hands.now.after(duration);
        while let Some(Reverse(next)) = hands.sleepers.peek() {
            if next.until > hands.now {
                break;
            }
            if let Some(Reverse(sleeper)) = hands.sleepers.pop() {
                // A sleeper that was dropped no longer listens; that is fine.
                let _ = sleeper.wake.send(());
            }
        }
    }
}

impl Clock for TestClock {
    fn now(&self) -> Millis {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner).now
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        let (wake, woken) = oneshot::channel();
        let mut hands = self.hands.lock().unwrap_or_else(PoisonError::into_inner);
        let sleeper = Sleeper { until: hands.now.after(duration), id: hands.next_id, wake };
        hands.next_id += 1;
        if duration.is_zero() {
            let _ = sleeper.wake.send(());
        } else {
            hands.sleepers.push(Reverse(sleeper));
        }
        Box::pin(async move {
            // The sender lives as long as the clock; if the clock is gone, nobody waits for it.
            let _ = woken.await;
        })
    }
}

/// The work did not finish within its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the work did not finish in time")]
pub struct Elapsed;

/// Runs `work` for at most `limit` of real time, whatever the wall clock does.
///
/// # Errors
/// [`Elapsed`] when the limit was reached; `work` is dropped then.
pub async fn deadline<F: Future>(limit: Duration, work: F) -> Result<F::Output, Elapsed> {
    tokio::time::timeout(limit, work).await.map_err(|_| Elapsed)
}

/// A stop of the process, such as SIGSTOP or a machine that sleeps, is told from a busy machine by more than this.
const STOPPED: Duration = Duration::from_secs(1);
/// How finely [`awake_deadline`] counts.
const COUNT_BY: Duration = Duration::from_millis(250);

/// As [`deadline`], but time in which this process stood still does not count: an answer that arrived meanwhile still
/// has what was left of its time. A timer alone would find itself over at the same moment in which the answer can at
/// last be read, and drop it; for the answer of a token endpoint that is the loss of a connection (RL-02).
///
/// # Errors
/// [`Elapsed`] when the process has run for `limit`; `work` is dropped then.
pub async fn awake_deadline<F: Future>(limit: Duration, work: F) -> Result<F::Output, Elapsed> {
    timed_awake(limit, work).await.map(|(output, _)| output)
}

/// As [`awake_deadline`], with how long the process has run for the work.
///
/// # Errors
/// As [`awake_deadline`].
pub async fn timed_awake<F: Future>(limit: Duration, work: F) -> Result<(F::Output, Duration), Elapsed> {
    let mut work = std::pin::pin!(work);
    let mut left = limit;
    while !left.is_zero() {
        let step = left.min(COUNT_BY);
        let watch = Stopwatch::start();
        let output = tokio::time::timeout(step, work.as_mut()).await;
        let took = watch.elapsed();
        let ran = if took < step + STOPPED { took } else { Duration::ZERO };
        left = left.saturating_sub(ran);
        if let Ok(output) = output {
            return Ok((output, limit - left));
        }
    }
    Err(Elapsed)
}

/// Waits for `duration` of real time: pauses between attempts at work in progress, such as
/// looking again whether another node has finished a refresh.
pub async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// A stopwatch on monotonic time, for measuring durations.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(std::time::Instant);

impl Stopwatch {
    /// Starts counting.
    #[must_use]
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Where the house takes random bytes from.
pub trait Entropy: Send + Sync + 'static {
    /// Fills the whole buffer with random bytes.
    fn fill(&self, buffer: &mut [u8]);
}

/// The operating system's generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    #[expect(
        clippy::expect_used,
        reason = "without randomness no secret can be made; stopping is the only safe answer"
    )]
    fn fill(&self, buffer: &mut [u8]) {
        rand::rngs::SysRng.try_fill_bytes(buffer).expect("the operating system must provide randomness");
    }
}

/// A repeatable generator for tests and simulations. Never use it where secrets matter.
#[derive(Debug)]
pub struct SeededEntropy(Mutex<StdRng>);

impl SeededEntropy {
    /// The same seed gives the same bytes.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(buffer);
    }
}

/// Clock and randomness together, as rooms carry them.
#[derive(Clone)]
pub struct Surroundings {
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// The source of randomness.
    pub entropy: Arc<dyn Entropy>,
}

impl std::fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Surroundings")
    }
}

impl Surroundings {
    /// The system's clock and generator.
    #[must_use]
    pub fn system() -> Self {
        Self { clock: Arc::new(SystemClock), entropy: Arc::new(SystemEntropy) }
    }

    /// The wall time.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.clock.now()
    }

    /// An array of random bytes.
    #[must_use]
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.entropy.fill(&mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_awake_deadline_passes_the_outcome_on_and_ends_what_does_not() {
        // That a stopped process loses nothing is shown by tests/it/stopped.rs.
        assert_eq!(awake_deadline(Duration::from_secs(60), async { 7 }).await, Ok(7));
        let limit = Duration::from_millis(20);
        let watch = Stopwatch::start();
        assert_eq!(awake_deadline(limit, std::future::pending::<()>()).await, Err(Elapsed));
        assert!(watch.elapsed() >= limit);
    }

    #[tokio::test]
    async fn a_test_clock_wakes_sleepers_only_when_their_time_has_come() {
        let clock = TestClock::at(Millis(0));
        let mut short = clock.sleep(Duration::from_secs(1));
        let mut long = clock.sleep(Duration::from_secs(5));

        clock.advance(Duration::from_secs(2));

        assert!(futures_util::poll!(&mut short).is_ready(), "one second has passed");
        assert!(futures_util::poll!(&mut long).is_pending(), "five seconds have not");
        assert_eq!(clock.now(), Millis(2000));
    }

    #[test]
    fn times_are_written_and_read_as_rfc3339() {
        let at = Millis::parse_rfc3339("2026-11-21T06:26:32+01:00").expect("valid");
        assert_eq!(at.rfc3339(), "2026-11-21T05:26:32Z");
        assert!(Millis::parse_rfc3339("tomorrow").is_err());
    }

    #[test]
    fn seeded_entropy_repeats_itself() {
        let (a, b) = (SeededEntropy::new(7), SeededEntropy::new(7));
        let (mut x, mut y) = ([0; 32], [0; 32]);
        a.fill(&mut x);
        b.fill(&mut y);
        assert_eq!(x, y);
    }
}
