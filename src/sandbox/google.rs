//! The pretend Google's front: the authorization request and its consent (providers.md A.1, A.2).
//!
//! A code carries a refresh token with it only with `access_type=offline` and only on the first consent or
//! with `prompt=consent`.

use std::collections::BTreeSet;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use axum::routing::{get, post};

use super::consent::{self, Pending};
use super::google_tokens::{self, Code};
use super::oauth::{self, CODE_LIFE, Params};
use super::state::{Account, Provider, Shared, World};
use crate::clock::Millis;

/// Where Google's long scope names begin.
const SCOPE_BASE: &str = "https://www.googleapis.com/auth/";

pub(super) fn router(shared: Shared) -> Router {
    Router::new()
        .route("/o/oauth2/v2/auth", get(authorize))
        .route("/consent", post(decide))
        .merge(google_tokens::routes())
        .merge(super::google_identity::routes())
        .merge(super::google_api::routes())
        .with_state(shared)
}

async fn authorize(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Response {
    let blocked = |code: &str, text: &str| consent::error_page(Provider::Google, code, text);
    let Ok(params) = Params::parse(query.unwrap_or_default().as_bytes()) else {
        return blocked("invalid_request", "A parameter came more than once.");
    };
    let mut world = shared.world();
    let Some(client) = params.get("client_id").and_then(|id| world.client(Provider::Google, id)) else {
        return blocked("invalid_client", "The OAuth client was not found.");
    };
    let Some(target) = params.get("redirect_uri").filter(|uri| client.redirect_uris.iter().any(|known| known == uri))
    else {
        return blocked("redirect_uri_mismatch", "The redirect URI is not registered for this client.");
    };
    // Google itself tolerates a request without state; the sandbox does not, because the house must not.
    let Some(state) = params.get("state") else {
        return blocked("invalid_request", "The sandbox wants a state parameter.");
    };
    let pending = match read_request(&params, target, state) {
        Ok(pending) => pending,
        Err((error, text)) => {
            return oauth::send_back(target, &[("error", error), ("error_description", text), ("state", state)]);
        }
    };
    if params.get("prompt") == Some("none") {
        return silently(&shared, &mut world, &pending);
    }
    let optional: Vec<String> = pending.scopes.iter().filter(|scope| !is_identity(scope)).cloned().collect();
    consent::ask(&mut world, pending, &optional)
}

/// Checks everything whose refusal goes back to the client's redirect URI.
fn read_request(params: &Params, target: &str, state: &str) -> Result<Pending, (&'static str, &'static str)> {
    if params.get("response_type") != Some("code") {
        return Err(("unsupported_response_type", "Only the code response type is accepted."));
    }
    let wanted = params.get("scope").ok_or(("invalid_request", "Missing required parameter: scope"))?;
    let scopes: Vec<String> = wanted.split(' ').filter(|scope| !scope.is_empty()).map(long_name).collect();
    if !scopes.iter().all(|scope| is_known(scope)) {
        return Err(("invalid_scope", "Some requested scopes were invalid."));
    }
    let offline = match params.get("access_type") {
        None | Some("online") => false,
        Some("offline") => true,
        Some(_) => return Err(("invalid_request", "Invalid access_type.")),
    };
    let prompts: Vec<&str> = params.get("prompt").unwrap_or("").split(' ').filter(|word| !word.is_empty()).collect();
    let understood = prompts.iter().all(|word| ["none", "consent", "select_account"].contains(word));
    if !understood || (prompts.contains(&"none") && prompts.len() > 1) {
        return Err(("invalid_request", "Invalid prompt."));
    }
    let challenge = oauth::read_challenge(params).map_err(|text| ("invalid_request", text))?;
    let hint = params.get("login_hint").and_then(|hint| {
        super::state::ACCOUNTS.iter().find(|account| account.email == hint || account.google_sub == hint)
    });
    Ok(Pending {
        provider: Provider::Google,
        client_id: params.get("client_id").unwrap_or_default().to_owned(),
        redirect_uri: target.to_owned(),
        redirect_was_sent: true,
        state: state.to_owned(),
        scopes,
        user_scopes: Vec::new(),
        challenge,
        nonce: params.get("nonce").map(str::to_owned),
        offline,
        consent_forced: prompts.contains(&"consent"),
        with_granted_scopes: params.get("include_granted_scopes") == Some("true"),
        hint,
        until: Millis::default(),
    })
}

/// `prompt=none`: without a page, for an account that the request names and that has granted everything.
fn silently(shared: &Shared, world: &mut World, pending: &Pending) -> Response {
    let back = |error: &str| oauth::send_back(&pending.redirect_uri, &[("error", error), ("state", &pending.state)]);
    let Some(account) = pending.hint else { return back("login_required") };
    let scopes: BTreeSet<String> = pending.scopes.iter().cloned().collect();
    if !has_granted(world, &pending.client_id, account, &scopes) {
        return back("consent_required");
    }
    send_code(shared, world, pending, account, scopes)
}

async fn decide(State(shared): State<Shared>, body: Bytes) -> Response {
    let mut world = shared.world();
    let (pending, decision) = match consent::decide(&mut world, Provider::Google, &body) {
        Ok(decided) => decided,
        Err((code, text)) => return consent::error_page(Provider::Google, code, text),
    };
    let kept: BTreeSet<String> =
        pending.scopes.iter().filter(|scope| is_identity(scope) || decision.ticked.contains(scope)).cloned().collect();
    if !decision.allowed || kept.is_empty() {
        return oauth::send_back(&pending.redirect_uri, &[("error", "access_denied"), ("state", &pending.state)]);
    }
    send_code(&shared, &mut world, &pending, decision.account, kept)
}

fn send_code(
    shared: &Shared,
    world: &mut World,
    pending: &Pending,
    account: &'static Account,
    mut scopes: BTreeSet<String>,
) -> Response {
    let first_time = !has_granted(world, &pending.client_id, account, &scopes);
    let grant = world.google.granted.entry((pending.client_id.clone(), account.google_sub)).or_default();
    grant.extend(scopes.iter().cloned());
    if pending.with_granted_scopes {
        scopes.clone_from(grant);
    }
    let named = google_tokens::joined(&scopes);
    let until = world.now().after(CODE_LIFE);
    let value = world.mint(Provider::Google, "code", "4/");
    let code = Code {
        client_id: pending.client_id.clone(),
        redirect_uri: pending.redirect_uri.clone(),
        challenge: pending.challenge.clone(),
        account,
        scopes,
        nonce: pending.nonce.clone(),
        with_refresh: pending.offline && (first_time || pending.consent_forced),
        until,
        used: None,
    };
    world.google.codes.insert(value.clone(), code);
    let issuer = shared.google_url.as_str().trim_end_matches('/');
    let pairs = [("state", pending.state.as_str()), ("iss", issuer), ("code", &value), ("scope", &named)];
    oauth::send_back(&pending.redirect_uri, &pairs)
}

fn has_granted(world: &World, client_id: &str, account: &Account, scopes: &BTreeSet<String>) -> bool {
    let granted = world.google.granted.get(&(client_id.to_owned(), account.google_sub));
    granted.is_some_and(|granted| granted.is_superset(scopes))
}

/// Identity scopes come back in their long form (A.3).
pub(super) fn long_name(scope: &str) -> String {
    match scope {
        "email" | "profile" => format!("{SCOPE_BASE}userinfo.{scope}"),
        other => other.to_owned(),
    }
}

pub(super) fn is_identity(scope: &str) -> bool {
    scope == "openid" || scope.strip_prefix(SCOPE_BASE).is_some_and(|rest| rest.starts_with("userinfo."))
}

fn is_known(scope: &str) -> bool {
    scope == "openid"
        || scope == "https://mail.google.com/"
        || scope.strip_prefix(SCOPE_BASE).is_some_and(|rest| {
            !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        })
}

#[cfg(test)]
mod tests {
    use super::super::oauth::challenge_of;
    use super::super::testing::{ADA, GRACE, REDIRECT, Street, VERIFIER, text};

    const CALENDAR: &str = "https://www.googleapis.com/auth/calendar.events";
    const MAIL: &str = "https://www.googleapis.com/auth/gmail.readonly";

    async fn refused(street: &Street, pairs: &[(&str, &str)]) -> (Option<String>, String) {
        let (_, page) = street.authorize(street.at_google("o/oauth2/v2/auth"), pairs).await;
        (page.location().and(page.query("error")), page.body)
    }

    #[tokio::test]
    async fn what_cannot_be_trusted_is_never_sent_back() {
        let street = Street::start().await;
        let good = [("response_type", "code"), ("scope", "openid")];
        for (wrong, code) in [
            (("client_id", "nobody"), "invalid_client"),
            (("redirect_uri", "http://127.0.0.1:9/oauth/callback/"), "redirect_uri_mismatch"),
            (("redirect_uri", "http://127.0.0.1:9/oauth/callback?x=1"), "redirect_uri_mismatch"),
            (("state", ""), "invalid_request"),
        ] {
            let (sent_back, body) = refused(&street, &[&good[..], &[wrong]].concat()).await;
            assert_eq!(sent_back, None, "{wrong:?}");
            assert!(body.contains(code), "{wrong:?}: {body}");
        }
    }

    #[tokio::test]
    async fn a_malformed_request_goes_back_with_an_error() {
        let street = Street::start().await;
        let challenge = challenge_of(VERIFIER);
        let cases: [(&[(&str, &str)], &str); 8] = [
            (&[("response_type", "token"), ("scope", "openid")], "unsupported_response_type"),
            (&[("response_type", "code")], "invalid_request"),
            (&[("response_type", "code"), ("scope", "openid,email")], "invalid_scope"),
            (&[("response_type", "code"), ("scope", "openid"), ("prompt", "login")], "invalid_request"),
            (&[("response_type", "code"), ("scope", "openid"), ("prompt", "none consent")], "invalid_request"),
            (&[("response_type", "code"), ("scope", "openid"), ("access_type", "forever")], "invalid_request"),
            (&[("response_type", "code"), ("scope", "openid"), ("code_challenge", &challenge)], "invalid_request"),
            (
                &[
                    ("response_type", "code"),
                    ("scope", "openid"),
                    ("code_challenge", &challenge),
                    ("code_challenge_method", "plain"),
                ],
                "invalid_request",
            ),
        ];
        for (pairs, error) in cases {
            assert_eq!(refused(&street, pairs).await.0.as_deref(), Some(error), "{pairs:?}");
        }
    }

    #[tokio::test]
    async fn a_person_unticks_a_scope_and_the_answer_says_so() {
        let street = Street::start().await;
        let scope = format!("openid email {CALENDAR} {MAIL}");
        let pairs = [("response_type", "code"), ("scope", scope.as_str()), ("access_type", "offline")];
        let (mut person, page) = street.authorize(street.at_google("o/oauth2/v2/auth"), &pairs).await;
        assert!(page.body.contains("Pretend Google (sandbox)"));
        let back = person.consent(true, GRACE, Some(&[MAIL])).await.expect("consent");
        assert_eq!(back.query("state").as_deref(), Some("s-1"));
        let code = back.query("code").expect("a code");
        let form = [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", REDIRECT)];
        let answer = street.google_token(&form).await.json;
        let granted: Vec<&str> = text(&answer, "scope").split(' ').collect();
        assert!(granted.contains(&MAIL) && !granted.contains(&CALENDAR), "{granted:?}");
        assert!(granted.contains(&"https://www.googleapis.com/auth/userinfo.email"), "identity scopes are long");
    }

    #[tokio::test]
    async fn denial_and_nothing_ticked_both_mean_access_denied() {
        let street = Street::start().await;
        let pairs = [("response_type", "code"), ("scope", MAIL)];
        for (allow, ticked) in [(false, None), (true, Some(&[][..]))] {
            let (mut person, _) = street.authorize(street.at_google("o/oauth2/v2/auth"), &pairs).await;
            let back = person.consent(allow, ADA, ticked).await.expect("consent");
            assert_eq!(back.query("error").as_deref(), Some("access_denied"));
            assert_eq!(back.query("code"), None);
        }
    }

    #[tokio::test]
    async fn a_consent_page_works_once_and_for_an_hour() {
        let street = Street::start().await;
        let pairs = [("response_type", "code"), ("scope", MAIL)];
        let (mut person, page) = street.authorize(street.at_google("o/oauth2/v2/auth"), &pairs).await;
        let number = page.forms()[0].fields[0].1.clone();
        person.consent(true, ADA, None).await.expect("consent");
        let form = [("request", number.as_str()), ("account", ADA), ("scope", MAIL), ("decision", "allow")];
        assert_eq!(street.post(street.at_google("consent"), &form).await.status, 400);
        let (mut person, _) = street.authorize(street.at_google("o/oauth2/v2/auth"), &pairs).await;
        street.pass(3600);
        assert_eq!(person.consent(true, ADA, None).await.expect("an answer").status, 400);
    }

    #[tokio::test]
    async fn a_refresh_token_comes_offline_on_first_consent_or_when_consent_is_forced() {
        let street = Street::start().await;
        let online = street.google_code(MAIL, &[]).await;
        assert!(street.google_exchange(&online).await.json["refresh_token"].is_string(), "offline, first consent");
        let again = street.google_code(MAIL, &[]).await;
        assert!(street.google_exchange(&again).await.json["refresh_token"].is_null(), "returning");
        let forced = street.google_code(MAIL, &[("prompt", "consent")]).await;
        assert!(street.google_exchange(&forced).await.json["refresh_token"].is_string(), "forced");

        let pairs = [("response_type", "code"), ("scope", CALENDAR), ("prompt", "consent")];
        let (mut person, _) = street.authorize(street.at_google("o/oauth2/v2/auth"), &pairs).await;
        let code = person.consent(true, ADA, None).await.expect("consent").query("code").expect("a code");
        let form = [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", REDIRECT)];
        assert!(street.google_token(&form).await.json["refresh_token"].is_null(), "online");
    }

    #[tokio::test]
    async fn prompt_none_answers_without_a_page_once_everything_is_granted() {
        let street = Street::start().await;
        let quiet = [("response_type", "code"), ("scope", MAIL), ("prompt", "none"), ("login_hint", ADA)];
        assert_eq!(refused(&street, &quiet[..3]).await.0.as_deref(), Some("login_required"));
        assert_eq!(refused(&street, &quiet).await.0.as_deref(), Some("consent_required"));
        street.google_connected(MAIL).await;
        let (_, page) = street.authorize(street.at_google("o/oauth2/v2/auth"), &quiet).await;
        assert!(page.query("code").is_some());
    }

    #[tokio::test]
    async fn earlier_scopes_join_in_when_asked_for() {
        let street = Street::start().await;
        street.google_connected(MAIL).await;
        let code = street.google_code(CALENDAR, &[("include_granted_scopes", "true")]).await;
        let answer = street.google_exchange(&code).await.json;
        assert!(text(&answer, "scope").contains(MAIL) && text(&answer, "scope").contains(CALENDAR));
        assert_eq!(street.google_code(CALENDAR, &[]).await.split("vkcanary").count(), 2, "codes carry the canary");
    }
}
