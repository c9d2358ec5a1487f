//! How the platform speaks to others: JSON over plain HTTP, with whatever proves who it is.

use http::{HeaderName, Method};
use serde_json::Value;
use url::Url;

use super::super::person::plain_client;
use super::PlatformError;
use crate::secret::Secret;

/// Somebody who speaks JSON.
pub(super) struct Neighbour {
    /// How the neighbour is called in errors.
    who: &'static str,
    base: Url,
    proof: Option<(HeaderName, Secret)>,
    http: reqwest::Client,
}

impl std::fmt::Debug for Neighbour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Neighbour({})", self.who)
    }
}

impl Neighbour {
    /// `proof` is a header with its secret value.
    pub(super) fn new(
        who: &'static str,
        base: Url,
        proof: Option<(&'static str, Secret)>,
    ) -> Result<Self, PlatformError> {
        let http = plain_client().map_err(|_| PlatformError::NoAnswer(who))?;
        let proof = proof.map(|(name, value)| (HeaderName::from_static(name), value));
        Ok(Self { who, base, proof, http })
    }

    /// The neighbour's own address.
    pub(super) fn base(&self) -> &Url {
        &self.base
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, PlatformError> {
        self.call(Method::GET, path, None).await
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> Result<Value, PlatformError> {
        self.call(Method::POST, path, Some(body)).await
    }

    pub(super) async fn put(&self, path: &str, body: Value) -> Result<Value, PlatformError> {
        self.call(Method::PUT, path, Some(body)).await
    }

    pub(super) async fn delete(&self, path: &str) -> Result<Value, PlatformError> {
        self.call(Method::DELETE, path, None).await
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, PlatformError> {
        let url = self.base.join(path.trim_start_matches('/')).map_err(|_| PlatformError::NoAnswer(self.who))?;
        let what = format!("{method} /{}", path.trim_start_matches('/').split('?').next().unwrap_or_default());
        let mut request = self.http.request(method, url);
        if let Some((name, value)) = &self.proof {
            request = request.header(name, value.expose());
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.map_err(|_| PlatformError::NoAnswer(self.who))?;
        let status = answer.status().as_u16();
        let text = answer.text().await.map_err(|_| PlatformError::NoAnswer(self.who))?;
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        if (200..300).contains(&status) {
            return Ok(value);
        }
        Err(PlatformError::Refused { who: self.who, what, status, why: reason(&value) })
    }
}

/// What an error body says, by the names that the neighbours use.
fn reason(value: &Value) -> String {
    let words = [&value["detail"]["message"], &value["detail"], &value["title"], &value["error"]];
    let mut said = words.into_iter().find_map(Value::as_str).unwrap_or("no reason given").to_owned();
    for error in value["errors"].as_array().into_iter().flatten() {
        said.push_str(&format!("; {error}"));
    }
    said
}
