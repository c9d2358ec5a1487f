//! A token was sent and nobody knows what became of it: when it may leave again, and when it is given up.

use super::{
    After, Code, Doubt, Failure, Flight, Held, Integration, MOST_LOOKS, Millis, Next, Phase, Record, Verdict, View,
    mark_reauth, over, record, serve, serve_or,
};

impl<T: Clone> Flight<T> {
    /// Whether a doubtful token may leave now: inside its grace; or, where it is likely unspent, for a last try that can do no
    /// harm any more.
    pub(super) fn may_leave(&self, now: Millis, view: &View, doubt: &Doubt) -> bool {
        if self.policy.may_replay(doubt, now) {
            return true;
        }
        // Also of use to the others whom this caller does not know of, unless it has no end by which one could tell.
        let is_useless = self.policy.has_ended(view, now) || (view.expires_at.is_none() && self.insists(view));
        let is_recorded = view.phase == Phase::Idle;
        let may_hope = doubt.may_hope(view.silent_at);
        may_hope && is_recorded && is_useless && now >= self.policy.last_try_at(doubt)
    }

    /// The token must not be sent now. Has a late answer had its time to come?
    ///
    /// That time begins when the doubt is written down, not when the lease ended: whoever holds the answer may have been kept from
    /// storing it by the very database that was away, or waits in a spool for the next start, and comes now, too.
    pub(super) fn in_doubt(&mut self, now: Millis, view: View, doubt: Doubt) -> Next<T> {
        let lease = self.policy.deadlines.lease;
        // One that a jumped clock has written begins anew, or it would last as long as the jump.
        let is_recorded = view.phase == Phase::Idle && doubt.since <= self.policy.believable(now, lease);
        let may_hope = doubt.may_hope(view.silent_at);
        let span = self.policy.deadlines.doubt;
        let over_at = if may_hope { self.policy.last_try_at(&doubt) } else { doubt.since.after(span) };
        if is_recorded && now < over_at {
            let otherwise = Verdict::RefreshInProgress { retry_after: over_at.left(now) };
            return over(serve_or(now, &view, Code::IN_DOUBT, otherwise));
        }
        if is_recorded && may_hope {
            return over(serve(&view, Some(Code::IN_DOUBT)));
        }
        // Whoever was stopped since it has read the row does not know that the holder lives and renews its lease.
        let is_old = now >= self.asked_at.after(lease / 2) || now < self.asked_at;
        if is_old && self.looks < MOST_LOOKS {
            return self.load();
        }
        if !is_recorded {
            return self.doubt_anew(now, view, doubt);
        }
        mark_reauth(view, Code::ROTATION_RESPONSE_LOST, false)
    }

    /// From here on a late answer has its time again, while the database can be written.
    fn doubt_anew(&self, now: Millis, view: View, doubt: Doubt) -> Next<T> {
        let doubt = Doubt { since: now, ..doubt };
        let failure = self.failure(now, &view, view.fence, Code::IN_DOUBT, Some(doubt));
        let next_attempt_at = now.after(self.policy.deadlines.doubt);
        let abandoned = matches!(view.phase, Phase::Sent { .. });
        let failure = Failure { abandoned, attempts: view.attempts, next_attempt_at, ..failure };
        let after = self.doubtful(now, &failure);
        record(Record::Failure(failure), view, false, after)
    }

    /// The answer was lost, or a server has answered that it failed, which few do after they have spent the token. Where every
    /// attempt ended so, or was a probe of a provider that answered nobody, the token is likely good, and nobody holds an answer.
    pub(super) fn lost_answer(&mut self, now: Millis, held: Held, code: Code, failed_there: bool) -> Next<T> {
        let replays = held.doubt.map_or(0, |doubt| doubt.replays.saturating_add(1));
        // A last try is an attempt of its own: what spoke for the token before it says nothing about its answer, and for the
        // answers of earlier ones it has been waited.
        let earlier = held.doubt.filter(|doubt| self.policy.may_replay(doubt, held.at));
        let first_sent = earlier.map_or(held.at, |doubt| doubt.first_sent);
        let nobody_was_answered = matches!(held.view.integration, Integration::Unreachable { .. });
        let so_far = earlier.is_none_or(|doubt| doubt.likely_unspent);
        let likely_unspent = (failed_there || nobody_was_answered) && so_far;
        let doubt = Doubt { first_sent, since: now, replays, likely_unspent };
        let may_replay = self.policy.may_replay(&doubt, now);
        let failure = self.failure(now, &held.view, held.claimed.fence, code, Some(doubt));
        // A provider whose servers fail is not asked again at once; the grace is for answers that were given.
        let again = may_replay && !failed_there;
        let next_attempt_at = match (again, may_replay) {
            (true, _) => now,
            (false, true) => failure.next_attempt_at,
            (false, false) => failure.next_attempt_at.max(now.after(self.policy.deadlines.doubt)),
        };
        let failure = Failure { next_attempt_at, ..failure };
        let after = if again { After::Replay } else { self.doubtful(now, &failure) };
        record(self.strain(now, failure), held.view, true, after)
    }

    fn doubtful(&self, now: Millis, failure: &Failure) -> After {
        let retry_after = failure.next_attempt_at.left(now);
        let otherwise = Verdict::RefreshInProgress { retry_after };
        After::Failed { retry_at: failure.next_attempt_at, code: Code::IN_DOUBT, otherwise }
    }
}
