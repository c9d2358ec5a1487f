//! Every page with a history behind it, looked at in four ways and kept as a picture in `target/screens`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use valetkey::accounts::NewMember;
use valetkey::caller::{Caller, Role};
use valetkey::clock::{Surroundings, TestClock};
use valetkey::connections::IntegrationDraft;
use valetkey::sandbox::elevenlabs::ElevenLabs;
use valetkey::sandbox::person::Person;
use valetkey::secret::Secret;

use crate::browser::{ACCOUNT, Chromium, EMAIL, SCOPES, Stage};
use crate::site::{PASSWORD, Program, Site, login, sign_in};
use crate::support::Kind;

const NEWCOMER: &str = "grace@acme.example";
const OWNER: &str = "owner@acme.example";
const HOUR: Duration = Duration::from_secs(3600);

fn folder() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder");
    target.join("screens")
}

/// The first owner of a fresh house.
#[tokio::test]
async fn the_first_owner_comes_in_through_a_setup_link() {
    let Some(chromium) = Chromium::find() else { return };
    let site = Site::new();
    let token = site.prepare(async |rooms| rooms.accounts.setup_link().await.expect("a link").token).await;
    let house = site.open().await;
    let link = format!("{}/setup/{}", site.base(), token.expose());
    let given = json!({"base": site.base(), "link": link, "email": OWNER, "folder": folder()});
    site.known.borrow_mut().learn(Kind::Link, token.expose());
    chromium.play(&site.known, "setup", given).await;
    site.finish_with_sandbox(house, None, None).await;
}

/// What happened in nine days.
struct History<'a> {
    stage: &'a Stage,
    clock: TestClock,
    eleven: &'a ElevenLabs,
}

impl History<'_> {
    async fn connect(&self, person: &mut Person, provider: &str, account: &str, scopes: Option<&[&str]>) -> String {
        let before = self.connections().await;
        let address = format!("{}/connections/connect/{provider}", self.stage.site.base());
        person.visit(&address).await.expect("a page");
        person.submit("continue", &[]).await.expect("submitted");
        person.follow().await.expect("the consent page");
        person.consent(true, account, scopes).await.expect("consented");
        person.follow().await.expect("a page");
        let now = self.connections().await;
        now.into_iter().find(|id| !before.contains(id)).expect("one more")
    }

    async fn connections(&self) -> Vec<String> {
        let list = self.stage.platform.ok("GET", "/v1/connections?user=u-42", None).await;
        let ids = list["data"].as_array().expect("a list").iter();
        ids.map(|one| one["id"].as_str().expect("an id").to_owned()).collect()
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        self.stage.platform.ok(method, path, Some(body)).await
    }

    /// An agent of the platform that needs Google, and may use Slack.
    async fn agent(&self) -> String {
        let base = self.eleven.base.as_str().trim_end_matches('/');
        let config =
            json!({"name": "Inbox helper", "conversation_config": {"agent": {"prompt": {"prompt": "You help."}}}});
        let platform = Program::new(base).with_key(&self.eleven.api_key());
        let made = platform.ok("POST", "/v1/convai/agents/create", Some(config)).await;
        let id = made["agent_id"].as_str().expect("an id").to_owned();
        self.call("PUT", "/v1/workspaces/main", json!({"api_key": self.eleven.api_key()})).await;
        let needs = json!([{"provider": "google"}, {"provider": "slack", "required": false}]);
        self.call("PUT", &format!("/v1/agents/{id}"), json!({"workspace": "main", "needs": needs})).await;
        id
    }

    async fn conversation(&self, agent: &str, account: &str) {
        let wanted = json!([{"provider": "google", "account": account}, {"provider": "slack", "required": false}]);
        let wish = json!({"agent_id": agent, "user": "u-42", "channel": {"type": "websocket"}, "connections": wanted});
        self.call("POST", "/v1/conversations", wish).await;
    }

    /// The next refresh of a connection fails at its provider.
    async fn fail(&self, provider: &str, fault: &str, connection: &str) {
        let given = json!({"provider": provider, "on": "refresh", "name": fault, "times": 1});
        self.stage.sandbox.tell("/faults", &given).await.expect("told");
        // The refusal is what is wanted here.
        self.stage.platform.call("POST", &format!("/v1/connections/{connection}/refresh"), None).await;
    }

    async fn happen(&self) -> Value {
        let mut person = self.stage.site.person();
        sign_in(&mut person, &self.stage.site.base(), EMAIL).await;
        let google = self.connect(&mut person, "google", ACCOUNT, None).await;
        let partly = self.connect(&mut person, "google", "ops@example.org", Some(&SCOPES[1..])).await;
        let slack = self.connect(&mut person, "slack", ACCOUNT, None).await;
        self.call("PATCH", &format!("/v1/connections/{google}"), json!({"label": "private", "default": true})).await;
        let agent = self.agent().await;
        self.conversation(&agent, ACCOUNT).await;
        self.clock.advance(26 * HOUR);
        sign_in(&mut person, &self.stage.site.base(), EMAIL).await;
        let lost = self.connect(&mut person, "google", "grace@example.com", None).await;
        self.call("POST", &format!("/v1/connections/{lost}/token"), json!({})).await;
        self.clock.advance(30 * HOUR);
        self.conversation(&agent, ACCOUNT).await;
        self.call("POST", &format!("/v1/connections/{partly}/token"), json!({})).await;
        let gone = json!({"provider": "google", "account": "grace@example.com"});
        self.stage.sandbox.tell("/revoke", &gone).await.expect("told");
        // The refusal is what is wanted here.
        self.stage.platform.call("POST", &format!("/v1/connections/{lost}/refresh"), None).await;
        self.clock.advance(3 * HOUR);
        self.conversation(&agent, ACCOUNT).await;
        self.clock.advance(Duration::from_secs(240));
        self.fail("google", "http_502_html", &google).await;
        self.fail("slack", "invalid_client", &slack).await;
        let bot = self.call("POST", "/v1/connections", json!({"user": "u-42", "provider": "telegram"})).await;
        json!({"google": google, "partly": partly, "slack": slack, "lost": lost, "telegram": bot["id"]})
    }
}

/// A second login, the owner, and the platform's bot.
async fn people(stage: &Stage) {
    let rooms = stage.house.rooms();
    login(rooms, &stage.tenant, NEWCOMER, "u-43").await;
    let operator = Caller::operator(stage.tenant.id.clone());
    let owner = NewMember { email: OWNER.into(), password: Secret::new(PASSWORD), role: Some(Role::Owner), user: None };
    rooms.accounts.member_create(&operator, owner).await.expect("an owner");
    let bot = stage.sandbox.tell("/telegram/bots", &json!({"username": "acme_helper_bot"})).await.expect("a bot");
    let token = bot["token"].as_str().expect("a token");
    let draft = IntegrationDraft { bot_token: Some(Secret::new(token)), ..IntegrationDraft::default() };
    rooms.connections.integration_put(&operator, "telegram", draft).await.expect("a bot");
}

// WB-04, WB-07
#[tokio::test]
async fn every_page_is_sound_on_desktop_and_phone_in_light_and_dark() {
    let Some(chromium) = Chromium::find() else { return };
    let real = Surroundings::system();
    let clock = TestClock::at(real.now().before(9 * 24 * HOUR));
    let around = Surroundings { clock: Arc::new(clock.clone()), entropy: real.entropy };
    let eleven = ElevenLabs::start(around.clone()).await.expect("starts");
    let stage = Stage::set_with(around, Some(&eleven)).await;
    stage.platform.ok("PUT", "/v1/users/u-42", Some(json!({"display_name": "Ada", "email": "ada@example.com"}))).await;
    people(&stage).await;
    let connections = History { stage: &stage, clock, eleven: &eleven }.happen().await;

    let used = stage.link(json!({})).await;
    let mut person = stage.site.person();
    person.visit(used["url"].as_str().expect("a link")).await.expect("a page");
    person.submit("continue", &[]).await.expect("submitted");
    let portal = stage.platform.ok("POST", "/v1/portal-sessions", Some(json!({"user": "u-42"}))).await;
    let links = json!({
        "one": stage.link(json!({})).await["url"],
        "many": stage.link(json!({"providers": ["google", "slack"]})).await["url"],
        "one_more": stage.link(json!({"providers": ["slack"]})).await["url"],
        "used": used["url"],
        "portal": portal["url"],
    });
    let folder = folder();
    let given = json!({"base": stage.site.base(), "email": EMAIL, "newcomer": NEWCOMER, "owner": OWNER, "account": ACCOUNT,
        "links": links, "connections": connections, "folder": folder, "stale_form": 400});
    let told = chromium.play(&stage.site.known, "screens", given).await;
    assert!(told["taken"].as_u64() > Some(100), "{told}");
    stage.finish(Some(&eleven)).await;
}
