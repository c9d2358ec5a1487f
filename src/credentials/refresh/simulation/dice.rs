//! Chance that can be had again.

use std::time::Duration;

/// A small repeatable generator (splitmix64).
pub(in crate::credentials) struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    /// One time out of `sides`; never for 0.
    pub fn once_in(&mut self, sides: u64) -> bool {
        sides != 0 && self.roll(sides) == 0
    }

    pub fn millis(&mut self, most: u64) -> Duration {
        Duration::from_millis(1 + self.roll(most))
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.roll(of.len() as u64)).unwrap()]
    }
}
