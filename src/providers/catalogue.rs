//! The catalogue: what is known about each provider, as data, and how an operator's settings change it.
//!
//! Sources are the sections of the provider fact sheet named beside the rows.

use std::collections::BTreeMap;
use std::time::Duration;

use url::Url;

use super::descriptor::{
    BrokerMethod, BrokerMethods, Capabilities, ClientAuth, Descriptor, Endpoints, Expiry, Pkce, Replay, ResponseStyle,
    Rotation,
};
use crate::config::ProviderSettings;

/// The settings do not fit the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogueError {
    /// Settings were given for a provider that is not in the catalogue.
    #[error("there is no provider named `{0}`; the catalogue has google, slack and telegram")]
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
}

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// The whole catalogue with the operator's overrides applied.
///
/// # Errors
/// When an override names an unknown provider or has a value that does not fit.
pub(super) fn descriptors(
    overrides: &BTreeMap<String, ProviderSettings>,
) -> Result<(Descriptor, Descriptor, Descriptor), CatalogueError> {
    let mut all = [google(), slack(), telegram()];
    for (id, settings) in overrides {
        let found = all.iter_mut().find(|one| one.id.eq_ignore_ascii_case(id));
        let descriptor = found.ok_or_else(|| CatalogueError::UnknownProvider(id.clone()))?;
        apply(descriptor, settings)?;
    }
    let [google, slack, telegram] = all;
    Ok((google, slack, telegram))
}

/// Fact sheet A.1 (endpoints), A.3, A.4 (no rotation, six months unused), A.6, A.8 (why identity scopes).
fn google() -> Descriptor {
    Descriptor {
        id: "google",
        display_name: "Google",
        docs_url: "https://developers.google.com/identity/protocols/oauth2/web-server",
        capabilities: Capabilities {
            oauth: true,
            direct_kinds: &[],
            revocable: true,
            injectable: true,
            mid_call_refresh: true,
            user_scopes: false,
        },
        endpoints: Endpoints {
            authorize: Some(constant("https://accounts.google.com/o/oauth2/v2/auth")),
            token: Some(constant("https://oauth2.googleapis.com/token")),
            refresh: None,
            revoke: Some(constant("https://oauth2.googleapis.com/revoke")),
            userinfo: Some(constant("https://openidconnect.googleapis.com/v1/userinfo")),
            jwks: Some(constant("https://www.googleapis.com/oauth2/v3/certs")),
            issuers: vec!["https://accounts.google.com".to_owned(), "accounts.google.com".to_owned()],
            api_bases: vec![
                ("gmail", constant("https://gmail.googleapis.com")),
                ("calendar", constant("https://www.googleapis.com")),
                ("drive", constant("https://www.googleapis.com")),
                ("tasks", constant("https://tasks.googleapis.com")),
            ],
            api_base_override: None,
        },
        scope_separator: ' ',
        pkce: Pkce::S256,
        client_auth: ClientAuth::Post,
        response_style: ResponseStyle::Rfc6749,
        rotation: Rotation::None,
        replay: Replay::Safe,
        expiry: Expiry::Always(HOUR),
        idle_expiry: Some(DAY.saturating_mul(180)),
        fixed_scopes: &["openid", "email"],
        scope_aliases: &[
            ("email", "https://www.googleapis.com/auth/userinfo.email"),
            ("profile", "https://www.googleapis.com/auth/userinfo.profile"),
        ],
        scope_words: GOOGLE_SCOPES,
        removal_page: "https://myaccount.google.com/connections",
        authorize_params: &[("access_type", "offline"), ("include_granted_scopes", "true")],
        broker_methods: BrokerMethods::Paths,
    }
}

/// Fact sheet B.1, B.2 (PKCE off), B.4 (rotation, unpublished short grace, twelve hours), B.5.
fn slack() -> Descriptor {
    Descriptor {
        id: "slack",
        display_name: "Slack",
        docs_url: "https://docs.slack.dev/authentication/installing-with-oauth",
        capabilities: Capabilities {
            oauth: true,
            direct_kinds: &[],
            revocable: true,
            injectable: true,
            mid_call_refresh: true,
            user_scopes: true,
        },
        endpoints: Endpoints {
            authorize: Some(constant("https://slack.com/oauth/v2/authorize")),
            token: Some(constant("https://slack.com/api/oauth.v2.access")),
            revoke: Some(constant("https://slack.com/api/auth.revoke")),
            issuers: vec!["https://slack.com".to_owned()],
            api_bases: vec![("", constant("https://slack.com/api"))],
            ..Endpoints::default()
        },
        scope_separator: ',',
        pkce: Pkce::Off,
        client_auth: ClientAuth::Basic,
        response_style: ResponseStyle::Slack,
        rotation: Rotation::Always,
        replay: Replay::Grace(Duration::from_secs(60)),
        expiry: Expiry::WithRefreshToken(HOUR.saturating_mul(12)),
        idle_expiry: None,
        fixed_scopes: &[],
        scope_aliases: &[],
        scope_words: SLACK_SCOPES,
        removal_page: "https://slack.com/apps/manage",
        authorize_params: &[],
        // A tool that could call these would end, move or mint authorizations behind the vault's back.
        broker_methods: BrokerMethods::AllBut(&[
            "oauth.*",
            "openid.*",
            "admin.*",
            "auth.revoke",
            "apps.uninstall",
            "apps.connections.open",
            "apps.manifest.*",
            "tooling.tokens.rotate",
        ]),
    }
}

/// Fact sheet C.4 and C.7: a bot token has no expiry, no scopes, no refresh and no revocation.
fn telegram() -> Descriptor {
    Descriptor {
        id: "telegram",
        display_name: "Telegram (bot messaging)",
        docs_url: "https://core.telegram.org/bots/api",
        capabilities: Capabilities {
            oauth: false,
            direct_kinds: &["bot_token"],
            revocable: false,
            injectable: false,
            mid_call_refresh: false,
            user_scopes: false,
        },
        endpoints: Endpoints { api_bases: vec![("", constant("https://api.telegram.org"))], ..Endpoints::default() },
        scope_separator: ' ',
        pkce: Pkce::Off,
        client_auth: ClientAuth::Post,
        response_style: ResponseStyle::Rfc6749,
        rotation: Rotation::None,
        replay: Replay::Safe,
        expiry: Expiry::Never,
        idle_expiry: None,
        fixed_scopes: &[],
        scope_aliases: &[],
        scope_words: &[],
        removal_page: "https://t.me/BotFather",
        authorize_params: &[],
        broker_methods: BrokerMethods::Only(TELEGRAM_METHODS),
    }
}

const fn to_chat(name: &'static str) -> BrokerMethod {
    BrokerMethod { name, carries_chat: true }
}

/// What a tool may do with a bot (fact sheet C.4). Left out on purpose: `setWebhook`, `deleteWebhook`, `getUpdates`,
/// `logOut`, `close` and `getFile` (take the bot over or give its token away), and the methods that read from a
/// second chat (`forwardMessage`, `copyMessage`).
const TELEGRAM_METHODS: &[BrokerMethod] = &[
    BrokerMethod { name: "getMe", carries_chat: false },
    to_chat("getChat"),
    to_chat("sendMessage"),
    to_chat("sendPhoto"),
    to_chat("sendAudio"),
    to_chat("sendDocument"),
    to_chat("sendVideo"),
    to_chat("sendAnimation"),
    to_chat("sendVoice"),
    to_chat("sendLocation"),
    to_chat("sendVenue"),
    to_chat("sendContact"),
    to_chat("sendPoll"),
    to_chat("sendChatAction"),
    to_chat("editMessageText"),
    to_chat("editMessageCaption"),
    to_chat("editMessageReplyMarkup"),
    to_chat("deleteMessage"),
];

const GOOGLE_SCOPES: &[(&str, &str)] = &[
    ("openid", "Know which Google account you use"),
    ("email", "See your e-mail address"),
    ("profile", "See your name and picture"),
    ("https://www.googleapis.com/auth/calendar", "See, change and delete all your calendars"),
    ("https://www.googleapis.com/auth/calendar.readonly", "See your calendars"),
    ("https://www.googleapis.com/auth/calendar.events", "See, make, change and delete your events"),
    ("https://www.googleapis.com/auth/calendar.events.readonly", "See your events"),
    ("https://www.googleapis.com/auth/calendar.freebusy", "See when you are free or busy"),
    ("https://mail.google.com/", "Read, write, send and delete all your mail"),
    ("https://www.googleapis.com/auth/gmail.readonly", "Read your mail"),
    ("https://www.googleapis.com/auth/gmail.metadata", "See senders, subjects and labels of your mail, not the text"),
    ("https://www.googleapis.com/auth/gmail.send", "Send mail as you"),
    ("https://www.googleapis.com/auth/gmail.compose", "Write drafts and send mail as you"),
    (
        "https://www.googleapis.com/auth/gmail.modify",
        "Read, write, send and sort your mail, without deleting it for good",
    ),
    ("https://www.googleapis.com/auth/gmail.labels", "See and change your mail labels"),
    ("https://www.googleapis.com/auth/drive", "See, change and delete all your Drive files"),
    ("https://www.googleapis.com/auth/drive.readonly", "See all your Drive files"),
    ("https://www.googleapis.com/auth/drive.file", "See and change only the Drive files you open with this app"),
    ("https://www.googleapis.com/auth/drive.metadata.readonly", "See names and details of your Drive files"),
    ("https://www.googleapis.com/auth/tasks", "See, make, change and delete your tasks"),
    ("https://www.googleapis.com/auth/tasks.readonly", "See your tasks"),
    ("https://www.googleapis.com/auth/contacts", "See, change and delete your contacts"),
    ("https://www.googleapis.com/auth/contacts.readonly", "See your contacts"),
    ("https://www.googleapis.com/auth/spreadsheets", "See, change and delete your spreadsheets"),
    ("https://www.googleapis.com/auth/documents", "See, change and delete your documents"),
];

const SLACK_SCOPES: &[(&str, &str)] = &[
    ("chat:write", "Send messages"),
    ("chat:write.public", "Send messages to public channels without joining them"),
    ("channels:read", "See the list of public channels"),
    ("channels:history", "Read messages in public channels"),
    ("channels:join", "Join public channels"),
    ("channels:write", "Manage public channels"),
    ("groups:read", "See the list of private channels you are in"),
    ("groups:history", "Read messages in private channels you are in"),
    ("im:read", "See the list of your direct messages"),
    ("im:history", "Read your direct messages"),
    ("im:write", "Start direct messages"),
    ("mpim:read", "See the list of your group messages"),
    ("mpim:history", "Read your group messages"),
    ("users:read", "See the people in the workspace"),
    ("users:read.email", "See the e-mail addresses of people in the workspace"),
    ("users.profile:read", "See people's profiles"),
    ("users.profile:write", "Change your profile and status"),
    ("team:read", "See the workspace's name and domain"),
    ("search:read", "Search messages and files"),
    ("files:read", "See files"),
    ("files:write", "Upload, change and delete files"),
    ("reactions:read", "See emoji reactions"),
    ("reactions:write", "Add and remove emoji reactions"),
    ("reminders:read", "See your reminders"),
    ("reminders:write", "Make, change and delete reminders"),
    ("dnd:read", "See when people are not to be disturbed"),
    ("calls:write", "Start and manage calls"),
];

/// Puts an operator's settings over a catalogue row.
fn apply(descriptor: &mut Descriptor, settings: &ProviderSettings) -> Result<(), CatalogueError> {
    let endpoints = &mut descriptor.endpoints;
    let replaced = |old: &mut Option<Url>, new: &Option<Url>| {
        if new.is_some() {
            old.clone_from(new);
        }
    };
    replaced(&mut endpoints.authorize, &settings.authorize_url);
    replaced(&mut endpoints.token, &settings.token_url);
    replaced(&mut endpoints.refresh, &settings.refresh_url);
    replaced(&mut endpoints.revoke, &settings.revoke_url);
    replaced(&mut endpoints.userinfo, &settings.userinfo_url);
    replaced(&mut endpoints.jwks, &settings.jwks_url);
    replaced(&mut endpoints.api_base_override, &settings.api_base_url);
    if let Some(issuer) = &settings.issuer {
        endpoints.issuers = vec![issuer.clone()];
    }
    let id = descriptor.id;
    let bad = |setting, expected| CatalogueError::BadSetting { provider: id.to_owned(), setting, expected };
    if let Some(pkce) = &settings.pkce {
        let parsed = parse_pkce(pkce).ok_or_else(|| bad("pkce", "`off` or `s256`"))?;
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

#[expect(clippy::expect_used, reason = "constants that a test parses")]
fn constant(text: &'static str) -> Url {
    Url::parse(text).expect("a valid constant")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(id: &str, settings: ProviderSettings) -> Result<(Descriptor, Descriptor, Descriptor), CatalogueError> {
        descriptors(&BTreeMap::from([(id.to_owned(), settings)]))
    }

    #[test]
    fn every_catalogue_url_is_https() {
        let (google, slack, telegram) = descriptors(&BTreeMap::new()).expect("the catalogue");
        for one in [google, slack, telegram] {
            let e = &one.endpoints;
            let urls = [&e.authorize, &e.token, &e.refresh, &e.revoke, &e.userinfo, &e.jwks];
            let bases = e.api_bases.iter().map(|(_, url)| url);
            assert!(urls.into_iter().flatten().chain(bases).all(|url| url.scheme() == "https"), "{}", one.id);
            let pages = [one.docs_url, one.removal_page];
            assert!(pages.iter().all(|page| Url::parse(page).is_ok_and(|url| url.scheme() == "https")));
        }
    }

    #[test]
    fn each_endpoint_is_replaced_alone() {
        let token: Url = "http://127.0.0.1:4000/oauth2/token".parse().expect("url");
        let settings = ProviderSettings { token_url: Some(token.clone()), ..ProviderSettings::default() };
        let (google, ..) = with("google", settings).expect("valid");
        assert_eq!(google.endpoints.token, Some(token.clone()));
        assert_eq!(google.endpoints.refresh_url(), Some(&token), "refreshing follows the token endpoint");
        assert_eq!(google.endpoints.revoke.as_ref().and_then(Url::host_str), Some("oauth2.googleapis.com"));
    }

    #[test]
    fn an_issuer_override_leaves_no_other_issuer() {
        let settings = ProviderSettings { issuer: Some("http://127.0.0.1:4000".into()), ..ProviderSettings::default() };
        let (google, ..) = with("google", settings).expect("valid");
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
        let error = with("slack", settings).expect_err("plain does not exist (OA-06)");
        assert!(error.to_string().contains("`pkce` of provider `slack`"), "{error}");
    }

    #[test]
    fn settings_for_an_unknown_provider_are_refused_by_name() {
        let error = with("gogle", ProviderSettings::default()).expect_err("not in the catalogue");
        assert_eq!(error, CatalogueError::UnknownProvider("gogle".into()));
    }

    #[test]
    fn scopes_are_compared_as_sets_with_their_other_spellings() {
        // OA-11
        let (google, ..) = descriptors(&BTreeMap::new()).expect("the catalogue");
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
        let (.., telegram) = descriptors(&BTreeMap::new()).expect("the catalogue");
        for name in ["setWebhook", "deleteWebhook", "getUpdates", "logOut", "close", "getFile", "forwardMessage"] {
            assert_eq!(telegram.broker_method(name), None, "{name}");
        }
        assert!(telegram.broker_method("sendMessage").is_some_and(|method| method.carries_chat));
        assert!(telegram.broker_method("getMe").is_some_and(|method| !method.carries_chat));
    }
}
