//! The browser's session: who is there, and the anti-forgery value of its forms.

use std::time::Duration;

use axum::extract::{FromRequestParts, Request};
use axum::http::header::{HeaderValue, SET_COOKIE};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use data_encoding::BASE64URL_NOPAD;
use subtle::ConstantTimeEq;
use tower_sessions::Session;

use super::SESSION_COOKIE;
use crate::accounts::Presence;
use crate::clock::Millis;
use crate::http::{House, Problem};

const CSRF: &str = "csrf";
/// When somebody was let in and when they were last seen, in milliseconds UTC.
const LET_IN: &str = "let_in";
const SEEN: &str = "seen";
/// Whoever works at a tenant signs in again after this time, whatever `ttl.session` allows others,
const MEMBERS_LIFE: Duration = Duration::from_secs(24 * 3600);
/// and after being away for so long (WB-03; NIST SP 800-63B-4, 2.2.3).
const MEMBERS_REST: Duration = Duration::from_secs(3600);
/// What is older than this is noted anew: not every page is worth a write.
const SEEN_EVERY: Duration = Duration::from_secs(300);

/// A session, on our shelves and sealed; the browser holds a random name for it.
#[derive(Clone, Debug)]
pub struct Browser {
    session: Session,
    house: House,
}

impl FromRequestParts<House> for Browser {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, house: &House) -> Result<Self, Problem> {
        let session = parts.extensions.get::<Session>().cloned().ok_or_else(|| Problem::internal(NoSessions))?;
        Ok(Self { session, house: house.clone() })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a page was reached without the session layer")]
struct NoSessions;

impl Browser {
    /// The value for hidden `csrf` fields; made on first use, which also gives the browser its cookie.
    ///
    /// # Errors
    /// When sessions cannot be read.
    pub async fn csrf(&self) -> Result<String, Problem> {
        if let Some(value) = self.session.get::<String>(CSRF).await? {
            return Ok(value);
        }
        let value = BASE64URL_NOPAD.encode(&self.house.around.random::<32>());
        self.session.insert(CSRF, &value).await?;
        Ok(value)
    }

    /// Whether `given` is this session's value, compared in constant time.
    ///
    /// # Errors
    /// When sessions cannot be read.
    pub async fn is_csrf(&self, given: &str) -> Result<bool, Problem> {
        let own = self.session.get::<String>(CSRF).await?;
        Ok(own.is_some_and(|own| own.as_bytes().ct_eq(given.as_bytes()).into()))
    }

    /// True when the browser has no session, or names one that is not (any more) on our shelves. To be asked after
    /// something was read.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.session.id().is_none()
    }

    /// Who the session remembers.
    ///
    /// # Errors
    /// When sessions cannot be read.
    pub async fn presence(&self) -> Result<Option<Presence>, Problem> {
        Ok(self.session.get(Presence::IN_SESSION).await?)
    }

    /// Lets somebody in: the session gets a new id, a new end and a new anti-forgery value, and the old id is dead
    /// (WB-02).
    ///
    /// # Errors
    /// When sessions cannot be written.
    pub async fn let_in(&self, presence: &Presence) -> Result<(), Problem> {
        self.session.cycle_id().await?;
        self.session.clear().await;
        self.session.insert(Presence::IN_SESSION, presence).await?;
        let now = self.house.around.now();
        self.session.insert(LET_IN, now.0).await?;
        self.session.insert(SEEN, now.0).await?;
        self.csrf().await?;
        Ok(())
    }

    /// Whether somebody who works at a tenant has to sign in again; if not, notes that they were seen.
    ///
    /// # Errors
    /// When sessions cannot be read.
    pub async fn is_over_for_members(&self) -> Result<bool, Problem> {
        let now = self.house.around.now();
        let let_in = Millis(self.session.get(LET_IN).await?.unwrap_or_default());
        let seen = Millis(self.session.get(SEEN).await?.unwrap_or_default());
        if let_in.after(MEMBERS_LIFE) <= now || seen.after(MEMBERS_REST) <= now {
            return Ok(true);
        }
        if seen.after(SEEN_EVERY) <= now {
            self.session.insert(SEEN, now.0).await?;
        }
        Ok(false)
    }

    /// Ends the session here and in the browser.
    ///
    /// # Errors
    /// When sessions cannot be written.
    pub async fn end(&self) -> Result<(), Problem> {
        Ok(self.session.flush().await?)
    }

    /// Keeps a small value until it is taken, such as a handshake's secret that binds it to this browser.
    ///
    /// # Errors
    /// When sessions cannot be written.
    pub async fn keep(&self, name: &str, value: &str) -> Result<(), Problem> {
        Ok(self.session.insert(&format!("kept.{name}"), value).await?)
    }

    /// Looks at a value that was kept.
    ///
    /// # Errors
    /// When sessions cannot be read.
    pub async fn kept(&self, name: &str) -> Result<Option<String>, Problem> {
        Ok(self.session.get(&format!("kept.{name}")).await?)
    }
}

/// Gives cookie removals the attributes that the session layer leaves out. Browsers ignore every `Set-Cookie` of a
/// `__Host-` name without `Secure`, removals too (RFC 6265bis, 5.7).
pub(super) async fn whole_removals(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let cookies: Vec<HeaderValue> = response.headers().get_all(SET_COOKIE).iter().map(completed).collect();
    response.headers_mut().remove(SET_COOKIE);
    for cookie in cookies {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

fn completed(cookie: &HeaderValue) -> HeaderValue {
    let text = cookie.to_str().unwrap_or_default();
    if !text.starts_with(SESSION_COOKIE) || text.contains("; Secure") {
        return cookie.clone();
    }
    HeaderValue::from_str(&format!("{text}; Secure; HttpOnly; SameSite=Lax")).unwrap_or_else(|_| cookie.clone())
}
