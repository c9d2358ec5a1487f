//! Keeping credentials: a new consent, a repeated one.

use super::refresh::{Code, Jitter, Replay};
use super::row::{access_place, integration_of, look_at, owner, policy, refresh_place};
use super::{CredentialError, Credentials, ONE_CREDENTIAL};
use crate::caller::{Caller, Permission, TenantScope};
use crate::clock::Millis;
use crate::ids::CredentialId;
use crate::keys::{KeyError, Owner};
use crate::providers::CredentialKind;
use crate::secret::Secret;
use crate::store::connections::{
    connection_leave_credential, connection_use_credential, connections_of_credential_heal,
    connections_of_credential_mark, credential_other_uses,
};
use crate::store::credentials::{
    CredentialName, CredentialRow, DoubtColumns, NewTokens, credential_delete, credential_insert, credential_load,
    credential_refill, credential_replace, credential_shared_lock, credentials_of_connection,
    credentials_of_connection_lock,
};
use crate::store::integrations::{IntegrationRow, integrations_lock, integrations_share};
use crate::store::telling::connections_of_credential_recover;
use crate::store::{StoreError, Tx, to_json_list};

/// A token set to be kept, from a consent or an import.
#[derive(Debug)]
pub struct NewCredential<'a> {
    /// Whose data key seals it: the tenant's, where it is shared.
    pub owner: &'a Owner,
    /// What all connections of the integration that share it have in common; none for a connection's own.
    pub shared_as: Option<&'a str>,
    /// `int_…`; none for a secret that was handed over directly.
    pub integration: Option<&'a str>,
    /// Catalogue id.
    pub provider: &'a str,
    /// `user`, `bot`, ….
    pub kind: CredentialKind,
    /// The access token, or the secret that never ends.
    pub access_token: Secret,
    /// The refresh token.
    pub refresh_token: Option<Secret>,
    /// `Bearer`, ….
    pub token_type: String,
    /// Granted scopes.
    pub scopes: Vec<String>,
    /// When it was received.
    pub obtained_at: Millis,
    /// When the access token ends.
    pub expires_at: Option<Millis>,
    /// When the refresh token ends.
    pub refresh_expires_at: Option<Millis>,
}

impl Credentials {
    /// Locks the credentials of a connection that is about to be written, too: whoever writes both begins with the credentials, or
    /// two would wait for each other (a refresh that heals its connection, a consent for it).
    ///
    /// # Errors
    /// As every statement.
    pub async fn lock(&self, tx: &mut Tx, scope: &TenantScope, connection: &str) -> Result<(), StoreError> {
        credentials_of_connection_lock(tx, scope, connection).await.map(drop)
    }

    /// Waits until nobody else plans, keeps or ends anything of the clients of these integrations. To be called before anything else of
    /// `tx` that keeps what is shared, or ends several connections: everybody locks clients in one order, and before credentials.
    ///
    /// # Errors
    /// As every statement.
    pub async fn lock_clients<'i>(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        integrations: impl IntoIterator<Item = &'i str>,
    ) -> Result<(), StoreError> {
        let names: Vec<_> = integrations.into_iter().map(|id| (scope.tenant(), id)).collect();
        integrations_lock(tx, ONE_CREDENTIAL, &names).await.map(drop)
    }

    /// Waits until nobody ends anything of the clients of these integrations, or changes them; who keeps something there besides does
    /// not wait. For what nobody shares; as [`Self::lock_clients`] otherwise.
    ///
    /// # Errors
    /// As every statement.
    pub async fn share_clients<'i>(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        integrations: impl IntoIterator<Item = &'i str>,
    ) -> Result<(), StoreError> {
        let ids: Vec<_> = integrations.into_iter().collect();
        integrations_share(tx, scope, &ids).await
    }

    /// Keeps a token set for a connection, in place of the one of the same kind that it had. What is shared is kept once: whoever
    /// brings it anew brings it for all.
    ///
    /// # Errors
    /// As every statement.
    pub async fn keep(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        connection: &str,
        new: NewCredential<'_>,
    ) -> Result<(), KeyError> {
        let kind = new.kind.as_str();
        let own = credentials_of_connection_lock(tx, scope, connection).await?.into_iter().find(|row| row.kind == kind);
        let existing = match new.shared_as {
            Some(_) => self.shared(tx, scope, &new).await?,
            None => own.clone().filter(|row| row.shared_as.is_none()),
        };
        let id = match &existing {
            Some(row) if self.is_kept_already(tx, row, &new).await? => row.id.clone(),
            _ => self.put(tx, scope, existing.as_ref(), &new).await?,
        };
        connection_use_credential(tx, scope, connection, &id, kind).await?;
        self.pass_on_what_is_lost(tx, scope, &id).await?;
        if let Some(row) = own.filter(|row| row.id != id) {
            self.leave(tx, scope, connection, &row.id).await?;
        }
        Ok(())
    }

    /// Whoever brings a refresh token that is lost already is told so: its late answer may yet come, and nothing else helps but a new
    /// consent.
    async fn pass_on_what_is_lost(&self, tx: &mut Tx, scope: &TenantScope, id: &str) -> Result<(), StoreError> {
        let name = CredentialName { tenant_id: scope.tenant().to_owned(), id: id.to_owned() };
        let Some(row) = credential_load(tx, ONE_CREDENTIAL, &name).await?.filter(is_lost) else { return Ok(()) };
        let (reauth, now) = ("needs_reauth", self.around.now().0);
        connections_of_credential_mark(tx, ONE_CREDENTIAL, scope.tenant(), id, reauth, row.reason.as_deref(), now)
            .await
            .map(drop)
    }

    /// Keeps a token set anew that connections share, for all of them; where none does, there is nothing to keep.
    ///
    /// # Errors
    /// As every statement.
    pub async fn renew_shared(&self, tx: &mut Tx, scope: &TenantScope, new: NewCredential<'_>) -> Result<(), KeyError> {
        if let Some(row) = self.shared(tx, scope, &new).await?
            && !self.is_kept_already(tx, &row, &new).await?
        {
            self.put(tx, scope, Some(&row), &new).await?;
        }
        Ok(())
    }

    async fn shared(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        new: &NewCredential<'_>,
    ) -> Result<Option<CredentialRow>, StoreError> {
        let (Some(integration), Some(shared_as)) = (new.integration, new.shared_as) else { return Ok(None) };
        credential_shared_lock(tx, scope, (integration, new.kind.as_str()), shared_as).await
    }

    /// Whether a working credential is as good as what is brought: the same tokens, or later ones of a provider that rotates. What
    /// rotates here is later than anything that does not say when it ends.
    async fn is_kept_already(
        &self,
        tx: &mut Tx,
        row: &CredentialRow,
        new: &NewCredential<'_>,
    ) -> Result<bool, KeyError> {
        if row.shared_as.is_none() || row.status != "active" {
            return Ok(false);
        }
        let (refresh_place, access_place) =
            (refresh_place(&row.id, row.generation), access_place(&row.id, row.generation));
        let (place, kept, given) = match (row.expires_at, new.expires_at) {
            (Some(kept), Some(end)) if kept == end.0 => (refresh_place, &row.refresh_token, new.refresh_token.as_ref()),
            (Some(kept), end) => return Ok(end.is_none_or(|end| kept > end.0)),
            (None, Some(_)) => return Ok(false),
            (None, None) if row.scopes != to_json_list(&new.scopes) => return Ok(false),
            (None, None) => (access_place, &row.access_token, Some(&new.access_token)),
        };
        let kept = self.open_quietly(tx, &owner(row), place, kept.as_deref()).await?;
        Ok(kept.as_ref().map(Secret::expose) == given.map(Secret::expose))
    }

    /// Takes a credential from a connection, and deletes it if that was the last one.
    pub(super) async fn leave(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        connection: &str,
        id: &str,
    ) -> Result<(), StoreError> {
        if credential_other_uses(tx, scope, id, connection).await? > 0 {
            return connection_leave_credential(tx, scope, connection, id).await;
        }
        credential_delete(tx, scope, id, self.around.now().0).await.map(drop)
    }

    /// Writes a token set, over another or as the first; gives its id.
    pub(super) async fn put(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        existing: Option<&CredentialRow>,
        new: &NewCredential<'_>,
    ) -> Result<String, KeyError> {
        let id = existing.as_ref().map_or_else(|| CredentialId::new(&self.around).to_string(), |row| row.id.clone());
        let generation = existing.map_or(0, |row| row.generation);
        let stored = match existing {
            // What was given to another client, or is refused already, does not go on with this consent.
            Some(row)
                if (row.status == "active" || is_lost(row)) && row.integration_id.as_deref() == new.integration =>
            {
                let place = refresh_place(&id, generation);
                self.open_quietly(tx, &owner(row), place, row.refresh_token.as_deref()).await?
            }
            _ => None,
        };
        if let (Some(row), Some(stored)) = (existing, &stored)
            && new.refresh_token.as_ref().map_or(!is_lost(row), |given| given.expose() == stored.expose())
            && self.is_spent_by_use(row)
        {
            return self.refill(tx, scope, row, new).await;
        }
        let stored = stored.filter(|_| existing.is_none_or(|row| !is_lost(row)));
        let refresh_token = match new.refresh_token.as_ref().map(Secret::duplicate).or(stored) {
            Some(secret) => Some(self.keys.seal(tx, new.owner, refresh_place(&id, generation + 1), &secret).await?),
            None => None,
        };
        let mut tokens = NewTokens {
            generation,
            access_token: self.keys.seal(tx, new.owner, access_place(&id, generation + 1), &new.access_token).await?,
            refresh_token,
            token_type: new.token_type.clone(),
            scopes: to_json_list(&new.scopes),
            obtained_at: new.obtained_at.0,
            expires_at: new.expires_at.map(|at| at.0),
            refresh_expires_at: new.refresh_expires_at.map(|at| at.0),
            due_at: None,
        };
        let row = self.row_of(scope, &id, new, &tokens);
        let integration = integration_of(tx, scope, new.integration).await?;
        tokens.due_at = self.next_due(&row, integration.as_ref());
        let Some(old) = existing else {
            credential_insert(tx, scope, &CredentialRow { due_at: tokens.due_at, ..row }).await?;
            return Ok(id);
        };
        if !credential_replace(tx, scope, &id, new.integration, &tokens).await? {
            return Err(KeyError::Store(StoreError::Conflict(sqlx::Error::RowNotFound)));
        }
        if old.last_error.is_some() {
            connections_of_credential_recover(tx, ONE_CREDENTIAL, scope.tenant(), &id).await?;
        }
        if let Some(reason) = old.reason.as_deref().filter(|_| old.status == "needs_reauth") {
            let name = (scope.tenant(), id.as_str());
            connections_of_credential_heal(tx, ONE_CREDENTIAL, name, reason, self.around.now().0).await?;
        }
        Ok(id)
    }

    /// Whether a refresh token that has left may be of no use any more. Of the others nothing is lost by an answer that is dropped.
    fn is_spent_by_use(&self, row: &CredentialRow) -> bool {
        let provider = self.providers.get(&row.provider);
        provider.is_none_or(|provider| policy(provider.descriptor(), &row.kind).replay != Replay::Safe)
    }

    /// Writes a token set whose refresh token is the stored one. Whatever has become of that goes on: it must not look as if it had
    /// never left, or it would leave a second time, and the answer to the first, or the copy of one that is stored, would be revoked as
    /// if it were another consent's (RL-06, RL-37).
    async fn refill(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        row: &CredentialRow,
        new: &NewCredential<'_>,
    ) -> Result<String, KeyError> {
        let place = access_place(&row.id, row.generation);
        let mut tokens = NewTokens {
            generation: row.generation,
            access_token: self.keys.seal(tx, &owner(row), place, &new.access_token).await?,
            refresh_token: row.refresh_token.clone(),
            token_type: new.token_type.clone(),
            scopes: to_json_list(&new.scopes),
            obtained_at: new.obtained_at.0,
            expires_at: new.expires_at.map(|at| at.0),
            refresh_expires_at: row.refresh_expires_at,
            due_at: row.due_at,
        };
        if row.phase == "idle" && row.doubt == DoubtColumns::default() {
            let (obtained_at, expires_at) = (tokens.obtained_at, tokens.expires_at);
            let after = CredentialRow { obtained_at, expires_at, last_error: None, last_error_at: None, ..row.clone() };
            let integration = integration_of(tx, scope, new.integration).await?;
            tokens.due_at = self.next_due(&after, integration.as_ref());
        }
        if !credential_refill(tx, scope, &row.id, &tokens).await? {
            return Err(KeyError::Store(StoreError::Conflict(sqlx::Error::RowNotFound)));
        }
        if row.last_error.is_some() && !is_lost(row) {
            connections_of_credential_recover(tx, ONE_CREDENTIAL, scope.tenant(), &row.id).await?;
        }
        Ok(row.id.clone())
    }

    /// The bot token of a connection, for our own looking at the bot's updates.
    ///
    /// # Errors
    /// See [`CredentialError`].
    pub async fn bot_token(&self, caller: &Caller, connection: &str) -> Result<Secret, CredentialError> {
        let scope = caller.require(Permission::ConnectionsWrite)?;
        let mut tx = self.store.read().await?;
        let rows = credentials_of_connection(&mut tx, &scope, connection).await?;
        let row =
            rows.into_iter().find(|row| row.kind == CredentialKind::Bot.as_str()).ok_or(CredentialError::NoSuchKind)?;
        let sealed = row.access_token.as_deref().ok_or(CredentialError::NotFound)?;
        Ok(self.keys.open_secret(&mut tx, &owner(&row), access_place(&row.id, row.generation), sealed).await?)
    }

    /// When the sweep should look at a row.
    pub(super) fn next_due(&self, row: &CredentialRow, integration: Option<&IntegrationRow>) -> Option<i64> {
        let provider = self.providers.get(&row.provider)?;
        let jitter = Jitter(u32::from_be_bytes(self.around.random()));
        look_at(row, integration, &policy(provider.descriptor(), &row.kind), self.around.now(), jitter)
    }

    pub(super) fn row_of(
        &self,
        scope: &TenantScope,
        id: &str,
        new: &NewCredential<'_>,
        tokens: &NewTokens,
    ) -> CredentialRow {
        let (owner_kind, owner_id) = new.owner.to_row();
        CredentialRow {
            tenant_id: scope.tenant().to_owned(),
            id: id.to_owned(),
            integration_id: new.integration.map(str::to_owned),
            provider: new.provider.to_owned(),
            kind: new.kind.as_str().to_owned(),
            owner_kind: owner_kind.to_owned(),
            owner_id,
            shared_as: new.shared_as.map(str::to_owned),
            access_token: Some(tokens.access_token.clone()),
            refresh_token: tokens.refresh_token.clone(),
            token_type: tokens.token_type.clone(),
            scopes: tokens.scopes.clone(),
            obtained_at: tokens.obtained_at,
            expires_at: tokens.expires_at,
            refresh_expires_at: tokens.refresh_expires_at,
            generation: tokens.generation + 1,
            fence: 0,
            consents: 1,
            stored_fence: None,
            lease_owner: None,
            lease_until: None,
            phase: "idle".to_owned(),
            sent_at: None,
            doubt: DoubtColumns::default(),
            due_at: None,
            slot_at: None,
            warned_for: None,
            status: "active".to_owned(),
            reason: None,
            attempts: 0,
            next_attempt_at: None,
            unrecognised_count: 0,
            unrecognised_since: 0,
            last_error: None,
            last_error_at: None,
            last_refreshed_at: None,
            last_used_at: tokens.obtained_at,
            created_at: tokens.obtained_at,
        }
    }
}

/// Its refresh token was sent, and the answer is lost: nobody has refused it, and nobody may send it again (RL-06).
fn is_lost(row: &CredentialRow) -> bool {
    row.status == "needs_reauth" && row.reason.as_deref() == Some(Code::ROTATION_RESPONSE_LOST.as_str())
}

#[cfg(test)]
mod tests;
