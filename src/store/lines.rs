//! The lines to a PostgreSQL server.
//!
//! A line that swallows what is sent on it reports no error until the kernel gives it up, a quarter of an hour later. Whoever waits
//! on one in vain gives up all of them: sqlx asks each connection that comes back whether it is well, waits for the answer without
//! end, and keeps its place in the pool as long, so the pool would never have all its places again. Work that is under way on
//! other lines of the old pool goes on; the next one begins in a new pool.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::clock::{Stopwatch, awake_deadline};

/// A statement that is not answered in this time never will be: locks are waited for no longer than 10 s.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);
/// Many find out about the same silence; what they waited for was begun on the lines that are given up already.
const ONE_SILENCE: Duration = Duration::from_secs(20);

/// The pool in use. Clones share it.
#[derive(Clone, Debug)]
pub struct Lines(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: PgPoolOptions,
    server: PgConnectOptions,
    current: RwLock<(PgPool, Option<Stopwatch>)>,
    silence: Silence,
}

/// Set by whoever notices a silence inside the pool.
pub(super) type Silence = Arc<AtomicBool>;

impl Lines {
    pub(super) fn new(pool: PgPoolOptions, server: PgConnectOptions, silence: Silence) -> Self {
        let first = pool.clone().connect_lazy_with(server.clone());
        Self(Arc::new(Inner { pool, server, current: RwLock::new((first, None)), silence }))
    }

    /// The pool that new work begins in.
    pub(crate) fn pool(&self) -> PgPool {
        if self.0.silence.swap(false, Ordering::Relaxed) {
            self.give_up();
        }
        self.0.current.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// An answer from the server, or an error when there is silence.
    pub(crate) async fn answer<T>(&self, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
        match awake_deadline(ANSWERED_WITHIN, work).await {
            Ok(answer) => answer,
            Err(_) => {
                self.give_up();
                Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into())
            }
        }
    }

    /// Somebody has waited in vain.
    pub(super) fn give_up(&self) {
        let mut current = self.0.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.1.is_none_or(|since| since.elapsed() > ONE_SILENCE) {
            tracing::warn!("the database has fallen silent; its connections are given up and made anew");
            *current = (self.0.pool.clone().connect_lazy_with(self.0.server.clone()), Some(Stopwatch::start()));
        }
    }
}
