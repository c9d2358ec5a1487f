//! `/connect/{token}`: a platform's one-time link. Looking uses nothing, since mail scanners and previews open links;
//! Continue does, and only once (WB-12).

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::page::keep_opener;
use super::views::{ConnectPage, LinkGone, LinkGonePage, Moment, Offer, Provider, Scope, Way, WebLink};
use super::{Anyone, Page, PageForm, handshake_cookie};
use crate::connections::{ConnectVisit, ConnectionsError};
use crate::http::{Code, House, Problem};
use crate::secret::Secret;

/// What somebody chose.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Chosen {
    provider: String,
    way: String,
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
        Ok(_) | Err(ConnectionsError::Gone) => return gone(&house, anyone, &secret).await,
        Err(error) => return Err(error.into()),
    };
    let mut page = Page::of(&view(&house, anyone, token, &visit).await?);
    for offer in &visit.offers {
        page = page.forms_lead_to(&offer.leads_to);
    }
    Ok(if visit.popup { page.keeps_opener() } else { page }.into_response())
}

/// `POST /connect/{token}`: Continue.
pub(super) async fn submit(
    State(house): State<House>,
    Path(token): Path<String>,
    headers: HeaderMap,
    anyone: Anyone,
    PageForm(chosen): PageForm<Chosen>,
) -> Result<Response, Problem> {
    if chosen.way != "consent" {
        return Err(Problem::new(Code::Malformed, "this link offers consent at a provider only"));
    }
    let token = Secret::new(token);
    let popup = match house.connections.connect_visit(&token).await {
        Ok(visit) => visit.popup,
        Err(ConnectionsError::Gone) => return gone(&house, anyone, &token).await,
        Err(error) => return Err(error.into()),
    };
    let (browser, cookie) = handshake_cookie::for_beginning(&house, &headers)?;
    let origin = anyone.context.origin().clone();
    let begun = match house.connections.connect_start(&token, &chosen.provider, &browser, origin).await {
        Ok(begun) => begun,
        Err(ConnectionsError::Gone) => return gone(&house, anyone, &token).await,
        Err(error) => return Err(error.into()),
    };
    let mut response = ([(header::SET_COOKIE, cookie)], Redirect::to(begun.authorize_url.as_str())).into_response();
    if popup {
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
async fn gone(house: &House, anyone: Anyone, token: &Secret) -> Result<Response, Problem> {
    let platform = house.connections.connect_used(token).await?;
    let view = LinkGonePage {
        frame: anyone.frame,
        reason: if platform.is_some() { LinkGone::Used } else { LinkGone::Expired },
        platform,
        request_id: anyone.context.origin().request_id.clone(),
    };
    Ok(Page::of(&view).status(StatusCode::GONE).into_response())
}
