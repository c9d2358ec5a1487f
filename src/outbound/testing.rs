//! Gates and servers on loopback for the tests of this module.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use url::Url;

use super::guard::Lookup;
use super::http::Request;
use super::{Outbound, tls_config};
use crate::secret::Secret;

/// Valid from 2000 to 2100 for `localhost` and `api.example.com`, signed by itself. It protects nothing.
pub(super) const CERTIFICATE: &str = "MIIBdzCCAR2gAwIBAgIBATAKBggqhkjOPQQDAjAYMRYwFAYDVQQDDA12YWxldGtleSB0ZXN0MCAXDTAwMDEwMTAwMDAwMFoYDzIxMDAwMTAxMDAwMDAwWjAYMRYwFAYDVQQDDA12YWxldGtleSB0ZXN0MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEuF9huW65q8gaa96bRSu4op8pHPOp0Z2QxJon8pTbbajB+EilQQwt9YGfm3cbpwavUGEz6tToNTm2pGFgl6e3EqNWMFQwJQYDVR0RBB4wHIIJbG9jYWxob3N0gg9hcGkuZXhhbXBsZS5jb20wDAYDVR0TAQH/BAIwADAdBgNVHQ4EFgQU4o63yOiaZMKYl/TNTH/jpI2IcuEwCgYIKoZIzj0EAwIDSAAwRQIgNsYq4DjnfGpx4DhZqZ10Cmm1Ll4XKkASxkFe6BVnj68CIQDhy72XlkCGrgxgRpvuFCk2dmelPgyvTQKNVh0D7Oy8ug==";
pub(super) const CERTIFICATE_KEY: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg6bq9NZ2BQFnfhCqGT3zUtRBG6HraTeRfu1Eeol7XKMihRANCAAS4X2G5brmryBpr3ptFK7iinykc86nRnZDEmifylNttqMH4SKVBDC31gZ+bdxunBq9QYTPq1Og1ObakYWCXp7cS";

pub(super) fn url(text: &str) -> Url {
    text.parse().expect("a URL")
}

pub(super) fn gate(allow: &[String]) -> Outbound {
    Outbound::new(allow).expect("a gate")
}

pub(super) fn gate_to(port: u16) -> Outbound {
    gate(&[format!("127.0.0.1:{port}")])
}

/// A gate for which every name is 127.0.0.1, and which trusts the certificate above when told to.
pub(super) fn gate_with(allow: &[String], connect_limit: Duration, trusting: bool) -> Outbound {
    let lookup: Lookup = Arc::new(|_| Box::pin(async { Ok(vec![Ipv4Addr::LOCALHOST.into()]) }));
    let tls = if trusting {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = Verifier::new_with_extra_roots([certificate()], provider.clone()).expect("a verifier");
        ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth()
    } else {
        tls_config().expect("TLS")
    };
    Outbound::assemble(allow, lookup, connect_limit, tls).expect("a gate")
}

pub(super) fn certificate() -> CertificateDer<'static> {
    BASE64.decode(CERTIFICATE.as_bytes()).expect("base64").into()
}

pub(super) fn acceptor() -> TlsAcceptor {
    let key = BASE64.decode(CERTIFICATE_KEY.as_bytes()).expect("base64");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate()], key)
        .expect("a certificate");
    TlsAcceptor::from(Arc::new(config))
}

pub(super) async fn listener() -> (u16, TcpListener) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    (listener.local_addr().expect("an address").port(), listener)
}

/// Reads one request: its head, and as much body as it announces.
pub(super) async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut seen = String::new();
    let mut byte = [0];
    while !seen.ends_with("\r\n\r\n") && stream.read(&mut byte).await.is_ok_and(|read| read == 1) {
        seen.push(char::from(byte[0]));
    }
    let announced = seen.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; announced.unwrap_or(0)];
    stream.read_exact(&mut body).await.expect("the body");
    seen + &String::from_utf8(body).expect("text")
}

pub(super) async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &[u8]) -> String {
    let request = read_request(&mut stream).await;
    // Whoever has read enough may have hung up.
    let _ = stream.write_all(answer).await;
    let _ = stream.shutdown().await;
    request
}

/// Accepts one connection, reads one request, writes `answer`, closes. Yields the request.
pub(super) async fn serve_once(answer: impl Into<Vec<u8>>) -> (u16, JoinHandle<String>) {
    let (port, listener) = listener().await;
    let answer = answer.into();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        exchange(stream, &answer).await
    });
    (port, serving)
}

pub(super) fn call(port: u16) -> Request {
    Request::post(url(&format!("http://127.0.0.1:{port}/token/canary?code=canary")))
        .field("code", Secret::new("canary"))
}

/// No connection waits to be accepted.
pub(super) fn assert_nobody_came(listener: TcpListener) {
    let came = listener.into_std().expect("a listener").accept();
    assert_eq!(came.expect_err("nobody came").kind(), std::io::ErrorKind::WouldBlock);
}
