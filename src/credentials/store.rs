//! Keeping credentials: a new consent, a repeated one, an end.

use std::collections::BTreeSet;
use std::time::Duration;

use super::read::{COME_AGAIN, PATIENCE, wait_for_landing};
use super::refresh::{Code, Jitter, Revocation as Ends, Verdict, Wish};
use super::row::{access_place, integration_of, look_at, owner, policy, refresh_place};
use super::{CredentialError, Credentials, ONE_CREDENTIAL};
use crate::audit::{Action, Event};
use crate::caller::{Caller, Permission, TenantScope};
use crate::clock::{Millis, Stopwatch, deadline};
use crate::ids::CredentialId;
use crate::keys::{KeyError, Owner};
use crate::providers::{CredentialKind, Failure, RevokeTokens};
use crate::secret::Secret;
use crate::store::connections::{
    ConnectionRow, connection_by_id, connection_use_credential, connections_of_credential_mark,
    credential_consent_uses, credential_other_uses,
};
use crate::store::credentials::{
    CredentialName, CredentialRow, DoubtColumns, NewTokens, credential_delete, credential_insert, credential_load,
    credential_replace, credentials_of_connection, credentials_of_connection_lock,
};
use crate::store::integrations::{IntegrationRow, integrations_lock};
use crate::store::notices::credential_lose;
use crate::store::{StoreError, Tx, to_json_list};

/// Revoking at a provider may take this long before a person is told that it is unconfirmed.
const REVOKE_LIMIT: Duration = Duration::from_secs(10);

/// A token set to be kept, from a consent or an import.
#[derive(Debug)]
pub struct NewCredential<'a> {
    /// `con_…`, which will use it.
    pub connection: &'a str,
    /// Whose data key seals it.
    pub owner: &'a Owner,
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

/// Tokens taken out of the vault for one last use: ending them at the provider.
#[derive(Debug)]
pub struct Revocation {
    credential: CredentialRow,
    integration: Option<IntegrationRow>,
    access: Option<Secret>,
    refresh: Option<Secret>,
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

    /// Keeps a token set for a connection, in place of the one of the same kind that it had.
    ///
    /// # Errors
    /// As every statement.
    pub async fn keep(&self, tx: &mut Tx, scope: &TenantScope, new: NewCredential<'_>) -> Result<(), KeyError> {
        let existing = credentials_of_connection_lock(tx, scope, new.connection)
            .await?
            .into_iter()
            .find(|row| row.kind == new.kind.as_str());
        let id = existing.as_ref().map_or_else(|| CredentialId::new(&self.around).to_string(), |row| row.id.clone());
        let generation = existing.as_ref().map_or(0, |row| row.generation);
        let refresh = match (&new.refresh_token, &existing) {
            (Some(token), _) => Some(token.duplicate()),
            // What was given to another client, or is refused already, does not go on with this consent.
            (None, Some(row)) if row.status == "active" && row.integration_id.as_deref() == new.integration => {
                self.kept_refresh_token(tx, row).await?
            }
            (None, Some(_)) => None,
            (None, None) => None,
        };
        let refresh_token = match refresh {
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
        let row = self.row_of(scope, &id, &new, &tokens);
        let integration = integration_of(tx, scope, new.integration).await?;
        tokens.due_at = self.next_due(&row, integration.as_ref());
        match existing {
            Some(_) => {
                if !credential_replace(tx, scope, &id, new.integration, &tokens).await? {
                    return Err(KeyError::Store(StoreError::Conflict(sqlx::Error::RowNotFound)));
                }
            }
            None => credential_insert(tx, scope, &CredentialRow { due_at: tokens.due_at, ..row }).await?,
        }
        connection_use_credential(tx, scope, new.connection, &id, new.kind.as_str()).await?;
        Ok(())
    }

    /// Refreshes every refreshable credential of a connection now.
    ///
    /// # Errors
    /// See [`CredentialError`].
    pub async fn refresh_now(&self, caller: &Caller, connection: &str) -> Result<(), CredentialError> {
        let scope = caller.require(Permission::ConnectionsWrite)?;
        let mut tx = self.store.read().await?;
        let rows = credentials_of_connection(&mut tx, &scope, connection).await?;
        drop(tx);
        if !rows.iter().any(|row| row.refresh_token.is_some()) {
            return Err(CredentialError::NotRefreshable);
        }
        for row in rows.iter().filter(|row| row.refresh_token.is_some()) {
            self.refresh_one(&scope, row).await?;
        }
        Ok(())
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

    /// Waits until nobody else ends or plans anything of the clients that these connections use. To be called first where several end in one
    /// transaction: everybody locks clients in one order, and before credentials.
    ///
    /// # Errors
    /// As every statement.
    pub async fn lock_clients(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        connections: &[ConnectionRow],
    ) -> Result<(), StoreError> {
        let ids: BTreeSet<&str> = connections.iter().filter_map(|row| row.integration_id.as_deref()).collect();
        let names: Vec<_> = ids.into_iter().map(|id| (scope.tenant(), id)).collect();
        integrations_lock(tx, ONE_CREDENTIAL, &names).await.map(drop)
    }

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
            if self.consent_is_shared(tx, &row).await? {
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
            let integration = integration_of(tx, scope, row.integration_id.as_deref()).await?;
            credential_delete(tx, scope, &row.id, self.around.now().0).await?;
            revocations.push(Revocation { credential: row, integration, access, refresh });
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
                credential_delete(tx, scope, &row.id, self.around.now().0).await?;
            }
        }
        Ok(())
    }

    /// Gives up what the provider of a connection says has ended, of one kind or of every kind: tokens that are no newer than
    /// `happened` are destroyed, and every connection that uses them needs its user. Gives the ids of the credentials.
    ///
    /// # Errors
    /// As every statement.
    pub async fn lose(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        connection: &str,
        kind: Option<CredentialKind>,
        (reason, happened): (&str, Millis),
    ) -> Result<Vec<String>, StoreError> {
        let now = self.around.now().0;
        let mut lost = Vec::new();
        for row in credentials_of_connection_lock(tx, scope, connection).await? {
            let is_meant = kind.is_none_or(|kind| row.kind == kind.as_str());
            if is_meant && credential_lose(tx, scope, &row.id, (reason, happened.0), now).await? {
                let (tenant, reauth) = (scope.tenant(), "needs_reauth");
                connections_of_credential_mark(tx, ONE_CREDENTIAL, tenant, &row.id, reauth, Some(reason), now).await?;
                lost.push(row.id);
            }
        }
        Ok(lost)
    }

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
        Ok(credential_other_uses(tx, scope, &row.id, connection).await? > 0 || self.consent_is_shared(tx, &row).await?)
    }

    /// Whether revoking a credential, also a deleted one, would take away what another connection lives on.
    pub(super) async fn consent_is_shared(&self, tx: &mut Tx, row: &CredentialRow) -> Result<bool, StoreError> {
        let Some(provider) = self.providers.get(&row.provider) else { return Ok(false) };
        // Of a provider that rotates, too, a token that does not is the only one that the account has for the client (B.4).
        let whole = match policy(provider.descriptor(), &row.kind).revocation {
            Ends::Impossible => false,
            Ends::WholeConsent => true,
            Ends::OneTokenSet => row.refresh_token.is_none(),
        };
        Ok(whole && credential_consent_uses(tx, ONE_CREDENTIAL, &row.tenant_id, &row.id).await? > 0)
    }

    /// Ends tokens at their provider; true when there were some and the provider confirmed every one. A provider without revocation
    /// confirms nothing.
    pub async fn revoke(&self, caller: &Caller, revocations: Vec<Revocation>) -> bool {
        let mut all_confirmed = !revocations.is_empty();
        for revocation in revocations {
            all_confirmed &= self.revoke_one(caller, &revocation).await;
        }
        all_confirmed
    }

    async fn revoke_one(&self, caller: &Caller, revocation: &Revocation) -> bool {
        let row = &revocation.credential;
        // A secret that somebody handed over is theirs to take back; the provider's endpoint is for what it has granted.
        let kind = CredentialKind::parse(&row.kind).filter(|kind| kind.is_granted());
        let Some(kind) = kind else { return false };
        let Some(provider) = self.providers.get(&row.provider) else { return false };
        if !provider.descriptor().revocable() {
            return false;
        }
        // The integration says another place now than the one that has granted this (OA-04).
        let has_moved = row.status == "misconfigured" && provider.descriptor().has_places();
        let tokens = RevokeTokens { access: revocation.access.as_ref(), refresh: revocation.refresh.as_ref(), kind };
        let revoking = self.revoke_at_provider(&row.provider, revocation.integration.as_ref(), &tokens);
        let answer = if has_moved { Ok(Err(Failure::NotSent)) } else { deadline(REVOKE_LIMIT, revoking).await };
        let user = (row.owner_kind == "user").then_some(row.owner_id.as_str());
        let event = Event::done(Action::CredentialRevoked, "credential", &row.id).of_user(user);
        let code;
        let event = match &answer {
            Ok(Ok(())) => event,
            Ok(Err(failure)) => {
                code = failure.code();
                event.failed(code.as_str())
            }
            Err(_) => event.failed("timeout"),
        };
        if let Err(error) = self.audit.note(caller, &event).await {
            tracing::error!(credential = %row.id, error = %error, "the outcome of a revocation is not in the book");
        }
        matches!(answer, Ok(Ok(())))
    }

    async fn kept_refresh_token(&self, tx: &mut Tx, row: &CredentialRow) -> Result<Option<Secret>, KeyError> {
        match &row.refresh_token {
            Some(sealed) => {
                Ok(Some(self.keys.open_secret(tx, &owner(row), refresh_place(&row.id, row.generation), sealed).await?))
            }
            None => Ok(None),
        }
    }

    async fn open_quietly(
        &self,
        tx: &mut Tx,
        owner: &Owner,
        place: crate::keys::Place<'_>,
        sealed: Option<&[u8]>,
    ) -> Result<Option<Secret>, KeyError> {
        let Some(sealed) = sealed else { return Ok(None) };
        match self.keys.open_secret(tx, owner, place, sealed).await {
            Ok(secret) => Ok(Some(secret)),
            Err(KeyError::Store(error)) => Err(KeyError::Store(error)),
            Err(_) => Ok(None),
        }
    }

    /// When the sweep should look at a row.
    pub(super) fn next_due(&self, row: &CredentialRow, integration: Option<&IntegrationRow>) -> Option<i64> {
        let provider = self.providers.get(&row.provider)?;
        let jitter = Jitter(u32::from_be_bytes(self.around.random()));
        look_at(row, integration, &policy(provider.descriptor(), &row.kind), self.around.now(), jitter)
    }

    fn row_of(&self, scope: &TenantScope, id: &str, new: &NewCredential<'_>, tokens: &NewTokens) -> CredentialRow {
        let (owner_kind, owner_id) = new.owner.to_row();
        CredentialRow {
            tenant_id: scope.tenant().to_owned(),
            id: id.to_owned(),
            integration_id: new.integration.map(str::to_owned),
            provider: new.provider.to_owned(),
            kind: new.kind.as_str().to_owned(),
            owner_kind: owner_kind.to_owned(),
            owner_id,
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
