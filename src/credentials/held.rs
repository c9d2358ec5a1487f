//! Answers of providers that are in memory only: as long as there is one, this node is not ready and says so.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::health::Health;

const PART: &str = "held_tokens";

/// Counts them.
#[derive(Clone, Debug)]
pub(super) struct HeldTokens {
    /// Told under its lock: of two that let go at once the later must not speak first.
    count: Arc<Mutex<usize>>,
    health: Health,
}

/// One answer; let go when it is durable, or when the credential has ended.
#[derive(Debug)]
pub(super) struct Held {
    tokens: HeldTokens,
    /// Its copy in the spool. It outlives whoever does not take it away, and so the process.
    pub(super) copy: Option<PathBuf>,
}

impl HeldTokens {
    pub(super) fn new(health: Health) -> Self {
        let none = Self { count: Arc::default(), health };
        none.change(|_| 0);
        none
    }

    pub(super) fn one_more(&self) -> Held {
        self.change(|count| count + 1);
        Held { tokens: self.clone(), copy: None }
    }

    fn change(&self, to: impl FnOnce(usize) -> usize) {
        let mut held = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *held = to(*held);
        let count = *held;
        metrics::gauge!("valetkey_held_tokens").set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
        if count == 0 {
            self.health.clear(PART);
        } else {
            self.health.obstruct(PART, format!("{count} refreshed tokens cannot be stored and are held in memory"));
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.tokens.change(|count| count - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_unready_until_the_last_held_answer_is_let_go_rl_05() {
        let health = Health::default();
        let held = HeldTokens::new(health.clone());
        let (one, two) = (held.one_more(), held.one_more());
        assert!(health.obstacles()[PART].starts_with("2 "));
        drop(one);
        assert!(health.obstacles()[PART].starts_with("1 "));
        drop(two);
        assert!(health.obstacles().is_empty());
    }

    #[test]
    fn what_many_flights_let_go_at_once_leaves_the_node_ready_rl_05() {
        let health = Health::default();
        let held = HeldTokens::new(health.clone());
        for _ in 0..500 {
            std::thread::scope(|scope| {
                for one in [held.one_more(), held.one_more(), held.one_more()] {
                    scope.spawn(move || drop(one));
                }
            });
            assert!(health.obstacles().is_empty(), "a database that is well again, and nothing held");
        }
    }
}
