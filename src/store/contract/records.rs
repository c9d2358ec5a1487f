//! The book, the outbox and remembered answers.

use super::*;
use crate::store::audit::{AuditRow, audit_insert, audit_insert_all, audit_list, outbox_insert};
use crate::store::idempotency::{
    IdempotencyRow, RequestName, idempotency_begin, idempotency_delete_expired, idempotency_finish, idempotency_forget,
    idempotency_get,
};
use crate::store::sql;

fn entry(tenant: &str, id: &str, user: Option<&str>) -> AuditRow {
    AuditRow {
        tenant_id: tenant.to_owned(),
        id: id.to_owned(),
        at: NOW,
        actor_kind: "key".to_owned(),
        actor_id: "key_1".to_owned(),
        action: "token.read".to_owned(),
        object_kind: "connection".to_owned(),
        object_id: "con_1".to_owned(),
        user_id: user.map(str::to_owned),
        conversation_id: None,
        result: "allowed".to_owned(),
        reason: None,
        request_id: "req".to_owned(),
        peer: Some("203.0.113.7".to_owned()),
        mac: bytes(),
    }
}

#[tokio::test]
async fn the_book_is_read_newest_first_and_only_as_far_as_the_scope_goes() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        for (id, user) in [("aud_1", Some(USER)), ("aud_2", None), ("aud_3", Some(OTHER)), ("aud_4", Some(USER))] {
            audit_insert(&mut tx, &entry(A, id, user)).await.unwrap();
        }
        audit_insert(&mut tx, &entry(B, "aud_5", None)).await.unwrap();

        let all = audit_list(&mut tx, &a(), "", 10).await.unwrap();
        assert_eq!(ids(&all, |row| &row.id), ["aud_4", "aud_3", "aud_2", "aud_1"]);
        assert_eq!(all[3], entry(A, "aud_1", Some(USER)), "every column comes back");
        let page = audit_list(&mut tx, &a(), "aud_4", 2).await.unwrap();
        assert_eq!(ids(&page, |row| &row.id), ["aud_3", "aud_2"]);
        let own = audit_list(&mut tx, &user_scope(A, USER), "", 10).await.unwrap();
        assert_eq!(ids(&own, |row| &row.id), ["aud_4", "aud_1"]);
        assert_eq!(ids(&audit_list(&mut tx, &b(), "", 10).await.unwrap(), |row| &row.id), ["aud_5"]);
        tx.commit().await.unwrap();
        assert_conflict(&store, async |tx| audit_insert(tx, &entry(A, "aud_1", None)).await).await;
    })
    .await;
}

#[tokio::test]
async fn entries_are_added_by_one_statement_that_commits_by_itself_all_or_none() {
    in_a_house(async |store| {
        let odd = AuditRow {
            conversation_id: Some("cnv_1".to_owned()),
            reason: Some("mid_call".to_owned()),
            peer: None,
            ..entry(B, "aud_9", None)
        };
        let entries = [entry(A, "aud_1", Some(USER)), odd.clone()];
        let all: Vec<&AuditRow> = entries.iter().collect();
        audit_insert_all(&mut store.one_statement().await.unwrap(), &all).await.unwrap();
        let mut tx = store.begin().await.unwrap();
        assert_eq!(audit_list(&mut tx, &a(), "", 10).await.unwrap(), [entry(A, "aud_1", Some(USER))]);
        assert_eq!(audit_list(&mut tx, &b(), "", 10).await.unwrap(), [odd], "every column comes back");
        tx.commit().await.unwrap();
        let again = [entry(A, "aud_2", None), entry(A, "aud_1", None)];
        let again: Vec<&AuditRow> = again.iter().collect();
        assert_conflict(&store, async |tx| audit_insert_all(tx, &again).await).await;
        let mut tx = store.begin().await.unwrap();
        assert_eq!(audit_list(&mut tx, &a(), "", 10).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn what_the_outside_is_told_waits_in_the_outbox_of_its_tenant() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        outbox_insert(&mut tx, A, "evt_1", NOW, "connection.created", "con_1", Some(USER)).await.unwrap();
        outbox_insert(&mut tx, B, "evt_1", NOW, "connection.created", "con_1", None).await.unwrap();
        type Row = (String, i64, String, String, Option<String>);
        let rows =
            sql!(tx, all Row, "SELECT tenant_id, at, kind, object_id, user_id FROM outbox ORDER BY tenant_id").unwrap();
        let told = |tenant: &str, user: Option<&str>| {
            (tenant.to_owned(), NOW, "connection.created".to_owned(), "con_1".to_owned(), user.map(str::to_owned))
        };
        assert_eq!(rows, [told(A, Some(USER)), told(B, None)]);
        tx.commit().await.unwrap();
        assert_conflict(&store, async |tx| outbox_insert(tx, A, "evt_1", NOW, "k", "o", None).await).await;
    })
    .await;
}

const REQUEST: RequestName<'_> = RequestName { actor: "key:key_1", route: "POST /v1/x", key_hash: "k" };

#[tokio::test]
async fn of_many_equal_requests_one_is_carried_out_ap_11() {
    in_a_house(async |store| {
        let begun =
            race(&store, async |tx, _| idempotency_begin(tx, &a(), REQUEST, "body", NOW, NOW + 100).await).await;
        assert_eq!(begun.iter().filter(|first| **first).count(), 1);

        let mut tx = store.begin().await.unwrap();
        let running = IdempotencyRow { request_hash: "body".to_owned(), status: None, answer: None, created_at: NOW };
        assert_eq!(idempotency_get(&mut tx, &a(), REQUEST).await.unwrap(), Some(running.clone()));
        idempotency_finish(&mut tx, &b(), REQUEST, 500, b"").await.unwrap();
        idempotency_finish(&mut tx, &a(), REQUEST, 201, &bytes()).await.unwrap();
        let finished = IdempotencyRow { status: Some(201), answer: Some(bytes()), ..running };
        assert_eq!(idempotency_get(&mut tx, &a(), REQUEST).await.unwrap(), Some(finished));
        assert!(!idempotency_begin(&mut tx, &a(), REQUEST, "other body", NOW, NOW).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn another_caller_route_key_or_tenant_is_another_request() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        assert!(idempotency_begin(&mut tx, &a(), REQUEST, "body", NOW, NOW + 100).await.unwrap());
        for name in [
            RequestName { actor: "key:key_2", ..REQUEST },
            RequestName { route: "PUT /v1/x", ..REQUEST },
            RequestName { key_hash: "l", ..REQUEST },
        ] {
            assert_eq!(idempotency_get(&mut tx, &a(), name).await.unwrap(), None);
            assert!(idempotency_begin(&mut tx, &a(), name, "body", NOW, NOW + 100).await.unwrap());
        }
        assert_eq!(idempotency_get(&mut tx, &b(), REQUEST).await.unwrap(), None);
        assert!(idempotency_begin(&mut tx, &b(), REQUEST, "body", NOW, NOW + 100).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn a_forgotten_or_expired_request_may_be_carried_out_again() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        assert!(idempotency_begin(&mut tx, &a(), REQUEST, "body", NOW, NOW + 100).await.unwrap());
        idempotency_forget(&mut tx, &b(), REQUEST).await.unwrap();
        assert!(idempotency_get(&mut tx, &a(), REQUEST).await.unwrap().is_some(), "the neighbour cannot forget it");
        idempotency_forget(&mut tx, &a(), REQUEST).await.unwrap();
        assert!(idempotency_begin(&mut tx, &a(), REQUEST, "body", NOW, NOW + 100).await.unwrap());
        assert_eq!(idempotency_delete_expired(&mut tx, TEST, NOW + 99).await.unwrap(), 0);
        assert_eq!(idempotency_delete_expired(&mut tx, TEST, NOW + 100).await.unwrap(), 1);
        assert!(idempotency_begin(&mut tx, &a(), REQUEST, "body", NOW, NOW + 100).await.unwrap());
    })
    .await;
}
