//! Conversations: one run of an agent for one user, and everything its tools may do meanwhile.
//!
//! Identity at a tool endpoint comes from the ticket alone (AG-05). A ticket is bound to tenant, user, agent,
//! conversation, the chosen connections and an end time; nothing in a request can widen it.

mod broker;
mod choose;
mod manage;
mod refresh_tool;
mod relay;
mod start;
mod tickets;
mod variables;

use std::time::Duration;

use url::Url;

pub use broker::BrokerRequest;
pub use manage::ConversationView;
pub use refresh_tool::{RefreshAnswer, RefreshRequest};
pub use relay::{Frame, RelaySeat};
pub use start::{ChannelRequest, StartRequest, Started, StartedConnection, WantedConnection};
pub use tickets::{Admitted, Proof};

use crate::audit::{Audit, AuditError};
use crate::caller::{Denied, SystemScope};
use crate::clock::Surroundings;
use crate::config::Ttl;
use crate::connections::{Connections, ConnectionsError};
use crate::credentials::{CredentialError, Credentials};
use crate::elevenlabs::{ElevenLabs, ElevenLabsError};
use crate::invalid::Invalid;
use crate::keys::{KeyError, Keys};
use crate::outbound::{Outbound, OutboundError};
use crate::shutdown::Shutdown;
use crate::store::bell::Bells;
use crate::store::{Store, StoreError};
use crate::workspaces::{Workspaces, WorkspacesError};

const BY_SECRET: SystemScope =
    SystemScope::because("a ticket or relay link is found by its hash; the row says whose it is");
/// From the start call to the first word (DESIGN, amendments to RL-22).
const START_WINDOW: Duration = Duration::from_secs(900);
/// What a variable holds that has nothing to hold; no provider accepts it.
pub const NOT_CONNECTED: &str = "not_connected";

/// The room.
#[derive(Clone, Debug)]
pub struct Conversations {
    store: Store,
    keys: Keys,
    credentials: Credentials,
    connections: Connections,
    workspaces: Workspaces,
    elevenlabs: ElevenLabs,
    outbound: Outbound,
    shutdown: Shutdown,
    audit: Audit,
    around: Surroundings,
    bells: Bells,
    public_url: Url,
    ttl: Ttl,
}

/// What the room is made of.
#[derive(Debug)]
pub struct ConversationsParts {
    /// The database.
    pub store: Store,
    /// The key cabinet.
    pub keys: Keys,
    /// Lends tokens.
    pub credentials: Credentials,
    /// Knows accounts.
    pub connections: Connections,
    /// Knows agents.
    pub workspaces: Workspaces,
    /// The API as it is.
    pub elevenlabs: ElevenLabs,
    /// Dials the real conversation socket.
    pub outbound: Outbound,
    /// Relays end when the house begins to stop.
    pub shutdown: Shutdown,
    /// The book.
    pub audit: Audit,
    /// Clock and randomness.
    pub around: Surroundings,
    /// "Look now".
    pub bells: Bells,
    /// The only source of relay links.
    pub public_url: Url,
    /// Lifetimes.
    pub ttl: Ttl,
}

/// Why something about conversations could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ConversationsError {
    /// The caller lacks a permission.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// No such thing, or another's.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// Fields that do not fit.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// The user may not use this agent, or the agent's tools may not make this call.
    #[error("{0}")]
    NotGranted(&'static str),
    /// Something the agent needs is not there; nothing was created upstream.
    #[error("{}", connection_required(.provider, .missing_scopes))]
    ConnectionRequired {
        /// Catalogue id.
        provider: String,
        /// What the account that is there was not granted; empty where there is none.
        missing_scopes: Vec<String>,
        /// Where the user can connect it.
        connect_url: Option<String>,
    },
    /// Several accounts fit and none is the default.
    #[error("the user has several {provider} accounts and no default; name one")]
    AmbiguousAccount {
        /// Catalogue id.
        provider: String,
    },
    /// A secret that never ends cannot be injected (AG-01).
    #[error("the {provider} credential never expires, so it is only used through the broker")]
    NotInjectable {
        /// Catalogue id.
        provider: String,
    },
    /// The proof of a tool call is not right; the answer does not say how (AG-04).
    #[error("the proof is not right")]
    Unauthenticated,
    /// Something in the request contradicts the ticket.
    #[error("the request names another user than the ticket")]
    IdentityMismatch,
    /// Ended, used or expired.
    #[error("this has ended")]
    Gone,
    /// Too many uses in this hour.
    #[error("too many uses of this ticket")]
    RateLimited(Duration),
    /// A browser of an origin that the tenant has not registered.
    #[error("this origin is not registered")]
    OriginRefused,
    /// A token could not be had.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// Something about accounts.
    #[error(transparent)]
    Connections(#[from] ConnectionsError),
    /// Something about agents or their workspace.
    #[error(transparent)]
    Workspaces(#[from] WorkspacesError),
    /// ElevenLabs said no, or nothing useful.
    #[error("ElevenLabs did not agree")]
    ElevenLabs(#[from] ElevenLabsError),
    /// The conversation socket could not be dialled.
    #[error("the conversation socket was not reached")]
    Street(#[from] OutboundError),
    /// The audit entry could not be written, so nothing leaves.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The database did not answer.
    #[error("the database did not answer")]
    Store(#[from] StoreError),
    /// Keys cannot be had.
    #[error("keys cannot be had")]
    Keys(#[from] KeyError),
}

fn connection_required(provider: &str, missing_scopes: &[String]) -> String {
    match missing_scopes {
        [] => format!("this agent needs a {provider} account of the user"),
        scopes => format!("this agent needs more of the user's {provider} account: {}", scopes.join(", ")),
    }
}

impl Conversations {
    /// The room, ready.
    #[must_use]
    pub fn new(parts: ConversationsParts) -> Self {
        Self {
            store: parts.store,
            keys: parts.keys,
            credentials: parts.credentials,
            connections: parts.connections,
            workspaces: parts.workspaces,
            elevenlabs: parts.elevenlabs,
            outbound: parts.outbound,
            shutdown: parts.shutdown,
            audit: parts.audit,
            around: parts.around,
            bells: parts.bells,
            public_url: parts.public_url,
            ttl: parts.ttl,
        }
    }
}
