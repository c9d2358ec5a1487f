//! Telegram: not a delegated user API. What is kept is a bot token; what is bound is the chat with one person, who is known by
//! signing in (fact sheet C.1) or by pressing Start on a link that only that person was given (C.4, C.6; see `starts`).

use super::integrations::place as integration_place;
use super::starts::Waits;
use super::view::{SealedAccount, SealedTarget, account_place, owner_of, target_place};
use super::{BY_SECRET, Connection, Connections, ConnectionsError};
use crate::audit::{Action, Event};
use crate::caller::{Caller, Permission, TenantScope};
use crate::credentials::NewCredential;
use crate::ids::{ConnectionId, TenantId, UserId};
use crate::invalid::Invalid;
use crate::keys::{Owner, mint_handle};
use crate::providers::telegram::{self, Bot, bot_id, token_is_plausible};
use crate::providers::{CredentialKind, Failure};
use crate::secret::Secret;
use crate::store::Tx;
use crate::store::connections::{
    ConnectionFilter, ConnectionRow, connection_by_account, connection_by_id, connection_insert, connection_list,
    connection_update,
};
use crate::store::integrations::{IntegrationRow, integration_by_id, integration_by_provider};
use crate::store::notices::{integration_give_secret, integration_of_notices, integration_take_secret};
use crate::store::telegram_starts::{telegram_start_delete, telegram_start_of};
use crate::store::users::user_ensure;

/// Whose bot writes to the person.
#[derive(Debug)]
pub enum BotSource {
    /// The person's own, by its token.
    Own(Secret),
    /// The platform's, from its integration.
    Platform,
}

/// Where a bot's updates go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Webhook {
    /// Nowhere: they can be asked for.
    Unset,
    /// To us.
    Ours,
    /// To somebody else: asking for them, or taking them over, would break their use (fact sheet C.4).
    Others,
}

/// The chat of somebody who has signed in with the platform's bot.
#[derive(Debug)]
pub(super) struct Chat {
    /// Also the person's id.
    pub id: i64,
    /// Whether the bot was seen to be able to write there. If not, the person has to press Start.
    pub may_write: bool,
    /// Whose chat it is with.
    pub with: TenantsBot,
}

/// The bot of an integration, as it is before somebody signs in with it.
#[derive(Debug)]
pub(super) struct TenantsBot {
    pub bot: Bot,
    token: Secret,
    is_told: bool,
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
        let updates = self.updates_of(&scope, integration.as_ref(), &token).await?;
        if updates == Webhook::Others {
            let message = "this bot has a webhook, so its Start cannot be seen here; use a bot without one";
            return Err(Invalid::one("bot_token", message).into());
        }
        let integration = integration.map(|row| row.id);
        let mut tx = self.store.begin().await?;
        if let Some(integration) = &integration {
            self.credentials.lock_clients(&mut tx, &scope, [integration.as_str()]).await?;
        }
        let user = self.user_of(&mut tx, caller, &scope, draft.user.as_deref()).await?;
        let mut row = self.telegram_row(&mut tx, &scope, &user, &bot, integration.as_deref()).await?;
        let user_owner = owner_of(&row);
        let account = SealedAccount { email: None, name: Some(format!("@{}", bot.username)) };
        row.account = Some(self.keys.seal_json(&mut tx, &user_owner, account_place(&row.id), &account).await?);
        let target = SealedTarget { bot: Some(bot.username.clone()), ..SealedTarget::default() };
        row.target = Some(self.keys.seal_json(&mut tx, &user_owner, target_place(&row.id), &target).await?);
        if connection_by_id(&mut tx, &scope, &row.id).await?.is_some() {
            self.credentials.lock(&mut tx, &scope, &row.id).await?;
            connection_update(&mut tx, &scope, &row).await?;
        } else {
            connection_insert(&mut tx, &scope, &row).await?;
        }
        let owner = if owner_is_tenant { Owner::Tenant(scope.tenant_id().clone()) } else { user_owner };
        self.keep_bot(&mut tx, &scope, &row, &owner, token).await?;
        // A platform says itself who has pressed Start; at our own pages the person does.
        let to_confirm = caller.user().is_some();
        let waits = Waits { bot: &bot.username, to_confirm, is_told: updates == Webhook::Ours };
        let link = self.wait_for_start(&mut tx, &scope, &row.id, waits).await?;
        let event = Event::done(Action::HandshakeBegun, "connection", &row.id).of_user(row.user_id.as_deref());
        self.audit.record(&mut tx, caller, &event).await?;
        let mut view = self.connection_in(&mut tx, &scope, &row.id).await?;
        tx.commit().await?;
        view.start_link = Some(link);
        Ok(view)
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

    async fn platform_bot(&self, scope: &TenantScope) -> Result<(Secret, IntegrationRow), ConnectionsError> {
        let mut tx = self.store.read().await?;
        let integration = integration_by_provider(&mut tx, scope, "telegram")
            .await?
            .ok_or(ConnectionsError::NotFound("integration"))?;
        let token = self.bot_token_of(&mut tx, &integration).await?;
        Ok((token.ok_or(ConnectionsError::NotFound("bot of the platform"))?, integration))
    }

    /// The token of an integration's bot.
    pub(super) async fn bot_token_of(
        &self,
        tx: &mut Tx,
        integration: &IntegrationRow,
    ) -> Result<Option<Secret>, ConnectionsError> {
        let Some(sealed) = &integration.bot_token else { return Ok(None) };
        let owner = Owner::Tenant(TenantId::stored(integration.tenant_id.clone()));
        Ok(Some(self.keys.open_secret(tx, &owner, integration_place(&integration.id, "bot_token"), sealed).await?))
    }

    /// The bot of an integration, with which somebody is about to sign in.
    pub(super) async fn bot_to_sign_in_with(
        &self,
        scope: &TenantScope,
        integration: &IntegrationRow,
    ) -> Result<TenantsBot, ConnectionsError> {
        let mut tx = self.store.read().await?;
        let token = self.bot_token_of(&mut tx, integration).await?;
        drop(tx);
        let token = token.ok_or(ConnectionsError::NotFound("bot of the platform"))?;
        let bot = self.providers.telegram().get_me(&token).await.map_err(ConnectionsError::Provider)?;
        let updates = self.updates_of(scope, Some(integration), &token).await?;
        Ok(TenantsBot { bot, token, is_told: updates != Webhook::Unset })
    }

    /// The chat of somebody who has signed in. No claim of the id_token says whether the person lets the bot write, so it is tried
    /// (fact sheet C.1); where it cannot be found out, the person presses Start.
    pub(super) async fn chat_with(&self, with: TenantsBot, id: i64) -> Chat {
        let may_write = self.providers.telegram().may_write(&with.token, id).await.unwrap_or_else(|failure| {
            tracing::warn!(code = %failure.code(), "whether a bot may write could not be found out");
            false
        });
        Chat { id, may_write, with }
    }

    /// Where a bot's updates go. Those of the platform's bot go to us where Telegram can reach us, so that we also learn of people who
    /// block it; otherwise they are asked for while somebody is expected to press Start. A person's own bot is left as it is.
    async fn updates_of(
        &self,
        scope: &TenantScope,
        integration: Option<&IntegrationRow>,
        token: &Secret,
    ) -> Result<Webhook, ConnectionsError> {
        let telegram = self.providers.telegram();
        let url = telegram.webhook(token).await.map_err(ConnectionsError::Provider)?;
        let Some(row) = integration else {
            return Ok(if url.is_empty() { Webhook::Unset } else { Webhook::Others });
        };
        let path = format!("hooks/telegram/{}", row.id);
        let ours = self.page(&path);
        // With this path it was ours at an earlier `public_url`; with that of an integration that is gone, nobody needs it.
        let is_free = url.is_empty() || url.ends_with(&format!("/{path}")) || self.was_heard_here(&url).await?;
        match is_free {
            true if url == ours && row.signing_secret.is_some() => return Ok(Webhook::Ours),
            true if self.public_url.scheme() == "https" => {}
            true if url.is_empty() => return Ok(Webhook::Unset),
            _ => return Ok(Webhook::Others),
        }
        let secret = self.hook_secret(scope, &row.id).await?;
        match telegram.set_webhook(token, &ours, &secret).await {
            Ok(()) => Ok(Webhook::Ours),
            Err(failure) => {
                tracing::warn!(code = %failure.code(), "Telegram does not send a bot's updates here, so they are asked for");
                let mut tx = self.store.begin().await?;
                integration_take_secret(&mut tx, scope, &row.id).await?;
                tx.commit().await?;
                Ok(if url.is_empty() { Webhook::Unset } else { Webhook::Others })
            }
        }
    }

    /// Whether a bot's updates went to an integration of this house that is gone.
    async fn was_heard_here(&self, url: &str) -> Result<bool, ConnectionsError> {
        let ours = self.page("hooks/telegram/");
        let Some(integration) = url.strip_prefix(ours.as_str()) else { return Ok(false) };
        let mut tx = self.store.read().await?;
        Ok(integration_of_notices(&mut tx, BY_SECRET, integration, telegram::ID).await?.is_none())
    }

    /// What Telegram shows with every update of an integration's bot. Whoever is first makes it; then it stays.
    async fn hook_secret(&self, scope: &TenantScope, integration: &str) -> Result<Secret, ConnectionsError> {
        let owner = Owner::Tenant(scope.tenant_id().clone());
        let place = integration_place(integration, "signing_secret");
        let mut tx = self.store.begin().await?;
        let sealed = self.keys.seal(&mut tx, &owner, place, &mint_handle(&self.around)).await?;
        integration_give_secret(&mut tx, scope, integration, &sealed).await?;
        let row = integration_by_id(&mut tx, scope, integration).await?;
        let sealed = row.and_then(|row| row.signing_secret).ok_or(ConnectionsError::Gone)?;
        let secret = self.keys.open_secret(&mut tx, &owner, place, &sealed).await?;
        tx.commit().await?;
        Ok(secret)
    }

    /// Keeps the bot with which a person has signed in. Gives the link with which the person lets it write, if it may not.
    pub(super) async fn keep_chat(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        row: &ConnectionRow,
        chat: &Chat,
    ) -> Result<Option<String>, ConnectionsError> {
        let TenantsBot { bot, token, is_told } = &chat.with;
        self.keep_bot(tx, scope, row, &Owner::Tenant(scope.tenant_id().clone()), token.duplicate()).await?;
        if chat.may_write {
            if let Some(wait) = telegram_start_of(tx, scope, &row.id, self.around.now().0).await? {
                telegram_start_delete(tx, scope, &wait).await?;
            }
            return Ok(None);
        }
        let waits = Waits { bot: &bot.username, to_confirm: false, is_told: *is_told };
        Ok(Some(self.wait_for_start(tx, scope, &row.id, waits).await?))
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
        if integration.is_some()
            && let Some(row) = self.unfinished(tx, scope, user_id.as_deref(), integration).await?
        {
            return Ok(ConnectionRow { updated_at: now, ..row });
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
            asked_scopes: "{}".to_owned(),
            created_at: now,
            updated_at: now,
            last_used_at: None,
            id,
        })
    }

    /// A connection to the platform's bot that this user has begun before: it goes on with a new link.
    async fn unfinished(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        user: Option<&str>,
        integration: Option<&str>,
    ) -> Result<Option<ConnectionRow>, ConnectionsError> {
        let Some(user) = user else { return Ok(None) };
        let filter = ConnectionFilter {
            user: Some(user),
            provider: Some("telegram"),
            status: Some("awaiting_start"),
            limit: 100,
            ..ConnectionFilter::default()
        };
        let mut all = connection_list(tx, scope, filter).await?.into_iter();
        Ok(all.find(|row| row.account_id.starts_with(PENDING) && row.integration_id.as_deref() == integration))
    }

    pub(super) async fn keep_bot(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        row: &ConnectionRow,
        owner: &Owner,
        token: Secret,
    ) -> Result<(), ConnectionsError> {
        let bot = bot_id(&token).unwrap_or_default().to_owned();
        let new = self.bot_credential(owner, row.integration_id.as_deref(), &bot, token);
        Ok(self.credentials.keep(tx, scope, &row.id, new).await?)
    }

    /// What is kept of a bot. An integration's is one for all its connections.
    pub(super) fn bot_credential<'a>(
        &self,
        owner: &'a Owner,
        integration: Option<&'a str>,
        bot: &'a str,
        token: Secret,
    ) -> NewCredential<'a> {
        NewCredential {
            owner,
            shared_as: integration.is_some().then_some(bot),
            integration,
            provider: telegram::ID,
            kind: CredentialKind::Bot,
            access_token: token,
            refresh_token: None,
            token_type: "bot".to_owned(),
            scopes: Vec::new(),
            obtained_at: self.around.now(),
            expires_at: None,
            refresh_expires_at: None,
        }
    }
}

/// What the account of a connection to the platform's bot is called before Start.
pub(super) const PENDING: &str = "pending:";

fn refused(failure: Failure, is_platforms: bool) -> ConnectionsError {
    match failure {
        Failure::Reauth { .. } | Failure::Configuration { .. } if !is_platforms => {
            Invalid::one("bot_token", "Telegram does not know this bot; copy the token from BotFather again").into()
        }
        other => ConnectionsError::Provider(other),
    }
}
