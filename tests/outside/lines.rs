//! The lines of `docs/CONNECT.md`, as they stand there: a platform in three languages lets a user connect.

use std::process::Command;

use serde_json::{Value, json};
use valetkey::clock::Surroundings;
use valetkey::sandbox::person::Person;

use crate::browser::{ACCOUNT, Chromium, Stage};
use crate::node::{skipped, told};
use crate::site::{ORIGIN, RETURN_URL, follow_to_platform};
use crate::support::Kind;

const GUIDE: &str = include_str!("../../docs/CONNECT.md");

/// The first block of this language.
fn lines(language: &str) -> &'static str {
    blocks(language).next().expect("a block of this language")
}

fn blocks(language: &str) -> impl Iterator<Item = &'static str> {
    let fence = format!("```{language}\n");
    let after: Vec<&str> = GUIDE.split(&fence).skip(1).collect();
    after.into_iter().map(|rest| rest.split("```").next().unwrap_or_default())
}

/// A language: its name in the guide, who runs it, and what calls its functions with the words of the command line.
const LANGUAGES: [(&str, &str, &str); 3] = [
    (
        "js",
        "VK_TEST_NODE",
        "const [call, user, query] = process.argv.slice(2);
         console.log(JSON.stringify(await (call === 'connect' ? connect(user) : back(user, new URLSearchParams(query)))));",
    ),
    (
        "python",
        "VK_TEST_PYTHON",
        "import sys, urllib.parse\ncall, user, query = sys.argv[1:]\nquery = dict(urllib.parse.parse_qsl(query))\n\
         print(json.dumps(connect(user) if call == 'connect' else back(user, query)))",
    ),
    (
        "sh",
        "VK_TEST_CURL",
        "field() { printf '%s' \"$query\" | tr '&' '\\n' | sed -n \"s/^$1=//p\"; }
         call=\"$1\" user=\"$2\" query=\"$3\"
         if [ \"$call\" = connect ]; then connect \"$user\"; else back \"$user\" \"$(field connect_session)\" \"$(field completion_code)\"; fi",
    ),
];

/// Runs a language's lines with this call, as a platform's back end would; gives what it printed.
async fn run(stage: &Stage, (language, program, end): (&str, &str, &str), arguments: [&str; 3]) -> Value {
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join(if language == "js" { "lines.mjs" } else { "lines" });
    std::fs::write(&script, format!("{}\n{end}\n", lines(language))).expect("written");
    let mut command = Command::new(if language == "sh" { "sh".to_owned() } else { told(program).expect("told") });
    command.arg(&script).args(arguments);
    command.env("VALETKEY_URL", stage.site.base()).env("VALETKEY_KEY", &stage.tenant.key).env("no_proxy", "127.0.0.1");
    let output = tokio::task::spawn_blocking(move || command.output().expect("runs")).await.expect("no panic");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{language}: {said}\n{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&said).unwrap_or_else(|_| panic!("{language}: {said}"))
}

// WB-12
#[tokio::test]
async fn the_button_of_the_guide_connects_in_a_popup() {
    let Some(chromium) = Chromium::find() else { return };
    let stage = Stage::set(Surroundings::system()).await;
    let snippet = lines("html").replace("https://vault.example", &stage.site.base());
    let given = json!({"base": stage.site.base(), "origin": ORIGIN, "key": stage.tenant.key, "snippet": snippet, "account": ACCOUNT});
    chromium.play(&stage.site.known, "button", given).await;
    let list = stage.platform.ok("GET", "/v1/connections?user=u-42", None).await;
    assert_eq!(list["data"][0]["status"], "active", "{list}");
    stage.finish(None).await;
}

// OA-15
#[tokio::test]
async fn the_form_of_the_guide_connects_from_a_page_of_the_platforms_own() {
    let Some(chromium) = Chromium::find() else { return };
    let stage = Stage::set(Surroundings::system()).await;
    let link = stage.link(json!({"return_url": RETURN_URL})).await;
    let form = blocks("html").nth(1).expect("a form");
    let form = form.replace("https://vault.example/connect/…", link["url"].as_str().expect("a link"));
    let given = json!({"base": stage.site.base(), "origin": ORIGIN, "elsewhere": "https://elsewhere.example", "form": form, "account": ACCOUNT});
    let told = chromium.play(&stage.site.known, "own_page", given).await;
    stage.confirm(&told).await;
    assert_eq!(stage.exchanges_and_connections().await, (1, 1));
    stage.finish(None).await;
}

#[tokio::test]
async fn the_lines_of_the_guide_connect_a_user_in_three_languages() {
    for (_, program, _) in LANGUAGES {
        if told(program).is_none() {
            return skipped(program);
        }
    }
    let stage = Stage::set(Surroundings::system()).await;
    for language in LANGUAGES {
        assert!(lines(language.0).lines().filter(|line| !line.trim().is_empty()).count() <= 12, "ten lines or so");
        let link = run(&stage, language, ["connect", "u-42", ""]).await;
        let url = link["url"].as_str().expect("a link");
        stage.site.known.borrow_mut().learn(Kind::Link, url.rsplit('/').next().expect("a token"));
        let mut person = Person::new().expect("a person");
        person.get(url).await.expect("a page");
        person.submit("continue", &[]).await.expect("continues");
        person.step().await.expect("the provider");
        person.consent(true, ACCOUNT, None).await.expect("consents");
        let back = follow_to_platform(&mut person).await.location().expect("the platform");
        let code = back.query_pairs().find(|(name, _)| name == "completion_code").expect("a code").1.into_owned();
        stage.site.known.borrow_mut().learn(Kind::CompletionCode, &code);
        let connection = run(&stage, language, ["back", "u-42", back.query().expect("a query")]).await;
        let (status, email) = (&connection["status"], &connection["account"]["email"]);
        assert_eq!((status, email), (&json!("active"), &json!(ACCOUNT)), "{}", language.0);
        let path = format!("/v1/connections/{}", connection["id"].as_str().expect("an id"));
        stage.platform.ok("DELETE", &path, None).await;
    }
    stage.finish(None).await;
}
