//! What nodes do: take turns, execute actions, meet faults.

use std::time::Duration;

use super::*;

impl World {
    /// One step of this node; false when it has nothing to do now.
    pub(super) fn turn(&mut self, index: usize) -> bool {
        let now = self.now;
        if self.nodes[index].asleep_until > now {
            return false;
        }
        let Some(running) = &mut self.nodes[index].running else { return self.begin_something(index) };
        running.hindered |= running.turned_at.after(Duration::from_secs(5)) < now;
        running.turned_at = now;
        if let Some((at, _)) = running.stalled {
            let Some((_, action)) = running.stalled.take_if(|_| at <= now) else { return false };
            let event = self.perform(index, action);
            self.set(index, |running| running.event = Some((now, event)));
            return true;
        }
        let Some(event) = self.next_event(index) else { return false };
        self.tally.note(Deed::Step);
        let (wall, stopping) = (self.wall(index), self.nodes[index].stopping);
        let Some(running) = &mut self.nodes[index].running else { return false };
        running.steps += 1;
        let heard = if self.aloud { format!("{event:?}") } else { String::new() };
        match &event {
            Event::Answered(Outcome::Fresh(tokens)) => {
                let claimed = running.claimed.unwrap();
                running.cargo = Some(Cargo { claimed, tokens: *tokens, received_at: wall, really_at: now });
            }
            Event::Answered(Outcome::Ambiguous | Outcome::ServerError(_)) => running.sign = now,
            Event::Withheld => running.withheld = true,
            Event::Shutdown => running.told_to_stop = true,
            _ => {}
        }
        let tell = stopping && !running.told_to_stop && !matches!(event, Event::Begin);
        running.told_to_stop |= tell;
        let action = match tell.then(|| running.flight.step(wall, Event::Shutdown)) {
            None | Some(Action::Continue) => running.flight.step(wall, event),
            Some(action) => action,
        };
        if let Some(trace) = &mut self.trace {
            write!(trace, "{index} {action:?};").unwrap();
        }
        self.tell(|| format!("node {index} (wall {wall:?}): {heard} -> {action:?}"));
        self.execute(index, action);
        true
    }

    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        if self.aloud {
            println!("{:>12?} {}", self.now.left(START), what());
        }
    }

    fn begin_something(&mut self, index: usize) -> bool {
        let node = &mut self.nodes[index];
        if node.stopping {
            // The process ends in order, and its successor starts.
            (node.owner, node.stopping) = (self.next_owner, false);
            self.next_owner += 1;
        }
        if !node.spool.is_empty() && (self.calm || self.dice.once_in(3)) {
            self.bring_home(index);
            return true;
        }
        let wall = self.wall(index);
        let is_due = self.due.is_some_and(|due| due <= wall);
        if is_due && (self.calm || self.dice.once_in(2)) {
            self.due = Some(wall.after(Duration::from_secs(150)));
            self.sweeps = if self.swept_at == self.now { self.sweeps + 1 } else { 1 };
            self.swept_at = self.now;
            self.start(index, Wish::sweep());
            return true;
        }
        if self.calm {
            if self.needs_a_reader() && index == 0 && self.now >= self.reader_at && !self.row_settled() {
                self.reader_at = self.now.after(Duration::from_secs(20));
                self.start(index, Wish::life(Duration::from_secs(300)));
                return true;
            }
            return false;
        }
        let wish = match self.dice.roll(6) {
            0 => Wish::forced(),
            1 => Wish::newer_than(self.row.generation),
            2 => Wish::sweep(),
            _ => Wish::life(Duration::from_secs(self.dice.pick(&[0, 300, 900]))),
        };
        self.start(index, wish);
        true
    }

    /// A jump may have planned the sweep's next look for another day, the integration may not want one, and damage is
    /// looked at once a day: only a reader comes sooner.
    fn needs_a_reader(&self) -> bool {
        let damaged = self.row.last_error.as_ref() == Some(&Code::UNREADABLE);
        self.plan.clocks == Clocks::Jumping || self.plan.keep != Keep::Always || damaged
    }

    pub(super) fn start(&mut self, index: usize, wish: Wish) {
        let jitter = Jitter(u32::try_from(self.dice.roll(1 << 32)).unwrap());
        self.board(index, Flight::new(self.policy, wish, jitter), wish, None);
    }

    fn bring_home(&mut self, index: usize) {
        let cargo = self.nodes[index].spool[0];
        let flight = Flight::replay(self.policy, cargo.claimed, cargo.tokens);
        self.board(index, flight, Wish::life(Duration::ZERO), Some(cargo));
    }

    fn board(&mut self, index: usize, flight: Flight<Tokens>, wish: Wish, cargo: Option<Cargo>) {
        self.tally.note(Deed::Flight);
        self.nodes[index].running = Some(Running {
            flight,
            event: Some((self.now, Event::Begin)),
            stalled: None,
            timer: None,
            call: None,
            loaded: None,
            wish,
            claimed: None,
            announced: true,
            last_try: false,
            hindered: false,
            begun_after_delete: self.row.status == Status::Deleted && cargo.is_none(),
            from_spool: cargo.is_some(),
            cargo,
            spooled: false,
            withheld: false,
            copied: false,
            told_to_stop: false,
            sign: self.now,
            loaded_at: self.now,
            turned_at: self.now,
            steps: 0,
            sends: 0,
        });
    }

    fn next_event(&mut self, index: usize) -> Option<Event<Tokens>> {
        let now = self.now;
        let stopping = self.nodes[index].stopping;
        let running = self.nodes[index].running.as_mut()?;
        if let Some((at, _)) = running.event {
            return running.event.take_if(|_| at <= now).map(|(_, event)| event);
        }
        // Sent while nobody was answered.
        let probes = running.loaded.as_ref();
        let probes = probes.is_some_and(|view| matches!(view.integration, Integration::Unreachable { .. }));
        if let Some(call) = &mut running.call {
            if call.at_door.take_if(|at| *at <= now).is_some() {
                return Some(Event::AtDoor);
            }
            if let Some((_, outcome)) = call.answer.take_if(|(at, _)| *at <= now) {
                let Call { claimed, left, .. } = running.call.take().unwrap();
                if matches!(outcome, Outcome::Ambiguous | Outcome::ServerError(_)) {
                    let unheard = outcome == Outcome::Ambiguous && !probes;
                    let set = self.set_of(claimed.generation);
                    (set.lost, set.unheard, set.lost_at) = (true, set.unheard || unheard, left);
                }
                return Some(Event::Answered(outcome));
            }
            if call.give_up_at <= now {
                let call = running.call.take().unwrap();
                self.tally.note(Deed::GivenUp);
                // Only after 120 s may one say that there was no answer (RL-02).
                let set = self.set_of(call.claimed.generation);
                (set.lost, set.unheard) =
                    (set.lost || call.left.after(Duration::from_secs(120)) <= now, set.unheard || !probes);
                set.lost_at = call.left;
                return Some(Event::Answered(Outcome::Ambiguous));
            }
            if call.tick_at <= now {
                call.tick_at = now.after(Duration::from_secs(10));
                return Some(Event::Tick);
            }
            return None;
        }
        if running.timer.is_some() && stopping && !running.told_to_stop {
            running.timer = None;
            return Some(Event::Shutdown);
        }
        running.timer.take_if(|until| *until <= now).map(|_| Event::Woken)
    }

    fn execute(&mut self, index: usize, action: Action<Tokens>) {
        let now = self.now;
        let event = match action {
            Action::Claim(_) | Action::Announce { .. } | Action::RenewLease { .. } => {
                self.set(index, |running| running.sign = now);
                return self.statement(index, action);
            }
            Action::Load | Action::Store { .. } | Action::Record(_) => return self.statement(index, action),
            Action::Send { claimed, announces, give_up_after, tick_every } => {
                self.send(index, claimed, announces, (give_up_after, tick_every))
            }
            Action::Depart => {
                let stops = self.nodes[index].running.as_ref().is_some_and(|running| running.told_to_stop);
                self.must(!stops, "RL-32", "a token that may leave once set out from a node that stops");
                self.depart(index)
            }
            Action::Wait { until } => {
                let span = until.left(self.wall(index));
                self.must(span <= Duration::from_secs(3600), "I9", "a wait without an end");
                self.set(index, |running| running.timer = Some(now.after(span)));
                None
            }
            Action::Revoke(tokens) => {
                self.judge_revocation(tokens);
                self.tally.note(Deed::LateRevoked);
                Some(Event::Revoked)
            }
            Action::Spool { .. } => Some(self.spool(index)),
            Action::Continue => None,
            Action::Done(verdict) => return self.done(index, &verdict),
        };
        self.set(index, |running| running.event = event.map(|event| (now, event)).or(running.event.take()));
    }

    fn send(
        &mut self,
        index: usize,
        claimed: Claimed,
        announces: bool,
        (give_up_after, tick_every): (Duration, Duration),
    ) -> Option<Event<Tokens>> {
        if self.dice.once_in(self.weather.not_sent) {
            self.tally.note(Deed::NotSent);
            return Some(Event::Answered(Outcome::NotSent));
        }
        if self.dice.once_in(self.weather.damage) {
            self.tally.note(Deed::Damaged);
            return Some(Event::Answered(Outcome::Poisoned(Code::UNREADABLE)));
        }
        let (now, token) = (self.now, self.set_of(claimed.generation).tokens);
        // Connecting takes its time, too: up to five seconds, and one for the limit itself.
        let stands_at = now.after(self.dice.millis(4_000));
        let (at_door, arrives) = if announces { (Some(stands_at), NEVER) } else { (None, stands_at) };
        let patience = give_up_after + Duration::from_secs(6);
        let give_up_at = if announces { NEVER } else { now.after(patience) };
        let tick_at = now.after(tick_every);
        let call = Call { claimed, token, left: now, at_door, arrives, answer: None, tick_at, patience, give_up_at };
        self.set(index, |running| {
            running.sends += 1;
            running.call = Some(call);
        });
        if !announces {
            self.leaves(claimed);
        }
        None
    }

    /// What waited at the door is let out, and is there a moment later.
    fn depart(&mut self, index: usize) -> Option<Event<Tokens>> {
        let (now, way) = (self.now, self.dice.millis(200));
        let call = self.nodes[index].running.as_mut().and_then(|running| running.call.as_mut())?;
        (call.left, call.arrives, call.give_up_at) = (now, now.after(way), now.after(call.patience));
        let claimed = call.claimed;
        self.leaves(claimed);
        None
    }

    fn leaves(&mut self, claimed: Claimed) {
        self.judge_send(claimed);
        self.tally.note(Deed::Sent);
        let set = self.set_of(claimed.generation);
        set.unresolved += 1;
        if set.unresolved > 1 && self.plan.family.gives_grace() {
            self.tally.note(Deed::Replayed);
        }
    }

    /// What could not be stored at once waits in the spool, too, in case the process ends.
    pub(super) fn keep_a_copy(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let Some(running) = &mut node.running else { return };
        if let (true, false, Some(cargo)) = (node.has_spool, running.copied || running.from_spool, running.cargo) {
            node.spool.push(cargo);
            running.copied = true;
            self.tally.note(Deed::Copied);
        }
    }

    /// The answer is durable, or nobody's any more.
    pub(super) fn let_go(&mut self, index: usize, running: &mut Running) {
        if running.copied && !running.spooled {
            running.copied = false;
            self.nodes[index].spool.pop();
        }
    }

    fn spool(&mut self, index: usize) -> Event<Tokens> {
        let node = &mut self.nodes[index];
        let Some(running) = &mut node.running else { return Event::SpoolFailed };
        let Some(cargo) = running.cargo else { return Event::SpoolFailed };
        if running.from_spool {
            running.spooled = true;
            return Event::Spooled;
        }
        if !node.has_spool {
            return Event::SpoolFailed;
        }
        if !running.copied {
            node.spool.push(cargo);
        }
        running.spooled = true;
        self.tally.note(Deed::Spooled);
        Event::Spooled
    }

    fn done(&mut self, index: usize, verdict: &Verdict) {
        let Some(mut running) = self.nodes[index].running.take() else { return };
        self.let_go(index, &mut running);
        match verdict {
            Verdict::Serve { degraded: Some(_), .. } => self.tally.note(Deed::Degraded),
            Verdict::Serve { .. } => self.tally.note(Deed::Served),
            _ => {}
        }
        self.judge_done(index, &running, verdict);
        if running.from_spool {
            if !running.spooled {
                self.tally.note(Deed::Brought);
                // The process may die before the file is gone: it comes home once more.
                if !self.calm && self.weather.crash != 0 && self.dice.once_in(2) {
                    self.tally.note(Deed::BroughtTwice);
                } else {
                    self.nodes[index].spool.remove(0);
                }
            }
        } else if self.now >= self.store_away_until && self.row.status != Status::Deleted {
            self.plan_next_look(index);
        }
    }
}
