//! The pages a person sees at the pretend Google and Slack: choose an account, tick scopes, allow or
//! deny. They are clearly labelled as a sandbox and wear no company's look.

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use url::form_urlencoded;

use super::state::{ACCOUNTS, Account, Provider, World};
use crate::clock::Millis;

/// How long a consent page may stay open: an hour.
const PAGE_LIFE: std::time::Duration = std::time::Duration::from_secs(3600);

/// A valid authorization request that waits for a person.
#[derive(Debug)]
pub(super) struct Pending {
    pub provider: Provider,
    pub client_id: String,
    /// Where the browser goes back to.
    pub redirect_uri: String,
    /// Whether the request named it, so that the exchange must repeat it.
    pub redirect_was_sent: bool,
    pub state: String,
    /// Google: the scopes. Slack: the bot scopes.
    pub scopes: Vec<String>,
    /// Slack only.
    pub user_scopes: Vec<String>,
    pub challenge: Option<String>,
    pub nonce: Option<String>,
    /// Google: `access_type=offline`.
    pub offline: bool,
    /// Google: `prompt` contains `consent`.
    pub consent_forced: bool,
    /// Google: `include_granted_scopes=true`.
    pub with_granted_scopes: bool,
    /// The account the request hinted at.
    pub hint: Option<&'static Account>,
    pub until: Millis,
}

/// What the person answered.
#[derive(Debug)]
pub(super) struct Decision {
    pub allowed: bool,
    pub account: &'static Account,
    pub ticked: Vec<String>,
}

/// Keeps the request and shows the page. `optional` are the scopes with a checkbox (A.3: granular consent).
pub(super) fn ask(world: &mut World, mut pending: Pending, optional: &[String]) -> Response {
    pending.until = world.now().after(PAGE_LIFE);
    let number = world.random_text();
    let page = consent_page(&number, &pending, optional);
    world.pending.insert(number, pending);
    html(StatusCode::OK, page)
}

/// Takes a pending request once, with what the form says.
///
/// The error is code and text of the page to show instead.
pub(super) fn decide(
    world: &mut World,
    provider: Provider,
    form: &[u8],
) -> Result<(Pending, Decision), (&'static str, &'static str)> {
    let (mut number, mut account, mut allowed, mut ticked) = (String::new(), None, None, Vec::new());
    for (name, value) in form_urlencoded::parse(form) {
        match name.as_ref() {
            "request" => number = value.into_owned(),
            "account" => account = Account::by_email(&value),
            "scope" => ticked.push(value.into_owned()),
            "decision" => allowed = Some(value == "allow"),
            _ => {}
        }
    }
    let (Some(account), Some(allowed)) = (account, allowed) else {
        return Err(("invalid_request", "Choose an account, then allow or deny."));
    };
    match world.pending.remove(&number) {
        Some(pending) if pending.provider == provider && pending.until > world.now() => {
            Ok((pending, Decision { allowed, account, ticked }))
        }
        _ => Err(("session_expired", "This page was already used or is too old.")),
    }
}

/// An error the provider shows itself, without sending the browser back (A.2).
pub(super) fn error_page(provider: Provider, code: &str, text: &str) -> Response {
    let body = format!(
        "<h1>Access blocked</h1><p data-vk=\"sandbox-error\">Error: {}</p><p>{}</p>",
        escaped(code),
        escaped(text)
    );
    html(StatusCode::BAD_REQUEST, page(provider, &body))
}

fn consent_page(number: &str, pending: &Pending, optional: &[String]) -> String {
    let chosen = pending.hint.unwrap_or(&ACCOUNTS[0]);
    let mut accounts = String::new();
    for account in &ACCOUNTS {
        let checked = if account == chosen { " checked" } else { "" };
        accounts.push_str(&format!(
            "<label><input type=\"radio\" name=\"account\" value=\"{0}\"{checked}> {1} ({0})</label>\n",
            account.email, account.name
        ));
    }
    let mut scopes = String::new();
    for scope in pending.scopes.iter().chain(&pending.user_scopes) {
        let name = escaped(scope);
        if optional.contains(scope) {
            scopes.push_str(&format!(
                "<label><input type=\"checkbox\" name=\"scope\" value=\"{name}\" checked> {name}</label>\n"
            ));
        } else {
            scopes.push_str(&format!("<p class=\"fixed\">{name}</p>\n"));
        }
    }
    let body = format!(
        "<h1>{client} wants access</h1>\n\
         <form method=\"post\" action=\"/consent\" name=\"consent\" data-vk=\"consent\">\n\
         <input type=\"hidden\" name=\"request\" value=\"{number}\">\n\
         <fieldset><legend>Account</legend>\n{accounts}</fieldset>\n\
         <fieldset><legend>May</legend>\n{scopes}</fieldset>\n\
         <button type=\"submit\" name=\"decision\" value=\"allow\" data-vk=\"allow\">Allow</button>\n\
         <button type=\"submit\" name=\"decision\" value=\"deny\" data-vk=\"deny\">Deny</button>\n</form>",
        client = escaped(&pending.client_id),
    );
    page(pending.provider, &body)
}

fn page(provider: Provider, body: &str) -> String {
    let title = format!("Pretend {provider:?} (sandbox)");
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:30rem;margin:2rem auto;padding:0 1rem}}\
         .sandbox{{background:#fff3c4;color:#3d2f00;border:1px dashed;padding:.5rem .75rem}}\
         fieldset{{border:1px solid #999;margin:1rem 0}}label{{display:block;padding:.3rem 0;overflow-wrap:anywhere}}\
         .fixed{{margin:.3rem 0;overflow-wrap:anywhere}}button{{font:inherit;padding:.5rem 1.25rem;margin-right:.5rem}}\
         </style></head>\n<body data-vk=\"sandbox\"><p class=\"sandbox\">{title}: nothing here is real, and no \
         request leaves this machine.</p>\n<main>{body}</main></body></html>\n"
    )
}

/// Text made safe for HTML content and for quoted attributes.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

fn html(status: StatusCode, body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    ];
    (status, headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_a_request_cannot_become_markup() {
        assert_eq!(escaped("<a href=\"'&"), "&lt;a href=&quot;&#39;&amp;");
    }
}
