//! The book: who did what to which thing, with what result. What happened is said once.
//!
//! A room calls [`Audit::record`] in its own transaction; the entry and, where the outside is told, the outbox row
//! become durable with the room's work. Reads and denials change nothing, so they go through [`Audit::note`], which
//! gathers whatever is waiting into one commit. Either way the caller gets a [`Durable`] only after the commit, and
//! [`Exposed`], the one way for a secret to leave the house, wants to see it (AU-01).
//!
//! Every entry carries a MAC over all its columns. Chained blocks over entries follow with the audit sinks.

mod event;
mod exposed;
mod writer;

use std::sync::Arc;

pub use event::{Action, Event, Outcome};
pub use exposed::{Durable, Exposed};

use crate::caller::{Caller, Denied, Permission, TenantScope};
use crate::clock::Surroundings;
use crate::crypto::Key32;
use crate::crypto::signature::mac;
use crate::ids::{AuditId, EventId};
use crate::shutdown::Shutdown;
pub use crate::store::audit::AuditRow as Entry;
use crate::store::audit::{AuditRow, audit_insert, audit_insert_all, audit_list, outbox_insert};
use crate::store::{Store, StoreError, Tx};
use writer::Writer;

/// Entries in one statement.
const MOST_AT_ONCE: usize = 500;

/// The entry could not be made durable, so what it stands for must not happen.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Nothing was written.
    #[error("the audit entry could not be written")]
    Store(#[from] StoreError),
    /// Two seconds were not enough (AU-01).
    #[error("the audit book did not answer in time")]
    TooSlow,
}

/// Entries cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum EntriesError {
    /// The caller lacks a permission.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The database did not answer.
    #[error("the database did not answer")]
    Store(#[from] StoreError),
}

/// The pen: knows the key that entries are MACed with.
#[derive(Clone, Debug)]
pub struct Audit {
    key: Arc<Key32>,
    around: Surroundings,
    store: Store,
    writer: Writer,
}

impl Audit {
    /// A pen for `store`. Its writer stops when `shutdown` begins and every waiting entry is written.
    #[must_use]
    pub fn new(key: Key32, around: Surroundings, store: Store, shutdown: Shutdown) -> Self {
        Self { key: Arc::new(key), around, store: store.clone(), writer: Writer::start(store, shutdown) }
    }

    /// Writes the entry and, for what the outside is told about, the outbox row into `tx`.
    ///
    /// # Errors
    /// As every statement; the caller must then give its work up too.
    pub async fn record(&self, tx: &mut Tx, caller: &Caller, event: &Event<'_>) -> Result<(), StoreError> {
        let row = self.row(caller, event);
        audit_insert(tx, &row).await?;
        self.tell(tx, &row, event).await
    }

    /// [`Self::record`] for many events at once.
    ///
    /// # Errors
    /// As every statement; the caller must then give its work up too.
    pub async fn record_all(&self, tx: &mut Tx, caller: &Caller, events: &[Event<'_>]) -> Result<(), StoreError> {
        for some in events.chunks(MOST_AT_ONCE) {
            let rows: Vec<_> = some.iter().map(|event| self.row(caller, event)).collect();
            audit_insert_all(tx, &rows.iter().collect::<Vec<_>>()).await?;
            for (row, event) in rows.iter().zip(some) {
                self.tell(tx, row, event).await?;
            }
        }
        Ok(())
    }

    async fn tell(&self, tx: &mut Tx, row: &AuditRow, event: &Event<'_>) -> Result<(), StoreError> {
        if let Some(kind) = event.action.outbox_kind().filter(|_| event.outcome == Outcome::Allowed) {
            let id = EventId::new(&self.around);
            outbox_insert(tx, &row.tenant_id, id.as_str(), row.at, kind, event.object_id, event.user).await?;
        }
        Ok(())
    }

    /// [`Self::record`], then commits: the proof that both the work and its entry are durable.
    ///
    /// # Errors
    /// As every statement; nothing is durable then, or it is unknown whether it is.
    pub async fn record_and_commit(
        &self,
        mut tx: Tx,
        caller: &Caller,
        event: &Event<'_>,
    ) -> Result<Durable, StoreError> {
        self.record(&mut tx, caller, event).await?;
        tx.commit().await?;
        Ok(Durable::after_commit())
    }

    /// Makes the entry of a read or a denial durable, together with whatever else is waiting.
    ///
    /// # Errors
    /// [`AuditError`]; the caller must not answer with what the entry is about.
    pub async fn note(&self, caller: &Caller, event: &Event<'_>) -> Result<Durable, AuditError> {
        self.writer.write(self.row(caller, event)).await
    }

    /// Entries that a caller may see, newest first, before `before` (empty means from the end).
    ///
    /// # Errors
    /// As every statement.
    pub async fn list(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        before: &str,
        limit: i64,
    ) -> Result<Vec<AuditRow>, StoreError> {
        audit_list(tx, scope, before, limit).await
    }

    /// The tenant's entries, newest first, before `before` (empty means from the end).
    ///
    /// # Errors
    /// [`EntriesError::Denied`] without `audit:read`.
    pub async fn entries(&self, caller: &Caller, before: &str, limit: i64) -> Result<Vec<Entry>, EntriesError> {
        let scope = caller.require(Permission::AuditRead)?;
        let mut tx = self.store.read().await?;
        Ok(audit_list(&mut tx, &scope, before, limit).await?)
    }

    fn row(&self, caller: &Caller, event: &Event<'_>) -> AuditRow {
        let mut row = AuditRow {
            tenant_id: caller.tenant().to_string(),
            id: AuditId::new(&self.around).to_string(),
            at: self.around.now().0,
            actor_kind: caller.who().kind().to_owned(),
            actor_id: caller.who().id().to_owned(),
            action: event.action.as_str().to_owned(),
            object_kind: event.object_kind.to_owned(),
            object_id: event.object_id.to_owned(),
            user_id: event.user.map(str::to_owned),
            conversation_id: event.conversation.map(str::to_owned),
            result: event.outcome.as_str().to_owned(),
            reason: event.reason.map(str::to_owned),
            request_id: caller.origin().request_id.clone(),
            peer: caller.origin().peer.map(|peer| peer.to_string()),
            mac: Vec::new(),
        };
        row.mac = self.mac_of(&row);
        row
    }

    /// The MAC that an unaltered entry carries.
    #[must_use]
    pub fn mac_of(&self, row: &AuditRow) -> Vec<u8> {
        let at = row.at.to_be_bytes();
        let parts: [&[u8]; 14] = [
            row.tenant_id.as_bytes(),
            row.id.as_bytes(),
            &at,
            row.actor_kind.as_bytes(),
            row.actor_id.as_bytes(),
            row.action.as_bytes(),
            row.object_kind.as_bytes(),
            row.object_id.as_bytes(),
            row.user_id.as_deref().unwrap_or_default().as_bytes(),
            row.conversation_id.as_deref().unwrap_or_default().as_bytes(),
            row.result.as_bytes(),
            row.reason.as_deref().unwrap_or_default().as_bytes(),
            row.request_id.as_bytes(),
            row.peer.as_deref().unwrap_or_default().as_bytes(),
        ];
        mac(&self.key, "valetkey/audit-entry/v1", &parts).to_vec()
    }
}
