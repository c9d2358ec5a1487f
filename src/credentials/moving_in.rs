//! Keeping what an import brings: many token sets at once.

use super::row::{access_place, refresh_place};
use super::store::NewCredential;
use super::{Credentials, KeyError};
use crate::caller::TenantScope;
use crate::ids::CredentialId;
use crate::keys::Sealer;
use crate::store::Tx;
use crate::store::credentials::{CredentialRow, NewTokens};
use crate::store::imports::credentials_insert;
use crate::store::integrations::IntegrationRow;
use crate::store::to_json_list;

/// The first token set of its kind of a connection that was just made.
#[derive(Debug)]
pub struct FirstCredential<'a> {
    /// `con_…`.
    pub connection: &'a str,
    /// The key of [`NewCredential::owner`].
    pub sealer: &'a Sealer,
    /// What is kept; nobody shares it.
    pub new: NewCredential<'a>,
}

impl Credentials {
    /// As [`Self::keep`], for many connections that have nothing yet and share nothing. Gives the rows in the same order, each with its
    /// connection.
    ///
    /// # Errors
    /// As every statement.
    pub async fn keep_first<'a>(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        integrations: &[IntegrationRow],
        first: Vec<FirstCredential<'a>>,
    ) -> Result<Vec<(&'a str, CredentialRow)>, KeyError> {
        let mut rows = Vec::with_capacity(first.len());
        for FirstCredential { connection, sealer, new } in first {
            let integration = integrations.iter().find(|one| Some(one.id.as_str()) == new.integration);
            rows.push((connection, self.first_row(scope, sealer, &new, integration)?));
        }
        let listed: Vec<_> = rows.iter().map(|(connection, row)| (*connection, row)).collect();
        credentials_insert(tx, scope, &listed).await?;
        Ok(rows)
    }

    fn first_row(
        &self,
        scope: &TenantScope,
        sealer: &Sealer,
        new: &NewCredential<'_>,
        integration: Option<&IntegrationRow>,
    ) -> Result<CredentialRow, KeyError> {
        let id = CredentialId::new(&self.around).to_string();
        let refresh_token = match &new.refresh_token {
            Some(secret) => Some(sealer.seal(refresh_place(&id, 1), secret)?),
            None => None,
        };
        let tokens = NewTokens {
            generation: 0,
            access_token: sealer.seal(access_place(&id, 1), &new.access_token)?,
            refresh_token,
            token_type: new.token_type.clone(),
            scopes: to_json_list(&new.scopes),
            obtained_at: new.obtained_at.0,
            expires_at: new.expires_at.map(|at| at.0),
            refresh_expires_at: new.refresh_expires_at.map(|at| at.0),
            due_at: None,
        };
        let row = self.row_of(scope, &id, new, &tokens);
        Ok(CredentialRow { due_at: self.next_due(&row, integration), ..row })
    }
}
