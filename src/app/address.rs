//! Where the house is found when it took any free port and no public URL was set (API.md section 6, point 12): only the
//! running `serve` knows, so it leaves a note in the database for the commands beside it.

use url::Url;

use crate::caller::SystemScope;
use crate::clock::Millis;
use crate::config::Config;
use crate::store::addresses::{address_forget, address_note, address_noted};
use crate::store::{Store, StoreError};

const OF_THE_HOUSE: SystemScope = SystemScope::because("the house's own address belongs to no tenant");

/// A note that was left.
#[derive(Debug)]
pub(super) struct Note(Url);

/// Leaves a note when nothing else tells where the house is.
pub(super) async fn leave(config: &Config, store: &Store, url: &Url, now: Millis) -> Result<Option<Note>, StoreError> {
    if !config.is_found_by_port() {
        return Ok(None);
    }
    let mut tx = store.begin().await?;
    address_note(&mut tx, OF_THE_HOUSE, url.as_str(), now.0).await?;
    tx.commit().await?;
    Ok(Some(Note(url.clone())))
}

/// Takes the note away at the end. One that stays misleads commands until the next start, so that is said.
pub(super) async fn take_away(note: Option<Note>, store: &Store) {
    let Some(Note(url)) = note else { return };
    let taken = async {
        let mut tx = store.begin().await?;
        address_forget(&mut tx, OF_THE_HOUSE, url.as_str()).await?;
        tx.commit().await
    };
    if let Err(error) = taken.await {
        tracing::warn!(error = %error, "the note of the bound address stays in the database");
    }
}

/// Where the house is found: by the settings, or by the note of a running `serve`.
pub(super) async fn find(config: &Config, store: &Store) -> Result<Option<Url>, StoreError> {
    if !config.is_found_by_port() {
        return Ok(Some(config.public_url_for(config.bind)));
    }
    let mut tx = store.read().await?;
    Ok(address_noted(&mut tx, OF_THE_HOUSE).await?.and_then(|url| url.parse().ok()))
}
