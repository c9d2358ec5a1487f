//! Handshakes: out to the provider and back, once, within ten minutes, in the same browser and for the same person.
//!
//! The state is 256 random bits, stored as a hash and taken atomically before anything else happens (OA-01). What
//! counts about a callback is what was stored with the state; nothing in the callback chooses provider, user or
//! redirect URI (OA-03, fact sheet G.12).

use std::time::Duration;

use url::Url;

use super::asked::Asked;
use super::exchange::to_its_end;
use super::integrations::place as integration_place;
use super::{BY_SECRET, Connection, Connections, ConnectionsError};
use crate::audit::{Action, Event};
use crate::caller::{Caller, Origin, Permission, TenantScope};
use crate::clock::Millis;
use crate::ids::{ConnectionId, HandshakeId, TenantId, UserId};
use crate::invalid::Invalid;
use crate::keys::{Owner, Place, hash_of, mint_handle};
use crate::providers::{AuthorizeRequest, Pkce, pkce_challenge};
use crate::secret::Secret;
use crate::store::connect_sessions::{ConnectSessionRow, connect_session_set_state};
use crate::store::connections::{ConnectionRow, connection_by_id};
use crate::store::handshakes::{
    HandshakeRow, handshake_consume, handshake_insert, handshake_of_state, handshakes_live,
};
use crate::store::integrations::{IntegrationRow, integration_by_id, integration_by_provider};
use crate::store::tenants::tenant_own;
use crate::store::{StoreError, Tx, from_json_list};

/// Unfinished handshakes that one user may have (OA-13),
const MOST_LIVE_OF_USER: i64 = 20;
/// and that all users of a tenant may have together.
const MOST_LIVE_OF_TENANT: i64 = 10_000;

/// Who comes back, as the browser tells it.
#[derive(Clone, Copy, Debug)]
pub struct Visitor<'a> {
    /// The cookies' values; the one that the handshake was begun with must be among them.
    pub browser: &'a [Secret],
    /// Who is signed in there, if anybody.
    pub caller: Option<&'a Caller>,
}

/// A handshake to be begun.
#[derive(Clone, Copy, Debug)]
pub struct Begin<'a> {
    /// Catalogue id.
    pub provider: &'a str,
    /// The cookie's value.
    pub browser: &'a Secret,
    /// The connection that is to be made again.
    pub reconnects: Option<&'a ConnectionId>,
}

/// A handshake that has begun.
#[derive(Debug)]
pub struct Begun {
    /// Where the browser goes.
    pub authorize_url: Url,
}

/// What came back to a redirect URI.
#[derive(Debug, Default)]
pub struct Callback {
    /// From the path.
    pub provider: String,
    /// From the path.
    pub integration: String,
    /// `state`.
    pub state: Option<Secret>,
    /// `code`.
    pub code: Option<Secret>,
    /// `error`.
    pub error: Option<String>,
    /// `iss` (RFC 9207).
    pub iss: Option<String>,
}

/// Where a browser is sent after a hosted link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedirectTo {
    /// The registered return URL, with the outcome in its query.
    Url(String),
    /// A message to the window that opened this one.
    Popup {
        /// The exact registered origin.
        origin: String,
        /// `cns_…`.
        connect_session: String,
        /// The session's state.
        state: String,
        /// The completion code, where the platform confirms.
        completion_code: Option<String>,
    },
    /// Our own page.
    Here,
}

/// How a handshake ended.
#[derive(Debug)]
pub enum Finished {
    /// A connection was made, or made again.
    Connected {
        /// The connection.
        connection: Box<Connection>,
        /// What was asked for.
        asked: Vec<String>,
        /// Where the browser goes.
        redirect: RedirectTo,
    },
    /// The code is parked until the platform confirms.
    AwaitingConfirmation {
        /// Catalogue id.
        provider: String,
        /// Where the browser goes.
        redirect: RedirectTo,
    },
    /// The person said no.
    Denied {
        /// Catalogue id.
        provider: String,
        /// Where the browser goes.
        redirect: RedirectTo,
    },
    /// It did not work; nothing was connected.
    Failed {
        /// Catalogue id.
        provider: String,
        /// A word from a closed list.
        reason: &'static str,
        /// Where the browser goes.
        redirect: RedirectTo,
    },
}

/// How a handshake ended, and whose it was.
#[derive(Debug)]
pub struct Ending {
    /// The tenant's name.
    pub platform: String,
    /// How it ended.
    pub finished: Finished,
}

impl Connections {
    /// Begins a handshake for the end user who is signed in.
    ///
    /// # Errors
    /// [`ConnectionsError::NotFound`] when the tenant has no integration for the provider, [`ConnectionsError::TooMany`].
    pub async fn begin(&self, caller: &Caller, begin: Begin<'_>) -> Result<Begun, ConnectionsError> {
        let scope = caller.require(Permission::ConnectionsWrite)?;
        let user = caller.user().ok_or(ConnectionsError::NotFound("user"))?.clone();
        self.begin_for(caller, &scope, &user, begin, None, &[]).await
    }

    pub(super) async fn begin_for(
        &self,
        caller: &Caller,
        scope: &TenantScope,
        user: &UserId,
        begin: Begin<'_>,
        session: Option<&ConnectSessionRow>,
        extra_scopes: &[String],
    ) -> Result<Begun, ConnectionsError> {
        let provider = self.providers.get(begin.provider).ok_or(ConnectionsError::NotFound("provider"))?;
        let descriptor = provider.descriptor();
        let now = self.around.now();
        let mut tx = self.store.begin().await?;
        let integration = integration_by_provider(&mut tx, scope, begin.provider)
            .await?
            .filter(|row| !row.client_id.is_empty())
            .ok_or(ConnectionsError::NotFound("integration"))?;
        let (of_user, of_tenant) = handshakes_live(&mut tx, scope, user.as_str(), now.0).await?;
        if of_user >= MOST_LIVE_OF_USER || of_tenant >= MOST_LIVE_OF_TENANT {
            return Err(ConnectionsError::TooMany);
        }
        let reconnected = self.reconnected(&mut tx, scope, begin).await?;
        let reconnects = begin.reconnects.map(ConnectionId::as_str);
        let holds_refresh_token = self.holds_refresh_token(&mut tx, scope, reconnects).await?;
        let state = mint_handle(&self.around);
        let nonce = mint_handle(&self.around);
        let verifier = (descriptor.pkce == Pkce::S256).then(|| mint_handle(&self.around));
        let redirect_uri = self.redirect_uri(begin.provider, &integration.id);
        let (app, person) = (from_json_list(&integration.scopes), from_json_list(&integration.user_scopes));
        // Whoever reconnects is asked for all that was wanted of this account before: a new grant may take the place of the old one.
        let before = reconnected.as_ref().map(|row| Asked::of_column(&row.asked_scopes).more).unwrap_or_default();
        let more = extra_scopes.iter().cloned().chain(before);
        let asked = Asked { app, person, more: Vec::new() }.and(more, &descriptor.scopes.fixed);
        let (scopes, user_scopes) = (asked.of_app(descriptor), asked.of_person(descriptor));
        let challenge = verifier.as_ref().map(pkce_challenge);
        let variables = descriptor.stored_variables([integration.variables.as_str()]);
        let request = AuthorizeRequest {
            client_id: &integration.client_id,
            redirect_uri: &redirect_uri,
            state: state.expose(),
            nonce: Some(nonce.expose()),
            challenge: challenge.as_deref(),
            scopes: &scopes,
            user_scopes: &user_scopes,
            // An id of several parts is ours, and none that the provider's sign-in page knows.
            login_hint: reconnected.as_ref().map(|row| row.account_id.as_str()).filter(|id| !id.contains('/')),
            force_consent: !holds_refresh_token,
            variables: &variables,
        };
        let authorize_url = provider.authorize_url(&request).ok_or_else(|| {
            Invalid::one("scopes", "the integration asks for no scopes; set some with PUT /v1/integrations")
        })?;
        let row = self
            .handshake_row(
                &mut tx,
                scope,
                user,
                begin,
                &integration,
                session,
                redirect_uri,
                &asked,
                (&state, &nonce, verifier.as_ref()),
            )
            .await?;
        handshake_insert(&mut tx, scope, &row).await?;
        let event = Event::done(Action::HandshakeBegun, "integration", &integration.id).of_user(Some(user.as_str()));
        self.audit.record_and_commit(tx, caller, &event).await?;
        Ok(Begun { authorize_url })
    }

    async fn reconnected(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        begin: Begin<'_>,
    ) -> Result<Option<ConnectionRow>, ConnectionsError> {
        let Some(id) = begin.reconnects else { return Ok(None) };
        let row = connection_by_id(tx, scope, id.as_str()).await?.filter(|row| row.provider == begin.provider);
        Ok(Some(row.ok_or(ConnectionsError::NotFound("connection"))?))
    }

    #[expect(clippy::too_many_arguments, reason = "one row, gathered in one place from everything that binds it")]
    async fn handshake_row(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        user: &UserId,
        begin: Begin<'_>,
        integration: &IntegrationRow,
        session: Option<&ConnectSessionRow>,
        redirect_uri: String,
        asked: &Asked,
        (state, nonce, verifier): (&Secret, &Secret, Option<&Secret>),
    ) -> Result<HandshakeRow, ConnectionsError> {
        let id = HandshakeId::new(&self.around).to_string();
        let owner = Owner::User(scope.tenant_id().clone(), user.clone());
        let now = self.around.now();
        let verifier = match verifier {
            Some(verifier) => Some(self.keys.seal(tx, &owner, place(&id, "verifier"), verifier).await?),
            None => None,
        };
        Ok(HandshakeRow {
            tenant_id: scope.tenant().to_owned(),
            state_hash: hash_of(state.expose()),
            browser_hash: hash_of(begin.browser.expose()),
            user_id: user.to_string(),
            integration_id: integration.id.clone(),
            integration_revision: integration.revision,
            provider: begin.provider.to_owned(),
            redirect_uri,
            scopes: asked.to_column(),
            verifier,
            nonce: Some(self.keys.seal(tx, &owner, place(&id, "nonce"), nonce).await?),
            code: None,
            connect_session_id: session.map(|session| session.id.clone()),
            connection_id: begin.reconnects.map(ToString::to_string),
            created_at: now.0,
            expires_at: now.after(Duration::from_secs(self.ttl.handshake)).0,
            consumed_at: None,
            id,
        })
    }

    /// Ends a handshake with what came back. The state is used up whatever comes of it. Whoever comes too late, or once more, in the
    /// browser that it was begun in is told so; nobody else is.
    ///
    /// # Errors
    /// [`ConnectionsError::UnknownState`] for a state that is not ours or belongs to another browser or person,
    /// [`ConnectionsError::UsedState`] and [`ConnectionsError::OldState`]; nothing was connected and nothing was sent to the provider.
    pub async fn finish(
        &self,
        callback: Callback,
        visitor: Visitor<'_>,
        origin: Origin,
    ) -> Result<Ending, ConnectionsError> {
        let state = callback.state.as_ref().ok_or(ConnectionsError::UnknownState)?;
        let now = self.around.now();
        let mut tx = self.store.begin().await?;
        let handshake = handshake_consume(&mut tx, BY_SECRET, &hash_of(state.expose()), now.0).await?;
        tx.commit().await?;
        let Some(handshake) = handshake else { return Err(self.unusable(&callback, state, visitor).await?) };
        let person = Caller::end_user(
            TenantId::stored(handshake.tenant_id.clone()),
            UserId::stored(handshake.user_id.clone()),
            origin,
        );
        if let Some(mismatch) = mismatch(&handshake, &callback, visitor) {
            let event = Event::done(Action::FlowUserMismatch, "integration", &handshake.integration_id);
            self.audit.note(&person, &event.of_user(Some(&handshake.user_id)).denied(mismatch)).await?;
            return Err(ConnectionsError::UnknownState);
        }
        let scope = person.require(Permission::ConnectionsWrite)?;
        let tenant = tenant_own(&mut self.store.read().await?, &scope).await?;
        let platform = tenant.ok_or(ConnectionsError::UnknownState)?.name;
        let finished = match self.judge(&scope, &handshake, callback).await? {
            Ok(code) => {
                let (room, person, scope) = (self.clone(), person.clone(), scope.clone());
                to_its_end(async move { room.go_on(&person, &scope, handshake, code).await }).await?
            }
            Err("access_denied") => {
                let redirect = self.end_session(&scope, &handshake, "denied", None).await?;
                self.note_failure(&person, &handshake, "access_denied").await?;
                Finished::Denied { provider: handshake.provider, redirect }
            }
            Err(reason) => self.failed(&person, &scope, handshake, reason).await?,
        };
        Ok(Ending { platform, finished })
    }

    /// Why a state cannot be used.
    async fn unusable(
        &self,
        callback: &Callback,
        state: &Secret,
        visitor: Visitor<'_>,
    ) -> Result<ConnectionsError, StoreError> {
        let mut tx = self.store.read().await?;
        let known = handshake_of_state(&mut tx, BY_SECRET, &hash_of(state.expose())).await?;
        Ok(match known.filter(|one| mismatch(one, callback, visitor).is_none()) {
            None => ConnectionsError::UnknownState,
            Some(handshake) if handshake.consumed_at.is_some() => ConnectionsError::UsedState,
            Some(_) => ConnectionsError::OldState,
        })
    }

    /// The code, or the word for why there is none.
    async fn judge(
        &self,
        scope: &TenantScope,
        handshake: &HandshakeRow,
        callback: Callback,
    ) -> Result<Result<Secret, &'static str>, ConnectionsError> {
        let Some(provider) = self.providers.get(&handshake.provider) else { return Ok(Err("provider_unknown")) };
        let ends = &provider.descriptor().endpoints;
        let is_wrong = match &callback.iss {
            Some(iss) => !ends.issuers.is_empty() && !ends.issuers.contains(iss),
            None => ends.names_issuer,
        };
        if is_wrong {
            return Ok(Err("wrong_issuer"));
        }
        if let Some(error) = &callback.error {
            return Ok(Err(match (error.as_str(), &callback.code) {
                ("access_denied", None) => "access_denied",
                ("admin_policy_enforced" | "org_internal", None) => "admin_policy",
                (_, None) => "provider_refused",
                (_, Some(_)) => "contradictory_answer",
            }));
        }
        let Some(code) = callback.code else { return Ok(Err("no_code")) };
        let mut tx = self.store.read().await?;
        let integration = integration_by_id(&mut tx, scope, &handshake.integration_id).await?;
        // A changed client ends every handshake that its predecessor began (OA-04).
        if integration.is_none_or(|row| row.revision != handshake.integration_revision) {
            return Ok(Err("integration_changed"));
        }
        Ok(Ok(code))
    }

    async fn go_on(
        &self,
        person: &Caller,
        scope: &TenantScope,
        handshake: HandshakeRow,
        code: Secret,
    ) -> Result<Finished, ConnectionsError> {
        if let Some(session) = &handshake.connect_session_id
            && self.platform_confirms(scope).await?
        {
            let redirect = self.park(scope, &handshake, session, &code).await?;
            return Ok(Finished::AwaitingConfirmation { provider: handshake.provider, redirect });
        }
        match self.exchange(person, scope, &handshake, &code).await {
            Ok(connection) => {
                let redirect = self.end_session(scope, &handshake, "completed", Some(connection.id.as_str())).await?;
                Ok(Finished::Connected {
                    connection: Box::new(connection),
                    asked: Asked::of_column(&handshake.scopes).all(),
                    redirect,
                })
            }
            Err(ConnectionsError::Provider(failure)) => {
                tracing::warn!(provider = handshake.provider, code = %failure.code(), "a code could not be exchanged");
                self.failed(person, scope, handshake, failure_word(&failure)).await
            }
            // The client went away during the exchange, or the user, who does not read this any more.
            Err(ConnectionsError::Gone) => self.failed(person, scope, handshake, "integration_changed").await,
            Err(other) => Err(other),
        }
    }

    async fn failed(
        &self,
        person: &Caller,
        scope: &TenantScope,
        handshake: HandshakeRow,
        reason: &'static str,
    ) -> Result<Finished, ConnectionsError> {
        let redirect = self.end_session(scope, &handshake, "denied", None).await?;
        self.note_failure(person, &handshake, reason).await?;
        Ok(Finished::Failed { provider: handshake.provider, reason, redirect })
    }

    async fn note_failure(
        &self,
        person: &Caller,
        handshake: &HandshakeRow,
        reason: &str,
    ) -> Result<(), ConnectionsError> {
        let event = Event::done(Action::HandshakeFailed, "integration", &handshake.integration_id)
            .of_user(Some(&handshake.user_id));
        self.audit.note(person, &event.failed(reason)).await?;
        Ok(())
    }

    /// Tells the connect session, if there is one, how its handshake ended.
    async fn end_session(
        &self,
        scope: &TenantScope,
        handshake: &HandshakeRow,
        state: &str,
        connection: Option<&str>,
    ) -> Result<RedirectTo, ConnectionsError> {
        let Some(id) = &handshake.connect_session_id else { return Ok(RedirectTo::Here) };
        let mut tx = self.store.begin().await?;
        connect_session_set_state(&mut tx, scope, id, state, connection).await?;
        let redirect = self.way_back(&mut tx, scope, id, state, None).await?;
        tx.commit().await?;
        Ok(redirect)
    }

    pub(super) async fn open_verifier(
        &self,
        tx: &mut Tx,
        handshake: &HandshakeRow,
    ) -> Result<(Option<Secret>, Option<Secret>), ConnectionsError> {
        let owner = Owner::of_row(&handshake.tenant_id, "user", &handshake.user_id);
        let verifier = match &handshake.verifier {
            Some(sealed) => Some(self.keys.open_secret(tx, &owner, place(&handshake.id, "verifier"), sealed).await?),
            None => None,
        };
        let nonce = match &handshake.nonce {
            Some(sealed) => Some(self.keys.open_secret(tx, &owner, place(&handshake.id, "nonce"), sealed).await?),
            None => None,
        };
        Ok((verifier, nonce))
    }

    pub(super) async fn client_secret(
        &self,
        tx: &mut Tx,
        integration: &IntegrationRow,
    ) -> Result<Secret, ConnectionsError> {
        let Some(sealed) = &integration.client_secret else { return Ok(Secret::new("")) };
        let owner = Owner::Tenant(TenantId::stored(integration.tenant_id.clone()));
        Ok(self.keys.open_secret(tx, &owner, integration_place(&integration.id, "client_secret"), sealed).await?)
    }
}

/// Where a secret of a handshake stands.
pub(super) fn place<'a>(id: &'a str, field: &'static str) -> Place<'a> {
    Place { record_kind: "handshake", record_id: id, field, generation: 0 }
}

/// Why a callback does not belong to the handshake whose state it brings.
fn mismatch(handshake: &HandshakeRow, callback: &Callback, visitor: Visitor<'_>) -> Option<&'static str> {
    if visitor.browser.iter().all(|held| hash_of(held.expose()) != handshake.browser_hash) {
        return Some("other_browser");
    }
    if callback.provider != handshake.provider || callback.integration != handshake.integration_id {
        return Some("other_integration");
    }
    // Through a hosted link the platform confirms who it was; otherwise the person must be signed in, and the same.
    let same_person = visitor.caller.is_some_and(|caller| {
        caller.tenant().as_str() == handshake.tenant_id
            && caller.user().is_some_and(|user| user.as_str() == handshake.user_id)
    });
    if handshake.connect_session_id.is_none() && !same_person {
        return Some("other_user");
    }
    None
}

fn failure_word(failure: &crate::providers::Failure) -> &'static str {
    use crate::providers::Failure as F;
    match failure {
        F::Reauth { code } if code.as_str() == "refresh_token_missing" => "no_refresh_token",
        F::Reauth { code } if code.as_str() == "other_account" => "other_account",
        F::Reauth { .. } => "code_refused",
        F::Configuration { .. } => "misconfigured",
        F::RateLimited { .. } | F::Transient { .. } | F::NotSent | F::Ambiguous { .. } | F::ServerError { .. } => {
            "provider_unreachable"
        }
        F::Admin { .. } => "admin_policy",
        F::Unrecognised { .. } => "identity_unproven",
    }
}

/// The time a parked code and its completion code live.
pub(super) fn completion_end(now: Millis, seconds: u64) -> Millis {
    now.after(Duration::from_secs(seconds))
}
