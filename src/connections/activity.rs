//! What people may read in the book about their accounts, and the overview for those who work at a tenant.

use super::{Connections, ConnectionsError, Integration};
use crate::caller::{Caller, Permission, TenantScope};
use crate::clock::Millis;
use crate::ids::ConnectionId;
use crate::store::activity::{
    ActivityFilter, ActivityRow, Depth, activity_list, connection_counts, conversations_using, denial_list,
    tenant_counts,
};
use crate::store::integrations::integration_list;
use crate::store::{StoreError, Tx};

/// Refusals on the overview.
const LAST_DENIALS: i64 = 10;

/// An entry of the book about an account. Ids and closed words only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    /// `aud_…`; the list goes on before it.
    pub id: String,
    /// When.
    pub at: Millis,
    /// The kind of actor: `user`, `key`, `ticket`, `system`, ….
    pub actor: String,
    /// What was done, from the closed list of `audit`: `token.read`, ….
    pub action: String,
    /// `allowed`, `denied` or `failed`.
    pub result: String,
    /// Why, from a closed list.
    pub reason: Option<String>,
    /// `cnv_…`.
    pub conversation: Option<String>,
    /// ElevenLabs' id of the conversation's agent.
    pub agent: Option<String>,
    /// `con_…`, also of a connection that is gone; none when all accounts of a conversation are meant.
    pub connection: Option<String>,
    /// The connection's provider.
    pub provider: Option<String>,
}

/// How a tenant is doing.
#[derive(Clone, Debug)]
pub struct Overview {
    /// End users.
    pub users: u64,
    /// Conversations that run now.
    pub running_conversations: u64,
    /// Connections by status, in the API's order, none with 0.
    pub statuses: Vec<(String, u64)>,
    /// Integrations, with how many connections each carries.
    pub integrations: Vec<(Integration, u64)>,
    /// The last refusals, newest first.
    pub denials: Vec<Refusal>,
}

/// Something that was refused.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// When.
    pub at: Millis,
    /// Kind and id of whoever tried.
    pub who: String,
    /// What was tried, as the book names it.
    pub what: String,
    /// Why.
    pub reason: String,
    /// The request's id.
    pub request_id: String,
}

/// The statuses in the API's order.
const STATUSES: [&str; 6] = ["awaiting_start", "active", "needs_reauth", "misconfigured", "quarantined", "revoked"];

impl Connections {
    /// What used the caller's accounts (or one of them), newest first, before `before` (empty means from the end).
    ///
    /// # Errors
    /// [`ConnectionsError::Denied`].
    pub async fn activity(
        &self,
        caller: &Caller,
        connection: Option<&ConnectionId>,
        before: &str,
        limit: i64,
    ) -> Result<Vec<Happened>, ConnectionsError> {
        let connection = connection.map(ConnectionId::as_str);
        self.happened(caller, ActivityFilter { connection, depth: Depth::Activity, before, limit }).await
    }

    /// Everything that the book says of one connection, newest first.
    ///
    /// # Errors
    /// [`ConnectionsError::Denied`].
    pub async fn history(
        &self,
        caller: &Caller,
        connection: &ConnectionId,
        limit: i64,
    ) -> Result<Vec<Happened>, ConnectionsError> {
        let connection = Some(connection.as_str());
        self.happened(caller, ActivityFilter { connection, depth: Depth::Whole, before: "", limit }).await
    }

    /// The last time that a connection was lent or used.
    ///
    /// # Errors
    /// [`ConnectionsError::Denied`].
    pub async fn last_use(
        &self,
        caller: &Caller,
        connection: &ConnectionId,
    ) -> Result<Option<Happened>, ConnectionsError> {
        let connection = Some(connection.as_str());
        let filter = ActivityFilter { connection, depth: Depth::Lending, before: "", limit: 1 };
        Ok(self.happened(caller, filter).await?.pop())
    }

    async fn happened(&self, caller: &Caller, filter: ActivityFilter<'_>) -> Result<Vec<Happened>, ConnectionsError> {
        let scope = caller.require(Permission::ConnectionsRead)?;
        let mut tx = self.store.read().await?;
        Ok(activity_list(&mut tx, &scope, filter).await?.into_iter().map(told).collect())
    }

    /// How many conversations use a connection at this moment.
    ///
    /// # Errors
    /// [`ConnectionsError::Denied`].
    pub async fn running_with(&self, caller: &Caller, connection: &ConnectionId) -> Result<u64, ConnectionsError> {
        let scope = caller.require(Permission::ConnectionsRead)?;
        let mut tx = self.store.read().await?;
        let count = conversations_using(&mut tx, &scope, connection.as_str(), self.around.now().0).await?;
        Ok(natural(count))
    }

    /// How the caller's tenant is doing.
    ///
    /// # Errors
    /// [`ConnectionsError::Denied`] for whoever may not read the book.
    pub async fn overview(&self, caller: &Caller) -> Result<Overview, ConnectionsError> {
        caller.require(Permission::ConnectionsRead)?;
        let scope = caller.require(Permission::AuditRead)?;
        let now = self.around.now().0;
        let mut tx = self.store.read().await?;
        let (users, running) = tenant_counts(&mut tx, &scope, now).await?;
        let counts = connection_counts(&mut tx, &scope).await?;
        let sum = |fits: &dyn Fn(&str, &str) -> bool| {
            natural(counts.iter().filter(|(status, of, _)| fits(status, of)).map(|(_, _, count)| count).sum())
        };
        let statuses = STATUSES.iter().map(|one| ((*one).to_owned(), sum(&|status, _| status == *one)));
        let integrations = integration_list(&mut tx, &scope).await?;
        let carried = integrations.iter().map(|row| (self.shown(row), sum(&|_, of| of == row.id)));
        Ok(Overview {
            users: natural(users),
            running_conversations: natural(running),
            statuses: statuses.filter(|(_, count)| *count > 0).collect(),
            integrations: carried.collect(),
            denials: self.denials(&mut tx, &scope).await?,
        })
    }

    async fn denials(&self, tx: &mut Tx, scope: &TenantScope) -> Result<Vec<Refusal>, StoreError> {
        let rows = denial_list(tx, scope, LAST_DENIALS).await?;
        let shown = rows.into_iter().map(|row| Refusal {
            at: Millis(row.at),
            who: format!("{} {}", row.actor_kind, row.actor_id),
            what: row.action,
            reason: row.reason.unwrap_or_default(),
            request_id: row.request_id,
        });
        Ok(shown.collect())
    }
}

fn told(row: ActivityRow) -> Happened {
    Happened {
        id: row.id,
        at: Millis(row.at),
        actor: row.actor_kind,
        action: row.action,
        result: row.result,
        reason: row.reason,
        conversation: row.conversation_id,
        agent: row.agent_id,
        connection: row.connection_id,
        provider: row.provider,
    }
}

/// A count is never negative.
fn natural(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}
