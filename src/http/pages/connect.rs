//! `/connections/connect/{provider}`: the preview before somebody who is signed in goes to a provider, and Continue.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::cards::keep_start_link;
use super::results::{Ended, Kept, account_of, lead_to};
use super::views::{Offer, PreviewPage, Provider, Scope, Way};
use super::{EndUser, Page, PageForm, handshake_cookie};
use crate::connections::{Begin, BotSource, Connection, ConnectionsError, TelegramDraft};
use crate::http::{Code, House, PathText, Problem};
use crate::ids::ConnectionId;
use crate::invalid::Invalid;
use crate::secret::Secret;

/// Which connection is to be made again.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Again {
    connection: Option<String>,
}

/// What somebody chose.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Chosen {
    provider: String,
    way: String,
    connection: Option<String>,
    bot_token: Option<Secret>,
}

/// `GET /connections/connect/{provider}?connection=con_…`.
pub(super) async fn show(
    State(house): State<House>,
    PathText { 0: provider }: PathText,
    query: Result<Query<Again>, QueryRejection>,
    user: EndUser,
) -> Result<Response, Problem> {
    let Query(again) = query.unwrap_or_default();
    let reconnects = again_of(&house, &user, &provider, again.connection.as_deref()).await?;
    Ok(preview(&house, user, &provider, reconnects.as_ref(), None).await?.into_response())
}

/// `POST /connections/connect/{provider}`.
pub(super) async fn submit(
    State(house): State<House>,
    PathText { 0: provider }: PathText,
    headers: HeaderMap,
    user: EndUser,
    PageForm(chosen): PageForm<Chosen>,
) -> Result<Response, Problem> {
    if chosen.provider != provider {
        return Err(Problem::new(Code::Malformed, "the form is for another provider"));
    }
    let reconnects = again_of(&house, &user, &provider, chosen.connection.as_deref()).await?;
    match (chosen.way.as_str(), chosen.bot_token) {
        ("consent", None) => consent(&house, &headers, user, &provider, reconnects).await,
        ("platform_bot", None) if provider == "telegram" => bot(&house, user, BotSource::Platform, reconnects).await,
        ("own_bot", Some(token)) if provider == "telegram" => {
            bot(&house, user, BotSource::Own(token), reconnects).await
        }
        _ => Err(Problem::new(Code::Malformed, "the form is not complete")),
    }
}

/// The connection that is to be made again: the viewer's own and of this provider.
async fn again_of(
    house: &House,
    user: &EndUser,
    provider: &str,
    id: Option<&str>,
) -> Result<Option<Connection>, Problem> {
    let Some(id) = id.filter(|id| !id.is_empty()) else { return Ok(None) };
    let id = ConnectionId::parse(id).map_err(|_| Problem::not_found())?;
    let connection = house.connections.connection(&user.caller, &id).await?;
    if connection.provider != provider {
        return Err(Problem::not_found());
    }
    Ok(Some(connection))
}

async fn consent(
    house: &House,
    headers: &HeaderMap,
    user: EndUser,
    provider: &str,
    reconnects: Option<Connection>,
) -> Result<Response, Problem> {
    let (browser, cookie) = handshake_cookie::for_beginning(house, headers)?;
    let again = reconnects.as_ref().map(|connection| &connection.id);
    match house.connections.begin(&user.caller, Begin { provider, browser: &browser, reconnects: again }).await {
        Ok(begun) => {
            let there = Redirect::to(begun.authorize_url.as_str());
            Ok(([(header::SET_COOKIE, cookie)], there).into_response())
        }
        // The integration asks for nothing, which only the platform can mend.
        Err(ConnectionsError::Invalid(_)) => failed(house, &user, provider, "misconfigured").await,
        Err(error) => Err(error.into()),
    }
}

async fn bot(
    house: &House,
    user: EndUser,
    bot: BotSource,
    reconnects: Option<Connection>,
) -> Result<Response, Problem> {
    let draft = TelegramDraft { user: None, bot };
    let connection = match house.connections.telegram_begin(&user.caller, draft).await {
        Ok(connection) => connection,
        Err(ConnectionsError::Invalid(invalid)) => {
            let page = preview(house, user, "telegram", reconnects.as_ref(), Some(said(&invalid))).await?;
            return Ok(page.status(StatusCode::UNPROCESSABLE_ENTITY).into_response());
        }
        Err(ConnectionsError::Provider(_)) => return failed(house, &user, "telegram", "provider_unreachable").await,
        Err(error) => return Err(error.into()),
    };
    keep_start_link(house, &user.page.browser, &connection).await?;
    let ended = Ended::connected(&connection);
    let platform = user.page.visitor.tenant.name.clone();
    lead_to(house, &user.page.browser, &Kept { provider: connection.provider, platform, ended, popup: None }).await
}

async fn failed(house: &House, user: &EndUser, provider: &str, reason: &str) -> Result<Response, Problem> {
    let platform = user.page.visitor.tenant.name.clone();
    let ended = Ended::Failed { reason: reason.to_owned() };
    lead_to(house, &user.page.browser, &Kept { provider: provider.to_owned(), platform, ended, popup: None }).await
}

async fn preview(
    house: &House,
    user: EndUser,
    provider: &str,
    reconnects: Option<&Connection>,
    token_error: Option<String>,
) -> Result<Page, Problem> {
    let known = house.connections.preview(&user.caller, provider).await?;
    let shown = Provider::new(provider, &house.connections.provider_name(provider));
    let offer = |way, scopes| Offer { provider: shown.clone(), way, scopes };
    let mut offers = Vec::new();
    if let Some(consent) = &known.consent {
        offers.push(offer(Way::Consent, Scope::list(provider, consent.scopes.iter().map(String::as_str))));
    }
    // Who has signed in needs no link to press Start behind, unless the bot may not write.
    if let Some(bot) = known.platform_bot.filter(|_| known.consent.is_none()) {
        offers.push(offer(Way::PlatformBot { bot }, Vec::new()));
    }
    if known.own_bot {
        offers.push(offer(Way::OwnBot { token_error }, Vec::new()));
    }
    let page = Page::of(&PreviewPage {
        frame: user.page.frame,
        platform: user.page.visitor.tenant.name,
        offers,
        reconnects: reconnects.map(|connection| (connection.id.to_string(), account_of(connection))),
        provider: shown,
    });
    Ok(match known.consent {
        Some(consent) => page.forms_lead_to(&consent.leads_to),
        None => page,
    })
}

/// The room's words as a sentence.
fn said(invalid: &Invalid) -> String {
    let message = invalid.0.first().map(|error| error.message.as_str()).unwrap_or_default();
    if message.starts_with("must") {
        return format!("This {message}.");
    }
    let mut letters = message.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    format!("{first}{}.", letters.as_str())
}
