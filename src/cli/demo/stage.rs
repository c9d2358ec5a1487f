//! The stage: the town, a person with a browser, and the conversations. Every step is one function that acts, looks at
//! what came of it, and says so in plain words.

use data_encoding::HEXLOWER;
use serde_json::Value;
use sha2::{Digest, Sha256};
use url::form_urlencoded;

use super::leaks::{Hidden, Places, Search, database_bytes};
use super::town::Town;
use crate::cli::trouble::Trouble;
use crate::keys::fingerprint_of;
use crate::sandbox::person::{Page, Person, PersonError};
use crate::sandbox::platform::{ACCOUNT, GOOGLE_VARIABLE, Talk};

/// What a step says: how it went, or why not.
pub(super) type Said = Result<String, String>;

/// Everybody, in the middle of the play.
pub(super) struct Stage {
    pub(super) town: Town,
    person: Person,
    /// Every page that the person's browser got.
    pages: Vec<Page>,
    relay: Option<(String, Talk)>,
    /// `sanitized` or `status_only`, as the vault said at the start.
    refresh_tool: String,
    backend: Option<(String, Talk)>,
    /// What relays sent to browsers that are closed by now.
    heard: String,
}

fn why(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

impl Stage {
    pub(super) fn new(town: Town) -> Result<Self, Trouble> {
        let person = Person::new().map_err(|error| Trouble::new(error.to_string()))?;
        Ok(Self {
            town,
            person,
            pages: Vec::new(),
            relay: None,
            refresh_tool: String::new(),
            backend: None,
            heard: String::new(),
        })
    }

    pub(super) fn opened(&self) -> Said {
        Ok(format!(
            "The vault serves {} with SQLite and a fresh root key in {}. Beside it, each on a port of its own: a \
             pretend Google, Slack, Telegram and ElevenLabs, and the platform at {}. The platform has told the vault \
             its OAuth clients, and ElevenLabs its agent with five tools.",
            self.town.app.public_url(),
            self.town.folder.path().display(),
            self.town.platform.base,
        ))
    }

    // --- connecting ---

    /// The person follows the platform's one-time link through the vault to the provider and back.
    pub(super) async fn connect(&mut self, provider: &str, name: &str) -> Said {
        let (session, link) = self.town.platform.connect(provider).await.map_err(why)?;
        self.person.get(&link).await.map_err(why)?;
        let shown = self.seen()?;
        expect(shown.status == 200, || format!("the vault's connect page answered {}", shown.status))?;
        self.person.submit("continue", &[]).await.map_err(why)?;
        let sent = self.seen()?;
        expect(sent.location().is_some(), || format!("Continue answered {} and leads nowhere", sent.status))?;
        self.person.step().await.map_err(why)?;
        self.seen()?;
        self.person.consent(true, ACCOUNT, None).await.map_err(why)?;
        self.seen()?;
        loop {
            match self.person.step().await {
                Ok(_) => self.seen()?,
                Err(PersonError::Redirects) => break,
                Err(other) => return Err(why(other)),
            };
        }
        let connection = self.town.platform.connected(provider).await.map_err(why)?;
        let state = self.town.platform.connect_session(&session).await.map_err(why)?;
        expect(state["state"] == "completed", || format!("the connect session is {}", state["state"]))?;
        Ok(format!(
            "{ACCOUNT} opened the vault's one-time link, pressed Continue, agreed at {name} and came back to the \
             platform, which confirmed that it was the right person. Only then did the vault exchange {name}'s code \
             for tokens. Scopes: {}.",
            scopes(&connection),
        ))
    }

    pub(super) async fn connect_telegram(&mut self) -> Said {
        let link = self.town.platform.connect_telegram().await.map_err(why)?;
        self.town.platform.press_start(&link).await.map_err(why)?;
        self.town.platform.connected("telegram").await.map_err(why)?;
        Ok("Telegram has no OAuth: the platform's bot writes to people who pressed Start on a link that only they were \
            given. The vault saw the Start and fixed that chat; the bot's token is in the vault only."
            .to_owned())
    }

    pub(super) async fn fresh(&self) -> Said {
        let before = self.town.platform.connected("slack").await.map_err(why)?;
        let id = before["id"].as_str().unwrap_or_default();
        let issued = self.town.sandbox.issued().len();
        let after = self.town.platform.refresh(id).await.map_err(why)?;
        expect(after["status"] == "active", || format!("the connection is {}", after["status"]))?;
        let counters = self.town.sandbox.ask("/counters").await.map_err(why)?;
        expect(counters["slack"]["refreshes"] == 1, || "Slack was not asked for new tokens".to_owned())?;
        let new = self.town.sandbox.issued().len() - issued;
        Ok(format!(
            "It refreshes every token before it expires; here the platform asked for it at once. Slack rotates: it gave \
             {new} new secrets and will take the old refresh token no more, so the vault had one chance to keep them.",
        ))
    }

    pub(super) fn sealed(&self) -> Said {
        let database = database_bytes(&self.town.folder.file("vault.db")).map_err(why)?;
        let size = database.len();
        let tokens = self.town.sandbox.issued().into_iter().filter(|issued| issued.kind.ends_with("token"));
        let hidden: Vec<Hidden> = tokens
            .map(|issued| Hidden { what: issued.kind.to_owned(), value: issued.value, browser_may: false })
            .collect();
        let count = hidden.len();
        expect(count >= 5, || format!("only {count} tokens were issued"))?;
        let hits = Search::new(hidden).look(&Places::from([("database", database)]));
        expect(hits.is_empty(), || format!("a token stands readable in the database: {hits:?}"))?;
        Ok(format!(
            "{count} tokens of Google, Slack and Telegram are in the database, each under a key of its own (AES-256-GCM). \
             None of them is readable in its {size} bytes, in no encoding.",
        ))
    }

    // --- the conversation in the browser ---

    pub(super) async fn start(&mut self) -> Said {
        let started = self.town.platform.start("relay").await.map_err(why)?;
        let url = started["signed_url"].as_str().unwrap_or_default().to_owned();
        let vault = self.town.app.public_url().authority().to_owned();
        expect(url.starts_with(&format!("ws://{vault}/")), || "the relay's address is not the vault's".to_owned())?;
        let id = started["id"].as_str().unwrap_or_default().to_owned();
        let origin = self.town.platform.base.origin().ascii_serialization();
        let talk = Talk::open(&url, Some(&origin), &Talk::empty_initiation()).await.map_err(why)?;
        let greeting = talk.greeting.clone();
        self.refresh_tool = started["refresh_tool"].as_str().unwrap_or_default().to_owned();
        self.relay = Some((id, talk));
        let variables = self.received();
        let token = self.newest_google_token()?;
        let authorization = variables[GOOGLE_VARIABLE].as_str().unwrap_or_default();
        expect(authorization == format!("Bearer {token}"), || {
            "ElevenLabs did not receive the user's Google token".to_owned()
        })?;
        Ok(format!(
            "The browser got a single-use address at the vault and nothing else. The vault opened the real socket at \
             ElevenLabs and put the secrets into its first frame; frames now pass through it. The agent says: \
             \"{greeting}\" Its refresh tool is {}.",
            if self.refresh_tool == "sanitized" {
                "proven to keep tokens from the model"
            } else {
                "not proven, so it gets no tokens"
            },
        ))
    }

    pub(super) async fn inject(&mut self) -> Said {
        let answer = self.ask("What is my next meeting?").await?;
        expect(answer.contains("Team meeting"), || format!("the agent says: {answer}"))?;
        let call = self.last_calls(1).pop().unwrap_or_default();
        Ok(format!(
            "Asked for the next meeting, the agent called Google's calendar with the header from {GOOGLE_VARIABLE} \
             ({}), straight from ElevenLabs. Answer: \"{answer}\"",
            self.header(&call),
        ))
    }

    pub(super) async fn expire(&mut self) -> Said {
        self.town.platform.expire("google").await.map_err(why)?;
        Ok("Google now answers 401 to every access token it has issued so far. ElevenLabs still holds the old one."
            .to_owned())
    }

    pub(super) async fn refresh(&mut self) -> Said {
        let before = self.header(&self.last_calls(1).pop().unwrap_or_default());
        let already = self.calls().len();
        let answer = self.ask("What is my next meeting?").await?;
        let calls = self.calls().split_off(already);
        let of = |tool: &str| calls.iter().filter(|call| call["tool"] == tool).cloned().collect::<Vec<_>>();
        let (reads, refreshes) = (of("read_calendar"), of("refresh_google"));
        let first = reads.first().cloned().unwrap_or_default();
        expect(first["status"] == 401, || format!("Google answered {} to an expired token", first["status"]))?;
        let refresh = refreshes.first().cloned().unwrap_or_default();
        expect(refresh["status"] == 200, || format!("the vault's refresh tool answered {}", refresh["status"]))?;
        let second = reads.get(1).cloned().unwrap_or_default();
        expect(second["status"] == 200, || self.why_no_new_token(&answer, &refresh, &second))?;
        let token = self.newest_google_token()?;
        expect(self.header(&second) == print_of(&format!("Bearer {token}")), || {
            "the second call did not use the newest token".to_owned()
        })?;
        Ok(format!(
            "Google said 401, so the agent called the vault's refresh tool with its ticket. The vault refreshed at \
             Google; the answer went into {GOOGLE_VARIABLE}, sanitized, so the model read only a status. The header \
             changed from {before} to {}, and the second try worked: \"{answer}\"",
            self.header(&second),
        ))
    }

    fn why_no_new_token(&self, answer: &str, refresh: &Value, second: &Value) -> String {
        let assigned = refresh["assigned"].as_array().is_some_and(|names| !names.is_empty());
        if second.is_null() {
            return format!("the vault gave no new token; the agent says: \"{answer}\"");
        }
        if self.refresh_tool == "status_only" {
            return format!(
                "the vault refreshed the token but kept it: the agent's refresh tool is set up so that the model would \
                 read it. The second call went out with the old header ({}), and Google answered {}",
                self.header(second),
                second["status"],
            );
        }
        if !assigned {
            return format!(
                "the vault answered the refresh tool with a new token, but ElevenLabs did not put it into \
                 {GOOGLE_VARIABLE}. The second call went out with the old header ({}), and Google answered {}",
                self.header(second),
                second["status"],
            );
        }
        format!("the second call was answered {}; the agent says: \"{answer}\"", second["status"])
    }

    pub(super) async fn telegram(&mut self) -> Said {
        let answer = self.ask("Send it to my Telegram").await?;
        let sent = self.message("telegram").await?;
        let call = self.last_calls(1).pop().unwrap_or_default();
        expect(call["status"] == 200, || format!("the broker answered {}; the agent says: {answer}", call["status"]))?;
        Ok(format!(
            "A bot token stands in Telegram's URLs and never expires, so it is never handed out. The tool called the \
             vault with the ticket; the vault added token and chat and sent: \"{}\"",
            sent["text"].as_str().unwrap_or_default(),
        ))
    }

    pub(super) async fn slack(&mut self) -> Said {
        let answer = self.ask("Tell Slack").await?;
        let sent = self.message("slack").await?;
        expect(sent["sender"] == ACCOUNT, || format!("it was sent by {}; the agent says: {answer}", sent["sender"]))?;
        Ok(format!(
            "The same way, as {ACCOUNT}: the vault attached the user's Slack token. In channel {}: \"{}\"",
            sent["to"].as_str().unwrap_or_default(),
            sent["text"].as_str().unwrap_or_default(),
        ))
    }

    // --- the conversation of a back end, and the end ---

    pub(super) async fn websocket(&mut self) -> Said {
        let started = self.town.platform.start("websocket").await.map_err(why)?;
        let id = started["id"].as_str().unwrap_or_default().to_owned();
        let url = started["signed_url"].as_str().unwrap_or_default();
        let mut talk = Talk::open(url, None, &started["initiation"]).await.map_err(why)?;
        let answer = talk.say("Do I have mail?").await.map_err(why)?;
        self.backend = Some((id, talk));
        expect(answer.contains("2 messages"), || format!("the agent says: {answer}"))?;
        Ok(format!(
            "A back end with the scope tokens:read got the real address and the first frame, and speaks with ElevenLabs \
             itself. The agent read the mailbox: \"{answer}\"",
        ))
    }

    pub(super) async fn end(&mut self) -> Said {
        let (id, mut talk) = self.relay.take().ok_or("there is no conversation")?;
        self.town.platform.end(&id).await.map_err(why)?;
        let code = talk.closed().await.map_err(why)?;
        self.heard.push_str(talk.received());
        let (id, mut talk) = self.backend.take().ok_or("there is no second conversation")?;
        self.town.platform.end(&id).await.map_err(why)?;
        let sent_before = self.messages().await?.len();
        let answer = talk.say("Send it to my Telegram").await.map_err(why)?;
        talk.hang_up().await;
        let call = self.last_calls(1).pop().unwrap_or_default();
        expect(call["status"] == 410, || format!("a dead ticket was answered {}: {answer}", call["status"]))?;
        expect(self.messages().await?.len() == sent_before, || "a dead ticket still sent a message".to_owned())?;
        Ok(format!(
            "The platform ended both. The vault closed its relay (code {code}). The other socket belongs to the back end \
             and ElevenLabs, but its ticket is dead: the next tool call was answered 410, and nothing was sent.",
        ))
    }

    pub(super) async fn disconnect(&mut self) -> Said {
        let connection = self.town.platform.connected("google").await.map_err(why)?;
        let id = connection["id"].as_str().unwrap_or_default();
        self.town.platform.disconnect(id).await.map_err(why)?;
        let counters = self.town.sandbox.ask("/counters").await.map_err(why)?;
        let revoked = counters["google"]["revocations"].as_u64().unwrap_or_default();
        expect(revoked > 0, || "Google was not asked to revoke anything".to_owned())?;
        Ok("The vault revoked the consent at Google and forgot the tokens. Nothing that was handed out works any more."
            .to_owned())
    }

    // --- what the leak search wants to know ---

    /// Every byte that reached the person's browser. Authorization codes are struck out of the providers' own redirects,
    /// since OAuth passes them through the browser (RFC 6749 section 4.1.2); in the vault's answers they would be a leak.
    pub(super) fn browser_saw(&self) -> Vec<u8> {
        let own = [self.town.app.public_url().origin(), self.town.platform.base.origin()];
        let codes: Vec<String> =
            self.town.sandbox.issued().into_iter().filter(|one| one.kind == "code").map(|one| one.value).collect();
        let mut saw = String::new();
        for page in &self.pages {
            let mut text = format!("{}\n{:?}\n{}\n", page.url, page.headers, page.body);
            if own.contains(&page.url.origin()) {
                // The address is what the provider sent the browser to, not what the vault answered.
                text = format!("{:?}\n{}\n", page.headers, page.body);
            } else {
                for code in &codes {
                    let encoded: String = form_urlencoded::byte_serialize(code.as_bytes()).collect();
                    text = text.replace(code, "(code)").replace(&encoded, "(code)");
                }
            }
            saw.push_str(&text);
        }
        saw.push_str(&self.heard);
        saw.into_bytes()
    }

    /// Values of cookies that the vault has set; they belong into that browser and nowhere else.
    pub(super) fn cookies(&self) -> Vec<String> {
        let lines = self.pages.iter().flat_map(|page| page.headers.get_all(http::header::SET_COOKIE));
        let pairs = lines.filter_map(|line| line.to_str().ok()?.split(';').next()?.split_once('='));
        pairs.map(|(_, value)| value.to_owned()).filter(|value| value.len() >= 20).collect()
    }

    // --- looking ---

    /// Notes the page that is open; gives it.
    fn seen(&mut self) -> Result<Page, String> {
        let page = self.person.page().cloned().ok_or("no page is open")?;
        self.pages.push(page.clone());
        Ok(page)
    }

    async fn ask(&mut self, text: &str) -> Result<String, String> {
        let (_, talk) = self.relay.as_mut().ok_or("there is no conversation")?;
        talk.say(text).await.map_err(why)
    }

    /// The variables of the newest start at ElevenLabs.
    fn received(&self) -> Value {
        let sinks = self.town.elevenlabs.sinks();
        let last = sinks["received"].as_array().and_then(|list| list.last());
        last.map(|start| start["frame"]["dynamic_variables"].clone()).unwrap_or_default()
    }

    /// The fingerprint of the `Authorization` header that a tool call was sent with. The stand-in has fingerprints of
    /// its own; every secret that it can know is tried, so that one secret has one fingerprint in what is told.
    pub(super) fn header(&self, call: &Value) -> String {
        let Some(theirs) = call["headers"]["Authorization"].as_str() else { return "missing".to_owned() };
        let issued = self.town.sandbox.issued().into_iter().map(|one| format!("Bearer {}", one.value));
        let sinks = self.town.elevenlabs.sinks();
        let starts = sinks["received"].as_array().into_iter().flatten();
        let variables = starts.flat_map(|start| start["frame"]["dynamic_variables"].as_object().into_iter().flatten());
        let given = variables.filter_map(|(_, value)| value.as_str().map(str::to_owned));
        let mine = issued.chain(given).find(|value| their_print_of(value) == theirs);
        mine.map_or_else(|| theirs.to_owned(), |value| print_of(&value))
    }

    /// Ends what is still open, so that ElevenLabs writes its post-call report.
    pub(super) async fn hang_up(&mut self) {
        for (_, mut talk) in self.relay.take().into_iter().chain(self.backend.take()) {
            talk.hang_up().await;
            self.heard.push_str(talk.received());
        }
    }

    fn calls(&self) -> Vec<Value> {
        self.town.elevenlabs.tool_calls().as_array().cloned().unwrap_or_default()
    }

    fn last_calls(&self, count: usize) -> Vec<Value> {
        let mut calls = self.calls();
        calls.split_off(calls.len().saturating_sub(count))
    }

    fn newest_google_token(&self) -> Result<String, String> {
        let google = |one: &crate::sandbox::Issued| {
            one.provider == crate::sandbox::Provider::Google && one.kind == "access_token"
        };
        let issued = self.town.sandbox.issued();
        issued.into_iter().rfind(google).map(|one| one.value).ok_or_else(|| "Google has issued no token".to_owned())
    }

    async fn messages(&self) -> Result<Vec<Value>, String> {
        let all = self.town.platform.messages().await.map_err(why)?;
        Ok(all["messages"].as_array().cloned().unwrap_or_default())
    }

    async fn message(&self, provider: &str) -> Result<Value, String> {
        let found = self.messages().await?.into_iter().rfind(|one| one["provider"] == provider);
        if let Some(found) = found {
            return Ok(found);
        }
        let call = self.last_calls(1).pop().unwrap_or_default();
        Err(format!("no message arrived; the vault's broker answered {}", call["status"]))
    }
}

/// The fingerprint of a secret as this demo shows it.
pub(super) fn print_of(value: &str) -> String {
    format!("fingerprint {}", fingerprint_of(value))
}

/// The fingerprint of a value as the ElevenLabs stand-in makes it.
fn their_print_of(value: &str) -> String {
    let digest = HEXLOWER.encode(&Sha256::digest(value.as_bytes()));
    format!("sha256:{}", digest.get(..12).unwrap_or_default())
}

fn scopes(connection: &Value) -> String {
    let credentials = connection["credentials"].as_array().into_iter().flatten();
    let scopes = credentials.flat_map(|one| one["scopes"].as_array().into_iter().flatten()).filter_map(Value::as_str);
    let short = scopes.map(|scope| scope.rsplit('/').next().unwrap_or(scope).to_owned());
    short.collect::<Vec<_>>().join(", ")
}
