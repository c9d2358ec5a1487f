//! What is special about Slack's answers and calls (provider fact sheet B.3, B.4): up to two credentials in one answer, identity by
//! team and user, and a token that is also read from the body.

use std::collections::BTreeMap;

use serde_json::Value;

use super::answer::RawAnswer;
use super::api_call::ApiCall;
use super::descriptor::Descriptor;
use super::errors::{Code, Failure};
use super::id_token::displayable;
use super::{Account, CredentialKind, Exchange, TokenSet};

/// Both places of an installation's answer.
pub(super) fn installed(mut raw: RawAnswer, descriptor: &Descriptor) -> Result<Exchange, Failure> {
    let unknown = Failure::Unrecognised { code: Code::own("identity_missing") };
    let account_id = subject(&raw).filter(|id| id.contains('/')).ok_or(unknown)?;
    let name = raw.team.get("name").or_else(|| raw.enterprise.get("name")).and_then(Value::as_str);
    let account = Account { id: account_id, email: None, name: name.and_then(displayable) };
    let person = raw.authed_user.take();
    let mut tokens = Vec::new();
    if raw.access_token.is_present() {
        let kind = if raw.token_type == "user" { CredentialKind::User } else { CredentialKind::Bot };
        tokens.push(raw.into_token_set(kind, descriptor.expiry, false)?);
    }
    let has_user = tokens.iter().any(|one| one.kind == CredentialKind::User);
    if let Some(person) = person
        && person.access_token.is_present()
        && !has_user
    {
        tokens.push(person.into_token_set(CredentialKind::User, descriptor.expiry, false)?);
    }
    if tokens.is_empty() {
        return Err(Failure::Transient { code: Code::own("access_token_missing") });
    }
    for one in &mut tokens {
        one.subject = Some(account.id.clone());
    }
    Ok(Exchange { account, tokens, variables: BTreeMap::new(), chat: None })
}

pub(super) fn refreshed(
    mut raw: RawAnswer,
    descriptor: &Descriptor,
    kind: CredentialKind,
) -> Result<TokenSet, Failure> {
    let subject = subject(&raw);
    let person = raw.authed_user.take();
    let source = match person {
        Some(person) if !raw.access_token.is_present() && person.access_token.is_present() => *person,
        _ => raw,
    };
    let mut tokens = source.into_token_set(kind, descriptor.expiry, true)?;
    tokens.subject = subject;
    Ok(tokens)
}

/// `<team>/<user>`, `<enterprise>/<user>` for installations on a whole organisation (API.md section 6, point 2), or
/// the first part alone when the answer does not name the person.
fn subject(raw: &RawAnswer) -> Option<String> {
    let organisation = raw.is_enterprise_install == Value::Bool(true);
    let place = if organisation { raw.enterprise.get("id") } else { raw.team.get("id").or(Some(&raw.team_id)) };
    let place = place.and_then(id)?;
    let user = raw.authed_user.as_ref().and_then(|person| id(&person.id)).or_else(|| id(&raw.user_id));
    Some(user.map_or_else(|| place.to_owned(), |user| format!("{place}/{user}")))
}

fn id(value: &Value) -> Option<&str> {
    let plain = |id: &&str| (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    value.as_str().filter(plain)
}

/// The bot is one for a whole workspace, or organisation, whoever clicked (fact sheet B.4).
pub(super) fn shared_as(kind: CredentialKind, account_id: &str) -> Option<&str> {
    account_id.split_once('/').map(|(place, _)| place).filter(|_| kind == CredentialKind::Bot)
}

/// The bot belongs to the workspace, not to whoever clicked (fact sheet B.4), so for it the person does not count.
pub(super) fn same_account(kind: CredentialKind, account_id: &str, subject: &str) -> bool {
    let part = |text: &str| match text.split_once('/') {
        Some((team, user)) => (team.to_owned(), Some(user.to_owned())),
        None => (text.to_owned(), None),
    };
    let ((team, user), (seen_team, seen_user)) = (part(account_id), part(subject));
    team == seen_team && (kind == CredentialKind::Bot || seen_user.is_none() || user == seen_user)
}

/// Slack also reads a token from the body, and the vault's must be the only one.
pub(super) fn carries_token(call: &ApiCall<'_>) -> bool {
    let names = |name: &str| ["token", "client_secret"].contains(&name);
    let in_form = url::form_urlencoded::parse(&call.body).any(|(name, _)| names(&name));
    let in_json = serde_json::from_slice::<serde_json::Map<String, Value>>(&call.body)
        .is_ok_and(|object| object.keys().any(|name| names(name)));
    in_form || in_json || multipart_names_token(call)
}

fn multipart_names_token(call: &ApiCall<'_>) -> bool {
    let kind = call.headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.trim_start().to_ascii_lowercase().starts_with("multipart/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::api_call::AttachError;
    use crate::providers::catalogue;
    use crate::secret::Secret;
    use http::{HeaderMap, Method};
    use std::time::Duration;

    fn descriptor() -> Descriptor {
        catalogue::known("slack")
    }

    fn raw(body: &str) -> RawAnswer {
        RawAnswer::parse(body.as_bytes()).expect("json")
    }

    fn kinds(exchange: &Exchange) -> Vec<(CredentialKind, &str, Option<&str>)> {
        let row = exchange.tokens.iter();
        row.map(|one| (one.kind, one.access_token.expose(), one.refresh_token.as_ref().map(Secret::expose))).collect()
    }

    #[test]
    fn both_credentials_of_one_answer_are_found() {
        // fact sheet B.3
        let exchange =
            installed(
                raw(
                    r#"{"ok":true,"access_token":"xoxe.xoxb-1-EX","token_type":"bot","scope":"chat:write,channels:read",
                "expires_in":43200,"refresh_token":"xoxe-1-EXB","team":{"id":"T0TEAM","name":"Example"},
                "enterprise":null,"is_enterprise_install":false,"authed_user":{"id":"U0USER","scope":"search:read",
                "access_token":"xoxe.xoxp-1-EX","token_type":"user","expires_in":43200,"refresh_token":"xoxe-1-EXU"}}"#,
                ),
                &descriptor(),
            )
            .expect("two credentials");
        assert_eq!(exchange.account.id, "T0TEAM/U0USER");
        assert_eq!(exchange.account.name.as_deref(), Some("Example"));
        let (bot, user) = (CredentialKind::Bot, CredentialKind::User);
        assert_eq!(
            kinds(&exchange),
            [(bot, "xoxe.xoxb-1-EX", Some("xoxe-1-EXB")), (user, "xoxe.xoxp-1-EX", Some("xoxe-1-EXU"))]
        );
        assert_eq!(exchange.tokens[0].scopes.as_deref(), Some(&["chat:write".to_owned(), "channels:read".into()][..]));
        assert_eq!(exchange.tokens[1].expires_in, Some(Duration::from_secs(43_200)));
        assert!(exchange.tokens.iter().all(|one| one.token_type == "Bearer"));
    }

    #[test]
    fn answers_of_every_shape_give_the_right_credentials() {
        let (bot, user) = (CredentialKind::Bot, CredentialKind::User);
        let rows: [(&str, &str, &[CredentialKind]); 5] = [
            (
                r#"{"ok":true,"access_token":"b","token_type":"bot","team":{"id":"T1"},"authed_user":{"id":"U1"}}"#,
                "T1/U1",
                &[bot],
            ),
            (
                r#"{"ok":true,"team":{"id":"T1"},"authed_user":{"id":"U1","access_token":"u","token_type":"user"}}"#,
                "T1/U1",
                &[user],
            ),
            (
                r#"{"ok":true,"access_token":"u","token_type":"user","team":{"id":"T1"},"authed_user":{"id":"U1"}}"#,
                "T1/U1",
                &[user],
            ),
            (
                r#"{"ok":true,"access_token":"u","token_type":"user","team":{"id":"T1"},"authed_user":{"id":"U1","access_token":"u"}}"#,
                "T1/U1",
                &[user],
            ),
            (
                r#"{"ok":true,"access_token":"b","team":null,"enterprise":{"id":"E1","name":"Org"},"is_enterprise_install":true,"authed_user":{"id":"U1"}}"#,
                "E1/U1",
                &[bot],
            ),
        ];
        for (body, account, wanted) in rows {
            let exchange = installed(raw(body), &descriptor()).expect(body);
            assert_eq!(exchange.account.id, account, "{body}");
            assert_eq!(exchange.tokens.iter().map(|one| one.kind).collect::<Vec<_>>(), wanted, "{body}");
            assert_eq!(exchange.tokens[0].expires_in, None, "without rotation it never ends");
        }
    }

    #[test]
    fn an_answer_that_names_nobody_is_no_connection() {
        let rows = [
            (r#"{"ok":true,"access_token":"b","team":{"id":"T1"}}"#, "identity_missing"),
            (r#"{"ok":true,"access_token":"b","authed_user":{"id":"U1"}}"#, "identity_missing"),
            (r#"{"ok":true,"access_token":"b","team":{"id":"T/1"},"authed_user":{"id":"U1"}}"#, "identity_missing"),
            (r#"{"ok":true,"team":{"id":"T1"},"authed_user":{"id":"U1"}}"#, "access_token_missing"),
        ];
        for (body, wanted) in rows {
            let failure = installed(raw(body), &descriptor()).expect_err(body);
            assert_eq!(failure.code(), Code::own(wanted), "{body}");
        }
    }

    #[test]
    fn a_refresh_answer_carries_one_token_in_either_place() {
        let rows = [
            r#"{"ok":true,"access_token":"new","refresh_token":"r2","expires_in":43200,"token_type":"user"}"#,
            r#"{"ok":true,"authed_user":{"id":"U1","access_token":"new","refresh_token":"r2","expires_in":43200}}"#,
        ];
        for body in rows {
            let tokens = refreshed(raw(body), &descriptor(), CredentialKind::User).expect(body);
            assert_eq!(tokens.access_token.expose(), "new");
            assert_eq!(tokens.refresh_token.expect("rotated").expose(), "r2");
            assert_eq!(tokens.subject, None, "an answer without identity never quarantines");
        }
        let body = r#"{"ok":true,"access_token":"new","team":{"id":"T2"},"authed_user":{"id":"U1"}}"#;
        let tokens = refreshed(raw(body), &descriptor(), CredentialKind::User).expect(body);
        assert_eq!(tokens.subject.as_deref(), Some("T2/U1"));
    }

    #[test]
    fn a_bot_is_the_same_whoever_installed_it_and_a_person_is_not() {
        // OA-10
        let (bot, user) = (CredentialKind::Bot, CredentialKind::User);
        let rows = [
            (user, "T1/U1", "T1/U1", true),
            (user, "T1/U1", "T1/U2", false),
            (user, "T1/U1", "T2/U1", false),
            (user, "T1/U1", "T1", true),
            (bot, "T1/U1", "T1/U2", true),
            (bot, "T1/U1", "T2/U1", false),
        ];
        for (kind, account, subject, wanted) in rows {
            assert_eq!(same_account(kind, account, subject), wanted, "{kind:?} {account} {subject}");
        }
    }

    #[test]
    fn methods_that_end_or_mint_authorizations_are_refused() {
        let descriptor = descriptor();
        let headers = HeaderMap::new();
        let call = |path| ApiCall::new(Method::POST, path, &headers);
        for path in ["chat.postMessage", "users.info", "conversations.list", "files.getUploadURLExternal"] {
            assert_eq!(call(path).method_name(&descriptor), Ok(path));
        }
        for path in ["auth.revoke", "AUTH.Revoke", "oauth.v2.access", "apps.uninstall", "admin.users.list"] {
            assert_eq!(call(path).method_name(&descriptor), Err(AttachError::MethodNotAllowed), "{path}");
        }
        for path in ["", ".", "..", "chat..postMessage", "chat.postMessage/", "chat/postMessage", "a%2eb", "a?b", "a b"]
        {
            assert_eq!(call(path).method_name(&descriptor), Err(AttachError::Path), "{path}");
        }
    }

    #[test]
    fn a_tools_own_token_in_the_body_is_refused() {
        let mut headers = HeaderMap::new();
        let carries = |headers: &HeaderMap, body: &'static [u8]| {
            carries_token(&ApiCall {
                body: bytes::Bytes::from_static(body),
                ..ApiCall::new(Method::POST, "x", headers)
            })
        };
        assert!(carries(&headers, b"channel=C1&token=xoxb-evil"));
        assert!(carries(&headers, b"{\"channel\":\"C1\",\"token\":\"xoxb-evil\"}"));
        assert!(!carries(&headers, b"channel=C1&text=token"));
        assert!(!carries(&headers, b"{\"text\":\"token=abc\"}"));
        headers.insert(http::header::CONTENT_TYPE, "multipart/form-data; boundary=x".parse().expect("value"));
        assert!(carries(&headers, b"--x"), "a multipart body cannot be checked cheaply, so it does not go on");
    }
}
