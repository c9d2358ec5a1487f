//! What can be wrong with an installation, looked at without changing anything.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;

use serde::Serialize;
use url::{Host, Url};

use super::{address, database_url, key_provider};
use crate::caller::SystemScope;
use crate::clock::{Millis, Surroundings};
use crate::config::Config;
use crate::credentials::{LATE, SpoolFiles};
use crate::keys::{KeyError, RootKeyStatus, root_key_status};
use crate::outbound::{Outbound, install_crypto_provider};
use crate::providers::Providers;
use crate::store::due::{RefreshNumbers, refresh_numbers};
use crate::store::health::integrations_held;
use crate::store::{OpenError, Store};

const LOOKING: SystemScope = SystemScope::because("an operator asks whether the whole installation is well");

/// A clock before this is certainly wrong: 2026-01-01T00:00:00Z.
const EARLIEST: Millis = Millis(1_767_225_600_000);
/// A clock after this is, too: 2100-01-01T00:00:00Z.
const LATEST: Millis = Millis(4_102_444_800_000);
/// Leases and tickets of several nodes are compared, so clocks must agree; NTP keeps them within milliseconds.
const MOST_SKEW_MS: u64 = 5_000;

/// What was looked at and what was found.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// Whether it is well.
    pub ok: bool,
    /// What was found. No secrets.
    pub detail: String,
    /// What to do, when it is not well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl Check {
    fn well(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, ok: true, detail: detail.into(), next: None }
    }

    fn ill(name: &'static str, detail: impl Into<String>, next: impl Into<String>) -> Self {
        Self { name, ok: false, detail: detail.into(), next: Some(next.into()) }
    }
}

/// Looks at root key, database, clock, outgoing calls, providers, URLs, the spool, and how refreshing is doing.
pub async fn examine(config: &Config, around: &Surroundings) -> Vec<Check> {
    install_crypto_provider();
    let opened = Store::open_to_look(database_url(config)).await;
    let store = opened.as_ref().ok().and_then(Option::as_ref);
    let mut checks =
        vec![root_key(config), database(&opened), key_fits(config, &opened).await, clock(store, around).await];
    checks.extend([outbound(config), providers(config, around), public_url(config, store).await, listeners(config)]);
    checks.extend(config.spool_dir.as_deref().map(spool));
    if let Some(store) = store {
        checks.extend([refreshing(store, around).await, integrations(store, around).await]);
    }
    if let Some(store) = store {
        store.close().await;
    }
    checks
}

/// Compares the root key with the database, changing nothing.
///
/// # Errors
/// As `serve` would meet them.
pub async fn key_status(config: &Config) -> Result<RootKeyStatus, super::StartError> {
    install_crypto_provider();
    let provider = key_provider(config);
    drop(provider.root_key()?);
    let store = Store::open_to_look(database_url(config)).await?;
    let status = root_key_status(provider.as_ref(), store.as_ref()).await;
    if let Some(store) = store {
        store.close().await;
    }
    Ok(status?)
}

fn root_key(config: &Config) -> Check {
    let whence = if config.root_key_file.is_some() { "VALETKEY_ROOT_KEY_FILE" } else { "VALETKEY_ROOT_KEY" };
    match key_provider(config).root_key() {
        Ok(_) => Check::well("root key", format!("usable, from {whence}")),
        Err(error) => Check::ill(
            "root key",
            error.to_string(),
            "make one with `valetkey key generate --out FILE`, or point VALETKEY_ROOT_KEY_FILE at the one you have",
        ),
    }
}

fn database(opened: &Result<Option<Store>, OpenError>) -> Check {
    match opened {
        Ok(Some(store)) => Check::well("database", format!("{}, opened", store.kind())),
        Ok(None) => Check::well("database", "not there yet; `valetkey migrate` or `valetkey serve` makes it"),
        Err(error) => Check::ill("database", error.to_string(), "correct VALETKEY_DATABASE_URL or start the database"),
    }
}

async fn key_fits(config: &Config, opened: &Result<Option<Store>, OpenError>) -> Check {
    const NAME: &str = "key and database";
    let Ok(store) = opened else {
        return Check::ill(NAME, "not looked at: the database cannot be opened", "correct the database first");
    };
    match root_key_status(key_provider(config).as_ref(), store.as_ref()).await {
        Ok(RootKeyStatus { proven: true, id, .. }) => Check::well(NAME, format!("this database was made with {id}")),
        Ok(RootKeyStatus { id, .. }) => Check::well(NAME, format!("the database is empty; {id} will be its key")),
        Err(KeyError::Missing | KeyError::Unusable(_)) => {
            Check::ill(NAME, "not looked at: there is no usable root key", "correct the root key first")
        }
        Err(error) => Check::ill(NAME, error.to_string(), "find the key file that this database was made with"),
    }
}

async fn clock(store: Option<&Store>, around: &Surroundings) -> Check {
    const NEXT: &str = "set this machine's clock, and keep it right with NTP";
    let now = around.now();
    if now < EARLIEST || now > LATEST {
        return Check::ill("clock", format!("it shows {}", now.rfc3339()), NEXT);
    }
    let Some(store) = store else { return Check::well("clock", format!("it shows {}", now.rfc3339())) };
    match store.server_time().await {
        Ok(None) => Check::well("clock", format!("it shows {}", now.rfc3339())),
        Ok(Some(server)) if server.abs_diff(around.now().0) > MOST_SKEW_MS => {
            let seconds = server.abs_diff(around.now().0) / 1000;
            Check::ill("clock", format!("it differs from the database server's by {seconds} s"), NEXT)
        }
        Ok(Some(server)) => {
            let millis = server.abs_diff(around.now().0);
            Check::well("clock", format!("{millis} ms from the database server's"))
        }
        Err(error) => Check::ill("clock", error.to_string(), "see the database check"),
    }
}

fn outbound(config: &Config) -> Check {
    let listed = config.outbound_allow.join(", ");
    match Outbound::new(&config.outbound_allow) {
        Ok(_) if listed.is_empty() => Check::well("outgoing calls", "https to public addresses only"),
        Ok(_) => {
            Check::well("outgoing calls", format!("plain http and loopback allowed for {listed}: not for production"))
        }
        Err(error) => Check::ill(
            "outgoing calls",
            error.to_string(),
            "correct VALETKEY_OUTBOUND_ALLOW, or install the system's certificates",
        ),
    }
}

fn providers(config: &Config, around: &Surroundings) -> Check {
    // Without the listed hosts: a bad list is the check above.
    let Ok(gate) = Outbound::new(&[]) else {
        return Check::ill(
            "providers",
            "not looked at: outgoing calls are not possible",
            "correct outgoing calls first",
        );
    };
    match Providers::new(gate, around.clone(), config.catalogue_file.as_deref(), &config.providers) {
        Ok(providers) => {
            let ids: Vec<_> = providers.all().map(|one| one.descriptor().id.as_str()).collect();
            Check::well("providers", ids.join(", "))
        }
        Err(error) => Check::ill(
            "providers",
            error.to_string(),
            "correct the VALETKEY_PROVIDERS__… setting or the row of VALETKEY_CATALOGUE_FILE that it names",
        ),
    }
}

async fn public_url(config: &Config, store: Option<&Store>) -> Check {
    const NAME: &str = "public URL";
    let Some(url) = &config.public_url else {
        let found = match store {
            // A database from before such notes has none.
            Some(store) => address::find(config, store).await.ok().flatten(),
            None => (!config.is_found_by_port()).then(|| config.public_url_for(config.bind)),
        };
        let detail = match found {
            Some(url) if is_loopback(&url) => format!("not set; {url} is used, which only this machine reaches"),
            Some(url) => format!("not set; {url} is used"),
            None => "not set; the bound address is used, and known while `valetkey serve` runs".to_owned(),
        };
        return Check::well(NAME, detail);
    };
    match url.scheme() {
        "https" => Check::well(NAME, url.as_str()),
        "http" if is_loopback(url) => Check::well(NAME, format!("{url}, which only this machine reaches")),
        _ => Check::ill(NAME, format!("{url} is not https"), "put a TLS proxy in front and set its https:// URL"),
    }
}

/// Whether refreshed tokens wait that could not be stored.
fn spool(folder: &Path) -> Check {
    const NAME: &str = "spool";
    match SpoolFiles::of(folder) {
        Ok(SpoolFiles { waiting, set_aside: 0 }) => {
            Check::well(NAME, format!("{waiting} refreshed tokens wait in {} to be stored", folder.display()))
        }
        Ok(SpoolFiles { set_aside, .. }) => Check::ill(
            NAME,
            format!("{set_aside} files in {} could not be opened and are set aside", folder.display()),
            "where they were sealed with another key, start with that key and rename them from .unreadable to .json; delete them once their connections work again",
        ),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Check::well(NAME, format!("{} is not there yet; `valetkey serve` makes it", folder.display()))
        }
        Err(error) => Check::ill(
            NAME,
            error.to_string(),
            "let VALETKEY_SPOOL_DIR name a folder that this user can read and write",
        ),
    }
}

/// Whether what is due is refreshed.
async fn refreshing(store: &Store, around: &Surroundings) -> Check {
    const NAME: &str = "refreshing";
    let now = around.now();
    let numbers = async { refresh_numbers(&mut store.read().await?, LOOKING, now.0).await };
    let numbers = match numbers.await {
        Ok(numbers) => numbers,
        Err(error) => return Check::ill(NAME, error.to_string(), "see the database check"),
    };
    let RefreshNumbers { overdue, queued, in_doubt, .. } = numbers;
    let queue = match numbers.queued_until.map_or(0, |until| Millis(until).left(now).as_secs()) {
        0 => format!("{queued} wait their turn, {in_doubt} in doubt"),
        last => format!("{queued} wait their turn (the last one for {last} s), {in_doubt} in doubt"),
    };
    let waits = match numbers.oldest_due.map(|due| now.left(Millis(due))) {
        Some(wait) if wait > LATE => wait,
        _ => return Check::well(NAME, format!("{overdue} due now, {queue}")),
    };
    Check::ill(
        NAME,
        format!("{overdue} overdue, the oldest for {} s; {queue}", waits.as_secs()),
        "see that `valetkey serve` runs with this database and that its log tells of no failing sweep",
    )
}

/// Whether a provider refuses a client or does not answer.
async fn integrations(store: &Store, around: &Surroundings) -> Check {
    const NAME: &str = "integrations";
    const MOST: i64 = 10;
    let held = async { integrations_held(&mut store.read().await?, LOOKING, MOST).await };
    let held = match held.await {
        Ok(held) => held,
        Err(error) => return Check::ill(NAME, error.to_string(), "see the database check"),
    };
    let told = held.iter().map(|one| match (&one.reason, one.unreachable_since) {
        (Some(code), _) => format!("{} of {} is refused ({code})", one.provider, one.tenant),
        (None, since) => {
            let minutes = since.map_or(0, |since| around.now().left(Millis(since)).as_secs() / 60);
            format!("{} of {} has not answered for {minutes} min", one.provider, one.tenant)
        }
    });
    let told: Vec<_> = told.collect();
    match told.is_empty() {
        true => Check::well(NAME, "no provider is known to refuse a client or to be down"),
        false => Check::ill(
            NAME,
            told.join("; "),
            "correct the refused ones with `valetkey integration set`; the others go on when their provider is back. The page /admin/health explains each",
        ),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(v4)) => v4.is_loopback(),
        Some(Host::Ipv6(v6)) => v6.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn listeners(config: &Config) -> Check {
    let (public, admin) = (config.bind, config.admin_bind);
    if public == admin && public.port() != 0 {
        let next = "give VALETKEY_BIND and VALETKEY_ADMIN_BIND different ports";
        return Check::ill("listeners", format!("both are {public}"), next);
    }
    if !admin.ip().is_loopback() && admin.port() == public.port() {
        let next = "give health and metrics a port that the outside cannot reach";
        return Check::ill("listeners", format!("health and metrics share port {}", admin.port()), next);
    }
    let told = |address: SocketAddr| match address.port() {
        0 => format!("{} on any free port", address.ip()),
        _ => address.to_string(),
    };
    Check::well("listeners", format!("public {}, health and metrics {}", told(public), told(admin)))
}
