//! A person in a real Chromium (`tests/browser/person.mjs`), with the sandbox as the street.

use std::cell::RefCell;

use reqwest::header::{HeaderMap, HeaderName};
use serde_json::{Value, json};
use valetkey::app::RunningApp;
use valetkey::clock::Surroundings;
use valetkey::sandbox::elevenlabs::ElevenLabs;
use valetkey::sandbox::{Sandbox, SandboxOptions};

use crate::node::{Node, skipped, told};
use crate::site::{ORIGIN, PASSWORD, Program, RETURN_URL, Site, Tenant, integration, login, tenant};
use crate::support::{Kind, Known};

pub const EMAIL: &str = "ada@acme.example";
pub const ACCOUNT: &str = "ada@example.com";
pub const SCOPES: [&str; 2] =
    ["https://www.googleapis.com/auth/gmail.readonly", "https://www.googleapis.com/auth/calendar.events"];
/// What people read instead.
const WORDS: [&str; 2] = ["Read all mail and its settings", "See, change and delete calendar events"];
pub const BOT: [&str; 2] = ["chat:write", "channels:read"];

/// Chromium and the scripts that drive it.
pub struct Chromium {
    node: Node,
    program: String,
}

impl Chromium {
    pub fn find() -> Option<Self> {
        let node = Node::with("VK_TEST_BROWSER")?;
        let program = told("VK_TEST_CHROMIUM");
        if program.is_none() {
            skipped("VK_TEST_CHROMIUM");
        }
        program.map(|program| Self { node, program })
    }

    /// Plays a story to its end, and answers what it tells.
    /// What it saw of the house is recorded.
    pub async fn play(&self, known: &RefCell<Known>, story: &str, mut given: Value) -> Value {
        given["chromium"] = json!(self.program);
        given["password"] = json!(PASSWORD);
        let output = self.node.run("person.mjs", &[story], given.to_string()).await;
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
        let mut told: Value = serde_json::from_str(&said).expect("JSON");
        for page in told["seen"].take().as_array().expect("what was seen") {
            let fields = page["headers"].as_object().expect("headers").iter();
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                // Several of one name come as lines.
                for line in value.as_str().expect("a text").lines() {
                    headers.append(name.parse::<HeaderName>().expect("a name"), line.parse().expect("a value"));
                }
            }
            let text = |name: &str| page[name].as_str().expect("a text");
            known.borrow_mut().record_answer(text("method"), text("path"), &headers, text("text"));
        }
        if let Some(code) = told["completion_code"].as_str() {
            known.borrow_mut().learn(Kind::CompletionCode, code);
        }
        told
    }
}

/// A house, its street, and its tenant with Google and Slack.
pub struct Stage {
    pub site: Site,
    pub sandbox: Sandbox,
    pub tenant: Tenant,
    pub house: RunningApp,
    pub platform: Program,
}

impl Stage {
    pub async fn set(around: Surroundings) -> Self {
        Self::set_with(around, None).await
    }

    pub async fn set_with(around: Surroundings, eleven: Option<&ElevenLabs>) -> Self {
        let sandbox = Sandbox::start(SandboxOptions::new(around.clone())).await.expect("starts");
        let mut site = Site::new();
        site.around = around;
        site.meets_sandbox(&sandbox);
        if let Some(eleven) = eleven {
            site.allow.push(eleven.base.authority().to_owned());
            site.elevenlabs = Some(eleven.base.clone());
        }
        let tenant = site
            .prepare(async |rooms| {
                let tenant = tenant(rooms).await;
                login(rooms, &tenant, EMAIL, "u-42").await;
                for (provider, scopes) in [("google", SCOPES), ("slack", BOT)] {
                    let secret = format!("vkcanary-secret-of-{provider}");
                    let redirect_uri = integration(rooms, &tenant, provider, &secret, &scopes, &[]).await;
                    let client = json!({"provider": provider, "client_id": "valetkey-test",
                        "client_secret": secret, "redirect_uris": [redirect_uri]});
                    sandbox.tell("/clients", &client).await.expect("registered");
                }
                tenant
            })
            .await;
        let house = site.open().await;
        let platform = site.platform(&tenant);
        Self { site, sandbox, tenant, house, platform }
    }

    /// A one-time link for the user u-42.
    pub async fn link(&self, more: Value) -> Value {
        let mut wish = json!({"user": "u-42", "providers": ["google"], "return_url": RETURN_URL});
        for (name, value) in more.as_object().expect("an object") {
            wish[name] = value.clone();
        }
        self.platform.ok("POST", "/v1/connect-sessions", Some(wish)).await
    }

    /// Closes the house and searches for secrets.
    pub async fn finish(self, eleven: Option<&ElevenLabs>) {
        self.site.finish_with_sandbox(self.house, Some(&self.sandbox), eleven).await;
    }

    /// Codes that Google was asked to exchange, and connections of anybody.
    pub async fn exchanges_and_connections(&self) -> (u64, usize) {
        let counters = self.sandbox.ask("/counters").await.expect("counters");
        let exchanges = counters["google"]["token_requests"]["authorization_code"].as_u64().unwrap_or_default();
        let list = self.platform.ok("GET", "/v1/connections", None).await;
        (exchanges, list["data"].as_array().expect("a list").len())
    }

    pub async fn confirm(&self, told: &Value) {
        let session = told["connect_session"].as_str().expect("a session");
        let confirm = json!({"user": "u-42", "completion_code": told["completion_code"]});
        let path = format!("/v1/connect-sessions/{session}/confirm");
        let connection = self.platform.ok("POST", &path, Some(confirm)).await;
        assert_eq!((&connection["status"], &connection["account"]["email"]), (&json!("active"), &json!(ACCOUNT)));
    }
}

async fn from_sign_in_to_sign_out(story: &str, more: Value) {
    let Some(chromium) = Chromium::find() else { return };
    let stage = Stage::set(Surroundings::system()).await;
    let mut given = json!({"base": stage.site.base(), "email": EMAIL, "account": ACCOUNT, "scope_words": WORDS});
    for (name, value) in more.as_object().expect("an object") {
        given[name] = value.clone();
    }
    chromium.play(&stage.site.known, story, given).await;
    let list = stage.platform.ok("GET", "/v1/connections?user=u-42", None).await;
    assert_eq!(list["data"], json!([]));
    let counters = stage.sandbox.ask("/counters").await.expect("counters");
    assert_eq!(counters["google"]["revocations"], 1, "{counters}");
    stage.finish(None).await;
}

// WB-04, WB-05, WB-08, OA-15, OA-17
#[tokio::test]
async fn a_person_connects_google_reads_what_was_given_and_takes_it_back() {
    from_sign_in_to_sign_out("whole", json!({})).await;
}

#[tokio::test]
async fn a_person_does_the_same_on_a_phone() {
    from_sign_in_to_sign_out("whole", json!({"phone": true})).await;
}

#[tokio::test]
async fn a_person_does_the_same_without_any_script() {
    from_sign_in_to_sign_out("whole", json!({"scripts": false})).await;
}

#[tokio::test]
async fn a_person_does_the_same_with_the_keyboard_alone() {
    from_sign_in_to_sign_out("keyboard", json!({})).await;
}

// OA-02, WB-12
#[tokio::test]
async fn a_hosted_link_is_for_the_first_browser_that_continues() {
    let Some(chromium) = Chromium::find() else { return };
    let stage = Stage::set(Surroundings::system()).await;
    let link = stage.link(json!({})).await;
    let given = json!({"base": stage.site.base(), "link": link["url"], "return_url": RETURN_URL, "account": ACCOUNT});
    let told = chromium.play(&stage.site.known, "hosted", given).await;
    assert_eq!(told["connect_session"], link["id"]);
    assert_eq!(stage.exchanges_and_connections().await, (0, 0), "somebody has agreed, and the platform has not");

    // The link was sent on: the platform finds somebody else signed in with it.
    let (session, code) = (told["connect_session"].as_str().expect("a session"), &told["completion_code"]);
    let forwarded = json!({"user": "u-66", "completion_code": code});
    let path = format!("/v1/connect-sessions/{session}/confirm");
    let (status, refused) = stage.platform.call("POST", &path, Some(forwarded)).await;
    assert_eq!((status, &refused["code"]), (403, &json!("identity_mismatch")), "{refused}");
    assert_eq!(stage.exchanges_and_connections().await, (0, 0), "nobody's account is connected to anybody");
    stage.finish(None).await;
}

// OA-02, WB-12
#[tokio::test]
async fn a_link_that_was_looked_at_ten_times_still_works_once() {
    let Some(chromium) = Chromium::find() else { return };
    let stage = Stage::set(Surroundings::system()).await;
    let link = stage.link(json!({})).await;
    for _ in 0..10 {
        let mut scanner = stage.site.person();
        let page = scanner.visit(link["url"].as_str().expect("a link")).await.expect("a page");
        assert_eq!(page.status, 200, "{}", page.body);
    }
    let given = json!({"base": stage.site.base(), "link": link["url"], "return_url": RETURN_URL, "account": ACCOUNT});
    let told = chromium.play(&stage.site.known, "hosted", given).await;
    stage.confirm(&told).await;
    assert_eq!(stage.exchanges_and_connections().await, (1, 1));
    stage.finish(None).await;
}

// WB-12
#[tokio::test]
async fn a_popup_tells_its_opener_how_it_ended_and_closes() {
    let Some(chromium) = Chromium::find() else { return };
    let stage = Stage::set(Surroundings::system()).await;
    let link = stage.link(json!({"mode": "popup", "return_url": ORIGIN})).await;
    let given = json!({"base": stage.site.base(), "link": link["url"], "origin": ORIGIN, "account": ACCOUNT});
    let told = chromium.play(&stage.site.known, "popup", given).await;
    assert_eq!((&told["source"], &told["state"]), (&json!("valetkey"), &json!("awaiting_confirmation")));
    assert_eq!(told["connect_session"], link["id"]);
    stage.confirm(&told).await;
    stage.finish(None).await;
}

#[tokio::test]
async fn what_is_wrong_with_a_page_does_not_escape_the_watch() {
    let Some(chromium) = Chromium::find() else { return };
    let known = RefCell::new(Known::default());
    known.borrow_mut().learn(Kind::Planted, "<title>x</title>");
    chromium.play(&known, "blunder", json!({"base": "http://127.0.0.1:9"})).await;
    let findings = known.borrow().search();
    assert!(findings.iter().any(|one| one.sink == "answer to GET /"), "what a browser saw is searched: {findings:?}");
}
