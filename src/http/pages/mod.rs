//! The pages for people.
//!
//! A page handler takes a proof ([`PageCaller`], [`EndUser`], [`Member`], or [`Anyone`] where none is needed), calls one
//! room, fills a view and gives back a [`Page`]. A handler that changes something is a POST and takes a [`PageForm`],
//! which checks the anti-forgery value and where the request comes from before the handler runs (OA-15).

mod activity;
mod admin;
mod assets;
mod browser;
mod callback;
mod cards;
mod connect;
mod connections;
mod form;
mod handshake_cookie;
mod hosted;
mod limits;
mod page;
mod portal;
mod results;
mod settings;
mod setup;
mod sign_in;
#[cfg(test)]
mod stories;
#[cfg(test)]
mod tests;
pub mod views;
mod visitor;

use axum::Router;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use tower_sessions::SessionManagerLayer;
use tower_sessions::cookie::SameSite;

pub use browser::Browser;
pub use form::{Nothing, PageForm};
pub(super) use limits::SignInLimits;
pub use page::Page;
pub use visitor::{Anyone, EndUser, Member, PageCaller};

use super::House;

/// The cookie of a session (WB-01). The prefix binds it to this host, to `/` and to Secure, which browsers also allow on plain
/// http to loopback.
pub const SESSION_COOKIE: &str = "__Host-valetkey";

/// Every page. Sessions exist here only: the API knows no cookies.
pub(super) fn router(house: &House) -> Router<House> {
    let sessions = SessionManagerLayer::new(house.accounts.session_store(house.session_life()))
        .with_name(SESSION_COOKIE)
        .with_path("/")
        .with_secure(true)
        .with_http_only(true)
        .with_same_site(SameSite::Lax);
    Router::new()
        .route("/", get(start))
        .route("/sign-in", get(sign_in::show).post(sign_in::submit))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/setup/{token}", get(setup::show).post(setup::submit))
        .route("/portal/{token}", get(portal::show).post(portal::enter))
        .route("/settings", get(settings::show))
        .route("/connections", get(connections::list))
        .route("/connections/{id}", get(connections::detail))
        .route("/connections/{id}/reconnect", post(connections::reconnect))
        .route("/connections/{id}/start", post(connections::start))
        .route("/connections/{id}/disconnect", post(connections::disconnect))
        .route("/connections/connect/{provider}", get(connect::show).post(connect::submit))
        .route("/connections/result/{id}", get(results::show))
        .route("/connect/{token}", get(hosted::show).post(hosted::submit))
        // Asking for the headers alone must not use a state up (OA-15).
        .route("/oauth/{provider}/callback/{integration}", get(callback::arrive).head(callback::only_get))
        .route("/activity", get(activity::show))
        .route("/admin", get(admin::show))
        .route("/admin/health", get(admin::health))
        .layer(sessions)
        .layer(axum::middleware::from_fn(browser::whole_removals))
        .route("/static/{file}", get(assets::file))
}

/// `/` leads to the viewer's first page.
async fn start(Anyone { frame, .. }: Anyone) -> Response {
    Redirect::to(frame.home()).into_response()
}
