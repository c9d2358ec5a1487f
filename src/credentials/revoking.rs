//! Ending tokens at their provider (OA-17).
//!
//! What the provider does not confirm is tried again for a day: it stays sealed in `revocations`, where nothing but this reads it.
//! Whoever is erased in between takes the key along. So it is with what comes too late to be stored.

use std::time::Duration;

use super::driver::DATABASE_LIMIT;
use super::refresh::Code;
use super::row::{integration_of, owner};
use super::{Credentials, ONE_CREDENTIAL};
use crate::audit::{Action, Event};
use crate::caller::{Caller, SystemScope, TenantScope};
use crate::clock::deadline;
use crate::ids::{RevocationId, TenantId};
use crate::keys::{KeyError, Place};
use crate::providers::{CredentialKind, Failure, RevokeTokens};
use crate::secret::Secret;
use crate::store::credentials::{CredentialName, CredentialRow, credential_load_even_deleted, credential_shared_lock};
use crate::store::integrations::{IntegrationRow, integrations_lock};
use crate::store::revocations::{
    RevocationRow, credential_note_revocation, revocation_delete, revocation_insert, revocation_postpone,
    revocations_claim,
};
use crate::store::{StoreError, Tx};

const UNFINISHED: SystemScope =
    SystemScope::because("what is still to be ended at a provider belongs to nobody who could ask for it");
/// Revoking at a provider may take this long before a person is told that it is unconfirmed.
const REVOKE_LIMIT: Duration = Duration::from_secs(10);
/// Whoever revokes at once has this time before it is taken up again.
const TAKEN_UP_AFTER: Duration = Duration::from_secs(60);
/// So long it is tried again to end a token at its provider.
const TRIED_FOR: Duration = Duration::from_hours(24);
/// Revocations that are taken up in one round.
const BATCH: i64 = 20;

fn revocation_place<'a>(revocation: &'a str, field: &'static str) -> Place<'a> {
    Place { record_kind: "revocation", record_id: revocation, field, generation: 0 }
}

/// Tokens taken out of the vault for one last use: ending them at the provider.
#[derive(Debug)]
pub struct Revocation {
    /// `rvk_…`.
    pub(super) id: String,
    pub(super) credential: CredentialRow,
    pub(super) integration: Option<IntegrationRow>,
    /// Of the integration whose client was granted these; 0 for one of before.
    pub(super) revision: i64,
    pub(super) access: Option<Secret>,
    pub(super) refresh: Option<Secret>,
}

/// Why a provider has not confirmed that it has ended something, and how long it wants to be left in peace.
struct Unconfirmed {
    code: String,
    after: Option<Duration>,
}

impl Unconfirmed {
    fn because(code: &str) -> Self {
        Self { code: code.to_owned(), after: None }
    }
}

impl From<Failure> for Unconfirmed {
    fn from(failure: Failure) -> Self {
        let after = if let Failure::RateLimited { after } = failure { after } else { None };
        Self { after, ..Self::because(failure.code().as_str()) }
    }
}

impl Credentials {
    /// Keeps what is about to be revoked for a day, in case the provider does not confirm it. Seals by the key of whose it was.
    ///
    /// # Errors
    /// As every statement.
    pub async fn remember(&self, tx: &mut Tx, scope: &TenantScope, revocations: &[Revocation]) -> Result<(), KeyError> {
        let now = self.around.now();
        let ours = revocations.iter().filter(|one| self.can_end(one).is_some() && !self.is_elsewhere(one));
        for Revocation { id, credential, revision, access, refresh, .. } in ours {
            let mut sealed = [None, None];
            for (sealed, (field, token)) in
                sealed.iter_mut().zip([("access_token", access), ("refresh_token", refresh)])
            {
                if let Some(token) = token {
                    let place = revocation_place(id, field);
                    *sealed = Some(self.keys.seal(tx, &owner(credential), place, token).await?);
                }
            }
            let [access_token, refresh_token] = sealed;
            let row = RevocationRow {
                tenant_id: credential.tenant_id.clone(),
                id: id.clone(),
                credential_id: credential.id.clone(),
                revision: *revision,
                access_token,
                refresh_token,
                attempts: 0,
                next_attempt_at: now.after(TAKEN_UP_AFTER).0,
                expires_at: now.after(TRIED_FOR).0,
            };
            revocation_insert(tx, scope, &row).await?;
        }
        Ok(())
    }

    /// Ends tokens at their provider; true when there were some and the provider confirmed every one. A provider without revocation
    /// confirms nothing.
    pub async fn revoke(&self, caller: &Caller, revocations: Vec<Revocation>) -> bool {
        let mut all_confirmed = !revocations.is_empty();
        for revocation in revocations {
            let outcome = self.revoke_one(&revocation).await;
            all_confirmed &= matches!(outcome, Some(Ok(())));
            let Some(outcome) = outcome else { continue };
            match &outcome {
                Ok(()) => {
                    self.forget(&revocation).await;
                }
                Err(unconfirmed) => self.postpone(&revocation, unconfirmed).await,
            }
            self.tell(caller, &revocation.credential, outcome).await;
        }
        all_confirmed
    }

    /// Ends tokens at their provider that came when their credential had gone on without them, or was deleted (RL-37): now or within a
    /// day, unless another connection lives on what that would end. What cannot be noted is not done: a living connection would
    /// pay for it; false then.
    pub(super) async fn end_late(&self, name: &CredentialName, revision: i64, late: (Secret, Option<Secret>)) -> bool {
        let tenant = TenantId::stored(name.tenant_id.clone());
        match self.store.in_time(DATABASE_LIMIT, self.remember_late(name, revision, late)).await {
            Ok(late) => {
                self.revoke(&Caller::system("refresh", tenant), late.into_iter().collect()).await;
                true
            }
            Err(error) => {
                tracing::error!(credential = %name.id, error = %error, "tokens that came too late are not ended");
                false
            }
        }
    }

    async fn remember_late(
        &self,
        name: &CredentialName,
        revision: i64,
        (access, refresh): (Secret, Option<Secret>),
    ) -> Result<Option<Revocation>, KeyError> {
        let scope = UNFINISHED.within(TenantId::stored(name.tenant_id.clone()));
        let mut tx = self.store.begin().await?;
        let Some((row, integration)) = self.as_it_stands(&mut tx, &scope, name).await? else { return Ok(None) };
        // A deleted row has no refresh token any more; whether these have one says what their end takes along.
        let credential = CredentialRow { refresh_token: refresh.as_ref().map(|_| Vec::new()), ..row };
        if self.consent_is_shared(&mut tx, &credential, revision).await? {
            return Ok(None);
        }
        let id = RevocationId::new(&self.around).to_string();
        let late = [Revocation { id, credential, integration, revision, access: Some(access), refresh }];
        match self.remember(&mut tx, &scope, &late).await {
            Ok(()) => tx.commit().await?,
            // Its user is erased: now or never.
            Err(KeyError::Destroyed) => tx.roll_back().await?,
            Err(error) => return Err(error),
        }
        Ok(late.into_iter().next())
    }

    /// A credential, which may be deleted, and its integration as they are at one moment.
    async fn as_it_stands(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        name: &CredentialName,
    ) -> Result<Option<(CredentialRow, Option<IntegrationRow>)>, StoreError> {
        let Some(row) = credential_load_even_deleted(tx, ONE_CREDENTIAL, name).await? else { return Ok(None) };
        let Some(integration) = row.integration_id.as_deref() else { return Ok(Some((row, None))) };
        integrations_lock(tx, ONE_CREDENTIAL, &[(scope.tenant(), integration)]).await?;
        let integration = integration_of(tx, scope, Some(integration)).await?;
        Ok(Some((row, integration)))
    }

    /// Takes up again what providers have not confirmed; gives how many have now.
    ///
    /// # Errors
    /// As every statement.
    pub async fn revocations_retry(&self) -> Result<u64, KeyError> {
        let now = self.around.now();
        let mut tx = self.store.begin_in_turn(UNFINISHED).await?;
        let rows = revocations_claim(&mut tx, UNFINISHED, now.0, BATCH).await?;
        tx.commit().await?;
        let mut confirmed = 0;
        for row in rows {
            let Some(revocation) = self.taken_up(&row).await? else { continue };
            let outcome = self.revoke_one(&revocation).await.unwrap_or(Err(Unconfirmed::because("not_revocable")));
            if let Err(unconfirmed) = &outcome {
                self.postpone(&revocation, unconfirmed).await;
            }
            let is_over = outcome.is_ok() || now.0 >= row.expires_at || self.is_elsewhere(&revocation);
            confirmed += u64::from(outcome.is_ok());
            if is_over && self.forget(&revocation).await {
                let caller = Caller::system("revocations", TenantId::stored(row.tenant_id));
                self.tell(&caller, &revocation.credential, outcome).await;
            }
        }
        Ok(confirmed)
    }

    /// What is to be taken up again; none when there is nothing left to end, or when that would end what somebody lives on who has
    /// connected again meanwhile.
    async fn taken_up(&self, row: &RevocationRow) -> Result<Option<Revocation>, KeyError> {
        let name = CredentialName { tenant_id: row.tenant_id.clone(), id: row.credential_id.clone() };
        let scope = UNFINISHED.within(TenantId::stored(row.tenant_id.clone()));
        let mut tx = self.store.begin().await?;
        let Some((credential, integration)) = self.as_it_stands(&mut tx, &scope, &name).await? else { return Ok(None) };
        let credential = CredentialRow { refresh_token: row.refresh_token.clone(), ..credential };
        let owner = owner(&credential);
        let place = |field: &'static str| revocation_place(&row.id, field);
        let access = self.open_quietly(&mut tx, &owner, place("access_token"), row.access_token.as_deref()).await?;
        let refresh = self.open_quietly(&mut tx, &owner, place("refresh_token"), row.refresh_token.as_deref()).await?;
        let is_used_again = self.consent_is_shared(&mut tx, &credential, row.revision).await?
            || self.is_shared_anew(&mut tx, &scope, &credential).await?;
        if is_used_again || (access.is_none() && refresh.is_none()) {
            revocation_delete(&mut tx, UNFINISHED, &row.tenant_id, &row.id).await?;
            tx.commit().await?;
            return Ok(None);
        }
        tx.roll_back().await?;
        let (id, revision) = (row.id.clone(), row.revision);
        Ok(Some(Revocation { id, credential, integration, revision, access, refresh }))
    }

    async fn is_shared_anew(&self, tx: &mut Tx, scope: &TenantScope, row: &CredentialRow) -> Result<bool, StoreError> {
        let (Some(integration), Some(shared_as)) = (&row.integration_id, &row.shared_as) else { return Ok(false) };
        let shared = credential_shared_lock(tx, scope, (integration, &row.kind), shared_as).await?;
        Ok(shared.is_some_and(|living| living.id != row.id))
    }

    /// Whether its provider has a way to end it. A secret that somebody handed over is theirs to take back; the provider's endpoint is for
    /// what it has granted.
    fn can_end(&self, revocation: &Revocation) -> Option<CredentialKind> {
        let row = &revocation.credential;
        let is_revocable = self.providers.get(&row.provider).is_some_and(|known| known.descriptor().revocable());
        CredentialKind::parse(&row.kind).filter(|kind| is_revocable && kind.is_granted())
    }

    /// Whether the integration says another place now than the one that has granted this, which must not see it (OA-04).
    fn is_elsewhere(&self, revocation: &Revocation) -> bool {
        let known = self.providers.get(&revocation.credential.provider);
        let has_places = known.is_none_or(|known| known.descriptor().has_places());
        has_places && revocation.integration.as_ref().map(|one| one.revision) != Some(revocation.revision)
    }

    /// The provider's answer, or why there is none; nothing where there is nobody to ask.
    async fn revoke_one(&self, revocation: &Revocation) -> Option<Result<(), Unconfirmed>> {
        let (row, kind) = (&revocation.credential, self.can_end(revocation)?);
        if self.is_elsewhere(revocation) {
            return Some(Err(Failure::NotSent.into()));
        }
        if let Err(error) = self.note_revocation(row).await {
            tracing::warn!(credential = %row.id, error = %error, "a revocation waits until it can be noted");
            return Some(Err(Unconfirmed::because(Code::STORE_UNAVAILABLE.as_str())));
        }
        let tokens = RevokeTokens { access: revocation.access.as_ref(), refresh: revocation.refresh.as_ref(), kind };
        let revoking = self.revoke_at_provider(&row.provider, revocation.integration.as_ref(), &tokens);
        Some(match deadline(REVOKE_LIMIT, revoking).await {
            Ok(answer) => answer.map_err(Unconfirmed::from),
            Err(_) => Err(Unconfirmed::because("timeout")),
        })
    }

    /// Leaves the provider in peace as long as it wants (RFC 7009 section 2.2.1).
    async fn postpone(&self, Revocation { id, credential, .. }: &Revocation, unconfirmed: &Unconfirmed) {
        let Some(after) = unconfirmed.after else { return };
        let until = self.around.now().after(after).0;
        let postponed = async {
            let mut tx = self.store.begin().await?;
            revocation_postpone(&mut tx, UNFINISHED, &credential.tenant_id, id, until).await?;
            tx.commit().await
        };
        if let Err(error) = postponed.await {
            tracing::warn!(credential = %credential.id, error = %error, "a provider is asked again sooner than it wants");
        }
    }

    /// Before it is asked for, so that its echo cannot come first.
    async fn note_revocation(&self, row: &CredentialRow) -> Result<(), StoreError> {
        let name = CredentialName { tenant_id: row.tenant_id.clone(), id: row.id.clone() };
        let mut tx = self.store.begin().await?;
        credential_note_revocation(&mut tx, UNFINISHED, &name, self.around.now().0).await?;
        tx.commit().await
    }

    /// False when somebody else was quicker, or when it will be revoked, and told of, once more.
    async fn forget(&self, revocation: &Revocation) -> bool {
        let row = &revocation.credential;
        let done = async {
            let mut tx = self.store.begin().await?;
            let is_first = revocation_delete(&mut tx, UNFINISHED, &row.tenant_id, &revocation.id).await?;
            tx.commit().await?;
            Ok::<_, StoreError>(is_first)
        };
        done.await.unwrap_or_else(|error| {
            tracing::warn!(credential = %row.id, error = %error, "what is revoked will be revoked once more");
            matches!(error, StoreError::CommitUnknown(_))
        })
    }

    async fn tell(&self, caller: &Caller, row: &CredentialRow, outcome: Result<(), Unconfirmed>) {
        let user = (row.owner_kind == "user").then_some(row.owner_id.as_str());
        let event = Event::done(Action::CredentialRevoked, "credential", &row.id).of_user(user);
        let event = match &outcome {
            Ok(()) => event,
            Err(unconfirmed) => event.failed(&unconfirmed.code),
        };
        if let Err(error) = self.audit.note(caller, &event).await {
            tracing::error!(credential = %row.id, error = %error, "the outcome of a revocation is not in the book");
        }
    }
}
