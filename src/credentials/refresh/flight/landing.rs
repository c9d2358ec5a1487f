//! Bringing an answer home: tokens into the store, failures into the row, late tokens to their end.

use super::{
    Action, After, Cargo, Code, Event, Failure, Flight, Held, MOST_LOOKS, Millis, Next, Record, Revocation, SOON,
    State, Status, Verdict, View, Wave, alive,
};

impl<T: Clone> Flight<T> {
    /// A refusal is final only if the row is still the one we refreshed (RL-07).
    pub(super) fn rereading(&mut self, now: Millis, held: Held, code: Code, event: Event<T>) -> Next<T> {
        match event {
            Event::Loaded(view) if view.status == Status::Deleted => over(Verdict::Gone),
            Event::Loaded(view) => {
                let (claimed, seen) = (held.claimed, (view.generation, view.fence, view.consents));
                if seen != (claimed.generation, claimed.fence, claimed.consents) {
                    return self.consider(now, view);
                }
                if held.doubt.is_some() {
                    return mark_reauth(view, Code::ROTATION_RESPONSE_LOST, true);
                }
                self.believe_refusal(now, view, code)
            }
            Event::Gone => over(Verdict::Gone),
            Event::StoreFailed | Event::StoreUnknown => self.pause(now, State::Rereading { held, code }),
            _ => (State::Rereading { held, code }, Action::Continue),
        }
    }

    /// The user has withdrawn the consent, so it seems: unless all the others did at the same time, too.
    fn believe_refusal(&self, now: Millis, view: View, reason: Code) -> Next<T> {
        let failure = self.failure(now, &view, view.fence, Code::REFUSED_WAVE, None);
        let (since, probe_at) = (now.before(self.policy.deadlines.wave), now.after(self.policy.deadlines.probe));
        let failure = Failure { attempts: view.attempts, next_attempt_at: now, ..failure };
        let (generation, fence) = (view.generation, view.fence);
        // An employer's rule about sessions ends those of all its people in the same hour, and says so.
        let telling = reason != Code::SESSION_POLICY;
        let wave = telling.then_some(Wave { most: self.policy.wave, since, probe_at, failure });
        let what = Record::Reauth { generation, fence, reason: reason.clone(), heals_integration: true, wave };
        record(what, view, true, After::Reauth(reason))
    }

    pub(super) fn recording(
        &mut self,
        now: Millis,
        record: Record,
        view: View,
        insist: bool,
        after: After,
        event: Event<T>,
    ) -> Next<T> {
        match event {
            Event::Recorded => match after {
                After::Replay if !self.stopping => self.load(),
                After::Failed { retry_at, code, otherwise } => self.failed(now, &view, retry_at, code, otherwise),
                after => self.give_up(now, &view, after),
            },
            Event::Withheld => over(serve_or(now, &view, Code::REFUSED_WAVE, Verdict::Misconfigured)),
            // Also what a repeated record meets when the first one did land.
            Event::RecordLost => self.load(),
            Event::Gone => over(Verdict::Gone),
            // Also while the node stops: a claim that is left behind turns into a doubt about a token that is well.
            Event::StoreFailed | Event::StoreUnknown if insist => {
                self.pause(now, State::Recording { record, view, insist, after })
            }
            Event::StoreFailed | Event::StoreUnknown => self.give_up(now, &view, after),
            _ => (State::Recording { record, view, insist, after }, Action::Continue),
        }
    }

    fn give_up(&self, now: Millis, view: &View, after: After) -> Next<T> {
        over(match after {
            After::Replay => serve_or(now, view, Code::IN_DOUBT, Verdict::RefreshInProgress { retry_after: SOON }),
            After::Failed { code, otherwise, .. } => serve_or(now, view, code, otherwise),
            After::Reauth(reason) => self.reauth_verdict(now, view, &reason),
        })
    }

    /// After a definite failure: serve what lives, try again if that is soon, else say why not.
    pub(super) fn failed(
        &mut self,
        now: Millis,
        view: &View,
        retry_at: Millis,
        code: Code,
        otherwise: Verdict,
    ) -> Next<T> {
        let usable = alive(view, now) && !self.insists(view);
        let patience = self.begun.after(self.policy.deadlines.patience);
        let soon = retry_at <= patience && now >= self.begun && now <= patience;
        let tries_left = self.sends <= self.policy.retries && self.looks < MOST_LOOKS;
        if usable || self.wish.sweep || self.stopping || !soon || !tries_left {
            return over(serve_or(now, view, code, otherwise));
        }
        (State::Waiting, Action::Wait { until: retry_at })
    }

    /// The caller has said that this very token is of no use.
    pub(super) fn insists(&self, view: &View) -> bool {
        self.wish.forced || self.wish.newer_than.is_some_and(|generation| view.generation <= generation)
    }

    /// A token without an end can only have come to `needs_reauth` by being refused itself, so it is not served.
    pub(super) fn reauth_verdict(&self, now: Millis, view: &View, reason: &Code) -> Verdict {
        if alive(view, now) && view.expires_at.is_some() && !self.insists(view) {
            return serve(view, Some(reason.clone()));
        }
        Verdict::NeedsReauth { reason: reason.clone() }
    }

    pub(super) fn storing(&mut self, now: Millis, cargo: Cargo<T>, event: Event<T>) -> Next<T> {
        match event {
            Event::Stored => over(Verdict::Serve { generation: cargo.generation.saturating_add(1), degraded: None }),
            Event::StoreLost(view) => self.lost(now, cargo, view),
            Event::Gone => self.too_late(cargo),
            Event::StoreFailed => self.store_later(now, cargo, State::Storing),
            Event::StoreUnknown => (State::Checking(cargo), Action::Load),
            _ => (State::Storing(cargo), Action::Continue),
        }
    }

    pub(super) fn checking(&mut self, now: Millis, cargo: Cargo<T>, event: Event<T>) -> Next<T> {
        match event {
            Event::Loaded(view) => self.lost(now, cargo, view),
            Event::Gone => self.too_late(cargo),
            Event::StoreFailed | Event::StoreUnknown => self.store_later(now, cargo, State::Checking),
            _ => (State::Checking(cargo), Action::Continue),
        }
    }

    /// In memory while that is safe, then in the spool; never dropped while the process lives (RL-05).
    fn store_later(&mut self, now: Millis, cargo: Cargo<T>, state: fn(Cargo<T>) -> State<T>) -> Next<T> {
        let since = cargo.since.min(now);
        let cargo = Cargo { since, ..cargo };
        if self.stopping || now >= since.after(self.policy.deadlines.store) {
            return spool(cargo);
        }
        self.pause(now, state(cargo))
    }

    pub(super) fn spooling(&mut self, now: Millis, cargo: Cargo<T>, event: Event<T>) -> Next<T> {
        match event {
            Event::Spooled => {
                let otherwise = Verdict::RefreshInProgress { retry_after: SOON };
                over(match &cargo.old {
                    Some(old) => serve_or(now, old, Code::STORE_UNAVAILABLE, otherwise),
                    None => otherwise,
                })
            }
            Event::SpoolFailed => self.pause(now, State::Storing(Cargo { since: now, ..cargo })),
            _ => (State::Spooling(cargo), Action::Continue),
        }
    }

    /// The row is not, or may not be, as we left it. Whose tokens count?
    fn lost(&mut self, now: Millis, cargo: Cargo<T>, view: View) -> Next<T> {
        let claimed = cargo.claimed;
        if view.status == Status::Deleted {
            return self.too_late(cargo);
        }
        if view.consents != claimed.consents {
            // A reconnect wins. Where revoking would end the new consent too, the late tokens are only dropped.
            if self.policy.revocation == Revocation::OneTokenSet {
                return (State::Revoking(Some(view)), Action::Revoke(cargo.tokens));
            }
            return self.consider(now, view);
        }
        if view.generation > claimed.generation && view.stored_fence == Some(claimed.fence) {
            return over(Verdict::Serve { generation: view.generation, degraded: None });
        }
        if view.generation <= cargo.generation && (!cargo.only_fence || view.fence == claimed.fence) {
            // Nothing was stored yet. After an unknown commit this is the repetition; after a lost comparison the
            // row came back, which only a restored database can do, and the pause keeps it from spinning.
            return self.store_later(now, cargo, State::Storing);
        }
        let theirs_was_sent_before = view.stored_fence.is_some_and(|fence| fence < claimed.fence);
        if !cargo.only_fence && theirs_was_sent_before && view.fence == claimed.fence {
            return store(Cargo { generation: view.generation, only_fence: true, ..cargo });
        }
        self.consider(now, view)
    }

    /// Deleted: delete wins, and what came too late is ended at the provider (RL-37).
    fn too_late(&mut self, cargo: Cargo<T>) -> Next<T> {
        if self.policy.revocation == Revocation::Impossible {
            return over(Verdict::Gone);
        }
        (State::Revoking(None), Action::Revoke(cargo.tokens))
    }

    pub(super) fn revoking(&mut self, now: Millis, row: Option<View>, event: Event<T>) -> Next<T> {
        match (event, row) {
            (Event::Revoked, None) => over(Verdict::Gone),
            (Event::Revoked, Some(view)) => self.consider(now, view),
            (_, row) => (State::Revoking(row), Action::Continue),
        }
    }

    /// The database failed while something must not be forgotten: the same again, a little later.
    pub(super) fn pause(&self, now: Millis, state: State<T>) -> Next<T> {
        let until = now.after(self.policy.deadlines.store_again);
        (State::Pausing(Box::new(state)), Action::Wait { until })
    }

    pub(super) fn pausing(&mut self, state: State<T>, event: Event<T>) -> Next<T> {
        match (event, state) {
            (Event::Shutdown, State::Storing(cargo) | State::Checking(cargo)) => spool(cargo),
            (Event::Woken | Event::Shutdown, state) => match state {
                State::Storing(cargo) => store(cargo),
                State::Recording { record: what, view, insist, after } => record(what, view, insist, after),
                // Rereading, checking and loading begin with a look; nothing else pauses.
                state => (state, Action::Load),
            },
            (_, state) => (State::Pausing(Box::new(state)), Action::Continue),
        }
    }
}

pub(super) fn store<T: Clone>(cargo: Cargo<T>) -> Next<T> {
    let Cargo { claimed, generation, only_fence, .. } = cargo;
    let action = Action::Store { tokens: cargo.tokens.clone(), claimed, generation, only_fence };
    (State::Storing(cargo), action)
}

fn spool<T: Clone>(cargo: Cargo<T>) -> Next<T> {
    let action = Action::Spool { tokens: cargo.tokens.clone(), claimed: cargo.claimed };
    (State::Spooling(cargo), action)
}

pub(super) fn record<T>(record: Record, view: View, insist: bool, after: After) -> Next<T> {
    let action = Action::Record(record.clone());
    (State::Recording { record, view, insist, after }, action)
}

/// `insist` is for whoever holds the claim; others will come to the same end.
pub(super) fn mark_reauth<T>(view: View, reason: Code, claimed: bool) -> Next<T> {
    let (generation, fence) = (view.generation, view.fence);
    let what = Record::Reauth { generation, fence, reason: reason.clone(), heals_integration: claimed, wave: None };
    record(what, view, claimed, After::Reauth(reason))
}

/// Without a refresh token a token is served to its end, then only the user can help.
pub(super) fn unrefreshable<T>(now: Millis, view: View) -> Next<T> {
    if alive(&view, now) {
        return over(serve(&view, Some(Code::NOT_REFRESHABLE)));
    }
    mark_reauth(view, Code::NOT_REFRESHABLE, false)
}

pub(super) fn over<T>(verdict: Verdict) -> Next<T> {
    (State::Over, Action::Done(verdict))
}

pub(super) fn serve(view: &View, degraded: Option<Code>) -> Verdict {
    Verdict::Serve { generation: view.generation, degraded }
}

/// A read never fails while the token has life.
pub(super) fn serve_or(now: Millis, view: &View, code: Code, otherwise: Verdict) -> Verdict {
    if alive(view, now) { serve(view, Some(code)) } else { otherwise }
}

pub(super) fn unavailable(code: Code) -> Verdict {
    Verdict::Unavailable { code, retry_after: SOON }
}
