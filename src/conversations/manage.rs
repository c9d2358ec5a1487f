//! Looking at conversations and ending them.

use serde::Serialize;
use utoipa::ToSchema;

use super::{Conversations, ConversationsError};
use crate::audit::{Action, Event};
use crate::caller::{Caller, Permission, TenantScope};
use crate::clock::Millis;
use crate::ids::ConversationId;
use crate::schema::words;
use crate::store::Tx;
use crate::store::bell::{Bell, ring_at_commit};
use crate::store::conversations::{ConversationRow, conversation_by_id, conversation_end, conversation_list};
use crate::store::users::user_by_id;

words! {
    /// How a conversation stands.
    ConversationStatus: "starting" | "started" | "ended" | "failed";
    /// Where a conversation happens.
    ChannelName: "relay" | "websocket";
    /// `sanitized` when the refresh tool is proven to hide tokens from the model, so that it may answer with one.
    RefreshToolKind: "sanitized" | "status_only";
}

/// A conversation as the API shows it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ConversationView {
    /// `cnv_…`.
    pub id: ConversationId,
    /// The tenant's own id of the user.
    #[schema(required)]
    pub user: Option<String>,
    /// ElevenLabs' agent id.
    pub agent_id: String,
    /// Where it happens.
    #[schema(value_type = ChannelName)]
    pub channel: String,
    /// `starting`, `started`, `ended` or `failed`.
    #[schema(value_type = ConversationStatus)]
    pub status: String,
    /// ElevenLabs' id.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub conversation_id: Option<String>,
    /// RFC 3339.
    #[schema(format = DateTime)]
    pub ticket_expires_at: String,
    /// `sanitized` or `status_only`.
    #[schema(value_type = RefreshToolKind)]
    pub refresh_tool: String,
    /// RFC 3339.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    pub ended_at: Option<String>,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub end_reason: Option<String>,
}

impl Conversations {
    /// One conversation.
    ///
    /// # Errors
    /// [`ConversationsError::NotFound`], [`ConversationsError::Denied`].
    pub async fn conversation(
        &self,
        caller: &Caller,
        id: &ConversationId,
    ) -> Result<ConversationView, ConversationsError> {
        let scope = caller.require(Permission::ConversationsWrite)?;
        let mut tx = self.store.read().await?;
        let row = conversation_by_id(&mut tx, &scope, id.as_str())
            .await?
            .ok_or(ConversationsError::NotFound("conversation"))?;
        shown(&mut tx, &scope, row).await
    }

    /// Conversations, newest first, before `before` (empty means from the end).
    ///
    /// # Errors
    /// [`ConversationsError::Denied`].
    pub async fn conversation_list(
        &self,
        caller: &Caller,
        before: &str,
        limit: i64,
    ) -> Result<Vec<ConversationView>, ConversationsError> {
        let scope = caller.require(Permission::ConversationsWrite)?;
        let mut tx = self.store.read().await?;
        let mut list = Vec::new();
        for row in conversation_list(&mut tx, &scope, before, limit).await? {
            list.push(shown(&mut tx, &scope, row).await?);
        }
        Ok(list)
    }

    /// Ends a conversation: its ticket and its relay with it. Ending it twice is fine.
    ///
    /// # Errors
    /// [`ConversationsError::NotFound`], [`ConversationsError::Denied`].
    pub async fn end(&self, caller: &Caller, id: &ConversationId) -> Result<ConversationView, ConversationsError> {
        let scope = caller.require(Permission::ConversationsWrite)?;
        let mut tx = self.store.begin().await?;
        let row = conversation_by_id(&mut tx, &scope, id.as_str())
            .await?
            .ok_or(ConversationsError::NotFound("conversation"))?;
        if conversation_end(&mut tx, &scope, id.as_str(), "ended", "ended_by_platform", self.around.now().0).await? {
            ring_at_commit(&mut tx, Bell::Revoked).await?;
            let event = Event::done(Action::ConversationEnded, "conversation", &row.id)
                .of_user(Some(&row.user_id))
                .in_conversation(Some(&row.id));
            self.audit.record_and_commit(tx, caller, &event).await?;
            self.bells.ring(Bell::Revoked);
        }
        self.conversation(caller, id).await
    }
}

async fn shown(tx: &mut Tx, scope: &TenantScope, row: ConversationRow) -> Result<ConversationView, ConversationsError> {
    let user = user_by_id(tx, scope, &row.user_id).await?.map(|user| user.external_id);
    Ok(ConversationView {
        user,
        id: ConversationId::stored(row.id),
        agent_id: row.agent_id,
        channel: row.channel,
        status: row.status,
        conversation_id: row.upstream_id,
        ticket_expires_at: Millis(row.ticket_expires_at).rfc3339(),
        refresh_tool: row.refresh_tool,
        created_at: Millis(row.created_at).rfc3339(),
        ended_at: row.ended_at.map(|at| Millis(at).rfc3339()),
        end_reason: row.end_reason,
    })
}
