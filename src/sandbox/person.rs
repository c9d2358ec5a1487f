//! Somebody in a browser without a screen: keeps cookies, follows redirects one by one, reads forms, fills
//! them in and clicks through the sandbox's consent pages. Plain HTTP only.
//!
//! Cookies follow RFC 6265 where it matters on one machine: the host without its port, path, deletion by
//! `Max-Age` or `Expires`, and the `__Host-` and `__Secure-` prefixes. As in real browsers, `Secure` cookies
//! work on `http://127.0.0.1`, and every port of it is the same site.

use std::sync::{Arc, Mutex, PoisonError};

use axum_extra::extract::cookie::Cookie;
use http::{HeaderMap, Method, StatusCode, header};
use url::{Url, form_urlencoded};

use super::html::{self, Element, Form};

/// Redirects that [`Person::follow`] goes along before it gives up.
const LONGEST_CHAIN: usize = 10;

/// Something on the page, or on the way to it, was not as expected.
#[derive(Debug, thiserror::Error)]
pub enum PersonError {
    /// The browser could not be set up.
    #[error("the sandbox's browser cannot be set up")]
    Setup(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No answer came.
    #[error("the page did not answer")]
    NoAnswer(#[source] reqwest::Error),
    /// A URL that is none.
    #[error("this is not a URL")]
    Url(#[from] url::ParseError),
    /// No page was opened yet.
    #[error("no page is open")]
    NoPage,
    /// Nothing on the page is called so.
    #[error("nothing on the page is called `{0}`")]
    NotFound(String),
    /// Too many redirects, or one that would repeat a form.
    #[error("the redirects lead nowhere")]
    Redirects,
}

/// What came back for one request.
#[derive(Clone)]
pub struct Page {
    /// The HTTP status.
    pub status: StatusCode,
    /// The answer's headers.
    pub headers: HeaderMap,
    /// Where the page was found.
    pub url: Url,
    /// The body as text.
    pub body: String,
}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Page({} {})", self.status.as_u16(), self.url.path())
    }
}

impl Page {
    /// Where a redirect leads; `None` on any other page.
    #[must_use]
    pub fn location(&self) -> Option<Url> {
        let target = self.headers.get(header::LOCATION).filter(|_| self.status.is_redirection())?;
        self.url.join(target.to_str().ok()?).ok()
    }

    /// The value of a query parameter of the redirect's target, or else of the page's own URL.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<String> {
        let url = self.location().unwrap_or_else(|| self.url.clone());
        url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// The first element whose `data-vk`, `id` or `name` is `selector`.
    #[must_use]
    pub fn element(&self, selector: &str) -> Option<Element> {
        html::elements(&self.body).into_iter().find(|element| element.is_called(selector))
    }

    /// The page's forms.
    #[must_use]
    pub fn forms(&self) -> Vec<Form> {
        html::forms(&self.body)
    }
}

struct StoredCookie {
    host: String,
    path: String,
    name: String,
    value: String,
}

/// How far away the page is that led here; what `Sec-Fetch-Site` says. Ordered from near to far.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Distance {
    Origin,
    Site,
    Elsewhere,
}

/// A person with a browser of their own.
pub struct Person {
    http: reqwest::Client,
    cookies: Vec<StoredCookie>,
    page: Option<Page>,
    distance: Option<Distance>,
    seen: Option<Seen>,
}

/// Every page that people have seen, in order; redirects count as pages.
pub type Seen = Arc<Mutex<Vec<(Method, Page)>>>;

impl std::fmt::Debug for Person {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Person").field("page", &self.page).finish_non_exhaustive()
    }
}

impl Person {
    /// Somebody with no cookies and no page open.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn new() -> Result<Self, PersonError> {
        Ok(Self { http: plain_client()?, cookies: Vec::new(), page: None, distance: None, seen: None })
    }

    /// Somebody whose every page is also written down in `seen`.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn watched(seen: &Seen) -> Result<Self, PersonError> {
        Ok(Self { seen: Some(seen.clone()), ..Self::new()? })
    }

    /// Types `url` into the address bar. One request: a redirect is returned as it is.
    ///
    /// # Errors
    /// When nothing answers.
    pub async fn get(&mut self, url: &str) -> Result<Page, PersonError> {
        self.distance = None;
        self.request(Method::GET, Url::parse(url)?, None).await
    }

    /// [`Person::get`], then [`Person::follow`].
    ///
    /// # Errors
    /// As those two.
    pub async fn visit(&mut self, url: &str) -> Result<Page, PersonError> {
        self.get(url).await?;
        self.follow().await
    }

    /// Follows one redirect of the open page.
    ///
    /// # Errors
    /// When the page is no redirect (303 and the like; 307 and 308 are not followed).
    pub async fn step(&mut self) -> Result<Page, PersonError> {
        let page = self.page.as_ref().ok_or(PersonError::NoPage)?;
        if !matches!(page.status.as_u16(), 301..=303) {
            return Err(PersonError::Redirects);
        }
        let target = page.location().ok_or(PersonError::Redirects)?;
        self.request(Method::GET, target, None).await
    }

    /// Follows redirects until a page is no redirect, at most ten.
    ///
    /// # Errors
    /// When there is no end to them, or nothing answers.
    pub async fn follow(&mut self) -> Result<Page, PersonError> {
        for _ in 0..=LONGEST_CHAIN {
            let page = self.page.clone().ok_or(PersonError::NoPage)?;
            if !page.status.is_redirection() {
                return Ok(page);
            }
            self.step().await?;
        }
        Err(PersonError::Redirects)
    }

    /// Clicks the link called `selector` (`data-vk`, `id` or `name`). One request.
    ///
    /// # Errors
    /// When there is no such link, or nothing answers.
    pub async fn click(&mut self, selector: &str) -> Result<Page, PersonError> {
        let page = self.page.as_ref().ok_or(PersonError::NoPage)?;
        let missing = || PersonError::NotFound(selector.to_owned());
        let link = page.element(selector).ok_or_else(missing)?;
        let target = page.url.join(link.attribute("href").ok_or_else(missing)?)?;
        self.distance = Some(Distance::Origin);
        self.request(Method::GET, target, None).await
    }

    /// Submits the form called `selector`, or the form of the button called so; the empty text means the only
    /// form. `fields` replace what the page filled in under the same names. One request: redirects are not followed.
    ///
    /// # Errors
    /// When there is no such form, or nothing answers.
    pub async fn submit(&mut self, selector: &str, fields: &[(&str, &str)]) -> Result<Page, PersonError> {
        let page = self.page.clone().ok_or(PersonError::NoPage)?;
        let (form, button) = found(page.forms(), selector).ok_or_else(|| PersonError::NotFound(selector.to_owned()))?;
        let pressed = button.as_ref().and_then(|button| {
            let name = button.attribute("name").filter(|name| !name.is_empty())?;
            Some((name.to_owned(), button.attribute("value").unwrap_or("").to_owned()))
        });
        let kept = form.fields.into_iter().chain(pressed).filter(|(name, _)| fields.iter().all(|(key, _)| key != name));
        let mut sent = form_urlencoded::Serializer::new(String::new());
        sent.extend_pairs(kept).extend_pairs(fields);
        let attribute = |on_button: &str, on_form: &str| {
            let own = button.as_ref().and_then(|button| button.attribute(on_button)).filter(|text| !text.is_empty());
            own.or_else(|| form.element.attribute(on_form)).unwrap_or("").to_owned()
        };
        let mut target = page.url.join(&attribute("formaction", "action"))?;
        self.distance = Some(Distance::Origin);
        if attribute("formmethod", "method").eq_ignore_ascii_case("post") {
            return self.request(Method::POST, target, Some(sent.finish())).await;
        }
        target.set_query(Some(&sent.finish()));
        self.request(Method::GET, target, None).await
    }

    /// Answers the sandbox's consent page that is open: `account` is an e-mail address of
    /// [`super::ACCOUNTS`]; `scopes` are the ticked ones, `None` leaves every box ticked. The redirect back to the
    /// house is returned, not followed.
    ///
    /// # Errors
    /// When the open page is no consent page, or lacks one of these choices.
    pub async fn consent(&mut self, allow: bool, account: &str, scopes: Option<&[&str]>) -> Result<Page, PersonError> {
        let page = self.page.as_ref().ok_or(PersonError::NoPage)?;
        let form = found(page.forms(), "consent").ok_or_else(|| PersonError::NotFound("consent".to_owned()))?.0;
        let offered = |name: &str, value: &str| form.choices.iter().any(|(n, v)| n == name && v == value);
        if !offered("account", account) {
            return Err(PersonError::NotFound(account.to_owned()));
        }
        let mut fields = vec![("account", account), ("decision", if allow { "allow" } else { "deny" })];
        let ticked: Vec<&str> = match scopes {
            Some(scopes) => scopes.to_vec(),
            None => form.choices.iter().filter(|(name, _)| name == "scope").map(|(_, scope)| scope.as_str()).collect(),
        };
        if let Some(missing) = ticked.iter().find(|scope| !offered("scope", scope)) {
            return Err(PersonError::NotFound((*missing).to_owned()));
        }
        fields.extend(ticked.iter().map(|scope| ("scope", *scope)));
        if ticked.is_empty() {
            // A field of this name replaces the boxes that the page ticked.
            fields.push(("scope", ""));
        }
        self.submit("consent", &fields).await
    }

    /// The page that is open.
    #[must_use]
    pub fn page(&self) -> Option<&Page> {
        self.page.as_ref()
    }

    /// The value of a cookie that would be sent to `url`.
    #[must_use]
    pub fn cookie(&self, url: &Url, name: &str) -> Option<&str> {
        self.cookies_for(url).find(|cookie| cookie.name == name).map(|cookie| cookie.value.as_str())
    }

    /// Forgets every cookie: the same person in a fresh browser.
    pub fn forget_cookies(&mut self) {
        self.cookies.clear();
    }

    fn cookies_for<'p, 'u>(&'p self, url: &'u Url) -> impl Iterator<Item = &'p StoredCookie> + use<'p, 'u> {
        let (host, path) = (url.host_str().unwrap_or(""), url.path());
        self.cookies.iter().filter(move |cookie| {
            let below = path.strip_prefix(cookie.path.as_str());
            let within =
                below.is_some_and(|rest| rest.is_empty() || cookie.path.ends_with('/') || rest.starts_with('/'));
            cookie.host == host && within
        })
    }

    async fn request(&mut self, method: Method, url: Url, form: Option<String>) -> Result<Page, PersonError> {
        let from = self.page.as_ref().map(|page| page.url.clone());
        let site = self.site_towards(from.as_ref(), &url);
        let mut request = self.http.request(method.clone(), url.clone());
        request = request.header("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
        request = request.header("sec-fetch-mode", "navigate").header("sec-fetch-dest", "document");
        request = request.header("sec-fetch-site", site);
        let cookies: Vec<String> = self.cookies_for(&url).map(|c| format!("{}={}", c.name, c.value)).collect();
        if !cookies.is_empty() {
            request = request.header(header::COOKIE, cookies.join("; "));
        }
        if let Some(form) = form {
            let origin = from.map_or_else(|| "null".to_owned(), |from| from.origin().ascii_serialization());
            request = request.header(header::ORIGIN, origin);
            request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(form);
        }
        let answer = request.send().await.map_err(|error| PersonError::NoAnswer(error.without_url()))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        for line in headers.get_all(header::SET_COOKIE) {
            if let Ok(cookie) = Cookie::parse(line.to_str().unwrap_or("").to_owned()) {
                self.keep(&url, &cookie);
            }
        }
        let body = answer.text().await.map_err(|error| PersonError::NoAnswer(error.without_url()))?;
        let page = Page { status, headers, url, body };
        self.page = Some(page.clone());
        if let Some(seen) = &self.seen {
            seen.lock().unwrap_or_else(PoisonError::into_inner).push((method, page.clone()));
        }
        Ok(page)
    }

    /// What `Sec-Fetch-Site` says: the farthest step of the whole chain of redirects.
    fn site_towards(&mut self, from: Option<&Url>, to: &Url) -> &'static str {
        let (Some(so_far), Some(from)) = (self.distance, from) else { return "none" };
        let step = if from.origin() == to.origin() {
            Distance::Origin
        } else if from.host_str() == to.host_str() && from.scheme() == to.scheme() {
            Distance::Site
        } else {
            Distance::Elsewhere
        };
        let farthest = so_far.max(step);
        self.distance = Some(farthest);
        match farthest {
            Distance::Origin => "same-origin",
            Distance::Site => "same-site",
            Distance::Elsewhere => "cross-site",
        }
    }

    fn keep(&mut self, url: &Url, cookie: &Cookie<'_>) {
        let secure = cookie.secure() == Some(true);
        let bound = secure && cookie.path() == Some("/") && cookie.domain().is_none();
        let name = cookie.name();
        if (name.starts_with("__Host-") && !bound) || (name.starts_with("__Secure-") && !secure) {
            return;
        }
        let host = url.host_str().unwrap_or("").to_owned();
        if cookie.domain().is_some_and(|domain| domain.trim_start_matches('.') != host) {
            return;
        }
        let path = match cookie.path().filter(|path| path.starts_with('/')) {
            Some(path) => path.to_owned(),
            None => default_path(url.path()),
        };
        self.cookies.retain(|old| old.name != name || old.host != host || old.path != path);
        let ended = cookie.max_age().is_some_and(|age| age.whole_seconds() <= 0)
            || cookie.expires_datetime().is_some_and(|until| until.unix_timestamp() <= 0);
        if !ended {
            self.cookies.push(StoredCookie { host, path, name: name.to_owned(), value: cookie.value().to_owned() });
        }
    }
}

/// RFC 6265 section 5.1.4: the path up to, not including, its last slash.
fn default_path(path: &str) -> String {
    match path.rfind('/') {
        None | Some(0) => "/".to_owned(),
        Some(at) => path[..at].to_owned(),
    }
}

fn found(forms: Vec<Form>, selector: &str) -> Option<(Form, Option<Element>)> {
    if selector.is_empty() {
        return if forms.len() == 1 { forms.into_iter().next().map(|form| (form, None)) } else { None };
    }
    forms.into_iter().find_map(|form| {
        if form.element.is_called(selector) {
            return Some((form, None));
        }
        let button = form.buttons.iter().find(|button| button.is_called(selector))?.clone();
        Some((form, Some(button)))
    })
}

/// A client that trusts nobody's certificates: the sandbox lives on plain HTTP.
#[expect(clippy::disallowed_methods, reason = "the sandbox is not the house: it plays a browser")]
pub(super) fn plain_client() -> Result<reqwest::Client, PersonError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| PersonError::Setup(Box::new(error)))?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(std::time::Duration::from_secs(60))
        .build()
        .map_err(|error| PersonError::Setup(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::response::{AppendHeaders, Html, Redirect};
    use axum::routing::{get, post};

    use super::*;

    fn person() -> Person {
        Person::new().expect("a person")
    }

    fn url(text: &str) -> Url {
        text.parse().expect("a URL")
    }

    #[test]
    fn cookies_go_to_their_host_and_path_only_and_end_when_told() {
        let (mut person, here) = (person(), url("http://127.0.0.1:4000/portal/sign-in"));
        person.keep(&here, &Cookie::parse("a=1; Path=/").expect("cookie"));
        person.keep(&here, &Cookie::parse("b=2").expect("cookie"));
        assert_eq!(person.cookie(&url("http://127.0.0.1:5000/x"), "a"), Some("1"), "ports share cookies");
        assert_eq!(person.cookie(&url("http://localhost:4000/"), "a"), None);
        assert_eq!(person.cookie(&url("http://127.0.0.1:4000/portal"), "b"), Some("2"));
        assert_eq!(person.cookie(&url("http://127.0.0.1:4000/portals"), "b"), None);
        person.keep(&here, &Cookie::parse("a=; Path=/; Max-Age=0").expect("cookie"));
        assert_eq!(person.cookie(&here, "a"), None);
    }

    #[test]
    fn host_prefixed_cookies_must_be_secure_and_for_the_whole_host() {
        let (mut person, here) = (person(), url("http://127.0.0.1:4000/"));
        person.keep(&here, &Cookie::parse("__Host-s=1; Path=/").expect("cookie"));
        assert_eq!(person.cookie(&here, "__Host-s"), None, "not secure");
        person.keep(&here, &Cookie::parse("__Host-s=1; Path=/; Secure").expect("cookie"));
        assert_eq!(person.cookie(&here, "__Host-s"), Some("1"));
    }

    /// A server whose pages redirect, set a cookie, link and take a form.
    fn small_site() -> Router {
        let page = "<a data-vk=\"next\" href=\"/form?x=1&amp;y=2\">on</a>";
        let form = "<form action=\"/done\" method=\"post\"><input name=\"a\" value=\"1\"><input name=\"b\" value=\"2\">\
                    <button name=\"go\" value=\"yes\" data-vk=\"go\">Go</button></form>";
        let seen = |headers: HeaderMap, body: String| async move {
            let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("-").to_owned();
            format!("{body} {} {} {}", header("cookie"), header("sec-fetch-site"), header("origin"))
        };
        Router::new()
            .route("/", get(|| async { (AppendHeaders([("set-cookie", "s=1; HttpOnly")]), Redirect::to("/page")) }))
            .route("/page", get(move || async move { Html(page) }))
            .route("/form", get(move || async move { Html(form) }))
            .route("/loop", get(|| async { Redirect::to("/loop") }))
            .route("/done", post(seen))
    }

    #[tokio::test]
    async fn a_person_follows_clicks_and_submits_as_a_browser_does() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let server = super::super::serve::serve(listener, small_site());
        let mut person = person();
        assert!(person.submit("", &[]).await.is_err(), "no page is open");
        let first = person.get(&format!("{base}/")).await.expect("an answer");
        assert_eq!(first.location().expect("a redirect").path(), "/page");
        assert_eq!(person.follow().await.expect("a page").url.path(), "/page");
        let form = person.click("next").await.expect("a page");
        assert_eq!(form.url.query(), Some("x=1&y=2"));
        assert!(matches!(person.submit("nothing", &[]).await, Err(PersonError::NotFound(_))));
        let done = person.submit("go", &[("b", "3 4")]).await.expect("a page");
        assert_eq!(done.body, format!("a=1&go=yes&b=3+4 s=1 same-origin {base}"));
        assert!(matches!(person.visit(&format!("{base}/loop")).await, Err(PersonError::Redirects)));
        server.abort();
    }
}
