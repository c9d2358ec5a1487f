//! How many refreshes of a node may be in the air at one provider, so that one that hangs holds up nobody else's (RL-17).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

/// Berths, as many for each provider.
#[derive(Debug)]
pub(super) struct Berths {
    each: usize,
    by_provider: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Berths {
    pub(super) fn new(each: usize) -> Self {
        Self { each, by_provider: Mutex::default() }
    }

    /// Those of one provider.
    pub(super) fn of(&self, provider: &str) -> Arc<Semaphore> {
        let mut all = self.by_provider.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(provider.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.each))))
    }
}
