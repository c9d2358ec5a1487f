//! The model store: what each action's documentation says, on one row in memory. The differential test of the driver
//! compares it with the databases, so it is exact where the simulation alone would not need it to be.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use super::super::provider::Tokens;
use super::{LIFE, START};
use crate::clock::Millis;
use crate::credentials::refresh::*;

/// A credential's row, joined with its integration's.
#[derive(Clone, Debug)]
pub(in crate::credentials) struct Shelf {
    /// The row. Its integration is working or faulty here; a pause stands beside it, since both can be true at once.
    view: View,
    /// Until when the provider wants fewer calls of the client.
    pub(super) pause: Option<Millis>,
    /// Who holds the lease.
    lease_owner: u64,
    /// Attempts in a row without an answer, and the outage that they have become, with its next probe.
    unanswered: u32,
    away: Option<(Code, Millis)>,
    /// Refusals in a row, and when the first of them came.
    refused: (u32, Option<Millis>),
}

impl Deref for Shelf {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

impl DerefMut for Shelf {
    fn deref_mut(&mut self) -> &mut View {
        &mut self.view
    }
}

impl Shelf {
    pub(in crate::credentials) fn new() -> Self {
        Self { view: new_row(), pause: None, lease_owner: 0, unanswered: 0, away: None, refused: (0, None) }
    }

    /// The row as `owner` loads it. A fault says more than a pause, but its probes wait for the end of the pause, too.
    pub(in crate::credentials) fn seen_by(&self, owner: u64) -> View {
        let late = |probe_at: Millis| Deadlines::default().probe_after(self.pause, probe_at);
        let integration = match (&self.view.integration, &self.away, self.pause) {
            (Integration::Faulty { code, probe_at }, ..) => {
                Integration::Faulty { code: code.clone(), probe_at: late(*probe_at) }
            }
            (Integration::Working, Some((code, probe_at)), _) => {
                Integration::Unreachable { code: code.clone(), probe_at: late(*probe_at) }
            }
            (Integration::Working, None, Some(until)) => Integration::RateLimited { until },
            (standing, ..) => standing.clone(),
        };
        let lease_is_mine = self.view.lease_until.is_some() && self.lease_owner == owner;
        View { lease_is_mine, integration, ..self.view.clone() }
    }

    pub(in crate::credentials) fn claim(&mut self, now: Millis, owner: u64, claim: Claim) -> Option<i64> {
        let row = &mut self.view;
        let leased = row.lease_until.is_some_and(|until| until > now && until <= claim.believable);
        let same = (row.generation, row.fence) == (claim.generation, claim.fence);
        let seen = (claim.phase.as_str(), claim.doubt_since);
        let unchanged = same && seen == (row.phase.as_str(), row.doubt.map(|doubt| doubt.since));
        if !unchanged || leased || row.status != Status::Active {
            return None;
        }
        let probe_at = match (&mut row.integration, &mut self.away) {
            (Integration::Faulty { probe_at, .. }, _) | (_, Some((_, probe_at))) => Some(probe_at),
            _ => None,
        };
        if let (Some(next), Some(probe_at)) = (claim.probe, probe_at) {
            if *probe_at > now {
                return None;
            }
            *probe_at = next;
        }
        row.fence += 1;
        row.phase = if claim.announces { Phase::Claimed } else { Phase::Sent { since: now } };
        (row.lease_until, row.doubt) = (Some(claim.lease_until), claim.doubt);
        self.lease_owner = owner;
        Some(row.fence)
    }

    pub(in crate::credentials) fn announce(&mut self, now: Millis, claimed: Claimed, lease_until: Millis) -> bool {
        let same = (self.generation, self.fence) == (claimed.generation, claimed.fence);
        if !same || self.phase != Phase::Claimed || self.status == Status::Deleted {
            return false;
        }
        (self.phase, self.lease_until) = (Phase::Sent { since: now }, Some(lease_until));
        true
    }

    pub(in crate::credentials) fn renew(&mut self, claimed: Claimed, lease_until: Millis) -> bool {
        let same = (self.generation, self.fence) == (claimed.generation, claimed.fence);
        if !same || self.phase == Phase::Idle || self.status == Status::Deleted {
            return false;
        }
        self.lease_until = Some(lease_until);
        true
    }

    pub(in crate::credentials) fn store(
        &mut self,
        now: Millis,
        claimed: Claimed,
        generation: i64,
        only_fence: bool,
    ) -> bool {
        let row = &mut self.view;
        let same = row.generation == generation && row.consents == claimed.consents;
        if !same || row.status == Status::Deleted || (only_fence && row.fence != claimed.fence) {
            return false;
        }
        let status = if row.status == given_up() { Status::Active } else { row.status.clone() };
        let outweighed = if row.integration == Integration::Working { self.refused.0.saturating_sub(2) } else { 0 };
        // A faulty integration works again; a pause that the provider asked for goes on.
        *row = View {
            generation: generation + 1,
            fence: row.fence,
            consents: row.consents,
            stored_fence: Some(claimed.fence),
            status,
            expires_at: Some(now.after(LIFE)),
            refreshed_at: now,
            last_used_at: row.last_used_at,
            silent_at: row.silent_at,
            keep: row.keep,
            ..new_row()
        };
        (self.unanswered, self.away) = (0, None);
        self.refused = (outweighed, self.refused.1.filter(|_| outweighed > 0));
        true
    }

    /// What happens: the record is written, or withheld, or nothing because the row has moved on.
    pub(in crate::credentials) fn record(&mut self, now: Millis, record: &Record) -> Option<Event<Tokens>> {
        if let Record::Reauth { generation, fence, reason, heals_integration, wave } = record {
            return self.refuse(now, (*generation, *fence), reason, *heals_integration, wave.as_ref());
        }
        let failure = failure_of(record)?;
        let written = self.fail(now, failure);
        // A pause and a fault are the client's, whoever has gone on with this credential meanwhile.
        if written || matches!(record, Record::RateLimited { .. } | Record::Configuration { .. }) {
            self.strain(now, record);
        }
        written.then_some(Event::Recorded)
    }

    fn strain(&mut self, now: Millis, record: &Record) {
        self.unanswered += 1;
        match record {
            Record::Failure(_) | Record::Reauth { .. } => self.unanswered -= 1,
            Record::Unanswered { open_after, probe_at, failure } => {
                if self.unanswered >= 4 {
                    self.view.silent_at = Some(now);
                }
                if let Some((code, probe)) = &mut self.away {
                    (*code, *probe) = (failure.last_error.clone(), *probe_at);
                } else if self.unanswered >= *open_after {
                    self.away = Some((failure.last_error.clone(), *probe_at));
                }
            }
            Record::RateLimited { until, .. } => {
                self.pause = self.pause.max(Some(*until));
                (self.unanswered, self.away) = (0, None);
            }
            Record::Configuration { code, probe_at, .. } => {
                self.view.integration = Integration::Faulty { code: code.clone(), probe_at: *probe_at };
                (self.unanswered, self.away) = (0, None);
            }
        }
    }

    fn fail(&mut self, now: Millis, failure: &Failure) -> bool {
        let row = &mut self.view;
        let same = (row.generation, row.fence) == (failure.generation, failure.fence);
        let sent = matches!(row.phase, Phase::Sent { .. });
        if !same || (failure.abandoned && !sent) || row.status == Status::Deleted {
            return false;
        }
        row.fence += i64::from(failure.doubt.is_none());
        // Who was taken for dead brings good news.
        let unspent = failure.doubt.is_none_or(|doubt| doubt.likely_unspent);
        if unspent && !failure.abandoned && row.status == given_up() {
            row.status = Status::Active;
        }
        row.failed_at = Some(now);
        (row.phase, row.lease_until) = (Phase::Idle, None);
        (row.attempts, row.next_attempt_at) = (failure.attempts, Some(failure.next_attempt_at));
        (row.last_error, row.doubt) = (Some(failure.last_error.clone()), failure.doubt);
        row.unrecognised = failure.unrecognised;
        true
    }

    fn refuse(
        &mut self,
        now: Millis,
        seen: (i64, i64),
        reason: &Code,
        heals: bool,
        wave: Option<&Wave>,
    ) -> Option<Event<Tokens>> {
        let before = self.clone();
        if let Some(wave) = wave {
            let held =
                matches!(&self.view.integration, Integration::Faulty { code, .. } if *code == Code::REFUSED_WAVE);
            let goes_on = held || self.refused.1.is_some_and(|since| since > wave.since);
            self.refused = if goes_on { (self.refused.0 + 1, self.refused.1) } else { (1, Some(now)) };
            (self.unanswered, self.away) = (0, None);
            if self.refused.0 >= wave.most {
                let (code, probe_at) = (Code::REFUSED_WAVE, wave.probe_at);
                self.view.integration = Integration::Faulty { code, probe_at };
                if self.fail(now, &wave.failure) {
                    // What the wave has marked so far is taken back.
                    let stays = [Code::ROTATION_RESPONSE_LOST, Code::SESSION_POLICY, Code::NOT_REFRESHABLE];
                    let has_tokens = self.view.has_refresh_token;
                    if matches!(&self.view.status, Status::NeedsReauth { reason } if has_tokens && !stays.contains(reason))
                    {
                        self.view.status = Status::Active;
                    }
                    return Some(Event::Withheld);
                }
                *self = before;
                return None;
            }
        }
        let marked = self.mark(now, seen, reason, heals);
        if !marked {
            *self = before;
        }
        marked.then_some(Event::Recorded)
    }

    fn mark(&mut self, now: Millis, seen: (i64, i64), reason: &Code, heals: bool) -> bool {
        let row = &mut self.view;
        if (row.generation, row.fence) != seen || row.status != Status::Active {
            return false;
        }
        row.failed_at = Some(now);
        row.status = Status::NeedsReauth { reason: reason.clone() };
        (row.phase, row.lease_until, row.doubt, row.next_attempt_at) = (Phase::Idle, None, None, None);
        row.last_error = Some(reason.clone());
        if heals {
            let wave = matches!(&row.integration, Integration::Faulty { code, .. } if *code == Code::REFUSED_WAVE);
            if !wave {
                row.integration = Integration::Working;
            }
            (self.unanswered, self.away) = (0, None);
        }
        true
    }

    /// The other credentials of the client were refused, or got no answer: one more, and it is a crowd.
    pub(in crate::credentials) fn others_fail(&mut self, now: Millis) {
        (self.refused, self.unanswered) = ((9, Some(now)), 7);
    }

    /// How many refusals in a row there were.
    pub(in crate::credentials) fn refusals(&self) -> u32 {
        self.refused.0
    }

    /// A person consents again.
    pub(in crate::credentials) fn reconnect(&mut self, now: Millis) {
        let row = &mut self.view;
        *row = View {
            generation: row.generation + 1,
            fence: row.fence + 1,
            consents: row.consents + 1,
            integration: row.integration.clone(),
            expires_at: Some(now.after(LIFE)),
            refreshed_at: now,
            last_used_at: row.last_used_at,
            silent_at: row.silent_at,
            keep: row.keep,
            ..new_row()
        };
    }

    /// Whether a platform that brings the stored refresh token again brings it to be used, or what may yet be healed by a late answer.
    pub(in crate::credentials) fn may_go_on(&self) -> bool {
        self.status == Status::Active || self.status == Status::NeedsReauth { reason: Code::ROTATION_RESPONSE_LOST }
    }

    /// A consent whose refresh token is the stored one, where use spends it: that goes on, whatever its fate.
    pub(in crate::credentials) fn refill(&mut self, now: Millis) {
        (self.view.expires_at, self.view.original_life) = (Some(now.after(LIFE)), Some(LIFE));
        self.view.refreshed_at = now;
        if self.view.status == Status::Active {
            (self.view.last_error, self.view.failed_at) = (None, None);
        }
    }

    /// The provider says that it has ended: the tokens are destroyed.
    pub(in crate::credentials) fn lose(&mut self, now: Millis) {
        let reason = Code::new("revoked_at_provider");
        let row = &mut self.view;
        let end = row.expires_at.map_or(now, |end| end.min(now));
        *row = View {
            generation: row.generation + 1,
            fence: row.fence + 1,
            consents: row.consents + 1,
            stored_fence: None,
            lease_until: None,
            phase: Phase::Idle,
            doubt: None,
            status: Status::NeedsReauth { reason: reason.clone() },
            expires_at: Some(end),
            original_life: Some(end.left(row.refreshed_at)),
            has_refresh_token: false,
            next_attempt_at: None,
            last_error: Some(reason),
            failed_at: Some(now),
            ..row.clone()
        };
    }

    /// The tenant puts another client id in.
    pub(in crate::credentials) fn change_client(&mut self) {
        if self.status != Status::Deleted {
            self.status = Status::Misconfigured;
            self.fence += 1;
        }
    }

    /// The tenant puts another client secret in: nothing is known against the integration any more. A pause that the provider has asked
    /// for goes on.
    pub(in crate::credentials) fn mend_integration(&mut self) {
        self.integration = Integration::Working;
        (self.unanswered, self.away, self.refused) = (0, None, (0, None));
    }
}

/// What a record says of the credential, unless it gives it up.
pub(super) fn failure_of(record: &Record) -> Option<&Failure> {
    match record {
        Record::Failure(failure)
        | Record::Unanswered { failure, .. }
        | Record::RateLimited { failure, .. }
        | Record::Configuration { failure, .. } => Some(failure),
        Record::Reauth { .. } => None,
    }
}

fn given_up() -> Status {
    Status::NeedsReauth { reason: Code::ROTATION_RESPONSE_LOST }
}

fn new_row() -> View {
    View {
        generation: 1,
        fence: 0,
        consents: 1,
        stored_fence: None,
        lease_until: None,
        lease_is_mine: false,
        phase: Phase::Idle,
        doubt: None,
        status: Status::Active,
        integration: Integration::Working,
        silent_at: None,
        keep: Keep::Always,
        expires_at: Some(START.after(Duration::from_secs(100))),
        original_life: Some(LIFE),
        has_refresh_token: true,
        next_attempt_at: None,
        attempts: 0,
        last_error: None,
        failed_at: None,
        unrecognised: Unrecognised::default(),
        refreshed_at: START,
        last_used_at: START,
    }
}
