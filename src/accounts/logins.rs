//! Members and sign-in. A wrong e-mail and a wrong password look, and take, the same (WB-11).

use super::{Accounts, AccountsError, BEFORE_ANY_SCOPE, Tenant};
use crate::audit::{Action, Event};
use crate::caller::{Caller, Origin, Permission, Role, TenantScope};
use crate::ids::{MemberId, TenantId, UserId};
use crate::invalid::{Invalid, checked_external_id};
use crate::keys::{Owner, Place};
use crate::secret::Secret;
use crate::store::logins::{LoginRow, login_by_id, login_insert, logins_by_email};
use crate::store::users::{user_by_id, user_ensure};
use crate::store::{StoreError, Tx};

/// The shortest password (NIST SP 800-63B-4: 15 without a second factor).
pub const MIN_PASSWORD: u16 = 15;
/// An e-mail with logins in more tenants than this must say which tenant: each costs one password check.
const MOST_CANDIDATES: usize = 8;

/// A login to be made.
#[derive(Debug)]
pub struct NewMember {
    /// E-mail, the name to sign in with.
    pub email: String,
    /// At least fifteen characters.
    pub password: Secret,
    /// What the person may do at the tenant; none for an end user.
    pub role: Option<Role>,
    /// The end user this login is, by the tenant's own id.
    pub user: Option<String>,
}

/// A login whose parts are checked.
pub(super) struct NewLogin {
    /// As `checked_email` gives it.
    pub(super) email: String,
    /// Argon2id in PHC form.
    pub(super) password_hash: String,
    /// What the person may do at the tenant.
    pub(super) role: Option<Role>,
    /// The end user this login is.
    pub(super) user_id: Option<String>,
}

/// What somebody typed into the sign-in form.
#[derive(Debug)]
pub struct SignIn<'a> {
    /// E-mail.
    pub email: &'a str,
    /// Password.
    pub password: &'a Secret,
    /// The tenant, when the e-mail has logins in several.
    pub tenant: Option<&'a str>,
    /// Where the request comes from.
    pub origin: Origin,
}

/// Somebody who signed in; what a session remembers.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SignedIn {
    /// The tenant.
    pub tenant: TenantId,
    /// The login.
    pub login: MemberId,
}

/// What signing in came to.
#[derive(Debug)]
pub enum SignInOutcome {
    /// This login it is.
    Done(SignedIn),
    /// E-mail and password fit in these tenants, at least two; the person says which.
    Choose(Vec<Tenant>),
}

impl Accounts {
    /// Makes a login.
    ///
    /// # Errors
    /// [`AccountsError::Conflict`] when the e-mail has one in this tenant, [`AccountsError::Invalid`].
    pub async fn member_create(&self, caller: &Caller, new: NewMember) -> Result<MemberId, AccountsError> {
        let scope = caller.require(Permission::KeysWrite)?;
        let email = checked_email(&new.email)?;
        checked_password(&new.password)?;
        if new.role.is_none() && new.user.is_none() {
            return Err(Invalid::one("role", "must be given unless the login is an end user's").into());
        }
        if let Some(external_id) = &new.user {
            checked_external_id("user", external_id)?;
        }
        let password_hash = self.passwords.hash(&new.password).await?;
        let mut tx = self.store.begin().await?;
        let user_id = match &new.user {
            Some(external_id) => {
                let new_id = UserId::new(&self.around);
                Some(user_ensure(&mut tx, &scope, new_id.as_str(), external_id, self.around.now().0).await?.id)
            }
            None => None,
        };
        let login = NewLogin { email, password_hash, role: new.role, user_id };
        let id = self.add_login(&mut tx, caller, &scope, login).await?;
        tx.commit().await?;
        Ok(id)
    }

    /// Writes a login and its entry in the book into `tx`.
    pub(super) async fn add_login(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        scope: &TenantScope,
        new: NewLogin,
    ) -> Result<MemberId, AccountsError> {
        let id = MemberId::new(&self.around);
        let owner = Owner::Tenant(scope.tenant_id().clone());
        let row = LoginRow {
            tenant_id: scope.tenant().to_owned(),
            id: id.to_string(),
            email_hash: self.keys.lookup_hash(tx, &new.email).await?,
            email: self.keys.seal(tx, &owner, email_place(id.as_str()), &Secret::new(&*new.email)).await?,
            password_hash: new.password_hash,
            role: new.role.map(|role| role.as_str().to_owned()),
            user_id: new.user_id,
            created_at: self.around.now().0,
            disabled_at: None,
        };
        login_insert(tx, scope, &row).await.map_err(|error| match error {
            StoreError::Conflict(_) => AccountsError::Conflict("a login with this e-mail"),
            other => other.into(),
        })?;
        let event = Event::done(Action::MemberCreated, "login", id.as_str()).of_user(row.user_id.as_deref());
        self.audit.record(tx, caller, &event).await?;
        Ok(id)
    }

    /// Checks e-mail and password. When they fit in several tenants and `tenant` does not say which, nobody is signed in
    /// yet and the tenants are given for choosing.
    ///
    /// # Errors
    /// [`AccountsError::Unauthenticated`], [`AccountsError::Overloaded`].
    pub async fn sign_in(&self, attempt: SignIn<'_>) -> Result<SignInOutcome, AccountsError> {
        let mut rows = self.candidates(attempt.email).await?;
        rows.retain(|row| attempt.tenant.is_none_or(|tenant| row.tenant_id == tenant));
        rows.truncate(MOST_CANDIDATES);
        if rows.is_empty() {
            self.passwords.verify_nothing(attempt.password).await?;
            return Err(AccountsError::Unauthenticated);
        }
        let mut fitting = Vec::new();
        for row in &rows {
            if self.passwords.verify(attempt.password, &row.password_hash).await? {
                fitting.push(row);
            }
        }
        match fitting.as_slice() {
            [] => {
                if let Some(row) = rows.first() {
                    self.write_sign_in(row, attempt.origin, Some("wrong_password")).await?;
                }
                Err(AccountsError::Unauthenticated)
            }
            [row] => {
                self.write_sign_in(row, attempt.origin, None).await?;
                let (tenant, login) = (TenantId::stored(row.tenant_id.clone()), MemberId::stored(row.id.clone()));
                Ok(SignInOutcome::Done(SignedIn { tenant, login }))
            }
            several => {
                let mut tenants = Vec::new();
                for row in several {
                    tenants.push(self.tenant_find(&row.tenant_id).await?);
                }
                Ok(SignInOutcome::Choose(tenants))
            }
        }
    }

    async fn write_sign_in(&self, row: &LoginRow, origin: Origin, refused: Option<&str>) -> Result<(), AccountsError> {
        let caller = login_caller(row, origin);
        let event = Event::done(Action::SignIn, "login", &row.id).of_user(row.user_id.as_deref());
        let event = refused.map_or(event, |reason| event.denied(reason));
        let tx = self.store.begin().await?;
        self.audit.record_and_commit(tx, &caller, &event).await?;
        Ok(())
    }

    /// The caller that a session stands for, as the login is now: a role that was taken away is gone at once. A login
    /// that is an end user's acts as that user on pages about connections.
    ///
    /// # Errors
    /// [`AccountsError::Unauthenticated`] when the login is gone.
    pub async fn signed_in_caller(
        &self,
        session: &SignedIn,
        origin: Origin,
    ) -> Result<(Caller, Option<Caller>), AccountsError> {
        let mut tx = self.store.read().await?;
        let row = login_by_id(&mut tx, BEFORE_ANY_SCOPE, session.tenant.as_str(), session.login.as_str()).await?;
        let row = row.ok_or(AccountsError::Unauthenticated)?;
        let end_user = match &row.user_id {
            Some(user) => self.live_user(&mut tx, &session.tenant, user, origin.clone()).await?,
            None => None,
        };
        let member = login_caller(&row, origin);
        Ok((member, end_user))
    }

    /// The role of a login as it is now.
    pub(super) async fn login_role(&self, session: &SignedIn) -> Result<Option<Role>, AccountsError> {
        let mut tx = self.store.read().await?;
        let row = login_by_id(&mut tx, BEFORE_ANY_SCOPE, session.tenant.as_str(), session.login.as_str()).await?;
        Ok(row.and_then(|row| row.role).as_deref().and_then(Role::parse))
    }

    /// The e-mail a login signs in with, for showing it to that person.
    ///
    /// # Errors
    /// [`AccountsError::Unauthenticated`] when the login is gone.
    pub async fn login_email(&self, session: &SignedIn) -> Result<String, AccountsError> {
        let mut tx = self.store.read().await?;
        let row = login_by_id(&mut tx, BEFORE_ANY_SCOPE, session.tenant.as_str(), session.login.as_str()).await?;
        let row = row.ok_or(AccountsError::Unauthenticated)?;
        let owner = Owner::Tenant(session.tenant.clone());
        Ok(self.keys.open_secret(&mut tx, &owner, email_place(&row.id), &row.email).await?.expose().to_owned())
    }

    /// Writes down that somebody signed out.
    ///
    /// # Errors
    /// As every statement.
    pub async fn sign_out(&self, session: &SignedIn, origin: Origin) -> Result<(), AccountsError> {
        let (caller, _) = self.signed_in_caller(session, origin).await?;
        let tx = self.store.begin().await?;
        self.audit
            .record_and_commit(tx, &caller, &Event::done(Action::SignOut, "login", session.login.as_str()))
            .await?;
        Ok(())
    }

    async fn candidates(&self, email: &str) -> Result<Vec<LoginRow>, AccountsError> {
        let Ok(email) = checked_email(email) else { return Ok(Vec::new()) };
        // The look-up key is made on first use, which needs a transaction that can write.
        let mut tx = self.store.begin().await?;
        let hash = self.keys.lookup_hash(&mut tx, &email).await?;
        let rows = logins_by_email(&mut tx, BEFORE_ANY_SCOPE, &hash).await?;
        tx.commit().await?;
        Ok(rows)
    }

    pub(super) async fn live_user(
        &self,
        tx: &mut Tx,
        tenant: &TenantId,
        user: &str,
        origin: Origin,
    ) -> Result<Option<Caller>, AccountsError> {
        let caller = Caller::end_user(tenant.clone(), UserId::stored(user.to_owned()), origin);
        let scope = caller.require(Permission::ConnectionsRead)?;
        Ok(user_by_id(tx, &scope, user).await?.map(|_| caller))
    }
}

fn login_caller(row: &LoginRow, origin: Origin) -> Caller {
    let tenant = TenantId::stored(row.tenant_id.clone());
    match (row.role.as_deref().and_then(Role::parse), &row.user_id) {
        (Some(role), _) => Caller::member(tenant, MemberId::stored(row.id.clone()), role, origin),
        (None, user) => Caller::end_user(tenant, UserId::stored(user.clone().unwrap_or_default()), origin),
    }
}

fn email_place(id: &str) -> Place<'_> {
    Place { record_kind: "login", record_id: id, field: "email", generation: 0 }
}

pub(super) fn checked_email(text: &str) -> Result<String, Invalid> {
    let email = text.trim().to_lowercase();
    let well_formed = email.len() <= 320
        && email.split_once('@').is_some_and(|(name, host)| !name.is_empty() && host.len() > 2 && !host.contains('@'))
        && !email.chars().any(|c| c.is_control() || c.is_whitespace());
    if well_formed { Ok(email) } else { Err(Invalid::one("email", "must be an e-mail address")) }
}

pub(super) fn checked_password(password: &Secret) -> Result<(), Invalid> {
    let length = password.expose().chars().count();
    if length < usize::from(MIN_PASSWORD) {
        return Err(Invalid::one("password", format!("must have at least {MIN_PASSWORD} characters")));
    }
    if length > 1024 {
        return Err(Invalid::one("password", "must have at most 1024 characters"));
    }
    Ok(())
}
