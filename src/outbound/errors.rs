//! Why there is no gate, why a URL is never called, and why there is no answer.

/// The gate could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OutboundSetupError {
    /// A setting to correct.
    #[error(
        "`{entry}` in VALETKEY_OUTBOUND_ALLOW is not a pair like `127.0.0.1:9000`: an exact host (a name, a loopback \
         or a public address) and a port"
    )]
    Allow {
        /// The entry as it was written.
        entry: String,
    },
    /// A machine to correct.
    #[error("TLS could not be set up; the system needs its trusted certificates (package `ca-certificates`)")]
    Tls(#[from] rustls::Error),
    /// The HTTP client did not accept our settings.
    #[error("the HTTP client could not be built")]
    Client,
}

/// Why a URL is never called. Nothing was looked up for a refusal of [`Outbound::check_url`](super::Outbound::check_url), and
/// nothing was dialled for any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Neither https nor wss, nor what stands for them on a listed pair; or a WebSocket URL where
    /// HTTP is spoken, and the reverse.
    #[error("the URL must be https")]
    Scheme,
    /// Plain http or ws to a pair that is not in `VALETKEY_OUTBOUND_ALLOW`.
    #[error("plain http is not allowed for this host and port")]
    PlainHttp,
    /// A user name or password in the URL (SS-03).
    #[error("the URL must not carry a user name or password")]
    Userinfo,
    /// A name without a dot, with a dot at its end, or under a local or metadata suffix.
    #[error("the host must be a public name")]
    Name,
    /// A literal address, or a name of which no address is public (SS-02).
    #[error("the host must have a public address")]
    Address,
}

/// What went wrong on the way. A closed list, so that it can label a metric (SH-05).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Cause {
    /// The request holds something that cannot be written as HTTP, such as a line break in a header.
    #[error("the request cannot be written as HTTP")]
    Invalid,
    /// The name has no address, or the lookup failed.
    #[error("the name could not be resolved")]
    Dns,
    /// Nobody listens, or there is no route.
    #[error("the connection could not be made")]
    Connect,
    /// The certificate or the handshake was not acceptable.
    #[error("TLS could not be agreed on")]
    Tls,
    /// A limit of time was reached.
    #[error("it took too long")]
    Timeout,
    /// The connection ended before an answer began.
    #[error("the connection was closed without an answer")]
    Reset,
    /// What came back is not HTTP, or not the WebSocket protocol that was asked for.
    #[error("the answer does not follow the protocol")]
    Protocol,
    /// The answer began with this HTTP status, but its body was cut short, came too slowly or, after
    /// a 2xx status, was larger than the limit.
    #[error("the answer with status {status} is incomplete")]
    Truncated {
        /// The HTTP status.
        status: u16,
    },
    /// A WebSocket handshake was answered with this HTTP status instead of 101.
    #[error("the WebSocket was refused with status {status}")]
    Status {
        /// The HTTP status.
        status: u16,
    },
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// The gate stays closed for this URL. Nothing was sent.
    #[error("the call was refused")]
    Refused(#[source] Refusal),
    /// Nothing of the request can have reached the application on the other side.
    #[error("the call was not sent")]
    NotSent(#[source] Cause),
    /// The request, or a part of it, may have arrived and may have had its effect.
    #[error("whether the call had an effect is unknown")]
    Unknown(#[source] Cause),
    /// An error status (not 2xx) with a body larger than the limit. The same after a 2xx status is
    /// [`OutboundError::Unknown`], since that call had its effect and only the answer is lost.
    #[error("the answer with status {status} is too large")]
    TooLarge {
        /// The HTTP status.
        status: u16,
    },
}

impl OutboundError {
    /// False only when the other side cannot have acted: sending again is then safe.
    #[must_use]
    pub fn may_have_had_effect(&self) -> bool {
        matches!(self, Self::Unknown(_) | Self::TooLarge { .. })
    }

    /// The HTTP status, when an answer began.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::TooLarge { status }
            | Self::NotSent(Cause::Truncated { status } | Cause::Status { status })
            | Self::Unknown(Cause::Truncated { status } | Cause::Status { status }) => Some(*status),
            Self::Refused(_) | Self::NotSent(_) | Self::Unknown(_) => None,
        }
    }
}

impl From<Refusal> for OutboundError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
