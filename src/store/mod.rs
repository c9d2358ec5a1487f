//! The shelves: sealed bytes and plain columns on SQLite or PostgreSQL, which this module cannot open.
//!
//! One SQL text runs on both databases. Column types are chosen so that it can: ids and JSON are `TEXT`,
//! times are milliseconds UTC in `BIGINT`, sealed values are `BLOB`/`BYTEA`, and the current time is always
//! an argument. What differs stands here and in [`bell`]: opening, migrating, `BEGIN IMMEDIATE`; and in [`due`], [`integrations`],
//! [`imports`] and a few others, where lists are passed and locked rows are skipped.
//!
//! Every function on a tenant's rows takes a [`TenantScope`](crate::caller::TenantScope), which only a passed
//! gate gives; the few that must look across tenants take a [`SystemScope`](crate::caller::SystemScope) and
//! say why. `tests/architecture.rs` checks every SQL text for it.

mod lines;
mod open;

pub mod activity;
pub mod addresses;
pub mod agents;
pub mod api_keys;
pub mod audit;
pub mod bell;
pub mod connect_sessions;
pub mod connections;
pub mod conversations;
pub mod credentials;
pub mod due;
pub mod handshakes;
pub mod health;
pub mod idempotency;
pub mod imports;
pub mod integrations;
pub mod keys;
pub mod logins;
pub mod notices;
pub mod reading;
pub mod refresh_rows;
pub mod revocations;
pub mod sessions;
pub mod telegram_starts;
pub mod telling;
pub mod tenants;
mod turns;
pub mod users;
pub mod workspaces;

#[cfg(test)]
mod contract;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, Postgres, Sqlite, SqliteConnection, SqlitePool, Transaction};

use crate::clock::{awake_deadline, deadline};

pub use lines::Lines;
use lines::Use;
pub use open::{OpenError, ProcessLock};

/// How long connections to PostgreSQL are waited for at the end.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// The database: one of two kinds, chosen by the URL.
#[derive(Clone, Debug)]
pub enum Store {
    /// One file, one writer, several readers (WAL, `synchronous=FULL`).
    Sqlite {
        /// The only connection that writes.
        writer: SqlitePool,
        /// Connections that may only read.
        readers: SqlitePool,
    },
    /// A server that several nodes share.
    Postgres(Lines),
}

/// A transaction, or a connection outside of one ([`Store::read`], [`Store::one_statement`]).
#[derive(Debug)]
pub struct Tx {
    handle: Handle,
    /// Whether each statement commits by itself what it writes.
    commits_itself: bool,
    /// On which line an answer is waited for; none on SQLite, which has no line that could fall silent.
    line: Option<Use>,
}

#[derive(Debug)]
enum Handle {
    SqliteWrite(Transaction<'static, Sqlite>),
    SqliteSingle(PoolConnection<Sqlite>),
    PostgresWrite(Transaction<'static, Postgres>),
    PostgresSingle(PoolConnection<Postgres>),
}

/// What the `sql!` macro runs its text on.
#[derive(Debug)]
pub(crate) enum Connection<'a> {
    Sqlite(&'a mut SqliteConnection),
    Postgres(&'a mut PgConnection),
}

/// The database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A unique constraint: such a row exists already.
    #[error("such a row exists already")]
    Conflict(#[source] sqlx::Error),
    /// The commit was sent but its outcome never came back: re-read before deciding (RL-29).
    #[error("the outcome of the commit is unknown")]
    CommitUnknown(#[source] sqlx::Error),
    /// The database cannot be reached, is full, read-only or too busy: try again later.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// The statement or the row is wrong: a defect of ours.
    #[error("the database refused a statement")]
    Defect(#[source] sqlx::Error),
}

impl StoreError {
    /// Nothing was done in time.
    #[must_use]
    pub fn too_slow() -> Self {
        Self::Unavailable(std::io::Error::from(std::io::ErrorKind::TimedOut).into())
    }

    /// Of a statement that commits, where a broken line says nothing about what it did.
    fn of_commit(error: sqlx::Error) -> Self {
        if matches!(error, sqlx::Error::Io(_)) { Self::CommitUnknown(error) } else { error.into() }
    }

    /// True when the database is away for now and nothing was done: trying again makes sense.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) if database.is_unique_violation() => Self::Conflict(error),
            sqlx::Error::Database(database) if is_trouble(database.code().as_deref()) => Self::Unavailable(error),
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Tls(_) => Self::Unavailable(error),
            _ => Self::Defect(error),
        }
    }
}

/// PostgreSQL classes 08 (connection), 25006 (read-only), 25P03 (idle in its transaction for too long), 40 (rollback), 53 (resources),
/// 55P03 (waited for a lock for too long), 57 (intervention), 58 (system);
/// SQLite primary codes BUSY 5, LOCKED 6, READONLY 8, IOERR 10, FULL 13, CANTOPEN 14 and their extended forms.
fn is_trouble(code: Option<&str>) -> bool {
    let Some(code) = code else { return false };
    if code.len() == 5 && code.starts_with(['0', '2', '4', '5']) {
        return ["08", "25006", "25P03", "40", "53", "55P03", "57", "58"].iter().any(|class| code.starts_with(class));
    }
    code.parse::<i64>().is_ok_and(|number| [5, 6, 8, 10, 13, 14].contains(&(number & 0xff)))
}

impl Store {
    /// Begins a transaction that may write. On SQLite there is one writer, so this waits its turn.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when no connection can be had.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        match self {
            Self::Sqlite { writer, .. } => {
                Ok(Tx::sqlite(Handle::SqliteWrite(writer.begin_with("BEGIN IMMEDIATE").await?)))
            }
            Self::Postgres(lines) => {
                let (connection, using) = lines.acquire().await.map_err(unreachable)?;
                let begun = using.answer(Box::pin(Transaction::begin(connection, None))).await?;
                Ok(Tx { handle: Handle::PostgresWrite(begun), commits_itself: false, line: Some(using) })
            }
        }
    }

    /// A connection for single reads: every statement sees what is committed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when no connection can be had.
    pub async fn read(&self) -> Result<Tx, StoreError> {
        match self {
            Self::Sqlite { readers, .. } => Ok(Tx::sqlite(Handle::SqliteSingle(readers.acquire().await?))),
            Self::Postgres(lines) => lines.single().await,
        }
    }

    /// A connection for one statement that writes: it commits by itself, without the round trips of BEGIN and COMMIT. Where the
    /// line breaks, nobody knows whether it did, and the statement's error is [`StoreError::CommitUnknown`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when no connection can be had.
    pub async fn one_statement(&self) -> Result<Tx, StoreError> {
        match self {
            Self::Sqlite { writer, .. } => Ok(Tx::sqlite(Handle::SqliteSingle(writer.acquire().await?))),
            Self::Postgres(lines) => Ok(Tx { commits_itself: true, ..lines.single().await? }),
        }
    }

    /// For one statement that changes rows and tells of them: on PostgreSQL as [`Self::one_statement`]. On SQLite in a transaction,
    /// where that costs no round trip, since a statement that commits by itself does so only after its last row was read.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when no connection can be had.
    pub async fn one_change(&self) -> Result<Tx, StoreError> {
        match self {
            Self::Sqlite { .. } => self.begin().await,
            Self::Postgres(_) => self.one_statement().await,
        }
    }

    /// Work in the database, for at most `limit` in which this process runs. What came of it then is found out by another.
    ///
    /// # Errors
    /// As the work; [`StoreError::CommitUnknown`] when the limit was reached.
    pub async fn in_time<T, E: From<StoreError>>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        awake_deadline(limit, work).await.unwrap_or_else(|_| {
            Err(StoreError::CommitUnknown(std::io::Error::from(std::io::ErrorKind::TimedOut).into()).into())
        })
    }

    /// `sqlite` or `postgres`, for logs and `doctor`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "sqlite",
            Self::Postgres(_) => "postgres",
        }
    }

    /// Waits until every connection is given back, then closes them. One that hangs on a silent line is not waited for: whoever had
    /// work to finish has finished it, or said that it could not.
    pub async fn close(&self) {
        match self {
            Self::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
            Self::Postgres(lines) => drop(deadline(CLOSE_LIMIT, lines.pool().close()).await),
        }
    }
}

/// Whatever goes wrong on the way to the server, it is not a statement of ours that is wrong.
fn unreachable(error: sqlx::Error) -> StoreError {
    match StoreError::from(error) {
        StoreError::Defect(error @ (sqlx::Error::Protocol(_) | sqlx::Error::Configuration(_))) => {
            StoreError::Unavailable(error)
        }
        other => other,
    }
}

impl Lines {
    async fn single(&self) -> Result<Tx, StoreError> {
        let (connection, using) = self.acquire().await.map_err(unreachable)?;
        Ok(Tx { handle: Handle::PostgresSingle(connection), commits_itself: false, line: Some(using) })
    }
}

impl Tx {
    fn sqlite(handle: Handle) -> Self {
        Self { handle, commits_itself: false, line: None }
    }

    /// Makes the transaction's work durable. After [`Store::read`] and [`Store::one_statement`] there is nothing to commit.
    ///
    /// # Errors
    /// [`StoreError::CommitUnknown`] when the answer to COMMIT never came.
    pub async fn commit(self) -> Result<(), StoreError> {
        let outcome = match self.handle {
            Handle::SqliteWrite(transaction) => transaction.commit().await,
            Handle::PostgresWrite(transaction) => answered(self.line.as_ref(), Box::pin(transaction.commit())).await,
            Handle::SqliteSingle(_) | Handle::PostgresSingle(_) => Ok(()),
        };
        outcome.map_err(StoreError::of_commit)
    }

    /// What the error of a statement means.
    pub(crate) fn trouble(&self, error: sqlx::Error) -> StoreError {
        if self.commits_itself { StoreError::of_commit(error) } else { error.into() }
    }

    /// Gives the work up.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the connection is lost, which also gives the work up.
    pub async fn roll_back(self) -> Result<(), StoreError> {
        match self.handle {
            Handle::SqliteWrite(transaction) => transaction.rollback().await?,
            Handle::PostgresWrite(transaction) => {
                answered(self.line.as_ref(), Box::pin(transaction.rollback())).await?
            }
            Handle::SqliteSingle(_) | Handle::PostgresSingle(_) => {}
        }
        Ok(())
    }

    /// What runs a statement, and the line on which its answer is waited for.
    pub(crate) fn parts(&mut self) -> (Connection<'_>, Option<&Use>) {
        let connection = match &mut self.handle {
            Handle::SqliteWrite(transaction) => Connection::Sqlite(transaction),
            Handle::SqliteSingle(connection) => Connection::Sqlite(connection),
            Handle::PostgresWrite(transaction) => Connection::Postgres(transaction),
            Handle::PostgresSingle(connection) => Connection::Postgres(connection),
        };
        (connection, self.line.as_ref())
    }

    pub(crate) fn connection(&mut self) -> Connection<'_> {
        self.parts().0
    }
}

/// An answer of PostgreSQL, for as long as one can be hoped for. `work` is boxed by the caller: statements are waited for at the
/// bottom of deep stacks.
pub(crate) async fn answered<T>(
    line: Option<&Use>,
    work: Pin<Box<impl Future<Output = Result<T, sqlx::Error>>>>,
) -> Result<T, sqlx::Error> {
    match line {
        Some(line) => line.answer(work).await,
        None => work.await,
    }
}

/// Runs one SQL text on whichever database `tx` belongs to.
///
/// `sql!(tx, execute, "…", args…)` gives the number of rows touched; `one Row`, `optional Row` and `all Row` give
/// rows of a type that derives `sqlx::FromRow`, or tuples.
macro_rules! sql {
    ($tx:expr, execute, $text:literal $(, $argument:expr)* $(,)?) => {{
        #[cfg(test)]
        $crate::store::testing::hear($text);
        let (connection, line) = $tx.parts();
        match connection {
            $crate::store::Connection::Sqlite(c) => sqlx::query($text)$(.bind($argument))*.execute(c).await.map(|done| done.rows_affected()),
            $crate::store::Connection::Postgres(c) => {
                $crate::store::answered(line, Box::pin(sqlx::query($text)$(.bind($argument))*.execute(c))).await.map(|done| done.rows_affected())
            }
        }
        .map_err(|error| $tx.trouble(error))
    }};
    ($tx:expr, one $row:ty, $text:literal $(, $argument:expr)* $(,)?) => {
        $crate::store::sql!(@rows $tx, fetch_one, $row, $text $(, $argument)*)
    };
    ($tx:expr, optional $row:ty, $text:literal $(, $argument:expr)* $(,)?) => {
        $crate::store::sql!(@rows $tx, fetch_optional, $row, $text $(, $argument)*)
    };
    ($tx:expr, all $row:ty, $text:literal $(, $argument:expr)* $(,)?) => {
        $crate::store::sql!(@rows $tx, fetch_all, $row, $text $(, $argument)*)
    };
    (@rows $tx:expr, $fetch:ident, $row:ty, $text:literal $(, $argument:expr)*) => {{
        #[cfg(test)]
        $crate::store::testing::hear($text);
        let (connection, line) = $tx.parts();
        match connection {
            $crate::store::Connection::Sqlite(c) => sqlx::query_as::<_, $row>($text)$(.bind($argument))*.$fetch(c).await,
            $crate::store::Connection::Postgres(c) => {
                $crate::store::answered(line, Box::pin(sqlx::query_as::<_, $row>($text)$(.bind($argument))*.$fetch(c))).await
            }
        }
        .map_err(|error| $tx.trouble(error))
    }};
}
pub(crate) use sql;

/// A list as an argument: one JSON text, which the statement takes apart.
fn to_json(list: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(list).map_err(|error| StoreError::Unavailable(sqlx::Error::Encode(error.into())))
}

/// A list of texts as the JSON that columns hold.
#[must_use]
pub fn to_json_list(items: &[String]) -> String {
    serde_json::Value::from(items).to_string()
}

/// A column's JSON as a list of texts; a damaged column reads as empty, never as an error in mid-call.
#[must_use]
pub fn from_json_list(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_default()
}

/// Texts by name as the JSON that columns hold.
#[must_use]
pub fn to_json_object(texts: &BTreeMap<String, String>) -> String {
    serde_json::json!(texts).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_of_the_database_is_told_apart_from_defects_of_ours() {
        for code in ["08006", "57P01", "53300", "25006", "25P03", "40001", "55P03", "5", "13", "10", "778"] {
            assert!(is_trouble(Some(code)), "{code}");
        }
        for code in ["42601", "23505", "25001", "55000", "1", "19", "2067"] {
            assert!(!is_trouble(Some(code)), "{code}");
        }
    }
}
