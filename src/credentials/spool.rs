//! The spool: a folder of this node where answers of providers wait, sealed, while the database cannot take them
//! (RL-05): a copy from the first failed commit on, so that the process may be killed, and for good when storing is given
//! up or the process stops. Each file is one answer and the claim that it belongs to; it comes home by the same store as any other.
//!
//! A file is written beside its name, synced, renamed, and the folder synced: it is there whole or not at all. What
//! cannot be read or opened is set aside under another name, and deleted only where its user is erased.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Credentials;
use super::driver::{Fetched, bring_home};
use super::flights::{Boarding, Whose};
use super::refresh::Claimed;
use super::row::{access_place, refresh_place};
use crate::clock::Millis;
use crate::crash::crash_point;
use crate::health::Health;
use crate::keys::{KeyError, Owner};
use crate::providers::{CredentialKind, TokenSet};
use crate::secret::Secret;
use crate::store::credentials::CredentialName;

const PART: &str = "spool";
const UNFINISHED: &str = ".unfinished-";
const UNFINISHED_FOR: Duration = Duration::from_secs(60);
const ENDING: &str = "json";
/// What a file that cannot come home is renamed to.
const SET_ASIDE: &str = "unreadable";

/// Why the spool did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// None is configured.
    #[error("no spool is configured")]
    Off,
    /// The folder does not do its part.
    #[error("the spool folder cannot be written or read")]
    Folder(#[from] std::io::Error),
    /// The answer could not be sealed or written down.
    #[error("the tokens cannot be sealed")]
    Seal(#[from] KeyError),
}

/// The folder, if there is one.
#[derive(Clone, Debug)]
pub struct Spool {
    folder: Option<Arc<Path>>,
    health: Health,
}

/// How many files a spool folder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolFiles {
    /// Answers that are tried again every few seconds.
    pub waiting: usize,
    /// Files that could not be opened: damaged, or sealed with another key.
    pub set_aside: usize,
}

impl SpoolFiles {
    /// Counts what is in a folder.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(folder: &Path) -> std::io::Result<Self> {
        let (waiting, set_aside) = (pages(folder)?.len(), ending_with(folder, SET_ASIDE)?.len());
        Ok(Self { waiting, set_aside })
    }
}

/// One file.
#[derive(Debug, Serialize, Deserialize)]
struct Page {
    version: u32,
    tenant: String,
    credential: String,
    owner_kind: String,
    owner_id: String,
    generation: i64,
    fence: i64,
    consents: i64,
    kind: String,
    /// Sealed, base64.
    access_token: String,
    /// Sealed, base64.
    refresh_token: String,
    token_type: String,
    scopes: Option<Vec<String>>,
    expires_in: Option<u64>,
    refresh_expires_in: Option<u64>,
    subject: Option<String>,
    received_at: i64,
    /// Absent in files of before: then nobody knows which place they are from.
    #[serde(default)]
    revision: i64,
}

impl Spool {
    /// No spool: what cannot be stored stays in memory.
    #[must_use]
    pub fn off(health: Health) -> Self {
        Self { folder: None, health }
    }

    /// The spool in this folder, which is made if it is not there (mode 0700). Writes a file to see that it can.
    ///
    /// # Errors
    /// When the folder cannot be made or written.
    pub fn open(folder: &Path, health: Health) -> Result<Self, SpoolError> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        remove_unfinished(folder)?;
        let spool = Self { folder: Some(folder.into()), health };
        write_whole(folder, "trial", b"")?;
        std::fs::remove_file(folder.join("trial"))?;
        spool.report(SpoolFiles::of(folder)?);
        Ok(spool)
    }

    /// Writes an answer down, durably; gives the file.
    ///
    /// # Errors
    /// See [`SpoolError`].
    pub(super) async fn write(
        &self,
        name: &CredentialName,
        tokens: &Fetched,
        claimed: Claimed,
    ) -> Result<PathBuf, SpoolError> {
        let folder = self.folder.clone().ok_or(SpoolError::Off)?;
        let page = Page::of(name, tokens, claimed)?;
        let file = format!("{}.{}.{ENDING}", page.credential, page.fence);
        let text = serde_json::to_vec(&page).map_err(std::io::Error::from)?;
        let path = folder.join(&file);
        let waiting = blocking(move || {
            crash_point!(BeforeSpool);
            write_whole(&folder, &file, &text)?;
            crash_point!(AfterSpool);
            SpoolFiles::of(&folder)
        });
        self.report(waiting.await?);
        Ok(path)
    }

    /// An answer is durable elsewhere. Left behind, its file would only find out the same.
    pub(super) async fn take_away(&self, file: PathBuf) {
        crash_point!(BeforeTakeAway);
        let Some(folder) = self.folder.clone() else { return };
        let waiting = blocking(move || {
            remove(&file)?;
            SpoolFiles::of(&folder)
        });
        match waiting.await {
            Ok(waiting) => self.report(waiting),
            Err(error) => {
                tracing::warn!(error = %error, "an answer that is stored could not be taken out of the spool")
            }
        }
    }

    fn report(&self, files: SpoolFiles) {
        let gauge = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        metrics::gauge!("valetkey_spooled_tokens").set(gauge(files.waiting));
        metrics::gauge!("valetkey_spool_set_aside").set(gauge(files.set_aside));
        if files.waiting == 0 {
            self.health.clear(PART);
        } else {
            self.health.obstruct(PART, format!("{} refreshed tokens wait in the spool to be stored", files.waiting));
        }
    }
}

impl Page {
    fn of(name: &CredentialName, tokens: &Fetched, claimed: Claimed) -> Result<Self, KeyError> {
        let (set, sealer) = (&tokens.set, &tokens.sealer);
        let (owner_kind, owner_id) = sealer.owner().to_row();
        let next = claimed.generation + 1;
        let seal = |place, secret| sealer.seal(place, secret).map(|bytes| data_encoding::BASE64.encode(&bytes));
        Ok(Self {
            version: 1,
            tenant: name.tenant_id.clone(),
            credential: name.id.clone(),
            owner_kind: owner_kind.to_owned(),
            owner_id,
            generation: claimed.generation,
            fence: claimed.fence,
            consents: claimed.consents,
            kind: set.kind.as_str().to_owned(),
            access_token: seal(access_place(&name.id, next), &set.access_token)?,
            refresh_token: seal(refresh_place(&name.id, next), &tokens.refresh_token)?,
            token_type: set.token_type.clone(),
            scopes: set.scopes.clone(),
            expires_in: set.expires_in.map(|life| life.as_secs()),
            refresh_expires_in: set.refresh_expires_in.map(|life| life.as_secs()),
            subject: set.subject.clone(),
            received_at: tokens.received_at.0,
            revision: tokens.revision,
        })
    }

    fn name(&self) -> CredentialName {
        CredentialName { tenant_id: self.tenant.clone(), id: self.credential.clone() }
    }

    fn claimed(&self) -> Claimed {
        Claimed { generation: self.generation, fence: self.fence, consents: self.consents }
    }
}

impl Credentials {
    /// Brings home what waits in the spool; gives how many answers came home. What the database still cannot take
    /// stays.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub async fn spool_replay(&self) -> Result<u64, SpoolError> {
        let Some(folder) = self.spool.folder.clone() else { return Ok(0) };
        let look = folder.clone();
        let files = blocking(move || pages(&look)).await?;
        let mut home = 0;
        for file in files {
            match self.bring_home(file.clone()).await {
                Ok(is_home) => home += u64::from(is_home),
                // One file that cannot be read holds up no other. It stays, and the node is not ready while it does.
                Err(error) => {
                    tracing::error!(file = %file.display(), error = %error, "a spooled answer cannot be read or moved; look at its owner and its disk");
                }
            }
        }
        let waiting = blocking(move || SpoolFiles::of(&folder)).await?;
        self.spool.report(waiting);
        Ok(home)
    }

    async fn bring_home(&self, file: PathBuf) -> Result<bool, SpoolError> {
        let read = file.clone();
        let Some(text) = blocking(move || present(std::fs::read(read))).await? else { return Ok(false) };
        let opened = match serde_json::from_slice::<Page>(&text) {
            Ok(page) if page.version == 1 => match self.opened(&page).await {
                Err(KeyError::Destroyed) if self.is_erased(&page).await => {
                    tracing::info!(credential = %page.credential, "a spooled answer goes the way of its user, who is erased");
                    blocking(move || remove(&file)).await?;
                    return Ok(false);
                }
                opened => opened.map(|tokens| (page, tokens)),
            },
            _ => Err(KeyError::Refused),
        };
        let (page, tokens) = match opened {
            Ok(opened) => opened,
            // The database is away still.
            Err(KeyError::Store(_)) => return Ok(false),
            Err(error) => {
                tracing::error!(file = %file.display(), error = %error, "a spooled answer cannot be opened and is set aside");
                blocking(move || std::fs::rename(&file, file.with_extension(SET_ASIDE))).await?;
                return Ok(false);
            }
        };
        let (name, claimed) = (page.name(), page.claimed());
        let seat = match self.flights.board(&name, Whose::TheSweeps) {
            Boarding::Leader(seat, _) => seat,
            // It may be a copy of what is held there. The next round finds it out of the air, or gone.
            Boarding::Passenger(..) => return Ok(false),
        };
        // In a task of its own: a round that is given up must not end a flight in the middle.
        let flight = tokio::spawn(bring_home(self.clone(), seat, claimed, Arc::new(tokens)));
        if !flight.await.unwrap_or(false) {
            return Ok(false);
        }
        tracing::info!(credential = %name.id, "a spooled answer has come home");
        crash_point!(AfterHomecoming);
        blocking(move || remove(&file)).await?;
        Ok(true)
    }

    /// A key that is not there may belong to another database; one that was destroyed was this one's.
    async fn is_erased(&self, page: &Page) -> bool {
        let owner = Owner::of_row(&page.tenant, &page.owner_kind, &page.owner_id);
        let asked = async {
            let mut tx = self.store.read().await?;
            self.keys.is_erased(&mut tx, &owner).await
        };
        asked.await.unwrap_or(false)
    }

    async fn opened(&self, page: &Page) -> Result<Fetched, KeyError> {
        let bytes = |text: &str| data_encoding::BASE64.decode(text.as_bytes()).map_err(|_| KeyError::Refused);
        let owner = Owner::of_row(&page.tenant, &page.owner_kind, &page.owner_id);
        let kind = CredentialKind::parse(&page.kind).ok_or(KeyError::Refused)?;
        let (access, refresh, next) = (bytes(&page.access_token)?, bytes(&page.refresh_token)?, page.generation + 1);
        let mut tx = self.store.read().await?;
        let access = self.keys.open_secret(&mut tx, &owner, access_place(&page.credential, next), &access).await?;
        let refresh: Secret =
            self.keys.open_secret(&mut tx, &owner, refresh_place(&page.credential, next), &refresh).await?;
        let sealer = self.keys.sealer(&mut tx, &owner).await?;
        let set = TokenSet {
            kind,
            access_token: access,
            refresh_token: None,
            token_type: page.token_type.clone(),
            scopes: page.scopes.clone(),
            expires_in: page.expires_in.map(Duration::from_secs),
            refresh_expires_in: page.refresh_expires_in.map(Duration::from_secs),
            subject: page.subject.clone(),
        };
        Ok(Fetched::of(set, refresh, Millis(page.received_at), (sealer, page.revision)))
    }
}

/// Every answer in the folder, in the order of names.
fn pages(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    ending_with(folder, ENDING)
}

fn ending_with(folder: &Path, wanted: &str) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == wanted) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// What a killed process had not finished: nobody was told that it was there.
fn remove_unfinished(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let age = path.metadata().and_then(|about| about.modified()).ok().and_then(|since| since.elapsed().ok());
        // A younger one may be another process's that is about to end.
        let is_old = age.is_some_and(|age| age > UNFINISHED_FOR);
        if is_old && name.is_some_and(|name| name.starts_with(UNFINISHED)) {
            remove(&path)?;
        }
    }
    Ok(())
}

fn write_whole(folder: &Path, name: &str, content: &[u8]) -> std::io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    crash_point!(MidSpool);
    file.persist(folder.join(name)).map_err(|error| error.error)?;
    std::fs::File::open(folder)?.sync_all()
}

/// Nothing where the file is gone: a flight takes its copy away when it has landed.
fn present<T>(outcome: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match outcome {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        outcome => outcome.map(Some),
    }
}

fn remove(file: &Path) -> std::io::Result<()> {
    present(std::fs::remove_file(file)).map(|_| ())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, SpoolError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?;
    Ok(done?)
}
