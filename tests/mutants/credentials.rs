//! The room, with only the protocol in it.

#[path = "../../src/credentials/refresh/mod.rs"]
pub mod refresh;
