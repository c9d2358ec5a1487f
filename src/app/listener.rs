//! A listener: takes connections, bounds slow clients, and lets everyone finish when the house stops.
//!
//! It is HTTP/1.1 only. The version sniffing that HTTP/2 without TLS needs waits for a client's first bytes without a
//! limit, and the proxies in front of us speak 1.1.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::clock;
use crate::shutdown::Shutdown;

/// A client has this long for a request's headers, and may be idle this long between requests (API.md section 6, point
/// 18; AP-09).
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// All headers of a request together.
const MAX_HEADER_BYTES: usize = 64 * 1024;
/// How long to wait when the system has no more descriptors to give.
const BREATH: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until the house begins to stop and every request in progress has been answered.
pub(super) async fn serve(listener: TcpListener, router: Router, shutdown: Shutdown) {
    let mut guests = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.begun() => break,
            Some(_) = guests.join_next(), if !guests.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    guests.spawn(attend(stream, peer, router.clone(), shutdown.clone(), HEADERS_WITHIN));
                }
                Err(error) if is_of_the_peer(error.kind()) => {}
                Err(error) => {
                    tracing::warn!(error = %error, "a connection could not be accepted");
                    clock::pause(BREATH).await;
                }
            }
        }
    }
    drop(listener);
    while guests.join_next().await.is_some() {}
}

async fn attend(stream: TcpStream, peer: SocketAddr, router: Router, shutdown: Shutdown, headers_within: Duration) {
    // Small answers leave at once; it only costs bandwidth where it fails.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(headers_within)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    // How a connection ends says nothing that somebody could act on.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = shutdown.begun() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// The client went away before we took its connection: no reason to wait or to tell.
fn is_of_the_peer(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;

    use super::*;
    use crate::shutdown;

    async fn dial(address: SocketAddr) -> TcpStream {
        #[expect(clippy::disallowed_methods, reason = "the test is the client")]
        TcpStream::connect(address).await.expect("connects")
    }

    #[tokio::test]
    async fn a_request_in_progress_is_answered_before_the_listener_ends() {
        // RL-32: stop accepting, finish what is in flight.
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("an address");
        let (entered, finish) = (std::sync::Arc::new(Notify::new()), std::sync::Arc::new(Notify::new()));
        let (at_door, gate) = (entered.clone(), finish.clone());
        let router = Router::new().route(
            "/slow",
            get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move {
                at_door.notify_one();
                gate.notified().await;
                peer.ip().to_string()
            }),
        );
        let (controller, shutdown) = shutdown::channel();
        let serving = tokio::spawn(serve(listener, router, shutdown));
        let mut client = dial(address).await;
        client.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("writes");
        entered.notified().await;
        let mut idle = dial(address).await;
        controller.begin();
        finish.notify_one();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("reads");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("127.0.0.1"), "{answer}");
        serving.await.expect("ends");
        controller.finished().await;
        let mut nothing = Vec::new();
        // Closed without an answer, or never accepted: either way the idle client is not kept.
        let _ = idle.read_to_end(&mut nothing).await;
        assert!(nothing.is_empty());
    }

    #[tokio::test]
    async fn a_client_that_never_finishes_its_headers_is_sent_away() {
        // AP-09
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("an address");
        for beginning in [&b""[..], b"G", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"PRI * HTTP/2.0\r\n"] {
            let mut client = dial(address).await;
            client.write_all(beginning).await.expect("writes");
            let (stream, peer) = listener.accept().await.expect("accepts");
            let (_controller, shutdown) = shutdown::channel();
            attend(stream, peer, Router::new(), shutdown, Duration::from_millis(20)).await;
            let mut answer = String::new();
            let _ = client.read_to_string(&mut answer).await;
            assert!(!answer.contains("200"), "{answer}");
        }
    }
}
