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
fn rl_32_a_token_that_may_leave_once_does_not_set_out_from_a_node_that_stops() {
    let called_off = |story: &mut Story, event| {
        let failure = failure(story.on(event));
        assert_eq!((failure.last_error, failure.doubt, failure.attempts), (Code::SHUTTING_DOWN, None, 0));
        assert_eq!(failure.next_attempt_at, NOW, "the next node may try at once");
        assert!(matches!(story.on(Event::Recorded), Action::Done(_)));
    };
    let mut at_door = Story::at_door(unsafe_policy(), reader(), dead());
    assert_eq!(at_door.on(Event::Shutdown), Action::Continue);
    called_off(&mut at_door, Event::AtDoor);

    let mut announcing = Story::at_door(unsafe_policy(), reader(), dead());
    assert!(matches!(announcing.on(Event::AtDoor), Action::Announce { .. }));
    assert_eq!(announcing.on(Event::Shutdown), Action::Continue);
    called_off(&mut announcing, Event::Announced);

    let mut gone = Story::sent(unsafe_policy(), reader(), dead());
    assert_eq!(gone.on(Event::Shutdown), Action::Continue);
    assert!(matches!(gone.answer(Outcome::Fresh(FRESH)), Action::Store { .. }), "what has left is waited for");
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
