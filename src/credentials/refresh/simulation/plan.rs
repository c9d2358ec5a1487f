//! What a seed decides: the provider's manners, the nodes, their clocks, and which faults there are.

use std::time::Duration;

use super::super::{Keep, Policy, Revocation};
use super::dice::Dice;
use super::provider::Family;

/// How wrong the nodes' clocks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clocks {
    /// Not at all.
    Exact,
    /// Up to ten seconds apart: what every promise of the protocol allows for.
    Near,
    /// Up to five minutes apart: what the protocol calls skew.
    Far,
    /// Five minutes, and jumps of minutes, hours and days, there and back.
    Jumping,
}

/// Which faults there are; each number is "one time out of", 0 never.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// A node dies, per step.
    pub crash: u64,
    /// A node is told to stop, per step.
    pub stop: u64,
    /// A node is stopped for up to 200 s and goes on, per step.
    pub sleep: u64,
    /// A statement fails, or its commit ends unknown, with and without effect.
    pub store_fails: u64,
    /// A statement takes up to 40 s.
    pub store_stalls: u64,
    /// The database is away for up to two minutes, per step.
    pub store_away: u64,
    /// The request never leaves.
    pub not_sent: u64,
    /// No whole answer arrives: cut before or after the effect, 500 after the commit, garbage.
    pub cut: u64,
    /// A proxy answers 502 in the provider's place, which spends nothing.
    pub gateway: u64,
    /// So many answers are cut at most.
    pub most_cut: u64,
    /// A definite refusal: 429 with and without an end, an error, an unknown word, a ban.
    pub refuses: u64,
    /// The answer takes up to 150 s, else 3.
    pub slow: u64,
    /// The provider is away for up to ten minutes, per step.
    pub provider_away: u64,
    /// The client's other credentials are refused or get no answer: with the next one it is a wave or an outage, per step.
    pub crowd: u64,
    /// The stored row cannot be opened for a moment, so nothing is sent.
    pub damage: u64,
    /// A person acts, per step: disconnects, connects again, takes the consent back, changes the client.
    pub person: u64,
    /// A clock jumps, per step.
    pub jump: u64,
}

impl Weather {
    pub const FAIR: Self = Self {
        crash: 0,
        stop: 0,
        sleep: 0,
        store_fails: 0,
        store_stalls: 0,
        store_away: 0,
        not_sent: 0,
        cut: 0,
        gateway: 0,
        most_cut: u64::MAX,
        refuses: 0,
        slow: 0,
        provider_away: 0,
        crowd: 0,
        damage: 0,
        person: 0,
        jump: 0,
    };
    pub const STORM: Self = Self {
        crash: 60,
        stop: 150,
        sleep: 60,
        store_fails: 20,
        store_stalls: 40,
        store_away: 300,
        not_sent: 12,
        cut: 5,
        gateway: 20,
        refuses: 6,
        slow: 10,
        provider_away: 400,
        crowd: 150,
        damage: 150,
        person: 200,
        ..Self::FAIR
    };
    /// The provider takes its time, and nothing else happens.
    const SLOW: Self = Self { slow: 2, ..Self::FAIR };
    pub const BAD_GATEWAY: Self = Self { gateway: 2, ..Self::FAIR };
    pub const ONE_LOST_ANSWER: Self = Self { cut: 2, most_cut: 1, ..Self::FAIR };
    /// Only the database is in trouble.
    const SHAKY_STORE: Self = Self { store_fails: 6, store_stalls: 12, store_away: 100, slow: 10, ..Self::FAIR };
    /// Only the provider is.
    const SHAKY_PROVIDER: Self = Self {
        not_sent: 6,
        cut: 3,
        gateway: 4,
        refuses: 3,
        slow: 5,
        provider_away: 100,
        crowd: 40,
        damage: 60,
        ..Self::FAIR
    };
    /// Nodes come and go.
    const SHAKY_NODES: Self = Self { crash: 25, stop: 40, sleep: 25, slow: 10, ..Self::FAIR };
    /// People do all that people can do, and answers are late.
    const PEOPLE: Self =
        Self { person: 25, slow: 3, store_fails: 30, crash: 200, not_sent: 12, refuses: 12, crowd: 40, ..Self::FAIR };
}

/// A world to be.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub family: Family,
    /// How long a spent token may be replayed, where it may.
    pub grace: Duration,
    pub clocks: Clocks,
    pub weather: Weather,
    /// What the integration wishes of the sweep.
    pub keep: Keep,
    pub nodes: u64,
    pub steps: u32,
    /// Whether consents may bring no refresh token, or the one that is stored, and the provider tells of what has ended.
    pub eventful: bool,
    /// Whether revoking one token of a provider that rotates ends everything the user ever granted, too.
    pub ends_consents: bool,
}

impl Plan {
    /// One seed, one world.
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x5eed_0000_0000_0000);
        let family = if dice.once_in(25) { Family::F0 } else { dice.pick(&Family::ROTATING_MOSTLY) };
        let clocks = dice.pick(&[Clocks::Exact, Clocks::Exact, Clocks::Near, Clocks::Far, Clocks::Jumping]);
        let weather = match dice.roll(10) {
            0 => Weather::FAIR,
            1 => Weather::SLOW,
            2 => Weather::SHAKY_STORE,
            3 => Weather::SHAKY_PROVIDER,
            4 => Weather::SHAKY_NODES,
            5 | 6 => Weather::PEOPLE,
            _ => Weather::STORM,
        };
        let jump = if clocks == Clocks::Jumping { 40 } else { 0 };
        Self {
            seed,
            family,
            grace: Duration::from_secs(dice.pick(&[60, 60, 600, 1800])),
            clocks,
            weather: Weather { jump, ..weather },
            keep: match dice.roll(8) {
                0 => Keep::OnDemand,
                1 => Keep::Active { within: Duration::from_secs(300) },
                _ => Keep::Always,
            },
            nodes: 1 + dice.roll(4),
            steps: 120 + u32::try_from(dice.roll(160)).unwrap(),
            eventful: seed % 7 == 2,
            ends_consents: seed % 14 == 9,
        }
    }

    /// What the nodes are told of their provider.
    pub fn policy(&self) -> Policy {
        let policy = self.family.policy(self.grace);
        let ends_all = self.ends_consents && policy.revocation == Revocation::OneTokenSet;
        if ends_all { Policy { revocation: Revocation::WholeConsent, ..policy } } else { policy }
    }

    /// Three nodes with good clocks.
    pub fn plain(seed: u64, family: Family, weather: Weather) -> Self {
        let grace = Duration::from_secs(60);
        let (clocks, keep) = (Clocks::Exact, Keep::Always);
        Self { seed, family, grace, clocks, weather, keep, nodes: 3, steps: 250, eventful: false, ends_consents: false }
    }
}
