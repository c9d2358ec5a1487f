//! Valetkey: a multi-tenant, per-user OAuth credential vault for ElevenLabs voice agents.
//!
//! The house is built in floors, and stairs only go down: doors (`http`), clockwork (`jobs`),
//! rooms (`conversations`, `connections`, `credentials`, `accounts`, `workspaces`, `events`),
//! the safe (`keys`, `audit`), tools (`store`, `crypto`, `providers`, `elevenlabs`, `outbound`)
//! and stones that everyone may stand on. `docs/ARCHITECTURE.md` has the table of who may import
//! whom and walks through the main requests; `tests/architecture.rs` guards it.

pub mod accounts;
pub mod app;
pub mod audit;
pub mod caller;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connections;
pub mod conversations;
pub mod crash;
pub mod credentials;
pub mod crypto;
pub mod elevenlabs;
pub mod events;
pub mod health;
pub mod http;
pub mod ids;
pub mod invalid;
pub mod jobs;
pub mod keys;
pub mod outbound;
pub mod providers;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod schema;
pub mod secret;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod workspaces;
