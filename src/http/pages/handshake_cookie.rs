//! The secret that binds a handshake to the browser that began it (OA-01, OA-02). It has a cookie of its own, because a
//! session gets a new name and is emptied at every sign-in, and a hosted link works in a browser where nobody signs in.

use axum::http::{HeaderMap, HeaderValue};
use axum_extra::extract::CookieJar;
use data_encoding::BASE64URL_NOPAD;

use crate::http::{House, Problem};
use crate::secret::Secret;

/// The prefix binds it to this host, to `/` and to Secure (WB-01).
const COOKIE: &str = "__Host-valetkey-handshake";
/// Random bytes in a value.
const BYTES: usize = 32;
/// Random bytes in the name of a cookie that is for one handshake only.
const NAME_BYTES: usize = 6;

/// What the browser presents; nothing was begun with nothing.
pub(super) fn presented(headers: &HeaderMap) -> Vec<Secret> {
    let jar = CookieJar::from_headers(headers);
    let ours = jar.iter().filter(|cookie| {
        let rest = cookie.name().strip_prefix(COOKIE);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    });
    ours.filter_map(|cookie| ours_of(cookie.value())).collect()
}

/// The value to begin a handshake with, and the header that gives it to the browser. A browser keeps its value while
/// handshakes run, so that two tabs do not disturb each other.
///
/// # Errors
/// Never in practice: the value is plain text.
pub(super) fn for_beginning(house: &House, headers: &HeaderMap) -> Result<(Secret, HeaderValue), Problem> {
    let held = CookieJar::from_headers(headers).get(COOKIE).and_then(|cookie| ours_of(cookie.value()));
    let value = held.unwrap_or_else(|| fresh(house));
    let header = header(house, COOKIE, &value)?;
    Ok((value, header))
}

/// As [`for_beginning`], for a form that another site has sent: browsers send no cookies along with it, so that whatever they hold
/// already must not be replaced. It gets a name of its own.
///
/// # Errors
/// Never in practice: the value is plain text.
pub(super) fn for_beginning_elsewhere(house: &House) -> Result<(Secret, HeaderValue), Problem> {
    let value = fresh(house);
    let name = format!("{COOKIE}-{}", BASE64URL_NOPAD.encode(&house.around.random::<NAME_BYTES>()));
    let header = header(house, &name, &value)?;
    Ok((value, header))
}

fn fresh(house: &House) -> Secret {
    Secret::new(BASE64URL_NOPAD.encode(&house.around.random::<BYTES>()))
}

fn header(house: &House, name: &str, value: &Secret) -> Result<HeaderValue, Problem> {
    let age = house.ttl.handshake;
    let cookie = format!("{name}={}; Path=/; Max-Age={age}; Secure; HttpOnly; SameSite=Lax", value.expose());
    let mut cookie = HeaderValue::from_str(&cookie).map_err(Problem::internal)?;
    cookie.set_sensitive(true);
    Ok(cookie)
}

fn ours_of(value: &str) -> Option<Secret> {
    let decoded = BASE64URL_NOPAD.decode(value.as_bytes()).ok()?;
    (decoded.len() == BYTES).then(|| Secret::new(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_values_of_ours_are_taken_up() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("cookie", HeaderValue::from_str(text).expect("a header"));
            let mut values: Vec<_> = presented(&headers).iter().map(|value| value.expose().to_owned()).collect();
            values.sort();
            values
        };
        let (ours, other) = ("A".repeat(43), "E".repeat(43));
        assert_eq!(of(&format!("__Host-valetkey=x; {COOKIE}={ours}")), [&*ours]);
        assert_eq!(of(&format!("{COOKIE}={ours}; {COOKIE}-abc={other}")), [&*ours, &*other]);
        for text in [format!("{COOKIE}=short"), format!("{COOKIE}s={ours}"), "other=1".to_owned()] {
            assert!(of(&text).is_empty(), "{text}");
        }
    }
}
