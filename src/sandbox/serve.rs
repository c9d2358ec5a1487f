//! Serving one router on one listener, with the one thing ordinary servers cannot do: hanging up
//! without an answer, which is how a lost token response looks to the house.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tower::ServiceExt;

use crate::clock;

/// Marks an answer that must never leave: the connection is closed instead.
#[derive(Clone, Copy)]
struct HangUp;

#[derive(Debug, thiserror::Error)]
#[error("the sandbox hung up on purpose")]
struct HungUp;

/// An answer that closes the connection without a single byte.
pub(super) fn hang_up() -> Response {
    let mut response = (StatusCode::INTERNAL_SERVER_ERROR, Body::empty()).into_response();
    response.extensions_mut().insert(HangUp);
    response
}

/// Serves until the handle is aborted; open connections end with it.
pub(super) fn serve(listener: TcpListener, router: Router) -> AbortHandle {
    tokio::spawn(accept(listener, router)).abort_handle()
}

async fn accept(listener: TcpListener, router: Router) {
    // Dropping the set with this task ends every connection.
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    open.spawn(converse(stream, router.clone()));
                }
                Err(_) => clock::pause(Duration::from_millis(20)).await,
            },
            Some(_) = open.join_next() => {}
        }
    }
}

async fn converse(stream: TcpStream, router: Router) {
    let service = service_fn(move |request| {
        let router = router.clone();
        async move {
            let response = match router.oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            if response.extensions().get::<HangUp>().is_some() { Err(HungUp) } else { Ok(response) }
        }
    });
    // How a connection ends is the client's story; nothing here acts on it.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
