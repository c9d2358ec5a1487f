//! Who is really at the other end (AP-06).
//!
//! The peer is whoever opened the connection, unless that is a proxy the operator named. Only then do forwarding headers
//! count, read from the right: every entry was added by the one after it, so the chain is followed while the writer is
//! trusted, and the first address that is not is the peer. A chain that cannot be read, or two kinds of chain at once,
//! means nobody is known; what is limited to addresses is then refused.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

/// Reads an entry of `trusted_proxies`: a network or a bare address.
pub(super) fn network(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// The real peer, or none when the chain is ambiguous or garbled. IPv4 in IPv6 clothes is IPv4.
pub(super) fn real_peer(connection: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let connection = connection.to_canonical();
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
    if !is_trusted(connection) {
        return Some(connection);
    }
    let listed = entries(headers, "x-forwarded-for")?;
    let standard = entries(headers, "forwarded")?;
    let chain: Vec<Option<IpAddr>> = match (listed.is_empty(), standard.is_empty()) {
        // The proxy speaks for itself: a health check.
        (true, true) => return Some(connection),
        (false, true) => listed.iter().map(|text| address(text)).collect(),
        (true, false) => standard.iter().map(|text| address(for_of(text)?)).collect(),
        (false, false) => return None,
    };
    let mut farthest = connection;
    for entry in chain.into_iter().rev() {
        farthest = entry?;
        if !is_trusted(farthest) {
            break;
        }
    }
    Some(farthest)
}

/// All comma-separated entries of all headers of this name, in order; none when one is not text.
fn entries(headers: &HeaderMap, name: &str) -> Option<Vec<String>> {
    let mut entries = Vec::new();
    for value in headers.get_all(name) {
        entries.extend(value.to_str().ok()?.split(',').map(|entry| entry.trim().to_owned()));
    }
    Some(entries)
}

/// The `for` of one RFC 7239 element, unquoted. An element may have each parameter once.
fn for_of(element: &str) -> Option<&str> {
    let mut found = None;
    for pair in element.split(';') {
        let (name, value) = pair.trim().split_once('=')?;
        if name.eq_ignore_ascii_case("for") && found.replace(value).is_some() {
            return None;
        }
    }
    let value: &str = found?;
    Some(value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value))
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`. Names and `unknown` are no addresses.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let parsed = match bare {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().ok().map(IpAddr::from),
        None => text.parse::<IpAddr>().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip())),
    };
    parsed.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    /// Networks 10.0.0.0/8 and fd00::/8 are trusted. Rows: connection, headers, expected peer.
    #[test]
    fn the_table_of_forwarding_headers_ap_06() {
        const XFF: &str = "x-forwarded-for";
        const FWD: &str = "forwarded";
        type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], Option<&'a str>);
        let rows: &[Row<'_>] = &[
            // Not through a proxy: headers are what the client made up.
            ("198.51.100.7", &[], Some("198.51.100.7")),
            ("198.51.100.7", &[(XFF, "203.0.113.9")], Some("198.51.100.7")),
            ("198.51.100.7", &[(FWD, "for=203.0.113.9")], Some("198.51.100.7")),
            ("198.51.100.7", &[(XFF, "garbage")], Some("198.51.100.7")),
            ("198.51.100.7", &[(XFF, "10.0.0.1")], Some("198.51.100.7")),
            ("::ffff:198.51.100.7", &[], Some("198.51.100.7")),
            // Through one proxy.
            ("10.0.0.1", &[], Some("10.0.0.1")),
            ("10.0.0.1", &[(XFF, "203.0.113.9")], Some("203.0.113.9")),
            ("::ffff:10.0.0.1", &[(XFF, "203.0.113.9")], Some("203.0.113.9")),
            ("10.0.0.1", &[(XFF, "::ffff:203.0.113.9")], Some("203.0.113.9")),
            ("10.0.0.1", &[(XFF, "203.0.113.9:4711")], Some("203.0.113.9")),
            ("10.0.0.1", &[(XFF, "2001:db8::5")], Some("2001:db8::5")),
            ("10.0.0.1", &[(XFF, "[2001:db8::5]:443")], Some("2001:db8::5")),
            // What the client wrote before it stands further left and does not count.
            ("10.0.0.1", &[(XFF, "192.0.2.1, 203.0.113.9")], Some("203.0.113.9")),
            ("10.0.0.1", &[(XFF, "garbage, 203.0.113.9")], Some("203.0.113.9")),
            ("10.0.0.1", &[(XFF, "192.0.2.1"), (XFF, "203.0.113.9")], Some("203.0.113.9")),
            // Several proxies.
            ("10.0.0.1", &[(XFF, "203.0.113.9, 10.0.0.2")], Some("203.0.113.9")),
            ("10.0.0.1", &[(XFF, "192.0.2.1, 203.0.113.9, 10.0.0.2, 10.0.0.3")], Some("203.0.113.9")),
            ("fd00::1", &[(XFF, "203.0.113.9, fd00::2")], Some("203.0.113.9")),
            ("10.0.0.1", &[(XFF, "10.0.0.3, 10.0.0.2")], Some("10.0.0.3")),
            // Garbled or ambiguous: nobody is known.
            ("10.0.0.1", &[(XFF, "")], None),
            ("10.0.0.1", &[(XFF, "unknown")], None),
            ("10.0.0.1", &[(XFF, "203.0.113.9, garbage")], None),
            ("10.0.0.1", &[(XFF, "203.0.113.9, ")], None),
            ("10.0.0.1", &[(XFF, "garbage, 10.0.0.2")], None),
            ("10.0.0.1", &[(XFF, "203.0.113.999")], None),
            ("10.0.0.1", &[(XFF, "client.example")], None),
            ("10.0.0.1", &[(XFF, "203.0.113.9"), (FWD, "for=203.0.113.9")], None),
            // RFC 7239.
            ("10.0.0.1", &[(FWD, "for=203.0.113.9")], Some("203.0.113.9")),
            ("10.0.0.1", &[(FWD, "For=\"[2001:db8::5]:4711\";proto=https")], Some("2001:db8::5")),
            ("10.0.0.1", &[(FWD, "for=192.0.2.1, for=203.0.113.9;by=10.0.0.1")], Some("203.0.113.9")),
            ("10.0.0.1", &[(FWD, "for=203.0.113.9, for=10.0.0.2")], Some("203.0.113.9")),
            ("10.0.0.1", &[(FWD, "for=_hidden")], None),
            ("10.0.0.1", &[(FWD, "for=unknown")], None),
            ("10.0.0.1", &[(FWD, "proto=https")], None),
            ("10.0.0.1", &[(FWD, "for=203.0.113.9;for=192.0.2.1")], None),
        ];
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"].iter().filter_map(|text| network(text)).collect();
        for (connection, given, expected) in rows {
            let mut headers = HeaderMap::new();
            for (name, value) in *given {
                headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            let peer = real_peer(connection.parse().expect("address"), &headers, &trusted);
            assert_eq!(peer, expected.map(|text| text.parse().expect("address")), "{connection} {given:?}");
        }
    }

    #[test]
    fn a_trusted_proxy_may_be_an_address_or_a_network() {
        assert_eq!(network("10.0.0.1").map(|n| n.to_string()).as_deref(), Some("10.0.0.1/32"));
        assert_eq!(network("fd00::/8").map(|n| n.to_string()).as_deref(), Some("fd00::/8"));
        assert_eq!(network("proxy.internal"), None);
    }
}
