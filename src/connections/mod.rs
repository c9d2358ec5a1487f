//! Connections: how an end user's account gets into the vault, what is known of it, and how it leaves.

mod activity;
mod asked;
mod catalogue;
mod connect_sessions;
mod direct;
mod erase;
mod exchange;
mod handshakes;
mod health;
mod import;
mod integrations;
mod manage;
mod moving_in;
mod notices;
mod offers;
mod refreshing;
mod starts;
mod telegram;
mod telling;
mod upkeep;
mod view;

use url::Url;

pub use activity::{Happened, Overview, Refusal};
pub use catalogue::{BrokerCard, ProviderCard, VariableCard};
pub use connect_sessions::{Confirmation, ConnectLink, ConnectSession, ConnectVisit, NewConnectSession};
pub use direct::{DirectDraft, DirectKind};
pub use erase::{ErasedConnection, Receipt};
pub use handshakes::{Begin, Begun, Callback, Ending, Finished, RedirectTo, Visitor};
pub use health::{Health, IntegrationHealth, Need, Pause, Renewal, Trouble};
pub use import::{Import, ImportAccount, ImportCredential, ImportRow};
pub use integrations::{Integration, IntegrationDraft};
pub use manage::{ConnectionChange, Disconnected, ListFilter};
pub use notices::SlackAnswer;
pub use offers::{ConsentOffer, Ends, Preview};
pub use refreshing::{Backlog, Refreshing};
pub use starts::{Presser, START_LIFE};
pub use telegram::{BotSource, TelegramDraft};
pub use view::{AccountView, Connection, ConnectionStatus, CredentialKindName, CredentialView, Target};

use crate::audit::{Audit, AuditError};
use crate::caller::{Denied, SystemScope};
use crate::clock::Surroundings;
use crate::config::Ttl;
use crate::credentials::{CredentialError, Credentials};
use crate::invalid::Invalid;
use crate::keys::{KeyError, Keys};
pub use crate::providers::notices::{Disbelief, SlackCall};
use crate::providers::{Failure, Providers};
use crate::store::bell::Bells;
use crate::store::{Store, StoreError};

const BY_SECRET: SystemScope =
    SystemScope::because("a link, state or payload is found by its hash; the row says whose it is");

/// The room.
#[derive(Clone, Debug)]
pub struct Connections {
    store: Store,
    keys: Keys,
    providers: Providers,
    credentials: Credentials,
    audit: Audit,
    around: Surroundings,
    bells: Bells,
    public_url: Url,
    ttl: Ttl,
}

/// What the room is made of.
#[derive(Debug)]
pub struct ConnectionsParts {
    /// The database.
    pub store: Store,
    /// The key cabinet.
    pub keys: Keys,
    /// The catalogue.
    pub providers: Providers,
    /// The room that keeps the tokens.
    pub credentials: Credentials,
    /// The book.
    pub audit: Audit,
    /// Clock and randomness.
    pub around: Surroundings,
    /// "Look now".
    pub bells: Bells,
    /// The only source of redirect URIs and links (OA-12).
    pub public_url: Url,
    /// Lifetimes.
    pub ttl: Ttl,
}

/// Why something about connections could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionsError {
    /// The caller lacks a permission.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// No such thing, or another's.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// Fields that do not fit.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// A hosted link needs somewhere to confirm.
    #[error(
        "this tenant confirms connections itself, so a registered return_url (or a registered origin for a popup) is needed"
    )]
    ReturnUrlRequired,
    /// A link or code that was used or has expired.
    #[error("this link or code was used or has expired")]
    Gone,
    /// The state is not one of ours, or belongs to another browser or person.
    #[error("this sign-in was not started here, or has ended; start again")]
    UnknownState,
    /// The state was begun in this browser, and was used before.
    #[error("this answer was used before; start again")]
    UsedState,
    /// The state was begun in this browser, and its time is over.
    #[error("this sign-in took too long; start again")]
    OldState,
    /// It is there already.
    #[error("{0} exists already")]
    Conflict(&'static str),
    /// Rows of an import whose accounts are connected already.
    #[error("these accounts are connected already: {0}")]
    AlreadyConnected(Invalid),
    /// What claims to come from a provider is not proven to.
    #[error("this is not proven to come from the provider")]
    Disbelieved(Disbelief),
    /// Too many unfinished attempts (OA-13).
    #[error("too many unfinished attempts to connect")]
    TooMany,
    /// The confirming user is not the one that the session is for.
    #[error("this connect session is for another user")]
    IdentityMismatch,
    /// The provider said no, or nothing useful.
    #[error("the provider did not agree ({})", .0.code())]
    Provider(Failure),
    /// The room that keeps tokens.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The database did not answer.
    #[error("the database did not answer")]
    Store(#[from] StoreError),
    /// Keys cannot be had.
    #[error("keys cannot be had")]
    Keys(#[from] KeyError),
    /// The audit entry could not be written.
    #[error(transparent)]
    Audit(#[from] AuditError),
}

impl Connections {
    /// The room, ready.
    #[must_use]
    pub fn new(parts: ConnectionsParts) -> Self {
        Self {
            store: parts.store,
            keys: parts.keys,
            providers: parts.providers,
            credentials: parts.credentials,
            audit: parts.audit,
            around: parts.around,
            bells: parts.bells,
            public_url: parts.public_url,
            ttl: parts.ttl,
        }
    }

    /// A page of ours.
    pub(crate) fn page(&self, path: &str) -> String {
        format!("{}/{path}", self.public_url.as_str().trim_end_matches('/'))
    }
}
