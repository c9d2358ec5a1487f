//! `valetkey integration set`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::output::Output;
use super::session::{Session, operator_for, read_secret};
use super::trouble::Trouble;
use crate::connections::{ConnectionsError, IntegrationDraft};

const SET: &str = "\
Register the redirect URI that it answers with at the provider, character by character. Running it again changes the
client; a new client id pauses the connections that were made with the old one.

Examples:
  valetkey integration set google --tenant acme --client-id 123.apps.googleusercontent.com \\
      --client-secret-file google.secret --scopes https://www.googleapis.com/auth/gmail.readonly
  valetkey integration set slack --tenant acme --client-id 1.2 --client-secret-file - --scopes chat:write \\
      --user-scopes search:read < slack.secret
  valetkey integration set telegram --tenant acme --bot-token-file bot.token --client-id 123456789 \\
      --client-secret-file web-login.secret
  valetkey integration set zendesk --tenant acme --client-id vault --client-secret-file zendesk.secret --scopes read \\
      --variable subdomain=acme-support";

/// Set a tenant's OAuth clients at providers
#[derive(Debug, Subcommand)]
pub(super) enum Integration {
    Set(Set),
}

/// Set a tenant's OAuth client, or its bot, at a provider
#[derive(Debug, Args)]
#[command(after_help = SET)]
pub(super) struct Set {
    /// The provider's id: google, slack, telegram or another of the catalogue
    provider: String,
    /// Name or id of the tenant
    #[arg(long)]
    tenant: String,
    /// The client id that the provider gave
    #[arg(long)]
    client_id: Option<String>,
    /// File with the client secret, or - for stdin; without it the one that is stored stays
    #[arg(long, value_name = "FILE")]
    client_secret_file: Option<PathBuf>,
    /// Scopes to ask for, with commas between (Slack: of the bot); without it those that are stored stay
    #[arg(long, value_delimiter = ',')]
    scopes: Option<Vec<String>>,
    /// Scopes to ask of the person, with commas between (Slack); without it those that are stored stay
    #[arg(long, value_delimiter = ',')]
    user_scopes: Option<Vec<String>>,
    /// File with the platform's own bot token, or - for stdin (Telegram; with the client of its web login people sign in, without one
    /// they press Start)
    #[arg(long, value_name = "FILE")]
    bot_token_file: Option<PathBuf>,
    /// File with the Signing Secret of a Slack app, which proves its events, or - for stdin; without it the one that is stored stays
    #[arg(long, value_name = "FILE")]
    signing_secret_file: Option<PathBuf>,
    /// Part of the provider's addresses that is this tenant's own, such as subdomain=acme; without any, those that are stored stay
    #[arg(long = "variable", value_name = "NAME=VALUE", value_parser = variable)]
    variables: Vec<(String, String)>,
    /// What is refreshed ahead of its readers: always, active or on_demand; without it what is stored stays
    #[arg(long, value_name = "POLICY")]
    refresh_policy: Option<String>,
    /// For --refresh-policy active: how many days after its last use a credential counts as active
    #[arg(long, value_name = "DAYS")]
    refresh_active_days: Option<u16>,
    #[command(flatten)]
    output: Output,
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Integration {
    pub(super) async fn run(self, session: &Session) -> Result<(), Trouble> {
        match self {
            Self::Set(command) => command.run(session).await,
        }
    }
}

impl Set {
    async fn run(self, session: &Session) -> Result<(), Trouble> {
        let files = [&self.client_secret_file, &self.bot_token_file, &self.signing_secret_file];
        if files.iter().filter(|path| path.as_ref().is_some_and(|path| path.as_os_str() == "-")).count() > 1 {
            return Err(Trouble::usage("only one secret can be read from stdin").next("put the others into files"));
        }
        let secret =
            |option: &str, path: &Option<PathBuf>| path.as_ref().map(|path| read_secret(option, path)).transpose();
        let draft = IntegrationDraft {
            client_id: self.client_id.clone(),
            client_secret: secret("--client-secret-file", &self.client_secret_file)?,
            scopes: self.scopes.clone(),
            user_scopes: self.user_scopes.clone(),
            bot_token: secret("--bot-token-file", &self.bot_token_file)?,
            signing_secret: secret("--signing-secret-file", &self.signing_secret_file)?,
            variables: (!self.variables.is_empty()).then(|| self.variables.iter().cloned().collect()),
            refresh_policy: self.refresh_policy.clone(),
            refresh_active_days: self.refresh_active_days,
        };
        session
            .in_the_house_that_is_found(|rooms| async move {
                let caller = operator_for(&rooms, &self.tenant).await?;
                let set = rooms.connections.integration_put(&caller, &self.provider, draft).await;
                let integration = set.map_err(|error| match error {
                    ConnectionsError::NotFound("provider") => {
                        Trouble::usage(format!("there is no provider {:?}", self.provider))
                            .next("GET /v1/providers lists the catalogue; `valetkey doctor` shows it, too")
                    }
                    other => other.into(),
                })?;
                let mut text = format!("Integration {}\nRedirect URI: {}", integration.id, integration.redirect_uri);
                if let Some(url) = &integration.events_url {
                    text.push_str(&format!("\nEvents URL: {url}"));
                }
                let answer = json!({ "id": integration.id, "redirect_uri": integration.redirect_uri });
                self.output.say(&answer, &text)
            })
            .await
    }
}
