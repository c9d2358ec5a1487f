//! The provider has said yes, and the commit fails in every way in which commits fail: the new tokens survive, nobody gets
//! one before it is durable, and the provider is asked once (RL-04, RL-05, RL-29).
//!
//! Real processes. Without a spool the tokens are held in memory and stored when the database is well again. With one the
//! process is killed meanwhile, and the next one brings them home.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use valetkey::clock::pause;

use crate::cutter::{Cut, Cutter};
use crate::harness::{Account, Database, http_client};
use crate::town::Town;

/// How a commit fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// SQLite: no file may grow, the log's included.
    NoRoom,
    /// SQLite: somebody else writes and does not end.
    Locked,
    /// PostgreSQL: COMMIT is refused with `disk_full`.
    DiskFull,
    /// PostgreSQL: a server that may only be read has taken the place of the old one.
    ReadOnly,
    /// PostgreSQL: the connection ends before the server sees the COMMIT, and no other can be made.
    CutBefore,
    /// The same after the server has committed.
    CutAfter,
    /// PostgreSQL: from the COMMIT on the line swallows everything, and nobody is told.
    Silence,
}

/// A database that can be hurt, and its cure.
struct Patient {
    manner: Manner,
    wire: Option<Cutter>,
    lock: Option<SqliteConnection>,
}

impl Patient {
    /// Fails commits from now on; the claim has been written.
    async fn hurt(&mut self, town: &Town) {
        match self.manner {
            // The log of the process and the database's are longer than this, an answer in the spool is not.
            Manner::NoRoom => town.nodes[0].limit_files(Some(16 * 1024)),
            Manner::Locked => {
                let options: sqlx::sqlite::SqliteConnectOptions = town.database.url().parse().expect("a URL");
                let mut connection = options.disable_statement_logging().connect().await.expect("opens");
                sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await.expect("the lock");
                self.lock = Some(connection);
            }
            Manner::DiskFull => {
                let function = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
                     $$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full'; END $$";
                let trigger = "CREATE CONSTRAINT TRIGGER full_disk AFTER UPDATE OF access_token ON credentials
                     DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION full_disk()";
                town.database.execute(function).await;
                town.database.execute(trigger).await;
            }
            Manner::ReadOnly => read_only(&town.database, true).await,
            Manner::CutBefore => self.wire.as_ref().expect("a wire").cut_next(Cut::Before),
            Manner::CutAfter => self.wire.as_ref().expect("a wire").cut_next(Cut::After),
            Manner::Silence => self.wire.as_ref().expect("a wire").cut_next(Cut::Silently),
        }
    }

    async fn cure(&mut self, town: &Town) {
        match self.manner {
            Manner::NoRoom => {
                if let Some(node) = town.nodes.first() {
                    node.limit_files(None);
                }
            }
            Manner::Locked => self.lock.take().expect("a lock").close().await.expect("closed"),
            Manner::DiskFull => town.database.execute("DROP TRIGGER full_disk ON credentials").await,
            Manner::ReadOnly => read_only(&town.database, false).await,
            Manner::CutBefore | Manner::CutAfter | Manner::Silence => self.wire.as_ref().expect("a wire").mend(),
        }
    }
}

/// As a failover does: every session ends, and new ones find a server of the other kind.
async fn read_only(database: &Database, yes: bool) {
    let Database::Postgres { server, name } = database else { panic!("PostgreSQL only") };
    let set = if yes { "SET default_transaction_read_only = on" } else { "RESET default_transaction_read_only" };
    let mut connection = sqlx::PgConnection::connect(server).await.expect("connects");
    for text in [
        format!("ALTER DATABASE {name} {set}"),
        format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(text)).execute(&mut connection).await.expect("done");
    }
}

async fn story(database: Database, manner: Manner, with_spool: bool) {
    let mut settings = Vec::new();
    let mut patient = Patient { manner, wire: None, lock: None };
    if matches!(manner, Manner::CutBefore | Manner::CutAfter | Manner::Silence) {
        let wire = Cutter::to(&database.url()).await;
        settings.push(("VALETKEY_DATABASE_URL", wire.url.clone()));
        patient.wire = Some(wire);
    }
    let mut town = Town::open(database, &settings).await;
    let spool = town.bench.path("spool");
    if with_spool {
        town.bench = std::mem::replace(&mut town.bench, crate::program::Bench::without_key())
            .with("VALETKEY_SPOOL_DIR", &spool.display().to_string());
    }
    town.start_node();
    town.street.integrate(&town.platform(0)).await;
    let id = town.slack("u-1", Account::ADA, 300).await;
    let before = town.row(&id, "generation, consents, status").await;
    town.street.fault("slack", "refresh", "delay_ms:1500", 1).await;
    let (url, key) = town.door(0, &id);
    // It may wait for long, or be cut off with its process: it is heard at the end.
    let asked = tokio::spawn(async move {
        // Whoever insists on a new token waits for it, although the old one lives.
        let request = http_client().post(url.replace("/token", "/refresh")).header("authorization", key);
        let answer = request.send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    });
    let sent = "slack/token_requests/refresh_token";
    town.until("the refresh is under way", async || town.street.counter(sent).await == 1).await;
    patient.hurt(&town).await;
    town.until("the node says that it holds a token", async || {
        let (ready, why) = town.nodes[0].ready();
        !ready && why.contains("held_tokens")
    })
    .await;
    assert!((town.nodes[0].metric("valetkey_held_tokens") - 1.0).abs() < f64::EPSILON, "{manner:?}: the gauge");
    // Where it took long to find out, the ten seconds of patience may be over.
    assert!(!asked.is_finished() || manner == Manner::Silence, "{manner:?}: nobody gets what is not durable (RL-04)");
    if manner != Manner::CutAfter {
        assert_eq!(town.row(&id, "generation, consents, status").await, before, "{manner:?}: nothing is stored");
    }

    if with_spool {
        town.until("the answer is in the spool, too", async || pages(&spool).len() == 1).await;
        let sealed = std::fs::read_to_string(&pages(&spool)[0]).expect("read");
        assert!(!sealed.contains("xoxe"), "{manner:?}: sealed");
        assert_eq!(town.nodes.remove(0).stop("KILL"), None, "{manner:?}: killed");
        patient.cure(&town).await;
        town.start_node();
    } else {
        // Held for longer than one attempt.
        pause(Duration::from_secs(2)).await;
        assert!(!town.nodes[0].ready().0, "{manner:?}: held still");
        patient.cure(&town).await;
    }
    comes_home(&town, manner, &id, &spool).await;
    if let Some((status, text)) = asked.await.expect("asked") {
        assert!(!with_spool || manner == Manner::Silence, "{manner:?}: its process was killed");
        // By now it is durable; or the ten seconds of patience were over before.
        assert!([200, 500, 503].contains(&status), "{manner:?}: {status} {text}");
        assert!(status == 503 || manner != Manner::Silence, "{manner:?}: its patience was over before");
    }
    town.close().await;
}

async fn comes_home(town: &Town, manner: Manner, id: &str, spool: &PathBuf) {
    town.until("the tokens are stored", async || town.row(id, "generation").await == ["2"]).await;
    town.until("the node is ready", async || town.nodes[0].ready().0).await;
    assert!(town.nodes[0].metric("valetkey_held_tokens").abs() < f64::EPSILON, "{manner:?}: the gauge");
    assert!(pages(spool).is_empty(), "{manner:?}: the spool is empty");
    assert_eq!(town.street.counter("slack/refreshes").await, 1, "{manner:?}: no second send");
    let row = town.row(id, "generation, consents, status, stored_fence - fence, phase").await;
    assert_eq!(row, ["2", "1", "active", "0", "idle"], "{manner:?}: moved by exactly one");
    // A session that the server has ended in the last second is met by whoever comes first: 503, come again.
    town.until("every session is a new one", async || {
        let reads = (0..8).map(|_| town.read(0, id, 1800));
        futures_util::future::join_all(reads).await.iter().all(|got| got.status == 200)
    })
    .await;
    let lent = town.read(0, id, 1800).await.ok();
    assert_eq!((&lent["generation"], &lent["degraded"]), (&json!(2), &json!(false)), "{manner:?}");
    // What is stored is the provider's last word.
    let path = format!("/v1/connections/{id}/refresh");
    town.platform(0).request(reqwest::Method::POST, &path, None).await.ok();
    let counters = (town.street.counter("slack/refreshes").await, town.street.counter("slack/reuses").await);
    assert_eq!(counters, (2, 0), "{manner:?}");
}

/// The answers in the spool.
fn pages(spool: &PathBuf) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(spool).into_iter().flatten();
    let files = entries.map(|entry| entry.expect("an entry").path());
    files.filter(|file| file.extension().is_some_and(|ending| ending == "json")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_no_token_sqlite() {
    on_sqlite(Manner::NoRoom, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_no_token_with_a_spool_sqlite() {
    on_sqlite(Manner::NoRoom, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_database_loses_no_token_sqlite() {
    on_sqlite(Manner::Locked, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_database_loses_no_token_with_a_spool_sqlite() {
    on_sqlite(Manner::Locked, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_at_the_commit_loses_no_token_postgres() {
    on_postgres(Manner::DiskFull, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_at_the_commit_loses_no_token_with_a_spool_postgres() {
    on_postgres(Manner::DiskFull, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_to_a_read_only_server_loses_no_token_postgres() {
    on_postgres(Manner::ReadOnly, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_to_a_read_only_server_loses_no_token_with_a_spool_postgres() {
    on_postgres(Manner::ReadOnly, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_before_the_commit_loses_no_token_postgres() {
    on_postgres(Manner::CutBefore, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_before_the_commit_loses_no_token_with_a_spool_postgres() {
    on_postgres(Manner::CutBefore, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_was_cut_off_is_recognised_postgres() {
    on_postgres(Manner::CutAfter, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_was_cut_off_is_recognised_by_the_spool_postgres() {
    on_postgres(Manner::CutAfter, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_swallows_the_commit_loses_no_token_postgres() {
    on_postgres(Manner::Silence, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_swallows_the_commit_loses_no_token_with_a_spool_postgres() {
    on_postgres(Manner::Silence, true).await;
}

async fn on_sqlite(manner: Manner, with_spool: bool) {
    story(Database::sqlite(), manner, with_spool).await;
}

async fn on_postgres(manner: Manner, with_spool: bool) {
    if let Some(database) = Database::postgres().await {
        story(database, manner, with_spool).await;
    }
}
