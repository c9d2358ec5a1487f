//! A provider that its descriptor describes. What differs between providers is data; Slack's answers alone have a reader of their own.

use std::collections::BTreeMap;

use async_trait::async_trait;
use http::HeaderName;
use serde_json::Value;
use url::Url;

use super::address::{VariableSource, Variables};
use super::answer::{Field, RawAnswer, text_of};
use super::api_call::{ApiCall, AttachError, below};
use super::descriptor::{Broker, Descriptor, IdentitySource, Pkce, ResponseStyle, RevokeWhich};
use super::errors::{Code, Failure};
use super::id_token::{Claims, Expected, KeyRing, displayable, unverified_claims};
use super::notices::{Disbelief, Notice};
use super::oauth2::{self, Street, no_endpoint};
use super::{
    Account, AuthorizeRequest, Client, CodeGrant, CredentialKind, Exchange, Provider, RevokeTokens, TokenSet, direct,
    risc, slack,
};
use crate::clock::Surroundings;
use crate::outbound::{Knock, Outbound, Request};
use crate::secret::Secret;

/// Longest account id: an id_token's subject may have 255 characters, and others are put together from parts.
const LONGEST_ID: usize = 400;

pub(super) struct Described {
    descriptor: Descriptor,
    street: Street,
    keys: KeyRing,
}

impl Described {
    pub fn new(descriptor: Descriptor, outbound: Outbound, around: Surroundings) -> Self {
        let street = Street::new(outbound, around);
        let keys = KeyRing::new(street.clone(), descriptor.identity.algorithms.clone());
        Self { descriptor, keys, street }
    }

    /// Who signed in, where the tokens that came with it are of no use.
    pub async fn sign_in(&self, client: Client<'_>, grant: CodeGrant<'_>) -> Result<Account, Failure> {
        let mut raw = oauth2::exchange(&self.street, &self.descriptor, client, grant).await?;
        self.account(&mut raw, client, grant.nonce).await
    }

    /// Whose tokens these are, from where the descriptor says (OA-09).
    async fn account(&self, raw: &mut RawAnswer, client: Client<'_>, nonce: Option<&str>) -> Result<Account, Failure> {
        let identity = &self.descriptor.identity;
        match identity.source {
            IdentitySource::IdToken => {
                let claims = self.id_token(raw, client, nonce).await?;
                let id = claimed_id(&self.descriptor, &claims).ok_or_else(identity_missing)?;
                Ok(Account { id, email: claims.verified_email(), name: claims.name() })
            }
            IdentitySource::Userinfo => match &raw.access_token {
                Field::Text(token) => self.ask_userinfo(CredentialKind::User, token, client.variables).await,
                _ => Err(Failure::Transient { code: Code::own("access_token_missing") }),
            },
            IdentitySource::Answer => self.account_at(client.variables, |pointer| raw.text_at(pointer)),
        }
    }

    async fn id_token(&self, raw: &mut RawAnswer, client: Client<'_>, nonce: Option<&str>) -> Result<Claims, Failure> {
        let refused = |word| Failure::Unrecognised { code: Code::own(word) };
        let token = match std::mem::take(&mut raw.id_token) {
            Field::Text(token) => token,
            Field::Absent => return Err(refused("id_token_missing")),
            Field::Wrong => return Err(refused("id_token_malformed")),
        };
        let jwks = self.descriptor.endpoints.jwks.as_ref().and_then(|jwks| jwks.at(client.variables));
        let issuers = &self.descriptor.endpoints.issuers;
        let nonce_is_optional = self.descriptor.identity.nonce_is_optional;
        let now = self.street.around().now();
        let expected = Expected { issuers, client_id: client.id, nonce, nonce_is_optional, now };
        self.keys.verify(&jwks.ok_or_else(no_endpoint)?, &token, expected).await
    }

    async fn ask_userinfo(
        &self,
        kind: CredentialKind,
        secret: &Secret,
        variables: &Variables,
    ) -> Result<Account, Failure> {
        let address = self.descriptor.endpoints.userinfo.as_ref().ok_or_else(no_endpoint)?;
        let url = address.with(variables, &[("token", secret.expose())]).ok_or_else(no_endpoint)?;
        let request = match &self.descriptor.identity.body {
            None => Request::get(url),
            Some(body) => Request::post(url).raw("application/json", body.clone().into()),
        };
        let request = self.with_secret(request, kind, secret).ok_or_else(identity_missing)?;
        let answer = self.street.send(request.accept_json()).await?;
        match answer.status {
            200 => {}
            401 | 403 => return Err(Failure::Reauth { code: Code::own("secret_refused") }),
            _ => return Err(Failure::Transient { code: Code::own("identity_unavailable") }),
        }
        let said: Value = serde_json::from_slice(&answer.body).map_err(|_| identity_missing())?;
        self.account_at(variables, |pointer| text_of(said.pointer(pointer)?))
    }

    fn account_at(&self, variables: &Variables, text_at: impl Fn(&str) -> Option<String>) -> Result<Account, Failure> {
        let identity = &self.descriptor.identity;
        let text_at = |part: &str| match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            Some(name) => variables.get(name).map(str::to_owned),
            None => text_at(part),
        };
        let id = joined_id(&identity.id, text_at).ok_or_else(identity_missing)?;
        let shown = |pointer: &Option<String>| pointer.as_ref().and_then(|one| displayable(&text_at(one)?));
        Ok(Account { id, email: shown(&identity.email), name: shown(&identity.name) })
    }

    /// Puts the secret where this provider's API looks for it, beside the headers that it always wants. `None` when the secret is
    /// not of its kind.
    fn with_secret(&self, mut request: Request, kind: CredentialKind, secret: &Secret) -> Option<Request> {
        let api = &self.descriptor.api;
        request = api.beside(request);
        if matches!(kind, CredentialKind::Basic | CredentialKind::Header) {
            return direct::with_secret(request, kind, secret);
        }
        let name = HeaderName::try_from(api.header.as_str()).ok()?;
        Some(match api.scheme.as_str() {
            "" => request.secret_header(name, secret),
            scheme => request.secret_header(name, &Secret::new(format!("{scheme} {}", secret.expose()))),
        })
    }
}

pub(super) fn identity_missing() -> Failure {
    Failure::Unrecognised { code: Code::own("identity_missing") }
}

/// The parts of an id, joined. None of them may be missing, empty, or hold what joins them, a blank or a control character.
fn joined_id(pointers: &[String], text_at: impl Fn(&str) -> Option<String>) -> Option<String> {
    let parts: Option<Vec<String>> = pointers.iter().map(|pointer| text_at(pointer)).collect();
    let parts = parts.filter(|parts| !parts.is_empty())?;
    let plain = |part: &String| {
        let lone = parts.len() == 1;
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic() && (lone || b != b'/'))
    };
    let id = parts.join("/");
    (parts.iter().all(plain) && id.len() <= LONGEST_ID).then_some(id)
}

fn claimed_id(descriptor: &Descriptor, claims: &Claims) -> Option<String> {
    if descriptor.identity.id.is_empty() {
        return claims.subject().map(str::to_owned);
    }
    joined_id(&descriptor.identity.id, |pointer| claims.text_at(pointer))
}

/// What the answer says about the provider's own addresses. One that is missing or leads elsewhere ends the exchange: tokens would
/// be sent there (fact sheet G.24).
fn answered_variables(descriptor: &Descriptor, raw: &RawAnswer) -> Result<BTreeMap<String, String>, Failure> {
    let mut said = BTreeMap::new();
    for (name, variable) in &descriptor.variables {
        let VariableSource::Answer(pointer) = &variable.from else { continue };
        let value = raw.text_at(pointer).filter(|value| variable.accepts(value));
        said.insert(name.clone(), value.ok_or(Failure::Unrecognised { code: Code::own("api_address_refused") })?);
    }
    Ok(said)
}

#[async_trait]
impl Provider for Described {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn authorize_url(&self, request: &AuthorizeRequest<'_>) -> Option<Url> {
        authorize_url(&self.descriptor, request)
    }

    async fn exchange(&self, client: Client<'_>, grant: CodeGrant<'_>) -> Result<Exchange, Failure> {
        let mut raw = oauth2::exchange(&self.street, &self.descriptor, client, grant).await?;
        if self.descriptor.response_style == ResponseStyle::Slack {
            return slack::installed(raw, &self.descriptor);
        }
        let variables = answered_variables(&self.descriptor, &raw)?;
        let account = self.account(&mut raw, client, grant.nonce).await?;
        let mut tokens = raw.into_token_set(CredentialKind::User, self.descriptor.expiry, false)?;
        if self.descriptor.needs_refresh_token && tokens.refresh_token.is_none() && !grant.refresh_token_held {
            // Without one the grant would die with its first access token (fact sheet A.3).
            return Err(Failure::Reauth { code: Code::own("refresh_token_missing") });
        }
        tokens.subject = Some(account.id.clone());
        Ok(Exchange { account, tokens: vec![tokens], variables, chat: None })
    }

    async fn refresh(
        &self,
        client: Client<'_>,
        kind: CredentialKind,
        refresh_token: &Secret,
        door: Option<Knock>,
    ) -> Result<TokenSet, Failure> {
        let mut raw = oauth2::refresh(&self.street, &self.descriptor, client, refresh_token, door).await?;
        if self.descriptor.response_style == ResponseStyle::Slack {
            return slack::refreshed(raw, &self.descriptor, kind);
        }
        let identity = &self.descriptor.identity;
        let subject = match (identity.source, std::mem::take(&mut raw.id_token)) {
            (IdentitySource::IdToken, Field::Text(token)) => {
                unverified_claims(&token).and_then(|claims| claimed_id(&self.descriptor, &claims))
            }
            (IdentitySource::Answer, _) => joined_id(&identity.id, |pointer| raw.text_at(pointer)),
            _ => None,
        };
        let mut tokens = raw.into_token_set(kind, self.descriptor.expiry, true)?;
        tokens.subject = subject;
        Ok(tokens)
    }

    async fn exchange_lasting(
        &self,
        client: Client<'_>,
        kind: CredentialKind,
        token: &Secret,
    ) -> Result<TokenSet, Failure> {
        let raw = oauth2::exchange_lasting(&self.street, &self.descriptor, client, token).await?;
        let tokens = slack::refreshed(raw, &self.descriptor, kind)?;
        // Without one there would be nothing to go on with when the new token ends.
        let lacks = Failure::Unrecognised { code: Code::own("refresh_token_missing") };
        if tokens.refresh_token.is_some() { Ok(tokens) } else { Err(lacks) }
    }

    async fn mint(&self, kind: CredentialKind, grant: &Secret) -> Result<TokenSet, Failure> {
        direct::mint(&self.street, &self.descriptor, kind, grant).await
    }

    async fn whose(
        &self,
        kind: CredentialKind,
        secret: &Secret,
        variables: &Variables,
    ) -> Result<Option<Account>, Failure> {
        match self.descriptor.identity.source {
            IdentitySource::Userinfo => self.ask_userinfo(kind, secret, variables).await.map(Some),
            IdentitySource::IdToken | IdentitySource::Answer => Ok(None),
        }
    }

    /// Where one call ends the whole grant, whether other connections share it is for the caller to know (fact sheet A.6). Where
    /// each token ends by itself, both are tried whatever becomes of the first (B.4, OA-17).
    async fn revoke(&self, client: Client<'_>, tokens: &RevokeTokens<'_>) -> Result<(), Failure> {
        let refresh = tokens.refresh.map(|token| (token, "refresh_token"));
        let access = tokens.access.map(|token| (token, "access_token"));
        let shown = match self.descriptor.revoke.tokens {
            RevokeWhich::Either => [refresh.or(access), None],
            RevokeWhich::Access => [access, None],
            RevokeWhich::Both => [refresh, access],
        };
        let mut outcome = Ok(());
        for token in shown.into_iter().flatten() {
            outcome = outcome.and(oauth2::revoke(&self.street, &self.descriptor, client, token).await);
        }
        outcome
    }

    async fn security_event(&self, client_id: &str, token: &Secret) -> Result<Notice, Disbelief> {
        let jwks = self.descriptor.endpoints.jwks.as_ref().and_then(|jwks| jwks.at(Variables::NONE));
        let jwks = jwks.ok_or(Disbelief::Malformed)?;
        let (issuers, now) = (&self.descriptor.endpoints.issuers, self.street.around().now());
        risc::read(&self.keys, token, risc::Expected { jwks: &jwks, issuers, client_id, now }).await
    }

    fn attach(&self, call: ApiCall<'_>, kind: CredentialKind, secret: &Secret) -> Result<Request, AttachError> {
        let url = match &self.descriptor.broker {
            Broker::Calls(rules) => {
                let url = call.url(&self.descriptor)?;
                if !rules.iter().any(|rule| rule.allows(&call.method, call.path)) {
                    return Err(AttachError::MethodNotAllowed);
                }
                url
            }
            Broker::AllBut(_) | Broker::Only(_) => {
                let method = call.method_name(&self.descriptor)?;
                let base = self.descriptor.endpoints.api_base("", call.variables).ok_or(AttachError::UnknownApi)?;
                let mut url = below(&base, method)?;
                url.set_query(call.clean_query()?.as_deref());
                url
            }
        };
        if self.descriptor.response_style == ResponseStyle::Slack && slack::carries_token(&call) {
            return Err(AttachError::CredentialInBody);
        }
        self.with_secret(call.into_request(url), kind, secret).ok_or(AttachError::Token)
    }

    fn shared_as<'a>(&self, kind: CredentialKind, account_id: &'a str) -> Option<&'a str> {
        match self.descriptor.response_style {
            ResponseStyle::Rfc6749 => None,
            ResponseStyle::Slack => slack::shared_as(kind, account_id),
        }
    }

    fn same_account(&self, kind: CredentialKind, account_id: &str, subject: &str) -> bool {
        match self.descriptor.response_style {
            ResponseStyle::Rfc6749 => account_id == subject,
            ResponseStyle::Slack => slack::same_account(kind, account_id, subject),
        }
    }
}

fn authorize_url(descriptor: &Descriptor, request: &AuthorizeRequest<'_>) -> Option<Url> {
    let mut url = descriptor.endpoints.authorize.as_ref()?.at(request.variables)?;
    let rules = &descriptor.scopes;
    let mut scopes: Vec<&str> = rules.fixed.iter().map(String::as_str).collect();
    let of_person = if rules.user_param.is_some() { &[] } else { request.user_scopes };
    for scope in request.scopes.iter().chain(of_person) {
        if !scopes.iter().any(|known| descriptor.canonical_scope(known) == descriptor.canonical_scope(scope)) {
            scopes.push(scope);
        }
    }
    let apart = rules.user_param.as_ref().filter(|_| !request.user_scopes.is_empty());
    if scopes.is_empty() && apart.is_none() && !rules.optional {
        return None;
    }
    {
        let mut query = url.query_pairs_mut();
        query.append_pair("client_id", request.client_id);
        query.append_pair("redirect_uri", request.redirect_uri);
        query.append_pair("response_type", "code");
        if !scopes.is_empty() && !rules.param.is_empty() {
            query.append_pair(&rules.param, &scopes.join(&rules.separator));
        }
        if let Some(param) = apart {
            query.append_pair(param, &request.user_scopes.join(&rules.separator));
        }
        query.append_pair("state", request.state);
        query.extend_pairs(&descriptor.authorize_params);
        if let Some(nonce) = request.nonce.filter(|_| descriptor.identity.source == IdentitySource::IdToken) {
            query.append_pair("nonce", nonce);
        }
        if descriptor.pkce == Pkce::S256 {
            query.append_pair("code_challenge", request.challenge?);
            query.append_pair("code_challenge_method", "S256");
        }
        if let (Some(param), Some(hint)) = (&descriptor.login_hint_param, request.login_hint) {
            query.append_pair(param, hint);
        }
        if request.force_consent {
            query.extend_pairs(&descriptor.force_consent_params);
        }
    }
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::catalogue;
    use crate::providers::errors::classify;
    use std::collections::HashMap;
    use std::time::Duration;

    fn google() -> Descriptor {
        catalogue::known("google")
    }

    fn query(url: &Url) -> HashMap<String, String> {
        url.query_pairs().into_owned().collect()
    }

    #[test]
    fn googles_consent_url_asks_for_offline_access_and_identity() {
        let scopes = ["https://www.googleapis.com/auth/calendar.events".to_owned(), "email".to_owned()];
        let request = AuthorizeRequest {
            client_id: "c",
            redirect_uri: "https://vault.example/oauth/google/callback/int_1",
            state: "s",
            nonce: Some("n"),
            challenge: Some("ch"),
            scopes: &scopes,
            ..AuthorizeRequest::default()
        };
        let url = authorize_url(&google(), &request).expect("a url");
        assert!(url.as_str().starts_with("https://accounts.google.com/o/oauth2/v2/auth?client_id=c&"));
        let seen = query(&url);
        let expected = [
            ("redirect_uri", request.redirect_uri),
            ("response_type", "code"),
            ("scope", "openid email https://www.googleapis.com/auth/calendar.events"),
            ("state", "s"),
            ("nonce", "n"),
            ("access_type", "offline"),
            ("include_granted_scopes", "true"),
            ("code_challenge", "ch"),
            ("code_challenge_method", "S256"),
        ];
        for (name, value) in expected {
            assert_eq!(seen.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!seen.contains_key("prompt") && !seen.contains_key("login_hint"));
    }

    #[test]
    fn consent_is_forced_only_when_asked_for() {
        let request = AuthorizeRequest {
            challenge: Some("ch"),
            login_hint: Some("ada@example.com"),
            force_consent: true,
            ..AuthorizeRequest::default()
        };
        let seen = query(&authorize_url(&google(), &request).expect("a url"));
        assert_eq!(seen.get("prompt").map(String::as_str), Some("consent"));
        assert_eq!(seen.get("login_hint").map(String::as_str), Some("ada@example.com"));
    }

    #[test]
    fn there_is_no_url_without_a_challenge_unless_pkce_is_off() {
        // OA-06
        let request = AuthorizeRequest { client_id: "c", ..AuthorizeRequest::default() };
        assert_eq!(authorize_url(&google(), &request), None);
        let mut off = google();
        off.pkce = Pkce::Off;
        let with = AuthorizeRequest { challenge: Some("ch"), ..request };
        let seen = query(&authorize_url(&off, &with).expect("a url"));
        assert!(!seen.contains_key("code_challenge"));
    }

    #[test]
    fn googles_errors_are_classified() {
        // fact sheet A.5
        let code = Code::own;
        let rows = [
            (400, "invalid_grant", Failure::Reauth { code: code("invalid_grant") }),
            (400, "session_policy", Failure::Reauth { code: code("session_policy") }),
            (401, "invalid_client", Failure::Configuration { code: code("invalid_client") }),
            (401, "deleted_client", Failure::Configuration { code: code("deleted_client") }),
            (400, "disabled_client", Failure::Configuration { code: code("disabled_client") }),
            (401, "unauthorized_client", Failure::Configuration { code: code("unauthorized_client") }),
            (400, "invalid_scope", Failure::Configuration { code: code("invalid_scope") }),
            (400, "invalid_request", Failure::Configuration { code: code("invalid_request") }),
            (400, "unsupported_grant_type", Failure::Configuration { code: code("unsupported_grant_type") }),
            (400, "redirect_uri_mismatch", Failure::Configuration { code: code("redirect_uri_mismatch") }),
            (403, "access_denied", Failure::Admin { code: code("access_denied") }),
            (400, "admin_policy_enforced", Failure::Admin { code: code("admin_policy_enforced") }),
            (403, "org_internal", Failure::Admin { code: code("org_internal") }),
            (500, "internal_failure", Failure::Transient { code: code("internal_failure") }),
            (503, "UNAVAILABLE", Failure::Transient { code: code("unavailable") }),
            (403, "RESOURCE_EXHAUSTED", Failure::RateLimited { after: None }),
            (403, "quota_exceeded", Failure::RateLimited { after: None }),
            (403, "userRateLimitExceeded", Failure::RateLimited { after: None }),
            (429, "invalid_grant", Failure::RateLimited { after: None }),
            (418, "teapot", Failure::Unrecognised { code: code("teapot") }),
        ];
        for (status, word, wanted) in rows {
            assert_eq!(classify(&google().errors, status, &[word], None, false), wanted, "{word}");
        }
    }

    #[test]
    fn slacks_consent_url_keeps_bot_and_user_scopes_apart() {
        let (bot, user) = (["chat:write".to_owned(), "im:write".to_owned()], ["search:read".to_owned()]);
        let request = AuthorizeRequest {
            client_id: "1.2",
            redirect_uri: "https://vault.example/cb",
            state: "s",
            challenge: Some("ch"),
            scopes: &bot,
            user_scopes: &user,
            ..AuthorizeRequest::default()
        };
        let url = authorize_url(&catalogue::known("slack"), &request).expect("a url");
        let seen: HashMap<_, _> = url.query_pairs().into_owned().collect();
        assert_eq!(seen.get("scope").map(String::as_str), Some("chat:write,im:write"));
        assert_eq!(seen.get("user_scope").map(String::as_str), Some("search:read"));
        assert!(!seen.contains_key("code_challenge"), "PKCE is off for Slack (fact sheet B.2)");
        let none = AuthorizeRequest { client_id: "1.2", ..AuthorizeRequest::default() };
        assert_eq!(authorize_url(&catalogue::known("slack"), &none), None, "no_scopes");
    }

    #[test]
    fn slacks_errors_are_classified() {
        // fact sheet B.5
        let code = Code::own;
        let table = catalogue::known("slack").errors;
        for word in ["invalid_refresh_token", "token_revoked", "account_inactive", "invalid_auth", "invalid_code"] {
            assert_eq!(classify(&table, 200, &[word], None, true), Failure::Reauth { code: code(word) }, "{word}");
        }
        for word in ["bad_client_secret", "invalid_client_id", "bad_redirect_uri", "pkce_not_allowed"] {
            let wanted = Failure::Configuration { code: code(word) };
            assert_eq!(classify(&table, 200, &[word], None, true), wanted, "{word}");
        }
        for word in ["internal_error", "fatal_error", "service_unavailable"] {
            assert_eq!(classify(&table, 200, &[word], None, true), Failure::ServerError { code: code(word) });
            assert_eq!(classify(&table, 200, &[word], None, false), Failure::Transient { code: code(word) });
        }
        let not_taken = classify(&table, 200, &["request_timeout"], None, true);
        assert_eq!(not_taken, Failure::Transient { code: code("request_timeout") });
        for word in ["two_factor_setup_required", "access_denied", "enterprise_is_restricted"] {
            assert_eq!(classify(&table, 200, &[word], None, true), Failure::Admin { code: code(word) }, "{word}");
        }
        let after = Some(Duration::from_secs(30));
        assert_eq!(classify(&table, 200, &["ratelimited"], after, true), Failure::RateLimited { after });
        assert_eq!(classify(&table, 429, &["ratelimited"], after, true), Failure::RateLimited { after });
    }
}
