//! Integrations: one per provider, paused, resumed, slowed down and probed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::*;
use crate::store::integrations::{
    Pace, Refusals, integration_accept, integration_by_id, integration_by_provider, integration_count_refusal,
    integration_delete, integration_limit_rate, integration_list, integration_note_testing, integration_pause,
    integration_resume, integration_strain, integration_take_probe, integration_update, integrations_lock,
    integrations_set_pace, integrations_share,
};
use crate::store::{sql, to_json_object};

async fn seen(tx: &mut Tx) -> IntegrationRow {
    integration_by_id(tx, &a(), &format!("int_{A}")).await.expect("an answer").expect("an integration")
}

/// A success is written down exactly where there is something to heal.
async fn resume(tx: &mut Tx) -> bool {
    let is_well = seen(tx).await.is_well();
    let healed = integration_resume(tx, TEST, A, &format!("int_{A}")).await.unwrap();
    assert_eq!(healed, !is_well);
    healed
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
async fn a_changed_integration_is_well_again_at_once_but_waits_out_its_clients_pause_rl_09() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        let id = format!("int_{A}");
        integration_pause(&mut tx, TEST, (A, &id), NOW, "invalid_client", NOW + 60_000).await.unwrap();
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
            variables: to_json_object(&BTreeMap::from([("subdomain".to_owned(), "\"ü\"".to_owned())])),
            ..integration_row(&id, "google")
        };
        integration_update(&mut tx, &b(), &IntegrationRow { client_id: "theirs".to_owned(), ..changed.clone() })
            .await
            .unwrap();
        assert_eq!(seen(&mut tx).await.client_id, "client", "the neighbour changes nothing");
        let same_client = IntegrationRow { client_id: "client".to_owned(), ..changed.clone() };
        integration_update(&mut tx, &a(), &same_client).await.unwrap();
        assert_same(&seen(&mut tx).await, &IntegrationRow { rate_limited_until: Some(NOW + 9), ..same_client });
        let changed = IntegrationRow { client: "another".to_owned(), ..changed };
        integration_update(&mut tx, &a(), &changed).await.unwrap();
        assert_same(&seen(&mut tx).await, &changed);
    })
    .await;
}

#[tokio::test]
async fn that_a_client_is_tried_out_is_forgotten_with_the_client() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        let id = format!("int_{A}");
        integration_note_testing(&mut tx, &b(), &id, Some(NOW)).await.unwrap();
        assert_eq!(seen(&mut tx).await.testing_since, None, "another's");
        integration_note_testing(&mut tx, &a(), &id, Some(NOW)).await.unwrap();
        let row = seen(&mut tx).await;
        assert_eq!(row.testing_since, Some(NOW));
        integration_update(&mut tx, &a(), &row).await.unwrap();
        assert_eq!(seen(&mut tx).await.testing_since, Some(NOW), "saved again as it was");
        let other = IntegrationRow { client_id: "another".to_owned(), ..row };
        integration_update(&mut tx, &a(), &other).await.unwrap();
        assert_eq!(seen(&mut tx).await.testing_since, None);
        integration_note_testing(&mut tx, &a(), &id, Some(NOW)).await.unwrap();
        integration_note_testing(&mut tx, &a(), &id, None).await.unwrap();
        assert_eq!(seen(&mut tx).await.testing_since, None);
    })
    .await;
}

#[tokio::test]
async fn a_pause_ends_when_the_client_works_again() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        let id = format!("int_{A}");
        assert!(!resume(&mut tx).await, "nothing was known against it");
        integration_pause(&mut tx, TEST, (A, &id), NOW, "invalid_client", NOW).await.unwrap();
        assert!(!integration_resume(&mut tx, TEST, B, &id).await.unwrap(), "of another tenant");
        assert!(resume(&mut tx).await);
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
        integration_pause(&mut tx, TEST, (A, &id), NOW, "invalid_client", NOW).await.unwrap();
        assert!(!integration_take_probe(&mut tx, TEST, A, &id, NOW - 1, NOW + 60_000).await.unwrap(), "too early");
        assert!(!integration_take_probe(&mut tx, TEST, B, &id, NOW, NOW + 60_000).await.unwrap());
        tx.commit().await.unwrap();
        let taken = race(&store, async |tx, _| integration_take_probe(tx, TEST, A, &id, NOW, NOW + 60_000).await).await;
        assert_eq!(taken.iter().filter(|won| **won).count(), 1);
        let mut tx = store.begin().await.unwrap();
        assert!(integration_take_probe(&mut tx, TEST, A, &id, NOW + 60_000, NOW + 120_000).await.unwrap());
        assert!(resume(&mut tx).await);
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

#[tokio::test]
async fn an_outage_begins_with_the_last_of_so_many_silences_and_ends_with_any_answer() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        let client = (A, "int_ten_a");
        for (n, begins, silent_at) in [(1, false, None), (2, true, None), (3, false, None), (4, false, Some(NOW + 4))] {
            let at = NOW + n;
            let opened = integration_strain(&mut tx, TEST, client, "server_error", (2, at + 30), at).await.unwrap();
            assert_eq!((opened, seen(&mut tx).await.silent_at), (begins, silent_at), "{n}");
        }
        let away = seen(&mut tx).await;
        assert_eq!((away.unanswered, away.unreachable_since, away.probe_at), (4, Some(NOW + 2), Some(NOW + 34)));
        assert_eq!((away.status.as_str(), away.outage.as_deref()), ("active", Some("server_error")));
        assert!(!integration_take_probe(&mut tx, TEST, A, client.1, NOW + 33, NOW + 90).await.unwrap(), "too early");
        assert!(integration_take_probe(&mut tx, TEST, A, client.1, NOW + 34, NOW + 90).await.unwrap());
        assert!(resume(&mut tx).await);
        let back = seen(&mut tx).await;
        assert_eq!((back.unanswered, back.unreachable_since, back.probe_at, back.outage), (0, None, None, None));
        assert_eq!(back.silent_at, Some(NOW + 4), "what was asked until then may have been lost with it");
        assert_eq!((back.retry_credit, back.answered), (700, Some(1)), "the four may be tried again");
        for wanted in (2..25).map(Some).chain([None]) {
            assert!(resume(&mut tx).await);
            assert_eq!(seen(&mut tx).await.answered, wanted);
        }
        assert!(!resume(&mut tx).await, "well again: nothing to write");
        integration_strain(&mut tx, TEST, client, "x", (1, 1), NOW).await.unwrap();
        integration_limit_rate(&mut tx, TEST, A, client.1, NOW + 9).await.unwrap();
        assert_eq!(seen(&mut tx).await.unreachable_since, None, "asking for a pause is an answer");
        integration_strain(&mut tx, TEST, client, "x", (1, 1), NOW).await.unwrap();
        integration_pause(&mut tx, TEST, (A, client.1), NOW, "invalid_client", NOW).await.unwrap();
        assert_eq!(seen(&mut tx).await.unreachable_since, None, "and so is a refusal");
    })
    .await;
}

#[tokio::test]
async fn what_is_refused_of_an_integration_that_was_saved_since_says_nothing_about_it() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        let client = (A, "int_ten_a");
        let old = seen(&mut tx).await;
        let repaired = IntegrationRow { client_secret: Some(bytes()), updated_at: NOW + 7, ..old };
        integration_update(&mut tx, &a(), &repaired).await.unwrap();
        assert!(!integration_pause(&mut tx, TEST, client, NOW, "invalid_client", NOW).await.unwrap(), "the old secret");
        assert_eq!(seen(&mut tx).await.status, "active");
        assert!(integration_pause(&mut tx, TEST, client, NOW + 7, "invalid_client", NOW).await.unwrap());
        assert_eq!(seen(&mut tx).await.status, "misconfigured");
    })
    .await;
}

#[tokio::test]
async fn refusals_that_are_believed_do_not_count() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        let old = seen(&mut tx).await;
        let believed = IntegrationRow { believed_until: Some(NOW + 10), ..old };
        integration_update(&mut tx, &a(), &believed).await.unwrap();
        for (at, refused) in [(NOW, 0), (NOW + 9, 0), (NOW + 10, 1), (NOW + 11, 2)] {
            let counted = integration_count_refusal(&mut tx, TEST, (A, "int_ten_a"), NOW - 10, at).await.unwrap();
            assert_eq!(counted.map(|counted| counted.refused), Some(refused), "at {at}");
        }
        assert_eq!(seen(&mut tx).await.refused_since, Some(NOW + 10), "none of those that were believed is taken back");
    })
    .await;
}

#[tokio::test]
async fn refusals_are_counted_while_they_come_close_together_and_a_wave_outlasts_an_accepted_client() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        let client = (A, "int_ten_a");
        for (at, since, refused, refused_since) in
            [(NOW, NOW - 10, 1, NOW), (NOW + 5, NOW - 5, 2, NOW), (NOW + 11, NOW + 1, 1, NOW + 11)]
        {
            let counted = integration_count_refusal(&mut tx, TEST, client, since, at).await.unwrap();
            assert_eq!(counted, Some(Refusals { refused, refused_since }));
        }
        integration_pause(&mut tx, TEST, (A, client.1), NOW, "refused_wave", NOW).await.unwrap();
        let much_later = integration_count_refusal(&mut tx, TEST, client, NOW + 99, NOW + 100).await.unwrap();
        assert_eq!(much_later.map(|counted| counted.refused), Some(2), "a wave goes on while its integration is held");
        integration_accept(&mut tx, TEST, A, client.1).await.unwrap();
        assert_eq!(seen(&mut tx).await.status, "misconfigured");
        integration_pause(&mut tx, TEST, (A, client.1), NOW, "invalid_client", NOW).await.unwrap();
        integration_accept(&mut tx, TEST, A, client.1).await.unwrap();
        assert_eq!(seen(&mut tx).await.status, "active");
        assert!(resume(&mut tx).await, "a success outweighs both");
        assert_eq!((seen(&mut tx).await.refused, seen(&mut tx).await.refused_since), (0, None));
        for _ in 0..4 {
            integration_count_refusal(&mut tx, TEST, client, NOW - 10, NOW).await.unwrap();
        }
        for left in [(2, Some(NOW)), (0, None)] {
            assert!(resume(&mut tx).await);
            assert_eq!((seen(&mut tx).await.refused, seen(&mut tx).await.refused_since), left, "one outweighs two");
        }
        assert_eq!(integration_count_refusal(&mut tx, TEST, (B, "none"), NOW, NOW).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn the_plans_of_the_sweep_are_made_by_one_node_at_a_time() {
    in_a_house(async |store| {
        let pace = async |tx: &mut Tx, _: usize| {
            let rows = integrations_lock(tx, TEST, &[(B, "int_ten_b"), (A, "int_ten_a"), (B, "int_ten_a")]).await?;
            assert_eq!(ids(&rows, |row| &row.id), ["int_ten_a", "int_ten_b"], "each of its own tenant only");
            let paces: Vec<_> = rows
                .iter()
                .map(|row| Pace {
                    tenant_id: &row.tenant_id,
                    id: &row.id,
                    pace_at: row.pace_at + 7,
                    retry_credit: row.retry_credit + 1,
                    retried_at: Some(NOW),
                })
                .collect();
            integrations_set_pace(tx, TEST, &paces).await
        };
        race(&store, pace).await;
        let mut tx = store.begin().await.unwrap();
        let row = seen(&mut tx).await;
        let callers = i64::try_from(CALLERS).unwrap();
        assert_eq!((row.pace_at, row.retry_credit, row.retried_at), (7 * callers, 300 + callers, Some(NOW)));
        let mine = Pace { tenant_id: A, id: "int_ten_a", pace_at: 9, retry_credit: 8, retried_at: None };
        let of_another = Pace { tenant_id: B, pace_at: 1, retry_credit: 1, ..mine };
        integrations_set_pace(&mut tx, TEST, &[mine, of_another]).await.unwrap();
        let row = seen(&mut tx).await;
        assert_eq!((row.pace_at, row.retry_credit, row.retried_at), (9, 8, None));
        integration_delete(&mut tx, &a(), "int_ten_a", NOW).await.unwrap();
        assert!(integrations_lock(&mut tx, TEST, &[(A, "int_ten_a")]).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn those_who_keep_something_at_a_client_do_not_wait_for_each_other_and_who_ends_something_waits_for_them() {
    in_a_house(async |store| {
        let mut one = store.begin().await.unwrap();
        integrations_share(&mut one, &a(), &["int_ten_a"]).await.unwrap();
        if store.kind() == "sqlite" {
            return one.roll_back().await.unwrap();
        }
        let mut two = store.begin().await.unwrap();
        integrations_share(&mut two, &a(), &["int_ten_a", "int_ten_b"]).await.unwrap();
        let have_gone = AtomicBool::new(false);
        let ends = async {
            let mut tx = store.begin().await.unwrap();
            integrations_lock(&mut tx, TEST, &[(A, "int_ten_a")]).await.unwrap();
            assert!(have_gone.load(Relaxed));
            tx.commit().await.unwrap();
        };
        let go = async {
            let waiting = async || {
                let mut tx = store.read().await.unwrap();
                sql!(
                    tx,
                    one(i64,),
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
                .unwrap()
                .0
            };
            while waiting().await == 0 {}
            have_gone.store(true, Relaxed);
            one.commit().await.unwrap();
            two.commit().await.unwrap();
        };
        tokio::join!(ends, go);
    })
    .await;
}

#[tokio::test]
async fn tenants_with_the_same_client_share_its_pauses_and_its_queue_rl_09() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        let (mine, theirs) = ("int_ten_a", "int_ten_b");
        let of_b = async |tx: &mut Tx, id: &str| integration_by_id(tx, &b(), id).await.unwrap().unwrap();
        assert_eq!(
            integrations_lock(&mut tx, TEST, &[(A, mine)]).await.unwrap().len(),
            1,
            "its own, unless said otherwise"
        );
        let shared = IntegrationRow { client: "shared".to_owned(), ..seen(&mut tx).await };
        integration_update(&mut tx, &a(), &shared).await.unwrap();
        integration_limit_rate(&mut tx, TEST, A, mine, NOW + 9).await.unwrap();
        assert_eq!(of_b(&mut tx, theirs).await.rate_limited_until, None, "another client");

        let joined = IntegrationRow { client: "shared".to_owned(), ..of_b(&mut tx, theirs).await };
        integration_update(&mut tx, &b(), &joined).await.unwrap();
        assert_eq!(of_b(&mut tx, theirs).await.rate_limited_until, Some(NOW + 9), "whoever joins waits, too");
        let newcomer = IntegrationRow { client: "shared".to_owned(), ..integration_row("int_new", "slack") };
        integration_insert(&mut tx, &b(), &newcomer).await.unwrap();
        assert_eq!(of_b(&mut tx, "int_new").await.rate_limited_until, Some(NOW + 9));
        integration_limit_rate(&mut tx, TEST, B, "int_new", NOW + 20).await.unwrap();
        assert_eq!(seen(&mut tx).await.rate_limited_until, Some(NOW + 20), "and tells all others");
        let rows = integrations_lock(&mut tx, TEST, &[(A, mine)]).await.unwrap();
        assert_eq!(ids(&rows, |row| &row.id), [mine, "int_new", theirs]);

        integration_delete(&mut tx, &b(), "int_new", NOW).await.unwrap();
        assert!(
            integrations_lock(&mut tx, TEST, &[(B, "int_new")]).await.unwrap().is_empty(),
            "a deleted one has no client"
        );
        let left =
            IntegrationRow { client: theirs.to_owned(), client_id: "new".to_owned(), ..of_b(&mut tx, theirs).await };
        integration_update(&mut tx, &b(), &left).await.unwrap();
        assert_eq!(of_b(&mut tx, theirs).await.rate_limited_until, None, "the pause was not asked of this client");
        assert_eq!(integrations_lock(&mut tx, TEST, &[(A, mine)]).await.unwrap().len(), 1);
    })
    .await;
}
