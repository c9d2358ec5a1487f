//! What people read in the book about their accounts, and the numbers of a tenant.

use super::*;
use crate::store::activity::{
    ActivityFilter, ActivityRow, Depth, activity_list, connection_counts, conversations_using, denial_list,
    tenant_counts,
};
use crate::store::audit::{AuditRow, audit_insert};
use crate::store::connections::connection_delete;
use crate::store::conversations::{
    ConversationConnectionRow, ConversationRow, conversation_connection_insert, conversation_end, conversation_insert,
};

const ALL: ActivityFilter<'_> = ActivityFilter { connection: None, depth: Depth::Whole, before: "", limit: 50 };

fn conversation(id: &str) -> ConversationRow {
    ConversationRow {
        tenant_id: A.to_owned(),
        id: id.to_owned(),
        user_id: USER.to_owned(),
        agent_id: "agent_x".to_owned(),
        workspace_tenant_id: A.to_owned(),
        workspace_id: "wks_1".to_owned(),
        api_key_id: None,
        channel: "relay".to_owned(),
        status: "started".to_owned(),
        upstream_id: None,
        ticket_hash: format!("ticket of {id}"),
        ticket_expires_at: NOW + 1000,
        relay_hash: None,
        relay_expires_at: None,
        relay_used_at: None,
        start_data: None,
        refresh_tool: "sanitized".to_owned(),
        broker: "{}".to_owned(),
        client_variables: "[]".to_owned(),
        created_at: NOW,
        started_at: Some(NOW),
        ended_at: None,
        end_reason: None,
    }
}

fn entry(id: &str, action: &str, object: (&str, &str), result: &str) -> AuditRow {
    let in_conversation = matches!(action, "ticket.refuse" | "credential.use");
    AuditRow {
        tenant_id: A.to_owned(),
        id: id.to_owned(),
        at: NOW,
        actor_kind: "ticket".to_owned(),
        actor_id: "cnv_1".to_owned(),
        action: action.to_owned(),
        object_kind: object.0.to_owned(),
        object_id: object.1.to_owned(),
        user_id: Some(USER.to_owned()),
        conversation_id: in_conversation.then(|| "cnv_1".to_owned()),
        result: result.to_owned(),
        reason: (result == "denied").then(|| "not_allowed".to_owned()),
        request_id: "req".to_owned(),
        peer: None,
        mac: bytes(),
    }
}

/// Two connections of one user; the first is used in a conversation, and both use one credential.
async fn live(store: &Store) {
    let mut tx = store.begin().await.unwrap();
    connect(&mut tx, "con_1", "crd_1").await;
    connect(&mut tx, "con_2", "crd_2").await;
    connection_use_credential(&mut tx, &a(), "con_2", "crd_1", "bot").await.unwrap();
    conversation_insert(&mut tx, &a(), &conversation("cnv_1")).await.unwrap();
    let used = ConversationConnectionRow {
        provider: "google".to_owned(),
        connection_id: "con_1".to_owned(),
        credential_id: "crd_1".to_owned(),
        hand_over: "broker".to_owned(),
        is_primary: 1,
        handed_generation: 0,
    };
    conversation_connection_insert(&mut tx, &a(), "cnv_1", &used).await.unwrap();
    for row in [
        entry("aud_1", "connection.create", ("connection", "con_1"), "allowed"),
        entry("aud_2", "credential.use", ("connection", "con_1"), "allowed"),
        entry("aud_3", "ticket.refuse", ("conversation", "cnv_1"), "denied"),
        entry("aud_4", "credential.refresh", ("credential", "crd_1"), "allowed"),
        entry("aud_5", "credential.refresh", ("credential", "crd_1"), "failed"),
        entry("aud_6", "token.read", ("connection", "con_2"), "denied"),
        AuditRow {
            user_id: Some(OTHER.to_owned()),
            ..entry("aud_7", "token.read", ("connection", "con_9"), "allowed")
        },
    ] {
        audit_insert(&mut tx, &row).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn seen(store: &Store, scope: &TenantScope, filter: ActivityFilter<'_>) -> Vec<String> {
    let mut tx = store.read().await.unwrap();
    ids(&activity_list(&mut tx, scope, filter).await.unwrap(), |row| &row.id)
}

#[tokio::test]
async fn activity_is_read_newest_first_as_deep_as_wanted_and_no_wider_than_the_scope() {
    in_a_house(async |store| {
        live(&store).await;
        let own = user_scope(A, USER);
        let deep = |depth| ActivityFilter { depth, ..ALL };
        for (scope, filter, wanted) in [
            (a(), ALL, &["aud_7", "aud_6", "aud_5", "aud_4", "aud_3", "aud_2", "aud_1"][..]),
            (own.clone(), deep(Depth::Whole), &["aud_6", "aud_5", "aud_4", "aud_3", "aud_2", "aud_1"]),
            (own.clone(), deep(Depth::Activity), &["aud_6", "aud_4", "aud_3", "aud_2"]),
            (own.clone(), deep(Depth::Lending), &["aud_2"]),
            (own.clone(), ActivityFilter { before: "aud_6", limit: 2, ..ALL }, &["aud_5", "aud_4"]),
            (user_scope(A, OTHER), ALL, &["aud_7"]),
            (b(), ALL, &[]),
        ] {
            assert_eq!(seen(&store, &scope, filter).await, wanted, "{filter:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn activity_of_a_connection_has_its_credentials_and_its_conversations_refusals() {
    in_a_house(async |store| {
        live(&store).await;
        let of = |id| ActivityFilter { connection: Some(id), ..ALL };
        assert_eq!(seen(&store, &a(), of("con_1")).await, ["aud_5", "aud_4", "aud_3", "aud_2", "aud_1"]);
        assert_eq!(seen(&store, &a(), of("con_2")).await, ["aud_6", "aud_5", "aud_4"], "the credential is shared");
        assert!(seen(&store, &user_scope(A, OTHER), of("con_1")).await.is_empty());
        assert!(seen(&store, &b(), of("con_1")).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn an_entry_leads_to_its_agent_and_its_connection_also_to_one_that_is_gone() {
    in_a_house(async |store| {
        live(&store).await;
        let mut tx = store.begin().await.unwrap();
        assert!(connection_delete(&mut tx, &a(), "con_1", NOW).await.unwrap());
        let rows = activity_list(&mut tx, &a(), ALL).await.unwrap();
        let wanted = ActivityRow {
            id: "aud_2".to_owned(),
            at: NOW,
            actor_kind: "ticket".to_owned(),
            action: "credential.use".to_owned(),
            result: "allowed".to_owned(),
            reason: None,
            conversation_id: Some("cnv_1".to_owned()),
            agent_id: Some("agent_x".to_owned()),
            connection_id: Some("con_1".to_owned()),
            provider: Some("google".to_owned()),
        };
        assert_eq!(rows[5], wanted);
        let refusal = &rows[4];
        assert_eq!((refusal.connection_id.as_deref(), refusal.reason.as_deref()), (None, Some("not_allowed")));
        assert_eq!(rows[2].connection_id.as_deref(), Some("con_1"), "a credential leads to the first that uses it");
    })
    .await;
}

#[tokio::test]
async fn the_numbers_of_a_tenant_count_what_is_there_now() {
    in_a_house(async |store| {
        live(&store).await;
        let mut tx = store.begin().await.unwrap();
        assert_eq!(tenant_counts(&mut tx, &a(), NOW).await.unwrap(), (2, 1));
        assert_eq!(tenant_counts(&mut tx, &user_scope(A, OTHER), NOW).await.unwrap(), (1, 0));
        assert_eq!(tenant_counts(&mut tx, &b(), NOW).await.unwrap(), (1, 0));
        assert_eq!(
            tenant_counts(&mut tx, &a(), NOW + 1000).await.unwrap(),
            (2, 0),
            "a ticket's end is a conversation's"
        );
        for (scope, connection, now, wanted) in [
            (a(), "con_1", NOW, 1),
            (user_scope(A, USER), "con_1", NOW, 1),
            (user_scope(A, OTHER), "con_1", NOW, 0),
            (b(), "con_1", NOW, 0),
            (a(), "con_2", NOW, 0),
            (a(), "con_1", NOW + 1000, 0),
        ] {
            assert_eq!(conversations_using(&mut tx, &scope, connection, now).await.unwrap(), wanted);
        }
        assert!(conversation_end(&mut tx, &a(), "cnv_1", "ended", "x", NOW).await.unwrap());
        assert_eq!(conversations_using(&mut tx, &a(), "con_1", NOW).await.unwrap(), 0);

        let free = ConnectionRow {
            integration_id: None,
            status: "awaiting_start".to_owned(),
            ..connection_row("con_3", None)
        };
        connection_insert(&mut tx, &a(), &free).await.unwrap();
        let count = |status: &str, integration: &str, number| (status.to_owned(), integration.to_owned(), number);
        let all = [count("active", &format!("int_{A}"), 2), count("awaiting_start", "", 1)];
        assert_eq!(connection_counts(&mut tx, &a()).await.unwrap(), all);
        assert_eq!(connection_counts(&mut tx, &user_scope(A, USER)).await.unwrap(), all[..1]);
        assert!(connection_delete(&mut tx, &a(), "con_3", NOW).await.unwrap());
        assert_eq!(connection_counts(&mut tx, &a()).await.unwrap(), all[..1]);
        assert!(connection_counts(&mut tx, &b()).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn refusals_are_listed_newest_first() {
    in_a_house(async |store| {
        live(&store).await;
        let mut tx = store.read().await.unwrap();
        let of = |rows: Vec<AuditRow>| ids(&rows, |row| &row.id);
        assert_eq!(of(denial_list(&mut tx, &a(), 9).await.unwrap()), ["aud_6", "aud_3"]);
        assert_eq!(of(denial_list(&mut tx, &a(), 1).await.unwrap()), ["aud_6"]);
        assert!(denial_list(&mut tx, &user_scope(A, OTHER), 9).await.unwrap().is_empty());
        assert!(denial_list(&mut tx, &b(), 9).await.unwrap().is_empty());
    })
    .await;
}
