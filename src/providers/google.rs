//! Google (provider fact sheet A): consent with granular scopes, no rotation, identity by a verified id_token.

use async_trait::async_trait;
use url::Url;

use super::answer::{Field, RawAnswer};
use super::api_call::{ApiCall, AttachError};
use super::descriptor::{Descriptor, Pkce};
use super::errors::{Class, Code, ErrorTable, Failure};
use super::id_token::{Claims, Expected, KeyRing, unverified_subject};
use super::oauth2::{self, Street, no_endpoint};
use super::{Account, AuthorizeRequest, Client, CodeGrant, CredentialKind, Exchange, Provider, RevokeTokens, TokenSet};
use crate::clock::Surroundings;
use crate::outbound::{Knock, Outbound, Request};
use crate::secret::Secret;

/// Fact sheet A.5. `session_policy` is our word for an `error_subtype` about re-authentication.
const ERRORS: ErrorTable = &[
    ("session_policy", Class::Reauth),
    ("deleted_client", Class::Configuration),
    ("disabled_client", Class::Configuration),
    ("admin_policy_enforced", Class::Admin),
    ("org_internal", Class::Admin),
    ("access_denied", Class::Admin),
    ("internal_failure", Class::Transient),
    ("backend_error", Class::Transient),
    ("internal", Class::Transient),
    ("unavailable", Class::Transient),
    ("quota_exceeded", Class::RateLimited),
    ("resource_exhausted", Class::RateLimited),
    // The reasons of its older answers, written in mixed case.
    ("quotaexceeded", Class::RateLimited),
    ("ratelimitexceeded", Class::RateLimited),
    ("userratelimitexceeded", Class::RateLimited),
    ("dailylimitexceeded", Class::RateLimited),
];

pub(super) struct Google {
    descriptor: Descriptor,
    street: Street,
    keys: KeyRing,
}

impl Google {
    pub fn new(descriptor: Descriptor, outbound: Outbound, around: Surroundings) -> Self {
        let street = Street::new(outbound, around);
        Self { descriptor, keys: KeyRing::new(street.clone()), street }
    }

    async fn identity(&self, raw: &mut RawAnswer, client: Client<'_>, nonce: Option<&str>) -> Result<Claims, Failure> {
        let refused = |word| Failure::Unrecognised { code: Code::own(word) };
        let token = match std::mem::take(&mut raw.id_token) {
            Field::Text(token) => token,
            Field::Absent => return Err(refused("id_token_missing")),
            Field::Wrong => return Err(refused("id_token_malformed")),
        };
        let jwks = self.descriptor.endpoints.jwks.as_ref().ok_or_else(no_endpoint)?;
        let issuers = &self.descriptor.endpoints.issuers;
        let expected = Expected { issuers, client_id: client.id, nonce, now: self.street.around().now() };
        self.keys.verify(jwks, &token, expected).await
    }
}

#[async_trait]
impl Provider for Google {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn authorize_url(&self, request: &AuthorizeRequest<'_>) -> Option<Url> {
        authorize_url(&self.descriptor, request)
    }

    async fn exchange(&self, client: Client<'_>, grant: CodeGrant<'_>) -> Result<Exchange, Failure> {
        let mut raw = oauth2::exchange(&self.street, &self.descriptor, ERRORS, client, grant).await?;
        let claims = self.identity(&mut raw, client, grant.nonce).await?;
        let mut tokens = raw.into_token_set(CredentialKind::User, self.descriptor.expiry, false)?;
        if tokens.refresh_token.is_none() && !grant.refresh_token_held {
            // Without one the grant would die within the hour (fact sheet A.3).
            return Err(Failure::Reauth { code: Code::own("refresh_token_missing") });
        }
        let id = claims.subject().map(str::to_owned).unwrap_or_default();
        tokens.subject = Some(id.clone());
        let account = Account { id, email: claims.verified_email(), name: claims.name() };
        Ok(Exchange { account, tokens: vec![tokens] })
    }

    async fn refresh(
        &self,
        client: Client<'_>,
        kind: CredentialKind,
        refresh_token: &Secret,
        door: Option<Knock>,
    ) -> Result<TokenSet, Failure> {
        let mut raw = oauth2::refresh(&self.street, &self.descriptor, ERRORS, client, refresh_token, door).await?;
        let subject = match std::mem::take(&mut raw.id_token) {
            Field::Text(token) => unverified_subject(&token),
            Field::Absent | Field::Wrong => None,
        };
        let mut tokens = raw.into_token_set(kind, self.descriptor.expiry, true)?;
        tokens.subject = subject;
        Ok(tokens)
    }

    /// One call ends the whole grant: revoking either token revokes both, and every scope of the project (fact sheet
    /// A.6). Whether other connections share it is for the caller to know.
    async fn revoke(&self, client: Client<'_>, tokens: &RevokeTokens<'_>) -> Result<(), Failure> {
        let Some(token) = tokens.refresh.or(tokens.access) else { return Ok(()) };
        let url = self.descriptor.endpoints.revoke.as_ref().ok_or_else(no_endpoint)?;
        let hint = if tokens.refresh.is_some() { "refresh_token" } else { "access_token" };
        oauth2::revoke(&self.street, &self.descriptor, ERRORS, url, client, (token, hint)).await
    }

    fn attach(&self, call: ApiCall<'_>, token: &Secret) -> Result<Request, AttachError> {
        let url = call.url(&self.descriptor)?;
        Ok(call.into_request(url).bearer(token))
    }
}

fn authorize_url(descriptor: &Descriptor, request: &AuthorizeRequest<'_>) -> Option<Url> {
    let mut url = descriptor.endpoints.authorize.clone()?;
    let mut scopes: Vec<&str> = descriptor.fixed_scopes.to_vec();
    for scope in request.scopes.iter().chain(request.user_scopes) {
        if !scopes.iter().any(|known| descriptor.canonical_scope(known) == descriptor.canonical_scope(scope)) {
            scopes.push(scope);
        }
    }
    {
        let mut query = url.query_pairs_mut();
        query.append_pair("client_id", request.client_id);
        query.append_pair("redirect_uri", request.redirect_uri);
        query.append_pair("response_type", "code");
        query.append_pair("scope", &scopes.join(&descriptor.scope_separator.to_string()));
        query.append_pair("state", request.state);
        query.extend_pairs(descriptor.authorize_params);
        if let Some(nonce) = request.nonce {
            query.append_pair("nonce", nonce);
        }
        if descriptor.pkce == Pkce::S256 {
            query.append_pair("code_challenge", request.challenge?);
            query.append_pair("code_challenge_method", "S256");
        }
        if let Some(hint) = request.login_hint {
            query.append_pair("login_hint", hint);
        }
        if request.force_consent {
            query.append_pair("prompt", "consent");
        }
    }
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::catalogue;
    use crate::providers::errors::classify;
    use std::collections::{BTreeMap, HashMap};

    fn descriptor() -> Descriptor {
        catalogue::descriptors(&BTreeMap::new()).expect("the catalogue").0
    }

    fn query(url: &Url) -> HashMap<String, String> {
        url.query_pairs().into_owned().collect()
    }

    #[test]
    fn the_consent_url_asks_for_offline_access_and_identity() {
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
        let url = authorize_url(&descriptor(), &request).expect("a url");
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
        let seen = query(&authorize_url(&descriptor(), &request).expect("a url"));
        assert_eq!(seen.get("prompt").map(String::as_str), Some("consent"));
        assert_eq!(seen.get("login_hint").map(String::as_str), Some("ada@example.com"));
    }

    #[test]
    fn there_is_no_url_without_a_challenge_unless_pkce_is_off() {
        // OA-06
        let request = AuthorizeRequest { client_id: "c", ..AuthorizeRequest::default() };
        assert_eq!(authorize_url(&descriptor(), &request), None);
        let mut off = descriptor();
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
            assert_eq!(classify(ERRORS, status, Some(word), None, false), wanted, "{word}");
        }
    }
}
