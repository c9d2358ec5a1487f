//! What happened, counted: a storm in which nothing happens proves nothing.

use std::fmt;

macro_rules! deeds {
    ($($deed:ident $words:literal),* $(,)?) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Deed { $($deed),* }

        const WORDS: &[&str] = &[$($words),*];
    };
}

deeds! {
    Step "steps",
    Flight "flights",
    Claimed "claims won",
    ClaimLost "claims lost",
    Announced "departures announced",
    AnnounceLost "departures called off, since another had claimed",
    Sent "requests sent",
    Refreshed "token sets given by the provider",
    Stored "token sets stored",
    LateStore "late answers stored after their lease or claim",
    Healed "needs_reauth healed by a late answer",
    HealedUnspent "needs_reauth healed by an attempt that came to nothing",
    Replayed "replays inside the grace",
    LastTry "last tries of a token that may be good",
    LastTrySaved "last tries that saved a connection",
    LastTryLost "last tries of a token that was spent",
    CutBefore "answers cut before the effect",
    CutAfter "answers cut after the effect",
    FailedBefore "errors of a server before the effect",
    FailedAfter "errors of a server after the effect",
    GivenUp "answers given up after their time",
    NotSent "requests that never left",
    Refused "definite refusals",
    InvalidGrant "invalid_grant",
    Configuration "wrong client secret met",
    Failed "statements failed",
    UnknownDone "commits of unknown outcome, done",
    UnknownUndone "commits of unknown outcome, not done",
    Stalled "statements stalled",
    StoreAway "databases away",
    ProviderAway "providers away",
    Crashed "crashes",
    CrashedInFlight "crashes in mid-flight",
    CrashedUnsent "crashes between claim and departure",
    Stopped "orderly stops",
    Slept "nodes stopped and continued",
    Jumped "clock jumps",
    Copied "answers copied into the spool while they are stored again",
    Spooled "answers spooled",
    Brought "spooled answers brought home",
    BroughtTwice "spooled answers brought home twice",
    Doubted "doubts recorded",
    LostForGood "needs_reauth: rotation_response_lost",
    ReauthRefused "needs_reauth: refused by the provider",
    ReauthNothing "needs_reauth: not_refreshable",
    Crowd "crowds of failures at the same client",
    Damaged "rows that could not be opened",
    Outage "integrations held for an outage",
    Withheld "refusals withheld, since they were too many",
    Disconnected "disconnects",
    Reconnected "reconnects",
    Refilled "consents that brought no other refresh token where use spends it",
    BroughtAgain "consents that brought no other refresh token elsewhere",
    Told "ends of tokens that the provider told of",
    UserRevoked "consents taken back at the provider",
    ClientChanged "client ids changed",
    SecretBroken "client secrets made wrong",
    Mended "integrations mended",
    LateRevoked "late token sets revoked",
    Degraded "tokens served degraded",
    Served "tokens served",
}

/// Counts of one world, or of many.
#[derive(Clone)]
pub struct Tally([u64; WORDS.len()]);

impl Default for Tally {
    fn default() -> Self {
        Self([0; WORDS.len()])
    }
}

impl Tally {
    pub fn note(&mut self, deed: Deed) {
        self.0[deed as usize] += 1;
    }

    pub fn of(&self, deed: Deed) -> u64 {
        self.0[deed as usize]
    }

    pub fn add(&mut self, other: &Self) {
        for (sum, count) in self.0.iter_mut().zip(other.0) {
            *sum += count;
        }
    }

    /// Which deeds never happened.
    pub fn missing(&self) -> Vec<&'static str> {
        WORDS.iter().zip(self.0).filter(|(_, count)| *count == 0).map(|(words, _)| *words).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        WORDS.iter().zip(self.0).try_for_each(|(words, count)| writeln!(f, "{count:>14}  {words}"))
    }
}
