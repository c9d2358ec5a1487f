//! One HTTP call, from the request to the answer, and what its errors mean.

use std::error::Error as StdError;
use std::io;

use ::http::header::CONTENT_TYPE;

use super::answer::Response;
use super::door::Waiting;
use super::guard::LookupError;
use super::http::Request;
use super::incoming::Incoming;
use super::{Cause, Outbound, OutboundError, Refusal};
use crate::clock;
use crate::crash::crash_point;

impl Outbound {
    /// Sends the request once and reads the whole answer. Any status is an answer, redirects too.
    ///
    /// # Errors
    /// [`OutboundError`]. After [`OutboundError::Refused`] and [`OutboundError::NotSent`] nothing of
    /// the request can have reached the application; after the others it may have had its effect.
    pub async fn send(&self, request: Request) -> Result<Response, OutboundError> {
        self.open(request).await?.whole().await
    }

    /// Sends the request once and reads the answer's head; its body can be read piece by piece, so that a large one is
    /// never in memory as a whole.
    ///
    /// # Errors
    /// As [`Outbound::send`].
    pub async fn open(&self, request: Request) -> Result<Incoming, OutboundError> {
        let reach = self.reach(&request.url)?;
        if !matches!(request.url.scheme(), "http" | "https") {
            return Err(Refusal::Scheme.into());
        }
        let clients = &self.0.clients[reach as usize];
        let client = if request.own_connection { &clients.single } else { &clients.pooled };
        let limits = request.limits;
        let wire = wire(request)?;

        let mut answer = match clock::awake_deadline(limits.head, client.execute(wire)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(meaning(&error)),
            Err(clock::Elapsed) => return Err(OutboundError::Unknown(Cause::Timeout)),
        };
        crash_point!(AfterSend);
        let status = answer.status().as_u16();
        let headers = std::mem::take(answer.headers_mut());
        Ok(Incoming { status, headers, answer, limits })
    }
}

fn wire(request: Request) -> Result<reqwest::Request, OutboundError> {
    let unwritable = OutboundError::NotSent(Cause::Invalid);
    if request.invalid {
        return Err(unwritable);
    }
    let (bytes, content_type) = request.body.encode().ok_or(unwritable)?;
    let mut wire = reqwest::Request::new(request.method, request.url);
    *wire.headers_mut() = request.headers;
    if let Some(content_type) = content_type {
        wire.headers_mut().insert(CONTENT_TYPE, content_type);
        *wire.body_mut() = Some(match request.waits_at {
            Some(door) => reqwest::Body::wrap(Waiting::new(door, bytes)),
            None => bytes.into(),
        });
    }
    Ok(wire)
}

/// What a failed call means. The client's own error names the URL, so it ends here.
fn meaning(error: &reqwest::Error) -> OutboundError {
    if let Some(found) = chain(error).find_map(|link| link.downcast_ref::<LookupError>()) {
        return (*found).into();
    }
    if error.is_builder() {
        return OutboundError::NotSent(Cause::Invalid);
    }
    if error.is_connect() {
        let cause = match transport(error) {
            Some(cause @ (Cause::Tls | Cause::Timeout)) => cause,
            _ if error.is_timeout() => Cause::Timeout,
            _ if error.is_dns() => Cause::Dns,
            _ => Cause::Connect,
        };
        return OutboundError::NotSent(cause);
    }
    let hyper = chain(error).find_map(|link| link.downcast_ref::<hyper::Error>());
    OutboundError::Unknown(match transport(error) {
        Some(cause) => cause,
        None if error.is_timeout() => Cause::Timeout,
        None if hyper.is_some_and(|error| error.is_incomplete_message() || error.is_closed()) => Cause::Reset,
        None => Cause::Protocol,
    })
}

/// What TCP or TLS had to say, if anything.
fn transport(error: &(dyn StdError + 'static)) -> Option<Cause> {
    chain(error).find_map(|link| {
        if link.is::<rustls::Error>() {
            return Some(Cause::Tls);
        }
        link.downcast_ref::<io::Error>().and_then(io_cause)
    })
}

/// TLS errors travel inside I/O errors, whose `source` skips them.
pub(super) fn io_cause(error: &io::Error) -> Option<Cause> {
    if let Some(inner) = error.get_ref() {
        if inner.is::<rustls::Error>() {
            return Some(Cause::Tls);
        }
        if let Some(cause) = inner.downcast_ref::<io::Error>().and_then(io_cause) {
            return Some(cause);
        }
    }
    match error.kind() {
        io::ErrorKind::TimedOut => Some(Cause::Timeout),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::NotConnected
        | io::ErrorKind::UnexpectedEof => Some(Cause::Reset),
        _ => None,
    }
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |link: &&'a (dyn StdError + 'static)| (*link).source())
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::Arc;
    use std::time::Duration;

    use ::http::header::LOCATION;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::super::guard::Lookup;
    use super::super::http::Limits;
    use super::super::testing::{
        acceptor, assert_nobody_came, call, exchange, gate, gate_to, gate_with, listener, read_request, serve_once, url,
    };
    use super::super::{CONNECT_LIMIT, tls_config};
    use super::*;
    use crate::secret::Secret;

    /// More than any test needs; it turns a hang into a failure.
    const PATIENCE: Duration = Duration::from_secs(20);

    async fn error_of(port: u16, request: Request) -> OutboundError {
        clock::deadline(PATIENCE, gate_to(port).send(request)).await.expect("in time").expect_err("no answer")
    }

    #[tokio::test]
    async fn a_listed_pair_is_called_in_plain_text() {
        let (port, serving) = serve_once("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
        let answer = gate_to(port).send(call(port).accept_json()).await.expect("an answer");
        assert_eq!((answer.status, answer.text()), (200, Some("{}")));

        let request = serving.await.expect("served").to_ascii_lowercase();
        assert!(request.starts_with("post /token/canary?code=canary http/1.1\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\ncode=canary"), "{request}");
        for absent in ["accept-encoding", "cookie", "referer", "traceparent", "baggage"] {
            assert!(!request.contains(absent), "{absent} is not sent");
        }
    }

    #[tokio::test]
    async fn proxies_named_in_the_environment_are_ignored() {
        let (port, proxy) = listener().await;
        let proxy_url = format!("http://127.0.0.1:{port}");
        let child = tokio::task::spawn_blocking(move || {
            let mut command = Command::new(std::env::current_exe().expect("this program"));
            command.args(["--exact", "outbound::call::tests::a_listed_pair_is_called_in_plain_text"]);
            for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
                command.env(name, &proxy_url);
            }
            command.env_remove("NO_PROXY").env_remove("no_proxy").output().expect("a child")
        });
        tokio::select! {
            _ = proxy.accept() => panic!("the proxy was used"),
            output = child => {
                let output = output.expect("joined");
                let printed = String::from_utf8_lossy(&output.stdout);
                assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
            }
        }
    }

    #[tokio::test]
    async fn plain_http_and_unlisted_ports_are_refused_before_any_dial() {
        let (other, _held) = listener().await;
        let (port, listener) = listener().await;
        let dialled = gate_to(other).send(call(port)).await;
        assert_eq!(dialled.expect_err("refused"), OutboundError::Refused(Refusal::PlainHttp));
        let request = Request::get(url(&format!("https://127.0.0.1:{port}/")));
        let dialled = gate_to(other).send(request).await;
        assert_eq!(dialled.expect_err("refused"), OutboundError::Refused(Refusal::Address));
        assert_nobody_came(listener);
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_loopback_is_refused_at_dial() {
        // SS-01: the gate believes the lookup, not the name.
        let (port, listener) = listener().await;
        let gate = gate_with(&[], CONNECT_LIMIT, false);
        let target = format!("//innocent.example.com:{port}/");
        let refused = OutboundError::Refused(Refusal::Address);

        let called = gate.send(Request::get(url(&format!("https:{target}")))).await;
        assert_eq!(called.expect_err("refused"), refused);
        let opened = gate.websocket(&url(&format!("wss:{target}")), &[], None).await;
        assert_eq!(opened.expect_err("refused"), refused);
        assert_eq!(gate.check_url(&url(&format!("https:{target}"))), Ok(()), "nothing is wrong with the text");
        assert_eq!(gate.check_url_and_name(&url(&format!("https:{target}"))).await, Err(refused));

        let local = Outbound::new(&[]).expect("a gate").send(Request::get(url("https://localhost/"))).await;
        assert!(matches!(local.expect_err("refused"), OutboundError::Refused(_)));
        assert_nobody_came(listener);
    }

    #[tokio::test]
    async fn a_failed_lookup_is_not_sent() {
        let lookup: Lookup = Arc::new(|_| Box::pin(async { Err(io::Error::other("no such name")) }));
        let gate = Outbound::assemble(&[], lookup, CONNECT_LIMIT, tls_config().expect("TLS")).expect("a gate");
        let failed = OutboundError::NotSent(Cause::Dns);
        assert_eq!(gate.send(Request::get(url("https://gone.example.com/"))).await.expect_err("no name"), failed);
        assert_eq!(gate.websocket(&url("wss://gone.example.com/"), &[], None).await.expect_err("no name"), failed);
    }

    #[tokio::test]
    async fn a_refused_connection_is_not_sent() {
        let (port, listener) = listener().await;
        drop(listener);
        let error = error_of(port, call(port)).await;
        assert_eq!(error, OutboundError::NotSent(Cause::Connect));
        assert!(!error.may_have_had_effect());
        let opened = gate_to(port).websocket(&url(&format!("ws://127.0.0.1:{port}/")), &[], None).await;
        assert_eq!(opened.expect_err("nobody listens"), OutboundError::NotSent(Cause::Connect));
    }

    #[tokio::test]
    async fn a_request_that_cannot_be_written_is_not_sent() {
        let (port, listener) = listener().await;
        let request = call(port).bearer(&Secret::new("a\r\nb"));
        assert_eq!(error_of(port, request).await, OutboundError::NotSent(Cause::Invalid));
        assert_nobody_came(listener);
    }

    #[tokio::test]
    async fn a_connection_closed_after_the_request_leaves_the_effect_unknown() {
        // RL-03, RL-08: on a connection of its own and on a pooled one.
        for own in [true, false] {
            let (port, serving) = serve_once("").await;
            let mut request = call(port);
            request.own_connection = own;
            let error = error_of(port, request).await;
            assert_eq!(error, OutboundError::Unknown(Cause::Reset));
            assert!(error.may_have_had_effect());
            assert!(serving.await.expect("served").ends_with("code=canary"), "it had arrived");
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_not_http_leaves_the_effect_unknown() {
        // RL-10
        let (port, _serving) = serve_once("SSH-2.0-OpenSSH_9.9\r\n\r\n").await;
        assert_eq!(error_of(port, call(port)).await, OutboundError::Unknown(Cause::Protocol));
    }

    #[tokio::test]
    async fn a_head_that_never_comes_ends_at_its_limit() {
        let (port, listener) = listener().await;
        let limits = Limits { head: Duration::from_millis(200), ..Limits::token() };
        let watch = clock::Stopwatch::start();
        let error = error_of(port, call(port).limits(limits)).await;
        assert_eq!(error, OutboundError::Unknown(Cause::Timeout));
        assert!(watch.elapsed() >= limits.head && watch.elapsed() < CONNECT_LIMIT);
        drop(listener);
    }

    #[tokio::test]
    async fn an_answer_that_is_cut_short_or_drips_leaves_the_effect_unknown() {
        // RL-10: the status is known, the answer is not.
        let truncated = OutboundError::Unknown(Cause::Truncated { status: 200 });
        let (port, _serving) = serve_once("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"a\"").await;
        assert_eq!(error_of(port, call(port)).await, truncated);
        let (port, _serving) = serve_once("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{\"a\"\r\n").await;
        assert_eq!(error_of(port, call(port)).await, truncated);

        let (port, listener) = listener().await;
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            read_request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{").await.expect("written");
            stream.read_u8().await
        });
        let limits = Limits { body: Duration::from_millis(200), ..Limits::token() };
        let error = error_of(port, call(port).limits(limits)).await;
        assert_eq!((error, error.status()), (truncated, Some(200)));
        assert!(serving.await.expect("served").is_err(), "the gate hung up");
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_not_read() {
        // RL-10, SS-05: announced or not.
        let full = "x".repeat(65 * 1024);
        for status in [200, 500] {
            let expected = match status {
                200 => OutboundError::Unknown(Cause::Truncated { status: 200 }),
                status => OutboundError::TooLarge { status },
            };
            let announced = format!("HTTP/1.1 {status} X\r\nContent-Length: 2000000000\r\n\r\n{full}");
            let (port, _serving) = serve_once(announced).await;
            assert_eq!(error_of(port, call(port).limits(Limits::token())).await, expected);
            let unannounced = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n\r\n{full}");
            let (port, _serving) = serve_once(unannounced).await;
            assert_eq!(error_of(port, call(port).limits(Limits::token())).await, expected);
        }
        let (port, _serving) = serve_once(format!("HTTP/1.1 200 OK\r\n\r\n{}", &full[..64 * 1024])).await;
        let answer = gate_to(port).send(call(port).limits(Limits::token())).await.expect("exactly the limit");
        assert_eq!(answer.body.len(), 64 * 1024);
    }

    #[tokio::test]
    async fn a_compressed_body_stays_as_it_came() {
        // RL-10: a bomb that nobody unpacks.
        let (port, _serving) =
            serve_once("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\u{8}zz").await;
        let answer = gate_to(port).send(call(port)).await.expect("an answer");
        assert_eq!(*answer.body, b"\x1f\x08zz");
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer() {
        // SS-03
        let (elsewhere, listener) = listener().await;
        let answer =
            format!("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{elsewhere}/\r\nContent-Length: 0\r\n\r\n");
        let (port, _serving) = serve_once(answer).await;
        let gate = gate(&[format!("127.0.0.1:{port}"), format!("127.0.0.1:{elsewhere}")]);
        let answer = gate.send(call(port)).await.expect("an answer");
        assert_eq!(answer.status, 302);
        assert!(answer.header(&LOCATION).is_some());
        assert_nobody_came(listener);
    }

    #[tokio::test]
    async fn a_form_travels_on_a_connection_of_its_own() {
        let (port, listener) = listener().await;
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            read_request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.expect("written");
            stream.read(&mut [0]).await.expect("closed in order")
        });
        let gate = gate_to(port);
        gate.send(call(port)).await.expect("an answer");
        let more = clock::deadline(PATIENCE, serving).await.expect("in time").expect("served");
        assert_eq!(more, 0, "the gate closed the connection");
    }

    #[tokio::test]
    async fn errors_name_neither_the_url_nor_what_was_sent() {
        // SS-05, SH-03
        let (closed, listener) = listener().await;
        drop(listener);
        let (resets, _serving) = serve_once("").await;
        let (garbage, _serving_garbage) = serve_once("canary canary\r\n\r\n").await;
        for port in [closed, resets, garbage] {
            let error = error_of(port, call(port)).await;
            let shown = format!("{error} {error:?} {:?}", anyhow::Error::new(error));
            for absent in ["canary", "127.0.0.1", &port.to_string(), "http:", "token"] {
                assert!(!shown.contains(absent), "{absent} in {shown}");
            }
        }
    }

    #[tokio::test]
    async fn a_silent_tls_handshake_is_not_sent() {
        let (port, _listener) = listener().await;
        let gate = gate_with(&[format!("api.example.com:{port}")], Duration::from_millis(200), false);
        let timeout = OutboundError::NotSent(Cause::Timeout);
        let called = gate.send(Request::get(url(&format!("https://api.example.com:{port}/")))).await;
        assert_eq!(called.expect_err("silence"), timeout);
        let opened = gate.websocket(&url(&format!("wss://api.example.com:{port}/")), &[], None).await;
        assert_eq!(opened.expect_err("silence"), timeout);
    }

    /// Accepts TLS connections for ever and answers each with 200 when it gets that far.
    async fn serve_tls() -> u16 {
        let (port, listener) = listener().await;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(stream) = acceptor().accept(stream).await {
                    exchange(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
                }
            }
        });
        port
    }

    #[tokio::test]
    async fn certificates_are_verified_for_the_name_in_the_url() {
        // CT-02, SS-01: the address came from the guard, the name stays for TLS.
        let port = serve_tls().await;
        let allow = [format!("api.example.com:{port}"), format!("other.example.com:{port}")];
        let (right, wrong) = (format!("//api.example.com:{port}/"), format!("//other.example.com:{port}/"));
        let trusting = gate_with(&allow, CONNECT_LIMIT, true);
        let usual = gate_with(&allow, CONNECT_LIMIT, false);

        let answer = trusting.send(Request::get(url(&format!("https:{right}")))).await.expect("trusted");
        assert_eq!(answer.status, 200);
        let upgraded = trusting.websocket(&url(&format!("wss:{right}")), &[], None).await;
        assert_eq!(upgraded.expect_err("no WebSocket"), OutboundError::Unknown(Cause::Status { status: 200 }));

        let refused = OutboundError::NotSent(Cause::Tls);
        for (gate, target) in [(&trusting, &wrong), (&usual, &right)] {
            let called = gate.send(Request::get(url(&format!("https:{target}")))).await;
            assert_eq!(called.expect_err("not trusted"), refused);
            let opened = gate.websocket(&url(&format!("wss:{target}")), &[], None).await;
            assert_eq!(opened.expect_err("not trusted"), refused);
        }
    }
}
