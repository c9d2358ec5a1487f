//! Looking at connections, naming them, and ending them.

use serde::Deserialize;
use utoipa::ToSchema;

use super::{Connection, Connections, ConnectionsError};
use crate::audit::{Action, Event};
use crate::caller::{Caller, Permission, TenantScope};
use crate::ids::ConnectionId;
use crate::invalid::{Invalid, checked_name};
use crate::store::bell::{Bell, ring_at_commit};
use crate::store::connections::{
    ConnectionFilter, connection_by_id, connection_clear_default, connection_delete, connection_list, connection_rename,
};
use crate::store::conversations::conversations_end_by_connection;
use crate::store::users::user_by_external_id;
use crate::store::{StoreError, Tx};

/// How a connection can stand.
const STATUSES: [&str; 6] = ["awaiting_start", "active", "needs_reauth", "misconfigured", "quarantined", "revoked"];

/// What a list is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    /// The tenant's own id of the user.
    pub user: Option<String>,
    /// Catalogue id.
    pub provider: Option<String>,
    /// One of the statuses that API.md names.
    pub status: Option<String>,
    /// After this connection.
    pub after: String,
    /// At most this many.
    pub limit: i64,
}

/// What may be changed.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectionChange {
    /// At most 100 characters; empty takes the label away.
    #[schema(max_length = 100)]
    pub label: Option<String>,
    /// Makes it the user's default for its provider.
    pub default: Option<bool>,
}

/// How a disconnection went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnected {
    /// Whether the provider confirmed that the access has ended there too. If not, it is asked again for a day.
    pub revoked: bool,
}

impl Connections {
    /// One connection.
    ///
    /// # Errors
    /// [`ConnectionsError::NotFound`], [`ConnectionsError::Denied`].
    pub async fn connection(&self, caller: &Caller, id: &ConnectionId) -> Result<Connection, ConnectionsError> {
        let scope = caller.require(Permission::ConnectionsRead)?;
        let mut tx = self.store.read().await?;
        self.connection_in(&mut tx, &scope, id.as_str()).await
    }

    /// Connections in the order of their making.
    ///
    /// # Errors
    /// [`ConnectionsError::Denied`], [`ConnectionsError::Invalid`] for a status that there is not.
    pub async fn connection_list(
        &self,
        caller: &Caller,
        filter: &ListFilter,
    ) -> Result<Vec<Connection>, ConnectionsError> {
        let scope = caller.require(Permission::ConnectionsRead)?;
        if filter.status.as_ref().is_some_and(|status| !STATUSES.contains(&status.as_str())) {
            return Err(Invalid::one("status", format!("must be one of {}", STATUSES.join(", "))).into());
        }
        let mut tx = self.store.read().await?;
        let user = match &filter.user {
            Some(external_id) => match user_by_external_id(&mut tx, &scope, external_id).await? {
                Some(user) => Some(user.id),
                None => return Ok(Vec::new()),
            },
            None => None,
        };
        let narrowed = ConnectionFilter {
            user: user.as_deref(),
            provider: filter.provider.as_deref(),
            status: filter.status.as_deref(),
            after: &filter.after,
            limit: filter.limit,
        };
        let mut list = Vec::new();
        for row in connection_list(&mut tx, &scope, narrowed).await? {
            list.push(self.view(&mut tx, &scope, row).await?);
        }
        Ok(list)
    }

    /// Changes label and default mark.
    ///
    /// # Errors
    /// [`ConnectionsError::NotFound`], [`ConnectionsError::Invalid`].
    pub async fn connection_change(
        &self,
        caller: &Caller,
        id: &ConnectionId,
        change: ConnectionChange,
    ) -> Result<Connection, ConnectionsError> {
        let scope = caller.require(Permission::ConnectionsWrite)?;
        let mut tx = self.store.begin().await?;
        let row =
            connection_by_id(&mut tx, &scope, id.as_str()).await?.ok_or(ConnectionsError::NotFound("connection"))?;
        let (mut label, mut is_default) = (row.label, row.is_default);
        if let Some(wished) = change.label {
            label = if wished.trim().is_empty() { String::new() } else { checked_name("label", &wished, 100)? };
        }
        match change.default {
            Some(true) => {
                connection_clear_default(&mut tx, &scope, row.user_id.as_deref(), &row.provider).await?;
                is_default = 1;
            }
            Some(false) => return Err(Invalid::one("default", "make another connection the default instead").into()),
            None => {}
        }
        connection_rename(&mut tx, &scope, &row.id, (&label, is_default), self.around.now().0).await?;
        let event = Event::done(Action::ConnectionChanged, "connection", &row.id).of_user(row.user_id.as_deref());
        self.audit.record(&mut tx, caller, &event).await?;
        let view = self.connection_in(&mut tx, &scope, id.as_str()).await?;
        tx.commit().await?;
        Ok(view)
    }

    /// Refreshes a connection's credentials now.
    ///
    /// # Errors
    /// See [`crate::credentials::CredentialError`].
    pub async fn connection_refresh(&self, caller: &Caller, id: &ConnectionId) -> Result<Connection, ConnectionsError> {
        caller.require(Permission::ConnectionsWrite)?;
        self.connection(caller, id).await?;
        self.credentials.refresh_now(caller, id.as_str()).await?;
        self.connection(caller, id).await
    }

    /// Ends a connection: ours first and at once, with every conversation that may use it; then at the provider.
    ///
    /// # Errors
    /// [`ConnectionsError::NotFound`], [`ConnectionsError::Denied`].
    pub async fn disconnect(&self, caller: &Caller, id: &ConnectionId) -> Result<Disconnected, ConnectionsError> {
        let scope = caller.require(Permission::ConnectionsWrite)?;
        let mut tx = self.store.begin().await?;
        let row =
            connection_by_id(&mut tx, &scope, id.as_str()).await?.ok_or(ConnectionsError::NotFound("connection"))?;
        let now = self.around.now().0;
        conversations_end_by_connection(&mut tx, &scope, id.as_str(), "disconnected", now).await?;
        let revocations = self.credentials.end(&mut tx, &scope, id.as_str()).await?;
        self.credentials.remember(&mut tx, &scope, &revocations).await?;
        if !connection_delete(&mut tx, &scope, id.as_str(), now).await? {
            return Err(ConnectionsError::NotFound("connection"));
        }
        ring_at_commit(&mut tx, Bell::Revoked).await?;
        let event = Event::done(Action::ConnectionDeleted, "connection", &row.id).of_user(row.user_id.as_deref());
        self.audit.record_and_commit(tx, caller, &event).await?;
        self.bells.ring(Bell::Revoked);
        let room = self.credentials.clone();
        let by = caller.clone();
        // The provider's answer is waited for, but a browser that goes away does not stop the revocation.
        let revoked = tokio::spawn(async move { room.revoke(&by, revocations).await }).await.unwrap_or(false);
        Ok(Disconnected { revoked })
    }

    pub(super) async fn connection_in(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        id: &str,
    ) -> Result<Connection, ConnectionsError> {
        let row = connection_by_id(tx, scope, id).await?.ok_or(ConnectionsError::NotFound("connection"))?;
        self.view(tx, scope, row).await
    }

    /// Whether a user has no other connection to a provider, so that the first one becomes the default.
    pub(super) async fn is_first(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        user: Option<&str>,
        provider: &str,
    ) -> Result<bool, StoreError> {
        let filter = ConnectionFilter { user, provider: Some(provider), limit: 1, ..ConnectionFilter::default() };
        Ok(connection_list(tx, scope, filter).await?.is_empty())
    }
}
