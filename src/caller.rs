//! Who asks, for which tenant, and what they may do.
//!
//! Doors make a [`Caller`] from a proof (key, session, ticket); rooms take it first and begin with
//! [`Caller::require`], which is the only way to get the [`TenantScope`] that the store's methods ask for.

use std::fmt;
use std::net::IpAddr;

use crate::ids::{ApiKeyId, ConversationId, MemberId, TenantId, UserId};

macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What a caller may do. The texts are the scopes of platform keys.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Permission { $($(#[$doc])* $name,)* }

        impl Permission {
            /// Every permission there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The scope's name in the API.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Reads a scope's name.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$name),)* _ => None }
            }
        }
    };
}

permissions! {
    /// Create, read, change and erase end users.
    UsersWrite = "users:write",
    /// See connections and their health, never tokens.
    ConnectionsRead = "connections:read",
    /// Make, change, refresh and delete connections.
    ConnectionsWrite = "connections:write",
    /// Receive access tokens.
    TokensRead = "tokens:read",
    /// Start, see and end conversations.
    ConversationsWrite = "conversations:write",
    /// Set the tenant's OAuth clients.
    IntegrationsWrite = "integrations:write",
    /// Set ElevenLabs workspaces and agents.
    WorkspacesWrite = "workspaces:write",
    /// Grant agents and voices to users.
    GrantsWrite = "grants:write",
    /// Make and revoke platform keys.
    KeysWrite = "keys:write",
    /// Register event endpoints and replay events.
    EventsWrite = "events:write",
    /// Change the tenant's settings.
    SettingsWrite = "settings:write",
    /// Read the audit book.
    AuditRead = "audit:read",
}

/// A set of permissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions(u16);

impl Permissions {
    /// Nothing at all.
    pub const NONE: Self = Self(0);

    /// Every permission.
    #[must_use]
    pub fn all() -> Self {
        Permission::ALL.iter().copied().collect()
    }

    /// True when `permission` is in the set.
    #[must_use]
    pub fn contains(self, permission: Permission) -> bool {
        self.0 & (1 << permission as u16) != 0
    }

    /// The permissions in the set, in their fixed order.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.iter().copied().filter(move |one| self.contains(*one))
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        Self(permissions.into_iter().fold(0, |set, one| set | 1 << one as u16))
    }
}

/// What a person who works at a tenant may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything, including keys and members.
    Owner,
    /// Everything but keys and members.
    Admin,
    /// Look, and read the audit book.
    Viewer,
}

impl Role {
    /// The role's name in the API, the CLI and the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Viewer => "viewer",
        }
    }

    /// Reads a role's name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Owner, Self::Admin, Self::Viewer].into_iter().find(|role| role.as_str() == text)
    }

    /// No role lets a person receive a token: that is for keys and tickets.
    fn permissions(self) -> Permissions {
        use Permission::{AuditRead, ConnectionsRead, KeysWrite, TokensRead};
        match self {
            Self::Owner => Permissions::all().iter().filter(|one| *one != TokensRead).collect(),
            Self::Admin => Permissions::all().iter().filter(|one| ![TokensRead, KeysWrite].contains(one)).collect(),
            Self::Viewer => [ConnectionsRead, AuditRead].into_iter().collect(),
        }
    }
}

/// The kind of caller, with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// A person who works at the tenant.
    Member(MemberId),
    /// An end user in a browser: a login with a user, a portal session or a swapped connect session.
    EndUser(UserId),
    /// A platform's back end.
    PlatformKey(ApiKeyId),
    /// An agent's tool, by the ticket of its conversation.
    Ticket(ConversationId),
    /// A task of our own, by name.
    System(&'static str),
    /// Whoever has a shell on the server.
    Operator,
}

impl Who {
    /// The kind as the audit book writes it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Member(_) => "member",
            Self::EndUser(_) => "user",
            Self::PlatformKey(_) => "key",
            Self::Ticket(_) => "ticket",
            Self::System(_) => "system",
            Self::Operator => "operator",
        }
    }

    /// The id as the audit book writes it.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Member(id) => id.as_str(),
            Self::EndUser(id) => id.as_str(),
            Self::PlatformKey(id) => id.as_str(),
            Self::Ticket(id) => id.as_str(),
            Self::System(task) => task,
            Self::Operator => "shell",
        }
    }
}

/// Where a request came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The request's id, as answers and logs carry it.
    pub request_id: String,
    /// The peer, after trusted proxies; `None` for tasks and the shell.
    pub peer: Option<IpAddr>,
}

/// The caller lacks a permission.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this needs the permission {}", .missing.as_str())]
pub struct Denied {
    /// What was missing.
    pub missing: Permission,
}

/// Who asks, for which tenant, with which permissions. Rooms take it first.
#[derive(Clone, Debug)]
pub struct Caller {
    who: Who,
    tenant: TenantId,
    user: Option<UserId>,
    permissions: Permissions,
    origin: Origin,
}

impl Caller {
    /// A person who works at `tenant`.
    #[must_use]
    pub fn member(tenant: TenantId, member: MemberId, role: Role, origin: Origin) -> Self {
        Self { who: Who::Member(member), tenant, user: None, permissions: role.permissions(), origin }
    }

    /// An end user of `tenant`, who may see and change their own connections only.
    #[must_use]
    pub fn end_user(tenant: TenantId, user: UserId, origin: Origin) -> Self {
        let permissions = [Permission::ConnectionsRead, Permission::ConnectionsWrite].into_iter().collect();
        Self { who: Who::EndUser(user.clone()), tenant, user: Some(user), permissions, origin }
    }

    /// A platform's back end with the scopes of its key.
    #[must_use]
    pub fn platform_key(tenant: TenantId, key: ApiKeyId, scopes: Permissions, origin: Origin) -> Self {
        Self { who: Who::PlatformKey(key), tenant, user: None, permissions: scopes, origin }
    }

    /// An agent's tool: the tokens of one user, while the conversation lasts.
    #[must_use]
    pub fn ticket(tenant: TenantId, conversation: ConversationId, user: UserId, origin: Origin) -> Self {
        let permissions = [Permission::ConnectionsRead, Permission::TokensRead].into_iter().collect();
        Self { who: Who::Ticket(conversation), tenant, user: Some(user), permissions, origin }
    }

    /// A task of our own that acts within one tenant.
    #[must_use]
    pub fn system(task: &'static str, tenant: TenantId) -> Self {
        let origin = Origin { request_id: format!("task:{task}"), peer: None };
        Self { who: Who::System(task), tenant, user: None, permissions: Permissions::all(), origin }
    }

    /// Whoever has a shell on the server, acting for one tenant.
    #[must_use]
    pub fn operator(tenant: TenantId) -> Self {
        let origin = Origin { request_id: "cli".to_owned(), peer: None };
        let permissions = Permissions::all().iter().filter(|one| *one != Permission::TokensRead).collect();
        Self { who: Who::Operator, tenant, user: None, permissions, origin }
    }

    /// The gate: proves that the caller may do this and gives the scope of the data it may touch.
    ///
    /// # Errors
    /// [`Denied`] names what is missing.
    pub fn require(&self, permission: Permission) -> Result<TenantScope, Denied> {
        if self.permissions.contains(permission) {
            Ok(TenantScope { tenant: self.tenant.clone(), user: self.user.clone() })
        } else {
            Err(Denied { missing: permission })
        }
    }

    /// The same gate for what either of some permissions is enough for.
    ///
    /// # Errors
    /// [`Denied`] names the first of them.
    pub fn require_any<const N: usize>(&self, enough: [Permission; N]) -> Result<TenantScope, Denied> {
        const { assert!(N > 0, "at least one permission") };
        self.require(enough.into_iter().find(|one| self.may(*one)).unwrap_or(enough[0]))
    }

    /// True when the caller may do this.
    #[must_use]
    pub fn may(&self, permission: Permission) -> bool {
        self.permissions.contains(permission)
    }

    /// The kind of caller.
    #[must_use]
    pub fn who(&self) -> &Who {
        &self.who
    }

    /// The tenant the caller belongs to.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// The end user the caller acts as, if it is bound to one.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// The caller's permissions.
    #[must_use]
    pub fn permissions(&self) -> Permissions {
        self.permissions
    }

    /// Where the request came from.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

/// Proof that a gate was passed: which tenant's rows may be touched and, for a caller that is bound to one
/// user, which user's. Only [`Caller::require`] makes it.
#[derive(Clone, Debug)]
pub struct TenantScope {
    tenant: TenantId,
    user: Option<UserId>,
}

impl TenantScope {
    /// The tenant whose rows may be touched.
    #[must_use]
    pub fn tenant(&self) -> &str {
        self.tenant.as_str()
    }

    /// The tenant's id.
    #[must_use]
    pub fn tenant_id(&self) -> &TenantId {
        &self.tenant
    }

    /// The only user whose rows may be touched; `None` means every user of the tenant.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_ref().map(UserId::as_str)
    }
}

/// Leave to look across tenants, for the few queries that must: sweep claims, look-ups by key, ticket or
/// session, audit batches. The reason is written where it is made.
#[derive(Clone, Copy)]
pub struct SystemScope(&'static str);

impl SystemScope {
    /// `reason` says why this query cannot name its tenant.
    #[must_use]
    pub const fn because(reason: &'static str) -> Self {
        Self(reason)
    }

    /// The whole of one of the tenants that it may look at.
    #[must_use]
    pub fn within(self, tenant: TenantId) -> TenantScope {
        TenantScope { tenant, user: None }
    }
}

impl fmt::Debug for SystemScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SystemScope({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_role_and_no_shell_may_receive_a_token() {
        for role in [Role::Owner, Role::Admin, Role::Viewer] {
            assert!(!role.permissions().contains(Permission::TokensRead), "{role:?}");
        }
        assert!(!Caller::operator(TenantId::installation()).may(Permission::TokensRead));
    }

    #[test]
    fn scopes_are_read_back_as_they_are_written() {
        for permission in Permission::ALL {
            assert_eq!(Permission::parse(permission.as_str()), Some(*permission));
        }
        assert_eq!(Permission::parse("admin"), None);
    }

    #[test]
    fn either_of_two_permissions_is_enough_and_the_first_is_named_when_both_are_missing() {
        let key = |scopes: &[Permission]| {
            let (tenant, key) = (TenantId::installation(), ApiKeyId::stored("key_1".into()));
            Caller::platform_key(tenant, key, scopes.iter().copied().collect(), Origin::default())
        };
        let either = [Permission::UsersWrite, Permission::ConnectionsRead];
        for one in either {
            assert!(key(&[one]).require_any(either).is_ok());
        }
        let denied = key(&[Permission::KeysWrite]).require_any(either).map(|_| ());
        assert_eq!(denied, Err(Denied { missing: Permission::UsersWrite }));
    }

    #[test]
    fn an_end_users_scope_is_narrowed_to_that_user() {
        let user = UserId::stored("usr_1".into());
        let caller = Caller::end_user(TenantId::installation(), user, Origin::default());
        assert_eq!(caller.require(Permission::ConnectionsRead).expect("may").user(), Some("usr_1"));
        assert_eq!(caller.require(Permission::KeysWrite).map(|_| ()), Err(Denied { missing: Permission::KeysWrite }));
    }
}
