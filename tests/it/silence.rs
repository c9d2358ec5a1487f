//! A line to the database that swallows everything and says nothing: no end hears that the other is gone.

use std::time::Duration;

use serde_json::json;
use valetkey::clock::{Stopwatch, deadline, pause};

use crate::cutter::Cutter;
use crate::harness::{Account, Database, http_client};
use crate::town::Town;

/// Many connections of the pool are in use, or on their way back, when their line falls silent.
const READERS: usize = 24;
/// Longer than any caller waits.
const LONGEST: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn rl_27_readers_outlive_a_line_that_fell_silent_under_load() {
    let Some(database) = Database::postgres().await else { return };
    let wire = Cutter::to(&database.url()).await;
    let mut town = Town::open(database, &[("VALETKEY_DATABASE_URL", wire.url.clone())]).await;
    town.start_node();
    town.street.integrate(&town.platform(0)).await;
    let id = town.slack("u-1", Account::ADA, 36_000).await;
    let (url, key) = town.door(0, &id);
    let http = http_client();
    let ask = async || {
        let watch = Stopwatch::start();
        let asked = http.post(&url).header("authorization", &key).json(&json!({})).send();
        let status = deadline(LONGEST, asked).await.expect("every reader is answered").expect("answers").status();
        assert!([200, 503].contains(&status.as_u16()), "{status}");
        (status.as_u16(), watch.elapsed())
    };
    let slowest = async |span: Duration| {
        let watch = Stopwatch::start();
        let mut slowest = Duration::ZERO;
        while watch.elapsed() < span {
            slowest = slowest.max(ask().await.1);
        }
        slowest
    };
    for _ in 0..2 {
        let load = futures_util::future::join_all((0..READERS).map(|_| slowest(Duration::from_secs(8))));
        let silence = async {
            pause(Duration::from_secs(2)).await;
            wire.fall_silent();
            pause(Duration::from_secs(5)).await;
            wire.mend();
        };
        futures_util::join!(load, silence);
        town.until("tokens are read again", async || ask().await.0 == 200).await;
        let together = futures_util::future::join_all((0..40).map(|_| ask())).await;
        assert!(together.iter().all(|(status, _)| *status == 200), "the whole pool is there again: {together:?}");
    }
    town.close().await;
}
