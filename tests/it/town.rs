//! Real `serve` processes on one database, with the sandbox as their street and real time: what can be stopped, starved
//! of its disk and killed.

use std::cell::RefCell;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use valetkey::clock::{Clock, Millis, Stopwatch, Surroundings, SystemClock, pause};

use crate::harness::{Account, Client, Database, Got, Kind, Known, Street, http_client};
use crate::program::{Bench, get};

/// How long a state is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Processes and what they live in.
pub struct Town {
    pub street: Street,
    pub database: Database,
    pub bench: Bench,
    pub nodes: Vec<Node>,
    /// The platform key of the first tenant.
    key: String,
    known: Rc<RefCell<Known>>,
    started: usize,
}

/// One running `serve`. A signal that a full disk sends is ignored by it, as by every daemon that a supervisor starts so.
pub struct Node {
    pub public: String,
    pub admin: String,
    child: Child,
}

impl Town {
    /// One tenant and no process yet. `settings` win over those of the sandbox. Slack keeps no grace: every refresh token
    /// is good once, and its family dies when it comes again.
    pub async fn open(database: Database, settings: &[(&str, String)]) -> Self {
        let street = Street::open(&Surroundings::system(), true).await;
        street.tell("/rotation", json!({"reuse": "family"})).await;
        let mut bench = Bench::new().with("VALETKEY_DATABASE_URL", &database.url());
        for (name, value) in street.sandbox.settings() {
            bench = bench.with(&name, &value);
        }
        bench = bench.with("VALETKEY_PROVIDERS__SLACK__REPLAY", "unsafe");
        for (name, value) in settings {
            bench = bench.with(name, value);
        }
        let known = Rc::new(RefCell::new(Known::default()));
        let mut town = Self { street, database, bench, nodes: Vec::new(), key: String::new(), known, started: 0 };
        town.key = town.tenant("acme");
        town
    }

    /// A tenant with a platform key, which is given back.
    pub fn tenant(&self, name: &str) -> String {
        self.bench.json(&["tenant", "create", name, "--environment", "test", "--json"]);
        let made =
            self.bench.json(&["api-key", "create", "--tenant", name, "--name", "b", "--scopes", "all", "--json"]);
        made["secret"].as_str().expect("a secret").to_owned()
    }

    /// Starts one more process.
    pub fn start_node(&mut self) -> usize {
        self.started += 1;
        self.nodes.push(Node::start(&self.bench, self.started));
        self.nodes.len() - 1
    }

    /// The first tenant's platform, at one of the nodes.
    pub fn platform(&self, node: usize) -> Client {
        self.platform_of(node, &self.key)
    }

    pub fn platform_of(&self, node: usize, key: &str) -> Client {
        let base = format!("http://{}", self.nodes[node].public).parse().expect("a URL");
        Client::new(http_client(), base, self.known.clone()).with_key(key)
    }

    /// The token URL of a connection at a node and the header that opens it, for readers in their thousands.
    pub fn door(&self, node: usize, connection: &str) -> (String, String) {
        let url = format!("http://{}/v1/connections/{connection}/token", self.nodes[node].public);
        (url, format!("Bearer {}", self.key))
    }

    /// A Slack account moves in; its access token ends after `left`, of a life that began ten hours ago.
    pub async fn slack(&self, user: &str, account: Account, left: i64) -> String {
        let tokens = self.street.slack_tokens(account).await;
        let scopes: Vec<&str> = tokens["scope"].as_str().expect("scopes").split(',').collect();
        let row = json!({"user": user, "provider": "slack", "account": {"id": account.slack}, "credentials": [{
            "kind": "user", "access_token": tokens["access_token"], "refresh_token": tokens["refresh_token"],
            "expires_at": rfc3339(36_000), "scopes": scopes}]});
        self.moves_in(row, left).await
    }

    /// A Google account moves in; as [`Self::slack`].
    pub async fn google(&self, user: &str, account: Account, left: i64) -> String {
        let tokens = self.street.google_tokens(account).await;
        let row = json!({"user": user, "provider": "google", "account": {"id": account.google}, "credentials": [{
            "kind": "user", "access_token": tokens["access_token"], "refresh_token": tokens["refresh_token"],
            "expires_at": rfc3339(36_000), "scopes": ["openid"]}]});
        self.moves_in(row, left).await
    }

    async fn moves_in(&self, row: Value, left: i64) -> String {
        let platform = self.platform(0);
        let moved = platform.post("/v1/connections/import", &json!({"connections": [row]})).await.ok();
        let id = moved["data"][0]["id"].as_str().expect("an id").to_owned();
        self.age(&[&id], left).await;
        id
    }

    /// The access tokens of these connections began ten hours ago and end in `left` seconds.
    pub async fn age(&self, connections: &[&str], left: i64) {
        let now = SystemClock.now().0;
        let (began, ends) = (now - 36_000_000, now + left * 1000);
        let list = connections.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(",");
        let sql = format!(
            "UPDATE credentials SET obtained_at = {began}, expires_at = {ends} WHERE id IN
             (SELECT credential_id FROM connection_credentials WHERE connection_id IN ({list}))"
        );
        self.database.execute(&sql).await;
    }

    /// Sets columns of a connection's credential.
    pub async fn set_row(&self, connection: &str, columns: &str) {
        let sql = format!(
            "UPDATE credentials SET {columns} WHERE id IN
             (SELECT credential_id FROM connection_credentials WHERE connection_id = '{connection}')"
        );
        self.database.execute(&sql).await;
    }

    /// Columns of a connection's credential, as texts.
    pub async fn row(&self, connection: &str, columns: &str) -> Vec<String> {
        let sql = format!(
            "SELECT {columns} FROM credentials WHERE id IN
             (SELECT credential_id FROM connection_credentials WHERE connection_id = '{connection}')"
        );
        self.database.rows(&sql).await.into_iter().next().expect("a row")
    }

    /// Sends one read of a connection's token.
    pub async fn read(&self, node: usize, connection: &str, min_ttl: u64) -> Got {
        self.platform(node).post(&format!("/v1/connections/{connection}/token"), &json!({"min_ttl": min_ttl})).await
    }

    /// Waits for a state, with a limit.
    pub async fn until(&self, what: &str, is_so: impl AsyncFnMut() -> bool) {
        until(what, PATIENCE, is_so).await;
    }

    /// A fact that every secret of this test is known by.
    pub fn learn(&self, kind: Kind, text: &str) {
        self.known.borrow_mut().learn(kind, text);
    }

    /// Stops every process in good order, then searches everything that they have left behind.
    pub async fn close(mut self) {
        let mut known = std::mem::take(&mut *self.known.borrow_mut());
        self.database.record(&mut known, "at the end").await;
        for node in self.nodes.drain(..) {
            assert_eq!(node.stop("TERM"), Some(0));
        }
        for number in 1..=self.started {
            known.record("log", &[], std::fs::read(self.bench.path(&format!("log.{number}"))).expect("a log"));
        }
        known.learn(Kind::RootKey, std::fs::read_to_string(self.bench.path("root.key")).expect("the key").trim());
        self.street.confess(&mut known);
        let findings = known.search();
        assert!(findings.is_empty(), "secrets were found (SH-01): {findings:#?}");
        self.database.drop_database().await;
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for number in 1..=self.started {
            let log = std::fs::read_to_string(self.bench.path(&format!("log.{number}"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(40)..].join("\n");
            let _ = writeln!(std::io::stderr(), "log of node {number}:\n{end}");
        }
    }
}

impl Node {
    fn start(bench: &Bench, number: usize) -> Self {
        let log = bench.path(&format!("log.{number}"));
        // A write past the limit of a file's size is an error then, as on a full disk, and not the end.
        let mut shell = bench.command_of("/bin/sh", &["-c", "trap '' XFSZ; exec \"$0\" serve", Bench::PROGRAM]);
        let mut child = shell
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("a log"))
            .spawn()
            .expect("starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
        let said = std::fs::read_to_string(&log).expect("a log");
        let heard: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("serve did not listen: {said}"));
        let address = |name: &str| heard[name].as_str().expect("a URL").trim_start_matches("http://").to_owned();
        Self { public: address("public"), admin: address("admin"), child }
    }

    pub fn signal(&self, name: &str) {
        let script = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("/bin/sh").args(["-c", &script]).status().expect("a shell").success());
    }

    /// Sends the signal and waits for the end; gives the exit status.
    pub fn stop(mut self, signal: &str) -> Option<i32> {
        self.signal(signal);
        self.child.wait().expect("ends").code()
    }

    /// Whether it is ready, and what it says about it.
    pub fn ready(&self) -> (bool, String) {
        let answer = get(&self.admin, "/readyz", "");
        (answer.starts_with("HTTP/1.1 200"), answer)
    }

    /// A metric's value; zero where it is not there.
    pub fn metric(&self, name: &str) -> f64 {
        let text = get(&self.admin, "/metrics", "");
        let line = text.lines().find(|line| line.split([' ', '{']).next() == Some(name));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    }

    /// Writes past this many bytes fail in every file from now on; none lifts it.
    pub fn limit_files(&self, bytes: Option<u64>) {
        let limit = bytes.map_or_else(|| "unlimited:".to_owned(), |bytes| format!("{bytes}:"));
        let arguments = [format!("--pid={}", self.child.id()), format!("--fsize={limit}")];
        assert!(Command::new("prlimit").args(arguments).status().expect("util-linux").success());
    }

    /// A line of `/proc/<pid>/status` in KiB, such as `VmRSS`.
    pub fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Begins the count of `VmHWM` anew.
    pub fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").expect("allowed for one's own process");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Also where it was stopped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This many seconds from now.
pub fn rfc3339(seconds: i64) -> String {
    Millis(SystemClock.now().0 + seconds * 1000).rfc3339()
}

/// Waits for a state, for at most `patience`.
pub async fn until(what: &str, patience: Duration, mut is_so: impl AsyncFnMut() -> bool) {
    let watch = Stopwatch::start();
    while !is_so().await {
        assert!(watch.elapsed() < patience, "it did not come about in time: {what}");
        pause(Duration::from_millis(20)).await;
    }
}
