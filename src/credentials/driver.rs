//! Executes the protocol's actions. Every rule is in [`super::refresh`]; here is only I/O.
//!
//! The leader of a flight runs in its own task, which no caller can cancel, and holds the house open until its answer
//! is stored. No transaction is open and no connection held while the provider is called.

mod storing;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::flights::Seat;
use super::held::Held;
use super::refresh::{
    Action, Claim, Claimed, Code, Event, Failure, Flight, Jitter, NEVER, Outcome, Policy, Record, Replay, Revocation,
    Verdict, View, Wish, due_at,
};
use super::row::{doubt_columns, integration_of, policy, view};
use super::{Credentials, ONE_CREDENTIAL};
use crate::audit::{Action as Done, Event as Happening};
use crate::caller::Caller;
use crate::clock::{Millis, pause};
use crate::ids::TenantId;
use crate::keys::Sealer;
use crate::providers::{self, RevokeTokens, TokenSet};
use crate::secret::Secret;
use crate::store::connections::connections_of_credential_mark;
use crate::store::credentials::{
    ClaimColumns, CredentialName, CredentialRow, FailureColumns, credential_claim, credential_fail, credential_load,
    credential_needs_reauth, credential_renew_lease, credential_set_due,
};
use crate::store::integrations::{
    IntegrationRow, integration_limit_rate, integration_pause, integration_resume, integration_take_probe,
};
use crate::store::{StoreError, Tx};

/// Tokens as they came, with what is needed to seal them whatever becomes of the database.
#[derive(Debug)]
pub(super) struct Fetched {
    /// Without its refresh token, which is below.
    pub(super) set: TokenSet,
    /// The new one, or the one that was sent where the provider gave none.
    pub(super) refresh_token: Secret,
    pub(super) received_at: Millis,
    pub(super) sealer: Sealer,
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
    /// There while an answer of the provider is in memory only.
    held: Option<Held>,
    /// Where the answer of this flight comes from the spool: whether it has to stay there.
    spooled: Option<StaysInSpool>,
}

type StaysInSpool = bool;

impl Credentials {
    /// Flies: from the first look to the landing.
    pub(super) async fn fly(self, seat: Seat, wish: Wish) {
        let mut driver = Driver::new(self, seat.name().clone());
        let verdict = driver.fly(wish).await;
        if let Err(error) = driver.plan_next_look().await {
            tracing::warn!(credential = %driver.name.id, error = %error, "the sweep will look at this credential a little late");
        }
        seat.land(verdict);
    }
}

/// Brings a spooled answer home; false when it has to wait in the spool still.
pub(super) async fn bring_home(room: Credentials, seat: Seat, claimed: Claimed, tokens: Tokens) -> bool {
    let mut driver = Driver::new(room, seat.name().clone());
    // Without a row the protocol finds out by itself that the answer has come too late.
    if driver.load().await.is_err() {
        return false;
    }
    driver.spooled = Some(false);
    let verdict = driver.run(Flight::replay(driver.policy, claimed, tokens)).await;
    seat.land(verdict);
    driver.spooled == Some(false)
}

impl Driver {
    fn new(room: Credentials, name: CredentialName) -> Self {
        Self {
            jitter: Jitter(u32::from_be_bytes(room.around.random())),
            // Until the row says which provider it is.
            policy: Policy::new(Replay::Unsafe, true, Revocation::Impossible),
            room,
            name,
            loaded: None,
            held: None,
            spooled: None,
        }
    }

    async fn fly(&mut self, wish: Wish) -> Verdict {
        match self.load().await {
            Ok(Some(_)) => self.run(Flight::new(self.policy, wish, self.jitter)).await,
            Ok(None) => Verdict::Gone,
            Err(error) => {
                tracing::warn!(credential = %self.name.id, error = %error, "a credential could not be read");
                Verdict::Unavailable { code: Code::STORE_UNAVAILABLE, retry_after: Duration::from_secs(1) }
            }
        }
    }

    async fn run(&mut self, mut flight: Flight<Tokens>) -> Verdict {
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
                Action::Done(verdict) => {
                    self.let_go().await;
                    return verdict;
                }
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
                Action::Spool { tokens, claimed } => self.on_spool(&tokens, claimed).await,
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
            RevokeTokens { access: Some(&set.access_token), refresh: Some(&tokens.refresh_token), kind: set.kind };
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

async fn wait_for(call: &mut InAir, tick_every: Duration) -> Event<Tokens> {
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
