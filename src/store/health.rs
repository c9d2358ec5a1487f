//! How refreshing is doing for one tenant, for its people to look at. For all tenants together see [`due`](super::due).

use super::{StoreError, Tx, sql};
use crate::caller::{SystemScope, TenantScope};

/// What an integration has still to refresh, and what stands in the way.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct BacklogRow {
    /// `int_…`.
    pub integration_id: String,
    /// Credentials whose due time has passed and that nobody has taken.
    pub overdue: i64,
    /// Due time of the one that has waited longest.
    pub oldest_due: Option<i64>,
    /// Credentials that wait for their place in the queue.
    pub queued: i64,
    /// Requests whose outcome nobody knows (yet).
    pub in_doubt: i64,
    /// Credentials whose last refresh failed.
    pub failing: i64,
    /// Credentials whose refresh token ends soon.
    pub ending: i64,
}

/// The backlog of each of a tenant's integrations at `now`; refresh tokens that end before `soon` count as ending.
///
/// # Errors
/// As every statement.
pub async fn backlog_list(
    tx: &mut Tx,
    scope: &TenantScope,
    now: i64,
    soon: i64,
) -> Result<Vec<BacklogRow>, StoreError> {
    sql!(
        tx,
        all BacklogRow,
        "SELECT integration_id, count(CASE WHEN due_at <= $2 THEN 1 END) AS overdue, min(CASE WHEN due_at <= $2 THEN due_at END) AS oldest_due,
         count(CASE WHEN slot_at > $2 AND due_at = slot_at THEN 1 END) AS queued,
         count(CASE WHEN doubt_since IS NOT NULL OR (phase = 'sent' AND lease_until <= $2) THEN 1 END) AS in_doubt,
         count(CASE WHEN last_error IS NOT NULL THEN 1 END) AS failing,
         count(CASE WHEN refresh_expires_at > $2 AND refresh_expires_at <= $3 THEN 1 END) AS ending
         FROM credentials WHERE tenant_id = $1 AND integration_id IS NOT NULL AND status = 'active' AND deleted_at IS NULL
         AND ($4 IS NULL OR (owner_kind = 'user' AND owner_id = $4)) GROUP BY integration_id ORDER BY integration_id",
        scope.tenant(),
        now,
        soon,
        scope.user()
    )
}

/// Connections with a credential that is not well, the latest trouble first.
///
/// # Errors
/// As every statement.
pub async fn troubled_list(tx: &mut Tx, scope: &TenantScope, limit: i64) -> Result<Vec<(String,)>, StoreError> {
    sql!(
        tx,
        all (String,),
        "SELECT c.id FROM connections c JOIN connection_credentials j ON j.tenant_id = c.tenant_id AND j.connection_id = c.id
         JOIN credentials k ON k.tenant_id = j.tenant_id AND k.id = j.credential_id
         WHERE c.tenant_id = $1 AND c.deleted_at IS NULL AND k.deleted_at IS NULL AND c.status IN ('active', 'needs_reauth')
         AND (k.status <> 'active' OR k.last_error IS NOT NULL OR k.doubt_since IS NOT NULL) AND ($2 IS NULL OR c.user_id = $2)
         GROUP BY c.id ORDER BY max(COALESCE(k.last_error_at, k.obtained_at)) DESC, c.id LIMIT $3",
        scope.tenant(),
        scope.user(),
        limit
    )
}

/// What became of refreshes since the entry `from` (`aud_…`, without it): result, reason (empty for none) and count.
///
/// # Errors
/// As every statement.
pub async fn refresh_outcomes(
    tx: &mut Tx,
    scope: &TenantScope,
    from: &str,
) -> Result<Vec<(String, String, i64)>, StoreError> {
    sql!(
        tx,
        all (String, String, i64),
        "SELECT result, COALESCE(reason, ''), count(*) FROM audit_entries WHERE tenant_id = $1 AND id > $2
         AND (action IN ('credential.refresh', 'integration.pause', 'integration.unreachable') OR (action = 'connection.needs_reauth' AND object_kind = 'credential'))
         AND ($3 IS NULL OR user_id = $3) GROUP BY result, COALESCE(reason, '') ORDER BY count(*) DESC, result, COALESCE(reason, '')",
        scope.tenant(),
        from,
        scope.user()
    )
}

/// An integration that is held up, with its tenant's name.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct HeldRow {
    /// The tenant's name.
    pub tenant: String,
    /// Catalogue id.
    pub provider: String,
    /// The provider's code when it refuses the client.
    pub reason: Option<String>,
    /// Since when the provider does not answer.
    pub unreachable_since: Option<i64>,
}

/// Integrations of all tenants whose client is refused or whose provider does not answer.
///
/// # Errors
/// As every statement.
pub async fn integrations_held(tx: &mut Tx, _: SystemScope, limit: i64) -> Result<Vec<HeldRow>, StoreError> {
    sql!(
        tx,
        all HeldRow,
        "SELECT t.name AS tenant, i.provider, CASE i.status WHEN 'misconfigured' THEN COALESCE(i.reason, 'unknown') END AS reason, i.unreachable_since
         FROM integrations i JOIN tenants t ON t.id = i.tenant_id
         WHERE i.deleted_at IS NULL AND (i.status = 'misconfigured' OR i.unreachable_since IS NOT NULL) ORDER BY t.name, i.provider LIMIT $1",
        limit
    )
}
