//! A token endpoint that a story answers for, call by call: for crowds, weather and counting, where the sandbox's own
//! manners are not the point. It is a provider of family F1, whose refresh tokens stay as they are; or, speaking like Slack,
//! one of family F5, with whom every refresh token is good once.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Form, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::stream;
use http::StatusCode;
use tokio::sync::Semaphore;
use valetkey::clock::{Clock, Millis, Stopwatch, TestClock, pause};

/// How one call is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A new access token of an hour.
    Fresh,
    /// An OAuth error with this status.
    Error(u16, &'static str),
    /// 429 with this `Retry-After`.
    TooMany(String),
    /// A token, after so long.
    Late(Duration),
    /// This, once the gate is closed for good: `Semaphore::close`.
    WhenTold(Arc<Semaphore>, Box<Self>),
    /// Some proxy's page with this status; nothing was done.
    BadGateway(u16),
    /// The line breaks in the middle of the answer; nothing was done.
    Cut,
    /// A server fails after everything was done: the token is spent, and nobody hears of its successor.
    SpentAndFailed(u16),
    /// As that, in the words of OAuth.
    SpentAndSaid(u16, &'static str),
}

/// A call: when it came by the story's clock and by the wall's, and for whom.
#[derive(Clone, Debug)]
pub struct Call {
    pub at: Millis,
    pub wall: Duration,
    pub refresh_token: String,
}

type Manner = Box<dyn FnMut(u64, &Call) -> Answer + Send>;

#[derive(Clone)]
struct Shared {
    clock: TestClock,
    watch: Arc<Stopwatch>,
    calls: Arc<Mutex<Vec<Call>>>,
    manner: Arc<Mutex<Manner>>,
    issued: Arc<AtomicU64>,
    nonce: Arc<String>,
    /// The refresh tokens that were spent, where they are good once.
    spent: Option<Arc<Mutex<HashSet<String>>>>,
}

pub struct TokenEndpoint {
    pub url: String,
    shared: Shared,
}

#[derive(serde::Deserialize)]
struct Asked {
    refresh_token: String,
}

impl TokenEndpoint {
    /// Answers every call with a fresh token until told otherwise. `nonce` makes this story's tokens its own.
    pub async fn start(clock: &TestClock, nonce: &str, rotates: bool) -> Self {
        let shared = Shared {
            clock: clock.clone(),
            watch: Arc::new(Stopwatch::start()),
            calls: Arc::default(),
            manner: Arc::new(Mutex::new(Box::new(|_, _| Answer::Fresh))),
            issued: Arc::default(),
            nonce: Arc::new(nonce.to_owned()),
            spent: rotates.then(Arc::default),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/token", listener.local_addr().expect("an address"));
        let router = Router::new().route("/token", post(token)).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, shared }
    }

    /// From now on calls are answered so; the first argument counts them from 0.
    pub fn answer(&self, manner: impl FnMut(u64, &Call) -> Answer + Send + 'static) {
        *locked(&self.shared.manner) = Box::new(manner);
    }

    /// Every call so far.
    pub fn calls(&self) -> Vec<Call> {
        locked(&self.shared.calls).clone()
    }

    /// How many calls there were.
    pub fn count(&self) -> usize {
        locked(&self.shared.calls).len()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn token(State(shared): State<Shared>, Form(asked): Form<Asked>) -> Response {
    let call = Call { at: shared.clock.now(), wall: shared.watch.elapsed(), refresh_token: asked.refresh_token };
    let number = {
        let mut calls = locked(&shared.calls);
        calls.push(call.clone());
        calls.len() as u64 - 1
    };
    let mut answer = locked(&shared.manner)(number, &call);
    if let Answer::WhenTold(gate, then) = answer {
        assert!(gate.acquire().await.is_err(), "there are no permits");
        answer = *then;
    }
    match answer {
        Answer::WhenTold(..) => unreachable!("one gate is enough"),
        Answer::Fresh => fresh(&shared, call.refresh_token),
        Answer::Late(span) => {
            pause(span).await;
            fresh(&shared, call.refresh_token)
        }
        Answer::SpentAndFailed(status) => {
            fresh(&shared, call.refresh_token);
            (StatusCode::from_u16(status).expect("a status"), "<html>Sorry</html>").into_response()
        }
        Answer::SpentAndSaid(status, error) => {
            fresh(&shared, call.refresh_token);
            let body = axum::Json(serde_json::json!({ "ok": false, "error": error }));
            (StatusCode::from_u16(status).expect("a status"), body).into_response()
        }
        Answer::BadGateway(status) => {
            (StatusCode::from_u16(status).expect("a status"), "<html>Bad gateway</html>").into_response()
        }
        Answer::Cut => {
            let broken = std::io::Error::other("cut");
            Body::from_stream(stream::iter([Ok("{\"ok\":"), Err(broken)])).into_response()
        }
        Answer::Error(status, error) => {
            let body = axum::Json(serde_json::json!({ "error": error }));
            (StatusCode::from_u16(status).expect("a status"), body).into_response()
        }
        Answer::TooMany(after) => {
            let body = axum::Json(serde_json::json!({"error": "rate_limited"}));
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", after)], body).into_response()
        }
    }
}

fn fresh(shared: &Shared, refresh_token: String) -> Response {
    if let Some(spent) = &shared.spent
        && !locked(spent).insert(refresh_token)
    {
        return axum::Json(serde_json::json!({"ok": false, "error": "invalid_refresh_token"})).into_response();
    }
    let number = shared.issued.fetch_add(1, Ordering::Relaxed);
    let token = format!("ya29.vkcrowd-{}-{number}", shared.nonce);
    let mut answer = serde_json::json!({"access_token": token, "expires_in": 3600, "token_type": "Bearer"});
    if shared.spent.is_some() {
        answer["ok"] = true.into();
        answer["refresh_token"] = format!("xoxe-1-vkcrowd-{}-{number}", shared.nonce).into();
    }
    axum::Json(answer).into_response()
}
