//! Furnishing: what each room needs, in one place. A new room is a field of [`Rooms`] and some lines in [`furnish`]; what
//! the doors need of it goes into [`house_parts`].

use metrics_exporter_prometheus::PrometheusHandle;
use url::Url;

use super::{StartError, key_provider};
use crate::accounts::{Accounts, AccountsParts};
use crate::audit::Audit;
use crate::clock::Surroundings;
use crate::config::Config;
use crate::connections::{Connections, ConnectionsParts};
use crate::conversations::{Conversations, ConversationsParts};
use crate::credentials::{Credentials, CredentialsParts, Spool};
use crate::crypto::derive::Purpose;
use crate::elevenlabs::ElevenLabs;
use crate::health::Health;
use crate::http::HouseParts;
use crate::keys::Keys;
use crate::outbound::Outbound;
use crate::providers::{Descriptor, Providers};
use crate::shutdown::Shutdown;
use crate::store::Store;
use crate::store::bell::Bells;
use crate::workspaces::{KnownProvider, Workspaces, WorkspacesParts};

/// Every room, furnished, for doors, jobs, the command line and tests. Whoever keeps a clone keeps the house from
/// closing.
#[derive(Clone, Debug)]
pub struct Rooms {
    /// Tenants, people and keys.
    pub accounts: Accounts,
    /// Accounts of end users at providers.
    pub connections: Connections,
    /// Token sets.
    pub credentials: Credentials,
    /// ElevenLabs workspaces and agents.
    pub workspaces: Workspaces,
    /// Runs of agents.
    pub conversations: Conversations,
    /// The book.
    pub audit: Audit,
    /// The key cabinet.
    pub keys: Keys,
    /// What keeps this node from being ready.
    pub health: Health,
    /// "Look now".
    pub bells: Bells,
    /// Clock and randomness.
    pub around: Surroundings,
    /// The only source of redirect and tool URLs.
    pub public_url: Url,
}

/// What the rooms stand on.
pub(super) struct Foundation {
    pub(super) store: Store,
    pub(super) keys: Keys,
    pub(super) audit: Audit,
    pub(super) outbound: Outbound,
    pub(super) bells: Bells,
    pub(super) around: Surroundings,
    pub(super) shutdown: Shutdown,
    pub(super) health: Health,
    pub(super) spool: Spool,
}

/// Opens gate, database, key cabinet and book. The root key must have been looked at before.
pub(super) async fn lay(config: &Config, around: Surroundings, shutdown: Shutdown) -> Result<Foundation, StartError> {
    let outbound = Outbound::new(&config.outbound_allow)?;
    let store = Store::open(&config.database_url.0).await?;
    let keys = Keys::open(key_provider(config).as_ref(), &store, around.clone()).await?;
    let mut tx = store.begin().await?;
    let audit_key = keys.installation_key(&mut tx, Purpose::Audit).await?;
    tx.commit().await?;
    let audit = Audit::new(audit_key, around.clone(), store.clone(), shutdown.clone());
    let health = Health::default();
    let spool = Spool::off(health.clone());
    Ok(Foundation { store, keys, audit, outbound, bells: Bells::default(), around, shutdown, health, spool })
}

/// Puts the rooms together, each after those it stands on.
pub(super) async fn furnish(config: &Config, on: Foundation, public_url: Url) -> Result<Rooms, StartError> {
    let Foundation { store, keys, audit, outbound, bells, around, shutdown, health, spool } = on;
    let providers =
        Providers::new(outbound.clone(), around.clone(), config.catalogue_file.as_deref(), &config.providers)?;
    let accounts = Accounts::new(AccountsParts {
        store: store.clone(),
        keys: keys.clone(),
        audit: audit.clone(),
        around: around.clone(),
        outbound: outbound.clone(),
        allow_private_peers: config.allow_private_peers,
    });
    let credentials = Credentials::new(CredentialsParts {
        store: store.clone(),
        keys: keys.clone(),
        providers: providers.clone(),
        outbound: outbound.clone(),
        audit: audit.clone(),
        around: around.clone(),
        bells: bells.clone(),
        shutdown: shutdown.clone(),
        spool,
        health: health.clone(),
        refresh: config.refresh,
    });
    let connections = Connections::new(ConnectionsParts {
        store: store.clone(),
        keys: keys.clone(),
        providers: providers.clone(),
        credentials: credentials.clone(),
        audit: audit.clone(),
        around: around.clone(),
        bells: bells.clone(),
        public_url: public_url.clone(),
        ttl: config.ttl,
    });
    let elevenlabs = ElevenLabs::new(outbound.clone(), around.clone(), config.elevenlabs.base_url.clone());
    let workspaces = Workspaces::new(WorkspacesParts {
        store: store.clone(),
        keys: keys.clone(),
        audit: audit.clone(),
        around: around.clone(),
        elevenlabs: elevenlabs.clone(),
        public_url: public_url.clone(),
        providers: known_providers(&providers),
    });
    let conversations = Conversations::new(ConversationsParts {
        store,
        keys: keys.clone(),
        credentials: credentials.clone(),
        connections: connections.clone(),
        workspaces: workspaces.clone(),
        elevenlabs,
        outbound,
        shutdown: shutdown.clone(),
        audit: audit.clone(),
        around: around.clone(),
        bells: bells.clone(),
        public_url: public_url.clone(),
        ttl: config.ttl,
    });
    Ok(Rooms {
        accounts,
        connections,
        credentials,
        workspaces,
        conversations,
        audit,
        keys,
        health,
        bells,
        around,
        public_url,
    })
}

/// The catalogue as far as an agent's needs are concerned.
fn known_providers(providers: &Providers) -> Vec<KnownProvider> {
    let known = |descriptor: &Descriptor| {
        let capabilities = &descriptor.capabilities;
        let consent = descriptor.brings_tokens().then_some("user");
        let app = descriptor.tells_user_scopes_apart().then_some("bot");
        let direct = capabilities.direct_kinds.iter().map(|kind| kind.strip_suffix("_token").unwrap_or(kind));
        let kinds = consent.into_iter().chain(app).chain(direct).map(str::to_owned).collect();
        KnownProvider { id: descriptor.id.clone(), kinds, injectable: capabilities.injectable }
    };
    providers.all().map(|provider| known(provider.descriptor())).collect()
}

/// What the doors need.
pub(super) async fn house_parts(
    config: &Config,
    rooms: &Rooms,
    store: &Store,
    metrics: PrometheusHandle,
) -> Result<HouseParts, StartError> {
    Ok(HouseParts {
        accounts: rooms.accounts.clone(),
        connections: rooms.connections.clone(),
        credentials: rooms.credentials.clone(),
        workspaces: rooms.workspaces.clone(),
        conversations: rooms.conversations.clone(),
        audit: rooms.audit.clone(),
        cursors: rooms.keys.cursors(store).await?,
        around: rooms.around.clone(),
        health: rooms.health.clone(),
        metrics,
        public_url: rooms.public_url.clone(),
        ttl: config.ttl,
        trusted_proxies: config.trusted_proxies.clone(),
    })
}
