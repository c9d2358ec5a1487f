//! Stories about times: enough life, pauses, due times, clocks that jump.

use super::*;

#[test]
fn rl_20_enough_is_the_smaller_of_what_was_asked_and_half_of_the_life() {
    let row = |left, life| View { expires_at: Some(NOW.after(s(left))), original_life: Some(s(life)), ..view() };
    let wish = Wish::life(s(600));
    assert!(enough(&row(600, 3600), &wish, NOW));
    assert!(!enough(&row(599, 3600), &wish, NOW));
    assert!(enough(&row(150, 300), &wish, NOW), "half of five minutes is all one can insist on");
    assert!(!enough(&row(149, 300), &wish, NOW));
    assert!(!enough(&row(0, 300), &Wish::life(Duration::ZERO), NOW), "dead is never enough");
    let eternal = View { expires_at: None, ..view() };
    assert!(enough(&eternal, &wish, NOW));
    assert!(!enough(&eternal, &Wish::newer_than(4), NOW));
    assert!(enough(&eternal, &Wish::newer_than(3), NOW));
    assert!(!enough(&eternal, &Wish::forced(), NOW));
}

#[test]
fn rl_08_pauses_grow_with_full_jitter_and_are_capped() {
    let policy = unsafe_policy();
    assert_eq!(policy.pause(1, Jitter(u32::MAX)), s(2));
    assert_eq!(policy.pause(4, Jitter(u32::MAX)), s(16));
    assert_eq!(policy.pause(u32::MAX, Jitter(u32::MAX)), s(3600));
    assert_eq!(policy.pause(9, Jitter(0)), Duration::from_millis(250));
}

#[test]
fn rl_12_times_from_a_clock_that_has_jumped_do_not_bind_for_ever() {
    let far = Some(NOW.after(s(86_400)));
    let paused = View { next_attempt_at: far, ..dead() };
    assert!(matches!(Story::new(safe_policy(), reader()).on(Event::Loaded(paused)), Action::Claim(_)));
    let leased = View { lease_until: far, ..dead_lease(dead()) };
    assert!(matches!(Story::new(safe_policy(), reader()).on(Event::Loaded(leased.clone())), Action::Claim(_)));
    let anew = failure(Story::new(unsafe_policy(), reader()).on(Event::Loaded(leased)));
    assert_eq!(anew.doubt.map(|doubt| doubt.since), Some(NOW), "the doubt begins anew");
}

#[test]
fn rl_11_the_sweep_comes_a_lead_before_the_end() {
    let policy = safe_policy();
    let fresh = |life: u64| View {
        refreshed_at: NOW,
        expires_at: Some(NOW.after(s(life))),
        original_life: Some(s(life)),
        ..view()
    };
    let due = |view: &View, jitter| due_at(view, &policy, NOW, Jitter(jitter)).left(NOW);
    assert_eq!(due(&fresh(3600), 0), s(3240), "10 % of an hour");
    assert_eq!(due(&fresh(3600), u32::MAX), s(2880), "jitter makes it earlier");
    assert_eq!(due(&fresh(300), 0), s(240), "60 s at least");
    assert_eq!(due(&fresh(40), u32::MAX), s(20), "never more than half of the life");
    assert_eq!(due_at(&View { expires_at: Some(Millis(-5)), ..fresh(60) }, &policy, NOW, Jitter(0)), Millis(0));
    let absurd = View { expires_at: Some(Millis(i64::MAX)), last_used_at: Millis(i64::MAX), ..fresh(60) };
    assert_eq!(due(&absurd, 0), s(366 * 86_400));
    for status in [Status::Deleted, Status::Misconfigured, Status::NeedsReauth { reason: Code::IN_DOUBT }] {
        assert_eq!(due_at(&View { status, ..fresh(60) }, &policy, NOW, Jitter(0)), NEVER);
    }
    assert_eq!(due_at(&View { expires_at: None, ..fresh(60) }, &policy, NOW, Jitter(0)), NEVER);
}

#[test]
fn idle_credentials_are_kept_alive_weekly_and_doubts_come_due_when_they_can_be_settled() {
    let within = s(86_400);
    let idle = View {
        keep: Keep::Active { within },
        refreshed_at: NOW,
        expires_at: Some(NOW.after(s(3600))),
        last_used_at: NOW.before(within),
        ..view()
    };
    let due = |view: &View| due_at(view, &safe_policy(), NOW, Jitter(0));
    assert_eq!(due(&idle), NOW.after(s(7 * 86_400)));
    assert_eq!(due(&View { last_used_at: NOW, ..idle.clone() }), NOW.after(s(3240)), "in use");
    assert_eq!(due(&View { keep: Keep::Always, ..idle.clone() }), NOW.after(s(3240)));
    assert_eq!(due(&View { keep: Keep::OnDemand, ..idle }), NEVER);
    let stuck = dead_lease(view());
    assert_eq!(due_at(&stuck, &safe_policy(), NOW, Jitter(0)), NOW.before(s(10)));
    assert_eq!(due_at(&stuck, &grace_policy(), NOW, Jitter(0)), NOW.before(s(10)));
    assert_eq!(due_at(&stuck, &unsafe_policy(), NOW, Jitter(0)), NOW.before(s(10)), "it is to be written down");
    let doubt = Doubt { first_sent: NOW.before(s(40)), since: NOW.before(s(10)), replays: 0, likely_unspent: false };
    let written = View { phase: Phase::Idle, lease_until: None, doubt: Some(doubt), ..stuck };
    assert_eq!(due_at(&written, &unsafe_policy(), NOW, Jitter(0)), NOW.after(s(110)));
    let later = NOW.after(s(30));
    let over = due_at(&written, &grace_policy(), later, Jitter(0));
    assert_eq!(over, NOW.after(s(110)), "the grace is over, the doubt is not");
}

#[test]
fn the_sweep_does_not_come_before_a_pause_is_over_only_because_something_is_unfinished() {
    let pause = NOW.after(s(40));
    for held in [
        Integration::RateLimited { until: pause },
        Integration::Faulty { code: Code::new("invalid_client"), probe_at: pause },
    ] {
        let stuck = View { integration: held, ..dead_lease(view()) };
        assert_eq!(due_at(&stuck, &safe_policy(), NOW, Jitter(0)), pause);
        let long = Policy { replay: Replay::Grace(s(600)), ..grace_policy() };
        assert_eq!(due_at(&stuck, &long, NOW, Jitter(0)), pause, "a replay waits for it, too");
        assert_eq!(
            due_at(&stuck, &grace_policy(), NOW, Jitter(0)),
            NOW.after(s(5)),
            "or is written down when its grace is over"
        );
    }
}

#[test]
fn rl_06_a_grace_leaves_room_for_clocks_that_differ_by_a_sixth_of_it() {
    let policy = Policy { replay: Replay::Grace(s(600)), ..grace_policy() };
    let claims = |first_sent| {
        let doubt = Some(Doubt { first_sent, since: NOW.before(s(1)), replays: 0, likely_unspent: false });
        let row = View { doubt, ..dead() };
        matches!(Story::new(policy, reader()).on(Event::Loaded(row)), Action::Claim(_))
    };
    assert!(claims(NOW.before(s(494))), "494 s ago by this clock, at most 594 s by another, and 5 s to connect");
    assert!(!claims(NOW.before(s(495))));
    assert!(claims(NOW.after(s(100))));
    assert!(!claims(NOW.after(s(101))), "nobody knows how long ago that really was");
}

#[test]
fn rl_12_an_end_that_a_jumped_clock_has_written_is_not_enough() {
    let row = |left| View { expires_at: Some(NOW.after(s(left))), original_life: Some(s(3600)), ..view() };
    let wish = Wish::life(s(600));
    assert!(enough(&row(3900), &wish, NOW), "five minutes are skew");
    assert!(!enough(&row(3901), &wish, NOW));
    let action = Story::new(unsafe_policy(), wish).on(Event::Loaded(row(86_400)));
    assert!(matches!(action, Action::Claim(_)), "{action:?}");
}

#[test]
fn rl_12_a_probe_time_that_a_jumped_clock_has_written_is_neither_waited_for_nor_taken() {
    let code = Code::new("invalid_client");
    let probe_at = NOW.after(s(86_400));
    let row = View { integration: Integration::Faulty { code, probe_at }, ..dead() };
    let Action::Claim(claim) = Story::new(unsafe_policy(), reader()).on(Event::Loaded(row)) else { panic!("no claim") };
    assert_eq!(claim.probe, None, "the store would compare it with now, and refuse");
}

#[test]
fn rl_29_an_own_claim_is_not_left_behind_when_the_clock_goes_back_and_the_token_is_good_again() {
    let mut story = Story::new(unsafe_policy(), reader());
    assert!(matches!(story.on(Event::Loaded(view())), Action::Claim(_)));
    assert_eq!(story.on(Event::StoreUnknown), Action::Load);
    story.now = NOW.before(s(3500));
    let phase = Phase::Sent { since: NOW };
    let ours = View { fence: 10, phase, lease_until: Some(NOW.after(s(30))), lease_is_mine: true, ..view() };
    let back = failure(story.on(Event::Loaded(ours)));
    assert_eq!((back.fence, back.doubt), (10, None), "given back");
}

#[test]
fn rl_07_a_row_that_was_read_long_ago_is_read_again_before_its_answer_is_in_doubt() {
    let old = || View { lease_until: Some(NOW.before(s(121))), ..dead_lease(dead()) };
    let mut story = Story::new(unsafe_policy(), reader());
    story.pass(s(15));
    assert_eq!(story.on(Event::Loaded(old())), Action::Load, "its holder may have renewed since");
    assert!(matches!(story.on(Event::Loaded(old())), Action::Record(Record::Failure(_))));
}

#[test]
fn codes_are_tame() {
    assert_eq!(Code::new("Bad Thing<script>").as_str(), "bad_thing_script_");
    assert_eq!(Code::new(&"x".repeat(500)).as_str().len(), 64);
}
