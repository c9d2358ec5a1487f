//! `GET /activity`: what used my accounts, when, and in which conversation.

use std::collections::BTreeMap;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;

use super::results::account_of;
use super::views::{Act, ActivityDay, ActivityEntry, ActivityPage, Moment, Provider};
use super::{EndUser, Page};
use crate::caller::Caller;
use crate::clock::Millis;
use crate::connections::{Happened, ListFilter};
use crate::credentials::IN_MID_CALL;
use crate::http::{House, Problem};
use crate::ids::ConnectionId;
use crate::invalid::Invalid;

/// Cursors of this list work nowhere else.
const LIST: &str = "activity";
/// Entries on a page.
const PAGE: usize = 50;
/// Accounts whose names are looked up.
const ACCOUNTS: i64 = 200;

/// Where to go on, and what to look at.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Wanted {
    cursor: Option<String>,
    connection: Option<String>,
}

/// `GET /activity?cursor=&connection=`.
pub(super) async fn show(
    State(house): State<House>,
    query: Result<Query<Wanted>, QueryRejection>,
    user: EndUser,
) -> Result<Page, Problem> {
    let Query(wanted) = query.unwrap_or_default();
    let EndUser { caller, page } = user;
    let only = match wanted.connection.as_deref() {
        Some(id) => {
            let id = ConnectionId::parse(id).map_err(|_| Problem::not_found())?;
            Some(house.connections.connection(&caller, &id).await?)
        }
        None => None,
    };
    let before = match &wanted.cursor {
        Some(cursor) => house
            .cursors
            .read(caller.tenant().as_str(), LIST, cursor)
            .ok_or_else(|| Invalid::one("cursor", "must be the cursor of an activity page"))?,
        None => String::new(),
    };
    let narrowed = only.as_ref().map(|connection| &connection.id);
    let ask = i64::try_from(PAGE + 1).unwrap_or(i64::MAX);
    let mut entries = house.connections.activity(&caller, narrowed, &before, ask).await?;
    let more = entries.len() > PAGE;
    entries.truncate(PAGE);
    let last = entries.last().filter(|_| more);
    let older = last.map(|one| house.cursors.write(caller.tenant().as_str(), LIST, &one.id));
    let accounts = accounts(&house, &caller).await?;
    Ok(Page::of(&ActivityPage {
        frame: page.frame,
        days: days(&house, &entries, &accounts, &page.visitor.tenant.name),
        only: only.as_ref().map(account_of),
        connection: only.map(|connection| connection.id.to_string()),
        older,
    }))
}

/// Names of the accounts that are still connected, by connection.
async fn accounts(house: &House, caller: &Caller) -> Result<BTreeMap<String, String>, Problem> {
    let filter = ListFilter { limit: ACCOUNTS, ..ListFilter::default() };
    let list = house.connections.connection_list(caller, &filter).await?;
    Ok(list.iter().map(|connection| (connection.id.to_string(), account_of(connection))).collect())
}

fn days(house: &House, entries: &[Happened], accounts: &BTreeMap<String, String>, platform: &str) -> Vec<ActivityDay> {
    let now = house.around.now();
    let day_of = |at: Millis| at.rfc3339().chars().take(10).collect::<String>();
    let same_day = |one: &Happened, next: &Happened| day_of(one.at) == day_of(next.at);
    let days = entries.chunk_by(same_day).filter_map(|day| {
        let first = day.first()?;
        let entries = day.iter().map(|one| entry(house, one, accounts, platform)).collect();
        Some(ActivityDay { day: Moment::day(first.at, now), entries })
    });
    days.collect()
}

fn entry(house: &House, one: &Happened, accounts: &BTreeMap<String, String>, platform: &str) -> ActivityEntry {
    let (provider, account) = match (&one.provider, &one.connection) {
        (Some(provider), Some(connection)) => {
            let account = accounts.get(connection).cloned().unwrap_or_else(|| "an account that is gone".to_owned());
            (Provider::new(provider, &house.connections.provider_name(provider)), account)
        }
        // A tool was refused before it came to one of the conversation's accounts.
        _ => (Provider::new("valetkey", "Valetkey"), "Every account of the conversation".to_owned()),
    };
    let by = match one.actor.as_str() {
        "system" => "Valetkey".to_owned(),
        _ => one.agent.clone().unwrap_or_else(|| platform.to_owned()),
    };
    ActivityEntry {
        at: Moment::time_of_day(one.at),
        provider,
        account,
        by,
        conversation: one.conversation.clone(),
        act: act(one),
    }
}

fn act(one: &Happened) -> Act {
    match (one.action.as_str(), one.result.as_str()) {
        (_, "denied") => Act::Refused,
        ("credential.refresh", _) => Act::Renewed,
        ("credential.use", result) => Act::Called { what: String::new(), ok: result == "allowed" },
        _ if one.conversation.is_none() => Act::ReadByPlatform,
        _ if one.reason.as_deref() == Some(IN_MID_CALL) => Act::LentAgain,
        _ => Act::Lent,
    }
}
