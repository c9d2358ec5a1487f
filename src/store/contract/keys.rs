//! Key rows: one active key each, whoever is first.

use super::*;
use crate::store::keys::{
    DataKeyRow, TenantKeyRow, data_key_active, data_key_by_id, data_key_insert, data_keys_destroy,
    data_keys_for_refresh, data_keys_were_destroyed, root_key_insert, root_keys, tenant_key_active, tenant_key_by_id,
    tenant_key_insert, tenant_keys_exist,
};

fn tenant_key(id: &str) -> TenantKeyRow {
    TenantKeyRow { id: id.to_owned(), root_key_id: "root_1".to_owned(), wrapped: bytes() }
}

fn data_key(id: &str) -> DataKeyRow {
    DataKeyRow { id: id.to_owned(), tenant_key_id: "tky_1".to_owned(), wrapped: Some(bytes()) }
}

async fn hang_keys(store: &Store) {
    let mut tx = store.begin().await.unwrap();
    root_key_insert(&mut tx, TEST, "root_1", &bytes(), NOW).await.unwrap();
    assert!(tenant_key_insert(&mut tx, TEST, A, &tenant_key("tky_1"), NOW).await.unwrap());
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_root_keys_check_value_is_written_once_and_never_over() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        assert!(root_keys(&mut tx, TEST).await.unwrap().is_empty());
        root_key_insert(&mut tx, TEST, "root_1", &bytes(), NOW).await.unwrap();
        root_key_insert(&mut tx, TEST, "root_1", b"other", NOW + 1).await.unwrap();
        let known = root_keys(&mut tx, TEST).await.unwrap();
        assert_eq!((known.len(), known[0].id.as_str(), known[0].state.as_str()), (1, "root_1", "active"));
        assert_eq!(known[0].check_value, bytes());
        root_key_insert(&mut tx, TEST, "root_2", b"other", NOW + 2).await.unwrap();
        assert_eq!(root_keys(&mut tx, TEST).await.unwrap().len(), 1, "one key is active");
    })
    .await;
}

#[tokio::test]
async fn of_many_first_root_keys_one_stays() {
    in_a_house(async |store| {
        let seen = race(&store, async |tx, n| {
            root_key_insert(tx, TEST, &format!("root_{n}"), &bytes(), NOW).await?;
            root_keys(tx, TEST).await
        })
        .await;
        assert!(seen.iter().all(|known| known.len() == 1 && known[0].id == seen[0][0].id), "{seen:?}");
    })
    .await;
}

#[tokio::test]
async fn of_many_first_tenant_keys_one_stays() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        root_key_insert(&mut tx, TEST, "root_1", &bytes(), NOW).await.unwrap();
        assert!(!tenant_keys_exist(&mut tx, TEST).await.unwrap());
        tx.commit().await.unwrap();
        let made =
            race(&store, async |tx, n| tenant_key_insert(tx, TEST, A, &tenant_key(&format!("tky_{n}")), NOW).await)
                .await;
        let winner = made.iter().position(|won| *won).map(|n| format!("tky_{n}")).unwrap();
        assert_eq!(made.iter().filter(|won| **won).count(), 1);
        let mut tx = store.read().await.unwrap();
        assert!(tenant_keys_exist(&mut tx, TEST).await.unwrap());
        assert_same(&tenant_key_active(&mut tx, TEST, A).await.unwrap().unwrap(), &tenant_key(&winner));
        assert_same(&tenant_key_by_id(&mut tx, TEST, A, &winner).await.unwrap().unwrap(), &tenant_key(&winner));
        assert!(tenant_key_active(&mut tx, TEST, B).await.unwrap().is_none());
        assert!(tenant_key_by_id(&mut tx, TEST, B, &winner).await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn of_many_first_data_keys_of_an_owner_one_stays() {
    in_a_house(async |store| {
        hang_keys(&store).await;
        let made = race(&store, async |tx, n| {
            data_key_insert(tx, TEST, A, "user", USER, &data_key(&format!("dky_{n}")), NOW).await
        })
        .await;
        let winner = made.iter().position(|won| *won).map(|n| format!("dky_{n}")).unwrap();
        assert_eq!(made.iter().filter(|won| **won).count(), 1);
        let mut tx = store.read().await.unwrap();
        assert_same(&data_key_active(&mut tx, TEST, A, "user", USER).await.unwrap().unwrap(), &data_key(&winner));
        assert_same(
            &data_key_by_id(&mut tx, TEST, A, "user", USER, &winner).await.unwrap().unwrap(),
            &data_key(&winner),
        );
        for (tenant, kind, owner) in [(B, "user", USER), (A, "tenant", USER), (A, "user", OTHER)] {
            assert!(data_key_active(&mut tx, TEST, tenant, kind, owner).await.unwrap().is_none());
            assert!(data_key_by_id(&mut tx, TEST, tenant, kind, owner, &winner).await.unwrap().is_none());
        }
    })
    .await;
}

#[tokio::test]
async fn an_owners_active_key_and_a_key_of_another_come_in_one_answer() {
    in_a_house(async |store| {
        hang_keys(&store).await;
        let mut tx = store.begin().await.unwrap();
        assert!(data_key_insert(&mut tx, TEST, A, "user", USER, &data_key("dky_1"), NOW).await.unwrap());
        assert!(data_key_insert(&mut tx, TEST, A, "tenant", A, &data_key("dky_2"), NOW).await.unwrap());
        for (tenant, own, other, wanted) in [
            (A, ("user", USER), ("tenant", A, "dky_2"), vec![(true, "dky_1"), (false, "dky_2")]),
            (A, ("tenant", A), ("tenant", A, "dky_2"), vec![(true, "dky_2"), (false, "dky_2")]),
            (A, ("user", USER), ("tenant", A, "dky_1"), vec![(true, "dky_1")]),
            (A, ("user", USER), ("", "", ""), vec![(true, "dky_1")]),
            (A, ("user", OTHER), ("tenant", A, "dky_2"), vec![(false, "dky_2")]),
            (B, ("user", USER), ("tenant", A, "dky_2"), vec![]),
        ] {
            let rows = data_keys_for_refresh(&mut tx, TEST, tenant, own, other).await.unwrap();
            let mut found: Vec<_> = rows.iter().map(|row| (row.is_active, row.key.id.as_str())).collect();
            found.sort_unstable_by_key(|(is_active, _)| !is_active);
            assert_eq!(found, wanted, "{tenant} {own:?} {other:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn destroying_takes_the_key_of_one_owner_and_leaves_a_tombstone() {
    in_a_house(async |store| {
        hang_keys(&store).await;
        let mut tx = store.begin().await.unwrap();
        assert!(data_key_insert(&mut tx, TEST, A, "user", USER, &data_key("dky_1"), NOW).await.unwrap());
        assert!(data_key_insert(&mut tx, TEST, A, "user", OTHER, &data_key("dky_2"), NOW).await.unwrap());
        assert_eq!(data_keys_destroy(&mut tx, TEST, B, "user", USER, NOW).await.unwrap(), 0);
        assert_eq!(data_keys_destroy(&mut tx, TEST, A, "user", USER, NOW).await.unwrap(), 1);
        assert_eq!(data_keys_destroy(&mut tx, TEST, A, "user", USER, NOW).await.unwrap(), 0, "once");
        assert!(data_key_active(&mut tx, TEST, A, "user", USER).await.unwrap().is_none());
        let tombstone = data_key_by_id(&mut tx, TEST, A, "user", USER, "dky_1").await.unwrap().unwrap();
        assert_eq!(tombstone.wrapped, None);
        assert!(data_key_active(&mut tx, TEST, A, "user", OTHER).await.unwrap().is_some());
        for (tenant, kind, owner, wanted) in
            [(A, "user", USER, true), (A, "user", OTHER, false), (A, "tenant", USER, false), (B, "user", USER, false)]
        {
            assert_eq!(data_keys_were_destroyed(&mut tx, TEST, tenant, kind, owner).await.unwrap(), wanted);
        }
    })
    .await;
}
