//! What the rooms may rely on, told on both databases: every public function of the store, with its contract.
//!
//! Each story runs on a database of its own with two tenants. `ten_a` has two users, so that a scope which is bound to
//! one of them can be seen to hide the other; `ten_b` is the neighbour, who must see and change nothing.

mod activity;
mod agents;
mod connect;
mod connections;
mod conversations;
mod coverage;
mod credentials;
mod due;
mod health;
mod imports;
mod integrations;
mod keys;
mod notices;
mod opening;
mod people;
mod plans;
mod records;
mod refresh_rows;
mod revocations;
mod schema;
mod telegram;
mod telling;
mod tenants;
mod transactions;

use std::fmt::Debug;

use futures_util::future::join_all;

use super::agents::AgentRow;
use super::connections::{ConnectionRow, connection_insert, connection_use_credential};
use super::credentials::{CredentialName, CredentialRow, DoubtColumns, credential_insert, credential_load};
use super::due::PutBack;
use super::integrations::{IntegrationRow, integration_insert};
use super::tenants::{TenantRow, tenant_insert};
use super::testing::{TEST, on_both, scope_of, user_scope};
use super::users::user_ensure;
use super::workspaces::{WorkspaceRow, workspace_insert};
use super::{Store, StoreError, Tx};
use crate::caller::TenantScope;

/// The tenant whose rows the stories are about.
const A: &str = "ten_a";
/// Its neighbour.
const B: &str = "ten_b";
/// A user of [`A`].
const USER: &str = "usr_1";
/// Another user of [`A`].
const OTHER: &str = "usr_2";
/// A user of [`B`].
const STRANGER: &str = "usr_3";
/// When the stories begin.
const NOW: i64 = 1_800_000_000_000;
/// Callers at once, where one must win.
const CALLERS: usize = 20;
/// Every value a byte can have, since sealed values hold any.
fn bytes() -> Vec<u8> {
    (0..=255).collect()
}
/// JSON whose text must come back as it was: order, escapes, blanks, other scripts.
const JSON: &str = r#"{"z":1, "a":["ü","\n","\"",""]}"#;

/// The whole tenant [`A`].
fn a() -> TenantScope {
    scope_of(A)
}

/// The whole tenant [`B`].
fn b() -> TenantScope {
    scope_of(B)
}

/// Both tenants with their users, integrations and one workspace.
async fn furnish(store: &Store) {
    let mut tx = store.begin().await.expect("a transaction");
    for (tenant, users) in [(A, &[USER, OTHER][..]), (B, &[STRANGER])] {
        tenant_insert(&mut tx, TEST, &tenant_row(tenant, &format!("name of {tenant}"))).await.expect("a tenant");
        for user in users {
            user_ensure(&mut tx, &scope_of(tenant), user, &format!("ext {user}"), NOW).await.expect("a user");
        }
        let row = integration_row(&format!("int_{tenant}"), "google");
        integration_insert(&mut tx, &scope_of(tenant), &row).await.expect("an integration");
    }
    workspace_insert(&mut tx, &a(), &workspace_row("wks_1", "main")).await.expect("a workspace");
    tx.commit().await.expect("committed");
}

/// Tells a story in a furnished house on both databases.
async fn in_a_house<F: AsyncFn(Store)>(story: F) {
    on_both(async |store: Store| {
        furnish(&store).await;
        story(store).await;
    })
    .await;
}

/// Runs `act` for [`CALLERS`] callers at once, each in a transaction of its own, and gives what each got.
async fn race<T>(store: &Store, act: impl AsyncFn(&mut Tx, usize) -> Result<T, StoreError>) -> Vec<T> {
    let one = async |caller: usize| {
        let mut tx = store.begin().await.expect("a transaction");
        let got = act(&mut tx, caller).await.expect("an answer");
        tx.commit().await.expect("committed");
        got
    };
    join_all((0..CALLERS).map(one)).await
}

/// Asserts that `act` meets a row that is there already, and leaves nothing behind.
async fn assert_conflict<T: Debug>(store: &Store, act: impl AsyncFnOnce(&mut Tx) -> Result<T, StoreError>) {
    let mut tx = store.begin().await.expect("a transaction");
    let got = act(&mut tx).await;
    assert!(matches!(got, Err(StoreError::Conflict(_))), "{got:?}");
    tx.roll_back().await.expect("rolled back");
}

/// Equal in every column, also for rows that cannot be compared.
#[track_caller]
fn assert_same<T: Debug>(got: &T, wanted: &T) {
    assert_eq!(format!("{got:?}"), format!("{wanted:?}"));
}

fn ids<T>(rows: &[T], id: impl Fn(&T) -> &str) -> Vec<String> {
    rows.iter().map(|row| id(row).to_owned()).collect()
}

fn tenant_row(id: &str, name: &str) -> TenantRow {
    TenantRow {
        id: id.to_owned(),
        name: name.to_owned(),
        environment: "production".to_owned(),
        confirm: "platform".to_owned(),
        return_urls: JSON.to_owned(),
        origins: "[]".to_owned(),
        created_at: NOW,
    }
}

fn integration_row(id: &str, provider: &str) -> IntegrationRow {
    IntegrationRow {
        client_secret: Some(bytes()),
        scopes: JSON.to_owned(),
        ..IntegrationRow::new(A, id, provider, "client", NOW)
    }
}

fn workspace_row(id: &str, name: &str) -> WorkspaceRow {
    WorkspaceRow {
        tenant_id: A.to_owned(),
        id: id.to_owned(),
        name: name.to_owned(),
        region: "us".to_owned(),
        user_id: None,
        primary_key: Some(bytes()),
        secondary_key: None,
        active_slot: "primary".to_owned(),
        tool_header: vec![0, 255],
        tool_header_hash: "header hash".to_owned(),
        previous_tool_header_hash: None,
        created_at: NOW,
        updated_at: NOW,
    }
}

fn agent_row(id: &str, agent_id: &str) -> AgentRow {
    AgentRow {
        tenant_id: A.to_owned(),
        id: id.to_owned(),
        agent_id: agent_id.to_owned(),
        workspace_tenant_id: A.to_owned(),
        workspace_id: "wks_1".to_owned(),
        access: "all_users".to_owned(),
        needs: JSON.to_owned(),
        client_variables: "[]".to_owned(),
        broker: "{}".to_owned(),
        max_duration: 3600,
        created_at: NOW,
        updated_at: NOW,
    }
}

fn connection_row(id: &str, user: Option<&str>) -> ConnectionRow {
    ConnectionRow {
        tenant_id: A.to_owned(),
        id: id.to_owned(),
        user_id: user.map(str::to_owned),
        provider: "google".to_owned(),
        integration_id: Some(format!("int_{A}")),
        account_id: format!("account of {id}"),
        account: Some(bytes()),
        target: None,
        label: String::new(),
        is_default: 1,
        status: "active".to_owned(),
        reason: None,
        asked_scopes: JSON.to_owned(),
        created_at: NOW,
        updated_at: NOW,
        last_used_at: None,
    }
}

fn credential_row(id: &str) -> CredentialRow {
    CredentialRow {
        tenant_id: A.to_owned(),
        id: id.to_owned(),
        integration_id: Some(format!("int_{A}")),
        provider: "google".to_owned(),
        kind: "user".to_owned(),
        owner_kind: "user".to_owned(),
        owner_id: USER.to_owned(),
        shared_as: None,
        access_token: Some(bytes()),
        refresh_token: Some(vec![7]),
        token_type: "Bearer".to_owned(),
        scopes: JSON.to_owned(),
        obtained_at: NOW,
        expires_at: Some(NOW + 3_600_000),
        refresh_expires_at: None,
        generation: 1,
        fence: 0,
        consents: 1,
        stored_fence: None,
        lease_owner: None,
        lease_until: None,
        phase: "idle".to_owned(),
        sent_at: None,
        doubt: DoubtColumns::default(),
        due_at: Some(NOW + 3_000_000),
        slot_at: None,
        warned_for: None,
        status: "active".to_owned(),
        reason: None,
        attempts: 0,
        next_attempt_at: None,
        unrecognised_count: 0,
        unrecognised_since: 0,
        last_error: None,
        last_error_at: None,
        last_refreshed_at: None,
        last_used_at: NOW,
        created_at: NOW,
    }
}

fn name_of(id: &str) -> CredentialName {
    CredentialName { tenant_id: A.to_owned(), id: id.to_owned() }
}

/// A connection of [`USER`] that uses a credential.
async fn connect(tx: &mut Tx, connection: &str, credential: &str) {
    connection_insert(tx, &a(), &connection_row(connection, Some(USER))).await.expect("a connection");
    credential_insert(tx, &a(), &credential_row(credential)).await.expect("a credential");
    connection_use_credential(tx, &a(), connection, credential, "user").await.expect("used");
}

async fn load(tx: &mut Tx, id: &str) -> CredentialRow {
    credential_load(tx, TEST, &name_of(id)).await.expect("an answer").expect("a credential")
}

/// A claimed row of [`A`] on its way back.
fn put_back(id: &str, claimed: i64, due_at: i64, queued: bool) -> [PutBack; 1] {
    [PutBack { tenant_id: A.to_owned(), id: id.to_owned(), claimed, due_at, queued }]
}
