//! The catalogue, and a tenant's OAuth clients.

use axum::Json;
use axum::extract::State;
use axum::response::Response;

use crate::caller::Permission;
use crate::connections::{Integration, IntegrationDraft, ProviderCard};
use crate::http::{
    Answer, House, List, NoBody, PathId, PathText, PlatformCaller, Problem, ProblemBody, Sent, idempotent,
};

/// The catalogue with what each provider can do.
#[utoipa::path(get, path = "/v1/providers", tag = "integrations", responses(
    (status = 200, description = "Every provider", body = Object),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn providers(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
) -> Result<Json<List<ProviderCard>>, Problem> {
    Ok(Json(List { data: house.connections.provider_list(&caller).await?, next_cursor: None }))
}

/// A tenant's OAuth clients.
#[utoipa::path(get, path = "/v1/integrations", tag = "integrations", responses(
    (status = 200, description = "Every integration", body = Object),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn integrations(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
) -> Result<Json<List<Integration>>, Problem> {
    Ok(Json(List { data: house.connections.integration_list(&caller).await?, next_cursor: None }))
}

/// One OAuth client.
#[utoipa::path(get, path = "/v1/integrations/{provider}", tag = "integrations", params(("provider" = String, Path, description = "A provider's id")), responses(
    (status = 200, description = "The integration", body = Object),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn integration(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(provider): PathText,
) -> Result<Json<Integration>, Problem> {
    Ok(Json(house.connections.integration(&caller, &provider).await?))
}

/// Sets a tenant's OAuth client.
#[utoipa::path(put, path = "/v1/integrations/{provider}", tag = "integrations", params(("provider" = String, Path, description = "A provider's id")),
    request_body(content = Object, description = "{client_id, client_secret, scopes[], user_scopes[]?, bot_token?}"), responses(
    (status = 200, description = "The integration with its redirect_uri", body = Object),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn integration_put(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(provider): PathText,
    body: Sent<IntegrationDraft>,
) -> Result<Response, Problem> {
    let (value, written) = body.open(&caller, Permission::IntegrationsWrite)?;
    let (rooms, who) = (house.clone(), caller.clone());
    idempotent(&house, &caller, written, async move {
        Answer::ok(&rooms.connections.integration_put(&who, &provider, value).await?)
    })
    .await
}

/// Deletes an OAuth client that no connection uses.
#[utoipa::path(delete, path = "/v1/integrations/{provider}", tag = "integrations", params(("provider" = String, Path, description = "A provider's id")), responses(
    (status = 204, description = "It is gone"),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn integration_delete(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(provider): PathText,
    NoBody(written): NoBody,
) -> Result<Response, Problem> {
    let (rooms, who) = (house.clone(), caller.clone());
    idempotent(&house, &caller, written, async move {
        rooms.connections.integration_delete(&who, &provider).await?;
        Ok(Answer::nothing())
    })
    .await
}
