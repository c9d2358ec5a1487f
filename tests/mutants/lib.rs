//! The refresh protocol of `src/credentials/refresh` and the clock that it reads, and nothing else of the house.

#[path = "../../src/clock.rs"]
pub mod clock;
pub mod credentials;
