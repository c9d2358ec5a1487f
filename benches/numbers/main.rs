//! What the vault can do, in numbers: `cargo bench --profile measured` runs everything in full and fails when a bar is
//! missed (`scripts/evidence scale` adds PostgreSQL); `cargo bench -- NAME…` runs some of it. `cargo test --all-targets`
//! runs the same in a tiny size, to show that the measuring works.
//!
//! Figures are ratios and growth within one run wherever that is possible, since machines differ.

#![expect(clippy::expect_used, reason = "what cannot be measured fails like a test")]
#![expect(clippy::print_stdout, reason = "figures are for whoever runs the benches")]

mod crowd;
mod due_tick;
mod endpoint;
mod figures;
mod memory;
mod refreshes;
mod stage;
mod waiting_reader;

use std::process::ExitCode;

use figures::Table;

const NAMES: [&str; 5] = ["due_tick", "refreshes", "waiting_reader", "memory", "crowd"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // Cargo says `--bench` to benches and nothing to tests.
    let full = arguments.iter().any(|argument| argument == "--bench");
    let words: Vec<&str> = arguments.iter().map(String::as_str).filter(|word| !word.starts_with('-')).collect();
    // A run that measured nothing has met no bar.
    if let Some(word) = words.iter().find(|word| !NAMES.contains(word)) {
        println!("no bench is called {word}; there are: {}", NAMES.join(", "));
        return ExitCode::FAILURE;
    }
    let wanted = |name: &str| words.is_empty() || words.contains(&name);
    // A smaller crowd takes minutes less and shows the same but for how long it goes on.
    let crowd = arguments.iter().find_map(|argument| argument.strip_prefix("--crowd=")?.parse().ok());
    let mut table = Table::new(full);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    for name in NAMES.into_iter().filter(|name| wanted(name)) {
        runtime.block_on(run(name, full, crowd, &mut table));
    }
    println!("\nbars missed: {}", table.missed());
    if table.missed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run(name: &str, full: bool, crowd: Option<usize>, table: &mut Table) {
    match name {
        "due_tick" => due_tick::run(full, table).await,
        "refreshes" => refreshes::run(full, table).await,
        "waiting_reader" => waiting_reader::run(full, table).await,
        "memory" => memory::run(full, table).await,
        "crowd" => crowd::run(full, crowd, table).await,
        _ => unreachable!("names are listed above"),
    }
}
