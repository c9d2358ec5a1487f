//! Proofs of who looks at a page.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Method, header};
use axum::response::{IntoResponse, Redirect, Response};
use url::form_urlencoded;

use super::views::{Frame, Notice, Viewer, WebLink};
use super::{Browser, SESSION_COOKIE};
use crate::accounts::{AccountsError, Presence, Visitor};
use crate::caller::Caller;
use crate::http::{Code, House, Problem, RequestContext};

/// Whoever it is: signed in, in a portal, or nobody.
#[derive(Clone, Debug)]
pub struct Anyone {
    /// The common part of the page.
    pub frame: Frame,
    /// The browser's session.
    pub browser: Browser,
    /// The person, if there is one.
    pub visitor: Option<Visitor>,
    /// What the session remembers, if there is somebody.
    pub presence: Option<Presence>,
    /// The request's id and peer.
    pub context: RequestContext,
    /// True when the browser came with a session that is over.
    pub ended: bool,
}

/// Somebody who signed in or came through a portal link. Everybody else is led to the sign-in page.
#[derive(Clone, Debug)]
pub struct PageCaller {
    /// The common part of the page.
    pub frame: Frame,
    /// The browser's session.
    pub browser: Browser,
    /// The person.
    pub visitor: Visitor,
    /// What the session remembers.
    pub presence: Presence,
    /// The request's id and peer.
    pub context: RequestContext,
}

/// Somebody with connections of their own.
#[derive(Clone, Debug)]
pub struct EndUser {
    /// Acting as the end user.
    pub caller: Caller,
    /// The rest.
    pub page: PageCaller,
}

/// Somebody who works at the tenant.
#[derive(Clone, Debug)]
pub struct Member {
    /// Acting as the member.
    pub caller: Caller,
    /// The rest.
    pub page: PageCaller,
}

impl FromRequestParts<House> for Anyone {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, house: &House) -> Result<Self, Problem> {
        let context = RequestContext::from_request_parts(parts, house).await?;
        let browser = Browser::from_request_parts(parts, house).await?;
        let mut presence = browser.presence().await?;
        let mut ended = browser.is_unknown() && sent_session(parts);
        let visitor = match &presence {
            None => None,
            Some(known) => match house.accounts.visitor(known, context.origin().clone()).await {
                Ok(visitor) if visitor.role.is_some() && browser.is_over_for_members().await? => None,
                Ok(visitor) => Some(visitor),
                // The login is gone or the visit is over: the session means nobody any more.
                Err(AccountsError::Unauthenticated | AccountsError::NotFound(_)) => None,
                Err(error) => return Err(error.into()),
            },
        };
        if presence.is_some() && visitor.is_none() {
            browser.end().await?;
            (presence, ended) = (None, true);
        }
        if let Some(caller) = visitor.as_ref().and_then(|visitor| visitor.member.as_ref().or(visitor.end_user.as_ref()))
        {
            context.recognise(caller);
        }
        let notice = notice(parts);
        let frame = Frame { csrf: browser.csrf().await?, viewer: viewer(visitor.as_ref()), notice };
        context.remember_frame(&Frame { notice: None, ..frame.clone() });
        Ok(Self { frame, browser, visitor, presence, context, ended })
    }
}

impl FromRequestParts<House> for PageCaller {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, house: &House) -> Result<Self, Response> {
        let anyone = Anyone::from_request_parts(parts, house).await.map_err(IntoResponse::into_response)?;
        match (anyone.visitor, anyone.presence) {
            (Some(visitor), Some(presence)) => {
                Ok(Self { frame: anyone.frame, browser: anyone.browser, visitor, presence, context: anyone.context })
            }
            _ => Err(to_sign_in(parts, anyone.ended)),
        }
    }
}

impl FromRequestParts<House> for EndUser {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, house: &House) -> Result<Self, Response> {
        let page = PageCaller::from_request_parts(parts, house).await?;
        let caller = page.visitor.end_user.clone().ok_or_else(|| not_for_you().into_response())?;
        page.context.recognise(&caller);
        Ok(Self { caller, page })
    }
}

impl FromRequestParts<House> for Member {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, house: &House) -> Result<Self, Response> {
        let page = PageCaller::from_request_parts(parts, house).await?;
        let caller = page.visitor.member.clone().ok_or_else(|| not_for_you().into_response())?;
        Ok(Self { caller, page })
    }
}

fn sent_session(parts: &Parts) -> bool {
    let cookies = parts.headers.get_all(header::COOKIE);
    cookies.iter().filter_map(|value| value.to_str().ok()).any(|text| text.contains(&format!("{SESSION_COOKIE}=")))
}

fn not_for_you() -> Problem {
    Problem::new(Code::InsufficientScope, "this page is for somebody else")
}

/// What was just done, from a closed vocabulary: `?done=signed-out`.
fn notice(parts: &Parts) -> Option<Notice> {
    let query = parts.uri.query()?;
    form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == "done")
        .and_then(|(_, value)| Notice::parse(&value))
}

fn viewer(visitor: Option<&Visitor>) -> Viewer {
    let Some(visitor) = visitor else { return Viewer::Nobody };
    let platform = visitor.tenant.name.clone();
    let name = person(visitor);
    if visitor.member.is_some() {
        Viewer::Member { name, platform, has_connections: visitor.end_user.is_some() }
    } else {
        let returns_to = visitor.return_url.as_deref().and_then(WebLink::parse);
        Viewer::EndUser { name, platform, returns_to }
    }
}

/// What the person is called: their name, else their address, else the tenant's id of them.
fn person(visitor: &Visitor) -> String {
    let user = visitor.user.as_ref();
    let name = user.and_then(|user| user.profile.display_name.clone());
    name.or_else(|| visitor.email.clone()).or_else(|| user.map(|user| user.external_id.clone())).unwrap_or_default()
}

/// GET comes back to where it wanted to go; anything else begins anew.
fn to_sign_in(parts: &Parts, ended: bool) -> Response {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if parts.method == Method::GET
        && let Some(target) = parts.uri.path_and_query().map(|target| target.as_str()).and_then(local_path)
    {
        query.append_pair("next", target);
    }
    if ended {
        query.append_pair("done", Notice::SessionExpired.as_str());
    }
    let query = query.finish();
    let separator = if query.is_empty() { "" } else { "?" };
    Redirect::to(&format!("/sign-in{separator}{query}")).into_response()
}

/// A path of ours, and nothing that a browser could read as another host: no `//`, no backslash, no control characters
/// (WB-06).
pub(super) fn local_path(text: &str) -> Option<&str> {
    let fine = text.starts_with('/')
        && !text.starts_with("//")
        && text.len() <= 1024
        && !text.contains('\\')
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    fine.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_ours_can_be_gone_to_wb_06() {
        for text in ["/connections", "/connections/con_1?x=y", "/"] {
            assert_eq!(local_path(text), Some(text));
        }
        for text in [
            "",
            "connections",
            "//evil.example",
            "/\\evil.example",
            "\\/evil.example",
            "https://evil.example",
            "/a\r\nb",
            "/a b",
            "javascript:alert(1)",
            "/é",
        ] {
            assert_eq!(local_path(text), None, "{text}");
        }
    }
}
