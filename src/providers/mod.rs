//! The providers. What differs between them is data in [`Descriptor`] where it can be, and code only where it must: Slack's
//! answers, and Telegram, which has no OAuth that acts (provider fact sheet 0, points 1 and 6).
//!
//! Nothing here keeps state about users, and nothing decides what to do about a failure: a [`Provider`] makes one
//! call and says exactly what came of it.

mod address;
mod answer;
mod api_call;
mod calls;
mod catalogue;
mod described;
mod descriptor;
mod direct;
pub mod discovery;
mod errors;
#[cfg(test)]
mod fixtures;
mod id_token;
#[cfg(test)]
mod loopback;
pub mod notices;
mod oauth2;
mod risc;
mod slack;
pub mod telegram;
#[cfg(test)]
mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use url::Url;

pub use self::address::{Variable, VariableKind, VariableSource, Variables};
pub use self::api_call::{ApiCall, AttachError};
pub use self::calls::{CallRule, path_fits};
pub use self::catalogue::CatalogueError;
#[cfg(test)]
pub(crate) use self::catalogue::known;
use self::described::Described;
pub use self::descriptor::{Broker, Capabilities, Descriptor, Endpoints, Expiry, Pkce, Replay, RevokeEnds, Rotation};
pub use self::direct::{Grant, basic_secret, headers_secret};
pub use self::errors::{Code, Failure};
use self::notices::{Disbelief, Notice};
use self::telegram::Telegram;
use crate::clock::Surroundings;
use crate::config::ProviderSettings;
/// The S256 code challenge of a verifier, for [`AuthorizeRequest::challenge`] (RFC 7636 section 4.2, OA-06).
pub use crate::crypto::tokens::pkce_challenge;
use crate::outbound::{Knock, Outbound, Request};
use crate::secret::Secret;

/// The catalogue, ready to make calls.
#[derive(Clone)]
pub struct Providers {
    all: Vec<Arc<dyn Provider>>,
    telegram: Arc<Telegram>,
}

impl Providers {
    /// Builds every provider of the catalogue. `file` is an operator's own catalogue, which is laid over ours; `overrides` are
    /// the operator's settings by provider id, in any case.
    ///
    /// # Errors
    /// [`CatalogueError`] when the file cannot be read, or an override names an unknown provider or has a value that does not fit.
    pub fn new(
        outbound: Outbound,
        around: Surroundings,
        file: Option<&Path>,
        overrides: &BTreeMap<String, ProviderSettings>,
    ) -> Result<Self, CatalogueError> {
        let mut all: Vec<Arc<dyn Provider>> = Vec::new();
        let mut bots = None;
        for descriptor in catalogue::descriptors(file, overrides)? {
            if descriptor.id == telegram::ID {
                let telegram = Arc::new(Telegram::new(descriptor, outbound.clone(), around.clone()));
                all.push(telegram.clone());
                bots = Some(telegram);
            } else {
                all.push(Arc::new(Described::new(descriptor, outbound.clone(), around.clone())));
            }
        }
        let telegram = bots.ok_or_else(|| CatalogueError::UnknownProvider(telegram::ID.to_owned()))?;
        Ok(Self { all, telegram })
    }

    /// The provider with this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Arc<dyn Provider>> {
        self.all().find(|one| one.descriptor().id == id).cloned()
    }

    /// Every provider, in the catalogue's order.
    pub fn all(&self) -> impl Iterator<Item = &Arc<dyn Provider>> {
        self.all.iter()
    }

    /// Telegram, with what only bots need.
    #[must_use]
    pub fn telegram(&self) -> &Arc<Telegram> {
        &self.telegram
    }
}

impl fmt::Debug for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all().map(|one| &one.descriptor().id)).finish()
    }
}

/// A tenant's OAuth client at a provider.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// The client id.
    pub id: &'a str,
    /// The client secret.
    pub secret: &'a Secret,
    /// What stands in braces in the provider's addresses.
    pub variables: &'a Variables,
}

/// What the browser is sent to the provider with.
#[derive(Clone, Copy, Debug)]
pub struct AuthorizeRequest<'a> {
    /// The client id.
    pub client_id: &'a str,
    /// The redirect URI, byte-identical to the one of the exchange (OA-12).
    pub redirect_uri: &'a str,
    /// One use, at most 64 characters of `[A-Za-z0-9_-]` (fact sheet G.10).
    pub state: &'a str,
    /// To be repeated in the id_token; ignored by providers without one.
    pub nonce: Option<&'a str>,
    /// The S256 code challenge. Needed where the descriptor's `pkce` is `S256`, ignored where it is `Off`.
    pub challenge: Option<&'a str>,
    /// Wanted scopes; those that identity needs are added.
    pub scopes: &'a [String],
    /// Wanted scopes of the acting person, for providers that keep them apart (Slack).
    pub user_scopes: &'a [String],
    /// E-mail or subject of the account that is to be connected again.
    pub login_hint: Option<&'a str>,
    /// Ask again even if access was granted before: mints another refresh token at Google, of which an account has
    /// 100 for each client, so use it only when none is stored (fact sheet A.4, G.28).
    pub force_consent: bool,
    /// What stands in braces in the provider's addresses.
    pub variables: &'a Variables,
}

impl Default for AuthorizeRequest<'_> {
    fn default() -> Self {
        Self {
            client_id: "",
            redirect_uri: "",
            state: "",
            nonce: None,
            challenge: None,
            scopes: &[],
            user_scopes: &[],
            login_hint: None,
            force_consent: false,
            variables: Variables::NONE,
        }
    }
}

/// A code to be exchanged.
#[derive(Clone, Copy, Debug)]
pub struct CodeGrant<'a> {
    /// The redirect URI of the authorization request.
    pub redirect_uri: &'a str,
    /// The code.
    pub code: &'a Secret,
    /// The PKCE verifier, if a challenge was sent.
    pub verifier: Option<&'a Secret>,
    /// The nonce that was sent; the id_token must repeat it (OA-08).
    pub nonce: Option<&'a str>,
    /// A refresh token of this account is already stored and stays in use, so that its absence from the answer is
    /// fine. `false` makes its absence a failure where tokens always end (fact sheet A.3).
    pub refresh_token_held: bool,
}

/// What kind of credential a token set belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CredentialKind {
    /// Acts as the person.
    User,
    /// Acts as an app or bot.
    Bot,
    /// A client id and secret that are exchanged for tokens.
    ClientCredentials,
    /// A private key that signs assertions.
    JwtBearer,
    /// A user name and a password.
    Basic,
    /// A fixed bearer token.
    Bearer,
    /// A fixed value for a named header.
    Header,
}

impl CredentialKind {
    const ALL: [Self; 7] =
        [Self::User, Self::Bot, Self::ClientCredentials, Self::JwtBearer, Self::Basic, Self::Bearer, Self::Header];

    /// Whether a provider has granted it to a client of the tenant's, and can take it back.
    #[must_use]
    pub fn is_granted(self) -> bool {
        matches!(self, Self::User | Self::Bot)
    }

    /// Whether its tokens are minted from a [`Grant`], which stands where others have a refresh token. Nothing is spent by that.
    #[must_use]
    pub fn is_minted(self) -> bool {
        matches!(self, Self::ClientCredentials | Self::JwtBearer)
    }

    /// The kind's name in the API and in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Bot => "bot",
            Self::ClientCredentials => "client_credentials",
            Self::JwtBearer => "jwt_bearer",
            Self::Basic => "basic",
            Self::Bearer => "bearer",
            Self::Header => "header",
        }
    }

    /// Reads a kind's name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// One set of tokens as a provider gave it.
#[derive(Debug)]
pub struct TokenSet {
    /// Whom the tokens act as.
    pub kind: CredentialKind,
    /// Visible ASCII, at most 16 KiB.
    pub access_token: Secret,
    /// Absent means: keep the one you have (RFC 6749 section 6).
    pub refresh_token: Option<Secret>,
    /// `Bearer`, in practice.
    pub token_type: String,
    /// What was really granted; `None` means the answer did not say, so nothing changed (RFC 6749 section 5.1).
    pub scopes: Option<Vec<String>>,
    /// Life of the access token from the answer's arrival, between 1 second and 365 days. `None`: it does not end.
    pub expires_in: Option<Duration>,
    /// Life of the refresh token, if it ends.
    pub refresh_expires_in: Option<Duration>,
    /// Whose tokens these are, if the answer says so. Compare with [`Provider::same_account`] (OA-10).
    pub subject: Option<String>,
}

/// An account at a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The provider's stable id: Google's `sub`, Slack's `<team>/<user>` (or `<enterprise>/<user>`), a bot's id.
    pub id: String,
    /// Only if the provider vouches for it. For display, never for identity (OA-09).
    pub email: Option<String>,
    /// For display.
    pub name: Option<String>,
}

/// What a code was exchanged for.
#[derive(Debug)]
pub struct Exchange {
    /// Whose it is.
    pub account: Account,
    /// One or more sets (Slack: bot, user).
    pub tokens: Vec<TokenSet>,
    /// What the answer says of the provider's own addresses, as far as the catalogue lets it in.
    pub variables: BTreeMap<String, String>,
    /// The private chat with the integration's bot, where that is what signing in is for (Telegram). Whether the bot may write there
    /// is not known yet.
    pub chat: Option<i64>,
}

/// The tokens of a credential that is to be revoked.
#[derive(Clone, Copy, Debug)]
pub struct RevokeTokens<'a> {
    /// The access token, if one is stored.
    pub access: Option<&'a Secret>,
    /// The refresh token, if one is stored.
    pub refresh: Option<&'a Secret>,
    /// Whom the tokens act as.
    pub kind: CredentialKind,
}

/// One provider: makes calls and says what came of them. Retries nothing.
#[async_trait]
pub trait Provider: Send + Sync {
    /// What the provider is.
    fn descriptor(&self) -> &Descriptor;

    /// Where the browser is sent. `None` when the provider has no consent step, no scope was asked for, or a code
    /// challenge is required and missing (there is no fall-back to none, OA-06).
    fn authorize_url(&self, request: &AuthorizeRequest<'_>) -> Option<Url>;

    /// Exchanges a code, verifies who it is, and returns the tokens. Never retried: codes work once (fact sheet
    /// G.14).
    ///
    /// # Errors
    /// [`Failure::Reauth`] when the code was not accepted, or with code `refresh_token_missing` when no refresh
    /// token came although none is held: start again with `force_consent`. [`Failure::Unrecognised`] with code
    /// `id_token_…` when the identity cannot be trusted.
    async fn exchange(&self, client: Client<'_>, grant: CodeGrant<'_>) -> Result<Exchange, Failure>;

    /// Refreshes a token set. Exactly one request is sent, at most once; where there is a door, its body when that is opened.
    ///
    /// # Errors
    /// [`Failure::NotSent`] guarantees that the refresh token was not shown to anyone.
    async fn refresh(
        &self,
        client: Client<'_>,
        kind: CredentialKind,
        refresh_token: &Secret,
        door: Option<Knock>,
    ) -> Result<TokenSet, Failure>;

    /// Exchanges a token that never ends for a set that rotates, once. The old one lives until the new ones are first refreshed.
    ///
    /// # Errors
    /// [`Failure`]. The old token is as good as it was.
    async fn exchange_lasting(
        &self,
        _client: Client<'_>,
        _kind: CredentialKind,
        _token: &Secret,
    ) -> Result<TokenSet, Failure> {
        Err(Failure::NotSent)
    }

    /// Mints a token set of a kind that [is minted](CredentialKind::is_minted) from the text of a [`Grant`].
    ///
    /// # Errors
    /// [`Failure`]. Trying again is always safe.
    async fn mint(&self, kind: CredentialKind, grant: &Secret) -> Result<TokenSet, Failure>;

    /// Whose secret it is, where the provider can be asked cheaply; `None` where it cannot.
    ///
    /// # Errors
    /// [`Failure::Reauth`] when the provider does not accept the secret.
    async fn whose(
        &self,
        kind: CredentialKind,
        secret: &Secret,
        variables: &Variables,
    ) -> Result<Option<Account>, Failure>;

    /// Ends the grant at the provider, refresh token first (OA-17). A token that is already dead counts as done.
    ///
    /// # Errors
    /// [`Failure::Admin`] with code `not_revocable` when the provider has no way to revoke: point the person to
    /// `removal_page`.
    async fn revoke(&self, client: Client<'_>, tokens: &RevokeTokens<'_>) -> Result<(), Failure>;

    /// Reads a security event token (RFC 8417), once it is found to be the provider's and for the client with this id.
    ///
    /// # Errors
    /// [`Disbelief`]; always, for providers that send none.
    async fn security_event(&self, _client_id: &str, _token: &Secret) -> Result<Notice, Disbelief> {
        Err(Disbelief::Malformed)
    }

    /// Builds the outgoing API request with the credential attached (AG-12).
    ///
    /// # Errors
    /// [`AttachError`] when the call may not leave; nothing was sent.
    fn attach(&self, call: ApiCall<'_>, kind: CredentialKind, secret: &Secret) -> Result<Request, AttachError>;

    /// What a credential of this kind belongs to, where that is less than the account, so that all accounts there share the one: the
    /// part of the account's id that names it (fact sheet B.4, the sharing hazard).
    fn shared_as<'a>(&self, _kind: CredentialKind, _account_id: &'a str) -> Option<&'a str> {
        None
    }

    /// True when `subject`, from a token set of this kind, does not contradict the connection's account id (OA-10).
    fn same_account(&self, _kind: CredentialKind, account_id: &str, subject: &str) -> bool {
        account_id == subject
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_back_as_they_are_written() {
        for kind in CredentialKind::ALL {
            assert_eq!(CredentialKind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(CredentialKind::parse("User"), None);
    }
}
