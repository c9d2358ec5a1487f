//! Figures: percentiles, and rows of a table that say what was measured, against which bar, and whether it was met.

use std::time::Duration;

/// Spans of time, for percentiles.
#[derive(Clone, Default)]
pub struct Spans(Vec<Duration>);

impl Spans {
    pub fn add(&mut self, span: Duration) {
        self.0.push(span);
    }

    pub fn add_all(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The span that this part of all spans does not exceed, in milliseconds.
    pub fn percentile(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a place in a list that was measured"
        )]
        let place = ((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
        sorted.get(place).map_or(f64::NAN, |span| span.as_secs_f64() * 1000.0)
    }

    pub fn median(&self) -> f64 {
        self.percentile(0.5)
    }

    pub fn p99(&self) -> f64 {
        self.percentile(0.99)
    }

    /// `median / p99 / slowest`.
    pub fn shown(&self) -> String {
        format!("{:.1} / {:.1} / {:.1} ms", self.median(), self.p99(), self.percentile(1.0))
    }
}

/// What has been measured so far. Bars count in full runs only: a tiny run shows that the measuring works.
pub struct Table {
    full: bool,
    missed: usize,
}

impl Table {
    pub fn new(full: bool) -> Self {
        Self { full, missed: 0 }
    }

    pub fn head(&self, title: &str) {
        println!("\n{title}");
    }

    /// A figure without a bar.
    pub fn row(&self, what: &str, value: impl std::fmt::Display) {
        println!("| {what:<64} | {value} |");
    }

    /// A figure that must not exceed `most`.
    pub fn at_most(&mut self, what: &str, value: f64, most: f64, unit: &str) {
        let met = value <= most;
        self.verdict(what, &format!("{value:.2}{unit}, bar {most}{unit}"), met);
    }

    fn verdict(&mut self, what: &str, value: &str, met: bool) {
        let word = match (met, self.full) {
            (true, _) => "met",
            (false, true) => "NOT MET",
            (false, false) => "not met (tiny run)",
        };
        if !met && self.full {
            self.missed += 1;
        }
        self.row(what, format!("{value}: {word}"));
    }

    pub fn missed(&self) -> usize {
        self.missed
    }
}
