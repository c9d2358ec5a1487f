//! A database of its own for every test, and its bytes for the search.

use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row, SqliteConnection};
use tempfile::TempDir;

use super::Known;

/// Where everything is stored.
pub enum Database {
    /// A file in a folder that goes with the test.
    Sqlite(TempDir),
    /// A database on the server of `VK_TEST_POSTGRES`.
    Postgres { server: String, name: String },
}

/// Somebody else who writes to the database.
pub struct Somebody(PgConnection);

impl Somebody {
    pub async fn execute(&mut self, sql: &str) {
        sqlx::query(AssertSqlSafe(sql)).execute(&mut self.0).await.expect("done");
    }

    pub async fn commit(mut self) {
        self.execute("COMMIT").await;
        self.0.close().await.expect("closed");
    }
}

impl Database {
    pub fn sqlite() -> Self {
        Self::Sqlite(TempDir::new().expect("a folder"))
    }

    /// None, said loudly, where no server was given.
    pub async fn postgres() -> Option<Self> {
        #[expect(clippy::disallowed_methods, reason = "scripts/test tells the tests where PostgreSQL is")]
        let server = std::env::var("VK_TEST_POSTGRES").ok().filter(|url| !url.is_empty());
        let Some(server) = server else {
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            // Past the test runner, which would hide it.
            let _ = writeln!(std::io::stderr(), "SKIPPED {test}: VK_TEST_POSTGRES is not set; scripts/test sets it");
            return None;
        };
        let name = new_name();
        execute(&server, &format!("CREATE DATABASE {name} TEMPLATE template0")).await;
        Some(Self::Postgres { server, name })
    }

    /// Another one with the same content; nobody may be using this one.
    pub async fn copy(&self) -> Self {
        match self {
            Self::Sqlite(folder) => {
                let copy = TempDir::new().expect("a folder");
                std::fs::copy(folder.path().join("vault.db"), copy.path().join("vault.db")).expect("copied");
                Self::Sqlite(copy)
            }
            Self::Postgres { server, name } => {
                let copy = new_name();
                execute(server, &format!("CREATE DATABASE {copy} TEMPLATE {name}")).await;
                Self::Postgres { server: server.clone(), name: copy }
            }
        }
    }

    pub fn url(&self) -> String {
        match self {
            Self::Sqlite(folder) => format!("sqlite:{}", folder.path().join("vault.db").display()),
            Self::Postgres { server, name } => {
                let mut url: url::Url = server.parse().expect("a URL");
                url.set_path(name);
                url.into()
            }
        }
    }

    /// The rows of a query whose columns are texts or numbers.
    pub async fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        fn text<'r, R: Row>(row: &'r R, column: usize) -> String
        where
            usize: sqlx::ColumnIndex<R>,
            Option<String>: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
            Option<i64>: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
        {
            let words = row.try_get::<Option<String>, _>(column).ok().flatten();
            words.or_else(|| row.try_get::<Option<i64>, _>(column).ok()?.map(|n| n.to_string())).unwrap_or_default()
        }
        match self {
            Self::Sqlite(_) => {
                let mut connection = self.sqlite_connection().await;
                let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await.expect("rows");
                rows.iter().map(|row| (0..row.len()).map(|column| text(row, column)).collect()).collect()
            }
            Self::Postgres { .. } => {
                let mut connection = connect(&self.url()).await;
                let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await.expect("rows");
                rows.iter().map(|row| (0..row.len()).map(|column| text(row, column)).collect()).collect()
            }
        }
    }

    /// Changes the database behind the house's back.
    pub async fn execute(&self, sql: &str) {
        match self {
            Self::Sqlite(_) => {
                let mut connection = self.sqlite_connection().await;
                sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.expect("done");
            }
            Self::Postgres { .. } => execute(&self.url(), sql).await,
        }
    }

    /// A transaction of somebody else's, on PostgreSQL: SQLite has one writer.
    pub async fn begin(&self) -> Somebody {
        let mut somebody = Somebody(connect(&self.url()).await);
        somebody.execute("BEGIN").await;
        somebody
    }

    /// The database takes no new tokens from now on, as if its disk were full, and does everything else.
    pub async fn refuse_tokens(&self) {
        match self {
            Self::Sqlite(_) => {
                self.execute(
                    "CREATE TRIGGER full BEFORE UPDATE OF access_token ON credentials WHEN NEW.access_token IS NOT NULL
                     BEGIN SELECT RAISE(FAIL, 'the disk is full'); END",
                )
                .await;
            }
            Self::Postgres { .. } => {
                self.execute(
                    "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
                     $$ BEGIN RAISE EXCEPTION 'the disk is full' USING ERRCODE = 'disk_full'; END $$",
                )
                .await;
                self.execute(
                    "CREATE TRIGGER full_disk BEFORE UPDATE OF access_token ON credentials
                     FOR EACH ROW WHEN (NEW.access_token IS NOT NULL) EXECUTE FUNCTION full_disk()",
                )
                .await;
            }
        }
    }

    /// The end of [`Self::refuse_tokens`].
    pub async fn take_tokens(&self) {
        match self {
            Self::Sqlite(_) => self.execute("DROP TRIGGER full").await,
            Self::Postgres { .. } => self.execute("DROP TRIGGER full_disk ON credentials").await,
        }
    }

    async fn sqlite_connection(&self) -> SqliteConnection {
        let options: sqlx::sqlite::SqliteConnectOptions = self.url().parse().expect("a URL");
        let options = options.busy_timeout(std::time::Duration::from_secs(10)).disable_statement_logging();
        SqliteConnection::connect_with(&options).await.expect("opens")
    }

    /// Hands every byte to the search: files of SQLite with the log, rows of PostgreSQL as text.
    pub async fn record(&self, known: &mut Known, when: &str) {
        match self {
            Self::Sqlite(folder) => {
                known.record_folder(folder.path(), "database", when, |_| &[]);
            }
            Self::Postgres { .. } => {
                let mut connection = connect(&self.url()).await;
                let sql = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY 1";
                let tables: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut connection).await.expect("tables");
                for table in tables {
                    let sql = format!("SELECT t::text FROM {table} t");
                    let rows: Vec<String> =
                        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut connection).await.expect("rows");
                    known.record(&format!("database table {table} {when}"), &[], rows.join("\n").into_bytes());
                }
                connection.close().await.expect("closed");
            }
        }
    }

    pub async fn drop_database(&self) {
        if let Self::Postgres { server, name } = self {
            let drop_it = format!("DROP DATABASE {name} WITH (FORCE)");
            // The server's own cleaner may be in it, whom only a superuser could send away; it goes by itself.
            for _ in 0..500 {
                let mut connection = connect(server).await;
                match sqlx::query(AssertSqlSafe(&*drop_it)).execute(&mut connection).await {
                    Err(error) if error.to_string().contains("role whose process is being terminated") => {}
                    Err(error) => panic!("{drop_it}: {error}"),
                    Ok(_) => return,
                }
            }
            panic!("somebody stays in {name}");
        }
    }
}

fn new_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("vk_app_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

async fn connect(url: &str) -> PgConnection {
    let options: sqlx::postgres::PgConnectOptions = url.parse().expect("a PostgreSQL URL");
    options.disable_statement_logging().connect().await.expect("connects")
}

async fn execute(url: &str, sql: &str) {
    let mut connection = connect(url).await;
    sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    connection.close().await.expect("closed");
}
