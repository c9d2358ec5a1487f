//! The catalogue, and a tenant's OAuth clients.

use axum::Json;
use axum::extract::State;
use axum::response::Response;

use crate::caller::Permission;
use crate::connections::{Integration, IntegrationDraft, ProviderCard};
use crate::http::{Answer, House, List, NoBody, PathId, PathText, PlatformCaller, Problem, Sent, idempotent};

/// The catalogue with what each provider can do.
#[utoipa::path(
    get, path = "/v1/providers", tag = "integrations", operation_id = "list_providers",
    responses((status = 200, description = "Every provider", body = List<ProviderCard>)),
)]
pub(super) async fn providers(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
) -> Result<Json<List<ProviderCard>>, Problem> {
    Ok(Json(List { data: house.connections.provider_list(&caller).await?, next_cursor: None }))
}

/// A tenant's OAuth clients.
#[utoipa::path(
    get, path = "/v1/integrations", tag = "integrations", operation_id = "list_integrations",
    responses((status = 200, description = "Every integration", body = List<Integration>)),
)]
pub(super) async fn integrations(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
) -> Result<Json<List<Integration>>, Problem> {
    Ok(Json(List { data: house.connections.integration_list(&caller).await?, next_cursor: None }))
}

/// One OAuth client.
#[utoipa::path(
    get, path = "/v1/integrations/{provider}", tag = "integrations", operation_id = "get_integration",
    params(("provider" = String, Path, description = "A provider's id")),
    responses((status = 200, description = "The integration", body = Integration)),
)]
pub(super) async fn integration(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(provider): PathText,
) -> Result<Json<Integration>, Problem> {
    Ok(Json(house.connections.integration(&caller, &provider).await?))
}

/// Sets a tenant's OAuth client.
#[utoipa::path(
    put, path = "/v1/integrations/{provider}", tag = "integrations", operation_id = "put_integration",
    params(("provider" = String, Path, description = "A provider's id")),
    request_body = Option<IntegrationDraft>,
    responses((status = 200, description = "The integration with its `redirect_uri`", body = Integration)),
)]
pub(super) async fn integration_put(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(provider): PathText,
    body: Sent<IntegrationDraft>,
) -> Result<Response, Problem> {
    let (value, written) = body.open_or_default(&caller, Permission::IntegrationsWrite)?;
    let (rooms, who) = (house.clone(), caller.clone());
    idempotent(&house, &caller, written, async move {
        Answer::ok(&rooms.connections.integration_put(&who, &provider, value).await?)
    })
    .await
}

/// Deletes an OAuth client that no connection uses.
#[utoipa::path(
    delete, path = "/v1/integrations/{provider}", tag = "integrations", operation_id = "delete_integration",
    params(("provider" = String, Path, description = "A provider's id")),
    responses((status = 204, description = "It is gone")),
)]
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
