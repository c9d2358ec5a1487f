//! What a person is told before connecting or disconnecting: what will be asked for, where the browser goes, and what
//! can be ended at the provider.

use super::{Connection, Connections, ConnectionsError};
use crate::caller::{Caller, Permission};
use crate::providers::CredentialKind;
use crate::store::connections::credential_other_uses;
use crate::store::from_json_list;
use crate::store::integrations::{IntegrationRow, integration_by_provider};

/// Consent at a provider, before it is given.
#[derive(Clone, Debug)]
pub struct ConsentOffer {
    /// Catalogue id.
    pub provider: String,
    /// What is asked for.
    pub scopes: Vec<String>,
    /// The origin to which beginning redirects the browser: what a page's `form-action` must list (API.md section 6, point 15).
    pub leads_to: String,
}

/// How an account of one provider can be connected.
#[derive(Clone, Debug)]
pub struct Preview {
    /// None when people cannot connect by consent.
    pub consent: Option<ConsentOffer>,
    /// The name of the platform's own bot, with `@`, if there is one and it answers.
    pub platform_bot: Option<String>,
    /// Whether a person can hand in a bot of their own.
    pub own_bot: bool,
}

/// What disconnecting does at the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ends {
    /// The access is revoked there.
    AtProvider,
    /// Another connection uses the same grant, which therefore stays.
    StillShared,
    /// The provider has no way to revoke.
    OnlyHere {
        /// The provider's own page for removing access.
        removal_page: String,
    },
}

impl Connections {
    /// The provider's name within a sentence, without what the catalogue adds in brackets; its id when the catalogue does
    /// not know it.
    #[must_use]
    pub fn provider_name(&self, provider: &str) -> String {
        let known = self.providers.get(provider);
        let name = known.as_ref().map_or(provider, |known| known.descriptor().display_name.as_str());
        name.split(" (").next().unwrap_or(name).to_owned()
    }

    /// Whether people can connect this provider by consenting there.
    #[must_use]
    pub fn connects_by_consent(&self, provider: &str) -> bool {
        self.providers.get(provider).is_some_and(|known| known.descriptor().capabilities.oauth)
    }

    /// Whether that brings tokens, which are refreshed.
    #[must_use]
    pub fn brings_tokens(&self, provider: &str) -> bool {
        self.providers.get(provider).is_some_and(|known| known.descriptor().brings_tokens())
    }

    /// What consent at an integration's provider asks for, with more scopes than it always asks for. None where people do not
    /// connect by consent.
    pub(super) fn consent_offer(&self, integration: &IntegrationRow, more: &[String]) -> Option<ConsentOffer> {
        // A platform's bot needs no client (Telegram).
        if integration.client_id.is_empty() {
            return None;
        }
        let known = self.providers.get(&integration.provider)?;
        let descriptor = known.descriptor();
        let variables = descriptor.stored_variables([integration.variables.as_str()]);
        let url = descriptor.endpoints.authorize.as_ref().filter(|_| descriptor.capabilities.oauth)?.at(&variables)?;
        let set = [from_json_list(&integration.scopes), from_json_list(&integration.user_scopes)].concat();
        let mut scopes = descriptor.scopes.fixed.clone();
        for scope in set.iter().chain(more) {
            if !scopes.contains(scope) {
                scopes.push(scope.clone());
            }
        }
        let leads_to = url.origin().ascii_serialization();
        Some(ConsentOffer { provider: integration.provider.clone(), scopes, leads_to })
    }

    /// How an account of a provider can be connected. Asks Telegram for the name of the platform's bot.
    ///
    /// # Errors
    /// [`ConnectionsError::NotFound`] when it cannot be connected at this tenant at all.
    pub async fn preview(&self, caller: &Caller, provider: &str) -> Result<Preview, ConnectionsError> {
        let scope = caller.require(Permission::ConnectionsWrite)?;
        let known = self.providers.get(provider).ok_or(ConnectionsError::NotFound("provider"))?;
        let descriptor = known.descriptor();
        let mut tx = self.store.read().await?;
        let integration = integration_by_provider(&mut tx, &scope, provider).await?;
        drop(tx);
        let own_bot = descriptor.capabilities.direct_kinds.iter().any(|kind| kind == "bot_token");
        let has_platform_bot = integration.as_ref().is_some_and(|row| row.bot_token.is_some());
        let consent = integration.and_then(|row| self.consent_offer(&row, &[]));
        let platform_bot = if own_bot && has_platform_bot { self.platform_bot_name(&scope).await? } else { None };
        if consent.is_none() && !own_bot {
            return Err(ConnectionsError::NotFound("integration"));
        }
        Ok(Preview { consent, platform_bot, own_bot })
    }

    /// What disconnecting will do at the provider.
    ///
    /// # Errors
    /// [`ConnectionsError::Denied`].
    pub async fn ends(&self, caller: &Caller, connection: &Connection) -> Result<Ends, ConnectionsError> {
        let Some(known) = self.providers.get(&connection.provider) else {
            return Err(ConnectionsError::NotFound("provider"));
        };
        let descriptor = known.descriptor();
        let is_granted = |kind: &str| CredentialKind::parse(kind).is_some_and(CredentialKind::is_granted);
        if !descriptor.revocable() || !connection.credentials.iter().any(|one| is_granted(&one.kind)) {
            return Ok(Ends::OnlyHere { removal_page: descriptor.removal_page.clone() });
        }
        let scope = caller.require(Permission::ConnectionsRead)?;
        let mut tx = self.store.read().await?;
        for one in &connection.credentials {
            if !self.credentials.is_shared(&mut tx, &scope, &one.id, connection.id.as_str()).await? {
                return Ok(Ends::AtProvider);
            }
        }
        Ok(Ends::StillShared)
    }

    /// The credentials (`crd_…`) of a connection that other connections use, too.
    ///
    /// # Errors
    /// [`ConnectionsError::Denied`].
    pub async fn shared_credentials(
        &self,
        caller: &Caller,
        connection: &Connection,
    ) -> Result<Vec<String>, ConnectionsError> {
        let scope = caller.require(Permission::ConnectionsRead)?;
        let mut tx = self.store.read().await?;
        let mut shared = Vec::new();
        for one in &connection.credentials {
            if credential_other_uses(&mut tx, &scope, &one.id, connection.id.as_str()).await? > 0 {
                shared.push(one.id.clone());
            }
        }
        Ok(shared)
    }
}
