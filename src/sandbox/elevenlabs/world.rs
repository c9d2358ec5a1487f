//! What the pretend platform knows: keys, workspace objects, signed URLs, faults, counters, sinks.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, PoisonError};

use data_encoding::BASE32_NOPAD;
use serde_json::{Value, json};
use url::Url;

use super::sinks::Sinks;
use crate::clock::{Millis, Surroundings};
use crate::secret::Secret;

/// Everything the doors share.
pub(super) struct Shared {
    /// Virtual time and randomness.
    pub around: Surroundings,
    /// Where REST is served.
    pub base: Url,
    /// For calling webhook tools.
    pub client: reqwest::Client,
    /// Requests being answered, for the `current-concurrent-requests` header.
    pub in_flight: AtomicUsize,
    world: Mutex<World>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl Shared {
    pub fn new(around: Surroundings, base: Url, client: reqwest::Client) -> Self {
        let world = Mutex::new(World::default());
        let shared = Self { around, base, client, in_flight: AtomicUsize::new(0), world };
        shared.issue_key();
        shared
    }

    /// Reads the world.
    pub fn look<T>(&self, read: impl FnOnce(&World) -> T) -> T {
        read(&self.world.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the world.
    pub fn change<T>(&self, write: impl FnOnce(&mut World) -> T) -> T {
        write(&mut self.world.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A fresh identifier such as `agent_…`.
    pub fn name(&self, prefix: &str) -> String {
        format!("{prefix}_{}", BASE32_NOPAD.encode(&self.around.random::<15>()).to_ascii_lowercase())
    }

    /// A new API key that the doors accept.
    pub fn issue_key(&self) -> String {
        let key = self.name("sk_vkcanary");
        self.change(|world| world.keys.push(key.clone()));
        key
    }
}

/// The state behind the doors.
#[derive(Default)]
pub(super) struct World {
    pub keys: Vec<String>,
    pub secrets: Vec<WorkspaceSecret>,
    pub tools: Vec<Tool>,
    pub agents: Vec<Agent>,
    /// Scripts set over `/sandbox/scripts`, by agent id; they come before the agent's own.
    pub scripts: BTreeMap<String, Vec<Value>>,
    pub signatures: BTreeMap<String, SignedUrl>,
    pub faults: Vec<String>,
    pub counters: Counters,
    pub sinks: Sinks,
}

/// A workspace secret: write-only, named in headers by its id.
pub(super) struct WorkspaceSecret {
    pub id: String,
    pub name: String,
    pub value: Secret,
}

/// A stored tool.
#[derive(Clone)]
pub(super) struct Tool {
    pub id: String,
    pub config: Value,
}

/// A stored agent.
#[derive(Clone)]
pub(super) struct Agent {
    pub id: String,
    pub created: Millis,
    /// `name`, `conversation_config`, `platform_settings`, `workflow`, `tags` as last written.
    pub body: Value,
}

/// A minted signed URL.
pub(super) struct SignedUrl {
    pub agent_id: String,
    /// Named in advance; then the signature works once (section 2.1).
    pub conversation_id: Option<String>,
    pub expires: Millis,
    pub used: bool,
}

/// How often things happened since the start or the last reset.
#[derive(Default)]
pub(super) struct Counters {
    pub signed_urls: u64,
    pub tokens: u64,
    pub conversations_started: u64,
    pub conversations_refused: u64,
    pub tool_calls: u64,
}

impl Counters {
    /// As `GET /sandbox/counters` answers them.
    pub fn public(&self) -> Value {
        json!({
            "signed_urls": self.signed_urls,
            "tokens": self.tokens,
            "conversations_started": self.conversations_started,
            "conversations_refused": self.conversations_refused,
            "tool_calls": self.tool_calls,
        })
    }
}

/// Faults that are on or off.
const FAULTS: [&str; 3] = ["signed_url_500", "refresh_tool", "refuse_start"];
/// The fault that carries a number of milliseconds after a colon.
const SLOW: &str = "signed_url_slow_ms";

impl World {
    /// The oldest key that is still valid.
    pub fn first_key(&self) -> String {
        self.keys.first().cloned().unwrap_or_default()
    }

    pub fn agent(&self, id: &str) -> Option<&Agent> {
        self.agents.iter().find(|agent| agent.id == id)
    }

    pub fn tool(&self, id: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.id == id)
    }

    pub fn secret(&self, id: &str) -> Option<&WorkspaceSecret> {
        self.secrets.iter().find(|secret| secret.id == id)
    }

    /// Switches a fault on; false when there is no such fault.
    pub fn add_fault(&mut self, name: &str) -> bool {
        let slow = name.strip_prefix(SLOW).and_then(|rest| rest.strip_prefix(':'));
        let known = FAULTS.contains(&name) || slow.is_some_and(|millis| millis.parse::<u64>().is_ok());
        if known && !self.has_fault(name) {
            self.faults.push(name.to_owned());
        }
        known
    }

    pub fn has_fault(&self, name: &str) -> bool {
        self.faults.iter().any(|fault| fault == name)
    }

    /// How long `get-signed-url` dawdles: milliseconds of real time.
    pub fn signed_url_delay(&self) -> u64 {
        let slow = self.faults.iter().rev().find_map(|fault| fault.strip_prefix(SLOW));
        slow.and_then(|rest| rest.strip_prefix(':')).and_then(|millis| millis.parse().ok()).unwrap_or(0)
    }

    pub fn reset(&mut self, workspace: bool) {
        self.faults.clear();
        self.signatures.clear();
        self.counters = Counters::default();
        self.sinks = Sinks::default();
        if workspace {
            self.secrets.clear();
            self.tools.clear();
            self.agents.clear();
            self.scripts.clear();
        }
    }
}
