//! Integrations: one per provider, paused, resumed, slowed down and probed.

use super::*;
use crate::store::integrations::{
    integration_by_id, integration_by_provider, integration_delete, integration_limit_rate, integration_list,
    integration_pause, integration_resume, integration_take_probe, integration_update,
};

async fn seen(tx: &mut Tx) -> IntegrationRow {
    integration_by_id(tx, &a(), &format!("int_{A}")).await.expect("an answer").expect("an integration")
}

#[tokio::test]
async fn an_integration_comes_back_as_it_was_written_and_only_to_its_tenant() {
    in_a_house(async |store| {
        let mut row = integration_row("int_2", "slack");
        row.bot_token = Some(vec![1, 0, 2]);
        let mut tx = store.begin().await.unwrap();
        integration_insert(&mut tx, &a(), &row).await.unwrap();
        let found = integration_by_provider(&mut tx, &a(), "slack").await.unwrap().unwrap();
        assert_same(&found, &row);
        assert_same(&integration_by_id(&mut tx, &a(), "int_2").await.unwrap().unwrap(), &row);
        assert!(integration_by_id(&mut tx, &b(), "int_2").await.unwrap().is_none());
        assert!(integration_by_provider(&mut tx, &b(), "slack").await.unwrap().is_none());
        let providers = ids(&integration_list(&mut tx, &a()).await.unwrap(), |row| &row.provider);
        assert_eq!(providers, ["google", "slack"]);
        assert_eq!(integration_list(&mut tx, &b()).await.unwrap().len(), 1);
        tx.commit().await.unwrap();
        assert_conflict(&store, async |tx| integration_insert(tx, &a(), &integration_row("int_3", "slack")).await)
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_changed_integration_is_well_again_at_once() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        let id = format!("int_{A}");
        integration_pause(&mut tx, TEST, A, &id, "invalid_client", NOW + 60_000).await.unwrap();
        integration_limit_rate(&mut tx, TEST, A, &id, NOW + 9).await.unwrap();
        let paused = seen(&mut tx).await;
        assert_eq!((paused.status.as_str(), paused.reason.as_deref()), ("misconfigured", Some("invalid_client")));
        assert_eq!((paused.probe_at, paused.rate_limited_until), (Some(NOW + 60_000), Some(NOW + 9)));

        let changed = IntegrationRow {
            client_id: "another".to_owned(),
            client_secret: None,
            bot_token: Some(bytes()),
            revision: 2,
            updated_at: NOW + 7,
            user_scopes: JSON.to_owned(),
            id: id.clone(),
            ..integration_row("int", "google")
        };
        integration_update(&mut tx, &b(), &IntegrationRow { client_id: "theirs".to_owned(), ..changed.clone() })
            .await
            .unwrap();
        assert_eq!(seen(&mut tx).await.client_id, "client", "the neighbour changes nothing");
        integration_update(&mut tx, &a(), &changed).await.unwrap();
        assert_same(&seen(&mut tx).await, &changed);
    })
    .await;
}

#[tokio::test]
async fn a_pause_ends_when_the_client_works_again() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        let id = format!("int_{A}");
        assert!(!integration_resume(&mut tx, TEST, A, &id).await.unwrap(), "nothing was known against it");
        integration_pause(&mut tx, TEST, A, &id, "invalid_client", NOW).await.unwrap();
        assert!(!integration_resume(&mut tx, TEST, B, &id).await.unwrap(), "of another tenant");
        assert!(integration_resume(&mut tx, TEST, A, &id).await.unwrap());
        let row = seen(&mut tx).await;
        assert_eq!((row.status.as_str(), row.reason, row.probe_at), ("active", None, None));
    })
    .await;
}

#[tokio::test]
async fn a_rate_limit_is_only_ever_made_longer_rl_09() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        let id = format!("int_{A}");
        for (until, wanted) in [(NOW + 10, NOW + 10), (NOW + 5, NOW + 10), (NOW + 11, NOW + 11)] {
            integration_limit_rate(&mut tx, TEST, B, &id, NOW + 99).await.unwrap();
            integration_limit_rate(&mut tx, TEST, A, &id, until).await.unwrap();
            assert_eq!(seen(&mut tx).await.rate_limited_until, Some(wanted));
        }
        assert_eq!(seen(&mut tx).await.status, "active", "a pause is no fault");
    })
    .await;
}

#[tokio::test]
async fn one_of_many_callers_probes_a_faulty_client_once_a_minute() {
    in_a_house(async |store| {
        let id = format!("int_{A}");
        let mut tx = store.begin().await.unwrap();
        integration_pause(&mut tx, TEST, A, &id, "invalid_client", NOW).await.unwrap();
        assert!(!integration_take_probe(&mut tx, TEST, A, &id, NOW - 1, NOW + 60_000).await.unwrap(), "too early");
        assert!(!integration_take_probe(&mut tx, TEST, B, &id, NOW, NOW + 60_000).await.unwrap());
        tx.commit().await.unwrap();
        let taken = race(&store, async |tx, _| integration_take_probe(tx, TEST, A, &id, NOW, NOW + 60_000).await).await;
        assert_eq!(taken.iter().filter(|won| **won).count(), 1);
        let mut tx = store.begin().await.unwrap();
        assert!(integration_take_probe(&mut tx, TEST, A, &id, NOW + 60_000, NOW + 120_000).await.unwrap());
        assert!(integration_resume(&mut tx, TEST, A, &id).await.unwrap());
        for _ in 0..2 {
            let free = integration_take_probe(&mut tx, TEST, A, &id, NOW + 60_001, NOW + 120_001).await;
            assert!(free.unwrap(), "a client that works again holds nobody up");
        }
    })
    .await;
}

#[tokio::test]
async fn a_deleted_integration_forgets_its_secrets_and_makes_room_for_another() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        let id = format!("int_{A}");
        assert!(!integration_delete(&mut tx, &b(), &id, NOW).await.unwrap());
        assert!(integration_delete(&mut tx, &a(), &id, NOW).await.unwrap());
        assert!(!integration_delete(&mut tx, &a(), &id, NOW).await.unwrap(), "once");
        assert!(integration_by_id(&mut tx, &a(), &id).await.unwrap().is_none());
        assert!(integration_by_provider(&mut tx, &a(), "google").await.unwrap().is_none());
        assert!(integration_list(&mut tx, &a()).await.unwrap().is_empty());
        let kept = crate::store::sql!(
            tx,
            one (i64,),
            "SELECT count(*) FROM integrations WHERE tenant_id = $1 AND (client_secret IS NOT NULL OR bot_token IS NOT NULL)",
            A
        );
        assert_eq!(kept.unwrap().0, 0, "no secret outlives its integration");
        integration_insert(&mut tx, &a(), &integration_row("int_2", "google")).await.unwrap();
        let back = integration_update(&mut tx, &a(), &IntegrationRow { id, ..integration_row("int", "google") }).await;
        assert!(back.is_ok(), "changing a deleted one does nothing");
        assert_eq!(integration_list(&mut tx, &a()).await.unwrap().len(), 1);
    })
    .await;
}
