//! Security headers, on every answer of every status (WB-08, WB-09). What an answer has set itself stays, so that a page
//! can widen its own policy by name and nothing else can.

use axum::http::HeaderMap;
use axum::http::header::{self, HeaderName, HeaderValue};

/// Nothing may be loaded and nobody may frame it: right for JSON, and for whatever forgot to say.
const BARE_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// Header and value; a year of HTTPS, no sniffing, no referrer, a window and a process of one's own, nothing kept.
const EVERYWHERE: [(HeaderName, &str); 7] = [
    (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000; includeSubDomains"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, BARE_POLICY),
];

/// Adds what is missing.
pub(super) fn secure(headers: &mut HeaderMap) {
    for (name, value) in EVERYWHERE {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

/// The policy of a page (WB-04). `form_action` is where its forms lead, redirects included: our own origin and, on a
/// page that begins a handshake, exactly that provider's (API.md 6, point 15).
pub(super) fn page_policy(form_action: Option<&str>, script: bool) -> String {
    let also = form_action.map(|origin| format!(" {origin}")).unwrap_or_default();
    let script = if script { " script-src 'self';" } else { "" };
    format!(
        "default-src 'none'; style-src 'self'; img-src 'self';{script} base-uri 'none'; form-action 'self'{also}; frame-ancestors 'none'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_lists_exactly_where_its_forms_lead() {
        assert_eq!(
            page_policy(None, false),
            "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
        );
        assert_eq!(
            page_policy(Some("https://accounts.google.com"), true),
            "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; base-uri 'none'; form-action 'self' https://accounts.google.com; frame-ancestors 'none'"
        );
    }

    #[test]
    fn what_an_answer_set_itself_stays() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=86400"));
        secure(&mut headers);
        assert_eq!(headers[header::CACHE_CONTROL], "public, max-age=86400");
        assert_eq!(headers[header::CONTENT_SECURITY_POLICY], BARE_POLICY);
        assert_eq!(headers.len(), EVERYWHERE.len());
    }
}
