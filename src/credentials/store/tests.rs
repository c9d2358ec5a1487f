//! What a consent that brings no new refresh token does to the one that is stored.

use std::time::Duration;

use super::super::refresh::simulation::world::START;
use super::super::testing::{CONNECTION, House, consented, furnish, owner_of};
use super::*;
use crate::caller::TenantScope;
use crate::store::sql;
use crate::store::testing::{on_both, scope_of};

const HOUR: Duration = Duration::from_secs(3600);

async fn the_row(house: &House, scope: &TenantScope) -> CredentialRow {
    let mut tx = house.store.read().await.unwrap();
    credentials_of_connection(&mut tx, scope, CONNECTION).await.unwrap().remove(0)
}

/// The access token and the refresh token of a row.
async fn opened(house: &House, row: &CredentialRow) -> (String, String) {
    let mut tx = house.store.read().await.unwrap();
    let keys = &house.rooms[0].keys;
    let place = access_place(&row.id, row.generation);
    let access = keys.open_secret(&mut tx, &owner(row), place, row.access_token.as_deref().unwrap()).await.unwrap();
    let place = refresh_place(&row.id, row.generation);
    let refresh = keys.open_secret(&mut tx, &owner(row), place, row.refresh_token.as_deref().unwrap()).await.unwrap();
    (access.expose().to_owned(), refresh.expose().to_owned())
}

/// A connection whose refresh token is of this fate; then somebody consents, and the provider gives this refresh token.
async fn consented_again(
    house: &House,
    (tenant, provider): (&str, &str),
    fate: (&str, Option<i64>),
    given: Option<&str>,
) -> (CredentialRow, CredentialRow) {
    let scope = scope_of(tenant);
    furnish(&house.store, tenant, &scope).await;
    let owner = owner_of(&scope);
    let mut tx = house.store.begin().await.unwrap();
    let first = NewCredential { provider, ..consented(&owner, START, HOUR, "access 0", "refresh 0") };
    house.rooms[0].keep(&mut tx, &scope, CONNECTION, first).await.unwrap();
    let (phase, since) = fate;
    sql!(
        tx,
        execute,
        "UPDATE credentials SET phase = $2, sent_at = 1, fence = 7, doubt_since = $3, doubt_first_sent = $3 WHERE tenant_id = $1",
        scope.tenant(),
        phase,
        since
    )
    .unwrap();
    tx.commit().await.unwrap();
    let before = the_row(house, &scope).await;

    let mut tx = house.store.begin().await.unwrap();
    let again = consented(&owner, START.after(HOUR), HOUR, "access 1", given.unwrap_or_default());
    let again = NewCredential { provider, refresh_token: given.map(Secret::new), ..again };
    house.rooms[0].keep(&mut tx, &scope, CONNECTION, again).await.unwrap();
    tx.commit().await.unwrap();
    (before, the_row(house, &scope).await)
}

#[tokio::test]
async fn a_refresh_token_that_stays_keeps_its_fate_through_a_consent_rl_06() {
    on_both(async |store| {
        let house = House::build(&store).await;
        let fates = [("sent", None), ("claimed", None), ("idle", Some(5)), ("idle", None)];
        for (number, fate) in fates.into_iter().enumerate() {
            for (way, given) in [None, Some("refresh 0")].into_iter().enumerate() {
                let tenant = format!("ten_{number}{way}");
                let (before, after) = consented_again(&house, (&tenant, "notion"), fate, given).await;
                let fate_of = |row: &CredentialRow| {
                    (row.phase.clone(), row.sent_at, row.fence, row.generation, row.consents, row.doubt)
                };
                assert_eq!(fate_of(&after), fate_of(&before), "{fate:?} {given:?}");
                // When a flight is in the air, or a doubt is open, the sweep comes for that; else for the new access token.
                let has_a_fate = fate != ("idle", None);
                assert_eq!(after.due_at == before.due_at, has_a_fate, "{fate:?} {given:?}");
                assert_eq!(opened(&house, &after).await, ("access 1".to_owned(), "refresh 0".to_owned()));
                assert_eq!(after.expires_at, Some(START.after(2 * HOUR).0), "what the consent has brought is kept");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_new_refresh_token_leaves_the_fate_of_the_old_one_behind_rl_37() {
    on_both(async |store| {
        let house = House::build(&store).await;
        let (before, after) = consented_again(&house, ("ten_1", "notion"), ("sent", Some(5)), Some("refresh 1")).await;
        assert_eq!((after.phase.as_str(), after.doubt), ("idle", DoubtColumns::default()));
        assert_eq!((after.generation, after.consents), (before.generation + 1, before.consents + 1));
        assert_eq!(opened(&house, &after).await, ("access 1".to_owned(), "refresh 1".to_owned()));

        // At Google, where a token that stays is not spent, the late answer is of an older consent.
        let (before, after) = consented_again(&house, ("ten_2", "google"), ("sent", None), None).await;
        assert_eq!((after.generation, after.consents), (before.generation + 1, before.consents + 1));
        assert_eq!((after.phase.as_str(), opened(&house, &after).await.1.as_str()), ("idle", "refresh 0"));
    })
    .await;
}
