//! Guessing passwords is slowed down before any is hashed (WB-10): per address that is signed in with, and per network
//! it comes from. Whoever is locked out is let in again after a wait, so nobody can lock an owner out for good.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};

use crate::clock::Surroundings;
use crate::http::{Code, Problem};

/// For one address: ten at once, then one in half a minute.
const PER_EMAIL: (u32, Duration) = (10, Duration::from_secs(30));
/// For one network: thirty at once, then one in five seconds; offices share one.
const PER_NETWORK: (u32, Duration) = (30, Duration::from_secs(5));
/// Beyond this many names, those that could be forgotten are.
const MOST_NAMES: usize = 10_000;

type Limiter = RateLimiter<u64, DefaultKeyedStateStore<u64>, HouseClock, NoOpMiddleware<Nanos>>;

/// The house's own clock, as the limiter reads it.
#[derive(Clone, Debug)]
struct HouseClock(Surroundings);

impl GovernorClock for HouseClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(u64::try_from(self.0.now().0).unwrap_or(0).saturating_mul(1_000_000))
    }
}

/// Counts sign-ins of this node. Names are kept as keyed hashes only.
#[derive(Debug)]
pub(in crate::http) struct SignInLimits {
    clock: HouseClock,
    names: RandomState,
    per_email: Limiter,
    per_network: Limiter,
}

impl SignInLimits {
    pub(in crate::http) fn new(around: &Surroundings) -> Self {
        let clock = HouseClock(around.clone());
        let limiter = |(burst, period): (u32, Duration)| {
            let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
            let quota = Quota::with_period(period).unwrap_or(Quota::per_minute(burst)).allow_burst(burst);
            RateLimiter::new(quota, DefaultKeyedStateStore::default(), clock.clone())
        };
        Self { names: RandomState::new(), per_email: limiter(PER_EMAIL), per_network: limiter(PER_NETWORK), clock }
    }

    /// Counts one attempt.
    ///
    /// # Errors
    /// 429 with the time to wait.
    pub(super) fn count(&self, email: &str, peer: Option<IpAddr>) -> Result<(), Problem> {
        self.check(&self.per_network, self.names.hash_one(peer.map(network_of)))?;
        self.check(&self.per_email, self.names.hash_one(email.trim().to_lowercase()))
    }

    fn check(&self, limiter: &Limiter, name: u64) -> Result<(), Problem> {
        if limiter.len() > MOST_NAMES {
            limiter.retain_recent();
        }
        limiter.check_key(&name).map_err(|refused| {
            let wait = refused.wait_time_from(self.clock.now());
            Problem::new(Code::RateLimited, "too many attempts; wait a little").retry_after(wait)
        })
    }
}

/// An IPv6 customer has a /64 at least, so counting single addresses would count nothing.
fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::{Millis, SeededEntropy, TestClock};

    fn limits() -> (SignInLimits, TestClock) {
        let clock = TestClock::at(Millis(1_700_000_000_000));
        let around = Surroundings { clock: Arc::new(clock.clone()), entropy: Arc::new(SeededEntropy::new(1)) };
        (SignInLimits::new(&around), clock)
    }

    fn peer(text: &str) -> Option<IpAddr> {
        text.parse().ok()
    }

    #[test]
    fn an_address_is_slowed_down_from_wherever_it_is_tried_wb_10() {
        let (limits, clock) = limits();
        for attempt in 0..10 {
            assert!(limits.count("ada@example.com", peer(&format!("192.0.2.{attempt}"))).is_ok());
        }
        let refused = limits.count(" Ada@Example.com ", peer("198.51.100.1")).expect_err("too many");
        assert_eq!((refused.code(), refused.retry_seconds()), (Code::RateLimited, Some(30)));
        assert!(limits.count("grace@example.com", peer("198.51.100.1")).is_ok(), "another address is not meant");
        clock.advance(Duration::from_secs(30));
        assert!(limits.count("ada@example.com", peer("198.51.100.1")).is_ok(), "nobody is locked out for good");
    }

    #[test]
    fn a_network_is_slowed_down_whatever_it_tries_wb_10() {
        let (limits, _) = limits();
        for attempt in 0..30 {
            assert!(limits.count(&format!("{attempt}@example.com"), peer(&format!("2001:db8::{attempt}"))).is_ok());
        }
        assert!(limits.count("new@example.com", peer("2001:db8::ffff")).is_err());
        assert!(limits.count("new@example.com", peer("2001:db8:1::1")).is_ok());
    }
}
