//! A house on a real database in a folder of its own, and a client that keeps cookies.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Request, StatusCode, header, request};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use super::{House, admin_router, public_router};
use crate::accounts::{NewApiKey, NewMember, NewTenant, Tenant};
use crate::app::App;
use crate::caller::{Caller, Role};
use crate::clock::{Millis, SeededEntropy, Surroundings, TestClock};
use crate::config::{Config, HiddenText, ProviderSettings};
#[cfg(feature = "sandbox")]
use crate::sandbox::{Sandbox, SandboxOptions};
use crate::secret::Secret;
use crate::store::Store;

pub(super) const PUBLIC: &str = "https://vault.example";
pub(super) const PASSWORD: &str = "correct horse battery staple";

pub(super) struct TestHouse {
    pub(super) house: House,
    pub(super) store: Store,
    pub(super) clock: TestClock,
    pub(super) folder: tempfile::TempDir,
}

impl TestHouse {
    pub(super) async fn build() -> Self {
        let (clock, around) = surroundings();
        Self::assemble(clock, around, Vec::new(), BTreeMap::new()).await
    }

    /// A house whose street is the sandbox, with one clock for both.
    #[cfg(feature = "sandbox")]
    pub(super) async fn beside_the_sandbox() -> (Self, Sandbox) {
        let (clock, around) = surroundings();
        let sandbox = Sandbox::start(SandboxOptions::new(around.clone())).await.expect("the sandbox starts");
        let house = Self::assemble(clock, around, sandbox.hosts(), overrides(&sandbox)).await;
        (house, sandbox)
    }

    async fn assemble(
        clock: TestClock,
        around: Surroundings,
        allow: Vec<String>,
        providers: BTreeMap<String, ProviderSettings>,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let hidden = |text: String| HiddenText(Secret::new(text));
        let config = Config {
            database_url: hidden(format!("sqlite:{}", folder.path().join("house.db").display())),
            root_key: Some(hidden("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned())),
            public_url: Some(PUBLIC.parse().expect("url")),
            trusted_proxies: vec!["10.0.0.0/8".to_owned()],
            outbound_allow: allow,
            providers,
            ..Config::default()
        };
        let (house, store) = App::open_doors(&config, around).await.expect("opens");
        Self { house, store, clock, folder }
    }

    pub(super) fn client(&self) -> Client {
        Client { router: public_router(self.house.clone()), cookies: BTreeMap::new(), key: None }
    }

    pub(super) fn operator(&self) -> Client {
        Client { router: admin_router(self.house.clone()), cookies: BTreeMap::new(), key: None }
    }

    pub(super) async fn tenant(&self, name: &str) -> Tenant {
        let return_urls = vec!["https://app.example/back".to_owned()];
        let new = NewTenant { name: name.to_owned(), return_urls, ..NewTenant::default() };
        self.house.accounts.tenant_create(new).await.expect("tenant")
    }

    /// A client with a key of these scopes.
    pub(super) async fn platform(&self, tenant: &Tenant, scopes: &[&str]) -> Client {
        let new = NewApiKey {
            name: "test".to_owned(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            allowed_ips: None,
            expires_at: None,
        };
        let operator = Caller::operator(tenant.id.clone());
        let (_, secret) = self.house.accounts.api_key_create(&operator, new).await.expect("key");
        let secret = serde_json::to_value(&secret).expect("serializes");
        Client { key: secret.as_str().map(str::to_owned), ..self.client() }
    }

    pub(super) async fn member(&self, tenant: &Tenant, email: &str, role: Option<Role>, user: Option<&str>) {
        let new =
            NewMember { email: email.to_owned(), password: Secret::new(PASSWORD), role, user: user.map(str::to_owned) };
        self.house.accounts.member_create(&Caller::operator(tenant.id.clone()), new).await.expect("member");
    }

    pub(super) async fn count(&self, sql: &'static str) -> i64 {
        let Store::Sqlite { readers, .. } = &self.store else { panic!("tests use SQLite") };
        sqlx::query_scalar(sql).fetch_one(readers).await.expect("counts")
    }
}

fn surroundings() -> (TestClock, Surroundings) {
    let clock = TestClock::at(Millis(1_790_000_000_000));
    let around = Surroundings { clock: Arc::new(clock.clone()), entropy: Arc::new(SeededEntropy::new(7)) };
    (clock, around)
}

/// The sandbox's settings as the configuration would read them.
#[cfg(feature = "sandbox")]
fn overrides(sandbox: &Sandbox) -> BTreeMap<String, ProviderSettings> {
    let mut all: BTreeMap<String, serde_json::Map<String, Value>> = BTreeMap::new();
    for (name, value) in sandbox.settings() {
        if let Some((provider, key)) = name.strip_prefix("VALETKEY_PROVIDERS__").and_then(|name| name.split_once("__"))
        {
            all.entry(provider.to_lowercase()).or_default().insert(key.to_lowercase(), value.into());
        }
    }
    let read = |settings| serde_json::from_value(Value::Object(settings)).expect("settings");
    all.into_iter().map(|(provider, settings)| (provider, read(settings))).collect()
}

#[derive(Clone)]
pub(super) struct Client {
    router: Router,
    cookies: BTreeMap<String, String>,
    pub(super) key: Option<String>,
}

#[derive(Debug)]
pub(super) struct Got {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Got {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {} {}", self.status, self.text))
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    pub(super) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The value of the hidden field of the page's form.
    pub(super) fn csrf(&self) -> String {
        let (_, rest) = self.text.split_once("name=\"csrf\" value=\"").expect("a form");
        rest.split('"').next().unwrap_or_default().to_owned()
    }
}

impl Client {
    pub(super) async fn send(&mut self, request: request::Builder, body: impl Into<Body>) -> Got {
        let mut request = request.body(body.into()).expect("request");
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([203, 0, 113, 7], 4711))));
        if let Some(key) = &self.key {
            request.headers_mut().insert(header::AUTHORIZATION, format!("Bearer {key}").parse().expect("header"));
        }
        if !self.cookies.is_empty() {
            let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            request.headers_mut().insert(header::COOKIE, cookies.join("; ").parse().expect("header"));
        }
        let answer = self.router.clone().oneshot(request).await.expect("answers");
        let (parts, body) = answer.into_parts();
        for cookie in parts.headers.get_all(header::SET_COOKIE) {
            self.take_cookie(cookie.to_str().expect("text"));
        }
        let bytes = body.collect().await.expect("body").to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Got { status: parts.status, headers: parts.headers, text }
    }

    /// WB-01: every cookie that is ever set has every attribute.
    fn take_cookie(&mut self, cookie: &str) {
        for attribute in ["; Secure", "; HttpOnly", "; SameSite=Lax", "; Path=/"] {
            assert!(cookie.contains(attribute), "{cookie}");
        }
        assert!(!cookie.contains("Domain"), "{cookie}");
        let (name, rest) = cookie.split_once('=').expect("a cookie");
        let value = rest.split(';').next().unwrap_or_default();
        assert!(name.starts_with("__Host-"));
        if value.is_empty() {
            self.cookies.remove(name);
        } else {
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
    }

    pub(super) fn cookie(&self) -> Option<String> {
        self.cookies.values().next().cloned()
    }

    pub(super) fn set_cookie(&mut self, value: &str) {
        self.cookies.insert("__Host-valetkey".to_owned(), value.to_owned());
    }

    pub(super) async fn get(&mut self, path: &str) -> Got {
        self.send(Request::get(path), Body::empty()).await
    }

    pub(super) async fn json(&mut self, method: &str, path: &str, body: &Value) -> Got {
        let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
        self.send(request, body.to_string()).await
    }

    pub(super) async fn keyed(&mut self, key: &str, path: &str, body: &Value) -> Got {
        let request =
            Request::post(path).header(header::CONTENT_TYPE, "application/json").header("idempotency-key", key);
        self.send(request, body.to_string()).await
    }

    pub(super) async fn post_form(&mut self, path: &str, fields: &[(&str, &str)]) -> Got {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header("sec-fetch-site", "same-origin")
            .header(header::ORIGIN, "null");
        self.send(request, body).await
    }

    /// Presses the button of a form on another site's page: browsers leave such cookies as ours at home then, and take in new ones.
    pub(super) async fn press_at(&mut self, origin: &str, path: &str, fields: &str) -> Got {
        let mut there = Self { cookies: BTreeMap::new(), ..self.clone() };
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ORIGIN, origin)
            .header("sec-fetch-site", "cross-site")
            .header("sec-fetch-mode", "navigate")
            .header("sec-fetch-dest", "document");
        let got = there.send(request, fields.to_owned()).await;
        self.cookies.append(&mut there.cookies);
        got
    }

    pub(super) async fn sign_in(&mut self, email: &str) -> Got {
        let csrf = self.get("/sign-in").await.csrf();
        self.post_form("/sign-in", &[("csrf", &csrf), ("email", email), ("password", PASSWORD)]).await
    }
}
