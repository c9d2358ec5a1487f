//! `valetkey provider discover`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::output::Output;
use super::session::Session;
use super::trouble::Trouble;
use crate::app::discover;

const DISCOVER: &str = "\
It changes nothing. Look at the row, correct what you know better, put it into the file that VALETKEY_CATALOGUE_FILE names, and
start `serve` again: from then on tenants can set a client for the provider, and its addresses stay as they are in the row. What a
document does not tell is set carefully, such as that a refresh token must never be shown twice (`replay`).

Examples:
  valetkey provider discover https://id.acme.example --id acme --name Acme >> catalogue.toml
  valetkey provider discover https://id.acme.example --id acme --name Acme --api https://api.acme.example/v1 --json";

/// Add providers that are not in the catalogue
#[derive(Debug, Subcommand)]
pub(super) enum Provider {
    Discover(Discover),
}

/// Ask an authorization server about itself (OpenID Connect Discovery, RFC 8414), and print its row for the catalogue
#[derive(Debug, Args)]
#[command(after_help = DISCOVER)]
pub(super) struct Discover {
    /// The issuer, to the letter, such as https://id.acme.example
    issuer: String,
    /// The id that the provider is to have: lower case letters, digits and underscores
    #[arg(long)]
    id: String,
    /// Its name on pages
    #[arg(long)]
    name: String,
    /// Where its API lives; without it the broker makes no calls, and tools must be given the token
    #[arg(long, value_name = "URL")]
    api: Option<String>,
    #[command(flatten)]
    output: Output,
}

impl Provider {
    pub(super) async fn run(self, session: &Session) -> Result<(), Trouble> {
        let Self::Discover(command) = self;
        command.run(session).await
    }
}

impl Discover {
    async fn run(self, session: &Session) -> Result<(), Trouble> {
        let config = session.config()?;
        let found = discover(&config, &self.issuer, (&self.id, &self.name), self.api.as_deref()).await?;
        let mut text = format!("# as {} tells it\n", self.issuer);
        if !found.other_hosts.is_empty() {
            text.push_str(&format!("# with addresses at other hosts: {}\n", found.other_hosts.join(", ")));
        }
        text.push_str(found.toml.trim_end());
        let answer = json!({ "id": self.id, "row": found.row, "other_hosts": found.other_hosts });
        self.output.say(&answer, &text)
    }
}
