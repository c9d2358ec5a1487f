//! The entrance and the API of accounts, end to end on a real database.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use axum::routing::get;
use serde_json::json;

use super::testing::TestHouse;
use super::{Problem, finish, openapi};

#[tokio::test]
async fn every_answer_carries_the_security_headers_wb_09() {
    let house = TestHouse::build().await;
    let expected = [
        ("strict-transport-security", "max-age=31536000; includeSubDomains"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ];
    let bare = "default-src 'none'; frame-ancestors 'none'";
    let page = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
    let rows = [
        ("/v1/me", StatusCode::UNAUTHORIZED, bare),
        ("/v1/nothing", StatusCode::NOT_FOUND, bare),
        ("/sign-in", StatusCode::OK, page),
        ("/nothing", StatusCode::NOT_FOUND, page),
        ("/", StatusCode::SEE_OTHER, bare),
    ];
    for (path, status, policy) in rows {
        let got = house.client().get(path).await;
        assert_eq!(got.status, status, "{path}");
        for (name, value) in expected {
            assert_eq!(got.header(name), value, "{path}");
        }
        assert_eq!(got.header("cache-control"), "no-store", "{path}");
        assert_eq!(got.header("content-security-policy"), policy, "{path}");
        assert_eq!(got.header("x-request-id").len(), 36, "{path}");
        assert!(got.headers.get(header::SERVER).is_none());
    }
}

#[tokio::test]
async fn refusals_are_problems_and_equal_but_for_the_instance() {
    let house = TestHouse::build().await;
    let mut client = house.client();
    let (first, second) = (client.get("/v1/me").await, client.get("/v1/me").await);
    assert_eq!(
        (first.header("content-type"), first.header("www-authenticate")),
        ("application/problem+json", "Bearer")
    );
    let (mut one, mut other) = (first.json(), second.json());
    assert_eq!(one["instance"], format!("urn:uuid:{}", first.header("x-request-id")));
    assert_ne!(one["instance"], other["instance"]);
    one["instance"] = json!(null);
    other["instance"] = json!(null);
    assert_eq!(one, other);
    assert_eq!(
        one,
        json!({"type": "about:blank", "title": "Unauthorized", "status": 401, "code": "unauthenticated", "instance": null,
               "detail": "the credentials are missing or not right", "errors": []})
    );
    // A key that is nearly right is told the same.
    client.key = Some("vk_live_0000000000000000000000000000000000000000000000000".to_owned());
    let mut wrong = client.get("/v1/me").await.json();
    wrong["instance"] = json!(null);
    assert_eq!(wrong, one);
}

#[tokio::test]
async fn methods_sizes_and_media_types_are_refused_as_problems_ap_08_ap_10() {
    let house = TestHouse::build().await;
    let tenant = house.tenant("Acme").await;
    let mut client = house.platform(&tenant, &["all"]).await;

    let got = client.json("DELETE", "/v1/me", &json!({})).await;
    assert_eq!((got.status, got.code().as_str()), (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"));
    assert_eq!(got.header("allow"), "GET,HEAD");
    let got = client.send(Request::builder().method("TRACE").uri("/v1/me"), Body::empty()).await;
    assert_eq!(got.status, StatusCode::METHOD_NOT_ALLOWED);

    let got = client.get(&format!("/v1/me?x={}", "a".repeat(9000))).await;
    assert_eq!((got.status, got.code().as_str()), (StatusCode::URI_TOO_LONG, "too_large"));
    let fat = Request::get("/v1/me").header("x-fat", "a".repeat(17_000));
    assert_eq!(client.send(fat, Body::empty()).await.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let got = client.json("POST", "/v1/api-keys", &json!({"name": "a".repeat(70_000)})).await;
    assert_eq!((got.status, got.code().as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "too_large"));

    let text = Request::post("/v1/api-keys").header(header::CONTENT_TYPE, "text/plain");
    let got = client.send(text, "{}").await;
    assert_eq!((got.status, got.code().as_str()), (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"));
    let broken = Request::post("/v1/api-keys").header(header::CONTENT_TYPE, "application/json");
    assert_eq!(client.send(broken, "{").await.code(), "malformed");
    let got = client.json("POST", "/v1/api-keys", &json!({"name": "x", "scopes": ["all"], "tenant_id": "ten_1"})).await;
    assert_eq!(
        (got.status, got.json()["errors"][0]["field"].as_str()),
        (StatusCode::UNPROCESSABLE_ENTITY, Some("tenant_id"))
    );
    let got = client.send(Request::head("/v1/me"), Body::empty()).await;
    assert_eq!((got.status, got.text.as_str()), (StatusCode::OK, ""));
}

#[tokio::test]
async fn a_panic_is_a_problem_without_details_ap_13() {
    async fn panics() -> Problem {
        panic!("canary")
    }
    let house = TestHouse::build().await;
    let router = finish(Router::new().route("/v1/panics", get(panics)), house.house.clone());
    let answer = tower::ServiceExt::oneshot(router, Request::get("/v1/panics").body(Body::empty()).expect("request"));
    let answer = answer.await.expect("answers");
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let body = http_body_util::BodyExt::collect(answer.into_body()).await.expect("body").to_bytes();
    let text = String::from_utf8(body.to_vec()).expect("text");
    assert!(text.contains("\"code\":\"internal\"") && !text.contains("canary"), "{text}");
}

#[tokio::test]
async fn a_missing_scope_is_refused_by_name_and_written_down() {
    let house = TestHouse::build().await;
    let tenant = house.tenant("Acme").await;
    let mut client = house.platform(&tenant, &["users:write"]).await;
    let got = client.get("/v1/api-keys").await;
    assert_eq!((got.status, got.code().as_str()), (StatusCode::FORBIDDEN, "insufficient_scope"));
    assert!(got.text.contains("keys:write"));
    let denials = "SELECT count(*) FROM audit_entries WHERE action = 'permission.deny' AND object_id = 'keys:write'";
    assert_eq!(house.count(denials).await, 1);
}

#[tokio::test]
async fn keys_are_made_shown_once_limited_and_revoked_ap_04() {
    let house = TestHouse::build().await;
    let tenant = house.tenant("Acme").await;
    let mut owner = house.platform(&tenant, &["all"]).await;
    let me = owner.get("/v1/me").await.json();
    assert_eq!((me["tenant"]["name"].as_str(), me["scopes"].as_array().map(Vec::len)), (Some("Acme"), Some(12)));

    let wish = json!({"name": "back end", "scopes": ["users:write"], "allowed_ips": ["203.0.113.7"], "expires_at": "2030-01-01T00:00:00Z"});
    let made = owner.json("POST", "/v1/api-keys", &wish).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let made = made.json();
    let secret = made["secret"].as_str().expect("once").to_owned();
    assert!(secret.starts_with("vk_live_") && made["allowed_ips"][0] == "203.0.113.7/32");
    let listed = owner.get("/v1/api-keys").await;
    assert!(!listed.text.contains(&secret) && listed.json()["data"].as_array().map(Vec::len) == Some(2));

    let mut limited = house.client();
    limited.key = Some(secret);
    assert_eq!(limited.get("/v1/users").await.status, StatusCode::OK);
    // From an untrusted peer a forwarding header changes nothing; see `peer` for the table.
    let spoofed = Request::get("/v1/users").header("x-forwarded-for", "198.51.100.1");
    assert_eq!(limited.send(spoofed, Body::empty()).await.status, StatusCode::OK);

    let path = format!("/v1/api-keys/{}", made["id"].as_str().expect("id"));
    let elsewhere = house.tenant("Other").await;
    let mut foreign = house.platform(&elsewhere, &["all"]).await;
    assert_eq!(foreign.json("DELETE", &path, &json!({})).await.code(), "not_found");
    assert_eq!(owner.json("DELETE", "/v1/api-keys/nonsense", &json!({})).await.code(), "not_found");
    assert_eq!(owner.json("DELETE", &path, &json!({})).await.status, StatusCode::NO_CONTENT);
    assert_eq!(limited.get("/v1/users").await.status, StatusCode::UNAUTHORIZED);
    let late = json!({"name": "x", "scopes": ["all"], "expires_at": "2020-01-01T00:00:00Z"});
    assert_eq!(owner.json("POST", "/v1/api-keys", &late).await.json()["errors"][0]["field"], "expires_at");
}

#[tokio::test]
async fn a_right_key_from_a_wrong_address_is_refused_and_written_down_ap_06() {
    let house = TestHouse::build().await;
    let tenant = house.tenant("Acme").await;
    let mut owner = house.platform(&tenant, &["all"]).await;
    let wish = json!({"name": "x", "scopes": ["all"], "allowed_ips": ["198.51.100.0/24"]});
    let made = owner.json("POST", "/v1/api-keys", &wish).await.json();
    owner.key = made["secret"].as_str().map(str::to_owned);
    let got = owner.get("/v1/me").await;
    assert_eq!((got.status, got.code().as_str()), (StatusCode::FORBIDDEN, "ip_not_allowed"));
    assert_eq!(house.count("SELECT count(*) FROM audit_entries WHERE reason = 'ip_not_allowed'").await, 1);
}

#[tokio::test]
async fn users_are_made_changed_found_and_listed_in_pages() {
    let house = TestHouse::build().await;
    let tenant = house.tenant("Acme").await;
    let mut client = house.platform(&tenant, &["users:write", "connections:read"]).await;
    let put = client.send(Request::put("/v1/users/u%2F1"), Body::empty()).await;
    assert_eq!((put.status, put.json()["user"].as_str()), (StatusCode::OK, Some("u/1")));
    client.json("PUT", "/v1/users/u%2F1", &json!({"display_name": "Ada"})).await;
    let changed = client.json("PUT", "/v1/users/u%2F1", &json!({"email": "ada@example.com"})).await.json();
    assert_eq!((changed["display_name"].as_str(), changed["email"].as_str()), (Some("Ada"), Some("ada@example.com")));
    assert_eq!(client.get("/v1/users/u%2F1").await.json(), changed);
    assert_eq!(client.get("/v1/users/u-2").await.code(), "not_found");

    for number in 2..=5 {
        house.clock.advance(std::time::Duration::from_millis(1));
        client.json("PUT", &format!("/v1/users/u-{number}"), &json!({})).await;
    }
    let first = client.get("/v1/users?limit=2").await.json();
    let cursor = first["next_cursor"].as_str().expect("more").to_owned();
    let second = client.get(&format!("/v1/users?limit=2&cursor={cursor}")).await.json();
    let third =
        client.get(&format!("/v1/users?limit=2&cursor={}", second["next_cursor"].as_str().expect("more"))).await.json();
    let names: Vec<_> = [&first, &second, &third]
        .iter()
        .flat_map(|page| page["data"].as_array().cloned().unwrap_or_default())
        .map(|user| user["user"].clone())
        .collect();
    assert_eq!(names, ["u/1", "u-2", "u-3", "u-4", "u-5"]);
    assert_eq!(third["next_cursor"], json!(null));

    for query in ["limit=0", "limit=101", "limit=x", "cursor=usr_1", &format!("cursor={cursor}A")] {
        let got = client.get(&format!("/v1/users?{query}")).await;
        assert_eq!((got.status, got.code().as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "invalid"), "{query}");
    }
    let other = house.tenant("Other").await;
    let mut foreign = house.platform(&other, &["all"]).await;
    assert_eq!(foreign.get(&format!("/v1/users?cursor={cursor}")).await.code(), "invalid", "a borrowed cursor");
}

fn fields(problem: &serde_json::Value) -> Vec<&str> {
    problem["errors"].as_array().into_iter().flatten().filter_map(|error| error["field"].as_str()).collect()
}

#[tokio::test]
async fn all_problems_of_a_request_are_reported_at_once() {
    let house = TestHouse::build().await;
    let tenant = house.tenant("Acme").await;
    let mut client = house.platform(&tenant, &["all"]).await;
    let long = "x".repeat(201);
    let got = client.json("PUT", &format!("/v1/users/{long}"), &json!({"display_name": " ", "email": "nobody"})).await;
    assert_eq!(fields(&got.json()), ["user", "display_name", "email"]);
    let key = json!({"name": "", "scopes": ["fly"], "allowed_ips": ["10.0.0.1"], "expires_at": "2020-01-01T00:00:00Z"});
    let got = client.json("POST", "/v1/api-keys", &key).await;
    assert_eq!(fields(&got.json()), ["name", "scopes[0]", "allowed_ips[0]", "expires_at"]);
    let link =
        json!({"user": "", "mode": "sideways", "providers": ["nowhere"], "return_url": "https://elsewhere.example/"});
    let got = client.json("POST", "/v1/connect-sessions", &link).await;
    assert_eq!(fields(&got.json()), ["user", "mode", "providers[0]", "return_url"]);
    // A code of its own gives way to fields that are wrong.
    let got = client.json("POST", "/v1/connect-sessions", &json!({"user": ""})).await;
    assert_eq!((got.code().as_str(), fields(&got.json())), ("invalid", vec!["user"]));
    let got = client.json("POST", "/v1/connect-sessions", &json!({"user": "u-1"})).await;
    assert_eq!(got.code(), "return_url_required");
}

#[tokio::test]
async fn settings_are_read_and_changed() {
    let house = TestHouse::build().await;
    let tenant = house.tenant("Acme").await;
    let mut client = house.platform(&tenant, &["settings:write"]).await;
    let changed = client.json("PATCH", "/v1/settings", &json!({"origins": ["https://app.example"]})).await.json();
    assert_eq!(
        changed,
        json!({"return_urls": ["https://app.example/back"], "origins": ["https://app.example"], "confirm": "platform"})
    );
    assert_eq!(client.get("/v1/settings").await.json(), changed);
    let got = client.json("PATCH", "/v1/settings", &json!({"confirm": "none"})).await;
    assert_eq!(got.json()["errors"][0]["field"], "confirm", "only the operator sets none");
    assert!(got.text.contains("only the operator"), "{}", got.text);
    house.house.accounts.tenant_set_confirm(&tenant.id, "none").await.expect("set");
    for (confirm, now) in [("none", "none"), ("platform", "platform")] {
        let got = client.json("PATCH", "/v1/settings", &json!({"confirm": confirm})).await;
        assert_eq!((got.status, got.json()["confirm"].as_str()), (StatusCode::OK, Some(now)));
    }
    let got = client.json("PATCH", "/v1/settings", &json!({"confirm": "none"})).await;
    assert_eq!(got.status, StatusCode::UNPROCESSABLE_ENTITY, "there is no way back");
    let got = client
        .json("PATCH", "/v1/settings", &json!({"return_urls": ["https://ok.example/", "http://no.example/"]}))
        .await;
    assert_eq!(got.json()["errors"][0]["field"], "return_urls[1]");
    let wrong = json!({"return_urls": ["ftp://x"], "origins": ["https://ok.example/path"], "confirm": "perhaps"});
    let got = client.json("PATCH", "/v1/settings", &wrong).await;
    assert_eq!(fields(&got.json()), ["return_urls[0]", "origins[0]", "confirm"], "all at once");
}

#[tokio::test]
async fn a_write_that_is_sent_twice_happens_once_ap_11() {
    let house = TestHouse::build().await;
    let tenant = house.tenant("Acme").await;
    let mut client = house.platform(&tenant, &["all"]).await;
    let wish = json!({"name": "twice", "scopes": ["users:write"]});
    let first = client.keyed("k-1", "/v1/api-keys", &wish).await;
    let again = client.keyed("k-1", "/v1/api-keys", &wish).await;
    assert_eq!((first.status, again.status), (StatusCode::CREATED, StatusCode::CREATED));
    assert_eq!((first.json(), again.header("idempotency-replayed")), (again.json(), "true"));
    assert_eq!(house.count("SELECT count(*) FROM api_keys WHERE name = 'twice'").await, 1);

    let other = client.keyed("k-1", "/v1/api-keys", &json!({"name": "other", "scopes": ["users:write"]})).await;
    assert_eq!((other.status, other.code().as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_mismatch"));
    let elsewhere = client.keyed("k-1", "/v1/portal-sessions", &json!({"user": "u-1"})).await;
    assert_eq!(elsewhere.status, StatusCode::CREATED, "another route is another request");
    let mut stranger = house.platform(&tenant, &["all"]).await;
    let stranger = stranger.keyed("k-1", "/v1/api-keys", &wish).await;
    assert_ne!(stranger.json()["id"], first.json()["id"], "another caller is another request");

    // A refusal left no effect, so the same key may be used for the corrected request.
    assert_eq!(client.keyed("k-2", "/v1/api-keys", &json!({"name": "", "scopes": ["all"]})).await.code(), "invalid");
    assert_eq!(client.keyed("k-2", "/v1/api-keys", &wish).await.status, StatusCode::CREATED);

    for key in ["", "with space", &"x".repeat(256)] {
        let got = client.keyed(key, "/v1/api-keys", &wish).await;
        assert_eq!(got.status, StatusCode::UNPROCESSABLE_ENTITY, "{key}");
    }
    // A day later the key means nothing any more.
    house.clock.advance(std::time::Duration::from_secs(86_400));
    assert_ne!(client.keyed("k-1", "/v1/api-keys", &wish).await.json()["id"], first.json()["id"]);

    // AP-11: what is kept is sealed.
    let secret = first.json()["secret"].as_str().expect("secret").to_owned();
    for file in std::fs::read_dir(house.folder.path()).expect("folder").flatten() {
        let bytes = std::fs::read(file.path()).expect("file");
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{:?}", file.path());
    }
}

#[tokio::test]
async fn a_write_in_flight_is_not_done_a_second_time_ap_11() {
    use super::{Answer, Written, idempotent};
    let house = TestHouse::build().await;
    let tenant = house.tenant("Acme").await;
    let caller = crate::caller::Caller::operator(tenant.id);
    let written = Written {
        key: Some("k".to_owned()),
        route: "POST /v1/x".to_owned(),
        target: "/v1/x".to_owned(),
        body: axum::body::Bytes::from_static(b"{}"),
    };
    let (let_go, hold) = tokio::sync::oneshot::channel::<()>();
    let (entered, inside) = tokio::sync::oneshot::channel::<()>();
    let work = async move {
        let _ = entered.send(());
        let _ = hold.await;
        Answer::ok(&json!({"done": true}))
    };
    let (first_house, first_caller, first_written) = (house.house.clone(), caller.clone(), written.clone());
    let first = tokio::spawn(async move { idempotent(&first_house, &first_caller, first_written, work).await });
    inside.await.expect("at work");
    let second = idempotent(&house.house, &caller, written.clone(), async { Ok(Answer::nothing()) }).await;
    assert_eq!(second.expect_err("in flight").code(), super::Code::IdempotencyConflict);

    let_go.send(()).expect("waits");
    assert_eq!(first.await.expect("ran").expect("done").status(), StatusCode::OK);
    let third = idempotent(&house.house, &caller, written, async { Ok(Answer::nothing()) }).await.expect("kept");
    assert_eq!(third.status(), StatusCode::OK);

    // After a failure that leaves doubt the key stays taken.
    let doubtful = Written {
        key: Some("d".to_owned()),
        route: String::new(),
        target: String::new(),
        body: axum::body::Bytes::new(),
    };
    let broken = async { Err(Problem::internal(std::io::Error::other("unknown"))) };
    assert!(idempotent(&house.house, &caller, doubtful.clone(), broken).await.is_err());
    let again = idempotent(&house.house, &caller, doubtful, async { Ok(Answer::nothing()) }).await;
    assert_eq!(again.expect_err("in doubt").code(), super::Code::IdempotencyConflict);
}

#[tokio::test]
async fn the_admin_listener_tells_alive_ready_and_numbers() {
    let house = TestHouse::build().await;
    let mut operator = house.operator();
    assert_eq!(operator.get("/healthz").await.status, StatusCode::OK);
    assert_eq!(operator.get("/readyz").await.json(), json!({"ready": true, "obstacles": {}}));
    house.house.health.obstruct("database", "cannot be written");
    let got = operator.get("/readyz").await;
    assert_eq!(
        (got.status, got.json()["obstacles"]["database"].as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, Some("cannot be written"))
    );
    assert_eq!(operator.get("/healthz").await.status, StatusCode::OK, "alive is not ready");
    assert_eq!(operator.get("/metrics").await.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(house.client().get("/metrics").await.status, StatusCode::NOT_FOUND, "never on the public listener");
}

#[test]
fn the_document_is_openapi_3_1_and_names_every_call() {
    let document = serde_json::to_value(openapi()).expect("serializes");
    assert_eq!(document["openapi"], "3.1.0");
    let paths: Vec<_> = document["paths"].as_object().expect("paths").keys().cloned().collect();
    for path in [
        "/v1/me",
        "/v1/settings",
        "/v1/users",
        "/v1/users/{user}",
        "/v1/portal-sessions",
        "/v1/api-keys",
        "/v1/api-keys/{id}",
    ] {
        assert!(paths.iter().any(|one| one == path), "{path}");
    }
    assert_eq!(document["components"]["securitySchemes"]["platform_key"]["scheme"], "bearer");
    let required = document["components"]["schemas"]["NewApiKeyBody"]["required"].clone();
    assert_eq!(required, json!(["name", "scopes"]));
}
