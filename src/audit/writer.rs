//! Group commit for entries that have no transaction of their own: while one batch is being committed the next one
//! gathers, so that under load many entries share a commit and an idle node waits for nothing.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::AuditError;
use super::exposed::Durable;
use crate::clock::deadline;
use crate::shutdown::Shutdown;
use crate::store::audit::{AuditRow, audit_insert, audit_insert_all};
use crate::store::{Store, StoreError};

/// How long a caller waits for its entry before it refuses (AU-01).
const LIMIT: Duration = Duration::from_secs(2);
/// What is not written by then is given up, and tried on other lines by the next: everybody who waited has left.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);
/// Entries in one commit, and entries that may wait for the next.
const BATCH: usize = 256;

type Waiting = (AuditRow, oneshot::Sender<()>);

/// The way to the one task that writes batches.
#[derive(Clone, Debug)]
pub(super) struct Writer(mpsc::Sender<Waiting>);

impl Writer {
    pub(super) fn start(store: Store, shutdown: Shutdown) -> Self {
        let (sender, receiver) = mpsc::channel(BATCH);
        tokio::spawn(run(store, receiver, shutdown));
        Self(sender)
    }

    pub(super) async fn write(&self, row: AuditRow) -> Result<Durable, AuditError> {
        let (written, is_written) = oneshot::channel();
        let wait = async {
            self.0.send((row, written)).await.map_err(|_| AuditError::TooSlow)?;
            is_written.await.map_err(|_| AuditError::TooSlow)
        };
        deadline(LIMIT, wait).await.map_err(|_| AuditError::TooSlow)??;
        Ok(Durable::after_commit())
    }
}

async fn run(store: Store, mut receiver: mpsc::Receiver<Waiting>, shutdown: Shutdown) {
    // Held so that shutdown waits for this task; it ends when the last `Audit` is dropped.
    let _holder = shutdown;
    let mut batch = Vec::with_capacity(BATCH);
    while receiver.recv_many(&mut batch, BATCH).await > 0 {
        // A caller that gave up does not want its entry written: it was told no.
        batch.retain(|(_, written)| !written.is_closed());
        match store.in_time(WRITTEN_WITHIN, write_batch(&store, &batch)).await {
            Ok(()) => batch.drain(..).for_each(|(_, written)| {
                let _ = written.send(());
            }),
            Err(error) => {
                tracing::error!(error = %error, entries = batch.len(), "audit entries could not be written; their requests are refused");
                batch.clear();
            }
        }
    }
}

async fn write_batch(store: &Store, batch: &[Waiting]) -> Result<(), StoreError> {
    match batch {
        [] => Ok(()),
        // Half as much work for the database, and the usual case: a list has to be made and taken apart again.
        [(row, _)] => audit_insert(&mut store.one_statement().await?, row).await,
        more => {
            let rows: Vec<_> = more.iter().map(|(row, _)| row).collect();
            audit_insert_all(&mut store.one_statement().await?, &rows).await
        }
    }
}
