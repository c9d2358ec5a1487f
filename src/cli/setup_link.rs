//! `valetkey setup-link`.

use clap::Args;
use serde_json::json;

use super::output::Output;
use super::session::Session;
use super::trouble::Trouble;
use crate::accounts::AccountsError;

const EXAMPLES: &str = "\
The link works once and for 15 minutes. Set-up closes for ever when the first member exists; more members are made
with `valetkey member create` or by an owner.

Example:
  valetkey setup-link --json";

/// Make a link with which the first owner sets the installation up in a browser
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SetupLink {
    #[command(flatten)]
    output: Output,
}

impl SetupLink {
    pub(super) async fn run(self, session: &Session) -> Result<(), Trouble> {
        session
            .in_the_house_that_is_found(|rooms| async move {
                let link = rooms.accounts.setup_link().await.map_err(|error| match error {
                    AccountsError::Gone => Trouble::new("set-up is closed: there is a member already")
                        .next("sign in, or make another login with `valetkey member create`"),
                    other => other.into(),
                })?;
                let base = rooms.public_url.as_str().trim_end_matches('/');
                let url = format!("{base}/setup/{}", link.token.expose());
                let answer = json!({ "url": url, "expires_at": link.expires_at.rfc3339() });
                self.output.say(&answer, &format!("{url}\nIt works once, until {}.", link.expires_at.rfc3339()))
            })
            .await
    }
}
