//! Resident memory of one node: for the credentials that it knows, and for readers who wait.

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use valetkey::clock::{Clock, SystemClock, pause};

use crate::figures::Table;
use crate::stage::{Kind, Stage, timed};

pub async fn run(full: bool, table: &mut Table) {
    let (known, waiting) = if full { (10_000, 1_000) } else { (20, 5) };
    let Some(stage) = Stage::open(Kind::Sqlite, (2_000, 2_000), (200, 200, 800), 1).await else { return };
    table.head("resident memory of one node on SQLite");
    let first = stage.move_in(0, known.min(500), Duration::from_secs(12 * 3600)).await;
    read_all(&stage, &first).await;
    let before = stage.memory(0);
    table.row(&format!("with {} credentials, each read once", first.len()), format!("{before:.1} MiB"));
    let more = stage.move_in(first.len(), known, Duration::from_secs(12 * 3600)).await;
    read_all(&stage, &more).await;
    let after = stage.memory(0);
    let each = (after - before) / known as f64;
    table.row(&format!("with {known} more, each read once"), format!("{after:.1} MiB"));
    table.row("for 100,000 at this rate", format!("{:.1} MiB", each * 100_000.0));

    let now = SystemClock.now().0;
    stage
        .database
        .execute(&format!("UPDATE credentials SET expires_at = {now} - 1, obtained_at = {now} - 3600000"))
        .await;
    let readers = (0..waiting).map(|_| timed(stage.question(0, &first[0])));
    let readers = tokio::spawn(futures_util::future::join_all(readers.collect::<Vec<_>>()));
    let mut peak = after;
    while !readers.is_finished() {
        peak = peak.max(stage.memory(0));
        pause(Duration::from_millis(50)).await;
    }
    readers.await.expect("all have their token");
    table.row(&format!("for {waiting} readers who wait for one refresh, at most"), format!("{:.1} MiB", peak - after));
    stage.close().await;
}

/// As a platform does that uses all of them.
async fn read_all(stage: &Stage, ids: &[String]) {
    stream::iter(ids).map(|id| timed(stage.question(0, id))).buffer_unordered(8).for_each(|_| async {}).await;
}
