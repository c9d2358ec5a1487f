//! The entrance hall: every request passes here on its way in and on its way out.

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tracing::Instrument;

use super::headers::secure;
use super::pages::Page;
use super::pages::views::{ErrorKind, ErrorPage, Frame, Viewer};
use super::peer::real_peer;
use super::{Code, House, Problem};
use crate::audit::{Action, Event};
use crate::caller::{Caller, Origin};
use crate::clock::Stopwatch;

/// Bytes of path and query together (AP-08).
const MOST_URL: usize = 8 * 1024;
/// Bytes of all header names and values together.
const MOST_HEADER_BYTES: usize = 16 * 1024;
/// Headers in one request.
const MOST_HEADERS: usize = 100;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What is known of a request besides its bytes. In every request's extensions; clones share it.
#[derive(Clone, Debug)]
pub struct RequestContext(Arc<Known>);

#[derive(Debug)]
struct Known {
    origin: Origin,
    for_programs: bool,
    caller: OnceLock<Caller>,
    frame: OnceLock<Frame>,
}

impl RequestContext {
    /// The request's id and its real peer.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.0.origin
    }

    /// Remembers who proved to be at the door, so that a denial can be written down.
    pub fn recognise(&self, caller: &Caller) {
        let _ = self.0.caller.set(caller.clone());
    }

    /// Remembers how pages look for this viewer, so that an error page keeps its navigation.
    pub fn remember_frame(&self, frame: &Frame) {
        let _ = self.0.frame.set(frame.clone());
    }

    fn of(house: &House, request: &Request) -> Self {
        let connection = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip());
        let peer: Option<IpAddr> =
            connection.and_then(|address| real_peer(address, request.headers(), house.trusted_proxies()));
        let request_id = uuid::Builder::from_random_bytes(house.around.random()).into_uuid().to_string();
        Self(Arc::new(Known {
            origin: Origin { request_id, peer },
            for_programs: is_for_programs(request.uri().path()),
            caller: OnceLock::new(),
            frame: OnceLock::new(),
        }))
    }
}

/// Put into the extensions of an answer whose error body is somebody else's on purpose (the broker), so that it is not
/// replaced by a problem.
#[derive(Clone, Copy, Debug)]
pub struct AsItIs;

/// Programs get JSON, people get pages.
fn is_for_programs(path: &str) -> bool {
    ["/v1/", "/tokens/", "/hooks/", "/healthz", "/readyz", "/metrics"].iter().any(|start| path.starts_with(start))
}

/// The middleware. The span carries method and route only: paths and queries can hold ids and one-time secrets.
pub(super) async fn entrance(State(house): State<House>, mut request: Request, next: Next) -> Response {
    let watch = Stopwatch::start();
    let context = RequestContext::of(&house, &request);
    let method = method_name(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let span = tracing::info_span!("request", id = %context.origin().request_id, method, route);
    let is_head = request.method() == Method::HEAD;
    request.extensions_mut().insert(context.clone());
    let work = async {
        let answer = match too_large(&request) {
            Some(problem) => problem.into_response(),
            None => AssertUnwindSafe(next.run(request)).catch_unwind().await.unwrap_or_else(|_| {
                // The panic's text stays in the panic hook's hands; it may quote what it choked on.
                tracing::error!("a handler panicked");
                Problem::new(Code::Internal, "something broke on our side; tell support the request's id")
                    .into_response()
            }),
        };
        let mut answer = see_out(&house, &context, answer).await;
        if is_head {
            *answer.body_mut() = axum::body::Body::empty();
        }
        let status = answer.status().as_u16();
        let milliseconds = u64::try_from(watch.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(status, milliseconds, "answered");
        metrics::counter!("valetkey_http_requests_total", "method" => method, "route" => route.clone(), "status" => status.to_string())
            .increment(1);
        metrics::histogram!("valetkey_http_request_seconds", "route" => route.clone())
            .record(watch.elapsed().as_secs_f64());
        answer
    };
    work.instrument(span.clone()).await
}

/// Nothing is routed here.
pub(super) async fn nothing_here() -> Problem {
    Problem::not_found()
}

fn method_name(method: &Method) -> &'static str {
    [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS]
        .iter()
        .position(|known| known == method)
        .and_then(|place| ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"].get(place).copied())
        .unwrap_or("other")
}

fn too_large(request: &Request) -> Option<Problem> {
    if request.uri().path_and_query().is_some_and(|target| target.as_str().len() > MOST_URL) {
        return Some(
            Problem::new(Code::TooLarge, "the address is longer than 8 KiB").with_status(StatusCode::URI_TOO_LONG),
        );
    }
    let bytes: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > MOST_HEADER_BYTES || request.headers().len() > MOST_HEADERS {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Some(
            Problem::new(Code::TooLarge, "the headers are larger than 16 KiB or more than 100").with_status(status),
        );
    }
    None
}

async fn see_out(house: &House, context: &RequestContext, answer: Response) -> Response {
    let mut answer = match answer.extensions().get::<Problem>().cloned().or_else(|| foreign_error(&answer)) {
        Some(problem) => {
            problem.log();
            write_down_denial(house, context, &problem).await;
            let kept = kept_headers(answer.headers());
            let mut rendered = render(context, &problem);
            rendered.headers_mut().extend(kept);
            rendered
        }
        None => answer,
    };
    let headers = answer.headers_mut();
    secure(headers);
    if let Ok(id) = HeaderValue::from_str(&context.origin().request_id) {
        headers.insert(REQUEST_ID, id);
    }
    answer
}

/// Errors that libraries make up: the router's 405, an extractor's 400. Their texts are replaced by ours.
fn foreign_error(answer: &Response) -> Option<Problem> {
    let status = answer.status();
    let kind = answer.headers().get(header::CONTENT_TYPE);
    let is_plain = kind.is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !(status.is_client_error() || status.is_server_error())
        || !is_plain
        || answer.extensions().get::<AsItIs>().is_some()
    {
        return None;
    }
    let problem = match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            Problem::new(Code::MethodNotAllowed, "this address does not take this method")
        }
        StatusCode::NOT_FOUND => Problem::not_found(),
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(Code::TooLarge, "the body is larger than this address takes"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            Problem::new(Code::UnsupportedMediaType, "the body's Content-Type is not one that this address takes")
        }
        _ if status.is_client_error() => Problem::new(Code::Malformed, "the request cannot be read"),
        _ => Problem::new(Code::Internal, "something broke on our side; tell support the request's id"),
    };
    Some(problem.with_status(status))
}

/// What an error keeps of the answer it replaces: which methods there are, and cookies that were set or taken.
fn kept_headers(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in [header::ALLOW, header::SET_COOKIE] {
        for value in headers.get_all(&name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

/// Denials are in the book (AU-01). The refusal stands even if the book does not answer.
async fn write_down_denial(house: &House, context: &RequestContext, problem: &Problem) {
    let (Some(missing), Some(caller)) = (problem.denied(), context.0.caller.get()) else { return };
    let event = Event::done(Action::Denied, "permission", missing.as_str()).denied("insufficient_scope");
    if let Err(error) = house.audit.note(caller, &event).await {
        tracing::error!(error = %error, "a denial could not be written down");
    }
}

fn render(context: &RequestContext, problem: &Problem) -> Response {
    let mut answer = if context.0.for_programs { as_json(context, problem) } else { as_page(context, problem) };
    if let Some(seconds) = problem.retry_seconds() {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

fn as_json(context: &RequestContext, problem: &Problem) -> Response {
    let body = serde_json::to_vec(&problem.body(&context.origin().request_id)).unwrap_or_default();
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    let mut answer = (problem.status(), [kind], body).into_response();
    if problem.status() == StatusCode::UNAUTHORIZED {
        // RFC 9110, 11.6.1: a 401 names the scheme. RFC 6750, 3.1: without more when the proof is missing.
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
}

fn as_page(context: &RequestContext, problem: &Problem) -> Response {
    let nobody = || Frame { csrf: String::new(), viewer: Viewer::Nobody, notice: None };
    let view = ErrorPage {
        frame: context.0.frame.get().cloned().unwrap_or_else(nobody),
        kind: match problem.code() {
            // Of pages, only forms are refused for this.
            Code::IdentityMismatch => ErrorKind::OtherSite,
            _ => ErrorKind::of(problem.status().as_u16()),
        },
        request_id: context.origin().request_id.clone(),
        retry_after: problem.retry_seconds(),
    };
    Page::of(&view).status(problem.status()).into_response()
}
