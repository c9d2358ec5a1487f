//! `valetkey demo`: the whole job in one command, once for a check and on a page for a person.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use valetkey::clock::{deadline, pause};
use valetkey::sandbox::person::{Page, Person};
use valetkey::sandbox::platform::Talk;

/// How long anything on one machine may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs the demo in a folder for temporary files that must be empty afterwards.
fn demo(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let output = command(&folder).args(arguments).stdin(Stdio::null()).output().expect("runs");
    assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 0, "something was left behind");
    output
}

fn command(folder: &tempfile::TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_valetkey"));
    command.arg("demo").env_clear().env("TMPDIR", folder.path()).current_dir(folder.path());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn step<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let steps = answer["steps"].as_array().expect("steps");
    steps.iter().find(|step| step["name"] == name).unwrap_or_else(|| panic!("no step {name}: {answer:#}"))
}

#[test]
fn once_plays_the_whole_job_and_finds_no_secret_anywhere() {
    let output = demo(&["--once", "--json"]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let answer: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(answer["ok"], true);
    let none =
        json!({"model_view": 0, "transcript": 0, "post_call": 0, "logs": 0, "metrics": 0, "browser": 0, "database": 0});
    assert_eq!(answer["canary_hits"], none);
    for name in [
        "connect_google",
        "connect_slack",
        "connect_telegram",
        "sealed",
        "fresh",
        "start",
        "inject",
        "expire",
        "refresh_tool",
        "broker_telegram",
        "broker_slack",
        "websocket",
        "end",
        "disconnect",
        "self_test",
        "leak_search",
    ] {
        assert_eq!(step(&answer, name)["ok"], true, "{name}");
    }
    let tested = step(&answer, "self_test")["detail"].as_str().expect("words");
    assert!(tested.contains("all 7 were found"), "{tested}");
    assert!(told.lines().all(|line| line.chars().count() <= 100), "{told}");
    assert!(told.contains("secret__user_google_token") && !told.contains("vkcanary"), "{told}");
}

#[test]
fn for_people_the_story_goes_to_stdout_without_colours() {
    let output = demo(&["--once"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let told = text(&output.stdout);
    assert!(told.contains("Would a leak be found?") && told.contains("all 7"), "{told}");
    assert!(!told.contains('\x1b') && !told.contains("FAILED"), "{told}");
}

#[test]
fn a_refresh_tool_that_does_not_assign_fails_the_demo_in_words() {
    let output = demo(&["--once", "--json", "--fault", "refresh_tool"]);
    assert_eq!(output.status.code(), Some(1));
    let answer: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!((&answer["ok"], &step(&answer, "refresh_tool")["ok"]), (&json!(false), &json!(false)));
    let why = step(&answer, "refresh_tool")["detail"].as_str().expect("words");
    assert!(why.contains("ElevenLabs did not put it into"), "{why}");
    assert!(text(&output.stderr).contains(why), "said to people too");
    assert_eq!(step(&answer, "leak_search")["ok"], true, "still nothing leaked");
}

#[test]
fn a_refresh_tool_that_the_model_could_read_gets_no_token() {
    // AG-07: the vault reads how the tool is set up and gives nothing that would be seen.
    let output = demo(&["--once", "--json", "--fault", "unsanitized"]);
    assert_eq!(output.status.code(), Some(1));
    let answer: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let why = step(&answer, "refresh_tool")["detail"].as_str().expect("words");
    assert!(why.contains("refreshed the token but kept it"), "{why}");
    assert_eq!(answer["canary_hits"]["model_view"], 0);
}

#[test]
fn an_unknown_fault_is_wrong_usage_and_the_names_are_listed() {
    let output = demo(&["--once", "--fault", "gremlin"]);
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output.stderr);
    assert!(told.contains("gremlin") && told.contains("refresh_tool") && told.contains("google_revoked"), "{told}");
    assert_eq!(demo(&["--json"]).status.code(), Some(2), "--json belongs to --once");
}

/// A demo that stays open; killed when it is dropped.
struct Open {
    child: Child,
    page: String,
    folder: tempfile::TempDir,
}

impl Open {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = command(&folder).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines().map(|line| line.expect("a line"));
        let page = lines.find_map(|line| line.trim().strip_prefix("platform page").map(|url| url.trim().to_owned()));
        // The reader stays open until the demo has ended, or it would write to nobody.
        std::thread::spawn(move || lines.count());
        Self { child, page: page.expect("the page's address"), folder }
    }

    fn stop(mut self) -> (Option<i32>, usize) {
        let signalled = Command::new("/bin/sh").args(["-c", &format!("kill -INT {}", self.child.id())]).status();
        assert!(signalled.expect("a shell").success());
        let code = self.child.wait().expect("ends").code();
        (code, std::fs::read_dir(self.folder.path()).expect("listed").count())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks at the page until it shows `wanted`.
async fn look_for(person: &mut Person, url: &str, wanted: &str) -> Page {
    let found = async {
        loop {
            let page = person.get(url).await.expect("the page");
            if page.body.contains(wanted) {
                return page;
            }
            pause(Duration::from_millis(100)).await;
        }
    };
    deadline(LIMIT, found).await.unwrap_or_else(|_| panic!("the page never showed {wanted:?}"))
}

/// A POST as this origin's script would make it; gives status and body.
fn post(url: &str, origin: &str) -> (u16, Value) {
    let url: url::Url = url.parse().expect("a URL");
    let mut stream = TcpStream::connect(url.authority()).expect("connects");
    let (path, host) = (url.path(), url.authority());
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    .expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    (status, serde_json::from_str(body).unwrap_or_default())
}

#[tokio::test]
async fn a_person_clicks_through_the_job_on_the_platforms_page() {
    let open = Open::new();
    let (page, origin) = (open.page.clone(), open.page.trim_end_matches('/').to_owned());
    let mut person = Person::new().expect("a person");
    person.get(&page).await.expect("the page");
    person.submit("connect-google", &[]).await.expect("the platform's form");
    let hosted = person.step().await.expect("the vault's page");
    assert!(!hosted.url.as_str().starts_with(&page), "the vault's own page, not the platform's");
    person.submit("continue", &[]).await.expect("Continue");
    person.step().await.expect("consent page");
    person.consent(true, "ada@example.com", None).await.expect("allowed");
    let back = person.follow().await.expect("back at the platform");
    assert_eq!(back.url.as_str(), page);
    assert!(back.body.contains("Connected google"), "{}", back.body);
    assert!(back.element("disconnect-google").is_some());

    person.submit("connect-telegram", &[]).await.expect("the platform's form");
    person.follow().await.expect("the page");
    person.submit("press-start", &[]).await.expect("Start");
    person.follow().await.expect("the page");
    look_for(
        &mut person,
        &format!("{origin}/panels"),
        "<strong>Telegram</strong>\n      \n        <span class=\"state good\">",
    )
    .await;

    let (status, started) = post(&format!("{origin}/conversation"), &origin);
    assert_eq!(status, 200, "{started}");
    let url = started["signed_url"].as_str().expect("an address");
    let mut talk = Talk::open(url, Some(&origin), &Talk::empty_initiation()).await.expect("a conversation");
    assert!(talk.say("What is my next meeting?").await.expect("an answer").contains("Team meeting"));
    assert_eq!(post(&format!("{origin}/expire"), &origin).0, 303);
    assert!(talk.say("What is my next meeting?").await.expect("an answer").contains("Team meeting"));
    assert!(talk.say("Send it to my Telegram").await.expect("an answer").contains("sent"));
    let shown = look_for(&mut person, &page, "refresh_google").await;
    for words in ["new value for secret__user_google_authorization", "telegram to", "sha256:", "Your next meeting is"] {
        assert!(shown.body.contains(words), "{words}: {}", shown.body);
    }
    assert!(!shown.body.contains("vkcanary") && !talk.received().contains("vkcanary"));
    assert_eq!(post(&format!("{origin}/conversation/end"), &origin).0, 303);
    assert_eq!(talk.closed().await.expect("closed"), 1008);

    person.get(&page).await.expect("the page");
    person.submit("portal", &[]).await.expect("the platform's form");
    let portal = person.follow().await.expect("the vault's page");
    assert_eq!(portal.status, 200);
    assert_eq!(open.stop(), (Some(0), 0), "stopped in good order, and nothing left behind");
}

#[tokio::test]
async fn the_platforms_page_obeys_its_own_forms_only() {
    let open = Open::new();
    let origin = open.page.trim_end_matches('/').to_owned();
    for foreign in ["https://evil.example", "null", "http://127.0.0.1:1"] {
        assert_eq!(post(&format!("{origin}/conversation"), foreign).0, 403, "{foreign}");
    }
}
