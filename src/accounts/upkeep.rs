//! What the room throws away by itself once its time is over.

use super::{Accounts, BEFORE_ANY_SCOPE};
use crate::store::StoreError;
use crate::store::idempotency::idempotency_delete_expired;
use crate::store::sessions::{link_delete_expired, session_delete_expired};

impl Accounts {
    /// Deletes browser sessions and one-time links that have ended; gives the number.
    ///
    /// # Errors
    /// As every statement.
    pub async fn sessions_expire(&self) -> Result<u64, StoreError> {
        let mut tx = self.store.begin_in_turn(BEFORE_ANY_SCOPE).await?;
        let now = self.around.now().0;
        let sessions = session_delete_expired(&mut tx, BEFORE_ANY_SCOPE, now).await?;
        let links = link_delete_expired(&mut tx, BEFORE_ANY_SCOPE, now).await?;
        tx.commit().await?;
        Ok(sessions + links)
    }

    /// Deletes kept answers whose day is over (AP-11); gives the number.
    ///
    /// # Errors
    /// As every statement.
    pub async fn answers_expire(&self) -> Result<u64, StoreError> {
        let mut tx = self.store.begin_in_turn(BEFORE_ANY_SCOPE).await?;
        let gone = idempotency_delete_expired(&mut tx, BEFORE_ANY_SCOPE, self.around.now().0).await?;
        tx.commit().await?;
        Ok(gone)
    }
}
