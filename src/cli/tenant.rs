//! `valetkey tenant create`.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::output::Output;
use super::session::Session;
use super::trouble::Trouble;
use crate::accounts::NewTenant;

const CREATE: &str = "\
Examples:
  valetkey tenant create acme --return-url https://acme.example/connected --origin https://acme.example
  valetkey tenant create acme-test --environment test --json";

/// Make tenants
#[derive(Debug, Subcommand)]
pub(super) enum Tenant {
    Create(Create),
}

/// Make a tenant: a platform in one environment
#[derive(Debug, Args)]
#[command(after_help = CREATE)]
pub(super) struct Create {
    /// Unique name
    name: String,
    /// What the tenant is for
    #[arg(long, value_enum, default_value = "production")]
    environment: Environment,
    /// Where hosted connect pages may send the browser back to, character by character; may be repeated
    #[arg(long = "return-url", value_name = "URL")]
    return_urls: Vec<String>,
    /// Where the tenant's pages come from, such as https://acme.example; may be repeated
    #[arg(long = "origin", value_name = "ORIGIN")]
    origins: Vec<String>,
    /// Who confirms that the right person connected: the platform, or nobody
    #[arg(long, value_enum, default_value = "platform")]
    confirm: Confirm,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Environment {
    Production,
    Test,
    Uat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Confirm {
    Platform,
    None,
}

impl Tenant {
    pub(super) async fn run(self, session: &Session) -> Result<(), Trouble> {
        match self {
            Self::Create(command) => command.run(session).await,
        }
    }
}

impl Create {
    async fn run(self, session: &Session) -> Result<(), Trouble> {
        let environment = match self.environment {
            Environment::Production => "production",
            Environment::Test => "test",
            Environment::Uat => "uat",
        };
        let confirm = match self.confirm {
            Confirm::Platform => "platform",
            Confirm::None => "none",
        };
        let new = NewTenant {
            name: self.name,
            environment: Some(environment.to_owned()),
            return_urls: self.return_urls,
            origins: self.origins,
            confirm: Some(confirm.to_owned()),
        };
        session
            .in_the_house(|rooms| async move {
                let tenant = rooms.accounts.tenant_create(new).await?;
                let text = format!("Tenant {} is {}.", tenant.name, tenant.id);
                self.output.say(&json!({ "id": tenant.id, "name": tenant.name }), &text)
            })
            .await
    }
}
