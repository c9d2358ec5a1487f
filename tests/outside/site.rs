//! A house on a free port, with one tenant, and those who use it: a platform with its key, people with browsers.
//!
//! Every story ends with [`Site::finish`]: it searches the database, the log and everything that the house answered for
//! secrets (SH-01). A site that is dropped without it fails its test.
//!
//! Tests run on one thread each (`#[tokio::test]`), which is how the log of one house is told from another's.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Map, Value};
use tempfile::TempDir;
use tracing::subscriber::DefaultGuard;
use url::Url;
use valetkey::accounts::{NewApiKey, NewMember, NewTenant};
use valetkey::app::{App, Rooms, RunningApp};
use valetkey::caller::Caller;
use valetkey::clock::{self, Surroundings, deadline};
use valetkey::config::{Config, ElevenLabsSettings, HiddenText, ProviderSettings};
use valetkey::connections::IntegrationDraft;
use valetkey::ids::TenantId;
use valetkey::sandbox::Sandbox;
use valetkey::sandbox::elevenlabs::ElevenLabs;
use valetkey::sandbox::person::{Page, Person, Seen};
use valetkey::secret::Secret;

use crate::node::Manner;
use crate::support::{Finding, Kind, Known, Paper};

pub const PASSWORD: &str = "correct horse battery staple";
/// Where the platform's own pages are.
pub const ORIGIN: &str = "https://app.example";
const ROOT_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
pub const RETURN_URL: &str = "https://app.example/back";

/// Where a house stands: its folder, its address and the street it may use.
pub struct Site {
    folder: TempDir,
    bind: SocketAddr,
    pub allow: Vec<String>,
    pub providers: BTreeMap<String, ProviderSettings>,
    pub elevenlabs: Option<Url>,
    pub around: Surroundings,
    /// What is secret, and what the house has answered.
    pub known: Rc<RefCell<Known>>,
    seen: Seen,
    log: Paper,
    searched: Cell<bool>,
    _listening: DefaultGuard,
}

/// The tenant of a site.
pub struct Tenant {
    pub id: TenantId,
    pub key: String,
}

impl Site {
    pub fn new() -> Self {
        // Redirect URIs name the port before the house is open, so it is chosen here and taken again later.
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let log = Paper::default();
        let pen = log.clone();
        let subscriber = valetkey::telemetry::subscriber(Some("trace"), move || pen.clone(), true).expect("a filter");
        let mut known = Known::default();
        known.learn(Kind::RootKey, ROOT_KEY);
        known.learn(Kind::Password, PASSWORD);
        Self {
            folder: TempDir::new().expect("a folder"),
            bind: free.local_addr().expect("an address"),
            allow: Vec::new(),
            providers: BTreeMap::new(),
            elevenlabs: None,
            around: Surroundings::system(),
            known: Rc::new(RefCell::new(known)),
            seen: Seen::default(),
            log,
            searched: Cell::new(false),
            _listening: tracing::subscriber::set_default(subscriber),
        }
    }

    /// Where the house is: `http://127.0.0.1:PORT`.
    pub fn base(&self) -> String {
        format!("http://{}", self.bind)
    }

    fn config(&self) -> Config {
        let database = format!("sqlite:{}", self.folder.path().join("vault.db").display());
        Config {
            bind: self.bind,
            admin_bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            public_url: Some(self.base().parse().expect("a URL")),
            database_url: HiddenText(Secret::new(database)),
            root_key: Some(HiddenText(Secret::new(ROOT_KEY))),
            outbound_allow: self.allow.clone(),
            providers: self.providers.clone(),
            elevenlabs: ElevenLabsSettings { base_url: self.elevenlabs.clone(), ..ElevenLabsSettings::default() },
            ..Config::default()
        }
    }

    /// What the house has logged so far, line by line.
    pub fn log_lines(&self) -> Vec<String> {
        String::from_utf8_lossy(&self.log.bytes()).lines().map(str::to_owned).collect()
    }

    /// Works in the rooms before any door is open.
    pub async fn prepare<T>(&self, work: impl AsyncFnOnce(&Rooms) -> T) -> T {
        let house = App::open_for_cli(&self.config(), self.around.clone()).await.expect("opens");
        let outcome = work(&house.rooms).await;
        house.close().await;
        outcome
    }

    pub async fn open(&self) -> RunningApp {
        App::start(self.config(), self.around.clone()).await.expect("starts")
    }

    /// The tenant's back end; what it is told is recorded.
    pub fn platform(&self, tenant: &Tenant) -> Program {
        self.known.borrow_mut().learn(Kind::PlatformKey, &tenant.key);
        Program { known: Some(self.known.clone()), ..Program::new(&self.base()) }.with_key(&tenant.key)
    }

    /// Somebody with a browser; what the house shows is recorded.
    pub fn person(&self) -> Person {
        Person::watched(&self.seen).expect("a person")
    }

    /// Closes the house and fails if a secret was found anywhere. Strict providers and pretend ones say themselves what
    /// is secret: [`Self::finish_with_manner`], [`Self::finish_with_sandbox`].
    async fn finish(&self, house: RunningApp) {
        let findings = self.search(house).await;
        assert!(findings.is_empty(), "secrets were found (SH-01): {findings:#?}");
    }

    /// The end of a story with a strict provider.
    pub async fn finish_with_manner(&self, house: RunningApp, manner: &Manner) {
        for (kind, secret) in manner.secrets().await {
            self.known.borrow_mut().learn(kind, &secret);
        }
        self.finish(house).await;
    }

    /// The end of a story with the pretend ones.
    pub async fn finish_with_sandbox(&self, house: RunningApp, sandbox: Option<&Sandbox>, eleven: Option<&ElevenLabs>) {
        if let Some(sandbox) = sandbox {
            self.known.borrow_mut().learn_from_sandbox(sandbox);
        }
        if let Some(eleven) = eleven {
            self.known.borrow_mut().learn_and_record_elevenlabs(eleven);
        }
        self.finish(house).await;
    }

    /// Closes the house and gives every place where a secret was found.
    pub async fn search(&self, house: RunningApp) -> Vec<Finding> {
        self.searched.set(true);
        let mut known = std::mem::take(&mut *self.known.borrow_mut());
        known.record_folder(self.folder.path(), "database", "while it ran", |_| &[]);
        assert!(house.stop().await, "in good order");
        known.record_folder(self.folder.path(), "database", "at rest", |_| &[]);
        known.record("log", &[], self.log.bytes());
        known.record_pages(&self.base(), &self.seen);
        known.search()
    }

    /// The pretend providers are on the street from now on.
    pub fn meets_sandbox(&mut self, sandbox: &Sandbox) {
        let mut fields: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
        for (name, value) in sandbox.settings() {
            let setting = name.strip_prefix("VALETKEY_PROVIDERS__").and_then(|rest| rest.split_once("__"));
            if let Some((provider, setting)) = setting {
                fields.entry(provider.to_lowercase()).or_default().insert(setting.to_lowercase(), value.into());
            }
        }
        for (provider, fields) in fields {
            self.providers.insert(provider, serde_json::from_value(fields.into()).expect("settings"));
        }
        self.allow.extend(sandbox.hosts());
    }

    /// A strict provider is on the street from now on. An API that it does not have stays where it was.
    pub fn meets(&mut self, provider: &str, manner: &Manner, replay: Option<&str>) {
        let replay = replay.map(str::to_owned);
        let settings = ProviderSettings { replay, ..manner.settings() };
        let api_before = self.providers.get(provider).and_then(|before| before.api_base_url.clone());
        let api_base_url = settings.api_base_url.clone().or(api_before);
        self.providers.insert(provider.to_owned(), ProviderSettings { api_base_url, ..settings });
        self.allow.push(manner.authority());
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let searched = self.searched.get() || std::thread::panicking();
        assert!(searched, "a story must end with the search for secrets");
    }
}

/// A tenant with one return URL and one key for everything.
pub async fn tenant(rooms: &Rooms) -> Tenant {
    let new = NewTenant {
        name: "Acme".into(),
        return_urls: vec![RETURN_URL.into()],
        origins: vec![ORIGIN.into()],
        ..NewTenant::default()
    };
    let id = rooms.accounts.tenant_create(new).await.expect("a tenant").id;
    let new = NewApiKey { name: "back end".into(), scopes: vec!["all".into()], allowed_ips: None, expires_at: None };
    let (_, key) = rooms.accounts.api_key_create(&Caller::operator(id.clone()), new).await.expect("a key");
    let key = serde_json::to_value(&key).expect("serializes");
    Tenant { id, key: key.as_str().expect("a text").to_owned() }
}

/// A login for the end user `user`.
pub async fn login(rooms: &Rooms, tenant: &Tenant, email: &str, user: &str) {
    let new = NewMember { email: email.into(), password: Secret::new(PASSWORD), role: None, user: Some(user.into()) };
    rooms.accounts.member_create(&Caller::operator(tenant.id.clone()), new).await.expect("a login");
}

/// Sets an OAuth client and answers its redirect URI.
pub async fn integration(
    rooms: &Rooms,
    tenant: &Tenant,
    provider: &str,
    secret: &str,
    scopes: &[&str],
    user_scopes: &[&str],
) -> String {
    let owned = |scopes: &[&str]| scopes.iter().map(|scope| (*scope).to_owned()).collect();
    let draft = IntegrationDraft {
        client_id: Some("valetkey-test".into()),
        client_secret: Some(Secret::new(secret)),
        scopes: Some(owned(scopes)),
        user_scopes: Some(owned(user_scopes)),
        ..IntegrationDraft::default()
    };
    let operator = Caller::operator(tenant.id.clone());
    rooms.connections.integration_put(&operator, provider, draft).await.expect("an integration").redirect_uri
}

/// A program outside: a platform's back end, or one that holds somebody's token.
#[derive(Clone)]
pub struct Program {
    http: reqwest::Client,
    base: String,
    bearer: Option<String>,
    known: Option<Rc<RefCell<Known>>>,
}

impl Program {
    #[expect(clippy::disallowed_methods, reason = "this is a stranger on the street, not the house")]
    pub fn new(base: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { http, base: base.to_owned(), bearer: None, known: None }
    }

    pub fn with_key(&self, key: &str) -> Self {
        Self { bearer: Some(key.to_owned()), ..self.clone() }
    }

    /// Where this is at the other side.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let verb = method.parse().expect("a method");
        let mut request = self.http.request(verb, self.url(path));
        if let Some(bearer) = &self.bearer {
            request = request.bearer_auth(bearer).header("xi-api-key", bearer);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("answers");
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = answer.text().await.expect("a text");
        if let Some(known) = &self.known {
            known.borrow_mut().record_answer(method, path, &headers, &text);
        }
        (status, serde_json::from_str(&text).unwrap_or_default())
    }

    /// A call that must succeed.
    pub async fn ok(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.call(method, path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    /// The token of a connection, as the platform gets it.
    pub async fn token(&self, connection: &str, credential: &str, min_ttl: u64) -> Value {
        let wish = serde_json::json!({"credential": credential, "min_ttl": min_ttl});
        self.ok("POST", &format!("/v1/connections/{connection}/token"), Some(wish)).await
    }
}

/// Opens the sign-in page and signs in.
pub async fn sign_in(person: &mut Person, base: &str, email: &str) -> Page {
    person.visit(&format!("{base}/sign-in")).await.expect("a page");
    person.submit("", &[("email", email), ("password", PASSWORD)]).await.expect("submitted");
    person.follow().await.expect("a page")
}

/// Follows redirects up to the door of a platform's own site, which is not on this machine.
pub async fn follow_to_platform(person: &mut Person) -> Page {
    for _ in 0..12 {
        let page = person.page().expect("a page").clone();
        match page.location() {
            Some(target) if target.as_str().starts_with(RETURN_URL) => return page,
            Some(_) => person.step().await.expect("a page"),
            None => panic!("the way ended at {page:?}"),
        };
    }
    panic!("the way had no end")
}

/// Asks again and again until there is an answer, at most half a minute.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            clock::pause(Duration::from_millis(100)).await;
        }
    };
    deadline(Duration::from_secs(30), waiting).await.unwrap_or_else(|_| panic!("{what} did not happen"))
}

/// Plants one leak per sink and gives where the search found it.
#[tokio::test]
async fn a_secret_planted_in_every_sink_of_a_site_is_found() {
    // SH-01
    let site = Site::new();
    let tenant = site.prepare(async |rooms| tenant(rooms).await).await;
    let house = site.open().await;
    let secret = format!("planted-{}", site.base());
    site.known.borrow_mut().learn(Kind::Planted, &secret);
    tracing::debug!(target: "valetkey::planted", secret = %secret, "a careless line");
    // A user's id is no secret, so it is answered, and stands where it was written.
    let user = format!("/v1/users/{}", url::form_urlencoded::byte_serialize(secret.as_bytes()).collect::<String>());
    site.platform(&tenant).ok("PUT", &user, Some(serde_json::json!({}))).await;
    let mut person = site.person();
    // What every such page shows.
    site.known.borrow_mut().learn(Kind::Planted, "data-vk=\"continue\"");
    let link = serde_json::json!({ "user": "u-1" });
    let link = site.platform(&tenant).ok("POST", "/v1/portal-sessions", Some(link)).await;
    person.visit(link["url"].as_str().expect("a link")).await.expect("a page");
    let findings = site.search(house).await;
    let of_mine = findings.into_iter().filter(|one| one.kind == Some(Kind::Planted));
    let found: Vec<String> = of_mine.map(|one| one.sink).collect();
    for sink in [
        "log",
        "answer to PUT",
        "answer to GET /portal/",
        "database vault.db-wal while it ran",
        "database vault.db at rest",
    ] {
        assert!(found.iter().any(|one| one.starts_with(sink)), "{sink} was not searched: {found:?}");
    }
}

#[tokio::test]
#[should_panic(expected = "a story must end with")]
async fn a_site_that_is_not_searched_fails_its_test() {
    drop(Site::new());
}
