//! The pretend Google as an OpenID provider: discovery, keys, id_tokens and userinfo (A.1, A.7).

use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use data_encoding::BASE64URL_NOPAD;
use http::{HeaderMap, header};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;

use super::faults::{Bend, Place, answered};
use super::google_api;
use super::state::{Account, Provider, Shared, World, json};
use crate::clock::Millis;

/// Signs the sandbox's id_tokens and protects nothing; the file says so, too.
const SANDBOX_ONLY_KEY: &[u8] = include_bytes!("keys/google-signing.pem");

/// The name of the key in the published set.
const KEY_ID: &str = "sandbox-google-1";

/// How long an id_token is valid, in seconds.
const ID_TOKEN_LIFE: i64 = 3600;

/// Signs id_tokens, Google's and Telegram's, and publishes the key to check them.
pub(super) struct Signing {
    key: EncodingKey,
    public: Value,
}

impl Signing {
    pub(super) fn load() -> Result<Self, jsonwebtoken::errors::Error> {
        let key = EncodingKey::from_rsa_pem(SANDBOX_ONLY_KEY)?;
        let mut public = serde_json::to_value(Jwk::from_encoding_key(&key, Algorithm::RS256)?)?;
        public["kid"] = json!(KEY_ID);
        public["use"] = json!("sig");
        Ok(Self { key, public })
    }

    /// A signed id_token; `access_token` goes into `at_hash` (OpenID Connect Core 3.1.3.6).
    pub(super) fn id_token(
        &self,
        base: &Url,
        client_id: &str,
        account: &Account,
        nonce: Option<&str>,
        access_token: &str,
        now: Millis,
    ) -> Option<String> {
        let mut claims = identity(account);
        claims["iss"] = json!(base.as_str().trim_end_matches('/'));
        claims["aud"] = json!(client_id);
        claims["azp"] = json!(client_id);
        claims["iat"] = json!(now.unix_seconds());
        claims["exp"] = json!(now.unix_seconds() + ID_TOKEN_LIFE);
        claims["at_hash"] = json!(BASE64URL_NOPAD.encode(&Sha256::digest(access_token.as_bytes())[..16]));
        if let Some(nonce) = nonce {
            claims["nonce"] = json!(nonce);
        }
        self.sign(&claims)
    }

    pub(super) fn sign(&self, claims: &Value) -> Option<String> {
        let header = Header { kid: Some(KEY_ID.to_owned()), ..Header::new(Algorithm::RS256) };
        jsonwebtoken::encode(&header, claims, &self.key).ok()
    }

    pub(super) fn key_set(&self) -> Value {
        json!({"keys": [self.public]})
    }
}

fn identity(account: &Account) -> Value {
    let mut claims = json!({
        "sub": account.google_sub,
        "email": account.email,
        "email_verified": true,
        "name": account.name,
        "given_name": account.name,
    });
    if let Some(domain) = account.hosted_domain {
        claims["hd"] = json!(domain);
    }
    claims
}

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/.well-known/openid-configuration", get(discovery))
        .route("/oauth2/v3/certs", get(keys))
        .route("/v1/userinfo", get(userinfo).post(userinfo))
}

async fn discovery(State(shared): State<Shared>) -> Json<Value> {
    let base = shared.google_url.as_str();
    Json(json!({
        "issuer": base.trim_end_matches('/'),
        "authorization_endpoint": format!("{base}o/oauth2/v2/auth"),
        "token_endpoint": format!("{base}token"),
        "revocation_endpoint": format!("{base}revoke"),
        "userinfo_endpoint": format!("{base}v1/userinfo"),
        "jwks_uri": format!("{base}oauth2/v3/certs"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "scopes_supported": ["openid", "email", "profile"],
        "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
    }))
}

async fn keys(State(shared): State<Shared>) -> Response {
    let mut answer = json(200, &shared.signing.key_set());
    let life = header::HeaderValue::from_static("public, max-age=3600");
    answer.headers_mut().insert(header::CACHE_CONTROL, life);
    answer
}

async fn userinfo(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let work = |world: &mut World, bend: Bend| match google_api::admitted(world, &headers, &["openid"]) {
        Ok(account) => json(200, &identity(if bend.swap_subject { account.other() } else { account })),
        Err(closed) => closed.answer(),
    };
    answered(&shared, Provider::Google, Place::Api, work).await
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation};
    use serde_json::Value;

    use super::super::testing::{ADA, CLIENT, Street, text};

    #[tokio::test]
    async fn the_id_token_verifies_with_the_published_key_and_carries_the_nonce() {
        let street = Street::start().await;
        let code = street.google_code("openid email", &[("nonce", "n-1")]).await;
        let answer = street.google_exchange(&code).await.json;
        let keys = street.get(street.at_google("oauth2/v3/certs"), "").await.json;
        let token = text(&answer, "id_token");
        let header = jsonwebtoken::decode_header(token).expect("a header");
        assert_eq!((header.alg, header.kid.as_deref()), (Algorithm::RS256, keys["keys"][0]["kid"].as_str()));
        let key =
            DecodingKey::from_rsa_components(text(&keys["keys"][0], "n"), text(&keys["keys"][0], "e")).expect("a key");
        let mut wanted = Validation::new(Algorithm::RS256);
        wanted.set_audience(&[CLIENT]);
        wanted.set_issuer(&[street.sandbox.google.as_str().trim_end_matches('/')]);
        // The sandbox lives in virtual time.
        wanted.validate_exp = false;
        let claims = jsonwebtoken::decode::<Value>(token, &key, &wanted).expect("valid").claims;
        assert_eq!((text(&claims, "nonce"), text(&claims, "email")), ("n-1", ADA));
        assert_eq!(claims["exp"].as_i64().expect("exp") - claims["iat"].as_i64().expect("iat"), 3600);

        let shown = street.get(street.at_google("v1/userinfo"), text(&answer, "access_token")).await.json;
        assert_eq!(shown["sub"], claims["sub"]);
    }

    #[tokio::test]
    async fn discovery_names_endpoints_that_answer() {
        let street = Street::start().await;
        let found = street.get(street.at_google(".well-known/openid-configuration"), "").await.json;
        for name in ["authorization_endpoint", "token_endpoint", "revocation_endpoint", "userinfo_endpoint", "jwks_uri"]
        {
            let url: url::Url = text(&found, name).parse().expect(name);
            assert_ne!(street.get(url, "").await.status, 404, "{name}");
        }
    }
}
