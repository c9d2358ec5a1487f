//! The shed in the garden: a pretend Google, Slack and Telegram for the demo and the tests.
//!
//! Each provider is a strict little HTTP server of its own on `127.0.0.1`, with the manners that
//! `reference/providers.md` (parts A to C) describes, not those our own descriptors assume. A fourth
//! listener, the control, injects faults, expires and revokes tokens and tells what happened
//! ([`control`] lists its calls). [`person::Person`] is somebody in a browser who clicks consent.
//!
//! The sandbox speaks HTTP only and knows nothing of the house: it imports stones (`clock`) and crates.
//! Its time is the wall time of the [`Surroundings`] it was given, so a test clock moves it along with
//! the house. Every secret it makes contains the marker [`CANARY`], so that a leak can be searched for.

mod consent;
pub mod control;
pub mod elevenlabs;
mod faults;
mod google;
mod google_api;
mod google_identity;
mod google_tokens;
pub mod html;
mod oauth;
pub mod person;
pub mod platform;
mod serve;
mod slack;
mod slack_api;
mod slack_tokens;
mod state;
mod telegram;
mod telegram_login;
#[cfg(test)]
mod testing;

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tower::ServiceExt;
use url::Url;

use crate::clock::Surroundings;
use crate::secret::Secret;

pub use state::{ACCOUNTS, Account, CANARY, Issued, Provider};
use state::{Lives, Shared};

/// An OAuth client as somebody registered it at a provider.
#[derive(Debug)]
pub struct ClientRegistration {
    /// The public name of the client.
    pub client_id: String,
    /// What the client proves itself with. Put [`CANARY`] into it if leaks shall be found.
    pub client_secret: Secret,
    /// Where codes may be sent. Google compares them exactly, Slack also accepts sub-paths.
    pub redirect_uris: Vec<String>,
}

/// How a sandbox is to behave.
#[derive(Debug)]
pub struct SandboxOptions {
    /// Clock and randomness, shared with the house under test.
    pub around: Surroundings,
    /// A client registered at the pretend Google from the start; more by `POST /clients`.
    pub google: Option<ClientRegistration>,
    /// A client registered at the pretend Slack from the start; more by `POST /clients`.
    pub slack: Option<ClientRegistration>,
    /// How long Google access tokens live. Google itself: 3600 s.
    pub google_access_token_life: Duration,
    /// How long rotating Slack access tokens live. Slack itself: 43 200 s (B.4).
    pub slack_access_token_life: Duration,
    /// Whether the Slack app rotates its tokens (B.4: optional per app).
    pub slack_rotation: bool,
}

impl SandboxOptions {
    /// The providers' own lifetimes, Slack with rotation, no client registered.
    #[must_use]
    pub fn new(around: Surroundings) -> Self {
        Self {
            around,
            google: None,
            slack: None,
            google_access_token_life: Duration::from_secs(3600),
            slack_access_token_life: Duration::from_secs(43_200),
            slack_rotation: true,
        }
    }
}

/// The sandbox did not start, or did not understand.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// No loopback port could be had.
    #[error("the sandbox cannot listen on the loopback address")]
    Listen(#[source] std::io::Error),
    /// The signing key that is built in cannot be used.
    #[error("the sandbox's signing key cannot be used")]
    SigningKey(#[source] jsonwebtoken::errors::Error),
    /// [`Sandbox::tell`] or [`Sandbox::ask`] was refused; the text says why.
    #[error("the sandbox's control refused: {0}")]
    Refused(String),
}

/// The running pretend providers. They stop when this is dropped.
pub struct Sandbox {
    /// Base of the pretend Google: `http://127.0.0.1:PORT/`.
    pub google: Url,
    /// Base of the pretend Slack.
    pub slack: Url,
    /// Base of the pretend Telegram Bot API.
    pub telegram: Url,
    /// Base of the control listener; see [`control`].
    pub control: Url,
    shared: Shared,
    control_router: Router,
    listeners: Vec<AbortHandle>,
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox").field("control", &self.control.as_str()).finish_non_exhaustive()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        for listener in &self.listeners {
            listener.abort();
        }
    }
}

impl Sandbox {
    /// Opens four loopback listeners on ports the system chooses and serves until dropped.
    ///
    /// # Errors
    /// When a port or the built-in signing key cannot be had.
    #[expect(clippy::unused_async, reason = "listening needs the runtime, and an async function says so")]
    pub async fn start(options: SandboxOptions) -> Result<Self, SandboxError> {
        let (google, at_google) = listen()?;
        let (slack, at_slack) = listen()?;
        let (telegram, at_telegram) = listen()?;
        let (control, at_control) = listen()?;
        let lives = Lives { google: options.google_access_token_life, slack: options.slack_access_token_life };
        let signing = google_identity::Signing::load().map_err(SandboxError::SigningKey)?;
        let urls = (google.clone(), telegram.clone());
        let shared = Shared::new(options.around, lives, options.slack_rotation, urls, signing);
        for (provider, client) in [(Provider::Google, options.google), (Provider::Slack, options.slack)] {
            if let Some(client) = client {
                shared.world().register(provider, client);
            }
        }
        let control_router = control::router(shared.clone());
        let listeners = vec![
            serve::serve(at_google, google::router(shared.clone())),
            serve::serve(at_slack, slack::router(shared.clone())),
            serve::serve(at_telegram, telegram::router(shared.clone())),
            serve::serve(at_control, control_router.clone()),
        ];
        Ok(Self { google, slack, telegram, control, shared, control_router, listeners })
    }

    /// The settings that point the house at this sandbox, as `VALETKEY_…` names and values (API.md section 1).
    #[must_use]
    pub fn settings(&self) -> Vec<(String, String)> {
        let (google, slack, telegram) = (self.google.as_str(), self.slack.as_str(), self.telegram.as_str());
        let issuer = |base: &str| base.trim_end_matches('/').to_owned();
        let named = |provider: &str, pairs: Vec<(&str, String)>| {
            pairs
                .into_iter()
                .map(|(name, value)| (format!("VALETKEY_PROVIDERS__{provider}__{name}"), value))
                .collect::<Vec<_>>()
        };
        let mut settings = named(
            "GOOGLE",
            vec![
                ("AUTHORIZE_URL", format!("{google}o/oauth2/v2/auth")),
                ("TOKEN_URL", format!("{google}token")),
                ("REVOKE_URL", format!("{google}revoke")),
                ("USERINFO_URL", format!("{google}v1/userinfo")),
                ("JWKS_URL", format!("{google}oauth2/v3/certs")),
                ("ISSUER", issuer(google)),
                ("API_BASE_URL", google.to_owned()),
            ],
        );
        settings.extend(named(
            "SLACK",
            vec![
                ("AUTHORIZE_URL", format!("{slack}oauth/v2/authorize")),
                ("TOKEN_URL", format!("{slack}api/oauth.v2.access")),
                ("REVOKE_URL", format!("{slack}api/auth.revoke")),
                ("USERINFO_URL", format!("{slack}api/auth.test")),
                ("API_BASE_URL", format!("{slack}api/")),
            ],
        ));
        settings.extend(named(
            "TELEGRAM",
            vec![
                ("AUTHORIZE_URL", format!("{telegram}oauth/auth")),
                ("TOKEN_URL", format!("{telegram}oauth/token")),
                ("JWKS_URL", format!("{telegram}oauth/.well-known/jwks.json")),
                ("ISSUER", format!("{telegram}oauth")),
                ("API_BASE_URL", telegram.to_owned()),
            ],
        ));
        settings.push(("VALETKEY_OUTBOUND_ALLOW".to_owned(), self.hosts().join(",")));
        settings
    }

    /// `host:port` of the three pretend providers, in the order Google, Slack, Telegram.
    #[must_use]
    pub fn hosts(&self) -> Vec<String> {
        [&self.google, &self.slack, &self.telegram].map(|url| url.authority().to_owned()).to_vec()
    }

    /// Every secret made or registered so far, for leak searches. The same as `GET /issued`, without waiting.
    #[must_use]
    pub fn issued(&self) -> Vec<Issued> {
        self.shared.world().issued.clone()
    }

    /// A control call in the same process: `POST path` with a JSON body.
    ///
    /// # Errors
    /// [`SandboxError::Refused`] when the control answers anything but 200.
    pub async fn tell(&self, path: &str, body: &Value) -> Result<Value, SandboxError> {
        let request = Request::post(path).header("content-type", "application/json").body(Body::from(body.to_string()));
        self.command(request).await
    }

    /// A control question in the same process: `GET path`.
    ///
    /// # Errors
    /// [`SandboxError::Refused`] when the control answers anything but 200.
    pub async fn ask(&self, path: &str) -> Result<Value, SandboxError> {
        self.command(Request::get(path).body(Body::empty())).await
    }

    async fn command(&self, request: http::Result<Request<Body>>) -> Result<Value, SandboxError> {
        let refused = |text: &dyn std::fmt::Display| SandboxError::Refused(text.to_string());
        let request = request.map_err(|error| refused(&error))?;
        let answer = self.control_router.clone().oneshot(request).await.map_err(|never| refused(&never))?;
        let status = answer.status();
        let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.map_err(|error| refused(&error))?;
        if !status.is_success() {
            return Err(refused(&String::from_utf8_lossy(&body)));
        }
        serde_json::from_slice(&body).map_err(|error| refused(&error))
    }
}

fn listen() -> Result<(Url, TcpListener), SandboxError> {
    let socket = std::net::TcpListener::bind(("127.0.0.1", 0)).map_err(SandboxError::Listen)?;
    socket.set_nonblocking(true).map_err(SandboxError::Listen)?;
    let address = socket.local_addr().map_err(SandboxError::Listen)?;
    let url = Url::parse(&format!("http://{address}/"))
        .map_err(|error| SandboxError::Listen(std::io::Error::other(error)))?;
    Ok((url, TcpListener::from_std(socket).map_err(SandboxError::Listen)?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::testing::Street;

    #[tokio::test]
    async fn the_settings_name_every_endpoint_and_allow_every_host() {
        let street = Street::start().await;
        let settings = street.sandbox.settings();
        let value = |name: &str| settings.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).expect(name);
        let hosts = value("VALETKEY_OUTBOUND_ALLOW");
        for (name, url) in settings.iter().filter(|(name, _)| name.ends_with("URL")) {
            let url: url::Url = url.parse().expect("a full URL");
            assert!(hosts.split(',').any(|host| host == url.authority()), "{name}");
        }
        assert!(!value("VALETKEY_PROVIDERS__GOOGLE__ISSUER").ends_with('/'));
    }

    #[tokio::test]
    async fn a_dropped_sandbox_no_longer_answers() {
        let street = Street::start().await;
        let (http, url) = (street.http.clone(), street.sandbox.google.clone());
        assert!(http.get(url.clone()).send().await.is_ok());
        drop(street);
        let gone = async {
            while http.get(url.clone()).send().await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        crate::clock::deadline(std::time::Duration::from_secs(5), gone).await.expect("the listener is gone");
    }

    #[tokio::test]
    async fn an_unknown_control_call_is_refused() {
        let street = Street::start().await;
        assert!(street.sandbox.tell("/nothing", &json!({})).await.is_err());
        assert!(street.sandbox.tell("/faults", &json!({"provider": "google", "name": "gremlin"})).await.is_err());
    }
}
