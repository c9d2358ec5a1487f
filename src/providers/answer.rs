//! Reads token answers: lenient about shape, strict about what may be stored (fact sheet D.4, G.16, G.17; RL-10).

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::descriptor::Expiry;
use super::errors::{Code, Failure};
use super::{CredentialKind, TokenSet};
use crate::secret::Secret;

/// Longest token that is stored; Google's are 2 KiB at most, JWT providers' more (fact sheet G.16).
const LONGEST_TOKEN: usize = 16 * 1024;
/// A life of 0 or less is taken as this, so that a token with a wrong life ends soon but does not cause a storm.
const SHORTEST_LIFE: Duration = Duration::from_secs(60);
/// No access token lives longer; LinkedIn's 60 days are the longest known.
const LONGEST_LIFE: Duration = Duration::from_secs(365 * 86_400);
const MOST_SCOPES: usize = 500;
const LONGEST_SCOPE: usize = 512;

/// A token answer before anything in it is believed. A field that comes twice makes the whole answer unreadable,
/// since nobody can say which one counts.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct RawAnswer {
    pub ok: Value,
    pub error: Value,
    pub error_subtype: Value,
    pub access_token: Field,
    pub refresh_token: Field,
    pub id_token: Field,
    pub token_type: Value,
    pub scope: Value,
    pub expires_in: Value,
    pub refresh_token_expires_in: Value,
    pub refresh_expires_in: Value,
    pub x_refresh_token_expires_in: Value,
    pub team: Value,
    pub enterprise: Value,
    pub is_enterprise_install: Value,
    pub id: Value,
    pub user_id: Value,
    pub team_id: Value,
    pub authed_user: Option<Box<RawAnswer>>,
    /// Everything else, but for tokens; empty where something in it cannot be read, since nothing that is stored hangs on it.
    #[serde(skip)]
    pub rest: Map<String, Value>,
}

/// What an answer has beside tokens. The fields of tokens are named so that none of them gets into `rest`.
#[derive(Deserialize, Default)]
struct Beside {
    #[serde(default, rename = "access_token")]
    _access_token: IgnoredAny,
    #[serde(default, rename = "refresh_token")]
    _refresh_token: IgnoredAny,
    #[serde(default, rename = "id_token")]
    _id_token: IgnoredAny,
    #[serde(default, rename = "authed_user")]
    _authed_user: IgnoredAny,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// A text that may be a secret, kept so from the first byte.
#[derive(Default)]
pub(super) enum Field {
    /// Missing, null or empty.
    #[default]
    Absent,
    Text(Secret),
    /// Something that is not text.
    Wrong,
}

impl Field {
    pub fn is_present(&self) -> bool {
        !matches!(self, Self::Absent)
    }

    fn is_token(&self) -> bool {
        matches!(self, Self::Text(secret) if usable(secret.expose()))
    }

    fn is_token_or_absent(&self) -> bool {
        self.is_token() || !self.is_present()
    }

    /// The token, if it can be stored and sent in a header; `Ok(None)` if there is none.
    fn token(self, code: &'static str) -> Result<Option<Secret>, Failure> {
        match self {
            Self::Absent => Ok(None),
            Self::Text(secret) if usable(secret.expose()) => Ok(Some(secret)),
            Self::Text(_) | Self::Wrong => Err(Failure::Transient { code: Code::own(code) }),
        }
    }
}

fn usable(token: &str) -> bool {
    token.len() <= LONGEST_TOKEN && token.bytes().all(|b| b.is_ascii_graphic())
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }
    fn visit_str<E>(self, text: &str) -> Result<Field, E> {
        Ok(if text.is_empty() { Field::Absent } else { Field::Text(Secret::new(text)) })
    }
    fn visit_string<E>(self, text: String) -> Result<Field, E> {
        Ok(if text.is_empty() { Field::Absent } else { Field::Text(Secret::new(text)) })
    }
    fn visit_unit<E>(self) -> Result<Field, E> {
        Ok(Field::Absent)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Field, E> {
        Ok(Field::Wrong)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Field, E> {
        Ok(Field::Wrong)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Field, E> {
        Ok(Field::Wrong)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Field, E> {
        Ok(Field::Wrong)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Field, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::Wrong)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Wrong)
    }
}

impl RawAnswer {
    /// Reads a JSON object or a form, whatever the content type says; anything else is `None`. A byte order mark before
    /// the object may be ignored (RFC 8259 section 8.1), so it is: what is not read may be lost for ever.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Self::parse_form(body.trim_ascii());
        }
        let raw: Self = serde_json::from_slice(body).ok()?;
        let beside: Beside = serde_json::from_slice(body).unwrap_or_default();
        Some(Self { rest: beside.rest, ..raw })
    }

    /// GitHub's manner where it was not asked for JSON (fact sheet D.4). Only what can be nothing else is taken for a
    /// form: without a blank or a tag, and with a token or an error in it.
    fn parse_form(body: &[u8]) -> Option<Self> {
        if !body.iter().all(|byte| byte.is_ascii_graphic() && !b"<>{}\"".contains(byte)) {
            return None;
        }
        let mut raw = Self::default();
        let mut seen = Vec::new();
        for (name, value) in form_urlencoded::parse(body) {
            let known: &mut Value = match &*name {
                "access_token" | "refresh_token" | "id_token" => {
                    if seen.contains(&name) {
                        return None;
                    }
                    let field = match &*name {
                        "access_token" => &mut raw.access_token,
                        "refresh_token" => &mut raw.refresh_token,
                        _ => &mut raw.id_token,
                    };
                    if !value.is_empty() {
                        *field = Field::Text(Secret::new(value.into_owned()));
                    }
                    seen.push(name);
                    continue;
                }
                "error" => &mut raw.error,
                "error_subtype" => &mut raw.error_subtype,
                "token_type" => &mut raw.token_type,
                "scope" => &mut raw.scope,
                "expires_in" => &mut raw.expires_in,
                "refresh_token_expires_in" => &mut raw.refresh_token_expires_in,
                "refresh_expires_in" => &mut raw.refresh_expires_in,
                "x_refresh_token_expires_in" => &mut raw.x_refresh_token_expires_in,
                other => {
                    raw.rest.entry(other).or_insert_with(|| Value::String(value.into_owned()));
                    continue;
                }
            };
            if !known.is_null() {
                return None;
            }
            *known = Value::String(value.into_owned());
        }
        (raw.access_token.is_present() || !raw.error.is_null()).then_some(raw)
    }

    /// Whether it shows that the provider has made tokens, in whatever state they came.
    pub fn shows_tokens(&self) -> bool {
        let here = self.access_token.is_present() || self.refresh_token.is_present();
        here || self.authed_user.as_deref().is_some_and(Self::shows_tokens)
    }

    /// Whether the provider has made tokens that cannot be had from it: one of them is no token, or only the refresh
    /// token is there.
    pub fn spoils_tokens(&self) -> bool {
        let person = self.authed_user.as_deref().filter(|person| person.access_token.is_present());
        let source = if self.access_token.is_present() { self } else { person.unwrap_or(self) };
        self.shows_tokens() && !(source.access_token.is_token() && source.refresh_token.is_token_or_absent())
    }

    /// The error code, if the answer has one.
    pub fn error_code(&self) -> Option<&str> {
        match &self.error {
            Value::String(text) => Some(text),
            // Some servers wrap it: {"error":{"status":"…"}}.
            Value::Object(inner) => {
                inner.get("status").or_else(|| inner.get("code")).and_then(Value::as_str).or(Some(""))
            }
            Value::Null => None,
            _ => Some(""),
        }
    }

    /// The words that may be its error code, in the order of the fields that can hold one.
    pub fn error_words(&self, fields: &[String]) -> Vec<String> {
        let word = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let of_field = |name: &String| match (name.as_str(), self.rest.get(name)) {
            ("error", _) => self.error_code().map(str::to_owned).into_iter().collect(),
            (_, Some(Value::Array(list))) => list.iter().filter_map(word).collect(),
            (_, value) => value.and_then(word).into_iter().collect::<Vec<_>>(),
        };
        fields.iter().flat_map(of_field).collect()
    }

    /// The text or number to which a JSON pointer (RFC 6901) leads.
    pub fn text_at(&self, pointer: &str) -> Option<String> {
        let (first, below) = match pointer.strip_prefix('/')?.split_once('/') {
            Some((first, below)) => (first, format!("/{below}")),
            None => (pointer.strip_prefix('/')?, String::new()),
        };
        let value = match first {
            "id" => &self.id,
            "user_id" => &self.user_id,
            "team_id" => &self.team_id,
            other => self.rest.get(other)?,
        };
        text_of(value.pointer(&below)?)
    }

    /// Takes the token set out of the answer.
    ///
    /// A readable answer without a usable token is the provider's mistake: nothing is stored and it counts as
    /// passing (fact sheet D.4), unless the call has spent a token for it ([`Self::spoils_tokens`]).
    pub fn into_token_set(self, kind: CredentialKind, expiry: Expiry, refreshed: bool) -> Result<TokenSet, Failure> {
        let access = self.access_token.token("access_token_unusable")?;
        let access_token = access.ok_or(Failure::Transient { code: Code::own("access_token_missing") })?;
        let refresh_token = self.refresh_token.token("refresh_token_unusable")?;
        let renewable = refreshed || refresh_token.is_some();
        let refresh_life = [&self.refresh_token_expires_in, &self.refresh_expires_in, &self.x_refresh_token_expires_in];
        Ok(TokenSet {
            kind,
            access_token,
            token_type: token_type(&self.token_type),
            scopes: scopes(&self.scope),
            expires_in: life(&self.expires_in).or_else(|| assumed_life(expiry, renewable)),
            refresh_expires_in: refresh_life.into_iter().find_map(refresh_life_of),
            refresh_token,
            subject: None,
        })
    }
}

/// The scheme for the Authorization header. Slack writes whom the token acts as in this field.
fn token_type(value: &Value) -> String {
    let word = value.as_str().unwrap_or_default();
    let plain = !word.is_empty() && word.len() <= 32 && word.bytes().all(|b| b.is_ascii_alphanumeric());
    if !plain || ["bearer", "bot", "user"].iter().any(|known| word.eq_ignore_ascii_case(known)) {
        return "Bearer".to_owned();
    }
    word.to_owned()
}

/// Scopes as text with spaces or commas, or as a list. `None` when the answer does not say.
fn scopes(value: &Value) -> Option<Vec<String>> {
    let words: Vec<&str> = match value {
        Value::String(text) => text.split([' ', ',', '\t', '\n', '\r']).collect(),
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        _ => return None,
    };
    let mut scopes: Vec<String> = Vec::new();
    for word in words {
        let fits = !word.is_empty() && word.len() <= LONGEST_SCOPE && word.bytes().all(|b| b.is_ascii_graphic());
        if fits && scopes.len() < MOST_SCOPES && !scopes.iter().any(|known| known == word) {
            scopes.push(word.to_owned());
        }
    }
    Some(scopes)
}

/// Text or a whole number, as text: ids are written as either.
pub(super) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}

fn seconds(value: &Value) -> Option<f64> {
    let seconds = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    seconds.filter(|seconds| seconds.is_finite())
}

/// An access token's life in seconds, as number or text, clamped (fact sheet G.17).
fn life(value: &Value) -> Option<Duration> {
    let seconds = seconds(value)?;
    // A real but short life is kept; 0 and less are nonsense.
    let life = if seconds < 1.0 { SHORTEST_LIFE.as_secs_f64() } else { seconds.min(LONGEST_LIFE.as_secs_f64()) };
    Some(Duration::from_secs_f64(life.floor()))
}

/// A refresh token's life; 0 and less mean that it has no end of its own.
fn refresh_life_of(value: &Value) -> Option<Duration> {
    let seconds = seconds(value).filter(|seconds| *seconds >= 1.0)?;
    Some(Duration::from_secs_f64(seconds.min(10.0 * LONGEST_LIFE.as_secs_f64()).floor()))
}

fn assumed_life(expiry: Expiry, renewable: bool) -> Option<Duration> {
    match expiry {
        Expiry::Always(life) => Some(life),
        Expiry::WithRefreshToken(life) => renewable.then_some(life),
        Expiry::Never => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<TokenSet, Failure> {
        let raw = RawAnswer::parse(body.as_bytes());
        let raw = raw.ok_or(Failure::Ambiguous { code: Code::own("answer_unreadable") })?;
        raw.into_token_set(CredentialKind::User, Expiry::Always(Duration::from_secs(3600)), true)
    }

    #[test]
    fn lives_are_read_as_number_or_text_and_clamped() {
        let year = 365 * 86_400;
        let rows = [
            ("3599", 3599),
            ("3599.9", 3599),
            ("\"3599\"", 3599),
            ("\" 43200 \"", 43200),
            ("5", 5),
            ("0", 60),
            ("-1", 60),
            ("\"0\"", 60),
            ("1e18", year),
            ("18446744073709551615", year),
            ("1e308", year),
            ("null", 3600),
            ("\"soon\"", 3600),
            ("\"NaN\"", 3600),
            ("\"inf\"", 3600),
            ("true", 3600),
            ("[3599]", 3600),
            ("{}", 3600),
        ];
        for (text, wanted) in rows {
            let tokens = read(&format!(r#"{{"access_token":"a","expires_in":{text}}}"#)).expect(text);
            assert_eq!(tokens.expires_in, Some(Duration::from_secs(wanted)), "{text}");
        }
    }

    #[test]
    fn scopes_are_read_in_every_spelling() {
        let rows: [(&str, Option<&[&str]>); 8] = [
            (r#""a b""#, Some(&["a", "b"])),
            (r#""a,b, c""#, Some(&["a", "b", "c"])),
            (r#"["a","b",1]"#, Some(&["a", "b"])),
            (r#""b a b""#, Some(&["b", "a"])),
            (r#""""#, Some(&[])),
            ("null", None),
            ("7", None),
            (r#""a\u0000b c""#, Some(&["c"])),
        ];
        for (text, wanted) in rows {
            let tokens = read(&format!(r#"{{"access_token":"a","scope":{text}}}"#)).expect(text);
            let wanted = wanted.map(|list| list.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>());
            assert_eq!(tokens.scopes, wanted, "{text}");
        }
    }

    #[test]
    fn a_token_that_never_ends_is_one_that_came_without_a_refresh_token() {
        let parse = |body: &str| RawAnswer::parse(body.as_bytes()).expect("json");
        let expiry = Expiry::WithRefreshToken(Duration::from_secs(43_200));
        let life = |body, refreshed| {
            parse(body).into_token_set(CredentialKind::Bot, expiry, refreshed).expect("tokens").expires_in
        };
        assert_eq!(life(r#"{"access_token":"a"}"#, false), None);
        assert_eq!(life(r#"{"access_token":"a","refresh_token":"r"}"#, false), Some(Duration::from_secs(43_200)));
        assert_eq!(life(r#"{"access_token":"a"}"#, true), Some(Duration::from_secs(43_200)));
    }

    #[test]
    fn a_missing_refresh_token_is_absent_and_a_broken_one_is_an_error() {
        for absent in [r#""""#, "null"] {
            let tokens = read(&format!(r#"{{"access_token":"a","refresh_token":{absent}}}"#)).expect(absent);
            assert!(tokens.refresh_token.is_none(), "{absent}");
        }
        for broken in ["7", "[]", "{}", "true", r#""a b""#, r#""a\u0000""#] {
            let failure = read(&format!(r#"{{"access_token":"a","refresh_token":{broken}}}"#)).expect_err(broken);
            assert_eq!(failure, Failure::Transient { code: Code::own("refresh_token_unusable") }, "{broken}");
        }
    }

    #[test]
    fn a_refresh_tokens_own_end_is_read_from_each_known_field() {
        for field in ["refresh_token_expires_in", "refresh_expires_in", "x_refresh_token_expires_in"] {
            let tokens = read(&format!(r#"{{"access_token":"a","{field}":"604799"}}"#)).expect(field);
            assert_eq!(tokens.refresh_expires_in, Some(Duration::from_secs(604_799)), "{field}");
        }
        let tokens = read(r#"{"access_token":"a","refresh_expires_in":0}"#).expect("tokens");
        assert_eq!(tokens.refresh_expires_in, None);
    }

    #[test]
    fn a_form_is_read_where_it_can_be_nothing_else() {
        // fact sheet D.4
        let tokens = read("access_token=a%2Fb&expires_in=28800&refresh_token=r&scope=x%2Cy&token_type=bearer&x=1&x=2");
        let tokens = tokens.expect("tokens");
        assert_eq!((tokens.access_token.expose(), tokens.expires_in), ("a/b", Some(Duration::from_secs(28_800))));
        assert_eq!(tokens.refresh_token.as_ref().map(Secret::expose), Some("r"));
        assert_eq!(tokens.scopes, Some(vec!["x".to_owned(), "y".to_owned()]));
        let refused = RawAnswer::parse(b"error=bad_refresh_token&error_description=x").expect("a form");
        assert_eq!(refused.error_code(), Some("bad_refresh_token"));
        for other in [
            "",
            "ok",
            "a=b",
            "access_token",
            "access_token=",
            "<a href=?access_token=x>",
            "{access_token=a}",
            "access_token=a&access_token=b",
            "access_token=a&refresh_token=r&refresh_token=s",
            "error=a&error=b",
            "access_token=a b",
            "Sign in: ?access_token=a",
        ] {
            assert!(RawAnswer::parse(other.as_bytes()).is_none(), "{other}");
        }
    }

    #[test]
    fn a_byte_order_mark_before_the_object_is_ignored() {
        assert!(read("\u{feff}{\"access_token\":\"a\"}").is_ok());
    }

    #[test]
    fn the_scheme_is_bearer_whatever_slack_says() {
        for (text, wanted) in [("\"bot\"", "Bearer"), ("\"bearer\"", "Bearer"), ("7", "Bearer"), ("\"DPoP\"", "DPoP")] {
            let tokens = read(&format!(r#"{{"access_token":"a","token_type":{text}}}"#)).expect(text);
            assert_eq!(tokens.token_type, wanted, "{text}");
        }
    }
}
