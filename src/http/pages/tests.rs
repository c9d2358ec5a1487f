//! The pages of accounts, end to end on a real database.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use serde_json::json;

use crate::caller::Role;
use crate::http::testing::{PASSWORD, TestHouse};

#[tokio::test]
async fn a_member_signs_in_looks_at_settings_and_signs_out() {
    let house = TestHouse::build().await;
    let tenant = house.tenant("Acme Voice").await;
    house.member(&tenant, "owner@acme.example", Some(Role::Owner), None).await;
    let mut browser = house.client();

    assert_eq!(browser.get("/").await.header("location"), "/sign-in");
    assert_eq!(browser.get("/settings").await.header("location"), "/sign-in?next=%2Fsettings");
    let before = browser.cookie().expect("a session for the form");
    let entered = browser.sign_in("Owner@acme.example").await;
    assert_eq!((entered.status, entered.header("location")), (StatusCode::SEE_OTHER, "/"));
    assert_eq!(browser.get("/").await.header("location"), "/admin");

    // WB-02: a new id at sign-in, and the old one is dead.
    let inside = browser.cookie().expect("a session");
    assert_ne!(before, inside);
    let mut fixed = house.client();
    fixed.set_cookie(&before);
    assert_eq!(fixed.get("/settings").await.status, StatusCode::SEE_OTHER);

    let page = browser.get("/settings").await;
    for text in ["Acme Voice", "owner@acme.example", "owner"] {
        assert!(page.text.contains(text), "{text}");
    }
    assert_eq!((page.header("cache-control"), page.header("x-content-type-options")), ("no-store", "nosniff"));

    let gone = browser.post_form("/sign-out", &[("csrf", &page.csrf())]).await;
    assert_eq!(gone.header("location"), "/sign-in?done=signed-out");
    assert_eq!(gone.header("clear-site-data"), "\"cache\", \"storage\"");
    assert_eq!(browser.cookie(), None);
    // WB-02: signing out ends the session on our side, whoever kept the cookie.
    let mut thief = house.client();
    thief.set_cookie(&inside);
    assert_eq!(thief.get("/settings").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_address_look_the_same() {
    let house = TestHouse::build().await;
    let tenant = house.tenant("Acme").await;
    house.member(&tenant, "ada@acme.example", Some(Role::Viewer), None).await;
    let mut answers = Vec::new();
    for (email, password) in
        [("ada@acme.example", "not the password at all"), ("eve@acme.example", PASSWORD), ("x", "y")]
    {
        let mut browser = house.client();
        let csrf = browser.get("/sign-in").await.csrf();
        let got = browser.post_form("/sign-in", &[("csrf", &csrf), ("email", email), ("password", password)]).await;
        answers.push((got.status, got.text.replace(&csrf, "").replace(email, "")));
    }
    assert_eq!(answers[0].0, StatusCode::UNAUTHORIZED);
    assert!(answers[0].1.contains("do not match"));
    assert_eq!(answers[0], answers[1]);
    assert_eq!(
        house.count("SELECT count(*) FROM audit_entries WHERE action = 'session.sign_in' AND result = 'denied'").await,
        1
    );
}

#[tokio::test]
async fn with_several_tenants_the_person_chooses() {
    let house = TestHouse::build().await;
    let (first, second) = (house.tenant("First").await, house.tenant("Second").await);
    house.member(&first, "ada@example.com", Some(Role::Admin), None).await;
    house.member(&second, "ada@example.com", None, Some("u-42")).await;
    let mut browser = house.client();
    let choice = browser.sign_in("ada@example.com").await;
    assert!(choice.status == StatusCode::OK && choice.text.contains("First") && choice.text.contains("Second"));
    let fields = [
        ("csrf", choice.csrf()),
        ("email", "ada@example.com".to_owned()),
        ("password", PASSWORD.to_owned()),
        ("tenant", second.id.to_string()),
        ("next", "/settings".to_owned()),
    ];
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let entered = browser.post_form("/sign-in", &fields).await;
    assert_eq!(entered.header("location"), "/settings");
    let page = browser.get("/settings").await.text;
    assert!(page.contains("Second") && page.contains("u-42"));
    assert_eq!(browser.get("/").await.header("location"), "/connections");
}

#[tokio::test]
async fn forms_without_the_sessions_value_change_nothing_oa_15() {
    let house = TestHouse::build().await;
    let tenant = house.tenant("Acme").await;
    house.member(&tenant, "ada@acme.example", Some(Role::Viewer), None).await;
    let mut browser = house.client();
    browser.sign_in("ada@acme.example").await;
    let own = browser.get("/settings").await.csrf();
    let foreign = house.client().get("/sign-in").await.csrf();

    for fields in [vec![], vec![("csrf", "")], vec![("csrf", foreign.as_str())]] {
        let got = browser.post_form("/sign-out", &fields).await;
        assert_eq!(got.status, StatusCode::BAD_REQUEST);
        assert!(got.header("content-type").starts_with("text/html"));
    }
    let cross = Request::post("/sign-out")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header("sec-fetch-site", "cross-site");
    assert_eq!(browser.send(cross, format!("csrf={own}")).await.status, StatusCode::FORBIDDEN);
    let got = browser.get("/sign-out").await;
    assert_eq!((got.status, got.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "POST"));
    assert_eq!(browser.get("/settings").await.status, StatusCode::OK, "still signed in");
}

#[tokio::test]
async fn the_first_owner_is_set_up_once_ad_01() {
    let house = TestHouse::build().await;
    let link = house.house.accounts.setup_link().await.expect("link");
    let path = format!("/setup/{}", link.token.expose());
    let mut browser = house.client();
    assert_eq!(browser.get("/setup/vkl_unknown").await.status, StatusCode::GONE);
    let page = browser.get(&path).await;
    assert!(page.text.contains("At least 15 characters"));
    let csrf = page.csrf();

    // A mistyped form does not cost the link.
    let short = [("csrf", csrf.as_str()), ("tenant_name", " "), ("email", "nobody"), ("password", "short")];
    let wrong = browser.post_form(&path, &short).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    for part in ["tenant_name-error", "email-error", "password-error"] {
        assert!(wrong.text.contains(part), "{part}");
    }
    let fields =
        [("csrf", csrf.as_str()), ("tenant_name", "Acme"), ("email", "o@acme.example"), ("password", PASSWORD)];
    let done = browser.post_form(&path, &fields).await;
    assert_eq!(done.header("location"), "/sign-in?done=set-up");
    assert!(browser.get("/sign-in?done=set-up").await.text.contains("Your tenant is ready"));
    assert_eq!(browser.post_form(&path, &fields).await.status, StatusCode::GONE, "set-up is closed for ever");
    assert_eq!(browser.sign_in("o@acme.example").await.header("location"), "/");
    assert!(house.house.accounts.setup_link().await.is_err());
}

#[tokio::test]
async fn a_portal_link_is_used_by_its_button_only_and_once_wb_12() {
    let house = TestHouse::build().await;
    let tenant = house.tenant("Acme Voice").await;
    let mut platform = house.platform(&tenant, &["connections:write", "users:write"]).await;
    platform.json("PUT", "/v1/users/u-42", &json!({"display_name": "Ada Example"})).await;
    let wish = json!({"user": "u-42", "return_url": "https://app.example/back"});
    let made = platform.json("POST", "/v1/portal-sessions", &wish).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let url = made.json()["url"].as_str().expect("url").to_owned();
    let path = url.strip_prefix("https://vault.example").expect("our own address").to_owned();

    let mut browser = house.client();
    browser.get(&path).await;
    let csrf = browser.get(&path).await.csrf();
    let entered = browser.post_form(&path, &[("csrf", &csrf)]).await;
    assert_eq!((entered.status, entered.header("location")), (StatusCode::SEE_OTHER, "/connections"));
    let settings = browser.get("/settings").await.text;
    assert!(settings.contains("Ada Example") && settings.contains("u-42"));
    assert!(
        settings.contains("href=\"https://app.example/back\" rel=\"noreferrer\">Back to <bdi>Acme Voice"),
        "{settings}"
    );

    let mut second = house.client();
    assert_eq!(second.get(&path).await.status, StatusCode::GONE);

    house.clock.advance(Duration::from_secs(30 * 60));
    let over = browser.get("/settings").await;
    assert_eq!(over.header("location"), "/sign-in?next=%2Fsettings&done=session-expired");
}

#[tokio::test]
async fn sessions_end_at_a_fixed_time_by_our_own_clock() {
    let house = TestHouse::build().await;
    let tenant = house.tenant("Acme").await;
    house.member(&tenant, "ada@acme.example", None, Some("u-42")).await;
    let mut browser = house.client();
    browser.sign_in("ada@acme.example").await;
    house.clock.advance(Duration::from_secs(86_399));
    assert_eq!(browser.get("/settings").await.status, StatusCode::OK);
    house.clock.advance(Duration::from_secs(1));
    assert_eq!(browser.get("/settings").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn guessing_is_slowed_down_with_a_page_that_says_when_wb_10() {
    let house = TestHouse::build().await;
    let mut browser = house.client();
    let csrf = browser.get("/sign-in").await.csrf();
    let fields = [("csrf", csrf.as_str()), ("email", "ada@acme.example"), ("password", "guess")];
    for _ in 0..10 {
        assert_eq!(browser.post_form("/sign-in", &fields).await.status, StatusCode::UNAUTHORIZED);
    }
    let refused = browser.post_form("/sign-in", &fields).await;
    assert_eq!((refused.status, refused.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, "30"));
    assert!(refused.text.contains("Too many attempts"));
}

#[tokio::test]
async fn static_files_are_kept_and_asked_for_by_their_tag() {
    let house = TestHouse::build().await;
    let mut browser = house.client();
    for name in ["valetkey.css", "valetkey.js", "favicon.svg"] {
        let path = format!("/static/{name}");
        let first = browser.get(&path).await;
        assert_eq!((first.status, first.header("cache-control")), (StatusCode::OK, "public, max-age=86400"));
        let again = Request::get(&path).header(header::IF_NONE_MATCH, first.header("etag"));
        let again = browser.send(again, Body::empty()).await;
        assert!(again.status == StatusCode::NOT_MODIFIED && again.text.is_empty());
    }
    assert_eq!(browser.get("/static/..%2fCargo.toml").await.status, StatusCode::NOT_FOUND);
    assert_eq!(browser.cookie(), None, "files need no session");
}
