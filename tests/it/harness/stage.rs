//! What most stories begin with: integrations, connections that moved in, an agent with its tools.

use serde_json::{Value, json};
use valetkey::clock::Millis;

use super::{Account, Client, START, Talk, TestApp};

/// How an imported token stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// As the provider has just given it.
    Fresh,
    /// Its time is over; the refresh token is good.
    Expired,
}

/// An agent at ElevenLabs, known to the house.
pub struct Desk {
    pub agent_id: String,
    /// The value of `X-Valetkey-Workspace`.
    pub tool_header: String,
    /// ElevenLabs' id of the refresh tool.
    pub refresh_tool: String,
    refresh_config: Value,
}

impl TestApp {
    /// A platform whose OAuth clients are set.
    pub async fn platform(&self) -> Client {
        let platform = self.platform_key(&["all"]).await;
        self.street.integrate(&platform).await;
        platform
    }

    /// Moves a Google account in; gives the connection's id.
    pub async fn google(&self, platform: &Client, user: &str, account: Account, life: Life) -> String {
        let tokens = self.street.google_tokens(account).await;
        let scopes: Vec<&str> = tokens["scope"].as_str().expect("scopes").split(' ').collect();
        let row = json!({"user": user, "provider": "google", "account": {"id": account.google, "email": account.email},
            "credentials": [{"kind": "user", "access_token": tokens["access_token"], "refresh_token": tokens["refresh_token"],
                "expires_at": self.expiry(&tokens, life), "scopes": scopes}]});
        self.import(platform, row).await
    }

    /// Moves a Slack account in; gives the connection's id.
    pub async fn slack(&self, platform: &Client, user: &str, account: Account, life: Life) -> String {
        let tokens = self.street.slack_tokens(account).await;
        let scopes: Vec<&str> = tokens["scope"].as_str().expect("scopes").split(',').collect();
        let mut credential = json!({"kind": "user", "access_token": tokens["access_token"], "scopes": scopes});
        if tokens["refresh_token"].is_string() {
            credential["refresh_token"] = tokens["refresh_token"].clone();
            credential["expires_at"] = self.expiry(&tokens, life).into();
        }
        let row = json!({"user": user, "provider": "slack", "account": {"id": account.slack, "email": account.email},
            "credentials": [credential]});
        self.import(platform, row).await
    }

    /// Moves a Slack account in with both its credentials, the person's and the bot's; gives the connection's id.
    pub async fn slack_with_bot(&self, platform: &Client, user: &str, account: Account) -> String {
        let answer = self.street.slack_installation(account, "chat:write").await;
        let credential = |kind: &str, tokens: &Value| {
            let scopes: Vec<&str> = tokens["scope"].as_str().expect("scopes").split(',').collect();
            json!({"kind": kind, "access_token": tokens["access_token"], "refresh_token": tokens["refresh_token"],
                "expires_at": self.expiry(tokens, Life::Fresh), "scopes": scopes})
        };
        let row = json!({"user": user, "provider": "slack", "account": {"id": account.slack, "email": account.email},
            "credentials": [credential("bot", &answer), credential("user", &answer["authed_user"])]});
        self.import(platform, row).await
    }

    fn expiry(&self, tokens: &Value, life: Life) -> String {
        let seconds = tokens["expires_in"].as_i64().expect("a life");
        let now = valetkey::clock::Clock::now(&self.clock).0;
        if life == Life::Fresh { Millis(now + seconds * 1000).rfc3339() } else { Millis(START - 60_000).rfc3339() }
    }

    async fn import(&self, platform: &Client, row: Value) -> String {
        let answer = platform.post("/v1/connections/import", &json!({"connections": [row]})).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.json()["data"][0]["id"].as_str().expect("an id").to_owned()
    }

    /// An agent with three tools: the calendar with the injected token, the mailbox through the broker, and the refresh
    /// tool with a sanitized assignment. `draft` is what the house is told, besides the workspace.
    pub async fn desk(&self, platform: &Client, draft: Value) -> Desk {
        let key = json!({"api_key": self.street.eleven.api_key()});
        let workspace = platform.put("/v1/workspaces/main", &key).await.ok();
        let tool_header = workspace["tool_header_value"].as_str().expect("a header").to_owned();
        let secret = json!({"type": "new", "name": "valetkey", "value": tool_header});
        let secret = self.street.eleven("POST", "v1/convai/secrets", &secret).await["secret_id"].clone();
        let proofs = json!({"Authorization": {"variable_name": "secret__valetkey_authorization"},
            "X-Valetkey-Workspace": {"secret_id": secret}});
        let calendar = self.tool(json!({
            "type": "webhook", "name": "calendar_list", "description": "Lists events", "tool_error_handling_mode": "summarized",
            "api_schema": {"url": self.street.sandbox.google.join("calendar/v3/calendars/primary/events").expect("a path"),
                "method": "GET", "request_headers": {"Authorization": {"variable_name": "secret__user_google_authorization"}}},
        }));
        let mailbox = self.tool(json!({
            "type": "webhook", "name": "mail_list", "description": "Lists mail", "tool_error_handling_mode": "summarized",
            "api_schema": {"url": self.url("v1/broker/google/gmail/v1/users/me/messages"), "method": "GET",
                "request_headers": proofs},
        }));
        let refresh_config = refresh_config(&self.url("tokens/refresh"), &proofs);
        let refresh = self.tool(refresh_config.clone());
        let (calendar, mailbox, refresh_tool) = (calendar.await, mailbox.await, refresh.await);
        let body = json!({"name": "Helper", "conversation_config": {"agent": {
            "prompt": {"prompt": "You help {{user_name}} with {{topic}}.", "tool_ids": [calendar, mailbox, refresh_tool]},
            "dynamic_variables": {"dynamic_variable_placeholders": {"topic": "anything"}}}}});
        let agent = self.street.eleven("POST", "v1/convai/agents/create", &body).await;
        let agent_id = agent["agent_id"].as_str().expect("an id").to_owned();
        let mut draft = draft;
        draft["workspace"] = "main".into();
        platform.put(&format!("/v1/agents/{agent_id}"), &draft).await.ok();
        Desk { agent_id, tool_header, refresh_tool, refresh_config }
    }

    async fn tool(&self, config: Value) -> String {
        let tool = self.street.eleven("POST", "v1/convai/tools", &json!({"tool_config": config})).await;
        tool["id"].as_str().expect("an id").to_owned()
    }

    /// Writes the refresh tool anew at ElevenLabs, sanitized or not.
    pub async fn set_sanitized(&self, desk: &Desk, sanitized: bool) {
        let path = format!("v1/convai/tools/{}", desk.refresh_tool);
        let mut config = desk.refresh_config.clone();
        config["assignments"] = assignments(sanitized);
        self.street.eleven("PATCH", &path, &json!({ "tool_config": config })).await;
    }

    /// Starts a conversation on the WebSocket channel and gives the whole answer.
    pub async fn start_websocket(&self, platform: &Client, desk: &Desk, user: &str) -> Value {
        let body = json!({"agent_id": desk.agent_id, "user": user, "channel": {"type": "websocket"}});
        platform.post("/v1/conversations", &body).await.ok()
    }

    /// A tool's client with both proofs of a started conversation.
    pub fn tool_of(&self, started: &Value, desk: &Desk) -> Client {
        let ticket = started["initiation"]["dynamic_variables"]["secret__valetkey_ticket"].as_str().expect("a ticket");
        self.anon().ticket(ticket, &desk.tool_header)
    }

    /// Speaks with ElevenLabs as a trusted back end does: the real URL, our first frame.
    pub async fn talk_directly(&self, started: &Value) -> Talk {
        let url = started["signed_url"].as_str().expect("a URL");
        let mut talk = Talk::open(url, None, self.known.clone()).await.expect("upgrades");
        talk.send(&started["initiation"]).await;
        talk
    }
}

fn assignments(sanitized: bool) -> Value {
    json!([{"source": "response", "dynamic_variable": "secret__user_google_authorization",
        "value_path": "authorization", "sanitize": sanitized}])
}

fn refresh_config(url: &str, proofs: &Value) -> Value {
    json!({
        "type": "webhook", "name": "refresh_google", "description": "Gets a fresh token", "tool_error_handling_mode": "summarized",
        "assignments": assignments(true),
        "dynamic_variables": {"dynamic_variable_placeholders": {"secret__user_google_authorization": "none"}},
        "api_schema": {"url": url, "method": "POST", "request_headers": proofs,
            "response_filter": {"mode": "allow", "filters": ["status", "message"]},
            "request_body_schema": {"type": "object", "properties": {"provider": {"type": "string", "constant_value": "google"}}}},
    })
}
