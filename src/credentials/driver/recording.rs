//! What is written when no tokens came: the failure, and what it says about the integration, in one transaction.

use std::time::Duration;

use super::{DATABASE_LIMIT, Driver, Loaded, Tokens, trouble};
use crate::audit::{Action as Done, Event as Happening};
use crate::clock::Millis;
use crate::crash::crash_point;
use crate::credentials::ONE_CREDENTIAL;
use crate::credentials::refresh::{Code, Event, Failure, Record, Wave};
use crate::credentials::row::doubt_columns;
use crate::store::connections::{connections_of_credential_heal, connections_of_credential_mark};
use crate::store::credentials::CredentialRow;
use crate::store::integrations::{
    Refusals, integration_accept, integration_count_refusal, integration_limit_rate, integration_pause,
    integration_strain,
};
use crate::store::refresh_rows::{
    FailureColumns, credential_fail, credential_needs_reauth, credentials_refused_believe_again,
};
use crate::store::telling::connections_of_credential_degrade;
use crate::store::{StoreError, Tx};

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Yes,
    /// The integration is held instead of the credential.
    Withheld,
    /// The row has moved on.
    No,
}

/// A record for the book: of what, and why.
#[derive(Clone, Copy, Debug)]
struct Entry<'a> {
    action: Done,
    object: (&'static str, &'a str),
    failed: bool,
    reason: Option<&'a str>,
}

impl<'a> Entry<'a> {
    fn failed(credential: &'a str, reason: &'a str) -> Self {
        Self {
            action: Done::CredentialRefreshed,
            object: ("credential", credential),
            failed: true,
            reason: Some(reason),
        }
    }

    fn integration(action: Done, id: &'a str, reason: &'a str) -> Self {
        Self { action, object: ("integration", id), failed: false, reason: Some(reason) }
    }
}

/// What the clocks of nodes may differ by (`docs/OPERATIONS.md`; the doctor compares them).
const CLOCKS_AGREE_WITHIN: Duration = Duration::from_secs(5);

impl Driver {
    pub(super) async fn on_record(&mut self, record: &Record) -> Event<Tokens> {
        let store = self.room.store.clone();
        match store.in_time(DATABASE_LIMIT, self.record(record)).await {
            Ok(Written::Yes) => Event::Recorded,
            Ok(Written::Withheld) => Event::Withheld,
            Ok(Written::No) => Event::RecordLost,
            Err(error) => trouble(&error),
        }
    }

    async fn record(&mut self, record: &Record) -> Result<Written, StoreError> {
        let Some(Loaded { row, integration: known }) = self.loaded.clone() else { return Ok(Written::No) };
        crash_point!(BeforeRecord);
        let mut tx = self.room.store.begin().await?;
        let place = (row.tenant_id.as_str(), row.integration_id.as_deref().unwrap_or_default());
        let (tenant, integration) = place;
        let mut outcome = record_name(record);
        let (written, entry) = match record {
            Record::Failure(failure) => {
                (self.fail(&mut tx, failure).await?, Entry::failed(&row.id, failure.last_error.as_str()))
            }
            Record::Unanswered { open_after, probe_at, failure } => {
                let code = failure.last_error.as_str();
                let breaker = (i64::from(*open_after), probe_at.0);
                let opened = integration_strain(&mut tx, ONE_CREDENTIAL, place, code, breaker, self.now().0).await?;
                let entry = Entry::failed(&row.id, code);
                let opens = Entry::integration(Done::IntegrationUnreachable, integration, code);
                (self.fail(&mut tx, failure).await?, if opened { opens } else { entry })
            }
            Record::RateLimited { until, failure } => {
                integration_limit_rate(&mut tx, ONE_CREDENTIAL, tenant, integration, until.0).await?;
                (self.fail(&mut tx, failure).await?, Entry::failed(&row.id, failure.last_error.as_str()))
            }
            Record::Configuration { code, probe_at, failure } => {
                let (code, saved_at) = (code.as_str(), known.as_ref().map_or(0, |known| known.updated_at));
                let paused = integration_pause(&mut tx, ONE_CREDENTIAL, place, saved_at, code, probe_at.0).await?;
                let first = paused && known.as_ref().is_none_or(|known| known.status == "active");
                let entry = Entry::integration(Done::IntegrationPaused, integration, code);
                let written = self.fail(&mut tx, failure).await?;
                (written, if first { entry } else { Entry::failed(&row.id, code) })
            }
            Record::Reauth { generation, fence, reason, heals_integration, wave } => {
                let wave = match wave {
                    Some(wave) => self.count_refusal(&mut tx, place, wave).await?,
                    None => None,
                };
                if let Some((wave, since)) = wave {
                    outcome = "withheld";
                    let saved_at = known.as_ref().map_or(0, |known| known.updated_at);
                    let written = self.hold_integration(&mut tx, place, saved_at, wave, since).await?;
                    let entry = Entry::integration(Done::IntegrationPaused, integration, Code::REFUSED_WAVE.as_str());
                    (written, entry)
                } else {
                    if *heals_integration {
                        integration_accept(&mut tx, ONE_CREDENTIAL, tenant, integration).await?;
                    }
                    let entry = Entry {
                        action: Done::ConnectionNeedsReauth,
                        object: ("credential", &row.id),
                        failed: false,
                        reason: Some(reason.as_str()),
                    };
                    (self.mark_reauth(&mut tx, (*generation, *fence), reason).await?, entry)
                }
            }
        };
        // A pause and a fault are the client's, whoever has gone on with this credential meanwhile.
        if !written && !matches!(record, Record::RateLimited { .. } | Record::Configuration { .. }) {
            return Ok(Written::No);
        }
        if written || entry.object.0 == "integration" {
            self.enter(&mut tx, &row, entry).await?;
        }
        crash_point!(MidRecord);
        tx.commit().await?;
        crash_point!(AfterRecord);
        if !written {
            return Ok(Written::No);
        }
        metrics::counter!("valetkey_refreshes_total", "provider" => row.provider, "outcome" => outcome).increment(1);
        Ok(if outcome == "withheld" { Written::Withheld } else { Written::Yes })
    }

    async fn enter(&self, tx: &mut Tx, row: &CredentialRow, entry: Entry<'_>) -> Result<(), StoreError> {
        let user = (row.owner_kind == "user").then_some(row.owner_id.as_str());
        let (kind, id) = entry.object;
        let event = Happening { reason: entry.reason, ..Happening::done(entry.action, kind, id) };
        let event = event.of_user(user.filter(|_| kind == "credential"));
        let event = entry.reason.filter(|_| entry.failed).map_or(event, |reason| event.failed(reason));
        self.room.audit.record(tx, &self.system(), &event).await.map(drop)
    }

    async fn mark_reauth(&self, tx: &mut Tx, seen: (i64, i64), reason: &Code) -> Result<bool, StoreError> {
        let now = self.now().0;
        let (generation, fence) = seen;
        let reason = reason.as_str();
        let written = credential_needs_reauth(tx, ONE_CREDENTIAL, &self.name, generation, fence, reason, now).await?;
        if written {
            let (tenant, id) = (&self.name.tenant_id, &self.name.id);
            connections_of_credential_mark(tx, ONE_CREDENTIAL, tenant, id, "needs_reauth", Some(reason), now).await?;
        }
        Ok(written)
    }

    /// The wave and its beginning, when this refusal is one too many.
    async fn count_refusal<'w>(
        &self,
        tx: &mut Tx,
        place: (&str, &str),
        wave: &'w Wave,
    ) -> Result<Option<(&'w Wave, i64)>, StoreError> {
        let now = self.now().0;
        let counted = integration_count_refusal(tx, ONE_CREDENTIAL, place, wave.since.0, now).await?;
        let Some(Refusals { refused, refused_since }) = counted else { return Ok(None) };
        Ok((refused >= i64::from(wave.most)).then_some((wave, refused_since)))
    }

    /// Not the users: the client. What this wave has marked so far is taken back.
    async fn hold_integration(
        &self,
        tx: &mut Tx,
        place: (&str, &str),
        saved_at: i64,
        wave: &Wave,
        since: i64,
    ) -> Result<bool, StoreError> {
        let (code, probe_at) = (Code::REFUSED_WAVE.as_str(), wave.probe_at.0);
        integration_pause(tx, ONE_CREDENTIAL, place, saved_at, code, probe_at).await?;
        if !self.fail(tx, &wave.failure).await? {
            return Ok(false);
        }
        // Another node may have marked the first ones, by a clock that is a little behind.
        let since = Millis(since).before(CLOCKS_AGREE_WITHIN).0;
        let times = (self.now().0, probe_at);
        let taken_back = credentials_refused_believe_again(tx, ONE_CREDENTIAL, place, since, times).await?;
        tracing::error!(
            integration = place.1,
            taken_back,
            "many users at once seem to have withdrawn: the integration is held, since its client or the provider is more likely to be at fault"
        );
        Ok(true)
    }

    async fn fail(&self, tx: &mut Tx, failure: &Failure) -> Result<bool, StoreError> {
        let columns = FailureColumns {
            generation: failure.generation,
            fence: failure.fence,
            abandoned: failure.abandoned,
            attempts: i64::from(failure.attempts),
            next_attempt_at: failure.next_attempt_at.0,
            last_error: failure.last_error.as_str(),
            doubt: doubt_columns(failure.doubt),
            unrecognised: (i64::from(failure.unrecognised.count), failure.unrecognised.since.0),
            due_at: Some(failure.next_attempt_at.0),
            now: self.now().0,
        };
        let written = credential_fail(tx, ONE_CREDENTIAL, &self.name, columns).await?;
        if written && columns.heals() {
            // Always: another node may have given this attempt up since the row was read.
            let (name, lost) = ((&*self.name.tenant_id, &*self.name.id), Code::ROTATION_RESPONSE_LOST);
            connections_of_credential_heal(tx, ONE_CREDENTIAL, name, lost.as_str(), columns.now).await?;
        }
        let is_first = self.loaded.as_ref().is_none_or(|loaded| loaded.row.last_error.is_none());
        if written && is_first {
            connections_of_credential_degrade(tx, ONE_CREDENTIAL, &self.name.tenant_id, &self.name.id).await?;
        }
        Ok(written)
    }
}

pub(super) fn record_name(record: &Record) -> &'static str {
    match record {
        Record::Failure(_) => "failed",
        Record::Unanswered { .. } => "unanswered",
        Record::RateLimited { .. } => "rate_limited",
        Record::Configuration { .. } => "configuration",
        Record::Reauth { .. } => "needs_reauth",
    }
}
