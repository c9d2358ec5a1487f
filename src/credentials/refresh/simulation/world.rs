//! The nodes, the scheduler and the model store.

pub(in crate::credentials) mod shelf;

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use self::shelf::Shelf;
use super::super::words::*;
use super::super::*;
use super::provider::{Provider, Reply};
use crate::clock::Millis;

pub use super::provider::Family;

pub(in crate::credentials) const START: Millis = Millis(1_800_000_000_000);
pub(in crate::credentials) const LIFE: Duration = Duration::from_secs(600);

/// A handle to a token set: the refresh token's number.
pub type Tokens = usize;

/// Which faults there are; each number is "one time out of", 0 never.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub crash: u64,
    pub sleep: u64,
    pub store_fails: u64,
    pub answer_lost: u64,
    pub most_lost: u64,
    pub refuses: u64,
    pub person_acts: u64,
}

impl Weather {
    pub const FAIR: Self =
        Self { crash: 0, sleep: 0, store_fails: 0, answer_lost: 0, most_lost: 0, refuses: 0, person_acts: 0 };
    pub const STORM: Self = Self {
        crash: 50,
        sleep: 50,
        store_fails: 20,
        answer_lost: 5,
        most_lost: u64::MAX,
        refuses: 5,
        person_acts: 250,
    };
    pub const ONE_LOST_ANSWER: Self = Self { answer_lost: 2, most_lost: 1, ..Self::FAIR };
}

/// A small repeatable generator.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
    pub fn once_in(&mut self, sides: u64) -> bool {
        sides != 0 && self.roll(sides) == 0
    }
    fn millis(&mut self, most: u64) -> Duration {
        Duration::from_millis(1 + self.roll(most))
    }
}

/// A request that has left, and what came of it.
struct Call {
    token: Tokens,
    arrives: Millis,
    answer: Option<(Millis, Outcome<Tokens>)>,
}

struct Running {
    flight: Flight<Tokens>,
    event: Option<Event<Tokens>>,
    timer: Option<Millis>,
    call: Option<(Call, Millis, Millis)>,
    begun_after_delete: bool,
    /// A token set that arrived and must come to a proper end.
    cargo: Option<(Claimed, Tokens)>,
    from_spool: bool,
}

struct Node {
    owner: u64,
    asleep_until: Millis,
    running: Option<Running>,
    spool: Vec<(Claimed, Tokens)>,
    has_spool: bool,
}

pub struct World {
    seed: u64,
    family: Family,
    weather: Weather,
    policy: Policy,
    dice: Dice,
    /// The storm is over: only the sweep is at work.
    calm: bool,
    now: Millis,
    row: Shelf,
    /// The durable token set of every generation there ever was.
    tokens: HashMap<i64, Tokens>,
    provider: Provider,
    nodes: Vec<Node>,
    /// Requests sent per generation that may have spent the token without a known outcome.
    spent: HashMap<i64, u32>,
    /// Things that may honestly cost a rotating credential its life.
    mishaps: u64,
    answers_lost: u64,
    user_revoked: bool,
    next_owner: u64,
    trace: DefaultHasher,
}

impl World {
    pub fn new(seed: u64, family: Family, weather: Weather) -> Self {
        let mut dice = Dice(seed.wrapping_mul(8).wrapping_add(family as u64));
        let policy = family.policy();
        let mut provider = Provider::new(family);
        let first = provider.consent();
        let nodes = (1..=3).map(|owner| Node {
            owner,
            asleep_until: Millis(0),
            running: None,
            spool: Vec::new(),
            has_spool: dice.once_in(2),
        });
        let nodes = nodes.collect();
        Self {
            seed,
            family,
            weather,
            policy,
            dice,
            calm: false,
            now: START,
            row: Shelf::new(),
            tokens: HashMap::from([(1, first)]),
            provider,
            nodes,
            spent: HashMap::new(),
            mishaps: 0,
            answers_lost: 0,
            user_revoked: false,
            next_owner: 4,
            trace: DefaultHasher::new(),
        }
    }

    pub fn refreshes(&self) -> u64 {
        self.provider.issued
    }
    pub fn answers_lost(&self) -> u64 {
        self.answers_lost
    }
    pub fn needs_reauth(&self) -> bool {
        matches!(self.row.status, Status::NeedsReauth { .. })
    }
    pub fn digest(&self) -> u64 {
        self.trace.finish()
    }

    #[track_caller]
    fn check(&self, holds: bool, what: &str) {
        assert!(holds, "seed {}, {:?}, {:?}: {what}; row {:?}", self.seed, self.family, self.weather, self.row);
    }

    pub fn storm(&mut self, steps: u32) {
        for _ in 0..steps {
            let chosen = usize::try_from(self.dice.roll(3)).unwrap();
            if self.dice.once_in(self.weather.crash) {
                self.crash(chosen);
            }
            if self.dice.once_in(self.weather.sleep) {
                self.nodes[chosen].asleep_until = self.now.after(self.dice.millis(200_000));
                self.mishaps += 1;
            }
            if self.dice.once_in(self.weather.person_acts) {
                self.person();
            }
            self.turn(chosen);
            self.provider_turn();
            // Long strides make nodes slow without putting them to sleep: a claim can grow old that way.
            let longest = if self.weather.sleep == 0 { 1_200 } else { 12_000 };
            let most = [1, 300, 1_000, longest][usize::try_from(self.dice.roll(4)).unwrap()];
            self.now = self.now.after(self.dice.millis(most));
        }
    }

    /// No more faults. Within the bound everything is settled (I9), and what is stored works (I2).
    pub fn calm(&mut self) {
        (self.calm, self.weather) = (true, Weather::FAIR);
        for node in &mut self.nodes {
            node.asleep_until = Millis(0);
        }
        // Doubts and leases take 150 s; the longest back-off is an hour.
        let mut rounds = 0;
        while !self.settled() {
            self.check(rounds < 1500, "not settled within the bound");
            rounds += 1;
            self.round();
        }
        let generation = self.row.generation;
        if self.row.status == Status::Active {
            // A new consent does not mend the client: a probe or the end of a pause may be a minute away.
            self.now = self.now.after(Duration::from_secs(61));
            self.start(0, Wish::forced());
            while self.nodes[0].running.is_some() {
                self.round();
            }
            let refreshed = self.row.status == Status::Active && self.row.generation > generation;
            self.check(refreshed || self.user_revoked, "I2: the stored refresh token is not the provider's last");
        }
        if self.needs_reauth() {
            let excusable = self.family != Family::F1 && self.mishaps > 0;
            self.check(self.user_revoked || excusable, "RL-07: needs_reauth without a cause");
        }
        self.check(self.provider.reused == 0, "RL-06: a spent token was sent again");
    }

    fn round(&mut self) {
        for node in 0..3 {
            for _ in 0..4 {
                self.turn(node);
            }
        }
        self.provider_turn();
        self.now = self.now.after(Duration::from_secs(3));
    }

    fn settled(&self) -> bool {
        self.row_settled() && self.nodes.iter().all(|node| node.running.is_none() && node.spool.is_empty())
    }

    fn row_settled(&self) -> bool {
        let row = &self.row;
        let fresh = row.expires_at.is_some_and(|end| end > self.now) && row.phase == Phase::Idle && row.doubt.is_none();
        row.status != Status::Active || (fresh && row.last_error.is_none())
    }

    fn crash(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.owner = self.next_owner;
        self.next_owner += 1;
        if node.running.take().is_some() {
            self.mishaps += 1;
        }
    }

    /// The user disconnects, connects again, or removes the access at the provider's page.
    fn person(&mut self) {
        let stored = self.tokens[&self.row.generation];
        match self.dice.roll(4) {
            0 => {
                self.row.status = Status::Deleted;
                self.provider.revoke(stored);
            }
            1 => {
                self.user_revoked = true;
                self.provider.revoke(stored);
            }
            _ if self.row.status != Status::Deleted => {
                self.user_revoked = false;
                self.row.reconnect(self.now);
                let first = self.provider.consent();
                self.tokens.insert(self.row.generation, first);
            }
            _ => {}
        }
    }

    fn start(&mut self, index: usize, wish: Wish) {
        let jitter = Jitter(u32::try_from(self.dice.roll(1 << 32)).unwrap());
        let (flight, cargo) = match self.nodes[index].spool.last() {
            Some(&(claimed, tokens)) => (Flight::replay(self.policy, claimed, tokens), Some((claimed, tokens))),
            None => (Flight::new(self.policy, wish, jitter), None),
        };
        let begun_after_delete = self.row.status == Status::Deleted && cargo.is_none();
        let from_spool = cargo.is_some();
        let event = Some(Event::Begin);
        self.nodes[index].running =
            Some(Running { flight, event, timer: None, call: None, begun_after_delete, cargo, from_spool });
    }

    fn turn(&mut self, index: usize) {
        if self.nodes[index].asleep_until > self.now {
            return;
        }
        if self.nodes[index].running.is_none() {
            if self.calm && self.row_settled() && self.nodes[index].spool.is_empty() {
                return;
            }
            let wish = match self.dice.roll(6) {
                0 => Wish::forced(),
                1 => Wish::newer_than(self.row.generation),
                2 => Wish::life(Duration::from_secs(300)),
                _ => Wish::sweep(),
            };
            return self.start(index, if self.calm { Wish::sweep() } else { wish });
        }
        let Some(event) = self.next_event(index) else { return };
        let Some(running) = &mut self.nodes[index].running else { return };
        if let Event::Answered(Outcome::Fresh(tokens)) = &event
            && let Some((claimed, _)) = running.cargo
        {
            running.cargo = Some((claimed, *tokens));
        }
        let action = running.flight.step(self.now, event);
        format!("{index} {action:?}").hash(&mut self.trace);
        self.execute(index, action);
    }

    fn next_event(&mut self, index: usize) -> Option<Event<Tokens>> {
        let now = self.now;
        let running = self.nodes[index].running.as_mut()?;
        if let Some(event) = running.event.take() {
            return Some(event);
        }
        if let Some((call, tick_at, give_up_at)) = &mut running.call {
            if let Some((_, outcome)) = call.answer.take_if(|(at, _)| *at <= now) {
                running.call = None;
                return Some(Event::Answered(outcome));
            }
            if *give_up_at <= now {
                running.call = None;
                self.mishaps += 1;
                return Some(Event::Answered(Outcome::Ambiguous));
            }
            if *tick_at <= now {
                *tick_at = now.after(Duration::from_secs(10));
                return Some(Event::Tick);
            }
            return None;
        }
        running.timer.take_if(|until| *until <= now).map(|_| Event::Woken)
    }

    fn execute(&mut self, index: usize, action: Action<Tokens>) {
        let event = match action {
            Action::Load if self.dice.once_in(self.weather.store_fails) => Some(Event::StoreFailed),
            Action::Load => Some(Event::Loaded(self.seen_by(index))),
            Action::Claim(claim) => Some(self.write(|world| world.claim(index, claim), |_| Event::ClaimLost)),
            Action::Send { claimed, give_up_after, tick_every } => self.send(index, claimed, give_up_after, tick_every),
            Action::RenewLease { claimed, lease_until } => Some(self.renew(claimed, lease_until)),
            Action::Store { tokens, claimed, generation, only_fence } => {
                let lost = move |world: &Self| Event::StoreLost(world.seen_by(index));
                Some(self.write(|world| world.store(tokens, claimed, generation, only_fence), lost))
            }
            Action::Record(record) => Some(self.write(|world| world.record(&record), |_| Event::RecordLost)),
            Action::Wait { until } => {
                self.check(until.left(self.now) <= Duration::from_secs(60), "a wait that is no pause");
                self.set(index, |running| running.timer = Some(until));
                None
            }
            Action::Revoke(tokens) => {
                let harmless = self.policy.revocation == Revocation::OneTokenSet || self.row.status == Status::Deleted;
                self.check(harmless, "revoking this ends a consent that is still in use");
                self.provider.revoke(tokens);
                self.set(index, |running| running.cargo = None);
                Some(Event::Revoked)
            }
            Action::Spool { tokens, claimed } => {
                let node = &mut self.nodes[index];
                let event = if node.has_spool { Event::Spooled } else { Event::SpoolFailed };
                if node.has_spool {
                    if node.running.as_ref().is_none_or(|running| !running.from_spool) {
                        node.spool.push((claimed, tokens));
                    }
                    self.set(index, |running| (running.cargo, running.from_spool) = (None, false));
                }
                Some(event)
            }
            Action::Continue => None,
            Action::Done(verdict) => return self.done(index, &verdict),
        };
        self.set(index, |running| running.event = running.event.take().or(event));
    }

    fn set(&mut self, index: usize, change: impl FnOnce(&mut Running)) {
        if let Some(running) = &mut self.nodes[index].running {
            change(running);
        }
    }

    fn done(&mut self, index: usize, verdict: &Verdict) {
        let Some(running) = self.nodes[index].running.take() else { return };
        if let Verdict::Serve { generation, .. } = verdict {
            self.check(self.tokens.contains_key(generation), "RL-04: served before it was durable");
        }
        if running.begun_after_delete {
            let refused = matches!(verdict, Verdict::Gone | Verdict::Unavailable { .. });
            self.check(refused, "I5: something was served after an acknowledged delete");
        }
        if let Some((claimed, tokens)) = running.cargo.filter(|_| !running.from_spool) {
            let stored = self.tokens.values().any(|stored| *stored == tokens);
            let reconnected = self.row.consents != claimed.consents;
            let overtaken = self.row.generation > claimed.generation;
            let is_late = self.row.status == Status::Deleted || (reconnected && self.family != Family::F1);
            let revoked = !self.provider.lives(tokens);
            self.check(tokens == usize::MAX || stored || overtaken || revoked, "RL-05: tokens were dropped");
            self.check(tokens == usize::MAX || stored || !is_late || revoked, "RL-37: late tokens live on");
        }
        if running.from_spool && !matches!(verdict, Verdict::RefreshInProgress { .. }) {
            self.nodes[index].spool.pop();
        }
    }

    fn seen_by(&self, index: usize) -> View {
        self.row.seen_by(self.nodes[index].owner)
    }

    /// A transaction: it may fail without effect, or leave its outcome unknown with or without effect.
    fn write(
        &mut self,
        apply: impl FnOnce(&mut Self) -> Option<Event<Tokens>>,
        lost: impl FnOnce(&Self) -> Event<Tokens>,
    ) -> Event<Tokens> {
        if self.dice.once_in(self.weather.store_fails) {
            if self.dice.once_in(2) {
                return Event::StoreFailed;
            }
            if self.dice.once_in(2) {
                apply(self);
            }
            return Event::StoreUnknown;
        }
        apply(self).unwrap_or_else(|| lost(self))
    }

    fn send(
        &mut self,
        index: usize,
        claimed: Claimed,
        give_up_after: Duration,
        tick_every: Duration,
    ) -> Option<Event<Tokens>> {
        let overtaken = self.row.generation != claimed.generation;
        self.check(overtaken || self.row.fence == claimed.fence, "I1: sent under somebody else's claim");
        let spent = self.spent.entry(claimed.generation).or_default();
        let again = *spent > 0;
        self.check(!again || self.policy.replay != Replay::Unsafe, "I1: an unsafe token left twice");
        if self.dice.once_in(self.weather.refuses * 2) {
            return Some(Event::Answered(Outcome::NotSent));
        }
        *self.spent.entry(claimed.generation).or_default() += 1;
        let token = self.tokens[&claimed.generation];
        let call = Call { token, arrives: self.now.after(self.dice.millis(4_000)), answer: None };
        let (tick_at, give_up_at) = (self.now.after(tick_every), self.now.after(give_up_after));
        self.set(index, |running| {
            running.call = Some((call, tick_at, give_up_at));
            running.cargo = Some((claimed, usize::MAX));
        });
        None
    }

    /// Requests arrive even when their senders sleep, in the order of their arrival.
    fn provider_turn(&mut self) {
        let now = self.now;
        let arriving = |node: &Node| {
            let running = node.running.as_ref()?;
            let (call, ..) = running.call.as_ref()?;
            let (claimed, _) = running.cargo?;
            (call.answer.is_none() && call.arrives <= now).then_some((call.arrives, call.token, claimed.generation))
        };
        let mut arrivals: Vec<_> =
            self.nodes.iter().enumerate().filter_map(|(index, node)| Some((arriving(node)?, index))).collect();
        arrivals.sort_unstable();
        for ((arrived, token, generation), index) in arrivals {
            let (outcome, delay) = self.reply(token, generation, arrived);
            self.set(index, |running| {
                if let Some((call, ..)) = &mut running.call {
                    call.answer = Some((arrived.after(delay), outcome));
                }
            });
        }
    }

    fn reply(&mut self, token: Tokens, generation: i64, arrived: Millis) -> (Outcome<Tokens>, Duration) {
        let slow = self.weather.crash != 0 && self.dice.once_in(10);
        let delay = self.dice.millis(if slow { 150_000 } else { 3_000 });
        if self.dice.once_in(self.weather.refuses) {
            let outcome = match self.dice.roll(6) {
                0 => Outcome::Transient(Code::new("server_error")),
                1 => Outcome::RateLimited(Some(self.now.after(self.dice.millis(40_000)))),
                2 => Outcome::Configuration(Code::new("invalid_client")),
                3 => Outcome::Unrecognised(Code::new("teapot")),
                4 => Outcome::Admin(Code::new("ban")),
                _ => {
                    // A proxy's 502: nothing was spent, but nobody can know.
                    self.mishaps += 1;
                    return (Outcome::Ambiguous, delay);
                }
            };
            self.spent.entry(generation).and_modify(|spent| *spent -= 1);
            return (outcome, delay);
        }
        match self.provider.refresh(token, arrived) {
            Reply::Refused => (Outcome::Reauth(Code::new("invalid_grant")), delay),
            Reply::Fresh(_)
                if self.answers_lost < self.weather.most_lost && self.dice.once_in(self.weather.answer_lost) =>
            {
                self.answers_lost += 1;
                self.mishaps += 1;
                (Outcome::Ambiguous, delay)
            }
            Reply::Fresh(tokens) => (Outcome::Fresh(tokens), delay),
        }
    }
}
