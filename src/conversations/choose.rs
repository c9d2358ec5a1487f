//! Which connection a need means, and how it gets to the agent.

use std::time::Duration;

use futures_util::future::join_all;

use super::start::WantedConnection;
use super::{Conversations, ConversationsError};
use crate::caller::Caller;
use crate::connections::{Connection, ListFilter, NewConnectSession};
use crate::credentials::{CredentialError, ReadWish, Warm, Which};
use crate::invalid::Invalid;
use crate::workspaces::{HandOver, Need};

/// What one provider may take at a start (RL-19).
pub(super) const BUDGET: Duration = Duration::from_millis(1500);
/// Connections of one user that are looked through.
const MOST: i64 = 100;

/// A need with what was found for it.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) need: Need,
    pub(super) found: Option<Found>,
}

/// A connection that is ready.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) connection: Connection,
    pub(super) warm: Warm,
    pub(super) injects: bool,
    /// Whether it is the first of its provider.
    pub(super) is_primary: bool,
}

impl Conversations {
    /// Finds and warms what is needed, all providers in parallel. A missing required one is an error; a missing optional
    /// one is none.
    pub(super) async fn choose(
        &self,
        ticket: &Caller,
        user: &str,
        wanted: Vec<(Need, Option<String>)>,
        life: Duration,
    ) -> Result<Vec<Chosen>, ConversationsError> {
        let filter = ListFilter { limit: MOST, ..ListFilter::default() };
        let all = self.connections.connection_list(ticket, &filter).await?;
        let choices =
            wanted.into_iter().map(|(need, account)| self.choose_one(ticket, user, &all, need, account, life));
        let mut chosen: Vec<Chosen> = join_all(choices).await.into_iter().collect::<Result<_, _>>()?;
        tell_apart(&mut chosen)?;
        Ok(chosen)
    }

    async fn choose_one(
        &self,
        ticket: &Caller,
        user: &str,
        all: &[Connection],
        need: Need,
        account: Option<String>,
        life: Duration,
    ) -> Result<Chosen, ConversationsError> {
        let picked = pick(all, &need, account.as_deref())?;
        let lacking = |one| self.connections.scopes_lacking(one, need.credential.as_deref(), &need.scopes);
        let missing_scopes = picked.map(lacking).unwrap_or_default();
        let found = match picked.filter(|_| missing_scopes.is_empty()) {
            Some(connection) => self.ready(ticket, connection, &need, life).await,
            None => Ok(None),
        };
        match found {
            Ok(Some(found)) => Ok(Chosen { need, found: Some(found) }),
            Ok(None) if !need.required => Ok(Chosen { need, found: None }),
            Err(error) if !need.required && passes(&error) => Ok(Chosen { need, found: None }),
            Ok(None) => {
                let connect_url = self.connect_url(ticket, user, &need).await;
                Err(ConversationsError::ConnectionRequired { provider: need.provider, missing_scopes, connect_url })
            }
            Err(error) => Err(error),
        }
    }

    /// Makes sure that the connection can be used now; none when only its user could help.
    async fn ready(
        &self,
        ticket: &Caller,
        connection: &Connection,
        need: &Need,
        life: Duration,
    ) -> Result<Option<Found>, ConversationsError> {
        if !["active", "needs_reauth"].contains(&connection.status.as_str()) {
            return Ok(None);
        }
        let expires = connection
            .credentials
            .iter()
            .find(|credential| need.credential.as_deref().is_none_or(|kind| kind == credential.kind))
            .is_some_and(|credential| credential.expires_at.is_some());
        let injects = match need.hand_over {
            HandOver::Inject if !expires => {
                return Err(ConversationsError::NotInjectable { provider: need.provider.clone() });
            }
            HandOver::Inject => true,
            HandOver::Auto => expires,
            HandOver::Broker => false,
        };
        let want = ReadWish {
            which: Which::of_kind(need.credential.as_deref()),
            patience: BUDGET,
            forever_is_fine: true,
            ..ReadWish::token(connection.id.as_str(), life)
        };
        match self.credentials.warm(ticket, want).await {
            Ok(warm) => Ok(Some(Found { connection: connection.clone(), warm, injects, is_primary: true })),
            Err(CredentialError::NeedsReauth { .. } | CredentialError::NoSuchKind | CredentialError::NotFound) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A link with which the user can connect what is missing, if the provider asks for consent and the tenant has said
    /// where to come back to. It asks for every scope that is needed, whatever the integration asks.
    async fn connect_url(&self, ticket: &Caller, user: &str, need: &Need) -> Option<String> {
        let tenant = Caller::system("start", ticket.tenant().clone());
        let return_url = self.connections.first_return_url(&tenant).await.ok().flatten();
        // A link's scopes are asked of the person; what a bot may is the integration's to ask.
        let is_asked = need.credential.as_deref().is_none_or(|kind| kind == "user") && !need.scopes.is_empty();
        let scopes = is_asked.then(|| (need.provider.clone(), need.scopes.clone())).into_iter().collect();
        let new = NewConnectSession {
            user: user.to_owned(),
            providers: vec![need.provider.clone()],
            scopes,
            return_url,
            ..NewConnectSession::default()
        };
        let link = self.connections.connect_session_create(&tenant, new).await.ok()?;
        Some(link.url.expose().to_owned())
    }
}

/// Whether an error only says that the connection cannot be used now, which an optional need does without. A hand-over
/// that was asked for and cannot be, and trouble of our own, are answered whatever the need.
fn passes(error: &ConversationsError) -> bool {
    let ConversationsError::Credential(error) = error else { return false };
    match error {
        CredentialError::NotFound
        | CredentialError::NoSuchKind
        | CredentialError::NotRefreshable
        | CredentialError::NeedsReauth { .. }
        | CredentialError::Misconfigured
        | CredentialError::InProgress { .. }
        | CredentialError::RateLimited { .. }
        | CredentialError::Upstream { .. }
        | CredentialError::Street(_) => true,
        CredentialError::Denied(_)
        | CredentialError::NotInjectable
        | CredentialError::NotAllowed(_)
        | CredentialError::Audit(_)
        | CredentialError::Store(_)
        | CredentialError::Keys(_) => false,
    }
}

/// One conversation may use several accounts of a provider. The first one named is what tools get without naming one, and
/// the only one that is injected, since a provider's variables hold one token.
fn tell_apart(chosen: &mut [Chosen]) -> Result<(), ConversationsError> {
    let mut invalid = Invalid::default();
    for index in 1..chosen.len() {
        let (before, rest) = chosen.split_at_mut(index);
        let Some(Chosen { need, found: Some(found) }) = rest.first_mut() else { continue };
        let same = before.iter().filter(|one| one.need.provider == need.provider);
        for other in same.filter_map(|one| one.found.as_ref()) {
            found.is_primary = false;
            found.injects = false;
            if other.connection.id == found.connection.id {
                invalid.add(format!("connections[{index}]"), "names the same account a second time");
            }
        }
    }
    Ok(invalid.into_result()?)
}

/// The connection that is meant: by account, else the default one, else the only one.
fn pick<'a>(
    all: &'a [Connection],
    need: &Need,
    account: Option<&str>,
) -> Result<Option<&'a Connection>, ConversationsError> {
    let mut fitting = all
        .iter()
        .filter(|one| one.provider == need.provider && one.status != "revoked" && one.status != "awaiting_start")
        .filter(|one| account.is_none_or(|wanted| is_account(one, wanted)));
    let Some(first) = fitting.next() else { return Ok(None) };
    let others: Vec<&Connection> = fitting.collect();
    if others.is_empty() {
        return Ok(Some(first));
    }
    match std::iter::once(first).chain(others).find(|one| one.default) {
        Some(default) => Ok(Some(default)),
        None => Err(ConversationsError::AmbiguousAccount { provider: need.provider.clone() }),
    }
}

/// An account is meant by its id, e-mail or label.
pub(super) fn is_account(connection: &Connection, wanted: &str) -> bool {
    connection.id.as_str() == wanted
        || connection.account.id == wanted
        || connection.account.email.as_deref().is_some_and(|email| email.eq_ignore_ascii_case(wanted))
        || (!connection.label.is_empty() && connection.label == wanted)
}

impl WantedConnection {
    /// The need that a start call's entry stands for; what it leaves open comes from the agent's own need.
    pub(super) fn into_need(self, needs: &[Need]) -> (Need, Option<String>) {
        let known = needs.iter().find(|need| need.provider == self.provider);
        let need = Need {
            credential: known.and_then(|need| need.credential.clone()),
            required: self.required.unwrap_or_else(|| known.is_none_or(|need| need.required)),
            scopes: known.map(|need| need.scopes.clone()).unwrap_or_default(),
            hand_over: self.hand_over.unwrap_or_else(|| known.map_or(HandOver::Auto, |need| need.hand_over)),
            provider: self.provider,
        };
        (need, self.account)
    }
}
