//! Writing what an import brings, all of it with a few statements.

use std::collections::{HashMap, HashSet};

use super::import::{ImportCredential, ImportRow};
use super::view::{Beside, SealedAccount, account_place};
use super::{Connection, Connections, ConnectionsError};
use crate::audit::{Action, Event};
use crate::caller::{Caller, TenantScope};
use crate::clock::Millis;
use crate::credentials::{FirstCredential, NewCredential};
use crate::ids::{ConnectionId, UserId};
use crate::invalid::Invalid;
use crate::keys::{Owner, Sealer};
use crate::providers::CredentialKind;
use crate::store::Tx;
use crate::store::connections::ConnectionRow;
use crate::store::credentials::CredentialRow;
use crate::store::imports::{connections_held, connections_insert, users_ensure};
use crate::store::integrations::IntegrationRow;

/// A connection that has moved in.
pub(super) struct MovedIn {
    /// `con_…`.
    pub(super) id: String,
    /// As it is seen from outside; none where that has to be read, since others share what it lives on.
    pub(super) seen: Option<Connection>,
}

/// On its way.
struct Moving {
    row: ConnectionRow,
    /// The tenant's own id.
    user: String,
    account: SealedAccount,
    /// What nobody shares.
    own: Vec<ImportCredential>,
    shared: Vec<ImportCredential>,
}

impl Connections {
    /// Writes every row, in order. Whoever is connected already keeps what there is.
    pub(super) async fn move_in(
        &self,
        caller: &Caller,
        tx: &mut Tx,
        scope: &TenantScope,
        integrations: &[IntegrationRow],
        rows: Vec<ImportRow>,
    ) -> Result<Vec<MovedIn>, ConnectionsError> {
        let users = self.users_of(tx, scope, &rows).await?;
        let ids: Vec<&str> = users.values().map(String::as_str).collect();
        let held = connections_held(tx, scope, &ids).await?;
        check_free(&rows, &users, &held)?;
        let sealers = self.keys.sealers(tx, scope.tenant_id(), &ids).await?;
        let mut with_default: HashSet<_> = held.into_iter().map(|(user, provider, _)| (user, provider)).collect();
        let mut moving = Vec::with_capacity(rows.len());
        for row in rows {
            let user = users.get(&row.user).ok_or(ConnectionsError::NotFound("user"))?;
            let sealer = sealers.get(user).ok_or(ConnectionsError::NotFound("user"))?;
            let is_first = with_default.insert((user.clone(), row.provider.clone()));
            moving.push(self.moving(scope, integrations, (user, is_first), sealer, row)?);
        }
        connections_insert(tx, scope, &moving.iter().map(|one| &one.row).collect::<Vec<_>>()).await?;
        let mut kept = self.keep_own(tx, scope, integrations, &sealers, &mut moving).await?;
        let shares: Vec<bool> = moving.iter().map(|one| !one.shared.is_empty()).collect();
        self.keep_shared(tx, scope, &mut moving).await?;
        let events: Vec<_> = moving.iter().map(|one| imported(&one.row)).collect();
        self.audit.record_all(tx, caller, &events).await?;
        let moved = moving.into_iter().zip(shares).map(|(one, shares)| {
            let id = one.row.id.clone();
            let own = kept.remove(&id).filter(|_| !shares);
            MovedIn { id, seen: own.map(|own| self.seen_at_once(integrations, one, own)) }
        });
        Ok(moved.collect())
    }

    /// What was just written, without reading it again.
    fn seen_at_once(
        &self,
        integrations: &[IntegrationRow],
        Moving { row, user, account, .. }: Moving,
        mut credentials: Vec<CredentialRow>,
    ) -> Connection {
        credentials.sort_by(|one, other| other.kind.cmp(&one.kind));
        let integration = integrations.iter().find(|one| row.integration_id.as_ref() == Some(&one.id));
        let beside = Beside { user: Some(user), account, credentials, integration, bot: None, pressed_by: None };
        self.seen(row, beside)
    }

    /// Every user's id by the tenant's own; whoever is new is made.
    async fn users_of(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        rows: &[ImportRow],
    ) -> Result<HashMap<String, String>, ConnectionsError> {
        let mut named = HashSet::new();
        let named = rows.iter().map(|row| row.user.as_str()).filter(|user| named.insert(*user));
        let named: Vec<_> = named.map(|user| (UserId::new(&self.around).to_string(), user)).collect();
        let there = users_ensure(tx, scope, &named, self.around.now().0).await?;
        Ok(there.into_iter().map(|row| (row.external_id, row.id)).collect())
    }

    fn moving(
        &self,
        scope: &TenantScope,
        integrations: &[IntegrationRow],
        (user, is_first): (&str, bool),
        sealer: &Sealer,
        row: ImportRow,
    ) -> Result<Moving, ConnectionsError> {
        let now = self.around.now().0;
        let id = ConnectionId::new(&self.around).to_string();
        let integration = integrations.iter().find(|one| one.provider == row.provider);
        let account = SealedAccount { email: row.account.email, name: row.account.name };
        let known = self.providers.get(&row.provider);
        let is_shared = |one: &ImportCredential| {
            known.as_ref().is_some_and(|known| known.shared_as(kind_of(one), &row.account.id).is_some())
        };
        let (shared, own) = row.credentials.into_iter().partition(is_shared);
        let row_of = ConnectionRow {
            tenant_id: scope.tenant().to_owned(),
            is_default: i64::from(is_first),
            user_id: Some(user.to_owned()),
            provider: row.provider,
            integration_id: integration.map(|one| one.id.clone()),
            account: Some(sealer.seal_json(account_place(&id), &account)?),
            account_id: row.account.id,
            target: None,
            label: row.label.trim().chars().filter(|c| !c.is_control()).take(100).collect(),
            status: "active".to_owned(),
            reason: None,
            asked_scopes: "{}".to_owned(),
            created_at: now,
            updated_at: now,
            last_used_at: None,
            id,
        };
        Ok(Moving { row: row_of, user: row.user, account, own, shared })
    }

    /// Keeps what nobody shares; by connection.
    async fn keep_own(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        integrations: &[IntegrationRow],
        sealers: &HashMap<String, Sealer>,
        moving: &mut [Moving],
    ) -> Result<HashMap<String, Vec<CredentialRow>>, ConnectionsError> {
        let now = self.around.now();
        let mut first = Vec::with_capacity(moving.len());
        for Moving { row, own, .. } in moving {
            let row: &ConnectionRow = row;
            let user = row.user_id.as_deref().unwrap_or_default();
            let sealer = sealers.get(user).ok_or(ConnectionsError::NotFound("user"))?;
            for credential in std::mem::take(own) {
                let new = brought(row, sealer.owner(), None, credential, now);
                first.push(FirstCredential { connection: &row.id, sealer, new });
            }
        }
        let mut kept: HashMap<String, Vec<CredentialRow>> = HashMap::new();
        for (connection, row) in self.credentials.keep_first(tx, scope, integrations, first).await? {
            kept.entry(connection.to_owned()).or_default().push(row);
        }
        Ok(kept)
    }

    /// Keeps what connections of one place share, one by one: whoever brings it anew brings it for all.
    async fn keep_shared(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        moving: &mut [Moving],
    ) -> Result<(), ConnectionsError> {
        let tenant = Owner::Tenant(scope.tenant_id().clone());
        for Moving { row, shared, .. } in moving {
            let known = self.providers.get(&row.provider);
            for credential in std::mem::take(shared) {
                let shared_as = known.as_ref().and_then(|known| known.shared_as(kind_of(&credential), &row.account_id));
                let new = brought(row, &tenant, shared_as, credential, self.around.now());
                self.credentials.keep(tx, scope, &row.id, new).await?;
            }
        }
        Ok(())
    }
}

fn kind_of(credential: &ImportCredential) -> CredentialKind {
    CredentialKind::parse(&credential.kind).unwrap_or(CredentialKind::User)
}

fn brought<'a>(
    row: &'a ConnectionRow,
    owner: &'a Owner,
    shared_as: Option<&'a str>,
    credential: ImportCredential,
    now: Millis,
) -> NewCredential<'a> {
    NewCredential {
        owner,
        shared_as,
        integration: row.integration_id.as_deref(),
        provider: &row.provider,
        kind: kind_of(&credential),
        access_token: credential.access_token,
        refresh_token: credential.refresh_token,
        token_type: "Bearer".to_owned(),
        scopes: credential.scopes,
        obtained_at: now,
        expires_at: credential.expires_at.as_deref().and_then(|text| Millis::parse_rfc3339(text).ok()),
        refresh_expires_at: None,
    }
}

fn imported(row: &ConnectionRow) -> Event<'_> {
    Event::done(Action::ConnectionImported, "connection", &row.id).of_user(row.user_id.as_deref())
}

fn check_free(
    rows: &[ImportRow],
    users: &HashMap<String, String>,
    held: &[(String, String, String)],
) -> Result<(), ConnectionsError> {
    let held: HashSet<_> = held.iter().map(|(user, provider, account)| [user, provider, account]).collect();
    let mut taken = Invalid::default();
    for (index, row) in rows.iter().enumerate() {
        if users.get(&row.user).is_some_and(|user| held.contains(&[user, &row.provider, &row.account.id])) {
            let field = format!("connections[{index}].account.id");
            taken.add(field, "is connected for this user already; disconnect it first");
        }
    }
    taken.into_result().map_err(ConnectionsError::AlreadyConnected)
}
