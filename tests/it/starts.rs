//! Starting and stopping, with and without the right root key, and the commands beside a running `serve`.

use serde_json::Value;

use crate::program::{Bench, Postgres, get, mode_of, stderr};

/// Bases of keys that are no keys, or not this database's: (what it is, what the message says, the variable's text).
const WRONG_KEYS: &[(&str, &str, Option<&str>)] = &[
    ("none", "no root key is set", None),
    ("empty", "it is empty", Some("")),
    ("short", "32 bytes", Some("c2hvcnQ=")),
    ("a number", "not usable", Some("12345678")),
    ("not base64", "not base64", Some("this is no key")),
    ("all zero", "all zero", Some("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")),
    ("another's", "does not belong to this database", Some("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")),
];

/// What each wrong key is tried on.
const COMMANDS: &[&[&str]] = &[&["serve"], &["migrate"], &["tenant", "create", "late"]];

fn fill(bench: &Bench) {
    bench.json(&["tenant", "create", "acme", "--json"]);
    bench.json(&["api-key", "create", "--tenant", "acme", "--name", "backend", "--scopes", "all", "--json"]);
}

/// Runs every command with every wrong key; `unchanged` looks at the database after each.
fn refuse_every_wrong_key(mut bench: Bench, mut unchanged: impl FnMut(&Bench, &str)) {
    bench = bench.without("VALETKEY_ROOT_KEY_FILE");
    for (what, message, text) in WRONG_KEYS {
        bench = match text {
            Some(text) => bench.with("VALETKEY_ROOT_KEY", text),
            None => bench.without("VALETKEY_ROOT_KEY"),
        };
        for command in COMMANDS {
            let output = bench.run(command);
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(1), "{what}, {command:?}: {said}");
            assert!(said.contains(message) && said.contains("\nnext: "), "{what}, {command:?}: {said}");
            assert!(output.stdout.is_empty(), "{what}, {command:?} wrote to stdout");
            unchanged(&bench, what);
        }
    }
    let bench = bench.without("VALETKEY_ROOT_KEY").with("VALETKEY_ROOT_KEY_FILE", "/nowhere/root.key");
    let output = bench.run(&["serve"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    unchanged(&bench, "no file");
}

#[test]
fn without_the_right_root_key_nothing_starts_and_no_byte_changes() {
    // CR-07, CR-08
    let bench = Bench::new();
    fill(&bench);
    let before = (bench.names(), bench.bytes());
    refuse_every_wrong_key(bench, |bench, what| {
        assert_eq!(bench.names(), before.0, "{what}: a file was made");
        assert!(bench.bytes() == before.1, "{what}: the files have changed");
    });
}

#[test]
fn a_wrong_root_key_does_not_even_tidy_up_after_a_killed_server() {
    // CR-07: what was committed lies in the write-ahead log; a checkpoint would change the database's bytes.
    let bench = Bench::new();
    let server = bench.serve();
    fill(&bench);
    server.stop("KILL");
    let before = bench.bytes();
    assert!(before.iter().any(|(name, _)| name.ends_with("-wal")), "the log was left");
    let bench = bench.without("VALETKEY_ROOT_KEY_FILE");
    for (what, _, text) in WRONG_KEYS {
        let bench = Bench::with_settings_of(&bench, text.map(|text| ("VALETKEY_ROOT_KEY", text)));
        assert_eq!(bench.run(&["serve"]).status.code(), Some(1), "{what}");
        assert_eq!(bench.run(&["doctor"]).status.code(), Some(1), "{what}");
    }
    assert!(bench.bytes() == before, "the files have changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_root_key_no_row_changes_on_postgres() {
    // CR-07, CR-08
    let Some(postgres) = Postgres::new("wrong_keys").await else { return };
    let bench = Bench::new().with("VALETKEY_DATABASE_URL", &postgres.url);
    fill(&bench);
    let before = postgres.rows().await;
    assert!(before.iter().any(|row| row.starts_with("tenant_keys ")), "the database is filled");
    let handle = tokio::runtime::Handle::current();
    let looking = &postgres;
    tokio::task::block_in_place(|| {
        refuse_every_wrong_key(bench, |_, what| {
            assert!(handle.block_on(looking.rows()) == before, "{what}: rows have changed");
        });
    });
    postgres.drop_database().await;
}

#[test]
fn without_a_root_key_an_empty_folder_stays_empty() {
    let bench = Bench::without_key();
    for command in COMMANDS {
        assert_eq!(bench.run(command).status.code(), Some(1));
    }
    assert!(bench.bytes().is_empty(), "nothing was made");
}

#[test]
fn serve_says_one_line_answers_health_and_ends_with_status_0() {
    // RL-32
    let bench = Bench::new();
    for signal in ["TERM", "INT"] {
        let server = bench.serve();
        let (public, admin) = (&server.public, &server.admin);
        let line = format!("{{\"event\":\"listening\",\"public\":\"http://{public}\",\"admin\":\"http://{admin}\"}}\n");
        assert_eq!(server.line, line);
        for file in ["vault.db", "vault.db-wal", "vault.db.lock"] {
            assert_eq!(mode_of(&bench.path(file)), 0o600, "{file}");
        }
        let health = get(&server.admin, "/healthz", "");
        assert!(health.starts_with("HTTP/1.1 200"), "{health}");
        assert!(get(&server.admin, "/readyz", "").starts_with("HTTP/1.1 200"));
        assert!(get(&server.admin, "/metrics", "").contains("valetkey_job_runs_total"));
        assert!(get(&server.public, "/metrics", "").starts_with("HTTP/1.1 404"), "metrics are not public");
        let (status, rest, errors) = server.stop(signal);
        assert_eq!((status, rest.as_str()), (Some(0), ""), "{signal}: {errors}");
        // stderr is no terminal here, so the log is JSON lines.
        assert!(errors.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{errors}");
    }
    assert!(!bench.path("vault.db-wal").exists(), "the database was closed in good order");
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_runs_on_postgres() {
    let Some(postgres) = Postgres::new("serves").await else { return };
    let bench = Bench::new().with("VALETKEY_DATABASE_URL", &postgres.url);
    tokio::task::block_in_place(|| {
        let (one, two) = (bench.serve(), bench.serve());
        fill(&bench);
        let key = bench.file("elevenlabs.key", "sk_of_a_story\n");
        let set = ["workspace", "set", "main", "--tenant", "acme", "--api-key-file", &key, "--json"];
        let workspace = bench.json(&set);
        let url = workspace["events_url"].as_str().expect("a URL");
        assert!(url.starts_with(&format!("http://{}/", two.public)), "the address of the last that started: {url}");
        for server in [one, two] {
            assert!(get(&server.admin, "/readyz", "").starts_with("HTTP/1.1 200"));
            assert_eq!(server.stop("TERM").0, Some(0));
        }
        assert!(bench.run(&["doctor"]).status.success());
        refuses_to_name_urls(&bench);
    });
    postgres.drop_database().await;
}

#[test]
fn commands_work_beside_a_running_serve() {
    let bench = Bench::new();
    let server = bench.serve();
    let tenant = bench.json(&["tenant", "create", "acme", "--environment", "test", "--json"]);
    assert!(tenant["id"].as_str().is_some_and(|id| id.starts_with("ten_")) && tenant["name"] == "acme");
    let key = bench.json(&["api-key", "create", "--tenant", "acme", "--name", "b", "--scopes", "all", "--json"]);
    let secret = key["secret"].as_str().expect("a secret");
    assert!(secret.starts_with("vk_test_"), "a test tenant's key");
    let me = get(&server.public, "/v1/me", &format!("Authorization: Bearer {secret}\r\n"));
    assert!(me.starts_with("HTTP/1.1 200") && me.contains("acme"), "{me}");

    let file = bench.file("client.secret", "s3cret\n");
    let set = ["integration", "set", "google", "--tenant", "acme", "--client-id", "c1", "--scopes", "openid,email"];
    let integration = bench.json(&[&set[..], &["--client-secret-file", &file, "--json"]].concat());
    let redirect = format!("http://{}/oauth/google/callback/", server.public);
    let uri = integration["redirect_uri"].as_str().expect("a URI");
    assert!(uri.starts_with(&redirect), "the bound address is used: {uri}");
    let again = bench.run_with_input(&[&set[..], &["--client-secret-file", "-", "--json"]].concat(), "other\n");
    let again: Value = serde_json::from_slice(&again.stdout).expect("one JSON object");
    assert_eq!(again["id"], integration["id"], "the integration survives");
    bench.json(&["integration", "set", "google", "--tenant", "acme", "--client-id", "c1", "--json"]);
    let authorization = format!("Authorization: Bearer {secret}\r\n");
    let shown = get(&server.public, "/v1/integrations/google", &authorization);
    assert!(shown.contains(r#""scopes":["openid","email"]"#), "scopes that are not named stay: {shown}");

    let link = bench.json(&["setup-link", "--json"]);
    let page = link["url"].as_str().and_then(|url| url.strip_prefix(&format!("http://{}", server.public)));
    let page = get(&server.public, page.expect("a link to the bound address"), "");
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");

    let password = bench.file("password", "correct horse battery staple\n");
    let member = ["member", "create", "--tenant", "acme", "--email", "ada@acme.example", "--password-file", &password];
    let member = bench.json(&[&member[..], &["--role", "owner", "--json"]].concat());
    assert!(member["id"].as_str().is_some_and(|id| id.starts_with("mem_")));
    let closed = bench.run(&["setup-link"]);
    assert_eq!(closed.status.code(), Some(1));
    assert!(stderr(&closed).contains("set-up is closed"), "{}", stderr(&closed));
    assert_eq!(server.stop("TERM").0, Some(0));
}

/// With port 0 and no `serve` there is no address: nothing is printed, and nothing is set either.
fn refuses_to_name_urls(bench: &Bench) {
    let secret = bench.file("client.secret", "s3cret\n");
    let client = ["--tenant", "acme", "--client-id", "c2", "--client-secret-file", &secret, "--scopes", "openid"];
    let commands: [&[&str]; 3] = [
        &[&["integration", "set", "google"][..], &client].concat(),
        &["setup-link"],
        &["workspace", "set", "other", "--tenant", "acme", "--api-key-file", &secret],
    ];
    for command in commands {
        let output = bench.run(command);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
        assert!(
            output.stdout.is_empty() && said.contains("VALETKEY_PUBLIC_URL") && said.contains("\nnext: "),
            "{said}"
        );
        let found = Bench::with_settings_of(bench, Some(("VALETKEY_PUBLIC_URL", "https://vault.example")));
        let output = found.run(command);
        assert!(output.status.success(), "{command:?}: {}", stderr(&output));
        assert!(String::from_utf8_lossy(&output.stdout).contains("https://vault.example/"), "{command:?}");
    }
}

#[test]
fn commands_that_name_urls_need_an_address() {
    // API.md section 6, point 12
    let bench = Bench::new();
    bench.json(&["tenant", "create", "acme", "--json"]);
    refuses_to_name_urls(&bench);
    for text in ["ftp://vault.example", "https://ada:canary@vault.example", "https://vault.example/?q=canary"] {
        let output = Bench::with_settings_of(&bench, Some(("VALETKEY_PUBLIC_URL", text))).run(&["serve"]);
        let said = stderr(&output);
        assert!(output.status.code() == Some(1) && said.contains("PUBLIC_URL") && !said.contains("canary"), "{said}");
    }
}

#[test]
fn a_second_serve_on_the_same_file_is_refused() {
    // RL-30
    let bench = Bench::new();
    let first = bench.serve();
    let second = bench.run(&["serve"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("another `valetkey serve`"), "{}", stderr(&second));
    assert!(get(&first.admin, "/healthz", "").starts_with("HTTP/1.1 200"), "the first one goes on");
}

#[test]
fn wrong_usage_ends_with_status_2_and_says_so_on_stderr() {
    let bench = Bench::new();
    let commands: &[&[&str]] = &[
        &[],
        &["fly"],
        &["serve", "--fast"],
        &["tenant", "create"],
        &["tenant", "create", "x", "--environment", "moon"],
        &["api-key", "create", "--tenant", "x", "--name", "y"],
        &["api-key", "create", "--tenant", "x", "--name", "y", "--scopes", "everything"],
        &["member", "create", "--tenant", "x", "--email", "e@x.example", "--password-file", "p"],
        &["integration", "set", "--tenant", "x"],
        &["key", "generate"],
        &["doctor", "--config", "nowhere.toml"],
    ];
    for command in commands {
        let output = bench.run(command);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {}", stderr(&output));
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{command:?}");
    }
    for help in [&["--help"][..], &["serve", "--help"], &["config", "--help"], &["--version"]] {
        assert!(bench.run(help).status.success(), "{help:?}");
    }
}

#[test]
fn a_missing_tenant_is_status_1_with_a_next_step() {
    let bench = Bench::new();
    let output = bench.run(&["api-key", "create", "--tenant", "nobody", "--name", "n", "--scopes", "all"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("next: make it with `valetkey tenant create nobody`"), "{}", stderr(&output));
    bench.json(&["tenant", "create", "acme", "--json"]);
    let twice = bench.run(&["tenant", "create", "acme"]);
    assert_eq!(twice.status.code(), Some(1));
    assert!(stderr(&twice).contains("next: "), "{}", stderr(&twice));
}

#[test]
fn a_root_key_is_private_and_its_status_can_be_asked() {
    // CR-07
    let bench = Bench::new();
    let file = bench.path("root.key");
    assert_eq!(mode_of(&file), 0o600);
    let again = bench.run(&["key", "generate", "--out", &file.display().to_string()]);
    assert_eq!(again.status.code(), Some(1));
    let status = bench.json(&["key", "status", "--json"]);
    assert_eq!(status["proven"], false, "an empty database knows no key");
    assert!(!bench.path("vault.db").exists(), "asking makes no database");
    bench.json(&["migrate", "--json"]);
    let proven = bench.json(&["key", "status", "--json"]);
    assert_eq!((&proven["proven"], &proven["id"]), (&Value::Bool(true), &status["id"]));
}

#[test]
fn doctor_finds_what_is_wrong_and_changes_nothing() {
    let bench = Bench::new();
    let well = bench.json(&["doctor", "--json"]);
    assert_eq!(well["ok"], true, "{well}");
    assert!(!bench.path("vault.db").exists(), "looking makes no database");
    for (name, value, check) in [
        ("VALETKEY_PUBLIC_URL", "http://vault.example", "public URL"),
        ("VALETKEY_OUTBOUND_ALLOW", "10.0.0.1", "outgoing calls"),
        ("VALETKEY_PROVIDERS__GOOGLE__PKCE", "plain", "providers"),
        ("VALETKEY_ROOT_KEY_FILE", "/nowhere/root.key", "root key"),
        ("VALETKEY_DATABASE_URL", "mysql://x", "database"),
    ] {
        let ill = Bench::with_settings_of(&bench, Some((name, value)));
        let output = ill.run(&["doctor", "--json"]);
        assert_eq!(output.status.code(), Some(1), "{name}");
        let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        let found = report["checks"].as_array().expect("checks").iter().find(|one| one["name"] == check);
        let found = found.expect("the check");
        assert_eq!(found["ok"], false, "{name}: {report}");
        assert!(found["next"].is_string(), "{name}: {report}");
    }
}

#[test]
fn settings_are_shown_without_secrets_and_misspelt_ones_named() {
    // SH-01
    let bench = Bench::new()
        .with("VALETKEY_ROOT_KEY", "dmtjYW5hcnk=")
        .with("VALETKEY_DATABASE_URL", "postgres://u:vkcanary@127.0.0.1:1/d");
    for arguments in [&["config"][..], &["config", "--json"]] {
        let output = bench.run(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("127.0.0.1:0"), "{text}");
        assert!(!text.contains("vkcanary") && !text.contains("dmtjYW5hcnk"), "{text}");
    }
    let unreachable = bench.without("VALETKEY_ROOT_KEY");
    let output = unreachable.run(&["migrate"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!stderr(&output).contains("vkcanary"), "{}", stderr(&output));
    let misspelt = unreachable.with("VALETKEY_BINDD", "x").run(&["config"]);
    assert_eq!(misspelt.status.code(), Some(1));
    assert!(stderr(&misspelt).contains("bindd"), "{}", stderr(&misspelt));
}

#[test]
fn the_api_document_is_printed_as_json() {
    let document = Bench::without_key().json(&["openapi"]);
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")), "{document}");
    assert!(document["paths"]["/v1/me"].is_object());
}
