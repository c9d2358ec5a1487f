//! The refresh tool: a fresh token in mid-call, for the variable and never for the model (AG-07, AG-08).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::tickets::{Admitted, Use};
use super::{Conversations, ConversationsError};
use crate::audit::{Action, Exposed};
use crate::credentials::refresh::Wish;
use crate::credentials::{CredentialError, IN_MID_CALL, ReadWish, Which};
use crate::secret::Secret;
use crate::store::conversations::conversation_connection_handed;

/// The shortest tool time-out at ElevenLabs is 5 s; we answer before it (RL-23).
const PATIENCE: Duration = Duration::from_secs(4);

/// What the tool asks for.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefreshRequest {
    /// Catalogue id.
    pub provider: String,
    /// Id, e-mail or label of the account.
    #[serde(default)]
    pub account: Option<String>,
    /// May repeat the ticket's user.
    #[serde(default)]
    pub user_id: Option<String>,
}

/// The answer. Its texts are a closed list, since the model may read them.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum RefreshAnswer {
    /// There is a fresh token.
    Ok {
        /// Only where proven that the model does not see it.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(value_type = String, read_only)]
        access_token: Option<Exposed>,
        /// `Bearer …`, only where proven.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(value_type = String, read_only)]
        authorization: Option<Exposed>,
        /// Seconds; absent when it never ends.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false)]
        expires_in: Option<u64>,
    },
    /// The user must connect again.
    ReauthRequired {
        /// To be spoken of.
        message: &'static str,
    },
    /// Not now.
    Retry {
        /// Seconds.
        retry_after: u64,
    },
}

impl Conversations {
    /// Answers the refresh tool.
    ///
    /// # Errors
    /// [`ConversationsError::IdentityMismatch`], [`ConversationsError::RateLimited`].
    pub async fn refresh_tool(
        &self,
        admitted: Admitted,
        request: RefreshRequest,
    ) -> Result<RefreshAnswer, ConversationsError> {
        self.must_be_own(&admitted, request.user_id.as_slice()).await?;
        self.count(&admitted, Use::Refresh).await?;
        let row = &admitted.row;
        let Some(used) = self.connection_of_ticket(&admitted, &request.provider, request.account.as_deref()).await?
        else {
            return Ok(RefreshAnswer::ReauthRequired {
                message: "This account is not connected. Please ask the user to connect it.",
            });
        };
        let proven = self.workspaces.proven_paths(&row.workspace_tenant_id, &row.workspace_id, &row.agent_id).await;
        let want = ReadWish {
            wish: Wish::newer_than(used.handed_generation),
            patience: PATIENCE,
            conversation: Some(&row.id),
            forever_is_fine: true,
            reason: Some(IN_MID_CALL),
            action: if proven.is_empty() || used.hand_over != "inject" {
                Action::CredentialUsed
            } else {
                Action::TokenRead
            },
            which: Which::Id(&used.credential_id),
            ..ReadWish::token(&used.connection_id, Duration::ZERO)
        };
        let token = match self.credentials.read(&admitted.caller, want).await {
            Ok(token) => token,
            Err(error) => return spoken(error),
        };
        let expires_in = token.expires_in.map(|left| left.as_secs());
        if used.hand_over != "inject" || token.expires_at.is_none() || proven.is_empty() {
            return Ok(RefreshAnswer::Ok { access_token: None, authorization: None, expires_in });
        }
        let mut tx = self.store.begin().await?;
        conversation_connection_handed(&mut tx, &admitted.scope, &row.id, &used.connection_id, token.generation)
            .await?;
        tx.commit().await?;
        let header = Secret::new(format!("Bearer {}", token.secret.expose()));
        Ok(RefreshAnswer::Ok {
            authorization: proven.contains("authorization").then(|| Exposed::new(header, &token.durable)),
            access_token: proven.contains("access_token").then(|| Exposed::new(token.secret, &token.durable)),
            expires_in,
        })
    }
}

/// What the agent may say about it.
fn spoken(error: CredentialError) -> Result<RefreshAnswer, ConversationsError> {
    let seconds = |span: Duration| span.as_secs().clamp(1, 300);
    match error {
        CredentialError::NeedsReauth { .. }
        | CredentialError::NotFound
        | CredentialError::NoSuchKind
        | CredentialError::NotRefreshable => Ok(RefreshAnswer::ReauthRequired {
            message: "Access to this account has ended. Please ask the user to connect it again.",
        }),
        CredentialError::InProgress { retry_after }
        | CredentialError::RateLimited { retry_after }
        | CredentialError::Upstream { retry_after, .. } => {
            Ok(RefreshAnswer::Retry { retry_after: seconds(retry_after) })
        }
        CredentialError::Misconfigured => Ok(RefreshAnswer::Retry { retry_after: 60 }),
        other => Err(other.into()),
    }
}
