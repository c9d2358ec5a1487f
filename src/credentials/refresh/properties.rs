//! What must hold for every sequence of events, sensible or not.

use std::collections::HashSet;
use std::time::Duration;

use proptest::prelude::*;

use super::words::*;
use super::*;
use crate::clock::Millis;

const NOW: i64 = 1_800_000_000_000;

/// Reads small choices out of one random number.
struct Bits(u64);

impl Bits {
    fn pick(&mut self, of: u64) -> u64 {
        let choice = self.0 % of;
        self.0 = (self.0 / of).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
        choice
    }
    fn small(&mut self) -> i64 {
        i64::try_from(self.pick(4)).unwrap()
    }
    fn maybe(&mut self) -> bool {
        self.pick(2) == 0
    }
    fn time(&mut self, now: Millis) -> Millis {
        let far = [0, 1, 500, 20_000, 40_000, 200_000, 4_000_000, i64::MAX / 2];
        let offset = far[usize::try_from(self.pick(8)).unwrap()];
        Millis(if self.maybe() { now.0.saturating_add(offset) } else { now.0.saturating_sub(offset) })
    }
    fn view(&mut self, now: Millis) -> View {
        let phase = match self.pick(4) {
            0 | 1 => Phase::Idle,
            2 => Phase::Claimed,
            _ => Phase::Sent { since: self.time(now) },
        };
        let status = match self.pick(10) {
            0 => Status::NeedsReauth { reason: Code::ROTATION_RESPONSE_LOST },
            1 => Status::Misconfigured,
            2 => Status::Deleted,
            _ => Status::Active,
        };
        let integration = match self.pick(8) {
            0 => Integration::RateLimited { until: self.time(now) },
            1 => Integration::Faulty { code: Code::new("invalid_client"), probe_at: self.time(now) },
            2 => Integration::Unreachable { code: Code::NOT_SENT, probe_at: self.time(now) },
            _ => Integration::Working,
        };
        // A claim with a doubt says at once that it sends.
        let doubt = (phase != Phase::Claimed && self.maybe()).then(|| self.doubt(now));
        View {
            generation: self.small(),
            fence: self.small(),
            consents: 1 + self.small() / 3,
            stored_fence: self.maybe().then(|| self.small()),
            lease_until: self.maybe().then(|| self.time(now)),
            lease_is_mine: self.maybe(),
            phase,
            doubt,
            status,
            integration,
            silent_at: (self.pick(4) == 0).then(|| self.time(now)),
            keep: [Keep::Always, Keep::OnDemand][usize::try_from(self.pick(2)).unwrap()],
            expires_at: self.maybe().then(|| self.time(now)),
            original_life: self.maybe().then(|| Duration::from_secs(self.pick(4000))),
            has_refresh_token: self.pick(6) != 0,
            next_attempt_at: (self.pick(4) == 0).then(|| self.time(now)),
            attempts: u32::try_from(self.pick(5)).unwrap(),
            last_error: self.maybe().then_some(Code::NOT_SENT),
            failed_at: self.maybe().then(|| self.time(now)),
            unrecognised: Unrecognised { count: u32::try_from(self.pick(4)).unwrap(), since: self.time(now) },
            refreshed_at: self.time(now),
            last_used_at: self.time(now),
        }
    }
    fn doubt(&mut self, now: Millis) -> Doubt {
        let (first_sent, since) = (self.time(now), self.time(now));
        let replays = u8::try_from(self.pick(3)).unwrap();
        Doubt { first_sent, since, replays, likely_unspent: self.maybe() }
    }
    fn outcome(&mut self, now: Millis) -> Outcome<u64> {
        match self.pick(11) {
            10 => Outcome::ServerError(Code::new("http_500")),
            0 | 1 => Outcome::Fresh(self.pick(1000)),
            2 => Outcome::NotSent,
            3 | 4 => Outcome::Ambiguous,
            5 => Outcome::Reauth(Code::new("invalid_grant")),
            6 => Outcome::Configuration(Code::new("invalid_client")),
            7 => Outcome::RateLimited(self.maybe().then(|| self.time(now))),
            8 => Outcome::Transient(Code::new("server_error")),
            _ => {
                if self.maybe() {
                    Outcome::Admin(Code::new("ban"))
                } else {
                    Outcome::Unrecognised(Code::new("odd"))
                }
            }
        }
    }
    fn policy(&mut self) -> Policy {
        let replay = [Replay::Safe, Replay::Grace(Duration::from_secs(60)), Replay::Unsafe];
        let revocation = [Revocation::OneTokenSet, Revocation::WholeConsent, Revocation::Impossible];
        let of_three = |bits: &mut Self| usize::try_from(bits.pick(3)).unwrap();
        Policy::new(replay[of_three(self)], self.maybe(), revocation[of_three(self)])
    }
    fn wish(&mut self) -> Wish {
        match self.pick(4) {
            0 => Wish::life(Duration::from_secs(self.pick(2000))),
            1 => Wish::newer_than(self.small()),
            2 => Wish::forced(),
            _ => Wish::sweep(),
        }
    }
    /// Any event at all; three times out of four one that answers the action under way.
    fn event(&mut self, now: Millis, under_way: &Action<u64>) -> Event<u64> {
        if self.pick(4) == 0 {
            return self.any_event(now);
        }
        match (under_way, self.pick(5)) {
            (Action::Load, 0) => Event::Gone,
            (Action::Send { .. }, 0) => Event::Tick,
            (Action::Announce { .. }, 0) => Event::AnnounceLost,
            (Action::Store { .. }, 0) => Event::StoreLost(self.view(now)),
            (Action::Spool { .. }, 0) => Event::SpoolFailed,
            (Action::Claim(_), 0) => Event::ClaimLost,
            (
                Action::Load | Action::Claim(_) | Action::Announce { .. } | Action::Store { .. } | Action::Record(_),
                1,
            ) => Event::StoreFailed,
            (Action::Claim(_) | Action::Announce { .. } | Action::Store { .. } | Action::Record(_), 2) => {
                Event::StoreUnknown
            }
            (Action::Record(_), 3) => Event::RecordLost,
            (action, _) => self.good_event(now, action),
        }
    }
    fn good_event(&mut self, now: Millis, action: &Action<u64>) -> Event<u64> {
        match action {
            Action::Load => Event::Loaded(self.view(now)),
            Action::Claim(claim) => Event::Claimed { fence: claim.fence + 1 },
            Action::Send { announces: true, .. } if self.pick(4) > 0 => Event::AtDoor,
            Action::Announce { .. } => Event::Announced,
            Action::Send { .. } | Action::Depart => Event::Answered(self.outcome(now)),
            Action::RenewLease { .. } => Event::LeaseRenewed,
            Action::Store { .. } => Event::Stored,
            Action::Record(_) => Event::Recorded,
            Action::Wait { .. } => Event::Woken,
            Action::Revoke(_) => Event::Revoked,
            Action::Spool { .. } => Event::Spooled,
            Action::Continue | Action::Done(_) => Event::Tick,
        }
    }
    fn any_event(&mut self, now: Millis) -> Event<u64> {
        match self.pick(22) {
            0 => Event::Begin,
            1 => Event::Loaded(self.view(now)),
            2 => Event::Gone,
            3 => Event::Claimed { fence: self.small() },
            4 => Event::ClaimLost,
            5 => Event::Answered(self.outcome(now)),
            6 => Event::Stored,
            7 => Event::StoreLost(self.view(now)),
            8 => Event::StoreFailed,
            9 => Event::StoreUnknown,
            10 => Event::Recorded,
            11 => Event::RecordLost,
            12 => Event::LeaseRenewed,
            13 => Event::LeaseLost,
            14 => Event::Woken,
            15 => Event::Revoked,
            16 => Event::Spooled,
            17 => Event::SpoolFailed,
            18 => Event::AtDoor,
            19 => Event::Announced,
            20 => Event::AnnounceLost,
            _ => {
                if self.pick(4) == 0 {
                    Event::Shutdown
                } else {
                    Event::Tick
                }
            }
        }
    }
}

/// Drives a flight and keeps the books that the properties are about.
struct Books {
    flight: Flight<u64>,
    policy: Policy,
    now: Millis,
    under_way: Action<u64>,
    sending: Option<i64>,
    wish: Wish,
    /// The row as it was last read.
    view: Option<View>,
    /// Generations whose token may have been spent without an answer.
    in_doubt: HashSet<i64>,
    /// Generations known to be durable.
    durable: HashSet<i64>,
}

impl Books {
    fn open(bits: &mut Bits) -> Self {
        let policy = bits.policy();
        let jitter = Jitter(u32::try_from(bits.pick(1 << 32)).unwrap());
        let wish = bits.wish();
        let mut flight = Flight::new(policy, wish, jitter);
        let now = Millis(NOW);
        let under_way = flight.step(now, Event::Begin);
        Self {
            flight,
            policy,
            now,
            under_way,
            sending: None,
            wish,
            view: None,
            in_doubt: HashSet::new(),
            durable: HashSet::new(),
        }
    }

    fn step(&mut self, mut event: Event<u64>) {
        if let Event::Loaded(view) | Event::StoreLost(view) = &mut event {
            // A real row keeps the trace of what was sent.
            let sent = matches!(view.phase, Phase::Sent { .. });
            if self.in_doubt.contains(&view.generation) && view.doubt.is_none() && !sent {
                view.phase = Phase::Sent { since: self.now };
            }
            self.durable.insert(view.generation);
            self.view = Some(view.clone());
        }
        if let (Some(generation), Event::Answered(outcome)) = (self.sending, &event) {
            self.sending = None;
            if matches!(outcome, Outcome::Ambiguous | Outcome::ServerError(_)) {
                self.in_doubt.insert(generation);
            }
        }
        if let (Action::Store { generation, .. }, Event::Stored) = (&self.under_way, &event) {
            self.durable.insert(generation + 1);
        }
        let action = self.flight.step(self.now, event);
        match &action {
            Action::Continue => return,
            Action::Send { claimed, .. } => {
                let again = self.in_doubt.contains(&claimed.generation);
                let allowed = self.policy.replay != Replay::Unsafe || self.last_try_is_allowed();
                assert!(!again || allowed, "an unsafe token was sent twice");
                self.sending = Some(claimed.generation);
            }
            Action::Done(Verdict::Serve { generation, .. }) => {
                assert!(self.durable.contains(generation), "generation {generation} is not durable");
            }
            _ => {}
        }
        self.under_way = action;
    }

    /// Something speaks for the token, its late answer has had its time, and its access token is of no use any more.
    fn last_try_is_allowed(&self) -> bool {
        let Some(view @ View { phase: Phase::Idle, doubt: Some(doubt), .. }) = &self.view else { return false };
        let hope = doubt.likely_unspent || view.silent_at.is_some_and(|at| at >= doubt.first_sent);
        let span = Duration::from_secs(if doubt.likely_unspent { 120 } else { 420 });
        let waited = self.now >= doubt.since.after(span);
        let life = view.original_life.unwrap_or(Duration::MAX).saturating_add(Duration::from_secs(300));
        let over = view.expires_at.is_some_and(|end| end <= self.now || end.left(self.now) > life);
        let newer = self.wish.newer_than.is_some_and(|generation| view.generation <= generation);
        let insists = view.expires_at.is_none() && (self.wish.forced || newer);
        hope && waited && (over || insists)
    }

    /// No more faults: every flight ends, and soon.
    fn calm_down(&mut self, bits: &mut Bits) {
        for _ in 0..400 {
            if self.flight.is_over() {
                return;
            }
            let event = match &self.under_way {
                // The answer is what the flight waits for, also while a lease is renewed.
                Action::Send { .. } | Action::Depart | Action::RenewLease { .. } => Event::Answered(Outcome::Fresh(1)),
                action => bits.good_event(self.now, action),
            };
            if let Action::Wait { until } = self.under_way {
                self.now = self.now.max(until);
            }
            self.step(event);
        }
        panic!("still under way: {:?}", self.under_way);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rl_42_no_sequence_of_events_breaks_the_machine(seeds in prop::collection::vec(any::<u64>(), 1..80)) {
        let mut books = Books::open(&mut Bits(seeds[0]));
        for seed in &seeds[1..] {
            let mut bits = Bits(*seed);
            let jump = i64::try_from(bits.pick(20_000)).unwrap();
            books.now = Millis(books.now.0 + if bits.pick(40) == 0 { -jump * 200 } else { jump });
            let event = bits.event(books.now, &books.under_way.clone());
            books.step(event);
        }
        books.calm_down(&mut Bits(seeds[0]));
    }

    #[test]
    fn rl_12_due_times_are_never_negative_and_unfinished_attempts_always_have_one(
        seed in any::<u64>(), jitter in any::<u32>(), now in -1_000_000_i64..4_000_000_000_000,
    ) {
        let mut bits = Bits(seed);
        let view = bits.view(Millis(now));
        let due = due_at(&view, &bits.policy(), Millis(now), Jitter(jitter));
        prop_assert!(due.0 >= 0);
        let unfinished = view.doubt.is_some() || view.phase != Phase::Idle;
        // A token that never ends is served for ever, and never has to be tried a last time.
        let ends = view.expires_at.is_some() || view.phase != Phase::Idle;
        prop_assert!(view.status != Status::Active || !unfinished || !ends || due != NEVER);
    }
}
