//! `valetkey demo`: the whole job on one machine, watched by a newcomer or by a check.
//!
//! | file | story |
//! | --- | --- |
//! | `town` | the real vault, the pretend providers, the pretend ElevenLabs and a platform, in one process |
//! | `play` | the job from beginning to end, and what is said about it |
//! | `stage` | its steps, over HTTP and WebSocket |
//! | `leaks` | every secret looked for in every place where none may be |
//! | `probes` | proves that a leak in any of these places would be found |
//! | `tell` | the timeline on the terminal, and the log kept for the search |

#[cfg(feature = "sandbox")]
mod leaks;
#[cfg(feature = "sandbox")]
mod play;
#[cfg(feature = "sandbox")]
mod probes;
#[cfg(feature = "sandbox")]
mod stage;
#[cfg(feature = "sandbox")]
mod tell;
#[cfg(feature = "sandbox")]
mod town;

use clap::Args;

use super::session::Session;
use super::trouble::Trouble;

const EXAMPLES: &str = "\
Everything runs on this machine: SQLite in a temporary folder, a pretend Google, Slack, Telegram and ElevenLabs, and a
platform page. Nothing is kept and nothing leaves the machine.

Faults for --fault:
  refresh_tool      ElevenLabs does not carry out the refresh tool's assignment
  unsanitized       the refresh tool is set up so that the model would see the token; the vault then gives none
  google_revoked    Ada took back her consent at Google; the refresh is refused
  refuse_start      ElevenLabs refuses to begin conversations
  signed_url_500    ElevenLabs fails when asked for a conversation

Examples:
  valetkey demo
  valetkey demo --once
  valetkey demo --once --json
  valetkey demo --once --fault refresh_tool";

/// Try the whole job on this machine, without any account
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Demo {
    /// Play the job once without a browser, then say what leaked: nothing, or status 1
    #[arg(long)]
    once: bool,
    /// End with one JSON object on stdout; the timeline goes to stderr
    #[arg(long, requires = "once")]
    json: bool,
    /// Port of the platform page; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = 0)]
    port: u16,
    /// Break something, to see what then happens
    #[arg(long, value_name = "NAME")]
    fault: Option<String>,
}

#[cfg(not(feature = "sandbox"))]
impl Demo {
    #[expect(clippy::unused_async, reason = "as the command with a sandbox")]
    pub(super) async fn run(self, _: &Session) -> Result<(), Trouble> {
        let Self { once: _, json: _, port: _, fault: _ } = self;
        Err(Trouble::usage("this build has no sandbox, so there is nothing to try against").next(
            "use the released binary for your own machine, or build it with `cargo build --release --features sandbox`",
        ))
    }
}

#[cfg(feature = "sandbox")]
impl Demo {
    pub(super) async fn run(self, session: &Session) -> Result<(), Trouble> {
        let fault = match self.fault.as_deref() {
            None => None,
            Some(name) => Some(town::Fault::named(name).ok_or_else(|| unknown_fault(name))?),
        };
        // Heard from the first moment: a stop during the start is a stop.
        let stopped = stop_signal()?;
        if !self.once {
            return stay(self.port, fault, session.config()?.log, stopped).await;
        }
        tokio::select! {
            outcome = play::once(self.port, fault, self.json) => outcome,
            // Dropping the town removes its folder.
            () = stopped => Err(Trouble::new("stopped before the end")),
        }
    }
}

/// Resolves at Ctrl-C or when asked to terminate.
#[cfg(feature = "sandbox")]
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

#[cfg(feature = "sandbox")]
fn unknown_fault(name: &str) -> Trouble {
    let known: Vec<&str> = town::Fault::ALL.iter().map(|fault| fault.name()).collect();
    Trouble::usage(format!("--fault: there is no fault {name:?}")).next(format!("use one of: {}", known.join(", ")))
}

/// Opens the town and says where it is, until it is stopped.
#[cfg(feature = "sandbox")]
async fn stay(
    port: u16,
    fault: Option<town::Fault>,
    log: Option<String>,
    stopped: impl Future<Output = ()>,
) -> Result<(), Trouble> {
    super::session::start_logs(log.as_deref().unwrap_or("warn,valetkey::app=error"))?;
    let mut stopped = std::pin::pin!(stopped);
    let town = tokio::select! {
        town = town::Town::open(port, fault) => town?,
        () = &mut stopped => return Ok(()),
    };
    super::output::line(&format!(
        "Everything is ready. Open the platform page in a browser and click through the job:\n\n  \
         platform page      {platform}\n  \
         the vault          {vault}\n  \
         its metrics        http://{admin}/metrics\n\n\
         The vault's own pages: {vault}sign-in as {email} with the password {password}\n\
         Google, Slack, Telegram and ElevenLabs are pretended; nothing leaves this machine.\n\
         Ctrl-C stops everything and removes what was kept.",
        platform = town.platform.base,
        vault = town.app.public_url(),
        admin = town.app.admin,
        email = town::MEMBER,
        password = town.password.expose(),
    ))?;
    stopped.await;
    if town.close().await { Ok(()) } else { Err(Trouble::new("the vault did not stop in good order")) }
}
