//! What a provider is, as data (provider fact sheet E.0). The rows are in `catalogue`.

use std::time::Duration;

use url::Url;

/// Everything about a provider that is not code.
#[derive(Clone, Debug)]
pub struct Descriptor {
    /// The id in URLs, tables and settings: `google`.
    pub id: &'static str,
    /// The name on pages.
    pub display_name: &'static str,
    /// Where the provider explains how to register a client.
    pub docs_url: &'static str,
    /// What can be done with it.
    pub capabilities: Capabilities,
    /// Where it lives, after the operator's overrides.
    pub endpoints: Endpoints,
    /// What stands between scopes in the authorization request.
    pub scope_separator: char,
    /// Whether a code challenge is sent (OA-06).
    pub pkce: Pkce,
    /// How the client proves itself at the token endpoint.
    pub client_auth: ClientAuth,
    /// How answers are wrapped.
    pub response_style: ResponseStyle,
    /// Whether a refresh spends the refresh token.
    pub rotation: Rotation,
    /// Whether a spent refresh token may be shown once more after a lost answer.
    pub replay: Replay,
    /// When access tokens end, if the answer does not say it.
    pub expiry: Expiry,
    /// How long an unused refresh token lives; refresh well before half of it. `None`: not known to end.
    pub idle_expiry: Option<Duration>,
    /// Scopes that are asked for always, since identity depends on them.
    pub fixed_scopes: &'static [&'static str],
    /// Other spellings of scopes: `(short, long)`. The provider answers in the long one.
    pub scope_aliases: &'static [(&'static str, &'static str)],
    /// What known scopes allow, in words for the consent preview.
    pub scope_words: &'static [(&'static str, &'static str)],
    /// The provider's own page to remove access.
    pub removal_page: &'static str,
    /// Parameters that every authorization request carries.
    pub authorize_params: &'static [(&'static str, &'static str)],
    /// Which API methods the broker may call, for providers whose broker path is a method name.
    pub broker_methods: BrokerMethods,
}

/// What can be done with a provider.
#[derive(Clone, Copy, Debug)]
pub struct Capabilities {
    /// A person can connect by OAuth consent.
    pub oauth: bool,
    /// Kinds of credential that can be handed in directly (`POST /v1/connections`).
    pub direct_kinds: &'static [&'static str],
    /// The provider can be told to end a grant.
    pub revocable: bool,
    /// Access tokens travel in a header, so that they may be injected when they expire (DESIGN section 2).
    pub injectable: bool,
    /// A call in progress can be given a fresh token, because tokens are refreshed at all.
    pub mid_call_refresh: bool,
    /// The tenant's integration may carry scopes of the acting person beside those of the app (Slack).
    pub user_scopes: bool,
}

/// Full URLs, each of which an operator can replace.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    /// Where the browser is sent.
    pub authorize: Option<Url>,
    /// Where codes are exchanged.
    pub token: Option<Url>,
    /// Where tokens are refreshed; `None` means at `token`.
    pub refresh: Option<Url>,
    /// Where tokens are revoked.
    pub revoke: Option<Url>,
    /// Where the account is described.
    pub userinfo: Option<Url>,
    /// Where the keys of id_tokens are published.
    pub jwks: Option<Url>,
    /// The exact `iss` values of id_tokens and authorization answers that count (RFC 9207, OA-05).
    pub issuers: Vec<String>,
    /// API bases by the first segment of the broker path; an empty segment fits every path.
    pub api_bases: Vec<(&'static str, Url)>,
    /// Replaces every API base.
    pub api_base_override: Option<Url>,
}

impl Endpoints {
    /// Where tokens are refreshed.
    #[must_use]
    pub fn refresh_url(&self) -> Option<&Url> {
        self.refresh.as_ref().or(self.token.as_ref())
    }

    /// The base for an API path that begins with `segment`; `None` when the provider has no such API.
    #[must_use]
    pub fn api_base(&self, segment: &str) -> Option<&Url> {
        let known = self.api_bases.iter().find(|(first, _)| first.is_empty() || *first == segment)?;
        Some(self.api_base_override.as_ref().unwrap_or(&known.1))
    }
}

/// Whether a code challenge is sent. `plain` does not exist here (OA-06).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pkce {
    /// None: Slack refuses it unless enabled, and enabling it ends refresh tokens after 30 days.
    Off,
    /// S256, always.
    S256,
}

/// How the client proves itself at the token endpoint (RFC 6749 section 2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// HTTP Basic.
    Basic,
    /// `client_id` and `client_secret` in the form.
    Post,
}

/// How answers are wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseStyle {
    /// RFC 6749: the status says whether it worked.
    Rfc6749,
    /// Slack: status 200 and `ok: true|false`.
    Slack,
}

/// Whether a refresh spends the refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// The refresh token stays.
    None,
    /// A new one may come.
    May,
    /// A new one always comes.
    Always,
}

/// Whether a refresh token may be shown once more after its answer was lost (fact sheet D.2, RL-06).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// At any time.
    Safe,
    /// Within this time of the first send.
    Grace(Duration),
    /// Never: it may end the grant.
    Unsafe,
}

/// When access tokens end, if the answer does not say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// They always end; without a word, after this time.
    Always(Duration),
    /// They end when a refresh token comes with them; without a word, after this time.
    WithRefreshToken(Duration),
    /// They never end.
    Never,
}

/// Which API methods the broker may call.
#[derive(Clone, Copy, Debug)]
pub enum BrokerMethods {
    /// Paths, not methods.
    Paths,
    /// Method names, all but these (a trailing `*` stands for any rest).
    AllBut(&'static [&'static str]),
    /// Only these method names.
    Only(&'static [BrokerMethod]),
}

/// One method that the broker may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerMethod {
    /// Its name, in the provider's spelling.
    pub name: &'static str,
    /// It is addressed to a chat, which the room fixes (fact sheet G.26).
    pub carries_chat: bool,
}

impl Descriptor {
    /// What a scope allows, in words; `None` for a scope that the catalogue does not know.
    #[must_use]
    pub fn scope_in_words(&self, scope: &str) -> Option<&'static str> {
        let name = self.canonical_scope(scope);
        self.scope_words.iter().find(|(known, _)| self.canonical_scope(known) == name).map(|(_, words)| *words)
    }

    /// The one spelling under which a scope is compared.
    #[must_use]
    pub fn canonical_scope<'a>(&self, scope: &'a str) -> &'a str {
        self.scope_aliases.iter().find(|(_, long)| *long == scope).map_or(scope, |(short, _)| *short)
    }

    /// The wanted scopes that were not granted, in the wanted spelling (OA-11).
    #[must_use]
    pub fn missing_scopes(&self, wanted: &[String], granted: &[String]) -> Vec<String> {
        let has = |scope: &&String| granted.iter().any(|one| self.canonical_scope(one) == self.canonical_scope(scope));
        wanted.iter().filter(|scope| !has(scope)).cloned().collect()
    }

    /// The allow-listed broker method of this name. `None` for providers without a list and for everything else.
    #[must_use]
    pub fn broker_method(&self, name: &str) -> Option<BrokerMethod> {
        match self.broker_methods {
            BrokerMethods::Only(list) => list.iter().copied().find(|method| method.name == name),
            BrokerMethods::Paths | BrokerMethods::AllBut(_) => None,
        }
    }

    /// True when losing the answer to a refresh can lose the refresh token.
    #[must_use]
    pub fn rotates(&self) -> bool {
        self.rotation != Rotation::None
    }
}
