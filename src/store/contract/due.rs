//! What is due: claims, places in a queue, and the numbers that people see.

use super::*;
use crate::store::connections::{connection_by_id, connections_of_credential_mark};
use crate::store::credentials::{CredentialRow, DoubtColumns, credential_delete, credential_insert};
use crate::store::due::{
    Queue, RefreshNumbers, Share, credential_claim_due, credential_patient, credential_set_due, credential_touch,
    credential_warn, credentials_in_air, credentials_of_integration_plan, credentials_put_back, credentials_queue_up,
    refresh_numbers,
};
use crate::store::integrations::{Pace, integrations_set_pace};
use crate::store::refresh_rows::{
    ClaimColumns, FailureColumns, credential_claim, credential_fail, credential_needs_reauth,
    credentials_refused_believe_again,
};

const CLIENT: (&str, &str) = (A, "int_ten_a");

async fn keep(store: &Store) {
    let mut tx = store.begin().await.unwrap();
    connect(&mut tx, "con_1", "crd_1").await;
    tx.commit().await.unwrap();
}

/// Whatever it is.
const fn all(limit: i64) -> Share {
    Share { limit, first: limit, others: limit }
}

async fn claim_due(tx: &mut Tx, now: i64, limit: i64) -> Vec<String> {
    ids(&credential_claim_due(tx, TEST, (now, now), NOW + 100, all(limit)).await.unwrap(), |row| &row.id)
}

async fn air(tx: &mut Tx, horizon: i64) -> i64 {
    credentials_in_air(tx, TEST, &[CLIENT], (NOW, horizon)).await.unwrap()[0].2
}

async fn plan(tx: &mut Tx, rows: &[(&str, Option<i64>, Option<i64>)]) {
    for (id, due_at, slot_at) in rows {
        credential_insert(tx, &a(), &CredentialRow { due_at: *due_at, ..credential_row(id) }).await.unwrap();
        if let (Some(due_at), Some(slot_at)) = (due_at, slot_at) {
            credentials_put_back(tx, TEST, &put_back(id, *due_at, *slot_at, true)).await.unwrap();
        }
    }
}

/// What another node writes before it sends.
fn sent_by_another(now: i64, lease_until: i64) -> ClaimColumns<'static> {
    ClaimColumns {
        generation: 1,
        fence: 0,
        seen_phase: "idle",
        seen_doubt: None,
        owner: "another",
        now,
        lease_until,
        believable: now + 330_000,
        doubt: DoubtColumns::default(),
        phase: "sent",
    }
}

/// What it writes where it will announce by itself when it sends.
fn claimed_by_another(now: i64, lease_until: i64) -> ClaimColumns<'static> {
    ClaimColumns { phase: "claimed", ..sent_by_another(now, lease_until) }
}

/// A failure that leaves a doubt and is looked at again at `due_at`.
fn unanswered(due_at: i64, likely_unspent: i64) -> FailureColumns<'static> {
    FailureColumns {
        generation: 1,
        fence: 0,
        abandoned: false,
        attempts: 1,
        next_attempt_at: due_at,
        last_error: "response_lost",
        doubt: DoubtColumns { first_sent: Some(NOW), since: Some(NOW), replays: 0, likely_unspent },
        unrecognised: (0, 0),
        due_at: Some(due_at),
        now: NOW,
    }
}

#[tokio::test]
async fn the_use_of_a_credential_is_noted_at_most_once_a_minute() {
    in_a_house(async |store| {
        keep(&store).await;
        let mut tx = store.begin().await.unwrap();
        credential_set_due(&mut tx, TEST, &name_of("crd_1"), 0, Some(NOW + 50)).await.unwrap();
        for (now, due, wanted) in [
            (NOW + 60_000, Some(NOW), (NOW, Some(NOW + 50))),
            (NOW + 60_001, None, (NOW + 60_001, Some(NOW + 50))),
            (NOW + 120_002, Some(NOW + 51), (NOW + 120_002, Some(NOW + 50))),
            (NOW + 180_003, Some(NOW + 49), (NOW + 180_003, Some(NOW + 49))),
        ] {
            credential_touch(&mut tx, TEST, &name_of("crd_1"), now, due).await.unwrap();
            let row = load(&mut tx, "crd_1").await;
            assert_eq!((row.last_used_at, row.due_at), wanted);
        }
    })
    .await;
}

#[tokio::test]
async fn the_sweep_takes_what_is_due_the_longest_due_first_and_moves_it() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        for (id, due_at) in
            [("crd_1", Some(NOW + 3)), ("crd_2", Some(NOW + 1)), ("crd_3", None), ("crd_4", Some(NOW + 2))]
        {
            credential_insert(&mut tx, &a(), &CredentialRow { due_at, ..credential_row(id) }).await.unwrap();
        }
        assert!(claim_due(&mut tx, NOW, 9).await.is_empty(), "nothing is due yet");
        let mut taken = claim_due(&mut tx, NOW + 3, 2).await;
        taken.sort();
        assert_eq!(taken, ["crd_2", "crd_4"]);
        assert_eq!(load(&mut tx, "crd_2").await.due_at, Some(NOW + 100));
        assert_eq!(load(&mut tx, "crd_1").await.due_at, Some(NOW + 3));
        assert_eq!(claim_due(&mut tx, NOW + 3, 9).await, ["crd_1"]);
    })
    .await;
}

#[tokio::test]
async fn of_many_sweeps_each_due_credential_goes_to_one_and_none_takes_more_than_it_asked_for() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        for n in 0..40 {
            let row = CredentialRow { due_at: Some(NOW), ..credential_row(&format!("crd_{n:02}")) };
            credential_insert(&mut tx, &a(), &row).await.unwrap();
        }
        tx.commit().await.unwrap();
        let taken =
            race(&store, async |tx, _| credential_claim_due(tx, TEST, (NOW, NOW), NOW + 100, all(2)).await).await;
        assert!(taken.iter().all(|names| names.len() <= 2));
        let mut all = ids(&taken.concat(), |row| &row.id);
        let number = all.len();
        all.sort();
        all.dedup();
        assert_eq!((all.len(), number), (40, 40), "each once, none left");
    })
    .await;
}

#[tokio::test]
async fn the_next_look_is_set_only_on_the_row_as_it_was_seen() {
    in_a_house(async |store| {
        keep(&store).await;
        let mut tx = store.begin().await.unwrap();
        for (fence, due_at, wanted) in
            [(0, Some(NOW + 7), Some(NOW + 7)), (1, Some(NOW + 8), Some(NOW + 7)), (0, None, None)]
        {
            credential_set_due(&mut tx, TEST, &name_of("crd_1"), fence, due_at).await.unwrap();
            assert_eq!(load(&mut tx, "crd_1").await.due_at, wanted);
        }
    })
    .await;
}

#[tokio::test]
async fn a_claimed_row_counts_as_in_the_air_until_its_plans_are_over_and_keeps_its_place() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        plan(
            &mut tx,
            &[("crd_1", Some(NOW), None), ("crd_2", Some(NOW), Some(NOW + 5)), ("crd_3", Some(NOW + 9), None)],
        )
        .await;
        assert_eq!(air(&mut tx, NOW + 50).await, 0);
        let mut rows = credential_claim_due(&mut tx, TEST, (NOW + 2, NOW + 5), NOW + 100, all(9)).await.unwrap();
        rows.sort_by(|one, other| one.id.cmp(&other.id));
        let places: Vec<_> = rows.iter().map(|row| (row.id.as_str(), row.slot_at)).collect();
        assert_eq!(places, [("crd_1", NOW + 2), ("crd_2", NOW + 5)]);
        assert_eq!(air(&mut tx, NOW + 5).await, 2);
        let both = credentials_in_air(&mut tx, TEST, &[(B, CLIENT.1), CLIENT], (NOW, NOW + 5)).await.unwrap();
        let client = |tenant: &str, count| (tenant.to_owned(), CLIENT.1.to_owned(), count);
        assert_eq!(both, [client(B, 0), client(A, 2)], "of each client by itself");
        let later = credentials_in_air(&mut tx, TEST, &[CLIENT], (NOW + 5_005, NOW + 6_000)).await.unwrap();
        assert_eq!(later, [client(A, 0)], "nobody has claimed them in five seconds");
        credential_set_due(&mut tx, TEST, &name_of("crd_1"), 0, Some(NOW + 200)).await.unwrap();
        assert_eq!(air(&mut tx, NOW + 5).await, 1);
        credentials_put_back(&mut tx, TEST, &put_back("crd_2", NOW + 100, NOW + 30, false)).await.unwrap();
        credentials_put_back(&mut tx, TEST, &put_back("crd_1", NOW + 100, NOW + 30, true)).await.unwrap();
        let (landed, resting) = (load(&mut tx, "crd_1").await, load(&mut tx, "crd_2").await);
        assert_eq!((landed.due_at, landed.slot_at), (Some(NOW + 200), None), "it had landed meanwhile");
        assert_eq!((resting.due_at, resting.slot_at), (Some(NOW + 30), None));
    })
    .await;
}

#[tokio::test]
async fn who_comes_upon_a_request_of_somebody_elses_leaves_it_in_the_air() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        plan(&mut tx, &[("crd_1", Some(NOW), None), ("crd_2", Some(NOW), None)]).await;
        credential_claim_due(&mut tx, TEST, (NOW, NOW), NOW + 100, all(9)).await.unwrap();
        let end = NOW + 30_000;
        for (id, claim) in [("crd_1", sent_by_another(NOW, end)), ("crd_2", claimed_by_another(NOW, end))] {
            assert_eq!(credential_claim(&mut tx, TEST, &name_of(id), claim).await.unwrap(), Some(1));
            credential_set_due(&mut tx, TEST, &name_of(id), 1, Some(end)).await.unwrap();
        }
        for (now, count) in [(NOW, 2), (NOW + 29_999, 2), (end, 0)] {
            let seen = credentials_in_air(&mut tx, TEST, &[CLIENT], (now, now + 50)).await.unwrap();
            assert_eq!(seen[0].2, count, "as long as its lease lives");
        }
    })
    .await;
}

#[tokio::test]
async fn a_far_place_is_given_up_by_a_row_that_is_wanted_now() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        plan(&mut tx, &[("crd_1", Some(NOW), Some(NOW + 90_000))]).await;
        credential_touch(&mut tx, TEST, &name_of("crd_1"), NOW + 60_001, Some(NOW + 60_001)).await.unwrap();
        let rows =
            credential_claim_due(&mut tx, TEST, (NOW + 60_001, NOW + 61_000), NOW + 200_000, all(9)).await.unwrap();
        assert_eq!(rows[0].slot_at, NOW + 60_001);
        assert_eq!(air(&mut tx, NOW + 61_000).await, 1, "it counts from now on");
    })
    .await;
}

#[tokio::test]
async fn a_crowd_is_given_places_one_after_the_other_those_in_use_first() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        plan(&mut tx, &[("crd_1", Some(NOW), None), ("crd_2", Some(NOW + 1), None), ("crd_3", Some(NOW + 2), None)])
            .await;
        plan(&mut tx, &[("crd_4", Some(NOW), Some(NOW + 70)), ("crd_5", Some(NOW + 50), None)]).await;
        credential_touch(&mut tx, TEST, &name_of("crd_3"), NOW + 60_001, None).await.unwrap();
        let queue =
            Queue { now: NOW + 10, pace_at: (NOW + 100) * 1000, interval: 2_500, active_since: NOW + 1, limit: 9 };
        assert_eq!(credentials_queue_up(&mut tx, TEST, CLIENT, queue).await.unwrap(), 3);
        for (id, place) in [("crd_3", 100), ("crd_1", 102), ("crd_2", 105), ("crd_4", 70)] {
            let row = load(&mut tx, id).await;
            assert_eq!((row.due_at, row.slot_at), (Some(NOW + place), Some(NOW + place)), "{id}");
        }
        assert_eq!(load(&mut tx, "crd_5").await.slot_at, None, "not due yet");
        assert_eq!(credentials_queue_up(&mut tx, TEST, CLIENT, queue).await.unwrap(), 0, "each has one place");
        let next = credential_patient(&mut tx, TEST, CLIENT, NOW + 70, NOW + 1).await.unwrap();
        assert_eq!(next, Some(("crd_1".to_owned(), NOW + 102)), "crd_3 is in use");
        assert_eq!(credential_patient(&mut tx, TEST, (B, CLIENT.1), NOW, NOW + 1).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn what_has_a_place_is_taken_a_little_ahead_and_everything_else_in_its_time() {
    // A retry that left before its time would be turned back, and its share of the budget be gone (RL-08).
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        plan(
            &mut tx,
            &[
                ("crd_1", Some(NOW), Some(NOW + 9)),
                ("crd_2", Some(NOW + 9), None),
                ("crd_3", Some(NOW), Some(NOW + 9)),
                ("crd_4", Some(NOW), Some(NOW + 3)),
            ],
        )
        .await;
        credential_touch(&mut tx, TEST, &name_of("crd_3"), NOW + 60_001, Some(NOW + 8)).await.unwrap();
        let mut rows = credential_claim_due(&mut tx, TEST, (NOW + 5, NOW + 9), NOW + 100, all(9)).await.unwrap();
        rows.sort_by(|one, other| one.id.cmp(&other.id));
        let places: Vec<_> = rows.iter().map(|row| (row.id.as_str(), row.slot_at)).collect();
        assert_eq!(places, [("crd_1", NOW + 9), ("crd_4", NOW + 5)], "a place that has passed is lost");
        assert_eq!(air(&mut tx, NOW + 9).await, 2, "and both are in the air");
        assert_eq!(claim_due(&mut tx, NOW + 9, 9).await.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn rl_06_a_crowd_delays_nothing_that_was_sent_or_has_its_place() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        let due = |id: &str, due_at| CredentialRow { due_at: Some(due_at), ..credential_row(id) };
        for n in 0..20 {
            credential_insert(&mut tx, &a(), &due(&format!("crd_crowd_{n:02}"), NOW - 50_000 + n)).await.unwrap();
        }
        plan(&mut tx, &[("crd_placed", Some(NOW), Some(NOW + 5))]).await;
        for id in ["crd_doubt", "crd_sent", "crd_long_ago"] {
            credential_insert(&mut tx, &a(), &due(id, NOW - 1_000)).await.unwrap();
        }
        let unsent = claimed_by_another(NOW - 30_000, NOW - 1);
        assert_eq!(credential_claim(&mut tx, TEST, &name_of("crd_crowd_00"), unsent).await.unwrap(), Some(1));
        for (id, sent) in [("crd_sent", NOW - 30_000), ("crd_long_ago", NOW - 100_000)] {
            let claim = sent_by_another(sent, sent + 30_000);
            assert_eq!(credential_claim(&mut tx, TEST, &name_of(id), claim).await.unwrap(), Some(1));
        }
        assert!(credential_fail(&mut tx, TEST, &name_of("crd_doubt"), unanswered(NOW - 1_000, 0)).await.unwrap());
        let mut claim = async |share| {
            let rows = credential_claim_due(&mut tx, TEST, (NOW, NOW + 10), NOW + 100, share).await.unwrap();
            let mut names = ids(&rows, |row| &row.id);
            names.sort();
            names
        };
        let first = claim(Share { limit: 3, first: 2, others: 3 }).await;
        assert_eq!(first, ["crd_doubt", "crd_long_ago", "crd_sent"], "so many first, and the others have a share");
        let then = claim(Share { limit: 9, first: 2, others: 2 }).await;
        assert_eq!(then, ["crd_crowd_01", "crd_crowd_02", "crd_placed"], "others in their order, so many at most");
        assert_eq!(claim(all(64)).await.len(), 18, "and nobody is forgotten");
    })
    .await;
}

#[tokio::test]
async fn a_crowd_leaves_what_somebody_was_sent_for_out_of_its_queue() {
    // RL-06: a provider's grace is shorter than the queue.
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        let plain = |id: &str| CredentialRow { due_at: Some(NOW), ..credential_row(id) };
        for id in ["crd_1", "crd_2", "crd_3", "crd_4", "crd_5"] {
            credential_insert(&mut tx, &a(), &plain(id)).await.unwrap();
        }
        let before = NOW - 30_000;
        for (id, claim) in [("crd_2", sent_by_another(before, NOW)), ("crd_5", claimed_by_another(before, NOW))] {
            assert_eq!(credential_claim(&mut tx, TEST, &name_of(id), claim).await.unwrap(), Some(1));
        }
        for (id, likely_unspent) in [("crd_3", 0), ("crd_4", 1)] {
            let failure = unanswered(NOW, likely_unspent);
            assert!(credential_fail(&mut tx, TEST, &name_of(id), failure).await.unwrap());
        }
        let queue = Queue { now: NOW, pace_at: (NOW + 100) * 1000, interval: 2_500, active_since: NOW, limit: 9 };
        assert_eq!(credentials_queue_up(&mut tx, TEST, CLIENT, queue).await.unwrap(), 3);
        let placed = [("crd_1", true), ("crd_2", false), ("crd_3", false), ("crd_4", true), ("crd_5", true)];
        for (id, placed) in placed {
            assert_eq!(load(&mut tx, id).await.slot_at.is_some(), placed, "{id}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_integration_that_wishes_for_more_has_its_idle_credentials_looked_at() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        plan(&mut tx, &[("crd_1", None, None), ("crd_2", Some(NOW + 9), None)]).await;
        let forever = CredentialRow { due_at: None, expires_at: None, ..credential_row("crd_3") };
        credential_insert(&mut tx, &a(), &forever).await.unwrap();
        let kept_alive = credential_row("crd_4");
        let kept_alive = CredentialRow { due_at: kept_alive.expires_at.map(|end| end + 1), ..kept_alive };
        credential_insert(&mut tx, &a(), &kept_alive).await.unwrap();
        assert_eq!(credentials_of_integration_plan(&mut tx, &b(), CLIENT.1, NOW).await.unwrap(), 0);
        assert_eq!(credentials_of_integration_plan(&mut tx, &a(), CLIENT.1, NOW).await.unwrap(), 2);
        assert_eq!(load(&mut tx, "crd_1").await.due_at, Some(NOW));
        assert_eq!(load(&mut tx, "crd_4").await.due_at, Some(NOW));
        assert_eq!(load(&mut tx, "crd_2").await.due_at, Some(NOW + 9));
    })
    .await;
}

#[tokio::test]
async fn the_end_of_a_refresh_token_is_warned_of_once() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        let row = CredentialRow { refresh_expires_at: Some(NOW + 9), ..credential_row("crd_1") };
        credential_insert(&mut tx, &a(), &row).await.unwrap();
        assert!(!credential_warn(&mut tx, TEST, &name_of("crd_1"), NOW + 8).await.unwrap(), "it has moved");
        assert!(credential_warn(&mut tx, TEST, &name_of("crd_1"), NOW + 9).await.unwrap());
        assert!(!credential_warn(&mut tx, TEST, &name_of("crd_1"), NOW + 9).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn a_wave_of_refusals_is_taken_back_but_for_what_was_lost_or_refused_before() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        for (n, (reason, at)) in [
            ("invalid_grant", NOW + 5),
            ("rotation_response_lost", NOW + 5),
            ("invalid_grant", NOW + 1),
            ("invalid_grant", NOW + 5),
            ("session_policy", NOW + 5),
            ("not_refreshable", NOW + 5),
        ]
        .iter()
        .enumerate()
        {
            let (connection, credential) = (format!("con_{n}"), format!("crd_{n}"));
            connect(&mut tx, &connection, &credential).await;
            let name = name_of(&credential);
            assert!(credential_needs_reauth(&mut tx, TEST, &name, 1, 0, reason, *at).await.unwrap());
        }
        // The first connection has a second credential, which was refused before.
        connection_use_credential(&mut tx, &a(), "con_3", "crd_2", "bot").await.unwrap();
        for n in 0..4 {
            let mark = Some("invalid_grant");
            let credential = format!("crd_{n}");
            connections_of_credential_mark(&mut tx, TEST, A, &credential, "needs_reauth", mark, NOW).await.unwrap();
        }
        let times = (NOW + 7, NOW + 60);
        assert_eq!(credentials_refused_believe_again(&mut tx, TEST, CLIENT, NOW + 2, times).await.unwrap(), 2);
        let shown = async |tx: &mut Tx, id: &str| {
            let row = connection_by_id(tx, &a(), id).await.unwrap().unwrap();
            (row.status, row.updated_at)
        };
        assert_eq!(shown(&mut tx, "con_0").await, ("active".to_owned(), NOW + 7));
        assert_eq!(shown(&mut tx, "con_2").await, ("needs_reauth".to_owned(), NOW), "refused before the wave");
        assert_eq!(shown(&mut tx, "con_3").await, ("needs_reauth".to_owned(), NOW), "one of its two was");
        let again = load(&mut tx, "crd_0").await;
        assert_eq!((again.status.as_str(), again.due_at), ("active", Some(NOW + 60)));
        for stays in ["crd_1", "crd_2", "crd_4", "crd_5"] {
            assert_eq!(load(&mut tx, stays).await.status, "needs_reauth", "{stays}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_numbers_of_refreshing_are_counted_over_all_tenants() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        plan(
            &mut tx,
            &[("crd_1", Some(NOW - 3), None), ("crd_2", Some(NOW), None), ("crd_3", Some(NOW), Some(NOW + 5))],
        )
        .await;
        let failure = FailureColumns {
            generation: 1,
            fence: 0,
            abandoned: false,
            attempts: 1,
            next_attempt_at: NOW + 9,
            last_error: "response_lost",
            doubt: DoubtColumns { first_sent: Some(NOW), since: Some(NOW), replays: 0, likely_unspent: 0 },
            unrecognised: (0, 0),
            due_at: Some(NOW + 9),
            now: NOW,
        };
        plan(&mut tx, &[("crd_4", None, None)]).await;
        assert!(credential_fail(&mut tx, TEST, &name_of("crd_4"), failure).await.unwrap());
        let (tenant_id, id) = CLIENT;
        let pace = Pace { tenant_id, id, pace_at: (NOW + 70) * 1000, retry_credit: 0, retried_at: None };
        integrations_set_pace(&mut tx, TEST, &[pace]).await.unwrap();
        let numbers = refresh_numbers(&mut tx, TEST, NOW).await.unwrap();
        let wanted = RefreshNumbers {
            overdue: 2,
            oldest_due: Some(NOW - 3),
            queued: 1,
            queued_until: Some(NOW + 70),
            in_doubt: 1,
            misconfigured: 0,
            unreachable: 0,
            rate_limited: 0,
        };
        assert_eq!(numbers, wanted);
        credential_delete(&mut tx, &a(), "crd_4", NOW).await.unwrap();
        let numbers = refresh_numbers(&mut tx, TEST, NOW).await.unwrap();
        assert_eq!(numbers, RefreshNumbers { in_doubt: 0, ..wanted }, "nobody waits for what is deleted");
    })
    .await;
}
