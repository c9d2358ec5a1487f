//! The sweep: credentials that are due are refreshed ahead of their readers, by the same flights.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::Credentials;
use super::refresh::Wish;
use crate::caller::SystemScope;
use crate::store::StoreError;
use crate::store::bell::Bell;
use crate::store::credentials::credential_claim_due;

const ALL_TENANTS: SystemScope = SystemScope::because("the sweep serves every tenant in the order of need");
/// Credentials taken at once, and flights in the air at once.
const BATCH: i64 = 64;
const IN_THE_AIR: usize = 16;
/// A claimed credential is looked at again after this time if its flight never says when.
const CLAIMED_FOR: Duration = Duration::from_secs(150);

/// Tells when a credential has become due earlier than the sweep knows.
#[derive(Debug)]
pub struct DueBell(broadcast::Receiver<Bell>);

impl DueBell {
    /// Resolves when there is reason to sweep now.
    pub async fn rung(&mut self) {
        loop {
            match self.0.recv().await {
                Ok(Bell::DueEarlier) | Err(RecvError::Lagged(_)) => return,
                Ok(_) => {}
                // The bells live as long as the room; without them only the interval wakes.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

impl Credentials {
    /// Hears from now on when to sweep early.
    #[must_use]
    pub fn due_bell(&self) -> DueBell {
        DueBell(self.bells.listen())
    }

    /// Refreshes what is due; gives how many credentials were looked at. Runs until nothing more is due, or until the
    /// house closes.
    ///
    /// # Errors
    /// As every statement. What was claimed comes again by itself.
    pub async fn sweep(&self) -> Result<usize, StoreError> {
        let mut looked_at = 0;
        while !self.shutdown.has_begun() {
            let now = self.around.now();
            let mut tx = self.store.begin().await?;
            let due = credential_claim_due(&mut tx, ALL_TENANTS, now.0, now.after(CLAIMED_FOR).0, BATCH).await?;
            tx.commit().await?;
            if due.is_empty() {
                break;
            }
            looked_at += due.len();
            stream::iter(due)
                .for_each_concurrent(IN_THE_AIR, |name| async move {
                    let (mut landing, _) = self.board(&name, Wish::sweep());
                    // A crashed flight has already been logged by its task; the row comes again.
                    let _ = landing.wait_for(Option::is_some).await;
                })
                .await;
        }
        Ok(looked_at)
    }
}
