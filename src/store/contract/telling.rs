//! Telling: every state once, by one node, from the last that was told.

use super::*;
use crate::store::connections::{connection_delete, connections_of_credential_mark};
use crate::store::telling::{
    StateEvent, connections_of_credential_degrade, connections_of_credential_recover, connections_tell,
    connections_untold,
};

/// Tells all that is untold; gives each change.
async fn tell(tx: &mut Tx) -> Vec<(String, String, String)> {
    let rows = connections_untold(tx, TEST, 100).await.unwrap();
    let events: Vec<StateEvent<'_>> = rows
        .iter()
        .enumerate()
        .map(|(number, row)| StateEvent {
            tenant_id: &row.tenant_id,
            id: format!("evt_{number}_{}_{}_{}", row.id, row.told, row.state),
            at: NOW,
            kind: "connection.changed",
            object_id: &row.id,
            user_id: row.user_id.as_deref(),
            old_state: Some(&row.told),
            new_state: &row.state,
            reason: row.reason.as_deref(),
        })
        .collect();
    connections_tell(tx, TEST, &events).await.unwrap();
    rows.iter().map(|row| (row.id.clone(), row.told.clone(), row.state.clone())).collect()
}

fn change(id: &str, told: &str, state: &str) -> (String, String, String) {
    (id.to_owned(), told.to_owned(), state.to_owned())
}

#[tokio::test]
async fn each_state_of_a_connection_is_told_once_from_the_last_that_was_told() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        connect(&mut tx, "con_1", "crd_1").await;
        assert_eq!(tell(&mut tx).await, [change("con_1", "", "active")]);
        assert!(tell(&mut tx).await.is_empty(), "once");
        assert_eq!(connections_of_credential_degrade(&mut tx, TEST, B, "crd_1").await.unwrap(), 0);
        assert_eq!(connections_of_credential_degrade(&mut tx, TEST, A, "crd_1").await.unwrap(), 1);
        assert_eq!(connections_of_credential_degrade(&mut tx, TEST, A, "crd_1").await.unwrap(), 0, "it is already");
        assert_eq!(tell(&mut tx).await, [change("con_1", "active", "degraded")]);
        connections_of_credential_mark(&mut tx, TEST, A, "crd_1", "needs_reauth", Some("x"), NOW).await.unwrap();
        assert_eq!(tell(&mut tx).await, [change("con_1", "degraded", "needs_reauth")]);
        connections_of_credential_mark(&mut tx, TEST, A, "crd_1", "active", None, NOW).await.unwrap();
        assert_eq!(connections_of_credential_recover(&mut tx, TEST, B, "crd_1").await.unwrap(), 0);
        assert_eq!(connections_of_credential_recover(&mut tx, TEST, A, "crd_1").await.unwrap(), 1);
        assert_eq!(tell(&mut tx).await, [change("con_1", "needs_reauth", "active")]);
        assert!(connection_delete(&mut tx, &a(), "con_1", NOW).await.unwrap());
        assert_eq!(tell(&mut tx).await, [change("con_1", "active", "deleted")]);
        assert!(tell(&mut tx).await.is_empty());
        type Row = (String, Option<String>, Option<String>, Option<String>, Option<String>);
        let rows = crate::store::sql!(
            tx,
            all Row,
            "SELECT object_id, user_id, old_state, new_state, reason FROM outbox WHERE new_state = 'needs_reauth'"
        );
        let rows = rows.unwrap();
        let said = |text: &str| Some(text.to_owned());
        assert_eq!(rows, [("con_1".to_owned(), said(USER), said("degraded"), said("needs_reauth"), said("x"))]);
    })
    .await;
}

#[tokio::test]
async fn a_connection_recovers_when_none_of_its_credentials_fails_any_more() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        connect(&mut tx, "con_1", "crd_1").await;
        connect(&mut tx, "con_2", "crd_2").await;
        connection_use_credential(&mut tx, &a(), "con_1", "crd_2", "bot").await.unwrap();
        tell(&mut tx).await;
        crate::store::sql!(tx, execute, "UPDATE credentials SET last_error = 'server_error' WHERE id = 'crd_2'")
            .unwrap();
        for credential in ["crd_1", "crd_2"] {
            connections_of_credential_degrade(&mut tx, TEST, A, credential).await.unwrap();
        }
        assert_eq!(tell(&mut tx).await.len(), 2);
        assert_eq!(
            connections_of_credential_recover(&mut tx, TEST, A, "crd_1").await.unwrap(),
            0,
            "its bot still fails"
        );
        assert_eq!(connections_of_credential_recover(&mut tx, TEST, A, "crd_2").await.unwrap(), 2);
        assert_eq!(tell(&mut tx).await.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn two_nodes_tell_no_state_twice() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        for n in 0..40 {
            connection_insert(&mut tx, &a(), &connection_row(&format!("con_{n:02}"), Some(USER))).await.unwrap();
        }
        tx.commit().await.unwrap();
        let told = race(&store, async |tx, _| Ok(tell(tx).await.len())).await;
        assert_eq!(told.iter().sum::<usize>(), 40);
    })
    .await;
}
