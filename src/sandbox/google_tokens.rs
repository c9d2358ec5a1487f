//! The pretend Google's tokens: exchange, refresh and revocation (providers.md A.3 to A.6).
//!
//! Refresh tokens never rotate; a code that comes twice ends its tokens; revoking anything ends every token
//! of that account at that client.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use axum::routing::post;
use http::{HeaderMap, header};
use serde_json::{Value, json};

use super::faults::{Bend, Place, answered};
use super::google::{is_identity, long_name};
use super::oauth::{self, Introduction, Params, Unknown};
use super::state::{ACCOUNTS, Account, Provider, Shared, World, json};
use crate::clock::Millis;

/// Live refresh tokens per account and client; the oldest falls off silently (A.4).
const REFRESH_TOKEN_LIMIT: usize = 100;

/// An unused refresh token dies after six months (A.4).
const UNUSED_LIFE: Duration = Duration::from_secs(182 * 86_400);
/// The grants of an app in Testing live seven days, except for those of nothing but an identity (A.4).
const TESTING_LIFE: Duration = Duration::from_secs(7 * 86_400);

/// What the pretend Google remembers.
#[derive(Default)]
pub(super) struct GoogleState {
    pub codes: BTreeMap<String, Code>,
    pub access: BTreeMap<String, Access>,
    refresh: BTreeMap<String, Refresh>,
    /// What each account has granted to each client.
    pub granted: BTreeMap<(String, &'static str), BTreeSet<String>>,
    /// Counts exchanges: every token knows which one it stems from.
    lineages: u64,
    /// Its apps are in Testing.
    pub testing: bool,
    /// Calendar entries that were added, by account.
    pub entries: BTreeMap<&'static str, Vec<Value>>,
}

/// A code that waits to be exchanged.
pub(super) struct Code {
    pub client_id: String,
    pub redirect_uri: String,
    pub challenge: Option<String>,
    pub account: &'static Account,
    pub scopes: BTreeSet<String>,
    pub nonce: Option<String>,
    pub with_refresh: bool,
    pub until: Millis,
    /// The lineage of the tokens it was exchanged for.
    pub used: Option<u64>,
}

/// An access token.
pub(super) struct Access {
    client_id: String,
    pub account: &'static Account,
    pub scopes: BTreeSet<String>,
    pub until: Millis,
    lineage: u64,
    revoked: bool,
}

impl Access {
    pub(super) fn is_live(&self, now: Millis) -> bool {
        !self.revoked && now < self.until
    }
}

struct Refresh {
    client_id: String,
    account: &'static Account,
    scopes: BTreeSet<String>,
    last_used: Millis,
    lineage: u64,
    until: Option<Millis>,
    revoked: bool,
}

impl GoogleState {
    /// Every access token issued so far counts as expired from now on.
    pub(super) fn expire_all(&mut self, now: Millis) {
        for token in self.access.values_mut() {
            token.until = token.until.min(now);
        }
    }

    /// Ends consents and tokens that `matches` accepts; returns how many tokens were still alive.
    pub(super) fn end_grants(&mut self, matches: impl Fn(&str, &Account) -> bool) -> usize {
        self.granted.retain(|(client, sub), _| {
            !ACCOUNTS.iter().any(|account| account.google_sub == *sub && matches(client, account))
        });
        let mut ended = 0;
        for token in self.access.values_mut().filter(|token| matches(&token.client_id, token.account)) {
            ended += usize::from(!std::mem::replace(&mut token.revoked, true));
        }
        for token in self.refresh.values_mut().filter(|token| matches(&token.client_id, token.account)) {
            ended += usize::from(!std::mem::replace(&mut token.revoked, true));
        }
        ended
    }

    fn end_lineage(&mut self, lineage: u64) {
        self.access.values_mut().filter(|token| token.lineage == lineage).for_each(|token| token.revoked = true);
        self.refresh.values_mut().filter(|token| token.lineage == lineage).for_each(|token| token.revoked = true);
    }

    fn keep_limit(&mut self, client_id: &str, account: &Account) {
        let mut live: Vec<&mut Refresh> = self
            .refresh
            .values_mut()
            .filter(|token| !token.revoked && token.client_id == client_id && token.account == account)
            .collect();
        live.sort_by_key(|token| token.lineage);
        let surplus = live.len().saturating_sub(REFRESH_TOKEN_LIMIT);
        live.into_iter().take(surplus).for_each(|token| token.revoked = true);
    }
}

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/token", post(token)).route("/revoke", post(revoke))
}

/// An error answer of the token and revocation endpoints (A.5).
struct Refusal(u16, &'static str, &'static str);

impl Refusal {
    fn into_answer(self, basic: bool) -> Response {
        let mut answer = json(self.0, &json!({"error": self.1, "error_description": self.2}));
        if self.0 == 401 && basic {
            let challenge = header::HeaderValue::from_static("Basic realm=\"sandbox\"");
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        answer
    }
}

async fn token(State(shared): State<Shared>, RawQuery(query): RawQuery, headers: HeaderMap, body: Bytes) -> Response {
    let params = match Params::parse(&body) {
        Ok(params) if oauth::is_type(&headers, "application/x-www-form-urlencoded") && query.is_none() => params,
        _ => {
            return Refusal(400, "invalid_request", "A form body with each parameter once is wanted.")
                .into_answer(false);
        }
    };
    let place = match params.get("grant_type") {
        Some("authorization_code") => Place::Code,
        Some("refresh_token") => Place::Refresh,
        _ => Place::OtherGrant,
    };
    let work = |world: &mut World, bend: Bend| {
        let introduction = match oauth::introduction(&headers, &params) {
            Ok(introduction) => introduction,
            Err(_) => return Refusal(400, "invalid_request", "Could not determine client ID.").into_answer(false),
        };
        let basic = introduction.basic;
        let done = known_client(world, &introduction).and_then(|()| match place {
            Place::Code => exchange(&shared, world, &introduction.id, &params, bend),
            Place::Refresh => refresh(&shared, world, &introduction.id, &params, bend),
            _ => Err(Refusal(400, "unsupported_grant_type", "Invalid grant_type.")),
        });
        done.map_or_else(|refusal| refusal.into_answer(basic), |answer| json(200, &answer))
    };
    answered(&shared, Provider::Google, place, work).await
}

fn known_client(world: &World, introduction: &Introduction) -> Result<(), Refusal> {
    match oauth::authenticate(world, Provider::Google, introduction) {
        Ok(_) => Ok(()),
        Err(Unknown::Client) => Err(Refusal(401, "invalid_client", "The OAuth client was not found.")),
        Err(_) => Err(Refusal(401, "invalid_client", "Unauthorized")),
    }
}

fn exchange(shared: &Shared, world: &mut World, id: &str, params: &Params, bend: Bend) -> Result<Value, Refusal> {
    let value = params.get("code").ok_or(Refusal(400, "invalid_request", "Missing required parameter: code"))?;
    let now = world.now();
    let state = &mut world.google;
    let malformed = Refusal(400, "invalid_grant", "Malformed auth code.");
    let Some(code) = state.codes.get_mut(value).filter(|code| code.client_id == id) else { return Err(malformed) };
    if let Some(lineage) = code.used {
        // RFC 6749 section 4.1.2: a code that comes twice ends what it was exchanged for.
        state.end_lineage(lineage);
        world.count(Provider::Google).reuses += 1;
        return Err(Refusal(400, "invalid_grant", "Bad Request"));
    }
    state.lineages += 1;
    let lineage = state.lineages;
    // Used from here on, also when one of the checks below fails.
    code.used = Some(lineage);
    if now >= code.until || params.get("redirect_uri") != Some(code.redirect_uri.as_str()) {
        return Err(Refusal(400, "invalid_grant", "Bad Request"));
    }
    match (&code.challenge, params.get("code_verifier")) {
        (None, None) => {}
        (Some(_), None) => return Err(Refusal(400, "invalid_grant", "Missing code verifier.")),
        (Some(challenge), Some(verifier))
            if oauth::is_verifier(verifier) && oauth::challenge_of(verifier) == *challenge => {}
        _ => return Err(Refusal(400, "invalid_grant", "Invalid code verifier.")),
    }
    let account = if bend.swap_subject { code.account.other() } else { code.account };
    let grant = Granted { account, scopes: bent(&code.scopes, bend), lineage, nonce: code.nonce.clone() };
    let with_refresh = code.with_refresh && !bend.no_refresh_token;
    let mut answer = access_answer(shared, world, id, &grant, bend);
    if with_refresh {
        let value = world.mint(Provider::Google, "refresh_token", "1//");
        answer["refresh_token"] = json!(value);
        let ends = world.google.testing && grant.scopes.iter().any(|scope| !is_identity(scope));
        if ends {
            answer["refresh_token_expires_in"] = json!(TESTING_LIFE.as_secs() - 1);
        }
        let token = Refresh {
            client_id: id.to_owned(),
            account,
            scopes: grant.scopes,
            last_used: now,
            lineage,
            until: ends.then(|| now.after(TESTING_LIFE)),
            revoked: false,
        };
        world.google.refresh.insert(value, token);
        world.google.keep_limit(id, account);
    }
    Ok(answer)
}

fn refresh(shared: &Shared, world: &mut World, id: &str, params: &Params, bend: Bend) -> Result<Value, Refusal> {
    let value = params.get("refresh_token").ok_or(Refusal(
        400,
        "invalid_request",
        "Missing required parameter: refresh_token",
    ))?;
    let now = world.now();
    let token = world.google.refresh.get_mut(value).ok_or(Refusal(400, "invalid_grant", "Bad Request"))?;
    if token.client_id != id {
        return Err(Refusal(401, "unauthorized_client", "Unauthorized"));
    }
    if token.revoked || now >= token.last_used.after(UNUSED_LIFE) || token.until.is_some_and(|until| now >= until) {
        return Err(Refusal(400, "invalid_grant", "Token has been expired or revoked."));
    }
    let mut scopes = token.scopes.clone();
    if let Some(narrowed) = params.get("scope") {
        let narrowed: BTreeSet<String> = narrowed.split_whitespace().map(long_name).collect();
        if !narrowed.is_subset(&scopes) {
            return Err(Refusal(400, "invalid_scope", "Bad Request"));
        }
        scopes = narrowed;
    }
    token.last_used = now;
    let account = if bend.swap_subject { token.account.other() } else { token.account };
    let grant = Granted { account, scopes: bent(&scopes, bend), lineage: token.lineage, nonce: None };
    world.count(Provider::Google).refreshes += 1;
    Ok(access_answer(shared, world, id, &grant, bend))
}

struct Granted {
    account: &'static Account,
    scopes: BTreeSet<String>,
    lineage: u64,
    nonce: Option<String>,
}

fn access_answer(shared: &Shared, world: &mut World, id: &str, grant: &Granted, bend: Bend) -> Value {
    let life = shared.lives.google;
    let now = world.now();
    let value = world.mint(Provider::Google, "access_token", "ya29.");
    let mut answer = json!({
        "access_token": value,
        "expires_in": bend.expires_in(life),
        "scope": joined(&grant.scopes),
        "token_type": "Bearer",
    });
    if grant.scopes.contains("openid") {
        let token = shared.signing.id_token(&shared.google_url, id, grant.account, grant.nonce.as_deref(), &value, now);
        answer["id_token"] = json!(token);
    }
    let token = Access {
        client_id: id.to_owned(),
        account: grant.account,
        scopes: grant.scopes.clone(),
        until: now.after(life),
        lineage: grant.lineage,
        revoked: false,
    };
    world.google.access.insert(value, token);
    answer
}

async fn revoke(State(shared): State<Shared>, RawQuery(query): RawQuery, body: Bytes) -> Response {
    let work = |world: &mut World, _: Bend| {
        // The documentation shows the token in the query, too (A.1).
        let form = Params::parse(&body).unwrap_or_default();
        let query = Params::parse(query.unwrap_or_default().as_bytes()).unwrap_or_default();
        let Some(value) = form.get("token").or_else(|| query.get("token")) else {
            return Refusal(400, "invalid_request", "Missing required parameter: token").into_answer(false);
        };
        let (now, state) = (world.now(), &mut world.google);
        let of_access = state.access.get(value).filter(|token| token.is_live(now));
        let of_refresh = state.refresh.get(value).filter(|token| !token.revoked);
        let found = of_access
            .map(|token| (token.client_id.clone(), token.account))
            .or_else(|| of_refresh.map(|token| (token.client_id.clone(), token.account)));
        let Some((client_id, account)) = found else {
            return Refusal(400, "invalid_token", "Token expired or revoked").into_answer(false);
        };
        // A.6: all scopes of the project, so every token of this account at this client.
        state.end_grants(|client, whose| client == client_id && whose == account);
        world.count(Provider::Google).revocations += 1;
        json(200, &json!({}))
    };
    answered(&shared, Provider::Google, Place::Revoke, work).await
}

/// The order of scopes is not stable (A.3); here it is the reverse of the alphabet.
pub(super) fn joined(scopes: &BTreeSet<String>) -> String {
    scopes.iter().rev().map(String::as_str).collect::<Vec<_>>().join(" ")
}

fn bent(scopes: &BTreeSet<String>, bend: Bend) -> BTreeSet<String> {
    let mut scopes = scopes.clone();
    if bend.fewer_scopes
        && let Some(lost) = scopes.iter().find(|scope| !is_identity(scope)).cloned()
    {
        scopes.remove(&lost);
    }
    scopes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{ADA, Answer, CLIENT, CLIENT_SECRET, REDIRECT, Street, VERIFIER, text};

    const MAIL: &str = "https://www.googleapis.com/auth/gmail.readonly";

    fn error(answer: &Answer) -> (u16, &str) {
        (answer.status, text(&answer.json, "error"))
    }

    async fn mail(street: &Street, token: &str) -> Answer {
        street.get(street.at_google("gmail/v1/users/me/messages"), token).await
    }

    async fn refresh(street: &Street, token: &str) -> Answer {
        street.google_token(&[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    }

    #[tokio::test]
    async fn a_code_is_bound_to_its_redirect_uri_and_its_verifier() {
        let street = Street::start().await;
        let other = "another-verifier-0123456789-0123456789-0123456789";
        let cases: [(&str, &[(&str, &str)]); 4] = [
            ("wrong verifier", &[("redirect_uri", REDIRECT), ("code_verifier", other)]),
            ("no verifier", &[("redirect_uri", REDIRECT)]),
            ("wrong redirect", &[("redirect_uri", "http://127.0.0.1:9/"), ("code_verifier", VERIFIER)]),
            ("no redirect", &[("code_verifier", VERIFIER)]),
        ];
        for (case, fields) in cases {
            let code = street.google_code(MAIL, &[]).await;
            let form = [&[("grant_type", "authorization_code"), ("code", code.as_str())], fields].concat();
            assert_eq!(error(&street.google_token(&form).await), (400, "invalid_grant"), "{case}");
            assert_eq!(error(&street.google_exchange(&code).await), (400, "invalid_grant"), "{case}: burnt");
        }
    }

    #[tokio::test]
    async fn a_reused_code_ends_the_tokens_it_was_exchanged_for() {
        let street = Street::start().await;
        let code = street.google_code(MAIL, &[]).await;
        let answer = street.google_exchange(&code).await.json;
        assert_eq!(mail(&street, text(&answer, "access_token")).await.status, 200);
        assert_eq!(error(&street.google_exchange(&code).await), (400, "invalid_grant"));
        assert_eq!(mail(&street, text(&answer, "access_token")).await.status, 401);
        assert_eq!(error(&refresh(&street, text(&answer, "refresh_token")).await), (400, "invalid_grant"));
        assert_eq!(street.counter("google", "reuses").await, 1);
    }

    #[tokio::test]
    async fn a_code_lives_ten_minutes() {
        let street = Street::start().await;
        let (late, early) = (street.google_code(MAIL, &[]).await, street.google_code(MAIL, &[]).await);
        street.pass(599);
        assert_eq!(street.google_exchange(&early).await.status, 200);
        street.pass(1);
        assert_eq!(error(&street.google_exchange(&late).await), (400, "invalid_grant"));
    }

    #[tokio::test]
    async fn clients_prove_themselves_by_basic_or_in_the_body_never_both() {
        let street = Street::start().await;
        let answer = street.google_connected(MAIL).await;
        let form = [("grant_type", "refresh_token"), ("refresh_token", text(&answer, "refresh_token"))];
        let post = |basic: bool, secret: &str, extra: &[(&str, &str)]| {
            let request = street.http.post(street.at_google("token"));
            let request = if basic { request.basic_auth(CLIENT, Some(secret)) } else { request };
            street.send(request.form(&[&form[..], extra].concat()))
        };
        assert_eq!(post(true, CLIENT_SECRET, &[]).await.expect("answer").status, 200);
        let wrong = post(true, "guess", &[]).await.expect("answer");
        assert_eq!(error(&wrong), (401, "invalid_client"));
        assert!(wrong.headers.contains_key("www-authenticate"), "RFC 6749 section 5.2");
        let both = post(true, CLIENT_SECRET, &[("client_secret", CLIENT_SECRET)]).await.expect("answer");
        assert_eq!(error(&both), (400, "invalid_request"));
        let nobody = post(false, "", &[("client_id", "nobody"), ("client_secret", "x")]).await.expect("answer");
        assert_eq!(error(&nobody), (401, "invalid_client"));
        assert_eq!(error(&post(false, "", &[]).await.expect("answer")), (400, "invalid_request"));
    }

    #[tokio::test]
    async fn refreshing_gives_a_new_access_token_and_keeps_the_refresh_token() {
        let street = Street::start().await;
        let first = street.google_connected(&format!("openid {MAIL}")).await;
        assert_eq!(first["expires_in"], json!(3600));
        let token = text(&first, "refresh_token");
        for _ in 0..2 {
            let answer = refresh(&street, token).await.json;
            assert!(answer["refresh_token"].is_null());
            assert_ne!(answer["access_token"], first["access_token"]);
            assert_eq!(mail(&street, text(&answer, "access_token")).await.status, 200);
        }
        assert_eq!(mail(&street, text(&first, "access_token")).await.status, 200, "the old one lives on");
        let form = [("grant_type", "refresh_token"), ("refresh_token", token), ("scope", "https://mail.google.com/")];
        assert_eq!(error(&street.google_token(&form).await), (400, "invalid_scope"), "widening");
        assert_eq!(street.counter("google", "refreshes").await, 2);
        assert_eq!(street.counter("google", "token_requests/refresh_token").await, 3);
    }

    #[tokio::test]
    async fn access_tokens_expire_with_the_clock_and_on_command() {
        let street = Street::start().await;
        let first = street.google_connected(MAIL).await;
        street.pass(3599);
        assert_eq!(mail(&street, text(&first, "access_token")).await.status, 200);
        street.pass(1);
        let gone = mail(&street, text(&first, "access_token")).await;
        assert_eq!(gone.status, 401);
        assert!(gone.headers["www-authenticate"].to_str().expect("text").contains("error=\"invalid_token\""));
        let second = refresh(&street, text(&first, "refresh_token")).await.json;
        street.tell("/expire", json!({"provider": "google"})).await;
        assert_eq!(mail(&street, text(&second, "access_token")).await.status, 401);
    }

    #[tokio::test]
    async fn revoking_an_access_token_ends_every_token_of_the_account_at_the_client() {
        let street = Street::start().await;
        let first = street.google_connected(MAIL).await;
        let forced = street.google_code(MAIL, &[("prompt", "consent")]).await;
        let second = street.google_exchange(&forced).await.json;
        let form = [("token", text(&first, "access_token"))];
        assert_eq!(street.post(street.at_google("revoke"), &form).await.status, 200);
        assert_eq!(error(&refresh(&street, text(&second, "refresh_token")).await), (400, "invalid_grant"));
        let again = street.post(street.at_google("revoke"), &form).await;
        assert_eq!(error(&again), (400, "invalid_token"), "already dead (A.6)");
        assert_eq!(street.counter("google", "revocations").await, 1);
    }

    #[tokio::test]
    async fn the_control_revokes_one_account_and_spares_the_others() {
        let street = Street::start().await;
        let answer = street.google_connected(MAIL).await;
        street.tell("/revoke", json!({"provider": "google", "account": "grace@example.com"})).await;
        assert_eq!(mail(&street, text(&answer, "access_token")).await.status, 200);
        street.tell("/revoke", json!({"provider": "google", "account": ADA})).await;
        assert_eq!(mail(&street, text(&answer, "access_token")).await.status, 401);
    }

    #[tokio::test]
    async fn the_hundred_and_first_refresh_token_ends_the_first() {
        let street = Street::start().await;
        let first = street.google_connected(MAIL).await;
        for number in 2..=101 {
            let code = street.google_code(MAIL, &[("prompt", "consent")]).await;
            assert!(street.google_exchange(&code).await.json["refresh_token"].is_string(), "{number}");
        }
        assert_eq!(error(&refresh(&street, text(&first, "refresh_token")).await), (400, "invalid_grant"));
    }

    #[tokio::test]
    async fn an_unused_refresh_token_dies_after_six_months() {
        let street = Street::start().await;
        let first = street.google_connected(MAIL).await;
        for _ in 0..2 {
            street.pass(181 * 86_400);
            assert_eq!(refresh(&street, text(&first, "refresh_token")).await.status, 200, "use keeps it alive");
        }
        street.pass(182 * 86_400);
        assert_eq!(error(&refresh(&street, text(&first, "refresh_token")).await), (400, "invalid_grant"));
    }
}
