//! The sweep: credentials that are due are refreshed ahead of their readers, by the same flights.
//!
//! A round takes what is due, and whose place comes within the next second, asks [`pace`](super::pace) what may leave, sends that, and puts the
//! rest back into the schedule with a place in its client's queue. It never waits for a provider: flights are tasks of their
//! own, in berths of which one provider has a quarter at most, so that a hanging one holds up nobody else (RL-17).
//! Claims and plans are short transactions of their own; a node that dies between them leaves rows that come again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};

use super::Credentials;
use super::berths::Berths;
use super::pace::{ACTIVE_WITHIN, Decision, Departures, Due, HORIZON, Limits, MOST_HELD_BACK, Queue};
use super::refresh::{Deadlines, Policy, Replay, Wish};
use super::row::{doubt, policy, standing, warn_at};
use crate::audit::{Action, Event};
use crate::caller::{Caller, SystemScope};
use crate::clock::{Millis, Stopwatch, pause};
use crate::config::RefreshSettings;
use crate::ids::TenantId;
use crate::store::bell::Bell;
use crate::store::due::{
    DueRow, PutBack, Queue as Places, RefreshNumbers, Share, credential_claim_due, credential_patient, credential_warn,
    credentials_in_air, credentials_put_back, credentials_queue_up, refresh_numbers,
};
use crate::store::integrations::{IntegrationRow, Pace, integrations_lock, integrations_set_pace};
use crate::store::{StoreError, Tx};

const ALL_TENANTS: SystemScope = SystemScope::because("the sweep serves every tenant in the order of need");
/// Credentials taken at once. Rounds are short, so that they do not hold up those who read tokens.
const BATCH: usize = 64;
/// A claimed credential is looked at again after this time if its flight never says when.
const CLAIMED_FOR: Duration = Duration::from_secs(150);
/// So many rows are given places at once when a crowd is due: what takes the database longer than a few milliseconds holds up
/// those who read tokens.
const QUEUED_AT_ONCE: i64 = 125;
/// So many rows without a place are taken while a crowd is given its places: they tell whose crowd it is.
const SCOUTS: usize = 8;
/// After a round the sweep rests as long as that took, and no longer than this; not after the first one of a tick without a queue.
const LONGEST_BREATH: Duration = Duration::from_millis(250);
/// After this time no other round begins.
const LONGEST_SWEEP: Duration = Duration::from_secs(10);
/// No queue is longer than this; a first free place beyond it was written by a clock that has jumped.
const LONGEST_QUEUE: Duration = Duration::from_secs(24 * 3600);

/// An integration: its tenant and its id.
type IntegrationName = (String, String);

/// What the sweep of this node has in its hands.
#[derive(Debug)]
pub(super) struct Sweeper {
    limits: Limits,
    berths: Arc<Semaphore>,
    by_provider: Berths,
    /// Calls without a place since the client's last round, and when the first of them was.
    without_place: Mutex<HashMap<IntegrationName, (Millis, i64)>>,
    /// By client, whoever has it.
    departures: Mutex<HashMap<String, Departures>>,
    watch: Stopwatch,
}

/// When a request of the sweep is to leave, by the sweeper's watch. A reader's own leaves at once and has none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planned(Duration);

/// How many refreshes of the sweep a node has in the air at most.
pub(super) fn workers(settings: RefreshSettings) -> usize {
    settings.workers.clamp(4, 10_000) as usize
}

/// Held while a refresh is in the air.
type Berth = (OwnedSemaphorePermit, OwnedSemaphorePermit);

impl Sweeper {
    pub(super) fn new(settings: RefreshSettings) -> Self {
        let workers = workers(settings);
        Self {
            limits: Limits::new(settings.rate_per_client, settings.in_air_per_client),
            berths: Arc::new(Semaphore::new(workers)),
            by_provider: Berths::new(workers / 4),
            without_place: Mutex::default(),
            departures: Mutex::default(),
            watch: Stopwatch::start(),
        }
    }

    /// What leaves without a place leaves at once; the sweep makes room for it afterwards.
    pub(super) fn note_calls(&self, tenant: &str, integration: &str, calls: i64, now: Millis) {
        let mut counts = locked(&self.without_place);
        counts.entry((tenant.to_owned(), integration.to_owned())).or_insert((now, 0)).1 += calls;
    }

    /// What has left without a place at this client; what was long ago needs no room any more.
    fn take_calls(&self, client: &IntegrationName, now: Millis) -> i64 {
        let mut counts = locked(&self.without_place);
        counts.retain(|_, (since, _)| since.after(2 * HORIZON) > now);
        counts.remove(client).map_or(0, |(_, count)| count)
    }

    /// Has a request that is about to leave wait, so that what was held up does not leave all at once.
    pub(super) async fn hold_back(&self, integration: &IntegrationRow, Planned(place): Planned) {
        let since = self.watch.elapsed();
        self.note_departure(&integration.client, place, since);
        loop {
            let at = locked(&self.departures).get(&integration.client).map_or(since, |one| one.at(place));
            let wait = at.min(since + MOST_HELD_BACK).saturating_sub(self.watch.elapsed());
            if wait.is_zero() {
                return;
            }
            pause(wait).await;
        }
    }

    fn note_departure(&self, client: &str, place: Duration, now: Duration) {
        let mut all = locked(&self.departures);
        all.retain(|_, one| !one.are_over(now));
        all.entry(client.to_owned()).or_default().note(place, now, self.limits);
    }

    fn berth(&self, provider: &str) -> Option<Berth> {
        let own = self.by_provider.of(provider).try_acquire_owned().ok()?;
        Some((own, Arc::clone(&self.berths).try_acquire_owned().ok()?))
    }
}

/// Tells when a credential has become due earlier than the sweep knows.
#[derive(Debug)]
pub struct DueBell(broadcast::Receiver<Bell>);

impl DueBell {
    /// Resolves when there is reason to sweep now.
    pub async fn rung(&mut self) {
        loop {
            match self.0.recv().await {
                Ok(Bell::DueEarlier) | Err(RecvError::Lagged(_)) => return,
                Ok(_) => {}
                // The bells live as long as the room; without them only the interval wakes.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

/// What a round of the sweep did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swept {
    /// Credentials that it took.
    pub looked_at: usize,
    /// Whether more may be due.
    pub more: bool,
    /// Whether a crowd is being given its places, and not all of it has one.
    pub queues_up: bool,
    /// Whether somebody whom it took had a place in a queue.
    pub has_queue: bool,
}

/// A row that leaves, and when.
struct Leaving {
    row: DueRow,
    at: Millis,
}

impl Credentials {
    /// Hears from now on when to sweep early.
    #[must_use]
    pub fn due_bell(&self) -> DueBell {
        DueBell(self.bells.listen())
    }

    /// Sends what is due and may leave; gives how many credentials were looked at. Returns without waiting for the
    /// providers, and leaves to the next sweep what takes longer than ten seconds.
    ///
    /// # Errors
    /// As every statement. What was claimed comes again by itself.
    pub async fn sweep(&self) -> Result<usize, StoreError> {
        let (mut looked_at, mut others, mut is_first, begun) = (0, BATCH, true, Stopwatch::start());
        while !self.shutdown.has_begun() {
            let watch = Stopwatch::start();
            let round = self.round(others).await?;
            looked_at += round.looked_at;
            others = if round.queues_up { SCOUTS } else { BATCH };
            if !round.more || begun.elapsed() > LONGEST_SWEEP {
                break;
            }
            // However large a crowd is: half of the time the database belongs to those who read tokens, and to other nodes' sweeps.
            // Two rounds are no crowd yet, unless there is a queue.
            if !is_first || round.has_queue {
                pause(watch.elapsed().min(LONGEST_BREATH)).await;
            }
            is_first = false;
        }
        Ok(looked_at)
    }

    /// One round of the sweep: takes at most 64 credentials, and sends them or gives each its place.
    ///
    /// # Errors
    /// As every statement. What was claimed comes again by itself.
    pub async fn sweep_round(&self) -> Result<Swept, StoreError> {
        self.round(BATCH).await
    }

    /// A round that takes at most so many `others`: those which are neither urgent nor have a place.
    async fn round(&self, others: usize) -> Result<Swept, StoreError> {
        let limit = self.sweeper.berths.available_permits().min(BATCH);
        if limit == 0 {
            return Ok(Swept { looked_at: 0, more: false, queues_up: false, has_queue: false });
        }
        let count = |many: usize| i64::try_from(many).unwrap_or(i64::MAX);
        // However much comes first, a quarter of every round is for the others; of a single berth there is none.
        let (first, others) = ((limit - limit.div_ceil(4)).max(1), others.min(limit));
        let share = Share { limit: count(limit), first: count(first), others: count(others) };
        let now = self.around.now();
        let claimed = now.after(CLAIMED_FOR);
        let mut tx = self.store.begin().await?;
        let rows = credential_claim_due(&mut tx, ALL_TENANTS, (now.0, now.after(HORIZON).0), claimed.0, share).await?;
        tx.commit().await?;
        let looked_at = rows.len();
        let more = looked_at >= others.min(first);
        let has_queue = rows.iter().any(|row| row.slot_at != now.0);
        self.warn_of_ends(&rows, now).await;
        let (leaving, queues_up) = match self.plan(rows.clone(), now, claimed, more).await {
            Ok(planned) => planned,
            Err(error) => {
                if let Err(more) = self.come_again_soon(&rows, claimed).await {
                    tracing::warn!(error = %more, "what could not be planned comes again late");
                }
                return Err(error);
            }
        };
        let left: Vec<_> = leaving.into_iter().filter_map(|one| self.send_off(one, claimed)).collect();
        self.come_again_soon(&left, claimed).await?;
        Ok(Swept { looked_at, more, queues_up, has_queue })
    }

    /// How refreshing is doing, over all tenants; also told to the metrics.
    ///
    /// # Errors
    /// As every statement.
    pub async fn refresh_numbers(&self) -> Result<RefreshNumbers, StoreError> {
        let mut tx = self.store.read().await?;
        let now = self.around.now();
        let numbers = refresh_numbers(&mut tx, ALL_TENANTS, now.0).await?;
        let oldest = numbers.oldest_due.map_or(Duration::ZERO, |due| now.left(Millis(due)));
        let longest_queue = numbers.queued_until.map_or(Duration::ZERO, |until| Millis(until).left(now));
        metrics::gauge!("valetkey_refresh_oldest_overdue_seconds").set(oldest.as_secs_f64());
        metrics::gauge!("valetkey_refresh_longest_queue_seconds").set(longest_queue.as_secs_f64());
        for (name, count) in [
            ("valetkey_refresh_overdue", numbers.overdue),
            ("valetkey_refresh_queued", numbers.queued),
            ("valetkey_refresh_in_doubt", numbers.in_doubt),
        ] {
            metrics::gauge!(name).set(gauge(count));
        }
        for (state, count) in [
            ("misconfigured", numbers.misconfigured),
            ("unreachable", numbers.unreachable),
            ("rate_limited", numbers.rate_limited),
        ] {
            metrics::gauge!("valetkey_integrations_held", "state" => state).set(gauge(count));
        }
        Ok(numbers)
    }

    /// Decides about every row, client by client, and writes down what does not leave now. A handful of statements, however
    /// many clients there are.
    async fn plan(
        &self,
        rows: Vec<DueRow>,
        now: Millis,
        claimed: Millis,
        crowd: bool,
    ) -> Result<(Vec<Leaving>, bool), StoreError> {
        let mut clients: BTreeMap<IntegrationName, Vec<DueRow>> = BTreeMap::new();
        let mut leaving = Vec::new();
        for row in rows {
            match &row.integration_id {
                Some(id) => clients.entry((row.tenant_id.clone(), id.clone())).or_default().push(row),
                None => leaving.push(Leaving { row, at: now }),
            }
        }
        let limits = self.sweeper.limits;
        let mut round = Round { now, claimed, crowd, limits, leaving, waiting: Vec::new(), queues_up: false };
        if !clients.is_empty() {
            let names: Vec<(&str, &str)> = clients.keys().map(|(tenant, id)| (tenant.as_str(), id.as_str())).collect();
            let mut tx = self.store.begin().await?;
            let integrations = integrations_lock(&mut tx, ALL_TENANTS, &names).await?;
            let names: Vec<_> = integrations.iter().map(|one| (one.tenant_id.as_str(), one.id.as_str())).collect();
            let in_air = credentials_in_air(&mut tx, ALL_TENANTS, &names, (now.0, now.after(HORIZON).0)).await?;
            let in_air: HashMap<IntegrationName, i64> =
                in_air.into_iter().map(|(tenant, id, count)| ((tenant, id), count)).collect();
            let mut sharing: BTreeMap<&str, Vec<&IntegrationRow>> = BTreeMap::new();
            for integration in &integrations {
                sharing.entry(&integration.client).or_default().push(integration);
            }
            let (mut berths, mut paces) = (HashMap::new(), Vec::new());
            for sharers in sharing.into_values() {
                let provider = sharers[0].provider.as_str();
                let free: &mut usize =
                    berths.entry(provider).or_insert_with(|| self.sweeper.by_provider.of(provider).available_permits());
                paces.extend(self.plan_client(&mut tx, &mut round, &sharers, (&mut clients, &in_air), free).await?);
            }
            credentials_put_back(&mut tx, ALL_TENANTS, &round.waiting).await?;
            integrations_set_pace(&mut tx, ALL_TENANTS, &paces).await?;
            tx.commit().await?;
        }
        // The protocol finds out what is to become of those whose integration is gone.
        round.leaving.extend(clients.into_values().flatten().map(|row| Leaving { row, at: now }));
        Ok((round.leaving, round.queues_up))
    }

    /// Decides about the rows of one client, which several tenants may have: they share its places and what may be in the air.
    async fn plan_client<'i>(
        &self,
        tx: &mut Tx,
        round: &mut Round,
        sharers: &[&'i IntegrationRow],
        (due, in_air): (&mut BTreeMap<IntegrationName, Vec<DueRow>>, &HashMap<IntegrationName, i64>),
        berths: &mut usize,
    ) -> Result<Vec<Pace<'i>>, StoreError> {
        let names: Vec<IntegrationName> = sharers.iter().map(|one| (one.tenant_id.clone(), one.id.clone())).collect();
        let taken: usize = names.iter().filter_map(|name| due.get(name)).map(Vec::len).sum();
        let in_air: i64 = names.iter().filter_map(|name| in_air.get(name)).sum();
        let mut common = round.common(sharers, taken, in_air);
        let mut without_place: i64 = names.iter().map(|name| self.sweeper.take_calls(name, round.now)).sum();
        let policy = self.providers.get(&sharers[0].provider).map(|one| policy(one.descriptor(), "user"));
        let mut paces = Vec::new();
        for (integration, name) in sharers.iter().zip(&names) {
            let Some(rows) = due.remove(name) else { continue };
            let before = round.leaving.len();
            let mut queue = round.queue(integration, common, *berths);
            if without_place > 0 {
                queue.debit(round.now, without_place, round.limits.interval);
            }
            let (pace, owed) = round.serve(tx, (integration, sharers), queue, rows, policy.as_ref()).await?;
            // Nobody here could make room for them; the next one may.
            without_place = owed.max(0);
            let left = round.leaving.len() - before;
            *berths -= left.min(*berths);
            common = Common { pace_at: pace.pace_at, free: common.free.saturating_sub(left) };
            paces.push(pace);
        }
        if without_place > 0 {
            let (tenant, integration) = &names[0];
            self.sweeper.note_calls(tenant, integration, without_place, round.now);
        }
        Ok(paces)
    }

    /// Gives the row back when there is no berth for it.
    fn send_off(&self, Leaving { row, at }: Leaving, claimed: Millis) -> Option<DueRow> {
        let Some(berth) = self.sweeper.berth(&row.provider) else { return Some(row) };
        // By the clock as it is now: where the database took its time, the round that is late must not leave beside the next.
        let now = self.around.now();
        // Places are near; one that is far was given by a clock that has jumped meanwhile.
        let wait = at.left(now).min(HORIZON);
        let planned = Planned((self.sweeper.watch.elapsed() + wait).saturating_sub(now.left(at)));
        let room = self.clone();
        tokio::spawn(async move {
            let _berth = berth;
            pause(wait).await;
            if room.shutdown.has_begun() {
                if let Err(error) = room.come_again_soon(&[row], claimed).await {
                    tracing::warn!(error = %error, "a credential that was to be refreshed comes again late");
                }
                return;
            }
            let (mut landing, _) = room.board(&row.name(), Wish::sweep(), Some(planned));
            // A crashed flight has already been logged by its task; the row comes again.
            let _ = landing.wait_for(Option::is_some).await;
        });
        None
    }

    /// What was taken and does not leave: a grace, or the life of a token, may be shorter than the time after which a claim would
    /// bring it back.
    async fn come_again_soon(&self, rows: &[DueRow], claimed: Millis) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let now = self.around.now();
        let back = |row: &DueRow| PutBack {
            tenant_id: row.tenant_id.clone(),
            id: row.id.clone(),
            claimed: claimed.0,
            due_at: now.after(2 * HORIZON).0,
            queued: false,
        };
        let back: Vec<_> = rows.iter().map(back).collect();
        let mut tx = self.store.begin().await?;
        credentials_put_back(&mut tx, ALL_TENANTS, &back).await?;
        tx.commit().await
    }

    /// Tells once, some days ahead, that only connecting again will keep a connection alive.
    async fn warn_of_ends(&self, rows: &[DueRow], now: Millis) {
        for row in rows {
            let Some(end) = row.refresh_expires_at else { continue };
            if warn_at(row.refresh_expires_at, row.warned_for).is_none_or(|at| at > now) {
                continue;
            }
            if let Err(error) = self.warn_of_end(row, end).await {
                tracing::warn!(credential = %row.id, error = %error, "the coming end of a connection was not told");
            }
        }
    }

    async fn warn_of_end(&self, row: &DueRow, end: i64) -> Result<(), StoreError> {
        let mut tx = self.store.begin().await?;
        if credential_warn(&mut tx, ALL_TENANTS, &row.name(), end).await? {
            let caller = Caller::system("sweep", TenantId::stored(row.tenant_id.clone()));
            let event = Event::done(Action::ConnectionExpiring, "credential", &row.id);
            self.audit.record(&mut tx, &caller, &event).await?;
            tx.commit().await?;
        }
        Ok(())
    }
}

/// One round, client after client.
struct Round {
    now: Millis,
    claimed: Millis,
    /// Whether more is due than was taken.
    crowd: bool,
    limits: Limits,
    leaving: Vec<Leaving>,
    /// What goes back into the schedule.
    waiting: Vec<PutBack>,
    /// Whether there were more in a crowd than were given places.
    queues_up: bool,
}

/// What all who have a client share of it.
#[derive(Clone, Copy)]
struct Common {
    /// The first free place, in microseconds UTC.
    pace_at: i64,
    /// How many more may be in the air.
    free: usize,
}

impl Round {
    /// Decides about an integration's rows; gives how its client's queue stands then, and how many calls nobody has made room for.
    async fn serve<'i>(
        &mut self,
        tx: &mut Tx,
        (integration, sharers): (&'i IntegrationRow, &[&IntegrationRow]),
        mut queue: Queue,
        mut rows: Vec<DueRow>,
        policy: Option<&Policy>,
    ) -> Result<(Pace<'i>, i64), StoreError> {
        let client = (integration.tenant_id.as_str(), integration.id.as_str());
        let active_since = self.now.before(ACTIVE_WITHIN).0;
        let deadlines = Deadlines::default();
        let is_urgent = |row: &DueRow| self.is_urgent(row, integration, policy);
        // What takes no place first, since others make room for it; then places in their order, and last what has none. What belongs
        // to a conversation that goes on comes before its like.
        rows.sort_by_cached_key(|row| {
            (!is_urgent(row), row.slot_at == self.now.0, row.last_used_at <= active_since, row.slot_at)
        });
        let (mut waits, mut may_swap) = (false, true);
        for row in rows {
            let place = (row.slot_at != self.now.0).then_some(Millis(row.slot_at));
            // Whoever is needed now is no mere retry.
            let active = row.last_used_at > active_since;
            let retry = row.attempts > 0 && !active;
            let due = Due { place, retry, active, at_once: self.is_urgent(&row, integration, policy) };
            match queue.decide(self.now, due, self.limits.interval, &deadlines) {
                Decision::Go(at) => self.leaving.push(Leaving { row, at }),
                Decision::Wait(place) => {
                    waits = true;
                    let sooner = if may_swap && active { self.sooner_place(tx, sharers, place).await? } else { None };
                    // Where one finds nobody to change places with, the next ones do not, either.
                    may_swap = may_swap && (sooner.is_some() || !active);
                    self.waiting.push(self.back(&row, sooner.unwrap_or(place.0), true));
                }
                Decision::Rest(until) => self.waiting.push(self.back(&row, until.0, false)),
            }
        }
        if waits && self.crowd {
            let places = Places {
                now: self.now.0,
                pace_at: queue.pace_at,
                interval: self.limits.interval,
                active_since,
                limit: QUEUED_AT_ONCE,
            };
            let count = credentials_queue_up(tx, ALL_TENANTS, client, places).await?.cast_signed();
            queue.pace_at += count * self.limits.interval;
            self.queues_up |= count == QUEUED_AT_ONCE;
        }
        let pace = Pace {
            tenant_id: client.0,
            id: client.1,
            pace_at: queue.pace_at,
            retry_credit: queue.credit,
            retried_at: queue.retried_at.map(|at| at.0),
        };
        Ok((pace, queue.owed))
    }

    /// Whether a row waits for no queue: it has to leave inside a grace, or nothing will be sent. Everything else, a last try
    /// included, takes its turn.
    fn is_urgent(&self, row: &DueRow, integration: &IntegrationRow, policy: Option<&Policy>) -> bool {
        let Some(policy) = policy else { return false };
        let abandoned = row.phase == "sent";
        let Some(doubt) = doubt(row.doubt) else { return abandoned && policy.replay != Replay::Safe };
        let ends = !policy.may_replay(&doubt, self.now) && !doubt.may_hope(integration.silent_at.map(Millis));
        policy.replay != Replay::Safe && (abandoned || ends || policy.must_hurry(&doubt, self.now))
    }

    fn common(&self, sharers: &[&IntegrationRow], taken: usize, in_air: i64) -> Common {
        // Those just taken count as in the air already.
        let in_air = usize::try_from(in_air).unwrap_or_default().saturating_sub(taken);
        let latest = self.now.after(LONGEST_QUEUE).0.saturating_mul(1000);
        Common {
            pace_at: sharers
                .iter()
                .map(|one| one.pace_at)
                .filter(|pace_at| *pace_at <= latest)
                .max()
                .unwrap_or_default(),
            free: self.limits.in_air.saturating_sub(in_air),
        }
    }

    fn queue(&self, integration: &IntegrationRow, common: Common, berths: usize) -> Queue {
        Queue {
            pace_at: common.pace_at,
            credit: integration.retry_credit,
            retried_at: integration.retried_at.map(Millis),
            answered: integration.answered.map(|count| u32::try_from(count).unwrap_or_default()),
            integration: standing(integration),
            free: common.free.min(berths),
            owed: 0,
        }
    }

    /// A place before `place`, for a row that a conversation uses: it changes places with the next that nobody waits for, whichever
    /// tenant's that is.
    async fn sooner_place(
        &self,
        tx: &mut Tx,
        sharers: &[&IntegrationRow],
        place: Millis,
    ) -> Result<Option<i64>, StoreError> {
        let (horizon, active_since) = (self.now.after(HORIZON).0, self.now.before(ACTIVE_WITHIN).0);
        let mut first: Option<(i64, &str, String)> = None;
        for one in sharers {
            let name = (one.tenant_id.as_str(), one.id.as_str());
            if let Some((id, sooner)) = credential_patient(tx, ALL_TENANTS, name, horizon, active_since).await?
                && first.as_ref().map_or(place.0, |(sooner, ..)| *sooner) > sooner
            {
                first = Some((sooner, name.0, id));
            }
        }
        let Some((sooner, tenant, id)) = first else { return Ok(None) };
        let tenant_id = tenant.to_owned();
        let later = PutBack { tenant_id, id, claimed: sooner, due_at: place.0, queued: true };
        // At once: the next row must not find the same one.
        credentials_put_back(tx, ALL_TENANTS, &[later]).await?;
        Ok(Some(sooner))
    }

    fn back(&self, row: &DueRow, due_at: i64, queued: bool) -> PutBack {
        let (tenant_id, id) = (row.tenant_id.clone(), row.id.clone());
        PutBack { tenant_id, id, claimed: self.claimed.0, due_at, queued }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn gauge(count: i64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
