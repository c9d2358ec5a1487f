//! Attacks on handshakes, one by one: what a thief, a stranger or a dishonest provider brings back connects nothing, and no code is shown
//! to anybody it was not for (RFC 9700 section 4; requirements OA-01 to OA-15).

use std::collections::BTreeSet;

use futures_util::future::join_all;
use url::Url;

use super::*;

/// Somebody else's code comes with one's own state, or the other way round.
fn with(callback: &str, name: &str, value: &str) -> String {
    let mut url = Url::parse(PUBLIC).and_then(|base| base.join(callback)).expect("a URL");
    let kept: Vec<(String, String)> =
        url.query_pairs().filter(|(one, _)| one != name).map(|(one, value)| (one.into(), value.into())).collect();
    url.query_pairs_mut().clear().extend_pairs(kept).append_pair(name, value);
    url.as_str().strip_prefix(PUBLIC).expect("ours").to_owned()
}

fn query(url: &str, name: &str) -> Option<String> {
    let url = Url::parse(PUBLIC).and_then(|base| base.join(url)).expect("a URL");
    url.query_pairs().find(|(one, _)| one == name).map(|(_, value)| value.into_owned())
}

impl Street {
    /// Every exchange that any provider was asked for.
    async fn all_exchanges(&self) -> u64 {
        self.exchanges().await + self.counter("/slack/token_requests/authorization_code").await
    }
}

#[tokio::test]
async fn oa_01_a_state_is_a_secret_of_its_own_and_of_fifty_callbacks_one_gets_through() {
    let street = Street::open().await;
    let mut browser = street.user("ada@acme.example", "u-42").await;
    let mut states = BTreeSet::new();
    for _ in 0..10 {
        let url = street.begin(&mut browser, "google").await;
        let state = query(&url, "state").expect("a state");
        assert!(state.len() >= 22, "128 bits and more: {state}");
        assert!(states.insert(state), "never twice");
    }
    let back = street.consent(&street.begin(&mut browser, "google").await, true, None).await;
    let state = query(&back, "state").expect("a state");
    let edited = format!("{}{}", if state.starts_with('A') { 'B' } else { 'A' }, &state[1..]);
    for wrong in [edited.as_str(), "", &state[..state.len() - 1], &state.to_uppercase()] {
        assert_eq!(browser.get(&with(&back, "state", wrong)).await.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    let mut stranger = street.house.client();
    assert_eq!((stranger.get(&back).await.status, street.exchanges().await), (StatusCode::BAD_REQUEST, 0));

    let back = street.consent(&street.begin(&mut browser, "google").await, true, None).await;
    let mut many: Vec<Client> = (0..50).map(|_| browser.clone()).collect();
    let arrived = join_all(many.iter_mut().map(|one| one.get(&back))).await;
    let through = arrived.iter().filter(|got| got.status == StatusCode::SEE_OTHER).count();
    assert_eq!((through, street.exchanges().await, street.connections().await), (1, 1, 1));
}

#[tokio::test]
async fn oa_03_an_answer_that_is_led_to_another_clients_address_reaches_nobody() {
    // COAT and CORF: a dishonest provider sends the browser on, with every combination of address and state.
    let street = Street::open().await;
    street.integrate("slack", &["chat:write"], &["search:read"]).await;
    let mut browser = street.user("ada@acme.example", "u-42").await;
    let elsewhere = {
        let new = NewTenant { name: "Neighbour".to_owned(), ..NewTenant::default() };
        let tenant = street.house.house.accounts.tenant_create(new).await.expect("tenant");
        let draft = IntegrationDraft {
            client_id: Some("evil".to_owned()),
            client_secret: Some(Secret::new("vkcanary-evil-secret")),
            ..IntegrationDraft::default()
        };
        let operator = Caller::operator(tenant.id);
        let made = street.house.house.connections.integration_put(&operator, "google", draft).await;
        made.expect("an integration").redirect_uri.strip_prefix(PUBLIC).expect("ours").to_owned()
    };
    let mut tried = 0;
    for from in ["google", "slack"] {
        let own = {
            let back = street.consent(&street.begin(&mut browser, from).await, true, None).await;
            back.split('?').next().expect("a path").to_owned()
        };
        let slacks = own.replace("/google/", "/slack/");
        let googles = own.replace("/slack/", "/google/");
        for address in [&elsewhere, &slacks, &googles, &"/oauth/google/callback/int_nowhere".to_owned()] {
            if *address == own {
                continue;
            }
            let back = street.consent(&street.begin(&mut browser, from).await, true, None).await;
            let (_, answer) = back.split_once('?').expect("a query");
            let led = browser.get(&format!("{address}?{answer}")).await;
            assert_eq!(led.status, StatusCode::BAD_REQUEST, "{from} at {address}");
            assert_eq!(browser.get(&back).await.status, StatusCode::BAD_REQUEST, "{from}: the state is used up");
            tried += 1;
        }
    }
    assert_eq!((tried, street.all_exchanges().await, street.connections().await), (6, 0, 0));
}

#[tokio::test]
async fn oa_07_a_code_of_another_handshake_connects_nothing_and_is_not_tried_again() {
    let street = Street::open().await;
    let mut ada = street.user("ada@acme.example", "u-42").await;
    let mut eve = street.user("eve@acme.example", "u-66").await;
    // Eve has got hold of Ada's answer before Ada's browser has delivered it.
    let stolen = street.consent(&street.begin(&mut ada, "google").await, true, None).await;
    let own = street.consent(&street.begin(&mut eve, "google").await, true, None).await;
    let injected = with(&own, "code", &query(&stolen, "code").expect("a code"));
    let arrived = eve.get(&injected).await;
    let page = eve.get(arrived.header("location")).await;
    assert!(!page.text.contains("is connected"), "{}", page.text);
    assert_eq!(street.connections().await, 0);
    let asked = street.exchanges().await;
    assert_eq!(asked, 1, "the provider found that the verifier is another's");
    for again in [&injected, &own] {
        assert_eq!(eve.get(again).await.status, StatusCode::BAD_REQUEST, "that handshake is over");
    }
    assert_eq!((street.exchanges().await, street.connections().await), (asked, 0));
}

#[tokio::test]
async fn oa_12_no_header_has_a_say_in_where_a_provider_sends_people_back() {
    let street = Street::open().await;
    let mut browser = street.user("ada@acme.example", "u-42").await;
    let usual = query(&street.begin(&mut browser, "google").await, "redirect_uri").expect("an address");
    assert!(usual.starts_with(PUBLIC));
    let hostile = [
        ("host", "evil.example"),
        ("host", "evil.example:443"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-host", "evil.example, vault.example"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-port", "8080"),
        ("x-forwarded-prefix", "/evil"),
        ("forwarded", "for=1.2.3.4;host=evil.example;proto=http"),
        ("x-original-url", "/evil"),
        ("x-rewrite-url", "/evil"),
        ("x-http-host-override", "evil.example"),
        ("x-forwarded-server", "evil.example"),
    ];
    let path = "/connections/connect/google";
    for (name, value) in hostile {
        let csrf = browser.get(path).await.csrf();
        let form = format!("csrf={csrf}&provider=google&way=consent");
        let request = Request::post(path)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("sec-fetch-site", "same-origin")
            .header("origin", "null")
            .header(name, value);
        let sent = browser.send(request, form).await;
        assert_eq!(sent.status, StatusCode::SEE_OTHER, "{name}: {}", sent.text);
        assert_eq!(query(sent.header("location"), "redirect_uri").as_ref(), Some(&usual), "{name}: {value}");
    }
}

#[tokio::test]
async fn oa_15_nothing_begins_confirms_or_ends_by_anything_but_our_own_form() {
    let street = Street::open().await;
    let mut ada = street.user("ada@acme.example", "u-42").await;
    street.connect(&mut ada).await;
    let id = connection_id(&ada.get("/connections").await);
    let mutating = [
        "/connections/connect/google".to_owned(),
        format!("/connections/{id}/disconnect"),
        format!("/connections/{id}/reconnect"),
        format!("/connections/{id}/start"),
        "/sign-out".to_owned(),
    ];
    let begun = "SELECT count(*) FROM handshakes";
    let before = street.house.count(begun).await;
    for path in &mutating {
        let csrf = ada.get("/settings").await.csrf();
        let form = format!("csrf={csrf}&provider=google&way=consent&confirmed=yes&was_me=no");
        for (site, origin, body) in [
            ("cross-site", "https://evil.example", form.as_str()),
            ("same-site", "https://other.vault.example", &form),
            ("cross-site", "null", &form),
            ("same-origin", "null", "provider=google&way=consent&confirmed=yes"),
            ("same-origin", "null", "csrf=wrong&provider=google&way=consent&confirmed=yes"),
        ] {
            let request = Request::post(path)
                .header("content-type", "application/x-www-form-urlencoded")
                .header("sec-fetch-site", site)
                .header("origin", origin);
            let got = ada.send(request, body.to_owned()).await;
            assert!([400, 403, 405, 422].contains(&got.status.as_u16()), "{path} from {site} {origin}: {}", got.status);
        }
        for method in ["HEAD", "PUT", "DELETE", "PATCH"] {
            let got = ada.send(Request::builder().method(method).uri(path), Body::empty()).await;
            assert!(!got.status.is_redirection(), "{method} {path}: {}", got.status);
        }
    }
    assert_eq!((street.connections().await, street.house.count(begun).await), (1, before), "nothing has changed");
    assert_eq!(ada.get("/connections").await.status, StatusCode::OK, "she is still signed in");
}
