//! Bells: "look now" between tasks and, on PostgreSQL, between nodes.
//!
//! A bell only saves waiting. Whoever listens also looks every second or sooner without it, because a NOTIFY can be
//! lost with its connection. NOTIFY takes a global lock at commit, so only three things ring.

use std::convert::Infallible;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::broadcast;

use super::{Connection, Store, StoreError, Tx, answered};
use crate::clock::{deadline, pause};
use crate::shutdown::Shutdown;

const CHANNEL: &str = "valetkey";
/// After so long without a bell the line is asked whether it is there, and answers in so long.
const QUIET: Duration = Duration::from_secs(30);
const ANSWERED: Duration = Duration::from_secs(5);
/// Between two tries to listen.
const AGAIN: Duration = Duration::from_secs(1);

/// Why a bell rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bell {
    /// A credential is due earlier than the sweep knows.
    DueEarlier,
    /// An event waits for delivery.
    Outbox,
    /// Something was revoked, deleted or ended: drop what is cached, close what is open.
    Revoked,
}

impl Bell {
    const ALL: [Self; 3] = [Self::DueEarlier, Self::Outbox, Self::Revoked];

    fn as_str(self) -> &'static str {
        match self {
            Self::DueEarlier => "due_earlier",
            Self::Outbox => "outbox",
            Self::Revoked => "revoked",
        }
    }
}

/// Where bells are heard in this process.
#[derive(Clone, Debug)]
pub struct Bells(broadcast::Sender<Bell>);

impl Default for Bells {
    fn default() -> Self {
        Self(broadcast::channel(64).0)
    }
}

impl Bells {
    /// Rings in this process at once. Call it after the commit that made the news true.
    pub fn ring(&self, bell: Bell) {
        // Nobody listening is fine: the floor is polling.
        let _ = self.0.send(bell);
    }

    /// Hears every bell from now on. A lagging listener must simply look.
    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<Bell> {
        self.0.subscribe()
    }

    /// Repeats in this process what other nodes ring, until shutdown.
    pub async fn relay(&self, store: &Store, shutdown: &Shutdown) {
        let Store::Postgres(lines) = store else { return shutdown.begun().await };
        while !shutdown.has_begun() {
            tokio::select! {
                () = shutdown.begun() => return,
                Err(error) = self.listen_to(lines.one()) => tracing::debug!(error = %error, "bells of other nodes are not heard for a moment"),
            }
            tokio::select! {
                () = shutdown.begun() => return,
                () = pause(AGAIN) => {}
            }
        }
    }

    /// Until the line breaks, or falls silent.
    async fn listen_to(&self, pool: PgPool) -> Result<Infallible, sqlx::Error> {
        let silent = || sqlx::Error::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(CHANNEL).await?;
        loop {
            match deadline(QUIET, listener.recv()).await {
                Ok(notice) => {
                    let notice = notice?;
                    let rung = Bell::ALL.into_iter().filter(|bell| bell.as_str() == notice.payload());
                    rung.for_each(|bell| self.ring(bell));
                }
                Err(_) => {
                    let asked = sqlx::query("SELECT 1").execute(&mut listener);
                    deadline(ANSWERED, asked).await.map_err(|_| silent())??;
                }
            }
        }
    }
}

/// Rings on every other node when `tx` commits. On SQLite there is no other node.
///
/// # Errors
/// As every statement.
pub async fn ring_at_commit(tx: &mut Tx, bell: Bell) -> Result<(), StoreError> {
    if let (Connection::Postgres(connection), line) = tx.parts() {
        let ring = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(bell.as_str()).execute(connection);
        answered(line, Box::pin(ring)).await?;
    }
    Ok(())
}
