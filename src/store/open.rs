//! Opening and migrating: the part where the two databases differ most.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection as _, PgConnection, PgPool};

use super::lines::Silence;
use super::{Lines, Store, StoreError};
use crate::clock::deadline;
use crate::secret::Secret;

/// How long a request may wait for a connection before it is shed.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(5);
/// A connection that was idle for longer is asked whether it lives before it is used.
const TESTED_AFTER: Duration = Duration::from_secs(1);
/// An answer to that takes no longer, or will not come.
const PING_LIMIT: Duration = Duration::from_secs(2);
/// What was left unanswered may have been waiting for a lock, which takes 10 s at most.
const UNANSWERED_LIMIT: Duration = Duration::from_secs(12);

/// The database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL is neither `sqlite:FILE` nor `postgres://…`.
    #[error("the database URL must be sqlite:FILE or postgres://USER@HOST/NAME")]
    Url,
    /// It cannot be reached or opened.
    #[error("the database cannot be opened; check that it is running and that the URL names it")]
    Connect(#[source] sqlx::Error),
    /// Its schema is newer than this program or was changed by hand.
    #[error(
        "the database schema does not fit this program; run `valetkey migrate` with the newest version that was used here"
    )]
    Schema(#[source] sqlx::migrate::MigrateError),
    /// The role could see through row-level security (API.md section 6, point 16).
    #[error("the PostgreSQL role is a superuser or has BYPASSRLS; create an ordinary role that owns the database")]
    TooPowerful,
    /// Another `serve` uses this SQLite file (RL-30).
    #[error("another `valetkey serve` uses this database file; stop it first, or use PostgreSQL for several nodes")]
    InUse,
}

/// Held by `serve` for as long as it uses an SQLite file.
#[derive(Debug)]
pub struct ProcessLock {
    _file: Option<File>,
}

impl Store {
    /// Opens the database that `url` names, as it is: nothing is written before the root key is proven.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(url: &Secret) -> Result<Self, OpenError> {
        if let Some(path) = sqlite_path(url) {
            open_sqlite(&path).await.map_err(OpenError::Connect)
        } else if url.expose().starts_with("postgres://") || url.expose().starts_with("postgresql://") {
            open_postgres(url).await
        } else {
            Err(OpenError::Url)
        }
    }

    /// Brings the schema up to date. Running it twice, or on several nodes at once, is harmless.
    ///
    /// # Errors
    /// [`OpenError::Schema`] when the database is newer than this program or was changed by hand.
    pub async fn migrate(&self) -> Result<(), OpenError> {
        match self {
            Self::Sqlite { writer, .. } => {
                let _turn = wait_for_turn(writer.connect_options().get_filename()).await?;
                sqlx::migrate!("migrations/sqlite").run(writer).await
            }
            Self::Postgres(lines) => {
                let mut connection = lines.pool().acquire().await.map_err(OpenError::Connect)?;
                // A migration may take its time, and so may another node's, which is waited for.
                sqlx::query("SELECT set_config('lock_timeout', '0', false)")
                    .execute(&mut *connection)
                    .await
                    .map_err(OpenError::Connect)?;
                connection.close_on_drop();
                sqlx::migrate!("migrations/postgres").run(&mut *connection).await
            }
        }
        .map_err(OpenError::Schema)
    }

    /// True when this database has been migrated before.
    ///
    /// # Errors
    /// As every statement.
    pub async fn has_schema(&self) -> Result<bool, StoreError> {
        Ok(match self {
            Self::Sqlite { readers, .. } => {
                sqlx::query_scalar::<_, i64>("SELECT count(*) FROM sqlite_master WHERE name = 'tenant_keys'")
                    .fetch_one(readers)
                    .await?
                    > 0
            }
            Self::Postgres(lines) => {
                let known = sqlx::query_scalar::<_, bool>("SELECT to_regclass('tenant_keys') IS NOT NULL");
                known.fetch_one(&lines.pool()).await?
            }
        })
    }

    /// Makes sure that only one `serve` uses an SQLite file. PostgreSQL needs no such lock.
    ///
    /// # Errors
    /// [`OpenError::InUse`] when another process holds it.
    pub fn lock_for_serving(url: &Secret) -> Result<ProcessLock, OpenError> {
        let Some(path) = sqlite_path(url) else { return Ok(ProcessLock { _file: None }) };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(beside(&path, ".lock"))
            .map_err(|error| OpenError::Connect(error.into()))?;
        file.try_lock().map_err(|_| OpenError::InUse)?;
        Ok(ProcessLock { _file: Some(file) })
    }

    /// Opens a database that is there already for reading only: no byte of it changes, not even by a checkpoint of
    /// what a killed process left. `None` when there is no such SQLite file.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open_to_look(url: &Secret) -> Result<Option<Self>, OpenError> {
        let Some(path) = sqlite_path(url) else { return Self::open(url).await.map(Some) };
        if !path.exists() {
            return Ok(None);
        }
        // Even a reader makes SQLite's files beside a database in WAL mode. Where there are none, nobody has it open.
        let at_rest = !beside(&path, "-wal").exists() && !beside(&path, "-shm").exists();
        let options =
            SqliteConnectOptions::new().filename(path).read_only(true).immutable(at_rest).disable_statement_logging();
        let readers = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_LIMIT)
            .connect_with(options)
            .await
            .map_err(OpenError::Connect)?;
        Ok(Some(Self::Sqlite { writer: readers.clone(), readers }))
    }

    /// The database server's clock in milliseconds UTC; `None` where it is our own.
    ///
    /// # Errors
    /// As every statement.
    pub async fn server_time(&self) -> Result<Option<i64>, StoreError> {
        match self {
            Self::Sqlite { .. } => Ok(None),
            Self::Postgres(lines) => {
                let time = sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint");
                Ok(Some(time.fetch_one(&lines.pool()).await?))
            }
        }
    }
}

/// `serve` and a command may both find an empty file. SQLite has no lock that spans several transactions, as PostgreSQL
/// has for migrations, so whoever migrates holds a file of its own.
async fn wait_for_turn(path: &Path) -> Result<File, OpenError> {
    let path = beside(path, ".migrate.lock");
    let locked = tokio::task::spawn_blocking(move || {
        let file = File::create(path)?;
        file.lock().map(|()| file)
    });
    locked.await.map_err(std::io::Error::other).flatten().map_err(|error| OpenError::Connect(error.into()))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn sqlite_path(url: &Secret) -> Option<PathBuf> {
    let rest = url.expose().strip_prefix("sqlite:")?;
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    (!rest.is_empty() && rest != ":memory:").then(|| Path::new(rest).to_owned())
}

async fn open_sqlite(path: &Path) -> Result<Store, sqlx::Error> {
    // Made here, so that nobody else on the machine may read it; SQLite gives its log and index the same mode.
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        // A commit that a power cut undoes can be a rotated refresh token that is lost for good (RL-04).
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(10))
        .pragma("secure_delete", "ON")
        .disable_statement_logging();
    let writer = SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ACQUIRE_LIMIT)
        .test_before_acquire(false)
        // A full disk ends a transaction by itself (lang_transaction.html, section 3). sqlx then fails to roll it back and
        // counts it as open for ever, and no other could begin on the one connection that writes.
        .before_acquire(|connection, _| Box::pin(std::future::ready(Ok(!connection.is_in_transaction()))))
        .connect_with(options.clone())
        .await?;
    let readers = SqlitePoolOptions::new()
        .max_connections(4)
        .acquire_timeout(ACQUIRE_LIMIT)
        .test_before_acquire(false)
        .connect_with(options.pragma("query_only", "ON"))
        .await?;
    Ok(Store::Sqlite { writer, readers })
}

async fn open_postgres(url: &Secret) -> Result<Store, OpenError> {
    let options = PgConnectOptions::from_str(url.expose()).map_err(|_| OpenError::Url)?.disable_statement_logging();
    let lines = Lines::new(options, pool_options);
    if sees_through_row_security(&lines.pool()).await.map_err(OpenError::Connect)? {
        return Err(OpenError::TooPowerful);
    }
    Ok(Store::Postgres(lines))
}

fn pool_options(silence: Arc<Silence>) -> PgPoolOptions {
    let returned = silence.clone();
    PgPoolOptions::new()
        .max_connections(20)
        .acquire_timeout(ACQUIRE_LIMIT)
        // A round trip for every use would be a third of all; what was used a moment ago is there still.
        .test_before_acquire(false)
        // No JIT: for a list as an argument the planner expects a hundred rows, and compiling for them takes longer than running.
        // No bitmaps: they neither stop at a limit nor tell their index which versions of a row are dead, and a crowd leaves
        // thousands of those where the sweep looks next.
        // A commit that a crash undoes can be a rotated refresh token that is lost for good (RL-04), whatever the server's
        // default is.
        // A node that is stopped, or vanishes with its machine, inside a transaction keeps its locks so long and no longer; and who
        // waits for a lock waits inside every limit of its own caller.
        .after_connect(|connection, _| {
            let settings = "SELECT set_config('jit', 'off', false), set_config('enable_bitmapscan', 'off', false),
                 set_config('idle_in_transaction_session_timeout', '15s', false), set_config('lock_timeout', '10s', false),
                 CASE current_setting('synchronous_commit') WHEN 'off' THEN set_config('synchronous_commit', 'on', false) END";
            Box::pin(async move { sqlx::query(settings).execute(connection).await.map(|_| ()) })
        })
        .before_acquire(move |connection, about| {
            let silence = silence.clone();
            Box::pin(async move {
                if about.idle_for > TESTED_AFTER {
                    answers(connection, PING_LIMIT, &silence).await?;
                }
                Ok(true)
            })
        })
        .after_release(move |connection, _| {
            let silence = returned.clone();
            Box::pin(async move {
                if silence.is_suspected() {
                    answers(connection, UNANSWERED_LIMIT, &silence).await?;
                }
                Ok(true)
            })
        })
}

/// An error when nobody is at the other end of the line.
async fn answers(connection: &mut PgConnection, limit: Duration, silence: &Silence) -> Result<(), sqlx::Error> {
    deadline(limit, connection.ping()).await.unwrap_or_else(|_| {
        silence.meet();
        Err(std::io::Error::from(ErrorKind::TimedOut).into())
    })
}

async fn sees_through_row_security(pool: &PgPool) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user")
        .fetch_one(pool)
        .await
}
