//! Where a handshake ends: connected, waiting for one more step, denied or failed.

use askama::Template;

use super::{Frame, Place, Provider, Scope, Start, Tone};

/// The last page of a handshake, behind the clean URL that the callback redirects to.
#[derive(Clone, Debug, Template)]
#[template(path = "pages/result.html")]
pub struct ResultPage {
    /// The common part.
    pub frame: Frame,
    /// The tenant's name.
    pub platform: String,
    /// The provider.
    pub provider: Provider,
    /// How it ended.
    pub outcome: Outcome,
    /// Set in a popup: what `static/valetkey.js` sends to the opener. Without scripts the page says to close it.
    pub popup: Option<PopupMessage>,
}

/// What a popup sends to the window that opened it, and to nobody else (WB-12).
#[derive(Clone, Debug)]
pub struct PopupMessage {
    /// The only origin that may receive it: one that the tenant registered.
    pub target_origin: String,
    /// The connect session's id.
    pub connect_session: String,
    /// `awaiting_confirmation`, `completed`, `denied` or `failed`.
    pub state: String,
    /// The completion code, where the platform has to confirm.
    pub completion_code: Option<String>,
}

/// How a handshake ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The account is connected.
    Connected {
        /// The account's e-mail address or name.
        account: String,
        /// What was granted.
        granted: Vec<Scope>,
        /// What was asked for and not granted.
        refused: Vec<Scope>,
    },
    /// The platform has to confirm that it was this person (`confirm: "platform"`).
    AwaitingConfirmation,
    /// Telegram: the person has to press Start.
    AwaitingStart(Start),
    /// The person said no at the provider.
    Denied,
    /// It did not work.
    Failed(Failure),
}

/// Why a handshake failed: a closed list, since a provider's own words never reach a page (OA-16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Ten minutes have passed.
    TooLate,
    /// This answer was already used.
    AlreadyUsed,
    /// The reconnected account is not the one that was connected before.
    OtherAccount,
    /// The provider refused the exchange.
    Refused,
    /// The provider did not answer.
    Unreachable,
    /// The provider refuses the platform's client.
    PlatformSettings,
    /// An administrator at the provider forbids it.
    AdminForbids,
    /// The answer does not belong to anything that was begun in this browser, or what it belongs to has ended.
    NotOurs,
    /// Anything else.
    Other,
}

impl Failure {
    /// Every reason there is.
    pub const ALL: [Self; 9] = [
        Self::TooLate,
        Self::AlreadyUsed,
        Self::OtherAccount,
        Self::Refused,
        Self::Unreachable,
        Self::PlatformSettings,
        Self::AdminForbids,
        Self::NotOurs,
        Self::Other,
    ];

    /// What happened, and what to do next.
    #[must_use]
    pub fn words(self, provider: &str, platform: &str) -> (String, String) {
        let again = format!("Go back to {platform} and begin again.");
        match self {
            Self::TooLate => ("Connecting took more than ten minutes, so we closed the door to be safe.".into(), again),
            Self::AlreadyUsed => (
                format!("This answer from {provider} was used before, and each one works only once."),
                "If you have just connected the account, all is well. Otherwise begin again.".into(),
            ),
            Self::OtherAccount => (
                format!("You signed in to a different {provider} account than the one you are reconnecting."),
                format!("Begin again and choose the same account, or connect this one as a new account at {platform}."),
            ),
            Self::Refused => (format!("{provider} refused to hand over the access."), again),
            Self::Unreachable => (
                format!("{provider} did not answer in time."),
                "Wait a minute and begin again. Nothing of yours was lost.".into(),
            ),
            Self::PlatformSettings => (
                format!("{provider} does not accept the settings of {platform}."),
                format!("There is nothing for you to mend. Please tell {platform}."),
            ),
            Self::AdminForbids => (
                format!("An administrator of your {provider} account does not allow this."),
                "Ask the administrator to allow it, or connect another account.".into(),
            ),
            Self::NotOurs => (
                "This answer does not belong to anything that was begun in this browser, or it was used before. \
                 Nothing was connected."
                    .into(),
                format!(
                    "Begin again from {platform} and stay in one browser. If you did not begin this, close the page."
                ),
            ),
            Self::Other => ("Something went wrong on the way.".into(), again),
        }
    }
}

impl Outcome {
    /// The colour and sign.
    #[must_use]
    pub fn tone(&self) -> Tone {
        match self {
            Self::Connected { refused, .. } if refused.is_empty() => Tone::Good,
            Self::Connected { .. } | Self::AwaitingStart(_) | Self::AwaitingConfirmation => Tone::Warn,
            Self::Denied => Tone::Quiet,
            Self::Failed(_) => Tone::Bad,
        }
    }
}

impl ResultPage {
    fn place(&self) -> Option<Place> {
        Some(Place::Connections)
    }

    /// True when the page has a more important button than the way back.
    fn has_own_button(&self) -> bool {
        matches!(&self.outcome, Outcome::AwaitingStart(start) if start.is_persons_move())
    }

    /// The heading.
    #[must_use]
    pub fn title(&self) -> String {
        let provider = &self.provider.name;
        match &self.outcome {
            Outcome::Connected { .. } => format!("{provider} is connected"),
            Outcome::AwaitingConfirmation => "Almost there".to_owned(),
            Outcome::AwaitingStart(_) => "One step left".to_owned(),
            Outcome::Denied => "Nothing was connected".to_owned(),
            Outcome::Failed(_) => format!("{provider} could not be connected"),
        }
    }
}

#[cfg(test)]
mod samples {
    use super::super::WebLink;
    use super::super::tests::{EVIL, LONG, RTL, end_user, google, nobody, telegram, visitor};
    use super::*;
    use crate::connections::Presser;

    impl ResultPage {
        pub(crate) fn samples() -> Vec<Self> {
            let granted = Scope::list("google", ["email", "https://www.googleapis.com/auth/calendar.events"]);
            let refused = Scope::list("google", ["https://www.googleapis.com/auth/gmail.readonly"]);
            let account = "ada@example.com".to_owned();
            let good = Self {
                frame: end_user(),
                platform: "Acme Voice".into(),
                provider: google(),
                outcome: Outcome::Connected { account: account.clone(), granted: granted.clone(), refused: vec![] },
                popup: None,
            };
            let hosted = Self { frame: nobody(), ..good.clone() };
            let visiting = Self { frame: visitor(), ..good.clone() };
            let partly = Self { outcome: Outcome::Connected { account, granted, refused }, ..hosted.clone() };
            let waiting = Self { outcome: Outcome::AwaitingConfirmation, ..hosted.clone() };
            let start = Self {
                provider: telegram(),
                outcome: Outcome::AwaitingStart(Start {
                    connection: "con_tg".into(),
                    bot: "@acme_reminders_bot".into(),
                    link: WebLink::parse("https://t.me/acme_reminders_bot?start=k3Y"),
                    pressed_by: None,
                }),
                ..good.clone()
            };
            let pressed = Self {
                provider: telegram(),
                outcome: Outcome::AwaitingStart(Start {
                    connection: "con_tg".into(),
                    bot: "@acme_reminders_bot".into(),
                    link: None,
                    pressed_by: Some(Presser::One { name: "@ada_test".into(), press: "p1".into() }),
                }),
                ..good.clone()
            };
            let denied = Self { outcome: Outcome::Denied, ..hosted.clone() };
            let popup = Self {
                outcome: Outcome::AwaitingConfirmation,
                popup: Some(PopupMessage {
                    target_origin: "https://app.acme.example".into(),
                    connect_session: "cns_1".into(),
                    state: "awaiting_confirmation".into(),
                    completion_code: Some(EVIL.into()),
                }),
                ..hosted.clone()
            };
            let odd = Self {
                platform: EVIL.into(),
                provider: Provider::new("x", EVIL),
                outcome: Outcome::Connected {
                    account: LONG.into(),
                    granted: vec![Scope::of("x", EVIL)],
                    refused: vec![Scope::of("x", RTL)],
                },
                ..hosted.clone()
            };
            let mut all = vec![good, visiting, partly, waiting, start, pressed, denied, popup, odd];
            all.extend(Failure::ALL.map(|failure| Self { outcome: Outcome::Failed(failure), ..hosted.clone() }));
            all
        }
    }
}
