//! The overview for people who work at a tenant: is it well, and what wants a look.

use askama::Template;

use super::{Frame, Moment, Place, Provider, Tone};

/// `GET /admin`.
#[derive(Clone, Debug, Template)]
#[template(path = "pages/admin.html")]
pub struct AdminPage {
    /// The common part.
    pub frame: Frame,
    /// The tenant's name.
    pub tenant: String,
    /// `production`, `test` or `uat`.
    pub environment: String,
    /// End users.
    pub users: u64,
    /// Conversations that run now.
    pub running_conversations: u64,
    /// Connections by status, in the API's order; those with 0 may be left out.
    pub statuses: Vec<StatusCount>,
    /// The tenant's integrations; may be empty.
    pub integrations: Vec<IntegrationRow>,
    /// The last refusals, newest first; may be empty.
    pub denials: Vec<Denial>,
}

/// How many connections have a status.
#[derive(Clone, Debug)]
pub struct StatusCount {
    /// The API's name of the status: `active`, `needs_reauth`, …
    pub status: String,
    /// How many.
    pub count: u64,
}

impl StatusCount {
    /// The status in words.
    #[must_use]
    pub fn words(&self) -> &str {
        match self.status.as_str() {
            "active" => "Working",
            "needs_reauth" => "Need their user",
            "misconfigured" => "Need reconnecting after a new client",
            "quarantined" => "Paused: another account answered",
            "awaiting_start" => "Waiting for Start in Telegram",
            "revoked" => "Disconnected",
            other => other,
        }
    }

    /// The colour and sign.
    #[must_use]
    pub fn tone(&self) -> Tone {
        match self.status.as_str() {
            "active" => Tone::Good,
            "awaiting_start" => Tone::Warn,
            "needs_reauth" | "misconfigured" | "quarantined" => Tone::Bad,
            _ => Tone::Quiet,
        }
    }
}

/// A tenant's OAuth client at a provider.
#[derive(Clone, Debug)]
pub struct IntegrationRow {
    /// The provider.
    pub provider: Provider,
    /// The colour and sign of how it is.
    pub tone: Tone,
    /// How it is: what is the matter and what to do.
    pub words: String,
    /// How many connections it carries.
    pub connections: u64,
    /// What has to be registered at the provider; nothing where nobody is sent back from it.
    pub redirect_uri: Option<String>,
}

/// Something that was refused.
#[derive(Clone, Debug)]
pub struct Denial {
    /// When.
    pub at: Moment,
    /// Who: kind and id as the audit book has them.
    pub who: String,
    /// What was tried, as the audit book names it.
    pub what: String,
    /// The code of the refusal: `identity_mismatch`, `insufficient_scope`, …
    pub code: String,
    /// The request's id.
    pub request_id: String,
}

impl AdminPage {
    fn place(&self) -> Option<Place> {
        Some(Place::Admin)
    }

    /// All connections together.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.statuses.iter().fold(0, |sum, one| sum.saturating_add(one.count))
    }

    /// The statuses as parts of a bar 1000 wide: (start, width, class), widths of at least 8 for what exists.
    #[must_use]
    pub fn bar(&self) -> Vec<(u64, u64, &'static str)> {
        super::bar(self.statuses.iter().map(|one| (one.count, one.tone())))
    }
}

#[cfg(test)]
mod samples {
    use super::super::tests::{EVIL, LONG, RTL, google, member, moment, slack, telegram};
    use super::*;

    impl AdminPage {
        pub(crate) fn samples() -> Vec<Self> {
            let count = |status: &str, count| StatusCount { status: status.into(), count };
            let integration = |provider, (tone, words): (Tone, &str), connections| IntegrationRow {
                provider,
                tone,
                words: words.to_owned(),
                connections,
                redirect_uri: Some(
                    "https://vault.acme.example/oauth/google/callback/int_0698k2g3t5m7r1n4b8q6v0c2d4".into(),
                ),
            };
            let denial = |what: &str, code: &str| Denial {
                at: moment("12 minutes ago"),
                who: "ticket cnv_0698k2g3".into(),
                what: what.into(),
                code: code.into(),
                request_id: "req_7f3a90c1".into(),
            };
            let full = Self {
                frame: member(),
                tenant: "Acme Voice".into(),
                environment: "production".into(),
                users: 1_284,
                running_conversations: 17,
                statuses: vec![
                    count("active", 1_902),
                    count("needs_reauth", 41),
                    count("awaiting_start", 6),
                    count("revoked", 120),
                ],
                integrations: vec![
                    integration(google(), (Tone::Good, "Nothing is known to be wrong."), 1_310),
                    integration(
                        slack(),
                        (Tone::Bad, "Slack refuses the client id or secret (invalid_client). Correct the integration."),
                        540,
                    ),
                    integration(telegram(), (Tone::Quiet, "Not used yet."), 0),
                ],
                denials: vec![denial("refresh tool", "identity_mismatch"), denial("broker google", "not_granted")],
            };
            let empty = Self {
                users: 0,
                running_conversations: 0,
                statuses: vec![],
                integrations: vec![],
                denials: vec![],
                environment: "test".into(),
                ..full.clone()
            };
            let odd = Self {
                tenant: EVIL.into(),
                statuses: vec![count(EVIL, u64::MAX / 2), count("quarantined", 1)],
                integrations: vec![IntegrationRow {
                    redirect_uri: Some(LONG.into()),
                    ..integration(Provider::new("x", RTL), (Tone::Warn, EVIL), 1)
                }],
                denials: vec![Denial {
                    who: EVIL.into(),
                    code: EVIL.into(),
                    request_id: LONG.into(),
                    ..denial(EVIL, "")
                }],
                ..full.clone()
            };
            vec![full, empty, odd]
        }
    }
}
