//! What this node knows about itself: ready or not, and why not.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Shared between everything that can make a node unready.
#[derive(Clone, Debug, Default)]
pub struct Health {
    obstacles: Arc<RwLock<BTreeMap<&'static str, String>>>,
}

impl Health {
    /// Records that `part` keeps this node from being ready. `why` is for operators: no secrets.
    pub fn obstruct(&self, part: &'static str, why: impl Into<String>) {
        self.obstacles.write().unwrap_or_else(PoisonError::into_inner).insert(part, why.into());
    }

    /// Records that `part` is well again.
    pub fn clear(&self, part: &'static str) {
        self.obstacles.write().unwrap_or_else(PoisonError::into_inner).remove(part);
    }

    /// Everything that keeps this node from being ready; empty means ready.
    #[must_use]
    pub fn obstacles(&self) -> BTreeMap<&'static str, String> {
        self.obstacles.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
