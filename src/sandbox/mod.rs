//! The shed in the garden: pretend services for `valetkey demo` and the tests.

pub mod elevenlabs;
