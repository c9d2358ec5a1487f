//! How refreshing is doing, for people who work at a tenant.

use askama::Template;

use super::{Frame, Moment, Place, Provider, Tone};
use crate::connections::Backlog;

/// What providers call a client id or secret that they do not accept (RFC 6749, 5.2; Slack's own words, fact sheet B.5).
const CLIENT_REFUSED: [&str; 4] = ["invalid_client", "unauthorized_client", "bad_client_secret", "invalid_client_id"];

/// `GET /admin/health`.
#[derive(Clone, Debug, Template)]
#[template(path = "pages/refreshing.html")]
pub struct RefreshingPage {
    /// The common part.
    pub frame: Frame,
    /// Everything together.
    pub whole: Backlog,
    /// Since when the longest waiting credential is overdue; none when nothing is.
    pub oldest: Option<Moment>,
    /// True when so much or so long is overdue that nobody seems to refresh.
    pub late: bool,
    /// The tenant's integrations; may be empty.
    pub integrations: Vec<IntegrationBacklog>,
    /// What became of refreshes within a day, the most frequent first; may be empty.
    pub outcomes: Vec<Outcome>,
    /// Connections that are not well, the latest trouble first; may be empty.
    pub troubled: Vec<TroubledRow>,
}

/// An integration with what it has still to do.
#[derive(Clone, Debug)]
pub struct IntegrationBacklog {
    /// The provider.
    pub provider: Provider,
    /// The colour and sign of how it is.
    pub tone: Tone,
    /// How it is: what is the matter and what to do.
    pub words: String,
    /// What is refreshed ahead of time: `always`, `active` or `on_demand`; none where there is nothing to refresh.
    pub policy: Option<String>,
    /// What waits.
    pub backlog: Backlog,
}

/// What became of some refreshes.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The code of the failure; none when they worked.
    pub failure: Option<String>,
    /// How many.
    pub count: u64,
}

/// A connection that is not well.
#[derive(Clone, Debug)]
pub struct TroubledRow {
    /// `con_…`
    pub id: String,
    /// The provider.
    pub provider: Provider,
    /// The tenant's own id of the user; none when the connection belongs to the tenant.
    pub user: Option<String>,
    /// The colour and sign.
    pub tone: Tone,
    /// What is the matter and whose move it is.
    pub words: String,
    /// Code of the last failure or the reason of the status.
    pub code: Option<String>,
}

impl IntegrationBacklog {
    /// What waits, in one line; none when nothing does.
    #[must_use]
    pub fn waiting(&self) -> Option<String> {
        let parts = [
            (self.backlog.overdue, "overdue"),
            (self.backlog.queued, "waiting their turn"),
            (self.backlog.in_doubt, "in doubt"),
            (self.backlog.failing, "failing"),
            (self.backlog.ending, "ending soon"),
        ];
        let parts: Vec<_> =
            parts.iter().filter(|(count, _)| *count > 0).map(|(n, what)| format!("{n} {what}")).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    /// What is refreshed ahead of time, in words.
    #[must_use]
    pub fn policy_words(&self) -> Option<&'static str> {
        Some(match self.policy.as_deref()? {
            "active" => "Refreshed ahead of time while in use",
            "on_demand" => "Refreshed when used",
            _ => "Refreshed ahead of time",
        })
    }
}

impl Outcome {
    /// What became of them, in words.
    #[must_use]
    pub fn words(&self) -> &str {
        match self.failure.as_deref() {
            None => "Renewed",
            Some("rate_limited") => "The provider wanted fewer calls",
            Some("not_sent") => "The provider could not be reached",
            Some("response_lost" | "in_doubt") => "The answer was lost on its way",
            Some(code) if CLIENT_REFUSED.contains(&code) => "The client was refused",
            Some("invalid_grant") => "The access was refused",
            Some("refused_wave") => "Many were refused in a row, and none believed",
            Some(code) if code.starts_with("http_5") => "The provider had an error",
            Some(_) => "Failed",
        }
    }

    /// The colour.
    #[must_use]
    pub fn tone(&self) -> Tone {
        match self.failure.as_deref() {
            None => Tone::Good,
            Some("invalid_grant" | "refused_wave") => Tone::Bad,
            Some(code) if CLIENT_REFUSED.contains(&code) => Tone::Bad,
            Some(_) => Tone::Warn,
        }
    }
}

impl RefreshingPage {
    fn place(&self) -> Option<Place> {
        Some(Place::Health)
    }

    /// The worst of everything below, and what to make of it.
    #[must_use]
    pub fn verdict(&self) -> (Tone, &'static str, &'static str) {
        let any = |tone| {
            self.integrations.iter().any(|one| one.tone == tone) || self.troubled.iter().any(|one| one.tone == tone)
        };
        if self.late {
            return (
                Tone::Bad,
                "Refreshes are late.",
                "Accesses are due and nobody takes them. See that valetkey serve runs and reaches its database; valetkey doctor says more.",
            );
        }
        if any(Tone::Bad) {
            return (Tone::Bad, "Something does not work.", "What stands below with a red sign needs somebody.");
        }
        if any(Tone::Warn) || self.whole.in_doubt > 0 {
            return (Tone::Warn, "Something wants a look.", "It mends itself, or there is still time.");
        }
        (Tone::Good, "All is well.", "Every access is renewed in time.")
    }

    /// Refreshes that worked.
    #[must_use]
    pub fn renewed(&self) -> u64 {
        self.outcomes.iter().filter(|one| one.failure.is_none()).map(|one| one.count).sum()
    }

    /// The outcomes as parts of a bar 1000 wide.
    #[must_use]
    pub fn bar(&self) -> Vec<(u64, u64, &'static str)> {
        super::bar(self.outcomes.iter().map(|one| (one.count, one.tone())))
    }
}

#[cfg(test)]
mod samples {
    use super::super::tests::{EVIL, LONG, RTL, google, member, moment, slack};
    use super::*;

    impl RefreshingPage {
        pub(crate) fn samples() -> Vec<Self> {
            let integration = |provider, tone, words: &str, backlog| IntegrationBacklog {
                provider,
                tone,
                words: words.to_owned(),
                policy: Some("always".into()),
                backlog,
            };
            let busy = Backlog { queued: 240, in_doubt: 1, failing: 3, ending: 2, ..Backlog::default() };
            let outcome = |failure: Option<&str>, count| Outcome { failure: failure.map(str::to_owned), count };
            let well = Self {
                frame: member(),
                whole: Backlog::default(),
                oldest: None,
                late: false,
                integrations: vec![
                    integration(google(), Tone::Good, "Nothing is known to be wrong.", Backlog::default()),
                    IntegrationBacklog {
                        policy: Some("on_demand".into()),
                        ..integration(slack(), Tone::Good, "Nothing is known to be wrong.", Backlog::default())
                    },
                ],
                outcomes: vec![outcome(None, 31_204)],
                troubled: vec![],
            };
            let troubled = Self {
                whole: Backlog { overdue: 12, ..busy },
                oldest: Some(moment("12 seconds ago")),
                integrations: vec![
                    integration(google(), Tone::Warn, "Google has not answered since 2026-08-08T14:05:00Z.", busy),
                    integration(slack(), Tone::Bad, "Slack refuses the client id or secret (invalid_client).", busy),
                ],
                outcomes: vec![
                    outcome(None, 31_204),
                    outcome(Some("http_503"), 410),
                    outcome(Some("not_sent"), 96),
                    outcome(Some("invalid_client"), 30),
                ],
                troubled: vec![TroubledRow {
                    id: "con_0698k2g3t5m7r1n4b8q6v0c2d4".into(),
                    provider: google(),
                    user: Some("customer-7".into()),
                    tone: Tone::Warn,
                    words: "Its token still has life, and is lent. Google does not answer at the moment.".into(),
                    code: Some("http_503".into()),
                }],
                ..well.clone()
            };
            let late = Self { late: true, oldest: Some(moment("3 hours ago")), ..troubled.clone() };
            let empty = Self { integrations: vec![], outcomes: vec![], ..well.clone() };
            let odd = Self {
                integrations: vec![integration(Provider::new("x", RTL), Tone::Warn, EVIL, busy)],
                outcomes: vec![outcome(Some(EVIL), u64::MAX / 2), outcome(Some(LONG), 1)],
                troubled: vec![TroubledRow {
                    id: LONG.into(),
                    provider: Provider::new("x", RTL),
                    user: Some(EVIL.into()),
                    tone: Tone::Bad,
                    words: EVIL.into(),
                    code: Some(EVIL.into()),
                }],
                ..troubled.clone()
            };
            vec![well, troubled, late, empty, odd]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_client_is_called_so_in_the_words_of_every_provider() {
        for code in CLIENT_REFUSED {
            let outcome = Outcome { failure: Some(code.to_owned()), count: 1 };
            assert_eq!((outcome.words(), outcome.tone()), ("The client was refused", Tone::Bad), "{code}");
        }
    }
}
