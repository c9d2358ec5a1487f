//! One flight per credential in this process: whoever comes while it is in the air waits for the same landing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::refresh::Verdict;
use crate::store::credentials::CredentialName;

/// How a flight ended; none while it is in the air or when it crashed.
pub(super) type Landing = watch::Receiver<Option<Verdict>>;

/// The flights in the air.
#[derive(Debug)]
pub(super) struct Flights {
    /// Made anew at each start, so that a lease of an earlier life of this node is not taken for ours.
    pub(super) process: String,
    air: Mutex<HashMap<CredentialName, (Landing, Whose)>>,
}

/// Who has begun a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Somebody who waits for it.
    AReaders,
    /// The sweep, whose flights wait for nobody and try once.
    TheSweeps,
}

/// Held by the leader; lands on drop, whatever happens, so that a panic strands nobody.
pub(super) struct Seat {
    flights: Arc<Flights>,
    name: CredentialName,
    landing: watch::Sender<Option<Verdict>>,
}

/// What to do about a credential.
pub(super) enum Boarding {
    /// Somebody leads; wait for the landing.
    Passenger(Landing, Whose),
    /// You lead.
    Leader(Seat, Landing),
}

impl Flights {
    pub(super) fn new(process: String) -> Self {
        Self { process, air: Mutex::default() }
    }

    /// `who` counts for the one who leads.
    pub(super) fn board(self: &Arc<Self>, name: &CredentialName, who: Whose) -> Boarding {
        let mut air = self.air.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((landing, whose)) = air.get(name) {
            return Boarding::Passenger(landing.clone(), *whose);
        }
        let (sender, receiver) = watch::channel(None);
        air.insert(name.clone(), (receiver.clone(), who));
        let seat = Seat { flights: Arc::clone(self), name: name.clone(), landing: sender };
        Boarding::Leader(seat, receiver)
    }
}

impl Seat {
    pub(super) fn name(&self) -> &CredentialName {
        &self.name
    }

    /// Whether there are passengers: one receiver is the one that they are made from.
    #[cfg(test)]
    pub(super) fn is_waited_for(&self) -> bool {
        self.landing.receiver_count() > 1
    }

    pub(super) fn land(self, verdict: Verdict) {
        // Nobody waiting any more is fine.
        let _ = self.landing.send(Some(verdict));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.flights.air.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_leader_that_panics_strands_nobody_and_frees_the_seat() {
        let flights = Arc::new(Flights::new("p".into()));
        let name = CredentialName { tenant_id: "t".into(), id: "c".into() };
        let Boarding::Leader(seat, mut landing) = flights.board(&name, Whose::AReaders) else {
            panic!("the first leads")
        };
        let Boarding::Passenger(mut other, _) = flights.board(&name, Whose::AReaders) else {
            panic!("the second waits")
        };

        let crash = tokio::spawn(async move {
            let _seat = seat;
            panic!("the flight crashes");
        });

        assert!(crash.await.is_err());
        assert!(landing.changed().await.is_err() && other.changed().await.is_err(), "both hear that nobody will land");
        assert!(matches!(flights.board(&name, Whose::AReaders), Boarding::Leader(..)), "the next one leads");
    }
}
