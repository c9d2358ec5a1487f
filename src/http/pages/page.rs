//! A rendered page with its own policy.

use askama::Template;
use axum::http::StatusCode;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::super::Problem;
use super::super::headers::page_policy;

/// A view on its way to a browser.
#[derive(Debug)]
pub struct Page {
    html: Result<String, askama::Error>,
    status: StatusCode,
    forms_lead_to: Option<String>,
    script: bool,
    keeps_opener: bool,
}

impl Page {
    /// Renders `view`.
    pub fn of(view: &impl Template) -> Self {
        Self { html: view.render(), status: StatusCode::OK, forms_lead_to: None, script: false, keeps_opener: false }
    }

    /// Another status than 200.
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// A form on this page is answered with a redirect to `origin`, such as `https://accounts.google.com`, which the
    /// policy must allow (API.md 6, point 15). Once for every form that leads elsewhere.
    #[must_use]
    pub fn forms_lead_to(mut self, origin: &str) -> Self {
        let before = self.forms_lead_to.take().map(|origins| format!("{origins} ")).unwrap_or_default();
        self.forms_lead_to = Some(before + origin);
        self
    }

    /// The page loads `/static/valetkey.js`.
    #[must_use]
    pub fn with_script(mut self) -> Self {
        self.script = true;
        self
    }

    /// The page may have been opened as a popup by a platform and talks to its opener, so it keeps it.
    #[must_use]
    pub fn keeps_opener(mut self) -> Self {
        self.keeps_opener = true;
        self
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let html = match self.html {
            Ok(html) => html,
            Err(error) => return Problem::internal(error).into_response(),
        };
        let policy = page_policy(self.forms_lead_to.as_deref(), self.script);
        let Ok(policy) = HeaderValue::from_str(&policy) else { return Problem::internal(NotAnOrigin).into_response() };
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
            (header::CONTENT_SECURITY_POLICY, policy),
        ];
        let mut response = (self.status, headers, html).into_response();
        if self.keeps_opener {
            keep_opener(&mut response);
        }
        response
    }
}

/// Every answer on the way of a popup must say this, redirects included: one that does not, parts the window from its
/// opener for good (HTML, "enforce a response's cross-origin opener policy").
pub(super) fn keep_opener(response: &mut Response) {
    let value = HeaderValue::from_static("unsafe-none");
    response.headers_mut().insert(HeaderName::from_static("cross-origin-opener-policy"), value);
}

#[derive(Debug, thiserror::Error)]
#[error("a page's policy names something that is no origin")]
struct NotAnOrigin;
