//! A pretend ElevenLabs: the part of the Agents Platform that a credential vault meets.
//!
//! It keeps secrets, tools and agents, mints signed URLs, talks on the conversation WebSocket, plays
//! a scripted model that calls webhook tools, and remembers every word in the places where the real
//! platform would keep it. "Section" and a number means the project's ElevenLabs fact sheet. Where the
//! vendor promises no redaction, the stand-in plays the worse case, so that a leak shows here before
//! it shows there.
//!
//! | file | story |
//! | --- | --- |
//! | `rest` | who may call, error shapes, paging |
//! | `shelves` | secrets, tools and agents over REST |
//! | `calls` | signed URLs, tokens, conversations over REST |
//! | `socket` | one conversation on the WebSocket |
//! | `start` | what must hold before it begins |
//! | `variables` | dynamic variables: which are needed, what they hold |
//! | `brain` | the scripted model |
//! | `tools` · `results` | one webhook call · what its answer becomes for whom |
//! | `sinks` | every word, by who can read it |
//! | `control` | `/sandbox/…`, for tests and the demo |

mod brain;
mod calls;
mod control;
mod rest;
mod results;
mod shelves;
mod sinks;
mod socket;
mod start;
#[cfg(test)]
mod tests;
mod tools;
mod variables;
mod world;

use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::serve::ListenerExt;
use serde_json::Value;
use tokio::net::TcpListener;
use url::Url;

use crate::clock::Surroundings;
use crate::shutdown::{self, Shutdown, ShutdownController};
use world::{Shared, World};

/// A running stand-in on its own loopback port. It stops, and closes every conversation, when it is
/// dropped.
#[derive(Debug)]
pub struct ElevenLabs {
    /// Where REST is served: `http://127.0.0.1:<port>/`. Signed URLs name the same port as `ws://`.
    pub base: Url,
    shared: Arc<Shared>,
    stop: ShutdownController,
}

/// The stand-in could not be started: no loopback port, or no HTTP client.
#[derive(Debug, thiserror::Error)]
#[error("the ElevenLabs stand-in could not start")]
pub struct StartError(#[source] Box<dyn Error + Send + Sync>);

impl ElevenLabs {
    /// Opens a loopback port and serves on it. Expiry and duration limits follow `around`'s clock.
    ///
    /// # Errors
    /// When no port can be opened or the HTTP client for tool calls cannot be built.
    pub async fn start(around: Surroundings) -> Result<Self, StartError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(wrong)?;
        let address = listener.local_addr().map_err(wrong)?;
        let base = Url::parse(&format!("http://{address}/")).map_err(wrong)?;
        let client = tools::client().map_err(wrong)?;
        let (stop, running) = shutdown::channel();
        let shared = Arc::new(Shared::new(around, base.clone(), client));

        let doors = rest::router(shared.clone(), running.clone());
        tokio::spawn(serve(listener, doors, running));
        Ok(Self { base, shared, stop })
    }

    /// The API key the stand-in was born with. It begins with `sk_` and carries the canary word
    /// `vkcanary`, which leak scanners look for.
    #[must_use]
    pub fn api_key(&self) -> String {
        self.shared.look(World::first_key)
    }

    /// A further valid API key of the same workspace, for rotation.
    #[must_use]
    pub fn issue_api_key(&self) -> String {
        self.shared.issue_key()
    }

    /// Makes `key` invalid: it is answered 401 from now on.
    pub fn revoke_api_key(&self, key: &str) {
        self.shared.change(|world| world.keys.retain(|known| known != key));
    }

    /// What `GET /sandbox/sinks` answers: `model_view`, `transcript`, `post_call`, `client_events`
    /// and, not to be searched for leaks, `received`.
    #[must_use]
    pub fn sinks(&self) -> Value {
        let now = self.shared.around.now();
        self.shared.look(|world| world.sinks.public(now))
    }

    /// What `GET /sandbox/tool-calls` answers: one entry per tool call, values as fingerprints.
    #[must_use]
    pub fn tool_calls(&self) -> Value {
        self.shared.look(|world| Value::Array(world.sinks.tool_calls.clone()))
    }

    /// What `GET /sandbox/counters` answers.
    #[must_use]
    pub fn counters(&self) -> Value {
        self.shared.look(|world| world.counters.public())
    }

    /// Breaks something until [`ElevenLabs::reset`]; `control` lists the names. False when the
    /// name is not known.
    pub fn fault(&self, name: &str) -> bool {
        self.shared.change(|world| world.add_fault(name))
    }

    /// Forgets faults, counters, conversations and sinks; with `workspace`, also secrets, tools and
    /// agents. API keys stay.
    pub fn reset(&self, workspace: bool) {
        self.shared.change(|world| world.reset(workspace));
    }
}

impl Drop for ElevenLabs {
    fn drop(&mut self) {
        self.stop.begin();
    }
}

fn wrong(error: impl Error + Send + Sync + 'static) -> StartError {
    StartError(Box::new(error))
}

async fn serve(listener: TcpListener, doors: axum::Router, running: Shutdown) {
    // Small frames go back and forth; waiting to fill packets would slow every test.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let stopped = async move { running.begun().await };
    // Serving on a bound listener does not fail; accept errors are retried inside.
    let _ = axum::serve(listener, doors).with_graceful_shutdown(stopped).await;
}
