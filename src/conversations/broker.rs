//! The broker: the tool says what to do, the vault does it with the credential (AG-12). The agent's rules say which
//! methods and paths, of those that the catalogue allows for anybody; without a rule nothing is allowed.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};
use serde_json::Value;

use super::tickets::{Admitted, Use};
use super::{Conversations, ConversationsError};
use crate::credentials::{ApiCall, BrokerAnswer, BrokerCall, Which, path_fits};
use crate::workspaces::BrokerRule;

/// A call that a tool asks for.
#[derive(Debug)]
pub struct BrokerRequest {
    /// Catalogue id.
    pub provider: String,
    /// The path after the provider, still percent-encoded as it came.
    pub path: String,
    /// The query as it came.
    pub query: Option<String>,
    /// HTTP method.
    pub method: Method,
    /// Headers; few are forwarded.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// `X-Valetkey-Account`.
    pub account: Option<String>,
}

impl Conversations {
    /// Makes the call and answers with the provider's answer, filtered.
    ///
    /// # Errors
    /// [`ConversationsError::NotGranted`] for what no rule allows, [`ConversationsError::IdentityMismatch`],
    /// [`ConversationsError::RateLimited`]; what the provider refuses is its answer.
    pub async fn broker(&self, admitted: Admitted, request: BrokerRequest) -> Result<BrokerAnswer, ConversationsError> {
        self.must_be_own(&admitted, &claimed_users(&request)).await?;
        self.count(&admitted, Use::Broker).await?;
        if !allowed(&admitted, &request) {
            self.note_refusal(&admitted, "not_allowed").await?;
            return Err(ConversationsError::NotGranted("the agent's broker rules do not allow this call"));
        }
        let used = self
            .connection_of_ticket(&admitted, &request.provider, request.account.as_deref())
            .await?
            .ok_or(ConversationsError::NotFound("connection in this conversation"))?;
        let target = self.connections.target_of(&admitted.caller, &used.connection_id).await?;
        let call = BrokerCall {
            connection: &used.connection_id,
            which: Which::Id(&used.credential_id),
            provider: &request.provider,
            call: ApiCall {
                method: request.method,
                path: &request.path,
                query: request.query.as_deref(),
                headers: &request.headers,
                body: request.body,
                chat: target.chat,
                variables: &target.variables,
            },
            conversation: Some(&admitted.row.id),
        };
        let answer = self.credentials.send(&admitted.caller, call).await?;
        if answer.status == 403 && target.chat.is_some() {
            let noted = self.connections.chat_refused(&admitted.caller, &used.connection_id).await;
            if let Err(error) = noted {
                tracing::warn!(connection = used.connection_id, error = %error, "a blocked bot could not be noted");
            }
        }
        Ok(answer)
    }
}

/// User ids that a body names, at the top of a JSON object or among a form's fields.
fn claimed_users(request: &BrokerRequest) -> Vec<String> {
    const NAME: &str = "user_id";
    let kind = request.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind.starts_with("application/x-www-form-urlencoded") {
        let fields = url::form_urlencoded::parse(&request.body);
        return fields.filter(|(name, _)| name == NAME).map(|(_, value)| value.into_owned()).collect();
    }
    let body: Option<Value> = serde_json::from_slice(&request.body).ok();
    let claimed = body.as_ref().and_then(|body| body.get(NAME));
    claimed.map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned)).into_iter().collect()
}

fn allowed(admitted: &Admitted, request: &BrokerRequest) -> bool {
    let rules: BTreeMap<String, BrokerRule> = serde_json::from_str(&admitted.row.broker).unwrap_or_default();
    rules.get(&request.provider).is_some_and(|rule| {
        let usual = ["GET", "POST"].contains(&request.method.as_str());
        let method =
            if rule.methods.is_empty() { usual } else { rule.methods.iter().any(|one| one == request.method.as_str()) };
        let fits = |paths: &Vec<String>| paths.iter().any(|glob| path_fits(glob, &request.path));
        method && rule.paths.as_ref().is_none_or(fits)
    })
}
