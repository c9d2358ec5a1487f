//! Where a `serve` that took any free port really listens. Nothing else knows it, and commands beside it name it.

use super::{StoreError, Tx, sql};
use crate::caller::SystemScope;

/// Notes where the public listener is. Of several nodes the last one stands there.
///
/// # Errors
/// As every statement.
pub async fn address_note(tx: &mut Tx, _: SystemScope, url: &str, now: i64) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "INSERT INTO bound_addresses (name, url, noted_at) VALUES ('public', $1, $2)
         ON CONFLICT (name) DO UPDATE SET url = excluded.url, noted_at = excluded.noted_at",
        url,
        now
    )?;
    Ok(())
}

/// Forgets a noted address; another node's stays.
///
/// # Errors
/// As every statement.
pub async fn address_forget(tx: &mut Tx, _: SystemScope, url: &str) -> Result<(), StoreError> {
    sql!(tx, execute, "DELETE FROM bound_addresses WHERE name = 'public' AND url = $1", url)?;
    Ok(())
}

/// The noted address. That of a killed `serve` stays until the next one starts.
///
/// # Errors
/// As every statement.
pub async fn address_noted(tx: &mut Tx, _: SystemScope) -> Result<Option<String>, StoreError> {
    let row = sql!(tx, optional(String,), "SELECT url FROM bound_addresses WHERE name = 'public'")?;
    Ok(row.map(|(url,)| url))
}
