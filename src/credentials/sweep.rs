//! The sweep: credentials that are due are refreshed ahead of their readers, by the same flights.
//!
//! A round takes what is due, and whose place comes within the next second, asks [`pace`](super::pace) what may leave, sends that, and puts the
//! rest back into the schedule with a place in its client's queue. It never waits for a provider: flights are tasks of their
//! own, in berths of which one provider has a quarter at most, so that a hanging one holds up nobody else (RL-17).
//! Claims and plans are short transactions of their own; a node that dies between them leaves rows that come again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};

use super::Credentials;
use super::berths::Berths;
use super::pace::{Departures, HORIZON, Limits, MOST_HELD_BACK};
use super::refresh::Wish;
use super::round::Leaving;
use super::row::warn_at;
use crate::audit::{Action, Event};
use crate::caller::{Caller, SystemScope};
use crate::clock::{Millis, Stopwatch, pause};
use crate::config::RefreshSettings;
use crate::ids::TenantId;
use crate::store::StoreError;
use crate::store::bell::Bell;
use crate::store::due::{
    DueRow, PutBack, RefreshNumbers, Share, credential_claim_due, credential_warn, credentials_put_back,
    refresh_numbers,
};
use crate::store::integrations::IntegrationRow;

pub(super) const ALL_TENANTS: SystemScope = SystemScope::because("the sweep serves every tenant in the order of need");
/// Credentials taken at once. Rounds are short, so that they do not hold up those who read tokens.
const BATCH: usize = 64;
/// A claimed credential is looked at again after this time if its flight never says when.
const CLAIMED_FOR: Duration = Duration::from_secs(150);
/// So many rows without a place are taken while a crowd is given its places: they tell whose crowd it is.
const SCOUTS: usize = 8;
/// After a round the sweep rests as long as that took, and no longer than this; not after the first one of a tick without a queue.
const LONGEST_BREATH: Duration = Duration::from_millis(250);
/// After this time no other round begins.
const LONGEST_SWEEP: Duration = Duration::from_secs(10);
/// An integration: its tenant and its id.
pub(super) type IntegrationName = (String, String);

/// What the sweep of this node has in its hands.
#[derive(Debug)]
pub(super) struct Sweeper {
    pub(super) limits: Limits,
    berths: Arc<Semaphore>,
    pub(super) by_provider: Berths,
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
    pub(super) fn take_calls(&self, client: &IntegrationName, now: Millis) -> i64 {
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

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn gauge(count: i64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
