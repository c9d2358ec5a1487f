//! Ending credentials: when their connection ends, and when their provider says so. Ours ends first and at once; `revoking` has the rest.
//!
//! Providers tell of what has ended, and name users, not tokens (fact sheet B.7). What they say may be the echo of what was asked
//! here, while the same account lives on with other tokens: then the refresh token finds out.

use std::time::Duration;

use super::consents::granted_at;
use super::revoking::Revocation;
use super::row::{access_place, integration_of, owner, refresh_place};
use super::{Credentials, ONE_CREDENTIAL};
use crate::caller::TenantScope;
use crate::clock::Millis;
use crate::ids::RevocationId;
use crate::keys::{KeyError, Owner, Place};
use crate::providers::CredentialKind;
use crate::secret::Secret;
use crate::store::connections::{connection_by_id, connections_of_credential_mark, credential_other_uses};
use crate::store::credentials::{CredentialRow, credential_delete, credentials_of_connection_lock};
use crate::store::integrations::integrations_lock;
use crate::store::notices::{credential_look_into, credential_lose};
use crate::store::revocations::account_was_revoked;
use crate::store::{StoreError, Tx};

/// What a provider tells of happened so long before it was asked for here, by its clock, or so long after.
const ECHO: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(300));

/// What a provider tells of: tokens that have ended.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// An account's id, or that of the workspace that its accounts belong to.
    pub whose: &'a str,
    /// Of which kind; none for everything that the account has granted.
    pub kind: Option<CredentialKind>,
    /// Why.
    pub reason: &'a str,
    /// When, at the latest.
    pub happened: Millis,
}

/// What became of a credential that a provider told of.
#[derive(Debug)]
pub enum Hearing {
    /// Its tokens are destroyed, and only its user can help.
    Lost(String),
    /// Its refresh token finds out.
    LookedInto(String),
}

impl Credentials {
    /// Deletes the credentials that only this connection uses, and gives their tokens for revoking once `tx` is
    /// committed: those whose end at the provider takes nothing from another connection.
    ///
    /// # Errors
    /// As every statement.
    pub async fn end(&self, tx: &mut Tx, scope: &TenantScope, connection: &str) -> Result<Vec<Revocation>, KeyError> {
        let row = connection_by_id(tx, scope, connection).await?;
        if let Some(integration) = row.as_ref().and_then(|row| row.integration_id.as_deref()) {
            // Of the last two who share a consent only one may see the other. As everybody, the integration before credentials.
            integrations_lock(tx, ONE_CREDENTIAL, &[(scope.tenant(), integration)]).await?;
        }
        let mut revocations = Vec::new();
        for row in credentials_of_connection_lock(tx, scope, connection).await? {
            if credential_other_uses(tx, scope, &row.id, connection).await? > 0 {
                continue;
            }
            let integration = integration_of(tx, scope, row.integration_id.as_deref()).await?;
            let revision = granted_at(&row, integration.as_ref());
            if self.consent_is_shared(tx, &row, revision).await? {
                credential_delete(tx, scope, &row.id, self.around.now().0).await?;
                continue;
            }
            let owner = owner(&row);
            // What cannot be opened cannot be revoked; it is deleted all the same.
            let access = self
                .open_quietly(tx, &owner, access_place(&row.id, row.generation), row.access_token.as_deref())
                .await?;
            let refresh = self
                .open_quietly(tx, &owner, refresh_place(&row.id, row.generation), row.refresh_token.as_deref())
                .await?;
            credential_delete(tx, scope, &row.id, self.around.now().0).await?;
            let id = RevocationId::new(&self.around).to_string();
            revocations.push(Revocation { id, credential: row, integration, revision, access, refresh });
        }
        Ok(revocations)
    }

    /// Deletes the credentials of a connection that are of other kinds than those that it goes on with.
    ///
    /// # Errors
    /// As every statement.
    pub async fn drop_others(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        connection: &str,
        goes_on_with: impl Fn(CredentialKind) -> bool,
    ) -> Result<(), StoreError> {
        for row in credentials_of_connection_lock(tx, scope, connection).await? {
            if !CredentialKind::parse(&row.kind).is_some_and(&goes_on_with) {
                self.leave(tx, scope, connection, &row.id).await?;
            }
        }
        Ok(())
    }

    /// Gives up what the provider of a connection says has ended: tokens that are no newer than that are destroyed, and every
    /// connection that uses them needs its user. What may be our own doing is looked into instead.
    ///
    /// # Errors
    /// As every statement.
    pub async fn lose(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        connection: &str,
        told: Told<'_>,
    ) -> Result<Vec<Hearing>, StoreError> {
        let mut heard = Vec::new();
        for row in credentials_of_connection_lock(tx, scope, connection).await? {
            if told.kind.is_some_and(|kind| row.kind != kind.as_str()) {
                continue;
            }
            if row.refresh_token.is_some() && self.may_be_an_echo(tx, &row, told).await? {
                if credential_look_into(tx, scope, &row.id, told.happened.0, self.around.now().0).await? {
                    heard.push(Hearing::LookedInto(row.id));
                }
            } else if self.give_up(tx, scope, &row.id, (told.reason, told.happened)).await? {
                heard.push(Hearing::Lost(row.id));
            }
        }
        Ok(heard)
    }

    /// Destroys the tokens of a credential that are not newer than what happened; every connection that uses them needs its user.
    pub(super) async fn give_up(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        credential: &str,
        (reason, happened): (&str, Millis),
    ) -> Result<bool, StoreError> {
        let (now, reauth) = (self.around.now().0, "needs_reauth");
        let lost = credential_lose(tx, scope, credential, (reason, happened.0), now).await?;
        if lost {
            let tenant = scope.tenant();
            connections_of_credential_mark(tx, ONE_CREDENTIAL, tenant, credential, reauth, Some(reason), now).await?;
        }
        Ok(lost)
    }

    /// Whether the provider was asked about then, and since these tokens or those that they came from were consented to, to end others
    /// of the same account. Of a revocation that is older than a consent, nothing newer is told.
    async fn may_be_an_echo(&self, tx: &mut Tx, row: &CredentialRow, told: Told<'_>) -> Result<bool, StoreError> {
        let (Some(integration), Some(kind)) = (&row.integration_id, told.kind) else { return Ok(false) };
        let was_refreshed = row.last_refreshed_at == Some(row.obtained_at);
        let since = if was_refreshed { row.created_at } else { row.obtained_at };
        let from = told.happened.before(ECHO.1).0.max(since);
        let until = told.happened.after(ECHO.0).0;
        let place = (row.tenant_id.as_str(), integration.as_str());
        account_was_revoked(tx, ONE_CREDENTIAL, place, (told.whose, kind.as_str()), (from, until)).await
    }

    pub(super) async fn open_quietly(
        &self,
        tx: &mut Tx,
        owner: &Owner,
        place: Place<'_>,
        sealed: Option<&[u8]>,
    ) -> Result<Option<Secret>, KeyError> {
        let Some(sealed) = sealed else { return Ok(None) };
        match self.keys.open_secret(tx, owner, place, sealed).await {
            Ok(secret) => Ok(Some(secret)),
            Err(KeyError::Store(error)) => Err(KeyError::Store(error)),
            Err(_) => Ok(None),
        }
    }
}
