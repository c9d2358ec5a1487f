//! A platform's own page in place of ours.

use super::*;

const APP: &str = "https://app.example";

#[tokio::test]
async fn a_registered_page_of_the_platform_stands_in_for_ours_oa_15() {
    let street = Street::open().await;
    let (session, path) = street.link("redirect", &["google"]).await;
    let mut browser = street.house.client();
    for (origin, fields) in [
        ("https://evil.example", "provider=google"),
        ("https://evil.example", "provider=google&way=consent&csrf=x"),
        ("https://evil.example", "not what the form has"),
        ("https://app.example.evil.example", ""),
        ("http://app.example", ""),
        ("null", "provider=google"),
    ] {
        let refused = browser.press_at(origin, &path, fields).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{origin}: {}", refused.text);
    }
    let other = browser.press_at(APP, &path, "provider=slack").await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", other.text);

    let sent = browser.press_at(APP, &path, "").await;
    assert_eq!(sent.status, StatusCode::SEE_OTHER, "{}", sent.text);
    assert_eq!(browser.press_at(APP, &path, "").await.status, StatusCode::GONE, "once");
    let refused = browser.press_at("https://evil.example", &path, "").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "nobody else learns what has become of the link");

    let arrived = browser.get(&street.consent(sent.header("location"), true, None).await).await;
    let back = arrived.header("location");
    assert!(back.starts_with("https://app.example/back?") && back.contains(session.as_str()), "{back}");
    assert_eq!((street.exchanges().await, street.connections().await), (0, 0), "the platform has to confirm");
}

#[tokio::test]
async fn what_began_at_the_platforms_page_ends_in_that_browser_only_oa_01() {
    let street = Street::open().await;
    let (_, path) = street.link("redirect", &["google"]).await;
    let mut browser = street.house.client();
    let sent = browser.press_at(APP, &path, "").await;
    let back = street.consent(sent.header("location"), true, None).await;
    let mut other = street.house.client();
    assert_eq!(other.get(&back).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(browser.get(&back).await.status, StatusCode::BAD_REQUEST, "the other one has used the state up");
    assert_eq!((street.exchanges().await, street.connections().await), (0, 0));
}

#[tokio::test]
async fn whoever_is_signed_in_stays_so_and_other_tabs_go_on() {
    let street = Street::open().await;
    let mut browser = street.user("ada@acme.example", "u-42").await;
    let in_one_tab = street.begin(&mut browser, "google").await;
    let (_, path) = street.link("redirect", &["google"]).await;
    let in_another = browser.press_at(APP, &path, "provider=google").await;
    let (_, path) = street.link("redirect", &["google"]).await;
    let in_a_third = browser.press_at(APP, &path, "provider=google").await;

    for url in [in_another.header("location"), in_a_third.header("location")] {
        let arrived = browser.get(&street.consent(url, true, None).await).await;
        assert!(arrived.header("location").starts_with("https://app.example/back?"), "{}", arrived.text);
    }
    let arrived = browser.get(&street.consent(&in_one_tab, true, None).await).await;
    assert!(arrived.header("location").starts_with("/connections/result/"), "{}", arrived.text);
    assert_eq!(street.connections().await, 1);
    assert_eq!(browser.get("/connections").await.status, StatusCode::OK, "still signed in");
}

#[tokio::test]
async fn nobodys_page_stands_in_for_ours_where_nobody_else_confirms_oa_02() {
    let street = Street::open().await;
    let new = NewTenant {
        name: "Trusting".to_owned(),
        origins: vec![APP.to_owned()],
        confirm: Some("none".to_owned()),
        ..NewTenant::default()
    };
    let tenant = street.house.house.accounts.tenant_create(new).await.expect("tenant");
    let street = Street { tenant, ..street };
    street.integrate("google", &SCOPES, &[]).await;
    let (_, path) = street.link("popup", &["google"]).await;
    let mut browser = street.house.client();
    let refused = browser.press_at(APP, &path, "provider=google").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.text);
    assert_eq!(browser.get(&path).await.status, StatusCode::OK, "the link still works on our page");
}
