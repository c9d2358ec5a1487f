//! The script of `docs/OPERATIONS.md`, run as it stands there: from an empty folder to a token and a started
//! conversation, by shell only.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use valetkey::clock::Surroundings;
use valetkey::sandbox::elevenlabs::ElevenLabs;
use valetkey::sandbox::person::Person;
use valetkey::sandbox::{Sandbox, SandboxOptions};

use crate::support::{Kind, Known};

const CLIENT: &str = "walkthrough";
const SECRET: &str = "vkcanary-walkthrough-client-secret";
const BACK: &str = "https://acme.example/back";
const SCOPES: &str = "https://www.googleapis.com/auth/gmail.readonly";

/// The one fenced block after the marker.
fn script() -> &'static str {
    let text = include_str!("../../docs/OPERATIONS.md");
    let (_, after) = text.split_once("<!-- walkthrough -->\n```sh\n").expect("the marker");
    after.split_once("\n```").expect("the end of the block").0
}

/// A token set as a platform would already hold it: a person has consented, the code was exchanged.
async fn tokens(sandbox: &Sandbox) -> Value {
    let client = json!({"provider": "google", "client_id": CLIENT, "client_secret": SECRET, "redirect_uris": [BACK]});
    sandbox.tell("/clients", &client).await.expect("registered");
    let mut url = sandbox.google.join("o/oauth2/v2/auth").expect("url");
    url.query_pairs_mut().extend_pairs([
        ("client_id", CLIENT),
        ("redirect_uri", BACK),
        ("response_type", "code"),
        ("scope", SCOPES),
        ("state", "a-state-of-its-own"),
        ("access_type", "offline"),
        ("prompt", "consent"),
    ]);
    let mut person = Person::new().expect("a person");
    person.get(url.as_str()).await.expect("the consent page");
    person.consent(true, "ada@example.com", None).await.expect("consents");
    let back = person.page().and_then(|page| page.location()).expect("back to the client");
    let code = back.query_pairs().find(|(name, _)| name == "code").map(|(_, code)| code.into_owned()).expect("a code");
    let form = [
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("redirect_uri", BACK),
        ("client_id", CLIENT),
        ("client_secret", SECRET),
    ];
    #[expect(clippy::disallowed_methods, reason = "the test plays a platform, not the house")]
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let token_url = sandbox.google.join("token").expect("url");
    http.post(token_url).form(&form).send().await.expect("answers").json().await.expect("JSON")
}

async fn agent(elevenlabs: &ElevenLabs) -> String {
    let body = json!({"name": "Walkthrough", "conversation_config": {"agent": {"first_message": "Hello {{ user_name }}.",
        "prompt": {"prompt": "Help."}}}});
    #[expect(clippy::disallowed_methods, reason = "the test plays an ElevenLabs customer, not the house")]
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let url = elevenlabs.base.join("v1/convai/agents/create").expect("url");
    let answer: Value = http
        .post(url)
        .header("xi-api-key", elevenlabs.api_key())
        .json(&body)
        .send()
        .await
        .expect("answers")
        .json()
        .await
        .expect("JSON");
    answer["agent_id"].as_str().expect("an id").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_script_in_the_operations_guide_leads_from_nothing_to_a_token_and_a_conversation() {
    valetkey::outbound::install_crypto_provider();
    let sandbox = Sandbox::start(SandboxOptions::new(Surroundings::system())).await.expect("a sandbox");
    let elevenlabs = ElevenLabs::start(Surroundings::system()).await.expect("a stand-in");
    let tokens = tokens(&sandbox).await;
    let agent = agent(&elevenlabs).await;
    let folder = tempfile::tempdir().expect("a folder");
    let program = Path::new(env!("CARGO_BIN_EXE_valetkey")).parent().expect("its folder").display().to_string();
    let mut settings = sandbox.settings();
    let allow = settings.iter().position(|(name, _)| name == "VALETKEY_OUTBOUND_ALLOW").expect("an allow list");
    let host = format!("127.0.0.1:{}", elevenlabs.base.port().expect("a port"));
    settings[allow].1 = format!("{},{host}", settings[allow].1);
    let mut command = Command::new("bash");
    command
        .args(["-c", &format!("{}\nprintf %s \"$KEY\" > platform.key", script())])
        .current_dir(folder.path())
        .env_clear()
        .env("PATH", format!("{program}:/usr/local/bin:/usr/bin:/bin"))
        .env("VALETKEY_BIND", "127.0.0.1:0")
        .env("VALETKEY_ADMIN_BIND", "127.0.0.1:0")
        .env("VALETKEY_ELEVENLABS__BASE_URL", elevenlabs.base.as_str())
        .env("GOOGLE_CLIENT_ID", CLIENT)
        .env("GOOGLE_CLIENT_SECRET", SECRET)
        .env("GOOGLE_ACCESS_TOKEN", tokens["access_token"].as_str().expect("a token"))
        .env("GOOGLE_REFRESH_TOKEN", tokens["refresh_token"].as_str().expect("a token"))
        .env("GOOGLE_ACCOUNT_ID", "108000000000000000001")
        .env("ELEVENLABS_API_KEY", elevenlabs.api_key())
        .env("AGENT_ID", agent)
        .envs(settings);
    let done = tokio::task::spawn_blocking(move || command.output().expect("runs")).await.expect("ends");
    let log = std::fs::read_to_string(folder.path().join("serve.log")).unwrap_or_default();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{said}\n{}\n{log}", String::from_utf8_lossy(&done.stderr));
    assert!(!log.is_empty(), "the log was written");
    let file = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("written");
    let token: Value = serde_json::from_str(&file("token.json")).expect("JSON");
    assert!(token["access_token"].as_str().is_some_and(|token| token.starts_with("ya29.")), "a token came out");
    assert_ne!(token["access_token"], tokens["access_token"], "the expired one was refreshed");
    let conversation: Value = serde_json::from_str(&file("conversation.json")).expect("JSON");
    assert!(
        conversation["signed_url"].as_str().is_some_and(|url| url.starts_with("ws://127.0.0.1:")),
        "{conversation}"
    );

    // Nothing is secret in all that was left behind, but for the files that are there to hold a secret (SH-01).
    let mut known = Known::default();
    known.learn_from_sandbox(&sandbox);
    known.learn_and_record_elevenlabs(&elevenlabs);
    known.learn(Kind::RootKey, file("root.key").trim());
    known.learn(Kind::PlatformKey, &file("platform.key"));
    known.learn_from_answer(&file("token.json"));
    known.learn_from_answer(&file("conversation.json"));
    let header = file("workspace.txt").split_whitespace().find(|word| word.starts_with("vkw_")).map(str::to_owned);
    known.learn(Kind::ToolHeader, &header.expect("the value for the agent's tools"));
    known.record("what the script said", &[Kind::RelayLink], done.stdout);
    known.record("what the script complained of", &[], done.stderr);
    known.record_folder(folder.path(), "file", "at the end", may_hold);
    let findings = known.search();
    assert!(findings.is_empty(), "secrets were found (SH-01): {findings:#?}");
    // The files were looked at: without their excuse each of them is found.
    known.record_folder(folder.path(), "without an excuse", "", |_| &[]);
    let found: BTreeSet<String> = known.search().into_iter().map(|one| one.sink).collect();
    for name in ["root.key", "platform.key", "token.json", "conversation.json", "workspace.txt"] {
        assert!(found.contains(&format!("without an excuse {name} ")), "{found:?}");
    }
    assert_eq!(found.len(), 5, "{found:?}");
}

/// The files of the script that are there to hold a secret, and of which kind.
fn may_hold(name: &str) -> &'static [Kind] {
    match name {
        "root.key" => &[Kind::RootKey],
        "platform.key" => &[Kind::PlatformKey],
        "workspace.txt" => &[Kind::ToolHeader],
        "token.json" => &[Kind::AccessToken],
        "conversation.json" => &[Kind::RelayLink],
        _ => &[],
    }
}
