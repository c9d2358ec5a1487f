//! A provider that is in no catalogue yet, asked about itself.

use serde_json::Value;

use crate::config::Config;
use crate::outbound::{Outbound, OutboundSetupError, install_crypto_provider};
use crate::providers::discovery::{DiscoveryError, Named, metadata};

/// Why nothing was discovered.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// A setting of the gate to the street, or a machine without certificates.
    #[error(transparent)]
    Outbound(#[from] OutboundSetupError),
    /// The issuer has no document, or one that does not do.
    #[error(transparent)]
    Document(#[from] DiscoveryError),
}

/// A row for the operator's catalogue.
#[derive(Clone, Debug)]
pub struct Discovered {
    /// As it stands in the file, under its id.
    pub toml: String,
    /// The same for programs, without the id.
    pub row: Value,
    /// Hosts of its addresses that are not the issuer's.
    pub other_hosts: Vec<String>,
}

/// Asks an authorization server for what it publishes about itself. Changes nothing: the row counts once it is in the catalogue.
///
/// # Errors
/// See [`DiscoverError`].
pub async fn discover(
    config: &Config,
    issuer: &str,
    (id, display_name): (&str, &str),
    api: Option<&str>,
) -> Result<Discovered, DiscoverError> {
    install_crypto_provider();
    let outbound = Outbound::new(&config.outbound_allow)?;
    let row = metadata(&outbound, issuer).await?.row(Named { id, display_name, api })?;
    let other_hosts = row.other_hosts();
    Ok(Discovered { toml: row.to_toml(id), row: serde_json::to_value(row).unwrap_or_default(), other_hosts })
}
