//! Statements that write many rows in no order: two nodes that ran one of them at a time would each wait for rows that the
//! other holds, and PostgreSQL ends one of them as a deadlock.

use super::{Connection, Store, StoreError, Tx, sql};
use crate::caller::{SystemScope, TenantScope};

impl Store {
    /// As [`Store::begin`], for deleting whatever has had its time: nodes take turns at it, until the transaction ends. On
    /// SQLite they do anyway.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when no connection can be had, or the others' turns do not end.
    pub async fn begin_in_turn(&self, _: SystemScope) -> Result<Tx, StoreError> {
        let mut tx = self.begin().await?;
        if matches!(tx.connection(), Connection::Postgres(_)) {
            // Any number that nothing else in this database locks.
            sql!(tx, execute, "SELECT pg_advisory_xact_lock(20261)")?;
        }
        Ok(tx)
    }

    /// As [`Store::begin`], for writing many rows of a tenant in an order that somebody else chose: a tenant does one such thing at a
    /// time.
    ///
    /// # Errors
    /// As [`Store::begin_in_turn`].
    pub async fn begin_in_turn_of(&self, scope: &TenantScope) -> Result<Tx, StoreError> {
        let mut tx = self.begin().await?;
        if matches!(tx.connection(), Connection::Postgres(_)) {
            sql!(
                tx,
                execute,
                "SELECT pg_advisory_xact_lock(20262, hashtext(tenant_id)) FROM (VALUES ($1)) AS mine (tenant_id)",
                scope.tenant()
            )?;
        }
        Ok(tx)
    }
}
