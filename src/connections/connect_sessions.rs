//! Connect sessions: one-time links with which a platform lets its user connect. GET shows, POST consumes (WB-12), and
//! unless the operator said otherwise the platform confirms who it was before a code is exchanged (OA-02).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;
use utoipa::ToSchema;

use super::exchange::to_its_end;
use super::handshakes::{completion_end, place};
use super::integrations::{SCOPE_FORM, is_scope};
use super::offers::ConsentOffer;
use super::{BY_SECRET, Begin, Begun, Connection, Connections, ConnectionsError, RedirectTo};
use crate::audit::{Action, Event};
use crate::caller::{Caller, Origin, Permission, TenantScope};
use crate::clock::Millis;
use crate::ids::{ConnectSessionId, ConnectionId, TenantId, UserId};
use crate::invalid::Invalid;
use crate::keys::{Owner, hash_of, mint};
use crate::schema::words;
use crate::secret::Secret;
use crate::store::connect_sessions::{
    ConnectSessionRow, connect_session_await, connect_session_by_id, connect_session_by_token, connect_session_confirm,
    connect_session_count_wrong_code, connect_session_insert, connect_session_set_state, connect_session_start,
};
use crate::store::handshakes::{HandshakeRow, handshake_park, handshake_unpark};
use crate::store::integrations::{integration_by_provider, integration_list};
use crate::store::tenants::{TenantRow, tenant_own};
use crate::store::users::{user_by_id, user_ensure};
use crate::store::{Tx, from_json_list, to_json_list};

words! {
    /// How a one-time link stands.
    ConnectSessionState: "open" | "started" | "awaiting_confirmation" | "completed" | "denied" | "expired";
    /// How the user comes back to the platform.
    ReturnMode: "redirect" | "popup";
}

/// Wrong completion codes before the session ends (API.md section 6, point 9).
const MOST_WRONG_CODES: i64 = 10;

/// More scopes than any consent page shows.
const MOST_SCOPES: usize = 100;

/// What a platform asks for.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewConnectSession {
    /// The tenant's own id of the user.
    #[serde(default)]
    #[schema(required, min_length = 1, max_length = 200)]
    pub user: String,
    /// Catalogue ids; empty means every integration.
    #[serde(default)]
    pub providers: Vec<String>,
    /// More scopes, by provider; where people and apps are asked apart (Slack), of the person.
    #[serde(default)]
    pub scopes: BTreeMap<String, Vec<String>>,
    /// A registered return URL, or for a popup a registered origin.
    pub return_url: Option<String>,
    /// `redirect` (default) or `popup`.
    #[schema(value_type = Option<ReturnMode>)]
    pub mode: Option<String>,
}

/// A connect session's link.
#[derive(Debug)]
pub struct ConnectLink {
    /// `cns_…`.
    pub id: ConnectSessionId,
    /// To be opened by the user; shown once.
    pub url: Secret,
    /// When it ends.
    pub expires_at: Millis,
}

/// How a connect session stands.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ConnectSession {
    /// `cns_…`.
    pub id: ConnectSessionId,
    /// `open`, `started`, `awaiting_confirmation`, `completed`, `denied` or `expired`.
    #[schema(value_type = ConnectSessionState)]
    pub state: String,
    /// `con_…` once there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = ConnectionId, nullable = false)]
    pub connection: Option<String>,
}

/// What the page shows of a link before Continue.
#[derive(Clone, Debug)]
pub struct ConnectVisit {
    /// The platform's name.
    pub platform: String,
    /// How the platform calls the user.
    pub user: String,
    /// The user's display name is theirs to read: whoever holds the link, as the user it is for.
    pub holder: Caller,
    /// Whether the page is a popup of the platform's.
    pub popup: bool,
    /// What may be connected.
    pub offers: Vec<ConsentOffer>,
    /// Where the browser goes afterwards.
    pub returns_to: Option<String>,
    /// When the link ends.
    pub expires_at: Millis,
}

/// A platform's word that it was the right person.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    /// The tenant's own id of the user.
    pub user: String,
    /// From the return URL.
    #[schema(value_type = String, write_only)]
    pub completion_code: Secret,
}

impl Connections {
    /// Makes a link.
    ///
    /// # Errors
    /// [`ConnectionsError::ReturnUrlRequired`], [`ConnectionsError::Invalid`], [`ConnectionsError::Denied`].
    pub async fn connect_session_create(
        &self,
        caller: &Caller,
        new: NewConnectSession,
    ) -> Result<ConnectLink, ConnectionsError> {
        let scope = caller.require(Permission::ConnectionsWrite)?;
        let mut invalid = Invalid::default();
        invalid.keep(crate::invalid::checked_external_id("user", &new.user));
        let mode = new.mode.as_deref().unwrap_or("redirect");
        if !["redirect", "popup"].contains(&mode) {
            invalid.add("mode", "must be redirect or popup");
        }
        let mut tx = self.store.begin().await?;
        self.check_providers(&mut tx, &scope, &new, &mut invalid).await?;
        let tenant = tenant_own(&mut tx, &scope).await?.ok_or(ConnectionsError::NotFound("tenant"))?;
        match check_return(&tenant, mode, new.return_url.as_deref()) {
            Err(ConnectionsError::Invalid(wrong)) => _ = invalid.keep::<()>(Err(wrong)),
            // What is wrong with the fields comes first.
            other if invalid.0.is_empty() => other?,
            _ => {}
        }
        invalid.into_result()?;
        let now = self.around.now();
        let user = user_ensure(&mut tx, &scope, UserId::new(&self.around).as_str(), &new.user, now.0).await?;
        let token = mint("vkc", &self.around);
        let expires_at = now.after(Duration::from_secs(self.ttl.connect_session));
        let row = ConnectSessionRow {
            tenant_id: scope.tenant().to_owned(),
            id: ConnectSessionId::new(&self.around).to_string(),
            token_hash: hash_of(token.expose()),
            user_id: user.id.clone(),
            providers: to_json_list(&new.providers),
            scopes: serde_json::to_string(&new.scopes).unwrap_or_else(|_| "{}".to_owned()),
            return_url: new.return_url,
            mode: mode.to_owned(),
            state: "open".to_owned(),
            browser_hash: None,
            connection_id: None,
            completion_hash: None,
            completion_expires_at: None,
            completion_attempts: 0,
            created_at: now.0,
            expires_at: expires_at.0,
        };
        connect_session_insert(&mut tx, &scope, &row).await?;
        let event = Event::done(Action::ConnectSessionCreated, "connect_session", &row.id).of_user(Some(&user.id));
        self.audit.record_and_commit(tx, caller, &event).await?;
        let url = Secret::new(self.page(&format!("connect/{}", token.expose())));
        Ok(ConnectLink { id: ConnectSessionId::stored(row.id), url, expires_at })
    }

    /// How a session stands.
    ///
    /// # Errors
    /// [`ConnectionsError::NotFound`], [`ConnectionsError::Denied`].
    pub async fn connect_session(
        &self,
        caller: &Caller,
        id: &ConnectSessionId,
    ) -> Result<ConnectSession, ConnectionsError> {
        let scope = caller.require(Permission::ConnectionsRead)?;
        let mut tx = self.store.read().await?;
        let row = connect_session_by_id(&mut tx, &scope, id.as_str())
            .await?
            .ok_or(ConnectionsError::NotFound("connect session"))?;
        Ok(ConnectSession { id: id.clone(), state: self.state_now(&row).to_owned(), connection: row.connection_id })
    }

    /// What a link offers, without using it.
    ///
    /// # Errors
    /// [`ConnectionsError::Gone`] for a link that was used or has expired.
    pub async fn connect_visit(&self, token: &Secret) -> Result<ConnectVisit, ConnectionsError> {
        let mut tx = self.store.read().await?;
        let row = connect_session_by_token(&mut tx, BY_SECRET, &hash_of(token.expose()))
            .await?
            .ok_or(ConnectionsError::Gone)?;
        if row.state != "open" || row.expires_at <= self.around.now().0 {
            return Err(ConnectionsError::Gone);
        }
        let holder = visitor(&row, Origin::default());
        let scope = holder.require(Permission::ConnectionsRead)?;
        let tenant = tenant_own(&mut tx, &scope).await?.ok_or(ConnectionsError::Gone)?;
        let user = user_by_id(&mut tx, &scope, &row.user_id).await?.ok_or(ConnectionsError::Gone)?;
        let offers = self.offers(&mut tx, &scope, &row).await?;
        Ok(ConnectVisit {
            platform: tenant.name,
            user: user.external_id,
            holder,
            popup: row.mode == "popup",
            offers,
            returns_to: row.return_url,
            expires_at: Millis(row.expires_at),
        })
    }

    /// The platform's name, when a link is one of its that somebody has continued with; nothing of any other link.
    ///
    /// # Errors
    /// As every statement.
    pub async fn connect_used(&self, token: &Secret) -> Result<Option<String>, ConnectionsError> {
        let mut tx = self.store.read().await?;
        let row = connect_session_by_token(&mut tx, BY_SECRET, &hash_of(token.expose())).await?;
        let Some(row) = row.filter(|row| row.state != "open") else { return Ok(None) };
        let scope = visitor(&row, Origin::default()).require(Permission::ConnectionsRead)?;
        Ok(tenant_own(&mut tx, &scope).await?.map(|tenant| tenant.name))
    }

    /// Whether a page of `origin` may stand in for ours at this link, whatever has become of it: the platform has registered that
    /// origin, and confirms itself who came back (OA-02, OA-15).
    ///
    /// # Errors
    /// As every statement.
    pub async fn may_stand_in(&self, token: &Secret, origin: &str) -> Result<bool, ConnectionsError> {
        let mut tx = self.store.read().await?;
        let row = connect_session_by_token(&mut tx, BY_SECRET, &hash_of(token.expose())).await?;
        let Some(row) = row else { return Ok(false) };
        let scope = visitor(&row, Origin::default()).require(Permission::ConnectionsRead)?;
        let tenant = tenant_own(&mut tx, &scope).await?.filter(|tenant| tenant.confirm == "platform");
        Ok(tenant.is_some_and(|tenant| from_json_list(&tenant.origins).iter().any(|one| one == origin)))
    }

    /// Uses a link and begins the handshake: "Continue".
    ///
    /// # Errors
    /// [`ConnectionsError::Gone`] for the second press, [`ConnectionsError::Invalid`] for a provider that is not offered.
    pub async fn connect_start(
        &self,
        token: &Secret,
        provider: &str,
        browser: &Secret,
        origin: Origin,
    ) -> Result<Begun, ConnectionsError> {
        let visit = self.connect_visit(token).await?;
        let Some(offer) = visit.offers.iter().find(|offer| offer.provider == provider) else {
            return Err(Invalid::one("provider", "this link does not offer that provider").into());
        };
        let now = self.around.now();
        let mut tx = self.store.begin().await?;
        let started =
            connect_session_start(&mut tx, BY_SECRET, &hash_of(token.expose()), &hash_of(browser.expose()), now.0)
                .await?;
        tx.commit().await?;
        let row = started.ok_or(ConnectionsError::Gone)?;
        let caller = visitor(&row, origin);
        let scope = caller.require(Permission::ConnectionsWrite)?;
        let begin = Begin { provider, browser, reconnects: None };
        self.begin_for(&caller, &scope, &UserId::stored(row.user_id.clone()), begin, Some(&row), &offer.scopes).await
    }

    /// The platform confirms the person; only now is the provider's code exchanged (OA-02).
    ///
    /// # Errors
    /// [`ConnectionsError::IdentityMismatch`], [`ConnectionsError::Gone`], [`ConnectionsError::Provider`],
    /// [`ConnectionsError::Invalid`] for a wrong code, which uses nothing up until the tenth.
    pub async fn connect_confirm(
        &self,
        caller: &Caller,
        id: &ConnectSessionId,
        confirmation: Confirmation,
    ) -> Result<Connection, ConnectionsError> {
        let scope = caller.require(Permission::ConnectionsWrite)?;
        let mut tx = self.store.begin().await?;
        let row = connect_session_by_id(&mut tx, &scope, id.as_str())
            .await?
            .ok_or(ConnectionsError::NotFound("connect session"))?;
        if self.state_now(&row) != "awaiting_confirmation" {
            return Err(ConnectionsError::Gone);
        }
        let user = user_by_id(&mut tx, &scope, &row.user_id).await?.ok_or(ConnectionsError::Gone)?;
        if user.external_id != confirmation.user {
            let event = Event::done(Action::FlowUserMismatch, "connect_session", &row.id).of_user(Some(&row.user_id));
            self.audit.record_and_commit(tx, caller, &event.denied("other_user")).await?;
            return Err(ConnectionsError::IdentityMismatch);
        }
        let now = self.around.now().0;
        if !connect_session_confirm(&mut tx, &scope, id.as_str(), &hash_of(confirmation.completion_code.expose()), now)
            .await?
        {
            if connect_session_count_wrong_code(&mut tx, &scope, id.as_str()).await? >= MOST_WRONG_CODES {
                connect_session_set_state(&mut tx, &scope, id.as_str(), "expired", None).await?;
            }
            tx.commit().await?;
            return Err(
                Invalid::one("completion_code", "is not the code that this session's return URL was given").into()
            );
        }
        let handshake = handshake_unpark(&mut tx, &scope, id.as_str()).await?.ok_or(ConnectionsError::Gone)?;
        let owner = Owner::of_row(&handshake.tenant_id, "user", &handshake.user_id);
        let sealed = handshake.code.clone().ok_or(ConnectionsError::Gone)?;
        let code = self.keys.open_secret(&mut tx, &owner, place(&handshake.id, "code"), &sealed).await?;
        tx.commit().await?;
        let (room, caller, id) = (self.clone(), caller.clone(), id.clone());
        to_its_end(async move { room.connect_confirmed(&caller, &scope, &id, &handshake, &code).await }).await
    }

    async fn connect_confirmed(
        &self,
        caller: &Caller,
        scope: &TenantScope,
        id: &ConnectSessionId,
        handshake: &HandshakeRow,
        code: &Secret,
    ) -> Result<Connection, ConnectionsError> {
        let outcome = self.exchange(caller, scope, handshake, code).await;
        let (state, connection) = match &outcome {
            Ok(connection) => ("completed", Some(connection.id.as_str())),
            Err(_) => ("denied", None),
        };
        let mut tx = self.store.begin().await?;
        connect_session_set_state(&mut tx, scope, id.as_str(), state, connection).await?;
        tx.commit().await?;
        outcome
    }

    /// The return URL that the tenant registered first.
    ///
    /// # Errors
    /// As every statement.
    pub async fn first_return_url(&self, caller: &Caller) -> Result<Option<String>, ConnectionsError> {
        let scope = caller.require(Permission::ConnectionsRead)?;
        let mut tx = self.store.read().await?;
        let tenant = tenant_own(&mut tx, &scope).await?;
        Ok(tenant.and_then(|tenant| from_json_list(&tenant.return_urls).into_iter().next()))
    }

    pub(super) async fn platform_confirms(&self, scope: &TenantScope) -> Result<bool, ConnectionsError> {
        let mut tx = self.store.read().await?;
        Ok(tenant_own(&mut tx, scope).await?.is_none_or(|tenant| tenant.confirm == "platform"))
    }

    /// Seals the code and waits for the platform; gives the way back with the completion code.
    pub(super) async fn park(
        &self,
        scope: &TenantScope,
        handshake: &HandshakeRow,
        session: &str,
        code: &Secret,
    ) -> Result<RedirectTo, ConnectionsError> {
        let completion = mint("vkp", &self.around);
        let owner = Owner::of_row(&handshake.tenant_id, "user", &handshake.user_id);
        let mut tx = self.store.begin().await?;
        let sealed = self.keys.seal(&mut tx, &owner, place(&handshake.id, "code"), code).await?;
        handshake_park(&mut tx, scope, &handshake.id, &sealed).await?;
        let until = completion_end(self.around.now(), self.ttl.completion_code);
        connect_session_await(&mut tx, scope, session, &hash_of(completion.expose()), until.0).await?;
        let redirect = self.way_back(&mut tx, scope, session, "awaiting_confirmation", Some(&completion)).await?;
        tx.commit().await?;
        Ok(redirect)
    }

    pub(super) async fn way_back(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        session: &str,
        state: &str,
        completion: Option<&Secret>,
    ) -> Result<RedirectTo, ConnectionsError> {
        let Some(row) = connect_session_by_id(tx, scope, session).await? else { return Ok(RedirectTo::Here) };
        let Some(return_url) = &row.return_url else { return Ok(RedirectTo::Here) };
        let completion_code = completion.map(|code| code.expose().to_owned());
        if row.mode == "popup" {
            let origin = return_url.clone();
            return Ok(RedirectTo::Popup { origin, connect_session: row.id, state: state.to_owned(), completion_code });
        }
        let mut url: Url = return_url.parse().map_err(|_| ConnectionsError::Gone)?;
        url.query_pairs_mut().append_pair("connect_session", &row.id);
        match &completion_code {
            Some(code) => url.query_pairs_mut().append_pair("completion_code", code),
            None => url.query_pairs_mut().append_pair("state", state),
        };
        Ok(RedirectTo::Url(url.into()))
    }

    fn state_now<'a>(&self, row: &'a ConnectSessionRow) -> &'a str {
        let now = self.around.now().0;
        let over = match row.state.as_str() {
            "open" | "started" => row.expires_at <= now,
            "awaiting_confirmation" => row.completion_expires_at.is_none_or(|at| at <= now),
            _ => false,
        };
        if over { "expired" } else { &row.state }
    }

    async fn check_providers(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        new: &NewConnectSession,
        invalid: &mut Invalid,
    ) -> Result<(), ConnectionsError> {
        for (index, provider) in new.providers.iter().enumerate() {
            let Some(integration) = integration_by_provider(tx, scope, provider).await? else {
                invalid.add(
                    format!("providers[{index}]"),
                    "has no integration; set one with PUT /v1/integrations/{provider}",
                );
                continue;
            };
            if self.consent_offer(&integration, &[]).is_none() {
                invalid.add(
                    format!("providers[{index}]"),
                    "is not connected by consent at the provider; use POST /v1/connections or a portal session",
                );
            }
        }
        for (provider, scopes) in &new.scopes {
            // A name that a client made up is shown, but not at any length.
            let field: String = format!("scopes.{provider}").chars().filter(|c| !c.is_control()).take(100).collect();
            let integration = integration_by_provider(tx, scope, provider).await?;
            let asks = integration.is_some_and(|row| self.consent_offer(&row, &[]).is_some());
            let among = new.providers.is_empty() || new.providers.contains(provider);
            if !asks || !among {
                invalid.add(field, "is not one of the providers that this session offers");
            } else if scopes.len() > MOST_SCOPES {
                invalid.add(field, format!("must have at most {MOST_SCOPES} entries"));
            } else {
                for (index, _) in scopes.iter().enumerate().filter(|(_, one)| !is_scope(one)) {
                    invalid.add(format!("{field}[{index}]"), SCOPE_FORM);
                }
            }
        }
        Ok(())
    }

    async fn offers(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        row: &ConnectSessionRow,
    ) -> Result<Vec<ConsentOffer>, ConnectionsError> {
        let wanted = from_json_list(&row.providers);
        let extra: BTreeMap<String, Vec<String>> = serde_json::from_str(&row.scopes).unwrap_or_default();
        let integrations = integration_list(tx, scope).await?;
        let in_order = self.providers.all().filter_map(|one| {
            let id = &one.descriptor().id;
            integrations.iter().find(|row| row.provider == *id && (wanted.is_empty() || wanted.contains(id)))
        });
        let more = |provider: &str| extra.get(provider).map(Vec::as_slice).unwrap_or_default();
        Ok(in_order.filter_map(|row| self.consent_offer(row, more(&row.provider))).collect())
    }
}

/// Whoever came through the link, as the user it is for.
fn visitor(row: &ConnectSessionRow, origin: Origin) -> Caller {
    Caller::end_user(TenantId::stored(row.tenant_id.clone()), UserId::stored(row.user_id.clone()), origin)
}

fn check_return(tenant: &TenantRow, mode: &str, return_url: Option<&str>) -> Result<(), ConnectionsError> {
    let Some(url) = return_url else {
        return if tenant.confirm == "platform" { Err(ConnectionsError::ReturnUrlRequired) } else { Ok(()) };
    };
    let (registered, what) = match mode {
        "popup" => (from_json_list(&tenant.origins), "for a popup, must be one of the tenant's registered origins"),
        _ => (
            from_json_list(&tenant.return_urls),
            "must be one of the tenant's registered return URLs, character by character",
        ),
    };
    if registered.iter().any(|one| one == url) { Ok(()) } else { Err(Invalid::one("return_url", what).into()) }
}
