//! To be built.

pub mod refresh;
