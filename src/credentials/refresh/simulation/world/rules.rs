//! The invariants, by name. Each is exactly what the protocol promises, and says under which clocks.

use std::time::Duration;

use super::*;

/// What clocks may differ by when times of an hour at most are believed.
const SKEW: Duration = Duration::from_secs(300);

/// The row as it was when it was last examined.
#[derive(Clone, Copy, Debug, Default)]
pub struct Before {
    generation: i64,
    fence: i64,
    consents: i64,
    deleted: bool,
}

impl World {
    pub(super) fn must(&mut self, holds: bool, rule: &'static str, what: &str) {
        if !holds && self.broken.is_none() {
            let at = self.now.left(START);
            let story = format!("{what}; after {at:?} of {:?}; row {:?}", self.plan, self.row);
            self.broken = Some(Broken { rule, story });
        }
    }

    /// Clocks within what every promise allows for.
    fn good_clocks(&self) -> bool {
        matches!(self.plan.clocks, Clocks::Exact | Clocks::Near)
    }

    /// After every step.
    pub(super) fn examine(&mut self) {
        let Before { generation, fence, consents, deleted } = self.before;
        let grew = (0..=2).contains(&(self.row.generation - generation)) || generation == 0;
        self.must(grew, "I2", "the generation does not only grow");
        self.must(self.row.fence >= fence && self.row.consents >= consents, "I2", "fence or consents went back");
        let (row, sets) = (self.row.generation, i64::try_from(self.sets.len()).unwrap());
        self.must(row == sets, "I2", "a generation without a durable token set");
        let still = !deleted || (self.row.status == Status::Deleted && self.row.generation == generation);
        self.must(still, "I5", "something was written after an acknowledged delete");
        self.must(self.provider.reused == 0, "RL-06", "a spent token was sent again");
        self.nothing_is_lost_silently();
        self.bounds();
        self.before = Before {
            generation: self.row.generation,
            fence: self.row.fence,
            consents: self.row.consents,
            deleted: self.row.status == Status::Deleted,
        };
    }

    /// RL-03: a token that the provider no longer takes is in somebody's hands, in doubt, or reported.
    fn nothing_is_lost_silently(&mut self) {
        let Some(set) = self.sets.last() else { return };
        if !self.plan.family.can_lose()
            || self.row.status != Status::Active
            || self.provider.lives(set.tokens)
            || self.user_revoked
            || self.misjudged
        {
            return;
        }
        let known = matches!(self.row.phase, Phase::Sent { .. }) || self.row.doubt.is_some();
        let in_hands = self.nodes.iter().any(|node| {
            let running = node.running.as_ref().and_then(|running| running.cargo);
            node.spool.iter().chain(&running).any(|cargo| cargo.claimed.generation == self.row.generation)
        });
        self.must(known || in_hands, "I2", "the stored refresh token is spent, and nobody knows");
    }

    /// I10: nothing grows without bound.
    fn bounds(&mut self) {
        let spools = self.nodes.iter().all(|node| node.spool.len() <= 16);
        let flights = self.nodes.iter().filter_map(|node| node.running.as_ref());
        let (mut steps, mut sends) = (true, true);
        for running in flights {
            // Tokens in hand are stored again for as long as the database is away.
            steps &= running.steps < 4_000;
            sends &= running.sends <= u32::from(self.policy.retries) + 2;
        }
        self.must(self.sweeps <= 6, "I10", "the sweep looks at one row without end");
        self.must(spools && steps, "I10", "a spool or a flight grows without bound");
        self.must(sends, "RL-08", "one flight sent too often");
    }

    /// A claim by the rules of the row that it was decided on.
    pub(super) fn judge_claim(&mut self, index: usize, claim: &Claim) {
        let wall = self.wall(index);
        let Some(running) = &self.nodes[index].running else { return };
        let Some(view) = running.loaded.clone() else { return };
        let (wish, sends) = (running.wish, running.sends);
        let binds = |until: Millis, span: u64| {
            until > wall && until <= wall.after(Duration::from_secs(span)).after(self.policy.deadlines.skew)
        };
        let doubt = self.policy.doubt(&view).filter(|_| claim.doubt.is_some());
        let replays = doubt.is_some_and(|doubt| self.policy.must_hurry(&doubt, wall));
        let last_try = doubt.is_some_and(|doubt| !self.policy.may_replay(&doubt, wall));
        let (paused, probed) = match &view.integration {
            Integration::RateLimited { until } => (binds(*until, 3600), false),
            Integration::Faulty { probe_at, .. } => (false, binds(*probe_at, 3600)),
            // A replay inside the grace cannot wait for the provider to be well again.
            Integration::Unreachable { probe_at, .. } => (false, binds(*probe_at, 3600) && !replays),
            Integration::Working => (false, false),
        };
        // One of many may probe: whoever does has taken the interval's one probe in the same transaction.
        let probes = match &view.integration {
            Integration::Faulty { probe_at, .. } => *probe_at <= wall,
            Integration::Unreachable { probe_at, .. } => *probe_at <= wall && !replays,
            _ => false,
        };
        let early = view.next_attempt_at.is_some_and(|at| binds(at, 3600));
        let excused = wish.forced && sends == 0;
        let leased = view.lease_until.is_some_and(|until| binds(until, 30)) && view.phase != Phase::Idle;
        let active = view.status == Status::Active;
        let sent = matches!(view.phase, Phase::Sent { .. });
        let clear = claim.doubt.is_some() || !sent || self.policy.replay == Replay::Safe;
        self.must(!paused, "RL-09", "claimed inside a pause that the provider has asked for");
        self.must(!probed, "RL-09", "claimed while the integration is held");
        self.must(!probes || claim.probe.is_some(), "RL-09", "probed without taking the probe");
        self.must(!early || excused, "RL-08", "claimed before the back-off had ended");
        self.must(!leased && active, "I1", "claimed what another holds, or what nobody may refresh");
        self.must(clear, "RL-06", "claimed as if the last claim had never been");
        if let (true, Some(doubt)) = (last_try, doubt) {
            self.judge_last_claim(&view, wish, wall, doubt);
        }
        self.set(index, |running| running.last_try = last_try);
    }

    /// Where something speaks for the token, nobody can come with a late answer, and nothing that lives can be harmed.
    fn judge_last_claim(&mut self, view: &View, wish: Wish, wall: Millis, doubt: Doubt) {
        let hopes = doubt.may_hope(view.silent_at);
        let span = Duration::from_secs(if doubt.likely_unspent { 120 } else { 420 });
        let waited = wall >= doubt.since.after(span);
        // Whoever decides by an old row does not get the claim.
        let is_old = (self.row.generation, self.row.fence) != (view.generation, view.fence);
        let since_sign = self.now >= self.doubt_sign.after(Duration::from_secs(120 - 10));
        let really = since_sign || is_old || !self.good_clocks();
        let heard = is_old || !self.good_clocks() || !doubt.likely_unspent || !self.set_of(view.generation).unheard;
        // An outage speaks only for what was sent before its end, or replayed inside the grace of that.
        let lost_at = self.set_of(view.generation).lost_at;
        let silent = view.silent_at.is_some_and(|at| at.after(Duration::from_secs(10)) >= lost_at);
        let excused = is_old || !self.good_clocks() || self.plan.family.gives_grace();
        let spoken_for = doubt.likely_unspent || silent || excused;
        let recorded = view.phase == Phase::Idle;
        let insists = view.expires_at.is_none() && (wish.forced || wish.newer_than == Some(view.generation));
        let far = wall.after(LIFE).after(SKEW);
        let over = insists || view.expires_at.is_some_and(|end| end <= wall || end > far);
        self.must(hopes, "RL-06", "a token that may be spent was tried again for nothing");
        self.must(waited && really && recorded, "RL-06", "a late answer was not waited for");
        self.must(over, "RL-06", "a token was tried again that still served its readers");
        self.must(spoken_for, "RL-06", "an outage of long ago spoke for a token");
        self.must(heard, "RL-06", "a token was tried again of which some answer is lost");
    }

    /// A last try may find the token spent. That harms nobody but a holder who was held up for all that time.
    pub(super) fn judge_last_try(&mut self, index: usize, before: u64, claimed: Claimed) {
        if self.provider.reused == before {
            return self.tally.note(Deed::LastTrySaved);
        }
        self.tally.note(Deed::LastTryLost);
        self.provider.reused = before;
        // What was stored while this one was on its way has ended, too.
        let overtaken = self.row.generation != claimed.generation;
        let (mut held, mut hindered) = (overtaken, overtaken || !self.good_clocks());
        for (number, node) in self.nodes.iter().enumerate() {
            let running = node.running.as_ref();
            let waits = running.and_then(|running| running.call.as_ref()).filter(|_| number != index);
            let waits = waits.is_some_and(|call| call.claimed.generation == claimed.generation);
            let holds = |cargo: &Cargo| cargo.claimed.generation == claimed.generation;
            let in_hands = running.is_some_and(|running| running.cargo.as_ref().is_some_and(holds));
            let spooled = node.spool.iter().any(holds);
            held |= in_hands || spooled || waits;
            hindered |= spooled || running.is_some_and(|running| running.hindered) || node.asleep_until > self.now;
        }
        self.must(!held || hindered, "RL-06", "a last try ended what another was about to store");
        self.misjudged |= held;
    }

    /// I1: at most one refresh of a generation; where a lost answer may be replayed, one replay.
    pub(super) fn judge_send(&mut self, claimed: Claimed) {
        let overtaken = self.row.generation != claimed.generation;
        // People move the fence, too.
        let stopped = self.row.status != Status::Active;
        let own = overtaken || stopped || self.row.fence == claimed.fence || !self.good_clocks();
        self.must(own, "I1", "sent under somebody else's claim");
        let sent = self.set_of(claimed.generation).unresolved;
        let most = match self.policy.replay {
            Replay::Safe => u32::MAX,
            Replay::Grace(_) => u32::from(self.policy.replays),
            Replay::Unsafe => 0,
        };
        let running = self.nodes.iter().filter_map(|node| node.running.as_ref());
        let last_try = running.filter(|running| running.claimed == Some(claimed)).any(|running| running.last_try);
        // Nobody can tell how long ago a doubt began when clocks have jumped: a last try may come before its holder has sent.
        let misjudged = self.plan.clocks == Clocks::Jumping && self.set_of(claimed.generation).tried_last;
        self.must(sent <= most || last_try || misjudged, "I1", "a token left more often than its provider allows");
    }

    /// A grace is judged by the clock of one node and counts from the clock of another. The protocol allows for a sixth
    /// of the grace, five minutes at most; beyond that a reuse is the clocks' fault.
    pub(super) fn reuse_is_excused(&mut self, before: u64, claimed: Claimed) {
        if self.provider.reused == before {
            return;
        }
        // Nobody can tell how long ago a doubt began when clocks have jumped.
        if self.plan.clocks == Clocks::Jumping && self.set_of(claimed.generation).tried_last {
            (self.provider.reused, self.misjudged) = (before, true);
            return;
        }
        if !self.plan.family.gives_grace() {
            return;
        }
        let hands = || self.nodes.iter().map(|node| node.ahead);
        let apart = hands().max().unwrap_or(0) - hands().min().unwrap_or(0);
        let allowed = i64::try_from((self.plan.grace / 6).min(SKEW).as_millis()).unwrap();
        if self.plan.clocks == Clocks::Jumping || apart > allowed {
            (self.provider.reused, self.misjudged) = (before, true);
        }
    }

    pub(super) fn judge_revocation(&mut self, late: Tokens) {
        let stored = self.sets.last().unwrap().tokens;
        let lived = self.provider.lives(stored);
        self.provider.revoke(late);
        let harmless = self.provider.lives(stored) == lived || self.row.status == Status::Deleted;
        self.must(harmless, "RL-37", "revoking this ends a consent that is still in use");
    }

    /// Nobody calls an answer lost by a row that he read long ago.
    pub(super) fn judge_decision(&mut self, index: usize, record: &Record) {
        let Record::Reauth { reason, .. } = record else { return };
        let Some(running) = &self.nodes[index].running else { return };
        let recent = running.loaded_at.after(Duration::from_secs(20)) > self.now || !self.good_clocks();
        let lost = *reason == Code::ROTATION_RESPONSE_LOST && running.claimed.is_none();
        self.must(recent || !lost, "RL-07", "given up by a row that was read long ago");
    }

    /// RL-07: `needs_reauth` only for a cause.
    pub(super) fn judge_mark(&mut self, index: usize, before: &View, reason: &Code) {
        let Some(&Set { lost, refused, .. }) = self.sets.last() else { return };
        if *reason == Code::NOT_REFRESHABLE {
            self.tally.note(Deed::ReauthNothing);
            return self.must(!before.has_refresh_token, "RL-07", "there was something to refresh with");
        }
        if refused {
            self.tally.note(Deed::ReauthRefused);
            let few = *reason == Code::ROTATION_RESPONSE_LOST || self.row.refusals() < self.policy.wave;
            return self.must(few, "RL-07", "one refusal of a wave was believed");
        }
        self.must(*reason == Code::ROTATION_RESPONSE_LOST, "RL-07", "the provider has never refused this token");
        self.tally.note(Deed::LostForGood);
        self.must(self.policy.replay != Replay::Safe, "RL-07", "a token that can be sent again was given up");
        let seen = self.nodes[index].running.as_ref().and_then(|running| running.loaded.as_ref());
        let hoped =
            seen.is_some_and(|view| self.policy.doubt(view).is_some_and(|doubt| doubt.may_hope(view.silent_at)));
        self.must(!hoped, "RL-06", "given up though the token is likely good");
        let doubt = matches!(before.phase, Phase::Sent { .. }) || before.doubt.is_some();
        self.must(doubt, "RL-07", "nothing was in doubt");
        // Who holds the answer may have been kept from storing it until then, or waits in a spool.
        let is_written = before.phase == Phase::Idle || !self.good_clocks();
        self.must(is_written, "RL-07", "given up before the doubt was written down");
        // Who has read a doubt before it began anew may end it by its older times: the answer is lost all the same.
        let loaded = self.nodes[index].running.as_ref().and_then(|running| running.loaded.as_ref());
        let same_doubt = loaded.is_some_and(|view| (view.phase, view.doubt) == (before.phase, before.doubt));
        let same_lease = loaded.is_some_and(|view| view.lease_until == before.lease_until);
        self.must(same_doubt || lost || !self.good_clocks(), "RL-07", "given up by a row that is no more");
        if same_doubt && same_lease && self.good_clocks() {
            let sign = if before.phase == Phase::Idle { self.doubt_sign } else { self.sign };
            let waited = self.now >= sign.after(Duration::from_secs(120 - 10));
            self.must(waited, "RL-07", "given up before a late answer had its time");
        }
        self.judge_takeover(before);
    }

    /// Whose claim is taken for dead has lost its answer, or was held up for longer than its lease. Either is a cause.
    pub(super) fn judge_takeover(&mut self, before: &View) {
        let lost = self.set_of(before.generation).lost;
        let holds = |cargo: &Cargo| cargo.claimed.fence == self.last_claim;
        let (mut holder, mut hindered) = (!self.good_clocks(), !self.good_clocks());
        for node in &self.nodes {
            holder |= node.spool.iter().any(holds);
            hindered |= node.spool.iter().any(holds);
            let Some(running) = node.running.as_ref() else { continue };
            if running.claimed.is_some_and(|claimed| claimed.fence == self.last_claim) {
                holder = true;
                let quiet = running.turned_at.after(Duration::from_secs(5)) < self.now;
                hindered |= running.hindered || quiet || running.cargo.is_some();
            }
        }
        self.must(lost || holder, "RL-07", "no answer was lost, and nobody waits for one");
        self.must(lost || hindered, "RL-07", "given up while its holder was well");
        self.set_of(before.generation).lost = true;
    }

    pub(super) fn judge_done(&mut self, index: usize, running: &Running, verdict: &Verdict) {
        let wall = self.wall(index);
        if let Verdict::Serve { generation, degraded } = verdict {
            let durable = *generation <= i64::try_from(self.sets.len()).unwrap();
            self.must(durable, "RL-04", "served before it was durable");
            let known_dead = running.loaded.as_ref().is_some_and(|view| {
                // One's own answer is handed out whatever its life: nobody could do better.
                let own = view.stored_fence.is_some() && view.stored_fence == running.claimed.map(|own| own.fence);
                view.generation == *generation && !own && view.expires_at.is_some_and(|end| end <= wall)
            });
            self.must(!known_dead || running.from_spool, "RL-20", "a token was served that its own row calls dead");
            if degraded.is_none() && durable && self.nodes[index].ahead.abs() <= 150_000 {
                let slack = if self.good_clocks() { Duration::from_secs(20) } else { SKEW };
                let good = self.set_of(*generation).good_until.after(slack) > running.loaded_at;
                // An end that a jumped clock wrote cannot be told from a good one when that time has nearly come.
                let end = running.loaded.as_ref().and_then(|view| view.expires_at);
                let believable = end.is_none_or(|end| end <= wall.after(LIFE).after(SKEW));
                let told = self.plan.clocks == Clocks::Jumping && believable;
                self.must(good || told, "RL-20", "a dead token was served as a good one");
            }
        }
        let reported = matches!(verdict, Verdict::NeedsReauth { .. });
        self.must(!reported || !running.withheld, "RL-07", "a refusal was told that was not believed");
        if running.begun_after_delete {
            let refused = matches!(verdict, Verdict::Gone | Verdict::Unavailable { .. });
            self.must(refused, "I5", "something was served after an acknowledged delete");
        }
        let no_token = match verdict {
            Verdict::RefreshInProgress { .. } | Verdict::RateLimited { .. } => true,
            Verdict::Unavailable { code, .. } => ![Code::STORE_UNAVAILABLE, Code::SHUTTING_DOWN].contains(code),
            _ => false,
        };
        let living = running
            .loaded
            .as_ref()
            .is_some_and(|view| view.status == Status::Active && view.expires_at.is_none_or(|end| end > wall));
        // A flight that ends in the spool judges by the row from before its refresh.
        self.must(!no_token || !living || running.spooled, "RL-20", "a read failed while the token had life");
        self.judge_claim_left(running);
        self.judge_cargo(running);
    }

    /// A claim that is left behind turns into a doubt.
    fn judge_claim_left(&mut self, running: &Running) {
        let Some(claimed) = running.claimed else { return };
        let same = (self.row.generation, self.row.fence) == (claimed.generation, claimed.fence);
        let left = same && self.row.phase != Phase::Idle && self.row.status == Status::Active;
        self.must(!left || running.spooled, "RL-29", "a claim was left behind");
    }

    /// RL-05 and RL-37: tokens that arrived are stored, spooled, overtaken by better ones, or ended.
    pub(super) fn judge_cargo(&mut self, running: &Running) {
        let Some(Cargo { claimed, tokens, .. }) = running.cargo else { return };
        if running.spooled {
            return;
        }
        let stored = self.sets.iter().any(|set| set.tokens == tokens);
        let ended = !self.provider.lives(tokens);
        let deleted = self.row.status == Status::Deleted;
        let reconnected = self.row.consents != claimed.consents;
        let overtaken =
            self.row.generation > claimed.generation && (self.policy.replay != Replay::Unsafe || reconnected || ended);
        self.must(stored || overtaken || ended || deleted, "RL-05", "tokens were dropped");
        // By the row as the flight has last read it: what people do after that finds the tokens where they are.
        let gone = running.loaded.as_ref().is_none_or(|view| view.status == Status::Deleted);
        let replaced = running.loaded.as_ref().is_some_and(|view| view.consents != claimed.consents);
        let revocable = match self.policy.revocation {
            Revocation::OneTokenSet => gone || replaced,
            Revocation::WholeConsent => gone,
            Revocation::Impossible => false,
        };
        self.must(stored || ended || !revocable, "RL-37", "late tokens live on");
    }

    /// I9 and RL-07, when everything has come to rest.
    pub(super) fn judge_the_end(&mut self) {
        let Status::NeedsReauth { reason } = self.row.status.clone() else { return };
        let set = self.sets.last().unwrap();
        let cause = if reason == Code::NOT_REFRESHABLE {
            !self.row.has_refresh_token
        } else {
            self.user_revoked || self.misjudged || (self.plan.family.can_lose() && set.lost)
        };
        self.must(cause, "RL-07", "needs_reauth without a cause");
    }
}
