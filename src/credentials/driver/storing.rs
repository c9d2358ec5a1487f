//! The provider has said yes: its answer becomes durable before anyone has the new token, in the database or, when that
//! is away for long, in the spool (RL-04, RL-05).

use std::error::Error;

use super::{DATABASE_LIMIT, Driver, Fetched, Loaded, Tokens, trouble};
use crate::audit::{Action as Done, Event as Happening};
use crate::crash::crash_point;
use crate::credentials::ONE_CREDENTIAL;
use crate::credentials::provider_call::contradicts;
use crate::credentials::refresh::{Claimed, Code, Event};
use crate::credentials::row::{access_place, refresh_place};
use crate::credentials::spool::SpoolError;
use crate::keys::KeyError;
use crate::store::connections::{connections_of_credential_heal, connections_of_credential_mark, credential_account};
use crate::store::credentials::{CredentialRow, DoubtColumns, NewTokens};
use crate::store::integrations::{IntegrationRow, integration_resume};
use crate::store::refresh_rows::{AnswerTo, credential_store};
use crate::store::telling::connections_of_credential_recover;

impl Driver {
    pub(super) async fn on_store(
        &mut self,
        tokens: &Fetched,
        claimed: Claimed,
        generation: i64,
        only_fence: bool,
    ) -> Event<Tokens> {
        let store = self.room.store.clone();
        match store.in_time(DATABASE_LIMIT, self.store(tokens, claimed, generation, only_fence)).await {
            Ok(true) => {
                self.let_go().await;
                self.has_stored = true;
                Event::Stored
            }
            Ok(false) => match self.load().await {
                Ok(Some(view)) => Event::StoreLost(view),
                Ok(None) => Event::Gone,
                Err(error) => {
                    self.hold(&error, tokens, claimed).await;
                    Event::StoreFailed
                }
            },
            Err(KeyError::Store(error)) => {
                self.hold(&error, tokens, claimed).await;
                trouble(&error)
            }
            Err(error) => {
                self.hold(&error, tokens, claimed).await;
                Event::StoreFailed
            }
        }
    }

    /// One transaction: tokens, audit row, and the good news for connection and integration.
    async fn store(
        &mut self,
        tokens: &Fetched,
        claimed: Claimed,
        generation: i64,
        only_fence: bool,
    ) -> Result<bool, KeyError> {
        let mut tx = self.room.store.begin().await?;
        if self.load_in(&mut tx).await?.is_none() {
            return Ok(false);
        }
        let Some(Loaded { row, integration }) = self.loaded.clone() else { return Ok(false) };
        if row.generation != generation {
            return Ok(false);
        }
        let new = self.sealed(tokens, &row, integration.as_ref())?;
        // Before the credential, as everybody who locks both, or two of them would wait for each other.
        // What was answered before it was saved says nothing about what it says now.
        let is_news = |one: &&IntegrationRow| !one.is_well() && tokens.received_at.0 >= one.updated_at;
        if let Some(troubled) = integration.as_ref().filter(is_news) {
            integration_resume(&mut tx, ONE_CREDENTIAL, &row.tenant_id, &troubled.id).await?;
        }
        let answer = AnswerTo { fence: claimed.fence, consents: claimed.consents, only_fence };
        if !credential_store(&mut tx, ONE_CREDENTIAL, &self.name, answer, &new).await? {
            return Ok(false);
        }
        // Always: another node may have given this answer up since the row was read. The row is ours from here on.
        let name = (row.tenant_id.as_str(), row.id.as_str());
        let lost = Code::ROTATION_RESPONSE_LOST;
        connections_of_credential_heal(&mut tx, ONE_CREDENTIAL, name, lost.as_str(), new.obtained_at).await?;
        if row.last_error.is_some() {
            connections_of_credential_recover(&mut tx, ONE_CREDENTIAL, &row.tenant_id, &row.id).await?;
        }
        let account = match &tokens.set.subject {
            Some(_) => credential_account(&mut tx, ONE_CREDENTIAL, &row.tenant_id, &row.id).await?,
            None => None,
        };
        if contradicts(self.room.providers.get(&row.provider).as_deref(), account.as_deref(), &tokens.set) {
            connections_of_credential_mark(
                &mut tx,
                ONE_CREDENTIAL,
                &row.tenant_id,
                &row.id,
                "quarantined",
                Some("identity_changed"),
                new.obtained_at,
            )
            .await?;
        }
        let user = (row.owner_kind == "user").then_some(row.owner_id.as_str());
        let event = Happening::done(Done::CredentialRefreshed, "credential", &row.id).of_user(user);
        self.room.audit.record(&mut tx, &self.system(), &event).await?;
        crash_point!(MidStore);
        tx.commit().await?;
        crash_point!(AfterStore);
        metrics::counter!("valetkey_refreshes_total", "provider" => row.provider, "outcome" => "fresh").increment(1);
        Ok(true)
    }

    fn sealed(
        &self,
        tokens: &Fetched,
        row: &CredentialRow,
        integration: Option<&IntegrationRow>,
    ) -> Result<NewTokens, KeyError> {
        let next = row.generation + 1;
        let refresh_token = tokens.sealer.seal(refresh_place(&row.id, next), &tokens.refresh_token)?;
        let access_token = tokens.sealer.seal(access_place(&row.id, next), &tokens.set.access_token)?;
        let expires_at = tokens.set.expires_in.map(|life| tokens.received_at.after(life).0);
        let refresh_expires_at =
            tokens.set.refresh_expires_in.map(|life| tokens.received_at.after(life).0).or(row.refresh_expires_at);
        let mut after = row.clone();
        after.obtained_at = tokens.received_at.0;
        after.expires_at = expires_at;
        after.status = "active".to_owned();
        after.phase = "idle".to_owned();
        after.doubt = DoubtColumns::default();
        after.next_attempt_at = None;
        after.last_error = None;
        after.last_error_at = None;
        after.refresh_token = Some(refresh_token.clone());
        Ok(NewTokens {
            generation: row.generation,
            access_token,
            refresh_token: Some(refresh_token),
            token_type: tokens.set.token_type.clone(),
            scopes: tokens.set.scopes.as_deref().map_or_else(|| row.scopes.clone(), crate::store::to_json_list),
            obtained_at: tokens.received_at.0,
            expires_at,
            refresh_expires_at,
            due_at: self.due(&after, integration),
        })
    }

    /// The provider has said yes and the database has not: an operator must know. Where there is a spool, a copy waits in
    /// it from now on, in case this process ends before the database is well again.
    async fn hold(&mut self, error: &(dyn Error + Send + Sync + 'static), tokens: &Fetched, claimed: Claimed) {
        let is_new = self.held.is_none();
        let held = self.held.get_or_insert_with(|| self.room.held.one_more());
        if is_new {
            tracing::error!(credential = %self.name.id, error = %error, "new tokens could not be stored yet; they are held in memory and stored again");
        }
        if self.spooled.is_some() || held.copy.is_some() {
            return;
        }
        match self.room.spool.write(&self.name, tokens, claimed).await {
            Ok(copy) => held.copy = Some(copy),
            Err(error) if is_new && !matches!(error, SpoolError::Off) => {
                tracing::error!(credential = %self.name.id, error = %error, "held tokens have no copy in the spool yet");
            }
            Err(_) => {}
        }
    }

    /// The answer is durable, or nobody's any more.
    pub(super) async fn let_go(&mut self) {
        if let Some(copy) = self.held.take().and_then(|mut held| held.copy.take()) {
            self.room.spool.take_away(copy).await;
        }
    }

    /// Writes the answer to the spool; one that came from there stays where it is.
    pub(super) async fn on_spool(&mut self, tokens: &Fetched, claimed: Claimed) -> Event<Tokens> {
        if self.spooled.is_some() {
            self.spooled = Some(true);
            return Event::Spooled;
        }
        match self.room.spool.write(&self.name, tokens, claimed).await {
            // In the place of the copy, which stays.
            Ok(_) => {
                self.held = None;
                Event::Spooled
            }
            Err(SpoolError::Off) => Event::SpoolFailed,
            Err(error) => {
                tracing::error!(credential = %self.name.id, error = %error, "new tokens could not be spooled; they stay in memory");
                Event::SpoolFailed
            }
        }
    }
}
