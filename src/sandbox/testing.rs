//! What the sandbox's own tests share: a street with registered clients, and a client application that
//! speaks to the pretend providers as the house would.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use url::Url;

use super::oauth::challenge_of;
use super::person::{Page, Person, plain_client};
use super::{ClientRegistration, Sandbox, SandboxOptions};
use crate::clock::{Millis, SeededEntropy, Surroundings, TestClock};
use crate::secret::Secret;

/// Where codes go; nobody listens there, because redirects are not followed.
pub(super) const REDIRECT: &str = "http://127.0.0.1:9/oauth/callback";
pub(super) const CLIENT: &str = "client-1";
pub(super) const CLIENT_SECRET: &str = "GOCSPX-vkcanary-client-1";
pub(super) const VERIFIER: &str = "vkcanary-verifier-0123456789-0123456789-0123456789";
pub(super) const ADA: &str = "ada@example.com";
pub(super) const GRACE: &str = "grace@example.com";

/// A sandbox with one client at Google and one at Slack.
pub(super) struct Street {
    pub sandbox: Sandbox,
    pub clock: TestClock,
    pub http: reqwest::Client,
}

/// An HTTP answer.
pub(super) struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub json: Value,
    pub text: String,
}

impl Street {
    pub(super) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(super) async fn start_with(change: impl FnOnce(&mut SandboxOptions)) -> Self {
        let clock = TestClock::at(Millis(1_790_000_000_000));
        let around = Surroundings { clock: Arc::new(clock.clone()), entropy: Arc::new(SeededEntropy::new(1)) };
        let mut options = SandboxOptions::new(around);
        let registration = || ClientRegistration {
            client_id: CLIENT.to_owned(),
            client_secret: Secret::new(CLIENT_SECRET),
            redirect_uris: vec![REDIRECT.to_owned()],
        };
        options.google = Some(registration());
        options.slack = Some(registration());
        change(&mut options);
        let sandbox = Sandbox::start(options).await.expect("the sandbox starts");
        Self { sandbox, clock, http: plain_client().expect("a client") }
    }

    pub(super) fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    pub(super) async fn tell(&self, path: &str, body: Value) -> Value {
        self.sandbox.tell(path, &body).await.expect("the control agrees")
    }

    pub(super) async fn counter(&self, provider: &str, name: &str) -> u64 {
        let counters = self.sandbox.ask("/counters").await.expect("counters");
        counters[provider].pointer(&format!("/{name}")).and_then(Value::as_u64).unwrap_or(0)
    }

    pub(super) async fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
        let answer = request.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = answer.text().await?;
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer { status, headers, json, text })
    }

    pub(super) async fn post(&self, url: Url, form: &[(&str, &str)]) -> Answer {
        self.send(self.http.post(url).form(form)).await.expect("an answer")
    }

    pub(super) async fn get(&self, url: Url, token: &str) -> Answer {
        self.send(self.http.get(url).bearer_auth(token)).await.expect("an answer")
    }

    pub(super) fn at_google(&self, path: &str) -> Url {
        self.sandbox.google.join(path).expect("a path")
    }

    pub(super) fn at_slack(&self, path: &str) -> Url {
        self.sandbox.slack.join(path).expect("a path")
    }

    /// Opens an authorization page with `pairs`; the usual client, redirect URI and state are added.
    pub(super) async fn authorize(&self, mut url: Url, pairs: &[(&str, &str)]) -> (Person, Page) {
        for (name, value) in [("client_id", CLIENT), ("redirect_uri", REDIRECT), ("state", "s-1")] {
            if pairs.iter().all(|(key, _)| *key != name) {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        url.query_pairs_mut().extend_pairs(pairs);
        let mut person = Person::new().expect("a person");
        let page = person.get(url.as_str()).await.expect("an answer");
        (person, page)
    }

    /// A Google code for an offline request with PKCE, everything ticked.
    pub(super) async fn google_code(&self, scope: &str, more: &[(&str, &str)]) -> String {
        let challenge = challenge_of(VERIFIER);
        let mut pairs = vec![
            ("response_type", "code"),
            ("scope", scope),
            ("access_type", "offline"),
            ("code_challenge", challenge.as_str()),
            ("code_challenge_method", "S256"),
        ];
        pairs.extend(more);
        let (mut person, _) = self.authorize(self.at_google("o/oauth2/v2/auth"), &pairs).await;
        person.consent(true, ADA, None).await.expect("consent").query("code").expect("a code")
    }

    pub(super) async fn google_token(&self, form: &[(&str, &str)]) -> Answer {
        let client = [("client_id", CLIENT), ("client_secret", CLIENT_SECRET)];
        self.post(self.at_google("token"), &[form, &client].concat()).await
    }

    pub(super) async fn google_exchange(&self, code: &str) -> Answer {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", REDIRECT),
            ("code_verifier", VERIFIER),
        ];
        self.google_token(&form).await
    }

    /// The whole way to a Google token answer.
    pub(super) async fn google_connected(&self, scope: &str) -> Value {
        let code = self.google_code(scope, &[]).await;
        self.google_exchange(&code).await.json
    }

    pub(super) async fn slack_token(&self, form: &[(&str, &str)]) -> Value {
        let request = self.http.post(self.at_slack("api/oauth.v2.access")).basic_auth(CLIENT, Some(CLIENT_SECRET));
        let answer = self.send(request.form(form)).await.expect("an answer");
        assert_eq!(answer.status, 200, "Slack reports errors with 200 (B.5)");
        answer.json
    }

    pub(super) async fn slack_refresh(&self, token: &str) -> Value {
        self.slack_token(&[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    }

    /// The whole way to a Slack installation answer for Ada.
    pub(super) async fn slack_connected(&self, scope: &str, user_scope: &str) -> Value {
        let pairs = [("scope", scope), ("user_scope", user_scope)];
        let (mut person, _) = self.authorize(self.at_slack("oauth/v2/authorize"), &pairs).await;
        let code = person.consent(true, ADA, None).await.expect("consent").query("code").expect("a code");
        self.slack_token(&[("code", &code), ("redirect_uri", REDIRECT)]).await
    }

    pub(super) async fn telegram(&self, token: &str, method: &str, body: Value) -> Answer {
        let url = self.sandbox.telegram.join(&format!("./bot{token}/{method}")).expect("a path");
        self.send(self.http.post(url).json(&body)).await.expect("an answer")
    }

    pub(super) async fn plant(&self, provider: &str, name: &str) {
        self.tell("/faults", json!({"provider": provider, "name": name})).await;
    }
}

/// The text behind a key of an answer.
pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}
