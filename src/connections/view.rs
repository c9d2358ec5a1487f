//! What people and programs see of a connection: everything but its secrets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::asked::Asked;
use super::starts::Presser;
use super::{Connections, ConnectionsError, Health};
use crate::caller::TenantScope;
use crate::clock::Millis;
use crate::credentials::{is_degraded, last_error};
use crate::ids::{ConnectionId, CredentialId};
use crate::keys::{Owner, Place};
use crate::providers::{Variable, VariableSource, Variables};
use crate::schema::words;
use crate::store::connections::ConnectionRow;
use crate::store::credentials::{CredentialRow, credentials_of_connection};
use crate::store::integrations::{IntegrationRow, integration_by_id};
use crate::store::users::user_by_id;
use crate::store::{Tx, from_json_list, to_json_object};

words! {
    /// `active` works; `awaiting_start` waits for Start in Telegram; `needs_reauth` needs its user, `misconfigured` the
    /// tenant; `quarantined` answered as another account; `revoked` has ended.
    ConnectionStatus: "awaiting_start" | "active" | "needs_reauth" | "misconfigured" | "quarantined" | "revoked";
    /// Whose credential it is.
    CredentialKindName: "user" | "bot" | "client_credentials" | "jwt_bearer" | "basic" | "bearer" | "header";
    /// How one credential stands.
    CredentialStatus: "active" | "needs_reauth" | "misconfigured";
}

/// An external account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct AccountView {
    /// The provider's own id.
    pub id: String,
    /// For display.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub email: Option<String>,
    /// For display.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub name: Option<String>,
}

/// One credential of a connection.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CredentialView {
    /// `crd_…`.
    #[schema(value_type = CredentialId)]
    pub id: String,
    /// `user`, `bot`, ….
    #[schema(value_type = CredentialKindName)]
    pub kind: String,
    /// Granted scopes.
    pub scopes: Vec<String>,
    /// RFC 3339; absent when it never ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    pub expires_at: Option<String>,
    /// Whether it can be refreshed.
    pub refreshable: bool,
    /// `active`, `needs_reauth` or `misconfigured`.
    #[schema(value_type = CredentialStatus)]
    pub status: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    pub last_refreshed_at: Option<String>,
    /// When the refresh token itself ends, which only connecting again can mend; absent when it has no known end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    pub refresh_expires_at: Option<String>,
    /// How it is.
    #[serde(skip)]
    pub health: Health,
    /// The same times for pages.
    #[serde(skip)]
    pub expires: Option<Millis>,
    /// When a refresh last succeeded.
    #[serde(skip)]
    pub last_refreshed: Option<Millis>,
}

/// One external account of one user, or of the tenant, at one provider.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Connection {
    /// `con_…`.
    pub id: ConnectionId,
    /// The tenant's own id of the user; none when it belongs to the tenant.
    #[schema(required)]
    pub user: Option<String>,
    /// Catalogue id.
    pub provider: String,
    /// Chosen by people.
    pub label: String,
    /// The external account.
    pub account: AccountView,
    /// How it stands.
    #[schema(value_type = ConnectionStatus)]
    pub status: String,
    /// Why not `active`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reason: Option<String>,
    /// Asked for but not granted.
    pub missing_scopes: Vec<String>,
    /// What was asked for beside what the integration asks; reconnecting asks for it again.
    #[serde(skip)]
    pub wanted_besides: Vec<String>,
    /// One or more.
    pub credentials: Vec<CredentialView>,
    /// Whether it is the user's default for the provider.
    pub default: bool,
    /// True while something keeps it from being as fresh as one could wish.
    pub degraded: bool,
    /// Code of the last failure, until a success.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub last_error: Option<String>,
    /// How it is, in words: what is the matter and whose move it is.
    pub explanation: String,
    /// RFC 3339.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    pub last_used_at: Option<String>,
    /// Where the user presses Start (Telegram, once).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = "uri")]
    pub start_link: Option<String>,
    /// Status `awaiting_start`: the bot at which Start is pressed, with `@`.
    #[serde(skip)]
    pub bot: Option<String>,
    /// Who has pressed Start: the person at our page is asked whether it was them.
    #[serde(skip)]
    pub pressed_by: Option<Presser>,
    /// How it is.
    #[serde(skip)]
    pub health: Health,
    /// The same time for pages.
    #[serde(skip)]
    pub last_used: Option<Millis>,
    /// `usr_…`.
    #[serde(skip)]
    pub user_id: Option<String>,
}

/// What is sealed of an account.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct SealedAccount {
    pub(super) email: Option<String>,
    pub(super) name: Option<String>,
}

/// What is sealed of a target.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct SealedTarget {
    /// The chat that the vault fixes (Telegram).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) chat_id: Option<i64>,
    /// The user name of the bot in that chat, without `@` (Telegram).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) bot: Option<String>,
    /// What the provider's answer said about its own addresses, let in by the catalogue.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) variables: BTreeMap<String, String>,
}

/// What makes a connection, beside its own row.
pub(super) struct Beside<'a> {
    /// The tenant's own id of the user.
    pub(super) user: Option<String>,
    pub(super) account: SealedAccount,
    /// `user` before `bot`.
    pub(super) credentials: Vec<CredentialRow>,
    pub(super) integration: Option<&'a IntegrationRow>,
    pub(super) bot: Option<String>,
    pub(super) pressed_by: Option<Presser>,
}

pub(super) fn account_place(id: &str) -> Place<'_> {
    Place { record_kind: "connection", record_id: id, field: "account", generation: 0 }
}

pub(super) fn target_place(id: &str) -> Place<'_> {
    Place { record_kind: "connection", record_id: id, field: "target", generation: 0 }
}

/// Whose key seals a connection's own fields.
pub(super) fn owner_of(row: &ConnectionRow) -> Owner {
    match &row.user_id {
        Some(user) => Owner::of_row(&row.tenant_id, "user", user),
        None => Owner::of_row(&row.tenant_id, "tenant", &row.tenant_id),
    }
}

impl Connections {
    pub(super) async fn view(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        row: ConnectionRow,
    ) -> Result<Connection, ConnectionsError> {
        let account: SealedAccount = match &row.account {
            Some(sealed) => self.keys.open_json(tx, &owner_of(&row), account_place(&row.id), sealed).await?,
            None => SealedAccount::default(),
        };
        let user = match &row.user_id {
            Some(id) => user_by_id(tx, scope, id).await?.map(|user| user.external_id),
            None => None,
        };
        let credentials = credentials_of_connection(tx, scope, &row.id).await?;
        let integration = match &row.integration_id {
            Some(id) => integration_by_id(tx, scope, id).await?,
            None => None,
        };
        let (mut bot, mut pressed_by) = (None, None);
        if row.status == "awaiting_start" {
            bot = self.opened_target(tx, &row).await?.bot.map(|name| format!("@{name}"));
            pressed_by = self.presser(tx, scope, &row).await?;
        }
        Ok(self.seen(row, Beside { user, account, credentials, integration: integration.as_ref(), bot, pressed_by }))
    }

    /// A connection, of what is known of it.
    pub(super) fn seen(&self, row: ConnectionRow, beside: Beside<'_>) -> Connection {
        let Beside { user, account, credentials, integration, bot, pressed_by } = beside;
        let now = self.around.now();
        let last_error = credentials.iter().find_map(|credential| last_error(credential, now));
        let status = integration.map(|one| one.status.as_str());
        let degraded = credentials.iter().any(|credential| is_degraded(credential, status, now));
        let views = credentials.into_iter().map(|credential| {
            let health = Health::of_credential(&credential, integration, now);
            credential_view(credential, health)
        });
        let credentials: Vec<_> = views.collect();
        // `user` comes before `bot`: what acts as the person says how the connection is.
        let first = credentials.first().map(|one| one.health);
        let missing_scopes = self.missing(&row, &credentials);
        let health = Health::of_connection(&row.status, row.reason.as_deref(), first);
        Connection {
            explanation: health.explanation(&self.provider_name(&row.provider)),
            health,
            user,
            account: AccountView { id: row.account_id, email: account.email, name: account.name },
            missing_scopes,
            wanted_besides: Asked::of_column(&row.asked_scopes).more,
            degraded,
            credentials,
            last_error,
            created_at: Millis(row.created_at).rfc3339(),
            last_used_at: row.last_used_at.map(|at| Millis(at).rfc3339()),
            last_used: row.last_used_at.map(Millis),
            default: row.is_default == 1,
            start_link: None,
            bot,
            pressed_by,
            id: ConnectionId::stored(row.id),
            provider: row.provider,
            label: row.label,
            status: row.status,
            reason: row.reason,
            user_id: row.user_id,
        }
    }

    fn missing(&self, row: &ConnectionRow, credentials: &[CredentialView]) -> Vec<String> {
        let Some(provider) = self.providers.get(&row.provider) else { return Vec::new() };
        let granted = credentials.iter().map(|one| (one.kind.as_str(), one.scopes.as_slice()));
        Asked::of_column(&row.asked_scopes).missing(provider.descriptor(), granted)
    }

    /// What of these scopes the credential has not that a need means; nothing where it is not known which it has (OA-11).
    #[must_use]
    pub fn scopes_lacking(&self, connection: &Connection, kind: Option<&str>, wanted: &[String]) -> Vec<String> {
        let is_meant = |one: &&CredentialView| kind.is_none_or(|kind| kind == one.kind);
        let meant = connection.credentials.iter().find(is_meant).filter(|one| !one.scopes.is_empty());
        match (self.providers.get(&connection.provider), meant) {
            (Some(provider), Some(meant)) => provider.descriptor().missing_scopes(wanted, &meant.scopes),
            _ => Vec::new(),
        }
    }

    pub(super) async fn opened_target(
        &self,
        tx: &mut Tx,
        row: &ConnectionRow,
    ) -> Result<SealedTarget, ConnectionsError> {
        Ok(match &row.target {
            Some(sealed) => self.keys.open_json(tx, &owner_of(row), target_place(&row.id), sealed).await?,
            None => SealedTarget::default(),
        })
    }

    /// What the vault fixes in calls of a connection.
    ///
    /// # Errors
    /// As every statement.
    pub async fn target_of(
        &self,
        caller: &crate::caller::Caller,
        connection: &str,
    ) -> Result<Target, ConnectionsError> {
        let scope = caller.require(crate::caller::Permission::ConnectionsRead)?;
        let mut tx = self.store.read().await?;
        let row = crate::store::connections::connection_by_id(&mut tx, &scope, connection)
            .await?
            .ok_or(ConnectionsError::NotFound("connection"))?;
        let target = self.opened_target(&mut tx, &row).await?;
        let provider = self.providers.get(&row.provider).ok_or(ConnectionsError::NotFound("provider"))?;
        if provider.descriptor().variables.is_empty() {
            return Ok(Target { chat: target.chat_id, variables: Variables::default() });
        }
        let integration = match &row.integration_id {
            Some(id) => integration_by_id(&mut tx, &scope, id).await?,
            None => None,
        };
        let descriptor = provider.descriptor();
        let mut told = target.variables;
        if integration.is_some() {
            // Where a consent's tokens go the integration says, and nobody else (OA-04).
            let answered = |one: &Variable| matches!(one.from, VariableSource::Answer(_));
            told.retain(|name, _| descriptor.variables.get(name).is_some_and(answered));
        }
        let said = integration.as_ref().map_or("{}", |row| row.variables.as_str());
        let variables = descriptor.stored_variables([said, &to_json_object(&told)]);
        Ok(Target { chat: target.chat_id, variables })
    }
}

/// What the vault fixes in calls of a connection, whatever a tool asks for (fact sheet G.26).
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// The chat (Telegram).
    pub chat: Option<i64>,
    /// What stands in braces in the provider's addresses.
    pub variables: Variables,
}

fn credential_view(row: CredentialRow, health: Health) -> CredentialView {
    CredentialView {
        health,
        refresh_expires_at: row.refresh_expires_at.map(|at| Millis(at).rfc3339()),
        scopes: from_json_list(&row.scopes),
        expires_at: row.expires_at.map(|at| Millis(at).rfc3339()),
        refreshable: row.refresh_token.is_some(),
        last_refreshed_at: row.last_refreshed_at.map(|at| Millis(at).rfc3339()),
        expires: row.expires_at.map(Millis),
        last_refreshed: row.last_refreshed_at.map(Millis),
        id: row.id,
        kind: row.kind,
        status: row.status,
    }
}
