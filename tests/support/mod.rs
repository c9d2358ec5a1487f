//! What the stories of `tests/it` and `tests/outside` share: what is secret, where it may show, and the search for it at
//! the end of every story (SH-01).

mod answers;
pub mod leaks;
mod sources;

pub use leaks::{Finding, Kind, Known};
pub use sources::Paper;
