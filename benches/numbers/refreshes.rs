//! Refreshes a second that one node sustains when the provider answers at once and may be asked without end, beside a bare
//! loop that asks the same provider for the same number of tokens and keeps none of them.

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use valetkey::clock::{Clock, Stopwatch, SystemClock};

use crate::figures::Table;
use crate::stage::{Kind, Stage, until};

pub async fn run(full: bool, table: &mut Table) {
    let count = if full { 5_000 } else { 20 };
    table.head(&format!("{count} refreshes on one node"));
    for kind in Kind::BOTH {
        let Some(stage) = Stage::open(kind, (0, 0), (5_000, 2_000, 8_000), 1).await else { continue };
        stage.move_in(0, count, Duration::from_secs(12 * 3600)).await;
        stage.database.settle().await;
        let now = SystemClock.now().0;
        let end = now + 600_000;
        let due = format!("UPDATE credentials SET due_at = {now}, expires_at = {end}, obtained_at = {now} - 3000000");
        stage.database.execute(&due).await;
        // Looking at the rows would cost what is measured.
        until("every token is asked for", Duration::from_secs(600), || stage.endpoint.count() >= count).await;
        stage.database.until_refreshed(end, Duration::from_secs(600)).await;
        let calls = stage.endpoint.calls();
        assert_eq!(calls.len(), count, "one call for each");
        let sustained = count as f64 / (calls[count - 1] - calls[0]).as_secs_f64();

        let watch = Stopwatch::start();
        let ask = |number: usize| {
            let form = format!("grant_type=refresh_token&refresh_token=bare-{number}&client_id=a&client_secret=b");
            let type_ = "application/x-www-form-urlencoded";
            let request = stage.http.post(stage.endpoint.url()).header("content-type", type_).body(form);
            async move { request.send().await.expect("answers").bytes().await.expect("a body") }
        };
        stream::iter(0..count).map(ask).buffer_unordered(16).for_each(|_| async {}).await;
        let bare = count as f64 / watch.elapsed().as_secs_f64();
        table.row(&format!("{}: a second, sustained", kind.name()), format!("{sustained:.0}"));
        table.row(&format!("{}: a bare loop's, ratio", kind.name()), format!("{bare:.0}, 1 : {:.1}", bare / sustained));
        stage.close().await;
    }
}
