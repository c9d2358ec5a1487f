//! Telegram: not a delegated user API. What is kept is a bot token; what is bound is the chat with one person, proven
//! by pressing Start on a link that only that person was given (fact sheet C.4, C.6).

use std::collections::BTreeMap;
use std::time::Duration;

use super::integrations::place as integration_place;
use super::view::{SealedAccount, SealedTarget, account_place, owner_of, target_place};
use super::{BY_SECRET, Connection, Connections, ConnectionsError};
use crate::audit::{Action, Event};
use crate::caller::{Caller, Permission, TenantScope};
use crate::credentials::NewCredential;
use crate::ids::{ConnectionId, TenantId, UserId};
use crate::invalid::Invalid;
use crate::keys::{Owner, hash_of, mint_handle};
use crate::providers::telegram::{Bot, Start, start_link, token_is_plausible};
use crate::providers::{CredentialKind, Failure};
use crate::secret::Secret;
use crate::store::connections::{
    ConnectionRow, TelegramStartRow, connection_by_account, connection_by_id, connection_insert, connection_update,
    telegram_start_by_payload, telegram_start_delete, telegram_start_move_offset, telegram_start_put,
    telegram_starts_claim, telegram_starts_delete_expired,
};
use crate::store::integrations::integration_by_provider;
use crate::store::users::user_ensure;
use crate::store::{StoreError, Tx};

/// How long a person may take to press Start.
pub const START_LIFE: Duration = Duration::from_secs(30 * 60);
/// Between two looks at a bot's updates.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Waits looked at in one round.
const BATCH: i64 = 20;

/// Whose bot writes to the person.
#[derive(Debug)]
pub enum BotSource {
    /// The person's own, by its token.
    Own(Secret),
    /// The platform's, from its integration.
    Platform,
}

/// A Telegram connection to be made.
#[derive(Debug)]
pub struct TelegramDraft {
    /// The tenant's own id of the user; none when the caller is the user.
    pub user: Option<String>,
    /// Whose bot.
    pub bot: BotSource,
}

impl Connections {
    /// Checks a bot token and waits for its user to press Start. The link is in the answer, this once.
    ///
    /// # Errors
    /// [`ConnectionsError::Invalid`] for a token that is none, [`ConnectionsError::Provider`] when Telegram refuses it.
    pub async fn telegram_begin(&self, caller: &Caller, draft: TelegramDraft) -> Result<Connection, ConnectionsError> {
        let scope = caller.require(Permission::ConnectionsWrite)?;
        let (token, integration, owner_is_tenant) = match draft.bot {
            BotSource::Own(token) if token_is_plausible(&token) => (token, None, false),
            BotSource::Own(_) => {
                return Err(Invalid::one(
                    "bot_token",
                    "must be a bot token as BotFather gives it: digits, a colon, letters",
                )
                .into());
            }
            BotSource::Platform => {
                let (token, integration) = self.platform_bot(&scope).await?;
                (token, Some(integration), true)
            }
        };
        let telegram = self.providers.telegram();
        let bot = telegram.get_me(&token).await.map_err(|failure| refused(failure, owner_is_tenant))?;
        if telegram.webhook_is_set(&token).await.map_err(ConnectionsError::Provider)? {
            let message = "this bot has a webhook, so its Start cannot be seen here; use a bot without one";
            return Err(Invalid::one("bot_token", message).into());
        }
        let mut tx = self.store.begin().await?;
        let user = self.user_of(&mut tx, caller, &scope, draft.user.as_deref()).await?;
        let mut row = self.telegram_row(&mut tx, &scope, &user, &bot, integration.as_deref()).await?;
        let user_owner = owner_of(&row);
        let account = SealedAccount { email: None, name: Some(format!("@{}", bot.username)) };
        row.account = Some(self.keys.seal_json(&mut tx, &user_owner, account_place(&row.id), &account).await?);
        if connection_by_id(&mut tx, &scope, &row.id).await?.is_some() {
            self.credentials.lock(&mut tx, &scope, &row.id).await?;
            connection_update(&mut tx, &scope, &row).await?;
        } else {
            connection_insert(&mut tx, &scope, &row).await?;
        }
        let owner = if owner_is_tenant { Owner::Tenant(scope.tenant_id().clone()) } else { user_owner };
        self.keep_bot(&mut tx, &scope, &row, &owner, token).await?;
        let link = self.wait_for_start(&mut tx, &scope, &row.id, &bot.username).await?;
        let event = Event::done(Action::HandshakeBegun, "connection", &row.id).of_user(row.user_id.as_deref());
        self.audit.record(&mut tx, caller, &event).await?;
        let mut view = self.connection_in(&mut tx, &scope, &row.id).await?;
        tx.commit().await?;
        view.start_link = Some(link);
        Ok(view)
    }

    /// Looks at the bots that wait for a Start; gives how many people have pressed it.
    ///
    /// # Errors
    /// As every statement.
    pub async fn telegram_look(&self) -> Result<usize, StoreError> {
        let now = self.around.now();
        let mut tx = self.store.begin().await?;
        telegram_starts_delete_expired(&mut tx, BY_SECRET, now.0).await?;
        let waits = telegram_starts_claim(&mut tx, BY_SECRET, now.0, now.after(LOOK_EVERY).0, BATCH).await?;
        tx.commit().await?;
        let mut bound = 0;
        for wait in waits {
            match self.look_for(&wait).await {
                Ok(starts) => bound += starts,
                Err(error) => {
                    tracing::warn!(connection = wait.connection_id, error = %error, "a bot's updates could not be read")
                }
            }
        }
        Ok(bound)
    }

    async fn look_for(&self, wait: &TelegramStartRow) -> Result<usize, ConnectionsError> {
        let caller = Caller::system("telegram_start", TenantId::stored(wait.tenant_id.clone()));
        let token = self.credentials.bot_token(&caller, &wait.connection_id).await?;
        let updates = self
            .providers
            .telegram()
            .get_updates(&token, wait.update_offset)
            .await
            .map_err(ConnectionsError::Provider)?;
        let mut bound = 0;
        for update in &updates {
            // Another connection may wait for the same bot: whoever reads the update binds it.
            if let Some(start) = &update.start {
                bound += usize::from(self.bind(start).await?);
            }
        }
        if let Some(last) = updates.iter().map(|update| update.id).max() {
            let mut tx = self.store.begin().await?;
            telegram_start_move_offset(&mut tx, BY_SECRET, &wait.tenant_id, &wait.connection_id, last + 1).await?;
            tx.commit().await?;
        }
        Ok(bound)
    }

    async fn bind(&self, start: &Start) -> Result<bool, ConnectionsError> {
        let now = self.around.now();
        let mut tx = self.store.begin().await?;
        let Some(wait) = telegram_start_by_payload(&mut tx, BY_SECRET, &hash_of(&start.payload), now.0).await? else {
            return Ok(false);
        };
        let caller = Caller::system("telegram_start", TenantId::stored(wait.tenant_id.clone()));
        let scope = caller.require(Permission::ConnectionsWrite)?;
        let Some(mut row) = connection_by_id(&mut tx, &scope, &wait.connection_id).await? else { return Ok(false) };
        if !telegram_start_delete(&mut tx, BY_SECRET, &wait.tenant_id, &wait.connection_id).await? {
            return Ok(false);
        }
        let target = SealedTarget { chat_id: Some(start.chat_id), variables: BTreeMap::new() };
        row.target = Some(self.keys.seal_json(&mut tx, &owner_of(&row), target_place(&row.id), &target).await?);
        if row.account_id.starts_with(PENDING) {
            row.account_id = start.chat_id.to_string();
        }
        row.status = "active".to_owned();
        row.reason = None;
        row.updated_at = now.0;
        connection_update(&mut tx, &scope, &row).await?;
        let event = Event::done(Action::ConnectionCreated, "connection", &row.id).of_user(row.user_id.as_deref());
        self.audit.record_and_commit(tx, &caller, &event).await?;
        Ok(true)
    }

    /// What the platform's bot is called, with `@`. Without an answer from Telegram it is not offered.
    pub(super) async fn platform_bot_name(&self, scope: &TenantScope) -> Result<Option<String>, ConnectionsError> {
        let (token, _) = self.platform_bot(scope).await?;
        match self.providers.telegram().get_me(&token).await {
            Ok(bot) => Ok(Some(format!("@{}", bot.username))),
            Err(failure) => {
                tracing::warn!(code = %failure.code(), "the platform's bot does not answer, so it is not offered");
                Ok(None)
            }
        }
    }

    async fn platform_bot(&self, scope: &TenantScope) -> Result<(Secret, String), ConnectionsError> {
        let mut tx = self.store.read().await?;
        let integration = integration_by_provider(&mut tx, scope, "telegram")
            .await?
            .ok_or(ConnectionsError::NotFound("integration"))?;
        let sealed = integration.bot_token.as_ref().ok_or(ConnectionsError::NotFound("bot of the platform"))?;
        let owner = Owner::Tenant(scope.tenant_id().clone());
        let token =
            self.keys.open_secret(&mut tx, &owner, integration_place(&integration.id, "bot_token"), sealed).await?;
        Ok((token, integration.id))
    }

    pub(super) async fn user_of(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        scope: &TenantScope,
        external_id: Option<&str>,
    ) -> Result<Option<UserId>, ConnectionsError> {
        if let Some(user) = caller.user() {
            return Ok(Some(user.clone()));
        }
        let Some(external_id) = external_id else { return Ok(None) };
        crate::invalid::checked_external_id("user", external_id)?;
        let row = user_ensure(tx, scope, UserId::new(&self.around).as_str(), external_id, self.around.now().0).await?;
        Ok(Some(UserId::stored(row.id)))
    }

    async fn telegram_row(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        user: &Option<UserId>,
        bot: &Bot,
        integration: Option<&str>,
    ) -> Result<ConnectionRow, ConnectionsError> {
        let now = self.around.now().0;
        let user_id = user.as_ref().map(ToString::to_string);
        // The person's own bot is the account; at the platform's bot it is the person, who is known after Start.
        if integration.is_none()
            && let Some(row) =
                connection_by_account(tx, scope, user_id.as_deref(), "telegram", &bot.id.to_string()).await?
        {
            return Ok(ConnectionRow { status: "awaiting_start".to_owned(), updated_at: now, ..row });
        }
        let id = ConnectionId::new(&self.around).to_string();
        Ok(ConnectionRow {
            tenant_id: scope.tenant().to_owned(),
            account_id: if integration.is_none() { bot.id.to_string() } else { format!("{PENDING}{id}") },
            is_default: i64::from(self.is_first(tx, scope, user_id.as_deref(), "telegram").await?),
            user_id,
            provider: "telegram".to_owned(),
            integration_id: integration.map(str::to_owned),
            account: None,
            target: None,
            label: String::new(),
            status: "awaiting_start".to_owned(),
            reason: None,
            missing_scopes: "[]".to_owned(),
            created_at: now,
            updated_at: now,
            last_used_at: None,
            id,
        })
    }

    async fn keep_bot(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        row: &ConnectionRow,
        owner: &Owner,
        token: Secret,
    ) -> Result<(), ConnectionsError> {
        let new = NewCredential {
            connection: &row.id,
            owner,
            integration: row.integration_id.as_deref(),
            provider: "telegram",
            kind: CredentialKind::Bot,
            access_token: token,
            refresh_token: None,
            token_type: "bot".to_owned(),
            scopes: Vec::new(),
            obtained_at: self.around.now(),
            expires_at: None,
            refresh_expires_at: None,
        };
        Ok(self.credentials.keep(tx, scope, new).await?)
    }

    async fn wait_for_start(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        connection: &str,
        username: &str,
    ) -> Result<String, ConnectionsError> {
        let payload = mint_handle(&self.around);
        let now = self.around.now();
        let wait = TelegramStartRow {
            tenant_id: scope.tenant().to_owned(),
            connection_id: connection.to_owned(),
            payload_hash: hash_of(payload.expose()),
            update_offset: 0,
            poll_at: now.0,
            expires_at: now.after(START_LIFE).0,
        };
        telegram_start_put(tx, scope, &wait).await?;
        let link = start_link(username, payload.expose()).ok_or(ConnectionsError::Provider(Failure::NotSent))?;
        Ok(link.into())
    }
}

/// What the account of a connection to the platform's bot is called before Start.
const PENDING: &str = "pending:";

fn refused(failure: Failure, is_platforms: bool) -> ConnectionsError {
    match failure {
        Failure::Reauth { .. } | Failure::Configuration { .. } if !is_platforms => {
            Invalid::one("bot_token", "Telegram does not know this bot; copy the token from BotFather again").into()
        }
        other => ConnectionsError::Provider(other),
    }
}
