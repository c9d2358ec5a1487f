//! Revocations: taken up by one at a time, more and more seldom.

use super::*;
use crate::store::revocations::{RevocationRow, revocation_delete, revocation_insert, revocations_claim};

fn left(credential: &str, next_attempt_at: i64) -> RevocationRow {
    RevocationRow {
        tenant_id: A.to_owned(),
        credential_id: credential.to_owned(),
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
        connect(&mut tx, "con_2", "crd_2").await;
        revocation_insert(&mut tx, &a(), &left("crd_1", NOW + 1)).await.unwrap();
        revocation_insert(&mut tx, &a(), &left("crd_2", NOW + 2)).await.unwrap();
        assert!(revocations_claim(&mut tx, TEST, NOW, 9).await.unwrap().is_empty(), "too early");
        tx.commit().await.unwrap();
        let taken = race(&store, async |tx, _| revocations_claim(tx, TEST, NOW + 1, 9).await).await;
        let first = RevocationRow { attempts: 1, next_attempt_at: NOW + 60_001, ..left("crd_1", 0) };
        assert_eq!(taken.concat(), [first]);

        let mut tx = store.begin().await.unwrap();
        let one = revocations_claim(&mut tx, TEST, NOW + 60_001, 1).await.unwrap();
        assert_eq!(ids(&one, |row| &row.credential_id), ["crd_2"], "what has waited longest");
        let mut now = NOW + 60_001;
        for (attempts, minutes) in [(2, 2), (3, 4), (4, 8), (5, 16), (6, 32), (7, 60), (8, 60)] {
            let rows = revocations_claim(&mut tx, TEST, now, 9).await.unwrap();
            let row = rows.iter().find(|row| row.credential_id == "crd_1").expect("it comes again");
            assert_eq!((row.attempts, row.next_attempt_at - now), (attempts, minutes * 60_000));
            now = row.next_attempt_at;
        }
        revocation_delete(&mut tx, TEST, B, "crd_1").await.unwrap();
        assert_eq!(revocations_claim(&mut tx, TEST, now, 9).await.unwrap().len(), 2);
        revocation_delete(&mut tx, TEST, A, "crd_1").await.unwrap();
        let rest = revocations_claim(&mut tx, TEST, now + 3_600_000, 9).await.unwrap();
        assert_eq!(ids(&rest, |row| &row.credential_id), ["crd_2"]);
    })
    .await;
}
