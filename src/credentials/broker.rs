//! Using a credential without letting it out: the vault makes the call itself (AG-12).

use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use http::{HeaderMap, HeaderName, header};

use super::read::{PATIENCE, ReadWish, Token, Which};
use super::refresh::Wish;
use super::{CredentialError, Credentials};
use crate::audit::{Action, Event};
use crate::caller::{Caller, Permission, TenantScope};
use crate::clock::Millis;
use crate::outbound::{Chunks, Incoming, Limits, OutboundError};
use crate::providers::notices::REVOKED;
use crate::providers::{ApiCall, Failure, Provider};
use crate::store::StoreError;
use crate::store::connections::connection_by_id;

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

/// A refusal of a token is short. What is longer is an answer to the call.
const LONGEST_REFUSAL: usize = 4096;

/// An answer of which it is known whether it refuses the token.
struct Answered {
    answer: BrokerAnswer,
    refusal: Refusal,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Refusal {
    None,
    /// A 401, which some APIs give for what is not the token's fault.
    Perhaps,
    /// The provider's own word for a token that is not accepted.
    Surely,
}

impl Credentials {
    /// Makes a call with the connection's credential. Where the provider refuses the token, it has not done what was asked: a
    /// refreshable one brings one forced refresh and one repetition, another one is given up once it is known to be dead.
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
        let asked_at = self.around.now();
        let first = self.ask(provider.as_ref(), broker.call.clone(), &token).await?;
        if first.refusal == Refusal::None {
            return Ok(first.answer);
        }
        if !token.refreshable {
            let sure = first.refusal == Refusal::Surely
                || matches!(
                    provider.whose(token.kind, &token.secret, broker.call.variables).await,
                    Err(Failure::Reauth { .. })
                );
            if sure && let Err(error) = self.note_dead(caller, &scope, &token, asked_at).await {
                tracing::warn!(credential = token.credential, error = %error, "a refused token could not be given up");
            }
            return Ok(first.answer);
        }
        want.wish = Wish::newer_than(token.generation);
        match self.read_in(caller, &scope, want).await {
            Ok(newer) if newer.generation != token.generation => {
                Ok(self.ask(provider.as_ref(), broker.call, &newer).await?.answer)
            }
            _ => Ok(first.answer),
        }
    }

    async fn ask(
        &self,
        provider: &dyn Provider,
        call: ApiCall<'_>,
        token: &Token,
    ) -> Result<Answered, CredentialError> {
        let request = provider.attach(call, token.kind, &token.secret)?.limits(Limits::passed_on());
        let mut answer = filtered(self.outbound.open(request).await?)?;
        let api = &provider.descriptor().api;
        let refusal = match answer.status {
            401 => Refusal::Perhaps,
            200 if !api.refusals.is_empty() => {
                let (start, body) = begun(answer.body).await;
                answer.body = body;
                if api.is_refusal(&start) { Refusal::Surely } else { Refusal::None }
            }
            _ => Refusal::None,
        };
        Ok(Answered { answer, refusal })
    }

    /// Gives a token up that its provider has refused and that nothing can refresh. A consent since then stays.
    async fn note_dead(
        &self,
        caller: &Caller,
        scope: &TenantScope,
        token: &Token,
        asked_at: Millis,
    ) -> Result<(), StoreError> {
        let mut tx = self.store.begin().await?;
        if !self.give_up(&mut tx, scope, &token.credential, (REVOKED, asked_at)).await? {
            return Ok(());
        }
        let user = connection_by_id(&mut tx, scope, &token.account.connection).await?.and_then(|row| row.user_id);
        let event = Event::done(Action::ConnectionNeedsReauth, "credential", &token.credential);
        self.audit.record(&mut tx, caller, &event.of_user(user.as_deref()).because(Some(REVOKED))).await?;
        tx.commit().await
    }
}

/// The start of a body as far as it may be a refusal, and the whole body.
async fn begun(mut body: Chunks) -> (Vec<u8>, Chunks) {
    let (mut start, mut taken) = (Vec::new(), Vec::new());
    while start.len() <= LONGEST_REFUSAL
        && let Some(chunk) = body.next().await
    {
        start.extend_from_slice(chunk.as_deref().unwrap_or_default());
        taken.push(chunk);
    }
    (start, stream::iter(taken).chain(body).boxed())
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
