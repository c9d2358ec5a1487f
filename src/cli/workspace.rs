//! `valetkey workspace set` and `share`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::output::Output;
use super::session::{Session, operator_for, read_secret};
use super::trouble::Trouble;
use crate::caller::Caller;
use crate::ids::TenantId;
use crate::workspaces::{WorkspaceDraft, WorkspacesError};

const SET: &str = "\
The answer's tool header is the value of the workspace secret at ElevenLabs that every tool sends as
X-Valetkey-Workspace. Without --tenant the workspace is the operator's, whose agents are shared one by one.

Examples:
  valetkey workspace set main --tenant acme --api-key-file elevenlabs.key
  valetkey workspace set shared --region eu --api-key-file - < elevenlabs.key";

const SHARE: &str = "\
Examples:
  valetkey workspace share shared --tenant acme --agent agent_0123";

/// Set ElevenLabs workspaces, and share the operator's agents
#[derive(Debug, Subcommand)]
pub(super) enum Workspace {
    Set(Set),
    Share(Share),
}

/// Set a workspace and the API key in its active slot
#[derive(Debug, Args)]
#[command(after_help = SET)]
pub(super) struct Set {
    /// Its name, unique in its tenant
    name: String,
    /// Name or id of the tenant; the operator's own workspace without it
    #[arg(long)]
    tenant: Option<String>,
    /// File with the ElevenLabs API key, or - for stdin; without it the one that is stored stays
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// default, us, eu, in or sg
    #[arg(long)]
    region: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// Let one tenant use one agent of an operator's workspace
#[derive(Debug, Args)]
#[command(after_help = SHARE)]
pub(super) struct Share {
    /// Name of the operator's workspace
    name: String,
    /// Name or id of the tenant
    #[arg(long)]
    tenant: String,
    /// ElevenLabs' id of the agent
    #[arg(long)]
    agent: String,
    #[command(flatten)]
    output: Output,
}

impl Workspace {
    pub(super) async fn run(self, session: &Session) -> Result<(), Trouble> {
        match self {
            Self::Set(command) => command.run(session).await,
            Self::Share(command) => command.run(session).await,
        }
    }
}

impl Set {
    async fn run(self, session: &Session) -> Result<(), Trouble> {
        let api_key = self.api_key_file.as_ref().map(|path| read_secret("--api-key-file", path)).transpose()?;
        let draft = WorkspaceDraft { api_key, region: self.region.clone(), user: None };
        session
            .in_the_house_that_is_found(|rooms| async move {
                let caller = match &self.tenant {
                    Some(tenant) => operator_for(&rooms, tenant).await?,
                    None => Caller::operator(TenantId::installation()),
                };
                let workspace = rooms.workspaces.workspace_put(&caller, &self.name, draft).await?;
                let header = workspace.tool_header_value.expose();
                let answer = json!({
                    "id": workspace.id,
                    "tool_header_value": header,
                    "initiation_url": workspace.initiation_url,
                    "events_url": workspace.events_url,
                });
                let text = format!(
                    "Workspace {}\nTool header: {header}\nInitiation URL: {}\nEvents URL: {}",
                    workspace.id, workspace.initiation_url, workspace.events_url
                );
                self.output.say(&answer, &text)
            })
            .await
    }
}

impl Share {
    async fn run(self, session: &Session) -> Result<(), Trouble> {
        session
            .in_the_house(|rooms| async move {
                let tenant = operator_for(&rooms, &self.tenant).await?;
                rooms.workspaces.workspace_share(&self.name, tenant.tenant(), &self.agent).await.map_err(|error| {
                    match error {
                        WorkspacesError::NotFound(_) => {
                            Trouble::new(format!("the operator has no workspace named {:?}", self.name))
                                .next("set it with `valetkey workspace set`, without --tenant")
                        }
                        other => other.into(),
                    }
                })?;
                let answer = json!({ "workspace": self.name, "tenant": tenant.tenant(), "agent": self.agent });
                self.output.say(&answer, &format!("{} may use {} of workspace {}", self.tenant, self.agent, self.name))
            })
            .await
    }
}
