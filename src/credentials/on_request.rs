//! Refreshing because somebody asks for it, whatever life is left.

use std::time::Duration;

use super::read::{COME_AGAIN, PATIENCE, wait_for_landing};
use super::refresh::{Code, Verdict, Wish};
use super::row::integration_of;
use super::{CredentialError, Credentials, ONE_CREDENTIAL};
use crate::caller::{Caller, Permission, TenantScope};
use crate::clock::{Millis, Stopwatch, deadline};
use crate::store::credentials::{CredentialName, CredentialRow, credential_load, credentials_of_connection};
use crate::store::integrations::IntegrationRow;

impl Credentials {
    /// Refreshes every refreshable credential of a connection now.
    ///
    /// # Errors
    /// See [`CredentialError`].
    pub async fn refresh_now(&self, caller: &Caller, connection: &str) -> Result<(), CredentialError> {
        let scope = caller.require(Permission::ConnectionsWrite)?;
        let mut tx = self.store.read().await?;
        let rows = credentials_of_connection(&mut tx, &scope, connection).await?;
        drop(tx);
        let mut is_new = false;
        for row in &rows {
            if row.refresh_token.is_some() {
                self.refresh_one(&scope, row).await?;
                is_new = true;
            } else {
                is_new |= self.exchange_lasting(caller, &scope, row).await?;
            }
        }
        if is_new { Ok(()) } else { Err(CredentialError::NotRefreshable) }
    }

    async fn refresh_one(&self, scope: &TenantScope, row: &CredentialRow) -> Result<(), CredentialError> {
        let name = CredentialName { tenant_id: row.tenant_id.clone(), id: row.id.clone() };
        let waited = Stopwatch::start();
        loop {
            let (mut landing, passenger_of) = self.board(&name, Wish::forced(), None);
            let patience = PATIENCE.saturating_sub(waited.elapsed());
            let Ok(verdict) = deadline(patience, wait_for_landing(&mut landing)).await else {
                return Err(CredentialError::InProgress { retry_after: COME_AGAIN });
            };
            let mut tx = self.store.read().await?;
            let after = credential_load(&mut tx, ONE_CREDENTIAL, &name).await?.ok_or(CredentialError::NotFound)?;
            let integration = integration_of(&mut tx, scope, after.integration_id.as_deref()).await?;
            drop(tx);
            if after.generation > row.generation {
                return Ok(());
            }
            // Others may have wanted less than a refresh, whatever it takes.
            if passenger_of.is_none() {
                return Err(self.failed_refresh(verdict, &after, integration.as_ref()));
            }
        }
    }

    /// Why there is no newer token set. What no attempt can mend is told as what it is, whatever this attempt met (API.md section
    /// 6, point 4).
    fn failed_refresh(
        &self,
        verdict: Option<Verdict>,
        row: &CredentialRow,
        integration: Option<&IntegrationRow>,
    ) -> CredentialError {
        match row.status.as_str() {
            "needs_reauth" => {
                return CredentialError::NeedsReauth { reason: row.reason.clone().unwrap_or_default() };
            }
            "misconfigured" => return CredentialError::Misconfigured,
            _ if integration.is_some_and(|one| one.status == "misconfigured") => return CredentialError::Misconfigured,
            _ => {}
        }
        let left = |until: Option<i64>| until.map_or(Duration::ZERO, |until| Millis(until).left(self.around.now()));
        let probe_at = integration.filter(|one| one.unreachable_since.is_some()).and_then(|one| one.probe_at);
        let Some(verdict) = verdict else { return CredentialError::InProgress { retry_after: COME_AGAIN } };
        match &verdict {
            // Whoever reads it is served, since it lives; here only the refresh counts.
            Verdict::Serve { degraded: Some(code), .. } if *code == Code::RATE_LIMITED => {
                let until = integration.and_then(|one| one.rate_limited_until);
                CredentialError::RateLimited { retry_after: left(until) }
            }
            // The sweep looks again when a doubt can be settled.
            Verdict::Serve { degraded: Some(code), .. } if *code == Code::IN_DOUBT => {
                CredentialError::InProgress { retry_after: left(self.next_due(row, integration)).max(COME_AGAIN) }
            }
            Verdict::Serve { degraded: Some(code), .. } if *code == Code::REFRESH_IN_PROGRESS => {
                CredentialError::InProgress { retry_after: COME_AGAIN }
            }
            Verdict::Serve { degraded: Some(code), .. } if probe_at.is_some() => {
                CredentialError::Upstream { code: code.to_string(), retry_after: left(probe_at).max(COME_AGAIN) }
            }
            _ => self.refusal(verdict, row),
        }
    }
}
