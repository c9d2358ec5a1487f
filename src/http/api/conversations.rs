//! Conversations: starting, looking, ending.

use axum::Json;
use axum::extract::State;
use axum::response::Response;

use crate::caller::Permission;
use crate::conversations::{ConversationView, StartRequest};
use crate::http::{
    Answer, House, List, NoBody, Paging, PathId, PlatformCaller, Problem, ProblemBody, Sent, idempotent,
};
use crate::ids::ConversationId;

const LIST: &str = "conversations";

/// Starts a conversation of an agent for one user.
#[utoipa::path(post, path = "/v1/conversations", tag = "conversations",
    request_body(content = Object, description = "{agent_id, user, channel?, connections?[], dynamic_variables?{}, min_ttl?}"), responses(
    (status = 201, description = "{id, ticket_expires_at, refresh_tool, connections[], signed_url, initiation?}", body = Object),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn start(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    body: Sent<StartRequest>,
) -> Result<Response, Problem> {
    let (value, written) = body.open(&caller, Permission::ConversationsWrite)?;
    let (rooms, who) = (house.clone(), caller.clone());
    idempotent(&house, &caller, written, async move { Answer::created(&rooms.conversations.start(&who, value).await?) })
        .await
}

/// Conversations, newest first.
#[utoipa::path(get, path = "/v1/conversations", tag = "conversations", params(
    ("limit" = Option<u8>, Query, description = "1 to 100, 50 by default"),
    ("cursor" = Option<String>, Query, description = "A next_cursor of this list"),
), responses(
    (status = 200, description = "A page of conversations", body = Object),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn conversations(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    paging: Paging,
) -> Result<Json<List<ConversationView>>, Problem> {
    let before = paging.after(&house, &caller, LIST)?;
    let list = house.conversations.conversation_list(&caller, &before, paging.ask()).await?;
    Ok(Json(paging.page((&house, &caller, LIST), list, |one| one.id.to_string(), |one| one)))
}

/// One conversation.
#[utoipa::path(get, path = "/v1/conversations/{id}", tag = "conversations", params(("id" = String, Path, description = "cnv_…")), responses(
    (status = 200, description = "The conversation", body = Object),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn conversation(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(id): PathId<ConversationId>,
) -> Result<Json<ConversationView>, Problem> {
    Ok(Json(house.conversations.conversation(&caller, &id).await?))
}

/// Ends a conversation, its ticket and its relay.
#[utoipa::path(post, path = "/v1/conversations/{id}/end", tag = "conversations", params(("id" = String, Path, description = "cnv_…")), responses(
    (status = 200, description = "The conversation", body = Object),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn end(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(id): PathId<ConversationId>,
    NoBody(written): NoBody,
) -> Result<Response, Problem> {
    let (rooms, who) = (house.clone(), caller.clone());
    idempotent(&house, &caller, written, async move { Answer::ok(&rooms.conversations.end(&who, &id).await?) }).await
}
