//! Credentials: secret token sets, kept fresh and lent out.
//!
//! [`refresh`] is the protocol, pure; `driver` executes its actions; everything else is built on them. Reading a
//! token, the sweep, the refresh tool and the broker all go through the same flight, so there is one path for
//! spending a refresh token (DESIGN section 7).

mod berths;
mod broker;
mod consents;
mod driver;
mod ending;
mod exchanging;
mod flights;
mod held;
mod moving_in;
mod on_request;
mod pace;
mod provider_call;
mod read;
pub mod refresh;
mod retries;
mod revoking;
mod round;
mod row;
mod spool;
mod store;
mod sweep;
#[cfg(test)]
mod testing;

use std::sync::Arc;
use std::time::Duration;

pub use crate::providers::{ApiCall, path_fits};
pub use broker::{BrokerAnswer, BrokerCall};
pub use ending::{Hearing, Told};
pub use moving_in::FirstCredential;
pub use read::{Account, IN_MID_CALL, ReadWish, Token, Warm, Which};
pub use revoking::Revocation;
pub(crate) use row::{WARN_AHEAD, ends_soon, is_degraded, last_error, may_be_good};
pub use spool::{Spool, SpoolError, SpoolFiles};
pub use store::NewCredential;
pub use sweep::{DueBell, Swept};

use crate::audit::{Audit, AuditError};
use crate::caller::{Denied, SystemScope};
use crate::clock::Surroundings;
use crate::config::RefreshSettings;
use crate::health::Health;
use crate::keys::{KeyError, Keys};
use crate::outbound::{Outbound, OutboundError};
use crate::providers::{AttachError, Providers};
use crate::shutdown::Shutdown;
use crate::store::bell::Bells;
use crate::store::{Store, StoreError};
use berths::Berths;
use flights::Flights;
use held::HeldTokens;
use retries::Retries;
use sweep::Sweeper;

/// What has been due for longer, and is taken by nobody, says that refreshing does not keep up.
pub const LATE: Duration = Duration::from_secs(120);

/// A flight knows one credential by name; its second wall is the sealed context.
const ONE_CREDENTIAL: SystemScope =
    SystemScope::because("a flight serves whoever waits for this credential; the sealed context is the wall");

/// The room.
#[derive(Clone, Debug)]
pub struct Credentials {
    store: Store,
    keys: Keys,
    providers: Providers,
    outbound: Outbound,
    audit: Audit,
    around: Surroundings,
    bells: Bells,
    shutdown: Shutdown,
    flights: Arc<Flights>,
    spool: Spool,
    held: HeldTokens,
    sweeper: Arc<Sweeper>,
    retries: Retries,
    /// For the flights of readers; the sweep has its own.
    readers_berths: Arc<Berths>,
}

/// What the room is made of.
#[derive(Debug)]
pub struct CredentialsParts {
    /// The database.
    pub store: Store,
    /// The key cabinet.
    pub keys: Keys,
    /// The catalogue.
    pub providers: Providers,
    /// The gate to the street.
    pub outbound: Outbound,
    /// The book.
    pub audit: Audit,
    /// Clock and randomness.
    pub around: Surroundings,
    /// "Look now".
    pub bells: Bells,
    /// Flights keep the house from closing until their answers are stored.
    pub shutdown: Shutdown,
    /// Where answers wait that the database cannot take.
    pub spool: Spool,
    /// Where it is said that tokens are in memory only.
    pub health: Health,
    /// How hard providers are asked.
    pub refresh: RefreshSettings,
}

/// Why a credential could not be lent. Each variant is answered differently.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The caller lacks a permission.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// No such connection, or another's.
    #[error("there is no such connection")]
    NotFound,
    /// The connection has no credential of this kind.
    #[error("the connection has no such credential")]
    NoSuchKind,
    /// A secret that never ends does not leave the vault (AG-01).
    #[error("this credential never expires, so it is only used through the broker")]
    NotInjectable,
    /// There is nothing to refresh with.
    #[error("this credential cannot be refreshed")]
    NotRefreshable,
    /// Only the user can help.
    #[error("the user must connect this account again ({reason})")]
    NeedsReauth {
        /// Why, from a closed list.
        reason: String,
    },
    /// Only the tenant can help.
    #[error("the integration is not set up rightly")]
    Misconfigured,
    /// Somebody is refreshing, or the provider makes us wait.
    #[error("a refresh is in progress")]
    InProgress {
        /// When to ask again.
        retry_after: Duration,
    },
    /// The provider wants fewer calls.
    #[error("the provider asks for a pause")]
    RateLimited {
        /// When to ask again.
        retry_after: Duration,
    },
    /// The provider did not answer usefully.
    #[error("the provider did not answer usefully ({code})")]
    Upstream {
        /// What was seen.
        code: String,
        /// When to ask again.
        retry_after: Duration,
    },
    /// The broker may not make this call.
    #[error(transparent)]
    NotAllowed(#[from] AttachError),
    /// The call could not be made or its answer was lost.
    #[error("the provider's API was not reached")]
    Street(#[from] OutboundError),
    /// The audit entry could not be written, so nothing leaves.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The database did not answer.
    #[error("the database did not answer")]
    Store(#[from] StoreError),
    /// Keys cannot be had, or a stored value does not belong where it stands.
    #[error("a stored value cannot be opened")]
    Keys(#[from] KeyError),
}

impl CredentialError {
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

impl Credentials {
    /// The room, ready.
    #[must_use]
    pub fn new(parts: CredentialsParts) -> Self {
        let process = data_encoding::HEXLOWER.encode(&parts.around.random::<12>());
        Self {
            store: parts.store,
            keys: parts.keys,
            providers: parts.providers,
            outbound: parts.outbound,
            audit: parts.audit,
            around: parts.around,
            bells: parts.bells,
            shutdown: parts.shutdown,
            flights: Arc::new(Flights::new(process)),
            spool: parts.spool,
            held: HeldTokens::new(parts.health),
            readers_berths: Arc::new(Berths::new(sweep::workers(parts.refresh) / 2)),
            sweeper: Arc::new(Sweeper::new(parts.refresh)),
            retries: Retries::default(),
        }
    }
}
