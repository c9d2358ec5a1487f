//! Integrations: a tenant's OAuth client at a provider. Client id, secret and endpoints are one unit; endpoints come
//! from the catalogue and only the operator changes them (OA-04).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Connections, ConnectionsError, IntegrationHealth};
use crate::audit::{Action, Event};
use crate::caller::{Caller, Permission, TenantScope};
use crate::clock::Millis;
use crate::ids::IntegrationId;
use crate::invalid::Invalid;
use crate::keys::{Owner, Place};
use crate::providers::{Descriptor, VariableSource, Variables, telegram};
use crate::schema::words;
use crate::secret::Secret;
use crate::store::connections::{ConnectionFilter, connection_list, connections_of_integration_mark};
use crate::store::credentials::credentials_of_integration_pause;
use crate::store::due::credentials_of_integration_plan;
use crate::store::integrations::{
    IntegrationRow, integration_by_provider, integration_delete, integration_insert, integration_list,
    integration_update,
};
use crate::store::{StoreError, Tx, from_json_list, to_json_list, to_json_object};

words! {
    /// `misconfigured` while the provider refuses the client.
    IntegrationStatus: "active" | "misconfigured";
    /// `always` refreshes every credential ahead of its readers; `active` those used within `refresh_active_days` and the
    /// others only so often that the provider does not end them; `on_demand` nothing before somebody asks.
    RefreshPolicy: "always" | "active" | "on_demand";
}

const REFRESH_POLICIES: [&str; 3] = ["always", "active", "on_demand"];
/// Saving an integration that is held for a wave of refusals says that they are right; then they are believed for a day, as long
/// as refusals belong to one wave.
const BELIEVED_FOR: Duration = Duration::from_secs(24 * 3600);

/// Whoever may set integrations sees them, and whoever may see connections sees what they hang on.
pub(super) const TO_SEE_INTEGRATIONS: [Permission; 2] = [Permission::IntegrationsWrite, Permission::ConnectionsRead];

/// What a tenant says about its OAuth client.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IntegrationDraft {
    /// The provider's client id.
    pub client_id: Option<String>,
    /// The provider's client secret; absent keeps the one there is.
    #[schema(value_type = Option<String>, write_only)]
    pub client_secret: Option<Secret>,
    /// Scopes to ask for (Slack: of the bot); absent keeps those there are.
    pub scopes: Option<Vec<String>>,
    /// Scopes to ask of the person (Slack); absent keeps those there are.
    pub user_scopes: Option<Vec<String>>,
    /// The platform's own bot (Telegram).
    #[schema(value_type = Option<String>, write_only)]
    pub bot_token: Option<Secret>,
    /// What the provider signs its events with (Slack: the app's Signing Secret); absent keeps the one there is.
    #[schema(value_type = Option<String>, write_only)]
    pub signing_secret: Option<Secret>,
    /// What the provider's addresses need, by the names in `GET /v1/providers`; absent keeps what there is. Part of the client: with
    /// another value `client_secret` must be given again, and connections pause as for a new `client_id`.
    pub variables: Option<BTreeMap<String, String>>,
    /// What is refreshed ahead of time; absent keeps what there is, at first `always`.
    #[schema(value_type = Option<RefreshPolicy>)]
    pub refresh_policy: Option<String>,
    /// For `active`: 1 to 365 days, at first 30.
    pub refresh_active_days: Option<u16>,
}

impl IntegrationDraft {
    /// An integration that is there stays as it is.
    fn says_nothing(&self) -> bool {
        let Self {
            client_id,
            client_secret,
            scopes,
            user_scopes,
            bot_token,
            signing_secret,
            variables,
            refresh_policy,
            refresh_active_days,
        } = self;
        client_id.is_none()
            && client_secret.is_none()
            && scopes.is_none()
            && user_scopes.is_none()
            && bot_token.is_none()
            && signing_secret.is_none()
            && variables.is_none()
            && refresh_policy.is_none()
            && refresh_active_days.is_none()
    }
}

/// A tenant's OAuth client, without its secrets.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Integration {
    /// `int_…`; survives a changed client.
    pub id: IntegrationId,
    /// Catalogue id.
    pub provider: String,
    /// The provider's client id.
    pub client_id: String,
    /// Scopes that are asked for.
    pub scopes: Vec<String>,
    /// Scopes that are asked of the person.
    pub user_scopes: Vec<String>,
    /// What the provider's addresses need.
    pub variables: BTreeMap<String, String>,
    /// `active` or `misconfigured`.
    #[schema(value_type = IntegrationStatus)]
    pub status: String,
    /// The provider's error code when misconfigured.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reason: Option<String>,
    /// How it is, in words: what is the matter and what to do.
    pub explanation: String,
    /// How it is.
    #[serde(skip)]
    pub health: IntegrationHealth,
    /// Since when the provider has not answered refreshes; absent while it does. It is asked again every half minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    pub unreachable_since: Option<String>,
    /// Until when the provider wants fewer calls of this client.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    pub rate_limited_until: Option<String>,
    /// What is refreshed ahead of time.
    #[schema(value_type = RefreshPolicy)]
    pub refresh_policy: String,
    /// How long after its last use a credential counts as active.
    pub refresh_active_days: i64,
    /// To be registered at the provider, character by character.
    #[schema(format = "uri")]
    pub redirect_uri: String,
    /// Where the provider may send its events: what it tells of accesses that have ended is acted upon at once. Absent where it has
    /// no such events.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = "uri")]
    pub events_url: Option<String>,
    /// RFC 3339.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// RFC 3339.
    #[schema(format = DateTime)]
    pub updated_at: String,
}

impl Connections {
    /// Sets a tenant's OAuth client. A new secret is used at once; a new client id pauses the connections that were made
    /// with the old one (API.md section 6, point 3). A draft that says nothing changes nothing.
    ///
    /// # Errors
    /// [`ConnectionsError::NotFound`] for an unknown provider, [`ConnectionsError::Invalid`].
    pub async fn integration_put(
        &self,
        caller: &Caller,
        provider: &str,
        draft: IntegrationDraft,
    ) -> Result<Integration, ConnectionsError> {
        let scope = caller.require(Permission::IntegrationsWrite)?;
        let known = self.providers.get(provider).ok_or(ConnectionsError::NotFound("provider"))?;
        let mut tx = self.store.begin().await?;
        let mut existing = integration_by_provider(&mut tx, &scope, provider).await?;
        if let Some(row) = existing.as_ref().filter(|_| draft.says_nothing()) {
            return Ok(self.shown(row));
        }
        if let Some(row) = &existing {
            // From here on it is as it is read: nobody else gives it a secret, or keeps a token of it.
            self.credentials.lock_clients(&mut tx, &scope, [row.id.as_str()]).await?;
            existing = integration_by_provider(&mut tx, &scope, provider).await?;
        }
        self.check_draft(known.descriptor(), &draft, existing.as_ref()).await?;
        let row = self.drafted(&mut tx, &scope, provider, &draft, existing.as_ref()).await?;
        match &existing {
            None => integration_insert(&mut tx, &scope, &row).await.map_err(|error| match error {
                StoreError::Conflict(_) => ConnectionsError::Conflict("an integration for this provider"),
                other => other.into(),
            })?,
            Some(_) => integration_update(&mut tx, &scope, &row).await?,
        }
        let wish = |row: &IntegrationRow| (row.refresh_policy.clone(), row.active_days);
        if existing.as_ref().is_some_and(|old| wish(old) != wish(&row)) {
            credentials_of_integration_plan(&mut tx, &scope, &row.id, self.around.now().0).await?;
        }
        if existing.is_some_and(|old| old.revision != row.revision) {
            let now = self.around.now().0;
            credentials_of_integration_pause(&mut tx, &scope, &row.id, "client_changed").await?;
            connections_of_integration_mark(&mut tx, &scope, &row.id, "misconfigured", "client_changed", now).await?;
        }
        if let Some(token) = &draft.bot_token {
            let (owner, bot) = (Owner::Tenant(scope.tenant_id().clone()), telegram::bot_id(token).unwrap_or_default());
            let new = self.bot_credential(&owner, Some(&row.id), bot, token.duplicate());
            self.credentials.renew_shared(&mut tx, &scope, new).await?;
        }
        self.audit.record_and_commit(tx, caller, &Event::done(Action::IntegrationSet, "integration", &row.id)).await?;
        Ok(self.shown(&row))
    }

    /// A tenant's integration for a provider.
    ///
    /// # Errors
    /// [`ConnectionsError::NotFound`], [`ConnectionsError::Denied`].
    pub async fn integration(&self, caller: &Caller, provider: &str) -> Result<Integration, ConnectionsError> {
        let scope = caller.require_any(TO_SEE_INTEGRATIONS)?;
        let mut tx = self.store.read().await?;
        let row = integration_by_provider(&mut tx, &scope, provider)
            .await?
            .ok_or(ConnectionsError::NotFound("integration"))?;
        Ok(self.shown(&row))
    }

    /// A tenant's integrations.
    ///
    /// # Errors
    /// [`ConnectionsError::Denied`].
    pub async fn integration_list(&self, caller: &Caller) -> Result<Vec<Integration>, ConnectionsError> {
        let scope = caller.require_any(TO_SEE_INTEGRATIONS)?;
        let mut tx = self.store.read().await?;
        Ok(integration_list(&mut tx, &scope).await?.iter().map(|row| self.shown(row)).collect())
    }

    /// Deletes an integration that no connection uses.
    ///
    /// # Errors
    /// [`ConnectionsError::Conflict`] while connections use it, [`ConnectionsError::NotFound`].
    pub async fn integration_delete(&self, caller: &Caller, provider: &str) -> Result<(), ConnectionsError> {
        let scope = caller.require(Permission::IntegrationsWrite)?;
        let mut tx = self.store.begin().await?;
        let row = integration_by_provider(&mut tx, &scope, provider)
            .await?
            .ok_or(ConnectionsError::NotFound("integration"))?;
        // Whoever is about to connect there does so before, or finds no integration.
        self.credentials.lock_clients(&mut tx, &scope, [row.id.as_str()]).await?;
        let filter = ConnectionFilter { provider: Some(provider), limit: 1, ..ConnectionFilter::default() };
        if !connection_list(&mut tx, &scope, filter).await?.is_empty() {
            return Err(ConnectionsError::Conflict("a connection that uses this integration"));
        }
        let bot = self.bot_token_of(&mut tx, &row).await?.filter(|_| row.signing_secret.is_some());
        integration_delete(&mut tx, &scope, &row.id, self.around.now().0).await?;
        self.audit
            .record_and_commit(tx, caller, &Event::done(Action::IntegrationDeleted, "integration", &row.id))
            .await?;
        // Its updates were sent here (Telegram). Should that go on, whoever sets up the bot anew takes them over.
        if let Some(token) = bot
            && let Err(failure) = self.providers.telegram().delete_webhook(&token).await
        {
            tracing::warn!(code = %failure.code(), "a bot's updates still come here");
        }
        Ok(())
    }

    /// The redirect URI of an integration: distinct for each, from the public URL alone (OA-03, OA-12).
    pub(super) fn redirect_uri(&self, provider: &str, integration: &str) -> String {
        self.page(&format!("oauth/{provider}/callback/{integration}"))
    }

    async fn check_draft(
        &self,
        descriptor: &Descriptor,
        draft: &IntegrationDraft,
        existing: Option<&IntegrationRow>,
    ) -> Result<(), ConnectionsError> {
        let mut invalid = Invalid::default();
        let says = |said: Option<&String>, there: fn(&IntegrationRow) -> &String| {
            said.is_some_and(|said| existing.is_none_or(|old| there(old) != said))
        };
        let variables = draft.variables.as_ref().map(to_json_object);
        // The secret would go to other addresses than those it was given for (OA-04).
        let moves = existing.is_some() && says(variables.as_ref(), |old| &old.variables);
        let changes_client = moves || says(draft.client_id.as_ref(), |old| &old.client_id);
        // A platform's bot is of use without a client: people then open its chat by a link (Telegram).
        let needs_client = descriptor.id != telegram::ID
            || draft.client_id.is_some()
            || draft.client_secret.is_some()
            || existing.is_some_and(|old| !old.client_id.is_empty());
        if descriptor.capabilities.oauth && needs_client {
            if draft.client_id.is_none() && existing.is_none_or(|old| old.client_id.is_empty()) {
                invalid.add("client_id", "must be given");
            }
            if draft.client_secret.is_none() && (existing.is_none() || changes_client) {
                invalid.add("client_secret", "must be given with a new client_id and with changed variables");
            }
        }
        if draft
            .client_id
            .as_ref()
            .is_some_and(|id| id.is_empty() || id.len() > 500 || id.chars().any(char::is_control))
        {
            invalid.add("client_id", "must have 1 to 500 characters, none of them a control character");
        }
        if draft.client_secret.as_ref().is_some_and(Secret::is_blank) {
            invalid.add("client_secret", "must not be empty; leave it out to keep the one there is");
        }
        if draft.user_scopes.as_ref().is_some_and(|scopes| !scopes.is_empty()) && !descriptor.tells_user_scopes_apart()
        {
            invalid.add("user_scopes", "this provider does not tell scopes of the person apart; use scopes");
        }
        if draft.refresh_policy.as_ref().is_some_and(|policy| !REFRESH_POLICIES.contains(&policy.as_str())) {
            invalid.add("refresh_policy", "must be always, active or on_demand");
        }
        if draft.refresh_active_days.is_some_and(|days| !(1..=365).contains(&days)) {
            invalid.add("refresh_active_days", "must be 1 to 365");
        }
        for (field, scopes) in [("scopes", &draft.scopes), ("user_scopes", &draft.user_scopes)] {
            if scopes.as_ref().is_some_and(|scopes| scopes.len() > 100 || !scopes.iter().all(|one| is_scope(one))) {
                invalid.add(field, format!("must have at most 100 entries; each {SCOPE_FORM}"));
            }
        }
        if let Some(token) = &draft.bot_token
            && (descriptor.id != "telegram" || !telegram::token_is_plausible(token))
        {
            invalid.add("bot_token", "must be a Telegram bot token as BotFather gives it");
        } else if descriptor.id == telegram::ID && !self.bot_is_its_client(draft, existing).await? {
            invalid
                .add("client_id", "must be the id of the bot whose token is in bot_token: people sign in with the bot");
        }
        if let Some(secret) = &draft.signing_secret
            && (descriptor.id != "slack" || !is_signing_secret(secret))
        {
            invalid.add("signing_secret", "must be the Signing Secret of a Slack app: 16 to 200 visible characters");
        }
        check_variables(descriptor, draft, existing, &mut invalid);
        invalid.into_result()?;
        Ok(())
    }

    /// In Telegram the client is the bot: its id is the first part of the token (fact sheet C.1).
    async fn bot_is_its_client(
        &self,
        draft: &IntegrationDraft,
        existing: Option<&IntegrationRow>,
    ) -> Result<bool, ConnectionsError> {
        let client = draft.client_id.as_ref().or(existing.map(|old| &old.client_id)).filter(|id| !id.is_empty());
        let Some(client) = client else { return Ok(true) };
        let stored = match existing.filter(|_| draft.bot_token.is_none()) {
            Some(old) => self.bot_token_of(&mut self.store.read().await?, old).await?,
            None => None,
        };
        let token = draft.bot_token.as_ref().or(stored.as_ref());
        Ok(token.and_then(telegram::bot_id) == Some(client.as_str()))
    }

    async fn is_same_bot(
        &self,
        tx: &mut Tx,
        draft: &IntegrationDraft,
        existing: Option<&IntegrationRow>,
    ) -> Result<bool, ConnectionsError> {
        let (Some(new), Some(old)) = (&draft.bot_token, existing) else { return Ok(true) };
        let old = self.bot_token_of(tx, old).await?;
        Ok(old.is_none_or(|old| telegram::bot_id(&old) == telegram::bot_id(new)))
    }

    /// What stands in braces in a provider's addresses, whether it was said or is what it is when nothing is said.
    fn places(&self, provider: &str, variables: &str) -> String {
        let known = self.providers.get(provider).map(|known| known.descriptor().stored_variables([variables]));
        let said = known.iter().flat_map(Variables::iter).map(|(name, value)| (name.to_owned(), value.to_owned()));
        to_json_object(&said.collect())
    }

    async fn drafted(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        provider: &str,
        draft: &IntegrationDraft,
        existing: Option<&IntegrationRow>,
    ) -> Result<IntegrationRow, ConnectionsError> {
        let id = existing.map_or_else(|| IntegrationId::new(&self.around).to_string(), |old| old.id.clone());
        let owner = Owner::Tenant(scope.tenant_id().clone());
        let is_same_bot = self.is_same_bot(tx, draft, existing).await?;
        let client_secret = match &draft.client_secret {
            Some(secret) => Some(self.keys.seal(tx, &owner, place(&id, "client_secret"), secret).await?),
            None => existing.and_then(|old| old.client_secret.clone()),
        };
        let bot_token = match &draft.bot_token {
            Some(secret) => Some(self.keys.seal(tx, &owner, place(&id, "bot_token"), secret).await?),
            None => existing.and_then(|old| old.bot_token.clone()),
        };
        let signing_secret = match &draft.signing_secret {
            Some(secret) => Some(self.keys.seal(tx, &owner, place(&id, "signing_secret"), secret).await?),
            // What another bot shows is worth nothing (Telegram).
            None if !is_same_bot => None,
            None => existing.and_then(|old| old.signing_secret.clone()),
        };
        let now = self.around.now().0;
        let client_id =
            draft.client_id.clone().or_else(|| existing.map(|old| old.client_id.clone())).unwrap_or_default();
        let variables = match (&draft.variables, existing) {
            (Some(said), _) => to_json_object(said),
            (None, Some(old)) => old.variables.clone(),
            (None, None) => "{}".to_owned(),
        };
        // A bot without a client gets one: it is the same bot (Telegram).
        let same_id = |old: &IntegrationRow| old.client_id == client_id || old.client_id.is_empty();
        let same_client = is_same_bot && existing.is_some_and(|old| same_id(old) && old.variables == variables);
        let fresh = IntegrationRow::new(scope.tenant(), &id, provider, &client_id, now);
        // Only who knows the secret, too, has the same client: an id alone is no secret, and must not let one tenant hold up another.
        let client = match (&draft.client_secret, existing.filter(|_| same_client)) {
            (Some(secret), _) => {
                let places = self.places(provider, &variables);
                self.keys.client_fingerprint(tx, [provider, &client_id, &places], secret).await?
            }
            (None, Some(old)) => old.client.clone(),
            (None, None) => fresh.client.clone(),
        };
        Ok(IntegrationRow {
            client,
            client_secret,
            bot_token,
            signing_secret,
            scopes: kept(draft.scopes.as_ref(), existing.map(|old| &old.scopes)),
            user_scopes: kept(draft.user_scopes.as_ref(), existing.map(|old| &old.user_scopes)),
            variables,
            refresh_policy: draft
                .refresh_policy
                .clone()
                .or_else(|| existing.map(|old| old.refresh_policy.clone()))
                .unwrap_or(fresh.refresh_policy),
            active_days: draft
                .refresh_active_days
                .map(i64::from)
                .or_else(|| existing.map(|old| old.active_days))
                .unwrap_or(fresh.active_days),
            // Saved again with the same client during a wave of refusals, it says: the users have really withdrawn. A new
            // secret is a repair, and says nothing about them.
            believed_until: existing.filter(|_| same_client && draft.client_secret.is_none()).and_then(|old| {
                let wave = old.reason.as_deref() == Some("refused_wave");
                if wave { Some(self.around.now().after(BELIEVED_FOR).0) } else { old.believed_until }
            }),
            revision: existing.map_or(1, |old| if same_client { old.revision } else { old.revision + 1 }),
            created_at: existing.map_or(now, |old| old.created_at),
            ..fresh
        })
    }

    pub(super) fn shown(&self, row: &IntegrationRow) -> Integration {
        let health = IntegrationHealth::of(row, self.around.now());
        Integration {
            explanation: health.explanation(&self.provider_name(&row.provider)),
            health,
            id: IntegrationId::stored(row.id.clone()),
            provider: row.provider.clone(),
            client_id: row.client_id.clone(),
            scopes: from_json_list(&row.scopes),
            user_scopes: from_json_list(&row.user_scopes),
            variables: serde_json::from_str(&row.variables).unwrap_or_default(),
            status: row.status.clone(),
            reason: row.reason.clone(),
            unreachable_since: row.unreachable_since.map(|at| Millis(at).rfc3339()),
            rate_limited_until: row
                .rate_limited_until
                .filter(|until| *until > self.around.now().0)
                .map(|until| Millis(until).rfc3339()),
            refresh_policy: row.refresh_policy.clone(),
            refresh_active_days: row.active_days,
            redirect_uri: self.redirect_uri(&row.provider, &row.id),
            events_url: self.notices_url(&row.provider, &row.id),
            created_at: Millis(row.created_at).rfc3339(),
            updated_at: Millis(row.updated_at).rfc3339(),
        }
    }
}

/// Every variable that a tenant has to say is there and leads nowhere but to the provider (OA-04, fact sheet G.24).
fn check_variables(
    descriptor: &Descriptor,
    draft: &IntegrationDraft,
    existing: Option<&IntegrationRow>,
    invalid: &mut Invalid,
) {
    if draft.variables.is_none() && existing.is_some() {
        return;
    }
    let said = draft.variables.clone().unwrap_or_default();
    let asked = || descriptor.variables.iter().filter(|(_, one)| one.from == VariableSource::Integration);
    for (name, variable) in asked() {
        let field = format!("variables.{name}");
        match said.get(name) {
            None if variable.default.is_none() => {
                invalid.add(field, format!("must be given, such as {}", variable.example))
            }
            Some(value) if !variable.accepts(value) => {
                invalid.add(field, format!("must look like {}", variable.example));
            }
            _ => {}
        }
    }
    for name in said.keys().filter(|name| !asked().any(|(known, _)| known == *name)) {
        invalid.add(format!("variables.{name}"), "is nothing that this provider's addresses need");
    }
}

/// The JSON list of what was said, else of what there is, else of nothing.
fn kept(said: Option<&Vec<String>>, there: Option<&String>) -> String {
    said.map(|list| to_json_list(list)).or_else(|| there.cloned()).unwrap_or_else(|| to_json_list(&[]))
}

/// What a scope must be, for [`is_scope`].
pub(super) const SCOPE_FORM: &str =
    "must have 1 to 200 characters of visible ASCII without quotation mark, backslash and comma";

/// One scope-token (RFC 6749, 3.3). Without a comma, which separates scopes at some providers.
pub(super) fn is_scope(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b',');
    (1..=200).contains(&text.len()) && text.bytes().all(fits)
}

fn is_signing_secret(secret: &Secret) -> bool {
    let text = secret.expose();
    (16..=200).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Where a secret of an integration stands; `credentials` opens the client secret at the same place.
pub(super) fn place<'a>(id: &'a str, field: &'static str) -> Place<'a> {
    Place { record_kind: "integration", record_id: id, field, generation: 0 }
}
