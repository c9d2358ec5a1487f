//! Answers of providers that are in memory only: as long as there is one, this node is not ready and says so.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::health::Health;

const PART: &str = "held_tokens";

/// Counts them.
#[derive(Clone, Debug)]
pub(super) struct HeldTokens {
    count: Arc<AtomicUsize>,
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
        none.say(0);
        none
    }

    pub(super) fn one_more(&self) -> Held {
        self.say(self.count.fetch_add(1, Ordering::SeqCst) + 1);
        Held { tokens: self.clone(), copy: None }
    }

    fn say(&self, count: usize) {
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
        self.tokens.say(self.tokens.count.fetch_sub(1, Ordering::SeqCst) - 1);
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
}
