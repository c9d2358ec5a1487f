//! The keys of a workspace: two slots and one switch. Keys go in and are used; they never come out.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{OWNER_IS_NAMED, Workspaces, WorkspacesError};
use crate::audit::{Action, Event};
use crate::caller::{Caller, Permission, TenantScope};
use crate::elevenlabs::region_is_known;
use crate::ids::{TenantId, WorkspaceId};
use crate::invalid::{Invalid, checked_name};
use crate::keys::{Owner, Place, hash_of, mint};
use crate::schema::words;
use crate::secret::Secret;
use crate::store::users::user_by_external_id;
use crate::store::workspaces::{
    WorkspaceRow, workspace_by_id, workspace_by_name, workspace_insert, workspace_list, workspace_share,
    workspace_shared, workspace_update,
};
use crate::store::{StoreError, Tx};

words! {
    /// A row of the regional hosts table.
    Region: "default" | "us" | "eu" | "in" | "sg";
    /// One of the two places for a workspace's API key.
    KeySlot: "primary" | "secondary";
}

/// What a tenant, or the operator, says about a workspace.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceDraft {
    /// Fills the active slot; absent keeps what there is.
    #[schema(value_type = Option<String>, write_only)]
    pub api_key: Option<Secret>,
    /// A row of the regional hosts table: `default`, `us`, `eu`, `in`, `sg`.
    #[schema(value_type = Option<Region>)]
    pub region: Option<String>,
    /// The tenant's own id of the user it belongs to.
    pub user: Option<String>,
}

/// A workspace, without its keys.
#[derive(Debug, Serialize, ToSchema)]
pub struct Workspace {
    /// `wks_…`.
    pub id: WorkspaceId,
    /// Unique in its tenant.
    pub name: String,
    /// A row of the regional hosts table.
    #[schema(value_type = Region)]
    pub region: String,
    /// Which slots are filled, and which is used.
    pub keys: Slots,
    /// The value of the workspace secret behind `X-Valetkey-Workspace`. It proves a workspace, not a user.
    #[serde(skip)]
    pub tool_header_value: Secret,
    /// Where ElevenLabs asks for start data of inbound calls.
    #[schema(format = "uri")]
    pub initiation_url: String,
    /// Where ElevenLabs reports ended calls.
    #[schema(format = "uri")]
    pub events_url: String,
}

/// Two slots and one switch.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Slots {
    /// Whether there is a key.
    pub primary: bool,
    /// Whether there is a key.
    pub secondary: bool,
    /// `primary` or `secondary`.
    #[schema(value_type = KeySlot)]
    pub active: String,
}

/// What a call to ElevenLabs needs.
#[derive(Debug)]
pub struct WorkspaceAccess {
    /// A row of the regional hosts table.
    pub region: String,
    /// The key in the active slot.
    pub api_key: Secret,
}

impl Workspaces {
    /// Makes or changes a workspace.
    ///
    /// # Errors
    /// [`WorkspacesError::Invalid`], [`WorkspacesError::Denied`].
    pub async fn workspace_put(
        &self,
        caller: &Caller,
        name: &str,
        draft: WorkspaceDraft,
    ) -> Result<Workspace, WorkspacesError> {
        let scope = caller.require(Permission::WorkspacesWrite)?;
        let name = checked_name("name", name, 100)?;
        check_draft(&draft)?;
        let mut tx = self.store.begin().await?;
        let existing = workspace_by_name(&mut tx, &scope, &name).await?;
        if existing.is_none() && draft.api_key.is_none() {
            return Err(Invalid::one("api_key", "must be given for a new workspace").into());
        }
        let is_new = existing.is_none();
        let mut row = match existing {
            Some(row) => row,
            None => self.new_row(&mut tx, &scope, name, draft.user.as_deref()).await?,
        };
        if let Some(region) = draft.region {
            row.region = region;
        }
        if let Some(key) = &draft.api_key {
            let slot = if row.active_slot == "primary" { "primary_key" } else { "secondary_key" };
            let sealed =
                self.keys.seal(&mut tx, &Owner::Tenant(scope.tenant_id().clone()), place(&row.id, slot), key).await?;
            if slot == "primary_key" { row.primary_key = Some(sealed) } else { row.secondary_key = Some(sealed) }
        }
        row.updated_at = self.around.now().0;
        if is_new {
            workspace_insert(&mut tx, &scope, &row).await.map_err(|error| match error {
                StoreError::Conflict(_) => WorkspacesError::Conflict("a workspace of this name"),
                other => other.into(),
            })?;
        } else {
            workspace_update(&mut tx, &scope, &row).await?;
        }
        self.audit.record(&mut tx, caller, &Event::done(Action::WorkspaceSet, "workspace", &row.id)).await?;
        let shown = self.shown(&mut tx, row).await?;
        tx.commit().await?;
        Ok(shown)
    }

    /// A tenant's workspaces.
    ///
    /// # Errors
    /// [`WorkspacesError::Denied`].
    pub async fn workspace_list(&self, caller: &Caller) -> Result<Vec<Workspace>, WorkspacesError> {
        let scope = caller.require(Permission::WorkspacesWrite)?;
        let mut tx = self.store.read().await?;
        let mut list = Vec::new();
        for row in workspace_list(&mut tx, &scope).await? {
            list.push(self.shown(&mut tx, row).await?);
        }
        Ok(list)
    }

    /// One of a tenant's workspaces.
    ///
    /// # Errors
    /// [`WorkspacesError::NotFound`], [`WorkspacesError::Denied`].
    pub async fn workspace(&self, caller: &Caller, name: &str) -> Result<Workspace, WorkspacesError> {
        let scope = caller.require(Permission::WorkspacesWrite)?;
        let mut tx = self.store.read().await?;
        let row = workspace_by_name(&mut tx, &scope, name).await?.ok_or(WorkspacesError::NotFound("workspace"))?;
        self.shown(&mut tx, row).await
    }

    /// Lets a tenant use one agent of an operator's workspace. For the operator.
    ///
    /// # Errors
    /// [`WorkspacesError::NotFound`].
    pub async fn workspace_share(&self, name: &str, tenant: &TenantId, agent: &str) -> Result<(), WorkspacesError> {
        let operator = Caller::operator(TenantId::installation());
        let scope = operator.require(Permission::WorkspacesWrite)?;
        let mut tx = self.store.begin().await?;
        let row = workspace_by_name(&mut tx, &scope, name)
            .await?
            .ok_or(WorkspacesError::NotFound("workspace of the operator"))?;
        workspace_share(&mut tx, OWNER_IS_NAMED, scope.tenant(), &row.id, tenant.as_str(), agent, self.around.now().0)
            .await?;
        let beneficiary = Caller::operator(tenant.clone());
        self.audit
            .record_and_commit(tx, &beneficiary, &Event::done(Action::WorkspaceShared, "workspace", &row.id))
            .await?;
        Ok(())
    }

    /// The key to call ElevenLabs with, as it is now: a switch is felt by the next call.
    ///
    /// # Errors
    /// [`WorkspacesError::NoKey`], [`WorkspacesError::NotFound`].
    pub async fn access(&self, owner_tenant: &str, workspace: &str) -> Result<WorkspaceAccess, WorkspacesError> {
        let mut tx = self.store.read().await?;
        let row = workspace_by_id(&mut tx, OWNER_IS_NAMED, owner_tenant, workspace)
            .await?
            .ok_or(WorkspacesError::NotFound("workspace"))?;
        let (slot, sealed) = match row.active_slot.as_str() {
            "secondary" => ("secondary_key", row.secondary_key.as_ref()),
            _ => ("primary_key", row.primary_key.as_ref()),
        };
        let sealed = sealed.ok_or(WorkspacesError::NoKey)?;
        let owner = Owner::Tenant(TenantId::stored(row.tenant_id.clone()));
        let api_key = self.keys.open_secret(&mut tx, &owner, place(&row.id, slot), sealed).await?;
        Ok(WorkspaceAccess { region: row.region, api_key })
    }

    /// True when `presented` is the workspace's tool header, the present or the previous one.
    ///
    /// # Errors
    /// As every statement.
    pub async fn tool_header_fits(
        &self,
        owner_tenant: &str,
        workspace: &str,
        presented: &Secret,
    ) -> Result<bool, WorkspacesError> {
        let mut tx = self.store.read().await?;
        let Some(row) = workspace_by_id(&mut tx, OWNER_IS_NAMED, owner_tenant, workspace).await? else {
            return Ok(false);
        };
        // Hashes of 256-bit secrets: comparing them tells nothing about the secrets.
        let hash = hash_of(presented.expose());
        Ok(hash == row.tool_header_hash || row.previous_tool_header_hash.as_deref() == Some(&hash))
    }

    /// The workspace that a tenant means by a name: its own, else one of the operator's that shares this agent with it.
    pub(super) async fn usable(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        name: &str,
        agent: &str,
    ) -> Result<Option<WorkspaceRow>, StoreError> {
        match workspace_by_name(tx, scope, name).await? {
            Some(row) => Ok(Some(row)),
            None => workspace_shared(tx, scope, name, agent).await,
        }
    }

    async fn new_row(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        name: String,
        user: Option<&str>,
    ) -> Result<WorkspaceRow, WorkspacesError> {
        let user_id = match user {
            Some(external_id) => {
                Some(user_by_external_id(tx, scope, external_id).await?.ok_or(WorkspacesError::NotFound("user"))?.id)
            }
            None => None,
        };
        let id = WorkspaceId::new(&self.around).to_string();
        let header = mint("vkw", &self.around);
        let tool_header =
            self.keys.seal(tx, &Owner::Tenant(scope.tenant_id().clone()), place(&id, "tool_header"), &header).await?;
        let now = self.around.now().0;
        Ok(WorkspaceRow {
            tenant_id: scope.tenant().to_owned(),
            id,
            name,
            region: "default".to_owned(),
            user_id,
            primary_key: None,
            secondary_key: None,
            active_slot: "primary".to_owned(),
            tool_header,
            tool_header_hash: hash_of(header.expose()),
            previous_tool_header_hash: None,
            created_at: now,
            updated_at: now,
        })
    }

    async fn shown(&self, tx: &mut Tx, row: WorkspaceRow) -> Result<Workspace, WorkspacesError> {
        let owner = Owner::Tenant(TenantId::stored(row.tenant_id.clone()));
        let tool_header_value =
            self.keys.open_secret(tx, &owner, place(&row.id, "tool_header"), &row.tool_header).await?;
        Ok(Workspace {
            initiation_url: self.page(&format!("hooks/elevenlabs/{}/initiation", row.id)),
            events_url: self.page(&format!("hooks/elevenlabs/{}/events", row.id)),
            keys: Slots {
                primary: row.primary_key.is_some(),
                secondary: row.secondary_key.is_some(),
                active: row.active_slot,
            },
            id: WorkspaceId::stored(row.id),
            name: row.name,
            region: row.region,
            tool_header_value,
        })
    }
}

fn place<'a>(id: &'a str, field: &'static str) -> Place<'a> {
    Place { record_kind: "workspace", record_id: id, field, generation: 0 }
}

fn check_draft(draft: &WorkspaceDraft) -> Result<(), Invalid> {
    let mut invalid = Invalid::default();
    if draft.region.as_ref().is_some_and(|region| !region_is_known(region)) {
        invalid.add("region", "must be default, us, eu, in or sg");
    }
    if draft.api_key.as_ref().is_some_and(|key| {
        key.is_empty() || key.expose().len() > 500 || !key.expose().bytes().all(|b| b.is_ascii_graphic())
    }) {
        invalid.add("api_key", "must be an ElevenLabs API key");
    }
    invalid.into_result()
}
