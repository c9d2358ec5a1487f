//! Stories about what one credential's failure says about all the others: outages, waves, damage.

use super::*;

fn answered(outcome: Outcome<Tokens>) -> Action<Tokens> {
    Story::sent(safe_policy(), reader(), dead()).answer(outcome)
}

#[test]
fn rl_08_only_silence_counts_towards_an_outage() {
    for outcome in [Outcome::NotSent, Outcome::Ambiguous, Outcome::Transient(Code::new("server_error"))] {
        let action = answered(outcome.clone());
        let Action::Record(Record::Unanswered { open_after: 8, probe_at, .. }) = action else {
            panic!("{outcome:?}: {action:?}")
        };
        assert_eq!(probe_at, NOW.after(s(30)));
    }
    for outcome in [
        Outcome::Admin(Code::new("ban")),
        Outcome::Unrecognised(Code::new("teapot")),
        Outcome::NotTried(Code::STORE_UNAVAILABLE),
    ] {
        assert!(matches!(answered(outcome), Action::Record(Record::Failure(_))), "the provider was not silent");
    }
}

#[test]
fn rl_14_during_an_outage_one_probe_leaves_every_half_minute_and_a_living_token_is_served() {
    let away = |probe_at| Integration::Unreachable { code: Code::NOT_SENT, probe_at };
    let look = |row: View| Story::new(safe_policy(), reader()).on(Event::Loaded(row));
    let closed = View { integration: away(NOW.after(s(9))), ..dead() };
    let wait = Verdict::Unavailable { code: Code::NOT_SENT, retry_after: s(9) };
    assert_eq!(look(closed.clone()), Action::Done(wait));
    let alive = View { expires_at: Some(NOW.after(s(5))), ..closed };
    assert_eq!(look(alive), served(4, Some(Code::NOT_SENT)));
    let Action::Claim(claim) = look(View { integration: away(NOW), ..dead() }) else { panic!("no probe") };
    assert_eq!(claim.probe, Some(NOW.after(s(30))));
}

#[test]
fn rl_14_who_has_probed_a_silent_provider_does_not_sleep_when_it_is_back() {
    let row = |integration| View { attempts: 12, integration, ..dead() };
    let pause = |integration| {
        let mut story = Story::sent(safe_policy(), Wish::sweep(), row(integration));
        failure(story.answer(Outcome::NotSent)).next_attempt_at.left(NOW)
    };
    assert!(pause(Integration::Working) > s(1000));
    let away = Integration::Unreachable { code: Code::NOT_SENT, probe_at: NOW };
    assert_eq!(pause(away), s(30));
}

#[test]
fn a_replay_inside_its_grace_does_not_wait_for_the_end_of_an_outage() {
    let doubt = Some(Doubt { first_sent: NOW.before(s(5)), since: NOW, replays: 0, likely_unspent: false });
    let integration = Integration::Unreachable { code: Code::NOT_SENT, probe_at: NOW.after(s(30)) };
    let row = View { doubt, integration, ..dead() };
    let action = Story::new(grace_policy(), reader()).on(Event::Loaded(row));
    assert!(matches!(action, Action::Claim(Claim { probe: None, .. })), "{action:?}");
}

#[test]
fn rl_09_a_pause_without_a_length_is_a_long_one_where_the_last_has_just_ended() {
    let pause = |integration| {
        let row = View { integration, ..dead() };
        let action = Story::sent(safe_policy(), reader(), row).answer(Outcome::RateLimited(None));
        let Action::Record(Record::RateLimited { until, .. }) = action else { panic!("{action:?}") };
        until.left(NOW)
    };
    let limited = |ago| Integration::RateLimited { until: NOW.before(s(ago)) };
    assert!(pause(Integration::Working) <= s(2));
    assert_eq!(pause(limited(59)), s(30));
    assert!(pause(limited(60)) <= s(2));
}

#[test]
fn rl_09_no_time_to_wait_or_a_date_that_has_passed_is_a_pause_all_the_same() {
    for until in [NOW, NOW.before(s(60))] {
        let action = Story::sent(safe_policy(), reader(), dead()).answer(Outcome::RateLimited(Some(until)));
        let Action::Record(Record::RateLimited { until, failure }) = action else { panic!("{action:?}") };
        assert!(until > NOW && failure.next_attempt_at == until);
    }
}

/// Up to the record of a refusal, which the row confirms.
fn refused(row: View) -> (Story, Record) {
    refused_for("invalid_grant", row)
}

fn refused_for(code: &'static str, row: View) -> (Story, Record) {
    let mut story = Story::sent(unsafe_policy(), reader(), row.clone());
    assert_eq!(story.answer(Outcome::Reauth(Code::new(code))), Action::Load);
    let phase = Phase::Sent { since: NOW };
    let same = View { fence: 10, phase, lease_until: Some(NOW.after(s(30))), ..row };
    let Action::Record(record) = story.on(Event::Loaded(same)) else { panic!("no record") };
    (story, record)
}

#[test]
fn one_refusal_too_many_holds_the_integration_and_not_its_users() {
    let (mut story, record) = refused(dead());
    let Record::Reauth { wave: Some(wave), .. } = record else { panic!("{record:?}") };
    assert_eq!((wave.most, wave.since, wave.probe_at), (10, NOW.before(s(24 * 3600)), NOW.after(s(60))));
    assert_eq!((wave.failure.fence, wave.failure.last_error), (10, Code::REFUSED_WAVE));
    assert_eq!(story.on(Event::Withheld), Action::Done(Verdict::Misconfigured));
    let (mut alive, _) = refused(View { expires_at: Some(NOW.after(s(20))), ..view() });
    assert_eq!(alive.on(Event::Withheld), served(4, Some(Code::REFUSED_WAVE)));
}

#[test]
fn an_employers_sessions_end_together_and_are_no_wave() {
    let (_, record) = refused_for("session_policy", dead());
    assert!(matches!(record, Record::Reauth { wave: None, .. }), "{record:?}");
}

#[test]
fn a_lost_answer_belongs_to_no_wave() {
    let doubt = Some(Doubt { first_sent: NOW.before(s(5)), since: NOW, replays: 0, likely_unspent: false });
    let mut story = Story::sent(grace_policy(), reader(), View { doubt, ..dead() });
    assert_eq!(story.answer(Outcome::Reauth(Code::new("invalid_grant"))), Action::Load);
    let phase = Phase::Sent { since: NOW };
    let same = View { fence: 10, phase, doubt, lease_until: Some(NOW.after(s(30))), ..dead() };
    let action = story.on(Event::Loaded(same));
    assert!(matches!(action, Action::Record(Record::Reauth { wave: None, .. })), "{action:?}");
}

#[test]
fn rl_16_a_damaged_row_is_looked_at_once_a_day() {
    let failed = failure(answered(Outcome::Poisoned(Code::UNREADABLE)));
    assert_eq!((failed.last_error, failed.attempts), (Code::UNREADABLE, 1));
    let row = View { last_error: Some(Code::UNREADABLE), failed_at: Some(NOW), ..dead() };
    assert_eq!(due_at(&row, &safe_policy(), NOW, Jitter(0)), NOW.after(s(86_400)));
}
