//! Start: how a bot learns in which chat a person is, and how it is made sure that it is that person's (fact sheet C.6).
//!
//! The link is for one person, but links are forwarded. Whoever has signed in is known, and no other Start counts. Where our own page
//! gave the link, it shows who has pressed Start and asks whether that was the person who sits there. A platform that gave the link
//! answers for it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::telegram::PENDING;
use super::view::{SealedAccount, SealedTarget, account_place, owner_of, target_place};
use super::{BY_SECRET, Connection, Connections, ConnectionsError};
use crate::audit::{Action, Event};
use crate::caller::{Caller, Permission, TenantScope};
use crate::ids::{ConnectionId, TenantId};
use crate::keys::{Owner, Place, hash_of, mint_handle};
use crate::providers::Failure;
use crate::providers::telegram::{Start, start_link};
use crate::store::connections::{
    ConnectionRow, connection_by_account, connection_by_id, connection_delete, connection_update,
};
use crate::store::integrations::integration_by_id;
use crate::store::telegram_starts::{
    TelegramStartRow, telegram_start_by_payload, telegram_start_delete, telegram_start_move_offset, telegram_start_of,
    telegram_start_pressed, telegram_start_put, telegram_starts_claim, telegram_starts_delete_expired,
};
use crate::store::{StoreError, Tx};

/// How long a person may take to press Start, and to say that it was them.
pub const START_LIFE: Duration = Duration::from_secs(30 * 60);
/// Between two looks at a bot's updates.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Waits looked at in one round.
const BATCH: i64 = 20;

/// How a Start is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waits<'a> {
    /// The bot's user name, without `@`.
    pub bot: &'a str,
    /// Whether the person at the browser is asked who it was.
    pub to_confirm: bool,
    /// Whether the bot's updates come by themselves.
    pub is_told: bool,
}

/// At which bot Start was pressed.
#[derive(Clone, Copy, Debug)]
pub(super) enum At<'a> {
    /// An integration's, by the integration's id.
    Integration(&'a str),
    /// One with this user name.
    Bot(&'a str),
}

impl At<'_> {
    fn is_of(self, row: &ConnectionRow, target: &SealedTarget) -> bool {
        match self {
            Self::Integration(id) => row.integration_id.as_deref() == Some(id),
            Self::Bot(name) => target.bot.as_deref() == Some(name),
        }
    }
}

/// Who has pressed Start on a link, as a page asks about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presser {
    /// Somebody.
    One {
        /// A user name, which only one person has; or a first name, which is said to be that, with the person's number.
        name: String,
        /// What to answer with, so that the answer is about this press and no other.
        press: String,
    },
    /// Several people: the link went around, and is worth nothing.
    Several,
}

/// Who has pressed Start. Nobody in particular once several people have.
#[derive(Debug, Deserialize, Serialize)]
struct Pressed {
    chat_id: Option<i64>,
    username: Option<String>,
    name: Option<String>,
}

impl Pressed {
    const SEVERAL: Self = Self { chat_id: None, username: None, name: None };

    fn by(start: &Start) -> Self {
        Self { chat_id: Some(start.chat_id), username: start.username.clone(), name: start.name.clone() }
    }

    /// What the account is called.
    fn shown(&self) -> Option<String> {
        self.username.as_ref().map(|name| format!("@{name}")).or_else(|| self.name.clone())
    }

    fn presser(&self, wait: &TelegramStartRow) -> Presser {
        let Some(chat) = self.chat_id else { return Presser::Several };
        let name = match (&self.username, &self.name) {
            (Some(username), _) => format!("@{username}"),
            // Anybody can have this first name, "@somebody" included.
            (None, Some(name)) => {
                format!("Somebody without a user name, whose first name is {name} and whose number is {chat},")
            }
            (None, None) => format!("Somebody without a name, whose number is {chat},"),
        };
        Presser::One { name, press: hash_of(&format!("{} {chat}", wait.payload_hash)) }
    }
}

fn pressed_place(id: &str) -> Place<'_> {
    Place { record_kind: "connection", record_id: id, field: "start", generation: 0 }
}

impl Connections {
    /// Looks at the bots that wait for a Start; gives how many people have pressed it.
    ///
    /// # Errors
    /// As every statement.
    pub async fn telegram_look(&self) -> Result<usize, StoreError> {
        let now = self.around.now();
        let mut tx = self.store.begin_in_turn(BY_SECRET).await?;
        telegram_starts_delete_expired(&mut tx, BY_SECRET, now.0).await?;
        let waits = telegram_starts_claim(&mut tx, BY_SECRET, now.0, now.after(LOOK_EVERY).0, BATCH).await?;
        tx.commit().await?;
        let mut pressed = 0;
        for wait in waits {
            match self.look_for(&wait).await {
                Ok(starts) => pressed += starts,
                Err(error) => {
                    tracing::warn!(connection = wait.connection_id, error = %error, "a bot's updates could not be read")
                }
            }
        }
        Ok(pressed)
    }

    async fn look_for(&self, wait: &TelegramStartRow) -> Result<usize, ConnectionsError> {
        let caller = Caller::system("telegram_start", TenantId::stored(wait.tenant_id.clone()));
        let scope = caller.require(Permission::ConnectionsRead)?;
        let mut tx = self.store.read().await?;
        let row = connection_by_id(&mut tx, &scope, &wait.connection_id).await?;
        let row = row.ok_or(ConnectionsError::NotFound("connection"))?;
        let bot = self.opened_target(&mut tx, &row).await?.bot.unwrap_or_default();
        drop(tx);
        let token = self.credentials.bot_token(&caller, &wait.connection_id).await?;
        let updates = self
            .providers
            .telegram()
            .get_updates(&token, wait.update_offset)
            .await
            .map_err(ConnectionsError::Provider)?;
        let mut pressed = 0;
        for update in &updates {
            // Another connection may wait for the same bot: whoever reads the update takes it.
            if let Some(start) = &update.start {
                pressed += usize::from(self.start_pressed(start, At::Bot(&bot)).await?);
            }
        }
        if let Some(last) = updates.iter().map(|update| update.id).max() {
            let mut tx = self.store.begin().await?;
            telegram_start_move_offset(&mut tx, BY_SECRET, &wait.tenant_id, &wait.connection_id, last + 1).await?;
            tx.commit().await?;
        }
        Ok(pressed)
    }

    /// Somebody has pressed Start on a link. False when that changes nothing.
    pub(super) async fn start_pressed(&self, start: &Start, at: At<'_>) -> Result<bool, ConnectionsError> {
        let now = self.around.now();
        let mut tx = self.store.begin().await?;
        let Some(wait) = telegram_start_by_payload(&mut tx, BY_SECRET, &hash_of(&start.payload), now.0).await? else {
            return Ok(false);
        };
        let caller = Caller::system("telegram_start", TenantId::stored(wait.tenant_id.clone()));
        let scope = caller.require(Permission::ConnectionsWrite)?;
        let Some(row) = connection_by_id(&mut tx, &scope, &wait.connection_id).await? else { return Ok(false) };
        // Who has signed in is known: a stranger with the link changes nothing, and does not use it up.
        let target = self.opened_target(&mut tx, &row).await?;
        if !at.is_of(&row, &target) || target.chat_id.is_some_and(|chat| chat != start.chat_id) {
            return Ok(false);
        }
        let mut pressed = Pressed::by(start);
        if wait.to_confirm == 1 {
            if let Some(before) = self.opened_press(&mut tx, &row, &wait).await? {
                if before.chat_id.is_none_or(|chat| chat == start.chat_id) {
                    return Ok(false);
                }
                pressed = Pressed::SEVERAL;
            }
            let owner = owner_of(&row);
            let sealed = self.keys.seal_json(&mut tx, &owner, pressed_place(&row.id), &pressed).await?;
            // Where another has pressed it at the same moment, neither is asked about: that one's update comes again.
            if !telegram_start_pressed(&mut tx, &scope, &wait, &sealed).await? {
                return Err(ConnectionsError::Conflict("another Start on the same link"));
            }
            tx.commit().await?;
            return Ok(true);
        }
        if !telegram_start_delete(&mut tx, &scope, &wait).await? {
            return Ok(false);
        }
        self.bind(&mut tx, (&caller, &scope), row, pressed).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Who has pressed Start on the link of a connection, and has not been answered for.
    pub(super) async fn presser(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        row: &ConnectionRow,
    ) -> Result<Option<Presser>, ConnectionsError> {
        Ok(self.pressed(tx, scope, row).await?.map(|(wait, pressed)| pressed.presser(&wait)))
    }

    async fn pressed(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        row: &ConnectionRow,
    ) -> Result<Option<(TelegramStartRow, Pressed)>, ConnectionsError> {
        let Some(wait) = telegram_start_of(tx, scope, &row.id, self.around.now().0).await? else { return Ok(None) };
        Ok(self.opened_press(tx, row, &wait).await?.map(|pressed| (wait, pressed)))
    }

    async fn opened_press(
        &self,
        tx: &mut Tx,
        row: &ConnectionRow,
        wait: &TelegramStartRow,
    ) -> Result<Option<Pressed>, ConnectionsError> {
        let Some(sealed) = &wait.pressed else { return Ok(None) };
        Ok(Some(self.keys.open_json(tx, &owner_of(row), pressed_place(&row.id), sealed).await?))
    }

    /// What the person at the browser says about who has pressed Start: it was them, with the `press` that they were asked about; or
    /// none, and it was somebody else. Then there is a new link. An answer about another press, or about none, changes nothing.
    ///
    /// # Errors
    /// [`ConnectionsError::NotFound`], [`ConnectionsError::Denied`].
    pub async fn start_answered(
        &self,
        caller: &Caller,
        id: &ConnectionId,
        press: Option<&str>,
    ) -> Result<Connection, ConnectionsError> {
        let scope = caller.require(Permission::ConnectionsWrite)?;
        let mut tx = self.store.begin().await?;
        let row = connection_by_id(&mut tx, &scope, id.as_str()).await?;
        let row = row.ok_or(ConnectionsError::NotFound("connection"))?;
        let Some((wait, pressed)) = self.pressed(&mut tx, &scope, &row).await? else {
            return self.connection_in(&mut tx, &scope, id.as_str()).await;
        };
        if let Some(press) = press {
            let is_about_it = matches!(pressed.presser(&wait), Presser::One { press: asked, .. } if asked == press);
            if !is_about_it || !telegram_start_delete(&mut tx, &scope, &wait).await? {
                return self.connection_in(&mut tx, &scope, id.as_str()).await;
            }
            let bound = self.bind(&mut tx, (caller, &scope), row, pressed).await?;
            let view = self.connection_in(&mut tx, &scope, &bound).await?;
            tx.commit().await?;
            return Ok(view);
        }
        let bot = self.opened_target(&mut tx, &row).await?.bot.ok_or(ConnectionsError::Gone)?;
        let waits = Waits { bot: &bot, to_confirm: true, is_told: wait.poll_at == wait.expires_at };
        let link = self.wait_for_start(&mut tx, &scope, &row.id, waits).await?;
        let event = Event::done(Action::FlowUserMismatch, "connection", &row.id).of_user(row.user_id.as_deref());
        self.audit.record(&mut tx, caller, &event.denied("start_by_another")).await?;
        let mut view = self.connection_in(&mut tx, &scope, &row.id).await?;
        tx.commit().await?;
        view.start_link = Some(link);
        Ok(view)
    }

    /// Makes the chat the connection's. At the platform's bot the chat is the account: where its user has it connected already, that
    /// connection is made again instead. Gives the connection's id.
    async fn bind(
        &self,
        tx: &mut Tx,
        (caller, scope): (&Caller, &TenantScope),
        mut row: ConnectionRow,
        pressed: Pressed,
    ) -> Result<String, ConnectionsError> {
        let SealedTarget { bot, chat_id: signed_in, .. } = self.opened_target(tx, &row).await?;
        let chat = pressed.chat_id.ok_or(ConnectionsError::Gone)?;
        let mut action = if signed_in.is_some() { Action::ConnectionReconnected } else { Action::ConnectionCreated };
        if row.account_id.starts_with(PENDING) {
            let account = chat.to_string();
            if let Some(old) = connection_by_account(tx, scope, row.user_id.as_deref(), "telegram", &account).await? {
                row = self.go_on_with(tx, (caller, scope), row, old).await?;
                action = Action::ConnectionReconnected;
            }
            let shown = SealedAccount { email: None, name: pressed.shown() };
            row.account = Some(self.keys.seal_json(tx, &owner_of(&row), account_place(&row.id), &shown).await?);
            row.account_id = account;
        }
        let target = SealedTarget { chat_id: Some(chat), bot, ..SealedTarget::default() };
        row.target = Some(self.keys.seal_json(tx, &owner_of(&row), target_place(&row.id), &target).await?);
        row.status = "active".to_owned();
        row.reason = None;
        row.updated_at = self.around.now().0;
        connection_update(tx, scope, &row).await?;
        let event = Event::done(action, "connection", &row.id).of_user(row.user_id.as_deref());
        self.audit.record(tx, caller, &event).await?;
        Ok(row.id)
    }

    /// Puts the connection that there was in place of the one that was begun.
    async fn go_on_with(
        &self,
        tx: &mut Tx,
        (caller, scope): (&Caller, &TenantScope),
        begun: ConnectionRow,
        old: ConnectionRow,
    ) -> Result<ConnectionRow, ConnectionsError> {
        let integration = match &begun.integration_id {
            Some(id) => integration_by_id(tx, scope, id).await?,
            None => None,
        };
        let integration = integration.ok_or(ConnectionsError::Gone)?;
        self.credentials.lock_clients(tx, scope, [integration.id.as_str()]).await?;
        let token = self.bot_token_of(tx, &integration).await?.ok_or(ConnectionsError::Gone)?;
        self.credentials.drop_others(tx, scope, &begun.id, |_| false).await?;
        connection_delete(tx, scope, &begun.id, self.around.now().0).await?;
        let event = Event::done(Action::ConnectionDeleted, "connection", &begun.id).of_user(begun.user_id.as_deref());
        self.audit.record(tx, caller, &event.because(Some("chat_connected_already"))).await?;
        let row = ConnectionRow { integration_id: begun.integration_id, ..old };
        self.credentials.lock(tx, scope, &row.id).await?;
        self.keep_bot(tx, scope, &row, &Owner::Tenant(scope.tenant_id().clone()), token).await?;
        Ok(row)
    }

    /// Waits for Start at the bot with this name, and gives the link that says for whom.
    pub(super) async fn wait_for_start(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        connection: &str,
        waits: Waits<'_>,
    ) -> Result<String, ConnectionsError> {
        let payload = mint_handle(&self.around);
        let now = self.around.now();
        let end = now.after(START_LIFE).0;
        let wait = TelegramStartRow {
            tenant_id: scope.tenant().to_owned(),
            connection_id: connection.to_owned(),
            payload_hash: hash_of(payload.expose()),
            update_offset: 0,
            // Nobody has to look at a bot whose updates come by themselves.
            poll_at: if waits.is_told { end } else { now.0 },
            expires_at: end,
            to_confirm: i64::from(waits.to_confirm),
            pressed: None,
        };
        telegram_start_put(tx, scope, &wait).await?;
        let link = start_link(waits.bot, payload.expose()).ok_or(ConnectionsError::Provider(Failure::NotSent))?;
        Ok(link.into())
    }
}
