//! The model store: what each action's documentation says, on one row in memory.

use super::{LIFE, START, Tokens, World};
use crate::clock::Millis;
use crate::credentials::refresh::*;
use std::time::Duration;

impl World {
    pub(super) fn claim(&mut self, index: usize, claim: Claim) -> Option<Event<Tokens>> {
        let row = &mut self.row;
        let leased = row.lease_until.is_some_and(|until| until > self.now && until <= claim.believable);
        let same = (row.generation, row.fence) == (claim.generation, claim.fence);
        if !same || leased || row.status != Status::Active {
            return None;
        }
        if let (Some(next), Integration::Faulty { probe_at, .. }) = (claim.probe, &mut row.integration) {
            if *probe_at > self.now {
                return None;
            }
            *probe_at = next;
        }
        row.fence += 1;
        row.phase = Phase::Sent { since: self.now };
        (row.lease_until, row.doubt) = (Some(claim.lease_until), claim.doubt);
        self.lease_owner = self.nodes[index].owner;
        Some(Event::Claimed { fence: row.fence })
    }

    pub(super) fn renew(&mut self, claimed: Claimed, lease_until: Millis) -> Event<Tokens> {
        let same = (self.row.generation, self.row.fence) == (claimed.generation, claimed.fence);
        if self.dice.once_in(self.weather.store_fails) {
            return Event::StoreFailed;
        }
        if !same || self.row.phase == Phase::Idle || self.row.status == Status::Deleted {
            return Event::LeaseLost;
        }
        self.row.lease_until = Some(lease_until);
        Event::LeaseRenewed
    }

    pub(super) fn store(
        &mut self,
        tokens: Tokens,
        claimed: Claimed,
        generation: i64,
        only_fence: bool,
    ) -> Option<Event<Tokens>> {
        let row = &mut self.row;
        let same = row.generation == generation && row.consents == claimed.consents;
        if !same || row.status == Status::Deleted || (only_fence && row.fence != claimed.fence) {
            return None;
        }
        let lost = Status::NeedsReauth { reason: Code::ROTATION_RESPONSE_LOST };
        let status = if row.status == lost { Status::Active } else { row.status.clone() };
        *row = View {
            generation: generation + 1,
            fence: row.fence,
            consents: row.consents,
            stored_fence: Some(claimed.fence),
            status,
            expires_at: Some(self.now.after(LIFE)),
            ..new_row()
        };
        self.tokens.insert(generation + 1, tokens);
        Some(Event::Stored)
    }

    pub(super) fn record(&mut self, record: &Record) -> Option<Event<Tokens>> {
        let (failure, integration) = match record {
            Record::Failure(failure) => (failure, None),
            Record::RateLimited { until, failure } => (failure, Some(Integration::RateLimited { until: *until })),
            Record::Configuration { code, probe_at, failure } => {
                (failure, Some(Integration::Faulty { code: code.clone(), probe_at: *probe_at }))
            }
            Record::Reauth { generation, fence, reason, heals_integration } => {
                return self.mark(*generation, *fence, reason, *heals_integration);
            }
        };
        let row = &mut self.row;
        if (row.generation, row.fence) != (failure.generation, failure.fence) || row.status == Status::Deleted {
            return None;
        }
        (row.phase, row.lease_until) = (Phase::Idle, None);
        (row.attempts, row.next_attempt_at) = (failure.attempts, Some(failure.next_attempt_at));
        (row.last_error, row.doubt) = (Some(failure.last_error.clone()), failure.doubt);
        row.unrecognised = failure.unrecognised;
        if let Some(integration) = integration {
            row.integration = integration;
        }
        Some(Event::Recorded)
    }

    fn mark(&mut self, generation: i64, fence: i64, reason: &Code, heals: bool) -> Option<Event<Tokens>> {
        let row = &mut self.row;
        if (row.generation, row.fence) != (generation, fence) || row.status != Status::Active {
            return None;
        }
        row.status = Status::NeedsReauth { reason: reason.clone() };
        (row.phase, row.lease_until, row.doubt, row.next_attempt_at) = (Phase::Idle, None, None, None);
        if heals {
            row.integration = Integration::Working;
        }
        Some(Event::Recorded)
    }
}

pub(super) fn new_row() -> View {
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
