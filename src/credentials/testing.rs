//! A house for the tests of this room: two processes on one database, and a tenant with one connection.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::refresh::simulation::world::START;
use super::{Credentials, CredentialsParts, NewCredential, Spool};
use crate::audit::Audit;
use crate::caller::TenantScope;
use crate::clock::{Millis, SeededEntropy, Surroundings, TestClock};
use crate::config::RefreshSettings;
use crate::crypto::derive::Purpose;
use crate::health::Health;
use crate::ids::UserId;
use crate::keys::{EnvironmentKey, Keys, Owner};
use crate::outbound::Outbound;
use crate::providers::{CredentialKind, Providers};
use crate::secret::Secret;
use crate::shutdown;
use crate::store::Store;
use crate::store::connections::{ConnectionRow, connection_insert};
use crate::store::integrations::{IntegrationRow, integration_insert};
use crate::store::tenants::{TenantRow, tenant_insert};
use crate::store::testing::TEST;
use crate::store::users::user_ensure;

const ROOT: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
pub(super) const CONNECTION: &str = "con_1";
pub(super) const INTEGRATION: &str = "int_1";
const USER: &str = "usr_1";

/// Two processes on one database, with the hands of their clock.
pub(super) struct House {
    pub(super) rooms: [Credentials; 2],
    pub(super) store: Store,
    pub(super) clock: TestClock,
}

impl House {
    pub(super) async fn build(store: &Store) -> Self {
        let clock = TestClock::at(START);
        let mut rooms = vec![];
        for seed in [1, 2] {
            let around = Surroundings { clock: Arc::new(clock.clone()), entropy: Arc::new(SeededEntropy::new(seed)) };
            let root = EnvironmentKey(Some(Secret::new(ROOT)));
            let keys = Keys::open(&root, store, around.clone()).await.expect("keys");
            let mut tx = store.begin().await.unwrap();
            let audit_key = keys.installation_key(&mut tx, Purpose::Audit).await.expect("a key");
            tx.commit().await.unwrap();
            let (_, handle) = shutdown::channel();
            let outbound = Outbound::new(&[]).expect("a gate");
            rooms.push(Credentials::new(CredentialsParts {
                store: store.clone(),
                keys,
                providers: Providers::new(outbound.clone(), around.clone(), None, &BTreeMap::new())
                    .expect("a catalogue"),
                outbound,
                audit: Audit::new(audit_key, around.clone(), store.clone(), handle.clone()),
                around,
                bells: crate::store::bell::Bells::default(),
                shutdown: handle,
                spool: Spool::off(Health::default()),
                health: Health::default(),
                refresh: RefreshSettings::default(),
            }));
        }
        let rooms = rooms.try_into().expect("two");
        Self { rooms, store: store.clone(), clock }
    }
}

pub(super) fn owner_of(scope: &TenantScope) -> Owner {
    Owner::User(scope.tenant_id().clone(), UserId::stored(USER.to_owned()))
}

pub(super) fn consented<'a>(
    owner: &'a Owner,
    obtained_at: Millis,
    life: Duration,
    access: &str,
    refresh: &str,
) -> NewCredential<'a> {
    NewCredential {
        owner,
        shared_as: None,
        integration: Some(INTEGRATION),
        provider: "google",
        kind: CredentialKind::User,
        access_token: Secret::new(access),
        refresh_token: Some(Secret::new(refresh)),
        token_type: "Bearer".to_owned(),
        scopes: vec!["openid".to_owned()],
        obtained_at,
        expires_at: Some(obtained_at.after(life)),
        refresh_expires_at: None,
    }
}

pub(super) async fn furnish(store: &Store, tenant: &str, scope: &TenantScope) {
    let mut tx = store.begin().await.unwrap();
    let row = TenantRow {
        id: tenant.to_owned(),
        name: tenant.to_owned(),
        environment: "test".to_owned(),
        confirm: "none".to_owned(),
        return_urls: "[]".to_owned(),
        origins: "[]".to_owned(),
        created_at: START.0,
    };
    tenant_insert(&mut tx, TEST, &row).await.unwrap();
    user_ensure(&mut tx, scope, USER, "user", START.0).await.unwrap();
    let integration = IntegrationRow::new(tenant, INTEGRATION, "google", "client", START.0);
    integration_insert(&mut tx, scope, &integration).await.unwrap();
    let connection = ConnectionRow {
        tenant_id: tenant.to_owned(),
        id: CONNECTION.to_owned(),
        user_id: Some(USER.to_owned()),
        provider: "google".to_owned(),
        integration_id: Some(INTEGRATION.to_owned()),
        account_id: "account".to_owned(),
        account: None,
        target: None,
        label: String::new(),
        is_default: 1,
        status: "active".to_owned(),
        reason: None,
        asked_scopes: "{}".to_owned(),
        created_at: START.0,
        updated_at: START.0,
        last_used_at: None,
    };
    connection_insert(&mut tx, scope, &connection).await.unwrap();
    tx.commit().await.unwrap();
}
