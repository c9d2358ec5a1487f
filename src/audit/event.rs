//! What can happen: a closed list, so that the book can be searched and no free text gets in.

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $text:literal $(=> $outbox:literal)?,)*) => {
        /// What was done. Texts are `thing.verb`; some are told to the outside as events.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Action { $($(#[$doc])* $name,)* }

        impl Action {
            /// As the book writes it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The event's type, for what the outside is told about.
            #[must_use]
            pub fn outbox_kind(self) -> Option<&'static str> {
                match self { $(Self::$name => { let kind: Option<&'static str> = None; $(let kind = kind.or(Some($outbox));)? kind })* }
            }
        }
    };
}

actions! {
    /// A tenant was made.
    TenantCreated = "tenant.create",
    /// A tenant's settings were changed.
    SettingsChanged = "settings.change",
    /// A login was made.
    MemberCreated = "member.create",
    /// Somebody signed in, or failed to.
    SignIn = "session.sign_in",
    /// Somebody signed out.
    SignOut = "session.sign_out",
    /// The first owner was set up.
    SetUp = "installation.set_up",
    /// A portal session was made for a user.
    PortalOpened = "portal.open",
    /// An end user was made or changed.
    UserChanged = "user.change",
    /// An end user was erased.
    UserErased = "user.erase" => "user.erased",
    /// A platform key was made.
    ApiKeyCreated = "api_key.create",
    /// A platform key was revoked.
    ApiKeyRevoked = "api_key.revoke",
    /// An integration was set.
    IntegrationSet = "integration.set",
    /// An integration was deleted.
    IntegrationDeleted = "integration.delete",
    /// An integration's client was refused by the provider.
    IntegrationPaused = "integration.pause" => "integration.misconfigured",
    /// An integration's provider has not answered for a while.
    IntegrationUnreachable = "integration.unreachable" => "integration.unreachable",
    /// A connection will end soon unless its user connects again.
    ConnectionExpiring = "connection.expiring" => "connection.expiring",
    /// A connect session was made.
    ConnectSessionCreated = "connect_session.create",
    /// A handshake began.
    HandshakeBegun = "handshake.begin",
    /// A handshake ended without a connection.
    HandshakeFailed = "handshake.fail",
    /// The wrong person or browser came back from the provider (OA-02).
    FlowUserMismatch = "handshake.user_mismatch",
    /// A connection was made.
    ConnectionCreated = "connection.create",
    /// A connection was made again.
    ConnectionReconnected = "connection.reconnect",
    /// A connection's label or default mark was changed.
    ConnectionChanged = "connection.change",
    /// A connection was imported.
    ConnectionImported = "connection.import",
    /// A connection needs its user.
    ConnectionNeedsReauth = "connection.needs_reauth",
    /// A provider said that something has happened to an account.
    NoticeHeard = "notice.hear",
    /// Another account came back than the one that is stored (OA-10).
    ConnectionQuarantined = "connection.quarantine",
    /// A connection was deleted.
    ConnectionDeleted = "connection.delete",
    /// A credential was revoked at the provider, or that failed.
    CredentialRevoked = "credential.revoke",
    /// A credential was refreshed, or that failed.
    CredentialRefreshed = "credential.refresh",
    /// A token was handed out.
    TokenRead = "token.read",
    /// A credential was used by the broker.
    CredentialUsed = "credential.use",
    /// A workspace was set.
    WorkspaceSet = "workspace.set",
    /// A workspace's agent was shared with a tenant.
    WorkspaceShared = "workspace.share",
    /// An agent was set.
    AgentSet = "agent.set",
    /// A grant was given.
    GrantGiven = "grant.give",
    /// A grant was taken.
    GrantTaken = "grant.take",
    /// A conversation began.
    ConversationStarted = "conversation.start" => "conversation.started",
    /// A conversation ended.
    ConversationEnded = "conversation.end" => "conversation.ended",
    /// A browser entered a relay, or was refused.
    RelayEntered = "relay.enter",
    /// A relay dropped what a client may not set.
    RelayDropped = "relay.drop",
    /// A tool's ticket contradicted what it asked for (AG-05).
    IdentityMismatch = "ticket.identity_mismatch",
    /// A tool was refused.
    TicketRefused = "ticket.refuse",
    /// A caller lacked a permission.
    Denied = "permission.deny",
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Allowed,
    /// It was refused.
    Denied,
    /// It was tried and did not work.
    Failed,
}

impl Outcome {
    /// As the book writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// Something that happened. Ids only: no names, no e-mails, no provider text.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// What was done.
    pub action: Action,
    /// The kind of thing it was done to.
    pub object_kind: &'static str,
    /// The thing's id.
    pub object_id: &'a str,
    /// The end user concerned.
    pub user: Option<&'a str>,
    /// The conversation it happened in.
    pub conversation: Option<&'a str>,
    /// How it went.
    pub outcome: Outcome,
    /// Why, from a closed list of the acting room.
    pub reason: Option<&'a str>,
}

impl<'a> Event<'a> {
    /// Something that was done.
    #[must_use]
    pub fn done(action: Action, object_kind: &'static str, object_id: &'a str) -> Self {
        Self { action, object_kind, object_id, user: None, conversation: None, outcome: Outcome::Allowed, reason: None }
    }

    /// The same, concerning this end user.
    #[must_use]
    pub fn of_user(self, user: Option<&'a str>) -> Self {
        Self { user, ..self }
    }

    /// The same, within this conversation.
    #[must_use]
    pub fn in_conversation(self, conversation: Option<&'a str>) -> Self {
        Self { conversation, ..self }
    }

    /// The same, for this reason.
    #[must_use]
    pub fn because(self, reason: Option<&'a str>) -> Self {
        Self { reason, ..self }
    }

    /// The same, but refused.
    #[must_use]
    pub fn denied(self, reason: &'a str) -> Self {
        Self { outcome: Outcome::Denied, reason: Some(reason), ..self }
    }

    /// The same, but it did not work.
    #[must_use]
    pub fn failed(self, reason: &'a str) -> Self {
        Self { outcome: Outcome::Failed, reason: Some(reason), ..self }
    }
}
