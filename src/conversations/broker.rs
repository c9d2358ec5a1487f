//! The broker: the tool says what to do, the vault does it with the credential (AG-12). The agent's rules say which
//! methods and paths; without a rule nothing is allowed.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::tickets::{Admitted, Proof, Use};
use super::{Conversations, ConversationsError};
use crate::audit::Action;
use crate::credentials::ApiCall;
use crate::credentials::{BrokerAnswer, BrokerCall};
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
    /// [`ConversationsError::NotGranted`] for what no rule allows; see the refresh tool for the proofs.
    pub async fn broker(&self, proof: Proof, request: BrokerRequest) -> Result<BrokerAnswer, ConversationsError> {
        let admitted = self.admit_ticket(proof).await?;
        if !allowed(&admitted, &request) {
            self.refuse(&admitted, Action::TicketRefused, "not_allowed").await?;
            return Err(ConversationsError::NotGranted("the agent's broker rules do not allow this call"));
        }
        self.count(&admitted, Use::Broker).await?;
        let used = self
            .connection_of_ticket(&admitted, &request.provider, request.account.as_deref())
            .await?
            .ok_or(ConversationsError::NotFound("connection in this conversation"))?;
        let chat = self.connections.chat_of(&admitted.caller, &used.connection_id).await?;
        let call = BrokerCall {
            connection: &used.connection_id,
            kind: None,
            provider: &request.provider,
            call: ApiCall {
                method: request.method,
                path: &request.path,
                query: request.query.as_deref(),
                headers: &request.headers,
                body: request.body,
                chat,
            },
            conversation: Some(&admitted.row.id),
        };
        Ok(self.credentials.send(&admitted.caller, call).await?)
    }
}

fn allowed(admitted: &Admitted, request: &BrokerRequest) -> bool {
    let rules: BTreeMap<String, BrokerRule> = serde_json::from_str(&admitted.row.broker).unwrap_or_default();
    rules.get(&request.provider).is_some_and(|rule| {
        let usual = ["GET", "POST"].contains(&request.method.as_str());
        let method =
            if rule.methods.is_empty() { usual } else { rule.methods.iter().any(|one| one == request.method.as_str()) };
        method && rule.paths.iter().any(|glob| fits(glob, &request.path))
    })
}

/// `*` is one segment, `**` the rest (one segment or more).
fn fits(glob: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    for part in glob.split('/') {
        if part == "**" {
            return segments.next().is_some_and(|segment| !segment.is_empty());
        }
        match segments.next() {
            Some(segment) if !segment.is_empty() && (part == "*" || part == segment) => {}
            _ => return false,
        }
    }
    segments.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_star_is_one_segment_and_two_are_the_rest() {
        for (glob, path) in [
            ("gmail/v1/users/me/messages", "gmail/v1/users/me/messages"),
            ("gmail/v1/users/*/messages", "gmail/v1/users/me/messages"),
            ("gmail/**", "gmail/v1/users/me/messages"),
            ("chat.postMessage", "chat.postMessage"),
        ] {
            assert!(fits(glob, path), "{glob} {path}");
        }
        for (glob, path) in [
            ("gmail/v1/users/*/messages", "gmail/v1/users/me/drafts"),
            ("gmail/v1/users/*", "gmail/v1/users/me/messages"),
            ("gmail/**", "gmail"),
            ("gmail/**", "gmail/"),
            ("gmail/*", "gmail//"),
            ("chat.postMessage", "chat.postMessage2"),
            ("chat.*", "chat.postMessage"),
        ] {
            assert!(!fits(glob, path), "{glob} {path}");
        }
    }
}
