//! A text conversation by the unmodified `@elevenlabs/client` through the relay: the browser gets one link and no secret,
//! and what it tries to set for itself does not arrive.

use serde_json::{Value, json};
use valetkey::clock::Surroundings;
use valetkey::sandbox::elevenlabs::ElevenLabs;

use crate::node::Node;
use crate::site::{Program, Site, tenant};
use crate::support::Kind;

const TOKEN: &str = "ya29.vkcanary-of-the-relay-story";
const REFRESH_TOKEN: &str = "1//vkcanary-refresh-of-the-relay-story";

/// An agent at the stand-in, known to the house, that needs Google.
async fn agent(eleven: &ElevenLabs, platform: &Program) -> String {
    let config = json!({"name": "Helper", "conversation_config": {"agent": {
        "first_message": "Hello {{user_name}}, about {{topic}}?",
        "prompt": {"prompt": "You help.", "x_sandbox_script": [{"when": "ping", "say": "pong"}]},
        "dynamic_variables": {"dynamic_variable_placeholders": {"topic": "nothing"}},
    }}});
    let base = eleven.base.as_str().trim_end_matches('/');
    let made =
        Program::new(base).with_key(&eleven.api_key()).ok("POST", "/v1/convai/agents/create", Some(config)).await;
    let id = made["agent_id"].as_str().expect("an id").to_owned();
    platform.ok("PUT", "/v1/workspaces/main", Some(json!({"api_key": eleven.api_key()}))).await;
    let needs = json!({"workspace": "main", "client_variables": ["mood"],
        "needs": [{"provider": "google", "required": true, "hand_over": "inject"}]});
    platform.ok("PUT", &format!("/v1/agents/{id}"), Some(needs)).await;
    id
}

/// A user with a Google account that the platform brought along.
async fn user(platform: &Program) {
    let integration =
        json!({"client_id": "c", "client_secret": "s", "scopes": ["https://www.googleapis.com/auth/gmail.readonly"]});
    platform.ok("PUT", "/v1/integrations/google", Some(integration)).await;
    platform.ok("PUT", "/v1/users/u-42", Some(json!({"display_name": "Ada"}))).await;
    let later = Surroundings::system().now().after(std::time::Duration::from_secs(3000)).rfc3339();
    let row = json!({"user": "u-42", "provider": "google", "account": {"id": "1", "email": "ada@example.com"},
        "credentials": [{"kind": "user", "access_token": TOKEN, "refresh_token": REFRESH_TOKEN, "expires_at": later}]});
    platform.ok("POST", "/v1/connections/import", Some(json!({"connections": [row]}))).await;
}

// AG-02, AG-03
#[tokio::test]
async fn the_unmodified_client_talks_through_the_relay_and_sets_nothing_that_is_not_its_own() {
    let Some(node) = Node::with_counterparts() else { return };
    let eleven = ElevenLabs::start(Surroundings::system()).await.expect("starts");
    let mut site = Site::new();
    site.allow.push(eleven.base.authority().to_owned());
    site.elevenlabs = Some(eleven.base.clone());
    let tenant = site.prepare(async |rooms| tenant(rooms).await).await;
    let house = site.open().await;
    let platform = site.platform(&tenant);
    let agent = agent(&eleven, &platform).await;
    user(&platform).await;

    let wish = json!({"agent_id": agent, "user": "u-42", "channel": {"type": "relay"}, "dynamic_variables": {"topic": "invoices"}});
    let started = platform.ok("POST", "/v1/conversations", Some(wish)).await;
    assert!(!started.to_string().contains("vkcanary"), "no secret leaves with the answer");
    let link = started["signed_url"].as_str().expect("a link");
    let hostile = [
        "--signed-url",
        link,
        "--say",
        "ping",
        "--hear",
        "pong",
        "--user-id",
        "u-1",
        "--variable",
        "mood=calm",
        "--variable",
        "topic=salaries",
        "--variable",
        "user_id=u-1",
        "--variable",
        "secret__user_google_token=mine",
    ];
    let talk = node.run("relay.mjs", &hostile, String::new()).await;
    let said = String::from_utf8_lossy(&talk.stdout).into_owned();
    assert!(talk.status.success(), "{said}\n{}", String::from_utf8_lossy(&talk.stderr));
    assert!(!said.contains("vkcanary"), "no secret reaches the browser");
    let events: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let heard = |text: &str| {
        events.iter().any(|one| one["source"] == "ai" && one["text"].as_str().is_some_and(|t| t.contains(text)))
    };
    // Not asked for the greeting: on Node the client loses what comes in one piece with the metadata.
    assert!(heard("pong"), "{said}");
    let connected = events.iter().find(|one| one["event"] == "connected").expect("connected");

    let sinks = eleven.sinks();
    let received = &sinks["received"][0];
    let (frame, variables) = (&received["frame"], &received["frame"]["dynamic_variables"]);
    assert_eq!(variables["secret__user_google_token"], TOKEN);
    assert_eq!(
        (&variables["topic"], &variables["user_id"], &variables["mood"]),
        (&json!("invoices"), &json!("u-42"), &json!("calm"))
    );
    assert_ne!(frame["user_id"], "u-1", "{frame}");
    assert!(sinks["transcript"].to_string().contains("Hello Ada, about invoices?"), "{}", sinks["transcript"]);
    for sink in ["model_view", "transcript", "post_call", "client_events"] {
        assert!(!sinks[sink].to_string().contains("vkcanary"), "{sink}");
    }

    // A link is for one browser: a second one is sent away before the upgrade.
    let again = node.run("relay.mjs", &["--signed-url", link], String::new()).await;
    assert_eq!(again.status.code(), Some(1));
    let id = started["id"].as_str().expect("an id");
    let conversation = platform.ok("GET", &format!("/v1/conversations/{id}"), None).await;
    assert_eq!(conversation["conversation_id"], connected["conversation_id"]);
    for (kind, secret) in [(Kind::AccessToken, TOKEN), (Kind::RefreshToken, REFRESH_TOKEN)] {
        site.known.borrow_mut().learn(kind, secret);
    }
    site.known.borrow_mut().record("what the client told", &[], talk.stdout);
    site.finish_with_sandbox(house, None, Some(&eleven)).await;
}
