//! The house from outside: one binary, one file per story.

#![expect(clippy::expect_used, reason = "helpers of tests fail like tests")]

mod audit;
mod broker;
mod catalogue;
mod conversations;
mod crowds;
mod cutter;
mod demo;
mod direct;
mod erasing;
mod evil;
mod garbage;
mod granted;
mod handshakes;
mod harness;
mod health;
mod isolation;
#[cfg(feature = "crash-points")]
mod kills;
mod leak_search;
mod lost_commits;
mod moving_in;
mod notices;
mod openapi;
mod post;
mod processes;
mod program;
mod readers;
mod refresh_tool;
mod refusals;
mod refused_tokens;
mod relay;
mod return_urls;
mod revoking;
mod rotating;
mod sessions;
mod shared;
mod shared_client;
mod silence;
mod spool;
mod starts;
mod step_up;
mod stopped;
mod strict;
#[path = "../support/mod.rs"]
mod support;
mod telling;
mod tokens;
mod town;
mod trouble;
mod walkthrough;
