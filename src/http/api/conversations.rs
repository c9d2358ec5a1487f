//! Conversations: starting, looking, ending.

use axum::Json;
use axum::extract::State;
use axum::response::Response;

use crate::caller::Permission;
use crate::conversations::{ConversationView, StartRequest, Started};
use crate::http::{Answer, House, List, NoBody, PageQuery, Paging, PathId, PlatformCaller, Problem, Sent, idempotent};
use crate::ids::ConversationId;

const LIST: &str = "conversations";

/// Starts a conversation of an agent for one user.
#[utoipa::path(
    post, path = "/v1/conversations", tag = "conversations", operation_id = "start_conversation",
    request_body = StartRequest,
    responses((status = 201, description = "The conversation, and how to open it", body = Started)),
)]
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
#[utoipa::path(
    get, path = "/v1/conversations", tag = "conversations", operation_id = "list_conversations",
    params(PageQuery),
    responses((status = 200, description = "A page of conversations", body = List<ConversationView>)),
)]
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
#[utoipa::path(
    get, path = "/v1/conversations/{id}", tag = "conversations", operation_id = "get_conversation",
    params(("id" = ConversationId, Path)),
    responses((status = 200, description = "The conversation", body = ConversationView)),
)]
pub(super) async fn conversation(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(id): PathId<ConversationId>,
) -> Result<Json<ConversationView>, Problem> {
    Ok(Json(house.conversations.conversation(&caller, &id).await?))
}

/// Ends a conversation, its ticket and its relay.
#[utoipa::path(
    post, path = "/v1/conversations/{id}/end", tag = "conversations", operation_id = "end_conversation",
    params(("id" = ConversationId, Path)),
    responses((status = 200, description = "The conversation", body = ConversationView)),
)]
pub(super) async fn end(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(id): PathId<ConversationId>,
    NoBody(written): NoBody,
) -> Result<Response, Problem> {
    let (rooms, who) = (house.clone(), caller.clone());
    idempotent(&house, &caller, written, async move { Answer::ok(&rooms.conversations.end(&who, &id).await?) }).await
}
