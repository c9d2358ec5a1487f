//! Bells: "look now" between tasks and, on PostgreSQL, between nodes.
//!
//! A bell only saves waiting. Whoever listens also looks every second or sooner without it, because a NOTIFY can be
//! lost with its connection. NOTIFY takes a global lock at commit, so only three things ring.

use sqlx::postgres::PgListener;
use tokio::sync::broadcast;

use super::{Connection, Store, StoreError, Tx};
use crate::shutdown::Shutdown;

const CHANNEL: &str = "valetkey";

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

    /// Repeats in this process what other nodes ring, until shutdown or until the connection is lost for good.
    pub async fn relay(&self, store: &Store, shutdown: &Shutdown) {
        let Store::Postgres(lines) = store else { return shutdown.begun().await };
        let Ok(mut listener) = PgListener::connect_with(&lines.pool()).await else { return };
        if listener.listen(CHANNEL).await.is_err() {
            return;
        }
        loop {
            tokio::select! {
                () = shutdown.begun() => return,
                heard = listener.recv() => match heard {
                    Ok(notice) => Bell::ALL.into_iter().filter(|bell| bell.as_str() == notice.payload()).for_each(|bell| self.ring(bell)),
                    Err(_) => return,
                },
            }
        }
    }
}

/// Rings on every other node when `tx` commits. On SQLite there is no other node.
///
/// # Errors
/// As every statement.
pub async fn ring_at_commit(tx: &mut Tx, bell: Bell) -> Result<(), StoreError> {
    if let Connection::Postgres(connection) = tx.connection() {
        sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(bell.as_str()).execute(connection).await?;
    }
    Ok(())
}
