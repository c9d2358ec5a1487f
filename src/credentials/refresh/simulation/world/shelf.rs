//! The model store: what each action's documentation says, on one row in memory. The differential test of the driver
//! compares it with the databases, so it is exact where the simulation alone would not need it to be.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use super::{LIFE, START};
use crate::clock::Millis;
use crate::credentials::refresh::*;

/// A credential's row, joined with its integration's.
#[derive(Clone, Debug)]
pub(in crate::credentials) struct Shelf {
    /// The row. Its integration is working or faulty here; a pause stands beside it, since both can be true at once.
    view: View,
    /// Until when the provider wants fewer calls of the client.
    pause: Option<Millis>,
    /// Who holds the lease.
    lease_owner: u64,
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
        Self { view: new_row(), pause: None, lease_owner: 0 }
    }

    /// The row as `owner` loads it. A fault says more than a pause.
    pub(in crate::credentials) fn seen_by(&self, owner: u64) -> View {
        let integration = match (&self.view.integration, self.pause) {
            (Integration::Working, Some(until)) => Integration::RateLimited { until },
            (standing, _) => standing.clone(),
        };
        let lease_is_mine = self.view.lease_until.is_some() && self.lease_owner == owner;
        View { lease_is_mine, integration, ..self.view.clone() }
    }

    pub(in crate::credentials) fn claim(&mut self, now: Millis, owner: u64, claim: Claim) -> Option<i64> {
        let row = &mut self.view;
        let leased = row.lease_until.is_some_and(|until| until > now && until <= claim.believable);
        let same = (row.generation, row.fence) == (claim.generation, claim.fence);
        if !same || leased || row.status != Status::Active {
            return None;
        }
        if let (Some(next), Integration::Faulty { probe_at, .. }) = (claim.probe, &mut row.integration) {
            if *probe_at > now {
                return None;
            }
            *probe_at = next;
        }
        row.fence += 1;
        row.phase = Phase::Sent { since: now };
        (row.lease_until, row.doubt) = (Some(claim.lease_until), claim.doubt);
        self.lease_owner = owner;
        Some(row.fence)
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
        let lost = Status::NeedsReauth { reason: Code::ROTATION_RESPONSE_LOST };
        let status = if row.status == lost { Status::Active } else { row.status.clone() };
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
            ..new_row()
        };
        true
    }

    pub(in crate::credentials) fn record(&mut self, record: &Record) -> bool {
        let failure = match record {
            Record::Failure(failure) | Record::RateLimited { failure, .. } | Record::Configuration { failure, .. } => {
                failure
            }
            Record::Reauth { generation, fence, reason, heals_integration } => {
                return self.mark(*generation, *fence, reason, *heals_integration);
            }
        };
        let row = &mut self.view;
        if (row.generation, row.fence) != (failure.generation, failure.fence) || row.status == Status::Deleted {
            return false;
        }
        row.fence += i64::from(failure.doubt.is_none());
        (row.phase, row.lease_until) = (Phase::Idle, None);
        (row.attempts, row.next_attempt_at) = (failure.attempts, Some(failure.next_attempt_at));
        (row.last_error, row.doubt) = (Some(failure.last_error.clone()), failure.doubt);
        row.unrecognised = failure.unrecognised;
        match record {
            Record::RateLimited { until, .. } => self.pause = self.pause.max(Some(*until)),
            Record::Configuration { code, probe_at, .. } => {
                row.integration = Integration::Faulty { code: code.clone(), probe_at: *probe_at };
            }
            _ => {}
        }
        true
    }

    fn mark(&mut self, generation: i64, fence: i64, reason: &Code, heals: bool) -> bool {
        let row = &mut self.view;
        if (row.generation, row.fence) != (generation, fence) || row.status != Status::Active {
            return false;
        }
        row.status = Status::NeedsReauth { reason: reason.clone() };
        (row.phase, row.lease_until, row.doubt, row.next_attempt_at) = (Phase::Idle, None, None, None);
        row.last_error = Some(reason.clone());
        if heals {
            row.integration = Integration::Working;
        }
        true
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
            ..new_row()
        };
    }

    /// The tenant puts another client id in.
    pub(in crate::credentials) fn change_client(&mut self) {
        if self.status != Status::Deleted {
            self.status = Status::Misconfigured;
            self.fence += 1;
        }
    }

    /// The tenant puts another client secret in: nothing is known against the integration any more.
    pub(in crate::credentials) fn mend_integration(&mut self) {
        (self.integration, self.pause) = (Integration::Working, None);
    }
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
        expires_at: Some(START.after(Duration::from_secs(100))),
        original_life: Some(LIFE),
        has_refresh_token: true,
        next_attempt_at: None,
        attempts: 0,
        last_error: None,
        unrecognised: Unrecognised::default(),
        refreshed_at: START,
        last_used_at: START,
    }
}
