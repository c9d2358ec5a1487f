//! Conversations, their tickets and relays, and what each may use.

use super::*;
use crate::store::api_keys::api_key_insert;
use crate::store::conversations::{
    ConversationConnectionRow, ConversationRow, conversation_by_id, conversation_by_relay, conversation_by_ticket,
    conversation_connection_handed, conversation_connection_insert, conversation_connections, conversation_end,
    conversation_enter_relay, conversation_insert, conversation_list, conversation_mark_started,
    conversations_end_by_connection, conversations_end_by_key, conversations_end_by_user, conversations_end_expired,
    ticket_use_count,
};

fn conversation(id: &str, user: &str) -> ConversationRow {
    ConversationRow {
        tenant_id: A.to_owned(),
        id: id.to_owned(),
        user_id: user.to_owned(),
        agent_id: "agent_x".to_owned(),
        workspace_tenant_id: A.to_owned(),
        workspace_id: "wks_1".to_owned(),
        api_key_id: Some("key_1".to_owned()),
        channel: "relay".to_owned(),
        status: "starting".to_owned(),
        upstream_id: None,
        ticket_hash: format!("ticket of {id}"),
        ticket_expires_at: NOW + 1000,
        relay_hash: Some(format!("relay of {id}")),
        relay_expires_at: Some(NOW + 60),
        relay_used_at: None,
        start_data: Some(bytes()),
        refresh_tool: "sanitized".to_owned(),
        broker: JSON.to_owned(),
        client_variables: "[]".to_owned(),
        created_at: NOW,
        started_at: None,
        ended_at: None,
        end_reason: None,
    }
}

async fn start(store: &Store) {
    let mut tx = store.begin().await.unwrap();
    api_key_insert(&mut tx, &a(), &tenants::key("key_1", None)).await.unwrap();
    for (id, user) in [("cnv_1", USER), ("cnv_2", OTHER), ("cnv_3", USER)] {
        conversation_insert(&mut tx, &a(), &conversation(id, user)).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn seen(tx: &mut Tx, id: &str) -> ConversationRow {
    conversation_by_id(tx, &a(), id).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_conversation_is_seen_by_its_tenant_its_user_and_whoever_holds_its_ticket_or_relay() {
    in_a_house(async |store| {
        start(&store).await;
        let mut tx = store.read().await.unwrap();
        let wanted = conversation("cnv_1", USER);
        for scope in [a(), user_scope(A, USER)] {
            assert_same(&conversation_by_id(&mut tx, &scope, "cnv_1").await.unwrap().unwrap(), &wanted);
        }
        for scope in [b(), user_scope(A, OTHER), user_scope(B, USER)] {
            assert!(conversation_by_id(&mut tx, &scope, "cnv_1").await.unwrap().is_none());
        }
        assert_same(&conversation_by_ticket(&mut tx, TEST, "ticket of cnv_1").await.unwrap().unwrap(), &wanted);
        assert_same(&conversation_by_relay(&mut tx, TEST, "relay of cnv_1").await.unwrap().unwrap(), &wanted);
        assert!(conversation_by_ticket(&mut tx, TEST, "relay of cnv_1").await.unwrap().is_none());
        assert!(conversation_by_relay(&mut tx, TEST, "ticket of cnv_1").await.unwrap().is_none());
        drop(tx);
        let twin = ConversationRow { ticket_hash: "ticket of cnv_1".to_owned(), ..conversation("cnv_9", USER) };
        assert_conflict(&store, async |tx| conversation_insert(tx, &a(), &twin).await).await;
    })
    .await;
}

#[tokio::test]
async fn conversations_are_listed_newest_first_as_far_as_the_scope_goes() {
    in_a_house(async |store| {
        start(&store).await;
        let mut tx = store.read().await.unwrap();
        for (scope, before, limit, wanted) in [
            (a(), "", 9, &["cnv_3", "cnv_2", "cnv_1"][..]),
            (a(), "cnv_3", 1, &["cnv_2"]),
            (user_scope(A, USER), "", 9, &["cnv_3", "cnv_1"]),
            (b(), "", 9, &[]),
        ] {
            let rows = conversation_list(&mut tx, &scope, before, limit).await.unwrap();
            assert_eq!(ids(&rows, |row| &row.id), wanted);
        }
    })
    .await;
}

#[tokio::test]
async fn a_relay_is_entered_once_by_one_of_many_in_time_and_before_the_end() {
    in_a_house(async |store| {
        start(&store).await;
        let mut tx = store.begin().await.unwrap();
        assert!(
            conversation_enter_relay(&mut tx, TEST, "relay of cnv_1", NOW + 60).await.unwrap().is_none(),
            "too late"
        );
        assert!(conversation_end(&mut tx, &a(), "cnv_2", "ended", "x", NOW).await.unwrap());
        assert!(conversation_enter_relay(&mut tx, TEST, "relay of cnv_2", NOW).await.unwrap().is_none(), "ended");
        tx.commit().await.unwrap();
        let entered =
            race(&store, async |tx, _| conversation_enter_relay(tx, TEST, "relay of cnv_1", NOW + 1).await).await;
        let winners: Vec<_> = entered.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1);
        assert_same(&winners[0], &ConversationRow { relay_used_at: Some(NOW + 1), ..conversation("cnv_1", USER) });
    })
    .await;
}

#[tokio::test]
async fn a_start_is_marked_until_the_end_and_the_end_is_final() {
    in_a_house(async |store| {
        start(&store).await;
        let mut tx = store.begin().await.unwrap();
        assert!(!conversation_mark_started(&mut tx, &b(), "cnv_1", Some("theirs"), NOW + 1).await.unwrap());
        assert_eq!(seen(&mut tx, "cnv_1").await.status, "starting");
        assert!(conversation_mark_started(&mut tx, &a(), "cnv_1", Some("up_1"), NOW + 2).await.unwrap());
        conversation_mark_started(&mut tx, &a(), "cnv_1", None, NOW + 2).await.unwrap();
        let row = seen(&mut tx, "cnv_1").await;
        assert_eq!(
            (row.status.as_str(), row.upstream_id.as_deref(), row.started_at),
            ("started", Some("up_1"), Some(NOW + 2))
        );
        assert!(row.start_data.is_some());

        assert!(!conversation_end(&mut tx, &b(), "cnv_1", "ended", "theirs", NOW + 3).await.unwrap());
        assert!(conversation_end(&mut tx, &a(), "cnv_1", "ended", "hung_up", NOW + 4).await.unwrap());
        assert!(!conversation_end(&mut tx, &a(), "cnv_1", "failed", "again", NOW + 5).await.unwrap());
        assert!(!conversation_mark_started(&mut tx, &a(), "cnv_1", Some("up_2"), NOW + 6).await.unwrap());
        let row = seen(&mut tx, "cnv_1").await;
        assert_eq!(
            (row.status.as_str(), row.end_reason.as_deref(), row.ended_at),
            ("ended", Some("hung_up"), Some(NOW + 4))
        );
        assert_eq!(
            (row.upstream_id.as_deref(), row.start_data),
            (Some("up_1"), None),
            "what only the start needed is gone"
        );
    })
    .await;
}

#[tokio::test]
async fn conversations_end_with_their_tickets() {
    in_a_house(async |store| {
        start(&store).await;
        let mut tx = store.begin().await.unwrap();
        let longer = ConversationRow { ticket_expires_at: NOW + 1001, ..conversation("cnv_4", USER) };
        conversation_insert(&mut tx, &a(), &longer).await.unwrap();
        assert!(conversation_end(&mut tx, &a(), "cnv_1", "failed", "refused", NOW).await.unwrap());
        assert_eq!(conversations_end_expired(&mut tx, TEST, NOW + 999).await.unwrap(), 0);
        assert_eq!(conversations_end_expired(&mut tx, TEST, NOW + 1000).await.unwrap(), 2);
        assert_eq!(seen(&mut tx, "cnv_1").await.status, "failed", "what has ended stays as it ended");
        let row = seen(&mut tx, "cnv_3").await;
        assert_eq!(
            (row.status.as_str(), row.end_reason.as_deref(), row.ended_at),
            ("ended", Some("expired"), Some(NOW + 1000))
        );
        assert_eq!(seen(&mut tx, "cnv_4").await.ended_at, None);
    })
    .await;
}

fn uses(connection: &str, is_primary: i64) -> ConversationConnectionRow {
    ConversationConnectionRow {
        provider: "google".to_owned(),
        connection_id: connection.to_owned(),
        credential_id: "crd_1".to_owned(),
        hand_over: "inject".to_owned(),
        is_primary,
        handed_generation: 0,
    }
}

#[tokio::test]
async fn a_conversation_knows_its_connections_the_primary_first() {
    in_a_house(async |store| {
        start(&store).await;
        let mut tx = store.begin().await.unwrap();
        connect(&mut tx, "con_1", "crd_1").await;
        connect(&mut tx, "con_2", "crd_2").await;
        for (connection, is_primary) in [("con_1", 0), ("con_2", 1)] {
            conversation_connection_insert(&mut tx, &a(), "cnv_1", &uses(connection, is_primary)).await.unwrap();
        }
        let known = conversation_connections(&mut tx, &a(), "cnv_1").await.unwrap();
        assert_eq!(known, [uses("con_2", 1), uses("con_1", 0)]);
        assert!(conversation_connections(&mut tx, &b(), "cnv_1").await.unwrap().is_empty());
        assert!(conversation_connections(&mut tx, &a(), "cnv_2").await.unwrap().is_empty());

        for generation in [3, 2] {
            conversation_connection_handed(&mut tx, &a(), "cnv_1", "con_1", generation).await.unwrap();
            conversation_connection_handed(&mut tx, &b(), "cnv_1", "con_1", 9).await.unwrap();
            let known = conversation_connections(&mut tx, &a(), "cnv_1").await.unwrap();
            assert_eq!((known[0].handed_generation, known[1].handed_generation), (0, 3), "it never goes back");
        }
        tx.commit().await.unwrap();
        assert_conflict(&store, async |tx| conversation_connection_insert(tx, &a(), "cnv_1", &uses("con_1", 0)).await)
            .await;
    })
    .await;
}

#[tokio::test]
async fn the_end_of_a_connection_ends_every_open_conversation_that_may_use_it() {
    in_a_house(async |store| {
        start(&store).await;
        let mut tx = store.begin().await.unwrap();
        connect(&mut tx, "con_1", "crd_1").await;
        for id in ["cnv_1", "cnv_2"] {
            conversation_connection_insert(&mut tx, &a(), id, &uses("con_1", 1)).await.unwrap();
        }
        assert!(conversation_end(&mut tx, &a(), "cnv_2", "ended", "hung_up", NOW).await.unwrap());
        assert!(conversations_end_by_connection(&mut tx, &b(), "con_1", "revoked", NOW + 1).await.unwrap().is_empty());
        let ended = conversations_end_by_connection(&mut tx, &a(), "con_1", "revoked", NOW + 1).await.unwrap();
        assert_eq!(ended, ["cnv_1"]);
        let row = seen(&mut tx, "cnv_1").await;
        assert_eq!((row.end_reason.as_deref(), row.start_data), (Some("revoked"), None));
        assert_eq!(seen(&mut tx, "cnv_2").await.end_reason.as_deref(), Some("hung_up"));
        assert_eq!(seen(&mut tx, "cnv_3").await.ended_at, None);
    })
    .await;
}

#[tokio::test]
async fn the_end_of_a_user_ends_that_users_open_conversations() {
    in_a_house(async |store| {
        start(&store).await;
        let mut tx = store.begin().await.unwrap();
        assert!(conversation_end(&mut tx, &a(), "cnv_3", "ended", "hung_up", NOW).await.unwrap());
        assert_eq!(conversations_end_by_user(&mut tx, &b(), USER, "erased", NOW + 1).await.unwrap(), 0);
        assert_eq!(conversations_end_by_user(&mut tx, &a(), USER, "erased", NOW + 1).await.unwrap(), 1);
        let row = seen(&mut tx, "cnv_1").await;
        assert_eq!((row.status.as_str(), row.end_reason.as_deref(), row.start_data), ("ended", Some("erased"), None));
        assert_eq!(seen(&mut tx, "cnv_3").await.end_reason.as_deref(), Some("hung_up"));
        assert_eq!(seen(&mut tx, "cnv_2").await.ended_at, None, "another user's goes on");
    })
    .await;
}

#[tokio::test]
async fn the_end_of_a_key_ends_the_open_conversations_that_it_started() {
    in_a_house(async |store| {
        start(&store).await;
        let mut tx = store.begin().await.unwrap();
        let by_hand = ConversationRow { api_key_id: None, ..conversation("cnv_9", USER) };
        conversation_insert(&mut tx, &a(), &by_hand).await.unwrap();
        assert!(conversation_end(&mut tx, &a(), "cnv_3", "ended", "hung_up", NOW).await.unwrap());
        assert_eq!(conversations_end_by_key(&mut tx, &b(), "key_1", "key_revoked", NOW + 1).await.unwrap(), 0);
        assert_eq!(conversations_end_by_key(&mut tx, &a(), "key_1", "key_revoked", NOW + 1).await.unwrap(), 2);
        let row = seen(&mut tx, "cnv_1").await;
        assert_eq!((row.end_reason.as_deref(), row.start_data), (Some("key_revoked"), None));
        assert_eq!(seen(&mut tx, "cnv_3").await.end_reason.as_deref(), Some("hung_up"));
        assert_eq!(seen(&mut tx, "cnv_9").await.ended_at, None, "started by nobody's key");
    })
    .await;
}

#[tokio::test]
async fn uses_of_a_ticket_are_counted_in_windows_that_begin_with_the_first_use() {
    in_a_house(async |store| {
        start(&store).await;
        let mut tx = store.begin().await.unwrap();
        for (kind, now, wanted) in [
            ("refresh", NOW, (1, NOW)),
            ("refresh", NOW + 1, (2, NOW)),
            ("broker", NOW + 2, (1, NOW + 2)),
            ("refresh", NOW + 99, (3, NOW)),
            ("refresh", NOW + 100, (1, NOW + 100)),
            ("refresh", NOW + 150, (2, NOW + 100)),
            ("refresh", NOW + 500, (1, NOW + 500)),
        ] {
            assert_eq!(
                ticket_use_count(&mut tx, &a(), "cnv_1", kind, now, 100).await.unwrap(),
                wanted,
                "{kind} at {now}"
            );
        }
        assert_eq!(ticket_use_count(&mut tx, &a(), "cnv_2", "refresh", NOW + 500, 100).await.unwrap(), (1, NOW + 500));
        tx.commit().await.unwrap();
        let mut counts =
            race(&store, async |tx, _| ticket_use_count(tx, &a(), "cnv_3", "refused", NOW, 100).await).await;
        counts.sort_unstable();
        assert_eq!(counts, (1..=20).map(|n| (n, NOW)).collect::<Vec<_>>(), "every use counts, also of many at once");
    })
    .await;
}
