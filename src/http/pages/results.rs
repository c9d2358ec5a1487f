//! Where a handshake ends: what came of it is kept in the session, so that the page has an address without a code or
//! state in it and can be reloaded (WB-05).

use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};

use super::cards::start_link;
use super::views::{Failure, Outcome, PopupMessage, Provider, ResultPage, Scope, Start};
use super::{Anyone, Browser, Page};
use crate::connections::Connection;
use crate::http::{House, PathText, Problem};
use crate::ids::ConnectionId;

const KEPT: &str = "results";
/// Results that a session keeps; older ones are forgotten.
const MOST: usize = 6;

/// The end of a handshake.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Catalogue id.
    pub(super) provider: String,
    /// The tenant's name.
    pub(super) platform: String,
    /// How it ended.
    pub(super) ended: Ended,
    /// Set when a popup's opener is to be told.
    pub(super) popup: Option<KeptMessage>,
}

/// How a handshake ended.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ended {
    /// A connection was made.
    Connected { account: String, granted: Vec<String>, refused: Vec<String> },
    /// The platform has to confirm.
    AwaitingConfirmation,
    /// Telegram: Start is to be pressed.
    AwaitingStart { connection: ConnectionId, bot: String },
    /// The person said no.
    Denied,
    /// A word of the room's closed list.
    Failed { reason: String },
}

/// What the opener of a popup is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeptMessage {
    pub(super) origin: String,
    pub(super) connect_session: String,
    pub(super) state: String,
    pub(super) completion_code: Option<String>,
}

impl Ended {
    /// What to say of a connection that was made.
    pub(super) fn connected(connection: &Connection) -> Self {
        if connection.status == "awaiting_start" {
            let bot = connection.bot.clone().unwrap_or_else(|| account_of(connection));
            return Self::AwaitingStart { connection: connection.id.clone(), bot };
        }
        let granted = connection.credentials.iter().flat_map(|one| one.scopes.clone()).collect();
        Self::Connected { account: account_of(connection), granted, refused: connection.missing_scopes.clone() }
    }
}

/// The account's e-mail address, name or id, whichever is known first.
pub(super) fn account_of(connection: &Connection) -> String {
    let account = &connection.account;
    account.email.clone().or_else(|| account.name.clone()).unwrap_or_else(|| account.id.clone())
}

/// Keeps `result` and leads to its page.
pub(super) async fn lead_to(house: &House, browser: &Browser, result: &Kept) -> Result<Response, Problem> {
    let id = BASE64URL_NOPAD.encode(&house.around.random::<12>());
    let text = serde_json::to_string(result).map_err(Problem::internal)?;
    let mut all = read(browser).await?;
    all.push((id.clone(), text));
    let first = all.len().saturating_sub(MOST);
    let all = serde_json::to_string(&all[first..]).map_err(Problem::internal)?;
    browser.keep(KEPT, &all).await?;
    Ok(Redirect::to(&format!("/connections/result/{id}")).into_response())
}

async fn read(browser: &Browser) -> Result<Vec<(String, String)>, Problem> {
    let text = browser.kept(KEPT).await?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
}

/// `GET /connections/result/{id}`, for the browser whose handshake it was.
pub(super) async fn show(
    State(house): State<House>,
    PathText { 0: id }: PathText,
    anyone: Anyone,
) -> Result<Response, Problem> {
    let all = read(&anyone.browser).await?;
    let (_, text) = all.iter().find(|(known, _)| *known == id).ok_or_else(Problem::not_found)?;
    let kept: Kept = serde_json::from_str(text).map_err(Problem::internal)?;
    let outcome = outcome(&house, &anyone, &kept).await?;
    Ok(page(&house, anyone, kept, outcome).into_response())
}

async fn outcome(house: &House, anyone: &Anyone, kept: &Kept) -> Result<Outcome, Problem> {
    let scopes = |names: &[String]| Scope::list(&kept.provider, names.iter().map(String::as_str));
    Ok(match &kept.ended {
        Ended::Connected { account, granted, refused } => {
            Outcome::Connected { account: account.clone(), granted: scopes(granted), refused: scopes(refused) }
        }
        Ended::AwaitingConfirmation => Outcome::AwaitingConfirmation,
        Ended::AwaitingStart { connection, bot } => start(house, anyone, connection, bot).await?,
        Ended::Denied => Outcome::Denied,
        Ended::Failed { reason } => Outcome::Failed(failure(reason)),
    })
}

/// What is left to do about Start, for whoever is signed in; others see the link if it was given to their browser.
async fn start(house: &House, anyone: &Anyone, id: &ConnectionId, bot: &str) -> Result<Outcome, Problem> {
    let caller = anyone.visitor.as_ref().and_then(|visitor| visitor.end_user.as_ref());
    let connection = match caller {
        // Somebody else's, or not there any more because that chat was connected already: nothing is told about it.
        Some(caller) => house.connections.connection(caller, id).await.ok(),
        None => None,
    };
    if let Some(connection) = connection.as_ref().filter(|connection| connection.status == "active") {
        let account = account_of(connection);
        return Ok(Outcome::Connected { account, granted: Vec::new(), refused: Vec::new() });
    }
    Ok(Outcome::AwaitingStart(Start {
        connection: id.to_string(),
        bot: bot.to_owned(),
        link: start_link(house, &anyone.browser, id).await?,
        pressed_by: connection.and_then(|connection| connection.pressed_by),
    }))
}

fn page(house: &House, anyone: Anyone, kept: Kept, outcome: Outcome) -> Page {
    let popup = kept.popup.map(|message| PopupMessage {
        target_origin: message.origin,
        connect_session: message.connect_session,
        state: message.state,
        completion_code: message.completion_code,
    });
    let is_popup = popup.is_some();
    let page = Page::of(&ResultPage {
        frame: anyone.frame,
        platform: kept.platform,
        provider: Provider::new(&kept.provider, &house.connections.provider_name(&kept.provider)),
        outcome,
        popup,
    });
    if is_popup { page.with_script().keeps_opener() } else { page }
}

/// The room's word for why it did not work, as people are told it.
pub(super) fn failure(reason: &str) -> Failure {
    match reason {
        "other_account" => Failure::OtherAccount,
        "code_refused" | "provider_refused" | "no_refresh_token" => Failure::Refused,
        "provider_unreachable" => Failure::Unreachable,
        "misconfigured" | "integration_changed" => Failure::PlatformSettings,
        "admin_policy" => Failure::AdminForbids,
        _ => Failure::Other,
    }
}
