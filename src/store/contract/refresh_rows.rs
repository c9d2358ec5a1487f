//! What a refresh does to a credential's row: claim, renew, store, fail, give up.

use super::*;
use crate::store::credentials::{DoubtColumns, NewTokens, credential_delete};
use crate::store::refresh_rows::{
    AnswerTo, ClaimColumns, FailureColumns, credential_announce, credential_claim, credential_fail,
    credential_needs_reauth, credential_renew_lease, credential_store,
};

const DOUBT: DoubtColumns =
    DoubtColumns { first_sent: Some(NOW - 9), since: Some(NOW - 8), replays: 1, likely_unspent: 1 };
const CLAIM: ClaimColumns<'_> = ClaimColumns {
    generation: 1,
    fence: 0,
    seen_phase: "idle",
    seen_doubt: None,
    owner: "this process",
    now: NOW,
    lease_until: NOW + 30_000,
    believable: NOW + 300_000,
    doubt: DOUBT,
    phase: "sent",
};
/// A claim of what stands under the one above.
const NEXT: ClaimColumns<'_> = ClaimColumns { fence: 1, seen_phase: "sent", seen_doubt: DOUBT.since, ..CLAIM };
const FAILURE: FailureColumns<'_> = FailureColumns {
    generation: 1,
    fence: 1,
    abandoned: false,
    attempts: 3,
    next_attempt_at: NOW + 99,
    last_error: "server_error",
    doubt: DOUBT,
    unrecognised: (2, NOW - 1),
    due_at: Some(NOW + 98),
    now: NOW + 5,
};
const ANSWER: AnswerTo = AnswerTo { fence: 1, consents: 1, only_fence: false };

fn tokens() -> NewTokens {
    NewTokens {
        generation: 1,
        access_token: bytes(),
        refresh_token: Some(vec![8]),
        token_type: "bearer".to_owned(),
        scopes: "[]".to_owned(),
        obtained_at: NOW + 7,
        expires_at: Some(NOW + 8),
        refresh_expires_at: Some(NOW + 9),
        due_at: Some(NOW + 6),
    }
}

async fn keep(store: &Store) {
    let mut tx = store.begin().await.unwrap();
    connect(&mut tx, "con_1", "crd_1").await;
    tx.commit().await.unwrap();
}

fn claimed() -> CredentialRow {
    CredentialRow {
        fence: 1,
        lease_owner: Some("this process".to_owned()),
        lease_until: Some(NOW + 30_000),
        phase: "sent".to_owned(),
        sent_at: Some(NOW),
        doubt: DoubtColumns { first_sent: Some(NOW - 9), since: Some(NOW - 8), replays: 1, likely_unspent: 1 },
        // Whoever holds the lease may be dead when it ends.
        due_at: Some(NOW + 30_000),
        ..credential_row("crd_1")
    }
}

async fn claim(tx: &mut Tx) {
    assert_eq!(credential_claim(tx, TEST, &name_of("crd_1"), CLAIM).await.unwrap(), Some(1));
}

#[tokio::test]
async fn one_of_many_claims_gets_the_right_to_send_rl_06() {
    in_a_house(async |store| {
        keep(&store).await;
        let won = race(&store, async |tx, _| credential_claim(tx, TEST, &name_of("crd_1"), CLAIM).await).await;
        assert_eq!(won.into_iter().flatten().collect::<Vec<_>>(), [1]);
        let mut tx = store.read().await.unwrap();
        assert_eq!(load(&mut tx, "crd_1").await, claimed());
    })
    .await;
}

#[tokio::test]
async fn a_claim_needs_the_row_as_it_was_seen_and_a_lease_that_is_over_or_unbelievable() {
    in_a_house(async |store| {
        keep(&store).await;
        let mut tx = store.begin().await.unwrap();
        let name = name_of("crd_1");
        for stale in [
            ClaimColumns { generation: 2, ..CLAIM },
            ClaimColumns { fence: 1, ..CLAIM },
            ClaimColumns { seen_phase: "sent", ..CLAIM },
            ClaimColumns { seen_doubt: Some(NOW), ..CLAIM },
        ] {
            assert_eq!(credential_claim(&mut tx, TEST, &name, stale).await.unwrap(), None);
        }
        claim(&mut tx).await;
        let (now, lease_until, doubt) = (NOW + 29_999, NOW + 500_000, DoubtColumns::default());
        let next = ClaimColumns { now, lease_until, doubt, ..NEXT };
        assert_eq!(credential_claim(&mut tx, TEST, &name, next).await.unwrap(), None, "the lease lives");
        let next = ClaimColumns { now: NOW + 30_000, ..next };
        assert_eq!(
            credential_claim(&mut tx, TEST, &name, next).await.unwrap(),
            Some(2),
            "it is over to the millisecond"
        );
        assert_eq!(load(&mut tx, "crd_1").await.doubt.since, None, "the doubt is written as it is given");
        let next = ClaimColumns { fence: 2, seen_doubt: None, believable: NOW + 500_000, ..next };
        assert_eq!(credential_claim(&mut tx, TEST, &name, next).await.unwrap(), None);
        let next = ClaimColumns { believable: NOW + 499_999, ..next };
        assert_eq!(credential_claim(&mut tx, TEST, &name, next).await.unwrap(), Some(3), "a clock had jumped (RL-12)");
    })
    .await;
}

#[tokio::test]
async fn what_only_a_person_can_mend_or_is_deleted_is_not_claimed() {
    in_a_house(async |store| {
        keep(&store).await;
        let mut tx = store.begin().await.unwrap();
        let name = name_of("crd_1");
        assert!(credential_needs_reauth(&mut tx, TEST, &name, 1, 0, "invalid_grant", NOW).await.unwrap());
        assert_eq!(credential_claim(&mut tx, TEST, &name, CLAIM).await.unwrap(), None);
        assert!(credential_delete(&mut tx, &a(), "crd_1", NOW).await.unwrap());
        let now = ClaimColumns { fence: 1, ..CLAIM };
        assert_eq!(credential_claim(&mut tx, TEST, &name, now).await.unwrap(), None);
        assert!(!credential_renew_lease(&mut tx, TEST, &name, 1, 1, NOW).await.unwrap());
        assert!(!credential_fail(&mut tx, TEST, &name, FAILURE).await.unwrap());
        assert!(!credential_needs_reauth(&mut tx, TEST, &name, 1, 1, "x", NOW).await.unwrap());
        assert!(
            !credential_store(&mut tx, TEST, &name, ANSWER, &tokens()).await.unwrap(),
            "delete wins over a late answer"
        );
    })
    .await;
}

#[tokio::test]
async fn a_lease_is_renewed_by_its_claim_while_it_is_under_way() {
    in_a_house(async |store| {
        keep(&store).await;
        let mut tx = store.begin().await.unwrap();
        let name = name_of("crd_1");
        assert!(!credential_renew_lease(&mut tx, TEST, &name, 1, 0, NOW + 1).await.unwrap(), "nothing is under way");
        claim(&mut tx).await;
        for (generation, fence) in [(1, 0), (1, 2), (2, 1)] {
            assert!(!credential_renew_lease(&mut tx, TEST, &name, generation, fence, NOW + 1).await.unwrap());
        }
        assert!(credential_renew_lease(&mut tx, TEST, &name, 1, 1, NOW + 60_000).await.unwrap());
        let end = Some(NOW + 60_000);
        assert_eq!(load(&mut tx, "crd_1").await, CredentialRow { lease_until: end, due_at: end, ..claimed() });
    })
    .await;
}

#[tokio::test]
async fn a_departure_is_announced_once_and_only_by_the_newest_claim_rl_06() {
    in_a_house(async |store| {
        keep(&store).await;
        let mut tx = store.begin().await.unwrap();
        let name = name_of("crd_1");
        assert!(!credential_announce(&mut tx, TEST, &name, 1, 0, (NOW, NOW)).await.unwrap(), "nothing is claimed");
        let waiting = ClaimColumns { phase: "claimed", ..CLAIM };
        assert_eq!(credential_claim(&mut tx, TEST, &name, waiting).await.unwrap(), Some(1));
        assert_eq!(load(&mut tx, "crd_1").await, CredentialRow { phase: "claimed".to_owned(), ..claimed() });
        assert!(
            credential_renew_lease(&mut tx, TEST, &name, 1, 1, NOW + 30_000).await.unwrap(),
            "connecting takes time"
        );
        for (generation, fence) in [(1, 0), (1, 2), (2, 1)] {
            assert!(!credential_announce(&mut tx, TEST, &name, generation, fence, (NOW, NOW)).await.unwrap());
        }
        assert!(credential_announce(&mut tx, TEST, &name, 1, 1, (NOW + 5, NOW + 29_000)).await.unwrap());
        let end = Some(NOW + 29_000);
        assert_eq!(
            load(&mut tx, "crd_1").await,
            CredentialRow { sent_at: Some(NOW + 5), lease_until: end, due_at: end, ..claimed() }
        );
        assert!(!credential_announce(&mut tx, TEST, &name, 1, 1, (NOW + 6, NOW)).await.unwrap(), "it has left");
        let late =
            ClaimColumns { fence: 1, now: NOW + 30_000, lease_until: NOW + 60_000, seen_doubt: DOUBT.since, ..waiting };
        let claimed = credential_claim(&mut tx, TEST, &name, late).await.unwrap();
        assert_eq!(claimed, None, "whoever has seen the row before it left must not send it again");
        let late = ClaimColumns { seen_phase: "sent", ..late };
        assert_eq!(credential_claim(&mut tx, TEST, &name, late).await.unwrap(), Some(2));
    })
    .await;
}

#[tokio::test]
async fn nothing_departs_under_a_claim_that_has_come_to_an_end() {
    in_a_house(async |store| {
        keep(&store).await;
        let mut tx = store.begin().await.unwrap();
        let (name, waiting) = (name_of("crd_1"), ClaimColumns { phase: "claimed", ..CLAIM });
        assert_eq!(credential_claim(&mut tx, TEST, &name, waiting).await.unwrap(), Some(1));
        // Its doubt keeps the fence where it is.
        assert!(credential_fail(&mut tx, TEST, &name, FAILURE).await.unwrap());
        assert!(!credential_announce(&mut tx, TEST, &name, 1, 1, (NOW, NOW)).await.unwrap());
        let again = ClaimColumns { seen_phase: "idle", phase: "claimed", ..NEXT };
        assert_eq!(credential_claim(&mut tx, TEST, &name, again).await.unwrap(), Some(2));
        assert!(credential_delete(&mut tx, &a(), "crd_1", NOW).await.unwrap());
        assert!(!credential_announce(&mut tx, TEST, &name, 1, 2, (NOW, NOW)).await.unwrap());
    })
    .await;
}

fn stored() -> CredentialRow {
    CredentialRow {
        access_token: Some(bytes()),
        refresh_token: Some(vec![8]),
        token_type: "bearer".to_owned(),
        scopes: "[]".to_owned(),
        obtained_at: NOW + 7,
        expires_at: Some(NOW + 8),
        refresh_expires_at: Some(NOW + 9),
        due_at: Some(NOW + 6),
        generation: 2,
        fence: 1,
        stored_fence: Some(1),
        last_refreshed_at: Some(NOW + 7),
        ..credential_row("crd_1")
    }
}

#[tokio::test]
async fn one_of_many_answers_is_stored_and_ends_lease_doubt_and_failure() {
    in_a_house(async |store| {
        keep(&store).await;
        let mut tx = store.begin().await.unwrap();
        claim(&mut tx).await;
        assert!(credential_fail(&mut tx, TEST, &name_of("crd_1"), FAILURE).await.unwrap());
        tx.commit().await.unwrap();
        let won =
            race(&store, async |tx, _| credential_store(tx, TEST, &name_of("crd_1"), ANSWER, &tokens()).await).await;
        assert_eq!(won.iter().filter(|won| **won).count(), 1);
        let mut tx = store.read().await.unwrap();
        assert_eq!(load(&mut tx, "crd_1").await, stored());
    })
    .await;
}

#[tokio::test]
async fn a_late_answer_is_stored_under_a_newer_claim_unless_it_says_otherwise() {
    in_a_house(async |store| {
        keep(&store).await;
        let mut tx = store.begin().await.unwrap();
        let name = name_of("crd_1");
        claim(&mut tx).await;
        let second = ClaimColumns { now: NOW + 30_000, ..NEXT };
        assert_eq!(credential_claim(&mut tx, TEST, &name, second).await.unwrap(), Some(2));
        for answer in [AnswerTo { only_fence: true, ..ANSWER }, AnswerTo { consents: 2, ..ANSWER }] {
            assert!(!credential_store(&mut tx, TEST, &name, answer, &tokens()).await.unwrap(), "{answer:?}");
        }
        let stale = NewTokens { generation: 2, ..tokens() };
        assert!(!credential_store(&mut tx, TEST, &name, ANSWER, &stale).await.unwrap());
        assert!(credential_store(&mut tx, TEST, &name, ANSWER, &tokens()).await.unwrap());
        assert_eq!(load(&mut tx, "crd_1").await, CredentialRow { fence: 2, ..stored() }, "the fence stays the newest");
    })
    .await;
}

#[tokio::test]
async fn an_answer_heals_what_was_taken_for_lost_and_nothing_else() {
    in_a_house(async |store| {
        for (reason, healed) in [("rotation_response_lost", true), ("invalid_grant", false)] {
            let id = format!("crd_{reason}");
            let name = name_of(&id);
            let mut tx = store.begin().await.unwrap();
            credential_insert(&mut tx, &a(), &credential_row(&id)).await.unwrap();
            assert_eq!(credential_claim(&mut tx, TEST, &name, CLAIM).await.unwrap(), Some(1));
            assert!(credential_needs_reauth(&mut tx, TEST, &name, 1, 1, reason, NOW + 1).await.unwrap());
            let given_up = CredentialRow {
                id: id.clone(),
                fence: 1,
                status: "needs_reauth".to_owned(),
                reason: Some(reason.to_owned()),
                last_error: Some(reason.to_owned()),
                last_error_at: Some(NOW + 1),
                due_at: None,
                ..credential_row("crd_1")
            };
            assert_eq!(load(&mut tx, &id).await, given_up, "the token stays for its remaining life");
            assert!(credential_store(&mut tx, TEST, &name, ANSWER, &tokens()).await.unwrap());
            let row = load(&mut tx, &id).await;
            let wanted = if healed { ("active", None) } else { ("needs_reauth", Some(reason)) };
            assert_eq!((row.status.as_str(), row.reason.as_deref()), wanted);
            tx.commit().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn giving_up_is_written_once_and_only_by_the_newest_claim() {
    in_a_house(async |store| {
        keep(&store).await;
        let mut tx = store.begin().await.unwrap();
        let name = name_of("crd_1");
        claim(&mut tx).await;
        for (generation, fence) in [(1, 0), (1, 2), (2, 1)] {
            assert!(!credential_needs_reauth(&mut tx, TEST, &name, generation, fence, "x", NOW).await.unwrap());
        }
        assert!(credential_needs_reauth(&mut tx, TEST, &name, 1, 1, "first", NOW).await.unwrap());
        assert!(
            !credential_needs_reauth(&mut tx, TEST, &name, 1, 1, "second", NOW).await.unwrap(),
            "it has a reason already"
        );
        assert_eq!(load(&mut tx, "crd_1").await.reason.as_deref(), Some("first"));
    })
    .await;
}

#[tokio::test]
async fn an_attempt_that_spent_nothing_heals_what_was_given_up_for_its_answer() {
    in_a_house(async |store| {
        keep(&store).await;
        let name = name_of("crd_1");
        let settled = FailureColumns { doubt: DoubtColumns::default(), ..FAILURE };
        let doubtful = DoubtColumns { likely_unspent: 0, ..DOUBT };
        for (reason, failure, healed) in [
            ("rotation_response_lost", settled, true),
            ("rotation_response_lost", FAILURE, true),
            ("rotation_response_lost", FailureColumns { doubt: doubtful, ..FAILURE }, false),
            ("rotation_response_lost", FailureColumns { abandoned: true, ..settled }, false),
            ("invalid_grant", settled, false),
        ] {
            let mut tx = store.begin().await.unwrap();
            claim(&mut tx).await;
            assert!(credential_needs_reauth(&mut tx, TEST, &name, 1, 1, reason, NOW).await.unwrap());
            assert_eq!(credential_fail(&mut tx, TEST, &name, failure).await.unwrap(), !failure.abandoned);
            assert_eq!(failure.heals() && reason == "rotation_response_lost", healed);
            let row = load(&mut tx, "crd_1").await;
            let wanted = if healed { ("active", None) } else { ("needs_reauth", Some(reason)) };
            assert_eq!((&*row.status, row.reason.as_deref()), wanted, "{failure:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_failure_gives_the_claim_back_and_is_written_column_by_column() {
    in_a_house(async |store| {
        keep(&store).await;
        let mut tx = store.begin().await.unwrap();
        let name = name_of("crd_1");
        claim(&mut tx).await;
        for stale in [FailureColumns { generation: 2, ..FAILURE }, FailureColumns { fence: 0, ..FAILURE }] {
            assert!(!credential_fail(&mut tx, TEST, &name, stale).await.unwrap());
        }
        assert!(credential_fail(&mut tx, TEST, &name, FAILURE).await.unwrap());
        let late = FailureColumns { abandoned: true, ..FAILURE };
        assert!(!credential_fail(&mut tx, TEST, &name, late).await.unwrap(), "its holder was not dead");
        let wanted = CredentialRow {
            lease_owner: None,
            lease_until: None,
            phase: "idle".to_owned(),
            sent_at: None,
            attempts: 3,
            next_attempt_at: Some(NOW + 99),
            last_error: Some("server_error".to_owned()),
            last_error_at: Some(NOW + 5),
            unrecognised_count: 2,
            unrecognised_since: NOW - 1,
            due_at: Some(NOW + 98),
            ..claimed()
        };
        assert_eq!(load(&mut tx, "crd_1").await, wanted);
    })
    .await;
}
