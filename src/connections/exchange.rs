//! From a code to a connection: exchange, compare, seal, one commit.

use std::time::Duration;

use tracing::Instrument;

use super::asked::Asked;
use super::telegram::{Chat, PENDING};
use super::view::{SealedAccount, SealedTarget, account_place, owner_of, target_place};
use super::{Connection, Connections, ConnectionsError};
use crate::audit::{Action, AuditError, Event};
use crate::caller::{Caller, TenantScope};
use crate::clock::Millis;
use crate::credentials::NewCredential;
use crate::ids::ConnectionId;
use crate::keys::{KeyError, Owner};
use crate::providers::{
    Account, Client, Code, CodeGrant, CredentialKind, Exchange, Failure, Provider, RevokeTokens, TokenSet,
};
use crate::secret::Secret;
use crate::store::connections::{
    ConnectionRow, connection_by_account, connection_by_id, connection_insert, connection_update,
};
use crate::store::credentials::credentials_of_connection;
use crate::store::handshakes::HandshakeRow;
use crate::store::integrations::{IntegrationRow, integration_by_id, integration_note_testing};
use crate::store::users::user_by_id;
use crate::store::{StoreError, Tx};

/// How often it is tried to keep what a code has brought, and the pause between.
const TRIES: (u32, Duration) = (5, Duration::from_secs(1));

/// What a code has brought, and from whom.
struct Granted<'a> {
    integration: &'a IntegrationRow,
    provider: &'a dyn Provider,
    exchange: &'a Exchange,
    chat: Option<Chat>,
    received_at: Millis,
}

/// What the database had to say, if that was it.
fn trouble(error: &ConnectionsError) -> Option<&StoreError> {
    match error {
        ConnectionsError::Store(error)
        | ConnectionsError::Keys(KeyError::Store(error))
        | ConnectionsError::Audit(AuditError::Store(error)) => Some(error),
        _ => None,
    }
}

/// Whether it is certain that nothing was kept, so that nobody has what was granted.
fn is_kept_nowhere(error: &ConnectionsError) -> bool {
    let is_over = matches!(error, ConnectionsError::Gone | ConnectionsError::Keys(KeyError::Destroyed));
    is_over || trouble(error).is_some_and(StoreError::is_outage)
}

/// Does something that began with what works only once, whoever waits for it and goes away.
pub(super) async fn to_its_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work.in_current_span()).await {
        Ok(done) => done,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only with the whole runtime, which polls nobody any more.
            Err(_) => std::future::pending().await,
        },
    }
}

impl Connections {
    /// Exchanges a code and keeps what it brought. The only place where codes are shown to a provider. To be called in
    /// [`to_its_end`].
    ///
    /// # Errors
    /// [`ConnectionsError::Gone`] when the client or the user went away meanwhile, [`ConnectionsError::Provider`].
    pub(super) async fn exchange(
        &self,
        caller: &Caller,
        scope: &TenantScope,
        handshake: &HandshakeRow,
        code: &Secret,
    ) -> Result<Connection, ConnectionsError> {
        let provider = self.providers.get(&handshake.provider).ok_or(ConnectionsError::NotFound("provider"))?;
        let mut tx = self.store.read().await?;
        let integration = integration_by_id(&mut tx, scope, &handshake.integration_id)
            .await?
            .filter(|row| row.revision == handshake.integration_revision)
            .ok_or(ConnectionsError::Gone)?;
        let secret = self.client_secret(&mut tx, &integration).await?;
        let (verifier, nonce) = self.open_verifier(&mut tx, handshake).await?;
        let refresh_token_held = self.holds_refresh_token(&mut tx, scope, handshake.connection_id.as_deref()).await?;
        drop(tx);
        let grant = CodeGrant {
            redirect_uri: &handshake.redirect_uri,
            code,
            verifier: verifier.as_ref(),
            nonce: nonce.as_ref().map(Secret::expose),
            refresh_token_held,
        };
        let variables = provider.descriptor().stored_variables([integration.variables.as_str()]);
        let client = Client { id: &integration.client_id, secret: &secret, variables: &variables };
        // Before the code is spent: without the bot, signing in is for nothing.
        let bot = if provider.descriptor().brings_tokens() {
            None
        } else {
            Some(self.bot_to_sign_in_with(scope, &integration).await?)
        };
        let exchange = provider.exchange(client, grant).await.map_err(ConnectionsError::Provider)?;
        let received_at = self.around.now();
        if let Some(wanted) = self.other_account(scope, handshake, &exchange.account).await? {
            self.give_back(provider.as_ref(), client, &integration, &exchange).await;
            let event =
                Event::done(Action::ConnectionQuarantined, "connection", &wanted).of_user(Some(&handshake.user_id));
            self.audit.note(caller, &event.denied("other_account")).await?;
            return Err(ConnectionsError::Provider(Failure::Reauth { code: Code::own("other_account") }));
        }
        let chat = match (exchange.chat, bot) {
            (Some(id), Some(bot)) => Some(self.chat_with(bot, id).await),
            _ => None,
        };
        let granted =
            Granted { integration: &integration, provider: provider.as_ref(), exchange: &exchange, chat, received_at };
        let kept = self.keep_in_time(caller, scope, handshake, &granted).await;
        if kept.as_ref().is_err_and(is_kept_nowhere) {
            self.give_back(provider.as_ref(), client, &integration, &exchange).await;
        }
        match kept {
            // Of somebody who is erased there is no key any more.
            Err(ConnectionsError::Keys(KeyError::Destroyed)) => Err(ConnectionsError::Gone),
            kept => kept,
        }
    }

    /// Tries again for a while, since the code is spent: the database may be away, busy with somebody else, or have somebody's row who
    /// was quicker, which is then made again. So is one's own after a commit of which nothing was heard.
    async fn keep_in_time(
        &self,
        caller: &Caller,
        scope: &TenantScope,
        handshake: &HandshakeRow,
        granted: &Granted<'_>,
    ) -> Result<Connection, ConnectionsError> {
        for _ in 1..TRIES.0 {
            match self.keep(caller, scope, handshake, granted).await {
                Ok(connection) => return Ok(connection),
                Err(error) => match trouble(&error) {
                    None | Some(StoreError::Defect(_)) => return Err(error),
                    Some(trouble) => tracing::warn!(error = %trouble, "what a code has brought is not kept yet"),
                },
            }
            self.around.clock.sleep(TRIES.1).await;
        }
        self.keep(caller, scope, handshake, granted).await
    }

    /// Whether a connection that is made again can go on with the refresh token that it has.
    pub(super) async fn holds_refresh_token(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        reconnects: Option<&str>,
    ) -> Result<bool, StoreError> {
        let Some(id) = reconnects else { return Ok(false) };
        let rows = credentials_of_connection(tx, scope, id).await?;
        // As it is kept: what was given to another client, or is refused, does not go on.
        Ok(rows.iter().any(|row| row.refresh_token.is_some() && row.status == "active"))
    }

    /// A reconnect must bring the same account; another one is never swapped in (OA-10).
    async fn other_account(
        &self,
        scope: &TenantScope,
        handshake: &HandshakeRow,
        account: &Account,
    ) -> Result<Option<String>, ConnectionsError> {
        let Some(id) = &handshake.connection_id else { return Ok(None) };
        let mut tx = self.store.read().await?;
        let row = connection_by_id(&mut tx, scope, id).await?;
        let is_other = |row: &ConnectionRow| row.account_id != account.id && !row.account_id.starts_with(PENDING);
        Ok(row.filter(is_other).map(|row| row.id))
    }

    /// Ends at the provider what was granted and is not kept. Where the account is connected by itself, or others use the bot that
    /// came along, this is their consent, too, and stays (fact sheet A.6, B.4).
    async fn give_back(
        &self,
        provider: &dyn Provider,
        client: Client<'_>,
        integration: &IntegrationRow,
        exchange: &Exchange,
    ) {
        for set in &exchange.tokens {
            match self.is_lived_on(provider, integration, exchange, set).await {
                Ok(false) => {}
                Ok(true) => continue,
                Err(error) => {
                    tracing::warn!(error = %error, "unwanted tokens are left to end by themselves");
                    continue;
                }
            }
            let tokens =
                RevokeTokens { access: Some(&set.access_token), refresh: set.refresh_token.as_ref(), kind: set.kind };
            if let Err(failure) = provider.revoke(client, &tokens).await {
                tracing::warn!(code = %failure.code(), "tokens of an unwanted account could not be revoked");
            }
        }
    }

    async fn is_lived_on(
        &self,
        provider: &dyn Provider,
        integration: &IntegrationRow,
        exchange: &Exchange,
        set: &TokenSet,
    ) -> Result<bool, StoreError> {
        let account = &exchange.account.id;
        let shared = provider.shared_as(set.kind, account).map(|shared_as| (set.kind, shared_as));
        let mut tx = self.store.read().await?;
        self.credentials.is_lived_on(&mut tx, integration, account, shared).await
    }

    /// Nothing of the client ends or changes until `tx` does. It must still be the one that was granted all this: what one client was
    /// granted, or one place, is not shown to another (OA-04).
    async fn hold_client(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        granted: &Granted<'_>,
    ) -> Result<(), ConnectionsError> {
        let Granted { integration, provider, exchange, chat, .. } = granted;
        let is_shared = |set: &TokenSet| provider.shared_as(set.kind, &exchange.account.id).is_some();
        if chat.is_some() || exchange.tokens.iter().any(is_shared) {
            self.credentials.lock_clients(tx, scope, [integration.id.as_str()]).await?;
        } else {
            self.credentials.share_clients(tx, scope, [integration.id.as_str()]).await?;
        }
        let now = integration_by_id(tx, scope, &integration.id).await?;
        match now {
            Some(row) if row.revision == integration.revision => Ok(()),
            _ => Err(ConnectionsError::Gone),
        }
    }

    async fn keep(
        &self,
        caller: &Caller,
        scope: &TenantScope,
        handshake: &HandshakeRow,
        granted: &Granted<'_>,
    ) -> Result<Connection, ConnectionsError> {
        let Granted { integration, provider, exchange, chat, received_at } = granted;
        let received_at = *received_at;
        let asked = Asked::of_column(&handshake.scopes);
        // Whoever says nothing of scopes has granted what was asked for (RFC 6749, section 5.1).
        let granted_to = |set: &TokenSet| {
            set.scopes.clone().unwrap_or_else(|| asked.of_kind(set.kind.as_str(), provider.descriptor()))
        };
        let scopes: Vec<String> = exchange.tokens.iter().flat_map(granted_to).collect();
        let mut tx = self.store.begin().await?;
        self.hold_client(&mut tx, scope, granted).await?;
        // The user may have been erased while the browser was away.
        user_by_id(&mut tx, scope, &handshake.user_id).await?.ok_or(ConnectionsError::Gone)?;
        let (mut row, is_new) = self.row_for(&mut tx, scope, handshake, integration, &exchange.account).await?;
        let owner: Owner = owner_of(&row);
        let account = SealedAccount { email: exchange.account.email.clone(), name: exchange.account.name.clone() };
        row.account = Some(self.keys.seal_json(&mut tx, &owner, account_place(&row.id), &account).await?);
        row.target = None;
        if !exchange.variables.is_empty() || chat.is_some() {
            let target = SealedTarget {
                chat_id: chat.as_ref().map(|chat| chat.id),
                bot: chat.as_ref().map(|chat| chat.with.bot.username.clone()),
                variables: exchange.variables.clone(),
            };
            row.target = Some(self.keys.seal_json(&mut tx, &owner, target_place(&row.id), &target).await?);
        }
        // What was wanted of this account before, and is not granted any more, is missing.
        let before = Asked::of_column(&row.asked_scopes).more;
        row.asked_scopes = asked.clone().and(before, &provider.descriptor().scopes.fixed).to_column();
        row.status =
            if chat.as_ref().is_some_and(|chat| !chat.may_write) { "awaiting_start" } else { "active" }.to_owned();
        row.reason = None;
        row.updated_at = received_at.0;
        if is_new {
            connection_insert(&mut tx, scope, &row).await?;
        } else {
            // What somebody has handed over before gives way to the consent.
            self.credentials.drop_others(&mut tx, scope, &row.id, CredentialKind::is_granted).await?;
            connection_update(&mut tx, scope, &row).await?;
        }
        let refreshable = exchange.tokens.iter().find(|set| set.refresh_token.is_some());
        let testing = refreshable.and_then(|set| provider.descriptor().is_testing(set.refresh_expires_in, &scopes));
        let tenant = Owner::Tenant(scope.tenant_id().clone());
        let absolute_expiry = provider.descriptor().absolute_expiry;
        for set in &exchange.tokens {
            let shared_as = provider.shared_as(set.kind, &row.account_id);
            let new = NewCredential {
                owner: if shared_as.is_some() { &tenant } else { &owner },
                shared_as,
                integration: Some(&integration.id),
                provider: &handshake.provider,
                kind: set.kind,
                access_token: set.access_token.duplicate(),
                refresh_token: set.refresh_token.as_ref().map(Secret::duplicate),
                token_type: set.token_type.clone(),
                scopes: granted_to(set),
                obtained_at: received_at,
                expires_at: set.expires_in.map(|life| received_at.after(life)),
                refresh_expires_at: set.refresh_expires_in.or(absolute_expiry).map(|life| received_at.after(life)),
            };
            self.credentials.keep(&mut tx, scope, &row.id, new).await?;
        }
        let action = if is_new { Action::ConnectionCreated } else { Action::ConnectionReconnected };
        self.audit
            .record(&mut tx, caller, &Event::done(action, "connection", &row.id).of_user(row.user_id.as_deref()))
            .await?;
        let link = match chat {
            Some(chat) => self.keep_chat(&mut tx, scope, &row, chat).await?,
            None => None,
        };
        let mut view = self.connection_in(&mut tx, scope, &row.id).await?;
        tx.commit().await?;
        if let Some(is_testing) = testing.filter(|is_testing| *is_testing != integration.testing_since.is_some()) {
            self.note_testing(scope, &integration.id, is_testing.then_some(received_at)).await;
        }
        view.start_link = link;
        Ok(view)
    }

    /// Advice for the platform; the connection is made without it, too.
    async fn note_testing(&self, scope: &TenantScope, integration: &str, since: Option<Millis>) {
        let noted = async {
            let mut tx = self.store.begin().await?;
            integration_note_testing(&mut tx, scope, integration, since.map(|at| at.0)).await?;
            tx.commit().await
        };
        if let Err(error) = noted.await {
            tracing::warn!(integration, error = %error, "what a grant says of its client was not noted");
        }
    }

    /// The connection that an account belongs to: the one it has already, or a new one.
    async fn row_for(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        handshake: &HandshakeRow,
        integration: &IntegrationRow,
        account: &Account,
    ) -> Result<(ConnectionRow, bool), ConnectionsError> {
        let user = Some(handshake.user_id.as_str());
        if let Some(row) = connection_by_account(tx, scope, user, &handshake.provider, &account.id).await? {
            return Ok((ConnectionRow { integration_id: Some(integration.id.clone()), ..row }, false));
        }
        let now = self.around.now().0;
        let row = ConnectionRow {
            tenant_id: scope.tenant().to_owned(),
            id: ConnectionId::new(&self.around).to_string(),
            user_id: Some(handshake.user_id.clone()),
            provider: handshake.provider.clone(),
            integration_id: Some(integration.id.clone()),
            account_id: account.id.clone(),
            account: None,
            target: None,
            label: String::new(),
            is_default: i64::from(self.is_first(tx, scope, user, &handshake.provider).await?),
            status: "active".to_owned(),
            reason: None,
            asked_scopes: "{}".to_owned(),
            created_at: now,
            updated_at: now,
            last_used_at: None,
        };
        Ok((row, true))
    }
}
