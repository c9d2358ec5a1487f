//! Programs that run on Node: started, listened to, and ended with the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use valetkey::config::ProviderSettings;

use crate::site::Program;
use crate::support::Kind;

/// A Node and a folder of scripts whose packages are installed.
pub struct Node {
    program: PathBuf,
    folder: PathBuf,
}

/// What `scripts/test` says.
#[expect(clippy::disallowed_methods, reason = "scripts/test tells the tests what it installed")]
pub fn told(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Says past the test runner, which would hide it, that a test proves nothing here.
pub fn skipped(wanted: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {wanted} is not set; scripts/test sets it");
}

impl Node {
    /// The third-party counterparts. None, said loudly, where nobody installed them.
    pub fn with_counterparts() -> Option<Self> {
        Self::with("VK_TEST_COUNTERPARTS")
    }

    /// Scripts in the folder that `variable` names.
    pub fn with(variable: &str) -> Option<Self> {
        let found = told("VK_TEST_NODE").zip(told(variable));
        if found.is_none() {
            skipped(&format!("VK_TEST_NODE or {variable}"));
        }
        found.map(|(program, folder)| Self { program: program.into(), folder: folder.into() })
    }

    fn command(&self, script: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(self.folder.join(script)).args(arguments).current_dir(&self.folder);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts a server in a provider's manner and waits until it listens.
    pub fn manner(&self, script: &str, arguments: &[&str]) -> Manner {
        let mut child = self.command(script, arguments).arg("--with-parent").spawn().expect("starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
        let mut stderr = child.stderr.take().expect("stderr");
        let said = Arc::new(Mutex::new(String::new()));
        let kept = said.clone();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = stderr.read(&mut piece) {
                kept.lock().expect("lock").push_str(&String::from_utf8_lossy(&piece[..length]));
            }
        });
        let line = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{script} did not start: {line}"));
        Manner { line, child, said }
    }

    /// Runs a script to its end with `input` on its stdin, while the house goes on.
    pub async fn run(&self, script: &str, arguments: &[&str], input: String) -> Output {
        let mut child = self.command(script, arguments).spawn().expect("starts");
        let running = tokio::task::spawn_blocking(move || {
            let mut stdin = child.stdin.take().expect("stdin");
            // A script that does not read has closed its end, which is its right.
            let _ = stdin.write_all(input.as_bytes());
            drop(stdin);
            child.wait_with_output().expect("ends")
        });
        running.await.expect("no panic")
    }
}

/// A strict third-party provider that is running. It ends when this is dropped.
pub struct Manner {
    line: Value,
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Manner {
    /// A field of the line with which it announced itself.
    pub fn told(&self, name: &str) -> &str {
        self.line[name].as_str().unwrap_or_else(|| panic!("the manner does not announce {name}"))
    }

    /// The settings that point the house at it.
    pub fn settings(&self) -> ProviderSettings {
        let url = |name: &str| self.line[name].as_str().map(|text| text.parse().expect("a URL"));
        ProviderSettings {
            authorize_url: url("authorize_url"),
            token_url: url("token_url"),
            revoke_url: url("revoke_url"),
            userinfo_url: url("userinfo_url"),
            jwks_url: url("jwks_url"),
            issuer: self.line["issuer"].as_str().map(str::to_owned),
            api_base_url: url("api_base_url"),
            ..ProviderSettings::default()
        }
    }

    /// Its client's secret, and everything that it has issued.
    pub async fn secrets(&self) -> Vec<(Kind, String)> {
        let mut secrets = vec![(Kind::ClientSecret, self.told("client_secret").to_owned())];
        let url = self.told("token_url").parse::<url::Url>().expect("a URL").join("/issued").expect("a path");
        let issued = Program::new(url.as_str()).ok("GET", "", None).await;
        for (name, kind) in
            [("access_tokens", Kind::AccessToken), ("refresh_tokens", Kind::RefreshToken), ("codes", Kind::Code)]
        {
            let values = issued[name].as_array().expect("a list");
            assert!(!values.is_empty() || self.line["refreshes"] == false, "the other side has issued {name}");
            secrets.extend(values.iter().map(|value| (kind, value.as_str().expect("a text").to_owned())));
        }
        secrets
    }

    /// `host:port`.
    pub fn authority(&self) -> String {
        let url: url::Url = self.told("token_url").parse().expect("a URL");
        url.authority().to_owned()
    }
}

impl Drop for Manner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let said = self.said.lock().expect("lock");
            let _ = writeln!(std::io::stderr(), "the strict side said:\n{said}");
        }
    }
}
