//! Which addresses may be dialled, and the lookup that hands out no others.
//!
//! The tables follow the IANA special-purpose address registries (RFC 6890 and its updates). For
//! IPv6 the rule is turned round: only `2000::/3` is global unicast today (RFC 4291, IANA), so all
//! else is denied without being named: unspecified, loopback, IPv4-mapped and -compatible, NAT64 with
//! both prefixes (RFC 6052, RFC 8215), discard-only, unique local, link-local, site-local, multicast.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use super::{Cause, Outbound, OutboundError, Refusal};
use crate::clock;

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, c: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

/// Denied IPv4 networks. Loopback is among them; only a listed pair may have it.
const DENIED_V4: [Ipv4Net; 19] = [
    v4(0, 0, 0, 0, 8),        // "this network" (RFC 791)
    v4(10, 0, 0, 0, 8),       // private (RFC 1918)
    v4(100, 64, 0, 0, 10),    // shared by carriers (RFC 6598); Alibaba's metadata at 100.100.100.200
    v4(127, 0, 0, 0, 8),      // loopback (RFC 1122)
    v4(168, 63, 129, 16, 32), // Azure's host and metadata address, in a public range
    v4(169, 254, 0, 0, 16),   // link-local (RFC 3927); metadata of most clouds at 169.254.169.254
    v4(172, 16, 0, 0, 12),    // private (RFC 1918)
    v4(192, 0, 0, 0, 24),     // protocol assignments (RFC 6890); Oracle's metadata at 192.0.0.192
    v4(192, 0, 2, 0, 24),     // documentation (RFC 5737)
    v4(192, 31, 196, 0, 24),  // AS112 (RFC 7535)
    v4(192, 52, 193, 0, 24),  // multicast tunnels (RFC 7450)
    v4(192, 88, 99, 0, 24),   // 6to4 relays (RFC 7526)
    v4(192, 168, 0, 0, 16),   // private (RFC 1918)
    v4(192, 175, 48, 0, 24),  // AS112 (RFC 7534)
    v4(198, 18, 0, 0, 15),    // benchmarks (RFC 2544)
    v4(198, 51, 100, 0, 24),  // documentation (RFC 5737)
    v4(203, 0, 113, 0, 24),   // documentation (RFC 5737)
    v4(224, 0, 0, 0, 4),      // multicast (RFC 5771)
    v4(240, 0, 0, 0, 4),      // reserved, and the broadcast address (RFC 1112, RFC 919)
];

/// Global unicast, as far as it is assigned.
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 0, 3);

/// Denied networks within [`GLOBAL_V6`].
const DENIED_V6: [Ipv6Net; 6] = [
    v6(0x2001, 0, 0, 23),           // protocol assignments (RFC 2928): Teredo, benchmarks, ORCHID …
    v6(0x2001, 0x0db8, 0, 32),      // documentation (RFC 3849)
    v6(0x2002, 0, 0, 16),           // 6to4 (RFC 3056): it carries any IPv4 address
    v6(0x2620, 0x004f, 0x8000, 48), // AS112 (RFC 7534)
    v6(0x3ffe, 0, 0, 16),           // the former 6bone (RFC 3701)
    v6(0x3fff, 0, 0, 20),           // documentation (RFC 9637)
];

/// How far a call may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Public addresses.
    Public,
    /// A listed pair over TLS: public addresses and loopback.
    Listed,
    /// A listed pair in plain text: loopback, so that no secret travels in clear.
    ListedPlain,
}

impl Reach {
    /// Every reach, in the order of declaration, which is that of the clients.
    pub(super) const ALL: [Self; 3] = [Self::Public, Self::Listed, Self::ListedPlain];

    /// Whether an address may be dialled.
    pub(super) fn permits(self, address: IpAddr) -> bool {
        match self {
            Self::Public => is_public(address),
            Self::Listed => is_public(address) || address.is_loopback(),
            Self::ListedPlain => address.is_loopback(),
        }
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !DENIED_V4.iter().any(|net| net.contains(&address)),
        IpAddr::V6(address) => GLOBAL_V6.contains(&address) && !DENIED_V6.iter().any(|net| net.contains(&address)),
    }
}

/// A host as the connector will take it: the connector skips the lookup for whatever parses as an
/// address, so a name that does is an address here too.
pub(super) fn literal(host: Host<&str>) -> Host<&str> {
    match host {
        Host::Domain(name) => match name.parse() {
            Ok(IpAddr::V4(address)) => Host::Ipv4(address),
            Ok(IpAddr::V6(address)) => Host::Ipv6(address),
            Err(_) => Host::Domain(name),
        },
        address => address,
    }
}

/// True for names that mean something near us: a single label (completed by the search list of the
/// machine), names under suffixes kept for local use (RFC 6761, RFC 6762, RFC 8375, `internal`),
/// Google's metadata name, and every name that ends in a dot, since it would be a second spelling.
pub(super) fn is_local_name(name: &str) -> bool {
    const SUFFIXES: [&str; 8] =
        ["localhost", "local", "localdomain", "internal", "intranet", "lan", "home.arpa", "metadata.goog"];
    let name = name.to_ascii_lowercase();
    let under = |suffix: &str| name.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    name.is_empty() || name.ends_with('.') || !name.contains('.') || SUFFIXES.into_iter().any(under)
}

/// What a lookup promises.
pub(super) type Found = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Looks a name up. Tests hand in their own.
pub(super) type Lookup = Arc<dyn Fn(String) -> Found + Send + Sync>;

/// The system's resolver.
pub(super) fn system_lookup() -> Lookup {
    Arc::new(|name| {
        Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.map(|found| found.ip()).collect()) })
    })
}

/// The resolver of a client: it looks a name up anew for every connect and passes on only what the
/// reach permits. What it passes on is what is dialled, so a name that changes its mind between
/// check and connect gains nothing (DNS rebinding, SS-01).
pub(super) struct Guard {
    pub(super) lookup: Lookup,
    pub(super) reach: Reach,
}

/// Travels inside the client's error to where it is classified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LookupError {
    /// There are addresses, but none that may be dialled.
    #[error("no address of the name may be called")]
    Refused,
    /// There is no address.
    #[error("the name could not be resolved")]
    Failed,
}

impl From<LookupError> for OutboundError {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Refused => Self::Refused(Refusal::Address),
            LookupError::Failed => Self::NotSent(Cause::Dns),
        }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (lookup, reach) = (self.lookup.clone(), self.reach);
        Box::pin(async move {
            let permitted = checked(&lookup, name.as_str(), reach).await?;
            // Port 0 stands for "the port of the URL".
            Ok(Box::new(permitted.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}

/// The addresses of a name that may be dialled, never an empty list. In a mixed answer the others
/// are left out rather than the name refused: networks with DNS64 mix in NAT64 addresses.
pub(super) async fn checked(lookup: &Lookup, name: &str, reach: Reach) -> Result<Vec<IpAddr>, LookupError> {
    let mut found = lookup(name.to_owned()).await.map_err(|_| LookupError::Failed)?;
    if found.is_empty() {
        return Err(LookupError::Failed);
    }
    found.retain(|address| reach.permits(*address));
    if found.is_empty() { Err(LookupError::Refused) } else { Ok(found) }
}

impl Outbound {
    /// Checks a URL and looks its name up, in at most the time for a connect.
    pub(super) async fn addresses(&self, url: &Url) -> Result<Vec<IpAddr>, OutboundError> {
        let reach = self.reach(url)?;
        match literal(url.host().ok_or(Refusal::Name)?) {
            Host::Ipv4(address) => Ok(vec![address.into()]),
            Host::Ipv6(address) => Ok(vec![address.into()]),
            Host::Domain(name) => clock::deadline(self.0.connect_limit, checked(&self.0.lookup, name, reach))
                .await
                .map_err(|_| OutboundError::NotSent(Cause::Timeout))?
                .map_err(OutboundError::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Answers with each list once, in order, then fails.
    fn scripted(answers: &[&[&str]]) -> Lookup {
        let mut answers: Vec<Vec<IpAddr>> = answers
            .iter()
            .map(|answer| answer.iter().map(|text| text.parse().expect("an address")).collect())
            .collect();
        answers.reverse();
        let answers = Mutex::new(answers);
        Arc::new(move |_| {
            let next = answers.lock().expect("one thread").pop();
            Box::pin(async move { next.ok_or_else(|| io::Error::other("no more answers")) })
        })
    }

    #[test]
    fn every_special_purpose_address_is_denied() {
        // SS-02: first and last of each network of the IANA registries, and known metadata services.
        let denied = "
            0.0.0.0 0.255.255.255 10.0.0.0 10.255.255.255 100.64.0.0 100.127.255.255
            100.100.100.200 127.0.0.1 127.255.255.255 168.63.129.16 169.254.0.0 169.254.169.254
            169.254.170.2 172.16.0.0 172.31.255.255 192.0.0.0 192.0.0.8 192.0.0.192 192.0.0.255
            192.0.2.1 192.31.196.1 192.52.193.1 192.88.99.1 192.168.0.0 192.168.255.255
            192.175.48.1 198.18.0.0 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1
            239.255.255.255 240.0.0.0 255.255.255.255 :: ::1 ::8.8.8.8 ::ffff:8.8.8.8
            ::ffff:127.0.0.1 ::ffff:0:8.8.8.8 64:ff9b::8.8.8.8 64:ff9b::169.254.169.254
            64:ff9b:1::1 64:ff9b:1:ffff::1 100::1 100:0:0:1::1 1fff::1 2001::1 2001:0:4136:e378::1
            2001:2::1 2001:10::1 2001:20::1 2001:30::1 2001:1ff:ffff::1 2001:db8::1 2002:7f00:1::
            2002:808:808::1 2620:4f:8000::1 3ffe::1 3fff::1 3fff:fff:ffff::1 4000::1 5f00::1
            fc00::1 fd00:ec2::254 fd20:ce::254 fe80::1 fe80::a9fe:a9fe febf::1 fec0::1 ff02::1
            ff0e::1";
        for text in denied.split_whitespace() {
            let address = text.parse().expect(text);
            assert!(!Reach::Public.permits(address), "{text} is denied");
            let loopback = text.starts_with("127.") || text == "::1";
            assert_eq!(Reach::Listed.permits(address), loopback, "listed {text}");
            assert_eq!(Reach::ListedPlain.permits(address), loopback, "listed plain {text}");
        }
    }

    #[test]
    fn public_addresses_next_to_the_denied_ones_are_permitted() {
        let permitted = "
            1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255
            128.0.0.0 168.63.129.15 168.63.129.17 169.253.255.255 172.15.255.255 172.32.0.0
            192.0.1.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255
            2001:200::1 2001:4860:4860::8888 2003::1 2606:4700:4700::1111 2a00:1450:4001::1
            3fff:1000::1";
        for text in permitted.split_whitespace() {
            let address = text.parse().expect(text);
            assert!(Reach::Public.permits(address), "{text} is public");
            assert!(!Reach::ListedPlain.permits(address), "{text} is never called in plain text");
        }
    }

    #[test]
    fn names_of_the_neighbourhood_are_recognised() {
        for name in [
            "",
            "localhost",
            "LOCALHOST",
            "api.localhost",
            "metadata",
            "printer.local",
            "db.prod.internal",
            "metadata.google.internal",
            "metadata.goog",
            "x.home.arpa",
            "example.com.",
            "kubernetes",
        ] {
            assert!(is_local_name(name), "{name}");
        }
        for name in ["example.com", "internal.example.com", "mylocal.example", "notlocal.com", "xn--bcher-kva.example"]
        {
            assert!(!is_local_name(name), "{name}");
        }
    }

    #[tokio::test]
    async fn a_name_that_turns_to_loopback_is_refused_at_the_next_connect() {
        // SS-01: DNS rebinding.
        let guard = Guard { lookup: scripted(&[&["8.8.8.8"], &["127.0.0.1"]]), reach: Reach::Public };
        let name = || "rebind.example.com".parse::<Name>().expect("a name");

        let first: Vec<_> = guard.resolve(name()).await.expect("public").collect();
        let second = guard.resolve(name()).await.err().expect("refused");

        assert_eq!(first, ["8.8.8.8:0".parse().expect("an address")]);
        assert_eq!(second.downcast_ref(), Some(&LookupError::Refused));
    }

    #[tokio::test]
    async fn of_a_mixed_answer_only_permitted_addresses_are_dialled() {
        let lookup = scripted(&[&["10.0.0.1", "8.8.8.8", "::1", "64:ff9b::808:808"], &[]]);
        let found = checked(&lookup, "mixed.example.com", Reach::Public).await;
        assert_eq!(found.expect("one is public"), ["8.8.8.8".parse::<IpAddr>().expect("an address")]);

        assert_eq!(checked(&lookup, "empty.example.com", Reach::Public).await, Err(LookupError::Failed));
        assert_eq!(checked(&lookup, "failing.example.com", Reach::Public).await, Err(LookupError::Failed));
    }
}
