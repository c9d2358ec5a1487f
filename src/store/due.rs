//! What is due: the sweep's claims, its plans, and the numbers that people see of them.
//!
//! `due_at` is the schedule: whoever claims a row moves it forward, so that nobody else takes it meanwhile. `slot_at` stands
//! beside it while the sweep has plans with the row. Equal to `due_at` it is a place in the queue; earlier than `due_at`
//! it marks a row that was taken to be sent; later, a row in the queue that somebody has come to use. Whatever ends a flight
//! clears it.

use serde::Serialize;

use super::credentials::{CredentialName, DoubtColumns};
use super::{Connection, StoreError, Tx, sql, to_json};
use crate::caller::{SystemScope, TenantScope};

/// A row that the sweep has taken.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct DueRow {
    /// `ten_…`.
    pub tenant_id: String,
    /// `crd_…`.
    pub id: String,
    /// `int_…`.
    pub integration_id: Option<String>,
    /// Catalogue id.
    pub provider: String,
    /// Its place in the queue, or the time of the claim when it had none that is still to come.
    pub slot_at: i64,
    /// Failed attempts since the last success.
    pub attempts: i64,
    /// When somebody last used it.
    pub last_used_at: i64,
    /// When the refresh token ends.
    pub refresh_expires_at: Option<i64>,
    /// The end that was last warned of.
    pub warned_for: Option<i64>,
    /// `idle`; or `claimed` or `sent` when the holder of its last claim has not come to an end.
    pub phase: String,
    /// What is known of a token of unknown fate.
    #[sqlx(flatten)]
    pub doubt: DoubtColumns,
}

impl DueRow {
    /// The row's name.
    #[must_use]
    pub(crate) fn name(&self) -> CredentialName {
        CredentialName { tenant_id: self.tenant_id.clone(), id: self.id.clone() }
    }
}

/// What is urgent is looked for so far back, in milliseconds: an index keeps what it held until somebody cleans up. What is
/// older takes its turn.
const URGENT_FOR: i64 = 60_000;

/// How many rows are taken at once.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// In all.
    pub limit: i64,
    /// Of those that come first.
    pub first: i64,
    /// Of all others.
    pub others: i64,
}

/// Takes credentials that are due, or whose place in the queue comes by `horizon`, by moving their due time to `next`, so that
/// nobody else takes them meanwhile. Those without a place, with one that has passed, or with one that is far
/// because somebody has come to use them meanwhile, get `now` as theirs.
///
/// However large a crowd is due, before it come those whom somebody was sent for and nobody knows the end of, since a provider's
/// grace is short (RL-06), and those with a place, which would pass. All others come in the order of their due time.
///
/// # Errors
/// As every statement.
pub async fn credential_claim_due(
    tx: &mut Tx,
    _: SystemScope,
    (now, horizon): (i64, i64),
    next: i64,
    share: Share,
) -> Result<Vec<DueRow>, StoreError> {
    // PostgreSQL lets several nodes claim side by side; SQLite has one writer anyway and no FOR UPDATE.
    if matches!(tx.connection(), Connection::Postgres(_)) {
        sql!(
            tx,
            all DueRow,
            // Materialised: a plan that runs the choice more than once would choose more rows than `limit`. COALESCE keeps the planner
            // from reading the whole queue, by the index on places.
            "WITH due AS MATERIALIZED
             (SELECT * FROM (SELECT * FROM (SELECT tenant_id, id FROM credentials WHERE due_at > $5 AND due_at <= $4
             AND (phase = 'sent' OR doubt_since IS NOT NULL) AND (phase = 'sent' OR doubt_likely_unspent = 0) ORDER BY due_at LIMIT $6 FOR UPDATE SKIP LOCKED) AS urgent
             UNION ALL SELECT * FROM (SELECT tenant_id, id FROM credentials WHERE due_at > $4 AND due_at <= $1 AND COALESCE(slot_at, 0) = due_at
             ORDER BY due_at LIMIT $6 FOR UPDATE SKIP LOCKED) AS placed LIMIT $6) AS first
             UNION ALL SELECT * FROM (SELECT tenant_id, id FROM credentials WHERE due_at <= $4 AND (due_at <= $5
             OR (phase <> 'sent' AND (doubt_since IS NULL OR doubt_likely_unspent = 1))) ORDER BY due_at LIMIT $7 FOR UPDATE SKIP LOCKED) AS others LIMIT $3)
             UPDATE credentials SET due_at = $2, slot_at = CASE WHEN slot_at >= $4 AND slot_at <= $1 THEN slot_at ELSE $4 END
             WHERE (tenant_id, id) IN (SELECT tenant_id, id FROM due)
             RETURNING tenant_id, id, integration_id, provider, slot_at, attempts, last_used_at, refresh_expires_at, warned_for,
             phase, doubt_first_sent, doubt_since, doubt_replays, doubt_likely_unspent",
            horizon,
            next,
            share.limit,
            now,
            now - URGENT_FOR,
            share.first,
            share.others
        )
    } else {
        sql!(
            tx,
            all DueRow,
            "WITH due AS MATERIALIZED
             (SELECT * FROM (SELECT * FROM (SELECT tenant_id, id FROM credentials WHERE due_at > $5 AND due_at <= $4
             AND (phase = 'sent' OR doubt_since IS NOT NULL) AND (phase = 'sent' OR doubt_likely_unspent = 0) ORDER BY due_at LIMIT $6) AS urgent
             UNION ALL SELECT * FROM (SELECT tenant_id, id FROM credentials WHERE due_at > $4 AND due_at <= $1 AND COALESCE(slot_at, 0) = due_at
             ORDER BY due_at LIMIT $6) AS placed LIMIT $6) AS first
             UNION ALL SELECT * FROM (SELECT tenant_id, id FROM credentials WHERE due_at <= $4 AND (due_at <= $5
             OR (phase <> 'sent' AND (doubt_since IS NULL OR doubt_likely_unspent = 1))) ORDER BY due_at LIMIT $7) AS others LIMIT $3)
             UPDATE credentials SET due_at = $2, slot_at = CASE WHEN slot_at >= $4 AND slot_at <= $1 THEN slot_at ELSE $4 END
             WHERE (tenant_id, id) IN (SELECT tenant_id, id FROM due)
             RETURNING tenant_id, id, integration_id, provider, slot_at, attempts, last_used_at, refresh_expires_at, warned_for,
             phase, doubt_first_sent, doubt_since, doubt_replays, doubt_likely_unspent",
            horizon,
            next,
            share.limit,
            now,
            now - URGENT_FOR,
            share.first,
            share.others
        )
    }
}

/// A claimed row on its way back into the schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PutBack {
    /// The row's tenant.
    pub tenant_id: String,
    /// The row.
    pub id: String,
    /// The due time that the claim has given it.
    pub claimed: i64,
    /// When it is due next.
    pub due_at: i64,
    /// Whether that is its place in the queue; otherwise it has none.
    pub queued: bool,
}

/// Puts claimed rows back into the schedule. One whose flight has landed meanwhile (its due time is not `claimed` any more)
/// stays as it is.
///
/// # Errors
/// As every statement.
pub async fn credentials_put_back(tx: &mut Tx, _: SystemScope, rows: &[PutBack]) -> Result<(), StoreError> {
    let rows = to_json(&rows)?;
    // The plus keeps both planners from looking for a row among all that were claimed with it, which is by its due time. Rows are
    // locked in the order in which a consent locks those of its connection, or two would wait for each other.
    if matches!(tx.connection(), Connection::Postgres(_)) {
        sql!(
            tx,
            execute,
            "UPDATE credentials SET due_at = p.due_at, slot_at = CASE WHEN p.queued THEN p.due_at END
             FROM (SELECT * FROM jsonb_to_recordset($1::jsonb) AS r (tenant_id text, id text, claimed bigint, due_at bigint, queued boolean)
             ORDER BY r.tenant_id, r.id) AS p
             WHERE credentials.tenant_id = p.tenant_id AND credentials.id = p.id AND +credentials.due_at = p.claimed",
            &rows
        )?;
    } else {
        sql!(
            tx,
            execute,
            "UPDATE credentials SET due_at = p.due_at, slot_at = CASE WHEN p.queued THEN p.due_at END FROM
             (SELECT e.value ->> 'tenant_id' AS tenant_id, e.value ->> 'id' AS id, e.value ->> 'claimed' AS claimed, e.value ->> 'due_at' AS due_at,
             e.value ->> 'queued' AS queued FROM json_each($1) e) AS p
             WHERE credentials.tenant_id = p.tenant_id AND credentials.id = p.id AND +credentials.due_at = p.claimed",
            &rows
        )?;
    }
    Ok(())
}

/// Where a queue begins and how it goes on.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    /// Rows due by now join it.
    pub now: i64,
    /// The first free place, in microseconds UTC.
    pub pace_at: i64,
    /// Microseconds from one place to the next.
    pub interval: i64,
    /// Rows used after this come first.
    pub active_since: i64,
    /// At most so many rows.
    pub limit: i64,
}

/// Gives every due row of an integration that has no place in its queue yet one of its own; gives how many there were. What
/// somebody was sent for and nobody knows the end of takes no place: a provider's grace is shorter than a queue. The integration's
/// row must be locked by `tx`.
///
/// # Errors
/// As every statement.
pub async fn credentials_queue_up(
    tx: &mut Tx,
    _: SystemScope,
    (tenant, integration): (&str, &str),
    queue: Queue,
) -> Result<u64, StoreError> {
    if matches!(tx.connection(), Connection::Postgres(_)) {
        sql!(
            tx,
            execute,
            "WITH due AS MATERIALIZED
             (SELECT tenant_id, id, due_at, last_used_at FROM credentials WHERE tenant_id = $1 AND integration_id = $2 AND due_at <= $3
             AND slot_at IS NULL AND phase <> 'sent' AND (doubt_since IS NULL OR doubt_likely_unspent = 1) ORDER BY due_at LIMIT $4 FOR UPDATE SKIP LOCKED),
             placed AS MATERIALIZED (SELECT tenant_id, id, $5 + $6 * (row_number() OVER (ORDER BY CASE WHEN last_used_at > $7 THEN 0 ELSE 1 END, due_at) - 1) AS place FROM due)
             UPDATE credentials SET due_at = placed.place / 1000, slot_at = placed.place / 1000 FROM placed
             WHERE credentials.tenant_id = placed.tenant_id AND credentials.id = placed.id",
            tenant,
            integration,
            queue.now,
            queue.limit,
            queue.pace_at,
            queue.interval,
            queue.active_since
        )
    } else {
        sql!(
            tx,
            execute,
            "WITH due AS MATERIALIZED
             (SELECT tenant_id, id, due_at, last_used_at FROM credentials WHERE tenant_id = $1 AND integration_id = $2 AND due_at <= $3
             AND slot_at IS NULL AND phase <> 'sent' AND (doubt_since IS NULL OR doubt_likely_unspent = 1) ORDER BY due_at LIMIT $4),
             placed AS MATERIALIZED (SELECT tenant_id, id, $5 + $6 * (row_number() OVER (ORDER BY CASE WHEN last_used_at > $7 THEN 0 ELSE 1 END, due_at) - 1) AS place FROM due)
             UPDATE credentials SET due_at = placed.place / 1000, slot_at = placed.place / 1000 FROM placed
             WHERE credentials.tenant_id = placed.tenant_id AND credentials.id = placed.id",
            tenant,
            integration,
            queue.now,
            queue.limit,
            queue.pace_at,
            queue.interval,
            queue.active_since
        )
    }
}

/// Places of a queue that are looked through for one that can be given away.
const LOOKED_THROUGH: i64 = 200;

/// The next place in an integration's queue that somebody holds whom nobody waits for: not used since `active_since`. Looks
/// through the first 200 places only: where so many are waited for, one more waits like them.
///
/// # Errors
/// As every statement.
pub async fn credential_patient(
    tx: &mut Tx,
    _: SystemScope,
    (tenant, integration): (&str, &str),
    after: i64,
    active_since: i64,
) -> Result<Option<(String, i64)>, StoreError> {
    sql!(
        tx,
        optional (String, i64),
        "SELECT id, slot_at FROM (SELECT id, slot_at, last_used_at FROM credentials WHERE tenant_id = $1 AND integration_id = $2 AND slot_at > $3
         AND due_at = slot_at ORDER BY slot_at LIMIT $5) AS first WHERE last_used_at <= $4 ORDER BY slot_at LIMIT 1",
        tenant,
        integration,
        after,
        active_since,
        LOOKED_THROUGH
    )
}

/// A row that was taken to be sent and has not claimed so long after its place, in milliseconds, is not in the air: its node
/// has died, or has come to think better of it.
const TAKEN_FOR: i64 = 5_000;

/// How many credentials of each of these integrations (tenant and id) are on their way, on all nodes together: taken to be sent
/// at a place until `horizon`, or sent under a lease that lives.
///
/// Both parts are bounded in time, since an index keeps what it held until somebody cleans up: in the middle of a crowd that is
/// all those who have landed.
///
/// # Errors
/// As every statement.
pub async fn credentials_in_air(
    tx: &mut Tx,
    _: SystemScope,
    clients: &[(&str, &str)],
    (now, horizon): (i64, i64),
) -> Result<Vec<(String, String, i64)>, StoreError> {
    let names = to_json(&clients)?;
    if matches!(tx.connection(), Connection::Postgres(_)) {
        sql!(
            tx,
            all (String, String, i64),
            "SELECT e ->> 0, e ->> 1,
             (SELECT count(*) FROM credentials c WHERE c.tenant_id = e ->> 0 AND c.integration_id = e ->> 1 AND c.slot_at > $4 AND c.slot_at <= $3
             AND c.due_at > c.slot_at AND NOT (c.phase <> 'idle' AND c.lease_until > $2))
             + (SELECT count(*) FROM credentials c WHERE c.tenant_id = e ->> 0 AND c.integration_id = e ->> 1 AND c.phase <> 'idle' AND c.lease_until > $2)
             FROM jsonb_array_elements($1::jsonb) AS list (e)",
            &names,
            now,
            horizon,
            now - TAKEN_FOR
        )
    } else {
        sql!(
            tx,
            all (String, String, i64),
            "SELECT e.value ->> 0, e.value ->> 1,
             (SELECT count(*) FROM credentials c WHERE c.tenant_id = e.value ->> 0 AND c.integration_id = e.value ->> 1 AND c.slot_at > $4 AND c.slot_at <= $3
             AND c.due_at > c.slot_at AND NOT (c.phase <> 'idle' AND c.lease_until > $2))
             + (SELECT count(*) FROM credentials c WHERE c.tenant_id = e.value ->> 0 AND c.integration_id = e.value ->> 1 AND c.phase <> 'idle' AND c.lease_until > $2)
             FROM json_each($1) e",
            &names,
            now,
            horizon,
            now - TAKEN_FOR
        )
    }
}

/// Notes that the end of a refresh token was warned of; false when that was done before.
///
/// # Errors
/// As every statement.
pub async fn credential_warn(
    tx: &mut Tx,
    _: SystemScope,
    name: &CredentialName,
    refresh_expires_at: i64,
) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE credentials SET warned_for = $3 WHERE tenant_id = $1 AND id = $2 AND refresh_expires_at = $3 AND (warned_for IS NULL OR warned_for <> $3)
         AND deleted_at IS NULL",
        &name.tenant_id,
        &name.id,
        refresh_expires_at
    )? == 1)
}

/// Notes that a credential was used, at most once a minute, and moves its due time forward to `due_at` if that is earlier.
///
/// # Errors
/// As every statement.
pub async fn credential_touch(
    tx: &mut Tx,
    _: SystemScope,
    name: &CredentialName,
    now: i64,
    due_at: Option<i64>,
) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE credentials SET last_used_at = $3, due_at = CASE WHEN due_at IS NULL OR due_at > $4 THEN $4 ELSE due_at END
         WHERE tenant_id = $1 AND id = $2 AND last_used_at < $3 - 60000 AND status = 'active'",
        &name.tenant_id,
        &name.id,
        now,
        due_at
    )?;
    Ok(())
}

/// Sets when the sweep looks next, unless the row has moved on; its plans with the row are over.
///
/// # Errors
/// As every statement.
pub async fn credential_set_due(
    tx: &mut Tx,
    _: SystemScope,
    name: &CredentialName,
    fence: i64,
    due_at: Option<i64>,
) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE credentials SET due_at = $4, slot_at = NULL WHERE tenant_id = $1 AND id = $2 AND fence = $3 AND deleted_at IS NULL",
        &name.tenant_id,
        &name.id,
        fence,
        due_at
    )?;
    Ok(())
}

/// Has the sweep look at every credential of an integration that it had nothing to do with, or only to keep it alive, since
/// the integration now wishes for more; gives how many.
///
/// # Errors
/// As every statement.
pub async fn credentials_of_integration_plan(
    tx: &mut Tx,
    scope: &TenantScope,
    integration: &str,
    due_at: i64,
) -> Result<u64, StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE credentials SET due_at = $3 WHERE tenant_id = $1 AND integration_id = $2 AND (due_at IS NULL OR due_at > expires_at) AND status = 'active'
         AND refresh_token IS NOT NULL AND expires_at IS NOT NULL AND deleted_at IS NULL",
        scope.tenant(),
        integration,
        due_at
    )
}

/// Nobody needs to know how many more there are than that, and counting a crowd would hold up those who read tokens.
const COUNTED: i64 = 10_000;

/// How the refreshing of all credentials is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct RefreshNumbers {
    /// Credentials whose due time has passed and that nobody has taken; 10,000 at most.
    pub overdue: i64,
    /// Due time of the one that has waited longest.
    pub oldest_due: Option<i64>,
    /// Credentials that wait for their place in a queue; 10,000 at most.
    pub queued: i64,
    /// The first free place of the longest queue of a client; it may have passed.
    pub queued_until: Option<i64>,
    /// Requests whose outcome nobody knows (yet).
    pub in_doubt: i64,
    /// Integrations whose provider refuses the client.
    pub misconfigured: i64,
    /// Integrations whose provider does not answer.
    pub unreachable: i64,
    /// Integrations whose provider asked for a pause.
    pub rate_limited: i64,
}

/// Counts what people and metrics are shown, over all tenants. Every part is read from an index that holds little else, which
/// an order tells to PostgreSQL's planner where nothing else does.
///
/// # Errors
/// As every statement.
pub async fn refresh_numbers(tx: &mut Tx, _: SystemScope, now: i64) -> Result<RefreshNumbers, StoreError> {
    sql!(
        tx,
        one RefreshNumbers,
        "SELECT (SELECT count(*) FROM (SELECT 1 FROM credentials WHERE due_at <= $1 LIMIT $2) AS few) AS overdue,
         (SELECT min(due_at) FROM credentials WHERE due_at <= $1) AS oldest_due,
         (SELECT count(*) FROM (SELECT 1 FROM credentials WHERE slot_at IS NOT NULL AND slot_at > $1 ORDER BY tenant_id, integration_id, slot_at LIMIT $2) AS few) AS queued,
         (SELECT max(pace_at) / 1000 FROM integrations WHERE deleted_at IS NULL) AS queued_until,
         (SELECT count(*) FROM credentials WHERE doubt_since IS NOT NULL AND status = 'active' AND deleted_at IS NULL)
         + (SELECT count(*) FROM credentials WHERE phase <> 'idle' AND phase = 'sent' AND lease_until <= $1 AND doubt_since IS NULL AND status = 'active' AND deleted_at IS NULL) AS in_doubt,
         (SELECT count(*) FROM integrations WHERE status = 'misconfigured' AND deleted_at IS NULL) AS misconfigured,
         (SELECT count(*) FROM integrations WHERE unreachable_since IS NOT NULL AND deleted_at IS NULL) AS unreachable,
         (SELECT count(*) FROM integrations WHERE rate_limited_until > $1 AND deleted_at IS NULL) AS rate_limited",
        now,
        COUNTED
    )
}
