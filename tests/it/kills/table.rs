//! The table: point × kind × database.

use std::collections::BTreeMap;
use std::time::Duration;

use super::play::{Ended, Fault, Outcome, PROMPT};

/// What the table counts of one cell.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    kills: u32,
    survived: u32,
    lost: u32,
    refused: u32,
    in_doubt: u32,
    wedged: u32,
    stale: u32,
    spent: u32,
    unplayed: u32,
    slowest: Duration,
}

impl Cell {
    fn add(&mut self, outcome: &Outcome) {
        self.kills += 1;
        self.slowest = self.slowest.max(outcome.slowest);
        *match &outcome.ended {
            Ok(Ended::Survived) => &mut self.survived,
            Ok(Ended::Lost) => &mut self.lost,
            Ok(Ended::Refused) => &mut self.refused,
            Ok(Ended::InDoubt) => &mut self.in_doubt,
            Err(Fault::Wedged(_)) => &mut self.wedged,
            Err(Fault::Stale(_)) => &mut self.stale,
            Err(Fault::Spent(_)) => &mut self.spent,
            Err(Fault::Unplayed(_)) => &mut self.unplayed,
        } += 1;
    }

    fn columns(&self) -> [String; 10] {
        let counts = [
            self.kills,
            self.survived,
            self.lost,
            self.refused,
            self.in_doubt,
            self.wedged,
            self.stale,
            self.spent,
            self.unplayed,
        ];
        let mut columns = counts.iter().map(u32::to_string).chain([self.slowest.as_millis().to_string()]);
        std::array::from_fn(|_| columns.next().unwrap_or_default())
    }
}

/// The table as text, and what does not meet the bar, one line each.
pub fn judge(outcomes: &[(String, Outcome)]) -> (String, Vec<String>) {
    let mut cells: BTreeMap<(usize, &str, &str), Cell> = BTreeMap::new();
    let mut rows: Vec<&str> = Vec::new();
    let mut all = Cell::default();
    let mut complaints = Vec::new();
    for (row, outcome) in outcomes {
        let place = rows.iter().position(|known| known == row).unwrap_or_else(|| {
            rows.push(row);
            rows.len() - 1
        });
        let database = if outcome.case.postgres { "postgres" } else { "sqlite" };
        cells.entry((place, outcome.case.kind.name(), database)).or_default().add(outcome);
        all.add(outcome);
        let what = format!("{row}, {}, {database}, {:?}", outcome.case.kind.name(), outcome.case.life);
        match &outcome.ended {
            Err(fault) => complaints.push(format!("{what}: {fault}\n{}", outcome.log)),
            Ok(_) if outcome.slowest > if outcome.case.briefly { PROMPT.1 } else { PROMPT.0 } => {
                complaints.push(format!("{what}: a reader waited {} ms", outcome.slowest.as_millis()));
            }
            Ok(_) => {}
        }
    }
    let heads =
        ["kills", "survived", "lost", "refused", "in doubt", "wedged", "stale", "spent", "unplayed", "slowest ms"];
    let mut text = line("where", "provider", "database", heads.map(str::to_owned));
    for ((place, kind, database), cell) in &cells {
        text.push_str(&line(rows[*place], kind, database, cell.columns()));
    }
    text.push_str(&line("all", "", "", all.columns()));
    (text, complaints)
}

fn line(row: &str, kind: &str, database: &str, columns: [String; 10]) -> String {
    let columns = columns.map(|column| format!("{column:>10}")).concat();
    format!("{row:34} {kind:13} {database:9}{columns}\n")
}
