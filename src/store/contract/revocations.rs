//! Revocations: taken up by one at a time, more and more seldom.

use super::*;
use crate::store::credentials::credential_delete;
use crate::store::revocations::{
    RevocationRow, account_was_revoked, credential_note_revocation, revocation_delete, revocation_insert,
    revocation_postpone, revocations_claim,
};
use crate::store::sql;

fn left(id: &str, next_attempt_at: i64) -> RevocationRow {
    RevocationRow {
        tenant_id: A.to_owned(),
        id: id.to_owned(),
        credential_id: "crd_1".to_owned(),
        revision: 3,
        access_token: Some(bytes()),
        refresh_token: None,
        attempts: 0,
        next_attempt_at,
        expires_at: NOW + 86_400_000,
    }
}

#[tokio::test]
async fn a_revocation_is_taken_up_by_one_node_and_comes_again_more_and_more_seldom() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        connect(&mut tx, "con_1", "crd_1").await;
        revocation_insert(&mut tx, &a(), &left("rvk_1", NOW + 1)).await.unwrap();
        revocation_insert(&mut tx, &a(), &left("rvk_2", NOW + 2)).await.unwrap();
        assert!(revocations_claim(&mut tx, TEST, NOW, 9).await.unwrap().is_empty(), "too early");
        tx.commit().await.unwrap();
        let taken = race(&store, async |tx, _| revocations_claim(tx, TEST, NOW + 1, 9).await).await;
        let first = RevocationRow { attempts: 1, next_attempt_at: NOW + 60_001, ..left("rvk_1", 0) };
        assert_eq!(taken.concat(), [first]);

        let mut tx = store.begin().await.unwrap();
        let one = revocations_claim(&mut tx, TEST, NOW + 60_001, 1).await.unwrap();
        assert_eq!(ids(&one, |row| &row.id), ["rvk_2"], "what has waited longest");
        let mut now = NOW + 60_001;
        for (attempts, minutes) in [(2, 2), (3, 4), (4, 8), (5, 16), (6, 32), (7, 60), (8, 60)] {
            let rows = revocations_claim(&mut tx, TEST, now, 9).await.unwrap();
            let row = rows.iter().find(|row| row.id == "rvk_1").expect("it comes again");
            assert_eq!((row.attempts, row.next_attempt_at - now), (attempts, minutes * 60_000));
            now = row.next_attempt_at;
        }
        assert!(!revocation_delete(&mut tx, TEST, B, "rvk_1").await.unwrap());
        assert_eq!(revocations_claim(&mut tx, TEST, now, 9).await.unwrap().len(), 2);
        assert!(revocation_delete(&mut tx, TEST, A, "rvk_1").await.unwrap());
        assert!(!revocation_delete(&mut tx, TEST, A, "rvk_1").await.unwrap(), "once");
        let rest = revocations_claim(&mut tx, TEST, now + 3_600_000, 9).await.unwrap();
        assert_eq!(ids(&rest, |row| &row.id), ["rvk_2"]);
    })
    .await;
}

#[tokio::test]
async fn oa_17_a_revocation_waits_as_long_as_its_provider_wants_and_no_longer_than_it_has() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        connect(&mut tx, "con_1", "crd_1").await;
        revocation_insert(&mut tx, &a(), &left("rvk_1", NOW + 60_000)).await.unwrap();
        let end = left("rvk_1", 0).expires_at;
        for (until, wanted) in [(NOW + 1000, NOW + 60_000), (NOW + 600_000, NOW + 600_000), (end + 1000, end)] {
            revocation_postpone(&mut tx, TEST, B, "rvk_1", end).await.unwrap();
            revocation_postpone(&mut tx, TEST, A, "rvk_1", until).await.unwrap();
            let (next,) = sql!(tx, one(i64,), "SELECT next_attempt_at FROM revocations").unwrap();
            assert_eq!(next, wanted, "{until}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_provider_was_asked_to_end_is_known_by_account_and_by_workspace() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        let row = ConnectionRow { account_id: "T1/U1".to_owned(), ..connection_row("con_1", Some(USER)) };
        connection_insert(&mut tx, &a(), &row).await.unwrap();
        credential_insert(&mut tx, &a(), &credential_row("crd_1")).await.unwrap();
        connection_use_credential(&mut tx, &a(), "con_1", "crd_1", "user").await.unwrap();
        let ours = format!("int_{A}");
        let other = IntegrationRow::new(B, "int_other", "slack", "other", NOW);
        let same = IntegrationRow {
            id: "int_same".to_owned(),
            provider: "github".to_owned(),
            client: format!("{A}/{ours}"),
            ..other.clone()
        };
        for row in [other, same] {
            integration_insert(&mut tx, &b(), &row).await.unwrap();
        }
        let asked =
            async |tx: &mut Tx, place, of, times| account_was_revoked(tx, TEST, place, of, times).await.unwrap();
        assert!(!asked(&mut tx, (A, &ours), ("T1/U1", "user"), (0, i64::MAX)).await, "never yet");
        credential_note_revocation(&mut tx, TEST, &name_of("crd_1"), NOW).await.unwrap();
        for deleted in [false, true] {
            for (place, of, times, wanted) in [
                ((A, &*ours), ("T1/U1", "user"), (NOW, NOW), true),
                ((A, &*ours), ("T1", "user"), (NOW, NOW), true),
                ((B, "int_same"), ("T1/U1", "user"), (NOW, NOW), true),
                ((B, "int_other"), ("T1/U1", "user"), (NOW, NOW), false),
                ((A, &*ours), ("T1/U1", "bot"), (NOW, NOW), false),
                ((A, &*ours), ("T1/U", "user"), (NOW, NOW), false),
                ((A, &*ours), ("T1/U12", "user"), (NOW, NOW), false),
                ((A, &*ours), ("T", "user"), (NOW, NOW), false),
                ((A, &*ours), ("T1/U1", "user"), (NOW + 1, NOW + 9), false),
                ((A, &*ours), ("T1/U1", "user"), (NOW - 9, NOW - 1), false),
            ] {
                assert_eq!(asked(&mut tx, place, of, times).await, wanted, "{place:?} {of:?} {times:?} {deleted}");
            }
            credential_delete(&mut tx, &a(), "crd_1", NOW).await.unwrap();
        }
        // Asked again soon, it is one long question; a day later, another.
        let (of, soon, late) = (("T1/U1", "user"), NOW + 3_600_000, NOW + 90_000_000);
        credential_note_revocation(&mut tx, TEST, &name_of("crd_1"), soon).await.unwrap();
        assert!(asked(&mut tx, (A, &ours), of, (NOW, NOW)).await && asked(&mut tx, (A, &ours), of, (soon, soon)).await);
        credential_note_revocation(&mut tx, TEST, &name_of("crd_1"), late).await.unwrap();
        assert!(
            !asked(&mut tx, (A, &ours), of, (NOW, soon)).await && asked(&mut tx, (A, &ours), of, (late, late)).await
        );
    })
    .await;
}
