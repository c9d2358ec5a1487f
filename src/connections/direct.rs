//! Secrets that are handed over directly (brief M8): of a user, or of the tenant itself. Each is checked on entry where the provider
//! can be asked cheaply, so that a mistyped one is found by whoever types it and not in a call.

use std::collections::BTreeMap;

use http::HeaderName;
use serde::Deserialize;
use utoipa::ToSchema;

use super::integrations::{SCOPE_FORM, is_scope};
use super::view::{SealedAccount, SealedTarget, account_place, owner_of, target_place};
use super::{Connection, Connections, ConnectionsError};
use crate::audit::{Action, Event};
use crate::caller::{Caller, Permission, TenantScope};
use crate::credentials::NewCredential;
use crate::ids::{ConnectionId, UserId};
use crate::invalid::Invalid;
use crate::providers::{
    Account, CredentialKind, Descriptor, Failure, Grant, Provider, VariableSource, Variables, basic_secret,
    headers_secret,
};
use crate::schema::words;
use crate::secret::Secret;
use crate::store::Tx;
use crate::store::connections::{ConnectionRow, connection_by_account, connection_insert, connection_update};
use crate::store::integrations::integration_by_provider;

words! {
    /// What is handed over: a client that asks for itself, a key that signs assertions, a user name and password, a token, or headers.
    DirectKind: "client_credentials" | "jwt_bearer" | "basic" | "bearer" | "header";
}

/// Headers that the vault sets itself or that change how a request is read.
const NOT_FOR_SECRETS: [&str; 8] =
    ["host", "content-length", "content-type", "transfer-encoding", "connection", "cookie", "te", "upgrade"];
const MOST_HEADERS: usize = 10;

/// A secret that is handed over directly.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DirectDraft {
    /// The tenant's own id of the user; absent means that it belongs to the tenant.
    pub user: Option<String>,
    /// A provider's id.
    pub provider: String,
    /// What is handed over. Telegram needs none.
    #[schema(value_type = Option<DirectKind>)]
    pub kind: Option<String>,
    /// How the platform calls the account; absent takes what the provider says, or else the name within the secret.
    pub account: Option<String>,
    /// For people; at most 100 characters.
    pub label: Option<String>,
    /// What the provider's addresses need, by the names in `GET /v1/providers`; absent takes what the integration says.
    pub variables: Option<BTreeMap<String, String>>,
    /// Telegram: the token of the user's own bot. Absent: the platform's bot.
    #[schema(value_type = Option<String>, write_only)]
    pub bot_token: Option<Secret>,
    /// `client_credentials`.
    pub client_id: Option<String>,
    /// `client_credentials`.
    #[schema(value_type = Option<String>, write_only)]
    pub client_secret: Option<Secret>,
    /// `client_credentials` and `jwt_bearer`: what is asked for.
    pub scopes: Option<Vec<String>>,
    /// `jwt_bearer`: an RSA key in PEM, as in a service account's key file.
    #[schema(value_type = Option<String>, write_only)]
    pub private_key: Option<Secret>,
    /// `jwt_bearer`: the key's id.
    pub key_id: Option<String>,
    /// `jwt_bearer`: who signs, such as a service account's address.
    pub issuer: Option<String>,
    /// `jwt_bearer`: for whom, where a directory has delegated that.
    pub subject: Option<String>,
    /// `basic`.
    pub username: Option<String>,
    /// `basic`.
    #[schema(value_type = Option<String>, write_only)]
    pub password: Option<Secret>,
    /// `bearer`.
    #[schema(value_type = Option<String>, write_only)]
    pub token: Option<Secret>,
    /// `header`: names and values, at most ten.
    #[schema(value_type = Option<BTreeMap<String, String>>, write_only)]
    pub headers: Option<BTreeMap<String, Secret>>,
}

/// A draft whose fields fit its kind.
enum Checked {
    /// Tokens are minted from it.
    Minted(Grant),
    /// It travels as it is.
    Fixed(Secret),
}

impl Connections {
    /// Makes a connection from a secret, in place of the one that this user has to the same account.
    ///
    /// # Errors
    /// [`ConnectionsError::Invalid`] for fields that do not fit and for a secret that the provider refuses,
    /// [`ConnectionsError::Provider`] when the provider could not be asked.
    pub async fn direct_create(&self, caller: &Caller, draft: DirectDraft) -> Result<Connection, ConnectionsError> {
        let scope = caller.require(Permission::ConnectionsWrite)?;
        let provider =
            self.providers.get(&draft.provider).ok_or_else(|| Invalid::one("provider", "is not in the catalogue"))?;
        let kind = kind_of(&draft, provider.as_ref())?;
        let variables = self.variables_of(&scope, &draft, provider.as_ref()).await?;
        let (name, checked) = checked(&draft, kind, &variables)?;
        let account = self.asked(provider.as_ref(), kind, &checked, &variables).await?;
        let received_at = self.around.now();
        let mut tx = self.store.begin().await?;
        let user = self.user_of(&mut tx, caller, &scope, draft.user.as_deref()).await?;
        let account_id = named(&draft, account.known.as_ref(), provider.descriptor(), &variables, name)?;
        let (mut row, is_new) = self.direct_row(&mut tx, &scope, user.as_ref(), &draft, account_id).await?;
        let owner = owner_of(&row);
        let shown =
            account.known.map_or_else(SealedAccount::default, |one| SealedAccount { email: one.email, name: one.name });
        row.account = Some(self.keys.seal_json(&mut tx, &owner, account_place(&row.id), &shown).await?);
        let target = SealedTarget { variables: owned(&variables), ..SealedTarget::default() };
        row.target = Some(self.keys.seal_json(&mut tx, &owner, target_place(&row.id), &target).await?);
        row.updated_at = received_at.0;
        if is_new {
            connection_insert(&mut tx, &scope, &row).await?;
        } else {
            self.credentials.drop_others(&mut tx, &scope, &row.id, |other| other == kind).await?;
            connection_update(&mut tx, &scope, &row).await?;
        }
        let new = NewCredential {
            owner: &owner,
            shared_as: None,
            integration: None,
            provider: &draft.provider,
            kind,
            access_token: account.access_token,
            refresh_token: account.grant,
            token_type: "Bearer".to_owned(),
            scopes: account.scopes.or(draft.scopes).unwrap_or_default(),
            obtained_at: received_at,
            expires_at: account.life.map(|life| received_at.after(life)),
            refresh_expires_at: None,
        };
        self.credentials.keep(&mut tx, &scope, &row.id, new).await?;
        let action = if is_new { Action::ConnectionCreated } else { Action::ConnectionReconnected };
        let event = Event::done(action, "connection", &row.id).of_user(row.user_id.as_deref());
        self.audit.record(&mut tx, caller, &event).await?;
        let view = self.connection_in(&mut tx, &scope, &row.id).await?;
        tx.commit().await?;
        Ok(view)
    }

    async fn variables_of(
        &self,
        scope: &TenantScope,
        draft: &DirectDraft,
        provider: &dyn Provider,
    ) -> Result<Variables, ConnectionsError> {
        let descriptor = provider.descriptor();
        let variables = match &draft.variables {
            Some(said) => Variables::new(&descriptor.variables, said.clone()).map_err(|name| {
                let example = descriptor.variables.get(&name).map_or("nothing", |one| one.example.as_str());
                Invalid::one(format!("variables.{name}"), format!("must look like {example}"))
            })?,
            None => {
                let row = integration_by_provider(&mut self.store.read().await?, scope, &draft.provider).await?;
                descriptor.stored_variables(row.iter().map(|row| row.variables.as_str()))
            }
        };
        // An address that cannot be made would be found out in the middle of a call.
        if let Some(base) =
            descriptor.endpoints.api.keys().find(|base| descriptor.endpoints.api_base(base, &variables).is_none())
        {
            let missing = descriptor.variables.keys().next().cloned().unwrap_or_else(|| base.clone());
            return Err(Invalid::one(format!("variables.{missing}"), "must be given").into());
        }
        Ok(variables)
    }

    /// Shows the secret to the provider, once, where that is cheap.
    async fn asked(
        &self,
        provider: &dyn Provider,
        kind: CredentialKind,
        checked: &Checked,
        variables: &Variables,
    ) -> Result<Asked, ConnectionsError> {
        match checked {
            Checked::Minted(grant) => {
                let grant = grant.to_secret();
                let set = provider.mint(kind, &grant).await.map_err(|failure| refused(failure, kind))?;
                Ok(Asked {
                    access_token: set.access_token,
                    grant: Some(grant),
                    scopes: set.scopes,
                    life: set.expires_in,
                    known: None,
                })
            }
            Checked::Fixed(secret) => {
                let known = provider.whose(kind, secret, variables).await.map_err(|failure| refused(failure, kind))?;
                Ok(Asked { access_token: secret.duplicate(), grant: None, scopes: None, life: None, known })
            }
        }
    }

    async fn direct_row(
        &self,
        tx: &mut Tx,
        scope: &TenantScope,
        user: Option<&UserId>,
        draft: &DirectDraft,
        account_id: Option<String>,
    ) -> Result<(ConnectionRow, bool), ConnectionsError> {
        let user_id = user.map(ToString::to_string);
        let id = ConnectionId::new(&self.around).to_string();
        let account_id = account_id.unwrap_or_else(|| id.clone());
        if let Some(row) = connection_by_account(tx, scope, user_id.as_deref(), &draft.provider, &account_id).await? {
            if row.integration_id.is_some() {
                return Err(ConnectionsError::Conflict("a connection of this account by consent or import"));
            }
            return Ok((ConnectionRow { status: "active".to_owned(), reason: None, ..row }, false));
        }
        let now = self.around.now().0;
        let row = ConnectionRow {
            tenant_id: scope.tenant().to_owned(),
            is_default: i64::from(self.is_first(tx, scope, user_id.as_deref(), &draft.provider).await?),
            id,
            user_id,
            provider: draft.provider.clone(),
            integration_id: None,
            account_id,
            account: None,
            target: None,
            label: draft.label.clone().unwrap_or_default().trim().to_owned(),
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

/// What the provider said about a secret, and what is kept of it.
struct Asked {
    access_token: Secret,
    grant: Option<Secret>,
    scopes: Option<Vec<String>>,
    life: Option<std::time::Duration>,
    known: Option<Account>,
}

/// What the account is called: as the provider says (OA-09), else as the platform says, else by a name within the secret. Names are
/// unique at one place only.
fn named(
    draft: &DirectDraft,
    known: Option<&Account>,
    descriptor: &Descriptor,
    variables: &Variables,
    within: Option<String>,
) -> Result<Option<String>, Invalid> {
    if let Some(known) = known {
        return match &draft.account {
            Some(said) if *said != known.id => {
                Err(Invalid::one("account", format!("must be {}, as the provider says, or absent", known.id)))
            }
            _ => Ok(Some(known.id.clone())),
        };
    }
    let is_place =
        |name: &str| descriptor.variables.get(name).is_some_and(|one| one.from == VariableSource::Integration);
    let within = within.map(|name| {
        let place = variables.iter().filter(|(name, _)| is_place(name)).map(|(_, value)| value);
        place.chain([name.as_str()]).collect::<Vec<_>>().join("/")
    });
    Ok(draft.account.clone().or(within))
}

fn owned(variables: &Variables) -> BTreeMap<String, String> {
    variables.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A refused secret is the fault of whoever sent it; everything else is the provider's.
fn refused(failure: Failure, kind: CredentialKind) -> ConnectionsError {
    let field = match kind {
        CredentialKind::ClientCredentials => "client_secret",
        CredentialKind::JwtBearer => "private_key",
        CredentialKind::Basic => "password",
        CredentialKind::Header => "headers",
        _ => "token",
    };
    match failure {
        Failure::Reauth { code } | Failure::Configuration { code } | Failure::Admin { code } => {
            Invalid::one(field, format!("is refused by the provider ({code})")).into()
        }
        other => ConnectionsError::Provider(other),
    }
}

fn kind_of(draft: &DirectDraft, provider: &dyn Provider) -> Result<CredentialKind, Invalid> {
    let kinds = &provider.descriptor().capabilities.direct_kinds;
    if kinds.is_empty() {
        return Err(Invalid::one("provider", "takes no secret directly; its users connect, or tokens are imported"));
    }
    let wanted =
        draft.kind.as_deref().filter(|kind| kinds.iter().any(|one| one == kind)).and_then(CredentialKind::parse);
    wanted.ok_or_else(|| Invalid::one("kind", format!("must be {} for this provider", kinds.join(" or "))))
}

/// The secret, and a name that is in it.
fn checked(
    draft: &DirectDraft,
    kind: CredentialKind,
    variables: &Variables,
) -> Result<(Option<String>, Checked), Invalid> {
    let mut form = Form { draft, invalid: Invalid::default(), used: vec!["scopes"] };
    let scopes = draft.scopes.clone().unwrap_or_default();
    let variables = owned(variables);
    let found = match kind {
        CredentialKind::ClientCredentials => {
            let (client_id, client_secret) = (form.text("client_id"), form.secret("client_secret"));
            let grant = Grant::ClientCredentials { client_id: client_id.clone(), client_secret, scopes, variables };
            (Some(client_id), Checked::Minted(grant))
        }
        CredentialKind::JwtBearer => {
            let (issuer, private_key) = (form.text("issuer"), form.secret("private_key"));
            if !private_key.is_empty() && !Grant::signs(&private_key) {
                form.invalid.add("private_key", "must be an RSA key in PEM, with its line breaks");
            }
            let (subject, key_id) = (form.optional("subject"), form.optional("key_id"));
            let name = subject.as_ref().map_or_else(|| issuer.clone(), |subject| format!("{issuer}/{subject}"));
            (Some(name), Checked::Minted(Grant::JwtBearer { issuer, subject, key_id, private_key, scopes, variables }))
        }
        CredentialKind::Basic => {
            let (username, password) = (form.text("username"), form.secret("password"));
            if username.contains(':') {
                form.invalid.add("username", "must not contain a colon (RFC 7617)");
            }
            (Some(username.clone()), Checked::Fixed(basic_secret(&username, &password)))
        }
        CredentialKind::Header => (None, Checked::Fixed(form.headers())),
        _ => (None, Checked::Fixed(form.secret("token"))),
    };
    form.finish()?;
    Ok(found)
}

/// Reads a draft's fields and notes what is wrong with them.
struct Form<'a> {
    draft: &'a DirectDraft,
    invalid: Invalid,
    used: Vec<&'static str>,
}

impl Form<'_> {
    fn field(&self, name: &str) -> Option<&String> {
        let draft = self.draft;
        match name {
            "client_id" => draft.client_id.as_ref(),
            "issuer" => draft.issuer.as_ref(),
            "subject" => draft.subject.as_ref(),
            "key_id" => draft.key_id.as_ref(),
            "username" => draft.username.as_ref(),
            _ => None,
        }
    }

    fn secret_field(&self, name: &str) -> Option<&Secret> {
        let draft = self.draft;
        match name {
            "client_secret" => draft.client_secret.as_ref(),
            "private_key" => draft.private_key.as_ref(),
            "password" => draft.password.as_ref(),
            "token" => draft.token.as_ref(),
            "bot_token" => draft.bot_token.as_ref(),
            _ => None,
        }
    }

    fn optional(&mut self, name: &'static str) -> Option<String> {
        self.used.push(name);
        let text = self.field(name)?.clone();
        if text.is_empty() || text.len() > 400 || text.chars().any(char::is_control) {
            self.invalid.add(name, "must have 1 to 400 characters, none of them a control character");
        }
        Some(text)
    }

    fn text(&mut self, name: &'static str) -> String {
        self.optional(name).unwrap_or_else(|| {
            self.invalid.add(name, "must be given");
            String::new()
        })
    }

    fn secret(&mut self, name: &'static str) -> Secret {
        self.used.push(name);
        let multiline = name == "private_key";
        let fits = |secret: &Secret| {
            let text = secret.expose();
            (1..=16_384).contains(&text.len())
                && text.bytes().all(|b| (b' '..=b'~').contains(&b) || (multiline && matches!(b, b'\n' | b'\r')))
        };
        match self.secret_field(name) {
            Some(secret) if fits(secret) => secret.duplicate(),
            Some(_) => {
                self.invalid.add(name, "must have 1 to 16384 characters of printable ASCII");
                Secret::new("")
            }
            None => {
                self.invalid.add(name, "must be given");
                Secret::new("")
            }
        }
    }

    fn headers(&mut self) -> Secret {
        self.used.push("headers");
        let headers = self.draft.headers.as_ref();
        if headers.is_none_or(|headers| headers.is_empty() || headers.len() > MOST_HEADERS) {
            self.invalid.add("headers", format!("must have 1 to {MOST_HEADERS} entries"));
        }
        for (name, value) in headers.into_iter().flatten() {
            let known = HeaderName::try_from(name.as_str());
            let shown: String = name.chars().filter(|c| !c.is_control()).take(60).collect();
            if known.is_err() || known.is_ok_and(|name| NOT_FOR_SECRETS.contains(&name.as_str())) {
                self.invalid.add(format!("headers.{shown}"), "is no header that a secret may stand in");
            }
            let text = value.expose();
            if !(1..=8192).contains(&text.len()) || !text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
                self.invalid.add(format!("headers.{shown}"), "must have 1 to 8192 characters of printable ASCII");
            }
        }
        headers_secret(headers.unwrap_or(&BTreeMap::new()))
    }

    /// What was said beside the kind's own fields would be lost in silence.
    fn finish(mut self) -> Result<(), Invalid> {
        let named =
            ["client_id", "issuer", "subject", "key_id", "username"].map(|name| (name, self.field(name).is_some()));
        let secrets = ["client_secret", "private_key", "password", "token", "bot_token"];
        let secrets = secrets.map(|name| (name, self.secret_field(name).is_some()));
        let headers = [("headers", self.draft.headers.is_some())];
        for (name, _) in
            named.into_iter().chain(secrets).chain(headers).filter(|(name, there)| *there && !self.used.contains(name))
        {
            self.invalid.add(name, "does not belong to this kind");
        }
        if self
            .draft
            .scopes
            .as_ref()
            .is_some_and(|scopes| scopes.len() > 100 || !scopes.iter().all(|one| is_scope(one)))
        {
            self.invalid.add("scopes", format!("must have at most 100 entries; each {SCOPE_FORM}"));
        }
        let name_fits = |name: &String| (1..=400).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
        if self.draft.account.as_ref().is_some_and(|name| !name_fits(name)) {
            self.invalid.add("account", "must have 1 to 400 characters of visible ASCII");
        }
        if self
            .draft
            .label
            .as_ref()
            .is_some_and(|label| label.chars().count() > 100 || label.chars().any(char::is_control))
        {
            self.invalid.add("label", "must have at most 100 characters, none of them a control character");
        }
        self.invalid.into_result()
    }
}
