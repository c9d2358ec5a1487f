//! Stopping in good order: everyone hears the signal, and the house waits until each worker has let
//! go of its handle.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Held by everything that must finish before the process ends. Clones count as holders.
#[derive(Clone, Debug)]
pub struct Shutdown {
    begun: CancellationToken,
    _holder: mpsc::Sender<()>,
}

/// The side that gives the signal and waits.
#[derive(Debug)]
pub struct ShutdownController {
    begun: CancellationToken,
    all_gone: mpsc::Receiver<()>,
}

/// A new pair of controller and first handle.
#[must_use]
pub fn channel() -> (ShutdownController, Shutdown) {
    let begun = CancellationToken::new();
    let (holder, all_gone) = mpsc::channel(1);
    (ShutdownController { begun: begun.clone(), all_gone }, Shutdown { begun, _holder: holder })
}

impl Shutdown {
    /// Resolves when the house has begun to stop.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// True when the house has begun to stop.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }
}

impl ShutdownController {
    /// Tells everyone to stop. Calling it twice is harmless.
    pub fn begin(&self) {
        self.begun.cancel();
    }

    /// Resolves when every [`Shutdown`] has been dropped.
    pub async fn finished(mut self) {
        while self.all_gone.recv().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_controller_waits_for_every_holder() {
        let (controller, first) = channel();
        let second = first.clone();
        controller.begin();
        first.begun().await;
        assert!(second.has_begun());
        let mut finished = Box::pin(controller.finished());
        drop(first);
        assert!(futures_util::poll!(&mut finished).is_pending(), "one holder is left");
        drop(second);
        finished.await;
    }
}
