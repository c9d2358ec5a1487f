//! Writes that are sent twice and happen once (AP-11): the first answer is kept, sealed, for 24 hours.
//!
//! A door begins with [`Accounts::idempotency_begin`]. [`Begun::First`] means: do the work, then finish (it was done) or
//! forget (it left no effect). A slot that is neither finished nor forgotten stays taken until it expires, because then
//! nobody knows whether the work had its effect, and doing it again would be a guess.

use std::time::Duration;

use super::Accounts;
use crate::audit::AuditError;
use crate::caller::{Caller, Denied, Permission, TenantScope};
use crate::crypto::signature::{hex, same, sha256};
use crate::crypto::tokens::hash_token;
use crate::invalid::Invalid;
use crate::keys::{KeyError, Owner, Place};
use crate::secret::Secret;
use crate::store::idempotency::{
    RequestName, idempotency_begin, idempotency_finish, idempotency_forget, idempotency_get,
};
use crate::store::{StoreError, Tx};

/// How long an answer is kept.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// A write that may be sent again.
#[derive(Clone, Debug)]
pub struct Repeatable {
    /// The `Idempotency-Key`: 1 to 255 visible ASCII characters, chosen by the client.
    pub key: String,
    /// Method and route, such as `POST /v1/users/{user}`. The same key on another route is another request.
    pub route: String,
    /// Path with values, and body: what must be the same the second time.
    pub payload: Vec<Vec<u8>>,
}

/// Where the answer to a request will be kept.
#[derive(Clone, Debug)]
pub struct Slot {
    actor: String,
    route: String,
    key_hash: String,
}

/// An answer that was given.
#[derive(Debug)]
pub struct Answered {
    /// The HTTP status.
    pub status: u16,
    /// The body; it may hold a secret that is shown once, so it stays one.
    pub body: Secret,
}

/// How a write begins.
#[derive(Debug)]
pub enum Begun {
    /// Nobody was here before: do the work, then finish or forget.
    First(Slot),
    /// It was done already; this was the answer.
    Before(Answered),
}

/// Why a write cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum IdempotencyError {
    /// The key does not fit.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// The caller may do nothing at all.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The key was used with another payload.
    #[error("this Idempotency-Key was used for another request")]
    Mismatch,
    /// The first request is still running, or it did not end clearly.
    #[error("the first request with this Idempotency-Key has not ended, or did not end clearly")]
    InFlight,
    /// The book did not answer.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The database did not answer.
    #[error("the database did not answer")]
    Store(#[from] StoreError),
    /// Keys cannot be had.
    #[error("keys cannot be had")]
    Keys(#[from] KeyError),
}

impl IdempotencyError {
    /// True when nothing is wrong but the database or the keys are away for now: trying again makes sense.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Store(error) => error.is_outage(),
            Self::Keys(error) => error.is_outage(),
            _ => false,
        }
    }
}

impl Slot {
    fn name(&self) -> RequestName<'_> {
        RequestName { actor: &self.actor, route: &self.route, key_hash: &self.key_hash }
    }

    fn record_id(&self) -> String {
        format!("{} {} {}", self.actor, self.route, self.key_hash)
    }
}

fn place(record_id: &str) -> Place<'_> {
    Place { record_kind: "idempotency", record_id, field: "answer", generation: 0 }
}

impl Accounts {
    /// Takes the key for this caller and route, or gives the answer of the first time.
    ///
    /// # Errors
    /// [`IdempotencyError::Mismatch`], [`IdempotencyError::InFlight`], [`IdempotencyError::Invalid`] for the key.
    pub async fn idempotency_begin(&self, caller: &Caller, request: &Repeatable) -> Result<Begun, IdempotencyError> {
        checked_key(&request.key)?;
        let scope = any_scope(caller)?;
        let slot = Slot {
            actor: format!("{}:{}", caller.who().kind(), caller.who().id()),
            route: request.route.clone(),
            key_hash: hash_token(&request.key),
        };
        let request_hash = hash_of(request);
        let now = self.around.now();
        let mut tx = self.store.begin().await?;
        let known = match idempotency_get(&mut tx, &scope, slot.name()).await? {
            Some(row) if row.created_at <= now.before(KEPT).0 => {
                // Expired, but not swept yet.
                idempotency_forget(&mut tx, &scope, slot.name()).await?;
                None
            }
            known => known,
        };
        let Some(row) = known else {
            let taken =
                idempotency_begin(&mut tx, &scope, slot.name(), &request_hash, now.0, now.after(KEPT).0).await?;
            tx.commit().await?;
            // Whoever took it between look and take is still at work.
            return if taken { Ok(Begun::First(slot)) } else { Err(IdempotencyError::InFlight) };
        };
        if !same(row.request_hash.as_bytes(), request_hash.as_bytes()) {
            return Err(IdempotencyError::Mismatch);
        }
        let (Some(status), Some(sealed)) = (row.status, row.answer) else { return Err(IdempotencyError::InFlight) };
        let body = self.open_answer(&mut tx, &scope, &slot, &sealed).await?;
        Ok(Begun::Before(Answered { status: u16::try_from(status).unwrap_or(500), body }))
    }

    /// Keeps the answer to work that was done.
    ///
    /// # Errors
    /// As every statement; the slot then stays taken.
    pub async fn idempotency_finish(
        &self,
        caller: &Caller,
        slot: &Slot,
        done: &Answered,
    ) -> Result<(), IdempotencyError> {
        let scope = any_scope(caller)?;
        let owner = Owner::Tenant(scope.tenant_id().clone());
        let mut tx = self.store.begin().await?;
        let sealed = self.keys.seal(&mut tx, &owner, place(&slot.record_id()), &done.body).await?;
        idempotency_finish(&mut tx, &scope, slot.name(), i64::from(done.status), &sealed).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Gives the key back, because the work left no effect.
    ///
    /// # Errors
    /// As every statement; the slot then stays taken.
    pub async fn idempotency_forget(&self, caller: &Caller, slot: &Slot) -> Result<(), IdempotencyError> {
        let scope = any_scope(caller)?;
        let mut tx = self.store.begin().await?;
        idempotency_forget(&mut tx, &scope, slot.name()).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn open_answer(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        slot: &Slot,
        sealed: &[u8],
    ) -> Result<Secret, KeyError> {
        let owner = Owner::Tenant(scope.tenant_id().clone());
        self.keys.open_secret(tx, &owner, place(&slot.record_id()), sealed).await
    }
}

/// The rows belong to the caller's tenant, whatever the caller may do there; but who may do nothing keeps nothing.
fn any_scope(caller: &Caller) -> Result<TenantScope, Denied> {
    let held = caller.permissions().iter().next().unwrap_or(Permission::UsersWrite);
    caller.require(held)
}

fn hash_of(request: &Repeatable) -> String {
    let mut bytes = Vec::new();
    for part in &request.payload {
        // With its length before it, no part can flow into the next.
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    hex(&sha256(&bytes))
}

fn checked_key(key: &str) -> Result<(), Invalid> {
    if (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(())
    } else {
        Err(Invalid::one("Idempotency-Key", "must have 1 to 255 visible ASCII characters"))
    }
}
