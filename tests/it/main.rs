//! The house from outside: one binary, one file per story.

#![expect(clippy::expect_used, reason = "helpers of tests fail like tests")]

#[cfg(feature = "sandbox")]
mod demo;
mod program;
mod starts;
#[cfg(feature = "sandbox")]
mod walkthrough;
