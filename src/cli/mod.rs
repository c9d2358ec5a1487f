//! The command line: one file per command. Every administrative command works beside a running `serve`.
//!
//! Answers go to stdout, as text for people or, with `--json`, as one JSON object; everything else goes to stderr. The
//! exit status is 0 when it was done, 1 when it could not be done or a check failed, and 2 for wrong usage (API.md
//! section 1).

mod api_key;
mod config;
mod demo;
mod doctor;
mod integration;
mod key;
mod member;
mod migrate;
mod openapi;
mod output;
mod provider;
mod serve;
mod session;
mod setup_link;
mod tenant;
mod trouble;
mod workspace;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use session::Session;
use trouble::Trouble;

/// How long to wait, at the end, for threads that only the runtime knows of.
const LAST_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  valetkey demo
  valetkey key generate --out root.key
  VALETKEY_ROOT_KEY_FILE=root.key valetkey serve
  valetkey tenant create acme --return-url https://acme.example/connected
  valetkey api-key create --tenant acme --name backend --scopes all
  valetkey doctor --json

Settings come from --config FILE (TOML) and VALETKEY_* variables, which win; `valetkey config --help` lists them.
Exit status: 0 done, 1 could not be done or a check failed, 2 wrong usage.";

/// A multi-tenant, per-user OAuth credential vault for ElevenLabs voice agents.
#[derive(Debug, Parser)]
#[command(name = "valetkey", version, after_help = EXAMPLES)]
struct Cli {
    /// Settings file (TOML); VALETKEY_* variables win over it
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Demo),
    Serve(serve::Serve),
    Migrate(migrate::Migrate),
    Doctor(doctor::Doctor),
    Openapi(openapi::Openapi),
    Config(config::ShowConfig),
    SetupLink(setup_link::SetupLink),
    #[command(subcommand)]
    Key(key::Key),
    #[command(subcommand)]
    Tenant(tenant::Tenant),
    #[command(subcommand)]
    ApiKey(api_key::ApiKey),
    #[command(subcommand)]
    Integration(integration::Integration),
    #[command(subcommand)]
    Provider(provider::Provider),
    #[command(subcommand)]
    Member(member::Member),
    #[command(subcommand)]
    Workspace(workspace::Workspace),
}

/// Runs the command that the process's arguments name.
#[must_use]
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout with status 0, wrong usage to stderr with 2.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let outcome =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Trouble::from).and_then(|runtime| {
            let outcome = runtime.block_on(obey(cli));
            runtime.shutdown_timeout(LAST_WAIT);
            outcome
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            trouble.tell();
            ExitCode::from(trouble.status())
        }
    }
}

async fn obey(cli: Cli) -> Result<(), Trouble> {
    let session = Session::new(cli.config);
    match cli.command {
        Command::Demo(command) => command.run(&session).await,
        Command::Serve(command) => command.run(&session).await,
        Command::Migrate(command) => command.run(&session).await,
        Command::Doctor(command) => command.run(&session).await,
        Command::Openapi(command) => command.run(),
        Command::Config(command) => command.run(&session),
        Command::SetupLink(command) => command.run(&session).await,
        Command::Key(command) => command.run(&session).await,
        Command::Tenant(command) => command.run(&session).await,
        Command::ApiKey(command) => command.run(&session).await,
        Command::Integration(command) => command.run(&session).await,
        Command::Provider(command) => command.run(&session).await,
        Command::Member(command) => command.run(&session).await,
        Command::Workspace(command) => command.run(&session).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_hang_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_help_with_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path} says nothing about itself");
            if command.get_subcommands().next().is_none() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example"), "{path} gives no example");
            }
            command.get_subcommands().filter(|one| one.get_name() != "help").for_each(|one| check(one, &path));
        }
        check(&Cli::command(), "");
    }
}
