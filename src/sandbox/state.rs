//! What the pretend providers know: accounts, clients, tokens, and a diary of everything that happened.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Notify;
use url::Url;

use super::ClientRegistration;
use super::consent::Pending;
use super::faults::{Fault, Place, Planted};
use super::google_identity::Signing;
use super::google_tokens::GoogleState;
use super::slack_tokens::SlackState;
use super::telegram::TelegramState;
use crate::clock::{Millis, Surroundings};

/// The marker inside every secret of the sandbox, so that one search finds any leak.
pub const CANARY: &str = "vkcanary";

/// Which pretend provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// The pretend Google.
    Google,
    /// The pretend Slack.
    Slack,
    /// The pretend Telegram.
    Telegram,
}

/// A person with an account at each pretend provider.
#[derive(Debug, PartialEq, Eq)]
pub struct Account {
    /// The name by which consent pages and control calls choose the account.
    pub email: &'static str,
    /// The name shown to people.
    pub name: &'static str,
    /// Google's `sub`.
    pub google_sub: &'static str,
    /// Google's `hd`, for an account of an organisation.
    pub hosted_domain: Option<&'static str>,
    /// The Slack user id.
    pub slack_user: &'static str,
    /// The Slack workspace the account belongs to.
    pub slack_team: &'static str,
    /// The Telegram user id, which is also the id of the private chat (C.6).
    pub telegram_user: i64,
    /// The Telegram username without `@`.
    pub telegram_username: &'static str,
}

/// The accounts that exist. The first two share a Slack workspace.
pub const ACCOUNTS: [Account; 3] = [
    Account {
        email: "ada@example.com",
        name: "Ada",
        google_sub: "100000000000000000001",
        hosted_domain: None,
        slack_user: "U0ADA",
        slack_team: "T0SANDBOX",
        telegram_user: 987_654_321,
        telegram_username: "ada_test",
    },
    Account {
        email: "grace@example.com",
        name: "Grace",
        google_sub: "100000000000000000002",
        hosted_domain: None,
        slack_user: "U0GRACE",
        slack_team: "T0SANDBOX",
        telegram_user: 987_654_322,
        telegram_username: "grace_test",
    },
    Account {
        email: "ops@example.org",
        name: "Operations",
        google_sub: "100000000000000000003",
        hosted_domain: Some("example.org"),
        slack_user: "U0OPS",
        slack_team: "T0NORTH",
        telegram_user: 987_654_323,
        telegram_username: "ops_test",
    },
];

impl Account {
    pub(super) fn by_email(email: &str) -> Option<&'static Self> {
        ACCOUNTS.iter().find(|account| account.email == email)
    }

    /// Another account: what the fault `swap_subject` answers with.
    pub(super) fn other(&self) -> &'static Self {
        let here = ACCOUNTS.iter().position(|account| account == self).unwrap_or(0);
        &ACCOUNTS[(here + 1) % ACCOUNTS.len()]
    }
}

/// A secret that the sandbox made, or that was registered with it.
#[derive(Clone, Serialize)]
pub struct Issued {
    /// Who made it.
    pub provider: Provider,
    /// `client_secret`, `code`, `access_token`, `refresh_token` or `bot_token`.
    pub kind: &'static str,
    /// The secret itself.
    pub value: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Issued({:?} {})", self.provider, self.kind)
    }
}

/// What was counted at one provider since the start.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Counters {
    /// Token requests received, by grant type, including those a fault swallowed.
    pub token_requests: BTreeMap<&'static str, u64>,
    /// Refreshes carried out.
    pub refreshes: u64,
    /// Used codes and used refresh tokens that came again and were refused.
    pub reuses: u64,
    /// Used refresh tokens that came again within the grace and were honoured.
    pub replays_in_grace: u64,
    /// Revocations carried out on a client's request.
    pub revocations: u64,
    /// Requests to the API, including refused ones.
    pub api_calls: u64,
}

/// A message that was sent through a pretend provider.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Message {
    pub provider: Provider,
    /// Who sent it: an e-mail address, or a bot's username.
    pub sender: String,
    /// Where it went: a channel, a chat id, or `gmail`.
    pub to: String,
    pub text: String,
    pub at: Millis,
}

/// A registered OAuth client.
#[derive(Clone)]
pub(super) struct Client {
    pub secret: String,
    pub redirect_uris: Vec<String>,
}

/// How long access tokens live.
#[derive(Clone, Copy)]
pub(super) struct Lives {
    pub google: Duration,
    pub slack: Duration,
}

/// Everything that changes.
pub(super) struct World {
    pub around: Surroundings,
    pub clients: BTreeMap<(Provider, String), Client>,
    pub pending: BTreeMap<String, Pending>,
    pub planted: Vec<Planted>,
    pub counters: BTreeMap<Provider, Counters>,
    pub issued: Vec<Issued>,
    pub messages: Vec<Message>,
    pub google: GoogleState,
    pub slack: SlackState,
    pub telegram: TelegramState,
}

impl World {
    pub(super) fn now(&self) -> Millis {
        self.around.now()
    }

    pub(super) fn register(&mut self, provider: Provider, client: ClientRegistration) {
        let secret = client.client_secret.expose().to_owned();
        self.issued.push(Issued { provider, kind: "client_secret", value: secret.clone() });
        let known = Client { secret, redirect_uris: client.redirect_uris };
        self.clients.insert((provider, client.client_id), known);
    }

    pub(super) fn client(&self, provider: Provider, id: &str) -> Option<&Client> {
        self.clients.get(&(provider, id.to_owned()))
    }

    /// Text nobody can guess: 192 bits in base64url.
    pub(super) fn random_text(&self) -> String {
        BASE64URL_NOPAD.encode(&self.around.random::<24>())
    }

    /// A new secret, written into the diary.
    pub(super) fn mint(&mut self, provider: Provider, kind: &'static str, prefix: &str) -> String {
        let value = format!("{prefix}{CANARY}{}", self.random_text());
        self.issued.push(Issued { provider, kind, value: value.clone() });
        value
    }

    pub(super) fn count(&mut self, provider: Provider) -> &mut Counters {
        self.counters.entry(provider).or_default()
    }

    pub(super) fn count_call(&mut self, provider: Provider, place: Place) {
        let counters = self.count(provider);
        let grant = match place {
            Place::Code => "authorization_code",
            Place::Refresh => "refresh_token",
            Place::OtherGrant => "other",
            Place::Revoke => return,
            Place::Api => {
                counters.api_calls += 1;
                return;
            }
        };
        *counters.token_requests.entry(grant).or_default() += 1;
    }

    /// The faults the next call at this place meets: every delay in front, then at most one other.
    pub(super) fn take_faults(&mut self, provider: Provider, place: Place) -> Vec<Fault> {
        let mut met = Vec::new();
        for planted in self.planted.iter_mut().filter(|planted| planted.is_for(provider, place)) {
            planted.times = planted.times.saturating_sub(1);
            met.push(planted.fault.clone());
            if !matches!(planted.fault, Fault::Delay(_)) {
                break;
            }
        }
        self.planted.retain(|planted| planted.times > 0);
        met
    }

    pub(super) fn record(&mut self, provider: Provider, sender: &str, to: &str, text: &str) {
        let at = self.now();
        let message = Message { provider, sender: sender.to_owned(), to: to.to_owned(), text: text.to_owned(), at };
        self.messages.push(message);
    }
}

/// What every handler holds.
#[derive(Clone)]
pub(super) struct Shared(Arc<Inner>);

pub(super) struct Inner {
    world: Mutex<World>,
    pub google_url: Url,
    pub telegram_url: Url,
    pub lives: Lives,
    pub signing: Signing,
    /// Rung when a Telegram bot has something new.
    pub telegram_bell: Notify,
}

impl Shared {
    pub(super) fn new(
        around: Surroundings,
        lives: Lives,
        slack_rotation: bool,
        (google_url, telegram_url): (Url, Url),
        signing: Signing,
    ) -> Self {
        let mut world = World {
            around,
            clients: BTreeMap::new(),
            pending: BTreeMap::new(),
            planted: Vec::new(),
            counters: BTreeMap::new(),
            issued: Vec::new(),
            messages: Vec::new(),
            google: GoogleState::default(),
            slack: SlackState::new(slack_rotation),
            telegram: TelegramState::default(),
        };
        for provider in [Provider::Google, Provider::Slack, Provider::Telegram] {
            world.count(provider);
        }
        super::telegram::register_first_bot(&mut world);
        let telegram_bell = Notify::new();
        Self(Arc::new(Inner { world: Mutex::new(world), google_url, telegram_url, lives, signing, telegram_bell }))
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.0.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::ops::Deref for Shared {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// A JSON answer that nobody may keep (RFC 6749 section 5.1).
pub(super) fn json(status: u16, body: &Value) -> axum::response::Response {
    use axum::response::IntoResponse;
    let status = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = [("content-type", "application/json; charset=utf-8"), ("cache-control", "no-store")];
    (status, headers, body.to_string()).into_response()
}
