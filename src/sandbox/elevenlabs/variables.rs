//! Dynamic variables: which ones an agent needs, what they hold, and dot paths into JSON
//! (section 5).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// What readers get instead of a secret value.
pub(super) const REDACTED: &str = "<REDACTED>";

/// The variables of one conversation, by name.
pub(super) type Variables = BTreeMap<String, Value>;

/// The system variables of a conversation on the web.
const SYSTEM: [&str; 16] = [
    "system__agent_id",
    "system__current_agent_id",
    "system__caller_id",
    "system__called_number",
    "system__call_duration_secs",
    "system__time_utc",
    "system__time",
    "system__timezone",
    "system__conversation_id",
    "system__call_sid",
    "system__call_id",
    "system__agent_turns",
    "system__current_agent_turns",
    "system__current_subagent_turns",
    "system__is_text_only",
    "system__conversation_history",
];

/// Secret by name: redacted on every surface the vendor names.
pub(super) fn is_secret(name: &str) -> bool {
    name.starts_with("secret__")
}

/// Reserved for the platform: cannot be set from outside.
pub(super) fn is_system(name: &str) -> bool {
    name.starts_with("system__")
}

/// A value as it stands in a header or a text.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A value as a reader of conversation data gets it.
pub(super) fn redacted(name: &str, value: &Value) -> Value {
    if is_secret(name) { Value::from(REDACTED) } else { value.clone() }
}

/// All variables as a reader of conversation data gets them.
pub(super) fn redacted_all(variables: &Variables) -> Value {
    variables.iter().map(|(name, value)| (name.clone(), redacted(name, value))).collect()
}

/// Placeholders of the agent and its tools; the agent's win (their order is unpublished).
pub(super) fn placeholders(conversation_config: &Value, tools: &[Value]) -> Variables {
    let mut found = Variables::new();
    for holder in tools.iter().chain([&conversation_config["agent"]]) {
        let given = holder["dynamic_variables"]["dynamic_variable_placeholders"].as_object();
        found.extend(given.into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())));
    }
    found
}

/// What is missing at the start, in the platform's words; nothing when all is there.
pub(super) fn missing(conversation_config: &Value, tools: &[Value], variables: &Variables) -> Option<String> {
    let agent = &conversation_config["agent"];
    let places = [
        ("first message", names_in_text(agent["first_message"].as_str().unwrap_or_default())),
        ("prompt", names_in_text(agent["prompt"]["prompt"].as_str().unwrap_or_default())),
        ("tools", tools.iter().flat_map(names_in_tool).collect()),
    ];
    let absent = |name: &String| !variables.contains_key(name) && !SYSTEM.contains(&name.as_str());
    let complaints: Vec<String> = places
        .into_iter()
        .map(|(place, names)| (place, names.into_iter().filter(absent).collect::<Vec<_>>()))
        .filter(|(_, names)| !names.is_empty())
        .map(|(place, names)| format!("Missing required dynamic variables in {place}: {{'{}'}}", names.join("', '")))
        .collect();
    (!complaints.is_empty()).then(|| complaints.join("; "))
}

/// The `{{ name }}` templates of a text.
fn names_in_text(text: &str) -> BTreeSet<String> {
    let pieces = text.split("{{").skip(1);
    pieces.filter_map(|piece| piece.split_once("}}")).map(|(name, _)| name.trim().to_owned()).collect()
}

/// Every variable a tool reads or assigns: headers, parameters, allow-lists, assignments' targets.
fn names_in_tool(tool: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let schema = &tool["api_schema"];
    for header in schema["request_headers"].as_object().into_iter().flat_map(|headers| headers.values()) {
        names.extend(header["variable_name"].as_str().map(str::to_owned));
    }
    for part in ["path_params_schema", "query_params_schema", "request_body_schema"] {
        collect(&schema[part], &mut names);
    }
    collect(&tool["assignments"], &mut names);
    names
}

fn collect(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            // The old schema writes an empty text for "no variable".
            let named = fields.get("dynamic_variable").and_then(Value::as_str).filter(|name| !name.is_empty());
            names.extend(named.map(str::to_owned));
            fields.values().for_each(|inner| collect(inner, names));
        }
        Value::Array(items) => items.iter().for_each(|inner| collect(inner, names)),
        _ => {}
    }
}

/// Fills `{{ name }}` templates. A `secret__` variable is filled like any other: the vendor says it
/// must not be used here, and a stand-in that hid the mistake would help nobody.
pub(super) fn render(text: &str, variables: &Variables) -> String {
    let mut rendered = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, tail)) = after.split_once("}}") else { break };
        rendered.push_str(before);
        rendered.push_str(&variables.get(name.trim()).map(shown).unwrap_or_default());
        rest = tail;
    }
    rendered + rest
}

/// The value at a dot path; a number picks from a list (`data.0.id`).
pub(super) fn at_path<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, step| match value {
        Value::Object(fields) => fields.get(step),
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Takes the value at a dot path out of `value`.
pub(super) fn remove_path(value: &mut Value, path: &str) {
    let (step, rest) = path.split_once('.').map_or((path, None), |(step, rest)| (step, Some(rest)));
    match (value, rest) {
        (Value::Object(fields), None) => {
            fields.remove(step);
        }
        (Value::Object(fields), Some(rest)) => {
            if let Some(inner) = fields.get_mut(step) {
                remove_path(inner, rest);
            }
        }
        (Value::Array(items), rest) => {
            let Some(item) = step.parse::<usize>().ok().and_then(|index| items.get_mut(index)) else { return };
            match rest {
                Some(rest) => remove_path(item, rest),
                // Taking the item out would shift its neighbours under other assignments.
                None => *item = Value::Null,
            }
        }
        _ => {}
    }
}

/// Keeps only what the dot paths name. A name applied to a list is applied to each of its items.
pub(super) fn keep_paths(value: &Value, paths: &[&str]) -> Value {
    if paths.contains(&"") {
        return value.clone();
    }
    let below = |step: &str| -> Vec<&str> {
        let heads = paths.iter().map(|path| path.split_once('.').unwrap_or((path, "")));
        heads.filter(|(head, _)| *head == step).map(|(_, rest)| rest).collect()
    };
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, inner)| (name, inner, below(name)))
            .filter(|(.., paths)| !paths.is_empty())
            .map(|(name, inner, paths)| (name.clone(), keep_paths(inner, &paths)))
            .collect(),
        Value::Array(items) => {
            let named: Vec<&str> =
                paths.iter().copied().filter(|path| !path.starts_with(|c: char| c.is_ascii_digit())).collect();
            let kept = items.iter().enumerate().map(|(index, item)| {
                let mut wanted = below(&index.to_string());
                wanted.extend(&named);
                (item, wanted)
            });
            kept.filter(|(_, wanted)| !wanted.is_empty()).map(|(item, wanted)| keep_paths(item, &wanted)).collect()
        }
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn dot_paths_read_remove_and_keep() {
        let mut value = json!({"data": [{"id": 1, "token": "t"}, {"id": 2}], "status": "ok"});
        assert_eq!(at_path(&value, "data.0.id"), Some(&json!(1)));
        assert_eq!(at_path(&value, "data.7.id"), None);
        assert_eq!(keep_paths(&value, &["data.id"]), json!({"data": [{"id": 1}, {"id": 2}]}));
        assert_eq!(keep_paths(&value, &["data.1.id", "status"]), json!({"data": [{"id": 2}], "status": "ok"}));
        remove_path(&mut value, "data.0.token");
        assert_eq!(value, json!({"data": [{"id": 1}, {"id": 2}], "status": "ok"}));
    }

    #[test]
    fn templates_are_found_and_filled() {
        let variables = Variables::from([("name".to_owned(), json!("Ada")), ("n".to_owned(), json!(3))]);
        assert_eq!(render("Hello {{ name }}, {{n}} of {{gone}}{{", &variables), "Hello Ada, 3 of {{");
        let config = json!({"agent": {"first_message": "Hi {{ a }}", "prompt": {"prompt": "{{system__time}}{{b}}"}}});
        let complaint = missing(&config, &[], &Variables::new()).expect("two are missing");
        assert!(complaint.contains("first message: {'a'}") && complaint.contains("prompt: {'b'}"), "{complaint}");
    }
}
