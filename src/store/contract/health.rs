//! How refreshing is doing: backlogs, trouble and outcomes of one tenant, and what is held up in all.

use super::*;
use crate::store::audit::{AuditRow, audit_insert};
use crate::store::credentials::DoubtColumns;
use crate::store::due::{Share, credential_claim_due, credential_set_due, credentials_put_back};
use crate::store::health::{BacklogRow, HeldRow, backlog_list, integrations_held, refresh_outcomes, troubled_list};
use crate::store::integrations::{integration_pause, integration_strain};
use crate::store::refresh_rows::{FailureColumns, credential_fail, credential_needs_reauth};

async fn fail(tx: &mut Tx, id: &str, doubt: DoubtColumns, now: i64) {
    let columns = FailureColumns {
        generation: 1,
        fence: 0,
        abandoned: false,
        attempts: 1,
        next_attempt_at: NOW + 50,
        last_error: "http_503",
        doubt,
        unrecognised: (0, 0),
        due_at: Some(NOW + 50),
        now,
    };
    assert!(credential_fail(tx, TEST, &name_of(id), columns).await.unwrap());
}

#[tokio::test]
async fn a_backlog_counts_what_is_due_queued_in_doubt_failing_and_ending_of_one_tenant() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        for id in ["crd_1", "crd_2", "crd_3", "crd_4", "crd_5"] {
            credential_insert(&mut tx, &a(), &credential_row(id)).await.unwrap();
        }
        let ending = CredentialRow { refresh_expires_at: Some(NOW + 70), ..credential_row("crd_6") };
        credential_insert(&mut tx, &a(), &ending).await.unwrap();
        credential_set_due(&mut tx, TEST, &name_of("crd_1"), 0, Some(NOW - 9)).await.unwrap();
        credential_set_due(&mut tx, TEST, &name_of("crd_2"), 0, Some(NOW - 3)).await.unwrap();
        credentials_put_back(&mut tx, TEST, &put_back("crd_3", NOW + 3_000_000, NOW + 9, true)).await.unwrap();
        let doubt = DoubtColumns { first_sent: Some(NOW), since: Some(NOW), replays: 0, likely_unspent: 0 };
        fail(&mut tx, "crd_4", doubt, NOW).await;
        credential_needs_reauth(&mut tx, TEST, &name_of("crd_5"), 1, 0, "invalid_grant", NOW).await.unwrap();

        let wanted = BacklogRow {
            integration_id: format!("int_{A}"),
            overdue: 2,
            oldest_due: Some(NOW - 9),
            queued: 1,
            in_doubt: 1,
            failing: 1,
            ending: 1,
        };
        assert_eq!(backlog_list(&mut tx, &a(), NOW, NOW + 100).await.unwrap(), [wanted]);
        assert_eq!(backlog_list(&mut tx, &a(), NOW, NOW + 69).await.unwrap()[0].ending, 0, "not yet soon");
        assert!(backlog_list(&mut tx, &b(), NOW, NOW + 100).await.unwrap().is_empty(), "the neighbour has none");
        let others = backlog_list(&mut tx, &user_scope(A, OTHER), NOW, NOW + 100).await.unwrap();
        assert!(others.is_empty(), "another user's are not counted");
        credential_claim_due(&mut tx, TEST, (NOW, NOW), NOW + 100, Share { limit: 9, first: 9, others: 9 })
            .await
            .unwrap();
        assert_eq!(backlog_list(&mut tx, &a(), NOW, NOW).await.unwrap()[0].overdue, 0, "somebody has taken them");
    })
    .await;
}

#[tokio::test]
async fn connections_in_trouble_are_listed_the_latest_first_and_those_that_work_are_not() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        for (connection, credential) in [("con_1", "crd_1"), ("con_2", "crd_2"), ("con_3", "crd_3")] {
            connect(&mut tx, connection, credential).await;
        }
        fail(&mut tx, "crd_1", DoubtColumns::default(), NOW + 1).await;
        fail(&mut tx, "crd_3", DoubtColumns::default(), NOW + 2).await;
        let list = async |tx: &mut Tx, scope: &TenantScope, limit| {
            ids(&troubled_list(tx, scope, limit).await.unwrap(), |(id,)| id)
        };
        assert_eq!(list(&mut tx, &a(), 9).await, ["con_3", "con_1"]);
        assert_eq!(list(&mut tx, &a(), 1).await, ["con_3"]);
        assert!(list(&mut tx, &b(), 9).await.is_empty());
        assert!(list(&mut tx, &user_scope(A, OTHER), 9).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn outcomes_are_counted_from_an_entry_on_by_result_and_reason() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        let entry = |id: &str, action: &str, reason: Option<&str>| AuditRow {
            tenant_id: A.to_owned(),
            id: id.to_owned(),
            at: NOW,
            actor_kind: "system".to_owned(),
            actor_id: "refresh".to_owned(),
            action: action.to_owned(),
            object_kind: "credential".to_owned(),
            object_id: "crd_1".to_owned(),
            user_id: Some(USER.to_owned()),
            conversation_id: None,
            result: if reason.is_some() { "failed" } else { "allowed" }.to_owned(),
            reason: reason.map(str::to_owned),
            request_id: "req".to_owned(),
            peer: None,
            mac: bytes(),
        };
        for row in [
            entry("aud_1", "credential.refresh", None),
            entry("aud_2", "credential.refresh", None),
            entry("aud_3", "credential.refresh", Some("http_503")),
            entry("aud_4", "credential.refresh", None),
            entry("aud_5", "token.read", None),
            entry("aud_6", "integration.unreachable", Some("http_503")),
            AuditRow {
                result: "allowed".to_owned(),
                ..entry("aud_7", "connection.needs_reauth", Some("invalid_grant"))
            },
        ] {
            audit_insert(&mut tx, &row).await.unwrap();
        }
        let count = |result: &str, reason: &str, count| (result.to_owned(), reason.to_owned(), count);
        let counted = refresh_outcomes(&mut tx, &a(), "aud_1").await.unwrap();
        let refused = count("allowed", "invalid_grant", 1);
        assert_eq!(counted, [count("allowed", "", 2), count("failed", "http_503", 2), refused]);
        assert!(refresh_outcomes(&mut tx, &a(), "aud_7").await.unwrap().is_empty());
        assert!(refresh_outcomes(&mut tx, &b(), "").await.unwrap().is_empty());
        assert!(refresh_outcomes(&mut tx, &user_scope(A, OTHER), "").await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn integrations_that_are_refused_or_unanswered_are_named_with_their_tenant() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        assert!(integrations_held(&mut tx, TEST, 9).await.unwrap().is_empty());
        integration_pause(&mut tx, TEST, (A, &format!("int_{A}")), NOW, "invalid_client", NOW).await.unwrap();
        let place = (B, &*format!("int_{B}"));
        assert!(integration_strain(&mut tx, TEST, place, "http_503", (1, NOW + 9), NOW).await.unwrap());
        let held = |tenant: &str, reason: Option<&str>, unreachable_since| HeldRow {
            tenant: format!("name of {tenant}"),
            provider: "google".to_owned(),
            reason: reason.map(str::to_owned),
            unreachable_since,
        };
        let wanted = [held(A, Some("invalid_client"), None), held(B, None, Some(NOW))];
        assert_eq!(integrations_held(&mut tx, TEST, 9).await.unwrap(), wanted);
        assert_eq!(integrations_held(&mut tx, TEST, 1).await.unwrap().len(), 1);
    })
    .await;
}
