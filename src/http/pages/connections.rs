//! `/connections`: a person's accounts, one of them, and its end.

use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::cards::{Desk, keep_start_link};
use super::views::{
    AvailableProvider, ConnectionPage, ConnectionsPage, DisconnectPage, HistoryEntry, Notice, Provider, Revocation,
    Way, WebLink,
};
use super::{EndUser, Nothing, Page, PageForm};
use crate::connections::{Ends, Happened, ListFilter};
use crate::credentials::IN_MID_CALL;
use crate::http::{Code, House, PathId, Problem};
use crate::ids::ConnectionId;

/// Accounts that the page shows; nobody has more.
const MOST: i64 = 200;
/// Lines of history on the page of a connection.
const LINES: i64 = 12;

/// The answer to "Was that you?".
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WasMe {
    was_me: String,
    press: Option<String>,
}

/// The answer to "Disconnect?".
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sure {
    confirmed: Option<String>,
}

/// `GET /connections`.
pub(super) async fn list(State(house): State<House>, user: EndUser) -> Result<Page, Problem> {
    let EndUser { caller, page } = user;
    let filter = ListFilter { limit: MOST, ..ListFilter::default() };
    let desk = Desk::open(&house, &caller, &page.browser).await?;
    let mut connections = Vec::new();
    for connection in house.connections.connection_list(&caller, &filter).await? {
        connections.push(desk.card(&connection).await?);
    }
    let catalogue = house.connections.provider_list(&caller).await?;
    let available = catalogue.into_iter().filter_map(|one| {
        let way = match (one.oauth, one.integrated) {
            // However a bot comes to write to people, that is all it does; and one's own needs nothing of the platform.
            _ if one.direct_kinds.iter().any(|kind| kind == "bot_token") => Way::OwnBot { token_error: None },
            (true, true) => Way::Consent,
            _ => return None,
        };
        Some(AvailableProvider { provider: Provider::new(&one.id, &one.display_name), way })
    });
    Ok(Page::of(&ConnectionsPage {
        frame: page.frame,
        platform: page.visitor.tenant.name,
        connections,
        available: available.collect(),
    }))
}

/// `GET /connections/{id}`.
pub(super) async fn detail(
    State(house): State<House>,
    PathId(id): PathId<ConnectionId>,
    user: EndUser,
) -> Result<Page, Problem> {
    let EndUser { caller, page } = user;
    let connection = house.connections.connection(&caller, &id).await?;
    let desk = Desk::open(&house, &caller, &page.browser).await?;
    let shared = house.connections.shared_credentials(&caller, &connection).await?;
    let platform = page.visitor.tenant.name;
    let card = desk.card(&connection).await?;
    let history = house.connections.history(&caller, &id, LINES).await?;
    let lines = history.iter().filter_map(|one| {
        let words = words(one, &card.provider.name, &platform)?;
        Some(HistoryEntry { at: desk.moment(one.at), words })
    });
    Ok(Page::of(&ConnectionPage {
        frame: page.frame,
        history: lines.collect(),
        credentials: connection
            .credentials
            .iter()
            .map(|one| desk.credential(&connection, one, shared.contains(&one.id)))
            .collect(),
        platform,
        card,
    }))
}

/// `POST /connections/{id}/reconnect`: to the preview, where Continue is pressed.
pub(super) async fn reconnect(
    State(house): State<House>,
    PathId(id): PathId<ConnectionId>,
    user: EndUser,
    PageForm(Nothing {}): PageForm<Nothing>,
) -> Result<Redirect, Problem> {
    let connection = house.connections.connection(&user.caller, &id).await?;
    Ok(Redirect::to(&format!("/connections/connect/{}?connection={id}", connection.provider)))
}

/// `POST /connections/{id}/start`: whether it was the person at this browser who has pressed Start.
pub(super) async fn start(
    State(house): State<House>,
    PathId(id): PathId<ConnectionId>,
    user: EndUser,
    PageForm(answer): PageForm<WasMe>,
) -> Result<Redirect, Problem> {
    let press = match (answer.was_me.as_str(), &answer.press) {
        ("yes", Some(press)) => Some(press.as_str()),
        ("no", _) => None,
        _ => return Err(Problem::new(Code::Malformed, "the form is not complete")),
    };
    let connection = house.connections.start_answered(&user.caller, &id, press).await?;
    keep_start_link(&house, &user.page.browser, &connection).await?;
    Ok(Redirect::to(&format!("/connections/{}", connection.id)))
}

/// `POST /connections/{id}/disconnect`: asks, and with `confirmed=yes` does it.
pub(super) async fn disconnect(
    State(house): State<House>,
    PathId(id): PathId<ConnectionId>,
    user: EndUser,
    PageForm(sure): PageForm<Sure>,
) -> Result<Response, Problem> {
    let EndUser { caller, page } = user;
    let connection = house.connections.connection(&caller, &id).await?;
    let ends = house.connections.ends(&caller, &connection).await?;
    if sure.confirmed.as_deref() != Some("yes") {
        let running = house.connections.running_with(&caller, &id).await?;
        let card = Desk::open(&house, &caller, &page.browser).await?.card(&connection).await?;
        return Ok(Page::of(&DisconnectPage {
            frame: page.frame,
            card,
            running_conversations: u32::try_from(running).unwrap_or(u32::MAX),
            revocation: match ends {
                Ends::AtProvider => Revocation::AtProvider,
                Ends::StillShared => Revocation::StillShared,
                // BotFather is where to go, and the page says how.
                Ends::OnlyHere { .. } if connection.provider == "telegram" => {
                    Revocation::OnlyHere { removal_page: None }
                }
                Ends::OnlyHere { removal_page } => Revocation::OnlyHere { removal_page: WebLink::parse(&removal_page) },
            },
        })
        .into_response());
    }
    let outcome = house.connections.disconnect(&caller, &id).await?;
    let notice = match ends {
        Ends::AtProvider if outcome.revoked => Notice::Disconnected,
        Ends::AtProvider => Notice::DisconnectedUnconfirmed,
        Ends::StillShared => Notice::DisconnectedShared,
        Ends::OnlyHere { .. } => Notice::DisconnectedHere,
    };
    Ok(Redirect::to(&format!("/connections?done={}", notice.as_str())).into_response())
}

/// A line of the history; nothing for what does not matter to people.
fn words(one: &Happened, provider: &str, platform: &str) -> Option<String> {
    let agent = one.agent.as_deref().unwrap_or("an agent");
    let you = one.actor == "user";
    Some(match (one.action.as_str(), one.result.as_str()) {
        ("token.read" | "credential.use" | "ticket.refuse" | "ticket.identity_mismatch", "denied") => {
            format!("A use by {agent} was refused")
        }
        ("token.read", "allowed") if one.conversation.is_none() => format!("Lent to {platform}"),
        ("token.read", "allowed") if one.reason.as_deref() == Some(IN_MID_CALL) => {
            format!("Lent again to {agent} in mid-call")
        }
        ("token.read", "allowed") => format!("Lent to {agent} for one conversation"),
        ("credential.use", "allowed") => format!("Used through the vault by {agent}"),
        ("credential.refresh", "allowed") => format!("Renewed at {provider}"),
        ("credential.refresh", _) => format!("Could not be renewed at {provider}; we keep trying"),
        ("handshake.begin", _) => "Waiting for Start".to_owned(),
        ("connection.create", _) if you => "Connected by you".to_owned(),
        ("connection.create", _) => "Connected".to_owned(),
        ("connection.import", _) => format!("Brought along by {platform}"),
        ("connection.reconnect", _) if you => "Reconnected by you".to_owned(),
        ("connection.reconnect", _) => "Reconnected".to_owned(),
        ("connection.change", _) => "Label or default changed".to_owned(),
        ("connection.needs_reauth", _) => format!("{provider} refused our access"),
        ("connection.quarantine", "denied") => "Another account was chosen, so nothing was changed".to_owned(),
        ("connection.quarantine", _) => format!("Paused: {provider} answered for another account"),
        _ => return None,
    })
}
