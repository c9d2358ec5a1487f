//! The lines to a PostgreSQL server.
//!
//! A line that swallows what is sent on it reports no error until the kernel gives it up, a quarter of an hour later. sqlx asks each
//! connection that comes back to its pool whether it is well, waits for the answer without end, and keeps its place in the pool as
//! long, so a pool in which that has happened would never have all its places again. Whoever waits in vain gives up the whole pool:
//! work under way on its other lines goes on, and the next begins in a new one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sqlx::PgPool;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, Postgres};

use crate::clock::awake_deadline;

/// A statement that is not answered in this time never will be: locks are waited for no longer than 10 s.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);

/// Set by whoever meets silence inside a pool.
pub(super) type Silence = Arc<AtomicBool>;

/// The pool in use. Clones share it.
#[derive(Clone, Debug)]
pub struct Lines(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    server: PgConnectOptions,
    options: fn(Silence) -> PgPoolOptions,
    current: RwLock<Arc<Line>>,
}

/// A pool, until it is given up.
#[derive(Debug)]
pub(super) struct Line {
    pool: PgPool,
    silence: Silence,
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
    fn new(server: &PgConnectOptions, options: fn(Silence) -> PgPoolOptions) -> Arc<Self> {
        let silence = Silence::default();
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
    pub(super) fn new(server: PgConnectOptions, options: fn(Silence) -> PgPoolOptions) -> Self {
        let current = RwLock::new(Line::new(&server, options));
        Self(Arc::new(Inner { server, options, current }))
    }

    /// The pool that new work begins in.
    pub(crate) fn pool(&self) -> PgPool {
        self.current().pool.clone()
    }

    pub(super) fn current(&self) -> Arc<Line> {
        let now = || self.0.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        let line = now();
        if line.silence.load(Ordering::Relaxed) {
            self.give_up(&line);
            return now();
        }
        line
    }

    /// A connection, or why there is none.
    pub(super) async fn acquire(&self) -> Result<(PoolConnection<Postgres>, Use), sqlx::Error> {
        let line = self.current();
        let got = line.pool.acquire().await;
        if matches!(got, Err(sqlx::Error::PoolTimedOut)) && line.has_lost_some() {
            self.give_up(&line);
        }
        let in_hands = line.in_hands.clone();
        got.map(|connection| (connection, Use { lines: self.clone(), line, _in_hands: in_hands }))
    }

    /// Somebody has waited on this line in vain.
    pub(super) fn give_up(&self, line: &Arc<Line>) {
        let mut current = self.0.current.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current, line) {
            tracing::warn!("the database has fallen silent; its connections are given up and made anew");
            *current = Line::new(&self.0.server, self.0.options);
        }
    }
}

impl Use {
    /// An answer on this line, or an error when there is silence.
    pub(super) async fn answer<T>(&self, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
        awake_deadline(ANSWERED_WITHIN, work).await.unwrap_or_else(|_| {
            self.lines.give_up(&self.line);
            Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into())
        })
    }
}
