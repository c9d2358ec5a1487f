//! Google's Cross-Account Protection (RISC): security event tokens that Google sends when something has happened to an account
//! (provider fact sheet A.8, RFC 8417, RFC 8935).

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};
use url::Url;

use super::id_token::{KeyRing, Refused, seconds};
use super::notices::{DISABLED, Disbelief, Effect, Notice, REVOKED, What, Whose};
use crate::clock::Millis;
use crate::secret::Secret;

/// What every kind of event begins with.
const EVENT: &str = "https://schemas.openid.net/secevent/";
/// Deliveries are repeated for days, and an older one says nothing about today.
const OLDEST: Duration = Duration::from_secs(7 * 24 * 3600);
/// How far clocks may be apart.
const SKEW: Duration = Duration::from_secs(60);

/// Of whom, and by whom, a security event token has to be.
#[derive(Clone, Copy)]
pub(super) struct Expected<'a> {
    pub jwks: &'a Url,
    pub issuers: &'a [String],
    pub client_id: &'a str,
    pub now: Millis,
}

/// An expiry is not looked at: what has happened has happened (fact sheet A.8).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Claims {
    iss: Value,
    aud: Value,
    iat: Value,
    toe: Value,
    jti: Value,
    events: Map<String, Value>,
}

/// Reads a security event token, once it is found to be Google's and for us.
pub(super) async fn read(keys: &KeyRing, token: &Secret, expected: Expected<'_>) -> Result<Notice, Disbelief> {
    let signed = keys.signed::<Claims>(expected.jwks, token).await.map_err(|_| Disbelief::Unavailable)?;
    let claims = signed.map_err(|refused| match refused {
        Refused::UnknownKey => Disbelief::Key,
        Refused::Malformed => Disbelief::Malformed,
        _ => Disbelief::Signature,
    })?;
    checked(&claims, expected)
}

fn checked(claims: &Claims, expected: Expected<'_>) -> Result<Notice, Disbelief> {
    if !is_issuer(&claims.iss, expected.issuers) {
        return Err(Disbelief::Issuer);
    }
    // Google names every client of the project at once.
    let ours = |aud: &Value| aud.as_str() == Some(expected.client_id);
    let is_ours = claims.aud.as_array().map_or_else(|| ours(&claims.aud), |list| list.iter().any(ours));
    if !is_ours {
        return Err(Disbelief::Audience);
    }
    let time = |claim: &Value| seconds(claim).map(|seconds| Millis(seconds.saturating_mul(1000)));
    let issued_at = time(&claims.iat).ok_or(Disbelief::Malformed)?;
    if issued_at > expected.now.after(SKEW) || issued_at < expected.now.before(OLDEST) {
        return Err(Disbelief::Time);
    }
    let id = claims.jti.as_str().filter(|id| (1..=255).contains(&id.len())).ok_or(Disbelief::Malformed)?;
    if claims.events.is_empty() {
        return Err(Disbelief::Malformed);
    }
    let happened = time(&claims.toe).filter(|at| *at <= issued_at).unwrap_or(issued_at);
    let effects = claims.events.iter().filter_map(|(kind, event)| effect(kind, event, expected.issuers));
    // The second in which it happened may have been a long one.
    Ok(Notice { id: id.to_owned(), at: happened.after(Duration::from_millis(999)), effects: effects.collect() })
}

/// The table of fact sheet A.8. Who has signed out (`sessions-revoked`) has taken nothing back, and one revoked token
/// (`token-revoked`) is found out by the next refresh: Google names it by a part of the token, which is not kept readable.
fn effect(kind: &str, event: &Value, issuers: &[String]) -> Option<Effect> {
    let what = match kind.strip_prefix(EVENT)? {
        "oauth/event-type/tokens-revoked" => What::Ended(REVOKED),
        "risc/event-type/account-disabled" => What::Ended(DISABLED),
        "risc/event-type/account-enabled" => What::Enabled,
        "risc/event-type/account-credential-change-required" => What::ChangeRequired,
        _ => return None,
    };
    let subject = event.get("subject").filter(|subject| is_issuer(&subject["iss"], issuers))?;
    let account = subject["sub"].as_str().filter(|sub| (1..=255).contains(&sub.len()))?;
    Some(Effect { whose: Whose::Account(account.to_owned()), kind: None, what })
}

/// Google writes its name with a slash at the end in some tokens and without in others (fact sheet A.8).
fn is_issuer(claim: &Value, issuers: &[String]) -> bool {
    let plain = |text: &str| text.strip_suffix('/').unwrap_or(text).to_owned();
    claim.as_str().is_some_and(|issuer| issuers.iter().any(|known| plain(known) == plain(issuer)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: Millis = Millis(1_700_000_000_000);
    const SUBJECT: &str = "7375626A656374";

    fn tell(claims: Value) -> Result<Notice, Disbelief> {
        let jwks = Url::parse("https://www.googleapis.com/oauth2/v3/certs").expect("an address");
        let issuers = ["https://accounts.google.com".to_owned()];
        let claims: Claims = serde_json::from_value(claims).map_err(|_| Disbelief::Malformed)?;
        checked(&claims, Expected { jwks: &jwks, issuers: &issuers, client_id: "ours", now: NOW })
    }

    fn set(kind: &str, more: Value) -> Value {
        let mut event =
            json!({"subject": {"subject_type": "iss-sub", "iss": "https://accounts.google.com/", "sub": SUBJECT}});
        for (name, value) in more.as_object().expect("an object") {
            event[name] = value.clone();
        }
        json!({
            "iss": "https://accounts.google.com/", "aud": ["another", "ours"], "iat": 1_699_999_000, "jti": "one",
            "exp": 1, "events": {format!("{EVENT}{kind}"): event},
        })
    }

    #[test]
    fn each_kind_of_event_has_its_effect() {
        // fact sheet A.8
        let whose = Whose::Account(SUBJECT.to_owned());
        let rows = [
            ("oauth/event-type/tokens-revoked", json!({}), Some(What::Ended(REVOKED))),
            ("risc/event-type/account-disabled", json!({"reason": "hijacking"}), Some(What::Ended(DISABLED))),
            ("risc/event-type/account-disabled", json!({"reason": "bulk-account"}), Some(What::Ended(DISABLED))),
            ("risc/event-type/account-enabled", json!({}), Some(What::Enabled)),
            ("risc/event-type/account-credential-change-required", json!({}), Some(What::ChangeRequired)),
            ("risc/event-type/sessions-revoked", json!({}), None),
            ("risc/event-type/verification", json!({"state": "hello"}), None),
            (
                "oauth/event-type/token-revoked",
                json!({"subject": {"subject_type": "oauth_token", "token_type": "refresh_token", "token_identifier_alg": "prefix", "token": "1//0abcdefghijkl"}}),
                None,
            ),
            ("risc/event-type/something-new", json!({}), None),
            (
                "oauth/event-type/tokens-revoked",
                json!({"subject": {"iss": "https://evil.example", "sub": SUBJECT}}),
                None,
            ),
            ("oauth/event-type/tokens-revoked", json!({"subject": {"iss": "https://accounts.google.com/"}}), None),
        ];
        for (kind, more, what) in rows {
            let notice = tell(set(kind, more)).expect("believed");
            let expected = what.map(|what| Effect { whose: whose.clone(), kind: None, what });
            assert_eq!(notice.effects, Vec::from_iter(expected), "{kind}");
            assert_eq!((notice.id.as_str(), notice.at), ("one", Millis(1_699_999_000_999)));
        }
    }

    #[test]
    fn what_is_not_for_us_or_not_of_today_is_not_believed() {
        // fact sheet A.8, RFC 8417 section 2.2
        let with = |name: &str, value: Value| {
            let mut claims = set("oauth/event-type/tokens-revoked", json!({}));
            claims[name] = value;
            tell(claims)
        };
        for (name, value) in [
            ("iss", json!("https://accounts.google.com")),
            ("aud", json!("ours")),
            ("iat", json!(1_700_000_060)),
            ("iat", json!(1_699_395_200)),
            ("exp", json!("whatever")),
            ("toe", json!(1_699_990_000)),
        ] {
            assert!(with(name, value.clone()).is_ok(), "{name} {value}");
        }
        for (name, value, why) in [
            ("iss", json!("https://accounts.google.com//"), Disbelief::Issuer),
            ("iss", json!("https://accounts.google.com.evil.example/"), Disbelief::Issuer),
            ("iss", json!(null), Disbelief::Issuer),
            ("aud", json!("another"), Disbelief::Audience),
            ("aud", json!([]), Disbelief::Audience),
            ("aud", json!([["ours"]]), Disbelief::Audience),
            ("aud", json!(null), Disbelief::Audience),
            ("iat", json!(1_700_000_061), Disbelief::Time),
            ("iat", json!(1_699_395_199), Disbelief::Time),
            ("iat", json!("1699999000"), Disbelief::Malformed),
            ("jti", json!(null), Disbelief::Malformed),
            ("jti", json!(""), Disbelief::Malformed),
            // An id_token of ours is signed with the same keys.
            ("events", json!({}), Disbelief::Malformed),
            ("events", json!([]), Disbelief::Malformed),
        ] {
            assert_eq!(with(name, value.clone()), Err(why), "{name} {value}");
        }
        assert_eq!(with("toe", json!(1_699_990_000)).map(|one| one.at), Ok(Millis(1_699_990_000_999)));
        assert_eq!(
            with("toe", json!(1_800_000_000)).map(|one| one.at),
            Ok(Millis(1_699_999_000_999)),
            "not after it was told"
        );
    }
}
