//! What is refused, by name and in plain words, before anything happens.

use serde_json::{Value, json};

use crate::harness::{Account, Client, Got, Life, TestApp};

/// The fields that a refusal names.
fn fields(got: &Got) -> Vec<String> {
    assert_eq!(got.problem(), (422, "invalid".to_owned()), "{}", got.text);
    let errors = got.json()["errors"].clone();
    errors.as_array().expect("errors").iter().map(|one| one["field"].as_str().expect("a field").to_owned()).collect()
}

/// One import row, changed by `change`.
async fn import(platform: &Client, provider: &str, account: &str, credential: Value) -> Got {
    let mut tokens =
        json!({"kind": "user", "access_token": "ya29.vkcanary-imported", "refresh_token": "1//vkcanary-imported"});
    for (name, value) in credential.as_object().expect("fields") {
        tokens[name] = value.clone();
    }
    let row = json!({"user": "u-9", "provider": provider, "account": {"id": account}, "credentials": [tokens]});
    platform.post("/v1/connections/import", &json!({"connections": [row]})).await
}

#[tokio::test]
async fn bodies_are_objects_whose_fields_we_know() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let desk = app.desk(&platform, json!({"needs": []})).await;
    let start = |channel: Value| json!({"agent_id": desk.agent_id, "user": "u-1", "channel": channel});
    for (channel, field) in [
        (json!({"type": "relay", "x": 1}), "channel.x"),
        (json!({"type": "websocket", "x": 1}), "channel.x"),
        (json!({"type": "telegraph"}), "channel.type"),
        (json!(["relay"]), "channel"),
        (json!({}), "channel.type"),
    ] {
        let got = platform.post("/v1/conversations", &start(channel.clone())).await;
        assert_eq!(fields(&got), [field], "{channel}");
    }
    platform.post("/v1/conversations", &start(json!({"type": "relay"}))).await.ok();

    let got = platform.put("/v1/users/u-42", &json!(["Eve"])).await;
    assert_eq!(
        (fields(&got), got.json()["errors"][0]["message"].as_str()),
        (vec![String::new()], Some("must be an object"))
    );
    assert_eq!(platform.read("/v1/users/u-42").await.status, 404, "nobody was made");
    let got = platform.put("/v1/agents/agent_1", &json!({"workspace": "main", "needs": [["google"]]})).await;
    assert_eq!(fields(&got), ["needs[0]"]);
    for (path, body) in [
        ("/v1/portal-sessions", json!(["u-1", null])),
        ("/v1/conversations", json!({"agent_id": "a", "user": "u", "min_ttl": "soon"})),
        ("/v1/conversations", json!({"agent_id": "a", "user": "u", "channel": "relay"})),
    ] {
        let text = platform.post(path, &body).await.text;
        for word in ["struct", "enum", "u64", "element", "ChannelRequest", "NewPortalSession", "map"] {
            assert!(!text.contains(word), "{path}: {text}");
        }
    }
    app.finish().await;
}

#[tokio::test]
async fn an_import_takes_only_what_can_work() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    platform.put("/v1/integrations/telegram", &json!({})).await.ok();
    let got =
        import(&platform, "telegram", "9", json!({"kind": "bot", "access_token": "900:vkcanary-a-bots-token"})).await;
    assert_eq!(fields(&got), ["connections[0].provider"]);
    assert!(got.text.contains("POST /v1/connections"), "{}", got.text);
    let at = |field: &str| vec![format!("connections[0].{field}")];
    for wrong in ["", "a\r\nX: y", "a\u{e9}"] {
        let got = import(&platform, "google", "1", json!({ "access_token": wrong })).await;
        assert_eq!(fields(&got), at("credentials[0].access_token"), "{wrong:?}");
        let got = import(&platform, "google", "1", json!({ "refresh_token": wrong })).await;
        assert_eq!(fields(&got), at("credentials[0].refresh_token"), "{wrong:?}");
    }
    let got = import(&platform, "slack", "U1", json!({})).await;
    assert_eq!(fields(&got), at("account.id"));
    assert!(got.text.contains("<team>/<user>"), "{}", got.text);
    assert!(platform.read("/v1/connections").await.ok()["data"].as_array().is_some_and(Vec::is_empty));
    assert_eq!(import(&platform, "slack", "T1/U1", json!({})).await.status, 201);
    app.finish().await;
}

#[tokio::test]
async fn an_integration_keeps_the_scopes_that_are_not_named() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let before = platform.read("/v1/integrations/slack").await.ok();
    assert!(before["user_scopes"].as_array().is_some_and(|scopes| scopes.len() == 2), "{before}");
    let kept = platform.put("/v1/integrations/slack", &json!({"client_id": before["client_id"]})).await.ok();
    assert_eq!((&kept["scopes"], &kept["user_scopes"]), (&before["scopes"], &before["user_scopes"]));
    let fewer = platform.put("/v1/integrations/slack", &json!({"user_scopes": []})).await.ok();
    assert_eq!((&fewer["scopes"], &fewer["user_scopes"]), (&before["scopes"], &json!([])), "named and empty is empty");
    app.finish().await;
}

#[tokio::test]
async fn an_empty_secret_is_no_secret() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let before = app.rows("SELECT client_secret, updated_at FROM integrations ORDER BY id").await;
    for blank in ["", " ", "\t\n"] {
        let got = platform.put("/v1/integrations/slack", &json!({"client_id": "sid", "client_secret": blank})).await;
        assert_eq!(fields(&got), ["client_secret"], "{blank:?}");
        let got = platform.put("/v1/integrations/slack", &json!({ "client_secret": blank })).await;
        assert_eq!(fields(&got), ["client_secret"], "{blank:?}");
        let got = platform.put("/v1/integrations/telegram", &json!({ "bot_token": blank })).await;
        assert_eq!(fields(&got), ["bot_token"], "{blank:?}");
        let got = platform.put("/v1/workspaces/main", &json!({ "api_key": blank })).await;
        assert_eq!(fields(&got), ["api_key"], "{blank:?}");
    }
    assert_eq!(app.rows("SELECT client_secret, updated_at FROM integrations ORDER BY id").await, before);
    app.finish().await;
}

#[tokio::test]
async fn an_integration_of_which_nothing_is_said_stays_as_it_is() {
    let app = TestApp::start().await;
    let platform = app.platform_key(&["all"]).await;
    let put = reqwest::Method::PUT;
    let got = platform.request(put.clone(), "/v1/integrations/slack", None).await;
    assert_eq!(fields(&got), ["client_id", "client_secret"]);
    app.street.integrate(&platform).await;
    let before = platform.read("/v1/integrations/slack").await.ok();
    app.advance(1);
    assert_eq!(platform.request(put, "/v1/integrations/slack", None).await.ok(), before);
    assert_eq!(platform.put("/v1/integrations/slack", &json!({})).await.ok(), before);
    app.finish().await;
}

#[tokio::test]
async fn a_key_is_for_every_address_only_when_no_list_was_given() {
    let app = TestApp::start().await;
    let platform = app.platform_key(&["all"]).await;
    let key = |more: Value| {
        let mut key = json!({"name": "back end", "scopes": ["users:write"]});
        if !more.is_null() {
            key["allowed_ips"] = more;
        }
        key
    };
    assert_eq!(fields(&platform.post("/v1/api-keys", &key(json!([]))).await), ["allowed_ips"]);
    let made = platform.post("/v1/api-keys", &key(Value::Null)).await;
    assert_eq!((made.status, &made.json()["allowed_ips"]), (201, &json!([])));
    app.finish().await;
}

#[tokio::test]
async fn a_kind_of_credential_that_there_is_not_is_refused_by_name() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let id = app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let path = format!("/v1/connections/{id}/token");
    assert_eq!(fields(&platform.post(&path, &json!({"credential": "zzz"})).await), ["credential"]);
    let none = platform.post(&path, &json!({"credential": "bot"})).await;
    assert_eq!(none.problem(), (404, "not_found".to_owned()), "a kind that there is, but not here");
    platform.post(&path, &json!({"credential": "user"})).await.ok();
    app.finish().await;
}

#[tokio::test]
async fn a_grant_is_taken_by_query_or_by_body() {
    let app = TestApp::start().await;
    let platform = app.platform_key(&["all"]).await;
    platform.put("/v1/users/u-1", &json!({})).await.ok();
    let grant =
        json!({"user": "u-1", "resource_type": "agent", "resource_id": "agent_1", "permission_level": "editor"});
    let delete = reqwest::Method::DELETE;
    let query = "/v1/grants?user=u-1&resource_type=agent&resource_id=agent_1";
    for (path, body) in [("/v1/grants", Some(&grant)), (query, None), (query, Some(&json!({})))] {
        platform.put("/v1/grants", &grant).await.ok();
        assert_eq!(platform.request(delete.clone(), path, body).await.status, 204, "{path} {body:?}");
        let again = platform.request(delete.clone(), path, body).await;
        assert_eq!(again.problem(), (404, "not_found".to_owned()), "{path} {body:?}");
    }
    let all = ["user", "resource_type", "resource_id"];
    assert_eq!(fields(&platform.delete("/v1/grants").await), all);
    let half = platform.request(delete.clone(), "/v1/grants?user=u-1", Some(&grant)).await;
    assert_eq!(fields(&half), all[1..], "one form or the other");
    let typo = platform.request(delete, "/v1/grants", Some(&json!({"user": "u-1", "resource_typo": "agent"}))).await;
    assert_eq!(fields(&typo), ["resource_typo"]);
    app.finish().await;
}

#[tokio::test]
async fn a_connect_session_asks_for_scopes_of_what_it_offers() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let wish = |providers: Value, scopes: Value| json!({"user": "u-1", "return_url": "https://app.example/back", "providers": providers, "scopes": scopes});
    let good =
        wish(json!([]), json!({"google": ["https://www.googleapis.com/auth/drive.file"], "slack": ["files:read"]}));
    platform.post("/v1/connect-sessions", &good).await.ok();
    for (providers, scopes, field) in [
        (json!([]), json!({"google": ["openid", "a b"]}), "scopes.google[1]"),
        (json!([]), json!({"google": [""]}), "scopes.google[0]"),
        (json!([]), json!({"google": ["a\"b"]}), "scopes.google[0]"),
        (json!([]), json!({"google": ["x".repeat(201)]}), "scopes.google[0]"),
        (json!([]), json!({"google": ["a\r\nb"]}), "scopes.google[0]"),
        (json!(["google"]), json!({"slack": ["files:read"]}), "scopes.slack"),
        (json!([]), json!({"nowhere": ["x"]}), "scopes.nowhere"),
        (json!([]), json!({"telegram": ["x"]}), "scopes.telegram"),
    ] {
        let got = platform.post("/v1/connect-sessions", &wish(providers, scopes.clone())).await;
        assert_eq!(fields(&got), [field], "{scopes}");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_status_that_there_is_not_is_refused_by_name() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    assert_eq!(fields(&platform.read("/v1/connections?status=bogus").await), ["status"]);
    for (status, number) in
        [("active", 1), ("awaiting_start", 0), ("quarantined", 0), ("revoked", 0), ("misconfigured", 0)]
    {
        let list = platform.read(&format!("/v1/connections?status={status}")).await.ok();
        assert_eq!(list["data"].as_array().map(Vec::len), Some(number), "{status}");
    }
    app.finish().await;
}
