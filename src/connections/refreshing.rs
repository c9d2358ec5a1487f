//! How refreshing is doing for a tenant: what waits, what fails and why, for the people who run it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Connection, Connections, ConnectionsError, Integration};
use crate::caller::{Caller, Permission};
use crate::clock::Millis;
use crate::credentials::WARN_AHEAD;
use crate::ids::AuditId;
use crate::store::health::{BacklogRow, backlog_list, refresh_outcomes, troubled_list};
use crate::store::integrations::integration_list;

/// Connections that are listed with their trouble.
const MOST_TROUBLED: i64 = 20;
/// How far back outcomes are counted.
const LOOK_BACK: Duration = Duration::from_secs(24 * 3600);

/// What is shown.
#[derive(Clone, Debug)]
pub struct Refreshing {
    /// Every integration with what it has still to do, in the order of providers.
    pub integrations: Vec<(Integration, Backlog)>,
    /// What became of refreshes within a day: the code of the failure (none when it worked), and how many.
    pub outcomes: Vec<(Option<String>, u64)>,
    /// Connections that are not well, the latest trouble first; at most 20.
    pub troubled: Vec<Connection>,
}

/// What an integration has still to refresh, in credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Whose due time has passed and that nobody has taken.
    pub overdue: u64,
    /// Due time of the one that has waited longest.
    pub oldest_due: Option<Millis>,
    /// That wait for their place in the queue.
    pub queued: u64,
    /// Whose last request may or may not have reached the provider.
    pub in_doubt: u64,
    /// Whose last refresh failed.
    pub failing: u64,
    /// Whose refresh token ends within three days.
    pub ending: u64,
}

impl Backlog {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            overdue: self.overdue + other.overdue,
            oldest_due: [self.oldest_due, other.oldest_due].into_iter().flatten().min(),
            queued: self.queued + other.queued,
            in_doubt: self.in_doubt + other.in_doubt,
            failing: self.failing + other.failing,
            ending: self.ending + other.ending,
        }
    }
}

impl From<BacklogRow> for Backlog {
    fn from(row: BacklogRow) -> Self {
        // A count is never negative.
        let count = |count: i64| u64::try_from(count).unwrap_or(0);
        Self {
            overdue: count(row.overdue),
            oldest_due: row.oldest_due.map(Millis),
            queued: count(row.queued),
            in_doubt: count(row.in_doubt),
            failing: count(row.failing),
            ending: count(row.ending),
        }
    }
}

impl Connections {
    /// How refreshing is doing for the caller's tenant.
    ///
    /// # Errors
    /// [`ConnectionsError::Denied`] for whoever may not read the book.
    pub async fn refreshing(&self, caller: &Caller) -> Result<Refreshing, ConnectionsError> {
        caller.require(Permission::ConnectionsRead)?;
        let scope = caller.require(Permission::AuditRead)?;
        let now = self.around.now();
        let mut tx = self.store.read().await?;
        let rows = backlog_list(&mut tx, &scope, now.0, now.after(WARN_AHEAD).0).await?;
        let mut backlogs: BTreeMap<String, Backlog> =
            rows.into_iter().map(|row| (row.integration_id.clone(), row.into())).collect();
        let integrations = integration_list(&mut tx, &scope).await?;
        let integrations =
            integrations.iter().map(|row| (self.shown(row), backlogs.remove(&row.id).unwrap_or_default()));
        let integrations = integrations.collect();
        let from = AuditId::first_at(now.before(LOOK_BACK));
        let outcomes = refresh_outcomes(&mut tx, &scope, from.as_str()).await?;
        let outcomes = outcomes.into_iter().map(|(result, reason, count)| {
            let failure = (result != "allowed" || !reason.is_empty()).then_some(reason);
            (failure, u64::try_from(count).unwrap_or(0))
        });
        let outcomes = outcomes.collect();
        let mut troubled = Vec::new();
        for (id,) in troubled_list(&mut tx, &scope, MOST_TROUBLED).await? {
            troubled.push(self.connection_in(&mut tx, &scope, &id).await?);
        }
        Ok(Refreshing { integrations, outcomes, troubled })
    }
}
