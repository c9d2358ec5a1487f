//! The connections of one person: the list, one of them, and the question before disconnecting.

use askama::Template;

use super::{Frame, Health, Moment, Place, Provider, Scope, Start, Tone, Way, WebLink};

/// `GET /connections`: cards, and the tiles for connecting another account.
#[derive(Clone, Debug, Template)]
#[template(path = "pages/connections.html")]
pub struct ConnectionsPage {
    /// The common part.
    pub frame: Frame,
    /// The tenant's name as the person knows it.
    pub platform: String,
    /// What is connected or pending; may be empty.
    pub connections: Vec<ConnectionCard>,
    /// What can be connected; may be empty.
    pub available: Vec<AvailableProvider>,
}

/// One connection.
#[derive(Clone, Debug)]
pub struct ConnectionCard {
    /// `con_…`
    pub id: String,
    /// The provider.
    pub provider: Provider,
    /// The account's e-mail address, name or id at the provider, whichever is known first.
    pub account: String,
    /// A second line about the account: its name, workspace or bot.
    pub account_detail: Option<String>,
    /// The label given by the platform or the person.
    pub label: Option<String>,
    /// True for the one that is used when several accounts of the provider could be meant.
    pub is_default: bool,
    /// What was granted.
    pub scopes: Vec<Scope>,
    /// What agents need and was not granted.
    pub missing: Vec<Scope>,
    /// Whether reconnecting asks for some of it.
    pub asks_again: bool,
    /// How it is.
    pub health: Health,
    /// When it was connected.
    pub connected: Moment,
    /// The last use.
    pub last_used: Option<LastUse>,
    /// The last renewal.
    pub renewed: Option<Moment>,
    /// When the stored access runs out.
    pub expires: Option<Moment>,
}

/// The last use of a connection.
#[derive(Clone, Debug)]
pub struct LastUse {
    /// The agent's name or id.
    pub agent: String,
    /// When.
    pub at: Moment,
}

/// A provider that can be connected. Its tile leads to `/connections/connect/{provider}`.
#[derive(Clone, Debug)]
pub struct AvailableProvider {
    /// The provider.
    pub provider: Provider,
    /// How connecting goes; decides the sentence on the tile.
    pub way: Way,
}

impl AvailableProvider {
    /// What the person can expect, honestly.
    #[must_use]
    pub fn words(&self) -> String {
        match &self.way {
            Way::Consent => format!("Sign in at {} and choose what agents may do.", self.provider.name),
            Way::PlatformBot { .. } | Way::OwnBot { .. } => {
                "Bot messaging only: a bot can write to you. It cannot read your chats or act as you.".to_owned()
            }
        }
    }
}

impl ConnectionsPage {
    fn place(&self) -> Option<Place> {
        Some(Place::Connections)
    }

    /// One sentence that says whether anything is for the person to do.
    #[must_use]
    pub fn summary(&self) -> String {
        let waiting = |card: &&ConnectionCard| {
            card.health.wants_reconnect() || card.health.start().is_some_and(Start::is_persons_move)
        };
        match (self.connections.len(), self.connections.iter().filter(waiting).count()) {
            (0, _) => "Nothing is connected yet.".to_owned(),
            (1, 0) => "Your account is looked after. Nothing to do.".to_owned(),
            (all, 0) => format!("{all} accounts are looked after. Nothing to do."),
            (_, 1) => "One account needs you.".to_owned(),
            (_, some) => format!("{some} accounts need you."),
        }
    }
}

/// `GET /connections/{id}`. Posts to `/connections/{id}/reconnect` and `/connections/{id}/disconnect`.
#[derive(Clone, Debug, Template)]
#[template(path = "pages/connection.html")]
pub struct ConnectionPage {
    /// The common part.
    pub frame: Frame,
    /// The tenant's name as the person knows it.
    pub platform: String,
    /// The connection.
    pub card: ConnectionCard,
    /// Its credentials; at least one unless pending or disconnected.
    pub credentials: Vec<CredentialRow>,
    /// What happened lately, newest first; may be empty.
    pub history: Vec<HistoryEntry>,
}

/// One credential, without any secret.
#[derive(Clone, Debug)]
pub struct CredentialRow {
    /// `user`, `bot`, …
    pub kind: String,
    /// How it is.
    pub health: Health,
    /// The last renewal.
    pub renewed: Option<Moment>,
    /// When the stored access runs out; `None` when it does not.
    pub expires: Option<Moment>,
    /// True when other connections use the same credential (a Slack installation).
    pub shared: bool,
}

/// One line of the history.
#[derive(Clone, Debug)]
pub struct HistoryEntry {
    /// When.
    pub at: Moment,
    /// What, as a sentence of ours.
    pub words: String,
}

impl ConnectionPage {
    fn place(&self) -> Option<Place> {
        Some(Place::Connections)
    }
}

impl CredentialRow {
    /// What kind of key it is, in words.
    #[must_use]
    pub fn title(&self) -> String {
        match self.kind.as_str() {
            "user" => "Acting as you".to_owned(),
            "bot" => "Acting as the bot".to_owned(),
            other => other.to_owned(),
        }
    }
}

/// The question before disconnecting: the answer to `POST /connections/{id}/disconnect` without `confirmed=yes`.
/// Its form posts there again with it.
#[derive(Clone, Debug, Template)]
#[template(path = "pages/disconnect.html")]
pub struct DisconnectPage {
    /// The common part.
    pub frame: Frame,
    /// The connection.
    pub card: ConnectionCard,
    /// Conversations that use it at this moment.
    pub running_conversations: u32,
    /// What can be done at the provider.
    pub revocation: Revocation,
}

/// What disconnecting does at the provider.
#[derive(Clone, Debug)]
pub enum Revocation {
    /// We revoke the access there.
    AtProvider,
    /// Another connection uses the same grant, so we only stop using it here.
    StillShared,
    /// The provider has no way for us to revoke.
    OnlyHere {
        /// The provider's own page for removing access.
        removal_page: Option<WebLink>,
    },
}

impl DisconnectPage {
    fn place(&self) -> Option<Place> {
        Some(Place::Connections)
    }
}

#[cfg(test)]
pub(super) mod samples {
    use super::super::tests::{EVIL, LONG, RTL, end_user, google, moment, slack, telegram};
    use super::*;
    use crate::connections::{Need, Pause, Presser, Renewal, Trouble};
    use crate::http::pages::views::Notice;

    pub(crate) fn card() -> ConnectionCard {
        ConnectionCard {
            id: "con_0698k2g3t5m7r1n4b8q6v0c2d4".into(),
            provider: google(),
            account: "ada@example.com".into(),
            account_detail: Some("Ada Example".into()),
            label: Some("Work".into()),
            is_default: true,
            scopes: Scope::list(
                "google",
                [
                    "openid",
                    "email",
                    "https://www.googleapis.com/auth/calendar.events",
                    "https://www.googleapis.com/auth/gmail.readonly",
                ],
            ),
            missing: vec![],
            asks_again: false,
            health: Health::Working(Renewal::Automatic),
            connected: moment("2 May 2026"),
            last_used: Some(LastUse { agent: "Front desk".into(), at: moment("3 minutes ago") }),
            renewed: Some(moment("12 minutes ago")),
            expires: Some(moment("in 48 minutes")),
        }
    }

    fn slack_card() -> ConnectionCard {
        ConnectionCard {
            id: "con_slack".into(),
            provider: slack(),
            account: "Example Works".into(),
            account_detail: Some("ada in example-works.slack.com".into()),
            label: None,
            is_default: false,
            scopes: Scope::list("slack", ["chat:write", "channels:read", "search:read", "odd:new.scope"]),
            missing: Scope::list("slack", ["channels:history"]),
            asks_again: true,
            health: Health::NeedsYou(Need::AccessRefused),
            last_used: Some(LastUse { agent: "Stand-up notes".into(), at: moment("2 days ago") }),
            renewed: Some(moment("2 days ago")),
            expires: None,
            ..card()
        }
    }

    fn telegram_card() -> ConnectionCard {
        ConnectionCard {
            id: "con_tg".into(),
            provider: telegram(),
            account: "@acme_reminders_bot".into(),
            account_detail: None,
            label: None,
            is_default: false,
            scopes: vec![],
            missing: vec![],
            asks_again: false,
            health: Health::AwaitingStart(Start {
                connection: "con_tg".into(),
                bot: "@acme_reminders_bot".into(),
                link: WebLink::parse("https://t.me/acme_reminders_bot?start=k3Y"),
                pressed_by: None,
            }),
            connected: moment("just now"),
            last_used: None,
            renewed: None,
            expires: None,
        }
    }

    fn odd_card(health: Health) -> ConnectionCard {
        ConnectionCard {
            id: "con_odd".into(),
            provider: Provider::new("notion", EVIL),
            account: LONG.into(),
            account_detail: Some(RTL.into()),
            renewed: None,
            expires: matches!(health, Health::Working(Renewal::Impossible) | Health::Unsteady(_))
                .then(|| moment("in 48 minutes")),
            label: Some(EVIL.into()),
            health,
            last_used: Some(LastUse { agent: EVIL.into(), at: moment("just now") }),
            scopes: vec![Scope::of("notion", EVIL)],
            ..card()
        }
    }

    fn every_health() -> Vec<Health> {
        vec![
            Health::Working(Renewal::WhenUsed),
            Health::Working(Renewal::NoExpiry),
            Health::Working(Renewal::Impossible),
            Health::EndsSoon(moment("in 2 days")),
            Health::Unsteady(Trouble::Failing),
            Health::Unsteady(Trouble::InDoubt),
            Health::Unsteady(Trouble::ProviderTroubled),
            Health::Unsteady(Trouble::Damaged),
            Health::Unsteady(Trouble::Unrecognised),
            Health::Unsteady(Trouble::Busy),
            Health::NeedsYou(Need::AnswerLost),
            Health::NeedsYou(Need::Ended),
            Health::NeedsYou(Need::TakenBack),
            Health::NeedsYou(Need::AccountDisabled),
            Health::NeedsYou(Need::Blocked),
            Health::ReconnectAdvised,
            Health::NeedsYou(Need::ClientChanged),
            Health::Paused(Pause::Trouble(Trouble::Client)),
            Health::Paused(Pause::AnotherAccount),
            Health::Paused(Pause::Trouble(Trouble::Away)),
            Health::AwaitingStart(Start {
                connection: "con_odd".into(),
                bot: EVIL.into(),
                link: None,
                pressed_by: None,
            }),
            Health::AwaitingStart(Start {
                connection: "con_odd".into(),
                bot: EVIL.into(),
                link: WebLink::parse("https://t.me/acme_reminders_bot?start=k3Y"),
                pressed_by: Some(Presser::One { name: EVIL.into(), press: EVIL.into() }),
            }),
            Health::AwaitingStart(Start {
                connection: "con_odd".into(),
                bot: EVIL.into(),
                link: None,
                pressed_by: Some(Presser::Several),
            }),
            Health::Disconnected,
        ]
    }

    impl ConnectionsPage {
        pub(crate) fn samples() -> Vec<Self> {
            let available = vec![
                AvailableProvider { provider: google(), way: Way::Consent },
                AvailableProvider { provider: slack(), way: Way::Consent },
                AvailableProvider { provider: telegram(), way: Way::OwnBot { token_error: None } },
                AvailableProvider { provider: Provider::new("hubspot", "HubSpot"), way: Way::Consent },
            ];
            let full = Self {
                frame: end_user(),
                platform: "Acme Voice".into(),
                connections: vec![card(), slack_card(), telegram_card()],
                available,
            };
            let mut empty = Self { connections: vec![], ..full.clone() };
            empty.frame.notice = Some(Notice::DisconnectedUnconfirmed);
            let nothing = Self { connections: vec![], available: vec![], platform: EVIL.into(), ..full.clone() };
            let odd = Self {
                connections: every_health()
                    .into_iter()
                    .enumerate()
                    .map(|(index, health)| ConnectionCard { id: format!("con_{index}"), ..odd_card(health) })
                    .collect(),
                ..full.clone()
            };
            vec![full, empty, nothing, odd]
        }
    }

    impl ConnectionPage {
        pub(crate) fn samples() -> Vec<Self> {
            let key = |kind: &str, health: Health| CredentialRow {
                kind: kind.into(),
                renewed: matches!(health, Health::Working(Renewal::Automatic)).then(|| moment("12 minutes ago")),
                expires: matches!(health, Health::Working(Renewal::Automatic)).then(|| moment("in 48 minutes")),
                shared: kind == "bot",
                health,
            };
            let line = |at: &str, words: &str| HistoryEntry { at: moment(at), words: words.into() };
            let good = Self {
                frame: end_user(),
                platform: "Acme Voice".into(),
                card: card(),
                credentials: vec![key("user", Health::Working(Renewal::Automatic))],
                history: vec![
                    line("3 minutes ago", "Lent to Front desk for one conversation"),
                    line("12 minutes ago", "Renewed at Google"),
                    line("2 May 2026", "Connected by you"),
                ],
            };
            let broken = Self {
                card: slack_card(),
                credentials: vec![
                    key("user", Health::NeedsYou(Need::AccessRefused)),
                    key("bot", Health::Working(Renewal::NoExpiry)),
                ],
                ..good.clone()
            };
            let pending = Self { card: telegram_card(), credentials: vec![], history: vec![], ..good.clone() };
            let mut all = vec![good.clone(), broken, pending];
            all.extend(every_health().into_iter().map(|health| Self {
                credentials: vec![key(EVIL, health.clone())],
                history: vec![line(RTL, EVIL)],
                card: odd_card(health),
                ..good.clone()
            }));
            all
        }
    }

    impl DisconnectPage {
        pub(crate) fn samples() -> Vec<Self> {
            let first =
                Self { frame: end_user(), card: card(), running_conversations: 1, revocation: Revocation::AtProvider };
            let bot = Self {
                card: telegram_card(),
                running_conversations: 0,
                revocation: Revocation::OnlyHere { removal_page: None },
                ..first.clone()
            };
            let odd = Self {
                card: odd_card(Health::Unsteady(Trouble::Failing)),
                running_conversations: 3,
                revocation: Revocation::OnlyHere { removal_page: WebLink::parse("https://example.com/apps") },
                ..first.clone()
            };
            let shared = Self { card: slack_card(), revocation: Revocation::StillShared, ..first.clone() };
            vec![first, bot, odd, shared]
        }
    }
}
