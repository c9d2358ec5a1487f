//! Who lives on a consent: what ending tokens at their provider would take from others.
//!
//! A provider knows clients, and not our tenants. Whoever has the client that tokens were granted to, in whatever tenant and whatever
//! its integration has become since, may live on the same consent; whoever has only the client of today does not. In doubt a token
//! is left alive.

use super::refresh::Revocation as Ends;
use super::row::{integration_of, policy};
use super::{Credentials, ONE_CREDENTIAL};
use crate::caller::TenantScope;
use crate::providers::CredentialKind;
use crate::store::connections::{account_uses, credential_consent_uses, credential_other_uses};
use crate::store::credentials::{CredentialName, CredentialRow, credential_load, credential_shared_uses};
use crate::store::integrations::{ClientOf, IntegrationRow};
use crate::store::{StoreError, Tx};

/// The revision of its integration that a credential was granted to; 0 for one of before.
pub(super) fn granted_at(row: &CredentialRow, integration: Option<&IntegrationRow>) -> i64 {
    integration.filter(|_| row.status != "misconfigured").map_or(0, |one| one.revision)
}

impl Credentials {
    /// Whether another connection lives on what revoking this credential would end: its own tokens, or everything that the account
    /// has ever granted to the client (fact sheet A.6).
    ///
    /// # Errors
    /// As every statement.
    pub async fn is_shared(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        credential: &str,
        connection: &str,
    ) -> Result<bool, StoreError> {
        let name = CredentialName { tenant_id: scope.tenant().to_owned(), id: credential.to_owned() };
        let Some(row) = credential_load(tx, ONE_CREDENTIAL, &name).await? else { return Ok(false) };
        if credential_other_uses(tx, scope, &row.id, connection).await? > 0 {
            return Ok(true);
        }
        let integration = integration_of(tx, scope, row.integration_id.as_deref()).await?;
        self.consent_is_shared(tx, &row, granted_at(&row, integration.as_ref())).await
    }

    /// Whether revoking tokens of a credential, which may be deleted, would take away what another connection lives on. They were
    /// granted to its integration as it was at `revision`.
    pub(super) async fn consent_is_shared(
        &self,
        tx: &mut Tx,
        row: &CredentialRow,
        revision: i64,
    ) -> Result<bool, StoreError> {
        let Some(provider) = self.providers.get(&row.provider) else { return Ok(false) };
        // Of a provider that rotates, too, a token that does not is the only one that the account has for the client (B.4).
        let whole = match policy(provider.descriptor(), &row.kind).revocation {
            Ends::Impossible => false,
            Ends::WholeConsent => true,
            Ends::OneTokenSet => row.refresh_token.is_none(),
        };
        let Some(integration) = row.integration_id.as_deref().filter(|_| whole) else { return Ok(false) };
        let client = ClientOf { tenant: &row.tenant_id, integration, revision };
        if credential_consent_uses(tx, ONE_CREDENTIAL, client, &row.id).await? > 0 {
            return Ok(true);
        }
        let Some(shared_as) = &row.shared_as else { return Ok(false) };
        let shared = (row.kind.as_str(), shared_as.as_str());
        Ok(credential_shared_uses(tx, ONE_CREDENTIAL, client, shared, Some(&row.id)).await? > 0)
    }

    /// Whether somebody lives on what ending tokens would take away that an integration was just granted and nobody keeps, or would
    /// suffer when the provider tells of it: the account, or the workspace that the credential is shared in.
    ///
    /// # Errors
    /// As every statement.
    pub async fn is_lived_on(
        &self,
        tx: &mut Tx,
        integration: &IntegrationRow,
        account: &str,
        shared: Option<(CredentialKind, &str)>,
    ) -> Result<bool, StoreError> {
        let IntegrationRow { tenant_id, id, revision, provider, .. } = integration;
        let client = ClientOf { tenant: tenant_id, integration: id, revision: *revision };
        if account_uses(tx, ONE_CREDENTIAL, client, (provider, account)).await? > 0 {
            return Ok(true);
        }
        let Some((kind, shared_as)) = shared else { return Ok(false) };
        Ok(credential_shared_uses(tx, ONE_CREDENTIAL, client, (kind.as_str(), shared_as), None).await? > 0)
    }
}
