//! Providers beyond the first three: what is theirs in the catalogue, and what a tenant says about them.

use serde_json::{Value, json};

use crate::harness::{Client, TestApp};

const SECRET: &str = "zd-vkcanary-the-client-secret";

fn draft(variables: Value) -> Value {
    json!({"client_id": "vault", "client_secret": SECRET, "scopes": ["read"], "variables": variables})
}

/// The fields that a refused draft has to mend.
async fn refused(platform: &Client, draft: &Value) -> Vec<String> {
    let answer = platform.put("/v1/integrations/zendesk", draft).await;
    assert_eq!(answer.problem(), (422, "invalid".to_owned()), "{draft}");
    let errors = answer.json()["errors"].as_array().cloned().expect("errors");
    errors.iter().map(|one| one["field"].as_str().expect("a field").to_owned()).collect()
}

async fn imported(platform: &Client, user: &str) -> String {
    let tokens = json!({"kind": "user", "access_token": "zd-vkcanary-access", "refresh_token": "zd-vkcanary-refresh",
        "expires_at": "2099-01-01T00:00:00Z", "scopes": ["read"]});
    let row = json!({"user": user, "provider": "zendesk", "account": {"id": "acme/35436"}, "credentials": [tokens]});
    let answer = platform.post("/v1/connections/import", &json!({ "connections": [row] })).await.ok();
    answer["data"][0]["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_tenants_part_of_an_address_leads_nowhere_but_to_the_provider() {
    // OA-04, OA-18
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let list = platform.read("/v1/providers").await.ok();
    let card = list["data"].as_array().expect("a list").iter().find(|one| one["id"] == "zendesk").expect("in the list");
    assert_eq!(card["variables"], json!([{"name": "subdomain", "example": "acme"}]));
    assert_eq!(card["verified"], true);

    assert_eq!(refused(&platform, &draft(Value::Null)).await, ["variables.subdomain"], "missing");
    for value in ["evil.example/", "acme.evil", "", "ACME", "a@b", "127.0.0.1:80", "acme#"] {
        assert_eq!(refused(&platform, &draft(json!({ "subdomain": value }))).await, ["variables.subdomain"], "{value}");
    }
    let unknown = draft(json!({"subdomain": "acme", "host": "evil.example"}));
    assert_eq!(refused(&platform, &unknown).await, ["variables.host"]);
    let set = platform.put("/v1/integrations/zendesk", &draft(json!({ "subdomain": "acme" }))).await.ok();
    assert_eq!(set["variables"], json!({ "subdomain": "acme" }));

    let link = platform.post("/v1/portal-sessions", &json!({ "user": "u-1" })).await.ok();
    let mut person = app.person();
    person.visit(link["url"].as_str().expect("a link")).await.expect("a page");
    person.submit("continue", &[]).await.expect("submitted");
    let preview = person.visit(&app.url("connections/connect/zendesk")).await.expect("a page");
    let policy =
        preview.headers.get("content-security-policy").and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert!(policy.contains("form-action 'self' https://acme.zendesk.com"), "{policy}");
    let begun = person.submit("continue", &[]).await.expect("submitted");
    let consent = begun.location().expect("the provider");
    assert!(consent.as_str().starts_with("https://acme.zendesk.com/oauth/authorizations/new?"), "{consent}");
    app.finish().await;
}

#[tokio::test]
async fn an_account_is_called_by_all_the_parts_of_its_id_when_it_moves_in() {
    // OA-09, OA-10: a refresh that names it otherwise would stop it
    let app = TestApp::start().await;
    let platform = app.platform().await;
    platform.put("/v1/integrations/zendesk", &draft(json!({ "subdomain": "acme" }))).await.ok();
    for id in ["35436", "acme/", "acme/35436/1"] {
        let row = json!({"user": "u-1", "provider": "zendesk", "account": {"id": id},
            "credentials": [{"kind": "user", "access_token": "zd-vkcanary-access", "scopes": []}]});
        let answer = platform.post("/v1/connections/import", &json!({ "connections": [row] })).await;
        assert_eq!(answer.json()["errors"][0]["field"], "connections[0].account.id", "{id}: {}", answer.text);
    }
    imported(&platform, "u-1").await;
    app.finish().await;
}

#[tokio::test]
async fn another_part_of_an_address_is_another_client() {
    // OA-04: endpoints and credentials are one unit. A secret does not follow an address that somebody has changed.
    let app = TestApp::start().await;
    let platform = app.platform().await;
    platform.put("/v1/integrations/zendesk", &draft(json!({ "subdomain": "acme" }))).await.ok();
    let one = format!("/v1/connections/{}", imported(&platform, "u-1").await);
    platform.put("/v1/integrations/zendesk", &draft(json!({ "subdomain": "acme" }))).await.ok();
    assert_eq!(platform.read(&one).await.ok()["status"], "active", "saved again as it was");

    let moved = json!({"variables": {"subdomain": "elsewhere"}});
    assert_eq!(refused(&platform, &moved).await, ["client_secret"]);
    assert_eq!(platform.read(&one).await.ok()["status"], "active", "nothing has changed");
    platform.put("/v1/integrations/zendesk", &draft(json!({ "subdomain": "elsewhere" }))).await.ok();
    let paused = platform.read(&one).await.ok();
    assert_eq!((&paused["status"], &paused["reason"]), (&json!("misconfigured"), &json!("client_changed")));
    app.finish().await;
}
