//! The doors: parse, call one room, render. Nothing here knows a table, a key or a provider.
//!
//! Every request passes `entrance`, which gives it an id, finds the real peer, keeps what is too large out, turns
//! every [`problem::Problem`] into JSON or a page, and puts the security headers on. A proof of who asks is an argument
//! of the handler ([`extract::PlatformCaller`], [`pages::PageCaller`]), so a handler without one is open on purpose.
//!
//! How to add things:
//! - a room: a field in [`HouseParts`]; the [`House`] derefs to it, so handlers say `house.rooms_name`.
//! - an API call: a function with `#[utoipa::path]` in `api/`, and its name in `api::router`.
//! - a page: a handler in `pages/` and a route in `pages::router`.
//! - an error of a room: `impl From<RoomError> for Problem` in `problem/rooms.rs`.

pub mod api;
mod body;
mod entrance;
mod extract;
mod headers;
mod hooks;
mod idempotent;
mod objects;
mod ops;
pub mod pages;
mod peer;
mod problem;
mod relay;
mod strict;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tools;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use ipnet::IpNet;
use metrics_exporter_prometheus::PrometheusHandle;
use url::Url;

pub use body::{JsonBody, NoBody, Sent};
pub use entrance::{AsItIs, RequestContext};
pub use extract::{Asked, List, PageQuery, Paging, PathId, PathText, PlatformCaller};
pub use idempotent::{Answer, Written, idempotent};
pub use problem::{Code, Problem, ProblemBody};

use crate::accounts::Accounts;
use crate::audit::Audit;
use crate::clock::Surroundings;
use crate::config::Ttl;
use crate::connections::Connections;
use crate::conversations::Conversations;
use crate::credentials::Credentials;
use crate::health::Health;
use crate::keys::Cursors;
use crate::workspaces::Workspaces;
use pages::SignInLimits;

/// The largest body a door takes unless its route says otherwise (AP-08).
pub const MOST_BODY: usize = 64 * 1024;

/// What the doors need; `app` fills it.
#[derive(Debug)]
pub struct HouseParts {
    /// Tenants, people, keys, users.
    pub accounts: Accounts,
    /// External accounts.
    pub connections: Connections,
    /// Their tokens.
    pub credentials: Credentials,
    /// ElevenLabs workspaces and agents.
    pub workspaces: Workspaces,
    /// Runs of agents and what their tools may do.
    pub conversations: Conversations,
    /// The book, for denials.
    pub audit: Audit,
    /// Writes and reads paging cursors.
    pub cursors: Cursors,
    /// Clock and randomness.
    pub around: Surroundings,
    /// What keeps this node from being ready.
    pub health: Health,
    /// Renders the metrics.
    pub metrics: PrometheusHandle,
    /// The only source of links that point at us.
    pub public_url: Url,
    /// Lifetimes.
    pub ttl: Ttl,
    /// Networks whose forwarding headers count (AP-06), as the setting has them.
    pub trusted_proxies: Vec<String>,
}

/// Why the doors cannot be hung.
#[derive(Debug, thiserror::Error)]
pub enum HouseError {
    /// An entry of `trusted_proxies` is no network.
    #[error("VALETKEY_TRUSTED_PROXIES: `{0}` is not an IP address or network such as 10.0.0.0/8")]
    TrustedProxy(String),
}

/// The state of every handler. Clones are cheap; fields of [`HouseParts`] are reached through it.
#[derive(Clone, Debug)]
pub struct House(Arc<Inside>);

#[derive(Debug)]
struct Inside {
    parts: HouseParts,
    trusted_proxies: Vec<IpNet>,
    sign_in_limits: SignInLimits,
}

impl House {
    /// Puts the parts together.
    ///
    /// # Errors
    /// [`HouseError`] names the setting that does not fit.
    pub fn new(parts: HouseParts) -> Result<Self, HouseError> {
        let parse = |text: &String| peer::network(text).ok_or_else(|| HouseError::TrustedProxy(text.clone()));
        let trusted_proxies = parts.trusted_proxies.iter().map(parse).collect::<Result<_, _>>()?;
        let sign_in_limits = SignInLimits::new(&parts.around);
        Ok(Self(Arc::new(Inside { parts, trusted_proxies, sign_in_limits })))
    }

    /// An absolute link to a page or call of ours. `path` begins without a slash.
    #[must_use]
    pub fn link(&self, path: &str) -> String {
        format!("{}/{path}", self.public_url.as_str().trim_end_matches('/'))
    }

    /// Our own origin, as browsers write it.
    #[must_use]
    pub fn origin(&self) -> String {
        self.public_url.origin().ascii_serialization()
    }

    pub(crate) fn session_life(&self) -> Duration {
        Duration::from_secs(self.ttl.session)
    }

    fn trusted_proxies(&self) -> &[IpNet] {
        &self.0.trusted_proxies
    }

    fn sign_in_limits(&self) -> &SignInLimits {
        &self.0.sign_in_limits
    }
}

impl Deref for House {
    type Target = HouseParts;

    fn deref(&self) -> &HouseParts {
        &self.0.parts
    }
}

/// Everything on the public listener. The server must hand in `ConnectInfo<SocketAddr>`, else no peer is known and keys
/// that are limited to addresses are refused.
pub fn public_router(house: House) -> Router {
    let (api, _) = api::router().split_for_parts();
    let ours = Router::new().merge(pages::router(&house)).merge(tools::router()).merge(hooks::router());
    finish(ours.merge(relay::router()).merge(api), house)
}

/// Health and metrics. Never on a public address.
pub fn admin_router(house: House) -> Router {
    finish(ops::router(), house)
}

/// The OpenAPI 3.1 document of everything that programs call.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    api::document()
}

fn finish(router: Router<House>, house: House) -> Router {
    router
        .fallback(entrance::nothing_here)
        .layer(DefaultBodyLimit::max(MOST_BODY))
        .layer(axum::middleware::from_fn_with_state(house.clone(), entrance::entrance))
        .with_state(house)
}
