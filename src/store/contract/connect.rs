//! Connect sessions and handshakes: what may be used once is used once.

use super::*;
use crate::store::connect_sessions::{
    ConnectSessionRow, connect_session_await, connect_session_by_id, connect_session_by_token, connect_session_confirm,
    connect_session_count_wrong_code, connect_session_delete_expired, connect_session_insert,
    connect_session_set_state, connect_session_start,
};
use crate::store::handshakes::{
    HandshakeRow, handshake_consume, handshake_insert, handshake_of_state, handshake_park, handshake_unpark,
    handshakes_delete_expired, handshakes_live,
};

fn session(id: &str) -> ConnectSessionRow {
    ConnectSessionRow {
        tenant_id: A.to_owned(),
        id: id.to_owned(),
        token_hash: format!("token of {id}"),
        user_id: USER.to_owned(),
        providers: JSON.to_owned(),
        scopes: "{}".to_owned(),
        return_url: Some("https://a.example/".to_owned()),
        mode: "popup".to_owned(),
        state: "open".to_owned(),
        browser_hash: None,
        connection_id: None,
        completion_hash: None,
        completion_expires_at: None,
        completion_attempts: 0,
        created_at: NOW,
        expires_at: NOW + 100,
    }
}

async fn begin(store: &Store) {
    let mut tx = store.begin().await.unwrap();
    connect_session_insert(&mut tx, &a(), &session("cns_1")).await.unwrap();
    tx.commit().await.unwrap();
}

async fn now_is(tx: &mut Tx) -> ConnectSessionRow {
    connect_session_by_id(tx, &a(), "cns_1").await.unwrap().unwrap()
}

#[tokio::test]
async fn a_connect_link_is_found_by_its_token_and_by_its_tenant() {
    in_a_house(async |store| {
        begin(&store).await;
        let mut tx = store.read().await.unwrap();
        assert_same(
            &connect_session_by_token(&mut tx, TEST, "token of cns_1").await.unwrap().unwrap(),
            &session("cns_1"),
        );
        assert_same(&now_is(&mut tx).await, &session("cns_1"));
        assert!(connect_session_by_id(&mut tx, &b(), "cns_1").await.unwrap().is_none());
        assert!(connect_session_by_token(&mut tx, TEST, "token").await.unwrap().is_none());
        drop(tx);
        let twin = ConnectSessionRow { token_hash: "token of cns_1".to_owned(), ..session("cns_2") };
        assert_conflict(&store, async |tx| connect_session_insert(tx, &a(), &twin).await).await;
    })
    .await;
}

#[tokio::test]
async fn the_first_of_many_browsers_gets_the_connect_link() {
    in_a_house(async |store| {
        begin(&store).await;
        let mut tx = store.begin().await.unwrap();
        assert!(
            connect_session_start(&mut tx, TEST, "token of cns_1", "late", NOW + 100).await.unwrap().is_none(),
            "it ends"
        );
        tx.commit().await.unwrap();
        let started = race(&store, async |tx, n| {
            connect_session_start(tx, TEST, "token of cns_1", &format!("browser {n}"), NOW).await
        })
        .await;
        let winners: Vec<_> = started.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1);
        assert_eq!(winners[0].state, "started");
        let mut tx = store.read().await.unwrap();
        assert_same(&now_is(&mut tx).await, &winners[0]);
    })
    .await;
}

#[tokio::test]
async fn one_of_many_confirmations_gets_through_and_only_with_the_right_code_in_time() {
    in_a_house(async |store| {
        begin(&store).await;
        let mut tx = store.begin().await.unwrap();
        assert!(!connect_session_confirm(&mut tx, &a(), "cns_1", "code", NOW).await.unwrap(), "nothing waits yet");
        connect_session_await(&mut tx, &b(), "cns_1", "theirs", NOW + 99).await.unwrap();
        connect_session_await(&mut tx, &a(), "cns_1", "code", NOW + 50).await.unwrap();
        assert_eq!(now_is(&mut tx).await.state, "awaiting_confirmation");
        assert!(!connect_session_confirm(&mut tx, &a(), "cns_1", "wrong", NOW).await.unwrap());
        assert!(!connect_session_confirm(&mut tx, &b(), "cns_1", "code", NOW).await.unwrap());
        assert!(!connect_session_confirm(&mut tx, &a(), "cns_1", "code", NOW + 50).await.unwrap(), "too late");
        tx.commit().await.unwrap();
        let confirmed =
            race(&store, async |tx, _| connect_session_confirm(tx, &a(), "cns_1", "code", NOW + 49).await).await;
        assert_eq!(confirmed.iter().filter(|won| **won).count(), 1);
    })
    .await;
}

#[tokio::test]
async fn every_wrong_code_counts_also_of_many_at_once() {
    in_a_house(async |store| {
        begin(&store).await;
        let mut counts = race(&store, async |tx, _| connect_session_count_wrong_code(tx, &a(), "cns_1").await).await;
        counts.sort_unstable();
        assert_eq!(counts, (1..=20).collect::<Vec<_>>());
        let mut tx = store.begin().await.unwrap();
        assert_eq!(connect_session_count_wrong_code(&mut tx, &b(), "cns_1").await.unwrap(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_sessions_end_keeps_its_connection_and_forgets_its_code() {
    in_a_house(async |store| {
        begin(&store).await;
        let mut tx = store.begin().await.unwrap();
        connect(&mut tx, "con_1", "crd_1").await;
        connect_session_await(&mut tx, &a(), "cns_1", "code", NOW + 50).await.unwrap();
        connect_session_set_state(&mut tx, &b(), "cns_1", "denied", None).await.unwrap();
        assert_eq!(now_is(&mut tx).await.state, "awaiting_confirmation", "not by the neighbour");
        connect_session_set_state(&mut tx, &a(), "cns_1", "completed", Some("con_1")).await.unwrap();
        connect_session_set_state(&mut tx, &a(), "cns_1", "expired", None).await.unwrap();
        let row = now_is(&mut tx).await;
        assert_eq!(
            (row.state.as_str(), row.connection_id.as_deref(), row.completion_hash),
            ("expired", Some("con_1"), None)
        );
        assert!(!connect_session_confirm(&mut tx, &a(), "cns_1", "code", NOW).await.unwrap());
    })
    .await;
}

fn handshake(id: &str) -> HandshakeRow {
    HandshakeRow {
        tenant_id: A.to_owned(),
        id: id.to_owned(),
        state_hash: format!("state of {id}"),
        browser_hash: "browser".to_owned(),
        user_id: USER.to_owned(),
        integration_id: format!("int_{A}"),
        integration_revision: 3,
        provider: "google".to_owned(),
        redirect_uri: "https://vault.example/callback".to_owned(),
        scopes: JSON.to_owned(),
        verifier: Some(bytes()),
        nonce: None,
        code: None,
        connect_session_id: Some("cns_1".to_owned()),
        connection_id: None,
        created_at: NOW,
        expires_at: NOW + 100,
        consumed_at: None,
    }
}

#[tokio::test]
async fn a_state_is_used_once_by_one_of_many_callbacks_oa_01() {
    in_a_house(async |store| {
        begin(&store).await;
        let mut tx = store.begin().await.unwrap();
        handshake_insert(&mut tx, &a(), &handshake("hsk_1")).await.unwrap();
        handshake_insert(&mut tx, &a(), &handshake("hsk_2")).await.unwrap();
        assert_eq!(handshakes_live(&mut tx, &a(), USER, NOW).await.unwrap(), (2, 2));
        assert_eq!(handshakes_live(&mut tx, &a(), USER, NOW + 100).await.unwrap(), (0, 0), "they end");
        assert_eq!(handshakes_live(&mut tx, &a(), OTHER, NOW).await.unwrap(), (0, 2), "another user of the tenant");
        assert_eq!(handshakes_live(&mut tx, &b(), USER, NOW).await.unwrap(), (0, 0));
        assert!(handshake_consume(&mut tx, TEST, "state of hsk_1", NOW + 100).await.unwrap().is_none(), "too late");
        assert!(handshake_consume(&mut tx, TEST, "state", NOW).await.unwrap().is_none());
        tx.commit().await.unwrap();

        let got = race(&store, async |tx, _| handshake_consume(tx, TEST, "state of hsk_1", NOW + 1).await).await;
        let winners: Vec<_> = got.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1);
        assert_same(&winners[0], &HandshakeRow { consumed_at: Some(NOW + 1), ..handshake("hsk_1") });
        let mut tx = store.read().await.unwrap();
        assert_eq!(handshakes_live(&mut tx, &a(), USER, NOW).await.unwrap(), (1, 1));
        let used = handshake_of_state(&mut tx, TEST, "state of hsk_1").await.unwrap().expect("remembered");
        assert_same(&used, &winners[0]);
        assert!(handshake_of_state(&mut tx, TEST, "state").await.unwrap().is_none());
        drop(tx);
        let twin = HandshakeRow { state_hash: "state of hsk_1".to_owned(), ..handshake("hsk_3") };
        assert_conflict(&store, async |tx| handshake_insert(tx, &a(), &twin).await).await;
    })
    .await;
}

#[tokio::test]
async fn a_parked_code_is_taken_once_by_one_of_many_confirmations_oa_02() {
    in_a_house(async |store| {
        begin(&store).await;
        let mut tx = store.begin().await.unwrap();
        handshake_insert(&mut tx, &a(), &handshake("hsk_1")).await.unwrap();
        handshake_insert(&mut tx, &a(), &handshake("hsk_2")).await.unwrap();
        assert!(handshake_unpark(&mut tx, &a(), "cns_1").await.unwrap().is_none(), "nothing is parked");
        handshake_park(&mut tx, &b(), "hsk_2", b"theirs").await.unwrap();
        assert!(handshake_unpark(&mut tx, &a(), "cns_1").await.unwrap().is_none(), "the neighbour parks nothing here");
        handshake_park(&mut tx, &a(), "hsk_2", &bytes()).await.unwrap();
        assert!(handshake_unpark(&mut tx, &b(), "cns_1").await.unwrap().is_none());
        assert!(handshake_unpark(&mut tx, &a(), "cns_2").await.unwrap().is_none());
        tx.commit().await.unwrap();
        let taken = race(&store, async |tx, _| handshake_unpark(tx, &a(), "cns_1").await).await;
        let winners: Vec<_> = taken.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1);
        assert_same(&winners[0], &HandshakeRow { code: Some(bytes()), ..handshake("hsk_2") });
    })
    .await;
}

#[tokio::test]
async fn ended_handshakes_are_deleted_and_live_ones_stay() {
    in_a_house(async |store| {
        begin(&store).await;
        let mut tx = store.begin().await.unwrap();
        handshake_insert(&mut tx, &a(), &handshake("hsk_1")).await.unwrap();
        handshake_insert(&mut tx, &a(), &HandshakeRow { expires_at: NOW + 101, ..handshake("hsk_2") }).await.unwrap();
        assert_eq!(handshakes_delete_expired(&mut tx, TEST, NOW + 100).await.unwrap(), 1);
        assert_eq!(handshakes_live(&mut tx, &a(), USER, NOW).await.unwrap(), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn ended_connect_sessions_are_deleted_after_their_handshakes() {
    in_a_house(async |store| {
        begin(&store).await;
        let mut tx = store.begin().await.unwrap();
        let later = ConnectSessionRow { expires_at: NOW + 101, ..session("cns_2") };
        connect_session_insert(&mut tx, &a(), &later).await.unwrap();
        handshake_insert(&mut tx, &a(), &handshake("hsk_1")).await.unwrap();
        assert_eq!(connect_session_delete_expired(&mut tx, TEST, NOW + 100).await.unwrap(), 0, "a handshake is left");
        handshakes_delete_expired(&mut tx, TEST, NOW + 100).await.unwrap();
        assert_eq!(connect_session_delete_expired(&mut tx, TEST, NOW + 100).await.unwrap(), 1);
        assert!(connect_session_by_id(&mut tx, &a(), "cns_2").await.unwrap().is_some());
    })
    .await;
}
