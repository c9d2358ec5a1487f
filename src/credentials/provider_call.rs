//! Calls to a provider about one credential: refresh and revoke. The protocol decides when; here it is only done.

use std::sync::Arc;
use std::time::Duration;

use super::Credentials;
use super::driver::{Fetched, Loaded, Tokens};
use super::refresh::{Code, Outcome};
use super::row::{client_secret_place, owner, refresh_place};
use crate::clock::{Millis, Stopwatch, timed_awake};
use crate::crash::crash_point;
use crate::ids::TenantId;
use crate::keys::{KeyError, Opened, Owner, Sealer, Stored};
use crate::outbound::{Knock, Left};
use crate::providers::{self, Client, CredentialKind, RevokeTokens, TokenSet};
use crate::secret::Secret;
use crate::store::credentials::CredentialRow;
use crate::store::integrations::IntegrationRow;

/// The protocol counts from the moment the request has left until an answer begins. Connecting, waiting at the door and
/// reading the answer have limits of their own below (`outbound::Limits`), which together are less than this.
const BESIDE_THE_WAIT: Duration = Duration::from_secs(45);

/// Nothing is sent when its keys took longer to come than this, or the process stood still meanwhile.
const OPENED_WITHIN: Duration = Duration::from_secs(5);

/// The wall clock and the one that counts may differ by this while nothing stood still.
const CLOCKS_DIFFER: Duration = Duration::from_secs(1);

/// What a refresh needs, opened.
struct ForRefresh {
    client_secret: Secret,
    refresh_token: Secret,
    sealer: Sealer,
}

impl Credentials {
    /// The one place where a refresh token is shown to a provider.
    pub(super) async fn call_provider(
        self,
        loaded: Option<Loaded>,
        waits_at: Option<(Knock, Left)>,
        give_up_after: Duration,
    ) -> Outcome<Tokens> {
        let Some(Loaded { row, integration }) = loaded else {
            return Outcome::Configuration(Code::new("integration_deleted"));
        };
        let (Some(provider), Some(kind)) = (self.providers.get(&row.provider), CredentialKind::parse(&row.kind)) else {
            return Outcome::Poisoned(Code::PROVIDER_UNKNOWN);
        };
        // A secret that was handed over directly has its client in itself.
        let integration = match integration {
            None if kind.is_minted() => IntegrationRow::new(&row.tenant_id, "", &row.provider, "", 0),
            None => return Outcome::Configuration(Code::new("integration_deleted")),
            Some(integration) => integration,
        };
        let watch = Stopwatch::start();
        let opening = self.open_for_refresh(&row, kind, &integration);
        let opened = match self.store.in_time(OPENED_WITHIN, opening).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(code)) => return Outcome::Configuration(code),
            Err(KeyError::Store(_)) => return Outcome::NotTried(Code::STORE_UNAVAILABLE),
            Err(error) => {
                tracing::error!(credential = %row.id, error = %error, "a stored token cannot be opened");
                return Outcome::Poisoned(Code::UNREADABLE);
            }
        };
        let ForRefresh { client_secret, refresh_token, sealer } = opened;
        let variables = provider.descriptor().stored_variables([integration.variables.as_str()]);
        let client = Client { id: &integration.client_id, secret: &client_secret, variables: &variables };
        // The protocol has sent this on its way a moment ago, as still in time for its lease and for a provider's grace.
        if watch.elapsed() > OPENED_WITHIN {
            return Outcome::NotTried(Code::STORE_UNAVAILABLE);
        }
        crash_point!(BeforeSend);
        let (knock, left) = waits_at.unzip();
        let asking = if kind.is_minted() {
            provider.mint(kind, &refresh_token)
        } else {
            provider.refresh(client, kind, &refresh_token, knock)
        };
        let asked_at = self.around.now();
        let answer = timed_awake(give_up_after + BESIDE_THE_WAIT, asking).await;
        let now = self.around.now();
        // From here on it stays where it is, whatever becomes of its connection.
        let has_left = left.is_none_or(|left| left.shut());
        match answer {
            Ok((Ok(set), took)) => {
                crash_point!(AfterResponse);
                // A process that stood still in between does not know since when its answer was there (RL-11).
                let received_at = now.min(asked_at.after(took + CLOCKS_DIFFER));
                Outcome::Fresh(Arc::new(Fetched::of(set, refresh_token, received_at, (sealer, integration.revision))))
            }
            // Cut off while the token was waiting at its door.
            Ok((Err(providers::Failure::Ambiguous { .. }), _)) | Err(_) if !has_left => Outcome::NotSent,
            Ok((Err(providers::Failure::ServerError { code }), _)) if !has_left => {
                Outcome::Transient(Code::new(code.as_str()))
            }
            Ok((Err(failure), _)) if kind.is_minted() => mint_outcome(failure, now),
            Ok((Err(failure), _)) => outcome(failure, now),
            Err(_) => Outcome::Ambiguous,
        }
    }

    /// What a refresh needs, or what is wrong with the integration.
    async fn open_for_refresh(
        &self,
        row: &CredentialRow,
        kind: CredentialKind,
        integration: &IntegrationRow,
    ) -> Result<Result<ForRefresh, Code>, KeyError> {
        let Some(refresh_token) = &row.refresh_token else { return Ok(Err(Code::new("not_refreshable"))) };
        let mut tx = self.store.read().await?;
        let tenant = Owner::Tenant(TenantId::stored(row.tenant_id.clone()));
        let client_secret = match &integration.client_secret {
            None if kind.is_minted() => None,
            None => return Ok(Err(Code::new("client_secret_missing"))),
            Some(sealed) => Some(Stored { owner: &tenant, place: client_secret_place(&integration.id), sealed }),
        };
        let place = refresh_place(&row.id, row.generation);
        let refresh_token = Stored { owner: &owner(row), place, sealed: refresh_token };
        // With what seals the answer, before the refresh token is spent: that can then be done whatever becomes of the database.
        let Opened { own, beside } = self.keys.open_for_successor(&mut tx, refresh_token, client_secret).await?;
        let client_secret = match beside {
            None => Secret::new(""),
            Some(Ok(client_secret)) => client_secret,
            Some(Err(KeyError::Store(error))) => return Err(KeyError::Store(error)),
            Some(Err(error)) => {
                tracing::error!(integration = %integration.id, error = %error, "a stored client secret cannot be opened");
                return Ok(Err(Code::new("client_secret_unreadable")));
            }
        };
        let (refresh_token, sealer) = own?;
        Ok(Ok(ForRefresh { client_secret, refresh_token, sealer }))
    }

    pub(super) async fn revoke_at_provider(
        &self,
        provider: &str,
        integration: Option<&IntegrationRow>,
        tokens: &RevokeTokens<'_>,
    ) -> Result<(), providers::Failure> {
        let provider = self.providers.get(provider).ok_or(providers::Failure::NotSent)?;
        let integration = integration.ok_or(providers::Failure::NotSent)?;
        let secret = self.secret_of(integration).await?;
        let variables = provider.descriptor().stored_variables([integration.variables.as_str()]);
        provider.revoke(Client { id: &integration.client_id, secret: &secret, variables: &variables }, tokens).await
    }
}

impl Credentials {
    async fn secret_of(&self, integration: &IntegrationRow) -> Result<Secret, providers::Failure> {
        let Some(sealed) = &integration.client_secret else { return Ok(Secret::new("")) };
        let tenant = Owner::Tenant(TenantId::stored(integration.tenant_id.clone()));
        let mut tx = self.store.read().await.map_err(|_| providers::Failure::NotSent)?;
        let opened = self.keys.open_secret(&mut tx, &tenant, client_secret_place(&integration.id), sealed).await;
        opened.map_err(|_| providers::Failure::NotSent)
    }

    /// Exchanges a token that never ends for ones that rotate.
    pub(super) async fn exchange_at_provider(
        &self,
        kind: CredentialKind,
        integration: &IntegrationRow,
        token: &Secret,
    ) -> Result<TokenSet, providers::Failure> {
        let provider = self.providers.get(&integration.provider).ok_or(providers::Failure::NotSent)?;
        let secret = self.secret_of(integration).await?;
        let variables = provider.descriptor().stored_variables([integration.variables.as_str()]);
        let client = Client { id: &integration.client_id, secret: &secret, variables: &variables };
        provider.exchange_lasting(client, kind, token).await
    }
}

fn outcome(failure: providers::Failure, now: Millis) -> Outcome<Tokens> {
    use providers::Failure as F;
    let code = |code: providers::Code| Code::new(code.as_str());
    match failure {
        F::NotSent => Outcome::NotSent,
        F::Ambiguous { .. } => Outcome::Ambiguous,
        F::ServerError { code: why } => Outcome::ServerError(code(why)),
        F::Reauth { code: why } => Outcome::Reauth(code(why)),
        F::Configuration { code: why } => Outcome::Configuration(code(why)),
        F::RateLimited { after } => Outcome::RateLimited(after.map(|span| now.after(span))),
        F::Transient { code: why } => Outcome::Transient(code(why)),
        F::Admin { code: why } => Outcome::Admin(code(why)),
        F::Unrecognised { code: why } => Outcome::Unrecognised(code(why)),
    }
}

/// What a grant meets that was handed over directly. It is spent by nothing and belongs to no integration whose probe could tell when
/// it is good again, so that it is only asked more and more seldom: a clock that was wrong, or a key that was not there yet, must not
/// end it (fact sheet A.5).
fn mint_outcome(failure: providers::Failure, now: Millis) -> Outcome<Tokens> {
    match outcome(failure, now) {
        Outcome::Reauth(code) | Outcome::Configuration(code) => Outcome::Unrecognised(code),
        other => other,
    }
}

/// A refresh answer that names another account than the one connected (OA-10); without identity it never contradicts.
pub(super) fn contradicts(provider: Option<&dyn providers::Provider>, account: Option<&str>, set: &TokenSet) -> bool {
    let (Some(provider), Some(account), Some(subject)) = (provider, account, &set.subject) else { return false };
    !provider.same_account(set.kind, account, subject)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m8_a_grant_that_is_refused_is_neither_dead_nor_asked_every_second() {
        let word = || providers::Code::own("invalid_grant");
        for failure in [providers::Failure::Reauth { code: word() }, providers::Failure::Configuration { code: word() }]
        {
            let met = mint_outcome(failure, Millis(0));
            assert!(matches!(&met, Outcome::Unrecognised(code) if code.as_str() == "invalid_grant"), "{met:?}");
        }
        let met = mint_outcome(providers::Failure::Transient { code: word() }, Millis(0));
        assert!(matches!(met, Outcome::Transient(_)), "{met:?}");
    }
}
