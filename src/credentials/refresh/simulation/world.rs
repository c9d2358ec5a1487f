//! The nodes, their clocks and the scheduler.

mod calm;
mod deeds;
mod people;
mod rules;
pub(in crate::credentials) mod shelf;
mod statements;

use std::fmt::{self, Write};
use std::time::Duration;

use self::rules::Before;
use self::shelf::Shelf;
use super::super::words::*;
use super::super::*;
pub(in crate::credentials) use super::dice::Dice;
use super::plan::{Clocks, Plan, Weather};
use super::provider::{Provider, Tokens};
use super::tally::{Deed, Tally};
use crate::clock::Millis;

pub(in crate::credentials) const START: Millis = Millis(1_800_000_000_000);
pub(in crate::credentials) const LIFE: Duration = Duration::from_secs(600);

/// An invariant that did not hold.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Its name: `I1`, `RL-37`, ….
    pub rule: &'static str,
    pub story: String,
}

/// A request that has left, and what will come of it.
struct Call {
    claimed: Claimed,
    token: Tokens,
    left: Millis,
    /// When its connection stands, where it waits there.
    at_door: Option<Millis>,
    arrives: Millis,
    answer: Option<(Millis, Outcome<Tokens>)>,
    tick_at: Millis,
    /// How long is waited once it has left, with what connecting may take.
    patience: Duration,
    give_up_at: Millis,
}

/// A flight in the air. Times are real ones, since waiting is monotonic.
struct Running {
    flight: Flight<Tokens>,
    event: Option<(Millis, Event<Tokens>)>,
    /// A statement that the database takes its time for.
    stalled: Option<(Millis, Action<Tokens>)>,
    timer: Option<Millis>,
    call: Option<Call>,
    /// The row as it was last read.
    loaded: Option<View>,
    wish: Wish,
    /// What was claimed, and where a claim of unknown outcome may stand.
    claimed: Option<Claimed>,
    /// The row says that the token may be sent.
    announced: bool,
    /// It was claimed for a token that is likely good, although it was sent before.
    last_try: bool,
    /// Something went wrong since: an orderly end cannot be expected to be in time.
    hindered: bool,
    begun_after_delete: bool,
    /// A token set that arrived and must come to a proper end.
    cargo: Option<Cargo>,
    from_spool: bool,
    /// The answer was written to the spool, or stays there.
    spooled: bool,
    /// Its refusal was one too many, and was not written.
    withheld: bool,
    /// A copy waits in the spool while storing goes on.
    copied: bool,
    told_to_stop: bool,
    /// When it last showed that it lives: claimed, renewed, or heard that there is no answer.
    sign: Millis,
    loaded_at: Millis,
    turned_at: Millis,
    steps: u32,
    sends: u32,
}

/// A token set in a node's hands, or in its spool.
#[derive(Clone, Copy, Debug)]
struct Cargo {
    claimed: Claimed,
    tokens: Tokens,
    /// By the clock of the node that received it.
    received_at: Millis,
    /// When that really was.
    really_at: Millis,
}

struct Node {
    owner: u64,
    /// How far the clock on its wall is ahead of real time, in milliseconds.
    ahead: i64,
    asleep_until: Millis,
    stopping: bool,
    running: Option<Running>,
    spool: Vec<Cargo>,
    has_spool: bool,
}

/// A durable token set; one for every generation there ever was.
struct Set {
    tokens: Tokens,
    /// When the access token really ends.
    good_until: Millis,
    /// Requests that may have spent its refresh token.
    unresolved: u32,
    /// An answer to its refresh is lost for good, or may be.
    lost: bool,
    /// Some request of it has got no answer at all, not even that of a failing server.
    unheard: bool,
    /// When the last of the requests was sent whose answer is lost.
    lost_at: Millis,
    /// The provider has refused it.
    refused: bool,
    /// It was claimed for a last try.
    tried_last: bool,
}

impl Set {
    fn new(tokens: Tokens, good_until: Millis) -> Self {
        let (lost, unheard, refused, tried_last) = (false, false, false, false);
        Self { tokens, good_until, unresolved: 0, lost, unheard, lost_at: Millis(0), refused, tried_last }
    }
}

pub struct World {
    plan: Plan,
    /// The plan's, until the storm is over.
    weather: Weather,
    policy: Policy,
    dice: Dice,
    /// The storm is over.
    calm: bool,
    /// Real time, which nobody can read.
    now: Millis,
    row: Shelf,
    due: Option<Millis>,
    sets: Vec<Set>,
    provider: Provider,
    nodes: Vec<Node>,
    store_away_until: Millis,
    provider_away_until: Millis,
    secret_is_wrong: bool,
    user_revoked: bool,
    /// A grace was judged by a clock that was too wrong for it.
    misjudged: bool,
    cuts: u64,
    next_owner: u64,
    /// The fence of the newest claim.
    last_claim: i64,
    /// When the holder of the last claim last showed that it lives.
    sign: Millis,
    /// When the doubt that is recorded began.
    doubt_sign: Millis,
    swept_at: Millis,
    /// Sweeps at that very moment.
    sweeps: u32,
    reader_at: Millis,
    before: Before,
    tally: Tally,
    broken: Option<Broken>,
    trace: Option<Trace>,
    /// Moments in a row at which a node had no end of things to do.
    spins: u32,
    /// Everything is told as it happens.
    pub aloud: bool,
}

/// A running digest (FNV-1a) of everything the machine ever decided.
struct Trace(u64);

impl Write for Trace {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}

impl World {
    pub fn new(plan: Plan) -> Self {
        let mut dice = Dice::new(plan.seed.wrapping_mul(8).wrapping_add(plan.family as u64));
        let policy = plan.policy();
        let mut provider = Provider::new(plan.family, plan.grace, policy.revocation);
        let first = provider.consent();
        let nodes = (1..=plan.nodes).map(|owner| Node {
            owner,
            ahead: first_hands(&mut dice, plan.clocks),
            asleep_until: Millis(0),
            stopping: false,
            running: None,
            spool: Vec::new(),
            has_spool: dice.once_in(2),
        });
        let nodes = nodes.collect();
        let mut world = Self {
            plan,
            weather: plan.weather,
            policy,
            dice,
            calm: false,
            now: START,
            row: Shelf::new(),
            due: None,
            sets: Vec::new(),
            provider,
            nodes,
            store_away_until: Millis(0),
            provider_away_until: Millis(0),
            secret_is_wrong: false,
            user_revoked: false,
            misjudged: false,
            cuts: 0,
            next_owner: plan.nodes + 1,
            last_claim: 0,
            sign: START,
            doubt_sign: START,
            swept_at: START,
            sweeps: 0,
            reader_at: START,
            before: Before::default(),
            tally: Tally::default(),
            broken: None,
            trace: None,
            spins: 0,
            aloud: false,
        };
        world.row.keep = plan.keep;
        world.consented(first);
        world.sets[0].good_until = world.row.expires_at.unwrap_or(NEVER);
        world
    }

    /// Plays a world to its end, with a digest of all that was decided.
    pub fn traced(plan: Plan) -> u64 {
        let mut world = Self::new(plan);
        world.trace = Some(Trace(0xcbf2_9ce4_8422_2325));
        world.play();
        world.trace.map_or(0, |trace| trace.0)
    }

    /// A storm, then calm. Stops at the first broken rule.
    pub fn play(&mut self) {
        self.storm();
        self.calm();
    }

    pub fn tally(&self) -> &Tally {
        &self.tally
    }
    pub fn broken(&self) -> Option<&Broken> {
        self.broken.as_ref()
    }
    pub fn needs_reauth(&self) -> bool {
        matches!(self.row.status, Status::NeedsReauth { .. })
    }

    /// What the clock on a node's wall says.
    fn wall(&self, index: usize) -> Millis {
        Millis(self.now.0 + self.nodes[index].ahead)
    }

    fn storm(&mut self) {
        let weather = self.weather;
        for _ in 0..self.plan.steps {
            let chosen = usize::try_from(self.dice.roll(self.plan.nodes)).unwrap();
            self.troubles(chosen, weather);
            self.turn(chosen);
            self.provider_turn();
            self.examine();
            if self.broken.is_some() {
                return;
            }
            // Long strides make nodes slow without putting them to sleep: a claim can grow old that way.
            let longest = if weather.sleep == 0 { 1_200 } else { 12_000 };
            let most = self.dice.pick(&[1, 300, 1_000, longest]);
            self.now = self.now.after(self.dice.millis(most));
        }
    }

    fn troubles(&mut self, chosen: usize, weather: Weather) {
        if self.dice.once_in(weather.crash) {
            self.crash(chosen);
        }
        if self.dice.once_in(weather.stop) && !self.nodes[chosen].stopping {
            self.tally.note(Deed::Stopped);
            self.nodes[chosen].stopping = true;
        }
        if self.dice.once_in(weather.sleep) {
            self.tally.note(Deed::Slept);
            self.nodes[chosen].asleep_until = self.now.after(self.dice.millis(200_000));
            self.hinder(chosen);
        }
        if self.dice.once_in(weather.jump) {
            self.jump(chosen);
        }
        if self.dice.once_in(weather.store_away) {
            self.tally.note(Deed::StoreAway);
            self.store_away_until = self.now.after(self.dice.millis(120_000));
        }
        if self.dice.once_in(weather.provider_away) {
            self.tally.note(Deed::ProviderAway);
            self.provider_away_until = self.now.after(self.dice.millis(600_000));
        }
        if self.dice.once_in(weather.crowd) {
            self.tally.note(Deed::Crowd);
            let wall = self.wall(chosen);
            self.row.others_fail(wall);
        }
        if self.dice.once_in(weather.person) {
            self.person();
        }
    }

    fn jump(&mut self, index: usize) {
        const HOUR: i64 = 3_600_000;
        self.tally.note(Deed::Jumped);
        let far = self.dice.pick(&[0, 0, 300_000, -300_000, HOUR, -HOUR, 24 * HOUR, -24 * HOUR]);
        self.nodes[index].ahead = far;
        self.hinder(index);
    }

    fn hinder(&mut self, index: usize) {
        self.set(index, |running| running.hindered = true);
    }

    fn crash(&mut self, index: usize) {
        self.tally.note(Deed::Crashed);
        let owner = self.next_owner;
        self.next_owner += 1;
        let running = self.nodes[index].running.take();
        if let Some(mut running) = running {
            self.tally.note(Deed::CrashedInFlight);
            // What was on its way to the database may still be done.
            if let Some((_, action)) = running.stalled.take()
                && self.dice.once_in(2)
            {
                self.nodes[index].running = Some(running);
                self.perform(index, action);
                let Some(same) = self.nodes[index].running.take() else { return };
                running = same;
            }
            self.forget(&running);
        }
        let node = &mut self.nodes[index];
        (node.owner, node.stopping, node.asleep_until) = (owner, false, Millis(0));
    }

    /// Nobody will ever know what this flight knew.
    fn forget(&mut self, running: &Running) {
        if running.from_spool || running.copied {
            return;
        }
        if running.claimed.is_some() && !running.announced {
            self.tally.note(Deed::CrashedUnsent);
        }
        if let Some(claimed) = running.claimed.filter(|_| running.announced) {
            let set = self.set_of(claimed.generation);
            set.lost = true;
            set.unheard |= running.call.is_some() || running.cargo.is_some();
            set.lost_at = running.call.as_ref().map_or(set.lost_at, |call| call.left);
        }
    }

    fn set_of(&mut self, generation: i64) -> &mut Set {
        &mut self.sets[usize::try_from(generation - 1).unwrap()]
    }

    fn set(&mut self, index: usize, change: impl FnOnce(&mut Running)) {
        if let Some(running) = &mut self.nodes[index].running {
            change(running);
        }
    }
}

fn first_hands(dice: &mut Dice, clocks: Clocks) -> i64 {
    let most = match clocks {
        Clocks::Exact => return 0,
        Clocks::Near => 5_000,
        Clocks::Far | Clocks::Jumping => 150_000,
    };
    i64::try_from(dice.roll(2 * most + 1)).unwrap() - i64::try_from(most).unwrap()
}
