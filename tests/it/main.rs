//! The house from outside: one binary, one file per story.

#![expect(clippy::expect_used, reason = "helpers of tests fail like tests")]

mod audit;
mod broker;
mod conversations;
mod crowds;
mod demo;
mod erasing;
mod handshakes;
mod harness;
mod isolation;
#[cfg(feature = "crash-points")]
mod kills;
mod leak_search;
mod openapi;
mod processes;
mod program;
mod refresh_tool;
mod relay;
mod spool;
mod starts;
mod strict;
#[path = "../support/mod.rs"]
mod support;
mod tokens;
mod trouble;
mod walkthrough;
