//! The same actions on the model of the simulation and, through the driver, on both databases: after each of them a
//! load sees the same, so what the simulation proves about the model holds for the rows.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::refresh::simulation::world::Dice;
use super::super::refresh::simulation::world::shelf::Shelf;
use super::super::refresh::simulation::world::{LIFE, START};
use super::super::refresh::{Doubt, Failure, Integration, Phase, Record, Status, Unrecognised, Wave};
use super::super::testing::{CONNECTION, House, INTEGRATION, consented, furnish, owner_of};
use super::recording::record_name;
use super::*;
use crate::caller::TenantScope;
use crate::credentials::NewCredential;
use crate::credentials::row::{access_place, owner, refresh_place};
use crate::providers::CredentialKind;
use crate::store::Store;
use crate::store::connections::connection_by_id;
use crate::store::credentials::{credential_delete, credentials_of_connection, credentials_of_integration_pause};
use crate::store::integrations::{integration_by_id, integration_update};
use crate::store::notices::credential_lose;
use crate::store::testing::{on_both, scope_of};

const SEEDS: u64 = 40;
const STEPS: u64 = 80;

/// One credential of one tenant, and what the model says about it.
struct Story<'a> {
    house: &'a House,
    scope: TenantScope,
    name: CredentialName,
    drivers: [Driver; 2],
    model: Shelf,
    dice: Dice,
    /// Claims that were won, for actions that come too late.
    claims: Vec<Claimed>,
    /// Access and refresh token that should be stored.
    tokens: (String, String),
    provider: &'static str,
    /// Which kinds of events there were.
    seen: BTreeMap<&'static str, u64>,
}

impl<'a> Story<'a> {
    async fn begin(house: &'a House, seed: u64) -> Self {
        let tenant = format!("ten_{seed}");
        let scope = scope_of(&tenant);
        furnish(&house.store, &tenant, &scope).await;
        let mut tx = house.store.begin().await.unwrap();
        let owner = owner_of(&scope);
        // One whose refresh tokens are spent by use, and one whose are not.
        let provider = if seed.is_multiple_of(2) { "google" } else { "notion" };
        let first = consented(&owner, START, Duration::from_secs(100), "access 0", "refresh 0");
        let first = NewCredential { provider, ..first };
        house.rooms[0].keep(&mut tx, &scope, CONNECTION, first).await.unwrap();
        let row = credentials_of_connection(&mut tx, &scope, CONNECTION).await.unwrap().remove(0);
        tx.commit().await.unwrap();
        let name = CredentialName { tenant_id: tenant, id: row.id };
        let drivers =
            [0, 1].map(|room| Driver { jitter: Jitter(7), ..Driver::new(house.rooms[room].clone(), name.clone()) });
        let mut model = Shelf::new();
        model.refreshed_at = START;
        model.original_life = Some(Duration::from_secs(100));
        Self {
            house,
            scope,
            name,
            drivers,
            model,
            dice: Dice::new(seed),
            claims: vec![Claimed { generation: 1, fence: 0, consents: 1 }],
            tokens: ("access 0".to_owned(), "refresh 0".to_owned()),
            provider,
            seen: BTreeMap::new(),
        }
    }

    fn now(&self) -> Millis {
        self.house.rooms[0].around.now()
    }

    fn soon(&mut self, seconds: u64) -> Millis {
        let ahead = Duration::from_millis(self.dice.roll(seconds * 1000));
        self.now().after(ahead)
    }

    fn doubt(&mut self) -> Option<Doubt> {
        let replays = u8::try_from(self.dice.roll(3)).unwrap();
        let (first_sent, since) = (self.soon(1), self.soon(9));
        let likely_unspent = self.dice.once_in(2);
        self.dice.once_in(2).then_some(Doubt { first_sent, since, replays, likely_unspent })
    }

    /// Mostly the row as it is, sometimes an older claim, sometimes one that never was.
    fn claimed(&mut self) -> Claimed {
        let mut claimed =
            Claimed { generation: self.model.generation, fence: self.model.fence, consents: self.model.consents };
        match self.dice.roll(8) {
            0 => claimed = self.claims[usize::try_from(self.dice.roll(self.claims.len() as u64)).unwrap()],
            1 => claimed.fence += 1,
            2 => claimed.generation -= 1,
            3 => claimed.consents += 1,
            4 => claimed.fence -= 1,
            _ => {}
        }
        claimed
    }

    fn failure(&mut self) -> Failure {
        let claimed = self.claimed();
        Failure {
            generation: claimed.generation,
            fence: claimed.fence,
            abandoned: self.dice.once_in(3),
            attempts: u32::try_from(self.dice.roll(9)).unwrap(),
            next_attempt_at: self.soon(60),
            last_error: Code::new(
                ["server_error", "rate_limited", "teapot"][usize::try_from(self.dice.roll(3)).unwrap()],
            ),
            doubt: self.doubt(),
            unrecognised: Unrecognised { count: u32::try_from(self.dice.roll(4)).unwrap(), since: self.soon(2) },
        }
    }

    async fn step(&mut self, number: u64) {
        self.house.clock.advance(Duration::from_millis(self.dice.roll(20_000)));
        let node = usize::try_from(self.dice.roll(2)).unwrap();
        match self.dice.roll(20) {
            0..=3 => self.claim(node).await,
            4 | 18 | 19 => self.announce(node).await,
            5 | 6 => self.renew(node).await,
            7..=9 => self.store(node, number).await,
            10 | 11 => {
                let record = self.record_of_any_kind();
                self.write(node, record).await;
            }
            12 | 15 => {
                let claimed = self.claimed();
                let reason =
                    if self.dice.once_in(2) { Code::ROTATION_RESPONSE_LOST } else { Code::new("invalid_grant") };
                let heals_integration = self.dice.once_in(2);
                let Claimed { generation, fence, .. } = claimed;
                let failure = Failure { generation, fence, ..self.failure() };
                let (since, probe_at) = (self.now().before(Duration::from_secs(600)), self.soon(60));
                let most = 1 + u32::try_from(self.dice.roll(2)).unwrap();
                let wave = self.dice.once_in(2).then_some(Wave { most, since, probe_at, failure });
                self.write(node, Record::Reauth { generation, fence, reason, heals_integration, wave }).await;
            }
            13 => self.reconnect(number).await,
            16 => self.bring_again(number).await,
            17 if self.dice.once_in(4) => self.lose().await,
            14 if self.dice.once_in(10) => self.disconnect().await,
            _ => self.tenant_acts().await,
        }
        self.compare(number).await;
    }

    fn note(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    async fn claim(&mut self, node: usize) {
        let Claimed { generation, fence, consents } = self.claimed();
        let standing = self.model.seen_by(0).integration;
        let faulty = matches!(standing, Integration::Faulty { .. } | Integration::Unreachable { .. });
        let claim = Claim {
            generation,
            fence,
            phase: if self.dice.once_in(8) { Phase::Idle } else { self.model.phase },
            doubt_since: self.model.doubt.map(|doubt| doubt.since).filter(|_| !self.dice.once_in(8)),
            lease_until: self.soon(60),
            believable: self.soon(120),
            doubt: self.doubt(),
            announces: self.dice.once_in(2),
            probe: (faulty || self.dice.once_in(3)).then(|| self.now().after(Duration::from_secs(60))),
        };
        let wanted = self.model.claim(self.now(), node as u64, claim);
        let got = self.drivers[node].on_claim(claim).await;
        match wanted {
            Some(fence) => {
                assert!(matches!(got, Event::Claimed { fence: ours } if ours == fence), "{got:?}, {claim:?}");
                self.claims.push(Claimed { generation, fence, consents });
                self.note("claimed");
            }
            None => {
                assert!(matches!(got, Event::ClaimLost), "{got:?}, {claim:?}, {:?}", self.model);
                self.note("claim lost");
            }
        }
    }

    async fn announce(&mut self, node: usize) {
        let (claimed, until) = (self.claimed(), self.soon(90));
        let wanted = self.model.announce(self.now(), claimed, until);
        let got = self.drivers[node].on_announce(claimed, until).await;
        assert!(if wanted { matches!(got, Event::Announced) } else { matches!(got, Event::AnnounceLost) }, "{got:?}");
        self.note(if wanted { "announced" } else { "announce lost" });
    }

    async fn renew(&mut self, node: usize) {
        let (claimed, until) = (self.claimed(), self.soon(90));
        let wanted = self.model.renew(claimed, until);
        let got = self.drivers[node].on_renew(claimed, until).await;
        assert!(if wanted { matches!(got, Event::LeaseRenewed) } else { matches!(got, Event::LeaseLost) }, "{got:?}");
        self.note(if wanted { "renewed" } else { "lease lost" });
    }

    async fn store(&mut self, node: usize, number: u64) {
        let claimed = self.claimed();
        let generation = if self.dice.once_in(6) { self.model.generation } else { claimed.generation };
        let only_fence = self.dice.once_in(3);
        let access = format!("access {number}");
        let refresh = self.dice.once_in(2).then(|| format!("refresh {number}"));
        let set = TokenSet {
            kind: CredentialKind::User,
            access_token: Secret::new(&*access),
            refresh_token: refresh.as_deref().map(Secret::new),
            token_type: "Bearer".to_owned(),
            scopes: None,
            expires_in: Some(LIFE),
            refresh_expires_in: None,
            subject: None,
        };
        let tokens = Fetched::of(set, Secret::new(&*self.tokens.1), self.now(), (self.sealer().await, 1));
        let wanted = self.model.store(self.now(), claimed, generation, only_fence);
        let got = self.drivers[node].on_store(&tokens, claimed, generation, only_fence).await;
        if wanted {
            assert!(matches!(got, Event::Stored), "{got:?}, {claimed:?}");
            self.tokens = (access, refresh.unwrap_or_else(|| self.tokens.1.clone()));
        } else {
            assert!(matches!(got, Event::StoreLost(_) | Event::Gone), "{got:?}, {claimed:?}, {:?}", self.model);
        }
        self.note(if wanted { "stored" } else { "store lost" });
    }

    async fn sealer(&self) -> Sealer {
        let mut tx = self.house.store.begin().await.unwrap();
        self.house.rooms[0].keys.sealer(&mut tx, &owner_of(&self.scope)).await.unwrap()
    }

    fn record_of_any_kind(&mut self) -> Record {
        let failure = self.failure();
        match self.dice.roll(5) {
            0 => Record::Failure(failure),
            3 | 4 => Record::Unanswered { open_after: 2, probe_at: self.soon(30), failure },
            1 => {
                // Now and then by a clock that has jumped.
                let jump = if self.dice.once_in(4) { Duration::from_secs(9 * 3600) } else { Duration::ZERO };
                Record::RateLimited { until: self.soon(40).after(jump), failure }
            }
            _ => Record::Configuration { code: Code::new("invalid_client"), probe_at: self.soon(60), failure },
        }
    }

    async fn write(&mut self, node: usize, record: Record) {
        let wanted = self.model.record(self.now(), &record);
        let got = self.drivers[node].on_record(&record).await;
        let seen = match (wanted, got) {
            (Some(Event::Recorded), Event::Recorded) => record_name(&record),
            (Some(Event::Withheld), Event::Withheld) => "withheld",
            (None, Event::RecordLost) => "record lost",
            (wanted, got) => panic!("{wanted:?} was wanted, {got:?} came; {record:?}"),
        };
        self.note(seen);
    }

    async fn reconnect(&mut self, number: u64) {
        if self.model.status == Status::Deleted {
            return;
        }
        self.tokens = (format!("access {number}"), format!("refresh {number}"));
        let (now, owner) = (self.now(), owner_of(&self.scope));
        let mut tx = self.house.store.begin().await.unwrap();
        let new = consented(&owner, now, LIFE, &self.tokens.0, &self.tokens.1);
        let new = NewCredential { provider: self.provider, ..new };
        self.house.rooms[1].keep(&mut tx, &self.scope, CONNECTION, new).await.unwrap();
        tx.commit().await.unwrap();
        self.model.reconnect(now);
        self.note("reconnected");
    }

    /// A consent without a refresh token, or with the one that is stored.
    async fn bring_again(&mut self, number: u64) {
        if !self.model.may_go_on() || !self.model.has_refresh_token {
            return;
        }
        self.tokens.0 = format!("access {number}");
        let (now, owner) = (self.now(), owner_of(&self.scope));
        let new = consented(&owner, now, LIFE, &self.tokens.0, &self.tokens.1);
        let mut new = NewCredential { provider: self.provider, ..new };
        let (is_spent_by_use, is_lost) =
            (self.drivers[0].policy.replay != Replay::Safe, self.model.status != Status::Active);
        if self.dice.once_in(2) && !is_lost {
            new.refresh_token = None;
        }
        let mut tx = self.house.store.begin().await.unwrap();
        self.house.rooms[1].keep(&mut tx, &self.scope, CONNECTION, new).await.unwrap();
        tx.commit().await.unwrap();
        if is_spent_by_use {
            self.model.refill(now);
            self.note(if is_lost { "refilled though lost" } else { "refilled" });
        } else {
            self.model.reconnect(now);
            self.note("brought again");
        }
    }

    /// The provider says that it has ended.
    async fn lose(&mut self) {
        let (id, now) = (&self.name.id, self.now());
        let mut tx = self.house.store.begin().await.unwrap();
        let lost = credential_lose(&mut tx, &self.scope, id, ("revoked_at_provider", now.0), now.0).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(lost, self.model.has_refresh_token && self.model.status != Status::Deleted);
        if lost {
            self.model.lose(now);
            self.note("lost");
        }
    }

    async fn tenant_acts(&mut self) {
        let mut tx = self.house.store.begin().await.unwrap();
        if self.dice.once_in(3) {
            credentials_of_integration_pause(&mut tx, &self.scope, INTEGRATION, "client_changed").await.unwrap();
            self.model.change_client();
            self.note("client changed");
        } else {
            let row = integration_by_id(&mut tx, &self.scope, INTEGRATION).await.unwrap().unwrap();
            integration_update(&mut tx, &self.scope, &row).await.unwrap();
            self.model.mend_integration();
            self.note("integration mended");
        }
        tx.commit().await.unwrap();
    }

    async fn disconnect(&mut self) {
        let mut tx = self.house.store.begin().await.unwrap();
        credential_delete(&mut tx, &self.scope, &self.name.id, self.now().0).await.unwrap();
        tx.commit().await.unwrap();
        self.model.status = Status::Deleted;
        self.note("disconnected");
    }

    async fn compare(&mut self, number: u64) {
        for node in [0, 1] {
            let got = self.drivers[node].on_load().await;
            if self.model.status == Status::Deleted {
                assert!(matches!(got, Event::Gone), "step {number}: {got:?}");
                continue;
            }
            let Event::Loaded(view) = got else { panic!("step {number}: {got:?}") };
            assert_eq!(view, self.model.seen_by(node as u64), "step {number}, of {:?}, node {node}", self.name);
        }
        let Some(Loaded { row, .. }) = self.drivers[0].loaded.clone().filter(|_| self.model.status != Status::Deleted)
        else {
            return;
        };
        if !self.model.has_refresh_token {
            assert_eq!((row.access_token, row.refresh_token), (None, None), "destroyed");
            return;
        }
        let keys = &self.house.rooms[1].keys;
        let mut tx = self.house.store.read().await.unwrap();
        let connection = connection_by_id(&mut tx, &self.scope, CONNECTION).await.unwrap().expect("a connection");
        let is_given_up = connection.reason.as_deref() == Some(Code::ROTATION_RESPONSE_LOST.as_str());
        assert!(!is_given_up || row.status != "active", "step {number}: healed, and its connection is not");
        for (place, sealed, wanted) in [
            (access_place(&row.id, row.generation), &row.access_token, &self.tokens.0),
            (refresh_place(&row.id, row.generation), &row.refresh_token, &self.tokens.1),
        ] {
            let opened = keys.open_secret(&mut tx, &owner(&row), place, sealed.as_deref().expect("a token")).await;
            assert_eq!(opened.expect("opens where it stands").expose(), wanted);
        }
    }
}

/// Says how many seeds it took when one ends in a panic.
struct Said(u64);

impl Drop for Said {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("caught by differential after {} seeds", self.0 + 1);
        }
    }
}

#[tokio::test]
async fn model_and_databases_agree_after_every_action() {
    on_both(async |store: Store| {
        let house = House::build(&store).await;
        let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
        for seed in 0..SEEDS {
            let _said = Said(seed);
            let mut story = Story::begin(&house, seed).await;
            story.compare(0).await;
            for number in 1..=STEPS {
                story.step(number).await;
            }
            for (what, times) in story.seen {
                *seen.entry(what).or_default() += times;
            }
        }
        for what in WANTED {
            assert!(seen.get(what).is_some_and(|times| *times >= 3), "too few of `{what}`: {seen:?}");
        }
    })
    .await;
}

/// What has to occur for the comparison to mean something.
const WANTED: [&str; 23] = [
    "claimed",
    "claim lost",
    "announced",
    "announce lost",
    "renewed",
    "lease lost",
    "stored",
    "store lost",
    "failed",
    "rate_limited",
    "configuration",
    "unanswered",
    "withheld",
    "needs_reauth",
    "record lost",
    "reconnected",
    "brought again",
    "refilled",
    "refilled though lost",
    "lost",
    "client changed",
    "integration mended",
    "disconnected",
];
