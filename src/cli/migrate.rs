//! `valetkey migrate`.

use clap::Args;
use serde_json::json;

use super::output::Output;
use super::session::Session;
use super::trouble::Trouble;

const EXAMPLES: &str = "\
`serve` does the same when it starts. Running it twice, or beside a running `serve`, is harmless.

Example:
  VALETKEY_ROOT_KEY_FILE=root.key valetkey migrate";

/// Prove the root key and bring the database schema up to date
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Migrate {
    #[command(flatten)]
    output: Output,
}

impl Migrate {
    pub(super) async fn run(self, session: &Session) -> Result<(), Trouble> {
        session
            .in_the_house(|rooms| async move {
                drop(rooms);
                Ok(())
            })
            .await?;
        self.output.say(&json!({ "migrated": true }), "The database is up to date.")
    }
}
