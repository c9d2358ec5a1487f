//! What providers tell on their own: heard once, about the right connections, and destroyed where it says so.

use super::*;
use crate::store::connections::{connection_by_id, connections_of_account};
use crate::store::integrations::integration_delete;
use crate::store::notices::{
    connection_change_status, connections_below, credential_change_reason, credential_look_into, credential_lose,
    integration_give_secret, integration_of_notices, integration_take_secret, notice_put, notices_delete_old,
};
use crate::store::sql;

#[tokio::test]
async fn an_integration_is_found_by_its_address_whosever_it_is() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        let (ours, theirs) = (format!("int_{A}"), format!("int_{B}"));
        for (id, tenant) in [(&ours, A), (&theirs, B)] {
            let found = integration_of_notices(&mut tx, TEST, id, "google").await.unwrap().expect("found");
            assert_eq!((found.tenant_id.as_str(), &found.id), (tenant, id));
        }
        assert!(integration_of_notices(&mut tx, TEST, &ours, "slack").await.unwrap().is_none());
        assert!(integration_delete(&mut tx, &a(), &ours, NOW).await.unwrap());
        assert!(integration_of_notices(&mut tx, TEST, &ours, "google").await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn of_many_deliveries_one_is_new_and_old_ones_are_forgotten() {
    in_a_house(async |store| {
        let ours = format!("int_{A}");
        let heard = race(&store, async |tx, _| notice_put(tx, &a(), &ours, "Ev1", NOW).await).await;
        assert_eq!(heard.iter().filter(|new| **new).count(), 1);
        let mut tx = store.begin().await.unwrap();
        assert!(notice_put(&mut tx, &a(), &ours, "Ev2", NOW + 1).await.unwrap());
        assert!(notice_put(&mut tx, &b(), &format!("int_{B}"), "Ev1", NOW + 1).await.unwrap(), "another's");
        assert_eq!(notices_delete_old(&mut tx, TEST, NOW + 1).await.unwrap(), 1);
        assert!(notice_put(&mut tx, &a(), &ours, "Ev1", NOW + 2).await.unwrap());
        assert!(!notice_put(&mut tx, &a(), &ours, "Ev2", NOW + 2).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn an_account_has_all_its_connections_and_a_workspace_all_below_it() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        let slack = integration_row("int_slack", "slack");
        integration_insert(&mut tx, &a(), &slack).await.unwrap();
        let connections = [
            ("con_1", Some(USER), "T1/U1", true),
            ("con_2", Some(OTHER), "T1/U1", true),
            ("con_3", Some(USER), "T1/U2", true),
            ("con_4", Some(USER), "T11/U1", true),
            ("con_5", Some(USER), "t1/U1", true),
            ("con_6", Some(USER), "T1/U3", false),
        ];
        for (id, user, account, through_it) in connections {
            let row = ConnectionRow {
                provider: "slack".to_owned(),
                integration_id: through_it.then(|| slack.id.clone()),
                account_id: account.to_owned(),
                ..connection_row(id, user)
            };
            connection_insert(&mut tx, &a(), &row).await.unwrap();
        }
        let id = |row: &ConnectionRow| row.id.clone();
        let of = connections_of_account(&mut tx, &a(), &slack, "T1/U1").await.unwrap();
        assert_eq!(of.iter().map(id).collect::<Vec<_>>(), ["con_1", "con_2"]);
        let below = connections_below(&mut tx, &a(), &slack, "T1/").await.unwrap();
        assert_eq!(below.iter().map(id).collect::<Vec<_>>(), ["con_1", "con_2", "con_3"]);
        assert!(connections_below(&mut tx, &a(), &slack, "%/").await.unwrap().is_empty());
        for theirs in [
            connections_of_account(&mut tx, &b(), &slack, "T1/U1").await.unwrap(),
            connections_below(&mut tx, &b(), &slack, "T1/").await.unwrap(),
        ] {
            assert!(theirs.is_empty());
        }
    })
    .await;
}

#[tokio::test]
async fn what_its_provider_has_ended_keeps_no_token_unless_it_is_newer() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        connect(&mut tx, "con_1", "crd_1").await;
        let reason = "revoked_at_provider";
        assert!(!credential_lose(&mut tx, &a(), "crd_1", (reason, NOW - 1), NOW + 9).await.unwrap(), "a newer consent");
        assert!(!credential_lose(&mut tx, &b(), "crd_1", (reason, NOW), NOW + 9).await.unwrap());
        assert_eq!(load(&mut tx, "crd_1").await, credential_row("crd_1"));
        assert!(credential_lose(&mut tx, &a(), "crd_1", (reason, NOW), NOW + 9).await.unwrap());
        let wanted = CredentialRow {
            access_token: None,
            refresh_token: None,
            expires_at: Some(NOW + 9),
            due_at: None,
            generation: 2,
            fence: 1,
            consents: 2,
            status: "needs_reauth".to_owned(),
            reason: Some(reason.to_owned()),
            last_error: Some(reason.to_owned()),
            last_error_at: Some(NOW + 9),
            ..credential_row("crd_1")
        };
        assert_eq!(load(&mut tx, "crd_1").await, wanted);
        assert!(!credential_lose(&mut tx, &a(), "crd_1", (reason, NOW), NOW + 10).await.unwrap(), "once");
        for (id, ends, left) in [("crd_2", None, NOW + 9), ("crd_3", Some(NOW + 3), NOW + 3)] {
            credential_insert(&mut tx, &a(), &CredentialRow { expires_at: ends, ..credential_row(id) }).await.unwrap();
            assert!(credential_lose(&mut tx, &a(), id, (reason, NOW), NOW + 9).await.unwrap());
            assert_eq!(load(&mut tx, id).await.expires_at, Some(left), "what never ended has ended, too");
        }
    })
    .await;
}

#[tokio::test]
async fn what_may_have_ended_is_lent_no_more_and_is_due_at_once() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        connect(&mut tx, "con_1", "crd_1").await;
        assert!(!credential_look_into(&mut tx, &a(), "crd_1", NOW - 1, NOW + 9).await.unwrap(), "a newer consent");
        assert!(!credential_look_into(&mut tx, &b(), "crd_1", NOW, NOW + 9).await.unwrap());
        assert_eq!(load(&mut tx, "crd_1").await, credential_row("crd_1"));
        assert!(credential_look_into(&mut tx, &a(), "crd_1", NOW, NOW + 9).await.unwrap());
        let soon = CredentialRow { expires_at: Some(NOW + 9), due_at: Some(NOW + 9), ..credential_row("crd_1") };
        assert_eq!(load(&mut tx, "crd_1").await, soon);
        for id in ["crd_2", "crd_3", "crd_4", "crd_5"] {
            let row = CredentialRow { expires_at: Some(NOW + 3), ..credential_row(id) };
            credential_insert(&mut tx, &a(), &row).await.unwrap();
        }
        sql!(tx, execute, "UPDATE credentials SET refresh_token = NULL WHERE id = 'crd_2'").unwrap();
        sql!(tx, execute, "UPDATE credentials SET status = 'needs_reauth' WHERE id = 'crd_3'").unwrap();
        sql!(tx, execute, "UPDATE credentials SET phase = 'sent' WHERE id = 'crd_4'").unwrap();
        sql!(tx, execute, "UPDATE credentials SET doubt_since = 1 WHERE id = 'crd_5'").unwrap();
        for (id, is_looked_into) in [("crd_2", false), ("crd_3", false), ("crd_4", true), ("crd_5", true)] {
            let before = load(&mut tx, id).await;
            assert_eq!(credential_look_into(&mut tx, &a(), id, NOW, NOW + 9).await.unwrap(), is_looked_into, "{id}");
            assert_eq!(load(&mut tx, id).await, before, "what has ended has, and a flight in the air keeps its times");
        }
    })
    .await;
}

#[tokio::test]
async fn a_status_and_its_reason_are_changed_where_they_are_the_ones_expected() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        connect(&mut tx, "con_1", "crd_1").await;
        let (fresh, advised) = (("active", None), ("active", Some("advice")));
        assert!(!connection_change_status(&mut tx, &b(), "con_1", fresh, advised, NOW).await.unwrap());
        assert!(!connection_change_status(&mut tx, &a(), "con_1", ("needs_reauth", None), advised, NOW).await.unwrap());
        assert!(connection_change_status(&mut tx, &a(), "con_1", fresh, advised, NOW + 1).await.unwrap());
        assert!(!connection_change_status(&mut tx, &a(), "con_1", fresh, advised, NOW).await.unwrap());
        assert!(
            connection_change_status(&mut tx, &a(), "con_1", advised, ("needs_reauth", Some("blocked")), NOW + 2)
                .await
                .unwrap()
        );
        let row = connection_by_id(&mut tx, &a(), "con_1").await.unwrap().expect("the connection");
        assert_eq!(
            (row.status.as_str(), row.reason.as_deref(), row.updated_at),
            ("needs_reauth", Some("blocked"), NOW + 2)
        );
        assert!(
            connection_change_status(&mut tx, &a(), "con_1", ("needs_reauth", Some("blocked")), fresh, NOW + 3)
                .await
                .unwrap()
        );
        assert_eq!(connection_by_id(&mut tx, &a(), "con_1").await.unwrap().expect("the connection").reason, None);

        assert!(!credential_change_reason(&mut tx, &a(), "crd_1", ("disabled", "x")).await.unwrap(), "it works");
        assert!(credential_lose(&mut tx, &a(), "crd_1", ("disabled", NOW), NOW).await.unwrap());
        assert!(!credential_change_reason(&mut tx, &b(), "crd_1", ("disabled", "x")).await.unwrap());
        assert!(!credential_change_reason(&mut tx, &a(), "crd_1", ("other", "x")).await.unwrap());
        assert!(credential_change_reason(&mut tx, &a(), "crd_1", ("disabled", "revoked")).await.unwrap());
        assert_eq!(load(&mut tx, "crd_1").await.reason.as_deref(), Some("revoked"));
    })
    .await;
}

#[tokio::test]
async fn of_many_nodes_one_makes_the_secret_and_it_stays() {
    in_a_house(async |store| {
        let ours = format!("int_{A}");
        let made = race(&store, async |tx, n| {
            integration_give_secret(tx, &a(), &ours, format!("secret {n}").as_bytes()).await
        })
        .await;
        assert_eq!(made.iter().filter(|won| **won).count(), 1);
        let mut tx = store.begin().await.unwrap();
        let row = integration_of_notices(&mut tx, TEST, &ours, "google").await.unwrap().expect("the integration");
        assert!(row.signing_secret.is_some_and(|sealed| sealed.starts_with(b"secret ")));
        assert!(!integration_give_secret(&mut tx, &b(), &format!("int_{A}"), b"x").await.unwrap());
        integration_take_secret(&mut tx, &b(), &ours).await.unwrap();
        assert!(!integration_give_secret(&mut tx, &a(), &ours, b"x").await.unwrap(), "another tenant takes nothing");
        integration_take_secret(&mut tx, &a(), &ours).await.unwrap();
        assert!(integration_give_secret(&mut tx, &a(), &ours, b"x").await.unwrap());
    })
    .await;
}
