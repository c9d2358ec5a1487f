//! The house in this process, with the sandbox as its street and a clock that only the test moves.
//!
//! Every test ends with [`TestApp::finish`]: it searches the database, the log, the metrics, what the agent's model could
//! read and every recorded answer for secrets, so that every test is a leak test (SH-01). An app that is dropped without
//! it fails its test.
//!
//! Tests run on one thread each (`#[tokio::test]`), which is how the log of one house is told from another's.

mod clients;
mod database;
mod socket;
mod stage;
mod street;
mod token_endpoint;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::{NamedTempFile, TempDir};
use tracing::subscriber::DefaultGuard;
use url::Url;
use valetkey::accounts::{NewApiKey, NewMember, NewTenant, Tenant};
use valetkey::app::{App, Rooms, RunningApp};
use valetkey::caller::{Caller, Role};
use valetkey::clock::{Millis, SeededEntropy, Stopwatch, Surroundings, TestClock, pause};
use valetkey::config::{Config, HiddenText, ProviderSettings, RefreshSettings};
use valetkey::sandbox::person::{Person, Seen};
use valetkey::secret::Secret;
use valetkey::store::bell::Bell;

use crate::support::Paper;

pub use crate::support::{Finding, Kind, Known};
pub use clients::{Client, Got};
pub use database::Database;
pub use socket::Talk;
pub use stage::{Desk, Life};
pub use street::{Account, CLIENT, Street};
pub use token_endpoint::{Answer, TokenEndpoint};

/// The origin that the tenants' web pages have.
pub const ORIGIN: &str = "https://app.example";
/// When tests begin: 2026-09-21.
pub const START: i64 = 1_790_000_000_000;
/// How long a state is waited for, in real time.
const PATIENCE: Duration = Duration::from_secs(20);
const ROOT_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// An app under test.
pub struct TestApp {
    /// The hands of every clock in this test.
    pub clock: TestClock,
    /// The pretend providers and the pretend ElevenLabs.
    pub street: Street,
    /// The tenant that most stories are about.
    pub tenant: Tenant,
    /// Where everything is stored.
    pub database: Database,
    /// Secrets and recorded answers, shared with every client.
    pub known: Rc<RefCell<Known>>,
    changes: Changes,
    spool: Option<TempDir>,
    nodes: Vec<RunningApp>,
    http: reqwest::Client,
    around: Surroundings,
    log: Paper,
    seen: Seen,
    ticking: Option<tokio::task::JoinHandle<()>>,
    finished: bool,
    _listening: DefaultGuard,
}

/// What may differ from the usual app.
#[derive(Default)]
pub struct Wishes {
    /// A PostgreSQL database instead of SQLite; nothing is started when there is no server.
    pub postgres: bool,
    /// Settings of providers, `(provider, name, value)`, over those of the sandbox.
    pub providers: Vec<(&'static str, &'static str, &'static str)>,
    /// The operator's own catalogue.
    pub catalogue: Option<&'static str>,
    /// The Slack app does not rotate.
    pub slack_without_rotation: bool,
    /// So long Google's access tokens live, instead of an hour.
    pub google_life: Option<Duration>,
    /// There is a spool.
    pub spool: bool,
    /// A token endpoint of this provider's that the story itself answers for, instead of the sandbox's.
    pub token_endpoint: Option<(&'static str, String)>,
    /// How hard providers may be asked, instead of the default.
    pub refresh: Option<RefreshSettings>,
    /// So long a browser may stay signed in, instead of a day.
    pub session_life: Option<Duration>,
    /// The log holds what it usually holds, for stories with crowds.
    pub quiet: bool,
}

/// What every node of a story has different from the default.
struct Changes {
    providers: Vec<(&'static str, &'static str, String)>,
    catalogue: Option<NamedTempFile>,
    allow: Vec<String>,
    refresh: RefreshSettings,
    session_life: Option<Duration>,
}

impl Changes {
    fn of(wishes: &Wishes) -> Self {
        let mut providers: Vec<_> =
            wishes.providers.iter().map(|(provider, name, value)| (*provider, *name, (*value).to_owned())).collect();
        let mut allow = Vec::new();
        if let Some((provider, url)) = &wishes.token_endpoint {
            providers.push((*provider, "token_url", url.clone()));
            allow.push(Url::parse(url).expect("a URL").authority().to_owned());
        }
        let refresh = wishes.refresh.unwrap_or_default();
        let catalogue = wishes.catalogue.map(|text| {
            let file = NamedTempFile::new().expect("a file");
            std::fs::write(file.path(), text).expect("written");
            file
        });
        Self { providers, catalogue, allow, refresh, session_life: wishes.session_life }
    }
}

impl Wishes {
    /// The usual app once on each database, for stories that are told on both.
    pub fn both() -> [Self; 2] {
        [Self::default(), Self { postgres: true, ..Self::default() }]
    }
}

impl TestApp {
    /// The usual app, on SQLite.
    pub async fn start() -> Self {
        Self::start_with(Wishes::default()).await.expect("SQLite is always there")
    }

    /// The usual app with a usual log.
    pub async fn start_quietly() -> Self {
        Self::start_with(Wishes { quiet: true, ..Wishes::default() }).await.expect("SQLite is always there")
    }

    /// An app as wished; none, said loudly, when PostgreSQL is wished for and `VK_TEST_POSTGRES` names no server.
    pub async fn start_with(wishes: Wishes) -> Option<Self> {
        Self::start_at(TestClock::at(Millis(START)), wishes).await
    }

    /// The same, with the hands of a clock that something else in the story follows, too.
    pub async fn start_at(clock: TestClock, wishes: Wishes) -> Option<Self> {
        static SEED: AtomicU64 = AtomicU64::new(1);
        let log = Paper::default();
        let pen = log.clone();
        let subscriber = valetkey::telemetry::subscriber((!wishes.quiet).then_some("trace"), move || pen.clone(), true)
            .expect("a filter");
        let listening = tracing::subscriber::set_default(subscriber);
        let entropy = Arc::new(SeededEntropy::new(SEED.fetch_add(1, Ordering::Relaxed)));
        let around = Surroundings { clock: Arc::new(clock.clone()), entropy };
        let database = if wishes.postgres { Database::postgres().await? } else { Database::sqlite() };
        let street = Street::open_with(&around, !wishes.slack_without_rotation, wishes.google_life).await;
        let changes = Changes::of(&wishes);
        let spool = wishes.spool.then(|| TempDir::new().expect("a folder"));
        let mut first = config(&street, &database, &changes);
        first.spool_dir = spool.as_ref().map(|folder| folder.path().join("spool"));
        let node = App::start(first, around.clone()).await.expect("the app starts");
        let new = NewTenant {
            name: "acme".to_owned(),
            environment: Some("test".to_owned()),
            return_urls: vec![format!("{ORIGIN}/back")],
            origins: vec![ORIGIN.to_owned()],
            confirm: None,
        };
        let tenant = node.rooms().accounts.tenant_create(new).await.expect("a tenant");
        let known = Rc::new(RefCell::new(Known::default()));
        known.borrow_mut().learn(Kind::RootKey, ROOT_KEY);
        Some(Self {
            clock,
            street,
            tenant,
            database,
            known,
            changes,
            spool,
            nodes: vec![node],
            http: http_client(),
            around,
            log,
            seen: Seen::default(),
            ticking: None,
            finished: false,
            _listening: listening,
        })
    }

    /// One more node on the same database.
    pub async fn add_node(&mut self) {
        let config = config(&self.street, &self.database, &self.changes);
        self.nodes.push(App::start(config, self.around.clone()).await.expect("a second node starts"));
    }

    /// Stops the first node in good order and starts it again; it has another address then.
    pub async fn restart(&mut self) {
        assert!(self.nodes.remove(0).stop().await, "the house closes in good order (RL-32)");
        let mut config = config(&self.street, &self.database, &self.changes);
        config.spool_dir = self.spool.as_ref().map(|folder| folder.path().join("spool"));
        let node = App::start(config, self.around.clone()).await.expect("the app starts again");
        self.nodes.insert(0, node);
    }

    /// The spool's files.
    pub fn spooled(&self) -> Vec<std::path::PathBuf> {
        let folder = self.spool.as_ref().expect("a spool").path().join("spool");
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect()
    }

    /// Puts a file into the spool.
    pub fn put_into_spool(&self, name: &str, content: &str) {
        let folder = self.spool.as_ref().expect("a spool").path().join("spool");
        std::fs::write(folder.join(name), content).expect("written");
    }

    /// What `/readyz` of the first node says.
    pub async fn ready(&self) -> (u16, String) {
        let url = format!("http://{}/readyz", self.nodes[0].admin);
        let answer = self.http.get(url).send().await.expect("answers");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    }

    /// The first node's rooms, for what has no door: making tenants and logins.
    pub fn rooms(&self) -> &Rooms {
        self.nodes[0].rooms()
    }

    /// Where the public listener is.
    pub fn url(&self, path: &str) -> String {
        self.nodes[0].public_url().join(path).expect("a path").into()
    }

    /// A client without any proof.
    pub fn anon(&self) -> Client {
        Client::new(self.http.clone(), self.nodes[0].public_url().clone(), self.known.clone())
    }

    /// The same client at another node.
    pub fn at_node(&self, client: &Client, node: usize) -> Client {
        client.at(self.nodes[node].public_url().clone())
    }

    /// A client with a platform key of these scopes in the usual tenant.
    pub async fn platform_key(&self, scopes: &[&str]) -> Client {
        self.key_of(&self.tenant, scopes).await
    }

    /// A client with a platform key of any tenant.
    pub async fn key_of(&self, tenant: &Tenant, scopes: &[&str]) -> Client {
        let new = NewApiKey {
            name: "story".to_owned(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            allowed_ips: None,
            expires_at: None,
        };
        let operator = Caller::operator(tenant.id.clone());
        let (_, secret) = self.rooms().accounts.api_key_create(&operator, new).await.expect("a key");
        let secret = serde_json::to_value(&secret).expect("serializes");
        self.anon().with_key(secret.as_str().expect("a text"))
    }

    /// A second tenant.
    pub async fn other_tenant(&self, name: &str) -> Tenant {
        let new = NewTenant {
            name: name.to_owned(),
            environment: Some("test".to_owned()),
            return_urls: vec![format!("{ORIGIN}/back")],
            ..NewTenant::default()
        };
        self.rooms().accounts.tenant_create(new).await.expect("a tenant")
    }

    /// A person of the tenant, signed in in a browser.
    pub async fn member(&self, role: Role) -> Client {
        self.login(Some(role), None).await
    }

    /// Somebody with a login, signed in in a browser.
    pub async fn login(&self, role: Option<Role>, user: Option<&str>) -> Client {
        let name = role.map_or("user", |role| role.as_str());
        let (email, password) = (format!("{name}@acme.example"), format!("correct horse vkcanary {name}"));
        self.known.borrow_mut().learn(Kind::Password, &password);
        let user = user.map(str::to_owned);
        let new = NewMember { email: email.clone(), password: Secret::new(&*password), role, user };
        let operator = Caller::operator(self.tenant.id.clone());
        self.rooms().accounts.member_create(&operator, new).await.expect("a member");
        let mut browser = self.anon();
        let csrf = browser.get("/sign-in").await.csrf();
        let form = [("csrf", csrf.as_str()), ("email", &email), ("password", &password)];
        let got = browser.submit("/sign-in", &form).await;
        assert_eq!(got.status, 303, "{}", got.text);
        browser
    }

    /// An end user in a browser, who came through a portal link.
    pub async fn end_user(&self, platform: &Client, user: &str) -> Client {
        let body = serde_json::json!({ "user": user });
        let link = platform.post("/v1/portal-sessions", &body).await.json();
        let path = link["url"].as_str().and_then(|url| url.parse::<Url>().ok()).expect("a link").path().to_owned();
        let mut browser = self.anon();
        let csrf = browser.get(&path).await.csrf();
        let got = browser.submit(&path, &[("csrf", &csrf)]).await;
        assert_eq!(got.status, 303, "{}", got.text);
        browser
    }

    /// Somebody with a browser, from the house to the providers and back; every page of the house is searched at the end.
    pub fn person(&self) -> Person {
        Person::watched(&self.seen).expect("a person")
    }

    /// One GET whose target arrives exactly as written, which no HTTP library sends; gives the whole answer.
    pub async fn raw_get(&self, target: &str, headers: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let address = self.nodes[0].public;
        #[expect(clippy::disallowed_methods, reason = "the test is the outside, not the house")]
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
        let request = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an answer");
        self.known.borrow_mut().record("raw answer", &[], answer.clone());
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Moves the clock; everything that waits for a time wakes. Rings the bells, too: a sweep that was at work when the
    /// clock moved would otherwise wait for a second that never passes. Wait for what it brings with [`Self::until`].
    pub fn advance(&self, minutes: u64) {
        self.clock.advance(Duration::from_secs(minutes * 60));
        for node in &self.nodes {
            node.rooms().bells.ring(Bell::DueEarlier);
        }
    }

    /// Lets the clock run as fast as the wall's, for stories in which nodes wait for each other.
    pub fn let_time_run(&mut self) {
        let clock = self.clock.clone();
        let step = Duration::from_millis(20);
        self.ticking = Some(tokio::spawn(async move {
            loop {
                pause(step).await;
                clock.advance(step);
            }
        }));
    }

    /// Waits for a state, with a limit.
    pub async fn until(&self, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
        let watch = Stopwatch::start();
        while !is_so().await {
            assert!(watch.elapsed() < PATIENCE, "it did not come about in time: {what}");
            pause(Duration::from_millis(10)).await;
        }
    }

    /// Rows of the database as texts, in columns.
    pub async fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        self.database.rows(sql).await
    }

    /// How many audit entries there are of `action`, and how they ended.
    pub async fn entries(&self, action: &str) -> Vec<String> {
        let sql = format!("SELECT result FROM audit_entries WHERE action = '{action}' ORDER BY id");
        self.rows(&sql).await.into_iter().flatten().collect()
    }

    /// Closes everything and gives every place where a secret was found.
    pub async fn search(mut self) -> Vec<Finding> {
        self.finished = true;
        for path in ["/metrics", "/healthz", "/readyz"] {
            let url = format!("http://{}{path}", self.nodes[0].admin);
            let text = self.http.get(url).send().await.expect("answers").text().await.expect("text");
            self.known.borrow_mut().record(path, &[], text.into_bytes());
        }
        let mut known = std::mem::take(&mut *self.known.borrow_mut());
        self.street.confess(&mut known);
        known.record_pages(&self.url(""), &self.seen);
        self.database.record(&mut known, "while it ran").await;
        if let Some(ticking) = self.ticking.take() {
            ticking.abort();
        }
        for node in self.nodes.drain(..) {
            assert!(node.stop().await, "the house closes in good order (RL-32)");
        }
        self.database.record(&mut known, "at rest").await;
        if self.spool.is_some() {
            for file in self.spooled() {
                known.record("spool", &[], std::fs::read(file).expect("read"));
            }
        }
        known.record("log", &[], self.log.bytes());
        self.database.drop_database().await;
        known.search()
    }

    /// Closes everything and fails if a secret was found anywhere.
    pub async fn finish(self) {
        let findings = self.search().await;
        assert!(findings.is_empty(), "secrets were found (SH-01): {findings:#?}");
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        assert!(self.finished || std::thread::panicking(), "a story must end with `app.finish().await`");
    }
}

fn config(street: &Street, database: &Database, changes: &Changes) -> Config {
    let mut providers: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
    let mut set = |provider: &str, name: &str, value: &str| {
        providers.entry(provider.to_lowercase()).or_default().insert(name.to_lowercase(), value.into());
    };
    for (name, value) in street.sandbox.settings() {
        if let Some((provider, name)) = name.strip_prefix("VALETKEY_PROVIDERS__").and_then(|rest| rest.split_once("__"))
        {
            set(provider, name, &value);
        }
    }
    for (provider, name, value) in &changes.providers {
        set(provider, name, value);
    }
    let settings = |fields| serde_json::from_value::<ProviderSettings>(fields).expect("settings");
    let mut allow = street.sandbox.hosts();
    allow.push(street.eleven.base.authority().to_owned());
    allow.extend(changes.allow.iter().cloned());
    let mut config = Config {
        bind: "127.0.0.1:0".parse().expect("an address"),
        admin_bind: "127.0.0.1:0".parse().expect("an address"),
        database_url: HiddenText(Secret::new(database.url())),
        root_key: Some(HiddenText(Secret::new(ROOT_KEY))),
        outbound_allow: allow,
        providers: providers
            .into_iter()
            .map(|(name, fields)| (name, settings(serde_json::to_value(fields).expect("JSON"))))
            .collect(),
        refresh: changes.refresh,
        catalogue_file: changes.catalogue.as_ref().map(|file| file.path().to_owned()),
        ..Config::default()
    };
    config.elevenlabs.base_url = Some(street.eleven.base.clone());
    if let Some(life) = changes.session_life {
        config.ttl.session = life.as_secs();
    }
    config
}

#[expect(clippy::disallowed_methods, reason = "the test is the outside, not the house")]
pub fn http_client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(60))
        .build()
        .expect("a client")
}
