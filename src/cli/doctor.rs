//! `valetkey doctor`.

use clap::Args;
use serde_json::json;

use super::output::Output;
use super::session::Session;
use super::trouble::Trouble;
use crate::app::{Check, examine};
use crate::clock::Surroundings;

const EXAMPLES: &str = "\
It changes nothing and works with and without a running `serve`. The exit status is 1 when a check failed.

Examples:
  valetkey doctor
  valetkey doctor --config valetkey.toml --json";

/// Look at settings, root key, database, clock, outgoing calls and URLs
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Doctor {
    #[command(flatten)]
    output: Output,
}

impl Doctor {
    pub(super) async fn run(self, session: &Session) -> Result<(), Trouble> {
        let config = session.config()?;
        let checks = examine(&config, &Surroundings::system()).await;
        let failed = checks.iter().filter(|check| !check.ok).count();
        self.output.say(&json!({ "ok": failed == 0, "checks": checks }), &table(&checks))?;
        match failed {
            0 => Ok(()),
            1 => Err(Trouble::new("one check failed").next("do what stands under it")),
            more => Err(Trouble::new(format!("{more} checks failed")).next("do what stands under them, from the top")),
        }
    }
}

fn table(checks: &[Check]) -> String {
    let mut lines = Vec::new();
    for check in checks {
        lines.push(format!("{:4}  {:16}  {}", if check.ok { "ok" } else { "FAIL" }, check.name, check.detail));
        if let Some(next) = &check.next {
            lines.push(format!("{:4}  {:16}  next: {next}", "", ""));
        }
    }
    lines.join("\n")
}
