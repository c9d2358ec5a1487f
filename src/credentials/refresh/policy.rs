//! What a provider allows, what a caller wants, and the arithmetic of times that follows.

use std::time::Duration;

use super::words::{Code, Doubt, Integration, Keep, Phase, Status, View};
use crate::clock::Millis;

/// A time that never comes: there is nothing for the sweep to do.
pub const NEVER: Millis = Millis(i64::MAX);

/// Nothing is planned further ahead than this, whatever a provider or a clock says.
const LONGEST_PLAN: Duration = Duration::from_secs(366 * 24 * 3600);
/// No refresh is due earlier than this before the end, except for jitter (RL-11).
const LEAST_LEAD: Duration = Duration::from_secs(60);
/// How far the clocks of nodes may differ.
const SKEW: Duration = Duration::from_secs(300);
/// Back-off never comes closer than this to "at once".
const LEAST_PAUSE: Duration = Duration::from_millis(250);

/// May the same refresh token be sent again when the first answer was lost? (Provider facts, D.2.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// Yes: it does not rotate, or the old one lives on for long (families F1 and F2).
    Safe,
    /// Yes, for this long after it was first sent (F3).
    Grace(Duration),
    /// No: it died at once, and using it again may end the whole family (F4 and F5).
    Unsafe,
}

/// What ends when a token is revoked at the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// The token set, and nothing that a later consent gave.
    OneTokenSet,
    /// Everything the user ever granted to this client (Google, provider facts A.6).
    WholeConsent,
    /// The provider has no revocation.
    Impossible,
}

/// The protocol's times. The defaults are the design's; tests may shorten them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// A lease's length: 30 s.
    pub lease: Duration,
    /// Between two renewals: 10 s.
    pub renew: Duration,
    /// How long a doubt lasts: 120 s.
    pub doubt: Duration,
    /// Connection and TLS may take this long: 5 s. A replay has to arrive inside the grace, not to leave inside it.
    pub connect: Duration,
    /// Wait for a provider that does not rotate: 10 s after sending.
    pub answer: Duration,
    /// Wait for one that does, since giving up loses a token: 120 s after sending.
    pub rotating_answer: Duration,
    /// How long a flight looks again while somebody else refreshes or a back-off runs: 10 s, as long as callers wait.
    pub patience: Duration,
    /// How long it looks again while somebody else refreshes and the stored token lives: 250 ms. Most providers answer
    /// within it; a dead rival must not keep the readers of a living token.
    pub courtesy: Duration,
    /// Between two looks: 500 ms.
    pub look_again: Duration,
    /// How long storing is repeated before the spool: 90 s (RL-05 asks for 60 s at least).
    pub store: Duration,
    /// Between two attempts to store: 500 ms.
    pub store_again: Duration,
    /// First back-off window: 2 s, doubled with every attempt.
    pub backoff: Duration,
    /// Largest back-off window, also the cap on `Retry-After`: one hour.
    pub longest_pause: Duration,
    /// Between two tries where a person has to act first: one hour.
    pub attention: Duration,
    /// Between two probes of a faulty integration: one minute.
    pub probe: Duration,
    /// Between two probes of a provider that does not answer: 30 s, so that calls go on within that time (RL-14).
    pub outage_probe: Duration,
    /// Refusals belong to one wave when they come within this time: a day, since a client whose tokens live for hours is
    /// refused by one after the other.
    pub wave: Duration,
    /// A damaged row is looked at again this long after the last look: a day.
    pub quarantine: Duration,
    /// How far the clocks of nodes may differ; what is further ahead than a rule plus this is a jump: 5 min.
    pub skew: Duration,
}

impl Deadlines {
    /// Whether what is to be waited for until then is still to come, and can have been written by a good clock (RL-12).
    pub(in crate::credentials) fn holds(&self, until: Millis, now: Millis) -> bool {
        until > now && until <= now.after(self.longest_pause).after(self.skew)
    }

    /// When a probe may leave: not inside a pause that the provider has asked for (RL-09). Such a pause came as the answer of an
    /// earlier probe; one that ends later than that can explain was written by a clock that has jumped (RL-12).
    pub(in crate::credentials) fn probe_after(&self, pause_until: Option<Millis>, probe_at: Millis) -> Millis {
        let latest = probe_at.after(self.longest_pause).after(self.skew);
        pause_until.filter(|until| *until <= latest).map_or(probe_at, |until| until.max(probe_at))
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self {
            lease: s(30),
            renew: s(10),
            doubt: s(120),
            connect: s(5),
            answer: s(10),
            rotating_answer: s(120),
            patience: s(10),
            courtesy: Duration::from_millis(250),
            look_again: Duration::from_millis(500),
            store: s(90),
            store_again: Duration::from_millis(500),
            backoff: s(2),
            longest_pause: s(3600),
            attention: s(3600),
            probe: s(60),
            outage_probe: s(30),
            wave: s(24 * 3600),
            quarantine: s(24 * 3600),
            skew: SKEW,
        }
    }
}

/// What the provider of a credential allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// May a token be sent twice?
    pub replay: Replay,
    /// Does an answer bring a new refresh token? Decides how long an answer is waited for.
    pub rotates: bool,
    /// What revoking a late token would end.
    pub revocation: Revocation,
    /// How often a doubtful token may be sent again within the grace: once.
    pub replays: u8,
    /// Further attempts inside one flight after definite failures (RL-08): 2. The driver lowers it to 0 when
    /// the integration's retry budget is spent.
    pub retries: u8,
    /// So many attempts in a row without an answer are an outage: 8.
    pub outage: u32,
    /// So many refusals, less two for every success between, are the client's fault: 10.
    pub wave: u32,
    /// An idle credential is refreshed this long after its last refresh; less than half of the provider's
    /// idle expiry (provider facts, D.3 point 11).
    pub keep_alive: Duration,
    /// The protocol's times.
    pub deadlines: Deadlines,
}

impl Policy {
    /// A provider's policy with the design's numbers; what is idle is kept alive weekly.
    #[must_use]
    pub fn new(replay: Replay, rotates: bool, revocation: Revocation) -> Self {
        Self {
            replay,
            rotates,
            revocation,
            replays: 1,
            retries: 2,
            outage: 8,
            wave: 10,
            keep_alive: Duration::from_secs(7 * 24 * 3600),
            deadlines: Deadlines::default(),
        }
    }

    /// How long the driver waits for an answer after sending.
    #[must_use]
    pub fn give_up_after(&self) -> Duration {
        if self.rotates { self.deadlines.rotating_answer } else { self.deadlines.answer }
    }

    /// The furthest a time that was set to "now plus `span`" can lie ahead, seen from any node. Anything beyond
    /// was written by a clock that has jumped, and no longer binds (RL-12).
    #[must_use]
    pub fn believable(&self, now: Millis, span: Duration) -> Millis {
        now.after(span).after(self.deadlines.skew)
    }

    /// Whether `pause_until` still holds, for pauses of at most `longest_pause`.
    pub(super) fn holds(&self, pause_until: Millis, now: Millis) -> bool {
        self.deadlines.holds(pause_until, now)
    }

    /// Somebody is about to send under a lease right now, or has.
    pub(super) fn leased(&self, view: &View, now: Millis) -> Option<Millis> {
        let until = view.lease_until?;
        let live = until > now && until <= self.believable(now, self.deadlines.lease);
        (live && view.phase != Phase::Idle).then_some(until)
    }

    /// The doubt of a row whose lease has ended: recorded, or implied by a lease that died in phase `sent`.
    pub(super) fn doubt(&self, view: &View) -> Option<Doubt> {
        if self.replay == Replay::Safe {
            return None;
        }
        let Phase::Sent { since } = view.phase else { return view.doubt };
        let (first_sent, replays) = view.doubt.map_or((since, 0), |doubt| (doubt.first_sent, doubt.replays));
        Some(Doubt { first_sent, since: view.lease_until.unwrap_or(since), replays, likely_unspent: false })
    }

    /// The doubt that a claim at this time takes over: one that nobody has written down begins with it.
    pub(super) fn doubt_taken_over(&self, view: &View, at: Millis) -> Option<Doubt> {
        let doubt = self.doubt(view)?;
        Some(if view.phase == Phase::Idle { doubt } else { Doubt { since: at, ..doubt } })
    }

    /// Whether it is written down on its own that a token leaves: where one that was sent may not be sent again, whoever dies
    /// between claim and departure must not leave a doubt behind (RL-06). A doubt is there already.
    pub(super) fn announces(&self, doubt: Option<Doubt>) -> bool {
        self.replay != Replay::Safe && doubt.is_none()
    }

    /// Whether the provider tolerates the same token once more.
    pub(in crate::credentials) fn may_replay(&self, doubt: &Doubt, now: Millis) -> bool {
        self.replay == Replay::Safe || self.replayable_until(doubt, now).is_some_and(|end| now < end)
    }

    /// Whether a token has to leave before its grace is over, whatever else there is: its answer was given, and lost.
    pub(in crate::credentials) fn must_hurry(&self, doubt: &Doubt, now: Millis) -> bool {
        !doubt.likely_unspent && self.may_replay(doubt, now)
    }

    /// The end of the time in which a doubtful token may leave once more, where there is such a time: what leaves has to
    /// arrive inside the grace, by the provider's clock, and the grace was begun by another node's.
    fn replayable_until(&self, doubt: &Doubt, now: Millis) -> Option<Millis> {
        let Replay::Grace(grace) = self.replay else { return None };
        // First sent in the future: the two clocks are further apart than the grace can bear.
        let bearable = doubt.first_sent <= now.after(self.grace_skew(grace));
        let end = doubt.first_sent.after(grace).before(self.deadlines.connect).before(self.grace_skew(grace));
        (bearable && doubt.replays < self.replays).then_some(end)
    }

    /// When a token that may be good can be tried once more: when nobody can come with a late answer. Where a holder never came
    /// to an end, its clock may differ from that of whoever has written the doubt down.
    pub(super) fn last_try_at(&self, doubt: &Doubt) -> Millis {
        let over = doubt.since.after(self.deadlines.doubt);
        if doubt.likely_unspent { over } else { over.after(self.deadlines.skew) }
    }

    /// Whether the access token is over. One whose end no good clock can have written is as good as over: nobody knows
    /// how old it is.
    pub(super) fn has_ended(&self, view: &View, now: Millis) -> bool {
        view.expires_at.is_some_and(|end| end <= now || is_unbelievable(view, end, now))
    }

    /// What the clocks of nodes may differ by where a grace is counted: a sixth of it. More would leave nothing of a
    /// short grace, less would replay outside of it, which a provider takes for a theft.
    fn grace_skew(&self, grace: Duration) -> Duration {
        self.deadlines.skew.min(grace / 6)
    }

    /// Exponential back-off with full jitter: anything up to `backoff · 2^(attempts − 1)`, capped (RL-08).
    #[must_use]
    pub fn pause(&self, attempts: u32, jitter: Jitter) -> Duration {
        let doublings = attempts.saturating_sub(1).min(20);
        let window = self.deadlines.backoff.saturating_mul(1 << doublings).min(self.deadlines.longest_pause);
        jitter.of(window).max(LEAST_PAUSE)
    }
}

/// A random fraction from 0 to 1, drawn by the caller from `Entropy`: the whole range of `u32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jitter(pub u32);

impl Jitter {
    /// This fraction of `span`.
    #[must_use]
    pub fn of(self, span: Duration) -> Duration {
        span.mul_f64(f64::from(self.0) / f64::from(u32::MAX))
    }
}

/// What the caller wants of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Life the token should have left; at most half of its original life is insisted on.
    pub life: Duration,
    /// The caller has this generation already and needs a newer one.
    pub newer_than: Option<i64>,
    /// Refresh whatever there is. Skips the credential's own back-off once, never the integration's pause.
    pub forced: bool,
    /// The sweep: refresh when due, settle doubts, wait for nobody.
    pub sweep: bool,
}

impl Wish {
    /// A token with this much life left.
    #[must_use]
    pub fn life(life: Duration) -> Self {
        Self { life, newer_than: None, forced: false, sweep: false }
    }

    /// A newer token than the one of this generation, which a provider has refused or which is about to end.
    #[must_use]
    pub fn newer_than(generation: i64) -> Self {
        Self { newer_than: Some(generation), ..Self::life(Duration::ZERO) }
    }

    /// One refresh, come what may.
    #[must_use]
    pub fn forced() -> Self {
        Self { forced: true, ..Self::life(Duration::ZERO) }
    }

    /// What the sweep wants of a due row.
    #[must_use]
    pub fn sweep() -> Self {
        Self { sweep: true, ..Self::life(Duration::ZERO) }
    }
}

/// Whether the stored token is alive at all.
pub(super) fn alive(view: &View, now: Millis) -> bool {
    view.expires_at.is_none_or(|end| end > now)
}

/// Whether no rule can have put the token's end there: one of two clocks has jumped, and nobody knows how old the token is.
fn is_unbelievable(view: &View, end: Millis, now: Millis) -> bool {
    view.original_life.is_some_and(|life| end > now.after(life).after(SKEW))
}

/// Whether the stored token fulfils the wish, so that nothing needs to be written.
///
/// Needed life is the smaller of what was asked and half of the original life. Tokens that do not expire always
/// have enough, and those whose end no good clock can have written never. The sweep asks for the longest lead that [`due_at`] can give and wants doubts settled.
#[must_use]
pub fn enough(view: &View, wish: &Wish, now: Millis) -> bool {
    if view.status != Status::Active
        || wish.forced
        || wish.newer_than.is_some_and(|generation| view.generation <= generation)
        || (wish.sweep && (view.doubt.is_some() || view.phase != Phase::Idle))
    {
        return false;
    }
    let Some(end) = view.expires_at else { return true };
    if is_unbelievable(view, end, now) {
        return false;
    }
    let half = view.original_life.map_or(Duration::MAX, |life| life / 2);
    let asked = if wish.sweep { lead(view.original_life, Jitter(u32::MAX)) } else { wish.life };
    end > now && end.left(now) >= asked.min(half)
}

/// How long before its end a token is refreshed: max(60 s, 10 % of life), up to twice that by jitter, never more than
/// half of its life (RL-11, RL-13).
fn lead(life: Option<Duration>, jitter: Jitter) -> Duration {
    let life = life.unwrap_or(Duration::ZERO);
    let base = LEAST_LEAD.max(life / 10);
    let jittered = base + jitter.of(base);
    if life.is_zero() { jittered } else { jittered.min(life / 2) }
}

/// When the sweep should look at this row next, seen from `now`; [`NEVER`] when only a person can change anything.
///
/// A time that has passed means that there is work which can be done at once: a doubt that can neither be replayed any
/// more nor reported yet comes due when it can be reported, or the sweep would look at it without end.
/// Never negative, and never later than a year after the last refresh but for a pause still running, so that no
/// clock can lose a row. Spreading a crowd
/// that is due together is the caller's affair (caps per provider and client).
#[must_use]
pub fn due_at(view: &View, policy: &Policy, now: Millis, jitter: Jitter) -> Millis {
    if view.status != Status::Active {
        return NEVER;
    }
    let latest = Millis(view.refreshed_at.0.max(0)).after(LONGEST_PLAN);
    let held = match view.integration {
        Integration::RateLimited { until: held }
        | Integration::Faulty { probe_at: held, .. }
        | Integration::Unreachable { probe_at: held, .. } => held,
        Integration::Working => Millis(0),
    };
    let held = if policy.holds(held, now) { held } else { Millis(0) };
    if view.phase != Phase::Idle || view.doubt.is_some() {
        return Millis(settled_at(view, policy, held, now).0.max(0));
    }
    let expiry = if view.has_refresh_token { refresh_at(view, policy, jitter) } else { view.expires_at };
    let Some(expiry) = expiry else { return NEVER };
    let mut due = Millis(expiry.0.clamp(0, latest.0));
    if let Some(backoff) = view.next_attempt_at {
        due = due.max(backoff);
    }
    due = due.max(held);
    if let (true, Some(failed_at)) = (quarantined(view), view.failed_at) {
        due = due.max(failed_at.after(policy.deadlines.quarantine));
    }
    due
}

/// Damage is not mended by trying again (RL-16).
fn quarantined(view: &View) -> bool {
    view.last_error.as_ref().is_some_and(|code| [Code::UNREADABLE, Code::PROVIDER_UNKNOWN].contains(code))
}

/// Expiry minus lead, or the keep-alive interval while it is idle, or nothing, as the integration wishes.
fn refresh_at(view: &View, policy: &Policy, jitter: Jitter) -> Option<Millis> {
    let kept = view.refreshed_at.after(policy.keep_alive - jitter.of(policy.keep_alive / 10));
    let Some(end) = view.expires_at else {
        // Without an expiry nothing is refreshed ahead of time: a rotation nobody needs is a risk for nothing.
        return None;
    };
    let due = end.before(lead(view.original_life, jitter));
    match view.keep {
        Keep::Always => Some(due),
        Keep::Active { within } if due > view.last_used_at.after(within) => Some(due.max(kept)),
        Keep::Active { .. } => Some(due),
        Keep::OnDemand => None,
    }
}

/// When an unfinished attempt can be settled: by another one as soon as nothing stands in its way, if that is allowed by
/// then; else when the doubt is to be written down, when it is over, or, for a token that may be good all the same, when its access token is.
fn settled_at(view: &View, policy: &Policy, held: Millis, now: Millis) -> Millis {
    let lease_end = view.lease_until.unwrap_or(Millis(0));
    let free = lease_end.max(view.next_attempt_at.unwrap_or(lease_end));
    let Some(doubt) = policy.doubt(view) else { return free.max(held) };
    // An outage holds up no replay.
    let hurries = !doubt.likely_unspent && matches!(view.integration, Integration::Unreachable { .. });
    let replay = if hurries { free } else { free.max(held) };
    let replayable_until = policy.replayable_until(&doubt, now);
    if replayable_until.is_some_and(|until| replay.max(now) < until) {
        return replay;
    }
    // Nobody has written it down yet, which is done when it cannot be sent again.
    if view.phase != Phase::Idle {
        return replayable_until.map_or(lease_end, |until| lease_end.max(until));
    }
    if !doubt.may_hope(view.silent_at) {
        let over = doubt.since.after(policy.deadlines.doubt);
        return replayable_until.map_or(over, |until| over.max(until));
    }
    let end = match view.expires_at {
        Some(end) if !is_unbelievable(view, end, now) => end,
        Some(_) => now,
        None => return NEVER,
    };
    policy.last_try_at(&doubt).max(end).max(free).max(held)
}
