//! The catalogue: what is known about each provider, as data, and how an operator changes it without a release: by a file in the
//! same form, which is laid over ours field by field, and by settings for single endpoints.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::{Format, Serialized, Toml};
use figment::value::Dict;
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::address::{Address, Variables};
use super::descriptor::{Broker, Descriptor, IdentitySource, Pkce, Replay, RevokeEnds, RevokeStyle, Rotation};
use super::id_token::ALGORITHMS;
use super::telegram;
use crate::config::ProviderSettings;

const OURS: &str = include_str!("catalogue.toml");
/// Fields that have one of several forms: an operator's replaces ours as a whole, since two forms at once are read as one of them.
const WHOLE: [&str; 3] = ["broker", "expiry", "replay"];

/// Providers that come first on pages, in this order; the others follow by name.
const FIRST: [&str; 3] = ["google", "slack", telegram::ID];

/// The settings do not fit the catalogue.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// Settings were given for a provider that is not in the catalogue.
    #[error("there is no provider named `{0}` in the catalogue; GET /v1/providers lists those there are")]
    UnknownProvider(String),
    /// A setting has a value that is not one of its values.
    #[error("the setting `{setting}` of provider `{provider}` must be {expected}")]
    BadSetting {
        /// The provider.
        provider: String,
        /// The setting's name.
        setting: &'static str,
        /// What it may be.
        expected: &'static str,
    },
    /// The operator's catalogue cannot be read.
    #[error("the catalogue {file} cannot be read")]
    File {
        /// Where it should be.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A row is not in the catalogue's form.
    #[error("the catalogue has a mistake: {0}")]
    Form(Box<figment::Error>),
    /// A row says things that do not go together.
    #[error("the catalogue's `{provider}` {mistake}")]
    Row {
        /// The provider.
        provider: String,
        /// What is wrong.
        mistake: String,
    },
}

/// The whole catalogue with the operator's file and overrides applied.
///
/// # Errors
/// When the file cannot be read, a row has a mistake, or an override names an unknown provider or has a value that does not fit.
pub(super) fn descriptors(
    file: Option<&Path>,
    overrides: &BTreeMap<String, ProviderSettings>,
) -> Result<Vec<Descriptor>, CatalogueError> {
    let form = |error| CatalogueError::Form(Box::new(error));
    let mut ours: BTreeMap<String, Dict> = ours()?;
    let mut theirs = String::new();
    if let Some(file) = file {
        theirs =
            std::fs::read_to_string(file).map_err(|source| CatalogueError::File { file: file.to_owned(), source })?;
    }
    let said: BTreeMap<String, Dict> = Figment::from(Toml::string(&theirs)).extract().map_err(form)?;
    for (id, said) in &said {
        if let Some(row) = ours.get_mut(id) {
            row.retain(|name, _| !(WHOLE.contains(&name.as_str()) && said.contains_key(name)));
        }
    }
    let figment = Figment::from(Serialized::defaults(ours)).merge(Toml::string(&theirs));
    let rows: BTreeMap<String, Descriptor> = figment.extract().map_err(form)?;
    let mut all: Vec<Descriptor> = rows.into_iter().map(|(id, row)| Descriptor { id, ..row }).collect();
    all.sort_by_key(|row| (FIRST.iter().position(|id| *id == row.id).unwrap_or(FIRST.len()), row.display_name.clone()));
    for row in &all {
        check(row).map_err(|mistake| CatalogueError::Row { provider: row.id.clone(), mistake })?;
    }
    for (id, settings) in overrides {
        let found = all.iter_mut().find(|one| one.id.eq_ignore_ascii_case(id));
        let descriptor = found.ok_or_else(|| CatalogueError::UnknownProvider(id.clone()))?;
        apply(descriptor, settings)?;
    }
    Ok(all)
}

fn ours<R: DeserializeOwned>() -> Result<BTreeMap<String, R>, CatalogueError> {
    Figment::from(Toml::string(OURS)).extract().map_err(|error| CatalogueError::Form(Box::new(error)))
}

/// Whether a row can stand in an operator's catalogue under this id, which is none of ours.
///
/// # Errors
/// The mistake.
pub(super) fn fits(id: &str, row: &impl Serialize) -> Result<(), CatalogueError> {
    let wrong = |mistake: String| CatalogueError::Row { provider: id.to_owned(), mistake };
    if ours::<Dict>()?.contains_key(id) {
        return Err(wrong("is in it already; choose another id".to_owned()));
    }
    let figment = Figment::from(Serialized::defaults(row));
    let row: Descriptor = figment.extract().map_err(|error| CatalogueError::Form(Box::new(error)))?;
    check(&Descriptor { id: id.to_owned(), ..row }).map_err(wrong)
}

/// What no type can say about a row.
fn check(row: &Descriptor) -> Result<(), String> {
    let id_fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if !(1..=32).contains(&row.id.len()) || !row.id.bytes().all(id_fits) {
        return Err("must have an id of 1 to 32 lower case letters, digits and underscores".to_owned());
    }
    for (name, variable) in &row.variables {
        if let Some(bad) = variable.default.iter().chain([&variable.example]).find(|value| !variable.accepts(value)) {
            return Err(format!("has a variable `{name}` that does not accept its own `{bad}`"));
        }
    }
    let ends = &row.endpoints;
    let examples = row.variables.iter().map(|(name, one)| (name.clone(), one.example.clone())).collect();
    let examples =
        Variables::new(&row.variables, examples).map_err(|name| format!("has a bad example for `{name}`"))?;
    let addresses = [&ends.authorize, &ends.token, &ends.refresh, &ends.revoke, &ends.userinfo, &ends.jwks];
    for address in addresses.into_iter().flatten().chain(ends.api.values()) {
        let filled = address.with(&examples, &[("client_id", "c"), ("token", "t")]);
        if filled.is_none_or(|url| url.scheme() != "https" || !url.has_host()) {
            return Err(format!("has an address {address:?} that is none, or names a variable that it does not have"));
        }
    }
    if let Some(other) = row.identity.algorithms.iter().find(|one| !ALGORITHMS.contains(one)) {
        return Err(format!("lets id_tokens be signed with {other:?}; RS256, ES256 and EdDSA are known"));
    }
    let asks = row.capabilities.oauth;
    let needs = [
        (asks && ends.authorize.is_none(), "endpoints.authorize"),
        (asks && ends.token.is_none(), "endpoints.token"),
        (row.revoke.style != RevokeStyle::None && ends.revoke.is_none(), "endpoints.revoke"),
        // Otherwise the token to be ended may be the one in use (fact sheet D.2, F1 and F2).
        (
            row.revoke.ends == RevokeEnds::TokenSet && row.rotation != Rotation::Always,
            "rotation = \"always\", since revoking ends a token set and no more",
        ),
        (asks && row.identity.source == IdentitySource::IdToken && ends.jwks.is_none(), "endpoints.jwks"),
        (asks && row.identity.source == IdentitySource::IdToken && ends.issuers.is_empty(), "endpoints.issuers"),
        (ends.names_issuer && ends.issuers.is_empty(), "endpoints.issuers"),
        (asks && row.identity.source == IdentitySource::Userinfo && ends.userinfo.is_none(), "endpoints.userinfo"),
        (asks && row.identity.source == IdentitySource::Userinfo && row.identity.id.is_empty(), "identity.id"),
        (row.identity.nonce_is_optional && row.pkce == Pkce::Off, "pkce, since its id_tokens may lack the nonce"),
        (ends.api.is_empty() && !matches!(row.broker, Broker::Only(_)), "endpoints.api"),
    ];
    match needs.iter().find(|(missing, _)| *missing) {
        Some((_, field)) => Err(format!("needs {field}")),
        None => Ok(()),
    }
}

/// Puts an operator's settings over a catalogue row.
fn apply(descriptor: &mut Descriptor, settings: &ProviderSettings) -> Result<(), CatalogueError> {
    let endpoints = &mut descriptor.endpoints;
    let replaced = |old: &mut Option<Address>, new: &Option<Url>| {
        if let Some(url) = new {
            *old = Some(url.clone().into());
        }
    };
    replaced(&mut endpoints.authorize, &settings.authorize_url);
    replaced(&mut endpoints.token, &settings.token_url);
    replaced(&mut endpoints.refresh, &settings.refresh_url);
    replaced(&mut endpoints.revoke, &settings.revoke_url);
    replaced(&mut endpoints.userinfo, &settings.userinfo_url);
    replaced(&mut endpoints.jwks, &settings.jwks_url);
    endpoints.api_override.clone_from(&settings.api_base_url);
    if let Some(issuer) = &settings.issuer {
        endpoints.issuers = vec![issuer.clone()];
    }
    let id = descriptor.id.clone();
    let bad = |setting, expected| CatalogueError::BadSetting { provider: id.clone(), setting, expected };
    if let Some(pkce) = &settings.pkce {
        let parsed = parse_pkce(pkce).ok_or_else(|| bad("pkce", "`off` or `s256`"))?;
        if parsed == Pkce::Off && descriptor.identity.nonce_is_optional {
            return Err(bad("pkce", "`s256`, since its id_tokens may lack the nonce"));
        }
        descriptor.pkce = parsed;
    }
    if let Some(replay) = &settings.replay {
        let parsed = parse_replay(replay);
        descriptor.replay = parsed.ok_or_else(|| bad("replay", "`safe`, `grace:<seconds>` or `unsafe`"))?;
    }
    Ok(())
}

fn parse_pkce(text: &str) -> Option<Pkce> {
    match text.trim().to_ascii_lowercase().as_str() {
        "off" => Some(Pkce::Off),
        "s256" => Some(Pkce::S256),
        _ => None,
    }
}

fn parse_replay(text: &str) -> Option<Replay> {
    match text.trim().to_ascii_lowercase().as_str() {
        "safe" => Some(Replay::Safe),
        "unsafe" => Some(Replay::Unsafe),
        other => {
            let seconds = other.strip_prefix("grace:")?.parse::<u32>().ok()?;
            Some(Replay::Grace(Duration::from_secs(u64::from(seconds))))
        }
    }
}

/// One row of our own catalogue.
#[cfg(test)]
pub(crate) fn known(id: &str) -> Descriptor {
    let mut all = descriptors(None, &BTreeMap::new()).expect("the catalogue").into_iter();
    all.find(|row| row.id == id).expect("a provider of the catalogue")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::Expiry;

    fn with(id: &str, settings: ProviderSettings) -> Result<Descriptor, CatalogueError> {
        let all = descriptors(None, &BTreeMap::from([(id.to_owned(), settings)]))?;
        Ok(all.into_iter().find(|row| row.id.eq_ignore_ascii_case(id)).expect("in the catalogue"))
    }

    /// The catalogue with this file laid over it.
    fn over(text: &str) -> Result<Vec<Descriptor>, CatalogueError> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        descriptors(Some(file.path()), &BTreeMap::new())
    }

    #[test]
    fn every_row_is_whole_and_its_pages_are_https() {
        let all = descriptors(None, &BTreeMap::new()).expect("the catalogue");
        assert_eq!(all.iter().take(3).map(|row| row.id.as_str()).collect::<Vec<_>>(), FIRST);
        assert!(all.iter().filter(|row| row.verified).count() >= 10, "those that tests look at");
        for one in all {
            let pages = [&one.docs_url, &one.removal_page];
            assert!(pages.iter().all(|page| Url::parse(page).is_ok_and(|url| url.scheme() == "https")), "{}", one.id);
        }
    }

    #[test]
    fn an_operator_changes_one_field_and_adds_a_provider_without_a_release() {
        let text = r#"
            [slack]
            replay = { grace = 20 }
            [acme]
            display_name = "Acme"
            docs_url = "https://acme.example/docs"
            identity = { source = "answer", id = ["/account"] }
            [acme.endpoints]
            authorize = "https://acme.example/authorize"
            token = "https://acme.example/token"
            api = { "" = "https://api.acme.example" }
        "#;
        let all = over(text).expect("valid");
        let row = |id: &str| all.iter().find(|row| row.id == id).expect("there");
        assert_eq!(row("slack").replay, Replay::Grace(Duration::from_secs(20)));
        assert_eq!(row("slack").expiry, known("slack").expiry, "everything else stays");
        assert_eq!(row("acme").replay, Replay::Unsafe, "nothing is assumed about a provider that nobody has looked at");
        assert!(!row("acme").verified);
    }

    #[test]
    fn a_form_of_the_operators_replaces_ours_as_a_whole() {
        let text = "[slack.broker]\nonly = { \"chat.postMessage\" = false }\n[google]\nexpiry = \"never\"";
        let all = over(text).expect("valid");
        let row = |id: &str| all.iter().find(|row| row.id == id).expect("there");
        assert!(matches!(&row("slack").broker, Broker::Only(list) if list.len() == 1), "{:?}", row("slack").broker);
        assert_eq!(row("google").expiry, Expiry::Never);
    }

    #[test]
    fn a_mistake_in_an_operators_catalogue_is_named() {
        let rows = [
            ("[slack]\nreplai = \"safe\"", "replai"),
            ("[slack]\nreplay = \"sometimes\"", "sometimes"),
            ("[slack.endpoints]\ntoken = \"http://slack.com/token\"", "must be an https address"),
            ("[slack.endpoints]\ntoken = \"https://{team}.slack.com\"", "`slack` has an address"),
            ("[acme]\ndisplay_name = \"Acme\"", "docs_url"),
            ("[Acme]\ndisplay_name = \"A\"\ndocs_url = \"https://a.example\"\n[Acme.endpoints]", "must have an id"),
            (
                "[acme]\ndisplay_name = \"A\"\ndocs_url = \"https://a.example\"\n[acme.endpoints]",
                "needs endpoints.authorize",
            ),
            (
                "[zendesk.variables]\nsubdomain = { kind = \"label\", example = \"a.b\" }",
                "does not accept its own `a.b`",
            ),
            ("[slack", "mistake"),
        ];
        for (text, wanted) in rows {
            let error = over(text).map(|_| ()).expect_err(text).to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
        let error =
            descriptors(Some(Path::new("/nowhere/catalogue.toml")), &BTreeMap::new()).map(|_| ()).expect_err("none");
        assert!(matches!(error, CatalogueError::File { .. }), "{error}");
    }

    #[test]
    fn each_endpoint_is_replaced_alone() {
        let token: Url = "http://127.0.0.1:4000/oauth2/token".parse().expect("url");
        let settings = ProviderSettings { token_url: Some(token.clone()), ..ProviderSettings::default() };
        let google = with("google", settings).expect("valid");
        let at = |address: Option<&Address>| address.and_then(|address| address.at(Variables::NONE));
        assert_eq!(at(google.endpoints.token.as_ref()), Some(token.clone()));
        assert_eq!(at(google.endpoints.refresh()), Some(token), "refreshing follows the token endpoint");
        let revoke = at(google.endpoints.revoke.as_ref()).expect("one");
        assert_eq!(revoke.host_str(), Some("oauth2.googleapis.com"));
    }

    #[test]
    fn an_issuer_override_leaves_no_other_issuer() {
        let settings = ProviderSettings { issuer: Some("http://127.0.0.1:4000".into()), ..ProviderSettings::default() };
        let google = with("google", settings).expect("valid");
        assert_eq!(google.endpoints.issuers, ["http://127.0.0.1:4000"]);
    }

    #[test]
    fn pkce_and_replay_have_a_closed_list_of_values() {
        let rows = [
            ("safe", Some(Replay::Safe)),
            ("UNSAFE", Some(Replay::Unsafe)),
            ("grace:90", Some(Replay::Grace(Duration::from_secs(90)))),
            ("grace:", None),
            ("grace:-1", None),
            ("grace:1.5", None),
            ("sometimes", None),
        ];
        for (text, wanted) in rows {
            assert_eq!(parse_replay(text), wanted, "{text}");
        }
        assert_eq!(parse_pkce("S256"), Some(Pkce::S256));
        let settings = ProviderSettings { pkce: Some("plain".into()), ..ProviderSettings::default() };
        let error = with("slack", settings).map(|_| ()).expect_err("plain does not exist (OA-06)");
        assert!(error.to_string().contains("`pkce` of provider `slack`"), "{error}");
    }

    #[test]
    fn settings_for_an_unknown_provider_are_refused_by_name() {
        let error = with("gogle", ProviderSettings::default()).map(|_| ()).expect_err("not in the catalogue");
        assert!(error.to_string().contains("`gogle`"), "{error}");
    }

    #[test]
    fn oa_11_a_wider_scope_does_what_a_narrower_one_does_and_not_the_other_way_round() {
        let list = |scopes: &[&str]| scopes.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        let (google, github) = (known("google"), known("github"));
        let (read, modify) =
            ("https://www.googleapis.com/auth/gmail.readonly", "https://www.googleapis.com/auth/gmail.modify");
        assert!(google.missing_scopes(&list(&[read, modify]), &list(&["https://mail.google.com/"])).is_empty());
        assert_eq!(google.missing_scopes(&list(&[read, modify]), &list(&[read])), [modify]);
        assert!(github.missing_scopes(&list(&["user:email", "repo:status"]), &list(&["repo", "user"])).is_empty());
        for one in [google, github] {
            for (wide, narrow) in &one.scopes.covers {
                for scope in narrow {
                    let of_scope = one.scopes.covers.get(scope);
                    assert!(!of_scope.is_some_and(|all| all.contains(wide)), "{wide} and {scope} include each other");
                    let all = of_scope.is_none_or(|all| all.iter().all(|each| narrow.contains(each)));
                    assert!(all, "{wide} includes what {scope} includes");
                }
            }
        }
    }

    #[test]
    fn scopes_are_compared_as_sets_with_their_other_spellings() {
        // OA-11
        let google = known("google");
        let list = |scopes: &[&str]| scopes.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        let granted = list(&["https://www.googleapis.com/auth/userinfo.email", "openid", "openid"]);
        assert!(google.missing_scopes(&list(&["openid", "email"]), &granted).is_empty());
        assert_eq!(google.missing_scopes(&list(&["email", "profile"]), &granted), ["profile"]);
        assert_eq!(
            google.scope_in_words("https://www.googleapis.com/auth/userinfo.email"),
            Some("See your e-mail address")
        );
        assert_eq!(google.scope_in_words("https://example.com/unknown"), None);
    }

    #[test]
    fn a_bots_take_over_methods_are_not_on_the_list() {
        let telegram = known("telegram");
        for name in ["setWebhook", "deleteWebhook", "getUpdates", "logOut", "close", "getFile", "forwardMessage"] {
            assert_eq!(telegram.carries_chat(name), None, "{name}");
        }
        assert_eq!(telegram.carries_chat("sendMessage"), Some(true));
        assert_eq!(telegram.carries_chat("getMe"), Some(false));
    }
}
