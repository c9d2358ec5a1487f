//! The cabinet on both databases: what opens, what is refused, and starts that must not happen.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::*;
use crate::clock::{Millis, SeededEntropy, TestClock};
use crate::store::keys::{root_keys, tenant_keys_exist};
use crate::store::sql;
use crate::store::tenants::{TenantRow, tenant_insert};
use crate::store::testing::{Contents, Fresh, TEST, on_both, on_both_fresh};

const ROOT: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER_ROOT: &str = "HxwdHh8AAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRo=";
const CANARY: &str = "ya29.canary-of-a-secret";
const PLACE: Place<'_> = Place { record_kind: "credential", record_id: "crd_1", field: "access_token", generation: 3 };

fn around(seed: u64) -> Surroundings {
    let clock = TestClock::at(Millis(1_800_000_000_000));
    Surroundings { clock: Arc::new(clock), entropy: Arc::new(SeededEntropy::new(seed)) }
}

fn root(text: &str) -> EnvironmentKey {
    EnvironmentKey(Some(Secret::new(text)))
}

async fn open_with(text: &str, store: &Store, seed: u64) -> Result<Keys, KeyError> {
    Keys::open(&root(text), store, around(seed)).await
}

fn tenant(id: &str) -> TenantId {
    TenantId::stored(id.to_owned())
}

fn user(tenant_id: &str, id: &str) -> Owner {
    Owner::User(tenant(tenant_id), UserId::stored(id.to_owned()))
}

/// A cabinet on a database with two tenants.
async fn cabinet(store: &Store) -> Keys {
    let mut tx = store.begin().await.unwrap();
    for id in ["ten_a", "ten_b"] {
        let row = TenantRow {
            id: id.to_owned(),
            name: id.to_owned(),
            environment: "test".to_owned(),
            confirm: "none".to_owned(),
            return_urls: "[]".to_owned(),
            origins: "[]".to_owned(),
            created_at: 0,
        };
        tenant_insert(&mut tx, TEST, &row).await.unwrap();
    }
    tx.commit().await.unwrap();
    open_with(ROOT, store, 1).await.expect("a cabinet")
}

async fn seal_in(keys: &Keys, store: &Store, owner: &Owner, place: Place<'_>) -> Vec<u8> {
    let mut tx = store.begin().await.unwrap();
    let sealed = keys.seal(&mut tx, owner, place, &Secret::new(CANARY)).await.expect("sealed");
    tx.commit().await.unwrap();
    sealed
}

async fn open_in(
    keys: &Keys,
    store: &Store,
    owner: &Owner,
    place: Place<'_>,
    sealed: &[u8],
) -> Result<Secret, KeyError> {
    let mut tx = store.read().await.unwrap();
    keys.open_secret(&mut tx, owner, place, sealed).await
}

/// Every row of every key table, as text.
async fn key_rows(store: &Store) -> Vec<(String, String, String)> {
    let mut tx = store.read().await.unwrap();
    type Row = (String, Vec<u8>, String);
    let mut rows = sql!(tx, all Row, "SELECT id, check_value, state FROM root_keys ORDER BY id").unwrap();
    rows.extend(sql!(tx, all Row, "SELECT id, wrapped, state FROM tenant_keys ORDER BY id").unwrap());
    rows.extend(
        sql!(tx, all Row, "SELECT id, wrapped, state FROM data_keys WHERE wrapped IS NOT NULL ORDER BY id").unwrap(),
    );
    rows.into_iter().map(|(id, bytes, state)| (id, data_encoding::HEXLOWER.encode(&bytes), state)).collect()
}

#[tokio::test]
async fn what_was_sealed_opens_for_its_owner_and_place_also_after_a_restart() {
    on_both(async |store: Store| {
        let keys = cabinet(&store).await;
        let owners = [user("ten_a", "usr_1"), Owner::Tenant(tenant("ten_a")), Owner::Installation];
        let restarted = open_with(ROOT, &store, 2).await.expect("the same key");
        for owner in owners {
            let sealed = seal_in(&keys, &store, &owner, PLACE).await;
            for cabinet in [&keys, &restarted] {
                let opened = open_in(cabinet, &store, &owner, PLACE, &sealed).await.expect("opens");
                assert_eq!(opened.expose(), CANARY);
            }
            assert_ne!(seal_in(&keys, &store, &owner, PLACE).await, sealed, "the same value never seals alike");
        }
    })
    .await;
}

/// What a refresh opens: a user's token, and beside it a secret of the tenant's.
async fn opened_for_successor(keys: &Keys, store: &Store, own: &[u8], beside: Option<&[u8]>) -> Opened {
    let (owner, other) = (user("ten_a", "usr_1"), Owner::Tenant(tenant("ten_a")));
    let own = Stored { owner: &owner, place: PLACE, sealed: own };
    let beside = beside.map(|sealed| Stored { owner: &other, place: PLACE, sealed });
    let mut tx = store.begin().await.unwrap();
    let opened = keys.open_for_successor(&mut tx, own, beside).await.unwrap();
    tx.commit().await.unwrap();
    opened
}

#[tokio::test]
async fn a_token_opens_with_what_seals_its_successor_and_each_value_for_itself() {
    on_both(async |store: Store| {
        let keys = cabinet(&store).await;
        let owner = user("ten_a", "usr_1");
        let token = seal_in(&keys, &store, &owner, PLACE).await;
        let secret = seal_in(&keys, &store, &Owner::Tenant(tenant("ten_a")), PLACE).await;

        let Opened { own, beside } = opened_for_successor(&keys, &store, &token, Some(&secret)).await;
        let (opened, sealer) = own.unwrap();
        assert_eq!((opened.expose(), beside.unwrap().unwrap().expose()), (CANARY, CANARY));
        let next = sealer.seal(PLACE, &Secret::new("next")).unwrap();
        assert_eq!(open_in(&keys, &store, &owner, PLACE, &next).await.unwrap().expose(), "next");

        let alone = opened_for_successor(&keys, &store, &token, None).await;
        assert!(alone.own.is_ok() && alone.beside.is_none());
        let swapped = opened_for_successor(&keys, &store, &secret, Some(&token)).await;
        assert!(matches!(swapped.own, Err(KeyError::Destroyed)), "another owner's value");
        assert!(matches!(swapped.beside, Some(Err(KeyError::Destroyed))));
        let damaged = opened_for_successor(&keys, &store, &token, Some(b"damaged")).await;
        assert!(matches!(damaged.beside, Some(Err(KeyError::Refused))) && damaged.own.is_ok());
        let damaged = opened_for_successor(&keys, &store, b"damaged", Some(&secret)).await;
        assert!(matches!(damaged.own, Err(KeyError::Refused)) && matches!(damaged.beside, Some(Ok(_))));

        // Sealed by a key that has a successor.
        let mut tx = store.begin().await.unwrap();
        sql!(tx, execute, "UPDATE data_keys SET state = 'retiring' WHERE owner_id = 'usr_1'").unwrap();
        tx.commit().await.unwrap();
        for _ in 0..2 {
            let (opened, sealer) = opened_for_successor(&keys, &store, &token, None).await.own.unwrap();
            assert_eq!(opened.expose(), CANARY);
            let next = sealer.seal(PLACE, &Secret::new("next")).unwrap();
            assert_ne!(
                Sealed::from_stored(next).key_id().unwrap(),
                Sealed::from_stored(token.clone()).key_id().unwrap()
            );
        }

        let mut tx = store.begin().await.unwrap();
        keys.destroy(&mut tx, &owner).await.unwrap();
        tx.commit().await.unwrap();
        let erased = opened_for_successor(&keys, &store, &token, Some(&secret)).await;
        assert!(matches!(erased.own, Err(KeyError::Destroyed)) && matches!(erased.beside, Some(Ok(_))));
    })
    .await;
}

#[tokio::test]
async fn small_records_come_back_as_they_were() {
    on_both(async |store: Store| {
        let keys = cabinet(&store).await;
        let owner = user("ten_a", "usr_1");
        let value = vec![("ü".to_owned(), Some(1_i64)), (String::new(), None)];
        let mut tx = store.begin().await.unwrap();
        let sealed = keys.seal_json(&mut tx, &owner, PLACE, &value).await.unwrap();
        let opened: Vec<(String, Option<i64>)> = keys.open_json(&mut tx, &owner, PLACE, &sealed).await.unwrap();
        assert_eq!(opened, value);
        let wrong: Result<i64, _> = keys.open_json(&mut tx, &owner, PLACE, &sealed).await;
        assert!(matches!(wrong, Err(KeyError::Refused)), "another shape");
    })
    .await;
}

#[tokio::test]
async fn a_value_that_was_moved_does_not_open_cr_03_cr_04() {
    on_both(async |store: Store| {
        let keys = cabinet(&store).await;
        let owner = user("ten_a", "usr_1");
        let sealed = seal_in(&keys, &store, &owner, PLACE).await;
        for moved in [
            Place { record_kind: "integration", ..PLACE },
            Place { record_id: "crd_2", ..PLACE },
            Place { field: "refresh_token", ..PLACE },
            Place { generation: 2, ..PLACE },
            Place { generation: 4, ..PLACE },
        ] {
            let refused = open_in(&keys, &store, &owner, moved, &sealed).await;
            assert!(matches!(refused, Err(KeyError::Refused)), "{moved:?}: {refused:?}");
        }
        for at in [0, 2, sealed.len() / 2, sealed.len() - 1] {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            let refused = open_in(&keys, &store, &owner, PLACE, &altered).await;
            assert!(matches!(refused, Err(KeyError::Refused | KeyError::Destroyed)), "byte {at}: {refused:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_value_does_not_open_for_another_owner_or_tenant_even_with_their_key_in_its_place() {
    on_both(async |store: Store| {
        let keys = cabinet(&store).await;
        let owner = user("ten_a", "usr_1");
        let others = [
            user("ten_a", "usr_2"),
            Owner::Tenant(tenant("ten_a")),
            user("ten_b", "usr_1"),
            Owner::Tenant(tenant("ten_b")),
        ];
        let sealed = seal_in(&keys, &store, &owner, PLACE).await;
        for other in &others {
            let refused = open_in(&keys, &store, other, PLACE, &sealed).await;
            assert!(matches!(refused, Err(KeyError::Destroyed | KeyError::Refused)), "{other:?}: {refused:?}");
        }
        // Whoever can write rows renames the owner of the data key: the wrapped key refuses to be another's.
        for other in [&others[0], &others[1]] {
            let mut tx = store.begin().await.unwrap();
            let (kind, id) = other.to_row();
            sql!(
                tx,
                execute,
                "UPDATE data_keys SET owner_kind = $1, owner_id = $2 WHERE owner_id = 'usr_1'",
                kind,
                &*id
            )
            .unwrap();
            let refused = keys.open_secret(&mut tx, other, PLACE, &sealed).await;
            assert!(matches!(refused, Err(KeyError::Refused)), "{other:?}: {refused:?}");
            tx.roll_back().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn keys_that_were_exchanged_in_the_database_do_not_unwrap() {
    on_both(async |store: Store| {
        let keys = cabinet(&store).await;
        let owners = [user("ten_a", "usr_1"), user("ten_a", "usr_2")];
        let sealed = seal_in(&keys, &store, &owners[0], PLACE).await;
        seal_in(&keys, &store, &owners[1], PLACE).await;
        let mut tx = store.begin().await.unwrap();
        let text = "UPDATE data_keys SET wrapped = (SELECT other.wrapped FROM data_keys other WHERE other.owner_id = 'usr_2') WHERE owner_id = 'usr_1'";
        let changed = match tx.connection() {
            crate::store::Connection::Sqlite(c) => sqlx::query(text).execute(c).await.unwrap().rows_affected(),
            crate::store::Connection::Postgres(c) => sqlx::query(text).execute(c).await.unwrap().rows_affected(),
        };
        assert_eq!(changed, 1);
        let refused = keys.open_secret(&mut tx, &owners[0], PLACE, &sealed).await;
        assert!(matches!(refused, Err(KeyError::Refused)), "{refused:?}");
    })
    .await;
}

#[tokio::test]
async fn an_erased_owner_is_erased_for_good_and_for_everybody() {
    on_both(async |store: Store| {
        let keys = cabinet(&store).await;
        let other_node = open_with(ROOT, &store, 2).await.unwrap();
        let (erased, neighbour) = (user("ten_a", "usr_1"), user("ten_a", "usr_2"));
        let sealed = seal_in(&keys, &store, &erased, PLACE).await;
        let kept = seal_in(&keys, &store, &neighbour, PLACE).await;
        open_in(&other_node, &store, &erased, PLACE, &sealed).await.expect("opens on both nodes");

        let mut tx = store.begin().await.unwrap();
        keys.destroy(&mut tx, &erased).await.unwrap();
        tx.commit().await.unwrap();
        for cabinet in [&keys, &other_node] {
            let gone = open_in(cabinet, &store, &erased, PLACE, &sealed).await;
            assert!(matches!(gone, Err(KeyError::Destroyed)), "at once, whatever is cached: {gone:?}");
            open_in(cabinet, &store, &neighbour, PLACE, &kept).await.expect("nobody else");
            let mut tx = store.begin().await.unwrap();
            let again = cabinet.seal(&mut tx, &erased, PLACE, &Secret::new(CANARY)).await;
            assert!(matches!(again, Err(KeyError::Destroyed)), "nothing is sealed for the erased: {again:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_erasure_that_is_given_up_erases_nothing() {
    on_both(async |store: Store| {
        let keys = cabinet(&store).await;
        let owner = user("ten_a", "usr_1");
        let sealed = seal_in(&keys, &store, &owner, PLACE).await;
        let mut tx = store.begin().await.unwrap();
        keys.destroy(&mut tx, &owner).await.unwrap();
        tx.roll_back().await.unwrap();
        open_in(&keys, &store, &owner, PLACE, &sealed).await.expect("still there");
    })
    .await;
}

#[tokio::test]
async fn of_many_first_seals_of_an_owner_all_use_one_key() {
    on_both(async |store: Store| {
        let keys = cabinet(&store).await;
        let owner = user("ten_a", "usr_1");
        let sealed = join_all((0..12).map(|_| seal_in(&keys, &store, &owner, PLACE))).await;
        let used: BTreeSet<String> =
            sealed.iter().map(|bytes| Sealed::from_stored(bytes.clone()).key_id().unwrap().to_owned()).collect();
        assert_eq!(used.len(), 1, "{used:?}");
        for bytes in &sealed {
            open_in(&keys, &store, &owner, PLACE, bytes).await.expect("opens");
        }
        let mut tx = store.read().await.unwrap();
        assert_eq!(sql!(tx, one(i64,), "SELECT count(*) FROM data_keys").unwrap().0, 1);
        assert_eq!(sql!(tx, one(i64,), "SELECT count(*) FROM tenant_keys").unwrap().0, 1);
    })
    .await;
}

#[tokio::test]
async fn a_key_whose_transaction_was_given_up_is_not_remembered() {
    on_both(async |store: Store| {
        let keys = cabinet(&store).await;
        let owner = user("ten_a", "usr_1");
        let mut tx = store.begin().await.unwrap();
        for _ in 0..2 {
            keys.seal(&mut tx, &owner, PLACE, &Secret::new(CANARY)).await.unwrap();
        }
        tx.roll_back().await.unwrap();
        let sealed = seal_in(&keys, &store, &owner, PLACE).await;
        keys.forget_cached();
        open_in(&keys, &store, &owner, PLACE, &sealed).await.expect("opens with what is in the database");
        open_in(&open_with(ROOT, &store, 2).await.unwrap(), &store, &owner, PLACE, &sealed).await.expect("on any node");
    })
    .await;
}

#[tokio::test]
async fn look_up_hashes_stay_the_same_and_say_nothing_to_another_database() {
    let seen = std::cell::RefCell::new(BTreeSet::new());
    on_both(async |store: Store| {
        let keys = cabinet(&store).await;
        let mut tx = store.begin().await.unwrap();
        let hash = keys.lookup_hash(&mut tx, "a@example.org").await.unwrap();
        assert_ne!(hash, keys.lookup_hash(&mut tx, "b@example.org").await.unwrap());
        tx.commit().await.unwrap();
        let restarted = open_with(ROOT, &store, 77).await.unwrap();
        let mut tx = store.begin().await.unwrap();
        assert_eq!(restarted.lookup_hash(&mut tx, "a@example.org").await.unwrap(), hash);
        seen.borrow_mut().insert(hash);
    })
    .await;
    let other_seed = std::cell::RefCell::new(String::new());
    on_both(async |store: Store| {
        let keys = open_with(ROOT, &store, 5).await.unwrap();
        let mut tx = store.begin().await.unwrap();
        *other_seed.borrow_mut() = keys.lookup_hash(&mut tx, "a@example.org").await.unwrap();
    })
    .await;
    assert!(!seen.borrow().contains(&*other_seed.borrow()), "the root key alone does not give it");
}

#[tokio::test]
async fn a_wrong_root_key_is_named_and_changes_nothing_cr_07() {
    on_both(async |store: Store| {
        let keys = cabinet(&store).await;
        let owner = user("ten_a", "usr_1");
        let sealed = seal_in(&keys, &store, &owner, PLACE).await;
        let before = key_rows(&store).await;
        let refused = open_with(OTHER_ROOT, &store, 2).await.expect_err("another key");
        let KeyError::Wrong { expected } = &refused else { panic!("{refused:?}") };
        assert_eq!(*expected, before[0].0, "it says which key fits");
        assert!(!refused.to_string().contains(OTHER_ROOT));
        assert_eq!(key_rows(&store).await, before);
        open_in(&open_with(ROOT, &store, 3).await.unwrap(), &store, &owner, PLACE, &sealed).await.expect("still opens");
    })
    .await;
}

#[tokio::test]
async fn an_unusable_root_key_leaves_an_empty_database_empty_cr_07() {
    on_both_fresh(Contents::Nothing, async |fresh: Fresh| {
        for text in ["", "c2hvcnQ=", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "plain text"] {
            let refused = open_with(text, &fresh.store, 1).await;
            assert!(matches!(refused, Err(KeyError::Unusable(_))), "{refused:?}");
        }
        let refused = Keys::open(&EnvironmentKey(None), &fresh.store, around(1)).await;
        assert!(matches!(refused, Err(KeyError::Missing)), "{refused:?}");
        assert!(!fresh.store.has_schema().await.unwrap(), "nothing was made");
        open_with(ROOT, &fresh.store, 1).await.expect("an empty database takes a key");
        assert!(fresh.store.has_schema().await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn keys_without_a_check_value_are_not_believed() {
    on_both(async |store: Store| {
        let keys = cabinet(&store).await;
        seal_in(&keys, &store, &Owner::Installation, PLACE).await;
        // As a partial restore leaves it; both databases would refuse to break the reference.
        match &store {
            Store::Sqlite { writer, .. } => {
                let mut connection = writer.acquire().await.unwrap();
                for text in ["PRAGMA foreign_keys = OFF", "DELETE FROM root_keys", "PRAGMA foreign_keys = ON"] {
                    sqlx::query(text).execute(&mut *connection).await.unwrap();
                }
            }
            Store::Postgres(lines) => {
                for text in
                    ["ALTER TABLE tenant_keys DROP CONSTRAINT tenant_keys_root_key_fkey", "DELETE FROM root_keys"]
                {
                    sqlx::query(text).execute(&lines.pool()).await.unwrap();
                }
            }
        }
        let before = key_rows(&store).await;
        for text in [ROOT, OTHER_ROOT] {
            let refused = open_with(text, &store, 2).await;
            assert!(matches!(refused, Err(KeyError::Inconsistent)), "{refused:?}");
        }
        assert_eq!(key_rows(&store).await, before, "nothing was changed");
    })
    .await;
}

#[tokio::test]
async fn an_altered_check_value_and_a_retired_key_are_refused() {
    on_both(async |store: Store| {
        cabinet(&store).await;
        let mut tx = store.begin().await.unwrap();
        let mut check = root_keys(&mut tx, TEST).await.unwrap().remove(0).check_value;
        let last = check.len() - 1;
        check[last] ^= 1;
        sql!(tx, execute, "UPDATE root_keys SET check_value = $1", &check).unwrap();
        tx.commit().await.unwrap();
        let refused = open_with(ROOT, &store, 2).await;
        assert!(matches!(refused, Err(KeyError::Refused)), "{refused:?}");

        let mut tx = store.begin().await.unwrap();
        sql!(tx, execute, "UPDATE root_keys SET state = 'retired'").unwrap();
        sql!(
            tx,
            execute,
            "INSERT INTO root_keys (id, check_value, state, created_at) VALUES ('root_new', $1, 'active', 1)",
            &check
        )
        .unwrap();
        tx.commit().await.unwrap();
        let refused = open_with(ROOT, &store, 2).await;
        assert!(matches!(&refused, Err(KeyError::Wrong { expected }) if expected == "root_new"), "{refused:?}");
    })
    .await;
}

#[tokio::test]
async fn of_two_nodes_with_different_keys_on_an_empty_database_one_starts() {
    on_both_fresh(Contents::Nothing, async |fresh: Fresh| {
        let one = Store::open(&fresh.url).await.unwrap();
        let other = Store::open(&fresh.url).await.unwrap();
        let started = join_all([open_with(ROOT, &one, 1), open_with(OTHER_ROOT, &other, 2)]).await;
        let refused: Vec<_> = started.iter().filter_map(|keys| keys.as_ref().err()).collect();
        assert!(matches!(refused[..], [KeyError::Wrong { .. }]), "{started:?}");
        let mut tx = one.read().await.unwrap();
        assert_eq!(root_keys(&mut tx, TEST).await.unwrap().len(), 1);
        assert!(!tenant_keys_exist(&mut tx, TEST).await.unwrap());
        drop(tx);
        let again = join_all([open_with(ROOT, &one, 1), open_with(OTHER_ROOT, &other, 2)]).await;
        assert_eq!(
            again.iter().map(Result::is_ok).collect::<Vec<_>>(),
            started.iter().map(Result::is_ok).collect::<Vec<_>>()
        );
        one.close().await;
        other.close().await;
    })
    .await;
}

#[tokio::test]
async fn no_secret_lies_in_the_database_as_it_is() {
    on_both_fresh(Contents::Schema, async |fresh: Fresh| {
        let keys = cabinet(&fresh.store).await;
        let owner = user("ten_a", "usr_1");
        let sealed = seal_in(&keys, &fresh.store, &owner, PLACE).await;
        assert!(!contains(&sealed, CANARY.as_bytes()));
        let mut tx = fresh.store.begin().await.unwrap();
        keys.lookup_hash(&mut tx, CANARY).await.unwrap();
        tx.commit().await.unwrap();
        let root = data_encoding::BASE64.decode(ROOT.as_bytes()).unwrap();
        for bytes in stored_bytes(&fresh).await {
            for secret in [CANARY.as_bytes(), ROOT.as_bytes(), &root] {
                assert!(!contains(&bytes, secret));
            }
        }
    })
    .await;
}

/// Everything that is kept: the file and its log, or every column of the key tables.
async fn stored_bytes(fresh: &Fresh) -> Vec<Vec<u8>> {
    let Some(file) = &fresh.file else {
        let rows = key_rows(&fresh.store).await;
        return rows.iter().map(|(_, hex, _)| data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap()).collect();
    };
    let log = file.with_file_name("valetkey.db-wal");
    let read: Vec<Vec<u8>> = [file, &log].map(|path| std::fs::read(path).expect("a file")).into();
    assert!(read.iter().any(|bytes| contains(bytes, b"usr_1")), "the search finds what is there");
    read
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
