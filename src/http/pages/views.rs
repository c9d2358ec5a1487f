//! The pages as typed views: what each page shows, and nothing about where it comes from.
//!
//! One struct is one page and owns one template under `templates/`. Its fields are plain data, so a handler calls
//! one room, fills the struct and answers with [`askama::Template::render`]. Nothing here reads a database, a clock
//! or a request. Words that depend on data (health, scopes, times) are made here and tested here, so that the
//! templates stay free of rules.
//!
//! Three promises hold for every page and are tested with every sample (WB-04, WB-07): text from outside is always
//! escaped, there is no inline script, style or event handler, and every form that posts carries `csrf`.
//!
//! | page | view |
//! | --- | --- |
//! | `GET /sign-in` | [`SignInPage`] |
//! | `GET /setup/{token}` | [`SetupPage`] |
//! | `GET /portal/{token}` | [`PortalPage`] |
//! | `GET /connect/{token}` | [`ConnectPage`], [`LinkGonePage`] |
//! | `GET /connections` | [`ConnectionsPage`] |
//! | `GET /connections/connect/{provider}` | [`PreviewPage`] |
//! | `GET /connections/{id}` | [`ConnectionPage`] |
//! | `POST /connections/{id}/start` | leads to [`ConnectionPage`] |
//! | `POST /connections/{id}/disconnect` | [`DisconnectPage`] |
//! | where a handshake ends | [`ResultPage`] |
//! | `GET /activity` | [`ActivityPage`] |
//! | `GET /settings` | [`SettingsPage`] |
//! | `GET /admin` | [`AdminPage`] |
//! | `GET /admin/health` | [`RefreshingPage`] |
//! | every error | [`ErrorPage`] |

mod activity;
mod admin;
mod connections;
mod consent;
mod doors;
mod errors;
mod health;
mod moment;
mod refreshing;
mod result;
mod scopes;
#[cfg(test)]
mod tests;

pub use activity::{Act, ActivityDay, ActivityEntry, ActivityPage};
pub use admin::{AdminPage, Denial, IntegrationRow, StatusCount};
pub use connections::{
    AvailableProvider, ConnectionCard, ConnectionPage, ConnectionsPage, CredentialRow, DisconnectPage, HistoryEntry,
    LastUse, Revocation,
};
pub use consent::{ConnectPage, Offer, PreviewPage, Way};
pub use doors::{Field, PortalPage, SettingsPage, SetupPage, SignInPage, SignInStep, TenantChoice};
pub use errors::{ErrorKind, ErrorPage, LinkGone, LinkGonePage};
pub use health::{Health, Start, Tone};
pub use moment::Moment;
pub use refreshing::{IntegrationBacklog, Outcome as RefreshOutcome, RefreshingPage, TroubledRow};
pub use result::{Failure, Outcome, PopupMessage, ResultPage};
pub use scopes::{Reach, Scope};

/// What every page carries: who looks at it, the value for hidden `csrf` fields, and a message about what was just done.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The value of the hidden field `csrf` in every form that posts.
    pub csrf: String,
    /// Who looks at the page; decides the navigation.
    pub viewer: Viewer,
    /// A message about what was just done, announced to screen readers by `role="status"`.
    pub notice: Option<Notice>,
}

/// Who looks at a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Viewer {
    /// Nobody is signed in: the focused pages with no navigation.
    Nobody,
    /// An end user, by a login, a portal session or a swapped connect session.
    EndUser {
        /// The person's name, or the tenant's id of the user when there is no name.
        name: String,
        /// The tenant's name as the person knows it.
        platform: String,
        /// Where the platform wants its person back, after a visit by a portal session.
        returns_to: Option<WebLink>,
    },
    /// A person who works at a tenant.
    Member {
        /// The person's e-mail address or name.
        name: String,
        /// The tenant's name.
        platform: String,
        /// True when the login also has a user, so that the person has connections of their own.
        has_connections: bool,
    },
}

/// A place in the navigation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `/connections` and what is below it.
    Connections,
    /// `/activity`.
    Activity,
    /// `/admin`.
    Admin,
    /// `/admin/health`.
    Health,
    /// `/settings`.
    Settings,
}

impl Place {
    /// True when the page that is shown is here.
    #[must_use]
    pub fn is(self, here: Option<Self>) -> bool {
        here == Some(self)
    }

    /// Where it is.
    #[must_use]
    pub fn href(self) -> &'static str {
        match self {
            Self::Connections => "/connections",
            Self::Activity => "/activity",
            Self::Admin => "/admin",
            Self::Health => "/admin/health",
            Self::Settings => "/settings",
        }
    }

    /// What the navigation calls it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Connections => "Connections",
            Self::Activity => "Activity",
            Self::Admin => "Overview",
            Self::Health => "Health",
            Self::Settings => "Settings",
        }
    }
}

impl Frame {
    /// The navigation for this viewer, in order; empty when nobody is signed in.
    #[must_use]
    pub fn places(&self) -> &'static [Place] {
        match self.viewer {
            Viewer::Nobody => &[],
            Viewer::EndUser { .. } => &[Place::Connections, Place::Activity, Place::Settings],
            Viewer::Member { has_connections: false, .. } => &[Place::Admin, Place::Health, Place::Settings],
            Viewer::Member { has_connections: true, .. } => {
                &[Place::Admin, Place::Health, Place::Connections, Place::Activity, Place::Settings]
            }
        }
    }

    /// The signed-in person's name and the platform's name.
    #[must_use]
    pub fn person(&self) -> Option<(&str, &str)> {
        match &self.viewer {
            Viewer::Nobody => None,
            Viewer::EndUser { name, platform, .. } | Viewer::Member { name, platform, .. } => Some((name, platform)),
        }
    }

    /// The way back to the platform, for whoever came from there.
    #[must_use]
    pub fn returns_to(&self) -> Option<&WebLink> {
        match &self.viewer {
            Viewer::EndUser { returns_to, .. } => returns_to.as_ref(),
            Viewer::Nobody | Viewer::Member { .. } => None,
        }
    }

    /// Where the logo leads: the viewer's first place, or the sign-in page.
    #[must_use]
    pub fn home(&self) -> &'static str {
        self.places().first().map_or("/sign-in", |place| place.href())
    }
}

/// A message about what was just done. The vocabulary is closed, so a redirect can carry it in its query
/// (`?done=disconnected`) and nobody can put words of their own on our pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A connection was disconnected and the provider confirmed the revocation.
    Disconnected,
    /// A connection was disconnected here; the provider has not confirmed the revocation.
    DisconnectedUnconfirmed,
    /// The provider has no way to revoke it.
    DisconnectedHere,
    /// The connection is gone, and the access stays for others who share it.
    DisconnectedShared,
    /// A connection works again.
    Reconnected,
    /// The viewer signed out.
    SignedOut,
    /// The session ran out.
    SessionExpired,
    /// The first owner was made.
    SetUp,
}

impl Notice {
    /// Every notice there is.
    pub const ALL: [Self; 8] = [
        Self::Disconnected,
        Self::DisconnectedUnconfirmed,
        Self::DisconnectedHere,
        Self::DisconnectedShared,
        Self::Reconnected,
        Self::SignedOut,
        Self::SessionExpired,
        Self::SetUp,
    ];

    /// The notice's name in a query string.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::DisconnectedUnconfirmed => "disconnected-unconfirmed",
            Self::DisconnectedHere => "disconnected-here",
            Self::DisconnectedShared => "disconnected-shared",
            Self::Reconnected => "reconnected",
            Self::SignedOut => "signed-out",
            Self::SessionExpired => "session-expired",
            Self::SetUp => "set-up",
        }
    }

    /// Reads a name from a query string; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|notice| notice.as_str() == text)
    }

    /// The colour: whether something is left to the person.
    #[must_use]
    pub fn tone(self) -> Tone {
        match self {
            Self::DisconnectedUnconfirmed | Self::DisconnectedHere | Self::SessionExpired => Tone::Warn,
            _ => Tone::Good,
        }
    }

    /// What the page says.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Disconnected => "Disconnected. The access was revoked and its keys are destroyed.",
            Self::DisconnectedUnconfirmed => {
                "Disconnected. Nothing here uses it any more, but the provider has not confirmed yet that it revoked the access. \
                 We keep asking for a day; you can also remove it in your account there."
            }
            Self::DisconnectedHere => {
                "Disconnected. Our keys are destroyed. The provider has no way to revoke them from here; you can remove the access in your \
                 account there."
            }
            Self::DisconnectedShared => {
                "Disconnected. Nothing here uses it for you any more; the provider keeps the access, since another connection of \
                 this account lives on it."
            }
            Self::Reconnected => "Reconnected. Agents can use this account again.",
            Self::SignedOut => "You are signed out.",
            Self::SessionExpired => "Your session has ended. Please sign in again.",
            Self::SetUp => "Your tenant is ready. Sign in with the e-mail address and password you chose.",
        }
    }
}

/// Counts as parts of a bar 1000 wide: (start, width, class), widths of at least 8 for what exists.
fn bar(counts: impl Iterator<Item = (u64, Tone)>) -> Vec<(u64, u64, &'static str)> {
    let counts: Vec<_> = counts.filter(|(count, _)| *count > 0).collect();
    let total = counts.iter().map(|(count, _)| u128::from(*count)).sum::<u128>().max(1);
    let mut start = 0_u64;
    let mut parts = Vec::new();
    for (count, tone) in counts {
        let share = u64::try_from(u128::from(count) * 1000 / total).unwrap_or(1000);
        let width = share.max(8).min(1000_u64.saturating_sub(start));
        parts.push((start, width, tone.class()));
        start += width;
    }
    parts
}

/// A provider as people see it: Google, Slack, Telegram …
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// The catalogue's id, which is a path segment: `google`.
    pub id: String,
    /// The name: `Google`.
    pub name: String,
}

impl Provider {
    /// A provider by the catalogue's id and name.
    #[must_use]
    pub fn new(id: &str, name: &str) -> Self {
        Self { id: id.to_owned(), name: name.to_owned() }
    }

    /// The letter on the provider's tile. We draw tiles of our own and no foreign trade marks.
    #[must_use]
    pub fn letter(&self) -> String {
        self.name
            .chars()
            .find(|one| one.is_alphanumeric())
            .map_or_else(|| "?".to_owned(), |one| one.to_uppercase().to_string())
    }

    /// The class that colours the tile: fixed for the well-known, otherwise the same for the same id.
    #[must_use]
    pub fn tile(&self) -> &'static str {
        const OTHERS: [&str; 5] = ["tile-teal", "tile-rust", "tile-olive", "tile-slate", "tile-rose"];
        match self.id.as_str() {
            "google" => "tile-blue",
            "slack" => "tile-plum",
            "telegram" => "tile-sky",
            other => {
                OTHERS[other.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())) % 5]
            }
        }
    }
}

/// A link to a place outside. Only `https:` and `http:` can be made, so that no page can hold `javascript:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebLink(String);

impl WebLink {
    /// The link, if it is an absolute `https:` or `http:` address without user information.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let url = url::Url::parse(text).ok()?;
        let plain = url.username().is_empty() && url.password().is_none() && url.has_host();
        (plain && matches!(url.scheme(), "https" | "http")).then(|| Self(url.into()))
    }

    /// The address.
    #[must_use]
    pub fn href(&self) -> &str {
        &self.0
    }

    /// The host and port, to be shown before somebody goes there.
    #[must_use]
    pub fn place(&self) -> String {
        url::Url::parse(&self.0).ok().map_or_else(String::new, |url| {
            let host = url.host_str().unwrap_or_default().to_owned();
            url.port().map_or_else(|| host.clone(), |port| format!("{host}:{port}"))
        })
    }
}
