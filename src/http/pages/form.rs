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

const FORM: &str = "application/x-www-form-urlencoded";

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
            return Err(from_another_site());
        }
        let browser = Browser::from_request_parts(&mut parts, house).await?;
        let mut fields = fields(Request::from_parts(parts, body)).await?;
        let at = fields.iter().position(|(name, _)| name == "csrf").ok_or_else(stale)?;
        let (_, value) = fields.remove(at);
        if !browser.is_csrf(&value).await? {
            return Err(stale());
        }
        read(fields).await.map(Self)
    }
}

/// What another site's form says; whoever calls this knows that the site may.
pub(super) async fn form_from_elsewhere<T: DeserializeOwned>(request: Request) -> Result<T, Problem> {
    read(fields(request).await?).await
}

async fn fields(request: Request) -> Result<Vec<(String, String)>, Problem> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind != FORM {
        return Err(Problem::new(Code::UnsupportedMediaType, "this is not a form"));
    }
    Ok(form_urlencoded::parse(&read_bytes(request).await?).into_owned().collect())
}

async fn read<T: DeserializeOwned>(fields: Vec<(String, String)>) -> Result<T, Problem> {
    let text = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let form = Request::post("/").header(header::CONTENT_TYPE, FORM).body(Body::from(text));
    let form = Form::<T>::from_request(form.map_err(Problem::internal)?, &()).await;
    form.map(|Form(value)| value).map_err(|_| Problem::new(Code::Malformed, "the form is not complete"))
}

/// What a form is refused with that nobody may send from where it comes from.
pub(super) fn from_another_site() -> Problem {
    Problem::new(Code::IdentityMismatch, "this form was sent from another site")
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

/// The origin of another site whose page a person has left by sending this form. What a script sends in the background is none, nor
/// what fills a frame.
pub(super) fn other_site(headers: &HeaderMap, own_origin: &str) -> Option<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let origin = text("origin").filter(|origin| *origin != "null" && *origin != own_origin)?;
    let leaves = text("sec-fetch-mode").is_none_or(|mode| mode == "navigate")
        && text("sec-fetch-dest").is_none_or(|dest| dest == "document");
    let site_agrees = text("sec-fetch-site").is_none_or(|site| ["same-site", "cross-site"].contains(&site));
    (leaves && site_agrees).then(|| origin.to_owned())
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

    #[test]
    fn another_site_is_one_that_a_person_has_left_oa_15() {
        let ours = "https://vault.example";
        let theirs = ("origin", "https://app.example");
        let rows: &[(&[(&'static str, &'static str)], bool)] = &[
            (&[theirs, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")], true),
            (&[theirs, ("sec-fetch-site", "same-site"), ("sec-fetch-mode", "navigate")], true),
            (&[theirs], true),
            (&[theirs, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")], false),
            (&[theirs, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "cors")], false),
            (&[theirs, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")], true),
            (&[theirs, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")], false),
            (&[theirs, ("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "navigate")], false),
            (&[theirs, ("sec-fetch-site", "none")], false),
            (&[("origin", "https://vault.example")], false),
            (&[("origin", "null"), ("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[], false),
        ];
        for (given, expected) in rows {
            let mut headers = HeaderMap::new();
            for (name, value) in *given {
                headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            let wanted = expected.then(|| "https://app.example".to_owned());
            assert_eq!(other_site(&headers, ours), wanted, "{given:?}");
        }
    }
}
