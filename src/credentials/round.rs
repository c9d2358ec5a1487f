//! One round of the sweep, client after client: what may leave now, and what goes back into the schedule with which place.
//!
//! Several tenants may have the same client (decision 0016). To its provider they are one, so they share its places and what may be in the
//! air.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::Credentials;
use super::pace::{ACTIVE_WITHIN, Decision, Due, HORIZON, Limits, Queue};
use super::refresh::{Deadlines, Policy, Replay};
use super::row::{doubt, policy, standing};
use super::sweep::{ALL_TENANTS, IntegrationName};
use crate::clock::Millis;
use crate::store::due::{
    DueRow, PutBack, Queue as Places, credential_patient, credentials_in_air, credentials_put_back,
    credentials_queue_up,
};
use crate::store::integrations::{IntegrationRow, Pace, integrations_lock, integrations_set_pace};
use crate::store::{StoreError, Tx};

/// So many rows are given places at once when a crowd is due: what takes the database longer than a few milliseconds holds up
/// those who read tokens.
const QUEUED_AT_ONCE: i64 = 125;
/// Of whom so many in one round find no room, there are likely more: of a crowd with many clients most have none, and to ask each of
/// them would take about as long as all else.
const A_CROWD: usize = 2;
/// No queue is longer than this; a first free place beyond it was written by a clock that has jumped.
const LONGEST_QUEUE: Duration = Duration::from_secs(24 * 3600);

/// Of so many other tenants with the same client somebody is asked to change places with a conversation: a round is short.
const OTHERS_LOOKED_AT: usize = 8;

/// A row that leaves, and when.
pub(super) struct Leaving {
    pub(super) row: DueRow,
    pub(super) at: Millis,
}

impl Credentials {
    /// Decides about every row, client by client, and writes down what does not leave now. A handful of statements, however
    /// many clients there are.
    pub(super) async fn plan(
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

    /// Decides about the rows of one client, which several tenants may have.
    async fn plan_client<'i>(
        &self,
        tx: &mut Tx,
        round: &mut Round,
        sharers: &[&'i IntegrationRow],
        (due, in_air): (&mut BTreeMap<IntegrationName, Vec<DueRow>>, &HashMap<IntegrationName, i64>),
        berths: &mut usize,
    ) -> Result<Vec<Pace<'i>>, StoreError> {
        let names: Vec<IntegrationName> = sharers.iter().map(|one| (one.tenant_id.clone(), one.id.clone())).collect();
        let (mut rows, mut concerned) = (Vec::new(), BTreeSet::new());
        for (sharer, name) in names.iter().enumerate() {
            let Some(its) = due.remove(name) else { continue };
            rows.extend(its.into_iter().map(|row| (sharer, row)));
            concerned.insert(sharer);
        }
        let in_air: i64 = names.iter().filter_map(|name| in_air.get(name)).sum();
        let mut queues = round.queues(sharers, rows.len(), in_air, *berths);
        let without_place: i64 = names.iter().map(|name| self.sweeper.take_calls(name, round.now)).sum();
        if without_place > 0 {
            queues[0].debit(round.now, without_place, round.limits.interval);
        }
        let policy = self.providers.get(&sharers[0].provider).map(|one| policy(one.descriptor(), "user"));
        let before = round.leaving.len();
        let owed = round.serve(tx, sharers, &mut queues, rows, policy.as_ref()).await?;
        *berths -= (round.leaving.len() - before).min(*berths);
        if owed > 0 {
            // Nobody in this round could make room for them.
            let (tenant, integration) = &names[0];
            self.sweeper.note_calls(tenant, integration, owed, round.now);
        }
        Ok(concerned.into_iter().map(|sharer| pace(sharers[sharer], &queues[sharer])).collect())
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

impl Round {
    /// Decides about the rows of a client, each with the place of its integration among `sharers`; gives how many calls nobody has made
    /// room for.
    async fn serve(
        &mut self,
        tx: &mut Tx,
        sharers: &[&IntegrationRow],
        queues: &mut [Queue],
        mut rows: Vec<(usize, DueRow)>,
        policy: Option<&Policy>,
    ) -> Result<i64, StoreError> {
        let active_since = self.now.before(ACTIVE_WITHIN).0;
        let deadlines = Deadlines::default();
        let is_urgent = |(sharer, row): &(usize, DueRow)| self.is_urgent(row, sharers[*sharer], policy);
        // What takes no place first, since others make room for it; then places in their order, and last what has none. What belongs
        // to a conversation that goes on comes before its like, whichever tenant's it is.
        rows.sort_by_cached_key(|one| {
            let row = &one.1;
            (!is_urgent(one), row.slot_at == self.now.0, row.last_used_at <= active_since, row.slot_at)
        });
        let (mut waits, mut may_swap, mut last) = (BTreeMap::<usize, usize>::new(), true, 0);
        for (sharer, row) in rows {
            if sharer != last {
                let so_far = queues[last].clone();
                queues[sharer].go_on_from(&so_far);
                last = sharer;
            }
            let place = (row.slot_at != self.now.0).then_some(Millis(row.slot_at));
            // Whoever is needed now is no mere retry.
            let active = row.last_used_at > active_since;
            let retry = row.attempts > 0 && !active;
            let at_once = self.is_urgent(&row, sharers[sharer], policy);
            let due = Due { place, retry, active, at_once, scatter: scatter(&row.id) };
            match queues[sharer].decide(self.now, due, self.limits.interval, &deadlines) {
                Decision::Go(at) => self.leaving.push(Leaving { row, at }),
                Decision::Wait(place) => {
                    *waits.entry(sharer).or_default() += 1;
                    let looked_at = nearest(sharers, sharer);
                    let sooner =
                        if may_swap && active { self.sooner_place(tx, &looked_at, place).await? } else { None };
                    // Where one finds nobody to change places with, the next ones do not, either.
                    may_swap = may_swap && (sooner.is_some() || !active);
                    self.waiting.push(self.back(&row, sooner.unwrap_or(place.0), true));
                }
                Decision::Rest(until) => self.waiting.push(self.back(&row, until.0, false)),
            }
        }
        let mut queue = queues[last].clone();
        let crowded = waits.into_iter().filter(|(_, count)| self.crowd && *count >= A_CROWD);
        for (sharer, _) in crowded {
            let places = Places {
                now: self.now.0,
                pace_at: queue.pace_at,
                interval: self.limits.interval,
                active_since,
                limit: QUEUED_AT_ONCE,
            };
            let client = (sharers[sharer].tenant_id.as_str(), sharers[sharer].id.as_str());
            let count = credentials_queue_up(tx, ALL_TENANTS, client, places).await?.cast_signed();
            queue.pace_at += count * self.limits.interval;
            self.queues_up |= count == QUEUED_AT_ONCE;
        }
        for one in queues {
            one.go_on_from(&queue);
        }
        Ok(queue.owed)
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

    /// How the queue of a client stands, as each of those who share it sees it.
    fn queues(&self, sharers: &[&IntegrationRow], taken: usize, in_air: i64, berths: usize) -> Vec<Queue> {
        // Those just taken count as in the air already.
        let in_air = usize::try_from(in_air).unwrap_or_default().saturating_sub(taken);
        let latest = self.now.after(LONGEST_QUEUE).0.saturating_mul(1000);
        let pace_at = sharers.iter().map(|one| one.pace_at).filter(|pace_at| *pace_at <= latest).max();
        let queue = |integration: &&IntegrationRow| Queue {
            pace_at: pace_at.unwrap_or_default(),
            credit: integration.retry_credit,
            retried_at: integration.retried_at.map(Millis),
            answered: integration.answered.map(|count| u32::try_from(count).unwrap_or_default()),
            integration: standing(integration),
            free: self.limits.in_air.saturating_sub(in_air).min(berths),
            owed: 0,
            is_shared: sharers.len() > 1,
        };
        sharers.iter().map(queue).collect()
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

fn pace<'i>(integration: &'i IntegrationRow, queue: &Queue) -> Pace<'i> {
    Pace {
        tenant_id: &integration.tenant_id,
        id: &integration.id,
        pace_at: queue.pace_at,
        retry_credit: queue.credit,
        retried_at: queue.retried_at.map(|at| at.0),
    }
}

/// Whose places are looked at for one to change with: those of the same integration, and of some of the others.
fn nearest<'i>(sharers: &[&'i IntegrationRow], own: usize) -> Vec<&'i IntegrationRow> {
    let others = sharers.iter().enumerate().filter(|(sharer, _)| *sharer != own).map(|(_, one)| *one);
    std::iter::once(sharers[own]).chain(others.take(OTHERS_LOOKED_AT)).collect()
}

/// A part of a minute that is a credential's own.
fn scatter(id: &str) -> Duration {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    Duration::from_millis(hasher.finish() % 60_000)
}
