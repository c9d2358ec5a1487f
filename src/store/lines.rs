//! The lines to a PostgreSQL server.
//!
//! A line that swallows what is sent on it reports no error until the kernel gives it up, a quarter of an hour later. sqlx asks each
//! connection that comes back to its pool whether it is well, waits for the answer without end, and keeps its place in the pool as
//! long, so a pool in which that has happened would never have all its places again. Whoever waits in vain gives up the whole pool:
//! work under way on its other lines goes on, and the next begins in a new one. A server that is only slow is no reason: it answers
//! before any limit here, since locks are waited for no longer than 10 s.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use sqlx::PgPool;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, Postgres};

use crate::clock::{Stopwatch, awake_deadline, deadline};

/// A statement that is not answered in this time never will be.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);
/// For so long after somebody has left without an answer, connections that come back are asked with a limit.
const SUSPECTED_FOR: Duration = Duration::from_secs(60);
/// Places that are lost without anybody having waited for an answer are noticed no more often than this: a pool that is only busy
/// looks much the same.
const LOST_ONCE_IN: Duration = Duration::from_secs(60);
/// The connections of a pool that was given up are closed as they come back, for so long.
const CLOSED_WITHIN: Duration = Duration::from_secs(60);

/// What a pool's own hooks find out about its lines, and what they have to know.
#[derive(Debug, Default)]
pub(super) struct Silence {
    met: AtomicBool,
    suspected: Mutex<Option<Stopwatch>>,
}

impl Silence {
    /// A connection does not answer.
    pub(super) fn meet(&self) {
        self.met.store(true, Ordering::Relaxed);
    }

    fn suspect(&self) {
        *self.suspected.lock().unwrap_or_else(PoisonError::into_inner) = Some(Stopwatch::start());
    }

    /// Whether somebody has lately left without an answer.
    pub(super) fn is_suspected(&self) -> bool {
        let since = *self.suspected.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() < SUSPECTED_FOR)
    }
}

/// The pool in use. Clones share it.
#[derive(Clone, Debug)]
pub struct Lines(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    server: PgConnectOptions,
    options: fn(Arc<Silence>) -> PgPoolOptions,
    current: RwLock<Arc<Line>>,
    /// When places were last found lost.
    lost: Mutex<Option<Stopwatch>>,
}

/// A pool, until it is given up.
#[derive(Debug)]
pub(super) struct Line {
    pool: PgPool,
    silence: Arc<Silence>,
    /// One for the line itself, and one for each of its connections that is in somebody's hands.
    in_hands: Arc<()>,
}

/// Somebody has one of a line's connections.
#[derive(Debug)]
pub(crate) struct Use {
    lines: Lines,
    line: Arc<Line>,
    _in_hands: Arc<()>,
}

impl Line {
    fn new(server: &PgConnectOptions, options: fn(Arc<Silence>) -> PgPoolOptions) -> Arc<Self> {
        let silence: Arc<Silence> = Arc::default();
        let pool = options(silence.clone()).connect_lazy_with(server.clone());
        Arc::new(Self { pool, silence, in_hands: Arc::default() })
    }

    /// Whether connections that nobody has in hands have not come back in all the time that somebody waited for one.
    fn has_lost_some(&self) -> bool {
        let in_hands = Arc::strong_count(&self.in_hands) - 1;
        usize::try_from(self.pool.size()).is_ok_and(|size| in_hands < size)
    }
}

impl Lines {
    pub(super) fn new(server: PgConnectOptions, options: fn(Arc<Silence>) -> PgPoolOptions) -> Self {
        let current = RwLock::new(Line::new(&server, options));
        Self(Arc::new(Inner { server, options, current, lost: Mutex::default() }))
    }

    /// The pool that new work begins in.
    pub(crate) fn pool(&self) -> PgPool {
        self.current().pool.clone()
    }

    fn current(&self) -> Arc<Line> {
        let now = || self.0.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        let line = now();
        if line.silence.met.load(Ordering::Relaxed) {
            self.give_up(&line);
            return now();
        }
        line
    }

    /// A connection, or why there is none.
    pub(super) async fn acquire(&self) -> Result<(PoolConnection<Postgres>, Use), sqlx::Error> {
        let line = self.current();
        let got = line.pool.acquire().await;
        if matches!(got, Err(sqlx::Error::PoolTimedOut)) && line.has_lost_some() && self.may_be_lost() {
            self.give_up(&line);
        }
        let in_hands = line.in_hands.clone();
        got.map(|connection| (connection, Use { lines: self.clone(), line, _in_hands: in_hands }))
    }

    fn may_be_lost(&self) -> bool {
        let mut lost = self.0.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let may = lost.is_none_or(|since| since.elapsed() > LOST_ONCE_IN);
        *lost = if may { Some(Stopwatch::start()) } else { *lost };
        may
    }

    /// A pool of its own for who listens, and keeps a connection for good.
    pub(super) fn one(&self) -> PgPool {
        (self.0.options)(Arc::default()).max_connections(1).connect_lazy_with(self.0.server.clone())
    }

    /// Somebody has waited on this line in vain.
    fn give_up(&self, line: &Arc<Line>) {
        let mut current = self.0.current.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current, line) {
            tracing::warn!("the database does not answer; its connections are given up and made anew");
            *current = Line::new(&self.0.server, self.0.options);
            let old = line.pool.clone();
            tokio::spawn(async move {
                let _ = deadline(CLOSED_WITHIN, old.close()).await;
            });
        }
    }
}

impl Use {
    /// An answer on this line, or an error when there is silence.
    pub(super) async fn answer<T>(&self, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
        let mut left = LeftUnanswered(&self.line.silence, true);
        let answer = awake_deadline(ANSWERED_WITHIN, work).await;
        left.1 = answer.is_err();
        answer.unwrap_or_else(|_| {
            self.lines.give_up(&self.line);
            Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into())
        })
    }
}

/// Also where whoever waits has a limit of its own, and is dropped.
struct LeftUnanswered<'a>(&'a Silence, bool);

impl Drop for LeftUnanswered<'_> {
    fn drop(&mut self) {
        if self.1 {
            self.0.suspect();
        }
    }
}
