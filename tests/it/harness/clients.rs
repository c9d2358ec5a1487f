//! Clients of the house over real HTTP. Every answer is recorded; those that are exits for a secret are recorded with
//! the kinds of secrets that they may carry, and searched for all others.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use reqwest::Method;
use reqwest::header::{HeaderMap, SET_COOKIE};
use serde_json::Value;
use url::Url;

use super::{Kind, Known};

/// An answer.
#[derive(Clone, Debug)]
pub struct Got {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {} {}", self.status, self.text))
    }

    /// The answer, which must be a success.
    pub fn ok(&self) -> Value {
        assert!((200..300).contains(&self.status), "{} {}", self.status, self.text);
        if self.text.is_empty() { Value::Null } else { self.json() }
    }

    /// The problem's code.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Status and code, for one comparison.
    pub fn problem(&self) -> (u16, String) {
        (self.status, self.code())
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    /// The body without the request's id: refusals are equal but for `instance` (API.md section 6, point 8).
    pub fn without_instance(&self) -> String {
        let id = self.header("x-request-id").to_owned();
        assert!(!id.is_empty() && self.text.contains(&id), "{}", self.text);
        self.text.replace(&id, "")
    }

    /// The hidden field of the page's form.
    pub fn csrf(&self) -> String {
        let (_, rest) = self.text.split_once("name=\"csrf\" value=\"").expect("a form");
        rest.split('"').next().unwrap_or_default().to_owned()
    }
}

/// Somebody outside: with a key, a ticket, cookies, or nothing.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    known: Rc<RefCell<Known>>,
    headers: Vec<(&'static str, String)>,
    cookies: BTreeMap<String, String>,
}

impl Client {
    pub fn new(http: reqwest::Client, base: Url, known: Rc<RefCell<Known>>) -> Self {
        Self { http, base, known, headers: Vec::new(), cookies: BTreeMap::new() }
    }

    pub(super) fn at(&self, base: Url) -> Self {
        Self { base, ..self.clone() }
    }

    /// The same, with one more header on every request.
    pub fn with(&self, name: &'static str, value: &str) -> Self {
        let mut other = self.clone();
        other.headers.retain(|(known, _)| *known != name);
        other.headers.push((name, value.to_owned()));
        other
    }

    /// The same, with a platform key.
    pub fn with_key(&self, key: &str) -> Self {
        self.known.borrow_mut().learn(Kind::PlatformKey, key);
        self.with("authorization", &format!("Bearer {key}"))
    }

    /// An agent's tool: both proofs of API.md section 4.
    pub fn ticket(&self, ticket: &str, tool_header: &str) -> Self {
        self.known.borrow_mut().learn(Kind::Ticket, ticket);
        self.with("authorization", &format!("Bearer {ticket}")).with("x-valetkey-workspace", tool_header)
    }

    pub async fn get(&mut self, path: &str) -> Got {
        let got = self.read(path).await;
        self.keep_cookies(&got);
        got
    }

    /// A GET that keeps no cookies.
    pub async fn read(&self, path: &str) -> Got {
        self.request(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Got {
        self.request(Method::POST, path, Some(body)).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Got {
        self.request(Method::PUT, path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Got {
        self.request(Method::DELETE, path, None).await
    }

    /// Any method; a body is JSON.
    pub async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Got {
        let body = body.map(|body| ("application/json", body.to_string()));
        self.send(method, path, body).await
    }

    /// Submits a page's form, as a browser on our own page does.
    pub async fn submit(&mut self, path: &str, fields: &[(&str, &str)]) -> Got {
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let form = Some(("application/x-www-form-urlencoded", form));
        let browser = self.with("sec-fetch-site", "same-origin").with("origin", "null");
        let got = browser.send(Method::POST, path, form).await;
        self.keep_cookies(&got);
        got
    }

    async fn send(&self, method: Method, path: &str, body: Option<(&str, String)>) -> Got {
        // Joined as text: what is wrong with a path must arrive as it is.
        let url = format!("{}{path}", self.base.as_str().trim_end_matches('/'));
        let mut request = self.http.request(method.clone(), url);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        if !self.cookies.is_empty() {
            let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            request = request.header("cookie", cookies.join("; "));
        }
        if let Some((kind, text)) = body {
            request = request.header("content-type", kind).body(text);
        }
        let answer = request.send().await.expect("the house answers");
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = answer.text().await.expect("a text");
        let got = Got { status, headers, text };
        self.known.borrow_mut().record_answer(method.as_str(), path, &got.headers, &got.text);
        got
    }

    fn keep_cookies(&mut self, got: &Got) {
        for cookie in got.headers.get_all(SET_COOKIE) {
            let cookie = cookie.to_str().expect("text");
            let (name, rest) = cookie.split_once('=').expect("a cookie");
            let value = rest.split(';').next().unwrap_or_default();
            if value.is_empty() {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }
}
