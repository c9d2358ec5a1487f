//! A platform's own page in place of ours, and what was not granted asked for again.

use super::*;

/// Sends a form from a page of `origin`, as a browser does when a person presses its button.
async fn press(browser: &mut Client, path: &str, origin: &str, fields: &str) -> Got {
    let request = Request::post(path)
        .header("content-type", "application/x-www-form-urlencoded")
        .header("origin", origin)
        .header("sec-fetch-site", "cross-site")
        .header("sec-fetch-mode", "navigate");
    browser.send(request, Body::from(fields.to_owned())).await
}

#[tokio::test]
async fn a_registered_page_of_the_platform_stands_in_for_ours_oa_15() {
    let street = Street::open().await;
    let (session, path) = street.link("redirect", &["google"]).await;
    let mut browser = street.house.client();
    for (origin, fields) in [
        ("https://evil.example", "provider=google"),
        ("https://evil.example", "provider=google&way=consent&csrf=x"),
        ("https://app.example.evil.example", ""),
        ("null", "provider=google"),
    ] {
        let refused = press(&mut browser, &path, origin, fields).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{origin}: {}", refused.text);
    }
    let other = press(&mut browser, &path, "https://app.example", "provider=slack").await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", other.text);

    let sent = press(&mut browser, &path, "https://app.example", "").await;
    assert_eq!(sent.status, StatusCode::SEE_OTHER, "{}", sent.text);
    assert_eq!(press(&mut browser, &path, "https://app.example", "").await.status, StatusCode::GONE, "once");
    let arrived = browser.get(&street.consent(sent.header("location"), true, None).await).await;
    let back = arrived.header("location");
    assert!(back.starts_with("https://app.example/back?") && back.contains(session.as_str()), "{back}");
    assert_eq!((street.exchanges().await, street.connections().await), (0, 0), "the platform has to confirm");
}

#[tokio::test]
async fn nobodys_page_stands_in_for_ours_where_nobody_else_confirms_oa_02() {
    let street = Street::open().await;
    let origins = vec!["https://app.example".to_owned()];
    let new =
        NewTenant { name: "Trusting".to_owned(), origins, confirm: Some("none".to_owned()), ..NewTenant::default() };
    let tenant = street.house.house.accounts.tenant_create(new).await.expect("tenant");
    let street = Street { tenant, ..street };
    street.integrate("google", &SCOPES, &[]).await;
    let (_, path) = street.link("popup", &["google"]).await;
    let mut browser = street.house.client();
    let refused = press(&mut browser, &path, "https://app.example", "provider=google").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.text);
    assert_eq!(browser.get(&path).await.status, StatusCode::OK, "the link still works on our page");
}

#[tokio::test]
async fn what_was_not_granted_is_asked_for_again_oa_11() {
    let street = Street::open().await;
    let mut browser = street.user("ada@acme.example", "u-42").await;
    let drive = "https://www.googleapis.com/auth/drive.file";
    let new = NewConnectSession {
        user: "u-42".to_owned(),
        providers: vec!["google".to_owned()],
        scopes: [("google".to_owned(), vec![drive.to_owned()])].into(),
        return_url: Some("https://app.example/back".to_owned()),
        ..NewConnectSession::default()
    };
    let connections = &street.house.house.connections;
    let link = connections.connect_session_create(&street.operator(), new).await.expect("a link");
    let path = link.url.expose().strip_prefix(PUBLIC).expect("our own link").to_owned();
    let sent = press(&mut browser, &path, "https://app.example", "").await;
    let arrived = browser.get(&street.consent(sent.header("location"), true, Some(&SCOPES)).await).await;
    let back: url::Url = arrived.header("location").parse().expect("a URL");
    let code = back.query_pairs().find(|(name, _)| name == "completion_code").expect("a code").1.into_owned();
    let confirmation = Confirmation { user: "u-42".to_owned(), completion_code: Secret::new(code) };
    let made = connections.connect_confirm(&street.operator(), &link.id, confirmation).await.expect("connected");
    assert_eq!(made.missing_scopes, [drive]);

    let card = browser.get("/connections").await;
    assert!(card.text.contains("Allow it at <bdi>Google</bdi>"), "{}", card.text);
    let reconnect = format!("/connections/{}/reconnect", made.id);
    let preview = browser.post_form(&reconnect, &[("csrf", &card.csrf())]).await.header("location").to_owned();
    let page = browser.get(&preview).await;
    assert!(page.text.contains("only the files opened or made with this platform"), "{}", page.text);
    let connection = made.id.to_string();
    let csrf = page.csrf();
    let fields = [("csrf", csrf.as_str()), ("provider", "google"), ("way", "consent"), ("connection", &connection)];
    let sent = browser.post_form("/connections/connect/google", &fields).await;
    assert!(sent.header("location").contains("drive.file"), "{}", sent.header("location"));
    let arrived = browser.get(&street.consent(sent.header("location"), true, None).await).await;
    browser.get(arrived.header("location")).await;
    assert!(!browser.get("/connections").await.text.contains("Allow it at"), "nothing is missing any more");
}
