//! Many rows with one statement: the same rows as one at a time, in whatever number.

use super::*;
use crate::store::connections::connection_by_id;
use crate::store::credentials::credentials_of_connection;
use crate::store::imports::{
    UserKeyRow, connections_held, connections_insert, credentials_insert, user_keys_active, user_keys_insert,
    users_ensure,
};
use crate::store::keys::{
    DataKeyRow, TenantKeyRow, data_key_active, data_keys_destroy, root_key_insert, tenant_key_insert,
};
use crate::store::users::{user_by_external_id, user_by_id, user_erase};

/// More than fit into one statement.
const MANY: usize = 1_101;

#[tokio::test]
async fn of_many_users_those_who_are_there_stay_and_the_others_are_made() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        user_erase(&mut tx, &a(), OTHER, NOW).await.unwrap();
        let known = format!("ext {USER}");
        let gone = format!("ext {OTHER}");
        let names: Vec<String> = (0..MANY).map(|n| format!("new \"{n}\" ü")).collect();
        let mut wanted: Vec<(String, &str)> =
            names.iter().enumerate().map(|(n, name)| (format!("usr_new{n}"), name.as_str())).collect();
        wanted.push(("usr_never".to_owned(), &known));
        wanted.push(("usr_again".to_owned(), &gone));
        let rows = users_ensure(&mut tx, &a(), &wanted, NOW + 1).await.unwrap();
        assert_eq!(rows.len(), MANY + 2);
        let of = |name: &str| rows.iter().find(|row| row.external_id == name).expect("a row");
        assert_eq!((of(&known).id.as_str(), of(&known).created_at), (USER, NOW), "it stays as it was made");
        assert_eq!((of(&gone).id.as_str(), of(&gone).created_at), ("usr_again", NOW + 1), "the name is free again");
        assert_eq!(of(&names[MANY - 1]).id, format!("usr_new{}", MANY - 1));
        let one = user_by_external_id(&mut tx, &a(), &names[7]).await.unwrap();
        assert_eq!(one.as_ref(), Some(of(&names[7])));
        let theirs = users_ensure(&mut tx, &b(), &[("usr_b".to_owned(), &known)], NOW).await.unwrap();
        assert_eq!(
            (theirs.len(), theirs[0].id.as_str()),
            (1, "usr_b"),
            "the same name at the neighbour is another user"
        );
        assert_eq!(user_by_id(&mut tx, &a(), "usr_never").await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn of_many_who_make_the_same_users_all_get_the_same() {
    in_a_house(async |store| {
        let made = race(&store, async |tx, n| {
            let wanted: Vec<_> = ["x", "y"].map(|name| (format!("usr_{name}{n}"), name)).into();
            let mut rows = users_ensure(tx, &a(), &wanted, NOW).await?;
            rows.sort_by(|one, other| one.external_id.cmp(&other.external_id));
            Ok(rows)
        })
        .await;
        assert!(made.iter().all(|rows| rows.len() == 2 && *rows == made[0]), "{made:?}");
    })
    .await;
}

#[tokio::test]
async fn many_connections_with_their_credentials_come_back_as_they_were_written() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        let connections: Vec<ConnectionRow> = (0..MANY)
            .map(|n| match n % 3 {
                0 => connection_row(&format!("con_{n}"), Some(USER)),
                1 => ConnectionRow {
                    target: Some(vec![]),
                    label: "a \"label\" \u{1f511} \\".to_owned(),
                    is_default: 0,
                    ..connection_row(&format!("con_{n}"), Some(OTHER))
                },
                _ => ConnectionRow {
                    account: None,
                    integration_id: None,
                    status: "needs_reauth".to_owned(),
                    reason: Some("why".to_owned()),
                    ..connection_row(&format!("con_{n}"), None)
                },
            })
            .collect();
        connections_insert(&mut tx, &a(), &connections.iter().collect::<Vec<_>>()).await.unwrap();
        let mut credentials: Vec<(&str, CredentialRow)> = Vec::new();
        for (n, connection) in connections.iter().enumerate() {
            let bare = CredentialRow {
                kind: "bot".to_owned(),
                integration_id: None,
                refresh_token: None,
                expires_at: None,
                due_at: None,
                ..credential_row(&format!("crd_{n}_bot"))
            };
            let full = CredentialRow { refresh_expires_at: Some(NOW + 9), ..credential_row(&format!("crd_{n}")) };
            credentials.extend([(connection.id.as_str(), full), (connection.id.as_str(), bare)]);
        }
        let listed: Vec<_> = credentials.iter().map(|(connection, row)| (*connection, row)).collect();
        credentials_insert(&mut tx, &a(), &listed).await.unwrap();
        for n in [0, 1, 2, 499, 500, 501, MANY - 1] {
            let (id, wanted) = (&connections[n].id, &connections[n]);
            assert_eq!(connection_by_id(&mut tx, &a(), id).await.unwrap().as_ref(), Some(wanted));
            assert_eq!(connection_by_id(&mut tx, &b(), id).await.unwrap(), None);
            let of = credentials_of_connection(&mut tx, &a(), id).await.unwrap();
            assert_eq!(of, [credentials[2 * n].1.clone(), credentials[2 * n + 1].1.clone()], "user before bot");
        }
        let held = connections_held(&mut tx, &a(), &[USER, STRANGER]).await.unwrap();
        assert_eq!(held.len(), MANY.div_ceil(3));
        let first = (USER.to_owned(), "google".to_owned(), "account of con_0".to_owned());
        assert!(held.contains(&first), "{:?}", held.first());
        assert!(connections_held(&mut tx, &b(), &[USER, STRANGER]).await.unwrap().is_empty());
        tx.commit().await.unwrap();
        assert_conflict(&store, async |tx| connections_insert(tx, &a(), &[&connections[0]]).await).await;
        assert_conflict(&store, async |tx| credentials_insert(tx, &a(), &listed[..1]).await).await;
    })
    .await;
}

#[tokio::test]
async fn each_of_many_users_gets_one_key_and_nobody_whose_keys_were_destroyed() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        root_key_insert(&mut tx, TEST, "root_1", &bytes(), NOW).await.unwrap();
        let tenant_key = TenantKeyRow { id: "tky_1".to_owned(), root_key_id: "root_1".to_owned(), wrapped: bytes() };
        assert!(tenant_key_insert(&mut tx, TEST, A, &tenant_key, NOW).await.unwrap());
        let key = |user: &str, id: String| UserKeyRow {
            owner_id: user.to_owned(),
            key: DataKeyRow { id, tenant_key_id: "tky_1".to_owned(), wrapped: Some(bytes()) },
        };
        user_keys_insert(&mut tx, TEST, A, &[key("usr_erased", "dky_gone".to_owned())], NOW).await.unwrap();
        data_keys_destroy(&mut tx, TEST, A, "user", "usr_erased", NOW).await.unwrap();
        user_keys_insert(&mut tx, TEST, A, &[key(USER, "dky_first".to_owned())], NOW).await.unwrap();

        let others: Vec<String> = (0..MANY).map(|n| format!("usr_{n}x")).collect();
        let users: Vec<&str> = others.iter().map(String::as_str).chain([USER, "usr_erased"]).collect();
        let keys: Vec<_> = users.iter().map(|user| key(user, format!("dky_{user}"))).collect();
        user_keys_insert(&mut tx, TEST, A, &keys, NOW + 1).await.unwrap();
        let active = user_keys_active(&mut tx, TEST, A, &users).await.unwrap();
        assert_eq!(active.len(), MANY + 1, "all but the erased one");
        let of = |user: &str| active.iter().find(|row| row.owner_id == user).map(|row| &row.key);
        assert_eq!(of(USER).map(|key| key.id.as_str()), Some("dky_first"), "whoever has one keeps it");
        assert!(of("usr_erased").is_none());
        let one = data_key_active(&mut tx, TEST, A, "user", &others[9]).await.unwrap().expect("a key");
        assert_same(of(&others[9]).expect("a key"), &one);
        assert_eq!(one.wrapped, Some(bytes()));
        assert!(user_keys_active(&mut tx, TEST, B, &users).await.unwrap().is_empty());
    })
    .await;
}
