//! What providers tell us on their own: an access has ended, an account is disabled. Whoever connected learns of it at once and not
//! at the next refresh, and nothing is lent that its provider has declared dead.
//!
//! Each notice has its effect once, in one transaction with the note that it was heard; only then it is acknowledged, so that a
//! provider repeats what was not carried out. A consent newer than what is told of stays: disconnecting and connecting again
//! meets the first one's echo.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::integrations::place;
use super::starts::At;
use super::{BY_SECRET, Connections, ConnectionsError};
use crate::audit::{Action, Event};
use crate::caller::{Caller, Permission, TenantScope};
use crate::clock::Millis;
use crate::credentials::{Hearing, Told};
use crate::ids::TenantId;
use crate::keys::Owner;
use crate::providers::notices::{
    BLOCKED, CHANGE_REQUIRED, DISABLED, Disbelief, Effect, Notice, REVOKED, SlackCall, SlackSaid, What, Whose, slack,
};
use crate::providers::telegram::update_told;
use crate::secret::Secret;
use crate::store::Tx;
use crate::store::connections::{ConnectionRow, connection_by_id, connections_of_account};
use crate::store::credentials::credentials_of_connection;
use crate::store::integrations::IntegrationRow;
use crate::store::notices::{
    connection_change_status, connections_below, credential_change_reason, integration_of_notices, notice_put,
};

/// What Slack is answered.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct SlackAnswer {
    /// Slack's own challenge, when it looked whether somebody is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub challenge: Option<String>,
}

/// Providers' times are whole seconds.
const A_SECOND: Duration = Duration::from_secs(1);

impl Connections {
    /// Where a provider that tells things on its own does so.
    pub(super) fn notices_url(&self, provider: &str, integration: &str) -> Option<String> {
        ["google", "slack", "telegram"]
            .contains(&provider)
            .then(|| self.page(&format!("hooks/{provider}/{integration}")))
    }

    /// Hears one of Slack's calls.
    ///
    /// # Errors
    /// [`ConnectionsError::Disbelieved`] for what is not signed by Slack for this integration, which may not exist.
    pub async fn slack_notice(&self, integration: &str, call: SlackCall<'_>) -> Result<SlackAnswer, ConnectionsError> {
        let row = self.integration_told("slack", integration).await?;
        let secret = self.signing_secret(&row).await?;
        match slack(&secret, call, self.around.now()).map_err(ConnectionsError::Disbelieved)? {
            SlackSaid::Challenge(challenge) => Ok(SlackAnswer { challenge: Some(challenge) }),
            SlackSaid::Notice(notice) => {
                self.hear(&row, &notice).await?;
                Ok(SlackAnswer::default())
            }
        }
    }

    /// Hears an update of an integration's bot, with which Telegram shows `secret`.
    ///
    /// # Errors
    /// [`ConnectionsError::Disbelieved`] for what is not Telegram's, or not for this integration, which may not exist.
    pub async fn telegram_update(
        &self,
        integration: &str,
        secret: &Secret,
        body: &[u8],
    ) -> Result<(), ConnectionsError> {
        let row = self.integration_told("telegram", integration).await?;
        let right = self.signing_secret(&row).await?;
        let update = update_told(&right, secret, body).map_err(ConnectionsError::Disbelieved)?;
        if let Some(start) = &update.start {
            self.start_pressed(start, At::Integration(&row.id)).await?;
        }
        let Some(access) = update.access else { return Ok(()) };
        let what = if access.may_write { What::MayWrite } else { What::MayNotWrite };
        let effect = Effect { whose: Whose::Account(access.chat_id.to_string()), kind: None, what };
        let at = Millis(access.at.saturating_mul(1000));
        self.hear(&row, &Notice { id: format!("update:{}", update.id), at, effects: vec![effect] }).await
    }

    /// A bot was not let write in the chat of a connection: its person has blocked it, or is gone (fact sheet C.4).
    ///
    /// # Errors
    /// As every statement.
    pub async fn chat_refused(&self, caller: &Caller, connection: &str) -> Result<(), ConnectionsError> {
        let caller = Caller::system("notices", caller.tenant().clone());
        let scope = caller.require(Permission::ConnectionsWrite)?;
        let mut tx = self.store.begin().await?;
        if let Some(row) = connection_by_id(&mut tx, &scope, connection).await? {
            self.change_access(&mut tx, (&caller, &scope), &row, false).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Whether the bot may write to the person of a connection.
    async fn change_access(
        &self,
        tx: &mut Tx,
        (caller, scope): (&Caller, &TenantScope),
        row: &ConnectionRow,
        may_write: bool,
    ) -> Result<(), ConnectionsError> {
        let (active, blocked) = (("active", None), ("needs_reauth", Some(BLOCKED)));
        // Whoever signed in and then lets the bot write needs no Start; who has not is not known yet.
        let before = match (may_write, row.status.as_str()) {
            (true, "awaiting_start") => ("awaiting_start", None),
            // That it is as it was is news, too: what is older and comes later says nothing any more.
            (true, "active") => active,
            (true, _) => blocked,
            (false, _) => active,
        };
        let after = if may_write { active } else { blocked };
        if connection_change_status(tx, scope, &row.id, before, after, self.around.now().0).await? && before != after {
            let (action, why) = match may_write {
                true => (Action::NoticeHeard, "chat_open_again"),
                false => (Action::ConnectionNeedsReauth, BLOCKED),
            };
            let event = Event::done(action, "connection", &row.id).of_user(row.user_id.as_deref());
            self.audit.record(tx, caller, &event.because(Some(why))).await?;
        }
        Ok(())
    }

    /// What an integration's provider proves itself with.
    async fn signing_secret(&self, row: &IntegrationRow) -> Result<Secret, ConnectionsError> {
        let sealed = row.signing_secret.as_ref().ok_or(ConnectionsError::Disbelieved(Disbelief::Signature))?;
        let owner = Owner::Tenant(TenantId::stored(row.tenant_id.clone()));
        let mut tx = self.store.read().await?;
        Ok(self.keys.open_secret(&mut tx, &owner, place(&row.id, "signing_secret"), sealed).await?)
    }

    /// Hears one of Google's security event tokens.
    ///
    /// # Errors
    /// [`ConnectionsError::Disbelieved`] for what is not Google's, or not for this integration, which may not exist.
    pub async fn google_notice(&self, integration: &str, token: &Secret) -> Result<(), ConnectionsError> {
        let row = self.integration_told("google", integration).await?;
        let google = self.providers.get(&row.provider).ok_or(ConnectionsError::NotFound("provider"))?;
        let notice = google.security_event(&row.client_id, token).await.map_err(ConnectionsError::Disbelieved)?;
        self.hear(&row, &notice).await
    }

    /// To nobody without a proof is it told which integrations there are.
    async fn integration_told(&self, provider: &str, id: &str) -> Result<IntegrationRow, ConnectionsError> {
        let mut tx = self.store.read().await?;
        let found = integration_of_notices(&mut tx, BY_SECRET, id, provider).await?;
        found.ok_or(ConnectionsError::Disbelieved(Disbelief::Audience))
    }

    async fn hear(&self, integration: &IntegrationRow, notice: &Notice) -> Result<(), ConnectionsError> {
        if notice.effects.is_empty() {
            // Such as what Google sends when an operator asks whether its events arrive.
            tracing::info!(integration = integration.id, "a provider's notice has arrived that changes nothing here");
            return Ok(());
        }
        let caller = Caller::system("notices", TenantId::stored(integration.tenant_id.clone()));
        let scope = caller.require(Permission::ConnectionsWrite)?;
        let mut tx = self.store.begin().await?;
        if !notice_put(&mut tx, &scope, &integration.id, &notice.id, self.around.now().0).await? {
            return Ok(());
        }
        for effect in &notice.effects {
            let concerned = match &effect.whose {
                Whose::Account(account) => connections_of_account(&mut tx, &scope, integration, account).await?,
                Whose::Below(place) => connections_below(&mut tx, &scope, integration, &format!("{place}/")).await?,
            };
            for connection in concerned {
                self.carry_out(&mut tx, (&caller, &scope), &connection, effect, notice).await?;
            }
        }
        tx.commit().await?;
        Ok(())
    }

    async fn carry_out(
        &self,
        tx: &mut Tx,
        (caller, scope): (&Caller, &TenantScope),
        connection: &ConnectionRow,
        effect: &Effect,
        notice: &Notice,
    ) -> Result<(), ConnectionsError> {
        let (id, user, now) = (connection.id.as_str(), connection.user_id.as_deref(), self.around.now().0);
        let heard = Event::done(Action::NoticeHeard, "connection", id).of_user(user);
        match effect.what {
            What::Ended(reason) => {
                let (Whose::Account(whose) | Whose::Below(whose)) = &effect.whose;
                let told = Told { whose, kind: effect.kind, reason, happened: notice.at };
                for heard in self.credentials.lose(tx, scope, id, told).await? {
                    let (action, credential, why) = match &heard {
                        Hearing::Lost(credential) => (Action::ConnectionNeedsReauth, credential, reason),
                        Hearing::LookedInto(credential) => (Action::NoticeHeard, credential, "looked_into"),
                    };
                    let event = Event::done(action, "credential", credential).of_user(user);
                    self.audit.record(tx, caller, &event.because(Some(why))).await?;
                }
            }
            What::Enabled => {
                self.credentials.lock(tx, scope, id).await?;
                for credential in credentials_of_connection(tx, scope, id).await? {
                    credential_change_reason(tx, scope, &credential.id, (DISABLED, REVOKED)).await?;
                }
                let (from, to) = (("needs_reauth", Some(DISABLED)), ("needs_reauth", Some(REVOKED)));
                if connection_change_status(tx, scope, id, from, to, now).await? {
                    self.audit.record(tx, caller, &heard.because(Some("account_enabled"))).await?;
                }
            }
            // What is older than what is known of the chat says nothing any more.
            What::MayWrite | What::MayNotWrite if notice.at.after(A_SECOND).0 <= connection.updated_at => {}
            What::MayWrite => self.change_access(tx, (caller, scope), connection, true).await?,
            What::MayNotWrite => self.change_access(tx, (caller, scope), connection, false).await?,
            What::ChangeRequired => {
                let (from, to) = (("active", None), ("active", Some(CHANGE_REQUIRED)));
                if connection_change_status(tx, scope, id, from, to, now).await? {
                    self.audit.record(tx, caller, &heard.because(Some(CHANGE_REQUIRED))).await?;
                }
            }
        }
        Ok(())
    }
}
