//! When something is wrong: say what, keep the request's id, and offer a next step.

use askama::Template;

use super::{Frame, Place};

/// The page for every error that is not part of a form.
#[derive(Clone, Debug, Template)]
#[template(path = "errors/error.html")]
pub struct ErrorPage {
    /// The common part; the viewer is nobody when it is not known.
    pub frame: Frame,
    /// Which error.
    pub kind: ErrorKind,
    /// The request's id, as logs and `instance` carry it.
    pub request_id: String,
    /// Seconds after which trying again makes sense (`Retry-After`).
    pub retry_after: Option<u64>,
}

/// The errors that have a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// 400: the form or address makes no sense, or the `csrf` field is not ours.
    BadRequest,
    /// 403
    Forbidden,
    /// 403: a form that another site's page has sent.
    OtherSite,
    /// 404: also for what is another's.
    NotFound,
    /// 410
    Gone,
    /// 429
    TooMany,
    /// 500
    Internal,
    /// 503
    Unavailable,
}

impl ErrorKind {
    /// Every kind there is.
    pub const ALL: [Self; 8] = [
        Self::BadRequest,
        Self::Forbidden,
        Self::OtherSite,
        Self::NotFound,
        Self::Gone,
        Self::TooMany,
        Self::Internal,
        Self::Unavailable,
    ];

    /// The kind for a status; anything unknown is told like its family.
    #[must_use]
    pub fn of(status: u16) -> Self {
        match status {
            403 => Self::Forbidden,
            404 => Self::NotFound,
            410 => Self::Gone,
            429 => Self::TooMany,
            503 => Self::Unavailable,
            400..=499 => Self::BadRequest,
            _ => Self::Internal,
        }
    }

    /// The status.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Forbidden | Self::OtherSite => 403,
            Self::NotFound => 404,
            Self::Gone => 410,
            Self::TooMany => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
        }
    }

    /// The heading.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "That request was not complete",
            Self::Forbidden => "You may not open this page",
            Self::OtherSite => "That came from another site",
            Self::NotFound => "There is nothing here",
            Self::Gone => "This is gone",
            Self::TooMany => "Too many attempts",
            Self::Internal => "Something broke on our side",
            Self::Unavailable => "We will be right back",
        }
    }

    /// What is the matter.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::BadRequest => {
                "The page was open for too long, or what was sent was not complete. Nothing was changed."
            }
            Self::Forbidden => "You are signed in, but this needs a permission that you do not have.",
            Self::OtherSite => {
                "The page that you came from may not send this form, so nothing was done. Be careful with that page."
            }
            Self::NotFound => "The address may be mistyped, or the thing is no longer there.",
            Self::Gone => "It worked once, and that once is over.",
            Self::TooMany => "There were too many attempts in a short time, so we slow down. Nothing was changed.",
            Self::Internal => "It is not your fault, and your keys are safe. We have written down what happened.",
            Self::Unavailable => "We are busy or being looked after. Your connections keep their keys meanwhile.",
        }
    }

    /// What to do.
    #[must_use]
    pub fn next_step(self) -> &'static str {
        match self {
            Self::BadRequest => "Go back, reload the page and try once more.",
            Self::Forbidden => "Ask an owner of your tenant, or sign in as somebody else.",
            Self::OtherSite => "If you had a link, open the link itself. Otherwise begin again from your start page.",
            Self::NotFound => "Begin again from your start page.",
            Self::Gone => "Ask the platform you came from for a new link.",
            Self::TooMany => "Wait a little, then try again.",
            Self::Internal => "Try again in a minute. If it stays, tell support the request id below.",
            Self::Unavailable => "Try again in a minute.",
        }
    }
}

/// 410 for `/connect/{token}` and `/setup/{token}`: a one-time link that no longer works. An unknown link is told
/// like an expired one, so that nobody learns which links existed.
#[derive(Clone, Debug, Template)]
#[template(path = "errors/link_gone.html")]
pub struct LinkGonePage {
    /// The common part.
    pub frame: Frame,
    /// Why.
    pub reason: LinkGone,
    /// The tenant's name, when the link was real.
    pub platform: Option<String>,
    /// The request's id.
    pub request_id: String,
}

impl ErrorPage {
    fn place(&self) -> Option<Place> {
        None
    }
}

/// Why a one-time link no longer works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkGone {
    /// Its time is over, or it never was.
    Expired,
    /// Somebody has continued with it.
    Used,
}

#[cfg(test)]
mod samples {
    use super::super::tests::{EVIL, end_user, member, nobody};
    use super::*;

    impl ErrorPage {
        pub(crate) fn samples() -> Vec<Self> {
            let mut all: Vec<Self> = ErrorKind::ALL
                .map(|kind| Self { frame: end_user(), kind, request_id: "req_0698k2g3t5m7".into(), retry_after: None })
                .into();
            all.push(Self {
                frame: nobody(),
                kind: ErrorKind::TooMany,
                request_id: EVIL.into(),
                retry_after: Some(30),
            });
            all.push(Self { frame: member(), kind: ErrorKind::NotFound, request_id: EVIL.into(), retry_after: None });
            all
        }
    }

    impl LinkGonePage {
        pub(crate) fn samples() -> Vec<Self> {
            let expired = Self {
                frame: nobody(),
                reason: LinkGone::Expired,
                platform: None,
                request_id: "req_0698k2g3t5m7".into(),
            };
            let used = Self { reason: LinkGone::Used, platform: Some("Acme Voice".into()), ..expired.clone() };
            let odd = Self { platform: Some(EVIL.into()), request_id: EVIL.into(), ..used.clone() };
            vec![expired, used, odd]
        }
    }
}
