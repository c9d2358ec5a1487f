//! Paging cursors: opaque, and bound to the tenant and the list they were made for, so that a changed or a borrowed one
//! is refused instead of understood (DESIGN section 6).

use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;

use super::{KeyError, Keys};
use crate::crypto::Key32;
use crate::crypto::derive::Purpose;
use crate::crypto::signature::{mac, verify};
use crate::store::Store;

const LABEL: &str = "valetkey/cursor/v1";
/// Bytes of the tag that a cursor begins with.
const TAG: usize = 32;

/// Writes and reads cursors. The key is the installation's and outlives rotations, so cursors do too.
#[derive(Clone, Debug)]
pub struct Cursors(Arc<Key32>);

impl Keys {
    /// The installation's cursors. Makes the installation's key when it is the first value it serves.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub async fn cursors(&self, store: &Store) -> Result<Cursors, KeyError> {
        let mut tx = store.begin().await?;
        let key = self.installation_key(&mut tx, Purpose::Cursor).await?;
        tx.commit().await?;
        Ok(Cursors(Arc::new(key)))
    }
}

impl Cursors {
    /// A cursor behind which `list` of `tenant` goes on after the entry `after`.
    #[must_use]
    pub fn write(&self, tenant: &str, list: &str, after: &str) -> String {
        let mut bytes = mac(&self.0, LABEL, &[tenant.as_bytes(), list.as_bytes(), after.as_bytes()]).to_vec();
        bytes.extend_from_slice(after.as_bytes());
        BASE64URL_NOPAD.encode(&bytes)
    }

    /// The entry after which the list goes on; none when the cursor is not ours, or was made for another list or tenant.
    #[must_use]
    pub fn read(&self, tenant: &str, list: &str, cursor: &str) -> Option<String> {
        let bytes = BASE64URL_NOPAD.decode(cursor.as_bytes()).ok()?;
        let (tag, after) = bytes.split_at_checked(TAG)?;
        verify(&self.0, LABEL, &[tenant.as_bytes(), list.as_bytes(), after], tag).then_some(())?;
        String::from_utf8(after.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursors() -> Cursors {
        Cursors(Arc::new(Key32::from_root(&[5; 32]).expect("a key")))
    }

    #[test]
    fn a_cursor_goes_on_where_it_was_written() {
        let cursor = cursors().write("ten_1", "users", "usr_7");
        assert_eq!(cursors().read("ten_1", "users", &cursor).as_deref(), Some("usr_7"));
    }

    #[test]
    fn changed_and_borrowed_cursors_are_refused() {
        let cursor = cursors().write("ten_1", "users", "usr_7");
        assert_eq!(cursors().read("ten_2", "users", &cursor), None, "another tenant");
        assert_eq!(cursors().read("ten_1", "api-keys", &cursor), None, "another list");
        for at in 0..cursor.len() {
            let mut changed = cursor.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("text");
            assert_eq!(cursors().read("ten_1", "users", &changed), None, "position {at}");
            assert_eq!(cursors().read("ten_1", "users", &cursor[..at]), None, "cut off at {at}");
        }
        for text in ["", "usr_7", "====", "é", &format!("{cursor}A")] {
            assert_eq!(cursors().read("ten_1", "users", text), None, "{text}");
        }
    }
}
