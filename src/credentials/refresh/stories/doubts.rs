//! A token was sent, and nobody knows what became of it.

use super::*;

/// As the row stands when a dead lease was written down as a doubt at `since`.
fn written_down(base: View, since: Millis) -> View {
    let doubt = Doubt { first_sent: NOW.before(s(40)), since, replays: 0, likely_unspent: false };
    let last_error = Some(Code::IN_DOUBT);
    View { phase: Phase::Idle, lease_until: None, doubt: Some(doubt), last_error, ..dead_lease(base) }
}

#[test]
fn rl_06_an_unsafe_token_is_never_sent_again_but_in_doubt_for_120_s_and_then_reported() {
    // A dead lease: 30 s of lease and 120 s of doubt make the 150 s of RL-33.
    for (row, end) in [
        (view(), served(4, Some(Code::IN_DOUBT))),
        (dead(), Action::Done(Verdict::RefreshInProgress { retry_after: s(120) })),
    ] {
        for wish in [reader(), Wish::sweep()] {
            let mut story = Story::new(unsafe_policy(), wish);
            let written = failure(story.on(Event::Loaded(dead_lease(row.clone()))));
            assert_eq!((written.fence, written.doubt), (10, written_down(row.clone(), NOW).doubt));
            assert_eq!(story.on(Event::Recorded), end);
            assert_eq!(Story::new(unsafe_policy(), wish).on(Event::Loaded(written_down(row.clone(), NOW))), end);
        }
    }
    let mut late = Story::new(unsafe_policy(), Wish::sweep());
    late.pass(s(120));
    let row = || written_down(dead(), NOW);
    assert_eq!(late.on(Event::Loaded(row())), Action::Load, "asked for at the begin");
    let action = late.on(Event::Loaded(row()));
    let Action::Record(Record::Reauth { reason, fence: 10, .. }) = action else { panic!("{action:?}") };
    assert_eq!(reason, Code::ROTATION_RESPONSE_LOST);
}

#[test]
fn rl_07_a_lease_that_died_long_ago_is_not_called_lost_before_its_answer_could_come_home() {
    // The database was away for an hour, or the only node, whose spool holds the answer.
    let long_ago = View { lease_until: Some(NOW.before(s(3600))), ..dead_lease(dead()) };
    let written = failure(first_action(Wish::sweep(), long_ago));
    assert_eq!(written.doubt.map(|doubt| doubt.since), Some(NOW), "it has its time from now on");
}

#[test]
fn rl_06_a_lost_answer_of_an_unsafe_token_is_recorded_as_a_doubt() {
    let mut story = Story::sent(unsafe_policy(), reader(), dead());
    story.pass(s(7));
    let failure = failure(story.answer(Outcome::Ambiguous));
    assert_eq!(
        failure.doubt,
        Some(Doubt { first_sent: NOW, since: NOW.after(s(7)), replays: 0, likely_unspent: false })
    );
    assert_eq!(failure.next_attempt_at, NOW.after(s(127)));
    assert_eq!(story.on(Event::Recorded), Action::Done(Verdict::RefreshInProgress { retry_after: s(120) }));
}

#[test]
fn rl_06_a_grace_is_used_once_at_once_and_only_inside_it() {
    let mut story = Story::sent(grace_policy(), reader(), view());
    let lost = failure(story.answer(Outcome::Ambiguous));
    assert_eq!((lost.next_attempt_at, lost.doubt.map(|doubt| doubt.replays)), (NOW, Some(0)));
    assert_eq!(story.on(Event::Recorded), Action::Load);
    let row = View { fence: 10, doubt: lost.doubt, attempts: 1, next_attempt_at: Some(NOW), ..view() };
    let Action::Claim(claim) = story.on(Event::Loaded(row)) else { panic!("no replay") };
    assert_eq!(claim.doubt.map(|doubt| doubt.replays), Some(1), "a crash during the replay must not allow another");
    assert!(matches!(story.on(Event::Claimed { fence: 11 }), Action::Send { .. }));
    let lost = failure(story.answer(Outcome::Ambiguous));
    assert_eq!(lost.doubt.map(|doubt| doubt.replays), Some(1));
    assert_eq!(story.on(Event::Recorded), served(4, Some(Code::IN_DOUBT)));

    let mut outside = Story::new(grace_policy(), reader());
    outside.pass(s(14));
    let over = View { phase: Phase::Sent { since: NOW.before(s(41)) }, ..dead_lease(dead()) };
    let written = failure(outside.on(Event::Loaded(over)));
    assert!(written.doubt.is_some(), "55 s have passed, it would arrive too late");
}

#[test]
fn a_replay_that_was_claimed_inside_the_grace_but_would_leave_after_it_is_given_back() {
    let mut story = Story::new(grace_policy(), reader());
    story.pass(s(4));
    assert!(matches!(story.on(Event::Loaded(dead_lease(view()))), Action::Claim(_)));
    story.pass(s(1));
    let failure = failure(story.on(Event::Claimed { fence: 11 }));
    assert_eq!(failure.doubt.map(|doubt| doubt.replays), Some(0));
}

#[test]
fn a_replay_that_never_left_does_not_use_up_the_grace() {
    let mut story = Story::sent(grace_policy(), reader(), dead_lease(view()));
    let failure = failure(story.answer(Outcome::NotSent));
    assert_eq!(failure.doubt.map(|doubt| (doubt.first_sent, doubt.replays)), Some((NOW.before(s(40)), 0)));
}

/// A server has said that it failed; that was 130 s ago.
fn failed_at_the_server(base: View) -> View {
    let (first_sent, since) = (NOW.before(s(140)), NOW.before(s(130)));
    let doubt = Some(Doubt { first_sent, since, replays: 0, likely_unspent: true });
    View { doubt, fence: 10, attempts: 1, last_error: Some(Code::new("http_502")), ..base }
}

fn first_action(wish: Wish, row: View) -> Action<Tokens> {
    Story::new(unsafe_policy(), wish).on(Event::Loaded(row))
}

#[test]
fn rl_06_a_servers_error_leaves_hope_and_a_lost_answer_none() {
    for (outcome, hope) in [(Outcome::ServerError(Code::new("http_502")), true), (Outcome::Ambiguous, false)] {
        let failure = failure(Story::sent(unsafe_policy(), reader(), view()).answer(outcome));
        assert_eq!(failure.doubt.map(|doubt| doubt.likely_unspent), Some(hope));
        assert_eq!(failure.next_attempt_at, NOW.after(s(120)), "a late answer is waited for in either case");
    }
    let mut again = Story::sent(unsafe_policy(), reader(), failed_at_the_server(dead()));
    let lost = failure(again.answer(Outcome::Ambiguous));
    assert_eq!(
        lost.doubt.map(|doubt| (doubt.replays, doubt.likely_unspent)),
        Some((1, false)),
        "the last try was lost"
    );
}

#[test]
fn rl_06_a_token_that_is_likely_good_serves_to_its_end_and_is_then_tried_once_more() {
    let degraded = served(4, Some(Code::IN_DOUBT));
    assert_eq!(first_action(reader(), failed_at_the_server(view())), degraded);
    assert_eq!(first_action(Wish::sweep(), failed_at_the_server(view())), degraded);
    assert!(matches!(first_action(Wish::sweep(), failed_at_the_server(dead())), Action::Claim(_)));
    assert!(matches!(first_action(reader(), failed_at_the_server(dead())), Action::Claim(_)));
    // Whoever wants another one does not know of those whom the living one serves; only where it has no end nobody can tell.
    assert_eq!(first_action(Wish::forced(), failed_at_the_server(view())), degraded);
    assert_eq!(first_action(Wish::newer_than(4), failed_at_the_server(view())), degraded);
    let endless = failed_at_the_server(View { expires_at: None, ..view() });
    assert_eq!(first_action(reader(), endless.clone()), served(4, Some(Code::new("http_502"))));
    assert!(matches!(first_action(Wish::forced(), endless), Action::Claim(_)));
    let doubt =
        Some(Doubt { first_sent: NOW.before(s(20)), since: NOW.before(s(10)), replays: 0, likely_unspent: true });
    let early = View { doubt, ..failed_at_the_server(dead()) };
    assert_eq!(first_action(Wish::forced(), early), Action::Done(Verdict::RefreshInProgress { retry_after: s(110) }));
}

#[test]
fn rl_06_a_last_try_whose_answer_is_lost_was_the_last() {
    // There was an outage when the token was sent first, and the last try is lost when the provider is well again.
    let hour_ago = NOW.before(s(3600));
    let doubt = Some(Doubt { first_sent: hour_ago, since: NOW.before(s(500)), replays: 0, likely_unspent: false });
    let row = View { doubt, fence: 10, silent_at: Some(hour_ago), ..dead() };
    let Action::Claim(claim) = first_action(Wish::sweep(), row.clone()) else { panic!("no last try") };
    assert_eq!(claim.doubt.map(|doubt| doubt.first_sent), Some(NOW), "should its holder die, nothing speaks for it");
    let lost = failure(Story::sent(unsafe_policy(), Wish::sweep(), row.clone()).answer(Outcome::Ambiguous));
    let after = View { doubt: lost.doubt, next_attempt_at: Some(lost.next_attempt_at), ..row.clone() };
    let mut later = Story { now: NOW.after(s(120)), ..Story::new(unsafe_policy(), Wish::sweep()) };
    later.on(Event::Loaded(after.clone()));
    let action = later.on(Event::Loaded(after));
    assert!(matches!(action, Action::Record(Record::Reauth { .. })), "{action:?}");

    // As a probe of a provider that answers nobody it was no answer to anything.
    let away = Integration::Unreachable { code: Code::NOT_SENT, probe_at: NOW };
    let lost = failure(
        Story::sent(unsafe_policy(), reader(), View { integration: away, ..dead() }).answer(Outcome::Ambiguous),
    );
    assert_eq!(lost.doubt.map(|doubt| doubt.likely_unspent), Some(true));
}

#[test]
fn rl_08_a_servers_error_is_no_reason_to_hurry_also_inside_a_grace() {
    let mut story = Story::sent(grace_policy(), Wish::sweep(), dead());
    let failed = failure(story.answer(Outcome::ServerError(Code::new("http_500"))));
    assert!(failed.next_attempt_at > NOW && failed.next_attempt_at < NOW.after(s(3)), "{:?}", failed.next_attempt_at);
    assert!(matches!(story.on(Event::Recorded), Action::Done(Verdict::RefreshInProgress { .. })));
    let row = View { doubt: failed.doubt, fence: 10, attempts: 1, ..dead() };
    let again = |row: View| Story::new(grace_policy(), Wish::sweep()).on(Event::Loaded(row));
    assert!(matches!(again(row.clone()), Action::Claim(_)), "as a retry like any other, while the grace lasts");
    let away = Integration::Unreachable { code: Code::NOT_SENT, probe_at: NOW.after(s(9)) };
    assert!(matches!(again(View { integration: away, ..row }), Action::Done(_)), "which an outage holds up");
}

#[test]
fn a_last_try_that_is_refused_says_that_the_answer_was_lost() {
    let mut story = Story::sent(unsafe_policy(), Wish::sweep(), failed_at_the_server(dead()));
    assert_eq!(story.answer(Outcome::Reauth(Code::new("invalid_grant"))), Action::Load);
    let phase = Phase::Sent { since: NOW };
    let same = View { fence: 11, phase, lease_until: Some(NOW.after(s(30))), ..failed_at_the_server(dead()) };
    let action = story.on(Event::Loaded(same));
    let Action::Record(Record::Reauth { reason, wave: None, .. }) = action else { panic!("{action:?}") };
    assert_eq!(reason, Code::ROTATION_RESPONSE_LOST);
}

#[test]
fn rl_06_what_was_asked_in_an_outage_may_be_good_once_nobody_can_come_with_an_answer() {
    // A hundred seconds ago somebody claimed and never came back, and a minute ago nobody was answered.
    let long_ago = dead_lease(dead());
    let long_ago = View { lease_until: Some(NOW.before(s(125))), silent_at: Some(NOW.before(s(35))), ..long_ago };
    let mut story = Story::new(unsafe_policy(), Wish::sweep());
    let anew = failure(story.on(Event::Loaded(long_ago.clone())));
    let doubt = anew.doubt.expect("it is written down");
    assert_eq!((doubt.since, doubt.likely_unspent), (NOW, false), "its holder may only have been kept from storing");
    let written = View { phase: Phase::Idle, lease_until: None, doubt: Some(doubt), ..long_ago.clone() };
    let written = View { next_attempt_at: Some(anew.next_attempt_at), ..written };
    assert_eq!(due_at(&written, &unsafe_policy(), NOW, Jitter(0)), NOW.after(s(420)), "clocks may differ");
    let mut later = Story { now: NOW.after(s(420)), ..Story::new(unsafe_policy(), Wish::sweep()) };
    assert!(matches!(later.on(Event::Loaded(written)), Action::Claim(_)));

    let before_it = View { silent_at: Some(NOW.before(s(41))), ..written_down(dead(), NOW.before(s(120))) };
    let action = first_action(Wish::sweep(), before_it);
    assert!(matches!(action, Action::Record(Record::Reauth { .. })), "that outage was over: {action:?}");
}

#[test]
fn a_last_try_waits_for_the_end_of_an_outage_and_takes_its_probe() {
    let away = |probe_at| View {
        integration: Integration::Unreachable { code: Code::NOT_SENT, probe_at },
        ..failed_at_the_server(dead())
    };
    let closed = first_action(Wish::sweep(), away(NOW.after(s(9))));
    assert!(matches!(closed, Action::Done(Verdict::Unavailable { .. })), "{closed:?}");
    let Action::Claim(claim) = first_action(Wish::sweep(), away(NOW)) else { panic!("no probe") };
    assert_eq!(claim.probe, Some(NOW.after(s(30))));
    assert_eq!(due_at(&away(NOW.after(s(9))), &unsafe_policy(), NOW, Jitter(0)), NOW.after(s(9)));
}

#[test]
fn the_sweep_comes_for_a_last_try_when_the_access_token_has_ended() {
    let due = |row: &View| due_at(row, &unsafe_policy(), NOW, Jitter(0));
    assert_eq!(due(&failed_at_the_server(view())), NOW.after(s(30)));
    assert_eq!(due(&failed_at_the_server(View { expires_at: None, ..view() })), NEVER, "it serves for ever");
    let later = View { next_attempt_at: Some(NOW.after(s(50))), ..failed_at_the_server(view()) };
    assert_eq!(due(&later), NOW.after(s(50)));
}
