//! Between the claim and the token's departure: whoever dies there has lost nothing.

use super::*;

/// A rival claimed 40 s ago, its lease ended 10 s ago, and it had not announced that the token leaves.
fn dead_claim(base: View) -> View {
    View { phase: Phase::Claimed, ..dead_lease(base) }
}

#[test]
fn rl_06_a_token_that_may_leave_once_only_waits_until_its_departure_is_durable() {
    for policy in [unsafe_policy(), grace_policy()] {
        let mut story = Story::at_door(policy, reader(), dead());
        let claimed = Claimed { generation: 4, fence: 10, consents: 1 };
        story.pass(s(2));
        assert_eq!(story.on(Event::AtDoor), Action::Announce { claimed, lease_until: NOW.after(s(32)) });
        assert_eq!(story.on(Event::Announced), Action::Depart);
        let doubt = failure(story.answer(Outcome::Ambiguous)).doubt.expect("it has left");
        assert_eq!(doubt.first_sent, NOW.after(s(2)), "a grace counts from the departure");
    }
}

#[test]
fn rl_06_a_departure_that_is_not_durable_is_called_off_and_leaves_no_doubt() {
    for trouble in [Event::AnnounceLost, Event::StoreFailed, Event::StoreUnknown] {
        let mut story = Story::at_door(unsafe_policy(), reader(), view());
        assert!(matches!(story.on(Event::AtDoor), Action::Announce { .. }));
        let failure = failure(story.on(trouble));
        assert_eq!((failure.doubt, failure.fence), (None, 10));
        assert_eq!(story.on(Event::RecordLost), Action::Load, "another's claim is looked at");
    }
}

#[test]
fn a_departure_whose_announcement_took_half_a_lease_is_called_off() {
    let mut story = Story::at_door(unsafe_policy(), reader(), view());
    assert!(matches!(story.on(Event::AtDoor), Action::Announce { .. }));
    story.pass(s(15));
    let failure = failure(story.on(Event::Announced));
    assert_eq!((failure.doubt, failure.fence), (None, 10), "nothing has left, and the row must not say so");
}

#[test]
fn rl_06_who_died_between_claim_and_departure_leaves_the_token_to_the_next() {
    for wish in [reader(), Wish::sweep()] {
        let mut story = Story::new(unsafe_policy(), wish);
        let Action::Claim(claim) = story.on(Event::Loaded(dead_claim(dead()))) else { panic!("given up") };
        assert_eq!((claim.doubt, claim.announces), (None, true));
    }
    let living = View { lease_until: Some(NOW.after(s(25))), ..dead_claim(dead()) };
    let waits = Story::new(unsafe_policy(), reader()).on(Event::Loaded(living.clone()));
    assert!(matches!(waits, Action::Wait { .. }), "its holder may be connecting: {waits:?}");
    let due = due_at(&living, &unsafe_policy(), NOW, Jitter(0));
    assert_eq!(due, NOW.after(s(25)), "the sweep looks when the lease ends");
}

#[test]
fn nothing_is_announced_where_sending_again_does_no_harm_or_a_doubt_says_it_already() {
    let mut story = Story::new(safe_policy(), reader());
    let Action::Claim(claim) = story.on(Event::Loaded(dead())) else { panic!("no claim") };
    assert!(!claim.announces);
    let again = Story::new(grace_policy(), reader()).on(Event::Loaded(View {
        phase: Phase::Sent { since: NOW.before(s(31)) },
        lease_until: Some(NOW.before(s(1))),
        ..dead()
    }));
    let Action::Claim(claim) = again else { panic!("no replay: {again:?}") };
    assert!(claim.doubt.is_some() && !claim.announces);
}

#[test]
fn rl_29_an_unsure_claim_that_is_ours_announces_as_it_would_have() {
    for (phase, announces) in [(Phase::Claimed, true), (Phase::Sent { since: NOW }, false)] {
        let mut story = Story::new(unsafe_policy(), reader());
        story.on(Event::Loaded(view()));
        assert_eq!(story.on(Event::StoreUnknown), Action::Load);
        let ours = View { fence: 10, lease_is_mine: true, lease_until: Some(NOW.after(s(30))), phase, ..view() };
        let action = story.on(Event::Loaded(ours));
        assert!(matches!(action, Action::Send { announces: said, .. } if said == announces), "{action:?}");
    }
}

#[test]
fn rl_06_what_is_answered_at_the_door_leaves_no_doubt() {
    for outcome in [Outcome::Ambiguous, Outcome::ServerError(Code::new("http_502"))] {
        let mut story = Story::at_door(unsafe_policy(), reader(), view());
        assert_eq!(failure(story.answer(outcome)).doubt, None, "nothing has left");
    }
}
