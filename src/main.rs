//! The `valetkey` program: it only finds the command and reports how it ended.

fn main() {}
