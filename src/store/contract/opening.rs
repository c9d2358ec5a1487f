//! Looking at a database without changing it, and what `serve` tells the commands beside it.

use super::*;
use crate::secret::Secret;
use crate::store::addresses::{address_forget, address_note, address_noted};
use crate::store::testing::{Contents, on_both_fresh};

#[tokio::test]
async fn looking_changes_no_byte_and_can_change_none() {
    // CR-07
    on_both_fresh(Contents::Schema, async |fresh| {
        // What has only reached the log must stay there: a checkpoint would be a change.
        furnish(&fresh.store).await;
        let bytes = || fresh.file.as_ref().map(|file| std::fs::read(file).unwrap());
        let before = bytes();
        let looking = Store::open_to_look(&fresh.url).await.unwrap().expect("it is there");
        assert!(looking.has_schema().await.unwrap());
        let mut tx = looking.read().await.unwrap();
        let known = crate::store::tenants::tenant_find(&mut tx, TEST, A).await.unwrap();
        assert!(known.is_some(), "what the log holds is seen");
        drop(tx);
        if fresh.file.is_some() {
            let refused = async {
                let mut tx = looking.begin().await?;
                tenant_insert(&mut tx, TEST, &tenant_row("ten_late", "late")).await?;
                tx.commit().await
            };
            assert!(matches!(refused.await, Err(StoreError::Unavailable(_))), "it cannot be written");
        }
        looking.close().await;
        assert!(bytes() == before, "the file has changed");
    })
    .await;
}

#[tokio::test]
async fn looking_for_a_file_that_is_not_there_makes_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("none.db");
    let url = Secret::new(format!("sqlite:{}", file.display()));
    assert!(Store::open_to_look(&url).await.unwrap().is_none());
    assert!(!file.exists());
}

#[tokio::test]
async fn a_servers_clock_is_asked_where_there_is_a_server() {
    on_both_fresh(Contents::Nothing, async |fresh| {
        let told = fresh.store.server_time().await.unwrap();
        assert_eq!(told.is_none(), fresh.file.is_some(), "SQLite has no clock of its own");
        assert!(told.is_none_or(|millis| millis > 1_700_000_000_000), "milliseconds since 1970: {told:?}");
    })
    .await;
}

#[tokio::test]
async fn a_second_server_on_the_same_file_is_refused() {
    on_both_fresh(Contents::Nothing, async |fresh| {
        let lock = Store::lock_for_serving(&fresh.url).unwrap();
        assert_eq!(Store::lock_for_serving(&fresh.url).is_err(), fresh.file.is_some(), "PostgreSQL serves several");
        drop(lock);
        assert!(Store::lock_for_serving(&fresh.url).is_ok());
    })
    .await;
}

#[tokio::test]
async fn the_last_server_is_the_one_whose_address_is_known_until_it_forgets_it() {
    in_a_house(async |store| {
        let (one, other) = ("http://127.0.0.1:1/", "http://127.0.0.1:2/");
        let mut tx = store.begin().await.unwrap();
        assert_eq!(address_noted(&mut tx, TEST).await.unwrap(), None);
        address_note(&mut tx, TEST, one, NOW).await.unwrap();
        address_note(&mut tx, TEST, other, NOW + 1).await.unwrap();
        assert_eq!(address_noted(&mut tx, TEST).await.unwrap().as_deref(), Some(other));
        address_forget(&mut tx, TEST, one).await.unwrap();
        assert_eq!(address_noted(&mut tx, TEST).await.unwrap().as_deref(), Some(other), "it is not its own");
        address_forget(&mut tx, TEST, other).await.unwrap();
        assert_eq!(address_noted(&mut tx, TEST).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn postgresql_compiles_no_statement_of_ours_and_keeps_what_was_committed() {
    on_both_fresh(Contents::Schema, async |fresh| {
        if let Store::Postgres(lines) = &fresh.store {
            let pool = &lines.pool();
            let jit: String = sqlx::query_scalar("SHOW jit").fetch_one(pool).await.unwrap();
            assert_eq!(jit, "off");
            // RL-04; the server of the tests has it off.
            let kept: String = sqlx::query_scalar("SHOW synchronous_commit").fetch_one(pool).await.unwrap();
            assert_eq!(kept, "on");
        }
    })
    .await;
}
