//! Accounts: tenants, the people and machines that may act for them, and their end users.

mod api_keys;
mod idempotency;
mod links;
mod logins;
mod sessions;
mod tenants;
mod upkeep;
mod users;
mod visitors;

use std::time::Duration;

pub use api_keys::{ApiKey, NewApiKey, PresentedKey};
pub use idempotency::{Answered, Begun, IdempotencyError, Repeatable, Slot};
pub use links::{Link, PortalLink, PortalVisit};
pub use logins::{MIN_PASSWORD, NewMember, SignIn, SignInOutcome, SignedIn};
pub use sessions::SessionStore;
pub use tenants::{NewTenant, Settings, SettingsPatch, Tenant};
pub use users::{Profile, User};
pub use visitors::{Presence, Visitor};

use crate::audit::{Audit, AuditError};
use crate::caller::{Denied, SystemScope};
use crate::clock::Surroundings;
use crate::crypto::passwords::{PasswordError, Passwords};
use crate::invalid::Invalid;
use crate::keys::{KeyError, Keys};
use crate::outbound::Outbound;
use crate::store::{Store, StoreError};

/// Looking somebody up is what tells the tenant; before it there is no scope.
const BEFORE_ANY_SCOPE: SystemScope = SystemScope::because("who asks is being found out, so no tenant is known yet");

/// The room.
#[derive(Clone, Debug)]
pub struct Accounts {
    store: Store,
    keys: Keys,
    audit: Audit,
    around: Surroundings,
    passwords: Passwords,
    outbound: Outbound,
    allow_private_peers: bool,
}

/// Why something about accounts could not be done.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// The caller lacks a permission.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// No such thing, or another tenant's.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// The name is taken.
    #[error("{0} exists already")]
    Conflict(&'static str),
    /// Fields that do not fit.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// Key, session or password are not right.
    #[error("the credentials are not right")]
    Unauthenticated,
    /// The key may not be used from this address.
    #[error("this key may not be used from this address")]
    IpNotAllowed,
    /// A link that was used or has expired.
    #[error("this link was used or has expired")]
    Gone,
    /// Too many at once; try again later.
    #[error("too many sign-ins at once")]
    Overloaded(Duration),
    /// The database did not answer.
    #[error("the database did not answer")]
    Store(#[from] StoreError),
    /// The audit entry could not be written.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// Keys cannot be had.
    #[error("keys cannot be had")]
    Keys(#[from] KeyError),
    /// Hashing failed for a reason of ours.
    #[error("the password could not be checked")]
    Password(#[source] PasswordError),
}

impl AccountsError {
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

impl From<PasswordError> for AccountsError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Overloaded { retry_after } => Self::Overloaded(retry_after),
            other => Self::Password(other),
        }
    }
}

/// What the room is made of.
#[derive(Debug)]
pub struct AccountsParts {
    /// The database.
    pub store: Store,
    /// The key cabinet.
    pub keys: Keys,
    /// The book.
    pub audit: Audit,
    /// Clock and randomness.
    pub around: Surroundings,
    /// The gate to the street, which knows which plain-http URLs are allowed.
    pub outbound: Outbound,
    /// Whether keys may be limited to private ranges.
    pub allow_private_peers: bool,
}

impl Accounts {
    /// The room, ready.
    #[must_use]
    pub fn new(parts: AccountsParts) -> Self {
        let permits = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            passwords: Passwords::new(permits, parts.around.entropy.clone()),
            store: parts.store,
            keys: parts.keys,
            audit: parts.audit,
            around: parts.around,
            outbound: parts.outbound,
            allow_private_peers: parts.allow_private_peers,
        }
    }
}

#[cfg(test)]
mod tests;
