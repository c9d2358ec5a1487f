//! The `valetkey` program: it only finds the command and reports how it ended.

use std::process::ExitCode;

fn main() -> ExitCode {
    valetkey::cli::main()
}
