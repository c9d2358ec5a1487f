//! What a reader of an expired token waits beyond the provider's own time: alone, with others on one node, and with others on
//! two nodes, where one leads and all others follow.

use std::time::Duration;

use valetkey::clock::{Clock, SystemClock};

use crate::figures::{Spans, Table};
use crate::stage::{Kind, Stage, timed};

const LATENCY: u64 = 200;

pub async fn run(full: bool, table: &mut Table) {
    let rounds = if full { 60 } else { 2 };
    table.head(&format!("beyond the provider's {LATENCY} ms, {rounds} rounds: median / p99 / slowest"));
    for (kind, nodes) in [(Kind::Sqlite, 1), (Kind::Postgres, 1), (Kind::Postgres, 2)] {
        let Some(stage) = Stage::open(kind, (LATENCY, LATENCY), (10_000, 1000, 4_000), nodes).await else { continue };
        let ids = stage.move_in(0, 1, Duration::from_secs(12 * 3600)).await;
        for readers in [1, 20] {
            if readers < nodes {
                continue;
            }
            let mut spans = Spans::default();
            for round in 0..=rounds {
                let before = stage.endpoint.count();
                let now = SystemClock.now().0;
                let end = format!("UPDATE credentials SET expires_at = {now} - 1, obtained_at = {now} - 3600000");
                stage.database.execute(&end).await;
                let asked = (0..readers).map(|reader| timed(stage.question((reader + round) % nodes, &ids[0])));
                let took = futures_util::future::join_all(asked).await;
                assert_eq!(stage.endpoint.count(), before + 1, "one call for all");
                // The first round opens connections and fetches keys.
                for span in took.into_iter().filter(|_| round > 0) {
                    spans.add(span.saturating_sub(Duration::from_millis(LATENCY)));
                }
            }
            table.row(&format!("{}, {nodes} nodes, {readers} readers", kind.name()), spans.shown());
        }
        stage.close().await;
    }
}
