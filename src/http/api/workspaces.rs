//! ElevenLabs workspaces, agents and grants.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::caller::Permission;
use crate::http::{Answer, Asked, House, List, PathId, PathText, PlatformCaller, Problem, Sent, idempotent};
use crate::invalid::Invalid;
use crate::workspaces::{
    Agent, AgentDraft, Grant, GrantDraft, PermissionLevel, ResourceType, Workspace, WorkspaceDraft,
};

/// A workspace with the value of its tool header, which proves a workspace and opens nothing by itself.
#[derive(Debug, Serialize, ToSchema)]
struct WorkspaceWithHeader {
    #[serde(flatten)]
    workspace: Workspace,
    /// `vkw_…`: the value of the ElevenLabs secret behind the tools' header `X-Valetkey-Workspace`.
    #[schema(read_only)]
    tool_header_value: String,
}

impl From<Workspace> for WorkspaceWithHeader {
    fn from(workspace: Workspace) -> Self {
        Self { tool_header_value: workspace.tool_header_value.expose().to_owned(), workspace }
    }
}

/// A tenant's workspaces.
#[utoipa::path(
    get, path = "/v1/workspaces", tag = "workspaces", operation_id = "list_workspaces",
    responses((status = 200, description = "Every workspace", body = List<Workspace>)),
)]
pub(super) async fn workspaces(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
) -> Result<Json<List<Workspace>>, Problem> {
    Ok(Json(List { data: house.workspaces.workspace_list(&caller).await?, next_cursor: None }))
}

/// One workspace.
#[utoipa::path(
    get, path = "/v1/workspaces/{name}", tag = "workspaces", operation_id = "get_workspace",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "The workspace", body = Workspace)),
)]
pub(super) async fn workspace(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(name): PathText,
) -> Result<Json<Workspace>, Problem> {
    Ok(Json(house.workspaces.workspace(&caller, &name).await?))
}

/// Makes or changes a workspace.
#[utoipa::path(
    put, path = "/v1/workspaces/{name}", tag = "workspaces", operation_id = "put_workspace",
    params(("name" = String, Path, description = "Its name")),
    request_body = Option<WorkspaceDraft>,
    responses((status = 200, description = "The workspace with its tool header", body = WorkspaceWithHeader)),
)]
pub(super) async fn workspace_put(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(name): PathText,
    body: Sent<WorkspaceDraft>,
) -> Result<Response, Problem> {
    let (value, written) = body.open_or_default(&caller, Permission::WorkspacesWrite)?;
    let (rooms, who) = (house.clone(), caller.clone());
    idempotent(&house, &caller, written, async move {
        Answer::ok(&WorkspaceWithHeader::from(rooms.workspaces.workspace_put(&who, &name, value).await?))
    })
    .await
}

/// A tenant's agents.
#[utoipa::path(
    get, path = "/v1/agents", tag = "workspaces", operation_id = "list_agents",
    responses((status = 200, description = "Every agent", body = List<Agent>)),
)]
pub(super) async fn agents(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
) -> Result<Json<List<Agent>>, Problem> {
    Ok(Json(List { data: house.workspaces.agent_list(&caller).await?, next_cursor: None }))
}

/// One agent.
#[utoipa::path(
    get, path = "/v1/agents/{agent_id}", tag = "workspaces", operation_id = "get_agent",
    params(("agent_id" = String, Path, description = "ElevenLabs' id")),
    responses((status = 200, description = "The agent", body = Agent)),
)]
pub(super) async fn agent(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(agent_id): PathText,
) -> Result<Json<Agent>, Problem> {
    Ok(Json(house.workspaces.agent(&caller, &agent_id).await?))
}

/// Makes or replaces an agent.
#[utoipa::path(
    put, path = "/v1/agents/{agent_id}", tag = "workspaces", operation_id = "put_agent",
    params(("agent_id" = String, Path, description = "ElevenLabs' id")),
    request_body = AgentDraft,
    responses((status = 200, description = "The agent", body = Agent)),
)]
pub(super) async fn agent_put(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(agent_id): PathText,
    body: Sent<AgentDraft>,
) -> Result<Response, Problem> {
    let (value, written) = body.open(&caller, Permission::WorkspacesWrite)?;
    let (rooms, who) = (house.clone(), caller.clone());
    idempotent(&house, &caller, written, async move {
        Answer::ok(&rooms.workspaces.agent_put(&who, &agent_id, value).await?)
    })
    .await
}

/// Whose grants.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Whose {
    /// The tenant's own id of a user; absent means everybody.
    user: Option<String>,
}

/// Grants of a user, or of everybody.
#[utoipa::path(
    get, path = "/v1/grants", tag = "grants", operation_id = "list_grants",
    params(Whose),
    responses((status = 200, description = "Grants", body = List<Grant>)),
)]
pub(super) async fn grants(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    Asked(whose): Asked<Whose>,
) -> Result<Json<List<Grant>>, Problem> {
    Ok(Json(List { data: house.workspaces.grant_list(&caller, whose.user.as_deref()).await?, next_cursor: None }))
}

/// Gives a grant.
#[utoipa::path(
    put, path = "/v1/grants", tag = "grants", operation_id = "give_grant",
    request_body = GrantDraft,
    responses((status = 200, description = "The grant", body = Grant)),
)]
pub(super) async fn grant_give(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    body: Sent<GrantDraft>,
) -> Result<Response, Problem> {
    let (value, written) = body.open(&caller, Permission::GrantsWrite)?;
    let (rooms, who) = (house.clone(), caller.clone());
    idempotent(&house, &caller, written, async move { Answer::ok(&rooms.workspaces.grant_give(&who, value).await?) })
        .await
}

/// Which grant is meant: `user`, `resource_type` and `resource_id`, all in the query or all in the body.
#[derive(Debug, Default, Deserialize, ToSchema, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct GrantNamed {
    /// The tenant's own id of the user.
    user: Option<String>,
    /// `agent` or `voice`.
    #[schema(value_type = Option<ResourceType>)]
    #[param(value_type = Option<ResourceType>)]
    resource_type: Option<String>,
    /// ElevenLabs' id.
    resource_id: Option<String>,
    /// Not looked at: there is one grant for a thing, whatever its level.
    #[schema(value_type = Option<PermissionLevel>)]
    #[param(value_type = Option<PermissionLevel>)]
    permission_level: Option<String>,
}

impl GrantNamed {
    fn is_absent(&self) -> bool {
        self.user.is_none() && self.resource_type.is_none() && self.resource_id.is_none()
    }

    fn into_draft(self) -> Result<GrantDraft, Invalid> {
        let mut invalid = Invalid::default();
        let mut needed = |field: &str, text: Option<String>| {
            if text.is_none() {
                invalid.add(field, "is required, in the query or in the body");
            }
            text.unwrap_or_default()
        };
        let draft = GrantDraft {
            user: needed("user", self.user),
            resource_type: needed("resource_type", self.resource_type),
            resource_id: needed("resource_id", self.resource_id),
            permission_level: self.permission_level,
        };
        invalid.into_result().map(|()| draft)
    }
}

/// Takes a grant.
#[utoipa::path(
    delete, path = "/v1/grants", tag = "grants", operation_id = "take_grant",
    params(GrantNamed),
    request_body = Option<GrantNamed>,
    responses((status = 204, description = "It is gone")),
)]
pub(super) async fn grant_take(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    asked: Result<Asked<GrantNamed>, Problem>,
    body: Sent<GrantNamed>,
) -> Result<Response, Problem> {
    caller.require(Permission::GrantsWrite)?;
    let Asked(in_query) = asked?;
    let (named, written) = if in_query.is_absent() {
        body.open_or_default(&caller, Permission::GrantsWrite)?
    } else {
        (in_query, body.unread())
    };
    let draft = named.into_draft()?;
    let (rooms, who) = (house.clone(), caller.clone());
    idempotent(&house, &caller, written, async move {
        rooms.workspaces.grant_take(&who, &draft).await?;
        Ok(Answer::nothing())
    })
    .await
}
