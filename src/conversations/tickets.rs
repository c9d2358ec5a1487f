//! Tickets: who a tool call is for. Two proofs, one uniform refusal (AG-04, AG-05, AG-06).

use std::time::Duration;

use super::{BY_SECRET, Conversations, ConversationsError};
use crate::audit::{Action, Event};
use crate::caller::{Caller, Origin, Permission, TenantScope};
use crate::ids::{ConversationId, TenantId, UserId};
use crate::keys::{hash_of, looks_right};
use crate::secret::Secret;
use crate::store::conversations::{
    ConversationConnectionRow, ConversationRow, conversation_by_ticket, conversation_connections, conversation_end,
    ticket_use_count,
};
use crate::store::users::user_by_id;

const HOUR: i64 = 3_600_000;
/// Refused calls before a ticket ends (API.md section 6, point 7).
const MOST_REFUSED: i64 = 20;

/// What a tool call brings to prove itself.
#[derive(Debug, Default)]
pub struct Proof {
    /// The ticket, from `Authorization: Bearer`.
    pub ticket: Option<Secret>,
    /// `X-Valetkey-Workspace`.
    pub workspace: Option<Secret>,
    /// User ids that the query names; the body's are looked at once the ticket has proven itself.
    pub claimed_users: Vec<String>,
    /// Where the request came from.
    pub origin: Origin,
}

/// A tool call that has proven itself.
#[derive(Debug)]
pub struct Admitted {
    pub(super) row: ConversationRow,
    pub(super) caller: Caller,
    pub(super) scope: TenantScope,
}

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Use {
    Refresh,
    Broker,
}

impl Use {
    fn limit(self) -> (&'static str, i64) {
        match self {
            Self::Refresh => ("refresh", 60),
            Self::Broker => ("broker", 600),
        }
    }
}

impl Conversations {
    /// Whose call this is: from the ticket alone. Nothing of a body is looked at before.
    ///
    /// # Errors
    /// [`ConversationsError::Unauthenticated`], [`ConversationsError::Gone`], [`ConversationsError::IdentityMismatch`].
    pub async fn admit_ticket(&self, proof: Proof) -> Result<Admitted, ConversationsError> {
        let (Some(ticket), Some(workspace)) = (&proof.ticket, &proof.workspace) else {
            return Err(ConversationsError::Unauthenticated);
        };
        if !looks_right(ticket.expose()) {
            return Err(ConversationsError::Unauthenticated);
        }
        let mut tx = self.store.read().await?;
        let row = conversation_by_ticket(&mut tx, BY_SECRET, &hash_of(ticket.expose())).await?;
        drop(tx);
        let Some(row) = row else { return Err(ConversationsError::Unauthenticated) };
        let caller = Caller::ticket(
            TenantId::stored(row.tenant_id.clone()),
            ConversationId::stored(row.id.clone()),
            UserId::stored(row.user_id.clone()),
            proof.origin,
        );
        let scope = caller.require(Permission::TokensRead)?;
        let admitted = Admitted { row, caller, scope };
        if !self
            .workspaces
            .tool_header_fits(&admitted.row.workspace_tenant_id, &admitted.row.workspace_id, workspace)
            .await?
        {
            self.refuse(&admitted, Action::TicketRefused, "wrong_workspace").await?;
            return Err(ConversationsError::Unauthenticated);
        }
        if admitted.row.ended_at.is_some() || admitted.row.ticket_expires_at <= self.around.now().0 {
            return Err(ConversationsError::Gone);
        }
        self.must_be_own(&admitted, &proof.claimed_users).await?;
        Ok(admitted)
    }

    /// A request may repeat the ticket's user, never change it.
    pub(super) async fn must_be_own(
        &self,
        admitted: &Admitted,
        claimed_users: &[String],
    ) -> Result<(), ConversationsError> {
        if self.contradicts(admitted, claimed_users).await? {
            self.refuse(admitted, Action::IdentityMismatch, "other_user").await?;
            return Err(ConversationsError::IdentityMismatch);
        }
        Ok(())
    }

    async fn contradicts(&self, admitted: &Admitted, claimed: &[String]) -> Result<bool, ConversationsError> {
        if claimed.is_empty() {
            return Ok(false);
        }
        let mut tx = self.store.read().await?;
        let user =
            user_by_id(&mut tx, &admitted.scope, &admitted.row.user_id).await?.ok_or(ConversationsError::Gone)?;
        Ok(claimed.iter().any(|id| *id != user.external_id))
    }

    /// Writes down that a proven ticket asked for something it may not have.
    pub(super) async fn note_refusal(&self, admitted: &Admitted, reason: &str) -> Result<(), ConversationsError> {
        let event = refusal(&admitted.row, Action::TicketRefused).denied(reason);
        self.audit.note(&admitted.caller, &event).await?;
        Ok(())
    }

    /// Writes a refused proof down and counts it; the twentieth in an hour ends the ticket.
    pub(super) async fn refuse(
        &self,
        admitted: &Admitted,
        action: Action,
        reason: &str,
    ) -> Result<(), ConversationsError> {
        let row = &admitted.row;
        let event = refusal(row, action).denied(reason);
        let now = self.around.now().0;
        let mut tx = self.store.begin().await?;
        let (refused, _) = ticket_use_count(&mut tx, &admitted.scope, &row.id, "refused", now, HOUR).await?;
        if refused >= MOST_REFUSED {
            conversation_end(&mut tx, &admitted.scope, &row.id, "ended", "too_many_refusals", now).await?;
            tracing::error!(conversation = row.id, "a ticket was ended after too many refused calls");
            metrics::counter!("valetkey_tickets_ended_total", "reason" => "too_many_refusals").increment(1);
        }
        self.audit.record_and_commit(tx, &admitted.caller, &event).await?;
        Ok(())
    }

    /// Counts one accepted use.
    pub(super) async fn count(&self, admitted: &Admitted, what: Use) -> Result<(), ConversationsError> {
        let (kind, limit) = what.limit();
        let now = self.around.now().0;
        let mut tx = self.store.begin().await?;
        let (uses, began) = ticket_use_count(&mut tx, &admitted.scope, &admitted.row.id, kind, now, HOUR).await?;
        tx.commit().await?;
        if uses > limit {
            let left = u64::try_from(began + HOUR - now).unwrap_or(0);
            return Err(ConversationsError::RateLimited(Duration::from_millis(left)));
        }
        Ok(())
    }

    /// The connection of the ticket that a tool means.
    pub(super) async fn connection_of_ticket(
        &self,
        admitted: &Admitted,
        provider: &str,
        account: Option<&str>,
    ) -> Result<Option<ConversationConnectionRow>, ConversationsError> {
        let mut tx = self.store.read().await?;
        let rows = conversation_connections(&mut tx, &admitted.scope, &admitted.row.id).await?;
        drop(tx);
        let rows = rows.into_iter().filter(|row| row.provider == provider);
        let Some(account) = account else { return Ok(rows.max_by_key(|row| row.is_primary)) };
        for row in rows {
            let id = crate::ids::ConnectionId::stored(row.connection_id.clone());
            if super::choose::is_account(&self.connections.connection(&admitted.caller, &id).await?, account) {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }
}

fn refusal(row: &ConversationRow, action: Action) -> Event<'_> {
    Event::done(action, "conversation", &row.id).of_user(Some(&row.user_id)).in_conversation(Some(&row.id))
}
