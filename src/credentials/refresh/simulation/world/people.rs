//! What people do, and what the provider answers.

use std::time::Duration;

use super::super::provider::{Family, Reply, Tokens};
use super::super::tally::Deed;
use super::*;

impl World {
    pub(super) fn person(&mut self) {
        self.tell(|| "a person acts".to_owned());
        let stored = self.sets.last().unwrap().tokens;
        match self.dice.roll(10) {
            0 | 1 if self.row.status != Status::Deleted => {
                self.tally.note(Deed::Disconnected);
                (self.row.status, self.due) = (Status::Deleted, None);
                self.provider.revoke(stored);
            }
            2 => {
                self.tally.note(Deed::UserRevoked);
                self.user_revoked = true;
                self.provider.revoke(stored);
                if self.plan.eventful && self.row.has_refresh_token && self.dice.once_in(2) {
                    self.told(stored);
                }
            }
            3 => {
                self.tally.note(Deed::ClientChanged);
                self.row.change_client();
            }
            4 => {
                self.tally.note(Deed::SecretBroken);
                self.secret_is_wrong = true;
            }
            5 => {
                self.tally.note(Deed::Mended);
                self.secret_is_wrong = false;
                self.mend_integration();
            }
            6 | 7 if self.plan.eventful && self.row.has_refresh_token && self.row.may_go_on() => {
                self.brought_again(stored);
            }
            _ if self.row.status != Status::Deleted => {
                self.tally.note(Deed::Reconnected);
                self.user_revoked = false;
                self.misjudged = false;
                // By the clock of the node that the browser happened to meet.
                let index = usize::try_from(self.dice.roll(self.plan.nodes)).unwrap();
                self.row.reconnect(self.wall(index));
                let first = self.provider.consent();
                self.consented(first);
                self.look_when_due();
            }
            _ => {}
        }
    }

    fn look_when_due(&mut self) {
        self.due = Some(due_at(&self.row.seen_by(0), &self.policy, self.now, Jitter(0))).filter(|due| *due < NEVER);
    }

    /// A consent without a refresh token, or a platform that moves in with what it has brought before.
    fn brought_again(&mut self, stored: Tokens) {
        let index = usize::try_from(self.dice.roll(self.plan.nodes)).unwrap();
        let (wall, good_until) = (self.wall(index), self.now.after(LIFE));
        if self.policy.replay != Replay::Safe {
            self.tally.note(Deed::Refilled);
            self.row.refill(wall);
            self.sets.last_mut().unwrap().good_until = good_until;
            if self.row.status == Status::Active && self.row.phase == Phase::Idle && self.row.doubt.is_none() {
                self.look_when_due();
            }
            return;
        }
        self.tally.note(Deed::BroughtAgain);
        self.row.reconnect(wall);
        self.sets.push(Set::new(stored, good_until));
        self.look_when_due();
    }

    /// The provider says that the user has taken everything back.
    fn told(&mut self, stored: Tokens) {
        if matches!(self.row.status, Status::Deleted) {
            return;
        }
        self.tally.note(Deed::Told);
        self.row.lose(self.now);
        self.sets.push(Set::new(stored, self.now));
        self.due = None;
    }

    /// A tenant puts another client secret in, or the same once more.
    pub(super) fn mend_integration(&mut self) {
        self.row.mend_integration();
    }

    /// A token set by consent, not by refresh.
    pub(super) fn consented(&mut self, tokens: Tokens) {
        let good_until = self.now.after(LIFE);
        self.sets.push(Set::new(tokens, good_until));
        if self.plan.family == Family::F0 {
            self.row.has_refresh_token = false;
            if self.plan.seed.is_multiple_of(2) {
                self.row.expires_at = None;
                self.sets.last_mut().unwrap().good_until = NEVER;
            }
        }
        if self.due.is_none() && self.row.generation == 1 {
            self.look_when_due();
        }
    }

    /// Requests arrive even when their senders sleep, in the order of their arrival.
    pub(super) fn provider_turn(&mut self) {
        let now = self.now;
        let mut arrivals: Vec<(Millis, usize)> = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let call = node.running.as_ref().and_then(|running| running.call.as_ref());
            if let Some(call) = call.filter(|call| call.answer.is_none() && call.arrives <= now) {
                arrivals.push((call.arrives, index));
            }
        }
        arrivals.sort_unstable();
        for (arrived, index) in arrivals {
            let Some(Call { claimed, token, .. }) =
                self.nodes[index].running.as_ref().and_then(|running| running.call.as_ref())
            else {
                continue;
            };
            let (claimed, token) = (*claimed, *token);
            let (outcome, delay) = self.reply(index, token, claimed, arrived);
            self.set(index, |running| {
                if let Some(call) = &mut running.call {
                    call.answer = Some((arrived.after(delay), outcome));
                }
            });
        }
    }

    fn reply(&mut self, index: usize, token: Tokens, claimed: Claimed, arrived: Millis) -> (Outcome<Tokens>, Duration) {
        let slow = self.dice.once_in(self.weather.slow);
        let delay = self.dice.millis(if slow { 150_000 } else { 3_000 });
        let cut = self.cuts < self.weather.most_cut && self.dice.once_in(self.weather.cut);
        let away = self.now < self.provider_away_until;
        if self.dice.once_in(self.weather.gateway) || (away && self.dice.once_in(4)) {
            self.tally.note(Deed::FailedBefore);
            return (server_error(), delay);
        }
        // A connection cut on the way there, a provider that hangs: nothing was spent, but nobody can know.
        let hangs = away && self.dice.once_in(4);
        if hangs || (cut && self.dice.once_in(4) && self.weather.most_cut == u64::MAX) {
            self.cuts += 1;
            self.tally.note(Deed::CutBefore);
            return (Outcome::Ambiguous, delay);
        }
        if let Some(outcome) = self.definite_refusal(index) {
            self.set_of(claimed.generation).unresolved -= 1;
            return (outcome, delay);
        }
        let reused = self.provider.reused;
        let reply = self.provider.refresh(token, arrived);
        self.reuse_is_excused(reused, claimed);
        let last_try = self.nodes[index].running.as_ref().is_some_and(|running| running.last_try);
        if last_try {
            self.judge_last_try(index, reused, claimed);
        }
        match reply {
            Reply::Refused => {
                self.tally.note(Deed::InvalidGrant);
                let set = self.set_of(claimed.generation);
                (set.refused, set.unresolved) = (true, set.unresolved - 1);
                (Outcome::Reauth(Code::new("invalid_grant")), delay)
            }
            Reply::Fresh(tokens) => {
                self.tally.note(Deed::Refreshed);
                if cut && self.dice.once_in(3) {
                    self.cuts += 1;
                    self.tally.note(Deed::FailedAfter);
                    return (server_error(), delay);
                }
                // Cut on the way back, a 2xx that cannot be read.
                if cut {
                    self.cuts += 1;
                    self.tally.note(Deed::CutAfter);
                    return (Outcome::Ambiguous, delay);
                }
                (Outcome::Fresh(tokens), delay)
            }
        }
    }

    /// Nothing was spent, and everybody knows.
    fn definite_refusal(&mut self, index: usize) -> Option<Outcome<Tokens>> {
        if self.secret_is_wrong {
            self.tally.note(Deed::Configuration);
            return Some(Outcome::Configuration(Code::new("invalid_client")));
        }
        let away = self.now < self.provider_away_until;
        if !away && !self.dice.once_in(self.weather.refuses) {
            return None;
        }
        self.tally.note(Deed::Refused);
        Some(match self.dice.roll(if away { 3 } else { 7 }) {
            0 | 1 => Outcome::Transient(Code::new("server_error")),
            // Seconds, counted by the node that hears it.
            2 => Outcome::RateLimited(Some(self.wall(index).after(self.dice.millis(40_000)))),
            // A date, by the provider's own clock, which is ten minutes fast or slow.
            3 => {
                let theirs = Millis(self.now.0 + self.dice.pick(&[600_000, -600_000]));
                Outcome::RateLimited(Some(theirs.after(self.dice.millis(40_000))))
            }
            4 => Outcome::RateLimited(None),
            5 => Outcome::Unrecognised(Code::new("teapot")),
            _ => Outcome::Admin(Code::new("ban")),
        })
    }
}

/// 500, 502, 504: some server has failed, before or after the provider did its work.
fn server_error() -> Outcome<Tokens> {
    Outcome::ServerError(Code::new("http_502"))
}
