//! The refresh protocol, as a pure state machine.
//!
//! A refresh spends the one copy of a refresh token. With most providers the old token dies at that
//! moment, so whoever loses the answer has lost the connection, and whoever sends the old token again
//! may be taken for a thief (RFC 9700 section 4.14.2). Nothing else in the house can do as much harm by
//! being done twice, or by being done and forgotten. That is why the rules live here alone: no I/O, no
//! clock, no randomness, tokens passed through unopened. [`Flight::step`] takes the time and one event
//! and returns exactly one action. The driver executes actions and holds no rules; the simulation and the
//! differential tests execute the same actions on models.
//!
//! # The walk
//!
//! `Begin → Load → Claim → Send → Announce → Depart → Store → Done`. Each arrow is one action and one event.
//!
//! 1. **Load.** A token with enough life is served; nothing is written. Enough means the smaller of what
//!    was asked and half of the token's original life, otherwise a provider with ten-minute tokens would be
//!    asked again by every caller who wants fifteen. A read never fails while the token has life: every
//!    failure below ends in [`Verdict::Serve`] with `degraded` as long as there is something to serve.
//! 2. **Claim.** One short transaction moves the fence, sets the lease and writes phase `claimed`. It is the proof
//!    that the database can be written, *before* the token is spent. It names generation, fence, phase and doubt
//!    as they were seen, so of two nodes only one gets it, and nobody who has not seen that a token left. A claim that took so long
//!    that half of the lease is gone is given back, since somebody else may be about to decide. The row becomes
//!    due when the lease ends, since its holder may be dead by then. Whoever finds a rival's lease waits
//!    for ten seconds, and a quarter of one while something lives: a dead rival must not keep its readers.
//! 3. **Send.** No transaction is open. The token waits at the door of its connection until it is durable that it leaves:
//!    **Announce** writes phase `sent`, the intent record (RL-06), where the fence is still the claim's, and **Depart** lets
//!    it out. Who dies before that has lost nothing (decision 0010). Where a token may be sent at any time, or is in doubt
//!    already, the claim writes `sent` itself. The lease is renewed by [`Event::Tick`]; losing it changes nothing for the
//!    answer under way.
//! 4. **Store.** Compare-and-swap on the *generation*. The fence is not compared: it forbids a second send,
//!    not a late store. A late answer for the generation still stored is the only live token set there is, so it
//!    wins and heals `in_doubt` and `rotation_response_lost`. Only after [`Event::Stored`] may anyone have
//!    the new access token (RL-04). When the store fails the tokens stay in memory and are stored again for
//!    90 s (RL-05), then go to the spool; without a spool the flight stores again until the process ends.
//!    A commit of unknown outcome is looked at before it is repeated (RL-29): the row says which claim's
//!    answer it holds ([`View::stored_fence`]), so our own commit is never mistaken for a rival's.
//!
//! # What an answer can mean
//!
//! *Not sent* and every definite refusal leave the token unspent: back off and try again. *Ambiguous* leaves it
//! unknown. So does a lease that ended in phase `sent`: its holder died or sleeps. Then the provider decides:
//!
//! - [`Replay::Safe`] (the token does not rotate, or the old one lives on): not a doubt at all. Try again.
//! - [`Replay::Grace`]: send the same token once more, as soon as the lease has ended and inside the grace.
//! - [`Replay::Unsafe`], and any other token once its grace is used or over: never again. In doubt for 120 s from when
//!   that is written down, in which a late answer may still come, then `needs_reauth` with reason `rotation_response_lost`, which a later answer still heals.
//!
//! Unless something speaks for the token: every attempt was answered by a server that said that it failed, or was a probe
//! of a provider that answered nobody ([`Doubt::likely_unspent`]), or nobody at all was answered at that time
//! ([`View::silent_at`]). Then it serves as long as the access token lives and is tried once more after that, when nothing
//! is left that reuse detection could end (decision 0013). Otherwise an hour of 502s would cost every connection that was
//! asked for in it.
//!
//! `invalid_grant` is final only after reading the row again (RL-07): another node may have rotated the
//! token under our feet. A newer generation is used; a newer claim is left to its holder. After a doubt the
//! reason is `rotation_response_lost`, since the user has revoked nothing.
//!
//! A wrong client secret is the *integration's* fault and never changes a credential's status: one typing
//! error must not send every user of a tenant through consent again. The claim is given back all the same; left
//! behind, its dead lease would turn into a doubt and then into exactly that.
//!
//! Nor does a *wave* mark anybody: ten refusals in a day more than twice the successes between are the client's or the provider's
//! fault rather than ten users' ([`Wave`]); the integration is held, and those already marked are active again. An
//! *outage*, eight attempts in a row without an answer, holds the integration too: one probe every half minute instead of every credential's
//! own attempts, so that a provider that comes back is not met by a storm (RL-08).
//!
//! Delete and reconnect win over a late answer. After a delete the late tokens are revoked. After a
//! reconnect only where the provider revokes one token at a time ([`Revocation`]): Google ends the whole
//! consent, the new one included. Tokens that lost to another *refresh* are dropped without revocation,
//! for the same reason.
//!
//! # Driving it
//!
//! One task per credential and process (callers join it and have their own deadlines); it feeds each action's event
//! back until [`Action::Done`]. The request to the provider runs beside everything else: after [`Action::Send`] wait for
//! the answer or for `tick_every`, whichever is first; a renewal is executed while the request goes on.
//! [`Action::Continue`] asks for nothing: keep waiting. Once sent, a flight is never cancelled, and its task outlives
//! its callers. A delete or reconnect moves the fence and must never lower it; a reconnect also moves `consents`.
//!
//! # Rejected
//!
//! - *An in-process mutex or a lock service* as the arbiter: a paused holder wakes up and sends.
//! - *Comparing the fence when storing*: throws away the only live token set after a pause.
//! - *Trying any unsafe token once more when in doubt* ("what is there to lose?"): reuse detection kills
//!   the token set that the paused holder may be about to store, and mostly the token is spent.
//! - *Ending the doubt at once after a broken connection*: the same rule for all doubts is simpler, the
//!   stored token is served meanwhile, and a spooled answer may arrive from another node.
//! - *Letting the newest answer always win*: between two answers of one generation the later *send* wins (the
//!   fence is the order of sends), and only while nobody has sent what is stored since.
//! - *A timer inside the machine for the provider's answer*: work in progress is bounded by monotonic time,
//!   which only the driver has ([`Action::Send`] says how long). Everything else compares wall times,
//!   and a time further ahead than any rule can put it is a clock that has jumped (RL-12): see
//!   [`Policy::believable`].

mod flight;
mod policy;
mod words;

#[cfg(test)]
mod properties;
#[cfg(test)]
pub(super) mod simulation;
#[cfg(test)]
mod stories;

pub use flight::Flight;
pub use policy::{Deadlines, Jitter, NEVER, Policy, Replay, Revocation, Wish, due_at, enough};
pub use words::{
    Action, Claim, Claimed, Code, Doubt, Event, Failure, Integration, Keep, Outcome, Phase, Record, Status,
    Unrecognised, Verdict, View, Wave,
};
