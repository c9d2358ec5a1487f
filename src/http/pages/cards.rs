//! A connection as its page shows it: health in words, scopes in words, who used it last.

use serde::{Deserialize, Serialize};

use super::Browser;
use super::results::account_of;
use super::views::{ConnectionCard, CredentialRow, Health, LastUse, Moment, Provider, Scope, Start, WebLink};
use crate::caller::Caller;
use crate::clock::Millis;
use crate::connections::{self, Connection, CredentialView, START_LIFE};
use crate::http::{House, Problem};
use crate::ids::ConnectionId;

const START_LINKS: &str = "start_links";

/// A link to press Start behind, which the room says only once.
#[derive(Debug, Serialize, Deserialize)]
struct StartLink {
    connection: String,
    link: String,
    until: i64,
}

/// Remembers, for this browser, where Start is pressed, until it is too late for it.
pub(super) async fn keep_start_link(house: &House, browser: &Browser, connection: &Connection) -> Result<(), Problem> {
    let Some(link) = connection.start_link.clone() else { return Ok(()) };
    let now = house.around.now();
    let mut links = start_links(browser, now).await?;
    links.retain(|one| one.connection != connection.id.as_str());
    links.push(StartLink { connection: connection.id.to_string(), link, until: now.after(START_LIFE).0 });
    let text = serde_json::to_string(&links).map_err(Problem::internal)?;
    browser.keep(START_LINKS, &text).await
}

/// Where Start is pressed for a connection, if this browser was told.
pub(super) async fn start_link(
    house: &House,
    browser: &Browser,
    connection: &ConnectionId,
) -> Result<Option<WebLink>, Problem> {
    let links = start_links(browser, house.around.now()).await?;
    Ok(link_of(&links, connection))
}

fn link_of(links: &[StartLink], connection: &ConnectionId) -> Option<WebLink> {
    let own = links.iter().find(|one| one.connection == connection.as_str())?;
    WebLink::parse(&own.link)
}

async fn start_links(browser: &Browser, now: Millis) -> Result<Vec<StartLink>, Problem> {
    let text = browser.kept(START_LINKS).await?;
    let mut links: Vec<StartLink> = text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    links.retain(|one| one.until > now.0);
    Ok(links)
}

/// Everything that cards need besides their connection.
#[derive(Debug)]
pub(super) struct Desk<'a> {
    house: &'a House,
    caller: &'a Caller,
    links: Vec<StartLink>,
    now: Millis,
}

impl<'a> Desk<'a> {
    pub(super) async fn open(house: &'a House, caller: &'a Caller, browser: &Browser) -> Result<Self, Problem> {
        let now = house.around.now();
        Ok(Self { house, caller, links: start_links(browser, now).await?, now })
    }

    pub(super) async fn card(&self, connection: &Connection) -> Result<ConnectionCard, Problem> {
        let name = self.house.connections.provider_name(&connection.provider);
        let last_used = match connection.last_used {
            Some(_) => self.house.connections.last_use(self.caller, &connection.id).await?,
            None => None,
        };
        let scopes = connection.credentials.iter().flat_map(|one| one.scopes.iter().map(String::as_str));
        let missing = connection.missing_scopes.iter().map(String::as_str);
        let asks_again = !connection.missing_scopes.is_empty() && self.asks_again(connection).await;
        let account = account_of(connection);
        let detail = connection.account.name.clone().filter(|name| *name != account);
        Ok(ConnectionCard {
            id: connection.id.to_string(),
            provider: Provider::new(&connection.provider, &name),
            account_detail: detail,
            label: Some(connection.label.clone()).filter(|label| !label.is_empty()),
            is_default: connection.default,
            scopes: Scope::list(&connection.provider, scopes),
            missing: Scope::list(&connection.provider, missing),
            asks_again,
            health: self.health(connection.health, connection, &account),
            connected: self.moment(Millis::parse_rfc3339(&connection.created_at).unwrap_or(self.now)),
            last_used: last_used.map(|use_| LastUse {
                agent: use_.agent.unwrap_or_else(|| "the platform".to_owned()),
                at: self.moment(use_.at),
            }),
            renewed: connection.credentials.iter().filter_map(|one| one.last_refreshed).max().map(|at| self.moment(at)),
            expires: connection.credentials.first().and_then(|one| one.expires).map(|at| self.moment(at)),
            account,
        })
    }

    /// Whether reconnecting asks for some of what was not granted; its integration may ask for less by now.
    async fn asks_again(&self, connection: &Connection) -> bool {
        let preview = self.house.connections.preview(self.caller, &connection.provider).await;
        let consent = preview.ok().and_then(|preview| preview.consent);
        consent.is_some_and(|consent| {
            let asked = consent.scopes.iter().chain(&connection.wanted_besides);
            asked.into_iter().any(|scope| connection.missing_scopes.contains(scope))
        })
    }

    pub(super) fn credential(&self, connection: &Connection, one: &CredentialView, shared: bool) -> CredentialRow {
        let is_usable = matches!(connection.status.as_str(), "active" | "needs_reauth") && one.status == "active";
        let health = if is_usable { one.health } else { connection.health };
        CredentialRow {
            kind: one.kind.clone(),
            health: self.health(health, connection, &account_of(connection)),
            renewed: one.last_refreshed.map(|at| self.moment(at)),
            expires: one.expires.map(|at| self.moment(at)),
            shared,
        }
    }

    pub(super) fn moment(&self, at: Millis) -> Moment {
        Moment::relative(at, self.now)
    }

    fn health(&self, health: connections::Health, connection: &Connection, account: &str) -> Health {
        match health {
            connections::Health::Working(renewal) => Health::Working(renewal),
            connections::Health::EndsSoon(at) => Health::EndsSoon(self.moment(at)),
            connections::Health::Unsteady(trouble) => Health::Unsteady(trouble),
            connections::Health::ReconnectAdvised => Health::ReconnectAdvised,
            connections::Health::NeedsUser(need) => Health::NeedsYou(need),
            connections::Health::Paused(pause) => Health::Paused(pause),
            connections::Health::AwaitingStart => Health::AwaitingStart(Start {
                connection: connection.id.to_string(),
                bot: connection.bot.clone().unwrap_or_else(|| account.to_owned()),
                link: link_of(&self.links, &connection.id),
                pressed_by: connection.pressed_by.clone(),
            }),
            connections::Health::Disconnected => Health::Disconnected,
        }
    }
}
