//! Credentials: kept, read, claimed by the sweep and ended. What a refresh does to a row is told in `refresh_rows`.

use super::*;
use crate::store::connections::{connection_leave_credential, connection_touch, credential_other_uses};
use crate::store::credentials::{
    NewTokens, credential_delete, credential_load_even_deleted, credential_refill, credential_replace,
    credential_shared_lock, credential_shared_uses, credentials_of_connection, credentials_of_connection_lock,
    credentials_of_integration_pause,
};
use crate::store::integrations::{ClientOf, integration_by_id, integration_pause};
use crate::store::reading::{ReadableRow, credentials_readable};

async fn keep(store: &Store) {
    let mut tx = store.begin().await.unwrap();
    connect(&mut tx, "con_1", "crd_1").await;
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_credential_comes_back_as_it_was_written_and_only_to_its_tenant() {
    in_a_house(async |store| {
        keep(&store).await;
        let mut tx = store.begin().await.unwrap();
        assert_eq!(load(&mut tx, "crd_1").await, credential_row("crd_1"));
        let bot = CredentialRow {
            kind: "bot".to_owned(),
            expires_at: None,
            refresh_token: None,
            due_at: None,
            ..credential_row("crd_2")
        };
        credential_insert(&mut tx, &a(), &bot).await.unwrap();
        connection_use_credential(&mut tx, &a(), "con_1", "crd_2", "bot").await.unwrap();
        let of = credentials_of_connection(&mut tx, &a(), "con_1").await.unwrap();
        assert_eq!(of, [credential_row("crd_1"), bot], "user before bot");
        assert!(credentials_of_connection(&mut tx, &b(), "con_1").await.unwrap().is_empty());
        let theirs = CredentialName { tenant_id: B.to_owned(), id: "crd_1".to_owned() };
        assert_eq!(credential_load(&mut tx, TEST, &theirs).await.unwrap(), None);
        tx.commit().await.unwrap();
        assert_conflict(&store, async |tx| credential_insert(tx, &a(), &credential_row("crd_1")).await).await;
    })
    .await;
}

#[tokio::test]
async fn what_connections_share_is_there_once_and_stays_until_the_last_leaves_it() {
    in_a_house(async |store| {
        keep(&store).await;
        let bot = |id: &str| CredentialRow {
            kind: "bot".to_owned(),
            owner_kind: "tenant".to_owned(),
            owner_id: A.to_owned(),
            shared_as: Some("T1".to_owned()),
            ..credential_row(id)
        };
        let client = bot("").integration_id.expect("a client");
        let shared = async |tx: &mut Tx, scope: &TenantScope, kind: &str, shared_as: &str| {
            let found = credential_shared_lock(tx, scope, (&client, kind), shared_as).await;
            found.unwrap().map(|row| row.id)
        };
        let mut tx = store.begin().await.unwrap();
        credential_insert(&mut tx, &a(), &bot("crd_2")).await.unwrap();
        assert_eq!(load(&mut tx, "crd_2").await, bot("crd_2"));
        tx.commit().await.unwrap();
        assert_conflict(&store, async |tx| credential_insert(tx, &a(), &bot("crd_3")).await).await;

        let mut tx = store.begin().await.unwrap();
        let revision = integration_by_id(&mut tx, &a(), &client).await.unwrap().expect("one").revision;
        let granted = ClientOf { tenant: A, integration: &client, revision };
        let uses = async |tx: &mut Tx, granted: ClientOf<'_>, shared: (&str, &str), besides: Option<&str>| {
            credential_shared_uses(tx, TEST, granted, shared, besides).await.unwrap()
        };
        assert_eq!(uses(&mut tx, granted, ("bot", "T1"), None).await, 1);
        assert_eq!(uses(&mut tx, granted, ("bot", "T1"), Some("crd_2")).await, 0, "itself");
        assert_eq!(uses(&mut tx, granted, ("bot", "T1"), Some("crd_1")).await, 1);
        assert_eq!(uses(&mut tx, granted, ("bot", "T2"), None).await, 0);
        assert_eq!(uses(&mut tx, ClientOf { tenant: B, ..granted }, ("bot", "T1"), None).await, 0);
        assert_eq!(shared(&mut tx, &a(), "bot", "T1").await.as_deref(), Some("crd_2"));
        for (scope, kind, shared_as) in [(a(), "user", "T1"), (a(), "bot", "T2"), (b(), "bot", "T1")] {
            assert_eq!(shared(&mut tx, &scope, kind, shared_as).await, None, "{kind} {shared_as}");
        }
        connection_insert(&mut tx, &a(), &connection_row("con_2", Some(OTHER))).await.unwrap();
        for connection in ["con_1", "con_2"] {
            connection_use_credential(&mut tx, &a(), connection, "crd_2", "bot").await.unwrap();
        }
        connection_leave_credential(&mut tx, &b(), "con_1", "crd_2").await.unwrap();
        assert_eq!(credential_other_uses(&mut tx, &a(), "crd_2", "con_2").await.unwrap(), 1, "of another tenant");
        connection_leave_credential(&mut tx, &a(), "con_1", "crd_2").await.unwrap();
        assert_eq!(credential_other_uses(&mut tx, &a(), "crd_2", "con_2").await.unwrap(), 0);
        assert_eq!(credentials_of_connection(&mut tx, &a(), "con_1").await.unwrap(), [credential_row("crd_1")]);
        assert!(credential_delete(&mut tx, &a(), "crd_2", NOW).await.unwrap());
        assert_eq!(shared(&mut tx, &a(), "bot", "T1").await, None);
        credential_insert(&mut tx, &a(), &bot("crd_3")).await.unwrap();
        assert_eq!(shared(&mut tx, &a(), "bot", "T1").await.as_deref(), Some("crd_3"));
    })
    .await;
}

#[tokio::test]
async fn a_read_is_told_at_once_what_connection_and_integration_say_about_lending() {
    in_a_house(async |store| {
        keep(&store).await;
        let mut tx = store.begin().await.unwrap();
        let bot = CredentialRow { kind: "bot".to_owned(), integration_id: None, ..credential_row("crd_2") };
        credential_insert(&mut tx, &a(), &bot).await.unwrap();
        connection_use_credential(&mut tx, &a(), "con_1", "crd_2", "bot").await.unwrap();
        connection_touch(&mut tx, &a(), "con_1", NOW).await.unwrap();
        let client = credential_row("crd_1").integration_id.expect("a client");
        integration_pause(&mut tx, TEST, (A, &client), NOW, "invalid_client", NOW).await.unwrap();
        let seen = |credential, integration_status| ReadableRow {
            credential,
            connection_user_id: Some(USER.to_owned()),
            connection_status: "active".to_owned(),
            connection_reason: None,
            connection_last_used_at: Some(NOW),
            integration_status,
        };
        let user = seen(credential_row("crd_1"), Some("misconfigured".to_owned()));
        let rows = credentials_readable(&mut tx, &a(), "con_1").await.unwrap();
        assert_eq!(rows, [user.clone(), seen(bot, None)], "user before bot");
        assert_eq!(credentials_readable(&mut tx, &user_scope(A, USER), "con_1").await.unwrap()[0], user);
        assert_eq!(credentials_readable(&mut tx, &user_scope(A, OTHER), "con_1").await.unwrap(), []);
        assert_eq!(credentials_readable(&mut tx, &b(), "con_1").await.unwrap(), []);
        assert!(credential_delete(&mut tx, &a(), "crd_1", NOW).await.unwrap());
        assert_eq!(credentials_readable(&mut tx, &a(), "con_1").await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_deleted_credential_keeps_no_token_and_is_gone() {
    in_a_house(async |store| {
        keep(&store).await;
        let mut tx = store.begin().await.unwrap();
        assert!(!credential_delete(&mut tx, &b(), "crd_1", NOW).await.unwrap());
        let there = credential_load_even_deleted(&mut tx, TEST, &name_of("crd_1")).await.unwrap();
        assert_eq!(there, credential_load(&mut tx, TEST, &name_of("crd_1")).await.unwrap(), "not yet");
        assert!(credential_delete(&mut tx, &a(), "crd_1", NOW).await.unwrap());
        let left = credential_load_even_deleted(&mut tx, TEST, &name_of("crd_1")).await.unwrap().expect("the row");
        assert_eq!((left.provider.as_str(), left.access_token, left.refresh_token), ("google", None, None));
        assert!(!credential_delete(&mut tx, &a(), "crd_1", NOW).await.unwrap(), "once");
        assert_eq!(credential_load(&mut tx, TEST, &name_of("crd_1")).await.unwrap(), None);
        assert!(credentials_of_connection(&mut tx, &a(), "con_1").await.unwrap().is_empty());
        let tokens = crate::store::sql!(
            tx,
            one (i64,),
            "SELECT count(*) FROM credentials WHERE tenant_id = $1 AND (access_token IS NOT NULL OR refresh_token IS NOT NULL OR due_at IS NOT NULL)",
            A
        );
        assert_eq!(tokens.unwrap().0, 0);
    })
    .await;
}

/// What a consent has brought, in place of the first generation.
fn brought() -> NewTokens {
    NewTokens {
        generation: 1,
        access_token: vec![1],
        refresh_token: None,
        token_type: "bearer".to_owned(),
        scopes: "[]".to_owned(),
        obtained_at: NOW + 5,
        expires_at: None,
        refresh_expires_at: None,
        due_at: None,
    }
}

#[tokio::test]
async fn a_new_consent_replaces_everything_and_leaves_flights_behind() {
    in_a_house(async |store| {
        keep(&store).await;
        let mut tx = store.begin().await.unwrap();
        let new = NewTokens { refresh_expires_at: Some(NOW + 9), ..brought() };
        let stale = NewTokens { generation: 0, ..new.clone() };
        assert!(!credential_replace(&mut tx, &a(), "crd_1", None, &stale).await.unwrap(), "the row moved on");
        assert!(!credential_replace(&mut tx, &b(), "crd_1", None, &new).await.unwrap());
        assert!(credential_replace(&mut tx, &a(), "crd_1", None, &new).await.unwrap());
        let wanted = CredentialRow {
            integration_id: None,
            access_token: Some(vec![1]),
            refresh_token: None,
            token_type: "bearer".to_owned(),
            scopes: "[]".to_owned(),
            obtained_at: NOW + 5,
            expires_at: None,
            refresh_expires_at: Some(NOW + 9),
            due_at: None,
            generation: 2,
            fence: 1,
            consents: 2,
            ..credential_row("crd_1")
        };
        assert_eq!(load(&mut tx, "crd_1").await, wanted);
    })
    .await;
}

#[tokio::test]
async fn what_comes_beside_a_refresh_token_that_stays_changes_nothing_of_its_fate() {
    in_a_house(async |store| {
        keep(&store).await;
        let mut tx = store.begin().await.unwrap();
        let before = load(&mut tx, "crd_1").await;
        let new = NewTokens { expires_at: Some(NOW + 7), due_at: Some(NOW + 6), ..brought() };
        let stale = NewTokens { generation: 0, ..new.clone() };
        assert!(!credential_refill(&mut tx, &a(), "crd_1", &stale).await.unwrap(), "the row moved on");
        assert!(!credential_refill(&mut tx, &b(), "crd_1", &new).await.unwrap());
        assert!(credential_refill(&mut tx, &a(), "crd_1", &new).await.unwrap());
        let wanted = CredentialRow {
            access_token: Some(vec![1]),
            token_type: "bearer".to_owned(),
            scopes: "[]".to_owned(),
            obtained_at: NOW + 5,
            expires_at: Some(NOW + 7),
            due_at: Some(NOW + 6),
            ..before
        };
        assert_eq!(load(&mut tx, "crd_1").await, wanted);
        for (reason, goes_on) in [("invalid_grant", false), ("rotation_response_lost", true)] {
            let marked = crate::store::sql!(
                tx,
                execute,
                "UPDATE credentials SET status = 'needs_reauth', reason = $1, last_error = $1, last_error_at = 9 WHERE id = 'crd_1'",
                reason
            );
            assert_eq!(marked.unwrap(), 1);
            let before = load(&mut tx, "crd_1").await;
            assert_eq!(credential_refill(&mut tx, &a(), "crd_1", &new).await.unwrap(), goes_on, "{reason}");
            assert_eq!(load(&mut tx, "crd_1").await, before, "as lost as it was");
        }
    })
    .await;
}

#[tokio::test]
async fn whoever_replaces_a_credential_meets_no_other_change_on_the_way() {
    in_a_house(async |store| {
        keep(&store).await;
        let replaced = race(&store, async |tx, _| {
            let row = credentials_of_connection_lock(tx, &a(), "con_1").await?.remove(0);
            let new = NewTokens { generation: row.generation, ..brought() };
            credential_replace(tx, &a(), "crd_1", None, &new).await
        });
        assert_eq!(replaced.await, [true; CALLERS]);
        let mut tx = store.begin().await.unwrap();
        assert_eq!(load(&mut tx, "crd_1").await.generation, 1 + i64::try_from(CALLERS).unwrap());
        assert!(credentials_of_connection_lock(&mut tx, &b(), "con_1").await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_changed_client_pauses_every_credential_of_its_integration() {
    in_a_house(async |store| {
        keep(&store).await;
        let mut tx = store.begin().await.unwrap();
        let own = CredentialRow { integration_id: None, ..credential_row("crd_2") };
        credential_insert(&mut tx, &a(), &own).await.unwrap();
        let integration = format!("int_{A}");
        assert_eq!(credentials_of_integration_pause(&mut tx, &b(), &integration, "x").await.unwrap(), 0);
        assert_eq!(credentials_of_integration_pause(&mut tx, &a(), &integration, "client_changed").await.unwrap(), 1);
        let wanted = CredentialRow {
            status: "misconfigured".to_owned(),
            reason: Some("client_changed".to_owned()),
            due_at: None,
            fence: 1,
            ..credential_row("crd_1")
        };
        assert_eq!(load(&mut tx, "crd_1").await, wanted);
        assert_eq!(load(&mut tx, "crd_2").await.status, "active");
    })
    .await;
}
