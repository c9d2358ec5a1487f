//! What providers tell us on their own: an access has ended, an account is disabled. Each proves in its own way that it is the
//! provider who speaks; what is not proven is not looked at.
//!
//! Here are the words that they have in common, and Slack's Events API (provider fact sheet B.7). Google's security events stand
//! in `risc`.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::CredentialKind;
use crate::clock::Millis;
use crate::crypto::signature::{hex, hmac_sha256, same, sha256};
use crate::secret::Secret;

/// How far a signature's time may be from ours, in either direction (fact sheet B.7, AG-09).
const SKEW: Duration = Duration::from_secs(300);
/// What Slack's challenge may be long.
const LONGEST_CHALLENGE: usize = 512;
/// Users named in one event are looked up one by one.
const MOST_USERS: usize = 1000;

/// The reason for an access that was taken back at its provider: by its person, an administrator, or another system of the tenant.
pub const REVOKED: &str = "revoked_at_provider";
/// The reason for an access that ended because the provider has disabled the account.
pub const DISABLED: &str = "account_disabled";
/// The code of a provider that wants the person to change their password.
pub const CHANGE_REQUIRED: &str = "credential_change_required";

/// The reason for a chat in which the bot may not write any more, because its person has blocked it.
pub const BLOCKED: &str = "chat_blocked";

/// Something that a provider says has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The provider's own name for it. Deliveries repeat.
    pub id: String,
    /// When it happened, by the provider's clock: no later than this.
    pub at: Millis,
    /// What follows from it; nothing for what concerns nobody here.
    pub effects: Vec<Effect>,
}

/// What follows from a notice, for some accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// Whose.
    pub whose: Whose,
    /// Which of their credentials; every one where none is named.
    pub kind: Option<CredentialKind>,
    /// What has happened.
    pub what: What,
}

/// Whose credentials are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Of the account with this id.
    Account(String),
    /// Of every account whose id begins with this and a slash: a workspace's.
    Below(String),
}

/// What has happened to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The access has ended, for this reason.
    Ended(&'static str),
    /// The account, which was disabled, is enabled again. The access is gone all the same.
    Enabled,
    /// The person is asked to change their password. The access goes on.
    ChangeRequired,
    /// The person has blocked the bot.
    MayNotWrite,
    /// The person lets the bot write again.
    MayWrite,
}

/// Why a notice is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disbelief {
    /// It cannot be read.
    Malformed,
    /// Its key is none of the provider's.
    Key,
    /// Its signature does not fit, or there is none.
    Signature,
    /// It comes from somebody else.
    Issuer,
    /// It is for somebody else.
    Audience,
    /// It is too old, or from the future.
    Time,
    /// Whether it is genuine cannot be found out at the moment.
    Unavailable,
}

/// One of Slack's calls, as it came.
#[derive(Clone, Copy, Debug)]
pub struct SlackCall<'a> {
    /// `X-Slack-Request-Timestamp`.
    pub timestamp: &'a str,
    /// `X-Slack-Signature`.
    pub signature: &'a str,
    /// The raw body.
    pub body: &'a [u8],
}

/// What Slack wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlackSaid {
    /// To see that somebody is there: say this back.
    Challenge(String),
    /// To tell something.
    Notice(Notice),
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "type")]
    kind: String,
    challenge: Option<String>,
    team_id: Option<String>,
    enterprise_id: Option<String>,
    event_id: Option<String>,
    event_time: Option<i64>,
    #[serde(default)]
    authorizations: Value,
    #[serde(default)]
    event: Value,
}

/// Reads one of Slack's calls, once its signature is found to be made with `signing_secret`.
///
/// # Errors
/// [`Disbelief`]. Nothing of the body is looked at before the signature fits.
pub fn slack(signing_secret: &Secret, call: SlackCall<'_>, now: Millis) -> Result<SlackSaid, Disbelief> {
    let signed_at = call.timestamp;
    if !(1..=12).contains(&signed_at.len()) || !signed_at.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Disbelief::Signature);
    }
    let base = [b"v0:", signed_at.as_bytes(), b":", call.body].concat();
    let right = format!("v0={}", hex(&hmac_sha256(signing_secret.expose().as_bytes(), &base)));
    if !same(right.as_bytes(), call.signature.as_bytes()) {
        return Err(Disbelief::Signature);
    }
    let signed_at = seconds(signed_at.parse().map_err(|_| Disbelief::Time)?);
    if signed_at > now.after(SKEW) || signed_at < now.before(SKEW) {
        return Err(Disbelief::Time);
    }
    let said: Envelope = serde_json::from_slice(call.body).map_err(|_| Disbelief::Malformed)?;
    match (said.kind.as_str(), &said.challenge) {
        ("url_verification", Some(challenge)) if challenge.len() <= LONGEST_CHALLENGE => {
            Ok(SlackSaid::Challenge(challenge.clone()))
        }
        ("url_verification", _) => Err(Disbelief::Malformed),
        _ => Ok(SlackSaid::Notice(Notice {
            id: said.event_id.clone().filter(|id| fits(id)).unwrap_or_else(|| hex(&sha256(call.body))),
            // The second in which it happened may have been a long one.
            at: said.event_time.map_or(signed_at, seconds).after(Duration::from_millis(999)),
            effects: effects(&said),
        })),
    }
}

fn effects(said: &Envelope) -> Vec<Effect> {
    let Some(place) = place(said) else { return Vec::new() };
    let ended = |whose, kind| Effect { whose, kind, what: What::Ended(REVOKED) };
    // These are ids of users, not tokens, whatever the field is called.
    let revoked = |kind: &str| said.event.pointer(kind).and_then(Value::as_array).into_iter().flatten();
    match (said.kind.as_str(), said.event.get("type").and_then(Value::as_str).unwrap_or_default()) {
        ("event_callback", "app_uninstalled") => vec![ended(Whose::Below(place.to_owned()), None)],
        ("event_callback", "tokens_revoked") => {
            let users = revoked("/tokens/oauth").filter_map(Value::as_str).filter(|user| fits(user)).take(MOST_USERS);
            let people = users.map(|user| ended(Whose::Account(format!("{place}/{user}")), Some(CredentialKind::User)));
            let bot = revoked("/tokens/bot").next();
            people.chain(bot.map(|_| ended(Whose::Below(place.to_owned()), Some(CredentialKind::Bot)))).collect()
        }
        _ => Vec::new(),
    }
}

/// The team, or the enterprise where the app is installed in all of it: what an account's id begins with.
fn place(said: &Envelope) -> Option<&str> {
    let is_whole = |one: &Value| one.get("is_enterprise_install") == Some(&Value::Bool(true));
    let everywhere = said.authorizations.as_array().is_some_and(|list| list.iter().any(is_whole));
    let (team, enterprise) = (said.team_id.as_deref(), said.enterprise_id.as_deref());
    let place = if everywhere { enterprise } else { team.or(enterprise) };
    place.filter(|id| fits(id))
}

/// An id of Slack's: nothing in it can join or end the ids that it is put together with.
fn fits(id: &str) -> bool {
    (1..=100).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn seconds(count: i64) -> Millis {
    Millis(count.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "vault-test-signing-secret";
    const REVOCATION: &str =
        r#"{"type":"event_callback","event":{"type":"tokens_revoked","tokens":{"oauth":["U0001"],"bot":[]}}}"#;
    const NOW: Millis = Millis(1_700_000_000_000);

    fn signed(body: &str, at: &str) -> Result<SlackSaid, Disbelief> {
        let base = format!("v0:{at}:{body}");
        let signature = format!("v0={}", hex(&hmac_sha256(SECRET.as_bytes(), base.as_bytes())));
        let call = SlackCall { timestamp: at, signature: &signature, body: body.as_bytes() };
        slack(&Secret::new(SECRET), call, NOW)
    }

    fn told(body: &str) -> Notice {
        match signed(body, "1700000000").expect("believed") {
            SlackSaid::Notice(notice) => notice,
            SlackSaid::Challenge(challenge) => panic!("a challenge: {challenge}"),
        }
    }

    #[test]
    fn the_published_vectors_are_believed() {
        // fact sheet B.7: Slack's own worked example, and ours
        let example = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
        let call = SlackCall {
            timestamp: "1531420618",
            signature: "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
            body: example.as_bytes(),
        };
        let then = seconds(1_531_420_618);
        // Signed as it should be, so that it is looked at; a slash command is no JSON.
        assert_eq!(slack(&Secret::new("8f742231b10e8888abcd99yyyzzz85a5"), call, then), Err(Disbelief::Malformed));
        let ours = SlackCall {
            timestamp: "1700000000",
            signature: "v0=f9e86d6809490a9684f6a2e2e9cf88204fae493a6cdf7b6c35d1b9b7c0b4fc98",
            body: REVOCATION.as_bytes(),
        };
        assert!(matches!(slack(&Secret::new(SECRET), ours, NOW), Ok(SlackSaid::Notice(_))));
    }

    #[test]
    fn ag_09_what_is_not_signed_right_or_not_now_is_not_looked_at() {
        let right = "v0=f9e86d6809490a9684f6a2e2e9cf88204fae493a6cdf7b6c35d1b9b7c0b4fc98";
        let upper = right.to_uppercase().replace("V0", "v0");
        let doubled = format!("{right},{right}");
        let reserialised = REVOCATION.replace(',', ", ");
        let rows = [
            ("a flipped bit", "1700000000", right.replace("f9e8", "f9e9"), REVOCATION, Disbelief::Signature),
            ("no version", "1700000000", right.replace("v0=", ""), REVOCATION, Disbelief::Signature),
            ("another version", "1700000000", right.replace("v0=", "v1="), REVOCATION, Disbelief::Signature),
            ("upper case", "1700000000", upper, REVOCATION, Disbelief::Signature),
            ("two of them", "1700000000", doubled, REVOCATION, Disbelief::Signature),
            ("cut short", "1700000000", right[..40].to_owned(), REVOCATION, Disbelief::Signature),
            ("none", "1700000000", String::new(), REVOCATION, Disbelief::Signature),
            ("another time", "1700000001", right.to_owned(), REVOCATION, Disbelief::Signature),
            ("no time", "", right.to_owned(), REVOCATION, Disbelief::Signature),
            ("no number", "17e8", right.to_owned(), REVOCATION, Disbelief::Signature),
            ("the same in other bytes", "1700000000", right.to_owned(), &reserialised, Disbelief::Signature),
        ];
        for (what, timestamp, signature, body, why) in rows {
            let call = SlackCall { timestamp, signature: &signature, body: body.as_bytes() };
            assert_eq!(slack(&Secret::new(SECRET), call, NOW), Err(why), "{what}");
        }
        let other = SlackCall { timestamp: "1700000000", signature: right, body: REVOCATION.as_bytes() };
        assert_eq!(slack(&Secret::new("another-secret"), other, NOW), Err(Disbelief::Signature));
        for (at, believed) in [("1699999700", true), ("1699999699", false), ("1700000300", true), ("1700000301", false)]
        {
            assert_eq!(signed(REVOCATION, at).is_ok(), believed, "{at}");
        }
        for body in ["", "[]", r#"{"type":7}"#, r#"{"type":"url_verification"}"#] {
            assert_eq!(signed(body, "1700000000"), Err(Disbelief::Malformed), "{body}");
        }
    }

    #[test]
    fn slacks_events_say_whose_access_has_ended() {
        // fact sheet B.7
        let event = |more: &str, event: &str| {
            format!(r#"{{"type":"event_callback","event_id":"Ev1","event_time":1699999990,{more}"event":{event}}}"#)
        };
        let revoked = r#"{"type":"tokens_revoked","tokens":{"oauth":["U1","U2/../U3"],"bot":["UB"]}}"#;
        let (team, gone) = (r#""team_id":"T1","#, r#"{"type":"app_uninstalled"}"#);
        let ended = |whose, kind| Effect { whose, kind, what: What::Ended(REVOKED) };
        let below = |place: &str| Whose::Below(place.to_owned());
        assert_eq!(
            told(&event(team, revoked)),
            Notice {
                id: "Ev1".to_owned(),
                at: Millis(1_699_999_990_999),
                effects: vec![
                    ended(Whose::Account("T1/U1".to_owned()), Some(CredentialKind::User)),
                    ended(below("T1"), Some(CredentialKind::Bot)),
                ],
            }
        );
        assert_eq!(told(&event(team, gone)).effects, [ended(below("T1"), None)]);
        let whole = r#""team_id":"T1","enterprise_id":"E1","authorizations":[{"is_enterprise_install":true}],"#;
        assert_eq!(told(&event(whole, gone)).effects, [ended(below("E1"), None)]);
        let within = r#""team_id":"T1","enterprise_id":"E1","authorizations":[{"is_enterprise_install":false}],"#;
        assert_eq!(told(&event(within, gone)).effects, [ended(below("T1"), None)], "the app of one team of many");
        for nothing in [
            event("", gone),
            event(r#""team_id":"T1/U9","#, gone),
            event(team, r#"{"type":"message","text":"tokens_revoked"}"#),
            event(team, "{}"),
            format!(r#"{{"type":"app_rate_limited",{team}"minute_rate_limited":1}}"#),
        ] {
            assert_eq!(told(&nothing).effects, [], "{nothing}");
        }
        let nameless = told(REVOCATION);
        assert_eq!(nameless.id.len(), 64, "repeated deliveries have the same body");
        assert_eq!(nameless.at, Millis(1_700_000_000_999));
    }
}
