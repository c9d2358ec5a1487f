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
    let due = |view: &View, jitter| due_at(view, &policy, Jitter(jitter)).left(NOW);
    assert_eq!(due(&fresh(3600), 0), s(3240), "10 % of an hour");
    assert_eq!(due(&fresh(3600), u32::MAX), s(2880), "jitter makes it earlier");
    assert_eq!(due(&fresh(300), 0), s(240), "60 s at least");
    assert_eq!(due(&fresh(40), u32::MAX), s(20), "never more than half of the life");
    assert_eq!(due_at(&View { expires_at: Some(Millis(-5)), ..fresh(60) }, &policy, Jitter(0)), Millis(0));
    let absurd = View { expires_at: Some(Millis(i64::MAX)), last_used_at: Millis(i64::MAX), ..fresh(60) };
    assert_eq!(due(&absurd, 0), s(366 * 86_400));
    for status in [Status::Deleted, Status::Misconfigured, Status::NeedsReauth { reason: Code::IN_DOUBT }] {
        assert_eq!(due_at(&View { status, ..fresh(60) }, &policy, Jitter(0)), NEVER);
    }
    assert_eq!(due_at(&View { expires_at: None, ..fresh(60) }, &policy, Jitter(0)), NEVER);
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
    let due = |view: &View| due_at(view, &safe_policy(), Jitter(0));
    assert_eq!(due(&idle), NOW.after(s(7 * 86_400)));
    assert_eq!(due(&View { last_used_at: NOW, ..idle.clone() }), NOW.after(s(3240)), "in use");
    assert_eq!(due(&View { keep: Keep::Always, ..idle.clone() }), NOW.after(s(3240)));
    assert_eq!(due(&View { keep: Keep::OnDemand, ..idle }), NEVER);
    let stuck = dead_lease(view());
    assert_eq!(due_at(&stuck, &safe_policy(), Jitter(0)), NOW.before(s(10)));
    assert_eq!(due_at(&stuck, &grace_policy(), Jitter(0)), NOW.before(s(10)));
    assert_eq!(due_at(&stuck, &unsafe_policy(), Jitter(0)), NOW.after(s(110)));
}

#[test]
fn codes_are_tame() {
    assert_eq!(Code::new("Bad Thing<script>").as_str(), "bad_thing_script_");
    assert_eq!(Code::new(&"x".repeat(500)).as_str().len(), 64);
}
