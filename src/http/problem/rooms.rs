//! What the errors of rooms are answered with.

use std::time::Duration;

use super::{Code, Problem, SHORT_WAIT};
use crate::accounts::{AccountsError, IdempotencyError};
use crate::audit::{AuditError, EntriesError};
use crate::connections::ConnectionsError;
use crate::conversations::ConversationsError;
use crate::credentials::CredentialError;
use crate::workspaces::WorkspacesError;

impl From<AuditError> for Problem {
    fn from(error: AuditError) -> Self {
        Self::new(Code::AuditUnavailable, "this cannot be written down right now, so it was not done")
            .because(error)
            .retry_after(SHORT_WAIT)
    }
}

impl From<EntriesError> for Problem {
    fn from(error: EntriesError) -> Self {
        match error {
            EntriesError::Denied(denied) => denied.into(),
            EntriesError::Store(ref store) => Self::outage_or_defect(store.is_outage(), error),
        }
    }
}

impl From<AccountsError> for Problem {
    fn from(error: AccountsError) -> Self {
        match error {
            AccountsError::Denied(denied) => denied.into(),
            AccountsError::Invalid(invalid) => invalid.into(),
            AccountsError::Audit(error) => error.into(),
            AccountsError::NotFound(_) => Self::not_found(),
            AccountsError::Conflict(_) => Self::new(Code::Conflict, error.to_string()),
            AccountsError::Unauthenticated => {
                Self::new(Code::Unauthenticated, "the credentials are missing or not right")
            }
            AccountsError::IpNotAllowed => Self::new(Code::IpNotAllowed, error.to_string()),
            AccountsError::Gone => Self::new(Code::Gone, error.to_string()),
            AccountsError::Overloaded(wait) => Self::new(Code::Overloaded, error.to_string()).retry_after(wait),
            AccountsError::Store(_) | AccountsError::Keys(_) | AccountsError::Password(_) => {
                Self::outage_or_defect(error.is_outage(), error)
            }
        }
    }
}

impl From<IdempotencyError> for Problem {
    fn from(error: IdempotencyError) -> Self {
        match error {
            IdempotencyError::Denied(denied) => denied.into(),
            IdempotencyError::Invalid(invalid) => invalid.into(),
            IdempotencyError::Audit(error) => error.into(),
            IdempotencyError::Mismatch => Self::new(Code::IdempotencyMismatch, error.to_string()),
            IdempotencyError::InFlight => {
                Self::new(Code::IdempotencyConflict, error.to_string()).retry_after(SHORT_WAIT)
            }
            IdempotencyError::Store(_) | IdempotencyError::Keys(_) => Self::outage_or_defect(error.is_outage(), error),
        }
    }
}

impl From<CredentialError> for Problem {
    fn from(error: CredentialError) -> Self {
        match error {
            CredentialError::Denied(denied) => denied.into(),
            CredentialError::Audit(error) => error.into(),
            CredentialError::NotFound | CredentialError::NoSuchKind => Self::not_found(),
            CredentialError::NotInjectable => Self::new(Code::NotInjectable, error.to_string()),
            CredentialError::NotRefreshable => Self::new(Code::Conflict, error.to_string()),
            CredentialError::NeedsReauth { .. } => Self::new(Code::NeedsReauth, error.to_string()),
            CredentialError::Misconfigured => Self::new(Code::Misconfigured, error.to_string()),
            CredentialError::InProgress { retry_after } => {
                Self::new(Code::RefreshInProgress, error.to_string()).retry_after(retry_after)
            }
            CredentialError::RateLimited { retry_after } => {
                Self::new(Code::RateLimited, error.to_string()).retry_after(retry_after)
            }
            CredentialError::Upstream { retry_after, .. } => {
                Self::new(Code::UpstreamFailed, "the provider did not answer usefully")
                    .because(error)
                    .retry_after(retry_after)
            }
            CredentialError::NotAllowed(_) => Self::new(Code::NotGranted, error.to_string()),
            CredentialError::Street(_) => Self::new(Code::UpstreamFailed, error.to_string()).because(error),
            CredentialError::Store(_) | CredentialError::Keys(_) => Self::outage_or_defect(error.is_outage(), error),
        }
    }
}

impl From<ConnectionsError> for Problem {
    fn from(error: ConnectionsError) -> Self {
        match error {
            ConnectionsError::Denied(denied) => denied.into(),
            ConnectionsError::Invalid(invalid) => invalid.into(),
            ConnectionsError::Audit(error) => error.into(),
            ConnectionsError::Credential(error) => error.into(),
            ConnectionsError::NotFound(_) => Self::not_found(),
            ConnectionsError::ReturnUrlRequired => Self::new(Code::ReturnUrlRequired, error.to_string()),
            ConnectionsError::Gone => Self::new(Code::Gone, error.to_string()),
            ConnectionsError::UnknownState | ConnectionsError::UsedState | ConnectionsError::OldState => {
                Self::new(Code::Malformed, error.to_string())
            }
            ConnectionsError::Conflict(_) => Self::new(Code::Conflict, error.to_string()),
            ConnectionsError::AlreadyConnected(rows) => {
                let mut problem = Self::new(Code::Conflict, "some accounts are connected already; `errors` says which");
                problem.0.errors = rows.0;
                problem
            }
            ConnectionsError::Disbelieved(why) => why.into(),
            ConnectionsError::TooMany => {
                Self::new(Code::RateLimited, error.to_string()).retry_after(Duration::from_secs(60))
            }
            ConnectionsError::IdentityMismatch => Self::new(Code::IdentityMismatch, error.to_string()),
            ConnectionsError::Provider(_) => {
                Self::new(Code::UpstreamFailed, "the provider did not agree").because(error).retry_after(SHORT_WAIT)
            }
            ConnectionsError::Store(ref store) => Self::outage_or_defect(store.is_outage(), error),
            ConnectionsError::Keys(ref keys) => Self::outage_or_defect(keys.is_outage(), error),
        }
    }
}

impl From<WorkspacesError> for Problem {
    fn from(error: WorkspacesError) -> Self {
        match error {
            WorkspacesError::Denied(denied) => denied.into(),
            WorkspacesError::Invalid(invalid) => invalid.into(),
            WorkspacesError::Audit(error) => error.into(),
            WorkspacesError::NotFound(_) => Self::not_found(),
            WorkspacesError::Conflict(_) => Self::new(Code::Conflict, error.to_string()),
            WorkspacesError::NoKey => Self::new(Code::Misconfigured, error.to_string()),
            WorkspacesError::ElevenLabs(_) => {
                Self::new(Code::UpstreamFailed, error.to_string()).because(error).retry_after(SHORT_WAIT)
            }
            WorkspacesError::Store(ref store) => Self::outage_or_defect(store.is_outage(), error),
            WorkspacesError::Keys(ref keys) => Self::outage_or_defect(keys.is_outage(), error),
        }
    }
}

impl From<ConversationsError> for Problem {
    fn from(error: ConversationsError) -> Self {
        match error {
            ConversationsError::Denied(denied) => denied.into(),
            ConversationsError::Invalid(invalid) => invalid.into(),
            ConversationsError::Audit(error) => error.into(),
            ConversationsError::Credential(error) => error.into(),
            ConversationsError::Connections(error) => error.into(),
            ConversationsError::Workspaces(error) => error.into(),
            ConversationsError::NotFound(_) => Self::not_found(),
            ConversationsError::NotGranted(_) | ConversationsError::OriginRefused => {
                Self::new(Code::NotGranted, error.to_string())
            }
            ConversationsError::ConnectionRequired { ref provider, ref missing_scopes, ref connect_url } => {
                let mut problem =
                    Self::new(Code::ConnectionRequired, error.to_string()).with("provider", provider.as_str());
                if !missing_scopes.is_empty() {
                    problem = problem.with("missing_scopes", missing_scopes.as_slice());
                }
                match connect_url {
                    Some(url) => problem.with("connect_url", url.as_str()),
                    None => problem,
                }
            }
            ConversationsError::AmbiguousAccount { ref provider } => {
                Self::new(Code::AmbiguousAccount, error.to_string()).with("provider", provider.as_str())
            }
            ConversationsError::NotInjectable { ref provider } => {
                Self::new(Code::NotInjectable, error.to_string()).with("provider", provider.as_str())
            }
            ConversationsError::Unauthenticated => {
                Self::new(Code::Unauthenticated, "the credentials are missing or not right")
            }
            ConversationsError::IdentityMismatch => Self::new(Code::IdentityMismatch, error.to_string()),
            ConversationsError::Gone => Self::new(Code::Gone, error.to_string()),
            ConversationsError::RateLimited(wait) => Self::new(Code::RateLimited, error.to_string()).retry_after(wait),
            // A signed URL starts nothing, whether or not it was minted, and the conversation is marked as failed.
            ConversationsError::ElevenLabs(_) | ConversationsError::Street(_) => {
                let problem = Self::new(Code::UpstreamFailed, error.to_string()).because(error);
                problem.retry_after(SHORT_WAIT).without_effect()
            }
            ConversationsError::Store(ref store) => Self::outage_or_defect(store.is_outage(), error),
            ConversationsError::Keys(ref keys) => Self::outage_or_defect(keys.is_outage(), error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::{Denied, Permission};

    #[test]
    fn rooms_errors_find_their_places() {
        let of = |error: AccountsError| Problem::from(error).code();
        assert_eq!(of(AccountsError::NotFound("user")), Code::NotFound);
        assert_eq!(of(AccountsError::Gone), Code::Gone);
        assert_eq!(of(AccountsError::Unauthenticated), Code::Unauthenticated);
        assert_eq!(of(AccountsError::IpNotAllowed), Code::IpNotAllowed);
        assert_eq!(of(AccountsError::Overloaded(SHORT_WAIT)), Code::Overloaded);
        let denied = Problem::from(AccountsError::Denied(Denied { missing: Permission::KeysWrite }));
        assert_eq!((denied.code(), denied.denied()), (Code::InsufficientScope, Some(Permission::KeysWrite)));
        assert_eq!(Problem::from(IdempotencyError::Mismatch).code(), Code::IdempotencyMismatch);
        assert_eq!(Problem::from(IdempotencyError::InFlight).code(), Code::IdempotencyConflict);
        assert_eq!(Problem::from(ConnectionsError::ReturnUrlRequired).code(), Code::ReturnUrlRequired);
        assert_eq!(Problem::from(CredentialError::NotInjectable).code(), Code::NotInjectable);
    }
}
