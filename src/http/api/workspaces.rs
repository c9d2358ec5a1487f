//! ElevenLabs workspaces, agents and grants.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::caller::Permission;
use crate::http::{
    Answer, Asked, House, List, NoBody, PathId, PathText, PlatformCaller, Problem, ProblemBody, Sent, idempotent,
};
use crate::workspaces::{Agent, AgentDraft, Grant, GrantDraft, Workspace, WorkspaceDraft};

/// A workspace with the value of its tool header, which proves a workspace and opens nothing by itself.
#[derive(Debug, Serialize)]
struct WithHeader {
    #[serde(flatten)]
    workspace: Workspace,
    tool_header_value: String,
}

impl From<Workspace> for WithHeader {
    fn from(workspace: Workspace) -> Self {
        Self { tool_header_value: workspace.tool_header_value.expose().to_owned(), workspace }
    }
}

/// A tenant's workspaces.
#[utoipa::path(get, path = "/v1/workspaces", tag = "workspaces", responses(
    (status = 200, description = "Every workspace", body = Object),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn workspaces(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
) -> Result<Json<List<Workspace>>, Problem> {
    Ok(Json(List { data: house.workspaces.workspace_list(&caller).await?, next_cursor: None }))
}

/// One workspace.
#[utoipa::path(get, path = "/v1/workspaces/{name}", tag = "workspaces", params(("name" = String, Path, description = "Its name")), responses(
    (status = 200, description = "The workspace", body = Object),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn workspace(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(name): PathText,
) -> Result<Json<Workspace>, Problem> {
    Ok(Json(house.workspaces.workspace(&caller, &name).await?))
}

/// Makes or changes a workspace.
#[utoipa::path(put, path = "/v1/workspaces/{name}", tag = "workspaces", params(("name" = String, Path, description = "Its name")),
    request_body(content = Object, description = "{api_key?, region?, user?}"), responses(
    (status = 200, description = "{id, tool_header_value, …}", body = Object),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn workspace_put(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(name): PathText,
    body: Sent<WorkspaceDraft>,
) -> Result<Response, Problem> {
    let (value, written) = body.open_or_default(&caller, Permission::WorkspacesWrite)?;
    let (rooms, who) = (house.clone(), caller.clone());
    idempotent(&house, &caller, written, async move {
        Answer::ok(&WithHeader::from(rooms.workspaces.workspace_put(&who, &name, value).await?))
    })
    .await
}

/// A tenant's agents.
#[utoipa::path(get, path = "/v1/agents", tag = "workspaces", responses(
    (status = 200, description = "Every agent", body = Object),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn agents(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
) -> Result<Json<List<Agent>>, Problem> {
    Ok(Json(List { data: house.workspaces.agent_list(&caller).await?, next_cursor: None }))
}

/// One agent.
#[utoipa::path(get, path = "/v1/agents/{agent_id}", tag = "workspaces", params(("agent_id" = String, Path, description = "ElevenLabs' id")), responses(
    (status = 200, description = "The agent", body = Object),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn agent(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(agent_id): PathText,
) -> Result<Json<Agent>, Problem> {
    Ok(Json(house.workspaces.agent(&caller, &agent_id).await?))
}

/// Makes or replaces an agent.
#[utoipa::path(put, path = "/v1/agents/{agent_id}", tag = "workspaces", params(("agent_id" = String, Path, description = "ElevenLabs' id")),
    request_body(content = Object, description = "{workspace, access?, needs[], client_variables[], broker{}, max_duration?}"), responses(
    (status = 200, description = "The agent", body = Object),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
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
#[derive(Debug, Default, Deserialize)]
pub(super) struct Whose {
    user: Option<String>,
}

/// Grants of a user, or of everybody.
#[utoipa::path(get, path = "/v1/grants", tag = "grants", params(("user" = Option<String>, Query, description = "The tenant's own id of a user")), responses(
    (status = 200, description = "Grants", body = Object),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn grants(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    Asked(whose): Asked<Whose>,
) -> Result<Json<List<Grant>>, Problem> {
    Ok(Json(List { data: house.workspaces.grant_list(&caller, whose.user.as_deref()).await?, next_cursor: None }))
}

/// Gives a grant.
#[utoipa::path(put, path = "/v1/grants", tag = "grants",
    request_body(content = Object, description = "{user, resource_type, resource_id, permission_level?}"), responses(
    (status = 200, description = "The grant", body = Object),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
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

/// Takes a grant.
#[utoipa::path(delete, path = "/v1/grants", tag = "grants", params(
    ("user" = String, Query, description = "The tenant's own id of a user"),
    ("resource_type" = String, Query, description = "agent or voice"),
    ("resource_id" = String, Query, description = "ElevenLabs' id"),
), responses(
    (status = 204, description = "It is gone"),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn grant_take(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    asked: Result<Asked<GrantDraft>, Problem>,
    NoBody(written): NoBody,
) -> Result<Response, Problem> {
    caller.require(Permission::GrantsWrite)?;
    let Asked(draft) = asked?;
    let (rooms, who) = (house.clone(), caller.clone());
    idempotent(&house, &caller, written, async move {
        rooms.workspaces.grant_take(&who, &draft).await?;
        Ok(Answer::nothing())
    })
    .await
}
