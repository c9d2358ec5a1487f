//! The agent at ElevenLabs and its tools: one for each way to use a credential.
//!
//! | tool | way | what it sends |
//! | --- | --- | --- |
//! | `read_calendar`, `read_mail` | inject | `Authorization` from `secret__user_google_authorization`, straight to Google |
//! | `refresh_google` | refresh tool | the ticket, to the vault; the answer's token goes into that variable, unseen by the model |
//! | `send_telegram`, `post_to_slack` | broker | the ticket, to the vault, which attaches the credential itself |

use serde_json::{Value, json};
use url::Url;

/// The variable from which the Google tools take their header.
pub const GOOGLE_VARIABLE: &str = "secret__user_google_authorization";

/// Where tools lead, and what proves them.
pub(super) struct Leads<'a> {
    pub(super) vault: &'a Url,
    pub(super) google: &'a Url,
    /// The workspace secret whose value is the vault's `tool_header_value`.
    pub(super) header_secret: &'a str,
    /// Whether the refresh tool keeps the token from the model, as it must.
    pub(super) sanitized: bool,
}

impl Leads<'_> {
    /// Every tool's configuration.
    pub(super) fn tools(&self) -> Vec<Value> {
        vec![
            self.google_tool(
                "read_calendar",
                "Lists the user's next meetings.",
                "calendar/v3/calendars/primary/events",
            ),
            self.google_tool("read_mail", "Lists the user's mail.", "gmail/v1/users/me/messages"),
            self.refresh_tool(),
            self.broker_tool(
                "send_telegram",
                "Sends a message to the user's own Telegram chat.",
                "telegram/sendMessage",
                &["text"],
            ),
            self.broker_tool(
                "post_to_slack",
                "Posts to a channel as the user.",
                "slack/chat.postMessage",
                &["channel", "text"],
            ),
        ]
    }

    fn google_tool(&self, name: &str, description: &str, path: &str) -> Value {
        json!({
            "type": "webhook", "name": name, "description": description, "tool_error_handling_mode": "summarized",
            "api_schema": {
                "url": format!("{}{path}", self.google), "method": "GET",
                "request_headers": {"Authorization": {"variable_name": GOOGLE_VARIABLE}},
            },
        })
    }

    fn refresh_tool(&self) -> Value {
        json!({
            "type": "webhook", "name": "refresh_google", "tool_error_handling_mode": "summarized",
            "description": "Call it when a Google tool says that it is not authorized; then call that tool again.",
            "assignments": [{
                "source": "response", "dynamic_variable": GOOGLE_VARIABLE, "value_path": "authorization",
                "sanitize": self.sanitized,
            }],
            "api_schema": {
                "url": format!("{}tokens/refresh", self.vault), "method": "POST",
                "request_headers": self.proof(),
                "request_body_schema": {"type": "object", "required": ["provider"], "properties": {
                    "provider": {"type": "string", "constant_value": "google"},
                    "user_id": {"type": "string", "dynamic_variable": "user_id"},
                }},
                "response_filter": {"mode": "allow", "filters": ["status", "message", "retry_after"]},
            },
        })
    }

    fn broker_tool(&self, name: &str, description: &str, path: &str, texts: &[&str]) -> Value {
        let parameter = |name: &&str| ((*name).to_owned(), json!({"type": "string", "description": name}));
        let properties: Value = texts.iter().map(parameter).collect();
        json!({
            "type": "webhook", "name": name, "description": description, "tool_error_handling_mode": "summarized",
            "api_schema": {
                "url": format!("{}v1/broker/{path}", self.vault), "method": "POST",
                "request_headers": self.proof(),
                "request_body_schema": {"type": "object", "required": texts, "properties": properties},
            },
        })
    }

    /// Exactly what the vault asks of every tool that calls it.
    fn proof(&self) -> Value {
        json!({
            "Authorization": {"variable_name": "secret__valetkey_authorization"},
            "X-Valetkey-Workspace": {"secret_id": self.header_secret},
        })
    }
}

/// The agent, with the script that its pretend model follows.
pub(super) fn agent(tool_ids: &[String]) -> Value {
    let with_refresh = |when: &str, tool: &str, say: &str| {
        json!({
            "when": when, "tool": tool, "on_auth_error": "refresh_google", "say": say,
            "say_error": "Google did not let me in. {error}",
        })
    };
    let script = json!([
        with_refresh("meeting", "read_calendar", "Your next meeting is \"{items.0.summary}\"."),
        with_refresh("mail", "read_mail", "There are {resultSizeEstimate} messages in your mailbox."),
        {
            "when": "telegram", "tool": "send_telegram", "args": {"text": "Reminder: team meeting tomorrow."},
            "say": "I have sent the reminder to your Telegram.", "say_error": "Telegram did not work. {error}",
        },
        {
            "when": "slack", "tool": "post_to_slack",
            "args": {"channel": "general", "text": "I am in a meeting tomorrow morning."},
            "say": "I have posted it to #general.", "say_error": "Slack did not work. {error}",
        },
    ]);
    json!({
        "name": "Assistant",
        "conversation_config": {"agent": {
            "first_message": "Hello {{user_name}}. What can I do for you?",
            "prompt": {
                "prompt": "You help {{user_name}} with mail, meetings and messages. You never see a password or token.",
                "tool_ids": tool_ids, "x_sandbox_script": script,
            },
        }},
        "platform_settings": {"auth": {"enable_auth": true}},
    })
}

/// What the vault is told about the agent.
pub(super) fn needs(workspace: &str) -> Value {
    json!({
        "workspace": workspace,
        "needs": [
            {"provider": "google", "required": true, "hand_over": "inject"},
            {"provider": "slack", "credential": "user", "required": false, "hand_over": "broker"},
            {"provider": "telegram", "required": false, "hand_over": "broker"},
        ],
        "broker": {
            "slack": {"methods": ["POST"], "paths": ["chat.postMessage"]},
            "telegram": {"methods": ["POST"], "paths": ["sendMessage"]},
        },
        "client_variables": [],
        "max_duration": 600,
    })
}
