//! The house from outside: one binary, one file per story.

mod program;
mod starts;
