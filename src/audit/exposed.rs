//! The one way out for a secret. `grep -rn Exposed src` lists every exit.

use serde::{Serialize, Serializer};

use crate::secret::Secret;

/// Proof that an audit entry is durable. Only this module's neighbours make it, after a commit.
#[derive(Debug)]
pub struct Durable(());

impl Durable {
    pub(super) fn after_commit() -> Self {
        Self(())
    }
}

/// A secret on its way into an answer. It serializes in clear, which is why making one wants proof that the
/// hand-out is in the book.
#[derive(Debug)]
pub struct Exposed(Secret);

impl Exposed {
    /// Lets `secret` out; `_proof` shows that its audit entry is durable.
    #[must_use]
    pub fn new(secret: Secret, _proof: &Durable) -> Self {
        Self(secret)
    }
}

impl Serialize for Exposed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}
