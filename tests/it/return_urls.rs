//! Where people are sent afterwards: to an address that the platform has registered, character by character, or nowhere (WB-06).

use serde_json::json;

use crate::harness::{ORIGIN, TestApp};

/// Addresses that look like the registered `https://app.example/back` or `https://app.example`, to people, to some parser, or to a rule
/// that compares beginnings, endings or parts.
const ALMOST: &[&str] = &[
    // Others.
    "https://evil.example/back",
    "https://evil.example",
    "//evil.example/back",
    "///evil.example/back",
    "/\\evil.example/back",
    "\\\\evil.example\\back",
    "https:/evil.example/back",
    "https:evil.example/back",
    "https:\\\\evil.example/back",
    // The registered host as somebody else's name.
    "https://app.example.evil.example/back",
    "https://app.example-evil.example/back",
    "https://evilapp.example/back",
    "https://evil.app.example/back",
    "https://app.example@evil.example/back",
    "https://app.example:x@evil.example/back",
    "https://app.example%40evil.example/back",
    "https://evil.example/https://app.example/back",
    "https://evil.example?https://app.example/back",
    "https://evil.example#https://app.example/back",
    "https://evil.example\\@app.example/back",
    "https://evil.example;app.example/back",
    "https://evil.example%2f@app.example/back",
    "https://evil.example\u{ff0f}app.example/back",
    "https://app.example\u{2024}evil.example/back",
    // The registered host, differently.
    "http://app.example/back",
    "HTTPS://app.example/back",
    "https://APP.example/back",
    "https://app.example./back",
    "https://app.example:443/back",
    "https://app.example:8443/back",
    "https://user@app.example/back",
    "https://user:password@app.example/back",
    "https://@app.example/back",
    "https://\u{430}pp.example/back",
    "https://xn--pp-7lc.example/back",
    "https://app\u{3002}example/back",
    "https://app%2eexample/back",
    "https://[::1]/back",
    "https://127.0.0.1/back",
    "https://2130706433/back",
    // The registered path, differently.
    "https://app.example/back/",
    "https://app.example/back/more",
    "https://app.example/backup",
    "https://app.example/Back",
    "https://app.example/b%61ck",
    "https://app.example//back",
    "https://app.example/./back",
    "https://app.example/x/../back",
    "https://app.example/back/..",
    "https://app.example/back;x=y",
    "https://app.example/back?next=https://evil.example",
    "https://app.example/back?",
    "https://app.example/back#",
    "https://app.example/back#x",
    "https://app.example/back%00",
    "https://app.example/back%0d%0aLocation:%20https://evil.example",
    "https://app.example/back\r\nLocation: https://evil.example",
    "https://app.example/back\t",
    " https://app.example/back",
    "https://app.example/back ",
    "https://app.example\\back",
    "https://app.example/back\u{202e}",
    // No address of a page.
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)//https://app.example/back",
    "java\nscript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:msgbox(1)",
    "file:///etc/passwd",
    "blob:https://app.example/back",
    "view-source:https://app.example/back",
    "app.example/back",
    "back",
    "/back",
    ".",
    "*",
    "null",
    "",
];

#[tokio::test]
async fn nobody_is_sent_to_an_address_that_is_not_registered_wb_06() {
    assert!(ALMOST.len() >= 60);
    let app = TestApp::start().await;
    let platform = app.platform().await;
    for url in ALMOST {
        let link =
            |mode: &str, url: &str| json!({"user": "u-1", "providers": ["google"], "mode": mode, "return_url": url});
        for (path, body) in [
            ("/v1/connect-sessions", link("redirect", url)),
            ("/v1/connect-sessions", link("popup", url)),
            ("/v1/portal-sessions", json!({"user": "u-1", "return_url": url})),
        ] {
            let refused = platform.post(path, &body).await;
            assert_eq!(refused.status, 422, "{path}: {url:?}: {}", refused.text);
            assert_eq!(refused.json()["errors"][0]["field"], "return_url", "{path}: {url:?}");
        }
        // After signing in, only to a page of ours.
        let mut browser = app.anon();
        let asked = url::form_urlencoded::byte_serialize(url.as_bytes()).collect::<String>();
        let page = browser.get(&format!("/sign-in?next={asked}")).await;
        let names = |host: &str| page.text.contains(host) || page.header("location").contains(host);
        assert!(!names("evil.example") && !names("app.example"), "{url:?}: {}", page.text);
    }
    // The two that are registered, so that it was not for another reason.
    let back = format!("{ORIGIN}/back");
    platform
        .post("/v1/connect-sessions", &json!({"user": "u-1", "providers": ["google"], "return_url": back}))
        .await
        .ok();
    let popup = json!({"user": "u-1", "providers": ["google"], "mode": "popup", "return_url": ORIGIN});
    platform.post("/v1/connect-sessions", &popup).await.ok();
    platform.post("/v1/portal-sessions", &json!({"user": "u-1", "return_url": back})).await.ok();
    app.finish().await;
}
