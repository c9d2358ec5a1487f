//! What the room throws away by itself once its time is over.

use std::time::Duration;

use super::{BY_SECRET, Connections};
use crate::store::StoreError;
use crate::store::handshakes::handshakes_delete_expired;

impl Connections {
    /// Deletes handshakes that nobody can finish any more; gives the number. A code that waits for its platform
    /// (`ttl.completion_code`) may outlive the handshake's own end, so rows stay that long.
    ///
    /// # Errors
    /// As every statement.
    pub async fn handshakes_expire(&self) -> Result<u64, StoreError> {
        let before = self.around.now().before(Duration::from_secs(self.ttl.completion_code));
        let mut tx = self.store.begin().await?;
        let gone = handshakes_delete_expired(&mut tx, BY_SECRET, before.0).await?;
        tx.commit().await?;
        Ok(gone)
    }
}
