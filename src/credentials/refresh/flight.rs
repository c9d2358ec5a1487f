//! The machine: one flight of one credential.

mod doubt;
mod landing;

use std::mem;
use std::time::Duration;

use self::landing::{mark_reauth, over, record, serve, serve_or, store, unavailable, unrefreshable};

use super::policy::{Jitter, Policy, Replay, Revocation, Wish, alive, enough};
use super::words::{
    Action, Claim, Claimed, Code, Doubt, Event, Failure, Integration, Outcome, Phase, Record, Status, Unrecognised,
    Verdict, View, Wave,
};
use crate::clock::Millis;

/// A flight that holds no claim reads the row at most this often; each reading means that others made progress.
const MOST_LOOKS: u32 = 64;
/// So many answers that no table explains, over so long, need a person's attention (provider facts, D.5).
const UNRECOGNISED: (u32, Duration) = (3, Duration::from_secs(15 * 60));
/// What callers are told when nobody knows better.
const SOON: Duration = Duration::from_secs(1);

/// A claim under way, and the row as it was when it was made.
#[derive(Clone, Debug)]
struct Held {
    claimed: Claimed,
    at: Millis,
    view: View,
    /// The doubt from before this claim; it stays unless this answer settles it.
    doubt: Option<Doubt>,
    /// The row does not say yet that the token may be sent.
    announces: bool,
}

/// Tokens on their way into the store.
#[derive(Clone, Debug)]
struct Cargo<T> {
    tokens: T,
    claimed: Claimed,
    generation: i64,
    only_fence: bool,
    /// When storing was first tried.
    since: Millis,
    /// The row from before the refresh; unknown to a spooled answer.
    old: Option<View>,
}

/// How a flight goes on once a record is written.
#[derive(Clone, Debug)]
enum After {
    /// Send the token again at once, while the provider tolerates it.
    Replay,
    /// Serve what lives, else try again at this time if that is soon, else end so.
    Failed { retry_at: Millis, code: Code, otherwise: Verdict },
    /// Serve what lives, else `needs_reauth`.
    Reauth(Code),
}

#[derive(Clone, Debug)]
enum State<T> {
    /// Before [`Event::Begin`]; with tokens when a spooled answer is replayed.
    Ready(Option<Cargo<T>>),
    /// Reading, with nothing in hand.
    Loading,
    /// Waiting for a rival or for a back-off, with nothing in hand.
    Waiting,
    Claiming {
        view: View,
        claim: Claim,
        at: Millis,
    },
    Sending(Held),
    /// Writing down that the token leaves; it waits meanwhile.
    Announcing(Held),
    /// Refused for good by the provider: is the row still the one we refreshed?
    Rereading {
        held: Held,
        code: Code,
    },
    Recording {
        record: Record,
        view: View,
        /// A claim must not be left behind: repeat until it is written.
        insist: bool,
        after: After,
    },
    Storing(Cargo<T>),
    /// Commit of unknown outcome: reading what happened.
    Checking(Cargo<T>),
    Spooling(Cargo<T>),
    /// Ending late tokens; then on with this row, or with nothing when it is gone.
    Revoking(Option<View>),
    /// The database failed; the same again after a pause.
    Pausing(Box<Self>),
    Over,
}

type Next<T> = (State<T>, Action<T>);

/// One flight: from a wish to a verdict. `T` is an opaque handle to a token set, cheap to clone
/// (an `Arc` of the sealed and the open form); the machine never looks inside.
#[derive(Clone, Debug)]
pub struct Flight<T> {
    policy: Policy,
    wish: Wish,
    jitter: Jitter,
    state: State<T>,
    begun: Millis,
    looks: u32,
    /// When the row was last asked for.
    asked_at: Millis,
    sends: u8,
    /// The first row seen. Whatever is newer was refreshed while we watched.
    first_generation: Option<i64>,
    /// Generation and fence of a claim whose commit may have happened, and the doubt from before it.
    unsure: Option<(i64, i64, Option<Doubt>)>,
    stopping: bool,
}

impl<T: Clone> Flight<T> {
    /// A flight that has not begun; give it [`Event::Begin`]. One jitter is enough: it only has to differ from
    /// that of other credentials and nodes.
    #[must_use]
    pub fn new(policy: Policy, wish: Wish, jitter: Jitter) -> Self {
        Self {
            policy,
            wish,
            jitter,
            state: State::Ready(None),
            begun: Millis(0),
            looks: 0,
            asked_at: Millis(0),
            sends: 0,
            first_generation: None,
            unsure: None,
            stopping: false,
        }
    }

    /// A flight that only brings home a spooled answer.
    #[must_use]
    pub fn replay(policy: Policy, claimed: Claimed, tokens: T) -> Self {
        let generation = claimed.generation;
        let cargo = Cargo { tokens, claimed, generation, only_fence: false, since: Millis(0), old: None };
        // Whatever the row says in the end, a spooled answer alone is no reason to spend another token.
        let wish = Wish::life(Duration::ZERO);
        Self { state: State::Ready(Some(cargo)), sends: u8::MAX, ..Self::new(policy, wish, Jitter(0)) }
    }

    /// Whether the verdict was given.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Takes one event, returns the one action that follows. An event that does not belong here changes
    /// nothing and is answered by [`Action::Continue`].
    pub fn step(&mut self, now: Millis, event: Event<T>) -> Action<T> {
        if matches!(event, Event::Shutdown) {
            self.stopping = true;
        }
        let state = mem::replace(&mut self.state, State::Over);
        let (state, action) = match state {
            State::Ready(cargo) => self.ready(now, cargo, event),
            State::Loading => self.loading(now, event),
            State::Waiting => self.waiting(event),
            State::Claiming { view, claim, at } => self.claiming(now, view, claim, at, event),
            State::Sending(held) => self.sending(now, held, event),
            State::Announcing(held) => self.announcing(now, held, event),
            State::Rereading { held, code } => self.rereading(now, held, code, event),
            State::Recording { record, view, insist, after } => self.recording(now, record, view, insist, after, event),
            State::Storing(cargo) => self.storing(now, cargo, event),
            State::Checking(cargo) => self.checking(now, cargo, event),
            State::Spooling(cargo) => self.spooling(now, cargo, event),
            State::Revoking(row) => self.revoking(now, row, event),
            State::Pausing(state) => self.pausing(*state, event),
            State::Over => (State::Over, Action::Continue),
        };
        if matches!(action, Action::Load | Action::Store { .. }) {
            self.asked_at = now;
        }
        self.state = state;
        action
    }

    fn ready(&mut self, now: Millis, cargo: Option<Cargo<T>>, event: Event<T>) -> Next<T> {
        match (event, cargo) {
            (Event::Begin, Some(cargo)) => store(Cargo { since: now, ..cargo }),
            (Event::Begin, None) => {
                self.begun = now;
                self.load()
            }
            (Event::Shutdown, None) => over(unavailable(Code::SHUTTING_DOWN)),
            (_, cargo) => (State::Ready(cargo), Action::Continue),
        }
    }

    fn loading(&mut self, now: Millis, event: Event<T>) -> Next<T> {
        match event {
            Event::Loaded(view) => self.consider(now, view),
            Event::Gone => over(Verdict::Gone),
            // A claim of ours may stand there, with nothing sent: left alone, it would turn into a doubt.
            Event::StoreFailed | Event::StoreUnknown if self.unsure.is_some() => self.pause(now, State::Loading),
            Event::StoreFailed | Event::StoreUnknown => over(unavailable(Code::STORE_UNAVAILABLE)),
            _ => (State::Loading, Action::Continue),
        }
    }

    fn waiting(&mut self, event: Event<T>) -> Next<T> {
        match event {
            Event::Woken | Event::Shutdown => self.load(),
            _ => (State::Waiting, Action::Continue),
        }
    }

    fn load(&mut self) -> Next<T> {
        self.looks += 1;
        (State::Loading, Action::Load)
    }

    /// The heart: what a row means to somebody who holds nothing.
    fn consider(&mut self, now: Millis, view: View) -> Next<T> {
        let first = *self.first_generation.get_or_insert(view.generation);
        match &view.status {
            Status::Deleted => return over(Verdict::Gone),
            Status::Misconfigured => return over(Verdict::Misconfigured),
            Status::NeedsReauth { reason } => return over(self.reauth_verdict(now, &view, reason)),
            Status::Active => {}
        }
        // First of all, since it must not be left behind: a clock that went back may find the token good enough now.
        if let Some(next) = self.own_claim(now, &view) {
            return next;
        }
        // A token refreshed while we watched is handed out whatever its life: nobody could do better.
        let just_refreshed = view.generation > first && alive(&view, now) && !self.wish.sweep;
        if just_refreshed || enough(&view, &self.wish, now) {
            return over(serve(&view, view.last_error.clone()));
        }
        if let Some(until) = self.policy.leased(&view, now) {
            return self.wait_for_rival(now, &view, until);
        }
        let doubt = self.policy.doubt(&view);
        if let Some(doubt) = doubt.filter(|doubt| !self.may_leave(now, &view, doubt)) {
            return self.in_doubt(now, view, doubt);
        }
        if !view.has_refresh_token {
            return unrefreshable(now, view);
        }
        self.gate(now, view, doubt)
    }

    /// A commit of unknown outcome did claim for us, and nothing was sent under it.
    fn own_claim(&mut self, now: Millis, view: &View) -> Option<Next<T>> {
        let (generation, fence, doubt) = self.unsure?;
        let ours = view.lease_is_mine && (view.generation, view.fence) == (generation, fence);
        if !ours || view.phase == Phase::Idle {
            return None;
        }
        self.unsure = None;
        let claimed = Claimed { generation, fence, consents: view.consents };
        let at = view.lease_until.unwrap_or(now).before(self.policy.deadlines.lease);
        let announces = view.phase == Phase::Claimed;
        Some(self.send(now, Held { claimed, at, view: view.clone(), doubt, announces }))
    }

    fn wait_for_rival(&mut self, now: Millis, view: &View, lease_until: Millis) -> Next<T> {
        let deadlines = &self.policy.deadlines;
        let usable = alive(view, now) && !self.insists(view);
        let patience = self.begun.after(if usable { deadlines.courtesy } else { deadlines.patience });
        let tired = now >= patience || now < self.begun || self.looks >= MOST_LOOKS;
        if tired || self.wish.sweep || self.stopping {
            let otherwise = Verdict::RefreshInProgress { retry_after: SOON };
            return over(serve_or(now, view, Code::REFRESH_IN_PROGRESS, otherwise));
        }
        let until = now.after(deadlines.look_again).min(patience).min(lease_until);
        (State::Waiting, Action::Wait { until })
    }

    /// Pauses of the integration and of the credential, then the claim.
    fn gate(&mut self, now: Millis, view: View, doubt: Option<Doubt>) -> Next<T> {
        let mut probe = None;
        match &view.integration {
            Integration::RateLimited { until } if self.policy.holds(*until, now) => {
                let otherwise = Verdict::RateLimited { until: *until };
                return over(serve_or(now, &view, Code::RATE_LIMITED, otherwise));
            }
            Integration::Faulty { code, probe_at } if self.policy.holds(*probe_at, now) => {
                return over(serve_or(now, &view, code.clone(), Verdict::Misconfigured));
            }
            // A replay inside the grace cannot wait for the provider to be well again.
            Integration::Unreachable { .. } if doubt.is_some_and(|doubt| self.policy.must_hurry(&doubt, now)) => {}
            Integration::Unreachable { code, probe_at } if self.policy.holds(*probe_at, now) => {
                let otherwise = Verdict::Unavailable { code: code.clone(), retry_after: probe_at.left(now) };
                return over(serve_or(now, &view, code.clone(), otherwise));
            }
            // A probe time that only a jumped clock can have written is not waited for, and cannot be taken by comparing
            // it with now either: the store would refuse every claim until it comes.
            Integration::Faulty { probe_at, .. } | Integration::Unreachable { probe_at, .. } if *probe_at > now => {}
            Integration::Faulty { .. } => probe = Some(now.after(self.policy.deadlines.probe)),
            Integration::Unreachable { .. } => probe = Some(now.after(self.policy.deadlines.outage_probe)),
            Integration::RateLimited { .. } | Integration::Working => {}
        }
        let excused = self.wish.forced && self.sends == 0;
        let code = view.last_error.clone().unwrap_or(Code::REFRESH_IN_PROGRESS);
        if let Some(retry_at) = view.next_attempt_at.filter(|at| !excused && self.policy.holds(*at, now)) {
            let otherwise = Verdict::Unavailable { code: code.clone(), retry_after: retry_at.left(now) };
            return self.failed(now, &view, retry_at, code, otherwise);
        }
        if self.looks >= MOST_LOOKS || self.stopping || self.sends > self.policy.retries.saturating_add(1) {
            let code = if self.stopping { Code::SHUTTING_DOWN } else { code };
            return over(serve_or(now, &view, code.clone(), unavailable(code)));
        }
        let doubt = doubt.and_then(|_| self.policy.doubt_taken_over(&view, now));
        let claim = Claim {
            generation: view.generation,
            fence: view.fence,
            phase: view.phase,
            doubt_since: view.doubt.map(|doubt| doubt.since),
            lease_until: now.after(self.policy.deadlines.lease),
            believable: self.policy.believable(now, self.policy.deadlines.lease),
            doubt: doubt.map(|doubt| self.counted(now, doubt)),
            announces: self.policy.announces(doubt),
            probe,
        };
        (State::Claiming { view, claim, at: now }, Action::Claim(claim))
    }

    /// The doubt with one more sending counted in. A last try is an attempt of its own, and begins anew.
    fn counted(&self, now: Millis, doubt: Doubt) -> Doubt {
        let first_sent = if self.policy.may_replay(&doubt, now) { doubt.first_sent } else { now };
        Doubt { first_sent, replays: doubt.replays.saturating_add(1), ..doubt }
    }

    fn claiming(&mut self, now: Millis, view: View, claim: Claim, at: Millis, event: Event<T>) -> Next<T> {
        match event {
            Event::Claimed { fence } => {
                self.unsure = None;
                let claimed = Claimed { generation: claim.generation, fence, consents: view.consents };
                let doubt = self.policy.doubt_taken_over(&view, at);
                self.send(now, Held { claimed, at, view, doubt, announces: claim.announces })
            }
            Event::ClaimLost => self.load(),
            Event::Gone => over(Verdict::Gone),
            Event::StoreFailed if self.unsure.is_some() => self.pause(now, State::Loading),
            Event::StoreFailed => {
                let code = Code::STORE_UNAVAILABLE;
                over(serve_or(now, &view, code.clone(), unavailable(code)))
            }
            Event::StoreUnknown => {
                let doubt = self.policy.doubt_taken_over(&view, at);
                self.unsure = Some((claim.generation, claim.fence.saturating_add(1), doubt));
                self.load()
            }
            _ => (State::Claiming { view, claim, at }, Action::Continue),
        }
    }

    /// Sends, unless the claim has grown old.
    fn send(&mut self, now: Millis, held: Held) -> Next<T> {
        let too_late = held.doubt.is_some_and(|doubt| !self.may_leave(now, &held.view, &doubt));
        self.sends = self.sends.saturating_add(1);
        if self.is_stale(now, &held) || too_late || self.stopping {
            return self.called_off(now, held);
        }
        let (give_up_after, tick_every) = (self.policy.give_up_after(), self.policy.deadlines.renew);
        let action = Action::Send { claimed: held.claimed, announces: held.announces, give_up_after, tick_every };
        (State::Sending(held), action)
    }

    /// Nothing has left, and nothing will: the claim is given back, and no attempt is counted.
    fn called_off(&self, now: Millis, held: Held) -> Next<T> {
        let code = if self.stopping { Code::SHUTTING_DOWN } else { Code::NOT_SENT };
        let failure = self.failure(now, &held.view, held.claimed.fence, code.clone(), held.doubt);
        let failure = Failure { attempts: held.view.attempts, next_attempt_at: now, ..failure };
        let otherwise = unavailable(code.clone());
        record(Record::Failure(failure), held.view, true, After::Failed { retry_at: now, code, otherwise })
    }

    /// Whether so much of the lease has passed since it was written that somebody may be about to take it for dead.
    fn is_stale(&self, now: Millis, held: &Held) -> bool {
        now >= held.at.after(self.policy.deadlines.lease / 2) || now < held.at
    }

    fn sending(&mut self, now: Millis, held: Held, event: Event<T>) -> Next<T> {
        match event {
            Event::Answered(outcome) => self.answered(now, held, outcome),
            // RL-32: a token that may leave only once does not set out in the last moments of its process.
            Event::AtDoor if held.announces && self.stopping => self.called_off(now, held),
            Event::AtDoor if held.announces => {
                let (claimed, lease_until) = (held.claimed, now.after(self.policy.deadlines.lease));
                (State::Announcing(Held { at: now, ..held }), Action::Announce { claimed, lease_until })
            }
            Event::Tick => {
                let lease_until = now.after(self.policy.deadlines.lease);
                let action = Action::RenewLease { claimed: held.claimed, lease_until };
                (State::Sending(held), action)
            }
            // A lost lease, a deleted row, a shutdown: the answer to what has left is waited for all the same.
            _ => (State::Sending(held), Action::Continue),
        }
    }

    /// Only where the row says so may the token be sent: a claim that is another's by now sends nothing.
    fn announcing(&mut self, now: Millis, held: Held, event: Event<T>) -> Next<T> {
        match event {
            Event::Announced if self.stopping => self.called_off(now, held),
            Event::Announced if !self.is_stale(now, &held) => {
                (State::Sending(Held { announces: false, ..held }), Action::Depart)
            }
            Event::Announced => self.not_tried(now, held, Code::NOT_SENT),
            Event::AnnounceLost | Event::StoreFailed | Event::StoreUnknown => {
                self.not_tried(now, held, Code::STORE_UNAVAILABLE)
            }
            _ => (State::Announcing(held), Action::Continue),
        }
    }

    fn answered(&mut self, now: Millis, held: Held, outcome: Outcome<T>) -> Next<T> {
        let (view, fence, doubt) = (&held.view, held.claimed.fence, held.doubt);
        match outcome {
            Outcome::Fresh(tokens) => {
                let (claimed, generation) = (held.claimed, held.claimed.generation);
                store(Cargo { tokens, claimed, generation, only_fence: false, since: now, old: Some(held.view) })
            }
            // It was still waiting at its door.
            Outcome::Ambiguous if held.announces => self.unanswered(now, held, Code::NOT_SENT),
            Outcome::ServerError(code) if held.announces => self.unanswered(now, held, code),
            Outcome::Ambiguous if self.policy.replay == Replay::Safe => self.unanswered(now, held, Code::RESPONSE_LOST),
            Outcome::Ambiguous => self.lost_answer(now, held, Code::RESPONSE_LOST, false),
            Outcome::ServerError(code) if self.policy.replay == Replay::Safe => self.unanswered(now, held, code),
            Outcome::ServerError(code) => self.lost_answer(now, held, code, true),
            Outcome::NotSent => self.unanswered(now, held, Code::NOT_SENT),
            Outcome::Transient(code) => self.unanswered(now, held, code),
            Outcome::Reauth(code) => (State::Rereading { held, code }, Action::Load),
            Outcome::RateLimited(until) => {
                let failure = self.failure(now, view, fence, Code::RATE_LIMITED, doubt);
                let latest = now.after(self.policy.deadlines.longest_pause);
                // No length, none at all, or a date that a clock which differs has passed: the provider wants a pause all the same.
                let said = until.filter(|until| *until > now).map(|until| until.min(latest));
                let until = said.unwrap_or_else(|| self.unsaid_pause(now, view, &failure));
                let failure = Failure { next_attempt_at: until, ..failure };
                let otherwise = Verdict::RateLimited { until };
                let after = After::Failed { retry_at: until, code: Code::RATE_LIMITED, otherwise };
                record(Record::RateLimited { until, failure }, held.view, true, after)
            }
            Outcome::Configuration(code) => {
                // The integration's probe decides when to try again; the credential itself has not failed.
                let failure = self.failure(now, view, fence, code.clone(), doubt);
                let failure = Failure { attempts: view.attempts, next_attempt_at: now, ..failure };
                let probe_at = now.after(self.policy.deadlines.probe);
                let after = After::Failed { retry_at: probe_at, code: code.clone(), otherwise: Verdict::Misconfigured };
                record(Record::Configuration { code, probe_at, failure }, held.view, true, after)
            }
            Outcome::NotTried(code) => self.not_tried(now, held, code),
            Outcome::Admin(code) => self.attention(now, held, code, None),
            Outcome::Unrecognised(code) => self.unrecognised(now, held, code),
            Outcome::Poisoned(code) => self.attention(now, held, code, None),
        }
    }

    /// Nothing has left, for a reason of our own.
    fn not_tried(&mut self, now: Millis, held: Held, code: Code) -> Next<T> {
        let failure = self.failure(now, &held.view, held.claimed.fence, code.clone(), held.doubt);
        let (retry_at, otherwise) = (failure.next_attempt_at, unavailable(code.clone()));
        record(Record::Failure(failure), held.view, true, After::Failed { retry_at, code, otherwise })
    }

    /// A definite failure that spent nothing, or that may be repeated freely.
    fn unanswered(&mut self, now: Millis, held: Held, code: Code) -> Next<T> {
        let failure = self.failure(now, &held.view, held.claimed.fence, code.clone(), held.doubt);
        let retry_at = failure.next_attempt_at;
        let otherwise = Verdict::Unavailable { code: code.clone(), retry_after: retry_at.left(now) };
        let after = After::Failed { retry_at, code, otherwise };
        record(self.strain(now, failure), held.view, true, after)
    }

    /// A failure that says something about the provider, not about this credential.
    fn strain(&self, now: Millis, failure: Failure) -> Record {
        let probe_at = now.after(self.policy.deadlines.outage_probe);
        Record::Unanswered { open_after: self.policy.outage, probe_at, failure }
    }

    /// The provider wants a pause and does not say how long. Asked again soon after the last one, a short one was not enough.
    fn unsaid_pause(&self, now: Millis, view: &View, failure: &Failure) -> Millis {
        let Integration::RateLimited { until: last } = view.integration else { return failure.next_attempt_at };
        let deadlines = &self.policy.deadlines;
        let again = now < last.after(deadlines.probe);
        failure.next_attempt_at.max(if again { now.after(deadlines.outage_probe) } else { now })
    }

    fn unrecognised(&mut self, now: Millis, held: Held, code: Code) -> Next<T> {
        let seen = held.view.unrecognised;
        let since = if seen.count == 0 { now } else { seen.since };
        let seen = Unrecognised { count: seen.count.saturating_add(1), since };
        if seen.count >= UNRECOGNISED.0 && now >= since.after(UNRECOGNISED.1) {
            return self.attention(now, held, Code::NEEDS_ATTENTION, Some(seen));
        }
        let failure = self.failure(now, &held.view, held.claimed.fence, code.clone(), held.doubt);
        let failure = Failure { unrecognised: seen, ..failure };
        let retry_at = failure.next_attempt_at;
        let otherwise = Verdict::Unavailable { code: code.clone(), retry_after: retry_at.left(now) };
        record(Record::Failure(failure), held.view, true, After::Failed { retry_at, code, otherwise })
    }

    /// A person has to act first; until then the row is only looked at slowly. A forced refresh is "try again".
    fn attention(&mut self, now: Millis, held: Held, code: Code, seen: Option<Unrecognised>) -> Next<T> {
        let failure = self.failure(now, &held.view, held.claimed.fence, code.clone(), held.doubt);
        // A replay that was refused must not wait until the grace is over.
        let urgent = held.doubt.is_some_and(|doubt| self.policy.may_replay(&doubt, now));
        let retry_at = if urgent { failure.next_attempt_at } else { now.after(self.policy.deadlines.attention) };
        let unrecognised = seen.unwrap_or(held.view.unrecognised);
        let failure = Failure { next_attempt_at: retry_at, unrecognised, ..failure };
        let otherwise = Verdict::Unavailable { code: code.clone(), retry_after: retry_at.left(now) };
        record(Record::Failure(failure), held.view, true, After::Failed { retry_at, code, otherwise })
    }

    fn failure(&self, now: Millis, view: &View, fence: i64, code: Code, doubt: Option<Doubt>) -> Failure {
        let attempts = view.attempts.saturating_add(1);
        let pause = self.policy.pause(attempts, self.jitter);
        // A provider that is away is asked by probes; a credential that made one must not be asleep when it is back (RL-14).
        let is_away = matches!(view.integration, Integration::Unreachable { .. });
        let pause = if is_away { pause.min(self.policy.deadlines.outage_probe) } else { pause };
        Failure {
            generation: view.generation,
            fence,
            abandoned: false,
            attempts,
            next_attempt_at: now.after(pause),
            last_error: code,
            doubt,
            unrecognised: view.unrecognised,
        }
    }
}
