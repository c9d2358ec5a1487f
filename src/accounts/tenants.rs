//! Tenants and their settings.

use serde::{Deserialize, Serialize};
use url::Url;

use super::{Accounts, AccountsError, BEFORE_ANY_SCOPE};
use crate::audit::{Action, Event};
use crate::caller::{Caller, Permission};
use crate::ids::TenantId;
use crate::invalid::{Invalid, checked_name};
use crate::store::tenants::{
    TenantRow, tenant_find, tenant_insert, tenant_list, tenant_own, tenant_update_confirm, tenant_update_settings,
};
use crate::store::{StoreError, Tx, from_json_list, to_json_list};

/// At most this many return URLs, and as many origins.
const MAX_URLS: usize = 100;

/// A platform in one environment.
#[derive(Clone, Debug, Serialize)]
pub struct Tenant {
    /// `ten_…`.
    pub id: TenantId,
    /// Unique name.
    pub name: String,
    /// `production`, `test` or `uat`.
    pub environment: String,
}

/// What the operator says about a new tenant.
#[derive(Clone, Debug, Default)]
pub struct NewTenant {
    /// Unique name.
    pub name: String,
    /// `production` (default), `test` or `uat`.
    pub environment: Option<String>,
    /// Exact return URLs.
    pub return_urls: Vec<String>,
    /// Exact browser origins.
    pub origins: Vec<String>,
    /// `platform` (default) or `none`.
    pub confirm: Option<String>,
}

/// A tenant's settings, as the API shows them.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// Exact return URLs.
    pub return_urls: Vec<String>,
    /// Exact browser origins.
    pub origins: Vec<String>,
    /// `platform` or `none`; only the operator sets `none`.
    pub confirm: String,
}

/// What a tenant may change.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SettingsPatch {
    /// Replaces all return URLs.
    pub return_urls: Option<Vec<String>>,
    /// Replaces all origins.
    pub origins: Option<Vec<String>>,
    /// `platform`; `none` only where the operator has set it.
    pub confirm: Option<String>,
}

impl From<&TenantRow> for Tenant {
    fn from(row: &TenantRow) -> Self {
        Self { id: TenantId::stored(row.id.clone()), name: row.name.clone(), environment: row.environment.clone() }
    }
}

impl From<&TenantRow> for Settings {
    fn from(row: &TenantRow) -> Self {
        Self {
            return_urls: from_json_list(&row.return_urls),
            origins: from_json_list(&row.origins),
            confirm: row.confirm.clone(),
        }
    }
}

impl Accounts {
    /// Makes a tenant. For the operator.
    ///
    /// # Errors
    /// [`AccountsError::Conflict`] when the name is taken, [`AccountsError::Invalid`] for what does not fit.
    pub async fn tenant_create(&self, new: NewTenant) -> Result<Tenant, AccountsError> {
        let row = self.checked_tenant(new)?;
        let mut tx = self.store.begin().await?;
        let tenant = self.add_tenant(&mut tx, &row).await?;
        tx.commit().await?;
        Ok(tenant)
    }

    /// Writes a tenant and its entry in the book into `tx`.
    pub(super) async fn add_tenant(&self, tx: &mut Tx, row: &TenantRow) -> Result<Tenant, AccountsError> {
        tenant_insert(tx, BEFORE_ANY_SCOPE, row).await.map_err(|error| match error {
            StoreError::Conflict(_) => AccountsError::Conflict("a tenant of this name"),
            other => other.into(),
        })?;
        let tenant = Tenant::from(row);
        let caller = Caller::operator(tenant.id.clone());
        self.audit.record(tx, &caller, &Event::done(Action::TenantCreated, "tenant", &row.id)).await?;
        Ok(tenant)
    }

    pub(super) fn checked_tenant(&self, new: NewTenant) -> Result<TenantRow, Invalid> {
        let mut invalid = Invalid::default();
        let environment = new.environment.unwrap_or_else(|| "production".to_owned());
        if !["production", "test", "uat"].contains(&environment.as_str()) {
            invalid.add("environment", "must be production, test or uat");
        }
        let name = invalid.keep(checked_name("name", &new.name, 100));
        let confirm = invalid.keep(checked_confirm(new.confirm.as_deref()));
        let return_urls = invalid.keep(self.checked_return_urls(new.return_urls));
        let origins = invalid.keep(self.checked_origins(new.origins));
        invalid.into_result()?;
        Ok(TenantRow {
            id: TenantId::new(&self.around).to_string(),
            name: name.unwrap_or_default(),
            environment,
            confirm: confirm.unwrap_or_default(),
            return_urls: to_json_list(&return_urls.unwrap_or_default()),
            origins: to_json_list(&origins.unwrap_or_default()),
            created_at: self.around.now().0,
        })
    }

    /// Finds a tenant by name or id. For the operator.
    ///
    /// # Errors
    /// [`AccountsError::NotFound`].
    pub async fn tenant_find(&self, name_or_id: &str) -> Result<Tenant, AccountsError> {
        let mut tx = self.store.read().await?;
        let row = tenant_find(&mut tx, BEFORE_ANY_SCOPE, name_or_id).await?;
        row.filter(|row| row.environment != "installation")
            .as_ref()
            .map(Tenant::from)
            .ok_or(AccountsError::NotFound("tenant"))
    }

    /// Every tenant. For the operator.
    ///
    /// # Errors
    /// As every statement.
    pub async fn tenant_list(&self) -> Result<Vec<Tenant>, AccountsError> {
        let mut tx = self.store.read().await?;
        Ok(tenant_list(&mut tx, BEFORE_ANY_SCOPE).await?.iter().map(Tenant::from).collect())
    }

    /// The caller's tenant.
    ///
    /// # Errors
    /// As every statement.
    pub async fn tenant_of(&self, caller: &Caller) -> Result<Tenant, AccountsError> {
        self.tenant_find(caller.tenant().as_str()).await
    }

    /// Sets who confirms hosted connections. For the operator.
    ///
    /// # Errors
    /// [`AccountsError::NotFound`], [`AccountsError::Invalid`].
    pub async fn tenant_set_confirm(&self, tenant: &TenantId, confirm: &str) -> Result<(), AccountsError> {
        let confirm = checked_confirm(Some(confirm))?;
        let mut tx = self.store.begin().await?;
        tenant_update_confirm(&mut tx, BEFORE_ANY_SCOPE, tenant.as_str(), &confirm).await?;
        let caller = Caller::operator(tenant.clone());
        self.audit
            .record_and_commit(tx, &caller, &Event::done(Action::SettingsChanged, "tenant", tenant.as_str()))
            .await?;
        Ok(())
    }

    /// A tenant's settings.
    ///
    /// # Errors
    /// [`AccountsError::Denied`].
    pub async fn settings(&self, caller: &Caller) -> Result<Settings, AccountsError> {
        let scope = caller.require(Permission::SettingsWrite)?;
        let mut tx = self.store.read().await?;
        let row = tenant_own(&mut tx, &scope).await?.ok_or(AccountsError::NotFound("tenant"))?;
        Ok(Settings::from(&row))
    }

    /// Changes a tenant's settings.
    ///
    /// # Errors
    /// [`AccountsError::Denied`], [`AccountsError::Invalid`].
    pub async fn settings_change(&self, caller: &Caller, patch: SettingsPatch) -> Result<Settings, AccountsError> {
        let scope = caller.require(Permission::SettingsWrite)?;
        let mut tx = self.store.begin().await?;
        let row = tenant_own(&mut tx, &scope).await?.ok_or(AccountsError::NotFound("tenant"))?;
        let settings = self.changed(Settings::from(&row), patch)?;
        let (return_urls, origins) = (to_json_list(&settings.return_urls), to_json_list(&settings.origins));
        tenant_update_settings(&mut tx, &scope, &return_urls, &origins, &settings.confirm).await?;
        self.audit
            .record_and_commit(tx, caller, &Event::done(Action::SettingsChanged, "tenant", scope.tenant()))
            .await?;
        Ok(settings)
    }

    fn changed(&self, mut settings: Settings, patch: SettingsPatch) -> Result<Settings, Invalid> {
        let mut invalid = Invalid::default();
        if let Some(urls) = patch.return_urls {
            settings.return_urls = invalid.keep(self.checked_return_urls(urls)).unwrap_or_default();
        }
        if let Some(origins) = patch.origins {
            settings.origins = invalid.keep(self.checked_origins(origins)).unwrap_or_default();
        }
        if let Some(confirm) =
            invalid.keep(patch.confirm.map(|text| checked_confirm(Some(&text))).transpose()).flatten()
        {
            // Less strict than it is would be the platform's word against the operator's.
            if confirm == "none" && settings.confirm != "none" {
                invalid
                    .add("confirm", "only the operator can set none; a platform can set platform, which is stricter");
            }
            settings.confirm = confirm;
        }
        invalid.into_result().map(|()| settings)
    }

    fn checked_return_urls(&self, urls: Vec<String>) -> Result<Vec<String>, Invalid> {
        let mut invalid = Invalid::default();
        if urls.len() > MAX_URLS {
            invalid.add("return_urls", format!("must have at most {MAX_URLS} entries"));
        }
        for (index, text) in urls.iter().enumerate() {
            if let Err(why) = self.checked_web_address(text) {
                invalid.add(format!("return_urls[{index}]"), why);
            }
        }
        invalid.into_result().map(|()| urls)
    }

    fn checked_origins(&self, origins: Vec<String>) -> Result<Vec<String>, Invalid> {
        let mut invalid = Invalid::default();
        if origins.len() > MAX_URLS {
            invalid.add("origins", format!("must have at most {MAX_URLS} entries"));
        }
        for (index, text) in origins.iter().enumerate() {
            match self.checked_web_address(text) {
                Err(why) => invalid.add(format!("origins[{index}]"), why),
                Ok(url) if url.origin().ascii_serialization() != *text => {
                    invalid.add(
                        format!("origins[{index}]"),
                        "must be an origin: scheme and host, without a path or a slash at the end",
                    );
                }
                Ok(_) => {}
            }
        }
        invalid.into_result().map(|()| origins)
    }

    /// An address that browsers are sent to: https, or plain http for what the operator allows (API.md 6, point 18).
    fn checked_web_address(&self, text: &str) -> Result<Url, &'static str> {
        let url: Url = text.parse().map_err(|_| "must be an absolute URL")?;
        if url.username() != "" || url.password().is_some() || url.fragment().is_some() {
            return Err("must not have user information or a fragment");
        }
        if text.contains(['\\', '*']) || text.chars().any(char::is_control) {
            return Err("must not contain a backslash, an asterisk or control characters");
        }
        match url.scheme() {
            "https" if url.host_str().is_some() => Ok(url),
            "http" if self.outbound.allows_plain_http(&url) => Ok(url),
            _ => Err("must begin with https://"),
        }
    }
}

fn checked_confirm(confirm: Option<&str>) -> Result<String, Invalid> {
    match confirm {
        None | Some("platform") => Ok("platform".to_owned()),
        Some("none") => Ok("none".to_owned()),
        Some(_) => Err(Invalid::one("confirm", "must be platform or none")),
    }
}
