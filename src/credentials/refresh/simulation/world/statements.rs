//! What the database does with a statement, and what may go wrong with it.

use super::shelf::failure_of;
use super::*;

impl World {
    /// A statement: at once, or after a while, with its effect at the begin or at the end of that.
    pub(super) fn statement(&mut self, index: usize, action: Action<Tokens>) {
        if let Action::Claim(claim) = &action {
            self.judge_claim(index, claim);
            // Another try in the same flight: what it had in its hands has come to its end.
            if let Some(mut running) = self.nodes[index].running.take() {
                self.judge_cargo(&running);
                self.let_go(index, &mut running);
                self.nodes[index].running = Some(Running { cargo: None, ..running });
            }
        }
        if let Action::Record(record) = &action {
            self.judge_decision(index, record);
            // One that still waits at its door is called off.
            self.set(index, |running| running.call = None);
        }
        let mut at = self.now;
        if self.dice.once_in(self.weather.store_stalls) {
            self.tally.note(Deed::Stalled);
            self.hinder(index);
            at = at.after(self.dice.millis(40_000));
            if self.dice.once_in(2) {
                return self.set(index, |running| running.stalled = Some((at, action)));
            }
        }
        let event = self.perform(index, action);
        self.set(index, |running| running.event = Some((at, event)));
    }

    /// A transaction: it may fail without effect, or leave its outcome unknown with or without effect.
    pub(super) fn perform(&mut self, index: usize, action: Action<Tokens>) -> Event<Tokens> {
        let away = self.now < self.store_away_until;
        if !away && !self.dice.once_in(self.weather.store_fails) {
            return self.apply(index, action);
        }
        self.hinder(index);
        if matches!(action, Action::Store { .. }) {
            self.keep_a_copy(index);
        }
        let reads = matches!(action, Action::Load | Action::RenewLease { .. });
        if reads || self.dice.once_in(2) {
            self.tally.note(Deed::Failed);
            return Event::StoreFailed;
        }
        if away || self.dice.once_in(2) {
            self.tally.note(Deed::UnknownUndone);
            return Event::StoreUnknown;
        }
        self.tally.note(Deed::UnknownDone);
        self.apply(index, action);
        Event::StoreUnknown
    }

    fn apply(&mut self, index: usize, action: Action<Tokens>) -> Event<Tokens> {
        match action {
            Action::Load => self.load(index),
            Action::Claim(claim) => self.claim(index, claim),
            Action::RenewLease { claimed, lease_until } => {
                if self.row.renew(claimed, lease_until) {
                    self.due = Some(lease_until);
                    self.signed(index);
                    return Event::LeaseRenewed;
                }
                Event::LeaseLost
            }
            Action::Announce { claimed, lease_until } => {
                let wall = self.wall(index);
                if self.row.announce(wall, claimed, lease_until) {
                    self.tally.note(Deed::Announced);
                    self.due = Some(lease_until);
                    self.set(index, |running| running.announced = true);
                    self.signed(index);
                    return Event::Announced;
                }
                self.tally.note(Deed::AnnounceLost);
                Event::AnnounceLost
            }
            Action::Store { tokens, claimed, generation, only_fence } => {
                self.store(index, tokens, claimed, generation, only_fence)
            }
            Action::Record(record) => self.record(index, &record),
            _ => Event::StoreFailed,
        }
    }

    /// The holder of the newest claim shows that it lives.
    fn signed(&mut self, index: usize) {
        if let Some(running) = &self.nodes[index].running
            && running.claimed.is_some_and(|claimed| claimed.fence == self.last_claim)
        {
            self.sign = running.sign;
        }
    }

    fn seen_by(&self, index: usize) -> View {
        self.row.seen_by(self.nodes[index].owner)
    }

    /// The driver finds no row where one was deleted; the protocol would also understand the tombstone itself.
    fn is_gone(&self) -> bool {
        self.row.status == Status::Deleted && !self.plan.seed.is_multiple_of(4)
    }

    fn load(&mut self, index: usize) -> Event<Tokens> {
        if self.is_gone() {
            self.set(index, |running| running.loaded = None);
            return Event::Gone;
        }
        let (view, now) = (self.seen_by(index), self.now);
        self.set(index, |running| (running.loaded, running.loaded_at) = (Some(view.clone()), now));
        Event::Loaded(view)
    }

    fn claim(&mut self, index: usize, claim: Claim) -> Event<Tokens> {
        let (before, since) = (self.row.clone(), self.row.doubt.map(|doubt| doubt.since));
        let Some(fence) = self.row.claim(self.wall(index), self.nodes[index].owner, claim) else {
            self.tally.note(Deed::ClaimLost);
            return Event::ClaimLost;
        };
        self.tally.note(Deed::Claimed);
        let claimed = Claimed { generation: claim.generation, fence, consents: before.consents };
        let last_try = self.nodes[index].running.as_ref().is_some_and(|running| running.last_try);
        if last_try {
            self.tally.note(Deed::LastTry);
            let set = self.set_of(claim.generation);
            // For the answers of earlier attempts it has been waited.
            (set.tried_last, set.unheard) = (true, false);
        }
        if matches!(before.phase, Phase::Sent { .. }) && self.policy.replay != Replay::Safe {
            self.judge_takeover(&before);
        }
        (self.last_claim, self.due) = (fence, Some(claim.lease_until));
        self.set(index, |running| (running.claimed, running.announced) = (Some(claimed), !claim.announces));
        if self.row.doubt.map(|doubt| doubt.since) != since {
            self.doubt_sign = self.sign;
        }
        self.signed(index);
        Event::Claimed { fence }
    }

    fn store(
        &mut self,
        index: usize,
        tokens: Tokens,
        claimed: Claimed,
        generation: i64,
        only_fence: bool,
    ) -> Event<Tokens> {
        let cargo = self.nodes[index].running.as_ref().and_then(|running| running.cargo);
        let (received_at, really_at) =
            cargo.map_or((self.wall(index), self.now), |cargo| (cargo.received_at, cargo.really_at));
        let late = self.row.fence != claimed.fence || self.row.lease_until.is_none_or(|until| until < self.wall(index));
        let lost = self.needs_reauth();
        if !self.row.store(received_at, claimed, generation, only_fence) {
            return match self.load(index) {
                Event::Loaded(view) => Event::StoreLost(view),
                other => other,
            };
        }
        self.tally.note(Deed::Stored);
        if late {
            self.tally.note(Deed::LateStore);
        }
        if lost && self.row.status == Status::Active {
            self.tally.note(Deed::Healed);
        }
        let good_until = really_at.after(LIFE);
        let before = self.sets.last().unwrap().tokens;
        self.sets.push(Set::new(tokens, good_until));
        let same_consent = self.provider.consent_of(tokens) == self.provider.consent_of(before);
        self.must(same_consent, "I4", "a token of another consent was stored");
        self.plan_next_look(index);
        Event::Stored
    }

    fn record(&mut self, index: usize, record: &Record) -> Event<Tokens> {
        let away = |world: &Self| matches!(world.seen_by(0).integration, Integration::Unreachable { .. });
        let (before, was_away) = (self.row.clone(), away(self));
        let wall = self.wall(index);
        let Some(event) = self.row.record(wall, record) else { return Event::RecordLost };
        if away(self) && !was_away {
            self.tally.note(Deed::Outage);
        }
        if matches!(before.status, Status::NeedsReauth { .. }) && self.row.status == Status::Active {
            self.tally.note(Deed::HealedUnspent);
        }
        // The one attempt that had made it doubtful has come to a clear end.
        if failure_of(record).is_some_and(|failure| failure.doubt.is_none() && !failure.abandoned) {
            self.sets.last_mut().unwrap().lost = false;
        }
        self.due = self.row.next_attempt_at;
        let since = |view: &View| view.doubt.map(|doubt| doubt.since);
        if self.row.doubt.is_some() && since(&before) != since(&self.row) {
            self.tally.note(Deed::Doubted);
            let sign = self.nodes[index].running.as_ref().map_or(self.now, |running| running.sign);
            // A holder whose own attempt has come to a clear end after all leaves the doubt as it was before.
            let earlier = self
                .row
                .doubt
                .map(|doubt| doubt.since)
                .filter(|since| before.doubt.is_some_and(|doubt| doubt.since > *since));
            self.doubt_sign = earlier.map_or(sign, |since| since.min(sign));
        }
        if let (Status::Active, Status::NeedsReauth { reason }) = (&before.status, &self.row.status.clone()) {
            self.due = None;
            self.judge_mark(index, &before, reason);
        }
        match event {
            Event::Withheld => {
                self.tally.note(Deed::Withheld);
                Event::Withheld
            }
            _ => Event::Recorded,
        }
    }

    /// As the driver does it after every flight.
    pub(super) fn plan_next_look(&mut self, index: usize) {
        let jitter = Jitter(u32::MAX / 3);
        self.due =
            Some(due_at(&self.seen_by(index), &self.policy, self.wall(index), jitter)).filter(|due| *due < NEVER);
    }
}
