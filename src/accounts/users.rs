//! End users. They are known by their tenant's own id; names and e-mails are sealed with the user's own key.

use serde::{Deserialize, Serialize};

use super::{Accounts, AccountsError};
use crate::audit::{Action, Event};
use crate::caller::{Caller, Permission, TenantScope};
use crate::clock::Millis;
use crate::ids::UserId;
use crate::invalid::{Invalid, checked_external_id, checked_name};
use crate::keys::{Owner, Place};
use crate::store::Tx;
use crate::store::users::{UserRow, user_by_external_id, user_by_id, user_ensure, user_list, user_update_profile};

/// Whoever may change users sees them, and whoever may see connections sees whose they are.
const TO_SEE_USERS: [Permission; 2] = [Permission::UsersWrite, Permission::ConnectionsRead];

/// What a tenant may tell us about a user.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// How the user is called.
    pub display_name: Option<String>,
    /// Where the user can be reached; only shown, never a key.
    pub email: Option<String>,
}

/// An end user.
#[derive(Clone, Debug)]
pub struct User {
    /// `usr_…`, never shown outside.
    pub id: UserId,
    /// The tenant's own id.
    pub external_id: String,
    /// What is known.
    pub profile: Profile,
    /// When we first heard of the user.
    pub created_at: Millis,
}

impl Accounts {
    /// Makes a user, or changes what is known of one. Absent fields stay.
    ///
    /// # Errors
    /// [`AccountsError::Denied`], [`AccountsError::Invalid`].
    pub async fn user_put(&self, caller: &Caller, external_id: &str, patch: Profile) -> Result<User, AccountsError> {
        let scope = caller.require(Permission::UsersWrite)?;
        let mut invalid = Invalid::default();
        invalid.keep(checked_external_id("user", external_id));
        if let Some(name) = &patch.display_name {
            invalid.keep(checked_name("display_name", name, 200));
        }
        if patch
            .email
            .as_ref()
            .is_some_and(|email| email.len() > 320 || !email.contains('@') || email.chars().any(char::is_control))
        {
            invalid.add("email", "must be an e-mail address");
        }
        invalid.into_result()?;
        let mut tx = self.store.begin().await?;
        let row =
            user_ensure(&mut tx, &scope, UserId::new(&self.around).as_str(), external_id, self.around.now().0).await?;
        let mut user = self.open_user(&mut tx, &row).await?;
        user.profile.display_name = patch.display_name.or(user.profile.display_name);
        user.profile.email = patch.email.or(user.profile.email);
        let owner = Owner::User(scope.tenant_id().clone(), user.id.clone());
        let sealed = self.keys.seal_json(&mut tx, &owner, profile_place(&row.id), &user.profile).await?;
        user_update_profile(&mut tx, &scope, &row.id, &sealed).await?;
        let event = Event::done(Action::UserChanged, "user", &row.id).of_user(Some(&row.id));
        self.audit.record_and_commit(tx, caller, &event).await?;
        Ok(user)
    }

    /// A user by the tenant's own id.
    ///
    /// # Errors
    /// [`AccountsError::NotFound`], [`AccountsError::Denied`].
    pub async fn user(&self, caller: &Caller, external_id: &str) -> Result<User, AccountsError> {
        let scope = caller.require_any(TO_SEE_USERS)?;
        let mut tx = self.store.read().await?;
        let row = user_by_external_id(&mut tx, &scope, external_id).await?.ok_or(AccountsError::NotFound("user"))?;
        self.open_user(&mut tx, &row).await
    }

    /// A user by our own id, such as the caller.
    ///
    /// # Errors
    /// [`AccountsError::NotFound`], [`AccountsError::Denied`].
    pub async fn user_by_id(&self, caller: &Caller, id: &UserId) -> Result<User, AccountsError> {
        let scope = caller.require(Permission::ConnectionsRead)?;
        let mut tx = self.store.read().await?;
        let row = user_by_id(&mut tx, &scope, id.as_str()).await?.ok_or(AccountsError::NotFound("user"))?;
        self.open_user(&mut tx, &row).await
    }

    /// Users after the cursor, and the cursor for more.
    ///
    /// # Errors
    /// [`AccountsError::Denied`].
    pub async fn user_list(&self, caller: &Caller, after: &str, limit: i64) -> Result<Vec<User>, AccountsError> {
        let scope: TenantScope = caller.require_any(TO_SEE_USERS)?;
        let mut tx = self.store.read().await?;
        let mut users = Vec::new();
        for row in user_list(&mut tx, &scope, after, limit).await? {
            users.push(self.open_user(&mut tx, &row).await?);
        }
        Ok(users)
    }

    async fn open_user(&self, tx: &mut Tx, row: &UserRow) -> Result<User, AccountsError> {
        let owner = Owner::of_row(&row.tenant_id, "user", &row.id);
        let profile = match &row.profile {
            Some(sealed) => self.keys.open_json(tx, &owner, profile_place(&row.id), sealed).await?,
            None => Profile::default(),
        };
        Ok(User {
            id: UserId::stored(row.id.clone()),
            external_id: row.external_id.clone(),
            profile,
            created_at: Millis(row.created_at),
        })
    }
}

fn profile_place(id: &str) -> Place<'_> {
    Place { record_kind: "user", record_id: id, field: "profile", generation: 0 }
}
