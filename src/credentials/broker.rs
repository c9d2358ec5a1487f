//! Using a credential without letting it out: the vault makes the call itself (AG-12).

use bytes::Bytes;
use http::HeaderMap;

use super::read::{PATIENCE, ReadWish, Which};
use super::refresh::Wish;
use super::{CredentialError, Credentials};
use crate::audit::Action;
use crate::caller::{Caller, Permission};
use crate::outbound::{Limits, Response};
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

/// The provider's answer, filtered.
#[derive(Debug)]
pub struct BrokerAnswer {
    /// HTTP status.
    pub status: u16,
    /// The few headers that go on.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Headers of the provider's answer that go on: what describes the body, and when to come again.
const FORWARDED: [http::HeaderName; 4] =
    [http::header::CONTENT_TYPE, http::header::CONTENT_LANGUAGE, http::header::ETAG, http::header::RETRY_AFTER];

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
        let request = provider.attach(broker.call.clone(), token.kind, &token.secret)?.limits(Limits::api());
        let answer = self.outbound.send(request).await?;
        if answer.status != 401 || !token.refreshable {
            return Ok(filtered(answer));
        }
        want.wish = Wish::newer_than(token.generation);
        let Ok(newer) = self.read_in(caller, &scope, want).await else { return Ok(filtered(answer)) };
        if newer.generation == token.generation {
            return Ok(filtered(answer));
        }
        let request = provider.attach(broker.call, newer.kind, &newer.secret)?.limits(Limits::api());
        Ok(filtered(self.outbound.send(request).await?))
    }
}

fn filtered(answer: Response) -> BrokerAnswer {
    let mut headers = HeaderMap::new();
    for name in FORWARDED {
        if let Some(value) = answer.headers.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    BrokerAnswer { status: answer.status, headers, body: Bytes::copy_from_slice(&answer.body) }
}
