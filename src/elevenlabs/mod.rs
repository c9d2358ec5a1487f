//! The ElevenLabs API as it is, with none of our rules: lenient in what it reads, strict in what it returns.
//!
//! Facts are those of the ElevenLabs fact sheet; its section numbers stand beside the rules.

mod client;
mod errors;
mod types;

pub use self::client::{Access, ElevenLabs, region_is_known};
pub use self::errors::ElevenLabsError;
pub use self::types::{Agent, Assignment, ConversationToken, FilterMode, HeaderSource, SignedUrl, Tool, User};
