//! A real process of the program with a database and a street of its own, that is killed and started again.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use valetkey::clock::{Millis, Stopwatch, Surroundings, pause};

use super::scene::{Kind, Life};
use crate::harness::{Account, Client, Database, Known, Street};
use crate::program::{Bench, Serving};

/// More than readers can find in a waning token, less than half of any token's original life.
const WISHED: u64 = 600;
/// What a waning token has left: longer than a lease and a doubt together.
const WANING: i64 = 300_000;

/// A database with its schema, a tenant and a key, of which every vault gets a copy.
pub struct Template {
    bench: Bench,
    database: Database,
    key: String,
}

impl Template {
    /// None, said loudly, when PostgreSQL is wished for and no server is given.
    pub async fn new(postgres: bool) -> Option<Self> {
        let database = if postgres { Database::postgres().await? } else { Database::sqlite() };
        let bench = Bench::new().with("VALETKEY_DATABASE_URL", &database.url()).with("VALETKEY_LOG", "info");
        let prepared = bench.clone();
        let made = blocking(move || {
            prepared.json(&["tenant", "create", "acme", "--environment", "test", "--json"]);
            prepared.json(&["api-key", "create", "--tenant", "acme", "--name", "b", "--scopes", "all", "--json"])
        });
        let key = made.await["secret"].as_str().expect("a secret").to_owned();
        Some(Self { bench, database, key })
    }

    pub async fn drop_database(&self) {
        self.database.drop_database().await;
    }
}

/// One connection, as the harness knows it.
pub struct Link {
    pub id: String,
}

/// What a reader got.
pub enum Read {
    /// A token.
    Token(Value),
    /// A problem: its status and code.
    Problem(u16, String),
    /// No answer: the process is dead or dying.
    Nothing,
}

/// The process under test and everything around it.
pub struct Vault {
    pub kind: Kind,
    pub street: Street,
    pub database: Database,
    bench: Bench,
    key: String,
    http: reqwest::Client,
    serving: Option<Serving>,
}

impl Vault {
    /// A vault that is not started yet.
    pub async fn new(template: &Template, kind: Kind, spool: bool) -> Self {
        let database = template.database.copy().await;
        let street = Street::open(&Surroundings::system(), true).await;
        let (replay, reuse) = if kind == Kind::Strict { ("unsafe", "family") } else { ("grace:60", "grace:60") };
        street.tell("/rotation", json!({ "reuse": reuse })).await;
        let mut bench = Bench::with_settings_of(&template.bench, Some(("VALETKEY_DATABASE_URL", &database.url())));
        bench = bench.in_folder_of_its_own().with("VALETKEY_PROVIDERS__SLACK__REPLAY", replay);
        for (name, value) in street.sandbox.settings() {
            bench = bench.with(&name, &value);
        }
        if spool {
            let folder = bench.path("spool").display().to_string();
            bench = bench.with("VALETKEY_SPOOL_DIR", &folder);
        }
        Self { kind, street, database, bench, key: template.key.clone(), http: one_call_a_line(), serving: None }
    }

    /// Starts the process, to die where `aim` says; false when it died before it listened.
    pub async fn start(&mut self, aim: Option<String>) -> bool {
        let bench = match aim {
            Some(aim) => self.bench.clone().with("VALETKEY_CRASH_POINT", &aim),
            None => self.bench.clone(),
        };
        self.serving = blocking(move || bench.serve_with_log("log")).await;
        self.serving.is_some()
    }

    pub fn is_dead(&mut self) -> bool {
        self.serving.as_mut().is_none_or(Serving::has_ended)
    }

    /// SIGKILL, now.
    pub fn kill(&mut self) {
        self.serving = None;
    }

    pub fn tell_to_stop(&self) {
        if let Some(serving) = &self.serving {
            serving.signal("TERM");
        }
    }

    /// Waits for the process to end by itself.
    pub async fn dies_within(&mut self, limit: Duration) -> bool {
        let watch = Stopwatch::start();
        while !self.is_dead() {
            if watch.elapsed() > limit {
                return false;
            }
            pause(Duration::from_millis(20)).await;
        }
        true
    }

    /// Sets the OAuth clients and moves accounts in.
    pub async fn connect(&self, accounts: &[Account]) -> Vec<Link> {
        let base = self.url("/").parse().expect("a URL");
        let known = Rc::new(RefCell::new(Known::default()));
        let platform = Client::new(self.http.clone(), base, known).with_key(&self.key);
        self.street.integrate(&platform).await;
        let mut links = Vec::new();
        for (number, account) in accounts.iter().enumerate() {
            let (tokens, id, separator) = match self.kind {
                Kind::Lasting => (self.street.google_tokens(*account).await, account.google, ' '),
                Kind::Grace | Kind::Strict => (self.street.slack_tokens(*account).await, account.slack, ','),
            };
            let scopes: Vec<&str> = tokens["scope"].as_str().expect("scopes").split(separator).collect();
            let life = Duration::from_secs(tokens["expires_in"].as_u64().expect("a life"));
            let row = json!({"user": format!("u-{number}"), "provider": self.kind.provider(), "account": {"id": id},
                "credentials": [{"kind": "user", "access_token": tokens["access_token"], "scopes": scopes,
                    "refresh_token": tokens["refresh_token"], "expires_at": now().after(life).rfc3339()}]});
            let moved = platform.post("/v1/connections/import", &json!({"connections": [row]})).await.ok();
            links.push(Link { id: moved["data"][0]["id"].as_str().expect("an id").to_owned() });
        }
        links
    }

    /// Moves the stored tokens towards their end, as time would.
    pub async fn age(&self, life: Life) {
        let now = now().0;
        let (obtained, expires) = (now - 10 * 3_600_000, if life == Life::Over { now - 1000 } else { now + WANING });
        // Nobody is in a hurry about what is over but its reader.
        let due = if life == Life::Over { "due_at" } else { "0" };
        let aged = format!("UPDATE credentials SET obtained_at = {obtained}, expires_at = {expires}, due_at = {due}");
        self.database.execute(&aged).await;
    }

    /// The connections of which a request had been announced by then and has no end.
    pub async fn announced(&self, by: Millis) -> HashSet<String> {
        let sql = format!(
            "SELECT u.connection_id FROM credentials k JOIN connection_credentials u ON u.credential_id = k.id
             WHERE (k.phase = 'sent' AND k.sent_at <= {at}) OR k.doubt_first_sent <= {at}",
            at = by.0
        );
        self.database.rows(&sql).await.into_iter().flatten().collect()
    }

    /// Reads as readers do.
    pub async fn read(&self, link: &Link) -> Read {
        let body = json!({ "min_ttl": WISHED });
        match self.call("POST", &format!("/v1/connections/{}/token", link.id), Some(&body)).await {
            Some((200, token)) => Read::Token(token),
            Some((status, problem)) => Read::Problem(status, problem["code"].as_str().unwrap_or_default().to_owned()),
            None => Read::Nothing,
        }
    }

    /// Forces a refresh; the status, none when there was no answer.
    pub async fn refresh(&self, link: &Link) -> Option<(u16, Value)> {
        self.call("POST", &format!("/v1/connections/{}/refresh", link.id), None).await
    }

    /// The connection as everybody may see it.
    pub async fn view(&self, link: &Link) -> Value {
        let shown = self.call("GET", &format!("/v1/connections/{}", link.id), None).await;
        shown.map_or(Value::Null, |(_, view)| view)
    }

    /// What `/readyz` says.
    pub async fn readiness(&self) -> String {
        let Some(serving) = &self.serving else { return String::new() };
        let answer = self.http.get(format!("http://{}/readyz", serving.admin)).send().await;
        match answer {
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    /// Whether the provider accepts an access token.
    pub async fn is_accepted(&self, token: &Value) -> bool {
        let sandbox = &self.street.sandbox;
        let url = match self.kind {
            Kind::Lasting => sandbox.google.join("v1/userinfo"),
            Kind::Grace | Kind::Strict => sandbox.slack.join("api/auth.test"),
        };
        let request = self.http.get(url.expect("a path")).bearer_auth(token.as_str().expect("a token"));
        let answer = request.send().await.expect("the sandbox answers");
        let works = answer.status().is_success();
        let said: Value = answer.json().await.unwrap_or_default();
        works && said["ok"] != json!(false)
    }

    /// A counter of the provider.
    pub async fn counter(&self, name: &str) -> u64 {
        self.street.counter(&format!("{}/{name}", self.kind.provider())).await
    }

    /// The end of the log, for whoever must find out what went wrong.
    pub fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.bench.path("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    pub async fn finish(mut self) {
        self.kill();
        self.database.drop_database().await;
    }

    fn url(&self, path: &str) -> String {
        // Nobody listens there: a process that is dead does not answer.
        let address = self.serving.as_ref().map_or("127.0.0.1:9", |serving| serving.public.as_str());
        format!("http://{address}{path}")
    }

    async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Option<(u16, Value)> {
        let mut request = self.http.request(method.parse().expect("a method"), self.url(path)).bearer_auth(&self.key);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        Some((status, serde_json::from_str(&answer.text().await.ok()?).unwrap_or_default()))
    }
}

/// The program closes lines that were idle for ten seconds. A call that leaves in that very moment would be nobody's answer.
#[expect(clippy::disallowed_methods, reason = "the test is the outside, not the house")]
fn one_call_a_line() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .timeout(Duration::from_secs(60))
        .build()
        .expect("a client")
}

fn now() -> Millis {
    Surroundings::system().now()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("does not panic")
}
