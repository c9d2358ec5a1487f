//! The vocabulary of the protocol: what the row says, what can happen, what is to be done.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::clock::Millis;

/// A short machine-readable cause: ours or a provider's error code, never a provider's text.
///
/// At most 64 characters of `a-z 0-9 _ . -`, so it may go into logs, answers and rows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Code(Cow<'static, str>);

impl Code {
    /// The answer to a rotating refresh was lost; the user has revoked nothing.
    pub const ROTATION_RESPONSE_LOST: Self = Self(Cow::Borrowed("rotation_response_lost"));
    /// A refresh was sent and its outcome is not known yet.
    pub const IN_DOUBT: Self = Self(Cow::Borrowed("in_doubt"));
    /// The request never left us.
    pub const NOT_SENT: Self = Self(Cow::Borrowed("not_sent"));
    /// The request left us and no whole answer came back.
    pub const RESPONSE_LOST: Self = Self(Cow::Borrowed("response_lost"));
    /// The provider asked for a pause.
    pub const RATE_LIMITED: Self = Self(Cow::Borrowed("rate_limited"));
    /// The provider keeps answering something we do not know; somebody has to look.
    pub const NEEDS_ATTENTION: Self = Self(Cow::Borrowed("needs_attention"));
    /// There is nothing to refresh with.
    pub const NOT_REFRESHABLE: Self = Self(Cow::Borrowed("not_refreshable"));
    /// Somebody else is refreshing.
    pub const REFRESH_IN_PROGRESS: Self = Self(Cow::Borrowed("refresh_in_progress"));
    /// The database did not do what it was asked.
    pub const STORE_UNAVAILABLE: Self = Self(Cow::Borrowed("store_unavailable"));
    /// The user's employer lets sessions end after some hours.
    pub const SESSION_POLICY: Self = Self(Cow::Borrowed("session_policy"));
    /// So many more refusals than successes that the client is to blame rather than its users.
    pub const REFUSED_WAVE: Self = Self(Cow::Borrowed("refused_wave"));
    /// A stored token cannot be opened.
    pub const UNREADABLE: Self = Self(Cow::Borrowed("stored_token_unreadable"));
    /// The catalogue does not know the row's provider or kind.
    pub const PROVIDER_UNKNOWN: Self = Self(Cow::Borrowed("provider_unknown"));
    /// This node is going down.
    pub const SHUTTING_DOWN: Self = Self(Cow::Borrowed("shutting_down"));

    /// A code from outside: other characters become `_`, the length is cut at 64.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let tame = |c: char| match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9' | '_' | '.' | '-') => c,
            _ => '_',
        };
        Self(Cow::Owned(text.chars().take(64).map(tame).collect()))
    }

    /// The code as text.
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

/// How far the last claim has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nobody is refreshing.
    Idle,
    /// Somebody has claimed, and has not let the refresh token out: whoever dies here has lost nothing.
    Claimed,
    /// Somebody has claimed, and may have sent the refresh token.
    Sent {
        /// When that was written.
        since: Millis,
    },
}

impl Phase {
    /// Its name in the row.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Claimed => "claimed",
            Self::Sent { .. } => "sent",
        }
    }
}

/// A refresh token was sent and nobody knows what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// When the token was first sent; a provider's grace counts from here.
    pub first_sent: Millis,
    /// When the last attempt ended without an outcome; the 120 s of doubt count from here.
    pub since: Millis,
    /// How often the token has been sent again.
    pub replays: u8,
    /// Every attempt was answered by a server that said that it failed, or was a probe of a provider that answered nobody: the
    /// token is probably as good as before, and nobody holds an answer.
    pub likely_unspent: bool,
}

impl Doubt {
    /// Whether the token may be good all the same: a server said that it failed, or the provider answered nobody at that
    /// time. Such a token is tried once more when its access token has ended, rather than given up.
    #[must_use]
    pub fn may_hope(&self, silent_at: Option<Millis>) -> bool {
        self.likely_unspent || silent_at.is_some_and(|silent_at| silent_at >= self.first_sent)
    }
}

/// The credential's standing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It may be refreshed.
    Active,
    /// Only the user can help.
    NeedsReauth {
        /// Why.
        reason: Code,
    },
    /// Paused: the integration has another client id than the one the user consented to (API section 6.3).
    Misconfigured,
    /// Disconnected; the row is a tombstone.
    Deleted,
}

/// How the integration stands, joined to the credential's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Integration {
    /// Nothing is known against it.
    Working,
    /// The provider asked this client for a pause; all nodes share it (RL-09).
    RateLimited {
        /// End of the pause.
        until: Millis,
    },
    /// The provider refuses the client itself. One probe a minute finds out when it was put right.
    Faulty {
        /// What the provider said.
        code: Code,
        /// When the next probe may be sent.
        probe_at: Millis,
    },
    /// Many attempts in a row got no answer, or were told that the provider failed. One probe every half minute finds
    /// out when it is back (RL-08, RL-17).
    Unreachable {
        /// What the last of them met.
        code: Code,
        /// When the next probe may be sent.
        probe_at: Millis,
    },
}

/// How much the sweep does for the credentials of an integration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Keep {
    /// Every credential is refreshed ahead of its readers.
    #[default]
    Always,
    /// Those used within this time are; the others are refreshed only so often that the provider does not end them.
    Active {
        /// How long after its last use a credential counts as active.
        within: Duration,
    },
    /// Nothing is refreshed before somebody asks for it.
    OnDemand,
}

/// Answers in a row that no table explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Unrecognised {
    /// How many since the last success.
    pub count: u32,
    /// When the first of them came.
    pub since: Millis,
}

/// What the credential's row says, without any token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Counts token sets; grows with every store, reconnect and import.
    pub generation: i64,
    /// Counts claims and their ends without tokens; never goes back, not even by a reconnect.
    pub fence: i64,
    /// Counts consents: 1 for the first connection, one more for every reconnect. Tells a reconnect from a refresh.
    pub consents: i64,
    /// The fence of the claim whose answer is stored; `None` after a connection, reconnect or import.
    pub stored_fence: Option<i64>,
    /// End of the lease; `None` when nobody holds one.
    pub lease_until: Option<Millis>,
    /// The lease belongs to this very process (its owner is a value made anew at each start).
    pub lease_is_mine: bool,
    /// Whether somebody may be sending.
    pub phase: Phase,
    /// A recorded doubt.
    pub doubt: Option<Doubt>,
    /// The credential's standing.
    pub status: Status,
    /// The integration's standing.
    pub integration: Integration,
    /// The last attempt, of any credential of the integration, that got no answer after three others in a row.
    pub silent_at: Option<Millis>,
    /// The integration's wish for the sweep.
    pub keep: Keep,
    /// When the access token dies; `None` when it does not, or when the provider does not say.
    pub expires_at: Option<Millis>,
    /// The access token's life when it was new.
    pub original_life: Option<Duration>,
    /// Whether there is a refresh token.
    pub has_refresh_token: bool,
    /// Not before this time; the credential's own back-off.
    pub next_attempt_at: Option<Millis>,
    /// Failed attempts since the last success.
    pub attempts: u32,
    /// What the last attempt failed of; `None` after a success.
    pub last_error: Option<Code>,
    /// When it did.
    pub failed_at: Option<Millis>,
    /// Answers that nobody understood, since the last success.
    pub unrecognised: Unrecognised,
    /// When the stored token set was received.
    pub refreshed_at: Millis,
    /// When somebody last used the credential.
    pub last_used_at: Millis,
}

/// What became of one request to the provider. `providers` classifies; see the table in its documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// A new token set.
    Fresh(T),
    /// The request never left: name look-up, connection or TLS failed.
    NotSent,
    /// The request left; timeout, reset, or a 2xx that cannot be read.
    Ambiguous,
    /// A server has answered that it failed (500, 502, 504), which does not say whether it had done its work before.
    ServerError(Code),
    /// `invalid_grant` and its relatives.
    Reauth(Code),
    /// `invalid_client` and its relatives: the integration is wrong.
    Configuration(Code),
    /// 429 and its relatives, with the end of the pause when the provider said one.
    RateLimited(Option<Millis>),
    /// The provider itself said that it failed and did nothing.
    Transient(Code),
    /// An administrator at the provider's side forbids it.
    Admin(Code),
    /// A definite refusal that no table explains.
    Unrecognised(Code),
    /// Nothing was sent, for a reason of this node's own, such as a database that is away: says nothing about the provider.
    NotTried(Code),
    /// Nothing was sent: the row itself is damaged, and trying again does not mend it (RL-16).
    Poisoned(Code),
}

/// A claim that was won: what a late answer needs to be stored, also from a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The generation whose refresh token is sent.
    pub generation: i64,
    /// The fence of this claim.
    pub fence: i64,
    /// The consent that the refresh token belongs to.
    pub consents: i64,
}

/// A claim to be made, in one transaction.
///
/// `UPDATE … SET fence = fence + 1, lease_until, lease_owner = this process, phase = sent since now, or claimed, doubt
/// WHERE generation = $ AND fence = $ AND phase = $ AND the doubt is as old as $ AND status = active AND (lease_until IS NULL OR lease_until <= now OR
/// lease_until > $believable)`; with `probe` also the integration's `probe_at` moves from not later than
/// now to that time. All or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Only if the row still has this generation,
    pub generation: i64,
    /// this fence,
    pub fence: i64,
    /// this phase, since its holder may announce without a new fence,
    pub phase: Phase,
    /// and this doubt, since another may write one down without a new fence.
    pub doubt_since: Option<Millis>,
    /// End of the lease.
    pub lease_until: Millis,
    /// A lease that ends later than this was written by a clock that has jumped, and does not count.
    pub believable: Millis,
    /// The doubt to write, with this replay counted; `None` clears it.
    pub doubt: Option<Doubt>,
    /// The phase is `claimed` first; `sent` comes by an [`Action::Announce`] of its own.
    pub announces: bool,
    /// When the integration is faulty or unreachable: the end of the time in which nobody else may probe.
    pub probe: Option<Millis>,
}

/// What a failed attempt leaves behind. Ends the claim: phase idle, no lease.
///
/// Written where generation and fence are unchanged; the columns take exactly these values. Where no
/// doubt remains the fence moves on, or whoever has read the row before would still take the claim for a dead one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Only if the row still has this generation,
    pub generation: i64,
    /// and this fence,
    pub fence: i64,
    /// and, where this is set, phase `sent`: written by somebody who takes the holder of the claim for dead, and must not
    /// overwrite what that has come to after all.
    pub abandoned: bool,
    /// Failed attempts since the last success.
    pub attempts: u32,
    /// Not before this time.
    pub next_attempt_at: Millis,
    /// Why; also what `degraded` tells readers.
    pub last_error: Code,
    /// The doubt that remains, if any.
    pub doubt: Option<Doubt>,
    /// Answers that nobody understood.
    pub unrecognised: Unrecognised,
}

/// Something to be written that is not a token set. One transaction, where generation and fence are unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The attempt failed.
    Failure(Failure),
    /// The provider did not answer, or said that it failed. Counts against the integration; at `open_after` in a row,
    /// without any answer between, it becomes [`Integration::Unreachable`].
    Unanswered {
        /// So many in a row open the breaker.
        open_after: u32,
        /// When the integration may then be probed.
        probe_at: Millis,
        /// The credential's part.
        failure: Failure,
    },
    /// The provider asked the client for a pause.
    RateLimited {
        /// End of the integration's pause: never shortens a longer one.
        until: Millis,
        /// The credential's part.
        failure: Failure,
    },
    /// The provider refuses the client. No credential's status changes.
    Configuration {
        /// What the provider said.
        code: Code,
        /// When the integration may be probed.
        probe_at: Millis,
        /// The credential's part.
        failure: Failure,
    },
    /// Status `needs_reauth`; ends the claim, clears doubt and back-off. The token stays for its remaining life.
    Reauth {
        /// Only if the row still has this generation,
        generation: i64,
        /// and this fence.
        fence: i64,
        /// Why.
        reason: Code,
        /// The provider has accepted the client: a faulty integration works again, unless it is held for a wave.
        heals_integration: bool,
        /// What to write instead when this is one refusal too many; `None` when it does not count as one.
        wave: Option<Wave>,
    },
}

/// The guard against marking every user of a tenant for what is the client's fault (provider facts, D.5).
///
/// In the transaction of the [`Record::Reauth`] that carries it the refusal is counted, from anew when the first of them is older
/// than `since`; a success takes two away, and the fault of the integration sets the count to nothing. At `most` the integration becomes faulty with
/// [`Code::REFUSED_WAVE`] instead, `failure` is written in place of `needs_reauth`, and the credentials that this wave has
/// marked so far are active again; the event is [`Event::Withheld`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wave {
    /// So many, less two for every success between, are a wave.
    pub most: u32,
    /// Older refusals belong to no wave.
    pub since: Millis,
    /// When the integration may be probed.
    pub probe_at: Millis,
    /// The credential's part.
    pub failure: Failure,
}

/// What is to be done next. Exactly one per event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<T> {
    /// Read the row → [`Event::Loaded`], [`Event::Gone`], [`Event::StoreFailed`].
    Load,
    /// Claim → [`Event::Claimed`], [`Event::ClaimLost`], [`Event::StoreFailed`], [`Event::StoreUnknown`].
    Claim(Claim),
    /// Call the provider, beside everything else → [`Event::Answered`], and [`Event::Tick`] meanwhile.
    Send {
        /// Reserves the right to the refresh token of this generation.
        claimed: Claimed,
        /// The token waits on a connection that stands → [`Event::AtDoor`], and leaves at [`Action::Depart`].
        announces: bool,
        /// Monotonic time to wait for the answer once the request has left; then [`Outcome::Ambiguous`].
        give_up_after: Duration,
        /// Monotonic time between two [`Event::Tick`].
        tick_every: Duration,
    },
    /// Write phase `sent` since now and move the lease's end, where generation and fence are unchanged and the phase is `claimed` → [`Event::Announced`],
    /// [`Event::AnnounceLost`], [`Event::StoreFailed`], [`Event::StoreUnknown`]. After any but the first the call is called off.
    Announce {
        /// The claim.
        claimed: Claimed,
        /// Its new end.
        lease_until: Millis,
    },
    /// Let the token out; then as after [`Action::Send`].
    Depart,
    /// Move the lease's end where generation and fence are unchanged and the phase is not `idle` →
    /// [`Event::LeaseRenewed`], [`Event::LeaseLost`], [`Event::StoreFailed`].
    RenewLease {
        /// The claim.
        claimed: Claimed,
        /// Its new end.
        lease_until: Millis,
    },
    /// Store a token set, with audit row and outbox, as generation + 1 with `stored_fence = claimed.fence` →
    /// [`Event::Stored`], [`Event::StoreLost`], [`Event::Gone`], [`Event::StoreFailed`], [`Event::StoreUnknown`].
    ///
    /// Only where the row has this generation and these consents and is not deleted. Clears phase, doubt, errors
    /// and back-off; clears the lease; turns `needs_reauth` with reason `rotation_response_lost` into
    /// `active` and leaves every other status; a faulty integration works again.
    Store {
        /// What to store.
        tokens: T,
        /// The claim it answers.
        claimed: Claimed,
        /// Only if the row still has this generation.
        generation: i64,
        /// Only if, beyond that, nobody has claimed since: the row's fence is `claimed.fence`.
        only_fence: bool,
    },
    /// Write → [`Event::Recorded`], [`Event::Withheld`], [`Event::RecordLost`], [`Event::StoreFailed`],
    /// [`Event::StoreUnknown`].
    Record(Record),
    /// Wait until this time → [`Event::Woken`].
    Wait {
        /// Until when.
        until: Millis,
    },
    /// End these tokens at the provider, best effort → [`Event::Revoked`].
    Revoke(T),
    /// Write the sealed tokens to the local spool, durably → [`Event::Spooled`], [`Event::SpoolFailed`].
    Spool {
        /// What to keep.
        tokens: T,
        /// The claim it answers, for [`super::Flight::replay`].
        claimed: Claimed,
    },
    /// Go on with what is under way; the event asked for nothing.
    Continue,
    /// The flight is over.
    Done(Verdict),
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<T> {
    /// The flight begins.
    Begin,
    /// The row.
    Loaded(View),
    /// There is no such row.
    Gone,
    /// The claim is ours, with this fence.
    Claimed {
        /// The row's fence after the claim.
        fence: i64,
    },
    /// The row has changed since it was read, or somebody else probes the integration.
    ClaimLost,
    /// The connection stands, and the token is about to leave.
    AtDoor,
    /// It is durable that the token may have been sent.
    Announced,
    /// The claim is no longer ours: nothing must leave.
    AnnounceLost,
    /// The provider's answer, or that there is none.
    Answered(Outcome<T>),
    /// The tokens are durable.
    Stored,
    /// The comparison failed; this is the row now.
    StoreLost(View),
    /// A statement certainly had no effect, or a read failed.
    StoreFailed,
    /// A commit may or may not have happened.
    StoreUnknown,
    /// The record was written.
    Recorded,
    /// One refusal too many: the integration was held instead of the credential (see [`Wave`]).
    Withheld,
    /// Generation or fence have changed; nothing was written.
    RecordLost,
    /// Some monotonic time has passed while waiting for the provider.
    Tick,
    /// The lease lives on.
    LeaseRenewed,
    /// The claim is no longer ours, or the row is gone.
    LeaseLost,
    /// The wait is over.
    Woken,
    /// The late tokens were revoked, or could not be.
    Revoked,
    /// The spool holds the tokens durably.
    Spooled,
    /// There is no spool, or it cannot be written.
    SpoolFailed,
    /// The node goes down: bring things to an end.
    Shutdown,
}

/// How a flight ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Hand out the token set of this generation: the one just stored, or the one last loaded.
    Serve {
        /// Which one.
        generation: i64,
        /// Why it is older or shorter-lived than one could wish, if so.
        degraded: Option<Code>,
    },
    /// No usable token now; somebody is at it, or the outcome is in doubt.
    RefreshInProgress {
        /// When to ask again.
        retry_after: Duration,
    },
    /// Only the user can help.
    NeedsReauth {
        /// Why.
        reason: Code,
    },
    /// Only the tenant's administrator can help.
    Misconfigured,
    /// The credential is deleted.
    Gone,
    /// No usable token, and the provider wants a pause.
    RateLimited {
        /// Its end.
        until: Millis,
    },
    /// No usable token, and the attempt failed.
    Unavailable {
        /// Why.
        code: Code,
        /// When to ask again.
        retry_after: Duration,
    },
}
