//! Between rows and the protocol's words.

use std::time::Duration;

use super::refresh::{
    Code, Deadlines, Doubt, Integration, Jitter, Keep, NEVER, Phase, Policy, Replay, Revocation, Status, Unrecognised,
    View, due_at,
};
use crate::caller::TenantScope;
use crate::clock::Millis;
use crate::keys::{Owner, Place};
use crate::providers::{self, Descriptor};
use crate::store::credentials::{CredentialRow, DoubtColumns};
use crate::store::integrations::{IntegrationRow, integration_by_id};
use crate::store::{StoreError, Tx};

/// What the protocol sees of a row. `integration` is none for a secret that was handed over directly.
pub(super) fn view(row: &CredentialRow, integration: Option<&IntegrationRow>, process: &str) -> View {
    View {
        generation: row.generation,
        fence: row.fence,
        consents: row.consents,
        stored_fence: row.stored_fence,
        lease_until: row.lease_until.map(Millis),
        lease_is_mine: row.lease_owner.as_deref() == Some(process),
        phase: match row.phase.as_str() {
            "claimed" => Phase::Claimed,
            "sent" => Phase::Sent { since: Millis(row.sent_at.unwrap_or_default()) },
            _ => Phase::Idle,
        },
        doubt: doubt(row.doubt),
        status: status(row),
        // Without an integration there is nothing to refresh with, and nothing that could stand in the way.
        integration: integration.map_or(Integration::Working, standing),
        silent_at: integration.and_then(|one| one.silent_at).map(Millis),
        keep: integration.map_or(Keep::Always, keep),
        expires_at: row.expires_at.map(Millis),
        original_life: row.expires_at.map(|end| Millis(end).left(Millis(row.obtained_at))),
        has_refresh_token: row.refresh_token.is_some(),
        next_attempt_at: row.next_attempt_at.map(Millis),
        attempts: u32::try_from(row.attempts).unwrap_or(u32::MAX),
        last_error: row.last_error.as_deref().map(Code::new),
        failed_at: row.last_error_at.map(Millis),
        unrecognised: Unrecognised {
            count: u32::try_from(row.unrecognised_count).unwrap_or(u32::MAX),
            since: Millis(row.unrecognised_since),
        },
        refreshed_at: Millis(row.obtained_at),
        last_used_at: Millis(row.last_used_at),
    }
}

pub(super) fn doubt(columns: DoubtColumns) -> Option<Doubt> {
    Some(Doubt {
        first_sent: Millis(columns.first_sent?),
        since: Millis(columns.since?),
        replays: u8::try_from(columns.replays).unwrap_or(u8::MAX),
        likely_unspent: columns.likely_unspent == 1,
    })
}

fn status(row: &CredentialRow) -> Status {
    match row.status.as_str() {
        "active" => Status::Active,
        "misconfigured" => Status::Misconfigured,
        "needs_reauth" => Status::NeedsReauth { reason: Code::new(row.reason.as_deref().unwrap_or("unknown")) },
        _ => Status::Deleted,
    }
}

/// How the integration stands. A fault says more than a pause, but its probes wait for the end of the pause, too (RL-09).
pub(super) fn standing(integration: &IntegrationRow) -> Integration {
    let paused_until = integration.rate_limited_until.map(Millis);
    let probe_at = Deadlines::default().probe_after(paused_until, Millis(integration.probe_at.unwrap_or_default()));
    let code = |word: Option<&str>| Code::new(word.unwrap_or("unknown"));
    if integration.status == "misconfigured" {
        return Integration::Faulty { code: code(integration.reason.as_deref()), probe_at };
    }
    if integration.unreachable_since.is_some() {
        return Integration::Unreachable { code: code(integration.outage.as_deref()), probe_at };
    }
    paused_until.map_or(Integration::Working, |until| Integration::RateLimited { until })
}

fn keep(integration: &IntegrationRow) -> Keep {
    match integration.refresh_policy.as_str() {
        "active" => {
            let days = u64::try_from(integration.active_days).unwrap_or_default();
            Keep::Active { within: Duration::from_secs(days.saturating_mul(24 * 3600)) }
        }
        "on_demand" => Keep::OnDemand,
        _ => Keep::Always,
    }
}

/// A person is told so long before the refresh token itself ends, which only connecting again can mend.
pub(crate) const WARN_AHEAD: Duration = Duration::from_secs(3 * 24 * 3600);

/// Two ends that are closer than this are one, in milliseconds: half of the time that people are told ahead.
const SAME_END: u64 = 36 * 3_600_000;

/// When the end of a refresh token is warned of; none where it has no end, or where that was done.
pub(super) fn warn_at(refresh_expires_at: Option<i64>, warned_for: Option<i64>) -> Option<Millis> {
    // Some providers tell with every refresh how long is left, so that the same end moves by a little.
    let is_new = |end: &i64| warned_for.is_none_or(|told| told.abs_diff(*end) > SAME_END);
    let end = refresh_expires_at.filter(is_new)?;
    Some(Millis(end).before(WARN_AHEAD))
}

/// When the refresh token of a living credential ends, if that is so near that its user should know.
pub(crate) fn ends_soon(row: &CredentialRow, now: Millis) -> Option<Millis> {
    let end = Millis(row.refresh_expires_at?);
    (row.status == "active" && end > now && now >= end.before(WARN_AHEAD)).then_some(end)
}

/// When the sweep should look at a row next: to refresh it, to settle a doubt, or to warn.
pub(super) fn look_at(
    row: &CredentialRow,
    integration: Option<&IntegrationRow>,
    policy: &Policy,
    now: Millis,
    jitter: Jitter,
) -> Option<i64> {
    let due = due_at(&view(row, integration, ""), policy, now, jitter);
    let warn = warn_at(row.refresh_expires_at, row.warned_for).filter(|_| row.status == "active");
    [(due < NEVER).then_some(due), warn].into_iter().flatten().min().map(|at| at.0)
}

pub(super) fn doubt_columns(doubt: Option<Doubt>) -> DoubtColumns {
    doubt.map_or_else(DoubtColumns::default, |doubt| DoubtColumns {
        first_sent: Some(doubt.first_sent.0),
        since: Some(doubt.since.0),
        replays: i64::from(doubt.replays),
        likely_unspent: i64::from(doubt.likely_unspent),
    })
}

/// The provider's manners as the protocol wants to know them. What is minted spends nothing, whatever the provider does with
/// refresh tokens.
pub(super) fn policy(descriptor: &Descriptor, kind: &str) -> Policy {
    if providers::CredentialKind::parse(kind).is_some_and(providers::CredentialKind::is_minted) {
        return Policy::new(Replay::Safe, false, Revocation::Impossible);
    }
    let replay = match descriptor.replay {
        providers::Replay::Safe => Replay::Safe,
        providers::Replay::Grace(grace) => Replay::Grace(grace),
        providers::Replay::Unsafe => Replay::Unsafe,
    };
    let revocation = match (descriptor.revocable(), descriptor.revoke.ends) {
        (false, _) => Revocation::Impossible,
        (true, providers::RevokeEnds::TokenSet) => Revocation::OneTokenSet,
        (true, providers::RevokeEnds::Consent) => Revocation::WholeConsent,
    };
    let mut policy = Policy::new(replay, descriptor.rotates(), revocation);
    if let Some(idle) = descriptor.idle_expiry {
        policy.keep_alive = policy.keep_alive.min(idle / 3);
    }
    policy
}

/// The integration that a row names, if any.
pub(super) async fn integration_of(
    tx: &mut Tx,
    scope: &TenantScope,
    id: Option<&str>,
) -> Result<Option<IntegrationRow>, StoreError> {
    match id {
        Some(id) => integration_by_id(tx, scope, id).await,
        None => Ok(None),
    }
}

/// Whose key seals a credential's tokens.
pub(super) fn owner(row: &CredentialRow) -> Owner {
    Owner::of_row(&row.tenant_id, &row.owner_kind, &row.owner_id)
}

/// Where an access token stands.
pub(super) fn access_place(id: &str, generation: i64) -> Place<'_> {
    Place { record_kind: "credential", record_id: id, field: "access_token", generation }
}

/// Where a refresh token stands.
pub(super) fn refresh_place(id: &str, generation: i64) -> Place<'_> {
    Place { record_kind: "credential", record_id: id, field: "refresh_token", generation }
}

/// Where an integration's client secret stands.
pub(super) fn client_secret_place(id: &str) -> Place<'_> {
    Place { record_kind: "integration", record_id: id, field: "client_secret", generation: 0 }
}

/// Whether a token that is lent all the same is less than one could wish: the last refresh failed, or its credential or
/// integration is faulty, so that no refresh will come. Tokens and views of connections both say it by this rule.
pub(crate) fn is_degraded(row: &CredentialRow, integration_status: Option<&str>, now: Millis) -> bool {
    row.status != "active"
        || last_error(row, now).is_some()
        || integration_status.is_some_and(|status| status != "active")
}

/// Whether the token of a refresh that nobody knows the outcome of is likely good, and tried once more when its access token
/// has ended.
pub(crate) fn may_be_good(row: &CredentialRow, integration: Option<&IntegrationRow>) -> bool {
    let silent_at = integration.and_then(|one| one.silent_at).map(Millis);
    row.phase == "idle" && doubt(row.doubt).is_some_and(|doubt| doubt.may_hope(silent_at))
}

/// Why the last refresh brought nothing: what its record says, or that its holder has died before it could say
/// anything, so that nobody knows yet whether the refresh token was spent.
pub(crate) fn last_error(row: &CredentialRow, now: Millis) -> Option<String> {
    let abandoned = row.phase == "sent" && row.lease_until.is_none_or(|end| end <= now.0);
    row.last_error.clone().or_else(|| abandoned.then(|| Code::IN_DOUBT.to_string()))
}

/// What is left of a token's life; none when it never ends.
pub(super) fn life_left(row: &CredentialRow, now: Millis) -> Option<Duration> {
    row.expires_at.map(|end| Millis(end).left(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::testing::House;
    use crate::store::testing::on_both;

    #[tokio::test]
    async fn rl_37_a_late_answer_ends_no_token_that_may_be_the_one_in_use() {
        // fact sheet A.6, B.4 and D.2: some keep their refresh token, others may, and of most nobody has found out
        on_both(async |store| {
            let house = House::build(&store).await;
            for (id, ends) in [
                ("google", Revocation::WholeConsent),
                ("salesforce", Revocation::WholeConsent),
                ("hubspot", Revocation::WholeConsent),
                ("slack", Revocation::OneTokenSet),
                // Rotates, and whatever is revoked takes every token of the user's along.
                ("discord", Revocation::WholeConsent),
                ("xero", Revocation::WholeConsent),
                ("telegram", Revocation::Impossible),
            ] {
                let provider = house.rooms[0].providers.get(id).expect("in the catalogue");
                assert_eq!(policy(provider.descriptor(), "user").revocation, ends, "{id}");
            }
        })
        .await;
    }
}
