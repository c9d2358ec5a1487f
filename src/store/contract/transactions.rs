//! Opening, migrating, transactions and bells.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::*;
use crate::clock::deadline;
use crate::secret::Secret;
use crate::shutdown;
use crate::store::bell::{Bell, Bells, ring_at_commit};
use crate::store::tenants::tenant_find;
use crate::store::testing::{Contents, Fresh, on_both_fresh};
use crate::store::{OpenError, sql};

#[tokio::test]
async fn what_a_database_in_silence_has_done_is_unknown() {
    in_a_house(async |store| {
        let limit = Duration::from_millis(1);
        let outcome: Result<(), StoreError> = store.in_time(limit, std::future::pending()).await;
        assert!(matches!(outcome, Err(StoreError::CommitUnknown(_))), "{outcome:?}");
        assert!(store.in_time(limit, async { Ok::<_, StoreError>(7) }).await.is_ok_and(|seven| seven == 7));
        assert!(StoreError::too_slow().is_outage(), "nothing was done");
    })
    .await;
}

#[tokio::test]
async fn only_what_is_committed_is_there() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        tenant_insert(&mut tx, TEST, &tenant_row("ten_1", "rolled back")).await.unwrap();
        tx.roll_back().await.unwrap();
        let mut tx = store.begin().await.unwrap();
        tenant_insert(&mut tx, TEST, &tenant_row("ten_2", "dropped")).await.unwrap();
        drop(tx);
        let mut tx = store.begin().await.unwrap();
        tenant_insert(&mut tx, TEST, &tenant_row("ten_3", "committed")).await.unwrap();
        let mut reader = store.read().await.unwrap();
        assert_eq!(tenant_find(&mut reader, TEST, "ten_3").await.unwrap(), None, "not before the commit");
        tx.commit().await.unwrap();
        assert!(
            tenant_find(&mut reader, TEST, "ten_3").await.unwrap().is_some(),
            "every statement sees what is committed"
        );
        for id in ["ten_1", "ten_2"] {
            assert_eq!(tenant_find(&mut reader, TEST, id).await.unwrap(), None);
        }
        reader.commit().await.expect("after reading there is nothing to commit");
        store.read().await.unwrap().roll_back().await.expect("nor to give up");
    })
    .await;
}

#[tokio::test]
async fn one_change_is_there_for_good_and_unknown_where_its_line_breaks() {
    in_a_house(async |store| {
        let mut tx = store.one_change().await.unwrap();
        tenant_insert(&mut tx, TEST, &tenant_row("ten_1", "changed")).await.unwrap();
        tx.commit().await.unwrap();
        let mut reader = store.read().await.unwrap();
        assert!(tenant_find(&mut reader, TEST, "ten_1").await.unwrap().is_some());

        let broken = || sqlx::Error::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        assert!(reader.trouble(broken()).is_outage(), "nothing was to be done");
        assert!(matches!(reader.trouble(sqlx::Error::RowNotFound), StoreError::Defect(_)));
        drop(reader);
        let one = store.one_statement().await.unwrap();
        // Only a server has a line that breaks.
        let told = one.trouble(broken());
        assert!(store.kind() == "sqlite" || matches!(told, StoreError::CommitUnknown(_)), "{told:?}");
        drop(one);
        let begun = store.begin().await.unwrap();
        assert!(begun.trouble(broken()).is_outage(), "nothing is committed");
    })
    .await;
}

#[tokio::test]
async fn writers_wait_for_each_other_and_none_is_lost() {
    in_a_house(async |store| {
        race(&store, async |tx, n| tenant_insert(tx, TEST, &tenant_row(&format!("ten_{n}"), &format!("t{n}"))).await)
            .await;
        let mut tx = store.read().await.unwrap();
        assert_eq!(sql!(tx, one(i64,), "SELECT count(*) FROM tenants").unwrap().0, 23);
    })
    .await;
}

/// Of four who begin like this, only one is at it at a time.
async fn assert_turns(begin: impl AsyncFn() -> Result<Tx, StoreError>) {
    let at_it = AtomicUsize::new(0);
    let turn = async |n: usize| {
        let mut tx = begin().await.unwrap();
        assert_eq!(at_it.fetch_add(1, Relaxed), 0, "alone");
        tenant_insert(&mut tx, TEST, &tenant_row(&format!("ten_{n}"), &format!("t{n}"))).await.unwrap();
        at_it.fetch_sub(1, Relaxed);
        tx.commit().await.unwrap();
    };
    join_all((0..4).map(turn)).await;
}

#[tokio::test]
async fn those_that_delete_many_rows_take_turns() {
    in_a_house(async |store| assert_turns(async || store.begin_in_turn(TEST).await).await).await;
}

#[tokio::test]
async fn a_tenant_moves_in_one_thing_at_a_time() {
    in_a_house(async |store| assert_turns(async || store.begin_in_turn_of(&a()).await).await).await;
}

#[tokio::test]
async fn a_closed_database_is_unavailable_not_defective() {
    in_a_house(async |store| {
        store.close().await;
        assert!(matches!(store.begin().await, Err(StoreError::Unavailable(_))));
        assert!(matches!(store.read().await, Err(StoreError::Unavailable(_))));
    })
    .await;
}

#[tokio::test]
async fn a_commit_whose_connection_died_is_never_reported_as_done() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        tenant_insert(&mut tx, TEST, &tenant_row("ten_1", "lost")).await.unwrap();
        // Only a server can lose a connection.
        if store.kind() == "sqlite" {
            return tx.roll_back().await.unwrap();
        }
        let (own,) = sql!(tx, one(i64,), "SELECT pg_backend_pid()::bigint").unwrap();
        let mut other = store.begin().await.unwrap();
        sql!(other, one(bool,), "SELECT pg_terminate_backend($1::int)", own).unwrap();
        other.commit().await.unwrap();
        let outcome = tx.commit().await;
        assert!(matches!(outcome, Err(StoreError::CommitUnknown(_) | StoreError::Unavailable(_))), "{outcome:?}");
        let mut tx = store.read().await.unwrap();
        assert_eq!(tenant_find(&mut tx, TEST, "ten_1").await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn migrating_an_empty_database_on_several_nodes_at_once_is_harmless() {
    on_both_fresh(Contents::Nothing, async |fresh: Fresh| {
        assert!(!fresh.store.has_schema().await.unwrap());
        let nodes = join_all((0..4).map(|_| Store::open(&fresh.url))).await;
        let nodes: Vec<Store> = nodes.into_iter().map(|node| node.expect("opens")).collect();
        for done in join_all(nodes.iter().map(Store::migrate)).await {
            done.expect("migrated");
        }
        assert!(fresh.store.has_schema().await.unwrap());
        for node in nodes {
            node.migrate().await.expect("once more");
            node.close().await;
        }
        let mut tx = fresh.store.read().await.unwrap();
        assert_eq!(sql!(tx, one(i64,), "SELECT count(*) FROM tenants").unwrap().0, 1, "one installation");
    })
    .await;
}

#[tokio::test]
async fn a_schema_that_is_newer_than_the_program_is_refused() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        sql!(tx, execute, "UPDATE _sqlx_migrations SET version = 9999 WHERE version = 5").unwrap();
        tx.commit().await.unwrap();
        assert!(matches!(store.migrate().await, Err(OpenError::Schema(_))));
    })
    .await;
}

#[tokio::test]
async fn one_serve_at_a_time_holds_an_sqlite_file_rl_30() {
    on_both_fresh(Contents::Schema, async |fresh: Fresh| {
        let first = Store::lock_for_serving(&fresh.url).expect("free");
        let second = Store::lock_for_serving(&fresh.url);
        match fresh.store.kind() {
            "sqlite" => assert!(matches!(second, Err(OpenError::InUse))),
            _ => assert!(second.is_ok(), "several nodes share a server"),
        }
        drop((first, second));
        assert!(Store::lock_for_serving(&fresh.url).is_ok(), "free again");
    })
    .await;
}

#[test]
fn only_what_may_pass_by_itself_is_an_outage() {
    assert!(StoreError::from(sqlx::Error::PoolTimedOut).is_outage());
    assert!(!StoreError::from(sqlx::Error::RowNotFound).is_outage());
    assert!(!StoreError::CommitUnknown(sqlx::Error::PoolClosed).is_outage(), "something may have been done");
}

#[tokio::test]
async fn urls_that_name_no_database_are_refused_in_words() {
    for url in ["", "sqlite:", "sqlite::memory:", "mysql://x", "valetkey.db"] {
        assert!(matches!(Store::open(&Secret::new(url)).await, Err(OpenError::Url)), "{url}");
    }
    let folder = Store::open(&Secret::new("sqlite:/no/such/folder/x.db")).await.expect_err("no folder");
    assert!(!folder.to_string().contains("/no/such"), "{folder}");
}

#[tokio::test]
async fn a_bell_is_heard_by_other_nodes_after_the_commit_only() {
    in_a_house(async |store| {
        let (controller, handle) = shutdown::channel();
        let bells = Bells::default();
        let mut heard = bells.listen();
        let story = async {
            if store.kind() == "postgres" {
                // The relay may not listen yet when the first bell rings: whoever listens also looks without one.
                let mut rung = HashSet::new();
                while rung.len() < 2 {
                    let mut tx = store.begin().await.unwrap();
                    ring_at_commit(&mut tx, Bell::DueEarlier).await.unwrap();
                    tx.roll_back().await.unwrap();
                    let mut tx = store.begin().await.unwrap();
                    ring_at_commit(&mut tx, Bell::Revoked).await.unwrap();
                    ring_at_commit(&mut tx, Bell::Outbox).await.unwrap();
                    tx.commit().await.unwrap();
                    while let Ok(Ok(bell)) = deadline(Duration::from_millis(100), heard.recv()).await {
                        assert_ne!(bell, Bell::DueEarlier, "its transaction was given up");
                        rung.insert(format!("{bell:?}"));
                    }
                }
            } else {
                let mut tx = store.begin().await.unwrap();
                ring_at_commit(&mut tx, Bell::Revoked).await.unwrap();
                tx.commit().await.unwrap();
                assert!(heard.try_recv().is_err(), "there is no other node");
            }
            bells.ring(Bell::DueEarlier);
            assert_eq!(heard.recv().await, Ok(Bell::DueEarlier), "in this process at once");
            controller.begin();
        };
        tokio::join!(bells.relay(&store, &handle), story);
    })
    .await;
}
