//! Where secrets come from, and what is searched for them besides answers.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use valetkey::sandbox::Sandbox;
use valetkey::sandbox::elevenlabs::ElevenLabs;

use super::{Kind, Known};

/// What a log is written on.
#[derive(Clone, Default)]
pub struct Paper(Arc<Mutex<Vec<u8>>>);

impl Paper {
    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().expect("paper").clone()
    }
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("paper").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Known {
    /// Everything that the pretend providers have made.
    pub fn learn_from_sandbox(&mut self, sandbox: &Sandbox) {
        for issued in sandbox.issued() {
            let kind = match issued.kind {
                "access_token" => Kind::AccessToken,
                "refresh_token" => Kind::RefreshToken,
                "client_secret" => Kind::ClientSecret,
                "code" => Kind::Code,
                "bot_token" => Kind::BotToken,
                other => panic!("a new kind of secret: {other}"),
            };
            self.learn(kind, &issued.value);
        }
    }

    /// The key of the pretend ElevenLabs and the tickets that it was given; what a model, a transcript or a browser's
    /// events have shown.
    pub fn learn_and_record_elevenlabs(&mut self, eleven: &ElevenLabs) {
        self.learn(Kind::ElevenLabsKey, &eleven.api_key());
        let sinks = eleven.sinks();
        for frame in sinks["received"].as_array().into_iter().flatten() {
            let ticket = &frame["frame"]["dynamic_variables"]["secret__valetkey_ticket"];
            self.learn(Kind::Ticket, ticket.as_str().unwrap_or_default());
        }
        for place in ["model_view", "transcript", "post_call", "client_events"] {
            self.record(&format!("ElevenLabs {place}"), &[], sinks[place].to_string().into_bytes());
        }
        self.record("ElevenLabs tool calls", &[], eleven.tool_calls().to_string().into_bytes());
    }

    /// Every file of a folder; `allowed` says what a file of this name may hold.
    pub fn record_folder(&mut self, folder: &Path, what: &str, when: &str, allowed: impl Fn(&str) -> &'static [Kind]) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.record(&format!("{what} {name} {when}"), allowed(&name), std::fs::read(&path).expect("read"));
        }
    }
}
