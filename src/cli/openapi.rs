//! `valetkey openapi`.

use clap::Args;

use super::output::line;
use super::trouble::Trouble;
use crate::app;

const EXAMPLES: &str = "\
Example:
  valetkey openapi > openapi.json";

/// Print the OpenAPI 3.1 document of every call that programs make
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Openapi {}

impl Openapi {
    pub(super) fn run(self) -> Result<(), Trouble> {
        let document = app::openapi().map_err(|error| Trouble::new(error.to_string()))?;
        line(&format!("{document:#}"))
    }
}
