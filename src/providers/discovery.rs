//! What an authorization server publishes about itself (OpenID Connect Discovery 1.0, RFC 8414), made into a row of the catalogue.
//!
//! An operator asks for it once, looks at the row and puts it into the own catalogue: from then on its addresses are pinned. Nothing
//! is discovered while tokens are in use, so nobody who comes to control such a document can move where codes and client secrets go
//! (OA-18). What the document does not tell keeps the careful value of a provider that nobody has looked at.

use std::collections::BTreeMap;

use jsonwebtoken::Algorithm;
use serde::{Deserialize, Serialize};
use url::Url;

use super::catalogue::{self, CatalogueError};
use super::id_token::ALGORITHMS;
use crate::outbound::{Limits, Outbound, OutboundError, Request, Response};

/// Scopes beside `openid` that are asked for where they are known: to have a refresh token, and to show people which account it is.
const WISHED: [&str; 2] = ["offline_access", "email"];

/// Why no row could be made.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// What was given is no issuer (RFC 8414 section 2).
    #[error("{0:?} is no issuer: it must be an https address without user name, question mark and fragment")]
    NoIssuer(String),
    /// Nobody answered.
    #[error("{url} could not be asked")]
    Unanswered {
        /// Where.
        url: Url,
        /// Why.
        source: OutboundError,
    },
    /// There is no such document.
    #[error("{url} answers with status {status}; there is no document")]
    NoDocument {
        /// Where it was looked for first.
        url: Url,
        /// What came.
        status: u16,
    },
    /// What is there is no such document.
    #[error("{url} holds no metadata of an authorization server")]
    Unreadable {
        /// Where.
        url: Url,
        /// Why.
        source: serde_json::Error,
    },
    /// The document is somebody else's (RFC 8414 section 3.3, OA-18).
    #[error("the document is that of the issuer {said:?}, which is not {asked:?} to the letter")]
    OtherIssuer {
        /// Whose it should be.
        asked: String,
        /// Whose it is.
        said: String,
    },
    /// Without this there is nothing to be done.
    #[error("the document does not tell {0}")]
    Missing(&'static str),
    /// The server wants something that Valetkey does not do.
    #[error("the server offers no {0}")]
    Unsupported(&'static str),
    /// A value of the document, or of what was given beside it, is no value of a catalogue.
    #[error(transparent)]
    Row(#[from] CatalogueError),
}

/// What of the document is used (RFC 8414 section 2, OpenID Connect Discovery 1.0 section 3).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Metadata {
    issuer: String,
    authorization_endpoint: Option<String>,
    token_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    userinfo_endpoint: Option<String>,
    jwks_uri: Option<String>,
    service_documentation: Option<String>,
    scopes_supported: Vec<String>,
    code_challenge_methods_supported: Option<Vec<String>>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    id_token_signing_alg_values_supported: Vec<String>,
    authorization_response_iss_parameter_supported: bool,
}

/// What an operator says about a provider.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// The id that it is to have in the catalogue.
    pub id: &'a str,
    /// Its name on pages.
    pub display_name: &'a str,
    /// Where its API lives. Without one the broker makes no calls.
    pub api: Option<&'a str>,
}

/// A row of the catalogue, as far as a document tells it.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    display_name: String,
    docs_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pkce: Option<&'static str>,
    client_auth: &'static str,
    scopes: Scopes,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    force_consent_params: BTreeMap<&'static str, &'static str>,
    identity: Identity,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    revoke: BTreeMap<&'static str, &'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    broker: Option<BTreeMap<&'static str, BTreeMap<String, bool>>>,
    endpoints: Endpoints,
}

#[derive(Clone, Debug, Serialize)]
struct Scopes {
    fixed: Vec<&'static str>,
}

#[derive(Clone, Debug, Serialize)]
struct Identity {
    source: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    id: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    algorithms: Vec<Algorithm>,
}

#[derive(Clone, Debug, Serialize)]
struct Endpoints {
    authorize: String,
    token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoke: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    userinfo: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwks: Option<String>,
    issuers: Vec<String>,
    names_issuer: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    api: BTreeMap<&'static str, String>,
}

/// Fetches the document of an issuer, by the address of OpenID Connect and, where nothing is there, by that of RFC 8414.
///
/// # Errors
/// [`DiscoveryError`]. Redirects are not followed.
pub async fn metadata(outbound: &Outbound, issuer: &str) -> Result<Metadata, DiscoveryError> {
    let [first, second] = addresses(issuer).ok_or_else(|| DiscoveryError::NoIssuer(issuer.to_owned()))?;
    let (url, answer) = match fetch(outbound, &first).await {
        Ok(answer) => (first, answer),
        Err(DiscoveryError::NoDocument { status, .. }) => match fetch(outbound, &second).await {
            Ok(answer) => (second, answer),
            Err(DiscoveryError::NoDocument { .. }) => return Err(DiscoveryError::NoDocument { url: first, status }),
            Err(other) => return Err(other),
        },
        Err(other) => return Err(other),
    };
    let said: Metadata =
        serde_json::from_slice(&answer.body).map_err(|source| DiscoveryError::Unreadable { url, source })?;
    if said.issuer != issuer {
        return Err(DiscoveryError::OtherIssuer { asked: issuer.to_owned(), said: said.issuer });
    }
    Ok(said)
}

/// Where the document can be: OpenID Connect puts its name behind the issuer's path, RFC 8414 (section 3.1) before it.
fn addresses(issuer: &str) -> Option<[Url; 2]> {
    let url = Url::parse(issuer).ok()?;
    let is_plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    let path = url.path().trim_end_matches('/').to_owned();
    let at = |path: String| {
        let mut url = url.clone();
        url.set_path(&path);
        url
    };
    (is_plain && url.has_host() && url.password().is_none()).then(|| {
        [
            at(format!("{path}/.well-known/openid-configuration")),
            at(format!("/.well-known/oauth-authorization-server{path}")),
        ]
    })
}

async fn fetch(outbound: &Outbound, url: &Url) -> Result<Response, DiscoveryError> {
    let request = Request::get(url.clone()).accept_json().limits(Limits::token());
    match outbound.send(request).await {
        Ok(answer) if answer.status == 200 => Ok(answer),
        Ok(answer) => Err(DiscoveryError::NoDocument { url: url.clone(), status: answer.status }),
        Err(source) => Err(DiscoveryError::Unanswered { url: url.clone(), source }),
    }
}

impl Metadata {
    /// The row that the document tells, once the catalogue takes it.
    ///
    /// # Errors
    /// [`DiscoveryError::Missing`], [`DiscoveryError::Unsupported`], and [`DiscoveryError::Row`] for an id or an address that no
    /// catalogue may have.
    pub fn row(&self, named: Named<'_>) -> Result<Row, DiscoveryError> {
        let (authorize, token) = (self.authorization_endpoint.clone(), self.token_endpoint.clone());
        let known = |scope: &&str| self.scopes_supported.iter().any(|one| one == scope);
        let identity = self.identity()?;
        let mut fixed: Vec<_> = WISHED.into_iter().filter(known).collect();
        if identity.source == "id_token" || known(&"openid") {
            fixed.insert(0, "openid");
        }
        // An offline grant comes only with the person's consent (OpenID Connect Core section 11).
        let offline = fixed.contains(&"offline_access").then_some(("prompt", "consent"));
        let row = Row {
            display_name: named.display_name.to_owned(),
            docs_url: self.service_documentation.clone().unwrap_or_else(|| self.issuer.clone()),
            pkce: self.pkce(),
            client_auth: self.client_auth()?,
            scopes: Scopes { fixed },
            force_consent_params: offline.into_iter().collect(),
            identity,
            revoke: self.revocation_endpoint.iter().map(|_| ("style", "rfc7009")).collect(),
            broker: named.api.is_none().then(|| BTreeMap::from([("only", BTreeMap::new())])),
            endpoints: Endpoints {
                authorize: authorize.ok_or(DiscoveryError::Missing("authorization_endpoint"))?,
                token: token.ok_or(DiscoveryError::Missing("token_endpoint"))?,
                revoke: self.revocation_endpoint.clone(),
                userinfo: self.userinfo_endpoint.clone(),
                jwks: self.jwks_uri.clone(),
                issuers: vec![self.issuer.clone()],
                names_issuer: self.authorization_response_iss_parameter_supported,
                api: named.api.iter().map(|api| ("", (*api).to_owned())).collect(),
            },
        };
        catalogue::fits(named.id, &row)?;
        Ok(row)
    }

    /// A challenge is sent to whoever does not say that it takes none.
    fn pkce(&self) -> Option<&'static str> {
        let methods = self.code_challenge_methods_supported.as_ref()?;
        (!methods.iter().any(|one| one == "S256")).then_some("off")
    }

    fn client_auth(&self) -> Result<&'static str, DiscoveryError> {
        let Some(methods) = &self.token_endpoint_auth_methods_supported else { return Ok("basic") };
        let known = [("client_secret_basic", "basic"), ("client_secret_post", "post")];
        let first = known.into_iter().find(|(name, _)| methods.iter().any(|one| one == name));
        first.map(|(_, ours)| ours).ok_or(DiscoveryError::Unsupported("client_secret_basic and no client_secret_post"))
    }

    fn identity(&self) -> Result<Identity, DiscoveryError> {
        let signs_with = |one: &Algorithm| {
            let name = serde_json::to_value(one).unwrap_or_default();
            self.id_token_signing_alg_values_supported.iter().any(|said| name == said.as_str())
        };
        let algorithms: Vec<_> = ALGORITHMS.into_iter().filter(signs_with).collect();
        if self.jwks_uri.is_some() && !algorithms.is_empty() {
            return Ok(Identity { source: "id_token", id: Vec::new(), algorithms });
        }
        match self.userinfo_endpoint {
            Some(_) => Ok(Identity { source: "userinfo", id: vec!["/sub"], algorithms: Vec::new() }),
            None => Err(DiscoveryError::Unsupported(
                "id_token signed with RS256, ES256 or EdDSA and no userinfo, so nobody would know whose an account is",
            )),
        }
    }
}

impl Row {
    /// The row as it stands in a catalogue's file, under its id.
    #[must_use]
    pub fn to_toml(&self, id: &str) -> String {
        toml::to_string(&BTreeMap::from([(id, self)])).unwrap_or_default()
    }

    /// Hosts of its addresses that are not the issuer's: a person should know them.
    #[must_use]
    pub fn other_hosts(&self) -> Vec<String> {
        let ends = &self.endpoints;
        let host = |text: &str| Url::parse(text).ok()?.host_str().map(str::to_owned);
        let own = ends.issuers.first().and_then(|issuer| host(issuer));
        let all = [Some(&ends.authorize), Some(&ends.token), ends.revoke.as_ref(), ends.userinfo.as_ref()];
        let mut hosts: Vec<_> =
            all.into_iter().chain([ends.jwks.as_ref()]).flatten().filter_map(|one| host(one)).collect();
        hosts.sort();
        hosts.dedup();
        hosts.retain(|one| Some(one) != own.as_ref());
        hosts
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::providers::catalogue::known;
    use crate::providers::descriptor::{ClientAuth, IdentitySource, Pkce, Replay, RevokeStyle};
    use crate::providers::loopback::Loopback;

    const ACME: Named<'_> = Named { id: "acme", display_name: "Acme", api: Some("https://api.acme.example/v1") };

    fn document(change: &Value) -> Metadata {
        let mut all = json!({
            "issuer": "https://id.acme.example",
            "authorization_endpoint": "https://id.acme.example/auth",
            "token_endpoint": "https://id.acme.example/token",
            "revocation_endpoint": "https://id.acme.example/token/revocation",
            "userinfo_endpoint": "https://id.acme.example/me",
            "jwks_uri": "https://keys.acme.example/jwks",
            "scopes_supported": ["openid", "offline_access", "email", "profile"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic", "private_key_jwt"],
            "id_token_signing_alg_values_supported": ["PS256", "ES256", "RS256"],
            "authorization_response_iss_parameter_supported": true
        });
        for (name, value) in change.as_object().expect("an object") {
            all[name] = value.clone();
        }
        serde_json::from_value(all).expect("a document")
    }

    fn read_back(metadata: &Metadata, named: Named<'_>) -> crate::providers::Descriptor {
        let text = metadata.row(named).expect("a row").to_toml(named.id);
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &text).expect("written");
        let all = catalogue::descriptors(Some(file.path()), &BTreeMap::new());
        let all = all.unwrap_or_else(|error| panic!("{error}\n{text}"));
        all.into_iter().find(|row| row.id == named.id).expect("there")
    }

    #[test]
    fn a_document_becomes_a_row_that_the_catalogue_takes() {
        let row = read_back(&document(&json!({})), ACME);
        assert_eq!(row.endpoints.issuers, ["https://id.acme.example"]);
        assert!(row.endpoints.names_issuer, "OA-05");
        assert_eq!((row.pkce, row.client_auth), (Pkce::S256, ClientAuth::Basic));
        assert_eq!(row.scopes.fixed, ["openid", "offline_access", "email"]);
        assert_eq!(row.force_consent_params["prompt"], "consent");
        assert_eq!(row.identity.source, IdentitySource::IdToken);
        assert_eq!(row.identity.algorithms, [Algorithm::RS256, Algorithm::ES256]);
        assert_eq!(row.revoke.style, RevokeStyle::Rfc7009);
        assert_eq!(row.replay, Replay::Unsafe, "nothing is assumed about a provider that nobody has looked at");
        let at = row.endpoints.api_base("messages", super::super::Variables::NONE).expect("an API");
        assert_eq!(at.as_str(), "https://api.acme.example/v1");
        let hosts = document(&json!({})).row(ACME).expect("a row").other_hosts();
        assert_eq!(hosts, ["keys.acme.example"]);
    }

    #[test]
    fn what_a_document_does_not_tell_is_what_its_standard_says_it_means() {
        let none = Value::Null;
        let bare = json!({"token_endpoint_auth_methods_supported": none, "code_challenge_methods_supported": none,
            "scopes_supported": [], "authorization_response_iss_parameter_supported": false, "revocation_endpoint": none,
            "id_token_signing_alg_values_supported": []});
        let row = read_back(&document(&bare), Named { api: None, ..ACME });
        assert_eq!((row.client_auth, row.pkce), (ClientAuth::Basic, Pkce::S256));
        assert!(!row.endpoints.names_issuer && !row.revocable());
        assert_eq!(
            (row.identity.source, row.identity.id.as_slice()),
            (IdentitySource::Userinfo, &["/sub".to_owned()][..])
        );
        assert!(row.scopes.fixed.is_empty(), "an OAuth server without OpenID Connect has no such scope");
        assert_eq!(row.carries_chat("anything"), None, "no broker calls without an API");
        let plain = document(&json!({"code_challenge_methods_supported": ["plain"]}));
        assert_eq!(read_back(&plain, ACME).pkce, Pkce::Off);
    }

    #[test]
    fn what_cannot_work_is_said() {
        let none = Value::Null;
        let rows = [
            (json!({"token_endpoint": none}), "token_endpoint"),
            (json!({"authorization_endpoint": none}), "authorization_endpoint"),
            (json!({"token_endpoint_auth_methods_supported": ["private_key_jwt"]}), "client_secret_basic"),
            (json!({"jwks_uri": none, "userinfo_endpoint": none}), "whose an account is"),
            (json!({"token_endpoint": "http://id.acme.example/token"}), "must be an https address"),
        ];
        for (change, wanted) in rows {
            let error = document(&change).row(ACME).map(|_| ()).expect_err(wanted).to_string();
            assert!(error.contains(wanted), "{change}: {error}");
        }
        for id in ["google", "Acme", ""] {
            let error = document(&json!({})).row(Named { id, ..ACME }).map(|_| ()).expect_err(id);
            assert!(matches!(error, DiscoveryError::Row(_)), "{id}: {error}");
        }
        assert!(known("google").verified, "a row of ours is not replaced unnoticed");
    }

    #[tokio::test]
    async fn oa_18_a_document_of_another_issuer_is_refused() {
        let provider = Loopback::start().await;
        let issuer = provider.url("/tenant").to_string();
        let said = |issuer: &str| json!({"issuer": issuer, "token_endpoint": "https://a.example"}).to_string();
        provider.then(200, said(&issuer));
        let found = metadata(&provider.outbound(), &issuer).await.expect("its own");
        assert_eq!(found.token_endpoint.as_deref(), Some("https://a.example"));
        for other in [format!("{issuer}/"), provider.url("/").to_string(), issuer.to_uppercase(), String::new()] {
            provider.then(200, said(&other));
            let error = metadata(&provider.outbound(), &issuer).await.expect_err("another's");
            assert!(matches!(error, DiscoveryError::OtherIssuer { .. }), "{other}: {error}");
        }
        provider
            .then_with(302, &[("location", "https://evil.example/.well-known/openid-configuration")], "")
            .then(404, "");
        let error = metadata(&provider.outbound(), &issuer).await.expect_err("no redirects");
        assert!(matches!(error, DiscoveryError::NoDocument { status: 302, .. }), "{error}");
    }

    #[tokio::test]
    async fn the_address_of_oauth_is_asked_where_openid_connect_has_none() {
        let provider = Loopback::start().await;
        let issuer = provider.url("/tenant").to_string();
        provider.then(404, "").then(200, json!({ "issuer": issuer }).to_string());
        metadata(&provider.outbound(), &issuer).await.expect("found");
        let paths: Vec<_> = provider.seen().iter().map(|seen| seen.uri.path().to_owned()).collect();
        assert_eq!(
            paths,
            ["/tenant/.well-known/openid-configuration", "/.well-known/oauth-authorization-server/tenant"]
        );
        provider.then(200, "<html>");
        let error = metadata(&provider.outbound(), &issuer).await.expect_err("a page");
        assert!(matches!(error, DiscoveryError::Unreadable { .. }), "{error}");
        for bad in ["acme", "https://a@b.example", "https://a.example/?tenant=1", "https://a.example/#x"] {
            let error = metadata(&provider.outbound(), bad).await.expect_err(bad);
            assert!(matches!(error, DiscoveryError::NoIssuer(_)), "{bad}: {error}");
        }
    }
}
