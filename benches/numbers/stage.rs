//! What is measured: real `valetkey serve` processes on a database of their own, with a provider that costs nothing.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, SqliteConnection};
use tempfile::TempDir;
use valetkey::clock::{Clock, Stopwatch, SystemClock, pause};

use crate::endpoint::Endpoint;

const PROGRAM: &str = env!("CARGO_BIN_EXE_valetkey");
pub const ROOT_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// How long a state is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A database of one story's own.
pub struct Database {
    pub url: String,
    server: Option<String>,
    folder: TempDir,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

impl Kind {
    pub const BOTH: [Self; 2] = [Self::Sqlite, Self::Postgres];

    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }
}

impl Database {
    /// None where PostgreSQL is wished for and `VK_TEST_POSTGRES` names no server.
    pub async fn new(kind: Kind) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = TempDir::new().expect("a folder");
        if kind == Kind::Sqlite {
            let url = format!("sqlite:{}", folder.path().join("vault.db").display());
            return Some(Self { url, server: None, folder });
        }
        #[expect(clippy::disallowed_methods, reason = "the scripts tell where PostgreSQL is")]
        let server = std::env::var("VK_TEST_POSTGRES").ok().filter(|url| !url.is_empty());
        let Some(server) = server else {
            println!("| PostgreSQL is left out: VK_TEST_POSTGRES names no server |");
            return None;
        };
        let name = format!("vk_numbers_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        postgres(&server, &format!("CREATE DATABASE {name} TEMPLATE template0")).await;
        let mut url: url::Url = server.parse().expect("a URL");
        url.set_path(&name);
        Some(Self { url: url.into(), server: Some(server), folder })
    }

    pub fn kind(&self) -> Kind {
        if self.server.is_some() { Kind::Postgres } else { Kind::Sqlite }
    }

    /// Changes the database behind the house's back.
    pub async fn execute(&self, sql: &str) {
        match self.kind() {
            Kind::Sqlite => {
                let options: sqlx::sqlite::SqliteConnectOptions = self.url.parse().expect("a URL");
                let options = options.busy_timeout(Duration::from_secs(60)).disable_statement_logging();
                let mut connection = SqliteConnection::connect_with(&options).await.expect("opens");
                let done = sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await;
                done.unwrap_or_else(|error| panic!("{sql}: {error}"));
                connection.close().await.expect("closed");
            }
            Kind::Postgres => postgres(&self.url, sql).await,
        }
    }

    /// Waits until no token has this end any more: each has been refreshed, and its successor is stored.
    pub async fn until_refreshed(&self, old_end: i64, patience: Duration) {
        let watch = Stopwatch::start();
        let sql = format!("SELECT count(*) FROM credentials WHERE expires_at = {old_end}");
        while self.number(&sql).await > 0 {
            assert!(watch.elapsed() < patience.max(PATIENCE), "not every token was refreshed in time");
            pause(Duration::from_millis(20)).await;
        }
    }

    async fn number(&self, sql: &str) -> i64 {
        match self.kind() {
            Kind::Sqlite => {
                let options: sqlx::sqlite::SqliteConnectOptions = self.url.parse().expect("a URL");
                let mut connection = SqliteConnection::connect_with(&options).await.expect("opens");
                let number = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await.expect("a number");
                connection.close().await.expect("closed");
                number
            }
            Kind::Postgres => {
                let mut connection = PgConnection::connect(&self.url).await.expect("connects");
                let number = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await.expect("a number");
                connection.close().await.expect("closed");
                number
            }
        }
    }

    /// What autovacuum does in its own time after a crowd of rows has come. SQLite does nothing by itself, but the disk has to
    /// have taken everything.
    pub async fn settle(&self) {
        match self.kind() {
            Kind::Sqlite => self.execute("PRAGMA wal_checkpoint(TRUNCATE)").await,
            Kind::Postgres => {
                self.execute("VACUUM ANALYZE").await;
                pause(Duration::from_secs(1)).await;
            }
        }
    }

    /// How long the disk beside an SQLite file takes to keep 4 KiB for good, which every commit waits for.
    pub fn sync_of_disk(&self) -> Duration {
        let watch = Stopwatch::start();
        let mut file = std::fs::File::create(self.folder.path().join("sync")).expect("a file");
        std::io::Write::write_all(&mut file, &[7; 4096]).expect("writes");
        file.sync_data().expect("synced");
        watch.elapsed()
    }

    /// The story is over.
    pub async fn drop_database(&self) {
        if let Some(server) = &self.server {
            let name = self.url.rsplit('/').next().expect("a name").to_owned();
            postgres(server, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
        }
    }
}

async fn postgres(url: &str, sql: &str) {
    let options: sqlx::postgres::PgConnectOptions = url.parse().expect("a PostgreSQL URL");
    let mut connection: PgConnection = options.disable_statement_logging().connect().await.expect("connects");
    let done = sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}"));
    connection.close().await.expect("closed");
}

/// Processes, their database and their provider.
pub struct Stage {
    pub database: Database,
    pub endpoint: Endpoint,
    pub http: reqwest::Client,
    nodes: Vec<Node>,
    settings: Vec<(&'static str, String)>,
    folder: TempDir,
    key: String,
}

/// One running `serve`.
struct Node {
    public: String,
    child: Child,
}

/// How hard the provider may be asked: calls a second, calls in the air, workers.
pub type Pace = (u32, u32, u32);

impl Stage {
    /// One tenant with its Google client, and `nodes` processes.
    pub async fn open(kind: Kind, latency: (u64, u64), (rate, in_air, workers): Pace, nodes: usize) -> Option<Self> {
        let database = Database::new(kind).await?;
        let endpoint = Endpoint::start(latency).await;
        let settings = vec![
            ("VALETKEY_DATABASE_URL", database.url.clone()),
            ("VALETKEY_ROOT_KEY", ROOT_KEY.to_owned()),
            ("VALETKEY_BIND", "127.0.0.1:0".to_owned()),
            ("VALETKEY_ADMIN_BIND", "127.0.0.1:0".to_owned()),
            ("VALETKEY_LOG", "error".to_owned()),
            ("VALETKEY_OUTBOUND_ALLOW", endpoint.address.clone()),
            ("VALETKEY_PROVIDERS__GOOGLE__TOKEN_URL", endpoint.url()),
            ("VALETKEY_REFRESH__RATE_PER_CLIENT", rate.to_string()),
            ("VALETKEY_REFRESH__IN_AIR_PER_CLIENT", in_air.to_string()),
            ("VALETKEY_REFRESH__WORKERS", workers.to_string()),
        ];
        let folder = TempDir::new().expect("a folder");
        let mut stage =
            Self { database, endpoint, http: http_client(), nodes: Vec::new(), settings, folder, key: String::new() };
        stage.told(&["tenant", "create", "acme", "--environment", "test", "--json"]);
        let made = ["api-key", "create", "--tenant", "acme", "--name", "b", "--scopes", "all", "--json"];
        stage.key = stage.told(&made)["secret"].as_str().expect("a secret").to_owned();
        for _ in 0..nodes {
            stage.start_node();
        }
        let client = json!({"client_id": "client-1", "client_secret": "numbers-secret", "scopes": ["openid"]});
        let url = format!("http://{}/v1/integrations/google", stage.nodes[0].public);
        let answer = stage.http.put(url).bearer_auth(&stage.key).json(&client).send().await.expect("answers");
        assert!(answer.status().is_success(), "{}", answer.text().await.expect("text"));
        Some(stage)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        let settings = self.settings.iter().map(|(name, value)| (*name, value.as_str()));
        command.args(arguments).env_clear().envs(settings).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    fn told(&self, arguments: &[&str]) -> Value {
        let output = self.command(arguments).output().expect("runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("one JSON object")
    }

    fn start_node(&mut self) {
        let mut child = self.command(&["serve"]).stdout(Stdio::piped()).spawn().expect("starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
        let said: Value = serde_json::from_str(&line).expect("one JSON object");
        let url: url::Url = said["public"].as_str().expect("an address").parse().expect("a URL");
        self.nodes.push(Node { public: url.authority().to_owned(), child });
    }

    /// Connections of as many users, whose tokens were just received and have this life; gives their ids.
    pub async fn move_in(&self, first: usize, count: usize, life: Duration) -> Vec<String> {
        let end = SystemClock.now().after(life).rfc3339();
        let url = format!("http://{}/v1/connections/import", self.nodes[0].public);
        let chunks: Vec<Vec<usize>> =
            (first..first + count).collect::<Vec<_>>().chunks(100).map(<[usize]>::to_vec).collect();
        let (mut ids, mut look) = (Vec::new(), 1000);
        for four in chunks.chunks(4) {
            // Autovacuum's part, which comes once a minute: statements planned for empty tables are planned anew.
            if ids.len() >= look {
                self.database.settle().await;
                look *= 8;
            }
            let asked = four.iter().map(|chunk| {
                let rows: Vec<Value> = chunk.iter().map(|n| row(*n, &end)).collect();
                let request = self.http.post(&url).bearer_auth(&self.key).json(&json!({ "connections": rows }));
                async move { request.send().await.expect("answers").json::<Value>().await.expect("JSON") }
            });
            for answer in join_all(asked).await {
                let made = answer["data"].as_array().unwrap_or_else(|| panic!("{answer}"));
                ids.extend(made.iter().map(|one| one["id"].as_str().expect("an id").to_owned()));
            }
        }
        ids
    }

    /// A question for a token, ready to be sent to a node.
    pub fn question(&self, node: usize, id: &str) -> reqwest::RequestBuilder {
        let url = format!("http://{}/v1/connections/{id}/token", self.nodes[node].public);
        self.http.post(url).bearer_auth(&self.key).json(&json!({}))
    }

    /// Resident memory of a node, in MiB.
    pub fn memory(&self, node: usize) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.nodes[node].child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
    }

    /// Ends every process, and the database.
    pub async fn close(mut self) {
        for node in &mut self.nodes {
            let id = node.child.id().to_string();
            assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill").success());
        }
        for mut node in self.nodes.drain(..) {
            assert!(node.child.wait().expect("ends").success(), "the house closes in good order");
        }
        self.database.drop_database().await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn row(n: usize, end: &str) -> Value {
    json!({"user": format!("u-{n}"), "provider": "google", "account": {"id": format!("1{n:020}")},
        "credentials": [{"kind": "user", "access_token": format!("ya29.numbers-first-{n:0>150}"),
            "refresh_token": format!("1//numbers-{n:0>90}"), "expires_at": end, "scopes": ["openid"]}]})
}

#[expect(clippy::disallowed_methods, reason = "the bench is the outside, not the house")]
fn http_client() -> reqwest::Client {
    valetkey::outbound::install_crypto_provider();
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().expect("a client")
}

/// Asks for a token and gives how long that took; the answer must be a token.
pub async fn timed(question: reqwest::RequestBuilder) -> Duration {
    let watch = Stopwatch::start();
    let answer = question.send().await.expect("the house answers");
    let status = answer.status();
    let text = answer.text().await.expect("text");
    assert_eq!(status, 200, "{text}");
    watch.elapsed()
}

/// Waits for a state.
pub async fn until(what: &str, patience: Duration, mut is_so: impl FnMut() -> bool) {
    let watch = Stopwatch::start();
    while !is_so() {
        assert!(watch.elapsed() < patience.max(PATIENCE), "it did not come about in time: {what}");
        pause(Duration::from_millis(5)).await;
    }
}
