//! Telling the outside how connections stand: one event for each state that is new, however many hands changed it.

use super::Connections;
use crate::caller::SystemScope;
use crate::ids::EventId;
use crate::store::StoreError;
use crate::store::bell::{Bell, ring_at_commit};
use crate::store::telling::{StateEvent, UntoldRow, connections_tell, connections_untold};

const EVERY_CONNECTION: SystemScope =
    SystemScope::because("each tenant is told about its own connections, whoever has changed them");
/// Told with one commit.
const BATCH: i64 = 500;

impl Connections {
    /// Puts an event into the outbox for every connection whose state the outside does not know; gives how many. A state that has passed
    /// before anybody looked is not told.
    ///
    /// # Errors
    /// As every statement.
    pub async fn tell(&self) -> Result<u64, StoreError> {
        let mut told = 0;
        loop {
            let mut tx = self.store.begin().await?;
            let rows = connections_untold(&mut tx, EVERY_CONNECTION, BATCH).await?;
            if rows.is_empty() {
                return Ok(told);
            }
            let events: Vec<StateEvent<'_>> = rows.iter().map(|row| self.event(row)).collect();
            connections_tell(&mut tx, EVERY_CONNECTION, &events).await?;
            ring_at_commit(&mut tx, Bell::Outbox).await?;
            tx.commit().await?;
            self.bells.ring(Bell::Outbox);
            told += rows.len() as u64;
        }
    }

    fn event<'a>(&self, row: &'a UntoldRow) -> StateEvent<'a> {
        StateEvent {
            tenant_id: &row.tenant_id,
            id: EventId::new(&self.around).to_string(),
            at: self.around.now().0,
            kind: kind(&row.told, &row.state, row.reason.as_deref()),
            object_id: &row.id,
            user_id: row.user_id.as_deref(),
            old_state: Some(row.told.as_str()).filter(|told| !told.is_empty()),
            new_state: &row.state,
            reason: row.reason.as_deref(),
        }
    }
}

/// What an event about this change is called.
fn kind(old: &str, new: &str, reason: Option<&str>) -> &'static str {
    match (old, new) {
        (_, "deleted") => "connection.deleted",
        ("", _) => "connection.created",
        (_, "quarantined") => "connection.quarantined",
        (_, "needs_reauth") if reason == Some("revoked_at_provider") => "connection.revoked",
        (_, "needs_reauth") => "connection.needs_reauth",
        ("awaiting_start", "active") => "connection.active",
        (_, "active") => "connection.recovered",
        _ => "connection.degraded",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_has_a_name() {
        let rows = [
            ("", "active", None, "connection.created"),
            ("", "awaiting_start", None, "connection.created"),
            ("awaiting_start", "active", None, "connection.active"),
            ("active", "degraded", None, "connection.degraded"),
            ("active", "misconfigured", Some("client_changed"), "connection.degraded"),
            ("degraded", "active", None, "connection.recovered"),
            ("degraded", "needs_reauth", Some("invalid_grant"), "connection.needs_reauth"),
            ("active", "needs_reauth", Some("revoked_at_provider"), "connection.revoked"),
            ("needs_reauth", "active", None, "connection.recovered"),
            ("active", "quarantined", Some("identity_changed"), "connection.quarantined"),
            ("quarantined", "deleted", None, "connection.deleted"),
            ("", "deleted", None, "connection.deleted"),
        ];
        for (old, new, reason, wanted) in rows {
            assert_eq!(kind(old, new, reason), wanted, "{old} -> {new}");
        }
    }
}
