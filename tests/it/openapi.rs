//! The OpenAPI document is complete and true: no untyped body, every call that programs can make, and real answers that
//! fit what it says of them.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::harness::{Account, Client, Got, Life, TestApp};

/// Contents that are not ours to describe (operation, why).
const FREE: &[(&str, &str)] = &[
    ("broker_", "the provider's own requests and answers pass through"),
    ("hear_", "the provider's own events come in"),
];
/// Objects without properties of their own (component, field, why).
const FREE_JSON: &[(&str, &str, &str)] = &[
    ("StartRequest", "dynamic_variables", "names and values are the tenant's"),
    ("Initiation", "dynamic_variables", "names and values are the tenant's, besides ours"),
];

struct Document(Value);

impl Document {
    fn ours() -> Self {
        Self(valetkey::app::openapi().expect("a document"))
    }

    /// Every call: method in upper case, path, and what is said of it.
    fn operations(&self) -> Vec<(String, &str, &Value)> {
        let mut all = Vec::new();
        for (path, item) in self.0["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("methods") {
                all.push((method.to_uppercase(), path.as_str(), operation));
            }
        }
        all
    }

    fn operation(&self, id: &str) -> &Value {
        let found = self.operations().into_iter().find(|(_, _, operation)| operation["operationId"] == id);
        found.unwrap_or_else(|| panic!("no operation {id}")).2
    }

    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(name) => self.0.pointer(name.trim_start_matches('#')).unwrap_or_else(|| panic!("{name} is nowhere")),
            None => schema,
        }
    }

    /// The answer must be what the document says that this operation answers with this status.
    fn fits(&self, operation: &str, got: &Got) {
        let answers = &self.operation(operation)["responses"];
        let class = format!("{}XX", got.status / 100);
        let status = got.status.to_string();
        let answer = [status.as_str(), &class].into_iter().map(|key| &answers[key]).find(|one| one.is_object());
        let answer = answer.unwrap_or_else(|| panic!("{operation}: {status} is not in the document"));
        let kind = got.header("content-type");
        let schema = &answer["content"][kind]["schema"];
        assert!(schema.is_object(), "{operation}: {status} as `{kind}` is not in the document");
        let faults = self.faults(schema, &got.json(), "");
        assert!(faults.is_empty(), "{operation}: {status}: {faults:#?}\n{}", got.text);
    }

    /// What of `value` does not fit. Knows the words that our document uses, and fails for one that it does not know.
    /// Stricter than JSON Schema in one thing: what is not described must not be there.
    fn faults(&self, schema: &Value, value: &Value, at: &str) -> Vec<String> {
        let mut known = BTreeSet::new();
        let mut faults = self.check(schema, value, at, &mut known);
        if let (Value::Object(members), false) = (value, known.contains("*")) {
            let unknown = members.keys().filter(|name| !known.contains(name.as_str()));
            faults.extend(unknown.map(|name| format!("{at}.{name} is not described")));
        }
        faults
    }

    /// `known` collects the members that are described at this place.
    fn check(&self, schema: &Value, value: &Value, at: &str, known: &mut BTreeSet<String>) -> Vec<String> {
        let mut faults = Vec::new();
        let empty = Map::new();
        if schema.as_object().is_some_and(Map::is_empty) {
            known.insert("*".to_owned());
        }
        for (word, rule) in schema.as_object().expect("a schema") {
            match word.as_str() {
                "description" | "readOnly" | "writeOnly" | "propertyNames" | "default" => {}
                "$ref" => faults.extend(self.check(self.resolve(schema), value, at, known)),
                "allOf" => {
                    for part in rule.as_array().expect("parts") {
                        faults.extend(self.check(part, value, at, known));
                    }
                }
                "oneOf" => {
                    let parts = rule.as_array().expect("parts").iter();
                    let mut fitting = Vec::new();
                    for part in parts {
                        let mut here = BTreeSet::new();
                        if self.check(part, value, at, &mut here).is_empty() {
                            fitting.push(here);
                        }
                    }
                    if fitting.len() != 1 {
                        faults.push(format!("{at} fits {} of the choices", fitting.len()));
                    }
                    known.extend(fitting.into_iter().flatten());
                }
                "type" => {
                    let one = std::slice::from_ref(rule);
                    let types = rule.as_array().map_or(one, Vec::as_slice);
                    if !types.iter().any(|kind| is_a(kind.as_str().expect("a type"), value)) {
                        faults.push(format!("{at} is not {rule}"));
                    }
                }
                "enum" if !rule.as_array().expect("words").contains(value) => {
                    faults.push(format!("{at} is {value}, not one of {rule}"));
                }
                "properties" => {
                    let members = value.as_object().unwrap_or(&empty);
                    for (name, inner) in rule.as_object().expect("properties") {
                        known.insert(name.clone());
                        if let Some(member) = members.get(name) {
                            faults.extend(self.faults(inner, member, &format!("{at}.{name}")));
                        }
                    }
                }
                "required" => {
                    let names = rule.as_array().expect("names").iter().filter_map(Value::as_str);
                    let missing = names.filter(|name| value.get(name).is_none());
                    faults.extend(missing.map(|name| format!("{at}.{name} is missing")));
                }
                "additionalProperties" if rule.is_object() => {
                    known.insert("*".to_owned());
                    for (name, member) in value.as_object().unwrap_or(&empty) {
                        faults.extend(self.faults(rule, member, &format!("{at}.{name}")));
                    }
                }
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        faults.extend(self.faults(rule, item, &format!("{at}[{index}]")));
                    }
                }
                "format" => faults.extend(ill_formed(rule.as_str().unwrap_or_default(), value, at)),
                "pattern" => faults.extend(unlike(rule.as_str().unwrap_or_default(), value, at)),
                "minimum" if value.as_f64().is_some_and(|number| number < rule.as_f64().unwrap_or(0.0)) => {
                    faults.push(format!("{at} is less than {rule}"));
                }
                "enum"
                | "additionalProperties"
                | "minimum"
                | "maximum"
                | "minLength"
                | "maxLength"
                | "minItems"
                | "maxItems" => {}
                other => faults.push(format!("{at}: the word `{other}` is unknown to this test")),
            }
        }
        faults
    }

    /// Objects that say nothing of their members, as `component.field` or `component`.
    fn bare(&self, schema: &Value, place: &str, seen: &mut BTreeSet<String>) -> Vec<String> {
        if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
            if !seen.insert(name.to_owned()) {
                return Vec::new();
            }
            return self.bare(self.resolve(schema), name, seen);
        }
        let says_something = ["properties", "additionalProperties", "allOf", "oneOf", "enum", "items"];
        let is_scalar = schema["type"].as_str().is_some_and(|kind| kind != "object" && kind != "array")
            || schema["type"].is_array()
                && schema["type"].as_array().is_some_and(|types| !types.contains(&"object".into()));
        let mut found = Vec::new();
        let is_open = schema["additionalProperties"].as_object().is_some_and(Map::is_empty);
        if is_open || !is_scalar && !says_something.iter().any(|word| schema.get(word).is_some()) {
            found.push(place.to_owned());
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            found.extend(self.bare(inner, &format!("{place}.{name}"), seen));
        }
        for word in ["allOf", "oneOf"] {
            for inner in schema[word].as_array().into_iter().flatten() {
                found.extend(self.bare(inner, place, seen));
            }
        }
        for word in ["items", "additionalProperties"] {
            if schema[word].as_object().is_some_and(|inner| !inner.is_empty()) {
                found.extend(self.bare(&schema[word], place, seen));
            }
        }
        found
    }
}

fn is_a(kind: &str, value: &Value) -> bool {
    match kind {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "null" => value.is_null(),
        other => panic!("unknown type {other}"),
    }
}

fn ill_formed(format: &str, value: &Value, at: &str) -> Option<String> {
    let text = value.as_str()?;
    let good = match format {
        "date-time" => valetkey::clock::Millis::parse_rfc3339(text).is_ok() && text.ends_with('Z'),
        "uri" => text.parse::<url::Url>().is_ok(),
        _ => false,
    };
    (!good).then(|| format!("{at} is no {format}"))
}

/// The only patterns are those of ids: `^con_[0-9a-v]{26}$`.
fn unlike(pattern: &str, value: &Value, at: &str) -> Option<String> {
    let prefix =
        pattern.strip_prefix('^').and_then(|rest| rest.strip_suffix("[0-9a-v]{26}$")).expect("an id's pattern");
    let rest = value.as_str()?.strip_prefix(prefix);
    let good =
        rest.is_some_and(|rest| rest.len() == 26 && rest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'v')));
    (!good).then(|| format!("{at} is no {prefix}…"))
}

#[test]
fn a_value_that_does_not_fit_is_found() {
    let document = Document(json!({"components": {"schemas": {
        "Part": {"type": "object", "properties": {"id": {"type": "string", "pattern": "^con_[0-9a-v]{26}$"}}, "required": ["id"]},
        "Whole": {"allOf": [{"$ref": "#/components/schemas/Part"},
            {"type": "object", "properties": {"at": {"type": "string", "format": "date-time"}, "kind": {"type": ["string", "null"]},
                "state": {"type": "string", "enum": ["a", "b"]}}, "required": ["kind"]}]},
    }}}));
    let whole = json!({"$ref": "#/components/schemas/Whole"});
    let good =
        json!({"id": format!("con_{}", "0".repeat(26)), "kind": null, "at": "2026-09-21T00:00:00Z", "state": "a"});
    assert_eq!(document.faults(&whole, &good, ""), Vec::<String>::new());
    let bend = |name: &str, value: Value| {
        let mut bad = good.clone();
        bad[name] = value;
        document.faults(&whole, &bad, "").len()
    };
    for (name, value) in [
        ("id", json!("con_x")),
        ("id", json!(7)),
        ("kind", json!(7)),
        ("at", json!("yesterday")),
        ("state", json!("c")),
        ("more", json!(1)),
    ] {
        assert!(bend(name, value.clone()) > 0, "{name}: {value}");
    }
    assert_eq!(document.faults(&whole, &json!({"id": good["id"]}), ""), [".kind is missing"]);
    let bare = json!({"type": "object", "properties": {"x": {"type": "object"}, "y": {}}});
    assert_eq!(document.bare(&bare, "Z", &mut BTreeSet::new()), ["Z.x", "Z.y"]);
}

#[test]
fn no_body_and_no_answer_is_left_without_a_description() {
    let document = Document::ours();
    let free: BTreeSet<String> = FREE_JSON.iter().map(|(component, field, _)| format!("{component}.{field}")).collect();
    let mut used = BTreeSet::new();
    for (method, path, operation) in document.operations() {
        let id = operation["operationId"].as_str().expect("an id");
        if FREE.iter().any(|(start, _)| id.starts_with(start)) {
            continue;
        }
        let mut contents: Vec<(String, &Value)> = Vec::new();
        for (kind, content) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
            contents.push((format!("body as {kind}"), content));
        }
        for (status, answer) in operation["responses"].as_object().expect("answers") {
            let wants_content = !["101", "204"].contains(&status.as_str());
            let content = answer["content"].as_object();
            assert!(content.is_some() == wants_content, "{method} {path}: {status}");
            contents.extend(content.into_iter().flatten().map(|(kind, one)| (format!("{status} as {kind}"), one)));
        }
        for (what, content) in contents {
            for place in document.bare(&content["schema"], &what, &mut BTreeSet::new()) {
                assert!(free.contains(&place), "{method} {path}: {what}: {place} says nothing");
                used.insert(place);
            }
        }
    }
    assert_eq!(free, used, "no exception is left over");
}

#[test]
fn every_call_says_who_may_what_it_is_called_and_how_it_fails() {
    let document = Document::ours();
    let mut names = BTreeSet::new();
    for (method, path, operation) in document.operations() {
        let at = format!("{method} {path}");
        assert!(names.insert(operation["operationId"].as_str().expect("an id")), "{at}: its id is another's, too");
        let summary = operation["summary"].as_str().unwrap_or_default();
        assert!(!summary.is_empty() && !summary.contains('\n'), "{at}: a summary in one line");
        for status in ["4XX", "5XX"] {
            let answer = &operation["responses"][status];
            let body = &answer["content"]["application/problem+json"]["schema"]["$ref"];
            assert_eq!(body, "#/components/schemas/ProblemBody", "{at}: {status}");
            assert!(answer["headers"]["Retry-After"].is_object(), "{at}: {status}");
        }
        let is_platform = operation.get("security").is_none();
        assert_eq!(
            is_platform,
            path.starts_with("/v1/") && !path.contains("/broker/") && !path.ends_with("/relay"),
            "{at}"
        );
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let takes_key = parameters.iter().any(|one| one["name"] == "Idempotency-Key" && one["required"] == false);
        // A kept token would grow old, so reading one is never answered from before.
        let is_kept = is_platform && method != "GET" && operation["operationId"] != "read_token";
        assert_eq!(takes_key, is_kept, "{at}: Idempotency-Key");
        let in_path: BTreeSet<&str> = path.split(['{', '}']).skip(1).step_by(2).collect();
        let named = parameters.iter().filter(|one| one["in"] == "path").filter_map(|one| one["name"].as_str());
        assert_eq!(in_path, named.collect(), "{at}: what stands in the path");
        if let Some(body) = operation.get("requestBody") {
            assert!(body["required"].is_boolean(), "{at}: whether the body may be absent");
        }
    }
    for (name, place) in [("platform_key", "bearer"), ("ticket", "bearer"), ("workspace", "X-Valetkey-Workspace")] {
        let scheme = &document.0["components"]["securitySchemes"][name];
        assert!(scheme["scheme"] == place || scheme["name"] == place, "{name}: {scheme}");
    }
}

#[tokio::test]
async fn bodies_whose_fields_are_all_optional_may_be_absent_and_no_others() {
    let document = Document::ours();
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let mut optional = Vec::new();
    for (method, path, operation) in document.operations() {
        let id = operation["operationId"].as_str().expect("an id");
        let is_free = FREE.iter().any(|(start, _)| id.starts_with(start));
        let Some(body) = operation.get("requestBody").filter(|_| !is_free) else { continue };
        let schema = document.resolve(&body["content"]["application/json"]["schema"]);
        let may_be_absent = body["required"] == false;
        let nothing_is_required = schema.get("required").is_none();
        assert_eq!(may_be_absent, nothing_is_required, "{method} {path}");
        if may_be_absent {
            optional.push(id.to_owned());
        }
        if operation.get("security").is_some() {
            continue;
        }
        let kind = path.split('/').nth(2).unwrap_or_default();
        let prefix = if kind == "connect-sessions" { "cns" } else { "con" };
        let id_in_path = format!("{prefix}_{}", "0".repeat(26));
        let path = path.replace("{id}", &id_in_path).replace("{provider}", "slack").replace(['{', '}'], "");
        let method: Method = method.parse().expect("a method");
        let got = platform.request(method, &path, None).await;
        assert_eq!(got.status == 415, !may_be_absent, "{id}: {} {}", got.status, got.text);
    }
    optional.sort();
    let expected = [
        "change_connection",
        "change_settings",
        "put_integration",
        "put_user",
        "put_workspace",
        "read_token",
        "take_grant",
    ];
    assert_eq!(optional, expected);
    app.finish().await;
}

/// Paths of axum routes in the doors' source, for programs.
fn routes_in_source() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in ["tools.rs", "relay.rs", "mod.rs", "api/mod.rs"] {
        let path = format!("{}/src/http/{file}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).expect("a source file");
        for part in text.split(".route(").skip(1) {
            let path = part.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
            found.insert(path.expect("a path is written where it is routed").replace("{*", "{"));
        }
    }
    assert!(found.len() >= 3, "{found:?}");
    found
}

#[tokio::test]
async fn the_document_has_every_route_and_method_that_programs_are_served_with_and_no_other() {
    // AP-01. `api::router` documents what it routes; the other doors' routes are read from their source.
    let document = Document::ours();
    let mut methods: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (method, path, _) in document.operations() {
        methods.entry(path).or_default().insert(method);
    }
    for path in routes_in_source() {
        assert!(methods.contains_key(path.as_str()), "{path} is routed and not in the document");
    }
    let app = TestApp::start().await;
    for (path, documented) in methods {
        let concrete = path.split('/').map(|part| if part.starts_with('{') { "x" } else { part });
        let concrete = concrete.collect::<Vec<_>>().join("/");
        let got = app.anon().request(Method::from_bytes(b"BREW").expect("a method"), &concrete, None).await;
        if path.starts_with("/v1/broker/") {
            // It hands every method to the agent's rules, which can name those of the document only.
            assert_eq!(got.problem(), (401, "unauthenticated".to_owned()));
            continue;
        }
        assert_eq!(got.problem(), (405, "method_not_allowed".to_owned()), "{path}");
        let served: BTreeSet<String> =
            got.header("allow").split(',').map(str::to_owned).filter(|one| one != "HEAD").collect();
        assert_eq!(served, documented, "{path}");
    }
    app.finish().await;
}

async fn shared(app: &TestApp, platform: &Client, document: &Document) -> String {
    let user = platform.put("/v1/users/u-1", &json!({"display_name": "Ada"})).await;
    document.fits("put_user", &user);
    document.fits("get_user", &platform.read("/v1/users/u-1").await);
    document.fits("list_users", &platform.read("/v1/users?limit=1").await);
    for (id, path) in [("whoami", "/v1/me"), ("get_settings", "/v1/settings"), ("list_providers", "/v1/providers")] {
        document.fits(id, &platform.read(path).await);
    }
    let key = platform.post("/v1/api-keys", &json!({"name": "spare", "scopes": ["audit:read"]})).await;
    document.fits("create_api_key", &key);
    document.fits("list_api_keys", &platform.read("/v1/api-keys").await);
    let portal = platform.post("/v1/portal-sessions", &json!({"user": "u-1"})).await;
    document.fits("create_portal_session", &portal);
    let connection = app.google(platform, "u-1", Account::ADA, Life::Fresh).await;
    let link = json!({"user": "u-1", "return_url": "https://app.example/back"});
    let link = platform.post("/v1/connect-sessions", &link).await;
    document.fits("create_connect_session", &link);
    let session = link.json()["id"].as_str().expect("an id").to_owned();
    document.fits("get_connect_session", &platform.read(&format!("/v1/connect-sessions/{session}")).await);
    connection
}

#[tokio::test]
async fn real_answers_are_what_the_document_says() {
    let document = Document::ours();
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let connection = shared(&app, &platform, &document).await;
    let path = format!("/v1/connections/{connection}");
    document.fits("get_connection", &platform.read(&path).await);
    document.fits("list_connections", &platform.read("/v1/connections?user=u-1&status=active").await);
    document.fits("read_token", &platform.post(&format!("{path}/token"), &json!({})).await);
    document.fits("change_connection", &platform.request(Method::PATCH, &path, Some(&json!({"label": "work"}))).await);
    document.fits("refresh_connection", &platform.post(&format!("{path}/refresh"), &json!({})).await);
    document.fits("list_integrations", &platform.read("/v1/integrations").await);
    document.fits("get_integration", &platform.read("/v1/integrations/google").await);

    let rules = json!({"needs": [{"provider": "google", "required": true}, {"provider": "slack", "required": false}],
        "broker": {"google": {"methods": ["GET"], "paths": ["gmail/**"]}}, "client_variables": ["topic"]});
    let desk = app.desk(&platform, rules).await;
    document.fits("put_workspace", &platform.put("/v1/workspaces/main", &json!({})).await);
    document.fits("get_workspace", &platform.read("/v1/workspaces/main").await);
    document.fits("list_workspaces", &platform.read("/v1/workspaces").await);
    document.fits("get_agent", &platform.read(&format!("/v1/agents/{}", desk.agent_id)).await);
    document.fits("list_agents", &platform.read("/v1/agents").await);
    let grant = json!({"user": "u-1", "resource_type": "agent", "resource_id": desk.agent_id});
    document.fits("give_grant", &platform.put("/v1/grants", &grant).await);
    document.fits("list_grants", &platform.read("/v1/grants").await);

    let start = |channel: &str| json!({"agent_id": desk.agent_id, "user": "u-1", "channel": {"type": channel}});
    let relay = platform.post("/v1/conversations", &start("relay")).await;
    document.fits("start_conversation", &relay);
    let websocket = platform.post("/v1/conversations", &start("websocket")).await;
    document.fits("start_conversation", &websocket);
    assert!(websocket.json()["initiation"].is_object() && relay.json().get("initiation").is_none());
    let tool = app.tool_of(&websocket.json(), &desk);
    document.fits("refresh_tool", &tool.post("/tokens/refresh", &json!({"provider": "google"})).await);
    document.fits("refresh_tool", &app.anon().post("/tokens/refresh", &json!({"provider": "google"})).await);
    let id = relay.json()["id"].as_str().expect("an id").to_owned();
    document.fits("get_conversation", &platform.read(&format!("/v1/conversations/{id}")).await);
    document.fits("end_conversation", &platform.post(&format!("/v1/conversations/{id}/end"), &Value::Null).await);
    document.fits("list_conversations", &platform.read("/v1/conversations").await);

    // Problems: refused, invalid with fields, and one that has more to say.
    document.fits("whoami", &app.anon().read("/v1/me").await);
    let invalid = platform.post("/v1/api-keys", &json!({"name": "", "scopes": ["moon"]})).await;
    assert!(invalid.status == 422 && invalid.json()["errors"].as_array().is_some_and(|errors| !errors.is_empty()));
    document.fits("create_api_key", &invalid);
    let unconnected =
        json!({"agent_id": desk.agent_id, "user": "u-1", "connections": [{"provider": "slack", "required": true}]});
    let unconnected = platform.post("/v1/conversations", &unconnected).await;
    assert_eq!(unconnected.problem(), (424, "connection_required".to_owned()), "{}", unconnected.text);
    document.fits("start_conversation", &unconnected);

    document.fits("delete_connection", &platform.delete(&path).await);
    document.fits("erase_user", &platform.delete("/v1/users/u-1").await);
    document.fits("list_audit_entries", &platform.read("/v1/audit?limit=100").await);
    app.finish().await;
}
