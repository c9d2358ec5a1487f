//! `/connect/{token}`: a platform's one-time link. Looking uses nothing, since mail scanners and previews open links;
//! Continue does, and only once (WB-12).
//!
//! A platform may put a page of its own in place of ours: a form on one of its registered origins that is sent to the link. It says
//! itself then what is going to be asked for, and as always has to confirm who came back.

use axum::extract::{FromRequest, FromRequestParts, Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::form::{form_from_elsewhere, from_another_site, other_site};
use super::page::keep_opener;
use super::views::{ConnectPage, Frame, LinkGone, LinkGonePage, Moment, Offer, Provider, Scope, Viewer, Way, WebLink};
use super::{Anyone, Page, PageForm, handshake_cookie};
use crate::connections::{ConnectVisit, ConnectionsError};
use crate::http::{Code, House, Problem, RequestContext};
use crate::secret::Secret;

/// What somebody chose.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Chosen {
    /// May be absent where there is one.
    provider: Option<String>,
    #[serde(default = "consent")]
    way: String,
}

fn consent() -> String {
    "consent".to_owned()
}

/// `GET /connect/{token}`.
pub(super) async fn show(
    State(house): State<House>,
    Path(token): Path<String>,
    anyone: Anyone,
) -> Result<Response, Problem> {
    let secret = Secret::new(&*token);
    let visit = match house.connections.connect_visit(&secret).await {
        Ok(visit) if !visit.offers.is_empty() => visit,
        Ok(_) | Err(ConnectionsError::Gone) => return gone(&house, anyone.frame, &anyone.context, &secret).await,
        Err(error) => return Err(error.into()),
    };
    let mut page = Page::of(&view(&house, anyone, token, &visit).await?);
    for offer in &visit.offers {
        page = page.forms_lead_to(&offer.leads_to);
    }
    Ok(if visit.popup { page.keeps_opener() } else { page }.into_response())
}

/// `POST /connect/{token}`: Continue, on our page or on one that stands in for it.
pub(super) async fn submit(
    State(house): State<House>,
    Path(token): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let token = Secret::new(token);
    let (mut parts, body) = request.into_parts();
    let Some(site) = other_site(&parts.headers, &house.origin()) else {
        let anyone = Anyone::from_request_parts(&mut parts, &house).await?;
        let headers = parts.headers.clone();
        let PageForm(chosen) = PageForm::from_request(Request::from_parts(parts, body), &house).await?;
        let cookie = handshake_cookie::for_beginning(&house, &headers)?;
        return begin(&house, anyone.frame, &anyone.context, &token, chosen, cookie).await;
    };
    // Browsers send no cookies along, so that nobody's session is looked at or touched.
    if !house.connections.may_stand_in(&token, &site).await? {
        return Err(from_another_site());
    }
    let context = RequestContext::from_request_parts(&mut parts, &house).await?;
    let chosen = form_from_elsewhere(Request::from_parts(parts, body)).await?;
    let frame = Frame { csrf: String::new(), viewer: Viewer::Nobody, notice: None };
    let cookie = handshake_cookie::for_beginning_elsewhere(&house)?;
    begin(&house, frame, &context, &token, chosen, cookie).await
}

async fn begin(
    house: &House,
    frame: Frame,
    context: &RequestContext,
    token: &Secret,
    chosen: Chosen,
    (browser, cookie): (Secret, HeaderValue),
) -> Result<Response, Problem> {
    if chosen.way != "consent" {
        return Err(Problem::new(Code::Malformed, "this link offers consent at a provider only"));
    }
    let visit = match house.connections.connect_visit(token).await {
        Ok(visit) => visit,
        Err(ConnectionsError::Gone) => return gone(house, frame, context, token).await,
        Err(error) => return Err(error.into()),
    };
    let provider = match (&chosen.provider, visit.offers.as_slice()) {
        (Some(provider), _) => provider,
        (None, [only]) => &only.provider,
        (None, _) => return Err(Problem::new(Code::Malformed, "the form does not say which provider")),
    };
    let begun = match house.connections.connect_start(token, provider, &browser, context.origin().clone()).await {
        Ok(begun) => begun,
        Err(ConnectionsError::Gone) => return gone(house, frame, context, token).await,
        Err(error) => return Err(error.into()),
    };
    let mut response = ([(header::SET_COOKIE, cookie)], Redirect::to(begun.authorize_url.as_str())).into_response();
    if visit.popup {
        keep_opener(&mut response);
    }
    Ok(response)
}

async fn view(house: &House, anyone: Anyone, token: String, visit: &ConnectVisit) -> Result<ConnectPage, Problem> {
    let user = match visit.holder.user() {
        Some(id) => Some(house.accounts.user_by_id(&visit.holder, id).await?),
        None => None,
    };
    let offers = visit.offers.iter().map(|offer| {
        let provider = offer.provider.as_str();
        Offer {
            provider: Provider::new(provider, &house.connections.provider_name(provider)),
            way: Way::Consent,
            scopes: Scope::list(provider, offer.scopes.iter().map(String::as_str)),
        }
    });
    Ok(ConnectPage {
        frame: anyone.frame,
        token,
        platform: visit.platform.clone(),
        user_name: user.and_then(|user| user.profile.display_name),
        user: visit.user.clone(),
        offers: offers.collect(),
        returns_to: visit.returns_to.as_deref().and_then(WebLink::parse),
        expires: Moment::time_of_day(visit.expires_at),
    })
}

/// 410. An unknown link is told like an expired one, so that nobody learns which links there were.
async fn gone(house: &House, frame: Frame, context: &RequestContext, token: &Secret) -> Result<Response, Problem> {
    let platform = house.connections.connect_used(token).await?;
    let view = LinkGonePage {
        frame,
        reason: if platform.is_some() { LinkGone::Used } else { LinkGone::Expired },
        platform,
        request_id: context.origin().request_id.clone(),
    };
    Ok(Page::of(&view).status(StatusCode::GONE).into_response())
}
