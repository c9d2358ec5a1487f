//! Who looks at the pages: what a browser session remembers, and everything the pages want to know about that person.

use serde::{Deserialize, Serialize};

use super::{Accounts, AccountsError, PortalVisit, SignedIn, Tenant, User};
use crate::caller::{Caller, Origin, Role, Who};

/// What a browser session remembers of a person: a name to look up, never a permission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// Signed in with e-mail and password.
    SignedIn(SignedIn),
    /// Came through a link that the platform made.
    Portal(PortalVisit),
}

impl Presence {
    /// The key under which a session keeps it.
    pub const IN_SESSION: &str = "presence";
}

/// A person at the pages, as the database knows them now. At least one of `member` and `end_user` is there.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// Acting as somebody who works at the tenant.
    pub member: Option<Caller>,
    /// Acting as an end user, with connections of their own.
    pub end_user: Option<Caller>,
    /// The role of the member.
    pub role: Option<Role>,
    /// The tenant.
    pub tenant: Tenant,
    /// The e-mail address of the login.
    pub email: Option<String>,
    /// The end user.
    pub user: Option<User>,
    /// Where a portal visit may go back to.
    pub return_url: Option<String>,
}

impl Accounts {
    /// Looks the person up. What was taken away since (a login, a role, a user) is gone at once.
    ///
    /// # Errors
    /// [`AccountsError::Unauthenticated`] when there is nobody any more or the visit is over.
    pub async fn visitor(&self, presence: &Presence, origin: Origin) -> Result<Visitor, AccountsError> {
        let (member, role, end_user, email, return_url) = match presence {
            Presence::SignedIn(session) => {
                let (first, second) = self.signed_in_caller(session, origin).await?;
                let email = self.login_email(session).await?;
                match first.who() {
                    Who::Member(_) => (Some(first), self.login_role(session).await?, second, Some(email), None),
                    _ => (None, None, second, Some(email), None),
                }
            }
            Presence::Portal(visit) => {
                let caller = self.portal_caller(visit, origin).await?;
                (None, None, Some(caller), None, visit.return_url.clone())
            }
        };
        let somebody = member.as_ref().or(end_user.as_ref()).ok_or(AccountsError::Unauthenticated)?;
        let tenant = self.tenant_of(somebody).await?;
        let user = match &end_user {
            Some(caller) => self.own_user(caller).await?,
            None => None,
        };
        Ok(Visitor { member, end_user, role, tenant, email, user, return_url })
    }

    async fn own_user(&self, caller: &Caller) -> Result<Option<User>, AccountsError> {
        match caller.user() {
            Some(id) => self.user_by_id(caller, id).await.map(Some),
            None => Ok(None),
        }
    }
}
