//! One story per rule. Tokens are plain words here: the machine does not care.

mod crowds;
mod departure;
mod doubts;
mod stop;
mod times;

use std::time::Duration;

use super::words::*;
use super::*;
use crate::clock::Millis;

type Tokens = &'static str;
const NOW: Millis = Millis(1_800_000_000_000);
const FRESH: Tokens = "fresh";

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn unsafe_policy() -> Policy {
    Policy::new(Replay::Unsafe, true, Revocation::OneTokenSet)
}
fn grace_policy() -> Policy {
    Policy::new(Replay::Grace(s(60)), true, Revocation::OneTokenSet)
}
fn safe_policy() -> Policy {
    Policy::new(Replay::Safe, false, Revocation::WholeConsent)
}

/// A token of one hour with 30 s left: alive, and due.
fn view() -> View {
    View {
        generation: 4,
        fence: 9,
        consents: 1,
        stored_fence: Some(8),
        lease_until: None,
        lease_is_mine: false,
        phase: Phase::Idle,
        doubt: None,
        status: Status::Active,
        integration: Integration::Working,
        silent_at: None,
        keep: Keep::Always,
        expires_at: Some(NOW.after(s(30))),
        original_life: Some(s(3600)),
        has_refresh_token: true,
        next_attempt_at: None,
        attempts: 0,
        last_error: None,
        failed_at: None,
        unrecognised: Unrecognised::default(),
        refreshed_at: NOW.before(s(3570)),
        last_used_at: NOW,
    }
}

fn dead() -> View {
    View { expires_at: Some(NOW.before(s(1))), ..view() }
}

/// A rival claimed 40 s ago and its lease ended 10 s ago.
fn dead_lease(base: View) -> View {
    let phase = Phase::Sent { since: NOW.before(s(40)) };
    View { fence: 10, lease_until: Some(NOW.before(s(10))), phase, ..base }
}

struct Story {
    flight: Flight<Tokens>,
    now: Millis,
}

impl Story {
    fn new(policy: Policy, wish: Wish) -> Self {
        let mut flight = Flight::new(policy, wish, Jitter(u32::MAX / 2));
        assert_eq!(flight.step(NOW, Event::Begin), Action::Load);
        Self { flight, now: NOW }
    }

    fn on(&mut self, event: Event<Tokens>) -> Action<Tokens> {
        self.flight.step(self.now, event)
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }

    /// Loads this row and claims it, up to the point where the token is on its way.
    fn sent(policy: Policy, wish: Wish, row: View) -> Self {
        let mut story = Self::at_door(policy, wish, row);
        if story.on(Event::AtDoor) != Action::Continue {
            assert_eq!(story.on(Event::Announced), Action::Depart);
        }
        story
    }

    /// As that, up to the point where it waits at its door, where it does.
    fn at_door(policy: Policy, wish: Wish, row: View) -> Self {
        let mut story = Self::new(policy, wish);
        let fence = row.fence;
        let action = story.on(Event::Loaded(row));
        assert!(matches!(action, Action::Claim(_)), "{action:?}");
        let action = story.on(Event::Claimed { fence: fence + 1 });
        assert!(matches!(action, Action::Send { .. }), "{action:?}");
        story
    }

    fn answer(&mut self, outcome: Outcome<Tokens>) -> Action<Tokens> {
        self.on(Event::Answered(outcome))
    }
}

fn reader() -> Wish {
    Wish::life(s(600))
}

fn served<T>(generation: i64, degraded: Option<Code>) -> Action<T> {
    Action::Done(Verdict::Serve { generation, degraded })
}

fn failure(action: Action<Tokens>) -> Failure {
    match action {
        Action::Record(
            Record::Failure(failure)
            | Record::Unanswered { failure, .. }
            | Record::RateLimited { failure, .. }
            | Record::Configuration { failure, .. },
        ) => failure,
        other => panic!("no failure: {other:?}"),
    }
}

#[test]
fn rl_04_a_refresh_is_load_claim_send_announce_store_and_only_then_served() {
    let mut story = Story::new(unsafe_policy(), reader());
    let Action::Claim(claim) = story.on(Event::Loaded(view())) else { panic!("no claim") };
    assert_eq!((claim.generation, claim.fence, claim.lease_until), (4, 9, NOW.after(s(30))));
    let claimed = Claimed { generation: 4, fence: 10, consents: 1 };
    let send = Action::Send { claimed, announces: true, give_up_after: s(120), tick_every: s(10) };
    assert_eq!(story.on(Event::Claimed { fence: 10 }), send);
    assert_eq!(story.on(Event::AtDoor), Action::Announce { claimed, lease_until: NOW.after(s(30)) });
    assert_eq!(story.on(Event::Announced), Action::Depart);
    let stores = Action::Store { tokens: FRESH, claimed, generation: 4, only_fence: false };
    assert_eq!(story.answer(Outcome::Fresh(FRESH)), stores);
    assert_eq!(story.on(Event::Stored), served(5, None));
    assert!(story.flight.is_over());
}

#[test]
fn a_token_refreshed_by_another_node_meanwhile_is_handed_out_whatever_its_life() {
    let mut story = Story::new(unsafe_policy(), reader());
    assert!(matches!(story.on(Event::Loaded(view())), Action::Claim(_)));
    assert_eq!(story.on(Event::ClaimLost), Action::Load);
    let short = View { generation: 5, expires_at: Some(NOW.after(s(20))), ..view() };
    assert_eq!(story.on(Event::Loaded(short)), served(5, None));
}

#[test]
fn rl_02_a_live_lease_is_waited_for_a_moment_when_something_lives_and_ten_seconds_when_not() {
    let held =
        |base| View { lease_until: Some(NOW.after(s(25))), phase: Phase::Sent { since: NOW.before(s(5)) }, ..base };
    let in_progress = || Action::Done(Verdict::RefreshInProgress { retry_after: s(1) });
    for (wish, row, end, wanted) in [
        (reader(), held(view()), served(4, Some(Code::REFRESH_IN_PROGRESS)), 1),
        (Wish::newer_than(4), held(view()), served(4, Some(Code::REFRESH_IN_PROGRESS)), 20),
        (reader(), held(dead()), in_progress(), 20),
    ] {
        let mut story = Story::new(unsafe_policy(), wish);
        let mut looks = 0;
        loop {
            match story.on(Event::Loaded(row.clone())) {
                Action::Wait { until } => {
                    story.now = until;
                    assert_eq!(story.on(Event::Woken), Action::Load);
                    looks += 1;
                }
                action => break assert_eq!(action, end),
            }
        }
        assert_eq!(looks, wanted, "two looks a second");
    }
}

#[test]
fn rl_08_a_failure_before_sending_backs_off_without_any_doubt_and_the_living_token_is_served() {
    let mut story = Story::sent(unsafe_policy(), reader(), view());
    let failure = failure(story.answer(Outcome::NotSent));
    assert_eq!((failure.doubt, failure.attempts, failure.fence), (None, 1, 10));
    assert!(failure.next_attempt_at > NOW);
    assert_eq!(story.on(Event::Recorded), served(4, Some(Code::NOT_SENT)));
}

#[test]
fn rl_08_a_dead_token_is_tried_twice_more_inside_the_flight_with_growing_pauses() {
    let mut story = Story::sent(unsafe_policy(), reader(), dead());
    let (mut row, mut sends) = (dead(), 1);
    loop {
        let failure = failure(story.answer(Outcome::Transient(Code::new("server_error"))));
        row = View { attempts: failure.attempts, next_attempt_at: Some(failure.next_attempt_at), fence: 10, ..row };
        match story.on(Event::Recorded) {
            Action::Wait { until } => {
                assert_eq!(until, failure.next_attempt_at);
                story.now = until;
                assert_eq!(story.on(Event::Woken), Action::Load);
                assert!(matches!(story.on(Event::Loaded(row.clone())), Action::Claim(_)));
                assert!(matches!(story.on(Event::Claimed { fence: 11 }), Action::Send { .. }));
                sends += 1;
            }
            action => {
                assert!(matches!(action, Action::Done(Verdict::Unavailable { .. })), "{action:?}");
                break;
            }
        }
    }
    assert_eq!(sends, 3);
}

#[test]
fn rl_09_a_rate_limit_is_the_integrations_and_holds_also_for_forced_refreshes() {
    let until = NOW.after(s(30));
    let mut story = Story::sent(safe_policy(), reader(), dead());
    let action = story.answer(Outcome::RateLimited(Some(until)));
    assert!(matches!(action, Action::Record(Record::RateLimited { until: at, .. }) if at == until), "{action:?}");
    assert_eq!(story.on(Event::Recorded), Action::Done(Verdict::RateLimited { until }));

    let limited = View { integration: Integration::RateLimited { until }, ..dead() };
    let mut forced = Story::new(safe_policy(), Wish::forced());
    assert_eq!(forced.on(Event::Loaded(limited.clone())), Action::Done(Verdict::RateLimited { until }));
    let mut alive = Story::new(safe_policy(), reader());
    let row = View { expires_at: Some(NOW.after(s(9))), ..limited };
    assert_eq!(alive.on(Event::Loaded(row)), served(4, Some(Code::RATE_LIMITED)));
}

#[test]
fn rl_09_a_pause_of_a_year_is_capped() {
    let mut story = Story::sent(safe_policy(), reader(), dead());
    let failure = failure(story.answer(Outcome::RateLimited(Some(NOW.after(s(366 * 86_400))))));
    assert_eq!(failure.next_attempt_at, NOW.after(s(3600)));
}

#[test]
fn rl_07_invalid_grant_is_final_only_after_reading_the_row_again() {
    let refused = || Outcome::Reauth(Code::new("invalid_grant"));

    let mut raced = Story::sent(unsafe_policy(), reader(), view());
    assert_eq!(raced.answer(refused()), Action::Load);
    let newer = View { generation: 5, fence: 10, ..view() };
    assert_eq!(raced.on(Event::Loaded(newer)), served(5, None), "another node has rotated");

    let mut real = Story::sent(unsafe_policy(), reader(), dead());
    assert_eq!(real.answer(refused()), Action::Load);
    let same = View { fence: 10, phase: Phase::Sent { since: NOW }, lease_until: Some(NOW.after(s(30))), ..dead() };
    let reason = Code::new("invalid_grant");
    let action = real.on(Event::Loaded(same));
    let Action::Record(Record::Reauth { generation: 4, fence: 10, reason: said, .. }) = action else {
        panic!("{action:?}")
    };
    assert_eq!(said, reason);
    assert_eq!(real.on(Event::Recorded), Action::Done(Verdict::NeedsReauth { reason }));
}

#[test]
fn rl_07_a_refusal_whose_claim_was_taken_over_is_left_to_the_new_holder() {
    let mut story = Story::sent(grace_policy(), reader(), view());
    assert_eq!(story.answer(Outcome::Reauth(Code::new("invalid_grant"))), Action::Load);
    let phase = Phase::Sent { since: NOW };
    let taken = View { fence: 11, phase, lease_until: Some(NOW.after(s(30))), ..view() };
    assert!(matches!(story.on(Event::Loaded(taken)), Action::Wait { .. }));
}

#[test]
fn invalid_grant_after_an_unresolved_attempt_means_that_the_rotated_answer_was_lost() {
    let mut story = Story::sent(grace_policy(), reader(), dead_lease(dead()));
    assert_eq!(story.answer(Outcome::Reauth(Code::new("invalid_grant"))), Action::Load);
    let same = View { fence: 11, ..dead_lease(dead()) };
    let action = story.on(Event::Loaded(same));
    let Action::Record(Record::Reauth { reason, .. }) = action else { panic!("{action:?}") };
    assert_eq!(reason, Code::ROTATION_RESPONSE_LOST);
}

#[test]
fn a_safe_token_has_no_doubts_and_is_sent_again_as_soon_as_the_lease_has_ended() {
    let mut story = Story::sent(safe_policy(), reader(), dead_lease(view()));
    assert_eq!(failure(story.answer(Outcome::Ambiguous)).doubt, None);
    assert_eq!(story.on(Event::Recorded), served(4, Some(Code::RESPONSE_LOST)));
    let Action::Send { give_up_after, .. } = ({
        let mut story = Story::new(safe_policy(), reader());
        story.on(Event::Loaded(view()));
        story.on(Event::Claimed { fence: 10 })
    }) else {
        panic!("not sent")
    };
    assert_eq!(give_up_after, s(10), "giving up loses nothing here");
}

#[test]
fn rl_02_a_lost_lease_does_not_end_the_wait_and_a_late_answer_is_stored_by_generation_alone() {
    let mut story = Story::sent(unsafe_policy(), reader(), view());
    story.pass(s(10));
    let claimed = Claimed { generation: 4, fence: 10, consents: 1 };
    let renew = Action::RenewLease { claimed, lease_until: NOW.after(s(40)) };
    assert_eq!(story.on(Event::Tick), renew);
    assert_eq!(story.on(Event::LeaseRenewed), Action::Continue);
    story.pass(s(100));
    story.on(Event::Tick);
    assert_eq!(story.on(Event::LeaseLost), Action::Continue);
    let action = story.answer(Outcome::Fresh(FRESH));
    assert!(matches!(action, Action::Store { generation: 4, only_fence: false, .. }), "{action:?}");
}

#[test]
fn a_claim_that_took_half_a_lease_is_given_back_unsent() {
    let mut story = Story::new(unsafe_policy(), reader());
    assert!(matches!(story.on(Event::Loaded(view())), Action::Claim(_)));
    story.pass(s(15));
    let failure = failure(story.on(Event::Claimed { fence: 10 }));
    assert_eq!((failure.fence, failure.doubt, failure.attempts), (10, None, 0));
    assert_eq!(story.on(Event::Recorded), served(4, Some(Code::NOT_SENT)));
}

#[test]
fn rl_29_a_claim_of_unknown_outcome_is_looked_at_and_used_if_it_is_ours() {
    let mut story = Story::new(unsafe_policy(), reader());
    assert!(matches!(story.on(Event::Loaded(view())), Action::Claim(_)));
    assert_eq!(story.on(Event::StoreUnknown), Action::Load);
    assert!(matches!(story.on(Event::StoreFailed), Action::Wait { .. }), "a claim must not be left to die");
    assert_eq!(story.on(Event::Woken), Action::Load);
    let phase = Phase::Sent { since: NOW };
    let ours = View { fence: 10, lease_is_mine: true, lease_until: Some(NOW.after(s(30))), phase, ..view() };
    assert!(matches!(story.on(Event::Loaded(ours)), Action::Send { .. }));
}

#[test]
fn rl_29_a_store_of_unknown_outcome_is_recognised_as_ours_or_repeated() {
    let mut story = Story::sent(unsafe_policy(), reader(), view());
    story.answer(Outcome::Fresh(FRESH));
    assert_eq!(story.on(Event::StoreUnknown), Action::Load);
    let landed = View { generation: 5, fence: 10, stored_fence: Some(10), ..view() };
    let short_lived = View { expires_at: Some(NOW), ..landed.clone() };
    assert_eq!(story.flight.clone().step(NOW, Event::Loaded(short_lived)), served(5, None), "ours, whatever its life");
    assert_eq!(story.on(Event::Loaded(landed)), served(5, None));

    let mut story = Story::sent(unsafe_policy(), reader(), view());
    story.answer(Outcome::Fresh(FRESH));
    story.on(Event::StoreUnknown);
    let untouched = View { fence: 10, ..view() };
    assert!(matches!(story.on(Event::Loaded(untouched)), Action::Wait { .. }));
    assert!(matches!(story.on(Event::Woken), Action::Store { .. }));
}

#[test]
fn rl_05_a_failing_store_is_repeated_for_90_s_then_spooled_and_repeated_again_without_a_spool() {
    let mut story = Story::sent(unsafe_policy(), reader(), view());
    assert!(matches!(story.answer(Outcome::Fresh(FRESH)), Action::Store { .. }));
    let mut stores = 1;
    let spool = loop {
        match story.on(Event::StoreFailed) {
            Action::Wait { until } => {
                story.now = until;
                assert!(matches!(story.on(Event::Woken), Action::Store { tokens: FRESH, .. }));
                stores += 1;
            }
            action => break action,
        }
    };
    assert_eq!((stores, story.now), (181, NOW.after(s(90))));
    let claimed = Claimed { generation: 4, fence: 10, consents: 1 };
    assert_eq!(spool, Action::Spool { tokens: FRESH, claimed });
    assert!(matches!(story.on(Event::SpoolFailed), Action::Wait { .. }));
    assert!(matches!(story.on(Event::Woken), Action::Store { tokens: FRESH, .. }), "never dropped");
    assert_eq!(story.on(Event::Stored), served(5, None));
}

#[test]
fn a_spooled_answer_comes_home_by_the_same_store_and_spends_no_token() {
    let claimed = Claimed { generation: 4, fence: 10, consents: 1 };
    let mut flight = Flight::replay(unsafe_policy(), claimed, FRESH);
    let stores = Action::Store { tokens: FRESH, claimed, generation: 4, only_fence: false };
    assert_eq!(flight.clone().step(NOW, Event::Begin), stores);
    flight.step(NOW, Event::Begin);
    let newer = View { generation: 6, fence: 12, stored_fence: Some(12), ..dead() };
    let action = flight.step(NOW, Event::StoreLost(newer));
    assert!(matches!(action, Action::Done(_)), "{action:?}");
}

#[test]
fn rl_37_delete_wins_over_a_late_answer_which_is_revoked() {
    for event in [Event::Gone, Event::StoreLost(View { status: Status::Deleted, ..view() })] {
        let mut story = Story::sent(unsafe_policy(), reader(), view());
        story.answer(Outcome::Fresh(FRESH));
        assert_eq!(story.on(event), Action::Revoke(FRESH));
        assert_eq!(story.on(Event::Revoked), Action::Done(Verdict::Gone));
    }
}

#[test]
fn rl_37_reconnect_wins_and_late_tokens_are_revoked_only_where_the_new_consent_survives_it() {
    let reconnected = View { generation: 5, fence: 11, consents: 2, stored_fence: None, ..view() };
    let mut story = Story::sent(unsafe_policy(), reader(), view());
    story.answer(Outcome::Fresh(FRESH));
    assert_eq!(story.on(Event::StoreLost(reconnected.clone())), Action::Revoke(FRESH));
    assert_eq!(story.on(Event::Revoked), served(5, None));

    let mut story = Story::sent(safe_policy(), reader(), view());
    story.answer(Outcome::Fresh(FRESH));
    assert_eq!(story.on(Event::StoreLost(reconnected)), served(5, None), "Google would end the new consent too");
}

#[test]
fn of_two_answers_of_one_generation_the_later_send_wins_while_nobody_has_sent_since() {
    let by_the_first = View { generation: 5, fence: 11, stored_fence: Some(10), ..view() };
    let mut replay = Story::sent(grace_policy(), reader(), dead_lease(view()));
    replay.answer(Outcome::Fresh(FRESH));
    let sent_since = View { fence: 12, ..by_the_first.clone() };
    assert_eq!(replay.flight.clone().step(NOW, Event::StoreLost(sent_since)), served(5, None));
    let action = replay.on(Event::StoreLost(by_the_first.clone()));
    assert!(matches!(action, Action::Store { generation: 5, only_fence: true, .. }), "{action:?}");
    assert_eq!(replay.on(Event::Stored), served(6, None));

    let mut first = Story::sent(grace_policy(), reader(), view());
    first.answer(Outcome::Fresh(FRESH));
    let by_the_replay = View { stored_fence: Some(11), ..by_the_first };
    assert_eq!(first.on(Event::StoreLost(by_the_replay)), served(5, None), "dropped, not revoked: same consent");
}

#[test]
fn a_wrong_client_secret_gives_the_claim_back_and_leaves_the_credential_alone() {
    let code = Code::new("invalid_client");
    let mut story = Story::sent(unsafe_policy(), reader(), view());
    let action = story.answer(Outcome::Configuration(code.clone()));
    let Action::Record(Record::Configuration { probe_at, failure, .. }) = action else { panic!("{action:?}") };
    assert_eq!((probe_at, failure.attempts, failure.doubt), (NOW.after(s(60)), 0, None));
    assert_eq!(story.on(Event::Recorded), served(4, Some(code.clone())));

    let faulty = |probe_at| View { integration: Integration::Faulty { code: code.clone(), probe_at }, ..dead() };
    let mut early = Story::new(unsafe_policy(), reader());
    assert_eq!(early.on(Event::Loaded(faulty(NOW.after(s(1))))), Action::Done(Verdict::Misconfigured));
    let mut probing = Story::new(unsafe_policy(), reader());
    let Action::Claim(claim) = probing.on(Event::Loaded(faulty(NOW))) else { panic!("no probe") };
    assert_eq!(claim.probe, Some(NOW.after(s(60))), "API section 6.4: one probe a minute");
}

#[test]
fn three_unrecognised_answers_over_fifteen_minutes_need_attention_not_consent() {
    let odd = || Outcome::Unrecognised(Code::new("teapot"));
    let mut first = Story::sent(unsafe_policy(), reader(), view());
    assert_eq!(failure(first.answer(odd())).unrecognised, Unrecognised { count: 1, since: NOW });

    let seen = |since| View { unrecognised: Unrecognised { count: 2, since }, ..view() };
    let mut quick = Story::sent(unsafe_policy(), reader(), seen(NOW.before(s(899))));
    assert_eq!(failure(quick.answer(odd())).last_error, Code::new("teapot"));
    let mut third = Story::sent(unsafe_policy(), reader(), seen(NOW.before(s(900))));
    let failure = failure(third.answer(odd()));
    assert_eq!((failure.last_error, failure.next_attempt_at), (Code::NEEDS_ATTENTION, NOW.after(s(3600))));
    assert_eq!(third.on(Event::Recorded), served(4, Some(Code::NEEDS_ATTENTION)));
}

#[test]
fn an_administrators_ban_is_retried_slowly_and_by_force_at_once() {
    let mut story = Story::sent(safe_policy(), reader(), dead());
    let failure = failure(story.answer(Outcome::Admin(Code::new("admin_policy_enforced"))));
    assert_eq!(failure.next_attempt_at, NOW.after(s(3600)));
    let banned = View { next_attempt_at: Some(failure.next_attempt_at), ..dead() };
    let action = Story::new(safe_policy(), reader()).on(Event::Loaded(banned.clone()));
    assert!(matches!(action, Action::Done(Verdict::Unavailable { .. })), "{action:?}");
    let action = Story::new(safe_policy(), Wish::forced()).on(Event::Loaded(banned));
    assert!(matches!(action, Action::Claim(_)), "{action:?}");
}

#[test]
fn needs_reauth_still_serves_a_living_token_but_not_to_whom_it_was_refused() {
    // API section 6.5.
    let reason = Code::ROTATION_RESPONSE_LOST;
    let lost = View { status: Status::NeedsReauth { reason: reason.clone() }, ..view() };
    let verdict = |wish, row: &View| Story::new(unsafe_policy(), wish).on(Event::Loaded(row.clone()));
    let refused = Action::Done(Verdict::NeedsReauth { reason: reason.clone() });
    assert_eq!(verdict(reader(), &lost), served(4, Some(reason)));
    assert_eq!(verdict(Wish::newer_than(4), &lost), refused);
    assert_eq!(verdict(reader(), &View { expires_at: Some(NOW), ..lost.clone() }), refused);
    assert_eq!(verdict(reader(), &View { expires_at: None, ..lost }), refused);
}

#[test]
fn without_a_refresh_token_a_token_is_served_to_its_end_and_then_the_user_is_asked() {
    let row = View { has_refresh_token: false, ..view() };
    let mut story = Story::new(safe_policy(), reader());
    assert_eq!(story.on(Event::Loaded(row)), served(4, Some(Code::NOT_REFRESHABLE)));
    let mut ended = Story::new(safe_policy(), Wish::sweep());
    let action = ended.on(Event::Loaded(View { has_refresh_token: false, ..dead() }));
    assert!(matches!(action, Action::Record(Record::Reauth { .. })), "{action:?}");
}

#[test]
fn a_paused_or_deleted_credential_ends_the_flight() {
    let verdict = |status| Story::new(safe_policy(), reader()).on(Event::Loaded(View { status, ..view() }));
    assert_eq!(verdict(Status::Misconfigured), Action::Done(Verdict::Misconfigured));
    assert_eq!(verdict(Status::Deleted), Action::Done(Verdict::Gone));
    assert_eq!(Story::new(safe_policy(), reader()).on(Event::Gone), Action::Done(Verdict::Gone));
}

#[test]
fn a_database_that_cannot_be_written_prevents_the_refresh_before_a_token_is_spent() {
    let mut story = Story::new(unsafe_policy(), reader());
    assert!(matches!(story.on(Event::Loaded(view())), Action::Claim(_)));
    assert_eq!(story.on(Event::StoreFailed), served(4, Some(Code::STORE_UNAVAILABLE)));
}

#[test]
fn a_definite_failure_is_recorded_until_it_is_written_lest_the_claim_dies_into_a_doubt() {
    let mut story = Story::sent(unsafe_policy(), reader(), view());
    let first = story.answer(Outcome::Configuration(Code::new("invalid_client")));
    for _ in 0..500 {
        let Action::Wait { until } = story.on(Event::StoreUnknown) else { panic!("given up") };
        story.now = until;
        assert_eq!(story.on(Event::Woken), first);
    }
    // The first one had landed after all.
    assert_eq!(story.on(Event::RecordLost), Action::Load);
}
