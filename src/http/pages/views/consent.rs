//! What is asked before anybody goes to a provider: who asks, for whom, what exactly, and who will hold the key.
//!
//! The hosted link (`/connect/{token}`) and the signed-in page (`/connections/connect/{provider}`) show the same part.
//! Looking consumes nothing, since mail scanners open links; only the posted form does (WB-12).

use askama::Template;

use super::{Frame, Moment, Place, Provider, Scope, WebLink};

/// How an account comes to be connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The provider's own consent page.
    Consent,
    /// The platform's bot, which may write to the person after they pressed Start (Telegram).
    PlatformBot {
        /// The bot's name, with `@`.
        bot: String,
    },
    /// The person's own bot, by its token, posted as `bot_token` (Telegram).
    OwnBot {
        /// What was wrong with the token, when the form is shown again. The token itself is never shown again.
        token_error: Option<String>,
    },
}

impl Way {
    /// The value of the hidden field `way`: `consent`, `platform_bot` or `own_bot`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Consent => "consent",
            Self::PlatformBot { .. } => "platform_bot",
            Self::OwnBot { .. } => "own_bot",
        }
    }
}

/// One thing that can be agreed to. Its form posts `csrf`, `provider`, `way` and, for an own bot, `bot_token`.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The provider.
    pub provider: Provider,
    /// How connecting goes.
    pub way: Way,
    /// What will be asked for; empty for bots, which have no scopes.
    pub scopes: Vec<Scope>,
}

impl Offer {
    /// What can never happen with this connection, as sentences.
    #[must_use]
    pub fn never(&self) -> Vec<String> {
        let name = &self.provider.name;
        let is_bot = self.provider.id == "telegram";
        let own = match &self.way {
            Way::Consent if !is_bot => [
                format!("See your {name} password. You sign in at {name} itself."),
                format!("Do anything in {name} that is not listed above."),
            ],
            Way::Consent | Way::PlatformBot { .. } | Way::OwnBot { .. } => [
                "Read your chats.".to_owned(),
                format!("Write as you. {name} shows everything as coming from the bot."),
            ],
        };
        own.into_iter().chain(["Use it in anybody else’s conversation.".to_owned()]).collect()
    }
}

/// `GET /connect/{token}`: a one-time link of a platform. Its forms post to the same path with `data-vk="continue"`.
#[derive(Clone, Debug, Template)]
#[template(path = "pages/connect.html")]
pub struct ConnectPage {
    /// The common part; the viewer is usually nobody.
    pub frame: Frame,
    /// The link's token, for the forms' path.
    pub token: String,
    /// The tenant's name.
    pub platform: String,
    /// The user's display name, if the platform gave one.
    pub user_name: Option<String>,
    /// The tenant's own id of the user.
    pub user: String,
    /// What can be chosen; at least one.
    pub offers: Vec<Offer>,
    /// Where the person goes back to.
    pub returns_to: Option<WebLink>,
    /// Until when the link works.
    pub expires: Moment,
}

/// `GET /connections/connect/{provider}`: the same for a signed-in user. Its forms post to the same path with
/// `data-vk="continue"` (or `connect` for a bot token).
#[derive(Clone, Debug, Template)]
#[template(path = "pages/preview.html")]
pub struct PreviewPage {
    /// The common part.
    pub frame: Frame,
    /// The tenant's name.
    pub platform: String,
    /// The provider.
    pub provider: Provider,
    /// What can be chosen; at least one, all of the same provider.
    pub offers: Vec<Offer>,
    /// The connection that is made anew: its id (hidden field `connection`) and its account.
    pub reconnects: Option<(String, String)>,
}

impl ConnectPage {
    fn action(&self) -> String {
        format!("/connect/{}", segment(&self.token))
    }

    fn connection(&self) -> Option<&str> {
        None
    }
}

impl PreviewPage {
    fn place(&self) -> Option<Place> {
        Some(Place::Connections)
    }

    fn action(&self) -> String {
        format!("/connections/connect/{}", segment(&self.provider.id))
    }

    fn connection(&self) -> Option<&str> {
        self.reconnects.as_ref().map(|(id, _)| id.as_str())
    }
}

/// `text` as one segment of a path.
fn segment(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

#[cfg(test)]
mod samples {
    use super::super::tests::{EVIL, LONG, RTL, end_user, google, moment, nobody, slack, telegram};
    use super::*;

    fn google_offer() -> Offer {
        Offer {
            provider: google(),
            way: Way::Consent,
            scopes: Scope::list(
                "google",
                [
                    "openid",
                    "email",
                    "https://www.googleapis.com/auth/calendar.events",
                    "https://www.googleapis.com/auth/gmail.readonly",
                ],
            ),
        }
    }

    fn bot(way: Way) -> Offer {
        Offer { provider: telegram(), way, scopes: vec![] }
    }

    impl ConnectPage {
        pub(crate) fn samples() -> Vec<Self> {
            let one = Self {
                frame: nobody(),
                token: "b25jZQ".into(),
                platform: "Acme Voice".into(),
                user_name: Some("Ada Example".into()),
                user: "u-42".into(),
                offers: vec![google_offer()],
                returns_to: WebLink::parse("https://app.acme.example/settings/accounts"),
                expires: moment("14:20"),
            };
            let several = Self {
                offers: vec![
                    google_offer(),
                    Offer {
                        provider: slack(),
                        way: Way::Consent,
                        scopes: Scope::list("slack", ["chat:write", "channels:read"]),
                    },
                    bot(Way::PlatformBot { bot: "@acme_reminders_bot".into() }),
                ],
                user_name: None,
                returns_to: None,
                ..one.clone()
            };
            let odd = Self {
                platform: EVIL.into(),
                user_name: Some(RTL.into()),
                user: LONG.into(),
                offers: vec![Offer {
                    provider: Provider::new("x", EVIL),
                    way: Way::Consent,
                    scopes: vec![Scope::of("x", EVIL), Scope::of("x", LONG)],
                }],
                ..one.clone()
            };
            vec![one, several, odd]
        }
    }

    impl PreviewPage {
        pub(crate) fn samples() -> Vec<Self> {
            let first = Self {
                frame: end_user(),
                platform: "Acme Voice".into(),
                provider: google(),
                offers: vec![google_offer()],
                reconnects: None,
            };
            let again = Self { reconnects: Some(("con_1".into(), "ada@example.com".into())), ..first.clone() };
            let bots = Self {
                provider: telegram(),
                offers: vec![
                    bot(Way::PlatformBot { bot: "@acme_reminders_bot".into() }),
                    bot(Way::OwnBot { token_error: None }),
                ],
                ..first.clone()
            };
            let wrong = Self {
                provider: telegram(),
                offers: vec![bot(Way::OwnBot {
                    token_error: Some("Telegram does not know this token. Copy it from BotFather once more.".into()),
                })],
                ..first.clone()
            };
            let odd = Self {
                platform: EVIL.into(),
                provider: Provider::new("x", EVIL),
                offers: vec![bot(Way::PlatformBot { bot: EVIL.into() })],
                reconnects: Some((EVIL.into(), EVIL.into())),
                ..first.clone()
            };
            vec![first, again, bots, wrong, odd]
        }
    }
}
