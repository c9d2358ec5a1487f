//! The house among strangers: servers and clients that nobody here wrote (`tests/counterparts`), and a person in a real
//! browser (`tests/browser`). `scripts/test` installs both; without them each story says by name that it is skipped.

#![expect(clippy::expect_used, reason = "helpers of tests fail like tests")]

mod browser;
mod google;
mod lines;
mod node;
mod relay;
mod screens;
mod scripts;
mod site;
mod slack;
#[path = "../support/mod.rs"]
mod support;
mod telegram;
mod vendors;
