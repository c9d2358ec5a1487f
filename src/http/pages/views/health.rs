//! A connection's health in plain words: what is the matter, and whose move it is.

use super::{Moment, WebLink};
use crate::connections::{Need, Pause, Presser, Renewal, Trouble};

/// How a connection is, as its person sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It works.
    Working(Renewal),
    /// It works, and what renews it ends by itself: the person's move, soon.
    EndsSoon(Moment),
    /// It works, but the provider wants a new password of the person.
    ReconnectAdvised,
    /// The stored access still has life, but it is not renewed at the moment.
    Unsteady(Trouble),
    /// Somebody must act: status `needs_reauth`, or `misconfigured` after a new client id.
    NeedsYou(Need),
    /// We stopped by ourselves.
    Paused(Pause),
    /// Status `awaiting_start`: Telegram lets a bot write only after the person pressed Start.
    AwaitingStart(Start),
    /// Status `revoked`.
    Disconnected,
}

/// Start, which a person has to press at a bot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The connection's id, for the form's path.
    pub connection: String,
    /// The bot's name, with `@`.
    pub bot: String,
    /// Opens the chat with the bot, in the browser that asked for it.
    pub link: Option<WebLink>,
    /// Who has pressed it; the person is asked whether that was them.
    pub pressed_by: Option<Presser>,
}

/// The question about who has pressed Start.
fn asked(presser: &Presser, bot: &str) -> String {
    match presser {
        Presser::One { name, .. } => {
            format!("{name} has pressed Start at {bot}. Was that you? Nothing is connected before you have answered.")
        }
        Presser::Several => format!(
            "More than one person has pressed Start at {bot} with this link, so it is worth nothing. Get a new one, and keep it to \
             yourself."
        ),
    }
}

impl Start {
    /// The question about who has pressed it, once somebody has.
    #[must_use]
    pub fn question(&self) -> Option<String> {
        Some(asked(self.pressed_by.as_ref()?, &self.bot))
    }

    /// What a yes is answered with; nothing where only a new link helps.
    #[must_use]
    pub fn press(&self) -> Option<&str> {
        match self.pressed_by.as_ref()? {
            Presser::One { press, .. } => Some(press),
            Presser::Several => None,
        }
    }

    /// Whether there is something to press or to answer here.
    #[must_use]
    pub fn is_persons_move(&self) -> bool {
        self.link.is_some() || self.pressed_by.is_some()
    }
}

/// The colour and sign of a state. It never stands alone: the words always stand beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// All is well.
    Good,
    /// Worth knowing, or the person's move.
    Warn,
    /// Does not work.
    Bad,
    /// Neither.
    Quiet,
}

impl Tone {
    /// The class in the stylesheet.
    #[must_use]
    pub fn class(self) -> &'static str {
        match self {
            Self::Good => "tone-good",
            Self::Warn => "tone-warn",
            Self::Bad => "tone-bad",
            Self::Quiet => "tone-quiet",
        }
    }
}

impl Health {
    /// The colour and sign.
    #[must_use]
    pub fn tone(&self) -> Tone {
        match self {
            Self::Working(_) => Tone::Good,
            Self::EndsSoon(_) | Self::ReconnectAdvised | Self::Unsteady(_) | Self::AwaitingStart(_) => Tone::Warn,
            Self::NeedsYou(_) | Self::Paused(_) => Tone::Bad,
            Self::Disconnected => Tone::Quiet,
        }
    }

    /// Two or three words.
    #[must_use]
    pub fn title(&self) -> &'static str {
        match self {
            Self::Working(_) => "Working",
            Self::EndsSoon(_) => "Ends soon",
            Self::ReconnectAdvised => "Reconnect advised",
            Self::Unsteady(_) => "Working for now",
            Self::NeedsYou(_) => "Needs you",
            Self::Paused(_) => "Paused",
            Self::AwaitingStart(_) => "One step left",
            Self::Disconnected => "Disconnected",
        }
    }

    /// One or two sentences, for the provider of that name.
    #[must_use]
    pub fn words(&self, provider: &str) -> String {
        match self {
            Self::Working(Renewal::Automatic) => "Access is renewed automatically.".to_owned(),
            Self::Working(Renewal::WhenUsed) => "Access is renewed when it is used.".to_owned(),
            Self::Working(Renewal::NoExpiry) => {
                "This access does not expire, so it never leaves Valetkey. Agents use it through us.".to_owned()
            }
            Self::Working(Renewal::Impossible) => {
                format!("{provider} gives no way to renew this access. Reconnect when it has ended.")
            }
            Self::EndsSoon(at) => {
                format!("{provider} ends this access {}. Reconnect before then, and nothing is interrupted.", at.words)
            }
            Self::ReconnectAdvised => format!(
                "{provider} has asked you for a new password, as it does when somebody else may know the old one. Access works; \
                 after you have changed it, look at what used your account here, and reconnect."
            ),
            Self::Unsteady(trouble) => format!("What we have still works. {}", in_words(*trouble, provider)),
            Self::NeedsYou(need) => what_to_do(*need, provider),
            Self::Paused(Pause::AnotherAccount) => format!(
                "{provider} answered for a different account than the one you connected, so we stopped using it. \
                 Reconnect with the right account, or disconnect."
            ),
            Self::Paused(Pause::Trouble(trouble)) => {
                format!("The access has run out. {}", in_words(*trouble, provider))
            }
            Self::AwaitingStart(Start { bot, pressed_by: Some(presser), .. }) => asked(presser, bot),
            Self::AwaitingStart(Start { bot, .. }) => {
                format!("Open {bot} in {provider} and press Start. Until then it may not write to you.")
            }
            Self::Disconnected => "The access was given back and its keys are destroyed.".to_owned(),
        }
    }

    /// True when connecting again mends it, so that the page offers it first.
    #[must_use]
    pub fn wants_reconnect(&self) -> bool {
        matches!(
            self,
            Self::EndsSoon(_) | Self::ReconnectAdvised | Self::NeedsYou(_) | Self::Paused(Pause::AnotherAccount)
        )
    }

    /// Start, if that is what is left to do.
    #[must_use]
    pub fn start(&self) -> Option<&Start> {
        match self {
            Self::AwaitingStart(start) => Some(start),
            _ => None,
        }
    }

    /// True when the access is known not to run out.
    #[must_use]
    pub fn never_expires(&self) -> bool {
        matches!(self, Self::Working(Renewal::NoExpiry))
    }

    /// True when what ran out at `at` waits for its next use: nobody used it for a while, so it is not renewed ahead.
    #[must_use]
    pub fn rests(&self, at: &Moment) -> bool {
        matches!(self, Self::Working(Renewal::Automatic | Renewal::WhenUsed)) && at.past
    }

    /// How the page names the time at which the stored access runs out.
    #[must_use]
    pub fn expiry_label(&self, at: &Moment) -> &'static str {
        match (self, at.past) {
            (Self::Working(Renewal::Automatic) | Self::EndsSoon(_) | Self::ReconnectAdvised, _) => "Next renewal",
            (_, false) => "Access ends",
            (_, true) => "Access ended",
        }
    }
}

/// Why it is not renewed, and that the person has nothing to do about it.
fn in_words(trouble: Trouble, provider: &str) -> String {
    match trouble {
        Trouble::Client => format!(
            "{provider} does not accept the platform’s own settings. The platform has to mend them; \
             there is nothing for you to do."
        ),
        Trouble::Away => {
            format!("{provider} does not answer at the moment. We keep asking; there is nothing for you to do.")
        }
        Trouble::Busy => {
            format!("{provider} asks us to wait before the next renewal. It follows by itself.")
        }
        Trouble::InDoubt => format!(
            "The line broke during the last renewal, and we do not know yet whether {provider} has heard us. \
             It shows within some minutes."
        ),
        Trouble::ProviderTroubled => format!(
            "{provider} was in trouble during the last renewal. We renew it when it has ended; there is nothing for you to do."
        ),
        Trouble::Damaged => {
            "What we have stored of it cannot be opened at the moment. The platform has to look into it; \
             reconnecting mends it, too."
                .to_owned()
        }
        Trouble::Unrecognised => format!(
            "{provider} answers our renewals with something we do not know. The platform has to look into it; we keep trying."
        ),
        Trouble::Failing => {
            format!("The last attempt to renew failed at {provider}. We keep trying; there is nothing for you to do.")
        }
    }
}

fn what_to_do(need: Need, provider: &str) -> String {
    match need {
        Need::AccessRefused => format!("{provider} no longer accepts our access. Reconnect to give it again."),
        Need::AnswerLost => format!(
            "The line broke while {provider} was handing us a new key, and the old one is most likely spent. \
             Reconnect once to mend it."
        ),
        Need::TakenBack => {
            format!("The access was taken back at {provider}, and its keys are destroyed. Reconnect to give it again.")
        }
        Need::AccountDisabled => format!(
            "{provider} has disabled this account, so the access to it has ended. Once {provider} has enabled it again, reconnect."
        ),
        Need::Blocked => format!(
            "You have blocked the bot in {provider}, so it may not write to you. Unblock it there, or reconnect."
        ),
        Need::Ended => "This access has ended and could not be renewed. Reconnect to go on.".to_owned(),
        Need::ClientChanged => {
            format!("The platform now has another registration at {provider}. Reconnect to move this account to it.")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::pages::views::tests::moment;

    #[test]
    fn an_access_that_ran_out_unused_is_not_called_overdue() {
        let working = Health::Working(Renewal::Automatic);
        assert!(working.rests(&moment("2 hours ago")) && !working.rests(&moment("in 56 minutes")));
        let refused = Health::NeedsYou(Need::AccessRefused);
        assert!(!refused.rests(&moment("2 hours ago")));
        assert_eq!(refused.expiry_label(&moment("2 hours ago")), "Access ended");
        assert_eq!(refused.expiry_label(&moment("in 56 minutes")), "Access ends");
    }
}
