//! A provider on the loopback interface for tests: scripted answers, recorded requests.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::IntoResponse;
use http::{HeaderMap, Method, StatusCode, Uri};
use url::Url;

use crate::outbound::Outbound;

/// What a request looked like when it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: String,
}

impl Seen {
    /// A field of the form.
    pub fn field(&self, name: &str) -> Option<String> {
        let mut pairs = url::form_urlencoded::parse(self.body.as_bytes());
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

type Scripted = (u16, Vec<(&'static str, String)>, String);

#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Scripted>>,
    seen: Mutex<Vec<Seen>>,
}

/// The pretend provider.
pub struct Loopback {
    pub address: SocketAddr,
    script: Arc<Script>,
}

impl Loopback {
    /// Listens on a free port. Without a script every answer is 404.
    pub async fn start() -> Self {
        let script = Arc::new(Script::default());
        let app = Router::new().fallback(answer).with_state(script.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, script }
    }

    /// Adds the next answer.
    pub fn then(&self, status: u16, body: impl Into<String>) -> &Self {
        self.then_with(status, &[], body)
    }

    /// Adds the next answer, with headers.
    pub fn then_with(&self, status: u16, headers: &[(&'static str, &str)], body: impl Into<String>) -> &Self {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.script.answers.lock().expect("lock").push_back((status, headers, body.into()));
        self
    }

    /// What arrived so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.script.seen.lock().expect("lock").clone()
    }

    pub fn url(&self, path: &str) -> Url {
        format!("http://{}{path}", self.address).parse().expect("a url")
    }

    /// The gate, open to this provider only.
    pub fn outbound(&self) -> Outbound {
        outbound(&[self.address.to_string()])
    }
}

/// A gate that may call these pairs over plain http.
pub fn outbound(allow: &[String]) -> Outbound {
    Outbound::new(allow).expect("a gate")
}

async fn answer(
    State(script): State<Arc<Script>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse {
    let body = String::from_utf8_lossy(&body).into_owned();
    script.seen.lock().expect("lock").push(Seen { method, uri, headers, body });
    let next = script.answers.lock().expect("lock").pop_front();
    let (status, extra, body) = next.unwrap_or((404, Vec::new(), String::new()));
    let mut headers = HeaderMap::new();
    for (name, value) in extra {
        headers.insert(name, value.parse().expect("a header"));
    }
    (StatusCode::from_u16(status).expect("a status"), headers, body)
}
