//! What a provider is, as data (provider fact sheet E.0). The rows are in `catalogue.toml`, beside which an operator can put more.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderName;
use jsonwebtoken::Algorithm;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use url::Url;

use super::address::{Address, Variable, VariableSource, Variables};
use super::calls::CallRule;
use super::errors::ErrorTable;
use crate::outbound::Request;

/// Providers say lives a little less than round.
const ABOUT: Duration = Duration::from_secs(3600);

/// Everything about a provider that is not code. A field that the catalogue leaves out has the value that most providers have.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Descriptor {
    /// The id in URLs, tables and settings: `google`. It is the name of the catalogue's table.
    #[serde(skip)]
    pub id: String,
    /// The name on pages.
    pub display_name: String,
    /// Where the provider explains how to register a client.
    pub docs_url: String,
    /// Tests hold the row to fixtures that were transcribed from the provider fact sheet.
    #[serde(default)]
    pub verified: bool,
    /// What can be done with it.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// Where it lives, after the operator's overrides.
    pub endpoints: Endpoints,
    /// What stands in braces in the endpoints, by name.
    #[serde(default)]
    pub variables: BTreeMap<String, Variable>,
    /// How scopes are written.
    #[serde(default)]
    pub scopes: ScopeRules,
    /// Whether a code challenge is sent (OA-06).
    #[serde(default)]
    pub pkce: Pkce,
    /// How the client proves itself at the token endpoint.
    #[serde(default)]
    pub client_auth: ClientAuth,
    /// How requests to the token endpoint are written.
    #[serde(default)]
    pub token_body: TokenBody,
    /// How answers are wrapped.
    #[serde(default)]
    pub response_style: ResponseStyle,
    /// Fields of an answer that can hold the error code, the most telling first.
    #[serde(default = "error_fields")]
    pub error_fields: Vec<String>,
    /// What the provider's error codes mean, beside those that everybody has.
    #[serde(default)]
    pub errors: ErrorTable,
    /// Whether a refresh spends the refresh token.
    #[serde(default)]
    pub rotation: Rotation,
    /// Whether a spent refresh token may be shown once more after a lost answer.
    #[serde(default)]
    pub replay: Replay,
    /// When access tokens end, if the answer does not say it.
    #[serde(default)]
    pub expiry: Expiry,
    /// A connection without a refresh token is none (fact sheet A.3).
    #[serde(default)]
    pub needs_refresh_token: bool,
    /// How long an unused refresh token lives, in seconds; refresh well before half of it. `None`: not known to end.
    #[serde(default, deserialize_with = "some_seconds")]
    pub idle_expiry: Option<Duration>,
    /// How long a grant lives whatever is done, in seconds.
    #[serde(default, deserialize_with = "some_seconds")]
    pub absolute_expiry: Option<Duration>,
    /// How a client shows itself that is only tried out.
    #[serde(default)]
    pub testing: Option<Testing>,
    /// Where the account's identity comes from.
    #[serde(default)]
    pub identity: Identity,
    /// How a grant is ended.
    #[serde(default)]
    pub revoke: Revoke,
    /// The provider's own page to remove access.
    #[serde(default)]
    pub removal_page: String,
    /// Where a token that never ends is exchanged, once, for ones that rotate: beside `endpoints.token` (Slack, fact sheet B.4).
    #[serde(default)]
    pub lasting_exchange: Option<String>,
    /// Parameters that every authorization request carries.
    #[serde(default)]
    pub authorize_params: BTreeMap<String, String>,
    /// Parameters that make the provider ask again although access was granted before.
    #[serde(default)]
    pub force_consent_params: BTreeMap<String, String>,
    /// The parameter that names the account to be connected again.
    #[serde(default)]
    pub login_hint_param: Option<String>,
    /// Parameters that every exchange of a code carries.
    #[serde(default)]
    pub token_params: BTreeMap<String, String>,
    /// Headers that every API call carries, and the one that holds the token.
    #[serde(default)]
    pub api: ApiRules,
    /// Which API calls the broker makes.
    #[serde(default)]
    pub broker: Broker,
}

fn error_fields() -> Vec<String> {
    vec!["error".to_owned()]
}

/// What can be done with a provider.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capabilities {
    /// A person can connect by OAuth consent.
    pub oauth: bool,
    /// Kinds of credential that can be handed in directly (`POST /v1/connections`).
    pub direct_kinds: Vec<String>,
    /// Access tokens travel in a header, so that they may be injected when they expire (DESIGN section 2).
    pub injectable: bool,
    /// A call in progress can be given a fresh token, because tokens are refreshed at all.
    pub mid_call_refresh: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self { oauth: true, direct_kinds: Vec::new(), injectable: true, mid_call_refresh: true }
    }
}

/// How scopes are written.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScopeRules {
    /// The parameter for scopes; empty where the provider's own page decides (Notion).
    pub param: String,
    /// The parameter for scopes of the acting person, where they stand apart from those of the app (Slack).
    pub user_param: Option<String>,
    /// What stands between scopes in the authorization request.
    pub separator: String,
    /// A request without any scope makes sense, because the client's registration has them.
    pub optional: bool,
    /// Scopes that are asked for always, since identity or refreshing depends on them.
    pub fixed: Vec<String>,
    /// Other spellings of scopes: short to long. The provider answers in the long one.
    pub aliases: BTreeMap<String, String>,
    /// What a scope includes, in the short spelling: a provider may name the wider one alone (GitHub), and who has it lacks none of these.
    pub covers: BTreeMap<String, Vec<String>>,
    /// What known scopes allow, in words for the consent preview.
    pub words: BTreeMap<String, String>,
}

impl Default for ScopeRules {
    fn default() -> Self {
        Self {
            param: "scope".to_owned(),
            user_param: None,
            separator: " ".to_owned(),
            optional: false,
            fixed: Vec::new(),
            aliases: BTreeMap::new(),
            covers: BTreeMap::new(),
            words: BTreeMap::new(),
        }
    }
}

/// Full URLs, each of which an operator can replace.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Endpoints {
    /// Where the browser is sent.
    pub authorize: Option<Address>,
    /// Where codes are exchanged.
    pub token: Option<Address>,
    /// Where tokens are refreshed; `None` means at `token`.
    pub refresh: Option<Address>,
    /// Where tokens are revoked. May hold `{client_id}` and `{token}` beside the provider's variables.
    pub revoke: Option<Address>,
    /// Where the account is described.
    pub userinfo: Option<Address>,
    /// Where the keys of id_tokens are published.
    pub jwks: Option<Address>,
    /// The exact `iss` values of id_tokens and authorization answers that count (RFC 9207, OA-05).
    pub issuers: Vec<String>,
    /// Every authorization answer names its issuer (RFC 9207 section 3), so that one without is not the provider's (OA-05).
    pub names_issuer: bool,
    /// API bases by the first segment of the broker path; an empty segment fits every path.
    pub api: BTreeMap<String, Address>,
    /// Replaces every API base.
    #[serde(skip)]
    pub api_override: Option<Url>,
}

impl Endpoints {
    /// Where tokens are refreshed.
    #[must_use]
    pub fn refresh(&self) -> Option<&Address> {
        self.refresh.as_ref().or(self.token.as_ref())
    }

    /// The base for an API path that begins with `segment`; `None` when the provider has no such API, or a variable is missing.
    #[must_use]
    pub fn api_base(&self, segment: &str, variables: &Variables) -> Option<Url> {
        let known = self.api.get(segment).or_else(|| self.api.get(""))?;
        self.api_override.clone().or_else(|| known.at(variables))
    }
}

/// Whether a code challenge is sent. `plain` does not exist here (OA-06).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pkce {
    /// None: the provider does not know it, or punishes it (Slack ends refresh tokens after 30 days).
    Off,
    /// S256, always.
    #[default]
    S256,
}

/// How the client proves itself at the token endpoint (RFC 6749 section 2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// HTTP Basic.
    Basic,
    /// `client_id` and `client_secret` in the body.
    #[default]
    Post,
}

/// How requests to the token endpoint are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenBody {
    /// `application/x-www-form-urlencoded`, as RFC 6749 has it.
    #[default]
    Form,
    /// A JSON object with the same fields (Notion).
    Json,
}

/// How answers are wrapped. That some answer errors with status 200 (GitHub) is expected of everybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResponseStyle {
    /// RFC 6749: the status says whether it worked, unless there is an `error`.
    #[default]
    Rfc6749,
    /// Slack: status 200 and `ok: true|false`; up to two token sets in one answer.
    Slack,
}

/// Whether a refresh spends the refresh token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rotation {
    /// The refresh token stays.
    None,
    /// A new one may come.
    May,
    /// A new one always comes: the careful guess about a provider that nobody has looked at.
    #[default]
    Always,
}

/// Whether a refresh token may be shown once more after its answer was lost (fact sheet D.2, RL-06).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Replay {
    /// At any time.
    Safe,
    /// Within this many seconds of the first send.
    Grace(#[serde(deserialize_with = "seconds")] Duration),
    /// Never: it may end the grant.
    #[default]
    Unsafe,
}

/// When access tokens end, if the answer does not say it. Times are in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expiry {
    /// They always end; without a word, after this time.
    Always(#[serde(deserialize_with = "seconds")] Duration),
    /// They end when a refresh token comes with them; without a word, after this time.
    WithRefreshToken(#[serde(deserialize_with = "seconds")] Duration),
    /// They never end.
    Never,
}

impl Default for Expiry {
    fn default() -> Self {
        Self::WithRefreshToken(Duration::from_secs(3600))
    }
}

/// How a client shows itself that its provider takes for one that is only tried out (fact sheet G.29).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Testing {
    /// How long the grants of such a client live, in seconds.
    #[serde(deserialize_with = "seconds")]
    pub grant_life: Duration,
    /// Scopes, in the short spelling, whose grants do not end even so.
    pub exempt: Vec<String>,
}

/// Where an account's identity comes from (OA-09).
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Identity {
    /// What is read.
    pub source: IdentitySource,
    /// JSON pointers (RFC 6901) to the parts of the account's id, which are joined by `/`; `{name}` is a variable, where ids are unique
    /// at one place only. Empty for the `sub` of an id_token.
    pub id: Vec<String>,
    /// A JSON pointer to an e-mail that the provider vouches for. An id_token says itself whether it does.
    pub email: Option<String>,
    /// A JSON pointer to a name for people. An id_token has `name`.
    pub name: Option<String>,
    /// The body with which userinfo is asked by POST; without one it is a GET.
    pub body: Option<String>,
    /// What id_tokens are signed with: RS256, ES256 or EdDSA.
    pub algorithms: Vec<Algorithm>,
    /// An id_token may lack the nonce that was sent, though it may not have another. Only with PKCE, which binds the code to us, too.
    pub nonce_is_optional: bool,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            source: IdentitySource::default(),
            id: Vec::new(),
            email: None,
            name: None,
            body: None,
            algorithms: vec![Algorithm::RS256],
            nonce_is_optional: false,
        }
    }
}

/// What an identity is read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentitySource {
    /// A verified id_token (OA-08).
    #[default]
    IdToken,
    /// An answer of the userinfo endpoint.
    Userinfo,
    /// The token answer itself.
    Answer,
}

/// How a grant is ended at the provider (fact sheet E.0).
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Revoke {
    /// The form of the request.
    pub style: RevokeStyle,
    /// Which tokens are shown.
    pub tokens: RevokeWhich,
    /// What ends with them.
    pub ends: RevokeEnds,
}

/// What ends at the provider with a token that is revoked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokeEnds {
    /// Everything that the account has granted to the client (Google, fact sheet A.6); or nobody has found out yet.
    #[default]
    Consent,
    /// The token set that it belongs to: what a later consent gave lives on (Slack with rotation, fact sheet B.4).
    TokenSet,
}

/// The form of a revocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokeStyle {
    /// There is no way.
    #[default]
    None,
    /// RFC 7009: a form with the token, and client authentication.
    Rfc7009,
    /// A POST that carries the token in its Authorization header.
    Bearer,
    /// A DELETE of an address that holds the token.
    DeletePath,
    /// A DELETE with client authentication and the token in a JSON body (GitHub).
    BasicJson,
}

/// Which tokens a revocation shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokeWhich {
    /// One ends both: the refresh token if there is one.
    #[default]
    Either,
    /// The access token.
    Access,
    /// Each by itself, the refresh token first (OA-17).
    Both,
}

/// How the token gets into an API call.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiRules {
    /// The header that carries the token.
    pub header: String,
    /// What stands before the token, without the space; empty for a bare token.
    pub scheme: String,
    /// Headers that every call needs (`Notion-Version`).
    pub headers: BTreeMap<String, String>,
    /// With which words of its field `error` an answer that has status 200 and says `"ok": false` refuses the token itself (fact
    /// sheet B.5).
    pub refusals: Vec<String>,
}

impl ApiRules {
    /// Whether this body, of an answer with status 200, refuses the token.
    #[must_use]
    pub fn is_refusal(&self, body: &[u8]) -> bool {
        let said = serde_json::from_slice::<Value>(body).ok().filter(|said| said["ok"] == false);
        said.is_some_and(|said| self.refusals.iter().any(|word| said["error"] == word.as_str()))
    }

    /// Adds what every call needs.
    pub(super) fn beside(&self, request: Request) -> Request {
        let named =
            self.headers.iter().filter_map(|(name, value)| Some((HeaderName::try_from(name.as_str()).ok()?, value)));
        named.fold(request, |request, (name, value)| request.header(name, value))
    }
}

impl Default for ApiRules {
    fn default() -> Self {
        Self {
            header: "Authorization".to_owned(),
            scheme: "Bearer".to_owned(),
            headers: BTreeMap::new(),
            refusals: Vec::new(),
        }
    }
}

/// Which API calls the broker makes, as far as an agent's own rules allow them (AG-12).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Broker {
    /// These HTTP methods and paths.
    Calls(Vec<CallRule>),
    /// The path is the name of a method: all but these (a trailing `*` stands for any rest).
    AllBut(Vec<String>),
    /// The path is the name of a method: only these; `true` for those that are addressed to a chat, which the room fixes (fact sheet G.26).
    Only(BTreeMap<String, bool>),
}

impl Default for Broker {
    fn default() -> Self {
        Self::Calls(vec![CallRule::reading()])
    }
}

impl Descriptor {
    /// Whether a person's consent brings tokens that are kept. Where it only says who somebody is, what acts is a bot (Telegram).
    #[must_use]
    pub fn brings_tokens(&self) -> bool {
        self.capabilities.oauth && self.id != super::telegram::ID
    }

    /// What a scope allows, in words; `None` for a scope that the catalogue does not know.
    #[must_use]
    pub fn scope_in_words(&self, scope: &str) -> Option<&str> {
        let name = self.canonical_scope(scope);
        self.scopes.words.iter().find(|(known, _)| self.canonical_scope(known) == name).map(|(_, words)| words.as_str())
    }

    /// The one spelling under which a scope is compared.
    #[must_use]
    pub fn canonical_scope<'a>(&'a self, scope: &'a str) -> &'a str {
        self.scopes.aliases.iter().find(|(_, long)| *long == scope).map_or(scope, |(short, _)| short)
    }

    /// What a grant says of its client: that it is only tried out, that it is not, or nothing (fact sheet G.29).
    #[must_use]
    pub fn is_testing(&self, refresh_life: Option<Duration>, granted: &[String]) -> Option<bool> {
        let testing = self.testing.as_ref()?;
        match refresh_life {
            Some(life) => (life.abs_diff(testing.grant_life) < ABOUT).then_some(true),
            None => {
                let is_exempt = |scope: &String| testing.exempt.iter().any(|one| one == self.canonical_scope(scope));
                (!granted.iter().all(is_exempt)).then_some(false)
            }
        }
    }

    /// The wanted scopes that were neither granted nor are included in one that was, in the wanted spelling (OA-11).
    #[must_use]
    pub fn missing_scopes(&self, wanted: &[String], granted: &[String]) -> Vec<String> {
        let has = |scope: &&String| {
            let wanted = self.canonical_scope(scope);
            granted.iter().map(|one| self.canonical_scope(one)).any(|one| {
                one == wanted || self.scopes.covers.get(one).is_some_and(|all| all.iter().any(|each| each == wanted))
            })
        };
        wanted.iter().filter(|scope| !has(scope)).cloned().collect()
    }

    /// For a listed broker method, whether it is addressed to a chat. `None` for providers without a list and for everything else.
    #[must_use]
    pub fn carries_chat(&self, method: &str) -> Option<bool> {
        match &self.broker {
            Broker::Only(list) => list.get(method).copied(),
            Broker::Calls(_) | Broker::AllBut(_) => None,
        }
    }

    /// What was stored of variables, later columns before earlier ones. What does not fit any more is left out, so that the address
    /// that needs it is none: a catalogue may have become stricter.
    #[must_use]
    pub fn stored_variables<'a>(&self, columns: impl IntoIterator<Item = &'a str>) -> Variables {
        let read = |column: &str| serde_json::from_str::<BTreeMap<String, String>>(column).unwrap_or_default();
        let mut given: BTreeMap<String, String> = columns.into_iter().flat_map(read).collect();
        let fits = |name: &String, value: &String| self.variables.get(name).is_some_and(|one| one.accepts(value));
        // A default is for what was never said: a secret for one place must not go to another.
        let known = self.variables.iter().filter(|(name, _)| given.get(*name).is_none_or(|value| fits(name, value)));
        let known: BTreeMap<_, _> = known.map(|(name, one)| (name.clone(), one.clone())).collect();
        given.retain(|name, value| fits(name, value));
        Variables::new(&known, given).unwrap_or_default()
    }

    /// How many parts the id of an account has, with a slash between.
    #[must_use]
    pub fn account_parts(&self) -> usize {
        self.identity.id.len().max(1)
    }

    /// Whether a tenant says a part of the addresses, so that another part is another place.
    #[must_use]
    pub fn has_places(&self) -> bool {
        self.variables.values().any(|one| one.from == VariableSource::Integration)
    }

    /// True when losing the answer to a refresh can lose the refresh token.
    #[must_use]
    pub fn rotates(&self) -> bool {
        self.rotation != Rotation::None
    }

    /// True when the provider can be told to end a grant.
    #[must_use]
    pub fn revocable(&self) -> bool {
        self.revoke.style != RevokeStyle::None
    }

    /// True when a tenant's integration may carry scopes of the acting person beside those of the app (Slack).
    #[must_use]
    pub fn tells_user_scopes_apart(&self) -> bool {
        self.scopes.user_param.is_some()
    }
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u32::deserialize(deserializer).map(|seconds| Duration::from_secs(u64::from(seconds)))
}

fn some_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    seconds(deserializer).map(Some)
}
