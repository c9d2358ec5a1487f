//! What a read of a token needs to know, at once: reads happen in the middle of calls, and every round trip is heard.

use super::credentials::CredentialRow;
use super::{StoreError, Tx, sql};
use crate::caller::TenantScope;

/// A credential with what its connection and its integration say about lending it.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct ReadableRow {
    /// The credential.
    #[sqlx(flatten)]
    pub credential: CredentialRow,
    /// `usr_…` of the connection; none when it belongs to the tenant.
    pub connection_user_id: Option<String>,
    /// The connection's status.
    pub connection_status: String,
    /// Why that is not `active`.
    pub connection_reason: Option<String>,
    /// When the connection was last used.
    pub connection_last_used_at: Option<i64>,
    /// The integration's status; none for a secret that a person handed over directly.
    pub integration_status: Option<String>,
}

/// The credentials of a connection that `scope` may see, `user` before `bot`.
///
/// # Errors
/// As every statement.
pub async fn credentials_readable(
    tx: &mut Tx,
    scope: &TenantScope,
    connection: &str,
) -> Result<Vec<ReadableRow>, StoreError> {
    sql!(
        tx,
        all ReadableRow,
        "SELECT k.*, c.user_id AS connection_user_id, c.status AS connection_status, c.reason AS connection_reason,
         c.last_used_at AS connection_last_used_at, i.status AS integration_status
         FROM connections c JOIN connection_credentials u ON u.tenant_id = c.tenant_id AND u.connection_id = c.id
         JOIN credentials k ON k.tenant_id = u.tenant_id AND k.id = u.credential_id AND k.deleted_at IS NULL
         LEFT JOIN integrations i ON i.tenant_id = k.tenant_id AND i.id = k.integration_id AND i.deleted_at IS NULL
         WHERE c.tenant_id = $1 AND c.id = $2 AND c.deleted_at IS NULL AND ($3 IS NULL OR c.user_id = $3) ORDER BY k.kind DESC",
        scope.tenant(),
        connection,
        scope.user()
    )
}
