//! Workspaces: ElevenLabs workspaces with their keys, the agents in them, and who may use which.

mod agents;
mod grants;
mod keys_in_use;
mod proof;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use url::Url;

pub use agents::{Agent, AgentDraft, BrokerRule, HandOver, Need, variable_name_is_plain};
pub use grants::{Grant, GrantDraft, PermissionLevel, ResourceType};
pub use keys_in_use::{Workspace, WorkspaceAccess, WorkspaceDraft};

use crate::audit::{Audit, AuditError};
use crate::caller::{Denied, SystemScope};
use crate::clock::{Millis, Surroundings};
use crate::elevenlabs::{ElevenLabs, ElevenLabsError};
use crate::invalid::Invalid;
use crate::keys::{KeyError, Keys};
use crate::store::{Store, StoreError};

/// How long the proof of an agent's tools is believed (API.md section 4).
const PROOF_LIFE: Duration = Duration::from_secs(60);

const OWNER_IS_NAMED: SystemScope =
    SystemScope::because("a conversation names the workspace's owner, which may be the operator");

/// The room.
#[derive(Clone)]
pub struct Workspaces {
    store: Store,
    keys: Keys,
    audit: Audit,
    around: Surroundings,
    elevenlabs: ElevenLabs,
    public_url: Url,
    providers: Arc<[KnownProvider]>,
    proofs: Cache<(String, String), (Millis, BTreeSet<String>)>,
}

impl std::fmt::Debug for Workspaces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Workspaces")
    }
}

/// What the room is made of.
#[derive(Debug)]
pub struct WorkspacesParts {
    /// The database.
    pub store: Store,
    /// The key cabinet.
    pub keys: Keys,
    /// The book.
    pub audit: Audit,
    /// Clock and randomness.
    pub around: Surroundings,
    /// The API as it is.
    pub elevenlabs: ElevenLabs,
    /// The only source of tool URLs.
    pub public_url: Url,
    /// What agents can need.
    pub providers: Vec<KnownProvider>,
}

/// A provider as far as an agent's needs are concerned.
#[derive(Clone, Debug)]
pub struct KnownProvider {
    /// Catalogue id.
    pub id: String,
    /// Kinds of credential that a connection can have: `user`, `bot`, ….
    pub kinds: Vec<String>,
    /// Whether its tokens may be injected at all.
    pub injectable: bool,
}

/// Why something about workspaces could not be done.
#[derive(Debug, thiserror::Error)]
pub enum WorkspacesError {
    /// The caller lacks a permission.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// No such thing, or another's.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// Fields that do not fit.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// It is there already.
    #[error("{0} exists already")]
    Conflict(&'static str),
    /// The workspace has no key in its active slot.
    #[error("the workspace has no API key in its active slot")]
    NoKey,
    /// ElevenLabs said no, or nothing useful.
    #[error("ElevenLabs did not agree")]
    ElevenLabs(#[from] ElevenLabsError),
    /// The audit entry could not be written.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The database did not answer.
    #[error("the database did not answer")]
    Store(#[from] StoreError),
    /// Keys cannot be had.
    #[error("keys cannot be had")]
    Keys(#[from] KeyError),
}

impl Workspaces {
    /// The room, ready.
    #[must_use]
    pub fn new(parts: WorkspacesParts) -> Self {
        Self {
            store: parts.store,
            keys: parts.keys,
            audit: parts.audit,
            around: parts.around,
            elevenlabs: parts.elevenlabs,
            public_url: parts.public_url,
            providers: parts.providers.into(),
            proofs: Cache::builder().max_capacity(10_000).time_to_live(PROOF_LIFE).build(),
        }
    }

    fn page(&self, path: &str) -> String {
        format!("{}/{path}", self.public_url.as_str().trim_end_matches('/'))
    }
}
