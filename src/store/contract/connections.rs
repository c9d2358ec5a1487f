//! Connections and which credentials they use.

use super::*;
use crate::store::connections::{
    ConnectionFilter, account_uses, connection_by_account, connection_by_id, connection_clear_default,
    connection_delete, connection_list, connection_rename, connection_touch, connection_update,
    connections_of_credential_heal, connections_of_credential_mark, connections_of_integration_mark,
    credential_account, credential_consent_uses, credential_other_uses,
};
use crate::store::credentials::credentials_of_connection;
use crate::store::integrations::{ClientOf, integration_by_provider, integration_update};
use crate::store::refresh_rows::credential_needs_reauth;

const ALL: ConnectionFilter<'_> = ConnectionFilter { user: None, provider: None, status: None, after: "", limit: 50 };

async fn fill(store: &Store) {
    let mut tx = store.begin().await.unwrap();
    for (id, user) in [("con_1", Some(USER)), ("con_2", Some(OTHER)), ("con_3", None)] {
        connection_insert(&mut tx, &a(), &connection_row(id, user)).await.unwrap();
    }
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_connection_is_seen_by_its_tenant_and_by_its_user_only() {
    in_a_house(async |store| {
        fill(&store).await;
        let mut tx = store.read().await.unwrap();
        for scope in [a(), user_scope(A, USER)] {
            let found = connection_by_id(&mut tx, &scope, "con_1").await.unwrap();
            assert_eq!(found, Some(connection_row("con_1", Some(USER))));
        }
        for scope in [b(), user_scope(A, OTHER), user_scope(B, USER)] {
            assert_eq!(connection_by_id(&mut tx, &scope, "con_1").await.unwrap(), None);
        }
        let own = user_scope(A, USER);
        assert_eq!(connection_by_id(&mut tx, &own, "con_3").await.unwrap(), None, "the tenant's own is nobody's");
        assert_eq!(ids(&connection_list(&mut tx, &own, ALL).await.unwrap(), |row| &row.id), ["con_1"]);
        let sly = ConnectionFilter { user: Some(OTHER), ..ALL };
        assert!(connection_list(&mut tx, &own, sly).await.unwrap().is_empty(), "a filter widens nothing");
        assert!(connection_list(&mut tx, &b(), ALL).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn lists_are_narrowed_by_every_filter_and_paged_by_id() {
    in_a_house(async |store| {
        fill(&store).await;
        let mut tx = store.begin().await.unwrap();
        let odd = ConnectionRow {
            provider: "slack".to_owned(),
            status: "awaiting_start".to_owned(),
            ..connection_row("con_4", Some(USER))
        };
        connection_insert(&mut tx, &a(), &odd).await.unwrap();
        for (filter, wanted) in [
            (ALL, &["con_1", "con_2", "con_3", "con_4"][..]),
            (ConnectionFilter { user: Some(USER), ..ALL }, &["con_1", "con_4"]),
            (ConnectionFilter { provider: Some("slack"), ..ALL }, &["con_4"]),
            (ConnectionFilter { status: Some("active"), ..ALL }, &["con_1", "con_2", "con_3"]),
            (ConnectionFilter { after: "con_2", limit: 1, ..ALL }, &["con_3"]),
        ] {
            assert_eq!(ids(&connection_list(&mut tx, &a(), filter).await.unwrap(), |row| &row.id), wanted);
        }
    })
    .await;
}

#[tokio::test]
async fn an_account_is_connected_once_per_user_and_again_after_a_disconnect() {
    in_a_house(async |store| {
        fill(&store).await;
        for (id, user) in [("con_1", Some(USER)), ("con_3", None)] {
            let account = format!("account of {id}");
            let twin = ConnectionRow { account_id: account.clone(), ..connection_row("con_9", user) };
            assert_conflict(&store, async |tx| connection_insert(tx, &a(), &twin).await).await;
            let mut tx = store.begin().await.unwrap();
            let found = connection_by_account(&mut tx, &a(), user, "google", &account).await.unwrap();
            assert_eq!(found.map(|row| row.id), Some(id.to_owned()));
            for (scope, user, provider) in [(b(), user, "google"), (a(), Some(OTHER), "google"), (a(), user, "slack")] {
                assert_eq!(connection_by_account(&mut tx, &scope, user, provider, &account).await.unwrap(), None);
            }
            assert!(connection_delete(&mut tx, &a(), id, NOW + 1).await.unwrap());
            assert_eq!(connection_by_account(&mut tx, &a(), user, "google", &account).await.unwrap(), None);
            connection_insert(&mut tx, &a(), &ConnectionRow { id: format!("{id}b"), ..twin }).await.unwrap();
            tx.commit().await.unwrap();
        }
        let mut tx = store.begin().await.unwrap();
        let shared =
            ConnectionRow { account_id: "account of con_1".to_owned(), ..connection_row("con_8", Some(OTHER)) };
        connection_insert(&mut tx, &a(), &shared).await.expect("another user may connect the same account");
    })
    .await;
}

#[tokio::test]
async fn a_changed_connection_keeps_its_user_its_provider_and_what_people_chose() {
    in_a_house(async |store| {
        fill(&store).await;
        let mut tx = store.begin().await.unwrap();
        let changed = ConnectionRow {
            integration_id: None,
            account_id: "another".to_owned(),
            account: None,
            target: Some(bytes()),
            status: "quarantined".to_owned(),
            reason: Some("identity_changed".to_owned()),
            asked_scopes: "{}".to_owned(),
            updated_at: NOW + 4,
            ..connection_row("con_1", Some(USER))
        };
        let before = connection_by_id(&mut tx, &a(), "con_1").await.unwrap();
        connection_update(&mut tx, &b(), &changed).await.unwrap();
        assert_eq!(connection_by_id(&mut tx, &a(), "con_1").await.unwrap(), before);
        // Whoever read the connection before somebody renamed it gives it back with what it was called.
        let outdated = ConnectionRow { label: "outdated".to_owned(), is_default: 0, ..changed.clone() };
        connection_update(&mut tx, &a(), &outdated).await.unwrap();
        assert_eq!(connection_by_id(&mut tx, &a(), "con_1").await.unwrap(), Some(changed));
    })
    .await;
}

#[tokio::test]
async fn a_new_label_leaves_alone_what_a_refresh_may_be_writing() {
    in_a_house(async |store| {
        fill(&store).await;
        let mut tx = store.begin().await.unwrap();
        let troubled = ConnectionRow {
            status: "quarantined".to_owned(),
            reason: Some("identity_changed".to_owned()),
            ..connection_by_id(&mut tx, &a(), "con_1").await.unwrap().unwrap()
        };
        connection_update(&mut tx, &a(), &troubled).await.unwrap();
        connection_rename(&mut tx, &b(), "con_1", ("theirs", 1), NOW + 4).await.unwrap();
        assert_eq!(connection_by_id(&mut tx, &a(), "con_1").await.unwrap().unwrap().label, "");
        connection_rename(&mut tx, &a(), "con_1", ("work ü", 0), NOW + 4).await.unwrap();
        let renamed = ConnectionRow { label: "work ü".to_owned(), is_default: 0, updated_at: NOW + 4, ..troubled };
        assert_eq!(connection_by_id(&mut tx, &a(), "con_1").await.unwrap(), Some(renamed));
    })
    .await;
}

#[tokio::test]
async fn a_new_default_takes_the_mark_from_the_same_users_others_only() {
    in_a_house(async |store| {
        fill(&store).await;
        let mut tx = store.begin().await.unwrap();
        connection_clear_default(&mut tx, &b(), Some(USER), "google").await.unwrap();
        connection_clear_default(&mut tx, &a(), Some(USER), "slack").await.unwrap();
        connection_clear_default(&mut tx, &a(), Some(USER), "google").await.unwrap();
        let marks: Vec<i64> =
            connection_list(&mut tx, &a(), ALL).await.unwrap().iter().map(|row| row.is_default).collect();
        assert_eq!(marks, [0, 1, 1]);
        connection_clear_default(&mut tx, &a(), None, "google").await.unwrap();
        let marks: Vec<i64> =
            connection_list(&mut tx, &a(), ALL).await.unwrap().iter().map(|row| row.is_default).collect();
        assert_eq!(marks, [0, 1, 0]);
    })
    .await;
}

#[tokio::test]
async fn the_use_of_a_connection_is_noted_at_most_every_ten_seconds() {
    in_a_house(async |store| {
        fill(&store).await;
        let mut tx = store.begin().await.unwrap();
        for (now, noted) in [(NOW, NOW), (NOW + 10_000, NOW), (NOW + 10_001, NOW + 10_001)] {
            connection_touch(&mut tx, &b(), "con_1", now + 500_000).await.unwrap();
            connection_touch(&mut tx, &a(), "con_1", now).await.unwrap();
            assert_eq!(connection_by_id(&mut tx, &a(), "con_1").await.unwrap().unwrap().last_used_at, Some(noted));
        }
    })
    .await;
}

#[tokio::test]
async fn a_deleted_connection_forgets_whose_account_it_was() {
    in_a_house(async |store| {
        fill(&store).await;
        let mut tx = store.begin().await.unwrap();
        for scope in [b(), user_scope(A, OTHER)] {
            assert!(!connection_delete(&mut tx, &scope, "con_1", NOW).await.unwrap(), "not theirs");
        }
        assert!(connection_delete(&mut tx, &user_scope(A, USER), "con_1", NOW + 1).await.unwrap());
        assert!(!connection_delete(&mut tx, &a(), "con_1", NOW + 2).await.unwrap(), "once");
        assert_eq!(connection_by_id(&mut tx, &a(), "con_1").await.unwrap(), None);
        assert_eq!(ids(&connection_list(&mut tx, &a(), ALL).await.unwrap(), |row| &row.id), ["con_2", "con_3"]);
        let known = crate::store::sql!(
            tx,
            one (i64,),
            "SELECT count(*) FROM connections WHERE tenant_id = $1 AND id = 'con_1' AND (account IS NOT NULL OR target IS NOT NULL)",
            A
        );
        assert_eq!(known.unwrap().0, 0);
    })
    .await;
}

async fn status(tx: &mut Tx, id: &str) -> (String, Option<String>) {
    let row = connection_by_id(tx, &a(), id).await.unwrap().unwrap();
    (row.status, row.reason)
}

#[tokio::test]
async fn a_credentials_fate_reaches_its_connections_but_not_those_that_wait_for_a_person() {
    const LOST: &str = "rotation_response_lost";
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        connect(&mut tx, "con_1", "crd_1").await;
        connect(&mut tx, "con_2", "crd_2").await;
        for (id, state) in [("con_3", "quarantined"), ("con_4", "awaiting_start"), ("con_5", "active")] {
            let row = ConnectionRow { status: state.to_owned(), ..connection_row(id, Some(USER)) };
            connection_insert(&mut tx, &a(), &row).await.unwrap();
            connection_use_credential(&mut tx, &a(), id, "crd_1", "user").await.unwrap();
        }
        assert!(connection_delete(&mut tx, &a(), "con_5", NOW).await.unwrap());
        let mark = connections_of_credential_mark(&mut tx, TEST, B, "crd_1", "needs_reauth", Some("x"), NOW + 1).await;
        assert_eq!(mark.unwrap(), 0);
        let mark = connections_of_credential_mark(&mut tx, TEST, A, "crd_1", "needs_reauth", Some("x"), NOW + 1).await;
        assert_eq!(mark.unwrap(), 1);
        assert_eq!(status(&mut tx, "con_1").await, ("needs_reauth".to_owned(), Some("x".to_owned())));
        assert_eq!(status(&mut tx, "con_2").await, ("active".to_owned(), None));
        assert_eq!(status(&mut tx, "con_3").await.0, "quarantined");
        assert_eq!(status(&mut tx, "con_4").await.0, "awaiting_start");
        assert_eq!(
            connections_of_credential_heal(&mut tx, TEST, (A, "crd_1"), LOST, NOW + 2).await.unwrap(),
            0,
            "not its reason"
        );
        connections_of_credential_mark(&mut tx, TEST, A, "crd_1", "needs_reauth", Some(LOST), NOW + 2).await.unwrap();
        assert_eq!(connections_of_credential_heal(&mut tx, TEST, (B, "crd_1"), LOST, NOW + 2).await.unwrap(), 0);
        assert_eq!(connections_of_credential_heal(&mut tx, TEST, (A, "crd_1"), LOST, NOW + 2).await.unwrap(), 1);
        assert_eq!(status(&mut tx, "con_1").await, ("active".to_owned(), None));
        assert_eq!(status(&mut tx, "con_3").await.0, "quarantined");

        connection_use_credential(&mut tx, &a(), "con_1", "crd_2", "bot").await.unwrap();
        for (credential, reason) in [("crd_2", "y"), ("crd_1", LOST)] {
            let name = name_of(credential);
            assert!(credential_needs_reauth(&mut tx, TEST, &name, 1, 0, reason, NOW + 3).await.unwrap());
            let mark = Some(reason);
            connections_of_credential_mark(&mut tx, TEST, A, credential, "needs_reauth", mark, NOW + 3).await.unwrap();
        }
        connections_of_credential_heal(&mut tx, TEST, (A, "crd_1"), LOST, NOW + 4).await.unwrap();
        let wanted = ("needs_reauth".to_owned(), Some("y".to_owned()));
        assert_eq!(status(&mut tx, "con_1").await, wanted, "its other credential needs its user still");
    })
    .await;
}

#[tokio::test]
async fn an_integrations_fate_reaches_all_its_connections() {
    in_a_house(async |store| {
        fill(&store).await;
        let mut tx = store.begin().await.unwrap();
        let own = ConnectionRow { integration_id: None, ..connection_row("con_4", Some(USER)) };
        connection_insert(&mut tx, &a(), &own).await.unwrap();
        let integration = format!("int_{A}");
        let marked = connections_of_integration_mark(&mut tx, &b(), &integration, "misconfigured", "x", NOW + 1).await;
        assert_eq!(marked.unwrap(), 0);
        let marked = connections_of_integration_mark(&mut tx, &a(), &integration, "misconfigured", "x", NOW + 1).await;
        assert_eq!(marked.unwrap(), 3);
        assert_eq!(status(&mut tx, "con_2").await, ("misconfigured".to_owned(), Some("x".to_owned())));
        assert_eq!(status(&mut tx, "con_4").await, ("active".to_owned(), None));
    })
    .await;
}

#[tokio::test]
async fn a_consent_is_used_by_every_connection_of_its_account_that_works() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        connect(&mut tx, "con_1", "crd_1").await;
        let same = |id: &str, user: &str| ConnectionRow {
            account_id: "account of con_1".to_owned(),
            ..connection_row(id, Some(user))
        };
        let google = integration_by_provider(&mut tx, &a(), "google").await.unwrap().expect("one");
        let at = |revision: i64| ClientOf { tenant: A, integration: &google.id, revision };
        let uses = async |tx: &mut Tx| credential_consent_uses(tx, TEST, at(google.revision), "crd_1").await.unwrap();
        let of_account = async |tx: &mut Tx, revision: i64, account: &str| {
            account_uses(tx, TEST, at(revision), ("google", account)).await.unwrap()
        };
        assert_eq!(of_account(&mut tx, google.revision, "account of con_1").await, 1, "its own");
        assert_eq!(of_account(&mut tx, google.revision, "nobody's").await, 0);
        connection_insert(&mut tx, &a(), &connection_row("con_2", Some(OTHER))).await.unwrap();
        assert_eq!(uses(&mut tx).await, 0, "another account's");
        let by_hand = ConnectionRow { integration_id: None, ..same("con_3", OTHER) };
        connection_insert(&mut tx, &a(), &by_hand).await.unwrap();
        assert_eq!(uses(&mut tx).await, 0, "not by this client");
        assert!(connection_delete(&mut tx, &a(), "con_3", NOW).await.unwrap());
        connection_insert(&mut tx, &a(), &same("con_4", OTHER)).await.unwrap();
        assert_eq!(uses(&mut tx).await, 1);
        let other = ClientOf { tenant: B, ..at(google.revision) };
        assert_eq!(credential_consent_uses(&mut tx, TEST, other, "crd_1").await.unwrap(), 0);
        assert!(connection_delete(&mut tx, &a(), "con_1", NOW).await.unwrap());
        assert_eq!(uses(&mut tx).await, 1, "of a late answer's, too");
        for status in ["needs_reauth", "misconfigured"] {
            let ended = ConnectionRow { status: status.to_owned(), ..same("con_4", OTHER) };
            connection_update(&mut tx, &a(), &ended).await.unwrap();
            assert_eq!(uses(&mut tx).await, 0, "{status}");
            assert_eq!(of_account(&mut tx, google.revision, "account of con_1").await, 0, "{status}");
        }
    })
    .await;
}

#[tokio::test]
async fn whoever_has_had_the_client_of_a_grant_lives_on_it_and_whoever_has_the_next_does_not() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        connect(&mut tx, "con_1", "crd_1").await;
        let mine = integration_by_provider(&mut tx, &a(), "google").await.unwrap().expect("one");
        let of = async |tx: &mut Tx, revision: i64| {
            let client = ClientOf { tenant: A, integration: &mine.id, revision };
            account_uses(tx, TEST, client, ("google", "account of con_1")).await.unwrap() > 0
        };
        let saved =
            |revision: i64, client: &str| IntegrationRow { revision, client: client.to_owned(), ..mine.clone() };
        integration_update(&mut tx, &a(), &saved(mine.revision, "with another secret")).await.unwrap();
        assert!(of(&mut tx, mine.revision).await, "a new secret ends nothing");
        integration_update(&mut tx, &a(), &saved(mine.revision + 1, "another")).await.unwrap();
        assert!(of(&mut tx, mine.revision + 1).await, "it is connected there now");
        assert!(!of(&mut tx, mine.revision).await && !of(&mut tx, 0).await, "nobody has the former client any more");
        integration_update(&mut tx, &a(), &saved(mine.revision + 2, "with another secret")).await.unwrap();
        assert!(of(&mut tx, mine.revision).await && of(&mut tx, 0).await, "somebody has it again");
        assert!(!of(&mut tx, mine.revision + 1).await);
    })
    .await;
}

#[tokio::test]
async fn a_connection_uses_one_credential_of_each_kind_and_they_can_be_shared() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        connect(&mut tx, "con_1", "crd_1").await;
        connect(&mut tx, "con_2", "crd_2").await;
        assert_eq!(credential_account(&mut tx, TEST, A, "crd_1").await.unwrap().as_deref(), Some("account of con_1"));
        assert_eq!(credential_account(&mut tx, TEST, B, "crd_1").await.unwrap(), None);
        assert_eq!(credential_other_uses(&mut tx, &a(), "crd_1", "con_1").await.unwrap(), 0);

        connection_use_credential(&mut tx, &a(), "con_2", "crd_1", "user").await.unwrap();
        let used = credentials_of_connection(&mut tx, &a(), "con_2").await.unwrap();
        assert_eq!(ids(&used, |row| &row.id), ["crd_1"], "in place of the one it had");
        assert_eq!(credential_other_uses(&mut tx, &a(), "crd_1", "con_1").await.unwrap(), 1);
        assert_eq!(credential_other_uses(&mut tx, &b(), "crd_1", "con_1").await.unwrap(), 0);
        assert!(connection_delete(&mut tx, &a(), "con_2", NOW).await.unwrap());
        assert_eq!(credential_other_uses(&mut tx, &a(), "crd_1", "con_1").await.unwrap(), 0, "the dead use nothing");
    })
    .await;
}
