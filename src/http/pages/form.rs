//! Forms: only from our own pages (OA-15). The anti-forgery value of the session must be in the form, and whatever the
//! browser says about where the request comes from must agree.

use axum::Form;
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::{HeaderMap, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::form_urlencoded;

use super::Browser;
use crate::http::body::read_bytes;
use crate::http::{Code, House, Problem};

/// A form that our own page sent, without its `csrf` field.
#[derive(Debug)]
pub struct PageForm<T>(pub T);

/// A form with no field but `csrf`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

impl<T: DeserializeOwned> FromRequest<House> for PageForm<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, house: &House) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        if !comes_from_us(&parts.headers, &house.origin()) {
            return Err(Problem::new(Code::IdentityMismatch, "this form was sent from another site"));
        }
        let browser = Browser::from_request_parts(&mut parts, house).await?;
        let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if kind != "application/x-www-form-urlencoded" {
            return Err(Problem::new(Code::UnsupportedMediaType, "this is not a form"));
        }
        let bytes = read_bytes(Request::from_parts(parts, body)).await?;
        let mut fields: Vec<(String, String)> = form_urlencoded::parse(&bytes).into_owned().collect();
        let at = fields.iter().position(|(name, _)| name == "csrf").ok_or_else(stale)?;
        let (_, value) = fields.remove(at);
        if !browser.is_csrf(&value).await? {
            return Err(stale());
        }
        let rest = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let rest = Request::post("/")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(rest))
            .map_err(Problem::internal)?;
        let form = Form::<T>::from_request(rest, &()).await;
        form.map(|Form(value)| Self(value)).map_err(|_| Problem::new(Code::Malformed, "the form is not complete"))
    }
}

fn stale() -> Problem {
    Problem::new(Code::Malformed, "the form is too old; go back, reload and send it again")
}

/// Browsers say where a request comes from. `Sec-Fetch-Site` must be `same-origin`; without it `Origin`, when there is
/// one, must be ours. Under our own `no-referrer` policy browsers send `Origin: null` even for our own forms (Fetch,
/// "append a request Origin header"), so `null` counts for nothing beside `Sec-Fetch-Site` and as foreign without it.
fn comes_from_us(headers: &HeaderMap, own_origin: &str) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("garbled"));
    let site = text("sec-fetch-site");
    let site_agrees = site.is_none_or(|site| site == "same-origin");
    let origin_agrees = match text("origin") {
        None => true,
        Some("null") => site.is_some(),
        Some(origin) => origin == own_origin,
    };
    site_agrees && origin_agrees
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn forms_from_elsewhere_are_refused_whatever_they_carry_oa_15() {
        let ours = "https://vault.example";
        let rows: &[(&[(&'static str, &'static str)], bool)] = &[
            (&[("sec-fetch-site", "same-origin"), ("origin", "https://vault.example")], true),
            (&[("sec-fetch-site", "same-origin"), ("origin", "null")], true),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("origin", "https://vault.example")], true),
            (&[], true),
            (&[("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "same-site"), ("origin", "https://other.example")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-site", "same-origin"), ("origin", "https://evil.example")], false),
            (&[("origin", "null")], false),
            (&[("origin", "http://vault.example")], false),
            (&[("origin", "https://vault.example.evil.example")], false),
        ];
        for (given, expected) in rows {
            let mut headers = HeaderMap::new();
            for (name, value) in *given {
                headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            assert_eq!(comes_from_us(&headers, ours), *expected, "{given:?}");
        }
    }
}
