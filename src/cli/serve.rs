//! `valetkey serve`.

use clap::Args;
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::output::line;
use super::session::{Session, start_logs};
use super::trouble::Trouble;
use crate::app::App;
use crate::clock::Surroundings;
use crate::telemetry;

const EXAMPLES: &str = "\
The first line on stdout is {\"event\":\"listening\",\"public\":\"http://…\",\"admin\":\"http://…\"}; nothing follows it.
SIGTERM and SIGINT stop in good order within 25 seconds; a second one stops at once.

Examples:
  VALETKEY_ROOT_KEY_FILE=root.key valetkey serve
  VALETKEY_BIND=127.0.0.1:0 VALETKEY_ADMIN_BIND=127.0.0.1:0 valetkey serve --config valetkey.toml";

/// Serve the API, the pages and the tools
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Serve {}

impl Serve {
    pub(super) async fn run(self, session: &Session) -> Result<(), Trouble> {
        let config = session.config()?;
        match &config.log {
            Some(filter) => start_logs(filter)?,
            None => telemetry::start_logs(None, std::io::stderr, !telemetry::stderr_is_for_people())
                .map_err(|error| Trouble::new(error.to_string()))?,
        }
        // Heard from the first moment: a stop during the start is a stop.
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let app = tokio::select! {
            started = App::start(config, Surroundings::system()) => started?,
            () = either(&mut term, &mut int) => return Ok(()),
        };
        let listening = Listening {
            event: "listening",
            public: format!("http://{}", app.public),
            admin: format!("http://{}", app.admin),
        };
        line(&serde_json::to_string(&listening).map_err(|error| Trouble::new(error.to_string()))?)?;
        either(&mut term, &mut int).await;
        tokio::select! {
            in_order = app.stop() => if in_order { Ok(()) } else { Err(unfinished()) },
            () = either(&mut term, &mut int) => Err(unfinished()),
        }
    }
}

/// The one line on stdout, in the order that API.md shows.
#[derive(Serialize)]
struct Listening {
    event: &'static str,
    public: String,
    admin: String,
}

async fn either(term: &mut Signal, int: &mut Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

fn unfinished() -> Trouble {
    Trouble::new("stopped before everything in progress was finished").next(
        "after the next start refreshes are repeated where that is safe; a one-time token whose answer did not come in time may be reported as lost: see the log for what was in progress",
    )
}
