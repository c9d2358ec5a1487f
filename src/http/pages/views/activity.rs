//! What used my accounts, when, and in which conversation.

use askama::Template;

use super::{Frame, Moment, Place, Provider, Tone};

/// `GET /activity`, grouped by day, newest first.
#[derive(Clone, Debug, Template)]
#[template(path = "pages/activity.html")]
pub struct ActivityPage {
    /// The common part.
    pub frame: Frame,
    /// The days with something to show; may be empty.
    pub days: Vec<ActivityDay>,
    /// The account to which the page is narrowed (`?connection=con_…`), in words.
    pub only: Option<String>,
    /// The id of that account's connection, which the link to the next page carries along.
    pub connection: Option<String>,
    /// The opaque cursor of the next page: the link is `/activity?cursor=…`.
    pub older: Option<String>,
}

/// One day.
#[derive(Clone, Debug)]
pub struct ActivityDay {
    /// See [`Moment::day`].
    pub day: Moment,
    /// Its entries, newest first; at least one.
    pub entries: Vec<ActivityEntry>,
}

/// One use.
#[derive(Clone, Debug)]
pub struct ActivityEntry {
    /// See [`Moment::time_of_day`].
    pub at: Moment,
    /// The provider.
    pub provider: Provider,
    /// The account.
    pub account: String,
    /// The agent's name or id, or the platform's name for its own back end.
    pub by: String,
    /// The conversation, `cnv_…`, if there was one.
    pub conversation: Option<String>,
    /// What was done.
    pub act: Act,
}

/// What was done with an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// A short-lived access was lent at the start of a conversation.
    Lent,
    /// A fresh access was lent in mid-conversation.
    LentAgain,
    /// The vault called the provider for the agent.
    Called {
        /// What was called, as the broker's allow-list names it: `GET calendar/v3/calendars`. Empty when the book
        /// does not say it.
        what: String,
        /// False when the provider answered with an error.
        ok: bool,
    },
    /// The platform's back end read an access.
    ReadByPlatform,
    /// The access was renewed.
    Renewed,
    /// A use was refused.
    Refused,
}

impl Act {
    /// What was done, in words.
    #[must_use]
    pub fn words(&self) -> &'static str {
        match self {
            Self::Lent => "Lent for the conversation",
            Self::LentAgain => "Lent again in mid-call",
            Self::Called { ok: true, .. } => "Used through the vault",
            Self::Called { ok: false, .. } => "Tried through the vault, without success",
            Self::ReadByPlatform => "Lent to the platform",
            Self::Renewed => "Renewed",
            Self::Refused => "Refused",
        }
    }

    /// What exactly was called, if anything.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::Called { what, .. } if !what.is_empty() => Some(what),
            _ => None,
        }
    }

    /// The colour and sign.
    #[must_use]
    pub fn tone(&self) -> Tone {
        match self {
            Self::Refused => Tone::Bad,
            Self::Called { ok: false, .. } => Tone::Warn,
            Self::Renewed => Tone::Quiet,
            _ => Tone::Good,
        }
    }
}

impl ActivityPage {
    fn place(&self) -> Option<Place> {
        Some(Place::Activity)
    }
}

#[cfg(test)]
mod samples {
    use super::super::tests::{EVIL, LONG, RTL, end_user, google, moment, slack, telegram};
    use super::*;

    impl ActivityPage {
        pub(crate) fn samples() -> Vec<Self> {
            let entry = |at: &str, provider: &Provider, by: &str, act: Act| ActivityEntry {
                at: moment(at),
                provider: provider.clone(),
                account: if provider.id == "google" { "ada@example.com" } else { "Example Works" }.into(),
                by: by.into(),
                conversation: (act != Act::Renewed).then(|| "cnv_0698k2g3t5m7r1n4b8q6v0c2d4".to_owned()),
                act,
            };
            let called = |what: &str, ok| Act::Called { what: what.into(), ok };
            let today = vec![
                entry("14:02", &google(), "Front desk", called("GET calendar/v3/calendars/primary/events", true)),
                entry("14:01", &google(), "Front desk", Act::Lent),
                entry("13:53", &google(), "Valetkey", Act::Renewed),
                entry("11:20", &slack(), "Stand-up notes", called("POST chat.postMessage", false)),
            ];
            let before = vec![
                entry("17:45", &slack(), "Stand-up notes", Act::Refused),
                entry("17:44", &telegram(), "Reminders", called("POST sendMessage", true)),
                entry("09:30", &google(), "Front desk", Act::LentAgain),
            ];
            let odd = vec![
                ActivityEntry {
                    account: LONG.into(),
                    by: RTL.into(),
                    ..entry("00:00", &Provider::new("x", EVIL), EVIL, called(EVIL, true))
                },
                entry("00:00", &google(), EVIL, Act::ReadByPlatform),
            ];
            let full = Self {
                frame: end_user(),
                days: vec![
                    ActivityDay { day: moment("Today"), entries: today },
                    ActivityDay { day: moment("Yesterday"), entries: before },
                ],
                only: None,
                connection: None,
                older: Some("b2xkZXI".into()),
            };
            let empty = Self { days: vec![], older: None, ..full.clone() };
            let strange = Self {
                days: vec![ActivityDay { day: moment("Thursday, 6 August 2026"), entries: odd }],
                only: Some(EVIL.into()),
                connection: Some(EVIL.into()),
                ..full.clone()
            };
            let none_of_it = Self { only: Some("ada@example.com".into()), ..empty.clone() };
            vec![full, empty, strange, none_of_it]
        }
    }
}
