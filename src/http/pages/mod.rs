//! The pages for people.

pub mod views;
