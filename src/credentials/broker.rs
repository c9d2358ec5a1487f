//! Using a credential without letting it out: the vault makes the call itself (AG-12).

use http::{HeaderMap, HeaderName, header};

use super::read::{PATIENCE, ReadWish, Which};
use super::refresh::Wish;
use super::{CredentialError, Credentials};
use crate::audit::Action;
use crate::caller::{Caller, Permission};
use crate::outbound::{Chunks, Incoming, Limits, OutboundError};
use crate::providers::ApiCall;
use std::time::Duration;

/// A call that a tool asks for.
#[derive(Clone, Debug)]
pub struct BrokerCall<'a> {
    /// `con_…`.
    pub connection: &'a str,
    /// Which of its credentials.
    pub which: Which<'a>,
    /// Catalogue id.
    pub provider: &'a str,
    /// The call without its credential.
    pub call: ApiCall<'a>,
    /// The conversation it is made for.
    pub conversation: Option<&'a str>,
}

/// The provider's answer, filtered. It is passed on as it comes and never kept as a whole.
pub struct BrokerAnswer {
    /// HTTP status.
    pub status: u16,
    /// The few headers that go on.
    pub headers: HeaderMap,
    /// The body.
    pub body: Chunks,
}

/// Headers of the provider's answer that go on: what describes the body, and when to come again.
/// `Content-Length` does not: whether a body is whole is told by its end.
const FORWARDED: [HeaderName; 7] = [
    header::CONTENT_TYPE,
    header::CONTENT_LANGUAGE,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    header::LAST_MODIFIED,
    header::ETAG,
    header::RETRY_AFTER,
];

impl Credentials {
    /// Makes a call with the connection's credential. A 401 brings one forced refresh and one repetition, since the
    /// provider did not do what it refused to authenticate.
    ///
    /// # Errors
    /// See [`CredentialError`].
    pub async fn send(&self, caller: &Caller, broker: BrokerCall<'_>) -> Result<BrokerAnswer, CredentialError> {
        let scope = caller.require(Permission::TokensRead)?;
        let provider = self.providers.get(broker.provider).ok_or(CredentialError::NotFound)?;
        let mut want = ReadWish {
            connection: broker.connection,
            which: broker.which,
            wish: Wish::life(Duration::from_secs(60)),
            patience: PATIENCE,
            conversation: broker.conversation,
            action: Action::CredentialUsed,
            reason: None,
            forever_is_fine: true,
        };
        let token = self.read_in(caller, &scope, want).await?;
        let request = provider.attach(broker.call.clone(), token.kind, &token.secret)?.limits(Limits::passed_on());
        let answer = self.outbound.open(request).await?;
        if answer.status != 401 || !token.refreshable {
            return Ok(filtered(answer)?);
        }
        want.wish = Wish::newer_than(token.generation);
        let Ok(newer) = self.read_in(caller, &scope, want).await else { return Ok(filtered(answer)?) };
        if newer.generation == token.generation {
            return Ok(filtered(answer)?);
        }
        let request = provider.attach(broker.call, newer.kind, &newer.secret)?.limits(Limits::passed_on());
        Ok(filtered(self.outbound.open(request).await?)?)
    }
}

fn filtered(answer: Incoming) -> Result<BrokerAnswer, OutboundError> {
    let mut headers = HeaderMap::new();
    for name in FORWARDED {
        if let Some(value) = answer.headers.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    Ok(BrokerAnswer { status: answer.status, headers, body: answer.chunks()? })
}
