//! Erasing a user: keys first, so that nothing can be read any more, then the providers, from memory (DESIGN section 5).

use std::time::Duration;

use futures_util::future::join_all;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Connections, ConnectionsError};
use crate::audit::{Action, Event};
use crate::caller::{Caller, Permission};
use crate::clock::deadline;
use crate::credentials::Revocation;
use crate::ids::UserId;
use crate::keys::Owner;
use crate::store::bell::{Bell, ring_at_commit};
use crate::store::connections::{ConnectionFilter, ConnectionRow, connection_delete, connection_list};
use crate::store::conversations::conversations_end_by_user;
use crate::store::integrations::integration_list;
use crate::store::users::{user_by_external_id, user_erase};

/// Revoking at all providers together may take this long.
const REVOKE_WITHIN: Duration = Duration::from_secs(10);
/// Connections that are looked for at once.
const BATCH: i64 = 500;

/// What an erasure did.
#[derive(Debug, Serialize, ToSchema)]
pub struct Receipt {
    /// The tenant's own id, for its files; ours no longer has it.
    pub user: String,
    /// RFC 3339.
    #[schema(format = DateTime)]
    pub erased_at: String,
    /// Every connection that there was.
    pub connections: Vec<ErasedConnection>,
}

/// What became of one connection.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErasedConnection {
    /// Catalogue id.
    pub provider: String,
    /// Whether the provider confirmed that the access has ended there too.
    pub revoked: bool,
    /// Where the user can look, and end it, at the provider.
    #[schema(format = "uri")]
    pub removal_page: String,
}

impl Connections {
    /// Erases a user: destroys the user's key, deletes every connection, ends every conversation, and then revokes at the
    /// providers with the tokens that were taken into memory before.
    ///
    /// # Errors
    /// [`ConnectionsError::NotFound`], [`ConnectionsError::Denied`].
    pub async fn erase_user(&self, caller: &Caller, external_id: &str) -> Result<Receipt, ConnectionsError> {
        let scope = caller.require(Permission::UsersWrite)?;
        let now = self.around.now();
        let mut tx = self.store.begin().await?;
        user_by_external_id(&mut tx, &scope, external_id).await?.ok_or(ConnectionsError::NotFound("user"))?;
        // All of them, and before the user is read: whoever is about to connect this user does so before, or finds nobody.
        let integrations = integration_list(&mut tx, &scope).await?;
        self.credentials.lock_clients(&mut tx, &scope, integrations.iter().map(|one| one.id.as_str())).await?;
        let user =
            user_by_external_id(&mut tx, &scope, external_id).await?.ok_or(ConnectionsError::NotFound("user"))?;
        let mut rows: Vec<ConnectionRow> = Vec::new();
        loop {
            let after = rows.last().map(|row| row.id.clone()).unwrap_or_default();
            let user = Some(user.id.as_str());
            let filter = ConnectionFilter { user, after: &after, limit: BATCH, ..ConnectionFilter::default() };
            let more = connection_list(&mut tx, &scope, filter).await?;
            if more.is_empty() {
                break;
            }
            rows.extend(more);
        }
        let mut ending: Vec<(String, Vec<Revocation>)> = Vec::new();
        for row in rows {
            let revocations = self.credentials.end(&mut tx, &scope, &row.id).await?;
            connection_delete(&mut tx, &scope, &row.id, now.0).await?;
            ending.push((row.provider, revocations));
        }
        conversations_end_by_user(&mut tx, &scope, &user.id, "erased", now.0).await?;
        let owner = Owner::User(scope.tenant_id().clone(), UserId::stored(user.id.clone()));
        self.keys.destroy(&mut tx, &owner).await?;
        if !user_erase(&mut tx, &scope, &user.id, now.0).await? {
            return Err(ConnectionsError::NotFound("user"));
        }
        ring_at_commit(&mut tx, Bell::Revoked).await?;
        let event = Event::done(Action::UserErased, "user", &user.id).of_user(Some(&user.id));
        self.audit.record_and_commit(tx, caller, &event).await?;
        self.bells.ring(Bell::Revoked);
        let ended = ending.into_iter().map(|(provider, revocations)| self.revoke_erased(caller, provider, revocations));
        let connections = join_all(ended).await;
        Ok(Receipt { user: external_id.to_owned(), erased_at: now.rfc3339(), connections })
    }

    async fn revoke_erased(&self, caller: &Caller, provider: String, revocations: Vec<Revocation>) -> ErasedConnection {
        let room = self.credentials.clone();
        let by = caller.clone();
        // A client that goes away does not stop the revocation.
        let revoking = tokio::spawn(async move { room.revoke(&by, revocations).await });
        let revoked = deadline(REVOKE_WITHIN, revoking).await.is_ok_and(|done| done.unwrap_or(false));
        let known = self.providers.get(&provider);
        let removal_page = known.map(|known| known.descriptor().removal_page.clone()).unwrap_or_default();
        ErasedConnection { provider, revoked, removal_page }
    }
}
