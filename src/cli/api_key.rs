//! `valetkey api-key create`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::output::Output;
use super::session::{Session, operator_for};
use super::trouble::Trouble;
use crate::accounts::NewApiKey;
use crate::caller::Permission;
use crate::clock::Millis;

const CREATE: &str = "\
The secret is shown this once.

Examples:
  valetkey api-key create --tenant acme --name backend --scopes all
  valetkey api-key create --tenant acme --name starter --scopes conversations:write --allowed-ips 203.0.113.7 --json";

/// Make platform keys
#[derive(Debug, Subcommand)]
pub(super) enum ApiKey {
    Create(Create),
}

/// Make a platform key for a tenant's back end
#[derive(Debug, Args)]
#[command(after_help = CREATE)]
pub(super) struct Create {
    /// Name or id of the tenant
    #[arg(long)]
    tenant: String,
    /// What the key is for, for people
    #[arg(long)]
    name: String,
    /// `all`, or a list of scopes with commas between
    #[arg(long, value_delimiter = ',', required = true)]
    scopes: Vec<String>,
    /// Addresses and networks it may be used from, with commas between; without it from anywhere
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    allowed_ips: Option<Vec<String>>,
    /// When it ends, such as 2027-01-01T00:00:00Z; without it never
    #[arg(long, value_name = "TIME", value_parser = Millis::parse_rfc3339)]
    expires_at: Option<Millis>,
    #[command(flatten)]
    output: Output,
}

impl ApiKey {
    pub(super) async fn run(self, session: &Session) -> Result<(), Trouble> {
        match self {
            Self::Create(command) => command.run(session).await,
        }
    }
}

impl Create {
    async fn run(self, session: &Session) -> Result<(), Trouble> {
        if let Some(wrong) = self.scopes.iter().find(|one| *one != "all" && Permission::parse(one).is_none()) {
            let known: Vec<_> = Permission::ALL.iter().map(|one| one.as_str()).collect();
            return Err(Trouble::usage(format!("--scopes: there is no scope {wrong:?}"))
                .next(format!("use all, or some of: {}", known.join(", "))));
        }
        let new = NewApiKey {
            name: self.name,
            scopes: self.scopes,
            allowed_ips: self.allowed_ips,
            expires_at: self.expires_at,
        };
        session
            .in_the_house(|rooms| async move {
                let caller = operator_for(&rooms, &self.tenant).await?;
                let (key, secret) = rooms.accounts.api_key_create(&caller, new).await?;
                let answer = json!({ "id": key.id, "secret": secret });
                let shown = answer["secret"].as_str().unwrap_or_default();
                let text = format!("{shown}\nThis is the secret of {}. It is not shown again.", key.id);
                self.output.say(&answer, &text)
            })
            .await
    }
}
