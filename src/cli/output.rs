//! Answers on stdout: one JSON object for programs, a few lines for people.

use std::io::Write;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::trouble::Trouble;

/// How to answer.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Output {
    /// Answer with one JSON object
    #[arg(long)]
    json: bool,
}

impl Output {
    /// Writes `answer` as JSON, or `text` for people.
    pub(super) fn say(self, answer: &impl Serialize, text: &str) -> Result<(), Trouble> {
        if self.json {
            let answer: Value = serde_json::to_value(answer).map_err(|error| Trouble::new(error.to_string()))?;
            line(&answer.to_string())
        } else {
            line(text)
        }
    }
}

/// One line, or several, on stdout, at once.
pub(super) fn line(text: &str) -> Result<(), Trouble> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(Trouble::from)
}

/// Rows as aligned columns.
pub(super) fn columns(rows: &[(String, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let lines: Vec<String> = rows.iter().map(|(name, value)| format!("{name:width$}  {value}")).collect();
    lines.join("\n")
}
