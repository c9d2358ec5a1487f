//! The roof: puts the house together, opens its doors and closes it in good order.
//!
//! The order of a start is the order of its proofs. The root key is parsed before a database is opened; the database is
//! read, without being able to change a byte, until the key is proven; only then is it migrated and written (CR-07).

mod address;
mod discover;
mod doctor;
mod listener;
mod rooms;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use url::Url;

pub use discover::{DiscoverError, discover};
pub use doctor::{Check, examine, key_status};
pub use rooms::Rooms;

use crate::clock::{Surroundings, deadline};
use crate::config::Config;
use crate::credentials::{Spool, SpoolError};
use crate::http::{self, House, HouseError};
use crate::jobs::{self, Clockwork};
use crate::keys::{EnvironmentKey, FileKey, KeyError, KeyProvider, root_key_status};
use crate::outbound::{OutboundSetupError, install_crypto_provider};
use crate::providers::CatalogueError;
use crate::secret::Secret;
use crate::shutdown::{self, Shutdown, ShutdownController};
use crate::store::bell::Bells;
use crate::store::{OpenError, ProcessLock, Store, StoreError};
use crate::telemetry::start_metrics;
use address::Note;
use rooms::{Foundation, furnish, house_parts, lay};

/// The longest that stopping may take (RL-32).
const STOP_WITHIN: Duration = Duration::from_secs(25);
/// The command line has nothing in flight but its own last entry.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
/// How long to wait before listening again for the bells of other nodes.
const RELAY_AGAIN: Duration = Duration::from_secs(1);

/// Why the house cannot be opened. Nothing was changed unless the database was already proven to be ours.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No root key, an unusable one, or another database's.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database did not answer.
    #[error("the database did not answer")]
    Store(#[from] StoreError),
    /// A setting of the gate to the street, or a machine without certificates.
    #[error(transparent)]
    Outbound(#[from] OutboundSetupError),
    /// A provider setting does not fit.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// A setting of the doors does not fit.
    #[error(transparent)]
    Doors(#[from] HouseError),
    /// The spool's folder does not do its part.
    #[error("VALETKEY_SPOOL_DIR must name a folder that can be made and written")]
    Spool(#[from] SpoolError),
    /// A listener's address is taken or not ours.
    #[error("{setting}: cannot listen on {address}; choose a free address of this machine")]
    Bind {
        /// The setting.
        setting: &'static str,
        /// What it says.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// Opens houses.
#[derive(Debug)]
pub struct App;

/// A house without doors, for the command line: works beside a running `serve`.
#[derive(Debug)]
pub struct OpenApp {
    /// The rooms.
    pub rooms: Rooms,
    /// Whether `public_url` is where the house is found. Not with port 0 while no `serve` runs: what names a URL then has
    /// nothing to name.
    pub is_found: bool,
    store: Store,
    controller: ShutdownController,
}

/// A house whose doors are open.
#[derive(Debug)]
pub struct RunningApp {
    /// Where the public listener really is.
    pub public: SocketAddr,
    /// Where health and metrics are.
    pub admin: SocketAddr,
    rooms: Rooms,
    store: Store,
    controller: ShutdownController,
    listeners: Vec<JoinHandle<()>>,
    clockwork: JoinSet<()>,
    note: Option<Note>,
    lock: ProcessLock,
}

impl App {
    /// Opens the house for serving: key, database, rooms, listeners, jobs, in this order. Port 0 takes any free port.
    ///
    /// # Errors
    /// See [`StartError`]. Without the right root key nothing is changed.
    pub async fn start(config: Config, around: Surroundings) -> Result<RunningApp, StartError> {
        install_crypto_provider();
        let (controller, shutdown) = shutdown::channel();
        let url = &config.database_url.0;
        check_root_key(&config).await?;
        let lock = Store::lock_for_serving(url)?;
        let mut foundation = lay(&config, around, shutdown).await?;
        #[cfg(feature = "crash-points")]
        crate::crash::aim(config.crash_point);
        if let Some(folder) = &config.spool_dir {
            foundation.spool = Spool::open(folder, foundation.health.clone())?;
        }
        let public = bind("VALETKEY_BIND", config.bind).await?;
        let admin = bind("VALETKEY_ADMIN_BIND", config.admin_bind).await?;
        let (public_address, admin_address) = (address_of(&public, config.bind), address_of(&admin, config.admin_bind));
        let public_url = config.public_url_for(public_address);
        let Foundation { store, bells, shutdown, .. } = &foundation;
        let (store, bells, shutdown) = (store.clone(), bells.clone(), shutdown.clone());
        // First of all: rooms set gauges when they are furnished.
        let metrics = start_metrics();
        let rooms = furnish(&config, foundation, public_url).await?;
        warn_of_settings(&config);
        let house = House::new(house_parts(&config, &rooms, &store, metrics.clone()).await?)?;
        let note = address::leave(&config, &store, &rooms.public_url, rooms.around.now()).await?;
        let mut clockwork = jobs::start(Clockwork {
            accounts: rooms.accounts.clone(),
            connections: rooms.connections.clone(),
            conversations: rooms.conversations.clone(),
            credentials: rooms.credentials.clone(),
            metrics,
            around: rooms.around.clone(),
            health: rooms.health.clone(),
            shutdown: shutdown.clone(),
        });
        clockwork.spawn(relay_bells(bells, store.clone(), rooms.around.clone(), shutdown.clone()));
        let listeners = vec![
            tokio::spawn(listener::serve(public, http::public_router(house.clone()), shutdown.clone())),
            tokio::spawn(listener::serve(admin, http::admin_router(house), shutdown)),
        ];
        tracing::info!(public = %public_address, admin = %admin_address, database = store.kind(), "listening");
        Ok(RunningApp {
            public: public_address,
            admin: admin_address,
            rooms,
            store,
            controller,
            listeners,
            clockwork,
            note,
            lock,
        })
    }

    /// Opens the rooms for the command line: no listener, no job, no process lock. Proves the root key and migrates, as
    /// `serve` does.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn open_for_cli(config: &Config, around: Surroundings) -> Result<OpenApp, StartError> {
        install_crypto_provider();
        let (controller, shutdown) = shutdown::channel();
        check_root_key(config).await?;
        let foundation = lay(config, around, shutdown).await?;
        let store = foundation.store.clone();
        let found = address::find(config, &store).await?;
        let is_found = found.is_some();
        let public_url = found.unwrap_or_else(|| config.public_url_for(config.bind));
        let rooms = furnish(config, foundation, public_url).await?;
        Ok(OpenApp { rooms, is_found, store, controller })
    }

    /// The doors without listeners and jobs, for tests that call them directly.
    #[cfg(test)]
    pub(crate) async fn open_doors(config: &Config, around: Surroundings) -> Result<(House, Store), StartError> {
        let OpenApp { rooms, store, .. } = Self::open_for_cli(config, around).await?;
        let house = House::new(house_parts(config, &rooms, &store, start_metrics()).await?)?;
        Ok((house, store))
    }
}

/// Settings that whoever starts a vault should know the effect of.
fn warn_of_settings(config: &Config) {
    if !config.outbound_allow.is_empty() {
        tracing::warn!(allowed = %config.outbound_allow.join(", "), "VALETKEY_OUTBOUND_ALLOW is set: these may be called over plain http and on loopback; never use this in production");
    }
    if config.elevenlabs.primary_key_file.is_some() || config.elevenlabs.secondary_key_file.is_some() {
        tracing::warn!(
            "VALETKEY_ELEVENLABS__*_KEY_FILE has no effect in this version: set the operator's workspace with `valetkey workspace set`"
        );
    }
}

impl RunningApp {
    /// The rooms. Drop what you clone from them before [`Self::stop`], which waits for it.
    #[must_use]
    pub fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    /// Where the outside finds us.
    #[must_use]
    pub fn public_url(&self) -> &Url {
        &self.rooms.public_url
    }

    /// Stops in good order, within 25 seconds: no new connections, requests and refreshes in progress are finished, then
    /// the database is closed (RL-32). Gives false when something had to be left unfinished.
    pub async fn stop(self) -> bool {
        tracing::info!("stopping");
        self.rooms.health.obstruct("stopping", "this node is stopping");
        self.controller.begin();
        let Self { rooms, store, controller, listeners, mut clockwork, note, lock, .. } = self;
        let finish = async {
            for listener in listeners {
                // A listener that crashed has nothing in progress any more.
                let _ = listener.await;
            }
            while clockwork.join_next().await.is_some() {}
            drop(rooms);
            controller.finished().await;
            address::take_away(note, &store).await;
            store.close().await;
        };
        let in_order = deadline(STOP_WITHIN, finish).await.is_ok();
        if !in_order {
            tracing::error!("not everything in progress was finished in time");
        }
        drop(lock);
        in_order
    }
}

impl OpenApp {
    /// Closes the rooms: the last audit entries are written, then the database is closed.
    pub async fn close(self) {
        let Self { rooms, store, controller, .. } = self;
        controller.begin();
        drop(rooms);
        let finish = async {
            controller.finished().await;
            store.close().await;
        };
        // Every command has already waited for its own commit, so nothing can be lost here.
        let _ = deadline(CLOSE_WITHIN, finish).await;
    }
}

fn key_provider(config: &Config) -> Box<dyn KeyProvider> {
    match &config.root_key_file {
        Some(path) => Box::new(FileKey(path.clone())),
        None => Box::new(EnvironmentKey(config.root_key.as_ref().map(|key| key.0.duplicate()))),
    }
}

/// Proves the root key against the database as it lies there. Whatever is wrong with the key, no byte changes.
async fn check_root_key(config: &Config) -> Result<(), StartError> {
    let provider = key_provider(config);
    // Parsed before the database is even looked at.
    drop(provider.root_key()?);
    let Some(store) = Store::open_to_look(&config.database_url.0).await? else { return Ok(()) };
    let status = root_key_status(provider.as_ref(), Some(&store)).await;
    store.close().await;
    Ok(status.map(drop)?)
}

async fn bind(setting: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Bind { setting, address, source })
}

fn address_of(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}

/// Hears other nodes' bells, and listens again when the connection was lost. Polling carries on meanwhile.
async fn relay_bells(bells: Bells, store: Store, around: Surroundings, shutdown: Shutdown) {
    while !shutdown.has_begun() {
        bells.relay(&store, &shutdown).await;
        tokio::select! {
            () = shutdown.begun() => {}
            () = around.clock.sleep(RELAY_AGAIN) => {}
        }
    }
}

/// The OpenAPI 3.1 document of the platform API, as JSON.
///
/// # Errors
/// Never in practice: the document is made of texts and lists.
pub fn openapi() -> serde_json::Result<serde_json::Value> {
    serde_json::to_value(http::openapi())
}

/// The settings' database URL, for what must look at it without opening the house.
fn database_url(config: &Config) -> &Secret {
    &config.database_url.0
}
