//! Reading a token: enough life left, or a flight first. A read never fails while the token has life.

use std::time::Duration;

use super::flights::{Boarding, Landing, Whose};
use super::refresh::{Verdict, Wish, enough};
use super::row::{access_place, integration_of, is_degraded, life_left, owner, view};
use super::sweep::Planned;
use super::{CredentialError, Credentials, ONE_CREDENTIAL};
use crate::audit::{Action, Durable, Event, Exposed};
use crate::caller::{Caller, Permission, TenantScope};
use crate::clock::{Millis, Stopwatch, deadline};
use crate::crash::crash_point;
use crate::invalid::Invalid;
use crate::providers::CredentialKind;
use crate::providers::notices::BLOCKED;
use crate::secret::Secret;
use crate::store::connections::{connection_by_id, connection_touch};
use crate::store::credentials::{CredentialName, CredentialRow};
use crate::store::due::credential_touch;
use crate::store::reading::{ReadableRow, credentials_readable};
use crate::store::{StoreError, from_json_list};

/// How long a caller waits for a flight before it is told to come again (RL-02).
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How long the caller of a token that lives waits for a better one: longer than most refreshes take, and short enough for an
/// answer within a second, after which somebody would hear it in a call.
const COURTESY: Duration = Duration::from_millis(750);

/// Looking up and opening are one round trip or two. What takes longer is a database that is away, or a line that is silent.
const LOOKED_UP_WITHIN: Duration = Duration::from_secs(5);

/// Nobody waits longer for that a use is noted.
const NOTED_WITHIN: Duration = Duration::from_secs(2);

/// What callers are told whose patience has ended before the flight has landed.
pub(super) const COME_AGAIN: Duration = Duration::from_secs(2);

/// The book's reason for a token that a running conversation asked for, other than the one it began with.
pub const IN_MID_CALL: &str = "mid_call";

/// Which credential of a connection is meant.
#[derive(Clone, Copy, Debug)]
pub enum Which<'a> {
    /// The user's, else the bot's, else the only one.
    Usual,
    /// The one of this kind: `user`, `bot`, ….
    Kind(&'a str),
    /// This one: `crd_…`.
    Id(&'a str),
}

impl<'a> Which<'a> {
    /// The one of this kind; the usual one when no kind is named.
    #[must_use]
    pub fn of_kind(kind: Option<&'a str>) -> Self {
        kind.map_or(Self::Usual, Self::Kind)
    }

    /// [`Self::of_kind`] for what somebody wrote into `field`.
    ///
    /// # Errors
    /// When there is no such kind at all.
    pub fn named(field: &str, kind: Option<&'a str>) -> Result<Self, Invalid> {
        if kind.is_some_and(|kind| CredentialKind::parse(kind).is_none()) {
            return Err(Invalid::one(field, "must be a kind of credential, such as user or bot"));
        }
        Ok(Self::of_kind(kind))
    }
}

/// What a caller wants to read.
#[derive(Clone, Copy, Debug)]
pub struct ReadWish<'a> {
    /// `con_…`.
    pub connection: &'a str,
    /// Which of the connection's credentials.
    pub which: Which<'a>,
    /// What would be enough.
    pub wish: Wish,
    /// How long to wait.
    pub patience: Duration,
    /// The conversation it is read for.
    pub conversation: Option<&'a str>,
    /// What the book calls it.
    pub action: Action,
    /// Why, for the book: [`IN_MID_CALL`], or nothing.
    pub reason: Option<&'static str>,
    /// Whether a secret that never ends may be read: only the broker's own use of it.
    pub forever_is_fine: bool,
}

impl<'a> ReadWish<'a> {
    /// A token with `life` left, to be handed out.
    #[must_use]
    pub fn token(connection: &'a str, life: Duration) -> Self {
        Self {
            connection,
            which: Which::Usual,
            wish: Wish::life(life),
            patience: PATIENCE,
            conversation: None,
            action: Action::TokenRead,
            reason: None,
            forever_is_fine: false,
        }
    }
}

/// Whose token it is; what the vault fixes in calls made with it.
#[derive(Clone, Debug)]
pub struct Account {
    /// `con_…`.
    pub connection: String,
    /// Catalogue id.
    pub provider: String,
}

/// A token on loan. Its entry is in the book.
#[derive(Debug)]
pub struct Token {
    /// The secret.
    pub secret: Secret,
    /// `crd_…`.
    pub credential: String,
    /// Whose it is.
    pub account: Account,
    /// What kind of secret it is.
    pub kind: CredentialKind,
    /// `Bearer`, ….
    pub token_type: String,
    /// When it ends; none when it never does.
    pub expires_at: Option<Millis>,
    /// What is left of its life.
    pub expires_in: Option<Duration>,
    /// What it may be used for.
    pub scopes: Vec<String>,
    /// Which token set it is.
    pub generation: i64,
    /// True when it is older or shorter-lived than one could wish.
    pub degraded: bool,
    /// Whether a refresh could bring a newer one.
    pub refreshable: bool,
    /// The proof that the hand-out is in the book.
    pub durable: Durable,
}

impl Token {
    /// Lets the secret out, into one answer. Its entry is in the book.
    #[must_use]
    pub fn hand_out(self) -> Exposed {
        Exposed::new(self.secret, &self.durable)
    }
}

/// A token that is there, without the token.
#[derive(Clone, Debug)]
pub struct Warm {
    /// `crd_…`.
    pub credential: String,
    /// Which token set it is.
    pub generation: i64,
    /// When it ends; none when it never does.
    pub expires_at: Option<Millis>,
    /// What it may be used for.
    pub scopes: Vec<String>,
}

impl Credentials {
    /// Lends a token, refreshing it first when the wish is not met by what is stored.
    ///
    /// # Errors
    /// See [`CredentialError`].
    pub async fn read(&self, caller: &Caller, want: ReadWish<'_>) -> Result<Token, CredentialError> {
        let scope = caller.require(Permission::TokensRead)?;
        self.read_in(caller, &scope, want).await
    }

    /// Makes sure that a token would be there, without lending it: what a start needs to know before it is asked for.
    ///
    /// # Errors
    /// See [`CredentialError`].
    pub async fn warm(&self, caller: &Caller, want: ReadWish<'_>) -> Result<Warm, CredentialError> {
        let scope = caller.require(Permission::TokensRead)?;
        let mut seen = self.find(&scope, &want, want.which).await?;
        self.fulfil(&scope, &mut seen, &want).await?;
        let row = seen.credential;
        Ok(Warm {
            generation: row.generation,
            expires_at: row.expires_at.map(Millis),
            scopes: from_json_list(&row.scopes),
            credential: row.id,
        })
    }

    pub(super) async fn read_in(
        &self,
        caller: &Caller,
        scope: &TenantScope,
        want: ReadWish<'_>,
    ) -> Result<Token, CredentialError> {
        let mut seen = self.find(scope, &want, want.which).await?;
        let degraded = self.fulfil(scope, &mut seen, &want).await?;
        self.lend(caller, scope, seen, &want, degraded).await
    }

    async fn find(
        &self,
        scope: &TenantScope,
        want: &ReadWish<'_>,
        which: Which<'_>,
    ) -> Result<ReadableRow, CredentialError> {
        let rows = self.readable(scope, want.connection);
        let rows = deadline(LOOKED_UP_WITHIN, rows).await.map_err(|_| StoreError::too_slow())??;
        let seen = pick(rows, which).ok_or(CredentialError::NoSuchKind)?;
        if seen.credential.expires_at.is_none() && !want.forever_is_fine {
            return Err(CredentialError::NotInjectable);
        }
        usable(&seen)?;
        Ok(seen)
    }

    async fn readable(&self, scope: &TenantScope, connection: &str) -> Result<Vec<ReadableRow>, CredentialError> {
        let mut tx = self.store.read().await?;
        let rows = credentials_readable(&mut tx, scope, connection).await?;
        if rows.is_empty() {
            connection_by_id(&mut tx, scope, connection).await?.ok_or(CredentialError::NotFound)?;
        }
        Ok(rows)
    }

    /// Makes sure that the wish is met as well as it can be; true when the token is degraded.
    async fn fulfil(
        &self,
        scope: &TenantScope,
        seen: &mut ReadableRow,
        want: &ReadWish<'_>,
    ) -> Result<bool, CredentialError> {
        let first = seen.credential.generation;
        let waited = Stopwatch::start();
        // A passenger's flight may have wanted less than we do; then we lead one of our own.
        for _ in 0..3 {
            let now = self.around.now();
            // Whether a token is enough has nothing to do with its integration.
            let stored = view(&seen.credential, None, &self.flights.process);
            let just_refreshed = seen.credential.generation > first;
            if enough(&stored, &want.wish, now) || just_refreshed {
                return Ok(is_lent_degraded(seen, now));
            }
            let id = seen.credential.id.clone();
            let name = CredentialName { tenant_id: seen.credential.tenant_id.clone(), id: id.clone() };
            let (mut landing, passenger_of) = self.board(&name, want.wish, None);
            let most = if self.will_do(&seen.credential, want) { want.patience.min(COURTESY) } else { want.patience };
            let patience = most.saturating_sub(waited.elapsed());
            let mut landed = deadline(patience, wait_for_landing(&mut landing)).await;
            if landed.is_err() && !self.will_do(&seen.credential, want) {
                // Its life was shorter than the courtesy.
                let patience = want.patience.saturating_sub(waited.elapsed());
                landed = deadline(patience, wait_for_landing(&mut landing)).await;
            }
            // The flight may have found a fault in the integration, or brought another account's token (OA-10).
            let found = match self.find(scope, want, Which::Id(&id)).await {
                Ok(fresh) => {
                    *seen = fresh;
                    true
                }
                // The database went away in the meantime; what was read before it may live.
                Err(CredentialError::Store(error)) if error.is_outage() => false,
                Err(error) => return Err(error),
            };
            let alive = life_left(&seen.credential, self.around.now()).is_none_or(|left| !left.is_zero());
            match landed {
                // What was stored could not be read again, and what was read before has ended.
                Ok(Some(Verdict::Serve { .. })) if !found && !self.will_do(&seen.credential, want) => {
                    return Err(CredentialError::InProgress { retry_after: COME_AGAIN });
                }
                Ok(Some(Verdict::Serve { degraded: None, .. }))
                    if passenger_of.is_none() || seen.credential.generation > first =>
                {
                    return Ok(is_lent_degraded(seen, now));
                }
                Ok(Some(Verdict::Serve { degraded: None, .. })) => {}
                // The sweep waits for nobody and tries once. We do better.
                Ok(Some(Verdict::RefreshInProgress { .. } | Verdict::Unavailable { .. }))
                    if passenger_of == Some(Whose::TheSweeps) => {}
                Ok(Some(Verdict::Serve { degraded: Some(_), .. })) if alive && !want.wish.forced => return Ok(true),
                // The flight could not see the row, its leader crashed, or our patience ended: a token with life is served all the
                // same (RL-20).
                Ok(Some(Verdict::RefreshInProgress { .. } | Verdict::Unavailable { .. }) | None) | Err(_)
                    if self.will_do(&seen.credential, want) =>
                {
                    return Ok(seen.credential.generation == first || is_lent_degraded(seen, now));
                }
                // Somebody else's flight, who insisted on a newer one. Ours does not.
                Ok(Some(Verdict::NeedsReauth { .. } | Verdict::RateLimited { .. }))
                    if passenger_of.is_some() && self.will_do(&seen.credential, want) => {}
                Ok(Some(verdict)) => return Err(self.refusal(verdict, &seen.credential)),
                Ok(None) | Err(_) => return Err(CredentialError::InProgress { retry_after: COME_AGAIN }),
            }
        }
        if self.will_do(&seen.credential, want) {
            return Ok(true);
        }
        Err(CredentialError::InProgress { retry_after: COME_AGAIN })
    }

    /// Whether a token is lent although nobody could say more about it: it lives, and no newer one is insisted on.
    fn will_do(&self, row: &CredentialRow, want: &ReadWish<'_>) -> bool {
        let alive = life_left(row, self.around.now()).is_none_or(|left| !left.is_zero());
        alive && !want.wish.forced && want.wish.newer_than.is_none()
    }

    /// Joins the flight of a credential, or leads a new one in a task of its own: then it is nobody else's. Only the sweep plans
    /// its flights.
    pub(super) fn board(
        &self,
        name: &CredentialName,
        wish: Wish,
        planned: Option<Planned>,
    ) -> (Landing, Option<Whose>) {
        let who = if planned.is_some() { Whose::TheSweeps } else { Whose::AReaders };
        match self.flights.board(name, who) {
            Boarding::Passenger(landing, whose) => (landing, Some(whose)),
            Boarding::Leader(seat, landing) => {
                tokio::spawn(self.clone().fly(seat, wish, planned));
                (landing, None)
            }
        }
    }

    pub(super) fn refusal(&self, verdict: Verdict, row: &CredentialRow) -> CredentialError {
        match verdict {
            Verdict::Serve { degraded, .. } => CredentialError::Upstream {
                code: degraded.map_or_else(|| "degraded".to_owned(), |code| code.to_string()),
                retry_after: Duration::from_secs(5),
            },
            Verdict::RefreshInProgress { retry_after } => CredentialError::InProgress { retry_after },
            Verdict::NeedsReauth { .. } if row.refresh_token.is_none() && row.status == "active" => {
                CredentialError::NotRefreshable
            }
            Verdict::NeedsReauth { reason } => CredentialError::NeedsReauth { reason: reason.to_string() },
            Verdict::Misconfigured => CredentialError::Misconfigured,
            Verdict::Gone => CredentialError::NotFound,
            Verdict::RateLimited { until } => {
                CredentialError::RateLimited { retry_after: until.left(self.around.now()) }
            }
            Verdict::Unavailable { code, retry_after } => {
                CredentialError::Upstream { code: code.to_string(), retry_after }
            }
        }
    }

    async fn lend(
        &self,
        caller: &Caller,
        scope: &TenantScope,
        seen: ReadableRow,
        want: &ReadWish<'_>,
        degraded: bool,
    ) -> Result<Token, CredentialError> {
        let row = &seen.credential;
        let sealed = row.access_token.as_ref().ok_or(CredentialError::NotFound)?;
        let opened = async {
            let mut tx = self.store.read().await?;
            self.keys.open_secret(&mut tx, &owner(row), access_place(&row.id, row.generation), sealed).await
        };
        let secret = deadline(LOOKED_UP_WITHIN, opened).await.map_err(|_| StoreError::too_slow())??;
        let event = Event::done(want.action, "connection", want.connection)
            .of_user(seen.connection_user_id.as_deref())
            .in_conversation(want.conversation)
            .because(want.reason);
        let durable = self.audit.note(caller, &event).await?;
        let now = self.around.now();
        self.note_use(scope, want.connection, &seen, now).await;
        crash_point!(BeforeReply);
        let row = seen.credential;
        Ok(Token {
            secret,
            kind: CredentialKind::parse(&row.kind).unwrap_or(CredentialKind::User),
            account: Account { connection: want.connection.to_owned(), provider: row.provider.clone() },
            expires_in: life_left(&row, now),
            expires_at: row.expires_at.map(Millis),
            scopes: from_json_list(&row.scopes),
            generation: row.generation,
            degraded,
            refreshable: row.refresh_token.is_some(),
            token_type: row.token_type,
            credential: row.id,
            durable,
        })
    }

    /// "Last used" helps people and the keep-alive; a request never fails or waits for it more than once a minute.
    async fn note_use(&self, scope: &TenantScope, connection: &str, seen: &ReadableRow, now: Millis) {
        let row = &seen.credential;
        if seen.connection_last_used_at.is_some_and(|at| at > now.0 - 60_000) && row.last_used_at > now.0 - 60_000 {
            return;
        }
        let name = CredentialName { tenant_id: row.tenant_id.clone(), id: row.id.clone() };
        let written = async {
            let mut tx = self.store.read().await?;
            let integration = integration_of(&mut tx, scope, row.integration_id.as_deref()).await?;
            drop(tx);
            // What was idle is kept fresh again from now on.
            let used = CredentialRow { last_used_at: now.0, ..row.clone() };
            let due = self.next_due(&used, integration.as_ref());
            let mut tx = self.store.begin().await?;
            // In the order of everybody who writes to both.
            credential_touch(&mut tx, ONE_CREDENTIAL, &name, now.0, due).await?;
            connection_touch(&mut tx, scope, connection, now.0).await?;
            tx.commit().await
        };
        if let Err(error) = deadline(NOTED_WITHIN, written).await.unwrap_or_else(|_| Err(StoreError::too_slow())) {
            tracing::warn!(error = %error, "the last use of a connection was not noted");
        }
    }
}

fn is_lent_degraded(seen: &ReadableRow, now: Millis) -> bool {
    is_degraded(&seen.credential, seen.integration_status.as_deref(), now)
}

pub(super) async fn wait_for_landing(landing: &mut Landing) -> Option<Verdict> {
    landing.wait_for(Option::is_some).await.ok().and_then(|verdict| verdict.clone())
}

/// A connection whose account is in question, or that was never finished, lends nothing.
fn usable(seen: &ReadableRow) -> Result<(), CredentialError> {
    match seen.connection_status.as_str() {
        status @ ("quarantined" | "awaiting_start") => {
            Err(CredentialError::NeedsReauth { reason: seen.connection_reason.as_deref().unwrap_or(status).to_owned() })
        }
        // The bot's token is as good as ever; it is the person who does not want to hear from it.
        "needs_reauth" if seen.connection_reason.as_deref() == Some(BLOCKED) => {
            Err(CredentialError::NeedsReauth { reason: BLOCKED.to_owned() })
        }
        "misconfigured" => Err(CredentialError::Misconfigured),
        "revoked" => Err(CredentialError::NotFound),
        _ => Ok(()),
    }
}

fn pick(rows: Vec<ReadableRow>, which: Which<'_>) -> Option<ReadableRow> {
    rows.into_iter().find(|row| match which {
        // `user` sorts before `bot`, and both before nothing.
        Which::Usual => true,
        Which::Kind(kind) => row.credential.kind == kind,
        Which::Id(id) => row.credential.id == id,
    })
}

#[cfg(test)]
mod tests {
    use super::super::refresh::Code;
    use super::super::testing::{CONNECTION, House, consented, furnish, owner_of};
    use super::*;
    use crate::store::credentials::credentials_of_connection;
    use crate::store::testing::{on_both, scope_of};

    /// A flight of `whose` ends without having refreshed, while somebody else perhaps has. What does a reader get who waited for it?
    async fn read_beside(
        house: &House,
        tenant: &str,
        whose: Whose,
        refreshed: bool,
    ) -> Result<(i64, bool), CredentialError> {
        let (scope, room) = (scope_of(tenant), &house.rooms[0]);
        furnish(&house.store, tenant, &scope).await;
        let owner = owner_of(&scope);
        let keep = async |obtained_at: Millis, access: &str| {
            let mut tx = house.store.begin().await.unwrap();
            let new = consented(&owner, obtained_at, Duration::from_secs(100), access, "refresh");
            room.keep(&mut tx, &scope, CONNECTION, new).await.unwrap();
            let id = credentials_of_connection(&mut tx, &scope, CONNECTION).await.unwrap().remove(0).id;
            tx.commit().await.unwrap();
            id
        };
        let now = house.rooms[0].around.now();
        let id = keep(now.before(Duration::from_secs(200)), "ended").await;
        let name = CredentialName { tenant_id: tenant.to_owned(), id };
        let Boarding::Leader(seat, _) = room.flights.board(&name, whose) else { panic!("nobody else flies") };
        let reader = tokio::spawn({
            let (room, caller, scope) = (room.clone(), Caller::operator(scope.tenant_id().clone()), scope.clone());
            async move { room.read_in(&caller, &scope, ReadWish::token(CONNECTION, Duration::ZERO)).await }
        });
        while !seat.is_waited_for() && !reader.is_finished() {
            tokio::task::yield_now().await;
        }
        if refreshed {
            keep(now, "fresh").await;
        }
        seat.land(Verdict::RefreshInProgress { retry_after: Duration::from_secs(1) });
        reader.await.expect("an answer").map(|token| (token.generation, token.degraded))
    }

    #[tokio::test]
    async fn rl_20_a_flight_that_could_not_see_the_row_takes_no_living_token_from_its_reader() {
        on_both(async |store| {
            let house = House::build(&store).await;
            let (scope, room) = (scope_of("ten_1"), &house.rooms[0]);
            furnish(&house.store, "ten_1", &scope).await;
            let owner = owner_of(&scope);
            let mut tx = house.store.begin().await.unwrap();
            let obtained_at = room.around.now().before(Duration::from_secs(60));
            let new = consented(&owner, obtained_at, Duration::from_secs(100), "living", "refresh");
            room.keep(&mut tx, &scope, CONNECTION, new).await.unwrap();
            let id = credentials_of_connection(&mut tx, &scope, CONNECTION).await.unwrap().remove(0).id;
            tx.commit().await.unwrap();
            let name = CredentialName { tenant_id: "ten_1".to_owned(), id };
            let caller = Caller::operator(scope.tenant_id().clone());
            let retry_after = Duration::from_secs(1);
            for verdict in [
                Verdict::Unavailable { code: Code::STORE_UNAVAILABLE, retry_after },
                Verdict::RefreshInProgress { retry_after },
                // Somebody had asked for a newer one, whatever becomes of this.
                Verdict::NeedsReauth { reason: Code::new("invalid_grant") },
            ] {
                let Boarding::Leader(seat, _) = room.flights.board(&name, Whose::AReaders) else {
                    panic!("nobody else flies")
                };
                let landing = async {
                    while !seat.is_waited_for() {
                        tokio::task::yield_now().await;
                    }
                    seat.land(verdict);
                };
                let reading = room.read_in(&caller, &scope, ReadWish::token(CONNECTION, Duration::from_secs(1800)));
                let (token, ()) = tokio::join!(reading, landing);
                let token = token.expect("forty seconds of life");
                assert_eq!((token.generation, token.degraded), (1, true));
            }
        })
        .await;
    }

    #[tokio::test]
    async fn rl_20_whose_new_token_could_not_be_read_is_told_to_come_again() {
        on_both(async |store| {
            let house = House::build(&store).await;
            let (scope, room) = (scope_of("ten_1"), &house.rooms[0]);
            furnish(&house.store, "ten_1", &scope).await;
            let owner = owner_of(&scope);
            let obtained_at = room.around.now().before(Duration::from_secs(200));
            let mut tx = house.store.begin().await.unwrap();
            let new = consented(&owner, obtained_at, Duration::from_secs(100), "ended", "refresh");
            room.keep(&mut tx, &scope, CONNECTION, new).await.unwrap();
            let id = credentials_of_connection(&mut tx, &scope, CONNECTION).await.unwrap().remove(0).id;
            tx.commit().await.unwrap();
            let want = ReadWish::token(CONNECTION, Duration::ZERO);
            let mut seen = room.find(&scope, &want, Which::Usual).await.unwrap();
            let name = CredentialName { tenant_id: "ten_1".to_owned(), id };
            let Boarding::Leader(seat, _) = room.flights.board(&name, Whose::AReaders) else {
                panic!("nobody else flies")
            };
            let landing = async {
                while !seat.is_waited_for() {
                    tokio::task::yield_now().await;
                }
                house.store.close().await;
                seat.land(Verdict::Serve { generation: 2, degraded: None });
            };
            let (told, ()) = tokio::join!(room.fulfil(&scope, &mut seen, &want), landing);
            assert!(matches!(told, Err(CredentialError::InProgress { .. })), "{told:?}");
        })
        .await;
    }

    #[tokio::test]
    async fn a_reader_is_as_patient_beside_the_sweep_as_anywhere() {
        on_both(async |store| {
            let house = House::build(&store).await;
            for (tenant, whose) in [("ten_1", Whose::TheSweeps), ("ten_2", Whose::AReaders)] {
                let token = read_beside(&house, tenant, whose, true).await;
                assert_eq!(token.expect("a token"), (2, false), "it lives");
            }
            let tried = read_beside(&house, "ten_3", Whose::TheSweeps, false).await;
            // As far as it can be tried here: nobody has a client secret.
            assert!(
                matches!(tried, Err(CredentialError::Misconfigured)),
                "the sweep tries once, the reader again: {tried:?}"
            );
            let refused = read_beside(&house, "ten_4", Whose::AReaders, false).await;
            assert!(
                matches!(refused, Err(CredentialError::InProgress { .. })),
                "a reader was patient already: {refused:?}"
            );
        })
        .await;
    }
}
