//! Integrations: a tenant's OAuth client at a provider. Endpoints come from the catalogue; client id, secret and
//! revision are one unit (OA-04).

use serde::Serialize;

use super::{Connection, StoreError, Tx, sql, to_json};
use crate::caller::{SystemScope, TenantScope};

/// A tenant's OAuth client at a provider.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct IntegrationRow {
    /// `ten_…`.
    pub tenant_id: String,
    /// `int_…`; survives a changed client.
    pub id: String,
    /// Catalogue id.
    pub provider: String,
    /// The provider's client id.
    pub client_id: String,
    /// What tells one client from another: integrations with the same, in different tenants, are the same client to the provider and
    /// are paced as one.
    pub client: String,
    /// Sealed client secret.
    pub client_secret: Option<Vec<u8>>,
    /// Sealed bot token (Telegram).
    pub bot_token: Option<Vec<u8>>,
    /// Sealed: what the provider signs its notices with (Slack).
    pub signing_secret: Option<Vec<u8>>,
    /// JSON list: scopes asked for (Slack: of the bot).
    pub scopes: String,
    /// JSON list: scopes asked of the person (Slack).
    pub user_scopes: String,
    /// JSON object: what stands in braces in the provider's addresses.
    pub variables: String,
    /// `active` or `misconfigured`.
    pub status: String,
    /// The provider's error code when misconfigured.
    pub reason: Option<String>,
    /// When a misconfigured client or a silent provider may be tried again.
    pub probe_at: Option<i64>,
    /// Until when the provider wants fewer calls of this client.
    pub rate_limited_until: Option<i64>,
    /// `always`, `active` or `on_demand`: what the sweep does for its credentials.
    pub refresh_policy: String,
    /// How long after its last use a credential is active, where that matters.
    pub active_days: i64,
    /// The first free place in the sweep's queue for this client, in microseconds UTC.
    pub pace_at: i64,
    /// What may still be spent on retries, in hundredths of a call.
    pub retry_credit: i64,
    /// When a retry was last let go.
    pub retried_at: Option<i64>,
    /// Successes since the provider last did not answer; none once it counts as well again.
    pub answered: Option<i64>,
    /// Attempts in a row that the provider did not answer.
    pub unanswered: i64,
    /// Since when they are an outage.
    pub unreachable_since: Option<i64>,
    /// The last attempt that got no answer after three others that got none.
    pub silent_at: Option<i64>,
    /// What the last of them met.
    pub outage: Option<String>,
    /// Credentials whose users seem to have withdrawn, less two for every success between.
    pub refused: i64,
    /// When the first of them was refused.
    pub refused_since: Option<i64>,
    /// Since when the provider is known to take the client for one that is only tried out, with grants of a few days.
    pub testing_since: Option<i64>,
    /// Until then refusals are believed, however many there are.
    pub believed_until: Option<i64>,
    /// Grows with every changed client id; a handshake of an older revision is void.
    pub revision: i64,
    /// Milliseconds UTC.
    pub created_at: i64,
    /// Milliseconds UTC.
    pub updated_at: i64,
}

impl IntegrationRow {
    /// A client of which nothing is known but its name: nobody else's, working, refreshed always, with a few retries to spend.
    #[must_use]
    pub fn new(tenant_id: &str, id: &str, provider: &str, client_id: &str, now: i64) -> Self {
        Self {
            tenant_id: tenant_id.to_owned(),
            id: id.to_owned(),
            provider: provider.to_owned(),
            client_id: client_id.to_owned(),
            client: format!("{tenant_id}/{id}"),
            client_secret: None,
            bot_token: None,
            signing_secret: None,
            scopes: "[]".to_owned(),
            user_scopes: "[]".to_owned(),
            variables: "{}".to_owned(),
            status: NOW_WELL.to_owned(),
            reason: None,
            probe_at: None,
            rate_limited_until: None,
            refresh_policy: "always".to_owned(),
            active_days: 30,
            pace_at: 0,
            retry_credit: 300,
            retried_at: None,
            answered: None,
            unanswered: 0,
            unreachable_since: None,
            silent_at: None,
            outage: None,
            refused: 0,
            refused_since: None,
            testing_since: None,
            believed_until: None,
            revision: 1,
            created_at: now,
            updated_at: now,
        }
    }
}

impl IntegrationRow {
    /// Whether nothing is known against the client or its provider, so that a success has nothing to heal.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.status == NOW_WELL && self.unanswered == 0 && self.refused == 0 && self.answered.is_none()
    }
}

const NOW_WELL: &str = "active";

/// Notes since when a client is only tried out, or that it is not any more.
///
/// # Errors
/// As every statement.
pub async fn integration_note_testing(
    tx: &mut Tx,
    scope: &TenantScope,
    id: &str,
    since: Option<i64>,
) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE integrations SET testing_since = $3 WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL",
        scope.tenant(),
        id,
        since
    )?;
    Ok(())
}

/// The client that an integration had at a revision of it: the one that tokens of then were granted to.
#[derive(Clone, Copy, Debug)]
pub struct ClientOf<'a> {
    /// `ten_…`.
    pub tenant: &'a str,
    /// `int_…`.
    pub integration: &'a str,
    /// 0 stands for all before the present one.
    pub revision: i64,
}

/// Adds an integration. A pause that the provider has asked its client for goes on (RL-09).
///
/// # Errors
/// [`StoreError::Conflict`] when the tenant has one for this provider.
pub async fn integration_insert(tx: &mut Tx, scope: &TenantScope, row: &IntegrationRow) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "INSERT INTO integrations (tenant_id, id, provider, client_id, client, client_secret, bot_token, signing_secret, scopes, user_scopes, variables, status, revision, created_at,
         updated_at, refresh_policy, active_days, pace_at, retry_credit, unanswered, refused, rate_limited_until)
         VALUES ($1, $2, $3, $4, $17, $5, $6, $16, $7, $8, $15, $9, $10, $11, $11, $12, $13, 0, $14, 0, 0,
         (SELECT max(rate_limited_until) FROM integrations WHERE client = $17 AND deleted_at IS NULL))",
        scope.tenant(),
        &row.id,
        &row.provider,
        &row.client_id,
        &row.client_secret,
        &row.bot_token,
        &row.scopes,
        &row.user_scopes,
        NOW_WELL,
        row.revision,
        row.created_at,
        &row.refresh_policy,
        row.active_days,
        row.retry_credit,
        &row.variables,
        &row.signing_secret,
        &row.client
    )?;
    note_client(tx, scope, row).await
}

/// Changes an integration and marks it well: a new secret is used at once (API.md section 6, point 3). A pause that the provider has
/// asked for goes on, unless it was asked of another client (RL-09).
///
/// # Errors
/// As every statement.
pub async fn integration_update(tx: &mut Tx, scope: &TenantScope, row: &IntegrationRow) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE integrations SET client_id = $3, client_secret = $4, bot_token = $5, scopes = $6, user_scopes = $7, revision = $8, updated_at = $9,
         status = $10, reason = NULL, probe_at = NULL,
         rate_limited_until = (SELECT max(o.rate_limited_until) FROM integrations o
          WHERE (o.client = $16 AND o.deleted_at IS NULL) OR (o.tenant_id = $1 AND o.id = $2 AND o.client_id = $3)), client = $16, refresh_policy = $11, active_days = $12, believed_until = $13, variables = $14, signing_secret = $15,
         unanswered = 0, unreachable_since = NULL, outage = NULL, refused = 0, refused_since = NULL,
         testing_since = CASE WHEN client_id = $3 THEN testing_since END WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL",
        scope.tenant(),
        &row.id,
        &row.client_id,
        &row.client_secret,
        &row.bot_token,
        &row.scopes,
        &row.user_scopes,
        row.revision,
        row.updated_at,
        NOW_WELL,
        &row.refresh_policy,
        row.active_days,
        row.believed_until,
        &row.variables,
        &row.signing_secret,
        &row.client
    )?;
    note_client(tx, scope, row).await
}

/// Notes which client an integration has now, for the days when it has another.
async fn note_client(tx: &mut Tx, scope: &TenantScope, row: &IntegrationRow) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "INSERT INTO integration_clients (tenant_id, integration_id, revision, client)
         SELECT tenant_id, id, revision, client FROM integrations WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL ON CONFLICT DO NOTHING",
        scope.tenant(),
        &row.id
    )?;
    Ok(())
}

/// A tenant's integration for a provider.
///
/// # Errors
/// As every statement.
pub async fn integration_by_provider(
    tx: &mut Tx,
    scope: &TenantScope,
    provider: &str,
) -> Result<Option<IntegrationRow>, StoreError> {
    sql!(
        tx,
        optional IntegrationRow,
        "SELECT * FROM integrations WHERE tenant_id = $1 AND provider = $2 AND deleted_at IS NULL",
        scope.tenant(),
        provider
    )
}

/// One integration by id.
///
/// # Errors
/// As every statement.
pub async fn integration_by_id(
    tx: &mut Tx,
    scope: &TenantScope,
    id: &str,
) -> Result<Option<IntegrationRow>, StoreError> {
    sql!(
        tx,
        optional IntegrationRow,
        "SELECT * FROM integrations WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL",
        scope.tenant(),
        id
    )
}

/// A tenant's integrations, by provider.
///
/// # Errors
/// As every statement.
pub async fn integration_list(tx: &mut Tx, scope: &TenantScope) -> Result<Vec<IntegrationRow>, StoreError> {
    sql!(
        tx,
        all IntegrationRow,
        "SELECT * FROM integrations WHERE tenant_id = $1 AND deleted_at IS NULL ORDER BY provider",
        scope.tenant()
    )
}

/// The client is wrong: pauses the integration until `probe_at`. Connections stay as they are. False when the integration has been
/// saved since `saved_at`: what was refused is not what it says now (API.md section 6, point 3).
///
/// # Errors
/// As every statement.
pub async fn integration_pause(
    tx: &mut Tx,
    _: SystemScope,
    (tenant, id): (&str, &str),
    saved_at: i64,
    reason: &str,
    probe_at: i64,
) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE integrations SET status = 'misconfigured', reason = $3, probe_at = $4, unanswered = 0, unreachable_since = NULL, outage = NULL
         WHERE tenant_id = $1 AND id = $2 AND updated_at = $5",
        tenant,
        id,
        reason,
        probe_at,
        saved_at
    )? == 1)
}

/// So many successes in a row show that a provider which did not always answer is well again. With 30 % of errors there is
/// such a row once in 7,000.
const WELL_AFTER: i64 = 25;

/// A success outweighs so many refusals: where more than two thirds are refused, they become a wave.
const OUTWEIGHS: i64 = 2;

/// The client works (again), and the provider answers; what failed in an outage may be tried again at once. False when
/// nothing was known against either.
///
/// # Errors
/// As every statement.
pub async fn integration_resume(tx: &mut Tx, _: SystemScope, tenant: &str, id: &str) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE integrations SET retry_credit = retry_credit + CASE WHEN unreachable_since IS NOT NULL THEN 100 * unanswered ELSE 0 END,
         status = 'active', reason = NULL, probe_at = NULL, unanswered = 0, unreachable_since = NULL, outage = NULL,
         refused = CASE WHEN status = 'active' AND refused > $4 THEN refused - $4 ELSE 0 END,
         refused_since = CASE WHEN status = 'active' AND refused > $4 THEN refused_since END,
         answered = CASE WHEN answered + 1 < $3 THEN answered + 1 END
         WHERE tenant_id = $1 AND id = $2 AND (status <> 'active' OR unanswered > 0 OR refused > 0 OR answered IS NOT NULL)",
        tenant,
        id,
        WELL_AFTER,
        OUTWEIGHS
    )? == 1)
}

/// The provider asked this client for a pause, whoever else has it; a longer one is never shortened (RL-09): of two clocks
/// nobody knows here which one is wrong.
///
/// # Errors
/// As every statement.
pub async fn integration_limit_rate(
    tx: &mut Tx,
    scope: SystemScope,
    tenant: &str,
    id: &str,
    until: i64,
) -> Result<(), StoreError> {
    // In the order in which everybody locks them, or two would wait for each other.
    integrations_lock(tx, scope, &[(tenant, id)]).await?;
    sql!(
        tx,
        execute,
        "UPDATE integrations SET rate_limited_until = CASE WHEN rate_limited_until > $3 THEN rate_limited_until ELSE $3 END,
         retry_credit = retry_credit + CASE WHEN unreachable_since IS NOT NULL THEN 100 * unanswered ELSE 0 END,
         unanswered = 0, unreachable_since = NULL, outage = NULL
         WHERE client = (SELECT client FROM integrations WHERE tenant_id = $1 AND id = $2) AND deleted_at IS NULL",
        tenant,
        id,
        until
    )?;
    Ok(())
}

/// Takes the one probe that a misconfigured client or a silent provider may have in its interval; false when somebody
/// took it. One that has come to work again meanwhile holds nobody up.
///
/// # Errors
/// As every statement.
pub async fn integration_take_probe(
    tx: &mut Tx,
    _: SystemScope,
    tenant: &str,
    id: &str,
    now: i64,
    next: i64,
) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE integrations SET probe_at = $4 WHERE tenant_id = $1 AND id = $2 AND ((status = 'active' AND unreachable_since IS NULL) OR probe_at IS NULL OR probe_at <= $3)",
        tenant,
        id,
        now,
        next
    )? == 1)
}

/// Locks the rows of these integrations (tenant and id), and of all others with the same clients, until the end of `tx`, in one
/// order for everybody, and reads them. Deleted ones are left out.
///
/// # Errors
/// As every statement.
pub async fn integrations_lock(
    tx: &mut Tx,
    _: SystemScope,
    clients: &[(&str, &str)],
) -> Result<Vec<IntegrationRow>, StoreError> {
    let names = to_json(&clients)?;
    // SQLite has one writer, which this transaction is.
    if matches!(tx.connection(), Connection::Postgres(_)) {
        sql!(
            tx,
            all IntegrationRow,
            "SELECT * FROM integrations WHERE client IN (SELECT client FROM integrations WHERE (tenant_id, id) IN
             (SELECT e ->> 0, e ->> 1 FROM jsonb_array_elements($1::jsonb) AS list (e)) AND deleted_at IS NULL) AND deleted_at IS NULL ORDER BY tenant_id, id FOR NO KEY UPDATE",
            &names
        )
    } else {
        sql!(
            tx,
            all IntegrationRow,
            "SELECT * FROM integrations WHERE client IN (SELECT client FROM integrations WHERE (tenant_id, id) IN
             (SELECT e.value ->> 0, e.value ->> 1 FROM json_each($1) e) AND deleted_at IS NULL) AND deleted_at IS NULL ORDER BY tenant_id, id",
            &names
        )
    }
}

/// As [`integrations_lock`] for a tenant's own integrations, but together with whoever else does the same: who locks waits for all of
/// them, and they wait for nobody but those who lock. They must not write to these rows afterwards.
///
/// # Errors
/// As every statement.
pub async fn integrations_share(tx: &mut Tx, scope: &TenantScope, integrations: &[&str]) -> Result<(), StoreError> {
    // SQLite has one writer, which this transaction is.
    if matches!(tx.connection(), Connection::Sqlite(_)) {
        return Ok(());
    }
    let ids = to_json(&integrations)?;
    sql!(
        tx,
        all (String,),
        "SELECT id FROM integrations WHERE tenant_id = $1 AND id IN (SELECT e FROM jsonb_array_elements_text($2::jsonb) AS list (e)) ORDER BY tenant_id, id FOR SHARE",
        scope.tenant(),
        &ids
    )
    .map(drop)
}

/// How the queue of a client stands after a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pace<'a> {
    /// The integration's tenant.
    pub tenant_id: &'a str,
    /// The integration.
    pub id: &'a str,
    /// See [`IntegrationRow::pace_at`].
    pub pace_at: i64,
    /// See [`IntegrationRow::retry_credit`].
    pub retry_credit: i64,
    /// See [`IntegrationRow::retried_at`].
    pub retried_at: Option<i64>,
}

/// Notes how queues stand. The rows must be locked by `tx`.
///
/// # Errors
/// As every statement.
pub async fn integrations_set_pace(tx: &mut Tx, _: SystemScope, paces: &[Pace<'_>]) -> Result<(), StoreError> {
    let paces = to_json(&paces)?;
    if matches!(tx.connection(), Connection::Postgres(_)) {
        sql!(
            tx,
            execute,
            "UPDATE integrations SET pace_at = p.pace_at, retry_credit = p.retry_credit, retried_at = p.retried_at
             FROM jsonb_to_recordset($1::jsonb) AS p (tenant_id text, id text, pace_at bigint, retry_credit bigint, retried_at bigint)
             WHERE integrations.tenant_id = p.tenant_id AND integrations.id = p.id",
            &paces
        )?;
    } else {
        sql!(
            tx,
            execute,
            "UPDATE integrations SET pace_at = p.pace_at, retry_credit = p.retry_credit, retried_at = p.retried_at FROM
             (SELECT e.value ->> 'tenant_id' AS tenant_id, e.value ->> 'id' AS id, e.value ->> 'pace_at' AS pace_at,
             e.value ->> 'retry_credit' AS retry_credit, e.value ->> 'retried_at' AS retried_at FROM json_each($1) e) AS p
             WHERE integrations.tenant_id = p.tenant_id AND integrations.id = p.id",
            &paces
        )?;
    }
    Ok(())
}

/// So many attempts in a row without an answer are no accident of one of them: what was sent by then may be unspent.
const SILENT_AFTER: i64 = 4;

/// One attempt more that the provider did not answer; from `open_after` in a row on it is an outage, with a probe at
/// `probe_at`. True when the outage begins with this one.
///
/// # Errors
/// As every statement.
pub async fn integration_strain(
    tx: &mut Tx,
    _: SystemScope,
    (tenant, id): (&str, &str),
    code: &str,
    (open_after, probe_at): (i64, i64),
    now: i64,
) -> Result<bool, StoreError> {
    let unanswered = sql!(
        tx,
        optional (i64,),
        "UPDATE integrations SET unanswered = unanswered + 1, outage = $3, answered = 0,
         unreachable_since = CASE WHEN unanswered + 1 >= $4 THEN COALESCE(unreachable_since, $6) ELSE unreachable_since END,
         silent_at = CASE WHEN unanswered + 1 >= $7 THEN $6 ELSE silent_at END,
         probe_at = CASE WHEN unanswered + 1 >= $4 AND status = 'active' THEN $5 ELSE probe_at END
         WHERE tenant_id = $1 AND id = $2 RETURNING unanswered",
        tenant,
        id,
        code,
        open_after,
        probe_at,
        now,
        SILENT_AFTER
    )?;
    Ok(unanswered == Some((open_after,)))
}

/// How many refusals there are now, less two for every success between, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Refusals {
    /// With this one.
    pub refused: i64,
    /// When the first of them came.
    pub refused_since: i64,
}

/// Counts one refusal more, from anew when the first of them is not newer than `since`, and none at all while they are believed.
/// None when the integration is gone.
///
/// # Errors
/// As every statement.
pub async fn integration_count_refusal(
    tx: &mut Tx,
    _: SystemScope,
    (tenant, id): (&str, &str),
    since: i64,
    now: i64,
) -> Result<Option<Refusals>, StoreError> {
    sql!(
        tx,
        optional Refusals,
        "UPDATE integrations SET refused = CASE WHEN believed_until > $4 THEN 0
          WHEN refused_since > $3 OR reason = 'refused_wave' THEN refused + 1 ELSE 1 END,
         refused_since = CASE WHEN believed_until > $4 THEN NULL
          WHEN refused_since > $3 OR reason = 'refused_wave' THEN refused_since ELSE $4 END,
         retry_credit = retry_credit + CASE WHEN unreachable_since IS NOT NULL THEN 100 * unanswered ELSE 0 END,
         unanswered = 0, unreachable_since = NULL, outage = NULL
         WHERE tenant_id = $1 AND id = $2 RETURNING refused, COALESCE(refused_since, $4) AS refused_since",
        tenant,
        id,
        since,
        now
    )
}

/// The provider has answered about a user, so it accepts the client; a wave of refusals is not ended by that.
///
/// # Errors
/// As every statement.
pub async fn integration_accept(tx: &mut Tx, _: SystemScope, tenant: &str, id: &str) -> Result<(), StoreError> {
    sql!(
        tx,
        execute,
        "UPDATE integrations SET retry_credit = retry_credit + CASE WHEN unreachable_since IS NOT NULL THEN 100 * unanswered ELSE 0 END,
         unanswered = 0, unreachable_since = NULL, outage = NULL,
         status = CASE WHEN reason = 'refused_wave' THEN status ELSE 'active' END, reason = CASE WHEN reason = 'refused_wave' THEN reason END,
         probe_at = CASE WHEN reason = 'refused_wave' THEN probe_at END WHERE tenant_id = $1 AND id = $2 AND (status <> 'active' OR unanswered > 0)",
        tenant,
        id
    )?;
    Ok(())
}

/// Deletes an integration. Its connections are deleted by the room first.
///
/// # Errors
/// As every statement.
pub async fn integration_delete(tx: &mut Tx, scope: &TenantScope, id: &str, now: i64) -> Result<bool, StoreError> {
    Ok(sql!(
        tx,
        execute,
        "UPDATE integrations SET deleted_at = $3, client_secret = NULL, bot_token = NULL, signing_secret = NULL WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL",
        scope.tenant(),
        id,
        now
    )? == 1)
}
