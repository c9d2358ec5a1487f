//! The catalogue as people and programs see it.

use std::collections::BTreeSet;

use serde::Serialize;
use utoipa::ToSchema;

use super::integrations::TO_SEE_INTEGRATIONS;
use super::{Connections, ConnectionsError};
use crate::caller::Caller;
use crate::providers::{Broker, Descriptor, VariableSource};
use crate::store::integrations::integration_list;

/// A provider of the catalogue, for people and programs.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ProviderCard {
    /// Catalogue id.
    pub id: String,
    /// How it is called.
    pub display_name: String,
    /// Its documentation.
    #[schema(format = "uri")]
    pub docs_url: String,
    /// Whether tests hold what we know of it to its documented answers; otherwise look at it before you rely on it.
    pub verified: bool,
    /// What an integration must say in `variables`.
    pub variables: Vec<VariableCard>,
    /// Whether people connect by consenting at the provider.
    pub oauth: bool,
    /// Secrets that can be handed over directly.
    pub direct_kinds: Vec<String>,
    /// Whether access tokens can be injected into a conversation.
    pub injectable: bool,
    /// Whether a call in progress can get a fresh token.
    pub mid_call_refresh: bool,
    /// Whether disconnecting ends the access at the provider too.
    pub revocable: bool,
    /// What the broker does there for any agent; an agent's own rules narrow it.
    pub broker: BrokerCard,
    /// Whether the caller's tenant has an integration for it.
    pub integrated: bool,
}

/// What the broker does at a provider: of what is allowed, all but what is `never` done.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BrokerCard {
    /// HTTP methods and a path each, as in `POST gmail/v1/users/*/messages/send`: `*` is one segment, `**` the rest.
    pub allow: Vec<String>,
    /// Names of methods; a trailing `*` stands for any rest.
    pub never: Vec<String>,
}

/// Part of a provider's addresses that differs from tenant to tenant.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct VariableCard {
    /// Its name.
    pub name: String,
    /// One that fits.
    pub example: String,
    /// What it is when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub default: Option<String>,
}

impl Connections {
    /// The catalogue, with what the tenant has set up.
    ///
    /// # Errors
    /// [`ConnectionsError::Denied`].
    pub async fn provider_list(&self, caller: &Caller) -> Result<Vec<ProviderCard>, ConnectionsError> {
        let scope = caller.require_any(TO_SEE_INTEGRATIONS)?;
        let mut tx = self.store.read().await?;
        let integrated: BTreeSet<String> =
            integration_list(&mut tx, &scope).await?.into_iter().map(|row| row.provider).collect();
        Ok(self.providers.all().map(|provider| card(provider.descriptor(), &integrated)).collect())
    }
}

fn card(descriptor: &Descriptor, integrated: &BTreeSet<String>) -> ProviderCard {
    let asked = descriptor.variables.iter().filter(|(_, one)| one.from == VariableSource::Integration);
    let variables = asked.map(|(name, one)| VariableCard {
        name: name.clone(),
        example: one.example.clone(),
        default: one.default.clone(),
    });
    ProviderCard {
        id: descriptor.id.clone(),
        display_name: descriptor.display_name.clone(),
        docs_url: descriptor.docs_url.clone(),
        verified: descriptor.verified,
        variables: variables.collect(),
        oauth: descriptor.capabilities.oauth,
        direct_kinds: descriptor.capabilities.direct_kinds.clone(),
        injectable: descriptor.capabilities.injectable,
        mid_call_refresh: descriptor.capabilities.mid_call_refresh,
        revocable: descriptor.revocable(),
        broker: broker_card(&descriptor.broker),
        integrated: integrated.contains(&descriptor.id),
    }
}

fn broker_card(broker: &Broker) -> BrokerCard {
    const METHODS: &str = "GET,POST";
    let (allow, never) = match broker {
        Broker::Calls(rules) => (rules.iter().map(|rule| rule.as_str().to_owned()).collect(), Vec::new()),
        Broker::AllBut(names) => (vec![format!("{METHODS} *")], names.clone()),
        Broker::Only(names) => (names.keys().map(|name| format!("{METHODS} {name}")).collect(), Vec::new()),
    };
    BrokerCard { allow, never }
}
