//! Every call of the OpenAPI document × every caller that must not get through (AP-01, AP-05).

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::{Value, json};
use valetkey::accounts::NewApiKey;
use valetkey::caller::{Caller, Permission, Role};
use valetkey::clock::Millis;

use crate::harness::{Account, Client, Got, Life, START, TestApp, Wishes};

/// What another tenant's key meets where a route names a thing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Foreign {
    /// The path names a thing of the first tenant: 404, byte for byte as for a thing that is nowhere.
    Hidden,
    /// The route is about the caller's own tenant; nothing of the other one shows or changes.
    Own,
}

/// One row of the matrix: method and path as the document has them, the scopes of which one is needed, a body that would
/// do.
struct Row(Method, &'static str, &'static [&'static str], Foreign, Value);

fn matrix() -> Vec<Row> {
    use Foreign::{Hidden, Own};
    let (get, put, post, patch, delete) = (Method::GET, Method::PUT, Method::POST, Method::PATCH, Method::DELETE);
    let none = Value::Null;
    let read: &[&str] = &["connections:read"];
    let (write, work, users): (&[&str], &[&str], &[&str]) =
        (&["connections:write"], &["workspaces:write"], &["users:write"]);
    let (talk, keys, grant): (&[&str], &[&str], &[&str]) =
        (&["conversations:write"], &["keys:write"], &["grants:write"]);
    let (settings, integrate): (&[&str], &[&str]) = (&["settings:write"], &["integrations:write"]);
    // Whoever may change them may see them.
    let (see_users, see_clients): (&[&str], &[&str]) =
        (&["users:write", "connections:read"], &["integrations:write", "connections:read"]);
    let client = json!({"client_id": "c-2", "client_secret": "GOCSPX-other-secret", "scopes": ["openid"]});
    let a_grant = json!({"user": "u-b", "resource_type": "agent", "resource_id": "agent_x"});
    let import = json!({"connections": [{"user": "u-b", "provider": "google", "account": {"id": "9"},
        "credentials": [{"kind": "user", "access_token": "ya29.vkcanary-imported-by-the-other-tenant"}]}]});
    vec![
        Row(get.clone(), "/v1/me", &[], Own, none.clone()),
        Row(get.clone(), "/v1/settings", settings, Own, none.clone()),
        Row(patch.clone(), "/v1/settings", settings, Own, json!({"origins": ["https://b.example"]})),
        Row(get.clone(), "/v1/users", see_users, Own, none.clone()),
        Row(get.clone(), "/v1/users/{user}", see_users, Hidden, none.clone()),
        Row(put.clone(), "/v1/users/{user}", users, Own, json!({"display_name": "B"})),
        Row(delete.clone(), "/v1/users/{user}", users, Hidden, none.clone()),
        Row(post.clone(), "/v1/portal-sessions", write, Own, json!({"user": "u-b"})),
        Row(get.clone(), "/v1/api-keys", keys, Own, none.clone()),
        Row(post.clone(), "/v1/api-keys", keys, Own, json!({"name": "b", "scopes": ["connections:read"]})),
        Row(delete.clone(), "/v1/api-keys/{id}", keys, Hidden, none.clone()),
        Row(get.clone(), "/v1/audit", &["audit:read"], Own, none.clone()),
        Row(get.clone(), "/v1/providers", see_clients, Own, none.clone()),
        Row(get.clone(), "/v1/integrations", see_clients, Own, none.clone()),
        Row(get.clone(), "/v1/integrations/{provider}", see_clients, Hidden, none.clone()),
        Row(delete.clone(), "/v1/integrations/{provider}", integrate, Hidden, none.clone()),
        Row(put.clone(), "/v1/integrations/{provider}", integrate, Own, client),
        Row(
            post.clone(),
            "/v1/connect-sessions",
            write,
            Own,
            json!({"user": "u-b", "return_url": "https://app.example/back"}),
        ),
        Row(get.clone(), "/v1/connect-sessions/{id}", read, Hidden, none.clone()),
        Row(
            post.clone(),
            "/v1/connect-sessions/{id}/confirm",
            write,
            Hidden,
            json!({"user": "u-1", "completion_code": "x"}),
        ),
        Row(get.clone(), "/v1/connections", read, Own, none.clone()),
        Row(post.clone(), "/v1/connections", write, Own, json!({"user": "u-b", "provider": "google"})),
        Row(post.clone(), "/v1/connections/import", write, Own, import),
        Row(get.clone(), "/v1/connections/{id}", read, Hidden, none.clone()),
        Row(patch.clone(), "/v1/connections/{id}", write, Hidden, json!({"label": "stolen"})),
        Row(post.clone(), "/v1/connections/{id}/token", &["tokens:read"], Hidden, json!({})),
        Row(post.clone(), "/v1/connections/{id}/refresh", write, Hidden, none.clone()),
        Row(delete.clone(), "/v1/connections/{id}", write, Hidden, none.clone()),
        Row(get.clone(), "/v1/workspaces", work, Own, none.clone()),
        Row(get.clone(), "/v1/workspaces/{name}", work, Hidden, none.clone()),
        Row(put.clone(), "/v1/workspaces/{name}", work, Own, json!({"api_key": "sk_of_another_tenant"})),
        Row(get.clone(), "/v1/agents", work, Own, none.clone()),
        Row(get.clone(), "/v1/agents/{agent_id}", work, Hidden, none.clone()),
        Row(put.clone(), "/v1/agents/{agent_id}", work, Own, json!({"workspace": "main", "needs": []})),
        Row(get.clone(), "/v1/grants", grant, Own, none.clone()),
        Row(put, "/v1/grants", grant, Own, a_grant),
        Row(delete, "/v1/grants", grant, Hidden, none.clone()),
        Row(get.clone(), "/v1/conversations", talk, Own, none.clone()),
        Row(post.clone(), "/v1/conversations", talk, Own, json!({"agent_id": "agent_x", "user": "u-b"})),
        Row(get, "/v1/conversations/{id}", talk, Hidden, none.clone()),
        Row(post, "/v1/conversations/{id}/end", talk, Hidden, none),
    ]
}

impl Row {
    fn name(&self) -> String {
        format!("{} {}", self.0, self.1)
    }

    fn body(&self) -> Option<&Value> {
        (!self.4.is_null()).then_some(&self.4)
    }

    /// The path with `things` in its places; what is left is filled with something that is nowhere.
    fn path(&self, things: &BTreeMap<String, String>) -> String {
        let kind = self.1.split('/').nth(2).unwrap_or_default();
        let query = if self.name() == "DELETE /v1/grants" {
            "?user={user}&resource_type=agent&resource_id={agent_id}"
        } else {
            ""
        };
        let mut path = format!("{}{query}", self.1).replace("{id}", &format!("{{{kind}}}"));
        for (place, thing) in things {
            path = path.replace(&format!("{{{place}}}"), thing);
        }
        path
    }

    async fn ask(&self, client: &Client, things: &BTreeMap<String, String>) -> Got {
        client.request(self.0.clone(), &self.path(things), self.body()).await
    }
}

/// A tenant with one of everything; gives the place names of paths with its things.
async fn furnished(app: &TestApp, platform: &Client) -> BTreeMap<String, String> {
    let connection = app.google(platform, "u-1", Account::ADA, Life::Fresh).await;
    let desk = app.desk(platform, json!({"needs": [], "access": "granted"})).await;
    let grant = json!({"user": "u-1", "resource_type": "agent", "resource_id": desk.agent_id});
    platform.put("/v1/grants", &grant).await.ok();
    let started = platform.post("/v1/conversations", &json!({"agent_id": desk.agent_id, "user": "u-1"})).await.ok();
    let key = platform.post("/v1/api-keys", &json!({"name": "spare", "scopes": ["audit:read"]})).await.ok();
    let link = json!({"user": "u-1", "return_url": "https://app.example/back"});
    let session = platform.post("/v1/connect-sessions", &link).await.ok();
    let id = |value: &Value| value["id"].as_str().expect("an id").to_owned();
    [
        ("user", "u-1".to_owned()),
        ("provider", "google".to_owned()),
        ("name", "main".to_owned()),
        ("agent_id", desk.agent_id),
        ("connections", connection),
        ("conversations", id(&started)),
        ("api-keys", id(&key)),
        ("connect-sessions", id(&session)),
    ]
    .map(|(place, thing)| (place.to_owned(), thing))
    .into()
}

/// Things that are nowhere, in the shape of real ones.
fn nowhere(real: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let bend = |thing: &str| match thing.rsplit_once('_') {
        Some((prefix, rest)) => format!("{prefix}_{}", rest.chars().rev().collect::<String>()),
        None if thing == "google" => "slack".to_owned(),
        None => format!("{thing}x"),
    };
    real.iter().map(|(place, thing)| (place.clone(), bend(thing))).collect()
}

/// Everything that the first tenant can see of itself.
async fn snapshot(rows: &[Row], platform: &Client, things: &BTreeMap<String, String>) -> Vec<(String, Value)> {
    let mut seen = Vec::new();
    // The book grows by being read, and keys are marked as used.
    for row in rows.iter().filter(|row| row.0 == Method::GET && !["/v1/audit", "/v1/api-keys"].contains(&row.1)) {
        seen.push((row.name(), row.ask(platform, things).await.ok()));
    }
    seen
}

/// Calls of tools, which have a proof of their own: method and path as the document has them.
const TOOL_CALLS: &[(&str, &str)] = &[
    ("POST", "/tokens/refresh"),
    ("GET", "/v1/broker/{provider}/{path}"),
    ("POST", "/v1/broker/{provider}/{path}"),
    ("PUT", "/v1/broker/{provider}/{path}"),
    ("PATCH", "/v1/broker/{provider}/{path}"),
    ("DELETE", "/v1/broker/{provider}/{path}"),
];
/// Calls that prove themselves in another way, by their address or what they carry (call, where its story is).
const BY_THEMSELVES: &[(&str, &str)] = &[
    ("GET /v1/conversations/{id}/relay", "relay.rs"),
    ("POST /hooks/slack/{integration_id}", "notices.rs"),
    ("POST /hooks/google/{integration_id}", "notices.rs"),
    ("POST /hooks/telegram/{integration_id}", "notices.rs"),
];

#[test]
fn the_matrix_has_every_route_of_the_document_and_no_other() {
    // AP-01: a route that is missing here fails the build.
    let document = valetkey::app::openapi().expect("a document");
    let mut documented: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let proof = match operation.get("security") {
                None => "a platform key",
                Some(security) if security[0].get("ticket").is_some() => "a ticket",
                Some(_) => "themselves",
            };
            documented.entry(proof).or_default().insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    let tested = BTreeMap::from([
        ("a platform key", matrix().iter().map(Row::name).collect()),
        ("a ticket", TOOL_CALLS.iter().map(|(method, path)| format!("{method} {path}")).collect()),
        ("themselves", BY_THEMSELVES.iter().map(|(call, _)| (*call).to_owned()).collect::<BTreeSet<_>>()),
    ]);
    assert_eq!(documented, tested);
}

#[tokio::test]
async fn without_both_proofs_of_one_tenant_every_tool_call_is_401_in_one_way() {
    // AP-01, AG-04
    let app = TestApp::start().await;
    let platform = app.platform().await;
    app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let rules = json!({"google": {"methods": ["GET", "POST", "PUT", "PATCH", "DELETE"], "paths": ["**"]}});
    let desk = app.desk(&platform, json!({"needs": [{"provider": "google"}], "broker": rules})).await;
    let started = app.start_websocket(&platform, &desk, "u-1").await;
    let other = app.key_of(&app.other_tenant("umbra").await, &["all"]).await;
    let theirs = other.put("/v1/workspaces/main", &json!({"api_key": app.street.eleven.api_key()})).await.ok();
    let theirs = theirs["tool_header_value"].as_str().expect("a header").to_owned();
    let tool = app.tool_of(&started, &desk);
    let header = ("x-valetkey-workspace", desk.tool_header.as_str());
    let callers = [
        ("nobody", app.anon()),
        ("the header alone", app.anon().with(header.0, header.1)),
        ("a garbled ticket", app.anon().with(header.0, header.1).with("authorization", "Bearer vkt_garbled")),
        ("a platform key", platform.with(header.0, header.1)),
        ("the ticket with a garbled header", tool.with(header.0, "vkw_garbled")),
        ("the ticket with another tenant's header", tool.with(header.0, &theirs)),
        ("a signed-in owner's cookie", app.member(Role::Owner).await),
    ];
    let mut bodies = BTreeSet::new();
    for (who, client) in callers {
        for (method, path) in TOOL_CALLS {
            let path = path.replace("{provider}", "google").replace("{path}", "calendar/v3/users/me/calendarList");
            let body = json!({"provider": "google"});
            let got = client.request(method.parse().expect("a method"), &path, Some(&body)).await;
            assert_eq!(got.problem(), (401, "unauthenticated".to_owned()), "{who}: {method} {path}");
            bodies.insert(got.without_instance());
        }
    }
    assert_eq!(bodies.len(), 1, "uniform: {bodies:?}");
    assert_eq!(tool.post("/tokens/refresh", &json!({"provider": "google"})).await.status, 200, "both proofs open it");
    app.finish().await;
}

#[tokio::test]
async fn without_a_good_key_every_route_is_401_in_one_way() {
    // AP-01, AP-04
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let things = furnished(&app, &platform).await;
    let operator = Caller::operator(app.tenant.id.clone());
    let new = |expires_at| NewApiKey {
        name: "short".to_owned(),
        scopes: vec!["all".to_owned()],
        allowed_ips: None,
        expires_at,
    };
    let accounts = &app.rooms().accounts;
    let text = |secret: &valetkey::audit::Exposed| {
        serde_json::to_value(secret).expect("serializes").as_str().expect("a text").to_owned()
    };
    let (_, expired) = accounts.api_key_create(&operator, new(Some(Millis(START + 60_000)))).await.expect("a key");
    let (revoked_key, revoked) = accounts.api_key_create(&operator, new(None)).await.expect("a key");
    let (expired, revoked) = (text(&expired), text(&revoked));
    assert_eq!(app.anon().with_key(&revoked).read("/v1/me").await.status, 200);
    platform.delete(&format!("/v1/api-keys/{}", revoked_key.id)).await.ok();
    app.advance(1);
    let session = app.member(Role::Owner).await;
    let callers = [
        ("nobody", app.anon()),
        ("garbage", app.anon().with("authorization", "Bearer vk_test_garbage")),
        ("an expired key", app.anon().with_key(&expired)),
        ("a revoked key", app.anon().with_key(&revoked)),
        ("another scheme", app.anon().with("authorization", &format!("Basic {expired}"))),
        ("a signed-in owner's cookie", session),
    ];
    let mut bodies = BTreeSet::new();
    for (who, client) in callers {
        for row in matrix() {
            let got = row.ask(&client, &things).await;
            assert_eq!(got.problem(), (401, "unauthenticated".to_owned()), "{who}: {}", row.name());
            assert_eq!(got.header("www-authenticate"), "Bearer");
            bodies.insert(got.without_instance());
        }
    }
    assert_eq!(bodies.len(), 1, "uniform: {bodies:?}");
    app.finish().await;
}

#[tokio::test]
async fn a_key_that_lacks_the_scope_is_403_on_every_route() {
    // AP-05: deny by default
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let things = furnished(&app, &platform).await;
    let rows = matrix();
    let before = snapshot(&rows, &platform, &things).await;
    let all: Vec<&str> = Permission::ALL.iter().map(|one| one.as_str()).collect();
    // Without the scope even nonsense is not looked at: a body or a query that does not fit is nobody's business.
    let nonsense = json!([{"nonsense": true}]);
    let ill_formed: BTreeMap<_, _> = things.keys().map(|name| (name.clone(), "con_x".to_owned())).collect();
    for scopes in rows.iter().map(|row| row.2).filter(|scopes| !scopes.is_empty()).collect::<BTreeSet<_>>() {
        let others: Vec<&str> = all.iter().copied().filter(|one| !scopes.contains(one)).collect();
        let client = app.platform_key(&others).await;
        for row in rows.iter().filter(|row| row.2 == scopes) {
            let got = row.ask(&client, &ill_formed).await;
            assert_eq!(got.problem(), (403, "insufficient_scope".to_owned()), "an id that is none: {}", row.name());
            let got = row.ask(&client, &things).await;
            assert_eq!(got.problem(), (403, "insufficient_scope".to_owned()), "all but {scopes:?}: {}", row.name());
            if row.0 != Method::GET {
                let path = row.path(&things).replace("resource_type", "conversations=bogus&resource_typo");
                let got = client.request(row.0.clone(), &path, Some(&nonsense)).await;
                assert_eq!(got.problem(), (403, "insufficient_scope".to_owned()), "nonsense: {}", row.name());
            }
        }
    }
    for scope in &all {
        let client = app.platform_key(&[scope]).await;
        for row in rows.iter().filter(|row| !row.2.is_empty()) {
            if row.2.contains(scope) {
                // One of several is enough.
                let got = (row.0 == Method::GET).then_some(row.ask(&client, &things));
                let status = if let Some(got) = got { got.await.status } else { 200 };
                assert_eq!(status, 200, "only {scope}: {}", row.name());
                continue;
            }
            let got = row.ask(&client, &things).await;
            assert_eq!(got.status, 403, "only {scope}: {}: {}", row.name(), got.text);
        }
    }
    assert_eq!(before, snapshot(&rows, &platform, &things).await, "nothing has changed");
    app.finish().await;
}

#[tokio::test]
async fn another_tenants_things_are_nowhere() {
    // AP-01
    for wishes in Wishes::both() {
        let Some(app) = TestApp::start_with(wishes).await else { continue };
        let platform = app.platform().await;
        let things = furnished(&app, &platform).await;
        let rows = matrix();
        let before = snapshot(&rows, &platform, &things).await;
        let other = app.other_tenant("umbra").await;
        let stranger = app.key_of(&other, &["all"]).await;
        // Two rounds: with nothing of its own, then beside things of the same names.
        for round in ["an empty tenant", "a furnished tenant"] {
            let missing = nowhere(&things);
            for row in rows.iter().filter(|row| row.3 == Foreign::Hidden) {
                let own_by_now = round == "a furnished tenant" && !row.1.ends_with("{id}") && !row.1.contains("{id}/");
                if own_by_now {
                    continue;
                }
                let foreign = row.ask(&stranger, &things).await;
                assert_eq!(foreign.problem(), (404, "not_found".to_owned()), "{round}: {}", row.name());
                let absent = row.ask(&stranger, &missing).await;
                assert_eq!(foreign.without_instance(), absent.without_instance(), "{round}: {}", row.name());
            }
            if round == "an empty tenant" {
                let theft = json!({"agent_id": things["agent_id"], "user": "u-1"});
                let refused = stranger.post("/v1/conversations", &theft).await;
                assert_eq!(refused.problem(), (404, "not_found".to_owned()), "{}", refused.text);
            }
            for row in rows.iter().filter(|row| row.3 == Foreign::Own) {
                let got = row.ask(&stranger, &things).await;
                assert!(got.status < 500, "{round}: {}: {}", row.name(), got.text);
                for (place, thing) in things.iter().filter(|(_, thing)| thing.contains('_')) {
                    // By the second round the stranger has told the house about an agent of the same id itself.
                    let echo = place == "agent_id" && (row.1.contains("{agent_id}") || round == "a furnished tenant");
                    assert!(echo || !got.text.contains(thing.as_str()), "{round}: {} shows {place}", row.name());
                }
            }
        }
        assert_eq!(before, snapshot(&rows, &platform, &things).await, "nothing of the first tenant has changed");
        app.finish().await;
    }
}

#[tokio::test]
async fn an_end_user_sees_no_account_of_another_user() {
    // AP-01
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let mine = app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let theirs = app.google(&platform, "u-2", Account::GRACE, Life::Fresh).await;
    let mut browser = app.end_user(&platform, "u-1").await;
    let list = browser.get("/connections").await;
    assert!(list.status == 200 && list.text.contains("ada@example.com") && !list.text.contains("grace@example.com"));
    let own = browser.get(&format!("/connections/{mine}")).await;
    assert_eq!(own.status, 200);
    let foreign = browser.get(&format!("/connections/{theirs}")).await;
    let gone = app.google(&platform, "u-1", Account::OPS, Life::Fresh).await;
    platform.delete(&format!("/v1/connections/{gone}")).await.ok();
    let absent = browser.get(&format!("/connections/{gone}")).await;
    assert_eq!((foreign.status, foreign.without_instance()), (404, absent.without_instance()));
    let csrf = own.csrf();
    let answered = [("csrf", csrf.as_str()), ("was_me", "yes"), ("press", "x")];
    assert_eq!(browser.submit(&format!("/connections/{theirs}/start"), &answered).await.status, 404);
    let refused = browser.submit(&format!("/connections/{theirs}/disconnect"), &[("csrf", &csrf)]).await;
    assert_eq!(refused.status, 404);
    assert_eq!(platform.read(&format!("/v1/connections/{theirs}")).await.ok()["status"], "active");
    let mut nobody = app.anon();
    for path in ["/connections", "/activity", "/settings", "/admin"] {
        let got = nobody.get(path).await;
        assert!(got.status == 303 || got.status == 401, "{path}: {}", got.status);
    }
    assert!([403, 404].contains(&browser.get("/admin").await.status), "no pages of members for users");
    app.finish().await;
}

#[tokio::test]
async fn a_key_for_other_addresses_is_403() {
    // AP-06
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let new = json!({"name": "office", "scopes": ["connections:read"], "allowed_ips": ["203.0.113.7"]});
    let key = platform.post("/v1/api-keys", &new).await.ok();
    let office = app.anon().with_key(key["secret"].as_str().expect("a secret"));
    let refused = office.read("/v1/me").await;
    assert_eq!(refused.problem(), (403, "ip_not_allowed".to_owned()));
    // Nobody is behind a proxy unless the operator says so.
    let forged = office.with("x-forwarded-for", "203.0.113.7").read("/v1/me").await;
    assert_eq!(forged.status, 403);
    app.finish().await;
}
