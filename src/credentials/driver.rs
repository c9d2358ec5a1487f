//! Executes the protocol's actions. Every rule is in [`super::refresh`]; here is only I/O.
//!
//! The leader of a flight runs in its own task, which no caller can cancel, and holds the house open until its answer
//! is stored. No transaction is open and no connection held while the provider is called.

mod recording;
mod storing;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::flights::Seat;
use super::held::Held;
use super::refresh::{
    Action, Claim, Claimed, Code, Event, Flight, Integration, Jitter, Outcome, Phase, Policy, Replay, Revocation,
    Verdict, View, Wish,
};
use super::retries::SetAside;
use super::row::{doubt_columns, integration_of, look_at, policy, view};
use super::sweep::Planned;
use super::{Credentials, ONE_CREDENTIAL};
use crate::caller::Caller;
use crate::clock::{Millis, deadline, pause};
use crate::crash::crash_point;
use crate::ids::TenantId;
use crate::keys::Sealer;
use crate::outbound::Door;
use crate::providers::TokenSet;
use crate::secret::Secret;
use crate::store::credentials::{CredentialName, CredentialRow, credential_load, credential_load_even_deleted};
use crate::store::due::credential_set_due;
use crate::store::integrations::{IntegrationRow, integration_take_probe};
use crate::store::refresh_rows::{ClaimColumns, credential_announce, credential_claim, credential_renew_lease};
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
    /// Of the integration whose client was asked: another may have another place.
    pub(super) revision: i64,
}

impl Fetched {
    /// What an answer to the refresh token that was `sent` has brought. Absent means: keep the one you have (RFC 6749 section 6).
    pub(super) fn of(mut set: TokenSet, sent: Secret, received_at: Millis, (sealer, revision): (Sealer, i64)) -> Self {
        let refresh_token = set.refresh_token.take().unwrap_or(sent);
        Self { set, refresh_token, received_at, sealer, revision }
    }
}

pub(super) type Tokens = Arc<Fetched>;

/// A call under way, and the door at which its token waits, where it does.
struct InAir {
    call: JoinHandle<Outcome<Tokens>>,
    door: Option<Door>,
}

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
    /// What a reader's flight may need for its retries.
    retries: Option<SetAside>,
    /// When its first request is to leave; none where somebody waits, and the sweep did not plan this flight.
    planned: Option<Planned>,
    /// The look that a flight begins with, until the protocol asks for it.
    first_look: Option<(Millis, View)>,
    /// Whether new tokens were stored, and with them when to look next.
    has_stored: bool,
}

type StaysInSpool = bool;

/// As many refreshes of readers are in the air at this provider as a node allows, and none of them has landed in time.
struct NoBerth;

/// The first look of a flight is as good as new so long: it was taken for the very same purpose, a few lines before.
const FIRST_LOOK: Duration = Duration::from_millis(500);

/// What the database does not do in this time it will not do on this line; what came of it is found out on another.
pub(super) const DATABASE_LIMIT: Duration = Duration::from_secs(15);

/// A provider does not wait long for the rest of a request.
const ANNOUNCED_WITHIN: Duration = Duration::from_secs(5);

/// What one retry costs, in the hundredths of [`IntegrationRow::retry_credit`].
const ONE_RETRY: i64 = 100;

impl Credentials {
    /// Flies: from the first look to the landing.
    pub(super) async fn fly(self, seat: Seat, wish: Wish, planned: Option<Planned>) {
        let mut driver = Driver { planned, ..Driver::new(self, seat.name().clone()) };
        let verdict = driver.fly(wish).await;
        if let Err(error) = driver.plan_next_look().await {
            tracing::warn!(credential = %driver.name.id, error = %error, "the sweep will look at this credential a little late");
        }
        seat.land(verdict);
        crash_point!(AfterLanding);
    }
}

/// Brings a spooled answer home; false when it has to wait in the spool still.
pub(super) async fn bring_home(room: Credentials, seat: Seat, claimed: Claimed, tokens: Tokens) -> bool {
    let mut driver = Driver::new(room, seat.name().clone());
    if driver.load_even_deleted().await.is_err() {
        return false;
    }
    driver.spooled = Some(false);
    crash_point!(BeforeHomecoming);
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
            retries: None,
            planned: None,
            first_look: None,
            has_stored: false,
        }
    }

    async fn fly(&mut self, wish: Wish) -> Verdict {
        let at = self.now();
        match self.load().await {
            Ok(Some(view)) => {
                let waits = matches!(view.integration, Integration::Working)
                    && view.phase == Phase::Idle
                    && view.doubt.is_none();
                self.first_look = Some((at, view));
                let Ok(_berth) = self.wait_for_turn(waits).await else {
                    return Verdict::RefreshInProgress { retry_after: Duration::from_secs(1) };
                };
                let retries = self.set_aside_retries();
                self.run(Flight::new(Policy { retries, ..self.policy }, wish, self.jitter)).await
            }
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
            let tell = self.room.shutdown.has_begun() && !told_to_stop && !matches!(event, Event::Begin);
            told_to_stop |= tell;
            // First of all, so that nothing sets out that can be called off. Whoever only waits has something else to do now.
            let action = match tell.then(|| flight.step(self.now(), Event::Shutdown)) {
                None | Some(Action::Continue) => flight.step(self.now(), event),
                Some(action) => action,
            };
            tracing::trace!(credential = %self.name.id, action = action_name(&action), "refresh");
            event = match action {
                Action::Done(verdict) => {
                    self.let_go().await;
                    return verdict;
                }
                Action::Load => self.on_load().await,
                Action::Claim(claim) => self.on_claim(claim).await,
                Action::Send { announces, give_up_after, tick_every, .. } => {
                    self.tell_sweep();
                    let call = self.take_off(announces, give_up_after);
                    wait_for(in_air.insert(call), tick_every).await
                }
                Action::Announce { claimed, lease_until } => self.on_announce(claimed, lease_until).await,
                Action::Depart => match &mut in_air {
                    Some(call) => {
                        crash_point!(AfterAnnounce);
                        call.depart();
                        wait_for(call, self.policy.deadlines.renew).await
                    }
                    None => Event::Answered(Outcome::NotTried(Code::NOT_SENT)),
                },
                Action::Continue => match &mut in_air {
                    Some(call) => wait_for(call, self.policy.deadlines.renew).await,
                    None => Event::Woken,
                },
                Action::RenewLease { claimed, lease_until } => self.on_renew(claimed, lease_until).await,
                Action::Store { tokens, claimed, generation, only_fence } => {
                    self.on_store(&tokens, claimed, generation, only_fence).await
                }
                Action::Record(record) => {
                    // A call that still waits at its door is called off by this.
                    in_air = None;
                    self.on_record(&record).await
                }
                Action::Wait { until } => self.on_wait(until, told_to_stop).await,
                Action::Revoke(tokens) => self.on_revoke(&tokens).await,
                Action::Spool { tokens, claimed } => self.on_spool(&tokens, claimed).await,
            };
            if matches!(event, Event::Answered(_)) {
                in_air = None;
            }
        }
    }

    /// Before the claim, so that nobody else waits for a lease under which nothing happens. The sweep's flights wait for their
    /// time to leave; a reader's for a berth, as long as readers are patient, unless its token is in doubt, which cannot wait, or
    /// the client is held anyway.
    async fn wait_for_turn(&self, waits: bool) -> Result<Option<OwnedSemaphorePermit>, NoBerth> {
        let Some(Loaded { row, integration }) = &self.loaded else { return Ok(None) };
        if let Some(planned) = self.planned {
            if let Some(integration) = integration {
                self.room.sweeper.hold_back(integration, planned).await;
            }
            return Ok(None);
        }
        if !waits || row.refresh_token.is_none() {
            return Ok(None);
        }
        let berth = self.room.readers_berths.of(&row.provider).acquire_owned();
        let berth = deadline(self.policy.deadlines.patience, berth).await.map_err(|_| NoBerth)?;
        Ok(berth.ok())
    }

    fn take_off(&self, announces: bool, give_up_after: Duration) -> InAir {
        let (door, waiting) = match announces.then(Door::new) {
            Some((door, knock, left)) => (Some(door), Some((knock, left))),
            None => (None, None),
        };
        let call = self.room.clone().call_provider(self.loaded.clone(), waiting, give_up_after);
        InAir { call: tokio::spawn(call), door }
    }

    /// How often this flight may try again. The sweep's are counted by the sweep, and try once.
    fn set_aside_retries(&mut self) -> u8 {
        let integration = self.loaded.as_ref().and_then(|loaded| loaded.row.integration_id.as_deref());
        let Some(integration) = integration.filter(|_| self.planned.is_none()) else { return self.policy.retries };
        let aside = self.room.retries.set_aside((&self.name.tenant_id, integration), self.policy.retries);
        self.retries.insert(aside).count()
    }

    /// Whoever sends without a place: a reader, or the sweep for the second time in one flight.
    fn tell_sweep(&mut self) {
        if let Some(retries) = &mut self.retries {
            retries.note_call();
        }
        let has_place = self.planned.take().is_some();
        let integration = self.loaded.as_ref().and_then(|loaded| loaded.row.integration_id.as_deref());
        if let Some(integration) = integration.filter(|_| !has_place) {
            self.room.sweeper.note_calls(&self.name.tenant_id, integration, 1, self.now());
        }
    }

    fn now(&self) -> Millis {
        self.room.around.now()
    }

    fn system(&self) -> Caller {
        Caller::system("refresh", TenantId::stored(self.name.tenant_id.clone()))
    }

    async fn load(&mut self) -> Result<Option<View>, StoreError> {
        let store = self.room.store.clone();
        let work = async {
            let mut tx = store.read().await?;
            self.load_in(&mut tx).await
        };
        store.in_time(DATABASE_LIMIT, work).await
    }

    async fn load_in(&mut self, tx: &mut Tx) -> Result<Option<View>, StoreError> {
        match credential_load(tx, ONE_CREDENTIAL, &self.name).await? {
            Some(row) => self.know(tx, row).await.map(Some),
            None => Ok(None),
        }
    }

    async fn know(&mut self, tx: &mut Tx, row: CredentialRow) -> Result<View, StoreError> {
        let scope = ONE_CREDENTIAL.within(TenantId::stored(row.tenant_id.clone()));
        let integration = integration_of(tx, &scope, row.integration_id.as_deref()).await?;
        if let Some(provider) = self.room.providers.get(&row.provider) {
            self.policy = policy(provider.descriptor(), &row.kind);
        }
        if integration.as_ref().is_some_and(|one| one.retry_credit < ONE_RETRY) {
            self.policy.retries = 0;
        }
        let seen = view(&row, integration.as_ref(), &self.room.flights.process);
        self.loaded = Some(Loaded { row, integration });
        Ok(seen)
    }

    /// Also of a deleted row: the protocol finds out by itself that its answer has come too late, and has to know at which
    /// provider it is ended (RL-37).
    async fn load_even_deleted(&mut self) -> Result<(), StoreError> {
        let mut tx = self.room.store.read().await?;
        if let Some(row) = credential_load_even_deleted(&mut tx, ONE_CREDENTIAL, &self.name).await? {
            self.know(&mut tx, row).await?;
        }
        Ok(())
    }

    async fn on_load(&mut self) -> Event<Tokens> {
        let now = self.now();
        if let Some((at, view)) = self.first_look.take()
            && now >= at
            && now < at.after(FIRST_LOOK)
        {
            return Event::Loaded(view);
        }
        match self.load().await {
            Ok(Some(view)) => Event::Loaded(view),
            Ok(None) => Event::Gone,
            Err(_) => Event::StoreFailed,
        }
    }

    async fn on_claim(&mut self, claim: Claim) -> Event<Tokens> {
        crash_point!(BeforeIntent);
        let store = &self.room.store;
        let outcome = async {
            let mut tx = if claim.probe.is_some() { store.begin().await? } else { store.one_change().await? };
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
                seen_phase: claim.phase.as_str(),
                seen_doubt: claim.doubt_since.map(|since| since.0),
                owner: &self.room.flights.process,
                now: now.0,
                lease_until: claim.lease_until.0,
                believable: claim.believable.0,
                doubt: doubt_columns(claim.doubt),
                phase: if claim.announces { "claimed" } else { "sent" },
            };
            let fence = credential_claim(&mut tx, ONE_CREDENTIAL, &self.name, columns).await?;
            if fence.is_some() {
                crash_point!(MidIntent);
                tx.commit().await?;
                crash_point!(AfterIntent);
            }
            Ok(fence)
        };
        match self.room.store.in_time(DATABASE_LIMIT, outcome).await {
            Ok(Some(fence)) => Event::Claimed { fence },
            Ok(None) => Event::ClaimLost,
            Err(error) => trouble(&error),
        }
    }

    async fn on_announce(&self, claimed: Claimed, until: Millis) -> Event<Tokens> {
        crash_point!(BeforeAnnounce);
        let outcome = async {
            let mut tx = self.room.store.begin().await?;
            let times = (self.now().0, until.0);
            let announced =
                credential_announce(&mut tx, ONE_CREDENTIAL, &self.name, claimed.generation, claimed.fence, times)
                    .await?;
            crash_point!(MidAnnounce);
            tx.commit().await?;
            Ok(announced)
        };
        match self.room.store.in_time(ANNOUNCED_WITHIN, outcome).await {
            Ok(true) => Event::Announced,
            Ok(false) => Event::AnnounceLost,
            Err(error) => trouble(&error),
        }
    }

    async fn on_renew(&self, claimed: Claimed, until: Millis) -> Event<Tokens> {
        crash_point!(BeforeRenewal);
        let outcome = async {
            let mut tx = self.room.store.begin().await?;
            let renewed =
                credential_renew_lease(&mut tx, ONE_CREDENTIAL, &self.name, claimed.generation, claimed.fence, until.0)
                    .await?;
            tx.commit().await?;
            crash_point!(AfterRenewal);
            Ok(renewed)
        };
        match self.room.store.in_time(DATABASE_LIMIT, outcome).await {
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
        look_at(row, integration, &self.policy, self.now(), self.jitter)
    }

    async fn on_wait(&self, until: Millis, told_to_stop: bool) -> Event<Tokens> {
        tokio::select! {
            () = self.room.around.clock.sleep(until.left(self.now())) => Event::Woken,
            () = self.room.shutdown.begun(), if !told_to_stop => Event::Shutdown,
        }
    }

    async fn on_revoke(&mut self, tokens: &Fetched) -> Event<Tokens> {
        let late = (tokens.set.access_token.duplicate(), Some(tokens.refresh_token.duplicate()));
        let is_over = self.room.end_late(&self.name, tokens.revision, late).await;
        // What is in the spool waits there until that can be done.
        if !is_over {
            self.spooled = self.spooled.map(|_| true);
            if let Some(held) = &mut self.held {
                held.copy = None;
            }
        }
        Event::Revoked
    }

    /// After the landing: when should the sweep look next?
    async fn plan_next_look(&mut self) -> Result<(), StoreError> {
        if self.has_stored || self.load().await?.is_none() {
            return Ok(());
        }
        let Some(Loaded { row, integration }) = &self.loaded else { return Ok(()) };
        let due = self.due(row, integration.as_ref());
        if due == row.due_at && row.slot_at.is_none() {
            return Ok(());
        }
        self.room
            .store
            .in_time(DATABASE_LIMIT, async {
                let mut tx = self.room.store.begin().await?;
                credential_set_due(&mut tx, ONE_CREDENTIAL, &self.name, row.fence, due).await?;
                tx.commit().await
            })
            .await
    }
}

impl InAir {
    fn depart(&mut self) {
        if let Some(door) = self.door.take() {
            door.open();
        }
    }
}

async fn wait_for(InAir { call, door }: &mut InAir, tick_every: Duration) -> Event<Tokens> {
    let at_door = async {
        match door {
            Some(door) => door.knocked().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        answer = call => Event::Answered(answer.unwrap_or(Outcome::Ambiguous)),
        () = at_door => Event::AtDoor,
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
        Action::Announce { .. } => "announce",
        Action::Depart => "depart",
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

#[cfg(test)]
mod differential;
