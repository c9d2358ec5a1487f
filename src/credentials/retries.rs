//! How often readers' flights may try again after a failure: a tenth of their calls (RL-08), for each client of a provider.
//!
//! The sweep's retries are counted in the integration's row, which it holds anyway. Readers come one by one, from every node, and
//! a row that all of them wrote to would be what they wait for; so each node counts for itself. What a flight may need is set
//! aside when it begins, or all who fail together would spend the same credit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// In hundredths of a retry: what a call earns, and what may be saved up, which a client begins with.
const EARNED: u32 = 10;
const MOST: u32 = 300;

/// Tenant and integration.
type ClientId = (String, String);

/// What every client has left.
#[derive(Clone, Debug, Default)]
pub(super) struct Retries(Arc<Mutex<HashMap<ClientId, u32>>>);

/// Retries set aside for one flight. What it does not need goes back.
#[derive(Debug)]
pub(super) struct SetAside {
    retries: Retries,
    client: ClientId,
    left: u8,
    has_called: bool,
}

impl Retries {
    /// Sets aside up to `most` retries.
    pub(super) fn set_aside(&self, client: (&str, &str), most: u8) -> SetAside {
        let client = (client.0.to_owned(), client.1.to_owned());
        let mut all = self.locked();
        let credit = all.entry(client.clone()).or_insert(MOST);
        let left = u8::try_from(*credit / 100).unwrap_or(u8::MAX).min(most);
        *credit -= u32::from(left) * 100;
        drop(all);
        SetAside { retries: self.clone(), client, left, has_called: false }
    }

    fn give(&self, client: &ClientId, hundredths: u32) {
        let mut all = self.locked();
        let credit = all.entry(client.clone()).or_insert(MOST);
        *credit = (*credit + hundredths).min(MOST);
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<ClientId, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SetAside {
    pub(super) fn count(&self) -> u8 {
        self.left
    }

    /// The first call earns something, every other one is a retry.
    pub(super) fn note_call(&mut self) {
        if self.has_called {
            self.left = self.left.saturating_sub(1);
        } else {
            self.has_called = true;
            self.retries.give(&self.client, EARNED);
        }
    }
}

impl Drop for SetAside {
    fn drop(&mut self) {
        self.retries.give(&self.client, u32::from(self.left) * 100);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: (&str, &str) = ("ten_1", "int_1");

    /// A flight that calls so often.
    fn flight(retries: &Retries, calls: u8) -> u8 {
        let mut aside = retries.set_aside(CLIENT, 2);
        let may = aside.count();
        (0..calls.min(may + 1)).for_each(|_| aside.note_call());
        calls.min(may + 1)
    }

    #[test]
    fn rl_08_retries_are_a_tenth_of_the_calls() {
        let retries = Retries::default();
        let calls: u32 = (0..200).map(|_| u32::from(flight(&retries, 3))).sum();
        assert!((215..=223).contains(&calls), "{calls}");
    }

    #[test]
    fn rl_08_those_who_fail_together_do_not_spend_the_same_credit() {
        let retries = Retries::default();
        for _ in 0..20 {
            flight(&retries, 1);
        }
        let together: Vec<_> = (0..50).map(|_| retries.set_aside(CLIENT, 2)).collect();
        assert_eq!(together.iter().map(|aside| u32::from(aside.count())).sum::<u32>(), 3);
        drop(together);
        assert_eq!(retries.set_aside(CLIENT, 9).count(), 3, "what nobody needed is there again");
        assert_eq!(retries.set_aside(("ten_1", "int_2"), 9).count(), 3, "another client has its own");
    }
}
