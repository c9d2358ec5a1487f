//! 50,000 tokens that fall due within one minute, of one OAuth client that may be asked 200 times a second: the provider's
//! limit is kept, the backlog is gone in the time that the limit asks for, and whoever reads a fresh token meanwhile does
//! not notice. The quiet phase is as long as the busy one, half of it before and half after, so that a machine whose pace drifts
//! counts in both; in the same run, on the same rows.

use std::time::Duration;

use valetkey::clock::{Clock, Stopwatch, SystemClock, pause};

use crate::endpoint::busiest_second;
use crate::figures::{Spans, Table};
use crate::stage::{Kind, Stage, timed};

struct Size {
    crowd: usize,
    rate: u32,
    fresh: usize,
    /// Due times are spread over so long.
    spread: Duration,
    reads_per_second: u32,
    nodes: usize,
}

pub async fn run(full: bool, wanted: Option<usize>, table: &mut Table) {
    let size = if full {
        let crowd = wanted.unwrap_or(50_000);
        Size {
            crowd,
            rate: 200,
            fresh: 500,
            // A minute for 50,000; a smaller crowd is as dense.
            spread: Duration::from_micros(1200) * u32::try_from(crowd).expect("a crowd"),
            reads_per_second: 60,
            nodes: 2,
        }
    } else {
        Size { crowd: 20, rate: 20, fresh: 5, spread: Duration::from_millis(100), reads_per_second: 20, nodes: 1 }
    };
    let pace = (size.rate, 2 * size.rate, 8 * size.rate);
    let Some(stage) = Stage::open(Kind::Postgres, (100, 200), pace, size.nodes).await else { return };
    let (crowd, rate) = (size.crowd, size.rate);
    table.head(&format!("{crowd} due within {:?}, {rate} a second, {} nodes on PostgreSQL", size.spread, size.nodes));
    let watch = Stopwatch::start();
    let fresh = stage.move_in(0, size.fresh, Duration::from_secs(24 * 3600)).await;
    stage.move_in(size.fresh, crowd, Duration::from_secs(12 * 3600)).await;
    stage.database.settle().await;
    table.row("moving in", format!("{:.0} s", watch.elapsed().as_secs_f64()));

    let expected = Duration::from_secs_f64(crowd as f64 / f64::from(rate));
    // One second of reading that is not counted: connections are made, keys are fetched.
    read_steadily(&stage, &fresh, &size, Duration::from_secs(1), || false).await;
    let taken = Taken::since_boot();
    let mut quiet = read_steadily(&stage, &fresh, &size, expected / 2, || false).await;
    let mut taken_quiet = taken.until_now();
    assert_eq!(stage.endpoint.count(), 0, "nothing is due yet");

    let now = SystemClock.now().0 + 500;
    let spread = i64::try_from(size.spread.as_millis()).expect("short");
    let end = now + 600_000;
    stage
        .database
        .execute(&format!(
            "UPDATE credentials SET due_at = {now} + (ctid::text::point)[0]::bigint * 7919 % {spread}, expires_at = {end}, obtained_at = {now} - 3000000
             WHERE id NOT IN (SELECT credential_id FROM connection_credentials WHERE connection_id IN ({}))",
            fresh.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(",")
        ))
        .await;
    let (watch, taken) = (Stopwatch::start(), Taken::since_boot());
    let busy = read_steadily(&stage, &fresh, &size, expected * 4, || stage.endpoint.count() >= crowd).await;
    stage.database.until_refreshed(end, expected).await;
    let took = watch.elapsed();
    let taken_busy = taken.until_now();
    pause(Duration::from_secs(2)).await;
    let taken = Taken::since_boot();
    quiet.add_all(read_steadily(&stage, &fresh, &size, expected / 2, || false).await);
    taken_quiet += taken.until_now();
    let calls = stage.endpoint.calls();
    let span = (*calls.last().expect("calls") - calls[0]).as_secs_f64();
    table.at_most("calls", calls.len() as f64, crowd as f64, "");
    table.row("calls a second on the average", format!("{:.1}", calls.len() as f64 / span));
    table.at_most(
        "calls in the busiest second, wherever it begins",
        busiest_second(&calls) as f64,
        f64::from(rate),
        "",
    );
    table.at_most(
        "seconds until the backlog is gone, of backlog / cap",
        took.as_secs_f64() / expected.as_secs_f64(),
        1.1,
        "×",
    );
    table.row("seconds", format!("{:.1}", took.as_secs_f64()));
    for (when, spans) in [("quiet", &quiet), ("busy", &busy)] {
        let what = format!("reads of fresh tokens, {when}: number, median / p99 / slowest");
        table.row(&what, format!("{}, {}", spans.count(), spans.shown()));
    }
    table.row("median, busy to quiet", format!("{:.2}×", busy.median() / quiet.median()));
    table.at_most("p99, busy to quiet", busy.p99() / quiet.p99(), 1.5, "×");
    table
        .row("processor seconds that other machines took, quiet / busy", format!("{taken_quiet:.1} / {taken_busy:.1}"));
    table.row("resident memory of a node", format!("{:.0} MiB", stage.memory(0)));
    stage.close().await;
}

/// Time of the processors that a host gives to other virtual machines (`steal` of `proc_stat(5)`): while that grows, spans are not ours.
struct Taken(f64);

impl Taken {
    fn since_boot() -> Self {
        let all = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let ticks = all.lines().next().and_then(|line| line.split_ascii_whitespace().nth(8)?.parse::<f64>().ok());
        Self(ticks.unwrap_or_default() / 100.0)
    }

    /// In seconds.
    fn until_now(&self) -> f64 {
        Self::since_boot().0 - self.0
    }
}

/// Reads at a steady rate, whether or not earlier reads are back, until `span` is over or `done`.
async fn read_steadily(stage: &Stage, fresh: &[String], size: &Size, span: Duration, done: impl Fn() -> bool) -> Spans {
    let watch = Stopwatch::start();
    let mut asked = tokio::task::JoinSet::new();
    let mut spans = Spans::default();
    let mut number = 0u32;
    while watch.elapsed() < span && !done() {
        let place = number as usize;
        asked.spawn(timed(stage.question(place % size.nodes, &fresh[place % fresh.len()])));
        number += 1;
        while let Some(one) = asked.try_join_next() {
            spans.add(one.expect("read"));
        }
        let next = Duration::from_secs(1) * number / size.reads_per_second;
        pause(next.saturating_sub(watch.elapsed())).await;
    }
    while let Some(one) = asked.join_next().await {
        spans.add(one.expect("read"));
    }
    spans
}
