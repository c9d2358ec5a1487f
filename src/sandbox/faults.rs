//! Faults that the control plants, and the one way a request is answered: count it, meet the planted
//! faults, do the work, answer. A fault "after commit" happens when the work is done, so the provider
//! has moved on and the house does not know.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::json;

use super::serve::hang_up;
use super::state::{Provider, Shared, World, json};
use crate::clock;

/// Where a request arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The token endpoint, exchanging a code.
    Code,
    /// The token endpoint, refreshing.
    Refresh,
    /// The token endpoint with any other grant type.
    OtherGrant,
    /// The revocation endpoint.
    Revoke,
    /// Everything else a token is used for, including userinfo.
    Api,
}

/// Which places a planted fault is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum On {
    Token,
    Code,
    Refresh,
    Revoke,
    Api,
    Any,
}

/// What goes wrong. The names stand in [`super::control`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Delay(u64),
    Late(u64),
    DropAfterCommit,
    DropBefore,
    ServerErrorAfterCommit,
    TooMany(u64),
    BadGatewayPage,
    Garbage,
    InvalidGrant,
    InvalidClient,
    ExpiresInString,
    NoRefreshToken,
    SwapSubject,
    FewerScopes,
    StrayHeaders,
    Large(usize),
    CutShort,
    OkFalse(String),
}

impl Fault {
    /// Reads `name` or `name:argument`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (name, argument) = text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest)));
        let number = || argument.and_then(|text| text.parse().ok());
        Some(match (name, argument) {
            ("delay_ms", _) => Self::Delay(number()?),
            ("late_ms", _) => Self::Late(number()?),
            ("large", _) => Self::Large(argument?.parse().ok()?),
            ("http_429", _) => Self::TooMany(number()?),
            ("ok_false", Some(error)) => Self::OkFalse(error.to_owned()),
            ("drop_after_commit", None) => Self::DropAfterCommit,
            ("drop_before", None) => Self::DropBefore,
            ("http_500_after_commit", None) => Self::ServerErrorAfterCommit,
            ("http_502_html", None) => Self::BadGatewayPage,
            ("garbage", None) => Self::Garbage,
            ("invalid_grant", None) => Self::InvalidGrant,
            ("invalid_client", None) => Self::InvalidClient,
            ("expires_in_string", None) => Self::ExpiresInString,
            ("no_refresh_token", None) => Self::NoRefreshToken,
            ("swap_subject", None) => Self::SwapSubject,
            ("fewer_scopes", None) => Self::FewerScopes,
            ("stray_headers", None) => Self::StrayHeaders,
            ("cut_short", None) => Self::CutShort,
            _ => return None,
        })
    }
}

/// A fault that waits for its request.
#[derive(Debug)]
pub(super) struct Planted {
    pub provider: Provider,
    pub on: On,
    pub fault: Fault,
    pub times: u32,
}

impl Planted {
    pub(super) fn is_for(&self, provider: Provider, place: Place) -> bool {
        let here = match self.on {
            On::Any => true,
            On::Token => matches!(place, Place::Code | Place::Refresh | Place::OtherGrant),
            On::Code => place == Place::Code,
            On::Refresh => place == Place::Refresh,
            On::Revoke => place == Place::Revoke,
            On::Api => place == Place::Api,
        };
        self.provider == provider && here
    }
}

/// How the content of an otherwise good answer is bent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bend {
    pub expires_in_string: bool,
    pub no_refresh_token: bool,
    pub swap_subject: bool,
    pub fewer_scopes: bool,
}

impl Bend {
    /// `expires_in` as a number, or bent into a text.
    pub(super) fn expires_in(self, life: Duration) -> serde_json::Value {
        if self.expires_in_string { json!(life.as_secs().to_string()) } else { json!(life.as_secs()) }
    }
}

/// Answers one request: counts it, meets planted faults, and otherwise does `work`.
pub(super) async fn answered(
    shared: &Shared,
    provider: Provider,
    place: Place,
    work: impl FnOnce(&mut World, Bend) -> Response + Send,
) -> Response {
    let faults = {
        let mut world = shared.world();
        world.count_call(provider, place);
        world.take_faults(provider, place)
    };
    let mut bend = Bend::default();
    let mut last = None;
    for fault in faults {
        match fault {
            Fault::Delay(millis) => clock::pause(Duration::from_millis(millis)).await,
            Fault::ExpiresInString => bend.expires_in_string = true,
            Fault::NoRefreshToken => bend.no_refresh_token = true,
            Fault::SwapSubject => bend.swap_subject = true,
            Fault::FewerScopes => bend.fewer_scopes = true,
            other => last = Some(other),
        }
    }
    if let Some(refusal) = last.as_ref().and_then(|fault| before(provider, place, fault)) {
        return refusal;
    }
    let done = work(&mut shared.world(), bend);
    match last {
        Some(Fault::Late(millis)) => {
            clock::pause(Duration::from_millis(millis)).await;
            done
        }
        Some(Fault::DropAfterCommit) => hang_up(),
        Some(Fault::ServerErrorAfterCommit) => json(500, &json!({"error": "internal_failure"})),
        Some(Fault::Garbage) => (done.status(), [("content-type", "application/json")], "{\"access_to").into_response(),
        Some(Fault::StrayHeaders) => (STRAY_HEADERS, done).into_response(),
        Some(Fault::Large(kib)) => (done.status(), large(kib)).into_response(),
        Some(Fault::CutShort) => (done.status(), cut_short()).into_response(),
        _ => done,
    }
}

/// Spaces that come as they are made, so that nobody knows how many before the end.
fn large(kib: usize) -> Body {
    let spaces = stream::iter(0..kib).map(|_| Ok::<_, Infallible>(Bytes::from_static(&[b' '; 1024])));
    Body::from_stream(spaces)
}

/// The beginning of a body; the connection ends where the rest would have come.
fn cut_short() -> Body {
    let beginning = stream::iter([Ok(Bytes::from_static(b"{\"half\":"))]);
    let end = stream::once(async {
        // The beginning leaves first.
        tokio::task::yield_now().await;
        Err(io::Error::other("planted by the sandbox"))
    });
    Body::from_stream(beginning.chain(end))
}

/// Headers that describe nothing of an answer's body, as front servers and trackers add them.
const STRAY_HEADERS: [(&str, &str); 8] = [
    ("set-cookie", "NID=vkcanary-cookie-of-the-provider; Path=/; HttpOnly"),
    ("www-authenticate", "Bearer realm=\"provider\""),
    ("location", "https://elsewhere.example/"),
    ("link", "<https://elsewhere.example/>; rel=next"),
    ("access-control-allow-origin", "*"),
    ("alt-svc", "h3=\":443\""),
    ("x-provider-session", "vkcanary-session-of-the-provider"),
    ("content-language", "en"),
];

/// Faults in front of the work, each in the provider's own error shape (A.5, B.5, C.4).
fn before(provider: Provider, place: Place, fault: &Fault) -> Option<Response> {
    Some(match fault {
        Fault::DropBefore => hang_up(),
        Fault::BadGatewayPage => {
            let page = "<html><head><title>502</title></head><body><h1>Bad Gateway</h1></body></html>";
            (http::StatusCode::BAD_GATEWAY, [("content-type", "text/html")], page).into_response()
        }
        Fault::TooMany(seconds) => too_many(provider, *seconds),
        Fault::OkFalse(error) => match provider {
            Provider::Google => json(400, &json!({"error": error, "error_description": "Planted by the sandbox."})),
            Provider::Slack => json(200, &json!({"ok": false, "error": error})),
            Provider::Telegram => json(400, &json!({"ok": false, "error_code": 400, "description": error})),
        },
        Fault::InvalidGrant => match (provider, place) {
            (Provider::Google, Place::Api) => super::google_api::invalid_token(),
            (Provider::Google, _) => {
                let description = "Token has been expired or revoked.";
                json(400, &json!({"error": "invalid_grant", "error_description": description}))
            }
            (Provider::Slack, Place::Code) => json(200, &json!({"ok": false, "error": "invalid_code"})),
            (Provider::Slack, Place::Refresh) => json(200, &json!({"ok": false, "error": "invalid_refresh_token"})),
            (Provider::Slack, _) => json(200, &json!({"ok": false, "error": "token_revoked"})),
            (Provider::Telegram, _) => {
                json(401, &json!({"ok": false, "error_code": 401, "description": "Unauthorized"}))
            }
        },
        Fault::InvalidClient => match provider {
            Provider::Slack => json(200, &json!({"ok": false, "error": "bad_client_secret"})),
            _ => json(401, &json!({"error": "invalid_client", "error_description": "Unauthorized"})),
        },
        _ => return None,
    })
}

fn too_many(provider: Provider, seconds: u64) -> Response {
    let mut response = match provider {
        Provider::Google => json(429, &json!({"error": "rate_limit_exceeded"})),
        Provider::Slack => json(429, &json!({"ok": false, "error": "ratelimited"})),
        Provider::Telegram => {
            let description = format!("Too Many Requests: retry after {seconds}");
            let parameters = json!({"retry_after": seconds});
            // Telegram says it in the body only (C.4).
            return json(
                429,
                &json!({"ok": false, "error_code": 429, "description": description, "parameters": parameters}),
            );
        }
    };
    response.headers_mut().insert(http::header::RETRY_AFTER, seconds.into());
    response
}

#[cfg(test)]
mod tests {
    use super::super::state::CANARY;
    use super::super::testing::{Answer, CLIENT, CLIENT_SECRET, GRACE, Street, text};
    use super::*;

    #[test]
    fn fault_names_are_read_with_their_arguments() {
        assert_eq!(Fault::parse("delay_ms:250"), Some(Fault::Delay(250)));
        assert_eq!(Fault::parse("late_ms:250"), Some(Fault::Late(250)));
        assert_eq!(Fault::parse("ok_false:fatal_error"), Some(Fault::OkFalse("fatal_error".to_owned())));
        for wrong in ["", "delay_ms", "delay_ms:soon", "garbage:1", "http_429"] {
            assert_eq!(Fault::parse(wrong), None, "{wrong}");
        }
    }

    const MAIL: &str = "https://www.googleapis.com/auth/gmail.readonly";

    async fn google_refresh(street: &Street, token: &str) -> Result<Answer, reqwest::Error> {
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", token),
            ("client_id", CLIENT),
            ("client_secret", CLIENT_SECRET),
        ];
        street.send(street.http.post(street.at_google("token")).form(&form)).await
    }

    #[tokio::test]
    async fn a_dropped_answer_leaves_the_provider_ahead_of_the_client() {
        let street = Street::start().await;
        street.tell("/rotation", json!({"reuse": "none"})).await;
        let installed = street.slack_connected("", "chat:write").await;
        let token = text(&installed["authed_user"], "refresh_token");
        let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
        let refresh = || {
            let request = street.http.post(street.at_slack("api/oauth.v2.access"));
            street.send(request.basic_auth(CLIENT, Some(CLIENT_SECRET)).form(&form))
        };
        street.plant("slack", "drop_before").await;
        assert!(refresh().await.is_err());
        assert_eq!(street.counter("slack", "refreshes").await, 0, "nothing was done");
        street.plant("slack", "drop_after_commit").await;
        assert!(refresh().await.is_err());
        assert_eq!(street.counter("slack", "refreshes").await, 1, "it was done");
        assert_eq!(text(&refresh().await.expect("an answer").json, "error"), "invalid_refresh_token");
        assert_eq!(street.counter("slack", "token_requests/refresh_token").await, 3);
    }

    #[tokio::test]
    async fn http_faults_look_as_they_do_in_the_field() {
        let street = Street::start().await;
        let connected = street.google_connected(MAIL).await;
        let token = text(&connected, "refresh_token");
        let cases = [
            ("http_500_after_commit", 500, 1),
            ("http_502_html", 502, 1),
            ("http_429:30", 429, 1),
            ("garbage", 200, 2),
            ("invalid_grant", 400, 2),
            ("invalid_client", 401, 2),
            ("ok_false:internal_failure", 400, 2),
        ];
        for (name, status, refreshes) in cases {
            street.plant("google", name).await;
            let answer = google_refresh(&street, token).await.expect("an answer");
            assert_eq!(answer.status, status, "{name}");
            assert_eq!(street.counter("google", "refreshes").await, refreshes, "{name}");
            assert_eq!(answer.headers.get("retry-after").is_some(), status == 429, "{name}");
            let readable = !["garbage", "http_502_html"].contains(&name);
            assert_eq!(answer.json.is_object(), readable, "{name}: {}", answer.text);
        }
        assert_eq!(google_refresh(&street, token).await.expect("an answer").status, 200, "each was for one request");
    }

    #[tokio::test]
    async fn bent_answers_differ_in_one_thing() {
        let street = Street::start().await;
        let scope = format!("openid {MAIL}");
        street.plant("google", "no_refresh_token").await;
        assert!(street.google_connected(&scope).await["refresh_token"].is_null());
        street.plant("google", "expires_in_string").await;
        assert_eq!(street.google_connected(&scope).await["expires_in"], "3600");
        street.plant("google", "fewer_scopes").await;
        assert_eq!(text(&street.google_connected(&scope).await, "scope"), "openid");
        street.plant("google", "swap_subject").await;
        let swapped = street.google_connected(&scope).await;
        let shown = street.get(street.at_google("v1/userinfo"), text(&swapped, "access_token")).await.json;
        assert_eq!(shown["email"], GRACE);
        street.plant("slack", "swap_subject").await;
        assert_eq!(street.slack_connected("", "chat:write").await["authed_user"]["id"], "U0GRACE");
        street.plant("slack", "ok_false:fatal_error").await;
        assert_eq!(street.slack_refresh("x").await, json!({"ok": false, "error": "fatal_error"}));
    }

    #[tokio::test]
    async fn a_fault_waits_for_its_place_and_repeats_as_often_as_told() {
        let street = Street::start().await;
        let body = json!({"provider": "google", "name": "http_502_html", "times": 2, "on": "refresh"});
        street.tell("/faults", body).await;
        let connected = street.google_connected(MAIL).await;
        let token = text(&connected, "refresh_token");
        assert!(!token.is_empty(), "the code exchange is another place");
        street.plant("google", "delay_ms:1").await;
        for status in [502, 502, 200] {
            assert_eq!(google_refresh(&street, token).await.expect("an answer").status, status);
        }
        street.tell("/faults", json!({"provider": "google", "name": "invalid_grant", "times": 9, "on": "any"})).await;
        let request = street.http.delete(street.sandbox.control.join("faults").expect("a path"));
        assert_eq!(street.send(request).await.expect("an answer").status, 200);
        assert_eq!(google_refresh(&street, token).await.expect("an answer").status, 200);
    }

    #[tokio::test]
    async fn every_secret_carries_the_canary_and_is_listed() {
        let street = Street::start().await;
        let google = street.google_connected(MAIL).await;
        let slack = street.slack_connected("chat:write", "chat:write").await;
        let listed = street.sandbox.issued();
        for issued in &listed {
            assert!(issued.value.contains(CANARY), "{issued:?}");
        }
        let user = &slack["authed_user"];
        for secret in
            [&google["access_token"], &google["refresh_token"], &slack["refresh_token"], &user["access_token"]]
        {
            assert!(listed.iter().any(|issued| *secret == issued.value));
        }
        let over_http = street.get(street.sandbox.control.join("issued").expect("a path"), "").await.json;
        assert_eq!(over_http["issued"].as_array().map(Vec::len), Some(listed.len()));
        assert!(!format!("{listed:?}").contains(CANARY), "Debug shows no secret");
    }
}
