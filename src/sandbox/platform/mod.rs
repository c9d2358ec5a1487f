//! A pretend platform: the product whose users talk to a voice agent. It has what every customer of the vault has: a
//! back end with a platform key, a page for its users, and an agent at ElevenLabs. It knows the vault by HTTP only.
//!
//! | file | story |
//! | --- | --- |
//! | `wire` | how it speaks to others |
//! | `agent` | its agent and the agent's tools |
//! | `talk` | a conversation over a WebSocket |
//! | `page` | the page on which one clicks through the whole job |

mod agent;
mod page;
mod talk;
mod wire;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use url::Url;

pub use agent::GOOGLE_VARIABLE;
pub use talk::Talk;
use wire::Neighbour;

use super::{CANARY, serve};
use crate::clock::{Surroundings, deadline, pause};
use crate::secret::Secret;

/// The one user of the platform, by the platform's own id.
pub const USER: &str = "ada";
/// How the sandbox's providers know the same person.
pub const ACCOUNT: &str = "ada@example.com";
/// The platform's name for its ElevenLabs workspace.
const WORKSPACE: &str = "main";
/// How often a change is looked for, and how long at most.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOK_FOR: Duration = Duration::from_secs(15);

/// Something did not go as the platform hoped.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// The port is taken, or not ours.
    #[error("the platform's page cannot listen there")]
    Listen(#[source] std::io::Error),
    /// Nobody answered.
    #[error("{0} did not answer")]
    NoAnswer(&'static str),
    /// An answer other than 2xx.
    #[error("{who} answered {status} to {what}: {why}")]
    Refused {
        /// Who.
        who: &'static str,
        /// Method and path, without query.
        what: String,
        /// The HTTP status.
        status: u16,
        /// In the neighbour's words.
        why: String,
    },
    /// An answer lacked what it must have.
    #[error("an answer of the vault has no `{0}`")]
    Lacks(&'static str),
    /// A conversation ended or never began.
    #[error("the conversation failed: {0}")]
    Talk(String),
    /// What was waited for did not happen.
    #[error("{0} did not happen in time")]
    TooLate(&'static str),
}

/// A place for the platform, before it knows anybody.
#[derive(Debug)]
pub struct Site {
    /// The page: `http://127.0.0.1:PORT/`.
    pub base: Url,
    listener: TcpListener,
}

impl Site {
    /// Takes a loopback port; 0 takes any.
    ///
    /// # Errors
    /// [`PlatformError::Listen`] when it is taken.
    pub async fn take(port: u16) -> Result<Self, PlatformError> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let listener = TcpListener::bind(address).await.map_err(PlatformError::Listen)?;
        let address = listener.local_addr().map_err(PlatformError::Listen)?;
        let base = Url::parse(&format!("http://{address}/"))
            .map_err(|error| PlatformError::Listen(std::io::Error::other(error)))?;
        Ok(Self { base, listener })
    }

    /// Where connect links may send the browser back to; to be registered with the vault.
    #[must_use]
    pub fn return_url(&self) -> String {
        format!("{}connected", self.base)
    }

    /// The origin of the page; to be registered with the vault.
    #[must_use]
    pub fn origin(&self) -> String {
        self.base.origin().ascii_serialization()
    }
}

/// Whom the platform knows.
#[derive(Debug)]
pub struct Acquaintances {
    /// Clock and randomness.
    pub around: Surroundings,
    /// The vault's public address.
    pub vault: Url,
    /// The platform's key at the vault.
    pub key: Secret,
    /// The sandbox's Google, which tools call directly.
    pub google: Url,
    /// The sandbox's control.
    pub control: Url,
    /// The ElevenLabs stand-in.
    pub elevenlabs: Url,
    /// The platform's key there.
    pub elevenlabs_key: Secret,
    /// Whether the refresh tool is set up as it must be; false shows what the vault does otherwise.
    pub sanitized: bool,
}

/// A running platform. Its page closes when it is dropped.
#[derive(Debug)]
pub struct Platform {
    /// The page.
    pub base: Url,
    inside: Arc<Inside>,
    page: AbortHandle,
}

#[derive(Debug)]
struct Inside {
    base: Url,
    around: Surroundings,
    vault: Neighbour,
    control: Neighbour,
    elevenlabs: Neighbour,
    elevenlabs_key: Secret,
    google: Url,
    sanitized: bool,
    memory: Mutex<Memory>,
}

/// What the platform remembers.
#[derive(Debug, Default)]
struct Memory {
    agent_id: String,
    /// The conversation that the page shows, by the vault's id.
    conversation: Option<String>,
    start_link: Option<String>,
    notice: Option<String>,
    /// Capabilities that must stay where they are: what and the secret.
    capabilities: Vec<(&'static str, Secret)>,
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.page.abort();
    }
}

impl Platform {
    /// Opens the page. Nothing is set up yet; see [`Platform::prepare`].
    ///
    /// # Errors
    /// When no HTTP client can be built.
    pub fn open(site: Site, known: Acquaintances) -> Result<Self, PlatformError> {
        let key = Secret::new(format!("Bearer {}", known.key.expose()));
        let vault = Neighbour::new("the vault", known.vault, Some(("authorization", key)))?;
        let control = Neighbour::new("the sandbox", known.control, None)?;
        let proof = Some(("xi-api-key", known.elevenlabs_key.duplicate()));
        let elevenlabs = Neighbour::new("ElevenLabs", known.elevenlabs, proof)?;
        let memory = Memory { capabilities: vec![("platform key", known.key)], ..Memory::default() };
        let inside = Arc::new(Inside {
            base: site.base.clone(),
            around: known.around,
            vault,
            control,
            elevenlabs,
            elevenlabs_key: known.elevenlabs_key,
            google: known.google,
            sanitized: known.sanitized,
            memory: Mutex::new(memory),
        });
        let page = serve::serve(site.listener, page::router(inside.clone()));
        Ok(Self { base: site.base, inside, page })
    }

    /// Registers OAuth clients at the providers and sets them at the vault; makes workspace secret, tools and agent at
    /// ElevenLabs and tells the vault about them.
    ///
    /// # Errors
    /// As [`PlatformError`].
    pub async fn prepare(&self) -> Result<(), PlatformError> {
        let inside = &self.inside;
        inside.integrate("google", json!({"scopes": [
            "https://www.googleapis.com/auth/gmail.readonly", "https://www.googleapis.com/auth/calendar.readonly",
        ]})).await?;
        inside.integrate("slack", json!({"scopes": [], "user_scopes": ["chat:write", "channels:read"]})).await?;
        inside.integrate_bot().await?;
        inside.vault.put(&format!("v1/users/{USER}"), json!({"display_name": "Ada", "email": ACCOUNT})).await?;
        inside.provision().await
    }

    /// Makes an agent at an ElevenLabs stand-in that anybody may talk to; gives its socket's address.
    ///
    /// # Errors
    /// As [`PlatformError`].
    pub async fn open_agent(base: &Url, api_key: &str, agent: Value) -> Result<String, PlatformError> {
        let stand_in = Neighbour::new("ElevenLabs", base.clone(), Some(("xi-api-key", Secret::new(api_key))))?;
        let made = stand_in.post("v1/convai/agents/create", agent).await?;
        let agent_id = text(&made, "agent_id")?;
        Ok(format!("ws://{}/v1/convai/conversation?agent_id={agent_id}", base.authority()))
    }

    /// A one-time link with which the user connects `provider`: its session's id and the link.
    ///
    /// # Errors
    /// As [`PlatformError`].
    pub async fn connect(&self, provider: &str) -> Result<(String, String), PlatformError> {
        self.inside.connect(provider, "redirect").await
    }

    /// How a connect session stands.
    ///
    /// # Errors
    /// As [`PlatformError`].
    pub async fn connect_session(&self, id: &str) -> Result<Value, PlatformError> {
        self.inside.vault.get(&format!("v1/connect-sessions/{id}")).await
    }

    /// Makes a Telegram connection with the platform's bot; gives the link on which the user presses Start.
    ///
    /// # Errors
    /// As [`PlatformError`].
    pub async fn connect_telegram(&self) -> Result<String, PlatformError> {
        self.inside.connect_telegram().await
    }

    /// Plays the person in Telegram who opens the link and presses Start.
    ///
    /// # Errors
    /// As [`PlatformError`].
    pub async fn press_start(&self, link: &str) -> Result<(), PlatformError> {
        self.inside.press_start(link).await
    }

    /// Waits until the user's connection to `provider` is active; gives it.
    ///
    /// # Errors
    /// [`PlatformError::TooLate`].
    pub async fn connected(&self, provider: &str) -> Result<Value, PlatformError> {
        let found = async {
            loop {
                let list = self.inside.connections().await?;
                let active = |one: &Value| one["provider"] == provider && one["status"] == "active";
                if let Some(connection) = list.into_iter().find(active) {
                    return Ok(connection);
                }
                pause(LOOK_EVERY).await;
            }
        };
        deadline(LOOK_FOR, found).await.map_err(|_| PlatformError::TooLate("the connection"))?
    }

    /// Starts a conversation for the user on `channel` (`relay` or `websocket`); gives the vault's answer.
    ///
    /// # Errors
    /// As [`PlatformError`].
    pub async fn start(&self, channel: &str) -> Result<Value, PlatformError> {
        self.inside.start(channel).await
    }

    /// Ends a conversation.
    ///
    /// # Errors
    /// As [`PlatformError`].
    pub async fn end(&self, conversation: &str) -> Result<Value, PlatformError> {
        self.inside.vault.call_end(conversation).await
    }

    /// Makes every access token that `provider` has issued expire.
    ///
    /// # Errors
    /// As [`PlatformError`].
    pub async fn expire(&self, provider: &str) -> Result<(), PlatformError> {
        self.inside.control.post("expire", json!({"provider": provider})).await.map(drop)
    }

    /// Has the vault refresh a connection's tokens now.
    ///
    /// # Errors
    /// As [`PlatformError`].
    pub async fn refresh(&self, connection: &str) -> Result<Value, PlatformError> {
        self.inside.vault.post(&format!("v1/connections/{connection}/refresh"), json!({})).await
    }

    /// Disconnects a connection: the vault revokes it at the provider, then deletes it.
    ///
    /// # Errors
    /// As [`PlatformError`].
    pub async fn disconnect(&self, connection: &str) -> Result<Value, PlatformError> {
        self.inside.vault.delete(&format!("v1/connections/{connection}")).await
    }

    /// What was sent through the pretend Slack and Telegram: `{messages: […]}`.
    ///
    /// # Errors
    /// As [`PlatformError`].
    pub async fn messages(&self) -> Result<Value, PlatformError> {
        self.inside.control.get("messages").await
    }

    /// Every capability that the platform was given, for leak searches: what it is, and the secret.
    #[must_use]
    pub fn capabilities(&self) -> Vec<(&'static str, Secret)> {
        self.inside.memory().capabilities.iter().map(|(what, secret)| (*what, secret.duplicate())).collect()
    }
}

impl Inside {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, what: &'static str, secret: &str) {
        self.memory().capabilities.push((what, Secret::new(secret)));
    }

    /// The vault says where codes are sent, the provider is told; both have the same client secret.
    async fn integrate(&self, provider: &str, mut draft: Value) -> Result<(), PlatformError> {
        let number = u64::from_be_bytes(self.around.random());
        let (id, secret) = (format!("demo-{provider}"), format!("{CANARY}-client-{number:016x}"));
        draft["client_id"] = json!(id);
        draft["client_secret"] = json!(secret);
        let made = self.vault.put(&format!("v1/integrations/{provider}"), draft).await?;
        let registration = json!({
            "provider": provider, "client_id": id, "client_secret": secret, "redirect_uris": [made["redirect_uri"]],
        });
        self.control.post("clients", registration).await.map(drop)
    }

    async fn integrate_bot(&self) -> Result<(), PlatformError> {
        let bots = self.control.get("telegram/bots").await?;
        let token = &bots["bots"][0]["token"];
        self.vault.put("v1/integrations/telegram", json!({"bot_token": token})).await.map(drop)
    }

    async fn provision(&self) -> Result<(), PlatformError> {
        let body = json!({"api_key": self.elevenlabs_key.expose()});
        let workspace = self.vault.put(&format!("v1/workspaces/{WORKSPACE}"), body).await?;
        let header = text(&workspace, "tool_header_value")?;
        self.remember("tool header value", &header);
        let secret = json!({"type": "new", "name": "valetkey", "value": header});
        let secret = self.elevenlabs.post("v1/convai/secrets", secret).await?;
        let header_secret = text(&secret, "secret_id")?;
        let leads = agent::Leads {
            vault: self.vault.base(),
            google: &self.google,
            header_secret: &header_secret,
            sanitized: self.sanitized,
        };
        let mut tool_ids = Vec::new();
        for tool in leads.tools() {
            let made = self.elevenlabs.post("v1/convai/tools", json!({"tool_config": tool})).await?;
            tool_ids.push(text(&made, "id")?);
        }
        let made = self.elevenlabs.post("v1/convai/agents/create", agent::agent(&tool_ids)).await?;
        let agent_id = text(&made, "agent_id")?;
        self.vault.put(&format!("v1/agents/{agent_id}"), agent::needs(WORKSPACE)).await?;
        self.memory().agent_id = agent_id;
        Ok(())
    }

    async fn connect(&self, provider: &str, mode: &str) -> Result<(String, String), PlatformError> {
        let back = match mode {
            "popup" => self.base.origin().ascii_serialization(),
            _ => format!("{}connected", self.base),
        };
        let body = json!({"user": USER, "providers": [provider], "mode": mode, "return_url": back});
        let made = self.vault.post("v1/connect-sessions", body).await?;
        let url = text(&made, "url")?;
        self.remember("connect link", url.rsplit('/').next().unwrap_or_default());
        Ok((text(&made, "id")?, url))
    }

    async fn confirm(&self, session: &str, code: &str) -> Result<Value, PlatformError> {
        self.remember("completion code", code);
        let body = json!({"user": USER, "completion_code": code});
        self.vault.post(&format!("v1/connect-sessions/{session}/confirm"), body).await
    }

    async fn connect_telegram(&self) -> Result<String, PlatformError> {
        let made = self.vault.post("v1/connections", json!({"user": USER, "provider": "telegram"})).await?;
        let link = text(&made, "start_link")?;
        self.memory().start_link = Some(link.clone());
        Ok(link)
    }

    async fn press_start(&self, link: &str) -> Result<(), PlatformError> {
        let link = Url::parse(link).map_err(|_| PlatformError::Lacks("start_link"))?;
        let payload = link.query_pairs().find(|(name, _)| name == "start").map(|(_, value)| value.into_owned());
        let bot = link.path().trim_start_matches('/');
        self.control.post("telegram/start", json!({"bot": bot, "user": ACCOUNT, "payload": payload})).await?;
        self.memory().start_link = None;
        Ok(())
    }

    async fn connections(&self) -> Result<Vec<Value>, PlatformError> {
        let list = self.vault.get(&format!("v1/connections?user={USER}")).await?;
        Ok(list["data"].as_array().cloned().unwrap_or_default())
    }

    async fn start(&self, channel: &str) -> Result<Value, PlatformError> {
        let agent_id = self.memory().agent_id.clone();
        let body = json!({"agent_id": agent_id, "user": USER, "channel": {"type": channel}});
        let started = self.vault.post("v1/conversations", body).await?;
        let signed_url = text(&started, "signed_url")?;
        if let Some((_, once)) = signed_url.split_once("?t=") {
            self.remember("relay link", once);
        }
        Ok(started)
    }
}

impl Neighbour {
    async fn call_end(&self, conversation: &str) -> Result<Value, PlatformError> {
        self.post(&format!("v1/conversations/{conversation}/end"), json!({})).await
    }
}

fn text(value: &Value, name: &'static str) -> Result<String, PlatformError> {
    value[name].as_str().map(str::to_owned).ok_or(PlatformError::Lacks(name))
}
