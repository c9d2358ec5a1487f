//! What every command starts from: the settings, the house and files named on the command line.

use std::future::Future;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::trouble::Trouble;
use crate::app::{App, Rooms};
use crate::caller::Caller;
use crate::clock::Surroundings;
use crate::config::Config;
use crate::secret::Secret;
use crate::telemetry;

/// More than any secret has, and less than a wrong file could have.
const MAX_SECRET_BYTES: u64 = 64 * 1024;
/// Commands answer on stdout; only what is wrong is worth a line beside it.
const QUIET: &str = "warn";

/// One run of the program.
#[derive(Debug)]
pub(super) struct Session {
    config_file: Option<PathBuf>,
}

impl Session {
    pub(super) fn new(config_file: Option<PathBuf>) -> Self {
        Self { config_file }
    }

    /// The effective settings.
    pub(super) fn config(&self) -> Result<Config, Trouble> {
        Ok(Config::load(self.config_file.as_deref())?)
    }

    /// Opens the house, lets `work` use its rooms, and closes it again, whatever came of it.
    pub(super) async fn in_the_house<T, F>(&self, work: impl FnOnce(Rooms) -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Trouble>>,
    {
        self.inside(false, work).await
    }

    /// The same for work that answers with URLs of the house: not done, and nothing changed, while nobody knows them.
    pub(super) async fn in_the_house_that_is_found<T, F>(&self, work: impl FnOnce(Rooms) -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Trouble>>,
    {
        self.inside(true, work).await
    }

    async fn inside<T, F>(&self, names_urls: bool, work: impl FnOnce(Rooms) -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Trouble>>,
    {
        let config = self.config()?;
        start_logs(config.log.as_deref().unwrap_or(QUIET))?;
        let app = App::open_for_cli(&config, Surroundings::system()).await?;
        let outcome = if names_urls && !app.is_found { Err(nowhere()) } else { work(app.rooms.clone()).await };
        app.close().await;
        outcome
    }
}

fn nowhere() -> Trouble {
    Trouble::new(
        "the answer would name a URL of this installation, and with port 0 only a running `valetkey serve` knows it",
    )
    .next("start `valetkey serve` first, or set VALETKEY_PUBLIC_URL")
}

/// Logs to stderr: text for people, JSON for programs.
pub(super) fn start_logs(filter: &str) -> Result<(), Trouble> {
    telemetry::start_logs(Some(filter), std::io::stderr, !telemetry::stderr_is_for_people()).map_err(|error| {
        Trouble::new(format!("VALETKEY_LOG is not a log filter: {error}"))
            .next("use RUST_LOG syntax, such as info or valetkey=debug")
    })
}

/// The operator, acting for the tenant of this name or id.
pub(super) async fn operator_for(rooms: &Rooms, tenant: &str) -> Result<Caller, Trouble> {
    match rooms.accounts.tenant_find(tenant).await {
        Ok(tenant) => Ok(Caller::operator(tenant.id)),
        Err(crate::accounts::AccountsError::NotFound(_)) => {
            Err(Trouble::new(format!("there is no tenant named {tenant:?}"))
                .next(format!("make it with `valetkey tenant create {tenant}`")))
        }
        Err(other) => Err(other.into()),
    }
}

/// Reads a secret from a file, or from stdin for `-`. Line ends at its end do not belong to it. Secrets never come as
/// arguments, since every process of the machine can read those (SH-04).
pub(super) fn read_secret(option: &str, path: &Path) -> Result<Secret, Trouble> {
    let unreadable = |error: std::io::Error| {
        Trouble::new(format!("{option}: {} cannot be read: {error}", path.display()))
            .next("name a file that holds the secret and nothing else, or - to read it from stdin")
    };
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().lock().take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    } else {
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    }
    let too_long = bytes.len() as u64 > MAX_SECRET_BYTES;
    while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        bytes.pop();
    }
    let secret = Secret::from_utf8(bytes).filter(|secret| !too_long && !secret.is_empty());
    secret.ok_or_else(|| {
        Trouble::new(format!("{option}: {} does not hold a secret: it is empty, too long or not text", path.display()))
            .next("name a file that holds the secret and nothing else, or - to read it from stdin")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_without_its_line_end_and_an_empty_file_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        std::fs::write(&path, " s3cret \r\n").expect("written");
        assert_eq!(read_secret("--password-file", &path).expect("read").expose(), " s3cret ");
        for content in [b"\n".as_slice(), b"", &[0xff, 0xfe], &[b'x'; 70_000]] {
            std::fs::write(&path, content).expect("written");
            assert!(read_secret("--password-file", &path).is_err());
        }
        assert!(read_secret("--password-file", &folder.path().join("none")).is_err());
    }
}
