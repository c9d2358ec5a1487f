//! The timeline: what happens, when, where, in plain words and at most a hundred columns. And the log, kept in memory
//! so that it can be searched.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::clock::Stopwatch;

const COLUMNS: usize = 100;
/// Columns before the text of a step.
const MARGIN: usize = 11;

/// Somewhere to write logs to, and to read them again. Clones share the sheet.
#[derive(Clone, Debug, Default)]
pub(super) struct Paper(Arc<Mutex<Vec<u8>>>);

impl Paper {
    /// Everything written so far.
    pub(super) fn read(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes out every line that contains `word`; gives them.
    pub(super) fn cut(&self, word: &str) -> Vec<u8> {
        let mut sheet = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let contains = |line: &&[u8]| line.windows(word.len()).any(|window| window == word.as_bytes());
        let (cut, kept): (Vec<&[u8]>, Vec<&[u8]>) = sheet.split_inclusive(|byte| *byte == b'\n').partition(contains);
        let (cut, kept) = (cut.concat(), kept.concat());
        *sheet = kept;
        cut
    }
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Tells the story and remembers it.
#[derive(Debug)]
pub(super) struct Timeline {
    since: Stopwatch,
    on_stderr: bool,
    coloured: bool,
    steps: Vec<Value>,
}

impl Timeline {
    /// With JSON on stdout the story goes to stderr.
    pub(super) fn new(json: bool) -> Self {
        let terminal = if json { std::io::stderr().is_terminal() } else { std::io::stdout().is_terminal() };
        Self { since: Stopwatch::start(), on_stderr: json, coloured: terminal, steps: Vec::new() }
    }

    /// A heading.
    pub(super) fn heading(&self, text: &str) {
        let rule = "─".repeat(COLUMNS.saturating_sub(text.chars().count() + 4));
        self.write(&format!("\n── {} {rule}", self.painted("1", text)));
    }

    /// One step and how it went; gives whether it went well.
    pub(super) fn step(&mut self, name: &'static str, title: &str, outcome: &Result<String, String>) -> bool {
        let seconds = self.since.elapsed().as_secs_f64();
        let (ok, detail) = match outcome {
            Ok(detail) => (true, detail),
            Err(why) => (false, why),
        };
        let mark = if ok { self.painted("32", "ok") } else { self.painted("31;1", "FAILED") };
        let gap = " ".repeat(COLUMNS.saturating_sub(MARGIN + title.chars().count() + if ok { 2 } else { 6 }).max(1));
        self.write(&format!("{seconds:>7.2} s  {}{gap}{mark}", self.painted("1", title)));
        self.text(detail);
        self.steps.push(json!({"name": name, "ok": ok, "detail": detail}));
        ok
    }

    /// Text in the column of the steps, wrapped.
    pub(super) fn text(&self, text: &str) {
        for line in text.lines().flat_map(|line| wrapped(line, COLUMNS - MARGIN)) {
            self.write(&format!("{:MARGIN$}{line}", ""));
        }
    }

    /// Two columns.
    pub(super) fn pair(&self, name: &str, value: &str) {
        self.write(&format!("{:MARGIN$}{name:<36} {value}", ""));
    }

    /// Every step so far: `{name, ok, detail}`.
    pub(super) fn steps(&self) -> &[Value] {
        &self.steps
    }

    fn painted(&self, code: &str, text: &str) -> String {
        if self.coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn write(&self, line: &str) {
        // A reader that has gone away ends the story, not the work.
        let _ = if self.on_stderr {
            writeln!(std::io::stderr().lock(), "{line}")
        } else {
            writeln!(std::io::stdout().lock(), "{line}")
        };
    }
}

/// Words of `text` in lines of at most `width` characters; longer words are broken.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut rest: Vec<char> = word.chars().collect();
        while !rest.is_empty() {
            let piece: String = rest.drain(..rest.len().min(width)).collect();
            let current = lines.last().map_or(0, |line| line.chars().count());
            let fits = current + 1 + piece.chars().count() <= width;
            match lines.last_mut() {
                Some(line) if current == 0 => line.push_str(&piece),
                Some(line) if fits => line.push_str(&format!(" {piece}")),
                _ => lines.push(piece),
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_at_words_and_long_words_are_broken() {
        assert_eq!(wrapped("one two three", 8), ["one two", "three"]);
        assert_eq!(wrapped("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
        assert_eq!(wrapped("", 4), [""]);
    }

    #[test]
    fn lines_can_be_cut_out_of_the_paper() {
        let mut paper = Paper::default();
        paper.write_all(b"one\ntwo probe\nthree\n").expect("written");
        assert_eq!(paper.cut("probe"), b"two probe\n");
        assert_eq!(paper.read(), b"one\nthree\n");
    }
}
