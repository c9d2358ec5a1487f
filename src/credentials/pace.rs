//! How many refreshes of one OAuth client may leave, and when: the arithmetic of the sweep's queue.
//!
//! Every client has a queue of places, so far apart that the provider is never called more often than the operator allows
//! (RL-13). The first free place stands in the integration's row, so that all nodes share one queue. A row with a place
//! soon leaves at that time; any other waits in the schedule until its place comes. A place that has passed, because the sweep
//! stood still, is lost: what missed it takes the next free one, or everybody would leave at once afterwards. While the
//! provider asked for a pause, refuses the client or does not answer, places begin after that, with one probe in between.
//! What has failed before is tried again only as a small part of all calls (RL-08).
//!
//! Pure, like the protocol: the sweep reads, asks, and writes.

use std::time::Duration;

use super::refresh::{Deadlines, Integration};
use crate::clock::Millis;

/// What one round of the sweep looks ahead: a second until the next one, and a quarter in case that comes late.
pub(super) const HORIZON: Duration = Duration::from_millis(1250);
/// What finds no room looks again after this time: not in the rounds of the same tick, which would go on for ever.
const AGAIN: Duration = Duration::from_millis(2500);
/// A credential used within this time belongs to a conversation that goes on, and comes first.
pub(super) const ACTIVE_WITHIN: Duration = Duration::from_secs(15 * 60);
/// A client never earns the right to more retries than this at once, in hundredths; what failed in an outage is given its
/// retries beside that, when the provider is back.
const MOST_CREDIT: i64 = 300;
/// How far places are apart, in hundredths of what the allowed rate asks for: requests that leave evenly arrive in bunches after a hitch
/// of a twentieth of a second somewhere on their way.
const MARGIN: u32 = 108;
/// Of those, what makes up for a stall. The rest is for the disorder after it.
const MADE_UP: u32 = 4;
/// Nothing is held back for longer than this on its way out: somebody may have come to wait for it. More than what a node has
/// taken ahead.
pub(super) const MOST_HELD_BACK: Duration = Duration::from_millis(1500);
/// What a stall has held up comes within this time,
const SETTLED: Duration = Duration::from_millis(50);
/// and in another order than it went in, by so many places: as many as there are connections to the database.
const SHUFFLED: u64 = 20;
/// What a first attempt earns, in hundredths of a retry: however many fail, the provider sees 5 % more calls.
const EARNED: i64 = 5;
/// A retry is always allowed when the last one was so long ago, so that a lonely credential is not forgotten; half as long
/// ago with every success in a row since.
const TRICKLE: Duration = Duration::from_secs(600);
/// What has no credit looks again after this time at the latest: only one of them finds a retry that is free.
const REST: Duration = Duration::from_secs(30);

/// What the operator allows for one client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Microseconds from one call to the next.
    pub(super) interval: i64,
    /// Calls in the air, all nodes together.
    pub(super) in_air: usize,
}

impl Limits {
    /// A little slower than asked: what leaves evenly arrives a little unevenly, and no second may have one call more than
    /// allowed.
    pub(super) fn new(rate: u32, in_air: u32) -> Self {
        Self { interval: i64::from(MARGIN) * 10_000 / i64::from(rate.max(1)), in_air: in_air as usize }
    }

    fn shuffled(self) -> Duration {
        (Duration::from_micros(self.interval.unsigned_abs() * SHUFFLED)).max(2 * SETTLED)
    }
}

/// How a node's requests for one client leave, by a clock of the process that never stands still.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Departures {
    /// The latest place of all that were ready.
    place: Duration,
    /// How far the node is behind its places.
    behind: Duration,
}

impl Departures {
    /// Notes that a request is ready `now` which was to leave at `place`. What is late, because the node or its database stood
    /// still, makes up for it only as fast as places are apart by more than they would have to be. One that is late by itself
    /// does not count: it must not move all others from their places, which other nodes keep.
    pub(super) fn note(&mut self, place: Duration, now: Duration, limits: Limits) {
        let made_up = place.saturating_sub(self.place) * MADE_UP / MARGIN;
        self.behind = self.behind.saturating_sub(made_up);
        let late = now.saturating_sub(place);
        let by_itself = place < self.place && late > self.behind + limits.shuffled();
        if !by_itself && late > self.behind {
            // Others that were held up are about to come, and some of them have earlier places.
            self.behind = if late > self.behind + SETTLED { late + SETTLED } else { late };
        }
        self.behind = self.behind.min((now + MOST_HELD_BACK).saturating_sub(place));
        self.place = self.place.max(place);
    }

    /// When the request may leave, as far as is known: whoever has waited until then asks again.
    pub(super) fn at(&self, place: Duration) -> Duration {
        place + self.behind
    }

    /// Whether nothing of this is of any use any more.
    pub(super) fn are_over(&self, now: Duration) -> bool {
        self.place + self.behind + 2 * HORIZON <= now
    }
}

/// How a client's queue stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Queue {
    /// The first free place, in microseconds UTC.
    pub(super) pace_at: i64,
    /// Hundredths of a retry.
    pub(super) credit: i64,
    /// The last retry.
    pub(super) retried_at: Option<Millis>,
    /// Successes since the last attempt without an answer; none when the provider is well.
    pub(super) answered: Option<u32>,
    /// How the integration stands.
    pub(super) integration: Integration,
    /// How many more may be in the air.
    pub(super) free: usize,
    /// Calls that have left without a place while the first free one is far: somebody nearer makes room.
    pub(super) owed: i64,
    /// Whether other tenants have the client, too.
    pub(super) is_shared: bool,
}

/// A row that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// Its place, if it has one.
    pub(super) place: Option<Millis>,
    /// Whether it has failed before.
    pub(super) retry: bool,
    /// Whether a conversation uses it.
    pub(super) active: bool,
    /// Whether there is a doubt to settle that cannot wait, or for which nothing is sent.
    pub(super) at_once: bool,
    /// How long after a probe it comes where it takes no place: a part of a minute of its own, so that not all come at once.
    pub(super) scatter: Duration,
}

/// What is to be done with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Send it at this time, which is near.
    Go(Millis),
    /// It has this place in the queue.
    Wait(Millis),
    /// It comes again at this time, without a place.
    Rest(Millis),
}

impl Queue {
    /// Goes on where the queue of another tenant with the same client has come to.
    pub(super) fn go_on_from(&mut self, other: &Self) {
        (self.pace_at, self.free, self.owed) = (other.pace_at, other.free, other.owed);
    }

    /// Decides about one row after the other, and moves the queue on.
    pub(super) fn decide(&mut self, now: Millis, row: Due, interval: i64, deadlines: &Deadlines) -> Decision {
        if row.at_once {
            // Inside its grace a token may be sent once more, and no outage or queue lasts as short as that.
            self.debit(now, 1, interval);
            self.free = self.free.saturating_sub(1);
            return Decision::Go(now);
        }
        match self.integration.clone() {
            Integration::RateLimited { until } if deadlines.holds(until, now) => {
                return self.place_after(now, until, interval);
            }
            Integration::Faulty { probe_at, .. } | Integration::Unreachable { probe_at, .. }
                if deadlines.holds(probe_at, now) =>
            {
                return self.hold(now, probe_at, row, interval);
            }
            // Whoever comes with the probe looks again when that may have succeeded; by then its flight has moved the time of
            // the next one, if not.
            Integration::Faulty { code, .. } => {
                self.integration = Integration::Faulty { code, probe_at: now.after(AGAIN) };
                return self.probe(now, interval, row);
            }
            Integration::Unreachable { code, .. } => {
                self.integration = Integration::Unreachable { code, probe_at: now.after(AGAIN) };
                return self.probe(now, interval, row);
            }
            Integration::RateLimited { .. } | Integration::Working => {}
        }
        if row.retry && !self.may_retry(now) {
            return Decision::Rest(now.after(self.free_every().clamp(AGAIN, REST)));
        }
        let horizon = now.after(HORIZON);
        if self.free == 0 {
            return self.place_after(now, now, interval);
        }
        let at = match row.place.filter(|place| *place >= now && *place <= horizon) {
            Some(place) if self.owed == 0 || row.active => place,
            near => {
                self.owed -= i64::from(near.is_some());
                match self.next_place(now, interval) {
                    place if place <= horizon => place,
                    place => return Decision::Wait(place),
                }
            }
        };
        self.spend(now, row);
        Decision::Go(at)
    }

    /// Takes places for what has not waited for them: readers' own refreshes, and what is sent twice inside a grace.
    pub(super) fn debit(&mut self, now: Millis, calls: i64, interval: i64) {
        if self.pace_at > micros(now.after(HORIZON)) {
            self.owed += calls;
        } else {
            self.pace_at = self.pace_at.max(micros(now)) + calls * interval;
        }
    }

    fn probe(&mut self, now: Millis, interval: i64, row: Due) -> Decision {
        if self.free == 0 {
            return self.hold(now, now, row, interval);
        }
        self.free -= 1;
        self.retried_at = if row.retry { Some(now) } else { self.retried_at };
        Decision::Go(now)
    }

    fn may_retry(&self, now: Millis) -> bool {
        let waited = |last: Millis| last.after(self.free_every()) <= now || last > now;
        self.answered.is_none() || self.credit >= 100 || self.retried_at.is_none_or(waited)
    }

    /// How often a retry costs nothing.
    fn free_every(&self) -> Duration {
        self.answered.map_or(Duration::ZERO, |answered| TRICKLE / (1 << answered.min(20)))
    }

    fn spend(&mut self, now: Millis, row: Due) {
        self.free -= 1;
        if row.retry {
            self.credit = (self.credit - 100).max(0);
            self.retried_at = Some(now);
        } else if self.credit < MOST_CREDIT {
            self.credit = (self.credit + EARNED).min(MOST_CREDIT);
        }
    }

    /// Waits for the end of a hold, in the client's queue; but where others have the client, too, nobody waits behind those whose own
    /// trouble it is.
    fn hold(&mut self, now: Millis, until: Millis, row: Due, interval: i64) -> Decision {
        if self.is_shared {
            return Decision::Rest(until.max(now.after(AGAIN)).after(row.scatter));
        }
        self.place_after(now, until, interval)
    }

    fn place_after(&mut self, now: Millis, begin: Millis, interval: i64) -> Decision {
        // A pause that ends within this very tick would have its rows taken again by it.
        self.pace_at = self.pace_at.max(micros(begin.max(now.after(AGAIN))));
        Decision::Wait(self.next_place(now, interval))
    }

    fn next_place(&mut self, now: Millis, interval: i64) -> Millis {
        let place = self.pace_at.max(micros(now));
        self.pace_at = place + interval;
        Millis(place / 1000)
    }
}

fn micros(at: Millis) -> i64 {
    at.0.saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::credentials::refresh::Code;

    const NOW: Millis = Millis(1_800_000_000_000);
    const FIRST: Due = Due { place: None, retry: false, active: false, at_once: false, scatter: Duration::ZERO };
    const RETRY: Due = Due { retry: true, ..FIRST };

    fn queue() -> Queue {
        Queue {
            pace_at: 0,
            credit: 0,
            retried_at: None,
            answered: Some(0),
            integration: Integration::Working,
            free: 1_000_000,
            owed: 0,
            is_shared: false,
        }
    }

    fn decide(queue: &mut Queue, row: Due) -> Decision {
        queue.decide(NOW, row, Limits::new(100, 10).interval, &Deadlines::default())
    }

    fn ms(offset: u64) -> Millis {
        NOW.after(Duration::from_millis(offset))
    }

    /// A thousand rows leave at 100 a second, in their order.
    fn assert_spread(row: impl Fn(u64) -> Due) {
        let mut queue = queue();
        let decisions: Vec<_> = (0..1000).map(|index| decide(&mut queue, row(index))).collect();
        let gone = decisions.iter().filter(|one| matches!(one, Decision::Go(_))).count();
        assert_eq!(gone, 116, "in a second and a quarter, a little less than 125");
        let times: Vec<_> = decisions
            .iter()
            .map(|one| match one {
                Decision::Go(at) | Decision::Wait(at) => *at,
                Decision::Rest(_) => panic!("nobody rests"),
            })
            .collect();
        assert!(times.windows(101).all(|window| window[100].left(window[0]) > Duration::from_secs(1)));
        assert!(times[999].left(NOW) < Duration::from_millis(10_800), "and not much slower than allowed");
    }

    #[test]
    fn rl_13_a_crowd_leaves_at_the_allowed_rate_and_the_rest_has_a_place_each() {
        assert_spread(|_| FIRST);
    }

    #[test]
    fn rl_13_what_the_sweep_was_late_for_leaves_no_faster() {
        assert_spread(|index| Due { place: Some(NOW.before(Duration::from_millis(60_000 - index))), ..FIRST });
    }

    #[test]
    fn a_place_that_has_come_is_kept_and_one_that_is_far_is_given_up_for_an_earlier_one() {
        let mut queue = queue();
        let due = |offset| Due { place: Some(ms(offset)), ..FIRST };
        assert_eq!(decide(&mut queue, due(700)), Decision::Go(ms(700)));
        assert_eq!(queue.pace_at, 0, "no new place was taken");
        let mut queue = self::queue();
        assert_eq!(decide(&mut queue, due(60_000)), Decision::Go(NOW), "somebody uses it now");
    }

    #[test]
    fn rl_09_nothing_leaves_inside_a_pause_and_the_places_begin_after_it() {
        let mut queue = Queue { integration: Integration::RateLimited { until: ms(30_000) }, ..queue() };
        assert_eq!(decide(&mut queue, FIRST), Decision::Wait(ms(30_000)));
        assert_eq!(decide(&mut queue, Due { place: Some(NOW), ..RETRY }), Decision::Wait(ms(30_010)));
    }

    #[test]
    fn rl_12_a_pause_that_only_a_jumped_clock_can_have_written_holds_nobody_up() {
        let (code, tomorrow) = (Code::new("x"), NOW.after(Duration::from_secs(24 * 3600)));
        for integration in [
            Integration::RateLimited { until: tomorrow },
            Integration::Faulty { code: code.clone(), probe_at: tomorrow },
            Integration::Unreachable { code, probe_at: tomorrow },
        ] {
            assert_eq!(decide(&mut Queue { integration, ..queue() }, FIRST), Decision::Go(NOW));
        }
    }

    #[test]
    fn a_faulty_client_and_a_silent_provider_get_one_probe_in_their_interval() {
        let code = Code::new("x");
        let faulty = |probe_at| Integration::Faulty { code: code.clone(), probe_at };
        let silent = |probe_at| Integration::Unreachable { code: code.clone(), probe_at };
        for integration in [faulty(NOW), silent(NOW)] {
            let mut queue = Queue { integration, ..queue() };
            assert_eq!(decide(&mut queue, RETRY), Decision::Go(NOW));
            assert_eq!(decide(&mut queue, FIRST), Decision::Wait(ms(2_500)), "the probe may have succeeded by then");
            assert_eq!(decide(&mut queue, FIRST), Decision::Wait(ms(2_510)));
        }
        let mut queue = Queue { integration: silent(ms(5_000)), ..queue() };
        assert_eq!(decide(&mut queue, FIRST), Decision::Wait(ms(5_000)));
    }

    #[test]
    fn rl_08_retries_are_a_small_part_of_all_calls_and_a_lonely_one_is_not_forgotten() {
        let mut queue = queue();
        assert_eq!(decide(&mut queue, RETRY), Decision::Go(NOW), "the first for a long time");
        assert_eq!(decide(&mut queue, RETRY), Decision::Rest(ms(30_000)));
        let go = |queue: &mut Queue, row| matches!(queue.decide(NOW, row, 1, &Deadlines::default()), Decision::Go(_));
        let (mut first, mut again) = (0, 0);
        for _ in 0..900 {
            first += u32::from(go(&mut queue, FIRST));
            again += u32::from(go(&mut queue, RETRY));
        }
        assert!(first == 900 && again <= 45 && again > 42, "{again} of {first}");
        let (last, before) = (Some(NOW), self::queue());
        assert!(!Queue { retried_at: last, ..before.clone() }.may_retry(NOW));
        assert!(Queue { retried_at: Some(NOW.before(TRICKLE)), ..before.clone() }.may_retry(NOW));
        let a_while_ago = Some(NOW.before(TRICKLE / 8));
        assert!(!Queue { retried_at: a_while_ago, answered: Some(2), ..before.clone() }.may_retry(NOW));
        assert!(Queue { retried_at: a_while_ago, answered: Some(3), ..before.clone() }.may_retry(NOW));
        assert!(Queue { retried_at: last, answered: None, ..before.clone() }.may_retry(NOW), "the provider is well");
        for (answered, rest) in [(6, 9_375), (15, 2_500)] {
            let mut queue = Queue { retried_at: last, answered: Some(answered), ..before.clone() };
            assert_eq!(decide(&mut queue, RETRY), Decision::Rest(ms(rest)), "the more it answers, the sooner");
        }
    }

    #[test]
    fn what_is_in_the_air_is_bounded_and_whoever_finds_no_room_loses_its_place() {
        let mut queue = Queue { free: 1, ..queue() };
        assert_eq!(decide(&mut queue, FIRST), Decision::Go(NOW));
        let late = Due { place: Some(NOW), ..FIRST };
        assert_eq!(decide(&mut queue, late), Decision::Wait(ms(2500)));
    }

    #[test]
    fn rl_06_a_doubt_is_settled_before_everything_else_and_others_make_room() {
        let integration = Integration::Unreachable { code: Code::new("x"), probe_at: ms(30_000) };
        let mut away = Queue { integration, free: 0, ..queue() };
        assert_eq!(decide(&mut away, Due { at_once: true, ..RETRY }), Decision::Go(NOW));
        let mut queue = queue();
        assert_eq!(decide(&mut queue, Due { at_once: true, ..RETRY }), Decision::Go(NOW));
        assert_eq!(decide(&mut queue, FIRST), Decision::Go(ms(10)));
    }

    /// When each of 2,000 leaves whose places are as far apart as `rate` asks for. All are ready at their places, but for a
    /// stall of `stall` after the hundredth; what it has held up comes within 20 ms, in some disorder.
    fn leaving(rate: u32, stall: Duration, step: u64) -> Vec<Duration> {
        let limits = Limits::new(rate, 1000);
        let place = |n: u64| Duration::from_micros(limits.interval.unsigned_abs() * (n + 1000));
        let end = place(100) + stall;
        let mut ready: Vec<(Duration, u64)> = (0..2000)
            .map(|n| {
                let late = end + Duration::from_millis((n * step + step / 2) % 18 * 20 / 18);
                (if n >= 100 && place(n) < end { late.max(place(n)) } else { place(n) }, n)
            })
            .collect();
        ready.sort();
        let mut departures = Departures::default();
        // By time: who is ready, and who has waited until when.
        let mut events: BTreeSet<(Duration, u64, bool)> = ready.into_iter().map(|(at, n)| (at, n, true)).collect();
        let mut left = Vec::new();
        while let Some((now, n, is_new)) = events.pop_first() {
            if is_new {
                departures.note(place(n), now, limits);
            }
            match departures.at(place(n)) {
                at if at <= now => left.push(now),
                at => drop(events.insert((at, n, false))),
            }
        }
        assert_eq!(left[99], place(99), "what is on time is not held back");
        left
    }

    #[test]
    fn rl_13_what_a_stall_has_held_up_leaves_no_faster_than_the_rate_allows() {
        for (rate, stall) in [(200, 300), (200, 1000), (50, 500), (20, 500), (20, 1000)] {
            for step in [1, 5, 7, 13] {
                let left = leaving(rate, Duration::from_millis(stall), step);
                let busiest = left.iter().map(|from| {
                    left.iter().filter(|at| **at >= *from && **at - *from < Duration::from_secs(1)).count()
                });
                assert!(busiest.max() <= Some(rate as usize), "at {rate} a second, after {stall} ms");
            }
        }
        let left = leaving(200, Duration::from_millis(300), 1);
        assert_eq!(left[1999], Duration::from_micros(5400 * 2999), "and the time is made up for");
    }

    #[test]
    fn what_is_late_by_itself_leaves_at_once_and_moves_no_other() {
        let (ms, limits) = (Duration::from_millis, Limits::new(200, 100));
        let mut departures = Departures::default();
        departures.note(ms(5000), ms(5000), limits);
        departures.note(ms(4500), ms(5001), limits);
        assert!(departures.at(ms(4500)) <= ms(5001), "half a second late");
        assert_eq!(departures.at(ms(5005)), ms(5005));
    }

    #[test]
    fn after_a_long_stall_nothing_is_held_back_for_long() {
        let (seconds, limits) = (Duration::from_secs, Limits::new(200, 100));
        let mut departures = Departures::default();
        departures.note(seconds(10), seconds(60), limits);
        departures.note(seconds(60), seconds(60), limits);
        assert_eq!(departures.at(seconds(60)), seconds(60) + MOST_HELD_BACK);
        departures.note(seconds(120), seconds(120), limits);
        assert_eq!(departures.at(seconds(120)), seconds(120), "and soon not at all");
    }

    #[test]
    fn a_readers_own_refresh_takes_a_place_without_waiting_for_it() {
        let mut queue = queue();
        let interval = Limits::new(100, 10).interval;
        queue.debit(NOW, 5, interval);
        assert_eq!(queue.pace_at, NOW.0 * 1000 + 5 * interval);
    }

    #[test]
    fn rl_13_in_a_crowd_whoever_comes_next_makes_room_for_what_has_not_waited() {
        let begin = ms(60_000).0 * 1000;
        let mut queue = Queue { pace_at: begin, ..queue() };
        let interval = Limits::new(100, 10).interval;
        queue.debit(NOW, 1, interval);
        let due = |offset| Due { place: Some(ms(offset)), ..FIRST };
        assert_eq!(
            decide(&mut queue, Due { at_once: true, ..RETRY }),
            Decision::Go(NOW),
            "and this one does not, either"
        );
        assert_eq!(decide(&mut queue, Due { active: true, ..due(5) }), Decision::Go(ms(5)), "a conversation uses it");
        assert_eq!(decide(&mut queue, due(10)), Decision::Wait(ms(60_000)), "to the end of the queue");
        assert_eq!(decide(&mut queue, due(20)), Decision::Wait(ms(60_010)));
        assert_eq!((queue.owed, queue.pace_at), (0, begin + 2 * interval), "each call has taken one place");
        assert_eq!(decide(&mut queue, due(30)), Decision::Go(ms(30)));
    }
}
