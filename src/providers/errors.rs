//! What can go wrong at a provider, and the one table that says which answer means what.
//!
//! A [`Failure`] says what the caller may do next (classes of provider fact sheet D.5); the [`Code`] with it is
//! the only thing that logs, books and APIs see. A provider's `error_description` is never read into either,
//! since it can carry token fragments, e-mails or HTML (fact sheet D.5, OA-16).

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::outbound::OutboundError;

/// A short machine-readable word: a provider's error code, or our own. Always `[a-z0-9_.:-]{1,64}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Code(String);

impl Code {
    /// The word used when a provider's code does not look like a code.
    pub const UNLISTED: &'static str = "unlisted";

    /// One of our own words. Text that does not fit becomes `unlisted`.
    #[must_use]
    pub fn own(word: &'static str) -> Self {
        Self::from_provider(word)
    }

    /// The provider's error code, bounded in characters and length (OA-16). Upper case is folded when the whole
    /// word is upper case (`BAD_REFRESH_TOKEN`). What tokens have becomes `unlisted`: mixed case, more than eight digits
    /// (`AADSTS7000215` has seven), or more than 24 letters and digits in a row.
    #[must_use]
    pub fn from_provider(text: &str) -> Self {
        let mixed = text.bytes().any(|b| b.is_ascii_uppercase()) && text.bytes().any(|b| b.is_ascii_lowercase());
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.:-".contains(&b);
        let digits = text.bytes().filter(u8::is_ascii_digit).count();
        let longest = text.split(['_', '.', ':', '-']).map(str::len).max().unwrap_or(0);
        let like_a_token = mixed || digits > 8 || longest > 24;
        if text.is_empty() || text.len() > 64 || like_a_token || !text.bytes().all(fits) {
            return Self(Self::UNLISTED.to_owned());
        }
        Self(text.to_ascii_lowercase())
    }

    /// A code that the catalogue lists, whatever it looks like.
    pub(super) fn listed(word: &str) -> Self {
        let fitting =
            |c: char| if c.is_ascii_alphanumeric() || "_.:-".contains(c) { c.to_ascii_lowercase() } else { '_' };
        Self(word.chars().take(64).map(fitting).collect())
    }

    /// A word for an HTTP status that came without a readable error code, such as `http_502`.
    #[must_use]
    pub fn http(status: u16) -> Self {
        Self(format!("http_{status}"))
    }

    /// The word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A call to a provider did not bring what was asked for. The variant says what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nothing left this machine (address refused, DNS, connect, TLS): try again freely.
    #[error("the provider was not reached")]
    NotSent,
    /// The request was sent and what became of it is unknown: a rotating refresh token may be spent (fact sheet D.4).
    #[error("the provider's answer was lost ({code})")]
    Ambiguous {
        /// What was seen.
        code: Code,
    },
    /// A server has answered that it failed (500, 502, 504): a rotating refresh token may be spent, though it probably is not
    /// (fact sheet D.4).
    #[error("the provider's server failed ({code})")]
    ServerError {
        /// What was seen.
        code: Code,
    },
    /// The grant is dead, or the code was not accepted: the person must consent again.
    #[error("the person must connect again ({code})")]
    Reauth {
        /// Why.
        code: Code,
    },
    /// Our client is not set up rightly. Says nothing about any grant, and must never touch one (fact sheet D.5).
    #[error("the integration is not set up rightly at the provider ({code})")]
    Configuration {
        /// What the provider complained of.
        code: Code,
    },
    /// Too many calls.
    #[error("the provider asks for fewer calls")]
    RateLimited {
        /// How long the provider asks us to wait, if it said so.
        after: Option<Duration>,
    },
    /// The provider has a problem that passes, and the refresh token is still good.
    #[error("the provider has a passing problem ({code})")]
    Transient {
        /// What was seen.
        code: Code,
    },
    /// A person must do something at the provider: an administrator's policy, or the user's own refusal.
    #[error("somebody must act at the provider ({code})")]
    Admin {
        /// What is in the way.
        code: Code,
    },
    /// An answer that no table knows. Treat it as passing for a few tries, never as a dead grant (fact sheet D.5).
    #[error("the provider's answer is not known ({code})")]
    Unrecognised {
        /// What was seen.
        code: Code,
    },
}

impl Failure {
    /// The word for logs, the audit book and `last_error`.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::NotSent => Code::own("not_sent"),
            Self::RateLimited { .. } => Code::own("rate_limited"),
            Self::Ambiguous { code }
            | Self::ServerError { code }
            | Self::Reauth { code }
            | Self::Configuration { code }
            | Self::Transient { code }
            | Self::Admin { code }
            | Self::Unrecognised { code } => code.clone(),
        }
    }
}

/// The gate to the street knows whether a request was written; that is what recovery needs to know.
impl From<OutboundError> for Failure {
    fn from(error: OutboundError) -> Self {
        match error {
            OutboundError::Refused(_) | OutboundError::NotSent(_) => Self::NotSent,
            // Only refusals come as this; a success that is too large is unknown.
            OutboundError::TooLarge { status } => classify_status(status, true),
            OutboundError::Unknown(_) => Self::Ambiguous { code: Code::own("no_answer") },
        }
    }
}

/// The classes of the table below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Reauth,
    Configuration,
    RateLimited,
    Transient,
    /// Part of the work may have been done (Slack says so of its `internal_error`).
    ServerError,
    Admin,
}

/// What a provider's error codes mean, as data. An entry is a code, or a status, a space and a code where the same code means
/// something else with another status (Atlassian). Codes are compared without case.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ErrorTable {
    /// The grant is dead.
    reauth: Vec<String>,
    /// Our client is not set up rightly.
    configuration: Vec<String>,
    /// Too many calls.
    rate_limited: Vec<String>,
    /// It passes, and nothing was done.
    transient: Vec<String>,
    /// It passes, and part of the work may have been done.
    server_error: Vec<String>,
    /// A person must act at the provider.
    admin: Vec<String>,
}

impl ErrorTable {
    /// The class of a code, from this table or the common one.
    fn class(&self, status: u16, word: &str) -> Option<Class> {
        let rows = [
            (&self.reauth, Class::Reauth),
            (&self.configuration, Class::Configuration),
            (&self.rate_limited, Class::RateLimited),
            (&self.transient, Class::Transient),
            (&self.server_error, Class::ServerError),
            (&self.admin, Class::Admin),
        ];
        let with_status = format!("{status} {word}");
        let listed = |wanted: &str| {
            let among = |list: &&Vec<String>| list.iter().any(|one| one.eq_ignore_ascii_case(wanted));
            rows.iter().find(|(list, _)| among(list)).map(|(_, class)| *class)
        };
        let common = || COMMON.iter().find(|(known, _)| known.eq_ignore_ascii_case(word)).map(|(_, class)| *class);
        listed(&with_status).or_else(|| listed(word)).or_else(common)
    }
}

/// RFC 6749 section 5.2, OpenID Connect Core section 3.1.2.6, and words that several providers share.
const COMMON: &[(&str, Class)] = &[
    ("invalid_grant", Class::Reauth),
    ("interaction_required", Class::Reauth),
    ("consent_required", Class::Reauth),
    ("login_required", Class::Reauth),
    ("invalid_client", Class::Configuration),
    ("unauthorized_client", Class::Configuration),
    ("unsupported_grant_type", Class::Configuration),
    ("invalid_scope", Class::Configuration),
    ("invalid_request", Class::Configuration),
    ("redirect_uri_mismatch", Class::Configuration),
    ("slow_down", Class::RateLimited),
    ("rate_limit_exceeded", Class::RateLimited),
    ("server_error", Class::ServerError),
    ("temporarily_unavailable", Class::ServerError),
    ("access_denied", Class::Admin),
];

/// What an answer's status and error code mean. `spends` says whether the call may have spent a one-time token,
/// which turns an unclear answer into an ambiguous one.
///
/// No server's failure says that nothing was done, `503` neither: a proxy may have lost what stood behind it in the middle of the
/// work (fact sheet D.4). Only `408` and `425` say that the request was not even taken.
pub(super) fn classify(
    table: &ErrorTable,
    status: u16,
    words: &[&str],
    after: Option<Duration>,
    spends: bool,
) -> Failure {
    if status == 429 {
        return Failure::RateLimited { after };
    }
    let known = words.iter().find_map(|word| Some((*word, table.class(status, word)?)));
    let Some(word) = known.map(|(word, _)| word).or(words.last().copied()) else {
        return classify_status(status, spends);
    };
    // What the catalogue lists is no token, whatever it looks like.
    let code = if known.is_some() { Code::listed(word) } else { Code::from_provider(word) };
    match known.map(|(_, class)| class) {
        Some(Class::Reauth) => Failure::Reauth { code },
        Some(Class::Configuration) => Failure::Configuration { code },
        Some(Class::RateLimited) => Failure::RateLimited { after },
        Some(Class::ServerError) if spends => Failure::ServerError { code },
        Some(Class::ServerError | Class::Transient) => Failure::Transient { code },
        Some(Class::Admin) => Failure::Admin { code },
        None if status >= 500 || status == 408 || status == 425 => classify_status(status, spends),
        None => Failure::Unrecognised { code },
    }
}

fn classify_status(status: u16, spends: bool) -> Failure {
    let code = Code::http(status);
    match status {
        408 | 425 => Failure::Transient { code },
        500..=599 if spends => Failure::ServerError { code },
        500..=599 => Failure::Transient { code },
        _ => Failure::Unrecognised { code },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_bounded_and_tokens_do_not_pass_as_codes() {
        // OA-16
        let rows = [
            ("invalid_grant", "invalid_grant"),
            ("BAD_REFRESH_TOKEN", "bad_refresh_token"),
            ("", "unlisted"),
            ("xoxe-1-My0xLUFB", "unlisted"),
            ("<script>", "unlisted"),
            ("a\r\nb", "unlisted"),
            ("\u{1b}[31m", "unlisted"),
            ("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b", "unlisted"),
            ("mzxw6ytboi3dsnrqgezdgnbvgy3tqojq", "unlisted"),
            ("AADSTS7000215", "aadsts7000215"),
            ("restricted_client:unsupported_response_type", "restricted_client:unsupported_response_type"),
            (&"a_".repeat(33), "unlisted"),
            (&"a_".repeat(32), &"a_".repeat(32)),
        ];
        for (text, wanted) in rows {
            assert_eq!(Code::from_provider(text).as_str(), wanted, "{text:?}");
        }
    }

    #[test]
    fn a_status_alone_says_whether_a_one_time_token_may_be_spent() {
        // fact sheet D.4 and D.5
        let table = ErrorTable::default();
        let seen = |status, spends| classify(&table, status, &[], None, spends);
        let code = Code::http;
        assert_eq!(seen(502, true), Failure::ServerError { code: code(502) });
        assert_eq!(seen(502, false), Failure::Transient { code: code(502) });
        assert_eq!(seen(503, true), Failure::ServerError { code: code(503) });
        assert_eq!(seen(408, true), Failure::Transient { code: code(408) });
        assert_eq!(seen(302, true), Failure::Unrecognised { code: code(302) });
        assert_eq!(seen(404, true), Failure::Unrecognised { code: code(404) });
        let after = Some(Duration::from_secs(7));
        assert_eq!(classify(&ErrorTable::default(), 429, &[], after, true), Failure::RateLimited { after });
    }

    #[test]
    fn rl_06_no_word_of_a_failing_server_says_that_a_one_time_token_is_unspent() {
        for word in ["server_error", "temporarily_unavailable"] {
            for status in [200, 400, 500, 502, 503] {
                let failure = classify(&ErrorTable::default(), status, &[word], None, true);
                assert_eq!(failure, Failure::ServerError { code: Code::own(word) }, "{status}");
                let failure = classify(&ErrorTable::default(), status, &[word], None, false);
                assert_eq!(failure, Failure::Transient { code: Code::own(word) }, "{status}");
            }
        }
    }

    #[test]
    fn a_wrong_client_secret_is_never_the_persons_problem() {
        for word in ["invalid_client", "unauthorized_client", "invalid_request"] {
            let failure = classify(&ErrorTable::default(), 401, &[word], None, true);
            assert_eq!(failure, Failure::Configuration { code: Code::from_provider(word) });
        }
    }

    #[test]
    fn a_providers_row_wins_over_the_common_one() {
        let failure = classify(
            &ErrorTable { reauth: vec!["access_denied".into()], ..ErrorTable::default() },
            400,
            &["access_denied"],
            None,
            false,
        );
        assert_eq!(failure, Failure::Reauth { code: Code::own("access_denied") });
    }

    #[test]
    fn an_unknown_word_with_a_server_error_is_a_server_error() {
        let failure = classify(&ErrorTable::default(), 500, &["whoops"], None, true);
        assert_eq!(failure, Failure::ServerError { code: Code::http(500) });
        let failure = classify(&ErrorTable::default(), 400, &["whoops"], None, true);
        assert_eq!(failure, Failure::Unrecognised { code: Code::own("whoops") });
    }
}
