//! Executes the protocol's actions. Every rule is in [`super::refresh`]; here is only I/O.
//!
//! The leader of a flight runs in its own task, which no caller can cancel, and holds the house open until its answer
//! is stored. No transaction is open and no connection held while the provider is called.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::flights::Seat;
use super::provider_call::contradicts;
use super::refresh::{
    Action, Claim, Claimed, Code, Event, Failure, Flight, Jitter, NEVER, Outcome, Policy, Record, Verdict, View, Wish,
    due_at,
};
use super::row::{access_place, doubt_columns, integration_of, owner, policy, refresh_place, view};
use super::{Credentials, ONE_CREDENTIAL};
use crate::audit::{Action as Done, Event as Happening};
use crate::caller::Caller;
use crate::clock::{Millis, pause};
use crate::ids::TenantId;
use crate::keys::{KeyError, Owner};
use crate::providers::{self, RevokeTokens, TokenSet};
use crate::store::connections::{connections_of_credential_mark, credential_account};
use crate::store::credentials::{
    AnswerTo, ClaimColumns, CredentialName, CredentialRow, FailureColumns, NewTokens, credential_claim,
    credential_fail, credential_load, credential_needs_reauth, credential_renew_lease, credential_set_due,
    credential_store,
};
use crate::store::integrations::{
    IntegrationRow, integration_limit_rate, integration_pause, integration_resume, integration_take_probe,
};
use crate::store::{StoreError, Tx};

/// Tokens as they came, with the time they were received.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) set: TokenSet,
    pub(super) received_at: Millis,
}

pub(super) type Tokens = Arc<Fetched>;
type InAir = JoinHandle<Outcome<Tokens>>;

/// A credential's row with its integration, as one flight last saw them.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub(super) row: CredentialRow,
    pub(super) integration: Option<IntegrationRow>,
}

struct Driver {
    room: Credentials,
    name: CredentialName,
    policy: Policy,
    jitter: Jitter,
    loaded: Option<Loaded>,
}

impl Credentials {
    /// Flies: from the first look to the landing.
    pub(super) async fn fly(self, seat: Seat, wish: Wish) {
        let name = seat.name().clone();
        let mut driver = Driver {
            jitter: Jitter(u32::from_be_bytes(self.around.random())),
            policy: POLICY_BEFORE_LOADING(),
            room: self,
            name,
            loaded: None,
        };
        let verdict = driver.run(wish).await;
        if let Err(error) = driver.plan_next_look().await {
            tracing::warn!(credential = %driver.name.id, error = %error, "the sweep will look at this credential a little late");
        }
        seat.land(verdict);
    }
}

/// Until the row says which provider it is.
#[expect(non_snake_case, reason = "reads as the constant it stands for; Policy::new is not const")]
fn POLICY_BEFORE_LOADING() -> Policy {
    Policy::new(super::refresh::Replay::Unsafe, true, super::refresh::Revocation::Impossible)
}

impl Driver {
    async fn run(&mut self, wish: Wish) -> Verdict {
        match self.load().await {
            Ok(Some(_)) => {}
            Ok(None) => return Verdict::Gone,
            Err(error) => {
                tracing::warn!(credential = %self.name.id, error = %error, "a credential could not be read");
                return Verdict::Unavailable {
                    code: Code::STORE_UNAVAILABLE,
                    retry_after: std::time::Duration::from_secs(1),
                };
            }
        }
        let mut flight: Flight<Tokens> = Flight::new(self.policy, wish, self.jitter);
        let mut in_air: Option<InAir> = None;
        let mut told_to_stop = false;
        let mut event = Event::Begin;
        loop {
            let mut action = flight.step(self.now(), event);
            if self.room.shutdown.has_begun() && !told_to_stop && !matches!(action, Action::Done(_)) {
                told_to_stop = true;
                // Whoever waits has something else to do now; everybody else first finishes what was begun.
                match flight.step(self.now(), Event::Shutdown) {
                    Action::Continue => {}
                    other => action = other,
                }
            }
            tracing::trace!(credential = %self.name.id, action = action_name(&action), "refresh");
            event = match action {
                Action::Done(verdict) => return verdict,
                Action::Load => self.on_load().await,
                Action::Claim(claim) => self.on_claim(claim).await,
                Action::Send { give_up_after, tick_every, .. } => {
                    let driver = self.room.clone();
                    let loaded = self.loaded.clone();
                    let call = async move { driver.call_provider(loaded, give_up_after).await };
                    wait_for(in_air.insert(tokio::spawn(call)), tick_every).await
                }
                Action::Continue => match &mut in_air {
                    Some(call) => wait_for(call, self.policy.deadlines.renew).await,
                    None => Event::Woken,
                },
                Action::RenewLease { claimed, lease_until } => self.on_renew(claimed, lease_until).await,
                Action::Store { tokens, claimed, generation, only_fence } => {
                    self.on_store(&tokens, claimed, generation, only_fence).await
                }
                Action::Record(record) => self.on_record(&record).await,
                Action::Wait { until } => self.on_wait(until, told_to_stop).await,
                Action::Revoke(tokens) => self.on_revoke(&tokens).await,
                // A spool is a later story; without one the protocol keeps storing while this process lives.
                Action::Spool { .. } => Event::SpoolFailed,
            };
            if matches!(event, Event::Answered(_)) {
                in_air = None;
            }
        }
    }

    fn now(&self) -> Millis {
        self.room.around.now()
    }

    fn system(&self) -> Caller {
        Caller::system("refresh", TenantId::stored(self.name.tenant_id.clone()))
    }

    async fn load(&mut self) -> Result<Option<View>, StoreError> {
        let mut tx = self.room.store.read().await?;
        self.load_in(&mut tx).await
    }

    async fn load_in(&mut self, tx: &mut Tx) -> Result<Option<View>, StoreError> {
        let Some(row) = credential_load(tx, ONE_CREDENTIAL, &self.name).await? else { return Ok(None) };
        let integration = match self.system().require(crate::caller::Permission::ConnectionsRead) {
            Ok(scope) => integration_of(tx, &scope, row.integration_id.as_deref()).await?,
            Err(_) => None,
        };
        if let Some(provider) = self.room.providers.get(&row.provider) {
            self.policy = policy(provider.descriptor());
        }
        let seen = view(&row, integration.as_ref(), &self.room.flights.process);
        self.loaded = Some(Loaded { row, integration });
        Ok(Some(seen))
    }

    async fn on_load(&mut self) -> Event<Tokens> {
        match self.load().await {
            Ok(Some(view)) => Event::Loaded(view),
            Ok(None) => Event::Gone,
            Err(_) => Event::StoreFailed,
        }
    }

    async fn on_claim(&mut self, claim: Claim) -> Event<Tokens> {
        let outcome = async {
            let mut tx = self.room.store.begin().await?;
            let now = self.now();
            if let (Some(next), Some(loaded)) = (claim.probe, &self.loaded)
                && !integration_take_probe(
                    &mut tx,
                    ONE_CREDENTIAL,
                    &self.name.tenant_id,
                    loaded.row.integration_id.as_deref().unwrap_or_default(),
                    now.0,
                    next.0,
                )
                .await?
            {
                return Ok(None);
            }
            let columns = ClaimColumns {
                generation: claim.generation,
                fence: claim.fence,
                owner: &self.room.flights.process,
                now: now.0,
                lease_until: claim.lease_until.0,
                believable: claim.believable.0,
                doubt: doubt_columns(claim.doubt),
            };
            let fence = credential_claim(&mut tx, ONE_CREDENTIAL, &self.name, columns).await?;
            if fence.is_some() {
                tx.commit().await?;
            }
            Ok(fence)
        };
        match outcome.await {
            Ok(Some(fence)) => Event::Claimed { fence },
            Ok(None) => Event::ClaimLost,
            Err(error) => trouble(&error),
        }
    }

    async fn on_renew(&self, claimed: Claimed, until: Millis) -> Event<Tokens> {
        let outcome = async {
            let mut tx = self.room.store.begin().await?;
            let renewed =
                credential_renew_lease(&mut tx, ONE_CREDENTIAL, &self.name, claimed.generation, claimed.fence, until.0)
                    .await?;
            tx.commit().await?;
            Ok(renewed)
        };
        match outcome.await {
            Ok(true) => Event::LeaseRenewed,
            Ok(false) => Event::LeaseLost,
            Err(
                StoreError::CommitUnknown(_)
                | StoreError::Unavailable(_)
                | StoreError::Conflict(_)
                | StoreError::Defect(_),
            ) => Event::StoreFailed,
        }
    }

    async fn on_store(
        &mut self,
        tokens: &Fetched,
        claimed: Claimed,
        generation: i64,
        only_fence: bool,
    ) -> Event<Tokens> {
        match self.store(tokens, claimed, generation, only_fence).await {
            Ok(true) => Event::Stored,
            Ok(false) => match self.load().await {
                Ok(Some(view)) => Event::StoreLost(view),
                Ok(None) => Event::Gone,
                Err(_) => Event::StoreFailed,
            },
            Err(KeyError::Destroyed) => Event::Gone,
            Err(KeyError::Store(error)) => {
                tracing::error!(credential = %self.name.id, error = %error, "new tokens could not be stored yet; they are held in memory");
                trouble(&error)
            }
            Err(error) => {
                tracing::error!(credential = %self.name.id, error = %error, "new tokens could not be sealed yet; they are held in memory");
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
        let new = self.sealed(&mut tx, tokens, &row, integration.as_ref()).await?;
        let answer = AnswerTo { fence: claimed.fence, consents: claimed.consents, only_fence };
        if !credential_store(&mut tx, ONE_CREDENTIAL, &self.name, answer, &new).await? {
            return Ok(false);
        }
        if row.status == "needs_reauth" && row.reason.as_deref() == Some(Code::ROTATION_RESPONSE_LOST.as_str()) {
            connections_of_credential_mark(
                &mut tx,
                ONE_CREDENTIAL,
                &row.tenant_id,
                &row.id,
                "active",
                None,
                new.obtained_at,
            )
            .await?;
        }
        let account = credential_account(&mut tx, ONE_CREDENTIAL, &row.tenant_id, &row.id).await?;
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
        integration_resume(&mut tx, ONE_CREDENTIAL, &row.tenant_id, row.integration_id.as_deref().unwrap_or_default())
            .await?;
        let user = (row.owner_kind == "user").then_some(row.owner_id.as_str());
        let event = Happening::done(Done::CredentialRefreshed, "credential", &row.id).of_user(user);
        self.room.audit.record(&mut tx, &self.system(), &event).await?;
        tx.commit().await?;
        metrics::counter!("valetkey_refreshes_total", "provider" => row.provider, "outcome" => "fresh").increment(1);
        Ok(true)
    }

    async fn sealed(
        &self,
        tx: &mut Tx,
        tokens: &Fetched,
        row: &CredentialRow,
        integration: Option<&IntegrationRow>,
    ) -> Result<NewTokens, KeyError> {
        let next = row.generation + 1;
        let owner: Owner = owner(row);
        let refresh = match (&tokens.set.refresh_token, &row.refresh_token) {
            (Some(new), _) => Some(new.duplicate()),
            // Absent means: keep the one you have (RFC 6749 section 6).
            (None, Some(old)) => {
                Some(self.room.keys.open_secret(tx, &owner, refresh_place(&row.id, row.generation), old).await?)
            }
            (None, None) => None,
        };
        let refresh_token = match refresh {
            Some(secret) => Some(self.room.keys.seal(tx, &owner, refresh_place(&row.id, next), &secret).await?),
            None => None,
        };
        let access_token =
            self.room.keys.seal(tx, &owner, access_place(&row.id, next), &tokens.set.access_token).await?;
        let expires_at = tokens.set.expires_in.map(|life| tokens.received_at.after(life).0);
        let refresh_expires_at =
            tokens.set.refresh_expires_in.map(|life| tokens.received_at.after(life).0).or(row.refresh_expires_at);
        let mut after = row.clone();
        after.obtained_at = tokens.received_at.0;
        after.expires_at = expires_at;
        after.status = "active".to_owned();
        after.phase = "idle".to_owned();
        after.doubt_since = None;
        after.next_attempt_at = None;
        after.refresh_token.clone_from(&refresh_token);
        Ok(NewTokens {
            generation: row.generation,
            access_token,
            refresh_token,
            token_type: tokens.set.token_type.clone(),
            scopes: tokens.set.scopes.as_deref().map_or_else(|| row.scopes.clone(), crate::store::to_json_list),
            obtained_at: tokens.received_at.0,
            expires_at,
            refresh_expires_at,
            due_at: self.due(&after, integration),
        })
    }

    fn due(&self, row: &CredentialRow, integration: Option<&IntegrationRow>) -> Option<i64> {
        let at = due_at(&view(row, integration, &self.room.flights.process), &self.policy, self.jitter);
        (at < NEVER).then_some(at.0)
    }

    async fn on_record(&mut self, record: &Record) -> Event<Tokens> {
        match self.record(record).await {
            Ok(true) => Event::Recorded,
            Ok(false) => Event::RecordLost,
            Err(error) => trouble(&error),
        }
    }

    async fn record(&mut self, record: &Record) -> Result<bool, StoreError> {
        let Some(Loaded { row, .. }) = self.loaded.clone() else { return Ok(false) };
        let mut tx = self.room.store.begin().await?;
        let (tenant, integration) = (row.tenant_id.as_str(), row.integration_id.as_deref().unwrap_or_default());
        let user = (row.owner_kind == "user").then_some(row.owner_id.as_str());
        let refreshed = Happening::done(Done::CredentialRefreshed, "credential", &row.id).of_user(user);
        let (written, event) = match record {
            Record::Failure(failure) => {
                (self.fail(&mut tx, failure).await?, refreshed.failed(failure.last_error.as_str()))
            }
            Record::RateLimited { until, failure } => {
                integration_limit_rate(&mut tx, ONE_CREDENTIAL, tenant, integration, until.0).await?;
                (self.fail(&mut tx, failure).await?, refreshed.failed(failure.last_error.as_str()))
            }
            Record::Configuration { code, probe_at, failure } => {
                integration_pause(&mut tx, ONE_CREDENTIAL, tenant, integration, code.as_str(), probe_at.0).await?;
                let event = Happening::done(Done::IntegrationPaused, "integration", integration);
                let first = self
                    .loaded
                    .as_ref()
                    .and_then(|loaded| loaded.integration.as_ref())
                    .is_none_or(|known| known.status == "active");
                (self.fail(&mut tx, failure).await?, if first { event } else { refreshed.failed(code.as_str()) })
            }
            Record::Reauth { generation, fence, reason, heals_integration } => {
                if *heals_integration {
                    integration_resume(&mut tx, ONE_CREDENTIAL, tenant, integration).await?;
                }
                let now = self.now().0;
                let written = credential_needs_reauth(
                    &mut tx,
                    ONE_CREDENTIAL,
                    &self.name,
                    *generation,
                    *fence,
                    reason.as_str(),
                    now,
                )
                .await?;
                if written {
                    connections_of_credential_mark(
                        &mut tx,
                        ONE_CREDENTIAL,
                        tenant,
                        &row.id,
                        "needs_reauth",
                        Some(reason.as_str()),
                        now,
                    )
                    .await?;
                }
                let event = Happening {
                    reason: Some(reason.as_str()),
                    ..Happening::done(Done::ConnectionNeedsReauth, "credential", &row.id)
                };
                (written, event.of_user(user))
            }
        };
        if !written {
            return Ok(false);
        }
        self.room.audit.record(&mut tx, &self.system(), &event).await?;
        tx.commit().await?;
        metrics::counter!("valetkey_refreshes_total", "provider" => row.provider, "outcome" => record_name(record))
            .increment(1);
        Ok(true)
    }

    async fn fail(&self, tx: &mut Tx, failure: &Failure) -> Result<bool, StoreError> {
        let columns = FailureColumns {
            generation: failure.generation,
            fence: failure.fence,
            attempts: i64::from(failure.attempts),
            next_attempt_at: failure.next_attempt_at.0,
            last_error: failure.last_error.as_str(),
            doubt: doubt_columns(failure.doubt),
            unrecognised: (i64::from(failure.unrecognised.count), failure.unrecognised.since.0),
            due_at: Some(failure.next_attempt_at.0),
            now: self.now().0,
        };
        credential_fail(tx, ONE_CREDENTIAL, &self.name, columns).await
    }

    async fn on_wait(&self, until: Millis, told_to_stop: bool) -> Event<Tokens> {
        let mut bells = self.room.bells.listen();
        tokio::select! {
            () = self.room.around.clock.sleep(until.left(self.now())) => Event::Woken,
            () = self.room.shutdown.begun(), if !told_to_stop => Event::Shutdown,
            _ = bells.recv() => Event::Woken,
        }
    }

    async fn on_revoke(&self, tokens: &Fetched) -> Event<Tokens> {
        let set = &tokens.set;
        let revoke =
            RevokeTokens { access: Some(&set.access_token), refresh: set.refresh_token.as_ref(), kind: set.kind };
        let outcome = match self.loaded.clone() {
            Some(loaded) => {
                self.room.revoke_at_provider(&loaded.row.provider, loaded.integration.as_ref(), &revoke).await
            }
            None => Err(providers::Failure::NotSent),
        };
        if let Err(failure) = outcome {
            tracing::warn!(credential = %self.name.id, code = %failure.code(), "late tokens of a deleted credential could not be revoked");
        }
        Event::Revoked
    }

    /// After the landing: when should the sweep look next?
    async fn plan_next_look(&mut self) -> Result<(), StoreError> {
        if self.load().await?.is_none() {
            return Ok(());
        }
        let Some(Loaded { row, integration }) = &self.loaded else { return Ok(()) };
        let due = self.due(row, integration.as_ref());
        if due == row.due_at {
            return Ok(());
        }
        let mut tx = self.room.store.begin().await?;
        credential_set_due(&mut tx, ONE_CREDENTIAL, &self.name, row.fence, due).await?;
        tx.commit().await
    }
}

async fn wait_for(call: &mut InAir, tick_every: std::time::Duration) -> Event<Tokens> {
    tokio::select! {
        answer = call => Event::Answered(answer.unwrap_or(Outcome::Ambiguous)),
        () = pause(tick_every) => Event::Tick,
    }
}

fn trouble(error: &StoreError) -> Event<Tokens> {
    if matches!(error, StoreError::CommitUnknown(_)) { Event::StoreUnknown } else { Event::StoreFailed }
}

fn action_name(action: &Action<Tokens>) -> &'static str {
    match action {
        Action::Load => "load",
        Action::Claim(_) => "claim",
        Action::Send { .. } => "send",
        Action::RenewLease { .. } => "renew_lease",
        Action::Store { .. } => "store",
        Action::Record(_) => "record",
        Action::Wait { .. } => "wait",
        Action::Revoke(_) => "revoke",
        Action::Spool { .. } => "spool",
        Action::Continue => "continue",
        Action::Done(_) => "done",
    }
}

fn record_name(record: &Record) -> &'static str {
    match record {
        Record::Failure(_) => "failed",
        Record::RateLimited { .. } => "rate_limited",
        Record::Configuration { .. } => "configuration",
        Record::Reauth { .. } => "needs_reauth",
    }
}

#[cfg(test)]
mod differential;
