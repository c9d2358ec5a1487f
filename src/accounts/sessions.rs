//! Browser sessions on our own shelves: tower-sessions decides, we keep. The cookie's value is stored as a hash and the
//! record sealed, so that reading the database gives nobody a session (A7).

use async_trait::async_trait;
use tower_sessions::cookie::time::OffsetDateTime;
use tower_sessions::session::{Id, Record};
use tower_sessions::session_store::{Error, Result};

use super::BEFORE_ANY_SCOPE;
use crate::clock::Surroundings;
use crate::crypto::tokens::hash_token;
use crate::keys::{Keys, Owner, Place};
use crate::store::Store;
use crate::store::sessions::{session_delete, session_get, session_put};

/// Where sessions are kept.
#[derive(Clone, Debug)]
pub struct SessionStore {
    store: Store,
    keys: Keys,
    around: Surroundings,
}

impl SessionStore {
    /// On this database, sealed with the installation's key.
    #[must_use]
    pub fn new(store: Store, keys: Keys, around: Surroundings) -> Self {
        Self { store, keys, around }
    }

    async fn put(&self, record: &Record) -> Result<()> {
        let hash = hash_token(&record.id.to_string());
        let mut tx = self.store.begin().await.map_err(backend)?;
        let sealed =
            self.keys.seal_json(&mut tx, &Owner::Installation, place(&hash), &record.data).await.map_err(backend)?;
        let expires_at = i64::try_from(record.expiry_date.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX);
        session_put(&mut tx, BEFORE_ANY_SCOPE, &hash, &sealed, expires_at).await.map_err(backend)?;
        tx.commit().await.map_err(backend)
    }
}

#[async_trait]
impl tower_sessions::SessionStore for SessionStore {
    async fn create(&self, record: &mut Record) -> Result<()> {
        // 128 random bits do not collide with a live session, and a session's id always comes from us.
        record.id = Id(i128::from_be_bytes(self.around.random()));
        self.put(record).await
    }

    async fn save(&self, record: &Record) -> Result<()> {
        self.put(record).await
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
