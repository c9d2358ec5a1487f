//! Whether a line to the database has lately swallowed what was sent on it, without a word to either end.
//!
//! Such a line reports no error until the kernel gives it up, a quarter of an hour later. sqlx asks each connection that comes back
//! to the pool whether it is well, and waits for the answer without end; so one that hangs would keep its place in the pool as
//! long. Asking with a limit is one more round trip for every use, which is paid only while there is reason to.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Stopwatch;

/// For so long after the last silence every line is suspected: longer than anybody waits for the database.
const SUSPECTED_FOR: Duration = Duration::from_secs(60);

/// Since the last silence, of this process.
static LAST: Mutex<Option<Stopwatch>> = Mutex::new(None);

/// Somebody has waited for an answer in vain.
pub(super) fn note() {
    *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(Stopwatch::start());
}

/// Whether that has happened lately.
pub(super) fn was_lately() -> bool {
    let last = *LAST.lock().unwrap_or_else(PoisonError::into_inner);
    last.is_some_and(|since| since.elapsed() < SUSPECTED_FOR)
}
