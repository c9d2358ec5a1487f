//! The calls. Each is sent once: a start that is repeated places a second call (fact sheet 1.3).

use http::{HeaderName, Method};
use serde_json::Value;
use url::Url;

use super::errors::{ElevenLabsError, classify};
use super::types::{Agent, ConversationToken, SignedUrl, Tool, User, text};
use crate::clock::Surroundings;
use crate::outbound::{Outbound, Request};
use crate::secret::Secret;

const API_KEY: HeaderName = HeaderName::from_static("xi-api-key");

/// Regions and their hosts (fact sheet 1.2); the conversation socket has the same host.
const REGIONS: &[(&str, &str)] = &[
    ("default", "api.elevenlabs.io"),
    ("global", "api.elevenlabs.io"),
    ("us", "api.us.elevenlabs.io"),
    ("eu", "api.eu.residency.elevenlabs.io"),
    ("eu-residency", "api.eu.residency.elevenlabs.io"),
    ("in", "api.in.residency.elevenlabs.io"),
    ("in-residency", "api.in.residency.elevenlabs.io"),
    ("sg", "api.sg.residency.elevenlabs.io"),
    ("sg-residency", "api.sg.residency.elevenlabs.io"),
];

/// True for a region that has a host; empty means `default`.
#[must_use]
pub fn region_is_known(region: &str) -> bool {
    host(region).is_some()
}

fn host(region: &str) -> Option<&'static str> {
    let region = if region.is_empty() { "default" } else { region };
    REGIONS.iter().find(|(name, _)| *name == region).map(|(_, host)| *host)
}

/// Which workspace, by its key.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// The region of the workspace: `default`, `us`, `eu`, `in`, `sg`.
    pub region: &'a str,
    /// An API key.
    pub api_key: &'a Secret,
}

/// The ElevenLabs API.
#[derive(Clone)]
pub struct ElevenLabs {
    outbound: Outbound,
    around: Surroundings,
    base_override: Option<Url>,
}

impl std::fmt::Debug for ElevenLabs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ElevenLabs")
    }
}

impl ElevenLabs {
    /// `base_override` replaces the hosts of all regions.
    #[must_use]
    pub fn new(outbound: Outbound, around: Surroundings, base_override: Option<Url>) -> Self {
        Self { outbound, around, base_override }
    }

    /// Allocates a conversation and a socket address for it (fact sheet 2.1).
    ///
    /// # Errors
    /// [`ElevenLabsError`].
    pub async fn signed_url(&self, access: Access<'_>, agent_id: &str) -> Result<SignedUrl, ElevenLabsError> {
        let mut url = self.url(access, &["convai", "conversation", "get-signed-url"])?;
        url.query_pairs_mut().append_pair("agent_id", agent_id).append_pair("include_conversation_id", "true");
        let answer = self.get(access, url).await?;
        let signed = text(&answer, "signed_url").ok_or(ElevenLabsError::Unknown)?;
        let parsed = Url::parse(&signed).map_err(|_| ElevenLabsError::Unknown)?;
        let conversation_id = parsed.query_pairs().find(|(name, _)| name == "conversation_id");
        let conversation_id = conversation_id.map(|(_, id)| id.into_owned()).filter(|id| !id.is_empty());
        Ok(SignedUrl { url: Secret::new(signed), conversation_id })
    }

    /// Allocates a conversation and a WebRTC token for it (fact sheet 2.2). `participant` is shown in the room.
    ///
    /// # Errors
    /// [`ElevenLabsError`].
    pub async fn conversation_token(
        &self,
        access: Access<'_>,
        agent_id: &str,
        participant: Option<&str>,
    ) -> Result<ConversationToken, ElevenLabsError> {
        let mut url = self.url(access, &["convai", "conversation", "token"])?;
        url.query_pairs_mut().append_pair("agent_id", agent_id);
        if let Some(participant) = participant {
            url.query_pairs_mut().append_pair("participant_name", participant);
        }
        let answer = self.get(access, url).await?;
        let token = text(&answer, "token").ok_or(ElevenLabsError::Unknown)?;
        Ok(ConversationToken { token: Secret::new(token), conversation_id: text(&answer, "conversation_id") })
    }

    /// An agent, as far as its tools are concerned (fact sheet 7).
    ///
    /// # Errors
    /// [`ElevenLabsError`].
    pub async fn agent(&self, access: Access<'_>, id: &str) -> Result<Agent, ElevenLabsError> {
        let url = self.url(access, &["convai", "agents", id])?;
        Ok(Agent::read(&self.get(access, url).await?))
    }

    /// A tool (fact sheet 6.1).
    ///
    /// # Errors
    /// [`ElevenLabsError`].
    pub async fn tool(&self, access: Access<'_>, id: &str) -> Result<Tool, ElevenLabsError> {
        let url = self.url(access, &["convai", "tools", id])?;
        Ok(Tool::read(&self.get(access, url).await?))
    }

    /// The conversation of this agent that was started with the plain variable `valetkey_conversation`, if it got
    /// that far (fact sheet 12.2). The list's filter is a help only: a candidate counts when its own record carries
    /// the variable, and at most a few candidates are looked at.
    ///
    /// # Errors
    /// [`ElevenLabsError`].
    pub async fn find_conversation(
        &self,
        access: Access<'_>,
        agent_id: &str,
        valetkey_conversation: &str,
    ) -> Result<Option<String>, ElevenLabsError> {
        let mut url = self.url(access, &["convai", "conversations"])?;
        url.query_pairs_mut()
            .append_pair("agent_id", agent_id)
            .append_pair("page_size", "5")
            .append_pair("dynamic_variable_params", &format!("valetkey_conversation:eq:{valetkey_conversation}"));
        let list = self.get(access, url).await?;
        let rows = list.get("conversations").and_then(Value::as_array);
        for id in rows.into_iter().flatten().filter_map(|row| text(row, "conversation_id")).take(5) {
            let url = self.url(access, &["convai", "conversations", &id])?;
            let record = self.get(access, url).await?;
            let seen = record.pointer("/conversation_initiation_client_data/dynamic_variables/valetkey_conversation");
            if seen.and_then(Value::as_str) == Some(valetkey_conversation) {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// Whose key it is: the check when a key is stored (fact sheet 12.1). A key without the permission `user_read`
    /// gets [`ElevenLabsError::MissingPermissions`] and is good all the same.
    ///
    /// # Errors
    /// [`ElevenLabsError`].
    pub async fn user(&self, access: Access<'_>) -> Result<User, ElevenLabsError> {
        let url = self.url(access, &["user"])?;
        let answer = self.get(access, url).await?;
        Ok(User { user_id: text(&answer, "user_id"), workspace_id: text(&answer, "workspace_id") })
    }

    /// True when a conversation socket may be dialled here: `wss` to a regional host on its usual port, or exactly a
    /// host and port that the operator listed (API.md section 3).
    #[must_use]
    pub fn socket_host_is_known(&self, url: &Url) -> bool {
        let regional = url.scheme() == "wss"
            && url.port_or_known_default() == Some(443)
            && REGIONS.iter().any(|(_, host)| url.host_str() == Some(*host));
        let listed = matches!(url.scheme(), "ws" | "wss") && self.outbound.allows_plain_http(url);
        (regional || listed) && url.username().is_empty() && url.password().is_none()
    }

    /// `{base}/v1/{segments}`, every segment encoded so that an id cannot bend the path.
    fn url(&self, access: Access<'_>, segments: &[&str]) -> Result<Url, ElevenLabsError> {
        let invalid = |code: &str| ElevenLabsError::Invalid { code: code.to_owned() };
        let base = match &self.base_override {
            Some(base) => Ok(base.clone()),
            None => host(access.region)
                .and_then(|host| Url::parse(&format!("https://{host}")).ok())
                .ok_or_else(|| invalid("unknown_region")),
        };
        let mut url = base?;
        if segments.iter().any(|one| one.is_empty() || *one == "." || *one == "..") {
            return Err(invalid("invalid_id"));
        }
        url.path_segments_mut().map_err(|()| invalid("base_url"))?.pop_if_empty().push("v1").extend(segments);
        Ok(url)
    }

    async fn get(&self, access: Access<'_>, url: Url) -> Result<Value, ElevenLabsError> {
        let request = Request::new(Method::GET, url).accept_json().secret_header(API_KEY, access.api_key);
        let response = self.outbound.send(request).await?;
        if !response.is_success() {
            let after = response.retry_after(self.around.now());
            return Err(classify(response.status, &response.body, after));
        }
        let value: Value = response.json().map_err(|_| ElevenLabsError::Unknown)?;
        if value.is_object() { Ok(value) } else { Err(ElevenLabsError::Unknown) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::extract::State;
    use axum::response::IntoResponse;
    use http::{HeaderMap, StatusCode, Uri};
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    #[derive(Default)]
    struct Script {
        answers: Mutex<VecDeque<(u16, String)>>,
        seen: Mutex<Vec<(String, Option<String>)>>,
    }

    async fn answer(State(script): State<Arc<Script>>, uri: Uri, headers: HeaderMap) -> impl IntoResponse {
        let key = headers.get("xi-api-key").and_then(|value| value.to_str().ok()).map(str::to_owned);
        script.seen.lock().expect("lock").push((uri.to_string(), key));
        let (status, body) = script.answers.lock().expect("lock").pop_front().unwrap_or((404, "{}".to_owned()));
        (StatusCode::from_u16(status).expect("a status"), [("retry-after", "9")], body)
    }

    async fn start(answers: &[(u16, &str)]) -> (ElevenLabs, Arc<Script>) {
        let script = Arc::new(Script::default());
        let rows = answers.iter().map(|(status, body)| (*status, (*body).to_owned()));
        script.answers.lock().expect("lock").extend(rows);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let app = axum::Router::new().fallback(answer).with_state(script.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let base = format!("http://{address}/eleven/").parse().expect("a url");
        let outbound = Outbound::new(&[address.to_string()]).expect("a gate");
        (ElevenLabs::new(outbound, Surroundings::system(), Some(base)), script)
    }

    fn seen(script: &Script) -> Vec<(String, Option<String>)> {
        script.seen.lock().expect("lock").clone()
    }

    #[tokio::test]
    async fn a_signed_url_is_taken_with_the_conversation_in_it() {
        // fact sheet 2.1
        let signed =
            "wss://api.elevenlabs.io/v1/convai/conversation?agent_id=a&conversation_signature=s&conversation_id=conv_1";
        let body = format!(r#"{{"signed_url":"{signed}"}}"#);
        let (eleven, script) = start(&[(200, &body), (200, "{}"), (200, "<html>"), (200, "[]"), (500, "")]).await;
        let key = Secret::new("sk_1");
        let access = Access { region: "default", api_key: &key };

        let answer = eleven.signed_url(access, "agent &x").await.expect("a signed url");
        assert_eq!((answer.url.expose(), answer.conversation_id.as_deref()), (signed, Some("conv_1")));
        for _ in 0..3 {
            assert_eq!(eleven.signed_url(access, "a").await.expect_err("garbage"), ElevenLabsError::Unknown);
        }
        let failure = eleven.signed_url(access, "a").await.expect_err("down");
        assert_eq!(failure, ElevenLabsError::Upstream { status: 500 });
        let seen = seen(&script);
        assert_eq!(seen.len(), 5, "nothing is retried");
        let wanted = "/eleven/v1/convai/conversation/get-signed-url?agent_id=agent+%26x&include_conversation_id=true";
        assert_eq!(seen[0], (wanted.to_owned(), Some("sk_1".to_owned())));
    }

    #[tokio::test]
    async fn a_conversation_is_found_only_by_its_own_record() {
        let list = r#"{"conversations":[{"conversation_id":"conv_1"},{"conversation_id":"conv_2"}],"has_more":false}"#;
        let record = |id: &str| {
            format!(
                r#"{{"conversation_initiation_client_data":{{"dynamic_variables":{{"valetkey_conversation":"{id}"}}}}}}"#
            )
        };
        let (other, ours) = (record("cnv_9"), record("cnv_1"));
        let (eleven, script) =
            start(&[(200, list), (200, &other), (200, &ours), (200, r#"{"conversations":[]}"#)]).await;
        let key = Secret::new("sk_1");
        let access = Access { region: "eu", api_key: &key };

        let found = eleven.find_conversation(access, "agent_1", "cnv_1").await;
        assert_eq!(found, Ok(Some("conv_2".to_owned())));
        assert_eq!(eleven.find_conversation(access, "agent_1", "cnv_1").await, Ok(None));
        let first = &seen(&script)[0].0;
        assert!(first.contains("dynamic_variable_params=valetkey_conversation%3Aeq%3Acnv_1"), "{first}");
    }

    #[tokio::test]
    async fn refusals_are_told_apart() {
        let (eleven, _) = start(&[
            (200, r#"{"user_id":"u1","workspace_id":"w1","subscription":{}}"#),
            (401, r#"{"detail":{"code":"unauthorized","status":"missing_permissions"}}"#),
            (429, r#"{"detail":{"code":"rate_limit_exceeded"}}"#),
            (200, r#"{"token":"lk","conversation_id":"conv_3"}"#),
        ])
        .await;
        let key = Secret::new("sk_1");
        let access = Access { region: "", api_key: &key };
        let user = User { user_id: Some("u1".into()), workspace_id: Some("w1".into()) };
        assert_eq!(eleven.user(access).await, Ok(user));
        assert_eq!(eleven.user(access).await, Err(ElevenLabsError::MissingPermissions));
        let after = Some(Duration::from_secs(9));
        let failure = eleven.tool(access, "tool_1").await.expect_err("limited");
        assert_eq!(failure, ElevenLabsError::RateLimited { after, concurrency: false });
        let token = eleven.conversation_token(access, "agent_1", Some("u 1")).await.expect("a token");
        assert_eq!((token.token.expose(), token.conversation_id.as_deref()), ("lk", Some("conv_3")));
        assert_eq!(
            eleven.agent(access, "..").await.expect_err("no id"),
            ElevenLabsError::Invalid { code: "invalid_id".into() }
        );
        assert_eq!(eleven.agent(access, "a/../../x").await.expect_err("404"), ElevenLabsError::NotFound);
    }

    #[test]
    fn only_known_socket_hosts_are_dialled() {
        let outbound = Outbound::new(&["127.0.0.1:4700".to_owned()]).expect("a gate");
        let eleven = ElevenLabs::new(outbound, Surroundings::system(), None);
        let known = |url: &str| eleven.socket_host_is_known(&url.parse().expect("a url"));
        for url in [
            "wss://api.elevenlabs.io/v1/convai/conversation?x=1",
            "wss://api.us.elevenlabs.io/",
            "wss://api.eu.residency.elevenlabs.io/",
            "wss://api.in.residency.elevenlabs.io:443/",
            "ws://127.0.0.1:4700/x",
        ] {
            assert!(known(url), "{url}");
        }
        for url in [
            "ws://api.elevenlabs.io/",
            "https://api.elevenlabs.io/",
            "wss://api.elevenlabs.io:8443/",
            "wss://api.elevenlabs.io.evil.example/",
            "wss://evil.example/api.elevenlabs.io",
            "wss://api.elevenlabs.io@evil.example/",
            "wss://user@api.elevenlabs.io/",
            "ws://127.0.0.1:4701/x",
            "http://127.0.0.1:4700/x",
        ] {
            assert!(!known(url), "{url}");
        }
    }

    #[test]
    fn each_region_has_a_host_and_others_have_none() {
        let key = Secret::new("sk_1");
        let outbound = Outbound::new(&[]).expect("a gate");
        let eleven = ElevenLabs::new(outbound, Surroundings::system(), None);
        let url = |region| eleven.url(Access { region, api_key: &key }, &["user"]).map(String::from);
        assert_eq!(url("").as_deref(), Ok("https://api.elevenlabs.io/v1/user"));
        assert_eq!(url("eu").as_deref(), Ok("https://api.eu.residency.elevenlabs.io/v1/user"));
        assert_eq!(url("mars"), Err(ElevenLabsError::Invalid { code: "unknown_region".into() }));
        assert!(region_is_known("sg") && !region_is_known("EU"));
    }
}
