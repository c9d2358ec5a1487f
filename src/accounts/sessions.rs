//! Browser sessions on our own shelves: tower-sessions decides, we keep. The cookie's value is stored as a hash and the
//! record sealed, so that reading the database gives nobody a session (A7).

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tower_sessions::cookie::time::OffsetDateTime;
use tower_sessions::session::{Id, Record};
use tower_sessions::session_store::{Error, Result};

use super::{Accounts, BEFORE_ANY_SCOPE, Presence};
use crate::clock::Surroundings;
use crate::crypto::tokens::hash_token;
use crate::keys::{Keys, Owner, Place};
use crate::store::sessions::{session_change, session_delete, session_get, session_put};
use crate::store::{Store, Tx};

/// How long a session of somebody who has not signed in yet lasts: it only holds the anti-forgery value of a form.
const NOBODYS_LIFE: Duration = Duration::from_secs(60 * 60);
/// Where a record says when it ends, in milliseconds UTC. The end is absolute and by our own clock, so it is set once,
/// when the session gets its id; tower-sessions' own reckoning by the system's clock is ignored.
const UNTIL: &str = "until";

/// Where sessions are kept.
#[derive(Clone, Debug)]
pub struct SessionStore {
    store: Store,
    keys: Keys,
    around: Surroundings,
    life: Duration,
}

impl Accounts {
    /// The sessions of browsers: an hour for nobody, `life` for somebody, both absolute.
    #[must_use]
    pub fn session_store(&self, life: Duration) -> SessionStore {
        SessionStore { store: self.store.clone(), keys: self.keys.clone(), around: self.around.clone(), life }
    }
}

impl SessionStore {
    /// A record as it is kept: its hash, sealed, and when it ends.
    async fn sealed(&self, tx: &mut Tx, record: &Record) -> Result<(String, Vec<u8>, i64)> {
        let hash = hash_token(&record.id.to_string());
        let sealed =
            self.keys.seal_json(tx, &Owner::Installation, place(&hash), &record.data).await.map_err(backend)?;
        let expires_at = record.data.get(UNTIL).and_then(Value::as_i64).unwrap_or_default();
        Ok((hash, sealed, expires_at))
    }
}

#[async_trait]
impl tower_sessions::SessionStore for SessionStore {
    async fn create(&self, record: &mut Record) -> Result<()> {
        // 128 random bits do not collide with a live session, and a session's id always comes from us.
        record.id = Id(i128::from_be_bytes(self.around.random()));
        let life = if record.data.contains_key(Presence::IN_SESSION) { self.life } else { NOBODYS_LIFE };
        record.data.insert(UNTIL.to_owned(), self.around.now().after(life).0.into());
        let mut tx = self.store.begin().await.map_err(backend)?;
        let (hash, sealed, expires_at) = self.sealed(&mut tx, record).await?;
        session_put(&mut tx, BEFORE_ANY_SCOPE, &hash, &sealed, expires_at).await.map_err(backend)?;
        tx.commit().await.map_err(backend)
    }

    async fn save(&self, record: &Record) -> Result<()> {
        let mut tx = self.store.begin().await.map_err(backend)?;
        let (hash, sealed, expires_at) = self.sealed(&mut tx, record).await?;
        // A session that was ended while this request ran stays ended (WB-02).
        let now = self.around.now().0;
        session_change(&mut tx, BEFORE_ANY_SCOPE, &hash, &sealed, expires_at, now).await.map_err(backend)?;
        tx.commit().await.map_err(backend)
    }

    async fn load(&self, session_id: &Id) -> Result<Option<Record>> {
        let hash = hash_token(&session_id.to_string());
        let now = self.around.now();
        let mut tx = self.store.read().await.map_err(backend)?;
        let Some((sealed, expires_at)) = session_get(&mut tx, BEFORE_ANY_SCOPE, &hash, now.0).await.map_err(backend)?
        else {
            return Ok(None);
        };
        let data = self.keys.open_json(&mut tx, &Owner::Installation, place(&hash), &sealed).await.map_err(backend)?;
        let nanos = i128::from(expires_at) * 1_000_000;
        let expiry_date =
            OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(|error| Error::Decode(error.to_string()))?;
        Ok(Some(Record { id: *session_id, data, expiry_date }))
    }

    async fn delete(&self, session_id: &Id) -> Result<()> {
        let mut tx = self.store.begin().await.map_err(backend)?;
        session_delete(&mut tx, BEFORE_ANY_SCOPE, &hash_token(&session_id.to_string())).await.map_err(backend)?;
        tx.commit().await.map_err(backend)
    }
}

fn place(hash: &str) -> Place<'_> {
    Place { record_kind: "session", record_id: hash, field: "record", generation: 0 }
}

fn backend(error: impl std::error::Error) -> Error {
    Error::Backend(error.to_string())
}
