//! Grants: which user may use which agent or voice (brief M17).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Workspaces, WorkspacesError};
use crate::audit::{Action, Event};
use crate::caller::{Caller, Permission};
use crate::clock::Millis;
use crate::invalid::Invalid;
use crate::schema::words;
use crate::store::agents::{GrantRow, grant_delete, grant_list, grant_put};
use crate::store::users::{user_by_external_id, user_by_id};

words! {
    /// What a grant is about.
    ResourceType: "agent" | "voice";
    /// How far a grant goes.
    PermissionLevel: "viewer" | "editor" | "admin";
}

/// A grant to be given.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantDraft {
    /// The tenant's own id of the user.
    pub user: String,
    /// `agent` or `voice`.
    #[schema(value_type = ResourceType)]
    pub resource_type: String,
    /// ElevenLabs' id.
    pub resource_id: String,
    /// `viewer` (default), `editor` or `admin`.
    #[serde(default)]
    #[schema(value_type = Option<PermissionLevel>)]
    pub permission_level: Option<String>,
}

/// A grant.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Grant {
    /// The tenant's own id of the user.
    pub user: String,
    /// `agent` or `voice`.
    #[schema(value_type = ResourceType)]
    pub resource_type: String,
    /// ElevenLabs' id.
    pub resource_id: String,
    /// `viewer`, `editor` or `admin`.
    #[schema(value_type = PermissionLevel)]
    pub permission_level: String,
    /// RFC 3339.
    #[schema(format = DateTime)]
    pub created_at: String,
}

impl Workspaces {
    /// Gives a grant, in place of an earlier one for the same thing.
    ///
    /// # Errors
    /// [`WorkspacesError::NotFound`] for an unknown user, [`WorkspacesError::Invalid`].
    pub async fn grant_give(&self, caller: &Caller, draft: GrantDraft) -> Result<Grant, WorkspacesError> {
        let scope = caller.require(Permission::GrantsWrite)?;
        let level = draft.permission_level.unwrap_or_else(|| "viewer".to_owned());
        let mut invalid = Invalid::default();
        if !["agent", "voice"].contains(&draft.resource_type.as_str()) {
            invalid.add("resource_type", "must be agent or voice");
        }
        if !["viewer", "editor", "admin"].contains(&level.as_str()) {
            invalid.add("permission_level", "must be viewer, editor or admin");
        }
        if draft.resource_id.is_empty() || draft.resource_id.len() > 100 {
            invalid.add("resource_id", "must be ElevenLabs' id");
        }
        invalid.into_result()?;
        let mut tx = self.store.begin().await?;
        let user = user_by_external_id(&mut tx, &scope, &draft.user).await?.ok_or(WorkspacesError::NotFound("user"))?;
        let row = GrantRow {
            user_id: user.id,
            resource_type: draft.resource_type,
            resource_id: draft.resource_id,
            permission_level: level,
            created_at: self.around.now().0,
        };
        grant_put(&mut tx, &scope, &row).await?;
        let event = Event::done(Action::GrantGiven, "grant", &row.resource_id).of_user(Some(&row.user_id));
        self.audit.record_and_commit(tx, caller, &event).await?;
        Ok(shown(row, user.external_id))
    }

    /// Grants of a user, or of everybody.
    ///
    /// # Errors
    /// [`WorkspacesError::Denied`].
    pub async fn grant_list(&self, caller: &Caller, user: Option<&str>) -> Result<Vec<Grant>, WorkspacesError> {
        let scope = caller.require(Permission::GrantsWrite)?;
        let mut tx = self.store.read().await?;
        let user_id = match user {
            Some(external_id) => match user_by_external_id(&mut tx, &scope, external_id).await? {
                Some(row) => Some(row.id),
                None => return Ok(Vec::new()),
            },
            None => None,
        };
        let mut grants = Vec::new();
        for row in grant_list(&mut tx, &scope, user_id.as_deref()).await? {
            if let Some(user) = user_by_id(&mut tx, &scope, &row.user_id).await? {
                grants.push(shown(row, user.external_id));
            }
        }
        Ok(grants)
    }

    /// Takes a grant.
    ///
    /// # Errors
    /// [`WorkspacesError::NotFound`] when there is none.
    pub async fn grant_take(&self, caller: &Caller, draft: &GrantDraft) -> Result<(), WorkspacesError> {
        let scope = caller.require(Permission::GrantsWrite)?;
        let mut tx = self.store.begin().await?;
        let user =
            user_by_external_id(&mut tx, &scope, &draft.user).await?.ok_or(WorkspacesError::NotFound("grant"))?;
        if !grant_delete(&mut tx, &scope, &user.id, &draft.resource_type, &draft.resource_id).await? {
            return Err(WorkspacesError::NotFound("grant"));
        }
        let event = Event::done(Action::GrantTaken, "grant", &draft.resource_id).of_user(Some(&user.id));
        self.audit.record_and_commit(tx, caller, &event).await?;
        Ok(())
    }
}

fn shown(row: GrantRow, user: String) -> Grant {
    Grant {
        user,
        resource_type: row.resource_type,
        resource_id: row.resource_id,
        permission_level: row.permission_level,
        created_at: Millis(row.created_at).rfc3339(),
    }
}
