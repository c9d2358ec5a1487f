//! What the room throws away by itself once its time is over.

use std::time::Duration;

use super::{BY_SECRET, Connections};
use crate::store::StoreError;
use crate::store::connect_sessions::connect_session_delete_expired;
use crate::store::handshakes::handshakes_delete_expired;
use crate::store::notices::notices_delete_old;

/// How long a platform can still ask what became of a connect session.
const CONNECT_SESSION_KEPT: Duration = Duration::from_hours(30 * 24);

/// A notice older than a week is not believed, so that it need not be remembered for longer.
const NOTICES_KEPT: Duration = Duration::from_hours(8 * 24);

impl Connections {
    /// Forgets what providers have told and do not repeat any more; gives the number.
    ///
    /// # Errors
    /// As every statement.
    pub async fn notices_expire(&self) -> Result<u64, StoreError> {
        let mut tx = self.store.begin_in_turn(BY_SECRET).await?;
        let forgotten = notices_delete_old(&mut tx, BY_SECRET, self.around.now().before(NOTICES_KEPT).0).await?;
        tx.commit().await?;
        Ok(forgotten)
    }

    /// Deletes handshakes that nobody can finish any more, and connect sessions that ended 30 days ago; gives the number.
    /// A code that waits for its platform (`ttl.completion_code`) may outlive the handshake's own end, so rows stay that
    /// long.
    ///
    /// # Errors
    /// As every statement.
    pub async fn handshakes_expire(&self) -> Result<u64, StoreError> {
        let now = self.around.now();
        let unfinishable = now.before(Duration::from_secs(self.ttl.completion_code));
        let mut tx = self.store.begin_in_turn(BY_SECRET).await?;
        let handshakes = handshakes_delete_expired(&mut tx, BY_SECRET, unfinishable.0).await?;
        let forgotten = now.before(CONNECT_SESSION_KEPT);
        let sessions = connect_session_delete_expired(&mut tx, BY_SECRET, forgotten.0).await?;
        tx.commit().await?;
        Ok(handshakes + sessions)
    }
}
