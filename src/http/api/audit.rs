//! The book, as a tenant may read it.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::audit::Entry;
use crate::clock::Millis;
use crate::http::{House, List, PageQuery, Paging, PlatformCaller, Problem};
use crate::ids::{AuditId, ConversationId};
use crate::schema::words;

words! {
    /// Who acted: a member, an end user, a platform key, a ticket, the house itself, or its operator.
    ActorKind: "member" | "user" | "key" | "ticket" | "system" | "operator";
    /// How it ended.
    AuditResult: "allowed" | "denied" | "failed";
}

const LIST: &str = "audit";

/// One entry.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EntryView {
    #[schema(value_type = AuditId)]
    id: String,
    /// When.
    #[schema(format = DateTime)]
    at: String,
    /// Who.
    actor: AuditActor,
    /// What was done, such as `token.read`.
    action: String,
    /// To what.
    object: AuditObject,
    /// In which conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = ConversationId, nullable = false)]
    conversation: Option<String>,
    /// How it ended.
    #[schema(value_type = AuditResult)]
    result: String,
    /// Why, from a closed list.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<String>,
    /// As in `X-Request-Id`; `cli` or `task:…` where no request was behind it.
    request_id: String,
    /// The address it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    peer: Option<String>,
}

/// Who did something.
#[derive(Debug, Serialize, ToSchema)]
struct AuditActor {
    #[schema(value_type = ActorKind)]
    kind: String,
    /// `mem_…`, `usr_…`, `key_…` or `cnv_…`; for the system and the operator, what acted.
    id: String,
}

/// What something was done to.
#[derive(Debug, Serialize, ToSchema)]
struct AuditObject {
    /// What kind of thing, such as `connection`.
    kind: String,
    /// Its id.
    id: String,
}

impl From<Entry> for EntryView {
    fn from(row: Entry) -> Self {
        Self {
            id: row.id,
            at: Millis(row.at).rfc3339(),
            actor: AuditActor { kind: row.actor_kind, id: row.actor_id },
            action: row.action,
            object: AuditObject { kind: row.object_kind, id: row.object_id },
            conversation: row.conversation_id,
            result: row.result,
            reason: row.reason,
            request_id: row.request_id,
            peer: row.peer,
        }
    }
}

/// Entries, newest first.
#[utoipa::path(
    get, path = "/v1/audit", tag = "audit", operation_id = "list_audit_entries",
    params(PageQuery),
    responses((status = 200, description = "A page of entries", body = List<EntryView>)),
)]
pub(super) async fn audit(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    paging: Paging,
) -> Result<Json<List<EntryView>>, Problem> {
    let before = paging.after(&house, &caller, LIST)?;
    let list = house.audit.entries(&caller, &before, paging.ask()).await?;
    Ok(Json(paging.page((&house, &caller, LIST), list, |row| row.id.clone(), EntryView::from)))
}
