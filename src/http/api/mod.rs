//! The platform API (API.md section 2). A handler is a function with `#[utoipa::path]`; `router` both routes and
//! documents it, so what is not in the document is not there.

mod api_keys;
mod audit;
mod connect_sessions;
mod connections;
mod conversations;
mod document;
mod integrations;
mod own;
mod portal;
mod users;
mod workspaces;

use axum::extract::DefaultBodyLimit;
use utoipa::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use super::{House, hooks, relay, tools};

/// The largest body of an import: 10,000 connections with tokens of more than 3,000 characters each.
const MOST_IMPORT_BODY: usize = 32 * 1024 * 1024;

/// The whole document: the platform API, the calls of tools and providers, and the relay.
pub(super) fn document() -> utoipa::openapi::OpenApi {
    let mut document = router().into_openapi();
    document.merge(tools::Calls::openapi());
    document.merge(hooks::Calls::openapi());
    document.merge(relay::Calls::openapi());
    document::complete(&mut document);
    document
}

/// Every call of the API with its documentation.
pub(super) fn router() -> OpenApiRouter<House> {
    OpenApiRouter::with_openapi(document::Document::openapi())
        .routes(routes!(own::me))
        .routes(routes!(own::settings, own::settings_change))
        .routes(routes!(users::users))
        .routes(routes!(users::user, users::user_put, users::user_erase))
        .routes(routes!(portal::portal_session_create))
        .routes(routes!(api_keys::api_keys, api_keys::api_key_create))
        .routes(routes!(api_keys::api_key_revoke))
        .routes(routes!(audit::audit))
        .routes(routes!(integrations::providers))
        .routes(routes!(integrations::integrations))
        .routes(routes!(integrations::integration, integrations::integration_put, integrations::integration_delete))
        .routes(routes!(connect_sessions::connect_session_create))
        .routes(routes!(connect_sessions::connect_session))
        .routes(routes!(connect_sessions::connect_session_confirm))
        .routes(routes!(connections::connections, connections::connection_create))
        .routes(routes!(connections::import).layer(DefaultBodyLimit::max(MOST_IMPORT_BODY)))
        .routes(routes!(connections::connection, connections::connection_change, connections::connection_delete))
        .routes(routes!(connections::token))
        .routes(routes!(connections::refresh))
        .routes(routes!(workspaces::workspaces))
        .routes(routes!(workspaces::workspace, workspaces::workspace_put))
        .routes(routes!(workspaces::agents))
        .routes(routes!(workspaces::agent, workspaces::agent_put))
        .routes(routes!(workspaces::grants, workspaces::grant_give, workspaces::grant_take))
        .routes(routes!(conversations::conversations, conversations::start))
        .routes(routes!(conversations::conversation))
        .routes(routes!(conversations::end))
}
