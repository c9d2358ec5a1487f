//! The storm is over: what has to come right by itself, and in what time.

use std::time::Duration;

use super::*;

/// Faults have ended: so long may it take until everything is settled (I9). The longest back-off and pause are an hour;
/// a lease, a doubt and five minutes of skew come on top. A pause that a clock wrote which was an hour ahead is believed
/// when it is an hour away.
fn bound(clocks: Clocks) -> Duration {
    Duration::from_secs(60 * if clocks == Clocks::Jumping { 150 } else { 75 })
}

/// More than a node has ever to do at one moment.
const MOST_TURNS: u32 = 60;
/// So many moments on end with more to do than that are no chance.
const MOST_SPINS: u32 = 100;

impl World {
    /// No more faults. Within the bound everything is settled (I9), and what is stored works (I2).
    pub(super) fn calm(&mut self) {
        self.calm = true;
        self.weather = Weather::FAIR;
        (self.store_away_until, self.provider_away_until, self.secret_is_wrong) = (Millis(0), Millis(0), false);
        for node in &mut self.nodes {
            node.asleep_until = Millis(0);
            if self.plan.clocks == Clocks::Jumping {
                node.ahead = 0;
            }
        }
        let end = self.now.after(bound(self.plan.clocks));
        while self.broken.is_none() && !self.settled() {
            self.must(self.now < end, "I9", "not settled within the bound");
            self.round();
        }
        self.last_test();
        self.judge_the_end();
    }

    /// What is stored must be what the provider takes.
    fn last_test(&mut self) {
        if self.broken.is_some() || self.row.status != Status::Active || !self.row.has_refresh_token {
            return;
        }
        // A new consent does not mend the client: a probe or the end of a pause may be far.
        self.mend_integration();
        self.row.pause = None;
        let generation = self.row.generation;
        self.nodes[0].stopping = false;
        self.start(0, Wish::forced());
        let end = self.now.after(bound(self.plan.clocks));
        // Another node, whose clock differs, may take the claim for dead, and refresh in its place.
        while self.broken.is_none() && self.nodes.iter().any(|node| node.running.is_some()) {
            self.must(self.now < end, "I9", "the last flight does not end");
            self.round();
        }
        let refreshed = self.row.status == Status::Active && self.row.generation > generation;
        let excused = self.user_revoked || self.misjudged;
        self.must(refreshed || excused, "I2", "the stored refresh token is not the provider's last");
    }

    fn round(&mut self) {
        // Only a tenant can say that so many refusals were meant.
        if matches!(&self.row.integration, Integration::Faulty { code, .. } if *code == Code::REFUSED_WAVE) {
            self.mend_integration();
        }
        let mut spins = false;
        for index in 0..self.nodes.len() {
            let mut turns = 0;
            while turns < MOST_TURNS && self.broken.is_none() && self.turn(index) {
                self.examine();
                turns += 1;
            }
            spins |= turns == MOST_TURNS;
        }
        self.spins = if spins { self.spins + 1 } else { 0 };
        self.must(self.spins < MOST_SPINS, "I9", "a node asks the same again and again, and never waits");
        self.provider_turn();
        self.examine();
        self.now = self.next_happening();
    }

    /// In calm weather only the next thing that happens matters.
    fn next_happening(&self) -> Millis {
        let mut next = self.now.after(Duration::from_secs(20));
        for (index, node) in self.nodes.iter().enumerate() {
            let due = self.due.map(|due| Millis(due.0 - node.ahead));
            let idle = node.running.is_none();
            next = next.min(due.filter(|due| idle && index == 0 && *due > self.now).unwrap_or(next));
            let Some(running) = &node.running else { continue };
            let call = running.call.as_ref();
            let at_door = call.and_then(|call| call.at_door);
            let answer = call.map(|call| call.answer.as_ref().map_or(call.arrives, |(at, _)| *at));
            let event = running.event.as_ref().map(|(at, _)| *at);
            let stalled = running.stalled.as_ref().map(|(at, _)| *at);
            let tick = call.map(|call| call.tick_at);
            for at in [at_door, answer, event, stalled, running.timer, tick].into_iter().flatten() {
                next = next.min(at);
            }
        }
        next.max(self.now.after(Duration::from_millis(1)))
    }

    fn settled(&self) -> bool {
        self.row_settled() && self.nodes.iter().all(|node| node.running.is_none() && node.spool.is_empty())
    }

    pub(super) fn row_settled(&self) -> bool {
        let row = &self.row;
        let quiet = row.phase == Phase::Idle && row.doubt.is_none() && row.last_error.is_none();
        let really_fresh = self.sets.last().is_some_and(|set| set.good_until > self.now);
        row.status != Status::Active || (quiet && (really_fresh || row.expires_at.is_none()))
    }
}
