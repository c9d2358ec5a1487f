//! An authorization server that is not honest: a platform has connected it like any other, and it leads people who come to
//! it on to an honest one, with addresses and states swapped (mix-up, COAT and CORF: RFC 9700 section 4.4, requirements OA-03
//! and OA-18).

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::{StatusCode, header};
use serde_json::json;
use url::Url;
use valetkey::caller::Caller;
use valetkey::connections::IntegrationDraft;
use valetkey::sandbox::person::Person;
use valetkey::secret::Secret;

use crate::handshakes::{at_the_portal, connections, exchanges, platform};
use crate::harness::{CLIENT, Client, TestApp, Wishes};

/// What it has heard, and what it does with those who come.
#[derive(Default)]
struct Mind {
    /// Method, path and body of every request but those for its authorize page.
    heard: Vec<String>,
    leads_to: Option<Url>,
    /// Whether it answers a client with a redirect to itself instead.
    redirects: Option<StatusCode>,
}

/// The dishonest server, on a port of its own.
#[derive(Clone)]
struct Evil {
    base: Url,
    mind: Arc<Mutex<Mind>>,
}

impl Evil {
    async fn open() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address")).parse().expect("a URL");
        let evil = Self { base, mind: Arc::default() };
        let router = Router::new().fallback(answer).with_state(evil.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.expect("serves") });
        evil
    }

    /// A house that takes it for GitHub.
    fn settings(&self) -> Wishes {
        let url = |path: &str| self.base.join(path).expect("a path").to_string();
        let leak = |path: &str| -> &'static str { url(path).leak() };
        let pages = [
            ("authorize_url", "authorize"),
            ("userinfo_url", "user"),
            ("revoke_url", "revoke"),
            ("api_base_url", "api"),
        ];
        Wishes {
            providers: pages.map(|(name, path)| ("github", name, leak(path))).to_vec(),
            token_endpoint: Some(("github", url("token"))),
            ..Wishes::default()
        }
    }

    fn leads_to(&self, target: &Url) {
        self.mind.lock().expect("lock").leads_to = Some(target.clone());
    }

    fn heard(&self) -> Vec<String> {
        self.mind.lock().expect("lock").heard.clone()
    }
}

async fn answer(State(evil): State<Evil>, request: Request) -> Response {
    if request.uri().path() == "/authorize" {
        let target = evil.mind.lock().expect("lock").leads_to.clone().expect("told where to lead people");
        return Redirect::to(target.as_str()).into_response();
    }
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 65_536).await.expect("a body");
    let mut mind = evil.mind.lock().expect("lock");
    mind.heard.push(format!("{} {} {}", parts.method, parts.uri, String::from_utf8_lossy(&body)));
    match mind.redirects {
        Some(status) => {
            (status, [(header::LOCATION, evil.base.join("elsewhere").expect("a path").to_string())]).into_response()
        }
        None => {
            axum::Json(json!({"access_token": "evil-token", "token_type": "bearer", "scope": "repo"})).into_response()
        }
    }
}

/// A tenant next door, with a Google client of its own; where that one's answers go.
async fn neighbour(app: &TestApp) -> Url {
    let tenant = app.other_tenant("umbra").await;
    let draft = IntegrationDraft {
        client_id: Some("neighbour".to_owned()),
        client_secret: Some(Secret::new("vkcanary-of-the-neighbour")),
        ..IntegrationDraft::default()
    };
    let made = app.rooms().connections.integration_put(&Caller::operator(tenant.id), "google", draft).await;
    let redirect = made.expect("an integration").redirect_uri;
    app.street.register("google", "neighbour", "vkcanary-of-the-neighbour", &json!(redirect)).await;
    redirect.parse().expect("a URL")
}

async fn redirect_uri(platform: &Client, provider: &str) -> Url {
    let shown = platform.read(&format!("/v1/integrations/{provider}")).await.ok();
    shown["redirect_uri"].as_str().expect("an address").parse().expect("a URL")
}

/// Begins a handshake and gives its state; the browser has not gone to the provider yet.
async fn begin(app: &TestApp, person: &mut Person, provider: &str) -> String {
    person.visit(&app.url(&format!("connections/connect/{provider}"))).await.expect("a page");
    let begun = person.submit("continue", &[]).await.expect("submitted");
    assert_eq!(begun.status, 303, "{}", begun.body);
    begun.query("state").unwrap_or_else(|| panic!("no state: {:?} {}", begun.location(), begun.body))
}

fn with(url: &Url, pairs: &[(&str, &str)]) -> Url {
    let mut url = url.clone();
    url.query_pairs_mut().extend_pairs(pairs);
    url
}

/// A house with an honest Google and the dishonest one under the name of another provider.
async fn street(evil: &Evil) -> (TestApp, Client) {
    let app = TestApp::start_with(evil.settings()).await.expect("SQLite");
    let platform = platform(&app).await;
    let client = json!({"client_id": "evil", "client_secret": "vkcanary-known-to-evil", "scopes": ["repo"]});
    platform.put("/v1/integrations/github", &client).await.ok();
    (app, platform)
}

#[tokio::test]
async fn a_dishonest_server_that_leads_people_on_to_an_honest_one_is_shown_no_code() {
    // OA-03: three addresses and three states, once by way of the honest server and once straight back.
    let evil = Evil::open().await;
    let (app, platform) = street(&evil).await;
    let next_door = neighbour(&app).await;
    let (evils, googles) = (redirect_uri(&platform, "github").await, redirect_uri(&platform, "google").await);
    let mut victim = at_the_portal(&app, &platform, "u-1").await;
    let mut attacker = at_the_portal(&app, &platform, "u-66").await;
    let honest = app.street.sandbox.google.join("o/oauth2/v2/auth").expect("a path");
    let (mut led, mut agreed, mut own) = (0, 0, 0);
    for (client, address) in [(CLIENT, &evils), (CLIENT, &googles), ("neighbour", &next_door)] {
        for whose in ["the victim's", "the attacker's", "nobody's"] {
            for by_honest in [true, false] {
                let victims = begin(&app, &mut victim, "github").await;
                let state = match whose {
                    "the victim's" => victims,
                    "the attacker's" => begin(&app, &mut attacker, "google").await,
                    _ => "bm9ib2R5cy1zdGF0ZS1hdC1hbGwhIQ".to_owned(),
                };
                let case = format!("{address} with {whose} state, by the honest one: {by_honest}");
                let target = if by_honest {
                    let asked = [
                        ("client_id", client),
                        ("redirect_uri", address.as_str()),
                        ("state", &state),
                        ("response_type", "code"),
                        ("scope", "openid email"),
                        ("access_type", "offline"),
                    ];
                    with(&honest, &asked)
                } else {
                    with(address, &[("code", "evils-own-code"), ("state", &state)])
                };
                evil.leads_to(&target);
                let before = evil.heard().len();
                let mut shown = victim.follow().await.expect("somewhere");
                if by_honest && shown.status == 200 {
                    victim.consent(true, "ada@example.com", None).await.expect("consents");
                    agreed += 1;
                    shown = victim.follow().await.expect("a page");
                }
                let ends_well = shown.body.contains("is connected");
                if !by_honest && *address == evils && whose == "the victim's" {
                    // What people came for: its own code at its own address, which tells it nothing.
                    own += 1;
                    continue;
                }
                assert!(!ends_well, "{case}: {}", shown.body);
                assert_eq!(evil.heard().len(), before, "{case}");
                led += 1;
            }
        }
    }
    // The honest one knows the addresses of its own clients, and not the dishonest one's.
    assert_eq!((led, agreed, own), (17, 6, 1));
    let heard = evil.heard();
    let codes: Vec<&String> = heard.iter().filter(|line| line.contains("code=")).collect();
    assert!(codes.len() == 1 && codes[0].contains("code=evils-own-code"), "{heard:?}");
    assert_eq!(exchanges(&app).await, 0, "and the honest one has exchanged none");
    for user in ["u-1", "u-66"] {
        let google = connections(&platform, user).await.into_iter().filter(|one| one["provider"] == "google").count();
        assert_eq!(google, 0, "{user}");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_secret_is_not_carried_on_to_where_a_token_endpoint_redirects() {
    // OA-18
    let evil = Evil::open().await;
    let (app, platform) = street(&evil).await;
    let own = redirect_uri(&platform, "github").await;
    let mut person = at_the_portal(&app, &platform, "u-1").await;
    for status in [301, 302, 303, 307, 308] {
        evil.mind.lock().expect("lock").redirects = StatusCode::from_u16(status).ok();
        let state = begin(&app, &mut person, "github").await;
        evil.leads_to(&with(&own, &[("code", "evils-own-code"), ("state", &state)]));
        let shown = person.follow().await.expect("a page");
        assert!(!shown.body.contains("is connected"), "{status}: {}", shown.body);
    }
    let heard = evil.heard();
    assert_eq!(heard.len(), 5, "one token request each: {heard:?}");
    assert!(heard.iter().all(|line| line.starts_with("POST /token ")), "{heard:?}");
    assert!(connections(&platform, "u-1").await.is_empty());
    app.finish().await;
}

#[tokio::test]
async fn a_token_is_not_carried_on_to_where_an_api_or_a_revocation_redirects() {
    // AG-12, OA-18
    let evil = Evil::open().await;
    let (app, platform) = street(&evil).await;
    let row = json!({"user": "u-1", "provider": "github", "account": {"id": "7"},
        "credentials": [{"kind": "user", "access_token": "gho_vkcanary-moved"}]});
    let moved = platform.post("/v1/connections/import", &json!({"connections": [row]})).await.ok();
    let rules =
        json!({"needs": [{"provider": "github", "hand_over": "broker"}], "broker": {"github": {"paths": ["**"]}}});
    let desk = app.desk(&platform, rules).await;
    let started = app.start_websocket(&platform, &desk, "u-1").await;
    let tool = app.tool_of(&started, &desk);
    for status in [301, 302, 303, 307, 308] {
        evil.mind.lock().expect("lock").redirects = StatusCode::from_u16(status).ok();
        let got = tool.read("/v1/broker/github/user/repos").await;
        assert_eq!((got.status, got.header("location")), (status, ""), "{}", got.text);
    }
    let path = format!("/v1/connections/{}", moved["data"][0]["id"].as_str().expect("an id"));
    assert_eq!(platform.delete(&path).await.ok()["revoked"], false);
    let heard = evil.heard();
    let (reads, rest) = heard.split_at(5);
    assert!(reads.iter().all(|line| line.starts_with("GET /api/user/repos ")), "{heard:?}");
    assert!(rest.len() == 1 && rest[0].starts_with("DELETE /revoke"), "{heard:?}");
    app.finish().await;
}
