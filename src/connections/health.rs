//! How a connection, one of its credentials or an integration is: what is the matter, and whose move it is.
//!
//! Found here once, from what is stored. The API explains it to the platform in the words below; pages say the same to the
//! person whose account it is.

use std::fmt;

use crate::clock::Millis;
use crate::credentials::{ends_soon, is_degraded, last_error, may_be_good};
use crate::providers::notices::{BLOCKED, CHANGE_REQUIRED, DISABLED, REVOKED};
use crate::store::credentials::CredentialRow;
use crate::store::integrations::IntegrationRow;

/// How a connection or one of its credentials is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It works.
    Working(Renewal),
    /// It works, and what renews it ends by itself at this time: only connecting again helps.
    EndsSoon(Millis),
    /// It works, but the provider has asked the person for a new password: connecting again is advised after that.
    ReconnectAdvised,
    /// The stored access token still has life, but it is not renewed at the moment.
    Unsteady(Trouble),
    /// Its user must connect again: status `needs_reauth`, or `misconfigured` after a new client id.
    NeedsUser(Need),
    /// Nothing is lent for now.
    Paused(Pause),
    /// Status `awaiting_start`: Telegram lets a bot write only after the person pressed Start.
    AwaitingStart,
    /// Status `revoked`.
    Disconnected,
}

/// What happens when a working access runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It is renewed before that.
    Automatic,
    /// It is renewed when somebody asks for it: the integration's wish.
    WhenUsed,
    /// It does not run out, so it is only ever used through the broker.
    NoExpiry,
    /// It runs out and cannot be renewed.
    Impossible,
}

/// What keeps an access from being renewed. None of it is the person's to mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The provider refuses the platform's own client.
    Client,
    /// The provider does not answer anybody.
    Away,
    /// The provider wants fewer calls.
    Busy,
    /// Nobody knows yet whether the last attempt has reached the provider.
    InDoubt,
    /// The provider was in trouble itself at the last attempt, so the refresh token is likely good: it is tried again when
    /// the access token has ended.
    ProviderTroubled,
    /// The stored tokens cannot be opened, or their provider is not known any more.
    Damaged,
    /// The provider keeps answering something that nobody knows.
    Unrecognised,
    /// The last attempt failed in another way.
    Failing,
}

/// Why the person is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The provider refuses our access (`invalid_grant`, a revoked token).
    AccessRefused,
    /// A rotated refresh token was lost on its way to us (`rotation_response_lost`).
    AnswerLost,
    /// The access was taken back at the provider, which has told us (`revoked_at_provider`).
    TakenBack,
    /// The provider has disabled the account (`account_disabled`).
    AccountDisabled,
    /// The person has blocked the bot (`chat_blocked`).
    Blocked,
    /// The access has run out and could not be renewed.
    Ended,
    /// The integration has another client id than the one this connection was made with (`misconfigured`).
    ClientChanged,
}

/// Why nothing is lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// The provider answered for another account than the one that was connected (`quarantined`).
    AnotherAccount,
    /// The stored access has run out and is not renewed for now.
    Trouble(Trouble),
}

impl Health {
    /// Of a connection: what its status says, else what becomes of the credential that acts first.
    pub(super) fn of_connection(status: &str, reason: Option<&str>, first: Option<Self>) -> Self {
        match status {
            "awaiting_start" => Self::AwaitingStart,
            "needs_reauth" => Self::NeedsUser(Need::because(reason)),
            "misconfigured" => Self::NeedsUser(Need::ClientChanged),
            "quarantined" => Self::Paused(Pause::AnotherAccount),
            "revoked" => Self::Disconnected,
            _ => match first {
                Some(Self::Working(_)) if reason == Some(CHANGE_REQUIRED) => Self::ReconnectAdvised,
                first => first.unwrap_or(Self::NeedsUser(Need::Ended)),
            },
        }
    }

    /// Of one credential, whatever becomes of the others of its connection.
    pub(super) fn of_credential(row: &CredentialRow, integration: Option<&IntegrationRow>, now: Millis) -> Self {
        match row.status.as_str() {
            "active" => {}
            "misconfigured" => return Self::NeedsUser(Need::ClientChanged),
            _ => return Self::NeedsUser(Need::because(row.reason.as_deref())),
        }
        let is_alive = row.expires_at.is_none_or(|end| end > now.0);
        match (row.refresh_token.is_some(), row.expires_at) {
            (false, None) => Self::Working(Renewal::NoExpiry),
            (false, Some(_)) if is_alive => Self::Working(Renewal::Impossible),
            (false, Some(_)) => Self::NeedsUser(Need::Ended),
            (true, _) if !is_degraded(row, integration.map(|one| one.status.as_str()), now) => {
                let on_demand = integration.is_some_and(|one| one.refresh_policy == "on_demand");
                let renewal = if on_demand { Renewal::WhenUsed } else { Renewal::Automatic };
                ends_soon(row, now).map_or(Self::Working(renewal), Self::EndsSoon)
            }
            (true, _) if is_alive => Self::Unsteady(Trouble::of(row, integration, now)),
            (true, _) => Self::Paused(Pause::Trouble(Trouble::of(row, integration, now))),
        }
    }

    /// Two or three sentences for the platform, with the provider's name in them.
    #[must_use]
    pub fn explanation(&self, provider: &str) -> String {
        match self {
            Self::Working(Renewal::Automatic) => "It works, and is refreshed in time.".to_owned(),
            Self::Working(Renewal::WhenUsed) => "It works, and is refreshed when somebody asks for it.".to_owned(),
            Self::Working(Renewal::NoExpiry) => {
                "It works. Its secret never expires, so it is used through the broker only.".to_owned()
            }
            Self::Working(Renewal::Impossible) => {
                "It works until its token ends: there is no refresh token. Its user has to connect again then."
                    .to_owned()
            }
            Self::EndsSoon(at) => format!(
                "It works, but {provider} ends its refresh token at {}. Its user has to connect again before that.",
                at.rfc3339()
            ),
            Self::ReconnectAdvised => format!(
                "It works, but {provider} has asked its user for a new password. Connecting again is advised after that."
            ),
            Self::Unsteady(trouble) => {
                format!("Its token still has life, and is lent. {}", trouble.explanation(provider))
            }
            Self::Paused(Pause::Trouble(trouble)) => format!("Its token has ended. {}", trouble.explanation(provider)),
            Self::Paused(Pause::AnotherAccount) => format!(
                "{provider} answered for another account than the one that was connected, so nothing is lent. Its user \
                 has to connect the right account again."
            ),
            Self::NeedsUser(need) => need.explanation(provider),
            Self::AwaitingStart => "Its user has yet to press Start in the chat with the bot.".to_owned(),
            Self::Disconnected => "It has ended, and its secrets are destroyed.".to_owned(),
        }
    }
}

impl Trouble {
    fn of(row: &CredentialRow, integration: Option<&IntegrationRow>, now: Millis) -> Self {
        match integration.map(|row| IntegrationHealth::of(row, now)) {
            Some(IntegrationHealth::ClientRefused(_) | IntegrationHealth::RefusedWave) => Self::Client,
            Some(IntegrationHealth::Unreachable(_)) => Self::Away,
            Some(IntegrationHealth::RateLimited(_)) => Self::Busy,
            _ if may_be_good(row, integration) => Self::ProviderTroubled,
            _ if row.doubt.since.is_some() => Self::InDoubt,
            _ => match last_error(row, now).as_deref() {
                Some("in_doubt") => Self::InDoubt,
                Some("stored_token_unreadable" | "provider_unknown") => Self::Damaged,
                Some("needs_attention") => Self::Unrecognised,
                _ => Self::Failing,
            },
        }
    }

    fn explanation(self, provider: &str) -> String {
        match self {
            Self::Client => format!(
                "{provider} does not accept the integration's client, so nothing is refreshed until that is mended. \
                 Its user has nothing to do."
            ),
            Self::Away => format!("{provider} does not answer at the moment; it is asked again every half minute."),
            Self::Busy => format!("{provider} wants fewer calls; the refresh follows as soon as it allows."),
            Self::InDoubt => format!(
                "The line broke during the last refresh. Whether {provider} has carried it out shows within some minutes."
            ),
            Self::ProviderTroubled => format!(
                "{provider} was in trouble during the last refresh, so its refresh token is likely good: it is tried again \
                 when the token has ended."
            ),
            Self::Damaged => {
                "What is stored of it cannot be opened here, so it cannot be refreshed. `valetkey doctor` tells \
                 more; where nothing helps, its user has to connect again."
                    .to_owned()
            }
            Self::Unrecognised => format!(
                "{provider} keeps answering something that is not known here, so somebody should look at `last_error`. It is \
                 asked once an hour."
            ),
            Self::Failing => format!("The last refresh failed at {provider}; it is tried again by itself."),
        }
    }
}

impl Need {
    fn because(reason: Option<&str>) -> Self {
        match reason {
            Some("rotation_response_lost") => Self::AnswerLost,
            Some(REVOKED) => Self::TakenBack,
            Some(DISABLED) => Self::AccountDisabled,
            Some(BLOCKED) => Self::Blocked,
            Some("not_refreshable" | "refresh_token_missing" | "refresh_token_expired" | "expired") => Self::Ended,
            _ => Self::AccessRefused,
        }
    }

    fn explanation(self, provider: &str) -> String {
        match self {
            Self::AccessRefused => format!("{provider} no longer accepts this access. Its user has to connect again."),
            Self::AnswerLost => format!(
                "The line broke while {provider} handed out a new refresh token, and the old one is most likely spent. Its \
                 user has to connect again."
            ),
            Self::TakenBack => format!(
                "{provider} has told us that this access was taken back there, so its tokens are destroyed. Its user has to \
                 connect again."
            ),
            Self::AccountDisabled => format!(
                "{provider} has told us that this account is disabled, so its tokens are destroyed. Its user has to connect \
                 again once it is enabled."
            ),
            Self::Blocked => format!(
                "The person has blocked the bot in {provider}, so it may not write. When they unblock it, it goes on by itself where \
                 {provider} can tell us; otherwise they connect again."
            ),
            Self::Ended => "This access has ended and cannot be refreshed. Its user has to connect again.".to_owned(),
            Self::ClientChanged => format!(
                "The integration now has another client at {provider}. Its user has to connect again to move to it."
            ),
        }
    }
}

/// How an integration is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntegrationHealth {
    /// Nothing is known to be wrong.
    Working,
    /// The provider takes the client for one that is only tried out, since then, and ends its grants after some days.
    Testing(Millis),
    /// The provider refuses the client, with this code; or our own copy of its secret is of no use (`client_secret_…`).
    ClientRefused(String),
    /// So many users in a row seem to have withdrawn that the client is at fault (`refused_wave`).
    RefusedWave,
    /// The provider has not answered since then.
    Unreachable(Millis),
    /// The provider wants fewer calls until then.
    RateLimited(Millis),
}

impl IntegrationHealth {
    pub(super) fn of(row: &IntegrationRow, now: Millis) -> Self {
        match (row.status.as_str(), row.reason.as_deref()) {
            ("misconfigured", Some("refused_wave")) => return Self::RefusedWave,
            ("misconfigured", reason) => return Self::ClientRefused(reason.unwrap_or("unknown").to_owned()),
            _ => {}
        }
        if let Some(since) = row.unreachable_since {
            return Self::Unreachable(Millis(since));
        }
        match row.rate_limited_until {
            Some(until) if until > now.0 => Self::RateLimited(Millis(until)),
            _ => row.testing_since.map_or(Self::Working, |since| Self::Testing(Millis(since))),
        }
    }

    /// One to three sentences for the platform: what is the matter and what to do.
    #[must_use]
    pub fn explanation(&self, provider: &str) -> String {
        Explained(self, provider).to_string()
    }
}

struct Explained<'a>(&'a IntegrationHealth, &'a str);

impl fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(health, provider) = self;
        match health {
            IntegrationHealth::Working => f.write_str("Nothing is known to be wrong."),
            IntegrationHealth::Testing(since) => write!(
                f,
                "It works, but the app is in testing at {provider} (seen at {}), which ends every access after seven days: its users \
                 have to connect again each week. Publish the app there (Google Auth Platform, Audience, Publish app); the \
                 next connection shows whether that is done, and those of before need to be made once more.",
                since.rfc3339()
            ),
            IntegrationHealth::ClientRefused(code) if code.starts_with("client_secret_") => write!(
                f,
                "The client secret for {provider} that is kept here is missing or cannot be opened ({code}). No connection \
                 was changed by that: save the secret again, and they go on by themselves."
            ),
            IntegrationHealth::ClientRefused(code) => write!(
                f,
                "{provider} refuses the client id or secret ({code}). No connection was changed by that: correct the \
                 integration, and they go on by themselves. It is tried once a minute."
            ),
            IntegrationHealth::RefusedWave => write!(
                f,
                "{provider} refused many users in a row, which points at the client's registration there rather than at \
                 them, so none was asked to connect again. Look at the registration. If they have really withdrawn, save \
                 the integration once more as it is, without a secret: then the refusals are believed."
            ),
            IntegrationHealth::Unreachable(since) => write!(
                f,
                "{provider} has not answered since {}. It is asked every half minute, and everything goes on when it is \
                 back.",
                since.rfc3339()
            ),
            IntegrationHealth::RateLimited(until) => {
                write!(f, "{provider} wants fewer calls. Refreshes go on at {}.", until.rfc3339())
            }
        }
    }
}
