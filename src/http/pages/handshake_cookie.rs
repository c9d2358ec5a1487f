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

/// What the browser presents; an empty text, which nothing was begun with, when it presents nothing.
pub(super) fn presented(headers: &HeaderMap) -> Secret {
    held(headers).unwrap_or_else(|| Secret::new(""))
}

/// The value to begin a handshake with, and the header that gives it to the browser. A browser keeps its value while
/// handshakes run, so that two tabs do not disturb each other.
///
/// # Errors
/// Never in practice: the value is plain text.
pub(super) fn for_beginning(house: &House, headers: &HeaderMap) -> Result<(Secret, HeaderValue), Problem> {
    let value = held(headers).unwrap_or_else(|| Secret::new(BASE64URL_NOPAD.encode(&house.around.random::<BYTES>())));
    let cookie =
        format!("{COOKIE}={}; Path=/; Max-Age={}; Secure; HttpOnly; SameSite=Lax", value.expose(), house.ttl.handshake);
    let mut cookie = HeaderValue::from_str(&cookie).map_err(Problem::internal)?;
    cookie.set_sensitive(true);
    Ok((value, cookie))
}

fn held(headers: &HeaderMap) -> Option<Secret> {
    let jar = CookieJar::from_headers(headers);
    let value = jar.get(COOKIE)?.value();
    let decoded = BASE64URL_NOPAD.decode(value.as_bytes()).ok()?;
    (decoded.len() == BYTES).then(|| Secret::new(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_value_of_ours_is_taken_up() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("cookie", HeaderValue::from_str(text).expect("a header"));
            presented(&headers).expose().to_owned()
        };
        let ours = "A".repeat(43);
        assert_eq!(of(&format!("__Host-valetkey=x; {COOKIE}={ours}")), ours);
        assert_eq!(of(&format!("{COOKIE}=short")), "");
        assert_eq!(of("other=1"), "");
    }
}
