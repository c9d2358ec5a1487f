//! Looking at a database without changing it, and what `serve` tells the commands beside it.

use super::*;
use crate::secret::Secret;
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
async fn a_server_leaves_a_note_that_a_second_one_does_not_touch() {
    on_both_fresh(Contents::Nothing, async |fresh| {
        assert_eq!(Store::note_of_server(&fresh.url), None);
        let mut lock = Store::lock_for_serving(&fresh.url).unwrap();
        lock.leave_note("http://127.0.0.1:12345/").unwrap();
        lock.leave_note("http://127.0.0.1:1/").unwrap();
        if fresh.file.is_some() {
            assert!(Store::lock_for_serving(&fresh.url).is_err());
            assert_eq!(Store::note_of_server(&fresh.url).as_deref(), Some("http://127.0.0.1:1/"));
        }
        lock.leave_note("").unwrap();
        assert_eq!(Store::note_of_server(&fresh.url), None);
    })
    .await;
}
