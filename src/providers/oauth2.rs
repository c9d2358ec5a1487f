//! The requests that RFC 6749 and RFC 7009 describe, and the way from an answer to a token set or a failure.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use super::address::Address;
use super::answer::RawAnswer;
use super::descriptor::{ClientAuth, Descriptor, ResponseStyle, RevokeStyle, TokenBody};
use super::errors::{Code, Failure, classify};
use super::{Client, CodeGrant};
use crate::clock::Surroundings;
use crate::outbound::{Knock, Limits, Outbound, Request};
use crate::secret::Secret;

/// An answer, whatever its status.
pub(super) struct Answer {
    pub status: u16,
    pub body: Zeroizing<Vec<u8>>,
    /// From `Retry-After`, as seconds or date.
    pub after: Option<Duration>,
    /// From `Cache-Control: max-age`.
    pub max_age: Option<Duration>,
}

/// The street, as providers use it: one request, one answer.
#[derive(Clone)]
pub(super) struct Street {
    outbound: Outbound,
    around: Surroundings,
}

impl Street {
    pub fn new(outbound: Outbound, around: Surroundings) -> Self {
        Self { outbound, around }
    }

    pub fn around(&self) -> &Surroundings {
        &self.around
    }

    /// Sends one request, once. The answer is small or refused (64 KiB, fact sheet D.4).
    pub async fn send(&self, request: Request) -> Result<Answer, Failure> {
        self.send_with(request, Limits::token()).await
    }

    /// The same with other limits.
    pub async fn send_with(&self, request: Request, limits: Limits) -> Result<Answer, Failure> {
        let response = self.outbound.send(request.limits(limits)).await?;
        let after = response.retry_after(self.around.now());
        let max_age = response.header(&http::header::CACHE_CONTROL).and_then(max_age_of);
        Ok(Answer { status: response.status, body: response.body, after, max_age })
    }
}

fn max_age_of(cache_control: &str) -> Option<Duration> {
    let seconds = cache_control.split(',').find_map(|part| part.trim().strip_prefix("max-age="))?;
    seconds.parse::<u32>().ok().map(|seconds| Duration::from_secs(u64::from(seconds)))
}

/// Exchanges a code (RFC 6749 section 4.1.3, RFC 7636 section 4.5).
pub(super) async fn exchange(
    street: &Street,
    descriptor: &Descriptor,
    client: Client<'_>,
    grant: CodeGrant<'_>,
) -> Result<RawAnswer, Failure> {
    let url = address(descriptor.endpoints.token.as_ref(), client)?;
    let mut fields = vec![
        ("grant_type", Secret::new("authorization_code")),
        ("code", grant.code.duplicate()),
        ("redirect_uri", Secret::new(grant.redirect_uri)),
    ];
    if let Some(verifier) = grant.verifier {
        fields.push(("code_verifier", verifier.duplicate()));
    }
    fields.extend(descriptor.token_params.iter().map(|(name, value)| (name.as_str(), Secret::new(value.as_str()))));
    let answer = street.send(authenticated(Request::post(url), descriptor, client, fields)).await?;
    read(&answer, descriptor, true)
}

/// Refreshes a token (RFC 6749 section 6). No scope is sent, so that it stays as it was granted. Where there is a door the
/// token leaves when it is opened.
pub(super) async fn refresh(
    street: &Street,
    descriptor: &Descriptor,
    client: Client<'_>,
    refresh_token: &Secret,
    door: Option<Knock>,
) -> Result<RawAnswer, Failure> {
    let url = address(descriptor.endpoints.refresh(), client)?;
    let fields = vec![("grant_type", Secret::new("refresh_token")), ("refresh_token", refresh_token.duplicate())];
    let request = authenticated(Request::post(url), descriptor, client, fields);
    // Giving up on a rotating provider loses a token (DESIGN section 7, point 4).
    let limits = if descriptor.rotates() { Limits::slow_token() } else { Limits::token() };
    let answer = street.send_with(request.waits_at(door), limits).await?;
    read(&answer, descriptor, descriptor.rotates())
}

/// Exchanges a token that never ends for ones that rotate (fact sheet B.4).
pub(super) async fn exchange_lasting(
    street: &Street,
    descriptor: &Descriptor,
    client: Client<'_>,
    token: &Secret,
) -> Result<RawAnswer, Failure> {
    let beside = descriptor.lasting_exchange.as_deref().ok_or_else(no_endpoint)?;
    let url = address(descriptor.endpoints.token.as_ref(), client)?.join(beside).map_err(|_| no_endpoint())?;
    let request = authenticated(Request::post(url), descriptor, client, vec![("token", token.duplicate())]);
    read(&street.send(request).await?, descriptor, false)
}

/// A client asks for itself (RFC 6749 section 4.4.2).
pub(super) async fn client_credentials(
    street: &Street,
    descriptor: &Descriptor,
    client: Client<'_>,
    scopes: &[String],
) -> Result<RawAnswer, Failure> {
    let url = address(descriptor.endpoints.token.as_ref(), client)?;
    let mut fields = vec![("grant_type", Secret::new("client_credentials"))];
    if !scopes.is_empty() {
        fields.push(("scope", Secret::new(scopes.join(&descriptor.scopes.separator))));
    }
    let answer = street.send(authenticated(Request::post(url), descriptor, client, fields)).await?;
    read(&answer, descriptor, false)
}

/// An assertion asks (RFC 7523 section 2.1).
pub(super) async fn jwt_bearer(
    street: &Street,
    descriptor: &Descriptor,
    url: Url,
    assertion: Secret,
) -> Result<RawAnswer, Failure> {
    let kind = Secret::new("urn:ietf:params:oauth:grant-type:jwt-bearer");
    let request = Request::post(url).accept_json().form([("grant_type", kind), ("assertion", assertion)]);
    read(&street.send(request).await?, descriptor, false)
}

/// Shows one token to the provider, so that it ends it. One that was dead already counts as done.
pub(super) async fn revoke(
    street: &Street,
    descriptor: &Descriptor,
    client: Client<'_>,
    (token, hint): (&Secret, &'static str),
) -> Result<(), Failure> {
    let names = [("client_id", client.id), ("token", token.expose())];
    let url = descriptor.endpoints.revoke.as_ref().and_then(|address| address.with(client.variables, &names));
    let Some(url) = url.filter(|_| descriptor.revocable()) else {
        return Err(Failure::Admin { code: Code::own("not_revocable") });
    };
    let request = match descriptor.revoke.style {
        // With client authentication (RFC 7009 section 2.1).
        RevokeStyle::None | RevokeStyle::Rfc7009 => {
            let mut fields = vec![("token", token.duplicate())];
            // Where it is no form, it is not the RFC's either, and nobody knows of hints.
            if descriptor.token_body == TokenBody::Form {
                fields.push(("token_type_hint", Secret::new(hint)));
            }
            descriptor.api.beside(authenticated(Request::post(url), descriptor, client, fields))
        }
        RevokeStyle::Bearer => Request::post(url).bearer(token),
        RevokeStyle::DeletePath => Request::new(Method::DELETE, url),
        RevokeStyle::BasicJson => {
            let body = json!({ "access_token": token.expose() });
            Request::new(Method::DELETE, url).basic(client.id, client.secret).json(body)
        }
    };
    let answer = street.send(request.accept_json().on_own_connection()).await?;
    revoked(&answer, descriptor)
}

/// What came of a revocation. 200 is also RFC 7009's answer for a token that was dead; others have a word or a status for it (fact
/// sheet A.6, B.4, G.19).
fn revoked(answer: &Answer, descriptor: &Descriptor) -> Result<(), Failure> {
    let raw = RawAnswer::parse(&answer.body);
    let enveloped = descriptor.response_style == ResponseStyle::Slack;
    let success = (200..300).contains(&answer.status);
    if success && (!enveloped || raw.as_ref().is_some_and(|raw| raw.ok == Value::Bool(true))) {
        return Ok(());
    }
    let words = raw.as_ref().map(|raw| raw.error_words(&descriptor.error_fields)).unwrap_or_default();
    let says = |known: &[&str]| words.iter().any(|word| known.iter().any(|one| one.eq_ignore_ascii_case(word)));
    let gone = match descriptor.revoke.style {
        RevokeStyle::Rfc7009 => answer.status == 400 && says(&["invalid_token", "invalid_grant"]),
        RevokeStyle::Bearer if enveloped => success && says(&GONE_AT_SLACK),
        RevokeStyle::Bearer => answer.status == 401,
        RevokeStyle::DeletePath | RevokeStyle::BasicJson => [404, 410, 422].contains(&answer.status),
        RevokeStyle::None => false,
    };
    match answer.after {
        _ if gone => Ok(()),
        // RFC 7009 section 2.2.1: the token still exists, and may be tried again then.
        after @ Some(_) if answer.status == 503 => Err(Failure::RateLimited { after }),
        _ => Err(refusal(answer, raw.as_ref(), descriptor, false)),
    }
}

/// Answers of Slack's `auth.revoke` that mean the token was dead already (fact sheet B.4, B.5).
const GONE_AT_SLACK: [&str; 6] =
    ["token_revoked", "token_expired", "invalid_auth", "account_inactive", "not_authed", "invalid_refresh_token"];

fn address(address: Option<&Address>, client: Client<'_>) -> Result<Url, Failure> {
    address.and_then(|address| address.at(client.variables)).ok_or_else(no_endpoint)
}

fn authenticated(
    request: Request,
    descriptor: &Descriptor,
    client: Client<'_>,
    mut fields: Vec<(&str, Secret)>,
) -> Request {
    let mut request = request.accept_json();
    match descriptor.client_auth {
        // RFC 6749 section 2.3.1: both parts are form-encoded before they are joined.
        ClientAuth::Basic => {
            let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            let secret = Secret::new(encode(client.secret.expose()));
            request = request.basic(&encode(client.id), &secret);
        }
        ClientAuth::Post => {
            fields.push(("client_id", Secret::new(client.id)));
            fields.push(("client_secret", client.secret.duplicate()));
        }
    }
    match descriptor.token_body {
        TokenBody::Form => request.form(fields),
        TokenBody::Json => {
            let object = fields.iter().map(|(name, value)| ((*name).to_owned(), value.expose().into()));
            request.json(Value::Object(object.collect())).on_own_connection()
        }
    }
}

/// Turns an answer into a believed success or a failure. `spends`: the call may have spent a one-time token.
pub(super) fn read(answer: &Answer, descriptor: &Descriptor, spends: bool) -> Result<RawAnswer, Failure> {
    let raw = RawAnswer::parse(&answer.body);
    let success = (200..300).contains(&answer.status);
    // The provider may have done its part; what it said is lost (fact sheet D.4).
    let lost = || Err(Failure::Ambiguous { code: Code::own("answer_unreadable") });
    let Some(raw) = raw else { return if success { lost() } else { Err(refusal(answer, None, descriptor, spends)) } };
    let slack = descriptor.response_style == ResponseStyle::Slack;
    let said_no = slack && raw.ok != Value::Bool(true);
    // It has made tokens and says no in the same breath, or they are no tokens. The one that was sent for them may be
    // spent, and sending it again may end the family.
    let contradicts = (success && raw.spoils_tokens()) || ((said_no || answer.status >= 500) && raw.shows_tokens());
    // A field that says nothing (`"error": false`) takes nothing back.
    let says_no = raw.error_code().is_some_and(|code| !code.is_empty() || !raw.access_token.is_present());
    if spends && !says_no && contradicts {
        return lost();
    }
    // Some servers put an error into a 200 (fact sheet G.5).
    let error_instead = raw.error_code().is_some() && !raw.access_token.is_present();
    if !success || said_no || error_instead {
        return Err(refusal(answer, Some(&raw), descriptor, spends));
    }
    Ok(raw)
}

fn refusal(answer: &Answer, raw: Option<&RawAnswer>, descriptor: &Descriptor, spends: bool) -> Failure {
    let words = match raw {
        Some(raw) => {
            subtype(raw).map_or_else(|| raw.error_words(&descriptor.error_fields), |word| vec![word.to_owned()])
        }
        None => Vec::new(),
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    classify(&descriptor.errors, answer.status, &words, answer.after, spends)
}

/// Google's reason for an `invalid_grant` that an administrator's session length caused (fact sheet A.5).
fn subtype(raw: &RawAnswer) -> Option<&'static str> {
    let subtype = raw.error_subtype.as_str()?;
    ["invalid_rapt", "rapt_required"].contains(&subtype).then_some("session_policy")
}

pub(super) fn no_endpoint() -> Failure {
    Failure::Configuration { code: Code::own("no_endpoint") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::{CredentialKind, Expiry, catalogue};

    fn code(word: &'static str) -> Code {
        Code::own(word)
    }

    /// A rotating RFC 6749 provider, for which every unclear answer matters.
    fn rotating() -> Descriptor {
        let mut google = catalogue::known("google");
        google.rotation = crate::providers::Rotation::Always;
        google
    }

    fn outcome(status: u16, body: &[u8]) -> Result<(), Failure> {
        let answer = Answer { status, body: body.to_vec().into(), after: None, max_age: None };
        let raw = read(&answer, &rotating(), true)?;
        raw.into_token_set(CredentialKind::User, Expiry::Always(Duration::from_secs(3600)), true).map(|_| ())
    }

    #[test]
    fn garbage_answers_are_typed_failures_and_never_tokens() {
        // RL-10
        let unreadable = || Failure::Ambiguous { code: code("answer_unreadable") };
        let missing = || Failure::Transient { code: code("access_token_missing") };
        let http = |status| Failure::Unrecognised { code: Code::http(status) };
        let long = format!(r#"{{"access_token":"{}"}}"#, "a".repeat(20_000));
        let deep = format!("{}{}", "{\"a\":".repeat(500), "1");
        let rows: Vec<(u16, &[u8], Failure)> = vec![
            (200, b"", unreadable()),
            (200, b"   ", unreadable()),
            (204, b"", unreadable()),
            (200, b"<!doctype html><p>Sign in", unreadable()),
            (200, b"ok", unreadable()),
            (200, b"null", unreadable()),
            (200, b"true", unreadable()),
            (200, b"42", unreadable()),
            (200, b"\"ya29.token\"", unreadable()),
            (200, b"[]", unreadable()),
            (200, b"[\"ya29.token\"]", unreadable()),
            (200, b"[{\"access_token\":\"a\"}]", unreadable()),
            (200, b"{\"access_token\":\"ya29.tok", unreadable()),
            (200, b"{\"access_token\":\"a\"} trailing", unreadable()),
            (200, b"{\"access_token\":\"a\"}{\"access_token\":\"b\"}", unreadable()),
            (200, b"{\"access_token\":\"a\",\"access_token\":\"b\"}", unreadable()),
            (200, b"{\"access_token\":\"a\",\"refresh_token\":\"r\",\"refresh_token\":\"s\"}", unreadable()),
            (200, b"{\"access_token\":\"\xff\xfe\"}", unreadable()),
            (200, b"\x1f\x8b\x08\x00gzip", unreadable()),
            (200, b"access_token=a&access_token=b", unreadable()),
            (200, deep.as_bytes(), unreadable()),
            (200, b"{}", missing()),
            (200, b"{\"access_token\":null}", missing()),
            (200, b"{\"access_token\":\"\"}", missing()),
            (200, b"{\"refresh_token\":\"r\",\"expires_in\":3600}", unreadable()),
            (200, b"{\"access_token\":\"a\",\"refresh_token\":7}", unreadable()),
            (200, b"{\"token\":\"a\"}", missing()),
            (200, b"{\"ACCESS_TOKEN\":\"a\"}", missing()),
            (200, b"{\"access_token\":7}", unreadable()),
            (200, b"{\"access_token\":true}", unreadable()),
            (200, b"{\"access_token\":[\"a\"]}", unreadable()),
            (200, b"{\"access_token\":{\"value\":\"a\"}}", unreadable()),
            (200, b"{\"access_token\":\"a\\u0000b\"}", unreadable()),
            (200, b"{\"access_token\":\"a\\r\\nX-Evil: 1\"}", unreadable()),
            (200, b"{\"access_token\":\"a b\"}", unreadable()),
            (200, "{\"access_token\":\"\u{e9}\"}".as_bytes(), unreadable()),
            (200, long.as_bytes(), unreadable()),
            (200, b"{\"error\":\"invalid_grant\"}", Failure::Reauth { code: code("invalid_grant") }),
            (200, b"{\"error\":7}", Failure::Unrecognised { code: code("unlisted") }),
            (302, b"", http(302)),
            (400, b"", http(400)),
            (400, b"<html>", http(400)),
            (400, b"{}", http(400)),
            (400, b"{\"error\":\"<b>\"}", Failure::Unrecognised { code: code("unlisted") }),
            (401, b"", http(401)),
            (404, b"{\"access_token\":\"a\"}", http(404)),
            (500, b"{\"access_token\":\"a\"}", unreadable()),
            (502, b"<html>Bad gateway", Failure::ServerError { code: Code::http(502) }),
            (503, b"", Failure::ServerError { code: Code::http(503) }),
            (504, b"", Failure::ServerError { code: Code::http(504) }),
        ];
        assert!(rows.len() >= 30);
        for (status, body, wanted) in rows {
            let seen = outcome(status, body).expect_err("never a token");
            assert_eq!(seen, wanted, "{status} {:?}", String::from_utf8_lossy(&body[..body.len().min(60)]));
        }
    }

    #[test]
    fn a_token_that_is_none_leaves_a_doubt_only_where_the_sent_one_may_be_spent() {
        let answer =
            |body: &str| Answer { status: 200, body: body.as_bytes().to_vec().into(), after: None, max_age: None };
        for body in [r#"{"access_token":7}"#, r#"{"refresh_token":"r"}"#, r#"{"access_token":"a","refresh_token":[]}"#]
        {
            let failure = read(&answer(body), &rotating(), true).map(|_| ()).expect_err(body);
            assert_eq!(failure, Failure::Ambiguous { code: code("answer_unreadable") }, "{body}");
            let raw = read(&answer(body), &rotating(), false).expect("readable");
            let failure = raw.into_token_set(CredentialKind::User, Expiry::Never, true).map(|_| ()).expect_err(body);
            assert!(matches!(failure, Failure::Transient { .. }), "{body}: {failure}");
        }
    }

    #[test]
    fn unusual_but_honest_answers_are_accepted() {
        let rows: [&[u8]; 7] = [
            b"access_token=a&token_type=bearer",
            b"\xef\xbb\xbf{\"access_token\":\"a\"}",
            b" \r\n{\"access_token\":\"a\"}\n",
            b"{\"access_token\":\"a\",\"scope\":[\"x\"],\"expires_in\":\"3600\",\"new_field\":{\"x\":[1,2]}}",
            b"{\"access_token\":\"a\",\"error\":null}",
            b"{\"access_token\":\"a\",\"token_type\":null,\"refresh_token\":null}",
            b"{\"access_token\":\"a.b-c_d~e+f/g==\"}",
        ];
        for body in rows {
            assert_eq!(outcome(200, body), Ok(()), "{:?}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn a_cache_lifetime_is_read() {
        assert_eq!(max_age_of("public, max-age=19800, must-revalidate"), Some(Duration::from_secs(19_800)));
        assert_eq!(max_age_of("no-store"), None);
        assert_eq!(max_age_of("max-age=-1"), None);
    }
}
