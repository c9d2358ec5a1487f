//! What ElevenLabs answers, reduced to what is used. Unknown fields are ignored and every enum is open (fact sheet 0).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::secret::Secret;

/// A socket address that starts a conversation, valid for 15 minutes (fact sheet 2.1).
#[derive(Debug)]
pub struct SignedUrl {
    /// A bearer secret: whoever has it talks as the agent's caller.
    pub url: Secret,
    /// The conversation that was allocated for it; its URL then works once only.
    pub conversation_id: Option<String>,
}

/// A WebRTC token (fact sheet 2.2).
#[derive(Debug)]
pub struct ConversationToken {
    /// A LiveKit token; a bearer secret.
    pub token: Secret,
    /// The conversation that was allocated for it.
    pub conversation_id: Option<String>,
}

/// Whose key it is (fact sheet 12.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user or service account.
    pub user_id: Option<String>,
    /// The workspace that the key is bound to.
    pub workspace_id: Option<String>,
}

/// An agent, as far as its tools are concerned.
#[derive(Debug, Default)]
pub struct Agent {
    /// Its id.
    pub id: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Every tool it can call by id: its prompt's, its workflow nodes' and any found elsewhere in its configuration.
    pub tool_ids: BTreeSet<String>,
    /// Tools written into the agent itself (deprecated by ElevenLabs, still seen).
    pub inline_tools: Vec<Tool>,
    /// Agents that a conversation can be handed to, whose tools count too.
    pub transfer_targets: BTreeSet<String>,
    /// Longest conversation in seconds; 600 by default at ElevenLabs.
    pub max_duration_seconds: Option<u64>,
    /// Whether starting needs a signed URL or token.
    pub auth_enabled: Option<bool>,
}

/// A tool that calls a URL (fact sheet 6.2).
#[derive(Debug, Default)]
pub struct Tool {
    /// Its id; `None` for one that is written into an agent.
    pub id: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// `webhook`, `client`, `system` and more.
    pub kind: Option<String>,
    /// What it calls, as written: it may hold `{parameter}` and `{{variable}}`.
    pub url: Option<String>,
    /// In upper case; ElevenLabs' default is `GET`.
    pub method: String,
    /// Headers by lower-case name.
    pub request_headers: BTreeMap<String, HeaderSource>,
    /// What it writes into variables.
    pub assignments: Vec<Assignment>,
    /// Which part of its answer the model sees.
    pub response_filter: FilterMode,
}

/// Where a header's value comes from.
#[derive(Debug)]
pub enum HeaderSource {
    /// Written into the tool; may well be a secret.
    Text(Secret),
    /// A workspace secret.
    SecretId(String),
    /// A dynamic variable.
    Variable(String),
    /// A workspace environment variable.
    Environment(String),
    /// Something newer.
    Other,
}

/// One assignment of a tool (fact sheet 6.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The variable that is written.
    pub dynamic_variable: String,
    /// Dot path into the answer.
    pub value_path: String,
    /// The value is removed from what the model and the transcript see.
    pub sanitize: bool,
}

/// Which part of a tool's answer the model sees. Absent means everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FilterMode {
    /// Everything.
    #[default]
    All,
    /// Only these dot paths.
    Allow(Vec<String>),
    /// Nothing.
    HideAll,
    /// A mode we do not know; take it as everything.
    Other,
}

impl Agent {
    /// Reads `GET /v1/convai/agents/{id}`. The whole document is searched, so that a tool in a place we do not know
    /// yet still counts.
    pub(super) fn read(value: &Value) -> Self {
        let mut agent = Self { id: text(value, "agent_id"), name: text(value, "name"), ..Self::default() };
        let conversation = value.pointer("/conversation_config/conversation/max_duration_seconds");
        agent.max_duration_seconds = conversation.and_then(Value::as_u64);
        agent.auth_enabled = value.pointer("/platform_settings/auth/enable_auth").and_then(Value::as_bool);
        for part in ["conversation_config", "workflow", "procedures"] {
            agent.search(value.get(part).unwrap_or(&Value::Null));
        }
        if let Some(own) = &agent.id {
            agent.transfer_targets.remove(own);
        }
        agent
    }

    fn search(&mut self, value: &Value) {
        match value {
            Value::Array(list) => list.iter().for_each(|one| self.search(one)),
            Value::Object(fields) => {
                if fields.contains_key("api_schema") {
                    self.inline_tools.push(Tool::read(value));
                }
                for (name, inner) in fields {
                    match name.as_str() {
                        "tool_ids" | "additional_tool_ids" => self.tool_ids.extend(texts(inner)),
                        "tool_id" => self.tool_ids.extend(inner.as_str().map(str::to_owned)),
                        "agent_id" => self.transfer_targets.extend(inner.as_str().map(str::to_owned)),
                        _ => {}
                    }
                    self.search(inner);
                }
            }
            _ => {}
        }
    }
}

impl Tool {
    /// Reads `{id, tool_config}` or a bare configuration.
    pub(crate) fn read(value: &Value) -> Self {
        let config = value.get("tool_config").unwrap_or(value);
        let schema = config.get("api_schema").unwrap_or(&Value::Null);
        let headers = schema.get("request_headers").and_then(Value::as_object);
        let headers = headers.into_iter().flatten();
        let assignments = config.get("assignments").and_then(Value::as_array);
        Self {
            id: text(value, "id"),
            name: text(config, "name"),
            kind: text(config, "type"),
            url: text(schema, "url"),
            method: text(schema, "method").unwrap_or_else(|| "GET".to_owned()).to_ascii_uppercase(),
            request_headers: headers.map(|(name, one)| (name.to_ascii_lowercase(), HeaderSource::read(one))).collect(),
            assignments: assignments.into_iter().flatten().filter_map(Assignment::read).collect(),
            response_filter: FilterMode::read(schema.get("response_filter").unwrap_or(&Value::Null)),
        }
    }
}

impl HeaderSource {
    fn read(value: &Value) -> Self {
        if let Some(text) = value.as_str() {
            return Self::Text(Secret::new(text));
        }
        let secret = text(value, "secret_id").map(Self::SecretId);
        let variable = || text(value, "variable_name").map(Self::Variable);
        let environment = || text(value, "env_var_label").map(Self::Environment);
        secret.or_else(variable).or_else(environment).unwrap_or(Self::Other)
    }
}

impl Assignment {
    fn read(value: &Value) -> Option<Self> {
        Some(Self {
            dynamic_variable: text(value, "dynamic_variable")?,
            value_path: text(value, "value_path").unwrap_or_default(),
            sanitize: value.get("sanitize").and_then(Value::as_bool).unwrap_or(false),
        })
    }
}

impl FilterMode {
    fn read(value: &Value) -> Self {
        match value.get("mode").and_then(Value::as_str) {
            None if value.is_null() || value.get("mode").is_none_or(Value::is_null) => Self::All,
            Some("all") => Self::All,
            Some("allow") => Self::Allow(texts(value.get("filters").unwrap_or(&Value::Null)).collect()),
            Some("hide_all") => Self::HideAll,
            _ => Self::Other,
        }
    }
}

pub(super) fn text(value: &Value, name: &str) -> Option<String> {
    value.get(name)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn texts(value: &Value) -> impl Iterator<Item = String> {
    value.as_array().into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(items: &[&str]) -> BTreeSet<String> {
        items.iter().map(|one| (*one).to_owned()).collect()
    }

    #[test]
    fn every_tool_of_an_agent_is_found() {
        let agent = Agent::read(&json!({
            "agent_id": "agent_1", "name": "Desk", "surprise": {"tool_ids": ["not-a-part-of-the-agent"]},
            "platform_settings": {"auth": {"enable_auth": true}},
            "conversation_config": {
                "conversation": {"max_duration_seconds": 900},
                "agent": {"prompt": {
                    "tool_ids": ["tool_a", "tool_b", 7],
                    "tools": [{"type": "webhook", "name": "inline", "api_schema": {"url": "https://v.example/x"}}],
                    "built_in_tools": {"transfer_to_agent": {"params": {
                        "system_tool_type": "transfer_to_agent", "transfers": [{"agent_id": "agent_2"}]}}}
                }}
            },
            "workflow": {"nodes": {
                "n1": {"type": "override_agent", "additional_tool_ids": ["tool_c"],
                       "conversation_config": {"agent": {"prompt": {"tool_ids": ["tool_d"]}}}},
                "n2": {"type": "tool", "tools": [{"tool_id": "tool_e"}]},
                "n3": {"type": "standalone_agent", "agent_id": "agent_3"}
            }}
        }));
        assert_eq!(agent.tool_ids, set(&["tool_a", "tool_b", "tool_c", "tool_d", "tool_e"]));
        assert_eq!(agent.transfer_targets, set(&["agent_2", "agent_3"]));
        assert_eq!(agent.inline_tools.len(), 1);
        assert_eq!(agent.inline_tools[0].url.as_deref(), Some("https://v.example/x"));
        assert_eq!((agent.max_duration_seconds, agent.auth_enabled), (Some(900), Some(true)));
    }

    #[test]
    fn a_tool_is_read_with_its_headers_assignments_and_filter() {
        let tool = Tool::read(&json!({"id": "tool_a", "tool_config": {
            "type": "webhook", "name": "refresh",
            "assignments": [
                {"source": "response", "dynamic_variable": "secret__t", "value_path": "access_token", "sanitize": true},
                {"dynamic_variable": "plain", "value_path": "status"}, {"value_path": "x"}, 7],
            "api_schema": {"url": "https://v.example/tokens/refresh", "method": "post",
                "request_headers": {"Authorization": {"variable_name": "secret__a"}, "X-W": {"secret_id": "sec_1"},
                    "X-E": {"env_var_label": "e"}, "X-T": "Bearer abc", "X-N": {"future": 1}},
                "response_filter": {"mode": "allow", "filters": ["status"]}}}}));
        assert_eq!((tool.id.as_deref(), tool.method.as_str()), (Some("tool_a"), "POST"));
        let path = |variable: &str, path: &str, sanitize| Assignment {
            dynamic_variable: variable.into(),
            value_path: path.into(),
            sanitize,
        };
        assert_eq!(tool.assignments, [path("secret__t", "access_token", true), path("plain", "status", false)]);
        assert_eq!(tool.response_filter, FilterMode::Allow(vec!["status".into()]));
        let header = |name: &str| tool.request_headers.get(name);
        assert!(matches!(header("authorization"), Some(HeaderSource::Variable(name)) if name == "secret__a"));
        assert!(matches!(header("x-w"), Some(HeaderSource::SecretId(id)) if id == "sec_1"));
        assert!(matches!(header("x-e"), Some(HeaderSource::Environment(_))));
        assert!(matches!(header("x-n"), Some(HeaderSource::Other)));
        assert!(!format!("{tool:?}").contains("Bearer abc"), "a header in clear may be a secret");
    }

    #[test]
    fn what_is_missing_or_unknown_is_no_error() {
        for value in
            [json!({}), json!(null), json!([]), json!({"tool_config": 7}), json!({"tool_config": {"api_schema": []}})]
        {
            let tool = Tool::read(&value);
            assert_eq!((tool.url, tool.method.as_str(), tool.response_filter), (None, "GET", FilterMode::All));
            assert!(Agent::read(&value).tool_ids.is_empty());
        }
        let filter = |value| FilterMode::read(&value);
        assert_eq!(filter(json!({"mode": "hide_all"})), FilterMode::HideAll);
        assert_eq!(filter(json!({"mode": "newer"})), FilterMode::Other);
        assert_eq!(filter(json!({"mode": null})), FilterMode::All);
    }
}
