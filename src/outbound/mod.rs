//! The one gate to the street: every outgoing HTTP call and WebSocket of the house passes here.
//!
//! The gate keeps three promises. It dials only addresses that it has checked itself, at every
//! connect (SS-01, SS-02). It follows no redirects, uses no proxy from the environment and reads at
//! most as much as the caller allows, in the time the caller allows (SS-03, SS-05, RL-10). And it
//! tells [`OutboundError::NotSent`] from [`OutboundError::Unknown`], because a refresh that may have
//! happened must never be sent twice (DESIGN section 7). No error carries a URL, a host or a body.

mod answer;
mod call;
mod door;
mod errors;
mod guard;
mod http;
mod incoming;
mod socket;
#[cfg(test)]
mod testing;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt as _;
use url::{Host, Url};

pub use self::answer::{NotJson, Response};
pub use self::door::{Door, Knock, Left};
pub use self::errors::{Cause, OutboundError, OutboundSetupError, Refusal};
pub use self::http::{Body, FormValue, Limits, Request};
pub use self::incoming::{Chunks, Incoming};
pub use self::socket::{MaybeTls, Socket, SocketLimits};

use self::guard::{Guard, Lookup, Reach};

/// Name lookup, TCP connect and TLS handshake together (DESIGN section 7, point 4).
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// An idle connection is dropped before the usual server does it (60 s and more), so that a call
/// rarely meets a connection that is being closed.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// The most header bytes an HTTP/2 answer may carry; HTTP/1.1 is capped by hyper's read buffer.
const MAX_HEADER_BYTES: u32 = 64 * 1024;

/// The gate. Clones are cheap and share connections.
#[derive(Clone)]
pub struct Outbound(Arc<Inner>);

struct Inner {
    /// Pairs of host, as the `url` crate writes it, and port.
    allow: HashSet<(String, u16)>,
    lookup: Lookup,
    connect_limit: Duration,
    tls: Arc<ClientConfig>,
    /// One pair of clients per [`Reach`], in its order: a client's resolver does not know the port,
    /// so what it may hand out is settled by which client is asked.
    clients: [Clients; 3],
}

struct Clients {
    /// Keeps connections, HTTP/2 or 1.1.
    pooled: reqwest::Client,
    /// HTTP/1.1 on a new connection for each call.
    single: reqwest::Client,
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outbound")
    }
}

impl Outbound {
    /// Opens the gate. `allow` holds exact `host:port` pairs (`127.0.0.1:9000`, `localhost:9000`,
    /// `[::1]:9000`) which may be loopback and plain http; every other call must be https or wss and
    /// go to public addresses. A listed pair never reaches a private range, and plain http to it
    /// reaches loopback only.
    ///
    /// # Errors
    /// An entry that is not such a pair, or a system without trusted certificates.
    pub fn new(allow: &[String]) -> Result<Self, OutboundSetupError> {
        Self::assemble(allow, guard::system_lookup(), CONNECT_LIMIT, tls_config()?)
    }

    fn assemble(
        allow: &[String],
        lookup: Lookup,
        connect_limit: Duration,
        tls: ClientConfig,
    ) -> Result<Self, OutboundSetupError> {
        let allow = allow.iter().map(|entry| allowed_pair(entry)).collect::<Result<_, _>>()?;
        let mut clients = Vec::with_capacity(Reach::ALL.len());
        for reach in Reach::ALL {
            let guard = Arc::new(Guard { lookup: lookup.clone(), reach });
            clients.push(Clients {
                pooled: client(&tls, guard.clone(), connect_limit, true)?,
                single: client(&tls, guard, connect_limit, false)?,
            });
        }
        let Ok(clients) = <[Clients; 3]>::try_from(clients) else { return Err(OutboundSetupError::Client) };
        let tls = Arc::new(with_protocols(&tls, &[b"http/1.1"]));
        Ok(Self(Arc::new(Inner { allow, lookup, connect_limit, tls, clients })))
    }

    /// True when the operator listed exactly this URL's host and port (API section 6, points 14
    /// and 18). Nothing else may be plain http.
    #[must_use]
    pub fn allows_plain_http(&self, url: &Url) -> bool {
        self.is_listed(url)
    }

    /// Checks what can be checked without a lookup: the scheme (https, wss; http and ws where
    /// listed), no user name or password in it, a literal address that may be called, a name that
    /// is not a local or metadata one. Use it when a URL is registered (API section 6, point 14);
    /// every call repeats it.
    ///
    /// # Errors
    /// Why this URL is never called.
    pub fn check_url(&self, url: &Url) -> Result<(), Refusal> {
        self.reach(url).map(|_| ())
    }

    /// [`Outbound::check_url`], and the name must resolve to an address that may be called: the
    /// whole check at registration (API section 6, point 14). It promises nothing about later
    /// calls, which look the name up again.
    ///
    /// # Errors
    /// [`OutboundError::Refused`], or [`OutboundError::NotSent`] when the lookup failed or took
    /// longer than 5 s.
    pub async fn check_url_and_name(&self, url: &Url) -> Result<(), OutboundError> {
        self.addresses(url).await.map(|_| ())
    }

    fn is_listed(&self, url: &Url) -> bool {
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return false };
        self.0.allow.contains(&(host.to_owned(), port))
    }

    /// How far a call to this URL may go.
    fn reach(&self, url: &Url) -> Result<Reach, Refusal> {
        let plain = match url.scheme() {
            "https" | "wss" => false,
            "http" | "ws" => true,
            _ => return Err(Refusal::Scheme),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refusal::Userinfo);
        }
        let reach = match (self.is_listed(url), plain) {
            (true, true) => Reach::ListedPlain,
            (true, false) => Reach::Listed,
            (false, true) => return Err(Refusal::PlainHttp),
            (false, false) => Reach::Public,
        };
        match guard::literal(url.host().ok_or(Refusal::Name)?) {
            Host::Ipv4(v4) if !reach.permits(v4.into()) => Err(Refusal::Address),
            Host::Ipv6(v6) if !reach.permits(v6.into()) => Err(Refusal::Address),
            Host::Domain(name) if reach == Reach::Public && guard::is_local_name(name) => Err(Refusal::Name),
            _ => Ok(reach),
        }
    }
}

fn allowed_pair(entry: &str) -> Result<(String, u16), OutboundSetupError> {
    let bad = || OutboundSetupError::Allow { entry: entry.to_owned() };
    let (host, port) = entry.trim().rsplit_once(':').ok_or_else(bad)?;
    let port: u16 = port.parse().map_err(|_| bad())?;
    if port == 0 || host.contains('*') || host.ends_with('.') {
        return Err(bad());
    }
    let host = Host::parse(host).map_err(|_| bad())?;
    let fits = match guard::literal(match &host {
        Host::Domain(name) => Host::Domain(name.as_str()),
        Host::Ipv4(v4) => Host::Ipv4(*v4),
        Host::Ipv6(v6) => Host::Ipv6(*v6),
    }) {
        Host::Ipv4(v4) => Reach::Listed.permits(v4.into()),
        Host::Ipv6(v6) => Reach::Listed.permits(v6.into()),
        Host::Domain(_) => true,
    };
    if fits { Ok((host.to_string(), port)) } else { Err(bad()) }
}

#[expect(clippy::disallowed_methods, reason = "outbound is the one module that makes HTTP clients")]
fn client(
    tls: &ClientConfig,
    guard: Arc<Guard>,
    connect_limit: Duration,
    pooled: bool,
) -> Result<reqwest::Client, OutboundSetupError> {
    let builder = reqwest::Client::builder()
        .dns_resolver(guard)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        // Whether a call is sent again is the caller's decision alone.
        .retry(reqwest::retry::never())
        .connect_timeout(connect_limit)
        .pool_idle_timeout(IDLE_LIMIT)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .user_agent("valetkey");
    let builder = if pooled {
        builder.tls_backend_preconfigured(with_protocols(tls, &[b"h2", b"http/1.1"]))
    } else {
        builder.tls_backend_preconfigured(with_protocols(tls, &[b"http/1.1"])).http1_only().pool_max_idle_per_host(0)
    };
    builder.build().map_err(|_| OutboundSetupError::Client)
}

fn with_protocols(tls: &ClientConfig, protocols: &[&[u8]]) -> ClientConfig {
    let mut tls = tls.clone();
    tls.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    tls
}

/// TLS 1.2 and 1.3 with the aws-lc-rs provider, named explicitly and not installed anywhere, and
/// the trust store of the system (CT-02). Verification cannot be turned off.
///
/// # Errors
/// When the system has no trusted certificates.
pub fn tls_config() -> Result<ClientConfig, OutboundSetupError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(rustls::ConfigBuilder::with_platform_verifier)?;
    Ok(config.with_no_client_auth())
}

/// Makes aws-lc-rs the process's TLS provider, for libraries that take the default (sqlx). `main`
/// calls it once, first; a second call changes nothing.
pub fn install_crypto_provider() {
    // It only fails when a provider is installed already, and the house has but one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

#[cfg(test)]
mod tests {
    use super::testing::{gate, url};
    use super::*;

    #[test]
    fn bad_addresses_are_refused_in_every_spelling() {
        // SS-02, SS-03. What the URL parser refuses is refused; what it normalises is checked after that.
        let hosts = "
            127.0.0.1 127.1 127.0.1 2130706433 0x7f000001 0x7f.1 0177.0.0.1 017700000001
            127.0.0.1. 127.1. 0 0.0.0.0 0x0 00 10.0.0.1 10.1 012.0.0.1 0xa000001 167772161
            172.16.0.1 172.31.255.254 192.168.0.1 192.168.257 0xc0a80001 3232235521
            169.254.169.254 169.254.43518 2852039166 0xa9fea9fe 0251.0376.0251.0376
            0xA9.0xFE.0xA9.0xFE 169.254.169.254. 100.64.0.1 100.100.100.200 168.63.129.16
            192.0.0.192 192.0.2.1 198.18.0.1 198.51.100.7 203.0.113.9 224.0.0.1 239.1.1.1
            240.0.0.1 255.255.255.255 4294967295 192.88.99.1 127%2e0.0.1 %31%32%37.0.0.1 １２７.0.0.1
            127。0。0。1 ①②⑦.0.0.1 [::] [::1] [0:0:0:0:0:0:0:1] [::127.0.0.1] [::ffff:127.0.0.1]
            [::ffff:7f00:1] [::ffff:a9fe:a9fe] [::ffff:0:127.0.0.1] [64:ff9b::127.0.0.1]
            [64:ff9b::a9fe:a9fe] [64:ff9b:1::a9fe:a9fe] [2002:7f00:1::] [2002:a9fe:a9fe::1]
            [2001:0:53aa:64c:0:0:80ff:fffe] [2001:db8::1] [3fff::1] [fc00::1] [fd00:ec2::254]
            [fd20:ce::254] [fe80::1] [fe80::1%25eth0] [fe80::1%eth0] [fec0::1] [ff02::1] [100::1]
            [5f00::1] localhost LocalHost localhost. ｌocalhost app.localhost metadata
            metadata.google.internal metadata.google.internal. metadata.goog instance-data
            kubernetes.default.svc.cluster.local db example.com. 256.256.256.256 1.2.3.4.5
            0x100000000";
        let gate = gate(&[]);
        let mut checked = 0;
        for host in hosts.split_whitespace() {
            for path in ["", ":443", ":8443/x"] {
                let text = format!("https://{host}{path}");
                let Ok(parsed) = Url::parse(&text) else { continue };
                checked += 1;
                let refused = gate.check_url(&parsed);
                assert!(matches!(refused, Err(Refusal::Address | Refusal::Name)), "{text}: {refused:?}");
            }
        }
        assert!(checked >= 180, "{checked} spellings reached the gate");
    }

    #[test]
    fn public_urls_pass_and_other_schemes_and_passwords_do_not() {
        // SS-03
        let gate = gate(&[]);
        let check = |text: &str| gate.check_url(&url(text));
        for text in [
            "https://slack.com/api",
            "wss://api.elevenlabs.io/v1?x=1",
            "https://8.8.8.8:8443/",
            "https://[2606:4700::1]/",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        assert_eq!(check("http://slack.com/"), Err(Refusal::PlainHttp));
        assert_eq!(check("ws://slack.com/"), Err(Refusal::PlainHttp));
        assert_eq!(check("ftp://slack.com/"), Err(Refusal::Scheme));
        assert_eq!(check("file:///etc/passwd"), Err(Refusal::Scheme));
        assert_eq!(check("data:text/plain,x"), Err(Refusal::Scheme));
        assert_eq!(check("https://slack.com@evil.example/"), Err(Refusal::Userinfo));
        assert_eq!(check("https://:secret@slack.com/"), Err(Refusal::Userinfo));
        assert_eq!(check("https://slack.com\\@127.0.0.1/"), Ok(()), "parsed once: the host is slack.com");
    }

    #[test]
    fn a_listed_pair_opens_exactly_itself() {
        let gate = gate(&[
            "127.0.0.1:9000".into(),
            "LOCALHOST:9001".into(),
            "[::1]:80".into(),
            " emulator.example.com:9002".into(),
        ]);
        for text in [
            "http://127.0.0.1:9000/x",
            "https://127.1:9000",
            "ws://localhost:9001/",
            "http://[::1]/",
            "http://emulator.example.com:9002",
        ] {
            assert_eq!(gate.check_url(&url(text)), Ok(()), "{text}");
            assert!(gate.allows_plain_http(&url(text)), "{text}");
        }
        for text in
            ["http://127.0.0.1:9001/", "http://127.0.0.2:9000/", "http://localhost:9000/", "http://localhost.:9001/"]
        {
            assert_eq!(gate.check_url(&url(text)), Err(Refusal::PlainHttp), "{text}");
            assert!(!gate.allows_plain_http(&url(text)), "{text}");
        }
        assert_eq!(gate.check_url(&url("https://127.0.0.1/")), Err(Refusal::Address));
    }

    #[test]
    fn only_exact_pairs_that_may_be_reached_can_be_listed() {
        for entry in [
            "localhost",
            "localhost:0",
            "localhost:70000",
            ":80",
            "*:80",
            "*.example.com:80",
            "http://localhost:80",
            "10.0.0.1:80",
            "0.0.0.0:80",
            "169.254.169.254:80",
            "[fd00:ec2::254]:80",
            "::1:80",
            "a b:80",
            "localhost.:80",
            "",
        ] {
            let refused = Outbound::new(&[entry.to_owned()]);
            assert!(matches!(refused, Err(OutboundSetupError::Allow { .. })), "{entry}");
        }
    }
}
