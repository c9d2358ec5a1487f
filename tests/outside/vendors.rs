//! The vendors' own clients, unmodified: `google-auth-library` with a token that was handed out; it, `@slack/web-api` and
//! `grammy` with the broker in the vendor's place, which takes a conversation's ticket for a token. Google and Slack are played
//! by `emulate`, which has the shapes of their pages and of Gmail and `chat.postMessage`.

use serde_json::{Value, json};
use url::Url;
use valetkey::clock::Surroundings;
use valetkey::sandbox::elevenlabs::ElevenLabs;
use valetkey::sandbox::person::Page;

use crate::browser::Stage;
use crate::node::{Manner, Node};
use crate::site::{Program, RETURN_URL, Site, Tenant, follow_to_platform, integration, login, sign_in, tenant, until};
use crate::support::Kind;

const SECRET: &str = "a-client-secret-of-the-test";
const EMAIL: &str = "ada@acme.example";
const MAIL: [&str; 1] = ["https://www.googleapis.com/auth/gmail.readonly"];
/// Slack's first user at the emulator.
const SLACK_USER: &str = "U000000001";

/// A house on whose street the emulator plays `provider`, with one user who can sign in.
async fn street(
    node: &Node,
    eleven: &ElevenLabs,
    provider: &str,
    scopes: &[&str],
    user_scopes: &[&str],
) -> (Site, Tenant, Manner) {
    let mut site = Site::new();
    let (tenant, redirect_uri) = site
        .prepare(async |rooms| {
            let tenant = tenant(rooms).await;
            login(rooms, &tenant, EMAIL, "u-1").await;
            let redirect_uri = integration(rooms, &tenant, provider, SECRET, scopes, user_scopes).await;
            (tenant, redirect_uri)
        })
        .await;
    let arguments = ["--service", provider, "--redirect-uri", &redirect_uri, "--client-secret", SECRET];
    let manner = node.manner("emulate.mjs", &arguments);
    site.meets(provider, &manner, None);
    site.allow.push(eleven.base.authority().to_owned());
    site.elevenlabs = Some(eleven.base.clone());
    (site, tenant, manner)
}

/// Presses the button of the account `wanted` on the emulator's page, which has a form for each; gives where it leads.
#[expect(clippy::disallowed_methods, reason = "this is a browser, not the house")]
async fn choose(page: &Page, wanted: &str) -> Url {
    let is_wanted = |form: &&valetkey::sandbox::html::Form| form.fields.iter().any(|(_, value)| value == wanted);
    let forms = page.forms();
    let form = forms.iter().find(is_wanted).unwrap_or_else(|| panic!("no {wanted} on {}", page.body));
    let action = page.url.join(form.element.attribute("action").expect("an action")).expect("a URL");
    let browser = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build();
    let answer = browser.expect("a browser").post(action).form(&form.fields).send().await.expect("answers");
    let target = answer.headers().get("location").expect("a redirect").to_str().expect("a text");
    target.parse().expect("a URL")
}

/// An agent's tool in a conversation of this user, as a vendor's client at the broker: its ticket and its header.
async fn tool(eleven: &ElevenLabs, platform: &Program, user: &str, provider: &str, paths: Value) -> Value {
    let base = eleven.base.as_str().trim_end_matches('/');
    let config = json!({"name": "Helper", "conversation_config": {"agent": {"prompt": {"prompt": "You help."}}}});
    let made =
        Program::new(base).with_key(&eleven.api_key()).ok("POST", "/v1/convai/agents/create", Some(config)).await;
    let agent = made["agent_id"].as_str().expect("an id");
    let key = json!({"api_key": eleven.api_key()});
    let workspace = platform.ok("PUT", "/v1/workspaces/main", Some(key)).await;
    let needs = json!({"workspace": "main", "needs": [{"provider": provider, "hand_over": "broker"}],
        "broker": {provider: {"paths": paths}}});
    platform.ok("PUT", &format!("/v1/agents/{agent}"), Some(needs)).await;
    let wish = json!({"agent_id": agent, "user": user, "channel": {"type": "websocket"}});
    let started = platform.ok("POST", "/v1/conversations", Some(wish)).await;
    let ticket = &started["initiation"]["dynamic_variables"]["secret__valetkey_ticket"];
    let api = platform.url(&format!("/v1/broker/{provider}/"));
    let headers = json!({"X-Valetkey-Workspace": workspace["tool_header_value"]});
    json!({"client": provider, "api": api, "token": ticket, "headers": headers})
}

/// The same call with more to say.
fn with(call: &Value, more: Value) -> Value {
    let mut call = call.clone();
    for (name, value) in more.as_object().expect("an object") {
        call[name] = value.clone();
    }
    call
}

/// Runs a vendor's client, and gives what it told.
pub async fn run(node: &Node, given: Value) -> Value {
    let output = node.run("vendors.mjs", &[], given.to_string()).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {said}\n{}", given["client"], String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&said).expect("JSON")
}

// OA-08, RL-04, AG-12
#[tokio::test]
async fn googles_own_library_reads_mail_with_a_handed_out_token_and_through_the_broker() {
    let Some(node) = Node::with_counterparts() else { return };
    let eleven = ElevenLabs::start(Surroundings::system()).await.expect("starts");
    let (site, tenant, manner) = street(&node, &eleven, "google", &MAIL, &[]).await;
    let house = site.open().await;
    let platform = site.platform(&tenant);

    let mut person = site.person();
    sign_in(&mut person, &site.base(), EMAIL).await;
    person.visit(&format!("{}/connections/connect/google", site.base())).await.expect("a page");
    person.submit("continue", &[]).await.expect("submitted");
    let asked = person.follow().await.expect("the emulator's page");
    let result = person.visit(choose(&asked, EMAIL).await.as_str()).await.expect("a page");
    assert_eq!(result.status, 200, "{}", result.body);
    let connection = platform.ok("GET", "/v1/connections?user=u-1", None).await["data"][0].take();
    assert_eq!((&connection["status"], &connection["account"]["email"]), (&json!("active"), &json!(EMAIL)));
    assert_eq!(connection["missing_scopes"], json!([]));
    let id = connection["id"].as_str().expect("an id");

    let api = format!("{}/", manner.told("api_base_url"));
    let mut tokens = Vec::new();
    for round in 0..2 {
        let token = platform.token(id, "user", 60).await["access_token"].take();
        let read = run(&node, json!({"client": "google", "api": api, "token": token})).await;
        assert_eq!(read["subject"], "Lunch?", "round {round}: {read}");
        tokens.push(token);
        platform.ok("POST", &format!("/v1/connections/{id}/refresh"), None).await;
    }
    assert_ne!(tokens[0], tokens[1], "a refresh brings another token");

    let tool = tool(&eleven, &platform, "u-1", "google", json!(["gmail/v1/users/me/**"])).await;
    assert_eq!(run(&node, tool).await["subject"], "Lunch?", "the same, without a token");
    site.known.borrow_mut().learn_and_record_elevenlabs(&eleven);
    site.finish_with_manner(house, &manner).await;
}

// OA-02, OA-09, AG-12
#[tokio::test]
async fn slacks_own_client_writes_through_the_broker_as_the_person() {
    let Some(node) = Node::with_counterparts() else { return };
    let eleven = ElevenLabs::start(Surroundings::system()).await.expect("starts");
    let (site, tenant, manner) = street(&node, &eleven, "slack", &["channels:read"], &["chat:write"]).await;
    let house = site.open().await;
    let platform = site.platform(&tenant);

    let wish = json!({"user": "u-1", "providers": ["slack"], "return_url": RETURN_URL});
    let link = platform.ok("POST", "/v1/connect-sessions", Some(wish)).await;
    let mut person = site.person();
    person.visit(link["url"].as_str().expect("a link")).await.expect("a page");
    person.submit("continue", &[]).await.expect("submitted");
    let asked = person.follow().await.expect("the emulator's page");
    person.get(choose(&asked, SLACK_USER).await.as_str()).await.expect("the callback");
    let code = follow_to_platform(&mut person).await.query("completion_code").expect("a code");
    site.known.borrow_mut().learn(Kind::CompletionCode, &code);
    let confirm = format!("/v1/connect-sessions/{}/confirm", link["id"].as_str().expect("an id"));
    let connection = platform.ok("POST", &confirm, Some(json!({"user": "u-1", "completion_code": code}))).await;
    assert_eq!(connection["status"], "active", "{connection}");
    assert!(connection["account"]["id"].as_str().is_some_and(|id| id.ends_with(&format!("/{SLACK_USER}"))));

    let tool = tool(&eleven, &platform, "u-1", "slack", json!(["auth.test", "chat.postMessage"])).await;
    let message = with(&tool, json!({"channel": "general", "text": "on my way"}));
    assert_eq!(run(&node, message).await, json!({"user": SLACK_USER, "text": "on my way"}));
    site.known.borrow_mut().learn_and_record_elevenlabs(&eleven);
    site.finish_with_manner(house, &manner).await;
}

// AG-12
#[tokio::test]
async fn grammy_writes_through_the_broker_to_the_bound_chat_and_to_no_other() {
    let Some(node) = Node::with_counterparts() else { return };
    let eleven = ElevenLabs::start(Surroundings::system()).await.expect("starts");
    let stage = Stage::set_with(Surroundings::system(), Some(&eleven)).await;
    let bot = stage.sandbox.tell("/telegram/bots", &json!({"username": "ada_bot"})).await.expect("a bot");
    let body = json!({"user": "u-42", "provider": "telegram", "bot_token": bot["token"]});
    let connection = stage.platform.ok("POST", "/v1/connections", Some(body)).await;
    let payload = connection["start_link"].as_str().and_then(|link| link.split("start=").nth(1)).expect("a link");
    let start = json!({"bot": "ada_bot", "user": "ada@example.com", "payload": payload});
    stage.sandbox.tell("/telegram/start", &start).await.expect("pressed");
    let path = format!("/v1/connections/{}", connection["id"].as_str().expect("an id"));
    until("Start to be seen", async || {
        (stage.platform.ok("GET", &path, None).await["status"] == "active").then_some(())
    })
    .await;

    let tool = tool(&eleven, &stage.platform, "u-42", "telegram", json!(["sendMessage", "getMe"])).await;
    let sent = run(&node, with(&tool, json!({"chat_id": 111, "text": "booked"}))).await;
    assert_eq!((&sent["bot"], &sent["text"]), (&json!("ada_bot"), &json!("booked")));
    assert_eq!(sent["chat"], 987_654_321, "the chat that pressed Start, whatever the client says");
    assert_ne!(sent["refused"], "nothing", "other people's messages stay unread");
    stage.finish(Some(&eleven)).await;
}
