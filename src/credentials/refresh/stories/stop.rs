//! Stories of a node that is told to stop while a flight is under way.

use super::*;

#[test]
fn rl_32_a_shutdown_sends_nothing_more_and_spools_what_cannot_be_stored() {
    let mut claiming = Story::new(unsafe_policy(), reader());
    claiming.on(Event::Loaded(view()));
    assert_eq!(claiming.on(Event::Shutdown), Action::Continue);
    assert_eq!(failure(claiming.on(Event::Claimed { fence: 10 })).last_error, Code::SHUTTING_DOWN);

    let mut storing = Story::sent(unsafe_policy(), reader(), view());
    storing.answer(Outcome::Fresh(FRESH));
    assert!(matches!(storing.on(Event::StoreFailed), Action::Wait { .. }));
    assert!(matches!(storing.on(Event::Shutdown), Action::Spool { .. }));
    assert_eq!(storing.on(Event::Spooled), served(4, Some(Code::STORE_UNAVAILABLE)));
}

#[test]
fn rl_32_a_stop_leaves_no_claim_behind_because_of_one_failed_statement() {
    let mut story = Story::sent(unsafe_policy(), reader(), dead());
    assert_eq!(story.on(Event::Shutdown), Action::Continue);
    let record = story.answer(Outcome::Transient(Code::new("server_error")));
    assert!(matches!(record, Action::Record(_)));
    assert!(matches!(story.on(Event::StoreFailed), Action::Wait { .. }));
    assert_eq!(story.on(Event::Woken), record);

    let mut refused = Story::sent(unsafe_policy(), reader(), dead());
    assert_eq!(refused.on(Event::Shutdown), Action::Continue);
    assert_eq!(refused.answer(Outcome::Reauth(Code::new("invalid_grant"))), Action::Load);
    assert!(matches!(refused.on(Event::StoreFailed), Action::Wait { .. }));
    assert_eq!(refused.on(Event::Woken), Action::Load);
}
