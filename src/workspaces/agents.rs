//! Agents with their needs: what each conversation must have, and what its tools may do with it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{KnownProvider, Workspaces, WorkspacesError};
use crate::audit::{Action, Event};
use crate::caller::{Caller, Permission, TenantScope};
use crate::ids::{AgentId, WorkspaceId};
use crate::invalid::Invalid;
use crate::schema::words;
use crate::store::agents::{AgentRow, agent_by_agent_id, agent_list, agent_put, grant_find};
use crate::store::{StoreError, Tx, from_json_list, to_json_list};

words! {
    /// Whether every user may use an agent, or only those with a grant.
    AgentAccess: "all_users" | "granted";
    /// What a rule for the broker can allow.
    BrokerMethod: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
}

/// ElevenLabs ends a conversation after two hours at most.
const LONGEST: i64 = 7200;
/// What ElevenLabs assumes when nothing is said.
const USUAL: i64 = 600;

/// How a credential gets to an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HandOver {
    /// Inject what expires, broker the rest.
    #[default]
    Auto,
    /// In a `secret__` variable.
    Inject,
    /// Through the broker only.
    Broker,
}

/// One thing an agent needs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Need {
    /// Catalogue id.
    pub provider: String,
    /// `user`, `bot`, …; absent means user, else bot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub credential: Option<String>,
    /// Whether a conversation can do without it.
    #[serde(default = "yes")]
    pub required: bool,
    /// Scopes that the tools need.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// How it gets to the agent.
    #[serde(default)]
    pub hand_over: HandOver,
}

fn yes() -> bool {
    true
}

/// What an agent's tools may ask the broker for, of what the catalogue allows (`broker` in `GET /v1/providers`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BrokerRule {
    /// HTTP methods; empty means GET and POST.
    #[serde(default)]
    #[schema(value_type = Vec<BrokerMethod>)]
    pub methods: Vec<String>,
    /// Globs: `*` is one segment, `**` the rest. Absent means all that the catalogue allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub paths: Option<Vec<String>>,
}

/// What a tenant says about an agent.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentDraft {
    /// Name of a workspace.
    pub workspace: String,
    /// `all_users` (default) or `granted`.
    #[serde(default)]
    #[schema(value_type = Option<AgentAccess>)]
    pub access: Option<String>,
    /// What it needs.
    #[serde(default)]
    pub needs: Vec<Need>,
    /// Variables that a browser may set.
    #[serde(default)]
    pub client_variables: Vec<String>,
    /// What its tools may ask the broker for, by provider; nothing else.
    #[serde(default)]
    pub broker: BTreeMap<String, BrokerRule>,
    /// Seconds; 600 unless said otherwise, 7200 at most.
    #[serde(default)]
    #[schema(minimum = 60, maximum = 7200)]
    pub max_duration: Option<i64>,
}

/// An agent.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Agent {
    /// `agt_…`.
    pub id: AgentId,
    /// ElevenLabs' id.
    pub agent_id: String,
    /// `wks_…`.
    #[schema(value_type = WorkspaceId)]
    pub workspace: String,
    /// `all_users` or `granted`.
    #[schema(value_type = AgentAccess)]
    pub access: String,
    /// What it needs.
    pub needs: Vec<Need>,
    /// Variables that a browser may set.
    pub client_variables: Vec<String>,
    /// What its tools may ask the broker for.
    pub broker: BTreeMap<String, BrokerRule>,
    /// Seconds.
    pub max_duration: i64,
    /// The workspace's owner.
    #[serde(skip)]
    pub workspace_tenant: String,
}

impl Workspaces {
    /// Makes or replaces an agent.
    ///
    /// # Errors
    /// [`WorkspacesError::Invalid`], [`WorkspacesError::Conflict`] when another tenant owns it.
    pub async fn agent_put(
        &self,
        caller: &Caller,
        agent_id: &str,
        draft: AgentDraft,
    ) -> Result<Agent, WorkspacesError> {
        let scope = caller.require(Permission::WorkspacesWrite)?;
        self.check_draft(agent_id, &draft)?;
        let mut tx = self.store.begin().await?;
        let workspace = self.usable(&mut tx, &scope, &draft.workspace, agent_id).await?.ok_or_else(|| {
            Invalid::one("workspace", "is not a workspace of yours, nor one that shares this agent with you")
        })?;
        let existing = agent_by_agent_id(&mut tx, &scope, agent_id).await?;
        let now = self.around.now().0;
        let row = AgentRow {
            tenant_id: scope.tenant().to_owned(),
            id: existing.map_or_else(|| AgentId::new(&self.around).to_string(), |row| row.id),
            agent_id: agent_id.to_owned(),
            workspace_tenant_id: workspace.tenant_id,
            workspace_id: workspace.id,
            access: draft.access.unwrap_or_else(|| "all_users".to_owned()),
            needs: json(&draft.needs),
            client_variables: to_json_list(&draft.client_variables),
            broker: json(&draft.broker),
            max_duration: draft.max_duration.unwrap_or(USUAL),
            created_at: now,
            updated_at: now,
        };
        agent_put(&mut tx, &scope, &row).await.map_err(|error| match error {
            StoreError::Conflict(_) => WorkspacesError::Conflict("another owner of this agent"),
            other => other.into(),
        })?;
        self.audit.record_and_commit(tx, caller, &Event::done(Action::AgentSet, "agent", &row.id)).await?;
        Ok(Agent::from(row))
    }

    /// A tenant's agents.
    ///
    /// # Errors
    /// [`WorkspacesError::Denied`].
    pub async fn agent_list(&self, caller: &Caller) -> Result<Vec<Agent>, WorkspacesError> {
        let scope = caller.require(Permission::WorkspacesWrite)?;
        let mut tx = self.store.read().await?;
        Ok(agent_list(&mut tx, &scope).await?.into_iter().map(Agent::from).collect())
    }

    /// One agent.
    ///
    /// # Errors
    /// [`WorkspacesError::NotFound`], [`WorkspacesError::Denied`].
    pub async fn agent(&self, caller: &Caller, agent_id: &str) -> Result<Agent, WorkspacesError> {
        let scope = caller.require(Permission::WorkspacesWrite)?;
        let mut tx = self.store.read().await?;
        self.agent_in(&mut tx, &scope, agent_id).await?.ok_or(WorkspacesError::NotFound("agent"))
    }

    /// The agent as a conversation needs it.
    ///
    /// # Errors
    /// As every statement.
    pub async fn agent_in(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        agent_id: &str,
    ) -> Result<Option<Agent>, WorkspacesError> {
        Ok(agent_by_agent_id(tx, scope, agent_id).await?.map(Agent::from))
    }

    /// Whether a user may use an agent.
    ///
    /// # Errors
    /// As every statement.
    pub async fn may_use(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        user: &str,
        agent: &Agent,
    ) -> Result<bool, WorkspacesError> {
        Ok(agent.access == "all_users" || grant_find(tx, scope, user, "agent", &agent.agent_id).await?.is_some())
    }
}

impl Workspaces {
    fn check_draft(&self, agent_id: &str, draft: &AgentDraft) -> Result<(), Invalid> {
        let mut invalid = Invalid::default();
        check_names(agent_id, draft, &mut invalid);
        for (index, need) in draft.needs.iter().enumerate() {
            let before = &draft.needs[..index];
            if before.iter().any(|other| other.provider == need.provider && other.credential == need.credential) {
                invalid.add(format!("needs[{index}]"), "names the same provider and credential twice");
            }
            let Some(known) = self.known_provider(&need.provider) else {
                invalid.add(format!("needs[{index}].provider"), self.not_a_provider());
                continue;
            };
            if need.credential.as_ref().is_some_and(|kind| !known.kinds.contains(kind)) {
                let kinds = known.kinds.join(" or ");
                invalid.add(format!("needs[{index}].credential"), format!("must be {kinds} for {}", known.id));
            }
            if need.hand_over == HandOver::Inject && !known.injectable {
                let message = format!("must be auto or broker: a token of {} does not travel in a header", known.id);
                invalid.add(format!("needs[{index}].hand_over"), message);
            }
        }
        for provider in draft.broker.keys().filter(|provider| self.known_provider(provider).is_none()) {
            invalid.add(format!("broker.{provider}"), self.not_a_provider());
        }
        invalid.into_result()
    }

    /// A provider of the catalogue.
    #[must_use]
    pub fn known_provider(&self, id: &str) -> Option<&KnownProvider> {
        self.providers.iter().find(|known| known.id == id)
    }

    /// What is said where another name stands.
    #[must_use]
    pub fn not_a_provider(&self) -> String {
        let ids: Vec<&str> = self.providers.iter().map(|known| known.id.as_str()).collect();
        format!("must be one of {}", ids.join(", "))
    }
}

impl From<AgentRow> for Agent {
    fn from(row: AgentRow) -> Self {
        Self {
            id: AgentId::stored(row.id),
            agent_id: row.agent_id,
            workspace: row.workspace_id,
            access: row.access,
            needs: serde_json::from_str(&row.needs).unwrap_or_default(),
            client_variables: from_json_list(&row.client_variables),
            broker: serde_json::from_str(&row.broker).unwrap_or_default(),
            max_duration: row.max_duration,
            workspace_tenant: row.workspace_tenant_id,
        }
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

/// Everything but the providers.
fn check_names(agent_id: &str, draft: &AgentDraft, invalid: &mut Invalid) {
    if agent_id.is_empty()
        || agent_id.len() > 100
        || !agent_id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    {
        invalid.add("agent_id", "must be ElevenLabs' id of an agent");
    }
    if draft.access.as_deref().is_some_and(|access| !["all_users", "granted"].contains(&access)) {
        invalid.add("access", "must be all_users or granted");
    }
    if draft.max_duration.is_some_and(|seconds| !(60..=LONGEST).contains(&seconds)) {
        invalid.add("max_duration", format!("must be between 60 and {LONGEST} seconds"));
    }
    for (index, name) in draft.client_variables.iter().enumerate() {
        if !variable_name_is_plain(name) {
            invalid.add(
                format!("client_variables[{index}]"),
                "must be a plain variable name: letters, digits and underscores, not beginning with secret__ or system__",
            );
        }
    }
    for (provider, rule) in &draft.broker {
        for (index, path) in rule.paths.iter().flatten().enumerate() {
            if path.is_empty() || path.starts_with('/') || path.split('/').any(|part| part.is_empty() || part == "..") {
                invalid.add(
                    format!("broker.{provider}.paths[{index}]"),
                    "must be a path without a leading slash, such as gmail/v1/users/me/**",
                );
            }
        }
        for (index, method) in rule.methods.iter().enumerate() {
            if !["GET", "POST", "PUT", "PATCH", "DELETE"].contains(&method.as_str()) {
                invalid.add(format!("broker.{provider}.methods[{index}]"), "must be GET, POST, PUT, PATCH or DELETE");
            }
        }
    }
}

/// A variable that a platform or a browser may set. Names are strict because ElevenLabs publishes no rule (fact sheet 5).
#[must_use]
pub fn variable_name_is_plain(name: &str) -> bool {
    let mut letters = name.bytes();
    letters.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && letters.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.len() <= 64
        && !["secret__", "system__", "system_env__", "valetkey_"]
            .iter()
            .any(|reserved| name.to_ascii_lowercase().starts_with(reserved))
        && !["user_id", "user_name"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_carry_secrets_or_are_reserved_are_not_plain() {
        for name in ["topic", "order_7", "_x"] {
            assert!(variable_name_is_plain(name), "{name}");
        }
        for name in [
            "",
            "secret__x",
            "SECRET__x",
            "Secret__",
            "system__time",
            "user_id",
            "valetkey_conversation",
            "7up",
            "a-b",
            "a b",
            "ä",
            "x\u{200b}",
        ] {
            assert!(!variable_name_is_plain(name), "{name}");
        }
    }
}
