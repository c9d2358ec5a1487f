//! The street: pretend providers with people who have consented, and a pretend ElevenLabs with an agent.

use std::time::Duration;

use serde_json::{Value, json};
use url::Url;
use valetkey::clock::Surroundings;
use valetkey::sandbox::elevenlabs::ElevenLabs;
use valetkey::sandbox::person::Person;
use valetkey::sandbox::{ClientRegistration, Sandbox, SandboxOptions};
use valetkey::secret::Secret;

use super::{Client, Known};

const REDIRECT: &str = "http://127.0.0.1:9/callback";
/// The OAuth client's name at both providers.
pub const CLIENT: &str = "client-1";
/// What the tests' connections may do at Google.
pub const GOOGLE_SCOPES: &str = "openid email https://www.googleapis.com/auth/gmail.readonly https://www.googleapis.com/auth/gmail.send https://www.googleapis.com/auth/calendar.events";
const SLACK_SCOPES: &str = "chat:write,channels:read";

/// A person with accounts at the providers.
#[derive(Clone, Copy)]
pub struct Account {
    pub email: &'static str,
    pub google: &'static str,
    pub slack: &'static str,
}

impl Account {
    pub const ADA: Self = Self { email: "ada@example.com", google: "100000000000000000001", slack: "T0SANDBOX/U0ADA" };
    pub const GRACE: Self =
        Self { email: "grace@example.com", google: "100000000000000000002", slack: "T0SANDBOX/U0GRACE" };
    pub const OPS: Self = Self { email: "ops@example.org", google: "100000000000000000003", slack: "T0NORTH/U0OPS" };
}

/// Everything outside the house.
pub struct Street {
    pub sandbox: Sandbox,
    pub eleven: ElevenLabs,
    client_secret: String,
    http: std::cell::OnceCell<reqwest::Client>,
}

impl Street {
    pub async fn open(around: &Surroundings, slack_rotates: bool) -> Self {
        Self::open_with(around, slack_rotates, None).await
    }

    /// The same; Google's access tokens live so long, if it is said.
    pub async fn open_with(around: &Surroundings, slack_rotates: bool, google_life: Option<Duration>) -> Self {
        let nonce = data_encoding::HEXLOWER.encode(&around.random::<12>());
        let client_secret = format!("GOCSPX-vkcanary{nonce}");
        let registration = || ClientRegistration {
            client_id: CLIENT.to_owned(),
            client_secret: Secret::new(&*client_secret),
            redirect_uris: vec![REDIRECT.to_owned()],
        };
        let mut options = SandboxOptions::new(around.clone());
        (options.google, options.slack) = (Some(registration()), Some(registration()));
        options.slack_rotation = slack_rotates;
        options.google_access_token_life = google_life.unwrap_or(options.google_access_token_life);
        let sandbox = Sandbox::start(options).await.expect("the sandbox starts");
        let eleven = ElevenLabs::start(around.clone()).await.expect("the stand-in starts");
        Self { sandbox, eleven, client_secret, http: std::cell::OnceCell::new() }
    }

    fn http(&self) -> &reqwest::Client {
        self.http.get_or_init(super::http_client)
    }

    /// Sets both OAuth clients, as a platform does.
    pub async fn integrate(&self, platform: &Client) {
        self.integrate_with(platform, &self.client_secret).await;
    }

    /// The same with another secret: to us that is another client.
    pub async fn integrate_with(&self, platform: &Client, secret: &str) {
        let google = json!({"client_id": CLIENT, "client_secret": secret, "scopes": GOOGLE_SCOPES.split(' ').collect::<Vec<_>>()});
        platform.put("/v1/integrations/google", &google).await.ok();
        let slack = json!({"client_id": CLIENT, "client_secret": secret, "scopes": ["chat:write"], "user_scopes": SLACK_SCOPES.split(',').collect::<Vec<_>>()});
        platform.put("/v1/integrations/slack", &slack).await.ok();
    }

    /// Lets the OAuth client send people back to the house, too.
    pub async fn lets_back(&self, platform: &Client) {
        for provider in ["google", "slack"] {
            let shown = platform.read(&format!("/v1/integrations/{provider}")).await.ok();
            self.register(provider, CLIENT, &self.client_secret, &shown["redirect_uri"]).await;
        }
    }

    /// Registers an OAuth client at a provider, or changes one.
    pub async fn register(&self, provider: &str, client: &str, secret: &str, redirect_uri: &Value) {
        let client = json!({"provider": provider, "client_id": client, "client_secret": secret,
            "redirect_uris": [REDIRECT, redirect_uri]});
        self.tell("/clients", client).await;
    }

    /// The client secret, for stories that set a wrong one and then the right one.
    pub fn client_secret(&self) -> &str {
        &self.client_secret
    }

    /// A token set of Google for this person, as another application got it.
    pub async fn google_tokens(&self, account: Account) -> Value {
        let authorize = self.sandbox.google.join("o/oauth2/v2/auth").expect("a path");
        let pairs =
            [("response_type", "code"), ("access_type", "offline"), ("prompt", "consent"), ("scope", GOOGLE_SCOPES)];
        let code = self.consent(authorize, &pairs, account).await;
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code.as_str()),
            ("redirect_uri", REDIRECT),
            ("client_id", CLIENT),
            ("client_secret", &self.client_secret),
        ];
        let url = self.sandbox.google.join("token").expect("a path");
        let answer: Value =
            self.http().post(url).form(&form).send().await.expect("answers").json().await.expect("JSON");
        assert!(answer["refresh_token"].is_string(), "{answer}");
        answer
    }

    /// A user token set of Slack for this person.
    pub async fn slack_tokens(&self, account: Account) -> Value {
        self.slack_installation(account, "").await["authed_user"].clone()
    }

    /// Slack's whole answer: the bot's token set, if scopes are asked for it, and the person's.
    pub async fn slack_installation(&self, account: Account, bot_scopes: &str) -> Value {
        let authorize = self.sandbox.slack.join("oauth/v2/authorize").expect("a path");
        let code = self.consent(authorize, &[("scope", bot_scopes), ("user_scope", SLACK_SCOPES)], account).await;
        let url = self.sandbox.slack.join("api/oauth.v2.access").expect("a path");
        let request = self.http().post(url).basic_auth(CLIENT, Some(&self.client_secret));
        let form = [("code", code.as_str()), ("redirect_uri", REDIRECT)];
        let answer: Value = request.form(&form).send().await.expect("answers").json().await.expect("JSON");
        assert_eq!(answer["ok"], true, "{answer}");
        answer
    }

    async fn consent(&self, mut url: Url, pairs: &[(&str, &str)], account: Account) -> String {
        url.query_pairs_mut()
            .extend_pairs([("client_id", CLIENT), ("redirect_uri", REDIRECT), ("state", "s-1")])
            .extend_pairs(pairs);
        let mut person = Person::new().expect("a person");
        person.get(url.as_str()).await.expect("a page");
        person.consent(true, account.email, None).await.expect("consents").query("code").expect("a code")
    }

    pub async fn tell(&self, path: &str, body: Value) -> Value {
        self.sandbox.tell(path, &body).await.expect("the sandbox agrees")
    }

    /// Plants a fault for the next `times` requests at this place.
    pub async fn fault(&self, provider: &str, on: &str, name: &str, times: u32) {
        self.tell("/faults", json!({"provider": provider, "on": on, "name": name, "times": times})).await;
    }

    pub async fn clear_faults(&self) {
        let url = self.sandbox.control.join("faults").expect("a path");
        assert!(self.http().delete(url).send().await.expect("answers").status().is_success());
    }

    /// A counter, such as `slack/refreshes`.
    pub async fn counter(&self, name: &str) -> u64 {
        let counters = self.sandbox.ask("/counters").await.expect("counters");
        counters.pointer(&format!("/{name}")).and_then(Value::as_u64).unwrap_or(0)
    }

    /// The status of a call to a provider with this access token.
    pub async fn http_get(&self, url: Url, token: &Value) -> u16 {
        let request = self.http().get(url).bearer_auth(token.as_str().expect("a token"));
        request.send().await.expect("answers").status().as_u16()
    }

    /// A call to the pretend ElevenLabs with its key.
    pub async fn eleven(&self, method: &str, path: &str, body: &Value) -> Value {
        let url = self.eleven.base.join(path).expect("a path");
        let request = self.http().request(method.parse().expect("a method"), url);
        let answer = request.header("xi-api-key", self.eleven.api_key()).json(body).send().await.expect("answers");
        let status = answer.status();
        let text = answer.text().await.expect("text");
        assert!(status.is_success(), "{method} {path}: {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Tells the search what is secret out here, and what a model, a transcript or a browser's events have shown.
    pub fn confess(&self, known: &mut Known) {
        known.learn_from_sandbox(&self.sandbox);
        known.learn_and_record_elevenlabs(&self.eleven);
    }
}
