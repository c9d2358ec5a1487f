//! Exchanging a token that never ends for ones that rotate, once the app that it belongs to rotates (fact sheet B.4).
//!
//! Slack does it once, and the old token lives until the new ones are first refreshed: an answer that is lost loses no connection, but
//! that token then never rotates. One that has come is stored, or ended at Slack, whoever has hung up; while the database does not take
//! it, for a minute, and not beyond the process.

use std::time::Duration;

use super::driver::DATABASE_LIMIT;
use super::flights::{Boarding, Whose};
use super::read::{COME_AGAIN, PATIENCE, wait_for_landing};
use super::refresh::{Code, Verdict};
use super::row::{access_place, integration_of, owner};
use super::store::NewCredential;
use super::{CredentialError, Credentials, ONE_CREDENTIAL};
use crate::audit::{Action, Event};
use crate::caller::{Caller, TenantScope};
use crate::clock::{Millis, deadline};
use crate::keys::{KeyError, Owner};
use crate::providers::{CredentialKind, Failure, TokenSet};
use crate::secret::Secret;
use crate::store::credentials::{CredentialName, CredentialRow, credential_load};
use crate::store::integrations::{IntegrationRow, integrations_lock};
use crate::store::{StoreError, from_json_list};

/// How often it is tried to store what has come, and the pause between.
const TRIES: (u32, Duration) = (60, Duration::from_secs(1));

/// An exchange that nobody can call off.
struct Exchange {
    room: Credentials,
    caller: Caller,
    scope: TenantScope,
    row: CredentialRow,
    integration: IntegrationRow,
    kind: CredentialKind,
    token: Secret,
}

impl Credentials {
    /// Exchanges a token that never ends. False where there is nothing to exchange, or its app does not rotate.
    pub(super) async fn exchange_lasting(
        &self,
        caller: &Caller,
        scope: &TenantScope,
        row: &CredentialRow,
    ) -> Result<bool, CredentialError> {
        let known = self.providers.get(&row.provider).filter(|known| known.descriptor().lasting_exchange.is_some());
        let kind = CredentialKind::parse(&row.kind).filter(|_| known.is_some() && row.expires_at.is_none());
        let mut tx = self.store.read().await?;
        let integration = integration_of(&mut tx, scope, row.integration_id.as_deref()).await?;
        let (Some(kind), Some(integration), Some(sealed)) = (kind, integration, &row.access_token) else {
            return Ok(false);
        };
        let place = access_place(&row.id, row.generation);
        let token = self.keys.open_secret(&mut tx, &owner(row), place, sealed).await?;
        drop(tx);
        let name = CredentialName { tenant_id: row.tenant_id.clone(), id: row.id.clone() };
        let in_progress = CredentialError::InProgress { retry_after: COME_AGAIN };
        let seat = match self.flights.board(&name, Whose::AReaders) {
            Boarding::Leader(seat, _) => seat,
            Boarding::Passenger(mut landing, _) => {
                drop(deadline(PATIENCE, wait_for_landing(&mut landing)).await);
                let mut tx = self.store.read().await?;
                let after = credential_load(&mut tx, ONE_CREDENTIAL, &name).await?.ok_or(CredentialError::NotFound)?;
                return if after.generation > row.generation { Ok(true) } else { Err(in_progress) };
            }
        };
        let (room, caller, scope, row) = (self.clone(), caller.clone(), scope.clone(), row.clone());
        let exchange = Exchange { room, caller, scope, row, integration, kind, token };
        let flight = tokio::spawn(async move {
            let done = exchange.run().await;
            seat.land(Verdict::RefreshInProgress { retry_after: COME_AGAIN });
            done
        });
        match deadline(PATIENCE, flight).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) | Err(_) => Err(in_progress),
        }
    }
}

impl Exchange {
    fn name(&self) -> CredentialName {
        CredentialName { tenant_id: self.row.tenant_id.clone(), id: self.row.id.clone() }
    }

    async fn run(self) -> Result<bool, CredentialError> {
        match self.room.exchange_at_provider(self.kind, &self.integration, &self.token).await {
            Ok(set) => self.keep(set).await,
            // Its app does not rotate, or somebody has done it: the old token is as good as it was.
            Err(Failure::Unrecognised { .. } | Failure::Reauth { .. }) => Ok(false),
            Err(failure) => {
                let code = failure.code().as_str().to_owned();
                Err(CredentialError::Upstream { code, retry_after: COME_AGAIN })
            }
        }
    }

    /// Until it is stored; what has nothing to be stored to any more is ended.
    async fn keep(self, set: TokenSet) -> Result<bool, CredentialError> {
        let (owner, received_at) = (owner(&self.row), self.room.around.now());
        let new = self.brought(&owner, set, received_at);
        let (mut held, mut may_be_stored) = (None, false);
        for _ in 0..TRIES.0 {
            match self.room.store.in_time(DATABASE_LIMIT, self.put(&new)).await {
                Ok(true) => return Ok(true),
                // Or somebody has refreshed them since.
                Ok(false) if may_be_stored => break,
                Ok(false) | Err(CredentialError::Keys(KeyError::Destroyed)) => {
                    let late = (new.access_token.duplicate(), new.refresh_token.as_ref().map(Secret::duplicate));
                    self.room.end_late(&self.name(), self.integration.revision, late).await;
                    return Err(CredentialError::InProgress { retry_after: COME_AGAIN });
                }
                Err(error) => {
                    may_be_stored |= matches!(&error, CredentialError::Store(StoreError::CommitUnknown(_)));
                    if held.is_none() {
                        held = Some(self.room.held.one_more());
                        tracing::error!(credential = %self.row.id, error = %error, "exchanged tokens could not be stored yet; they are held in memory and stored again");
                    }
                }
            }
            if self.room.shutdown.has_begun() {
                break;
            }
            self.room.around.clock.sleep(TRIES.1).await;
        }
        tracing::error!(credential = %self.row.id, "whether the exchanged tokens are stored is not known; the old one lives on");
        Err(CredentialError::Upstream { code: Code::STORE_UNAVAILABLE.to_string(), retry_after: COME_AGAIN })
    }

    fn brought<'o>(&'o self, owner: &'o Owner, set: TokenSet, received_at: Millis) -> NewCredential<'o> {
        let row = &self.row;
        NewCredential {
            owner,
            shared_as: row.shared_as.as_deref(),
            integration: row.integration_id.as_deref(),
            provider: &row.provider,
            kind: self.kind,
            access_token: set.access_token,
            refresh_token: set.refresh_token,
            token_type: set.token_type,
            scopes: set.scopes.unwrap_or_else(|| from_json_list(&row.scopes)),
            obtained_at: received_at,
            expires_at: set.expires_in.map(|life| received_at.after(life)),
            refresh_expires_at: set.refresh_expires_in.map(|life| received_at.after(life)),
        }
    }

    /// One try; false when the row has moved on without these tokens.
    async fn put(&self, new: &NewCredential<'_>) -> Result<bool, CredentialError> {
        let (room, row, place) = (&self.room, &self.row, (self.scope.tenant(), self.integration.id.as_str()));
        let mut tx = room.store.begin().await?;
        integrations_lock(&mut tx, ONE_CREDENTIAL, &[place]).await?;
        let integration = integration_of(&mut tx, &self.scope, Some(place.1)).await?;
        // Its client has changed, so that these are another's.
        if integration.is_none_or(|one| one.revision != self.integration.revision) {
            return Ok(false);
        }
        match room.put(&mut tx, &self.scope, Some(row), new).await {
            Ok(_) => {}
            Err(KeyError::Store(StoreError::Conflict(_))) => return self.has_put(new).await,
            Err(error) => return Err(error.into()),
        }
        let event = Event::done(Action::CredentialRefreshed, "credential", &row.id);
        room.audit.record_and_commit(tx, &self.caller, &event.because(Some("exchanged"))).await?;
        Ok(true)
    }

    /// Whether a try whose end nobody heard of has stored them.
    async fn has_put(&self, new: &NewCredential<'_>) -> Result<bool, CredentialError> {
        let mut tx = self.room.store.read().await?;
        let Some(row) = credential_load(&mut tx, ONE_CREDENTIAL, &self.name()).await? else { return Ok(false) };
        let place = access_place(&row.id, row.generation);
        let stored = self.room.open_quietly(&mut tx, &owner(&row), place, row.access_token.as_deref()).await?;
        Ok(stored.is_some_and(|stored| stored.expose() == new.access_token.expose()))
    }
}
