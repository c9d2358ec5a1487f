//! Tenants and platform keys.

use super::*;
use crate::store::api_keys::{
    ApiKeyRow, api_key_by_hash, api_key_by_id, api_key_insert, api_key_list, api_key_revoke, api_key_touch,
};
use crate::store::tenants::{
    tenant_find, tenant_hold, tenant_list, tenant_own, tenant_update_confirm, tenant_update_settings,
};
use crate::store::{from_json_list, to_json_list};

#[tokio::test]
async fn a_tenant_is_found_by_name_or_id_and_as_it_was_written() {
    in_a_house(async |store| {
        let row = tenant_row("ten_c", "Züri & Söhne");
        let mut tx = store.begin().await.unwrap();
        tenant_insert(&mut tx, TEST, &row).await.unwrap();
        tx.commit().await.unwrap();

        let mut tx = store.read().await.unwrap();
        assert_eq!(tenant_find(&mut tx, TEST, "Züri & Söhne").await.unwrap(), Some(row.clone()));
        assert_eq!(tenant_find(&mut tx, TEST, "ten_c").await.unwrap(), Some(row));
        assert_eq!(tenant_find(&mut tx, TEST, "züri & söhne").await.unwrap(), None, "names are exact");
        assert_eq!(tenant_find(&mut tx, TEST, "' OR 1=1 --").await.unwrap(), None);
        assert_eq!(tenant_own(&mut tx, &a()).await.unwrap().map(|row| row.id), Some(A.to_owned()));
    })
    .await;
}

#[tokio::test]
async fn the_list_of_tenants_is_by_name_and_leaves_the_installation_out() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        tenant_insert(&mut tx, TEST, &tenant_row("ten_0", "zzz")).await.unwrap();
        let names = ids(&tenant_list(&mut tx, TEST).await.unwrap(), |row| &row.id);
        assert_eq!(names, [A, B, "ten_0"]);
        let installation = tenant_find(&mut tx, TEST, "installation").await.unwrap();
        assert_eq!(
            installation.map(|row| row.environment),
            Some("installation".to_owned()),
            "it is there all the same"
        );
    })
    .await;
}

#[tokio::test]
async fn a_second_tenant_of_the_same_name_or_id_is_a_conflict() {
    in_a_house(async |store| {
        let taken = tenant_row("ten_c", &format!("name of {A}"));
        assert_conflict(&store, async |tx| tenant_insert(tx, TEST, &taken).await).await;
        assert_conflict(&store, async |tx| tenant_insert(tx, TEST, &tenant_row(A, "another")).await).await;
    })
    .await;
}

#[tokio::test]
async fn whoever_holds_a_tenant_sees_what_those_before_committed() {
    in_a_house(async |store| {
        race(&store, async |tx, _| {
            tenant_hold(tx, TEST, A).await?;
            let row = tenant_own(tx, &a()).await?.expect("a tenant");
            let seen: i64 = row.origins.parse().unwrap_or_default();
            tenant_update_settings(tx, &a(), "[]", &(seen + 1).to_string(), "platform").await
        })
        .await;
        let mut tx = store.read().await.unwrap();
        assert_eq!(tenant_own(&mut tx, &a()).await.unwrap().unwrap().origins, CALLERS.to_string());
    })
    .await;
}

#[tokio::test]
async fn settings_change_for_one_tenant_only() {
    in_a_house(async |store| {
        let urls = to_json_list(&["https://a.example/\"ü\"".to_owned()]);
        let mut tx = store.begin().await.unwrap();
        tenant_update_settings(&mut tx, &a(), &urls, JSON, "platform").await.unwrap();
        tenant_update_confirm(&mut tx, TEST, A, "none").await.unwrap();

        let own = tenant_own(&mut tx, &a()).await.unwrap().unwrap();
        assert_eq!(from_json_list(&own.return_urls), ["https://a.example/\"ü\""]);
        assert_eq!((own.origins.as_str(), own.confirm.as_str()), (JSON, "none"));
        let neighbour = tenant_own(&mut tx, &b()).await.unwrap().unwrap();
        assert_eq!((neighbour.return_urls.as_str(), neighbour.confirm.as_str()), (JSON, "platform"));
        assert!(tenant_update_confirm(&mut tx, TEST, A, "maybe").await.is_err(), "a checked list of words");
    })
    .await;
}

pub(super) fn key(id: &str, expires_at: Option<i64>) -> ApiKeyRow {
    ApiKeyRow {
        tenant_id: A.to_owned(),
        id: id.to_owned(),
        name: "nightly".to_owned(),
        hint: "wxyz".to_owned(),
        secret_hash: format!("hash of {id}"),
        scopes: to_json_list(&["tokens:read".to_owned()]),
        allowed_ips: "[]".to_owned(),
        created_at: NOW,
        expires_at,
        last_used_at: None,
        revoked_at: None,
    }
}

#[tokio::test]
async fn a_key_is_found_by_its_hash_until_it_ends_or_is_revoked() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        api_key_insert(&mut tx, &a(), &key("key_1", None)).await.unwrap();
        api_key_insert(&mut tx, &a(), &key("key_2", Some(NOW + 10))).await.unwrap();
        tx.commit().await.unwrap();

        let mut tx = store.begin().await.unwrap();
        let found = api_key_by_hash(&mut tx, TEST, "hash of key_1", NOW).await.unwrap().unwrap();
        assert_same(&found, &key("key_1", None));
        assert!(api_key_by_hash(&mut tx, TEST, "hash of key_2", NOW + 9).await.unwrap().is_some());
        assert!(
            api_key_by_hash(&mut tx, TEST, "hash of key_2", NOW + 10).await.unwrap().is_none(),
            "ends to the millisecond"
        );

        assert!(!api_key_revoke(&mut tx, &b(), "key_1", NOW + 5).await.unwrap(), "not the neighbour's to revoke");
        assert!(api_key_revoke(&mut tx, &a(), "key_1", NOW + 5).await.unwrap());
        assert!(!api_key_revoke(&mut tx, &a(), "key_1", NOW + 6).await.unwrap(), "once");
        assert!(api_key_by_hash(&mut tx, TEST, "hash of key_1", NOW + 6).await.unwrap().is_none());
        let listed = api_key_list(&mut tx, &a(), "", 10).await.unwrap();
        let known = api_key_by_id(&mut tx, &a(), &listed[0].id).await.unwrap();
        assert_same(&known.expect("a key"), &listed[0]);
        assert!(api_key_by_id(&mut tx, &b(), &listed[0].id).await.unwrap().is_none());
        assert_eq!(listed[0].revoked_at, Some(NOW + 5), "the first time counts");
    })
    .await;
}

#[tokio::test]
async fn keys_are_paged_by_id_and_the_neighbour_sees_none() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        for id in ["key_3", "key_1", "key_2"] {
            api_key_insert(&mut tx, &a(), &key(id, None)).await.unwrap();
        }
        let first = api_key_list(&mut tx, &a(), "", 2).await.unwrap();
        assert_eq!(ids(&first, |row| &row.id), ["key_1", "key_2"]);
        let rest = api_key_list(&mut tx, &a(), "key_2", 2).await.unwrap();
        assert_eq!(ids(&rest, |row| &row.id), ["key_3"]);
        assert!(api_key_list(&mut tx, &b(), "", 10).await.unwrap().is_empty());
        tx.commit().await.unwrap();
        let twin = ApiKeyRow { id: "key_9".to_owned(), ..key("key_1", None) };
        assert_conflict(&store, async |tx| api_key_insert(tx, &b(), &twin).await).await;
    })
    .await;
}

#[tokio::test]
async fn the_use_of_a_key_is_noted_at_most_once_a_minute() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        api_key_insert(&mut tx, &a(), &key("key_1", None)).await.unwrap();
        for (now, noted) in [(NOW, NOW), (NOW + 60_000, NOW), (NOW + 60_001, NOW + 60_001)] {
            api_key_touch(&mut tx, &b(), "key_1", now + 500_000).await.unwrap();
            api_key_touch(&mut tx, &a(), "key_1", now).await.unwrap();
            assert_eq!(api_key_list(&mut tx, &a(), "", 1).await.unwrap()[0].last_used_at, Some(noted));
        }
    })
    .await;
}
