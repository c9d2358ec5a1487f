//! `valetkey key generate` and `valetkey key status`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::output::Output;
use super::session::Session;
use super::trouble::Trouble;
use crate::app::key_status;
use crate::clock::Surroundings;
use crate::keys::generate_key_file;

const GENERATE: &str = "\
The file has mode 0600 and is never overwritten. Without it nothing in the database can be read: keep a copy in a safe
place, apart from the database's backups.

Example:
  valetkey key generate --out /etc/valetkey/root.key";
const STATUS: &str = "\
It changes nothing. The exit status is 1 when the key at hand is missing, not usable or not this database's.

Example:
  VALETKEY_ROOT_KEY_FILE=root.key valetkey key status --json";

/// Make and look at root keys
#[derive(Debug, Subcommand)]
pub(super) enum Key {
    Generate(Generate),
    Status(Status),
}

/// Write a new root key to a file
#[derive(Debug, Args)]
#[command(after_help = GENERATE)]
pub(super) struct Generate {
    /// Where to write it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    output: Output,
}

/// Say which root key is at hand and which ones this database knows
#[derive(Debug, Args)]
#[command(after_help = STATUS)]
pub(super) struct Status {
    #[command(flatten)]
    output: Output,
}

impl Key {
    pub(super) async fn run(self, session: &Session) -> Result<(), Trouble> {
        match self {
            Self::Generate(command) => command.run(),
            Self::Status(command) => command.run(session).await,
        }
    }
}

impl Generate {
    fn run(self) -> Result<(), Trouble> {
        let path = self.out.display().to_string();
        generate_key_file(&self.out, &Surroundings::system()).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Trouble::new(format!("{path} exists already")).next("choose another name; a key is never overwritten")
            }
            _ => Trouble::new(format!("{path} cannot be written: {error}")).next("choose a folder you may write to"),
        })?;
        let text =
            format!("A new root key is in {path}. Keep a copy in a safe place.\nSet VALETKEY_ROOT_KEY_FILE={path}");
        self.output.say(&json!({ "file": path }), &text)
    }
}

impl Status {
    async fn run(self, session: &Session) -> Result<(), Trouble> {
        let status = key_status(&session.config()?).await?;
        let mut lines = vec![if status.proven {
            format!("{} is at hand and opens this database.", status.id)
        } else {
            format!("{} is at hand; the database is empty and will be made with it.", status.id)
        }];
        lines.extend(status.known.iter().map(|key| format!("{}  {}", key.id, key.state)));
        self.output.say(&status, &lines.join("\n"))
    }
}
