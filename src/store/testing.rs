//! Fresh databases for tests: SQLite always, PostgreSQL where `VK_TEST_POSTGRES` names a server (`scripts/test` does).
//!
//! The variable holds a URL of a role with CREATEDB. One migrated template is made per server and kept under a name
//! that says which migrations it has, so that every test process of a run clones the same one; each test's clone is
//! dropped when its story ends, however it ends.

use std::cell::RefCell;
use std::io::Write;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::FutureExt;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::Store;
use crate::caller::{Caller, Origin, Permission, SystemScope, TenantScope};
use crate::ids::{TenantId, UserId};
use crate::secret::Secret;

/// What stories look across tenants with.
pub(crate) const TEST: SystemScope = SystemScope::because("a test looks at what it wrote itself");

/// A database that only one story uses.
pub(crate) struct Fresh {
    /// The open database.
    pub(crate) store: Store,
    /// Where it is, for opening it once more.
    pub(crate) url: Secret,
    /// The file, where there is one.
    pub(crate) file: Option<PathBuf>,
}

/// Tells `story` on a migrated SQLite database and, where there is a server, on a migrated PostgreSQL database.
///
/// # Panics
/// When the story does; the message names the database.
pub(crate) async fn on_both<F: AsyncFn(Store)>(story: F) {
    on_both_fresh(Contents::Schema, async |fresh| story(fresh.store).await).await;
}

/// What a fresh database holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// Nothing at all.
    Nothing,
    /// Every migration.
    Schema,
}

/// [`on_both`] for stories that want to know where the database is, or want it without a schema.
///
/// # Panics
/// When the story does; the message names the database.
pub(crate) async fn on_both_fresh<F: AsyncFn(Fresh)>(contents: Contents, story: F) {
    on_sqlite(contents, &story).await;
    match server() {
        Some(server) => on_postgres(&server, contents, &story).await,
        None => say_that_postgres_is_missing(),
    }
}

async fn on_sqlite<F: AsyncFn(Fresh)>(contents: Contents, story: &F) {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("valetkey.db");
    let url = format!("sqlite:{}", file.display());
    let store = Store::open(&Secret::new(&*url)).await.expect("SQLite opens");
    if contents == Contents::Schema {
        store.migrate().await.expect("SQLite is migrated");
    }
    let fresh = Fresh { store: store.clone(), url: Secret::new(url), file: Some(file) };
    tell("SQLite", story(fresh), async || store.close().await).await;
}

async fn on_postgres<F: AsyncFn(Fresh)>(server: &str, contents: Contents, story: &F) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("vk_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let template = match contents {
        Contents::Nothing => "template0",
        Contents::Schema => template(server).await,
    };
    admin(server, &format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
    let url = url_of(server, &name);
    let store = Store::open(&Secret::new(&*url)).await.expect("PostgreSQL opens");
    let fresh = Fresh { store: store.clone(), url: Secret::new(url), file: None };
    let clean_up = async || {
        store.close().await;
        admin(server, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
    };
    tell("PostgreSQL", story(fresh), clean_up).await;
}

/// Tells a story, cleans up after it and then panics as it did, saying where.
async fn tell(database: &str, story: impl Future<Output = ()>, clean_up: impl AsyncFnOnce()) {
    let outcome = AssertUnwindSafe(story).catch_unwind().await;
    clean_up().await;
    let Err(panic) = outcome else { return };
    let text = panic.downcast_ref::<String>().cloned();
    match text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())) {
        Some(text) => panic!("on {database}: {text}"),
        None => resume_unwind(panic),
    }
}

/// The one migrated database that clones are made of.
async fn template(server: &str) -> &'static str {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    TEMPLATE.get_or_init(|| make_template(server)).await
}

async fn make_template(server: &str) -> String {
    let migrator = sqlx::migrate!("migrations/postgres");
    let texts: Vec<u8> = migrator.iter().flat_map(|migration| migration.checksum.to_vec()).collect();
    let name = format!("vk_template_{:08x}", crc32fast::hash(&texts));
    let mut connection = connect(server).await;
    // Several test processes may start at once: one makes the template, the others wait for it.
    sqlx::query("SELECT pg_advisory_lock(7321)").execute(&mut connection).await.expect("the lock");
    let known: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)")
        .bind(&name)
        .fetch_one(&mut connection)
        .await
        .expect("an answer");
    if !known {
        // Under another name until it is whole: a process that is killed here leaves no half-made template.
        let draft = format!("{name}_draft");
        admin(server, &format!("DROP DATABASE IF EXISTS {draft} WITH (FORCE)")).await;
        admin(server, &format!("CREATE DATABASE {draft} TEMPLATE template0")).await;
        let store = Store::open(&Secret::new(url_of(server, &draft))).await.expect("PostgreSQL opens");
        store.migrate().await.expect("PostgreSQL is migrated");
        store.close().await;
        admin(server, &format!("ALTER DATABASE {draft} RENAME TO {name}")).await;
    }
    connection.close().await.expect("closed");
    name
}

async fn connect(server: &str) -> PgConnection {
    let options = PgConnectOptions::from_str(server).expect("VK_TEST_POSTGRES is a URL").disable_statement_logging();
    PgConnection::connect_with(&options).await.expect("VK_TEST_POSTGRES names a running server")
}

async fn admin(server: &str, statement: &str) {
    let mut connection = connect(server).await;
    let done = sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await;
    done.unwrap_or_else(|error| panic!("{statement}: {error}"));
    connection.close().await.expect("closed");
}

fn url_of(server: &str, database: &str) -> String {
    let mut url: url::Url = server.parse().expect("VK_TEST_POSTGRES is a URL");
    url.set_path(database);
    url.to_string()
}

#[expect(clippy::disallowed_methods, reason = "where the test server is, is not a setting of the program")]
fn server() -> Option<String> {
    std::env::var("VK_TEST_POSTGRES").ok().filter(|url| !url.is_empty())
}

/// Past the test harness, which would keep it to itself.
fn say_that_postgres_is_missing() {
    static ONCE: Once = Once::new();
    let mut out = std::io::stderr().lock();
    ONCE.call_once(|| {
        let _ = writeln!(
            out,
            "\n*** VK_TEST_POSTGRES is not set: the tests named below run on SQLite ONLY. scripts/test runs them on both. ***"
        );
    });
    let _ = writeln!(out, "*** SQLite only: {}", std::thread::current().name().unwrap_or("a test"));
}

thread_local! {
    static HEARD: RefCell<Option<Vec<&'static str>>> = const { RefCell::new(None) };
}

/// `sql!` says here what it is about to run.
pub(crate) fn hear(text: &'static str) {
    HEARD.with_borrow_mut(|heard| heard.iter_mut().for_each(|heard| heard.push(text)));
}

/// The texts of the statements that `work` runs, for stories about how the databases carry them out. A story's tasks all
/// live on its own thread.
pub(crate) async fn statements_of(work: impl Future<Output = ()>) -> Vec<&'static str> {
    HEARD.set(Some(Vec::new()));
    work.await;
    HEARD.take().unwrap_or_default()
}

/// The scope of a caller that may touch every row of a tenant.
pub(crate) fn scope_of(tenant: &str) -> TenantScope {
    let caller = Caller::system("test", TenantId::stored(tenant.to_owned()));
    caller.require(Permission::ConnectionsRead).expect("a task may")
}

/// The scope of an end user.
pub(crate) fn user_scope(tenant: &str, user: &str) -> TenantScope {
    let (tenant, user) = (TenantId::stored(tenant.to_owned()), UserId::stored(user.to_owned()));
    Caller::end_user(tenant, user, Origin::default()).require(Permission::ConnectionsRead).expect("an end user may")
}
