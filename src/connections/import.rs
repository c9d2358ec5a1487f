//! Import: connections that were made elsewhere move in, all or nothing.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde::Deserialize;
use utoipa::ToSchema;

use super::moving_in::MovedIn;
use super::view::CredentialKindName;
use super::{Connection, Connections, ConnectionsError};
use crate::caller::{Caller, Permission};
use crate::clock::{Millis, deadline};
use crate::invalid::Invalid;
use crate::providers::CredentialKind;
use crate::secret::Secret;
use crate::store::StoreError;
use crate::store::integrations::{IntegrationRow, integration_list};

/// At most this many connections in one import.
const MOST_ROWS: usize = 10_000;
/// Checks that wait for a provider at the same time,
const CHECKS_AT_ONCE: usize = 8;
/// and how long an import waits for all of them.
const CHECK_LIMIT: Duration = Duration::from_secs(60);

/// Connections to move in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// In the order of the answer.
    #[schema(min_items = 1, max_items = 10_000)]
    pub connections: Vec<ImportRow>,
    /// Refresh every refreshable credential once before answering, for a minute at most; what is not reached by then is refreshed when
    /// it is due.
    #[serde(default)]
    pub check: bool,
}

/// One connection.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportRow {
    /// The tenant's own id; made if it is not there.
    #[schema(min_length = 1, max_length = 200)]
    pub user: String,
    /// Catalogue id.
    pub provider: String,
    /// The external account.
    pub account: ImportAccount,
    /// One or more.
    #[schema(min_items = 1)]
    pub credentials: Vec<ImportCredential>,
    /// Chosen by people.
    #[serde(default)]
    #[schema(max_length = 100)]
    pub label: String,
}

/// An external account.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportAccount {
    /// The provider's own id; Slack: `<team>/<user>` (API.md section 6, point 2).
    #[schema(min_length = 1, max_length = 255)]
    pub id: String,
    /// For display.
    pub email: Option<String>,
    /// For display.
    pub name: Option<String>,
}

/// One token set.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportCredential {
    /// `user`, `bot`, ….
    #[schema(value_type = CredentialKindName)]
    pub kind: String,
    /// May have expired when a refresh token comes along.
    #[schema(value_type = String, write_only, min_length = 1, max_length = 16384)]
    pub access_token: Secret,
    /// Absent for what never expires.
    #[schema(value_type = Option<String>, write_only)]
    pub refresh_token: Option<Secret>,
    /// RFC 3339; absent for what never expires.
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    /// Granted scopes.
    #[serde(default)]
    pub scopes: Vec<String>,
}

impl Connections {
    /// Moves connections in: all of them or none.
    ///
    /// # Errors
    /// [`ConnectionsError::Invalid`] names every row that does not fit, [`ConnectionsError::AlreadyConnected`] every one
    /// whose account is there.
    pub async fn import(&self, caller: &Caller, import: Import) -> Result<Vec<Connection>, ConnectionsError> {
        let scope = caller.require(Permission::ConnectionsWrite)?;
        let mut invalid = Invalid::default();
        if import.connections.is_empty() || import.connections.len() > MOST_ROWS {
            invalid.add("connections", format!("must have 1 to {MOST_ROWS} entries"));
        }
        // Nobody waits behind an import that does not fit.
        let integrations = integration_list(&mut self.store.read().await?, &scope).await?;
        for (index, row) in import.connections.iter().enumerate() {
            self.check_row(&integrations, index, row, &mut invalid);
        }
        check_pairs(&import.connections, &mut invalid);
        invalid.into_result()?;
        let mut tx = self.store.begin_in_turn_of(&scope).await?;
        let ids = integrations.iter().map(|one| one.id.as_str());
        if import.connections.iter().any(|row| self.is_any_shared(row)) {
            self.credentials.lock_clients(&mut tx, &scope, ids).await?;
        } else {
            self.credentials.share_clients(&mut tx, &scope, ids).await?;
        }
        let integrations = integration_list(&mut tx, &scope).await?;
        let moved = self.move_in(caller, &mut tx, &scope, &integrations, import.connections).await;
        let moved = moved.map_err(|error| match error {
            // Its user has connected it just now.
            ConnectionsError::Store(StoreError::Conflict(_)) => ConnectionsError::Conflict("one of these connections"),
            error => error,
        })?;
        tx.commit().await?;
        if import.check {
            self.check_moved(caller, moved.iter().map(|one| one.id.clone()).collect()).await;
        }
        let mut tx = self.store.read().await?;
        let mut views = Vec::with_capacity(moved.len());
        for MovedIn { id, seen } in moved {
            views.push(match seen.filter(|_| !import.check) {
                Some(seen) => seen,
                None => self.connection_in(&mut tx, &scope, &id).await?,
            });
        }
        Ok(views)
    }

    /// Refreshes what has moved in. A failed check shows in the connection's own health; the import itself has happened.
    async fn check_moved(&self, caller: &Caller, ids: Vec<String>) {
        let checks = futures_util::stream::iter(ids).for_each_concurrent(CHECKS_AT_ONCE, |id| {
            let (room, caller) = (self.credentials.clone(), caller.clone());
            async move {
                if let Err(error) = room.refresh_now(&caller, &id).await {
                    tracing::info!(connection = id, error = %error, "an imported connection could not be refreshed");
                }
            }
        });
        if deadline(CHECK_LIMIT, checks).await.is_err() {
            tracing::info!("an import's check has ended before the last of its connections");
        }
    }

    fn check_row(&self, integrations: &[IntegrationRow], index: usize, row: &ImportRow, invalid: &mut Invalid) {
        let at = |field: &str| format!("connections[{index}].{field}");
        if crate::invalid::checked_external_id("user", &row.user).is_err() {
            invalid.add(at("user"), "must have 1 to 200 characters, none of them a control character");
        }
        match self.providers.get(&row.provider) {
            None => invalid.add(at("provider"), "is not in the catalogue; GET /v1/providers lists it"),
            Some(provider)
                if provider.descriptor().brings_tokens()
                    && integrations.iter().all(|one| one.provider != row.provider) =>
            {
                invalid.add(
                    at("provider"),
                    format!("{} has no integration; set one with PUT /v1/integrations/{}", row.provider, row.provider),
                );
            }
            // Nothing can be sent before the user has opened a chat, and no import can bring one along.
            Some(provider) if !provider.descriptor().brings_tokens() => {
                let why = format!("{} cannot be imported; make the connection with POST /v1/connections", row.provider);
                invalid.add(at("provider"), why);
            }
            Some(_) => {}
        }
        if row.provider == "slack" && !is_slack_account(&row.account.id) {
            invalid.add(at("account.id"), "must be <team>/<user>, such as T0123/U0123");
        } else if let Some(parts) = self.providers.get(&row.provider).and_then(|known| {
            let parts = known.descriptor().account_parts();
            let has = row.account.id.split('/').filter(|part| !part.is_empty()).count();
            (parts > 1 && has != parts).then_some(parts)
        }) {
            // A refresh would find out that it is another's than it says, and stop it (OA-10).
            let why =
                format!("must have {parts} parts with a slash between, as ids of this provider's accounts have here");
            invalid.add(at("account.id"), why);
        } else if row.account.id.is_empty()
            || row.account.id.len() > 255
            || row.account.id.chars().any(char::is_control)
        {
            invalid.add(at("account.id"), "must be the provider's own id of the account");
        }
        if row.credentials.is_empty() {
            invalid.add(at("credentials"), "must have at least one entry");
        }
        let now = self.around.now();
        for (number, credential) in row.credentials.iter().enumerate() {
            let at = |field: &str| format!("connections[{index}].credentials[{number}].{field}");
            if CredentialKind::parse(&credential.kind).is_none() {
                invalid.add(at("kind"), "must be user or bot");
            }
            if row.credentials[..number].iter().any(|other| other.kind == credential.kind) {
                invalid.add(at("kind"), "must be there once only");
            }
            if !is_token(&credential.access_token) {
                invalid.add(at("access_token"), TOKEN_FORM);
            }
            if credential.refresh_token.as_ref().is_some_and(|token| !is_token(token)) {
                invalid.add(at("refresh_token"), TOKEN_FORM);
            }
            match credential.expires_at.as_deref().map(Millis::parse_rfc3339) {
                Some(Err(_)) => invalid.add(at("expires_at"), "must be an RFC 3339 time"),
                Some(Ok(end)) if end <= now && credential.refresh_token.is_none() => {
                    invalid.add(at("expires_at"), "has passed, and there is no refresh_token to go on with");
                }
                Some(Ok(_)) | None => {}
            }
        }
    }

    /// Whether others of the same place may have one of its credentials, too.
    fn is_any_shared(&self, row: &ImportRow) -> bool {
        let Some(known) = self.providers.get(&row.provider) else { return false };
        let kinds = row.credentials.iter().filter_map(|one| CredentialKind::parse(&one.kind));
        kinds.into_iter().any(|kind| known.shared_as(kind, &row.account.id).is_some())
    }
}

/// An account is there once in one import.
fn check_pairs(rows: &[ImportRow], invalid: &mut Invalid) {
    let mut seen = HashSet::new();
    for (index, row) in rows.iter().enumerate() {
        if !seen.insert((&row.user, &row.provider, &row.account.id)) {
            invalid.add(format!("connections[{index}].account.id"), "must be there once only for a user and provider");
        }
    }
}

/// What a token must be, for [`is_token`].
const TOKEN_FORM: &str = "must have 1 to 16384 characters of printable ASCII";

/// RFC 6749, A.12 and A.17: printable ASCII. Anything else could not travel in a header.
fn is_token(token: &Secret) -> bool {
    let text = token.expose();
    (1..=16_384).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// `<team>/<user>`, or `<enterprise>/<user>` (API.md section 6, point 2).
fn is_slack_account(id: &str) -> bool {
    let plain = |part: &str| (1..=64).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric());
    id.split_once('/').is_some_and(|(place, user)| plain(place) && plain(user))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_could_not_travel_in_a_header_are_told_from_those_that_can() {
        for text in ["", "a\r\nX: y", "a\tb", "a\u{e9}", "a\u{7f}", &"x".repeat(16_385)] {
            assert!(!is_token(&Secret::new(text)), "{text:?}");
        }
        for text in ["ya29.a0-_~+/=", "a b", &"x".repeat(16_384)] {
            assert!(is_token(&Secret::new(text)), "{text:?}");
        }
    }

    #[test]
    fn a_slack_account_is_a_place_and_a_person() {
        for id in ["T1/U1", "E0ORG/W1"] {
            assert!(is_slack_account(id), "{id}");
        }
        for id in ["", "U1", "T1/", "/U1", "T1/U1/X", "T 1/U1", "T1/U\n1"] {
            assert!(!is_slack_account(id), "{id:?}");
        }
    }
}
