//! One WebSocket: dialled to a checked address, wrapped in TLS, shaken hands over (RFC 6455).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::header::{
    CONNECTION, HOST, ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use url::{Host, Url};

use super::call::io_cause;
use super::{Cause, Outbound, OutboundError, Refusal};
use crate::clock;

/// From the handshake's request to the end of its answer.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Of many addresses only the first few are tried, so that each gets a fair part of the time.
const MAX_ADDRESSES: usize = 4;

/// An open WebSocket; a stream and a sink of messages.
pub type Socket = WebSocketStream<MaybeTls>;

/// How large what comes in may be. Larger ends the connection with a capacity error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketLimits {
    /// Bytes of one frame.
    pub frame_bytes: usize,
    /// Bytes of one message, which may have many frames.
    pub message_bytes: usize,
}

impl Default for SocketLimits {
    /// 1 MiB for a frame, 16 MiB for a message.
    fn default() -> Self {
        Self { frame_bytes: 1024 * 1024, message_bytes: 16 * 1024 * 1024 }
    }
}

/// The wire below a WebSocket.
#[derive(Debug)]
pub enum MaybeTls {
    /// `ws`, to a listed pair on loopback.
    Plain(TcpStream),
    /// `wss`.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Outbound {
    /// Opens a WebSocket with [`SocketLimits::default`]; see [`Outbound::websocket_with_limits`].
    ///
    /// # Errors
    /// As there.
    pub async fn websocket(
        &self,
        url: &Url,
        subprotocols: &[&str],
        origin: Option<&str>,
    ) -> Result<Socket, OutboundError> {
        self.websocket_with_limits(url, subprotocols, origin, SocketLimits::default()).await
    }

    /// Opens a WebSocket to a `wss` URL, or `ws` on a listed pair. Connecting takes at most 5 s, the
    /// handshake 10 s more. When subprotocols are offered, the other side must choose one of them.
    ///
    /// # Errors
    /// [`OutboundError::Unknown`] from the moment the handshake is written, since a signed URL may
    /// then be used up; [`Cause::Status`] when it was answered with a status other than 101.
    pub async fn websocket_with_limits(
        &self,
        url: &Url,
        subprotocols: &[&str],
        origin: Option<&str>,
        limits: SocketLimits,
    ) -> Result<Socket, OutboundError> {
        if !matches!(url.scheme(), "ws" | "wss") {
            return Err(Refusal::Scheme.into());
        }
        let request = handshake(url, subprotocols, origin).ok_or(OutboundError::NotSent(Cause::Invalid))?;
        let stream = clock::deadline(self.0.connect_limit, self.connect(url))
            .await
            .map_err(|_| OutboundError::NotSent(Cause::Timeout))??;
        let config = WebSocketConfig::default()
            .read_buffer_size(16 * 1024)
            .write_buffer_size(16 * 1024)
            .max_write_buffer_size(limits.message_bytes.saturating_add(64 * 1024))
            .max_frame_size(Some(limits.frame_bytes))
            .max_message_size(Some(limits.message_bytes));
        match clock::deadline(HANDSHAKE_LIMIT, client_async_with_config(request, stream, Some(config))).await {
            Ok(Ok((socket, _answer))) => Ok(socket),
            Ok(Err(error)) => Err(OutboundError::Unknown(meaning(&error))),
            Err(clock::Elapsed) => Err(OutboundError::Unknown(Cause::Timeout)),
        }
    }

    async fn connect(&self, url: &Url) -> Result<MaybeTls, OutboundError> {
        let addresses = self.addresses(url).await?;
        let port = url.port_or_known_default().ok_or(Refusal::Scheme)?;
        let stream = self.dial(&addresses, port).await?;
        // Voice comes in small frames that must not wait for each other.
        let _ = stream.set_nodelay(true);
        if url.scheme() == "ws" {
            return Ok(MaybeTls::Plain(stream));
        }
        let name = match url.host().ok_or(Refusal::Name)? {
            Host::Domain(name) => {
                ServerName::try_from(name.to_owned()).map_err(|_| OutboundError::NotSent(Cause::Invalid))?
            }
            Host::Ipv4(address) => ServerName::IpAddress(IpAddr::from(address).into()),
            Host::Ipv6(address) => ServerName::IpAddress(IpAddr::from(address).into()),
        };
        let stream = TlsConnector::from(self.0.tls.clone()).connect(name, stream).await.map_err(|error| {
            OutboundError::NotSent(match io_cause(&error) {
                Some(Cause::Timeout) => Cause::Timeout,
                _ => Cause::Tls,
            })
        })?;
        Ok(MaybeTls::Tls(Box::new(stream)))
    }

    /// Tries the addresses in the order of the lookup.
    #[expect(clippy::disallowed_methods, reason = "outbound is the one module that dials; the addresses are checked")]
    async fn dial(&self, addresses: &[IpAddr], port: u16) -> Result<TcpStream, OutboundError> {
        let addresses = &addresses[..addresses.len().min(MAX_ADDRESSES)];
        let parts = u32::try_from(addresses.len()).unwrap_or(1).max(1);
        let mut cause = Cause::Connect;
        for address in addresses {
            let dialling = TcpStream::connect(SocketAddr::new(*address, port));
            match clock::deadline(self.0.connect_limit / parts, dialling).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(_)) => cause = Cause::Connect,
                Err(clock::Elapsed) => cause = Cause::Timeout,
            }
        }
        Err(OutboundError::NotSent(cause))
    }
}

/// The handshake's request (RFC 6455 section 4.1); none when a part of it is not a header value.
fn handshake(url: &Url, subprotocols: &[&str], origin: Option<&str>) -> Option<::http::Request<()>> {
    let host = match url.port() {
        Some(port) => format!("{}:{port}", url.host_str()?),
        None => url.host_str()?.to_owned(),
    };
    let mut request = ::http::Request::get(url.as_str())
        .header(HOST, host)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, generate_key());
    if !subprotocols.is_empty() {
        request = request.header(SEC_WEBSOCKET_PROTOCOL, subprotocols.join(", "));
    }
    if let Some(origin) = origin {
        request = request.header(ORIGIN, origin);
    }
    request.body(()).ok()
}

fn meaning(error: &WsError) -> Cause {
    match error {
        WsError::Http(answer) => Cause::Status { status: answer.status().as_u16() },
        WsError::Io(error) => io_cause(error).unwrap_or(Cause::Reset),
        WsError::ConnectionClosed
        | WsError::AlreadyClosed
        | WsError::Protocol(ProtocolError::HandshakeIncomplete | ProtocolError::ResetWithoutClosingHandshake) => {
            Cause::Reset
        }
        _ => Cause::Protocol,
    }
}

impl AsyncRead for MaybeTls {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for MaybeTls {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::extract::ws::{Message as ServerMessage, WebSocketUpgrade};
    use axum::routing::any;
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio_tungstenite::tungstenite::Message;

    use super::super::CONNECT_LIMIT;
    use super::super::http::Request;
    use super::super::testing::{gate_to, gate_with, listener, serve_once, url};
    use super::*;

    /// A WebSocket server that knows the subprotocol `convai` and echoes texts after the `Origin` it saw.
    async fn serve_echo() -> u16 {
        let (port, listener) = listener().await;
        let echo = any(|headers: ::http::HeaderMap, upgrade: WebSocketUpgrade| async move {
            let origin = headers.get("origin").map_or("none", |value| value.to_str().expect("text")).to_owned();
            let host = headers[HOST].to_str().expect("text").to_owned();
            upgrade.protocols(["convai"]).on_upgrade(async move |mut socket| {
                while let Some(Ok(ServerMessage::Text(text))) = socket.next().await {
                    let answer = match text.as_str() {
                        "much" => "x".repeat(2048),
                        text => format!("{host} {origin} {text}"),
                    };
                    if socket.send(ServerMessage::Text(answer.into())).await.is_err() {
                        return;
                    }
                }
            })
        });
        let app = axum::Router::new().route("/v1/convai", echo);
        tokio::spawn(async move { axum::serve(listener, app).await });
        port
    }

    #[tokio::test]
    async fn a_websocket_speaks_the_offered_subprotocol() {
        let port = serve_echo().await;
        let gate = gate_with(&[format!("api.example.com:{port}")], CONNECT_LIMIT, false);
        let target = url(&format!("ws://api.example.com:{port}/v1/convai?token=canary"));

        let mut socket = gate.websocket(&target, &["convai"], Some("https://app.example.com")).await.expect("open");
        socket.send(Message::text("hello")).await.expect("sent");
        let answer = socket.next().await.expect("an answer").expect("a message");
        assert_eq!(answer.into_text().expect("text"), format!("api.example.com:{port} https://app.example.com hello"));

        let other = gate.websocket(&target, &["other"], None).await;
        assert_eq!(other.expect_err("unknown"), OutboundError::Unknown(Cause::Protocol), "no subprotocol was chosen");
        let absent = gate.websocket(&url(&format!("ws://api.example.com:{port}/")), &[], None).await;
        assert_eq!(absent.expect_err("no page"), OutboundError::Unknown(Cause::Status { status: 404 }));
        let broken = gate.websocket(&target, &["a\r\nb"], None).await;
        assert_eq!(broken.expect_err("a line break"), OutboundError::NotSent(Cause::Invalid));
        let http = gate.websocket(&url(&format!("http://api.example.com:{port}/")), &[], None).await;
        assert_eq!(http.expect_err("not ws"), OutboundError::Refused(Refusal::Scheme));
        let called = gate.send(Request::get(target)).await;
        assert_eq!(called.expect_err("not http"), OutboundError::Refused(Refusal::Scheme));
    }

    #[tokio::test]
    async fn a_message_over_the_limit_ends_the_websocket() {
        // RL-10
        let port = serve_echo().await;
        let target = url(&format!("ws://127.0.0.1:{port}/v1/convai"));
        let limits = SocketLimits { frame_bytes: 1024, message_bytes: 4096 };
        let mut socket = gate_to(port).websocket_with_limits(&target, &[], None, limits).await.expect("open");
        socket.send(Message::text("much")).await.expect("sent");
        assert!(socket.next().await.expect("an end").is_err());
        assert!(socket.next().await.is_none());
    }

    #[tokio::test]
    async fn a_websocket_closed_during_the_handshake_may_have_had_its_effect() {
        let (port, serving) = serve_once("").await;
        let opened = gate_to(port).websocket(&url(&format!("ws://127.0.0.1:{port}/?token=x")), &[], None).await;
        assert_eq!(opened.expect_err("closed"), OutboundError::Unknown(Cause::Reset));
        assert!(serving.await.expect("served").contains("token=x"), "the signed URL may be used up");
    }
}
