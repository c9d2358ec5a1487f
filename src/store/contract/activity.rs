//! What the pages show: entries about accounts with the names they lead to, and how much there is of what.

use super::conversations::{conversation, uses};
use super::records::entry;
use super::*;
use crate::store::activity::{
    ActivityFilter, ActivityRow, Depth, activity_list, connection_counts, conversations_using, denial_list,
    tenant_counts,
};
use crate::store::audit::{AuditRow, audit_insert};
use crate::store::connections::connection_delete;
use crate::store::conversations::{conversation_connection_insert, conversation_end, conversation_insert};
use crate::store::users::user_erase;

/// One connection of each user, and a conversation of [`USER`] that may use the first.
async fn fill(tx: &mut Tx) {
    connect(tx, "con_1", "crd_1").await;
    connection_insert(tx, &a(), &connection_row("con_2", Some(OTHER))).await.unwrap();
    conversation_insert(tx, &a(), &conversation("cnv_1", USER)).await.unwrap();
    conversation_insert(tx, &a(), &conversation("cnv_2", OTHER)).await.unwrap();
    conversation_connection_insert(tx, &a(), "cnv_1", &uses("con_1", 1)).await.unwrap();
}

fn about(id: &str, action: &str, object: (&str, &str), result: &str) -> AuditRow {
    let in_call = object.0 == "conversation" || action == "token.read";
    AuditRow {
        action: action.to_owned(),
        object_kind: object.0.to_owned(),
        object_id: object.1.to_owned(),
        result: result.to_owned(),
        conversation_id: in_call.then(|| "cnv_1".to_owned()),
        ..entry(A, id, Some(USER))
    }
}

async fn write_entries(tx: &mut Tx) {
    for row in [
        about("aud_1", "token.read", ("credential", "crd_1"), "allowed"),
        about("aud_2", "token.read", ("credential", "crd_1"), "denied"),
        about("aud_3", "ticket.refuse", ("conversation", "cnv_1"), "denied"),
        about("aud_4", "credential.refresh", ("credential", "crd_1"), "allowed"),
        about("aud_5", "credential.refresh", ("credential", "crd_1"), "failed"),
        about("aud_6", "connection.change", ("connection", "con_1"), "allowed"),
        AuditRow {
            user_id: Some(OTHER.to_owned()),
            ..about("aud_7", "credential.use", ("connection", "con_2"), "allowed")
        },
        AuditRow { tenant_id: B.to_owned(), ..about("aud_8", "token.read", ("credential", "crd_1"), "allowed") },
    ] {
        audit_insert(tx, &row).await.unwrap();
    }
}

const ALL: ActivityFilter<'_> = ActivityFilter { connection: None, depth: Depth::Whole, before: "", limit: 50 };

#[tokio::test]
async fn entries_lead_to_their_connection_agent_and_conversation() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        fill(&mut tx).await;
        write_entries(&mut tx).await;
        let rows = activity_list(&mut tx, &a(), ALL).await.unwrap();
        assert_eq!(ids(&rows, |row| &row.id), ["aud_7", "aud_6", "aud_5", "aud_4", "aud_3", "aud_2", "aud_1"]);
        let wanted = ActivityRow {
            id: "aud_1".to_owned(),
            at: NOW,
            actor_kind: "key".to_owned(),
            action: "token.read".to_owned(),
            result: "allowed".to_owned(),
            reason: None,
            conversation_id: Some("cnv_1".to_owned()),
            agent_id: Some("agent_x".to_owned()),
            connection_id: Some("con_1".to_owned()),
            provider: Some("google".to_owned()),
        };
        assert_eq!(rows[6], wanted, "through its credential");
        assert_eq!(rows[0].connection_id.as_deref(), Some("con_2"), "by its own id");
        assert_eq!((rows[4].connection_id.as_deref(), rows[4].agent_id.as_deref()), (None, Some("agent_x")));
        assert!(connection_delete(&mut tx, &a(), "con_1", NOW).await.unwrap());
        let rows = activity_list(&mut tx, &a(), ALL).await.unwrap();
        assert_eq!(rows[6].connection_id.as_deref(), Some("con_1"), "also after a disconnect");
    })
    .await;
}

#[tokio::test]
async fn entries_are_narrowed_by_depth_connection_scope_and_page() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        fill(&mut tx).await;
        write_entries(&mut tx).await;
        let of_one = ActivityFilter { connection: Some("con_1"), ..ALL };
        let own = user_scope(A, USER);
        for (scope, filter, wanted) in [
            (a(), ActivityFilter { depth: Depth::Lending, ..ALL }, &["aud_7", "aud_1"][..]),
            (a(), ActivityFilter { depth: Depth::Activity, ..ALL }, &["aud_7", "aud_4", "aud_3", "aud_2", "aud_1"]),
            (a(), of_one, &["aud_6", "aud_5", "aud_4", "aud_3", "aud_2", "aud_1"]),
            (a(), ActivityFilter { connection: Some("con_2"), ..ALL }, &["aud_7"]),
            (own.clone(), ALL, &["aud_6", "aud_5", "aud_4", "aud_3", "aud_2", "aud_1"]),
            (own, ActivityFilter { connection: Some("con_2"), ..ALL }, &[]),
            (a(), ActivityFilter { before: "aud_5", limit: 2, ..ALL }, &["aud_4", "aud_3"]),
            (b(), ALL, &["aud_8"]),
            (b(), of_one, &[]),
        ] {
            let rows = activity_list(&mut tx, &scope, filter).await.unwrap();
            assert_eq!(ids(&rows, |row| &row.id), wanted, "{filter:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn refusals_are_listed_newest_first_as_far_as_the_scope_goes() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        fill(&mut tx).await;
        write_entries(&mut tx).await;
        let rows = denial_list(&mut tx, &a(), 10).await.unwrap();
        assert_eq!(
            rows,
            [
                about("aud_3", "ticket.refuse", ("conversation", "cnv_1"), "denied"),
                about("aud_2", "token.read", ("credential", "crd_1"), "denied"),
            ]
        );
        assert_eq!(denial_list(&mut tx, &a(), 1).await.unwrap().len(), 1);
        assert_eq!(denial_list(&mut tx, &user_scope(A, USER), 10).await.unwrap().len(), 2);
        assert!(denial_list(&mut tx, &user_scope(A, OTHER), 10).await.unwrap().is_empty());
        assert!(denial_list(&mut tx, &b(), 10).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn only_what_is_there_and_runs_is_counted() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        fill(&mut tx).await;
        let own = user_scope(A, USER);
        assert_eq!(tenant_counts(&mut tx, &a(), NOW).await.unwrap(), (2, 2));
        assert_eq!(tenant_counts(&mut tx, &own, NOW).await.unwrap(), (1, 1));
        assert_eq!(tenant_counts(&mut tx, &b(), NOW).await.unwrap(), (1, 0));
        assert_eq!(tenant_counts(&mut tx, &a(), NOW + 1000).await.unwrap(), (2, 0), "their tickets have ended");
        for (scope, connection, now, wanted) in [
            (a(), "con_1", NOW, 1),
            (own.clone(), "con_1", NOW, 1),
            (user_scope(A, OTHER), "con_1", NOW, 0),
            (b(), "con_1", NOW, 0),
            (a(), "con_2", NOW, 0),
            (a(), "con_1", NOW + 1000, 0),
        ] {
            assert_eq!(conversations_using(&mut tx, &scope, connection, now).await.unwrap(), wanted);
        }
        assert!(conversation_end(&mut tx, &a(), "cnv_1", "ended", "x", NOW).await.unwrap());
        assert_eq!(conversations_using(&mut tx, &a(), "con_1", NOW).await.unwrap(), 0);
        assert!(user_erase(&mut tx, &a(), OTHER, NOW).await.unwrap());
        assert_eq!(tenant_counts(&mut tx, &a(), NOW).await.unwrap(), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn connections_are_counted_by_status_and_integration() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        fill(&mut tx).await;
        let row = |id: &str, integration: Option<&str>, status: &str| ConnectionRow {
            integration_id: integration.map(str::to_owned),
            status: status.to_owned(),
            ..connection_row(id, Some(USER))
        };
        let integration = format!("int_{A}");
        connection_insert(&mut tx, &a(), &row("con_3", None, "active")).await.unwrap();
        connection_insert(&mut tx, &a(), &row("con_4", Some(&integration), "needs_reauth")).await.unwrap();
        connection_insert(&mut tx, &a(), &row("con_5", Some(&integration), "active")).await.unwrap();
        assert!(connection_delete(&mut tx, &a(), "con_5", NOW).await.unwrap());
        let count = |status: &str, integration: &str, number: i64| (status.to_owned(), integration.to_owned(), number);
        let counts = connection_counts(&mut tx, &a()).await.unwrap();
        let wanted = [count("active", "", 1), count("active", &integration, 2), count("needs_reauth", &integration, 1)];
        assert_eq!(counts, wanted);
        let own = connection_counts(&mut tx, &user_scope(A, OTHER)).await.unwrap();
        assert_eq!(own, [count("active", &integration, 1)]);
        assert!(connection_counts(&mut tx, &b()).await.unwrap().is_empty());
    })
    .await;
}
