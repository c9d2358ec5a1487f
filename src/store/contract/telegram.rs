//! Telegram starts: waiting for a person to press Start.

use super::*;
use crate::store::telegram_starts::{
    TelegramStartRow, telegram_start_by_payload, telegram_start_delete, telegram_start_move_offset, telegram_start_of,
    telegram_start_pressed, telegram_start_put, telegram_starts_claim, telegram_starts_delete_expired,
};

fn start(connection: &str, poll_at: i64) -> TelegramStartRow {
    TelegramStartRow {
        tenant_id: A.to_owned(),
        connection_id: connection.to_owned(),
        payload_hash: format!("payload of {connection}"),
        update_offset: 0,
        poll_at,
        expires_at: NOW + 100,
        to_confirm: 1,
        pressed: None,
    }
}

async fn wait(store: &Store, number: usize) {
    let mut tx = store.begin().await.unwrap();
    for n in 0..number {
        let id = format!("con_{n:02}");
        connection_insert(&mut tx, &a(), &connection_row(&id, Some(USER))).await.unwrap();
        telegram_start_put(&mut tx, &a(), &start(&id, NOW + i64::try_from(n).unwrap())).await.unwrap();
    }
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_new_link_replaces_the_old_one_and_keeps_the_place_in_the_updates() {
    in_a_house(async |store| {
        wait(&store, 1).await;
        let mut tx = store.begin().await.unwrap();
        telegram_start_move_offset(&mut tx, TEST, B, "con_00", 5).await.unwrap();
        telegram_start_move_offset(&mut tx, TEST, A, "con_00", 77).await.unwrap();
        let again = TelegramStartRow {
            payload_hash: "new".to_owned(),
            poll_at: NOW + 3,
            expires_at: NOW + 200,
            ..start("con_00", 0)
        };
        telegram_start_put(&mut tx, &a(), &again).await.unwrap();
        assert!(telegram_start_by_payload(&mut tx, TEST, "payload of con_00", NOW).await.unwrap().is_none());
        let found = telegram_start_by_payload(&mut tx, TEST, "new", NOW + 199).await.unwrap().unwrap();
        assert_same(&found, &TelegramStartRow { update_offset: 77, ..again });
        assert!(telegram_start_by_payload(&mut tx, TEST, "new", NOW + 200).await.unwrap().is_none(), "it ends");
    })
    .await;
}

#[tokio::test]
async fn one_of_many_who_press_start_is_kept_until_there_is_another_link() {
    in_a_house(async |store| {
        wait(&store, 1).await;
        let seen = start("con_00", NOW);
        let pressed =
            race(&store, async |tx, n| telegram_start_pressed(tx, &a(), &seen, format!("person {n}").as_bytes()).await)
                .await;
        assert_eq!(pressed.iter().filter(|won| **won).count(), 1);
        let mut tx = store.begin().await.unwrap();
        assert!(!telegram_start_pressed(&mut tx, &b(), &seen, b"another tenant's").await.unwrap());
        let found = telegram_start_of(&mut tx, &a(), "con_00", NOW).await.unwrap().unwrap();
        assert!(found.pressed.as_ref().is_some_and(|who| who.starts_with(b"person ")) && found.to_confirm == 1);
        assert!(telegram_start_of(&mut tx, &b(), "con_00", NOW).await.unwrap().is_none());
        assert!(telegram_start_of(&mut tx, &a(), "con_00", NOW + 100).await.unwrap().is_none(), "it ends");
        assert!(
            telegram_start_pressed(&mut tx, &a(), &found, b"several").await.unwrap(),
            "who has seen it may change it"
        );
        let again = TelegramStartRow { payload_hash: "new".to_owned(), to_confirm: 0, ..start("con_00", NOW) };
        telegram_start_put(&mut tx, &a(), &again).await.unwrap();
        assert!(!telegram_start_pressed(&mut tx, &a(), &seen, b"on the old link").await.unwrap());
        assert!(!telegram_start_delete(&mut tx, &a(), &seen).await.unwrap(), "nor does the old link end the new one");
        let found = telegram_start_of(&mut tx, &a(), "con_00", NOW).await.unwrap().unwrap();
        assert_same(&found, &again);
    })
    .await;
}

#[tokio::test]
async fn of_many_pollers_each_due_wait_goes_to_one_and_none_takes_more_than_it_asked_for() {
    in_a_house(async |store| {
        wait(&store, 30).await;
        let mut tx = store.begin().await.unwrap();
        let early = telegram_starts_claim(&mut tx, TEST, NOW + 2, NOW + 1000, 2).await.unwrap();
        let mut early = ids(&early, |row| &row.connection_id);
        early.sort();
        assert_eq!(early, ["con_00", "con_01"], "the longest due first");
        tx.commit().await.unwrap();

        let taken = race(&store, async |tx, _| telegram_starts_claim(tx, TEST, NOW + 30, NOW + 1000, 3).await).await;
        assert!(taken.iter().all(|rows| rows.len() <= 3));
        assert!(taken.iter().flatten().all(|row| row.poll_at == NOW + 1000));
        let mut all = ids(&taken.into_iter().flatten().collect::<Vec<_>>(), |row| &row.connection_id);
        let number = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), number, "nothing is taken twice");
        // Whoever looked at rows that another took gets fewer; looking again takes the rest.
        let mut rest = 0;
        for _ in 0..CALLERS {
            let mut tx = store.begin().await.unwrap();
            rest += telegram_starts_claim(&mut tx, TEST, NOW + 30, NOW + 1000, 3).await.unwrap().len();
            tx.commit().await.unwrap();
        }
        assert_eq!(number + rest, 28, "nothing is forgotten");
    })
    .await;
}

#[tokio::test]
async fn one_of_many_callers_ends_a_wait_and_expired_ones_are_swept() {
    in_a_house(async |store| {
        wait(&store, 2).await;
        let ended = race(&store, async |tx, _| telegram_start_delete(tx, &a(), &start("con_00", NOW)).await).await;
        assert_eq!(ended.iter().filter(|won| **won).count(), 1);
        let mut tx = store.begin().await.unwrap();
        assert!(!telegram_start_delete(&mut tx, &b(), &start("con_01", NOW)).await.unwrap());
        assert_eq!(telegram_starts_delete_expired(&mut tx, TEST, NOW + 99).await.unwrap(), 0);
        assert_eq!(telegram_starts_delete_expired(&mut tx, TEST, NOW + 100).await.unwrap(), 1);
    })
    .await;
}
