//! The built program in a folder of its own, with settings of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::Arc;

use serde_json::Value;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tempfile::TempDir;

/// A folder with settings, in which the program can be run.
#[derive(Clone)]
pub struct Bench {
    folder: Arc<TempDir>,
    settings: Vec<(String, String)>,
}

impl Bench {
    /// What is tested.
    pub const PROGRAM: &str = env!("CARGO_BIN_EXE_valetkey");

    /// SQLite in the folder, listeners on free ports, and no root key.
    pub fn without_key() -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        let bench = Self { folder, settings: Vec::new() };
        let database = format!("sqlite:{}", bench.path("vault.db").display());
        bench
            .with("VALETKEY_DATABASE_URL", &database)
            .with("VALETKEY_BIND", "127.0.0.1:0")
            .with("VALETKEY_ADMIN_BIND", "127.0.0.1:0")
    }

    /// The same with a new root key in `root.key`.
    pub fn new() -> Self {
        let bench = Self::without_key();
        let file = bench.path("root.key");
        let made = bench.run(&["key", "generate", "--out", &file.display().to_string()]);
        assert!(made.status.success(), "{}", stderr(&made));
        bench.with("VALETKEY_ROOT_KEY_FILE", &file.display().to_string())
    }

    /// The same folder with the same settings, but for one.
    pub fn with_settings_of(other: &Self, but: Option<(&str, &str)>) -> Self {
        let same = Self { folder: other.folder.clone(), settings: other.settings.clone() };
        match but {
            Some((name, value)) => same.with(name, value),
            None => same,
        }
    }

    /// The same settings in a new folder; files that they name stay where they are.
    pub fn in_folder_of_its_own(&self) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        Self { folder, settings: self.settings.clone() }
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.settings.retain(|(known, _)| known != name);
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn file(&self, name: &str, content: &str) -> String {
        std::fs::write(self.path(name), content).expect("written");
        self.path(name).display().to_string()
    }

    /// The name of every file of the folder.
    pub fn names(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.path()).expect("listed");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        names.sort();
        names
    }

    /// Every file of the folder with its bytes, but for SQLite's index into the log, which is no data.
    pub fn bytes(&self) -> Vec<(String, Vec<u8>)> {
        self.names()
            .into_iter()
            .filter(|path| !path.to_string_lossy().ends_with("-shm"))
            .map(|path| (path.display().to_string(), std::fs::read(&path).expect("read")))
            .filter(|(name, bytes)| !(name.ends_with("-wal") && bytes.is_empty()))
            .collect()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(Self::PROGRAM, arguments)
    }

    /// Any program in the folder with the settings.
    pub fn command_of(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(self.settings.iter().cloned()).current_dir(self.folder.path());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().expect("runs")
    }

    /// Runs a command that must succeed and answer with one JSON object.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).expect("one JSON object")
    }

    /// Runs a command with `input` on its stdin.
    pub fn run_with_input(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        child.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("written");
        child.wait_with_output().expect("ends")
    }

    /// Starts `serve` and waits for its line.
    pub fn serve(&self) -> Serving {
        match self.start(Stdio::piped()) {
            Ok(serving) => serving,
            Err(mut child) => {
                let mut text = String::new();
                child.stderr.take().expect("stderr").read_to_string(&mut text).expect("text");
                panic!("serve did not listen: {text}");
            }
        }
    }

    /// Starts `serve` with its log at the end of a file of the folder, so that nobody has to read along; gives nothing
    /// when it died before it said where it listens.
    pub fn serve_with_log(&self, file: &str) -> Option<Serving> {
        let mut options = std::fs::OpenOptions::new();
        let log = options.create(true).append(true).open(self.path(file)).expect("a log");
        self.start(log.into()).ok()
    }

    fn start(&self, log: Stdio) -> Result<Serving, Box<Child>> {
        let mut child =
            self.command(&["serve"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().expect("starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        if line.is_empty() {
            child.wait().expect("ends");
            return Err(Box::new(child));
        }
        let said: Value = serde_json::from_str(&line).expect("one JSON object");
        let address = |name: &str| {
            said[name].as_str().and_then(|url| url.strip_prefix("http://")).expect("an address").to_owned()
        };
        Ok(Serving { public: address("public"), admin: address("admin"), child, stdout, line })
    }
}

/// A running `serve`; killed when it is dropped.
pub struct Serving {
    pub public: String,
    pub admin: String,
    /// The line on stdout, as it came.
    pub line: String,
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Serving {
    /// Sends the signal.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("/bin/sh")
            .args(["-c", &format!("kill -{signal} {}", self.child.id())])
            .status()
            .expect("a shell");
        assert!(sent.success());
    }

    /// Whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("asked").is_some()
    }

    /// Sends the signal and waits; gives the exit status and what else stood on stdout and stderr.
    pub fn stop(mut self, signal: &str) -> (Option<i32>, String, String) {
        self.signal(signal);
        let (mut rest, mut errors) = (String::new(), String::new());
        self.stdout.read_to_string(&mut rest).expect("text");
        self.child.stderr.take().expect("stderr").read_to_string(&mut errors).expect("text");
        (self.child.wait().expect("ends").code(), rest, errors)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// One GET; gives the whole answer.
pub fn get(address: &str, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connects");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n").expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// A PostgreSQL database of its own, dropped at the end. None, said loudly, where no server was given.
pub struct Postgres {
    pub url: String,
    server: String,
    name: String,
}

impl Postgres {
    pub async fn new(test: &str) -> Option<Self> {
        #[expect(clippy::disallowed_methods, reason = "scripts/test tells the tests where PostgreSQL is")]
        let server = std::env::var("VK_TEST_POSTGRES").ok();
        let Some(server) = server else {
            // Past the test runner, which would hide it.
            let _ = writeln!(std::io::stderr(), "SKIPPED {test}: VK_TEST_POSTGRES is not set; scripts/test sets it");
            return None;
        };
        let name = format!("vk_it_{test}_{}", std::process::id());
        execute(&server, &format!("CREATE DATABASE {name}")).await;
        let mut url: url::Url = server.parse().expect("a URL");
        url.set_path(&name);
        Some(Self { url: url.into(), server, name })
    }

    /// Every row of every table, as text.
    pub async fn rows(&self) -> Vec<String> {
        let mut connection = connect(&self.url).await;
        let tables: Vec<String> =
            sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
                .fetch_all(&mut connection)
                .await
                .expect("tables");
        let mut rows = Vec::new();
        for table in tables {
            let text = format!("SELECT '{table} ' || t::text FROM {table} t ORDER BY 1");
            let found: Vec<String> =
                sqlx::query_scalar(sqlx::AssertSqlSafe(text)).fetch_all(&mut connection).await.expect("rows");
            rows.extend(found);
        }
        connection.close().await.expect("closed");
        rows
    }

    pub async fn drop_database(self) {
        execute(&self.server, &format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
    }
}

async fn connect(url: &str) -> PgConnection {
    let options: sqlx::postgres::PgConnectOptions = url.parse().expect("a PostgreSQL URL");
    options.connect().await.expect("connects")
}

async fn execute(url: &str, text: &str) {
    let mut connection = connect(url).await;
    sqlx::query(sqlx::AssertSqlSafe(text.to_owned())).execute(&mut connection).await.expect("done");
    connection.close().await.expect("closed");
}

pub fn mode_of(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).expect("there").permissions().mode() & 0o777
}
