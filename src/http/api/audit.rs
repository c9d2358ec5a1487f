//! The book, as a tenant may read it.

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use crate::audit::Entry;
use crate::clock::Millis;
use crate::http::{House, List, Paging, PlatformCaller, Problem, ProblemBody};

const LIST: &str = "audit";

/// One entry.
#[derive(Debug, Serialize)]
pub(super) struct EntryView {
    id: String,
    at: String,
    actor: Actor,
    action: String,
    object: Object,
    #[serde(skip_serializing_if = "Option::is_none")]
    conversation: Option<String>,
    result: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    request_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
}

#[derive(Debug, Serialize)]
struct Actor {
    kind: String,
    id: String,
}

#[derive(Debug, Serialize)]
struct Object {
    kind: String,
    id: String,
}

impl From<Entry> for EntryView {
    fn from(row: Entry) -> Self {
        Self {
            id: row.id,
            at: Millis(row.at).rfc3339(),
            actor: Actor { kind: row.actor_kind, id: row.actor_id },
            action: row.action,
            object: Object { kind: row.object_kind, id: row.object_id },
            conversation: row.conversation_id,
            result: row.result,
            reason: row.reason,
            request_id: row.request_id,
            peer: row.peer,
        }
    }
}

/// Entries, newest first.
#[utoipa::path(get, path = "/v1/audit", tag = "audit", params(
    ("limit" = Option<u8>, Query, description = "1 to 100, 50 by default"),
    ("cursor" = Option<String>, Query, description = "A next_cursor of this list"),
), responses(
    (status = 200, description = "A page of entries", body = Object),
    (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn audit(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    paging: Paging,
) -> Result<Json<List<EntryView>>, Problem> {
    let before = paging.after(&house, &caller, LIST)?;
    let list = house.audit.entries(&caller, &before, paging.ask()).await?;
    Ok(Json(paging.page((&house, &caller, LIST), list, |row| row.id.clone(), EntryView::from)))
}
