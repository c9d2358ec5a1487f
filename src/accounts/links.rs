//! One-time links: the first owner's set-up (AD-01) and a user's portal.

use std::time::Duration;

use super::logins::{NewLogin, checked_email, checked_password};
use super::{Accounts, AccountsError, BEFORE_ANY_SCOPE, NewTenant, SignedIn, Tenant};
use crate::audit::{Action, Event};
use crate::caller::{Caller, Origin, Permission, Role};
use crate::clock::Millis;
use crate::crypto::tokens::{SecretToken, hash_token};
use crate::ids::{TenantId, UserId};
use crate::invalid::{Invalid, checked_external_id, checked_name};
use crate::secret::Secret;
use crate::store::from_json_list;
use crate::store::logins::logins_with_role;
use crate::store::sessions::{OneTimeLinkRow, link_insert, link_peek, link_use};
use crate::store::tenants::{tenant_find, tenant_hold, tenant_own};
use crate::store::users::user_ensure;

const SETUP_LIFE: Duration = Duration::from_secs(15 * 60);
/// How long a portal link, and the session it opens, lasts.
const PORTAL_LIFE: Duration = Duration::from_secs(30 * 60);

/// A link to be put after the public URL.
#[derive(Debug)]
pub struct Link {
    /// The token; it is shown once.
    pub token: Secret,
    /// When it ends.
    pub expires_at: Millis,
}

/// A portal to be made.
#[derive(Debug)]
pub struct PortalLink<'a> {
    /// The tenant's own id of the user.
    pub user: &'a str,
    /// Where the user may go back to; must be registered.
    pub return_url: Option<&'a str>,
}

/// Somebody who came through a portal link; what a session remembers.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PortalVisit {
    /// The tenant.
    pub tenant: TenantId,
    /// The user.
    pub user: UserId,
    /// Where the user may go back to.
    pub return_url: Option<String>,
    /// When the visit ends, milliseconds UTC.
    pub until: i64,
}

impl Accounts {
    /// A link with which the first owner sets the house up. Closed for ever once a login with a role exists.
    ///
    /// # Errors
    /// [`AccountsError::Gone`] when set-up is closed.
    pub async fn setup_link(&self) -> Result<Link, AccountsError> {
        let mut tx = self.store.begin().await?;
        if logins_with_role(&mut tx, BEFORE_ANY_SCOPE).await? > 0 {
            return Err(AccountsError::Gone);
        }
        let now = self.around.now();
        let (link, row) = self.new_link("setup", now, now.after(SETUP_LIFE));
        link_insert(&mut tx, BEFORE_ANY_SCOPE, &row).await?;
        tx.commit().await?;
        Ok(link)
    }

    /// Until when a set-up link can be used. Looking does not use it.
    ///
    /// # Errors
    /// [`AccountsError::Gone`] when it cannot be used now.
    pub async fn setup_until(&self, token: &Secret) -> Result<Millis, AccountsError> {
        let mut tx = self.store.read().await?;
        let link =
            link_peek(&mut tx, BEFORE_ANY_SCOPE, &hash_token(token.expose()), "setup", self.around.now().0).await?;
        if logins_with_role(&mut tx, BEFORE_ANY_SCOPE).await? > 0 {
            return Err(AccountsError::Gone);
        }
        link.map(|link| Millis(link.expires_at)).ok_or(AccountsError::Gone)
    }

    /// Makes the first tenant and its owner. Of two parallel set-ups one wins.
    ///
    /// # Errors
    /// [`AccountsError::Gone`], [`AccountsError::Invalid`], [`AccountsError::Conflict`].
    pub async fn set_up(
        &self,
        token: &Secret,
        tenant_name: &str,
        email: String,
        password: Secret,
    ) -> Result<SignedIn, AccountsError> {
        self.setup_until(token).await?;
        checked_new_owner(tenant_name, &email, &password)?;
        let password_hash = self.passwords.hash(&password).await?;
        let mut tx = self.store.begin().await?;
        // Two links can be used at once: whoever comes second waits here and then sees the first one's owner.
        tenant_hold(&mut tx, BEFORE_ANY_SCOPE, TenantId::installation().as_str()).await?;
        link_use(&mut tx, BEFORE_ANY_SCOPE, &hash_token(token.expose()), "setup", self.around.now().0)
            .await?
            .ok_or(AccountsError::Gone)?;
        if logins_with_role(&mut tx, BEFORE_ANY_SCOPE).await? > 0 {
            return Err(AccountsError::Gone);
        }
        let known = tenant_find(&mut tx, BEFORE_ANY_SCOPE, tenant_name).await?;
        let tenant = match known.filter(|row| row.environment != "installation") {
            Some(row) => Tenant::from(&row),
            None => {
                let new = NewTenant { name: tenant_name.to_owned(), ..NewTenant::default() };
                self.add_tenant(&mut tx, &self.checked_tenant(new)?).await?
            }
        };
        let operator = Caller::operator(tenant.id.clone());
        let scope = operator.require(Permission::KeysWrite)?;
        let new = NewLogin { email: checked_email(&email)?, password_hash, role: Some(Role::Owner), user_id: None };
        let login = self.add_login(&mut tx, &operator, &scope, new).await?;
        self.audit.record_and_commit(tx, &operator, &Event::done(Action::SetUp, "login", login.as_str())).await?;
        Ok(SignedIn { tenant: tenant.id, login })
    }

    /// A link that opens a user's own pages for half an hour.
    ///
    /// # Errors
    /// [`AccountsError::Denied`], [`AccountsError::Invalid`] for a return URL that is not registered.
    pub async fn portal_link(&self, caller: &Caller, portal: PortalLink<'_>) -> Result<Link, AccountsError> {
        let scope = caller.require(Permission::ConnectionsWrite)?;
        checked_external_id("user", portal.user)?;
        let mut tx = self.store.begin().await?;
        let tenant = tenant_own(&mut tx, &scope).await?.ok_or(AccountsError::NotFound("tenant"))?;
        if let Some(url) = portal.return_url
            && !from_json_list(&tenant.return_urls).iter().any(|registered| registered == url)
        {
            return Err(Invalid::one(
                "return_url",
                "must be one of the tenant's registered return URLs, character by character",
            )
            .into());
        }
        let now = self.around.now();
        let user = user_ensure(&mut tx, &scope, UserId::new(&self.around).as_str(), portal.user, now.0).await?;
        let (link, mut row) = self.new_link("portal", now, now.after(PORTAL_LIFE));
        row.tenant_id = Some(scope.tenant().to_owned());
        row.user_id = Some(user.id.clone());
        row.return_url = portal.return_url.map(str::to_owned);
        link_insert(&mut tx, BEFORE_ANY_SCOPE, &row).await?;
        let event = Event::done(Action::PortalOpened, "user", &user.id).of_user(Some(&user.id));
        self.audit.record_and_commit(tx, caller, &event).await?;
        Ok(link)
    }

    /// Whether a portal link can be used now. Looking does not use it: mail scanners open links (WB-12).
    ///
    /// # Errors
    /// [`AccountsError::Gone`] when it cannot.
    pub async fn portal_look(&self, token: &Secret) -> Result<(), AccountsError> {
        let mut tx = self.store.read().await?;
        let link =
            link_peek(&mut tx, BEFORE_ANY_SCOPE, &hash_token(token.expose()), "portal", self.around.now().0).await?;
        link.map(|_| ()).ok_or(AccountsError::Gone)
    }

    /// Uses a portal link: once.
    ///
    /// # Errors
    /// [`AccountsError::Gone`].
    pub async fn portal_enter(&self, token: &Secret) -> Result<PortalVisit, AccountsError> {
        let now = self.around.now();
        let mut tx = self.store.begin().await?;
        let row = link_use(&mut tx, BEFORE_ANY_SCOPE, &hash_token(token.expose()), "portal", now.0)
            .await?
            .ok_or(AccountsError::Gone)?;
        tx.commit().await?;
        let (Some(tenant), Some(user)) = (row.tenant_id, row.user_id) else { return Err(AccountsError::Gone) };
        Ok(PortalVisit {
            tenant: TenantId::stored(tenant),
            user: UserId::stored(user),
            return_url: row.return_url,
            until: now.after(PORTAL_LIFE).0,
        })
    }

    /// The caller that a portal visit stands for.
    ///
    /// # Errors
    /// [`AccountsError::Unauthenticated`] when the visit is over or the user is gone.
    pub async fn portal_caller(&self, visit: &PortalVisit, origin: Origin) -> Result<Caller, AccountsError> {
        if self.around.now().0 >= visit.until {
            return Err(AccountsError::Unauthenticated);
        }
        let mut tx = self.store.read().await?;
        self.live_user(&mut tx, &visit.tenant, visit.user.as_str(), origin).await?.ok_or(AccountsError::Unauthenticated)
    }

    fn new_link(&self, purpose: &str, now: Millis, expires_at: Millis) -> (Link, OneTimeLinkRow) {
        let token = SecretToken::generate("vkl", self.around.entropy.as_ref()).into_secret();
        let row = OneTimeLinkRow {
            token_hash: hash_token(token.expose()),
            purpose: purpose.to_owned(),
            tenant_id: None,
            user_id: None,
            return_url: None,
            created_at: now.0,
            expires_at: expires_at.0,
            used_at: None,
        };
        (Link { token, expires_at }, row)
    }
}

/// Looks at everything at once and before the link is used, so that a mistyped form does not cost the link.
fn checked_new_owner(tenant_name: &str, email: &str, password: &Secret) -> Result<(), Invalid> {
    let checks = [
        checked_name("tenant_name", tenant_name, 100).err(),
        checked_email(email).err(),
        checked_password(password).err(),
    ];
    Invalid(checks.into_iter().flatten().flat_map(|invalid| invalid.0).collect()).into_result()
}
